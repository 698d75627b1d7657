//! VkQueue: submission, presentation, and idling. Each submission flushes what its batches may use.

use crate::chain;
use crate::coherence::{Coherence, profile};
use crate::device::Device;
use crate::progress::Point;
use crate::tables::QUEUES;
use ash::vk;
use std::ffi::c_void;
use std::slice;
use std::sync::Arc;
use tidemark_winsys::LockExt;
use tidemark_winsys::telemetry::Counter;

/// A slice of a caller's array, which may be null if it has no elements.
///
/// # Safety
/// Valid for `count` elements.
unsafe fn array<'a, T>(at: *const T, count: u32) -> &'a [T] {
    if count == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(at, count as usize) }
}

/// The device of a queue. Applications get queues only through commands that remember them.
fn device_of(queue: vk::Queue) -> Result<Arc<Device>, vk::Result> {
    QUEUES.get(queue).ok_or(vk::Result::ERROR_DEVICE_LOST)
}

/// Lets `prepare` see to the batches, then `call` submit them.
fn submit_by<F>(
    queue: vk::Queue,
    fence: vk::Fence,
    command: impl FnOnce(&Device) -> Option<F>,
    prepare: impl FnOnce(&Device, &Coherence),
    call: impl FnOnce(F) -> vk::Result,
) -> vk::Result {
    let device = match device_of(queue) {
        Ok(device) => device,
        Err(error) => return error,
    };
    let Some(command) = command(&device) else { return vk::Result::ERROR_DEVICE_LOST };
    if let Some(coherence) = &device.coherence {
        profile().add(Counter::Submits, 1);
        prepare(&device, coherence);
        if fence != vk::Fence::null() {
            // It follows all that was submitted to its queue so far, if there is nothing new.
            let mut progress = coherence.progress.hold();
            let last = progress.last(queue);
            progress.fence_follows(fence, last);
        }
    }
    call(command)
}

/// `point` will be followed by signals of `semaphores`, to `values` if they are timelines.
fn note_signals(coherence: &Coherence, point: Point, semaphores: &[vk::Semaphore], values: &[u64]) {
    if values.is_empty() {
        return;
    }
    let mut progress = coherence.progress.hold();
    for (&semaphore, &value) in semaphores.iter().zip(values) {
        progress.timeline_follows(semaphore, value, point);
    }
}

/// The same, with the values that the chain of a submission has for timelines, if any.
///
/// # Safety
/// `chain` must be null or a valid chain.
unsafe fn note_timelines(
    coherence: &Coherence,
    point: Point,
    semaphores: &[vk::Semaphore],
    chain: *const c_void,
) {
    // SAFETY: the caller's promise; the structure comes with its array.
    unsafe {
        if let Some(timeline) = chain::find_input::<vk::TimelineSemaphoreSubmitInfo<'_>>(chain) {
            let values = array(timeline.p_signal_semaphore_values, timeline.signal_semaphore_value_count);
            note_signals(coherence, point, semaphores, values);
        }
    }
}

/// vkQueueSubmit.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn submit(
    queue: vk::Queue,
    count: u32,
    submits: *const vk::SubmitInfo<'_>,
    fence: vk::Fence,
) -> vk::Result {
    submit_by(
        queue,
        fence,
        |device| device.next.vkQueueSubmit,
        // SAFETY: valid structures with their arrays and chains.
        |device, coherence| unsafe {
            for submit in array(submits, count) {
                let commands = array(submit.p_command_buffers, submit.command_buffer_count);
                let point = device.before_batch(coherence, queue, commands.iter().copied());
                let signals = array(submit.p_signal_semaphores, submit.signal_semaphore_count);
                note_timelines(coherence, point, signals, submit.p_next);
            }
        },
        // SAFETY: the arguments are passed on as they came.
        |submit| unsafe { submit(queue, count, submits, fence) },
    )
}

/// vkQueueSubmit2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn submit2(
    queue: vk::Queue,
    count: u32,
    submits: *const vk::SubmitInfo2<'_>,
    fence: vk::Fence,
) -> vk::Result {
    submit_by(
        queue,
        fence,
        |device| device.next.vkQueueSubmit2,
        // SAFETY: valid structures with their arrays.
        |device, coherence| unsafe {
            for submit in array(submits, count) {
                let commands = array(submit.p_command_buffer_infos, submit.command_buffer_info_count);
                let commands = commands.iter().map(|info| info.command_buffer);
                let point = device.before_batch(coherence, queue, commands);
                let signals = array(submit.p_signal_semaphore_infos, submit.signal_semaphore_info_count);
                for signal in signals {
                    note_signals(coherence, point, &[signal.semaphore], &[signal.value]);
                }
            }
        },
        // SAFETY: the arguments are passed on as they came.
        |submit| unsafe { submit(queue, count, submits, fence) },
    )
}

/// vkQueueBindSparse. Memory that is bound can be reached by resources that nobody follows.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn bind_sparse(
    queue: vk::Queue,
    count: u32,
    binds: *const vk::BindSparseInfo<'_>,
    fence: vk::Fence,
) -> vk::Result {
    submit_by(
        queue,
        fence,
        |device| device.next.vkQueueBindSparse,
        // SAFETY: valid structures with their arrays and chains.
        |device, coherence| unsafe {
            for bind in array(binds, count) {
                let buffers = array(bind.p_buffer_binds, bind.buffer_bind_count);
                let opaque = array(bind.p_image_opaque_binds, bind.image_opaque_bind_count);
                let images = array(bind.p_image_binds, bind.image_bind_count);
                let memories = buffers
                    .iter()
                    .flat_map(|info| array(info.p_binds, info.bind_count))
                    .chain(opaque.iter().flat_map(|info| array(info.p_binds, info.bind_count)))
                    .map(|bind| bind.memory)
                    .chain(
                        images
                            .iter()
                            .flat_map(|info| array(info.p_binds, info.bind_count))
                            .map(|bind| bind.memory),
                    );
                for memory in memories.filter_map(|memory| coherence.memory(memory)) {
                    coherence.make_reachable(&memory);
                }
                let point = device.before_batch(coherence, queue, std::iter::empty());
                let signals = array(bind.p_signal_semaphores, bind.signal_semaphore_count);
                note_timelines(coherence, point, signals, bind.p_next);
            }
        },
        // SAFETY: the arguments are passed on as they came.
        |bind| unsafe { bind(queue, count, binds, fence) },
    )
}

/// vkQueuePresentKHR: reads images, whose memory is reachable if it is emulated at all.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn present(queue: vk::Queue, info: *const vk::PresentInfoKHR<'_>) -> vk::Result {
    submit_by(
        queue,
        vk::Fence::null(),
        |device| device.next.vkQueuePresentKHR,
        |device, coherence| {
            device.before_batch(coherence, queue, std::iter::empty());
        },
        // SAFETY: the arguments are passed on as they came.
        |present| unsafe { present(queue, info) },
    )
}

/// vkQueueWaitIdle.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn wait_idle(queue: vk::Queue) -> vk::Result {
    let device = match device_of(queue) {
        Ok(device) => device,
        Err(error) => return error,
    };
    let Some(wait) = device.next.vkQueueWaitIdle else { return vk::Result::ERROR_DEVICE_LOST };
    let submitted = device.coherence.as_ref().map(|coherence| coherence.progress.hold().last(queue));
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { wait(queue) };
    device.after_wait(result, submitted.as_slice())
}
