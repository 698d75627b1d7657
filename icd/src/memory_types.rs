//! The memory types applications see, and how they map onto the backing driver's.
//!
//! In mode `always`, with lavapipe's one type (device-local, host-visible, coherent, cached), they are those of a
//! device with unified memory and no coherent caches, such as many SoCs:
//!
//! | type | is |
//! | --- | --- |
//! | DEVICE_LOCAL | passed through, not mappable |
//! | DEVICE_LOCAL, HOST_VISIBLE, HOST_CACHED | emulated; the application flushes, and Tidemark again at every submit |
//! | DEVICE_LOCAL, HOST_VISIBLE, HOST_COHERENT, HOST_CACHED | emulated, flushed at every submit |
//!
//! Memory that the host does not see at all is emulated by staging, if there is other memory to stage with.
//!
//! Heaps stay the backing driver's, and with them the budget: emulated memory is its memory, plus a host view. A
//! type on a device-local heap must be device-local itself (VkMemoryPropertyFlagBits). Applications count on it,
//! too: without a type that is both device-local and host-visible, Zink of Mesa 22.3 maps buffers persistently by
//! way of a staging copy that it never updates.

use crate::config::{Mode, Transfer};
use crate::transfer::Engine;
use ash::vk::{self, MemoryPropertyFlags as Flags};

/// The properties that let the host in.
const HOST: Flags = Flags::from_raw(
    Flags::HOST_VISIBLE.as_raw() | Flags::HOST_COHERENT.as_raw() | Flags::HOST_CACHED.as_raw(),
);

/// The properties of VK_AMD_device_coherent_memory. Only applications that enable its feature may use such types.
const AMD: Flags = Flags::from_raw(Flags::DEVICE_COHERENT_AMD.as_raw() | Flags::DEVICE_UNCACHED_AMD.as_raw());

/// How a memory type is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// By the backing driver.
    PassedThrough,
    /// By a mirror of the backing driver's memory.
    Emulated {
        /// What the backing memory is by itself.
        backing: Flags,
        /// How bytes cross.
        engine: Engine,
    },
}

/// A memory type as applications see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryType {
    pub(crate) flags: Flags,
    /// Index of its heap.
    pub(crate) heap: u32,
    /// Index of the backing driver's type it is made of.
    pub(crate) backing: u32,
    pub(crate) kind: Kind,
}

impl MemoryType {
    pub(crate) fn is_emulated(&self) -> bool {
        self.kind != Kind::PassedThrough
    }

    pub(crate) fn is_host_visible(&self) -> bool {
        self.flags.contains(Flags::HOST_VISIBLE)
    }

    /// Whether the host has pages of its own for its memory, which can be mapped anywhere.
    pub(crate) fn is_mirrored(&self) -> bool {
        matches!(self.kind, Kind::Emulated { engine, .. } if engine != Engine::InPlace)
    }

    /// Whether the host gets into its memory by staging alone.
    fn is_staged_only(&self) -> bool {
        matches!(self.kind, Kind::Emulated { backing, .. } if !backing.contains(Flags::HOST_VISIBLE))
    }

    /// The type made of this one that gives the host `host`.
    fn emulated(&self, host: Flags, transfer: Transfer) -> Self {
        let kind = Kind::Emulated { backing: self.flags, engine: Engine::of(transfer, self.flags) };
        Self { flags: self.flags & !HOST | host, kind, ..*self }
    }
}

/// All of a physical device's types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryTypes {
    pub(crate) types: Vec<MemoryType>,
}

impl MemoryTypes {
    /// What a device with `backing` memory shows in `mode`, if bytes cross by `transfer`.
    pub(crate) fn new(backing: &vk::PhysicalDeviceMemoryProperties, mode: Mode, transfer: Transfer) -> Self {
        let types = (0..).zip(backing.memory_types_as_slice()).map(|(index, memory_type)| MemoryType {
            flags: memory_type.property_flags,
            heap: memory_type.heap_index,
            backing: index,
            kind: Kind::PassedThrough,
        });
        let own = Self { types: types.collect() };
        let emulated = match mode {
            Mode::Never => return own,
            Mode::Auto => own.with_what_lacks(backing.memory_heap_count, transfer),
            Mode::Always => own.all_emulated(backing.memory_heap_count, transfer),
        };
        if emulated.types.len() > vk::MAX_MEMORY_TYPES {
            log::error!("the backing driver has too many memory types to add emulated ones: using its own");
            return own;
        }
        emulated
    }

    /// Whether there is anything for Tidemark to do.
    pub(crate) fn emulates(&self) -> bool {
        self.types.iter().any(MemoryType::is_emulated)
    }

    /// Whether applications can map anything.
    pub(crate) fn is_host_visible(&self) -> bool {
        self.types.iter().any(MemoryType::is_host_visible)
    }

    /// Whether some of it is not served by the engine that was asked for.
    pub(crate) fn falls_back(&self, asked: Transfer) -> bool {
        matches!(asked, Transfer::Aperture | Transfer::InPlace)
            && self.types.iter().any(MemoryType::is_staged_only)
    }

    /// Whether some of it is staged.
    pub(crate) fn stages(&self) -> bool {
        self.types.iter().any(|t| matches!(t.kind, Kind::Emulated { engine: Engine::Staged, .. }))
    }

    /// The types applications may use where the backing driver allows those of `backing_bits`; if the memory must be
    /// `dedicated` to the resource, then no staging buffer can be bound to it.
    pub(crate) fn bits(&self, backing_bits: u32, dedicated: bool) -> u32 {
        let is_allowed = |memory_type: &MemoryType| {
            backing_bits >> memory_type.backing & 1 == 1 && !(dedicated && memory_type.is_staged_only())
        };
        let allowed = |memory_type| u32::from(is_allowed(memory_type));
        self.types.iter().zip(0..).fold(0, |bits, (memory_type, index)| bits | allowed(memory_type) << index)
    }

    /// The types that are emulated.
    pub(crate) fn emulated_bits(&self) -> u32 {
        self.types.iter().zip(0..).fold(0, |bits, (one, index)| bits | u32::from(one.is_emulated()) << index)
    }

    /// Puts these types in the place of the backing driver's.
    pub(crate) fn store(&self, properties: &mut vk::PhysicalDeviceMemoryProperties) {
        properties.memory_type_count = 0;
        for (to, from) in properties.memory_types.iter_mut().zip(&self.types) {
            *to = vk::MemoryType { property_flags: from.flags, heap_index: from.heap };
            properties.memory_type_count += 1;
        }
    }

    /// Mode `auto`: coherent and cached memory, where no type is both: in each heap that the host sees, and, where it sees
    /// none that is the device's own, in those as well. The driver's own types keep their order, in which applications and
    /// captures may know them, and their indices where nothing is added.
    fn with_what_lacks(&self, heaps: u32, transfer: Transfer) -> Self {
        let mut types = self.types.clone();
        if !types.iter().any(|memory_type| memory_type.flags.contains(HOST)) {
            let local = Flags::DEVICE_LOCAL | Flags::HOST_VISIBLE;
            let stages = !self.types.iter().any(|memory_type| memory_type.flags.contains(local));
            for source in (0..heaps).filter_map(|heap| self.sources(heap, stages).into_iter().next()) {
                let added = source.emulated(HOST, transfer);
                // The specification's order: behind every type whose properties are a strict subset. In a list that
                // is in order those that it is a strict subset of itself all come later.
                let is_before = |t: &MemoryType| t.flags != added.flags && added.flags.contains(t.flags);
                let place = types.iter().rposition(is_before).map_or(0, |last| last + 1);
                types.insert(place, added);
            }
        }
        Self { types }
    }

    /// Mode `always`: the device is one whose memory the host cannot reach, but for emulation.
    ///
    /// A resource may exclude any of the backing driver's types, so all of them are emulated, as far as there is room; else
    /// each heap's best.
    fn all_emulated(&self, heaps: u32, transfer: Transfer) -> Self {
        let sources = || (0..heaps).map(|heap| self.sources(heap, true));
        let all = self.emulated_from(&sources().flatten().collect::<Vec<_>>(), transfer);
        if all.types.len() <= vk::MAX_MEMORY_TYPES {
            return all;
        }
        let best: Vec<_> = sources().filter_map(|heap| heap.into_iter().next()).collect();
        self.emulated_from(&best, transfer)
    }

    /// The driver's types without the host, and those made of `sources`.
    fn emulated_from(&self, sources: &[MemoryType], transfer: Transfer) -> Self {
        let mut types: Vec<MemoryType> = Vec::new();
        for memory_type in &self.types {
            let stripped = MemoryType { flags: memory_type.flags & !HOST, ..*memory_type };
            let is_same = |t: &MemoryType| (t.flags, t.heap) == (stripped.flags, stripped.heap);
            // A type that only differed in how the host sees it is now one too many, unless there is no other way to
            // its memory.
            let is_redundant = stripped.flags != memory_type.flags && sources.contains(memory_type);
            if !is_redundant || !types.iter().any(is_same) {
                types.push(stripped);
            }
        }
        for source in sources {
            types.extend(
                [Flags::HOST_VISIBLE | Flags::HOST_CACHED, HOST].map(|host| source.emulated(host, transfer)),
            );
        }
        Self { types }.ordered()
    }

    /// The types of a heap that emulated ones can be made of, the best first: those that any application may use
    /// without asking for a feature, then those that the host sees, coherent ones, and cached ones, which make comparisons
    /// fast. If it `stages`, those that the host does not see are among them, provided that it sees others to stage with.
    ///
    /// Coherent before cached, since a cache that is not coherent works by lines: to write one back for a byte of the
    /// host's also writes what it holds of the bytes beside it, over what the device has stored there since.
    fn sources(&self, heap: u32, stages: bool) -> Vec<MemoryType> {
        let can_stage = stages && self.is_host_visible();
        let is_source = |memory_type: &&MemoryType| {
            memory_type.heap == heap
                && (memory_type.is_host_visible() || can_stage)
                && !memory_type.flags.intersects(Flags::PROTECTED | Flags::LAZILY_ALLOCATED)
        };
        let mut sources: Vec<MemoryType> = self.types.iter().filter(is_source).copied().collect();
        sources.sort_by_key(|memory_type| {
            let lacks = |flag| !memory_type.flags.contains(flag);
            let host = [Flags::HOST_VISIBLE, Flags::HOST_COHERENT, Flags::HOST_CACHED];
            (memory_type.flags.intersects(AMD), host.map(lacks))
        });
        sources
    }

    /// The specification's order (VkPhysicalDeviceMemoryProperties): a type whose properties are a strict subset
    /// of another's comes first, and AMD's come last. A stable sort by their number keeps the driver's order otherwise.
    fn ordered(mut self) -> Self {
        self.types.sort_by_key(|memory_type| {
            (memory_type.flags.intersects(AMD), memory_type.flags.as_raw().count_ones())
        });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ash::vk::MemoryHeapFlags;

    const DL: Flags = Flags::DEVICE_LOCAL;
    const HV: Flags = Flags::HOST_VISIBLE;
    const CO: Flags = Flags::HOST_COHERENT;
    const CA: Flags = Flags::HOST_CACHED;

    fn properties(heaps: &[MemoryHeapFlags], types: &[(Flags, u32)]) -> vk::PhysicalDeviceMemoryProperties {
        let mut properties = vk::PhysicalDeviceMemoryProperties::default();
        for &flags in heaps {
            properties.memory_heaps[properties.memory_heap_count as usize] =
                vk::MemoryHeap { size: 1 << 30, flags };
            properties.memory_heap_count += 1;
        }
        for &(property_flags, heap_index) in types {
            properties.memory_types[properties.memory_type_count as usize] =
                vk::MemoryType { property_flags, heap_index };
            properties.memory_type_count += 1;
        }
        properties
    }

    fn lavapipe() -> vk::PhysicalDeviceMemoryProperties {
        properties(&[MemoryHeapFlags::DEVICE_LOCAL], &[(DL | HV | CO | CA, 0)])
    }

    fn discrete() -> vk::PhysicalDeviceMemoryProperties {
        properties(
            &[MemoryHeapFlags::DEVICE_LOCAL, MemoryHeapFlags::empty()],
            &[(DL, 0), (HV | CO, 1), (DL | HV | CO, 0), (HV | CO | CA, 1)],
        )
    }

    fn flags(memory: &MemoryTypes) -> Vec<Flags> {
        memory.types.iter().map(|memory_type| memory_type.flags).collect()
    }

    #[test]
    fn always_on_lavapipe_is_the_documented_list() {
        let memory = MemoryTypes::new(&lavapipe(), Mode::Always, Transfer::Auto);
        assert_eq!(flags(&memory), [DL, DL | HV | CA, DL | HV | CO | CA]);
        assert_eq!(memory.types.iter().map(MemoryType::is_emulated).collect::<Vec<_>>(), [false, true, true]);
        let mut properties = lavapipe();
        memory.store(&mut properties);
        assert_eq!((properties.memory_type_count, properties.memory_heap_count), (3, 1));
        assert_eq!(memory.bits(0b1, false), 0b111);
        assert_eq!(memory.bits(0, false), 0);
    }

    #[test]
    fn auto_and_never_leave_lavapipe_alone() {
        for mode in [Mode::Auto, Mode::Never] {
            let memory = MemoryTypes::new(&lavapipe(), mode, Transfer::Auto);
            assert!(!memory.emulates());
            assert_eq!(flags(&memory), [DL | HV | CO | CA]);
        }
    }

    #[test]
    fn auto_adds_coherent_cached_memory_where_there_is_only_write_combined() {
        let board = properties(&[MemoryHeapFlags::DEVICE_LOCAL], &[(DL, 0), (DL | HV | CO, 0)]);
        let memory = MemoryTypes::new(&board, Mode::Auto, Transfer::Auto);
        assert_eq!(flags(&memory), [DL, DL | HV | CO, DL | HV | CO | CA]);
        assert_eq!(memory.types[2].kind, Kind::Emulated { backing: DL | HV | CO, engine: Engine::Aperture });
        assert_eq!(memory.bits(0b10, false), 0b110);
    }

    #[test]
    fn auto_makes_non_coherent_cached_memory_coherent() {
        let phone =
            properties(&[MemoryHeapFlags::DEVICE_LOCAL], &[(DL, 0), (DL | HV | CO, 0), (DL | HV | CA, 0)]);
        let memory = MemoryTypes::new(&phone, Mode::Auto, Transfer::Auto);
        let added = memory.types.iter().find(|memory_type| memory_type.is_emulated()).unwrap();
        assert_eq!((added.flags, added.backing), (DL | HV | CO | CA, 1));
        assert_eq!(added.kind, Kind::Emulated { backing: DL | HV | CO, engine: Engine::Aperture });

        let without_coherent = properties(&[MemoryHeapFlags::DEVICE_LOCAL], &[(DL, 0), (DL | HV | CA, 0)]);
        let memory = MemoryTypes::new(&without_coherent, Mode::Auto, Transfer::Auto);
        assert_eq!(flags(&memory), [DL, DL | HV | CA, DL | HV | CO | CA]);
        assert_eq!(memory.types[2].kind, Kind::Emulated { backing: DL | HV | CA, engine: Engine::Aperture });
    }

    #[test]
    fn nothing_is_made_of_memory_that_the_host_does_not_see() {
        for mode in [Mode::Auto, Mode::Always, Mode::Never] {
            let hidden = properties(&[MemoryHeapFlags::DEVICE_LOCAL], &[(DL, 0)]);
            let memory = MemoryTypes::new(&hidden, mode, Transfer::Auto);
            assert_eq!((flags(&memory).as_slice(), memory.is_host_visible()), ([DL].as_slice(), false));
            assert!(MemoryTypes::new(&lavapipe(), mode, Transfer::Auto).is_host_visible());
        }
    }

    #[test]
    fn memory_that_the_host_does_not_see_is_staged_where_it_sees_other() {
        let heaps = [MemoryHeapFlags::DEVICE_LOCAL, MemoryHeapFlags::empty()];
        let card = properties(&heaps, &[(DL, 0), (HV | CO, 1)]);
        let engines = |transfer| {
            let memory = MemoryTypes::new(&card, Mode::Auto, transfer);
            assert_eq!(flags(&memory), [DL, HV | CO, HV | CO | CA, DL | HV | CO | CA]);
            let staged = Kind::Emulated { backing: DL, engine: Engine::Staged };
            assert!(memory.types[3].kind == staged && memory.stages());
            match memory.types[2].kind {
                Kind::Emulated { engine, .. } => (engine, memory.falls_back(transfer)),
                Kind::PassedThrough => panic!("{memory:?}"),
            }
        };
        assert_eq!(engines(Transfer::Auto), (Engine::Aperture, false));
        assert_eq!(engines(Transfer::Aperture), (Engine::Aperture, true));
        assert_eq!(engines(Transfer::Staged), (Engine::Staged, false));
        assert_eq!(engines(Transfer::InPlace), (Engine::InPlace, true));
    }

    #[test]
    fn auto_leaves_a_list_alone_that_is_not_sorted_by_number() {
        let list = [(DL | HV | CO, 0), (DL | HV | CO | CA, 0), (DL | HV | CA, 0)];
        // As valid as the specification's own order: the last is no superset of any other.
        let memory = MemoryTypes::new(
            &properties(&[MemoryHeapFlags::DEVICE_LOCAL], &list),
            Mode::Auto,
            Transfer::Auto,
        );
        assert_eq!(flags(&memory), list.map(|(flags, _)| flags));
        assert!((0..3).all(|index| memory.bits(1 << index, false) == 1 << index));
    }

    #[test]
    fn auto_adds_a_type_without_moving_the_driver_s_own() {
        let heaps = [MemoryHeapFlags::DEVICE_LOCAL, MemoryHeapFlags::empty()];
        let list = [(HV | CO, 1), (DL | HV | CO, 0), (DL, 0), (HV, 1), (HV | CA, 1)];
        let memory = MemoryTypes::new(&properties(&heaps, &list), Mode::Auto, Transfer::Auto);
        let shown: Vec<_> = memory.types.iter().map(|t| (t.flags, t.backing, t.is_emulated())).collect();
        assert_eq!(
            shown,
            [
                (HV | CO, 0, false),
                (DL | HV | CO, 1, false),
                (DL, 2, false),
                (HV, 3, false),
                (HV | CA, 4, false),
                (HV | CO | CA, 0, true),
                (DL | HV | CO | CA, 1, true),
            ]
        );
        assert_eq!(memory.bits(0b00011, false), 0b110_0011);

        // Between the driver's own.
        let rdma = Flags::RDMA_CAPABLE_NV;
        let list = [(DL, 0), (DL | HV | CO, 0), (DL | rdma, 0)];
        let memory = MemoryTypes::new(&properties(&heaps, &list), Mode::Auto, Transfer::Auto);
        assert_eq!(flags(&memory), [DL, DL | HV | CO, DL | HV | CO | CA, DL | rdma]);
        assert_eq!(memory.bits(0b110, false), 0b1110);
    }

    #[test]
    fn always_on_a_discrete_gpu_takes_each_type() {
        let memory = MemoryTypes::new(&discrete(), Mode::Always, Transfer::Auto);
        let emulated: Vec<_> =
            memory.types.iter().filter(|t| t.is_emulated()).map(|t| (t.flags, t.heap, t.backing)).collect();
        assert_eq!(
            emulated,
            [
                // Of equal ones that made of the best first.
                (HV | CA, 1, 3),
                (HV | CA, 1, 1),
                (DL | HV | CA, 0, 2),
                (DL | HV | CA, 0, 0),
                (HV | CO | CA, 1, 3),
                (HV | CO | CA, 1, 1),
                (DL | HV | CO | CA, 0, 2),
                (DL | HV | CO | CA, 0, 0)
            ]
        );
        assert!(memory.types.iter().all(|t| t.is_emulated() || !t.flags.intersects(HOST)));
    }

    #[test]
    fn always_offers_host_visible_memory_whatever_a_resource_excludes() {
        for backing in [lavapipe(), discrete()] {
            let memory = MemoryTypes::new(&backing, Mode::Always, Transfer::Auto);
            for (index, own) in (0..).zip(backing.memory_types_as_slice()) {
                for dedicated in [false, true] {
                    let bits = memory.bits(1 << index, dedicated);
                    assert_ne!(bits, 0);
                    let mut allowed = memory.types.iter().zip(0..).filter(|(_, i)| bits >> i & 1 == 1);
                    // What must be dedicated to a resource cannot be staged.
                    let is_visible = !dedicated || own.property_flags.contains(HV);
                    assert_eq!(allowed.any(|(t, _)| t.flags.contains(HOST)), is_visible);
                }
            }
        }
    }

    #[test]
    fn always_keeps_within_the_most_types_there_may_be() {
        // Two for each, and what is left of them without the host, are too many.
        let list: Vec<_> =
            (0..16).map(|i| (if i == 7 { DL | HV | CO | CA } else { DL | HV | CO }, 0)).collect();
        let memory = MemoryTypes::new(
            &properties(&[MemoryHeapFlags::DEVICE_LOCAL], &list),
            Mode::Always,
            Transfer::Auto,
        );
        let emulated: Vec<_> = memory.types.iter().filter(|t| t.is_emulated()).map(|t| t.backing).collect();
        assert_eq!(emulated, [7, 7]);
        assert!((0..16).all(|index| memory.bits(1 << index, false) != 0));
    }

    #[test]
    fn types_that_need_a_feature_come_last() {
        let amd = Flags::DEVICE_COHERENT_AMD;
        let list = [(DL, 0), (DL | HV | CO, 0), (DL | amd, 0), (DL | HV | CO | CA | amd, 0)];
        let memory = MemoryTypes::new(
            &properties(&[MemoryHeapFlags::DEVICE_LOCAL], &list),
            Mode::Always,
            Transfer::Auto,
        );
        let first = memory.types.iter().position(|t| t.flags.contains(amd)).unwrap();
        assert!(memory.types[first..].iter().all(|t| t.flags.contains(amd)));
        assert_eq!(memory.types.iter().find(|t| t.is_emulated()).unwrap().backing, 1);
    }

    #[test]
    fn the_order_is_the_specification_s() {
        for backing in [lavapipe(), discrete()] {
            for mode in [Mode::Auto, Mode::Always] {
                let order = flags(&MemoryTypes::new(&backing, mode, Transfer::Auto));
                for (index, later) in order.iter().enumerate() {
                    for earlier in &order[..index] {
                        assert!(
                            earlier == later || !earlier.contains(*later),
                            "{earlier:?} before {later:?}"
                        );
                    }
                }
            }
        }
    }
}
