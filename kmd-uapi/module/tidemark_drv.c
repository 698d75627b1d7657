// SPDX-License-Identifier: GPL-2.0
/*
 * The device, its files and its ioctls.
 */
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/slab.h>

#include <drm/drm_drv.h>
#include <drm/drm_ioctl.h>
#include <drm/drm_managed.h>

#include "tidemark_drv.h"

static unsigned int heap_mib = 64;
module_param(heap_mib, uint, 0444);
MODULE_PARM_DESC(heap_mib, "Device memory in MiB; 0: there is none (default: 64)");

/* In pages: room for some objects of the largest size, each with two views. */
#define TIDEMARK_OFFSETS_SIZE	(64 * (TIDEMARK_MAX_OBJECT >> PAGE_SHIFT))

static int tidemark_open(struct drm_device *drm, struct drm_file *file)
{
	struct tidemark_file *tfile = kzalloc(sizeof(*tfile), GFP_KERNEL);
	int ret;

	if (!tfile)
		return -ENOMEM;
	ret = tidemark_queue_init(&tfile->queue, to_tidemark_device(drm));
	if (ret) {
		kfree(tfile);
		return ret;
	}
	file->driver_priv = tfile;
	return 0;
}

static void tidemark_postclose(struct drm_device *drm, struct drm_file *file)
{
	struct tidemark_file *tfile = file->driver_priv;

	tidemark_queue_fini(&tfile->queue);
	kfree(tfile);
}

static const struct drm_ioctl_desc tidemark_ioctls[] = {
	DRM_IOCTL_DEF_DRV(TIDEMARK_QUERY, tidemark_query_ioctl, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(TIDEMARK_OBJECT_CREATE, tidemark_object_create_ioctl, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(TIDEMARK_OBJECT_USER, tidemark_object_user_ioctl, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(TIDEMARK_OBJECT_INFO, tidemark_object_info_ioctl, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(TIDEMARK_MMAP_OFFSET, tidemark_mmap_offset_ioctl, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(TIDEMARK_SET_TRACKING, tidemark_set_tracking_ioctl, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(TIDEMARK_COLLECT, tidemark_collect_ioctl, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(TIDEMARK_PLACE, tidemark_place_ioctl, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(TIDEMARK_READ, tidemark_read_ioctl, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(TIDEMARK_WRITE, tidemark_write_ioctl, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(TIDEMARK_COPY, tidemark_copy_ioctl, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(TIDEMARK_WAIT, tidemark_wait_ioctl, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(TIDEMARK_COUNTERS, tidemark_counters_ioctl, DRM_RENDER_ALLOW),
};

static const struct file_operations tidemark_fops = {
	.owner = THIS_MODULE,
	.open = drm_open,
	.release = drm_release,
	.unlocked_ioctl = drm_ioctl,
	.compat_ioctl = drm_compat_ioctl,
	.poll = drm_poll,
	.read = drm_read,
	.llseek = noop_llseek,
	.mmap = tidemark_mmap,
	.show_fdinfo = drm_show_fdinfo,
	.fop_flags = FOP_UNSIGNED_OFFSET,
};

static const struct drm_driver tidemark_driver = {
	.driver_features = DRIVER_GEM | DRIVER_RENDER | DRIVER_SYNCOBJ | DRIVER_SYNCOBJ_TIMELINE,
	.open = tidemark_open,
	.postclose = tidemark_postclose,
	.debugfs_init = tidemark_debugfs_init,
	.show_fdinfo = tidemark_show_fdinfo,
	.ioctls = tidemark_ioctls,
	.num_ioctls = ARRAY_SIZE(tidemark_ioctls),
	.fops = &tidemark_fops,
	.name = "tidemark",
	.desc = "Virtual device that cannot see what the CPU writes",
	.major = DRM_TIDEMARK_UAPI_VERSION,
	.minor = 0,
};

/* When the last file, view and dma-buf are gone. */
static void tidemark_device_fini(struct drm_device *drm, void *data)
{
	struct tidemark_device *tdev = to_tidemark_device(drm);

	tidemark_queue_fini(&tdev->moves);
	drm_vma_offset_manager_destroy(&tdev->offsets);
	mutex_destroy(&tdev->users);
}

static int tidemark_probe(struct platform_device *pdev)
{
	struct tidemark_device *tdev;
	int ret;

	tdev = devm_drm_dev_alloc(&pdev->dev, &tidemark_driver, struct tidemark_device, drm);
	if (IS_ERR(tdev))
		return PTR_ERR(tdev);
	tdev->heap_size = (u64)heap_mib << 20;
	mutex_init(&tdev->users);
	init_waitqueue_head(&tdev->gone);
	ret = tidemark_queue_init(&tdev->moves, tdev);
	if (ret)
		return ret;
	drm_vma_offset_manager_init(&tdev->offsets, DRM_FILE_PAGE_OFFSET_START,
				    TIDEMARK_OFFSETS_SIZE);
	ret = drmm_add_action_or_reset(&tdev->drm, tidemark_device_fini, NULL);
	if (ret)
		return ret;
	platform_set_drvdata(pdev, tdev);
	return drm_dev_register(&tdev->drm, 0);
}

/* Views stay; jobs end with an error; what lay in device memory is lost. */
static void tidemark_remove(struct platform_device *pdev)
{
	struct tidemark_device *tdev = platform_get_drvdata(pdev);

	drm_dev_unplug(&tdev->drm);
	wake_up_all(&tdev->gone);
}

static struct platform_driver tidemark_platform_driver = {
	.probe = tidemark_probe,
	.remove = tidemark_remove,
	.driver = { .name = "tidemark" },
};

static struct platform_device *tidemark_pdev;

static int __init tidemark_init(void)
{
	int ret;

	tidemark_cleanup = alloc_workqueue("tidemark-cleanup", WQ_UNBOUND, 0);
	if (!tidemark_cleanup)
		return -ENOMEM;
	ret = platform_driver_register(&tidemark_platform_driver);
	if (ret)
		goto destroy;
	tidemark_pdev = platform_device_register_simple("tidemark", PLATFORM_DEVID_NONE, NULL, 0);
	if (!IS_ERR(tidemark_pdev))
		return 0;
	ret = PTR_ERR(tidemark_pdev);
	platform_driver_unregister(&tidemark_platform_driver);
destroy:
	destroy_workqueue(tidemark_cleanup);
	return ret;
}

static void __exit tidemark_exit(void)
{
	platform_device_unregister(tidemark_pdev);
	platform_driver_unregister(&tidemark_platform_driver);
	/* Frees what jobs still held, which may be the device. */
	destroy_workqueue(tidemark_cleanup);
}

module_init(tidemark_init);
module_exit(tidemark_exit);

MODULE_DESCRIPTION("Virtual device that cannot see what the CPU writes");
MODULE_AUTHOR("The Tidemark developers");
MODULE_LICENSE("GPL");
