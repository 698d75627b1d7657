//! Makes a program out of a seed: operations at random, of which the model takes those that are valid.

use crate::model::Model;
use crate::program::{Abilities, BufferPlan, ListPlan, MemoryPlan, Op, Program, World};
use crate::random::Random;
use tidemark_tests::PageKind;

mod batches;
mod host;

/// The program of `seed`, with some `length` operations at most, and a few to end with.
pub(crate) fn program(seed: u64, length: u32, abilities: Abilities) -> Program {
    let mut random = Random::new(seed);
    let world = world(&mut random, abilities);
    let length = random.between(length / 4, length) as usize;
    let ops = Generator::new(random, &world).ops(length);
    Program { world, ops: ops.into_iter().enumerate().collect() }
}

fn world(random: &mut Random, abilities: Abilities) -> World {
    let mut world = World {
        memories: Vec::new(),
        buffers: Vec::new(),
        lists: (0..11)
            .map(|index| ListPlan {
                is_secondary: index >= 8,
                is_simultaneous: index >= 8 || random.chance(35),
            })
            .collect(),
        sets: vec![false, false, abilities.update_after_bind, abilities.update_after_bind],
        has_host_barriers: random.chance(60),
    };
    let mut base = 0;
    for index in 0..random.between(2, 4) {
        let memory = world.memories.len();
        let mut end = if random.chance(30) { random.below(300) } else { 0 };
        for _ in 0..random.pick(&[1, 1, 2, 3, 5]) {
            let mut size = buffer_size(random);
            if index == 0 && end == 0 {
                size = size.max(10_000);
            }
            // Some lie on top of the one before.
            let overlap = if random.chance(10) { random.below(end.min(5000)) } else { 0 };
            let offset = (end - overlap).next_multiple_of(abilities.buffer_alignment);
            end = end.max(offset + size) + if random.chance(30) { random.below(300) } else { 0 };
            world.buffers.push(BufferPlan { memory, offset, size });
        }
        let has_addresses = random.chance(12);
        let pages = random.chance(abilities.imports).then(|| random.pick(&PageKind::ALL));
        world.memories.push(MemoryPlan { base, size: end, is_coherent: true, has_addresses, pages });
        base = (base + end).next_multiple_of(4096) + 4096;
    }
    for _ in 0..random.between(1, 2) {
        let size = random.between(8_000, 64_000);
        world.buffers.push(BufferPlan { memory: world.memories.len(), offset: 0, size });
        let plan = MemoryPlan { base, size, is_coherent: false, has_addresses: false, pages: None };
        world.memories.push(plan);
        base = (base + size).next_multiple_of(4096) + 4096;
    }
    world
}

fn buffer_size(random: &mut Random) -> u32 {
    match random.below(20) {
        0..6 => random.between(4, 100),
        6..12 => random.between(100, 5_000),
        12..16 => random.between(1, 4) * 4096 + random.below(17) - 8,
        16..19 => random.between(5_000, 70_000),
        _ => random.between(70_000, 300_000),
    }
}

struct Generator<'world> {
    random: Random,
    model: Model<'world>,
    ops: Vec<Op>,
    /// Batches and teams of threads are numbered.
    next: u32,
    /// Where things happened, among the bytes of all memories.
    recent: Vec<u32>,
    weights: Vec<(u32, Kind)>,
}

#[derive(Clone, Copy)]
enum Kind {
    Write,
    Read,
    Check,
    Spawn,
    Join,
    Map,
    Unmap,
    Maintain,
    Replace,
    Bind,
    Record,
    Seal,
    Reset,
    Submit,
    Release,
    Wait,
    Peek,
    Idle,
    Audit,
}

/// How often each kind is tried, and whether a program may do without.
const KINDS: [(u32, bool, Kind); 19] = [
    (24, false, Kind::Write),
    (8, true, Kind::Read),
    (2, true, Kind::Check),
    (2, true, Kind::Spawn),
    (4, false, Kind::Join),
    (6, false, Kind::Map),
    (2, true, Kind::Unmap),
    (2, true, Kind::Maintain),
    (1, true, Kind::Replace),
    (5, true, Kind::Bind),
    (24, false, Kind::Record),
    (2, true, Kind::Seal),
    (4, false, Kind::Reset),
    (15, false, Kind::Submit),
    (7, false, Kind::Release),
    (9, true, Kind::Wait),
    (3, true, Kind::Peek),
    (2, false, Kind::Idle),
    (1, true, Kind::Audit),
];

impl<'world> Generator<'world> {
    fn new(mut random: Random, world: &'world World) -> Self {
        // Programs that do some things often and others never get further than those that do all alike.
        let weights = KINDS.map(|(weight, may_lack, kind)| {
            let factor = random.pick(&[0, 1, 2, 2, 2, 4, 8]);
            (weight * if may_lack { factor } else { factor.max(1) }, kind)
        });
        let model = Model::new(world);
        Self { random, model, ops: Vec::new(), next: 1, recent: Vec::new(), weights: weights.to_vec() }
    }

    fn ops(mut self, length: usize) -> Vec<Op> {
        self.begin();
        // Most proposals are valid. Where nothing is any more, the end is.
        for _ in 0..20 * length {
            if self.ops.len() >= length {
                break;
            }
            self.step();
        }
        self.end();
        self.ops
    }

    /// Adds an operation if it is valid.
    fn push(&mut self, op: Op) -> bool {
        let is_valid = self.model.apply(&op);
        if is_valid {
            self.ops.push(op);
        }
        is_valid
    }

    fn coherent_memories(&self) -> Vec<usize> {
        let memories = self.model.world.memories.iter().enumerate();
        memories.filter(|(_, plan)| plan.is_coherent).map(|(memory, _)| memory).collect()
    }

    /// Maps and fills most memories, if any.
    fn begin(&mut self) {
        if self.random.chance(10) {
            return;
        }
        for memory in self.coherent_memories() {
            if self.random.chance(85) {
                self.push(Op::Map { memory, offset: 0, size: None });
                if self.random.chance(75) {
                    self.fill(memory);
                }
            }
        }
    }

    /// Ends what goes on, and looks at every byte from either side.
    fn end(&mut self) {
        let held: Vec<u32> =
            self.model.batches.iter().filter(|batch| !batch.is_open).map(|batch| batch.id).collect();
        let teams: Vec<u32> = self.model.teams.iter().map(|team| team.team).collect();
        for op in teams.into_iter().map(|team| Op::Join { team }) {
            self.push(op);
        }
        for op in held.into_iter().map(|batch| Op::Release { batch }) {
            self.push(op);
        }
        self.push(Op::Idle { of_device: true });
        self.push(Op::Check);
        for memory in self.coherent_memories() {
            if self.model.mapped[memory].as_ref() != Some(&self.model.world.memories[memory].range()) {
                self.push(Op::Unmap { memory });
                self.push(Op::Map { memory, offset: 0, size: None });
            }
        }
        self.push(Op::Check);
        self.push(Op::Audit);
    }

    fn step(&mut self) {
        let total = self.weights.iter().map(|(weight, _)| weight).sum();
        let mut at = self.random.below(total);
        let mut weights = self.weights.iter();
        let kind = loop {
            match weights.next() {
                Some((weight, _)) if at >= *weight => at -= weight,
                Some((_, kind)) => break *kind,
                None => return,
            }
        };
        // What is at random may not be valid at once.
        for _ in 0..6 {
            let op = match kind {
                Kind::Write | Kind::Read | Kind::Spawn => self.host_access(kind),
                Kind::Check => Some(Op::Check),
                Kind::Join => self.some_team().map(|team| Op::Join { team }),
                Kind::Map => self.map(),
                Kind::Unmap => Some(Op::Unmap { memory: self.some_memory() }),
                Kind::Maintain => Some(self.maintain()),
                Kind::Replace => Some(self.replace()),
                Kind::Bind => Some(self.bind()),
                Kind::Record => self.record(),
                Kind::Seal => Some(Op::Seal { list: self.some_list() }),
                Kind::Reset => Some(Op::Reset { list: self.some_list() }),
                Kind::Submit => self.submit(),
                Kind::Release => self.some_batch(|batch| !batch.is_open).map(|batch| Op::Release { batch }),
                Kind::Wait => self.wait(),
                Kind::Peek => self.peek(),
                Kind::Idle => Some(Op::Idle { of_device: self.random.chance(50) }),
                Kind::Audit => Some(Op::Audit),
            };
            let Some(op) = op else { return };
            if self.push(op) {
                return;
            }
        }
    }
}
