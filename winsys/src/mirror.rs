//! The coherence state of one allocation.
//!
//! Invariant between calls: the twin holds the last bytes on which host view and device memory agreed. What
//! differs from it on the host's side is the host's and still to be flushed; what differs on the device's side
//! is the device's and still to be read back.
//!
//! A flush first clears the tracking, then reads the bytes. A write that races with it lands before the page
//! was read, and is in this flush, or marks the page again, and is in the next.

use crate::diff;
use crate::host_memory::{Arena, HostMemory};
use crate::page_size;
use crate::sync::LockExt;
use crate::tracker::{Span, Tracker};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// What one flush or readback moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Pages looked at: those the tracker reported, or the whole range for a readback.
    pub pages: u64,
    /// Bytes that had changed, and were copied.
    pub bytes: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.pages += other.pages;
        self.bytes += other.bytes;
    }
}

/// One allocation's host view, twin and device memory. May be used from any thread.
pub struct Mirror {
    host: HostMemory,
    device: *mut u8,
    len: usize,
    tracker: Arc<dyn Tracker>,
    state: Mutex<State>,
}

struct State {
    /// Whether the tracker watches the view. If not, every page counts as written.
    watched: bool,
    /// Kept for its capacity.
    written: Vec<Span>,
}

// SAFETY: `device` is an address; accesses through it are raw and made under the lock of `state`.
unsafe impl Send for Mirror {}
// SAFETY: as above.
unsafe impl Sync for Mirror {}

impl Mirror {
    /// A mirror of the `len` bytes of device memory at `device`, which the view shows from the start.
    ///
    /// # Errors
    /// No host memory left.
    ///
    /// # Safety
    /// `device` must stay valid for reads and writes of `len` bytes until the mirror is dropped. The device,
    /// and whoever shares its memory, may access them at any time.
    pub unsafe fn new(arena: &Arena, device: *mut u8, len: usize) -> io::Result<Self> {
        let host = arena.allocate(len)?;
        let tracker = arena.tracker().clone();
        let watched = match tracker.arm(host.span()) {
            Ok(()) => true,
            Err(error) => {
                log::error!(
                    "cannot track {len} bytes by {} ({error}): comparing them instead",
                    tracker.name()
                );
                false
            }
        };
        let state = Mutex::new(State { watched, written: Vec::new() });
        let mirror = Self { host, device, len, tracker, state };
        // View and twin are zeros: what the device memory holds already differs from them, and comes over.
        mirror.readback(0..len);
        Ok(mirror)
    }

    /// Where the application reads and writes. Valid until the mirror is dropped.
    pub fn view(&self) -> *mut u8 {
        self.host.view()
    }

    /// Bytes mirrored.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Brings what the host wrote to the device: at least the writes that happened before this call, to any
    /// page that `range` (bytes; clipped) touches.
    pub fn flush(&self, range: Range<usize>) -> Traffic {
        let pages = self.pages_around(range);
        let mut state = self.state.hold();
        let State { watched, written } = &mut *state;
        written.clear();
        let base = self.host.view() as usize;
        let span = base + pages.start..base + pages.end;
        if !*watched {
            written.push(span);
        } else if let Err(error) = self.tracker.collect(span, written) {
            // The kernel may have dropped part of the tracking (the application moved or unmapped the view,
            // say). From here on nothing is known: suspect everything, for good.
            log::error!(
                "lost track of {} bytes by {} ({error}): comparing them from now on",
                self.len,
                self.tracker.name()
            );
            *watched = false;
            written.clear();
            written.push(base + pages.start..base + pages.end);
        }
        let mut traffic = Traffic::default();
        for span in written.iter() {
            let start = span.start - base;
            let end = (span.end - base).min(self.len);
            traffic.pages += (span.len() / page_size()) as u64;
            // SAFETY: within `len`, for which all three are valid; the state's lock is held, so the twin is
            // ours alone.
            traffic.bytes += unsafe {
                diff::propagate(
                    self.host.alias().add(start),
                    self.host.twin().add(start),
                    self.device.add(start),
                    end - start,
                )
            } as u64;
        }
        traffic
    }

    /// Brings what the device wrote to the host view: at least what it had made visible in device memory
    /// before this call, in the pages that `range` (bytes; clipped) touches. Never looks like a host write.
    pub fn readback(&self, range: Range<usize>) -> Traffic {
        let pages = self.pages_around(range);
        let (start, end) = (pages.start, pages.end.min(self.len));
        if start >= end {
            return Traffic::default();
        }
        let _state = self.state.hold();
        // SAFETY: as in `flush`.
        let bytes = unsafe {
            diff::propagate(
                self.device.add(start),
                self.host.twin().add(start),
                self.host.alias().add(start),
                end - start,
            )
        };
        Traffic { pages: (pages.len() / page_size()) as u64, bytes: bytes as u64 }
    }

    fn pages_around(&self, range: Range<usize>) -> Range<usize> {
        let end = range.end.min(self.len).next_multiple_of(page_size());
        let start = (range.start / page_size() * page_size()).min(end);
        start..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::{Compare, WriteProtect};

    fn trackers() -> [Arc<dyn Tracker>; 2] {
        let write_protect = WriteProtect::new().expect("this kernel has no write-protect tracking");
        [Arc::new(Compare), Arc::new(write_protect)]
    }

    /// Runs `test` with each tracker, on a mirror of `device`.
    fn with_mirror(initial: &[u8], test: impl Fn(&Mirror, *mut u8)) {
        for tracker in trackers() {
            let mut device = initial.to_vec();
            let pointer = device.as_mut_ptr();
            // SAFETY: the vector outlives the mirror and is used through this pointer alone meanwhile.
            let mirror = unsafe { Mirror::new(&Arena::new(tracker), pointer, device.len()) }.unwrap();
            test(&mirror, pointer);
        }
    }

    fn load(at: *const u8) -> u8 {
        // SAFETY: the tests pass addresses inside live mirrors.
        unsafe { at.read_volatile() }
    }

    fn store(at: *mut u8, value: u8) {
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
            assert_eq!(mirror.flush(0..4096), Traffic { pages: 1, bytes: 1 });
            store(mirror.view().wrapping_add(10), 3);
            assert_eq!(mirror.readback(0..4096).bytes, 1);
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
        // SAFETY: the vector outlives the mirror.
        let mirror = unsafe { Mirror::new(&arena, device.as_mut_ptr(), 8192) }.unwrap();
        store(mirror.view(), 4);
        // The application does what it must not: it maps something else over its view.
        // SAFETY: the range is the view's, which only this test uses.
        unsafe {
            rustix::mm::munmap(mirror.view().wrapping_add(4096).cast(), 4096).unwrap();
        }
        mirror.flush(0..8192);
        assert_eq!(device[0], 4);
    }
}
