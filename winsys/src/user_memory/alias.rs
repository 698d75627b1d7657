//! Another mapping of the application's shared memory.

use crate::Span;
use rustix::mm::{MprotectFlags, MremapFlags};
use std::ptr;

/// A mapping of ours. It shows the pages that were at `span` when it was made, whatever is there by now, and nobody but the
/// kernel touches it: a file's end may come to lie before that of the mapping.
pub(super) struct Alias {
    start: *mut u8,
    len: usize,
}

// SAFETY: an address; what is done with the memory behind it is argued where it is done.
unsafe impl Send for Alias {}
// SAFETY: as above.
unsafe impl Sync for Alias {}

impl Alias {
    /// `None` if the kernel has none to give: `span` must be in one mapping, which is shared.
    pub(super) fn new(span: &Span) -> Option<Self> {
        let old = ptr::with_exposed_provenance_mut(span.start);
        // SAFETY: an old size of zero leaves the mapping as it is, and maps its pages once more, where the kernel chooses.
        let start = unsafe { rustix::mm::mremap(old, 0, span.len(), MremapFlags::MAYMOVE) }.ok()?;
        // The application may forbid itself to write for a while. If the file is not to be written, nor can we.
        // SAFETY: the new mapping.
        let _ =
            unsafe { rustix::mm::mprotect(start, span.len(), MprotectFlags::READ | MprotectFlags::WRITE) };
        Some(Self { start: start.cast(), len: span.len() })
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.start
    }
}

impl Drop for Alias {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nothing refers to any more. It can only succeed.
        let _ = unsafe { rustix::mm::munmap(self.start.cast(), self.len) };
    }
}
