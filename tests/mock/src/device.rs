//! VkDevice: creation, the look-up of commands, and what it counted.

use crate::entry::{self, Void};
use crate::memory::Memory;
use crate::misuse::say;
use crate::physical_device::{self, PHYSICAL_DEVICES};
use crate::shape::Shape;
use crate::table::Table;
use ash::vk;
use std::ffi::{CStr, c_char};
use std::fs::OpenOptions;
use std::io::Write;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

/// Devices.
pub(crate) static DEVICES: Table<Device> = Table::new();

/// The mock's state of a device.
pub(crate) struct Device {
    pub(crate) next: entry::device::Fns,
    pub(crate) shape: &'static Shape,
    pub(crate) memories: Table<Memory>,
    pub(crate) counters: Counters,
}

/// What a device did for the host.
#[derive(Default)]
pub(crate) struct Counters {
    /// Calls of vkMapMemory.
    pub(crate) maps: AtomicU64,
    /// Bytes copied from pages of the host's own, and to them.
    pub(crate) flushed: AtomicU64,
    pub(crate) invalidated: AtomicU64,
}

/// The variable that names the file for [`Counters`].
const LOG: &str = "TIDEMARK_MOCK_LOG";

impl Counters {
    /// Adds a line to the file that the environment names.
    fn log(&self, shape: &str) {
        let Some(path) = std::env::var_os(LOG) else { return };
        let [maps, flushed, invalidated] =
            [&self.maps, &self.flushed, &self.invalidated].map(|counter| counter.load(Ordering::Relaxed));
        let line = format!("{shape}: maps {maps}, flushed {flushed}, invalidated {invalidated}\n");
        let file = OpenOptions::new().create(true).append(true).open(path);
        if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
            say(format_args!("{LOG}: {error}"));
        }
    }
}

/// vkCreateDevice.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn create(
    physical: vk::PhysicalDevice,
    info: *const vk::DeviceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    device: *mut vk::Device,
) -> vk::Result {
    let Some(state) = PHYSICAL_DEVICES.get(physical) else { return vk::Result::ERROR_INITIALIZATION_FAILED };
    let Some(create) = state.fns.vkCreateDevice else { return vk::Result::ERROR_INITIALIZATION_FAILED };
    // SAFETY: a valid create info; the rest is passed on as it came. The command stores a device if it succeeds.
    let handle = unsafe {
        if enables_hidden(&*info) {
            return vk::Result::ERROR_EXTENSION_NOT_PRESENT;
        }
        let result = create(physical, info, allocator, device);
        if result != vk::Result::SUCCESS {
            return result;
        }
        *device
    };
    // SAFETY: a live instance, and the function of this name has this type.
    let get = unsafe {
        state
            .lavapipe
            .proc_addr(state.instance, c"vkGetDeviceProcAddr")
            .map(|get| std::mem::transmute::<Void, vk::PFN_vkGetDeviceProcAddr>(get))
    };
    // SAFETY: a live device.
    let next = entry::device::Fns::load(|name| unsafe { get?(handle, name.as_ptr()) });
    let (memories, counters) = (Table::new(), Counters::default());
    DEVICES.insert(handle, Device { next, shape: state.shape, memories, counters });
    vk::Result::SUCCESS
}

/// # Safety
/// `info` must be a valid create info.
unsafe fn enables_hidden(info: &vk::DeviceCreateInfo<'_>) -> bool {
    if info.enabled_extension_count == 0 {
        return false;
    }
    let (names, count) = (info.pp_enabled_extension_names, info.enabled_extension_count as usize);
    // SAFETY: that many null-terminated strings.
    unsafe {
        slice::from_raw_parts(names, count)
            .iter()
            .any(|&name| physical_device::is_hidden(CStr::from_ptr(name)))
    }
}

/// vkGetDeviceProcAddr: the mock's function if lavapipe has it, or else lavapipe's.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn proc_addr(device: vk::Device, name: *const c_char) -> vk::PFN_vkVoidFunction {
    let state = DEVICES.get(device)?;
    // SAFETY: the arguments are passed on as they came.
    let theirs = unsafe { state.next.vkGetDeviceProcAddr?(device, name) }?;
    // SAFETY: a null-terminated string.
    entry::device::find(unsafe { CStr::from_ptr(name) }).or(Some(theirs))
}

/// vkDestroyDevice.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn destroy(device: vk::Device, allocator: *const vk::AllocationCallbacks<'_>) {
    let Some(state) = DEVICES.remove(device) else { return };
    state.counters.log(state.shape.name);
    if let Some(destroy) = state.next.vkDestroyDevice {
        // SAFETY: the arguments are passed on as they came.
        unsafe { destroy(device, allocator) }
    }
}
