//! The queue that staged copies go to, and their order.
//!
//! - Stores are recorded as they come, and sent as one command buffer before the next thing that may depend on them: a
//!   batch of the application's, on whatever queue, or a load. Loads are sent at once, behind all stores, and waited for.
//! - It is a queue of Tidemark's own where the device has one to spare: copies then go on while the application's queues
//!   are busy, or wait. A batch waits for what was sent before it by a semaphore, once a queue and sending.
//! - Else it is one of the application's, *shared*: the order of submission is the order of copies and batches. There,
//!   copies can end up behind a batch that waits for the host: see [`TransferQueue::is_shared`].
//!
//! Every command buffer begins and ends with a barrier between all that the device does and copies. Buffers that stand for
//! allocations are concurrent among the device's queue families. Resources of the application's that share their memory may
//! be exclusive to one family, and nobody hands them over: buffers and linear images are the same bytes to all of them on any
//! device known. A spare queue of a family that the application uses is preferred all the same.

use super::staging::{PIECES, Piece, Staging};
use crate::queue::Queue;
use crate::tables::{HandleMap, QUEUES};
use ash::vk::{self, Handle};
use std::collections::VecDeque;
use std::ops::Range;
use std::slice;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tidemark_winsys::LockExt;

/// The queues of a device that is to be created, with one for Tidemark among them if there is one to spare.
pub(crate) struct Plan<'a> {
    infos: Vec<vk::DeviceQueueCreateInfo<'a>>,
    /// Of the queues of one of them, which has one more.
    priorities: Vec<f32>,
    family: u32,
    index: u32,
    is_shared: bool,
}

impl<'a> Plan<'a> {
    /// `None` if no queue can copy.
    ///
    /// # Safety
    /// A physical device of the live instance, and a valid info.
    pub(crate) unsafe fn new(
        instance: &ash::Instance,
        physical: vk::PhysicalDevice,
        info: &vk::DeviceCreateInfo<'a>,
    ) -> Option<Self> {
        // SAFETY: the caller's promise; an info with no queues may have no array.
        let (families, asked) = unsafe {
            let families = instance.get_physical_device_queue_family_properties(physical);
            let asked = match info.queue_create_info_count {
                0 => &[],
                count => slice::from_raw_parts(info.p_queue_create_infos, count as usize),
            };
            (families, asked)
        };
        let copies = |family: u32| {
            let able = vk::QueueFlags::TRANSFER | vk::QueueFlags::GRAPHICS | vk::QueueFlags::COMPUTE;
            families.get(family as usize).is_some_and(|family| family.queue_flags.intersects(able))
        };
        let spare = |family: u32| {
            let of_family = asked.iter().filter(|info| info.queue_family_index == family);
            let taken: u32 = of_family.map(|info| info.queue_count).sum();
            let count = families.get(family as usize).map_or(0, |family| family.queue_count);
            count > taken && copies(family)
        };
        // Protected queues and the like are not for this.
        let is_plain = |info: &vk::DeviceQueueCreateInfo<'_>| info.flags.is_empty();
        let mut infos = asked.to_vec();
        let mut plan = |family, index, is_shared, priorities| {
            Some(Self { infos: std::mem::take(&mut infos), priorities, family, index, is_shared })
        };
        if let Some(at) = asked.iter().position(|info| is_plain(info) && spare(info.queue_family_index)) {
            let vk::DeviceQueueCreateInfo { queue_family_index, queue_count, p_queue_priorities, .. } =
                asked[at];
            // SAFETY: as many priorities as queues.
            let asked = unsafe { slice::from_raw_parts(p_queue_priorities, queue_count as usize) };
            let mut plan = plan(queue_family_index, queue_count, false, [asked, &[1.0]].concat())?;
            plan.infos[at].queue_count += 1;
            plan.infos[at].p_queue_priorities = plan.priorities.as_ptr();
            return Some(plan);
        }
        let is_asked = |family: u32| asked.iter().any(|info| info.queue_family_index == family);
        let family_count = u32::try_from(families.len()).unwrap_or(u32::MAX);
        if let Some(family) = (0..family_count).find(|&family| !is_asked(family) && spare(family)) {
            let mut plan = plan(family, 0, false, vec![1.0])?;
            let own = vk::DeviceQueueCreateInfo {
                queue_family_index: family,
                queue_count: 1,
                ..Default::default()
            };
            plan.infos
                .push(vk::DeviceQueueCreateInfo { p_queue_priorities: plan.priorities.as_ptr(), ..own });
            return Some(plan);
        }
        let shared = asked.iter().find(|info| is_plain(info) && copies(info.queue_family_index))?;
        plan(shared.queue_family_index, 0, true, Vec::new())
    }

    /// What to create the device by. It must not outlive the plan.
    pub(crate) fn apply(&self, info: &mut vk::DeviceCreateInfo<'a>) {
        info.queue_create_info_count = u32::try_from(self.infos.len()).unwrap_or(0);
        info.p_queue_create_infos = self.infos.as_ptr();
    }

    /// The families of the device's queues.
    fn families(&self) -> Vec<u32> {
        let mut families: Vec<u32> = self.infos.iter().map(|info| info.queue_family_index).collect();
        families.sort_unstable();
        families.dedup();
        families
    }
}

/// What carries staged copies. May be used from any thread.
pub(crate) struct TransferQueue {
    /// The backing driver's commands, of which those of Vulkan 1.0 are used.
    device: ash::Device,
    handle: vk::Queue,
    is_shared: bool,
    /// Of all queues, if there are several.
    families: Vec<u32>,
    /// Memory of a size that is a multiple of this has room for a buffer as large as itself.
    granularity: u64,
    /// Whether something could not be sent, or waited for: what was to be copied is lost, and with it the device.
    is_lost: AtomicBool,
    /// `None` from the end of the device on.
    state: Mutex<Option<State>>,
}

struct State {
    staging: Staging,
    pool: vk::CommandPool,
    /// What was recorded and not sent yet.
    open: Option<Open>,
    /// What was sent and may be under way, in order.
    sent: VecDeque<Sent>,
    /// How often was sent.
    serial: u64,
    /// The last sending that each queue of the application's waits for, by its handle.
    awaited: HandleMap<u64>,
    idle: Vec<Recording>,
    /// Semaphores that queues wait for, and the fences that tell when they have.
    waits: Vec<(vk::Semaphore, vk::Fence)>,
}

/// A command buffer, and the fence of its submission.
struct Recording {
    commands: vk::CommandBuffer,
    fence: vk::Fence,
}

struct Open {
    recording: Recording,
    pieces: Vec<Piece>,
    /// What was stored to since the last barrier.
    stored: Vec<(vk::Buffer, Range<u64>)>,
}

struct Sent {
    serial: u64,
    recording: Recording,
    pieces: Vec<Piece>,
    /// Threads that wait for the fence, which must not be used anew before they are back.
    waiters: u32,
}

/// All that the device may do with memory.
const ANY_ACCESS: vk::AccessFlags =
    vk::AccessFlags::from_raw(vk::AccessFlags::MEMORY_READ.as_raw() | vk::AccessFlags::MEMORY_WRITE.as_raw());

/// All that copies do.
const COPY_ACCESS: vk::AccessFlags = vk::AccessFlags::from_raw(
    vk::AccessFlags::TRANSFER_READ.as_raw() | vk::AccessFlags::TRANSFER_WRITE.as_raw(),
);

impl TransferQueue {
    /// For a device that was created by `plan`.
    ///
    /// # Safety
    /// All of it live: the queue of the plan is the device's.
    pub(crate) unsafe fn new(
        instance: &ash::Instance,
        physical: vk::PhysicalDevice,
        device: ash::Device,
        plan: &Plan<'_>,
    ) -> Result<Self, vk::Result> {
        let staging = Staging::new(instance, physical, &device)?;
        let flags = vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER | vk::CommandPoolCreateFlags::TRANSIENT;
        let info = vk::CommandPoolCreateInfo::default().flags(flags).queue_family_index(plan.family);
        // SAFETY: the caller's promise.
        let (handle, pool) = unsafe {
            (device.get_device_queue(plan.family, plan.index), device.create_command_pool(&info, None)?)
        };
        let families = plan.families();
        let families = if families.len() > 1 { families } else { Vec::new() };
        let state = State {
            staging,
            pool,
            open: None,
            sent: VecDeque::new(),
            serial: 0,
            awaited: HandleMap::default(),
            idle: Vec::new(),
            waits: Vec::new(),
        };
        let state = Mutex::new(Some(state));
        let (is_shared, is_lost) = (plan.is_shared, AtomicBool::new(false));
        let mut queue = Self { device, handle, is_shared, families, granularity: 1, is_lost, state };
        let probe = queue.create_buffer(1)?;
        // SAFETY: the buffer just created, which nobody uses.
        queue.granularity = unsafe {
            let requirements = queue.device.get_buffer_memory_requirements(probe);
            queue.device.destroy_buffer(probe, None);
            requirements.size.max(requirements.alignment)
        };
        Ok(queue)
    }

    /// The handle.
    pub(crate) fn handle(&self) -> vk::Queue {
        self.handle
    }

    /// Whether the application uses the queue, too. A batch on it that waits for the host keeps up copies behind it, for
    /// which the host may be waiting: so such a batch must be held back until the host has done what it waits for.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Whether copies are lost, and with them the device.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    /// A size of memory, not less than `size`, that has room for a buffer of `size`.
    pub(crate) fn room_for(&self, size: u64) -> u64 {
        size.checked_next_multiple_of(self.granularity).unwrap_or(size)
    }

    fn create_buffer(&self, size: u64) -> Result<vk::Buffer, vk::Result> {
        let usage = vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
        let mut info = vk::BufferCreateInfo::default().size(size).usage(usage);
        if !self.families.is_empty() {
            info = info.sharing_mode(vk::SharingMode::CONCURRENT).queue_family_indices(&self.families);
        }
        // SAFETY: a live device, and families of its queues.
        unsafe { self.device.create_buffer(&info, None) }
    }

    /// A buffer that stands for the first `size` bytes of `memory`, of which there are `room`; `memory_type` is the backing
    /// driver's.
    pub(super) fn buffer_of(
        &self,
        memory: vk::DeviceMemory,
        size: u64,
        room: u64,
        memory_type: u32,
    ) -> Result<vk::Buffer, vk::Result> {
        let buffer = self.create_buffer(size)?;
        // SAFETY: a live buffer, which nobody uses yet; a live memory with room for it.
        let bound = unsafe {
            let requirements = self.device.get_buffer_memory_requirements(buffer);
            if requirements.size > room || requirements.memory_type_bits >> memory_type & 1 == 0 {
                Err(vk::Result::ERROR_FEATURE_NOT_PRESENT)
            } else {
                self.device.bind_buffer_memory(buffer, memory, 0)
            }
        };
        // SAFETY: as above.
        bound.map(|()| buffer).inspect_err(|_| unsafe { self.device.destroy_buffer(buffer, None) })
    }

    /// Has `ranges` (ascending) of `buffer` become what they are at `source`, where its first byte would be. Returns the
    /// sending this goes with.
    ///
    /// # Safety
    /// `source` must be valid for reads of `ranges`, each within the live buffer. Others may write there meanwhile.
    pub(super) unsafe fn store(
        &self,
        buffer: vk::Buffer,
        ranges: &[Range<usize>],
        source: *const u8,
    ) -> Result<u64, vk::Result> {
        let mut state = self.state.hold();
        let state = self.usable(&mut state)?;
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return Ok(state.serial) };
        self.open(state, buffer, first.start..last.end)?;
        let State { open: Some(open), staging, serial, .. } = state else { return Ok(state.serial) };
        let commands = open.recording.commands;
        let mut left: usize = ranges.iter().map(Range::len).sum();
        let mut regions = Vec::new();
        for range in ranges {
            let mut at = range.start;
            while at < range.end {
                if open.pieces.last().is_none_or(|piece| piece.room() == 0) {
                    self.copy_from(open.pieces.last(), commands, buffer, &mut regions);
                    open.pieces.push(staging.take(left)?);
                }
                let Some(piece) = open.pieces.last_mut() else { break };
                let len = piece.room().min(range.end - at);
                let (from, to) = (piece.used as u64, at as u64);
                regions.push(vk::BufferCopy { src_offset: from, dst_offset: to, size: len as u64 });
                // SAFETY: the caller's promise; there is room.
                unsafe { piece.push(source.wrapping_add(at), len) };
                at += len;
                left -= len;
            }
        }
        self.copy_from(open.pieces.last(), commands, buffer, &mut regions);
        Ok(*serial + 1)
    }

    /// Records copies from a piece, if there are any.
    fn copy_from(
        &self,
        piece: Option<&Piece>,
        commands: vk::CommandBuffer,
        buffer: vk::Buffer,
        regions: &mut Vec<vk::BufferCopy>,
    ) {
        if let Some(piece) = piece.filter(|_| !regions.is_empty()) {
            // SAFETY: a command buffer that is being recorded, under the state's lock; regions of both buffers.
            unsafe { self.device.cmd_copy_buffer(commands, piece.buffer, buffer, regions) };
            regions.clear();
        }
    }

    /// Makes a range of `buffer`, of multiples of four bytes, zero. Returns the sending this goes with.
    pub(super) fn fill(&self, buffer: vk::Buffer, range: Range<usize>) -> Result<u64, vk::Result> {
        let mut state = self.state.hold();
        let state = self.usable(&mut state)?;
        self.open(state, buffer, range.clone())?;
        if let Some(open) = &state.open {
            let commands = open.recording.commands;
            // SAFETY: as in `copy_from`; a range of the buffer.
            unsafe {
                self.device.cmd_fill_buffer(commands, buffer, range.start as u64, range.len() as u64, 0);
            }
        }
        Ok(state.serial + 1)
    }

    /// Shows `take` what `ranges` (ascending) of `buffer` hold, behind all that was stored, part by part.
    pub(super) fn load(
        &self,
        buffer: vk::Buffer,
        ranges: &[Range<usize>],
        take: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), vk::Result> {
        let mut parts = ranges.iter().cloned().flat_map(|range| {
            let end = range.end;
            range.step_by(PIECES.end).map(move |start| start..end.min(start + PIECES.end))
        });
        let mut next = parts.next();
        while let Some(part) = next.take() {
            // As many as one piece holds.
            let (mut group, mut len) = (vec![part.clone()], part.len());
            next = parts.next();
            while let Some(part) = next.take_if(|part| len + part.len() <= PIECES.end) {
                len += part.len();
                group.push(part);
                next = parts.next();
            }
            self.load_group(buffer, &group, len, take)?;
        }
        Ok(())
    }

    fn load_group(
        &self,
        buffer: vk::Buffer,
        parts: &[Range<usize>],
        len: usize,
        take: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), vk::Result> {
        let mut piece = None;
        let sent = self.with_state(|state| {
            let into = piece.insert(state.staging.take(len)?);
            self.open(state, buffer, 0..0)?;
            let State { open: Some(open), .. } = state else { return Ok(state.serial) };
            if !open.stored.is_empty() {
                self.barrier_between_copies(open);
            }
            let mut regions = Vec::with_capacity(parts.len());
            for part in parts {
                let (from, to) = (part.start as u64, into.used as u64);
                regions.push(vk::BufferCopy { src_offset: from, dst_offset: to, size: part.len() as u64 });
                into.used += part.len();
            }
            // SAFETY: as in `copy_from`.
            unsafe { self.device.cmd_copy_buffer(open.recording.commands, buffer, into.buffer, &regions) };
            self.send(state, None)
        });
        let waited = sent.and_then(|serial| self.wait(serial));
        let Some(piece) = piece else { return waited };
        let ready = waited.and_then(|()| self.with_state(|state| state.staging.invalidate(&piece)));
        if ready.is_ok() {
            let mut at = 0;
            for part in parts {
                // SAFETY: the copy is done, and `at..at + len` where it put the part.
                take(part.start, unsafe { piece.bytes(at..at + part.len()) });
                at += part.len();
            }
        }
        // Nobody uses it again if the device is lost, whatever may still write there.
        if let Some(state) = &mut *self.state.hold() {
            state.staging.give_back(piece);
        }
        ready
    }

    /// Sends nothing as long as the result lives.
    pub(crate) fn pause(&self) -> impl Sized + '_ {
        self.state.hold()
    }

    fn with_state<T>(&self, work: impl FnOnce(&mut State) -> Result<T, vk::Result>) -> Result<T, vk::Result> {
        self.usable(&mut self.state.hold()).and_then(work)
    }

    /// The state, as long as there is a device to send to.
    fn usable<'a>(&self, state: &'a mut Option<State>) -> Result<&'a mut State, vk::Result> {
        state.as_mut().filter(|_| !self.is_lost()).ok_or(vk::Result::ERROR_DEVICE_LOST)
    }

    /// Something that was recorded will not be copied, or nobody knows when.
    fn lose(&self, error: vk::Result) {
        if !self.is_lost.swap(true, Ordering::AcqRel) {
            log::error!(
                "staged copies to {:?} failed: {error}. The device counts as lost from here on",
                self.handle
            );
        }
    }

    /// Sends what was recorded, if anything was, such that the next batch of `queue` comes after all that was ever sent.
    pub(crate) fn before_batch(&self, queue: &Queue) -> Result<(), vk::Result> {
        let sent = self.with_state(|state| {
            if queue.handle == self.handle {
                return self.send(state, None).map(drop);
            }
            let next = state.serial + u64::from(state.open.is_some());
            if state.awaited.get(&queue.handle.as_raw()).copied().unwrap_or(0) == next {
                return Ok(());
            }
            let (semaphore, fence) = self.new_wait(state)?;
            // Whatever comes of it. If it is not submitted, nobody uses it again, as its fence does not signal.
            state.waits.push((semaphore, fence));
            self.send(state, Some(semaphore))?;
            let stages = vk::PipelineStageFlags::ALL_COMMANDS;
            let (semaphores, stages) = ([semaphore], [stages]);
            let wait = vk::SubmitInfo::default().wait_semaphores(&semaphores).wait_dst_stage_mask(&stages);
            // SAFETY: a live queue of the device, while nobody else submits to it; a semaphore whose signal is on its way.
            queue.alone(|queue| unsafe { self.device.queue_submit(queue, &[wait], fence) })?;
            state.awaited.insert(queue.handle.as_raw(), next);
            Ok(())
        });
        sent.inspect_err(|error| self.log(Err(*error)))
    }

    /// Sends what was recorded. What the host is about to signal then comes after it: waits for it, if batches may be
    /// waiting for the signal in another queue.
    pub(crate) fn before_signal(&self) {
        let sent = self.with_state(|state| self.send(state, None));
        self.log(if self.is_shared { sent.map(drop) } else { sent.and_then(|serial| self.wait(serial)) });
    }

    /// Sends what was recorded, and waits for all that was ever sent.
    pub(crate) fn finish(&self) {
        self.log(self.with_state(|state| self.send(state, None)).and_then(|serial| self.wait(serial)));
    }

    /// Waits for the sending `serial`, and destroys `buffer`, which nothing later uses.
    pub(super) fn destroy_buffer(&self, buffer: vk::Buffer, serial: u64) {
        // Whoever never freed his memory keeps the buffer beyond the end.
        if self.state.hold().is_none() {
            return;
        }
        let sent =
            self.with_state(|state| if serial > state.serial { self.send(state, None) } else { Ok(serial) });
        self.log(sent.and_then(|_| self.wait(serial)));
        // SAFETY: nothing uses it any more.
        unsafe { self.device.destroy_buffer(buffer, None) };
    }

    /// That the device is lost was told before.
    fn log(&self, result: Result<(), vk::Result>) {
        if let Err(error) = result
            && error != vk::Result::ERROR_DEVICE_LOST
        {
            log::error!("staged copies to {:?} failed: {error}", self.handle);
        }
    }

    /// Sees to it that a command buffer is being recorded, in which what comes next may store to `range` of `buffer`.
    fn open(&self, state: &mut State, buffer: vk::Buffer, range: Range<usize>) -> Result<(), vk::Result> {
        let range = range.start as u64..range.end as u64;
        if state.open.is_none() {
            let recording = self.new_recording(state)?;
            let once = vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT;
            // SAFETY: a command buffer that is not in use, under the state's lock.
            unsafe {
                let info = vk::CommandBufferBeginInfo::default().flags(once);
                self.device.begin_command_buffer(recording.commands, &info)?;
            }
            self.barrier(recording.commands, ANY_ACCESS, COPY_ACCESS);
            state.open = Some(Open { recording, pieces: Vec::new(), stored: Vec::new() });
        }
        let Some(open) = &mut state.open else { return Ok(()) };
        let overlaps = |(known, stored): &(vk::Buffer, Range<u64>)| {
            *known == buffer && stored.start < range.end && range.start < stored.end
        };
        if open.stored.iter().any(overlaps) {
            self.barrier_between_copies(open);
        }
        if !range.is_empty() {
            open.stored.push((buffer, range));
        }
        Ok(())
    }

    fn barrier_between_copies(&self, open: &mut Open) {
        self.barrier(open.recording.commands, COPY_ACCESS, COPY_ACCESS);
        open.stored.clear();
    }

    /// Between copies and whatever else, or other copies.
    fn barrier(&self, commands: vk::CommandBuffer, before: vk::AccessFlags, after: vk::AccessFlags) {
        let stage = |access| {
            if access == COPY_ACCESS {
                vk::PipelineStageFlags::TRANSFER
            } else {
                vk::PipelineStageFlags::ALL_COMMANDS | vk::PipelineStageFlags::HOST
            }
        };
        let barrier = vk::MemoryBarrier::default().src_access_mask(before).dst_access_mask(after);
        // SAFETY: a command buffer that is being recorded, under the state's lock.
        unsafe {
            let none = vk::DependencyFlags::empty();
            self.device.cmd_pipeline_barrier(
                commands,
                stage(before),
                stage(after),
                none,
                &[barrier],
                &[],
                &[],
            );
        }
    }

    fn new_recording(&self, state: &mut State) -> Result<Recording, vk::Result> {
        self.collect(state);
        if let Some(recording) = state.idle.pop() {
            return Ok(recording);
        }
        let info = vk::CommandBufferAllocateInfo::default().command_pool(state.pool).command_buffer_count(1);
        // SAFETY: a live device and pool, under the state's lock.
        unsafe {
            let fence = self.device.create_fence(&vk::FenceCreateInfo::default(), None)?;
            let commands = self.device.allocate_command_buffers(&info);
            let commands = commands.inspect_err(|_| self.device.destroy_fence(fence, None))?[0];
            Ok(Recording { commands, fence })
        }
    }

    /// A semaphore for another queue to wait for, and a fence to tell when it has.
    fn new_wait(&self, state: &mut State) -> Result<(vk::Semaphore, vk::Fence), vk::Result> {
        // SAFETY: a live device; a fence that signalled is used by nobody, and no more is its semaphore.
        unsafe {
            for index in 0..state.waits.len() {
                if self.device.get_fence_status(state.waits[index].1)? {
                    let (semaphore, fence) = state.waits.swap_remove(index);
                    self.device.reset_fences(&[fence])?;
                    return Ok((semaphore, fence));
                }
            }
            let semaphore = self.device.create_semaphore(&vk::SemaphoreCreateInfo::default(), None)?;
            let fence = self.device.create_fence(&vk::FenceCreateInfo::default(), None);
            let fence = fence.inspect_err(|_| self.device.destroy_semaphore(semaphore, None))?;
            Ok((semaphore, fence))
        }
    }

    /// Sends what was recorded, if anything was, and then signals a semaphore, if there is one. Returns the last sending.
    fn send(&self, state: &mut State, signal: Option<vk::Semaphore>) -> Result<u64, vk::Result> {
        let open = state.open.take();
        if open.is_none() && signal.is_none() {
            return Ok(state.serial);
        }
        let submitted = self.submit(&state.staging, open.as_ref(), signal);
        if let Err(error) = submitted {
            self.lose(error);
        }
        match open {
            Some(Open { recording, pieces, .. }) if submitted.is_ok() => {
                state.serial += 1;
                state.sent.push_back(Sent { serial: state.serial, recording, pieces, waiters: 0 });
            }
            Some(Open { recording, pieces, .. }) => {
                state.idle.push(recording);
                pieces.into_iter().for_each(|piece| state.staging.give_back(piece));
            }
            None => {}
        }
        submitted.map(|()| state.serial)
    }

    fn submit(
        &self,
        staging: &Staging,
        open: Option<&Open>,
        signal: Option<vk::Semaphore>,
    ) -> Result<(), vk::Result> {
        let mut fence = vk::Fence::null();
        let mut commands = None;
        if let Some(open) = open {
            let recording = &open.recording;
            (fence, commands) = (recording.fence, Some(recording.commands));
            self.barrier(recording.commands, COPY_ACCESS, ANY_ACCESS);
            // SAFETY: a command buffer that is being recorded, under the state's lock.
            unsafe { self.device.end_command_buffer(recording.commands) }?;
            open.pieces.iter().try_for_each(|piece| staging.flush(piece))?;
        }
        let info = vk::SubmitInfo::default()
            .command_buffers(commands.as_slice())
            .signal_semaphores(signal.as_slice());
        let submit = |queue| {
            // SAFETY: a live queue that nobody else uses meanwhile: its own is used under the state's lock, a shared one
            // when it is its turn.
            unsafe { self.device.queue_submit(queue, &[info], fence) }
        };
        if self.is_shared {
            QUEUES.get(self.handle).ok_or(vk::Result::ERROR_DEVICE_LOST)?.alone(submit)
        } else {
            submit(self.handle)
        }
    }

    /// Waits for a sending, and so for all before it.
    fn wait(&self, serial: u64) -> Result<(), vk::Result> {
        let fence = self.with_state(|state| {
            let sent = state.sent.iter_mut().find(|sent| sent.serial == serial);
            Ok(sent.map(|sent| {
                sent.waiters += 1;
                sent.recording.fence
            }))
        })?;
        let Some(fence) = fence else { return Ok(()) };
        // Without the lock: others may have to send before this one is done.
        // SAFETY: a live fence, which stays as it is while somebody waits for it.
        let waited = unsafe { self.device.wait_for_fences(&[fence], true, u64::MAX) };
        self.with_state(|state| {
            if let Some(sent) = state.sent.iter_mut().find(|sent| sent.serial == serial) {
                sent.waiters -= 1;
            }
            match waited {
                Ok(()) => self.collect(state),
                Err(error) => self.lose(error),
            }
            waited
        })
    }

    /// Takes back what sendings that are done no longer use.
    fn collect(&self, state: &mut State) {
        // SAFETY: live fences; what they stood for is done when they are reset.
        let is_done = |sent: &Sent| unsafe {
            sent.waiters == 0 && self.device.get_fence_status(sent.recording.fence) == Ok(true)
        };
        while state.sent.front().is_some_and(is_done) {
            let Some(Sent { recording, pieces, .. }) = state.sent.pop_front() else { break };
            pieces.into_iter().for_each(|piece| state.staging.give_back(piece));
            // SAFETY: as above.
            match unsafe { self.device.reset_fences(&[recording.fence]) } {
                Ok(()) => state.idle.push(recording),
                Err(error) => log::error!("cannot reset a fence: {error}"),
            }
        }
    }

    /// The device is about to be destroyed: waits, and gives back all that is the device's.
    pub(crate) fn end(&self) {
        self.finish();
        let Some(mut state) = self.state.hold().take() else { return };
        // SAFETY: all that was sent is done, and the queues that waited for it are idle, as they must be before their
        // device is destroyed.
        unsafe {
            for (semaphore, fence) in state.waits.drain(..) {
                self.device.destroy_semaphore(semaphore, None);
                self.device.destroy_fence(fence, None);
            }
            let open = state.open.take().map(|open| (open.recording, open.pieces));
            let sent = state.sent.drain(..).map(|sent| (sent.recording, sent.pieces));
            for (recording, pieces) in open.into_iter().chain(sent) {
                state.idle.push(recording);
                pieces.into_iter().for_each(|piece| state.staging.give_back(piece));
            }
            state.idle.iter().for_each(|recording| self.device.destroy_fence(recording.fence, None));
            self.device.destroy_command_pool(state.pool, None);
        }
    }
}
