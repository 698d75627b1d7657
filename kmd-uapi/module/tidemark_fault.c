// SPDX-License-Identifier: GPL-2.0
/*
 * What happens when the CPU touches a view.
 */
#include <linux/delay.h>
#include <linux/dma-resv.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>

#include "tidemark_drv.h"

/* Pages that a fault maps, or brings back, at most; aligned to as many. */
#define TIDEMARK_FAULT_AROUND	16UL

/* Until pages have been moved, or a signal that the access heeds has come. */
static void tidemark_fault_wait_moves(struct tidemark_object *obj, const struct vm_fault *vmf)
{
	while (!dma_resv_wait_timeout(obj->base.resv, DMA_RESV_USAGE_KERNEL, false, HZ / 20)) {
		if (fatal_signal_pending(current))
			break;
		if ((vmf->flags & FAULT_FLAG_USER) && signal_pending(current))
			break;
	}
}

/* Called without the reservation; returns what the fault does. */
static vm_fault_t tidemark_fault_wait(struct tidemark_object *obj, struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;

	if (!fault_flag_allow_retry_first(vmf->flags)) {
		tidemark_fault_wait_moves(obj, vmf);
		return VM_FAULT_NOPAGE;
	}
	if (vmf->flags & FAULT_FLAG_RETRY_NOWAIT)
		return VM_FAULT_RETRY;

	/* The mapping may go as soon as the lock is dropped. */
	drm_gem_object_get(&obj->base);
	mmap_read_unlock(vma->vm_mm);
	tidemark_fault_wait_moves(obj, vmf);
	drm_gem_object_put(&obj->base);
	return VM_FAULT_RETRY;
}

/*
 * The page at an index in system memory, with the reservation held. Otherwise
 * NULL, the reservation dropped, and what the fault does in @ret.
 */
static struct page *tidemark_fault_page(struct tidemark_object *obj, struct vm_fault *vmf,
					pgoff_t index, vm_fault_t *ret)
{
	struct dma_resv *resv = obj->base.resv;
	void *entry;
	int err;

	/* Never held while somebody waits for the device. */
	dma_resv_lock(resv, NULL);
	if (!dma_resv_test_signaled(resv, DMA_RESV_USAGE_KERNEL))
		goto wait;

	entry = tidemark_object_populate(obj, index, DRM_TIDEMARK_PLACEMENT_SYSTEM,
					 TIDEMARK_GFP_FAULT);
	err = PTR_ERR_OR_ZERO(entry);
	if (!err && !tidemark_entry_on_device(entry)) {
		obj->counters.faults++;
		return tidemark_entry_page(entry);
	}
	if (!err) {
		pgoff_t first = round_down(index, TIDEMARK_FAULT_AROUND);
		pgoff_t end = min(first + TIDEMARK_FAULT_AROUND, tidemark_object_pages(obj));

		err = tidemark_bring_back(obj, first, end, TIDEMARK_GFP_FAULT);
	}
	if (!err)
		goto wait;
	dma_resv_unlock(resv);
	*ret = VM_FAULT_OOM;
	return NULL;

wait:
	dma_resv_unlock(resv);
	*ret = tidemark_fault_wait(obj, vmf);
	return NULL;
}

/* The pages of the view that a fault at @vmf may map along, as addresses. */
static void tidemark_fault_window(const struct vm_fault *vmf, unsigned long *first,
				  unsigned long *end)
{
	unsigned long begin = round_down(vmf->address, TIDEMARK_FAULT_AROUND * PAGE_SIZE);

	*first = max(begin, vmf->vma->vm_start);
	*end = min(begin + TIDEMARK_FAULT_AROUND * PAGE_SIZE, vmf->vma->vm_end);
}

/*
 * The core makes the PTE after this has returned, and after the reservation is
 * free again. The page's lock, taken under the reservation, tells the scan to
 * wait for it.
 */
static vm_fault_t tidemark_tracked_fault(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	struct tidemark_object *obj = to_tidemark_object(vma->vm_private_data);
	unsigned long address, end;
	vm_fault_t ret;
	struct page *page = tidemark_fault_page(obj, vmf, vmf->pgoff, &ret);

	if (!page)
		return ret;

	/* Read-only, since there is page_mkwrite: neighbours need no marks. */
	tidemark_fault_window(vmf, &address, &end);
	for (; address < end; address += PAGE_SIZE) {
		pgoff_t index = vmf->pgoff + (address >> PAGE_SHIFT) - (vmf->address >> PAGE_SHIFT);
		void *entry = index == vmf->pgoff ? NULL : xa_load(&obj->backing, index);

		/* -EBUSY: it is mapped. Without memory there is one fault more. */
		if (entry && !tidemark_entry_on_device(entry))
			vm_insert_page(vma, address, tidemark_entry_page(entry));
	}

	get_page(page);
	lock_page(page);
	vmf->page = page;
	dma_resv_unlock(obj->base.resv);
	return VM_FAULT_LOCKED;
}

/*
 * The page is about to become writable. Again the core changes the PTE later,
 * under the page's lock, and then sets the page's dirty bit.
 */
static vm_fault_t tidemark_tracked_mkwrite(struct vm_fault *vmf)
{
	struct tidemark_object *obj = to_tidemark_object(vmf->vma->vm_private_data);
	const u32 delay_us = to_tidemark_device(obj->base.dev)->install_delay_us;
	vm_fault_t ret = VM_FAULT_NOPAGE;

	dma_resv_lock(obj->base.resv, NULL);
	/* Moved since it was mapped? Then the access faults once more. */
	if (xa_load(&obj->backing, vmf->pgoff) == vmf->page) {
		lock_page(vmf->page);
		xa_set_mark(&obj->backing, vmf->pgoff, TIDEMARK_CANDIDATE);
		obj->counters.write_faults++;
		ret = VM_FAULT_LOCKED;
	}
	dma_resv_unlock(obj->base.resv);
	if (ret == VM_FAULT_LOCKED && unlikely(delay_us))
		fsleep(delay_us);
	return ret;
}

/* PTEs without page: nothing that is written here is ever looked for. */
static vm_fault_t tidemark_untracked_fault(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	struct tidemark_object *obj = to_tidemark_object(vma->vm_private_data);
	pgoff_t fault_index = vmf->pgoff - tidemark_object_pages(obj);
	unsigned long address, end;
	vm_fault_t ret;
	struct page *page = tidemark_fault_page(obj, vmf, fault_index, &ret);

	if (!page)
		return ret;

	ret = vmf_insert_pfn_prot(vma, vmf->address, page_to_pfn(page), vma->vm_page_prot);
	tidemark_fault_window(vmf, &address, &end);
	for (; !(ret & VM_FAULT_ERROR) && address < end; address += PAGE_SIZE) {
		pgoff_t index =
			fault_index + (address >> PAGE_SHIFT) - (vmf->address >> PAGE_SHIFT);
		void *entry = index == fault_index ? NULL : xa_load(&obj->backing, index);

		if (entry && !tidemark_entry_on_device(entry))
			vmf_insert_pfn_prot(vma, address, page_to_pfn(tidemark_entry_page(entry)),
					    vma->vm_page_prot);
	}
	dma_resv_unlock(obj->base.resv);
	return ret;
}

static void tidemark_vma_open(struct vm_area_struct *vma)
{
	drm_gem_object_get(vma->vm_private_data);
}

static void tidemark_vma_close(struct vm_area_struct *vma)
{
	drm_gem_object_put(vma->vm_private_data);
}

const struct vm_operations_struct tidemark_tracked_vm_ops = {
	.open = tidemark_vma_open,
	.close = tidemark_vma_close,
	.fault = tidemark_tracked_fault,
	.page_mkwrite = tidemark_tracked_mkwrite,
};

const struct vm_operations_struct tidemark_untracked_vm_ops = {
	.open = tidemark_vma_open,
	.close = tidemark_vma_close,
	.fault = tidemark_untracked_fault,
};
