// SPDX-License-Identifier: GPL-2.0
/*
 * Mapping objects. An object has twice its size of offsets in the file: the
 * first half shows it tracked, the other untracked. In the object's own address
 * space, where its mappings end up, the halves lie one behind the other, too.
 */
#include <linux/file.h>
#include <linux/mm.h>

#include <drm/drm_drv.h>

#include "tidemark_drv.h"

/* The object's part that is mapped is vm_pgoff; a reference becomes the mapping's. */
static int tidemark_view_setup(struct tidemark_object *obj, struct vm_area_struct *vma)
{
	struct tidemark_device *tdev = to_tidemark_device(obj->base.dev);
	pgoff_t pages = tidemark_object_pages(obj);
	pgoff_t first = vma->vm_pgoff, end = first + vma_pages(vma);

	if (obj->user)
		return -EOPNOTSUPP;
	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;

	if (end <= pages) {
		/*
		 * Page-backed: when a mapping goes, the kernel leaves its dirty
		 * bits at the pages.
		 */
		vma->vm_ops = &tidemark_tracked_vm_ops;
		vm_flags_set(vma, VM_MIXEDMAP | VM_DONTEXPAND);
	} else if (first >= pages && end <= 2 * pages) {
		/* And these shall leave none. */
		vma->vm_ops = &tidemark_untracked_vm_ops;
		vm_flags_set(vma, VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP);
	} else {
		return -EINVAL;
	}
	vma->vm_private_data = &obj->base;
	if (!(tdev->omit & TIDEMARK_OMIT_VIEW_FILE))
		vma_set_file(vma, obj->views);
	return 0;
}

/* Of a dma-buf; the reference was taken for us. */
int tidemark_view_mmap(struct drm_gem_object *gem, struct vm_area_struct *vma)
{
	vma->vm_pgoff -= drm_vma_node_start(&gem->vma_node);
	return tidemark_view_setup(to_tidemark_object(gem), vma);
}

int tidemark_mmap(struct file *filp, struct vm_area_struct *vma)
{
	struct drm_file *file = filp->private_data;
	struct tidemark_device *tdev = to_tidemark_device(file->minor->dev);
	struct drm_vma_offset_node *node;
	struct drm_gem_object *gem = NULL;
	int ret;

	if (drm_dev_is_unplugged(&tdev->drm))
		return -ENODEV;

	drm_vma_offset_lock_lookup(&tdev->offsets);
	node = drm_vma_offset_lookup_locked(&tdev->offsets, vma->vm_pgoff, vma_pages(vma));
	if (node) {
		gem = container_of(node, struct drm_gem_object, vma_node);
		/* On its way to be freed, it waits for this lock. */
		if (!kref_get_unless_zero(&gem->refcount))
			gem = NULL;
	}
	drm_vma_offset_unlock_lookup(&tdev->offsets);
	if (!gem)
		return -EINVAL;

	if (drm_vma_node_is_allowed(node, file)) {
		vma->vm_pgoff -= drm_vma_node_start(node);
		ret = tidemark_view_setup(to_tidemark_object(gem), vma);
	} else {
		ret = -EACCES;
	}
	if (ret)
		drm_gem_object_put(gem);
	return ret;
}

int tidemark_mmap_offset_ioctl(struct drm_device *drm, void *data, struct drm_file *file)
{
	struct drm_tidemark_mmap_offset *args = data;
	struct tidemark_object *obj;

	if (args->flags & ~DRM_TIDEMARK_MMAP_UNTRACKED)
		return -EINVAL;
	obj = tidemark_object_lookup_backed(file, args->handle);
	if (IS_ERR(obj))
		return PTR_ERR(obj);

	args->offset = drm_vma_node_offset_addr(&obj->base.vma_node);
	if (args->flags & DRM_TIDEMARK_MMAP_UNTRACKED)
		args->offset += obj->base.size;
	drm_gem_object_put(&obj->base);
	return 0;
}
