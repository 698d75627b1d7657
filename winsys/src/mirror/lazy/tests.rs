//! What only lazy readbacks can get wrong. All of these pass as well where the process may not have them, and reads back
//! eagerly.

use super::*;
use crate::host_memory::Arena;
use crate::mirror::tests::{Plain, load, store};
use crate::mirror::{Contents, Mirror};
use crate::readback_policy::Readback;
use crate::tracker::WriteProtect;
use rustix::mm::MprotectFlags;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const PAGE: usize = 4096;

fn arena() -> Arena {
    let tracker = WriteProtect::new().expect("this kernel has no write-protect tracking");
    Arena::new(Arc::new(tracker)).reading_back(Readback::Lazy)
}

fn is_privileged() -> bool {
    arena().tracker().pager().is_some()
}

/// Device memory of zeros, and a mirror of it.
struct Pair {
    mirror: Mirror,
    device: Vec<u8>,
}

impl Pair {
    fn new(pages: usize) -> Self {
        Self::in_arena(&arena(), pages)
    }

    fn in_arena(arena: &Arena, pages: usize) -> Self {
        let mut device = vec![0; pages * PAGE];
        let memory = Device::Mapped(Box::new(Plain(device.as_mut_ptr(), device.len())));
        let mirror = Mirror::new(arena, None, memory, Contents::Defined).unwrap();
        Self { mirror, device }
    }

    fn view(&self, at: usize) -> *mut u8 {
        self.mirror.view().wrapping_add(at)
    }

    fn device(&self, at: usize) -> *mut u8 {
        self.device.as_ptr().cast_mut().wrapping_add(at)
    }

    fn read_back(&self) -> Traffic {
        self.mirror.readback(0..usize::MAX)
    }

    fn flush(&self) -> Traffic {
        self.mirror.flush(0..usize::MAX)
    }
}

#[test]
fn what_is_touched_is_fetched_and_nothing_else() {
    let pair = Pair::new(1024);
    pair.read_back();
    for round in 1..10 {
        for page in 0..1024 {
            store(pair.device(page * PAGE), round);
        }
        pair.read_back();
        assert_eq!(load(pair.view(700 * PAGE)), round);
        let fetched = pair.mirror.readback(0..0).fetched;
        assert_eq!(fetched, if is_privileged() { WINDOWS.start as u64 } else { 0 });
    }
}

#[test]
fn pages_that_are_read_do_not_become_dirty() {
    let pair = Pair::new(64);
    pair.flush();
    for round in 1..4 {
        for page in 0..64 {
            store(pair.device(page * PAGE), round);
        }
        pair.read_back();
        assert!((0..64).all(|page| load(pair.view(page * PAGE)) == round));
        assert_eq!(pair.flush().pages, 0);
    }
}

#[test]
fn what_was_written_before_pages_are_held_back_is_flushed() {
    // Read or not in between, and whole tables of pages: the kernel may free those once they are empty.
    for pages in [1, 2048] {
        for is_touched in [false, true] {
            let pair = Pair::new(pages);
            pair.flush();
            for page in 0..pages {
                store(pair.view(page * PAGE + 1), 1);
                store(pair.device(page * PAGE + 2), 2);
            }
            pair.read_back();
            if is_touched {
                assert!((0..pages).all(|page| load(pair.view(page * PAGE + 2)) == 2));
            }
            assert_eq!(pair.flush().bytes, pages as u64);
            assert!((0..pages).all(|page| load(pair.device(page * PAGE + 1)) == 1));
            assert!((0..pages).all(|page| load(pair.view(page * PAGE + 2)) == 2));
            assert_eq!(pair.flush().pages, 0);
        }
    }
}

#[test]
fn the_first_touch_may_be_a_write() {
    let pair = Pair::new(16);
    for round in 1..10 {
        store(pair.device(0), round);
        pair.read_back();
        store(pair.view(1), round);
        assert_eq!(pair.flush().bytes, 1);
        assert_eq!((load(pair.view(0)), load(pair.device(1))), (round, round));
    }
}

#[test]
fn system_calls_read_and_write_pages_that_are_held_back() {
    let pair = Pair::new(8);
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    store(pair.device(3 * PAGE), 7);
    pair.read_back();
    // SAFETY: a part of the live view, used by this thread alone.
    let out = unsafe { std::slice::from_raw_parts(pair.view(3 * PAGE), 2) };
    writer.write_all(out).unwrap();
    // SAFETY: as above.
    let into = unsafe { std::slice::from_raw_parts_mut(pair.view(6 * PAGE), 2) };
    reader.read_exact(into).unwrap();
    assert_eq!(load(pair.view(6 * PAGE)), 7);
    assert_eq!(pair.flush().bytes, 1);
    assert_eq!(load(pair.device(6 * PAGE)), 7);
}

#[test]
fn many_threads_may_touch_one_page() {
    let pair = Pair::new(1);
    for round in 1..200 {
        store(pair.device(9), round);
        pair.read_back();
        let view = pair.view(9) as usize;
        thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(move || load(view as *const u8))).collect();
            assert!(threads.into_iter().all(|thread| thread.join().unwrap() == round));
        });
    }
}

/// Host and device write bytes of their own in the same pages, while pages are held back, fetched and flushed.
#[test]
fn neither_side_loses_bytes_to_the_other() {
    const PAGES: usize = 64;
    let pair = Pair::new(PAGES);
    let (view, device) = (pair.view(0) as usize, pair.device(0) as usize);
    thread::scope(|scope| {
        let write = |base: usize, half: usize| {
            for round in 1..=200u8 {
                for page in 0..PAGES {
                    store((base + page * PAGE + half * 2048 + usize::from(round)) as *mut u8, round);
                }
            }
        };
        let threads = [scope.spawn(move || write(view, 0)), scope.spawn(move || write(device, 1))];
        while !threads.iter().all(|thread| thread.is_finished()) {
            pair.read_back();
            pair.flush();
        }
    });
    pair.flush();
    pair.read_back();
    for page in 0..PAGES {
        for (round, half) in (1..=200u8).flat_map(|round| [(round, 0), (round, 1)]) {
            let at = page * PAGE + half * 2048 + usize::from(round);
            assert_eq!([load(pair.view(at)), load(pair.device(at))], [round; 2], "page {page}");
        }
    }
}

#[test]
fn windows_double_along_streaks() {
    let mut lazy = Lazy {
        policy: ReadbackPolicy::new(Readback::Lazy, 10_000).unwrap(),
        stale: PageSet::new(10_000),
        watched: 0..10_000,
        window: 0..0,
        fetched: Traffic::default(),
        lost: None,
    };
    lazy.stale.insert(0..10_000);
    let mut lengths = Vec::new();
    let mut page = 100;
    while page < 10_000 {
        let (window, is_stale) = lazy.next_window(page);
        assert!(is_stale && window.start == page);
        lazy.stale.remove(window.clone());
        lengths.push(window.len());
        page = window.end;
    }
    assert_eq!(lengths[..10], [2, 4, 8, 16, 32, 64, 128, 256, 512, 512]);
    // Elsewhere it starts anew, and neither leaves what is stale nor the end.
    lazy.stale.remove(0..100);
    lazy.stale.insert(20..21);
    assert_eq!(lazy.next_window(20), (20..21, true));
    lazy.stale.insert(9_999..10_000);
    assert_eq!(lazy.next_window(9_999), (9_999..10_000, true));
    assert_eq!(lazy.next_window(50), (50..52, false));
}

#[test]
fn nobody_hangs_when_a_mirror_retires() {
    for _ in 0..50 {
        let mut pair = Pair::new(256);
        pair.read_back();
        let view = pair.view(0) as usize;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    (0..256).for_each(|page| _ = load((view + page * PAGE) as *const u8));
                }
            });
            for _ in 0..3 {
                pair.read_back();
            }
            pair.mirror.retire();
            pair.device = Vec::new();
            stop.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        });
    }
}

#[test]
fn memory_that_is_used_again_is_tracked_and_not_held_back() {
    let arena = arena();
    let first = Pair::in_arena(&arena, 300);
    let other = Pair::in_arena(&arena, 4);
    let address = first.view(0);
    first.read_back();
    drop(first);
    let memory = arena.allocate(300 * PAGE).unwrap();
    assert_eq!(memory.view(), address);
    // Nobody would answer for these.
    assert!((0..300).all(|page| load(memory.view().wrapping_add(page * PAGE)) == 0));
    drop(memory);
    let second = Pair::in_arena(&arena, 300);
    assert_eq!(second.view(0), address);
    assert!((0..300).all(|page| load(second.view(page * PAGE)) == 0));
    second.flush();
    store(second.view(299 * PAGE), 5);
    assert_eq!(second.flush(), Traffic { pages: 1, bytes: 1, ..Traffic::default() });
    store(other.device(0), 6);
    other.read_back();
    assert_eq!(load(other.view(0)), 6);
}

#[test]
fn threads_fault_while_others_map_and_free() {
    let arena = arena();
    let pair = Pair::in_arena(&arena, 512);
    thread::scope(|scope| {
        let others: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let other = Pair::in_arena(&arena, 100);
                        store(other.device(50 * PAGE), 1);
                        other.read_back();
                        assert_eq!(load(other.view(50 * PAGE)), 1);
                    }
                })
            })
            .collect();
        let mut round = 0u8;
        while !others.iter().all(|thread| thread.is_finished()) {
            round = round.wrapping_add(1);
            store(pair.device(77 * PAGE), round);
            pair.read_back();
            assert_eq!(load(pair.view(77 * PAGE)), round);
        }
    });
}

#[test]
fn locked_pages_are_read_back_at_once() {
    let pair = Pair::new(64);
    pair.read_back();
    // SAFETY: a part of the live view.
    unsafe { rustix::mm::mlock(pair.view(0).cast(), 8 * PAGE) }.unwrap();
    for round in 1..4 {
        store(pair.device(PAGE), round);
        store(pair.device(60 * PAGE), round);
        pair.read_back();
        assert_eq!([load(pair.view(PAGE)), load(pair.view(60 * PAGE))], [round; 2]);
    }
    assert_eq!(pair.mirror.readback(0..0).fetched, 0);
}

#[test]
fn a_view_that_the_application_protects_in_parts_is_fetched_all_the_same() {
    let pair = Pair::new(64);
    pair.flush();
    for (round, protection) in [(1, MprotectFlags::READ), (2, MprotectFlags::READ | MprotectFlags::WRITE)] {
        for page in 0..64 {
            store(pair.device(page * PAGE), round);
        }
        pair.read_back();
        for page in [3, 17, 18, 40] {
            // SAFETY: a page of the live view, which nobody writes while it is read-only.
            unsafe { rustix::mm::mprotect(pair.view(page * PAGE).cast(), PAGE, protection) }.unwrap();
        }
        assert!((0..64).all(|page| load(pair.view(page * PAGE)) == round));
        assert_eq!(pair.flush().pages, 0);
    }
}

/// Ends the child that runs it, without running anything of its parent's.
fn exit(is_right: bool) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(if is_right { 42 } else { 1 }) }
}

#[track_caller]
fn expect_right(child: libc::pid_t) {
    let mut status = 0;
    // SAFETY: this process's child, and a place for its status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), 42, "{status}");
}

#[test]
fn a_forked_child_reads_back_at_once_and_leaves_its_parent_alone() {
    let pair = Pair::new(64);
    store(pair.device(0), 1);
    store(pair.device(50 * PAGE), 1);
    pair.read_back();
    // SAFETY: the child uses this test's own locks alone, and glibc keeps its allocator usable.
    let child = unsafe { libc::fork() };
    if child == 0 {
        pair.mirror.readback(0..PAGE);
        let is_right = load(pair.view(0)) == 1 && load(pair.view(50 * PAGE)) == 1;
        drop(pair);
        exit(is_right);
    }
    expect_right(child);
    for round in 2..10 {
        store(pair.device(9 * PAGE), round);
        pair.read_back();
        assert_eq!(load(pair.view(9 * PAGE)), round);
    }
}

#[test]
fn a_process_may_end_while_a_thread_waits() {
    // SAFETY: as above; what the child needs it makes itself.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let pair = Pair::new(4);
        pair.read_back();
        let _held = pair.mirror.state.hold();
        let view = pair.view(0) as usize;
        thread::scope(|scope| {
            scope.spawn(move || load(view as *const u8));
            thread::sleep(Duration::from_millis(50));
            exit(true);
        });
    }
    expect_right(child);
}

#[test]
fn without_privilege_it_reads_back_at_once() {
    const NOBODY: libc::uid_t = 65534;
    // SAFETY: as above.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: changes what this process may do, and nothing in memory. One that changed who it is may not look at its
        // own page map, unless it says that others may look at it.
        unsafe {
            libc::setuid(NOBODY);
            libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        }
        let pair = Pair::new(64);
        store(pair.device(PAGE), 1);
        let traffic = pair.read_back();
        exit(!is_privileged() && traffic.bytes == 1 && load(pair.view(PAGE)) == 1);
    }
    expect_right(child);
}

#[test]
fn left_to_itself_it_becomes_lazy_where_little_is_read() {
    let tracker = WriteProtect::new().expect("this kernel has no write-protect tracking");
    let arena = Arena::new(Arc::new(tracker)).reading_back(Readback::Auto);
    let pair = Pair::in_arena(&arena, 4096);
    let mut fetched = 0;
    for round in 1..=50 {
        store(pair.device(1234 * PAGE), round);
        fetched += pair.read_back().fetched;
        assert_eq!(load(pair.view(1234 * PAGE)), round);
    }
    assert_eq!(fetched > 0, is_privileged());
}
