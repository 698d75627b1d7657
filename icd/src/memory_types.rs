//! The memory types applications see, and how they map onto the backing driver's.
//!
//! In mode `always`, with lavapipe's one type (device-local, host-visible, coherent, cached):
//!
//! | type | heap | is |
//! | --- | --- | --- |
//! | DEVICE_LOCAL | the backing driver's | passed through, not mappable |
//! | HOST_VISIBLE, HOST_CACHED | host | emulated, flushed when the application flushes |
//! | HOST_VISIBLE, HOST_COHERENT, HOST_CACHED | host | emulated, flushed at every submit |

use crate::config::Mode;
use ash::vk::{self, MemoryHeapFlags, MemoryPropertyFlags as Flags};

/// The properties that let the host in.
const HOST: Flags = Flags::from_raw(
    Flags::HOST_VISIBLE.as_raw() | Flags::HOST_COHERENT.as_raw() | Flags::HOST_CACHED.as_raw(),
);

/// How a memory type is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// By the backing driver.
    PassedThrough,
    /// By a mirror of the backing driver's memory.
    Emulated {
        /// Whether the backing memory is coherent by itself.
        backing_is_coherent: bool,
    },
}

/// A memory type as applications see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryType {
    pub(crate) flags: Flags,
    /// Index of its heap, among the heaps applications see.
    pub(crate) heap: usize,
    /// Index of the backing driver's type it is made of.
    pub(crate) backing: u32,
    pub(crate) kind: Kind,
}

impl MemoryType {
    pub(crate) fn is_emulated(&self) -> bool {
        self.kind != Kind::PassedThrough
    }
}

/// A memory heap as applications see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heap {
    pub(crate) size: u64,
    pub(crate) flags: MemoryHeapFlags,
    /// Index of the backing driver's heap it draws from.
    pub(crate) backing: usize,
    /// Whether it is Tidemark's own, for emulated memory.
    pub(crate) is_host: bool,
}

/// All of a physical device's types and heaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryTypes {
    pub(crate) types: Vec<MemoryType>,
    pub(crate) heaps: Vec<Heap>,
}

impl MemoryTypes {
    /// What a device with `backing` memory shows in `mode`, on a machine with `host_memory` bytes.
    pub(crate) fn new(backing: &vk::PhysicalDeviceMemoryProperties, mode: Mode, host_memory: u64) -> Self {
        let heaps = backing.memory_heaps_as_slice().iter().enumerate().map(|(index, heap)| Heap {
            size: heap.size,
            flags: heap.flags,
            backing: index,
            is_host: false,
        });
        let types = (0..).zip(backing.memory_types_as_slice()).map(|(index, memory_type)| MemoryType {
            flags: memory_type.property_flags,
            heap: memory_type.heap_index as usize,
            backing: index,
            kind: Kind::PassedThrough,
        });
        let own = Self { types: types.collect(), heaps: heaps.collect() };
        match mode {
            Mode::Never => own,
            Mode::Auto => own.with_what_lacks(),
            Mode::Always => own.all_emulated(host_memory),
        }
    }

    /// Whether there is anything for Tidemark to do.
    pub(crate) fn emulates(&self) -> bool {
        self.types.iter().any(MemoryType::is_emulated)
    }

    /// The types applications may use where the backing driver allows those of `backing_bits`.
    pub(crate) fn bits(&self, backing_bits: u32) -> u32 {
        let allowed = |memory_type: &MemoryType| backing_bits >> memory_type.backing & 1;
        self.types.iter().zip(0..).fold(0, |bits, (memory_type, index)| bits | allowed(memory_type) << index)
    }

    /// The structure applications get.
    pub(crate) fn properties(&self) -> vk::PhysicalDeviceMemoryProperties {
        let mut properties = vk::PhysicalDeviceMemoryProperties::default();
        for (to, from) in properties.memory_types.iter_mut().zip(&self.types) {
            *to = vk::MemoryType {
                property_flags: from.flags,
                heap_index: u32::try_from(from.heap).unwrap_or(u32::MAX),
            };
            properties.memory_type_count += 1;
        }
        for (to, from) in properties.memory_heaps.iter_mut().zip(&self.heaps) {
            *to = vk::MemoryHeap { size: from.size, flags: from.flags };
            properties.memory_heap_count += 1;
        }
        properties
    }

    /// Mode `auto`: coherent and cached memory, where no type is both.
    fn with_what_lacks(mut self) -> Self {
        let wanted = HOST;
        if self.types.iter().any(|memory_type| memory_type.flags.contains(wanted)) {
            return self;
        }
        for heap in 0..self.heaps.len() {
            if let Some(source) = self.host_visible(heap) {
                self.types.push(MemoryType {
                    flags: source.flags | wanted,
                    kind: emulated(&source),
                    ..source
                });
            }
        }
        self.ordered()
    }

    /// Mode `always`: the device is one whose memory the host cannot reach, but for emulation.
    fn all_emulated(self, host_memory: u64) -> Self {
        let mut heaps = self.heaps.clone();
        let mut types: Vec<MemoryType> = Vec::new();
        for memory_type in &self.types {
            let stripped = MemoryType { flags: memory_type.flags & !HOST, ..*memory_type };
            let twin = |t: &MemoryType| (t.flags, t.heap) == (stripped.flags, stripped.heap);
            // A type that only differed in how the host sees it is now one too many.
            if stripped.flags == memory_type.flags || !types.iter().any(twin) {
                types.push(stripped);
            }
        }
        for heap in 0..self.heaps.len() {
            let Some(source) = self.host_visible(heap) else { continue };
            let from = self.heaps[heap];
            // A type on a device-local heap must be device-local itself, which emulated memory is not: reads and
            // writes of the host go elsewhere. So it gets a heap of its own, whose bytes are also bytes of the
            // device's heap and of the host's memory, of which it may take half.
            let heap = if from.flags.contains(MemoryHeapFlags::DEVICE_LOCAL) {
                heaps.push(Heap {
                    size: from.size.min(host_memory / 2).max(1),
                    flags: from.flags & !MemoryHeapFlags::DEVICE_LOCAL,
                    backing: heap,
                    is_host: true,
                });
                heaps.len() - 1
            } else {
                heap
            };
            for flags in [Flags::HOST_VISIBLE | Flags::HOST_CACHED, HOST] {
                types.push(MemoryType { flags, heap, backing: source.backing, kind: emulated(&source) });
            }
        }
        if types.len() > vk::MAX_MEMORY_TYPES || heaps.len() > vk::MAX_MEMORY_HEAPS {
            log::error!("the backing driver has too many memory types to add emulated ones: using its own");
            return self;
        }
        Self { types, heaps }.ordered()
    }

    /// The type of a heap that an emulated one is best made of: coherent spares explicit flushes, cached makes
    /// comparisons fast. None if the host cannot see the heap.
    fn host_visible(&self, heap: usize) -> Option<MemoryType> {
        let host_visible = self.types.iter().filter(|memory_type| {
            memory_type.heap == heap
                && memory_type.flags.contains(Flags::HOST_VISIBLE)
                && !memory_type.flags.intersects(Flags::PROTECTED | Flags::LAZILY_ALLOCATED)
        });
        let rank = |memory_type: &&MemoryType| {
            let has = |flag| memory_type.flags.contains(flag);
            (has(Flags::HOST_CACHED), has(Flags::HOST_COHERENT), std::cmp::Reverse(memory_type.backing))
        };
        host_visible.max_by_key(rank).copied()
    }

    /// The specification's order (VkPhysicalDeviceMemoryProperties): a type whose properties are a strict subset
    /// of another's comes first. A stable sort by their number keeps the driver's order otherwise.
    fn ordered(mut self) -> Self {
        self.types.sort_by_key(|memory_type| memory_type.flags.as_raw().count_ones());
        self
    }
}

fn emulated(source: &MemoryType) -> Kind {
    Kind::Emulated { backing_is_coherent: source.flags.contains(Flags::HOST_COHERENT) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const DL: Flags = Flags::DEVICE_LOCAL;
    const HV: Flags = Flags::HOST_VISIBLE;
    const CO: Flags = Flags::HOST_COHERENT;
    const CA: Flags = Flags::HOST_CACHED;

    fn properties(heaps: &[MemoryHeapFlags], types: &[(Flags, u32)]) -> vk::PhysicalDeviceMemoryProperties {
        let mut properties = vk::PhysicalDeviceMemoryProperties::default();
        for &flags in heaps {
            properties.memory_heaps[properties.memory_heap_count as usize] =
                vk::MemoryHeap { size: 8 * GIB, flags };
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
        let memory = MemoryTypes::new(&lavapipe(), Mode::Always, 6 * GIB);
        assert_eq!(flags(&memory), [DL, HV | CA, HV | CO | CA]);
        assert_eq!(memory.types.iter().map(|t| t.heap).collect::<Vec<_>>(), [0, 1, 1]);
        assert_eq!(memory.heaps[1].size, 3 * GIB);
        assert!(memory.heaps[1].is_host && !memory.heaps[1].flags.contains(MemoryHeapFlags::DEVICE_LOCAL));
        assert_eq!(memory.bits(0b1), 0b111);
        assert_eq!(memory.bits(0), 0);
    }

    #[test]
    fn auto_and_never_leave_lavapipe_alone() {
        for mode in [Mode::Auto, Mode::Never] {
            let memory = MemoryTypes::new(&lavapipe(), mode, 6 * GIB);
            assert!(!memory.emulates());
            assert_eq!(flags(&memory), [DL | HV | CO | CA]);
        }
    }

    #[test]
    fn auto_adds_coherent_cached_memory_where_there_is_only_write_combined() {
        let board = properties(&[MemoryHeapFlags::DEVICE_LOCAL], &[(DL, 0), (DL | HV | CO, 0)]);
        let memory = MemoryTypes::new(&board, Mode::Auto, 6 * GIB);
        assert_eq!(flags(&memory), [DL, DL | HV | CO, DL | HV | CO | CA]);
        assert_eq!(memory.types[2].kind, Kind::Emulated { backing_is_coherent: true });
        assert_eq!(memory.bits(0b10), 0b110);
    }

    #[test]
    fn auto_makes_non_coherent_cached_memory_coherent() {
        let phone =
            properties(&[MemoryHeapFlags::DEVICE_LOCAL], &[(DL, 0), (DL | HV | CO, 0), (DL | HV | CA, 0)]);
        let memory = MemoryTypes::new(&phone, Mode::Auto, 6 * GIB);
        let added = memory.types.iter().find(|memory_type| memory_type.is_emulated()).unwrap();
        assert_eq!((added.flags, added.backing), (DL | HV | CO | CA, 2));
        assert_eq!(added.kind, Kind::Emulated { backing_is_coherent: false });
    }

    #[test]
    fn always_on_a_discrete_gpu_takes_each_heap_s_best_type() {
        let memory = MemoryTypes::new(&discrete(), Mode::Always, 6 * GIB);
        // Heap 1 is not device-local, so its emulated types stay there; heap 0's get a heap of their own.
        let emulated: Vec<_> =
            memory.types.iter().filter(|t| t.is_emulated()).map(|t| (t.flags, t.heap, t.backing)).collect();
        assert_eq!(emulated, [(HV | CA, 2, 2), (HV | CA, 1, 3), (HV | CO | CA, 2, 2), (HV | CO | CA, 1, 3)]);
        assert!(memory.types.iter().all(|t| t.is_emulated() || !t.flags.intersects(HOST)));
    }

    #[test]
    fn the_order_is_the_specification_s() {
        for backing in [lavapipe(), discrete()] {
            for mode in [Mode::Auto, Mode::Always] {
                let order = flags(&MemoryTypes::new(&backing, mode, 6 * GIB));
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
