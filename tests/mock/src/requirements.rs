//! Memory requirements: `memoryTypeBits` speak of the mock's types.

use crate::device::{DEVICES, Device};
use ash::vk;
use std::ffi::c_int;

fn remap(device: &Device, bits: &mut u32) {
    *bits = device.shape.bits(*bits);
}

/// The commands that answer with a VkMemoryRequirements.
macro_rules! requirements {
    ($($(#[$doc:meta])* $name:ident: $command:ident($object:ty);)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            /// As the specification demands.
            pub(crate) unsafe fn $name(
                device: vk::Device,
                object: $object,
                requirements: *mut vk::MemoryRequirements,
            ) {
                let Some(state) = DEVICES.get(device) else { return };
                let Some(get) = state.next.$command else { return };
                // SAFETY: the arguments are passed on as they came; the structure is then filled.
                remap(&state, unsafe {
                    get(device, object, requirements);
                    &mut (*requirements).memory_type_bits
                });
            }
        )*
    };
}

requirements! {
    /// vkGetBufferMemoryRequirements.
    buffer: vkGetBufferMemoryRequirements(vk::Buffer);
    /// vkGetImageMemoryRequirements.
    image: vkGetImageMemoryRequirements(vk::Image);
}

/// The commands that answer with a VkMemoryRequirements2.
macro_rules! requirements2 {
    ($($(#[$doc:meta])* $name:ident: $command:ident($info:ty);)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            /// As the specification demands.
            pub(crate) unsafe fn $name(
                device: vk::Device,
                info: *const $info,
                requirements: *mut vk::MemoryRequirements2<'_>,
            ) {
                let Some(state) = DEVICES.get(device) else { return };
                let Some(get) = state.next.$command else { return };
                // SAFETY: the arguments are passed on as they came; the structure is then filled.
                remap(&state, unsafe {
                    get(device, info, requirements);
                    &mut (*requirements).memory_requirements.memory_type_bits
                });
            }
        )*
    };
}

requirements2! {
    /// vkGetBufferMemoryRequirements2.
    buffer2: vkGetBufferMemoryRequirements2(vk::BufferMemoryRequirementsInfo2<'_>);
    /// vkGetImageMemoryRequirements2.
    image2: vkGetImageMemoryRequirements2(vk::ImageMemoryRequirementsInfo2<'_>);
    /// vkGetDeviceBufferMemoryRequirements.
    device_buffer: vkGetDeviceBufferMemoryRequirements(vk::DeviceBufferMemoryRequirements<'_>);
    /// vkGetDeviceImageMemoryRequirements.
    device_image: vkGetDeviceImageMemoryRequirements(vk::DeviceImageMemoryRequirements<'_>);
}

/// vkGetMemoryFdPropertiesKHR.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn memory_fd(
    device: vk::Device,
    kind: vk::ExternalMemoryHandleTypeFlags,
    fd: c_int,
    properties: *mut vk::MemoryFdPropertiesKHR<'_>,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(get) = state.next.vkGetMemoryFdPropertiesKHR else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: the arguments are passed on as they came; the structure is filled if the command succeeds.
    unsafe {
        let result = get(device, kind, fd, properties);
        if result == vk::Result::SUCCESS {
            remap(&state, &mut (*properties).memory_type_bits);
        }
        result
    }
}
