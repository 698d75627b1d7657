//! VK_EXT_map_memory_placed: structures that are newer than those `ash` was generated from, and what they say.

use crate::chain;
use ash::vk;
use std::ffi::c_void;
use std::marker::PhantomData;

/// VK_MEMORY_MAP_PLACED_BIT_EXT.
const PLACED: vk::MemoryMapFlags = vk::MemoryMapFlags::from_raw(1);
/// VK_MEMORY_UNMAP_RESERVE_BIT_EXT.
const RESERVE: vk::MemoryUnmapFlagsKHR = vk::MemoryUnmapFlagsKHR::from_raw(1);

/// VkPhysicalDeviceMapMemoryPlacedFeaturesEXT.
#[repr(C)]
pub(crate) struct Features<'a> {
    s_type: vk::StructureType,
    p_next: *mut c_void,
    memory_map_placed: vk::Bool32,
    memory_map_range_placed: vk::Bool32,
    memory_unmap_reserve: vk::Bool32,
    chain: PhantomData<&'a ()>,
}

// SAFETY: the structure with this tag, by vk.xml.
unsafe impl vk::TaggedStructure for Features<'_> {
    const STRUCTURE_TYPE: vk::StructureType = vk::StructureType::from_raw(1_000_272_000);
}

/// VkPhysicalDeviceMapMemoryPlacedPropertiesEXT.
#[repr(C)]
struct Properties<'a> {
    s_type: vk::StructureType,
    p_next: *mut c_void,
    min_placed_memory_map_alignment: vk::DeviceSize,
    chain: PhantomData<&'a ()>,
}

// SAFETY: as above.
unsafe impl vk::TaggedStructure for Properties<'_> {
    const STRUCTURE_TYPE: vk::StructureType = vk::StructureType::from_raw(1_000_272_001);
}

/// VkMemoryMapPlacedInfoEXT.
#[repr(C)]
struct Info<'a> {
    s_type: vk::StructureType,
    p_next: *const c_void,
    address: *mut c_void,
    chain: PhantomData<&'a ()>,
}

// SAFETY: as above.
unsafe impl vk::TaggedStructure for Info<'_> {
    const STRUCTURE_TYPE: vk::StructureType = vk::StructureType::from_raw(1_000_272_002);
}

/// Everything, by pages.
///
/// # Safety
/// `chain` must be null or the head of a valid chain of output structures, to which nothing else refers.
pub(crate) unsafe fn fill(chain: *mut c_void) {
    // SAFETY: the caller's promise.
    let (features, properties) =
        unsafe { (chain::find::<Features<'_>>(chain), chain::find::<Properties<'_>>(chain)) };
    if let Some(features) = features {
        features.memory_map_placed = vk::TRUE;
        features.memory_map_range_placed = vk::TRUE;
        features.memory_unmap_reserve = vk::TRUE;
    }
    if let Some(properties) = properties {
        properties.min_placed_memory_map_alignment = tidemark_winsys::page_size() as u64;
    }
}

/// Where a map is to be; `None` where Tidemark likes.
///
/// # Safety
/// The chain must be valid.
pub(crate) unsafe fn address(info: &vk::MemoryMapInfoKHR<'_>) -> Option<*mut u8> {
    if !info.flags.contains(PLACED) {
        return None;
    }
    // SAFETY: the caller's promise.
    let place = unsafe { chain::find_input::<Info<'_>>(info.p_next) };
    Some(place.map_or(std::ptr::null_mut(), |place| place.address.cast()))
}

/// Whether nothing else may come where the map was.
pub(crate) fn is_reserved(info: &vk::MemoryUnmapInfoKHR<'_>) -> bool {
    info.flags.contains(RESERVE)
}

/// The structures that are declared here, for the test that holds them against vk.xml: name, tag, and the offset and size
/// of each member.
pub(crate) fn declared() -> Vec<crate::audit::Declared> {
    use crate::audit::declared;
    vec![
        declared!(
            Features as VkPhysicalDeviceMapMemoryPlacedFeaturesEXT {
                memory_map_placed as memoryMapPlaced: vk::Bool32,
                memory_map_range_placed as memoryMapRangePlaced: vk::Bool32,
                memory_unmap_reserve as memoryUnmapReserve: vk::Bool32
            }
        ),
        declared!(
            Properties as VkPhysicalDeviceMapMemoryPlacedPropertiesEXT {
                min_placed_memory_map_alignment as minPlacedMemoryMapAlignment: vk::DeviceSize
            }
        ),
        declared!(Info as VkMemoryMapPlacedInfoEXT { address as pPlacedAddress: *mut c_void }),
    ]
}
