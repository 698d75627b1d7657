//! What the mirror must keep while threads race, and that it would be noticed if it did not.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::tracker::{Modelled, Rearm};
use super::{GARBAGE, LEN, MEMORY, PAGE, Region, free_device, load, store, use_device};
use crate::costs::Costs;
use crate::host_memory::Arena;
use crate::mirror::{Contents, CopiedMemory, Device, DeviceMemory, Mirror};
use crate::readback_policy::Readback;
use crate::tracker::{Compare, CopyAll, Tracker};
use loom::model;
use loom::sync::atomic::Ordering;
use loom::thread;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

struct Plain;

// SAFETY: all of the region is there, until it is freed.
unsafe impl DeviceMemory for Plain {
    fn address(&self) -> *mut u8 {
        Region::Device.address()
    }

    fn len(&self) -> usize {
        LEN
    }

    fn invalidate(&self, _: Range<usize>) {
        use_device();
    }

    fn flush(&self, _: Range<usize>) {
        use_device();
    }
}

/// The same region, for the asking.
struct Copied;

impl CopiedMemory for Copied {
    fn len(&self) -> usize {
        LEN
    }

    unsafe fn store(&self, ranges: &[Range<usize>], source: *const u8) {
        for at in ranges.iter().cloned().flatten() {
            store(Region::Device.address().wrapping_add(at), load(source.wrapping_add(at)));
        }
    }

    fn clear(&self, range: Range<usize>) {
        range.for_each(|at| store(Region::Device.address().wrapping_add(at), 0));
    }

    fn load(&self, ranges: &[Range<usize>], take: &mut dyn FnMut(usize, &[u8])) {
        for range in ranges {
            let staging = Region::Staging.address().wrapping_add(range.start);
            for at in range.clone() {
                let byte = load(Region::Device.address().wrapping_add(at));
                store(Region::Staging.address().wrapping_add(at), byte);
            }
            // SAFETY: addresses of a static, of which the mirror's diff takes nothing but the place.
            take(range.start, unsafe { std::slice::from_raw_parts(staging, range.len()) });
        }
    }

    fn retire(&self) {
        use_device();
    }
}

/// Bytes of the first page.
const FIRST: Range<usize> = 0..PAGE;

fn view(at: usize) -> *mut u8 {
    Region::View.address().wrapping_add(at)
}

/// Those of the first page.
fn host_bytes() -> [u8; PAGE] {
    [load(view(0)), load(view(1))]
}

/// What the device sees.
fn device_load(at: usize) -> u8 {
    MEMORY.device[at].load(Ordering::Relaxed)
}

/// The first page's.
fn device_bytes() -> [u8; PAGE] {
    [0, 1].map(device_load)
}

fn device_store(at: usize, value: u8) {
    MEMORY.device[at].store(value, Ordering::Relaxed);
}

fn exact() -> Modelled {
    Modelled::new(Rearm::AtOnce)
}

fn new_mirror(tracker: impl Tracker + 'static, contents: Contents) -> Arc<Mirror> {
    mirror_in(&Arena::new(Arc::new(tracker)), contents, Device::Mapped(Box::new(Plain)))
}

fn mirror_in(arena: &Arena, contents: Contents, device: Device) -> Arc<Mirror> {
    Arc::new(Mirror::new(arena, None, device, contents).unwrap())
}

/// Pages that are read back are held back until they are touched.
fn new_lazy_mirror(contents: Contents) -> Arc<Mirror> {
    let arena = Arena::new(Arc::new(exact())).reading_back(Readback::Lazy);
    mirror_in(&arena, contents, Device::Mapped(Box::new(Plain)))
}

fn new_copied_mirror(contents: Contents) -> Arc<Mirror> {
    mirror_in(&Arena::new(Arc::new(exact())), contents, Device::Copied(Box::new(Copied)))
}

/// Tries every interleaving of `test` with each tracker that is right, each way to read back and each form of device
/// memory, on memory that only the host writes so far and on memory that the device may write.
fn with_all(test: fn(Arc<Mirror>)) {
    for contents in [Contents::Undefined, Contents::Defined] {
        model(move || test(new_mirror(exact(), contents)));
        model(move || test(new_lazy_mirror(contents)));
        model(move || test(new_copied_mirror(contents)));
        model(move || test(new_mirror(Compare, contents)));
        model(move || test(new_mirror(CopyAll, contents)));
    }
}

/// Two writes to one byte and one to its neighbour, while another thread flushes.
fn write_during_a_flush(mirror: Arc<Mirror>) {
    let host = thread::spawn(|| {
        store(view(0), 1);
        store(view(1), 3);
        store(view(0), 2);
    });
    mirror.flush(FIRST);
    host.join().unwrap();
    mirror.flush(FIRST);
    assert_eq!(device_bytes(), [2, 3], "a write was lost");
}

#[test]
fn a_write_is_in_the_flush_it_races_with_or_in_the_next() {
    with_all(write_during_a_flush);
}

#[test]
#[should_panic(expected = "a write was lost")]
fn a_tracker_that_looks_before_it_clears_is_noticed() {
    model(|| write_during_a_flush(new_mirror(Modelled::new(Rearm::Afterwards), Contents::Undefined)));
}

#[test]
#[should_panic(expected = "a write was lost")]
fn a_tracker_that_clears_after_the_bytes_were_read_is_noticed() {
    model(|| write_during_a_flush(new_mirror(Modelled::new(Rearm::NextTime), Contents::Undefined)));
}

#[test]
fn whoever_flushes_finds_its_own_writes_at_the_device() {
    with_all(|mirror| {
        let other = mirror.clone();
        let other = thread::spawn(move || other.flush(0..LEN));
        store(view(1), 7);
        mirror.flush(FIRST);
        assert_eq!(device_bytes()[1], 7);
        other.join().unwrap();
    });
}

#[test]
fn host_and_device_keep_their_bytes_of_one_page() {
    with_all(|mirror| {
        mirror.share(FIRST);
        let host = thread::spawn(|| store(view(0), 1));
        let device = thread::spawn(|| device_store(1, 2));
        mirror.flush(FIRST);
        mirror.readback(FIRST);
        host.join().unwrap();
        device.join().unwrap();
        mirror.flush(FIRST);
        mirror.readback(FIRST);
        assert_eq!([device_bytes(), host_bytes()], [[1, 2]; 2]);
    });
}

#[test]
fn flushes_and_readbacks_may_run_at_once() {
    with_all(|mirror| {
        store(view(0), 1);
        mirror.share(FIRST);
        let waiter = {
            let mirror = mirror.clone();
            thread::spawn(move || {
                device_store(1, 2);
                mirror.readback(FIRST);
                assert_eq!(host_bytes(), [1, 2]);
            })
        };
        mirror.flush(FIRST);
        assert_eq!(device_bytes()[0], 1);
        waiter.join().unwrap();
        assert_eq!([device_bytes(), host_bytes()], [[1, 2]; 2]);
    });
}

#[test]
fn a_readback_is_no_write_of_the_host() {
    for new in [new_lazy_mirror, |contents| new_mirror(exact(), contents)] {
        model(move || {
            let mirror = new(Contents::Defined);
            let device = thread::spawn(|| device_store(1, 2));
            mirror.readback(FIRST);
            load(view(1));
            device.join().unwrap();
            mirror.readback(FIRST);
            assert_eq!(host_bytes()[1], 2);
            assert_eq!(mirror.flush(FIRST).pages, 0);
        });
    }
}

#[test]
fn whoever_touches_a_page_held_back_finds_it_up_to_date() {
    model(|| {
        let mirror = new_lazy_mirror(Contents::Defined);
        device_store(1, 2);
        mirror.readback(FIRST);
        let reader = thread::spawn(|| assert_eq!(host_bytes()[1], 2));
        let writer = thread::spawn(|| store(view(0), 1));
        mirror.flush(FIRST);
        reader.join().unwrap();
        writer.join().unwrap();
        mirror.flush(FIRST);
        assert_eq!([device_bytes(), host_bytes()], [[1, 2]; 2]);
    });
}

/// A page becomes shared, and the device writes it, while the host does. `before` comes first.
fn write_during_a_share(mirror: &Mirror, before: fn(&Mirror)) {
    before(mirror);
    // A zero is a write, too: the device may hold something else.
    let host = thread::spawn(|| store(view(0), 0));
    mirror.flush(FIRST);
    mirror.share(FIRST);
    device_store(1, 2);
    mirror.readback(FIRST);
    host.join().unwrap();
    assert_eq!(host_bytes(), [0, 2]);
    mirror.flush(FIRST);
    mirror.readback(FIRST);
    assert_eq!([device_bytes(), host_bytes()], [[0, 2]; 2]);
}

#[test]
fn a_page_may_become_shared_while_the_host_writes_it() {
    with_all(|mirror| write_during_a_share(&mirror, |_| ()));
    with_all(|mirror| {
        write_during_a_share(&mirror, |mirror| {
            store(view(0), 1);
            mirror.flush(FIRST);
        });
    });
}

/// A thread flushes, reads back and looks; another frees the device memory, after `before`.
fn free_during_a_flush(mirror: &Arc<Mirror>, before: fn(&Mirror)) {
    store(view(0), 1);
    let other = {
        let mirror = mirror.clone();
        thread::spawn(move || {
            mirror.flush(FIRST);
            mirror.share(FIRST);
            mirror.readback(FIRST);
            load(view(0));
        })
    };
    before(mirror);
    free_device();
    other.join().unwrap();
    assert_eq!(host_bytes()[0], 1);
}

#[test]
fn a_retired_mirror_leaves_the_device_alone() {
    with_all(|mirror| free_during_a_flush(&mirror, |mirror| _ = mirror.retire()));
}

#[test]
#[should_panic(expected = "Concurrent read and write accesses")]
fn a_mirror_that_is_not_retired_is_noticed() {
    with_all(|mirror| free_during_a_flush(&mirror, |_| ()));
}

/// Two writes race with the flush that comes after so many others: one to a page that is written each time, one to a page
/// that is not. Returns how many pages the flushes looked at, and how many they copied unasked.
fn write_after(flushes: u8, costs: Costs) -> [u64; 2] {
    static PAGES: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
    let store_to = |pages: &[usize], value| pages.iter().for_each(|page| store(view(page * PAGE), value));
    model(move || {
        let arena = Arena::new(Arc::new(exact()));
        let mirror =
            Mirror::new(&arena, Some(costs), Device::Mapped(Box::new(Plain)), Contents::Undefined).unwrap();
        for round in 0..flushes {
            store_to(&[1, 3, usize::from(round) % 2 * 4], round);
            mirror.flush(0..LEN);
        }
        let host = thread::spawn(move || store_to(&[1, 2], GARBAGE - 1));
        let traffic = mirror.flush(0..LEN);
        host.join().unwrap();
        mirror.flush(0..LEN);
        assert_eq!([1, 2].map(|page| device_load(page * PAGE)), [GARBAGE - 1; 2], "a write was lost");
        PAGES[0].fetch_add(traffic.pages, Ordering::Relaxed);
        PAGES[1].fetch_add(traffic.untracked, Ordering::Relaxed);
    });
    PAGES.each_ref().map(|pages| pages.swap(0, Ordering::Relaxed))
}

#[test]
fn no_write_is_lost_while_the_policy_changes_its_mind() {
    /// Enough for it to copy unasked, and to turn to the tracker again to see whether that still pays.
    const FLUSHES: u8 = 16;
    // It comes to copy the pages that are written each time; and all of them.
    let by_page = Costs { call: 0.1, look: 0.0, first: 0.0, fault: 0.0, dirty_bit: None, copy: 1.0 };
    let whole = Costs { fault: 100.0, ..by_page };
    for costs in [by_page, whole] {
        let [looked, unasked] = (0..FLUSHES)
            .map(|flushes| write_after(flushes, costs))
            .reduce(|one, other| [one[0] + other[0], one[1] + other[1]])
            .unwrap();
        assert!(looked > 0 && unasked > 0, "{costs:?}: {looked} pages looked at, {unasked} copied unasked");
    }
}
