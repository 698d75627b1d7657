//! Chooses the physical device: the one asked for, or the first that can do the work.

use ash::{khr, vk};

use crate::error::{Context, Error, Result};
use crate::instance::{Instance, NO_DEVICE};
use crate::options::Selector;
use crate::window::Surface;

/// A device that can do the work.
pub(crate) struct Physical {
    pub(crate) handle: vk::PhysicalDevice,
    pub(crate) name: String,
    pub(crate) limits: vk::PhysicalDeviceLimits,
    /// A family of queues that draw, compute and, where there is a surface, present to it.
    pub(crate) queue_family: u32,
    /// Whether the swapchain extension is to be enabled.
    pub(crate) presents: bool,
}

pub(crate) fn pick(instance: &Instance, selector: &Selector, surface: Option<&Surface>) -> Result<Physical> {
    // SAFETY: the instance is alive, as `instance` is.
    let handles = match unsafe { instance.raw.enumerate_physical_devices() } {
        // What a loader of today answers where a driver is installed but none can be used.
        Err(vk::Result::ERROR_INITIALIZATION_FAILED) => Vec::new(),
        other => other.context("vkEnumeratePhysicalDevices")?,
    };
    if handles.is_empty() {
        return Err(Error::new(NO_DEVICE));
    }
    let mut passed_over = Vec::new();
    for (index, handle) in handles.into_iter().enumerate() {
        // SAFETY: the instance is alive and `handle` is one of its devices.
        let properties = unsafe { instance.raw.get_physical_device_properties(handle) };
        let name = properties.device_name_as_c_str().context("name of a device")?.to_string_lossy();
        let wanted = match selector {
            Selector::First => true,
            Selector::Index(number) => *number == index,
            Selector::Name(part) => name.to_lowercase().contains(part),
        };
        if !wanted {
            passed_over.push(format!("{index} ({name}): not what --device asks for"));
            continue;
        }
        match queue_family(instance, handle, &properties, surface)? {
            Ok(queue_family) => {
                return Ok(Physical {
                    handle,
                    name: name.into_owned(),
                    limits: properties.limits,
                    queue_family,
                    presents: surface.is_some(),
                });
            }
            Err(reason) => passed_over.push(format!("{index} ({name}): {reason}")),
        }
    }
    Err(Error::new(format!("no device fits: {}", passed_over.join("; "))))
}

/// The queue family to use, or the reason why this device cannot do the work.
fn queue_family(
    instance: &Instance,
    device: vk::PhysicalDevice,
    properties: &vk::PhysicalDeviceProperties,
    surface: Option<&Surface>,
) -> Result<std::result::Result<u32, &'static str>> {
    if properties.api_version < vk::API_VERSION_1_1 {
        return Ok(Err("older than Vulkan 1.1"));
    }
    if surface.is_some() && !has_swapchain(instance, device)? {
        return Ok(Err("has no VK_KHR_swapchain"));
    }
    // SAFETY: the instance is alive and `device` is one of its devices.
    let families = unsafe { instance.raw.get_physical_device_queue_family_properties(device) };
    for (index, family) in (0u32..).zip(families) {
        let works = family.queue_flags.contains(vk::QueueFlags::GRAPHICS | vk::QueueFlags::COMPUTE);
        let presents = match surface {
            Some(surface) if works => surface.can_present(device, index)?,
            _ => true,
        };
        if works && presents {
            return Ok(Ok(index));
        }
    }
    Ok(Err(if surface.is_some() {
        "no queue draws, computes and presents to this window"
    } else {
        "no queue both draws and computes"
    }))
}

fn has_swapchain(instance: &Instance, device: vk::PhysicalDevice) -> Result<bool> {
    // SAFETY: the instance is alive and `device` is one of its devices.
    let extensions = unsafe { instance.raw.enumerate_device_extension_properties(device) }
        .context("vkEnumerateDeviceExtensionProperties")?;
    Ok(extensions.iter().any(|extension| extension.extension_name_as_c_str() == Ok(khr::swapchain::NAME)))
}
