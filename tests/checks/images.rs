//! Images in mapped memory, and the host's own copies to and from them.

use ash::vk;

use crate::gpu::{Buffer, EXTENT, Gpu, LAYERS, ROUND_TRIP, command};
use crate::{Failure, Outcome, Verdict};
use std::sync::Arc;

pub(crate) const CHECKS: &[super::Check] = &[
    ("linear-image", || linear_image(false)),
    ("linear-image2", || linear_image(true)),
    ("copy-memory-to-image", copy_memory_to_image),
    ("copy-image-to-memory", copy_image_to_memory),
    ("copy-image-to-image", copy_image_to_image),
    ("transition-image-layout", transition_image_layout),
];

const NO_HOST_COPIES: Outcome = Outcome::Skipped("the host cannot copy images");

const GENERAL: vk::ImageLayout = vk::ImageLayout::GENERAL;

/// An image of [`EXTENT`] whose rows lie in mapped memory.
struct Image {
    gpu: Arc<Gpu>,
    image: vk::Image,
    memory: vk::DeviceMemory,
    /// Its first texel.
    address: *mut u8,
    /// Bytes from row to row.
    pitch: usize,
}

impl Image {
    /// Bound by vkBindImageMemory2 if `by_structure`.
    fn new(gpu: &Arc<Gpu>, usage: vk::ImageUsageFlags, by_structure: bool) -> Result<Self, Failure> {
        let device = &gpu.device;
        let info = vk::ImageCreateInfo::default()
            .image_type(vk::ImageType::TYPE_2D)
            .format(vk::Format::R8G8B8A8_UINT)
            .extent(EXTENT)
            .mip_levels(1)
            .array_layers(1)
            .samples(vk::SampleCountFlags::TYPE_1)
            .tiling(vk::ImageTiling::LINEAR)
            .initial_layout(vk::ImageLayout::PREINITIALIZED)
            .usage(usage | vk::ImageUsageFlags::TRANSFER_SRC | vk::ImageUsageFlags::TRANSFER_DST);
        // SAFETY: a valid create info; destroyed in `drop`, like the memory.
        let (image, requirements) = unsafe {
            let image = device.create_image(&info, None)?;
            (image, device.get_image_memory_requirements(image))
        };
        let memory_type = gpu
            .coherent_type(requirements.memory_type_bits)
            .ok_or_else(|| "no coherent memory for a linear image".to_string())?;
        let allocate = vk::MemoryAllocateInfo::default()
            .allocation_size(requirements.size)
            .memory_type_index(memory_type);
        let part = vk::ImageSubresource::default().aspect_mask(vk::ImageAspectFlags::COLOR);
        // SAFETY: a type this image may use.
        let (memory, address, layout) = unsafe {
            let memory = device.allocate_memory(&allocate, None)?;
            if by_structure {
                device
                    .bind_image_memory2(&[vk::BindImageMemoryInfo::default().image(image).memory(memory)])?;
            } else {
                device.bind_image_memory(image, memory, 0)?;
            }
            let address = device.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())?;
            (memory, address.cast::<u8>(), device.get_image_subresource_layout(image, part))
        };
        let address = address.wrapping_add(usize::try_from(layout.offset).unwrap_or(0));
        let pitch = usize::try_from(layout.row_pitch).unwrap_or(0);
        Ok(Self { gpu: gpu.clone(), image, memory, address, pitch })
    }

    /// Where byte `offset` of the texels lies, without what is between rows.
    fn at(&self, offset: usize) -> *mut u8 {
        let row = EXTENT.width as usize * 4;
        self.address.wrapping_add(offset / row * self.pitch + offset % row)
    }

    fn store(&self, seed: u8) {
        // SAFETY: inside the mapping.
        (0..SIZE).for_each(|offset| unsafe { self.at(offset).write_volatile(pattern(seed, offset)) });
    }

    fn expect(&self, seed: u8) -> Result<(), Failure> {
        // SAFETY: inside the mapping.
        expect(seed, |offset| unsafe { self.at(offset).read_volatile() })
    }

    /// By the device.
    fn become_general(&self) -> Result<(), Failure> {
        let commands = self.gpu.record(|commands| {
            self.gpu.image_barrier(commands, self.image, vk::ImageLayout::PREINITIALIZED, GENERAL);
        })?;
        self.gpu.run(commands)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: the checks wait before they drop.
        unsafe {
            self.gpu.device.destroy_image(self.image, None);
            self.gpu.device.free_memory(self.memory, None);
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const SIZE: usize = ROUND_TRIP as usize;

fn pattern(seed: u8, offset: usize) -> u8 {
    (offset / 251).to_le_bytes()[0].wrapping_mul(31).wrapping_add(offset.to_le_bytes()[0]).wrapping_add(seed)
}

fn expect(seed: u8, load: impl Fn(usize) -> u8) -> Result<(), Failure> {
    match (0..SIZE).find(|&offset| load(offset) != pattern(seed, offset)) {
        None => Ok(()),
        Some(offset) => {
            let (seen, wanted) = (load(offset), pattern(seed, offset));
            Err(format!("byte {offset} of the image is {seen:#04x}, should be {wanted:#04x}").into())
        }
    }
}

/// The host writes the texels, the device reads them; and back.
fn linear_image(by_structure: bool) -> Verdict {
    let gpu = Gpu::new()?;
    let image = Image::new(&gpu, vk::ImageUsageFlags::empty(), by_structure)?;
    let buffer = gpu.coherent(ROUND_TRIP)?;
    image.become_general()?;
    let regions = [vk::BufferImageCopy::default().image_subresource(LAYERS).image_extent(EXTENT)];
    // SAFETY: live objects, here and below.
    let there = gpu.record(|commands| unsafe {
        gpu.device.cmd_copy_image_to_buffer(commands, image.image, GENERAL, buffer.buffer, &regions);
    })?;
    let back = copy_to(&gpu, &buffer, &image)?;
    for round in 0..4 {
        image.store(round);
        gpu.run(there)?;
        expect(round, |offset| buffer.load(offset))?;
        (0..SIZE).for_each(|offset| buffer.store(offset, pattern(round + 100, offset)));
        gpu.run(back)?;
        image.expect(round + 100)?;
    }
    Ok(Outcome::Passed)
}

fn copy_to(gpu: &Gpu, buffer: &Buffer, image: &Image) -> Result<vk::CommandBuffer, Failure> {
    let regions = [vk::BufferImageCopy::default().image_subresource(LAYERS).image_extent(EXTENT)];
    // SAFETY: live objects.
    gpu.record(|commands| unsafe {
        gpu.device.cmd_copy_buffer_to_image(commands, buffer.buffer, image.image, GENERAL, &regions);
    })
}

/// Images that the host may copy; `None` if it may none.
fn host_images<const COUNT: usize>(gpu: &Arc<Gpu>) -> Result<Option<[Image; COUNT]>, Failure> {
    if command!(gpu, vkCopyMemoryToImageEXT: PFN_vkCopyMemoryToImageEXT).is_none() {
        return Ok(None);
    }
    let mut images = Vec::new();
    for _ in 0..COUNT {
        let image = Image::new(gpu, vk::ImageUsageFlags::HOST_TRANSFER_EXT, false)?;
        image.become_general()?;
        images.push(image);
    }
    Ok(images.try_into().ok())
}

/// By vkCopyMemoryToImage.
fn write(image: &Image, seed: u8) -> Result<(), Failure> {
    let Some(copy) = command!(image.gpu, vkCopyMemoryToImageEXT: PFN_vkCopyMemoryToImageEXT) else {
        return Err("no vkCopyMemoryToImage".to_string().into());
    };
    let bytes: Vec<u8> = (0..SIZE).map(|offset| pattern(seed, offset)).collect();
    let regions = [vk::MemoryToImageCopyEXT::default()
        .host_pointer(bytes.as_ptr().cast())
        .image_subresource(LAYERS)
        .image_extent(EXTENT)];
    let info = vk::CopyMemoryToImageInfoEXT::default()
        .dst_image(image.image)
        .dst_image_layout(GENERAL)
        .regions(&regions);
    // SAFETY: live objects, and as many bytes as the image has.
    Ok(unsafe { copy(image.gpu.device.handle(), &raw const info) }.result()?)
}

fn copy_memory_to_image() -> Verdict {
    let gpu = Gpu::new()?;
    let Some([image]) = host_images(&gpu)? else { return Ok(NO_HOST_COPIES) };
    for round in 0..4 {
        write(&image, round)?;
        image.expect(round)?;
    }
    Ok(Outcome::Passed)
}

fn copy_image_to_memory() -> Verdict {
    let gpu = Gpu::new()?;
    let Some([image]) = host_images(&gpu)? else { return Ok(NO_HOST_COPIES) };
    let Some(copy) = command!(gpu, vkCopyImageToMemoryEXT: PFN_vkCopyImageToMemoryEXT) else {
        return Ok(NO_HOST_COPIES);
    };
    let mut bytes = vec![0u8; SIZE];
    for round in 0..4 {
        image.store(round);
        let regions = [vk::ImageToMemoryCopyEXT::default()
            .host_pointer(bytes.as_mut_ptr().cast())
            .image_subresource(LAYERS)
            .image_extent(EXTENT)];
        let info = vk::CopyImageToMemoryInfoEXT::default()
            .src_image(image.image)
            .src_image_layout(GENERAL)
            .regions(&regions);
        // SAFETY: live objects, and room for as many bytes as the image has.
        unsafe { copy(gpu.device.handle(), &raw const info) }.result()?;
        expect(round, |offset| bytes[offset])?;
    }
    Ok(Outcome::Passed)
}

fn copy_image_to_image() -> Verdict {
    let gpu = Gpu::new()?;
    let Some([from, to]) = host_images(&gpu)? else { return Ok(NO_HOST_COPIES) };
    let Some(copy) = command!(gpu, vkCopyImageToImageEXT: PFN_vkCopyImageToImageEXT) else {
        return Ok(NO_HOST_COPIES);
    };
    let regions = [vk::ImageCopy2::default().src_subresource(LAYERS).dst_subresource(LAYERS).extent(EXTENT)];
    let info = vk::CopyImageToImageInfoEXT::default()
        .src_image(from.image)
        .src_image_layout(GENERAL)
        .dst_image(to.image)
        .dst_image_layout(GENERAL)
        .regions(&regions);
    for round in 0..4 {
        from.store(round);
        // SAFETY: live objects.
        unsafe { copy(gpu.device.handle(), &raw const info) }.result()?;
        to.expect(round)?;
    }
    Ok(Outcome::Passed)
}

/// Contents outlive a change of layout by the host.
fn transition_image_layout() -> Verdict {
    let gpu = Gpu::new()?;
    let Some([image]) = host_images(&gpu)? else { return Ok(NO_HOST_COPIES) };
    let Some(change) = command!(gpu, vkTransitionImageLayoutEXT: PFN_vkTransitionImageLayoutEXT) else {
        return Ok(NO_HOST_COPIES);
    };
    let buffer = gpu.coherent(ROUND_TRIP)?;
    let copy = copy_to(&gpu, &buffer, &image)?;
    let info = vk::HostImageLayoutTransitionInfoEXT::default()
        .image(image.image)
        .old_layout(GENERAL)
        .new_layout(GENERAL)
        .subresource_range(vk::ImageSubresourceRange {
            aspect_mask: vk::ImageAspectFlags::COLOR,
            level_count: 1,
            layer_count: 1,
            ..Default::default()
        });
    for round in 0..4 {
        (0..SIZE).for_each(|offset| buffer.store(offset, pattern(round, offset)));
        gpu.run(copy)?;
        // SAFETY: live objects.
        unsafe { change(gpu.device.handle(), 1, &raw const info) }.result()?;
        image.expect(round)?;
    }
    Ok(Outcome::Passed)
}
