//! `pNext` chains.

use ash::vk;
use std::ffi::c_void;
use std::ptr;

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
    ptr::null_mut()
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

/// Bytes that are copied of a structure at most: several times what any structure has that devices are created with.
const MOST: usize = 1024;

/// The part of an input chain before a structure that was taken out, copied; what follows is the caller's.
pub(crate) struct Chain {
    copies: Vec<[u64; MOST / 8]>,
    rest: *const c_void,
}

impl Chain {
    /// Its first structure, valid as long as this value and the chain it was made of.
    pub(crate) fn head(&self) -> *const c_void {
        self.copies.first().map_or(self.rest, |first| first.as_ptr().cast())
    }
}

/// An input chain without its structure of a type. `None` if there is none in it, or it cannot be taken out, which is
/// logged.
///
/// It is not enough that drivers skip what they do not know: Mesa's know all features, and create no device with those
/// that they lack. The chain is the application's, perhaps in memory that cannot be written, so it is not relinked
/// where it is; and what comes first in it may be newer than any list of sizes. So the kernel copies what can be read
/// behind the beginning of each structure, which is at least the structure.
///
/// # Safety
/// `head` must be null or the head of a valid chain.
pub(crate) unsafe fn without(head: *const c_void, tag: vk::StructureType) -> Option<Chain> {
    let mut before: Vec<*const vk::BaseInStructure<'_>> = Vec::new();
    let mut at: *const vk::BaseInStructure<'_> = head.cast();
    loop {
        // SAFETY: each element of a valid chain is null or starts with these two fields.
        let structure = unsafe { at.as_ref() }?;
        if structure.s_type == tag {
            at = structure.p_next;
            break;
        }
        before.push(at);
        at = structure.p_next;
    }
    let mut chain = Chain { copies: Vec::new(), rest: at.cast() };
    for structure in before {
        let Some(copy) = copy_of(structure.cast()) else {
            log::warn!(
                "the features of an extension that the backing driver may lack stay in the chain of \
                 vkCreateDevice: process_vm_readv(2) fails ({}). Put them first there",
                std::io::Error::last_os_error()
            );
            return None;
        };
        chain.copies.push(copy);
    }
    // From here on the copies stay where they are.
    let mut next = chain.rest;
    for copy in chain.copies.iter_mut().rev() {
        let base: *mut vk::BaseInStructure<'_> = copy.as_mut_ptr().cast();
        // SAFETY: at least the structure was copied, which starts with these two fields.
        unsafe { (*base).p_next = next.cast() };
        next = base.cast_const().cast();
    }
    Some(chain)
}

/// What can be read from `at` on, up to [`MOST`] bytes; `None` if the kernel does not tell.
fn copy_of(at: *const c_void) -> Option<[u64; MOST / 8]> {
    let mut copy = [0; MOST / 8];
    let to = libc::iovec { iov_base: copy.as_mut_ptr().cast(), iov_len: MOST };
    // What lies on the next page is asked for apart: it may not be there, and then the rest still is.
    let page = tidemark_winsys::page_size();
    let here = (page - at.addr() % page).min(MOST);
    let from = [(0, here), (here, MOST - here)]
        .map(|(offset, len)| libc::iovec { iov_base: at.wrapping_byte_add(offset).cast_mut(), iov_len: len });
    // SAFETY: writes to the copy alone, which is as long; from there the kernel reads what is mapped, and no more.
    let copied = unsafe { libc::process_vm_readv(libc::getpid(), &raw const to, 1, from.as_ptr(), 2, 0) };
    usize::try_from(copied).is_ok_and(|copied| copied >= here).then_some(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vk::TaggedStructure;

    #[test]
    fn a_structure_is_taken_out_of_a_copy() {
        let mut last = vk::PhysicalDeviceVulkan13Features::default().synchronization2(true);
        let mut middle = vk::PhysicalDeviceVulkan12Features::default();
        let mut first = vk::PhysicalDeviceFeatures2::default();
        first.features.tessellation_shader = vk::TRUE;
        middle.p_next = ptr::from_mut(&mut last).cast();
        first.p_next = ptr::from_mut(&mut middle).cast();
        let head: *const c_void = ptr::from_ref(&first).cast();
        let tag = vk::PhysicalDeviceVulkan12Features::STRUCTURE_TYPE;
        // SAFETY: the chain above, and what is made of it.
        unsafe {
            let chain = without(head, tag).expect("it is in there");
            let found: Vec<_> = tags(chain.head()).collect();
            assert_eq!(
                found,
                [
                    vk::PhysicalDeviceFeatures2::STRUCTURE_TYPE,
                    vk::PhysicalDeviceVulkan13Features::STRUCTURE_TYPE
                ]
            );
            let copy = find_input::<vk::PhysicalDeviceFeatures2<'_>>(chain.head()).unwrap();
            assert_eq!(copy.features.tessellation_shader, vk::TRUE);
            assert_eq!(tags(head).count(), 3);
            // Nothing is copied for the first.
            let chain = without(head, vk::PhysicalDeviceFeatures2::STRUCTURE_TYPE).expect("it is in there");
            assert_eq!(chain.head(), first.p_next.cast_const());
            assert!(without(chain.head(), vk::PhysicalDeviceFeatures2::STRUCTURE_TYPE).is_none());
            assert!(without(ptr::null(), tag).is_none());
        }
    }

    #[test]
    fn a_structure_may_end_where_memory_does() {
        let page = tidemark_winsys::page_size();
        // SAFETY: two new pages, the second of which nobody may touch; a structure is put at the very end of the first.
        unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let base = libc::mmap(ptr::null_mut(), 2 * page, protection, flags, -1, 0);
            assert_eq!(libc::mprotect(base.byte_add(page), page, libc::PROT_NONE), 0);
            let mut last = vk::PhysicalDeviceVulkan13Features::default();
            let at = base.byte_add(page - size_of::<vk::PhysicalDeviceFeatures2<'_>>());
            let at: *mut vk::PhysicalDeviceFeatures2<'_> = at.cast();
            at.write(vk::PhysicalDeviceFeatures2::default().push_next(&mut last));
            let tag = vk::PhysicalDeviceVulkan13Features::STRUCTURE_TYPE;
            let chain = without(at.cast_const().cast(), tag).expect("it is in there");
            assert!(tags(chain.head()).eq([vk::PhysicalDeviceFeatures2::STRUCTURE_TYPE]));
        }
    }
}
