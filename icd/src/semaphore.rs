//! VkSemaphore, as far as the host takes part: timeline waits, queries and signals.

use crate::chain;
use crate::device::Device;
use crate::progress::Point;
use crate::tables::DEVICES;
use ash::vk::{self, Handle};
use std::ffi::{c_int, c_void};
use std::slice;
use tidemark_winsys::RwLockExt;

/// What a semaphore is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) is_timeline: bool,
    /// Whether others, whom Tidemark does not see, may wait for it or signal it.
    pub(crate) is_external: bool,
}

/// vkCreateSemaphore.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn create(
    device: vk::Device,
    info: *const vk::SemaphoreCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    semaphore: *mut vk::Semaphore,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(create) = state.next.vkCreateSemaphore else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { create(device, info, allocator, semaphore) };
    if let (vk::Result::SUCCESS, Some(coherence)) = (result, &state.coherence) {
        // SAFETY: a valid chain; the command stored a handle.
        let (kind, handle) = unsafe { (kind_of((*info).p_next), *semaphore) };
        if kind.is_external {
            coherence.held.expect_exports();
        }
        if kind != Kind::default() {
            coherence.semaphores.exclusive().insert(handle.as_raw(), kind);
        }
    }
    result
}

/// What a semaphore of this chain is.
///
/// # Safety
/// A valid chain.
unsafe fn kind_of(chain: *const c_void) -> Kind {
    // SAFETY: the caller's promise.
    let (created, exported) = unsafe {
        (
            chain::find_input::<vk::SemaphoreTypeCreateInfo<'_>>(chain),
            chain::find_input::<vk::ExportSemaphoreCreateInfo<'_>>(chain),
        )
    };
    Kind {
        is_timeline: created.is_some_and(|info| info.semaphore_type == vk::SemaphoreType::TIMELINE),
        is_external: exported.is_some_and(|info| !info.handle_types.is_empty()),
    }
}

/// vkGetSemaphoreFdKHR: what is exported by copy must have a signal to come, which the backing driver may not know yet.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn export(
    device: vk::Device,
    info: *const vk::SemaphoreGetFdInfoKHR<'_>,
    fd: *mut c_int,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(export) = state.next.vkGetSemaphoreFdKHR else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: a valid structure.
    let (semaphore, handle_type) = unsafe { ((*info).semaphore, (*info).handle_type) };
    if handle_type == vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD
        && let Err(error) = state.before_export(semaphore, vk::Fence::null())
    {
        return error;
    }
    // SAFETY: the arguments are passed on as they came.
    unsafe { export(device, info, fd) }
}

/// vkImportSemaphoreFdKHR: what the semaphore stood for it stands for no more, and others may wait for it from now on.
/// Not if a sync file was imported: its signal is given already.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn import(device: vk::Device, info: *const vk::ImportSemaphoreFdInfoKHR<'_>) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(import) = state.next.vkImportSemaphoreFdKHR else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { import(device, info) };
    // SAFETY: a valid structure.
    let (semaphore, handle_type) = unsafe { ((*info).semaphore, (*info).handle_type) };
    if let (vk::Result::SUCCESS, Some(coherence)) = (result, &state.coherence)
        && handle_type != vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD
    {
        coherence.progress.forget_semaphore(semaphore);
        coherence.held.forget_semaphore(semaphore);
        coherence.held.expect_exports();
        coherence.semaphores.exclusive().entry(semaphore.as_raw()).or_default().is_external = true;
    }
    result
}

/// The batches that are done if `semaphore` has reached `value`.
fn points_of(device: &Device, semaphore: vk::Semaphore, value: u64) -> Vec<Point> {
    let coherence = device.coherence.as_ref();
    coherence.map(|coherence| coherence.progress.of_timeline(semaphore, value)).unwrap_or_default()
}

/// vkWaitSemaphores.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn wait(
    device: vk::Device,
    info: *const vk::SemaphoreWaitInfo<'_>,
    timeout: u64,
) -> vk::Result {
    // SAFETY: a live device.
    let Some(state) = (unsafe { DEVICES.find(device) }) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(wait) = state.next.vkWaitSemaphores else { return vk::Result::ERROR_DEVICE_LOST };
    let result = if state.is_lost() {
        vk::Result::ERROR_DEVICE_LOST
    } else {
        // SAFETY: the arguments are passed on as they came.
        unsafe { wait(device, info, timeout) }
    };
    // SAFETY: a valid structure.
    let info = unsafe { &*info };
    let is_any = info.flags.contains(vk::SemaphoreWaitFlags::ANY) && info.semaphore_count != 1;
    let mut done = Vec::new();
    if result == vk::Result::SUCCESS && !is_any && info.semaphore_count > 0 {
        let count = info.semaphore_count as usize;
        // SAFETY: valid arrays of that many elements.
        let waits = unsafe {
            slice::from_raw_parts(info.p_semaphores, count)
                .iter()
                .zip(slice::from_raw_parts(info.p_values, count))
        };
        // A value once reached stays reached, so that asking after the wait is as good as before.
        done = waits.flat_map(|(&semaphore, &value)| points_of(state, semaphore, value)).collect();
    }
    state.after_wait(result, &done)
}

/// vkSignalSemaphore: may release a batch that was submitted long ago and reads what the host wrote since.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn signal(device: vk::Device, info: *const vk::SemaphoreSignalInfo<'_>) -> vk::Result {
    // SAFETY: a live device.
    let Some(state) = (unsafe { DEVICES.find(device) }) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(signal) = state.next.vkSignalSemaphore else { return vk::Result::ERROR_DEVICE_LOST };
    state.before_signal();
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { signal(device, info) };
    state.after_signal();
    result
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
    // SAFETY: a live device.
    let Some(state) = (unsafe { DEVICES.find(device) }) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(counter_value) = state.next.vkGetSemaphoreCounterValue else {
        return vk::Result::ERROR_DEVICE_LOST;
    };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { counter_value(device, semaphore, value) };
    let mut done = Vec::new();
    if result == vk::Result::SUCCESS {
        // SAFETY: stored by the call above.
        done = points_of(state, semaphore, unsafe { *value });
    }
    state.after_wait(result, &done)
}

/// vkDestroySemaphore.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn destroy(
    device: vk::Device,
    semaphore: vk::Semaphore,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    let Some(state) = DEVICES.get(device) else { return };
    if let Some(coherence) = &state.coherence {
        coherence.progress.forget_semaphore(semaphore);
        coherence.held.forget_semaphore(semaphore);
        coherence.semaphores.exclusive().remove(&semaphore.as_raw());
    }
    if let Some(destroy) = state.next.vkDestroySemaphore {
        // SAFETY: the arguments are passed on as they came.
        unsafe { destroy(device, semaphore, allocator) }
    }
}
