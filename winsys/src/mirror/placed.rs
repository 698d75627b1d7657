//! Placed views: a mirror's bytes at an address of the application's choice.

use super::Mirror;
use crate::page_size;
use crate::sync::LockExt;
use crate::views::Leave;
use std::io;
use std::ops::Range;

impl Mirror {
    /// Shows `range` (bytes; it starts at a page, and ends at one or with the last byte) at `address`, which is that of a
    /// page, instead of what is mapped there: what the application writes there counts, until
    /// [`unplace`](Self::unplace). Readbacks are eager meanwhile: only the mirror's own view can have pages held back.
    ///
    /// # Errors
    /// `InvalidInput` if something is not that of a page, `AlreadyExists` if there is a placed view; otherwise the
    /// kernel's refusal, after which nothing may be mapped there.
    ///
    /// # Safety
    /// The application must give these addresses away, and not write the mirror by others meanwhile.
    pub unsafe fn place(&self, address: *mut u8, range: Range<usize>) -> io::Result<()> {
        let is_page = |byte: usize| byte.is_multiple_of(page_size());
        if range.is_empty() || range.end > self.len || !is_page(range.start) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if !is_page(range.end) && range.end != self.len {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut state = self.state.hold();
        if let Some(deferral) = &self.deferral {
            deferral.fetch_stale(&mut state);
        }
        // SAFETY: the caller's promise.
        unsafe { self.tracker.place(address, self.pages_around(range)) }
    }

    /// Ends the placed view; what was written there is in the next flush of it. False if there is none.
    ///
    /// # Errors
    /// The kernel's refusal: the view then stays.
    pub fn unplace(&self, leave: Leave) -> io::Result<bool> {
        let _state = self.state.hold();
        self.tracker.unplace(leave)
    }
}
