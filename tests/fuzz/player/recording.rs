//! Command buffers, recorded from the model's lists. Each command comes after a barrier: it sees what all before did.

use super::session::Session;
use super::{Done, said};
use crate::program::{Command, IMAGE, Pieces, Work};
use ash::vk;

impl Session<'_> {
    /// Ends the recording of a list and of those it executes, where that is still to be done.
    pub(super) fn seal(&mut self, list: usize) -> Done {
        for executed in self.model.executed_by(list) {
            self.seal(executed)?;
        }
        if std::mem::replace(&mut self.is_recorded[list], true) {
            return Ok(());
        }
        let plan = &self.model.world.lists[list];
        let mut flags = vk::CommandBufferUsageFlags::empty();
        if plan.is_simultaneous {
            flags |= vk::CommandBufferUsageFlags::SIMULTANEOUS_USE;
        }
        let inheritance = vk::CommandBufferInheritanceInfo::default();
        let begin = vk::CommandBufferBeginInfo::default().flags(flags).inheritance_info(&inheritance);
        let (device, buffer) = (&self.player.gpu.device, self.lists[list]);
        // SAFETY: a command buffer that was reset, or never used.
        unsafe { device.begin_command_buffer(buffer, &begin) }.map_err(said("vkBeginCommandBuffer"))?;
        for command in &self.model.lists[list].commands {
            self.barrier(buffer, vk::PipelineStageFlags::ALL_COMMANDS);
            self.record(buffer, command);
        }
        if !plan.is_secondary {
            self.barrier_to_host(buffer);
        }
        // SAFETY: begun above.
        unsafe { device.end_command_buffer(buffer) }.map_err(said("vkEndCommandBuffer"))
    }

    /// Has all that comes before seen by all that follows in `stages`.
    pub(super) fn barrier(&self, buffer: vk::CommandBuffer, stages: vk::PipelineStageFlags) {
        let access = if stages == vk::PipelineStageFlags::HOST {
            vk::AccessFlags::HOST_READ | vk::AccessFlags::HOST_WRITE
        } else {
            vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE
        };
        let barrier = [vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::MEMORY_WRITE | vk::AccessFlags::MEMORY_READ)
            .dst_access_mask(access)];
        let (all, none) = (vk::PipelineStageFlags::ALL_COMMANDS, vk::DependencyFlags::empty());
        // SAFETY: a command buffer that is being recorded.
        unsafe {
            self.player.gpu.device.cmd_pipeline_barrier(buffer, all, stages, none, &barrier, &[], &[]);
        }
    }

    /// The barrier that should come before the host looks, in programs that care.
    pub(super) fn barrier_to_host(&self, buffer: vk::CommandBuffer) {
        if self.model.world.has_host_barriers {
            self.barrier(buffer, vk::PipelineStageFlags::HOST);
        }
    }

    fn record(&self, buffer: vk::CommandBuffer, command: &Command) {
        let device = &self.player.gpu.device;
        // SAFETY: a command buffer that is being recorded, live objects, and ranges that the model found valid.
        unsafe {
            match *command {
                Command::Copy { from, to, source, target } => {
                    let regions: Vec<vk::BufferCopy> = source
                        .iter()
                        .zip(target.iter())
                        .map(|(source, target)| {
                            vk::BufferCopy::default()
                                .src_offset(source.start.into())
                                .dst_offset(target.start.into())
                                .size(source.len() as u64)
                        })
                        .collect();
                    device.cmd_copy_buffer(buffer, self.buffers[from], self.buffers[to], &regions);
                }
                Command::Fill { to, at, len, word } => {
                    device.cmd_fill_buffer(buffer, self.buffers[to], at.into(), len.into(), word);
                }
                Command::Update { to, at, len, value } => {
                    let bytes: Vec<u8> = (0..len).map(|index| value.at(index)).collect();
                    device.cmd_update_buffer(buffer, self.buffers[to], at.into(), &bytes);
                }
                Command::Dispatch { set, work } => self.dispatch(buffer, set, work),
                Command::Image { from, to, source, target } => {
                    self.copy_through_image(buffer, (from, source), (to, target));
                }
                Command::Execute { list } => device.cmd_execute_commands(buffer, &[self.lists[list]]),
            }
        }
    }

    /// # Safety
    /// As `record`.
    unsafe fn dispatch(&self, buffer: vk::CommandBuffer, set: usize, work: Work) {
        let device = &self.player.gpu.device;
        let kind = &self.player.kinds[usize::from(self.model.world.sets[set])];
        let (point, stages) = (vk::PipelineBindPoint::COMPUTE, vk::ShaderStageFlags::COMPUTE);
        let words = [work.input_first, work.output_first, work.count, work.add, work.in_place];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        // SAFETY: the caller's promise.
        unsafe {
            device.cmd_bind_pipeline(buffer, point, kind.pipeline);
            device.cmd_bind_descriptor_sets(buffer, point, kind.layout, 0, &[self.sets[set]], &[]);
            device.cmd_push_constants(buffer, kind.layout, stages, 0, &bytes);
            device.cmd_dispatch(buffer, work.count.div_ceil(64), 1, 1);
        }
    }

    /// # Safety
    /// As `record`.
    unsafe fn copy_through_image(
        &self,
        buffer: vk::CommandBuffer,
        (from, source): (usize, Pieces),
        (to, target): (usize, Pieces),
    ) {
        let device = &self.player.gpu.device;
        let layers =
            vk::ImageSubresourceLayers::default().aspect_mask(vk::ImageAspectFlags::COLOR).layer_count(1);
        let region = |rows: Pieces| {
            [vk::BufferImageCopy::default()
                .buffer_offset(rows.at.into())
                .buffer_row_length(rows.stride)
                .image_subresource(layers)
                .image_extent(vk::Extent3D { width: rows.len, height: rows.count, depth: 1 })]
        };
        let (general, transfer) = (vk::ImageLayout::GENERAL, vk::PipelineStageFlags::TRANSFER);
        // What the image held does not count.
        let barrier = [vk::ImageMemoryBarrier::default()
            .image(self.image)
            .old_layout(vk::ImageLayout::UNDEFINED)
            .new_layout(general)
            .dst_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .subresource_range(vk::ImageSubresourceRange {
                aspect_mask: vk::ImageAspectFlags::COLOR,
                level_count: 1,
                layer_count: 1,
                ..Default::default()
            })];
        let (all, none) = (vk::PipelineStageFlags::ALL_COMMANDS, vk::DependencyFlags::empty());
        // SAFETY: the caller's promise.
        unsafe {
            device.cmd_pipeline_barrier(buffer, all, transfer, none, &[], &[], &barrier);
            device.cmd_copy_buffer_to_image(buffer, self.buffers[from], self.image, general, &region(source));
            self.barrier(buffer, all);
            device.cmd_copy_image_to_buffer(buffer, self.image, general, self.buffers[to], &region(target));
        }
    }
}

/// The image that copies go through.
pub(super) fn image_info() -> vk::ImageCreateInfo<'static> {
    vk::ImageCreateInfo::default()
        .image_type(vk::ImageType::TYPE_2D)
        .format(vk::Format::R8_UINT)
        .extent(vk::Extent3D { width: IMAGE[0], height: IMAGE[1], depth: 1 })
        .mip_levels(1)
        .array_layers(1)
        .samples(vk::SampleCountFlags::TYPE_1)
        .usage(vk::ImageUsageFlags::TRANSFER_SRC | vk::ImageUsageFlags::TRANSFER_DST)
}
