//! The structures that a queue takes: what each waits for, signals and uses.

use super::copy::Copies;
use crate::chain;
use crate::coherence::Coherence;
use crate::device::Device;
use crate::progress::{Batches, Point};
use ash::vk::{self, StructureType};
use std::slice;

/// A slice of a caller's array, which may be null if it has no elements.
///
/// # Safety
/// Valid for `count` elements, for as long as the result is used.
pub(crate) unsafe fn array<'a, T>(at: *const T, count: u32) -> &'a [T] {
    if count == 0 || at.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(at, count as usize) }
}

/// A semaphore and a value, which counts if it is a timeline.
pub(crate) type Payload = (vk::Semaphore, u64);

/// What a queue takes at once: one of the structures below, of which its command takes an array.
///
/// The lifetime is a formality: they point to what their caller holds, as their methods' contracts say.
pub(crate) trait Info: Copy + 'static {
    /// The backing driver's command.
    ///
    /// # Safety
    /// As the specification demands of it.
    unsafe fn submit(
        device: &Device,
        queue: vk::Queue,
        count: u32,
        infos: *const Self,
        fence: vk::Fence,
    ) -> vk::Result;

    /// # Safety
    /// A valid structure with its arrays and chain, as for all methods.
    unsafe fn waits(&self) -> Vec<Payload>;

    /// # Safety
    /// As above.
    unsafe fn signals(&self) -> Vec<Payload>;

    /// The fences that it names itself, beside that of its command.
    ///
    /// # Safety
    /// As above.
    unsafe fn fences(&self) -> &[vk::Fence] {
        &[]
    }

    /// Where it presents to.
    ///
    /// # Safety
    /// As above.
    unsafe fn swapchains(&self) -> &[vk::SwapchainKHR] {
        &[]
    }

    /// # Safety
    /// As above, with live command buffers.
    unsafe fn command_buffers(&self) -> Vec<vk::CommandBuffer> {
        Vec::new()
    }

    /// Numbers the batch, flushes what it may use and notes what will tell that it is done.
    ///
    /// # Safety
    /// As above, with live command buffers.
    unsafe fn make_ready(&self, coherence: &Coherence, batches: &Batches) -> Point;

    /// Lets every pointer lead to a copy, which `copies` keeps.
    ///
    /// # Errors
    /// A structure in its chain that nobody knows.
    ///
    /// # Safety
    /// As above.
    unsafe fn copy_to(&mut self, copies: &mut Copies) -> Result<(), StructureType>;

    /// Leaves out what it signals, of a copy.
    ///
    /// # Safety
    /// As above, and every pointer leads to a copy that nobody else refers to.
    unsafe fn drop_signals(&mut self);

    /// What the caller is told of the outcome beside the result, now that it will be known only later.
    ///
    /// # Safety
    /// As above.
    unsafe fn promise(&self) {}
}

/// Semaphores with the values that a chain has for those that are timelines.
///
/// # Safety
/// A valid array and chain.
unsafe fn payloads(
    at: *const vk::Semaphore,
    count: u32,
    values: impl FnOnce() -> Option<(*const u64, u32)>,
) -> Vec<Payload> {
    // SAFETY: the caller's promise.
    let (semaphores, values) = unsafe {
        let (at_values, value_count) = values().unwrap_or((std::ptr::null(), 0));
        (array(at, count), array(at_values, value_count))
    };
    let values = values.iter().copied().chain(std::iter::repeat(0));
    semaphores.iter().copied().zip(values).collect()
}

/// [`Info::submit`] by a command of the backing driver's that takes an array and a fence.
macro_rules! goes_by {
    ($command:ident) => {
        unsafe fn submit(
            device: &Device,
            queue: vk::Queue,
            count: u32,
            infos: *const Self,
            fence: vk::Fence,
        ) -> vk::Result {
            let Some(command) = device.next.$command else { return vk::Result::ERROR_DEVICE_LOST };
            // SAFETY: the caller's promise.
            unsafe { command(queue, count, infos, fence) }
        }
    };
}

/// What the methods on semaphores are for structures that have their timelines' values in the chain.
macro_rules! payloads_by_chain {
    () => {
        unsafe fn waits(&self) -> Vec<Payload> {
            // SAFETY: the caller's promise.
            unsafe {
                payloads(self.p_wait_semaphores, self.wait_semaphore_count, || {
                    let info = chain::find_input::<vk::TimelineSemaphoreSubmitInfo<'_>>(self.p_next)?;
                    Some((info.p_wait_semaphore_values, info.wait_semaphore_value_count))
                })
            }
        }

        unsafe fn signals(&self) -> Vec<Payload> {
            // SAFETY: the caller's promise.
            unsafe {
                payloads(self.p_signal_semaphores, self.signal_semaphore_count, || {
                    let info = chain::find_input::<vk::TimelineSemaphoreSubmitInfo<'_>>(self.p_next)?;
                    Some((info.p_signal_semaphore_values, info.signal_semaphore_value_count))
                })
            }
        }

        unsafe fn drop_signals(&mut self) {
            self.signal_semaphore_count = 0;
            // SAFETY: the caller's promise.
            unsafe { drop_chained_signals(self.p_next) }
        }
    };
}

/// Leaves out what a chain says of signals.
///
/// # Safety
/// A copy of a valid chain, to which nobody else refers.
unsafe fn drop_chained_signals(chain: *const std::ffi::c_void) {
    // SAFETY: the caller's promise.
    unsafe {
        if let Some(timeline) = chain::find::<vk::TimelineSemaphoreSubmitInfo<'_>>(chain.cast_mut()) {
            timeline.signal_semaphore_value_count = 0;
        }
        if let Some(group) = chain::find::<vk::DeviceGroupSubmitInfo<'_>>(chain.cast_mut()) {
            group.signal_semaphore_count = 0;
        }
    }
}

/// `point` will be followed by the signals of a submission whose chain may have values for timelines.
///
/// # Safety
/// A valid array and chain.
unsafe fn note_timelines(
    coherence: &Coherence,
    point: Point,
    (semaphores, count): (*const vk::Semaphore, u32),
    chain: *const std::ffi::c_void,
) {
    // SAFETY: the caller's promise; the structure comes with its array.
    unsafe {
        let Some(timeline) = chain::find_input::<vk::TimelineSemaphoreSubmitInfo<'_>>(chain) else { return };
        let values = array(timeline.p_signal_semaphore_values, timeline.signal_semaphore_value_count);
        for (&semaphore, &value) in array(semaphores, count).iter().zip(values) {
            coherence.progress.timeline_follows(semaphore, value, point);
        }
    }
}

impl Info for vk::SubmitInfo<'static> {
    goes_by!(vkQueueSubmit);

    payloads_by_chain!();

    unsafe fn command_buffers(&self) -> Vec<vk::CommandBuffer> {
        // SAFETY: the caller's promise.
        unsafe { array(self.p_command_buffers, self.command_buffer_count) }.to_vec()
    }

    unsafe fn make_ready(&self, coherence: &Coherence, batches: &Batches) -> Point {
        // SAFETY: the caller's promise.
        unsafe {
            let commands = array(self.p_command_buffers, self.command_buffer_count);
            let point = coherence.before_batch(batches, commands.iter().copied());
            let signals = (self.p_signal_semaphores, self.signal_semaphore_count);
            note_timelines(coherence, point, signals, self.p_next);
            point
        }
    }

    unsafe fn copy_to(&mut self, copies: &mut Copies) -> Result<(), StructureType> {
        // SAFETY: the caller's promise.
        unsafe {
            copies.array(&mut self.p_wait_semaphores, self.wait_semaphore_count);
            copies.array(&mut self.p_wait_dst_stage_mask, self.wait_semaphore_count);
            copies.array(&mut self.p_command_buffers, self.command_buffer_count);
            copies.array(&mut self.p_signal_semaphores, self.signal_semaphore_count);
            copies.chain(&mut self.p_next)
        }
    }
}

impl Info for vk::SubmitInfo2<'static> {
    goes_by!(vkQueueSubmit2);

    unsafe fn waits(&self) -> Vec<Payload> {
        // SAFETY: the caller's promise.
        let infos = unsafe { array(self.p_wait_semaphore_infos, self.wait_semaphore_info_count) };
        infos.iter().map(|info| (info.semaphore, info.value)).collect()
    }

    unsafe fn signals(&self) -> Vec<Payload> {
        // SAFETY: the caller's promise.
        let infos = unsafe { array(self.p_signal_semaphore_infos, self.signal_semaphore_info_count) };
        infos.iter().map(|info| (info.semaphore, info.value)).collect()
    }

    unsafe fn command_buffers(&self) -> Vec<vk::CommandBuffer> {
        // SAFETY: the caller's promise.
        let infos = unsafe { array(self.p_command_buffer_infos, self.command_buffer_info_count) };
        infos.iter().map(|info| info.command_buffer).collect()
    }

    unsafe fn make_ready(&self, coherence: &Coherence, batches: &Batches) -> Point {
        // SAFETY: the caller's promise.
        unsafe {
            let commands = array(self.p_command_buffer_infos, self.command_buffer_info_count);
            let point = coherence.before_batch(batches, commands.iter().map(|info| info.command_buffer));
            for signal in array(self.p_signal_semaphore_infos, self.signal_semaphore_info_count) {
                coherence.progress.timeline_follows(signal.semaphore, signal.value, point);
            }
            point
        }
    }

    unsafe fn drop_signals(&mut self) {
        self.signal_semaphore_info_count = 0;
    }

    unsafe fn copy_to(&mut self, copies: &mut Copies) -> Result<(), StructureType> {
        // SAFETY: the caller's promise.
        unsafe {
            let waits = copies.array(&mut self.p_wait_semaphore_infos, self.wait_semaphore_info_count);
            for info in waits {
                copies.chain(&mut info.p_next)?;
            }
            let commands = copies.array(&mut self.p_command_buffer_infos, self.command_buffer_info_count);
            for info in commands {
                copies.chain(&mut info.p_next)?;
            }
            let signals = copies.array(&mut self.p_signal_semaphore_infos, self.signal_semaphore_info_count);
            for info in signals {
                copies.chain(&mut info.p_next)?;
            }
            copies.chain(&mut self.p_next)
        }
    }
}

/// Memory that is bound can be reached by resources that nobody follows.
impl Info for vk::BindSparseInfo<'static> {
    goes_by!(vkQueueBindSparse);

    payloads_by_chain!();

    unsafe fn make_ready(&self, coherence: &Coherence, batches: &Batches) -> Point {
        // SAFETY: the caller's promise.
        unsafe {
            let buffers = array(self.p_buffer_binds, self.buffer_bind_count);
            let opaque = array(self.p_image_opaque_binds, self.image_opaque_bind_count);
            let images = array(self.p_image_binds, self.image_bind_count);
            let memories = buffers
                .iter()
                .flat_map(|info| array(info.p_binds, info.bind_count))
                .chain(opaque.iter().flat_map(|info| array(info.p_binds, info.bind_count)))
                .map(|bind| bind.memory)
                .chain(
                    images
                        .iter()
                        .flat_map(|info| array(info.p_binds, info.bind_count))
                        .map(|bind| bind.memory),
                );
            for memory in memories.filter_map(|memory| coherence.memory(memory)) {
                coherence.make_reachable(&memory);
            }
            let point = coherence.before_batch(batches, std::iter::empty());
            let signals = (self.p_signal_semaphores, self.signal_semaphore_count);
            note_timelines(coherence, point, signals, self.p_next);
            point
        }
    }

    unsafe fn copy_to(&mut self, copies: &mut Copies) -> Result<(), StructureType> {
        // SAFETY: the caller's promise.
        unsafe {
            copies.array(&mut self.p_wait_semaphores, self.wait_semaphore_count);
            copies.array(&mut self.p_signal_semaphores, self.signal_semaphore_count);
            for info in copies.array(&mut self.p_buffer_binds, self.buffer_bind_count) {
                copies.array(&mut info.p_binds, info.bind_count);
            }
            for info in copies.array(&mut self.p_image_opaque_binds, self.image_opaque_bind_count) {
                copies.array(&mut info.p_binds, info.bind_count);
            }
            for info in copies.array(&mut self.p_image_binds, self.image_bind_count) {
                copies.array(&mut info.p_binds, info.bind_count);
            }
            copies.chain(&mut self.p_next)
        }
    }
}

/// Reads images, whose memory is reachable if it is emulated at all.
impl Info for vk::PresentInfoKHR<'static> {
    unsafe fn submit(
        device: &Device,
        queue: vk::Queue,
        _: u32,
        infos: *const Self,
        _: vk::Fence,
    ) -> vk::Result {
        let Some(present) = device.next.vkQueuePresentKHR else { return vk::Result::ERROR_DEVICE_LOST };
        // SAFETY: the caller's promise.
        unsafe { present(queue, infos) }
    }

    unsafe fn waits(&self) -> Vec<Payload> {
        // SAFETY: the caller's promise. None may be a timeline.
        unsafe { payloads(self.p_wait_semaphores, self.wait_semaphore_count, || None) }
    }

    unsafe fn signals(&self) -> Vec<Payload> {
        Vec::new()
    }

    unsafe fn fences(&self) -> &[vk::Fence] {
        // SAFETY: the caller's promise.
        unsafe {
            chain::find_input::<vk::SwapchainPresentFenceInfoEXT<'_>>(self.p_next)
                .map_or(&[], |info| array(info.p_fences, info.swapchain_count))
        }
    }

    unsafe fn swapchains(&self) -> &[vk::SwapchainKHR] {
        // SAFETY: the caller's promise.
        unsafe { array(self.p_swapchains, self.swapchain_count) }
    }

    unsafe fn make_ready(&self, coherence: &Coherence, batches: &Batches) -> Point {
        // SAFETY: no command buffers.
        unsafe { coherence.before_batch(batches, std::iter::empty()) }
    }

    unsafe fn drop_signals(&mut self) {}

    unsafe fn copy_to(&mut self, copies: &mut Copies) -> Result<(), StructureType> {
        // SAFETY: the caller's promise.
        unsafe {
            copies.array(&mut self.p_wait_semaphores, self.wait_semaphore_count);
            copies.array(&mut self.p_swapchains, self.swapchain_count);
            copies.array(&mut self.p_image_indices, self.swapchain_count);
            // The results are the caller's, and told.
            self.p_results = std::ptr::null_mut();
            copies.chain(&mut self.p_next)
        }
    }

    unsafe fn promise(&self) {
        if !self.p_results.is_null() {
            // SAFETY: the caller's promise: room for one result a swapchain.
            unsafe { slice::from_raw_parts_mut(self.p_results, self.swapchain_count as usize) }
                .fill(vk::Result::SUCCESS);
        }
    }
}
