//! Commands that copy to and from buffers, by each of their forms.
//!
//! The device reads what the host wrote since the last submit, and the host what the device wrote.

use ash::vk;

use crate::gpu::{Buffer, COPIES, Gpu, ROUND_TRIP};
use crate::{Failure, Outcome, Verdict};

pub(crate) const CHECKS: &[super::Check] = &[
    ("copy-buffer2", copy_buffer2),
    ("update-buffer", update_buffer),
    ("fill-buffer", fill_buffer),
    ("buffer-image-copies2", buffer_image_copies2),
    ("copy-query-results", copy_query_results),
    ("sparse-buffer", sparse_buffer),
];

const SIZE: u64 = 12_000;

fn copy_buffer2() -> Verdict {
    let gpu = Gpu::new()?;
    let (from, to) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
    let regions = [vk::BufferCopy2::default().size(SIZE)];
    let info = vk::CopyBufferInfo2::default().src_buffer(from.buffer).dst_buffer(to.buffer).regions(&regions);
    // SAFETY: live buffers of that size.
    let commands = gpu.record(|commands| unsafe { gpu.device.cmd_copy_buffer2(commands, &info) })?;
    for round in 0..4 {
        from.write_pattern(round);
        gpu.run(commands)?;
        to.expect_pattern(round)?;
    }
    Ok(Outcome::Passed)
}

fn update_buffer() -> Verdict {
    let gpu = Gpu::new()?;
    let buffer = gpu.coherent(SIZE)?;
    for round in 1..5u8 {
        let data = vec![round; buffer.len()];
        // SAFETY: a live buffer of that size.
        let commands = gpu
            .record(|commands| unsafe { gpu.device.cmd_update_buffer(commands, buffer.buffer, 0, &data) })?;
        gpu.run(commands)?;
        buffer.expect(|_| round)?;
    }
    Ok(Outcome::Passed)
}

/// Part of a buffer, whose other bytes stay the host's.
fn fill_buffer() -> Verdict {
    let gpu = Gpu::new()?;
    let buffer = gpu.coherent(SIZE)?;
    for round in 1..5u8 {
        buffer.fill(!round);
        let value = u32::from_ne_bytes([round; 4]);
        // SAFETY: a live buffer of that size.
        let commands = gpu.record(|commands| unsafe {
            gpu.device.cmd_fill_buffer(commands, buffer.buffer, 4000, 4000, value);
        })?;
        gpu.run(commands)?;
        buffer.expect(|offset| if (4000..8000).contains(&offset) { round } else { !round })?;
    }
    Ok(Outcome::Passed)
}

fn buffer_image_copies2() -> Verdict {
    let gpu = Gpu::new()?;
    let (from, to) = (gpu.coherent(ROUND_TRIP)?, gpu.coherent(ROUND_TRIP)?);
    let commands = gpu.record_image_round_trip2(&from, &to)?;
    for round in 0..4 {
        from.write_pattern(round);
        gpu.run(commands)?;
        to.expect_pattern(round)?;
    }
    Ok(Outcome::Passed)
}

/// An occlusion query of no draws: zero, and available.
fn copy_query_results() -> Verdict {
    let gpu = Gpu::new()?;
    let device = &gpu.device;
    let results = gpu.coherent(8)?;
    let info = vk::QueryPoolCreateInfo::default().query_type(vk::QueryType::OCCLUSION).query_count(1);
    // SAFETY: a valid create info; destroyed below.
    let pool = unsafe { device.create_query_pool(&info, None) }?;
    let flags = vk::QueryResultFlags::TYPE_64 | vk::QueryResultFlags::WAIT;
    // SAFETY: live objects.
    let commands = gpu.record(|commands| unsafe {
        device.cmd_reset_query_pool(commands, pool, 0, 1);
        device.cmd_begin_query(commands, pool, 0, vk::QueryControlFlags::empty());
        device.cmd_end_query(commands, pool, 0);
        device.cmd_copy_query_pool_results(commands, pool, 0, 1, results.buffer, 0, 8, flags);
    })?;
    for _ in 0..3 {
        results.fill(0xaa);
        gpu.run(commands)?;
        // Nothing was drawn.
        results.expect(|_| 0)?;
    }
    // SAFETY: nothing is pending.
    unsafe { device.destroy_query_pool(pool, None) };
    Ok(Outcome::Passed)
}

/// A buffer that gets its memory by vkQueueBindSparse.
fn sparse_buffer() -> Verdict {
    let gpu = Gpu::new()?;
    let device = &gpu.device;
    // SAFETY: a device of the live instance.
    let (features, families) = unsafe {
        (
            gpu.instance.get_physical_device_features(gpu.physical),
            gpu.instance.get_physical_device_queue_family_properties(gpu.physical),
        )
    };
    let binds = families.first().is_some_and(|one| one.queue_flags.contains(vk::QueueFlags::SPARSE_BINDING));
    if features.sparse_binding == vk::FALSE || !binds {
        return Ok(Outcome::Skipped("no sparse binding"));
    }
    let to = gpu.coherent(SIZE)?;
    let info =
        vk::BufferCreateInfo::default().flags(vk::BufferCreateFlags::SPARSE_BINDING).size(SIZE).usage(COPIES);
    // SAFETY: a valid create info; destroyed below, like the memory.
    let (buffer, requirements) = unsafe {
        let buffer = device.create_buffer(&info, None)?;
        (buffer, device.get_buffer_memory_requirements(buffer))
    };
    let memory_type = gpu.coherent_type(requirements.memory_type_bits).ok_or_else(no_coherent_memory)?;
    let allocate =
        vk::MemoryAllocateInfo::default().allocation_size(requirements.size).memory_type_index(memory_type);
    // SAFETY: a type this buffer may use.
    let (memory, address) = unsafe {
        let memory = device.allocate_memory(&allocate, None)?;
        (memory, device.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())?.cast::<u8>())
    };
    let binds = [vk::SparseMemoryBind::default().size(requirements.size).memory(memory)];
    let buffers = [vk::SparseBufferMemoryBindInfo::default().buffer(buffer).binds(&binds)];
    // SAFETY: live objects.
    unsafe {
        device.queue_bind_sparse(
            gpu.queue,
            &[vk::BindSparseInfo::default().buffer_binds(&buffers)],
            vk::Fence::null(),
        )?;
        device.queue_wait_idle(gpu.queue)?;
    }
    let regions = [vk::BufferCopy::default().size(SIZE)];
    // SAFETY: live buffers of that size.
    let copy =
        gpu.record(|commands| unsafe { device.cmd_copy_buffer(commands, buffer, to.buffer, &regions) })?;
    let outcome = sparse_rounds(&gpu, &to, address, copy);
    // SAFETY: nothing is pending.
    unsafe {
        device.destroy_buffer(buffer, None);
        device.free_memory(memory, None);
    }
    outcome.map(|()| Outcome::Passed)
}

fn sparse_rounds(gpu: &Gpu, to: &Buffer, address: *mut u8, copy: vk::CommandBuffer) -> Result<(), Failure> {
    for round in 1..4 {
        // SAFETY: inside the mapping.
        (0..to.len()).for_each(|offset| unsafe { address.add(offset).write_volatile(round) });
        gpu.run(copy)?;
        to.expect(|_| round)?;
    }
    Ok(())
}

fn no_coherent_memory() -> Failure {
    "no coherent memory for a sparse buffer".to_string().into()
}
