//! Commands that bind or push descriptors.

use super::record;
use crate::coherence::Coherence;
use crate::descriptor_set::{for_each_in_template, for_each_written};
use crate::references::References;
use ash::vk;
use std::ffi::c_void;
use std::slice;

/// # Safety
/// `sets` must be valid for `count` elements.
unsafe fn add_sets(
    coherence: &Coherence,
    references: &mut References,
    count: u32,
    sets: *const vk::DescriptorSet,
) {
    for index in 0..count as usize {
        // SAFETY: the caller's promise.
        let set = unsafe { *sets.add(index) };
        if set != vk::DescriptorSet::null() {
            references.add_set(coherence, set);
        }
    }
}

/// # Safety
/// `writes` must be valid for `count` elements.
unsafe fn add_pushed(
    coherence: &Coherence,
    references: &mut References,
    count: u32,
    writes: *const vk::WriteDescriptorSet<'_>,
) {
    if count == 0 {
        return;
    }
    // SAFETY: the caller's promise.
    for write in unsafe { slice::from_raw_parts(writes, count as usize) } {
        // SAFETY: a valid structure.
        unsafe {
            for_each_written(coherence, write, |_, _, bound| {
                bound.iter().for_each(|bound| references.add_bound(bound));
            });
        }
    }
}

/// # Safety
/// `data` must be valid for the template.
unsafe fn add_templated(
    coherence: &Coherence,
    references: &mut References,
    template: vk::DescriptorUpdateTemplate,
    data: *const c_void,
) {
    let Some(entries) = coherence.template(template) else { return };
    // SAFETY: the caller's promise.
    unsafe {
        for_each_in_template(coherence, &entries, data.cast(), |_, _, bound| {
            bound.iter().for_each(|bound| references.add_bound(bound));
        });
    }
}

/// vkCmdBindDescriptorSets.
///
/// # Safety
/// As the specification demands.
#[expect(clippy::too_many_arguments, reason = "as many as the specification says")]
pub(crate) unsafe fn bind_sets(
    commands: vk::CommandBuffer,
    point: vk::PipelineBindPoint,
    layout: vk::PipelineLayout,
    first: u32,
    count: u32,
    sets: *const vk::DescriptorSet,
    offset_count: u32,
    offsets: *const u32,
) {
    // SAFETY: a live command buffer, and valid arrays; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdBindDescriptorSets,
            |coherence, references| add_sets(coherence, references, count, sets),
            |bind| bind(commands, point, layout, first, count, sets, offset_count, offsets),
        );
    }
}

/// vkCmdBindDescriptorSets2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn bind_sets2(commands: vk::CommandBuffer, info: *const vk::BindDescriptorSetsInfoKHR<'_>) {
    // SAFETY: a live command buffer, and a valid structure; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdBindDescriptorSets2,
            |coherence, references| {
                add_sets(coherence, references, (*info).descriptor_set_count, (*info).p_descriptor_sets);
            },
            |bind| bind(commands, info),
        );
    }
}

/// vkCmdPushDescriptorSet.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn push(
    commands: vk::CommandBuffer,
    point: vk::PipelineBindPoint,
    layout: vk::PipelineLayout,
    set: u32,
    count: u32,
    writes: *const vk::WriteDescriptorSet<'_>,
) {
    // SAFETY: a live command buffer, and a valid array; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdPushDescriptorSet,
            |coherence, references| add_pushed(coherence, references, count, writes),
            |push| push(commands, point, layout, set, count, writes),
        );
    }
}

/// vkCmdPushDescriptorSet2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn push2(commands: vk::CommandBuffer, info: *const vk::PushDescriptorSetInfoKHR<'_>) {
    // SAFETY: a live command buffer, and a valid structure; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdPushDescriptorSet2,
            |coherence, references| {
                add_pushed(
                    coherence,
                    references,
                    (*info).descriptor_write_count,
                    (*info).p_descriptor_writes,
                );
            },
            |push| push(commands, info),
        );
    }
}

/// vkCmdPushDescriptorSetWithTemplate.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn push_with_template(
    commands: vk::CommandBuffer,
    template: vk::DescriptorUpdateTemplate,
    layout: vk::PipelineLayout,
    set: u32,
    data: *const c_void,
) {
    // SAFETY: a live command buffer, and data that is valid for the template; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdPushDescriptorSetWithTemplate,
            |coherence, references| add_templated(coherence, references, template, data),
            |push| push(commands, template, layout, set, data),
        );
    }
}

/// vkCmdPushDescriptorSetWithTemplate2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn push_with_template2(
    commands: vk::CommandBuffer,
    info: *const vk::PushDescriptorSetWithTemplateInfoKHR<'_>,
) {
    // SAFETY: a live command buffer, and a valid structure; the arguments are passed on as they came.
    unsafe {
        record(
            commands,
            |fns| fns.vkCmdPushDescriptorSetWithTemplate2,
            |coherence, references| {
                add_templated(coherence, references, (*info).descriptor_update_template, (*info).p_data);
            },
            |push| push(commands, info),
        );
    }
}
