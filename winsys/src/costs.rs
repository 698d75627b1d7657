//! What tracking and copying cost on this machine.

use crate::host_memory::Arena;
use crate::page_size;
use crate::tracker::{Method, Tracker};
use std::io;
use std::ptr;
use std::time::{Duration, Instant};

/// Prices, in nanoseconds. They are measured at start-up, and that of a copy at flushes, too: it depends on how large an
/// allocation is, and on what its pages are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// To ask the tracker, however little about.
    pub call: f32,
    /// .. and for each page that it looks at.
    pub look: f32,
    /// That anything at all was written to tracked pages since the last time: the kernel's ways are cold by then.
    pub first: f32,
    /// .. and for each page written: its fault, and to protect it again.
    pub fault: f32,
    /// By dirty bits: for each page that was ever written, to look whether it was again. `None` if there is no choice.
    pub dirty_bit: Option<f32>,
    /// To copy a page to the device.
    pub copy: f32,
}

/// Pages that are measured with: 2 MiB of 4 KiB pages.
const PAGES: usize = 512;

/// One in so many of them is written in the dearer trial: about as far apart as they are when tracking is worthwhile.
const STEP: usize = 8;

/// Trials of each kind. The median counts: whatever else runs makes some of them dearer, and luck makes some cheaper.
const TRIALS: usize = 5;

impl Costs {
    /// Measures on memory of `arena`, in a few milliseconds.
    ///
    /// # Errors
    /// No memory, or the tracker's refusal.
    pub fn measure(arena: &Arena) -> io::Result<Self> {
        let memory = arena.allocate(PAGES * page_size())?;
        let weather = arena.allocate(PAGES * page_size())?;
        let bench = Bench { tracker: &**memory.tracker(), view: memory.view(), weather: weather.alias() };
        bench.touch((0..PAGES).step_by(1));
        let mut trials: [[f32; TRIALS]; 5] = Default::default();
        for number in 0..TRIALS {
            let times = [
                bench.round(1, 0..0)?,
                bench.round(PAGES, 0..0)?,
                bench.round(PAGES, 0..1)?,
                bench.round(PAGES, 0..PAGES)?,
                bench.copy(memory.alias(), memory.twin()),
            ];
            for (trials, time) in trials.iter_mut().zip(times) {
                trials[number] = nanoseconds(time);
            }
        }
        let [one, none, single, many, copy] = trials.map(median);
        let dirty_bit = if bench.tracker.has_methods() { Some(bench.dirty_bit(one)?) } else { None };
        let look = ((none - one) / float(PAGES - 1)).max(0.0);
        let fault = ((many - single) / float(PAGES / STEP - 1)).max(0.0);
        Ok(Self {
            call: (one - look).max(0.0),
            look,
            first: (single - none - fault).max(0.0),
            fault,
            dirty_bit,
            copy: copy / float(PAGES),
        })
    }

    /// To look at the dirty bits of `pages`, in one call; `None` if they cannot be looked at.
    pub(crate) fn look_at_dirty_bits(&self, pages: usize) -> Option<f32> {
        self.dirty_bit.map(|dirty_bit| self.call + float(pages) * dirty_bit)
    }

    /// To ask about `pages` once.
    pub(crate) fn ask(&self, pages: usize) -> f32 {
        self.ask_in(1, pages)
    }

    /// To ask about `pages` in so many calls.
    pub(crate) fn ask_in(&self, calls: usize, pages: usize) -> f32 {
        float(calls) * self.call + float(pages) * self.look
    }

    /// To have tracked pages, `written` of which were written.
    pub(crate) fn track(&self, written: usize) -> f32 {
        if written == 0 { 0.0 } else { self.first + float(written) * self.fault }
    }

    /// To copy `pages`.
    pub(crate) fn copy(&self, pages: usize) -> f32 {
        float(pages) * self.copy
    }

    /// Pages that are as dear to copy as one more call to the tracker.
    pub(crate) fn worth_of_a_call(&self) -> usize {
        (0..PAGES).find(|&pages| self.copy(pages + 1) > self.call).unwrap_or(PAGES)
    }

    /// Takes in what copying `pages` in a flush just cost.
    pub(crate) fn observe_copy(&mut self, time: Duration, pages: u64) {
        // An eighth of the new value, and not much at once: the thread may have been preempted in the middle.
        let found = nanoseconds(time / u32::try_from(pages.max(1)).unwrap_or(u32::MAX));
        self.copy += (found.min(self.copy * 2.0) - self.copy) / 8.0;
    }
}

/// Tracked memory to try things on.
struct Bench<'a> {
    tracker: &'a dyn Tracker,
    view: *mut u8,
    /// As many pages, to fill the caches with.
    weather: *mut u8,
}

impl Bench<'_> {
    /// The time it takes to write one in [`STEP`] of `written` and to ask about the first `asked`, armed before.
    fn round(&self, asked: usize, written: std::ops::Range<usize>) -> io::Result<Duration> {
        let start = self.view as usize;
        self.tracker.arm(start..start + PAGES * page_size())?;
        // What an application does between two submits leaves little of the kernel's in the caches.
        // SAFETY: all of an allocation that nobody else knows.
        unsafe { ptr::write_bytes(self.weather, 1, PAGES * page_size()) };
        let mut found = Vec::with_capacity(PAGES);
        let start_time = Instant::now();
        self.touch(written.step_by(STEP));
        self.tracker.collect(start..start + asked * page_size(), &mut found)?;
        Ok(start_time.elapsed())
    }

    /// What a page costs by dirty bits, where one that is not written twice costs `one` to ask about.
    fn dirty_bit(&self, one: f32) -> io::Result<f32> {
        self.tracker.set_method(Method::DirtyBits)?;
        self.touch(0..PAGES);
        let mut trials = [0.0; TRIALS];
        for trial in &mut trials {
            *trial = nanoseconds(self.round(PAGES, 0..PAGES)?);
        }
        self.tracker.set_method(Method::Mkwrite)?;
        Ok(((median(trials) - one) / float(PAGES)).max(0.0))
    }

    fn touch(&self, pages: impl Iterator<Item = usize>) {
        for page in pages {
            // SAFETY: inside an allocation that nobody else knows.
            unsafe { self.view.add(page * page_size()).write_volatile(1) };
        }
    }

    fn copy(&self, from: *const u8, to: *mut u8) -> Duration {
        let start = Instant::now();
        // SAFETY: the same allocation's alias and twin, which do not overlap.
        unsafe { ptr::copy_nonoverlapping(from, to, PAGES * page_size()) };
        start.elapsed()
    }
}

fn median(mut trials: [f32; TRIALS]) -> f32 {
    trials.sort_unstable_by(f32::total_cmp);
    trials[TRIALS / 2]
}

fn nanoseconds(time: Duration) -> f32 {
    time.as_secs_f32() * 1e9
}

#[expect(clippy::cast_precision_loss, reason = "prices are estimates")]
fn float(count: usize) -> f32 {
    count as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::WriteProtect;
    use std::sync::Arc;

    #[test]
    fn prices_are_in_the_order_that_the_machine_s_ways_suggest() {
        let arena = Arena::new(Arc::new(WriteProtect::new().unwrap()));
        let costs = Costs::measure(&arena).unwrap();
        assert!(costs.fault > costs.look && costs.copy > costs.look && costs.call > costs.look, "{costs:?}");
        assert!(costs.track(0) == 0.0 && costs.track(2) > costs.track(1), "{costs:?}");
    }

    #[test]
    fn one_slow_flush_changes_the_price_of_a_copy_little() {
        let mut costs =
            Costs { call: 400.0, look: 1.0, first: 1000.0, fault: 700.0, dirty_bit: None, copy: 400.0 };
        costs.observe_copy(Duration::from_millis(10), 1);
        assert_eq!(costs.copy, 450.0);
        (0..100).for_each(|_| costs.observe_copy(Duration::from_nanos(20_000), 100));
        assert!((199.0..201.0).contains(&costs.copy), "{costs:?}");
        assert_eq!(costs.worth_of_a_call(), 1);
    }
}
