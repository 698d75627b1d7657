//! What a mirror makes of pages that the application lends, and takes away.

use crate::mirror::tests::{Plain, load, store};
use crate::mirror::{Device, Mirror, Traffic};
use crate::tracker::{Compare, CopyAll, Tracker, WriteProtect};
use crate::user_memory::{Lending, Trust};
use crate::{Arena, Readback};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use std::ptr;
use std::sync::Arc;

const PAGE: usize = 4096;
const PAGES: usize = 16;
const LEN: usize = PAGES * PAGE;

/// A mirror of pages full of 1, and device memory full of garbage.
struct Bench {
    mirror: Mirror,
    /// The pages.
    pages: *mut u8,
    device: *mut u8,
    is_watched: bool,
    _buffer: Vec<u8>,
}

impl Bench {
    fn new(tracker: Arc<dyn Tracker>, trust: Trust) -> Self {
        Self::of(tracker, trust, MapFlags::PRIVATE, Readback::Eager)
    }

    fn of(tracker: Arc<dyn Tracker>, trust: Trust, flags: MapFlags, readback: Readback) -> Self {
        let (access, none) = (ProtFlags::READ | ProtFlags::WRITE, ptr::null_mut());
        // SAFETY: a new mapping at an address the kernel chooses, and all of it. It stays.
        let pages = unsafe {
            let pages = rustix::mm::mmap_anonymous(none, LEN, access, flags).unwrap().cast::<u8>();
            pages.write_bytes(1, LEN);
            pages
        };
        let start = pages.expose_provenance();
        let mut buffer = vec![0xEE; LEN];
        let device = buffer.as_mut_ptr();
        let arena = Arena::new(tracker.clone()).reading_back(readback);
        // SAFETY: the mapping above.
        let lent = unsafe { Lending::new(tracker).lend(start..start + LEN, trust) }.unwrap();
        let is_watched = lent.is_watched();
        let memory = Device::Mapped(Box::new(Plain(device, LEN)));
        let mirror = Mirror::of_user_memory(&arena, None, memory, lent).unwrap();
        Self { mirror, pages, device, is_watched, _buffer: buffer }
    }

    fn flush(&self) -> Traffic {
        self.mirror.flush(0..LEN)
    }

    fn readback(&self) -> Traffic {
        self.mirror.readback(0..LEN)
    }

    fn host(&self, at: usize) -> u8 {
        load(self.pages.wrapping_add(at))
    }

    fn host_writes(&self, at: usize, value: u8) {
        store(self.pages.wrapping_add(at), value);
    }

    fn device(&self, at: usize) -> u8 {
        load(self.device.wrapping_add(at))
    }

    fn device_writes(&self, at: usize, value: u8) {
        store(self.device.wrapping_add(at), value);
    }

    fn protect(&self, page: usize, access: MprotectFlags) {
        let page = self.pages.wrapping_add(page * PAGE);
        // SAFETY: a page of the mapping.
        unsafe { rustix::mm::mprotect(page.cast(), PAGE, access) }.unwrap();
    }

    fn unmap(&self, pages: std::ops::Range<usize>) {
        let (start, len) = (self.pages.wrapping_add(pages.start * PAGE), pages.len() * PAGE);
        // SAFETY: pages of the mapping, which the test does not touch any more.
        unsafe { rustix::mm::munmap(start.cast(), len) }.unwrap();
    }
}

fn with_each(test: impl Fn(&Bench)) {
    let write_protect = Arc::new(WriteProtect::new().expect("this kernel has no write-protect tracking"));
    let trackers: [Arc<dyn Tracker>; 3] = [Arc::new(Compare), Arc::new(CopyAll), write_protect];
    for tracker in trackers {
        test(&Bench::new(tracker, Trust::Watched));
    }
}

#[test]
fn the_device_gets_what_the_pages_held_and_then_what_is_written() {
    with_each(|bench| {
        assert_eq!(bench.mirror.view(), bench.pages);
        bench.flush();
        assert_eq!([0, 5 * PAGE, LEN - 1].map(|at| bench.device(at)), [1; 3]);
        bench.host_writes(3 * PAGE + 5, 7);
        let traffic = bench.flush();
        assert_eq!([bench.device(3 * PAGE + 5), bench.device(3 * PAGE + 6)], [7, 1]);
        if bench.is_watched {
            assert_eq!((traffic.pages, bench.flush().pages), (1, 0));
        }
    });
}

#[test]
fn both_sides_keep_their_bytes_of_one_word() {
    with_each(|bench| {
        bench.flush();
        bench.mirror.share(0..LEN);
        bench.host_writes(8, 2);
        bench.device_writes(9, 3);
        bench.host_writes(PAGE, 4);
        // Before the flush, and after.
        assert_eq!(bench.readback().bytes, 1);
        assert_eq!([8, 9, 10].map(|at| bench.host(at)), [2, 3, 1]);
        assert_eq!(bench.flush().bytes, 2);
        assert_eq!([8, 9, 10, PAGE].map(|at| bench.device(at)), [2, 3, 1, 4]);
        // What a readback stored is no write of the host's.
        bench.device_writes(9, 5);
        bench.device_writes(2 * PAGE, 6);
        assert_eq!((bench.readback().bytes, bench.flush().bytes), (2, 0));
        assert_eq!((bench.host(9), bench.host(2 * PAGE)), (5, 6));
    });
}

#[test]
fn what_cannot_be_written_comes_back_when_it_can() {
    with_each(|bench| {
        bench.flush();
        bench.mirror.share(0..LEN);
        bench.protect(2, MprotectFlags::READ);
        (1..4).for_each(|page| bench.device_writes(page * PAGE, 9));
        bench.readback();
        assert_eq!(bench.host(2 * PAGE), 1);
        // Nor does it go back to the device.
        bench.flush();
        assert_eq!(bench.device(2 * PAGE), 9);
        bench.protect(2, MprotectFlags::READ | MprotectFlags::WRITE);
        bench.readback();
        assert_eq!((1..4).map(|page| bench.host(page * PAGE)).collect::<Vec<_>>(), [9; 3]);
        assert_eq!(bench.mirror.resume(), bench.is_watched);
    });
}

#[test]
fn what_cannot_be_read_is_flushed_when_it_can() {
    for is_shared in [false, true] {
        with_each(|bench| {
            bench.flush();
            if is_shared {
                bench.mirror.share(0..LEN);
            }
            (1..4).for_each(|page| bench.host_writes(page * PAGE, 9));
            bench.protect(2, MprotectFlags::empty());
            bench.flush();
            assert_eq!((1..4).map(|page| bench.device(page * PAGE)).collect::<Vec<_>>(), [9, 1, 9]);
            bench.protect(2, MprotectFlags::READ | MprotectFlags::WRITE);
            bench.flush();
            assert_eq!(bench.device(2 * PAGE), 9);
        });
    }
}

#[test]
fn what_cannot_be_read_when_the_device_is_about_to_write_is_not_made_up() {
    with_each(|bench| {
        bench.protect(2, MprotectFlags::empty());
        bench.flush();
        bench.mirror.share(0..LEN);
        bench.device_writes(2 * PAGE + 1, 9);
        bench.readback();
        bench.protect(2, MprotectFlags::READ | MprotectFlags::WRITE);
        bench.readback();
        bench.flush();
        assert_eq!([0, 1, 2].map(|at| bench.host(2 * PAGE + at)), [1, 9, 1]);
        assert_eq!([0, 1, 2].map(|at| bench.device(2 * PAGE + at)), [1, 9, 1]);
    });
}

#[test]
fn lost_pages_are_never_touched_again_and_the_device_keeps_its_bytes() {
    for by_readback in [false, true] {
        with_each(|bench| {
            bench.flush();
            bench.mirror.share(0..LEN);
            bench.host_writes(PAGE, 7);
            bench.device_writes(PAGE + 1, 8);
            bench.unmap(0..1);
            if by_readback {
                bench.device_writes(1, 8);
                bench.readback();
            } else {
                bench.flush();
            }
            // What is there yet, and what comes there next, is nobody's business.
            bench.flush();
            bench.readback();
            bench.mirror.share(0..LEN);
            assert_eq!([bench.device(PAGE), bench.device(PAGE + 1), bench.device(0)], [1, 8, 1]);
            assert!(!bench.mirror.resume());
            assert_eq!(bench.host(PAGE + 1), 1);
        });
    }
}

#[test]
fn pages_that_are_trusted_blindly_work_like_any() {
    let bench = Bench::new(Arc::new(CopyAll), Trust::Blind);
    bench.flush();
    assert_eq!(bench.device(LEN - 1), 1);
    bench.mirror.share(0..LEN);
    bench.device_writes(5, 2);
    bench.host_writes(6, 3);
    bench.readback();
    bench.flush();
    assert_eq!([5, 6, 7].map(|at| (bench.host(at), bench.device(at))), [(2, 2), (3, 3), (1, 1)]);
}

/// Threads write while the mirror flushes and reads back: nothing is lost.
#[test]
fn nothing_is_lost_while_threads_write() {
    with_each(|bench| {
        bench.flush();
        bench.mirror.share(0..LEN);
        let words: Vec<usize> = (0..PAGES).map(|page| page * PAGE + 8).collect();
        std::thread::scope(|scope| {
            let pages = bench.pages as usize;
            scope.spawn(move || {
                for round in 0..500 {
                    for page in 0..PAGES {
                        let at = ptr::with_exposed_provenance_mut(pages + page * PAGE + 8);
                        store(at, u8::try_from(round % 250).unwrap());
                    }
                }
            });
            for round in 0..200 {
                words.iter().for_each(|at| bench.device_writes(at + 1, round));
                bench.readback();
                bench.flush();
                assert!(words.iter().all(|at| bench.host(at + 1) == round));
            }
        });
        bench.flush();
        assert!(words.iter().all(|&at| (bench.device(at), bench.host(at)) == (249, 249)));
    });
}

/// Shared pages, read back lazily where that can be; and whether it can.
fn lazy() -> (Bench, bool) {
    let tracker = Arc::new(WriteProtect::new().expect("this kernel has no write-protect tracking"));
    let is_privileged = tracker.pager().is_some();
    (Bench::of(tracker, Trust::Watched, MapFlags::SHARED, Readback::Lazy), is_privileged)
}

fn count(pages: usize, is_privileged: bool) -> u64 {
    if is_privileged { pages as u64 } else { 0 }
}

#[test]
fn shared_pages_are_fetched_when_they_are_touched() {
    let (bench, is_privileged) = lazy();
    bench.flush();
    bench.mirror.share(0..LEN);
    for round in 2..6 {
        (0..LEN).for_each(|at| bench.device_writes(at, round));
        bench.readback();
        assert_eq!(bench.host(5 * PAGE + 1), round);
        assert_eq!(bench.mirror.readback(0..0).fetched, count(2, is_privileged));
        // By the kernel, too.
        let mut bytes = [0; PAGE];
        let file = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let page = bench.pages.wrapping_add(9 * PAGE).cast();
        // SAFETY: a page of the test's.
        let written = unsafe { libc::write(std::os::fd::AsRawFd::as_raw_fd(&file), page, PAGE) };
        assert_eq!(usize::try_from(written), Ok(PAGE));
        rustix::io::pread(&file, &mut bytes, 0).unwrap();
        assert_eq!(bytes, [round; PAGE]);
    }
    // What was fetched and what was not is no write of the host's.
    assert_eq!(bench.flush().bytes, 0);
}

#[test]
fn what_the_host_wrote_before_pages_were_held_back_is_flushed() {
    let (bench, _) = lazy();
    bench.flush();
    bench.mirror.share(0..LEN);
    bench.host_writes(3 * PAGE, 7);
    bench.device_writes(3 * PAGE + 1, 8);
    bench.readback();
    bench.flush();
    assert_eq!([0, 1].map(|at| bench.device(3 * PAGE + at)), [7, 8]);
    assert_eq!([0, 1, 2].map(|at| bench.host(3 * PAGE + at)), [7, 8, 1]);
}

#[test]
fn pages_go_back_with_all_that_the_device_wrote() {
    for is_kept in [false, true] {
        let (bench, _) = lazy();
        bench.flush();
        bench.mirror.share(0..LEN);
        for round in [3, 4] {
            (0..LEN).step_by(PAGE).for_each(|at| bench.device_writes(at, round));
            bench.readback();
            if is_kept {
                bench.mirror.rest();
            } else {
                bench.mirror.retire();
            }
            assert!((0..LEN).step_by(PAGE).all(|at| bench.host(at) == round));
            if !is_kept {
                break;
            }
            // And are taken again.
            assert!(bench.mirror.resume());
            bench.flush();
        }
    }
}

#[test]
fn what_came_in_the_place_of_shared_pages_is_not_emptied() {
    let (bench, _) = lazy();
    bench.flush();
    bench.mirror.share(0..LEN);
    bench.readback();
    let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::FIXED);
    let place = bench.pages.wrapping_add(4 * PAGE);
    // SAFETY: pages of the mapping, and what comes there.
    unsafe {
        rustix::mm::mmap_anonymous(place.cast(), 2 * PAGE, access, flags).unwrap();
        place.write_bytes(9, 2 * PAGE);
    }
    (0..LEN).for_each(|at| bench.device_writes(at, 2));
    bench.readback();
    assert!((4 * PAGE..6 * PAGE).all(|at| bench.host(at) == 9));
    bench.mirror.retire();
    assert!((4 * PAGE..6 * PAGE).all(|at| bench.host(at) == 9));
}

#[test]
fn nobody_waits_for_pages_that_were_lost() {
    let (bench, _) = lazy();
    bench.flush();
    bench.mirror.share(0..LEN);
    (0..LEN).for_each(|at| bench.device_writes(at, 2));
    bench.readback();
    bench.unmap(4..6);
    // Others are held back still, and fetched, as long as nobody has noticed.
    assert_eq!(bench.host(9 * PAGE), 2);
    bench.flush();
    let pages = bench.pages;
    drop(bench);
    for page in [0, 3, 12, 15] {
        assert!([1, 2].contains(&load(pages.wrapping_add(page * PAGE))));
    }
}
