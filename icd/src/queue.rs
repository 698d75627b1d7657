//! VkQueue: submission, presentation, and idling. Each submission flushes what its batches may use.

use crate::chain;
use crate::coherence::Coherence;
use crate::device::Device;
use crate::profile;
use crate::progress::{Batches, Point};
use crate::tables::QUEUES;
use ash::vk;
use std::ffi::c_void;
use std::slice;
use std::sync::{Arc, Mutex};
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

/// A queue.
pub(crate) struct Queue {
    pub(crate) handle: vk::Queue,
    pub(crate) device: Arc<Device>,
    batches: Arc<Batches>,
    /// Held around every command that takes the queue externally synchronised.
    turn: Mutex<()>,
}

impl Queue {
    pub(crate) fn new(handle: vk::Queue, device: Arc<Device>) -> Self {
        let batches = device.coherence.as_ref().map(|coherence| coherence.progress.add_queue());
        Self { handle, device, batches: batches.unwrap_or_default(), turn: Mutex::default() }
    }

    /// Gives the queue to the backing driver by `work`, while nobody else does. Applications keep their own threads
    /// apart; this keeps them apart from Tidemark's work on the same queue.
    ///
    /// `work` must not wait for anything that takes the host's or another queue's doing: those may need this queue first.
    pub(crate) fn alone<T>(&self, work: impl FnOnce(vk::Queue) -> T) -> T {
        let _turn = self.turn.hold();
        work(self.handle)
    }

    /// Waits for what was submitted so far, and leaves the queue to others meanwhile.
    fn wait(&self) -> vk::Result {
        let Device { handle: device, core, .. } = &*self.device;
        let mut fence = vk::Fence::null();
        // SAFETY: a live device and queue; the fence is this function's own, and destroyed when no batch uses it.
        unsafe {
            let info = vk::FenceCreateInfo::default();
            let mut result = (core.create_fence)(*device, &raw const info, std::ptr::null(), &raw mut fence);
            if result != vk::Result::SUCCESS {
                return result;
            }
            result = self.alone(|queue| (core.queue_submit)(queue, 0, std::ptr::null(), fence));
            if result == vk::Result::SUCCESS {
                result = (core.wait_for_fences)(*device, 1, &raw const fence, vk::TRUE, u64::MAX);
            }
            (core.destroy_fence)(*device, fence, std::ptr::null());
            result
        }
    }
}

/// Waits by `wait` until all of `queues` are idle. For that to happen Tidemark may have to work on them.
pub(crate) fn idle(device: &Device, queues: &[&Queue], wait: impl FnOnce() -> vk::Result) -> vk::Result {
    if device.shares_queues() {
        // What is still going on then is Tidemark's own work, which waits for nobody.
        for result in queues.iter().map(|queue| queue.wait()) {
            if result != vk::Result::SUCCESS {
                return result;
            }
        }
    }
    let _turns: Vec<_> = queues.iter().map(|queue| queue.turn.hold()).collect();
    wait()
}

/// The state of a queue. Applications get queues only through commands that remember them.
///
/// # Safety
/// The result must not outlive the queue's device.
unsafe fn state_of<'a>(queue: vk::Queue) -> Result<&'a Queue, vk::Result> {
    // SAFETY: the caller's promise: queues go with their device.
    unsafe { QUEUES.find(queue) }.ok_or(vk::Result::ERROR_DEVICE_LOST)
}

/// Lets `prepare` see to the batches and tell the last, then `call` submit them.
///
/// # Safety
/// The queue's device must be live.
unsafe fn submit_by<F>(
    queue: vk::Queue,
    fence: vk::Fence,
    command: impl FnOnce(&Device) -> Option<F>,
    prepare: impl FnOnce(&Coherence, &Batches) -> Option<Point>,
    call: impl FnOnce(F, vk::Queue) -> vk::Result,
) -> vk::Result {
    // SAFETY: the caller's promise.
    let queue = match unsafe { state_of(queue) } {
        Ok(queue) => queue,
        Err(error) => return error,
    };
    let Some(command) = command(&queue.device) else { return vk::Result::ERROR_DEVICE_LOST };
    if let Some(coherence) = &queue.device.coherence {
        profile::count(Counter::Submits, 1);
        let last = prepare(coherence, &queue.batches);
        if fence != vk::Fence::null() {
            // It follows all that was submitted to its queue so far, if there is nothing new.
            coherence.progress.fence_follows(fence, last.unwrap_or_else(|| queue.batches.last()));
        }
    }
    queue.device.transfers().inspect(|transfers| transfers.before_batch(queue));
    queue.alone(|queue| call(command, queue))
}

/// `point` will be followed by signals of `semaphores`, to `values` if they are timelines.
fn note_signals(coherence: &Coherence, point: Point, semaphores: &[vk::Semaphore], values: &[u64]) {
    if values.is_empty() {
        return;
    }
    for (&semaphore, &value) in semaphores.iter().zip(values) {
        coherence.progress.timeline_follows(semaphore, value, point);
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
    // SAFETY: live handles, valid structures with their arrays and chains; the arguments are passed on as they came.
    unsafe {
        submit_by(
            queue,
            fence,
            |device| device.next.vkQueueSubmit,
            |coherence, batches| {
                let mut last = None;
                for submit in array(submits, count) {
                    let commands = array(submit.p_command_buffers, submit.command_buffer_count);
                    let point = coherence.before_batch(batches, commands.iter().copied());
                    let signals = array(submit.p_signal_semaphores, submit.signal_semaphore_count);
                    note_timelines(coherence, point, signals, submit.p_next);
                    last = Some(point);
                }
                last
            },
            |submit, queue| submit(queue, count, submits, fence),
        )
    }
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
    // SAFETY: live handles, valid structures with their arrays; the arguments are passed on as they came.
    unsafe {
        submit_by(
            queue,
            fence,
            |device| device.next.vkQueueSubmit2,
            |coherence, batches| {
                let mut last = None;
                for submit in array(submits, count) {
                    let commands = array(submit.p_command_buffer_infos, submit.command_buffer_info_count);
                    let commands = commands.iter().map(|info| info.command_buffer);
                    let point = coherence.before_batch(batches, commands);
                    let signals = array(submit.p_signal_semaphore_infos, submit.signal_semaphore_info_count);
                    for signal in signals {
                        note_signals(coherence, point, &[signal.semaphore], &[signal.value]);
                    }
                    last = Some(point);
                }
                last
            },
            |submit, queue| submit(queue, count, submits, fence),
        )
    }
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
    // SAFETY: live handles, valid structures with their arrays and chains; the arguments are passed on as they came.
    unsafe {
        submit_by(
            queue,
            fence,
            |device| device.next.vkQueueBindSparse,
            |coherence, batches| {
                let mut last = None;
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
                    let point = coherence.before_batch(batches, std::iter::empty());
                    let signals = array(bind.p_signal_semaphores, bind.signal_semaphore_count);
                    note_timelines(coherence, point, signals, bind.p_next);
                    last = Some(point);
                }
                last
            },
            |bind, queue| bind(queue, count, binds, fence),
        )
    }
}

/// vkQueuePresentKHR: reads images, whose memory is reachable if it is emulated at all.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn present(queue: vk::Queue, info: *const vk::PresentInfoKHR<'_>) -> vk::Result {
    // SAFETY: a live queue; the arguments are passed on as they came.
    unsafe {
        submit_by(
            queue,
            vk::Fence::null(),
            |device| device.next.vkQueuePresentKHR,
            |coherence, batches| Some(coherence.before_batch(batches, std::iter::empty())),
            |present, queue| present(queue, info),
        )
    }
}

/// vkQueueWaitIdle.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn wait_idle(queue: vk::Queue) -> vk::Result {
    // SAFETY: a live queue.
    let state = match unsafe { state_of(queue) } {
        Ok(state) => state,
        Err(error) => return error,
    };
    let Some(wait) = state.device.next.vkQueueWaitIdle else { return vk::Result::ERROR_DEVICE_LOST };
    let submitted = state.batches.last();
    // SAFETY: the arguments are passed on as they came.
    let result = idle(&state.device, &[state], || unsafe { wait(queue) });
    state.device.after_wait(result, &[submitted])
}
