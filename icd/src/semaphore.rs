//! VkSemaphore, as far as the host takes part: timeline waits, queries and signals.

use crate::tables::DEVICES;
use ash::vk;

/// vkWaitSemaphores.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn wait(
    device: vk::Device,
    info: *const vk::SemaphoreWaitInfo<'_>,
    timeout: u64,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(wait) = state.next.vkWaitSemaphores else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { wait(device, info, timeout) };
    state.after_wait(result)
}

/// vkSignalSemaphore: may release a batch that was submitted long ago and reads what the host wrote since.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn signal(device: vk::Device, info: *const vk::SemaphoreSignalInfo<'_>) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(signal) = state.next.vkSignalSemaphore else { return vk::Result::ERROR_DEVICE_LOST };
    state.before_submit();
    // SAFETY: the arguments are passed on as they came.
    unsafe { signal(device, info) }
}

/// vkGetSemaphoreCounterValue: the value must not be known before the bytes it stands for are there.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn counter_value(
    device: vk::Device,
    semaphore: vk::Semaphore,
    value: *mut u64,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(counter_value) = state.next.vkGetSemaphoreCounterValue else {
        return vk::Result::ERROR_DEVICE_LOST;
    };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { counter_value(device, semaphore, value) };
    state.after_wait(result)
}
