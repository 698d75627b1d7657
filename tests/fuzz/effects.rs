//! What commands do to the bytes: the reference that the device is held to.

use crate::model::{List, Set};
use crate::program::{Binding, Command, IMAGE, Pieces, Value, World};
use crate::spans::Spans;
use std::ops::Range;

/// A byte nobody may rely on.
pub(crate) const UNDEFINED: u16 = 256;

/// A command with everything looked up. Ranges are among the bytes of all memories.
pub(crate) enum Effect {
    Move {
        source: Pieces,
        target: Pieces,
    },
    Fill {
        range: Range<u32>,
        word: u32,
    },
    Update {
        range: Range<u32>,
        value: Value,
    },
    /// Adds to words at `input`, and stores at `output`.
    Add {
        input: u32,
        output: u32,
        count: u32,
        add: u32,
    },
}

impl Effect {
    pub(crate) fn reads(&self) -> Spans {
        match self {
            Self::Move { source, .. } => source.iter().collect(),
            Self::Fill { .. } | Self::Update { .. } => Spans::default(),
            Self::Add { input, count, .. } => std::iter::once(*input..input + 4 * count).collect(),
        }
    }

    pub(crate) fn writes(&self) -> Spans {
        match self {
            Self::Move { target, .. } => target.iter().collect(),
            Self::Fill { range, .. } | Self::Update { range, .. } => std::iter::once(range.clone()).collect(),
            Self::Add { output, count, .. } => std::iter::once(*output..output + 4 * count).collect(),
        }
    }

    pub(crate) fn apply(&self, bytes: &mut [u16]) {
        match self {
            Self::Move { source, target } => {
                let moved: Vec<u16> =
                    source.iter().flat_map(|range| bytes[in_bytes(range)].to_vec()).collect();
                for (piece, from) in target.iter().zip(moved.chunks(target.len as usize)) {
                    bytes[in_bytes(piece)].copy_from_slice(from);
                }
            }
            Self::Fill { range, word } => {
                let word = word.to_ne_bytes();
                let filled = bytes[in_bytes(range.clone())].iter_mut().zip(word.iter().cycle());
                filled.for_each(|(byte, &value)| *byte = u16::from(value));
            }
            Self::Update { range, value } => {
                let updated = (0..).zip(&mut bytes[in_bytes(range.clone())]);
                updated.for_each(|(index, byte)| *byte = u16::from(value.at(index)));
            }
            Self::Add { input, output, count, add } => {
                for word in 0..*count {
                    let [from, to] = [input, output].map(|first| (first + 4 * word) as usize);
                    let sum = add_word(&bytes[from..from + 4], *add);
                    bytes[to..to + 4].copy_from_slice(&sum);
                }
            }
        }
    }
}

fn add_word(word: &[u16], add: u32) -> [u16; 4] {
    if word.contains(&UNDEFINED) {
        return [UNDEFINED; 4];
    }
    let word = u32::from_ne_bytes(std::array::from_fn(|byte| word[byte] as u8));
    word.wrapping_add(add).to_ne_bytes().map(u16::from)
}

fn in_bytes(range: Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

/// Whether Vulkan allows `command` at all, but for what its descriptors hold.
pub(crate) fn is_sound(world: &World, command: &Command) -> bool {
    let size = |buffer: usize| world.buffers[buffer].size;
    let fits = |pieces: Pieces, buffer| {
        pieces.count > 0 && pieces.len > 0 && pieces.stride >= pieces.len && pieces.end() <= size(buffer)
    };
    match command {
        Command::Copy { from, to, source, target } => {
            let moves =
                |pieces: Pieces, buffer| pieces.moved(world.address(buffer, 0)).iter().collect::<Spans>();
            let is_same = (source.len, source.count) == (target.len, target.count);
            let fit = fits(*source, *from) && fits(*target, *to);
            fit && is_same && !moves(*source, *from).overlaps(&moves(*target, *to))
        }
        Command::Fill { to, at, len, .. } => at % 4 == 0 && len % 4 == 0 && fits(Pieces::one(*at, *len), *to),
        Command::Update { to, at, len, .. } => {
            at % 4 == 0 && len % 4 == 0 && *len <= 65536 && fits(Pieces::one(*at, *len), *to)
        }
        Command::Image { from, to, source, target } => {
            let is_same = (source.len, source.count) == (target.len, target.count);
            let fit = source.len <= IMAGE[0] && source.count <= IMAGE[1];
            is_same && fit && fits(*source, *from) && fits(*target, *to)
        }
        Command::Dispatch { work, .. } => (1..=65536).contains(&work.count),
        Command::Execute { list } => world.lists[*list].is_secondary,
    }
}

/// What `command` does with the descriptor sets as they are; `None` if they make it invalid.
pub(crate) fn resolve(world: &World, sets: &[Set], lists: &[List], command: &Command) -> Option<Vec<Effect>> {
    let moved = |pieces: &Pieces, buffer: usize| pieces.moved(world.address(buffer, 0));
    let range = |buffer: usize, at: u32, len: u32| {
        let start = world.address(buffer, at);
        start..start + len
    };
    let effect = match command {
        Command::Copy { from, to, source, target } | Command::Image { from, to, source, target } => {
            Effect::Move { source: moved(source, *from), target: moved(target, *to) }
        }
        Command::Fill { to, at, len, word } => Effect::Fill { range: range(*to, *at, *len), word: *word },
        Command::Update { to, at, len, value } => {
            Effect::Update { range: range(*to, *at, *len), value: *value }
        }
        Command::Dispatch { set, work } => {
            let [input, output] = sets[*set].bound?;
            let place = |binding: Binding, first: u32| {
                let is_inside = 4 * (u64::from(first) + u64::from(work.count)) <= u64::from(binding.size);
                is_inside.then(|| world.address(binding.buffer, binding.offset + 4 * first))
            };
            let output = place(output, work.output_first)?;
            let input = if work.in_place == 0 { place(input, work.input_first)? } else { output };
            if work.in_place == 0 && input.abs_diff(output) < 4 * work.count {
                return None;
            }
            Effect::Add { input, output, count: work.count, add: work.add }
        }
        Command::Execute { list } => {
            let effects: Option<Vec<Vec<Effect>>> =
                lists[*list].commands.iter().map(|command| resolve(world, sets, lists, command)).collect();
            return Some(effects?.into_iter().flatten().collect());
        }
    };
    Some(Vec::from([effect]))
}
