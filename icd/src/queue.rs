//! VkQueue: submission, presentation, and idling.

use crate::device::Device;
use crate::progress::Batches;
use crate::submission::{self, Exporter, Info, array};
use crate::tables::QUEUES;
use ash::vk;
use std::sync::{Arc, Mutex};
use tidemark_winsys::LockExt;

/// A queue.
pub(crate) struct Queue {
    pub(crate) handle: vk::Queue,
    pub(crate) device: Arc<Device>,
    pub(crate) batches: Arc<Batches>,
    /// Held around every command that takes the queue externally synchronised.
    turn: Mutex<()>,
    pub(crate) exporter: Exporter,
}

impl Queue {
    pub(crate) fn new(handle: vk::Queue, device: Arc<Device>) -> Self {
        let batches = device.coherence.as_ref().map(|coherence| coherence.progress.add_queue());
        Self {
            handle,
            device,
            batches: batches.unwrap_or_default(),
            turn: Mutex::default(),
            exporter: Exporter::default(),
        }
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
    fn wait(&self) -> Result<(), vk::Result> {
        let Device { handle: device, core, .. } = &*self.device;
        let fence = self.device.new_fence()?;
        // SAFETY: a live device and queue, and a fence of this function's own.
        let result = unsafe {
            match self.alone(|queue| (core.queue_submit)(queue, 0, std::ptr::null(), fence)) {
                vk::Result::SUCCESS => {
                    (core.wait_for_fences)(*device, 1, &raw const fence, vk::TRUE, u64::MAX)
                }
                error => error,
            }
        };
        self.device.destroy_fence(fence);
        result.result()
    }
}

/// Waits by `wait` until all of `queues` are idle, or all of the device, and reads back what was written. For that to happen
/// Tidemark may have to work on them.
pub(crate) fn idle(
    device: &Device,
    queues: &[&Queue],
    is_all: bool,
    wait: impl FnOnce() -> vk::Result,
) -> vk::Result {
    if let Some(coherence) = &device.coherence {
        queues.iter().for_each(|queue| coherence.held.wait_for_queue(queue.handle));
    }
    // Tidemark's own queue is one of all.
    let own = device.transfers().filter(|transfers| is_all && !transfers.is_shared());
    if device.shares_queues() || own.is_some() {
        // What is still going on then is Tidemark's own work, which waits for nobody.
        match queues.iter().try_for_each(|queue| queue.wait()) {
            // Of a device that is lost the backing driver may have to clear up.
            Ok(()) | Err(vk::Result::ERROR_DEVICE_LOST) => {}
            Err(error) => return device.after_wait(error, &[]),
        }
    }
    let submitted: Vec<_> = queues.iter().map(|queue| queue.batches.last()).collect();
    let result = {
        let _copies = own.map(|transfers| transfers.pause());
        let _turns: Vec<_> = queues.iter().map(|queue| queue.turn.hold()).collect();
        wait()
    };
    device.after_wait(result, &submitted)
}

/// The state of a queue. Applications get queues only through commands that remember them.
///
/// # Safety
/// The result must not outlive the queue's device.
unsafe fn state_of<'a>(queue: vk::Queue) -> Result<&'a Queue, vk::Result> {
    // SAFETY: the caller's promise: queues go with their device.
    unsafe { QUEUES.find(queue) }.ok_or(vk::Result::ERROR_DEVICE_LOST)
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
    // SAFETY: a live queue, and valid structures.
    unsafe { submit_all::<vk::SubmitInfo<'static>>(queue, count, submits.cast(), fence) }
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
    // SAFETY: a live queue, and valid structures.
    unsafe { submit_all::<vk::SubmitInfo2<'static>>(queue, count, submits.cast(), fence) }
}

/// vkQueueBindSparse.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn bind_sparse(
    queue: vk::Queue,
    count: u32,
    binds: *const vk::BindSparseInfo<'_>,
    fence: vk::Fence,
) -> vk::Result {
    // SAFETY: a live queue, and valid structures.
    unsafe { submit_all::<vk::BindSparseInfo<'static>>(queue, count, binds.cast(), fence) }
}

/// vkQueuePresentKHR.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn present(queue: vk::Queue, info: *const vk::PresentInfoKHR<'_>) -> vk::Result {
    // SAFETY: a live queue, and one valid structure.
    unsafe { submit_all::<vk::PresentInfoKHR<'static>>(queue, 1, info.cast(), vk::Fence::null()) }
}

/// # Safety
/// As the specification demands of the command that takes `infos`.
unsafe fn submit_all<I: Info>(queue: vk::Queue, count: u32, infos: *const I, fence: vk::Fence) -> vk::Result {
    // SAFETY: the caller's promise.
    match unsafe { state_of(queue) } {
        // SAFETY: as above.
        Ok(queue) => unsafe { submission::submit(queue, array(infos, count), fence) },
        Err(error) => error,
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
    // SAFETY: the arguments are passed on as they came.
    idle(&state.device, &[state], false, || unsafe { wait(queue) })
}
