/* SPDX-License-Identifier: (MIT OR GPL-2.0 WITH Linux-syscall-note) */
/*
 * The uAPI of a device that cannot see what the CPU writes: memory objects,
 * which of their pages were written, where they lie, and copies between them.
 *
 * Calls that hold for every one below:
 *
 *  - They are for render nodes, and need no privilege unless said otherwise.
 *  - Handles, mmap offsets and syncobjs are private to the file they were made
 *    by.
 *  - Fields named pad, and bits of flags that have no name here, must be zero.
 *    Structures grow at their end, and zero there means what it meant before.
 *  - Errors: ENOENT, there is no such object or syncobj. EINVAL, the arguments
 *    are no valid ones on any device. EOPNOTSUPP, this device or this kind of
 *    object cannot do it. EFAULT, an address cannot be read or written.
 *    EACCES, EPERM, the caller may not. ENOMEM, the system's memory is
 *    exhausted; ENOSPC, the device's. EBUSY, others hold the pages. ENODEV,
 *    the device is gone.
 *  - EINTR and EAGAIN mean that nothing has been done: call again with the
 *    same arguments. What a call has already done is in its results.
 *  - Sizes and offsets are bytes. Those of objects are multiples of the page
 *    size.
 *
 * Objects are closed with DRM_IOCTL_GEM_CLOSE and shared as dma-bufs.
 */
#ifndef _UAPI_TIDEMARK_DRM_H_
#define _UAPI_TIDEMARK_DRM_H_

#include "drm.h"

#if defined(__cplusplus)
extern "C" {
#endif

/* The version of this file: DRM_TIDEMARK_PARAM_VERSION of a driver that knows all of it. */
#define DRM_TIDEMARK_UAPI_VERSION	1

#define DRM_TIDEMARK_QUERY		0x00
#define DRM_TIDEMARK_OBJECT_CREATE	0x01
#define DRM_TIDEMARK_OBJECT_USER	0x02
#define DRM_TIDEMARK_OBJECT_INFO	0x03
#define DRM_TIDEMARK_MMAP_OFFSET	0x04
#define DRM_TIDEMARK_SET_TRACKING	0x05
#define DRM_TIDEMARK_COLLECT		0x06
#define DRM_TIDEMARK_PLACE		0x07
#define DRM_TIDEMARK_READ		0x08
#define DRM_TIDEMARK_WRITE		0x09
#define DRM_TIDEMARK_COPY		0x0a
#define DRM_TIDEMARK_WAIT		0x0b
#define DRM_TIDEMARK_COUNTERS		0x0c

/* DRM_TIDEMARK_UAPI_VERSION of the driver. Later versions keep every promise of earlier ones. */
#define DRM_TIDEMARK_PARAM_VERSION		1
/* A mask of DRM_TIDEMARK_CAP_*. */
#define DRM_TIDEMARK_PARAM_CAPS			2
/* Bytes in a page: the unit of tracking and of sizes. */
#define DRM_TIDEMARK_PARAM_PAGE_SIZE		3
/* Bytes that the largest object may have. */
#define DRM_TIDEMARK_PARAM_MAX_OBJECT_SIZE	4
/* Bytes of device memory, taken or not; 0 where there is none. */
#define DRM_TIDEMARK_PARAM_DEVICE_MEMORY	5
/* Elements that an array given to a call may have, else EINVAL. */
#define DRM_TIDEMARK_PARAM_MAX_ELEMENTS		6
/* Bytes that one DRM_TIDEMARK_COPY may copy, else EINVAL. */
#define DRM_TIDEMARK_PARAM_MAX_COPY_SIZE	7

#define DRM_TIDEMARK_CAP_MKWRITE	(1ULL << 0) /* DRM_TIDEMARK_TRACKING_MKWRITE */
#define DRM_TIDEMARK_CAP_DIRTY_BITS	(1ULL << 1) /* DRM_TIDEMARK_TRACKING_DIRTY_BITS */
#define DRM_TIDEMARK_CAP_DEVICE_MEMORY	(1ULL << 2) /* DRM_TIDEMARK_PLACEMENT_DEVICE */
#define DRM_TIDEMARK_CAP_USER_OBJECTS	(1ULL << 3) /* DRM_TIDEMARK_OBJECT_USER */
#define DRM_TIDEMARK_CAP_COPY		(1ULL << 4) /* DRM_TIDEMARK_COPY */

/**
 * struct drm_tidemark_query - what this driver and device can do
 *
 * EINVAL: no such parameter. A caller that meets it has an older driver.
 */
struct drm_tidemark_query {
	/** @param: in, DRM_TIDEMARK_PARAM_* */
	__u32 param;
	__u32 pad;
	/** @value: out */
	__u64 value;
};

/* System memory: mapped by the CPU as it is. */
#define DRM_TIDEMARK_PLACEMENT_SYSTEM	0
/* Device memory: what the CPU touches comes back to system memory first. */
#define DRM_TIDEMARK_PLACEMENT_DEVICE	1

/* The pages that the CPU writes are not asked for. */
#define DRM_TIDEMARK_TRACKING_NONE		0
/* Write-protected: the first write to a page after it was collected is a fault. */
#define DRM_TIDEMARK_TRACKING_MKWRITE		1
/* The MMU's dirty bits: no faults, but collecting looks at every page that is mapped. */
#define DRM_TIDEMARK_TRACKING_DIRTY_BITS	2

/**
 * struct drm_tidemark_object_create - a new object, of zeros
 *
 * Memory is taken page by page, when first touched: an object may be far larger
 * than the machine.
 */
struct drm_tidemark_object_create {
	/** @size: in, at least a page */
	__u64 size;
	/** @flags: in, none yet */
	__u32 flags;
	/** @placement: in, DRM_TIDEMARK_PLACEMENT_*: where jobs put pages that are not there yet */
	__u32 placement;
	/** @tracking: in, DRM_TIDEMARK_TRACKING_* */
	__u32 tracking;
	/** @handle: out, never 0 */
	__u32 handle;
};

/* The device only reads the object. */
#define DRM_TIDEMARK_USER_READ_ONLY		(1U << 0)
/*
 * The pages that are there now stay the object's, pinned, whatever becomes of
 * the address range: after munmap or fork the object and the range may be
 * different memory. Needs CAP_SYS_ADMIN, else EPERM.
 */
#define DRM_TIDEMARK_USER_UNSYNCHRONIZED	(1U << 1)

/**
 * struct drm_tidemark_object_user - an object over memory of the calling process
 *
 * For copy jobs only: such an object cannot be mapped, placed, tracked, read,
 * written or exported (EOPNOTSUPP). Jobs see the pages that the range has when
 * they are submitted, and the kernel takes none of them away while one runs.
 * They fail with EFAULT where nothing is mapped. Only the process that made it
 * may use it, else EACCES.
 */
struct drm_tidemark_object_user {
	/** @address: in, page-aligned */
	__u64 address;
	/** @size: in */
	__u64 size;
	/** @flags: in, DRM_TIDEMARK_USER_* */
	__u32 flags;
	/** @handle: out, never 0 */
	__u32 handle;
};

/**
 * struct drm_tidemark_object_info - what an object is
 */
struct drm_tidemark_object_info {
	/** @handle: in */
	__u32 handle;
	__u32 pad;
	/** @size: out */
	__u64 size;
	/** @placement: out, as last asked for */
	__u32 placement;
	/** @tracking: out */
	__u32 tracking;
	/** @system_size: out, bytes that lie in system memory */
	__u64 system_size;
	/** @device_size: out, bytes that lie in device memory */
	__u64 device_size;
};

/* A view whose writes never count as the application's: for the driver in user space. */
#define DRM_TIDEMARK_MMAP_UNTRACKED	(1U << 0)

/**
 * struct drm_tidemark_mmap_offset - where in the file to map a view of an object
 *
 * Views are shared (MAP_PRIVATE: EINVAL) and may show a part: mmap takes the
 * offset plus any page of the object. Both kinds show the same bytes at once,
 * to any number of processes. The kernel can take pages of a tracked view for
 * direct I/O (O_DIRECT, vmsplice), but not for long (registered io_uring
 * buffers, RDMA), and not those of an untracked view.
 */
struct drm_tidemark_mmap_offset {
	/** @handle: in */
	__u32 handle;
	/** @flags: in, DRM_TIDEMARK_MMAP_* */
	__u32 flags;
	/** @offset: out */
	__u64 offset;
};

/**
 * struct drm_tidemark_set_tracking - how to learn what the CPU writes
 *
 * At any time, with views in use. What was written since the last collection
 * stays written, however it was learnt, also while the method was NONE.
 */
struct drm_tidemark_set_tracking {
	/** @handle: in */
	__u32 handle;
	/** @tracking: in, DRM_TIDEMARK_TRACKING_* */
	__u32 tracking;
};

/**
 * struct drm_tidemark_collect_object - a part of an object to be collected
 */
struct drm_tidemark_collect_object {
	/** @handle: in */
	__u32 handle;
	__u32 pad;
	/** @offset: in, first byte, page-aligned */
	__u64 offset;
	/** @size: in, not 0 */
	__u64 size;
};

/**
 * struct drm_tidemark_range - pages that were written
 */
struct drm_tidemark_range {
	/** @offset: first byte in the object */
	__u64 offset;
	/** @size: not 0 */
	__u64 size;
	/** @object: which element of drm_tidemark_collect.objects */
	__u32 object;
	__u32 pad;
};

/**
 * struct drm_tidemark_collect - which pages were written, and forget it
 *
 * Reports each page that was written through a tracked view since it was last
 * reported, by whatever process, and the kernel on its behalf. A write that
 * happens before the call is reported by it; one that comes during the call, by
 * it or by the next, and then the page may be reported by both. To see every
 * write, read the bytes after the call. Pages that somebody has pinned to write
 * to them directly count as written until they are unpinned.
 *
 * All is done when next_object is object_count. Otherwise the array was full,
 * or a signal came: call again with the structure as it is. Pages not reported
 * yet stay written; so do those of an array that could not be stored (EFAULT).
 * Ranges come in order; neighbours may be reported apart.
 *
 * The structure itself must stay writable: range_count is stored last.
 *
 * EINVAL: an object that is not tracked, a range outside its object, no room
 * for any range.
 */
struct drm_tidemark_collect {
	/** @objects: in, address of an array of struct drm_tidemark_collect_object */
	__u64 objects;
	/** @ranges: in, address of an array of struct drm_tidemark_range */
	__u64 ranges;
	/** @object_count: in */
	__u32 object_count;
	/** @range_capacity: in, elements that fit there, at least 1 */
	__u32 range_capacity;
	/** @range_count: out, elements stored */
	__u32 range_count;
	/** @next_object: in and out, where to begin, and where to go on; 0 at first */
	__u32 next_object;
	/** @next_offset: in and out, byte in that object; 0 for its range's begin */
	__u64 next_offset;
	/** @flags: in, none yet */
	__u32 flags;
	__u32 pad;
};

/**
 * struct drm_tidemark_place - move an object's pages
 *
 * Views stay valid. The move runs behind the jobs that use the object; jobs
 * submitted later, and CPU accesses, wait for it. A page of device memory that
 * the CPU touches comes back by itself, together with some neighbours. Pages
 * that somebody has pinned stay where they are; objects that are exported and
 * attached to another device do so as a whole (EBUSY).
 */
struct drm_tidemark_place {
	/** @handle: in */
	__u32 handle;
	/** @placement: in, DRM_TIDEMARK_PLACEMENT_* */
	__u32 placement;
};

/**
 * struct drm_tidemark_transfer - read from or write to an object, wherever it lies
 *
 * Writes do not count as the application's. Neither moves pages nor waits for
 * jobs. Bytes need no alignment. After EFAULT, some of the bytes may have
 * crossed.
 */
struct drm_tidemark_transfer {
	/** @handle: in */
	__u32 handle;
	/** @flags: in, none yet */
	__u32 flags;
	/** @offset: in, first byte in the object */
	__u64 offset;
	/** @size: in */
	__u64 size;
	/** @address: in, where to (read) or where from (write) */
	__u64 address;
};

/**
 * struct drm_tidemark_region - bytes to be copied
 */
struct drm_tidemark_region {
	/** @src_offset: first byte in the source */
	__u64 src_offset;
	/** @dst_offset: first byte in the destination */
	__u64 dst_offset;
	/** @size: not 0 */
	__u64 size;
};

/* point counts; else the syncobj is a binary one, and point must be 0. */
#define DRM_TIDEMARK_SYNC_TIMELINE	(1U << 0)

/**
 * struct drm_tidemark_sync - a syncobj, or a point on its timeline
 */
struct drm_tidemark_sync {
	/** @handle: of the syncobj */
	__u32 handle;
	/** @flags: DRM_TIDEMARK_SYNC_* */
	__u32 flags;
	/** @point: on the timeline */
	__u64 point;
};

/**
 * struct drm_tidemark_copy - let the device copy bytes from object to object
 *
 * Jobs of one file run in the order of their submission, each after what it
 * waits for. Regions need no alignment; they may not overlap in the
 * destination, nor, within one object, with the source (EINVAL in the latter
 * case). Pages are copied where they lie, and stay there. What a job writes
 * does not count as written by the CPU.
 *
 * A syncobj to wait for must have its fence already (EINVAL). The fence of a
 * job that could not run signals with an error, and so does that of a job which
 * still waits for others when its file is closed.
 */
struct drm_tidemark_copy {
	/** @src: in, handle */
	__u32 src;
	/** @dst: in, handle, the same or another */
	__u32 dst;
	/** @regions: in, address of an array of struct drm_tidemark_region */
	__u64 regions;
	/** @wait_syncs: in, address of an array of struct drm_tidemark_sync: before the job */
	__u64 wait_syncs;
	/** @signal_syncs: in, address of an array of struct drm_tidemark_sync: after the job */
	__u64 signal_syncs;
	/** @region_count: in, at least 1 */
	__u32 region_count;
	/** @wait_count: in */
	__u32 wait_count;
	/** @signal_count: in */
	__u32 signal_count;
	/** @flags: in, none yet */
	__u32 flags;
};

/* Also for jobs that only read the object: it may be written then. */
#define DRM_TIDEMARK_WAIT_READERS	(1U << 0)

/**
 * struct drm_tidemark_wait - wait until the device is done with an object
 *
 * For moves, and for jobs that write it. ETIME: it was not done in time.
 */
struct drm_tidemark_wait {
	/** @handle: in */
	__u32 handle;
	/** @flags: in, DRM_TIDEMARK_WAIT_* */
	__u32 flags;
	/** @timeout_ns: in, absolute time of CLOCK_MONOTONIC; in the past for a look */
	__s64 timeout_ns;
};

/**
 * struct drm_tidemark_counters - what an object has cost since it was made
 *
 * For tests and profiles. Drivers that cannot tell leave zeros.
 */
struct drm_tidemark_counters {
	/** @handle: in */
	__u32 handle;
	__u32 pad;
	/** @faults: out, faults on pages that were not mapped */
	__u64 faults;
	/** @write_faults: out, times that a page was made writable for a view */
	__u64 write_faults;
	/** @walks: out, walks through page tables, which flush TLBs where they change any */
	__u64 walks;
	/** @scanned_pages: out, pages that these walks looked at */
	__u64 scanned_pages;
	/** @collected_pages: out, pages reported as written */
	__u64 collected_pages;
	/** @pages_to_device: out, pages moved to device memory */
	__u64 pages_to_device;
	/** @pages_to_system: out, pages moved to system memory */
	__u64 pages_to_system;
	/** @invalidations: out, times that the kernel took pages of a user object away */
	__u64 invalidations;
};

#define DRM_IOCTL_TIDEMARK_QUERY \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_TIDEMARK_QUERY, struct drm_tidemark_query)
#define DRM_IOCTL_TIDEMARK_OBJECT_CREATE \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_TIDEMARK_OBJECT_CREATE, struct drm_tidemark_object_create)
#define DRM_IOCTL_TIDEMARK_OBJECT_USER \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_TIDEMARK_OBJECT_USER, struct drm_tidemark_object_user)
#define DRM_IOCTL_TIDEMARK_OBJECT_INFO \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_TIDEMARK_OBJECT_INFO, struct drm_tidemark_object_info)
#define DRM_IOCTL_TIDEMARK_MMAP_OFFSET \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_TIDEMARK_MMAP_OFFSET, struct drm_tidemark_mmap_offset)
#define DRM_IOCTL_TIDEMARK_SET_TRACKING \
	DRM_IOW(DRM_COMMAND_BASE + DRM_TIDEMARK_SET_TRACKING, struct drm_tidemark_set_tracking)
#define DRM_IOCTL_TIDEMARK_COLLECT \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_TIDEMARK_COLLECT, struct drm_tidemark_collect)
#define DRM_IOCTL_TIDEMARK_PLACE \
	DRM_IOW(DRM_COMMAND_BASE + DRM_TIDEMARK_PLACE, struct drm_tidemark_place)
#define DRM_IOCTL_TIDEMARK_READ \
	DRM_IOW(DRM_COMMAND_BASE + DRM_TIDEMARK_READ, struct drm_tidemark_transfer)
#define DRM_IOCTL_TIDEMARK_WRITE \
	DRM_IOW(DRM_COMMAND_BASE + DRM_TIDEMARK_WRITE, struct drm_tidemark_transfer)
#define DRM_IOCTL_TIDEMARK_COPY \
	DRM_IOW(DRM_COMMAND_BASE + DRM_TIDEMARK_COPY, struct drm_tidemark_copy)
#define DRM_IOCTL_TIDEMARK_WAIT \
	DRM_IOW(DRM_COMMAND_BASE + DRM_TIDEMARK_WAIT, struct drm_tidemark_wait)
#define DRM_IOCTL_TIDEMARK_COUNTERS \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_TIDEMARK_COUNTERS, struct drm_tidemark_counters)

#if defined(__cplusplus)
}
#endif

#endif /* _UAPI_TIDEMARK_DRM_H_ */
