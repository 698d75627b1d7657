//! The pager: who answers for pages that mirrors hold back.
//!
//! A page held back is not mapped in the view, and may not exist yet. The first touch of it, by the process or by the
//! kernel on its behalf, is a fault that waits for the pager's thread. That finds the mirror the page is of, which brings
//! in the bytes and has the page mapped. Nothing else can map it, so nobody sees the bytes of before, and nobody writes
//! meanwhile.
//!
//! What a page was to the tracker it stays: the kernel leaves a mark where an unwritten page was unmapped, and none
//! where a written one was. So a page is looked up just before it is mapped, and mapped as it is found.
//!
//! Every fault that arrives is answered, whatever became of the page in the meantime: those who wait are woken at
//! least, and then find for themselves. The thread starts with the first page that is held back, has all signals
//! blocked, as they are the application's, and ends with the tracker. It takes no lock but the pager's and one mirror's,
//! and does not allocate: the thread it answers may be anywhere, in an allocator as well.
//!
//! A forked child has neither the thread nor the faults: its mappings are plain again. A descriptor opened with
//! `UFFD_USER_MODE_ONLY` would not do: there system calls that touch a page held back fail with EFAULT. And those whom the
//! kernel does not let wait, debuggers that look into the process, get EIO in any case.

use crate::Span;
use crate::kernel::{self, Scan, faults};
use crate::page_size;
use crate::signals::with_signals_blocked;
use crate::sync::LockExt;
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::io::Errno;
use rustix::mm::Advice;
use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use tidemark_kmd_uapi::pagemap::PageRegion;
use tidemark_kmd_uapi::userfaultfd::Message;

/// Brings in the bytes of pages held back.
pub(crate) trait Provider: Send + Sync {
    /// Somebody waits for the page at this address. When this returns it is mapped, by [`Faults::map`], or is not this
    /// provider's any more.
    fn provide(&self, faults: &Faults, page: usize);
}

/// Has pages held back, by the userfaultfd of one tracker.
pub struct Pager {
    faults: Arc<Faults>,
    thread: Mutex<Option<Thread>>,
}

/// What pager and thread share.
pub(crate) struct Faults {
    /// The address space the descriptors speak of.
    home: u32,
    uffd: Arc<OwnedFd>,
    pagemap: Arc<OwnedFd>,
    providers: Mutex<Providers>,
}

#[derive(Default)]
struct Providers {
    /// By their first address.
    all: BTreeMap<usize, Provided>,
    /// Where pages may be held back that nobody answers for any more.
    abandoned: Vec<Span>,
}

struct Provided {
    /// The address past the last one.
    end: usize,
    provider: Box<dyn Provider>,
}

struct Thread {
    handle: JoinHandle<()>,
    stop: Arc<OwnedFd>,
}

impl Pager {
    /// For the regions that a tracker registers with this userfaultfd, which delivers faults.
    pub(crate) fn new(home: u32, uffd: Arc<OwnedFd>, pagemap: Arc<OwnedFd>) -> Self {
        let faults = Faults { home, uffd, pagemap, providers: Mutex::default() };
        Self { faults: Arc::new(faults), thread: Mutex::default() }
    }

    /// Whether this is the process that opened it.
    pub(crate) fn is_here(&self) -> bool {
        self.faults.home == kernel::address_space()
    }

    /// `provider` answers for `span` until it is removed. False if somebody answers for some of it already: pages that the
    /// application lends may be gone, and others in their place.
    pub(crate) fn add(&self, span: Span, provider: Box<dyn Provider>) -> bool {
        let mut providers = self.faults.providers.hold();
        let before = providers.all.range(..span.end).next_back();
        let is_free = before.is_none_or(|(_, other)| other.end <= span.start);
        if is_free {
            providers.all.insert(span.start, Provided { end: span.end, provider });
        }
        is_free
    }

    /// Forgets the provider of the span that starts there, and waits for what it is at.
    pub(crate) fn remove(&self, start: usize) {
        // In a forked child the lock may be held by a thread that is not there.
        if self.is_here() {
            self.faults.providers.hold().all.remove(&start);
        }
    }

    /// Pages of `span` may be held back, and something else be there by now. Whoever touches one of them gets it as it is.
    pub(crate) fn abandon(&self, span: Span) {
        self.faults.providers.hold().abandoned.push(span);
    }

    /// From here on pages of `span` can be held back. More than once is fine.
    ///
    /// # Errors
    /// The kernel's refusal, or no thread to be had.
    pub(crate) fn watch(&self, span: Span) -> io::Result<()> {
        self.start()?;
        faults::hold_back(&*self.faults.uffd, span)
    }

    /// Undoes [`watch`](Self::watch): every page can be touched again, and counts as written.
    ///
    /// # Errors
    /// The kernel's refusal: the span may then not be tracked any more.
    pub(crate) fn leave(&self, span: Span) -> io::Result<()> {
        faults::let_go(&*self.faults.uffd, span)
    }

    /// Holds back the pages of `span`, which is watched.
    ///
    /// # Errors
    /// The kernel's refusal, if the application locked them, say.
    pub(crate) fn hold_back(&self, span: Span) -> io::Result<()> {
        // SAFETY: pages of a view, which is shared memory: its bytes stay, only the mapping of them goes.
        unsafe { rustix::mm::madvise(at(span.start).cast(), span.len(), Advice::LinuxDontNeed) }?;
        Ok(())
    }

    fn start(&self) -> io::Result<()> {
        let mut thread = self.thread.hold();
        if thread.is_some() {
            return Ok(());
        }
        let stop = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?);
        let (faults, stopped) = (self.faults.clone(), stop.clone());
        let handle = with_signals_blocked(|| {
            let builder = thread::Builder::new().name("tidemark-pager".into()).stack_size(STACK);
            builder.spawn(move || faults.serve(&stopped))
        })?;
        *thread = Some(Thread { handle, stop });
        Ok(())
    }
}

/// Bytes of the thread's stack: what it calls is shallow, the backing driver's cache maintenance included.
const STACK: usize = 256 << 10;

impl Drop for Pager {
    fn drop(&mut self) {
        let is_here = self.is_here();
        let Some(Thread { handle, stop }) = self.thread.hold().take() else { return };
        if !is_here {
            // The thread is the parent's, and so is what stops it.
            mem::forget(handle);
            return;
        }
        // An eventfd takes 2^64 - 2 before it refuses, and the thread's code must not go before the thread: so both can
        // only succeed.
        let _ = rustix::io::write(&*stop, &1u64.to_ne_bytes());
        let _ = handle.join();
    }
}

impl Faults {
    /// The thread: answers until stopped.
    fn serve(&self, stop: &OwnedFd) {
        let mut messages = [Message::default(); 16];
        loop {
            let mut ready = [PollFd::new(&self.uffd, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            // If it fails nothing is lost but rest: reading tells whether something is there.
            let _ = rustix::event::poll(&mut ready, None);
            if ready[1].revents().contains(PollFlags::IN) {
                return;
            }
            for address in faults::read(&*self.uffd, &mut messages) {
                self.answer(address - address % page_size());
            }
        }
    }

    fn answer(&self, page: usize) {
        let providers = self.providers.hold();
        let is_answered = match providers.all.range(..=page).next_back() {
            Some((_, Provided { end, provider })) if page < *end => {
                // A thread that died would leave all others waiting.
                catch_unwind(AssertUnwindSafe(|| provider.provide(self, page))).is_ok()
            }
            _ => false,
        };
        if is_answered {
            return;
        }
        let is_abandoned = providers.abandoned.iter().any(|span| span.contains(&page));
        if !is_abandoned || kernel::unregister(&*self.uffd, page..page + page_size()).is_err() {
            self.wake(page);
        }
    }

    /// Lets those try again who wait for a page that is none of ours any more.
    pub(crate) fn wake(&self, page: usize) {
        // It fails only where the application unmapped the page, or mapped something over it: then nobody waits.
        let _ = faults::wake(&*self.uffd, page..page + page_size());
    }

    /// Maps pages of a view, whose bytes are up to date, and wakes those who wait for them. `alias` is the other mapping of
    /// the first page.
    pub(crate) fn map(&self, span: Span, alias: *mut u8) {
        let mut regions = [PageRegion::default(); 64];
        let alias_of = |address: usize| alias.wrapping_add(address - span.start);
        let mut mapped = span.start;
        let mut at = span.start;
        while at < span.end {
            let Ok((written, end)) = kernel::scan(&*self.pagemap, Scan::Look, at..span.end, &mut regions)
            else {
                break;
            };
            for written in written.iter().map(kernel::span_of) {
                self.map_run(mapped..written.start, true, alias_of(mapped));
                mapped = written.end;
                self.map_run(written.clone(), false, alias_of(written.start));
            }
            self.map_run(mapped..end, true, alias_of(mapped));
            (mapped, at) = (end, end);
        }
        // Tracking is lost, as the next flush will find: nothing may count as unwritten.
        self.map_run(mapped..span.end, false, alias_of(mapped));
    }

    /// Maps pages that are all written, or all not.
    fn map_run(&self, run: Span, protect: bool, alias: *mut u8) {
        let page = page_size();
        let mut start = run.start;
        let mut end = run.end;
        let mut is_new = true;
        while start < run.end {
            match faults::map(&*self.uffd, start..end, protect) {
                Ok(mapped) if mapped > 0 => {
                    start += mapped;
                    (end, is_new) = (run.end, true);
                }
                // It does not exist yet. Advice makes it, or fails, where a touch might be the process's end.
                Err(Errno::FAULT) if is_new => {
                    let alias = alias.wrapping_add(start - run.start);
                    // SAFETY: a page of the alias, whose bytes stay.
                    let _ = unsafe { rustix::mm::madvise(alias.cast(), page, Advice::LinuxPopulateRead) };
                    is_new = false;
                }
                // The application cut the mapping somewhere in there, by mprotect(2) say: one part at a time.
                Err(Errno::NOENT) if end - start > page => {
                    end = start + ((end - start) / page / 2) * page;
                }
                // It is mapped already, or cannot be.
                _ => {
                    self.wake(start);
                    start += page;
                    (end, is_new) = (run.end, true);
                }
            }
        }
    }
}

fn at(address: usize) -> *mut u8 {
    ptr::with_exposed_provenance_mut(address)
}
