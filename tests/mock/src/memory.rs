//! VkDeviceMemory: allocation, mapping, flushing. Lavapipe's memory is the device's; [`Mapping`] is what the host sees.

use crate::device::{DEVICES, Device};
use crate::mapping::Mapping;
use crate::misuse::misuse;
use ash::vk::{self, MemoryPropertyFlags as Flags};
use std::ffi::c_void;
use std::ops::Range;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The variable that tells how many allocations there can be at a time.
const ROOM: &str = "TIDEMARK_MOCK_ROOM";

/// An allocation.
pub(crate) struct Memory {
    size: u64,
    flags: Flags,
    mapping: Mutex<Option<Mapping>>,
}

impl Memory {
    fn mapping(&self) -> MutexGuard<'_, Option<Mapping>> {
        self.mapping.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of a device; without one, its handle is wrong.
fn device(handle: vk::Device) -> Arc<Device> {
    DEVICES.get(handle).unwrap_or_else(|| misuse(format_args!("{handle:?} is no device")))
}

impl Device {
    fn memory(&self, handle: vk::DeviceMemory) -> Arc<Memory> {
        self.memories.get(handle).unwrap_or_else(|| misuse(format_args!("{handle:?} is no memory")))
    }
}

/// vkAllocateMemory.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn allocate(
    handle: vk::Device,
    info: *const vk::MemoryAllocateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    memory: *mut vk::DeviceMemory,
) -> vk::Result {
    let device = device(handle);
    let Some(allocate) = device.next.vkAllocateMemory else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: a valid allocate info. Only its own fields are copied: the chain stays the application's.
    let mut info = unsafe { *info };
    let Some(flags) = device.shape.flags(info.memory_type_index) else {
        misuse(format_args!("there is no memory type {}", info.memory_type_index))
    };
    let room = std::env::var(ROOM).ok().and_then(|room| room.parse().ok());
    if room.is_some_and(|room: usize| device.memories.len() >= room) {
        return vk::Result::ERROR_TOO_MANY_OBJECTS;
    }
    // Lavapipe has no other.
    info.memory_type_index = 0;
    // SAFETY: the arguments are passed on, but for the type's index. The command stores a handle if it succeeds.
    unsafe {
        let result = allocate(handle, &raw const info, allocator, memory);
        if result == vk::Result::SUCCESS {
            let state = Memory { size: info.allocation_size, flags, mapping: Mutex::new(None) };
            device.memories.insert(*memory, state);
        }
        result
    }
}

/// vkFreeMemory, which also unmaps.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn free(
    handle: vk::Device,
    memory: vk::DeviceMemory,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    let device = device(handle);
    if memory == vk::DeviceMemory::null() {
        return;
    }
    if device.memories.remove(memory).is_none() {
        misuse(format_args!("{memory:?} is freed, but no memory"));
    }
    if let Some(free) = device.next.vkFreeMemory {
        // SAFETY: the arguments are passed on as they came.
        unsafe { free(handle, memory, allocator) }
    }
}

/// vkMapMemory.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn map(
    handle: vk::Device,
    memory: vk::DeviceMemory,
    offset: vk::DeviceSize,
    size: vk::DeviceSize,
    flags: vk::MemoryMapFlags,
    data: *mut *mut c_void,
) -> vk::Result {
    let device = device(handle);
    let state = device.memory(memory);
    if !device.shape.is_host_visible() {
        // Every device of Vulkan has memory that can be mapped. Whoever drives this one may find out by trying.
        return vk::Result::ERROR_MEMORY_MAP_FAILED;
    }
    if !state.flags.contains(Flags::HOST_VISIBLE) {
        misuse(format_args!("{memory:?} is mapped, but not host-visible"));
    }
    let mut mapping = state.mapping();
    if mapping.is_some() {
        misuse(format_args!("{memory:?} is mapped a second time"));
    }
    let Some(range) = mapped_range(offset, size, state.size) else {
        misuse(format_args!("{memory:?} of {} bytes is mapped at {offset}, {size} bytes", state.size))
    };
    let Some(map) = device.next.vkMapMemory else { return vk::Result::ERROR_MEMORY_MAP_FAILED };
    let mut address = std::ptr::null_mut();
    // SAFETY: a memory of lavapipe, which lets the host see all of it, and not mapped.
    let result = unsafe { map(handle, memory, 0, vk::WHOLE_SIZE, flags, &raw mut address) };
    if result != vk::Result::SUCCESS {
        return result;
    }
    // SAFETY: lavapipe maps the memory until it is unmapped or freed, and so does the mapping.
    *mapping = unsafe { Mapping::new(address.cast(), range, state.flags.contains(Flags::HOST_COHERENT)) };
    match mapping.as_ref() {
        Some(mapping) => {
            device.counters.maps.fetch_add(1, Ordering::Relaxed);
            // SAFETY: `data` is valid for writes.
            unsafe { *data = mapping.address().cast() };
            vk::Result::SUCCESS
        }
        None => {
            if let Some(unmap) = device.next.vkUnmapMemory {
                // SAFETY: mapped above.
                unsafe { unmap(handle, memory) }
            }
            vk::Result::ERROR_MEMORY_MAP_FAILED
        }
    }
}

/// What vkMapMemory maps of a memory of `len` bytes; `None` if that is not allowed.
fn mapped_range(offset: u64, size: u64, len: u64) -> Option<Range<usize>> {
    let end = if size == vk::WHOLE_SIZE { len } else { offset.checked_add(size)? };
    let range = usize::try_from(offset).ok()?..usize::try_from(end).ok()?;
    (!range.is_empty() && end <= len).then_some(range)
}

/// vkMapMemory2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn map2(
    device: vk::Device,
    info: *const vk::MemoryMapInfoKHR<'_>,
    data: *mut *mut c_void,
) -> vk::Result {
    // SAFETY: a valid map info, whose fields are vkMapMemory's arguments.
    unsafe {
        let info = &*info;
        map(device, info.memory, info.offset, info.size, info.flags, data)
    }
}

/// vkUnmapMemory. What was not flushed is lost.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn unmap(handle: vk::Device, memory: vk::DeviceMemory) {
    let device = device(handle);
    if device.memory(memory).mapping().take().is_none() {
        misuse(format_args!("{memory:?} is unmapped, but not mapped"));
    }
    if let Some(unmap) = device.next.vkUnmapMemory {
        // SAFETY: mapped by `map`.
        unsafe { unmap(handle, memory) }
    }
}

/// vkUnmapMemory2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn unmap2(device: vk::Device, info: *const vk::MemoryUnmapInfoKHR<'_>) -> vk::Result {
    // SAFETY: a valid unmap info.
    unsafe { unmap(device, (*info).memory) };
    vk::Result::SUCCESS
}

/// vkFlushMappedMemoryRanges.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn flush(
    handle: vk::Device,
    count: u32,
    ranges: *const vk::MappedMemoryRange<'_>,
) -> vk::Result {
    let device = device(handle);
    // SAFETY: the arguments are passed on as they came.
    unsafe { for_each_range(&device, count, ranges, Mapping::flush, &device.counters.flushed) }
}

/// vkInvalidateMappedMemoryRanges.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn invalidate(
    handle: vk::Device,
    count: u32,
    ranges: *const vk::MappedMemoryRange<'_>,
) -> vk::Result {
    let device = device(handle);
    // SAFETY: the arguments are passed on as they came.
    unsafe { for_each_range(&device, count, ranges, Mapping::invalidate, &device.counters.invalidated) }
}

/// Has `join` copy each range, and counts the bytes.
///
/// # Safety
/// `ranges` must be valid for `count` elements.
unsafe fn for_each_range(
    device: &Device,
    count: u32,
    ranges: *const vk::MappedMemoryRange<'_>,
    join: fn(&Mapping, &Range<usize>) -> usize,
    counter: &AtomicU64,
) -> vk::Result {
    if count == 0 {
        misuse(format_args!("no ranges are flushed or invalidated"));
    }
    // SAFETY: the caller's promise.
    for range in unsafe { slice::from_raw_parts(ranges, count as usize) } {
        let vk::MappedMemoryRange { memory, offset, size, .. } = *range;
        let state = device.memory(memory);
        let mapping = state.mapping();
        let Some(mapping) = mapping.as_ref() else {
            misuse(format_args!("{memory:?} is flushed or invalidated, but not mapped"))
        };
        match mapping.checked(offset, size, state.size) {
            Ok(range) => counter.fetch_add(join(mapping, &range) as u64, Ordering::Relaxed),
            Err(rule) => misuse(format_args!(
                "{memory:?} of {} bytes is flushed or invalidated at {offset}, {size} bytes: {rule}",
                state.size
            )),
        };
    }
    vk::Result::SUCCESS
}
