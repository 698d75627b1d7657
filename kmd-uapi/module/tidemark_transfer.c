// SPDX-License-Identifier: GPL-2.0
/*
 * Reading and writing objects through the kernel, which counts as nobody's write.
 */
#include <linux/dma-resv.h>
#include <linux/highmem.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include "tidemark_drv.h"

/* A part of one page. */
static int tidemark_transfer_page(struct tidemark_object *obj, struct page *bounce, u64 offset,
				  size_t size, bool write)
{
	pgoff_t index = offset >> PAGE_SHIFT;
	void *entry;
	int ret = tidemark_object_lock_idle(obj);

	if (ret)
		return ret;
	if (write)
		entry = tidemark_object_populate(obj, index, obj->placement, TIDEMARK_GFP_CALL);
	else
		entry = xa_load(&obj->backing, index);
	if (IS_ERR(entry))
		ret = PTR_ERR(entry);
	else if (write)
		memcpy_page(tidemark_entry_page(entry), offset_in_page(offset), bounce, 0, size);
	else if (entry)
		memcpy_page(bounce, 0, tidemark_entry_page(entry), offset_in_page(offset), size);
	else
		memzero_page(bounce, 0, size);
	dma_resv_unlock(obj->base.resv);
	return ret;
}

/*
 * By way of a page of the kernel's: the process's memory must not be touched
 * with the reservation held.
 */
static int tidemark_transfer(struct drm_tidemark_transfer *args, struct drm_file *file, bool write)
{
	void __user *user = u64_to_user_ptr(args->address);
	struct tidemark_object *obj;
	struct page *bounce;
	u64 done;
	int ret = 0;

	if (args->flags)
		return -EINVAL;
	obj = tidemark_object_lookup_backed(file, args->handle);
	if (IS_ERR(obj))
		return PTR_ERR(obj);
	if (args->offset > obj->base.size || args->size > obj->base.size - args->offset)
		ret = -EINVAL;
	bounce = ret ? NULL : alloc_page(GFP_KERNEL);
	if (!ret && !bounce)
		ret = -ENOMEM;

	for (done = 0; !ret && done < args->size;) {
		u64 offset = args->offset + done;
		size_t size = min_t(u64, args->size - done, PAGE_SIZE - offset_in_page(offset));

		if (write && copy_from_user(page_address(bounce), user + done, size))
			ret = -EFAULT;
		else
			ret = tidemark_transfer_page(obj, bounce, offset, size, write);
		if (!ret && !write && copy_to_user(user + done, page_address(bounce), size))
			ret = -EFAULT;
		done += size;
		if (!ret && fatal_signal_pending(current))
			ret = -EINTR;
		cond_resched();
	}
	if (bounce)
		__free_page(bounce);
	drm_gem_object_put(&obj->base);
	return ret;
}

int tidemark_read_ioctl(struct drm_device *drm, void *data, struct drm_file *file)
{
	return tidemark_transfer(data, file, false);
}

int tidemark_write_ioctl(struct drm_device *drm, void *data, struct drm_file *file)
{
	return tidemark_transfer(data, file, true);
}
