//! Policy: which blocks of pages are tracked, and which are simply copied.
//!
//! A tracked page costs a fault for the first write after each flush; a page that is copied unasked costs the copy,
//! written or not. So a block in which more than a certain share of the pages is written each time is cheaper left
//! writable and copied whole. The share follows from what a fault and a copy cost on this machine. The first is
//! measured at start-up, the second at every flush. Kernel drivers that weigh faults against scans of dirty bits switch
//! at a tenth; against copies it is more like a third to a half.
//!
//! The choice is per block, not per allocation: applications put a few hot structures into large, mostly idle heaps.
//! It changes after several flushes that agree, and a copied block is tracked again for a round now and then, at growing
//! intervals, to see whether it is still worth it.

use crate::host_memory::Arena;
use crate::page_size;
use std::io;
use std::ops::Range;
use std::ptr;
use std::time::{Duration, Instant};

/// Pages in a block: 64 KiB of 4 KiB pages. Small enough to follow hot structures, large enough that a scan's fixed
/// cost is well below a copy of the block.
pub(crate) const BLOCK: usize = 16;

/// Dense flushes in a row after which a block is copied. A window that moves through the allocation is in a block for two
/// of them at its edges.
const DENSE: u8 = 3;

/// Flushes for which a block is copied before it is tracked for one again: first, and at most.
const INTERVALS: Range<u8> = 8..64;

/// What things cost here, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// A first write to a protected page.
    pub fault: f32,
    /// A copy of a page to the device.
    pub copy: f32,
    /// Asking the tracker, however little about.
    pub scan: f32,
}

impl Costs {
    /// Written pages of a block of `pages` from which on it is cheaper to copy the whole of it.
    fn break_even(self, pages: usize) -> usize {
        // Every written page of a tracked block costs the fault and its copy.
        let tracked = |written| in_pages(written) * (self.fault + self.copy);
        (1..pages).find(|&written| tracked(written) >= in_pages(pages) * self.copy).unwrap_or(pages)
    }

    /// Whether so few pages are cheaper to copy than to ask about.
    fn never_asks_about(self, pages: usize) -> bool {
        in_pages(pages) * self.copy <= self.scan
    }

    /// Takes in what copying `pages` in a flush just cost.
    pub(crate) fn observe_copy(&mut self, time: Duration, pages: u64) {
        let pages = u32::try_from(pages).unwrap_or(u32::MAX).max(1);
        // An eighth of the new value, and not much at once: the thread may have been preempted in the middle.
        self.copy += (nanoseconds(time / pages).min(self.copy * 2.0) - self.copy) / 8.0;
    }

    /// Measures on memory of `arena`, in about a millisecond.
    ///
    /// # Errors
    /// No memory, or the tracker's refusal.
    pub(crate) fn measure(arena: &Arena) -> io::Result<Self> {
        const PAGES: u32 = 128;
        let len = PAGES as usize * page_size();
        let memory = arena.allocate(len)?;
        let touch = || {
            for at in (0..len).step_by(page_size()) {
                // SAFETY: inside the allocation, which nobody else knows.
                unsafe { memory.view().add(at).write_volatile(1) };
            }
        };
        touch();
        let mut best = Self { fault: f32::MAX, copy: f32::MAX, scan: f32::MAX };
        for _ in 0..4 {
            arena.tracker().arm(memory.span())?;
            let start = Instant::now();
            touch();
            let touched = Instant::now();
            // SAFETY: two parts of the allocation that do not overlap.
            unsafe { ptr::copy_nonoverlapping(memory.alias(), memory.twin(), len) };
            let copied = Instant::now();
            arena.tracker().arm(memory.span())?;
            let armed = Instant::now();
            // Nothing was written since.
            arena.tracker().collect(memory.span(), &mut Vec::new())?;
            best.scan = best.scan.min(nanoseconds(armed.elapsed()));
            best.fault = best.fault.min(nanoseconds((touched - start) / PAGES));
            best.copy = best.copy.min(nanoseconds((copied - touched) / PAGES));
        }
        Ok(best)
    }
}

/// How one allocation's blocks are treated.
#[derive(Debug)]
pub(crate) struct Policy {
    /// Pages of the allocation.
    pages: usize,
    /// Whether it is so small that it is copied always.
    is_tiny: bool,
    blocks: Vec<Block>,
    /// Tracked blocks with dense flushes behind them: the ones to look after when a flush finds nothing in them.
    warm: Vec<usize>,
    /// Blocks that are copied.
    copied: usize,
    /// Counts flushes.
    round: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Block {
    treatment: Treatment,
    /// Flushes to copy it for, next time.
    interval: u8,
    /// The flush that last found it dense.
    dense_at: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    /// Its pages are watched; so many flushes in a row found it dense.
    Tracked { dense: u8 },
    /// It is copied for so many more flushes.
    Copied { left: u8 },
}

impl Default for Treatment {
    fn default() -> Self {
        Self::Tracked { dense: 0 }
    }
}

/// What to do with some blocks at a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Ask the tracker.
    Collect,
    /// Take them for written.
    Copy,
    /// Take them for written, and have them watched from before the copy on.
    Arm,
}

impl Policy {
    /// For an allocation of `pages` pages: all tracked.
    pub(crate) fn new(pages: usize, costs: Costs) -> Self {
        let block = Block { interval: INTERVALS.start, ..Block::default() };
        Self {
            pages,
            is_tiny: costs.never_asks_about(pages),
            blocks: vec![block; pages.div_ceil(BLOCK)],
            warm: Vec::new(),
            copied: 0,
            round: 0,
        }
    }

    /// Starts a flush of `pages`: what to do with which of them, in order. Blocks are taken whole.
    pub(crate) fn plan(&mut self, pages: Range<usize>) -> Vec<(Range<usize>, Plan)> {
        self.round = self.round.wrapping_add(1);
        let blocks = pages.start / BLOCK..pages.end.div_ceil(BLOCK).min(self.blocks.len());
        if self.is_tiny || self.copied == 0 {
            let plan = if self.is_tiny { Plan::Copy } else { Plan::Collect };
            return Vec::from([(self.pages_of(blocks), plan)]);
        }
        let mut plans: Vec<(Range<usize>, Plan)> = Vec::new();
        for index in blocks {
            let plan = self.plan_block(index);
            let pages = self.pages_of(index..index + 1);
            match plans.last_mut() {
                Some((last, same)) if *same == plan => last.end = pages.end,
                _ => plans.push((pages, plan)),
            }
        }
        plans
    }

    fn plan_block(&mut self, index: usize) -> Plan {
        let block = &mut self.blocks[index];
        match &mut block.treatment {
            Treatment::Tracked { .. } => Plan::Collect,
            Treatment::Copied { left: 0 } => {
                // One more dense flush is then enough to go on copying, for longer.
                block.treatment = Treatment::Tracked { dense: DENSE - 1 };
                block.interval = block.interval.saturating_mul(2).min(INTERVALS.end);
                self.warm.push(index);
                self.copied -= 1;
                Plan::Arm
            }
            Treatment::Copied { left } => {
                *left -= 1;
                Plan::Copy
            }
        }
    }

    /// The tracker was asked about `asked`, whole blocks, and found `written` there (ascending, in pages).
    pub(crate) fn observe(
        &mut self,
        asked: Range<usize>,
        written: impl Iterator<Item = Range<usize>>,
        costs: Costs,
    ) {
        let mut current = (usize::MAX, 0);
        for pages in written {
            let mut at = pages.start;
            while at < pages.end {
                let index = at / BLOCK;
                let end = pages.end.min((index + 1) * BLOCK);
                if index != current.0 {
                    self.observe_block(current, costs);
                    current = (index, 0);
                }
                current.1 += end - at;
                at = end;
            }
        }
        self.observe_block(current, costs);
        self.cool_down(asked);
    }

    fn observe_block(&mut self, (index, written): (usize, usize), costs: Costs) {
        let pages = self.pages_of(index..index.saturating_add(1)).len();
        let Some(block) = self.blocks.get_mut(index) else { return };
        let Treatment::Tracked { dense } = &mut block.treatment else { return };
        if written < costs.break_even(pages) {
            return;
        }
        block.dense_at = self.round;
        *dense += 1;
        if *dense >= DENSE {
            block.treatment = Treatment::Copied { left: block.interval };
            self.copied += 1;
        } else if *dense == 1 {
            self.warm.push(index);
        }
    }

    /// Blocks that were asked about, and that this flush did not find dense, start anew.
    fn cool_down(&mut self, asked: Range<usize>) {
        let Self { blocks, warm, round, .. } = self;
        warm.retain(|&index| {
            let block = &mut blocks[index];
            let Treatment::Tracked { dense } = &mut block.treatment else { return false };
            let is_quiet = block.dense_at != *round && asked.contains(&(index * BLOCK));
            if is_quiet {
                *dense = 0;
                block.interval = INTERVALS.start;
            }
            !is_quiet
        });
    }

    /// The pages of blocks, without those past the end of the allocation.
    fn pages_of(&self, blocks: Range<usize>) -> Range<usize> {
        let page = |block: usize| block.saturating_mul(BLOCK).min(self.pages);
        page(blocks.start)..page(blocks.end)
    }
}

fn nanoseconds(time: Duration) -> f32 {
    time.as_secs_f32() * 1e9
}

#[expect(clippy::cast_precision_loss, reason = "a number of pages of one block")]
fn in_pages(pages: usize) -> f32 {
    pages as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: Costs = Costs { fault: 700.0, copy: 500.0, scan: 400.0 };

    /// A flush of four blocks, of which the tracker would find `written` written. Returns the plan by block.
    fn flush(policy: &mut Policy, written: Range<usize>) -> [Plan; 4] {
        let plans = policy.plan(0..4 * BLOCK);
        let of = |block: usize| {
            plans.iter().find(|(pages, _)| pages.contains(&(block * BLOCK))).map(|(_, plan)| *plan).unwrap()
        };
        let by_block = [0, 1, 2, 3].map(of);
        for (asked, _) in plans.iter().filter(|(_, plan)| *plan == Plan::Collect) {
            let found = asked.start.max(written.start)..asked.end.min(written.end);
            policy.observe(asked.clone(), std::iter::once(found).filter(|pages| !pages.is_empty()), COSTS);
        }
        by_block
    }

    #[test]
    fn break_even_lies_where_faults_cost_as_much_as_copies() {
        assert_eq!(COSTS.break_even(BLOCK), 7);
        assert_eq!(COSTS.break_even(2), 1);
        assert_eq!(Costs { fault: 10_000.0, ..COSTS }.break_even(BLOCK), 1);
        assert_eq!(Costs { fault: 1.0, ..COSTS }.break_even(BLOCK), BLOCK);
    }

    #[test]
    fn what_is_cheaper_to_copy_than_to_ask_about_is_copied_always() {
        let costs = Costs { scan: 1100.0, ..COSTS };
        for (pages, plan) in [(1, Plan::Copy), (2, Plan::Copy), (3, Plan::Collect)] {
            assert_eq!(Policy::new(pages, costs).plan(0..pages), [(0..pages, plan)]);
        }
    }

    #[test]
    fn a_dense_block_is_copied_and_its_neighbours_are_not() {
        let mut policy = Policy::new(4 * BLOCK, COSTS);
        for _ in 0..DENSE {
            assert_eq!(flush(&mut policy, BLOCK..2 * BLOCK), [Plan::Collect; 4]);
        }
        let expected = [Plan::Collect, Plan::Copy, Plan::Collect, Plan::Collect];
        assert_eq!(flush(&mut policy, BLOCK..2 * BLOCK), expected);
    }

    #[test]
    fn one_dense_flush_changes_nothing_nor_do_sparse_ones() {
        let mut policy = Policy::new(4 * BLOCK, COSTS);
        for round in 0..20 {
            let written = if round % 2 == 0 { 0..BLOCK } else { 0..2 };
            assert_eq!(flush(&mut policy, written), [Plan::Collect; 4]);
        }
    }

    #[test]
    fn flushes_of_other_blocks_do_not_count() {
        let mut policy = Policy::new(4 * BLOCK, COSTS);
        // A ring: each block in turn, written whole and flushed alone.
        for round in 0..4 * usize::from(DENSE) {
            let block = round % 4;
            let pages = block * BLOCK..(block + 1) * BLOCK;
            assert_eq!(policy.plan(pages.clone()), [(pages.clone(), Plan::Collect)]);
            policy.observe(pages.clone(), std::iter::once(pages), COSTS);
        }
        assert_eq!(policy.copied, 4);
    }

    #[test]
    fn a_window_that_moves_on_leaves_no_block_copied() {
        let mut policy = Policy::new(4 * BLOCK, COSTS);
        for start in (BLOCK / 2..20 * BLOCK).step_by(BLOCK) {
            let start = start % (3 * BLOCK);
            assert_eq!(flush(&mut policy, start..start + BLOCK), [Plan::Collect; 4]);
        }
    }

    #[test]
    fn a_block_that_calmed_down_finds_its_way_back() {
        let mut policy = Policy::new(4 * BLOCK, COSTS);
        for _ in 0..DENSE {
            flush(&mut policy, 0..BLOCK);
        }
        // Nothing is written any more. Within the first interval it is armed, then tracked for good.
        let plans: Vec<Plan> =
            (0..=usize::from(INTERVALS.start)).map(|_| flush(&mut policy, 0..0)[0]).collect();
        assert_eq!(plans.iter().filter(|plan| **plan == Plan::Arm).count(), 1);
        assert_eq!(plans.last(), Some(&Plan::Arm));
        assert!((0..100).all(|_| flush(&mut policy, 0..0)[0] == Plan::Collect));
    }

    #[test]
    fn a_block_that_stays_dense_is_probed_ever_less_often() {
        let mut policy = Policy::new(4 * BLOCK, COSTS);
        let plans: Vec<Plan> = (0..1000).map(|_| flush(&mut policy, 0..BLOCK)[0]).collect();
        let tracked = plans.iter().filter(|plan| **plan == Plan::Collect).count();
        let armed: Vec<usize> = (0..1000).filter(|&round| plans[round] == Plan::Arm).collect();
        assert!(tracked < 25, "tracked in {tracked} of 1000 rounds");
        assert!(armed.windows(2).all(|pair| pair[1] - pair[0] >= usize::from(INTERVALS.start)));
    }

    #[test]
    fn plans_cover_the_range_in_order_whatever_came_before() {
        let mut policy = Policy::new(100, COSTS);
        for (start, end) in [(0, 100), (3, 40), (33, 34), (0, 100), (90, 100), (0, 100)] {
            let plans = policy.plan(start..end);
            assert!(plans[0].0.start <= start && plans.last().unwrap().0.end >= end);
            assert!(plans.windows(2).all(|pair| pair[0].0.end == pair[1].0.start));
            policy.observe(0..100, std::iter::once(start..end), COSTS);
        }
    }
}
