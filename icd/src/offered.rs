//! Device extensions that Tidemark itself offers on devices with emulated memory, whether the backing driver has them or
//! not.
//!
//! One table says what there is. An extension of it that is offered on a device is listed beside the driver's own, its
//! structures are filled by Tidemark, and its name and features never reach the backing driver. Its commands stand among the
//! intercepted ones of `entry`, which work without a function of the backing driver's; a device has those of extensions
//! that it was created with.

use crate::host_pointer;
use crate::memory_types::MemoryTypes;
use crate::placed;
use ash::vk;
use std::ffi::{CStr, c_char, c_void};

/// A device extension.
pub(crate) struct Offer {
    pub(crate) name: &'static CStr,
    spec_version: u32,
    /// Whether it is offered, where the backing driver has it or not, on a device with this memory.
    applies: fn(bool, &MemoryTypes) -> bool,
    /// The structure of its features.
    features: Option<vk::StructureType>,
    /// Its commands, all of them intercepted.
    commands: &'static [&'static CStr],
    /// Fills its structures in an output chain of vkGetPhysicalDeviceFeatures2 or vkGetPhysicalDeviceProperties2.
    ///
    /// # Safety
    /// The chain must be null or the head of a valid chain of output structures, to which nothing else refers.
    fill: unsafe fn(*mut c_void),
}

pub(crate) const OFFERS: &[Offer] = &[
    Offer {
        name: c"VK_KHR_map_memory2",
        spec_version: 1,
        applies: |is_theirs, _| !is_theirs,
        features: None,
        commands: &[c"vkMapMemory2KHR", c"vkUnmapMemory2KHR"],
        fill: |_| (),
    },
    Offer {
        name: c"VK_EXT_map_memory_placed",
        spec_version: 1,
        // Memory that the backing driver maps is placed by it, or not at all.
        applies: |_, memory| memory.types.iter().all(|one| one.is_mirrored() || !one.is_host_visible()),
        features: Some(<placed::Features<'_> as vk::TaggedStructure>::STRUCTURE_TYPE),
        commands: &[],
        fill: placed::fill,
    },
    Offer {
        name: c"VK_EXT_external_memory_host",
        spec_version: 1,
        // The backing driver's own would leave out what is between host and device.
        applies: |_, _| true,
        features: None,
        commands: &[c"vkGetMemoryHostPointerPropertiesEXT"],
        fill: host_pointer::fill,
    },
];

/// Those that are offered on a device with this memory, whose backing driver has `extensions`.
pub(crate) fn beside(extensions: &[vk::ExtensionProperties], memory: &MemoryTypes) -> Vec<&'static Offer> {
    let is_theirs =
        |offer: &Offer| extensions.iter().any(|one| one.extension_name_as_c_str() == Ok(offer.name));
    OFFERS.iter().filter(|offer| (offer.applies)(is_theirs(offer), memory)).collect()
}

/// Whether an extension in the table has this command.
pub(crate) fn has_command(name: &CStr) -> bool {
    OFFERS.iter().any(|offer| offer.has_command(name))
}

impl Offer {
    /// How vkEnumerateDeviceExtensionProperties lists it.
    pub(crate) fn properties(&self) -> vk::ExtensionProperties {
        let mut properties =
            vk::ExtensionProperties { spec_version: self.spec_version, ..Default::default() };
        for (to, byte) in properties.extension_name.iter_mut().zip(self.name.to_bytes()) {
            *to = c_char::from_ne_bytes([*byte]);
        }
        properties
    }

    pub(crate) fn has_command(&self, name: &CStr) -> bool {
        self.commands.contains(&name)
    }

    /// The structure of its features, which is none of the backing driver's business.
    pub(crate) fn features(&self) -> Option<vk::StructureType> {
        self.features
    }

    /// Fills its structures.
    ///
    /// # Safety
    /// `chain` must be null or the head of a valid chain of output structures, to which nothing else refers.
    pub(crate) unsafe fn fill(&self, chain: *mut c_void) {
        // SAFETY: the caller's promise.
        unsafe { (self.fill)(chain) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Mode, Transfer};
    use crate::{entry, hidden};
    use vk::MemoryPropertyFlags as Flags;

    /// What a device with one memory type has in `mode`, if bytes cross by `transfer`.
    fn memory(flags: Flags, mode: Mode, transfer: Transfer) -> MemoryTypes {
        let mut properties = vk::PhysicalDeviceMemoryProperties {
            memory_heap_count: 1,
            memory_type_count: 1,
            ..Default::default()
        };
        properties.memory_types[0].property_flags = flags;
        MemoryTypes::new(&properties, mode, transfer)
    }

    #[test]
    fn an_offer_is_told_as_the_specification_has_it() {
        for offer in OFFERS {
            assert_eq!(offer.properties().extension_name_as_c_str(), Ok(offer.name));
            assert_eq!(hidden::reason(offer.name), None, "{:?} is hidden, too", offer.name);
            for command in offer.commands {
                assert!(entry::coherence::find(command).is_some(), "{command:?} is not intercepted");
            }
        }
    }

    #[test]
    fn what_is_offered_depends_on_the_backing_driver_and_its_memory() {
        let all: Vec<_> = OFFERS.iter().map(Offer::properties).collect();
        let names = |theirs: &[vk::ExtensionProperties], memory: &MemoryTypes| -> Vec<&CStr> {
            beside(theirs, memory).iter().map(|offer| offer.name).collect()
        };
        let (map2, placed, host) =
            (c"VK_KHR_map_memory2", c"VK_EXT_map_memory_placed", c"VK_EXT_external_memory_host");
        let coherent = Flags::HOST_VISIBLE | Flags::HOST_COHERENT;
        let emulated = memory(coherent, Mode::Always, Transfer::Auto);
        assert_eq!(names(&[], &emulated), [map2, placed, host]);
        assert_eq!(names(&all, &emulated), [placed, host]);
        // The coherent type is the backing driver's own, which would have to place it.
        let mixed = memory(coherent, Mode::Auto, Transfer::Auto);
        assert!(mixed.emulates());
        assert_eq!(names(&[], &mixed), [map2, host]);
        assert_eq!(names(&all, &mixed), [host]);
        // And so is all that is mapped in place.
        let in_place = memory(coherent, Mode::Always, Transfer::InPlace);
        assert_eq!(names(&[], &in_place), [map2, host]);
    }
}
