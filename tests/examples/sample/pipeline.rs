//! Shader modules and what the graphics and the compute pipelines have in common: one descriptor set for
//! each frame under way, all of buffers.

use std::rc::Rc;

use ash::vk;
use naga::back::spv;
use naga::front::wgsl;
use naga::valid::{Capabilities, ValidationFlags, Validator};

use crate::buffer::Buffer;
use crate::error::{Context, Error, Result};
use crate::gpu::Gpu;
use crate::owned::Owned;

/// Compiles WGSL. Its entry points keep their names.
pub(crate) fn compile(gpu: &Rc<Gpu>, source: &str) -> Result<Owned<vk::ShaderModule>> {
    let module = wgsl::parse_str(source).map_err(|error| Error::new(error.emit_to_string(source)))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
        .validate(&module)
        .map_err(|error| Error::new(error.emit_to_string(source)))?;
    // SPIR-V 1.3 is what every device of Vulkan 1.1 reads.
    let options = spv::Options { lang_version: (1, 3), ..spv::Options::default() };
    let words = spv::write_vec(&module, &info, &options, None).context("SPIR-V")?;
    let create = vk::ShaderModuleCreateInfo::default().code(&words);
    // SAFETY: the words are SPIR-V, from a module that naga has validated; `Owned` destroys the module,
    // which a pipeline needs only while it is made.
    unsafe {
        let module = gpu.device().create_shader_module(&create, None).context("vkCreateShaderModule")?;
        Ok(Owned::new(gpu, module, ash::Device::destroy_shader_module))
    }
}

/// A binding of a buffer, the same in every set.
#[derive(Clone, Copy)]
pub(crate) struct Binding {
    pub(crate) kind: vk::DescriptorType,
    pub(crate) stages: vk::ShaderStageFlags,
}

/// The layout of the pipelines and the descriptor sets made for it.
pub(crate) struct Layout {
    pub(crate) pipeline: Owned<vk::PipelineLayout>,
    pub(crate) sets: Vec<vk::DescriptorSet>,
    /// What the sets are allocated from, and freed with.
    _pool: Owned<vk::DescriptorPool>,
    _set: Owned<vk::DescriptorSetLayout>,
}

impl Layout {
    /// Makes one set for each element of `sets`: its buffers in the order of `bindings`, each with the
    /// number of bytes, from its start, that the shader sees.
    pub(crate) fn new(gpu: &Rc<Gpu>, bindings: &[Binding], sets: &[Vec<(&Buffer, usize)>]) -> Result<Self> {
        let set = set_layout(gpu, bindings)?;
        let layouts = [set.get()];
        let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&layouts);
        // SAFETY: the set layout is a live one of this device; `Owned` destroys the pipeline layout, when its
        // owner drops it along with the pipelines.
        let pipeline = unsafe {
            let layout =
                gpu.device().create_pipeline_layout(&info, None).context("vkCreatePipelineLayout")?;
            Owned::new(gpu, layout, ash::Device::destroy_pipeline_layout)
        };
        let pool = pool(gpu, bindings, sets.len())?;
        let layouts = vec![set.get(); sets.len()];
        let info = vk::DescriptorSetAllocateInfo::default().descriptor_pool(pool.get()).set_layouts(&layouts);
        // SAFETY: the pool and the layouts are live ones of this device, and the pool has room for the sets.
        let handles =
            unsafe { gpu.device().allocate_descriptor_sets(&info) }.context("vkAllocateDescriptorSets")?;
        for (&handle, buffers) in handles.iter().zip(sets) {
            write_set(gpu, handle, bindings, buffers);
        }
        Ok(Self { pipeline, sets: handles, _pool: pool, _set: set })
    }
}

fn set_layout(gpu: &Rc<Gpu>, bindings: &[Binding]) -> Result<Owned<vk::DescriptorSetLayout>> {
    let bindings: Vec<_> = (0..)
        .zip(bindings)
        .map(|(index, binding)| {
            vk::DescriptorSetLayoutBinding::default()
                .binding(index)
                .descriptor_type(binding.kind)
                .descriptor_count(1)
                .stage_flags(binding.stages)
        })
        .collect();
    let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
    // SAFETY: `info` points to data that outlive the call; `Owned` destroys the layout after what uses it.
    unsafe {
        let layout =
            gpu.device().create_descriptor_set_layout(&info, None).context("vkCreateDescriptorSetLayout")?;
        Ok(Owned::new(gpu, layout, ash::Device::destroy_descriptor_set_layout))
    }
}

/// A pool with room for `count` sets of these bindings.
fn pool(gpu: &Rc<Gpu>, bindings: &[Binding], count: usize) -> Result<Owned<vk::DescriptorPool>> {
    let count = u32::try_from(count).context("descriptor sets")?;
    let sizes: Vec<_> = bindings
        .iter()
        .map(|binding| vk::DescriptorPoolSize::default().ty(binding.kind).descriptor_count(count))
        .collect();
    let info = vk::DescriptorPoolCreateInfo::default().max_sets(count).pool_sizes(&sizes);
    // SAFETY: `info` points to data that outlive the call; the pool goes with its sets, when the device is
    // done with them.
    unsafe {
        let pool = gpu.device().create_descriptor_pool(&info, None).context("vkCreateDescriptorPool")?;
        Ok(Owned::new(gpu, pool, ash::Device::destroy_descriptor_pool))
    }
}

fn write_set(gpu: &Gpu, set: vk::DescriptorSet, bindings: &[Binding], buffers: &[(&Buffer, usize)]) {
    for (index, (binding, (buffer, range))) in (0..).zip(bindings.iter().zip(buffers)) {
        let info =
            [vk::DescriptorBufferInfo::default().buffer(buffer.handle()).range(*range as vk::DeviceSize)];
        let write = vk::WriteDescriptorSet::default()
            .dst_set(set)
            .dst_binding(index)
            .descriptor_type(binding.kind)
            .buffer_info(&info);
        // SAFETY: set and buffer are live ones of this device, the binding exists and is of this kind, and
        // no command uses the set yet.
        unsafe { gpu.device().update_descriptor_sets(&[write], &[]) };
    }
}
