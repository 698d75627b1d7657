//! Swapchains: to present is to submit, and to get an image back is to learn of progress.

use ash::vk;

use crate::gpu::{Buffer, Gpu, LONG, command};
use crate::{Failure, Outcome, Verdict};
use std::ffi::c_void;
use std::sync::Arc;

pub(crate) const CHECKS: &[super::Check] = &[
    ("acquire-next-image", || learn(Route::Acquire)),
    ("acquire-next-image2", || learn(Route::Acquire2)),
    ("wait-for-present", || learn(Route::WaitForPresent)),
    ("wait-for-present2", || learn(Route::WaitForPresent2)),
    ("present-fence", || learn(Route::Fence)),
    ("present-and-submit", present_and_submit),
];

const SIZE: u64 = 8192;
const NO_WAITS: Outcome = Outcome::Skipped("no waits for presentation");
const NO_SURFACE: Outcome = Outcome::Skipped("no headless surfaces");

#[derive(Clone, Copy, PartialEq)]
enum Route {
    Acquire,
    Acquire2,
    WaitForPresent,
    /// By the command that takes a structure.
    WaitForPresent2,
    /// A fence that is given along to the presentation.
    Fence,
}

/// VkPresentWait2InfoKHR, which is newer than the headers `ash` was generated from.
#[repr(C)]
struct PresentWait2 {
    s_type: vk::StructureType,
    p_next: *const c_void,
    present_id: u64,
    timeout: u64,
}

type WaitForPresent2 =
    unsafe extern "system" fn(vk::Device, vk::SwapchainKHR, *const PresentWait2) -> vk::Result;

/// vkWaitForPresent2KHR, of a device that has it unasked: `ash` has no features to ask for it by.
fn wait_for_present2(gpu: &Gpu) -> Option<WaitForPresent2> {
    // SAFETY: the command of this name has this type.
    gpu.command(c"vkWaitForPresent2KHR")
        .map(|found| unsafe { std::mem::transmute::<unsafe extern "system" fn(), WaitForPresent2>(found) })
}

/// A swapchain that nobody sees.
struct Chain {
    gpu: Arc<Gpu>,
    surface: vk::SurfaceKHR,
    surfaces: ash::khr::surface::Instance,
    swapchains: ash::khr::swapchain::Device,
    swapchain: vk::SwapchainKHR,
    images: Vec<vk::Image>,
}

impl Chain {
    /// `None` if there are no headless surfaces.
    fn new(gpu: &Arc<Gpu>) -> Result<Option<Self>, Failure> {
        let Some(surface) = gpu.headless_surface()? else { return Ok(None) };
        let surfaces = ash::khr::surface::Instance::new(&gpu.entry, &gpu.instance);
        let swapchains = ash::khr::swapchain::Device::new(&gpu.instance, &gpu.device);
        // SAFETY: a live surface, which the device's first queue can present to.
        let (format, capabilities) = unsafe {
            (
                surfaces.get_physical_device_surface_formats(gpu.physical, surface)?[0],
                surfaces.get_physical_device_surface_capabilities(gpu.physical, surface)?,
            )
        };
        let info = vk::SwapchainCreateInfoKHR::default()
            .surface(surface)
            // One to hold, beside those that may be on their way.
            .min_image_count(capabilities.min_image_count + 1)
            .image_format(format.format)
            .image_color_space(format.color_space)
            .image_extent(vk::Extent2D { width: 16, height: 16 })
            .image_array_layers(1)
            .image_usage(vk::ImageUsageFlags::COLOR_ATTACHMENT)
            .pre_transform(capabilities.current_transform)
            .composite_alpha(vk::CompositeAlphaFlagsKHR::OPAQUE)
            .present_mode(vk::PresentModeKHR::FIFO);
        // SAFETY: a valid create info; destroyed in `drop`.
        let (swapchain, images) = unsafe {
            let swapchain = swapchains.create_swapchain(&info, None)?;
            (swapchain, swapchains.get_swapchain_images(swapchain)?)
        };
        Ok(Some(Self { gpu: gpu.clone(), surface, surfaces, swapchains, swapchain, images }))
    }

    /// The next image, not waiting for it to be ready.
    fn acquire(&self, by_structure: bool) -> Result<u32, Failure> {
        let fence = self.gpu.fence()?;
        let info = vk::AcquireNextImageInfoKHR::default()
            .swapchain(self.swapchain)
            .timeout(LONG)
            .fence(fence)
            .device_mask(1);
        // SAFETY: live objects. The fence is left to the device, which may yet signal it.
        let (index, _) = unsafe {
            if by_structure {
                self.swapchains.acquire_next_image2(&info)
            } else {
                self.swapchains.acquire_next_image(self.swapchain, LONG, vk::Semaphore::null(), fence)
            }
        }?;
        // SAFETY: as above.
        unsafe { self.gpu.device.wait_for_fences(&[fence], true, LONG) }?;
        Ok(index)
    }

    /// Presents an image, with what is in it, and gives the presentation a number if there are such, and maybe a fence.
    fn present(&self, index: u32, fence: Option<vk::Fence>) -> Result<(), Failure> {
        let image = self.images[index as usize];
        let commands = self.gpu.record(|commands| {
            let (undefined, ready) = (vk::ImageLayout::UNDEFINED, vk::ImageLayout::PRESENT_SRC_KHR);
            self.gpu.image_barrier(commands, image, undefined, ready);
        })?;
        self.gpu.run(commands)?;
        let (swapchains, indices, ids) = ([self.swapchain], [index], [1]);
        let mut id = vk::PresentIdKHR::default().present_ids(&ids);
        let fences = [fence.unwrap_or_default()];
        let mut with_fence = vk::SwapchainPresentFenceInfoEXT::default().fences(&fences);
        let mut info = vk::PresentInfoKHR::default().swapchains(&swapchains).image_indices(&indices);
        if self.gpu.has_present_id {
            info = info.push_next(&mut id);
        }
        if fence.is_some() {
            info = info.push_next(&mut with_fence);
        }
        // SAFETY: live objects, and an acquired image that is ready.
        unsafe { self.swapchains.queue_present(self.gpu.queue, &info) }?;
        Ok(())
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // SAFETY: nothing is pending after the wait.
        unsafe {
            let _ = self.gpu.device.device_wait_idle();
            self.swapchains.destroy_swapchain(self.swapchain, None);
            self.surfaces.destroy_surface(self.surface, None);
        }
    }
}

/// The device fills a buffer, which is done when the host goes on by `route`.
fn learn(route: Route) -> Verdict {
    let gpu = Gpu::new()?;
    let Some(chain) = Chain::new(&gpu)? else { return Ok(NO_SURFACE) };
    let wait = command!(gpu, vkWaitForPresentKHR: PFN_vkWaitForPresentKHR);
    let wait2 = wait_for_present2(&gpu);
    match route {
        Route::WaitForPresent if wait.is_none() => return Ok(NO_WAITS),
        Route::WaitForPresent2 if wait2.is_none() => return Ok(NO_WAITS),
        Route::Fence if !gpu.has(ash::ext::swapchain_maintenance1::NAME) => {
            return Ok(Outcome::Skipped("presentations take no fences"));
        }
        _ => {}
    }
    let buffer = gpu.coherent(SIZE)?;
    if let Route::Acquire | Route::Acquire2 = route {
        fill(&gpu, &buffer)?;
        chain.acquire(route == Route::Acquire2)?;
        buffer.expect(|_| 7)?;
        return Ok(Outcome::Passed);
    }
    let index = chain.acquire(false)?;
    fill(&gpu, &buffer)?;
    let fence = if route == Route::Fence { Some(gpu.fence()?) } else { None };
    chain.present(index, fence)?;
    let info = PresentWait2 {
        s_type: vk::StructureType::from_raw(1_000_480_002),
        p_next: std::ptr::null(),
        present_id: 1,
        timeout: LONG,
    };
    let (device, swapchain) = (gpu.device.handle(), chain.swapchain);
    // SAFETY: live objects, and a presentation that was given this number, or the fence.
    unsafe {
        match (route, wait, wait2) {
            (Route::WaitForPresent, Some(wait), _) => wait(device, swapchain, 1, LONG).result()?,
            (Route::WaitForPresent2, _, Some(wait)) => wait(device, swapchain, &raw const info).result()?,
            _ => gpu.device.wait_for_fences(fence.as_slice(), true, LONG)?,
        }
    }
    buffer.expect(|_| 7)?;
    gpu.wait_idle()?;
    // SAFETY: no longer in use.
    fence.into_iter().for_each(|fence| unsafe { gpu.device.destroy_fence(fence, None) });
    Ok(Outcome::Passed)
}

fn fill(gpu: &Gpu, buffer: &Buffer) -> Result<(), Failure> {
    // SAFETY: a live buffer.
    let commands = gpu.record(|commands| unsafe {
        gpu.device.cmd_fill_buffer(commands, buffer.buffer, 0, vk::WHOLE_SIZE, 0x0707_0707);
    })?;
    gpu.run(commands)
}

/// What the host wrote before it presented, to memory that any batch may use, is there for a batch that comes later.
fn present_and_submit() -> Verdict {
    let gpu = Gpu::new()?;
    if !gpu.has_buffer_device_address {
        return Ok(Outcome::Skipped("no buffer device addresses"));
    }
    let Some(chain) = Chain::new(&gpu)? else { return Ok(NO_SURFACE) };
    let usage = vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS
        | vk::BufferUsageFlags::TRANSFER_SRC
        | vk::BufferUsageFlags::TRANSFER_DST;
    let (from, to) = (gpu.coherent_for(SIZE, usage)?, gpu.coherent_for(SIZE, usage)?);
    let copy = gpu.copy(&from, &to)?;
    let index = chain.acquire(false)?;
    from.write_pattern(3);
    chain.present(index, None)?;
    gpu.run(copy)?;
    to.expect_pattern(3)?;
    Ok(Outcome::Passed)
}
