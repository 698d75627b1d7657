//! Plays programs on the device, and compares every byte the host may look at with the model's.

use crate::program::{Abilities, OFFSET_ALIGNMENT, Program, Work};
use ash::vk;
use session::Session;
use tidemark_tests::{Gpu, PageKind, Pages, compile_shader};

mod access;
mod audit;
mod recording;
mod session;
mod submits;

/// Far longer than any of these batches takes.
const LONG: std::time::Duration = std::time::Duration::from_secs(60);

/// A device, and what all programs use of it.
pub(crate) struct Player {
    gpu: Gpu,
    /// For sets that are bound once they are complete, and for those that may be updated later.
    kinds: [SetKind; 2],
    scratch: access::Scratch,
    /// What programs for this device may do.
    pub(crate) abilities: Abilities,
}

/// What goes with descriptor sets of one kind.
struct SetKind {
    set_layout: vk::DescriptorSetLayout,
    layout: vk::PipelineLayout,
    pipeline: vk::Pipeline,
    template: vk::DescriptorUpdateTemplate,
}

/// The operation that went wrong, and how.
pub(crate) struct Failure {
    pub(crate) number: usize,
    pub(crate) what: String,
}

type Done = Result<(), String>;

fn said(command: &'static str) -> impl Fn(vk::Result) -> String {
    move |error| format!("{command} returned {error}")
}

/// What a program does with each of its buffers; where they have device addresses, that comes on top.
const USAGE: vk::BufferUsageFlags =
    vk::BufferUsageFlags::from_raw(audit::COPIES.as_raw() | vk::BufferUsageFlags::STORAGE_BUFFER.as_raw());

/// How the device wants buffers aligned.
fn buffer_alignment(gpu: &Gpu) -> Result<u32, String> {
    let mut usage = USAGE;
    if gpu.has_buffer_device_address {
        usage |= vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS;
    }
    let info = vk::BufferCreateInfo::default().size(4).usage(usage);
    // SAFETY: a valid create info; the buffer is never used.
    let alignment = unsafe {
        let buffer = gpu.device.create_buffer(&info, None).map_err(said("vkCreateBuffer"))?;
        let needs = gpu.device.get_buffer_memory_requirements(buffer);
        gpu.device.destroy_buffer(buffer, None);
        needs.alignment
    };
    let usable =
        u32::try_from(alignment).ok().filter(|&alignment| OFFSET_ALIGNMENT.is_multiple_of(alignment));
    usable.ok_or_else(|| format!("buffers of this device are aligned to {alignment}"))
}

/// Whether pages of the host's can be imported for it to write and read.
fn can_import(gpu: &Gpu) -> Result<bool, String> {
    if !gpu.has(ash::ext::external_memory_host::NAME) {
        return Ok(false);
    }
    let pages = Pages::new(PageKind::Anonymous, PAGE).map_err(|error| error.to_string())?;
    // Where pages of the device's are larger than the host's, this is refused.
    Ok(gpu.import_types(pages.start()).is_ok_and(|types| gpu.coherent_type(types).is_some()))
}

/// Bytes that imports are a multiple of.
const PAGE: usize = 4096;

impl Player {
    /// For programs in which `imports` memories in a hundred are imported, if that is possible.
    pub(crate) fn new(imports: u32) -> Result<Self, String> {
        let gpu = Gpu::new()?;
        let update_after_bind = gpu.has_update_after_bind;
        let kinds = [SetKind::new(&gpu.device, false)?, SetKind::new(&gpu.device, update_after_bind)?];
        let buffer_alignment = buffer_alignment(&gpu)?.max(Abilities::default().buffer_alignment);
        let imports = if can_import(&gpu)? { imports } else { 0 };
        let abilities = Abilities { update_after_bind, buffer_alignment, imports };
        Ok(Self { gpu, kinds, scratch: access::Scratch::new()?, abilities })
    }

    /// Plays a program that is valid as it stands. After a failure the device is in no state to go on.
    pub(crate) fn play(&self, program: &Program) -> Result<(), Failure> {
        let failed = |number| move |what| Failure { number, what };
        let mut session = Session::new(self, program).map_err(failed(0))?;
        for (number, op) in &program.ops {
            if !session.model.apply(op) {
                return Err(failed(*number)("not valid".to_string()));
            }
            session.perform(op).map_err(failed(*number))?;
        }
        session.end().map_err(failed(program.ops.last().map_or(0, |(number, _)| *number)))
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let device = &self.gpu.device;
        // SAFETY: nothing is pending between programs.
        unsafe {
            for kind in &self.kinds {
                device.destroy_pipeline(kind.pipeline, None);
                device.destroy_descriptor_update_template(kind.template, None);
                device.destroy_pipeline_layout(kind.layout, None);
                device.destroy_descriptor_set_layout(kind.set_layout, None);
            }
        }
    }
}

impl SetKind {
    fn new(device: &ash::Device, is_late: bool) -> Result<Self, String> {
        let stages = vk::ShaderStageFlags::COMPUTE;
        let storage = vk::DescriptorType::STORAGE_BUFFER;
        let bindings = [0, 1].map(|binding| {
            vk::DescriptorSetLayoutBinding::default()
                .binding(binding)
                .descriptor_type(storage)
                .descriptor_count(1)
                .stage_flags(stages)
        });
        let flags = [vk::DescriptorBindingFlags::UPDATE_AFTER_BIND; 2];
        let mut flags = vk::DescriptorSetLayoutBindingFlagsCreateInfo::default().binding_flags(&flags);
        let mut info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        if is_late {
            info =
                info.flags(vk::DescriptorSetLayoutCreateFlags::UPDATE_AFTER_BIND_POOL).push_next(&mut flags);
        }
        let entries = [0, 1].map(|binding| {
            vk::DescriptorUpdateTemplateEntry::default()
                .dst_binding(binding)
                .descriptor_count(1)
                .descriptor_type(storage)
                .offset(binding as usize * size_of::<vk::DescriptorBufferInfo>())
        });
        let constants = [vk::PushConstantRange::default().stage_flags(stages).size(size_of::<Work>() as u32)];
        let code = compile_shader(SHADER)?;
        // SAFETY: valid create infos on a live device. The player destroys what is made.
        unsafe {
            let set_layout = device
                .create_descriptor_set_layout(&info, None)
                .map_err(said("vkCreateDescriptorSetLayout"))?;
            let layouts = [set_layout];
            let info = vk::PipelineLayoutCreateInfo::default()
                .set_layouts(&layouts)
                .push_constant_ranges(&constants);
            let layout =
                device.create_pipeline_layout(&info, None).map_err(said("vkCreatePipelineLayout"))?;
            let info = vk::DescriptorUpdateTemplateCreateInfo::default()
                .descriptor_update_entries(&entries)
                .template_type(vk::DescriptorUpdateTemplateType::DESCRIPTOR_SET)
                .descriptor_set_layout(set_layout);
            let template = device
                .create_descriptor_update_template(&info, None)
                .map_err(said("vkCreateDescriptorUpdateTemplate"))?;
            let module = device
                .create_shader_module(&vk::ShaderModuleCreateInfo::default().code(&code), None)
                .map_err(said("vkCreateShaderModule"))?;
            let stage =
                vk::PipelineShaderStageCreateInfo::default().stage(stages).module(module).name(c"main");
            let info = [vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout)];
            let pipelines = device.create_compute_pipelines(vk::PipelineCache::null(), &info, None);
            let pipeline = pipelines.map_err(|(_, error)| said("vkCreateComputePipelines")(error))?[0];
            device.destroy_shader_module(module, None);
            Ok(Self { set_layout, layout, pipeline, template })
        }
    }
}

/// Does what [`Work`] says.
const SHADER: &str = "
    struct Work { input_first: u32, output_first: u32, count: u32, add: u32, in_place: u32 }
    var<immediate> work: Work;
    @group(0) @binding(0) var<storage, read> input: array<u32>;
    @group(0) @binding(1) var<storage, read_write> output: array<u32>;
    @compute @workgroup_size(64)
    fn main(@builtin(global_invocation_id) id: vec3<u32>) {
        if id.x >= work.count { return; }
        let at = work.output_first + id.x;
        if work.in_place != 0u {
            output[at] = output[at] + work.add;
        } else {
            output[at] = input[work.input_first + id.x] + work.add;
        }
    }";
