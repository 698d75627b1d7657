//! Views: where the application reads and writes a mirror's bytes, and which pages it wrote there.
//!
//! The host memory's own view is there all the time. The application may have some of its pages mapped at an address of its
//! choice, one range at a time: a *placed* view, the same shared memory mapped once more, and watched likewise. It writes
//! the one that it has mapped at the moment. What it wrote into the other before still has to be reported, so both
//! are asked, and what was written into a placed view is noted when that goes. A tracker that sees every mapping of the
//! memory is asked once.
//!
//! To the mirror all of it looks as if it had been written into the host memory's own view.

use crate::Span;
use crate::mirror::Host;
use crate::page_set::PageSet;
use crate::page_size;
use crate::sync::{LockExt, Mutex};
use crate::tracker::{Method, Tracker};
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::{Arc, OnceLock};

/// What is left at the address of a placed view when it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Nothing: the kernel may map something else there.
    Nothing,
    /// Pages that nobody may touch, so that the kernel keeps off.
    Reservation,
}

/// The views of one mirror, and their tracker. Used under the mirror's lock.
pub(crate) struct Views {
    tracker: Arc<dyn Tracker>,
    host: Arc<Host>,
    /// From the first placed view on.
    others: OnceLock<Mutex<Others>>,
}

struct Others {
    placed: Option<Placed>,
    /// Pages that were written, and not reported yet.
    written: PageSet,
}

struct Placed {
    /// Of its first byte.
    address: usize,
    /// The mirror's pages that it shows.
    pages: Range<usize>,
}

impl Placed {
    fn span(&self) -> Span {
        self.address..self.address + self.pages.len() * page_size()
    }

    /// The part of its span that shows some of `pages`.
    fn span_of(&self, pages: &Range<usize>) -> Span {
        let (first, last) = (self.pages.start, self.pages.end);
        let [from, to] = [pages.start, pages.end].map(|page| page.clamp(first, last) - first);
        self.address + from * page_size()..self.address + to * page_size()
    }

    /// The pages that a part of its span shows.
    fn pages_of(&self, span: &Span) -> Range<usize> {
        let page = |address: usize| self.pages.start + (address - self.address) / page_size();
        page(span.start)..page(span.end)
    }
}

impl Views {
    /// Of a host side that `tracker` watches.
    pub(crate) fn new(tracker: Arc<dyn Tracker>, host: Arc<Host>) -> Self {
        Self { tracker, host, others: OnceLock::new() }
    }

    /// What watches the host memory's own view.
    pub(crate) fn tracker(&self) -> &dyn Tracker {
        &*self.tracker
    }

    /// As [`Tracker::name`].
    pub(crate) fn name(&self) -> &'static str {
        self.tracker.name()
    }

    /// As [`Tracker::compares`].
    pub(crate) fn compares(&self) -> bool {
        self.tracker.compares()
    }

    /// As [`Tracker::set_method`].
    pub(crate) fn set_method(&self, method: Method) -> io::Result<()> {
        self.tracker.set_method(method)
    }

    /// As [`Tracker::arm`], for a span of the host memory's own view.
    pub(crate) fn arm(&self, span: Span) -> io::Result<()> {
        self.tracker.arm(span.clone())?;
        match self.others().map(LockExt::hold).as_deref() {
            Some(Others { placed: Some(placed), .. }) => {
                self.tracker.arm(placed.span_of(&self.pages_of(&span)))
            }
            _ => Ok(()),
        }
    }

    /// As [`Tracker::collect`], likewise.
    pub(crate) fn collect(&self, span: Span, written: &mut Vec<Span>) -> io::Result<()> {
        let Some(others) = self.others() else { return self.tracker.collect(span, written) };
        let mut others = others.hold();
        let mut found = Vec::new();
        self.tracker.collect(span.clone(), &mut found)?;
        found.iter().for_each(|found| others.written.insert(self.pages_of(found)));
        let pages = self.pages_of(&span);
        others.collect_placed(&*self.tracker, &pages)?;
        written.extend(self.written(&others, pages.clone()));
        others.written.remove(pages);
        Ok(())
    }

    /// As [`Tracker::collect_parts`], likewise.
    pub(crate) fn collect_parts(&self, parts: &[Span], written: &mut Vec<Span>) -> io::Result<()> {
        match self.others() {
            None => self.tracker.collect_parts(parts, written),
            Some(_) => parts.iter().try_for_each(|part| self.collect(part.clone(), written)),
        }
    }

    /// Whether there is a placed view.
    pub(crate) fn is_placed(&self) -> bool {
        self.others.get().is_some_and(|others| others.hold().placed.is_some())
    }

    /// Maps `pages` at `address`, too, instead of what is there.
    ///
    /// # Errors
    /// There is a placed view already, the address is not that of a page, or the kernel refuses. In the last case what was
    /// there may be gone.
    ///
    /// # Safety
    /// The application must give these addresses away.
    pub(crate) unsafe fn place(&self, address: *mut u8, pages: Range<usize>) -> io::Result<()> {
        let all = self.host.len() / page_size();
        if address.is_null() || !(address as usize).is_multiple_of(page_size()) || pages.end > all {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let others = || Mutex::new(Others { placed: None, written: PageSet::new(all) });
        let mut others = self.others.get_or_init(others).hold();
        if others.placed.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        // The application's own pages are where it put them.
        let own = self.host.own().ok_or(io::ErrorKind::Unsupported)?;
        let bytes = pages.start * page_size()..pages.end * page_size();
        // SAFETY: the caller's promise.
        unsafe { own.map_at(address, bytes) }?;
        let placed = Placed { address: address as usize, pages };
        let watch = || self.tracker.attach(placed.span()).and_then(|()| self.tracker.arm(placed.span()));
        if !self.tracker.sees_every_mapping()
            && let Err(error) = watch()
        {
            // The next `collect` fails, and what cannot be collected counts as written.
            log::warn!("a placed view cannot be tracked by {}: {error}", self.tracker.name());
        }
        others.placed = Some(placed);
        Ok(())
    }

    /// Ends the placed view. False if there is none.
    ///
    /// # Errors
    /// The kernel's refusal: the view then stays.
    pub(crate) fn unplace(&self, leave: Leave) -> io::Result<bool> {
        let Some(others) = self.others.get() else { return Ok(false) };
        let mut others = others.hold();
        let Some(Placed { pages, .. }) = &others.placed else { return Ok(false) };
        let pages = pages.clone();
        if !self.tracker.sees_every_mapping() && others.collect_placed(&*self.tracker, &pages).is_err() {
            others.written.insert(pages);
        }
        let Some(placed) = &others.placed else { return Ok(false) };
        let at = ptr::with_exposed_provenance_mut(placed.address);
        let len = placed.span().len();
        // SAFETY: the view's own mapping, which the application has done with.
        unsafe {
            match leave {
                Leave::Nothing => rustix::mm::munmap(at, len),
                Leave::Reservation => {
                    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
                    rustix::mm::mmap_anonymous(at, len, ProtFlags::empty(), flags).map(|_| ())
                }
            }
        }?;
        others.placed = None;
        Ok(true)
    }

    /// What is not told by asking about the host memory's own view.
    fn others(&self) -> Option<&Mutex<Others>> {
        self.others.get().filter(|_| !self.tracker.sees_every_mapping())
    }

    /// Spans of the host memory's own view.
    fn written(&self, others: &Others, pages: Range<usize>) -> impl Iterator<Item = Span> {
        let base = self.host.view() as usize;
        let runs = others.written.runs(pages).filter(|(_, is_written)| *is_written);
        runs.map(move |(run, _)| base + run.start * page_size()..base + run.end * page_size())
    }

    /// The pages of such a span.
    fn pages_of(&self, span: &Span) -> Range<usize> {
        let page = |address: usize| (address - self.host.view() as usize) / page_size();
        page(span.start)..page(span.end)
    }
}

impl Others {
    /// Notes what was written of `pages` into the placed view.
    fn collect_placed(&mut self, tracker: &dyn Tracker, pages: &Range<usize>) -> io::Result<()> {
        let Some(placed) = &self.placed else { return Ok(()) };
        let mut found = Vec::new();
        tracker.collect(placed.span_of(pages), &mut found)?;
        found.iter().for_each(|found| self.written.insert(placed.pages_of(found)));
        Ok(())
    }
}
