//! A mirror's host side: pages of the arena's, which are always there, or of the application's, which it [lends](UserMemory)
//! and may take away.

use crate::Span;
use crate::diff;
use crate::host_memory::HostMemory;
use crate::page_size;
use crate::user_memory::{Access, BLOCK, Loss, UserMemory};
use std::ops::Range;
use std::ptr;
use std::slice;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// All of it under the lock of the mirror's state, so that the twin is the caller's alone.
pub(crate) enum Host {
    Own(HostMemory),
    User(User),
}

/// Pages of the application's.
pub(crate) struct User {
    memory: UserMemory,
    /// Has their twin. Its own pages are never touched.
    beside: HostMemory,
    /// Why they are not touched any more.
    loss: OnceLock<Loss>,
    /// Whether it was said that they could not be read, and written.
    is_said: [AtomicBool; 2],
}

/// Where the bytes of a host view, or of a part of it, can be read; and their twin. Each is the address where that of the
/// first byte of the mirror would be.
#[derive(Clone, Copy)]
pub(super) struct Places {
    pub(super) alias: *const u8,
    pub(super) twin: *mut u8,
}

impl Host {
    pub(super) fn of_user(memory: UserMemory, beside: HostMemory) -> Self {
        Self::User(User { memory, beside, loss: OnceLock::new(), is_said: Default::default() })
    }

    /// Where the application reads and writes.
    pub(crate) fn view(&self) -> *mut u8 {
        match self {
            Self::Own(memory) => memory.view(),
            Self::User(user) => ptr::with_exposed_provenance_mut(user.memory.span().start),
        }
    }

    /// The same, for the tracker.
    pub(super) fn span(&self) -> Span {
        match self {
            Self::Own(memory) => memory.span(),
            Self::User(user) => user.memory.span(),
        }
    }

    /// Bytes, a multiple of the page size.
    pub(crate) fn len(&self) -> usize {
        self.span().len()
    }

    /// The arena's pages, which can be held back.
    pub(crate) fn own(&self) -> Option<&HostMemory> {
        match self {
            Self::Own(memory) => Some(memory),
            Self::User(_) => None,
        }
    }

    /// Another mapping of the pages, through which they are reached while they are held back.
    pub(super) fn alias(&self) -> Option<*mut u8> {
        match self {
            Self::Own(memory) => Some(memory.alias()),
            Self::User(user) => user.memory.alias(),
        }
    }

    fn twin(&self) -> *mut u8 {
        match self {
            Self::Own(memory) => memory.twin(),
            Self::User(user) => user.beside.twin(),
        }
    }

    /// The twin in the place of the host's bytes.
    pub(super) fn last_synced(&self) -> Places {
        Places { alias: self.twin(), twin: self.twin() }
    }

    /// Whether they are there no longer, as far as is known.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::User(user) if user.loss.get().is_some())
    }

    /// Whether the pages of `span` are still there.
    pub(super) fn verify(&self, span: &Span) -> bool {
        match self {
            Self::Own(_) => true,
            Self::User(user) => user.note(user.memory.verify(span)),
        }
    }

    /// [`verify`](Self::verify), as far as asking the tracker about `span` next does not tell by itself.
    pub(super) fn verify_before_scan(&self, span: &Span) -> bool {
        match self {
            Self::Own(_) => true,
            Self::User(user) => user.note(user.memory.verify_before_scan(span)),
        }
    }

    /// They are lent again. False if they are not there any more, which is nothing to complain of.
    pub(super) fn resume(&self) -> bool {
        match self {
            Self::Own(_) => false,
            Self::User(User { memory, loss, .. }) => {
                loss.get().is_none() && memory.verify(&memory.span()).is_ok() && memory.resume()
            }
        }
    }

    /// Shows `use_part` the host's bytes, part by part. False if some could not be read: the application has locked them
    /// away, and may give them back.
    pub(super) fn read(&self, bytes: Range<usize>, mut use_part: impl FnMut(Places, Range<usize>)) -> bool {
        let twin = self.twin();
        let alias = match self {
            Self::Own(memory) => memory.alias().cast_const(),
            Self::User(user) => match user.memory.access() {
                Some(access) => return user.read(access, bytes, use_part),
                None => self.view().cast_const(),
            },
        };
        use_part(Places { alias, twin }, bytes);
        true
    }

    /// Brings bytes of the device's, which belong `at` there, to the host view and the twin: those that the twin does not
    /// have, and no others. Returns how many that were.
    ///
    /// # Safety
    /// `source` must be valid for reads of `len` bytes. Others may write there meanwhile.
    pub(super) unsafe fn take(&self, at: usize, source: *const u8, len: usize) -> usize {
        let twin = self.twin().wrapping_add(at);
        let target = match self {
            Self::Own(memory) => memory.alias(),
            Self::User(user) => match user.memory.access() {
                // SAFETY: the caller's promise.
                Some(access) => return unsafe { user.take(access, at, source, len) },
                None => self.view(),
            },
        };
        // SAFETY: the caller's promise. `at` and `len` are within both, and the twin ours alone.
        unsafe { diff::propagate(source, twin, target.wrapping_add(at), len) }
    }
}

impl User {
    fn note(&self, verdict: Result<(), Loss>) -> bool {
        let Err(loss) = verdict else { return true };
        if self.loss.set(loss).is_ok() {
            log::error!(
                "imported host memory {:x?} is lost: {loss}. The device keeps the bytes it has; nothing is read or \
                 written there any more. Keep imported pages mapped until vkFreeMemory",
                self.memory.span()
            );
        }
        false
    }

    fn read(
        &self,
        access: &Access,
        bytes: Range<usize>,
        mut use_part: impl FnMut(Places, Range<usize>),
    ) -> bool {
        let mut is_all = true;
        let mut at = bytes.start;
        while at < bytes.end {
            let mut part = at..bytes.end.min(at + BLOCK);
            let mut read = |part: &Range<usize>| {
                let show = |bytes: *const u8| {
                    let alias = bytes.wrapping_sub(part.start);
                    use_part(Places { alias, twin: self.beside.twin() }, part.clone());
                };
                access.read(self.memory.reached_at() + part.start, part.len(), show).is_ok()
            };
            // What is locked away may be a page of it.
            let is_read = read(&part) || {
                part.end = part.end.min((at + 1).next_multiple_of(page_size()));
                read(&part)
            };
            at = part.end;
            if !is_read {
                self.say(
                    0,
                    "cannot be read at present: what the host wrote there reaches the device once it can",
                );
                is_all = false;
            }
        }
        is_all
    }

    /// [`Host::take`].
    ///
    /// # Safety
    /// As there.
    unsafe fn take(&self, access: &Access, at: usize, source: *const u8, len: usize) -> usize {
        let mut buffer = [0; BLOCK];
        let mut changed = 0;
        for start in (0..len).step_by(BLOCK) {
            let part = start..len.min(start + BLOCK);
            let new = &mut buffer[..part.len()];
            // SAFETY: the caller's promise, and a part of it; the twin is as long, and ours alone.
            let twin = unsafe {
                diff::overwrite(source.wrapping_add(start), new.as_mut_ptr(), new.len());
                slice::from_raw_parts_mut(self.beside.twin().wrapping_add(at + start), part.len())
            };
            if new == twin {
                continue;
            }
            let view = self.memory.span().start + at + start;
            let first = view - view % page_size();
            if !self.note(self.memory.verify(&(first..(view + part.len()).next_multiple_of(page_size())))) {
                return changed;
            }
            let address = self.memory.reached_at() + at + start;
            let mut store = |part: Range<usize>| {
                let stored =
                    access.store_differences(address + part.start, &new[part.clone()], &mut twin[part]);
                stored.map(|stored| changed += stored).is_ok()
            };
            if store(0..new.len()) {
                continue;
            }
            // What is locked away may be a page of it.
            let mut at = 0;
            while at < new.len() {
                let end = ((address + at + 1).next_multiple_of(page_size()) - address).min(new.len());
                if !store(at..end) {
                    self.say(
                        1,
                        "cannot be written at present, as if mapped read-only: what the device wrote there reaches the \
                         application once it can",
                    );
                }
                at = end;
            }
        }
        changed
    }

    fn say(&self, which: usize, what: &str) {
        if !self.is_said[which].swap(true, Ordering::Relaxed) {
            log::warn!("part of imported host memory {:x?} {what}", self.memory.span());
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
