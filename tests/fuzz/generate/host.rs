//! What the host does in a random program: reads, writes and mappings, most of them near where something is going on.

use super::{Generator, Kind};
use crate::program::{Means, OFFSET_ALIGNMENT, Op, Pieces, Value};
use std::ops::Range;

impl Generator<'_> {
    pub(super) fn some_memory(&mut self) -> usize {
        let coherent = self.coherent_memories();
        self.random.pick(&coherent)
    }

    pub(super) fn some_team(&mut self) -> Option<u32> {
        let teams = &self.model.teams;
        (!teams.is_empty()).then(|| teams[self.random.index(teams.len())].team)
    }

    /// Writes all of a memory.
    pub(super) fn fill(&mut self, memory: usize) {
        let pieces = Pieces::one(0, self.model.world.memories[memory].size);
        let value = self.value();
        self.push(Op::Write { memory, pieces, means: Means::Bulk, value });
    }

    pub(super) fn value(&mut self) -> Value {
        match self.random.below(4) {
            // Few values: what changes back looks unchanged.
            0 => Value::Same(self.random.pick(&[0, 0, 1, 0xFF])),
            1 => Value::Same(self.random.below(256) as u8),
            _ => Value::Noise(self.random.word()),
        }
    }

    /// A place in `within` (of all memories): anywhere, or where it may matter.
    pub(super) fn spot(&mut self, within: &Range<u32>) -> u32 {
        let random = &mut self.random;
        let near = match random.below(8) {
            0 | 1 => return within.start + random.below(within.len() as u32),
            2 => within.start + random.below(within.len() as u32 / 4096 + 1) * 4096,
            3 => within.end,
            4 | 5 => {
                let batches = &self.model.batches;
                let recent = &batches[batches.len().saturating_sub(6)..];
                let edges = recent.iter().flat_map(|batch| batch.reads.iter().chain(batch.writes.iter()));
                let edges: Vec<u32> = edges
                    .flat_map(|range| [range.start, range.end])
                    .filter(|edge| within.contains(edge))
                    .collect();
                if edges.is_empty() { within.start } else { random.pick(&edges) }
            }
            6 => {
                let recent: Vec<u32> =
                    self.recent.iter().copied().filter(|spot| within.contains(spot)).collect();
                if recent.is_empty() { within.start } else { random.pick(&recent) }
            }
            _ => within.start,
        };
        let spot = (near + random.below(12)).saturating_sub(random.below(12));
        spot.clamp(within.start, within.end - 1)
    }

    fn length(&mut self) -> u32 {
        match self.random.below(20) {
            0..9 => self.random.between(1, 16),
            9..14 => self.random.between(1, 200),
            14..17 => self.random.between(1, 5_000),
            17 => self.random.between(1, 4) * 4096,
            _ => u32::MAX,
        }
    }

    /// Runs of bytes in `within`, relative to its start.
    pub(super) fn pieces(&mut self, within: &Range<u32>) -> Pieces {
        let at = self.spot(within);
        self.recent.push(at);
        let (at, left) = (at - within.start, within.end - at);
        if self.random.chance(60) {
            return Pieces::one(at, self.length().min(left));
        }
        let len = self.random.pick(&[1, 1, 2, 3, 4, 4, 8, 64]).min(left);
        let stride = len + self.random.pick(&[1, 1, 2, 3, 4, 4, 8, 60, 256, 4096 - len]);
        let count = self.random.between(2, 48).min((left - len) / stride + 1);
        Pieces { at, len, stride, count }
    }

    /// The bytes between those that a batch writes at regular distances.
    fn gaps(&mut self, within: &Range<u32>) -> Option<Pieces> {
        let batches: Vec<u32> = self.model.running().map(|batch| batch.id).collect();
        let batch = self.model.batch(*batches.get(self.random.index(batches.len()))?)?;
        let written: Vec<Range<u32>> = batch.writes.clipped(within).iter().collect();
        let [first, second, ..] = &written[..] else { return None };
        let stride = second.start - first.start;
        let is_regular = written.windows(2).all(|pair| pair[1].start - pair[0].start == stride);
        let count = u32::try_from(written.len()).ok()? - 1;
        let (at, len) = (first.end - within.start, second.start - first.end);
        is_regular.then_some(Pieces { at, len, stride, count })
    }

    pub(super) fn host_access(&mut self, kind: Kind) -> Option<Op> {
        let mapped: Vec<usize> =
            (0..self.model.mapped.len()).filter(|&memory| self.model.mapped[memory].is_some()).collect();
        if mapped.is_empty() {
            return None;
        }
        let memory = self.random.pick(&mapped);
        let within = self.model.mapped[memory].clone()?;
        let gaps = if self.random.chance(25) { self.gaps(&within) } else { None };
        let pieces = match gaps {
            Some(gaps) => gaps,
            None => self.pieces(&within),
        };
        let pieces = pieces.moved(within.start - self.model.world.memories[memory].base);
        let means = if matches!(pieces.len, 1 | 2 | 4 | 8) && self.random.chance(70) {
            Means::Single
        } else {
            let means = self.random.pick(&[Means::Bulk, Means::Bulk, Means::File, Means::Pipe]);
            if means == Means::Pipe && pieces.len > 4096 { Means::File } else { means }
        };
        Some(match kind {
            Kind::Read => Op::Read { memory, pieces, means },
            Kind::Spawn => {
                if self.model.teams.len() > 1 {
                    return None;
                }
                let (threads, rounds) = (self.random.between(1, 3), self.random.between(2, 40));
                let seed = self.random.word();
                Op::Spawn { team: self.number(), memory, pieces, threads, rounds, seed }
            }
            _ => Op::Write { memory, pieces, means, value: self.value() },
        })
    }

    /// A number not used before.
    pub(super) fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    pub(super) fn map(&mut self) -> Option<Op> {
        let unmapped: Vec<usize> = self.coherent_memories();
        let unmapped: Vec<usize> =
            unmapped.into_iter().filter(|&memory| self.model.mapped[memory].is_none()).collect();
        if unmapped.is_empty() {
            return None;
        }
        let memory = self.random.pick(&unmapped);
        if self.random.chance(60) {
            return Some(Op::Map { memory, offset: 0, size: None });
        }
        let plan = &self.model.world.memories[memory];
        let range = plan.range();
        let offset = self.spot(&range) - range.start;
        let left = range.len() as u32 - offset;
        let size = if self.random.chance(30) { None } else { Some(self.random.between(1, left)) };
        Some(Op::Map { memory, offset, size })
    }

    pub(super) fn replace(&mut self) -> Op {
        let memory = self.some_memory();
        let plan = &self.model.world.memories[memory];
        let (is_written, range) = (plan.pages.is_some() && self.random.chance(60), plan.range());
        let meanwhile = is_written.then(|| (self.pieces(&range), self.value()));
        Op::Replace { memory, meanwhile }
    }

    pub(super) fn maintain(&mut self) -> Op {
        let memory = self.some_memory();
        let blocks = self.model.world.memories[memory].size.div_ceil(OFFSET_ALIGNMENT);
        let offset = if self.random.chance(50) { 0 } else { self.random.below(blocks) * OFFSET_ALIGNMENT };
        if self.random.chance(50) { Op::Flush { memory, offset } } else { Op::Invalidate { memory, offset } }
    }
}
