//! Payloads: the memory that allocations of one process may share, as an export and the imports of it do (the
//! specification's "memory object payload"), on one device or several.
//!
//! The host sees a payload in one view, whichever of its allocations was mapped: what it writes by way of one it reads by
//! way of the others, and what it wrote is flushed before a batch of any of their devices. The view reaches the device
//! memory through the mapping of one of them, and when that is freed through another's.
//!
//! So it is where the CPU copies (by aperture). Memory that is staged, or mapped in place, has a view for each allocation.

use crate::chain;
use crate::device::Device;
use crate::memory::Memory;
use crate::tables::DEVICES;
use crate::transfer::Aperture;
use ash::vk;
use std::collections::HashMap;
use std::ffi::c_void;
use std::ops::Range;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, Weak};
use tidemark_winsys::{DeviceMemory, HostView, LockExt, MemoryId};

/// Payloads that may be imported, or were.
static KNOWN: LazyLock<Mutex<HashMap<MemoryId, Weak<Payload>>>> = LazyLock::new(Mutex::default);

/// What allocations share. May be used from any thread.
pub(crate) struct Payload {
    /// Bytes.
    size: usize,
    /// Known from the first export or import on.
    id: OnceLock<MemoryId>,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    /// From the first mapping on.
    view: Option<View>,
    /// Those that are not freed.
    members: Vec<Weak<Memory>>,
}

struct View {
    view: Arc<dyn HostView>,
    window: Window,
    /// The one whose mapping that is.
    of: Weak<Memory>,
}

/// The mapping by which a payload is reached now. It changes only while its view is paused.
#[derive(Clone)]
struct Window(Arc<Mutex<Aperture>>);

// SAFETY: an aperture's promise, as `Payload::leave` puts another one here before what it is of is freed.
unsafe impl DeviceMemory for Window {
    fn address(&self) -> *mut u8 {
        self.0.hold().address()
    }

    fn len(&self) -> usize {
        self.0.hold().len()
    }

    fn is_coherent(&self) -> bool {
        self.0.hold().is_coherent()
    }

    fn invalidate(&self, range: Range<usize>) {
        self.0.hold().invalidate(range);
    }

    fn flush(&self, range: Range<usize>) {
        self.0.hold().flush(range);
    }
}

/// What an allocation imports, if its descriptor tells.
///
/// # Safety
/// `chain` must be null or the valid chain of an allocation that is still to be made.
pub(crate) unsafe fn imported(chain: *const c_void) -> Option<MemoryId> {
    // SAFETY: the caller's promise; the descriptor is open as long as no allocation has taken it over.
    unsafe { id(chain::find_input::<vk::ImportMemoryFdInfoKHR<'_>>(chain)?.fd) }
}

/// The memory behind a descriptor, if it tells.
///
/// # Safety
/// It must be open, or negative.
unsafe fn id(descriptor: RawFd) -> Option<MemoryId> {
    // SAFETY: the caller's promise.
    (descriptor >= 0).then(|| unsafe { BorrowedFd::borrow_raw(descriptor) }).and_then(MemoryId::of)
}

impl Payload {
    /// That of a new allocation of `size` bytes, which is an import if `id` is known.
    pub(crate) fn new(size: usize, id: Option<MemoryId>) -> Arc<Self> {
        let new = || Arc::new(Self { size, id: OnceLock::new(), shared: Mutex::default() });
        let Some(id) = id else { return new() };
        // Outlives the lock, which a payload takes when it ends.
        let found;
        let mut known = KNOWN.hold();
        found = known.get(&id).and_then(Weak::upgrade);
        match &found {
            Some(payload) if payload.size == size => payload.clone(),
            _ => {
                let payload = new();
                payload.set_id(id, &mut known);
                payload
            }
        }
    }

    /// It was exported: imports of that come here.
    pub(crate) fn export(self: &Arc<Self>, id: MemoryId) {
        self.set_id(id, &mut KNOWN.hold());
    }

    fn set_id(self: &Arc<Self>, id: MemoryId, known: &mut HashMap<MemoryId, Weak<Self>>) {
        if *self.id.get_or_init(|| id) == id {
            known.insert(id, Arc::downgrade(self));
        }
    }

    /// An allocation is of this payload. Says whether there is a view for it.
    pub(crate) fn enter(&self, memory: &Arc<Memory>) -> bool {
        let mut shared = self.shared.hold();
        shared.members.push(Arc::downgrade(memory));
        shared.view.is_some()
    }

    /// The others that are of it.
    pub(crate) fn others(&self, than: &Memory) -> Vec<Arc<Memory>> {
        self.shared.hold().others(than)
    }

    /// The view, which `make` makes of the mapping of `memory` if there is none yet.
    pub(crate) fn view(
        &self,
        memory: &Arc<Memory>,
        device: &Device,
        make: impl FnOnce(Box<dyn DeviceMemory>) -> Result<Arc<dyn HostView>, vk::Result>,
    ) -> Result<Arc<dyn HostView>, vk::Result> {
        let mut shared = self.shared.hold();
        if let Some(View { view, .. }) = &shared.view {
            return Ok(view.clone());
        }
        let window = Window(Arc::new(Mutex::new(memory.aperture(device)?)));
        let view = make(Box::new(window.clone()))?;
        shared.view = Some(View { view: view.clone(), window, of: Arc::downgrade(memory) });
        Ok(view)
    }

    /// An allocation is about to be freed. Returns the view if it ends with it.
    pub(crate) fn leave(&self, memory: &Memory) -> Option<Arc<dyn HostView>> {
        let mut shared = self.shared.hold();
        let others = shared.others(memory);
        shared.members = others.iter().map(Arc::downgrade).collect();
        let View { view, window, of } = shared.view.as_mut()?;
        if !others.is_empty() && of.as_ptr() != std::ptr::from_ref(memory) {
            return None;
        }
        let next = others.iter().find_map(|other| {
            let device = DEVICES.get(other.device)?;
            Some((other, other.aperture(&device).ok()?))
        });
        let Some((other, aperture)) = next else {
            if !others.is_empty() {
                log::error!(
                    "{:?}: freed, and no mapping can be had of what shares its memory: that is not kept coherent any more",
                    memory.handle
                );
            }
            return shared.view.take().map(|View { view, .. }| view);
        };
        let mut aperture = Some(aperture);
        view.paused(&mut || {
            if let Some(aperture) = aperture.take() {
                *window.0.hold() = aperture;
            }
        });
        *of = Arc::downgrade(other);
        None
    }
}

impl Shared {
    fn others(&self, than: &Memory) -> Vec<Arc<Memory>> {
        let members = self.members.iter().filter_map(Weak::upgrade);
        members.filter(|member| Arc::as_ptr(member) != std::ptr::from_ref(than)).collect()
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        let Some(id) = self.id.get() else { return };
        let mut known = KNOWN.hold();
        // Another may have come in its place already.
        if known.get(id).is_some_and(|payload| payload.strong_count() == 0) {
            known.remove(id);
        }
    }
}

/// vkGetMemoryFdKHR.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn memory_fd(
    device: vk::Device,
    info: *const vk::MemoryGetFdInfoKHR<'_>,
    descriptor: *mut RawFd,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(get) = state.next.vkGetMemoryFdKHR else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { get(device, info, descriptor) };
    if result != vk::Result::SUCCESS {
        return result;
    }
    // SAFETY: a valid info; and the command succeeded, so it stored a descriptor.
    let (memory, id) = unsafe { ((*info).memory, id(*descriptor)) };
    if let (Some(coherence), Some(id)) = (&state.coherence, id)
        && let Some(payload) = coherence.memory(memory).and_then(|memory| memory.payload.clone())
    {
        payload.export(id);
    }
    result
}
