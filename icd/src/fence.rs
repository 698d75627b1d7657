//! VkFence: what the host learns from it ends in a readback.

use crate::chain;
use crate::device::Device;
use crate::progress::Point;
use crate::submission::array;
use crate::tables::DEVICES;
use ash::vk;
use std::ffi::c_int;
use tidemark_winsys::RwLockExt;

/// The batches that fences stand for, as submitted so far. To be asked before a wait: after it, another thread may have
/// submitted the fence anew.
fn points_of(device: &Device, fences: &[vk::Fence]) -> Vec<Point> {
    device.coherence.as_ref().map(|coherence| coherence.progress.of_fences(fences)).unwrap_or_default()
}

/// vkCreateFence.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn create(
    device: vk::Device,
    info: *const vk::FenceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    fence: *mut vk::Fence,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(create) = state.next.vkCreateFence else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { create(device, info, allocator, fence) };
    // SAFETY: a valid chain.
    let exported = unsafe { chain::find_input::<vk::ExportFenceCreateInfo<'_>>((*info).p_next) };
    if let Some(coherence) = &state.coherence
        && result == vk::Result::SUCCESS
        && exported.is_some_and(|info| !info.handle_types.is_empty())
    {
        coherence.held.expect_exports();
        // SAFETY: the command stored a handle.
        coherence.external_fences.exclusive().insert(unsafe { *fence });
    }
    result
}

/// vkGetFenceFdKHR: what is exported by copy must have a signal to come, which the backing driver may not know yet.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn export(
    device: vk::Device,
    info: *const vk::FenceGetFdInfoKHR<'_>,
    fd: *mut c_int,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(export) = state.next.vkGetFenceFdKHR else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: a valid structure.
    let (fence, handle_type) = unsafe { ((*info).fence, (*info).handle_type) };
    let by_copy = handle_type == vk::ExternalFenceHandleTypeFlags::SYNC_FD;
    if by_copy && let Err(error) = state.before_export(vk::Semaphore::null(), fence) {
        return error;
    }
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { export(device, info, fd) };
    if let (vk::Result::SUCCESS, Some(coherence)) = (result, &state.coherence)
        && by_copy
    {
        // The fence is as if reset, and what it stood for may yet be under way.
        coherence.progress.forget_fence(fence);
    }
    result
}

/// vkImportFenceFdKHR: what the fence stood for it stands for no more, and others may wait for it from now on. Not if a
/// sync file was imported: its signal is given already.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn import(device: vk::Device, info: *const vk::ImportFenceFdInfoKHR<'_>) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(import) = state.next.vkImportFenceFdKHR else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { import(device, info) };
    // SAFETY: a valid structure.
    let (fence, handle_type) = unsafe { ((*info).fence, (*info).handle_type) };
    if let (vk::Result::SUCCESS, Some(coherence)) = (result, &state.coherence) {
        coherence.progress.forget_fence(fence);
        if handle_type != vk::ExternalFenceHandleTypeFlags::SYNC_FD {
            coherence.held.expect_exports();
            coherence.external_fences.exclusive().insert(fence);
        }
    }
    result
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
    // SAFETY: valid for `count` elements.
    let named = unsafe { array(fences, count) };
    let timeout = match &state.coherence {
        Some(coherence) => match coherence.held.wait_for_fences(named, all == vk::TRUE, timeout) {
            Ok(left) => left,
            Err(error) => return state.after_wait(error, &[]),
        },
        None => timeout,
    };
    // Which of several fences is the one that signalled, nobody says.
    let points = if all == vk::TRUE || count == 1 { points_of(state, named) } else { Vec::new() };
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
        coherence.external_fences.exclusive().remove(&fence);
    }
    if let Some(destroy) = state.next.vkDestroyFence {
        // SAFETY: the arguments are passed on as they came.
        unsafe { destroy(device, fence, allocator) }
    }
}
