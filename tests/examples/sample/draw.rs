//! The drawing of the picture: vertices and uniforms that the host rewrites in every frame.

use std::mem;
use std::rc::Rc;

use ash::vk;
use gpu_allocator::MemoryLocation::CpuToGpu;

use crate::buffer::Buffer;
use crate::error::{Context, Result};
use crate::gpu::Gpu;
use crate::owned::Owned;
use crate::pipeline::{self, Binding, Layout};
use crate::renderer::{FRAMES_IN_FLIGHT, slot};
use crate::scene::{self, Uniforms, Vertex};
use crate::target::Target;

pub(crate) struct Draw {
    frames: Vec<Buffers>,
    /// Written once: the triangles stay the same, only their corners move.
    indices: Buffer,
    index_count: u32,
    layout: Layout,
    pipeline: Owned<vk::Pipeline>,
    gpu: Rc<Gpu>,
}

/// The buffers of one frame under way.
struct Buffers {
    vertices: Buffer,
    uniforms: Buffer,
}

impl Draw {
    pub(crate) fn new(gpu: &Rc<Gpu>, target: &Target) -> Result<Self> {
        let frames = (0..FRAMES_IN_FLIGHT).map(|_| Buffers::new(gpu)).collect::<Result<Vec<_>>>()?;
        let indices: Vec<u8> = scene::indices().into_iter().flat_map(u16::to_ne_bytes).collect();
        let index_count = u32::try_from(indices.len() / mem::size_of::<u16>()).context("indices")?;
        let index_buffer =
            Buffer::new(gpu, "index", indices.len(), vk::BufferUsageFlags::INDEX_BUFFER, CpuToGpu)?;
        index_buffer.write(0, &indices);
        let binding =
            Binding { kind: vk::DescriptorType::UNIFORM_BUFFER, stages: vk::ShaderStageFlags::VERTEX };
        let sets: Vec<_> =
            frames.iter().map(|frame| vec![(&frame.uniforms, frame.uniforms.size())]).collect();
        let layout = Layout::new(gpu, &[binding], &sets)?;
        let pipeline = graphics_pipeline(gpu, target, layout.pipeline.get())?;
        Ok(Self { frames, indices: index_buffer, index_count, layout, pipeline, gpu: Rc::clone(gpu) })
    }

    /// The host's stores for `frame`.
    pub(crate) fn write(&self, frame: u32, target: &Target) {
        let Buffers { vertices, uniforms } = &self.frames[slot(frame)];
        vertices.write(0, &bytes(scene::vertices(frame).as_flattened()));
        uniforms.write(0, &bytes(&scene::uniforms(frame, target.size)));
    }

    /// Records the render pass of `frame`.
    pub(crate) fn record(&self, commands: vk::CommandBuffer, frame: u32, target: &Target) {
        let device = self.gpu.device();
        let slot = slot(frame);
        let clear = [vk::ClearValue { color: vk::ClearColorValue { float32: [0.0, 0.0, 0.0, 1.0] } }];
        let begin = vk::RenderPassBeginInfo::default()
            .render_pass(target.render_pass.get())
            .framebuffer(target.framebuffer.get())
            .render_area(target.size.extent().into())
            .clear_values(&clear);
        // SAFETY: the command buffer is being recorded, outside a render pass; everything named lives until
        // the device is done with the frame, fits the render pass, and the indices stay inside the vertices.
        unsafe {
            device.cmd_begin_render_pass(commands, &begin, vk::SubpassContents::INLINE);
            device.cmd_bind_pipeline(commands, vk::PipelineBindPoint::GRAPHICS, self.pipeline.get());
            device.cmd_bind_descriptor_sets(
                commands,
                vk::PipelineBindPoint::GRAPHICS,
                self.layout.pipeline.get(),
                0,
                &[self.layout.sets[slot]],
                &[],
            );
            device.cmd_bind_vertex_buffers(commands, 0, &[self.frames[slot].vertices.handle()], &[0]);
            device.cmd_bind_index_buffer(commands, self.indices.handle(), 0, vk::IndexType::UINT16);
            device.cmd_draw_indexed(commands, self.index_count, 1, 0, 0, 0);
            device.cmd_end_render_pass(commands);
        }
    }
}

impl Buffers {
    fn new(gpu: &Rc<Gpu>) -> Result<Self> {
        let vertices = scene::VERTICES * mem::size_of::<Vertex>();
        Ok(Self {
            vertices: Buffer::new(gpu, "vertex", vertices, vk::BufferUsageFlags::VERTEX_BUFFER, CpuToGpu)?,
            uniforms: Buffer::new(
                gpu,
                "uniform",
                mem::size_of::<Uniforms>(),
                vk::BufferUsageFlags::UNIFORM_BUFFER,
                CpuToGpu,
            )?,
        })
    }
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

fn graphics_pipeline(
    gpu: &Rc<Gpu>,
    target: &Target,
    layout: vk::PipelineLayout,
) -> Result<Owned<vk::Pipeline>> {
    let module = pipeline::compile(gpu, include_str!("scene.wgsl"))?;
    let stage = |stage, entry| {
        vk::PipelineShaderStageCreateInfo::default().stage(stage).module(module.get()).name(entry)
    };
    let stages =
        [stage(vk::ShaderStageFlags::VERTEX, c"vertex"), stage(vk::ShaderStageFlags::FRAGMENT, c"fragment")];

    let bindings = [vk::VertexInputBindingDescription {
        binding: 0,
        stride: u32::try_from(mem::size_of::<Vertex>()).context("vertex")?,
        input_rate: vk::VertexInputRate::VERTEX,
    }];
    let attribute = |location, format, offset| vk::VertexInputAttributeDescription {
        location,
        binding: 0,
        format,
        offset,
    };
    let attributes = [
        attribute(0, vk::Format::R32G32_SFLOAT, 0),
        attribute(1, vk::Format::R32G32B32_SFLOAT, 8),
        attribute(2, vk::Format::R32_SFLOAT, 20),
    ];
    let vertex_input = vk::PipelineVertexInputStateCreateInfo::default()
        .vertex_binding_descriptions(&bindings)
        .vertex_attribute_descriptions(&attributes);
    let assembly =
        vk::PipelineInputAssemblyStateCreateInfo::default().topology(vk::PrimitiveTopology::TRIANGLE_LIST);

    let viewports = [vk::Viewport {
        width: target.size.width.into(),
        height: target.size.height.into(),
        max_depth: 1.0,
        ..vk::Viewport::default()
    }];
    let scissors = [target.size.extent().into()];
    let viewport = vk::PipelineViewportStateCreateInfo::default().viewports(&viewports).scissors(&scissors);
    let rasterization = vk::PipelineRasterizationStateCreateInfo::default()
        .polygon_mode(vk::PolygonMode::FILL)
        .cull_mode(vk::CullModeFlags::NONE)
        .line_width(1.0);
    let multisample =
        vk::PipelineMultisampleStateCreateInfo::default().rasterization_samples(vk::SampleCountFlags::TYPE_1);
    let attachments =
        [vk::PipelineColorBlendAttachmentState::default().color_write_mask(vk::ColorComponentFlags::RGBA)];
    let blend = vk::PipelineColorBlendStateCreateInfo::default().attachments(&attachments);

    let info = vk::GraphicsPipelineCreateInfo::default()
        .stages(&stages)
        .vertex_input_state(&vertex_input)
        .input_assembly_state(&assembly)
        .viewport_state(&viewport)
        .rasterization_state(&rasterization)
        .multisample_state(&multisample)
        .color_blend_state(&blend)
        .layout(layout)
        .render_pass(target.render_pass.get())
        .subpass(0);
    // SAFETY: module, layout and render pass live and fit the shaders' interface; `Owned` destroys the
    // pipeline, which `Draw` keeps until the device is done with it.
    unsafe {
        let pipelines = gpu
            .device()
            .create_graphics_pipelines(vk::PipelineCache::null(), &[info], None)
            .map_err(|(_, error)| error)
            .context("vkCreateGraphicsPipelines")?;
        Ok(Owned::new(gpu, pipelines[0], ash::Device::destroy_pipeline))
    }
}
