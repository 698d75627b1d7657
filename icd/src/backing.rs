//! The backing driver: the Vulkan driver that Tidemark drives, loaded directly.
//!
//! Never through libvulkan: the loader owns the first word of each dispatchable object, and expects to find one
//! driver under it. Once loaded the library stays: its code may be on some thread's stack.

use crate::config::Config;
use crate::discovery;
use crate::hidden;
use ash::vk;
use std::ffi::{CStr, CString, OsStr, c_void};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The newest loader-driver interface Tidemark speaks, to the loader and to the backing driver.
pub const INTERFACE_VERSION: u32 = 7;

type Negotiate = unsafe extern "system" fn(*mut u32) -> vk::Result;
/// `vk_icdGetPhysicalDeviceProcAddr`, like `vkGetInstanceProcAddr` in shape.
type GetProcAddr = vk::PFN_vkGetInstanceProcAddr;

/// A loaded backing driver.
#[derive(Debug)]
pub struct Backing {
    /// Its library, as the dynamic linker found it.
    pub library: PathBuf,
    get_instance_proc_addr: GetProcAddr,
    get_physical_device_proc_addr: Option<GetProcAddr>,
}

/// Why a driver cannot be the backing driver.
#[derive(Debug)]
pub enum BackingError {
    /// Its manifest is broken.
    Manifest(PathBuf, discovery::ManifestError),
    /// The dynamic linker refuses its library.
    Load(PathBuf, String),
    /// It has no `vk_icdGetInstanceProcAddr`.
    NotADriver(PathBuf),
    /// It speaks only an interface from before version 3, or refused to speak at all.
    Interface(PathBuf),
    /// It is Tidemark.
    Itself(PathBuf),
    /// There is none.
    None,
}

impl fmt::Display for BackingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Load(path, error) => write!(f, "{}: cannot be loaded: {error}", path.display()),
            Self::NotADriver(path) => write!(f, "{}: not a Vulkan driver", path.display()),
            Self::Interface(path) => {
                write!(
                    f,
                    "{}: speaks no loader-driver interface from 3 to {INTERFACE_VERSION}",
                    path.display()
                )
            }
            Self::Itself(path) => write!(f, "{}: is Tidemark, which cannot drive itself", path.display()),
            Self::None => f.write_str("no other Vulkan driver is installed"),
        }
    }
}

impl std::error::Error for BackingError {}

impl Backing {
    /// The backing driver of this process, loaded by the first call; `None` if there is none that works, which
    /// that call has logged.
    pub fn get() -> Option<&'static Self> {
        static BACKING: OnceLock<Option<Backing>> = OnceLock::new();
        let backing = BACKING.get_or_init(|| match Self::choose(Config::get().backing.as_deref()) {
            Ok(backing) => {
                log::info!("driving {}", backing.library.display());
                Some(backing)
            }
            Err(error) => {
                log::error!(
                    "no backing driver: {error}. Set TIDEMARK_BACKING to a driver manifest or library \
                     (Debian's mesa-vulkan-drivers has lavapipe), or ask `tidemark doctor`"
                );
                None
            }
        });
        backing.as_ref()
    }

    /// Loads the driver asked for, or else lavapipe, or else the first installed one that has a device.
    fn choose(asked: Option<&Path>) -> Result<Self, BackingError> {
        if let Some(path) = asked {
            return Self::load(path);
        }
        let mut manifests = discovery::manifests();
        // A stable sort: lavapipe's first, the others in the loader's order.
        manifests.sort_by_key(|manifest| !discovery::is_lavapipe(manifest));
        let mut last = BackingError::None;
        for manifest in manifests {
            match Self::load(&manifest) {
                Ok(backing) if discovery::is_lavapipe(&manifest) || backing.has_device() => {
                    return Ok(backing);
                }
                Ok(_) => log::debug!("{}: has no device here", manifest.display()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Loads a driver by its manifest (`.json`) or its library.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(path: &Path) -> Result<Self, BackingError> {
        let library = if path.extension() == Some(OsStr::new("json")) {
            discovery::library_of(path).map_err(|error| BackingError::Manifest(path.into(), error))?
        } else {
            path.into()
        };
        if discovery::is_tidemark(&library) {
            return Err(BackingError::Itself(path.into()));
        }
        let handle = open(&library).map_err(|error| BackingError::Load(library.clone(), error))?;
        let get = find(handle, c"vk_icdGetInstanceProcAddr");
        let get = get.ok_or_else(|| BackingError::NotADriver(library.clone()))?;
        let found = file_of(get).unwrap_or_else(|| library.clone());
        // The linker may have found Tidemark under another name.
        let own = file_of(open as fn(&Path) -> Result<*mut c_void, String> as *mut c_void);
        if discovery::is_tidemark(&found) || own.is_some_and(|own| same_file(&own, &found)) {
            return Err(BackingError::Itself(path.into()));
        }
        // SAFETY: the loader-driver interface defines this symbol with this signature.
        let get_instance_proc_addr = unsafe { std::mem::transmute::<*mut c_void, GetProcAddr>(get) };
        let exported = |name: &CStr| find(handle, name);
        // SAFETY: a driver's function, by its name.
        let function = |name| unsafe { interface_function(get_instance_proc_addr, exported, name) };
        let refused = || BackingError::Interface(library.clone());
        let negotiate = function(c"vk_icdNegotiateLoaderICDInterfaceVersion").ok_or_else(refused)?;
        // SAFETY: as above.
        let negotiate: Negotiate = unsafe { std::mem::transmute(negotiate) };
        let mut version = INTERFACE_VERSION;
        // SAFETY: a live version.
        let result = unsafe { negotiate(&raw mut version) };
        if result != vk::Result::SUCCESS || !(3..=INTERFACE_VERSION).contains(&version) {
            return Err(refused());
        }
        Ok(Self {
            library: found,
            get_instance_proc_addr,
            get_physical_device_proc_addr: function(c"vk_icdGetPhysicalDeviceProcAddr")
                // SAFETY: as above.
                .map(|address| unsafe { std::mem::transmute::<*mut c_void, GetProcAddr>(address) }),
        })
    }

    /// `vk_icdGetInstanceProcAddr`.
    ///
    /// # Safety
    /// `instance` must be null or an instance of this driver.
    pub unsafe fn instance_proc_addr(&self, instance: vk::Instance, name: &CStr) -> vk::PFN_vkVoidFunction {
        // SAFETY: the caller's promise.
        unsafe { (self.get_instance_proc_addr)(instance, name.as_ptr()) }
    }

    /// `vk_icdGetPhysicalDeviceProcAddr`, which a driver may lack.
    ///
    /// # Safety
    /// `instance` must be an instance of this driver.
    pub unsafe fn physical_device_proc_addr(
        &self,
        instance: vk::Instance,
        name: &CStr,
    ) -> vk::PFN_vkVoidFunction {
        // SAFETY: the caller's promise.
        self.get_physical_device_proc_addr.and_then(|get| unsafe { get(instance, name.as_ptr()) })
    }

    /// The names of its devices.
    ///
    /// # Errors
    /// What vkCreateInstance or vkEnumeratePhysicalDevices returned.
    pub fn device_names(&self) -> Result<Vec<String>, vk::Result> {
        self.ask(vk::API_VERSION_1_0, device_names)
    }

    /// What any of its devices has of what Tidemark hides.
    ///
    /// # Errors
    /// What Vulkan returned; drivers of Vulkan 1.0 are not asked.
    pub fn hidden(&self) -> Result<Vec<&'static str>, vk::Result> {
        self.ask(vk::API_VERSION_1_1, |instance| {
            // SAFETY: a live instance.
            let devices = unsafe { instance.enumerate_physical_devices() }?;
            let mut names = Vec::new();
            for device in devices {
                names.extend(hidden::had_by(instance, device)?);
            }
            names.sort_unstable();
            names.dedup();
            Ok(names)
        })
    }

    /// Puts a question to an instance of its own, of this version of Vulkan.
    fn ask<T>(
        &self,
        version: u32,
        question: impl FnOnce(&ash::Instance) -> Result<T, vk::Result>,
    ) -> Result<T, vk::Result> {
        let get = ash::StaticFn { get_instance_proc_addr: self.get_instance_proc_addr };
        // SAFETY: a driver's function of this name is what ash expects, but for `vkGetInstanceProcAddr` on a
        // null instance, of which it needs only global commands.
        let entry = unsafe { ash::Entry::from_static_fn(get) };
        let application = vk::ApplicationInfo::default().api_version(version);
        let info = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: the create info is valid, and nothing else uses the instance.
        let instance = unsafe { entry.create_instance(&info, None) }?;
        let answer = question(&instance);
        // SAFETY: created above, and used by nobody any more.
        unsafe { instance.destroy_instance(None) };
        answer
    }

    /// Whether it drives anything on this machine.
    ///
    /// Makes an instance for a moment, which may happen while the loader only enumerates. There is no way round: what
    /// Tidemark answers there (instance extensions, versions) is the backing driver's answer, so it must be chosen
    /// by then, and a driver without its hardware is installed as often as not. [`choose`](Self::choose) asks only
    /// where lavapipe, which needs no hardware, is missing, and once in a process.
    fn has_device(&self) -> bool {
        self.device_names().is_ok_and(|names| !names.is_empty())
    }
}

/// The names of a live instance's devices.
///
/// # Errors
/// What vkEnumeratePhysicalDevices returned.
pub fn device_names(instance: &ash::Instance) -> Result<Vec<String>, vk::Result> {
    // SAFETY: a live instance.
    let devices = unsafe { instance.enumerate_physical_devices() }?;
    let name = |device| {
        // SAFETY: a device of the live instance.
        let properties = unsafe { instance.get_physical_device_properties(device) };
        properties.device_name_as_c_str().unwrap_or_default().to_string_lossy().into_owned()
    };
    Ok(devices.into_iter().map(name).collect())
}

fn open(library: &Path) -> Result<*mut c_void, String> {
    let name = CString::new(library.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: loads a driver, whose initialisers run: what the loader does with every driver.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if !handle.is_null() {
        return Ok(handle);
    }
    // SAFETY: describes the failure of this thread's call above.
    let error = unsafe { libc::dlerror() };
    if error.is_null() {
        return Err("unknown error".into());
    }
    // SAFETY: a string that stays until this thread's next call of the dl family.
    Err(unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned())
}

fn find(handle: *mut c_void, name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a live handle, never closed.
    let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

/// A function of the loader-driver interface. Drivers export it; from version 7 on it is enough that `get` answers
/// for it. In the loader's order: before the version is negotiated, `get` may only be asked if there is no other way.
///
/// # Safety
/// `get` must be a driver's `vk_icdGetInstanceProcAddr`.
unsafe fn interface_function(
    get: GetProcAddr,
    exported: impl Fn(&CStr) -> Option<*mut c_void>,
    name: &CStr,
) -> Option<*mut c_void> {
    exported(name).or_else(|| {
        // SAFETY: the caller's promise; a null instance stands for the driver itself.
        let answered = unsafe { get(vk::Instance::null(), name.as_ptr()) };
        answered.map(|function| function as *mut c_void)
    })
}

/// The file that the code or data at `address` was loaded from.
fn file_of(address: *mut c_void) -> Option<PathBuf> {
    // SAFETY: plain data, for which zeros are a value.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: looks the address up in the list of loaded objects, without touching what it points to.
    let found = unsafe { libc::dladdr(address, &raw mut info) } != 0 && !info.dli_fname.is_null();
    // SAFETY: the linker's own string, which lives as long as the object.
    found.then(|| OsStr::from_bytes(unsafe { CStr::from_ptr(info.dli_fname) }.to_bytes()).into())
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::c_char;

    const NEGOTIATE: &CStr = c"vk_icdNegotiateLoaderICDInterfaceVersion";

    unsafe extern "system" fn negotiate() {}

    /// A driver of interface 7, which answers.
    unsafe extern "system" fn answering(
        instance: vk::Instance,
        name: *const c_char,
    ) -> vk::PFN_vkVoidFunction {
        // SAFETY: the tests pass strings.
        (instance == vk::Instance::null() && unsafe { CStr::from_ptr(name) } == NEGOTIATE)
            .then_some(negotiate)
    }

    /// One from before.
    unsafe extern "system" fn silent(_: vk::Instance, _: *const c_char) -> vk::PFN_vkVoidFunction {
        None
    }

    #[test]
    fn a_driver_may_export_its_interface_or_answer_for_it() {
        let exported = std::ptr::dangling_mut();
        // SAFETY: functions of that shape, as `interface_function` demands.
        let function = |get, symbol| unsafe { interface_function(get, |_| symbol, NEGOTIATE) };
        let answer = negotiate as unsafe extern "system" fn() as *mut c_void;
        assert_eq!(function(answering, None), Some(answer));
        assert_eq!(function(answering, Some(exported)), Some(exported));
        assert_eq!(function(silent, Some(exported)), Some(exported));
        assert_eq!(function(silent, None), None);
    }

    #[test]
    fn a_library_that_is_no_driver_says_so() {
        assert!(matches!(Backing::load(Path::new("libc.so.6")), Err(BackingError::NotADriver(_))));
        assert!(matches!(Backing::load(Path::new("libnothing.so")), Err(BackingError::Load(..))));
    }
}
