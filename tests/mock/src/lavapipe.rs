//! Loading lavapipe, which does the work. Directly, never through libvulkan, which would find the mock again.

use crate::INTERFACE_VERSION;
use crate::misuse::say;
use ash::vk;
use std::ffi::{CStr, c_void};
use std::sync::OnceLock;

const LIBRARY: &CStr = c"libvulkan_lvp.so";

/// `vk_icdGetPhysicalDeviceProcAddr` has the same shape.
type GetProcAddr = vk::PFN_vkGetInstanceProcAddr;

/// The loaded driver.
pub(crate) struct Lavapipe {
    get_instance_proc_addr: GetProcAddr,
    get_physical_device_proc_addr: GetProcAddr,
}

impl Lavapipe {
    /// Loads it at the first call, for good. `None` if that fails, which was said then.
    pub(crate) fn get() -> Option<&'static Self> {
        static LAVAPIPE: OnceLock<Option<Lavapipe>> = OnceLock::new();
        let lavapipe = LAVAPIPE.get_or_init(|| {
            let lavapipe = Self::load();
            if lavapipe.is_none() {
                say(format_args!("{LIBRARY:?} cannot be loaded, or is no driver: run tests/setup"));
            }
            lavapipe
        });
        lavapipe.as_ref()
    }

    fn load() -> Option<Self> {
        // SAFETY: loads a driver, whose initialisers run, as in any Vulkan program.
        let handle = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return None;
        }
        let find = |name: &CStr| {
            // SAFETY: a live handle, never closed.
            let symbol = unsafe { libc::dlsym(handle, name.as_ptr()) };
            (!symbol.is_null()).then_some(symbol)
        };
        let negotiate = find(c"vk_icdNegotiateLoaderICDInterfaceVersion")?;
        // SAFETY: the loader-driver interface gives this function this type.
        let negotiate = unsafe {
            std::mem::transmute::<*mut c_void, unsafe extern "system" fn(*mut u32) -> vk::Result>(negotiate)
        };
        let mut version = INTERFACE_VERSION;
        // SAFETY: a live version.
        let result = unsafe { negotiate(&raw mut version) };
        // From version 4 on there are functions for physical devices.
        if result != vk::Result::SUCCESS || version < 4 {
            return None;
        }
        let proc_addr = |name: &CStr| {
            // SAFETY: the functions asked for below have this type.
            find(name).map(|symbol| unsafe { std::mem::transmute::<*mut c_void, GetProcAddr>(symbol) })
        };
        Some(Self {
            get_instance_proc_addr: proc_addr(c"vk_icdGetInstanceProcAddr")?,
            get_physical_device_proc_addr: proc_addr(c"vk_icdGetPhysicalDeviceProcAddr")?,
        })
    }

    /// `vk_icdGetInstanceProcAddr`.
    ///
    /// # Safety
    /// `instance` must be null or a live instance.
    pub(crate) unsafe fn proc_addr(&self, instance: vk::Instance, name: &CStr) -> vk::PFN_vkVoidFunction {
        // SAFETY: the caller's promise.
        unsafe { (self.get_instance_proc_addr)(instance, name.as_ptr()) }
    }

    /// `vk_icdGetPhysicalDeviceProcAddr`.
    ///
    /// # Safety
    /// `instance` must be a live instance.
    pub(crate) unsafe fn physical_device_proc_addr(
        &self,
        instance: vk::Instance,
        name: &CStr,
    ) -> vk::PFN_vkVoidFunction {
        // SAFETY: the caller's promise.
        unsafe { (self.get_physical_device_proc_addr)(instance, name.as_ptr()) }
    }
}
