//! User memory: pages of the application's own, which it lends as a host view.
//!
//! A mapping of Tidemark's stays where it is, since the application has no business with it. These pages it may unmap,
//! move, replace or lock up whenever it likes, by mistake as well; and nobody must crash for it, or read or write what came
//! in their place. So they are [touched](Access) through the kernel alone, and before each use of them it is made sure that
//! they are still what was lent. If not, the memory is *lost*: it is never touched again.
//!
//! | the application | then |
//! | --- | --- |
//! | unmaps a page (munmap), or moves it (mremap) | lost |
//! | maps something else over a page (MAP_FIXED) | lost |
//! | forks | goes on in the parent; lost in the child, whose pages are copies, or its parent's as well |
//! | has pages emptied (`MADV_DONTNEED`) | written, with zeros; shared memory keeps its bytes |
//! | takes away the right to write (mprotect) | the device's writes wait until it is back |
//! | takes away the right to read, or truncates the file | the host's writes wait, likewise |
//! | locks pages (mlock), or has them joined into huge ones or taken apart | nothing |
//!
//! How it is known: a page's registration with userfaultfd goes with its mapping, and a scan fails where it is missing; a
//! hole, which scans pass over, is found by msync(2). This holds for private and shared memory and for mappings of files
//! alike. What cannot be registered (mappings that may never be written, pages of hugetlbfs, pages that another userfaultfd
//! or another import has, and all memory if trackers without the kernel's help were asked for) counts as written at every
//! look; and it is recognised by the kernel's list of mappings: the same file at the same offset, or still private memory
//! of no file, which is as much as can be known.
//!
//! Shared memory that the tracker watches, in one mapping, is mapped once more for us, where lazy readback was asked for: so its
//! pages can be held back, and are reached all the same. Of private memory there is no other
//! mapping: what is taken away is gone. Its pages would have to be moved away and back (`UFFDIO_MOVE`, Linux 6.8), which
//! fails after a fork, and in a forked child they would be missing for good.
//!
//! Two things nobody is told of, and they show when the page is written next: that the bytes of a file come back, where
//! holes are punched into it (`MADV_REMOVE`, fallocate) or a private mapping of it is emptied; and writes by other ways than
//! these pages, through another mapping of the same file or by another process. Who does that needs [`Trust::Blind`].

mod access;
mod alias;
mod runs;

use crate::kernel::mappings::{self, Mapping, Mappings};
use crate::mapping;
use crate::page_size;
use crate::sync::LockExt;
use crate::tracker::Tracker;
use crate::{Span, kernel::address_space};
pub(crate) use access::{Access, BLOCK};
use alias::Alias;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// How far an application is trusted with pages it lends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Whatever it does with them is noticed.
    #[default]
    Watched,
    /// It keeps them mapped, readable and writable until it takes them back. They are not watched, so all that a batch may
    /// use is copied, and they may be memory that the kernel itself does not touch: mappings of devices.
    Blind,
}

impl Trust {
    /// Every value, the default first.
    pub const ALL: [Self; 2] = [Self::Watched, Self::Blind];
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Watched => "synchronised",
            Self::Blind => "unsynchronised",
        })
    }
}

/// Why pages cannot be lent.
#[derive(Debug)]
pub enum Refusal {
    /// Something of it is not mapped.
    NotMapped,
    /// It is a mapping of Tidemark's, which it keeps coherent already.
    Own,
    /// Something of it cannot be read.
    Unreadable(io::Error),
    /// The kernel's ways to such memory are not there.
    Unavailable(io::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMapped => f.write_str("part of it is not mapped"),
            Self::Own => f.write_str("part of it is memory that vkMapMemory returned: copy from there"),
            Self::Unreadable(error) => write!(f, "part of it cannot be read by system calls ({error})"),
            Self::Unavailable(error) => write!(
                f,
                "memfd_create(2) or /proc/self/maps does not work here ({error}): a sandbox may forbid them"
            ),
        }
    }
}

impl std::error::Error for Refusal {}

/// Why pages are not those that were lent any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    Unmapped,
    Replaced,
    Forked,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unmapped => "part of it was unmapped",
            Self::Replaced => "something else was mapped in its place",
            Self::Forked => "this is a forked child, and they are its parent's",
        })
    }
}

/// Who lends pages to whom. One for each tracker; may be used from any thread.
pub struct Lending {
    tracker: Arc<dyn Tracker>,
    /// Opened with the first.
    ways: OnceLock<Ways>,
    /// What is registered with the tracker. Its lock is held for as long as that takes.
    registered: Mutex<Vec<Arc<Registered>>>,
}

/// The kernel's ways to such memory.
struct Ways {
    access: Arc<Access>,
    /// For what is reached by an alias, and so never waits for the pager, which uses it, too.
    aside: Arc<Access>,
    mappings: Arc<Mappings>,
}

/// Pages that the tracker watches for one user memory.
struct Registered {
    span: Span,
    /// Whether they were found to be lost: whatever is registered there now is somebody else's.
    is_over: AtomicBool,
}

/// Pages that are lent. They go back when this is dropped.
pub struct UserMemory {
    lending: Arc<Lending>,
    home: u32,
    span: Span,
    kind: Kind,
}

enum Kind {
    /// Watched by the tracker. Private if nobody can write them by other ways than these addresses.
    Registered {
        registered: Arc<Registered>,
        access: Arc<Access>,
        is_private: bool,
        /// Where an alias can be had.
        aside: Option<Arc<Access>>,
        alias: Option<Alias>,
    },
    /// Recognised by what was mapped there.
    Listed {
        mappings: Arc<Mappings>,
        told: Vec<Mapping>,
        access: Arc<Access>,
    },
    Blind,
}

impl Lending {
    /// For pages that `tracker` is to watch.
    pub fn new(tracker: Arc<dyn Tracker>) -> Arc<Self> {
        Arc::new(Self { tracker, ways: OnceLock::new(), registered: Mutex::default() })
    }

    fn ways(&self) -> io::Result<&Ways> {
        if let Some(ways) = self.ways.get() {
            return Ok(ways);
        }
        let [access, aside] = [Arc::new(Access::new()?), Arc::new(Access::new()?)];
        let ways = Ways { access, aside, mappings: Arc::new(Mappings::open()?) };
        Ok(self.ways.get_or_init(|| ways))
    }

    /// Takes pages of the application's: addresses that are page-aligned at both ends.
    ///
    /// # Errors
    /// Why they cannot be lent.
    ///
    /// # Safety
    /// The application must let Tidemark read and write them, until the result is dropped; and if it is trusted blindly,
    /// they must be valid for that as long.
    pub unsafe fn lend(self: &Arc<Self>, span: Span, trust: Trust) -> Result<UserMemory, Refusal> {
        let home = address_space();
        let lent = |kind| UserMemory { lending: self.clone(), home, span: span.clone(), kind };
        if trust == Trust::Blind {
            return Ok(lent(Kind::Blind));
        }
        let Ways { access, aside, mappings } = self.ways().map_err(Refusal::Unavailable)?;
        let told = mappings.within(&span).map_err(|_| Refusal::NotMapped)?;
        for mapping in &told {
            if mapping::owns(mappings, mapping) {
                return Err(Refusal::Own);
            }
            access.read(mapping.span.start, 1, |_| ()).map_err(Refusal::Unreadable)?;
        }
        let access = access.clone();
        if let Some(registered) = self.register(&span, &told) {
            let is_private = told.iter().all(|mapping| !mapping.is_shared && mapping.file.is_none());
            let is_one = matches!(&mappings::joined(told)[..], [one] if one.is_shared);
            let aside = is_one.then(|| aside.clone());
            return Ok(lent(Kind::Registered { registered, access, is_private, aside, alias: None }));
        }
        log::debug!("{span:x?}: not watched, so all of it is copied wherever a batch may use it");
        Ok(lent(Kind::Listed { mappings: mappings.clone(), told: mappings::joined(told), access }))
    }

    /// Has the tracker watch pages, if it can, and if they are nobody else's.
    fn register(&self, span: &Span, told: &[Mapping]) -> Option<Arc<Registered>> {
        // The kernel has known bugs there.
        let is_huge = told.iter().any(|mapping| mapping.page_size != page_size());
        if is_huge || !self.tracker.recognises() {
            return None;
        }
        let mut all = self.registered.hold();
        for other in all.iter().filter(|other| other.span.start < span.end && span.start < other.span.end) {
            // What the tracker reports to one of them the other would not learn.
            if other.verify(&*self.tracker).is_ok() {
                return None;
            }
        }
        self.tracker.attach(span.clone()).ok()?;
        // What is left of pages that were lost is attached still, and armed; and all of these must count as written.
        self.tracker.detach(span.clone());
        self.tracker.attach(span.clone()).ok()?;
        let registered = Arc::new(Registered { span: span.clone(), is_over: AtomicBool::new(false) });
        all.push(registered.clone());
        Some(registered)
    }
}

impl Registered {
    /// Whether they are still the pages that were registered.
    fn verify(&self, tracker: &dyn Tracker) -> Result<(), Loss> {
        self.verify_part(tracker, &self.span)
    }

    fn verify_part(&self, tracker: &dyn Tracker, part: &Span) -> Result<(), Loss> {
        let loss = if !mappings::is_mapped(part) {
            Loss::Unmapped
        } else if self.is_over.load(Ordering::Acquire) || tracker.peek(part.clone(), &mut Vec::new()).is_err()
        {
            Loss::Replaced
        } else {
            return Ok(());
        };
        self.is_over.store(true, Ordering::Release);
        Err(loss)
    }
}

impl UserMemory {
    /// Their addresses.
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// The way to them; `None` if they are as good as memory of our own.
    pub(crate) fn access(&self) -> Option<&Access> {
        match &self.kind {
            Kind::Registered { aside: Some(aside), alias: Some(_), .. } => Some(aside),
            Kind::Registered { access, .. } | Kind::Listed { access, .. } => Some(access),
            Kind::Blind => None,
        }
    }

    /// From here on they are reached by an alias, so that they can be held back. False if there is none to be had.
    pub(crate) fn make_alias(&mut self) -> bool {
        if let Kind::Registered { aside: Some(_), alias, .. } = &mut self.kind {
            *alias = Alias::new(&self.span);
        }
        self.alias().is_some()
    }

    /// Where their bytes are reached by [`access`](Self::access), whether they are held back or not.
    pub(crate) fn reached_at(&self) -> usize {
        self.alias().map_or(self.span.start, |alias| alias as usize)
    }

    /// Another mapping of them: with it they can be held back.
    pub(crate) fn alias(&self) -> Option<*mut u8> {
        match &self.kind {
            Kind::Registered { alias, .. } => alias.as_ref().map(Alias::start),
            Kind::Listed { .. } | Kind::Blind => None,
        }
    }

    /// Whether the tracker watches them. If not, every page counts as written at each look.
    pub fn is_watched(&self) -> bool {
        matches!(self.kind, Kind::Registered { .. })
    }

    /// They are lent again, after a while without any use of them; that they are still the same was made sure of. What others
    /// may have written unseen counts as written. False if that is not possible.
    pub(crate) fn resume(&self) -> bool {
        match self.kind {
            Kind::Registered { is_private: true, .. } => true,
            Kind::Registered { .. } => {
                // What is not registered is not armed.
                self.lending.tracker.detach(self.span.clone());
                self.lending.tracker.attach(self.span.clone()).is_ok()
            }
            Kind::Listed { .. } | Kind::Blind => false,
        }
    }

    /// Whether the pages of `part` are still those that were lent.
    pub(crate) fn verify(&self, part: &Span) -> Result<(), Loss> {
        match &self.kind {
            Kind::Blind => Ok(()),
            _ if self.home != address_space() => Err(Loss::Forked),
            Kind::Registered { registered, .. } => registered.verify_part(&*self.lending.tracker, part),
            Kind::Listed { mappings: list, told, .. } => {
                let was: Vec<Mapping> = told
                    .iter()
                    .filter(|one| one.span.start < part.end && part.start < one.span.end)
                    .map(|one| one.clipped(part))
                    .collect();
                match list.within(part).map(mappings::joined) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Loss::Unmapped),
                    Ok(is) if is == was => Ok(()),
                    _ => Err(Loss::Replaced),
                }
            }
        }
    }

    /// [`verify`](Self::verify), as far as asking the tracker about `part` next does not tell by itself.
    pub(crate) fn verify_before_scan(&self, part: &Span) -> Result<(), Loss> {
        match &self.kind {
            Kind::Registered { registered, .. }
                if self.home == address_space() && !registered.is_over.load(Ordering::Acquire) =>
            {
                if mappings::is_mapped(part) {
                    Ok(())
                } else {
                    self.verify(part)
                }
            }
            _ => self.verify(part),
        }
    }
}

impl Drop for UserMemory {
    fn drop(&mut self) {
        // In a forked child nothing is registered, and the lock may be held by a thread that is not there.
        if let Kind::Registered { registered, .. } = &self.kind
            && self.home == address_space()
        {
            let mut all = self.lending.registered.hold();
            all.retain(|other| !Arc::ptr_eq(other, registered));
            // Pages that came in the place of these may be registered for another.
            if registered.verify(&*self.lending.tracker).is_ok() {
                self.lending.tracker.detach(self.span.clone());
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
