//! `pNext` chains.

use ash::vk;
use std::ffi::c_void;

/// Finds the structure of type `T` in an output chain.
///
/// # Safety
/// `head` must be null or the head of a valid chain of output structures, and `T` the Vulkan structure that its
/// `STRUCTURE_TYPE` names. Nothing else may refer to the structure while the result lives.
pub(crate) unsafe fn find<'a, T: vk::TaggedStructure>(head: *mut c_void) -> Option<&'a mut T> {
    // SAFETY: the caller's promise.
    unsafe { find_raw(head, T::STRUCTURE_TYPE).cast::<T>().as_mut() }
}

/// [`find`] for structures `ash` does not know: the address, or null.
///
/// # Safety
/// `head` must be null or the head of a valid chain of output structures.
pub(crate) unsafe fn find_raw(head: *mut c_void, tag: vk::StructureType) -> *mut c_void {
    let mut at: *mut vk::BaseOutStructure<'_> = head.cast();
    // SAFETY: each element of a valid chain is null or starts with these two fields.
    while let Some(structure) = unsafe { at.as_ref() } {
        if structure.s_type == tag {
            return at.cast();
        }
        at = structure.p_next;
    }
    std::ptr::null_mut()
}

/// The types of the structures of an input chain.
///
/// # Safety
/// `head` must be null or the head of a valid chain that stays as it is while the result lives.
pub(crate) unsafe fn tags(head: *const c_void) -> impl Iterator<Item = vk::StructureType> {
    let mut at: *const vk::BaseInStructure<'_> = head.cast();
    std::iter::from_fn(move || {
        // SAFETY: each element of a valid chain is null or starts with these two fields.
        let structure = unsafe { at.as_ref() }?;
        at = structure.p_next;
        Some(structure.s_type)
    })
}

/// Finds the structure of type `T` in an input chain.
///
/// # Safety
/// As for [`tags`], and `T` must be the Vulkan structure that its `STRUCTURE_TYPE` names.
pub(crate) unsafe fn find_input<'a, T: vk::TaggedStructure>(head: *const c_void) -> Option<&'a T> {
    let mut at: *const vk::BaseInStructure<'_> = head.cast();
    // SAFETY: as in `tags`; the tag tells the type.
    while let Some(structure) = unsafe { at.as_ref() } {
        if structure.s_type == T::STRUCTURE_TYPE {
            // SAFETY: the tag tells the type.
            return unsafe { at.cast::<T>().as_ref() };
        }
        at = structure.p_next;
    }
    None
}
