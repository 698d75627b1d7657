//! VK_KHR_map_memory2 and VK_EXT_map_memory_placed. The structures of the latter are newer than the headers `ash` was
//! generated from.

use ash::vk;
use std::ffi::c_void;
use std::marker::PhantomData;

/// VkPhysicalDeviceMapMemoryPlacedFeaturesEXT.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "as the specification says")]
pub struct PlacedFeatures<'a> {
    pub s_type: vk::StructureType,
    pub p_next: *mut c_void,
    pub memory_map_placed: vk::Bool32,
    pub memory_map_range_placed: vk::Bool32,
    pub memory_unmap_reserve: vk::Bool32,
    pub(crate) chain: PhantomData<&'a ()>,
}

impl Default for PlacedFeatures<'_> {
    fn default() -> Self {
        Self {
            s_type: <Self as vk::TaggedStructure>::STRUCTURE_TYPE,
            p_next: std::ptr::null_mut(),
            memory_map_placed: vk::FALSE,
            memory_map_range_placed: vk::FALSE,
            memory_unmap_reserve: vk::FALSE,
            chain: PhantomData,
        }
    }
}

// SAFETY: plain data, as `ash` has it of its own structures; who follows the chain must know what he does.
unsafe impl Send for PlacedFeatures<'_> {}
// SAFETY: as above.
unsafe impl Sync for PlacedFeatures<'_> {}
// SAFETY: the structure with this tag, and what it extends, by vk.xml.
unsafe impl vk::TaggedStructure for PlacedFeatures<'_> {
    const STRUCTURE_TYPE: vk::StructureType = vk::StructureType::from_raw(1_000_272_000);
}
// SAFETY: as above.
unsafe impl vk::ExtendsPhysicalDeviceFeatures2 for PlacedFeatures<'_> {}
// SAFETY: as above.
unsafe impl vk::ExtendsDeviceCreateInfo for PlacedFeatures<'_> {}

/// VkPhysicalDeviceMapMemoryPlacedPropertiesEXT.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "as the specification says")]
pub struct PlacedProperties<'a> {
    pub s_type: vk::StructureType,
    pub p_next: *mut c_void,
    pub min_placed_memory_map_alignment: vk::DeviceSize,
    chain: PhantomData<&'a ()>,
}

impl Default for PlacedProperties<'_> {
    fn default() -> Self {
        Self {
            s_type: <Self as vk::TaggedStructure>::STRUCTURE_TYPE,
            p_next: std::ptr::null_mut(),
            min_placed_memory_map_alignment: 0,
            chain: PhantomData,
        }
    }
}

// SAFETY: as above.
unsafe impl vk::TaggedStructure for PlacedProperties<'_> {
    const STRUCTURE_TYPE: vk::StructureType = vk::StructureType::from_raw(1_000_272_001);
}
// SAFETY: as above.
unsafe impl vk::ExtendsPhysicalDeviceProperties2 for PlacedProperties<'_> {}

/// VkMemoryMapPlacedInfoEXT.
#[repr(C)]
struct PlacedInfo<'a> {
    s_type: vk::StructureType,
    p_next: *const c_void,
    address: *mut c_void,
    chain: PhantomData<&'a ()>,
}

// SAFETY: as above.
unsafe impl vk::TaggedStructure for PlacedInfo<'_> {
    const STRUCTURE_TYPE: vk::StructureType = vk::StructureType::from_raw(1_000_272_002);
}
// SAFETY: as above.
unsafe impl vk::ExtendsMemoryMapInfoKHR for PlacedInfo<'_> {}

/// The commands of VK_KHR_map_memory2.
#[derive(Clone)]
pub struct Map2(ash::khr::map_memory2::Device);

impl Map2 {
    /// Of a device that has the extension.
    #[must_use]
    pub fn new(instance: &ash::Instance, device: &ash::Device) -> Self {
        Self(ash::khr::map_memory2::Device::new(instance, device))
    }

    /// vkMapMemory2KHR.
    ///
    /// # Errors
    /// The command's.
    ///
    /// # Safety
    /// As for vkMapMemory.
    pub unsafe fn map(
        &self,
        memory: vk::DeviceMemory,
        offset: u64,
        size: u64,
    ) -> Result<*mut u8, vk::Result> {
        let info = vk::MemoryMapInfoKHR::default().memory(memory).offset(offset).size(size);
        // SAFETY: the caller's promise.
        unsafe { self.map_as(&info) }
    }

    /// The same, at an address, with VK_MEMORY_MAP_PLACED_BIT_EXT.
    ///
    /// # Errors
    /// The command's.
    ///
    /// # Safety
    /// The feature must be enabled, and what is mapped at the address goes.
    pub unsafe fn place(
        &self,
        memory: vk::DeviceMemory,
        offset: u64,
        size: u64,
        address: *mut u8,
    ) -> Result<*mut u8, vk::Result> {
        let mut place = PlacedInfo {
            s_type: <PlacedInfo<'_> as vk::TaggedStructure>::STRUCTURE_TYPE,
            p_next: std::ptr::null(),
            address: address.cast(),
            chain: PhantomData,
        };
        let info = vk::MemoryMapInfoKHR::default().memory(memory).offset(offset).size(size);
        let info = info.flags(vk::MemoryMapFlags::from_raw(1)).push_next(&mut place);
        // SAFETY: the caller's promise.
        unsafe { self.map_as(&info) }
    }

    unsafe fn map_as(&self, info: &vk::MemoryMapInfoKHR<'_>) -> Result<*mut u8, vk::Result> {
        let mut address = std::ptr::null_mut();
        // SAFETY: the caller's promise; a place for the address.
        let result = unsafe { (self.0.fp().map_memory2_khr)(self.0.device(), info, &raw mut address) };
        result.result_with_success(address.cast())
    }

    /// vkUnmapMemory2KHR, with VK_MEMORY_UNMAP_RESERVE_BIT_EXT if it `reserves`.
    ///
    /// # Errors
    /// The command's.
    ///
    /// # Safety
    /// The memory must be mapped, and the feature enabled if it reserves.
    pub unsafe fn unmap(&self, memory: vk::DeviceMemory, reserves: bool) -> Result<(), vk::Result> {
        let flags = vk::MemoryUnmapFlagsKHR::from_raw(u32::from(reserves));
        let info = vk::MemoryUnmapInfoKHR::default().memory(memory).flags(flags);
        // SAFETY: the caller's promise.
        unsafe { (self.0.fp().unmap_memory2_khr)(self.0.device(), &raw const info) }.result()
    }
}
