// SPDX-License-Identifier: GPL-2.0
/*
 * Objects and the pages behind them.
 */
#include <linux/anon_inodes.h>
#include <linux/dma-resv.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/module.h>
#include <linux/slab.h>

#include <drm/drm_drv.h>
#include <drm/drm_file.h>

#include "tidemark_drv.h"

/*
 * Never opened, only mapped. Its address space belongs to the object alone, so
 * that one walk meets every mapping, whether made through the device's file or
 * a dma-buf's; its owner keeps the module while there are any.
 */
static const struct file_operations tidemark_views_fops = {
	.owner = THIS_MODULE,
	.fsync = noop_fsync,
};

static void tidemark_gem_free(struct drm_gem_object *gem)
{
	struct tidemark_object *obj = to_tidemark_object(gem);
	struct tidemark_device *tdev = to_tidemark_device(gem->dev);
	struct drm_device *drm = gem->dev;
	unsigned long index;
	void *entry;

	if (obj->user)
		tidemark_user_free(obj);
	drm_vma_offset_remove(&tdev->offsets, &gem->vma_node);
	drm_gem_object_release(gem);

	xa_for_each(&obj->backing, index, entry) {
		__free_page(tidemark_entry_page(entry));
		if (!(index % 1024))
			cond_resched();
	}
	xa_destroy(&obj->backing);
	tidemark_heap_release(tdev, (u64)obj->device_pages << PAGE_SHIFT);
	if (obj->views)
		fput(obj->views);
	kfree(obj);
	drm_dev_put(drm);
}

static enum drm_gem_object_status tidemark_gem_status(struct drm_gem_object *gem)
{
	struct tidemark_object *obj = to_tidemark_object(gem);

	return READ_ONCE(obj->system_pages) || READ_ONCE(obj->device_pages)
		       ? DRM_GEM_OBJECT_RESIDENT
		       : 0;
}

static size_t tidemark_gem_rss(struct drm_gem_object *gem)
{
	struct tidemark_object *obj = to_tidemark_object(gem);

	return (READ_ONCE(obj->system_pages) + READ_ONCE(obj->device_pages)) << PAGE_SHIFT;
}

static const struct drm_gem_object_funcs tidemark_gem_funcs = {
	.free = tidemark_gem_free,
	.mmap = tidemark_view_mmap,
	.export = tidemark_gem_export,
	.pin = tidemark_gem_pin,
	.unpin = tidemark_gem_unpin,
	.get_sg_table = tidemark_gem_get_sg_table,
	.status = tidemark_gem_status,
	.rss = tidemark_gem_rss,
};

/* An object of zeros, without views yet. It keeps the device, which views may outlive otherwise. */
struct tidemark_object *tidemark_object_new(struct drm_device *drm, u64 size)
{
	struct tidemark_object *obj;

	if (!size || !PAGE_ALIGNED(size) || size > TIDEMARK_MAX_OBJECT)
		return ERR_PTR(-EINVAL);

	obj = kzalloc(sizeof(*obj), GFP_KERNEL);
	if (!obj)
		return ERR_PTR(-ENOMEM);
	obj->base.funcs = &tidemark_gem_funcs;
	xa_init(&obj->backing);
	drm_gem_private_object_init(drm, &obj->base, size);
	drm_dev_get(drm);
	return obj;
}

struct tidemark_object *tidemark_object_lookup(struct drm_file *file, u32 handle)
{
	struct drm_gem_object *gem = drm_gem_object_lookup(file, handle);

	return gem ? to_tidemark_object(gem) : ERR_PTR(-ENOENT);
}

/* As above, but not of a user object: that has no backing of its own. */
struct tidemark_object *tidemark_object_lookup_backed(struct drm_file *file, u32 handle)
{
	struct tidemark_object *obj = tidemark_object_lookup(file, handle);

	if (!IS_ERR(obj) && obj->user) {
		drm_gem_object_put(&obj->base);
		return ERR_PTR(-EOPNOTSUPP);
	}
	return obj;
}

/**
 * tidemark_object_populate - the page at an index
 * @obj: whose reservation is held
 * @index: of the page
 * @placement: where to put it if there is none; system memory, if the device's is full
 * @gfp: TIDEMARK_GFP_*
 *
 * Returns: its entry, or an error.
 */
void *tidemark_object_populate(struct tidemark_object *obj, pgoff_t index, u32 placement,
			       gfp_t gfp)
{
	struct tidemark_device *tdev = to_tidemark_device(obj->base.dev);
	void *entry = xa_load(&obj->backing, index);
	struct page *page;
	bool on_device;
	int ret;

	dma_resv_assert_held(obj->base.resv);
	if (entry)
		return entry;

	page = alloc_page(gfp);
	if (!page)
		return ERR_PTR(-ENOMEM);
	on_device = placement == DRM_TIDEMARK_PLACEMENT_DEVICE &&
		    tidemark_heap_take(tdev, PAGE_SIZE);
	entry = xa_tag_pointer(page, on_device ? TIDEMARK_ON_DEVICE : 0);
	ret = xa_err(xa_store(&obj->backing, index, entry, GFP_KERNEL));
	if (ret) {
		if (on_device)
			tidemark_heap_release(tdev, PAGE_SIZE);
		__free_page(page);
		return ERR_PTR(ret);
	}
	if (on_device)
		obj->device_pages++;
	else
		obj->system_pages++;
	return entry;
}

/* Takes the reservation when no pages are being moved. -EINTR, -ERESTARTSYS: a signal came. */
int tidemark_object_lock_idle(struct tidemark_object *obj)
{
	struct dma_resv *resv = obj->base.resv;

	for (;;) {
		long left;
		int ret = dma_resv_lock_interruptible(resv, NULL);

		if (ret)
			return ret;
		if (dma_resv_test_signaled(resv, DMA_RESV_USAGE_KERNEL))
			return 0;
		dma_resv_unlock(resv);
		left = dma_resv_wait_timeout(resv, DMA_RESV_USAGE_KERNEL, true,
					     MAX_SCHEDULE_TIMEOUT);
		if (left < 0)
			return left;
	}
}

int tidemark_object_create_ioctl(struct drm_device *drm, void *data, struct drm_file *file)
{
	struct tidemark_device *tdev = to_tidemark_device(drm);
	struct drm_tidemark_object_create *args = data;
	struct tidemark_object *obj;
	int ret;

	if (args->flags || args->placement > DRM_TIDEMARK_PLACEMENT_DEVICE ||
	    args->tracking > DRM_TIDEMARK_TRACKING_DIRTY_BITS)
		return -EINVAL;
	if (args->placement == DRM_TIDEMARK_PLACEMENT_DEVICE && !tdev->heap_size)
		return -EOPNOTSUPP;

	obj = tidemark_object_new(drm, args->size);
	if (IS_ERR(obj))
		return PTR_ERR(obj);
	obj->placement = args->placement;
	obj->tracking = args->tracking;

	obj->views =
		anon_inode_create_getfile("[tidemark]", &tidemark_views_fops, NULL, O_RDWR, NULL);
	if (IS_ERR(obj->views)) {
		ret = PTR_ERR(obj->views);
		obj->views = NULL;
		goto put;
	}
	ret = drm_vma_offset_add(&tdev->offsets, &obj->base.vma_node,
				 2 * tidemark_object_pages(obj));
	if (!ret)
		ret = drm_gem_handle_create(file, &obj->base, &args->handle);
put:
	drm_gem_object_put(&obj->base);
	return ret;
}
