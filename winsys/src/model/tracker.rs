//! A tracker on modelled memory: right, or wrong by one step.

use super::{MEMORY, Region};
use crate::Span;
use crate::pager::Pager;
use crate::sync::{LockExt, Mutex};
use crate::tracker::Tracker;
use std::io;
use std::mem;

/// When a page that was written is watched anew.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rearm {
    /// In one step with finding out that it was written, as the kernel does it.
    AtOnce,
    /// In a second step, in which all pages are. The first write to a page in between is lost.
    Afterwards,
    /// When it is asked about again: after its bytes were read.
    NextTime,
}

pub(super) struct Modelled {
    rearm: Rearm,
    /// Pages to watch anew next time.
    reported: Mutex<Vec<usize>>,
    pager: Pager,
}

impl Modelled {
    pub(super) fn new(rearm: Rearm) -> Self {
        Self { rearm, reported: Mutex::default(), pager: Pager::modelled() }
    }
}

fn watch(page: usize) {
    MEMORY.entries[page].hold().is_written = false;
}

fn is_written(page: usize) -> bool {
    MEMORY.entries[page].hold().is_written
}

/// Both in one step.
fn take_written(page: usize) -> bool {
    mem::take(&mut MEMORY.entries[page].hold().is_written)
}

impl Tracker for Modelled {
    fn name(&self) -> &'static str {
        "modelled"
    }

    fn arm(&self, span: Span) -> io::Result<()> {
        Region::pages(&span).for_each(watch);
        Ok(())
    }

    fn collect(&self, asked: Span, written: &mut Vec<Span>) -> io::Result<()> {
        let mut reported = self.reported.hold();
        reported.drain(..).for_each(watch);
        let pages = Region::pages(&asked);
        let found: Vec<usize> = match self.rearm {
            Rearm::AtOnce => pages.filter(|page| take_written(*page)).collect(),
            Rearm::Afterwards | Rearm::NextTime => pages.filter(|page| is_written(*page)).collect(),
        };
        match self.rearm {
            Rearm::AtOnce => {}
            Rearm::Afterwards => self.arm(asked)?,
            Rearm::NextTime => reported.clone_from(&found),
        }
        written.extend(found.into_iter().map(Region::span));
        Ok(())
    }

    fn peek(&self, asked: Span, written: &mut Vec<Span>) -> io::Result<()> {
        written.extend(Region::pages(&asked).filter(|page| is_written(*page)).map(Region::span));
        Ok(())
    }

    fn pager(&self) -> Option<&Pager> {
        Some(&self.pager)
    }
}
