//! Access to device memory through the backing driver's own mapping of it.
//!
//! Where that mapping is not coherent, the backing driver's explicit flush and invalidate make it so.

use crate::device::Device;
use ash::vk;
use std::ops::Range;
use tidemark_winsys::DeviceMemory;

/// A whole allocation, mapped by the backing driver until it is freed.
pub(crate) struct Aperture {
    device: vk::Device,
    memory: vk::DeviceMemory,
    address: *mut u8,
    len: usize,
    /// What a mapping that is not coherent needs.
    maintenance: Option<Maintenance>,
}

struct Maintenance {
    flush: vk::PFN_vkFlushMappedMemoryRanges,
    invalidate: vk::PFN_vkInvalidateMappedMemoryRanges,
}

// SAFETY: an address and handles; vkMapMemory's results may be used from any thread.
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
        let next = &device.next;
        let missing = vk::Result::ERROR_MEMORY_MAP_FAILED;
        let maintenance = if is_coherent {
            None
        } else {
            Some(Maintenance {
                flush: next.vkFlushMappedMemoryRanges.ok_or(missing)?,
                invalidate: next.vkInvalidateMappedMemoryRanges.ok_or(missing)?,
            })
        };
        let map = next.vkMapMemory.ok_or(missing)?;
        let mut address = std::ptr::null_mut();
        let flags = vk::MemoryMapFlags::empty();
        // SAFETY: a live memory of the backing driver, host-visible and not mapped.
        unsafe { map(device.handle, memory, 0, vk::WHOLE_SIZE, flags, &raw mut address) }.result()?;
        Ok(Self { device: device.handle, memory, address: address.cast(), len, maintenance })
    }

    fn maintain(&self, command: vk::PFN_vkFlushMappedMemoryRanges, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        // The mirror works by pages and parts of 256 bytes, of which every nonCoherentAtomSize is a fraction. A range that
        // reaches the end of the memory must be given as such.
        let size = if range.end >= self.len { vk::WHOLE_SIZE } else { range.len() as u64 };
        let range =
            vk::MappedMemoryRange::default().memory(self.memory).offset(range.start as u64).size(size);
        // SAFETY: a live memory of the backing driver, mapped whole.
        let result = unsafe { command(self.device, 1, &raw const range) };
        if result != vk::Result::SUCCESS {
            log::error!("{:?}: cannot synchronise the backing driver's mapping: {result}", self.memory);
        }
    }
}

// SAFETY: the backing driver keeps the mapping of `len` bytes until the memory is unmapped or freed; vkFreeMemory
// retires the mirror first.
unsafe impl DeviceMemory for Aperture {
    fn address(&self) -> *mut u8 {
        self.address
    }

    fn len(&self) -> usize {
        self.len
    }

    fn is_coherent(&self) -> bool {
        self.maintenance.is_none()
    }

    fn invalidate(&self, range: Range<usize>) {
        if let Some(maintenance) = &self.maintenance {
            self.maintain(maintenance.invalidate, range);
        }
    }

    fn flush(&self, range: Range<usize>) {
        if let Some(maintenance) = &self.maintenance {
            self.maintain(maintenance.flush, range);
        }
    }
}
