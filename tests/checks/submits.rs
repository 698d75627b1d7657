//! Host writes that happen before the device is let loose are visible to it, by whatever call lets it loose.

use ash::vk;

use crate::gpu::{Buffer, COPIES, Gpu, LONG};
use crate::{Failure, Outcome, Verdict};
use std::sync::Arc;

pub(crate) const CHECKS: &[super::Check] = &[
    ("queue-submit", queue_submit),
    ("queue-submit2", queue_submit2),
    ("rewrite-each-submit", rewrite_each_submit),
    ("signal-after-submit", signal_after_submit),
    ("set-event-after-submit", set_event_after_submit),
    ("cached-memory-flushed", cached_memory_flushed),
    ("cached-memory-flushed-late", cached_memory_flushed_late),
];

const SIZE: u64 = 20_000;

/// Two mapped buffers, and a copy from the first to the second.
fn pair(gpu: &Arc<Gpu>) -> Result<(Buffer, Buffer, vk::CommandBuffer), Failure> {
    let (from, to) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
    let copy = gpu.copy(&from, &to)?;
    Ok((from, to, copy))
}

fn queue_submit() -> Verdict {
    let gpu = Gpu::new()?;
    let (from, to, copy) = pair(&gpu)?;
    from.write_pattern(1);
    gpu.run(copy)?;
    to.expect_pattern(1)?;
    Ok(Outcome::Passed)
}

fn queue_submit2() -> Verdict {
    let gpu = Gpu::new()?;
    let (from, to, copy) = pair(&gpu)?;
    from.write_pattern(2);
    let buffers = [vk::CommandBufferSubmitInfo::default().command_buffer(copy)];
    let submits = [vk::SubmitInfo2::default().command_buffer_infos(&buffers)];
    // SAFETY: a recorded command buffer.
    unsafe { gpu.device.queue_submit2(gpu.queue, &submits, vk::Fence::null()) }?;
    gpu.wait_idle()?;
    to.expect_pattern(2)?;
    Ok(Outcome::Passed)
}

/// Persistently mapped, rewritten in part before each submit: what is tracked must be tracked again.
fn rewrite_each_submit() -> Verdict {
    let gpu = Gpu::new()?;
    let (from, to, copy) = pair(&gpu)?;
    from.write_pattern(0);
    for round in 1..=100u8 {
        let at = usize::from(round) * 199;
        from.store(at, round);
        gpu.run(copy)?;
        if to.load(at) != round {
            return Err(format!("round {round}: byte {at} is {}", to.load(at)).into());
        }
    }
    Ok(Outcome::Passed)
}

/// A batch is submitted, blocked; then the host writes; then it signals. Copying at the submit alone is too early.
fn signal_after_submit() -> Verdict {
    let gpu = Gpu::new()?;
    let (from, to, copy) = pair(&gpu)?;
    let timeline = gpu.timeline()?;
    let (semaphores, buffers) = ([timeline], [copy]);
    let (wait_values, signal_values, stages) = ([1], [2], [vk::PipelineStageFlags::TRANSFER]);
    let mut values = vk::TimelineSemaphoreSubmitInfo::default()
        .wait_semaphore_values(&wait_values)
        .signal_semaphore_values(&signal_values);
    let submits = [vk::SubmitInfo::default()
        .wait_semaphores(&semaphores)
        .wait_dst_stage_mask(&stages)
        .command_buffers(&buffers)
        .signal_semaphores(&semaphores)
        .push_next(&mut values)];
    // SAFETY: a recorded command buffer, and a semaphore that the host signals below.
    unsafe { gpu.device.queue_submit(gpu.queue, &submits, vk::Fence::null()) }?;
    from.write_pattern(3);
    let signal = vk::SemaphoreSignalInfo::default().semaphore(timeline).value(1);
    let wait = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&signal_values);
    // SAFETY: a live timeline semaphore, and values that only grow.
    unsafe {
        gpu.device.signal_semaphore(&signal)?;
        gpu.device.wait_semaphores(&wait, LONG)?;
    }
    to.expect_pattern(3)?;
    gpu.wait_idle()?;
    // SAFETY: no longer in use.
    unsafe { gpu.device.destroy_semaphore(timeline, None) };
    Ok(Outcome::Passed)
}

/// The same with an event, which vkCmdWaitEvents waits for.
fn set_event_after_submit() -> Verdict {
    let gpu = Gpu::new()?;
    let (from, to) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
    let event = submit_behind_an_event(&gpu, &from, &to)?;
    from.write_pattern(4);
    // SAFETY: a live event.
    unsafe { gpu.device.set_event(event) }?;
    gpu.wait_idle()?;
    to.expect_pattern(4)?;
    // SAFETY: no longer in use.
    unsafe { gpu.device.destroy_event(event, None) };
    Ok(Outcome::Passed)
}

/// Submits a copy that waits for the event that this returns, which the host is to set.
fn submit_behind_an_event(gpu: &Gpu, from: &Buffer, to: &Buffer) -> Result<vk::Event, Failure> {
    // SAFETY: a live device.
    let event = unsafe { gpu.device.create_event(&vk::EventCreateInfo::default(), None) }?;
    let commands = gpu.copy_after(event, from, to)?;
    gpu.submit(commands, vk::Fence::null())?;
    Ok(event)
}

/// Memory that is cached and not coherent, flushed and invalidated as the specification says.
fn cached_memory_flushed() -> Verdict {
    let gpu = Gpu::new()?;
    let wanted = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_CACHED;
    let new = || Buffer::new(&gpu, SIZE, COPIES, wanted, vk::MemoryPropertyFlags::HOST_COHERENT);
    let (Some(from), Some(to)) = (new()?, new()?) else {
        return Ok(Outcome::Skipped("no memory type is cached and not coherent"));
    };
    from.map()?;
    to.map()?;
    from.write_pattern(5);
    // SAFETY: mapped memory.
    unsafe { gpu.device.flush_mapped_memory_ranges(&whole(&from)) }?;
    let copy = gpu.copy(&from, &to)?;
    gpu.run(copy)?;
    // SAFETY: mapped memory.
    unsafe { gpu.device.invalidate_mapped_memory_ranges(&whole(&to)) }?;
    to.expect_pattern(5)?;
    Ok(Outcome::Passed)
}

fn whole(buffer: &Buffer) -> [vk::MappedMemoryRange<'static>; 1] {
    [vk::MappedMemoryRange::default().memory(buffer.memory).offset(0).size(vk::WHOLE_SIZE)]
}

/// The same while the batch that reads it is blocked by an event.
fn cached_memory_flushed_late() -> Verdict {
    let gpu = Gpu::new()?;
    let wanted = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_CACHED;
    let from = Buffer::new(&gpu, SIZE, COPIES, wanted, vk::MemoryPropertyFlags::HOST_COHERENT)?;
    let Some(from) = from else {
        return Ok(Outcome::Skipped("no memory type is cached and not coherent"));
    };
    from.map()?;
    let to = gpu.coherent(SIZE)?;
    let event = submit_behind_an_event(&gpu, &from, &to)?;
    from.write_pattern(6);
    // SAFETY: mapped memory, and a live event.
    unsafe {
        gpu.device.flush_mapped_memory_ranges(&whole(&from))?;
        gpu.device.set_event(event)?;
    }
    gpu.wait_idle()?;
    to.expect_pattern(6)?;
    // SAFETY: no longer in use.
    unsafe { gpu.device.destroy_event(event, None) };
    Ok(Outcome::Passed)
}
