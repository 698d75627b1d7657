//! What the device wrote is in mapped memory once somebody else says that it is done: a wait that the driver never sees.

use ash::vk;

use crate::gpu::{Buffer, Gpu, LONG};
use crate::{Failure, Outcome, Verdict};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

pub(crate) const CHECKS: &[super::Check] = &[
    ("exported-fence", exported_fence),
    ("exported-semaphore", exported_semaphore),
    ("exported-after-others", exported_after_others),
    ("exported-before-an-event", exported_before_an_event),
    ("semaphore-of-another-device", semaphore_of_another_device),
    ("imported-semaphore", imported_semaphore),
    ("imported-fence", imported_fence),
];

/// So large that the device is at it for a while.
const SIZE: u64 = 4 << 20;

const NO_FENCE: &str = "no fence can be exported as a sync file";
const NO_OPAQUE_FENCE: &str = "no fence can be exported as an opaque file";
const NO_SEMAPHORE: &str = "no semaphore can be exported as a sync file";
const NO_OPAQUE_SEMAPHORE: &str = "no semaphore can be exported as an opaque file";

fn fill(gpu: &Gpu, buffer: &Buffer, value: u8) -> Result<vk::CommandBuffer, Failure> {
    let word = u32::from_ne_bytes([value; 4]);
    // SAFETY: a live buffer.
    gpu.record(|commands| unsafe {
        gpu.device.cmd_fill_buffer(commands, buffer.buffer, 0, vk::WHOLE_SIZE, word);
    })
}

/// Waits for a sync file, of which -1 stands for one that is signalled.
fn wait_for_file(fd: RawFd) -> Result<(), Failure> {
    if fd == -1 {
        return Ok(());
    }
    // SAFETY: the command handed it over.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid structure.
    match unsafe { libc::poll(&raw mut poll, 1, 30_000) } {
        1 => Ok(()),
        0 => Err("the sync file was not signalled within thirty seconds".to_string().into()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

/// A fence that can be exported as such a handle; `None` if none can.
fn new_fence(gpu: &Gpu, handle_type: vk::ExternalFenceHandleTypeFlags) -> Result<Option<vk::Fence>, Failure> {
    let info = vk::PhysicalDeviceExternalFenceInfo::default().handle_type(handle_type);
    let mut properties = vk::ExternalFenceProperties::default();
    // SAFETY: a live physical device.
    unsafe {
        gpu.instance.get_physical_device_external_fence_properties(gpu.physical, &info, &mut properties)
    };
    let exportable = vk::ExternalFenceFeatureFlags::EXPORTABLE;
    if !gpu.has(ash::khr::external_fence_fd::NAME) || !properties.external_fence_features.contains(exportable)
    {
        return Ok(None);
    }
    let mut export = vk::ExportFenceCreateInfo::default().handle_types(handle_type);
    let info = vk::FenceCreateInfo::default().push_next(&mut export);
    // SAFETY: a handle type that the device can export.
    Ok(Some(unsafe { gpu.device.create_fence(&info, None) }?))
}

/// A semaphore that can be exported as such a handle; `None` if none can.
fn new_semaphore(
    gpu: &Gpu,
    handle_type: vk::ExternalSemaphoreHandleTypeFlags,
) -> Result<Option<vk::Semaphore>, Failure> {
    let info = vk::PhysicalDeviceExternalSemaphoreInfo::default().handle_type(handle_type);
    let mut properties = vk::ExternalSemaphoreProperties::default();
    // SAFETY: a live physical device.
    unsafe {
        gpu.instance.get_physical_device_external_semaphore_properties(gpu.physical, &info, &mut properties)
    };
    let exportable = vk::ExternalSemaphoreFeatureFlags::EXPORTABLE;
    if !gpu.has(ash::khr::external_semaphore_fd::NAME)
        || !properties.external_semaphore_features.contains(exportable)
    {
        return Ok(None);
    }
    let mut export = vk::ExportSemaphoreCreateInfo::default().handle_types(handle_type);
    let info = vk::SemaphoreCreateInfo::default().push_next(&mut export);
    // SAFETY: a handle type that the device can export.
    Ok(Some(unsafe { gpu.device.create_semaphore(&info, None) }?))
}

fn export_semaphore(
    gpu: &Gpu,
    semaphore: vk::Semaphore,
    handle_type: vk::ExternalSemaphoreHandleTypeFlags,
) -> Result<RawFd, Failure> {
    let commands = ash::khr::external_semaphore_fd::Device::new(&gpu.instance, &gpu.device);
    let info = vk::SemaphoreGetFdInfoKHR::default().semaphore(semaphore).handle_type(handle_type);
    // SAFETY: a semaphore that can be exported so, with a signal to come.
    Ok(unsafe { commands.get_semaphore_fd(&info) }?)
}

fn exported_fence() -> Verdict {
    let gpu = Gpu::new()?;
    let buffer = gpu.coherent(SIZE)?;
    let handle_type = vk::ExternalFenceHandleTypeFlags::SYNC_FD;
    let Some(fence) = new_fence(&gpu, handle_type)? else { return Ok(Outcome::Skipped(NO_FENCE)) };
    let commands = ash::khr::external_fence_fd::Device::new(&gpu.instance, &gpu.device);
    let info = vk::FenceGetFdInfoKHR::default().fence(fence).handle_type(handle_type);
    for round in 1..=3 {
        gpu.submit(fill(&gpu, &buffer, round)?, fence)?;
        // SAFETY: a fence that can be exported so, with a signal to come.
        wait_for_file(unsafe { commands.get_fence_fd(&info) }?)?;
        buffer.expect(|_| round)?;
    }
    gpu.wait_idle()?;
    // SAFETY: no longer in use.
    unsafe { gpu.device.destroy_fence(fence, None) };
    Ok(Outcome::Passed)
}

fn submit_signalling(
    gpu: &Gpu,
    commands: vk::CommandBuffer,
    semaphore: vk::Semaphore,
) -> Result<(), Failure> {
    let (commands, semaphores) = ([commands], [semaphore]);
    let submits = [vk::SubmitInfo::default().command_buffers(&commands).signal_semaphores(&semaphores)];
    // SAFETY: a recorded command buffer, and a semaphore that is not signalled.
    Ok(unsafe { gpu.device.queue_submit(gpu.queue, &submits, vk::Fence::null()) }?)
}

fn exported_semaphore() -> Verdict {
    let gpu = Gpu::new()?;
    let buffer = gpu.coherent(SIZE)?;
    let handle_type = vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD;
    let Some(semaphore) = new_semaphore(&gpu, handle_type)? else {
        return Ok(Outcome::Skipped(NO_SEMAPHORE));
    };
    for round in 1..=3 {
        submit_signalling(&gpu, fill(&gpu, &buffer, round)?, semaphore)?;
        // Exporting it also waits for it, so that it can be signalled again.
        wait_for_file(export_semaphore(&gpu, semaphore, handle_type)?)?;
        buffer.expect(|_| round)?;
    }
    gpu.wait_idle()?;
    // SAFETY: no longer in use.
    unsafe { gpu.device.destroy_semaphore(semaphore, None) };
    Ok(Outcome::Passed)
}

/// A batch that others wait for, between batches of which only the host learns: each is done in its turn.
fn exported_after_others() -> Verdict {
    let gpu = Gpu::new()?;
    let (before, buffer, after) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
    let handle_type = vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD;
    let Some(semaphore) = new_semaphore(&gpu, handle_type)? else {
        return Ok(Outcome::Skipped(NO_SEMAPHORE));
    };
    let fence = gpu.fence()?;
    gpu.submit(fill(&gpu, &before, 1)?, vk::Fence::null())?;
    submit_signalling(&gpu, fill(&gpu, &buffer, 2)?, semaphore)?;
    gpu.submit(gpu.copy(&buffer, &after)?, fence)?;
    wait_for_file(export_semaphore(&gpu, semaphore, handle_type)?)?;
    // Told in the end, as the last batch may still be under way.
    let seen = before.expect(|_| 1).and_then(|()| buffer.expect(|_| 2));
    // SAFETY: a live fence.
    unsafe { gpu.device.wait_for_fences(&[fence], true, LONG) }?;
    seen?;
    after.expect(|_| 2)?;
    gpu.wait_idle()?;
    // SAFETY: no longer in use.
    unsafe {
        gpu.device.destroy_fence(fence, None);
        gpu.device.destroy_semaphore(semaphore, None);
    }
    Ok(Outcome::Passed)
}

/// A batch that waits for the host, exported before the host lets it go: the command must not wait for what comes after it.
fn exported_before_an_event() -> Verdict {
    let gpu = Gpu::new()?;
    let (from, to) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);
    let handle_type = vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD;
    let Some(semaphore) = new_semaphore(&gpu, handle_type)? else {
        return Ok(Outcome::Skipped(NO_SEMAPHORE));
    };
    // SAFETY: a live device.
    let event = unsafe { gpu.device.create_event(&vk::EventCreateInfo::default(), None) }?;
    let commands = gpu.copy_after(event, &from, &to)?;
    from.write_pattern(5);
    submit_signalling(&gpu, commands, semaphore)?;
    let file = export_semaphore(&gpu, semaphore, handle_type)?;
    // SAFETY: a live event.
    unsafe { gpu.device.set_event(event) }?;
    wait_for_file(file)?;
    gpu.wait_idle()?;
    to.expect_pattern(5)?;
    // SAFETY: no longer in use.
    unsafe {
        gpu.device.destroy_event(event, None);
        gpu.device.destroy_semaphore(semaphore, None);
    }
    Ok(Outcome::Passed)
}

/// Another device waits for the semaphore, tells that it is done, and answers by a second one, which this device waits
/// for in a batch that was submitted long ago.
fn semaphore_of_another_device() -> Verdict {
    let handle_type = vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD;
    let (gpu, other) = (Gpu::new()?, Gpu::new()?);
    let (Some(told), Some(answered)) = (new_semaphore(&gpu, handle_type)?, new_semaphore(&gpu, handle_type)?)
    else {
        return Ok(Outcome::Skipped(NO_OPAQUE_SEMAPHORE));
    };
    let [theirs_told, theirs_answered] =
        [told, answered].map(|semaphore| import(&other, export_semaphore(&gpu, semaphore, handle_type)?));
    let (theirs_told, theirs_answered) = ([theirs_told?], [theirs_answered?]);
    let (written, from, to) = (gpu.coherent(SIZE)?, gpu.coherent(SIZE)?, gpu.coherent(SIZE)?);

    submit_signalling(&gpu, fill(&gpu, &written, 3)?, told)?;
    let (fence, their_fence) = (gpu.fence()?, other.fence()?);
    let (copy, answers, stages) =
        ([gpu.copy(&from, &to)?], [answered], [vk::PipelineStageFlags::ALL_COMMANDS]);
    let behind = [vk::SubmitInfo::default()
        .command_buffers(&copy)
        .wait_semaphores(&answers)
        .wait_dst_stage_mask(&stages)];
    let waiting = [vk::SubmitInfo::default().wait_semaphores(&theirs_told).wait_dst_stage_mask(&stages)];
    let answering = [vk::SubmitInfo::default().signal_semaphores(&theirs_answered)];
    from.write_pattern(4);
    // SAFETY: recorded command buffers, and semaphores that one device signals for the other.
    let seen = unsafe {
        gpu.device.queue_submit(gpu.queue, &behind, fence)?;
        other.device.queue_submit(other.queue, &waiting, their_fence)?;
        other.device.wait_for_fences(&[their_fence], true, LONG)?;
        // Answered in any case, lest the batch wait for ever.
        let seen = written.expect(|_| 3);
        other.device.queue_submit(other.queue, &answering, vk::Fence::null())?;
        gpu.device.wait_for_fences(&[fence], true, LONG)?;
        seen
    };
    seen?;
    to.expect_pattern(4)?;
    other.wait_idle()?;
    gpu.wait_idle()?;
    // SAFETY: no longer in use.
    unsafe {
        gpu.device.destroy_fence(fence, None);
        other.device.destroy_fence(their_fence, None);
        for semaphore in [told, answered] {
            gpu.device.destroy_semaphore(semaphore, None);
        }
        for [semaphore] in [theirs_told, theirs_answered] {
            other.device.destroy_semaphore(semaphore, None);
        }
    }
    Ok(Outcome::Passed)
}

fn import(gpu: &Arc<Gpu>, fd: RawFd) -> Result<vk::Semaphore, Failure> {
    let commands = ash::khr::external_semaphore_fd::Device::new(&gpu.instance, &gpu.device);
    // SAFETY: a live device, and a file that the command takes over.
    unsafe {
        let semaphore = gpu.device.create_semaphore(&vk::SemaphoreCreateInfo::default(), None)?;
        let info = vk::ImportSemaphoreFdInfoKHR::default()
            .semaphore(semaphore)
            .handle_type(vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD)
            .fd(fd);
        commands.import_semaphore_fd(&info)?;
        Ok(semaphore)
    }
}

/// A device signals what it imported, for the other to wait for in a batch: that this is done tells that the first device is.
fn imported_semaphore() -> Verdict {
    let handle_type = vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD;
    let (gpu, other) = (Gpu::new()?, Gpu::new()?);
    let Some(told) = new_semaphore(&gpu, handle_type)? else {
        return Ok(Outcome::Skipped(NO_OPAQUE_SEMAPHORE));
    };
    let theirs = import(&other, export_semaphore(&gpu, told, handle_type)?)?;
    let written = other.coherent(SIZE)?;
    let (waits, stages, fence) = ([told], [vk::PipelineStageFlags::ALL_COMMANDS], gpu.fence()?);
    let behind = [vk::SubmitInfo::default().wait_semaphores(&waits).wait_dst_stage_mask(&stages)];
    submit_signalling(&other, fill(&other, &written, 6)?, theirs)?;
    // SAFETY: a semaphore that the other device signals, and a live fence.
    unsafe {
        gpu.device.queue_submit(gpu.queue, &behind, fence)?;
        gpu.device.wait_for_fences(&[fence], true, LONG)?;
    }
    written.expect(|_| 6)?;
    other.wait_idle()?;
    gpu.wait_idle()?;
    // SAFETY: no longer in use.
    unsafe {
        gpu.device.destroy_fence(fence, None);
        gpu.device.destroy_semaphore(told, None);
        other.device.destroy_semaphore(theirs, None);
    }
    Ok(Outcome::Passed)
}

/// A device signals a fence that it imported, and the host waits for the one it was exported from.
fn imported_fence() -> Verdict {
    let handle_type = vk::ExternalFenceHandleTypeFlags::OPAQUE_FD;
    let (gpu, other) = (Gpu::new()?, Gpu::new()?);
    let Some(fence) = new_fence(&gpu, handle_type)? else { return Ok(Outcome::Skipped(NO_OPAQUE_FENCE)) };
    let theirs = other.fence()?;
    let [ours, of_other] =
        [&gpu, &other].map(|gpu| ash::khr::external_fence_fd::Device::new(&gpu.instance, &gpu.device));
    let info = vk::FenceGetFdInfoKHR::default().fence(fence).handle_type(handle_type);
    // SAFETY: a fence that can be exported so; the file goes to the import.
    unsafe {
        let file = ours.get_fence_fd(&info)?;
        of_other.import_fence_fd(
            &vk::ImportFenceFdInfoKHR::default().fence(theirs).handle_type(handle_type).fd(file),
        )?;
    }
    let written = other.coherent(SIZE)?;
    other.submit(fill(&other, &written, 7)?, theirs)?;
    // SAFETY: a live fence.
    unsafe { gpu.device.wait_for_fences(&[fence], true, LONG) }?;
    written.expect(|_| 7)?;
    other.wait_idle()?;
    // SAFETY: no longer in use.
    unsafe {
        gpu.device.destroy_fence(fence, None);
        other.device.destroy_fence(theirs, None);
    }
    Ok(Outcome::Passed)
}
