//! How far each queue is known to be.
//!
//! Submitted batches are numbered, queue by queue. A wait teaches that a queue is past a number; what earlier batches
//! wrote has then been read back for good.
//!
//! While no memory has a mirror, nobody notes what batches use: they are counted, and that is all.

use crate::tables::HandleMap;
use ash::vk::{self, Handle};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tidemark_winsys::LockExt;

/// A batch: all of its queue up to and including it are done when it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    queue: usize,
    number: u64,
}

/// The batches of one queue.
#[derive(Default)]
pub(crate) struct Batches {
    /// Place of the queue among those of its device.
    queue: usize,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    submitted: u64,
    /// Those of them whose uses nobody noted.
    unnoted: u64,
}

/// The progress of a device.
#[derive(Default)]
pub(crate) struct Progress {
    /// Of each queue that was fetched.
    queues: Mutex<Vec<Arc<Batches>>>,
    /// Memories that have a mirror. While there is none, nobody notes what batches use.
    ///
    /// Who adds one counts it first, and then looks at the batches of every queue. A batch looks at this number while
    /// it holds the lock of its queue's counts: either it had the lock before, and is among those found, or it has it
    /// after, and finds the number raised.
    mirrors: AtomicU64,
    known: Mutex<Known>,
}

/// What waits taught, and what further ones will.
#[derive(Default)]
struct Known {
    done: Done,
    fences: HandleMap<Point>,
    /// Signals to come of timeline semaphores: the value, and the batch that signals it.
    timelines: HandleMap<VecDeque<(u64, Point)>>,
}

/// How far each queue was known to be at some time: the number of a batch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done(Vec<u64>);

/// Signals of one timeline semaphore that are remembered. Forgetting one is no harm: its batches then count as done
/// when a later one is known to be.
const SIGNALS: usize = 64;

impl Point {
    /// Whether one of the two is done when the other is and comes later.
    pub(crate) fn is_of_queue_of(self, other: Self) -> bool {
        self.queue == other.queue
    }
}

impl Batches {
    /// The last one so far.
    pub(crate) fn last(&self) -> Point {
        self.point(&self.counts.hold())
    }

    fn point(&self, counts: &Counts) -> Point {
        Point { queue: self.queue, number: counts.submitted }
    }
}

impl Progress {
    /// The batches of one more queue.
    pub(crate) fn add_queue(&self) -> Arc<Batches> {
        let mut queues = self.queues.hold();
        let batches = Arc::new(Batches { queue: queues.len(), ..Batches::default() });
        queues.push(batches.clone());
        batches
    }

    /// Numbers the next batch of a queue, and tells whether its uses must be noted. To be called in the order of
    /// submission, which applications synchronise.
    pub(crate) fn next(&self, batches: &Batches) -> (Point, bool) {
        let mut counts = batches.counts.hold();
        counts.submitted += 1;
        let is_noted = self.has_mirrors();
        counts.unnoted += u64::from(!is_noted);
        (batches.point(&counts), is_noted)
    }

    /// Whether there are mirrors, and what batches use is noted.
    pub(crate) fn has_mirrors(&self) -> bool {
        self.mirrors.load(Ordering::Relaxed) > 0
    }

    /// Batches so far whose uses nobody noted.
    pub(crate) fn unnoted(&self) -> u64 {
        self.queues.hold().iter().map(|batches| batches.counts.hold().unnoted).sum()
    }

    /// There is one more mirror. Returns whether batches were submitted since there were `unnoted_before` that nobody
    /// noted, which may be any of the last ones.
    pub(crate) fn add_mirror(&self, unnoted_before: u64) -> Option<Vec<Point>> {
        // A queue that is fetched later takes this lock later, and its batches find the number raised.
        let queues = self.queues.hold();
        self.mirrors.fetch_add(1, Ordering::Relaxed);
        let (mut unnoted, mut points) = (0, Vec::new());
        for batches in &*queues {
            let counts = batches.counts.hold();
            unnoted += counts.unnoted;
            points.push(batches.point(&counts));
        }
        (unnoted != unnoted_before).then_some(points)
    }

    /// There is one mirror less.
    pub(crate) fn remove_mirror(&self) {
        self.mirrors.fetch_sub(1, Ordering::Relaxed);
    }

    /// `fence` will signal once `point` is done.
    pub(crate) fn fence_follows(&self, fence: vk::Fence, point: Point) {
        self.known.hold().fences.insert(fence.as_raw(), point);
    }

    /// The batches that `fences`, as submitted last, stand for.
    pub(crate) fn of_fences(&self, fences: &[vk::Fence]) -> Vec<Point> {
        let known = self.known.hold();
        fences.iter().filter_map(|fence| known.fences.get(&fence.as_raw()).copied()).collect()
    }

    /// Forgets a fence that is destroyed, so that a new one of the same handle does not inherit.
    pub(crate) fn forget_fence(&self, fence: vk::Fence) {
        self.known.hold().fences.remove(&fence.as_raw());
    }

    /// How many fences and how many timeline semaphores are remembered.
    pub(crate) fn remembered(&self) -> (usize, usize) {
        let known = self.known.hold();
        (known.fences.len(), known.timelines.len())
    }

    /// `semaphore` will reach `value` once `point` is done.
    pub(crate) fn timeline_follows(&self, semaphore: vk::Semaphore, value: u64, point: Point) {
        let mut known = self.known.hold();
        let signals = known.timelines.entry(semaphore.as_raw()).or_default();
        if signals.len() == SIGNALS {
            signals.pop_front();
        }
        signals.push_back((value, point));
    }

    /// The batches that are done if `semaphore` has reached `value`.
    pub(crate) fn of_timeline(&self, semaphore: vk::Semaphore, value: u64) -> Vec<Point> {
        let known = self.known.hold();
        let signals = known.timelines.get(&semaphore.as_raw());
        signals.into_iter().flatten().filter(|(at, _)| *at <= value).map(|(_, point)| *point).collect()
    }

    /// Forgets a semaphore that is destroyed.
    pub(crate) fn forget_semaphore(&self, semaphore: vk::Semaphore) {
        self.known.hold().timelines.remove(&semaphore.as_raw());
    }

    /// `points` are done. Returns all that is known to be.
    pub(crate) fn learn(&self, points: &[Point]) -> Done {
        let Known { done, timelines, .. } = &mut *self.known.hold();
        points.iter().for_each(|point| done.add(*point));
        timelines.retain(|_, signals| {
            signals.retain(|(_, point)| !done.includes(*point));
            !signals.is_empty()
        });
        done.clone()
    }

    /// What is known to be done.
    pub(crate) fn done(&self) -> Done {
        self.known.hold().done.clone()
    }
}

impl Done {
    /// Whether a batch was known to be done.
    pub(crate) fn includes(&self, point: Point) -> bool {
        self.0.get(point.queue).is_some_and(|done| *done >= point.number)
    }

    fn add(&mut self, point: Point) {
        if self.0.len() <= point.queue {
            self.0.resize(point.queue + 1, 0);
        }
        self.0[point.queue] = self.0[point.queue].max(point.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_before_a_known_batch_is_done_and_what_comes_after_is_not() {
        let progress = Progress::default();
        let [_, batches] = [(); 2].map(|()| progress.add_queue());
        let [first, second, third] = [(); 3].map(|()| progress.next(&batches).0);
        let fence = vk::Fence::from_raw(7);
        progress.fence_follows(fence, second);
        let done = progress.learn(&progress.of_fences(&[fence]));
        assert_eq!([first, second, third].map(|point| done.includes(point)), [true, true, false]);
    }

    #[test]
    fn a_queue_tells_nothing_of_another() {
        let progress = Progress::default();
        let [one, other] = [(); 2].map(|()| progress.add_queue()).map(|batches| progress.next(&batches).0);
        let done = progress.learn(&[one]);
        assert_eq!([one, other].map(|point| done.includes(point)), [true, false]);
    }

    #[test]
    fn batches_are_noted_while_there_is_a_mirror_and_counted_while_there_is_none() {
        let progress = Progress::default();
        let batches = progress.add_queue();
        assert!(!progress.next(&batches).1);
        let before = progress.unnoted();
        assert_eq!(progress.add_mirror(before), None, "nothing happened since");
        assert!(progress.next(&batches).1);
        progress.remove_mirror();
        let (point, _) = progress.next(&batches);
        assert_eq!(progress.add_mirror(before), Some(vec![point]));
    }

    #[test]
    fn a_batch_is_noted_or_found_by_who_adds_a_mirror() {
        for _ in 0..200 {
            let progress = Progress::default();
            let batches = progress.add_queue();
            let (found, (point, is_noted)) = std::thread::scope(|scope| {
                let found = scope.spawn(|| progress.add_mirror(0));
                let next = progress.next(&batches);
                (found.join().unwrap(), next)
            });
            assert_ne!(is_noted, found == Some(vec![point]), "{found:?}");
        }
    }

    #[test]
    fn a_timeline_value_stands_for_the_signals_up_to_it() {
        let progress = Progress::default();
        let batches = progress.add_queue();
        let semaphore = vk::Semaphore::from_raw(3);
        let points = [10, 20, 30].map(|value| {
            let (point, _) = progress.next(&batches);
            progress.timeline_follows(semaphore, value, point);
            point
        });
        assert_eq!(progress.of_timeline(semaphore, 25), points[..2]);
        assert_eq!(progress.of_timeline(semaphore, 9), []);
        progress.learn(&points[..2]);
        assert_eq!(progress.of_timeline(semaphore, 30), points[2..]);
    }
}
