//! Sync points: what is flushed and read back, and when.
//!
//! - Before the device may start on what the host wrote (submits and host signals), the emulated memory that the batch
//!   may use is flushed, whether the batch reads or writes it: an old host write must not land on a later one of the
//!   device. Memory of the type without HOST_COHERENT too: applications that should flush it themselves forget to (Zink
//!   of Mesa 22.3 takes it for GL_MAP_COHERENT_BIT buffers), and get away with it on most devices. Copies by the CPU, and
//!   staged ones on a queue of their own, cannot end up behind a batch that waits for the very signal; on a queue that is
//!   shared such a batch is held back.
//! - A host signal may release batches that were submitted long ago: what they use is flushed once more.
//! - After the host has learned that the device is done with something (waits, and queries that find it done), what
//!   batches in flight may have written is read back: the application may look at once. All of them, since the
//!   host may know of other queues' progress by ways Tidemark does not see; those known to be done for the last time.
//!   Applications that leave out the barrier to the host get their data all the same, since no barrier is looked at.
//!
//! Memory that no batch refers to costs nothing. *Reachable* memory is what batches may use without naming it: by
//! address, through images, or from other processes.

use crate::buffer::{Buffer, BufferView};
use crate::config::Config;
use crate::descriptor_set::{DescriptorSet, Pools};
use crate::device::Device;
use crate::host_pointer::Imports;
use crate::memory::Memory;
use crate::profile::{self, Stopwatch, measured};
use crate::progress::{Batches, Point, Progress};
use crate::references::Uses;
use crate::semaphore::Kind;
use crate::submission::held::Held;
use crate::tables::{COMMAND_BUFFERS, HandleMap};
use crate::transfer::TransferQueue;
use ash::vk::{self, Handle};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, RwLock};
use tidemark_winsys::telemetry::Counter;
use tidemark_winsys::tracker::Choice;
use tidemark_winsys::{Arena, Costs, HostView, LockExt, RwLockExt, Traffic};

/// The emulated memory of a device, and what leads to it.
pub(crate) struct Coherence {
    pub(crate) arena: Arena,
    pub(crate) costs: Option<Costs>,
    /// Whether Tidemark itself submits to queues that the application uses.
    pub(crate) shares_queues: bool,
    /// What carries staged copies, on devices with memory that is staged.
    pub(crate) transfers: Option<Arc<TransferQueue>>,
    pub(crate) imports: Imports,
    /// Every allocation of an emulated type.
    pub(crate) memories: RwLock<HandleMap<Arc<Memory>>>,
    /// Those that any batch may use, by [`Memory::key`].
    reachable: RwLock<HandleMap<Arc<Memory>>>,
    /// Those that batches in flight use, likewise; and those they used when somebody waited last.
    active: Mutex<HandleMap<Arc<Memory>>>,
    pub(crate) progress: Progress,
    pub(crate) held: Held,
    /// Semaphores that are not plain binary ones.
    pub(crate) semaphores: RwLock<HandleMap<Kind>>,
    /// Fences that others, whom Tidemark does not see, may wait for.
    pub(crate) external_fences: RwLock<HashSet<vk::Fence>>,
    /// Events that some command sets.
    pub(crate) set_by_device: RwLock<HashSet<vk::Event>>,
    pub(crate) buffers: RwLock<HandleMap<Arc<Buffer>>>,
    pub(crate) buffer_views: RwLock<HandleMap<Arc<BufferView>>>,
    pub(crate) descriptor_sets: RwLock<HandleMap<Arc<DescriptorSet>>>,
    pub(crate) descriptor_pools: Mutex<Pools>,
    pub(crate) templates: RwLock<HandleMap<Arc<[vk::DescriptorUpdateTemplateEntry]>>>,
}

impl Coherence {
    /// For a device called `name` in the profile, with staged copies by `transfers`.
    pub(crate) fn new(name: &str, transfers: Option<Arc<TransferQueue>>) -> Self {
        let choice = Config::get().tracker;
        let arena = Arena::select(choice);
        log::info!("{name}: tracking writes by {}", arena.tracking());
        profile::start(name, arena.tracking());
        Self {
            costs: costs(&arena, choice),
            imports: Imports::new(arena.tracker()),
            arena: arena.reading_back(Config::get().readback),
            shares_queues: transfers.as_ref().is_some_and(|transfers| transfers.is_shared()),
            transfers,
            memories: RwLock::default(),
            reachable: RwLock::default(),
            active: Mutex::default(),
            progress: Progress::default(),
            held: Held::default(),
            semaphores: RwLock::default(),
            external_fences: RwLock::default(),
            set_by_device: RwLock::default(),
            buffers: RwLock::default(),
            buffer_views: RwLock::default(),
            descriptor_sets: RwLock::default(),
            descriptor_pools: Mutex::default(),
            templates: RwLock::default(),
        }
    }

    pub(crate) fn memory(&self, memory: vk::DeviceMemory) -> Option<Arc<Memory>> {
        self.memories.shared().get(&memory.as_raw()).cloned()
    }

    pub(crate) fn buffer(&self, buffer: vk::Buffer) -> Option<Arc<Buffer>> {
        self.buffers.shared().get(&buffer.as_raw()).cloned()
    }

    pub(crate) fn descriptor_set(&self, set: vk::DescriptorSet) -> Option<Arc<DescriptorSet>> {
        self.descriptor_sets.shared().get(&set.as_raw()).cloned()
    }

    pub(crate) fn template(
        &self,
        template: vk::DescriptorUpdateTemplate,
    ) -> Option<Arc<[vk::DescriptorUpdateTemplateEntry]>> {
        self.templates.shared().get(&template.as_raw()).cloned()
    }

    /// Whether the device is lost, as something could not be submitted when its time had come: then nothing may be waited
    /// for.
    fn is_lost(&self) -> bool {
        self.held.is_lost() || self.transfers.as_ref().is_some_and(|transfers| transfers.is_lost())
    }

    /// What a semaphore is.
    pub(crate) fn semaphore(&self, semaphore: vk::Semaphore) -> Kind {
        self.semaphores.shared().get(&semaphore.as_raw()).copied().unwrap_or_default()
    }

    /// From now on any batch may use `memory`.
    pub(crate) fn make_reachable(&self, memory: &Arc<Memory>) {
        self.reachable.exclusive().insert(memory.key(), memory.clone());
    }

    /// `memory` is used by batches in flight.
    pub(crate) fn make_active(&self, memory: &Arc<Memory>) {
        self.active.hold().insert(memory.key(), memory.clone());
    }

    /// `memory` is no longer.
    pub(crate) fn make_idle(&self, memory: &Memory) {
        self.active.hold().remove(&memory.key());
    }

    /// Forgets a memory that is freed.
    pub(crate) fn forget(&self, memory: vk::DeviceMemory) -> Option<Arc<Memory>> {
        let memory = self.memories.exclusive().remove(&memory.as_raw())?;
        self.reachable.exclusive().remove(&memory.key());
        self.active.hold().remove(&memory.key());
        Some(memory)
    }

    /// The device is about to be destroyed: logs what should have been before it, and was not.
    pub(crate) fn tell_what_is_left(&self, command_buffers: usize) {
        let (fences, semaphores) = self.progress.remembered();
        let left: Vec<String> = [
            ("memories", self.memories.shared().len()),
            ("buffers", self.buffers.shared().len()),
            ("buffer views", self.buffer_views.shared().len()),
            ("descriptor sets", self.descriptor_sets.shared().len()),
            ("descriptor update templates", self.templates.shared().len()),
            ("command buffers", command_buffers),
            ("events", self.set_by_device.shared().len()),
            ("fences", fences),
            ("timeline semaphores", semaphores),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
        if !left.is_empty() {
            log::debug!("vkDestroyDevice: not destroyed before: {}", left.join(", "));
        }
    }

    /// Reachable memory that was ever mapped.
    fn reachable(&self) -> Vec<(Arc<Memory>, Arc<dyn HostView>)> {
        // A memory's state may be held across a transfer, the lock may not.
        let reachable: Vec<Arc<Memory>> = self.reachable.shared().values().cloned().collect();
        reachable.into_iter().filter_map(|memory| memory.mirror().map(|mirror| (memory, mirror))).collect()
    }

    fn active(&self) -> Vec<Arc<Memory>> {
        self.active.hold().values().cloned().collect()
    }

    /// Whether batches in flight may have written anything that the host sees.
    pub(crate) fn is_written_in_flight(&self) -> bool {
        self.active().iter().any(|memory| memory.is_written_in_flight())
    }

    /// What a batch of these command buffers may use.
    ///
    /// # Safety
    /// They must be live.
    unsafe fn uses_of(&self, command_buffers: impl Iterator<Item = vk::CommandBuffer>) -> Uses {
        let mut uses = Uses::default();
        for handle in command_buffers {
            // SAFETY: the caller's promise.
            match unsafe { COMMAND_BUFFERS.find(handle) } {
                Some(_) if Config::get().debug.no_references => {}
                Some(commands) => commands.references.hold().resolve(&mut uses),
                None => uses.everything = true,
            }
        }
        let unnamed = if uses.everything { &self.memories } else { &self.reachable };
        unnamed.shared().values().for_each(|memory| uses.add_all(memory));
        uses.joined()
    }

    /// `command_buffers` are about to be submitted as one batch, the next of `batches`: flushes what it may use, and
    /// prepares for what it may write.
    ///
    /// # Safety
    /// The command buffers must be live.
    pub(crate) unsafe fn before_batch(
        &self,
        batches: &Batches,
        command_buffers: impl Iterator<Item = vk::CommandBuffer>,
    ) -> Point {
        let (point, is_noted) = self.progress.next(batches);
        if !is_noted {
            return point;
        }
        // SAFETY: the caller's promise.
        let uses = unsafe { self.uses_of(command_buffers) };
        if !uses.memories.is_empty() {
            measured(Counter::FlushNanoseconds, || {
                for (memory, ranges) in uses.memories.into_values() {
                    memory.will_use(self, point, ranges);
                }
            });
        }
        point
    }
}

/// What tracking costs, if mirrors are to choose by it what to track. A tracker that was asked for is the only one.
fn costs(arena: &Arena, choice: Choice) -> Option<Costs> {
    if choice != Choice::Auto || arena.tracker().compares() {
        return None;
    }
    Costs::measure(arena)
        .inspect(|costs| log::debug!("{costs:?}"))
        .inspect_err(|error| log::warn!("cannot measure what tracking costs ({error}): tracking everything"))
        .ok()
}

impl Device {
    /// The host is about to signal: flushes what batches in flight use, since the signal may release them.
    pub(crate) fn before_signal(&self) {
        let Some(coherence) = &self.coherence else { return };
        profile::count(Counter::Submits, 1);
        if Config::get().debug.no_signal {
            return;
        }
        let active = coherence.active();
        if active.is_empty() {
            return;
        }
        measured(Counter::FlushNanoseconds, || {
            active.iter().for_each(|memory| memory.flush_in_flight());
            coherence.transfers.iter().for_each(|transfers| transfers.before_signal());
        });
    }

    /// The host has signalled something: forwards the batches that waited for it.
    pub(crate) fn after_signal(&self) {
        if let Some(coherence) = &self.coherence {
            // SAFETY: applications keep what pending batches name.
            unsafe { coherence.held.release(self, coherence) };
        }
    }

    /// The application is about to use a swapchain: waits until nothing that presents to it is held.
    pub(crate) fn before_swapchain(&self, swapchain: vk::SwapchainKHR) {
        if let Some(coherence) = &self.coherence
            && coherence.held.is_needed(coherence)
        {
            coherence.held.wait_for_presents(self, coherence, swapchain);
        }
    }

    /// What signals `semaphore`, or `fence`, is about to be exported by copy: waits until that was given to its queue.
    pub(crate) fn before_export(&self, semaphore: vk::Semaphore, fence: vk::Fence) -> Result<(), vk::Result> {
        let Some(coherence) = &self.coherence else { return Ok(()) };
        // SAFETY: applications keep what pending batches name.
        unsafe { coherence.held.wait_for_signal(self, coherence, semaphore, fence) }
    }

    /// The host is about to use memory of images itself, by `access`: as a batch would that may use all that is reachable.
    pub(crate) fn around_host_access(&self, access: impl FnOnce() -> vk::Result) -> vk::Result {
        let mirrors: Vec<(Arc<Memory>, Arc<dyn HostView>)> =
            self.coherence.iter().flat_map(Coherence::reachable).collect();
        for (memory, mirror) in &mirrors {
            flush(memory, &**mirror, 0..memory.len() as u64);
            share(&**mirror, 0..memory.len() as u64);
        }
        // The host is to find there what it wrote.
        self.transfers().inspect(|transfers| transfers.finish());
        let result = access();
        mirrors.iter().for_each(|(memory, mirror)| readback(memory, &**mirror, 0..memory.len() as u64));
        result
    }

    /// Whether Tidemark has lost the device: then nothing may be waited for.
    pub(crate) fn is_lost(&self) -> bool {
        self.coherence.as_ref().is_some_and(Coherence::is_lost)
    }

    /// If `result` tells the host that the device is done with something, reads back; `done` are the batches known to be
    /// done by that. Passes the result on, or that the device is lost.
    pub(crate) fn after_wait(&self, result: vk::Result, done: &[Point]) -> vk::Result {
        let Some(coherence) = &self.coherence else { return result };
        let or_lost = |result| if coherence.is_lost() { vk::Result::ERROR_DEVICE_LOST } else { result };
        let result = or_lost(result);
        let told = [
            vk::Result::SUCCESS,
            vk::Result::SUBOPTIMAL_KHR,
            vk::Result::EVENT_SET,
            vk::Result::EVENT_RESET,
            // What the device wrote before it was lost may tell why.
            vk::Result::ERROR_DEVICE_LOST,
        ];
        if !told.contains(&result) {
            return result;
        }
        if result == vk::Result::ERROR_DEVICE_LOST {
            coherence.held.give_up(self, coherence);
        }
        profile::count(Counter::Waits, 1);
        // Known before the bytes are looked at, so that whatever is dropped was looked at in full.
        let done = coherence.progress.learn(done);
        let mut stopwatch = Stopwatch::new(Counter::ReadbackNanoseconds);
        for memory in coherence.active() {
            memory.settle(coherence, &done, &mut stopwatch);
        }
        or_lost(result)
    }
}

/// Flushes part of a memory.
pub(crate) fn flush(memory: &Memory, mirror: &dyn HostView, range: Range<u64>) {
    if Config::get().debug.no_flush {
        return;
    }
    let Traffic { pages, untracked, bytes, switch, .. } = mirror.flush(in_bytes(range));
    if pages + untracked > 0 {
        log::trace!(
            "{:?}: {bytes} bytes flushed out of {pages} pages and {untracked} untracked",
            memory.handle
        );
    }
    if let Some(switch) = switch {
        log::debug!("{:?}: {switch}", memory.handle);
        profile::count(Counter::Switches, 1);
    }
    profile::count(Counter::PagesUntracked, untracked);
    profile::count(Counter::PagesWritten, pages);
    profile::count(Counter::BytesFlushed, bytes);
}

/// Prepares part of a memory for writes by the device.
pub(crate) fn share(mirror: &dyn HostView, range: Range<u64>) {
    if Config::get().debug.no_share {
        return;
    }
    profile::count(Counter::BytesFlushed, mirror.share(in_bytes(range)).bytes);
}

/// Reads back part of a memory.
pub(crate) fn readback(memory: &Memory, mirror: &dyn HostView, range: Range<u64>) {
    if Config::get().debug.no_readback {
        return;
    }
    count_readback(memory, mirror.readback(in_bytes(range)));
}

/// Counts what came to the host, by a readback or since the one before it.
pub(crate) fn count_readback(memory: &Memory, Traffic { bytes, fetched, .. }: Traffic) {
    if bytes > 0 {
        log::trace!("{:?}: {bytes} bytes read back, {fetched} pages fetched", memory.handle);
    }
    profile::count(Counter::BytesReadBack, bytes);
    profile::count(Counter::PagesFetched, fetched);
}

/// A range of an allocation that is mapped, so that its size fits.
pub(crate) fn in_bytes(range: Range<u64>) -> Range<usize> {
    let fit = |value| usize::try_from(value).unwrap_or(usize::MAX);
    fit(range.start)..fit(range.end)
}
