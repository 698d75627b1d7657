// SPDX-License-Identifier: GPL-2.0
/*
 * Which pages the CPU wrote: what both methods share, which is most.
 *
 * A page of a tracked view starts write-protected. Its first write is a fault,
 * which makes it a candidate (tidemark_tracked_mkwrite()). A scan looks at the
 * candidates alone, so it costs what was touched, not what there is. Of these it
 * gathers, and clears, the dirty bits: of the PTEs, and of the pages themselves,
 * where the kernel leaves those of mappings that are gone (munmap, exit, mremap,
 * a move to the device) and those of direct I/O.
 *
 * By dirty bits, candidates stay writable, and candidates, as long as they are
 * mapped. By mkwrite, the scan write-protects them first, and they are
 * candidates no more: the next write will tell. That is the whole difference,
 * so the method can be changed between any two scans.
 *
 * Why nothing is lost:
 *
 * - No PTE becomes writable during a scan. Whoever makes one so took the
 *   reservation, which the scan holds, and the page's lock under it, for which
 *   the scan waits.
 * - What is written through a PTE until it is cleaned leaves it dirty; after
 *   that, it gets dirty again or faults. The helpers flush TLBs before they
 *   return, and whoever reads the bytes does so later.
 * - A clean PTE that is read-only stays so through mprotect: the kernel makes
 *   PTEs writable by itself only where they are dirty. Hence mkwrite clears the
 *   dirty bits, too.
 * - A PTE that goes while the scan runs is met before or after. If after, its
 *   dirty bit is at the page by then: so the pages come after the PTEs.
 * - A forked child copies PTEs as they are, and its mapping is in the address
 *   space, behind the parent's, before it copies them.
 * - A page that is pinned for direct I/O may be written without any PTE. It
 *   counts as written, and stays a candidate, until it is unpinned.
 */
#include <linux/bitmap.h>
#include <linux/dma-resv.h>
#include <linux/mm.h>
#include <linux/pagemap.h>

#include "tidemark_drv.h"

/* Pages that are looked at in one walk. */
#define TIDEMARK_WALK	1024U

/* Until no PTE is being made for these pages. More are not begun while the reservation is held. */
void tidemark_object_wait_installs(struct tidemark_object *obj, pgoff_t first, pgoff_t end)
{
	unsigned long index;
	void *entry;

	dma_resv_assert_held(obj->base.resv);
	xa_for_each_range(&obj->backing, index, entry, first, end - 1) {
		if (!tidemark_entry_on_device(entry))
			folio_wait_locked(page_folio(tidemark_entry_page(entry)));
	}
}

/* What was written to these pages is still to be reported. */
void tidemark_keep_written(struct tidemark_object *obj, pgoff_t first, pgoff_t end)
{
	pgoff_t index;

	for (index = first; index < end; index++) {
		xa_set_mark(&obj->backing, index, TIDEMARK_CANDIDATE);
		xa_set_mark(&obj->backing, index, TIDEMARK_WRITTEN);
	}
}

/* Adds a page to the report. False: there is no room. */
static bool tidemark_report(struct tidemark_scan *scan, pgoff_t index)
{
	struct drm_tidemark_range *range = scan->count ? &scan->ranges[scan->count - 1] : NULL;
	u64 offset = (u64)index << PAGE_SHIFT;

	if (!range || range->object != scan->object || range->offset + range->size != offset) {
		if (scan->count == scan->capacity)
			return false;
		range = &scan->ranges[scan->count++];
		range->object = scan->object;
		range->pad = 0;
		range->offset = offset;
		range->size = 0;
	}
	range->size += PAGE_SIZE;
	return true;
}

/* A run of candidates. False: scan->next is the first that was written and had no room. */
static bool tidemark_scan_run(struct tidemark_object *obj, struct tidemark_scan *scan,
			      pgoff_t first, pgoff_t end)
{
	const u32 omit = to_tidemark_device(obj->base.dev)->omit;
	const bool protect = obj->tracking == DRM_TIDEMARK_TRACKING_MKWRITE;
	struct address_space *mapping = obj->views->f_mapping;
	DECLARE_BITMAP(dirty, TIDEMARK_WALK);
	pgoff_t dirty_first = 0, dirty_end = 0, index;
	bool room = true;

	bitmap_zero(dirty, TIDEMARK_WALK);
	if (!(omit & TIDEMARK_OMIT_INSTALL))
		tidemark_object_wait_installs(obj, first, end);
	if (protect) {
		wp_shared_mapping_range(mapping, first, end - first);
		obj->counters.walks++;
	}
	if (!protect || !(omit & TIDEMARK_OMIT_CLEAN)) {
		clean_record_shared_mapping_range(mapping, first, end - first, first, dirty,
						  &dirty_first, &dirty_end);
		obj->counters.walks++;
	}
	obj->counters.scanned_pages += end - first;

	for (index = first; index < end; index++) {
		struct folio *folio =
			page_folio(tidemark_entry_page(xa_load(&obj->backing, index)));
		/* Before the page's dirty bit, which is set before the pin goes. */
		bool pinned = !(omit & TIDEMARK_OMIT_PINS) && folio_maybe_dma_pinned(folio);
		bool keep = pinned || (!protect && folio_mapped(folio));
		bool written = test_bit(index - first, dirty) || pinned;

		if (!(omit & TIDEMARK_OMIT_PAGE_DIRTY) && folio_test_clear_dirty(folio))
			written = true;
		if (xa_get_mark(&obj->backing, index, TIDEMARK_WRITTEN))
			written = true;
		/* Without its dirty bit, the fault is all that is known of the page. */
		if (protect && (omit & (TIDEMARK_OMIT_CLEAN | TIDEMARK_OMIT_PAGE_DIRTY)))
			written = true;

		if (written && room && tidemark_report(scan, index)) {
			obj->counters.collected_pages++;
			xa_clear_mark(&obj->backing, index, TIDEMARK_WRITTEN);
		} else if (written) {
			if (room)
				scan->next = index;
			room = false;
			keep = true;
			xa_set_mark(&obj->backing, index, TIDEMARK_WRITTEN);
		}
		if (!keep)
			xa_clear_mark(&obj->backing, index, TIDEMARK_CANDIDATE);
	}
	return room;
}

/**
 * tidemark_scan - report and forget which pages were written
 * @obj: whose reservation is held
 * @scan: where to look and to report
 *
 * Stops at the end, when there is no more room, and after a walk, so that the
 * reservation is not held for long.
 */
void tidemark_scan(struct tidemark_object *obj, struct tidemark_scan *scan)
{
	unsigned long first = scan->next, end;

	dma_resv_assert_held(obj->base.resv);
	if (!xa_find(&obj->backing, &first, scan->end - 1, TIDEMARK_CANDIDATE)) {
		scan->next = scan->end;
		return;
	}
	for (end = first + 1; end < scan->end && end - first < TIDEMARK_WALK; end++) {
		if (!xa_get_mark(&obj->backing, end, TIDEMARK_CANDIDATE))
			break;
	}
	if (tidemark_scan_run(obj, scan, first, end))
		scan->next = end;
}

int tidemark_set_tracking_ioctl(struct drm_device *drm, void *data, struct drm_file *file)
{
	struct drm_tidemark_set_tracking *args = data;
	struct tidemark_object *obj;
	int ret;

	if (args->tracking > DRM_TIDEMARK_TRACKING_DIRTY_BITS)
		return -EINVAL;
	obj = tidemark_object_lookup_backed(file, args->handle);
	if (IS_ERR(obj))
		return PTR_ERR(obj);

	ret = dma_resv_lock_interruptible(obj->base.resv, NULL);
	if (ret)
		goto put;
	/* The next scan goes by the candidates that there are, and leaves those of its method. */
	obj->tracking = args->tracking;
	dma_resv_unlock(obj->base.resv);
put:
	drm_gem_object_put(&obj->base);
	return ret;
}
