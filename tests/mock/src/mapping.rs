//! What the host sees of an allocation, and which ranges of it may be flushed.

use std::ops::Range;
use std::ptr;

/// nonCoherentAtomSize.
pub(crate) const ATOM: u64 = 64;

/// A mapping of a memory.
pub(crate) struct Mapping {
    /// The bytes of the memory that are mapped.
    range: Range<usize>,
    /// Where lavapipe has the memory's first byte.
    device: *mut u8,
    /// The host's own pages, if the memory is not coherent.
    shadow: Option<Shadow>,
}

// SAFETY: addresses that are valid in every thread, as long as the memory stays mapped.
unsafe impl Send for Mapping {}

impl Mapping {
    /// A mapping of `range` of a memory whose first byte is at `device`. `None` if there is no memory left for the host's
    /// own pages.
    ///
    /// # Safety
    /// `device` must be valid for accesses to `range` as long as the mapping lives.
    pub(crate) unsafe fn new(device: *mut u8, range: Range<usize>, is_coherent: bool) -> Option<Self> {
        let shadow = if is_coherent { None } else { Some(Shadow::new(range.end)?) };
        let mapping = Self { range, device, shadow };
        // What a cache would fetch.
        mapping.invalidate(&mapping.range);
        Some(mapping)
    }

    /// Where the host finds the first byte that is mapped.
    pub(crate) fn address(&self) -> *mut u8 {
        let base = self.shadow.as_ref().map_or(self.device, |shadow| shadow.address);
        base.wrapping_add(self.range.start)
    }

    /// Copies the host's bytes to the device. `range` must be mapped. Returns how many.
    pub(crate) fn flush(&self, range: &Range<usize>) -> usize {
        self.shadow.as_ref().map_or(0, |shadow| self.copy(shadow.address, self.device, range))
    }

    /// Copies the device's bytes to the host. `range` must be mapped. Returns how many.
    pub(crate) fn invalidate(&self, range: &Range<usize>) -> usize {
        self.shadow.as_ref().map_or(0, |shadow| self.copy(self.device, shadow.address, range))
    }

    fn copy(&self, from: *const u8, to: *mut u8, range: &Range<usize>) -> usize {
        assert!(self.range.start <= range.start && range.end <= self.range.end);
        // SAFETY: both are valid for what is mapped. Device or host may write meanwhile, as they may with a real cache.
        unsafe { ptr::copy_nonoverlapping(from.add(range.start), to.add(range.start), range.len()) };
        range.len()
    }

    /// The bytes that a VkMappedMemoryRange stands for, of a memory of `len` bytes; or which of its rules it breaks.
    pub(crate) fn checked(&self, offset: u64, size: u64, len: u64) -> Result<Range<usize>, &'static str> {
        let (start, end) = (self.range.start as u64, self.range.end as u64);
        if !offset.is_multiple_of(ATOM) {
            return Err("the offset is no multiple of nonCoherentAtomSize");
        }
        let to = if size == ash::vk::WHOLE_SIZE { end } else { offset.saturating_add(size) };
        if offset < start || offset > end || to > end {
            return Err("not within what is mapped");
        }
        if !to.is_multiple_of(ATOM) && to != len {
            return Err("the end is neither a multiple of nonCoherentAtomSize nor that of the memory");
        }
        match (usize::try_from(offset), usize::try_from(to)) {
            (Ok(from), Ok(to)) => Ok(from..to),
            _ => Err("beyond the address space"),
        }
    }
}

/// Pages of the host's own. They go with the mapping: whoever uses them afterwards is found out.
struct Shadow {
    address: *mut u8,
    len: usize,
}

impl Shadow {
    fn new(len: usize) -> Option<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: new pages, wherever there is room.
        let address = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, -1, 0) };
        (address != libc::MAP_FAILED).then_some(Self { address: address.cast(), len })
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`.
        unsafe { libc::munmap(self.address.cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ash::vk::WHOLE_SIZE;

    fn mapping(device: &mut [u8], range: Range<usize>, is_coherent: bool) -> Mapping {
        // SAFETY: the tests keep the bytes, and touch them by turns.
        unsafe { Mapping::new(device.as_mut_ptr(), range, is_coherent) }.unwrap()
    }

    fn load(base: *mut u8, at: usize) -> u8 {
        // SAFETY: the tests stay inside of what is mapped.
        unsafe { base.wrapping_add(at).read() }
    }

    fn store(base: *mut u8, at: usize, value: u8) {
        // SAFETY: as above.
        unsafe { base.wrapping_add(at).write(value) }
    }

    #[test]
    fn the_host_has_its_own_bytes_until_they_are_joined() {
        let mut device = vec![1; 256];
        let mapping = mapping(&mut device, 64..256, false);
        // Addresses such that both count from the memory's first byte.
        let (host, device) = (mapping.address().wrapping_sub(64), mapping.device);
        assert_eq!(load(host, 64), 1, "it starts with the device's");
        store(host, 64, 2);
        store(host, 128, 3);
        store(device, 192, 4);
        assert_eq!((load(device, 64), load(device, 128), load(host, 192)), (1, 1, 1));
        assert_eq!(mapping.flush(&(64..128)), 64);
        assert_eq!((load(device, 64), load(device, 128)), (2, 1));
        assert_eq!(mapping.invalidate(&(128..256)), 128);
        assert_eq!((load(host, 128), load(host, 192)), (1, 4));
    }

    #[test]
    fn coherent_memory_is_the_device_s_own() {
        let mut device = vec![1; 256];
        let address = device.as_mut_ptr();
        let mapping = mapping(&mut device, 64..256, true);
        assert_eq!(mapping.address(), address.wrapping_add(64));
        assert_eq!((mapping.flush(&(64..128)), mapping.invalidate(&(64..128))), (0, 0));
    }

    #[test]
    fn ranges_keep_the_specification_s_rules() {
        let mut device = vec![0; 300];
        let part = mapping(&mut device, 64..200, false);
        assert_eq!(part.checked(64, 128, 300), Ok(64..192));
        assert_eq!(part.checked(64, 0, 300), Ok(64..64));
        assert!(part.checked(65, 64, 300).is_err());
        assert!(part.checked(64, 63, 300).is_err());
        assert!(part.checked(0, 128, 300).is_err());
        assert!(part.checked(128, 128, 300).is_err());
        assert!(part.checked(64, WHOLE_SIZE, 300).is_err(), "what is mapped ends within an atom");
        let whole = mapping(&mut device, 0..300, false);
        assert_eq!(whole.checked(64, WHOLE_SIZE, 300), Ok(64..300));
        assert_eq!(whole.checked(256, 44, 300), Ok(256..300));
        assert!(whole.checked(u64::MAX - 63, 64, 300).is_err());
    }
}
