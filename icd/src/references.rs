//! What a command buffer refers to, and what a batch uses in consequence.

use crate::buffer::Buffer;
use crate::coherence::Coherence;
use crate::command_buffer::CommandBuffer;
use crate::descriptor_set::{Bound, DescriptorSet};
use crate::memory::Memory;
use crate::tables::HandleMap;
use ash::vk::{self, Handle};
use std::borrow::Cow;
use std::collections::hash_map::Entry;
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

/// What a recorded command buffer refers to.
#[derive(Default)]
pub(crate) struct References {
    /// The buffers and descriptor sets that commands named, by handle. A loop that binds the same few over and over
    /// looks each up once: what the commands name outlives their recording, so that no other gets its handle.
    buffers: HandleMap<Arc<Buffer>>,
    sets: HandleMap<Arc<DescriptorSet>>,
    executed: Vec<Arc<CommandBuffer>>,
    /// Events that are waited for, and that the host sets.
    host_events: Vec<vk::Event>,
    /// What the commands use by themselves.
    uses: Uses,
}

impl References {
    /// `size` bytes of `buffer` from `offset` on. A buffer that nobody knows may lie anywhere.
    pub(crate) fn add(
        &mut self,
        coherence: &Coherence,
        buffer: vk::Buffer,
        offset: u64,
        size: u64,
        access: Access,
    ) {
        match look_up(&mut self.buffers, buffer, |buffer| coherence.buffer(buffer)) {
            Some(buffer) => self.uses.add_part(buffer, offset, size, access),
            None => self.uses.everything = true,
        }
    }

    /// What a descriptor leads to.
    pub(crate) fn add_bound(&mut self, bound: &Bound) {
        self.uses.add_bound(bound);
    }

    /// A descriptor set, as it will be when the batch is submitted.
    pub(crate) fn add_set(&mut self, coherence: &Coherence, set: vk::DescriptorSet) {
        if look_up(&mut self.sets, set, |set| coherence.descriptor_set(set)).is_none() {
            self.uses.everything = true;
        }
    }

    /// A secondary command buffer.
    pub(crate) fn add_executed(&mut self, commands: Option<Arc<CommandBuffer>>) {
        match commands {
            Some(commands) => self.executed.push(commands),
            None => self.uses.everything = true,
        }
    }

    /// An event that is waited for, and that the host sets.
    pub(crate) fn add_host_event(&mut self, event: vk::Event) {
        self.host_events.push(event);
    }

    /// Adds the events that are waited for, and that the host sets.
    pub(crate) fn host_events(&self, events: &mut Vec<vk::Event>) {
        events.extend_from_slice(&self.host_events);
        for commands in &self.executed {
            commands.references.hold().host_events(events);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.buffers.clear();
        self.sets.clear();
        self.executed.clear();
        self.host_events.clear();
        self.uses.clear();
    }

    /// Adds all of it to what a batch uses.
    pub(crate) fn resolve(&self, uses: &mut Uses) {
        uses.merge(&self.uses);
        self.sets.values().for_each(|set| set.resolve(uses));
        for commands in &self.executed {
            commands.references.hold().resolve(uses);
        }
    }
}

/// What `handle` stands for among those `known`, to which it is added if need be.
fn look_up<H: Handle + Copy, T>(
    known: &mut HandleMap<Arc<T>>,
    handle: H,
    find: impl FnOnce(H) -> Option<Arc<T>>,
) -> Option<&Arc<T>> {
    match known.entry(handle.as_raw()) {
        Entry::Occupied(entry) => Some(entry.into_mut()),
        Entry::Vacant(entry) => Some(entry.insert(find(handle)?)),
    }
}

/// The emulated memory that commands or a batch may use.
#[derive(Default)]
pub(crate) struct Uses {
    /// By [`Memory::key`].
    pub(crate) memories: HandleMap<(Arc<Memory>, Ranges)>,
    /// Something was not understood: it may be any memory.
    pub(crate) everything: bool,
}

/// Byte ranges of one memory, by how they are used.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges {
    pub(crate) read: Vec<Range<u64>>,
    pub(crate) written: Vec<Range<u64>>,
}

/// Ranges of one memory that are at most this far apart count as one. What lies between costs little, and a command
/// with thousands of regions takes one reference.
const GAP: u64 = 4096;

impl Uses {
    /// `size` bytes of `buffer` from `offset` on.
    fn add_part(&mut self, buffer: &Buffer, offset: u64, size: u64, access: Access) {
        if let Some((memory, range)) = buffer.place(offset, size)
            && let Some(ranges) = self.ranges_of(memory)
        {
            ranges.add(range, access);
        }
    }

    /// What a descriptor leads to.
    pub(crate) fn add_bound(&mut self, bound: &Bound) {
        self.add_part(&bound.buffer, bound.offset, bound.size, bound.access);
    }

    /// The whole of a memory, however used.
    pub(crate) fn add_all(&mut self, memory: &Arc<Memory>) {
        if let Some(ranges) = self.ranges_of(memory) {
            ranges.add(0..memory.len() as u64, Access::Write);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.everything |= other.everything;
        for (memory, ranges) in other.memories.values() {
            if let Some(known) = self.ranges_of(memory) {
                known.extend(ranges);
            }
        }
    }

    fn clear(&mut self) {
        self.memories.clear();
        self.everything = false;
    }

    /// Where to note what is used of a memory. One that was freed may still be named, by descriptors that nothing uses
    /// any more.
    fn ranges_of(&mut self, memory: &Arc<Memory>) -> Option<&mut Ranges> {
        if memory.is_freed() {
            return None;
        }
        let (_, ranges) =
            self.memories.entry(memory.key()).or_insert_with(|| (memory.clone(), Ranges::default()));
        Some(ranges)
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

    fn add(&mut self, range: Range<u64>, access: Access) {
        let ranges = match access {
            Access::Read => &mut self.read,
            Access::Write => &mut self.written,
        };
        // Loops come back to the same few places.
        for known in ranges.iter_mut().rev().take(8) {
            if range.start <= known.end.saturating_add(GAP) && known.start <= range.end.saturating_add(GAP) {
                *known = known.start.min(range.start)..known.end.max(range.end);
                return;
            }
        }
        if ranges.len() == ranges.capacity() {
            // Many places in turn: as many entries as there are places, or twice that.
            join(ranges);
            ranges.reserve(ranges.len().max(1));
        }
        ranges.push(range);
    }

    /// Those of both kinds.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Range<u64>> {
        self.read.iter().chain(&self.written)
    }

    /// Takes in another's ranges.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.extend(other);
        self.join();
    }

    fn extend(&mut self, other: &Self) {
        self.read.extend_from_slice(&other.read);
        self.written.extend_from_slice(&other.written);
    }

    fn join(&mut self) {
        join(&mut self.read);
        join(&mut self.written);
    }
}

/// Joined ranges of all lists together.
pub(crate) fn together<'a>(lists: impl Iterator<Item = &'a [Range<u64>]>) -> Cow<'a, [Range<u64>]> {
    let mut lists = lists.filter(|ranges| !ranges.is_empty());
    let first = lists.next().unwrap_or_default();
    match lists.next() {
        None => Cow::Borrowed(first),
        Some(second) => {
            let mut all = [first, second].concat();
            lists.for_each(|ranges| all.extend_from_slice(ranges));
            join(&mut all);
            Cow::Owned(all)
        }
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
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn any_range() -> impl Strategy<Value = Range<u64>> {
        const ROOM: u64 = 20 * GAP;
        let len = prop_oneof![0..10u64, 0..3 * GAP];
        (prop_oneof![0..ROOM, u64::MAX - ROOM..=u64::MAX], len)
            .prop_map(|(start, len)| start..start.saturating_add(len))
    }

    #[test]
    fn ranges_are_joined_when_they_nearly_touch() {
        let mut ranges = vec![50_000..60_000, 0..10, 20..30, 5..12, 9_000..9_001];
        join(&mut ranges);
        assert_eq!(ranges, [0..30, 9_000..9_001, 50_000..60_000]);
    }

    #[test]
    fn lists_come_together_joined() {
        let lists = [vec![], vec![0..10, 50_000..60_000], vec![], vec![5..12, 90_000..90_001]];
        let both = together(lists.iter().map(Vec::as_slice));
        assert_eq!(*both, [0..12, 50_000..60_000, 90_000..90_001]);
        assert_eq!(*together(lists[..3].iter().map(Vec::as_slice)), lists[1]);
        assert_eq!(*together(std::iter::empty()), []);
    }

    #[test]
    fn places_that_come_again_take_no_more_room() {
        let mut ranges = Ranges::default();
        let places =
            |round: u64| (0..100).map(move |place| place * 100_000 + round..place * 100_000 + 60_000);
        (0..50).for_each(|round| places(round).for_each(|range| ranges.add(range, Access::Read)));
        assert!(ranges.read.len() <= 200, "{}", ranges.read.len());
        ranges.join();
        assert!(ranges.read.iter().cloned().eq(places(0)));
        assert!(ranges.written.is_empty());
    }

    proptest! {
        #[test]
        fn joined_ranges_cover_all_of_them_and_no_gap_that_is_wide(ranges in vec(any_range(), 0..20)) {
            let mut joined = ranges.clone();
            join(&mut joined);
            for range in &ranges {
                let around = joined.iter().find(|all| all.start <= range.start && range.end <= all.end);
                let reach = range.end.saturating_add(GAP);
                let goes_on = ranges.iter().any(|next| next.start <= reach && next.end > range.end);
                prop_assert!(around.is_some_and(|all| all.end == range.end || goes_on));
            }
            prop_assert!(joined.iter().all(|all| ranges.iter().any(|range| range.start == all.start)));
            prop_assert!(joined.windows(2).all(|pair| pair[0].end.saturating_add(GAP) < pair[1].start));

            let mut one_by_one = Ranges::default();
            ranges.into_iter().for_each(|range| one_by_one.add(range, Access::Read));
            one_by_one.join();
            prop_assert_eq!(one_by_one.read, joined);
        }
    }
}
