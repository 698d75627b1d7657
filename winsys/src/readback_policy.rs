//! When a readback is put off until the host touches a page, and when it is done at once.
//!
//! An eager readback compares every page that the device may have written. A lazy one costs unmapping these pages, and
//! for each window of them that the host then touches a fault, a comparison and mapping it again. What the device wrote
//! decides nothing: what the host reads does, and only lazy readbacks show that.
//!
//! So both are kept in one account per allocation, in time: what lazy readbacks *spent*, and what the eager ones would
//! have cost that they *avoided*, which is the pages times what a page's comparison was last measured to cost. Both fade,
//! so that a few rounds count. As soon as more was spent than avoided, what is left is read back at once, even in the
//! middle of a round: however the host behaves, that bounds what laziness can lose by what the last rounds would
//! have cost anyway. It is tried again after a while, and after longer whiles as long as it does not pay.

use std::time::Duration;

/// How device writes get to the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readback {
    /// As it is cheaper, allocation by allocation.
    #[default]
    Auto,
    /// Everything the device may have written is compared when it is done.
    Eager,
    /// What the device may have written is brought in when it is touched, wherever the kernel lets it.
    Lazy,
}

impl Readback {
    /// Every value, in the order of preference.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Eager, Self::Lazy];
}

impl std::fmt::Display for Readback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Eager => "eager",
            Self::Lazy => "lazy",
        })
    }
}

/// Nanoseconds from a touch to the pager's thread, and back: the one cost that the thread cannot measure itself. On two
/// processors a fault was measured to take 6 to 8 us in all, of which the thread is at work for 2 to 3.
const ROUND_TRIP: f32 = 5_000.0;

/// Faults that must be cheaper than an eager readback for a lazy one to be considered: nobody reads less than a window
/// or two.
const LEAST_FAULTS: f32 = 3.0;

/// Pages compared at once from which on the time that it took tells what a page costs.
pub(crate) const MEASURED: usize = 16;

/// Allocations of fewer pages are never worth it: comparing so many costs less than a fault, on any machine.
const LEAST_PAGES: usize = 16;

/// What is left of both sides of the account after a round.
const FADE: f32 = 0.75;

/// Rounds that pay in a row after which laziness has proved itself.
const PROOF: u32 = 8;

/// Eager readbacks before a lazy one is tried again: first, and at most.
const INTERVALS: std::ops::Range<u32> = 8..256;

/// One allocation's choice.
#[derive(Debug)]
pub(crate) struct ReadbackPolicy {
    is_forced: bool,
    mode: Mode,
    /// Eager readbacks before the next trial, next time.
    interval: u32,
    /// Nanoseconds that comparing a page costs, once known.
    page: Option<f32>,
    /// Nanoseconds that lazy readbacks took, and that eager ones in their place would have.
    spent: f32,
    avoided: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// So many more before a lazy one.
    Eager { left: u32 },
    /// So many have paid.
    Lazy { rounds: u32 },
    /// Laziness does not work here.
    Never,
}

impl ReadbackPolicy {
    /// For an allocation of `pages`; `None` if all its readbacks will be eager.
    pub(crate) fn new(choice: Readback, pages: usize) -> Option<Self> {
        let is_forced = match choice {
            Readback::Eager => return None,
            Readback::Auto if pages < LEAST_PAGES => return None,
            Readback::Auto => false,
            Readback::Lazy => true,
        };
        // The first tells what an eager readback costs, the second is a trial.
        let mode = if is_forced { Mode::Lazy { rounds: 0 } } else { Mode::Eager { left: 0 } };
        let interval = INTERVALS.start;
        Some(Self { is_forced, mode, interval, page: None, spent: 0.0, avoided: 0.0 })
    }

    /// Whether a readback of so many pages, now, is to be lazy.
    pub(crate) fn is_lazy(&mut self, pages: usize) -> bool {
        if !self.considers(pages) {
            return false;
        }
        if self.is_forced {
            return true;
        }
        let eager = self.eager(pages);
        match &mut self.mode {
            Mode::Never => return false,
            Mode::Eager { left: 0 } => {
                self.mode = Mode::Lazy { rounds: 0 };
                (self.spent, self.avoided) = (0.0, 0.0);
            }
            Mode::Eager { left } => {
                *left -= 1;
                return false;
            }
            Mode::Lazy { .. } if self.spent > self.avoided => {
                self.mode = Mode::Eager { left: self.interval };
                self.interval = (self.interval * 2).min(INTERVALS.end);
                return false;
            }
            Mode::Lazy { rounds } => {
                *rounds += 1;
                if *rounds >= PROOF {
                    self.interval = INTERVALS.start;
                }
            }
        }
        self.spent *= FADE;
        self.avoided = self.avoided * FADE + eager;
        true
    }

    /// Whether a readback of so many pages might be lazy, now or some time.
    pub(crate) fn considers(&self, pages: usize) -> bool {
        let is_large = || self.eager(pages) >= LEAST_FAULTS * ROUND_TRIP;
        self.mode != Mode::Never && (self.is_forced || is_large())
    }

    /// Whether somebody asked for it.
    pub(crate) fn is_forced(&self) -> bool {
        self.is_forced
    }

    /// It cannot be.
    pub(crate) fn give_up(&mut self) {
        self.mode = Mode::Never;
    }

    /// Comparing so many pages took so long.
    pub(crate) fn observe_comparison(&mut self, time: Duration, pages: usize) {
        if pages < MEASURED {
            return;
        }
        let new = nanoseconds(time) / in_pages(pages);
        self.page = Some(match self.page {
            None => new,
            // The first ones make the pages, too: nothing keeps them from being too high for long.
            Some(page) if new < page => page + (new - page) / 2.0,
            // And not much at once: the thread may have been preempted in the middle.
            Some(page) => page + (new.min(page * 2.0) - page) / 8.0,
        });
    }

    /// Unmapping pages for a readback of so many took so long.
    pub(crate) fn observe_unmapping(&mut self, time: Duration, pages: usize) {
        // Never as much as comparing them, unless the thread was preempted in the middle.
        let most = self.eager(pages) / 2.0;
        self.spent += nanoseconds(time).min(most);
    }

    /// Answering a fault by so many pages took so long. Returns whether what is left should rather be read back at once.
    pub(crate) fn observe_fault(&mut self, time: Duration, pages: usize) -> bool {
        // Mapping a page costs less than comparing it. What takes far longer than both was preempted, too.
        let most = 4.0 * (ROUND_TRIP + self.eager(pages));
        self.spent += nanoseconds(time).min(most) + ROUND_TRIP;
        !self.is_forced && self.spent > self.avoided
    }

    /// Nanoseconds to compare so many pages, as far as is known.
    fn eager(&self, pages: usize) -> f32 {
        in_pages(pages) * self.page.unwrap_or(0.0)
    }
}

fn nanoseconds(time: Duration) -> f32 {
    time.as_secs_f32() * 1e9
}

#[expect(clippy::cast_precision_loss, reason = "a number of pages, of which a rough idea will do")]
fn in_pages(pages: usize) -> f32 {
    pages as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nanoseconds to compare and to unmap a page.
    const PAGE: u64 = 500;
    const UNMAP: u64 = 20;

    /// A round: a readback of `pages`, after which the host touches so many windows of so many pages. Returns what it
    /// took in all, and whether it was lazy.
    fn round(policy: &mut ReadbackPolicy, pages: u64, windows: u64, window: u64) -> (u64, bool) {
        let all = usize::try_from(pages).unwrap();
        let nanoseconds = Duration::from_nanos;
        if !policy.is_lazy(all) {
            policy.observe_comparison(nanoseconds(pages * PAGE), all);
            return (pages * PAGE, false);
        }
        policy.observe_unmapping(nanoseconds(pages * UNMAP), all);
        let mut total = pages * UNMAP;
        for fetched in 1..=windows {
            let time = window * (PAGE + 200);
            total += time + 5_000;
            if policy.observe_fault(nanoseconds(time), usize::try_from(window).unwrap()) {
                return (total + pages.saturating_sub(fetched * window) * PAGE, true);
            }
        }
        (total, true)
    }

    fn auto(pages: usize) -> ReadbackPolicy {
        ReadbackPolicy::new(Readback::Auto, pages).unwrap()
    }

    #[test]
    fn a_sparse_reader_is_found_out_at_the_second_readback() {
        let mut policy = auto(4096);
        assert!(!round(&mut policy, 4096, 1, 4).1);
        assert!((0..1000).all(|_| round(&mut policy, 4096, 1, 4).1));
    }

    #[test]
    fn a_dense_reader_costs_little_more_than_with_eager_readbacks() {
        for window in [1, 4, 512] {
            let mut policy = auto(4096);
            let eager = 4096 * PAGE;
            (0..150).for_each(|_| _ = round(&mut policy, 4096, 4096 / window, window));
            let rounds = 1000;
            let spent: u64 = (0..rounds).map(|_| round(&mut policy, 4096, 4096 / window, window).0).sum();
            assert!(spent <= rounds * eager * 105 / 100, "{window}: {}", spent / rounds);
        }
    }

    #[test]
    fn no_round_costs_much_more_than_the_eager_ones_it_replaces() {
        let mut policy = auto(4096);
        round(&mut policy, 4096, 0, 1);
        // The trial meets the worst that a host can do: every page by a fault of its own.
        let (trial, is_lazy) = round(&mut policy, 4096, 4096, 1);
        assert!(is_lazy && trial <= 4096 * PAGE * 22 / 10, "{trial}");
        assert!(!round(&mut policy, 4096, 4096, 1).1);
    }

    #[test]
    fn small_readbacks_are_eager() {
        assert!(ReadbackPolicy::new(Readback::Auto, LEAST_PAGES - 1).is_none());
        let mut policy = auto(4096);
        assert!((0..100).all(|_| !round(&mut policy, 24, 0, 1).1));
    }

    #[test]
    fn a_host_that_changes_its_ways_is_followed() {
        let mut policy = auto(4096);
        (0..2_000).for_each(|_| _ = round(&mut policy, 4096, 4096, 1));
        let sparse: Vec<bool> = (0..600).map(|_| round(&mut policy, 4096, 1, 4).1).collect();
        assert!(sparse[300..].iter().all(|is_lazy| *is_lazy));
        let dense: Vec<bool> = (0..100).map(|_| round(&mut policy, 4096, 4096, 1).1).collect();
        assert!(dense.iter().filter(|is_lazy| **is_lazy).count() <= 5, "{dense:?}");
    }

    #[test]
    fn a_thread_that_is_preempted_once_proves_nothing() {
        let mut policy = auto(4096);
        (0..10).for_each(|_| _ = round(&mut policy, 4096, 1, 4));
        policy.observe_unmapping(Duration::from_millis(50), 4096);
        assert!(!policy.observe_fault(Duration::from_millis(50), 4));
        assert!(round(&mut policy, 4096, 1, 4).1);
    }

    #[test]
    fn what_the_first_comparison_exaggerates_is_soon_corrected() {
        let mut policy = auto(4096);
        policy.observe_comparison(Duration::from_nanos(4096 * PAGE * 10), 4096);
        (0..8).for_each(|_| policy.observe_comparison(Duration::from_nanos(512 * PAGE), 512));
        assert!(policy.page.unwrap() < 1.1 * 500.0);
    }

    #[test]
    fn what_is_forced_is_lazy_until_it_cannot_be() {
        let mut policy = ReadbackPolicy::new(Readback::Lazy, 1).unwrap();
        assert!((0..100).all(|_| round(&mut policy, 1, 1, 1).1));
        policy.give_up();
        assert!(!policy.is_lazy(1));
        assert!(ReadbackPolicy::new(Readback::Eager, 1 << 20).is_none());
    }
}
