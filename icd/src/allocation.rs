//! What the chain of an allocation says of its memory.

use crate::chain;
use ash::vk;
use std::ffi::c_void;

/// What may extend an allocation that stays with this device alone.
pub(crate) const PRIVATE: [vk::StructureType; 4] = [
    vk::StructureType::MEMORY_DEDICATED_ALLOCATE_INFO,
    vk::StructureType::MEMORY_ALLOCATE_FLAGS_INFO,
    vk::StructureType::MEMORY_PRIORITY_ALLOCATE_INFO_EXT,
    vk::StructureType::MEMORY_OPAQUE_CAPTURE_ADDRESS_ALLOCATE_INFO,
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
