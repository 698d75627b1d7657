//! Device extensions that Tidemark itself offers on devices with emulated memory, whether the backing driver has them or
//! not.
//!
//! One table says what there is. An extension of it that the backing driver lacks is listed beside the driver's own, its
//! structures are filled by Tidemark, and its name never reaches the backing driver. Its commands stand among the
//! intercepted ones of `entry`, which work without a function of the backing driver's; a device has those of extensions
//! that it was created with.

use ash::vk;
use std::ffi::{CStr, c_char, c_void};

/// A device extension.
pub(crate) struct Offer {
    pub(crate) name: &'static CStr,
    spec_version: u32,
    /// Its commands, all of them intercepted.
    commands: &'static [&'static CStr],
    /// Fills its structures in an output chain of vkGetPhysicalDeviceFeatures2 or vkGetPhysicalDeviceProperties2.
    ///
    /// # Safety
    /// The chain must be null or the head of a valid chain of output structures, to which nothing else refers.
    fill: unsafe fn(*mut c_void),
}

pub(crate) const OFFERS: &[Offer] = &[Offer {
    name: c"VK_KHR_map_memory2",
    spec_version: 1,
    commands: &[c"vkMapMemory2KHR", c"vkUnmapMemory2KHR"],
    fill: |_| (),
}];

/// Those that are offered on a device whose backing driver has `extensions`.
pub(crate) fn beside(extensions: &[vk::ExtensionProperties]) -> Vec<&'static Offer> {
    let has = |offer: &Offer| extensions.iter().any(|one| one.extension_name_as_c_str() == Ok(offer.name));
    OFFERS.iter().filter(|offer| !has(offer)).collect()
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
    use crate::{entry, hidden};

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
    fn what_the_backing_driver_has_is_its_own() {
        let all: Vec<_> = OFFERS.iter().map(Offer::properties).collect();
        assert!(beside(&all).is_empty());
        assert_eq!(beside(&all[1..]).len(), 1);
        assert_eq!(beside(&[]).len(), OFFERS.len());
    }
}
