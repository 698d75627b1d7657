//! The logical device with its one queue and its memory allocator.

use std::cell::RefCell;
use std::rc::Rc;

use ash::{khr, vk};
use gpu_allocator::vulkan::{Allocator, AllocatorCreateDesc};

use crate::error::{Context, Result};
use crate::instance::Instance;
use crate::physical::Physical;

/// Everything made from the device holds an `Rc` of this, so the device goes last.
pub(crate) struct Gpu {
    /// Before `device`: fields drop in this order, and the allocator then frees its memory.
    pub(crate) allocator: RefCell<Allocator>,
    device: Device,
    pub(crate) queue: vk::Queue,
    pub(crate) physical: Physical,
}

struct Device {
    raw: ash::Device,
    instance: Rc<Instance>,
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: what was made from the device holds an `Rc<Gpu>` and is gone, and so is the allocator,
        // which `Gpu` drops before this.
        unsafe { self.raw.destroy_device(None) };
    }
}

impl Gpu {
    pub(crate) fn new(instance: Rc<Instance>, physical: Physical) -> Result<Self> {
        let queues = [vk::DeviceQueueCreateInfo::default()
            .queue_family_index(physical.queue_family)
            .queue_priorities(&[1.0])];
        let extensions = if physical.presents { &[khr::swapchain::NAME.as_ptr()][..] } else { &[] };
        let info =
            vk::DeviceCreateInfo::default().queue_create_infos(&queues).enabled_extension_names(extensions);
        // SAFETY: the physical device belongs to the instance and has this queue family and these
        // extensions; `Device` destroys the device, before the instance that it keeps alive.
        let raw =
            unsafe { instance.raw.create_device(physical.handle, &info, None) }.context("vkCreateDevice")?;
        let device = Device { raw, instance };
        let allocator = Allocator::new(&AllocatorCreateDesc {
            instance: device.instance.raw.clone(),
            device: device.raw.clone(),
            physical_device: physical.handle,
            debug_settings: gpu_allocator::AllocatorDebugSettings::default(),
            buffer_device_address: false,
            allocation_sizes: gpu_allocator::AllocationSizes::default(),
        })
        .context("memory allocator")?;
        // SAFETY: the device was made with one queue of this family.
        let queue = unsafe { device.raw.get_device_queue(physical.queue_family, 0) };
        Ok(Self { allocator: RefCell::new(allocator), device, queue, physical })
    }

    /// The functions of the device.
    pub(crate) fn device(&self) -> &ash::Device {
        &self.device.raw
    }

    pub(crate) fn instance(&self) -> &Rc<Instance> {
        &self.device.instance
    }
}
