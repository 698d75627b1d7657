//! Batches as they are held: deep copies, with what they need before they go, and what they give.

use super::copy::Copies;
use super::export;
use super::info::{Info, Payload};
use crate::coherence::Coherence;
use crate::queue::Queue;
use crate::tables::COMMAND_BUFFERS;
use ash::vk;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tidemark_winsys::LockExt;

/// A batch that is held.
pub(super) struct Batch {
    pub(super) queue: vk::Queue,
    pub(super) needs: Needs,
    pub(super) signals: Vec<Payload>,
    /// All that signal once it is done.
    pub(super) fences: Vec<vk::Fence>,
    /// Where it presents to.
    pub(super) swapchains: Vec<vk::SwapchainKHR>,
    kept: Box<dyn Kept>,
}

/// What must have happened before a batch goes.
#[derive(Default)]
pub(super) struct Needs {
    pub(super) semaphores: Vec<Payload>,
    /// Set by the host.
    pub(super) events: Vec<vk::Event>,
    /// Whether what another batch wrote was read back.
    pub(super) readback: Option<Arc<AtomicBool>>,
}

/// A deep copy of a batch.
struct Copied<I> {
    info: I,
    fence: vk::Fence,
    _copies: Copies,
}

trait Kept {
    /// # Safety
    /// As [`Batch::forward`].
    unsafe fn forward(&self, queue: &Queue, coherence: &Coherence) -> Forwarded;
}

/// The result, and what is to be held in the place of the batch: its signals.
pub(super) type Forwarded = (vk::Result, Option<Batch>);

impl<I: Info> Kept for Copied<I> {
    unsafe fn forward(&self, queue: &Queue, coherence: &Coherence) -> Forwarded {
        // SAFETY: the caller's promise; every pointer leads to a copy.
        unsafe { forward_copy(queue, coherence, &self.info, self.fence) }
    }
}

/// The signals of a batch that was forwarded without them, and its fence.
struct Signals {
    payloads: Vec<Payload>,
    has_timeline: bool,
    fence: vk::Fence,
}

impl Kept for Signals {
    unsafe fn forward(&self, queue: &Queue, _: &Coherence) -> Forwarded {
        let (semaphores, values): (Vec<vk::Semaphore>, Vec<u64>) = self.payloads.iter().copied().unzip();
        let mut timelines = vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(&values);
        let mut info = vk::SubmitInfo::default().signal_semaphores(&semaphores);
        if self.has_timeline {
            info = info.push_next(&mut timelines);
        }
        // SAFETY: the lifetime is for the type alone: the call is over before the arrays are.
        let info = unsafe { std::mem::transmute::<vk::SubmitInfo<'_>, vk::SubmitInfo<'static>>(info) };
        // SAFETY: what is signalled is live while the batch is pending. Nothing is used that had to be made ready.
        (unsafe { super::call(queue, &[info], self.fence) }, None)
    }
}

impl Batch {
    /// # Safety
    /// The objects that it names must be live, as they have to be while a batch is pending.
    pub(super) unsafe fn forward(&self, queue: &Queue, coherence: &Coherence) -> Forwarded {
        // SAFETY: the caller's promise.
        unsafe { self.kept.forward(queue, coherence) }
    }

    /// Signals and a fence alone, for [`export`].
    pub(super) fn of_signals(
        queue: vk::Queue,
        needs: Needs,
        signals: Vec<Payload>,
        fence: vk::Fence,
        coherence: &Coherence,
    ) -> Self {
        let has_timeline = signals.iter().any(|(semaphore, _)| coherence.semaphore(*semaphore).is_timeline);
        let kept = Box::new(Signals { payloads: signals.clone(), has_timeline, fence });
        Self { queue, needs, signals, fences: Vec::from([fence]), swapchains: Vec::new(), kept }
    }
}

/// Forwards a batch, of which this is the only copy, and the last use.
///
/// # Safety
/// As the command that takes it demands.
unsafe fn forward_copy<I: Info>(
    queue: &Queue,
    coherence: &Coherence,
    info: &I,
    fence: vk::Fence,
) -> Forwarded {
    // SAFETY: the caller's promise.
    unsafe {
        // What nobody notes may be in memory that is mapped before the batch is done.
        let is_noted = coherence.progress.has_mirrors();
        let point = super::make_ready(queue, coherence, &[*info], fence);
        if export::is_exporting(coherence, &info.signals(), fence)
            && (!is_noted || coherence.is_written_in_flight())
        {
            return match export::submit(queue, coherence, *info, fence, point) {
                Ok(signals) => (vk::Result::SUCCESS, signals),
                Err(error) => (error, None),
            };
        }
        (super::call(queue, &[*info], fence), None)
    }
}

// SAFETY: the pointers of the copies lead to other copies, which go along with them and which nobody else knows.
unsafe impl Send for Batch {}

impl Needs {
    /// # Safety
    /// A valid structure, with live command buffers.
    pub(super) unsafe fn of<I: Info>(info: &I) -> Self {
        let mut events = Vec::new();
        // SAFETY: the caller's promise.
        let (semaphores, command_buffers) = unsafe { (info.waits(), info.command_buffers()) };
        for handle in command_buffers {
            // SAFETY: as above.
            if let Some(commands) = unsafe { COMMAND_BUFFERS.find(handle) } {
                commands.references.hold().host_events(&mut events);
            }
        }
        Self { semaphores, events, readback: None }
    }

    /// What another batch wrote, which is there once `is_back`.
    pub(super) fn readback(is_back: Arc<AtomicBool>) -> Self {
        Self { readback: Some(is_back), ..Self::default() }
    }
}

/// Batches to be held, one for each structure, or an empty one for a fence alone.
///
/// # Safety
/// Valid structures with their arrays and chains, and live command buffers.
pub(super) unsafe fn keep<I: Info>(
    queue: &Queue,
    infos: &[I],
    fence: vk::Fence,
) -> Result<Vec<Batch>, vk::StructureType> {
    let Some((last, others)) = infos.split_last() else {
        // SAFETY: a valid structure, with nothing in it.
        return unsafe { Ok(vec![keep_one(queue, &vk::SubmitInfo::default(), fence)?]) };
    };
    let one = |info: &I, fence| {
        // SAFETY: the caller's promise.
        unsafe { keep_one(queue, info, fence) }
    };
    others.iter().map(|info| one(info, vk::Fence::null())).chain([one(last, fence)]).collect()
}

/// # Safety
/// As [`keep`].
unsafe fn keep_one<I: Info>(queue: &Queue, info: &I, fence: vk::Fence) -> Result<Batch, vk::StructureType> {
    let (mut info, mut copies) = (*info, Copies::default());
    // SAFETY: the caller's promise.
    unsafe {
        info.copy_to(&mut copies)?;
        Ok(Batch {
            queue: queue.handle,
            needs: Needs::of(&info),
            signals: info.signals(),
            fences: info.fences().iter().copied().chain([fence]).collect(),
            swapchains: info.swapchains().to_vec(),
            kept: Box::new(Copied { info, fence, _copies: copies }),
        })
    }
}
