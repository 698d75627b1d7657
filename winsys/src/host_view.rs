//! What applications map.

use crate::mirror::{Mirror, Traffic};
use crate::policy::Treatment;
use crate::tracker::Tracker;
use crate::views::Leave;
use std::io;
use std::ops::Range;

/// What an application maps of an allocation, to be kept coherent with what the device has. May be used from any thread.
/// Ranges are in bytes, and clipped.
pub trait HostView: Send + Sync {
    /// Where the application reads and writes.
    fn view(&self) -> *mut u8;

    /// What tells which of its pages were written; `None` if nothing needs to, or everything is compared.
    fn tracker(&self) -> Option<&dyn Tracker>;

    /// How it is treated; `None` if there is no choice.
    fn treatment(&self) -> Option<Treatment>;

    /// Brings what the host wrote to any page that `range` touches to the device: at least the writes that happened before
    /// this call.
    fn flush(&self, range: Range<usize>) -> Traffic;

    /// Prepares the pages that `range` touches for writes by the device: to be called before it may write them.
    fn share(&self, range: Range<usize>) -> Traffic;

    /// Brings what the device wrote to pages that `range` touches to the host: at least what it had made visible before
    /// this call.
    fn readback(&self, range: Range<usize>) -> Traffic;

    /// Makes a change to what leads to the device memory, while nothing accesses that by way of the view.
    fn paused(&self, change: &mut dyn FnMut());

    /// As [`Mirror::place`].
    ///
    /// # Errors
    /// As there; `Unsupported` if the view cannot be anywhere else.
    ///
    /// # Safety
    /// As there.
    unsafe fn place(&self, address: *mut u8, range: Range<usize>) -> io::Result<()>;

    /// As [`Mirror::unplace`].
    ///
    /// # Errors
    /// As there.
    fn unplace(&self, leave: Leave) -> io::Result<bool>;

    /// Ends all access to device memory, and waits for what is in progress. Returns what moved that nobody was told.
    fn retire(&self) -> Traffic;
}

impl HostView for Mirror {
    fn view(&self) -> *mut u8 {
        self.view()
    }

    fn tracker(&self) -> Option<&dyn Tracker> {
        Some(self.tracker())
    }

    fn treatment(&self) -> Option<Treatment> {
        self.treatment()
    }

    fn flush(&self, range: Range<usize>) -> Traffic {
        self.flush(range)
    }

    fn share(&self, range: Range<usize>) -> Traffic {
        self.share(range)
    }

    fn readback(&self, range: Range<usize>) -> Traffic {
        self.readback(range)
    }

    fn paused(&self, change: &mut dyn FnMut()) {
        self.paused(change);
    }

    unsafe fn place(&self, address: *mut u8, range: Range<usize>) -> io::Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.place(address, range) }
    }

    fn unplace(&self, leave: Leave) -> io::Result<bool> {
        self.unplace(leave)
    }

    fn retire(&self) -> Traffic {
        self.retire()
    }
}
