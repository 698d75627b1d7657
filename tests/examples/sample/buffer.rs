//! Buffers in coherent memory: mapped from the first moment to the last, never flushed.

use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use ash::vk;
use gpu_allocator::MemoryLocation;
use gpu_allocator::vulkan::{Allocation, AllocationCreateDesc, AllocationScheme};

use crate::error::{Context, Error, Result};
use crate::gpu::Gpu;
use crate::owned::Owned;

/// A buffer that the host reads and writes while it is the device's too.
///
/// No reference to its bytes is ever made, only copies into and out of it: the device may be changing some
/// of them at any moment. Which bytes belong to whom, and when, is between the caller and the device, as
/// with every mapped memory in Vulkan.
pub(crate) struct Buffer {
    handle: ManuallyDrop<Owned<vk::Buffer>>,
    allocation: ManuallyDrop<Allocation>,
    mapped: NonNull<u8>,
    size: usize,
    gpu: Rc<Gpu>,
}

impl Buffer {
    /// Makes a buffer of `size` bytes. `location` is `CpuToGpu` or `GpuToCpu`: of both, the allocator
    /// takes memory that is host-visible and host-coherent.
    pub(crate) fn new(
        gpu: &Rc<Gpu>,
        name: &str,
        size: usize,
        usage: vk::BufferUsageFlags,
        location: MemoryLocation,
    ) -> Result<Self> {
        let info = vk::BufferCreateInfo::default()
            .size(size as vk::DeviceSize)
            .usage(usage)
            .sharing_mode(vk::SharingMode::EXCLUSIVE);
        // SAFETY: the device lives, as `gpu` is held; `handle` destroys the buffer, and whoever drops a
        // `Buffer` has waited for the device to be done with it.
        let handle = unsafe {
            let handle = gpu.device().create_buffer(&info, None).context("vkCreateBuffer")?;
            Owned::new(gpu, handle, ash::Device::destroy_buffer)
        };
        // SAFETY: the buffer is a live one of this device.
        let requirements = unsafe { gpu.device().get_buffer_memory_requirements(handle.get()) };
        let allocation = gpu
            .allocator
            .borrow_mut()
            .allocate(&AllocationCreateDesc {
                name,
                requirements,
                location,
                linear: true,
                allocation_scheme: AllocationScheme::GpuAllocatorManaged,
            })
            .context(&format!("coherent memory for the {name} buffer"))?;
        let Some(mapped) = allocation.mapped_ptr() else {
            return Err(Error::new(format!("the memory of the {name} buffer is not mapped")));
        };
        // From here on `Drop` frees both, whatever fails.
        let buffer = Self {
            handle: ManuallyDrop::new(handle),
            allocation: ManuallyDrop::new(allocation),
            mapped: mapped.cast(),
            size,
            gpu: Rc::clone(gpu),
        };
        // SAFETY: the allocation was made for this buffer's requirements and is freed after the buffer is
        // destroyed; the buffer is bound once, here.
        unsafe {
            let memory = buffer.allocation.memory();
            gpu.device().bind_buffer_memory(buffer.handle(), memory, buffer.allocation.offset())
        }
        .context("vkBindBufferMemory")?;
        Ok(buffer)
    }

    pub(crate) fn handle(&self) -> vk::Buffer {
        self.handle.get()
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Stores `bytes` at `offset`, and that is all there is to do.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        self.assert_inside(offset, bytes.len());
        // SAFETY: the range is inside the mapping, which lives as long as `self`, and apart from `bytes`, as
        // no reference into the mapping exists. The device is no party to Rust's memory model: bytes that it
        // changes meanwhile can come out wrong, not unsound.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.mapped.as_ptr().add(offset), bytes.len()) };
    }

    /// Loads the whole buffer.
    pub(crate) fn read(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.size];
        // SAFETY: the range is the mapping of the buffer, which lives as long as `self`; `bytes` is as long
        // and fresh. About the device, see `write`.
        unsafe { ptr::copy_nonoverlapping(self.mapped.as_ptr(), bytes.as_mut_ptr(), self.size) };
        bytes
    }

    fn assert_inside(&self, offset: usize, length: usize) {
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.size);
        assert!(inside, "{length} bytes at {offset} of a buffer of {}", self.size);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: each is taken once, here, and used no more; the buffer goes before its memory.
        let allocation = unsafe {
            ManuallyDrop::drop(&mut self.handle);
            ManuallyDrop::take(&mut self.allocation)
        };
        // The allocator only refuses what it did not allocate.
        let _ = self.gpu.allocator.borrow_mut().free(allocation);
    }
}
