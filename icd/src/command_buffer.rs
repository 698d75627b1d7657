//! VkCommandBuffer: recording what a batch will use.
//!
//! Only commands that name buffers are intercepted. State that draws and dispatches depend on is noted when it is
//! bound, so these themselves stay the backing driver's own.

pub(crate) mod copies;
pub(crate) mod descriptors;
pub(crate) mod draws;
pub(crate) mod events;

use crate::coherence::Coherence;
use crate::device::Device;
use crate::entry::coherence::Fns;
use crate::references::References;
use crate::tables::{COMMAND_BUFFERS, DEVICES};
use ash::vk::{self, Handle};
use std::slice;
use std::sync::{Arc, Mutex};
use tidemark_winsys::LockExt;

/// A command buffer.
pub(crate) struct CommandBuffer {
    device: Arc<Device>,
    pool: u64,
    /// What the recorded commands refer to.
    pub(crate) references: Mutex<References>,
}

/// Notes by `note` what a command refers to, then passes the command on by `call`.
///
/// # Safety
/// The command buffer must be live.
unsafe fn record<F>(
    commands: vk::CommandBuffer,
    next: impl FnOnce(&Fns) -> Option<F>,
    note: impl FnOnce(&Coherence, &mut References),
    call: impl FnOnce(F),
) {
    // SAFETY: the caller's promise.
    let Some(state) = (unsafe { COMMAND_BUFFERS.find(commands) }) else { return };
    if let Some(coherence) = &state.device.coherence {
        note(coherence, &mut state.references.hold());
    }
    if let Some(next) = next(&state.device.next) {
        call(next);
    }
}

/// vkAllocateCommandBuffers.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn allocate(
    device: vk::Device,
    info: *const vk::CommandBufferAllocateInfo<'_>,
    commands: *mut vk::CommandBuffer,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(allocate) = state.next.vkAllocateCommandBuffers else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { allocate(device, info, commands) };
    if result == vk::Result::SUCCESS {
        // SAFETY: a valid info; the command stored as many handles.
        let (pool, commands) = unsafe {
            let info = &*info;
            (info.command_pool, slice::from_raw_parts(commands, info.command_buffer_count as usize))
        };
        for &handle in commands {
            let references = Mutex::default();
            let new = CommandBuffer { device: state.clone(), pool: pool.as_raw(), references };
            COMMAND_BUFFERS.insert(handle, Arc::new(new));
        }
    }
    result
}

/// vkFreeCommandBuffers.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn free(
    device: vk::Device,
    pool: vk::CommandPool,
    count: u32,
    commands: *const vk::CommandBuffer,
) {
    let Some(state) = DEVICES.get(device) else { return };
    for index in 0..count as usize {
        // SAFETY: one of the caller's `count` handles.
        COMMAND_BUFFERS.remove(unsafe { *commands.add(index) });
    }
    if let Some(free) = state.next.vkFreeCommandBuffers {
        // SAFETY: the arguments are passed on as they came.
        unsafe { free(device, pool, count, commands) }
    }
}

/// vkDestroyCommandPool, which frees its command buffers.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn destroy_pool(
    device: vk::Device,
    pool: vk::CommandPool,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    let Some(state) = DEVICES.get(device) else { return };
    let freed =
        COMMAND_BUFFERS.retain(|commands| commands.device.handle != device || commands.pool != pool.as_raw());
    if freed > 0 {
        log::debug!("{pool:?}: destroyed with {freed} command buffers");
    }
    if let Some(destroy) = state.next.vkDestroyCommandPool {
        // SAFETY: the arguments are passed on as they came.
        unsafe { destroy(device, pool, allocator) }
    }
}

/// Forgets the command buffers of a device that is destroyed. Returns how many there were.
pub(crate) fn forget_all(device: vk::Device) -> usize {
    COMMAND_BUFFERS.retain(|commands| commands.device.handle != device)
}

/// vkBeginCommandBuffer, which forgets what was recorded before.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn begin(
    commands: vk::CommandBuffer,
    info: *const vk::CommandBufferBeginInfo<'_>,
) -> vk::Result {
    // SAFETY: a live command buffer.
    let Some(state) = (unsafe { COMMAND_BUFFERS.find(commands) }) else {
        return vk::Result::ERROR_DEVICE_LOST;
    };
    let Some(begin) = state.device.next.vkBeginCommandBuffer else { return vk::Result::ERROR_DEVICE_LOST };
    state.references.hold().clear();
    // SAFETY: the arguments are passed on as they came.
    unsafe { begin(commands, info) }
}

/// vkCmdExecuteCommands.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn execute(commands: vk::CommandBuffer, count: u32, secondaries: *const vk::CommandBuffer) {
    // SAFETY: live command buffers; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdExecuteCommands,
            |_, references| {
                for index in 0..count as usize {
                    references.add_executed(COMMAND_BUFFERS.get(*secondaries.add(index)));
                }
            },
            |execute| execute(commands, count, secondaries),
        );
    }
}
