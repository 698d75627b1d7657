//! What mapping costs the process: neither descriptors nor, beyond measure, mappings.

use ash::vk;

use crate::gpu::Gpu;
use crate::{Outcome, Verdict};

pub(crate) const CHECKS: &[super::Check] =
    &[("ten-thousand-mapped-allocations", ten_thousand_mapped_allocations)];

fn ten_thousand_mapped_allocations() -> Verdict {
    let gpu = Gpu::new()?;
    // SAFETY: a live physical device.
    let limits = unsafe { gpu.instance.get_physical_device_properties(gpu.physical) }.limits;
    // With room for a few more.
    if limits.max_memory_allocation_count < 10_010 {
        return Ok(Outcome::Skipped("the device has no room for ten thousand allocations"));
    }
    let sample = gpu.coherent(4096)?;
    // SAFETY: a live buffer.
    let bits = unsafe { gpu.device.get_buffer_memory_requirements(sample.buffer) }.memory_type_bits;
    let memory_type = gpu.coherent_type(bits).ok_or_else(|| "no coherent memory".to_string())?;
    let info = vk::MemoryAllocateInfo::default().allocation_size(4096).memory_type_index(memory_type);
    let usage = vk::BufferUsageFlags::TRANSFER_SRC;
    let buffer_info = vk::BufferCreateInfo::default().size(4096).usage(usage);
    let mut all = Vec::new();
    for index in 0..10_000usize {
        // SAFETY: a valid type; freed at the end.
        let (memory, buffer, address) = unsafe {
            let memory = gpu.device.allocate_memory(&info, None)?;
            let buffer = gpu.device.create_buffer(&buffer_info, None)?;
            gpu.device.bind_buffer_memory(buffer, memory, 0)?;
            let address = gpu.device.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())?;
            (memory, buffer, address.cast::<u64>())
        };
        // SAFETY: inside the mapping, which is page-aligned or nearly so.
        unsafe { address.write_volatile(index as u64) };
        all.push((memory, buffer, address));
    }
    // The device reads every one of them, in one submit.
    let size = all.len() as u64 * 8;
    let seen = gpu.coherent(size)?;
    // SAFETY: live buffers.
    let commands = gpu.record(|commands| unsafe {
        for (index, &(_, buffer, _)) in all.iter().enumerate() {
            let region = vk::BufferCopy { src_offset: 0, dst_offset: index as u64 * 8, size: 8 };
            gpu.device.cmd_copy_buffer(commands, buffer, seen.buffer, &[region]);
        }
    })?;
    gpu.run(commands)?;
    let outcome = seen.expect(|offset| (offset / 8).to_ne_bytes()[offset % 8]);
    // SAFETY: nothing is pending.
    unsafe {
        for (memory, buffer, _) in all {
            gpu.device.destroy_buffer(buffer, None);
            gpu.device.free_memory(memory, None);
        }
    }
    outcome.map(|()| Outcome::Passed)
}
