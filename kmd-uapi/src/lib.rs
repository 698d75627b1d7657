//! The kernel contracts Tidemark relies on, as types: no system calls, no dependencies, no `std`.
//!
//! - [`userfaultfd`]: write-protect tracking of ordinary memory on stock kernels, and pages held back until they are
//!   touched.
//! - [`pagemap`]: collecting and clearing the pages it found written, in one call.
//! - [`procmap`]: what is mapped at an address.
//! - [`tidemark_drm`]: what the kernel driver of a device that needs Tidemark offers; the mirror of
//!   `include/tidemark_drm.h`.
//!
//! Sizes and opcodes are asserted at compile time against the values of the kernel's headers, so a
//! mistyped field fails the build.
#![no_std]

mod ioctl;
pub mod pagemap;
pub mod procmap;
pub mod tidemark_drm;
pub mod userfaultfd;
