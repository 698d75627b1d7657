//! What the device is asked to do in a random program: command buffers, descriptors, submits and waits.

use super::Generator;
use crate::model::Batch;
use crate::program::{Binding, By, Command, Gate, IMAGE, Op, Part, Pieces, Work};
use std::ops::Range;

impl Generator<'_> {
    pub(super) fn some_list(&mut self) -> usize {
        self.random.index(self.model.lists.len())
    }

    fn some_buffer(&mut self) -> usize {
        self.random.index(self.model.world.buffers.len())
    }

    /// The bytes of a buffer among those of all memories.
    fn range_of(&self, buffer: usize) -> Range<u32> {
        let start = self.model.world.address(buffer, 0);
        start..start + self.model.world.buffers[buffer].size
    }

    /// One of the latest batches for which `is_wanted` holds.
    pub(super) fn some_batch(&mut self, is_wanted: impl Fn(&Batch) -> bool) -> Option<u32> {
        let wanted = self.model.batches.iter().rev().filter(|batch| is_wanted(batch)).take(5);
        let wanted: Vec<u32> = wanted.map(|batch| batch.id).collect();
        (!wanted.is_empty()).then(|| self.random.pick(&wanted))
    }

    pub(super) fn wait(&mut self) -> Option<Op> {
        let batch = self.some_batch(|batch| batch.has_run && !batch.is_retired)?;
        let ways = [By::Fence, By::FenceStatus, By::Timeline, By::Counter, By::Event, By::Event];
        Some(Op::Wait { batch, by: self.random.pick(&ways) })
    }

    pub(super) fn peek(&mut self) -> Option<Op> {
        let batch = self.some_batch(|_| true)?;
        let ways = [By::Fence, By::FenceStatus, By::Timeline, By::Counter, By::Event];
        Some(Op::Peek { batch, by: self.random.pick(&ways) })
    }

    pub(super) fn bind(&mut self) -> Op {
        let mut binding = || {
            let buffer = self.some_buffer();
            let range = self.range_of(buffer);
            let offset = if self.random.chance(50) { 0 } else { self.spot(&range) - range.start };
            let offset = offset / crate::program::OFFSET_ALIGNMENT * crate::program::OFFSET_ALIGNMENT;
            let left = range.len() as u32 - offset;
            let size = if self.random.chance(60) { left } else { self.random.between(4, left) };
            Binding { buffer, offset, size }
        };
        let (input, output) = (binding(), binding());
        let set = self.random.index(self.model.sets.len());
        Op::Bind { set, input, output, by_template: self.random.chance(40) }
    }

    pub(super) fn record(&mut self) -> Option<Op> {
        let is_secondary = self.random.chance(20);
        let lists = self.model.world.lists.iter().zip(&self.model.lists).enumerate();
        let open = lists.filter(|(_, (plan, list))| plan.is_secondary == is_secondary && !list.is_sealed);
        // Few at a time, so that they grow.
        let open: Vec<usize> = open.map(|(list, _)| list).take(4).collect();
        if open.is_empty() {
            return None;
        }
        let list = self.random.pick(&open);
        let command = match self.random.below(20) {
            0..8 => self.copy(),
            8..10 => self.fill_command(),
            10..12 => self.update(),
            12..16 => self.dispatch()?,
            16..18 => self.image(),
            _ => self.execute()?,
        };
        Some(Op::Record { list, command })
    }

    fn copy(&mut self) -> Command {
        let (from, to) = (self.some_buffer(), self.some_buffer());
        let (from_range, to_range) = (self.range_of(from), self.range_of(to));
        let (mut source, mut target) = (self.pieces(&from_range), self.pieces(&to_range));
        // The one's runs in number and length, but at strides of their own.
        let len = source.len.min(target.len);
        let count = source.count.min(target.count);
        for pieces in [&mut source, &mut target] {
            pieces.stride = pieces.stride.max(len);
            (pieces.len, pieces.count) = (len, count);
        }
        Command::Copy { from, to, source, target }
    }

    /// A range of whole words in a buffer.
    fn words(&mut self, most: u32) -> (usize, Pieces) {
        let to = self.some_buffer();
        let range = self.range_of(to);
        let pieces = self.pieces(&range);
        let at = pieces.at / 4 * 4;
        let left = (range.len() as u32 - at) / 4 * 4;
        let len = ((pieces.end() - at).min(most) / 4 * 4).max(4).min(left);
        (to, Pieces::one(at, len))
    }

    fn fill_command(&mut self) -> Command {
        let (to, Pieces { at, len, .. }) = self.words(u32::MAX);
        let word = if self.random.chance(30) { 0 } else { self.random.word() };
        Command::Fill { to, at, len, word }
    }

    fn update(&mut self) -> Command {
        let (to, Pieces { at, len, .. }) = self.words(4096);
        Command::Update { to, at, len, value: self.value() }
    }

    fn image(&mut self) -> Command {
        let (from, to) = (self.some_buffer(), self.some_buffer());
        let [width, height] = [self.random.between(1, IMAGE[0]), self.random.between(1, IMAGE[1])];
        let mut pieces = |buffer| {
            let range = self.range_of(buffer);
            let at = self.spot(&range) - range.start;
            Pieces { at, len: width, stride: width + self.random.pick(&[0, 1, 7, 64, 1000]), count: height }
        };
        Command::Image { source: pieces(from), target: pieces(to), from, to }
    }

    fn dispatch(&mut self) -> Option<Command> {
        let bound = self.model.sets.iter().enumerate();
        let bound: Vec<_> = bound.filter_map(|(set, state)| Some((set, state.bound?))).collect();
        if bound.is_empty() {
            return None;
        }
        let (set, [input, output]) = self.random.pick(&bound);
        let in_place = u32::from(self.random.chance(40));
        let words = |binding: Binding| binding.size / 4;
        let most = if in_place != 0 { words(output) } else { words(input).min(words(output)) };
        let most = if self.random.chance(75) { most.min(64) } else { most.min(20_000) };
        let count = self.random.between(1, most);
        let mut first = |binding| {
            let left = words(binding).saturating_sub(count);
            if self.random.chance(40) { 0 } else { self.random.below(left + 1) }
        };
        let (input_first, output_first) = (first(input), first(output));
        let add = self.random.pick(&[1, 0x100, 0x0101_0101, 0xFFFF_FFFF, 0x8000_0000]);
        Some(Command::Dispatch { set, work: Work { input_first, output_first, count, add, in_place } })
    }

    fn execute(&mut self) -> Option<Command> {
        let lists: Vec<usize> = (0..self.model.lists.len())
            .filter(|&list| self.model.world.lists[list].is_secondary)
            .filter(|&list| !self.model.lists[list].commands.is_empty() && !self.model.lists[list].is_dead)
            .collect();
        (!lists.is_empty()).then(|| Command::Execute { list: self.random.pick(&lists) })
    }

    pub(super) fn submit(&mut self) -> Option<Op> {
        let ready: Vec<usize> = (0..self.model.lists.len())
            .filter(|&list| !self.model.world.lists[list].is_secondary && !self.model.lists[list].is_dead)
            .filter(|&list| !self.model.lists[list].commands.is_empty())
            .collect();
        if ready.is_empty() {
            return None;
        }
        let held = self.model.batches.iter().filter(|batch| !batch.is_open).count();
        let mut parts = Vec::new();
        for _ in 0..self.random.pick(&[1, 1, 1, 1, 1, 1, 2, 2, 3, 14]) {
            let lists = self.random.pick(&[0, 1, 1, 1, 1, 1, 1, 2, 3]);
            let gate = (held < 4 && self.random.chance(30))
                .then(|| if self.random.chance(20) { Gate::Event } else { Gate::Timeline });
            parts.push(Part {
                batch: self.number(),
                lists: (0..lists).map(|_| self.random.pick(&ready)).collect(),
                gate,
                signals: self.random.chance(40),
                sets_event: self.random.chance(12),
            });
        }
        let (is_submit2, has_fence) = (self.random.chance(50), self.random.chance(50));
        let queue = self.random.pick(&[0, 0, 0, 1, 2]);
        Some(Op::Submit { queue, parts, is_submit2, has_fence })
    }
}
