//! `include/uapi/linux/userfaultfd.h`, as far as asynchronous write protection needs it.

use crate::ioctl;

/// `UFFD_USER_MODE_ONLY`, a flag of `userfaultfd(2)`: what an unprivileged process may open (Linux 5.11).
pub const USER_MODE_ONLY: u32 = 1;

/// `UFFD_API`: the only version there is.
pub const API: u64 = 0xAA;

/// `UFFD_FEATURE_WP_HUGETLBFS_SHMEM`: write protection of shared memory (Linux 5.19).
pub const FEATURE_WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
/// `UFFD_FEATURE_WP_UNPOPULATED`: also of pages that were never touched (Linux 6.4).
pub const FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
/// `UFFD_FEATURE_WP_ASYNC`: the kernel resolves the fault itself, and only remembers it (Linux 6.7).
pub const FEATURE_WP_ASYNC: u64 = 1 << 15;

/// `UFFDIO_REGISTER_MODE_WP`.
pub const REGISTER_MODE_WP: u64 = 1 << 1;

/// `struct uffdio_api`. The kernel answers with the features it granted: read them, since an unknown
/// bit is refused but a known one may come back cleared.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Api {
    /// In: [`API`].
    pub api: u64,
    /// In: features asked for. Out: features granted.
    pub features: u64,
    /// Out: the ioctls this descriptor answers, one bit each.
    pub ioctls: u64,
}

/// `struct uffdio_range`: bytes, both page-aligned.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Register {
    /// In: the range to watch.
    pub range: Range,
    /// In: [`REGISTER_MODE_WP`].
    pub mode: u64,
    /// Out: the ioctls that work on the range.
    pub ioctls: u64,
}

/// `UFFDIO_API`, on [`Api`].
pub const UFFDIO_API: u32 = ioctl::read_write::<Api>(0xAA, 0x3F);
/// `UFFDIO_REGISTER`, on [`Register`].
pub const UFFDIO_REGISTER: u32 = ioctl::read_write::<Register>(0xAA, 0x00);
/// `UFFDIO_UNREGISTER`, on [`Range`].
pub const UFFDIO_UNREGISTER: u32 = ioctl::read::<Range>(0xAA, 0x01);

const _: () = {
    assert!(size_of::<Api>() == 24);
    assert!(size_of::<Range>() == 16);
    assert!(size_of::<Register>() == 32);
    assert!(UFFDIO_API == 0xC018_AA3F);
    assert!(UFFDIO_REGISTER == 0xC020_AA00);
    assert!(UFFDIO_UNREGISTER == 0x8010_AA01);
};
