//! A graphics pipeline that draws nothing: what its shader stores tells which vertices there were.

use ash::vk;

use crate::Failure;
use crate::gpu::{Buffer, Gpu};
use crate::spirv;
use std::sync::Arc;

/// Vertices, of triangles.
pub(crate) const VERTICES: u32 = 48;
/// Bytes of a word for each.
pub(crate) const BYTES: u64 = VERTICES as u64 * 4;

/// What the shader does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shader {
    /// Vertex i of the draw stores its attribute, as word i.
    Store,
    /// Vertex i is captured by transform feedback as i + 1000.
    Capture,
    /// Workgroup i of a mesh shader stores i + 1000, as word i.
    Mesh,
}

const STORE: &str = "
    @group(0) @binding(0) var<storage, read_write> output: array<u32>;
    @vertex fn main(@builtin(vertex_index) index: u32, @location(0) value: u32) -> @builtin(position) vec4<f32> {
        output[index] = value;
        return vec4<f32>();
    }";

const CAPTURE: &str = "
    struct Vertex { @builtin(position) position: vec4<f32>, @location(0) @interpolate(flat) value: u32 }
    @vertex fn main(@builtin(vertex_index) index: u32) -> Vertex { return Vertex(vec4<f32>(), index + 1000u); }";

const MESH: &str = "
    enable wgpu_mesh_shader;
    struct Vertex { @builtin(position) position: vec4<f32> }
    struct Triangle { @builtin(triangle_indices) indices: vec3<u32> }
    struct Mesh {
        @builtin(vertices) vertices: array<Vertex, 3>,
        @builtin(primitives) primitives: array<Triangle, 1>,
        @builtin(vertex_count) vertex_count: u32,
        @builtin(primitive_count) primitive_count: u32,
    }
    var<workgroup> mesh: Mesh;
    @group(0) @binding(0) var<storage, read_write> output: array<u32>;
    @mesh(mesh) @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3<u32>) {
        output[id.x] = id.x + 1000u;
        mesh.vertex_count = 0u;
        mesh.primitive_count = 0u;
    }";

pub(crate) struct Plotter {
    gpu: Arc<Gpu>,
    /// A word for each vertex.
    pub(crate) output: Buffer,
    set: vk::DescriptorSet,
    set_layout: vk::DescriptorSetLayout,
    descriptors: vk::DescriptorPool,
    layout: vk::PipelineLayout,
    pipeline: vk::Pipeline,
}

impl Plotter {
    pub(crate) fn new(gpu: &Arc<Gpu>, shader: Shader) -> Result<Self, Failure> {
        let device = &gpu.device;
        let kind = vk::DescriptorType::STORAGE_BUFFER;
        let bindings = [vk::DescriptorSetLayoutBinding::default()
            .descriptor_type(kind)
            .descriptor_count(1)
            .stage_flags(if shader == Shader::Mesh {
                vk::ShaderStageFlags::MESH_EXT
            } else {
                vk::ShaderStageFlags::VERTEX
            })];
        let layout_info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        let sizes = [vk::DescriptorPoolSize::default().ty(kind).descriptor_count(1)];
        let pool_info = vk::DescriptorPoolCreateInfo::default().max_sets(1).pool_sizes(&sizes);
        let output = gpu.coherent_for(BYTES, vk::BufferUsageFlags::STORAGE_BUFFER)?;
        let buffers = [vk::DescriptorBufferInfo::default().buffer(output.buffer).range(vk::WHOLE_SIZE)];
        // SAFETY: valid create infos on a live device; destroyed in `drop`.
        let (set_layout, descriptors, layout, set) = unsafe {
            let set_layout = device.create_descriptor_set_layout(&layout_info, None)?;
            let layouts = [set_layout];
            let layout = device.create_pipeline_layout(
                &vk::PipelineLayoutCreateInfo::default().set_layouts(&layouts),
                None,
            )?;
            let descriptors = device.create_descriptor_pool(&pool_info, None)?;
            let set = device.allocate_descriptor_sets(
                &vk::DescriptorSetAllocateInfo::default().descriptor_pool(descriptors).set_layouts(&layouts),
            )?[0];
            let write =
                vk::WriteDescriptorSet::default().dst_set(set).descriptor_type(kind).buffer_info(&buffers);
            device.update_descriptor_sets(&[write], &[]);
            (set_layout, descriptors, layout, set)
        };
        let pipeline = pipeline(gpu, shader, layout)?;
        Ok(Self { gpu: gpu.clone(), output, set, set_layout, descriptors, layout, pipeline })
    }

    /// A command buffer with what `draw` records.
    pub(crate) fn record(&self, draw: impl FnOnce(vk::CommandBuffer)) -> Result<vk::CommandBuffer, Failure> {
        let device = &self.gpu.device;
        let extent = vk::Extent2D { width: 1, height: 1 };
        let rendering =
            vk::RenderingInfo::default().render_area(vk::Rect2D::default().extent(extent)).layer_count(1);
        let point = vk::PipelineBindPoint::GRAPHICS;
        // SAFETY: live objects.
        self.gpu.record(|commands| unsafe {
            device.cmd_bind_pipeline(commands, point, self.pipeline);
            device.cmd_bind_descriptor_sets(commands, point, self.layout, 0, &[self.set], &[]);
            device.cmd_begin_rendering(commands, &rendering);
            draw(commands);
            device.cmd_end_rendering(commands);
        })
    }
}

impl Drop for Plotter {
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

/// Without attachments, and with what there is of primitives discarded.
fn pipeline(gpu: &Gpu, shader: Shader, layout: vk::PipelineLayout) -> Result<vk::Pipeline, Failure> {
    let code = match shader {
        Shader::Store => tidemark_tests::compile_shader(STORE)?,
        Shader::Capture => spirv::captured(&tidemark_tests::compile_shader(CAPTURE)?),
        Shader::Mesh => tidemark_tests::compile_shader(MESH)?,
    };
    let stage =
        if shader == Shader::Mesh { vk::ShaderStageFlags::MESH_EXT } else { vk::ShaderStageFlags::VERTEX };
    let bindings = [vk::VertexInputBindingDescription::default().stride(4)];
    let attributes = [vk::VertexInputAttributeDescription::default().format(vk::Format::R32_UINT)];
    let mut input = vk::PipelineVertexInputStateCreateInfo::default();
    if shader == Shader::Store {
        input = input.vertex_binding_descriptions(&bindings).vertex_attribute_descriptions(&attributes);
    }
    let assembly =
        vk::PipelineInputAssemblyStateCreateInfo::default().topology(vk::PrimitiveTopology::TRIANGLE_LIST);
    let raster =
        vk::PipelineRasterizationStateCreateInfo::default().rasterizer_discard_enable(true).line_width(1.0);
    let mut rendering = vk::PipelineRenderingCreateInfo::default();
    // SAFETY: valid create infos on a live device; the module is destroyed here, the pipeline by the caller.
    unsafe {
        let module =
            gpu.device.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(&code), None)?;
        let stages = [vk::PipelineShaderStageCreateInfo::default().stage(stage).module(module).name(c"main")];
        let info = [vk::GraphicsPipelineCreateInfo::default()
            .stages(&stages)
            .vertex_input_state(&input)
            .input_assembly_state(&assembly)
            .rasterization_state(&raster)
            .layout(layout)
            .push_next(&mut rendering)];
        let made = gpu.device.create_graphics_pipelines(vk::PipelineCache::null(), &info, None);
        gpu.device.destroy_shader_module(module, None);
        Ok(made.map_err(|(_, error)| error)?[0])
    }
}
