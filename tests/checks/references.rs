//! The device reads what the host wrote, and the host what the device wrote, by whatever way a batch leads to a
//! buffer: descriptors of every kind and update, addresses, indirect parameters, secondary command buffers.
//!
//! Each check runs one shader: `output[i] = input[i] + 1`, for every word. It runs several times, and the host rewrites
//! the input each time while it stays mapped.

use ash::vk;

use crate::compute::{Adder, Binding, WORDS};
use crate::gpu::{Gpu, ROUND_TRIP};
use crate::{Failure, Outcome, Verdict};

pub(crate) const CHECKS: &[super::Check] = &[
    ("storage-descriptors", || add(Binding::Update)),
    ("uniform-descriptors", || add(Binding::Uniform)),
    ("dynamic-descriptors", || add(Binding::Dynamic)),
    ("copied-descriptors", || add(Binding::Copy)),
    ("templated-descriptors", || add(Binding::Template)),
    ("descriptors-updated-after-recording", || add(Binding::UpdateAfterBind)),
    ("texel-buffers", || add(Binding::Texel)),
    ("descriptors-bound-by-structure", || add(Binding::Bind2)),
    ("pushed-descriptors", || add(Binding::Push)),
    ("descriptors-pushed-by-structure", || add(Binding::Push2)),
    ("descriptors-pushed-by-template", || add(Binding::PushTemplate)),
    ("descriptors-pushed-by-template-structure", || add(Binding::PushTemplate2)),
    ("indirect-dispatch", indirect_dispatch),
    ("secondary-command-buffer", secondary_command_buffer),
    ("descriptors-swapped-between-submits", descriptors_swapped_between_submits),
    ("device-address", device_address),
    ("buffer-image-copies", buffer_image_copies),
    ("idle-neighbour-keeps-its-bytes", idle_neighbour_keeps_its_bytes),
];

/// The host's value of a word in a round.
fn value(round: u32, index: u32) -> u32 {
    index.wrapping_mul(2_654_435_761).wrapping_add(round)
}

fn run_rounds(adder: &Adder, mut submit: impl FnMut(u32) -> Result<(), Failure>) -> Verdict {
    for round in 0..4 {
        adder.write_input(|index| value(round, index));
        submit(round)?;
        adder.expect_output(|index| value(round, index).wrapping_add(1), round)?;
    }
    Ok(Outcome::Passed)
}

fn add(binding: Binding) -> Verdict {
    let gpu = Gpu::new()?;
    if !binding.is_there(&gpu) {
        return Ok(Outcome::Skipped("the device has no such way to bind descriptors"));
    }
    let adder = Adder::new(&gpu, binding)?;
    let commands = adder.record()?;
    if binding == Binding::UpdateAfterBind {
        adder.update()?;
    }
    run_rounds(&adder, |_| gpu.run(commands))
}

fn indirect_dispatch() -> Verdict {
    let gpu = Gpu::new()?;
    let adder = Adder::new(&gpu, Binding::Update)?;
    let parameters = gpu.parameters(12, vk::BufferUsageFlags::INDIRECT_BUFFER)?;
    let mut bound = Ok(());
    let commands = gpu.record(|commands| {
        bound = adder.bind(commands);
        // SAFETY: a live buffer with room for the parameters.
        unsafe { gpu.device.cmd_dispatch_indirect(commands, parameters.buffer, 0) };
    })?;
    bound?;
    run_rounds(&adder, |_| {
        parameters.store_words(0, &[WORDS / 64, 1, 1]);
        let outcome = gpu.run(commands);
        // A stale count is no work at all.
        parameters.fill(0);
        outcome
    })
}

fn secondary_command_buffer() -> Verdict {
    let gpu = Gpu::new()?;
    let adder = Adder::new(&gpu, Binding::Update)?;
    let mut bound = Ok(());
    let secondary = gpu.record_secondary(|commands| bound = adder.dispatch(commands))?;
    bound?;
    // SAFETY: a recorded secondary command buffer.
    let commands =
        gpu.record(|commands| unsafe { gpu.device.cmd_execute_commands(commands, &[secondary]) })?;
    run_rounds(&adder, |_| gpu.run(commands))
}

/// The set leads to other buffers than when it was recorded last: what counts is what it holds at the submit.
fn descriptors_swapped_between_submits() -> Verdict {
    let gpu = Gpu::new()?;
    let mut adder = Adder::new(&gpu, Binding::Update)?;
    for round in 0..4 {
        adder.swap_buffers(&gpu)?;
        let commands = adder.record()?;
        adder.write_input(|index| value(round, index));
        gpu.run(commands)?;
        adder.expect_output(|index| value(round, index).wrapping_add(1), round)?;
    }
    Ok(Outcome::Passed)
}

fn device_address() -> Verdict {
    let gpu = Gpu::new()?;
    if !gpu.has_buffer_device_address {
        return Ok(Outcome::Skipped("no buffer device addresses"));
    }
    // Buffers that may be reached by address count as used by every batch, whatever it names.
    let usage = vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS
        | vk::BufferUsageFlags::TRANSFER_SRC
        | vk::BufferUsageFlags::TRANSFER_DST;
    let (from, to) = (gpu.coherent_for(8192, usage)?, gpu.coherent_for(8192, usage)?);
    let copy = gpu.copy(&from, &to)?;
    for round in 0..4 {
        from.write_pattern(round);
        gpu.run(copy)?;
        to.expect_pattern(round)?;
    }
    Ok(Outcome::Passed)
}

/// Through an image and back.
fn buffer_image_copies() -> Verdict {
    let gpu = Gpu::new()?;
    let (from, to) = (gpu.coherent(ROUND_TRIP)?, gpu.coherent(ROUND_TRIP)?);
    let commands = gpu.record_image_round_trip(&from, &to)?;
    for round in 0..4 {
        from.write_pattern(round);
        gpu.run(commands)?;
        to.expect_pattern(round)?;
    }
    Ok(Outcome::Passed)
}

/// A buffer that no batch names keeps what the host writes to it, however many batches come and go; and the first that
/// does name it sees the last bytes.
fn idle_neighbour_keeps_its_bytes() -> Verdict {
    let gpu = Gpu::new()?;
    let (idle, busy, to) = (gpu.coherent(20_000)?, gpu.coherent(20_000)?, gpu.coherent(20_000)?);
    let copy_busy = gpu.copy(&busy, &to)?;
    let copy_idle = gpu.copy(&idle, &to)?;
    for round in 0..8 {
        idle.write_pattern(round);
        busy.write_pattern(round ^ 0x55);
        gpu.run(copy_busy)?;
        to.expect_pattern(round ^ 0x55)?;
        idle.expect_pattern(round)?;
    }
    gpu.run(copy_idle)?;
    to.expect_pattern(7)?;
    Ok(Outcome::Passed)
}
