// SPDX-License-Identifier: GPL-2.0
/*
 * What there is to be known: of the device, of objects, of their costs, and of
 * a file (Documentation/gpu/drm-usage-stats.rst).
 */
#include <linux/dma-resv.h>

#include <drm/drm_file.h>
#include <drm/drm_print.h>

#include "tidemark_drv.h"

int tidemark_query_ioctl(struct drm_device *drm, void *data, struct drm_file *file)
{
	struct tidemark_device *tdev = to_tidemark_device(drm);
	struct drm_tidemark_query *args = data;

	if (args->pad)
		return -EINVAL;
	switch (args->param) {
	case DRM_TIDEMARK_PARAM_VERSION:
		args->value = DRM_TIDEMARK_UAPI_VERSION;
		return 0;
	case DRM_TIDEMARK_PARAM_CAPS:
		args->value = DRM_TIDEMARK_CAP_MKWRITE | DRM_TIDEMARK_CAP_DIRTY_BITS |
			      DRM_TIDEMARK_CAP_COPY | DRM_TIDEMARK_CAP_USER_OBJECTS;
		if (tdev->heap_size)
			args->value |= DRM_TIDEMARK_CAP_DEVICE_MEMORY;
		return 0;
	case DRM_TIDEMARK_PARAM_PAGE_SIZE:
		args->value = PAGE_SIZE;
		return 0;
	case DRM_TIDEMARK_PARAM_MAX_OBJECT_SIZE:
		args->value = TIDEMARK_MAX_OBJECT;
		return 0;
	case DRM_TIDEMARK_PARAM_DEVICE_MEMORY:
		args->value = tdev->heap_size;
		return 0;
	case DRM_TIDEMARK_PARAM_MAX_ELEMENTS:
		args->value = TIDEMARK_MAX_ELEMENTS;
		return 0;
	case DRM_TIDEMARK_PARAM_MAX_COPY_SIZE:
		args->value = TIDEMARK_MAX_COPY;
		return 0;
	default:
		return -EINVAL;
	}
}

int tidemark_object_info_ioctl(struct drm_device *drm, void *data, struct drm_file *file)
{
	struct drm_tidemark_object_info *args = data;
	struct tidemark_object *obj;

	if (args->pad)
		return -EINVAL;
	obj = tidemark_object_lookup(file, args->handle);
	if (IS_ERR(obj))
		return PTR_ERR(obj);

	args->size = obj->base.size;
	args->placement = READ_ONCE(obj->placement);
	args->tracking = READ_ONCE(obj->tracking);
	args->system_size = (u64)READ_ONCE(obj->system_pages) << PAGE_SHIFT;
	args->device_size = (u64)READ_ONCE(obj->device_pages) << PAGE_SHIFT;
	drm_gem_object_put(&obj->base);
	return 0;
}

int tidemark_counters_ioctl(struct drm_device *drm, void *data, struct drm_file *file)
{
	struct drm_tidemark_counters *args = data;
	struct tidemark_object *obj;
	u32 handle = args->handle;
	int ret;

	if (args->pad)
		return -EINVAL;
	obj = tidemark_object_lookup(file, handle);
	if (IS_ERR(obj))
		return PTR_ERR(obj);

	ret = dma_resv_lock_interruptible(obj->base.resv, NULL);
	if (!ret) {
		*args = obj->counters;
		args->handle = handle;
		dma_resv_unlock(obj->base.resv);
	}
	drm_gem_object_put(&obj->base);
	return ret;
}

void tidemark_show_fdinfo(struct drm_printer *printer, struct drm_file *file)
{
	struct tidemark_file *tfile = file->driver_priv;

	drm_printf(printer, "drm-engine-copy:\t%llu ns\n", atomic64_read(&tfile->queue.busy_ns));
	drm_show_memory_stats(printer, file);
}
