//! Rounds of all contenders at one workload, in turn.

use crate::contender::{Contender, Engine, Untracked};
use crate::page_guard::PageGuard;
use crate::statistics::Sorted;
use crate::workload::{Device, Round, Workload, shuffle};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_winsys::tracker::{Compare, CopyAll, Tracker, WriteProtect};

/// The contenders' names, in the order of the table.
pub(crate) const NAMES: [&str; 5] = ["write-protect", "compare", "copy-all", "adaptive", "page guard"];

/// Those of [`NAMES`] that stay with one way of tracking.
pub(crate) const STATIC: usize = 3;

/// The place of each in [`NAMES`].
pub(crate) const COPY_ALL: usize = 2;
pub(crate) const ADAPTIVE: usize = 3;
pub(crate) const PAGE_GUARD: usize = 4;

/// How much is measured.
pub(crate) struct Effort {
    /// The largest single buffer.
    pub(crate) largest: usize,
    /// The one that is drawn.
    pub(crate) pictured: usize,
    /// The picture's file name.
    pub(crate) picture: &'static str,
    /// Time for the measured rounds of a workload.
    pub(crate) time: Duration,
    /// Rounds, however long they take.
    pub(crate) least: usize,
    /// Rounds of each contender before that: at most so many, or so long.
    pub(crate) warm_up: (usize, Duration),
    /// The same for the one that learns.
    pub(crate) learning: (usize, Duration),
    /// Rounds of large uploads.
    pub(crate) uploads: usize,
}

/// What a workload took.
pub(crate) struct Outcome {
    pub(crate) rounds: usize,
    /// Nanoseconds a round takes without a device.
    pub(crate) plain: f64,
    /// Nanoseconds that each of [`NAMES`] added.
    pub(crate) overheads: [Overhead; NAMES.len()],
}

#[derive(Clone, Copy)]
pub(crate) struct Overhead {
    pub(crate) median: f64,
    /// Half the distance between the quartiles.
    pub(crate) spread: f64,
    pub(crate) mean: f64,
}

/// Measures all contenders.
///
/// # Errors
/// No memory, a kernel without write-protect tracking, or a contender that lost a write.
pub(crate) fn measure(workload: &Workload, effort: &Effort) -> Result<Outcome, Box<dyn Error>> {
    let Workload { buffers, len, .. } = *workload;
    let engine = |tracker: Arc<dyn Tracker>, is_adaptive| {
        Engine::new(tracker, is_adaptive, buffers, len).map(Box::new)
    };
    let write_protect: Arc<dyn Tracker> = Arc::new(WriteProtect::new()?);
    let mut plain = Untracked::new(buffers, len)?;
    let mut contenders: [Box<dyn Contender>; NAMES.len()] = [
        engine(write_protect.clone(), false)?,
        engine(Arc::new(Compare), false)?,
        engine(Arc::new(CopyAll), false)?,
        engine(write_protect, true)?,
        Box::new(PageGuard::new(buffers, len)?),
    ];
    // As after long use: the host wrote everything once, and the device what it may.
    let everything: Vec<_> = (0..buffers).map(|buffer| (buffer, 0..len)).collect();
    for contender in &mut contenders {
        for view in contender.views() {
            for at in (0..len).step_by(tidemark_winsys::page_size()) {
                // SAFETY: inside a live buffer.
                unsafe { view.wrapping_add(at).cast::<u64>().write_volatile(0) };
            }
        }
        let written = if workload.device == Device::Reads { &[] } else { &*everything };
        contender.before_batch(&everything, written);
        contender.after_wait(written);
    }
    for (index, contender) in contenders.iter_mut().enumerate() {
        let (rounds, time) = if index == ADAPTIVE { effort.learning } else { effort.warm_up };
        let start = Instant::now();
        for number in 0..rounds {
            run(&mut **contender, &workload.round(number), number);
            if start.elapsed() > time && number > 0 {
                break;
            }
        }
    }
    let mut number = effort.learning.0;
    let mut times: [Vec<f64>; NAMES.len()] = Default::default();
    let mut plain_times = Vec::new();
    let start = Instant::now();
    while plain_times.len() < effort.least || start.elapsed() < effort.time {
        number += 1;
        let round = workload.round(number);
        plain_times.push(run(&mut plain, &round, number));
        // In another order each time: what one leaves in the caches is the next one's weather.
        let mut order: Vec<usize> = (0..NAMES.len()).collect();
        shuffle(&mut order, number);
        for which in order {
            times[which].push(run(&mut *contenders[which], &round, number));
        }
        for (contender, name) in contenders.iter().zip(NAMES) {
            verify(&**contender, &round, number)
                .map_err(|what| format!("{name}, {}: {what}", workload.name))?;
        }
    }
    let rounds = plain_times.len();
    let plain = Sorted::new(plain_times).median();
    let overheads = times.map(|times| {
        let times = Sorted::new(times);
        Overhead { median: times.median() - plain, spread: times.spread(), mean: times.mean() - plain }
    });
    Ok(Outcome { rounds, plain, overheads })
}

/// One round: the host writes, the device gets to see it and writes itself, the host reads. Returns what it took,
/// without the device's own work.
fn run(contender: &mut dyn Contender, round: &Round, number: usize) -> f64 {
    let start = Instant::now();
    for &(buffer, offset) in &round.writes {
        // SAFETY: an aligned word inside a live buffer.
        unsafe { contender.views()[buffer].wrapping_add(offset).cast::<u64>().write_volatile(number as u64) };
    }
    contender.before_batch(&round.used, &round.may_write);
    let mut time = start.elapsed();
    if !round.device_writes.is_empty() {
        for &(buffer, offset) in &round.device_writes {
            let word = contender.devices()[buffer].wrapping_add(offset).cast::<u64>();
            // SAFETY: as above.
            unsafe { word.write_volatile(!(number as u64)) };
        }
        let start = Instant::now();
        contender.after_wait(&round.may_write);
        for &(buffer, offset) in &round.device_writes {
            // SAFETY: as above.
            unsafe { contender.views()[buffer].wrapping_add(offset).cast::<u64>().read_volatile() };
        }
        time += start.elapsed();
    }
    time.as_secs_f64() * 1e9
}

/// Whether the device has what the host wrote. (What the host has is not looked at: a page guard loses bytes there.)
fn verify(contender: &dyn Contender, round: &Round, number: usize) -> Result<(), String> {
    for &(buffer, offset) in &round.writes {
        let word = contender.devices()[buffer].wrapping_add(offset).cast::<u64>();
        // SAFETY: an aligned word inside a live buffer.
        let found = unsafe { word.read_volatile() };
        if found != number as u64 {
            return Err(format!("buffer {buffer} has {found} at {offset}, not {number}"));
        }
    }
    Ok(())
}
