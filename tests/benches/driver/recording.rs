//! What it costs to record commands that name buffers or descriptor sets.

use crate::gpu::{Buffer, Failure, Gpu};
use crate::workloads::{Steps, timed};
use ash::vk;
use std::rc::Rc;

/// Calls of one recording.
const CALLS: usize = 1024;

/// The command that is recorded.
#[derive(Clone, Copy)]
pub(crate) enum Command {
    BindVertexBuffers,
    BindDescriptorSets,
    CopyBuffer,
}

struct Recording {
    gpu: Rc<Gpu>,
    command: Command,
    commands: vk::CommandBuffer,
    buffers: Vec<Buffer>,
    target: Buffer,
    sets: Sets,
}

/// `command` with `count` buffers, or as many sets with a buffer each, in turn.
pub(crate) fn open(command: Command, count: usize) -> Result<Box<dyn Steps>, Failure> {
    let gpu = Gpu::new()?;
    let buffers: Vec<Buffer> =
        (0..count).map(|_| Buffer::mapped(&gpu, 64 << 10)).collect::<Result<_, Failure>>()?;
    let target = Buffer::local(&gpu, 64 << 10)?;
    let sets = Sets::new(&gpu, &buffers)?;
    let commands = gpu.command_buffer()?;
    Ok(Box::new(Recording { gpu, command, commands, buffers, target, sets }))
}

impl Steps for Recording {
    fn step(&mut self) -> Result<Vec<f64>, Failure> {
        let device = &self.gpu.device;
        let (commands, target) = (self.commands, self.target.handle);
        self.gpu.begin(commands)?;
        let call = |index: usize| {
            let buffer = self.buffers[index].handle;
            // SAFETY: a command buffer that was begun, and live objects.
            unsafe {
                match self.command {
                    Command::BindVertexBuffers => {
                        device.cmd_bind_vertex_buffers(commands, 0, &[buffer], &[0])
                    }
                    Command::BindDescriptorSets => {
                        let (compute, layout) = (vk::PipelineBindPoint::COMPUTE, self.sets.pipeline_layout);
                        let set = [self.sets.sets[index]];
                        device.cmd_bind_descriptor_sets(commands, compute, layout, 0, &set, &[]);
                    }
                    Command::CopyBuffer => {
                        let regions = [vk::BufferCopy::default().size(64)];
                        device.cmd_copy_buffer(commands, buffer, target, &regions);
                    }
                }
            }
        };
        let time = timed(|| {
            (0..CALLS).for_each(|number| call(number % self.buffers.len()));
            Ok(())
        })?;
        self.gpu.end(commands)?;
        Ok(vec![time / CALLS as f64])
    }
}

/// Descriptor sets with a storage buffer each, and what they are made with.
struct Sets {
    gpu: Rc<Gpu>,
    set_layout: vk::DescriptorSetLayout,
    pipeline_layout: vk::PipelineLayout,
    pool: vk::DescriptorPool,
    sets: Vec<vk::DescriptorSet>,
}

impl Sets {
    fn new(gpu: &Rc<Gpu>, buffers: &[Buffer]) -> Result<Self, Failure> {
        let device = &gpu.device;
        let count = u32::try_from(buffers.len()).map_err(|_| Failure("too many buffers".into()))?;
        let kind = vk::DescriptorType::STORAGE_BUFFER;
        let bindings = [vk::DescriptorSetLayoutBinding::default()
            .descriptor_type(kind)
            .descriptor_count(1)
            .stage_flags(vk::ShaderStageFlags::COMPUTE)];
        let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        // SAFETY: valid create infos, here and below; what is made is destroyed in `drop`.
        let set_layout = unsafe { device.create_descriptor_set_layout(&info, None) }?;
        let layouts = vec![set_layout; buffers.len()];
        let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&layouts[..1]);
        // SAFETY: as above.
        let pipeline_layout = unsafe { device.create_pipeline_layout(&info, None) }?;
        let sizes = [vk::DescriptorPoolSize::default().ty(kind).descriptor_count(count)];
        let info = vk::DescriptorPoolCreateInfo::default().max_sets(count).pool_sizes(&sizes);
        // SAFETY: as above.
        let pool = unsafe { device.create_descriptor_pool(&info, None) }?;
        let info = vk::DescriptorSetAllocateInfo::default().descriptor_pool(pool).set_layouts(&layouts);
        // SAFETY: as above.
        let sets = unsafe { device.allocate_descriptor_sets(&info) }?;
        for (buffer, &set) in buffers.iter().zip(&sets) {
            let infos = [vk::DescriptorBufferInfo::default().buffer(buffer.handle).range(vk::WHOLE_SIZE)];
            let write =
                vk::WriteDescriptorSet::default().dst_set(set).descriptor_type(kind).buffer_info(&infos);
            // SAFETY: a live set that nothing uses, and a live buffer.
            unsafe { device.update_descriptor_sets(&[write], &[]) };
        }
        Ok(Self { gpu: gpu.clone(), set_layout, pipeline_layout, pool, sets })
    }
}

impl Drop for Sets {
    fn drop(&mut self) {
        let device = &self.gpu.device;
        // SAFETY: nothing that uses them is ever submitted.
        unsafe {
            device.destroy_descriptor_pool(self.pool, None);
            device.destroy_pipeline_layout(self.pipeline_layout, None);
            device.destroy_descriptor_set_layout(self.set_layout, None);
        }
    }
}
