//! `PROCMAP_QUERY` of `include/uapi/linux/fs.h` (Linux 6.11), an ioctl on `/proc/self/maps`: one mapping, looked up by an
//! address in it.

use crate::ioctl;

/// `PROCMAP_QUERY_VMA_SHARED`: in an answer, that the mapping is `MAP_SHARED`.
pub const SHARED: u64 = 1 << 3;

/// `struct procmap_query`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Query {
    /// In: the size of this structure, its version.
    pub size: u64,
    /// In: 0, for the mapping that covers `address` and no other.
    pub flags: u64,
    /// In: an address.
    pub address: u64,
    /// Out: the mapping's first address.
    pub start: u64,
    /// Out: the address past its last byte.
    pub end: u64,
    /// Out: [`SHARED`], and what may be done with it.
    pub mapping_flags: u64,
    /// Out: bytes in a page of it, which are more than usual on hugetlbfs.
    pub page_size: u64,
    /// Out: where in the file it starts, in bytes; 0 if it is of no file.
    pub offset: u64,
    /// Out: the file's inode; 0 if it is of no file.
    pub inode: u64,
    /// Out: the major number of the file's device.
    pub device_major: u32,
    /// Out: the minor number.
    pub device_minor: u32,
    /// In: bytes at `name`. Out: those that were stored.
    pub name_size: u32,
    /// In: bytes at `build_id`. Out: those that were stored.
    pub build_id_size: u32,
    /// In: where to store the mapping's name, if its size is not 0.
    pub name: u64,
    /// In: where to store the file's build ID, if its size is not 0.
    pub build_id: u64,
}

/// `PROCMAP_QUERY`, on [`Query`]; fails with `ENOENT` where nothing is mapped.
pub const PROCMAP_QUERY: u32 = ioctl::read_write::<Query>(b'f', 17);

const _: () = {
    assert!(size_of::<Query>() == 104);
    assert!(PROCMAP_QUERY == 0xC068_6611);
};
