//! What Tidemark intercepts and hides, for the test that holds it against vk.xml.

use crate::{allocation, entry, hidden, offered, placed};
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

/// Device extensions that Tidemark offers itself.
pub fn offered_extensions() -> Vec<&'static str> {
    offered::OFFERS.iter().filter_map(|offer| offer.name.to_str().ok()).collect()
}

/// A structure that is declared by hand, since `ash` lacks it.
pub struct Declared {
    /// As the specification has it.
    pub name: &'static str,
    /// Its VkStructureType.
    pub tag: i32,
    /// Bytes.
    pub size: usize,
    /// Its members beyond sType and pNext: name, offset and size in bytes.
    pub members: Vec<(&'static str, usize, usize)>,
}

/// Such structures.
pub fn declared_structures() -> Vec<Declared> {
    placed::declared()
}

macro_rules! declared {
    ($of:ident as $name:ident { $($member:ident as $named:ident: $kind:ty),* }) => {
        crate::audit::Declared {
            name: stringify!($name),
            tag: <$of<'_> as ash::vk::TaggedStructure>::STRUCTURE_TYPE.as_raw(),
            size: size_of::<$of<'_>>(),
            members: vec![$((stringify!($named), std::mem::offset_of!($of<'_>, $member), size_of::<$kind>())),*],
        }
    };
}
pub(crate) use declared;
