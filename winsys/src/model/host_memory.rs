//! [`host_memory`](crate::host_memory) on modelled memory: an arena of one allocation.

use crate::Span;
use crate::model::Region;
use crate::readback_policy::Readback;
use crate::tracker::Tracker;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// The arena.
pub struct Arena {
    tracker: Arc<dyn Tracker>,
    readback: Readback,
}

impl Arena {
    pub(crate) fn new(tracker: Arc<dyn Tracker>) -> Self {
        Self { tracker, readback: Readback::Eager }
    }

    pub(crate) fn reading_back(self, readback: Readback) -> Self {
        Self { readback, ..self }
    }

    pub(crate) fn readback(&self) -> Readback {
        self.readback
    }

    pub(crate) fn tracker(&self) -> &Arc<dyn Tracker> {
        &self.tracker
    }

    /// Always the same bytes.
    pub(crate) fn allocate(&self, size: usize) -> io::Result<HostMemory> {
        Ok(HostMemory { tracker: self.tracker.clone(), len: size.next_multiple_of(crate::page_size()) })
    }

    /// For what is never there.
    pub(crate) fn allocate_shared(&self, size: usize) -> io::Result<HostMemory> {
        self.allocate(size)
    }
}

/// The allocation.
pub struct HostMemory {
    tracker: Arc<dyn Tracker>,
    len: usize,
}

impl HostMemory {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn view(&self) -> *mut u8 {
        Region::View.address()
    }

    pub(crate) fn alias(&self) -> *mut u8 {
        Region::Alias.address()
    }

    pub(crate) fn twin(&self) -> *mut u8 {
        Region::Twin.address()
    }

    pub(crate) fn span(&self) -> Span {
        let start = self.view() as usize;
        start..start + self.len
    }

    pub(crate) fn tracker(&self) -> &Arc<dyn Tracker> {
        &self.tracker
    }

    /// Views are nowhere else.
    pub(crate) unsafe fn map_at(&self, _address: *mut u8, _part: Range<usize>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
