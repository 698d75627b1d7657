//! Opens the Vulkan loader, the library through which every Vulkan application reaches a driver.

use std::ffi::{CStr, c_void};
use std::mem;

use ash::vk;

use crate::error::{Error, Result};

/// Opens `libvulkan.so.1` and finds `vkGetInstanceProcAddr` in it. The library is never closed: its
/// functions are good until the process ends.
pub(crate) fn load() -> Result<ash::Entry> {
    // SAFETY: the name is a C string. Opening the library runs its initialisers; those of the Vulkan
    // loader are made to run in any process at any time.
    let library = unsafe { libc::dlopen(c"libvulkan.so.1".as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if library.is_null() {
        return Err(Error::new(format!(
            "cannot open the Vulkan loader: {}: install it (Debian: libvulkan1; Fedora, Arch: vulkan-loader)",
            last_error()
        )));
    }
    // SAFETY: `library` is a handle that dlopen has just returned and nobody closes; the name is a C string.
    let function = unsafe { libc::dlsym(library, c"vkGetInstanceProcAddr".as_ptr()) };
    if function.is_null() {
        return Err(Error::new(format!("libvulkan.so.1 is not a Vulkan loader: {}", last_error())));
    }
    // SAFETY: the pointer is not null, and the loader's ABI gives the symbol of this name exactly this type.
    let get_instance_proc_addr =
        unsafe { mem::transmute::<*mut c_void, vk::PFN_vkGetInstanceProcAddr>(function) };
    // SAFETY: the function is the loader's own, and the library stays open as long as the process lives.
    Ok(unsafe { ash::Entry::from_static_fn(ash::StaticFn { get_instance_proc_addr }) })
}

fn last_error() -> String {
    // SAFETY: dlerror has no precondition. Its text belongs to this thread.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "no reason given".into();
    }
    // SAFETY: a non-null answer is a C string, valid until this thread's next dl* call; it is copied here.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
