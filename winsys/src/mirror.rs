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

mod device;
mod host;
mod lazy;
mod placed;

use crate::Span;
use crate::costs::Costs;
use crate::host_memory::Arena;
use crate::page_set::PageSet;
use crate::page_size;
use crate::policy::{Plan, Policy, Switch, Treatment};
use crate::readback_policy::{MEASURED, Readback};
use crate::sync::{LockExt, Mutex};
use crate::tracker::Tracker;
use crate::user_memory::UserMemory;
use crate::views::Views;
pub(crate) use host::Host;
use lazy::{Deferral, Lazy};
use std::io;
use std::ops::{AddAssign, Range};
use std::sync::Arc;
use std::time::Instant;

pub use device::{CopiedMemory, Device, DeviceMemory};

/// What one flush or readback moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Pages looked at: those the tracker reported, or those a readback compared.
    pub pages: u64,
    /// Pages copied without asking the tracker, as the policy had it.
    pub untracked: u64,
    /// Bytes that were copied: those that had changed, or whole pages that only the host writes.
    pub bytes: u64,
    /// What the policy made of it, if that is news.
    pub switch: Option<Switch>,
    /// Pages that were brought in when they were touched, since the last call that tells. They count as looked at, too.
    pub fetched: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.pages += other.pages;
        self.untracked += other.untracked;
        self.bytes += other.bytes;
        self.fetched += other.fetched;
    }
}

/// One allocation's host view, twin and device memory. May be used from any thread.
pub struct Mirror {
    /// First, so that it ends before what it works on.
    deferral: Option<Deferral>,
    host: Arc<Host>,
    device: Arc<Device>,
    len: usize,
    tracker: Views,
    state: Arc<Mutex<State>>,
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
    policy: Option<Policy>,
    /// What of the device's writes is put off. Without it nothing is.
    lazy: Option<Lazy>,
    /// Flushes so far.
    flushes: u32,
    /// Kept for their capacity.
    written: Vec<Span>,
    plans: Vec<(Range<usize>, Plan)>,
    asked: Vec<Span>,
    runs: Vec<Range<usize>>,
}

/// One in so many flushes has its copying timed, if it is of as many pages: the clock costs as much as one page.
const TIMED: u32 = 8;

impl Mirror {
    /// A mirror of device memory. If its contents are defined, the view shows them from the start. Given what tracking
    /// costs, it copies unasked what is cheaper to copy than to track.
    ///
    /// # Errors
    /// No host memory left.
    pub fn new(arena: &Arena, costs: Option<Costs>, device: Device, contents: Contents) -> io::Result<Self> {
        let host = arena.allocate(device.len())?;
        let tracker = host.tracker().clone();
        let watched = match tracker.arm(host.span()) {
            Ok(()) => true,
            Err(error) => {
                let len = device.len();
                log::error!("cannot track {len} bytes by {} ({error}): copying them instead", tracker.name());
                false
            }
        };
        let lazy = Lazy::new(&tracker, arena.readback(), &device, host.len() / page_size());
        let mirror = Self::with(tracker, costs, device, Host::Own(host), watched, lazy);
        if contents == Contents::Defined {
            let mut state = mirror.state.hold();
            state.shared.insert(mirror.pages_around(0..mirror.len));
            drop(state);
            // View and twin are zeros: what the device memory holds already differs from them, and comes over.
            mirror.readback(0..mirror.len);
        }
        Ok(mirror)
    }

    /// A mirror of device memory whose host view are pages of the application's, as long as they are lent. All their bytes
    /// count as written.
    ///
    /// # Errors
    /// No host memory left.
    pub fn of_user_memory(
        arena: &Arena,
        costs: Option<Costs>,
        device: Device,
        mut user: UserMemory,
    ) -> io::Result<Self> {
        let beside = arena.allocate_shared(device.len())?;
        let watched = user.is_watched();
        // Other processes that share the pages would not see what is put off: so it is, only if it was asked for.
        let readback = Some(arena.readback()).filter(|readback| *readback == Readback::Lazy);
        let pages = user.span().len() / page_size();
        let lazy = readback.and_then(|readback| Lazy::new(arena.tracker(), readback, &device, pages));
        let lazy = lazy.filter(|_| user.make_alias());
        let host = Host::of_user(user, beside);
        let mirror = Self::with(arena.tracker().clone(), costs, device, host, watched, lazy);
        // What the device memory holds is nobody's; and the view need not read as zeros.
        mirror.state.hold().touched.insert(mirror.pages_around(0..mirror.len));
        Ok(mirror)
    }

    fn with(
        tracker: Arc<dyn Tracker>,
        costs: Option<Costs>,
        device: Device,
        host: Host,
        watched: bool,
        lazy: Option<Lazy>,
    ) -> Self {
        let pages = device.len().div_ceil(page_size());
        let state = State {
            alive: true,
            watched,
            touched: PageSet::new(pages),
            shared: PageSet::new(pages),
            policy: costs.map(|costs| Policy::new(pages, costs, tracker.has_methods())),
            lazy,
            flushes: 0,
            written: Vec::new(),
            plans: Vec::new(),
            asked: Vec::new(),
            runs: Vec::new(),
        };
        let (host, device, state) = (Arc::new(host), Arc::new(device), Arc::new(Mutex::new(state)));
        let deferral = Deferral::new(&tracker, &host, &device, &state);
        let tracker = Views::new(tracker, host.clone());
        Self { deferral, len: device.len(), host, device, tracker, state }
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

    /// What tells which of its pages were written.
    pub fn tracker(&self) -> &dyn Tracker {
        self.tracker.tracker()
    }

    /// The application's pages that it shows are lent again, after a while in which nobody used it. False if they are not
    /// the same any more. What may have been written unseen counts as written.
    pub fn resume(&self) -> bool {
        let _state = self.state.hold();
        self.host.resume()
    }

    /// The application's pages that it shows go back, for good or for a while: none of them is held back any more.
    pub fn rest(&self) {
        let mut state = self.state.hold();
        if let Some(deferral) = &self.deferral {
            deferral.rest(&mut state);
        }
    }

    /// How it is treated; `None` if everything is asked about.
    pub fn treatment(&self) -> Option<Treatment> {
        self.state.hold().policy.as_ref().map(Policy::treatment)
    }

    /// Brings what the host wrote to the device: at least the writes that happened before this call, to any
    /// page that `range` (bytes; clipped) touches.
    pub fn flush(&self, range: Range<usize>) -> Traffic {
        let mut state = self.state.hold();
        if !state.alive || self.host.is_lost() {
            return Traffic::default();
        }
        let Some(mut traffic) = self.collect(self.pages_around(range), &mut state) else {
            return Traffic::default();
        };
        let written = std::mem::take(&mut state.written);
        let untracked = traffic.untracked;
        state.flushes = state.flushes.wrapping_add(1);
        let start = (state.policy.is_some() && state.flushes.is_multiple_of(TIMED)).then(Instant::now);
        for span in &written {
            let pages = self.pages_of(span);
            traffic.pages += pages.len() as u64;
            state.touched.insert(pages.clone());
            if self.tracker.compares() {
                traffic.bytes += self.share_pages(pages.clone(), &mut state);
            }
            let State { shared, runs, watched, .. } = &mut *state;
            for (run, is_shared) in shared.runs(pages) {
                let is_read = self.host.read(self.bytes_of(run), |host, bytes| {
                    traffic.bytes += if is_shared {
                        self.device.propagate(host, bytes, runs)
                    } else {
                        self.device.overwrite(host, bytes.clone());
                        bytes.len()
                    } as u64;
                });
                // What was not read is still to be flushed, and no tracker tells that.
                *watched &= is_read;
            }
        }
        if let (Some(policy), Some(start)) = (&mut state.policy, start)
            && traffic.pages >= u64::from(TIMED)
        {
            policy.costs().observe_copy(start.elapsed(), traffic.pages);
        }
        traffic.pages -= untracked;
        state.written = written;
        traffic
    }

    /// Prepares the pages that `range` (bytes; clipped) touches for writes by the device: to be called before the
    /// device may write them. Host view, twin and device memory agree on them then, but for later writes.
    pub fn share(&self, range: Range<usize>) -> Traffic {
        let mut state = self.state.hold();
        if !state.alive || self.host.is_lost() {
            return Traffic::default();
        }
        let pages = self.pages_around(range);
        Traffic { bytes: self.share_pages(pages, &mut state), ..Traffic::default() }
    }

    /// Brings what the device wrote to the host view: at least what it had made visible in device memory
    /// before this call, in the shared pages that `range` (bytes; clipped) touches. Never looks like a host write. It may
    /// only see to it that these pages are brought in when they are touched.
    pub fn readback(&self, range: Range<usize>) -> Traffic {
        let mut state = self.state.hold();
        let state = &mut *state;
        let mut traffic = Traffic::default();
        if !state.alive || self.host.is_lost() {
            return traffic;
        }
        let pages = self.pages_around(range);
        let deferral = self.deferral.as_ref().filter(|_| !self.tracker.is_placed());
        if !deferral.is_some_and(|deferral| deferral.defer(pages.clone(), state)) {
            // Fewer pages tell nothing, and the clock costs as much as one of them.
            let start = (state.lazy.is_some() && pages.len() >= MEASURED).then(Instant::now);
            let shared = state.shared.runs(pages.clone()).filter(|(_, is_shared)| *is_shared);
            let runs = shared.map(|(run, _)| run).inspect(|run| traffic.pages += run.len() as u64);
            traffic.bytes = self.device.fetch(&self.host, runs.map(|run| self.bytes_of(run))) as u64;
            if let Some(lazy) = &mut state.lazy {
                lazy.observe_eager(pages, traffic.pages, start.map(|start| start.elapsed()));
            }
        }
        if let Some(lazy) = &mut state.lazy {
            traffic += lazy.take_fetched();
        }
        traffic
    }

    /// Makes a change to what leads to the device memory, while nothing accesses that by way of the mirror.
    pub fn paused(&self, change: &mut dyn FnMut()) {
        let _state = self.state.hold();
        change();
    }

    /// Ends all access to device memory, and waits for what is in progress. The view stays. Returns what touched pages
    /// brought in that no readback told.
    pub fn retire(&self) -> Traffic {
        let mut state = self.state.hold();
        if let (None, Some(deferral)) = (self.host.own(), &self.deferral) {
            deferral.rest(&mut state);
        }
        if std::mem::replace(&mut state.alive, false) {
            self.device.retire();
        }
        if let Some(deferral) = &self.deferral {
            deferral.end(&mut state);
        }
        state.lazy.as_mut().map(Lazy::take_fetched).unwrap_or_default()
    }

    /// Finds what was written in `pages`, into `state.written`: what the tracker reports, and what the policy takes for
    /// written. Returns the number of the latter pages, and what is new about the policy; `None` if the pages were lost.
    fn collect(&self, pages: Range<usize>, state: &mut State) -> Option<Traffic> {
        state.written.clear();
        let span = self.span_of(pages.clone());
        if state.watched {
            if !self.host.verify_before_scan(&span) {
                return None;
            }
            match self.collect_tracked(pages.clone(), state) {
                // What was not asked about may be something else by now.
                Ok(traffic) if traffic.untracked == 0 || self.host.verify(&span) => return Some(traffic),
                Ok(_) => return None,
                Err(error) => {
                    if !self.host.verify(&span) {
                        return None;
                    }
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
        if pages.is_empty() {
            return Some(Traffic::default());
        }
        let is_there = self.host.verify(&span);
        state.written.push(span);
        is_there.then(Traffic::default)
    }

    fn collect_tracked(&self, pages: Range<usize>, state: &mut State) -> io::Result<Traffic> {
        let State { policy, written, plans, asked, .. } = state;
        let Some(policy) = policy else {
            self.tracker.collect(self.span_of(pages), written)?;
            return Ok(Traffic::default());
        };
        if let Some(method) = policy.plan(pages, plans) {
            self.tracker.set_method(method)?;
        }
        let to_ask = plans.iter().filter(|(_, plan)| *plan == Plan::Collect);
        asked.clear();
        asked.extend(to_ask.map(|(pages, _)| self.span_of(pages.clone())));
        self.tracker.collect_parts(asked, written)?;
        let mut found = &written[..];
        for part in &*asked {
            let here;
            (here, found) = found.split_at(found.partition_point(|span| span.start < part.end));
            policy.observe(self.pages_of(part), here.iter().map(|span| self.pages_of(span)));
        }
        let mut untracked = 0;
        for (pages, plan) in plans.drain(..).filter(|(_, plan)| *plan != Plan::Collect) {
            untracked += pages.len() as u64;
            let span = self.span_of(pages);
            // Before the copy: what is written after it must be seen.
            if plan == Plan::Arm {
                self.tracker.arm(span.clone())?;
            }
            written.push(span);
        }
        Ok(Traffic { untracked, switch: policy.conclude(), ..Traffic::default() })
    }

    /// Makes host view, twin and device memory agree on those of `pages` that are not shared yet. Returns the bytes
    /// that took.
    fn share_pages(&self, pages: Range<usize>, state: &mut State) -> u64 {
        let fresh: Vec<Range<usize>> =
            state.shared.runs(pages).filter(|(_, is_shared)| !is_shared).map(|(run, _)| run).collect();
        let mut copied = 0;
        for run in fresh {
            if !self.host.verify(&self.span_of(run.clone())) {
                return copied;
            }
            state.shared.insert(run.clone());
            for (part, is_touched) in state.touched.runs(run) {
                let bytes = self.bytes_of(part);
                let agree = |host, bytes: Range<usize>| {
                    copied += bytes.len() as u64;
                    self.device.agree(host, bytes);
                };
                if is_touched && !self.host.read(bytes.clone(), agree) {
                    // Twin and device agree at least, and the flush that can read what the host has will tell.
                    state.watched = false;
                    self.device.overwrite(self.host.last_synced(), bytes);
                } else if !is_touched {
                    // The view still reads as zeros and the twin too; neither need occupy memory. If the host writes
                    // meanwhile, the tracker will tell, and the twin what.
                    self.device.clear(bytes);
                }
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
#[cfg(not(loom))]
mod tests;
