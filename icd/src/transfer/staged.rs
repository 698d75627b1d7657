//! Access to device memory by copies of the device's, from and to staging memory.

use super::queue::TransferQueue;
use ash::vk;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tidemark_winsys::CopiedMemory;

/// A whole allocation, and a buffer that stands for it.
pub(crate) struct Staged {
    queue: Arc<TransferQueue>,
    buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    len: usize,
    /// The last sending that uses the buffer.
    last: AtomicU64,
    is_over: AtomicBool,
}

impl Staged {
    /// For the first `len` bytes of `memory`, of which there are `room`. `memory_type` is the backing driver's.
    pub(crate) fn new(
        queue: &Arc<TransferQueue>,
        memory: vk::DeviceMemory,
        len: usize,
        room: u64,
        memory_type: u32,
    ) -> Result<Self, vk::Result> {
        let buffer = queue.buffer_of(memory, len as u64, room, memory_type)?;
        let (last, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        Ok(Self { queue: queue.clone(), buffer, memory, len, last, is_over })
    }

    fn note(&self, what: &str, sent: Result<u64, vk::Result>) {
        match sent {
            Ok(serial) => self.last.store(serial, Ordering::Relaxed),
            Err(error) => self.log(what, error),
        }
    }

    /// That the device is lost was told before.
    fn log(&self, what: &str, error: vk::Result) {
        if error != vk::Result::ERROR_DEVICE_LOST {
            log::error!("{:?}: {what} failed: {error}", self.memory);
        }
    }
}

impl CopiedMemory for Staged {
    fn len(&self) -> usize {
        self.len
    }

    unsafe fn store(&self, ranges: &[Range<usize>], source: *const u8) {
        // SAFETY: the caller's promise.
        self.note("a staged copy to the device", unsafe { self.queue.store(self.buffer, ranges, source) });
    }

    fn clear(&self, range: Range<usize>) {
        /// What vkCmdFillBuffer writes at a time.
        const WORD: usize = 4;
        // Pages begin at multiples of it; the last may end elsewhere.
        let words = range.start..range.end / WORD * WORD;
        let rest = words.end.max(range.start)..range.end;
        if !words.is_empty() {
            self.note("clearing device memory", self.queue.fill(self.buffer, words));
        }
        if !rest.is_empty() {
            let zeros = [0u8; WORD];
            let source = zeros.as_ptr().wrapping_sub(rest.start);
            // SAFETY: at the rest, of fewer bytes than a word, `source` is the zeros.
            unsafe { self.store(&[rest], source) };
        }
    }

    fn load(&self, ranges: &[Range<usize>], take: &mut dyn FnMut(usize, &[u8])) {
        if let Err(error) = self.queue.load(self.buffer, ranges, take) {
            self.log("a staged copy to the host", error);
        }
    }

    fn retire(&self) {
        if !self.is_over.swap(true, Ordering::Relaxed) {
            self.queue.destroy_buffer(self.buffer, self.last.load(Ordering::Relaxed));
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.retire();
    }
}
