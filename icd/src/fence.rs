//! VkFence: what the host learns from it ends in a readback.

use crate::tables::DEVICES;
use ash::vk;

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
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(wait) = state.next.vkWaitForFences else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { wait(device, count, fences, all, timeout) };
    state.after_wait(result)
}

/// vkGetFenceStatus.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn status(device: vk::Device, fence: vk::Fence) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(status) = state.next.vkGetFenceStatus else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { status(device, fence) };
    state.after_wait(result)
}
