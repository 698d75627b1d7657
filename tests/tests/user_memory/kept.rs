//! Imports that were freed and are kept. What is kept is watched, and the kernel tells what is.

use crate::bench::{Bench, PAGE, SIZE, map};
use ash::vk;
use rustix::mm::{MapFlags, ProtFlags};
use std::ops::Range;
use std::ptr;

/// Imports that are kept at most, and bytes of them.
const MOST: usize = 64;
const MOST_BYTES: usize = 256 << 20;

/// How often the same pages are imported.
const ROUNDS: usize = 10;

/// Bytes that are flushed if they are kept in between, with one page written each time after the first; and if they are not.
pub(crate) const FLUSHED_AGAIN: u64 = (SIZE + (ROUNDS - 1) * PAGE) as u64;
pub(crate) const FLUSHED_ANEW: u64 = (ROUNDS * SIZE) as u64;

impl Bench {
    /// Imports and frees more than is kept.
    pub(crate) fn keep(&self, part: &str) {
        let import_all = |count: usize, len: usize| {
            let start = addresses(count * len);
            for index in 0..count {
                self.import_and_free(start.wrapping_add(index * len), len);
            }
            start as usize..start as usize + count * len
        };
        match part {
            "many" => {
                let all = import_all(MOST + 6, PAGE);
                // Those that were freed last.
                assert_eq!(watched(&all), MOST * PAGE);
                assert_eq!(watched(&(all.start..all.start + 6 * PAGE)), 0);
            }
            "much" => {
                let len = MOST_BYTES / 4;
                let all = import_all(5, len);
                assert_eq!(watched(&all), MOST_BYTES);
                assert_eq!(watched(&(all.start..all.start + len)), 0);
            }
            _ => {
                let all = import_all(2, SIZE);
                assert_eq!(watched(&all), 2 * SIZE);
                // One that overlaps the end of the first.
                let middle = all.start + SIZE - PAGE..all.start + SIZE;
                self.import_and_free(ptr::with_exposed_provenance_mut(middle.start), PAGE);
                assert_eq!([watched(&all), watched(&middle)], [SIZE + PAGE, PAGE]);
            }
        }
    }

    fn import_and_free(&self, start: *mut u8, len: usize) {
        let memory = self.import(start, len, self.importable_type()).expect("imported");
        let start = start.expose_provenance();
        assert_eq!(watched(&(start..start + len)), len);
        // SAFETY: not used.
        unsafe { self.gpu.device.free_memory(memory, None) };
    }

    /// Imports the pages, has the device read them, and frees the import, over and over; if `anew`, with another import of a
    /// part of them in between.
    pub(crate) fn import_often(&self, anew: bool) {
        for round in 0..ROUNDS {
            let mut expected = [1; SIZE];
            if round > 0 && !anew {
                let at = round % (SIZE / PAGE) * PAGE;
                // SAFETY: inside the pages.
                unsafe { self.pages.add(at).write_volatile(10) };
            }
            expected.iter_mut().enumerate().for_each(|(at, byte)| *byte = self.found(at));
            let import = self.import_buffer(self.pages);
            self.copy(import.0, self.other);
            assert!((0..SIZE).all(|at| self.seen(at) == expected[at]));
            self.free(import);
            if anew {
                self.import_and_free(self.pages, PAGE);
            }
        }
    }

    /// What is kept is no reason to have no memory.
    pub(crate) fn run_short(&self) {
        let all_there_is = || {
            let info = vk::MemoryAllocateInfo::default().allocation_size(PAGE as u64);
            let info = info.memory_type_index(self.importable_type());
            // SAFETY: a valid info, and memory that is not used.
            let allocate = || unsafe { self.gpu.device.allocate_memory(&info, None) };
            let all: Vec<vk::DeviceMemory> = std::iter::from_fn(|| allocate().ok()).collect();
            // SAFETY: not used.
            all.iter().for_each(|memory| unsafe { self.gpu.device.free_memory(*memory, None) });
            all.len()
        };
        let room = all_there_is();
        assert!(room > 8, "{room}");
        let pages = map(ptr::null_mut(), 8 * PAGE, 1);
        for index in 0..8 {
            self.import_and_free(pages.wrapping_add(index * PAGE), PAGE);
        }
        assert_eq!(all_there_is(), room);
        let start = pages.expose_provenance();
        assert_eq!(watched(&(start..start + 8 * PAGE)), 0);
    }
}

/// Addresses of memory that nobody touched.
fn addresses(len: usize) -> *mut u8 {
    let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
    // SAFETY: a new mapping at an address the kernel chooses.
    let start = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, access, flags) };
    start.expect("addresses").cast()
}

/// How many bytes of `span` are in mappings that userfaultfd watches for writes.
fn watched(span: &Range<usize>) -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps").expect("a list of mappings");
    let (mut mapping, mut sum) = (0..0, 0);
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let part = mapping.start.max(span.start)..mapping.end.min(span.end);
            sum += if flags.split(' ').any(|flag| flag == "uw") { part.len() } else { 0 };
        } else if let Some((start, end)) = line.split(' ').next().and_then(|word| word.split_once('-')) {
            let number = |hex| usize::from_str_radix(hex, 16).expect("an address");
            mapping = number(start)..number(end);
        }
    }
    sum
}
