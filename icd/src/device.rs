//! VkDevice: creation, the look-up of commands, queues, and idling.

use crate::chain;
use crate::coherence::Coherence;
use crate::entry;
use crate::hidden;
use crate::offered::Offer;
use crate::physical_device::PhysicalDevice;
use crate::queue::{self, Queue};
use crate::tables::{DEVICES, PHYSICAL_DEVICES, QUEUES};
use crate::transfer::{Plan, TransferQueue};
use ash::vk::{self, Handle};
use std::ffi::{CStr, c_char};
use std::ptr;
use std::slice;
use std::sync::Arc;

/// Tidemark's state of a device.
pub(crate) struct Device {
    pub(crate) handle: vk::Device,
    pub(crate) physical: Arc<PhysicalDevice>,
    /// The backing driver's commands that every device has intercepted.
    fns: entry::device::Fns,
    /// The backing driver's commands that coherence depends on.
    pub(crate) next: entry::coherence::Fns,
    /// The backing driver's commands that every driver has, for Tidemark's own use of them.
    pub(crate) core: ash::DeviceFnV1_0,
    /// The state of emulated memory, on devices that have such.
    pub(crate) coherence: Option<Coherence>,
    /// Extensions that it was created with and the backing driver knows nothing of.
    offers: Vec<&'static Offer>,
}

impl Device {
    /// Whether Tidemark itself submits to queues that the application uses.
    pub(crate) fn shares_queues(&self) -> bool {
        self.coherence.as_ref().is_some_and(|coherence| coherence.shares_queues)
    }

    /// What carries staged copies, if any.
    pub(crate) fn transfers(&self) -> Option<&Arc<TransferQueue>> {
        self.coherence.as_ref()?.transfers.as_ref()
    }

    /// A fence for Tidemark's own use.
    pub(crate) fn new_fence(&self) -> Result<vk::Fence, vk::Result> {
        let (info, mut fence) = (vk::FenceCreateInfo::default(), vk::Fence::null());
        // SAFETY: a live device.
        let result =
            unsafe { (self.core.create_fence)(self.handle, &raw const info, ptr::null(), &raw mut fence) };
        result.result_with_success(fence)
    }

    /// Destroys a fence that [`new_fence`](Self::new_fence) made, and that nothing pending will signal.
    pub(crate) fn destroy_fence(&self, fence: vk::Fence) {
        // SAFETY: a live device, and its fence, which nobody else knows.
        unsafe { (self.core.destroy_fence)(self.handle, fence, ptr::null()) }
    }

    /// Its queues that were fetched, by their handles.
    fn queues(&self) -> Vec<Arc<Queue>> {
        let mut queues = QUEUES.all(|queue| queue.device.handle == self.handle);
        queues.sort_unstable_by_key(|queue| queue.handle.as_raw());
        queues
    }
}

/// vkCreateDevice.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn create(
    physical: vk::PhysicalDevice,
    info: *const vk::DeviceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    device: *mut vk::Device,
) -> vk::Result {
    let Some(state) = PHYSICAL_DEVICES.get(physical) else { return vk::Result::ERROR_INITIALIZATION_FAILED };
    let Some(create) = state.instance.physical_device_fns.vkCreateDevice else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    if state.memory.emulates() {
        // SAFETY: a valid create info.
        for name in unsafe { enabled_extensions(&*info) } {
            if let Some(reason) = hidden::reason(name) {
                log::error!("vkCreateDevice: {} is not offered: {reason}", name.to_string_lossy());
                return vk::Result::ERROR_EXTENSION_NOT_PRESENT;
            }
        }
        // SAFETY: a valid chain.
        if let Some(feature) = unsafe { hidden::asked_for((*info).p_next) } {
            log::error!("vkCreateDevice: {} is not offered: {}", feature.name, feature.reason);
            return vk::Result::ERROR_FEATURE_NOT_PRESENT;
        }
    }
    // SAFETY: a valid create info. Only its own fields are copied: what they point to stays the application's.
    let mut info = unsafe { *info };
    let mut names = Vec::new();
    let mut offers = Vec::new();
    // SAFETY: as above.
    for name in unsafe { enabled_extensions(&info) } {
        match state.offers.iter().find(|offer| offer.name == name) {
            Some(offer) => offers.push(*offer),
            None => names.push(name.as_ptr()),
        }
    }
    if !offers.is_empty() {
        info = info.enabled_extension_names(&names);
    }
    let backing = state.instance.commands();
    // SAFETY: a valid chain.
    let group = unsafe { chain::find_input::<vk::DeviceGroupDeviceCreateInfo<'_>>(info.p_next) };
    let is_of_several = group.is_some_and(|group| group.physical_device_count > 1);
    if is_of_several && state.memory.stages() {
        log::warn!("memory cannot be staged on a device of several: each would copy, and one has the memory");
    }
    // SAFETY: a valid create info of a device of this instance.
    let plan = (state.memory.stages() && !is_of_several)
        .then(|| unsafe { Plan::new(&backing, physical, &info) })
        .flatten();
    plan.iter().for_each(|plan| plan.apply(&mut info));
    let mut chains = Vec::new();
    for features in offers.iter().filter_map(|offer| offer.features()) {
        // SAFETY: a valid chain: the application's, or a copy of it that lives as long as `chains`.
        match unsafe { chain::without(info.p_next, features) } {
            Ok(Some(chain)) => {
                info.p_next = chain.head();
                chains.push(chain);
            }
            Ok(None) => {}
            Err(error) => log::warn!(
                "the features of an extension that the backing driver may lack stay in the chain of vkCreateDevice: \
                 process_vm_readv(2) fails ({error}). Put them first there"
            ),
        }
    }
    // SAFETY: the arguments are passed on as they came, but for what Tidemark offers instead of the backing driver,
    // and the queues.
    let result = unsafe { create(physical, &raw const info, allocator, device) };
    if result != vk::Result::SUCCESS {
        return result;
    }
    // SAFETY: the command succeeded, so it stored a device.
    let handle = unsafe { *device };
    let instance = &state.instance;
    // SAFETY: an instance of the backing driver.
    let get = unsafe { instance.backing.instance_proc_addr(instance.handle, c"vkGetDeviceProcAddr") };
    // SAFETY: the function of this name has this signature.
    let get = get.map(|get| unsafe {
        std::mem::transmute::<unsafe extern "system" fn(), vk::PFN_vkGetDeviceProcAddr>(get)
    });
    // SAFETY: a device of the backing driver, just created.
    let load = |name: &CStr| unsafe { get?(handle, name.as_ptr()) };
    let transfers = plan.and_then(|plan| {
        // SAFETY: the device just created.
        let transfers = unsafe {
            let commands = ash::Device::load_with(
                |name| load(name).map_or(std::ptr::null(), |found| found as *const _),
                handle,
            );
            TransferQueue::new(&backing, physical, commands, &plan)
        };
        transfers.map(Arc::new).inspect_err(|error| log::error!("no staged copies: {error}")).ok()
    });
    let coherence = state.memory.emulates().then(|| Coherence::new(&state.name, transfers));
    if coherence.is_none() {
        crate::profile::start(&state.name, "none");
    }
    DEVICES.insert(
        handle,
        Arc::new(Device {
            handle,
            fns: entry::device::Fns::load(load),
            next: entry::coherence::Fns::load(load),
            core: ash::DeviceFnV1_0::load(|name| {
                load(name).map_or(std::ptr::null(), |found| found as *const _)
            }),
            coherence,
            offers,
            physical: state,
        }),
    );
    if let Some(state) = DEVICES.get(handle)
        && let Some(shared) = state.transfers().filter(|transfers| transfers.is_shared())
    {
        remember(shared.handle(), state.clone());
    }
    result
}

/// # Safety
/// `info` must be a valid create info.
unsafe fn enabled_extensions<'a>(info: &vk::DeviceCreateInfo<'a>) -> impl Iterator<Item = &'a CStr> {
    let names: &[*const c_char] = if info.enabled_extension_count == 0 {
        &[]
    } else {
        // SAFETY: a valid create info has that many names.
        unsafe {
            slice::from_raw_parts(info.pp_enabled_extension_names, info.enabled_extension_count as usize)
        }
    };
    // SAFETY: each a null-terminated string.
    names.iter().map(|&name| unsafe { CStr::from_ptr(name) })
}

/// vkGetDeviceProcAddr: Tidemark's function if the device needs it intercepted and the backing driver has it, or Tidemark
/// offers it; otherwise the backing driver's own.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn proc_addr(device: vk::Device, name: *const c_char) -> vk::PFN_vkVoidFunction {
    let state = DEVICES.get(device)?;
    // SAFETY: the arguments are passed on as they came.
    let theirs = unsafe { state.fns.vkGetDeviceProcAddr?(device, name) };
    // SAFETY: a null-terminated string.
    let name = unsafe { CStr::from_ptr(name) };
    let for_coherence = || state.coherence.as_ref().and_then(|_| entry::coherence::find(name));
    let ours = entry::device::find(name).or_else(for_coherence);
    let is_there = || theirs.is_some() || state.offers.iter().any(|offer| offer.has_command(name));
    ours.filter(|_| is_there()).or(theirs)
}

/// vkDestroyDevice.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn destroy(device: vk::Device, allocator: *const vk::AllocationCallbacks<'_>) {
    let Some(state) = DEVICES.remove(device) else { return };
    state.queues().iter().for_each(|queue| queue.exporter.end());
    if let Some(coherence) = &state.coherence {
        coherence.imports.evict(&state, |_| true);
    }
    state.transfers().inspect(|transfers| transfers.end());
    QUEUES.retain(|queue| queue.device.handle != device);
    let command_buffers = crate::command_buffer::forget_all(device);
    if let Some(coherence) = &state.coherence {
        coherence.tell_what_is_left(command_buffers);
    }
    let destroy = state.fns.vkDestroyDevice;
    // Mirrors end before the memory they mirror.
    drop(state);
    if let Some(destroy) = destroy {
        // SAFETY: the arguments are passed on as they came.
        unsafe { destroy(device, allocator) }
    }
}

/// vkGetDeviceQueue.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn queue(device: vk::Device, family: u32, index: u32, queue: *mut vk::Queue) {
    let Some(state) = DEVICES.get(device) else { return };
    let Some(get) = state.fns.vkGetDeviceQueue else { return };
    // SAFETY: the arguments are passed on as they came.
    unsafe { get(device, family, index, queue) };
    // SAFETY: stored by the call above.
    remember(unsafe { *queue }, state);
}

/// vkGetDeviceQueue2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn queue2(
    device: vk::Device,
    info: *const vk::DeviceQueueInfo2<'_>,
    queue: *mut vk::Queue,
) {
    let Some(state) = DEVICES.get(device) else { return };
    let Some(get) = state.fns.vkGetDeviceQueue2 else { return };
    // SAFETY: the arguments are passed on as they came.
    unsafe { get(device, info, queue) };
    // SAFETY: stored by the call above.
    remember(unsafe { *queue }, state);
}

fn remember(queue: vk::Queue, device: Arc<Device>) {
    if queue != vk::Queue::null() {
        // One that was fetched before goes on as it was.
        QUEUES.insert_new(queue, || Queue::new(queue, device));
    }
}

/// vkDeviceWaitIdle.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn wait_idle(device: vk::Device) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(wait) = state.next.vkDeviceWaitIdle else { return vk::Result::ERROR_DEVICE_LOST };
    let queues = state.queues();
    let queues: Vec<&Queue> = queues.iter().map(|queue| &**queue).collect();
    // SAFETY: the arguments are passed on as they came.
    queue::idle(&state, &queues, true, || unsafe { wait(device) })
}
