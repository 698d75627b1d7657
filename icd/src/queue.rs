//! VkQueue: submission, presentation, and idling. Each flushes before the device may start.

use crate::device::Device;
use crate::tables::QUEUES;
use ash::vk;
use std::sync::Arc;

/// The device of a queue. Applications get queues only through commands that remember them.
fn device_of(queue: vk::Queue) -> Result<Arc<Device>, vk::Result> {
    QUEUES.get(queue).ok_or(vk::Result::ERROR_DEVICE_LOST)
}

/// Flushes, then lets `command` submit.
fn submit_by<F>(
    queue: vk::Queue,
    command: impl FnOnce(&Device) -> Option<F>,
    call: impl FnOnce(F) -> vk::Result,
) -> vk::Result {
    let device = match device_of(queue) {
        Ok(device) => device,
        Err(error) => return error,
    };
    let Some(command) = command(&device) else { return vk::Result::ERROR_DEVICE_LOST };
    device.before_submit();
    call(command)
}

/// vkQueueSubmit.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn submit(
    queue: vk::Queue,
    count: u32,
    submits: *const vk::SubmitInfo<'_>,
    fence: vk::Fence,
) -> vk::Result {
    // SAFETY: the arguments are passed on as they came.
    submit_by(
        queue,
        |device| device.next.vkQueueSubmit,
        |submit| unsafe { submit(queue, count, submits, fence) },
    )
}

/// vkQueueSubmit2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn submit2(
    queue: vk::Queue,
    count: u32,
    submits: *const vk::SubmitInfo2<'_>,
    fence: vk::Fence,
) -> vk::Result {
    // SAFETY: the arguments are passed on as they came.
    submit_by(
        queue,
        |device| device.next.vkQueueSubmit2,
        |submit| unsafe { submit(queue, count, submits, fence) },
    )
}

/// vkQueueBindSparse.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn bind_sparse(
    queue: vk::Queue,
    count: u32,
    binds: *const vk::BindSparseInfo<'_>,
    fence: vk::Fence,
) -> vk::Result {
    // SAFETY: the arguments are passed on as they came.
    submit_by(
        queue,
        |device| device.next.vkQueueBindSparse,
        |bind| unsafe { bind(queue, count, binds, fence) },
    )
}

/// vkQueuePresentKHR.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn present(queue: vk::Queue, info: *const vk::PresentInfoKHR<'_>) -> vk::Result {
    // SAFETY: the arguments are passed on as they came.
    submit_by(queue, |device| device.next.vkQueuePresentKHR, |present| unsafe { present(queue, info) })
}

/// vkQueueWaitIdle.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn wait_idle(queue: vk::Queue) -> vk::Result {
    let device = match device_of(queue) {
        Ok(device) => device,
        Err(error) => return error,
    };
    let Some(wait) = device.next.vkQueueWaitIdle else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { wait(queue) };
    device.after_wait(result)
}
