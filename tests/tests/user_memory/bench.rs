//! A device, pages to import, and a buffer to look at what the device has of them.

use ash::vk;
use rustix::mm::{MapFlags, ProtFlags};
use std::ptr;
use tidemark_tests::{Gpu, HOST_ALLOCATION};

pub(crate) const PAGE: usize = 4096;
const PAGES: usize = 8;
pub(crate) const SIZE: usize = PAGES * PAGE;
const WRITABLE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

/// Pages, full of 1, and a buffer beside them.
pub(crate) struct Bench {
    pub(crate) gpu: Gpu,
    pub(crate) pages: *mut u8,
    pub(crate) other: vk::Buffer,
    pub(crate) view: *mut u8,
}

impl Bench {
    pub(crate) fn new(gpu: Gpu) -> Self {
        let pages = map(ptr::null_mut(), SIZE, 1);
        let other = buffer(&gpu);
        // SAFETY: a live buffer, and memory it may use. All of it goes with the process.
        let view = unsafe {
            let requirements = gpu.device.get_buffer_memory_requirements(other);
            let info =
                vk::MemoryAllocateInfo::default().allocation_size(requirements.size).memory_type_index(
                    gpu.coherent_type(requirements.memory_type_bits).expect("coherent memory"),
                );
            let memory = gpu.device.allocate_memory(&info, None).expect("memory");
            gpu.device.bind_buffer_memory(other, memory, 0).expect("bound");
            gpu.device.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty()).expect("mapped")
        };
        Self { gpu, pages, other, view: view.cast() }
    }

    pub(crate) fn import(
        &self,
        start: *mut u8,
        size: usize,
        memory_type: u32,
    ) -> Result<vk::DeviceMemory, vk::Result> {
        // SAFETY: what is wrong with it is for the driver to tell.
        unsafe { self.gpu.import(start, size, memory_type, vk::MemoryAllocateFlags::empty()) }
    }

    pub(crate) fn importable_type(&self) -> u32 {
        let types = self.gpu.import_types(self.pages).expect("properties");
        self.gpu.coherent_type(types).expect("a coherent type")
    }

    /// A buffer of an import of the first of the pages.
    pub(crate) fn import_buffer(&self, start: *mut u8) -> (vk::Buffer, vk::DeviceMemory) {
        let imported = buffer(&self.gpu);
        let memory = self.import(start, SIZE, self.importable_type()).expect("imported");
        // SAFETY: live objects, not bound before.
        unsafe { self.gpu.device.bind_buffer_memory(imported, memory, 0) }.expect("bound");
        (imported, memory)
    }

    pub(crate) fn free(&self, (buffer, memory): (vk::Buffer, vk::DeviceMemory)) {
        // SAFETY: nothing is pending.
        unsafe {
            self.gpu.device.destroy_buffer(buffer, None);
            self.gpu.device.free_memory(memory, None);
        }
    }

    /// The device copies, and the host waits.
    pub(crate) fn copy(&self, from: vk::Buffer, to: vk::Buffer) {
        let device = &self.gpu.device;
        let region = [vk::BufferCopy::default().size(SIZE as u64)];
        // SAFETY: live buffers of that size, and objects that this makes and uses as the specification demands.
        let result = unsafe {
            let info = vk::CommandPoolCreateInfo::default();
            let pool = device.create_command_pool(&info, None).expect("a pool");
            let info = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
            let commands = device.allocate_command_buffers(&info).expect("a command buffer");
            device.begin_command_buffer(commands[0], &Default::default()).expect("begun");
            device.cmd_copy_buffer(commands[0], from, to, &region);
            device.end_command_buffer(commands[0]).expect("ended");
            let submits = [vk::SubmitInfo::default().command_buffers(&commands)];
            device
                .queue_submit(self.gpu.queue, &submits, vk::Fence::null())
                .and_then(|()| device.queue_wait_idle(self.gpu.queue))
        };
        result.expect("the copy failed");
    }

    pub(crate) fn seen(&self, at: usize) -> u8 {
        // SAFETY: inside the mapping.
        unsafe { self.view.add(at).read_volatile() }
    }

    pub(crate) fn found(&self, at: usize) -> u8 {
        // SAFETY: inside the pages.
        unsafe { self.pages.add(at).read_volatile() }
    }
}

pub(crate) fn buffer(gpu: &Gpu) -> vk::Buffer {
    let usage = vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
    let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(HOST_ALLOCATION);
    let info = vk::BufferCreateInfo::default().size(SIZE as u64).usage(usage).push_next(&mut external);
    // SAFETY: a live device.
    unsafe { gpu.device.create_buffer(&info, None) }.expect("a buffer")
}

/// New pages, full of `value`: there, whatever was there before; or anywhere.
pub(crate) fn map(there: *mut u8, size: usize, value: u8) -> *mut u8 {
    let fixed = if there.is_null() { MapFlags::empty() } else { MapFlags::FIXED };
    // SAFETY: a new mapping, at most over what is left of an old one; and all of it.
    unsafe {
        let pages = rustix::mm::mmap_anonymous(there.cast(), size, WRITABLE, MapFlags::PRIVATE | fixed);
        let pages = pages.expect("pages").cast::<u8>();
        pages.write_bytes(value, size);
        pages
    }
}
