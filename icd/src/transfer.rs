//! Transfer engines: how bytes cross between host views and device memory.
//!
//! | engine | bytes cross | the backing memory must be |
//! | --- | --- | --- |
//! | `aperture` | by copies of the CPU's, through the backing driver's mapping | host-visible |
//! | `staged` | by copies of the device's, from and to other memory, which is host-visible | where a buffer may be |
//! | `in-place` | not at all: the application's view is the backing driver's mapping | host-visible |
//!
//! The engine belongs to the memory type. An allocation that its engine cannot serve gets another, and a line on the log.

mod aperture;
mod queue;
mod staged;
mod staging;

use crate::config::Transfer;
use ash::vk::MemoryPropertyFlags as Flags;

pub(crate) use aperture::Aperture;
pub(crate) use queue::{Plan, TransferQueue};
pub(crate) use staged::Staged;

/// How bytes cross.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// Copies by the CPU.
    Aperture,
    /// Copies by the device.
    Staged,
    /// No copies.
    InPlace,
}

impl Engine {
    /// The engine for backing memory of these properties: the one asked for, if it can.
    pub(crate) fn of(choice: Transfer, backing: Flags) -> Self {
        match choice {
            _ if !backing.contains(Flags::HOST_VISIBLE) => Self::Staged,
            Transfer::Auto | Transfer::Aperture => Self::Aperture,
            Transfer::Staged => Self::Staged,
            Transfer::InPlace => Self::InPlace,
        }
    }
}
