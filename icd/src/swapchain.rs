//! VkSwapchainKHR: acquiring an image tells the host of progress, too.

use crate::device::Device;
use crate::tables::DEVICES;
use ash::vk;

/// Waits by `wait` for what comes of presentations, unless these may have been dropped.
fn wait(device: &Device, wait: impl FnOnce() -> vk::Result) -> vk::Result {
    let result = if device.is_lost() { vk::Result::ERROR_DEVICE_LOST } else { wait() };
    device.after_wait(result, &[])
}

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
    wait(&state, || unsafe { acquire(device, swapchain, timeout, semaphore, fence, index) })
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
    wait(&state, || unsafe { acquire(device, info, index) })
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
    let Some(wait_for_present) = state.next.vkWaitForPresentKHR else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came.
    wait(&state, || unsafe { wait_for_present(device, swapchain, present, timeout) })
}
