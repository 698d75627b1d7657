//! VkQueue: more queues than lavapipe has, if the environment asks for them.
//!
//! `TIDEMARK_MOCK_QUEUES` is how many there are in a family, `TIDEMARK_MOCK_FAMILIES` how many of these there are. All lead
//! to lavapipe's one, in the order of submission: so each waits for what was submitted to any before it. What another queue is to go on with while one waits
//! for the host never happens here.

use crate::device::{DEVICES, Device};
use crate::physical_device::PHYSICAL_DEVICES;
use crate::table::Table;
use ash::vk::{self, Handle};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Queues that were fetched.
static QUEUES: Table<Queue> = Table::new();

/// What a variable says, or one.
fn number(variable: &str) -> u32 {
    std::env::var(variable).ok().and_then(|count| count.parse().ok()).unwrap_or(1).max(1)
}

/// Queues of a family.
pub(crate) fn count() -> u32 {
    number("TIDEMARK_MOCK_QUEUES")
}

/// Families, all like lavapipe's one.
pub(crate) fn families() -> u32 {
    number("TIDEMARK_MOCK_FAMILIES")
}

/// A queue, of lavapipe's or not.
struct Queue {
    device: Arc<Device>,
    lavapipe: vk::Queue,
    is_made_up: bool,
}

/// What a made-up queue's handle points to. The loader keeps its own in the first word of every dispatchable object.
#[repr(C)]
struct Dispatchable {
    loader: usize,
}

/// What the loader expects to find there.
const LOADER_MAGIC: usize = 0x01CD_C0DE;

/// vkGetPhysicalDeviceQueueFamilyProperties.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn family_properties(
    device: vk::PhysicalDevice,
    families: *mut u32,
    properties: *mut vk::QueueFamilyProperties,
) {
    let Some(state) = PHYSICAL_DEVICES.get(device) else { return };
    let Some(get) = state.fns.vkGetPhysicalDeviceQueueFamilyProperties else { return };
    // SAFETY: room for one structure, and for as many as the application says.
    unsafe {
        if properties.is_null() {
            *families = self::families();
            return;
        }
        *families = (*families).min(self::families());
        for index in 0..*families as usize {
            let family = properties.add(index);
            get(device, &mut 1, family);
            (*family).queue_count = count();
        }
    }
}

/// vkGetPhysicalDeviceQueueFamilyProperties2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn family_properties2(
    device: vk::PhysicalDevice,
    families: *mut u32,
    properties: *mut vk::QueueFamilyProperties2<'_>,
) {
    let Some(state) = PHYSICAL_DEVICES.get(device) else { return };
    let Some(get) = state.fns.vkGetPhysicalDeviceQueueFamilyProperties2 else { return };
    // SAFETY: as above.
    unsafe {
        if properties.is_null() {
            *families = self::families();
            return;
        }
        *families = (*families).min(self::families());
        for index in 0..*families as usize {
            let family = properties.add(index);
            get(device, &mut 1, family);
            (*family).queue_family_properties.queue_count = count();
        }
    }
}

/// vkGetDeviceQueue.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn get(handle: vk::Device, family: u32, index: u32, queue: *mut vk::Queue) {
    let Some(device) = DEVICES.get(handle) else { return };
    let Some(get) = device.next.vkGetDeviceQueue else { return };
    let mut lavapipe = vk::Queue::null();
    // SAFETY: lavapipe's only queue; the place is the caller's.
    unsafe {
        get(handle, 0, 0, &raw mut lavapipe);
        *queue = remember(device, lavapipe, (family, index));
    }
}

/// vkGetDeviceQueue2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn get2(handle: vk::Device, info: *const vk::DeviceQueueInfo2<'_>, queue: *mut vk::Queue) {
    let Some(device) = DEVICES.get(handle) else { return };
    let Some(get) = device.next.vkGetDeviceQueue2 else { return };
    let mut lavapipe = vk::Queue::null();
    // SAFETY: as above, and a valid info.
    unsafe {
        let mut first = *info;
        let family = std::mem::replace(&mut first.queue_family_index, 0);
        let index = std::mem::replace(&mut first.queue_index, 0);
        get(handle, &raw const first, &raw mut lavapipe);
        *queue = if lavapipe.is_null() { lavapipe } else { remember(device, lavapipe, (family, index)) };
    }
}

/// The handle of a queue, by its family and its index there; the first of the first is lavapipe's.
fn remember(device: Arc<Device>, lavapipe: vk::Queue, place: (u32, u32)) -> vk::Queue {
    if place == (0, 0) {
        QUEUES.insert(lavapipe, Queue { device, lavapipe, is_made_up: false });
        return lavapipe;
    }
    let mut made_up = device.queues.lock().unwrap_or_else(PoisonError::into_inner);
    let handle = *made_up.entry(place).or_insert_with(|| {
        // For as long as the process lives, as there is no telling who still has the handle.
        let object: &'static Dispatchable = Box::leak(Box::new(Dispatchable { loader: LOADER_MAGIC }));
        debug_assert_eq!(object.loader, LOADER_MAGIC);
        vk::Queue::from_raw(std::ptr::from_ref(object) as u64)
    });
    drop(made_up);
    QUEUES.insert(handle, Queue { device, lavapipe, is_made_up: true });
    handle
}

/// The device of a queue.
pub(crate) fn device_of(queue: vk::Queue) -> Option<Arc<Device>> {
    QUEUES.get(queue).map(|queue| queue.device.clone())
}

/// Lavapipe's queue in the place of `queue`, for one user at a time.
fn enter<T>(queue: vk::Queue, work: impl FnOnce(&Device, vk::Queue) -> T) -> Option<T> {
    let state = QUEUES.get(queue)?;
    let turn: &Mutex<()> = &state.device.turn;
    let _turn: MutexGuard<'_, ()> = turn.lock().unwrap_or_else(PoisonError::into_inner);
    state.device.counters.made_up.fetch_add(u64::from(state.is_made_up), Ordering::Relaxed);
    Some(work(&state.device, state.lavapipe))
}

/// The commands of a queue: the same for lavapipe's, as long as the device is not lost.
macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident: $command:ident($($arg:ident: $ty:ty),*) by $loss:ident;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            /// As the specification demands.
            pub(crate) unsafe fn $name(queue: vk::Queue, $($arg: $ty),*) -> vk::Result {
                let result = enter(queue, |device, lavapipe| {
                    let command = device.next.$command?;
                    // SAFETY: the arguments are passed on, but for the queue.
                    Some(device.loss.$loss(|| unsafe { command(lavapipe, $($arg),*) }))
                });
                result.flatten().unwrap_or(vk::Result::ERROR_DEVICE_LOST)
            }
        )*
    };
}

commands! {
    /// vkQueueSubmit.
    submit: vkQueueSubmit(count: u32, submits: *const vk::SubmitInfo<'_>, fence: vk::Fence) by submit;
    /// vkQueueSubmit2.
    submit2: vkQueueSubmit2(count: u32, submits: *const vk::SubmitInfo2<'_>, fence: vk::Fence) by submit;
    /// vkQueueBindSparse.
    bind_sparse: vkQueueBindSparse(count: u32, binds: *const vk::BindSparseInfo<'_>, fence: vk::Fence) by submit;
    /// vkQueuePresentKHR.
    present: vkQueuePresentKHR(info: *const vk::PresentInfoKHR<'_>) by submit;
    /// vkQueueWaitIdle.
    wait_idle: vkQueueWaitIdle() by or_lost;
}
