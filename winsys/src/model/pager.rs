//! [`pager`](crate::pager) on modelled memory. A fault is answered by the thread that has it: it does nothing else
//! meanwhile, so that is as good as a thread that it waits for.

use crate::Span;
use crate::model::{MEMORY, Region};
use crate::sync::LockExt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// As the real one.
pub(crate) trait Provider: Send + Sync {
    fn provide(&self, faults: &Faults, page: usize);
}

/// The pager.
pub struct Pager(());

/// What maps pages.
pub(crate) struct Faults(());

impl Pager {
    /// As the real trackers ask for one.
    pub(crate) fn new(_: u32, _: Arc<OwnedFd>, _: Arc<OwnedFd>) -> Self {
        Self::modelled()
    }

    pub(crate) fn modelled() -> Self {
        Self(())
    }

    pub(crate) fn is_here(&self) -> bool {
        true
    }

    pub(crate) fn add(&self, _: Span, provider: Box<dyn Provider>) -> bool {
        *MEMORY.provider.hold() = Some(provider);
        true
    }

    pub(crate) fn abandon(&self, _: Span) {}

    pub(crate) fn remove(&self, _: usize) {
        *MEMORY.provider.hold() = None;
    }

    pub(crate) fn watch(&self, _: Span) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn leave(&self, span: Span) -> io::Result<()> {
        for page in Region::pages(&span) {
            let mut entry = MEMORY.entries[page].hold();
            (entry.is_held_back, entry.is_written) = (false, true);
        }
        Ok(())
    }

    pub(crate) fn hold_back(&self, span: Span) -> io::Result<()> {
        Region::pages(&span).for_each(|page| MEMORY.entries[page].hold().is_held_back = true);
        Ok(())
    }
}

impl Faults {
    pub(crate) fn map(&self, span: Span, _: *mut u8) {
        Region::pages(&span).for_each(|page| MEMORY.entries[page].hold().is_held_back = false);
    }
}

/// The host touched a page that is held back.
pub(crate) fn answer(page: usize) {
    if let Some(provider) = &*MEMORY.provider.hold() {
        provider.provide(&Faults(()), Region::span(page).start);
    }
}
