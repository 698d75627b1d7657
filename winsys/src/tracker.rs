//! Trackers: ways to learn which pages the CPU wrote.
//!
//! | tracker | learns by | needs |
//! | --- | --- | --- |
//! | `mkwrite` | write faults that a kernel driver remembers | an [object](crate::drm) of the driver's |
//! | `dirty-bits` | the MMU's dirty bits, which a kernel driver reads: no faults | likewise; an object can change between both |
//! | [`WriteProtect`] | write faults the kernel resolves and remembers | Linux 6.7, nothing privileged |
//! | [`Compare`] | nothing: every page is suspected, and a twin decides | nothing |
//! | [`CopyAll`] | nothing: every page is taken for written | nothing |
//!
//! A tracker may report a page that was not written; it must never miss one that was. Reporting a page
//! and starting to watch it anew is one atomic step per page: a write lands before it, and is in this
//! report, or after it, and is in the next.

mod compare;
mod copy_all;
mod write_protect;

use crate::Span;
use crate::page_size;
use crate::pager::Pager;
use std::fmt;
use std::io;
use std::sync::Arc;

pub use tidemark_kmd_uapi::tidemark_drm::Counters;

pub use compare::Compare;
pub use copy_all::CopyAll;
pub use write_protect::WriteProtect;

/// Parts from which on one look at all of them comes first: most of them turn out unwritten, and need not be asked about one
/// by one.
const PEEK: usize = 3;

/// A way to learn which pages of a region were written. All methods may be called from any thread. One that does not say
/// otherwise watches nothing, and takes every page for written.
pub trait Tracker: Send + Sync {
    /// Its name in `TIDEMARK_TRACKER`, the log and the profile.
    fn name(&self) -> &'static str;

    /// Whether its reports are so coarse that a twin should decide even for pages that only the host writes.
    fn compares(&self) -> bool {
        false
    }

    /// Prepares a fresh mapping for watching, once, before any [`arm`](Self::arm) inside it.
    ///
    /// # Errors
    /// The kernel's refusal: then no page of `region` may be armed.
    fn attach(&self, region: Span) -> io::Result<()> {
        let _ = region;
        Ok(())
    }

    /// Undoes [`attach`](Self::attach), as far as it can: whoever has the memory next may be watched for nothing. Parts of
    /// `region` that are not attached any more are left alone.
    fn detach(&self, region: Span) {
        let _ = region;
    }

    /// Whether it knows a mapping that was attached from one that came in its place: by [`peek`](Self::peek) and
    /// [`collect`](Self::collect), which fail on the latter.
    fn recognises(&self) -> bool {
        false
    }

    /// Starts to watch: every page of `span` counts as unwritten from here on.
    ///
    /// # Errors
    /// The kernel's refusal; the pages are then in an unknown state and must be taken for written.
    fn arm(&self, span: Span) -> io::Result<()> {
        let _ = span;
        Ok(())
    }

    /// Appends the pages written since they were last armed or collected, in ascending order, and goes
    /// on watching them.
    ///
    /// # Errors
    /// The kernel's refusal; every page of `span` must then be taken for written.
    fn collect(&self, span: Span, written: &mut Vec<Span>) -> io::Result<()> {
        written.push(span);
        Ok(())
    }

    /// [`collect`](Self::collect) for parts of a region, in ascending order and apart from each other.
    ///
    /// # Errors
    /// As there, for all parts.
    fn collect_parts(&self, parts: &[Span], written: &mut Vec<Span>) -> io::Result<()> {
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return Ok(()) };
        if parts.len() < PEEK {
            return parts.iter().try_for_each(|part| self.collect(part.clone(), written));
        }
        let mut seen = Vec::new();
        self.peek(first.start..last.end, &mut seen)?;
        let mut seen = seen.into_iter().peekable();
        parts.iter().try_for_each(|part| {
            while seen.next_if(|seen| seen.end <= part.start).is_some() {}
            match seen.peek() {
                Some(seen) if seen.start < part.end => self.collect(part.clone(), written),
                _ => Ok(()),
            }
        })
    }

    /// Appends the pages that [`collect`](Self::collect) would, and leaves them as they are.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn peek(&self, span: Span, written: &mut Vec<Span>) -> io::Result<()> {
        written.push(span);
        Ok(())
    }

    /// Whether it reports what is written to any mapping of the same memory, and not only to the one it is asked about.
    fn sees_every_mapping(&self) -> bool {
        false
    }

    /// Whether it can go by either [method](Self::set_method), as it is told. It begins with [`Method::Mkwrite`].
    fn has_methods(&self) -> bool {
        false
    }

    /// Goes by another method from here on. What was written before is still reported.
    ///
    /// # Errors
    /// `Unsupported` where there is no choice; otherwise the kernel's refusal: then it goes on as before.
    fn set_method(&self, method: Method) -> io::Result<()> {
        let _ = method;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// What watching has cost so far, where a kernel driver counts.
    fn counters(&self) -> Option<Counters> {
        None
    }

    /// Who can hold back pages that it watches, until they are touched. `None` if nobody can.
    fn pager(&self) -> Option<&Pager> {
        None
    }
}

/// Ways in which a kernel driver learns what is written to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Pages are write-protected: a fault for each page that is written, once a round. The other pages cost nothing.
    Mkwrite,
    /// Dirty bits: no faults, but a round looks at each page that was ever written.
    DirtyBits,
}

impl Method {
    /// Its name in `TIDEMARK_TRACKER`, the log and the profile.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mkwrite => "mkwrite",
            Self::DirtyBits => "dirty-bits",
        }
    }
}

/// What `TIDEMARK_TRACKER` can ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The cheapest that works here.
    #[default]
    Auto,
    /// [`Method::Mkwrite`].
    Mkwrite,
    /// [`Method::DirtyBits`].
    DirtyBits,
    /// [`WriteProtect`].
    WriteProtect,
    /// [`Compare`].
    Compare,
    /// [`CopyAll`].
    CopyAll,
}

impl Choice {
    /// Every value, in the order of preference.
    pub const ALL: [Self; 6] =
        [Self::Auto, Self::Mkwrite, Self::DirtyBits, Self::WriteProtect, Self::Compare, Self::CopyAll];
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Mkwrite => Method::Mkwrite.name(),
            Self::DirtyBits => Method::DirtyBits.name(),
            Self::WriteProtect => write_protect::NAME,
            Self::Compare => compare::NAME,
            Self::CopyAll => copy_all::NAME,
        })
    }
}

/// The tracker to use on stock kernels. A kernel that cannot do what was asked gets [`Compare`], which is slower and
/// right, and the log says so.
pub fn select(choice: Choice) -> Arc<dyn Tracker> {
    match choice {
        Choice::Compare => return Arc::new(Compare),
        Choice::CopyAll => return Arc::new(CopyAll),
        Choice::Auto | Choice::Mkwrite | Choice::DirtyBits | Choice::WriteProtect => {}
    }
    match WriteProtect::new() {
        Ok(tracker) => Arc::new(tracker),
        Err(reason) => {
            log::warn!(
                "no write-protect tracking: {reason}; every mapped page is compared at every sync point instead \
                 (slower, still right). `tidemark doctor` tells what to do"
            );
            Arc::new(Compare)
        }
    }
}

/// Tries a tracker on two pages at `base`, which it watches and nobody else has: whether a page that is written is reported
/// once, and one that is not never.
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn is_right(tracker: &dyn Tracker, base: *mut u8) -> io::Result<bool> {
    let page = page_size();
    let span = base as usize..base as usize + 2 * page;
    // SAFETY: the first byte of each page, which the caller gave for this. Of a page without a page table Linux 6.12
    // forgets that it is armed; once a neighbour's is made, it counts as written.
    unsafe { [0, page].into_iter().for_each(|at| base.add(at).write_volatile(1)) };
    tracker.arm(span.clone())?;
    let mut rounds = [Vec::new(), Vec::new(), Vec::new()];
    tracker.collect(span.clone(), &mut rounds[0])?;
    // SAFETY: the second page, which the caller gave for this.
    unsafe { base.add(page).write_volatile(1) };
    tracker.collect(span.clone(), &mut rounds[1])?;
    tracker.collect(span.clone(), &mut rounds[2])?;
    let [before, after, again] = rounds;
    Ok(before.is_empty() && after.iter().eq([&(span.start + page..span.end)]) && again.is_empty())
}
