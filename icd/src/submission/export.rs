//! Signals that others wait for: processes, devices and other APIs, of which no wait is seen.
//!
//! What batches wrote must be in the host's views before such a signal is given. So the batch goes without its signals,
//! with a fence of Tidemark's own; once that says that it is done, what it wrote is read back; and then the signals go, as
//! a batch of nothing else. Until then all that comes later on the queue is [`held`](super::held): a batch that waits for
//! what others do in answer must not stand before the signal that they wait for.
//!
//! Where nothing is in flight that the device may have written, a batch goes as it is.
//!
//! The waiting is done by a thread, one for each queue that needs it, since queues need not wait for each other. It starts
//! with the first such batch, has all signals blocked, as they are the application's, and ends with the device. Threads
//! that wait for what it is to give do so on the condition variable of the held batches, or in the backing driver.

use super::batch::{Batch, Needs};
use super::info::{Info, Payload};
use crate::coherence::Coherence;
use crate::config::Config;
use crate::device::Device;
use crate::entry::guard;
use crate::progress::Point;
use crate::queue::Queue;
use ash::vk;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use tidemark_winsys::{LockExt, RwLockExt, with_signals_blocked};

/// What reads back for one queue before its exported signals go. The thread is not there before it has work.
#[derive(Default)]
pub(crate) struct Exporter(Mutex<Option<Thread>>);

struct Thread {
    jobs: Sender<Job>,
    handle: JoinHandle<()>,
}

/// A batch whose writes are to be read back.
struct Job {
    /// Signalled when it is done.
    fence: vk::Fence,
    point: Point,
    is_back: Arc<AtomicBool>,
}

/// Whether a batch signals what others may wait for.
pub(super) fn is_exporting(coherence: &Coherence, signals: &[Payload], fence: vk::Fence) -> bool {
    if Config::get().debug.no_export {
        return false;
    }
    signals.iter().any(|(semaphore, _)| coherence.semaphore(*semaphore).is_external)
        || coherence.external_fences.shared().contains(&fence)
}

/// Submits a batch that [`is_exporting`] and was made ready, without its signals and its fence. Returns these as a batch
/// to be held. Where no thread can wait, the batch goes as it is.
///
/// # Errors
/// That of the backing driver: then nothing was submitted.
///
/// # Safety
/// As for vkQueueSubmit, and `info` must be a copy that nobody uses any more.
pub(super) unsafe fn submit<I: Info>(
    queue: &Queue,
    coherence: &Coherence,
    mut info: I,
    fence: vk::Fence,
    point: Point,
) -> Result<Option<Batch>, vk::Result> {
    if let Err(error) = queue.exporter.start(&queue.device) {
        log::error!(
            "no thread to wait for batches that others wait for: {error}. They see its signal too early"
        );
        // SAFETY: the caller's promise.
        return unsafe { super::call(queue, &[info], fence) }.result().map(|()| None);
    }
    // SAFETY: the caller's promise.
    let signals = unsafe { info.signals() };
    // SAFETY: as above.
    unsafe { info.drop_signals() };
    let done = queue.device.new_fence()?;
    let is_back = Arc::new(AtomicBool::new(false));
    // SAFETY: the caller's promise.
    let result = unsafe { super::call(queue, &[info], done) };
    if result != vk::Result::SUCCESS {
        queue.device.destroy_fence(done);
        return Err(result);
    }
    queue.exporter.send(Job { fence: done, point, is_back: is_back.clone() });
    let needs = Needs::readback(is_back);
    Ok(Some(Batch::of_signals(queue.handle, needs, signals, fence, coherence)))
}

impl Exporter {
    /// Starts the thread, unless it is there.
    fn start(&self, device: &Arc<Device>) -> io::Result<()> {
        let mut thread = self.0.hold();
        if thread.is_none() {
            *thread = Some(start(device)?);
        }
        Ok(())
    }

    /// Has the thread do a job. It was started, and ends only when nothing is submitted any more.
    fn send(&self, job: Job) {
        if let Some(thread) = &*self.0.hold() {
            let _ = thread.jobs.send(job);
        }
    }

    /// Ends the thread, if there is one: nothing is pending any more.
    pub(crate) fn end(&self) {
        let thread = self.0.hold().take();
        if let Some(Thread { jobs, handle }) = thread {
            drop(jobs);
            // It catches its panics.
            let _ = handle.join();
        }
    }
}

fn start(device: &Arc<Device>) -> io::Result<Thread> {
    let (jobs, received) = mpsc::channel();
    let device = device.clone();
    let handle = with_signals_blocked(|| {
        thread::Builder::new().name("tidemark-export".into()).spawn(move || serve(&device, &received))
    })?;
    Ok(Thread { jobs, handle })
}

/// The thread: does its jobs, in the order of the queue.
fn serve(device: &Device, jobs: &Receiver<Job>) {
    for job in jobs {
        guard(|| job.read_back(device));
        device.after_signal();
    }
}

impl Job {
    /// Waits for the batch and reads back, so that its signals may go.
    fn read_back(self, device: &Device) {
        // SAFETY: a live device, and a fence that is submitted.
        let result = unsafe {
            (device.core.wait_for_fences)(device.handle, 1, &raw const self.fence, vk::TRUE, u64::MAX)
        };
        let _ = device.after_wait(result, &[self.point]);
        device.destroy_fence(self.fence);
        self.is_back.store(true, Ordering::Release);
    }
}
