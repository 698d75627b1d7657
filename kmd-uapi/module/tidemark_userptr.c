// SPDX-License-Identifier: GPL-2.0
/*
 * Objects over memory of a process. Nothing is pinned: a job is queued with the
 * pages that the range has at that moment, and whoever takes one away, by
 * munmap, migration or reclaim, waits until the jobs that use it are done.
 */
#include <linux/capability.h>
#include <linux/dma-resv.h>
#include <linux/hmm.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/slab.h>

#include "tidemark_drv.h"

struct tidemark_user {
	struct mmu_interval_notifier notifier;
	struct tidemark_object *obj;
	struct mm_struct *mm;
	u64 address;
	bool read_only;
	/** @pages: of an unsynchronised object, which has no notifier; else NULL */
	struct page **pages;
};

static bool tidemark_user_invalidate(struct mmu_interval_notifier *notifier,
				     const struct mmu_notifier_range *range, unsigned long seq)
{
	struct tidemark_user *user = container_of(notifier, struct tidemark_user, notifier);
	struct tidemark_device *tdev = to_tidemark_device(user->obj->base.dev);

	if (!mmu_notifier_range_blockable(range))
		return false;
	mutex_lock(&tdev->users);
	mmu_interval_set_seq(notifier, seq);
	user->obj->counters.invalidations++;
	mutex_unlock(&tdev->users);
	dma_resv_wait_timeout(user->obj->base.resv, DMA_RESV_USAGE_BOOKKEEP, false,
			      MAX_SCHEDULE_TIMEOUT);
	return true;
}

static const struct mmu_interval_notifier_ops tidemark_user_ops = {
	.invalidate = tidemark_user_invalidate,
};

/* Whether the caller may use the object so. */
int tidemark_user_check(const struct tidemark_object *obj, bool write)
{
	if (obj->user->mm != current->mm || (write && obj->user->read_only))
		return -EACCES;
	return 0;
}

/* NULL: its pages are to be resolved. */
struct page *tidemark_user_pinned_page(const struct tidemark_object *obj, pgoff_t index)
{
	return obj->user->pages ? obj->user->pages[index] : NULL;
}

/* What tidemark_user_resolve() finds after this holds until tidemark_user_changed(). */
unsigned long tidemark_user_begin(struct tidemark_object *obj)
{
	return obj->user->pages ? 0 : mmu_interval_read_begin(&obj->user->notifier);
}

/* -EBUSY: pages changed meanwhile, begin again. -EFAULT: there is no such memory. */
int tidemark_user_resolve(struct tidemark_object *obj, unsigned long seq, pgoff_t first,
			  pgoff_t end, bool write, unsigned long *pfns)
{
	struct tidemark_user *user = obj->user;
	struct hmm_range range = {
		.notifier = &user->notifier,
		.notifier_seq = seq,
		.start = user->address + (first << PAGE_SHIFT),
		.end = user->address + (end << PAGE_SHIFT),
		.hmm_pfns = pfns,
		.default_flags = HMM_PFN_REQ_FAULT | (write ? HMM_PFN_REQ_WRITE : 0),
	};
	pgoff_t i;
	int ret;

	if (user->pages)
		return 0;
	mmap_read_lock(user->mm);
	ret = hmm_range_fault(&range);
	mmap_read_unlock(user->mm);
	/* Memory that is not there, or that may not be written. */
	if (ret == -EPERM || ret == -EINVAL)
		ret = -EFAULT;
	for (i = 0; !ret && i < end - first; i++) {
		if (!(pfns[i] & HMM_PFN_VALID))
			ret = -EFAULT;
	}
	return ret;
}

/* The device's users lock is held. */
bool tidemark_user_changed(struct tidemark_object *obj, unsigned long seq)
{
	return !obj->user->pages && mmu_interval_read_retry(&obj->user->notifier, seq);
}

void tidemark_user_free(struct tidemark_object *obj)
{
	struct tidemark_user *user = obj->user;

	if (user->pages)
		unpin_user_pages_dirty_lock(user->pages, tidemark_object_pages(obj),
					    !user->read_only);
	else if (user->notifier.mm)
		mmu_interval_notifier_remove(&user->notifier);
	kvfree(user->pages);
	mmdrop(user->mm);
	kfree(user);
}

static int tidemark_user_pin(struct tidemark_object *obj)
{
	struct tidemark_user *user = obj->user;
	unsigned long count = tidemark_object_pages(obj), pinned = 0;
	unsigned int flags = FOLL_LONGTERM | (user->read_only ? 0 : FOLL_WRITE);
	struct page **pages = kvcalloc(count, sizeof(*pages), GFP_KERNEL | __GFP_NOWARN);
	int ret = 0;

	if (!pages)
		return -ENOMEM;
	while (!ret && pinned < count) {
		ret = pin_user_pages_fast(user->address + (pinned << PAGE_SHIFT),
					  min(count - pinned, 4096UL), flags, pages + pinned);
		if (ret > 0) {
			pinned += ret;
			ret = 0;
		} else if (!ret) {
			ret = -EFAULT;
		}
	}
	if (ret) {
		unpin_user_pages(pages, pinned);
		kvfree(pages);
		return ret;
	}
	user->pages = pages;
	return 0;
}

int tidemark_object_user_ioctl(struct drm_device *drm, void *data, struct drm_file *file)
{
	struct drm_tidemark_object_user *args = data;
	struct tidemark_object *obj;
	struct tidemark_user *user;
	int ret;

	if ((args->flags & ~(DRM_TIDEMARK_USER_READ_ONLY | DRM_TIDEMARK_USER_UNSYNCHRONIZED)) ||
	    !PAGE_ALIGNED(args->address))
		return -EINVAL;
	if ((args->flags & DRM_TIDEMARK_USER_UNSYNCHRONIZED) && !capable(CAP_SYS_ADMIN))
		return -EPERM;
	obj = tidemark_object_new(drm, args->size);
	if (IS_ERR(obj))
		return PTR_ERR(obj);
	ret = -EFAULT;
	if (!access_ok(u64_to_user_ptr(args->address), args->size))
		goto put;
	ret = -ENOMEM;
	user = kzalloc(sizeof(*user), GFP_KERNEL);
	if (!user)
		goto put;
	user->obj = obj;
	user->address = args->address;
	user->read_only = args->flags & DRM_TIDEMARK_USER_READ_ONLY;
	user->mm = current->mm;
	mmgrab(user->mm);
	obj->user = user;

	if (args->flags & DRM_TIDEMARK_USER_UNSYNCHRONIZED)
		ret = tidemark_user_pin(obj);
	else
		ret = mmu_interval_notifier_insert(&user->notifier, user->mm, user->address,
						   args->size, &tidemark_user_ops);
	if (!ret)
		ret = drm_gem_handle_create(file, &obj->base, &args->handle);
put:
	drm_gem_object_put(&obj->base);
	return ret;
}
