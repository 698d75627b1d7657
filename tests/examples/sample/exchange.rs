//! The exchange of bytes between the host and the device, checked to the last one.
//!
//! Three buffers for each frame under way, all coherent and mapped for good:
//!
//! - `input`: words for the `transform` shader, then bytes at an odd offset. The host writes all of it.
//! - `output`: what `transform` makes of the words, then those bytes, copied to another odd offset. The host
//!   fills it with guard bytes first, and those that the device must leave alone have to be there afterwards.
//! - `cells`: the host and the device own neighbouring words. The host stores into some of its own while the
//!   device is at work on the others.

use std::rc::Rc;

use ash::vk;
use gpu_allocator::MemoryLocation::{CpuToGpu, GpuToCpu};

use crate::buffer::Buffer;
use crate::check;
use crate::error::{Context, Result};
use crate::gpu::Gpu;
use crate::owned::Owned;
use crate::pattern;
use crate::pipeline::{self, Binding, Layout};
use crate::renderer::{FRAMES_IN_FLIGHT, slot};

/// Words that `transform` reads and writes.
const WORDS: u32 = 4096;
const WORD_BYTES: usize = 4 * WORDS as usize;
/// Bytes that are copied, from which offset to which: an odd number of them, and nothing aligned.
const ODD_BYTES: u32 = 4099;
const ODD_FROM: usize = WORD_BYTES + 13;
const ODD_TO: usize = WORD_BYTES + 7;
const INPUT_BYTES: usize = ODD_FROM + ODD_BYTES as usize;
/// Five guard bytes at the end: an odd size as well.
const OUTPUT_BYTES: usize = ODD_TO + ODD_BYTES as usize + 5;
const CELLS: u32 = 1000;
const CELL_BYTES: usize = 16;
/// Where the words of a cell are.
const EARLY: usize = 0;
const LATE: [usize; 2] = [8, 12];
/// The workgroup size of both shaders.
const WORKGROUP: u32 = 64;

pub(crate) struct Exchange {
    frames: Vec<Buffers>,
    layout: Layout,
    transform: Owned<vk::Pipeline>,
    answer: Owned<vk::Pipeline>,
    gpu: Rc<Gpu>,
}

/// The buffers of one frame under way.
struct Buffers {
    input: Buffer,
    output: Buffer,
    cells: Buffer,
}

impl Exchange {
    pub(crate) fn new(gpu: &Rc<Gpu>) -> Result<Self> {
        let frames = (0..FRAMES_IN_FLIGHT).map(|_| Buffers::new(gpu)).collect::<Result<Vec<_>>>()?;
        let storage =
            Binding { kind: vk::DescriptorType::STORAGE_BUFFER, stages: vk::ShaderStageFlags::COMPUTE };
        let sets: Vec<_> = frames
            .iter()
            .map(|frame| {
                vec![
                    (&frame.input, WORD_BYTES),
                    (&frame.output, WORD_BYTES),
                    (&frame.cells, frame.cells.size()),
                ]
            })
            .collect();
        let layout = Layout::new(gpu, &[storage; 3], &sets)?;
        let module = pipeline::compile(gpu, include_str!("exchange.wgsl"))?;
        let [transform, answer] = [c"transform", c"answer"].map(|entry| {
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module.get())
                .name(entry);
            let info = vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout.pipeline.get());
            // SAFETY: the module has this entry point and fits the layout; both live. `Owned` destroys the
            // pipeline, which the exchange keeps until the device is done with it.
            unsafe {
                let pipelines =
                    gpu.device().create_compute_pipelines(vk::PipelineCache::null(), &[info], None);
                let pipelines = pipelines.map_err(|(_, error)| error).context("vkCreateComputePipelines")?;
                Ok(Owned::new(gpu, pipelines[0], ash::Device::destroy_pipeline))
            }
        });
        Ok(Self { frames, layout, transform: transform?, answer: answer?, gpu: Rc::clone(gpu) })
    }

    /// The host's stores before the device starts on `frame`.
    pub(crate) fn write_early(&self, frame: u32) {
        let Buffers { input, output, cells } = &self.frames[slot(frame)];
        for index in 0..WORDS {
            input.write(4 * index as usize, &pattern::input(frame, index).to_ne_bytes());
        }
        let odd: Vec<u8> = (0..ODD_BYTES).map(|index| pattern::odd_byte(frame, index)).collect();
        input.write(ODD_FROM, &odd);
        output.write(0, &[pattern::guard(frame); OUTPUT_BYTES]);
        for index in 0..CELLS {
            let word = pattern::early(frame, index, lane(frame));
            cells.write(CELL_BYTES * index as usize + EARLY, &word.to_ne_bytes());
        }
    }

    /// The host's stores while the device is at work on `frame`: between the words that the device loads
    /// and stores at the same time, and never into one of those.
    pub(crate) fn write_late(&self, frame: u32) {
        let cells = &self.frames[slot(frame)].cells;
        let word_in_cell = LATE[lane(frame) as usize];
        for index in 0..CELLS {
            let word = pattern::late(frame, index);
            cells.write(CELL_BYTES * index as usize + word_in_cell, &word.to_ne_bytes());
        }
    }

    /// Records the device's part of `frame`.
    pub(crate) fn record(&self, commands: vk::CommandBuffer, frame: u32) {
        let device = self.gpu.device();
        let slot = slot(frame);
        let Buffers { input, output, .. } = &self.frames[slot];
        let odd = vk::BufferCopy {
            src_offset: ODD_FROM as vk::DeviceSize,
            dst_offset: ODD_TO as vk::DeviceSize,
            size: ODD_BYTES.into(),
        };
        // Coherent or not, the device's writes must be over and available before the host looks.
        let to_host = vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::SHADER_WRITE | vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(vk::AccessFlags::HOST_READ);
        // SAFETY: the command buffer is being recorded, outside a render pass; everything named lives
        // until the device is done with the frame, and the copy is inside both buffers and overlaps nothing.
        unsafe {
            device.cmd_bind_descriptor_sets(
                commands,
                vk::PipelineBindPoint::COMPUTE,
                self.layout.pipeline.get(),
                0,
                &[self.layout.sets[slot]],
                &[],
            );
            device.cmd_bind_pipeline(commands, vk::PipelineBindPoint::COMPUTE, self.transform.get());
            device.cmd_dispatch(commands, WORDS.div_ceil(WORKGROUP), 1, 1);
            device.cmd_bind_pipeline(commands, vk::PipelineBindPoint::COMPUTE, self.answer.get());
            device.cmd_dispatch(commands, CELLS.div_ceil(WORKGROUP), 1, 1);
            device.cmd_copy_buffer(commands, input.handle(), output.handle(), &[odd]);
            device.cmd_pipeline_barrier(
                commands,
                vk::PipelineStageFlags::COMPUTE_SHADER | vk::PipelineStageFlags::TRANSFER,
                vk::PipelineStageFlags::HOST,
                vk::DependencyFlags::empty(),
                &[to_host],
                &[],
                &[],
            );
        }
    }

    /// Checks every byte of `output` and `cells`, when the device is done with `frame`. Answers how many
    /// those were.
    pub(crate) fn check(&self, frame: u32) -> Result<u64> {
        let Buffers { output, cells, .. } = &self.frames[slot(frame)];
        let checked = check::compare("output", frame, &expected_output(frame), &output.read())?
            + check::compare("cells", frame, &expected_cells(frame), &cells.read())?;
        Ok(checked)
    }
}

impl Buffers {
    fn new(gpu: &Rc<Gpu>) -> Result<Self> {
        let storage = vk::BufferUsageFlags::STORAGE_BUFFER;
        let from = storage | vk::BufferUsageFlags::TRANSFER_SRC;
        let to = storage | vk::BufferUsageFlags::TRANSFER_DST;
        let buffers = Self {
            input: Buffer::new(gpu, "input", INPUT_BYTES, from, CpuToGpu)?,
            output: Buffer::new(gpu, "output", OUTPUT_BYTES, to, GpuToCpu)?,
            cells: Buffer::new(gpu, "cells", CELL_BYTES * CELLS as usize, storage, CpuToGpu)?,
        };
        buffers.cells.write(0, &vec![0; buffers.cells.size()]);
        Ok(buffers)
    }
}

/// Which of the two late words the host stores into in this frame. It changes from one use of the
/// buffers to the next.
fn lane(frame: u32) -> u32 {
    frame / FRAMES_IN_FLIGHT % 2
}

fn expected_output(frame: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(OUTPUT_BYTES);
    bytes.extend((0..WORDS).flat_map(|index| pattern::transformed(frame, index).to_ne_bytes()));
    bytes.resize(ODD_TO, pattern::guard(frame));
    bytes.extend((0..ODD_BYTES).map(|index| pattern::odd_byte(frame, index)));
    bytes.resize(OUTPUT_BYTES, pattern::guard(frame));
    bytes
}

fn expected_cells(frame: u32) -> Vec<u8> {
    let lane = lane(frame);
    // The frame before that had these buffers; before the first, the late words were zero.
    let previous = frame.checked_sub(FRAMES_IN_FLIGHT);
    let cell = |index| {
        let early = pattern::early(frame, index, lane);
        let before = previous.map_or(0, |previous| pattern::late(previous, index));
        let now = pattern::late(frame, index);
        let late = if lane == 0 { [now, before] } else { [before, now] };
        [early, pattern::answer(early, before, index), late[0], late[1]]
    };
    (0..CELLS).flat_map(cell).flat_map(u32::to_ne_bytes).collect()
}
