//! How far each queue is known to be.
//!
//! Submitted batches are numbered, queue by queue. A wait teaches that a queue is past a number; what earlier batches
//! wrote has then been read back for good.

use crate::tables::HandleMap;
use ash::vk::{self, Handle};
use std::collections::VecDeque;

/// A batch: all of its queue up to and including it are done when it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    queue: u64,
    number: u64,
}

/// Signals of one timeline semaphore that are remembered. Forgetting one is no harm: its batches then count as done
/// when a later one is known to be.
const SIGNALS: usize = 64;

#[derive(Default)]
pub(crate) struct Progress {
    queues: HandleMap<QueueProgress>,
    fences: HandleMap<Point>,
    /// Signals to come of timeline semaphores: the value, and the batch that signals it.
    timelines: HandleMap<VecDeque<(u64, Point)>>,
    /// Memories that have a mirror. While there is none, nobody notes what batches use.
    pub(crate) mirrors: u64,
    /// Batches whose uses nobody noted.
    pub(crate) unnoted: u64,
}

#[derive(Default)]
struct QueueProgress {
    submitted: u64,
    done: u64,
}

impl Point {
    /// Whether one of the two is done when the other is and comes later.
    pub(crate) fn is_of_queue_of(self, other: Self) -> bool {
        self.queue == other.queue
    }
}

impl Progress {
    /// Numbers the next batch of a queue, and tells whether its uses must be noted. To be called in the order of
    /// submission, which applications synchronise.
    pub(crate) fn next(&mut self, queue: vk::Queue) -> (Point, bool) {
        let state = self.queues.entry(queue.as_raw()).or_default();
        state.submitted += 1;
        let is_noted = self.mirrors > 0;
        self.unnoted += u64::from(!is_noted);
        (Point { queue: queue.as_raw(), number: state.submitted }, is_noted)
    }

    /// The last batch of a queue so far.
    pub(crate) fn last(&self, queue: vk::Queue) -> Point {
        let number = self.queues.get(&queue.as_raw()).map_or(0, |state| state.submitted);
        Point { queue: queue.as_raw(), number }
    }

    /// The last batch of every queue so far: all are done when the device is idle.
    pub(crate) fn last_of_all(&self) -> Vec<Point> {
        self.queues.iter().map(|(&queue, state)| Point { queue, number: state.submitted }).collect()
    }

    /// `fence` will signal once `point` is done.
    pub(crate) fn fence_follows(&mut self, fence: vk::Fence, point: Point) {
        self.fences.insert(fence.as_raw(), point);
    }

    /// The batch that `fence`, as submitted last, stands for.
    pub(crate) fn of_fence(&self, fence: vk::Fence) -> Option<Point> {
        self.fences.get(&fence.as_raw()).copied()
    }

    /// Forgets a fence that is destroyed, so that a new one of the same handle does not inherit.
    pub(crate) fn forget_fence(&mut self, fence: vk::Fence) {
        self.fences.remove(&fence.as_raw());
    }

    /// `semaphore` will reach `value` once `point` is done.
    pub(crate) fn timeline_follows(&mut self, semaphore: vk::Semaphore, value: u64, point: Point) {
        let signals = self.timelines.entry(semaphore.as_raw()).or_default();
        if signals.len() == SIGNALS {
            signals.pop_front();
        }
        signals.push_back((value, point));
    }

    /// The batches that are done if `semaphore` has reached `value`.
    pub(crate) fn of_timeline(&self, semaphore: vk::Semaphore, value: u64) -> Vec<Point> {
        let signals = self.timelines.get(&semaphore.as_raw());
        signals.into_iter().flatten().filter(|(at, _)| *at <= value).map(|(_, point)| *point).collect()
    }

    /// Forgets a semaphore that is destroyed.
    pub(crate) fn forget_semaphore(&mut self, semaphore: vk::Semaphore) {
        self.timelines.remove(&semaphore.as_raw());
    }

    /// `points` are done.
    pub(crate) fn learn(&mut self, points: &[Point]) {
        for point in points {
            if let Some(state) = self.queues.get_mut(&point.queue) {
                state.done = state.done.max(point.number);
            }
        }
        let Self { queues, timelines, .. } = self;
        timelines.retain(|_, signals| {
            signals.retain(|(_, point)| !is_done(queues, *point));
            !signals.is_empty()
        });
    }

    /// There is one more mirror. Returns whether batches were submitted since `unnoted_before` that nobody noted, which
    /// may be any of the last ones.
    pub(crate) fn add_mirror(&mut self, unnoted_before: u64) -> Option<Vec<Point>> {
        self.mirrors += 1;
        (self.unnoted != unnoted_before).then(|| self.last_of_all())
    }

    /// Whether a batch is known to be done.
    pub(crate) fn is_done(&self, point: Point) -> bool {
        is_done(&self.queues, point)
    }
}

fn is_done(queues: &HandleMap<QueueProgress>, point: Point) -> bool {
    queues.get(&point.queue).is_some_and(|state| state.done >= point.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: vk::Queue = vk::Queue::null();

    #[test]
    fn what_comes_before_a_known_batch_is_done_and_what_comes_after_is_not() {
        let mut progress = Progress::default();
        let [first, second, third] = [(); 3].map(|()| progress.next(QUEUE).0);
        let fence = vk::Fence::from_raw(7);
        progress.fence_follows(fence, second);
        progress.learn(&[progress.of_fence(fence).unwrap()]);
        assert_eq!([first, second, third].map(|point| progress.is_done(point)), [true, true, false]);
    }

    #[test]
    fn batches_are_noted_while_there_is_a_mirror_and_counted_while_there_is_none() {
        let mut progress = Progress::default();
        assert!(!progress.next(QUEUE).1);
        let before = progress.unnoted;
        assert_eq!(progress.add_mirror(before), None, "nothing happened since");
        assert!(progress.next(QUEUE).1);
        progress.mirrors -= 1;
        let (point, _) = progress.next(QUEUE);
        assert_eq!(progress.add_mirror(before), Some(vec![point]));
    }

    #[test]
    fn a_timeline_value_stands_for_the_signals_up_to_it() {
        let mut progress = Progress::default();
        let semaphore = vk::Semaphore::from_raw(3);
        let points = [10, 20, 30].map(|value| {
            let (point, _) = progress.next(QUEUE);
            progress.timeline_follows(semaphore, value, point);
            point
        });
        assert_eq!(progress.of_timeline(semaphore, 25), points[..2]);
        assert_eq!(progress.of_timeline(semaphore, 9), []);
        progress.learn(&points[..2]);
        assert_eq!(progress.of_timeline(semaphore, 30), points[2..]);
    }
}
