//! Bytes, not pages: who writes a byte owns it, whoever writes its neighbours, and by whatever means.

use ash::vk;

use crate::gpu::{Gpu, LONG};
use crate::{Failure, Outcome, Verdict};
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) const CHECKS: &[super::Check] = &[
    ("neighbouring-words", neighbouring_words),
    ("neighbouring-bytes", neighbouring_bytes),
    ("flush-beside-the-device", flush_beside_the_device),
    ("host-writes-in-flight", host_writes_in_flight),
    ("write-back-and-forth", write_back_and_forth),
    ("kernel-writes", kernel_writes),
    ("threads-race-with-submits", threads_race_with_submits),
];

const SIZE: u64 = 64 * 1024;

/// Host and device own alternate words of every page, and both rewrite theirs every round.
fn neighbouring_words() -> Verdict {
    let gpu = Gpu::new()?;
    let (shared, source) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
    let odd_words: Vec<_> = (0..SIZE / 8)
        .map(|pair| vk::BufferCopy { src_offset: pair * 8 + 4, dst_offset: pair * 8 + 4, size: 4 })
        .collect();
    // SAFETY: live buffers, regions inside them.
    let commands = gpu.record(|commands| unsafe {
        gpu.device.cmd_copy_buffer(commands, source.buffer, shared.buffer, &odd_words);
    })?;
    for round in 1..=20u8 {
        source.fill(round);
        let fence = gpu.fence()?;
        gpu.submit(commands, fence)?;
        // While the device writes its words, the host writes its own.
        (0..shared.len()).filter(|offset| offset % 8 < 4).for_each(|offset| shared.store(offset, !round));
        // SAFETY: a live fence.
        unsafe {
            gpu.device.wait_for_fences(&[fence], true, LONG)?;
            gpu.device.destroy_fence(fence, None);
        }
        shared.expect(|offset| if offset % 8 < 4 { !round } else { round })?;
    }
    // What the host wrote in flight is the device's to read by the next submit.
    let copy = gpu.copy(&shared, &source)?;
    gpu.run(copy)?;
    source.expect(|offset| if offset % 8 < 4 { !20 } else { 20 })?;
    Ok(Outcome::Passed)
}

/// The same by single bytes: every third is the device's.
fn neighbouring_bytes() -> Verdict {
    let gpu = Gpu::new()?;
    let size = 3 * 4096;
    let (shared, source, copy) = (gpu.coherent(size)?, gpu.coherent(size)?, gpu.coherent(size)?);
    let thirds: Vec<_> = (0..size / 3)
        .map(|third| vk::BufferCopy { src_offset: third * 3, dst_offset: third * 3, size: 1 })
        .collect();
    // SAFETY: live buffers, regions inside them.
    let commands = gpu.record(|commands| unsafe {
        gpu.device.cmd_copy_buffer(commands, source.buffer, shared.buffer, &thirds);
    })?;
    source.fill(7);
    gpu.submit(commands, vk::Fence::null())?;
    (0..shared.len()).filter(|offset| offset % 3 != 0).for_each(|offset| shared.store(offset, 9));
    gpu.wait_idle()?;
    let wanted = |offset| if offset % 3 == 0 { 7 } else { 9 };
    shared.expect(wanted)?;
    let back = gpu.copy(&shared, &copy)?;
    gpu.run(back)?;
    copy.expect(wanted)?;
    Ok(Outcome::Passed)
}

/// Submits that bring the host's bytes, while an earlier batch is still at work on the bytes beside them: none of the
/// device's may get lost by it.
fn flush_beside_the_device() -> Verdict {
    let gpu = Gpu::new()?;
    let size = 1024 * 1024;
    let (shared, source, seen) = (gpu.coherent(size)?, gpu.coherent(size)?, gpu.coherent(size)?);
    // As far from the host's bytes as the largest nonCoherentAtomSize there may be.
    let is_device_s = |offset: usize| offset % 512 >= 256;
    // SAFETY: live buffers, regions inside them.
    let commands = gpu.record(|commands| unsafe {
        // One at a time, so that it takes long.
        for offset in (256..size).step_by(512) {
            let region = [vk::BufferCopy { src_offset: offset, dst_offset: offset, size: 256 }];
            gpu.device.cmd_copy_buffer(commands, source.buffer, shared.buffer, &region);
        }
    })?;
    let look = gpu.copy(&shared, &seen)?;
    for round in 1..=20u8 {
        source.fill(round);
        let fence = gpu.fence()?;
        gpu.submit(commands, fence)?;
        loop {
            // A byte of each page.
            (0..shared.len()).step_by(4096).for_each(|offset| shared.store(offset, round));
            gpu.submit(look, vk::Fence::null())?;
            // SAFETY: a live fence.
            if unsafe { gpu.device.get_fence_status(fence) }? {
                break;
            }
        }
        gpu.wait_idle()?;
        // SAFETY: done with.
        unsafe { gpu.device.destroy_fence(fence, None) };
        shared.expect(|offset| if is_device_s(offset) || offset % 4096 == 0 { round } else { 0 })?;
    }
    Ok(Outcome::Passed)
}

/// What the host writes while a batch is blocked is not undone by the readback after it.
fn host_writes_in_flight() -> Verdict {
    let gpu = Gpu::new()?;
    let (buffer, other, third) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
    let copy = gpu.copy(&other, &third)?;
    for round in 1..=20u8 {
        let fence = gpu.fence()?;
        gpu.submit(copy, fence)?;
        buffer.fill(round);
        // SAFETY: a live fence.
        unsafe {
            gpu.device.wait_for_fences(&[fence], true, LONG)?;
            gpu.device.destroy_fence(fence, None);
        }
        buffer.expect(|_| round)?;
    }
    Ok(Outcome::Passed)
}

/// A byte that host and device write in turn, to values it had before.
fn write_back_and_forth() -> Verdict {
    let gpu = Gpu::new()?;
    let (buffer, seen) = (gpu.coherent(4096)?, gpu.coherent(4096)?);
    let regions = [vk::BufferCopy::default().size(4096)];
    // SAFETY: live buffers.
    let commands = gpu.record(|commands| unsafe {
        gpu.device.cmd_copy_buffer(commands, buffer.buffer, seen.buffer, &regions);
        let barrier = [vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::TRANSFER_READ)
            .dst_access_mask(vk::AccessFlags::TRANSFER_WRITE)];
        let (transfer, none) = (vk::PipelineStageFlags::TRANSFER, vk::DependencyFlags::empty());
        gpu.device.cmd_pipeline_barrier(commands, transfer, transfer, none, &barrier, &[], &[]);
        gpu.device.cmd_fill_buffer(commands, buffer.buffer, 0, vk::WHOLE_SIZE, 0);
    })?;
    for round in 0..50u8 {
        // The host's value is the same each time, and the device's too: only their order tells them apart.
        buffer.fill(5);
        gpu.run(commands)?;
        seen.expect(|_| 5)
            .map_err(|Failure(what)| Failure(format!("round {round}, device's view: {what}")))?;
        buffer
            .expect(|_| 0)
            .map_err(|Failure(what)| Failure(format!("round {round}, host's view: {what}")))?;
    }
    Ok(Outcome::Passed)
}

/// read(2) into a mapping, and write(2) out of one.
fn kernel_writes() -> Verdict {
    let gpu = Gpu::new()?;
    let (from, to) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
    let copy = gpu.copy(&from, &to)?;
    let path = std::env::temp_dir().join(format!("coherency-checks-{}", std::process::id()));
    let mut file =
        std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    std::fs::remove_file(&path)?;
    for round in 1..=5u8 {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&vec![round; from.len()])?;
        file.seek(SeekFrom::Start(0))?;
        // SAFETY: the mapping is as long; no other thread or batch uses it now.
        let view = unsafe { std::slice::from_raw_parts_mut(from.at(0), from.len()) };
        file.read_exact(view)?;
        gpu.run(copy)?;
        file.seek(SeekFrom::Start(0))?;
        // SAFETY: as above.
        file.write_all(unsafe { std::slice::from_raw_parts(to.at(0), to.len()) })?;
        file.seek(SeekFrom::Start(0))?;
        let mut seen = Vec::new();
        file.read_to_end(&mut seen)?;
        if let Some(at) = seen.iter().position(|&byte| byte != round) {
            return Err(format!("round {round}: byte {at} is {}", seen[at]).into());
        }
    }
    Ok(Outcome::Passed)
}

/// Threads write without pause while others' submits flush: no write may get lost, now or in the end.
fn threads_race_with_submits() -> Verdict {
    let gpu = Gpu::new()?;
    let (from, to) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
    let copy = gpu.copy(&from, &to)?;
    let stop = AtomicBool::new(false);
    let (base, len, threads) = (from.at(0) as usize, from.len(), 4);
    let rounds: Vec<u8> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..threads)
            .map(|thread| {
                let stop = &stop;
                scope.spawn(move || {
                    let mut round = 0u8;
                    while !stop.load(Ordering::Relaxed) {
                        round = round.wrapping_add(1);
                        for offset in (thread..len).step_by(threads) {
                            // SAFETY: inside the mapping, a byte only this thread writes.
                            unsafe { ((base + offset) as *mut u8).write_volatile(round) };
                        }
                    }
                    round
                })
            })
            .collect();
        for _ in 0..200 {
            // What the device sees now is one of the values written, byte by byte; nothing to check yet.
            let _ = gpu.run(copy);
        }
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap_or(0)).collect()
    });
    gpu.run(copy)?;
    from.expect(|offset| rounds[offset % threads])?;
    to.expect(|offset| rounds[offset % threads])?;
    Ok(Outcome::Passed)
}
