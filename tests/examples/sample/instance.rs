//! The Vulkan instance, destroyed after everything made from it.

use std::ffi::c_char;

use ash::vk;

use crate::error::{Context, Error, Result};

/// What to tell somebody whose machine has no Vulkan device, or none that the loader finds.
pub(crate) const NO_DEVICE: &str = "no Vulkan device: install a Vulkan driver, or name one by \
    VK_DRIVER_FILES=/path/to/driver.json; `vulkaninfo --summary` lists what the loader finds";

pub(crate) struct Instance {
    /// The loader's functions that need no instance; also what surfaces are made from.
    pub(crate) entry: ash::Entry,
    pub(crate) raw: ash::Instance,
}

impl Instance {
    /// `extensions` are the names of the instance extensions to enable, as C strings.
    pub(crate) fn new(entry: ash::Entry, extensions: &[*const c_char]) -> Result<Self> {
        let application = vk::ApplicationInfo::default()
            .application_name(c"sample")
            .application_version(1)
            .api_version(vk::API_VERSION_1_1);
        let info = vk::InstanceCreateInfo::default()
            .application_info(&application)
            .enabled_extension_names(extensions);
        // SAFETY: `info` points to data that outlive the call; `Drop` destroys the instance, and every
        // object made from it holds an `Rc` of it, so it goes last.
        let raw = match unsafe { entry.create_instance(&info, None) } {
            Err(vk::Result::ERROR_INCOMPATIBLE_DRIVER) => return Err(Error::new(NO_DEVICE)),
            other => other.context("vkCreateInstance")?,
        };
        Ok(Self { entry, raw })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: children hold an `Rc<Instance>`; this runs when the last is gone.
        unsafe { self.raw.destroy_instance(None) };
    }
}
