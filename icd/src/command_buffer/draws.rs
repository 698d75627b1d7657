//! Commands that bind buffers for draws, or take their parameters from buffers.

use super::record;
use crate::coherence::Coherence;
use crate::references::Access::{self, Read, Write};
use crate::references::References;
use ash::vk;

/// Notes buffers that are bound by arrays. Null handles, and null arrays of offsets and sizes, are allowed.
///
/// # Safety
/// Each array must be null or valid for `count` elements.
unsafe fn add_arrays(
    coherence: &Coherence,
    references: &mut References,
    count: u32,
    buffers: *const vk::Buffer,
    offsets: *const vk::DeviceSize,
    sizes: *const vk::DeviceSize,
    access: Access,
) {
    if buffers.is_null() {
        return;
    }
    for index in 0..count as usize {
        // SAFETY: the caller's promise.
        let (buffer, offset, size) = unsafe {
            (
                *buffers.add(index),
                if offsets.is_null() { 0 } else { *offsets.add(index) },
                if sizes.is_null() { vk::WHOLE_SIZE } else { *sizes.add(index) },
            )
        };
        if buffer != vk::Buffer::null() {
            references.add(coherence, buffer, offset, size, access);
        }
    }
}

/// Commands that name buffers by arrays of handles and offsets.
macro_rules! arrays {
    ($($(#[$doc:meta])* $name:ident: $command:ident, $access:expr;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            /// As the specification demands.
            pub(crate) unsafe fn $name(
                commands: vk::CommandBuffer,
                first: u32,
                count: u32,
                buffers: *const vk::Buffer,
                offsets: *const vk::DeviceSize,
            ) {
                // SAFETY: a live command buffer, and valid arrays; the arguments are passed on as they came.
                unsafe {
                    record(
                        commands,
                        |fns| fns.$command,
                        |coherence, references| {
                            add_arrays(coherence, references, count, buffers, offsets, std::ptr::null(), $access);
                        },
                        |next| next(commands, first, count, buffers, offsets),
                    );
                }
            }
        )*
    };
}

arrays! {
    /// vkCmdBindVertexBuffers.
    bind_vertex_buffers: vkCmdBindVertexBuffers, Read;
    /// vkCmdBeginTransformFeedbackEXT, which reads counters.
    begin_transform_feedback: vkCmdBeginTransformFeedbackEXT, Read;
    /// vkCmdEndTransformFeedbackEXT, which writes counters.
    end_transform_feedback: vkCmdEndTransformFeedbackEXT, Write;
}

/// vkCmdBindVertexBuffers2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn bind_vertex_buffers2(
    commands: vk::CommandBuffer,
    first: u32,
    count: u32,
    buffers: *const vk::Buffer,
    offsets: *const vk::DeviceSize,
    sizes: *const vk::DeviceSize,
    strides: *const vk::DeviceSize,
) {
    // SAFETY: a live command buffer, and valid arrays; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdBindVertexBuffers2,
            |coherence, references| {
                add_arrays(coherence, references, count, buffers, offsets, sizes, Read);
            },
            |bind| bind(commands, first, count, buffers, offsets, sizes, strides),
        );
    }
}

/// vkCmdBindIndexBuffer.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn bind_index_buffer(
    commands: vk::CommandBuffer,
    buffer: vk::Buffer,
    offset: vk::DeviceSize,
    kind: vk::IndexType,
) {
    // SAFETY: a live command buffer, and arrays of one element; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdBindIndexBuffer,
            |coherence, references| {
                add_arrays(
                    coherence,
                    references,
                    1,
                    &raw const buffer,
                    &raw const offset,
                    std::ptr::null(),
                    Read,
                );
            },
            |bind| bind(commands, buffer, offset, kind),
        );
    }
}

/// vkCmdBindIndexBuffer2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn bind_index_buffer2(
    commands: vk::CommandBuffer,
    buffer: vk::Buffer,
    offset: vk::DeviceSize,
    size: vk::DeviceSize,
    kind: vk::IndexType,
) {
    // SAFETY: a live command buffer, and arrays of one element; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdBindIndexBuffer2,
            |coherence, references| {
                add_arrays(
                    coherence,
                    references,
                    1,
                    &raw const buffer,
                    &raw const offset,
                    &raw const size,
                    Read,
                );
            },
            |bind| bind(commands, buffer, offset, size, kind),
        );
    }
}

/// Commands whose parameters lie in one buffer, from an offset on.
macro_rules! indirect {
    ($($(#[$doc:meta])* $name:ident: $command:ident($($arg:ident: $ty:ty),*);)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            /// As the specification demands.
            pub(crate) unsafe fn $name(
                commands: vk::CommandBuffer,
                buffer: vk::Buffer,
                offset: vk::DeviceSize,
                $($arg: $ty),*
            ) {
                // SAFETY: a live command buffer; the arguments are passed on as they came.
                unsafe {
                    record(
                        commands,
                        |fns| fns.$command,
                        |coherence, references| {
                            references.add(coherence, buffer, offset, vk::WHOLE_SIZE, Read);
                        },
                        |next| next(commands, buffer, offset, $($arg),*),
                    );
                }
            }
        )*
    };
}

indirect! {
    /// vkCmdDispatchIndirect.
    dispatch_indirect: vkCmdDispatchIndirect();
    /// vkCmdDrawIndirect.
    draw_indirect: vkCmdDrawIndirect(count: u32, stride: u32);
    /// vkCmdDrawIndexedIndirect.
    draw_indexed_indirect: vkCmdDrawIndexedIndirect(count: u32, stride: u32);
    /// vkCmdDrawMeshTasksIndirectEXT.
    draw_mesh_tasks_indirect: vkCmdDrawMeshTasksIndirectEXT(count: u32, stride: u32);
}

/// Commands whose parameters lie in one buffer, and the number of them in another.
macro_rules! indirect_count {
    ($($(#[$doc:meta])* $name:ident: $command:ident;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            /// As the specification demands.
            pub(crate) unsafe fn $name(
                commands: vk::CommandBuffer,
                buffer: vk::Buffer,
                offset: vk::DeviceSize,
                count_buffer: vk::Buffer,
                count_offset: vk::DeviceSize,
                most: u32,
                stride: u32,
            ) {
                // SAFETY: a live command buffer; the arguments are passed on as they came.
                unsafe {
                    record(
                        commands,
                        |fns| fns.$command,
                        |coherence, references| {
                            references.add(coherence, buffer, offset, vk::WHOLE_SIZE, Read);
                            references.add(coherence, count_buffer, count_offset, 4, Read);
                        },
                        |next| {
                            next(commands, buffer, offset, count_buffer, count_offset, most, stride);
                        },
                    );
                }
            }
        )*
    };
}

indirect_count! {
    /// vkCmdDrawIndirectCount.
    draw_indirect_count: vkCmdDrawIndirectCount;
    /// vkCmdDrawIndexedIndirectCount.
    draw_indexed_indirect_count: vkCmdDrawIndexedIndirectCount;
    /// vkCmdDrawMeshTasksIndirectCountEXT.
    draw_mesh_tasks_indirect_count: vkCmdDrawMeshTasksIndirectCountEXT;
}

/// vkCmdDrawIndirectByteCountEXT.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn draw_indirect_byte_count(
    commands: vk::CommandBuffer,
    instance_count: u32,
    first_instance: u32,
    buffer: vk::Buffer,
    offset: vk::DeviceSize,
    counter_offset: u32,
    stride: u32,
) {
    // SAFETY: a live command buffer; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdDrawIndirectByteCountEXT,
            |coherence, references| references.add(coherence, buffer, offset, 4, Read),
            |draw| {
                draw(commands, instance_count, first_instance, buffer, offset, counter_offset, stride);
            },
        );
    }
}

/// vkCmdBindTransformFeedbackBuffersEXT.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn bind_transform_feedback_buffers(
    commands: vk::CommandBuffer,
    first: u32,
    count: u32,
    buffers: *const vk::Buffer,
    offsets: *const vk::DeviceSize,
    sizes: *const vk::DeviceSize,
) {
    // SAFETY: a live command buffer, and valid arrays; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdBindTransformFeedbackBuffersEXT,
            |coherence, references| {
                add_arrays(coherence, references, count, buffers, offsets, sizes, Write);
            },
            |bind| bind(commands, first, count, buffers, offsets, sizes),
        );
    }
}

/// vkCmdBeginConditionalRenderingEXT.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn begin_conditional_rendering(
    commands: vk::CommandBuffer,
    info: *const vk::ConditionalRenderingBeginInfoEXT<'_>,
) {
    // SAFETY: a live command buffer, and a valid structure; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdBeginConditionalRenderingEXT,
            |coherence, references| {
                let (buffer, offset) = ((*info).buffer, (*info).offset);
                references.add(coherence, buffer, offset, 4, Read);
            },
            |begin| begin(commands, info),
        );
    }
}
