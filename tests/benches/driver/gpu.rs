//! A device, buffers and command buffers: what every workload needs, on whatever driver the loader finds.

use ash::vk;
use std::rc::Rc;
use tidemark_tests::{HOST_ALLOCATION, Pages};

/// The Vulkan call that failed.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl From<vk::Result> for Failure {
    fn from(error: vk::Result) -> Self {
        Self(format!("a Vulkan call returned {error}"))
    }
}

/// Memory that the host may write and read without further ado.
pub(crate) const COHERENT: vk::MemoryPropertyFlags = vk::MemoryPropertyFlags::from_raw(
    vk::MemoryPropertyFlags::HOST_VISIBLE.as_raw() | vk::MemoryPropertyFlags::HOST_COHERENT.as_raw(),
);

/// Far longer than any batch takes.
const LONG: u64 = 60_000_000_000;

/// The first physical device, with one queue. One thread uses it.
pub(crate) struct Gpu {
    base: tidemark_tests::Gpu,
    pool: vk::CommandPool,
    fence: vk::Fence,
}

impl std::ops::Deref for Gpu {
    type Target = tidemark_tests::Gpu;

    fn deref(&self) -> &Self::Target {
        &self.base
    }
}

impl Gpu {
    pub(crate) fn new() -> Result<Rc<Self>, Failure> {
        let base = tidemark_tests::Gpu::new().map_err(Failure)?;
        let info = vk::CommandPoolCreateInfo::default()
            .queue_family_index(0)
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER);
        // SAFETY: a live device.
        let pool = unsafe { base.device.create_command_pool(&info, None) }?;
        let fence = base.fence()?;
        Ok(Rc::new(Self { base, pool, fence }))
    }

    /// Memory of a coherent type, not mapped.
    pub(crate) fn allocate(&self, size: u64) -> Result<vk::DeviceMemory, Failure> {
        let memory_type = self
            .memory_type(u32::MAX, COHERENT, vk::MemoryPropertyFlags::empty())
            .ok_or_else(|| Failure("no HOST_VISIBLE|HOST_COHERENT memory".into()))?;
        let info = vk::MemoryAllocateInfo::default().allocation_size(size).memory_type_index(memory_type);
        // SAFETY: a live device; the caller frees it.
        Ok(unsafe { self.device.allocate_memory(&info, None) }?)
    }

    /// An empty command buffer, which may be begun any number of times.
    pub(crate) fn command_buffer(&self) -> Result<vk::CommandBuffer, Failure> {
        let info = vk::CommandBufferAllocateInfo::default().command_pool(self.pool).command_buffer_count(1);
        // SAFETY: a live pool.
        Ok(unsafe { self.device.allocate_command_buffers(&info) }?[0])
    }

    /// A recorded command buffer, which may be submitted any number of times, one after the other.
    pub(crate) fn record(
        &self,
        commands: impl FnOnce(vk::CommandBuffer),
    ) -> Result<vk::CommandBuffer, Failure> {
        let buffer = self.command_buffer()?;
        self.begin(buffer)?;
        commands(buffer);
        self.end(buffer)?;
        Ok(buffer)
    }

    pub(crate) fn begin(&self, buffer: vk::CommandBuffer) -> Result<(), Failure> {
        // SAFETY: a command buffer of the pool that may be reset, not pending.
        Ok(unsafe { self.device.begin_command_buffer(buffer, &vk::CommandBufferBeginInfo::default()) }?)
    }

    pub(crate) fn end(&self, buffer: vk::CommandBuffer) -> Result<(), Failure> {
        // SAFETY: it was begun.
        Ok(unsafe { self.device.end_command_buffer(buffer) }?)
    }

    /// Gives a command buffer back, which is not pending.
    pub(crate) fn free(&self, commands: vk::CommandBuffer) {
        // SAFETY: of the pool, and the caller's promise.
        unsafe { self.device.free_command_buffers(self.pool, &[commands]) }
    }

    /// Submits batches without a fence.
    pub(crate) fn submit(&self, batches: &[vk::SubmitInfo<'_>]) -> Result<(), Failure> {
        // SAFETY: recorded command buffers that are not pending.
        Ok(unsafe { self.device.queue_submit(self.queue, batches, vk::Fence::null()) }?)
    }

    /// Submits a command buffer with the fence.
    pub(crate) fn start(&self, commands: vk::CommandBuffer) -> Result<(), Failure> {
        let commands = [commands];
        let batches = [vk::SubmitInfo::default().command_buffers(&commands)];
        // SAFETY: a recorded command buffer that is not pending, and a fence that is not in use.
        Ok(unsafe { self.device.queue_submit(self.queue, &batches, self.fence) }?)
    }

    /// Waits for the fence.
    pub(crate) fn wait(&self) -> Result<(), Failure> {
        // SAFETY: a live fence.
        Ok(unsafe { self.device.wait_for_fences(&[self.fence], true, LONG) }?)
    }

    /// Makes the fence usable again.
    pub(crate) fn reset(&self) -> Result<(), Failure> {
        // SAFETY: a fence that is not in use.
        Ok(unsafe { self.device.reset_fences(&[self.fence]) }?)
    }

    /// Submits a command buffer and waits until it is done.
    pub(crate) fn run(&self, commands: vk::CommandBuffer) -> Result<(), Failure> {
        self.start(commands)?;
        self.wait()?;
        self.reset()
    }

    pub(crate) fn wait_idle(&self) -> Result<(), Failure> {
        // SAFETY: one thread uses the queue.
        Ok(unsafe { self.device.queue_wait_idle(self.queue) }?)
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: buffers hold the `Gpu`, so none is left; nothing is pending after the wait.
        unsafe {
            let _ = self.device.device_wait_idle();
            self.device.destroy_fence(self.fence, None);
            self.device.destroy_command_pool(self.pool, None);
        }
    }
}

/// A buffer with memory of its own.
pub(crate) struct Buffer {
    pub(crate) handle: vk::Buffer,
    memory: vk::DeviceMemory,
    pub(crate) size: usize,
    /// Null if it is not mapped.
    view: *mut u64,
    gpu: Rc<Gpu>,
    /// What is imported, if anything.
    _pages: Option<Rc<Pages>>,
}

/// What every buffer may be used for.
const USAGE: vk::BufferUsageFlags = vk::BufferUsageFlags::from_raw(
    vk::BufferUsageFlags::TRANSFER_SRC.as_raw()
        | vk::BufferUsageFlags::TRANSFER_DST.as_raw()
        | vk::BufferUsageFlags::VERTEX_BUFFER.as_raw()
        | vk::BufferUsageFlags::STORAGE_BUFFER.as_raw(),
);

impl Buffer {
    /// A coherent buffer of `size` bytes, mapped.
    pub(crate) fn mapped(gpu: &Rc<Gpu>, size: usize) -> Result<Self, Failure> {
        let mut buffer = Self::new(gpu, size, COHERENT, vk::MemoryPropertyFlags::empty())?;
        let flags = vk::MemoryMapFlags::empty();
        // SAFETY: host-visible memory that is not mapped.
        let view = unsafe { gpu.device.map_memory(buffer.memory, 0, vk::WHOLE_SIZE, flags) }?;
        buffer.view = view.cast();
        Ok(buffer)
    }

    /// A buffer that only the device uses.
    pub(crate) fn local(gpu: &Rc<Gpu>, size: usize) -> Result<Self, Failure> {
        Self::new(gpu, size, vk::MemoryPropertyFlags::DEVICE_LOCAL, vk::MemoryPropertyFlags::HOST_VISIBLE)
    }

    /// A buffer of all of some pages, which are imported.
    pub(crate) fn imported(gpu: &Rc<Gpu>, pages: &Rc<Pages>) -> Result<Self, Failure> {
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(HOST_ALLOCATION);
        let info =
            vk::BufferCreateInfo::default().size(pages.len() as u64).usage(USAGE).push_next(&mut external);
        // SAFETY: a live device; the buffer is destroyed in `drop`.
        let handle = unsafe { gpu.device.create_buffer(&info, None) }?;
        // SAFETY: a live buffer.
        let requirements = unsafe { gpu.device.get_buffer_memory_requirements(handle) };
        let memory_type = gpu
            .memory_type(
                requirements.memory_type_bits & gpu.import_types(pages.start())?,
                COHERENT,
                vk::MemoryPropertyFlags::empty(),
            )
            .ok_or_else(|| Failure("no coherent type for imported memory".into()))?;
        let flags = vk::MemoryAllocateFlags::empty();
        // SAFETY: pages that live as long.
        let memory = unsafe { gpu.import(pages.start(), pages.len(), memory_type, flags) }?;
        // SAFETY: a fresh buffer, as large as the memory.
        unsafe { gpu.device.bind_buffer_memory(handle, memory, 0) }?;
        let view = pages.start().cast();
        Ok(Self { handle, memory, size: pages.len(), view, gpu: gpu.clone(), _pages: Some(pages.clone()) })
    }

    fn new(
        gpu: &Rc<Gpu>,
        size: usize,
        wanted: vk::MemoryPropertyFlags,
        unwanted: vk::MemoryPropertyFlags,
    ) -> Result<Self, Failure> {
        let info = vk::BufferCreateInfo::default().size(size as u64).usage(USAGE);
        // SAFETY: a live device; the buffer is destroyed in `drop`.
        let handle = unsafe { gpu.device.create_buffer(&info, None) }?;
        // SAFETY: a live buffer.
        let requirements = unsafe { gpu.device.get_buffer_memory_requirements(handle) };
        let memory_type = gpu
            .memory_type(requirements.memory_type_bits, wanted, unwanted)
            .or_else(|| {
                gpu.memory_type(requirements.memory_type_bits, wanted, vk::MemoryPropertyFlags::empty())
            })
            .ok_or_else(|| Failure(format!("no {wanted:?} memory for a buffer")))?;
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(requirements.size)
            .memory_type_index(memory_type);
        // SAFETY: a type this buffer may use; the memory is freed in `drop`.
        let memory = unsafe {
            let memory = gpu.device.allocate_memory(&info, None)?;
            gpu.device.bind_buffer_memory(handle, memory, 0)?;
            memory
        };
        Ok(Self { handle, memory, size, view: std::ptr::null_mut(), gpu: gpu.clone(), _pages: None })
    }

    /// Stores a word of a mapped buffer.
    pub(crate) fn store(&self, offset: usize, value: u64) {
        assert!(!self.view.is_null() && offset + 8 <= self.size && offset.is_multiple_of(8));
        // SAFETY: an aligned word inside the mapping; volatile, as the device may read it at any time.
        unsafe { self.view.wrapping_byte_add(offset).write_volatile(value) }
    }

    /// Loads a word of a mapped buffer.
    pub(crate) fn load(&self, offset: usize) -> u64 {
        assert!(!self.view.is_null() && offset + 8 <= self.size && offset.is_multiple_of(8));
        // SAFETY: an aligned word inside the mapping; volatile, as the device may write it at any time.
        unsafe { self.view.wrapping_byte_add(offset).read_volatile() }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the workloads wait before they drop; freeing memory also unmaps it.
        unsafe {
            self.gpu.device.destroy_buffer(self.handle, None);
            self.gpu.device.free_memory(self.memory, None);
        }
    }
}
