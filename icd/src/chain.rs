//! `pNext` chains.

use ash::vk;
use std::ffi::c_void;
use std::io;
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

/// While this lives, an output chain does without one of its structures.
pub(crate) struct Unlinked {
    before: *mut vk::BaseOutStructure<'static>,
    structure: *mut vk::BaseOutStructure<'static>,
}

impl Unlinked {
    /// Takes the structure of type `T` out of what is chained to `head`. `None` if there is none.
    ///
    /// # Safety
    /// `head` must be the head of a valid chain of output structures, which nothing else refers to and which outlives the
    /// result.
    pub(crate) unsafe fn new<T: vk::TaggedStructure>(
        head: *mut vk::BaseOutStructure<'static>,
    ) -> Option<Self> {
        let mut before = head;
        loop {
            // SAFETY: each element of a valid chain starts with these two fields, and `before` is one.
            let structure = unsafe { (*before).p_next };
            // SAFETY: and so does the next, if there is one.
            let next = unsafe { structure.as_ref() }?;
            if next.s_type == T::STRUCTURE_TYPE {
                // SAFETY: as above.
                unsafe { (*before).p_next = next.p_next };
                return Some(Self { before, structure });
            }
            before = structure;
        }
    }
}

impl Drop for Unlinked {
    fn drop(&mut self) {
        // SAFETY: the promise of `new`.
        unsafe { (*self.before).p_next = self.structure };
    }
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

/// Bytes that are copied of a structure at most: several times what any structure has that Tidemark has to do with.
const MOST: usize = 1024;

/// The part of an input chain up to a structure that was left out or changed, copied; what follows is the caller's.
///
/// It is not enough that drivers skip what they do not know: Mesa's know all features, and create no device with those
/// that they lack. The chain is the application's, perhaps in memory that cannot be written, so it is not relinked
/// where it is; and what comes first in it may be newer than any list of sizes. So the kernel copies what can be read
/// behind the beginning of each structure, which is at least the structure.
pub(crate) struct Chain {
    copies: Vec<[u64; MOST / 8]>,
    rest: *const c_void,
}

impl Chain {
    /// Its first structure, valid as long as this value and the chain it was made of.
    pub(crate) fn head(&self) -> *const c_void {
        self.copies.first().map_or(self.rest, |first| first.as_ptr().cast())
    }

    /// The copy up to the structure of type `tag`, and whether that itself is to be kept, once `edit` has seen its copy.
    ///
    /// # Safety
    /// `head` must be null or the head of a valid chain.
    unsafe fn copied(
        head: *const c_void,
        tag: vk::StructureType,
        edit: Option<&mut dyn FnMut(*mut c_void) -> bool>,
    ) -> io::Result<Option<Self>> {
        let mut before: Vec<*const vk::BaseInStructure<'_>> = Vec::new();
        let mut at: *const vk::BaseInStructure<'_> = head.cast();
        let (found, rest) = loop {
            // SAFETY: each element of a valid chain is null or starts with these two fields.
            let Some(structure) = (unsafe { at.as_ref() }) else { return Ok(None) };
            if structure.s_type == tag {
                break (at, structure.p_next);
            }
            before.push(at);
            at = structure.p_next;
        };
        let copies = before.into_iter().map(|structure| copy_of(structure.cast())).collect::<io::Result<_>>();
        let mut chain = Self { copies: copies?, rest: rest.cast() };
        if let Some(edit) = edit {
            let mut copy = copy_of(found.cast())?;
            if edit(copy.as_mut_ptr().cast()) {
                chain.copies.push(copy);
            }
        }
        // From here on the copies stay where they are.
        let mut next = chain.rest;
        for copy in chain.copies.iter_mut().rev() {
            let base: *mut vk::BaseInStructure<'_> = copy.as_mut_ptr().cast();
            // SAFETY: at least the structure was copied, which starts with these two fields.
            unsafe { (*base).p_next = next.cast() };
            next = base.cast_const().cast();
        }
        Ok(Some(chain))
    }
}

/// An input chain without its structure of a type. `None` if there is none in it.
///
/// # Errors
/// What comes before it cannot be copied: process_vm_readv(2) fails.
///
/// # Safety
/// `head` must be null or the head of a valid chain.
pub(crate) unsafe fn without(head: *const c_void, tag: vk::StructureType) -> io::Result<Option<Chain>> {
    // SAFETY: the caller's promise.
    unsafe { Chain::copied(head, tag, None) }
}

/// An input chain with its structure of type `T` as `edit` makes it, or without it if `edit` says false. `None` if there is
/// none in it.
///
/// # Errors
/// It, or what comes before it, cannot be copied: process_vm_readv(2) fails.
///
/// # Safety
/// As for [`without`], and `T` must be the Vulkan structure that its `STRUCTURE_TYPE` names.
pub(crate) unsafe fn edited<T: vk::TaggedStructure>(
    head: *const c_void,
    mut edit: impl FnMut(&mut T) -> bool,
) -> io::Result<Option<Chain>> {
    const { assert!(size_of::<T>() <= MOST && align_of::<T>() <= align_of::<u64>()) };
    // SAFETY: the tag tells the type of what was copied, which nothing else refers to.
    let mut edit = |copy: *mut c_void| edit(unsafe { &mut *copy.cast() });
    // SAFETY: the caller's promise.
    unsafe { Chain::copied(head, T::STRUCTURE_TYPE, Some(&mut edit)) }
}

/// What can be read from `at` on, up to [`MOST`] bytes.
fn copy_of(at: *const c_void) -> io::Result<[u64; MOST / 8]> {
    let mut copy = [0; MOST / 8];
    let to = libc::iovec { iov_base: copy.as_mut_ptr().cast(), iov_len: MOST };
    // What lies on the next page is asked for apart: it may not be there, and then the rest still is.
    let page = tidemark_winsys::page_size();
    let here = (page - at.addr() % page).min(MOST);
    let from = [(0, here), (here, MOST - here)]
        .map(|(offset, len)| libc::iovec { iov_base: at.wrapping_byte_add(offset).cast_mut(), iov_len: len });
    // SAFETY: writes to the copy alone, which is as long; from there the kernel reads what is mapped, and no more.
    let copied = unsafe { libc::process_vm_readv(libc::getpid(), &raw const to, 1, from.as_ptr(), 2, 0) };
    match usize::try_from(copied) {
        Ok(copied) if copied >= here => Ok(copy),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
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
            let chain = without(head, tag).unwrap().expect("it is in there");
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
            let tag = vk::PhysicalDeviceFeatures2::STRUCTURE_TYPE;
            let chain = without(head, tag).unwrap().expect("it is in there");
            assert_eq!(chain.head(), first.p_next.cast_const());
            assert!(without(chain.head(), tag).unwrap().is_none());
            assert!(without(ptr::null(), tag).unwrap().is_none());
        }
    }

    #[test]
    fn a_structure_is_changed_in_a_copy_and_the_application_s_stays_as_it_is() {
        let last = vk::MemoryPriorityAllocateInfoEXT::default().priority(0.5);
        let mut middle =
            vk::ExportMemoryAllocateInfo { p_next: (&raw const last).cast(), ..Default::default() };
        middle.handle_types = vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD;
        let first = vk::MemoryAllocateFlagsInfo { p_next: (&raw const middle).cast(), ..Default::default() };
        let head: *const c_void = (&raw const first).cast();
        let none = vk::ExternalMemoryHandleTypeFlags::empty();
        // SAFETY: the chain above, and what is made of it.
        unsafe {
            let edit = |export: &mut vk::ExportMemoryAllocateInfo<'_>| {
                export.handle_types = none;
                true
            };
            let chain = edited(head, edit).unwrap().expect("it is in there");
            assert!(tags(chain.head()).eq(tags(head)));
            let export = find_input::<vk::ExportMemoryAllocateInfo<'_>>(chain.head()).unwrap();
            assert_eq!((export.handle_types, middle.handle_types == none), (none, false));
            // What is behind it is the application's.
            let priority = find_input::<vk::MemoryPriorityAllocateInfoEXT<'_>>(chain.head()).unwrap();
            assert!(ptr::eq(priority, &raw const last));

            let drop = |_: &mut vk::ExportMemoryAllocateInfo<'_>| false;
            let chain = edited(head, drop).unwrap().expect("it is in there");
            assert!(tags(chain.head()).eq([
                vk::MemoryAllocateFlagsInfo::STRUCTURE_TYPE,
                vk::MemoryPriorityAllocateInfoEXT::STRUCTURE_TYPE
            ]));
        }
    }

    #[test]
    fn a_structure_is_out_of_an_output_chain_for_a_while() {
        let mut last = vk::SamplerYcbcrConversionImageFormatProperties::default();
        let mut middle = vk::ExternalImageFormatProperties::default();
        let mut first = vk::ImageFormatProperties2::default();
        middle.p_next = (&raw mut last).cast();
        first.p_next = (&raw mut middle).cast();
        let head: *mut vk::BaseOutStructure<'_> = (&raw mut first).cast();
        // SAFETY: the chain above.
        unsafe {
            let count = || tags(head.cast()).count();
            let unlinked =
                Unlinked::new::<vk::ExternalImageFormatProperties<'_>>(head).expect("it is in there");
            assert_eq!(count(), 2);
            assert!(Unlinked::new::<vk::ExternalImageFormatProperties<'_>>(head).is_none());
            drop(unlinked);
            assert_eq!(count(), 3);
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
            let chain = without(at.cast_const().cast(), tag).unwrap().expect("it is in there");
            assert!(tags(chain.head()).eq([vk::PhysicalDeviceFeatures2::STRUCTURE_TYPE]));
        }
    }
}
