// SPDX-License-Identifier: GPL-2.0
/*
 * Moving pages between system and device memory, under views that stay.
 *
 * Pages are exchanged at once, under the reservation; a job copies their
 * contents, and its fence, of kernel usage, makes everybody wait who comes
 * after. What a page's PTEs knew of writes goes to its marks, which stay with
 * the index.
 */
#include <linux/dma-fence.h>
#include <linux/dma-resv.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "tidemark_drv.h"

bool tidemark_heap_take(struct tidemark_device *tdev, u64 size)
{
	if (atomic64_add_return(size, &tdev->heap_used) <= tdev->heap_size)
		return true;
	atomic64_sub(size, &tdev->heap_used);
	return false;
}

void tidemark_heap_release(struct tidemark_device *tdev, u64 size)
{
	atomic64_sub(size, &tdev->heap_used);
}

/* A job that moves pages of an object, behind whatever uses them. */
static struct tidemark_job *tidemark_move_new(struct tidemark_object *obj, size_t pages)
{
	struct tidemark_device *tdev = to_tidemark_device(obj->base.dev);
	struct tidemark_job *job = tidemark_job_new(&tdev->moves, pages);
	int ret;

	if (!job)
		return ERR_PTR(-ENOMEM);
	job->move = true;
	job->objects[0] = &obj->base;
	drm_gem_object_get(&obj->base);
	ret = tidemark_job_wait_for_object(job, &obj->base, DMA_RESV_USAGE_BOOKKEEP);
	if (!ret)
		ret = dma_resv_reserve_fences(obj->base.resv, 1);
	if (ret) {
		tidemark_job_free(job);
		return ERR_PTR(ret);
	}
	return job;
}

static void tidemark_move_queue(struct tidemark_object *obj, struct tidemark_job *job)
{
	tidemark_job_arm(job);
	dma_resv_add_fence(obj->base.resv, job->fence, DMA_RESV_USAGE_KERNEL);
	tidemark_job_queue(job);
}

/* The page at an index becomes another one. Its old one is the job's to free. */
static void tidemark_move_page(struct tidemark_object *obj, struct tidemark_job *job,
			       pgoff_t index, struct page *to, int tag)
{
	struct tidemark_segment *segment = &job->segments[job->segment_count++];

	segment->dst = to;
	segment->src = tidemark_entry_page(xa_load(&obj->backing, index));
	segment->size = PAGE_SIZE;
	/* Replacing an entry allocates nothing, and keeps its marks. */
	xa_store(&obj->backing, index, xa_tag_pointer(to, tag), GFP_KERNEL);
}

/**
 * tidemark_bring_back - move pages to system memory
 * @obj: whose reservation is held
 * @first: index of the first page
 * @end: index past the last page
 * @gfp: TIDEMARK_GFP_*
 *
 * Returns: 0, also if there were none. -ENOMEM: none were moved.
 */
int tidemark_bring_back(struct tidemark_object *obj, pgoff_t first, pgoff_t end, gfp_t gfp)
{
	struct tidemark_job *job;
	unsigned long index;
	size_t count = 0;
	LIST_HEAD(pages);
	struct page *page, *next;
	void *entry;

	xa_for_each_range(&obj->backing, index, entry, first, end - 1) {
		if (!tidemark_entry_on_device(entry))
			continue;
		page = alloc_page(gfp);
		if (!page)
			goto no_memory;
		list_add(&page->lru, &pages);
		count++;
	}
	if (!count)
		return 0;
	job = tidemark_move_new(obj, count);
	if (IS_ERR(job))
		goto no_memory;

	xa_for_each_range(&obj->backing, index, entry, first, end - 1) {
		if (!tidemark_entry_on_device(entry))
			continue;
		page = list_first_entry(&pages, struct page, lru);
		list_del(&page->lru);
		tidemark_move_page(obj, job, index, page, 0);
	}
	job->heap = (u64)count << PAGE_SHIFT;
	obj->device_pages -= count;
	obj->system_pages += count;
	obj->counters.pages_to_system += count;
	tidemark_move_queue(obj, job);
	return 0;

no_memory:
	list_for_each_entry_safe(page, next, &pages, lru)
		__free_page(page);
	return -ENOMEM;
}

/* No view maps a page any more; what they knew of writes is in the marks. */
static void tidemark_unmap(struct tidemark_object *obj)
{
	const u32 omit = to_tidemark_device(obj->base.dev)->omit;
	unsigned long index;
	void *entry;

	/* PTEs that are being made would come after they were removed. */
	tidemark_object_wait_installs(obj, 0, tidemark_object_pages(obj));
	unmap_mapping_range(obj->views->f_mapping, 0, 2 * (loff_t)obj->base.size, 1);
	xa_for_each_marked(&obj->backing, index, entry, TIDEMARK_CANDIDATE) {
		struct folio *folio = page_folio(tidemark_entry_page(entry));

		if (tidemark_entry_on_device(entry) || (omit & TIDEMARK_OMIT_PAGE_DIRTY))
			continue;
		if (folio_test_clear_dirty(folio))
			tidemark_keep_written(obj, index, index + 1);
	}
}

static int tidemark_send_away(struct tidemark_object *obj)
{
	struct tidemark_device *tdev = to_tidemark_device(obj->base.dev);
	size_t count = obj->system_pages, moved;
	struct page *page, *next;
	struct tidemark_job *job;
	unsigned long index;
	LIST_HEAD(pages);
	void *entry;
	size_t i;

	if (obj->attached)
		return -EBUSY;
	if (!count)
		return 0;
	if (!tidemark_heap_take(tdev, (u64)count << PAGE_SHIFT))
		return -ENOSPC;
	for (i = 0; i < count; i++) {
		page = alloc_page(TIDEMARK_GFP_CALL);
		if (!page)
			goto no_memory;
		list_add(&page->lru, &pages);
	}
	job = tidemark_move_new(obj, count);
	if (IS_ERR(job))
		goto no_memory;

	tidemark_unmap(obj);
	xa_for_each(&obj->backing, index, entry) {
		/* Someone else holds it, for direct I/O perhaps. */
		if (tidemark_entry_on_device(entry) ||
		    page_ref_count(tidemark_entry_page(entry)) > 1)
			continue;
		page = list_first_entry(&pages, struct page, lru);
		list_del(&page->lru);
		tidemark_move_page(obj, job, index, page, TIDEMARK_ON_DEVICE);
	}
	moved = job->segment_count;
	obj->system_pages -= moved;
	obj->device_pages += moved;
	obj->counters.pages_to_device += moved;
	tidemark_move_queue(obj, job);

	tidemark_heap_release(tdev, (u64)(count - moved) << PAGE_SHIFT);
	list_for_each_entry_safe(page, next, &pages, lru)
		__free_page(page);
	return 0;

no_memory:
	tidemark_heap_release(tdev, (u64)count << PAGE_SHIFT);
	list_for_each_entry_safe(page, next, &pages, lru)
		__free_page(page);
	return -ENOMEM;
}

int tidemark_place_ioctl(struct drm_device *drm, void *data, struct drm_file *file)
{
	struct tidemark_device *tdev = to_tidemark_device(drm);
	struct drm_tidemark_place *args = data;
	struct tidemark_object *obj;
	int ret;

	if (args->placement > DRM_TIDEMARK_PLACEMENT_DEVICE)
		return -EINVAL;
	if (args->placement == DRM_TIDEMARK_PLACEMENT_DEVICE && !tdev->heap_size)
		return -EOPNOTSUPP;
	obj = tidemark_object_lookup_backed(file, args->handle);
	if (IS_ERR(obj))
		return PTR_ERR(obj);

	ret = dma_resv_lock_interruptible(obj->base.resv, NULL);
	if (ret)
		goto put;
	if (args->placement == DRM_TIDEMARK_PLACEMENT_DEVICE)
		ret = tidemark_send_away(obj);
	else
		ret = tidemark_bring_back(obj, 0, tidemark_object_pages(obj), TIDEMARK_GFP_CALL);
	if (!ret)
		obj->placement = args->placement;
	dma_resv_unlock(obj->base.resv);
put:
	drm_gem_object_put(&obj->base);
	return ret;
}
