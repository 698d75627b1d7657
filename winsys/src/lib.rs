//! The operating-system side of Tidemark. Nothing in here knows Vulkan.
//!
//! An allocation that the application maps is a [`Mirror`]: the *host view* the application reads and
//! writes, the *device memory* only the device sees, and, for pages that both write, a *twin* that holds the
//! bytes as of their last sync. A [`tracker::Tracker`] tells which pages of the host view were written; comparing
//! these with the twin tells which bytes.
//!
//! ```text
//!   application ──> view ─┐                      ┌─ flush: view ≠ twin ──> device, twin
//!                         shared page  twin      │
//!   Tidemark ─────> alias ┘                      └─ readback: device ≠ twin ──> alias, twin
//! ```
//!
//! The CPU reaches device memory by address ([`DeviceMemory`]), or hands bytes to somebody who copies them
//! ([`CopiedMemory`]). Where the kernel lets it, a readback may also be put off until a page is touched ([`Readback`]).
//!
//! Views, aliases and trackers are the stock kernel's ([`kernel`]), or where there is one those of a kernel driver that is made
//! for it ([`drm`]).
//!
//! Lock order: the arena's locks and a mirror's are never held together. Under a mirror's lock that of its views is taken,
//! and the caller's device memory is called, which must not come back here. A transfer holds its own mirror's lock alone:
//! who waits for that lock needs what is being moved. The pager's thread holds the lock of its providers and under it one
//! mirror's, so nobody who holds a mirror's takes the former. No thread touches a view under any of these locks: it would
//! wait for the pager's thread, which waits for the lock. Pages that the application lends ([`UserMemory`]) are no view
//! in this sense: they are read and written under their mirror's lock, and under it that of the way to them. Those that may
//! be held back have an alias, and with it another way, which never waits for the pager. The lock of what is lent is held
//! with no mirror's, and while the tracker attaches and detaches.

#![cfg_attr(all(test, loom), allow(dead_code, reason = "the model replaces what uses it"))]

mod costs;
#[cfg_attr(all(test, loom), path = "model/diff.rs")]
mod diff;
#[cfg(not(all(test, loom)))]
pub mod drm;
#[cfg_attr(all(test, loom), path = "model/host_memory.rs")]
mod host_memory;
mod host_view;
mod in_place;
pub mod kernel;
#[cfg(not(all(test, loom)))]
mod mapping;
mod memory_id;
mod mirror;
#[cfg(all(test, loom))]
mod model;
mod page_set;
#[cfg_attr(all(test, loom), path = "model/pager.rs")]
mod pager;
mod policy;
mod readback_policy;
mod signals;
mod sync;
pub mod telemetry;
pub mod tracker;
#[cfg_attr(all(test, loom), path = "model/user_memory.rs")]
mod user_memory;
mod views;

pub use costs::Costs;
pub use host_memory::{Arena, HostMemory};
pub use host_view::HostView;
pub use in_place::InPlace;
pub use memory_id::MemoryId;
pub use mirror::{Contents, CopiedMemory, Device, DeviceMemory, Mirror, Traffic};
pub use pager::Pager;
pub use policy::{Switch, Treatment};
pub use readback_policy::Readback;
pub use signals::with_signals_blocked;
pub use sync::{LockExt, RwLockExt};
#[cfg(not(all(test, loom)))]
pub use user_memory::{Lending, Refusal, Trust, UserMemory};
pub use views::Leave;

/// Addresses, page-aligned at both ends.
pub type Span = std::ops::Range<usize>;

#[cfg(all(test, loom))]
use model::page_size;

/// Bytes in a page of this machine.
#[cfg(not(all(test, loom)))]
pub fn page_size() -> usize {
    rustix::param::page_size()
}
