//! A device, buffers, and command buffers: what every check needs.

use ash::vk;
use std::ops::{Deref, Range};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use crate::Failure;

pub(crate) const COHERENT: vk::MemoryPropertyFlags = vk::MemoryPropertyFlags::from_raw(
    vk::MemoryPropertyFlags::HOST_VISIBLE.as_raw() | vk::MemoryPropertyFlags::HOST_COHERENT.as_raw(),
);

/// What most checks use buffers for.
pub(crate) const COPIES: vk::BufferUsageFlags = vk::BufferUsageFlags::from_raw(
    vk::BufferUsageFlags::TRANSFER_SRC.as_raw() | vk::BufferUsageFlags::TRANSFER_DST.as_raw(),
);

/// The extent of the images that are copied to and from, of four bytes a texel.
pub(crate) const EXTENT: vk::Extent3D = vk::Extent3D { width: 64, height: 64, depth: 1 };

/// The bytes in one.
pub(crate) const ROUND_TRIP: u64 = 64 * 64 * 4;

/// All of one.
pub(crate) const LAYERS: vk::ImageSubresourceLayers = vk::ImageSubresourceLayers {
    aspect_mask: vk::ImageAspectFlags::COLOR,
    mip_level: 0,
    base_array_layer: 0,
    layer_count: 1,
};

/// Half a minute: far longer than any of these batches takes, on a virtual machine that gets a tenth of a processor, too.
pub(crate) const LONG: u64 = 30_000_000_000;

/// The device's command of a type, by whichever of its names is asked for; `None` if the device has none.
macro_rules! command {
    ($gpu:expr, $name:ident: $type:ident) => {
        $gpu.command(
            std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()).unwrap(),
        )
        // SAFETY: the command of this name has this type.
        .map(|found| unsafe { std::mem::transmute::<unsafe extern "system" fn(), ash::vk::$type>(found) })
    };
}
pub(crate) use command;

/// The device, and command buffers for it.
pub(crate) struct Gpu {
    base: tidemark_tests::Gpu,
    pool: vk::CommandPool,
}

impl Deref for Gpu {
    type Target = tidemark_tests::Gpu;

    fn deref(&self) -> &Self::Target {
        &self.base
    }
}

impl Gpu {
    pub(crate) fn new() -> Result<Arc<Self>, Failure> {
        Self::of(tidemark_tests::Gpu::with_names(names())?)
    }

    /// One where memory can be placed if the device can do that.
    pub(crate) fn placing() -> Result<Arc<Self>, Failure> {
        Self::of(tidemark_tests::Gpu::placing(names())?)
    }

    fn of(base: tidemark_tests::Gpu) -> Result<Arc<Self>, Failure> {
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(0);
        // SAFETY: a live device; the pool is destroyed in `drop`.
        let pool = unsafe { base.device.create_command_pool(&info, None) }?;
        Ok(Arc::new(Self { base, pool }))
    }

    /// A coherent buffer of `size` bytes for copies, mapped, with zeros in it.
    pub(crate) fn coherent(self: &Arc<Self>, size: u64) -> Result<Buffer, Failure> {
        self.coherent_for(size, COPIES)
    }

    /// A coherent buffer of `size` bytes for `usage`, mapped, with zeros in it.
    pub(crate) fn coherent_for(
        self: &Arc<Self>,
        size: u64,
        usage: vk::BufferUsageFlags,
    ) -> Result<Buffer, Failure> {
        let buffer = Buffer::of_type(self, size, usage, |bits| self.coherent_type(bits))?;
        let buffer = buffer.ok_or_else(|| {
            "no HOST_VISIBLE|HOST_COHERENT memory for a buffer, which Vulkan demands".to_string()
        })?;
        buffer.map()?;
        buffer.fill(0);
        Ok(buffer)
    }

    /// The same for words that the device takes orders from: zeros for the device, too, so that it does nothing as long
    /// as it does not see what the host writes.
    pub(crate) fn parameters(
        self: &Arc<Self>,
        size: u64,
        usage: vk::BufferUsageFlags,
    ) -> Result<Buffer, Failure> {
        let buffer = self.coherent_for(size, usage | vk::BufferUsageFlags::TRANSFER_DST)?;
        // SAFETY: a live buffer.
        let commands = self.record(|commands| unsafe {
            self.device.cmd_fill_buffer(commands, buffer.buffer, 0, vk::WHOLE_SIZE, 0);
        })?;
        self.run(commands)?;
        Ok(buffer)
    }

    /// A recorded command buffer, which may be submitted any number of times, one after the other.
    pub(crate) fn record(
        &self,
        commands: impl FnOnce(vk::CommandBuffer),
    ) -> Result<vk::CommandBuffer, Failure> {
        self.record_as(vk::CommandBufferLevel::PRIMARY, commands)
    }

    /// A recorded secondary command buffer.
    pub(crate) fn record_secondary(
        &self,
        commands: impl FnOnce(vk::CommandBuffer),
    ) -> Result<vk::CommandBuffer, Failure> {
        self.record_as(vk::CommandBufferLevel::SECONDARY, commands)
    }

    fn record_as(
        &self,
        level: vk::CommandBufferLevel,
        commands: impl FnOnce(vk::CommandBuffer),
    ) -> Result<vk::CommandBuffer, Failure> {
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(self.pool)
            .level(level)
            .command_buffer_count(1);
        let inheritance = vk::CommandBufferInheritanceInfo::default();
        let begin = vk::CommandBufferBeginInfo::default().inheritance_info(&inheritance);
        // SAFETY: the pool is used by the thread that made the device alone.
        let buffer = unsafe { self.device.allocate_command_buffers(&info) }?[0];
        // SAFETY: a fresh command buffer.
        unsafe { self.device.begin_command_buffer(buffer, &begin) }?;
        commands(buffer);
        // SAFETY: begun above.
        unsafe { self.device.end_command_buffer(buffer) }?;
        Ok(buffer)
    }

    /// Copies `from` to an image of [`ROUND_TRIP`] bytes, and that to `to`.
    pub(crate) fn record_image_round_trip(
        self: &Arc<Self>,
        from: &Buffer,
        to: &Buffer,
    ) -> Result<vk::CommandBuffer, Failure> {
        let image = self.image_for_copies()?;
        let region = [vk::BufferImageCopy::default().image_subresource(LAYERS).image_extent(EXTENT)];
        let device = &self.device;
        // SAFETY: live objects.
        self.record_around_image(
            image,
            |commands| unsafe {
                device.cmd_copy_buffer_to_image(
                    commands,
                    from.buffer,
                    image,
                    vk::ImageLayout::GENERAL,
                    &region,
                );
            },
            |commands| unsafe {
                device.cmd_copy_image_to_buffer(
                    commands,
                    image,
                    vk::ImageLayout::GENERAL,
                    to.buffer,
                    &region,
                );
            },
        )
    }

    /// The same by the commands that take structures.
    pub(crate) fn record_image_round_trip2(
        self: &Arc<Self>,
        from: &Buffer,
        to: &Buffer,
    ) -> Result<vk::CommandBuffer, Failure> {
        let image = self.image_for_copies()?;
        let general = vk::ImageLayout::GENERAL;
        let region = [vk::BufferImageCopy2::default().image_subresource(LAYERS).image_extent(EXTENT)];
        let there = vk::CopyBufferToImageInfo2::default()
            .src_buffer(from.buffer)
            .dst_image(image)
            .dst_image_layout(general)
            .regions(&region);
        let back = vk::CopyImageToBufferInfo2::default()
            .src_image(image)
            .src_image_layout(general)
            .dst_buffer(to.buffer)
            .regions(&region);
        let device = &self.device;
        // SAFETY: live objects.
        self.record_around_image(
            image,
            |commands| unsafe {
                device.cmd_copy_buffer_to_image2(commands, &there);
            },
            |commands| unsafe {
                device.cmd_copy_image_to_buffer2(commands, &back);
            },
        )
    }

    /// An image of [`ROUND_TRIP`] bytes in device memory. It lives as long as the process: a check makes one.
    fn image_for_copies(&self) -> Result<vk::Image, Failure> {
        let info = vk::ImageCreateInfo::default()
            .image_type(vk::ImageType::TYPE_2D)
            .format(vk::Format::R8G8B8A8_UINT)
            .extent(EXTENT)
            .mip_levels(1)
            .array_layers(1)
            .samples(vk::SampleCountFlags::TYPE_1)
            .usage(vk::ImageUsageFlags::TRANSFER_SRC | vk::ImageUsageFlags::TRANSFER_DST);
        // SAFETY: a valid create info.
        let image = unsafe { self.device.create_image(&info, None) }?;
        // SAFETY: a live image.
        let requirements = unsafe { self.device.get_image_memory_requirements(image) };
        let local = vk::MemoryPropertyFlags::DEVICE_LOCAL;
        let memory_type = self
            .memory_type(requirements.memory_type_bits, local, vk::MemoryPropertyFlags::empty())
            .ok_or_else(|| "no memory for an image".to_string())?;
        let allocate = vk::MemoryAllocateInfo::default()
            .allocation_size(requirements.size)
            .memory_type_index(memory_type);
        // SAFETY: a type this image may use.
        unsafe {
            let memory = self.device.allocate_memory(&allocate, None)?;
            self.device.bind_image_memory(image, memory, 0)?;
        }
        Ok(image)
    }

    /// Records `there`, which writes an image that has had no layout so far, and `back`, which reads it.
    pub(crate) fn record_around_image(
        &self,
        image: vk::Image,
        there: impl FnOnce(vk::CommandBuffer),
        back: impl FnOnce(vk::CommandBuffer),
    ) -> Result<vk::CommandBuffer, Failure> {
        let (undefined, general) = (vk::ImageLayout::UNDEFINED, vk::ImageLayout::GENERAL);
        self.record(|commands| {
            self.image_barrier(commands, image, undefined, general);
            there(commands);
            self.image_barrier(commands, image, general, general);
            back(commands);
        })
    }

    /// Between two uses of an image by transfers.
    pub(crate) fn image_barrier(
        &self,
        commands: vk::CommandBuffer,
        image: vk::Image,
        from: vk::ImageLayout,
        to: vk::ImageLayout,
    ) {
        let barrier = [vk::ImageMemoryBarrier::default()
            .image(image)
            .old_layout(from)
            .new_layout(to)
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(vk::AccessFlags::TRANSFER_READ | vk::AccessFlags::TRANSFER_WRITE)
            .subresource_range(vk::ImageSubresourceRange {
                aspect_mask: vk::ImageAspectFlags::COLOR,
                level_count: 1,
                layer_count: 1,
                ..Default::default()
            })];
        let (transfer, none) = (vk::PipelineStageFlags::TRANSFER, vk::DependencyFlags::empty());
        // SAFETY: live objects.
        unsafe {
            self.device.cmd_pipeline_barrier(commands, transfer, transfer, none, &[], &[], &barrier);
        }
    }

    /// A copy of the whole of `from` to `to`.
    pub(crate) fn copy(&self, from: &Buffer, to: &Buffer) -> Result<vk::CommandBuffer, Failure> {
        let regions = [vk::BufferCopy::default().size(from.size.min(to.size))];
        // SAFETY: live buffers of that size.
        self.record(|commands| unsafe {
            self.device.cmd_copy_buffer(commands, from.buffer, to.buffer, &regions)
        })
    }

    /// The same once the host has set `event`.
    pub(crate) fn copy_after(
        &self,
        event: vk::Event,
        from: &Buffer,
        to: &Buffer,
    ) -> Result<vk::CommandBuffer, Failure> {
        let regions = [vk::BufferCopy::default().size(from.size.min(to.size))];
        let (host, transfer) = (vk::PipelineStageFlags::HOST, vk::PipelineStageFlags::TRANSFER);
        // SAFETY: live objects; the host sets the event.
        self.record(|commands| unsafe {
            self.device.cmd_wait_events(commands, &[event], host, transfer, &[], &[], &[]);
            self.device.cmd_copy_buffer(commands, from.buffer, to.buffer, &regions);
        })
    }

    /// Submits, and waits for a fence.
    pub(crate) fn run(&self, commands: vk::CommandBuffer) -> Result<(), Failure> {
        let fence = self.fence()?;
        self.submit(commands, fence)?;
        // SAFETY: a live fence, done with when it is destroyed.
        unsafe {
            self.device.wait_for_fences(&[fence], true, LONG)?;
            self.device.destroy_fence(fence, None);
        }
        Ok(())
    }

    /// Submits a batch that waits for the host, does something `meanwhile`, lets the batch go, and waits for it.
    pub(crate) fn run_after(
        &self,
        commands: vk::CommandBuffer,
        meanwhile: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (gate, fence) = (self.timeline()?, self.fence()?);
        let (gates, values, stages) = ([gate], [1], [vk::PipelineStageFlags::ALL_COMMANDS]);
        let commands = [commands];
        let mut timeline = vk::TimelineSemaphoreSubmitInfo::default().wait_semaphore_values(&values);
        let submits = [vk::SubmitInfo::default()
            .wait_semaphores(&gates)
            .wait_dst_stage_mask(&stages)
            .command_buffers(&commands)
            .push_next(&mut timeline)];
        // SAFETY: live objects, and a queue that one thread uses.
        unsafe { self.device.queue_submit(self.queue, &submits, fence) }?;
        let done = meanwhile();
        // SAFETY: as above; destroyed when the batch is done.
        unsafe {
            self.device.signal_semaphore(&vk::SemaphoreSignalInfo::default().semaphore(gate).value(1))?;
            self.device.wait_for_fences(&[fence], true, LONG)?;
            self.device.destroy_semaphore(gate, None);
            self.device.destroy_fence(fence, None);
        }
        done
    }

    pub(crate) fn submit(&self, commands: vk::CommandBuffer, fence: vk::Fence) -> Result<(), Failure> {
        let buffers = [commands];
        let submits = [vk::SubmitInfo::default().command_buffers(&buffers)];
        // SAFETY: a recorded command buffer, and a queue that one thread uses.
        Ok(unsafe { self.device.queue_submit(self.queue, &submits, fence) }?)
    }

    pub(crate) fn wait_idle(&self) -> Result<(), Failure> {
        // SAFETY: no other thread submits.
        Ok(unsafe { self.device.device_wait_idle() }?)
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: buffers hold the `Gpu`, so none is left; nothing is pending after the wait.
        unsafe {
            let _ = self.device.device_wait_idle();
            self.device.destroy_command_pool(self.pool, None);
        }
    }
}

/// The name that a command is to be looked up by, if there is one.
fn names() -> &'static [std::ffi::CString] {
    crate::COMMAND.get().map_or(&[], std::slice::from_ref)
}

/// A buffer with memory of its own.
pub(crate) struct Buffer {
    pub(crate) buffer: vk::Buffer,
    pub(crate) memory: vk::DeviceMemory,
    pub(crate) size: u64,
    mapped: std::cell::Cell<*mut u8>,
    gpu: Arc<Gpu>,
}

impl Buffer {
    /// In memory with all of `wanted` and none of `unwanted`; `None` if there is no such memory.
    pub(crate) fn new(
        gpu: &Arc<Gpu>,
        size: u64,
        usage: vk::BufferUsageFlags,
        wanted: vk::MemoryPropertyFlags,
        unwanted: vk::MemoryPropertyFlags,
    ) -> Result<Option<Self>, Failure> {
        Self::of_type(gpu, size, usage, |bits| gpu.memory_type(bits, wanted, unwanted))
    }

    /// In memory of the type that `choose` finds among those that the buffer may use.
    fn of_type(
        gpu: &Arc<Gpu>,
        size: u64,
        usage: vk::BufferUsageFlags,
        choose: impl FnOnce(u32) -> Option<u32>,
    ) -> Result<Option<Self>, Failure> {
        let info = vk::BufferCreateInfo::default().size(size).usage(usage);
        Self::extended(gpu, &info, choose, vk::MemoryAllocateInfo::default())
    }

    /// For copies, in coherent memory that others may share, and mapped: in new memory, or in that behind a handle.
    pub(crate) fn shared(gpu: &Arc<Gpu>, size: u64, handle: Option<OwnedFd>) -> Result<Self, Failure> {
        let kind = vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD;
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(kind);
        let info = vk::BufferCreateInfo::default().size(size).usage(COPIES).push_next(&mut external);
        let mut export = vk::ExportMemoryAllocateInfo::default().handle_types(kind);
        let mut import = vk::ImportMemoryFdInfoKHR::default().handle_type(kind);
        let mut allocate = vk::MemoryAllocateInfo::default().push_next(&mut export);
        if let Some(handle) = handle {
            // The import takes it over.
            import.fd = handle.into_raw_fd();
            allocate = allocate.push_next(&mut import);
        }
        let buffer = Self::extended(gpu, &info, |bits| gpu.coherent_type(bits), allocate)?;
        let buffer = buffer.ok_or_else(|| "no coherent memory can be shared".to_string())?;
        buffer.map()?;
        Ok(buffer)
    }

    /// A handle to the memory of a shared buffer.
    pub(crate) fn handle(&self) -> Result<OwnedFd, Failure> {
        let get = command!(self.gpu, vkGetMemoryFdKHR: PFN_vkGetMemoryFdKHR);
        let get = get.ok_or_else(|| "no vkGetMemoryFdKHR".to_string())?;
        let info = vk::MemoryGetFdInfoKHR::default()
            .memory(self.memory)
            .handle_type(vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD);
        let mut handle = -1;
        // SAFETY: memory that can be exported; the handle is nobody else's.
        unsafe {
            get(self.gpu.device.handle(), &raw const info, &raw mut handle).result()?;
            Ok(OwnedFd::from_raw_fd(handle))
        }
    }

    /// In memory of the type that `choose` finds, allocated as `allocate` has it but for size and type.
    fn extended(
        gpu: &Arc<Gpu>,
        info: &vk::BufferCreateInfo<'_>,
        choose: impl FnOnce(u32) -> Option<u32>,
        allocate: vk::MemoryAllocateInfo<'_>,
    ) -> Result<Option<Self>, Failure> {
        let size = info.size;
        // SAFETY: a live device; the buffer is destroyed in `drop`.
        let buffer = unsafe { gpu.device.create_buffer(info, None) }?;
        // SAFETY: a live buffer.
        let requirements = unsafe { gpu.device.get_buffer_memory_requirements(buffer) };
        let Some(memory_type) = choose(requirements.memory_type_bits) else {
            // SAFETY: never used.
            unsafe { gpu.device.destroy_buffer(buffer, None) };
            return Ok(None);
        };
        let info = allocate.allocation_size(requirements.size).memory_type_index(memory_type);
        // SAFETY: a type this buffer may use; the memory is freed in `drop`.
        let memory = unsafe {
            let memory = gpu.device.allocate_memory(&info, None)?;
            gpu.device.bind_buffer_memory(buffer, memory, 0)?;
            memory
        };
        let mapped = std::cell::Cell::new(std::ptr::null_mut());
        Ok(Some(Self { buffer, memory, size, mapped, gpu: gpu.clone() }))
    }

    pub(crate) fn map(&self) -> Result<(), Failure> {
        let flags = vk::MemoryMapFlags::empty();
        // SAFETY: host-visible memory that is not mapped.
        let address = unsafe { self.gpu.device.map_memory(self.memory, 0, vk::WHOLE_SIZE, flags) }?;
        self.mapped.set(address.cast());
        Ok(())
    }

    pub(crate) fn unmap(&self) {
        self.mapped.set(std::ptr::null_mut());
        // SAFETY: mapped by `map`.
        unsafe { self.gpu.device.unmap_memory(self.memory) }
    }

    /// Maps `bytes` of it at `address`.
    pub(crate) fn place(&self, address: *mut u8, bytes: Range<u64>) -> Result<(), Failure> {
        let map2 = self.map2()?;
        let size = bytes.end - bytes.start;
        // SAFETY: host-visible memory that is not mapped; the checks have nothing else at the address.
        let placed = unsafe { map2.place(self.memory, bytes.start, size, address) }?;
        if placed != address {
            return Err(format!("placed at {placed:p}, not at {address:p}").into());
        }
        let skipped = usize::try_from(bytes.start).expect("these buffers fit the address space");
        self.mapped.set(address.wrapping_sub(skipped));
        Ok(())
    }

    /// Unmaps it by structure, and leaves its addresses reserved if it `reserves`.
    pub(crate) fn unplace(&self, reserves: bool) -> Result<(), Failure> {
        self.mapped.set(std::ptr::null_mut());
        // SAFETY: mapped by `place` or `map`.
        Ok(unsafe { self.map2()?.unmap(self.memory, reserves) }?)
    }

    fn map2(&self) -> Result<&tidemark_tests::Map2, Failure> {
        self.gpu.map2.as_ref().ok_or_else(|| "no VK_KHR_map_memory2".to_string().into())
    }

    /// Where the byte at `offset` is mapped.
    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        assert!(!self.mapped.get().is_null() && offset as u64 <= self.size);
        self.mapped.get().wrapping_add(offset)
    }

    pub(crate) fn store(&self, offset: usize, value: u8) {
        // SAFETY: inside the mapping; volatile, as the device may read it at any time.
        unsafe { self.at(offset).write_volatile(value) }
    }

    pub(crate) fn load(&self, offset: usize) -> u8 {
        // SAFETY: inside the mapping; volatile, as the device may write it at any time.
        unsafe { self.at(offset).read_volatile() }
    }

    /// Stores words from an offset on.
    pub(crate) fn store_words(&self, offset: usize, words: &[u32]) {
        let bytes = words.iter().flat_map(|word| word.to_ne_bytes());
        (offset..).zip(bytes).for_each(|(offset, byte)| self.store(offset, byte));
    }

    /// Compares words from an offset on.
    pub(crate) fn expect_words(
        &self,
        offset: usize,
        wanted: impl IntoIterator<Item = u32>,
    ) -> Result<(), Failure> {
        for (index, wanted) in wanted.into_iter().enumerate() {
            let seen = u32::from_ne_bytes(std::array::from_fn(|byte| self.load(offset + index * 4 + byte)));
            if seen != wanted {
                return Err(format!("word {index} is {seen:#010x}, should be {wanted:#010x}").into());
            }
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.size).expect("buffers of these checks fit the address space")
    }

    pub(crate) fn fill(&self, value: u8) {
        (0..self.len()).for_each(|offset| self.store(offset, value));
    }

    /// Stores a pattern that no two seeds share.
    pub(crate) fn write_pattern(&self, seed: u8) {
        (0..self.len()).for_each(|offset| self.store(offset, pattern(seed, offset)));
    }

    /// Compares with the pattern of `seed`.
    pub(crate) fn expect_pattern(&self, seed: u8) -> Result<(), Failure> {
        self.expect(|offset| pattern(seed, offset))
    }

    /// Compares every byte.
    pub(crate) fn expect(&self, wanted: impl Fn(usize) -> u8) -> Result<(), Failure> {
        let wrong = |offset: &usize| self.load(*offset) != wanted(*offset);
        match (0..self.len()).find(wrong) {
            None => Ok(()),
            Some(offset) => Err(format!(
                "byte {offset} of {} is {:#04x}, should be {:#04x}",
                self.size,
                self.load(offset),
                wanted(offset)
            )
            .into()),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the checks wait before they drop; freeing memory also unmaps it.
        unsafe {
            self.gpu.device.destroy_buffer(self.buffer, None);
            self.gpu.device.free_memory(self.memory, None);
        }
    }
}

fn pattern(seed: u8, offset: usize) -> u8 {
    let bytes = offset.wrapping_mul(31).to_le_bytes();
    (bytes[0] ^ bytes[1] ^ bytes[2]).wrapping_add(seed)
}
