//! VkDeviceMemory: allocation, mapping, and the application's own flushes.

use crate::aperture::Aperture;
use crate::coherence::{Coherence, measured, profile};
use crate::device::Device;
use crate::memory_types::Kind;
use crate::tables::DEVICES;
use ash::vk::{self, Handle};
use std::ffi::c_void;
use std::ops::Range;
use std::slice;
use std::sync::{Arc, OnceLock};
use tidemark_winsys::telemetry::Counter;
use tidemark_winsys::{Mirror, RwLockExt};

/// An allocation of an emulated type.
pub(crate) struct Memory {
    pub(crate) handle: vk::DeviceMemory,
    /// Bytes.
    size: usize,
    backing_is_coherent: bool,
    /// From the first mapping on. The mirror comes first: it must end before the aperture it works through.
    mirror: OnceLock<(Mirror, Aperture)>,
}

impl Memory {
    pub(crate) fn len(&self) -> usize {
        self.size
    }

    /// The mirror, if the memory was ever mapped.
    pub(crate) fn mirror(&self) -> Option<&(Mirror, Aperture)> {
        self.mirror.get()
    }

    /// The mirror, made now if need be. Calls for one memory must not race (the specification has vkMapMemory
    /// externally synchronised).
    fn mirror_or_new(&self, device: &Device, coherence: &Coherence) -> Result<&Mirror, vk::Result> {
        if self.mirror.get().is_none() {
            let aperture = Aperture::new(device, self.handle, self.size, self.backing_is_coherent)?;
            aperture.invalidate(device, 0..self.size)?;
            // SAFETY: the aperture covers `size` bytes and outlives the mirror; see the field.
            let mirror = unsafe { Mirror::new(&coherence.arena, aperture.address, self.size) };
            let mirror = mirror.map_err(|error| {
                log::error!("vkMapMemory: no host memory for {} bytes: {error}", self.size);
                vk::Result::ERROR_MEMORY_MAP_FAILED
            })?;
            let _ = self.mirror.set((mirror, aperture));
        }
        self.mirror.get().map(|(mirror, _)| mirror).ok_or(vk::Result::ERROR_UNKNOWN)
    }

    /// Offset and size of a Vulkan call, as a range.
    fn range(&self, offset: u64, size: u64) -> Range<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.size);
        let end = if size == vk::WHOLE_SIZE {
            self.size
        } else {
            start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX)).min(self.size)
        };
        start..end
    }
}

/// vkAllocateMemory.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn allocate(
    device: vk::Device,
    info: *const vk::MemoryAllocateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    memory: *mut vk::DeviceMemory,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(allocate) = state.next.vkAllocateMemory else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: a valid allocate info. Only its own fields are copied: the chain stays the application's.
    let mut info = unsafe { *info };
    let Some(memory_type) = state.physical.memory.types.get(info.memory_type_index as usize) else {
        log::error!("vkAllocateMemory: there is no memory type {}", info.memory_type_index);
        return vk::Result::ERROR_UNKNOWN;
    };
    info.memory_type_index = memory_type.backing;
    // SAFETY: the arguments are passed on, but for the type's index.
    let result = unsafe { allocate(device, &raw const info, allocator, memory) };
    let (vk::Result::SUCCESS, Kind::Emulated { backing_is_coherent }, Some(coherence)) =
        (result, memory_type.kind, &state.coherence)
    else {
        return result;
    };
    // SAFETY: the command succeeded, so it stored a handle.
    let handle = unsafe { *memory };
    let emulated = Memory {
        handle,
        size: usize::try_from(info.allocation_size).unwrap_or(usize::MAX),
        backing_is_coherent,
        mirror: OnceLock::new(),
    };
    profile().add(Counter::Allocations, 1);
    profile().add(Counter::AllocatedBytes, info.allocation_size);
    log::debug!("{handle:?}: {} bytes of {:?}", info.allocation_size, memory_type.flags);
    coherence.memories.exclusive().insert(handle.as_raw(), Arc::new(emulated));
    result
}

/// vkFreeMemory, which also unmaps.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn free(
    device: vk::Device,
    memory: vk::DeviceMemory,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    let Some(state) = DEVICES.get(device) else { return };
    if let Some(coherence) = &state.coherence {
        // Locking `mapped` waits for flushes and readbacks in progress: they must not find the memory gone.
        coherence.mapped.exclusive().remove(&memory.as_raw());
        coherence.memories.exclusive().remove(&memory.as_raw());
    }
    if let Some(free) = state.next.vkFreeMemory {
        // SAFETY: the arguments are passed on as they came.
        unsafe { free(device, memory, allocator) }
    }
}

/// vkMapMemory.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn map(
    device: vk::Device,
    memory: vk::DeviceMemory,
    offset: vk::DeviceSize,
    size: vk::DeviceSize,
    flags: vk::MemoryMapFlags,
    data: *mut *mut c_void,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    match map_emulated(&state, memory, offset) {
        // SAFETY: `data` is valid for writes.
        Some(Ok(address)) => unsafe {
            *data = address;
            vk::Result::SUCCESS
        },
        Some(Err(error)) => error,
        None => match state.next.vkMapMemory {
            // SAFETY: the arguments are passed on as they came.
            Some(map) => unsafe { map(device, memory, offset, size, flags, data) },
            None => vk::Result::ERROR_MEMORY_MAP_FAILED,
        },
    }
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
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: a valid map info.
    let (memory, offset) = unsafe { ((*info).memory, (*info).offset) };
    match map_emulated(&state, memory, offset) {
        // SAFETY: `data` is valid for writes.
        Some(Ok(address)) => unsafe {
            *data = address;
            vk::Result::SUCCESS
        },
        Some(Err(error)) => error,
        None => match state.next.vkMapMemory2 {
            // SAFETY: the arguments are passed on as they came.
            Some(map) => unsafe { map(device, info, data) },
            None => vk::Result::ERROR_MEMORY_MAP_FAILED,
        },
    }
}

/// Maps a memory of an emulated type and brings its view up to date; `None` if it is of another type.
fn map_emulated(
    device: &Device,
    memory: vk::DeviceMemory,
    offset: vk::DeviceSize,
) -> Option<Result<*mut c_void, vk::Result>> {
    let coherence = device.coherence.as_ref()?;
    let emulated = coherence.memories.shared().get(&memory.as_raw())?.clone();
    Some((|| {
        let is_new = emulated.mirror().is_none();
        let view = measured(Counter::ReadbackNanoseconds, || {
            let view = emulated.mirror_or_new(device, coherence)?.view();
            // What the device wrote while nobody had it mapped. A new mirror has just read everything.
            if !is_new {
                device.readback(&emulated, 0..emulated.len());
            }
            Ok::<_, vk::Result>(view)
        })?;
        profile().add(Counter::Maps, 1);
        log::debug!("{memory:?}: mapped at {view:p}");
        coherence.mapped.exclusive().insert(memory.as_raw(), emulated.clone());
        let offset = usize::try_from(offset).map_err(|_| vk::Result::ERROR_MEMORY_MAP_FAILED)?;
        Ok(view.wrapping_add(offset).cast())
    })())
}

/// vkUnmapMemory.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn unmap(device: vk::Device, memory: vk::DeviceMemory) {
    let Some(state) = DEVICES.get(device) else { return };
    if !unmap_emulated(&state, memory)
        && let Some(unmap) = state.next.vkUnmapMemory
    {
        // SAFETY: the arguments are passed on as they came.
        unsafe { unmap(device, memory) }
    }
}

/// vkUnmapMemory2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn unmap2(device: vk::Device, info: *const vk::MemoryUnmapInfoKHR<'_>) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: a valid unmap info.
    if unmap_emulated(&state, unsafe { (*info).memory }) {
        return vk::Result::SUCCESS;
    }
    match state.next.vkUnmapMemory2 {
        // SAFETY: the arguments are passed on as they came.
        Some(unmap) => unsafe { unmap(device, info) },
        None => vk::Result::ERROR_MEMORY_MAP_FAILED,
    }
}

/// Flushes what was written last and unmaps; false if the memory is of a type that is not emulated.
///
/// The mirror stays, and so does the backing driver's mapping: applications that unmap tend to map again.
fn unmap_emulated(device: &Device, memory: vk::DeviceMemory) -> bool {
    let Some(coherence) = &device.coherence else { return false };
    let Some(emulated) = coherence.memories.shared().get(&memory.as_raw()).cloned() else { return false };
    measured(Counter::FlushNanoseconds, || device.flush(&emulated, 0..emulated.len()));
    coherence.mapped.exclusive().remove(&memory.as_raw());
    true
}

/// vkFlushMappedMemoryRanges.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn flush_ranges(
    device: vk::Device,
    count: u32,
    ranges: *const vk::MappedMemoryRange<'_>,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let next = state.next.vkFlushMappedMemoryRanges;
    let sync = |memory: &Memory, range| state.flush(memory, range);
    // SAFETY: the arguments are passed on as they came.
    measured(Counter::FlushNanoseconds, || unsafe { for_each_range(&state, count, ranges, next, sync) })
}

/// vkInvalidateMappedMemoryRanges.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn invalidate_ranges(
    device: vk::Device,
    count: u32,
    ranges: *const vk::MappedMemoryRange<'_>,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let next = state.next.vkInvalidateMappedMemoryRanges;
    let sync = |memory: &Memory, range| state.readback(memory, range);
    // SAFETY: the arguments are passed on as they came.
    measured(Counter::ReadbackNanoseconds, || unsafe { for_each_range(&state, count, ranges, next, sync) })
}

/// Calls `sync` for ranges of emulated memory, and the backing driver's command for the others.
///
/// # Safety
/// `ranges` must be valid for `count` elements, and the memories mapped.
unsafe fn for_each_range(
    device: &Device,
    count: u32,
    ranges: *const vk::MappedMemoryRange<'_>,
    next: Option<vk::PFN_vkFlushMappedMemoryRanges>,
    sync: impl Fn(&Memory, Range<usize>),
) -> vk::Result {
    if count == 0 {
        return vk::Result::SUCCESS;
    }
    // SAFETY: the caller's promise.
    for range in unsafe { slice::from_raw_parts(ranges, count as usize) } {
        let emulated = device
            .coherence
            .as_ref()
            .and_then(|coherence| coherence.memories.shared().get(&range.memory.as_raw()).cloned());
        if let Some(memory) = emulated {
            log::trace!(
                "{:?}: {}+{} synchronised by the application",
                range.memory,
                range.offset,
                range.size
            );
            sync(&memory, memory.range(range.offset, range.size));
            continue;
        }
        let Some(next) = next else { return vk::Result::ERROR_DEVICE_LOST };
        // SAFETY: one of the caller's ranges.
        let result = unsafe { next(device.handle, 1, range) };
        if result != vk::Result::SUCCESS {
            return result;
        }
    }
    vk::Result::SUCCESS
}
