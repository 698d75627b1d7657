//! What a command buffer refers to, and what a batch uses in consequence.

use crate::buffer::Buffer;
use crate::command_buffer::CommandBuffer;
use crate::descriptor_set::DescriptorSet;
use crate::memory::Memory;
use crate::tables::HandleMap;
use std::ops::Range;
use std::sync::Arc;
use tidemark_winsys::LockExt;

/// How a command reaches a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It only reads.
    Read,
    /// It may write.
    Write,
}

/// Bytes of emulated memory that a command names.
struct Reference {
    memory: Arc<Memory>,
    range: Range<u64>,
    access: Access,
}

/// What a recorded command buffer refers to.
#[derive(Default)]
pub(crate) struct References {
    named: Vec<Reference>,
    sets: Vec<Arc<DescriptorSet>>,
    executed: Vec<Arc<CommandBuffer>>,
    /// Something was not understood: the batch may use any memory.
    everything: bool,
}

/// Ranges of one memory that are at most this far apart count as one. What lies between costs little, and a command
/// with thousands of regions takes one reference.
const GAP: u64 = 4096;

impl References {
    /// `size` bytes of `buffer` from `offset` on; `None` is a buffer nobody knows.
    pub(crate) fn add(&mut self, buffer: Option<&Arc<Buffer>>, offset: u64, size: u64, access: Access) {
        let Some(buffer) = buffer else {
            self.everything = true;
            return;
        };
        let Some((memory, range)) = buffer.place(offset, size) else { return };
        // Loops bind the same few buffers over and over.
        for last in self.named.iter_mut().rev().take(8) {
            if Arc::ptr_eq(&last.memory, memory)
                && last.access == access
                && range.start <= last.range.end.saturating_add(GAP)
                && last.range.start <= range.end.saturating_add(GAP)
            {
                last.range = last.range.start.min(range.start)..last.range.end.max(range.end);
                return;
            }
        }
        self.named.push(Reference { memory: memory.clone(), range, access });
    }

    /// A descriptor set, as it will be when the batch is submitted.
    pub(crate) fn add_set(&mut self, set: Option<Arc<DescriptorSet>>) {
        match set {
            Some(set) if self.sets.iter().rev().take(8).any(|known| Arc::ptr_eq(known, &set)) => {}
            Some(set) => self.sets.push(set),
            None => self.everything = true,
        }
    }

    /// A secondary command buffer.
    pub(crate) fn add_executed(&mut self, commands: Option<Arc<CommandBuffer>>) {
        match commands {
            Some(commands) => self.executed.push(commands),
            None => self.everything = true,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.named.clear();
        self.sets.clear();
        self.executed.clear();
        self.everything = false;
    }

    /// Adds all of it to what a batch uses.
    pub(crate) fn resolve(&self, uses: &mut Uses) {
        uses.everything |= self.everything;
        for Reference { memory, range, access } in &self.named {
            uses.add(memory, range.clone(), *access);
        }
        self.sets.iter().for_each(|set| set.resolve(uses));
        for commands in &self.executed {
            commands.references.hold().resolve(uses);
        }
    }
}

/// The emulated memory a batch may use.
#[derive(Default)]
pub(crate) struct Uses {
    /// By [`Memory::key`].
    pub(crate) memories: HandleMap<(Arc<Memory>, Ranges)>,
    pub(crate) everything: bool,
}

/// Byte ranges of one memory, by how they are used.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges {
    pub(crate) read: Vec<Range<u64>>,
    pub(crate) written: Vec<Range<u64>>,
}

impl Uses {
    /// Bytes of a memory. One that was freed may still be named, by descriptors that nothing uses any more.
    pub(crate) fn add(&mut self, memory: &Arc<Memory>, range: Range<u64>, access: Access) {
        if memory.is_freed() {
            return;
        }
        let (_, ranges) =
            self.memories.entry(memory.key()).or_insert_with(|| (memory.clone(), Ranges::default()));
        ranges.of(access).push(range);
    }

    /// The whole of a memory, however used.
    pub(crate) fn add_all(&mut self, memory: &Arc<Memory>) {
        self.add(memory, 0..memory.len() as u64, Access::Write);
    }

    /// Joins ranges that overlap or nearly touch.
    pub(crate) fn joined(mut self) -> Self {
        for (_, ranges) in self.memories.values_mut() {
            ranges.join();
        }
        self
    }
}

impl Ranges {
    /// A range that may be written, and nothing else.
    pub(crate) fn written(range: Range<u64>) -> Self {
        Self { read: Vec::new(), written: Vec::from([range]) }
    }

    fn of(&mut self, access: Access) -> &mut Vec<Range<u64>> {
        match access {
            Access::Read => &mut self.read,
            Access::Write => &mut self.written,
        }
    }

    /// The ranges of all of them together.
    pub(crate) fn of_all<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        let mut together = Self::default();
        for ranges in all {
            together.read.extend_from_slice(&ranges.read);
            together.written.extend_from_slice(&ranges.written);
        }
        together.join();
        together
    }

    /// Takes in another's ranges.
    pub(crate) fn merge(&mut self, other: Self) {
        self.read.extend(other.read);
        self.written.extend(other.written);
        self.join();
    }

    fn join(&mut self) {
        join(&mut self.read);
        join(&mut self.written);
    }
}

fn join(ranges: &mut Vec<Range<u64>>) {
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, last| {
        let is_near = next.start <= last.end.saturating_add(GAP);
        if is_near {
            last.end = last.end.max(next.end);
        }
        is_near
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_joined_when_they_nearly_touch() {
        let mut ranges = vec![50_000..60_000, 0..10, 20..30, 5..12, 9_000..9_001];
        join(&mut ranges);
        assert_eq!(ranges, [0..30, 9_000..9_001, 50_000..60_000]);
    }
}
