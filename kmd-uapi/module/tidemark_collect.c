// SPDX-License-Identifier: GPL-2.0
/*
 * DRM_IOCTL_TIDEMARK_COLLECT: scans of many objects, and getting the results to
 * user space without losing any on the way.
 */
#include <linux/dma-resv.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "tidemark_drv.h"

/* Ranges that are gathered before they are stored. */
#define TIDEMARK_BATCH	512U

struct tidemark_part {
	struct tidemark_object *obj;
	pgoff_t first;
	pgoff_t end;
};

struct tidemark_collection {
	struct drm_tidemark_collect *args;
	struct tidemark_part *parts;
	/* Of TIDEMARK_BATCH elements. */
	struct drm_tidemark_range *ranges;
};

/* Everything is looked up and checked before anything is collected. */
static int tidemark_part_init(struct tidemark_part *part, struct drm_file *file,
			      const struct drm_tidemark_collect_object __user *from)
{
	struct drm_tidemark_collect_object in;
	struct tidemark_object *obj;

	if (copy_from_user(&in, from, sizeof(in)))
		return -EFAULT;
	if (in.pad || !in.size || !PAGE_ALIGNED(in.offset) || !PAGE_ALIGNED(in.size))
		return -EINVAL;
	obj = tidemark_object_lookup_backed(file, in.handle);
	if (IS_ERR(obj))
		return PTR_ERR(obj);
	part->obj = obj;
	if (in.offset >= obj->base.size || in.size > obj->base.size - in.offset ||
	    READ_ONCE(obj->tracking) == DRM_TIDEMARK_TRACKING_NONE)
		return -EINVAL;
	part->first = in.offset >> PAGE_SHIFT;
	part->end = part->first + (in.size >> PAGE_SHIFT);
	return 0;
}

/* Nobody got to know of these: they are written still. */
static void tidemark_collection_restore(struct tidemark_collection *all, u32 count)
{
	u32 i;

	for (i = 0; i < count; i++) {
		struct drm_tidemark_range *range = &all->ranges[i];
		struct tidemark_object *obj = all->parts[range->object].obj;
		pgoff_t first = range->offset >> PAGE_SHIFT;

		dma_resv_lock(obj->base.resv, NULL);
		tidemark_keep_written(obj, first, first + (range->size >> PAGE_SHIFT));
		obj->counters.collected_pages -= range->size >> PAGE_SHIFT;
		dma_resv_unlock(obj->base.resv);
	}
}

/*
 * Fills @all->ranges, and moves the cursor over what it looked at. Stops early
 * for signals. Returns the number of ranges.
 */
static u32 tidemark_collection_fill(struct tidemark_collection *all, u32 capacity)
{
	struct drm_tidemark_collect *args = all->args;
	struct tidemark_scan scan = { .ranges = all->ranges, .capacity = capacity };

	while (args->next_object < args->object_count) {
		struct tidemark_part *part = &all->parts[args->next_object];
		struct tidemark_object *obj = part->obj;

		scan.object = args->next_object;
		scan.end = part->end;
		scan.next = max_t(pgoff_t, part->first, args->next_offset >> PAGE_SHIFT);
		if (scan.next < scan.end) {
			pgoff_t before = scan.next;

			if (dma_resv_lock_interruptible(obj->base.resv, NULL))
				break;
			tidemark_scan(obj, &scan);
			dma_resv_unlock(obj->base.resv);
			if (scan.next == before)
				break;
		}
		if (scan.next < scan.end) {
			args->next_offset = (u64)scan.next << PAGE_SHIFT;
			if (scan.count == scan.capacity)
				break;
		} else {
			args->next_object++;
			args->next_offset = 0;
		}
		if (signal_pending(current))
			break;
		cond_resched();
	}
	return scan.count;
}

static int tidemark_collection_run(struct tidemark_collection *all)
{
	struct drm_tidemark_collect *args = all->args;
	struct drm_tidemark_range __user *out = u64_to_user_ptr(args->ranges);
	const u32 first_object = args->next_object;
	const u64 first_offset = args->next_offset;

	args->range_count = 0;
	while (args->next_object < args->object_count && args->range_count < args->range_capacity) {
		const u32 object = args->next_object;
		const u64 offset = args->next_offset;
		const u32 room = min(args->range_capacity - args->range_count, TIDEMARK_BATCH);
		const u32 count = tidemark_collection_fill(all, room);

		if (copy_to_user(out + args->range_count, all->ranges, count * sizeof(*out))) {
			tidemark_collection_restore(all, count);
			args->next_object = object;
			args->next_offset = offset;
			/* What was stored before is not to be taken back. */
			return args->range_count ? 0 : -EFAULT;
		}
		args->range_count += count;
		if (signal_pending(current))
			break;
	}
	if (!args->range_count && args->next_object == first_object &&
	    args->next_offset == first_offset && args->next_object < args->object_count &&
	    signal_pending(current))
		return -ERESTARTSYS;
	return 0;
}

int tidemark_collect_ioctl(struct drm_device *drm, void *data, struct drm_file *file)
{
	struct drm_tidemark_collect *args = data;
	const struct drm_tidemark_collect_object __user *objects = u64_to_user_ptr(args->objects);
	struct tidemark_collection all = { .args = args };
	u32 i;
	int ret = 0;

	if (args->flags || args->pad || !args->range_capacity ||
	    args->object_count > TIDEMARK_MAX_ELEMENTS || args->next_object > args->object_count ||
	    !PAGE_ALIGNED(args->next_offset))
		return -EINVAL;

	all.parts = kvcalloc(args->object_count, sizeof(*all.parts), GFP_KERNEL);
	all.ranges = kvcalloc(TIDEMARK_BATCH, sizeof(*all.ranges), GFP_KERNEL);
	if (!all.parts || !all.ranges)
		ret = -ENOMEM;
	for (i = 0; !ret && i < args->object_count; i++)
		ret = tidemark_part_init(&all.parts[i], file, &objects[i]);
	if (!ret)
		ret = tidemark_collection_run(&all);

	for (i = 0; all.parts && i < args->object_count; i++) {
		if (all.parts[i].obj)
			drm_gem_object_put(&all.parts[i].obj->base);
	}
	kvfree(all.ranges);
	kvfree(all.parts);
	return ret;
}
