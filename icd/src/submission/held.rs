//! Batches that are held back until they may go: the host lets them, or what others will look at is there.
//!
//! Where Tidemark copies by the queues that applications use, a batch that waits there for the host stands in the way of
//! the very copies that must come before it: the host's signal is to show it what the host wrote until then. Such a batch
//! is not forwarded, but kept, with everything after it on its queue. It goes, made ready in that moment, once the host
//! has signalled. So whatever the queue has been given can finish without the host.
//!
//! A batch waits for the host if it waits for a timeline's value that neither was reached nor will be by a forwarded
//! batch; if its command buffers wait for an event that is not set, and that no command sets; or if it waits for a
//! binary semaphore of which the signal is held. Timelines that others can signal, too, are none of it.
//!
//! The signals of a batch that [`export`](super::export) splits wait for its readback, in their place on the queue.
//!
//! Who submits a batch that is held is told at once that it was submitted. If it cannot be when its time has come, the
//! device is lost, which Vulkan lets every command say: what is held is dropped, and so is whatever is submitted later.
//!
//! One lock is held from the decision until the batch is forwarded, the flush included, since what a batch waits for
//! must not change in between. What is forwarded needs no host, so the flush ends; who waits for a batch that is held
//! does so on the condition variable.

use super::batch::{self, Batch, Needs};
use super::export;
use super::info::{Info, Payload};
use crate::coherence::Coherence;
use crate::config::Config;
use crate::device::Device;
use crate::queue::Queue;
use crate::tables::{HandleMap, QUEUES};
use ash::vk::{self, Handle};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidemark_winsys::{LockExt, RwLockExt};

/// The held batches of a device.
#[derive(Default)]
pub(crate) struct Held {
    state: Mutex<State>,
    /// Some were forwarded, or dropped.
    released: Condvar,
    /// Whether there ever was a semaphore or a fence that others may wait for.
    has_exports: AtomicBool,
    /// Whether a batch that was held could not be forwarded, or the backing driver lost the device.
    is_lost: AtomicBool,
}

#[derive(Default)]
struct State {
    /// In the order in which they came.
    batches: VecDeque<Batch>,
    /// The highest value of each timeline that a forwarded batch signals.
    bound: HandleMap<u64>,
    /// Events that the host has to set for batches that were forwarded.
    awaited: Vec<vk::Event>,
}

impl Needs {
    /// For a batch that came after the first `earlier` of those that are held.
    fn are_met(&self, device: &Device, coherence: &Coherence, state: &State, earlier: usize) -> bool {
        self.semaphores.iter().all(|wait| state.is_bound(device, coherence, *wait, earlier))
            && (!holds_for_host(coherence)
                || self.events.iter().all(|event| is_set(device, coherence, *event)))
            && self.readback.as_ref().is_none_or(|is_back| is_back.load(Ordering::Acquire))
    }
}

impl State {
    /// Whether what `wait` waits for comes without the host. Of the held batches the first `earlier` came before: later
    /// ones signal a binary semaphore anew.
    fn is_bound(
        &self,
        device: &Device,
        coherence: &Coherence,
        (semaphore, value): Payload,
        earlier: usize,
    ) -> bool {
        let kind = coherence.semaphore(semaphore);
        if !kind.is_timeline {
            let mut held = self.batches.iter().take(earlier).flat_map(|batch| &batch.signals);
            return !held.any(|(signalled, _)| *signalled == semaphore);
        }
        if kind.is_external || !holds_for_host(coherence) {
            return true;
        }
        if self.bound.get(&semaphore.as_raw()).is_some_and(|bound| *bound >= value) {
            return true;
        }
        let Some(counter_value) = device.next.vkGetSemaphoreCounterValue else { return true };
        let mut counter = 0;
        // SAFETY: a live timeline semaphore, as the batch names it.
        let result = unsafe { counter_value(device.handle, semaphore, &raw mut counter) };
        // One that cannot be asked would hold the batch for ever.
        result != vk::Result::SUCCESS || counter >= value
    }

    /// A batch is forwarded that has these needs and signals.
    fn note(&mut self, device: &Device, coherence: &Coherence, needs: &Needs, signals: &[Payload]) {
        self.awaited.extend(needs.events.iter().filter(|event| !is_set(device, coherence, **event)));
        self.bind(coherence, signals);
    }

    /// Whether any batch waits for the host to set an event.
    fn awaits_event(&self, device: &Device, coherence: &Coherence) -> bool {
        let mut held = self.batches.iter().flat_map(|batch| &batch.needs.events);
        !self.awaited.is_empty() || held.any(|event| !is_set(device, coherence, *event))
    }

    fn bind(&mut self, coherence: &Coherence, signals: &[Payload]) {
        for (semaphore, value) in signals {
            if coherence.semaphore(*semaphore).is_timeline {
                let bound = self.bound.entry(semaphore.as_raw()).or_default();
                *bound = (*bound).max(*value);
            }
        }
    }

    /// Whether batches may go as they are, all at once; what they signal is then bound.
    ///
    /// # Safety
    /// As the command that takes them demands.
    unsafe fn are_free<I: Info>(
        &mut self,
        queue: &Queue,
        coherence: &Coherence,
        infos: &[I],
        fence: vk::Fence,
    ) -> bool {
        if self.holds(queue.handle) || export::is_exporting(coherence, &[], fence) {
            return false;
        }
        for info in infos {
            // SAFETY: the caller's promise.
            let (needs, signals) = unsafe { (Needs::of(info), info.signals()) };
            if export::is_exporting(coherence, &signals, vk::Fence::null())
                || !needs.are_met(&queue.device, coherence, self, self.batches.len())
            {
                return false;
            }
            // A later one of the same call may wait for it.
            self.note(&queue.device, coherence, &needs, &signals);
        }
        true
    }

    fn holds(&self, queue: vk::Queue) -> bool {
        self.batches.iter().any(|batch| batch.queue == queue)
    }

    /// Forwards the first batch that `may_go`, by its place, in the order of its queue; `None` if there is none.
    ///
    /// # Errors
    /// It could not be submitted, and stays.
    ///
    /// # Safety
    /// The objects that batches name must be live.
    unsafe fn forward_one(
        &mut self,
        coherence: &Coherence,
        may_go: impl Fn(&Self, usize) -> bool,
    ) -> Option<Result<(), vk::Result>> {
        let is_first = |at: usize| {
            let queue = self.batches[at].queue;
            !self.batches.iter().take(at).any(|batch| batch.queue == queue)
        };
        let mut places = 0..self.batches.len();
        let at = places.find(|at| is_first(*at) && may_go(self, *at))?;
        let batch = self.batches.remove(at)?;
        let Some(queue) = QUEUES.get(batch.queue) else {
            self.batches.insert(at, batch);
            return Some(Err(vk::Result::ERROR_DEVICE_LOST));
        };
        // SAFETY: the caller's promise.
        let (result, signals) = unsafe { batch.forward(&queue, coherence) };
        if !was_submitted(result) {
            // It is lost with the others.
            self.batches.insert(at, batch);
            return Some(Err(result));
        }
        let given = if signals.is_none() { &*batch.signals } else { &[] };
        self.note(&queue.device, coherence, &batch.needs, given);
        if let Some(signals) = signals {
            self.batches.insert(at, signals);
        }
        Some(Ok(()))
    }
}

/// Whether a command that returns this has taken what it was given. What a presentation comes to, the next one tells.
fn was_submitted(result: vk::Result) -> bool {
    let of_swapchains = [
        vk::Result::ERROR_OUT_OF_DATE_KHR,
        vk::Result::ERROR_SURFACE_LOST_KHR,
        vk::Result::ERROR_FULL_SCREEN_EXCLUSIVE_MODE_LOST_EXT,
    ];
    result >= vk::Result::SUCCESS || of_swapchains.contains(&result)
}

/// Whether batches that wait for the host are held.
fn holds_for_host(coherence: &Coherence) -> bool {
    coherence.shares_queues && !Config::get().debug.no_hold
}

/// Whether a wait for `event` ends without the host.
fn is_set(device: &Device, coherence: &Coherence, event: vk::Event) -> bool {
    if coherence.set_by_device.shared().contains(&event) {
        return true;
    }
    let Some(status) = device.next.vkGetEventStatus else { return true };
    // SAFETY: a live event, as the batch names it.
    unsafe { status(device.handle, event) != vk::Result::EVENT_RESET }
}

impl Held {
    /// Whether batches have to go this way.
    pub(crate) fn is_needed(&self, coherence: &Coherence) -> bool {
        self.has_exports.load(Ordering::Relaxed) || holds_for_host(coherence)
    }

    /// Whether the device is lost, so that commands have to say so.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    /// There is a semaphore or a fence that others may wait for.
    pub(crate) fn expect_exports(&self) {
        self.has_exports.store(true, Ordering::Relaxed);
    }

    /// Forwards `infos` as far as they wait for nobody, and holds the rest.
    ///
    /// # Safety
    /// As the command that takes them demands.
    pub(crate) unsafe fn submit<I: Info>(
        &self,
        queue: &Queue,
        coherence: &Coherence,
        infos: &[I],
        fence: vk::Fence,
    ) -> vk::Result {
        let device = &*queue.device;
        let mut state = self.state.hold();
        if self.is_lost() {
            return vk::Result::ERROR_DEVICE_LOST;
        }
        // SAFETY: the caller's promise.
        if unsafe { state.are_free(queue, coherence, infos, fence) } {
            // SAFETY: the caller's promise.
            let result = unsafe { super::forward(queue, coherence, infos, fence) };
            // Others may have waited for what these signal.
            // SAFETY: what is pending is live.
            unsafe { self.forward_free(&mut state, device, coherence) };
            return result;
        }
        // SAFETY: the caller's promise.
        match unsafe { batch::keep(queue, infos, fence) } {
            Ok(batches) => {
                state.batches.extend(batches);
                // SAFETY: the caller's promise; what is pending is live.
                unsafe {
                    infos.iter().for_each(|info| info.promise());
                    self.forward_free(&mut state, device, coherence);
                }
            }
            Err(tag) => {
                log::warn!(
                    "a batch that should be held back is submitted at once, since nobody knows how to keep a {tag:?}: \
                     bytes may be lost on it"
                );
                // What came before on the queue goes first.
                let is_of_queue = |state: &State, at: usize| state.batches[at].queue == queue.handle;
                // SAFETY: what is pending is live; the caller's promise.
                unsafe {
                    self.forward_all(&mut state, device, coherence, is_of_queue);
                    if !self.is_lost() {
                        return super::forward(queue, coherence, infos, fence);
                    }
                }
            }
        }
        if self.is_lost() { vk::Result::ERROR_DEVICE_LOST } else { vk::Result::SUCCESS }
    }

    /// Forwards every batch that waits for nobody any more: the host has signalled something.
    ///
    /// # Safety
    /// The objects that held batches name must be live, as they have to be while batches are pending.
    pub(crate) unsafe fn release(&self, device: &Device, coherence: &Coherence) {
        let mut state = self.state.hold();
        // SAFETY: the caller's promise.
        unsafe { self.forward_free(&mut state, device, coherence) };
    }

    /// The backing driver has lost the device: nothing that is held will ever run, and nobody may wait for it here.
    pub(crate) fn give_up(&self, device: &Device, coherence: &Coherence) {
        self.lose(&mut self.state.hold(), device, coherence);
    }

    /// # Safety
    /// As [`release`](Self::release).
    unsafe fn forward_free(&self, state: &mut State, device: &Device, coherence: &Coherence) {
        // SAFETY: the caller's promise.
        unsafe {
            self.forward_all(state, device, coherence, |state, at| {
                state.batches[at].needs.are_met(device, coherence, state, at)
            });
        }
    }

    /// Forwards every batch that `may_go`, by its place, in the order of its queue.
    ///
    /// # Safety
    /// As [`release`](Self::release).
    unsafe fn forward_all(
        &self,
        state: &mut State,
        device: &Device,
        coherence: &Coherence,
        may_go: impl Fn(&State, usize) -> bool,
    ) {
        let mut any = false;
        // SAFETY: the caller's promise.
        while let Some(result) = unsafe { state.forward_one(coherence, &may_go) } {
            any = true;
            if let Err(error) = result {
                log::error!(
                    "a batch that was held back could not be submitted when it might go: {error}. The device counts as \
                     lost from here on"
                );
                self.lose(state, device, coherence);
            }
        }
        if any {
            self.released.notify_all();
        }
    }

    /// Drops what is held, now that the device is lost.
    fn lose(&self, state: &mut State, device: &Device, coherence: &Coherence) {
        self.is_lost.store(true, Ordering::Release);
        // Who waits for a timeline does so in the backing driver, which must let him go to be told.
        for (semaphore, value) in state.batches.drain(..).flat_map(|batch| batch.signals) {
            if coherence.semaphore(semaphore).is_timeline
                && let Some(signal) = device.next.vkSignalSemaphore
            {
                let info = vk::SemaphoreSignalInfo::default().semaphore(semaphore).value(value);
                // SAFETY: a live semaphore, as the batch named it. A value that it has passed nobody waits for.
                let _ = unsafe { signal(device.handle, &raw const info) };
            }
        }
        self.released.notify_all();
    }

    /// Waits until none of the batches of `queue` is held.
    pub(crate) fn wait_for_queue(&self, queue: vk::Queue) {
        let mut state = self.state.hold();
        while state.holds(queue) {
            state = self.released.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for nanoseconds until fences can be waited for: all or one of them is of a batch that was forwarded. Returns
    /// how long there still is to wait.
    ///
    /// # Errors
    /// Time is over, or the device lost: batches may have been dropped.
    pub(crate) fn wait_for_fences(
        &self,
        fences: &[vk::Fence],
        all: bool,
        timeout: u64,
    ) -> Result<u64, vk::Result> {
        let mut state = self.state.hold();
        let blocked = |state: &State| {
            let is_held = |fence: &vk::Fence| state.batches.iter().any(|batch| batch.fences.contains(fence));
            if all { fences.iter().any(is_held) } else { !fences.is_empty() && fences.iter().all(is_held) }
        };
        if !self.is_lost() && !blocked(&state) {
            return Ok(timeout);
        }
        // Centuries are as good as no limit.
        let deadline = Instant::now().checked_add(Duration::from_nanos(timeout));
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            match left {
                _ if self.is_lost() => return Err(vk::Result::ERROR_DEVICE_LOST),
                _ if !blocked(&state) => {
                    return Ok(
                        left.map_or(u64::MAX, |left| u64::try_from(left.as_nanos()).unwrap_or(u64::MAX))
                    );
                }
                Some(Duration::ZERO) => return Err(vk::Result::TIMEOUT),
                Some(left) => {
                    let waited = self.released.wait_timeout(state, left);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                None => state = self.released.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Waits until no batch that signals `semaphore`, or `fence`, is held.
    ///
    /// While any batch waits for an event of the host's, nobody knows but that it is the caller who sets it next: then
    /// whatever is in the way goes at once, ready or not.
    ///
    /// # Errors
    /// The device is lost, and such a batch may have been dropped.
    ///
    /// # Safety
    /// As [`release`](Self::release).
    pub(crate) unsafe fn wait_for_signal(
        &self,
        device: &Device,
        coherence: &Coherence,
        semaphore: vk::Semaphore,
        fence: vk::Fence,
    ) -> Result<(), vk::Result> {
        let mut state = self.state.hold();
        let signals = |batch: &Batch| {
            batch.signals.iter().any(|(signalled, _)| *signalled == semaphore)
                || (fence != vk::Fence::null() && batch.fences.contains(&fence))
        };
        while state.batches.iter().any(signals) {
            if state.awaits_event(device, coherence) {
                log::warn!(
                    "a sync file is exported while batches wait for the host to set an event: who waits for it may be told \
                     before the data is back"
                );
                let is_in_the_way = |state: &State, _: usize| state.batches.iter().any(signals);
                // SAFETY: the caller's promise.
                unsafe { self.forward_all(&mut state, device, coherence, is_in_the_way) };
            } else {
                state = self.released.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        if self.is_lost() { Err(vk::Result::ERROR_DEVICE_LOST) } else { Ok(()) }
    }

    /// Waits until nothing that presents to `swapchain` is held, unless a batch waits for an event that the caller himself
    /// may be about to set.
    pub(crate) fn wait_for_presents(
        &self,
        device: &Device,
        coherence: &Coherence,
        swapchain: vk::SwapchainKHR,
    ) {
        let mut state = self.state.hold();
        while state.batches.iter().any(|batch| batch.swapchains.contains(&swapchain))
            && !state.awaits_event(device, coherence)
        {
            state = self.released.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The host has set an event, or destroys it.
    pub(crate) fn forget_event(&self, event: vk::Event) {
        self.state.hold().awaited.retain(|awaited| *awaited != event);
    }

    /// Forgets a semaphore that is destroyed, or means another one now.
    pub(crate) fn forget_semaphore(&self, semaphore: vk::Semaphore) {
        self.state.hold().bound.remove(&semaphore.as_raw());
    }
}
