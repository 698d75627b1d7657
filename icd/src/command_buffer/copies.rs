//! Commands that read or write buffers outright.

use super::record;
use crate::references::Access::{Read, Write};
use ash::vk;
use std::ffi::c_void;
use std::slice;

/// The most bytes of a buffer that a copy from or to an image can touch, from the region's offset on: a texel has 32
/// bytes at most, and rows and slices may be longer than the copied part. VkBufferImageCopy and VkBufferImageCopy2 have
/// the same fields.
macro_rules! image_bytes {
    ($region:expr) => {
        [
            $region.buffer_row_length.max($region.image_extent.width),
            $region.buffer_image_height.max($region.image_extent.height),
            $region.image_extent.depth,
            $region.image_subresource.layer_count,
        ]
        .into_iter()
        .fold(32, |bytes: u64, factor| bytes.saturating_mul(u64::from(factor)))
    };
}

/// vkCmdCopyBuffer.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn copy_buffer(
    commands: vk::CommandBuffer,
    from: vk::Buffer,
    to: vk::Buffer,
    count: u32,
    regions: *const vk::BufferCopy,
) {
    // SAFETY: a live command buffer, and at least one region; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdCopyBuffer,
            |coherence, references| {
                for region in slice::from_raw_parts(regions, count as usize) {
                    references.add(coherence, from, region.src_offset, region.size, Read);
                    references.add(coherence, to, region.dst_offset, region.size, Write);
                }
            },
            |copy| copy(commands, from, to, count, regions),
        );
    }
}

/// vkCmdCopyBuffer2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn copy_buffer2(commands: vk::CommandBuffer, info: *const vk::CopyBufferInfo2<'_>) {
    // SAFETY: a live command buffer, and a valid structure with its regions; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdCopyBuffer2,
            |coherence, references| {
                let info = &*info;
                let regions = slice::from_raw_parts(info.p_regions, info.region_count as usize);
                for region in regions {
                    references.add(coherence, info.src_buffer, region.src_offset, region.size, Read);
                    references.add(coherence, info.dst_buffer, region.dst_offset, region.size, Write);
                }
            },
            |copy| copy(commands, info),
        );
    }
}

/// vkCmdCopyBufferToImage.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn copy_buffer_to_image(
    commands: vk::CommandBuffer,
    from: vk::Buffer,
    image: vk::Image,
    layout: vk::ImageLayout,
    count: u32,
    regions: *const vk::BufferImageCopy,
) {
    // SAFETY: a live command buffer, and at least one region; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdCopyBufferToImage,
            |coherence, references| {
                for region in slice::from_raw_parts(regions, count as usize) {
                    let size = image_bytes!(region);
                    references.add(coherence, from, region.buffer_offset, size, Read);
                }
            },
            |copy| copy(commands, from, image, layout, count, regions),
        );
    }
}

/// vkCmdCopyBufferToImage2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn copy_buffer_to_image2(
    commands: vk::CommandBuffer,
    info: *const vk::CopyBufferToImageInfo2<'_>,
) {
    // SAFETY: a live command buffer, and a valid structure with its regions; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdCopyBufferToImage2,
            |coherence, references| {
                let info = &*info;
                let regions = slice::from_raw_parts(info.p_regions, info.region_count as usize);
                for region in regions {
                    let size = image_bytes!(region);
                    references.add(coherence, info.src_buffer, region.buffer_offset, size, Read);
                }
            },
            |copy| copy(commands, info),
        );
    }
}

/// vkCmdCopyImageToBuffer.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn copy_image_to_buffer(
    commands: vk::CommandBuffer,
    image: vk::Image,
    layout: vk::ImageLayout,
    to: vk::Buffer,
    count: u32,
    regions: *const vk::BufferImageCopy,
) {
    // SAFETY: a live command buffer, and at least one region; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdCopyImageToBuffer,
            |coherence, references| {
                for region in slice::from_raw_parts(regions, count as usize) {
                    let size = image_bytes!(region);
                    references.add(coherence, to, region.buffer_offset, size, Write);
                }
            },
            |copy| copy(commands, image, layout, to, count, regions),
        );
    }
}

/// vkCmdCopyImageToBuffer2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn copy_image_to_buffer2(
    commands: vk::CommandBuffer,
    info: *const vk::CopyImageToBufferInfo2<'_>,
) {
    // SAFETY: a live command buffer, and a valid structure with its regions; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdCopyImageToBuffer2,
            |coherence, references| {
                let info = &*info;
                let regions = slice::from_raw_parts(info.p_regions, info.region_count as usize);
                for region in regions {
                    let size = image_bytes!(region);
                    references.add(coherence, info.dst_buffer, region.buffer_offset, size, Write);
                }
            },
            |copy| copy(commands, info),
        );
    }
}

/// vkCmdUpdateBuffer.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn update_buffer(
    commands: vk::CommandBuffer,
    to: vk::Buffer,
    offset: vk::DeviceSize,
    size: vk::DeviceSize,
    data: *const c_void,
) {
    // SAFETY: a live command buffer; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdUpdateBuffer,
            |coherence, references| references.add(coherence, to, offset, size, Write),
            |update| update(commands, to, offset, size, data),
        );
    }
}

/// vkCmdFillBuffer.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn fill_buffer(
    commands: vk::CommandBuffer,
    to: vk::Buffer,
    offset: vk::DeviceSize,
    size: vk::DeviceSize,
    value: u32,
) {
    // SAFETY: a live command buffer; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdFillBuffer,
            |coherence, references| references.add(coherence, to, offset, size, Write),
            |fill| fill(commands, to, offset, size, value),
        );
    }
}

/// vkCmdCopyQueryPoolResults.
///
/// # Safety
/// As the specification demands.
#[expect(clippy::too_many_arguments, reason = "as many as the specification says")]
pub(crate) unsafe fn copy_query_pool_results(
    commands: vk::CommandBuffer,
    pool: vk::QueryPool,
    first: u32,
    count: u32,
    to: vk::Buffer,
    offset: vk::DeviceSize,
    stride: vk::DeviceSize,
    flags: vk::QueryResultFlags,
) {
    // SAFETY: a live command buffer; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdCopyQueryPoolResults,
            // How much a query stores depends on its kind.
            |coherence, references| {
                references.add(coherence, to, offset, vk::WHOLE_SIZE, Write);
            },
            |copy| copy(commands, pool, first, count, to, offset, stride, flags),
        );
    }
}
