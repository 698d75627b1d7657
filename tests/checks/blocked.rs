//! Batches that were submitted before the host lets them go: what the host writes until then is what they see.

use ash::vk;

use crate::gpu::{Buffer, Gpu, LONG};
use crate::{Failure, Outcome, Verdict};
use std::sync::Arc;

pub(crate) const CHECKS: &[super::Check] = &[
    ("chain-of-two-timelines", chain_of_two_timelines),
    ("signal-by-another-thread", || released_by_another_thread(Release::Signal)),
    ("set-event-by-another-thread", || released_by_another_thread(Release::Event)),
    ("part-of-a-call", part_of_a_call),
    ("events-of-host-and-device", || events_of_host_and_device(false)),
    ("events-of-host-and-device2", || events_of_host_and_device(true)),
];

const SIZE: u64 = 20_000;

/// Submits `commands`, to wait for and signal timelines.
fn submit(
    gpu: &Gpu,
    commands: vk::CommandBuffer,
    wait: (vk::Semaphore, u64),
    signal: (vk::Semaphore, u64),
    fence: vk::Fence,
) -> Result<(), Failure> {
    let buffers = [vk::CommandBufferSubmitInfo::default().command_buffer(commands)];
    let one = |(semaphore, value)| {
        [vk::SemaphoreSubmitInfo::default()
            .semaphore(semaphore)
            .value(value)
            .stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)]
    };
    let (waits, signals) = (one(wait), one(signal));
    let submits = [vk::SubmitInfo2::default()
        .wait_semaphore_infos(&waits)
        .command_buffer_infos(&buffers)
        .signal_semaphore_infos(&signals)];
    // SAFETY: a recorded command buffer, and semaphores that the host signals.
    Ok(unsafe { gpu.device.queue_submit2(gpu.queue, &submits, fence) }?)
}

fn signal(gpu: &Gpu, semaphore: vk::Semaphore, value: u64) -> Result<(), Failure> {
    let info = vk::SemaphoreSignalInfo::default().semaphore(semaphore).value(value);
    // SAFETY: a live timeline semaphore, and values that only grow.
    Ok(unsafe { gpu.device.signal_semaphore(&info) }?)
}

/// Waits for `value`, then for everything.
fn finish(gpu: &Gpu, semaphore: vk::Semaphore, value: u64) -> Result<(), Failure> {
    let (semaphores, values) = ([semaphore], [value]);
    let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
    // SAFETY: a live timeline semaphore.
    Ok(unsafe { gpu.device.wait_semaphores(&info, LONG) }?)
}

/// Two batches, each with a timeline of its own to wait for; the second goes on from what the first copied. The host lets
/// the second go first, and writes in between.
fn chain_of_two_timelines() -> Verdict {
    let gpu = Gpu::new()?;
    let [first, between, last] = three(&gpu)?;
    let (one, other, done) = (gpu.timeline()?, gpu.timeline()?, gpu.timeline()?);
    submit(&gpu, gpu.copy(&first, &between)?, (one, 1), (done, 1), vk::Fence::null())?;
    submit(&gpu, gpu.copy(&between, &last)?, (other, 1), (done, 2), vk::Fence::null())?;
    first.write_pattern(1);
    signal(&gpu, other, 1)?;
    first.write_pattern(2);
    signal(&gpu, one, 1)?;
    finish(&gpu, done, 2)?;
    last.expect_pattern(2)?;
    gpu.wait_idle()?;
    // SAFETY: no longer in use.
    unsafe { destroy(&gpu, &[one, other, done]) };
    Ok(Outcome::Passed)
}

/// # Safety
/// Semaphores that are no longer in use.
unsafe fn destroy(gpu: &Gpu, semaphores: &[vk::Semaphore]) {
    for &semaphore in semaphores {
        // SAFETY: the caller's promise.
        unsafe { gpu.device.destroy_semaphore(semaphore, None) };
    }
}

fn three(gpu: &Arc<Gpu>) -> Result<[Buffer; 3], Failure> {
    Ok([gpu.coherent(SIZE)?, gpu.coherent(SIZE)?, gpu.coherent(SIZE)?])
}

#[derive(Clone, Copy)]
enum Release {
    Signal,
    Event,
}

/// A thread waits for a batch, until another lets it go.
fn released_by_another_thread(release: Release) -> Verdict {
    let gpu = Gpu::new()?;
    let (from, to) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
    let (timeline, done, fence) = (gpu.timeline()?, gpu.timeline()?, gpu.fence()?);
    // SAFETY: a live device.
    let event = unsafe { gpu.device.create_event(&vk::EventCreateInfo::default(), None) }?;
    let commands = gpu.copy_after(event, &from, &to)?;
    match release {
        Release::Signal => {
            // SAFETY: a live event.
            unsafe { gpu.device.set_event(event) }?;
            submit(&gpu, commands, (timeline, 1), (done, 1), fence)?;
        }
        Release::Event => gpu.submit(commands, fence)?,
    }
    from.write_pattern(3);
    let device = &gpu.device;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let info = vk::SemaphoreSignalInfo::default().semaphore(timeline).value(1);
            // SAFETY: live objects, of which this thread alone signals one.
            unsafe {
                match release {
                    Release::Signal => device.signal_semaphore(&info),
                    Release::Event => device.set_event(event),
                }
            }
        });
        // SAFETY: a live fence.
        unsafe { device.wait_for_fences(&[fence], true, LONG) }
    })?;
    to.expect_pattern(3)?;
    gpu.wait_idle()?;
    // SAFETY: no longer in use.
    unsafe {
        device.destroy_fence(fence, None);
        device.destroy_event(event, None);
        destroy(&gpu, &[timeline, done]);
    }
    Ok(Outcome::Passed)
}

/// Two batches of one call: the first tells the host to let the second go.
fn part_of_a_call() -> Verdict {
    let gpu = Gpu::new()?;
    let [first, between, last] = three(&gpu)?;
    let (timeline, back) = (gpu.timeline()?, gpu.timeline()?);
    let commands = [gpu.copy(&first, &between)?, gpu.copy(&between, &last)?];
    let one = |semaphore| {
        [vk::SemaphoreSubmitInfo::default()
            .semaphore(semaphore)
            .value(1)
            .stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)]
    };
    let (told, answered) = (one(back), one(timeline));
    let buffers = commands.map(|commands| [vk::CommandBufferSubmitInfo::default().command_buffer(commands)]);
    let submits = [
        vk::SubmitInfo2::default().command_buffer_infos(&buffers[0]).signal_semaphore_infos(&told),
        vk::SubmitInfo2::default().command_buffer_infos(&buffers[1]).wait_semaphore_infos(&answered),
    ];
    first.write_pattern(5);
    let fence = gpu.fence()?;
    // SAFETY: recorded command buffers, and semaphores that the host signals.
    unsafe { gpu.device.queue_submit2(gpu.queue, &submits, fence) }?;
    finish(&gpu, back, 1)?;
    between.expect_pattern(5)?;
    between.write_pattern(6);
    signal(&gpu, timeline, 1)?;
    // SAFETY: a live fence.
    unsafe { gpu.device.wait_for_fences(&[fence], true, LONG) }?;
    last.expect_pattern(6)?;
    gpu.wait_idle()?;
    // SAFETY: no longer in use.
    unsafe {
        gpu.device.destroy_fence(fence, None);
        destroy(&gpu, &[timeline, back]);
    }
    Ok(Outcome::Passed)
}

/// A batch waits for two events at once: a command sets one, the host the other.
fn events_of_host_and_device(by_structures: bool) -> Verdict {
    let gpu = Gpu::new()?;
    let (from, to, fence) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?, gpu.fence()?);
    let device = &gpu.device;
    let info = vk::EventCreateInfo::default();
    // SAFETY: a live device.
    let events = unsafe { [device.create_event(&info, None)?, device.create_event(&info, None)?] };
    let commands = copy_after_both(&gpu, events, (&from, &to), by_structures)?;
    gpu.submit(commands, fence)?;
    from.write_pattern(7);
    // SAFETY: live objects, which are no longer in use in the end.
    unsafe {
        device.set_event(events[1])?;
        if let Err(error) = device.wait_for_fences(&[fence], true, LONG) {
            // Lest it wait for ever.
            device.set_event(events[0])?;
            gpu.wait_idle()?;
            return Err(format!("not done though both events are set: {error}").into());
        }
        to.expect_pattern(7)?;
        gpu.wait_idle()?;
        device.destroy_fence(fence, None);
        events.iter().for_each(|event| device.destroy_event(*event, None));
    }
    Ok(Outcome::Passed)
}

/// A copy of the whole of a buffer to another, after the first event, which the commands set, and the second, which the
/// host sets.
fn copy_after_both(
    gpu: &Gpu,
    events: [vk::Event; 2],
    (from, to): (&Buffer, &Buffer),
    by_structures: bool,
) -> Result<vk::CommandBuffer, Failure> {
    let device = &gpu.device;
    let regions = [vk::BufferCopy::default().size(SIZE)];
    // SAFETY: live objects; the host sets the second event.
    gpu.record(|commands| unsafe {
        if by_structures {
            let stages = [vk::PipelineStageFlags2::ALL_COMMANDS, vk::PipelineStageFlags2::HOST];
            let barriers = stages.map(|stage| {
                [vk::MemoryBarrier2::default()
                    .src_stage_mask(stage)
                    .dst_stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)]
            });
            let [own, host] =
                [0, 1].map(|index| vk::DependencyInfo::default().memory_barriers(&barriers[index]));
            device.cmd_set_event2(commands, events[0], &own);
            device.cmd_wait_events2(commands, &events, &[own, host]);
        } else {
            let transfer = vk::PipelineStageFlags::TRANSFER;
            let stages = transfer | vk::PipelineStageFlags::HOST;
            device.cmd_set_event(commands, events[0], transfer);
            device.cmd_wait_events(commands, &events, stages, transfer, &[], &[], &[]);
        }
        device.cmd_copy_buffer(commands, from.buffer, to.buffer, &regions);
    })
}
