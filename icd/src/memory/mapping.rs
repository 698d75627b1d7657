//! Mapped memory: maps, unmaps, and the application's own flushes.

use super::Memory;
use crate::coherence;
use crate::device::Device;
use crate::placed;
use crate::profile::{self, measured};
use crate::tables::DEVICES;
use ash::vk;
use std::ffi::c_void;
use std::ops::Range;
use std::slice;
use tidemark_winsys::telemetry::Counter;
use tidemark_winsys::{Leave, LockExt};

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
    match map_emulated(&state, memory, offset, None) {
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
    let (vk::MemoryMapInfoKHR { memory, offset, size, flags, .. }, address) =
        unsafe { (*info, placed::address(&*info)) };
    match map_emulated(&state, memory, offset, address.map(|address| (address, size))) {
        // SAFETY: `data` is valid for writes.
        Some(Ok(address)) => unsafe {
            *data = address;
            vk::Result::SUCCESS
        },
        Some(Err(error)) => error,
        None => match (state.next.vkMapMemory2, state.next.vkMapMemory) {
            // SAFETY: the arguments are passed on as they came.
            (Some(map), _) => unsafe { map(device, info, data) },
            // SAFETY: likewise; without the extension that Tidemark offers nothing else can be asked for.
            (None, Some(map)) => unsafe { map(device, memory, offset, size, flags, data) },
            (None, None) => vk::Result::ERROR_MEMORY_MAP_FAILED,
        },
    }
}

/// Maps a memory of an emulated type, in its own view or `size` bytes of it at an address, and brings that up to date;
/// `None` if it is of another type.
fn map_emulated(
    device: &Device,
    memory: vk::DeviceMemory,
    offset: vk::DeviceSize,
    place: Option<(*mut u8, vk::DeviceSize)>,
) -> Option<Result<*mut c_void, vk::Result>> {
    let coherence = device.coherence.as_ref()?;
    let emulated = coherence.memory(memory)?;
    Some(measured(Counter::ReadbackNanoseconds, || {
        let mirror = emulated.mirror_or_new(device, coherence)?;
        emulated.show_to_others();
        if let Some((address, size)) = place {
            let whole = emulated.len() as u64;
            let end = if size == vk::WHOLE_SIZE { whole } else { offset.saturating_add(size) };
            let range = coherence::in_bytes(offset..end);
            log::debug!("{memory:?}: {range:?} to be mapped at {address:p}, read back eagerly meanwhile");
            // SAFETY: the application gives the addresses away by this call, and has the memory mapped nowhere else.
            unsafe { mirror.place(address, range) }.map_err(|error| {
                log::error!(
                    "vkMapMemory2: {memory:?} cannot be mapped at {address:p} ({error}). Address, offset and size must be \
                     multiples of minPlacedMemoryMapAlignment, and the range inside the allocation"
                );
                vk::Result::ERROR_MEMORY_MAP_FAILED
            })?;
            emulated.state.hold().is_placed = true;
        }
        // A wait that Tidemark did not see may have come before, or a write by somebody else.
        if emulated.is_external {
            coherence::readback(&emulated, &*mirror, 0..emulated.len() as u64);
        } else {
            emulated.read_back_in_flight();
        }
        profile::count(Counter::Maps, 1);
        if let Some((address, _)) = place {
            return Ok(address.cast());
        }
        let view = mirror.view();
        log::debug!("{memory:?}: mapped at {view:p}");
        let offset = usize::try_from(offset).map_err(|_| vk::Result::ERROR_MEMORY_MAP_FAILED)?;
        Ok(view.wrapping_add(offset).cast())
    }))
}

/// vkUnmapMemory.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn unmap(device: vk::Device, memory: vk::DeviceMemory) {
    let Some(state) = DEVICES.get(device) else { return };
    if unmap_emulated(&state, memory, Leave::Nothing).is_none()
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
    let (memory, is_reserved) = unsafe { ((*info).memory, placed::is_reserved(&*info)) };
    let leave = if is_reserved { Leave::Reservation } else { Leave::Nothing };
    if let Some(result) = unmap_emulated(&state, memory, leave) {
        return result;
    }
    match (state.next.vkUnmapMemory2, state.next.vkUnmapMemory) {
        // SAFETY: the arguments are passed on as they came.
        (Some(unmap), _) => unsafe { unmap(device, info) },
        // SAFETY: likewise; without the extension that Tidemark offers nothing else can be asked for.
        (None, Some(unmap)) => unsafe {
            unmap(device, memory);
            vk::Result::SUCCESS
        },
        (None, None) => vk::Result::ERROR_MEMORY_MAP_FAILED,
    }
}

/// Unmaps a memory of an emulated type; `None` if it is of another type.
///
/// The mirror stays, and so do its own view and the backing driver's mapping: applications that unmap tend to map again.
/// What was written last is flushed when a batch uses it, as ever.
fn unmap_emulated(device: &Device, memory: vk::DeviceMemory, leave: Leave) -> Option<vk::Result> {
    let emulated = device.coherence.as_ref()?.memory(memory)?;
    Some(match emulated.unplace(leave) {
        Ok(was_placed) if was_placed || leave == Leave::Nothing => vk::Result::SUCCESS,
        Ok(_) => {
            log::error!(
                "vkUnmapMemory2: {memory:?} was not placed, so its addresses cannot be left reserved"
            );
            vk::Result::ERROR_MEMORY_MAP_FAILED
        }
        Err(error) => {
            log::error!("{memory:?}: cannot be unmapped: {error}");
            vk::Result::ERROR_MEMORY_MAP_FAILED
        }
    })
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
    let sync = |memory: &Memory, range| {
        if let Some(mirror) = memory.mirror() {
            coherence::flush(memory, &*mirror, range);
        }
    };
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
    let sync = |memory: &Memory, range| {
        if let Some(mirror) = memory.mirror() {
            coherence::readback(memory, &*mirror, range);
        }
    };
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
    sync: impl Fn(&Memory, Range<u64>),
) -> vk::Result {
    if count == 0 {
        return vk::Result::SUCCESS;
    }
    // SAFETY: the caller's promise.
    for range in unsafe { slice::from_raw_parts(ranges, count as usize) } {
        if let Some(memory) = device.coherence.as_ref().and_then(|coherence| coherence.memory(range.memory)) {
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
