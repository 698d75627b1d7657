//! Pages of the application's own, to be imported as device memory (VK_EXT_external_memory_host).

use crate::Gpu;
use ash::vk::{self, ExternalMemoryHandleTypeFlags as HandleTypes};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::ptr;

/// What imports are of, here.
pub const HOST_ALLOCATION: HandleTypes = HandleTypes::HOST_ALLOCATION_EXT;

/// What pages are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// Private anonymous memory, as an allocator's.
    Anonymous,
    /// Shared memory without a name.
    Shared,
    /// A file in a temporary folder, mapped to be shared.
    File,
}

impl PageKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Anonymous, Self::Shared, Self::File];
}

/// Pages that hold zeros at first, and are unmapped when this is dropped.
#[derive(Debug)]
pub struct Pages {
    start: *mut u8,
    len: usize,
}

impl Pages {
    /// `len` bytes, a multiple of the page size.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn new(kind: PageKind, len: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let file = match kind {
            PageKind::Anonymous => None,
            PageKind::Shared => Some(rustix::fs::memfd_create("pages", MemfdFlags::CLOEXEC)?),
            PageKind::File => {
                let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
                Some(rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR)?)
            }
        };
        // SAFETY: a new mapping at an address the kernel chooses.
        let start = unsafe {
            if let Some(file) = file {
                rustix::fs::ftruncate(&file, len as u64)?;
                rustix::mm::mmap(ptr::null_mut(), len, access, MapFlags::SHARED, file, 0)
            } else {
                rustix::mm::mmap_anonymous(ptr::null_mut(), len, access, MapFlags::PRIVATE)
            }
        };
        Ok(Self { start: start?.cast(), len })
    }

    /// The first byte.
    pub fn start(&self) -> *mut u8 {
        self.start
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: whoever imported them freed that first.
        let _ = unsafe { rustix::mm::munmap(self.start.cast(), self.len) };
    }
}

impl Gpu {
    /// The memory types that pages at an address can be imported as, as bits.
    ///
    /// # Errors
    /// What vkGetMemoryHostPointerPropertiesEXT returned.
    pub fn import_types(&self, start: *mut u8) -> Result<u32, vk::Result> {
        let host = ash::ext::external_memory_host::Device::new(&self.instance, &self.device);
        let mut properties = vk::MemoryHostPointerPropertiesEXT::default();
        let get = host.fp().get_memory_host_pointer_properties_ext;
        // SAFETY: an address that is only looked at, and a structure to be filled.
        let result = unsafe { get(self.device.handle(), HOST_ALLOCATION, start.cast(), &raw mut properties) };
        result.result()?;
        Ok(properties.memory_type_bits)
    }

    /// Imports `len` bytes of pages.
    ///
    /// # Errors
    /// What vkAllocateMemory returned.
    ///
    /// # Safety
    /// As the specification demands, as far as the driver does not refuse what is wrong. The caller frees the memory.
    pub unsafe fn import(
        &self,
        start: *mut u8,
        len: usize,
        memory_type: u32,
        flags: vk::MemoryAllocateFlags,
    ) -> Result<vk::DeviceMemory, vk::Result> {
        let mut import = vk::ImportMemoryHostPointerInfoEXT::default()
            .handle_type(HOST_ALLOCATION)
            .host_pointer(start.cast());
        let mut flags = vk::MemoryAllocateFlagsInfo::default().flags(flags);
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(len as u64)
            .memory_type_index(memory_type)
            .push_next(&mut flags)
            .push_next(&mut import);
        // SAFETY: the caller's promise.
        unsafe { self.device.allocate_memory(&info, None) }
    }
}
