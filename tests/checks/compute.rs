//! A compute shader that adds one to every word, and the ways to bind its buffers.

use ash::vk;

use crate::Failure;
use crate::gpu::{Buffer, Gpu};
use std::sync::Arc;

/// Words of input and of output.
pub(crate) const WORDS: u32 = 8192;
const BYTES: u64 = WORDS as u64 * 4;

/// How the descriptors come to be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    /// By vkUpdateDescriptorSets, to storage buffers.
    Update,
    /// The input is a uniform buffer.
    Uniform,
    /// Dynamic storage buffers, whose offsets come with the binding.
    Dynamic,
    /// By a copy from another set.
    Copy,
    /// By an update template.
    Template,
    /// After the set was bound in a command buffer.
    UpdateAfterBind,
}

pub(crate) struct Adder {
    gpu: Arc<Gpu>,
    binding: Binding,
    input: Buffer,
    output: Buffer,
    set: vk::DescriptorSet,
    spare_set: vk::DescriptorSet,
    set_layout: vk::DescriptorSetLayout,
    descriptors: vk::DescriptorPool,
    layout: vk::PipelineLayout,
    pipeline: vk::Pipeline,
}

/// Where the buffers of [`Binding::Dynamic`] start.
const DYNAMIC_OFFSET: u32 = 4096;

impl Adder {
    pub(crate) fn new(gpu: &Arc<Gpu>, binding: Binding) -> Result<Self, Failure> {
        let device = &gpu.device;
        let (input_type, output_type) = types(binding);
        let stages = vk::ShaderStageFlags::COMPUTE;
        let bindings = [(0, input_type), (1, output_type)].map(|(binding, kind)| {
            vk::DescriptorSetLayoutBinding::default()
                .binding(binding)
                .descriptor_type(kind)
                .descriptor_count(1)
                .stage_flags(stages)
        });
        let is_late = binding == Binding::UpdateAfterBind;
        let flag = if is_late {
            vk::DescriptorBindingFlags::UPDATE_AFTER_BIND
        } else {
            vk::DescriptorBindingFlags::empty()
        };
        let flags = [flag; 2];
        let mut flags = vk::DescriptorSetLayoutBindingFlagsCreateInfo::default().binding_flags(&flags);
        let mut layout_info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        let mut pool_flags = vk::DescriptorPoolCreateFlags::empty();
        if is_late {
            layout_info = layout_info
                .flags(vk::DescriptorSetLayoutCreateFlags::UPDATE_AFTER_BIND_POOL)
                .push_next(&mut flags);
            pool_flags = vk::DescriptorPoolCreateFlags::UPDATE_AFTER_BIND;
        }
        let sizes = [input_type, output_type]
            .map(|kind| vk::DescriptorPoolSize::default().ty(kind).descriptor_count(4));
        let pool_info =
            vk::DescriptorPoolCreateInfo::default().max_sets(2).pool_sizes(&sizes).flags(pool_flags);
        let code = shader(binding)?;
        let module_info = vk::ShaderModuleCreateInfo::default().code(&code);
        // SAFETY: valid create infos on a live device; destroyed in `drop`.
        let (set_layout, descriptors, layout, pipeline, sets) = unsafe {
            let set_layout = device.create_descriptor_set_layout(&layout_info, None)?;
            let descriptors = device.create_descriptor_pool(&pool_info, None)?;
            let layouts = [set_layout; 2];
            let layout = device.create_pipeline_layout(
                &vk::PipelineLayoutCreateInfo::default().set_layouts(&layouts[..1]),
                None,
            )?;
            let module = device.create_shader_module(&module_info, None)?;
            let stage =
                vk::PipelineShaderStageCreateInfo::default().stage(stages).module(module).name(c"main");
            let info = [vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout)];
            let pipeline = device
                .create_compute_pipelines(vk::PipelineCache::null(), &info, None)
                .map_err(|(_, error)| error)?[0];
            device.destroy_shader_module(module, None);
            let sets = device.allocate_descriptor_sets(
                &vk::DescriptorSetAllocateInfo::default().descriptor_pool(descriptors).set_layouts(&layouts),
            )?;
            (set_layout, descriptors, layout, pipeline, sets)
        };
        let (input, output) = buffers(gpu, binding)?;
        let adder = Self {
            gpu: gpu.clone(),
            binding,
            input,
            output,
            set: sets[0],
            spare_set: sets[1],
            set_layout,
            descriptors,
            layout,
            pipeline,
        };
        if !is_late {
            adder.update()?;
        }
        Ok(adder)
    }

    /// New buffers, bound in the place of the old ones. Nothing may be pending.
    pub(crate) fn swap_buffers(&mut self, gpu: &Arc<Gpu>) -> Result<(), Failure> {
        (self.input, self.output) = buffers(gpu, self.binding)?;
        self.update()
    }

    /// Puts the buffers into the set.
    pub(crate) fn update(&self) -> Result<(), Failure> {
        let device = &self.gpu.device;
        let infos = [&self.input, &self.output].map(|buffer| {
            vk::DescriptorBufferInfo::default().buffer(buffer.buffer).offset(0).range(self.range())
        });
        let (input_type, output_type) = types(self.binding);
        let write = |set, binding: u32, kind| {
            vk::WriteDescriptorSet::default()
                .dst_set(set)
                .dst_binding(binding)
                .descriptor_type(kind)
                .buffer_info(std::slice::from_ref(&infos[binding as usize]))
        };
        let set = if self.binding == Binding::Copy { self.spare_set } else { self.set };
        // SAFETY: live sets that nothing pending uses.
        unsafe {
            if self.binding == Binding::Template {
                let entries = [(0, input_type), (1, output_type)].map(|(binding, kind)| {
                    vk::DescriptorUpdateTemplateEntry::default()
                        .dst_binding(binding)
                        .descriptor_count(1)
                        .descriptor_type(kind)
                        .offset(binding as usize * size_of::<vk::DescriptorBufferInfo>())
                });
                let info = vk::DescriptorUpdateTemplateCreateInfo::default()
                    .descriptor_update_entries(&entries)
                    .template_type(vk::DescriptorUpdateTemplateType::DESCRIPTOR_SET)
                    .descriptor_set_layout(self.set_layout);
                let template = device.create_descriptor_update_template(&info, None)?;
                device.update_descriptor_set_with_template(set, template, infos.as_ptr().cast());
                device.destroy_descriptor_update_template(template, None);
                return Ok(());
            }
            device.update_descriptor_sets(&[write(set, 0, input_type), write(set, 1, output_type)], &[]);
            if self.binding == Binding::Copy {
                let copies = [0, 1].map(|binding| {
                    vk::CopyDescriptorSet::default()
                        .src_set(set)
                        .src_binding(binding)
                        .dst_set(self.set)
                        .dst_binding(binding)
                        .descriptor_count(1)
                });
                device.update_descriptor_sets(&[], &copies);
            }
        }
        Ok(())
    }

    fn range(&self) -> u64 {
        if self.binding == Binding::Uniform { 16_384 } else { BYTES }
    }

    fn base(&self) -> usize {
        if self.binding == Binding::Dynamic { DYNAMIC_OFFSET as usize } else { 0 }
    }

    /// Words that the shader works on.
    fn words(&self) -> u32 {
        if self.binding == Binding::Uniform { 4096 } else { WORDS }
    }

    pub(crate) fn bind(&self, commands: vk::CommandBuffer) {
        let offsets = [DYNAMIC_OFFSET; 2];
        let offsets = if self.binding == Binding::Dynamic { &offsets[..] } else { &[] };
        let point = vk::PipelineBindPoint::COMPUTE;
        // SAFETY: a command buffer that is being recorded, and live objects.
        unsafe {
            self.gpu.device.cmd_bind_pipeline(commands, point, self.pipeline);
            self.gpu.device.cmd_bind_descriptor_sets(commands, point, self.layout, 0, &[self.set], offsets);
        }
    }

    pub(crate) fn dispatch(&self, commands: vk::CommandBuffer) {
        self.bind(commands);
        // SAFETY: as in `bind`.
        unsafe { self.gpu.device.cmd_dispatch(commands, self.words() / 64, 1, 1) };
    }

    pub(crate) fn write_input(&self, value: impl Fn(u32) -> u32) {
        for index in 0..self.words() {
            for (byte, value) in value(index).to_ne_bytes().into_iter().enumerate() {
                self.input.store(self.base() + index as usize * 4 + byte, value);
            }
        }
    }

    pub(crate) fn expect_output(&self, value: impl Fn(u32) -> u32, round: u32) -> Result<(), Failure> {
        for index in 0..self.words() {
            let seen: [u8; 4] =
                std::array::from_fn(|byte| self.output.load(self.base() + index as usize * 4 + byte));
            let (seen, wanted) = (u32::from_ne_bytes(seen), value(index));
            if seen != wanted {
                return Err(
                    format!("round {round}: word {index} is {seen:#010x}, should be {wanted:#010x}").into()
                );
            }
        }
        Ok(())
    }
}

impl Drop for Adder {
    fn drop(&mut self) {
        let device = &self.gpu.device;
        // SAFETY: nothing is pending after the wait.
        unsafe {
            let _ = device.device_wait_idle();
            device.destroy_pipeline(self.pipeline, None);
            device.destroy_pipeline_layout(self.layout, None);
            device.destroy_descriptor_pool(self.descriptors, None);
            device.destroy_descriptor_set_layout(self.set_layout, None);
        }
    }
}

fn types(binding: Binding) -> (vk::DescriptorType, vk::DescriptorType) {
    use vk::DescriptorType as Type;
    match binding {
        Binding::Uniform => (Type::UNIFORM_BUFFER, Type::STORAGE_BUFFER),
        Binding::Dynamic => (Type::STORAGE_BUFFER_DYNAMIC, Type::STORAGE_BUFFER_DYNAMIC),
        _ => (Type::STORAGE_BUFFER, Type::STORAGE_BUFFER),
    }
}

fn buffers(gpu: &Arc<Gpu>, binding: Binding) -> Result<(Buffer, Buffer), Failure> {
    let usage = vk::BufferUsageFlags::STORAGE_BUFFER;
    let input_usage = if binding == Binding::Uniform { vk::BufferUsageFlags::UNIFORM_BUFFER } else { usage };
    let size = BYTES + u64::from(DYNAMIC_OFFSET);
    Ok((gpu.coherent_for(size, input_usage)?, gpu.coherent_for(size, usage)?))
}

fn shader(binding: Binding) -> Result<Vec<u32>, Failure> {
    let (declaration, load) = if binding == Binding::Uniform {
        ("var<uniform> input: array<vec4<u32>, 1024>", "input[id.x / 4u][id.x % 4u]")
    } else {
        ("var<storage, read> input: array<u32>", "input[id.x]")
    };
    let source = format!(
        "@group(0) @binding(0) {declaration};
         @group(0) @binding(1) var<storage, read_write> output: array<u32>;
         @compute @workgroup_size(64)
         fn main(@builtin(global_invocation_id) id: vec3<u32>) {{ output[id.x] = {load} + 1u; }}"
    );
    Ok(tidemark_tests::compile_shader(&source)?)
}
