/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tidemark: a virtual device that cannot see what the CPU writes.
 *
 * Lock order, outermost first:
 *
 *   mmap_lock
 *     an object's reservation (dma_resv): its backing, marks and counters
 *       the device's users lock: that pages are still those of a user object
 *         a queue's lock: the order of its jobs
 *       a page's lock: that a PTE is about to be made for it
 *         i_mmap_rwsem, page table locks: taken by the helpers
 *
 * - Nobody holds a reservation while touching memory of a process: that takes
 *   mmap_lock, and may be a fault on an object.
 * - A worker that runs jobs takes none of these locks: fences signal whoever
 *   waits, with whatever locks. Nor does it allocate: reclaim may wait for it.
 * - Faults wait for the device with no lock, mmap_lock included, wherever the
 *   caller lets them.
 */
#ifndef TIDEMARK_DRV_H
#define TIDEMARK_DRV_H

#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include <drm/drm_device.h>
#include <drm/drm_file.h>
#include <drm/drm_gem.h>
#include <drm/drm_vma_manager.h>

#include "tidemark_drm.h"

struct dma_fence;
struct drm_printer;
struct tidemark_user;

/* A limit on arrays that callers give: what is allocated for them stays small. */
#define TIDEMARK_MAX_ELEMENTS	65536U
/* As large as two views of the largest object fit into the file many times over. */
#define TIDEMARK_MAX_OBJECT	BIT_ULL(42)
/* Bytes that one job copies. */
#define TIDEMARK_MAX_COPY	BIT_ULL(30)

/* Steps that a test leaves out, to see that it would notice: see tidemark_debugfs.c. */
#define TIDEMARK_OMIT_CLEAN		BIT(0)	/* pick up dirty bits after write-protecting */
#define TIDEMARK_OMIT_PAGE_DIRTY	BIT(1)	/* look for dirty bits of mappings that are gone */
#define TIDEMARK_OMIT_INSTALL		BIT(2)	/* wait for PTEs that are being made */
#define TIDEMARK_OMIT_PINS		BIT(3)	/* take pinned pages for written */
#define TIDEMARK_OMIT_VIEW_FILE		BIT(4)	/* gather all views in one address space */

/**
 * struct tidemark_queue - jobs that run one after another
 */
struct tidemark_queue {
	struct tidemark_device *tdev;
	struct workqueue_struct *wq;
	/** @lock: held from numbering a fence to queueing its job */
	struct mutex lock;
	u64 context;
	u64 seqno;
	/** @closing: jobs give up waiting for others */
	bool closing;
	/** @busy_ns: time spent on jobs */
	atomic64_t busy_ns;
};

struct tidemark_device {
	struct drm_device drm;
	/** @offsets: of the views; the common manager has no room for objects of terabytes */
	struct drm_vma_offset_manager offsets;
	/** @moves: of pages between system and device memory */
	struct tidemark_queue moves;
	/** @heap_size: bytes of device memory */
	u64 heap_size;
	/** @heap_used: bytes of it that are taken */
	atomic64_t heap_used;
	/** @latency_us: how long the device takes before it starts on a job */
	u32 latency_us;
	/** @omit: TIDEMARK_OMIT_* */
	u32 omit;
	/** @install_delay_us: added between a fault and the PTE that comes of it */
	u32 install_delay_us;
	/** @users: held to take user objects' pages away, and to queue jobs that use them */
	struct mutex users;
	/** @gone: woken when the device is unplugged */
	wait_queue_head_t gone;
};

struct tidemark_file {
	struct tidemark_queue queue;
};

/*
 * Backing is an xarray of pages: untagged, a page of system memory, which views
 * map; tagged, one of device memory, which they never do. No entry: zeros.
 * What is present can be written by the CPU only where the entry has this mark:
 */
#define TIDEMARK_CANDIDATE	XA_MARK_0
/* And this one where it was, in any case; such a page is a candidate, too. */
#define TIDEMARK_WRITTEN	XA_MARK_1

#define TIDEMARK_ON_DEVICE	1

/*
 * For pages. Calls fail when memory is short; a fault cannot, so that the
 * kernel has to find, or make, some.
 */
#define TIDEMARK_GFP_FAULT	(GFP_HIGHUSER | __GFP_ACCOUNT | __GFP_ZERO | __GFP_NOWARN)
#define TIDEMARK_GFP_CALL	(TIDEMARK_GFP_FAULT | __GFP_RETRY_MAYFAIL)

static inline struct page *tidemark_entry_page(void *entry)
{
	return xa_untag_pointer(entry);
}

static inline bool tidemark_entry_on_device(void *entry)
{
	return xa_pointer_tag(entry) == TIDEMARK_ON_DEVICE;
}

struct tidemark_object {
	struct drm_gem_object base;
	/**
	 * @views: whose address space holds every CPU mapping: tracked ones
	 * from page 0 on, the others behind
	 */
	struct file *views;
	/** @user: of an object over a process's memory; then nothing below is used but counters */
	struct tidemark_user *user;
	struct xarray backing;
	unsigned long system_pages;
	unsigned long device_pages;
	u32 placement;
	u32 tracking;
	/** @attached: devices that use the pages as a dma-buf */
	unsigned int attached;
	struct drm_tidemark_counters counters;
};

static inline struct tidemark_device *to_tidemark_device(struct drm_device *drm)
{
	return container_of(drm, struct tidemark_device, drm);
}

static inline struct tidemark_object *to_tidemark_object(struct drm_gem_object *gem)
{
	return container_of(gem, struct tidemark_object, base);
}

static inline pgoff_t tidemark_object_pages(const struct tidemark_object *obj)
{
	return obj->base.size >> PAGE_SHIFT;
}

/* tidemark_gem.c */
struct tidemark_object *tidemark_object_new(struct drm_device *drm, u64 size);
struct tidemark_object *tidemark_object_lookup(struct drm_file *file, u32 handle);
struct tidemark_object *tidemark_object_lookup_backed(struct drm_file *file, u32 handle);
void *tidemark_object_populate(struct tidemark_object *obj, pgoff_t index, u32 placement,
			       gfp_t gfp);
int tidemark_object_lock_idle(struct tidemark_object *obj);
int tidemark_object_create_ioctl(struct drm_device *drm, void *data, struct drm_file *file);

/* tidemark_info.c */
int tidemark_query_ioctl(struct drm_device *drm, void *data, struct drm_file *file);
int tidemark_object_info_ioctl(struct drm_device *drm, void *data, struct drm_file *file);
int tidemark_counters_ioctl(struct drm_device *drm, void *data, struct drm_file *file);
void tidemark_show_fdinfo(struct drm_printer *printer, struct drm_file *file);

/* tidemark_view.c */
int tidemark_mmap(struct file *filp, struct vm_area_struct *vma);
int tidemark_view_mmap(struct drm_gem_object *gem, struct vm_area_struct *vma);
int tidemark_mmap_offset_ioctl(struct drm_device *drm, void *data, struct drm_file *file);

/* tidemark_fault.c */
extern const struct vm_operations_struct tidemark_tracked_vm_ops;
extern const struct vm_operations_struct tidemark_untracked_vm_ops;

/* tidemark_track.c */
struct tidemark_scan {
	/** @next: where to begin, and where it stopped */
	pgoff_t next;
	/** @end: index past the last page to look at */
	pgoff_t end;
	struct drm_tidemark_range *ranges;
	u32 capacity;
	u32 count;
	/** @object: to report in ranges */
	u32 object;
};

void tidemark_scan(struct tidemark_object *obj, struct tidemark_scan *scan);
void tidemark_keep_written(struct tidemark_object *obj, pgoff_t first, pgoff_t end);
void tidemark_object_wait_installs(struct tidemark_object *obj, pgoff_t first, pgoff_t end);
int tidemark_set_tracking_ioctl(struct drm_device *drm, void *data, struct drm_file *file);

/* tidemark_collect.c */
int tidemark_collect_ioctl(struct drm_device *drm, void *data, struct drm_file *file);

/* tidemark_queue.c */
struct tidemark_segment {
	/** @dst: page to copy to */
	struct page *dst;
	/** @src: page to copy from, or NULL for zeros */
	struct page *src;
	u32 dst_offset;
	u32 src_offset;
	u32 size;
};

struct tidemark_job {
	struct work_struct work;
	struct tidemark_queue *queue;
	struct dma_fence *fence;
	/** @armed: the fence may be others', too */
	bool armed;
	/** @waits: fences to wait for, indexed from 0 */
	struct xarray waits;
	/** @objects: held until the job is done */
	struct drm_gem_object *objects[2];
	struct tidemark_segment *segments;
	size_t segment_count;
	/** @move: the segments' sources are freed afterwards */
	bool move;
	/** @heap: bytes of device memory among these */
	u64 heap;
	/** @to_user: the segments' destinations are a process's */
	bool to_user;
};

/* Frees jobs that are done. */
extern struct workqueue_struct *tidemark_cleanup;

int tidemark_queue_init(struct tidemark_queue *queue, struct tidemark_device *tdev);
void tidemark_queue_fini(struct tidemark_queue *queue);
struct tidemark_job *tidemark_job_new(struct tidemark_queue *queue, size_t segments);
int tidemark_job_wait_for(struct tidemark_job *job, struct dma_fence *fence);
int tidemark_job_wait_for_object(struct tidemark_job *job, struct drm_gem_object *gem,
				 enum dma_resv_usage usage);
void tidemark_job_arm(struct tidemark_job *job);
void tidemark_job_queue(struct tidemark_job *job);
void tidemark_job_free(struct tidemark_job *job);

/* tidemark_copy.c */
int tidemark_copy_ioctl(struct drm_device *drm, void *data, struct drm_file *file);
int tidemark_wait_ioctl(struct drm_device *drm, void *data, struct drm_file *file);

/* tidemark_migrate.c */
int tidemark_bring_back(struct tidemark_object *obj, pgoff_t first, pgoff_t end, gfp_t gfp);
void tidemark_heap_release(struct tidemark_device *tdev, u64 size);
bool tidemark_heap_take(struct tidemark_device *tdev, u64 size);
int tidemark_place_ioctl(struct drm_device *drm, void *data, struct drm_file *file);

/* tidemark_transfer.c */
int tidemark_read_ioctl(struct drm_device *drm, void *data, struct drm_file *file);
int tidemark_write_ioctl(struct drm_device *drm, void *data, struct drm_file *file);

/* tidemark_userptr.c */
int tidemark_user_check(const struct tidemark_object *obj, bool write);
struct page *tidemark_user_pinned_page(const struct tidemark_object *obj, pgoff_t index);
unsigned long tidemark_user_begin(struct tidemark_object *obj);
int tidemark_user_resolve(struct tidemark_object *obj, unsigned long seq, pgoff_t first,
			  pgoff_t end, bool write, unsigned long *pfns);
bool tidemark_user_changed(struct tidemark_object *obj, unsigned long seq);
void tidemark_user_free(struct tidemark_object *obj);
int tidemark_object_user_ioctl(struct drm_device *drm, void *data, struct drm_file *file);

/* tidemark_prime.c */
struct dma_buf *tidemark_gem_export(struct drm_gem_object *gem, int flags);
int tidemark_gem_pin(struct drm_gem_object *gem);
void tidemark_gem_unpin(struct drm_gem_object *gem);
struct sg_table *tidemark_gem_get_sg_table(struct drm_gem_object *gem);

/* tidemark_debugfs.c */
void tidemark_debugfs_init(struct drm_minor *minor);

#endif
