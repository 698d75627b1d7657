//! Programs, in words.

use crate::model::Model;
use crate::program::{Binding, Command, Gate, Means, Op, Part, Pieces, Program, Value, World};
use std::fmt::{Display, Formatter, Result};

impl World {
    /// A byte among those of all memories, in words.
    pub(crate) fn describe(&self, at: u32) -> String {
        let Some(memory) = self.memories.iter().position(|plan| plan.range().contains(&at)) else {
            return format!("nowhere ({at})");
        };
        let offset = at - self.memories[memory].base;
        let buffers: Vec<String> = self
            .buffers_of(memory)
            .filter(|(_, plan)| (plan.offset..plan.offset + plan.size).contains(&offset))
            .map(|(buffer, plan)| format!(", buffer {buffer} offset {}", offset - plan.offset))
            .collect();
        format!("memory {memory} offset {offset}{}", buffers.concat())
    }
}

impl Display for Program {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let ops = || self.ops.iter().map(|(_, op)| op);
        let used: Vec<usize> = ops().flat_map(|op| memories_of(op, &self.world)).collect();
        for (index, plan) in self.world.memories.iter().enumerate().filter(|(index, _)| used.contains(index))
        {
            let kind = match plan.pages {
                Some(kind) => format!("imported ({kind:?})"),
                None if plan.is_coherent => "coherent".to_string(),
                None => "device-local".to_string(),
            };
            let addresses = if plan.has_addresses { ", with device addresses" } else { "" };
            writeln!(f, "memory {index}: {} bytes, {kind}{addresses}", plan.size)?;
            for (buffer, plan) in self.world.buffers_of(index) {
                writeln!(f, "  buffer {buffer}: {} bytes at {}", plan.size, plan.offset)?;
            }
        }
        if !self.world.has_host_barriers {
            writeln!(f, "no barriers to the host")?;
        }
        for (number, op) in &self.ops {
            writeln!(f, "{number:4}  {op}")?;
        }
        Ok(())
    }
}

fn memories_of(op: &Op, world: &World) -> Vec<usize> {
    let of = |buffer: usize| world.buffers[buffer].memory;
    match *op {
        Op::Write { memory, .. } | Op::Read { memory, .. } | Op::Spawn { memory, .. } => vec![memory],
        Op::Map { memory, .. } | Op::Unmap { memory } | Op::Replace { memory, .. } => vec![memory],
        Op::Flush { memory, .. } | Op::Invalidate { memory, .. } => vec![memory],
        Op::Bind { input, output, .. } => vec![of(input.buffer), of(output.buffer)],
        Op::Record { ref command, .. } => match *command {
            Command::Copy { from, to, .. } | Command::Image { from, to, .. } => vec![of(from), of(to)],
            Command::Fill { to, .. } | Command::Update { to, .. } => vec![of(to)],
            Command::Dispatch { .. } | Command::Execute { .. } => vec![],
        },
        _ => vec![],
    }
}

impl Display for Pieces {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { at, len, stride, count } = self;
        match count {
            1 => write!(f, "{at}..{}", at + len),
            _ => write!(f, "{at}..{} (runs of {len}, {stride} apart)", self.end()),
        }
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Same(byte) => write!(f, "bytes {byte:#04x}"),
            Self::Noise(seed) => write!(f, "noise {seed:#x}"),
        }
    }
}

impl Display for Means {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Single => "one by one",
            Self::Bulk => "in bulk",
            Self::File => "by a file",
            Self::Pipe => "by a pipe",
        })
    }
}

impl Display for Binding {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "buffer {} {}", self.buffer, Pieces::one(self.offset, self.size))
    }
}

impl Display for Command {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Copy { from, to, source, target } => {
                write!(f, "copy buffer {from} {source} to buffer {to} {target}")
            }
            Self::Fill { to, at, len, word } => {
                write!(f, "fill buffer {to} {} with {word:#x}", Pieces::one(*at, *len))
            }
            Self::Update { to, at, len, value } => {
                write!(f, "update buffer {to} {} with {value}", Pieces::one(*at, *len))
            }
            Self::Dispatch { set, work } => {
                let crate::program::Work { input_first, output_first, count, add, in_place } = work;
                let from = if *in_place == 0 { input_first } else { output_first };
                let whose = if *in_place == 0 { "input" } else { "output" };
                write!(f, "add {add:#x} to {count} words of set {set}'s {whose} from word {from} on, ")?;
                write!(f, "into its output from word {output_first} on")
            }
            Self::Image { from, to, source, target } => {
                write!(f, "copy buffer {from} {source} through the image to buffer {to} {target}")
            }
            Self::Execute { list } => write!(f, "execute list {list}"),
        }
    }
}

impl Display for Part {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "batch {} of lists {:?}", self.batch, self.lists)?;
        match self.gate {
            Some(Gate::Timeline) => write!(f, ", held by the timeline")?,
            Some(Gate::Event) => write!(f, ", held by an event")?,
            None => {}
        }
        f.write_str(if self.signals { ", signals" } else { "" })?;
        f.write_str(if self.sets_event { ", sets an event" } else { "" })
    }
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Write { memory, pieces, means, value } => {
                write!(f, "write memory {memory} {pieces}: {value}, {means}")
            }
            Self::Read { memory, pieces, means } => write!(f, "read memory {memory} {pieces}, {means}"),
            Self::Check => f.write_str("look at everything"),
            Self::Spawn { team, memory, pieces, threads, rounds, .. } => {
                write!(f, "team {team}: {threads} threads write memory {memory} {pieces}, {rounds} times")
            }
            Self::Join { team } => write!(f, "join team {team}"),
            Self::Map { memory, offset, size: Some(size) } => {
                write!(f, "map memory {memory} {}", Pieces::one(*offset, *size))
            }
            Self::Map { memory, offset, size: None } => write!(f, "map memory {memory} {offset}.."),
            Self::Unmap { memory } => write!(f, "unmap memory {memory}"),
            Self::Flush { memory, offset } => write!(f, "flush memory {memory} {offset}.."),
            Self::Invalidate { memory, offset } => write!(f, "invalidate memory {memory} {offset}.."),
            Self::Replace { memory, meanwhile: None } => {
                write!(f, "free memory {memory}, and allocate it anew")
            }
            Self::Replace { memory, meanwhile: Some((pieces, value)) } => {
                write!(f, "free memory {memory}, write {pieces}: {value}, and import it anew")
            }
            Self::Bind { set, input, output, by_template } => {
                let how = if *by_template { ", by a template" } else { "" };
                write!(f, "bind set {set}: input {input}, output {output}{how}")
            }
            Self::Record { list, command } => write!(f, "record list {list}: {command}"),
            Self::Seal { list } => write!(f, "end list {list}"),
            Self::Reset { list } => write!(f, "reset list {list}"),
            Self::Submit { queue, parts, is_submit2, has_fence } => {
                let name = if *is_submit2 { "submit2" } else { "submit" };
                let parts: Vec<String> = parts.iter().map(Part::to_string).collect();
                let fence = if *has_fence { "; with a fence" } else { "" };
                write!(f, "{name} to queue {queue}: {}{fence}", parts.join("; "))
            }
            Self::Release { batch } => write!(f, "release batch {batch}"),
            Self::Wait { batch, by } => write!(f, "wait for batch {batch} by {by:?}"),
            Self::Peek { batch, by } => write!(f, "look whether batch {batch} is done by {by:?}"),
            Self::Idle { of_device: true } => f.write_str("wait until the device is idle"),
            Self::Idle { of_device: false } => f.write_str("wait until the queue is idle"),
            Self::Audit => f.write_str("have the device copy everything to look at"),
        }
    }
}

impl Program {
    /// Only those operations of which `is_kept` holds, and that are valid without the others. Batches do without command
    /// buffers that nothing is left of.
    pub(crate) fn only(mut self, is_kept: impl Fn(usize) -> bool) -> Self {
        let mut model = Model::new(&self.world);
        self.ops.retain_mut(|(number, op)| {
            if let Op::Submit { parts, .. } = op {
                let is_empty = |list: usize| model.lists[list].commands.is_empty();
                parts.iter_mut().for_each(|part| part.lists.retain(|&list| !is_empty(list)));
            }
            is_kept(*number) && model.apply(op)
        });
        self
    }
}
