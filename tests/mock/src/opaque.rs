//! Fences and semaphores that devices of one process share by opaque files, which lavapipe does not do.
//!
//! What they share is a [`Payload`], and a file stands for it by its inode. Lavapipe's own object is left alone then: a
//! queue gets a timeline of the mock's in its place, and a thread carries the signal from one to the other.

use crate::device::Device;
use crate::misuse::misuse;
use crate::physical_device::find_input;
use crate::queue;
use ash::vk::{self, Handle};
use std::collections::BTreeMap;
use std::ffi::c_int;
use std::fs::File;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Whether it is signalled.
#[derive(Default)]
pub(crate) struct Payload {
    is_signalled: Mutex<bool>,
    changed: Condvar,
}

impl Payload {
    fn state(&self) -> MutexGuard<'_, bool> {
        self.is_signalled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, is_signalled: bool) {
        *self.state() = is_signalled;
        self.changed.notify_all();
    }

    pub(crate) fn is_signalled(&self) -> bool {
        *self.state()
    }

    /// Waits for nanoseconds. Returns whether it is signalled.
    pub(crate) fn wait(&self, timeout: u64) -> bool {
        let deadline = Instant::now().checked_add(Duration::from_nanos(timeout));
        let mut state = self.state();
        while !*state {
            let left =
                deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// What a fence or a semaphore has in the place of its own, by its handle.
static SHARED: Mutex<BTreeMap<u64, Arc<Payload>>> = Mutex::new(BTreeMap::new());

/// What files stand for, by their inodes.
static FILES: Mutex<BTreeMap<u64, Arc<Payload>>> = Mutex::new(BTreeMap::new());

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a fence or a semaphore shares, if anything.
pub(crate) fn payload(handle: impl Handle) -> Option<Arc<Payload>> {
    lock(&SHARED).get(&handle.as_raw()).cloned()
}

/// A fence or a semaphore gets something to share.
pub(crate) fn share(handle: impl Handle) {
    lock(&SHARED).insert(handle.as_raw(), Arc::default());
}

/// A file for what a fence or a semaphore shares from now on.
pub(crate) fn export(handle: impl Handle) -> c_int {
    let payload = lock(&SHARED).entry(handle.as_raw()).or_default().clone();
    // SAFETY: a new descriptor, of an empty file with an inode of its own.
    let file = unsafe { File::from_raw_fd(libc::memfd_create(c"payload".as_ptr(), libc::MFD_CLOEXEC)) };
    lock(&FILES).insert(inode(&file), payload);
    file.into_raw_fd()
}

/// A fence or a semaphore shares what a file stands for.
///
/// # Safety
/// The descriptor must be the caller's to give away.
pub(crate) unsafe fn import(handle: impl Handle, fd: c_int) -> vk::Result {
    // SAFETY: the caller's promise.
    let file = unsafe { File::from_raw_fd(fd) };
    match lock(&FILES).get(&inode(&file)) {
        Some(payload) => {
            lock(&SHARED).insert(handle.as_raw(), payload.clone());
            vk::Result::SUCCESS
        }
        None => vk::Result::ERROR_INVALID_EXTERNAL_HANDLE,
    }
}

/// A fence or a semaphore is destroyed.
pub(crate) fn forget(handle: impl Handle) {
    lock(&SHARED).remove(&handle.as_raw());
}

fn inode(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.ino())
}

/// A slice of a caller's array, which may be null if it has no elements.
///
/// # Safety
/// Valid for `count` elements, for as long as the result is used.
pub(crate) unsafe fn array<'a, T>(at: *const T, count: u32) -> &'a [T] {
    if count == 0 || at.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(at, count as usize) }
}

/// What a queue is given, as VkSubmitInfo2 has it.
pub(crate) struct Infos(Vec<Info>);

struct Info {
    waits: Vec<vk::SemaphoreSubmitInfo<'static>>,
    buffers: Vec<vk::CommandBufferSubmitInfo<'static>>,
    signals: Vec<vk::SemaphoreSubmitInfo<'static>>,
}

impl Infos {
    /// # Safety
    /// Valid structures. Of their chains the values of timelines are looked at, and nothing else.
    pub(crate) unsafe fn of(submits: &[vk::SubmitInfo<'_>]) -> Self {
        let info = |submit: &vk::SubmitInfo<'_>| {
            // SAFETY: the caller's promise, for the whole of this.
            let (waits, stages, signals, buffers, values) = unsafe {
                (
                    array(submit.p_wait_semaphores, submit.wait_semaphore_count),
                    array(submit.p_wait_dst_stage_mask, submit.wait_semaphore_count),
                    array(submit.p_signal_semaphores, submit.signal_semaphore_count),
                    array(submit.p_command_buffers, submit.command_buffer_count),
                    find_input::<vk::TimelineSemaphoreSubmitInfo<'_>>(submit.p_next),
                )
            };
            // SAFETY: as above.
            let (wait_values, signal_values) = values.map_or((&[][..], &[][..]), |values| unsafe {
                (
                    array(values.p_wait_semaphore_values, values.wait_semaphore_value_count),
                    array(values.p_signal_semaphore_values, values.signal_semaphore_value_count),
                )
            });
            let stages =
                stages.iter().map(|stages| vk::PipelineStageFlags2::from_raw(stages.as_raw().into()));
            Info {
                waits: payloads(waits, wait_values, stages),
                buffers: buffers
                    .iter()
                    .map(|buffer| vk::CommandBufferSubmitInfo::default().command_buffer(*buffer))
                    .collect(),
                signals: payloads(
                    signals,
                    signal_values,
                    std::iter::repeat(vk::PipelineStageFlags2::ALL_COMMANDS),
                ),
            }
        };
        Self(submits.iter().map(info).collect())
    }

    /// # Safety
    /// Valid structures. Nothing extends them here.
    pub(crate) unsafe fn of2(submits: &[vk::SubmitInfo2<'_>]) -> Self {
        let semaphore = |info: &vk::SemaphoreSubmitInfo<'_>| {
            vk::SemaphoreSubmitInfo::default()
                .semaphore(info.semaphore)
                .value(info.value)
                .stage_mask(info.stage_mask)
        };
        // SAFETY: the caller's promise.
        let info = |submit: &vk::SubmitInfo2<'_>| unsafe {
            Info {
                waits: array(submit.p_wait_semaphore_infos, submit.wait_semaphore_info_count)
                    .iter()
                    .map(semaphore)
                    .collect(),
                buffers: array(submit.p_command_buffer_infos, submit.command_buffer_info_count)
                    .iter()
                    .map(|info| vk::CommandBufferSubmitInfo::default().command_buffer(info.command_buffer))
                    .collect(),
                signals: array(submit.p_signal_semaphore_infos, submit.signal_semaphore_info_count)
                    .iter()
                    .map(semaphore)
                    .collect(),
            }
        };
        Self(submits.iter().map(info).collect())
    }

    /// Whether any of it, or the fence that follows, is shared.
    pub(crate) fn share(&self, fence: vk::Fence) -> bool {
        let mut semaphores = self.0.iter().flat_map(|info| info.waits.iter().chain(&info.signals));
        payload(fence).is_some() || semaphores.any(|info| payload(info.semaphore).is_some())
    }

    /// Submits, with timelines in the place of what is shared.
    ///
    /// # Safety
    /// As the specification demands of vkQueueSubmit2.
    pub(crate) unsafe fn submit(mut self, queue: vk::Queue, mut fence: vk::Fence) -> vk::Result {
        let Some(device) = queue::device_of(queue) else { return vk::Result::ERROR_DEVICE_LOST };
        let (mut waits, mut signals) = (Vec::new(), Vec::new());
        for info in &mut self.0 {
            info.waits.iter_mut().for_each(|info| waits.extend(replace(&device, info)));
            info.signals.iter_mut().for_each(|info| signals.extend(replace(&device, info)));
        }
        if payload(fence).is_some() {
            let mut signal =
                vk::SemaphoreSubmitInfo::default().stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS);
            signals.extend(replace_with(&device, &mut signal, payload(fence)));
            self.0.push(Info { waits: Vec::new(), buffers: Vec::new(), signals: vec![signal] });
            fence = vk::Fence::null();
        }
        let submits: Vec<vk::SubmitInfo2<'_>> = self
            .0
            .iter()
            .map(|info| {
                vk::SubmitInfo2::default()
                    .wait_semaphore_infos(&info.waits)
                    .command_buffer_infos(&info.buffers)
                    .signal_semaphore_infos(&info.signals)
            })
            .collect();
        let count = u32::try_from(submits.len()).unwrap_or(u32::MAX);
        // SAFETY: the caller's promise; timelines of the same device.
        let result = unsafe { queue::submit2(queue, count, submits.as_ptr(), fence) };
        if result == vk::Result::SUCCESS {
            waits.into_iter().for_each(|(payload, timeline)| carry_to(&device, payload, timeline));
            signals.into_iter().for_each(|(payload, timeline)| carry_from(&device, timeline, payload));
        }
        result
    }
}

fn payloads(
    semaphores: &[vk::Semaphore],
    values: &[u64],
    stages: impl Iterator<Item = vk::PipelineStageFlags2>,
) -> Vec<vk::SemaphoreSubmitInfo<'static>> {
    let values = values.iter().copied().chain(std::iter::repeat(0));
    let info = |((semaphore, value), stages): ((&vk::Semaphore, u64), vk::PipelineStageFlags2)| {
        vk::SemaphoreSubmitInfo::default().semaphore(*semaphore).value(value).stage_mask(stages)
    };
    semaphores.iter().zip(values).zip(stages).map(info).collect()
}

/// Puts a timeline in the place of a semaphore that is shared, and returns what is to be carried between them.
fn replace(device: &Device, info: &mut vk::SemaphoreSubmitInfo<'_>) -> Option<(Arc<Payload>, vk::Semaphore)> {
    replace_with(device, info, payload(info.semaphore))
}

fn replace_with(
    device: &Device,
    info: &mut vk::SemaphoreSubmitInfo<'_>,
    payload: Option<Arc<Payload>>,
) -> Option<(Arc<Payload>, vk::Semaphore)> {
    let payload = payload?;
    (info.semaphore, info.value) = (timeline(device), 1);
    Some((payload, info.semaphore))
}

/// A timeline of lavapipe's that is destroyed with the device.
fn timeline(device: &Device) -> vk::Semaphore {
    let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
    let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
    let mut semaphore = vk::Semaphore::null();
    // SAFETY: a live device.
    unsafe {
        (device.core.create_semaphore)(device.handle, &raw const info, std::ptr::null(), &raw mut semaphore)
    }
    .result()
    .unwrap_or_else(|error| misuse(format_args!("no timeline: {error}")));
    lock(&device.carriers.timelines).push(semaphore);
    semaphore
}

/// The threads of a device that carry signals, and the timelines.
#[derive(Default)]
pub(crate) struct Carriers {
    threads: Mutex<Vec<JoinHandle<()>>>,
    timelines: Mutex<Vec<vk::Semaphore>>,
    is_over: AtomicBool,
}

/// How long a thread waits, in nanoseconds, before it looks whether its device still is there.
const SLICE: u64 = 5_000_000;

/// Has a thread wait by `wait`, which takes nanoseconds and returns whether it is over, and `then` do something, unless the
/// device goes before.
pub(crate) fn carry(
    device: &Arc<Device>,
    wait: impl Fn(&Device, u64) -> bool + Send + 'static,
    then: impl FnOnce(&Device) + Send + 'static,
) {
    let of_thread = device.clone();
    let thread = std::thread::spawn(move || {
        while !of_thread.carriers.is_over.load(Ordering::Acquire) {
            if wait(&of_thread, SLICE) {
                return then(&of_thread);
            }
        }
    });
    lock(&device.carriers.threads).push(thread);
}

/// A device is about to be destroyed.
pub(crate) fn end(device: &Device) {
    device.carriers.is_over.store(true, Ordering::Release);
    for thread in std::mem::take(&mut *lock(&device.carriers.threads)) {
        // A panic ends the process.
        let _ = thread.join();
    }
    for semaphore in lock(&device.carriers.timelines).drain(..) {
        // SAFETY: what waited for it, and what was to signal it, is done, as it must be before its device goes.
        unsafe { (device.core.destroy_semaphore)(device.handle, semaphore, std::ptr::null()) }
    }
}

/// Has a timeline reach 1 once the payload is signalled, which it is no longer then.
fn carry_to(device: &Arc<Device>, payload: Arc<Payload>, timeline: vk::Semaphore) {
    let signalled = payload.clone();
    carry(
        device,
        move |_, timeout| signalled.wait(timeout),
        move |device| {
            payload.set(false);
            let info = vk::SemaphoreSignalInfo::default().semaphore(timeline).value(1);
            // SAFETY: a live device, and its own timeline, at 0.
            let _ = unsafe { (device.core2.signal_semaphore)(device.handle, &raw const info) };
        },
    );
}

/// Has the payload be signalled once a timeline reaches 1.
fn carry_from(device: &Arc<Device>, timeline: vk::Semaphore, payload: Arc<Payload>) {
    carry(
        device,
        move |device, timeout| {
            let (semaphores, values) = ([timeline], [1]);
            let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
            // SAFETY: a live device, and its own timeline.
            let result = unsafe { (device.core2.wait_semaphores)(device.handle, &raw const info, timeout) };
            result == vk::Result::SUCCESS
        },
        move |_| payload.set(true),
    );
}
