//! What a valid program may do next, and the value of every byte: who owns which, kept in plain memory.
//!
//! The rules are Vulkan's. A batch owns what it touches from when nothing holds it back any more until the host has
//! learned that it is done; before and after, the host does. What it does, it does at once when it is let go: in between
//! nobody may look.

use crate::effects::{self, UNDEFINED};
use crate::program::{Binding, Command, Means, OFFSET_ALIGNMENT, Op, Pieces, Value, World};
use crate::spans::Spans;
use std::ops::Range;

mod batches;

pub(crate) use batches::Batch;

pub(crate) struct Model<'world> {
    pub(crate) world: &'world World,
    pub(crate) bytes: Vec<u16>,
    /// What of each memory the host has, among the bytes of all: what is mapped, and all that was imported.
    pub(crate) mapped: Vec<Option<Range<u32>>>,
    pub(crate) lists: Vec<List>,
    pub(crate) sets: Vec<Set>,
    /// In the order of submission.
    pub(crate) batches: Vec<Batch>,
    pub(crate) teams: Vec<Team>,
    /// What others wrote that the last operation gave back to the host.
    pub(crate) news: Spans,
}

/// A command buffer.
#[derive(Default)]
pub(crate) struct List {
    pub(crate) commands: Vec<Command>,
    /// Whether its recording has ended.
    pub(crate) is_sealed: bool,
    /// Whether it refers to what is no longer there.
    pub(crate) is_dead: bool,
}

/// A descriptor set.
pub(crate) struct Set {
    /// Input and output.
    pub(crate) bound: Option<[Binding; 2]>,
    /// Whether it may be updated after it was bound.
    is_late: bool,
}

/// Threads that write.
pub(crate) struct Team {
    pub(crate) team: u32,
    memory: usize,
    pieces: Pieces,
    last: Value,
    spans: Spans,
}

impl<'world> Model<'world> {
    pub(crate) fn new(world: &'world World) -> Self {
        let end = world.memories.iter().map(|memory| memory.range().end).max().unwrap_or(0);
        let mut bytes = vec![UNDEFINED; end as usize];
        let imported = || world.memories.iter().filter(|memory| memory.pages.is_some());
        imported()
            .for_each(|memory| bytes[memory.range().start as usize..memory.range().end as usize].fill(0));
        Self {
            world,
            bytes,
            mapped: world.memories.iter().map(|memory| memory.pages.map(|_| memory.range())).collect(),
            lists: world.lists.iter().map(|_| List::default()).collect(),
            sets: world.sets.iter().map(|&is_late| Set { bound: None, is_late }).collect(),
            batches: Vec::new(),
            teams: Vec::new(),
            news: Spans::default(),
        }
    }

    /// Does what `op` does; false if it would not be valid, and then nothing has happened.
    pub(crate) fn apply(&mut self, op: &Op) -> bool {
        self.news = Spans::default();
        match *op {
            Op::Write { memory, pieces, means, value } => {
                let is_fine =
                    Self::suits(pieces, means) && self.host_may_write(&self.spans_of(memory, pieces));
                if is_fine {
                    self.store(memory, pieces, value);
                }
                is_fine
            }
            Op::Read { memory, pieces, means } => {
                let spans = self.spans_of(memory, pieces);
                Self::suits(pieces, means) && self.is_mapped(&spans) && !self.unreadable().overlaps(&spans)
            }
            Op::Check => true,
            Op::Spawn { team, memory, pieces, threads, seed, .. } => {
                let spans = self.spans_of(memory, pieces);
                let is_new = self.teams.iter().all(|other| other.team != team);
                let is_fine = Self::suits(pieces, Means::Bulk) && threads > 0 && is_new;
                let is_fine = is_fine && self.host_may_write(&spans);
                if is_fine {
                    self.teams.push(Team { team, memory, pieces, last: Value::Noise(seed), spans });
                }
                is_fine
            }
            Op::Join { team } => {
                let Some(at) = self.teams.iter().position(|other| other.team == team) else { return false };
                let Team { memory, pieces, last, spans, .. } = self.teams.remove(at);
                self.store(memory, pieces, last);
                self.news = spans;
                true
            }
            Op::Map { memory, offset, size } => self.map(memory, offset, size),
            Op::Unmap { memory } => {
                let is_mapped = self.mapped[memory].is_some() && self.world.memories[memory].pages.is_none();
                is_mapped && !self.has_team(memory) && {
                    self.mapped[memory] = None;
                    true
                }
            }
            Op::Flush { memory, offset } | Op::Invalidate { memory, offset } => {
                let plan = &self.world.memories[memory];
                let is_whole = self.mapped[memory].as_ref() == Some(&plan.range()) && plan.pages.is_none();
                is_whole && offset < plan.size && offset.is_multiple_of(OFFSET_ALIGNMENT)
            }
            Op::Replace { memory, meanwhile } => self.replace(memory, meanwhile),
            Op::Bind { set, input, output, .. } => self.bind(set, [input, output]),
            Op::Record { list, ref command } => self.record(list, command),
            Op::Seal { list } => {
                self.can_seal(list) && {
                    self.seal(list);
                    true
                }
            }
            Op::Reset { list } => self.reset(list),
            Op::Submit { ref parts, has_fence, .. } => self.submit(parts, has_fence),
            Op::Release { batch } => self.release(batch),
            Op::Wait { batch, by } => self.wait(batch, by),
            Op::Peek { batch, by } => self.batch(batch).is_some_and(|batch| batch.tells(by)),
            Op::Idle { .. } => self.idle(),
            Op::Audit => self.teams.is_empty() && self.batches.iter().all(|batch| batch.is_retired),
        }
    }

    /// Of `spans`, what the host may look at, by memory.
    pub(crate) fn readable(&self, spans: &Spans) -> Vec<(usize, Spans)> {
        let unreadable = self.unreadable();
        let mapped = self.mapped.iter().enumerate();
        let mapped = mapped.filter_map(|(memory, range)| Some((memory, range.as_ref()?)));
        mapped.map(|(memory, range)| (memory, spans.clipped(range).minus(&unreadable))).collect()
    }

    fn unreadable(&self) -> Spans {
        let written = self.running().flat_map(|batch| batch.writes.iter());
        written.chain(self.teams.iter().flat_map(|team| team.spans.iter())).collect()
    }

    fn host_may_write(&self, spans: &Spans) -> bool {
        let is_used = |batch: &Batch| batch.reads.overlaps(spans) || batch.writes.overlaps(spans);
        self.is_mapped(spans) && !self.running().any(is_used) && !self.overlaps_team(spans)
    }

    fn is_mapped(&self, spans: &Spans) -> bool {
        self.mapped.iter().flatten().any(|range| spans.is_within(range))
    }

    fn overlaps_team(&self, spans: &Spans) -> bool {
        self.teams.iter().any(|team| team.spans.overlaps(spans))
    }

    fn has_team(&self, memory: usize) -> bool {
        self.teams.iter().any(|team| team.memory == memory)
    }

    fn spans_of(&self, memory: usize, pieces: Pieces) -> Spans {
        pieces.moved(self.world.memories[memory].base).iter().collect()
    }

    fn suits(pieces: Pieces, means: Means) -> bool {
        let is_fine = pieces.count > 0 && pieces.len > 0 && pieces.stride >= pieces.len;
        is_fine
            && match means {
                Means::Single => matches!(pieces.len, 1 | 2 | 4 | 8),
                Means::Pipe => pieces.len <= 4096,
                Means::Bulk | Means::File => true,
            }
    }

    fn store(&mut self, memory: usize, pieces: Pieces, value: Value) {
        let pieces = pieces.moved(self.world.memories[memory].base);
        let places = pieces.iter().flatten();
        (0..).zip(places).for_each(|(index, at)| self.bytes[at as usize] = u16::from(value.at(index)));
    }

    fn map(&mut self, memory: usize, offset: u32, size: Option<u32>) -> bool {
        let plan = &self.world.memories[memory];
        let size = size.unwrap_or(plan.size.saturating_sub(offset));
        let is_inside = size > 0 && offset.checked_add(size).is_some_and(|end| end <= plan.size);
        let is_fine = plan.is_coherent && self.mapped[memory].is_none() && is_inside;
        if is_fine {
            self.mapped[memory] = Some(plan.base + offset..plan.base + offset + size);
        }
        is_fine
    }

    fn replace(&mut self, memory: usize, meanwhile: Option<(Pieces, Value)>) -> bool {
        let world = self.world;
        let plan = &world.memories[memory];
        let is_used = |batch: &Batch| !batch.is_retired && batch.memories.contains(&memory);
        let is_free = !self.has_team(memory) && !self.batches.iter().any(is_used);
        let is_fine = meanwhile.is_none_or(|(pieces, _)| {
            plan.pages.is_some() && Self::suits(pieces, Means::Bulk) && pieces.end() <= plan.size
        });
        if !is_free || !is_fine {
            return false;
        }
        let is_in = |buffer: usize| world.buffers[buffer].memory == memory;
        let leads_in =
            |set: &Set| set.bound.is_some_and(|bound| bound.iter().any(|binding| is_in(binding.buffer)));
        let sets: Vec<bool> = self.sets.iter().map(leads_in).collect();
        self.kill(|command| match *command {
            Command::Copy { from, to, .. } | Command::Image { from, to, .. } => is_in(from) || is_in(to),
            Command::Fill { to, .. } | Command::Update { to, .. } => is_in(to),
            Command::Dispatch { set, .. } => sets[set],
            Command::Execute { .. } => false,
        });
        let lost = self.sets.iter_mut().zip(sets).filter(|(_, is_lost)| *is_lost);
        lost.for_each(|(set, _)| set.bound = None);
        if plan.pages.is_none() {
            self.mapped[memory] = None;
            let range = plan.range();
            self.bytes[range.start as usize..range.end as usize].fill(UNDEFINED);
        }
        if let Some((pieces, value)) = meanwhile {
            self.store(memory, pieces, value);
        }
        true
    }

    fn bind(&mut self, set: usize, bound: [Binding; 2]) -> bool {
        let fits = |binding: &Binding| {
            let end = binding.offset.checked_add(binding.size);
            let is_inside = end.is_some_and(|end| end <= self.world.buffers[binding.buffer].size);
            is_inside && binding.size >= 4 && binding.offset.is_multiple_of(OFFSET_ALIGNMENT)
        };
        let is_used = |batch: &Batch| !batch.is_retired && batch.sets.contains(&set);
        let is_fine = bound.iter().all(fits) && !self.batches.iter().any(is_used);
        if is_fine {
            self.sets[set].bound = Some(bound);
            if !self.sets[set].is_late {
                self.kill(|command| matches!(*command, Command::Dispatch { set: used, .. } if used == set));
            }
        }
        is_fine
    }

    fn record(&mut self, list: usize, command: &Command) -> bool {
        let is_nested = matches!(command, Command::Execute { .. }) && self.world.lists[list].is_secondary;
        let is_fine = !self.lists[list].is_sealed && !is_nested && effects::is_sound(self.world, command);
        if is_fine {
            self.lists[list].commands.push(command.clone());
        }
        is_fine
    }

    fn can_seal(&self, list: usize) -> bool {
        let List { commands, is_sealed, .. } = &self.lists[list];
        !is_sealed
            && !commands.is_empty()
            && commands.iter().all(|command| match *command {
                Command::Dispatch { set, .. } => self.sets[set].is_late || self.sets[set].bound.is_some(),
                Command::Execute { list } => self.is_alive(list) || self.can_seal(list),
                _ => true,
            })
    }

    /// Whether a list is recorded and valid.
    pub(crate) fn is_alive(&self, list: usize) -> bool {
        self.lists[list].is_sealed && !self.lists[list].is_dead
    }

    fn seal(&mut self, list: usize) {
        self.lists[list].is_sealed = true;
        for executed in self.executed_by(list) {
            self.lists[executed].is_sealed = true;
        }
    }

    /// The secondary command buffers of a list.
    pub(crate) fn executed_by(&self, list: usize) -> Vec<usize> {
        let commands = self.lists[list].commands.iter();
        commands
            .filter_map(|command| match command {
                Command::Execute { list } => Some(*list),
                _ => None,
            })
            .collect()
    }

    fn reset(&mut self, list: usize) -> bool {
        let is_used = |batch: &Batch| !batch.is_retired && batch.lists.contains(&list);
        if self.batches.iter().any(is_used) {
            return false;
        }
        self.kill(|command| matches!(*command, Command::Execute { list: executed } if executed == list));
        self.lists[list] = List::default();
        true
    }

    /// Makes recorded lists invalid that have such a command, and those that execute them.
    fn kill(&mut self, is_hit: impl Fn(&Command) -> bool) {
        for list in self.lists.iter_mut().filter(|list| list.is_sealed) {
            list.is_dead |= list.commands.iter().any(&is_hit);
        }
        for list in 0..self.lists.len() {
            let has_dead = self.executed_by(list).iter().any(|&executed| self.lists[executed].is_dead);
            self.lists[list].is_dead |= self.lists[list].is_sealed && has_dead;
        }
    }
}
