//! `PAGEMAP_SCAN` of `include/uapi/linux/fs.h` (Linux 6.7), an ioctl on `/proc/self/pagemap`.

use crate::ioctl;

/// `PAGE_IS_WRITTEN`: written since it was last write-protected. The only category Tidemark asks for:
/// with it alone in both masks the kernel takes its fast path, the one without known bugs.
pub const PAGE_IS_WRITTEN: u64 = 1 << 1;

/// `PM_SCAN_WP_MATCHING`: write-protect each page as it is reported, atomically per page.
pub const SCAN_WP_MATCHING: u64 = 1 << 0;
/// `PM_SCAN_CHECK_WPASYNC`: fail with `EPERM` on memory that is not under asynchronous write
/// protection. Without it such memory would be skipped in silence, and its writes lost.
pub const SCAN_CHECK_WPASYNC: u64 = 1 << 1;

/// `struct page_region`: pages that answered the scan.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PageRegion {
    /// First address.
    pub start: u64,
    /// Address past the last byte.
    pub end: u64,
    /// What they are, out of the categories asked for.
    pub categories: u64,
}

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ScanArg {
    /// In: the size of this structure, its version.
    pub size: u64,
    /// In: `SCAN_*`.
    pub flags: u64,
    /// In: first address, page-aligned.
    pub start: u64,
    /// In: address past the last byte.
    pub end: u64,
    /// Out: where the walk stopped. Short of `end` when the result vector was full: scan on from there.
    pub walk_end: u64,
    /// In: address of an array of [`PageRegion`], which must stay writable throughout: the kernel
    /// protects pages before it stores them there.
    pub vec: u64,
    /// In: elements in that array.
    pub vec_len: u64,
    /// In: most pages to report; 0 for no limit.
    pub max_pages: u64,
    /// In: categories whose sense is inverted.
    pub category_inverted: u64,
    /// In: categories a page must have.
    pub category_mask: u64,
    /// In: categories of which a page must have one.
    pub category_anyof_mask: u64,
    /// In: categories to report.
    pub return_mask: u64,
}

/// `PAGEMAP_SCAN`, on [`ScanArg`]; returns the number of regions stored.
pub const PAGEMAP_SCAN: u32 = ioctl::read_write::<ScanArg>(b'f', 16);

const _: () = {
    assert!(size_of::<PageRegion>() == 24);
    assert!(size_of::<ScanArg>() == 96);
    assert!(PAGEMAP_SCAN == 0xC060_6610);
};
