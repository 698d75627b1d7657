//! The devices that can be played, by their memory.

use ash::vk::{self, MemoryPropertyFlags as Flags};
use std::sync::OnceLock;

/// The variable that names the shape.
const VARIABLE: &str = "TIDEMARK_MOCK";

const LOCAL: Flags = Flags::DEVICE_LOCAL;
const VISIBLE: Flags = Flags::HOST_VISIBLE;
const COHERENT: Flags = Flags::HOST_COHERENT;
const CACHED: Flags = Flags::HOST_CACHED;

/// A device's memory types.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    heaps: &'static [vk::MemoryHeapFlags],
    /// The properties, and the heap.
    types: &'static [(Flags, u32)],
}

const ONE_HEAP: &[vk::MemoryHeapFlags] = &[vk::MemoryHeapFlags::DEVICE_LOCAL];
const TWO_HEAPS: &[vk::MemoryHeapFlags] = &[vk::MemoryHeapFlags::DEVICE_LOCAL, vk::MemoryHeapFlags::empty()];

/// `union` in a constant.
const fn all(flags: &[Flags]) -> Flags {
    let (mut bits, mut index) = (0, 0);
    while index < flags.len() {
        bits |= flags[index].as_raw();
        index += 1;
    }
    Flags::from_raw(bits)
}

const SHAPES: &[Shape] = &[
    // Raspberry Pi 5: coherent because uncached.
    Shape { name: "pi", heaps: ONE_HEAP, types: &[(all(&[LOCAL, VISIBLE, COHERENT]), 0)] },
    // An SoC without I/O coherence: uncached, or cached and the application's to keep coherent.
    Shape {
        name: "phone",
        heaps: ONE_HEAP,
        types: &[(all(&[LOCAL, VISIBLE, COHERENT]), 0), (all(&[LOCAL, VISIBLE, CACHED]), 0)],
    },
    // A card that looks into the host's memory, while the host does not look into its own.
    Shape {
        name: "discrete",
        heaps: TWO_HEAPS,
        types: &[(LOCAL, 0), (all(&[VISIBLE, COHERENT]), 1), (all(&[VISIBLE, COHERENT, CACHED]), 1)],
    },
    // The same without a cache in between: what the host reads is slow wherever it lies.
    Shape { name: "card", heaps: TWO_HEAPS, types: &[(LOCAL, 0), (all(&[VISIBLE, COHERENT]), 1)] },
    // Vulkan does not allow it: the host sees nothing at all, and mapping fails.
    Shape { name: "hidden", heaps: ONE_HEAP, types: &[(LOCAL, 0)] },
    // Nor this: nothing is coherent.
    Shape { name: "incoherent", heaps: ONE_HEAP, types: &[(all(&[LOCAL, VISIBLE, CACHED]), 0)] },
    // As it is.
    Shape { name: "lavapipe", heaps: ONE_HEAP, types: &[(all(&[LOCAL, VISIBLE, COHERENT, CACHED]), 0)] },
];

impl Shape {
    /// The shape that the environment names, or what is wrong with the name.
    pub(crate) fn get() -> Result<&'static Self, String> {
        static SHAPE: OnceLock<Result<&'static Shape, String>> = OnceLock::new();
        let shape = SHAPE.get_or_init(|| {
            let name = std::env::var(VARIABLE).unwrap_or_default();
            SHAPES.iter().find(|shape| shape.name == name).ok_or_else(|| {
                let names: Vec<&str> = SHAPES.iter().map(|shape| shape.name).collect();
                format!("{VARIABLE} is \"{name}\"; it must be one of {}", names.join(", "))
            })
        });
        shape.clone()
    }

    /// The properties of a type.
    pub(crate) fn flags(&self, memory_type: u32) -> Option<Flags> {
        self.types.get(memory_type as usize).map(|(flags, _)| *flags)
    }

    /// Whether the host sees any memory.
    pub(crate) fn is_host_visible(&self) -> bool {
        self.types.iter().any(|(flags, _)| flags.contains(VISIBLE))
    }

    /// The number of heaps.
    pub(crate) fn heap_count(&self) -> usize {
        self.heaps.len()
    }

    /// Every type, wherever lavapipe allows its only one.
    pub(crate) fn bits(&self, lavapipe: u32) -> u32 {
        if lavapipe & 1 == 0 { 0 } else { (1 << self.types.len()) - 1 }
    }

    /// Puts this memory in the place of lavapipe's. Each heap is as large as its only one, from which all is taken.
    pub(crate) fn store(&self, properties: &mut vk::PhysicalDeviceMemoryProperties) {
        let size = properties.memory_heaps[0].size;
        *properties = vk::PhysicalDeviceMemoryProperties::default();
        for (to, &flags) in properties.memory_heaps.iter_mut().zip(self.heaps) {
            *to = vk::MemoryHeap { size, flags };
            properties.memory_heap_count += 1;
        }
        for (to, &(property_flags, heap_index)) in properties.memory_types.iter_mut().zip(self.types) {
            *to = vk::MemoryType { property_flags, heap_index };
            properties.memory_type_count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_a_list_in_the_specification_s_order() {
        for shape in SHAPES {
            for (index, &(later, heap)) in shape.types.iter().enumerate() {
                let earlier = &shape.types[..index];
                assert!(earlier.iter().all(|(earlier, _)| !earlier.contains(later)), "{}", shape.name);
                let is_local = shape.heaps[heap as usize].contains(vk::MemoryHeapFlags::DEVICE_LOCAL);
                assert_eq!(is_local, later.contains(LOCAL), "{}", shape.name);
            }
        }
    }
}
