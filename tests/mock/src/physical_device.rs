//! VkPhysicalDevice: its name, its memory, and its extensions.

use crate::entry;
pub(crate) use crate::entry::physical_device::Fns;
use crate::lavapipe::Lavapipe;
use crate::mapping::ATOM;
use crate::shape::Shape;
use crate::table::Table;
use ash::vk;
use std::ffi::{CStr, c_char, c_void};
use std::slice;

/// Physical devices of all instances.
pub(crate) static PHYSICAL_DEVICES: Table<PhysicalDevice> = Table::new();

/// The mock's state of a physical device.
pub(crate) struct PhysicalDevice {
    pub(crate) lavapipe: &'static Lavapipe,
    pub(crate) instance: vk::Instance,
    pub(crate) fns: Fns,
    pub(crate) shape: &'static Shape,
}

/// Extensions that reach memory by ways that the mock does not guard.
const HIDDEN: [&CStr; 3] =
    [c"VK_EXT_external_memory_host", c"VK_EXT_map_memory_placed", c"VK_EXT_device_generated_commands"];

/// Whether an extension is hidden.
pub(crate) fn is_hidden(extension: &CStr) -> bool {
    HIDDEN.contains(&extension)
}

/// `vk_icdGetPhysicalDeviceProcAddr`.
///
/// # Safety
/// `instance` must be an instance of this driver.
pub(crate) unsafe fn proc_addr(instance: vk::Instance, name: &CStr) -> vk::PFN_vkVoidFunction {
    // SAFETY: handles pass through unchanged, so it is an instance of lavapipe.
    let theirs = unsafe { Lavapipe::get()?.physical_device_proc_addr(instance, name) }?;
    entry::physical_device::find(name).or(Some(theirs))
}

/// vkGetPhysicalDeviceProperties.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn properties(device: vk::PhysicalDevice, properties: *mut vk::PhysicalDeviceProperties) {
    let Some(state) = PHYSICAL_DEVICES.get(device) else { return };
    let Some(get) = state.fns.vkGetPhysicalDeviceProperties else { return };
    // SAFETY: the arguments are passed on as they came; the structure is then filled.
    state.disguise(unsafe {
        get(device, properties);
        &mut *properties
    });
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
    let Some(get) = state.fns.vkGetPhysicalDeviceProperties2 else { return };
    // SAFETY: the arguments are passed on as they came; the structure is then filled.
    state.disguise(unsafe {
        get(device, properties);
        &mut (*properties).properties
    });
}

impl PhysicalDevice {
    fn disguise(&self, properties: &mut vk::PhysicalDeviceProperties) {
        let name = format!("Tidemark mock ({})", self.shape.name);
        properties.device_name.fill(0);
        for (to, byte) in properties.device_name.iter_mut().zip(name.bytes()) {
            *to = c_char::from_ne_bytes([byte]);
        }
        properties.limits.non_coherent_atom_size = ATOM;
    }
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
    let Some(get) = state.fns.vkGetPhysicalDeviceMemoryProperties else { return };
    // SAFETY: the arguments are passed on as they came; the structure is then filled.
    state.shape.store(unsafe {
        get(device, properties);
        &mut *properties
    });
}

/// vkGetPhysicalDeviceMemoryProperties2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn memory_properties2(
    device: vk::PhysicalDevice,
    properties: *mut vk::PhysicalDeviceMemoryProperties2<'_>,
) {
    let Some(state) = PHYSICAL_DEVICES.get(device) else { return };
    let Some(get) = state.fns.vkGetPhysicalDeviceMemoryProperties2 else { return };
    // SAFETY: the arguments are passed on as they came; the structure is then filled.
    let (memory, chain) = unsafe {
        get(device, properties);
        (&mut (*properties).memory_properties, (*properties).p_next)
    };
    state.shape.store(memory);
    // SAFETY: a valid output chain, to whose structures nobody else refers.
    if let Some(budget) = unsafe { find::<vk::PhysicalDeviceMemoryBudgetPropertiesEXT<'_>>(chain) } {
        // All heaps are taken from one.
        let heaps = state.shape.heap_count();
        let (free, used) = (budget.heap_budget[0], budget.heap_usage[0]);
        budget.heap_budget[..heaps].fill(free);
        budget.heap_usage[..heaps].fill(used);
    }
}

/// The structure of a type in a chain.
///
/// # Safety
/// `chain` must be null or a valid output chain, to whose structures nothing else refers.
unsafe fn find<'a, T: vk::TaggedStructure>(chain: *mut c_void) -> Option<&'a mut T> {
    let mut at: *mut vk::BaseOutStructure<'_> = chain.cast();
    // SAFETY: each element of a valid chain is null or starts with these two fields.
    while let Some(structure) = unsafe { at.as_ref() } {
        if structure.s_type == T::STRUCTURE_TYPE {
            // SAFETY: the tag tells the type.
            return unsafe { at.cast::<T>().as_mut() };
        }
        at = structure.p_next;
    }
    None
}

/// The same in a chain that is only read.
///
/// # Safety
/// `chain` must be null or a valid input chain.
pub(crate) unsafe fn find_input<'a, T: vk::TaggedStructure>(chain: *const c_void) -> Option<&'a T> {
    // SAFETY: the caller's promise; nothing is written.
    unsafe { find::<T>(chain.cast_mut()) }.map(|found| &*found)
}

/// VkPhysicalDeviceMapMemoryPlacedFeaturesEXT, which is newer than the headers `ash` was generated from.
#[repr(C)]
struct PlacedFeatures {
    head: vk::BaseOutStructure<'static>,
    features: [vk::Bool32; 3],
}

// SAFETY: the structure with this tag, by vk.xml.
unsafe impl vk::TaggedStructure for PlacedFeatures {
    const STRUCTURE_TYPE: vk::StructureType = vk::StructureType::from_raw(1_000_272_000);
}

/// Whether a device is to be created with features of VK_EXT_map_memory_placed.
///
/// # Safety
/// The create info must be valid.
pub(crate) unsafe fn are_placed_maps_asked_for(info: &vk::DeviceCreateInfo<'_>) -> bool {
    // SAFETY: the caller's promise; the structure is only read.
    let placed = unsafe { find::<PlacedFeatures>(info.p_next.cast_mut()) };
    placed.is_some_and(|placed| placed.features.contains(&vk::TRUE))
}

/// vkGetPhysicalDeviceFeatures2, without those of hidden extensions. Those that the device claims to have build on the
/// host, too.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn features2(device: vk::PhysicalDevice, features: *mut vk::PhysicalDeviceFeatures2<'_>) {
    let Some(state) = PHYSICAL_DEVICES.get(device) else { return };
    let Some(get) = state.fns.vkGetPhysicalDeviceFeatures2 else { return };
    // SAFETY: the arguments are passed on as they came; the structure is then filled.
    let chain = unsafe {
        get(device, features);
        (*features).p_next
    };
    // SAFETY: a valid output chain, to whose structures nobody else refers.
    let structures = unsafe { find::<vk::PhysicalDeviceAccelerationStructureFeaturesKHR<'_>>(chain) };
    if let Some(structures) = structures.filter(|_| is_claimed(ash::khr::acceleration_structure::NAME)) {
        structures.acceleration_structure_host_commands = vk::TRUE;
    }
    // SAFETY: as above.
    let micromaps = unsafe { find::<vk::PhysicalDeviceOpacityMicromapFeaturesEXT<'_>>(chain) };
    if let Some(micromaps) = micromaps.filter(|_| is_claimed(ash::ext::opacity_micromap::NAME)) {
        micromaps.micromap_host_commands = vk::TRUE;
    }
    // SAFETY: as above.
    if let Some(placed) = unsafe { find::<PlacedFeatures>(chain) } {
        placed.features = [vk::FALSE; 3];
    }
}

/// Extensions that the device claims to have.
const CLAIMS: &str = "TIDEMARK_MOCK_EXTENSIONS";

/// Whether the device claims to have an extension.
pub(crate) fn is_claimed(extension: &CStr) -> bool {
    claimed().iter().any(|claim| claim.extension_name_as_c_str() == Ok(extension))
}

fn claimed() -> Vec<vk::ExtensionProperties> {
    let names = std::env::var(CLAIMS).unwrap_or_default();
    let claim = |name: &str| {
        let mut extension = vk::ExtensionProperties { spec_version: 1, ..Default::default() };
        for (to, byte) in extension.extension_name.iter_mut().zip(name.bytes()) {
            *to = c_char::from_ne_bytes([byte]);
        }
        extension
    };
    names.split(',').filter(|name| !name.is_empty()).map(claim).collect()
}

/// vkEnumerateDeviceExtensionProperties, without the hidden ones, with the claimed ones.
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
    let Some(enumerate) = state.fns.vkEnumerateDeviceExtensionProperties else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    let mut all = Vec::new();
    // SAFETY: asks for the number, which does not change, and then for as many. `layer` is passed on as it came.
    let result = unsafe {
        let mut total = 0;
        let result = enumerate(device, layer, &raw mut total, std::ptr::null_mut());
        all.resize(total as usize, vk::ExtensionProperties::default());
        if result == vk::Result::SUCCESS {
            enumerate(device, layer, &raw mut total, all.as_mut_ptr())
        } else {
            result
        }
    };
    if result != vk::Result::SUCCESS {
        return result;
    }
    all.retain(|extension| !extension.extension_name_as_c_str().is_ok_and(is_hidden));
    all.extend(claimed());
    let total = u32::try_from(all.len()).unwrap_or(u32::MAX);
    // SAFETY: `count` is valid for reads and writes.
    let count = unsafe { &mut *count };
    let stored = if properties.is_null() { total } else { total.min(*count) };
    *count = stored;
    if !properties.is_null() {
        // SAFETY: the caller's array has room for as many as `count` said.
        unsafe { slice::from_raw_parts_mut(properties, stored as usize) }
            .copy_from_slice(&all[..stored as usize]);
    }
    if stored < total { vk::Result::INCOMPLETE } else { vk::Result::SUCCESS }
}
