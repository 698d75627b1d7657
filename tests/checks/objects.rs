//! Objects that come and go: what is destroyed is forgotten, and what takes its place inherits nothing.

use ash::vk;

use crate::compute::{Adder, Binding};
use crate::gpu::{COPIES, Gpu};
use crate::{Outcome, Verdict};

pub(crate) const CHECKS: &[super::Check] = &[
    ("objects-destroyed", objects_destroyed),
    ("timeline-destroyed", timeline_destroyed),
    ("pools-emptied", pools_emptied),
    ("devices-made-anew", devices_made_anew),
    ("device-queue2", device_queue2),
    ("idle-beside-descriptors", idle_beside_descriptors),
    ("recorded-anew", recorded_anew),
];

const SIZE: u64 = 8192;

/// Buffers, their views and memory, descriptors, templates, command buffers and fences, used and destroyed in good order.
fn objects_destroyed() -> Verdict {
    let gpu = Gpu::new()?;
    for binding in [Binding::Template, Binding::Texel] {
        let adder = Adder::new(&gpu, binding)?;
        gpu.run(adder.record()?)?;
    }
    Ok(Outcome::Passed)
}

/// A timeline semaphore that a batch signals, and that nobody waits for.
fn timeline_destroyed() -> Verdict {
    let gpu = Gpu::new()?;
    let device = &gpu.device;
    let (from, to) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
    let copy = gpu.copy(&from, &to)?;
    let timeline = gpu.timeline()?;
    let (buffers, semaphores, values) = ([copy], [timeline], [1]);
    let mut signals = vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(&values);
    let submits = [vk::SubmitInfo::default()
        .command_buffers(&buffers)
        .signal_semaphores(&semaphores)
        .push_next(&mut signals)];
    // SAFETY: live objects, and the semaphore is not pending when it is destroyed.
    unsafe {
        device.queue_submit(gpu.queue, &submits, vk::Fence::null())?;
        device.device_wait_idle()?;
        device.destroy_semaphore(timeline, None);
    }
    Ok(Outcome::Passed)
}

/// Pools whose objects are freed before them, one by one or all at once.
fn pools_emptied() -> Verdict {
    let gpu = Gpu::new()?;
    let device = &gpu.device;
    let pool_info = vk::CommandPoolCreateInfo::default();
    let kind = vk::DescriptorType::STORAGE_BUFFER;
    let bindings = [vk::DescriptorSetLayoutBinding::default().descriptor_type(kind).descriptor_count(1)];
    let layout_info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
    let sizes = [vk::DescriptorPoolSize::default().ty(kind).descriptor_count(4)];
    let sets_info = vk::DescriptorPoolCreateInfo::default()
        .flags(vk::DescriptorPoolCreateFlags::FREE_DESCRIPTOR_SET)
        .max_sets(4)
        .pool_sizes(&sizes);
    // SAFETY: valid create infos; all is destroyed again.
    unsafe {
        let pool = device.create_command_pool(&pool_info, None)?;
        let allocate = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(2);
        let commands = device.allocate_command_buffers(&allocate)?;
        device.free_command_buffers(pool, &commands);
        device.destroy_command_pool(pool, None);

        let layout = device.create_descriptor_set_layout(&layout_info, None)?;
        let layouts = [layout; 2];
        for is_reset in [false, true] {
            let pool = device.create_descriptor_pool(&sets_info, None)?;
            let allocate =
                vk::DescriptorSetAllocateInfo::default().descriptor_pool(pool).set_layouts(&layouts);
            let sets = device.allocate_descriptor_sets(&allocate)?;
            if is_reset {
                device.reset_descriptor_pool(pool, vk::DescriptorPoolResetFlags::empty())?;
            } else {
                device.free_descriptor_sets(pool, &sets)?;
            }
            device.destroy_descriptor_pool(pool, None);
        }
        device.destroy_descriptor_set_layout(layout, None);
    }
    Ok(Outcome::Passed)
}

/// One device after the other, which may get the handle of the one before, and so may its queue.
fn devices_made_anew() -> Verdict {
    for round in 0..6 {
        let gpu = Gpu::new()?;
        let (from, to) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
        from.write_pattern(round);
        let copy = gpu.copy(&from, &to)?;
        gpu.run(copy)?;
        to.expect_pattern(round)?;
    }
    Ok(Outcome::Passed)
}

/// A queue that is fetched by vkGetDeviceQueue2.
fn device_queue2() -> Verdict {
    let gpu = Gpu::new()?;
    let (from, to) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
    let buffers = [gpu.copy(&from, &to)?];
    from.write_pattern(1);
    // SAFETY: a queue that the device has, and a recorded command buffer.
    unsafe {
        let queue = gpu.device.get_device_queue2(&vk::DeviceQueueInfo2::default());
        let submits = [vk::SubmitInfo::default().command_buffers(&buffers)];
        gpu.device.queue_submit(queue, &submits, vk::Fence::null())?;
        gpu.device.queue_wait_idle(queue)?;
    }
    to.expect_pattern(1)?;
    Ok(Outcome::Passed)
}

/// Bytes of a buffer that no batch names any more.
const IDLE: u64 = 1 << 20;

/// Batches bind descriptors, while the host writes a buffer that these do not lead to.
fn idle_beside_descriptors() -> Verdict {
    let gpu = Gpu::new()?;
    let adder = Adder::new(&gpu, Binding::Update)?;
    let commands = adder.record()?;
    let idle = gpu.coherent(IDLE)?;
    for round in 0..4 {
        idle.write_pattern(round);
        adder.write_input(|index| index);
        gpu.run(commands)?;
        adder.expect_output(|index| index + 1, u32::from(round))?;
        idle.expect_pattern(round)?;
    }
    Ok(Outcome::Passed)
}

/// A command buffer that named a buffer when it was recorded before, and does so no more.
fn recorded_anew() -> Verdict {
    let gpu = Gpu::new()?;
    let device = &gpu.device;
    let (idle, to) = (gpu.coherent_for(IDLE, COPIES)?, gpu.coherent(IDLE)?);
    let info = vk::CommandPoolCreateInfo::default().flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER);
    let regions = [vk::BufferCopy::default().size(IDLE)];
    // SAFETY: live objects; the command buffer is not pending when it is recorded anew or freed.
    unsafe {
        let pool = device.create_command_pool(&info, None)?;
        let allocate = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
        let commands = device.allocate_command_buffers(&allocate)?[0];
        let begin = vk::CommandBufferBeginInfo::default();
        device.begin_command_buffer(commands, &begin)?;
        device.cmd_copy_buffer(commands, idle.buffer, to.buffer, &regions);
        device.end_command_buffer(commands)?;
        device.begin_command_buffer(commands, &begin)?;
        device.cmd_fill_buffer(commands, to.buffer, 0, 4096, 0);
        device.end_command_buffer(commands)?;
        for round in 0..4 {
            idle.write_pattern(round);
            gpu.run(commands)?;
            idle.expect_pattern(round)?;
        }
        device.destroy_command_pool(pool, None);
    }
    to.expect(|_| 0)?;
    Ok(Outcome::Passed)
}
