// SPDX-License-Identifier: GPL-2.0
/*
 * Objects as dma-bufs. Another device sees the pages in system memory, where
 * they stay as long as it is attached.
 */
#include <linux/dma-buf.h>
#include <linux/dma-resv.h>
#include <linux/slab.h>

#include <drm/drm_prime.h>

#include "tidemark_drv.h"

struct dma_buf *tidemark_gem_export(struct drm_gem_object *gem, int flags)
{
	if (to_tidemark_object(gem)->user)
		return ERR_PTR(-EOPNOTSUPP);
	return drm_gem_prime_export(gem, flags);
}

/* Under the reservation, in which the fences of moves end up: these need no lock to signal. */
int tidemark_gem_pin(struct drm_gem_object *gem)
{
	struct tidemark_object *obj = to_tidemark_object(gem);
	int ret = tidemark_bring_back(obj, 0, tidemark_object_pages(obj), TIDEMARK_GFP_CALL);
	long left;

	if (ret)
		return ret;
	left = dma_resv_wait_timeout(gem->resv, DMA_RESV_USAGE_KERNEL, true, MAX_SCHEDULE_TIMEOUT);
	if (left < 0)
		return left;
	obj->attached++;
	return 0;
}

void tidemark_gem_unpin(struct drm_gem_object *gem)
{
	to_tidemark_object(gem)->attached--;
}

struct sg_table *tidemark_gem_get_sg_table(struct drm_gem_object *gem)
{
	struct tidemark_object *obj = to_tidemark_object(gem);
	pgoff_t count = tidemark_object_pages(obj), i;
	struct page **pages = kvmalloc_array(count, sizeof(*pages), GFP_KERNEL | __GFP_NOWARN);
	struct sg_table *table;

	if (!pages)
		return ERR_PTR(-ENOMEM);
	for (i = 0; i < count; i++) {
		void *entry = tidemark_object_populate(obj, i, DRM_TIDEMARK_PLACEMENT_SYSTEM,
						       TIDEMARK_GFP_CALL);

		if (IS_ERR(entry)) {
			kvfree(pages);
			return ERR_CAST(entry);
		}
		pages[i] = tidemark_entry_page(entry);
	}
	table = drm_prime_pages_to_sg(gem->dev, pages, count);
	kvfree(pages);
	return table;
}
