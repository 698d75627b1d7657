//! Allocations of one process that share memory, one being the import of another's export: the host and each device see
//! it as one, through whichever of them it was written.

use ash::vk;
use std::sync::Arc;

use crate::gpu::{Buffer, Gpu};
use crate::{Failure, Outcome, Verdict};

pub(crate) const CHECKS: &[super::Check] = &[
    ("shared-memory", shared_memory),
    ("shared-memory-across-devices", shared_memory_across_devices),
    ("shared-memory-outlives-its-exporter", shared_memory_outlives_its_exporter),
];

/// Not a multiple of a page's.
const SIZE: u64 = 70_000;

const NONE: Verdict = Ok(Outcome::Skipped("VK_KHR_external_memory_fd is not there"));

fn is_there(gpu: &Gpu) -> bool {
    gpu.has(ash::khr::external_memory_fd::NAME)
}

/// A buffer in the memory of another.
fn import(gpu: &Arc<Gpu>, exporter: &Buffer) -> Result<Buffer, Failure> {
    Buffer::shared(gpu, SIZE, Some(exporter.handle()?))
}

/// Has the device fill a buffer.
fn run_fill(gpu: &Gpu, buffer: &Buffer, byte: u8) -> Result<(), Failure> {
    // SAFETY: a live buffer.
    let fill = gpu.record(|commands| unsafe {
        let word = u32::from_ne_bytes([byte; 4]);
        gpu.device.cmd_fill_buffer(commands, buffer.buffer, 0, vk::WHOLE_SIZE, word);
    })?;
    gpu.run(fill)
}

/// Host and device of `gpu` write and read `one`, those of `other_gpu` `other`, which is the same memory.
fn exchange(gpu: &Arc<Gpu>, one: &Buffer, other_gpu: &Arc<Gpu>, other: &Buffer) -> Result<(), Failure> {
    let (seen, other_seen) = (gpu.coherent(SIZE)?, other_gpu.coherent(SIZE)?);
    let (look, other_look) = (gpu.copy(one, &seen)?, other_gpu.copy(other, &other_seen)?);
    for round in (0..4).map(|round| round * 10) {
        one.fill(round + 1);
        other.expect(|_| round + 1)?;
        other_gpu.run(other_look)?;
        other_seen.expect(|_| round + 1)?;
        other.fill(round + 2);
        gpu.run(look)?;
        seen.expect(|_| round + 2)?;
        run_fill(gpu, one, round + 3)?;
        other.expect(|_| round + 3)?;
        other_gpu.run(other_look)?;
        other_seen.expect(|_| round + 3)?;
        run_fill(other_gpu, other, round + 4)?;
        one.expect(|_| round + 4)?;
        // Each writes its half.
        let middle = one.len() / 2;
        (0..middle).for_each(|offset| one.store(offset, round + 5));
        (middle..one.len()).for_each(|offset| other.store(offset, round + 6));
        gpu.run(look)?;
        seen.expect(|offset| if offset < middle { round + 5 } else { round + 6 })?;
    }
    Ok(())
}

fn shared_memory() -> Verdict {
    let gpu = Gpu::new()?;
    if !is_there(&gpu) {
        return NONE;
    }
    let one = Buffer::shared(&gpu, SIZE, None)?;
    exchange(&gpu, &one, &gpu, &import(&gpu, &one)?)?;
    Ok(Outcome::Passed)
}

/// The devices are those of two instances.
fn shared_memory_across_devices() -> Verdict {
    let (gpu, other_gpu) = (Gpu::new()?, Gpu::new()?);
    if !is_there(&gpu) {
        return NONE;
    }
    let one = Buffer::shared(&gpu, SIZE, None)?;
    exchange(&gpu, &one, &other_gpu, &import(&other_gpu, &one)?)?;
    Ok(Outcome::Passed)
}

/// What the host wrote last by way of the exporter, and how it went on after that.
fn shared_memory_outlives_its_exporter() -> Verdict {
    let gpu = Gpu::new()?;
    if !is_there(&gpu) {
        return NONE;
    }
    let first = Gpu::new()?;
    let one = Buffer::shared(&first, SIZE, None)?;
    let two = import(&gpu, &one)?;
    let three = import(&gpu, &one)?;
    run_fill(&first, &one, 1)?;
    one.fill(2);
    drop(one);
    drop(first);
    let seen = gpu.coherent(SIZE)?;
    gpu.run(gpu.copy(&two, &seen)?)?;
    seen.expect(|_| 2)?;
    exchange(&gpu, &two, &gpu, &three)?;
    three.fill(3);
    drop(three);
    two.expect(|_| 3)?;
    gpu.run(gpu.copy(&two, &seen)?)?;
    seen.expect(|_| 3)?;
    Ok(Outcome::Passed)
}
