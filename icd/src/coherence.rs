//! Sync points: what is flushed and read back, and when.
//!
//! - Before the device may start on what the host wrote (submits, presents, host signals), mapped memory is
//!   flushed. That of the type without HOST_COHERENT too: applications that should flush it themselves forget
//!   to (Zink of Mesa 22.3 takes it for GL_MAP_COHERENT_BIT buffers), and get away with it on most devices. The
//!   flush is a copy by the CPU, so it cannot queue behind a batch that waits for the very signal.
//! - After the host has learned that the device is done with something (waits, and queries that find it done),
//!   mapped memory is read back: the application may look at once. Applications that leave out the barrier to the
//!   host get their data all the same, since no barrier is looked at.

use crate::aperture::Aperture;
use crate::config::Config;
use crate::device::Device;
use crate::memory::Memory;
use crate::tables::HandleMap;
use ash::vk;
use std::ops::Range;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Instant;
use tidemark_winsys::telemetry::{Counter, Profile};
use tidemark_winsys::{Arena, RwLockExt, Traffic, tracker};

/// The emulated memory of a device.
pub(crate) struct Coherence {
    pub(crate) arena: Arena,
    /// Every allocation of an emulated type.
    pub(crate) memories: RwLock<HandleMap<Arc<Memory>>>,
    /// Those that are mapped: the only ones whose host view anybody looks at. Locked shared throughout a flush or
    /// a readback, so that no memory is freed in the middle of one.
    pub(crate) mapped: RwLock<HandleMap<Arc<Memory>>>,
}

impl Coherence {
    /// For a device called `name` in the profile.
    pub(crate) fn new(name: &str) -> Self {
        let tracker = tracker::select(Config::get().tracker);
        log::info!("{name}: tracking writes by {}", tracker.name());
        start_profile(name, tracker.name());
        Self { arena: Arena::new(tracker), memories: RwLock::default(), mapped: RwLock::default() }
    }
}

/// Lets the profile show a device that has nothing emulated.
pub(crate) fn note_device_without(name: &str) {
    start_profile(name, "none");
}

static PROFILE: OnceLock<Profile> = OnceLock::new();

/// This process's counters.
pub(crate) fn profile() -> &'static Profile {
    PROFILE.get_or_init(Profile::private)
}

/// The first device of a process names its profile.
fn start_profile(device: &str, tracker: &str) {
    PROFILE.get_or_init(|| {
        let Some(directory) = &Config::get().profile else { return Profile::private() };
        Profile::shared(directory, device, tracker).unwrap_or_else(|error| {
            log::warn!("TIDEMARK_PROFILE: cannot write to {}: {error}", directory.display());
            Profile::private()
        })
    });
}

impl Device {
    /// The device may start on what the host wrote so far: to be called before it is told to.
    pub(crate) fn before_submit(&self) {
        let Some(coherence) = &self.coherence else { return };
        profile().add(Counter::Submits, 1);
        if Config::get().debug.no_flush {
            return;
        }
        let mapped = coherence.mapped.shared();
        if mapped.is_empty() {
            return;
        }
        measured(Counter::FlushNanoseconds, || {
            mapped.values().for_each(|memory| self.flush(memory, 0..memory.len()));
        });
    }

    /// If `result` tells the host that the device is done with something, reads back. Passes the result on.
    pub(crate) fn after_wait(&self, result: vk::Result) -> vk::Result {
        let Some(coherence) = &self.coherence else { return result };
        if matches!(result, vk::Result::SUCCESS | vk::Result::EVENT_SET) {
            profile().add(Counter::Waits, 1);
            let mapped = coherence.mapped.shared();
            if !mapped.is_empty() {
                measured(Counter::ReadbackNanoseconds, || {
                    mapped.values().for_each(|memory| self.readback(memory, 0..memory.len()));
                });
            }
        }
        result
    }

    /// Flushes part of one mapped memory.
    pub(crate) fn flush(&self, memory: &Memory, range: Range<usize>) {
        if Config::get().debug.no_flush {
            return;
        }
        let Some((mirror, aperture)) = memory.mirror() else { return };
        let Traffic { pages, bytes } = mirror.flush(range.clone());
        if bytes > 0 {
            self.report(aperture, Aperture::flush, range);
        }
        if pages > 0 {
            log::trace!("{:?}: {bytes} bytes flushed out of {pages} pages", memory.handle);
        }
        profile().add(Counter::PagesWritten, pages);
        profile().add(Counter::BytesFlushed, bytes);
    }

    /// Reads back part of one mapped memory.
    pub(crate) fn readback(&self, memory: &Memory, range: Range<usize>) {
        if Config::get().debug.no_readback {
            return;
        }
        let Some((mirror, aperture)) = memory.mirror() else { return };
        self.report(aperture, Aperture::invalidate, range.clone());
        let Traffic { bytes, .. } = mirror.readback(range);
        if bytes > 0 {
            log::trace!("{:?}: {bytes} bytes read back", memory.handle);
        }
        profile().add(Counter::BytesReadBack, bytes);
    }

    fn report(
        &self,
        aperture: &Aperture,
        maintain: fn(&Aperture, &Self, Range<usize>) -> Result<(), vk::Result>,
        range: Range<usize>,
    ) {
        if let Err(error) = maintain(aperture, self, range) {
            log::error!("cannot synchronise the backing driver's mapping: {error}");
        }
    }
}

/// Runs `work` and counts the time it takes.
pub(crate) fn measured<T>(counter: Counter, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    profile().add(counter, u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    result
}
