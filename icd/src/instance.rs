//! VkInstance: creation, the look-up of commands, and the enumeration of physical devices.

use crate::backing::Backing;
use crate::config::{Config, Mode};
use crate::entry::{self, instance::Fns};
use crate::offered;
use crate::physical_device::PhysicalDevice;
use crate::tables::{INSTANCES, PHYSICAL_DEVICES};
use ash::vk;
use std::ffi::{CStr, c_char};
use std::slice;
use std::sync::Arc;

/// Tidemark's state of an instance.
pub(crate) struct Instance {
    pub(crate) handle: vk::Instance,
    pub(crate) backing: &'static Backing,
    /// The backing driver's instance commands.
    pub(crate) fns: Fns,
    /// The backing driver's physical-device commands.
    pub(crate) physical_device_fns: entry::physical_device::Fns,
}

impl Instance {
    /// The backing driver's commands, of which those of Vulkan 1.0 may be used: it has them all.
    pub(crate) fn commands(&self) -> ash::Instance {
        // SAFETY: an instance of the backing driver, and its functions by their names.
        unsafe {
            let find = |name: &CStr| self.backing.instance_proc_addr(self.handle, name);
            ash::Instance::load_with(
                |name| find(name).map_or(std::ptr::null(), |found| found as *const _),
                self.handle,
            )
        }
    }
}

/// vkGetInstanceProcAddr: Tidemark's function if it intercepts the command and the backing driver has it, or Tidemark
/// offers it; otherwise the backing driver's own.
///
/// # Safety
/// `instance` must be null or an instance of this driver.
pub(crate) unsafe fn proc_addr(instance: vk::Instance, name: &CStr) -> vk::PFN_vkVoidFunction {
    if let Some(function) = own_proc_addr(name) {
        return Some(function);
    }
    let backing = Backing::get()?;
    // SAFETY: handles pass through unchanged, so it is an instance of the backing driver too.
    let theirs = unsafe { backing.instance_proc_addr(instance, name) };
    let device_level = || match Config::get().mode {
        Mode::Never => None,
        Mode::Auto | Mode::Always => entry::coherence::find(name),
    };
    let ours = entry::instance::find(name)
        .or_else(|| entry::physical_device::find(name))
        .or_else(|| entry::device::find(name))
        .or_else(device_level);
    ours.filter(|_| theirs.is_some() || offered::has_command(name)).or(theirs)
}

/// What must be answered without a backing driver: global commands, and the loader's own.
fn own_proc_addr(name: &CStr) -> vk::PFN_vkVoidFunction {
    type Void = unsafe extern "system" fn();
    match name.to_bytes() {
        // SAFETY: function pointers; who calls them knows their signatures by name.
        b"vk_icdNegotiateLoaderICDInterfaceVersion" => Some(unsafe {
            std::mem::transmute::<unsafe extern "system" fn(*mut u32) -> vk::Result, Void>(
                crate::vk_icdNegotiateLoaderICDInterfaceVersion,
            )
        }),
        // SAFETY: as above.
        b"vk_icdGetInstanceProcAddr" | b"vkGetInstanceProcAddr" => Some(unsafe {
            std::mem::transmute::<vk::PFN_vkGetInstanceProcAddr, Void>(crate::vk_icdGetInstanceProcAddr)
        }),
        // SAFETY: as above.
        b"vk_icdGetPhysicalDeviceProcAddr" => Some(unsafe {
            std::mem::transmute::<vk::PFN_vkGetInstanceProcAddr, Void>(crate::vk_icdGetPhysicalDeviceProcAddr)
        }),
        _ => entry::global::find(name),
    }
}

/// The backing driver's global commands.
fn global_fns(backing: &Backing) -> entry::global::Fns {
    // SAFETY: global commands are those of no instance.
    entry::global::Fns::load(|name| unsafe { backing.instance_proc_addr(vk::Instance::null(), name) })
}

/// vkCreateInstance.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn create(
    info: *const vk::InstanceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    instance: *mut vk::Instance,
) -> vk::Result {
    // No backing driver: the loader then goes on to the next driver.
    let Some(backing) = Backing::get() else { return vk::Result::ERROR_INCOMPATIBLE_DRIVER };
    let Some(create) = global_fns(backing).vkCreateInstance else {
        log::error!("{}: has no vkCreateInstance", backing.library.display());
        return vk::Result::ERROR_INCOMPATIBLE_DRIVER;
    };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { create(info, allocator, instance) };
    if result == vk::Result::SUCCESS {
        // SAFETY: the command succeeded, so it stored an instance.
        let handle = unsafe { *instance };
        // SAFETY: an instance of the backing driver, just created.
        let get = |name: &CStr| unsafe { backing.instance_proc_addr(handle, name) };
        let state = Instance {
            handle,
            backing,
            fns: Fns::load(get),
            physical_device_fns: entry::physical_device::Fns::load(get),
        };
        INSTANCES.insert(handle, Arc::new(state));
    }
    result
}

/// vkDestroyInstance.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn destroy(instance: vk::Instance, allocator: *const vk::AllocationCallbacks<'_>) {
    let Some(state) = INSTANCES.remove(instance) else { return };
    PHYSICAL_DEVICES.retain(|physical| physical.instance.handle != instance);
    if let Some(destroy) = state.fns.vkDestroyInstance {
        // SAFETY: the arguments are passed on as they came.
        unsafe { destroy(instance, allocator) }
    }
}

/// vkEnumerateInstanceExtensionProperties.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn enumerate_extensions(
    layer: *const c_char,
    count: *mut u32,
    properties: *mut vk::ExtensionProperties,
) -> vk::Result {
    match Backing::get().and_then(|backing| global_fns(backing).vkEnumerateInstanceExtensionProperties) {
        // SAFETY: the arguments are passed on as they came.
        Some(enumerate) => unsafe { enumerate(layer, count, properties) },
        None => {
            // SAFETY: `count` is valid for writes.
            unsafe { *count = 0 };
            vk::Result::SUCCESS
        }
    }
}

/// vkEnumerateInstanceVersion, which a driver of Vulkan 1.0 lacks.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn enumerate_version(version: *mut u32) -> vk::Result {
    match Backing::get().and_then(|backing| global_fns(backing).vkEnumerateInstanceVersion) {
        // SAFETY: the arguments are passed on as they came.
        Some(enumerate) => unsafe { enumerate(version) },
        None => {
            // SAFETY: `version` is valid for writes.
            unsafe { *version = vk::API_VERSION_1_0 };
            vk::Result::SUCCESS
        }
    }
}

/// vkEnumeratePhysicalDevices.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn enumerate_physical_devices(
    instance: vk::Instance,
    count: *mut u32,
    devices: *mut vk::PhysicalDevice,
) -> vk::Result {
    let Some(state) = INSTANCES.get(instance) else { return vk::Result::ERROR_INITIALIZATION_FAILED };
    let Some(enumerate) = state.fns.vkEnumeratePhysicalDevices else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { enumerate(instance, count, devices) };
    if matches!(result, vk::Result::SUCCESS | vk::Result::INCOMPLETE) && !devices.is_null() {
        // SAFETY: the command stored `count` handles.
        let devices = unsafe { slice::from_raw_parts(devices, *count as usize) };
        devices.iter().for_each(|&device| remember(&state, device));
    }
    result
}

/// vkEnumeratePhysicalDeviceGroups.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn enumerate_physical_device_groups(
    instance: vk::Instance,
    count: *mut u32,
    groups: *mut vk::PhysicalDeviceGroupProperties<'_>,
) -> vk::Result {
    let Some(state) = INSTANCES.get(instance) else { return vk::Result::ERROR_INITIALIZATION_FAILED };
    let Some(enumerate) = state.fns.vkEnumeratePhysicalDeviceGroups else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { enumerate(instance, count, groups) };
    if matches!(result, vk::Result::SUCCESS | vk::Result::INCOMPLETE) && !groups.is_null() {
        // SAFETY: the command filled `count` structures.
        for group in unsafe { slice::from_raw_parts(groups, *count as usize) } {
            group.physical_devices_as_slice().iter().for_each(|&device| remember(&state, device));
        }
    }
    result
}

fn remember(instance: &Arc<Instance>, device: vk::PhysicalDevice) {
    if !PHYSICAL_DEVICES.contains(device)
        && let Some(state) = PhysicalDevice::new(instance, device)
    {
        PHYSICAL_DEVICES.insert(device, Arc::new(state));
    }
}
