//! Draws, and the buffers that they take vertices, indices and parameters from, or put into.
//!
//! Each check submits the same commands several times, and the host rewrites each time what they read.

use ash::vk;

use crate::gpu::{Buffer, Gpu, command};
use crate::graphics::{BYTES, Plotter, Shader, VERTICES};
use crate::{Failure, Outcome, Verdict};
use std::sync::Arc;

pub(crate) const CHECKS: &[super::Check] = &[
    ("vertex-buffer", vertex_buffer),
    ("vertex-buffer2", vertex_buffer2),
    ("index-buffer", index_buffer),
    ("index-buffer2", index_buffer2),
    ("draw-indirect", draw_indirect),
    ("draw-indexed-indirect", draw_indexed_indirect),
    ("draw-indirect-count", draw_indirect_count),
    ("draw-indexed-indirect-count", draw_indexed_indirect_count),
    ("draw-indirect-byte-count", draw_indirect_byte_count),
    ("draw-mesh-tasks-indirect", draw_mesh_tasks_indirect),
    ("draw-mesh-tasks-indirect-count", draw_mesh_tasks_indirect_count),
    ("conditional-rendering", conditional_rendering),
    ("transform-feedback", transform_feedback),
    ("transform-feedback-resumed", transform_feedback_resumed),
    ("transform-feedback-counted", transform_feedback_counted),
];

const NO_STORES: Outcome = Outcome::Skipped("no stores by vertex shaders");
const NO_COUNTS: Outcome = Outcome::Skipped("no draws with a count from a buffer");
const NO_MESHES: Outcome = Outcome::Skipped("no mesh shaders");
const NO_FEEDBACK: Outcome = Outcome::Skipped("no transform feedback");

/// What stores vertices, and their attributes.
struct Scene {
    gpu: Arc<Gpu>,
    plotter: Plotter,
    attributes: Buffer,
}

/// The attribute of a vertex in a round.
fn attribute(round: u32, vertex: u32) -> u32 {
    round * 1000 + vertex + 1
}

impl Scene {
    /// `None` if the device's vertex shaders cannot store.
    fn new() -> Result<Option<Self>, Failure> {
        let gpu = Gpu::new()?;
        // SAFETY: a device of the live instance.
        let features = unsafe { gpu.instance.get_physical_device_features(gpu.physical) };
        if features.vertex_pipeline_stores_and_atomics == vk::FALSE {
            return Ok(None);
        }
        let plotter = Plotter::new(&gpu, Shader::Store)?;
        let attributes = gpu.coherent_for(BYTES, vk::BufferUsageFlags::VERTEX_BUFFER)?;
        Ok(Some(Self { gpu, plotter, attributes }))
    }

    /// A command buffer with what `draw` records, and the attributes bound.
    fn record(&self, draw: impl FnOnce(vk::CommandBuffer)) -> Result<vk::CommandBuffer, Failure> {
        self.plotter.record(|commands| {
            // SAFETY: a live buffer.
            unsafe { self.gpu.device.cmd_bind_vertex_buffers(commands, 0, &[self.attributes.buffer], &[0]) };
            draw(commands);
        })
    }

    /// Submits four times. `prepare` has the host write what the draw depends on, besides the attributes.
    fn rounds(&self, commands: vk::CommandBuffer, prepare: impl Fn()) -> Verdict {
        for round in 0..4 {
            self.attributes.store_words(0, &words(|vertex| attribute(round, vertex)));
            self.plotter.output.fill(0);
            prepare();
            self.gpu.run(commands)?;
            self.plotter.output.expect_words(0, words(|vertex| attribute(round, vertex)))?;
        }
        Ok(Outcome::Passed)
    }

    /// Indices of all vertices, which the device takes for the first one as long as it sees none.
    fn indices(&self) -> Result<Buffer, Failure> {
        self.gpu.parameters(BYTES, vk::BufferUsageFlags::INDEX_BUFFER)
    }

    fn indirect(&self) -> Result<Buffer, Failure> {
        self.gpu.parameters(20, vk::BufferUsageFlags::INDIRECT_BUFFER)
    }

    fn bind_indices(&self, commands: vk::CommandBuffer, indices: &Buffer) {
        // SAFETY: a live buffer.
        unsafe {
            self.gpu.device.cmd_bind_index_buffer(commands, indices.buffer, 0, vk::IndexType::UINT32);
        }
    }
}

fn words(word: impl Fn(u32) -> u32) -> Vec<u32> {
    (0..VERTICES).map(word).collect()
}

fn store_indices(indices: &Buffer) {
    indices.store_words(0, &words(|vertex| VERTICES - 1 - vertex));
}

/// Parameters of a draw of all vertices.
const DRAW: [u32; 4] = [VERTICES, 1, 0, 0];
const INDEXED_DRAW: [u32; 5] = [VERTICES, 1, 0, 0, 0];

fn vertex_buffer() -> Verdict {
    let Some(scene) = Scene::new()? else { return Ok(NO_STORES) };
    // SAFETY: live objects, here and below.
    let commands =
        scene.record(|commands| unsafe { scene.gpu.device.cmd_draw(commands, VERTICES, 1, 0, 0) })?;
    scene.rounds(commands, || {})
}

fn vertex_buffer2() -> Verdict {
    let Some(scene) = Scene::new()? else { return Ok(NO_STORES) };
    let device = &scene.gpu.device;
    // SAFETY: live objects.
    let commands = scene.plotter.record(|commands| unsafe {
        let buffers = [scene.attributes.buffer];
        device.cmd_bind_vertex_buffers2(commands, 0, &buffers, &[0], Some(&[BYTES]), None);
        device.cmd_draw(commands, VERTICES, 1, 0, 0);
    })?;
    scene.rounds(commands, || {})
}

fn index_buffer() -> Verdict {
    let Some(scene) = Scene::new()? else { return Ok(NO_STORES) };
    let indices = scene.indices()?;
    let commands = scene.record(|commands| {
        scene.bind_indices(commands, &indices);
        // SAFETY: live objects.
        unsafe { scene.gpu.device.cmd_draw_indexed(commands, VERTICES, 1, 0, 0, 0) };
    })?;
    scene.rounds(commands, || store_indices(&indices))
}

fn index_buffer2() -> Verdict {
    let Some(scene) = Scene::new()? else { return Ok(NO_STORES) };
    let Some(bind) = command!(scene.gpu, vkCmdBindIndexBuffer2KHR: PFN_vkCmdBindIndexBuffer2KHR) else {
        return Ok(Outcome::Skipped("no vkCmdBindIndexBuffer2"));
    };
    let indices = scene.indices()?;
    // SAFETY: live objects.
    let commands = scene.record(|commands| unsafe {
        bind(commands, indices.buffer, 0, BYTES, vk::IndexType::UINT32);
        scene.gpu.device.cmd_draw_indexed(commands, VERTICES, 1, 0, 0, 0);
    })?;
    scene.rounds(commands, || store_indices(&indices))
}

fn draw_indirect() -> Verdict {
    let Some(scene) = Scene::new()? else { return Ok(NO_STORES) };
    let draws = scene.indirect()?;
    // SAFETY: live objects.
    let commands = scene.record(|commands| unsafe {
        scene.gpu.device.cmd_draw_indirect(commands, draws.buffer, 0, 1, 16);
    })?;
    scene.rounds(commands, || draws.store_words(0, &DRAW))
}

fn draw_indexed_indirect() -> Verdict {
    let Some(scene) = Scene::new()? else { return Ok(NO_STORES) };
    let (draws, indices) = (scene.indirect()?, scene.indices()?);
    let commands = scene.record(|commands| {
        scene.bind_indices(commands, &indices);
        // SAFETY: live objects.
        unsafe { scene.gpu.device.cmd_draw_indexed_indirect(commands, draws.buffer, 0, 1, 20) };
    })?;
    scene.rounds(commands, || {
        store_indices(&indices);
        draws.store_words(0, &INDEXED_DRAW);
    })
}

/// The count lies in a buffer of its own.
fn draw_indirect_count() -> Verdict {
    let Some(scene) = Scene::new()? else { return Ok(NO_STORES) };
    if !scene.gpu.has_draw_indirect_count {
        return Ok(NO_COUNTS);
    }
    let (draws, count) = (scene.indirect()?, scene.indirect()?);
    // SAFETY: live objects.
    let commands = scene.record(|commands| unsafe {
        scene.gpu.device.cmd_draw_indirect_count(commands, draws.buffer, 0, count.buffer, 0, 1, 16);
    })?;
    scene.rounds(commands, || {
        draws.store_words(0, &DRAW);
        count.store_words(0, &[1]);
    })
}

fn draw_indexed_indirect_count() -> Verdict {
    let Some(scene) = Scene::new()? else { return Ok(NO_STORES) };
    if !scene.gpu.has_draw_indirect_count {
        return Ok(NO_COUNTS);
    }
    let (draws, count, indices) = (scene.indirect()?, scene.indirect()?, scene.indices()?);
    let device = &scene.gpu.device;
    let commands = scene.record(|commands| {
        scene.bind_indices(commands, &indices);
        // SAFETY: live objects.
        unsafe {
            device.cmd_draw_indexed_indirect_count(commands, draws.buffer, 0, count.buffer, 0, 1, 20);
        }
    })?;
    scene.rounds(commands, || {
        store_indices(&indices);
        draws.store_words(0, &INDEXED_DRAW);
        count.store_words(0, &[1]);
    })
}

/// The number of vertices follows from a counter as transform feedback leaves it.
fn draw_indirect_byte_count() -> Verdict {
    let Some(scene) = Scene::new()? else { return Ok(NO_STORES) };
    let Some(draw) = command!(scene.gpu, vkCmdDrawIndirectByteCountEXT: PFN_vkCmdDrawIndirectByteCountEXT)
    else {
        return Ok(NO_FEEDBACK);
    };
    let counter = scene.indirect()?;
    // SAFETY: live objects.
    let commands = scene.record(|commands| unsafe { draw(commands, 1, 0, counter.buffer, 0, 0, 4) })?;
    scene.rounds(commands, || counter.store_words(0, &[VERTICES * 4]))
}

fn conditional_rendering() -> Verdict {
    let Some(scene) = Scene::new()? else { return Ok(NO_STORES) };
    let gpu = &scene.gpu;
    let begin = command!(gpu, vkCmdBeginConditionalRenderingEXT: PFN_vkCmdBeginConditionalRenderingEXT);
    let end = command!(gpu, vkCmdEndConditionalRenderingEXT: PFN_vkCmdEndConditionalRenderingEXT);
    let (Some(begin), Some(end)) = (begin, end) else {
        return Ok(Outcome::Skipped("no conditional rendering"));
    };
    let condition = gpu.parameters(4, vk::BufferUsageFlags::CONDITIONAL_RENDERING_EXT)?;
    let info = vk::ConditionalRenderingBeginInfoEXT::default().buffer(condition.buffer);
    // SAFETY: live objects.
    let commands = scene.record(|commands| unsafe {
        begin(commands, &raw const info);
        gpu.device.cmd_draw(commands, VERTICES, 1, 0, 0);
        end(commands);
    })?;
    scene.rounds(commands, || condition.store_words(0, &[1]))
}

/// Mesh shaders, and the buffer that tells how many workgroups there are.
fn meshes(draw: impl FnOnce(&Gpu, vk::CommandBuffer, &Buffer, &Buffer) -> Option<()>) -> Verdict {
    let gpu = Gpu::new()?;
    if !gpu.has(ash::ext::mesh_shader::NAME) {
        return Ok(NO_MESHES);
    }
    let plotter = Plotter::new(&gpu, Shader::Mesh)?;
    let usage = vk::BufferUsageFlags::INDIRECT_BUFFER;
    let (groups, count) = (gpu.parameters(12, usage)?, gpu.parameters(4, usage)?);
    let mut drawn = None;
    let commands = plotter.record(|commands| drawn = draw(&gpu, commands, &groups, &count))?;
    if drawn.is_none() {
        return Ok(NO_MESHES);
    }
    for _ in 0..4 {
        plotter.output.fill(0);
        groups.store_words(0, &[VERTICES, 1, 1]);
        count.store_words(0, &[1]);
        gpu.run(commands)?;
        plotter.output.expect_words(0, words(|group| group + 1000))?;
    }
    Ok(Outcome::Passed)
}

fn draw_mesh_tasks_indirect() -> Verdict {
    meshes(|gpu, commands, groups, _| {
        let draw = command!(gpu, vkCmdDrawMeshTasksIndirectEXT: PFN_vkCmdDrawMeshTasksIndirectEXT)?;
        // SAFETY: live objects.
        unsafe { draw(commands, groups.buffer, 0, 1, 12) };
        Some(())
    })
}

fn draw_mesh_tasks_indirect_count() -> Verdict {
    meshes(|gpu, commands, groups, count| {
        let draw = command!(gpu, vkCmdDrawMeshTasksIndirectCountEXT: PFN_vkCmdDrawMeshTasksIndirectCountEXT)?;
        // SAFETY: live objects.
        unsafe { draw(commands, groups.buffer, 0, count.buffer, 0, 1, 12) };
        Some(())
    })
}

/// Bytes that transform feedback goes on from, where it does.
const RESUMED_AT: u32 = 64;

/// Captures all vertices, with a counter to begin at and one to leave, if they are given.
fn capture(resumes: bool, counts: bool, check: impl Fn(&Buffer, &Buffer) -> Result<(), Failure>) -> Verdict {
    let gpu = Gpu::new()?;
    let bind = command!(gpu, vkCmdBindTransformFeedbackBuffersEXT: PFN_vkCmdBindTransformFeedbackBuffersEXT);
    let begin = command!(gpu, vkCmdBeginTransformFeedbackEXT: PFN_vkCmdBeginTransformFeedbackEXT);
    let end = command!(gpu, vkCmdEndTransformFeedbackEXT: PFN_vkCmdEndTransformFeedbackEXT);
    let (Some(bind), Some(begin), Some(end)) = (bind, begin, end) else { return Ok(NO_FEEDBACK) };
    let plotter = Plotter::new(&gpu, Shader::Capture)?;
    let size = BYTES + u64::from(RESUMED_AT);
    let captured = gpu.parameters(size, vk::BufferUsageFlags::TRANSFORM_FEEDBACK_BUFFER_EXT)?;
    let counter = gpu.parameters(4, vk::BufferUsageFlags::TRANSFORM_FEEDBACK_COUNTER_BUFFER_EXT)?;
    let (offset, none) = (0, std::ptr::null());
    let counters = |is_there: bool| if is_there { &raw const counter.buffer } else { none };
    // SAFETY: live objects, and arrays of one element or null.
    let commands = plotter.record(|commands| unsafe {
        bind(commands, 0, 1, &raw const captured.buffer, &raw const offset, &raw const size);
        begin(commands, 0, u32::from(resumes), counters(resumes), std::ptr::null());
        gpu.device.cmd_draw(commands, VERTICES, 1, 0, 0);
        end(commands, 0, u32::from(counts), counters(counts), std::ptr::null());
    })?;
    for _ in 0..4 {
        captured.fill(0);
        counter.store_words(0, &[if resumes { RESUMED_AT } else { 0 }]);
        gpu.run(commands)?;
        check(&captured, &counter)?;
    }
    Ok(Outcome::Passed)
}

fn transform_feedback() -> Verdict {
    capture(false, false, |captured, _| captured.expect_words(0, words(|vertex| vertex + 1000)))
}

/// From where the counter says, which the host wrote.
fn transform_feedback_resumed() -> Verdict {
    capture(true, false, |captured, _| {
        captured.expect_words(0, (0..RESUMED_AT / 4).map(|_| 0))?;
        captured.expect_words(RESUMED_AT as usize, words(|vertex| vertex + 1000))
    })
}

/// The counter tells the host how far it came.
fn transform_feedback_counted() -> Verdict {
    capture(false, true, |_, counter| counter.expect_words(0, [VERTICES * 4]))
}
