//! The image that the frames are drawn into, with its render pass and framebuffer.

use std::rc::Rc;

use ash::vk;
use gpu_allocator::MemoryLocation;
use gpu_allocator::vulkan::{Allocation, AllocationCreateDesc, AllocationScheme};

use crate::error::{Context, Error, Result};
use crate::gpu::Gpu;
use crate::options::Size;
use crate::owned::Owned;

pub(crate) const FORMAT: vk::Format = vk::Format::R8G8B8A8_UNORM;
/// Bytes of a pixel in this format.
pub(crate) const PIXEL_BYTES: usize = 4;
/// The whole of a colour image.
pub(crate) const LAYERS: vk::ImageSubresourceLayers = vk::ImageSubresourceLayers {
    aspect_mask: vk::ImageAspectFlags::COLOR,
    mip_level: 0,
    base_array_layer: 0,
    layer_count: 1,
};

/// After the render pass the image is in `TRANSFER_SRC_OPTIMAL`, ready to be copied by what follows.
pub(crate) struct Target {
    pub(crate) size: Size,
    // In the order of destruction.
    pub(crate) framebuffer: Owned<vk::Framebuffer>,
    pub(crate) render_pass: Owned<vk::RenderPass>,
    _view: Owned<vk::ImageView>,
    pub(crate) image: Owned<vk::Image>,
    _memory: Memory,
}

impl Target {
    pub(crate) fn new(gpu: &Rc<Gpu>, size: Size) -> Result<Self> {
        let limits = &gpu.physical.limits;
        let widest = limits
            .max_image_dimension2_d
            .min(limits.max_framebuffer_width)
            .min(limits.max_viewport_dimensions[0]);
        let highest = limits
            .max_image_dimension2_d
            .min(limits.max_framebuffer_height)
            .min(limits.max_viewport_dimensions[1]);
        if u32::from(size.width) > widest || u32::from(size.height) > highest {
            return Err(Error::new(format!(
                "--size {}x{} is more than {} can draw: {widest}x{highest}",
                size.width, size.height, gpu.physical.name
            )));
        }
        let (image, memory) = image(gpu, size)?;
        let view = view(gpu, image.get())?;
        let render_pass = render_pass(gpu)?;
        let attachments = [view.get()];
        let info = vk::FramebufferCreateInfo::default()
            .render_pass(render_pass.get())
            .attachments(&attachments)
            .width(size.width.into())
            .height(size.height.into())
            .layers(1);
        // SAFETY: render pass and view are live, fit each other, and the view is as large as the framebuffer.
        // `Owned` destroys it, with the whole target, when the device is done with the frames.
        let framebuffer = unsafe {
            let framebuffer = gpu.device().create_framebuffer(&info, None).context("vkCreateFramebuffer")?;
            Owned::new(gpu, framebuffer, ash::Device::destroy_framebuffer)
        };
        Ok(Self { size, framebuffer, render_pass, _view: view, image, _memory: memory })
    }
}

/// The memory of the image, given back when the image is gone.
struct Memory {
    allocation: Allocation,
    gpu: Rc<Gpu>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        let allocation = std::mem::take(&mut self.allocation);
        // The allocator only refuses what it did not allocate.
        let _ = self.gpu.allocator.borrow_mut().free(allocation);
    }
}

fn image(gpu: &Rc<Gpu>, size: Size) -> Result<(Owned<vk::Image>, Memory)> {
    let info = vk::ImageCreateInfo::default()
        .image_type(vk::ImageType::TYPE_2D)
        .format(FORMAT)
        .extent(size.extent().into())
        .mip_levels(1)
        .array_layers(1)
        .samples(vk::SampleCountFlags::TYPE_1)
        .tiling(vk::ImageTiling::OPTIMAL)
        .usage(vk::ImageUsageFlags::COLOR_ATTACHMENT | vk::ImageUsageFlags::TRANSFER_SRC)
        .sharing_mode(vk::SharingMode::EXCLUSIVE)
        .initial_layout(vk::ImageLayout::UNDEFINED);
    // SAFETY: every device supports such an image up to its limits, which the caller has looked at;
    // `Owned` destroys it, before its memory, when the device is done with the frames.
    let image = unsafe {
        let image = gpu.device().create_image(&info, None).context("vkCreateImage")?;
        Owned::new(gpu, image, ash::Device::destroy_image)
    };
    // SAFETY: the image is a live one of this device.
    let requirements = unsafe { gpu.device().get_image_memory_requirements(image.get()) };
    let desc = AllocationCreateDesc {
        name: "picture",
        requirements,
        location: MemoryLocation::GpuOnly,
        linear: false,
        allocation_scheme: AllocationScheme::GpuAllocatorManaged,
    };
    let allocation = gpu.allocator.borrow_mut().allocate(&desc).context("memory for the picture")?;
    let memory = Memory { allocation, gpu: Rc::clone(gpu) };
    // SAFETY: the allocation was made for this image's requirements; the image is bound once, here.
    unsafe {
        let (at, offset) = (memory.allocation.memory(), memory.allocation.offset());
        gpu.device().bind_image_memory(image.get(), at, offset)
    }
    .context("vkBindImageMemory")?;
    Ok((image, memory))
}

fn view(gpu: &Rc<Gpu>, image: vk::Image) -> Result<Owned<vk::ImageView>> {
    let range = vk::ImageSubresourceRange::default()
        .aspect_mask(vk::ImageAspectFlags::COLOR)
        .level_count(1)
        .layer_count(1);
    let info = vk::ImageViewCreateInfo::default()
        .image(image)
        .view_type(vk::ImageViewType::TYPE_2D)
        .format(FORMAT)
        .subresource_range(range);
    // SAFETY: the image is live, bound, and of this format; `Owned` destroys the view before the image.
    unsafe {
        let view = gpu.device().create_image_view(&info, None).context("vkCreateImageView")?;
        Ok(Owned::new(gpu, view, ash::Device::destroy_image_view))
    }
}

fn render_pass(gpu: &Rc<Gpu>) -> Result<Owned<vk::RenderPass>> {
    let attachments = [vk::AttachmentDescription::default()
        .format(FORMAT)
        .samples(vk::SampleCountFlags::TYPE_1)
        .load_op(vk::AttachmentLoadOp::CLEAR)
        .store_op(vk::AttachmentStoreOp::STORE)
        .stencil_load_op(vk::AttachmentLoadOp::DONT_CARE)
        .stencil_store_op(vk::AttachmentStoreOp::DONT_CARE)
        .initial_layout(vk::ImageLayout::UNDEFINED)
        .final_layout(vk::ImageLayout::TRANSFER_SRC_OPTIMAL)];
    let colours = [vk::AttachmentReference::default().layout(vk::ImageLayout::COLOR_ATTACHMENT_OPTIMAL)];
    let subpasses = [vk::SubpassDescription::default()
        .pipeline_bind_point(vk::PipelineBindPoint::GRAPHICS)
        .color_attachments(&colours)];
    let dependencies = [
        // The frame before has been drawn, and copied to the window.
        vk::SubpassDependency::default()
            .src_subpass(vk::SUBPASS_EXTERNAL)
            .dst_subpass(0)
            .src_stage_mask(
                vk::PipelineStageFlags::COLOR_ATTACHMENT_OUTPUT | vk::PipelineStageFlags::TRANSFER,
            )
            .src_access_mask(vk::AccessFlags::COLOR_ATTACHMENT_WRITE)
            .dst_stage_mask(vk::PipelineStageFlags::COLOR_ATTACHMENT_OUTPUT)
            .dst_access_mask(vk::AccessFlags::COLOR_ATTACHMENT_WRITE),
        // Whatever copies the image sees it drawn.
        vk::SubpassDependency::default()
            .src_subpass(0)
            .dst_subpass(vk::SUBPASS_EXTERNAL)
            .src_stage_mask(vk::PipelineStageFlags::COLOR_ATTACHMENT_OUTPUT)
            .src_access_mask(vk::AccessFlags::COLOR_ATTACHMENT_WRITE)
            .dst_stage_mask(vk::PipelineStageFlags::TRANSFER)
            .dst_access_mask(vk::AccessFlags::TRANSFER_READ),
    ];
    let info = vk::RenderPassCreateInfo::default()
        .attachments(&attachments)
        .subpasses(&subpasses)
        .dependencies(&dependencies);
    // SAFETY: `info` points to data that outlive the call; `Owned` destroys the render pass after the
    // framebuffer, when the device is done with the frames.
    unsafe {
        let render_pass = gpu.device().create_render_pass(&info, None).context("vkCreateRenderPass")?;
        Ok(Owned::new(gpu, render_pass, ash::Device::destroy_render_pass))
    }
}
