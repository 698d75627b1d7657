//! A view in place: what the application maps is the backing driver's own mapping, and no bytes are copied.
//!
//! Where that mapping is coherent there is nothing to do. Elsewhere what the host wrote is flushed, and what the device may
//! have written is invalidated, in whole atoms, as the backing driver has them. That is less than a
//! [`Mirror`](crate::Mirror) does:
//!
//! - Of what host and device write within one atom between two syncs, one is lost. So is what the host writes to a page
//!   while that is being read back: to invalidate a line is to drop what it holds.
//! - For these reasons a readback flushes first what the host is known to have written there.
//!
//! The tracker tells which pages the host wrote, if a trial shows that it sees writes to this mapping: the kernel says
//! nothing at all of some mappings of drivers. Pages that the device may write have a twin, which tells the atoms. Without
//! the tracker all pages do.

use crate::diff;
use crate::mirror::{DeviceMemory, Traffic};
use crate::page_set::PageSet;
use crate::policy::Treatment;
use crate::sync::{LockExt, Mutex};
use crate::tracker::Tracker;
use crate::views::Leave;
use crate::{HostView, Span, page_size};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// One allocation's mapping, and the twin of it. May be used from any thread.
pub struct InPlace {
    memory: Box<dyn DeviceMemory>,
    /// Bytes that are flushed and invalidated together; a page has a whole number of them.
    atom: usize,
    /// What tells which of the whole pages were written, if anything does.
    tracker: Option<Arc<dyn Tracker>>,
    state: Mutex<State>,
}

struct State {
    /// Whether the mapping may still be accessed.
    alive: bool,
    /// Pages the device may write, for which the twin holds the bytes as of their last sync.
    shared: PageSet,
    twin: Vec<u8>,
    /// Kept for its capacity.
    written: Vec<Span>,
}

impl InPlace {
    /// A view of `memory`, whose atoms are of `atom` bytes, a power of two not larger than a page.
    pub fn new(memory: Box<dyn DeviceMemory>, atom: usize, tracker: &Arc<dyn Tracker>) -> Self {
        let len = memory.len();
        let pages = len.div_ceil(page_size());
        let is_coherent = memory.is_coherent();
        let tracker = if is_coherent { None } else { watch(tracker, &*memory) };
        let mut shared = PageSet::new(pages);
        let mut twin = Vec::new();
        if !is_coherent {
            memory.invalidate(0..len);
            twin = vec![0; len];
            if tracker.is_none() {
                shared.insert(0..pages);
                // SAFETY: both are of this length. Nobody else has the mapping yet.
                unsafe { diff::overwrite(memory.address(), twin.as_mut_ptr(), len) };
            }
        }
        let state = Mutex::new(State { alive: true, shared, twin, written: Vec::new() });
        Self { memory, atom: atom.max(1), tracker, state }
    }

    /// Flushes what the host wrote to `pages`, as far as can be told.
    fn flush_pages(&self, pages: Range<usize>, state: &mut State) -> Traffic {
        let mut traffic = Traffic::default();
        let State { shared, twin, written, .. } = state;
        self.collect(pages, written);
        for span in written.drain(..) {
            let pages = self.pages_of(&span);
            traffic.pages += pages.len() as u64;
            for (run, is_shared) in shared.runs(pages) {
                let bytes = self.bytes_of(run);
                if is_shared {
                    traffic.bytes += self.flush_atoms(bytes, twin);
                } else {
                    traffic.bytes += bytes.len() as u64;
                    self.memory.flush(bytes);
                }
            }
        }
        traffic
    }

    /// Flushes the atoms that differ from the twin, which is then up to date. Returns the bytes that did.
    fn flush_atoms(&self, bytes: Range<usize>, twin: &mut [u8]) -> u64 {
        let mut atoms: Vec<Range<usize>> = Vec::new();
        let source = self.memory.address().wrapping_add(bytes.start);
        let target = twin[bytes.clone()].as_mut_ptr();
        let add = |run: Range<usize>| {
            let start = (bytes.start + run.start) / self.atom * self.atom;
            let end = (bytes.start + run.end).next_multiple_of(self.atom).min(self.memory.len());
            match atoms.last_mut() {
                Some(last) if start <= last.end => last.end = end,
                _ => atoms.push(start..end),
            }
        };
        // SAFETY: within both; the twin is ours alone, under the state's lock.
        let changed = unsafe { diff::update(source, target, bytes.len(), add) };
        atoms.into_iter().for_each(|atoms| self.memory.flush(atoms));
        changed as u64
    }

    /// Makes the twin of pages what the mapping holds.
    fn take_twin(&self, bytes: Range<usize>, twin: &mut [u8]) {
        let source = self.memory.address().wrapping_add(bytes.start);
        // SAFETY: within both; the twin is ours alone, under the state's lock.
        unsafe { diff::overwrite(source, twin[bytes.clone()].as_mut_ptr(), bytes.len()) };
    }

    /// Finds what was written in `pages`: what the tracker reports, and all that it does not watch.
    fn collect(&self, pages: Range<usize>, written: &mut Vec<Span>) {
        written.clear();
        let whole = self.memory.len() / page_size();
        let watched = pages.start..pages.end.min(whole).max(pages.start);
        let tracked = self.tracker.as_ref().is_some_and(|tracker| {
            let collected = tracker.collect(self.span_of(watched.clone()), written);
            collected
                .inspect_err(|error| {
                    log::error!("lost track of {:?}: {error}", self.span_of(watched.clone()))
                })
                .is_ok()
        });
        if !tracked {
            written.clear();
            written.push(self.span_of(pages));
        } else if watched.end < pages.end {
            // The last, which is not the mapping's to its end.
            written.push(self.span_of(watched.end..pages.end));
        }
    }

    fn pages_around(&self, range: Range<usize>) -> Range<usize> {
        let end = range.end.min(self.memory.len()).div_ceil(page_size());
        (range.start / page_size()).min(end)..end
    }

    fn span_of(&self, pages: Range<usize>) -> Span {
        let base = self.memory.address() as usize;
        base + pages.start * page_size()..base + pages.end * page_size()
    }

    fn pages_of(&self, span: &Span) -> Range<usize> {
        let base = self.memory.address() as usize;
        (span.start - base) / page_size()..(span.end - base) / page_size()
    }

    fn bytes_of(&self, pages: Range<usize>) -> Range<usize> {
        pages.start * page_size()..(pages.end * page_size()).min(self.memory.len())
    }
}

impl HostView for InPlace {
    fn view(&self) -> *mut u8 {
        self.memory.address()
    }

    fn tracker(&self) -> Option<&dyn Tracker> {
        self.tracker.as_deref()
    }

    fn treatment(&self) -> Option<Treatment> {
        None
    }

    fn flush(&self, range: Range<usize>) -> Traffic {
        let mut state = self.state.hold();
        if !state.alive || self.memory.is_coherent() {
            return Traffic::default();
        }
        self.flush_pages(self.pages_around(range), &mut state)
    }

    fn share(&self, range: Range<usize>) -> Traffic {
        let mut state = self.state.hold();
        let mut traffic = Traffic::default();
        if !state.alive || self.memory.is_coherent() {
            return traffic;
        }
        let State { shared, twin, .. } = &mut *state;
        let pages = self.pages_around(range);
        let fresh: Vec<Range<usize>> =
            shared.runs(pages).filter(|(_, is_shared)| !is_shared).map(|(run, _)| run).collect();
        for run in fresh {
            shared.insert(run.clone());
            let bytes = self.bytes_of(run);
            self.take_twin(bytes.clone(), twin);
            traffic.bytes += bytes.len() as u64;
            // What was written until now is in the twin, and will not differ from it: it goes to the device now.
            self.memory.flush(bytes);
        }
        traffic
    }

    fn readback(&self, range: Range<usize>) -> Traffic {
        let mut state = self.state.hold();
        let mut traffic = Traffic::default();
        if !state.alive || self.memory.is_coherent() {
            return traffic;
        }
        let pages = self.pages_around(range);
        let runs: Vec<Range<usize>> =
            state.shared.runs(pages).filter(|(_, is_shared)| *is_shared).map(|(run, _)| run).collect();
        for run in runs {
            self.flush_pages(run.clone(), &mut state);
            let bytes = self.bytes_of(run);
            self.memory.invalidate(bytes.clone());
            traffic.pages += bytes.len().div_ceil(page_size()) as u64;
            traffic.bytes += bytes.len() as u64;
            self.take_twin(bytes, &mut state.twin);
        }
        traffic
    }

    /// It is where the backing driver has it.
    unsafe fn place(&self, _address: *mut u8, _range: Range<usize>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn unplace(&self, _leave: Leave) -> io::Result<bool> {
        Ok(false)
    }

    fn paused(&self, change: &mut dyn FnMut()) {
        let _state = self.state.hold();
        change();
    }

    fn retire(&self) -> Traffic {
        let mut state = self.state.hold();
        if std::mem::replace(&mut state.alive, false)
            && let Some(tracker) = &self.tracker
        {
            tracker.detach(self.span_of(0..self.memory.len() / page_size()));
        }
        Traffic::default()
    }
}

/// The tracker, watching the whole pages of a mapping, if it can.
fn watch(tracker: &Arc<dyn Tracker>, memory: &dyn DeviceMemory) -> Option<Arc<dyn Tracker>> {
    let start = memory.address() as usize;
    let span = start..start + memory.len() / page_size() * page_size();
    if tracker.compares() || span.is_empty() || !start.is_multiple_of(page_size()) {
        return None;
    }
    let watched = tracker.attach(span.clone()).and_then(|()| {
        let is_seen = tracker.arm(span.clone()).and_then(|()| sees_writes(&**tracker, memory.address()));
        match is_seen {
            Ok(true) => Ok(()),
            outcome => {
                tracker.detach(span.clone());
                outcome.and(Err(io::Error::other("it does not see writes")))
            }
        }
    });
    watched
        .inspect_err(|error| {
            log::debug!("{span:?} cannot be tracked by {} ({error}): comparing", tracker.name())
        })
        .is_ok()
        .then(|| tracker.clone())
}

/// Whether a tracker that watches a page tells that it was written, and that it was not.
fn sees_writes(tracker: &dyn Tracker, page: *mut u8) -> io::Result<bool> {
    let span = page as usize..page as usize + page_size();
    let mut reports = [Vec::new(), Vec::new()];
    tracker.collect(span.clone(), &mut reports[0])?;
    // SAFETY: the first byte of the mapping, which nobody else has yet; it stays what it is.
    unsafe { page.write_volatile(page.read_volatile()) };
    tracker.collect(span.clone(), &mut reports[1])?;
    // One that takes every page for written is as right.
    Ok(reports[1].iter().eq([&span]))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
