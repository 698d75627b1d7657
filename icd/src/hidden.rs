//! Device extensions that would open a door to memory Tidemark does not watch yet. They are hidden on devices
//! with emulated memory.

use std::ffi::CStr;

/// Name, and why.
pub(crate) const EXTENSIONS: &[(&CStr, &str)] = &[
    (
        c"VK_EXT_external_memory_host",
        "imported pages would be device memory and host memory at once, with nothing in between to synchronise",
    ),
    (
        c"VK_EXT_map_memory_placed",
        "the application would choose the address of its view, which the arena chooses",
    ),
];

/// Why the extension is hidden; `None` if it is not.
pub(crate) fn reason(name: &CStr) -> Option<&'static str> {
    EXTENSIONS.iter().find(|(hidden, _)| *hidden == name).map(|(_, reason)| *reason)
}
