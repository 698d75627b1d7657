//! The picture as bytes: read back through a coherent buffer, and written as PNG.

use std::fs;
use std::path::Path;
use std::rc::Rc;

use ash::vk;
use gpu_allocator::MemoryLocation::GpuToCpu;

use crate::buffer::Buffer;
use crate::error::{Context, Result};
use crate::gpu::Gpu;
use crate::options::Size;
use crate::target::{LAYERS, PIXEL_BYTES, Target};

/// A buffer that the picture fits into.
pub(crate) fn buffer(gpu: &Rc<Gpu>, size: Size) -> Result<Buffer> {
    let bytes = usize::from(size.width) * usize::from(size.height) * PIXEL_BYTES;
    Buffer::new(gpu, "picture", bytes, vk::BufferUsageFlags::TRANSFER_DST, GpuToCpu)
}

/// Records the copy of the picture into that buffer.
pub(crate) fn record_copy(gpu: &Gpu, commands: vk::CommandBuffer, target: &Target, buffer: &Buffer) {
    let device = gpu.device();
    let region =
        vk::BufferImageCopy::default().image_subresource(LAYERS).image_extent(target.size.extent().into());
    let to_host = vk::MemoryBarrier::default()
        .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
        .dst_access_mask(vk::AccessFlags::HOST_READ);
    // SAFETY: the command buffer is being recorded, outside a render pass; the image is in the layout
    // that its render pass left it in, and the buffer has room for all of it.
    unsafe {
        device.cmd_copy_image_to_buffer(
            commands,
            target.image.get(),
            vk::ImageLayout::TRANSFER_SRC_OPTIMAL,
            buffer.handle(),
            &[region],
        );
        device.cmd_pipeline_barrier(
            commands,
            vk::PipelineStageFlags::TRANSFER,
            vk::PipelineStageFlags::HOST,
            vk::DependencyFlags::empty(),
            &[to_host],
            &[],
            &[],
        );
    }
}

/// Writes RGBA pixels as a PNG file.
pub(crate) fn write_png(path: &Path, size: Size, pixels: &[u8]) -> Result<()> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, size.width.into(), size.height.into());
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    let encode = || {
        let mut writer = encoder.write_header()?;
        writer.write_image_data(pixels)?;
        writer.finish()
    };
    encode().context("PNG")?;
    fs::write(path, file).context(&format!("cannot write {}", path.display()))
}
