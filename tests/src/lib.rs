//! What the end-to-end tests share: they run real applications on a chosen Vulkan driver, on displays
//! that nobody sees, and look at what comes of it.
//!
//! Everything here panics when it cannot do its work, with a message that says why: a test that cannot
//! run has failed. `tests/setup` installs what the tests need.

#![warn(missing_docs, clippy::undocumented_unsafe_blocks)]

pub mod applications;
mod built;
mod display;
mod driver;
mod gpu;
mod library;
mod pages;
mod picture;
mod placed;
mod run;
mod scratch;
mod validation;
mod vulkaninfo;
mod x11;

pub use built::{binary, driver_library, example, mock_library};
pub use display::{Weston, Xvfb};
pub use driver::{Driver, write_manifest};
pub use gpu::{Gpu, compile_shader};
pub use library::Library;
pub use pages::{HOST_ALLOCATION, PageKind, Pages};
pub use picture::{Difference, Picture};
pub use placed::{Map2, PlacedFeatures, PlacedProperties};
pub use run::{Outcome, expect_failure, expect_success, find_program, program, run};
pub use scratch::Scratch;
pub use validation::Validation;
pub use vulkaninfo::{memory_types, vulkaninfo};
