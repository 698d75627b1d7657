//! A driver's library, looked into as the loader does: without it.

use ash::vk;
use std::ffi::{CStr, CString, OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A loaded Vulkan driver.
#[derive(Clone, Copy, Debug)]
pub struct Library {
    /// Its `vk_icdGetInstanceProcAddr`.
    pub get_instance_proc_addr: vk::PFN_vkGetInstanceProcAddr,
}

impl Library {
    /// Loads the driver at `path`, for good.
    ///
    /// # Panics
    /// When it is no driver.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let name = CString::new(path.as_os_str().as_bytes()).expect("a path has no zero in it");
        // SAFETY: a Vulkan driver, which any process may load.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null(), "cannot open {}", path.display());
        // SAFETY: a live handle.
        let symbol = unsafe { libc::dlsym(handle, c"vk_icdGetInstanceProcAddr".as_ptr()) };
        assert!(!symbol.is_null(), "{} is no driver", path.display());
        // SAFETY: the symbol of this name has this type.
        let get_instance_proc_addr =
            unsafe { std::mem::transmute::<*mut c_void, vk::PFN_vkGetInstanceProcAddr>(symbol) };
        Self { get_instance_proc_addr }
    }

    /// The address of a command, 0 if the driver has none of this name. `instance` is null or a live instance of
    /// this driver; that of another makes the driver crash.
    #[must_use]
    pub fn command(&self, instance: vk::Instance, name: &CStr) -> usize {
        // SAFETY: the caller's word for the instance.
        address(unsafe { (self.get_instance_proc_addr)(instance, name.as_ptr()) })
    }

    /// The address of a device's command, 0 if there is none, by the driver's vkGetDeviceProcAddr.
    ///
    /// # Panics
    /// When the driver has no vkGetDeviceProcAddr.
    #[must_use]
    pub fn device_command(&self, instance: vk::Instance, device: vk::Device, name: &CStr) -> usize {
        // SAFETY: the caller's word for the instance.
        let get = unsafe { (self.get_instance_proc_addr)(instance, c"vkGetDeviceProcAddr".as_ptr()) };
        let get = get.expect("every driver has vkGetDeviceProcAddr");
        // SAFETY: the function of this name has this type; the caller's word for the device.
        unsafe {
            let get = std::mem::transmute::<unsafe extern "system" fn(), vk::PFN_vkGetDeviceProcAddr>(get);
            address(get(device, name.as_ptr()))
        }
    }

    /// An instance of this driver, by itself.
    ///
    /// # Panics
    /// When it cannot be created.
    #[must_use]
    pub fn instance(&self) -> ash::Instance {
        let get = ash::StaticFn { get_instance_proc_addr: self.get_instance_proc_addr };
        // SAFETY: the driver's function answers what `ash` asks of it: global commands, and those of its instances.
        let entry = unsafe { ash::Entry::from_static_fn(get) };
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let info = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: a valid create info.
        unsafe { entry.create_instance(&info, None) }.expect("cannot create an instance")
    }
}

/// The file of the Vulkan loader that programs find by its name.
///
/// # Panics
/// When it is not installed.
pub(crate) fn loader() -> PathBuf {
    // SAFETY: the loader, which any process may load; the handle is never closed.
    let symbol = unsafe {
        let handle = libc::dlopen(c"libvulkan.so.1".as_ptr(), libc::RTLD_NOW);
        assert!(!handle.is_null(), "libvulkan.so.1 cannot be opened: run tests/setup");
        libc::dlsym(handle, c"vkGetInstanceProcAddr".as_ptr())
    };
    // SAFETY: plain data, for which zeros are a value.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: looks the address up in the list of loaded objects, without touching what it points to.
    let found = unsafe { libc::dladdr(symbol, &raw mut info) } != 0 && !info.dli_fname.is_null();
    assert!(found, "libvulkan.so.1 has no vkGetInstanceProcAddr");
    // SAFETY: the linker's own string, which lives as long as the object.
    OsStr::from_bytes(unsafe { CStr::from_ptr(info.dli_fname) }.to_bytes()).into()
}

fn address(function: vk::PFN_vkVoidFunction) -> usize {
    function.map_or(0, |function| function as usize)
}
