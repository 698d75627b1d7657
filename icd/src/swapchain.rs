//! VkSwapchainKHR: acquiring an image tells the host of progress, too.

use crate::tables::DEVICES;
use ash::vk;

/// vkAcquireNextImageKHR.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn acquire(
    device: vk::Device,
    swapchain: vk::SwapchainKHR,
    timeout: u64,
    semaphore: vk::Semaphore,
    fence: vk::Fence,
    index: *mut u32,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(acquire) = state.next.vkAcquireNextImageKHR else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { acquire(device, swapchain, timeout, semaphore, fence, index) };
    state.after_wait(result, &[])
}

/// vkAcquireNextImage2KHR.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn acquire2(
    device: vk::Device,
    info: *const vk::AcquireNextImageInfoKHR<'_>,
    index: *mut u32,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(acquire) = state.next.vkAcquireNextImage2KHR else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { acquire(device, info, index) };
    state.after_wait(result, &[])
}

/// vkWaitForPresentKHR.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn wait_for_present(
    device: vk::Device,
    swapchain: vk::SwapchainKHR,
    present: u64,
    timeout: u64,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(wait) = state.next.vkWaitForPresentKHR else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { wait(device, swapchain, present, timeout) };
    state.after_wait(result, &[])
}
