//! Submissions: what a queue is given, how it is made ready, and when it may go.
//!
//! | file | holds |
//! | --- | --- |
//! | `info` | the four structures a queue takes: what each waits for, signals and uses |
//! | `copy` | deep copies of them |
//! | `batch` | batches that are kept back |
//! | `held` | when these may go |
//! | `export` | signals that others wait for: given once the data is back |
//!
//! A submission is made ready, which flushes what its batches may use, and then forwarded. Two kinds are held back: where
//! Tidemark copies by the application's own queues, what waits for the host, as it would block the very copies that it
//! needs; and signals that others wait for, who tell nobody that they did.

mod batch;
mod copy;
mod export;
pub(crate) mod held;
mod info;

use crate::coherence::Coherence;
use crate::device::Device;
use crate::profile;
use crate::progress::Point;
use crate::queue::Queue;
use ash::vk;
pub(crate) use export::Exporter;
pub(crate) use info::{Info, array};
use tidemark_winsys::telemetry::Counter;

/// Submits `infos`, by the command that takes them.
///
/// # Safety
/// As that command demands.
pub(crate) unsafe fn submit<I: Info>(queue: &Queue, infos: &[I], fence: vk::Fence) -> vk::Result {
    let Some(coherence) = &queue.device.coherence else {
        // SAFETY: the caller's promise.
        return unsafe { call(queue, infos, fence) };
    };
    profile::count(Counter::Submits, 1);
    // SAFETY: the caller's promise.
    unsafe {
        if coherence.held.is_needed(coherence) {
            coherence.held.submit(queue, coherence, infos, fence)
        } else {
            forward(queue, coherence, infos, fence)
        }
    }
}

/// Makes the batches ready, and gives them to the backing driver.
///
/// # Safety
/// As the command that takes them demands.
unsafe fn forward<I: Info>(
    queue: &Queue,
    coherence: &Coherence,
    infos: &[I],
    fence: vk::Fence,
) -> vk::Result {
    // SAFETY: the caller's promise.
    unsafe {
        make_ready(queue, coherence, infos, fence);
        call(queue, infos, fence)
    }
}

/// Makes the batches ready, and returns the last, which the fences follow.
///
/// # Safety
/// As the command that takes them demands.
unsafe fn make_ready<I: Info>(queue: &Queue, coherence: &Coherence, infos: &[I], fence: vk::Fence) -> Point {
    let mut last = None;
    for info in infos {
        // SAFETY: the caller's promise.
        last = Some(unsafe { info.make_ready(coherence, &queue.batches) });
    }
    // A fence follows all that was submitted to its queue so far, if there is nothing new.
    let last = last.unwrap_or_else(|| queue.batches.last());
    // SAFETY: the caller's promise.
    let named = infos.iter().flat_map(|info| unsafe { info.fences() });
    for fence in named.chain([&fence]).filter(|fence| **fence != vk::Fence::null()) {
        coherence.progress.fence_follows(*fence, last);
    }
    last
}

/// # Safety
/// As the command that takes them demands.
unsafe fn call<I: Info>(queue: &Queue, infos: &[I], fence: vk::Fence) -> vk::Result {
    // No application submits more than that: its array would not fit the address space.
    let Ok(count) = u32::try_from(infos.len()) else { return vk::Result::ERROR_OUT_OF_HOST_MEMORY };
    let device: &Device = &queue.device;
    // What it uses may not have reached the device.
    if let Some(Err(error)) = device.transfers().map(|transfers| transfers.before_batch(queue)) {
        return error;
    }
    // SAFETY: the caller's promise; nobody else gives anything to the queue meanwhile.
    queue.alone(|handle| unsafe { I::submit(device, handle, count, infos.as_ptr(), fence) })
}
