//! VkBuffer and VkBufferView: which memory a resource's bytes lie in.

use crate::chain::{self, Chain};
use crate::coherence::Coherence;
use crate::device::Device;
use crate::host_pointer;
use crate::memory::Memory;
use crate::tables::DEVICES;
use ash::vk::{self, BufferUsageFlags as Usage, Handle};
use std::ops::Range;
use std::slice;
use std::sync::{Arc, OnceLock};
use tidemark_winsys::RwLockExt;

/// Uses of a buffer that only commands and descriptors lead to, by the buffer's handle. Any other lets shaders reach
/// the buffer by its address, or by ways nobody here knows of.
const BY_HANDLE: Usage = Usage::from_raw(
    Usage::TRANSFER_SRC.as_raw()
        | Usage::TRANSFER_DST.as_raw()
        | Usage::UNIFORM_TEXEL_BUFFER.as_raw()
        | Usage::STORAGE_TEXEL_BUFFER.as_raw()
        | Usage::UNIFORM_BUFFER.as_raw()
        | Usage::STORAGE_BUFFER.as_raw()
        | Usage::INDEX_BUFFER.as_raw()
        | Usage::VERTEX_BUFFER.as_raw()
        | Usage::INDIRECT_BUFFER.as_raw()
        | Usage::TRANSFORM_FEEDBACK_BUFFER_EXT.as_raw()
        | Usage::TRANSFORM_FEEDBACK_COUNTER_BUFFER_EXT.as_raw()
        | Usage::CONDITIONAL_RENDERING_EXT.as_raw(),
);

/// A buffer.
pub(crate) struct Buffer {
    size: u64,
    is_reached_by_handle_only: bool,
    /// The emulated memory it is bound to and the offset there, or that it is bound to other memory. Sparse buffers
    /// never get here: the memory bound to them is reachable as a whole.
    binding: OnceLock<Option<(Arc<Memory>, u64)>>,
}

impl Buffer {
    /// Where `size` bytes (VK_WHOLE_SIZE for the rest) from `offset` on lie, if in emulated memory.
    pub(crate) fn place(&self, offset: u64, size: u64) -> Option<(&Arc<Memory>, Range<u64>)> {
        let (memory, base) = self.binding.get()?.as_ref()?;
        let start = offset.min(self.size);
        let end = if size == vk::WHOLE_SIZE { self.size } else { start.saturating_add(size).min(self.size) };
        Some((memory, base + start..base + end))
    }

    /// Whether it is bound to memory that is not emulated, and so of no interest.
    pub(crate) fn is_elsewhere(&self) -> bool {
        matches!(self.binding.get(), Some(None))
    }

    fn bind(&self, coherence: &Coherence, memory: vk::DeviceMemory, offset: u64) {
        let memory = coherence.memories.shared().get(&memory.as_raw()).cloned();
        if let Some(memory) = &memory
            && !self.is_reached_by_handle_only
        {
            coherence.make_reachable(memory);
        }
        let _ = self.binding.set(memory.map(|memory| (memory, offset)));
    }
}

/// A texel buffer's view.
pub(crate) struct BufferView {
    pub(crate) buffer: Arc<Buffer>,
    pub(crate) offset: u64,
    pub(crate) range: u64,
}

/// vkCreateBuffer.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn create(
    device: vk::Device,
    info: *const vk::BufferCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    buffer: *mut vk::Buffer,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(create) = state.next.vkCreateBuffer else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: a valid create info. Only its own fields are copied.
    let mut info = unsafe { *info };
    // SAFETY: a valid chain.
    let chain = unsafe { host_pointer::buffer_chain(info.p_next) };
    info.p_next = chain.as_ref().map_or(info.p_next, Chain::head);
    // SAFETY: the arguments are passed on as they came, but for handle types of host memory.
    let result = unsafe { create(device, &raw const info, allocator, buffer) };
    if let (vk::Result::SUCCESS, Some(coherence)) = (result, &state.coherence) {
        // SAFETY: a valid chain, only read.
        let usage2 = unsafe { chain::find_input::<vk::BufferUsageFlags2CreateInfoKHR<'_>>(info.p_next) };
        // The low half of the 64 bits has the meaning of the 32.
        let usage = usage2.map_or(u64::from(info.usage.as_raw()), |usage2| usage2.usage.as_raw());
        let state = Buffer {
            size: info.size,
            is_reached_by_handle_only: usage & !u64::from(BY_HANDLE.as_raw()) == 0,
            binding: OnceLock::new(),
        };
        // SAFETY: the command succeeded, so it stored a handle.
        coherence.buffers.exclusive().insert(unsafe { *buffer }.as_raw(), Arc::new(state));
    }
    result
}

/// vkDestroyBuffer.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn destroy(
    device: vk::Device,
    buffer: vk::Buffer,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    let Some(state) = DEVICES.get(device) else { return };
    if let Some(coherence) = &state.coherence {
        coherence.buffers.exclusive().remove(&buffer.as_raw());
    }
    if let Some(destroy) = state.next.vkDestroyBuffer {
        // SAFETY: the arguments are passed on as they came.
        unsafe { destroy(device, buffer, allocator) }
    }
}

fn bound(device: &Device, buffer: vk::Buffer, memory: vk::DeviceMemory, offset: u64) {
    if let Some(coherence) = &device.coherence
        && let Some(buffer) = coherence.buffer(buffer)
    {
        buffer.bind(coherence, memory, offset);
    }
}

/// vkBindBufferMemory.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn bind(
    device: vk::Device,
    buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    offset: vk::DeviceSize,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(bind) = state.next.vkBindBufferMemory else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { bind(device, buffer, memory, offset) };
    if result == vk::Result::SUCCESS {
        bound(&state, buffer, memory, offset);
    }
    result
}

/// vkBindBufferMemory2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn bind2(
    device: vk::Device,
    count: u32,
    infos: *const vk::BindBufferMemoryInfo<'_>,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(bind) = state.next.vkBindBufferMemory2 else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { bind(device, count, infos) };
    // On failure some of them may be bound all the same: too many cost nothing but time.
    // SAFETY: valid for `count` elements, of which there is at least one.
    for info in unsafe { slice::from_raw_parts(infos, count as usize) } {
        bound(&state, info.buffer, info.memory, info.memory_offset);
    }
    result
}

/// vkCreateBufferView.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn create_view(
    device: vk::Device,
    info: *const vk::BufferViewCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    view: *mut vk::BufferView,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(create) = state.next.vkCreateBufferView else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { create(device, info, allocator, view) };
    if let (vk::Result::SUCCESS, Some(coherence)) = (result, &state.coherence) {
        // SAFETY: a valid create info.
        let info = unsafe { &*info };
        if let Some(buffer) = coherence.buffer(info.buffer) {
            let state = BufferView { buffer, offset: info.offset, range: info.range };
            // SAFETY: the command succeeded, so it stored a handle.
            coherence.buffer_views.exclusive().insert(unsafe { *view }.as_raw(), Arc::new(state));
        }
    }
    result
}

/// vkDestroyBufferView.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn destroy_view(
    device: vk::Device,
    view: vk::BufferView,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    let Some(state) = DEVICES.get(device) else { return };
    if let Some(coherence) = &state.coherence {
        coherence.buffer_views.exclusive().remove(&view.as_raw());
    }
    if let Some(destroy) = state.next.vkDestroyBufferView {
        // SAFETY: the arguments are passed on as they came.
        unsafe { destroy(device, view, allocator) }
    }
}
