//! The images of the window, and their way to the screen.

use std::rc::Rc;

use ash::{khr, vk};

use crate::error::{Context, Error, Result};
use crate::gpu::Gpu;
use crate::owned::Owned;
use crate::renderer::FRAMES_IN_FLIGHT;
use crate::target::{LAYERS, Target};
use crate::window::Surface;

pub(crate) struct Swapchain {
    /// None only between two of them.
    chain: Option<Chain>,
    /// The window has changed: `chain` no longer fits it.
    outdated: bool,
    /// Signalled when an acquired image is free to be written, one for each frame under way.
    ready: Vec<Owned<vk::Semaphore>>,
    functions: khr::swapchain::Device,
    surface: Surface,
    gpu: Rc<Gpu>,
}

/// A swapchain and what goes with each of its images.
struct Chain {
    handle: vk::SwapchainKHR,
    extent: vk::Extent2D,
    images: Vec<vk::Image>,
    /// Signalled when the device is done writing the image.
    finished: Vec<Owned<vk::Semaphore>>,
    functions: khr::swapchain::Device,
}

/// An image that is ours to write until it is presented.
pub(crate) struct Acquired {
    index: u32,
    image: vk::Image,
    extent: vk::Extent2D,
    pub(crate) ready: vk::Semaphore,
    pub(crate) finished: vk::Semaphore,
}

impl Swapchain {
    pub(crate) fn new(gpu: &Rc<Gpu>, surface: Surface) -> Result<Self> {
        let functions = khr::swapchain::Device::new(&gpu.instance().raw, gpu.device());
        let ready = (0..FRAMES_IN_FLIGHT).map(|_| semaphore(gpu)).collect::<Result<_>>()?;
        let chain = None;
        Ok(Self { chain, outdated: true, ready, functions, surface, gpu: Rc::clone(gpu) })
    }

    /// To be called when the window has got another size.
    pub(crate) fn resized(&mut self) {
        self.outdated = true;
    }

    pub(crate) fn surface(&self) -> &Surface {
        &self.surface
    }

    /// Waits for an image. `slot` is that of the frame.
    pub(crate) fn acquire(&mut self, slot: usize) -> Result<Acquired> {
        let ready = self.ready[slot].get();
        loop {
            if self.outdated {
                self.recreate()?;
            }
            let chain = self.chain.as_ref().ok_or_else(|| Error::new("no swapchain"))?;
            // SAFETY: the swapchain lives; the semaphore is unsignalled and nothing waits for it, as the
            // frame that used it last has been waited for.
            match unsafe {
                self.functions.acquire_next_image(chain.handle, u64::MAX, ready, vk::Fence::null())
            } {
                Ok((index, suboptimal)) => {
                    self.outdated = suboptimal;
                    return Ok(Acquired {
                        index,
                        image: chain.images[index as usize],
                        extent: chain.extent,
                        ready,
                        finished: chain.finished[index as usize].get(),
                    });
                }
                Err(vk::Result::ERROR_OUT_OF_DATE_KHR) => self.outdated = true,
                Err(error) => return Err(error).context("vkAcquireNextImageKHR"),
            }
        }
    }

    /// Presents the image, when the device is done with it.
    pub(crate) fn present(&mut self, acquired: &Acquired) -> Result<()> {
        let chain = self.chain.as_ref().ok_or_else(|| Error::new("no swapchain"))?;
        let (finished, chains, indices) = ([acquired.finished], [chain.handle], [acquired.index]);
        let info = vk::PresentInfoKHR::default()
            .wait_semaphores(&finished)
            .swapchains(&chains)
            .image_indices(&indices);
        // SAFETY: the image has been acquired from this swapchain, and the semaphore's signal submitted.
        match unsafe { self.functions.queue_present(self.gpu.queue, &info) } {
            Ok(suboptimal) => self.outdated |= suboptimal,
            Err(vk::Result::ERROR_OUT_OF_DATE_KHR) => self.outdated = true,
            Err(error) => return Err(error).context("vkQueuePresentKHR"),
        }
        Ok(())
    }

    /// Makes a swapchain that fits the window as it is now.
    fn recreate(&mut self) -> Result<()> {
        // SAFETY: the device is live, and no other thread uses it or its queue.
        unsafe { self.gpu.device().device_wait_idle() }.context("vkDeviceWaitIdle")?;
        let old = self.chain.take();
        let handle = old.as_ref().map_or(vk::SwapchainKHR::null(), |chain| chain.handle);
        self.chain = Some(Chain::new(&self.gpu, &self.surface, &self.functions, handle)?);
        self.outdated = false;
        Ok(())
    }
}

impl Drop for Swapchain {
    fn drop(&mut self) {
        // SAFETY: the device is live, and no other thread uses it or its queue. All that the swapchain owns
        // is dropped after this.
        let _ = unsafe { self.gpu.device().device_wait_idle() };
    }
}

impl Chain {
    fn new(
        gpu: &Rc<Gpu>,
        surface: &Surface,
        functions: &khr::swapchain::Device,
        old: vk::SwapchainKHR,
    ) -> Result<Self> {
        let capabilities = surface.capabilities(gpu.physical.handle)?;
        if !capabilities.supported_usage_flags.contains(vk::ImageUsageFlags::TRANSFER_DST) {
            return Err(Error::new("the images of the window cannot be copied to"));
        }
        // 0 stands for no upper limit.
        let most = if capabilities.max_image_count == 0 { u32::MAX } else { capabilities.max_image_count };
        let format = surface.format(gpu.physical.handle)?;
        let extent = surface.extent(&capabilities);
        let alpha = [vk::CompositeAlphaFlagsKHR::OPAQUE, vk::CompositeAlphaFlagsKHR::INHERIT]
            .into_iter()
            .find(|&alpha| capabilities.supported_composite_alpha.contains(alpha))
            .unwrap_or(vk::CompositeAlphaFlagsKHR::PRE_MULTIPLIED);
        let info = vk::SwapchainCreateInfoKHR::default()
            .surface(surface.handle())
            .min_image_count((capabilities.min_image_count + 1).min(most))
            .image_format(format.format)
            .image_color_space(format.color_space)
            .image_extent(extent)
            .image_array_layers(1)
            .image_usage(vk::ImageUsageFlags::TRANSFER_DST)
            .image_sharing_mode(vk::SharingMode::EXCLUSIVE)
            .pre_transform(capabilities.current_transform)
            .composite_alpha(alpha)
            .present_mode(vk::PresentModeKHR::FIFO)
            .clipped(true)
            .old_swapchain(old);
        // SAFETY: the surface lives, supports all of this, and `old` is its last swapchain or null. `Drop`
        // destroys the new one.
        let handle = unsafe { functions.create_swapchain(&info, None) }.context("vkCreateSwapchainKHR")?;
        let mut chain =
            Self { handle, extent, images: Vec::new(), finished: Vec::new(), functions: functions.clone() };
        // SAFETY: the swapchain lives. Its images live as long.
        chain.images =
            unsafe { functions.get_swapchain_images(handle) }.context("vkGetSwapchainImagesKHR")?;
        chain.finished = chain.images.iter().map(|_| semaphore(gpu)).collect::<Result<_>>()?;
        Ok(chain)
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // SAFETY: `Swapchain` has waited for the device to be idle, and keeps device and surface alive.
        unsafe { self.functions.destroy_swapchain(self.handle, None) };
    }
}

impl Acquired {
    /// Records the copy of the picture, scaled to the window.
    pub(crate) fn record_blit(&self, gpu: &Gpu, commands: vk::CommandBuffer, target: &Target) {
        let device = gpu.device();
        let blit = vk::ImageBlit {
            src_subresource: LAYERS,
            src_offsets: corners(target.size.extent()),
            dst_subresource: LAYERS,
            dst_offsets: corners(self.extent),
        };
        // SAFETY: the command buffer is being recorded, outside a render pass. The submission waits for
        // `ready` before the stage of the copy, so the image is ours; the target is in the layout that its
        // render pass left it in, and both are as large as the regions say.
        unsafe {
            self.record_barrier(
                device,
                commands,
                (vk::ImageLayout::UNDEFINED, vk::AccessFlags::empty()),
                (vk::ImageLayout::TRANSFER_DST_OPTIMAL, vk::AccessFlags::TRANSFER_WRITE),
                vk::PipelineStageFlags::TRANSFER,
            );
            device.cmd_blit_image(
                commands,
                target.image.get(),
                vk::ImageLayout::TRANSFER_SRC_OPTIMAL,
                self.image,
                vk::ImageLayout::TRANSFER_DST_OPTIMAL,
                &[blit],
                vk::Filter::NEAREST,
            );
            self.record_barrier(
                device,
                commands,
                (vk::ImageLayout::TRANSFER_DST_OPTIMAL, vk::AccessFlags::TRANSFER_WRITE),
                (vk::ImageLayout::PRESENT_SRC_KHR, vk::AccessFlags::empty()),
                vk::PipelineStageFlags::BOTTOM_OF_PIPE,
            );
        }
    }

    /// # Safety
    ///
    /// The command buffer is being recorded, outside a render pass, and the image is in the layout `from`.
    unsafe fn record_barrier(
        &self,
        device: &ash::Device,
        commands: vk::CommandBuffer,
        from: (vk::ImageLayout, vk::AccessFlags),
        to: (vk::ImageLayout, vk::AccessFlags),
        before: vk::PipelineStageFlags,
    ) {
        let range = vk::ImageSubresourceRange::default()
            .aspect_mask(vk::ImageAspectFlags::COLOR)
            .level_count(1)
            .layer_count(1);
        let barrier = vk::ImageMemoryBarrier::default()
            .old_layout(from.0)
            .src_access_mask(from.1)
            .new_layout(to.0)
            .dst_access_mask(to.1)
            .src_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
            .dst_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
            .image(self.image)
            .subresource_range(range);
        // SAFETY: the caller's promise.
        unsafe {
            device.cmd_pipeline_barrier(
                commands,
                vk::PipelineStageFlags::TRANSFER,
                before,
                vk::DependencyFlags::empty(),
                &[],
                &[],
                &[barrier],
            );
        }
    }
}

/// The two corners of a region that covers all of an image.
fn corners(extent: vk::Extent2D) -> [vk::Offset3D; 2] {
    let side = |side: u32| i32::try_from(side).unwrap_or(i32::MAX);
    [vk::Offset3D::default(), vk::Offset3D { x: side(extent.width), y: side(extent.height), z: 1 }]
}

fn semaphore(gpu: &Rc<Gpu>) -> Result<Owned<vk::Semaphore>> {
    // SAFETY: the device is live. `Owned` destroys the semaphore; its owners wait for the device first.
    unsafe {
        let semaphore = gpu.device().create_semaphore(&vk::SemaphoreCreateInfo::default(), None);
        Ok(Owned::new(gpu, semaphore.context("vkCreateSemaphore")?, ash::Device::destroy_semaphore))
    }
}
