//! Losing the device, when the environment says so.
//!
//! `TIDEMARK_MOCK_LOSE` is `submit:N`, where the Nth submission to the queues of a device is refused, or `wait:N`, where it
//! is taken, and is the last. From then on nothing is taken, and whatever waits is told that the device is lost, which it
//! is in a time that is not long. What lavapipe was given goes on unseen, until somebody waits for it to be idle.

use crate::device::{DEVICES, Device};
use crate::misuse::misuse;
use crate::opaque;
use ash::vk;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The variable.
const VARIABLE: &str = "TIDEMARK_MOCK_LOSE";

/// How long lavapipe waits, in nanoseconds, before it is asked again whether there still is a device.
const SLICE: u64 = 2_000_000;

/// When a device is lost.
#[derive(Clone, Copy)]
enum When {
    Refused(u64),
    Taken(u64),
}

/// Whether a device is lost.
pub(crate) struct Loss {
    when: Option<When>,
    submissions: AtomicU64,
    is_lost: AtomicBool,
}

impl Loss {
    /// As the environment says.
    pub(crate) fn new() -> Self {
        let when = std::env::var(VARIABLE).ok().map(|value| {
            let number = |prefix| value.strip_prefix(prefix).and_then(|number| number.parse().ok());
            let when = number("submit:").map(When::Refused).or_else(|| number("wait:").map(When::Taken));
            when.unwrap_or_else(|| {
                misuse(format_args!("{VARIABLE} is \"{value}\"; it must be submit:N or wait:N"))
            })
        });
        Self { when, submissions: AtomicU64::new(0), is_lost: AtomicBool::new(false) }
    }

    /// Whether the environment says when.
    pub(crate) fn is_expected(&self) -> bool {
        self.when.is_some()
    }

    fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    /// What comes of a submission that lavapipe takes by `submit`.
    pub(crate) fn submit(&self, submit: impl FnOnce() -> vk::Result) -> vk::Result {
        let number = self.submissions.fetch_add(1, Ordering::Relaxed) + 1;
        let is_refused = match self.when {
            Some(When::Refused(first)) => number >= first,
            Some(When::Taken(last)) => number > last,
            None => false,
        };
        let result = if is_refused { vk::Result::ERROR_DEVICE_LOST } else { submit() };
        let is_last = matches!(self.when, Some(When::Taken(last)) if number == last);
        if is_refused || is_last {
            self.is_lost.store(true, Ordering::Release);
        }
        result
    }

    /// What comes of a wait that lavapipe does by `wait`, for as long as it is told.
    fn wait(&self, timeout: u64, wait: impl Fn(u64) -> vk::Result) -> vk::Result {
        if !self.is_expected() {
            return wait(timeout);
        }
        let mut left = timeout;
        loop {
            let slice = left.min(SLICE);
            let result = self.or_lost(|| wait(slice));
            left -= slice;
            if left == 0 || !matches!(result, vk::Result::TIMEOUT | vk::Result::NOT_READY) {
                return result;
            }
        }
    }

    /// What comes of `work`, if there still is a device then.
    pub(crate) fn or_lost(&self, work: impl FnOnce() -> vk::Result) -> vk::Result {
        let result = work();
        if self.is_lost() { vk::Result::ERROR_DEVICE_LOST } else { result }
    }
}

fn device(handle: vk::Device) -> Arc<Device> {
    DEVICES.get(handle).unwrap_or_else(|| misuse(format_args!("{handle:?} is no device")))
}

/// vkWaitForFences.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn wait_for_fences(
    handle: vk::Device,
    count: u32,
    fences: *const vk::Fence,
    all: vk::Bool32,
    timeout: u64,
) -> vk::Result {
    let state = device(handle);
    // SAFETY: that many fences.
    let named = unsafe { opaque::array(fences, count) };
    let shared: Vec<_> = named.iter().filter_map(|fence| opaque::payload(*fence)).collect();
    if shared.is_empty() {
        // SAFETY: the arguments are passed on, but for the timeout.
        return state.loss.wait(timeout, |timeout| unsafe {
            (state.core.wait_for_fences)(handle, count, fences, all, timeout)
        });
    }
    if shared.len() != named.len() || (all == vk::FALSE && count > 1) {
        misuse(format_args!(
            "vkWaitForFences: what is shared is waited for with other fences, which the mock cannot"
        ));
    }
    state.loss.wait(timeout, |timeout| {
        if shared.iter().all(|payload| payload.wait(timeout)) {
            vk::Result::SUCCESS
        } else {
            vk::Result::TIMEOUT
        }
    })
}

/// vkWaitSemaphores.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn wait_semaphores(
    handle: vk::Device,
    info: *const vk::SemaphoreWaitInfo<'_>,
    timeout: u64,
) -> vk::Result {
    let state = device(handle);
    let Some(wait) = state.next.vkWaitSemaphores else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on, but for the timeout.
    state.loss.wait(timeout, |timeout| unsafe { wait(handle, info, timeout) })
}

/// vkAcquireNextImageKHR.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn acquire(
    handle: vk::Device,
    swapchain: vk::SwapchainKHR,
    timeout: u64,
    semaphore: vk::Semaphore,
    fence: vk::Fence,
    index: *mut u32,
) -> vk::Result {
    let state = device(handle);
    let Some(acquire) = state.next.vkAcquireNextImageKHR else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on, but for the timeout.
    state
        .loss
        .wait(timeout, |timeout| unsafe { acquire(handle, swapchain, timeout, semaphore, fence, index) })
}

/// vkGetFenceStatus.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn fence_status(handle: vk::Device, fence: vk::Fence) -> vk::Result {
    let state = device(handle);
    state.loss.or_lost(|| match opaque::payload(fence) {
        Some(payload) if payload.is_signalled() => vk::Result::SUCCESS,
        Some(_) => vk::Result::NOT_READY,
        // SAFETY: the arguments are passed on as they came.
        None => unsafe { (state.core.get_fence_status)(handle, fence) },
    })
}

/// vkGetSemaphoreCounterValue.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn counter_value(
    handle: vk::Device,
    semaphore: vk::Semaphore,
    value: *mut u64,
) -> vk::Result {
    let state = device(handle);
    let Some(get) = state.next.vkGetSemaphoreCounterValue else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came.
    state.loss.or_lost(|| unsafe { get(handle, semaphore, value) })
}

/// vkDeviceWaitIdle. It waits for lavapipe, lost or not: what it was given is then done.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn wait_idle(handle: vk::Device) -> vk::Result {
    let state = device(handle);
    // SAFETY: the arguments are passed on as they came.
    state.loss.or_lost(|| unsafe { (state.core.device_wait_idle)(handle) })
}
