//! Shared libraries opened by hand: the Vulkan loader, and the driver itself.

use std::ffi::{CStr, CString, OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

/// A library that stays loaded until the process ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Library(NonNull<c_void>);

impl Library {
    /// Loads a library: a path, or a bare name for the dynamic linker to find.
    ///
    /// # Errors
    /// What the dynamic linker says.
    pub(crate) fn open(name: &Path) -> Result<Self, String> {
        let name = CString::new(name.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
        // SAFETY: the name is a C string. Loading runs the library's initialisers; those of the Vulkan loader and
        // of Tidemark are made to run in any process at any time.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        NonNull::new(handle).map(Self).ok_or_else(last_error)
    }

    /// The address of a symbol, if the library has it.
    pub(crate) fn symbol(self, name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: a handle that is never closed, and a C string.
        NonNull::new(unsafe { libc::dlsym(self.0.as_ptr(), name.as_ptr()) })
    }
}

/// The file that the code at `address` was loaded from.
pub(crate) fn file_of(address: NonNull<c_void>) -> Option<PathBuf> {
    // SAFETY: plain data, for which zeros are a value.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: looks the address up among the loaded objects, without touching what it points to.
    let found = unsafe { libc::dladdr(address.as_ptr(), &raw mut info) } != 0 && !info.dli_fname.is_null();
    // SAFETY: the linker's own string, which lives as long as the object, and that is never unloaded.
    found.then(|| OsStr::from_bytes(unsafe { CStr::from_ptr(info.dli_fname) }.to_bytes()).into())
}

fn last_error() -> String {
    // SAFETY: describes the last failure of this thread.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "no reason given".into();
    }
    // SAFETY: a C string, valid until this thread's next call of the dl family.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
