//! What the device wrote is in mapped memory once the host has learned that it is done, however it learned that.

use ash::vk;

use crate::gpu::{Buffer, Gpu, LONG};
use crate::{Failure, Outcome, Verdict};
use std::time::{Duration, Instant};

pub(crate) const CHECKS: &[super::Check] = &[
    ("wait-for-fences", || learn(Route::Fence)),
    ("get-fence-status", || learn(Route::FenceStatus)),
    ("wait-semaphores", || learn(Route::Timeline)),
    ("get-semaphore-counter-value", || learn(Route::CounterValue)),
    ("get-event-status", || learn(Route::EventStatus)),
    ("queue-wait-idle", || learn(Route::QueueIdle)),
    ("device-wait-idle", || learn(Route::DeviceIdle)),
    ("map-after-wait", map_after_wait),
    ("read-after-each-submit", read_after_each_submit),
];

const SIZE: u64 = 3 * 4096 + 12;

#[derive(Clone, Copy, PartialEq)]
enum Route {
    Fence,
    FenceStatus,
    Timeline,
    CounterValue,
    EventStatus,
    QueueIdle,
    DeviceIdle,
}

fn word(value: u32) -> impl Fn(usize) -> u8 {
    move |offset| value.to_ne_bytes()[offset % 4]
}

/// The device fills a mapped buffer; the host learns so by `route` alone, and looks.
fn learn(route: Route) -> Verdict {
    let gpu = Gpu::new()?;
    let device = &gpu.device;
    let buffer = gpu.coherent(SIZE)?;
    let (fence, timeline) = (gpu.fence()?, gpu.timeline()?);
    // SAFETY: a live device.
    let event = unsafe { device.create_event(&vk::EventCreateInfo::default(), None) }?;
    // SAFETY: live objects.
    let commands = gpu.record(|commands| unsafe {
        device.cmd_fill_buffer(commands, buffer.buffer, 0, vk::WHOLE_SIZE, 0x0102_0304);
        device.cmd_set_event(commands, event, vk::PipelineStageFlags::TRANSFER);
    })?;
    let (buffers, semaphores, signal) = ([commands], [timeline], [1]);
    let mut values = vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(&signal);
    let submits = [vk::SubmitInfo::default()
        .command_buffers(&buffers)
        .signal_semaphores(&semaphores)
        .push_next(&mut values)];
    // SAFETY: live objects; each of the calls below is made by this thread alone.
    unsafe {
        device.queue_submit(gpu.queue, &submits, fence)?;
        match route {
            Route::Fence => device.wait_for_fences(&[fence], true, LONG)?,
            Route::FenceStatus => poll(|| Ok(device.get_fence_status(fence)?))?,
            Route::Timeline => {
                let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&signal);
                device.wait_semaphores(&info, LONG)?;
            }
            Route::CounterValue => poll(|| Ok(device.get_semaphore_counter_value(timeline)? == 1))?,
            Route::EventStatus => poll(|| Ok(device.get_event_status(event)?))?,
            Route::QueueIdle => device.queue_wait_idle(gpu.queue)?,
            Route::DeviceIdle => device.device_wait_idle()?,
        }
    }
    buffer.expect(word(0x0102_0304))?;
    gpu.wait_idle()?;
    // SAFETY: no longer in use.
    unsafe {
        device.destroy_event(event, None);
        device.destroy_semaphore(timeline, None);
        device.destroy_fence(fence, None);
    }
    Ok(Outcome::Passed)
}

/// Asks again and again, for a long time at most.
fn poll(mut done: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_nanos(LONG);
    while !done()? {
        if Instant::now() > deadline {
            return Err("not done after half a minute".to_string().into());
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// Memory that nobody has mapped while the device writes, and then somebody does.
fn map_after_wait() -> Verdict {
    let gpu = Gpu::new()?;
    let buffer = gpu.coherent(SIZE)?;
    for round in 1..=3 {
        buffer.unmap();
        fill(&gpu, &buffer, round)?;
        buffer.map()?;
        buffer.expect(word(round))?;
    }
    Ok(Outcome::Passed)
}

/// The device writes the same buffer again and again, and the host reads it each time.
fn read_after_each_submit() -> Verdict {
    let gpu = Gpu::new()?;
    let buffer = gpu.coherent(SIZE)?;
    for round in 1..=50 {
        fill(&gpu, &buffer, round)?;
        buffer.expect(word(round))?;
    }
    Ok(Outcome::Passed)
}

fn fill(gpu: &Gpu, buffer: &Buffer, value: u32) -> Result<(), Failure> {
    // SAFETY: a live buffer.
    let commands = gpu.record(|commands| unsafe {
        gpu.device.cmd_fill_buffer(commands, buffer.buffer, 0, vk::WHOLE_SIZE, value);
    })?;
    gpu.run(commands)
}
