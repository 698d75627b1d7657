//! What the mirror must keep, by each tracker, and by lazy readbacks where the process may have them.

use super::*;
use crate::readback_policy::Readback;
use crate::tracker::{Compare, CopyAll, Tracker, WriteProtect};

/// A vector that outlives the mirror, and is used through this pointer alone meanwhile.
pub(super) struct Plain(pub(super) *mut u8, pub(super) usize);

// SAFETY: as said.
unsafe impl Send for Plain {}
// SAFETY: as said.
unsafe impl Sync for Plain {}
// SAFETY: as said.
unsafe impl DeviceMemory for Plain {
    fn address(&self) -> *mut u8 {
        self.0
    }

    fn len(&self) -> usize {
        self.1
    }
}

fn arenas() -> [Arena; 4] {
    let write_protect = || Arc::new(WriteProtect::new().expect("this kernel has no write-protect tracking"));
    [
        Arena::new(Arc::new(Compare)),
        Arena::new(Arc::new(CopyAll)),
        Arena::new(write_protect()),
        Arena::new(write_protect()).reading_back(Readback::Lazy),
    ]
}

/// Runs `test` with each tracker, on a mirror of `device`, all of which the device may write.
fn with_mirror(initial: &[u8], test: impl Fn(&Mirror, *mut u8)) {
    for arena in arenas() {
        let mut device = initial.to_vec();
        let pointer = device.as_mut_ptr();
        let memory = Device::Mapped(Box::new(Plain(pointer, device.len())));
        let mirror = Mirror::new(&arena, None, memory, Contents::Defined).unwrap();
        test(&mirror, pointer);
    }
}

/// Runs `test` with each tracker, on a mirror of memory with garbage in it.
fn with_fresh_mirror(len: usize, test: impl Fn(&Mirror, *mut u8)) {
    for arena in arenas() {
        let mut device = vec![0xEE; len];
        let pointer = device.as_mut_ptr();
        let memory = Device::Mapped(Box::new(Plain(pointer, device.len())));
        let mirror = Mirror::new(&arena, None, memory, Contents::Undefined).unwrap();
        test(&mirror, pointer);
    }
}

/// Reads everything back, and touches it all. Returns what that moved, one way or the other.
fn read_back_all(mirror: &Mirror) -> Traffic {
    let mut traffic = mirror.readback(0..mirror.len());
    (0..mirror.len()).step_by(4096).for_each(|at| _ = load(mirror.view().wrapping_add(at)));
    traffic += mirror.readback(0..0);
    Traffic { fetched: 0, ..traffic }
}

pub(super) fn load(at: *const u8) -> u8 {
    // SAFETY: the tests pass addresses inside live mirrors.
    unsafe { at.read_volatile() }
}

pub(super) fn store(at: *mut u8, value: u8) {
    // SAFETY: as in `load`.
    unsafe { at.write_volatile(value) }
}

#[test]
fn the_view_starts_with_the_bytes_of_the_device() {
    with_mirror(&[5; 10_000], |mirror, _| {
        assert_eq!([0, 4095, 4096, 9999].map(|i| load(mirror.view().wrapping_add(i))), [5; 4]);
        assert_eq!(mirror.flush(0..10_000).bytes, 0);
    });
}

#[test]
fn host_and_device_keep_their_bytes_of_one_word() {
    with_mirror(&[0; 4096], |mirror, device| {
        store(mirror.view().wrapping_add(8), 1);
        store(device.wrapping_add(9), 2);
        assert_eq!(mirror.flush(0..4096), Traffic { pages: 1, bytes: 1, ..Traffic::default() });
        assert_eq!(mirror.flush(0..4096).bytes, 0);
        store(mirror.view().wrapping_add(10), 3);
        assert_eq!(read_back_all(mirror).bytes, 1);
        assert_eq!(mirror.flush(0..4096).bytes, 1);
        for i in 0..3 {
            assert_eq!(load(mirror.view().wrapping_add(8 + i)), load(device.wrapping_add(8 + i)));
            assert_eq!(usize::from(load(device.wrapping_add(8 + i))), i + 1);
        }
    });
}

#[test]
fn a_byte_written_back_and_forth_is_never_missed() {
    with_mirror(&[0; 4096], |mirror, device| {
        for round in 1..=50 {
            store(mirror.view(), round);
            mirror.flush(0..1);
            assert_eq!(load(device), round);
            store(device, 0);
            mirror.readback(0..1);
            assert_eq!(load(mirror.view()), 0);
        }
    });
}

#[test]
fn a_zero_that_the_host_wrote_over_garbage_counts() {
    with_fresh_mirror(3 * 4096, |mirror, device| {
        store(mirror.view(), 1);
        store(mirror.view(), 0);
        mirror.flush(0..mirror.len());
        assert_eq!(load(device), 0);
        mirror.share(0..mirror.len());
        store(mirror.view().wrapping_add(4096), 1);
        store(mirror.view().wrapping_add(4096), 0);
        mirror.flush(0..mirror.len());
        assert_eq!(load(device.wrapping_add(4096)), 0);
    });
}

#[test]
fn pages_become_shared_one_by_one() {
    with_fresh_mirror(5 * 4096, |mirror, device| {
        // Host bytes on every page, the device's beside them on two.
        for page in 0..5 {
            store(mirror.view().wrapping_add(page * 4096), 7);
        }
        mirror.flush(0..mirror.len());
        mirror.share(4096..2 * 4096 + 1);
        store(mirror.view().wrapping_add(4096 + 2), 8);
        store(device.wrapping_add(4096 + 1), 9);
        store(device.wrapping_add(2 * 4096 + 1), 9);
        mirror.flush(0..mirror.len());
        assert_eq!(read_back_all(mirror), Traffic { pages: shared(mirror), bytes: 2, ..Traffic::default() });
        for (at, wanted) in [(0, 7), (4096, 7), (4097, 9), (4098, 8), (8193, 9), (4 * 4096, 7)] {
            assert_eq!(
                (load(mirror.view().wrapping_add(at)), load(device.wrapping_add(at))),
                (wanted, wanted)
            );
        }
    });
}

fn shared(mirror: &Mirror) -> u64 {
    let state = mirror.state.hold();
    (0..5).filter(|&page| state.shared.contains(page)).count() as u64
}

/// The policy changes its mind about pages, and about the whole, in the middle of a stream of writes that races with flushes.
#[test]
fn no_write_is_lost_while_the_policy_changes_its_mind() {
    let tracker: Arc<dyn Tracker> = Arc::new(WriteProtect::new().unwrap());
    let arena = Arena::new(tracker);
    let costs = Costs::measure(&arena).unwrap();
    let pages = 128;
    let mut device = vec![0u8; pages * 4096];
    let memory = Device::Mapped(Box::new(Plain(device.as_mut_ptr(), device.len())));
    let mirror = Mirror::new(&arena, Some(costs), memory, Contents::Undefined).unwrap();
    let view = mirror.view() as usize;
    let mut untracked = 0;
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            for round in 1..=250u8 {
                // Dense in waves: the first half of the rounds writes all pages, the second a few.
                let step = if round % 100 < 50 { 1 } else { 29 };
                for page in (0..pages).step_by(step) {
                    store((view + page * 4096 + usize::from(round)) as *mut u8, round);
                }
                std::thread::sleep(std::time::Duration::from_micros(300));
            }
        });
        while !writer.is_finished() {
            untracked += mirror.flush(0..mirror.len()).untracked;
            // Long enough for most of a round's writes to fall into one flush.
            std::thread::sleep(std::time::Duration::from_micros(300));
        }
    });
    mirror.flush(0..mirror.len());
    assert!(untracked > 0, "the policy never copied anything unasked");
    for round in 1..=250u8 {
        let step = if round % 100 < 50 { 1 } else { 29 };
        for page in (0..pages).step_by(step) {
            assert_eq!(device[page * 4096 + usize::from(round)], round, "page {page}, round {round}");
        }
    }
}

#[test]
fn a_retired_mirror_leaves_device_memory_alone() {
    with_mirror(&[0; 4096], |mirror, device| {
        store(mirror.view(), 1);
        mirror.retire();
        assert_eq!(mirror.flush(0..4096), Traffic::default());
        assert_eq!(load(device), 0);
    });
}

#[test]
fn a_partial_last_page_ends_where_the_device_memory_ends() {
    with_mirror(&[0; 4100], |mirror, device| {
        store(mirror.view().wrapping_add(4099), 9);
        store(mirror.view().wrapping_add(4100), 9);
        assert_eq!(mirror.flush(0..usize::MAX).bytes, 1);
        assert_eq!(load(device.wrapping_add(4099)), 9);
    });
}

#[test]
fn writes_that_race_with_flushes_are_in_this_one_or_the_next() {
    with_mirror(&[0; 64 * 4096], |mirror, device| {
        let view = mirror.view() as usize;
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                for round in 1..=200u8 {
                    for page in 0..64 {
                        store((view + page * 4096 + usize::from(round)) as *mut u8, round);
                    }
                }
            });
            while !writer.is_finished() {
                mirror.flush(0..mirror.len());
            }
        });
        mirror.flush(0..mirror.len());
        for page in 0..64 {
            for round in 1..=200u8 {
                assert_eq!(load(device.wrapping_add(page * 4096 + usize::from(round))), round);
            }
        }
    });
}

#[test]
fn a_view_the_application_unmapped_under_us_is_compared_not_lost() {
    let tracker: Arc<dyn Tracker> = Arc::new(WriteProtect::new().unwrap());
    let arena = Arena::new(tracker);
    let mut device = vec![0u8; 8192];
    let memory = Device::Mapped(Box::new(Plain(device.as_mut_ptr(), 8192)));
    let mirror = Mirror::new(&arena, None, memory, Contents::Defined).unwrap();
    store(mirror.view(), 4);
    // The application does what it must not: it maps something else over its view.
    // SAFETY: the range is the view's, which only this test uses.
    unsafe {
        rustix::mm::munmap(mirror.view().wrapping_add(4096).cast(), 4096).unwrap();
    }
    mirror.flush(0..8192);
    assert_eq!(device[0], 4);
}
