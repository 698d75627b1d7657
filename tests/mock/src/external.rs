//! Fences and semaphores that are exported and imported, which lavapipe does not do, where the environment claims
//! VK_KHR_external_fence_fd and VK_KHR_external_semaphore_fd: as sync files, to export alone, and as files that are
//! [`opaque`].
//!
//! A sync file is an eventfd that a thread of the mock's makes readable once lavapipe says that the signal was given: what
//! waits by it says nothing to any Vulkan command. A fence must not be submitted again before its file is readable, as
//! it is reset then only.

use crate::device::{DEVICES, Device};
use crate::entry;
use crate::misuse::misuse;
use crate::opaque;
use crate::physical_device::{self, PHYSICAL_DEVICES, find_input};
use crate::queue;
use ash::vk::{self, Handle};
use std::collections::BTreeSet;
use std::ffi::{CStr, c_int};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The command of this name, if its extension is claimed.
pub(crate) fn find(name: &CStr) -> vk::PFN_vkVoidFunction {
    let found = entry::external::find(name)?;
    let is_of_fences = [c"vkGetFenceFdKHR", c"vkImportFenceFdKHR"].contains(&name);
    let extension = if is_of_fences { FENCES } else { SEMAPHORES };
    physical_device::is_claimed(extension).then_some(found)
}

const FENCES: &CStr = c"VK_KHR_external_fence_fd";
const SEMAPHORES: &CStr = c"VK_KHR_external_semaphore_fd";

/// vkGetPhysicalDeviceExternalFenceProperties.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn fence_properties(
    handle: vk::PhysicalDevice,
    info: *const vk::PhysicalDeviceExternalFenceInfo<'_>,
    properties: *mut vk::ExternalFenceProperties<'_>,
) {
    // SAFETY: valid structures; the arguments are passed on as they came.
    unsafe {
        let handle_type = (*info).handle_type;
        let is_sync = handle_type == vk::ExternalFenceHandleTypeFlags::SYNC_FD;
        let is_opaque = handle_type == vk::ExternalFenceHandleTypeFlags::OPAQUE_FD;
        if (is_sync || is_opaque) && physical_device::is_claimed(FENCES) {
            let features = vk::ExternalFenceFeatureFlags::EXPORTABLE;
            let opaque = features | vk::ExternalFenceFeatureFlags::IMPORTABLE;
            let none = vk::ExternalFenceHandleTypeFlags::empty();
            (*properties).export_from_imported_handle_types = if is_opaque { handle_type } else { none };
            (*properties).compatible_handle_types = handle_type;
            (*properties).external_fence_features = if is_opaque { opaque } else { features };
        } else if let Some(get) = PHYSICAL_DEVICES
            .get(handle)
            .and_then(|state| state.fns.vkGetPhysicalDeviceExternalFenceProperties)
        {
            get(handle, info, properties);
        }
    }
}

/// vkGetPhysicalDeviceExternalSemaphoreProperties.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn semaphore_properties(
    handle: vk::PhysicalDevice,
    info: *const vk::PhysicalDeviceExternalSemaphoreInfo<'_>,
    properties: *mut vk::ExternalSemaphoreProperties<'_>,
) {
    // SAFETY: valid structures; the arguments are passed on as they came.
    unsafe {
        let handle_type = (*info).handle_type;
        let is_sync = handle_type == vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD;
        let is_opaque = handle_type == vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD;
        if (is_sync || is_opaque) && physical_device::is_claimed(SEMAPHORES) {
            let features = vk::ExternalSemaphoreFeatureFlags::EXPORTABLE;
            let opaque = features | vk::ExternalSemaphoreFeatureFlags::IMPORTABLE;
            let none = vk::ExternalSemaphoreHandleTypeFlags::empty();
            (*properties).export_from_imported_handle_types = if is_opaque { handle_type } else { none };
            (*properties).compatible_handle_types = handle_type;
            (*properties).external_semaphore_features = if is_opaque { opaque } else { features };
        } else if let Some(get) = PHYSICAL_DEVICES
            .get(handle)
            .and_then(|state| state.fns.vkGetPhysicalDeviceExternalSemaphoreProperties)
        {
            get(handle, info, properties);
        }
    }
}

fn device(handle: vk::Device) -> Arc<Device> {
    DEVICES.get(handle).unwrap_or_else(|| misuse(format_args!("{handle:?} is no device")))
}

/// vkCreateFence. Lavapipe need not know of exports.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn create_fence(
    handle: vk::Device,
    info: *const vk::FenceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    fence: *mut vk::Fence,
) -> vk::Result {
    let state = device(handle);
    let Some(create) = state.next.vkCreateFence else { return vk::Result::ERROR_DEVICE_LOST };
    state.counters.objects.fetch_add(1, Ordering::Relaxed);
    // SAFETY: a valid structure; nothing but exports extends it.
    let info = vk::FenceCreateInfo::default().flags(unsafe { (*info).flags });
    // SAFETY: the other arguments are passed on as they came.
    unsafe { create(handle, &raw const info, allocator, fence) }
}

/// vkCreateSemaphore, likewise.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn create_semaphore(
    handle: vk::Device,
    info: *const vk::SemaphoreCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    semaphore: *mut vk::Semaphore,
) -> vk::Result {
    let state = device(handle);
    let Some(create) = state.next.vkCreateSemaphore else { return vk::Result::ERROR_DEVICE_LOST };
    state.counters.objects.fetch_add(1, Ordering::Relaxed);
    // SAFETY: a valid structure with its chain.
    let (kind, export) = unsafe {
        (
            find_input::<vk::SemaphoreTypeCreateInfo<'_>>((*info).p_next),
            find_input::<vk::ExportSemaphoreCreateInfo<'_>>((*info).p_next),
        )
    };
    let mut kind = kind.map(|kind| {
        vk::SemaphoreTypeCreateInfo::default()
            .semaphore_type(kind.semaphore_type)
            .initial_value(kind.initial_value)
    });
    let mut info = vk::SemaphoreCreateInfo::default();
    if let Some(kind) = &mut kind {
        info = info.push_next(kind);
    }
    // SAFETY: the other arguments are passed on as they came; the command stores a handle if it succeeds.
    unsafe {
        let result = create(handle, &raw const info, allocator, semaphore);
        if result == vk::Result::SUCCESS && export.is_some_and(|info| !info.handle_types.is_empty()) {
            opaque::share(*semaphore);
        }
        result
    }
}

/// vkDestroyFence.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn destroy_fence(
    handle: vk::Device,
    fence: vk::Fence,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    let state = device(handle);
    state.counters.objects.fetch_sub(u64::from(!fence.is_null()), Ordering::Relaxed);
    opaque::forget(fence);
    // SAFETY: the arguments are passed on as they came.
    unsafe { (state.core.destroy_fence)(handle, fence, allocator) }
}

/// vkDestroySemaphore.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn destroy_semaphore(
    handle: vk::Device,
    semaphore: vk::Semaphore,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    let state = device(handle);
    state.counters.objects.fetch_sub(u64::from(!semaphore.is_null()), Ordering::Relaxed);
    opaque::forget(semaphore);
    // SAFETY: the arguments are passed on as they came.
    unsafe { (state.core.destroy_semaphore)(handle, semaphore, allocator) }
}

/// Fences and semaphores that some queue was told to signal, and that were not exported since.
static SIGNALS: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

fn signals() -> MutexGuard<'static, BTreeSet<u64>> {
    SIGNALS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An export by copy needs a signal that is on its way.
fn expect_signal(command: &str, handle: u64) {
    if !signals().remove(&handle) {
        misuse(format_args!("{command}: nothing signals {handle:#x}"));
    }
}

/// vkQueueSubmit.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn submit(
    queue: vk::Queue,
    count: u32,
    submits: *const vk::SubmitInfo<'_>,
    fence: vk::Fence,
) -> vk::Result {
    for index in 0..count as usize {
        // SAFETY: valid arrays, and `count` structures.
        unsafe {
            let info = &*submits.add(index);
            for at in 0..info.signal_semaphore_count as usize {
                signals().insert((*info.p_signal_semaphores.add(at)).as_raw());
            }
        }
    }
    signals().insert(fence.as_raw());
    // SAFETY: the arguments are passed on as they came, or as structures that mean the same.
    unsafe {
        let infos = opaque::Infos::of(opaque::array(submits, count));
        if infos.share(fence) {
            infos.submit(queue, fence)
        } else {
            queue::submit(queue, count, submits, fence)
        }
    }
}

/// vkQueueSubmit2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn submit2(
    queue: vk::Queue,
    count: u32,
    submits: *const vk::SubmitInfo2<'_>,
    fence: vk::Fence,
) -> vk::Result {
    for index in 0..count as usize {
        // SAFETY: valid arrays, and `count` structures.
        unsafe {
            let info = &*submits.add(index);
            for at in 0..info.signal_semaphore_info_count as usize {
                signals().insert((*info.p_signal_semaphore_infos.add(at)).semaphore.as_raw());
            }
        }
    }
    signals().insert(fence.as_raw());
    // SAFETY: the arguments are passed on as they came, or what is shared with timelines in its place.
    unsafe {
        let infos = opaque::Infos::of2(opaque::array(submits, count));
        if infos.share(fence) {
            infos.submit(queue, fence)
        } else {
            queue::submit2(queue, count, submits, fence)
        }
    }
}

/// vkGetFenceFdKHR.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn get_fence_fd(
    handle: vk::Device,
    info: *const vk::FenceGetFdInfoKHR<'_>,
    fd: *mut c_int,
) -> vk::Result {
    // SAFETY: a valid structure, and room for a file.
    unsafe {
        if (*info).handle_type == vk::ExternalFenceHandleTypeFlags::OPAQUE_FD {
            *fd = opaque::export((*info).fence);
            return vk::Result::SUCCESS;
        }
        expect_signal("vkGetFenceFdKHR", (*info).fence.as_raw());
        *fd = readable_after_fence(&device(handle), (*info).fence);
    }
    vk::Result::SUCCESS
}

/// vkGetSemaphoreFdKHR, which waits for the semaphore.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn get_semaphore_fd(
    handle: vk::Device,
    info: *const vk::SemaphoreGetFdInfoKHR<'_>,
    fd: *mut c_int,
) -> vk::Result {
    // SAFETY: a valid structure, and room for a file.
    unsafe {
        if (*info).handle_type == vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD {
            *fd = opaque::export((*info).semaphore);
            return vk::Result::SUCCESS;
        }
        expect_signal("vkGetSemaphoreFdKHR", (*info).semaphore.as_raw());
        let Some(payload) = opaque::payload((*info).semaphore) else {
            misuse(format_args!("vkGetSemaphoreFdKHR: {:?} cannot be exported", (*info).semaphore));
        };
        let signalled = payload.clone();
        let wait = move |_: &Device, timeout| signalled.wait(timeout);
        *fd = readable_after(&device(handle), wait, move |_| payload.set(false));
    }
    vk::Result::SUCCESS
}

/// vkImportFenceFdKHR.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn import_fence_fd(_: vk::Device, info: *const vk::ImportFenceFdInfoKHR<'_>) -> vk::Result {
    // SAFETY: a valid structure, of which the descriptor is handed over.
    unsafe {
        if (*info).handle_type != vk::ExternalFenceHandleTypeFlags::OPAQUE_FD {
            misuse(format_args!(
                "vkImportFenceFdKHR: fences of {:?} cannot be imported",
                (*info).handle_type
            ));
        }
        opaque::import((*info).fence, (*info).fd)
    }
}

/// vkImportSemaphoreFdKHR.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn import_semaphore_fd(
    _: vk::Device,
    info: *const vk::ImportSemaphoreFdInfoKHR<'_>,
) -> vk::Result {
    // SAFETY: a valid structure, of which the descriptor is handed over.
    unsafe {
        if (*info).handle_type != vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD {
            misuse(format_args!(
                "vkImportSemaphoreFdKHR: semaphores of {:?} cannot be imported",
                (*info).handle_type
            ));
        }
        opaque::import((*info).semaphore, (*info).fd)
    }
}

/// vkResetFences.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn reset_fences(handle: vk::Device, count: u32, fences: *const vk::Fence) -> vk::Result {
    let state = device(handle);
    // SAFETY: that many fences.
    for fence in unsafe { std::slice::from_raw_parts(fences, count as usize) } {
        opaque::payload(*fence).inspect(|payload| payload.set(false));
    }
    // SAFETY: the arguments are passed on as they came.
    unsafe { (state.core.reset_fences)(handle, count, fences) }
}

/// An eventfd that becomes readable after `fence`, which is then reset.
fn readable_after_fence(device: &Arc<Device>, fence: vk::Fence) -> c_int {
    let wait = move |device: &Device, timeout| {
        // SAFETY: a fence that lives until this is done with it.
        let result =
            unsafe { (device.core.wait_for_fences)(device.handle, 1, &raw const fence, vk::TRUE, timeout) };
        result == vk::Result::SUCCESS
    };
    readable_after(device, wait, move |device| {
        // SAFETY: as above.
        let result = unsafe { (device.core.reset_fences)(device.handle, 1, &raw const fence) };
        result.result().unwrap_or_else(|error| misuse(format_args!("vkResetFences: {error}")));
    })
}

/// An eventfd that becomes readable after `wait`, and what is to be done `then`, both as [`opaque::carry`] takes them.
fn readable_after(
    device: &Arc<Device>,
    wait: impl Fn(&Device, u64) -> bool + Send + 'static,
    then: impl FnOnce(&Device) + Send + 'static,
) -> c_int {
    // SAFETY: a new descriptor.
    let (mut ours, theirs) = unsafe {
        let file = File::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC));
        let theirs = libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 0);
        (file, File::from_raw_fd(theirs))
    };
    opaque::carry(device, wait, move |device| {
        then(device);
        // An eventfd takes as many.
        let _ = ours.write_all(&1u64.to_ne_bytes());
    });
    theirs.into_raw_fd()
}
