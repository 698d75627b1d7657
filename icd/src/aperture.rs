//! Access to device memory through the backing driver's own mapping of it.
//!
//! Where that mapping is not coherent, the backing driver's explicit flush and invalidate make it so.

use crate::device::Device;
use ash::vk;
use std::ops::Range;

/// A whole allocation, mapped by the backing driver for as long as it lives.
pub(crate) struct Aperture {
    memory: vk::DeviceMemory,
    pub(crate) address: *mut u8,
    len: usize,
    is_coherent: bool,
}

// SAFETY: an address and a handle; vkMapMemory's results may be used from any thread.
unsafe impl Send for Aperture {}
// SAFETY: as above.
unsafe impl Sync for Aperture {}

impl Aperture {
    /// Maps `memory`, which the backing driver must let the host see, and which must not be mapped yet.
    pub(crate) fn new(
        device: &Device,
        memory: vk::DeviceMemory,
        len: usize,
        is_coherent: bool,
    ) -> Result<Self, vk::Result> {
        let map = device.next.vkMapMemory.ok_or(vk::Result::ERROR_MEMORY_MAP_FAILED)?;
        let mut address = std::ptr::null_mut();
        let flags = vk::MemoryMapFlags::empty();
        // SAFETY: a live memory of the backing driver, host-visible and not mapped.
        unsafe { map(device.handle, memory, 0, vk::WHOLE_SIZE, flags, &raw mut address) }.result()?;
        Ok(Self { memory, address: address.cast(), len, is_coherent })
    }

    /// What the CPU stored becomes visible to the device.
    pub(crate) fn flush(&self, device: &Device, range: Range<usize>) -> Result<(), vk::Result> {
        self.maintain(device, device.next.vkFlushMappedMemoryRanges, range)
    }

    /// What the device stored becomes visible to the CPU.
    pub(crate) fn invalidate(&self, device: &Device, range: Range<usize>) -> Result<(), vk::Result> {
        self.maintain(device, device.next.vkInvalidateMappedMemoryRanges, range)
    }

    fn maintain(
        &self,
        device: &Device,
        command: Option<vk::PFN_vkFlushMappedMemoryRanges>,
        range: Range<usize>,
    ) -> Result<(), vk::Result> {
        if self.is_coherent || range.is_empty() {
            return Ok(());
        }
        // Whole pages, as the mirror works by pages: more than any nonCoherentAtomSize. A range that reaches the
        // end of the memory must be given as such.
        let page = tidemark_winsys::page_size();
        let start = range.start / page * page;
        let end = range.end.next_multiple_of(page);
        let size = if end >= self.len { vk::WHOLE_SIZE } else { (end - start) as u64 };
        let range = vk::MappedMemoryRange::default().memory(self.memory).offset(start as u64).size(size);
        let command = command.ok_or(vk::Result::ERROR_MEMORY_MAP_FAILED)?;
        // SAFETY: a live memory of the backing driver, mapped whole.
        unsafe { command(device.handle, 1, &raw const range) }.result()
    }
}
