//! The world underneath the mirror as the model checker sees it: `RUSTFLAGS="--cfg loom" cargo test -p tidemark-winsys
//! --lib --profile model model::`.
//!
//! The mirror, its locks and its policy are the real ones. Memory is not: its pages have two bytes, and each byte is an
//! atomic that loom knows, so that every order in which host, device and mirror may reach it is tried, with every value
//! that a weakly ordered processor may show. The modules `diff`, `host_memory` and `pager` are replaced by ones that work
//! on it.

mod checks;
mod tracker;

use crate::Span;
use crate::pager::{self, Provider};
use crate::sync::{LockExt, Mutex};
use loom::cell::UnsafeCell;
use loom::sync::MutexGuard;
use loom::sync::atomic::{AtomicU8, Ordering};
use std::array;
use std::ops::Range;

/// Bytes in a page.
pub(crate) const PAGE: usize = 2;

/// Pages of the one allocation there is: enough for the mirror to look at those between hot ones before it asks.
const PAGES: usize = 5;

const LEN: usize = PAGES * PAGE;

/// What the device memory holds at first.
const GARBAGE: u8 = 0xEE;

pub(crate) fn page_size() -> usize {
    PAGE
}

/// The ranges of addresses that the mirror knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Region {
    /// The application's, watched.
    View,
    /// The same bytes, for Tidemark.
    Alias,
    /// Touched under the mirror's lock alone.
    Twin,
    Device,
    /// Where copies of device memory come, likewise under the mirror's lock.
    Staging,
}

/// Addresses of all regions, one after the other. What is there is elsewhere: in [`MEMORY`].
static ADDRESSES: [[u8; LEN]; 5] = [[0; LEN]; 5];

impl Region {
    /// Its first byte.
    pub(crate) fn address(self) -> *mut u8 {
        (&raw const ADDRESSES[self as usize]).cast::<u8>().cast_mut()
    }

    fn at(address: *const u8) -> (Self, usize) {
        let regions = [Self::View, Self::Alias, Self::Twin, Self::Device, Self::Staging];
        let distance = address as usize - (&raw const ADDRESSES) as usize;
        (regions[distance / LEN], distance % LEN)
    }

    /// The pages of a span of the view.
    pub(crate) fn pages(span: &Span) -> Range<usize> {
        let page = |address: usize| (address - Self::View.address() as usize) / PAGE;
        page(span.start)..page(span.end)
    }

    /// A page's span of the view.
    pub(crate) fn span(page: usize) -> Span {
        let start = Self::View.address() as usize + page * PAGE;
        start..start + PAGE
    }
}

pub(crate) struct Memory {
    /// What view and alias show.
    host: [AtomicU8; LEN],
    /// The checker fails where two threads use one of these without a lock in common.
    twin: [UnsafeCell<u8>; LEN],
    device: [AtomicU8; LEN],
    staging: [UnsafeCell<u8>; LEN],
    /// Whether the device memory is there. The checker fails where it goes while somebody may still use it.
    is_mapped: UnsafeCell<bool>,
    /// By page of the view.
    pub(crate) entries: [Mutex<Entry>; PAGES],
    /// Who answers for pages held back.
    pub(crate) provider: Mutex<Option<Box<dyn Provider>>>,
}

/// A page-table entry. Its lock is what the processor does in reality: a store lands only while the page is mapped and
/// counts as written, in one step with finding out that it does.
#[derive(Default)]
pub(crate) struct Entry {
    /// Since that was last asked.
    pub(crate) is_written: bool,
    /// Not mapped: whoever touches it waits for the pager.
    pub(crate) is_held_back: bool,
}

loom::lazy_static! {
    /// Anew for every execution.
    pub(crate) static ref MEMORY: Memory = Memory {
        host: array::from_fn(|_| AtomicU8::new(0)),
        twin: array::from_fn(|_| UnsafeCell::new(0)),
        device: array::from_fn(|_| AtomicU8::new(GARBAGE)),
        staging: array::from_fn(|_| UnsafeCell::new(0)),
        is_mapped: UnsafeCell::new(true),
        entries: array::from_fn(|_| Mutex::default()),
        provider: Mutex::default(),
    };
}

/// The entry of a page of the view that the host touches, once it is mapped.
fn touch(page: usize) -> MutexGuard<'static, Entry> {
    loop {
        let entry = MEMORY.entries[page].hold();
        if !entry.is_held_back {
            return entry;
        }
        drop(entry);
        pager::answer(page);
    }
}

/// A load by the host or by Tidemark.
pub(crate) fn load(address: *const u8) -> u8 {
    match Region::at(address) {
        (Region::View, at) => {
            let _entry = touch(at / PAGE);
            MEMORY.host[at].load(Ordering::Relaxed)
        }
        (Region::Alias, at) => MEMORY.host[at].load(Ordering::Relaxed),
        // SAFETY: the checker makes sure that nobody writes it meanwhile.
        (Region::Twin, at) => MEMORY.twin[at].with(|byte| unsafe { *byte }),
        // SAFETY: as above.
        (Region::Staging, at) => MEMORY.staging[at].with(|byte| unsafe { *byte }),
        (Region::Device, at) => {
            use_device();
            MEMORY.device[at].load(Ordering::Relaxed)
        }
    }
}

/// A store by the host or by Tidemark. Into the view, it is seen by the tracker.
pub(crate) fn store(address: *mut u8, value: u8) {
    match Region::at(address) {
        (Region::View, at) => {
            let mut entry = touch(at / PAGE);
            entry.is_written = true;
            MEMORY.host[at].store(value, Ordering::Relaxed);
        }
        (Region::Alias, at) => MEMORY.host[at].store(value, Ordering::Relaxed),
        // SAFETY: the checker makes sure that nobody uses it meanwhile.
        (Region::Twin, at) => MEMORY.twin[at].with_mut(|byte| unsafe { *byte = value }),
        // SAFETY: as above.
        (Region::Staging, at) => MEMORY.staging[at].with_mut(|byte| unsafe { *byte = value }),
        (Region::Device, at) => {
            use_device();
            MEMORY.device[at].store(value, Ordering::Relaxed);
        }
    }
}

/// Any access of Tidemark to device memory.
pub(crate) fn use_device() {
    // SAFETY: the checker makes sure that nobody writes it meanwhile.
    let is_mapped = MEMORY.is_mapped.with(|is_mapped| unsafe { *is_mapped });
    assert!(is_mapped, "device memory was used after it was freed");
}

/// Device memory goes, as the application is free to let it once the mirror is retired.
fn free_device() {
    // SAFETY: the checker makes sure that nobody uses it meanwhile.
    MEMORY.is_mapped.with_mut(|is_mapped| unsafe { *is_mapped = false });
}
