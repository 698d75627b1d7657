//! Imports that were freed, kept for the next: whoever imports some pages tends to import them again. What is kept is the
//! allocation, the pages' registration, and what both sides last agreed on, so that the next import costs a look whether
//! they are still the same pages, and its first flush what was written since. Of shared memory and files all counts as
//! written: others may have done so meanwhile.
//!
//! Kept is what the tracker watches, within bounds, the latest first; until something else is imported there, the backing
//! driver runs short of memory, or the device ends.

use crate::device::Device;
use ash::vk;
use std::collections::VecDeque;
use std::ffi::c_void;
use std::mem;
use std::sync::{Arc, Mutex};
use tidemark_winsys::{Lending, LockExt, Mirror, Span, tracker::Tracker};

/// Imports that are kept at most, and their bytes.
const MOST: usize = 64;
const MOST_BYTES: usize = 256 << 20;

/// What tells one import from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    span: Span,
    memory_type: u32,
    flags: vk::MemoryAllocateFlags,
    device_mask: u32,
}

impl Key {
    /// Of an import whose allocation has the rest of its chain in `chain`; `None` if that is one of its kind.
    ///
    /// # Safety
    /// `chain` must be null or a valid chain.
    pub(crate) unsafe fn new(
        span: &Span,
        info: &vk::MemoryAllocateInfo<'_>,
        chain: *const c_void,
    ) -> Option<Self> {
        // SAFETY: the caller's promise, here and below.
        let mut tags = unsafe { crate::chain::tags(chain) };
        if tags.any(|tag| tag != vk::StructureType::MEMORY_ALLOCATE_FLAGS_INFO) {
            return None;
        }
        // SAFETY: as above.
        let flags = unsafe { crate::chain::find_input::<vk::MemoryAllocateFlagsInfo<'_>>(chain) };
        let (flags, device_mask) = flags.map_or_else(Default::default, |info| (info.flags, info.device_mask));
        Some(Self { span: span.clone(), memory_type: info.memory_type_index, flags, device_mask })
    }

    pub(crate) fn overlaps(&self, span: &Span) -> bool {
        self.span.start < span.end && span.start < self.span.end
    }
}

/// An import that was freed.
pub(crate) struct Idle {
    pub(crate) key: Key,
    pub(crate) memory: vk::DeviceMemory,
    pub(crate) mirror: Arc<Mirror>,
}

/// Whom pages are lent to, and what is kept.
pub(crate) struct Imports {
    lending: Arc<Lending>,
    /// The latest last.
    idle: Mutex<VecDeque<Idle>>,
}

impl Imports {
    /// For pages that `tracker` watches.
    pub(crate) fn new(tracker: &Arc<dyn Tracker>) -> Self {
        Self { lending: Lending::new(tracker.clone()), idle: Mutex::default() }
    }

    pub(crate) fn lending(&self) -> &Arc<Lending> {
        &self.lending
    }

    /// What is kept under `key`, if its pages are still the same.
    pub(crate) fn take(&self, device: &Device, key: &Key) -> Option<Idle> {
        let found = {
            let mut idle = self.idle.hold();
            let at = idle.iter().position(|one| one.key == *key)?;
            idle.remove(at)?
        };
        if found.mirror.resume() {
            return Some(found);
        }
        found.free(device);
        None
    }

    /// Keeps an import.
    pub(crate) fn keep(&self, device: &Device, fresh: Idle) {
        let mut evicted = Vec::new();
        {
            let mut idle = self.idle.hold();
            idle.push_back(fresh);
            let bytes = |idle: &VecDeque<Idle>| idle.iter().map(|one| one.key.span.len()).sum::<usize>();
            while idle.len() > MOST || bytes(&idle) > MOST_BYTES {
                evicted.extend(idle.pop_front());
            }
        }
        evicted.into_iter().for_each(|one| one.free(device));
    }

    /// Lets go of what `which` says. Whether there was any.
    pub(crate) fn evict(&self, device: &Device, which: impl Fn(&Key) -> bool) -> bool {
        let gone: VecDeque<Idle> = {
            let mut idle = self.idle.hold();
            let (gone, kept) = mem::take(&mut *idle).into_iter().partition(|one| which(&one.key));
            *idle = kept;
            gone
        };
        let is_any = !gone.is_empty();
        gone.into_iter().for_each(|one| one.free(device));
        is_any
    }

    /// An allocation by the backing driver, and if it runs short a second one without what is kept.
    pub(crate) fn allocating(&self, device: &Device, allocate: impl Fn() -> vk::Result) -> vk::Result {
        let result = allocate();
        let shortages = [
            vk::Result::ERROR_OUT_OF_DEVICE_MEMORY,
            vk::Result::ERROR_OUT_OF_HOST_MEMORY,
            vk::Result::ERROR_TOO_MANY_OBJECTS,
        ];
        if shortages.contains(&result) && self.evict(device, |_| true) { allocate() } else { result }
    }
}

impl Idle {
    /// Frees it for good.
    fn free(self, device: &Device) {
        self.mirror.retire();
        drop(self.mirror);
        if let Some(free) = device.next.vkFreeMemory {
            // SAFETY: a live memory of the backing driver, allocated without callbacks, which the application has freed.
            unsafe { free(device.handle, self.memory, std::ptr::null()) }
        }
    }
}
