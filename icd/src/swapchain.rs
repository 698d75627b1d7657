//! VkSwapchainKHR: acquiring an image tells the host of progress, too.

use crate::device::Device;
use crate::tables::DEVICES;
use ash::vk;
use std::ffi::c_void;

/// Waits by `wait` for what comes of presentations to a swapchain, unless these may have been dropped. Those that are held go
/// first: a swapchain is for one thread at a time, and whoever forwards them uses it, too.
fn wait(device: &Device, swapchain: vk::SwapchainKHR, wait: impl FnOnce() -> vk::Result) -> vk::Result {
    device.before_swapchain(swapchain);
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
    wait(&state, swapchain, || unsafe { acquire(device, swapchain, timeout, semaphore, fence, index) })
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
    // SAFETY: a valid structure; the arguments are passed on as they came.
    unsafe { wait(&state, (*info).swapchain, || acquire(device, info, index)) }
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
    wait(&state, swapchain, || unsafe { wait_for_present(device, swapchain, present, timeout) })
}

/// vkWaitForPresent2KHR, of which `ash` knows neither the type nor the structure.
#[allow(non_camel_case_types, reason = "the specification's name")]
pub(crate) type PFN_vkWaitForPresent2KHR =
    unsafe extern "system" fn(vk::Device, vk::SwapchainKHR, *const c_void) -> vk::Result;

/// vkWaitForPresent2KHR.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn wait_for_present2(
    device: vk::Device,
    swapchain: vk::SwapchainKHR,
    info: *const c_void,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(wait_for_present) = state.next.vkWaitForPresent2KHR else {
        return vk::Result::ERROR_DEVICE_LOST;
    };
    // SAFETY: the arguments are passed on as they came.
    wait(&state, swapchain, || unsafe { wait_for_present(device, swapchain, info) })
}
