//! An allocation as an object of the kernel driver's, and the tracker of its view.

use super::device::{Device, Handle};
use crate::Span;
use crate::kernel;
use crate::mapping::{Mapping, Ours};
use crate::tracker::{Counters, Method, Tracker};
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use tidemark_kmd_uapi::tidemark_drm as uapi;

/// Pages for the application (the view), for Tidemark (the alias), and for their value as of the last sync (the twin).
pub(crate) struct Object {
    handle: Handle,
    /// Of the tracked view in the driver's file.
    offset: u64,
    /// The one that it began with.
    method: Method,
    /// Whether it may change.
    is_free: bool,
    _ours: Ours,
    view: Mapping,
    alias: Mapping,
    twin: Mapping,
}

impl Object {
    /// Of `len` bytes, whole pages. `is_free` says whether the method may change.
    pub(super) fn new(device: Arc<Device>, len: usize, method: Method, is_free: bool) -> io::Result<Self> {
        let handle = Handle::new(device, len, method)?;
        let offset = handle.offset(0)?;
        let alias = Mapping::of_file(handle.device(), handle.offset(uapi::MMAP_UNTRACKED)?, len)?;
        let view = Mapping::of_file(handle.device(), offset, len)?;
        let twin = Mapping::new(len, MapFlags::PRIVATE)?;
        let ours = Ours::new(&alias);
        Ok(Self { handle, offset, method, is_free, _ours: ours, view, alias, twin })
    }

    pub(crate) fn view(&self) -> *mut u8 {
        self.view.at(0)
    }

    pub(crate) fn alias(&self) -> *mut u8 {
        self.alias.at(0)
    }

    pub(crate) fn twin(&self) -> *mut u8 {
        self.twin.at(0)
    }

    /// Maps a part (bytes, whole pages) of the view once more, instead of what is at `address`.
    ///
    /// # Errors
    /// The kernel's refusal: what was there may be gone.
    ///
    /// # Safety
    /// The addresses must be the caller's to give away.
    pub(crate) unsafe fn map_at(&self, address: *mut u8, part: Range<usize>) -> io::Result<()> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED;
        let offset = self.offset + part.start as u64;
        // SAFETY: the caller gives the addresses away.
        unsafe {
            rustix::mm::mmap(address.cast(), part.len(), protection, flags, self.handle.device(), offset)
        }?;
        Ok(())
    }

    /// The bytes of a span of the view.
    fn bytes_of(&self, span: &Span) -> Range<usize> {
        let base = self.view() as usize;
        span.start - base..span.end - base
    }

    /// A forked child would make pages count as unwritten that its parent has not flushed.
    fn refuse_elsewhere(&self) -> io::Result<()> {
        if self.handle.device().home() == kernel::address_space() {
            return Ok(());
        }
        Err(io::Error::other("opened before a fork"))
    }
}

impl Tracker for Object {
    fn name(&self) -> &'static str {
        if self.is_free { super::EITHER } else { self.method.name() }
    }

    fn arm(&self, span: Span) -> io::Result<()> {
        self.refuse_elsewhere()?;
        self.handle.collect(std::iter::once(self.bytes_of(&span)), |_| ())
    }

    fn collect(&self, span: Span, written: &mut Vec<Span>) -> io::Result<()> {
        self.collect_parts(&[span], written)
    }

    fn collect_parts(&self, parts: &[Span], written: &mut Vec<Span>) -> io::Result<()> {
        self.refuse_elsewhere()?;
        let base = self.view() as usize;
        let parts = parts.iter().map(|part| self.bytes_of(part));
        self.handle.collect(parts, |bytes| written.push(base + bytes.start..base + bytes.end))
    }

    fn sees_every_mapping(&self) -> bool {
        true
    }

    fn has_methods(&self) -> bool {
        self.is_free
    }

    fn set_method(&self, method: Method) -> io::Result<()> {
        self.refuse_elsewhere()?;
        self.handle.set_method(method)
    }

    fn counters(&self) -> Option<Counters> {
        self.handle.counters().ok()
    }
}
