//! Memory requirements: `memoryTypeBits` speak of the types applications see.

use crate::chain::{self, Chain};
use crate::device::Device;
use crate::host_pointer;
use crate::tables::DEVICES;
use ash::vk;
use std::ffi::c_int;

fn remap(device: &Device, bits: &mut u32) {
    *bits = device.physical.memory.bits(*bits, false);
}

/// Remaps what a command answered.
///
/// # Safety
/// `requirements` must be valid, to whose chain nothing else refers.
unsafe fn remap2(device: &Device, requirements: *mut vk::MemoryRequirements2<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        let dedicated = chain::find::<vk::MemoryDedicatedRequirements<'_>>((*requirements).p_next);
        let is_dedicated = dedicated.is_some_and(|needs| needs.requires_dedicated_allocation != vk::FALSE);
        let bits = &mut (*requirements).memory_requirements.memory_type_bits;
        *bits = device.physical.memory.bits(*bits, is_dedicated);
    }
}

/// vkGetBufferMemoryRequirements.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn buffer(
    device: vk::Device,
    buffer: vk::Buffer,
    requirements: *mut vk::MemoryRequirements,
) {
    let Some(state) = DEVICES.get(device) else { return };
    let Some(get) = state.next.vkGetBufferMemoryRequirements else { return };
    // SAFETY: the arguments are passed on as they came; the structure is then filled.
    remap(&state, unsafe {
        get(device, buffer, requirements);
        &mut (*requirements).memory_type_bits
    });
}

/// vkGetImageMemoryRequirements.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn image(device: vk::Device, image: vk::Image, requirements: *mut vk::MemoryRequirements) {
    let Some(state) = DEVICES.get(device) else { return };
    let Some(get) = state.next.vkGetImageMemoryRequirements else { return };
    // SAFETY: the arguments are passed on as they came; the structure is then filled.
    remap(&state, unsafe {
        get(device, image, requirements);
        &mut (*requirements).memory_type_bits
    });
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
                unsafe {
                    get(device, info, requirements);
                    remap2(&state, requirements);
                }
            }
        )*
    };
}

requirements2! {
    /// vkGetBufferMemoryRequirements2.
    buffer2: vkGetBufferMemoryRequirements2(vk::BufferMemoryRequirementsInfo2<'_>);
    /// vkGetImageMemoryRequirements2.
    image2: vkGetImageMemoryRequirements2(vk::ImageMemoryRequirementsInfo2<'_>);
}

/// The same, before there is a buffer or an image. Handle types of host memory are not passed on.
macro_rules! requirements_of_info {
    ($($(#[$doc:meta])* $name:ident: $command:ident($info:ty, $chain:path);)*) => {
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
                // SAFETY: a valid info and create info. Only their own fields are copied.
                let (mut info, mut create_info) = unsafe { (*info, *(*info).p_create_info) };
                // SAFETY: a valid chain.
                let chain = unsafe { $chain(create_info.p_next) };
                create_info.p_next = chain.as_ref().map_or(create_info.p_next, Chain::head);
                info.p_create_info = &raw const create_info;
                // SAFETY: the arguments are passed on, but for handle types; the structure is then filled.
                unsafe {
                    get(device, &raw const info, requirements);
                    remap2(&state, requirements);
                }
            }
        )*
    };
}

requirements_of_info! {
    /// vkGetDeviceBufferMemoryRequirements.
    device_buffer: vkGetDeviceBufferMemoryRequirements(vk::DeviceBufferMemoryRequirements<'_>, host_pointer::buffer_chain);
    /// vkGetDeviceImageMemoryRequirements.
    device_image: vkGetDeviceImageMemoryRequirements(vk::DeviceImageMemoryRequirements<'_>, host_pointer::image_chain);
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
    // SAFETY: the arguments are passed on as they came.
    let result = unsafe { get(device, kind, fd, properties) };
    if result == vk::Result::SUCCESS {
        // SAFETY: filled by the call above.
        remap(&state, unsafe { &mut (*properties).memory_type_bits });
    }
    result
}
