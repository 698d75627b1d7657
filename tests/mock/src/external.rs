//! Fences and semaphores that are exported as sync files, which lavapipe does not do, where the environment claims
//! VK_KHR_external_fence_fd and VK_KHR_external_semaphore_fd.
//!
//! A file is an eventfd that a thread of the mock's makes readable once lavapipe says that the signal was given: what
//! waits by it says nothing to any Vulkan command. A fence must not be submitted again before its file is readable, as
//! it is reset then only.

use crate::device::{DEVICES, Device};
use crate::entry;
use crate::misuse::misuse;
use crate::physical_device::{self, PHYSICAL_DEVICES};
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
    let extension = if name == c"vkGetFenceFdKHR" { FENCES } else { SEMAPHORES };
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
    let handle_type = vk::ExternalFenceHandleTypeFlags::SYNC_FD;
    // SAFETY: valid structures; the arguments are passed on as they came.
    unsafe {
        if (*info).handle_type == handle_type && physical_device::is_claimed(FENCES) {
            (*properties).export_from_imported_handle_types = vk::ExternalFenceHandleTypeFlags::empty();
            (*properties).compatible_handle_types = handle_type;
            (*properties).external_fence_features = vk::ExternalFenceFeatureFlags::EXPORTABLE;
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
    let handle_type = vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD;
    // SAFETY: valid structures; the arguments are passed on as they came.
    unsafe {
        if (*info).handle_type == handle_type && physical_device::is_claimed(SEMAPHORES) {
            (*properties).export_from_imported_handle_types = vk::ExternalSemaphoreHandleTypeFlags::empty();
            (*properties).compatible_handle_types = handle_type;
            (*properties).external_semaphore_features = vk::ExternalSemaphoreFeatureFlags::EXPORTABLE;
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
    // SAFETY: a valid structure with its chain, of which the first one of this tag is copied.
    let kind = unsafe {
        let mut at = (*info).p_next.cast::<vk::BaseInStructure<'_>>();
        while at.as_ref().is_some_and(|link| link.s_type != vk::StructureType::SEMAPHORE_TYPE_CREATE_INFO) {
            at = (*at).p_next;
        }
        at.cast::<vk::SemaphoreTypeCreateInfo<'_>>().as_ref()
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
    // SAFETY: the other arguments are passed on as they came.
    unsafe { create(handle, &raw const info, allocator, semaphore) }
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
    // SAFETY: the arguments are passed on as they came.
    unsafe { queue::submit(queue, count, submits, fence) }
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
    // SAFETY: the arguments are passed on as they came.
    unsafe { queue::submit2(queue, count, submits, fence) }
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
        expect_signal("vkGetFenceFdKHR", (*info).fence.as_raw());
        *fd = readable_after(handle, (*info).fence, false);
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
    let state = device(handle);
    let core = &state.core;
    let (mut fence, mut queue) = (vk::Fence::null(), vk::Queue::null());
    let stages = [vk::PipelineStageFlags::ALL_COMMANDS];
    // SAFETY: a valid structure, live objects, and room for a file.
    unsafe {
        expect_signal("vkGetSemaphoreFdKHR", (*info).semaphore.as_raw());
        let semaphores = [(*info).semaphore];
        let submits = vk::SubmitInfo::default().wait_semaphores(&semaphores).wait_dst_stage_mask(&stages);
        let new = vk::FenceCreateInfo::default();
        let result = (core.create_fence)(handle, &raw const new, std::ptr::null(), &raw mut fence);
        if result != vk::Result::SUCCESS {
            return result;
        }
        (core.get_device_queue)(handle, 0, 0, &raw mut queue);
        let turn = state.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let result = (core.queue_submit)(queue, 1, &raw const submits, fence);
        drop(turn);
        if result == vk::Result::SUCCESS {
            *fd = readable_after(handle, fence, true);
        }
        result
    }
}

/// An eventfd that becomes readable after `fence`, which is then reset, or destroyed.
///
/// # Safety
/// The fence must live until then.
unsafe fn readable_after(handle: vk::Device, fence: vk::Fence, is_own: bool) -> c_int {
    let state = device(handle);
    // SAFETY: a new descriptor.
    let (ours, theirs) = unsafe {
        let file = File::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC));
        let theirs = libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 0);
        (file, File::from_raw_fd(theirs))
    };
    std::thread::spawn(move || {
        let (mut ours, core) = (ours, &state.core);
        // SAFETY: a fence that lives until this is done with it.
        unsafe {
            (core.wait_for_fences)(handle, 1, &raw const fence, vk::TRUE, u64::MAX)
                .result()
                .unwrap_or_else(|error| misuse(format_args!("vkWaitForFences: {error}")));
            if is_own {
                (core.destroy_fence)(handle, fence, std::ptr::null());
            } else {
                (core.reset_fences)(handle, 1, &raw const fence)
                    .result()
                    .unwrap_or_else(|error| misuse(format_args!("vkResetFences: {error}")));
            }
        }
        // An eventfd takes as many.
        let _ = ours.write_all(&1u64.to_ne_bytes());
    });
    theirs.into_raw_fd()
}
