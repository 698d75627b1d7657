//! Lazy readback: pages that the device may have written are held back, and brought in when they are touched.
//!
//! A readback unmaps its pages in the view, and that is all; the bytes stay as they are. The first touch of a page
//! waits for the pager's thread, which reads back a window of pages as an eager readback would have, and maps them. So a
//! round costs what the host looks at. The bytes may be of later than the readback, as those of memory that is truly
//! coherent would be.
//!
//! - A *stale* page was held back and not fetched since: unmapped, hence neither read nor written. A second readback
//!   holds back only what is not stale, and a flush finds in it what was written before, as in any page.
//! - Faults on pages of a mirror that are not stale come here too, once some of it was held back: never mapped
//!   yet, or reclaimed by the kernel. They are mapped as they are.
//! - It ends with the device memory: from [`Mirror::retire`](super::Mirror::retire) on no fault comes here.
//!
//! A forked child, in which pages do not fault, reads back at once, and first what was stale.

use super::host::Host;
use super::{Device, State, Traffic};
use crate::Span;
use crate::page_set::PageSet;
use crate::page_size;
use crate::pager::{Faults, Pager, Provider};
use crate::readback_policy::{Readback, ReadbackPolicy};
use crate::sync::{LockExt, Mutex};
use crate::tracker::Tracker;
use log::Level;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pages in the first window of a streak, and in the largest. A fault costs as much as to compare ten or twenty pages, so
/// the first could well be larger; but hosts that read a word here and there pay for all of it. Measured on 41 pages of
/// 4096: first windows of 1, 2, 4 and 16 pages take 276, 305, 362 and 650 us if they are scattered, 90, 83, 77 and 63 us
/// in a row.
const WINDOWS: Range<usize> = 2..512;

/// Pages between two parts that are unmapped along with them though they are unmapped already: looking at so many costs
/// about what another call would.
const GAP: usize = 512;

/// What a mirror's state has of it.
pub(super) struct Lazy {
    policy: ReadbackPolicy,
    /// Pages that were held back and not fetched since.
    stale: PageSet,
    /// Pages whose faults come here.
    watched: Range<usize>,
    /// The window fetched last.
    window: Range<usize>,
    /// What faults brought in since it was last told.
    fetched: Traffic,
    /// Pages that may still be held back, but were lost.
    lost: Option<Span>,
}

impl Lazy {
    /// For a mirror of `pages` of `device` that `tracker` watches; `None` if all its readbacks are eager. Those of copied memory are:
    /// the copy would wait for the device, and for locks of the backing driver's, while a thread that holds one of them may
    /// be waiting for the page.
    pub(super) fn new(
        tracker: &Arc<dyn Tracker>,
        readback: Readback,
        device: &Device,
        pages: usize,
    ) -> Option<Self> {
        tracker.pager().filter(|_| matches!(device, Device::Mapped(_)))?;
        let policy = ReadbackPolicy::new(readback, pages)?;
        let stale = PageSet::new(pages);
        Some(Self { policy, stale, watched: 0..0, window: 0..0, fetched: Traffic::default(), lost: None })
    }

    /// What faults brought in since the last call.
    pub(super) fn take_fetched(&mut self) -> Traffic {
        std::mem::take(&mut self.fetched)
    }

    /// Pages were read back eagerly, `compared` of them; in so long, if it was measured.
    pub(super) fn observe_eager(&mut self, pages: Range<usize>, compared: u64, time: Option<Duration>) {
        self.stale.remove(pages);
        if let Some(time) = time {
            self.policy.observe_comparison(time, usize::try_from(compared).unwrap_or(usize::MAX));
        }
    }

    /// The pages to map for a touch of `page`, all stale or none. A touch right behind the last window doubles it: so
    /// whoever reads everything soon meets few faults, and whoever reads here and there gets few pages.
    fn next_window(&mut self, page: usize) -> (Range<usize>, bool) {
        let is_streak = page == self.window.end;
        let len = if is_streak { self.window.len() * 2 } else { 0 };
        let end = (page + len.clamp(WINDOWS.start, WINDOWS.end)).min(self.watched.end);
        let window = self.stale.first_run(page..end).unwrap_or((page..page + 1, false));
        self.window = window.0.clone();
        window
    }
}

/// Where the bytes of a mirror are.
#[derive(Clone)]
struct Places {
    host: Arc<Host>,
    device: Arc<Device>,
    len: usize,
}

impl Places {
    fn span_of(&self, pages: Range<usize>) -> Span {
        let base = self.host.view() as usize;
        base + pages.start * page_size()..base + pages.end * page_size()
    }

    /// Reads pages back. Returns what that moved.
    fn fetch(&self, pages: Range<usize>) -> Traffic {
        let bytes = pages.start * page_size()..(pages.end * page_size()).min(self.len);
        let bytes = self.device.fetch(&self.host, std::iter::once(bytes)) as u64;
        let pages = pages.len() as u64;
        Traffic { pages, bytes, fetched: pages, ..Traffic::default() }
    }
}

/// A mirror's end of the pager: from its creation to its end, on trackers that have one.
pub(super) struct Deferral {
    tracker: Arc<dyn Tracker>,
    places: Places,
    state: Arc<Mutex<State>>,
}

impl Deferral {
    /// `None` if the mirror is never lazy.
    pub(super) fn new(
        tracker: &Arc<dyn Tracker>,
        host: &Arc<Host>,
        device: &Arc<Device>,
        state: &Arc<Mutex<State>>,
    ) -> Option<Self> {
        let pager = tracker.pager()?;
        state.hold().lazy.as_ref()?;
        let places = Places { host: host.clone(), device: device.clone(), len: device.len() };
        let provider = Window { places: places.clone(), state: state.clone() };
        let is_ours = pager.add(host.span(), Box::new(provider));
        is_ours.then(|| Self { tracker: tracker.clone(), places, state: state.clone() })
    }

    /// Puts off a readback of the shared ones among `pages`, if that is cheaper. False if it must be done now.
    pub(super) fn defer(&self, pages: Range<usize>, state: &mut State) -> bool {
        let State { shared, lazy: Some(lazy), .. } = state else { return false };
        if lazy.watched.is_empty() && !lazy.policy.considers(pages.len()) {
            return false;
        }
        let Some(pager) = self.tracker.pager() else { return false };
        if !pager.is_here() {
            self.fetch_all(lazy);
            return false;
        }
        if !self.places.host.verify(&self.places.host.span()) {
            // What came in the place of the application's pages is not to be emptied.
            return false;
        }
        let runs = || shared.runs(pages.clone()).filter(|(_, is_shared)| *is_shared).map(|(run, _)| run);
        let count = runs().map(|run| run.len()).sum();
        if !lazy.policy.is_lazy(count) {
            return false;
        }
        let start = Instant::now();
        for run in runs() {
            if let Err(error) = self.hold_back(pager, run, lazy) {
                // What the application brings need not be of a kind that can be held back.
                let is_news = lazy.policy.is_forced() && self.places.host.own().is_some();
                let level = if is_news { Level::Warn } else { Level::Debug };
                log::log!(
                    level,
                    "cannot put off reading back {:?} ({error}): reading it back eagerly from now on",
                    self.places.host.span()
                );
                lazy.policy.give_up();
                return false;
            }
        }
        lazy.policy.observe_unmapping(start.elapsed(), count);
        true
    }

    /// Holds back those of a run of pages that are not stale.
    fn hold_back(&self, pager: &Pager, run: Range<usize>, lazy: &mut Lazy) -> io::Result<()> {
        let Range { start, end } = lazy.watched.clone();
        if !(start..end).contains(&run.start) || run.end > end {
            let watched = if start == end { run.clone() } else { start.min(run.start)..end.max(run.end) };
            // Even if only a part of it comes to be watched.
            lazy.watched = watched.clone();
            pager.watch(self.places.span_of(watched))?;
        }
        let mut fresh = lazy.stale.runs(run.clone()).filter(|(_, is_stale)| !is_stale).map(|(part, _)| part);
        let mut next = fresh.next();
        while let Some(mut part) = next {
            next = fresh.next();
            while let Some(other) = next.take_if(|other| other.start - part.end <= GAP) {
                part.end = other.end;
                next = fresh.next();
            }
            pager.hold_back(self.places.span_of(part))?;
        }
        drop(fresh);
        lazy.stale.insert(run);
        Ok(())
    }

    /// Reads back all that is stale: from here on no page is held back, until more is put off.
    pub(super) fn fetch_stale(&self, state: &mut State) {
        if let Some(lazy) = &mut state.lazy {
            self.fetch_all(lazy);
        }
    }

    /// Reads back all that is stale.
    fn fetch_all(&self, lazy: &mut Lazy) {
        let all = 0..self.places.host.len() / page_size();
        for (run, _) in lazy.stale.runs(all.clone()).filter(|(_, is_stale)| *is_stale) {
            self.places.fetch(run);
        }
        lazy.stale.remove(all);
    }

    /// No page is held back any more, and every touch is an ordinary one, until more is put off. What was put off so far is
    /// done before, as the pages outlive the mirror.
    pub(super) fn rest(&self, state: &mut State) {
        let State { lazy: Some(lazy), .. } = state else { return };
        let Some(pager) = self.tracker.pager().filter(|pager| pager.is_here()) else { return };
        if lazy.watched.is_empty() {
            return;
        }
        self.fetch_all(lazy);
        self.leave(pager, lazy);
    }

    fn leave(&self, pager: &Pager, lazy: &mut Lazy) {
        let span = self.places.span_of(lazy.watched.clone());
        if !self.places.host.verify(&span) {
            // What came in the place of pages that are gone is nothing to leave.
            lazy.watched = 0..0;
            lazy.lost = Some(span);
            return;
        }
        match pager.leave(span) {
            Ok(()) => lazy.watched = 0..0,
            Err(error) => {
                log::error!("cannot stop watching {:?} for touches: {error}", self.places.host.span())
            }
        }
    }

    /// Ends it: no page is held back, and every touch is an ordinary one. If the kernel does not let go, they are still
    /// answered for.
    pub(super) fn end(&self, state: &mut State) {
        let State { lazy: Some(lazy), .. } = state else { return };
        let Some(pager) = self.tracker.pager() else { return };
        lazy.policy.give_up();
        lazy.stale.remove(0..self.places.host.len() / page_size());
        if lazy.watched.is_empty() || !pager.is_here() {
            return;
        }
        self.leave(pager, lazy);
    }
}

impl Drop for Deferral {
    fn drop(&mut self) {
        let (is_over, lost) = {
            let mut state = self.state.hold();
            self.end(&mut state);
            let lazy = state.lazy.as_mut();
            lazy.map_or((true, None), |lazy| (lazy.watched.is_empty(), lazy.lost.take()))
        };
        // Otherwise the provider stays, and the host memory with it: nobody else may have pages that fault.
        if let Some(pager) = self.tracker.pager().filter(|_| is_over) {
            if let Some(lost) = lost {
                pager.abandon(lost);
            }
            pager.remove(self.places.host.view() as usize);
        }
    }
}

/// What the pager's thread has of a mirror. It works under the mirror's lock, so that no page is held back, flushed or
/// retired meanwhile.
struct Window {
    places: Places,
    state: Arc<Mutex<State>>,
}

impl Provider for Window {
    fn provide(&self, faults: &Faults, page: usize) {
        let mut state = self.state.hold();
        // It may have ended while the fault waited: then nothing is stale, and whatever can be mapped is.
        let page = (page - self.places.host.view() as usize) / page_size();
        let Some(lazy) = &mut state.lazy else { return };
        let start = Instant::now();
        let (window, is_stale) = lazy.next_window(page);
        let count = window.len();
        self.bring(faults, window, is_stale, lazy);
        if lazy.policy.observe_fault(start.elapsed(), count) {
            let mut rest = lazy.watched.clone();
            while let Some((run, is_stale)) = lazy.stale.first_run(rest.clone()) {
                rest.start = run.end;
                if is_stale {
                    self.bring(faults, run, true, lazy);
                }
            }
        }
    }
}

impl Window {
    /// Maps pages, and reads them back before if they are stale.
    fn bring(&self, faults: &Faults, pages: Range<usize>, is_stale: bool, lazy: &mut Lazy) {
        if is_stale {
            let start = Instant::now();
            let fetched = self.places.fetch(pages.clone());
            lazy.policy.observe_comparison(start.elapsed(), pages.len());
            lazy.stale.remove(pages.clone());
            lazy.fetched += fetched;
        }
        let Some(alias) = self.places.host.alias() else { return };
        let alias = alias.wrapping_add(pages.start * page_size());
        faults.map(self.places.span_of(pages), alias);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
