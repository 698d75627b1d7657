//! VkInstance: creation, and the look-up of commands.

use crate::entry::{self, Void};
use crate::lavapipe::Lavapipe;
use crate::misuse::say;
use crate::physical_device::{self, PHYSICAL_DEVICES, PhysicalDevice};
use crate::shape::Shape;
use ash::vk;
use std::ffi::CStr;

/// vkGetInstanceProcAddr: the mock's function if lavapipe has it, or else lavapipe's.
///
/// # Safety
/// `instance` must be null or an instance of this driver.
pub(crate) unsafe fn proc_addr(instance: vk::Instance, name: &CStr) -> vk::PFN_vkVoidFunction {
    match name.to_bytes() {
        // SAFETY: function pointers, here and below; who calls them knows their signatures by name.
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
        // SAFETY: as above.
        b"vkCreateInstance" => Some(unsafe { std::mem::transmute::<vk::PFN_vkCreateInstance, Void>(create) }),
        _ => {
            // SAFETY: handles pass through unchanged, so it is an instance of lavapipe.
            let theirs = unsafe { Lavapipe::get()?.proc_addr(instance, name) }?;
            entry::physical_device::find(name).or_else(|| entry::device::find(name)).or(Some(theirs))
        }
    }
}

/// vkCreateInstance.
unsafe extern "system" fn create(
    info: *const vk::InstanceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    instance: *mut vk::Instance,
) -> vk::Result {
    let shape = match Shape::get() {
        Ok(shape) => shape,
        Err(error) => {
            say(format_args!("{error}"));
            return vk::Result::ERROR_INCOMPATIBLE_DRIVER;
        }
    };
    let Some(lavapipe) = Lavapipe::get() else { return vk::Result::ERROR_INCOMPATIBLE_DRIVER };
    // SAFETY: a global command, whose name tells its type.
    let create = unsafe {
        lavapipe
            .proc_addr(vk::Instance::null(), c"vkCreateInstance")
            .map(|create| std::mem::transmute::<Void, vk::PFN_vkCreateInstance>(create))
    };
    let Some(create) = create else { return vk::Result::ERROR_INCOMPATIBLE_DRIVER };
    // SAFETY: the arguments are passed on as they came; the command stores an instance if it succeeds.
    unsafe {
        let result = create(info, allocator, instance);
        if result == vk::Result::SUCCESS {
            remember_devices(lavapipe, *instance, shape);
        }
        result
    }
}

/// Lavapipe's devices, of which there is one, are known from the start. A handle that comes again takes the place of
/// the earlier.
///
/// # Safety
/// `instance` must be a live instance.
unsafe fn remember_devices(lavapipe: &'static Lavapipe, instance: vk::Instance, shape: &'static Shape) {
    // SAFETY: the caller's promise.
    let get = |name: &CStr| unsafe { lavapipe.proc_addr(instance, name) };
    let Some(enumerate) = get(c"vkEnumeratePhysicalDevices") else { return };
    let (mut count, mut devices) = (1, [vk::PhysicalDevice::null()]);
    // SAFETY: the function of this name has this type; there is room for one.
    let result = unsafe {
        let enumerate = std::mem::transmute::<Void, vk::PFN_vkEnumeratePhysicalDevices>(enumerate);
        enumerate(instance, &raw mut count, devices.as_mut_ptr())
    };
    if result == vk::Result::SUCCESS && count == 1 {
        let fns = physical_device::Fns::load(get);
        PHYSICAL_DEVICES.insert(devices[0], PhysicalDevice { lavapipe, instance, fns, shape });
    }
}
