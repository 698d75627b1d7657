//! The mock backing driver, `libvulkan_tidemark_mock.so`: lavapipe, with the memory types of another device.
//!
//! For tests alone: of programs that must cope with such memory, Tidemark first of all. It shares no code with Tidemark,
//! whose witness it is. `TIDEMARK_MOCK` names the [`shape`] of device; `TIDEMARK_MOCK_LOG` a file to which each device
//! that is destroyed adds a line of what was mapped, flushed and invalidated; `TIDEMARK_MOCK_EXTENSIONS` a comma list of
//! device extensions that it claims to have. They can be enabled, but have no commands, except for other names of
//! lavapipe's own, for waits for presentation, which waits for nothing, and for those of [`external`];
//! `TIDEMARK_MOCK_QUEUES` the number of queues in a family, `TIDEMARK_MOCK_FAMILIES` of these; `TIDEMARK_MOCK_ROOM` how many allocations there can be;
//! `TIDEMARK_MOCK_LOSE` when the device is [lost](loss).
//!
//! - Memory that is not coherent has pages of its own for the host. Only vkFlushMappedMemoryRanges and
//!   vkInvalidateMappedMemoryRanges join them with the device's: all bytes that they are told, whether the host wrote
//!   them or not, and no others. What a cache does by chance, writing lines back early or fetching them late, never
//!   happens.
//! - Invalid use of a mapping ends the process, with a line that says what was wrong.
//! - Memory that is not cached is as fast as any other: user space cannot have write-combined pages. What it costs to
//!   read them cannot be measured here.
//!
//! | file | holds |
//! | --- | --- |
//! | `entry` | the table of intercepted commands |
//! | `lavapipe` | loading the driver that does the work |
//! | `instance`, `physical_device`, `device`, `queue`, `memory`, `requirements`, `resources` | the commands, by the Vulkan object they work on |
//! | `external` | exports of fences and semaphores as sync files |
//! | `opaque` | fences and semaphores that devices share |
//! | `loss` | losing the device |
//! | `shape` | the memory types of each device |
//! | `mapping` | what the host sees of an allocation, and which ranges it may flush |
//! | `table` | state by handle |
//! | `misuse` | the end of a program that breaks the rules |
//!
//! A panic ends the process, too, since none may cross into C.

mod device;
mod entry;
mod external;
mod instance;
mod lavapipe;
mod loss;
mod mapping;
mod memory;
mod misuse;
mod opaque;
mod physical_device;
mod queue;
mod requirements;
mod resources;
mod shape;
mod table;

use ash::vk;
use std::ffi::{CStr, c_char};

/// The newest loader-driver interface there is.
const INTERFACE_VERSION: u32 = 7;

/// The loader and the driver agree on the version of their interface.
///
/// # Safety
/// `version` must be valid for reads and writes.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vk_icdNegotiateLoaderICDInterfaceVersion(version: *mut u32) -> vk::Result {
    // SAFETY: the caller's promise.
    let version = unsafe { &mut *version };
    // Before version 3 a driver had no surfaces of its own, as lavapipe does.
    if *version < 3 {
        return vk::Result::ERROR_INCOMPATIBLE_DRIVER;
    }
    *version = INTERFACE_VERSION.min(*version);
    vk::Result::SUCCESS
}

/// `vkGetInstanceProcAddr`, and the `vk_icd*` functions by name, for the loader.
///
/// # Safety
/// `name` must be a null-terminated string, `instance` null or an instance of this driver.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vk_icdGetInstanceProcAddr(
    instance: vk::Instance,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    // SAFETY: the caller's promise, as to both.
    unsafe { instance::proc_addr(instance, CStr::from_ptr(name)) }
}

/// Like [`vk_icdGetInstanceProcAddr`], but answers only commands whose first argument is a physical device.
///
/// # Safety
/// `name` must be a null-terminated string, `instance` an instance of this driver.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vk_icdGetPhysicalDeviceProcAddr(
    instance: vk::Instance,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    // SAFETY: the caller's promise, as to both.
    unsafe { physical_device::proc_addr(instance, CStr::from_ptr(name)) }
}
