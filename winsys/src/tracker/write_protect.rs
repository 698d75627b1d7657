//! Write-protect tracking on stock kernels: userfaultfd in its asynchronous mode, collected by
//! `PAGEMAP_SCAN`.
//!
//! The first write to a protected page costs a fault that the kernel resolves by itself: no signal, no
//! handler thread, nothing the application could notice. Writes by the kernel on the application's
//! behalf (`read(2)` into a mapping) fault alike. `UFFD_USER_MODE_ONLY` suffices, since none of these faults is ever
//! delivered, so no privilege is needed. With it, the same descriptor delivers the faults that a [`Pager`] answers.

use super::{Tracker, is_right};
use crate::Span;
use crate::kernel::{self, Scan, Unsupported, Userfaultfd};
use crate::page_size;
use crate::pager::Pager;
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tidemark_kmd_uapi::pagemap::PageRegion;

pub(super) const NAME: &str = "write-protect";

/// Regions fetched by one call: 6 KiB of stack, which is resident and untracked, as the kernel needs it
/// (it protects pages before it stores the result).
const REGIONS: usize = 256;

/// Tracks by write protection. Holds two file descriptors.
///
/// Both speak of the address space they were opened in. A forked child has them too, and would make its parent's
/// pages count as unwritten: there it refuses.
pub struct WriteProtect {
    home: u32,
    uffd: Arc<OwnedFd>,
    pagemap: Arc<OwnedFd>,
    /// Where the process may have the kernel's own faults delivered.
    pager: Option<Pager>,
}

impl WriteProtect {
    /// Opens the kernel's interfaces and tries them on a page of its own.
    ///
    /// # Errors
    /// What is missing, in words.
    pub fn new() -> Result<Self, Unsupported> {
        let home = kernel::address_space();
        let Userfaultfd { fd, delivers_faults } = kernel::open_userfaultfd()?;
        let (uffd, pagemap) = (Arc::new(fd), Arc::new(kernel::open_pagemap()?));
        let pager = delivers_faults.then(|| Pager::new(home, uffd.clone(), pagemap.clone()));
        let tracker = Self { home, uffd, pagemap, pager };
        prove(&tracker)?;
        Ok(tracker)
    }

    fn refuse_elsewhere(&self) -> io::Result<()> {
        if self.home == kernel::address_space() {
            return Ok(());
        }
        Err(io::Error::other("opened before a fork"))
    }

    fn scan(&self, span: Span, scan: Scan, mut report: impl FnMut(Span)) -> io::Result<()> {
        self.refuse_elsewhere()?;
        let mut regions = [PageRegion::default(); REGIONS];
        let mut at = span.start;
        // The vector may fill up before the end: an unscanned tail would be a lost write.
        while at < span.end {
            let (found, end) = kernel::scan(&*self.pagemap, scan, at..span.end, &mut regions)?;
            found.iter().map(kernel::span_of).for_each(&mut report);
            at = end;
        }
        Ok(())
    }
}

impl Tracker for WriteProtect {
    fn name(&self) -> &'static str {
        NAME
    }

    fn attach(&self, region: Span) -> io::Result<()> {
        self.refuse_elsewhere()?;
        kernel::register_write_protect(&*self.uffd, region)
    }

    fn detach(&self, region: Span) {
        if self.refuse_elsewhere().is_err() || kernel::unregister(&*self.uffd, region.clone()).is_ok() {
            return;
        }
        // Something else may have been mapped in there, with which userfaultfd has nothing to do: page by page, then.
        let pages = region.step_by(page_size()).map(|start| start..start + page_size());
        let left = pages.map(|page| kernel::unregister(&*self.uffd, page)).filter(Result::is_err).count();
        log::debug!("{left} pages could not be taken off write protection");
    }

    fn recognises(&self) -> bool {
        true
    }

    fn arm(&self, span: Span) -> io::Result<()> {
        // A page that is not protected yet reports as written, and is protected by that report.
        self.scan(span, Scan::Protect, |_| ())
    }

    fn collect(&self, span: Span, written: &mut Vec<Span>) -> io::Result<()> {
        self.scan(span, Scan::Protect, |region| written.push(region))
    }

    fn peek(&self, span: Span, written: &mut Vec<Span>) -> io::Result<()> {
        self.scan(span, Scan::Look, |region| written.push(region))
    }

    fn pager(&self) -> Option<&Pager> {
        self.pager.as_ref()
    }
}

/// Tries a tracker on two pages of its own: a written page is reported once, an unwritten one never.
fn prove(tracker: &WriteProtect) -> Result<(), Unsupported> {
    let trial = |e: rustix::io::Errno| Unsupported::Trial(e.into());
    let page = page_size();
    // Shared memory, like the host views.
    // SAFETY: a new mapping at an address the kernel chooses.
    let base = unsafe {
        rustix::mm::mmap_anonymous(
            std::ptr::null_mut(),
            2 * page,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
        )
    }
    .map_err(trial)?;
    let start = base as usize;
    let outcome = tracker.attach(start..start + 2 * page).and_then(|()| is_right(tracker, base.cast()));
    // SAFETY: the mapping above, which nothing refers to any more.
    unsafe { rustix::mm::munmap(base, 2 * page) }.map_err(trial)?;
    match outcome.map_err(Unsupported::Trial)? {
        true => Ok(()),
        false => Err(Unsupported::Wrong),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::host_memory::Arena;
    use crate::page_size;
    use std::sync::Arc;

    fn store(at: *mut u8) {
        // SAFETY: the tests below pass addresses inside a live host view.
        unsafe { at.write_volatile(1) }
    }

    fn written(tracker: &WriteProtect, span: Span) -> Vec<Span> {
        let mut spans = Vec::new();
        tracker.collect(span, &mut spans).unwrap();
        spans
    }

    #[test]
    fn reports_each_written_page_once() {
        let tracker = Arc::new(WriteProtect::new().expect("this kernel has no write-protect tracking"));
        let arena = Arena::new(tracker.clone());
        let page = page_size();
        let memory = arena.allocate(2048 * page).unwrap();
        let base = memory.view() as usize;
        tracker.arm(base..base + memory.len()).unwrap();
        assert_eq!(written(&tracker, base..base + memory.len()), []);

        // More scattered pages than one result vector holds.
        let odd: Vec<usize> = (0..1024).map(|i| 2 * i + 1).collect();
        for &index in &odd {
            store(memory.view().wrapping_add(index * page + 7));
        }
        let expected: Vec<Span> =
            odd.iter().map(|index| base + index * page..base + (index + 1) * page).collect();
        assert_eq!(written(&tracker, base..base + memory.len()), expected);
        assert_eq!(written(&tracker, base..base + memory.len()), []);
    }

    #[test]
    fn a_look_changes_nothing() {
        let tracker = Arc::new(WriteProtect::new().expect("this kernel has no write-protect tracking"));
        let arena = Arena::new(tracker.clone());
        let memory = arena.allocate(8 * page_size()).unwrap();
        let span = memory.span();
        tracker.arm(span.clone()).unwrap();
        store(memory.view().wrapping_add(3 * page_size()));
        let page = span.start + 3 * page_size()..span.start + 4 * page_size();
        for _ in 0..2 {
            let mut seen = Vec::new();
            tracker.peek(span.clone(), &mut seen).unwrap();
            assert!(seen.iter().eq([&page]), "{seen:?}");
        }
        assert!(written(&tracker, span).iter().eq([&page]));
    }

    #[test]
    fn reads_and_writes_through_the_alias_are_not_reported() {
        let tracker = Arc::new(WriteProtect::new().expect("this kernel has no write-protect tracking"));
        let arena = Arena::new(tracker.clone());
        let memory = arena.allocate(8 * page_size()).unwrap();
        let base = memory.view() as usize;
        tracker.arm(base..base + memory.len()).unwrap();
        store(memory.alias());
        // SAFETY: inside the live host view.
        assert_eq!(unsafe { memory.view().read_volatile() }, 1);
        assert_eq!(written(&tracker, base..base + memory.len()), []);
    }

    #[test]
    fn memory_that_is_not_watched_is_an_error_not_a_clean_page() {
        let tracker = Arc::new(WriteProtect::new().expect("this kernel has no write-protect tracking"));
        let arena = Arena::new(tracker.clone());
        let memory = arena.allocate(page_size()).unwrap();
        let alias = memory.alias() as usize;
        let error = tracker.collect(alias..alias + page_size(), &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_forked_child_does_not_clear_its_parent_s_tracking() {
        let tracker = Arc::new(WriteProtect::new().expect("this kernel has no write-protect tracking"));
        let arena = Arena::new(tracker.clone());
        let memory = arena.allocate(page_size()).unwrap();
        let span = memory.span();
        tracker.arm(span.clone()).unwrap();
        store(memory.view());
        // SAFETY: the child makes system calls and allocates, which glibc keeps usable.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let refused = tracker.arm(span.clone()).is_err()
                && tracker.collect(span.clone(), &mut Vec::new()).is_err()
                && tracker.attach(span).is_err();
            // SAFETY: ends the child without running anything of its parent's.
            unsafe { libc::_exit(if refused { 42 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: this process's child, and a place for its status.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(libc::WEXITSTATUS(status), 42);
        assert_eq!(written(&tracker, span.clone()), [span]);
    }
}
