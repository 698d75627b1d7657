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
    record(
        commands,
        |fns| fns.vkCmdCopyBuffer,
        |coherence, references| {
            let (from, to) = (coherence.buffer(from), coherence.buffer(to));
            // SAFETY: valid for `count` elements, of which there is at least one.
            for region in unsafe { slice::from_raw_parts(regions, count as usize) } {
                references.add(from.as_ref(), region.src_offset, region.size, Read);
                references.add(to.as_ref(), region.dst_offset, region.size, Write);
            }
        },
        // SAFETY: the arguments are passed on as they came.
        |copy| unsafe { copy(commands, from, to, count, regions) },
    );
}

/// vkCmdCopyBuffer2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn copy_buffer2(commands: vk::CommandBuffer, info: *const vk::CopyBufferInfo2<'_>) {
    record(
        commands,
        |fns| fns.vkCmdCopyBuffer2,
        |coherence, references| {
            // SAFETY: a valid structure with its regions.
            let (info, regions) = unsafe {
                let info = &*info;
                (info, slice::from_raw_parts(info.p_regions, info.region_count as usize))
            };
            let (from, to) = (coherence.buffer(info.src_buffer), coherence.buffer(info.dst_buffer));
            for region in regions {
                references.add(from.as_ref(), region.src_offset, region.size, Read);
                references.add(to.as_ref(), region.dst_offset, region.size, Write);
            }
        },
        // SAFETY: the arguments are passed on as they came.
        |copy| unsafe { copy(commands, info) },
    );
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
    record(
        commands,
        |fns| fns.vkCmdCopyBufferToImage,
        |coherence, references| {
            let from = coherence.buffer(from);
            // SAFETY: valid for `count` elements, of which there is at least one.
            for region in unsafe { slice::from_raw_parts(regions, count as usize) } {
                let size = image_bytes!(region);
                references.add(from.as_ref(), region.buffer_offset, size, Read);
            }
        },
        // SAFETY: the arguments are passed on as they came.
        |copy| unsafe { copy(commands, from, image, layout, count, regions) },
    );
}

/// vkCmdCopyBufferToImage2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn copy_buffer_to_image2(
    commands: vk::CommandBuffer,
    info: *const vk::CopyBufferToImageInfo2<'_>,
) {
    record(
        commands,
        |fns| fns.vkCmdCopyBufferToImage2,
        |coherence, references| {
            // SAFETY: a valid structure with its regions.
            let (info, regions) = unsafe {
                let info = &*info;
                (info, slice::from_raw_parts(info.p_regions, info.region_count as usize))
            };
            let from = coherence.buffer(info.src_buffer);
            for region in regions {
                let size = image_bytes!(region);
                references.add(from.as_ref(), region.buffer_offset, size, Read);
            }
        },
        // SAFETY: the arguments are passed on as they came.
        |copy| unsafe { copy(commands, info) },
    );
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
    record(
        commands,
        |fns| fns.vkCmdCopyImageToBuffer,
        |coherence, references| {
            let to = coherence.buffer(to);
            // SAFETY: valid for `count` elements, of which there is at least one.
            for region in unsafe { slice::from_raw_parts(regions, count as usize) } {
                let size = image_bytes!(region);
                references.add(to.as_ref(), region.buffer_offset, size, Write);
            }
        },
        // SAFETY: the arguments are passed on as they came.
        |copy| unsafe { copy(commands, image, layout, to, count, regions) },
    );
}

/// vkCmdCopyImageToBuffer2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn copy_image_to_buffer2(
    commands: vk::CommandBuffer,
    info: *const vk::CopyImageToBufferInfo2<'_>,
) {
    record(
        commands,
        |fns| fns.vkCmdCopyImageToBuffer2,
        |coherence, references| {
            // SAFETY: a valid structure with its regions.
            let (info, regions) = unsafe {
                let info = &*info;
                (info, slice::from_raw_parts(info.p_regions, info.region_count as usize))
            };
            let to = coherence.buffer(info.dst_buffer);
            for region in regions {
                let size = image_bytes!(region);
                references.add(to.as_ref(), region.buffer_offset, size, Write);
            }
        },
        // SAFETY: the arguments are passed on as they came.
        |copy| unsafe { copy(commands, info) },
    );
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
    record(
        commands,
        |fns| fns.vkCmdUpdateBuffer,
        |coherence, references| references.add(coherence.buffer(to).as_ref(), offset, size, Write),
        // SAFETY: the arguments are passed on as they came.
        |update| unsafe { update(commands, to, offset, size, data) },
    );
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
    record(
        commands,
        |fns| fns.vkCmdFillBuffer,
        |coherence, references| references.add(coherence.buffer(to).as_ref(), offset, size, Write),
        // SAFETY: the arguments are passed on as they came.
        |fill| unsafe { fill(commands, to, offset, size, value) },
    );
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
    record(
        commands,
        |fns| fns.vkCmdCopyQueryPoolResults,
        // How much a query stores depends on its kind.
        |coherence, references| {
            references.add(coherence.buffer(to).as_ref(), offset, vk::WHOLE_SIZE, Write);
        },
        // SAFETY: the arguments are passed on as they came.
        |copy| unsafe { copy(commands, pool, first, count, to, offset, stride, flags) },
    );
}
