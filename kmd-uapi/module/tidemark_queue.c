// SPDX-License-Identifier: GPL-2.0
/*
 * The device's copy engine: jobs run on a worker, one after another in each
 * queue, and signal their fences.
 */
#include <linux/dma-fence.h>
#include <linux/dma-resv.h>
#include <linux/highmem.h>
#include <linux/ktime.h>
#include <linux/slab.h>

#include <drm/drm_drv.h>

#include "tidemark_drv.h"

struct workqueue_struct *tidemark_cleanup;

struct tidemark_fence {
	/* First: freed by the default release. */
	struct dma_fence base;
	/* Of the fence alone. */
	spinlock_t lock;
};

static const char *tidemark_fence_driver_name(struct dma_fence *fence)
{
	return "tidemark";
}

static const char *tidemark_fence_timeline_name(struct dma_fence *fence)
{
	return "copy";
}

static const struct dma_fence_ops tidemark_fence_ops = {
	.get_driver_name = tidemark_fence_driver_name,
	.get_timeline_name = tidemark_fence_timeline_name,
};

/* A workqueue of its own makes a queue independent of the others. */
int tidemark_queue_init(struct tidemark_queue *queue, struct tidemark_device *tdev)
{
	queue->tdev = tdev;
	queue->wq = alloc_ordered_workqueue("tidemark", WQ_MEM_RECLAIM);
	if (!queue->wq)
		return -ENOMEM;
	mutex_init(&queue->lock);
	queue->context = dma_fence_context_alloc(1);
	return 0;
}

/* Ends the jobs that are left, without waiting for fences of others. */
void tidemark_queue_fini(struct tidemark_queue *queue)
{
	WRITE_ONCE(queue->closing, true);
	wake_up_all(&queue->tdev->gone);
	destroy_workqueue(queue->wq);
	mutex_destroy(&queue->lock);
}

static void tidemark_segment_run(const struct tidemark_segment *segment, bool to_user)
{
	struct folio *folio = page_folio(segment->dst);

	if (segment->src)
		memcpy_page(segment->dst, segment->dst_offset, segment->src, segment->src_offset,
			    segment->size);
	else
		memzero_page(segment->dst, segment->dst_offset, segment->size);
	/*
	 * Anonymous and shared memory can be writable and clean, and reclaimed
	 * as such. Files are dirty already, by the fault that made them writable.
	 */
	if (to_user && folio_test_swapbacked(folio))
		folio_mark_dirty(folio);
}

/* Returns: 0, or why the job cannot run. */
static int tidemark_job_wait(struct tidemark_job *job)
{
	struct tidemark_queue *queue = job->queue;
	struct tidemark_device *tdev = queue->tdev;
	unsigned long index;
	struct dma_fence *fence;
	u32 latency = READ_ONCE(tdev->latency_us);

	xa_for_each(&job->waits, index, fence) {
		while (!dma_fence_wait_timeout(fence, false, HZ / 20)) {
			if (READ_ONCE(queue->closing))
				return -ECANCELED;
			if (drm_dev_is_unplugged(&tdev->drm))
				return -ENODEV;
		}
	}
	if (latency)
		wait_event_timeout(tdev->gone,
				   drm_dev_is_unplugged(&tdev->drm) || READ_ONCE(queue->closing),
				   usecs_to_jiffies(latency));
	return 0;
}

static void tidemark_job_cleanup(struct work_struct *work)
{
	tidemark_job_free(container_of(work, struct tidemark_job, work));
}

static void tidemark_job_work(struct work_struct *work)
{
	struct tidemark_job *job = container_of(work, struct tidemark_job, work);
	struct tidemark_queue *queue = job->queue;
	int ret = tidemark_job_wait(job), idx;
	ktime_t start = ktime_get();
	size_t i;

	if (!ret && drm_dev_enter(&queue->tdev->drm, &idx)) {
		for (i = 0; i < job->segment_count; i++)
			tidemark_segment_run(&job->segments[i], job->to_user);
		drm_dev_exit(idx);
	} else if (!ret) {
		ret = -ENODEV;
	}
	atomic64_add(ktime_to_ns(ktime_sub(ktime_get(), start)), &queue->busy_ns);
	if (ret)
		dma_fence_set_error(job->fence, ret);
	dma_fence_signal(job->fence);

	if (job->move) {
		for (i = 0; i < job->segment_count; i++)
			__free_page(job->segments[i].src);
		tidemark_heap_release(queue->tdev, job->heap);
	}
	/*
	 * The last reference to a user object waits for whoever takes pages of
	 * its process away, who may wait for the next job here.
	 */
	INIT_WORK(&job->work, tidemark_job_cleanup);
	queue_work(tidemark_cleanup, &job->work);
}

/**
 * tidemark_job_new - a job, to be filled and queued, or freed
 * @queue: where it will run
 * @segments: room for so many
 */
struct tidemark_job *tidemark_job_new(struct tidemark_queue *queue, size_t segments)
{
	struct tidemark_job *job = kzalloc(sizeof(*job), GFP_KERNEL);
	struct tidemark_fence *fence = kzalloc(sizeof(*fence), GFP_KERNEL);

	if (!job || !fence) {
		kfree(fence);
		kfree(job);
		return NULL;
	}
	spin_lock_init(&fence->lock);
	job->fence = &fence->base;
	job->queue = queue;
	INIT_WORK(&job->work, tidemark_job_work);
	xa_init_flags(&job->waits, XA_FLAGS_ALLOC);
	job->segments = kvcalloc(segments, sizeof(*job->segments), GFP_KERNEL);
	if (!job->segments) {
		tidemark_job_free(job);
		return NULL;
	}
	return job;
}

/* Takes the reference to the fence, in any case. */
int tidemark_job_wait_for(struct tidemark_job *job, struct dma_fence *fence)
{
	u32 index;
	int ret = xa_alloc(&job->waits, &index, fence, xa_limit_32b, GFP_KERNEL);

	if (ret)
		dma_fence_put(fence);
	return ret;
}

/* The object's reservation is held. */
int tidemark_job_wait_for_object(struct tidemark_job *job, struct drm_gem_object *gem,
				 enum dma_resv_usage usage)
{
	struct dma_resv_iter cursor;
	struct dma_fence *fence;

	dma_resv_for_each_fence(&cursor, gem->resv, usage, fence) {
		int ret = tidemark_job_wait_for(job, dma_fence_get(fence));

		if (ret)
			return ret;
	}
	return 0;
}

/* Numbers the fence. Nothing may fail from here to tidemark_job_queue(). */
void tidemark_job_arm(struct tidemark_job *job)
{
	struct tidemark_queue *queue = job->queue;
	struct tidemark_fence *fence = container_of(job->fence, struct tidemark_fence, base);

	mutex_lock(&queue->lock);
	job->armed = true;
	dma_fence_init(&fence->base, &tidemark_fence_ops, &fence->lock, queue->context,
		       ++queue->seqno);
}

/* The job is the queue's from now on. */
void tidemark_job_queue(struct tidemark_job *job)
{
	struct tidemark_queue *queue = job->queue;

	queue_work(queue->wq, &job->work);
	mutex_unlock(&queue->lock);
}

/* Also of a job that was never armed. */
void tidemark_job_free(struct tidemark_job *job)
{
	struct dma_fence *fence;
	unsigned long index;
	size_t i;

	xa_for_each(&job->waits, index, fence)
		dma_fence_put(fence);
	xa_destroy(&job->waits);
	for (i = 0; i < ARRAY_SIZE(job->objects); i++) {
		if (job->objects[i])
			drm_gem_object_put(job->objects[i]);
	}
	if (job->armed)
		dma_fence_put(job->fence);
	else
		kfree(job->fence);
	kvfree(job->segments);
	kfree(job);
}
