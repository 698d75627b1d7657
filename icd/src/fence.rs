//! VkFence: what the host learns from it ends in a readback.

use crate::device::Device;
use crate::progress::Point;
use crate::tables::DEVICES;
use ash::vk;
use std::slice;

/// The batches that fences stand for, as submitted so far. To be asked before a wait: after it, another thread may have
/// submitted the fence anew.
fn points_of(device: &Device, fences: &[vk::Fence]) -> Vec<Point> {
    device.coherence.as_ref().map(|coherence| coherence.progress.of_fences(fences)).unwrap_or_default()
}

/// vkWaitForFences.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn wait(
    device: vk::Device,
    count: u32,
    fences: *const vk::Fence,
    all: vk::Bool32,
    timeout: u64,
) -> vk::Result {
    // SAFETY: a live device.
    let Some(state) = (unsafe { DEVICES.find(device) }) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(wait) = state.next.vkWaitForFences else { return vk::Result::ERROR_DEVICE_LOST };
    // Which of several fences is the one that signalled, nobody says.
    let points = if all == vk::TRUE || count == 1 {
        // SAFETY: valid for `count` elements, of which there is at least one.
        points_of(state, unsafe { slice::from_raw_parts(fences, count as usize) })
    } else {
        Vec::new()
    };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { wait(device, count, fences, all, timeout) };
    let done = if result == vk::Result::SUCCESS { &*points } else { &[] };
    state.after_wait(result, done)
}

/// vkGetFenceStatus.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn status(device: vk::Device, fence: vk::Fence) -> vk::Result {
    // SAFETY: a live device.
    let Some(state) = (unsafe { DEVICES.find(device) }) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(status) = state.next.vkGetFenceStatus else { return vk::Result::ERROR_DEVICE_LOST };
    let points = points_of(state, &[fence]);
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { status(device, fence) };
    let done = if result == vk::Result::SUCCESS { &*points } else { &[] };
    state.after_wait(result, done)
}

/// vkDestroyFence.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn destroy(
    device: vk::Device,
    fence: vk::Fence,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    let Some(state) = DEVICES.get(device) else { return };
    if let Some(coherence) = &state.coherence {
        coherence.progress.forget_fence(fence);
    }
    if let Some(destroy) = state.next.vkDestroyFence {
        // SAFETY: the arguments are passed on as they came.
        unsafe { destroy(device, fence, allocator) }
    }
}
