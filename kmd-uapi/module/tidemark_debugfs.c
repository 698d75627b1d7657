// SPDX-License-Identifier: GPL-2.0
/*
 * Knobs for tests, root's alone: how slow the device and the kernel are, and
 * which steps of tracking to leave out, so that writes get lost and a test can
 * show that it would notice.
 */
#include <linux/debugfs.h>

#include <drm/drm_file.h>

#include "tidemark_drv.h"

void tidemark_debugfs_init(struct drm_minor *minor)
{
	struct tidemark_device *tdev = to_tidemark_device(minor->dev);

	debugfs_create_u32("latency_us", 0600, minor->debugfs_root, &tdev->latency_us);
	debugfs_create_u32("install_delay_us", 0600, minor->debugfs_root, &tdev->install_delay_us);
	debugfs_create_x32("omit", 0600, minor->debugfs_root, &tdev->omit);
}
