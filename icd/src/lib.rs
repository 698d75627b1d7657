//! Tidemark's Vulkan driver, `libvulkan_tidemark.so`.
//!
//! It drives a [`backing`] driver and makes its memory coherent towards the host. Dispatchable handles are the
//! backing driver's own; state of ours lives in side tables keyed by handle. Few commands are intercepted: one
//! table in `entry` declares them. Every other is the backing driver's own function pointer.
//!
//! | file | holds |
//! | --- | --- |
//! | `entry` | the table of intercepted commands, the panic guard |
//! | `instance`, `physical_device`, `device`, `queue`, `memory`, `buffer`, `image`, `descriptor_set`, `command_buffer`, `fence`, `semaphore`, `event`, `swapchain`, `requirements` | the commands, by the Vulkan object they work on |
//! | `references` | what a command buffer refers to, and what a batch uses in consequence |
//! | `submission` | what a queue is given, how it is made ready, and when it may go |
//! | `progress` | how far each queue is known to be |
//! | `memory_types` | the memory types applications see, and how they map onto the backing driver's |
//! | `coherence` | sync points: what is flushed and read back, and when |
//! | `placed` | placed maps: structures that `ash` lacks, and what they say |
//! | `allocation` | what the chain of an allocation says of its memory |
//! | `transfer` | how bytes cross between host views and device memory |
//! | `host_pointer` | memory of the application's that it imports |
//! | `backing`, `discovery` | finding and loading the backing driver |
//! | `payload` | what allocations of one process share when they share memory |
//! | `hidden` | extensions and features that are hidden, and why |
//! | `offered` | extensions that are offered whatever the backing driver has |
//! | `audit` | what is intercepted and what is hidden, for the test that holds it against vk.xml |
//! | `config`, `logger`, `profile` | environment variables, the log, the counters |
//!
//! Lock order: the held batches of a device; a command buffer's references (a primary's before its secondaries'), a
//! descriptor set's bindings; a memory's state; its payload's, or a device's `active` memories, or its `progress` (the list
//! of queues before a queue's counts); last a mirror's, then what is staged or the window of a payload, and then a queue's
//! turn, or those of all queues of a device by their handles. The tables are locked for a look-up, with no lock taken inside
//! but `progress`, for a queue that is fetched first; so are the lists of imports that are kept, and of payloads that are
//! known. None is held across a wait but, to idle, what is staged and the turns of queues, which nobody else needs meanwhile,
//! and across a transfer only those of the memory and its mirror, and that of the held batches if it is for one of them.

mod allocation;
pub mod audit;
pub mod backing;
mod buffer;
mod chain;
mod coherence;
mod command_buffer;
pub mod config;
mod descriptor_set;
mod device;
pub mod discovery;
mod entry;
mod event;
mod fence;
pub mod hidden;
mod host_pointer;
mod image;
mod instance;
mod logger;
mod memory;
mod memory_types;
mod offered;
mod payload;
mod physical_device;
mod placed;
mod profile;
mod progress;
mod queue;
mod references;
mod requirements;
mod semaphore;
mod submission;
mod swapchain;
mod tables;
mod transfer;

use ash::vk;
use std::ffi::{CStr, c_char};

/// The loader and the driver agree on the version of their interface.
///
/// # Safety
/// `version` must be valid for reads and writes.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vk_icdNegotiateLoaderICDInterfaceVersion(version: *mut u32) -> vk::Result {
    // SAFETY: the caller's promise.
    let asked = unsafe { *version };
    // Before version 3 a driver could not have surfaces of its own, which the backing driver relies on.
    if asked < 3 {
        return vk::Result::ERROR_INCOMPATIBLE_DRIVER;
    }
    // SAFETY: as above.
    unsafe { *version = asked.min(backing::INTERFACE_VERSION) };
    vk::Result::SUCCESS
}

/// `vkGetInstanceProcAddr`, and the `vk_icd*` functions by name, for the loader.
///
/// # Safety
/// `name` must be null or a null-terminated string, `instance` null or an instance of this driver.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vk_icdGetInstanceProcAddr(
    instance: vk::Instance,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    // SAFETY: the caller's promise.
    entry::guard(|| unsafe { instance::proc_addr(instance, name) })
}

/// Like [`vk_icdGetInstanceProcAddr`], but answers only commands whose first argument is a physical device.
///
/// # Safety
/// `name` must be null or a null-terminated string, `instance` an instance of this driver.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vk_icdGetPhysicalDeviceProcAddr(
    instance: vk::Instance,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    // SAFETY: the caller's promise.
    entry::guard(|| unsafe { physical_device::proc_addr(instance, name) })
}
