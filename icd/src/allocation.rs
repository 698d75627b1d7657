//! What the chain of an allocation says of its memory.

use crate::chain;
use crate::device::Device;
use ash::vk;
use std::ffi::c_void;

/// What may extend an allocation that stays with this device alone.
pub(crate) const PRIVATE: [vk::StructureType; 5] = [
    vk::StructureType::MEMORY_DEDICATED_ALLOCATE_INFO,
    vk::StructureType::MEMORY_ALLOCATE_FLAGS_INFO,
    vk::StructureType::MEMORY_PRIORITY_ALLOCATE_INFO_EXT,
    vk::StructureType::MEMORY_OPAQUE_CAPTURE_ADDRESS_ALLOCATE_INFO,
    // The pages are the application's; the memory is nobody else's.
    vk::StructureType::IMPORT_MEMORY_HOST_POINTER_INFO_EXT,
];

/// Whether an allocation may be shared with others, who write it unseen: anything in the chain that is not known to be
/// harmless.
///
/// # Safety
/// `chain` must be null or a valid chain.
pub(crate) unsafe fn is_external(chain: *const c_void) -> bool {
    // SAFETY: the caller's promise.
    unsafe { chain::tags(chain) }.any(|tag| !PRIVATE.contains(&tag))
}

/// Whether the backing driver fills the allocation with zeros, so that its bytes count though nobody wrote them.
///
/// # Safety
/// `chain` must be null or a valid chain.
pub(crate) unsafe fn is_zeroed(chain: *const c_void) -> bool {
    // VK_EXT_zero_initialize_device_memory, which is newer than the headers `ash` was generated from.
    const ZERO_INITIALIZE: vk::MemoryAllocateFlags = vk::MemoryAllocateFlags::from_raw(8);
    // SAFETY: the caller's promise.
    let flags = unsafe { chain::find_input::<vk::MemoryAllocateFlagsInfo<'_>>(chain) };
    flags.is_some_and(|info| info.flags.contains(ZERO_INITIALIZE))
}

/// The chain of a private allocation, without its dedication to one resource.
pub(crate) struct Undedicated<'a> {
    flags: Option<vk::MemoryAllocateFlagsInfo<'a>>,
    priority: Option<vk::MemoryPriorityAllocateInfoEXT<'a>>,
    address: Option<vk::MemoryOpaqueCaptureAddressAllocateInfo<'a>>,
}

impl<'a> Undedicated<'a> {
    /// `None` if the resource must have memory of its own.
    ///
    /// # Safety
    /// `chain` must be null or the valid chain of an allocation.
    pub(crate) unsafe fn of(device: &Device, chain: *const c_void) -> Option<Self> {
        // SAFETY: the caller's promise; the structures are copied.
        unsafe {
            let dedicated = chain::find_input::<vk::MemoryDedicatedAllocateInfo<'a>>(chain);
            if dedicated.is_some_and(|dedicated| must_be_dedicated(device, dedicated)) {
                return None;
            }
            Some(Self {
                flags: chain::find_input(chain).copied(),
                priority: chain::find_input(chain).copied(),
                address: chain::find_input(chain).copied(),
            })
        }
    }

    /// Valid as long as it is.
    pub(crate) fn chain(&mut self) -> *const c_void {
        let mut next: *const c_void = std::ptr::null();
        if let Some(flags) = &mut self.flags {
            flags.p_next = next;
            next = std::ptr::from_ref(flags).cast();
        }
        if let Some(priority) = &mut self.priority {
            priority.p_next = next;
            next = std::ptr::from_ref(priority).cast();
        }
        if let Some(address) = &mut self.address {
            address.p_next = next;
            next = std::ptr::from_ref(address).cast();
        }
        next
    }
}

/// Whether the resource of an allocation can do with no other memory.
///
/// # Safety
/// Its handles must be live or null.
unsafe fn must_be_dedicated(device: &Device, of: &vk::MemoryDedicatedAllocateInfo<'_>) -> bool {
    let mut dedicated = vk::MemoryDedicatedRequirements::default();
    let mut requirements = vk::MemoryRequirements2::default().push_next(&mut dedicated);
    let to = &raw mut requirements;
    let next = &device.next;
    // SAFETY: the caller's promise, and a valid chain to be filled.
    unsafe {
        if of.image != vk::Image::null() {
            let info = vk::ImageMemoryRequirementsInfo2::default().image(of.image);
            next.vkGetImageMemoryRequirements2.inspect(|get| get(device.handle, &raw const info, to));
        } else if of.buffer != vk::Buffer::null() {
            let info = vk::BufferMemoryRequirementsInfo2::default().buffer(of.buffer);
            next.vkGetBufferMemoryRequirements2.inspect(|get| get(device.handle, &raw const info, to));
        }
    }
    dedicated.requires_dedicated_allocation != vk::FALSE
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether an allocation with such a chain is external, and zeroed.
    fn told<T>(structure: &T) -> [bool; 2] {
        let chain = std::ptr::from_ref(structure).cast();
        // SAFETY: the tests pass one structure, with nothing chained to it.
        unsafe { [is_external(chain), is_zeroed(chain)] }
    }

    #[test]
    fn only_what_is_known_to_be_private_is() {
        assert_eq!(told(&vk::MemoryDedicatedAllocateInfo::default()), [false; 2]);
        assert_eq!(told(&vk::ExportMemoryAllocateInfo::default()), [true, false]);
        assert_eq!(told(&vk::ImportMemoryFdInfoKHR::default()), [true, false]);
        // SAFETY: no chain.
        assert!(unsafe { !is_external(std::ptr::null()) && !is_zeroed(std::ptr::null()) });
    }

    #[test]
    fn zeros_that_were_asked_for_count() {
        let flags =
            |flags| vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::from_raw(flags));
        assert_eq!(told(&flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS.as_raw())), [false; 2]);
        assert_eq!(told(&flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS.as_raw() | 8)), [false, true]);
    }
}
