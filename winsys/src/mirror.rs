//! The coherence state of one allocation.
//!
//! Only the host writes most pages. Those need no twin: what the tracker reports is copied whole. A page becomes
//! *shared* before the device may write it for the first time, and stays so. From then on its twin holds the last
//! bytes on which host view and device memory agreed: what differs from it on the host's side is the host's and still
//! to be flushed; what differs on the device's side is the device's and still to be read back. Both may write
//! different bytes of one page at once.
//!
//! A flush first clears the tracking, then reads the bytes. A write that races with it lands before the page
//! was read, and is in this flush, or marks the page again, and is in the next.

use crate::diff;
use crate::host_memory::{Arena, HostMemory};
use crate::page_set::PageSet;
use crate::page_size;
use crate::policy::{BLOCK, Costs, Plan, Policy};
use crate::sync::LockExt;
use crate::tracker::{Span, Tracker};
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What one flush or readback moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Pages looked at: those the tracker reported, or those a readback compared.
    pub pages: u64,
    /// Pages copied without asking the tracker, as the policy had it.
    pub untracked: u64,
    /// Bytes that were copied: those that had changed, or whole pages that only the host writes.
    pub bytes: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.pages += other.pages;
        self.untracked += other.untracked;
        self.bytes += other.bytes;
    }
}

/// Device memory as the CPU reaches it.
///
/// # Safety
/// `address` must be valid for reads and writes of `len` bytes as long as this value lives, or until the mirror that
/// owns it is [retired](Mirror::retire). The device, and whoever shares its memory, may access them at any time.
pub unsafe trait DeviceMemory: Send + Sync {
    /// The first byte.
    fn address(&self) -> *mut u8;

    /// Bytes.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes what the device wrote to `range` (bytes) visible to the CPU. Nothing to do where the mapping is coherent.
    fn invalidate(&self, range: Range<usize>) {
        let _ = range;
    }

    /// Makes what the CPU wrote to `range` (bytes) visible to the device. Nothing to do where the mapping is coherent.
    fn flush(&self, range: Range<usize>) {
        let _ = range;
    }
}

/// One allocation's host view, twin and device memory. May be used from any thread.
pub struct Mirror {
    host: HostMemory,
    device: Box<dyn DeviceMemory>,
    len: usize,
    tracker: Arc<dyn Tracker>,
    state: Mutex<State>,
}

/// What a new mirror's device memory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Nothing anybody may rely on: it was allocated, and the device has not been told to write it.
    Undefined,
    /// Bytes that count.
    Defined,
}

struct State {
    /// Whether device memory may still be accessed.
    alive: bool,
    /// Whether the tracker watches the view. If not, every page counts as written.
    watched: bool,
    /// Pages that ever counted as written.
    touched: PageSet,
    /// Pages the device may write, which have a twin.
    shared: PageSet,
    /// What to ask the tracker about, and what to copy unasked. Without it everything is asked about.
    policy: Option<(Policy, Costs)>,
    /// Kept for its capacity.
    written: Vec<Span>,
}

impl Mirror {
    /// A mirror of device memory. If its contents are defined, the view shows them from the start.
    ///
    /// # Errors
    /// No host memory left.
    pub fn new(arena: &Arena, device: Box<dyn DeviceMemory>, contents: Contents) -> io::Result<Self> {
        let len = device.len();
        let host = arena.allocate(len)?;
        let tracker = arena.tracker().clone();
        let watched = match tracker.arm(host.span()) {
            Ok(()) => true,
            Err(error) => {
                log::error!("cannot track {len} bytes by {} ({error}): copying them instead", tracker.name());
                false
            }
        };
        let pages = host.len() / page_size();
        let (touched, mut shared) = (PageSet::new(pages), PageSet::new(pages));
        if contents == Contents::Defined {
            shared.insert(0..pages);
        }
        let policy = arena.costs().map(|costs| (Policy::new(pages), costs));
        let state = Mutex::new(State { alive: true, watched, touched, shared, policy, written: Vec::new() });
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
        let mut state = self.state.hold();
        if !state.alive {
            return Traffic::default();
        }
        let untracked = self.collect(self.pages_around(range), &mut state);
        let written = std::mem::take(&mut state.written);
        let mut traffic = Traffic { untracked, ..Traffic::default() };
        let start = Instant::now();
        for span in &written {
            let pages = self.pages_of(span);
            traffic.pages += pages.len() as u64;
            state.touched.insert(pages.clone());
            if self.tracker.compares() {
                traffic.bytes += self.share_pages(pages.clone(), &mut state);
            }
            for (run, is_shared) in state.shared.runs(pages) {
                traffic.bytes += self.flush_run(run, is_shared) as u64;
            }
        }
        if let Some((_, costs)) = &mut state.policy
            && traffic.pages >= BLOCK as u64
        {
            costs.observe_copy(start.elapsed(), traffic.pages);
        }
        traffic.pages -= untracked;
        state.written = written;
        traffic
    }

    /// Prepares the pages that `range` (bytes; clipped) touches for writes by the device: to be called before the
    /// device may write them. Host view, twin and device memory agree on them then, but for later writes.
    pub fn share(&self, range: Range<usize>) -> Traffic {
        let mut state = self.state.hold();
        if !state.alive {
            return Traffic::default();
        }
        let pages = self.pages_around(range);
        Traffic { bytes: self.share_pages(pages, &mut state), ..Traffic::default() }
    }

    /// Brings what the device wrote to the host view: at least what it had made visible in device memory
    /// before this call, in the shared pages that `range` (bytes; clipped) touches. Never looks like a host write.
    pub fn readback(&self, range: Range<usize>) -> Traffic {
        let state = self.state.hold();
        let mut traffic = Traffic::default();
        if !state.alive {
            return traffic;
        }
        for (run, is_shared) in state.shared.runs(self.pages_around(range)) {
            if !is_shared {
                continue;
            }
            traffic.pages += run.len() as u64;
            let bytes = self.bytes_of(run);
            self.device.invalidate(bytes.clone());
            // SAFETY: as in `flush_run`.
            traffic.bytes += unsafe {
                diff::propagate(
                    self.device.address().add(bytes.start),
                    self.host.twin().add(bytes.start),
                    self.host.alias().add(bytes.start),
                    bytes.len(),
                )
            } as u64;
        }
        traffic
    }

    /// Copies pages of one kind to the device, under the state's lock. Returns the bytes copied.
    fn flush_run(&self, run: Range<usize>, is_shared: bool) -> usize {
        let bytes = self.bytes_of(run);
        let host = self.host.alias().wrapping_add(bytes.start);
        let twin = self.host.twin().wrapping_add(bytes.start);
        let device = self.device.address().wrapping_add(bytes.start);
        let copied = if is_shared {
            // Where the mapping is not coherent, whole cache lines go out: they must hold what the device wrote.
            self.device.invalidate(bytes.clone());
            // SAFETY: `bytes_of` stays within `len`, for which all three are valid; the state's lock is held, so the
            // twin is ours alone.
            unsafe { diff::propagate(host, twin, device, bytes.len()) }
        } else {
            // SAFETY: as above. The device does not write these pages, so no byte of its is undone.
            unsafe { ptr::copy_nonoverlapping(host, device, bytes.len()) };
            bytes.len()
        };
        if copied > 0 {
            self.device.flush(bytes);
        }
        copied
    }

    /// Ends all access to device memory, and waits for what is in progress. The view stays.
    pub fn retire(&self) {
        self.state.hold().alive = false;
    }

    /// Finds what was written in `pages`, into `state.written`: what the tracker reports, and what the policy takes for
    /// written. Returns the number of the latter pages.
    fn collect(&self, pages: Range<usize>, state: &mut State) -> u64 {
        state.written.clear();
        if state.watched {
            match self.collect_tracked(pages.clone(), state) {
                Ok(untracked) => return untracked,
                Err(error) => {
                    // The kernel may have dropped part of the tracking (the application moved or unmapped the view,
                    // say). From here on nothing is known: suspect everything, for good.
                    log::error!(
                        "lost track of {} bytes by {} ({error}): copying them from now on",
                        self.len,
                        self.tracker.name()
                    );
                    state.watched = false;
                    state.written.clear();
                }
            }
        }
        if !pages.is_empty() {
            state.written.push(self.span_of(pages));
        }
        0
    }

    fn collect_tracked(&self, pages: Range<usize>, state: &mut State) -> io::Result<u64> {
        let State { policy, written, .. } = state;
        let Some((policy, costs)) = policy else {
            self.tracker.collect(self.span_of(pages), written)?;
            return Ok(0);
        };
        let mut untracked = 0;
        for (pages, plan) in policy.plan(pages) {
            let pages = pages.start..pages.end.min(self.host.len() / page_size());
            let span = self.span_of(pages.clone());
            match plan {
                Plan::Collect => {
                    let known = written.len();
                    self.tracker.collect(span, written)?;
                    policy.observe(written[known..].iter().map(|span| self.pages_of(span)), *costs);
                    continue;
                }
                // Before the copy: what is written after it must be seen.
                Plan::Arm => self.tracker.arm(span.clone())?,
                Plan::Copy => {}
            }
            untracked += pages.len() as u64;
            written.push(span);
        }
        Ok(untracked)
    }

    /// Makes host view, twin and device memory agree on those of `pages` that are not shared yet. Returns the bytes
    /// that took.
    fn share_pages(&self, pages: Range<usize>, state: &mut State) -> u64 {
        let fresh: Vec<Range<usize>> =
            state.shared.runs(pages).filter(|(_, is_shared)| !is_shared).map(|(run, _)| run).collect();
        let mut copied = 0;
        for run in fresh {
            state.shared.insert(run.clone());
            for (part, is_touched) in state.touched.runs(run) {
                let bytes = self.bytes_of(part);
                let device = self.device.address().wrapping_add(bytes.start);
                if is_touched {
                    let twin = self.host.twin().wrapping_add(bytes.start);
                    let host = self.host.alias().wrapping_add(bytes.start);
                    // SAFETY: as in `flush_run`. The device does not write these pages yet.
                    unsafe { diff::copy(host, twin, device, bytes.len()) };
                    copied += bytes.len() as u64;
                } else {
                    // The view still reads as zeros and the twin too; neither need occupy memory. If the host writes
                    // meanwhile, the tracker will tell, and the twin what.
                    // SAFETY: as above.
                    unsafe { diff::clear(device, bytes.len()) };
                }
                self.device.flush(bytes);
            }
        }
        copied
    }

    fn pages_around(&self, range: Range<usize>) -> Range<usize> {
        let end = range.end.min(self.len).div_ceil(page_size());
        (range.start / page_size()).min(end)..end
    }

    /// The view's addresses of pages.
    fn span_of(&self, pages: Range<usize>) -> Span {
        let base = self.host.view() as usize;
        base + pages.start * page_size()..base + pages.end * page_size()
    }

    /// The pages of a span of the view.
    fn pages_of(&self, span: &Span) -> Range<usize> {
        let base = self.host.view() as usize;
        (span.start - base) / page_size()..(span.end - base) / page_size()
    }

    /// The bytes of pages, without those past the end of the device memory.
    fn bytes_of(&self, pages: Range<usize>) -> Range<usize> {
        pages.start * page_size()..(pages.end * page_size()).min(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::{Compare, CopyAll, WriteProtect};

    /// A vector that outlives the mirror, and is used through this pointer alone meanwhile.
    struct Plain(*mut u8, usize);

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

    fn trackers() -> [Arc<dyn Tracker>; 3] {
        let write_protect = WriteProtect::new().expect("this kernel has no write-protect tracking");
        [Arc::new(Compare), Arc::new(CopyAll), Arc::new(write_protect)]
    }

    /// Runs `test` with each tracker, on a mirror of `device`, all of which the device may write.
    fn with_mirror(initial: &[u8], test: impl Fn(&Mirror, *mut u8)) {
        for tracker in trackers() {
            let mut device = initial.to_vec();
            let pointer = device.as_mut_ptr();
            let memory = Box::new(Plain(pointer, device.len()));
            let mirror = Mirror::new(&Arena::new(tracker), memory, Contents::Defined).unwrap();
            test(&mirror, pointer);
        }
    }

    /// Runs `test` with each tracker, on a mirror of memory with garbage in it.
    fn with_fresh_mirror(len: usize, test: impl Fn(&Mirror, *mut u8)) {
        for tracker in trackers() {
            let mut device = vec![0xEE; len];
            let pointer = device.as_mut_ptr();
            let memory = Box::new(Plain(pointer, device.len()));
            let mirror = Mirror::new(&Arena::new(tracker), memory, Contents::Undefined).unwrap();
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
            assert_eq!(mirror.flush(0..4096), Traffic { pages: 1, bytes: 1, untracked: 0 });
            assert_eq!(mirror.flush(0..4096).bytes, 0);
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
            assert_eq!(
                mirror.readback(0..mirror.len()),
                Traffic { pages: shared(mirror), bytes: 2, untracked: 0 }
            );
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

    /// The policy changes its mind about blocks in the middle of a stream of writes that races with flushes.
    #[test]
    fn no_write_is_lost_while_the_policy_changes_its_mind() {
        let tracker: Arc<dyn Tracker> = Arc::new(WriteProtect::new().unwrap());
        let arena = Arena::new(tracker).adaptive().unwrap();
        let pages = 8 * BLOCK;
        let mut device = vec![0u8; pages * 4096];
        let memory = Box::new(Plain(device.as_mut_ptr(), device.len()));
        let mirror = Mirror::new(&arena, memory, Contents::Undefined).unwrap();
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
        assert!(untracked > 0, "the policy never copied a block");
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
        let memory = Box::new(Plain(device.as_mut_ptr(), 8192));
        let mirror = Mirror::new(&arena, memory, Contents::Defined).unwrap();
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
