//! VkDeviceMemory.

pub(crate) mod mapping;

use crate::allocation::{self, Undedicated};
use crate::coherence::{self, Coherence};
use crate::config::Config;
use crate::device::Device;
use crate::host_pointer::{Idle, Import, Key, Lent};
use crate::memory_types::Kind;
use crate::payload::{self, Payload};
use crate::profile::{self, Stopwatch};
use crate::progress::{Done, Point, Progress};
use crate::references::{self, Ranges};
use crate::tables::DEVICES;
use crate::transfer::{Aperture, Engine, Staged};
use ash::vk::{self, Handle, MemoryPropertyFlags as Flags};
use std::borrow::Cow;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tidemark_winsys::telemetry::Counter;
use tidemark_winsys::{self as winsys, Contents, HostView, InPlace, Leave, LockExt, Mirror, RwLockExt};

/// An allocation of an emulated type.
pub(crate) struct Memory {
    pub(crate) handle: vk::DeviceMemory,
    pub(crate) device: vk::Device,
    /// Bytes.
    size: usize,
    backing: Backing,
    /// What it may share with others of this process, if the host sees that in one view.
    pub(crate) payload: Option<Arc<Payload>>,
    /// Whether others may write it unseen: other processes, other devices, or this one through another allocation.
    is_external: bool,
    /// Batches submitted without a note of what they use, when this was allocated.
    unnoted_before: u64,
    is_freed: AtomicBool,
    state: Mutex<State>,
}

/// What it is to the backing driver.
struct Backing {
    memory_type: u32,
    flags: Flags,
    /// Bytes.
    room: u64,
    engine: Engine,
}

struct State {
    /// From the first mapping on, until it is freed.
    mirror: Option<Arc<dyn HostView>>,
    /// Of pages that the application lent: the same, and under what it may be kept when it is freed.
    kept: Option<(Key, Arc<Mirror>)>,
    /// Whether the bytes count, though the host never wrote them.
    contents: Contents,
    /// What batches that are not known to be done use.
    in_flight: Vec<(Point, Ranges)>,
    /// Whether it is among the active memories of its device, as it must be while anything is in flight.
    is_active: bool,
    /// Whether its mirror is where this allocation was mapped to, and may be another's, too.
    is_placed: bool,
}

/// Batches in flight that are told apart. Beyond that, done ones are looked for, and then neighbours are joined: the
/// earlier counts as done when the later is.
const IN_FLIGHT: usize = 32;

impl Memory {
    pub(crate) fn len(&self) -> usize {
        self.size
    }

    /// What tells it from any other memory, past its end: the driver may give its handle to a new one, while commands and
    /// descriptors still hold on to this.
    pub(crate) fn key(&self) -> u64 {
        std::ptr::from_ref(self) as u64
    }

    /// Whether vkFreeMemory was called for it.
    pub(crate) fn is_freed(&self) -> bool {
        self.is_freed.load(Ordering::Acquire)
    }

    pub(crate) fn mirror(&self) -> Option<Arc<dyn HostView>> {
        self.state.hold().mirror.clone()
    }

    /// A batch that is about to be submitted uses `ranges`: flushes them, and prepares for what it may write. A mirror
    /// that is made later will know that the device may have written.
    pub(crate) fn will_use(self: &Arc<Self>, coherence: &Coherence, point: Point, ranges: Ranges) {
        let mut state = self.state.hold();
        match &state.mirror {
            Some(mirror) => {
                ranges.all().for_each(|range| coherence::flush(self, &**mirror, range.clone()));
                ranges.written.iter().for_each(|range| coherence::share(&**mirror, range.clone()));
            }
            None if !ranges.written.is_empty() => state.contents = Contents::Defined,
            None => {}
        }
        state.add(point, ranges, &coherence.progress);
        self.activate(&mut state, coherence);
    }

    /// Flushes what batches in flight use.
    pub(crate) fn flush_in_flight(&self) {
        let state = self.state.hold();
        if let Some(mirror) = &state.mirror {
            let (read, written) = (state.in_flight(|ranges| &ranges.read), state.written());
            read.iter().chain(&*written).for_each(|range| coherence::flush(self, &**mirror, range.clone()));
        }
    }

    /// Whether batches in flight may have written it. It may be mapped before they are done.
    pub(crate) fn is_written_in_flight(&self) -> bool {
        self.state.hold().in_flight.iter().any(|(_, ranges)| !ranges.written.is_empty())
    }

    /// Reads back what batches in flight may have written so far.
    fn read_back_in_flight(&self) {
        let state = self.state.hold();
        if let Some(mirror) = &state.mirror {
            state.written().iter().for_each(|range| coherence::readback(self, &**mirror, range.clone()));
        }
    }

    /// Reads back what batches in flight may have written. Those of them that were known to be `done` before are no
    /// longer in flight then.
    pub(crate) fn settle(&self, coherence: &Coherence, done: &Done, stopwatch: &mut Stopwatch) {
        let mut state = self.state.hold();
        if state.in_flight.is_empty() {
            // Not used since the last time: this was one look for nothing. But most memory that is used once is used
            // again and again, and stays.
            state.is_active = false;
            coherence.make_idle(self);
            return;
        }
        if let Some(mirror) = &state.mirror {
            for range in &*state.written() {
                stopwatch.start();
                coherence::readback(self, &**mirror, range.clone());
            }
        }
        state.in_flight.retain(|(point, _)| !done.includes(*point));
    }

    fn activate(self: &Arc<Self>, state: &mut State, coherence: &Coherence) {
        if !std::mem::replace(&mut state.is_active, true) {
            coherence.make_active(self);
        }
    }

    /// The mirror, made now if need be.
    fn mirror_or_new(
        self: &Arc<Self>,
        device: &Device,
        coherence: &Coherence,
    ) -> Result<Arc<dyn HostView>, vk::Result> {
        let mut state = self.state.hold();
        if let Some(mirror) = &state.mirror {
            return Ok(mirror.clone());
        }
        // From here on every batch is noted.
        if let Some(points) = coherence.progress.add_mirror(self.unnoted_before) {
            // Any of those may have written, and may still be at it.
            state.contents = Contents::Defined;
            let whole = Ranges::written(0..self.size as u64);
            state.in_flight.extend(points.into_iter().map(|point| (point, whole.clone())));
            self.activate(&mut state, coherence);
        }
        // Without flush nothing else would show what the device memory really holds.
        let contents = if Config::get().debug.no_flush { Contents::Defined } else { state.contents };
        match self.new_mirror(device, coherence, contents) {
            Ok(mirror) => {
                state.mirror = Some(mirror.clone());
                Ok(mirror)
            }
            Err(error) => {
                coherence.progress.remove_mirror();
                Err(error)
            }
        }
    }

    /// The others of its payload have its mirror, too: batches that use them must find what the host writes.
    fn show_to_others(&self) {
        for other in self.payload.iter().flat_map(|payload| payload.others(self)) {
            if let Some(device) = DEVICES.get(other.device)
                && let Some(coherence) = &device.coherence
            {
                // There is a view already, so this does not fail.
                let _ = other.mirror_or_new(&device, coherence);
            }
        }
    }

    fn new_mirror(
        self: &Arc<Self>,
        device: &Device,
        coherence: &Coherence,
        contents: Contents,
    ) -> Result<Arc<dyn HostView>, vk::Result> {
        if self.backing.engine == Engine::InPlace {
            let atom = usize::try_from(device.physical.atom).unwrap_or(usize::MAX);
            let aperture = Box::new(self.aperture(device)?);
            return Ok(Arc::new(InPlace::new(aperture, atom, coherence.arena.tracker())));
        }
        let make = |memory| Mirror::new(&coherence.arena, coherence.costs, memory, contents);
        if let Some(payload) = &self.payload {
            return payload.view(self, device, |memory| {
                self.mirror_of(device, winsys::Device::Mapped(memory), make).map(|mirror| mirror as _)
            });
        }
        let memory = self.device_memory(device, coherence)?;
        self.mirror_of(device, memory, make).map(|mirror| mirror as _)
    }

    /// What `make` makes of the device memory.
    fn mirror_of(
        &self,
        device: &Device,
        memory: winsys::Device,
        make: impl FnOnce(winsys::Device) -> io::Result<Mirror>,
    ) -> Result<Arc<Mirror>, vk::Result> {
        let is_mapped = matches!(memory, winsys::Device::Mapped(_));
        make(memory).map(Arc::new).map_err(|error| {
            log::error!("no host memory to mirror {} bytes: {error}", self.size);
            if let (true, Some(unmap)) = (is_mapped, device.next.vkUnmapMemory) {
                // SAFETY: mapped for the aperture, which is gone.
                unsafe { unmap(device.handle, self.handle) };
            }
            vk::Result::ERROR_MEMORY_MAP_FAILED
        })
    }

    /// How its bytes are copied.
    fn device_memory(&self, device: &Device, coherence: &Coherence) -> Result<winsys::Device, vk::Result> {
        let Backing { memory_type, flags, room, engine } = self.backing;
        if engine == Engine::Staged {
            let staged = coherence.transfers.as_ref().ok_or(vk::Result::ERROR_FEATURE_NOT_PRESENT);
            match staged.and_then(|queue| Staged::new(queue, self.handle, self.size, room, memory_type)) {
                Ok(staged) => return Ok(winsys::Device::Copied(Box::new(staged))),
                Err(error) if flags.contains(Flags::HOST_VISIBLE) => {
                    log::warn!("{:?} cannot be staged ({error}): by aperture instead", self.handle);
                }
                Err(error) => {
                    log::error!("{:?} cannot be staged ({error}), nor mapped", self.handle);
                    return Err(vk::Result::ERROR_MEMORY_MAP_FAILED);
                }
            }
        }
        Ok(winsys::Device::Mapped(Box::new(self.aperture(device)?)))
    }

    /// The mapping of it, of which there may be one.
    pub(crate) fn aperture(&self, device: &Device) -> Result<Aperture, vk::Result> {
        let is_coherent = self.backing.flags.contains(Flags::HOST_COHERENT);
        Aperture::new(device, self.handle, self.size, is_coherent)
    }

    /// Of memory that no batch can use yet: pages of the application's are its host view, and the mirror of them may be kept
    /// under `key` when it is freed.
    fn show(&mut self, coherence: &Coherence, mirror: Arc<Mirror>, key: Option<Key>) {
        // What was submitted without a note uses other memory.
        coherence.progress.add_mirror(self.unnoted_before);
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.kept = key.map(|key| (key, mirror.clone()));
        state.mirror = Some(mirror);
    }

    /// Ends a placed mapping; false if it was not placed.
    fn unplace(&self, leave: Leave) -> io::Result<bool> {
        let mut state = self.state.hold();
        let State { mirror: Some(mirror), is_placed: is_placed @ true, .. } = &mut *state else {
            return Ok(false);
        };
        let was_placed = mirror.unplace(leave)?;
        *is_placed = false;
        Ok(was_placed)
    }

    /// Offset and size of a Vulkan call, as a range.
    fn range(&self, offset: u64, size: u64) -> Range<u64> {
        let whole = self.size as u64;
        let start = offset.min(whole);
        start..if size == vk::WHOLE_SIZE { whole } else { start.saturating_add(size).min(whole) }
    }
}

impl State {
    fn add(&mut self, point: Point, ranges: Ranges, progress: &Progress) {
        if self.in_flight.len() >= IN_FLIGHT {
            // Only what wrote nothing may go without a last look.
            let done = progress.done();
            self.in_flight.retain(|(point, ranges)| !ranges.written.is_empty() || !done.includes(*point));
        }
        let is_full = self.in_flight.len() >= IN_FLIGHT;
        match self.in_flight.last_mut() {
            Some((last, known)) if is_full && last.is_of_queue_of(point) => {
                *last = point;
                known.merge(&ranges);
            }
            _ => self.in_flight.push((point, ranges)),
        }
    }

    /// What batches in flight may write.
    fn written(&self) -> Cow<'_, [Range<u64>]> {
        self.in_flight(|ranges| &ranges.written)
    }

    fn in_flight(&self, which: impl Fn(&Ranges) -> &Vec<Range<u64>>) -> Cow<'_, [Range<u64>]> {
        references::together(self.in_flight.iter().map(|(_, ranges)| &**which(ranges)))
    }
}

/// vkAllocateMemory.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn allocate(
    device: vk::Device,
    info: *const vk::MemoryAllocateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    memory: *mut vk::DeviceMemory,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(allocate) = state.next.vkAllocateMemory else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: a valid allocate info. Only its own fields are copied: the chain stays the application's.
    let mut info = unsafe { *info };
    let Some(memory_type) = state.physical.memory.types.get(info.memory_type_index as usize) else {
        log::error!("vkAllocateMemory: there is no memory type {}", info.memory_type_index);
        return vk::Result::ERROR_UNKNOWN;
    };
    // SAFETY: a valid allocate info.
    let import = match unsafe { Import::of(&info, memory_type) }.transpose() {
        Ok(import) => import,
        Err(error) => return error,
    };
    info.p_next = import.as_ref().map_or(info.p_next, |import| import.chain.head());
    info.memory_type_index = memory_type.backing;
    let size = info.allocation_size;
    // SAFETY: a valid chain, only read.
    let (is_external, is_zeroed) =
        unsafe { (allocation::is_external(info.p_next), allocation::is_zeroed(info.p_next)) };
    let mut undedicated = None;
    if let (Kind::Emulated { engine: Engine::Staged, .. }, Some(transfers)) = (memory_type.kind, state.transfers())
        && !is_external
        // SAFETY: as above.
        && let Some(chain) = unsafe { Undedicated::of(&state, info.p_next) }
    {
        // Another buffer is to be bound to it.
        info.allocation_size = transfers.room_for(size);
        info.p_next = undedicated.insert(chain).chain();
    }
    // SAFETY: the arguments are passed on, but for the type's index and what was argued above.
    let allocate = || unsafe { allocate(device, &raw const info, allocator, memory) };
    let Some(coherence) = &state.coherence else { return allocate() };
    let Kind::Emulated { backing, engine } = memory_type.kind else {
        return coherence.imports.allocating(&state, allocate);
    };
    // SAFETY: a valid chain, whose descriptors the backing driver has not taken over yet.
    let imported = unsafe { payload::imported(info.p_next) };
    // SAFETY: the application's promise.
    let lend = |import: &Import| unsafe { import.lend(&state, coherence, allocator.is_null()) };
    let lent = match import.as_ref().map(lend).transpose() {
        Ok(lent) => lent,
        Err(error) => return error,
    };
    if let Some(Lent::Again(idle)) = &lent {
        // SAFETY: room for a handle.
        unsafe { *memory = idle.memory };
    } else {
        let result = coherence.imports.allocating(&state, allocate);
        if result != vk::Result::SUCCESS {
            return result;
        }
    }
    // SAFETY: a handle was stored.
    let handle = unsafe { *memory };
    let len = usize::try_from(size).unwrap_or(usize::MAX);
    let mut emulated = Memory {
        handle,
        device,
        size: len,
        backing: Backing {
            memory_type: memory_type.backing,
            flags: backing,
            // What others share, or what belongs to one resource alone, no buffer of Tidemark's may be bound to.
            room: if undedicated.is_some() { info.allocation_size } else { 0 },
            engine,
        },
        payload: (is_external && engine == Engine::Aperture).then(|| Payload::new(len, imported)),
        is_external,
        unnoted_before: coherence.progress.unnoted(),
        is_freed: AtomicBool::new(false),
        state: Mutex::new(State {
            mirror: None,
            kept: None,
            contents: if is_external || is_zeroed { Contents::Defined } else { Contents::Undefined },
            in_flight: Vec::new(),
            is_active: false,
            is_placed: false,
        }),
    };
    match lent {
        Some(Lent::Again(idle)) => emulated.show(coherence, idle.mirror, Some(idle.key)),
        Some(Lent::Fresh(pages, key)) => {
            let mirror = emulated.device_memory(&state, coherence).and_then(|memory| {
                emulated.mirror_of(&state, memory, |memory| {
                    Mirror::of_user_memory(&coherence.arena, coherence.costs, memory, pages)
                })
            });
            let Ok(mirror) = mirror else {
                if let Some(free) = state.next.vkFreeMemory {
                    // SAFETY: allocated above, and nobody else knows of it.
                    unsafe { free(device, handle, allocator) };
                }
                return vk::Result::ERROR_OUT_OF_HOST_MEMORY;
            };
            emulated.show(coherence, mirror, key);
        }
        None => {}
    }
    profile::count(Counter::Allocations, 1);
    profile::count(Counter::AllocatedBytes, size);
    log::debug!("{handle:?}: {size} bytes of {:?}, {engine:?}", memory_type.flags);
    let emulated = Arc::new(emulated);
    coherence.memories.exclusive().insert(handle.as_raw(), emulated.clone());
    if is_external {
        coherence.make_reachable(&emulated);
    }
    if let Some(payload) = &emulated.payload
        && payload.enter(&emulated)
    {
        // The host may be writing it by way of another: it has a view already, so this does not fail.
        let _ = emulated.mirror_or_new(&state, coherence);
    }
    vk::Result::SUCCESS
}

/// vkFreeMemory, which also unmaps.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn free(
    device: vk::Device,
    memory: vk::DeviceMemory,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    let Some(state) = DEVICES.get(device) else { return };
    if let Some(coherence) = &state.coherence
        && let Some(emulated) = coherence.forget(memory)
    {
        emulated.is_freed.store(true, Ordering::Release);
        // Buffers and descriptor sets may know the memory for longer. Its mirror ends here, and waits for flushes and
        // readbacks in progress.
        if let Err(error) = emulated.unplace(Leave::Nothing) {
            log::error!("{memory:?}: stays mapped where it was placed: {error}");
        }
        let (mut mirror, kept) = {
            let mut state = emulated.state.hold();
            (state.mirror.take(), state.kept.take())
        };
        if let Some(mirror) = &mirror {
            tell_what_it_was(memory, &**mirror);
            coherence.progress.remove_mirror();
            if let Some((key, mirror)) = kept.filter(|_| allocator.is_null()) {
                mirror.rest();
                coherence.imports.keep(&state, Idle { key, memory, mirror });
                return;
            }
            if emulated.is_external {
                // Whoever shares it may still read what was written last.
                coherence::flush(&emulated, &**mirror, 0..emulated.size as u64);
            }
        }
        if let Some(payload) = &emulated.payload {
            mirror = payload.leave(&emulated);
        }
        if let Some(mirror) = mirror {
            coherence::count_readback(&emulated, mirror.retire());
        }
    }
    if let Some(free) = state.next.vkFreeMemory {
        // SAFETY: the arguments are passed on as they came.
        unsafe { free(device, memory, allocator) }
    }
}

/// Logs how a memory that is freed was tracked, and what that cost.
fn tell_what_it_was(memory: vk::DeviceMemory, mirror: &dyn HostView) {
    if !log::log_enabled!(log::Level::Debug) {
        return;
    }
    let tracker = mirror.tracker().map_or("nothing", |tracker| tracker.name());
    let treatment =
        mirror.treatment().map(|treatment| format!(", treated as {treatment:?}")).unwrap_or_default();
    let counters = mirror.tracker().and_then(|tracker| tracker.counters());
    let costs = counters.map(|counted| {
        format!(
            "; it took {} write faults and {} pages looked at to find {} pages written",
            counted.write_faults, counted.scanned_pages, counted.collected_pages
        )
    });
    log::debug!("{memory:?}: freed; it was tracked by {tracker}{treatment}{}", costs.unwrap_or_default());
}
