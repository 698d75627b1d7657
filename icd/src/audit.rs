//! What Tidemark intercepts and hides, for the test that holds it against vk.xml.

use crate::{entry, hidden};

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
