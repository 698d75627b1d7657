//! Instances whose objects lie, each time, where those of the one before lay.

use crate::probe::{INSTANCES, first_device, instance_in};
use ash::vk;
use std::alloc::{Layout, alloc};
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidemark_tests::Library;

/// Bytes, of which each instance has a few thousand.
const SIZE: usize = 1 << 24;
/// Before each piece: how long it is.
const HEAD: usize = 64;

static BASE: AtomicUsize = AtomicUsize::new(0);
static USED: AtomicUsize = AtomicUsize::new(0);

/// Makes instances, one after the other, and finds their devices.
pub fn instances(library: Library) {
    let layout = Layout::from_size_align(SIZE, 4096).expect("a valid layout");
    // SAFETY: not of size zero.
    BASE.store(unsafe { alloc(layout) } as usize, Ordering::Relaxed);
    let allocator = vk::AllocationCallbacks::default();
    let allocator = vk::AllocationCallbacks {
        pfn_allocation: Some(allocate),
        pfn_reallocation: Some(reallocate),
        pfn_free: Some(free),
        ..allocator
    };
    let mut devices = Vec::new();
    for _ in 0..INSTANCES {
        USED.store(0, Ordering::Relaxed);
        let instance = instance_in(library, Some(&allocator));
        devices.push(first_device(&instance));
        // SAFETY: nobody uses it any more.
        unsafe { instance.destroy_instance(Some(&allocator)) };
    }
    devices.dedup();
    assert_eq!(devices.len(), 1, "the same allocations should lead to the same handles");
}

unsafe extern "system" fn allocate(
    _: *mut c_void,
    size: usize,
    alignment: usize,
    _: vk::SystemAllocationScope,
) -> *mut c_void {
    assert!(alignment <= HEAD, "an alignment of {alignment}");
    let at = USED.fetch_add(HEAD + size.next_multiple_of(HEAD), Ordering::Relaxed);
    assert!(at + HEAD + size <= SIZE, "the arena is too small");
    let piece = (BASE.load(Ordering::Relaxed) + at) as *mut usize;
    // SAFETY: inside the arena, and nobody else's.
    unsafe {
        piece.write(size);
        piece.byte_add(HEAD).cast()
    }
}

unsafe extern "system" fn reallocate(
    user: *mut c_void,
    old: *mut c_void,
    size: usize,
    alignment: usize,
    scope: vk::SystemAllocationScope,
) -> *mut c_void {
    // SAFETY: as above; an old piece has its size before it.
    unsafe {
        let new = allocate(user, size, alignment, scope);
        if !old.is_null() {
            let old_size = old.byte_sub(HEAD).cast::<usize>().read();
            new.cast::<u8>().copy_from_nonoverlapping(old.cast(), old_size.min(size));
        }
        new
    }
}

unsafe extern "system" fn free(_: *mut c_void, _: *mut c_void) {}
