// SPDX-License-Identifier: GPL-2.0
/*
 * DRM_IOCTL_TIDEMARK_COPY: from what user space asks for to a job on the file's
 * queue; and waiting for what jobs do to an object.
 */
#include <linux/dma-fence-chain.h>
#include <linux/dma-resv.h>
#include <linux/hmm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include <drm/drm_drv.h>
#include <drm/drm_syncobj.h>
#include <drm/drm_utils.h>

#include "tidemark_drv.h"

struct tidemark_signal {
	struct drm_syncobj *syncobj;
	struct dma_fence_chain *chain;
	u64 point;
};

/* One of the two objects. */
struct tidemark_side {
	struct tidemark_object *obj;
	bool write;
	/** @seq: of a user object: as of when its pages are known */
	unsigned long seq;
	/** @pfns: and these: those of each region, one region after the other */
	unsigned long *pfns;
};

struct tidemark_submit {
	struct drm_tidemark_copy *args;
	struct drm_tidemark_region *regions;
	struct tidemark_side src;
	struct tidemark_side dst;
	/** @pages: at most so many of each side */
	size_t pages;
	struct tidemark_signal *signals;
	struct tidemark_job *job;
};

static u64 tidemark_region_offset(const struct tidemark_submit *submit, u32 i, bool write)
{
	return write ? submit->regions[i].dst_offset : submit->regions[i].src_offset;
}

/* Pages of an object that a region touches. */
static pgoff_t tidemark_region_pages(u64 offset, u64 size)
{
	return ((offset + size - 1) >> PAGE_SHIFT) - (offset >> PAGE_SHIFT) + 1;
}

static void *tidemark_copy_array(u64 from, u32 count, size_t size)
{
	void *array;

	if (count > TIDEMARK_MAX_ELEMENTS)
		return ERR_PTR(-EINVAL);
	array = kvmalloc_array(count, size, GFP_KERNEL);
	if (!array)
		return ERR_PTR(-ENOMEM);
	if (copy_from_user(array, u64_to_user_ptr(from), count * size)) {
		kvfree(array);
		return ERR_PTR(-EFAULT);
	}
	return array;
}

static int tidemark_submit_regions(struct tidemark_submit *submit)
{
	const u64 src_size = submit->src.obj->base.size, dst_size = submit->dst.obj->base.size;
	u64 total = 0;
	u32 i;

	for (i = 0; i < submit->args->region_count; i++) {
		const struct drm_tidemark_region *region = &submit->regions[i];

		if (!region->size || region->size > TIDEMARK_MAX_COPY ||
		    region->src_offset >= src_size ||
		    region->size > src_size - region->src_offset ||
		    region->dst_offset >= dst_size || region->size > dst_size - region->dst_offset)
			return -EINVAL;
		if (submit->src.obj == submit->dst.obj &&
		    region->src_offset < region->dst_offset + region->size &&
		    region->dst_offset < region->src_offset + region->size)
			return -EINVAL;
		total += region->size;
		if (total > TIDEMARK_MAX_COPY)
			return -EINVAL;
		submit->pages += max(tidemark_region_pages(region->src_offset, region->size),
				     tidemark_region_pages(region->dst_offset, region->size));
	}
	return 0;
}

static int tidemark_submit_waits(struct tidemark_submit *submit, struct drm_file *file)
{
	struct drm_tidemark_sync *syncs;
	int ret = 0;
	u32 i;

	syncs = tidemark_copy_array(submit->args->wait_syncs, submit->args->wait_count,
				    sizeof(*syncs));
	if (IS_ERR(syncs))
		return PTR_ERR(syncs);
	for (i = 0; !ret && i < submit->args->wait_count; i++) {
		const struct drm_tidemark_sync *sync = &syncs[i];
		struct dma_fence *fence;

		if ((sync->flags & ~DRM_TIDEMARK_SYNC_TIMELINE) ||
		    !(sync->flags & DRM_TIDEMARK_SYNC_TIMELINE) != !sync->point)
			ret = -EINVAL;
		else
			ret = drm_syncobj_find_fence(file, sync->handle, sync->point, 0, &fence);
		/* A point that has signalled may leave no fence. */
		if (!ret && fence)
			ret = tidemark_job_wait_for(submit->job, fence);
	}
	kvfree(syncs);
	return ret;
}

static int tidemark_submit_signals(struct tidemark_submit *submit, struct drm_file *file)
{
	struct drm_tidemark_sync *syncs;
	int ret = 0;
	u32 i;

	syncs = tidemark_copy_array(submit->args->signal_syncs, submit->args->signal_count,
				    sizeof(*syncs));
	if (IS_ERR(syncs))
		return PTR_ERR(syncs);
	submit->signals =
		kvcalloc(submit->args->signal_count, sizeof(*submit->signals), GFP_KERNEL);
	if (!submit->signals)
		ret = -ENOMEM;
	for (i = 0; !ret && i < submit->args->signal_count; i++) {
		const struct drm_tidemark_sync *sync = &syncs[i];
		struct tidemark_signal *signal = &submit->signals[i];

		if ((sync->flags & ~DRM_TIDEMARK_SYNC_TIMELINE) ||
		    !(sync->flags & DRM_TIDEMARK_SYNC_TIMELINE) != !sync->point) {
			ret = -EINVAL;
			break;
		}
		signal->point = sync->point;
		signal->syncobj = drm_syncobj_find(file, sync->handle);
		if (!signal->syncobj)
			ret = -ENOENT;
		if (!ret && sync->point) {
			signal->chain = dma_fence_chain_alloc();
			if (!signal->chain)
				ret = -ENOMEM;
		}
	}
	kvfree(syncs);
	return ret;
}

/* Without locks: may fault memory in. -EBUSY: begin again. */
static int tidemark_submit_resolve(struct tidemark_submit *submit, struct tidemark_side *side)
{
	size_t done = 0;
	int ret = 0;
	u32 i;

	if (!side->obj->user)
		return 0;
	if (!side->pfns)
		side->pfns = kvcalloc(submit->pages, sizeof(*side->pfns), GFP_KERNEL);
	if (!side->pfns)
		return -ENOMEM;
	side->seq = tidemark_user_begin(side->obj);
	for (i = 0; !ret && i < submit->args->region_count; i++) {
		u64 offset = tidemark_region_offset(submit, i, side->write);
		pgoff_t first = offset >> PAGE_SHIFT;
		pgoff_t count = tidemark_region_pages(offset, submit->regions[i].size);

		ret = tidemark_user_resolve(side->obj, side->seq, first, first + count, side->write,
					    side->pfns + done);
		done += count;
	}
	return ret;
}

/*
 * The page at an index, the n-th that this side is asked for. NULL: there is
 * none to read, it would be zeros.
 */
static struct page *tidemark_side_page(struct tidemark_side *side, pgoff_t index, size_t n)
{
	struct tidemark_object *obj = side->obj;
	void *entry;

	if (obj->user) {
		struct page *page = tidemark_user_pinned_page(obj, index);

		return page ?: hmm_pfn_to_page(side->pfns[n]);
	}
	if (side->write)
		entry = tidemark_object_populate(obj, index, obj->placement, TIDEMARK_GFP_CALL);
	else
		entry = xa_load(&obj->backing, index);
	if (!entry || IS_ERR(entry))
		return entry;
	return tidemark_entry_page(entry);
}

/* Under both reservations: which bytes of which pages go where. */
static int tidemark_submit_segments(struct tidemark_submit *submit)
{
	struct tidemark_job *job = submit->job;
	size_t src_base = 0, dst_base = 0;
	u32 i;

	job->segment_count = 0;
	for (i = 0; i < submit->args->region_count; i++) {
		const struct drm_tidemark_region *region = &submit->regions[i];
		const pgoff_t src_first = region->src_offset >> PAGE_SHIFT,
			      dst_first = region->dst_offset >> PAGE_SHIFT;
		u64 done, size;

		for (done = 0; done < region->size; done += size) {
			struct tidemark_segment *segment = &job->segments[job->segment_count];
			u64 src = region->src_offset + done, dst = region->dst_offset + done;
			pgoff_t src_index = src >> PAGE_SHIFT, dst_index = dst >> PAGE_SHIFT;

			segment->src_offset = offset_in_page(src);
			segment->dst_offset = offset_in_page(dst);
			size = min(region->size - done,
				   PAGE_SIZE - max(segment->src_offset, segment->dst_offset));
			segment->size = size;
			segment->dst = tidemark_side_page(&submit->dst, dst_index,
							  dst_base + dst_index - dst_first);
			segment->src = tidemark_side_page(&submit->src, src_index,
							  src_base + src_index - src_first);
			if (IS_ERR(segment->dst))
				return PTR_ERR(segment->dst);
			job->segment_count++;
		}
		src_base += tidemark_region_pages(region->src_offset, region->size);
		dst_base += tidemark_region_pages(region->dst_offset, region->size);
	}
	return 0;
}

/* The point of no return: nothing fails in here, nor allocates. */
static void tidemark_submit_commit(struct tidemark_submit *submit)
{
	struct tidemark_job *job = submit->job;
	u32 i;

	tidemark_job_arm(job);
	dma_resv_add_fence(submit->dst.obj->base.resv, job->fence, DMA_RESV_USAGE_WRITE);
	if (submit->src.obj != submit->dst.obj)
		dma_resv_add_fence(submit->src.obj->base.resv, job->fence, DMA_RESV_USAGE_READ);
	for (i = 0; i < submit->args->signal_count; i++) {
		struct tidemark_signal *signal = &submit->signals[i];

		if (signal->chain)
			drm_syncobj_add_point(signal->syncobj, signal->chain, job->fence,
					      signal->point);
		else
			drm_syncobj_replace_fence(signal->syncobj, job->fence);
		signal->chain = NULL;
	}
	tidemark_job_queue(job);
	submit->job = NULL;
}

/* -EBUSY: pages of a user object changed, begin again. */
static int tidemark_submit_once(struct tidemark_submit *submit)
{
	struct tidemark_device *tdev = to_tidemark_device(submit->dst.obj->base.dev);
	struct drm_gem_object *objects[2] = { &submit->dst.obj->base, &submit->src.obj->base };
	const int count = objects[0] == objects[1] ? 1 : 2;
	struct ww_acquire_ctx ctx;
	int ret, i;

	ret = tidemark_submit_resolve(submit, &submit->dst);
	if (!ret)
		ret = tidemark_submit_resolve(submit, &submit->src);
	if (ret)
		return ret;

	ret = drm_gem_lock_reservations(objects, count, &ctx);
	if (ret)
		return ret;
	for (i = 0; !ret && i < count; i++) {
		ret = dma_resv_reserve_fences(objects[i]->resv, 1);
		if (!ret)
			ret = tidemark_job_wait_for_object(submit->job, objects[i],
							   DMA_RESV_USAGE_KERNEL);
	}
	if (!ret)
		ret = tidemark_submit_segments(submit);
	if (!ret) {
		mutex_lock(&tdev->users);
		if ((submit->dst.obj->user &&
		     tidemark_user_changed(submit->dst.obj, submit->dst.seq)) ||
		    (submit->src.obj->user &&
		     tidemark_user_changed(submit->src.obj, submit->src.seq)))
			ret = -EBUSY;
		else
			tidemark_submit_commit(submit);
		mutex_unlock(&tdev->users);
	}
	drm_gem_unlock_reservations(objects, count, &ctx);
	return ret;
}

static int tidemark_submit_objects(struct tidemark_submit *submit, struct drm_file *file)
{
	int ret = 0;

	submit->src.obj = tidemark_object_lookup(file, submit->args->src);
	submit->dst.obj = tidemark_object_lookup(file, submit->args->dst);
	submit->dst.write = true;
	if (IS_ERR(submit->src.obj) || IS_ERR(submit->dst.obj))
		return -ENOENT;
	if (submit->src.obj->user)
		ret = tidemark_user_check(submit->src.obj, false);
	if (!ret && submit->dst.obj->user)
		ret = tidemark_user_check(submit->dst.obj, true);
	return ret;
}

static int tidemark_submit_init(struct tidemark_submit *submit, struct drm_file *file)
{
	struct tidemark_file *tfile = file->driver_priv;
	int ret = tidemark_submit_objects(submit, file);

	if (ret)
		return ret;
	submit->regions = tidemark_copy_array(submit->args->regions, submit->args->region_count,
					      sizeof(*submit->regions));
	if (IS_ERR(submit->regions))
		return PTR_ERR(submit->regions);
	ret = tidemark_submit_regions(submit);
	if (ret)
		return ret;

	/* A segment ends with a page of either side. */
	submit->job = tidemark_job_new(&tfile->queue, 2 * submit->pages);
	if (!submit->job)
		return -ENOMEM;
	submit->job->to_user = submit->dst.obj->user;
	submit->job->objects[0] = &submit->dst.obj->base;
	submit->job->objects[1] = &submit->src.obj->base;
	drm_gem_object_get(submit->job->objects[0]);
	drm_gem_object_get(submit->job->objects[1]);
	ret = tidemark_submit_waits(submit, file);
	return ret ?: tidemark_submit_signals(submit, file);
}

static void tidemark_submit_fini(struct tidemark_submit *submit)
{
	u32 i;

	for (i = 0; submit->signals && i < submit->args->signal_count; i++) {
		if (submit->signals[i].syncobj)
			drm_syncobj_put(submit->signals[i].syncobj);
		dma_fence_chain_free(submit->signals[i].chain);
	}
	kvfree(submit->signals);
	if (submit->job)
		tidemark_job_free(submit->job);
	kvfree(submit->src.pfns);
	kvfree(submit->dst.pfns);
	if (!IS_ERR(submit->regions))
		kvfree(submit->regions);
	if (!IS_ERR(submit->src.obj))
		drm_gem_object_put(&submit->src.obj->base);
	if (!IS_ERR(submit->dst.obj))
		drm_gem_object_put(&submit->dst.obj->base);
}

int tidemark_copy_ioctl(struct drm_device *drm, void *data, struct drm_file *file)
{
	struct tidemark_submit submit = { .args = data };
	int ret;

	if (submit.args->flags || !submit.args->region_count)
		return -EINVAL;
	ret = tidemark_submit_init(&submit, file);
	if (!ret) {
		do {
			ret = tidemark_submit_once(&submit);
		} while (ret == -EBUSY && !signal_pending(current));
		if (ret == -EBUSY)
			ret = -ERESTARTSYS;
	}
	tidemark_submit_fini(&submit);
	return ret;
}

int tidemark_wait_ioctl(struct drm_device *drm, void *data, struct drm_file *file)
{
	struct drm_tidemark_wait *args = data;
	struct tidemark_object *obj;
	long left;

	if (args->flags & ~DRM_TIDEMARK_WAIT_READERS)
		return -EINVAL;
	obj = tidemark_object_lookup(file, args->handle);
	if (IS_ERR(obj))
		return PTR_ERR(obj);

	left = dma_resv_wait_timeout(obj->base.resv,
				     args->flags & DRM_TIDEMARK_WAIT_READERS
					     ? DMA_RESV_USAGE_READ
					     : DMA_RESV_USAGE_WRITE,
				     true, drm_timeout_abs_to_jiffies(args->timeout_ns));
	drm_gem_object_put(&obj->base);
	if (left < 0)
		return left;
	if (drm_dev_is_unplugged(drm))
		return -ENODEV;
	return left ? 0 : -ETIME;
}
