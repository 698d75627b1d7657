//! Submits, and the ways to hold batches back and to learn that they are done.

use super::session::Session;
use super::{Done, LONG, said};
use crate::program::{By, Gate, Part};
use ash::vk;
use std::time::Instant;
use tidemark_tests::Gpu;

/// What the host holds of a batch.
#[derive(Default)]
pub(super) struct Signals {
    fence: vk::Fence,
    /// What the batch waits for, if not for an event.
    gate: vk::Semaphore,
    /// What the batch waits for.
    gate_event: vk::Event,
    /// What it sets.
    event: vk::Event,
}

/// Keeps batches of several queues in the order of their submission, as those of one queue are.
pub(super) struct Order {
    /// A timeline that counts batches. Each one waits for its predecessor, if that was another queue's.
    pub(super) semaphore: vk::Semaphore,
    batches: u64,
    /// The one that had the last batch.
    pub(super) queue: vk::Queue,
}

impl Order {
    pub(super) fn new(gpu: &Gpu) -> Result<Self, String> {
        let semaphore = gpu.timeline().map_err(said("vkCreateSemaphore"))?;
        Ok(Self { semaphore, batches: 0, queue: gpu.queue })
    }
}

/// A timeline semaphore and a value of it.
type Value = (vk::Semaphore, u64);

/// A VkSubmitInfo.
struct Submission {
    waits: Vec<Value>,
    buffers: Vec<vk::CommandBuffer>,
    signals: Vec<Value>,
}

impl Session<'_> {
    pub(super) fn submit(
        &mut self,
        queue: vk::Queue,
        parts: &[Part],
        is_submit2: bool,
        has_fence: bool,
    ) -> Done {
        let mut buffers = Vec::new();
        for part in parts {
            for &list in &part.lists {
                self.seal(list)?;
            }
            buffers.push(self.buffers_of(part)?);
        }
        let gpu = &self.player.gpu;
        let mut fence = vk::Fence::null();
        if let (true, Some(last)) = (has_fence, parts.last()) {
            fence = gpu.fence().map_err(said("vkCreateFence"))?;
            self.signals.entry(last.batch).or_default().fence = fence;
        }
        // A fence alone, at times: it follows what its own queue has.
        let does_something =
            |(part, buffers): (&Part, &Vec<_>)| part.gate.is_some() || part.signals || !buffers.is_empty();
        let is_bare =
            has_fence && queue == self.order.queue && !parts.iter().zip(&buffers).any(does_something);
        let parts = if is_bare { &[] } else { parts };
        let submissions: Vec<Submission> =
            parts.iter().zip(buffers).map(|(part, buffers)| self.submission(queue, part, buffers)).collect();
        if is_submit2 {
            self.submit_by_submit2(queue, &submissions, fence).map_err(said("vkQueueSubmit2"))
        } else {
            self.submit_by_submit(queue, &submissions, fence).map_err(said("vkQueueSubmit"))
        }
    }

    fn submission(&mut self, queue: vk::Queue, part: &Part, buffers: Vec<vk::CommandBuffer>) -> Submission {
        let batch = u64::from(part.batch);
        let (mut waits, mut signals) = (Vec::new(), Vec::new());
        if part.gate == Some(Gate::Timeline) {
            waits.push((self.gate_of(part), batch));
        }
        if part.signals {
            signals.push((self.progress, batch));
        }
        if self.player.gpu.queues.len() > 1 {
            let Order { semaphore, batches, queue: last } = &mut self.order;
            if queue != *last {
                waits.push((*semaphore, *batches));
            }
            *batches += 1;
            signals.push((*semaphore, *batches));
            *last = queue;
        }
        Submission { waits, buffers, signals }
    }

    /// The command buffers of a part, with those around them that wait for and set its events.
    fn buffers_of(&mut self, part: &Part) -> Result<Vec<vk::CommandBuffer>, String> {
        let device = &self.player.gpu.device;
        let mut signals = Signals::default();
        let mut buffers: Vec<vk::CommandBuffer> = part.lists.iter().map(|&list| self.lists[list]).collect();
        if part.gate == Some(Gate::Event) {
            let event = self.event()?;
            let (host, all) = (vk::PipelineStageFlags::HOST, vk::PipelineStageFlags::ALL_COMMANDS);
            let barrier = [vk::MemoryBarrier::default()
                .src_access_mask(vk::AccessFlags::HOST_WRITE)
                .dst_access_mask(vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE)];
            // SAFETY: a command buffer that is being recorded, and a live event.
            let wait = self.once(|buffer| unsafe {
                device.cmd_wait_events(buffer, &[event], host, all, &barrier, &[], &[]);
            })?;
            buffers.insert(0, wait);
            signals.gate_event = event;
        }
        if part.gate == Some(Gate::Timeline) {
            signals.gate = self.player.gpu.timeline().map_err(said("vkCreateSemaphore"))?;
        }
        if part.sets_event {
            let event = self.event()?;
            // SAFETY: as above.
            let set = self.once(|buffer| unsafe {
                self.barrier_to_host(buffer);
                device.cmd_set_event(buffer, event, vk::PipelineStageFlags::ALL_COMMANDS);
            })?;
            buffers.push(set);
            signals.event = event;
        }
        self.signals.insert(part.batch, signals);
        Ok(buffers)
    }

    fn event(&self) -> Result<vk::Event, String> {
        // SAFETY: a live device; `let_go_of_all` destroys the event.
        unsafe { self.player.gpu.device.create_event(&vk::EventCreateInfo::default(), None) }
            .map_err(said("vkCreateEvent"))
    }

    /// A command buffer for one submit.
    pub(super) fn once(&self, commands: impl FnOnce(vk::CommandBuffer)) -> Result<vk::CommandBuffer, String> {
        let device = &self.player.gpu.device;
        let info = vk::CommandBufferAllocateInfo::default().command_pool(self.pool).command_buffer_count(1);
        let begin = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: a pool that only this thread uses; it takes the command buffer along when it goes.
        unsafe {
            let buffers = device.allocate_command_buffers(&info);
            let buffer = buffers.map_err(said("vkAllocateCommandBuffers"))?[0];
            device.begin_command_buffer(buffer, &begin).map_err(said("vkBeginCommandBuffer"))?;
            commands(buffer);
            device.end_command_buffer(buffer).map_err(said("vkEndCommandBuffer"))?;
            Ok(buffer)
        }
    }

    fn submit_by_submit(
        &self,
        queue: vk::Queue,
        submissions: &[Submission],
        fence: vk::Fence,
    ) -> Result<(), vk::Result> {
        let stages = [vk::PipelineStageFlags::ALL_COMMANDS; 2];
        let split = |values: &[Value]| -> (Vec<vk::Semaphore>, Vec<u64>) { values.iter().copied().unzip() };
        let waits: Vec<_> = submissions.iter().map(|submission| split(&submission.waits)).collect();
        let signals: Vec<_> = submissions.iter().map(|submission| split(&submission.signals)).collect();
        let mut values: Vec<vk::TimelineSemaphoreSubmitInfo<'_>> = waits
            .iter()
            .zip(&signals)
            .map(|((_, waits), (_, signals))| {
                vk::TimelineSemaphoreSubmitInfo::default()
                    .wait_semaphore_values(waits)
                    .signal_semaphore_values(signals)
            })
            .collect();
        let submits: Vec<vk::SubmitInfo<'_>> = submissions
            .iter()
            .zip(&mut values)
            .zip(waits.iter().zip(&signals))
            .map(|((submission, values), ((waits, _), (signals, _)))| {
                vk::SubmitInfo::default()
                    .wait_semaphores(waits)
                    .wait_dst_stage_mask(&stages[..waits.len()])
                    .command_buffers(&submission.buffers)
                    .signal_semaphores(signals)
                    .push_next(values)
            })
            .collect();
        // SAFETY: command buffers that may be submitted now, by the model, and values that only grow.
        unsafe { self.player.gpu.device.queue_submit(queue, &submits, fence) }
    }

    fn submit_by_submit2(
        &self,
        queue: vk::Queue,
        submissions: &[Submission],
        fence: vk::Fence,
    ) -> Result<(), vk::Result> {
        let semaphore = |&(semaphore, value): &Value| {
            vk::SemaphoreSubmitInfo::default()
                .semaphore(semaphore)
                .value(value)
                .stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)
        };
        let buffer =
            |&buffer: &vk::CommandBuffer| vk::CommandBufferSubmitInfo::default().command_buffer(buffer);
        let infos: Vec<(Vec<_>, Vec<_>, Vec<_>)> = submissions
            .iter()
            .map(|Submission { waits, buffers, signals }| {
                (
                    waits.iter().map(semaphore).collect(),
                    buffers.iter().map(buffer).collect(),
                    signals.iter().map(semaphore).collect(),
                )
            })
            .collect();
        let submits: Vec<vk::SubmitInfo2<'_>> = infos
            .iter()
            .map(|(waits, buffers, signals)| {
                vk::SubmitInfo2::default()
                    .wait_semaphore_infos(waits)
                    .command_buffer_infos(buffers)
                    .signal_semaphore_infos(signals)
            })
            .collect();
        // SAFETY: as in `submit_by_submit`.
        unsafe { self.player.gpu.device.queue_submit2(queue, &submits, fence) }
    }

    /// The semaphore that a part waits for, or none.
    fn gate_of(&self, part: &Part) -> vk::Semaphore {
        self.signals.get(&part.batch).map_or(vk::Semaphore::null(), |signals| signals.gate)
    }

    fn signals(&self, batch: u32) -> Result<&Signals, String> {
        self.signals.get(&batch).ok_or_else(|| format!("nothing is known of batch {batch}"))
    }

    pub(super) fn release(&self, batch: u32) -> Done {
        let (device, signals) = (&self.player.gpu.device, self.signals(batch)?);
        // SAFETY: a value that was not reached yet, or an event that is live.
        unsafe {
            if signals.gate == vk::Semaphore::null() {
                return device.set_event(signals.gate_event).map_err(said("vkSetEvent"));
            }
            let info = vk::SemaphoreSignalInfo::default().semaphore(signals.gate).value(batch.into());
            device.signal_semaphore(&info).map_err(said("vkSignalSemaphore"))
        }
    }

    pub(super) fn wait(&self, batch: u32, by: By) -> Done {
        let (device, signals) = (&self.player.gpu.device, self.signals(batch)?);
        let limit = u64::try_from(LONG.as_nanos()).unwrap_or(u64::MAX);
        let (semaphores, values) = ([self.progress], [batch.into()]);
        match by {
            // SAFETY: a live fence.
            By::Fence => unsafe { device.wait_for_fences(&[signals.fence], true, limit) }
                .map_err(said("vkWaitForFences")),
            By::Timeline => {
                let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
                // SAFETY: a live timeline semaphore.
                unsafe { device.wait_semaphores(&info, limit) }.map_err(said("vkWaitSemaphores"))
            }
            By::FenceStatus | By::Counter | By::Event => {
                let deadline = Instant::now() + LONG;
                while !self.is_done(batch, by)? {
                    if Instant::now() > deadline {
                        return Err(format!("batch {batch} is not done after {LONG:?}, by {by:?}"));
                    }
                    std::thread::yield_now();
                }
                Ok(())
            }
        }
    }

    /// Asks once.
    fn is_done(&self, batch: u32, by: By) -> Result<bool, String> {
        let (device, signals) = (&self.player.gpu.device, self.signals(batch)?);
        // SAFETY: live objects.
        unsafe {
            match by {
                By::Fence | By::FenceStatus => {
                    device.get_fence_status(signals.fence).map_err(said("vkGetFenceStatus"))
                }
                By::Timeline | By::Counter => {
                    let value = device.get_semaphore_counter_value(self.progress);
                    Ok(value.map_err(said("vkGetSemaphoreCounterValue"))? >= u64::from(batch))
                }
                By::Event => device.get_event_status(signals.event).map_err(said("vkGetEventStatus")),
            }
        }
    }

    pub(super) fn peek(&self, batch: u32, by: By) -> Done {
        let (device, signals) = (&self.player.gpu.device, self.signals(batch)?);
        let (semaphores, values) = ([self.progress], [batch.into()]);
        let result = match by {
            // SAFETY: a live fence.
            By::Fence => unsafe { device.wait_for_fences(&[signals.fence], true, 0) },
            By::Timeline => {
                let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
                // SAFETY: a live timeline semaphore.
                unsafe { device.wait_semaphores(&info, 0) }
            }
            _ => return self.is_done(batch, by).map(drop),
        };
        match result {
            Ok(()) | Err(vk::Result::TIMEOUT) => Ok(()),
            Err(error) => Err(format!("a wait of no time returned {error}")),
        }
    }

    pub(super) fn idle(&self, of_device: bool) -> Done {
        let gpu = &self.player.gpu;
        // SAFETY: no other thread submits.
        unsafe {
            if of_device {
                gpu.device.device_wait_idle().map_err(said("vkDeviceWaitIdle"))
            } else {
                // What it has last waited for all that went before.
                gpu.device.queue_wait_idle(self.order.queue).map_err(said("vkQueueWaitIdle"))
            }
        }
    }

    /// Releases what is still held back, waits for all, and destroys what the host holds of batches.
    pub(super) fn let_go_of_all(&mut self) -> Done {
        let held: Vec<u32> =
            self.model.batches.iter().filter(|batch| !batch.is_open).map(|batch| batch.id).collect();
        for batch in held {
            self.release(batch)?;
        }
        self.idle(true)?;
        let device = &self.player.gpu.device;
        for signals in self.signals.values() {
            // SAFETY: no longer in use; null where there is none.
            unsafe {
                device.destroy_fence(signals.fence, None);
                device.destroy_semaphore(signals.gate, None);
                device.destroy_event(signals.gate_event, None);
                device.destroy_event(signals.event, None);
            }
        }
        Ok(())
    }
}
