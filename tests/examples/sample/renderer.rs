//! The frames, one after the other: the host prepares the next while the device is at work on the last.

use std::rc::Rc;

use ash::vk;

use crate::draw::Draw;
use crate::error::{Context, Result};
use crate::exchange::Exchange;
use crate::gpu::Gpu;
use crate::options::Size;
use crate::owned::Owned;
use crate::picture;
use crate::swapchain::{Acquired, Swapchain};
use crate::target::Target;

/// How many frames are under way at once. Each has buffers of its own.
pub(crate) const FRAMES_IN_FLIGHT: u32 = 2;

/// Which of those buffers a frame has.
pub(crate) fn slot(frame: u32) -> usize {
    (frame % FRAMES_IN_FLIGHT) as usize
}

pub(crate) struct Renderer {
    slots: Vec<Slot>,
    /// The number of the next frame.
    next: u32,
    bytes_checked: u64,
    draw: Draw,
    exchange: Exchange,
    target: Target,
    gpu: Rc<Gpu>,
}

/// One frame under way.
struct Slot {
    commands: vk::CommandBuffer,
    /// What the command buffer is allocated from, and freed with.
    pool: Owned<vk::CommandPool>,
    /// Signalled when the device is done.
    fence: Owned<vk::Fence>,
    /// The frame that has been submitted and not been waited for yet.
    submitted: Option<u32>,
}

impl Renderer {
    pub(crate) fn new(gpu: &Rc<Gpu>, size: Size) -> Result<Self> {
        let target = Target::new(gpu, size)?;
        let draw = Draw::new(gpu, &target)?;
        let exchange = Exchange::new(gpu)?;
        let slots = (0..FRAMES_IN_FLIGHT).map(|_| Slot::new(gpu)).collect::<Result<_>>()?;
        Ok(Self { slots, next: 0, bytes_checked: 0, draw, exchange, target, gpu: Rc::clone(gpu) })
    }

    /// How many frames there have been.
    pub(crate) fn frames(&self) -> u32 {
        self.next
    }

    /// Starts one frame, and presents it where there is a swapchain.
    pub(crate) fn frame(&mut self, swapchain: Option<&mut Swapchain>) -> Result<()> {
        let frame = self.next;
        self.wait(slot(frame))?;
        self.draw.write(frame, &self.target);
        self.exchange.write_early(frame);
        match swapchain {
            None => self.submit(frame, None)?,
            Some(swapchain) => {
                let acquired = swapchain.acquire(slot(frame))?;
                self.submit(frame, Some(&acquired))?;
                swapchain.present(&acquired)?;
            }
        }
        self.next += 1;
        Ok(())
    }

    /// Waits for all frames under way, and checks them.
    pub(crate) fn finish(&mut self) -> Result<()> {
        // The oldest first: the one whose slot the next frame would take.
        (0..FRAMES_IN_FLIGHT).try_for_each(|ahead| self.wait(slot(self.next.wrapping_add(ahead))))
    }

    /// The pixels of the last frame. To be called after `finish`.
    pub(crate) fn read_picture(&mut self) -> Result<Vec<u8>> {
        let buffer = picture::buffer(&self.gpu, self.target.size)?;
        let slot = &self.slots[0];
        self.begin(slot)?;
        picture::record_copy(&self.gpu, slot.commands, &self.target, &buffer);
        self.end_and_submit(slot, None)?;
        self.wait_for_fence(slot)?;
        Ok(buffer.read())
    }

    /// The one line about the run.
    pub(crate) fn summary(&self) -> String {
        format!("{}: {} frames, {} bytes checked, ok", self.gpu.physical.name, self.next, self.bytes_checked)
    }

    /// Waits for the frame of this slot, if there is one, and checks what it made.
    fn wait(&mut self, slot: usize) -> Result<()> {
        if let Some(frame) = self.slots[slot].submitted.take() {
            self.wait_for_fence(&self.slots[slot])?;
            self.bytes_checked += self.exchange.check(frame)?;
        }
        Ok(())
    }

    fn wait_for_fence(&self, slot: &Slot) -> Result<()> {
        // SAFETY: the fence is a live one of this device.
        unsafe { self.gpu.device().wait_for_fences(&[slot.fence.get()], true, u64::MAX) }
            .context("vkWaitForFences")
    }

    /// Records and submits the frame; the host's late stores follow at once.
    fn submit(&mut self, frame: u32, acquired: Option<&Acquired>) -> Result<()> {
        let index = slot(frame);
        let slot = &self.slots[index];
        self.begin(slot)?;
        self.exchange.record(slot.commands, frame);
        self.draw.record(slot.commands, frame, &self.target);
        if let Some(acquired) = acquired {
            acquired.record_blit(&self.gpu, slot.commands, &self.target);
        }
        self.end_and_submit(slot, acquired)?;
        self.exchange.write_late(frame);
        self.slots[index].submitted = Some(frame);
        Ok(())
    }

    fn begin(&self, slot: &Slot) -> Result<()> {
        let begin = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        let device = self.gpu.device();
        // SAFETY: the slot's last submission has been waited for, so the device is done with this command
        // buffer, the only one of its pool.
        unsafe {
            device
                .reset_command_pool(slot.pool.get(), vk::CommandPoolResetFlags::empty())
                .context("vkResetCommandPool")?;
            device.begin_command_buffer(slot.commands, &begin).context("vkBeginCommandBuffer")
        }
    }

    fn end_and_submit(&self, slot: &Slot, acquired: Option<&Acquired>) -> Result<()> {
        let device = self.gpu.device();
        let commands = [slot.commands];
        let mut info = vk::SubmitInfo::default().command_buffers(&commands);
        let semaphores;
        if let Some(acquired) = acquired {
            semaphores = ([acquired.ready], [acquired.finished]);
            info = info
                .wait_semaphores(&semaphores.0)
                .wait_dst_stage_mask(&[vk::PipelineStageFlags::TRANSFER])
                .signal_semaphores(&semaphores.1);
        }
        // SAFETY: the command buffer is being recorded and complete; the fence has been waited for or is
        // fresh, so it is in no use; the semaphores are the ones of the image just acquired.
        unsafe {
            device.end_command_buffer(slot.commands).context("vkEndCommandBuffer")?;
            device.reset_fences(&[slot.fence.get()]).context("vkResetFences")?;
            device.queue_submit(self.gpu.queue, &[info], slot.fence.get()).context("vkQueueSubmit")
        }
    }
}

impl Slot {
    fn new(gpu: &Rc<Gpu>) -> Result<Self> {
        let info = vk::CommandPoolCreateInfo::default()
            .queue_family_index(gpu.physical.queue_family)
            .flags(vk::CommandPoolCreateFlags::TRANSIENT);
        // SAFETY: the device has a queue of this family. `Owned` destroys the pool, which the renderer drops
        // when the device is done with the command buffer.
        let pool = unsafe {
            let pool = gpu.device().create_command_pool(&info, None).context("vkCreateCommandPool")?;
            Owned::new(gpu, pool, ash::Device::destroy_command_pool)
        };
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(pool.get())
            .level(vk::CommandBufferLevel::PRIMARY)
            .command_buffer_count(1);
        // SAFETY: the pool is a live one of this device; the command buffer is freed with it.
        let commands =
            unsafe { gpu.device().allocate_command_buffers(&info) }.context("vkAllocateCommandBuffers")?[0];
        // SAFETY: the device is live. `Owned` destroys the fence, which the renderer drops when no
        // submission will signal it any more.
        let fence = unsafe {
            let fence = gpu.device().create_fence(&vk::FenceCreateInfo::default(), None);
            Owned::new(gpu, fence.context("vkCreateFence")?, ash::Device::destroy_fence)
        };
        Ok(Self { commands, pool, fence, submitted: None })
    }
}

impl Drop for Renderer {
    fn drop(&mut self) {
        // After an error there may be frames under way. All that the renderer owns is dropped after this.
        // SAFETY: the device is live, and no other thread uses it or its queue.
        let _ = unsafe { self.gpu.device().device_wait_idle() };
    }
}
