//! VkEvent, as far as the host takes part.

use crate::tables::DEVICES;
use ash::vk;
use tidemark_winsys::RwLockExt;

/// vkSetEvent: may release work that was submitted long ago and reads what the host wrote since.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn set(device: vk::Device, event: vk::Event) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(set) = state.next.vkSetEvent else { return vk::Result::ERROR_DEVICE_LOST };
    state.before_signal();
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { set(device, event) };
    if let Some(coherence) = &state.coherence {
        coherence.held.forget_event(event);
    }
    state.after_signal();
    result
}

/// vkGetEventStatus.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn status(device: vk::Device, event: vk::Event) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(status) = state.next.vkGetEventStatus else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { status(device, event) };
    state.after_wait(result, &[])
}

/// vkDestroyEvent.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn destroy(
    device: vk::Device,
    event: vk::Event,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    let Some(state) = DEVICES.get(device) else { return };
    if let Some(coherence) = &state.coherence {
        coherence.held.forget_event(event);
        coherence.set_by_device.exclusive().remove(&event);
    }
    if let Some(destroy) = state.next.vkDestroyEvent {
        // SAFETY: the arguments are passed on as they came.
        unsafe { destroy(device, event, allocator) }
    }
}
