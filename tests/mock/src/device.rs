//! VkDevice: creation, the look-up of commands, and what it counted.

use crate::entry::{self, Void};
use crate::external;
use crate::loss::Loss;
use crate::memory::Memory;
use crate::misuse::{misuse, say};
use crate::opaque::{self, Carriers};
use crate::physical_device::{self, PHYSICAL_DEVICES};
use crate::queue;
use crate::shape::Shape;
use crate::table::Table;
use ash::vk;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};
use std::fs::OpenOptions;
use std::io::Write;
use std::slice;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Devices.
pub(crate) static DEVICES: Table<Device> = Table::new();

/// The mock's state of a device.
pub(crate) struct Device {
    pub(crate) handle: vk::Device,
    pub(crate) next: entry::device::Fns,
    /// Lavapipe's commands that every driver has.
    pub(crate) core: ash::DeviceFnV1_0,
    /// And those that every driver of Vulkan 1.2 has.
    pub(crate) core2: ash::DeviceFnV1_2,
    pub(crate) shape: &'static Shape,
    pub(crate) memories: Table<Memory>,
    pub(crate) counters: Counters,
    pub(crate) loss: Loss,
    /// Held by whoever uses lavapipe's queue.
    pub(crate) turn: Mutex<()>,
    /// Handles of queues that lavapipe does not have, by family and index.
    pub(crate) queues: Mutex<BTreeMap<(u32, u32), vk::Queue>>,
    pub(crate) carriers: Carriers,
}

/// What a device did for the host.
#[derive(Default)]
pub(crate) struct Counters {
    /// Calls of vkMapMemory.
    pub(crate) maps: AtomicU64,
    /// Bytes copied from pages of the host's own, and to them.
    pub(crate) flushed: AtomicU64,
    pub(crate) invalidated: AtomicU64,
    /// Commands of queues that lavapipe does not have.
    pub(crate) made_up: AtomicU64,
    /// Fences and semaphores that there are.
    pub(crate) objects: AtomicU64,
}

/// The variable that names the file for [`Counters`].
const LOG: &str = "TIDEMARK_MOCK_LOG";

impl Counters {
    /// Adds a line to the file that the environment names.
    fn log(&self, shape: &str, left: &str) {
        let Some(path) = std::env::var_os(LOG) else { return };
        let [maps, flushed, invalidated] =
            [&self.maps, &self.flushed, &self.invalidated].map(|counter| counter.load(Ordering::Relaxed));
        let made_up = self.made_up.load(Ordering::Relaxed);
        let queues = if made_up == 0 { String::new() } else { format!("made-up queues {made_up}, ") };
        let line =
            format!("{shape}: {queues}{left}maps {maps}, flushed {flushed}, invalidated {invalidated}\n");
        let file = OpenOptions::new().create(true).append(true).open(path);
        if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
            say(format_args!("{LOG}: {error}"));
        }
    }
}

impl Device {
    /// What was not destroyed before the device, of one that is lost at some time.
    fn left(&self) -> String {
        match (self.counters.objects.load(Ordering::Relaxed), self.memories.len()) {
            (0, 0) => String::new(),
            _ if !self.loss.is_expected() => String::new(),
            (objects, memories) => format!("left {objects} fences and semaphores, {memories} memories, "),
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
        let mut info = *info;
        let mut names = enabled(&info);
        // Those that it claims to have are the mock's own affair.
        names.retain(|&name| !physical_device::is_claimed(CStr::from_ptr(name)));
        if names.iter().any(|&name| physical_device::is_hidden(CStr::from_ptr(name))) {
            return vk::Result::ERROR_EXTENSION_NOT_PRESENT;
        }
        if physical_device::are_placed_maps_asked_for(&info) {
            return vk::Result::ERROR_FEATURE_NOT_PRESENT;
        }
        info = info.enabled_extension_names(&names);
        let mut queues = match info.queue_create_info_count {
            0 => Vec::new(),
            count => slice::from_raw_parts(info.p_queue_create_infos, count as usize).to_vec(),
        };
        for queue in &mut queues {
            if queue.queue_count > queue::count() {
                misuse(format_args!("{} queues, where there are {}", queue.queue_count, queue::count()));
            }
            if queue.queue_family_index >= queue::families() {
                misuse(format_args!("there is no queue family {}", queue.queue_family_index));
            }
            // Lavapipe's only one stands for all.
            (queue.queue_family_index, queue.queue_count) = (0, queue.queue_count.min(1));
        }
        queues.truncate(1);
        info.queue_create_info_count = u32::try_from(queues.len()).unwrap_or(0);
        info.p_queue_create_infos = queues.as_ptr();
        let result = create(physical, &raw const info, allocator, device);
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
    let find = |name: &CStr| {
        // SAFETY: a live device.
        let found = get.and_then(|get| unsafe { get(handle, name.as_ptr()) });
        found.map_or(std::ptr::null(), |found| found as *const _)
    };
    let (core, core2) = (ash::DeviceFnV1_0::load(find), ash::DeviceFnV1_2::load(find));
    let device = Device {
        handle,
        next,
        core,
        core2,
        shape: state.shape,
        memories: Table::new(),
        counters: Counters::default(),
        loss: Loss::new(),
        turn: Mutex::default(),
        queues: Mutex::default(),
        carriers: Carriers::default(),
    };
    DEVICES.insert(handle, device);
    vk::Result::SUCCESS
}

/// The names of extensions to be enabled.
///
/// # Safety
/// `info` must be a valid create info.
unsafe fn enabled(info: &vk::DeviceCreateInfo<'_>) -> Vec<*const c_char> {
    if info.enabled_extension_count == 0 {
        return Vec::new();
    }
    let (names, count) = (info.pp_enabled_extension_names, info.enabled_extension_count as usize);
    // SAFETY: that many names.
    unsafe { slice::from_raw_parts(names, count) }.to_vec()
}

/// Commands of extensions that can be claimed, and lavapipe's of the same meaning.
const OTHER_NAMES: [(&CStr, &CStr, &CStr); 2] = [
    (c"vkCmdDrawIndirectCountAMD", c"vkCmdDrawIndirectCount", ash::amd::draw_indirect_count::NAME),
    (
        c"vkCmdDrawIndexedIndirectCountAMD",
        c"vkCmdDrawIndexedIndirectCount",
        ash::amd::draw_indirect_count::NAME,
    ),
];

/// vkWaitForPresentKHR. Nobody looks at what is presented here: it is over at once.
unsafe extern "system" fn wait_for_present(
    _device: vk::Device,
    _swapchain: vk::SwapchainKHR,
    _present: u64,
    _timeout: u64,
) -> vk::Result {
    vk::Result::SUCCESS
}

/// vkWaitForPresent2KHR, likewise.
unsafe extern "system" fn wait_for_present2(
    _device: vk::Device,
    _swapchain: vk::SwapchainKHR,
    _info: *const c_void,
) -> vk::Result {
    vk::Result::SUCCESS
}

/// A command of an extension that the device claims to have, if it is one of those that do something.
///
/// # Safety
/// `device` must be a live device.
unsafe fn claimed(state: &Device, device: vk::Device, name: &CStr) -> vk::PFN_vkVoidFunction {
    if name == c"vkWaitForPresentKHR" && physical_device::is_claimed(ash::khr::present_wait::NAME) {
        // SAFETY: a function pointer; who calls it knows its signature by its name.
        return Some(unsafe { std::mem::transmute::<vk::PFN_vkWaitForPresentKHR, Void>(wait_for_present) });
    }
    if name == c"vkWaitForPresent2KHR" && physical_device::is_claimed(c"VK_KHR_present_wait2") {
        type Command = unsafe extern "system" fn(vk::Device, vk::SwapchainKHR, *const c_void) -> vk::Result;
        // SAFETY: as above.
        return Some(unsafe { std::mem::transmute::<Command, Void>(wait_for_present2) });
    }
    let (_, meant, extension) = OTHER_NAMES.iter().find(|(other, ..)| *other == name)?;
    if !physical_device::is_claimed(extension) {
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe { state.next.vkGetDeviceProcAddr?(device, meant.as_ptr()) }
}

/// vkGetDeviceProcAddr: the mock's function if lavapipe has it, or else lavapipe's.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn proc_addr(device: vk::Device, name: *const c_char) -> vk::PFN_vkVoidFunction {
    let state = DEVICES.get(device)?;
    // SAFETY: a null-terminated string.
    if let Some(external) = external::find(unsafe { CStr::from_ptr(name) }) {
        return Some(external);
    }
    // SAFETY: the arguments are passed on as they came.
    let theirs = unsafe { state.next.vkGetDeviceProcAddr?(device, name) };
    // SAFETY: a null-terminated string.
    let name = unsafe { CStr::from_ptr(name) };
    match theirs {
        Some(theirs) => entry::device::find(name).or(Some(theirs)),
        // SAFETY: a live device.
        None => unsafe { claimed(&state, device, name) },
    }
}

/// vkDestroyDevice.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn destroy(device: vk::Device, allocator: *const vk::AllocationCallbacks<'_>) {
    let Some(state) = DEVICES.remove(device) else { return };
    state.counters.log(state.shape.name, &state.left());
    opaque::end(&state);
    if let Some(destroy) = state.next.vkDestroyDevice {
        // SAFETY: the arguments are passed on as they came.
        unsafe { destroy(device, allocator) }
    }
}
