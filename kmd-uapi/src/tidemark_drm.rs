//! `include/tidemark_drm.h`: Tidemark's own contract with the kernel driver of a device that cannot see what the CPU
//! writes. What the calls promise is said there; here are their types, under the same names without the prefix.

use crate::ioctl::{self, DRM_COMMAND_BASE};

/// The driver's name, as `DRM_IOCTL_VERSION` tells it.
pub const DRIVER_NAME: &str = "tidemark";

/// The version of the contract: [`PARAM_VERSION`] of a driver that knows all of it.
pub const UAPI_VERSION: u64 = 1;

/// Of [`Query`]: the driver's [`UAPI_VERSION`].
pub const PARAM_VERSION: u32 = 1;
/// Of [`Query`]: a mask of `CAP_*`.
pub const PARAM_CAPS: u32 = 2;
/// Of [`Query`]: bytes in a page, the unit of tracking and of sizes.
pub const PARAM_PAGE_SIZE: u32 = 3;
/// Of [`Query`]: bytes that the largest object may have.
pub const PARAM_MAX_OBJECT_SIZE: u32 = 4;
/// Of [`Query`]: bytes of device memory, taken or not.
pub const PARAM_DEVICE_MEMORY: u32 = 5;
/// Of [`Query`]: elements that an array given to a call may have.
pub const PARAM_MAX_ELEMENTS: u32 = 6;
/// Of [`Query`]: bytes that one [`Copy`] may copy.
pub const PARAM_MAX_COPY_SIZE: u32 = 7;

/// [`TRACKING_MKWRITE`] is there.
pub const CAP_MKWRITE: u64 = 1 << 0;
/// [`TRACKING_DIRTY_BITS`] is there.
pub const CAP_DIRTY_BITS: u64 = 1 << 1;
/// [`PLACEMENT_DEVICE`] is there.
pub const CAP_DEVICE_MEMORY: u64 = 1 << 2;
/// [`ObjectUser`] is there.
pub const CAP_USER_OBJECTS: u64 = 1 << 3;
/// [`Copy`] is there.
pub const CAP_COPY: u64 = 1 << 4;

/// System memory: mapped by the CPU as it is.
pub const PLACEMENT_SYSTEM: u32 = 0;
/// Device memory: what the CPU touches comes back to system memory first.
pub const PLACEMENT_DEVICE: u32 = 1;

/// The pages that the CPU writes are not asked for.
pub const TRACKING_NONE: u32 = 0;
/// The first write to a page after it was collected is a fault.
pub const TRACKING_MKWRITE: u32 = 1;
/// No faults, but collecting looks at every page that is mapped.
pub const TRACKING_DIRTY_BITS: u32 = 2;

/// Of [`ObjectUser`]: the device only reads the object.
pub const USER_READ_ONLY: u32 = 1 << 0;
/// Of [`ObjectUser`]: the pages of now, pinned, whatever becomes of the addresses. Needs `CAP_SYS_ADMIN`.
pub const USER_UNSYNCHRONIZED: u32 = 1 << 1;

/// Of [`MmapOffset`]: a view whose writes never count as the application's.
pub const MMAP_UNTRACKED: u32 = 1 << 0;

/// Of [`Sync`]: [`Sync::point`] counts.
pub const SYNC_TIMELINE: u32 = 1 << 0;

/// Of [`Wait`]: also for jobs that only read the object.
pub const WAIT_READERS: u32 = 1 << 0;

/// `struct drm_tidemark_query`: what this driver and device can do.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Query {
    /// In: `PARAM_*`.
    pub param: u32,
    /// Zero.
    pub pad: u32,
    /// Out.
    pub value: u64,
}

/// `struct drm_tidemark_object_create`: a new object, of zeros.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ObjectCreate {
    /// In: bytes, whole pages.
    pub size: u64,
    /// In: none yet.
    pub flags: u32,
    /// In: `PLACEMENT_*`.
    pub placement: u32,
    /// In: `TRACKING_*`.
    pub tracking: u32,
    /// Out: never 0.
    pub handle: u32,
}

/// `struct drm_tidemark_object_user`: an object over memory of the calling process, for copy jobs only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ObjectUser {
    /// In: page-aligned.
    pub address: u64,
    /// In: bytes, whole pages.
    pub size: u64,
    /// In: `USER_*`.
    pub flags: u32,
    /// Out: never 0.
    pub handle: u32,
}

/// `struct drm_tidemark_object_info`: what an object is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ObjectInfo {
    /// In.
    pub handle: u32,
    /// Zero.
    pub pad: u32,
    /// Out: bytes.
    pub size: u64,
    /// Out: as last asked for.
    pub placement: u32,
    /// Out.
    pub tracking: u32,
    /// Out: bytes that lie in system memory.
    pub system_size: u64,
    /// Out: bytes that lie in device memory.
    pub device_size: u64,
}

/// `struct drm_tidemark_mmap_offset`: where in the file to map a view of an object.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct MmapOffset {
    /// In.
    pub handle: u32,
    /// In: `MMAP_*`.
    pub flags: u32,
    /// Out: to which any page of the object may be added.
    pub offset: u64,
}

/// `struct drm_tidemark_set_tracking`: how to learn what the CPU writes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SetTracking {
    /// In.
    pub handle: u32,
    /// In: `TRACKING_*`.
    pub tracking: u32,
}

/// `struct drm_tidemark_collect_object`: a part of an object to be collected.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CollectObject {
    /// In.
    pub handle: u32,
    /// Zero.
    pub pad: u32,
    /// In: first byte, page-aligned.
    pub offset: u64,
    /// In: bytes, whole pages, not 0.
    pub size: u64,
}

/// `struct drm_tidemark_range`: pages that were written.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First byte in the object.
    pub offset: u64,
    /// Bytes, not 0.
    pub size: u64,
    /// Which element of [`Collect::objects`].
    pub object: u32,
    /// Zero.
    pub pad: u32,
}

/// `struct drm_tidemark_collect`: which pages were written, and forget it. Done when [`next_object`](Self::next_object)
/// is [`object_count`](Self::object_count); else call again with the structure as it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Collect {
    /// In: address of an array of [`CollectObject`].
    pub objects: u64,
    /// In: address of an array of [`Range`].
    pub ranges: u64,
    /// In.
    pub object_count: u32,
    /// In: ranges that fit there, at least 1.
    pub range_capacity: u32,
    /// Out: ranges stored.
    pub range_count: u32,
    /// In and out: 0 at first.
    pub next_object: u32,
    /// In and out: 0 at first.
    pub next_offset: u64,
    /// In: none yet.
    pub flags: u32,
    /// Zero.
    pub pad: u32,
}

/// `struct drm_tidemark_place`: move an object's pages.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// In.
    pub handle: u32,
    /// In: `PLACEMENT_*`.
    pub placement: u32,
}

/// `struct drm_tidemark_transfer`: read from or write to an object, untracked, wherever it lies.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Transfer {
    /// In.
    pub handle: u32,
    /// In: none yet.
    pub flags: u32,
    /// In: first byte in the object.
    pub offset: u64,
    /// In: bytes.
    pub size: u64,
    /// In: where to (read) or where from (write).
    pub address: u64,
}

/// `struct drm_tidemark_region`: bytes to be copied.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Region {
    /// First byte in the source.
    pub src_offset: u64,
    /// First byte in the destination.
    pub dst_offset: u64,
    /// Bytes, not 0.
    pub size: u64,
}

/// `struct drm_tidemark_sync`: a syncobj, or a point on its timeline.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Sync {
    /// Of the syncobj.
    pub handle: u32,
    /// `SYNC_*`.
    pub flags: u32,
    /// 0 for a binary syncobj.
    pub point: u64,
}

/// `struct drm_tidemark_copy`: let the device copy bytes from object to object.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Copy {
    /// In: handle.
    pub src: u32,
    /// In: handle, the same or another.
    pub dst: u32,
    /// In: address of an array of [`Region`].
    pub regions: u64,
    /// In: address of an array of [`Sync`], before the job.
    pub wait_syncs: u64,
    /// In: address of an array of [`Sync`], after the job.
    pub signal_syncs: u64,
    /// In: at least 1.
    pub region_count: u32,
    /// In.
    pub wait_count: u32,
    /// In.
    pub signal_count: u32,
    /// In: none yet.
    pub flags: u32,
}

/// `struct drm_tidemark_wait`: wait until the device is done with an object.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Wait {
    /// In.
    pub handle: u32,
    /// In: `WAIT_*`.
    pub flags: u32,
    /// In: absolute time of `CLOCK_MONOTONIC`.
    pub timeout_ns: i64,
}

/// `struct drm_tidemark_counters`: what an object has cost since it was made.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// In.
    pub handle: u32,
    /// Zero.
    pub pad: u32,
    /// Out: faults on pages that were not mapped.
    pub faults: u64,
    /// Out: times that a page was made writable for a view.
    pub write_faults: u64,
    /// Out: walks through page tables.
    pub walks: u64,
    /// Out: pages that these walks looked at.
    pub scanned_pages: u64,
    /// Out: pages reported as written.
    pub collected_pages: u64,
    /// Out: pages moved to device memory.
    pub pages_to_device: u64,
    /// Out: pages moved to system memory.
    pub pages_to_system: u64,
    /// Out: times that the kernel took pages of a user object away.
    pub invalidations: u64,
}

/// `DRM_IOCTL_TIDEMARK_QUERY`, on [`Query`].
pub const IOCTL_QUERY: u32 = ioctl::read_write::<Query>(b'd', DRM_COMMAND_BASE);
/// `DRM_IOCTL_TIDEMARK_OBJECT_CREATE`, on [`ObjectCreate`].
pub const IOCTL_OBJECT_CREATE: u32 = ioctl::read_write::<ObjectCreate>(b'd', DRM_COMMAND_BASE + 0x01);
/// `DRM_IOCTL_TIDEMARK_OBJECT_USER`, on [`ObjectUser`].
pub const IOCTL_OBJECT_USER: u32 = ioctl::read_write::<ObjectUser>(b'd', DRM_COMMAND_BASE + 0x02);
/// `DRM_IOCTL_TIDEMARK_OBJECT_INFO`, on [`ObjectInfo`].
pub const IOCTL_OBJECT_INFO: u32 = ioctl::read_write::<ObjectInfo>(b'd', DRM_COMMAND_BASE + 0x03);
/// `DRM_IOCTL_TIDEMARK_MMAP_OFFSET`, on [`MmapOffset`].
pub const IOCTL_MMAP_OFFSET: u32 = ioctl::read_write::<MmapOffset>(b'd', DRM_COMMAND_BASE + 0x04);
/// `DRM_IOCTL_TIDEMARK_SET_TRACKING`, on [`SetTracking`].
pub const IOCTL_SET_TRACKING: u32 = ioctl::write::<SetTracking>(b'd', DRM_COMMAND_BASE + 0x05);
/// `DRM_IOCTL_TIDEMARK_COLLECT`, on [`Collect`].
pub const IOCTL_COLLECT: u32 = ioctl::read_write::<Collect>(b'd', DRM_COMMAND_BASE + 0x06);
/// `DRM_IOCTL_TIDEMARK_PLACE`, on [`Place`].
pub const IOCTL_PLACE: u32 = ioctl::write::<Place>(b'd', DRM_COMMAND_BASE + 0x07);
/// `DRM_IOCTL_TIDEMARK_READ`, on [`Transfer`].
pub const IOCTL_READ: u32 = ioctl::write::<Transfer>(b'd', DRM_COMMAND_BASE + 0x08);
/// `DRM_IOCTL_TIDEMARK_WRITE`, on [`Transfer`].
pub const IOCTL_WRITE: u32 = ioctl::write::<Transfer>(b'd', DRM_COMMAND_BASE + 0x09);
/// `DRM_IOCTL_TIDEMARK_COPY`, on [`Copy`].
pub const IOCTL_COPY: u32 = ioctl::write::<Copy>(b'd', DRM_COMMAND_BASE + 0x0A);
/// `DRM_IOCTL_TIDEMARK_WAIT`, on [`Wait`].
pub const IOCTL_WAIT: u32 = ioctl::write::<Wait>(b'd', DRM_COMMAND_BASE + 0x0B);
/// `DRM_IOCTL_TIDEMARK_COUNTERS`, on [`Counters`].
pub const IOCTL_COUNTERS: u32 = ioctl::read_write::<Counters>(b'd', DRM_COMMAND_BASE + 0x0C);

const _: () = {
    assert!(IOCTL_QUERY == 0xC010_6440);
    assert!(IOCTL_OBJECT_CREATE == 0xC018_6441);
    assert!(IOCTL_OBJECT_USER == 0xC018_6442);
    assert!(IOCTL_OBJECT_INFO == 0xC028_6443);
    assert!(IOCTL_MMAP_OFFSET == 0xC010_6444);
    assert!(IOCTL_SET_TRACKING == 0x4008_6445);
    assert!(size_of::<CollectObject>() == 24);
    assert!(size_of::<Range>() == 24);
    assert!(IOCTL_COLLECT == 0xC030_6446);
    assert!(IOCTL_PLACE == 0x4008_6447);
    assert!(IOCTL_READ == 0x4020_6448);
    assert!(IOCTL_WRITE == 0x4020_6449);
    assert!(size_of::<Region>() == 24);
    assert!(size_of::<Sync>() == 16);
    assert!(IOCTL_COPY == 0x4030_644A);
    assert!(IOCTL_WAIT == 0x4010_644B);
    assert!(IOCTL_COUNTERS == 0xC048_644C);
};
