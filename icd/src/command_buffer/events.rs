//! Commands that work on events: whether a batch waits for the host tells whether it may be given to its queue.

use super::record;
use crate::submission::array;
use ash::vk;
use tidemark_winsys::RwLockExt;

/// vkCmdSetEvent. Of an event that is set by vkCmdSetEvent2, its wait tells that it is not the host's.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn set(commands: vk::CommandBuffer, event: vk::Event, stages: vk::PipelineStageFlags) {
    // SAFETY: a live command buffer; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdSetEvent,
            |coherence, _| {
                coherence.set_by_device.exclusive().insert(event);
            },
            |set| set(commands, event, stages),
        );
    }
}

/// vkCmdWaitEvents.
///
/// # Safety
/// As the specification demands.
#[expect(clippy::too_many_arguments, reason = "as many as the specification says")]
pub(crate) unsafe fn wait(
    commands: vk::CommandBuffer,
    count: u32,
    events: *const vk::Event,
    from: vk::PipelineStageFlags,
    to: vk::PipelineStageFlags,
    memory_count: u32,
    memories: *const vk::MemoryBarrier<'_>,
    buffer_count: u32,
    buffers: *const vk::BufferMemoryBarrier<'_>,
    image_count: u32,
    images: *const vk::ImageMemoryBarrier<'_>,
) {
    // SAFETY: a live command buffer and a valid array; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdWaitEvents,
            |_, references| {
                if from.contains(vk::PipelineStageFlags::HOST) {
                    array(events, count).iter().for_each(|event| references.add_host_event(*event));
                }
            },
            |wait| {
                wait(
                    commands,
                    count,
                    events,
                    from,
                    to,
                    memory_count,
                    memories,
                    buffer_count,
                    buffers,
                    image_count,
                    images,
                );
            },
        );
    }
}

/// vkCmdWaitEvents2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn wait2(
    commands: vk::CommandBuffer,
    count: u32,
    events: *const vk::Event,
    dependencies: *const vk::DependencyInfo<'_>,
) {
    // SAFETY: a live command buffer and valid arrays; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdWaitEvents2,
            |_, references| {
                for (event, dependency) in array(events, count).iter().zip(array(dependencies, count)) {
                    if waits_for_host(dependency) {
                        references.add_host_event(*event);
                    }
                }
            },
            |wait| wait(commands, count, events, dependencies),
        );
    }
}

/// Whether a dependency has the host among what comes first.
///
/// # Safety
/// A valid structure with its arrays.
unsafe fn waits_for_host(dependency: &vk::DependencyInfo<'_>) -> bool {
    let is_host = |stages: vk::PipelineStageFlags2| stages.contains(vk::PipelineStageFlags2::HOST);
    // SAFETY: the caller's promise.
    unsafe {
        let memories = array(dependency.p_memory_barriers, dependency.memory_barrier_count);
        let buffers = array(dependency.p_buffer_memory_barriers, dependency.buffer_memory_barrier_count);
        let images = array(dependency.p_image_memory_barriers, dependency.image_memory_barrier_count);
        memories.iter().any(|barrier| is_host(barrier.src_stage_mask))
            || buffers.iter().any(|barrier| is_host(barrier.src_stage_mask))
            || images.iter().any(|barrier| is_host(barrier.src_stage_mask))
    }
}
