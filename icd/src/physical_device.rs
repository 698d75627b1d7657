//! VkPhysicalDevice: what the device says of itself, its memory, and its extensions.

use crate::chain;
use crate::config::{Config, Mode};
use crate::entry;
use crate::hidden;
use crate::instance::Instance;
use crate::memory_types::MemoryTypes;
use crate::offered::{self, Offer};
use crate::tables::{INSTANCES, PHYSICAL_DEVICES};
use ash::vk;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::slice;
use std::sync::Arc;

/// Tidemark's state of a physical device.
pub(crate) struct PhysicalDevice {
    pub(crate) instance: Arc<Instance>,
    /// "Tidemark (<the backing driver's name>)".
    pub(crate) name: String,
    pub(crate) memory: MemoryTypes,
    /// Extensions that Tidemark adds to the backing driver's.
    pub(crate) offers: Vec<&'static Offer>,
    /// nonCoherentAtomSize.
    pub(crate) atom: u64,
}

impl PhysicalDevice {
    /// Asks the backing driver what `device` is. `None` if it lacks commands every driver has.
    pub(crate) fn new(instance: &Arc<Instance>, device: vk::PhysicalDevice) -> Option<Self> {
        let fns = &instance.physical_device_fns;
        let mut memory = vk::PhysicalDeviceMemoryProperties::default();
        let mut properties = vk::PhysicalDeviceProperties::default();
        // SAFETY: a physical device of this instance, and structures to fill.
        unsafe {
            fns.vkGetPhysicalDeviceMemoryProperties?(device, &raw mut memory);
            fns.vkGetPhysicalDeviceProperties?(device, &raw mut properties);
        }
        let backing_name = properties.device_name_as_c_str().unwrap_or_default().to_string_lossy();
        let mode = Config::get().mode;
        let memory = MemoryTypes::new(&memory, mode, Config::get().transfer);
        let offers = if memory.emulates() {
            let theirs = instance.extensions_of(device);
            theirs.map(|theirs| offered::beside(&theirs, &memory)).unwrap_or_default()
        } else {
            Vec::new()
        };
        let state = Self {
            instance: instance.clone(),
            name: format!("Tidemark ({backing_name})"),
            memory,
            atom: properties.limits.non_coherent_atom_size,
            offers,
        };
        let types = &state.memory.types;
        if mode == Mode::Never {
            log::info!("{backing_name}: mode {mode}, everything is passed through");
        } else if state.memory.emulates() {
            log::info!("{backing_name}: mode {mode}, memory types {types:?}");
        } else if state.memory.is_host_visible() {
            log::info!(
                "{backing_name}: mode {mode}, nothing to emulate: its host-visible memory is coherent and cached \
                 already. TIDEMARK_MODE=always treats it as if it were not"
            );
        } else {
            log::warn!(
                "{backing_name}: none of its memory is host-visible, so there is nothing to make coherent memory of, \
                 and applications will find none"
            );
        }
        let transfer = Config::get().transfer;
        if state.memory.falls_back(transfer) {
            log::warn!(
                "{backing_name}: TIDEMARK_TRANSFER={transfer} needs memory that is host-visible: what is not is staged"
            );
        }
        Some(state)
    }
}

impl Instance {
    /// The backing driver's extensions of a physical device.
    fn extensions_of(&self, device: vk::PhysicalDevice) -> Result<Vec<vk::ExtensionProperties>, vk::Result> {
        let enumerate = self.physical_device_fns.vkEnumerateDeviceExtensionProperties;
        let enumerate = enumerate.ok_or(vk::Result::ERROR_INITIALIZATION_FAILED)?;
        let mut all = Vec::new();
        loop {
            let mut total = 0;
            // SAFETY: asks for the number alone.
            unsafe { enumerate(device, ptr::null(), &raw mut total, ptr::null_mut()) }.result()?;
            all.resize(total as usize, vk::ExtensionProperties::default());
            // SAFETY: room for `total` elements.
            match unsafe { enumerate(device, ptr::null(), &raw mut total, all.as_mut_ptr()) } {
                vk::Result::SUCCESS => {
                    all.truncate(total as usize);
                    return Ok(all);
                }
                vk::Result::INCOMPLETE => {}
                error => return Err(error),
            }
        }
    }
}

/// The backing driver's function of this name, or the shim of it, if it works on physical devices.
///
/// # Safety
/// `instance` must be an instance of this driver.
pub(crate) unsafe fn proc_addr(instance: vk::Instance, name: &CStr) -> vk::PFN_vkVoidFunction {
    let state = INSTANCES.get(instance)?;
    let ours = entry::physical_device::find(name);
    if ours.is_some() {
        // SAFETY: an instance of the backing driver.
        return ours.filter(|_| unsafe { state.backing.instance_proc_addr(instance, name) }.is_some());
    }
    // SAFETY: an instance of the backing driver.
    unsafe { state.backing.physical_device_proc_addr(instance, name) }
}

/// vkGetPhysicalDeviceProperties.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn properties(device: vk::PhysicalDevice, properties: *mut vk::PhysicalDeviceProperties) {
    let Some(state) = PHYSICAL_DEVICES.get(device) else { return };
    let Some(get) = state.instance.physical_device_fns.vkGetPhysicalDeviceProperties else { return };
    // SAFETY: the arguments are passed on as they came.
    unsafe { get(device, properties) };
    // SAFETY: the structure is the caller's to be filled.
    store_text(unsafe { &mut (*properties).device_name }, &state.name);
}

/// vkGetPhysicalDeviceProperties2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn properties2(
    device: vk::PhysicalDevice,
    properties: *mut vk::PhysicalDeviceProperties2<'_>,
) {
    let Some(state) = PHYSICAL_DEVICES.get(device) else { return };
    let Some(get) = state.instance.physical_device_fns.vkGetPhysicalDeviceProperties2 else { return };
    // SAFETY: a valid output chain, which the caller leaves to us.
    let head = unsafe { (*properties).p_next };
    // No reference into the chain may outlive the backing driver's call, which writes it: the list is looked up twice.
    // SAFETY: as above; the layout of this structure is the specification's.
    let find_layered = || unsafe { chain::find_raw(head, LAYERED_LIST).cast::<LayeredApiList>().as_mut() };
    let layered_room = find_layered().map(|list| list.count);
    // SAFETY: the arguments are passed on as they came.
    unsafe { get(device, properties) };
    // SAFETY: filled by the call above.
    let own = unsafe { &mut (*properties).properties };
    let backing = *own;
    store_text(&mut own.device_name, &state.name);

    let info = concat!("Tidemark ", env!("CARGO_PKG_VERSION"), " on ");
    // SAFETY: a valid output chain, to whose structures nobody else refers.
    if let Some(driver) = unsafe { chain::find::<vk::PhysicalDeviceDriverProperties<'_>>(head) } {
        rename_driver(&mut driver.driver_name, &mut driver.driver_info, info);
        driver.conformance_version = vk::ConformanceVersion::default();
    }
    // SAFETY: as above.
    if let Some(driver) = unsafe { chain::find::<vk::PhysicalDeviceVulkan12Properties<'_>>(head) } {
        rename_driver(&mut driver.driver_name, &mut driver.driver_info, info);
        driver.conformance_version = vk::ConformanceVersion::default();
    }
    if let (Some(list), Some(room)) = (find_layered(), layered_room) {
        // SAFETY: the caller's list, with room for that many elements.
        unsafe { fill_layered_list(list, room, device, &backing, get) };
    }
    // SAFETY: a valid output chain, to whose structures nobody else refers.
    state.offers.iter().for_each(|offer| unsafe { offer.fill(head) });
}

/// driverName becomes ours; driverInfo tells what it drives. driverID stays the backing driver's: none is
/// registered for Tidemark, and applications key work-arounds on it that the backing driver still needs.
fn rename_driver(name: &mut [c_char], driver_info: &mut [c_char], info: &str) {
    let text = |field: &[c_char]| -> String {
        let bytes: Vec<u8> = field.iter().map(|c| c.to_ne_bytes()[0]).take_while(|&byte| byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let told = format!("{info}{} ({})", text(name), text(driver_info));
    store_text(driver_info, &told);
    store_text(name, "Tidemark");
}

/// Stores `text`, cut to fit at a character's boundary, and fills up with zeros.
fn store_text(field: &mut [c_char], text: &str) {
    let mut len = text.len().min(field.len() - 1);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    field.fill(0);
    for (to, byte) in field.iter_mut().zip(text[..len].bytes()) {
        *to = c_char::from_ne_bytes([byte]);
    }
}

// VK_KHR_maintenance7, which is newer than the headers `ash` was generated from.
const LAYERED_LIST: vk::StructureType = vk::StructureType::from_raw(1_000_562_002);
const LAYERED_VULKAN: vk::StructureType = vk::StructureType::from_raw(1_000_562_004);
/// VK_PHYSICAL_DEVICE_LAYERED_API_VULKAN_KHR.
const LAYERED_API_VULKAN: i32 = 0;

/// VkPhysicalDeviceLayeredApiPropertiesListKHR.
#[repr(C)]
struct LayeredApiList {
    s_type: vk::StructureType,
    p_next: *mut c_void,
    count: u32,
    apis: *mut LayeredApi,
}

/// VkPhysicalDeviceLayeredApiPropertiesKHR.
#[repr(C)]
struct LayeredApi {
    s_type: vk::StructureType,
    p_next: *mut c_void,
    vendor_id: u32,
    device_id: u32,
    layered_api: i32,
    device_name: [c_char; vk::MAX_PHYSICAL_DEVICE_NAME_SIZE],
}

/// VkPhysicalDeviceLayeredApiVulkanPropertiesKHR.
#[repr(C)]
struct LayeredVulkan<'a> {
    s_type: vk::StructureType,
    p_next: *mut c_void,
    properties: vk::PhysicalDeviceProperties2<'a>,
}

/// Tells what lies underneath: the backing driver, a Vulkan implementation.
///
/// # Safety
/// `list` must have room for `room` valid elements, or a null pointer; `get` is the backing driver's.
unsafe fn fill_layered_list(
    list: &mut LayeredApiList,
    room: u32,
    device: vk::PhysicalDevice,
    backing: &vk::PhysicalDeviceProperties,
    get: vk::PFN_vkGetPhysicalDeviceProperties2,
) {
    list.count = 1;
    if list.apis.is_null() {
        return;
    }
    list.count = room.min(1);
    if room == 0 {
        return;
    }
    // SAFETY: there is room for one.
    let api = unsafe { &mut *list.apis };
    api.vendor_id = backing.vendor_id;
    api.device_id = backing.device_id;
    api.layered_api = LAYERED_API_VULKAN;
    api.device_name = backing.device_name;
    // SAFETY: a valid output chain; the layout of this structure is the specification's.
    let vulkan = unsafe { chain::find_raw(api.p_next, LAYERED_VULKAN).cast::<LayeredVulkan<'_>>().as_mut() };
    if let Some(vulkan) = vulkan {
        // SAFETY: a physical device of the backing driver, and a valid output chain.
        unsafe { get(device, &raw mut vulkan.properties) };
        // "The implementation must zero-fill" these two.
        vulkan.properties.properties.limits = vk::PhysicalDeviceLimits::default();
        vulkan.properties.properties.sparse_properties = vk::PhysicalDeviceSparseProperties::default();
    }
}

/// vkGetPhysicalDeviceFeatures2, without the [`hidden`] ones, with those of the [`offered`] extensions.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn features2(device: vk::PhysicalDevice, features: *mut vk::PhysicalDeviceFeatures2<'_>) {
    let Some(state) = PHYSICAL_DEVICES.get(device) else { return };
    let Some(get) = state.instance.physical_device_fns.vkGetPhysicalDeviceFeatures2 else { return };
    // SAFETY: the arguments are passed on as they came.
    unsafe { get(device, features) };
    if state.memory.emulates() {
        // SAFETY: a valid output chain, which the caller leaves to us.
        unsafe { hidden::mask((*features).p_next) };
    }
    // SAFETY: as above.
    state.offers.iter().for_each(|offer| unsafe { offer.fill((*features).p_next) });
}

/// vkGetPhysicalDeviceMemoryProperties.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn memory_properties(
    device: vk::PhysicalDevice,
    properties: *mut vk::PhysicalDeviceMemoryProperties,
) {
    let Some(state) = PHYSICAL_DEVICES.get(device) else { return };
    let Some(get) = state.instance.physical_device_fns.vkGetPhysicalDeviceMemoryProperties else { return };
    // SAFETY: the arguments are passed on as they came; the structure is then filled.
    state.memory.store(unsafe {
        get(device, properties);
        &mut *properties
    });
}

/// vkGetPhysicalDeviceMemoryProperties2. Budgets in its chain speak of heaps, which are the backing driver's.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn memory_properties2(
    device: vk::PhysicalDevice,
    properties: *mut vk::PhysicalDeviceMemoryProperties2<'_>,
) {
    let Some(state) = PHYSICAL_DEVICES.get(device) else { return };
    let Some(get) = state.instance.physical_device_fns.vkGetPhysicalDeviceMemoryProperties2 else { return };
    // SAFETY: the arguments are passed on as they came; the structure is then filled.
    state.memory.store(unsafe {
        get(device, properties);
        &mut (*properties).memory_properties
    });
}

/// vkEnumerateDeviceExtensionProperties, without the [`hidden`] ones, with the [`offered`] ones.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn enumerate_extensions(
    device: vk::PhysicalDevice,
    layer: *const c_char,
    count: *mut u32,
    properties: *mut vk::ExtensionProperties,
) -> vk::Result {
    let Some(state) = PHYSICAL_DEVICES.get(device) else { return vk::Result::ERROR_INITIALIZATION_FAILED };
    let Some(enumerate) = state.instance.physical_device_fns.vkEnumerateDeviceExtensionProperties else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    if !layer.is_null() || !state.memory.emulates() {
        // SAFETY: the arguments are passed on as they came.
        return unsafe { enumerate(device, layer, count, properties) };
    }
    let mut all = match state.instance.extensions_of(device) {
        Ok(all) => all,
        Err(error) => return error,
    };
    all.retain(|extension| {
        let is_offered = |name| state.offers.iter().any(|offer| offer.name == name);
        extension
            .extension_name_as_c_str()
            .is_ok_and(|name| hidden::reason(name).is_none() && !is_offered(name))
    });
    all.extend(state.offers.iter().map(|offer| offer.properties()));
    let total = u32::try_from(all.len()).unwrap_or(u32::MAX);
    // SAFETY: `count` is valid for reads and writes.
    let room = std::mem::replace(unsafe { &mut *count }, total);
    if properties.is_null() {
        return vk::Result::SUCCESS;
    }
    let stored = room.min(total);
    // SAFETY: the caller's array has room for as many elements as `count` said.
    unsafe { slice::from_raw_parts_mut(properties, stored as usize) }
        .copy_from_slice(&all[..stored as usize]);
    // SAFETY: as above.
    unsafe { *count = stored };
    if stored < total { vk::Result::INCOMPLETE } else { vk::Result::SUCCESS }
}
