//! `include/uapi/linux/userfaultfd.h`, as far as asynchronous write protection and faults on pages of shared memory that
//! are held back need it.

use crate::ioctl;

/// `UFFD_USER_MODE_ONLY`, a flag of `userfaultfd(2)`: what an unprivileged process may open (Linux 5.11).
pub const USER_MODE_ONLY: u32 = 1;

/// `UFFD_API`: the only version there is.
pub const API: u64 = 0xAA;

/// `UFFD_FEATURE_MINOR_SHMEM`: faults on pages of shared memory that are there but not mapped (Linux 5.14).
pub const FEATURE_MINOR_SHMEM: u64 = 1 << 10;
/// `UFFD_FEATURE_WP_HUGETLBFS_SHMEM`: write protection of shared memory (Linux 5.19).
pub const FEATURE_WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
/// `UFFD_FEATURE_WP_UNPOPULATED`: also of pages that were never touched (Linux 6.4).
pub const FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
/// `UFFD_FEATURE_WP_ASYNC`: the kernel resolves the fault itself, and only remembers it (Linux 6.7).
pub const FEATURE_WP_ASYNC: u64 = 1 << 15;

/// `UFFDIO_REGISTER_MODE_MISSING`: the first touch of a page that does not exist is a fault to be answered.
pub const REGISTER_MODE_MISSING: u64 = 1 << 0;
/// `UFFDIO_REGISTER_MODE_WP`.
pub const REGISTER_MODE_WP: u64 = 1 << 1;
/// `UFFDIO_REGISTER_MODE_MINOR`: so is that of a page that exists and is not mapped.
pub const REGISTER_MODE_MINOR: u64 = 1 << 2;

/// `UFFDIO_CONTINUE_MODE_WP`: map the page write-protected (Linux 6.4).
pub const CONTINUE_MODE_WP: u64 = 1 << 1;

/// `UFFD_EVENT_PAGEFAULT`.
pub const EVENT_PAGEFAULT: u8 = 0x12;

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
    /// In: `REGISTER_MODE_*`.
    pub mode: u64,
    /// Out: the ioctls that work on the range.
    pub ioctls: u64,
}

/// `struct uffdio_continue`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Continue {
    /// In: pages to map, none of which is mapped yet.
    pub range: Range,
    /// In: [`CONTINUE_MODE_WP`], or nothing.
    pub mode: u64,
    /// Out: bytes mapped, or an error code (negative) if none were.
    pub mapped: i64,
}

/// `struct uffd_msg`, of a page fault.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Message {
    /// What happened: [`EVENT_PAGEFAULT`], as long as no other event was asked for.
    pub event: u8,
    reserved: [u8; 7],
    /// Whether it was a write, and the like.
    pub flags: u64,
    /// The address that was touched.
    pub address: u64,
    /// The thread that touched it, if asked for.
    pub thread: u32,
    padding: u32,
}

/// `UFFDIO_API`, on [`Api`].
pub const UFFDIO_API: u32 = ioctl::read_write::<Api>(0xAA, 0x3F);
/// `UFFDIO_REGISTER`, on [`Register`].
pub const UFFDIO_REGISTER: u32 = ioctl::read_write::<Register>(0xAA, 0x00);
/// `UFFDIO_UNREGISTER`, on [`Range`].
pub const UFFDIO_UNREGISTER: u32 = ioctl::read::<Range>(0xAA, 0x01);
/// `UFFDIO_WAKE`, on [`Range`]: lets those try again who wait for its pages.
pub const UFFDIO_WAKE: u32 = ioctl::read::<Range>(0xAA, 0x02);
/// `UFFDIO_CONTINUE`, on [`Continue`].
pub const UFFDIO_CONTINUE: u32 = ioctl::read_write::<Continue>(0xAA, 0x07);
/// `USERFAULTFD_IOC_NEW`, on `/dev/userfaultfd` (Linux 6.1). Its argument is the flags of `userfaultfd(2)`, its result a
/// descriptor.
pub const USERFAULTFD_IOC_NEW: u32 = ioctl::none(0xAA, 0x00);

const _: () = {
    assert!(size_of::<Api>() == 24);
    assert!(size_of::<Range>() == 16);
    assert!(size_of::<Register>() == 32);
    assert!(size_of::<Continue>() == 32);
    assert!(size_of::<Message>() == 32);
    assert!(UFFDIO_API == 0xC018_AA3F);
    assert!(UFFDIO_REGISTER == 0xC020_AA00);
    assert!(UFFDIO_UNREGISTER == 0x8010_AA01);
    assert!(UFFDIO_WAKE == 0x8010_AA02);
    assert!(UFFDIO_CONTINUE == 0xC020_AA07);
    assert!(USERFAULTFD_IOC_NEW == 0x0000_AA00);
};
