//! What the process's profile counts, if there is one: with nobody to read them, counters and clocks are left alone.

use crate::config::Config;
use std::sync::OnceLock;
use std::time::Instant;
use tidemark_winsys::telemetry::{Counter, Profile};

static PROFILE: OnceLock<Option<Profile>> = OnceLock::new();

/// Starts the profile, if one is asked for. The first device of a process names it.
pub(crate) fn start(device: &str, tracker: &str) {
    PROFILE.get_or_init(|| {
        let directory = Config::get().profile.as_ref()?;
        let profile = Profile::shared(directory, device, tracker);
        profile
            .inspect_err(|error| {
                log::warn!("TIDEMARK_PROFILE: cannot write to {}: {error}", directory.display());
            })
            .ok()
    });
}

fn profile() -> Option<&'static Profile> {
    PROFILE.get()?.as_ref()
}

/// Adds to a counter.
pub(crate) fn count(counter: Counter, amount: u64) {
    if let Some(profile) = profile() {
        profile.add(counter, amount);
    }
}

/// Runs `work` and counts the time it takes.
pub(crate) fn measured<T>(counter: Counter, work: impl FnOnce() -> T) -> T {
    let mut stopwatch = Stopwatch::new(counter);
    stopwatch.start();
    work()
}

/// Counts the time from its first start until it is dropped.
pub(crate) struct Stopwatch {
    counter: Counter,
    start: Option<Instant>,
}

impl Stopwatch {
    pub(crate) fn new(counter: Counter) -> Self {
        Self { counter, start: None }
    }

    pub(crate) fn start(&mut self) {
        if self.start.is_none() && profile().is_some() {
            self.start = Some(Instant::now());
        }
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        if let Some(start) = self.start {
            count(self.counter, u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
    }
}
