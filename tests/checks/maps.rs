//! Mapping: offsets, remapping, freeing while mapped, and many resources in one allocation.

use ash::vk;

use crate::gpu::{COPIES, Gpu, command};
use crate::{Outcome, Verdict};

pub(crate) const CHECKS: &[super::Check] = &[
    ("map-at-offset", map_at_offset),
    ("map-any-part", map_any_part),
    ("written-while-unmapped", written_while_unmapped),
    ("map-in-flight", map_in_flight),
    ("contents-survive-unmapping", contents_survive_unmapping),
    ("write-then-unmap", write_then_unmap),
    ("free-while-mapped", free_while_mapped),
    ("sub-allocation", sub_allocation),
    ("no-submit-at-all", no_submit_at_all),
    ("map-memory2", map_memory2),
    ("bind-buffer-memory2", bind_buffer_memory2),
];

const SIZE: u64 = 70_000;

fn map_at_offset() -> Verdict {
    let gpu = Gpu::new()?;
    let (from, to) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
    let copy = gpu.copy(&from, &to)?;
    from.fill(1);
    from.unmap();
    for offset in [0u64, 64, 4096, 12_345, 69_999] {
        let size = (SIZE - offset).min(5000);
        // SAFETY: not mapped; the range lies inside.
        let address =
            unsafe { gpu.device.map_memory(from.memory, offset, size, vk::MemoryMapFlags::empty()) }?
                .cast::<u8>();
        for i in 0..usize::try_from(size).unwrap_or(0) {
            // SAFETY: inside the mapped range.
            let seen = unsafe { address.add(i).read_volatile() };
            if seen != 1 {
                return Err(format!("byte {i} of the mapping at {offset} is {seen}").into());
            }
            // SAFETY: as above.
            unsafe { address.add(i).write_volatile(2) };
        }
        gpu.run(copy)?;
        to.expect(|at| if (offset..offset + size).contains(&(at as u64)) { 2 } else { 1 })?;
        for i in 0..usize::try_from(size).unwrap_or(0) {
            // SAFETY: as above.
            unsafe { address.add(i).write_volatile(1) };
        }
        // SAFETY: mapped above.
        unsafe { gpu.device.unmap_memory(from.memory) };
    }
    Ok(Outcome::Passed)
}

/// Parts of all sizes at all kinds of offsets, each at an address that is aligned as the limit says, less the offset.
fn map_any_part() -> Verdict {
    let gpu = Gpu::new()?;
    // SAFETY: a device of a live instance.
    let limits = unsafe { gpu.instance.get_physical_device_properties(gpu.physical) }.limits;
    let buffer = gpu.coherent(SIZE)?;
    buffer.write_pattern(3);
    let expected: Vec<u8> = (0..buffer.len()).map(|offset| buffer.load(offset)).collect();
    buffer.unmap();
    for offset in [0, 1, 63, 64, 4095, 4096, 4097, 65_535, 69_999] {
        for size in [1, 2, 64, 4096, 5000, SIZE - offset, vk::WHOLE_SIZE] {
            let end = if size == vk::WHOLE_SIZE { SIZE } else { offset + size };
            if end > SIZE {
                continue;
            }
            let flags = vk::MemoryMapFlags::empty();
            // SAFETY: not mapped; the range lies inside.
            let address = unsafe { gpu.device.map_memory(buffer.memory, offset, size, flags) }?.cast::<u8>();
            let start = address.addr().wrapping_sub(usize::try_from(offset).unwrap_or(0));
            if !start.is_multiple_of(limits.min_memory_map_alignment) {
                return Err(format!("the map at {offset} is at {address:p}").into());
            }
            for (index, byte) in expected[offset as usize..end as usize].iter().enumerate() {
                // SAFETY: inside the mapped range.
                if unsafe { address.add(index).read_volatile() } != *byte {
                    return Err(format!("byte {index} of {size} at {offset} is wrong").into());
                }
            }
            // SAFETY: mapped above.
            unsafe { gpu.device.unmap_memory(buffer.memory) };
        }
    }
    Ok(Outcome::Passed)
}

/// The device writes memory that is not mapped, and was before.
fn written_while_unmapped() -> Verdict {
    let gpu = Gpu::new()?;
    let (from, to) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
    let copy = gpu.copy(&from, &to)?;
    for round in 1..5 {
        from.write_pattern(round);
        to.unmap();
        gpu.run(copy)?;
        to.map()?;
        to.expect_pattern(round)?;
    }
    Ok(Outcome::Passed)
}

/// Mapped while a batch waits for the host, which writes what the batch reads and then lets it go.
fn map_in_flight() -> Verdict {
    let gpu = Gpu::new()?;
    let (from, to) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
    let copy = gpu.copy(&from, &to)?;
    for round in 1..5 {
        from.unmap();
        to.unmap();
        gpu.run_after(copy, || {
            from.map()?;
            to.map()?;
            from.write_pattern(round);
            Ok(())
        })?;
        to.expect_pattern(round)?;
    }
    Ok(Outcome::Passed)
}

fn contents_survive_unmapping() -> Verdict {
    let gpu = Gpu::new()?;
    let buffer = gpu.coherent(SIZE)?;
    for round in 0..5 {
        buffer.write_pattern(round);
        buffer.unmap();
        buffer.map()?;
        buffer.expect_pattern(round)?;
    }
    Ok(Outcome::Passed)
}

/// The application writes, unmaps, and only then submits.
fn write_then_unmap() -> Verdict {
    let gpu = Gpu::new()?;
    let (from, to) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
    let copy = gpu.copy(&from, &to)?;
    for round in 1..5 {
        from.write_pattern(round);
        from.unmap();
        gpu.run(copy)?;
        to.expect_pattern(round)?;
        from.map()?;
    }
    Ok(Outcome::Passed)
}

/// Freed memory's pages are somebody else's next, who must not find old bytes tracked as new.
fn free_while_mapped() -> Verdict {
    let gpu = Gpu::new()?;
    let to = gpu.coherent(SIZE)?;
    for round in 1..20 {
        let from = gpu.coherent(SIZE)?;
        from.write_pattern(round);
        let copy = gpu.copy(&from, &to)?;
        gpu.run(copy)?;
        to.expect_pattern(round)?;
    }
    Ok(Outcome::Passed)
}

/// Hundreds of buffers in one allocation, none of them a whole page.
fn sub_allocation() -> Verdict {
    let gpu = Gpu::new()?;
    let usage = vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
    let info = vk::BufferCreateInfo::default().size(256).usage(usage);
    let mut buffers = Vec::new();
    let mut size = 0;
    let mut bits = u32::MAX;
    for _ in 0..400 {
        // SAFETY: a live device; destroyed below.
        let buffer = unsafe { gpu.device.create_buffer(&info, None) }?;
        // SAFETY: a live buffer.
        let requirements = unsafe { gpu.device.get_buffer_memory_requirements(buffer) };
        let offset = u64::next_multiple_of(size, requirements.alignment);
        size = offset + requirements.size;
        bits &= requirements.memory_type_bits;
        buffers.push((buffer, offset));
    }
    let memory_type = gpu.coherent_type(bits).ok_or_else(|| "no coherent memory".to_string())?;
    let allocate = vk::MemoryAllocateInfo::default().allocation_size(size).memory_type_index(memory_type);
    // SAFETY: a valid type; offsets are aligned and inside.
    let address = unsafe {
        let memory = gpu.device.allocate_memory(&allocate, None)?;
        for &(buffer, offset) in &buffers {
            gpu.device.bind_buffer_memory(buffer, memory, offset)?;
        }
        (gpu.device.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())?.cast::<u8>(), memory)
    };
    let (address, memory) = address;
    let at = |offset: u64| address.wrapping_add(usize::try_from(offset).unwrap_or(0));
    // The host writes the even ones, the device copies each to its odd neighbour.
    let regions = [vk::BufferCopy::default().size(256)];
    // SAFETY: live buffers.
    let commands = gpu.record(|commands| unsafe {
        for pair in buffers.chunks_exact(2) {
            gpu.device.cmd_copy_buffer(commands, pair[0].0, pair[1].0, &regions);
        }
    })?;
    let value = |index: usize, round: usize| (index * 7 + round).to_le_bytes()[0];
    let mut wrong = None;
    for round in 0..3 {
        for (index, pair) in buffers.chunks_exact(2).enumerate() {
            // SAFETY: inside the mapping.
            (0..256).for_each(|i| unsafe { at(pair[0].1 + i).write_volatile(value(index, round)) });
        }
        gpu.run(commands)?;
        for (index, pair) in buffers.chunks_exact(2).enumerate() {
            // SAFETY: inside the mapping.
            let matches = |i: &u64| unsafe { at(pair[1].1 + i).read_volatile() } == value(index, round);
            if !(0..256).all(|i| matches(&i)) {
                wrong = Some(format!("buffer {} in round {round}", 2 * index + 1));
            }
        }
    }
    // SAFETY: nothing is pending.
    unsafe {
        buffers.iter().for_each(|&(buffer, _)| gpu.device.destroy_buffer(buffer, None));
        gpu.device.free_memory(memory, None);
    }
    match wrong {
        Some(what) => Err(what.into()),
        None => Ok(Outcome::Passed),
    }
}

/// Memory the device never touches is memory all the same.
fn no_submit_at_all() -> Verdict {
    let gpu = Gpu::new()?;
    let buffer = gpu.coherent(SIZE)?;
    buffer.write_pattern(1);
    gpu.wait_idle()?;
    buffer.expect_pattern(1)?;
    Ok(Outcome::Passed)
}

/// The commands that take structures do what the older ones do, and all may be mixed.
fn map_memory2() -> Verdict {
    let gpu = Gpu::new()?;
    let map = command!(gpu, vkMapMemory2KHR: PFN_vkMapMemory2KHR);
    let unmap = command!(gpu, vkUnmapMemory2KHR: PFN_vkUnmapMemory2KHR);
    let (Some(map), Some(unmap)) = (map, unmap) else { return Ok(Outcome::Skipped("no vkMapMemory2")) };
    let (from, to) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
    let copy = gpu.copy(&from, &to)?;
    let unmap_info = vk::MemoryUnmapInfoKHR::default().memory(from.memory);
    for (round, offset) in (2..).zip([0u64, 12_345, 65_536]) {
        from.fill(1);
        // SAFETY: mapped, by whichever command.
        unsafe { unmap(gpu.device.handle(), &raw const unmap_info) }.result()?;
        let mut address = std::ptr::null_mut();
        let info = vk::MemoryMapInfoKHR::default().memory(from.memory).offset(offset).size(100);
        // SAFETY: host-visible memory that is not mapped, of which the range is a part.
        unsafe { map(gpu.device.handle(), &raw const info, &raw mut address) }.result()?;
        for index in 0..100 {
            // SAFETY: inside the mapping.
            unsafe { address.cast::<u8>().add(index).write_volatile(round) };
        }
        // SAFETY: mapped above.
        unsafe { unmap(gpu.device.handle(), &raw const unmap_info) }.result()?;
        gpu.run(copy)?;
        to.expect(|at| if (offset..offset + 100).contains(&(at as u64)) { round } else { 1 })?;
        from.map()?;
    }
    Ok(Outcome::Passed)
}

fn bind_buffer_memory2() -> Verdict {
    let gpu = Gpu::new()?;
    let to = gpu.coherent(SIZE)?;
    let info = vk::BufferCreateInfo::default().size(SIZE).usage(COPIES);
    // SAFETY: a live device; destroyed below, like the memory.
    let buffer = unsafe { gpu.device.create_buffer(&info, None) }?;
    // SAFETY: a live buffer.
    let requirements = unsafe { gpu.device.get_buffer_memory_requirements(buffer) };
    let memory_type =
        gpu.coherent_type(requirements.memory_type_bits).ok_or_else(|| "no coherent memory".to_string())?;
    let allocate =
        vk::MemoryAllocateInfo::default().allocation_size(requirements.size).memory_type_index(memory_type);
    // SAFETY: a type this buffer may use.
    let (memory, address) = unsafe {
        let memory = gpu.device.allocate_memory(&allocate, None)?;
        let bind = [vk::BindBufferMemoryInfo::default().buffer(buffer).memory(memory)];
        gpu.device.bind_buffer_memory2(&bind)?;
        (memory, gpu.device.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())?.cast::<u8>())
    };
    let regions = [vk::BufferCopy::default().size(SIZE)];
    // SAFETY: live buffers of that size.
    let copy =
        gpu.record(|commands| unsafe { gpu.device.cmd_copy_buffer(commands, buffer, to.buffer, &regions) })?;
    for round in 1..4 {
        // SAFETY: inside the mapping.
        (0..to.len()).for_each(|offset| unsafe { address.add(offset).write_volatile(round) });
        gpu.run(copy)?;
        to.expect(|_| round)?;
    }
    // SAFETY: nothing is pending.
    unsafe {
        gpu.device.destroy_buffer(buffer, None);
        gpu.device.free_memory(memory, None);
    }
    Ok(Outcome::Passed)
}
