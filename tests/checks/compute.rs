//! A compute shader that adds one to every word, and the ways to bind its buffers.

use ash::vk;

use crate::Failure;
use crate::gpu::{Buffer, Gpu, command};
use crate::spirv;
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
    /// By buffer views, to texel buffers.
    Texel,
    /// By vkCmdBindDescriptorSets2.
    Bind2,
    /// By vkCmdPushDescriptorSet.
    Push,
    /// By vkCmdPushDescriptorSet2.
    Push2,
    /// By vkCmdPushDescriptorSetWithTemplate.
    PushTemplate,
    /// By vkCmdPushDescriptorSetWithTemplate2.
    PushTemplate2,
}

impl Binding {
    /// Whether there is no set, but what is pushed.
    fn is_pushed(self) -> bool {
        matches!(self, Self::Push | Self::Push2 | Self::PushTemplate | Self::PushTemplate2)
    }

    /// Whether the device has the command that it takes.
    pub(crate) fn is_there(self, gpu: &Gpu) -> bool {
        match self {
            Self::UpdateAfterBind => gpu.has_update_after_bind,
            Self::Bind2 => command!(gpu, vkCmdBindDescriptorSets2KHR: PFN_vkCmdBindDescriptorSets2KHR).is_some(),
            Self::Push => command!(gpu, vkCmdPushDescriptorSetKHR: PFN_vkCmdPushDescriptorSetKHR).is_some(),
            Self::Push2 => command!(gpu, vkCmdPushDescriptorSet2KHR: PFN_vkCmdPushDescriptorSet2KHR).is_some(),
            Self::PushTemplate => {
                command!(gpu, vkCmdPushDescriptorSetWithTemplateKHR: PFN_vkCmdPushDescriptorSetWithTemplateKHR)
                    .is_some()
            }
            Self::PushTemplate2 => {
                command!(gpu, vkCmdPushDescriptorSetWithTemplate2KHR: PFN_vkCmdPushDescriptorSetWithTemplate2KHR)
                    .is_some()
            }
            _ => true,
        }
    }
}

pub(crate) struct Adder {
    gpu: Arc<Gpu>,
    binding: Binding,
    input: Buffer,
    output: Buffer,
    /// Of input and output, for [`Binding::Texel`].
    views: Vec<vk::BufferView>,
    /// Two sets, unless the descriptors are pushed.
    sets: Vec<vk::DescriptorSet>,
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
        if binding.is_pushed() {
            layout_info = layout_info.flags(vk::DescriptorSetLayoutCreateFlags::PUSH_DESCRIPTOR_KHR);
        }
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
            let allocate =
                vk::DescriptorSetAllocateInfo::default().descriptor_pool(descriptors).set_layouts(&layouts);
            let sets =
                if binding.is_pushed() { Vec::new() } else { device.allocate_descriptor_sets(&allocate)? };
            (set_layout, descriptors, layout, pipeline, sets)
        };
        let (input, output) = buffers(gpu, binding)?;
        let views = if binding == Binding::Texel {
            Vec::from([view(gpu, &input)?, view(gpu, &output)?])
        } else {
            Vec::new()
        };
        let adder = Self {
            gpu: gpu.clone(),
            binding,
            input,
            output,
            views,
            sets,
            set_layout,
            descriptors,
            layout,
            pipeline,
        };
        if !is_late && !binding.is_pushed() {
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
        let infos = self.infos();
        // By a copy, from the one to the other.
        let set = self.sets[usize::from(self.binding == Binding::Copy)];
        // SAFETY: live sets that nothing pending uses.
        unsafe {
            if self.binding == Binding::Template {
                let template = self.template(vk::DescriptorUpdateTemplateType::DESCRIPTOR_SET)?;
                device.update_descriptor_set_with_template(set, template, infos.as_ptr().cast());
                device.destroy_descriptor_update_template(template, None);
                return Ok(());
            }
            device.update_descriptor_sets(&self.writes(set, &infos), &[]);
            if self.binding == Binding::Copy {
                let copies = [0, 1].map(|binding| {
                    vk::CopyDescriptorSet::default()
                        .src_set(set)
                        .src_binding(binding)
                        .dst_set(self.sets[0])
                        .dst_binding(binding)
                        .descriptor_count(1)
                });
                device.update_descriptor_sets(&[], &copies);
            }
        }
        Ok(())
    }

    fn infos(&self) -> [vk::DescriptorBufferInfo; 2] {
        [&self.input, &self.output].map(|buffer| {
            vk::DescriptorBufferInfo::default().buffer(buffer.buffer).offset(0).range(self.range())
        })
    }

    fn writes<'a>(
        &'a self,
        set: vk::DescriptorSet,
        infos: &'a [vk::DescriptorBufferInfo; 2],
    ) -> [vk::WriteDescriptorSet<'a>; 2] {
        let (input_type, output_type) = types(self.binding);
        [(0, input_type), (1, output_type)].map(|(binding, kind)| {
            let write = vk::WriteDescriptorSet::default()
                .dst_set(set)
                .dst_binding(binding)
                .descriptor_type(kind)
                .buffer_info(std::slice::from_ref(&infos[binding as usize]));
            match self.views.get(binding as usize) {
                Some(view) => write.texel_buffer_view(std::slice::from_ref(view)),
                None => write,
            }
        })
    }

    /// A template that takes both descriptors from [`infos`](Self::infos).
    fn template(
        &self,
        kind: vk::DescriptorUpdateTemplateType,
    ) -> Result<vk::DescriptorUpdateTemplate, Failure> {
        let (input_type, output_type) = types(self.binding);
        let entries = [(0, input_type), (1, output_type)].map(|(binding, kind)| {
            vk::DescriptorUpdateTemplateEntry::default()
                .dst_binding(binding)
                .descriptor_count(1)
                .descriptor_type(kind)
                .offset(binding as usize * size_of::<vk::DescriptorBufferInfo>())
        });
        let info = vk::DescriptorUpdateTemplateCreateInfo::default()
            .descriptor_update_entries(&entries)
            .template_type(kind)
            .descriptor_set_layout(self.set_layout)
            .pipeline_bind_point(vk::PipelineBindPoint::COMPUTE)
            .pipeline_layout(self.layout);
        // SAFETY: a valid create info.
        Ok(unsafe { self.gpu.device.create_descriptor_update_template(&info, None) }?)
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

    pub(crate) fn bind(&self, commands: vk::CommandBuffer) -> Result<(), Failure> {
        let offsets = [DYNAMIC_OFFSET; 2];
        let offsets = if self.binding == Binding::Dynamic { &offsets[..] } else { &[] };
        let (gpu, point) = (&self.gpu, vk::PipelineBindPoint::COMPUTE);
        let stages = vk::ShaderStageFlags::COMPUTE;
        let infos = self.infos();
        let writes = self.writes(vk::DescriptorSet::null(), &infos);
        // SAFETY: a command buffer that is being recorded, and live objects, here and below.
        unsafe { gpu.device.cmd_bind_pipeline(commands, point, self.pipeline) };
        match self.binding {
            Binding::Bind2 => {
                let bind = command!(gpu, vkCmdBindDescriptorSets2KHR: PFN_vkCmdBindDescriptorSets2KHR);
                let info = vk::BindDescriptorSetsInfoKHR::default()
                    .stage_flags(stages)
                    .layout(self.layout)
                    .descriptor_sets(&self.sets[..1]);
                // SAFETY: as above.
                unsafe { bind.ok_or_else(missing)?(commands, &raw const info) };
            }
            Binding::Push => {
                let push = command!(gpu, vkCmdPushDescriptorSetKHR: PFN_vkCmdPushDescriptorSetKHR);
                // SAFETY: as above.
                unsafe { push.ok_or_else(missing)?(commands, point, self.layout, 0, 2, writes.as_ptr()) };
            }
            Binding::Push2 => {
                let push = command!(gpu, vkCmdPushDescriptorSet2KHR: PFN_vkCmdPushDescriptorSet2KHR);
                let info = vk::PushDescriptorSetInfoKHR::default()
                    .stage_flags(stages)
                    .layout(self.layout)
                    .descriptor_writes(&writes);
                // SAFETY: as above.
                unsafe { push.ok_or_else(missing)?(commands, &raw const info) };
            }
            Binding::PushTemplate | Binding::PushTemplate2 => {
                self.push_with_template(commands, infos.as_ptr().cast())?;
            }
            _ => {
                let sets = &self.sets[..1];
                // SAFETY: as above.
                unsafe {
                    gpu.device.cmd_bind_descriptor_sets(commands, point, self.layout, 0, sets, offsets)
                };
            }
        }
        Ok(())
    }

    /// Pushes the descriptors that `data` holds.
    fn push_with_template(
        &self,
        commands: vk::CommandBuffer,
        data: *const std::ffi::c_void,
    ) -> Result<(), Failure> {
        let gpu = &self.gpu;
        let template = self.template(vk::DescriptorUpdateTemplateType::PUSH_DESCRIPTORS_KHR)?;
        if self.binding == Binding::PushTemplate2 {
            let push = command!(gpu, vkCmdPushDescriptorSetWithTemplate2KHR: PFN_vkCmdPushDescriptorSetWithTemplate2KHR);
            let info = vk::PushDescriptorSetWithTemplateInfoKHR {
                descriptor_update_template: template,
                layout: self.layout,
                p_data: data,
                ..Default::default()
            };
            // SAFETY: a command buffer that is being recorded, live objects, and data that is valid for the template.
            unsafe { push.ok_or_else(missing)?(commands, &raw const info) };
        } else {
            let push = command!(gpu, vkCmdPushDescriptorSetWithTemplateKHR: PFN_vkCmdPushDescriptorSetWithTemplateKHR);
            // SAFETY: as above.
            unsafe { push.ok_or_else(missing)?(commands, template, self.layout, 0, data) };
        }
        // SAFETY: what was pushed is recorded.
        unsafe { gpu.device.destroy_descriptor_update_template(template, None) };
        Ok(())
    }

    /// A command buffer that runs the shader.
    pub(crate) fn record(&self) -> Result<vk::CommandBuffer, Failure> {
        let mut bound = Ok(());
        let commands = self.gpu.record(|commands| bound = self.dispatch(commands))?;
        bound.map(|()| commands)
    }

    pub(crate) fn dispatch(&self, commands: vk::CommandBuffer) -> Result<(), Failure> {
        self.bind(commands)?;
        // SAFETY: as in `bind`.
        unsafe { self.gpu.device.cmd_dispatch(commands, self.words() / 64, 1, 1) };
        Ok(())
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
            self.views.iter().for_each(|&view| device.destroy_buffer_view(view, None));
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
        Binding::Texel => (Type::UNIFORM_TEXEL_BUFFER, Type::STORAGE_TEXEL_BUFFER),
        _ => (Type::STORAGE_BUFFER, Type::STORAGE_BUFFER),
    }
}

fn buffers(gpu: &Arc<Gpu>, binding: Binding) -> Result<(Buffer, Buffer), Failure> {
    use vk::BufferUsageFlags as Usage;
    let (input, output) = match binding {
        Binding::Uniform => (Usage::UNIFORM_BUFFER, Usage::STORAGE_BUFFER),
        Binding::Texel => (Usage::UNIFORM_TEXEL_BUFFER, Usage::STORAGE_TEXEL_BUFFER),
        _ => (Usage::STORAGE_BUFFER, Usage::STORAGE_BUFFER),
    };
    let size = BYTES + u64::from(DYNAMIC_OFFSET);
    Ok((gpu.coherent_for(size, input)?, gpu.coherent_for(size, output)?))
}

fn missing() -> Failure {
    "the device lacks a command that it should have".to_string().into()
}

fn view(gpu: &Gpu, buffer: &Buffer) -> Result<vk::BufferView, Failure> {
    let info =
        vk::BufferViewCreateInfo::default().buffer(buffer.buffer).format(vk::Format::R32_UINT).range(BYTES);
    // SAFETY: a live buffer for views.
    Ok(unsafe { gpu.device.create_buffer_view(&info, None) }?)
}

fn shader(binding: Binding) -> Result<Vec<u32>, Failure> {
    if binding == Binding::Texel {
        return Ok(spirv::texel_adder());
    }
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
