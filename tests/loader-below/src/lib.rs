//! The stack turned over, for tests: application, Tidemark, the Vulkan loader with its layers, driver.
//!
//! Layers lie between the application and the driver, so the validation layer sees what is asked of Tidemark and not what
//! Tidemark asks of the backing driver. The loader cannot be the backing driver of a Tidemark that it has loaded itself:
//! above and below, it would keep a pointer of its own in the first word of each dispatchable object. So the application
//! does without the loader above. This library is, under the name of libvulkan.so.1, the way from the application to
//! Tidemark, and a driver, from Tidemark to the loader, at once.
//!
//! `TIDEMARK_LOADER_BELOW_DRIVER` names Tidemark's library, `TIDEMARK_LOADER_BELOW` the loader's: a path, as its bare name
//! is this library's here.

use ash::vk;
use std::ffi::{CStr, CString, OsString, c_char, c_void};
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;

type GetProcAddr = vk::PFN_vkGetInstanceProcAddr;

/// For the application, which finds every other command by this one: Tidemark's.
///
/// # Safety
/// `name` must be a null-terminated string, `instance` null or an instance that was made this way.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vkGetInstanceProcAddr(
    instance: vk::Instance,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    static TIDEMARK: OnceLock<Option<GetProcAddr>> = OnceLock::new();
    let get = TIDEMARK.get_or_init(|| find("TIDEMARK_LOADER_BELOW_DRIVER", c"vk_icdGetInstanceProcAddr"));
    // SAFETY: the caller's promise.
    unsafe { (*get)?(instance, name) }
}

/// For Tidemark: the loader's `vkGetInstanceProcAddr`.
///
/// # Safety
/// `name` must be a null-terminated string, `instance` null or an instance of the loader's.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vk_icdGetInstanceProcAddr(
    instance: vk::Instance,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    static LOADER: OnceLock<Option<GetProcAddr>> = OnceLock::new();
    let get = LOADER.get_or_init(|| find("TIDEMARK_LOADER_BELOW", c"vkGetInstanceProcAddr"));
    // SAFETY: the caller's promise.
    unsafe { (*get)?(instance, name) }
}

/// For Tidemark. Any version will do, as nothing but [`vk_icdGetInstanceProcAddr`] is there.
///
/// # Safety
/// `version` must be valid for reads and writes.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vk_icdNegotiateLoaderICDInterfaceVersion(_version: *mut u32) -> vk::Result {
    vk::Result::SUCCESS
}

/// The function `name` of the library that `variable` names, loaded for good. `None` if that fails, which is said.
#[expect(clippy::print_stderr, reason = "a library for tests, which has no other way to be heard")]
fn find(variable: &str, name: &CStr) -> Option<GetProcAddr> {
    let library = std::env::var_os(variable).map(OsString::into_vec).and_then(|path| CString::new(path).ok());
    let symbol = library.as_ref().and_then(|library| {
        // SAFETY: loads a Vulkan library, whose initialisers run, as in any Vulkan program.
        let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return None;
        }
        // SAFETY: a live handle, never closed.
        let symbol = unsafe { libc::dlsym(handle, name.as_ptr()) };
        (!symbol.is_null()).then_some(symbol)
    });
    let Some(symbol) = symbol else {
        eprintln!("tidemark-loader-below: {variable} is {library:?}, where no {name:?} is found");
        return None;
    };
    // SAFETY: the functions that are asked for have this type.
    Some(unsafe { std::mem::transmute::<*mut c_void, GetProcAddr>(symbol) })
}
