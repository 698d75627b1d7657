//! Several queues, and devices that are groups: of one, as every device is.

use ash::vk;

use crate::gpu::{COPIES, Gpu, LONG};
use crate::{Failure, Outcome, Verdict};

pub(crate) const CHECKS: &[super::Check] = &[
    ("two-queues", two_queues),
    ("queue-family-ownership", queue_family_ownership),
    ("device-group", || device_group(false)),
    ("device-group-in-flight", || device_group(true)),
];

const SIZE: u64 = 20_000;

/// A queue goes on from what another copied, of which the host is told by the second alone.
fn two_queues() -> Verdict {
    let gpu = Gpu::new()?;
    let [_, other, ..] = gpu.queues[..] else { return Ok(Outcome::Skipped("there is one queue")) };
    let (first, between, last) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
    let fence = gpu.fence()?;
    let (copies, onwards) = ([gpu.copy(&first, &between)?], [gpu.copy(&between, &last)?]);
    // SAFETY: a live device.
    let semaphores = unsafe { [gpu.device.create_semaphore(&vk::SemaphoreCreateInfo::default(), None)?] };
    let stages = [vk::PipelineStageFlags::ALL_COMMANDS];
    let signalling = [vk::SubmitInfo::default().command_buffers(&copies).signal_semaphores(&semaphores)];
    let waiting = [vk::SubmitInfo::default()
        .wait_semaphores(&semaphores)
        .wait_dst_stage_mask(&stages)
        .command_buffers(&onwards)];
    for round in 1..=3 {
        first.write_pattern(round);
        // SAFETY: recorded command buffers that are no longer pending, and queues that one thread uses.
        unsafe {
            gpu.device.queue_submit(gpu.queue, &signalling, vk::Fence::null())?;
            gpu.device.queue_submit(other, &waiting, fence)?;
            gpu.device.wait_for_fences(&[fence], true, LONG)?;
            gpu.device.reset_fences(&[fence])?;
        }
        last.expect_pattern(round)?;
        between.expect_pattern(round)?;
    }
    gpu.wait_idle()?;
    // SAFETY: no longer in use.
    unsafe {
        gpu.device.destroy_fence(fence, None);
        gpu.device.destroy_semaphore(semaphores[0], None);
    }
    Ok(Outcome::Passed)
}

/// A buffer that one family at a time owns goes from the first to the second, whose copy of it the host then reads, and
/// back.
fn queue_family_ownership() -> Verdict {
    let gpu = Gpu::new()?;
    let Some(other) = gpu.queue_of_other_family else {
        return Ok(Outcome::Skipped("there is one queue family"));
    };
    let (device, fence) = (&gpu.device, gpu.fence()?);
    let (from, passed_on, to) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
    let regions = [vk::BufferCopy::default().size(SIZE)];
    // One half of the transfer: the other half is the same, on a queue of the other family.
    let pass_on = |commands, [source, target]: [u32; 2]| {
        let barrier = [vk::BufferMemoryBarrier::default()
            .buffer(passed_on.buffer)
            .size(vk::WHOLE_SIZE)
            .src_queue_family_index(source)
            .dst_queue_family_index(target)
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(vk::AccessFlags::TRANSFER_READ)];
        let (all, none) = (vk::PipelineStageFlags::ALL_COMMANDS, vk::DependencyFlags::empty());
        // SAFETY: live objects.
        unsafe { device.cmd_pipeline_barrier(commands, all, all, none, &[], &barrier, &[]) };
    };
    // SAFETY: live objects.
    let (write, take_back) = unsafe {
        let write = gpu.record(|commands| {
            device.cmd_copy_buffer(commands, from.buffer, passed_on.buffer, &regions);
            pass_on(commands, [0, 1]);
        })?;
        (write, gpu.record(|commands| pass_on(commands, [1, 0]))?)
    };
    // SAFETY: live objects; those that are made are destroyed when they are no longer in use.
    unsafe {
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(1);
        let pool = device.create_command_pool(&info, None)?;
        let info = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
        let read = device.allocate_command_buffers(&info)?[0];
        device.begin_command_buffer(read, &vk::CommandBufferBeginInfo::default())?;
        pass_on(read, [0, 1]);
        device.cmd_copy_buffer(read, passed_on.buffer, to.buffer, &regions);
        pass_on(read, [1, 0]);
        device.end_command_buffer(read)?;
        let there = [device.create_semaphore(&vk::SemaphoreCreateInfo::default(), None)?];
        let back = [device.create_semaphore(&vk::SemaphoreCreateInfo::default(), None)?];
        let stages = [vk::PipelineStageFlags::ALL_COMMANDS];
        let (write, read, take_back) = ([write], [read], [take_back]);
        let first = [vk::SubmitInfo::default().command_buffers(&write).signal_semaphores(&there)];
        let second = [vk::SubmitInfo::default()
            .wait_semaphores(&there)
            .wait_dst_stage_mask(&stages)
            .command_buffers(&read)
            .signal_semaphores(&back)];
        let third = [vk::SubmitInfo::default()
            .wait_semaphores(&back)
            .wait_dst_stage_mask(&stages)
            .command_buffers(&take_back)];
        for round in 1..=3 {
            from.write_pattern(round);
            device.queue_submit(gpu.queue, &first, vk::Fence::null())?;
            device.queue_submit(other, &second, vk::Fence::null())?;
            device.queue_submit(gpu.queue, &third, fence)?;
            device.wait_for_fences(&[fence], true, LONG)?;
            device.reset_fences(&[fence])?;
            to.expect_pattern(round)?;
            passed_on.expect_pattern(round)?;
        }
        gpu.wait_idle()?;
        device.destroy_semaphore(there[0], None);
        device.destroy_semaphore(back[0], None);
        device.destroy_command_pool(pool, None);
        device.destroy_fence(fence, None);
    }
    Ok(Outcome::Passed)
}

/// Memory that is allocated, bound and used with all that is said of the devices of a group. The batch waits for the host if
/// it is to be in flight: then it may be kept for a while.
fn device_group(is_in_flight: bool) -> Verdict {
    let gpu = Gpu::new()?;
    let (from, to) = (Member::new(&gpu)?, Member::new(&gpu)?);
    let (gate, fence) = (gpu.timeline()?, gpu.fence()?);
    let regions = [vk::BufferCopy::default().size(SIZE)];
    // SAFETY: live buffers of that size.
    let commands = gpu.record(|commands| unsafe {
        gpu.device.cmd_set_device_mask(commands, 1);
        gpu.device.cmd_copy_buffer(commands, from.buffer, to.buffer, &regions);
    })?;
    let (commands, semaphores, values) = ([commands], [gate], [1]);
    let (masks, indices, stages) = ([1], [0], [vk::PipelineStageFlags::ALL_COMMANDS]);
    let count = usize::from(is_in_flight);
    let mut timeline = vk::TimelineSemaphoreSubmitInfo::default().wait_semaphore_values(&values[..count]);
    let mut group = vk::DeviceGroupSubmitInfo::default()
        .wait_semaphore_device_indices(&indices[..count])
        .command_buffer_device_masks(&masks);
    let submits = [vk::SubmitInfo::default()
        .wait_semaphores(&semaphores[..count])
        .wait_dst_stage_mask(&stages[..count])
        .command_buffers(&commands)
        .push_next(&mut timeline)
        .push_next(&mut group)];
    from.fill(1);
    // SAFETY: live objects, and a queue that one thread uses.
    unsafe { gpu.device.queue_submit(gpu.queue, &submits, fence) }?;
    if is_in_flight {
        from.fill(2);
        // SAFETY: a live timeline, at 0.
        unsafe { gpu.device.signal_semaphore(&vk::SemaphoreSignalInfo::default().semaphore(gate).value(1)) }?;
    }
    // SAFETY: a live fence.
    unsafe { gpu.device.wait_for_fences(&[fence], true, LONG) }?;
    to.expect(if is_in_flight { 2 } else { 1 })?;
    gpu.wait_idle()?;
    // SAFETY: no longer in use.
    unsafe {
        gpu.device.destroy_fence(fence, None);
        gpu.device.destroy_semaphore(gate, None);
        for Member { buffer, memory, .. } in [from, to] {
            gpu.device.destroy_buffer(buffer, None);
            gpu.device.free_memory(memory, None);
        }
    }
    Ok(Outcome::Passed)
}

/// A mapped buffer of the first device of a group.
struct Member {
    buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    address: *mut u8,
}

impl Member {
    fn new(gpu: &Gpu) -> Result<Self, Failure> {
        let info = vk::BufferCreateInfo::default().size(SIZE).usage(COPIES);
        // SAFETY: a live device, a type that the buffer may use, and memory that is not mapped.
        unsafe {
            let buffer = gpu.device.create_buffer(&info, None)?;
            let requirements = gpu.device.get_buffer_memory_requirements(buffer);
            let memory_type = gpu.coherent_type(requirements.memory_type_bits);
            let memory_type = memory_type.ok_or_else(|| "no coherent memory for a buffer".to_string())?;
            let mut flags = vk::MemoryAllocateFlagsInfo::default()
                .flags(vk::MemoryAllocateFlags::DEVICE_MASK)
                .device_mask(1);
            let info = vk::MemoryAllocateInfo::default()
                .allocation_size(requirements.size)
                .memory_type_index(memory_type)
                .push_next(&mut flags);
            let memory = gpu.device.allocate_memory(&info, None)?;
            let indices = [0];
            let mut group = vk::BindBufferMemoryDeviceGroupInfo::default().device_indices(&indices);
            let bind =
                vk::BindBufferMemoryInfo::default().buffer(buffer).memory(memory).push_next(&mut group);
            gpu.device.bind_buffer_memory2(&[bind])?;
            let flags = vk::MemoryMapFlags::empty();
            let address = gpu.device.map_memory(memory, 0, vk::WHOLE_SIZE, flags)?.cast();
            Ok(Self { buffer, memory, address })
        }
    }

    fn at(&self, offset: u64) -> *mut u8 {
        self.address.wrapping_add(usize::try_from(offset).unwrap_or(usize::MAX))
    }

    fn fill(&self, value: u8) {
        // SAFETY: inside the mapping; volatile, as the device may read it at any time.
        (0..SIZE).for_each(|offset| unsafe { self.at(offset).write_volatile(value) });
    }

    fn expect(&self, value: u8) -> Result<(), Failure> {
        // SAFETY: as above.
        match (0..SIZE).find(|offset| unsafe { self.at(*offset).read_volatile() } != value) {
            None => Ok(()),
            Some(offset) => Err(format!("byte {offset} is not {value}").into()),
        }
    }
}
