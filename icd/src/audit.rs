//! What Tidemark intercepts and hides, for the test that holds it against vk.xml.

use crate::{allocation, entry, hidden};
use ash::vk;

/// Every name of every command that is intercepted on devices with emulated memory.
pub fn intercepted() -> Vec<&'static str> {
    [
        entry::global::NAMES,
        entry::instance::NAMES,
        entry::physical_device::NAMES,
        entry::device::NAMES,
        entry::coherence::NAMES,
    ]
    .concat()
}

/// Device extensions that devices with emulated memory do not show.
pub fn hidden_extensions() -> Vec<&'static str> {
    hidden::EXTENSIONS.iter().filter_map(|(name, _)| name.to_str().ok()).collect()
}

/// Features likewise.
pub fn hidden_features() -> Vec<&'static str> {
    hidden::FEATURES.iter().map(|feature| feature.name).collect()
}

/// Structures that may extend an allocation without anybody else getting at the memory.
pub fn private_allocations() -> &'static [vk::StructureType] {
    &allocation::PRIVATE
}
