//! What must not be done to pages while they are imported, and what cannot be imported at all.

use crate::bench::{Bench, PAGE, SIZE, map};
use ash::vk;
use rustix::mm::{MprotectFlags, MremapFlags};
use std::ptr;

impl Bench {
    /// Imports the pages, and then does with them what must not be done.
    pub(crate) fn lose(&self, part: &str) {
        let (imported, memory) = self.import_buffer(self.pages);
        self.copy(imported, self.other);
        assert!((0..SIZE).all(|at| self.seen(at) == 1));
        if part == "map over and read back" || part == "protect" {
            // SAFETY: inside the mapping.
            unsafe { self.view.write_bytes(3, SIZE) };
        }
        let half = self.pages.wrapping_add(SIZE / 2);
        // SAFETY: pages of this test's, which it goes on to use as it left them.
        unsafe {
            match part {
                "unmap" => rustix::mm::munmap(half.cast(), SIZE / 2).expect("unmapped"),
                "map over" | "map over and read back" => _ = map(half, SIZE / 2, 2),
                "move" => {
                    let to = map(ptr::null_mut(), SIZE / 2, 2);
                    let flags = MremapFlags::MAYMOVE;
                    rustix::mm::mremap_fixed(half.cast(), SIZE / 2, SIZE / 2, flags, to.cast())
                        .expect("moved");
                }
                "protect" => {
                    rustix::mm::mprotect(half.cast(), PAGE, MprotectFlags::READ).expect("protected");
                }
                _ => {}
            }
        }
        match part {
            "map over and read back" => {
                self.copy(self.other, imported);
                if (SIZE / 2..SIZE).any(|at| self.found(at) != 2) {
                    println!("wrote to somebody else's");
                    return;
                }
            }
            "protect" => {
                self.copy(self.other, imported);
                let is_late = |at| (SIZE / 2..SIZE / 2 + PAGE).contains(&at);
                assert!((0..SIZE).all(|at| self.found(at) == if is_late(at) { 1 } else { 3 }));
                // SAFETY: a page of this test's.
                unsafe {
                    rustix::mm::mprotect(half.cast(), PAGE, MprotectFlags::READ | MprotectFlags::WRITE)
                }
                .expect("protected");
                self.copy(self.other, imported);
                assert!((0..SIZE).all(|at| self.found(at) == 3));
            }
            // What the device has of them stays as it was.
            _ => {
                // SAFETY: the first page is still there.
                unsafe { self.pages.write_volatile(if part == "keep" { 1 } else { 9 }) };
                for _ in 0..2 {
                    // SAFETY: inside the mapping.
                    unsafe { self.view.write_bytes(0, SIZE) };
                    self.copy(imported, self.other);
                    if (SIZE / 2..SIZE).any(|at| self.seen(at) == 2) {
                        println!("read somebody else's");
                        return;
                    }
                    assert!((0..SIZE).all(|at| self.seen(at) == 1));
                }
            }
        }
        // And it can be freed, and other pages imported.
        self.free((imported, memory));
        let (imported, _) = self.import_buffer(map(ptr::null_mut(), SIZE, 5));
        self.copy(imported, self.other);
        assert!((0..SIZE).all(|at| self.seen(at) == 5));
    }

    /// Tries to import what cannot be.
    pub(crate) fn refuse(&self, part: &str) {
        let memory_type = self.importable_type();
        let last = self.pages.wrapping_add(SIZE - PAGE).cast();
        // SAFETY: a page of this test's, which it does not touch any more.
        unsafe {
            match part {
                "a hole" => rustix::mm::munmap(last, PAGE).expect("unmapped"),
                "no access" => rustix::mm::mprotect(last, PAGE, MprotectFlags::empty()).expect("protected"),
                _ => {}
            }
        }
        let outcome = match part {
            "misaligned address" => self.import(self.pages.wrapping_add(64), PAGE, memory_type),
            "misaligned size" => self.import(self.pages, PAGE + 64, memory_type),
            "a hole" | "no access" => self.import(self.pages, SIZE, memory_type),
            "a mapping of Tidemark's" => self.import(self.view, SIZE, memory_type),
            "another type" => self.import(self.pages, SIZE, self.other_type(memory_type)),
            unknown => panic!("there is no part \"{unknown}\""),
        };
        assert_eq!(outcome, Err(vk::Result::ERROR_INVALID_EXTERNAL_HANDLE));
    }

    /// A type that nothing can be imported as.
    fn other_type(&self, importable: u32) -> u32 {
        let host = vk::MemoryPropertyFlags::HOST_CACHED | vk::MemoryPropertyFlags::HOST_COHERENT;
        let types = self.gpu.memory.memory_types_as_slice();
        let found = types.iter().position(|one| !one.property_flags.contains(host));
        found.and_then(|at| u32::try_from(at).ok()).filter(|at| *at != importable).expect("another type")
    }
}
