//! VkImage: memory with an image in it is reachable as a whole.
//!
//! Images in host-visible memory are rare (linear staging images), and the commands that lead to them are many: not
//! worth the tracking.

use crate::chain::Chain;
use crate::device::Device;
use crate::host_pointer;
use crate::tables::DEVICES;
use ash::vk::{self, Handle};
use std::slice;
use tidemark_winsys::RwLockExt;

fn bound(device: &Device, memory: vk::DeviceMemory) {
    if let Some(coherence) = &device.coherence {
        let memory = coherence.memories.shared().get(&memory.as_raw()).cloned();
        if let Some(memory) = memory {
            coherence.make_reachable(&memory);
        }
    }
}

/// vkCreateImage.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn create(
    device: vk::Device,
    info: *const vk::ImageCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    image: *mut vk::Image,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(create) = state.next.vkCreateImage else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: a valid create info. Only its own fields are copied.
    let mut info = unsafe { *info };
    // SAFETY: a valid chain.
    let chain = unsafe { host_pointer::image_chain(info.p_next) };
    info.p_next = chain.as_ref().map_or(info.p_next, Chain::head);
    // SAFETY: the arguments are passed on as they came, but for handle types of host memory.
    unsafe { create(device, &raw const info, allocator, image) }
}

/// vkBindImageMemory.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn bind(
    device: vk::Device,
    image: vk::Image,
    memory: vk::DeviceMemory,
    offset: vk::DeviceSize,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(bind) = state.next.vkBindImageMemory else { return vk::Result::ERROR_DEVICE_LOST };
    bound(&state, memory);
    // SAFETY: the arguments are passed on as they came.
    unsafe { bind(device, image, memory, offset) }
}

/// vkBindImageMemory2.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn bind2(
    device: vk::Device,
    count: u32,
    infos: *const vk::BindImageMemoryInfo<'_>,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    let Some(bind) = state.next.vkBindImageMemory2 else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: valid for `count` elements, of which there is at least one.
    for info in unsafe { slice::from_raw_parts(infos, count as usize) } {
        bound(&state, info.memory);
    }
    // SAFETY: the arguments are passed on as they came.
    unsafe { bind(device, count, infos) }
}

/// Commands by which the host itself reads and writes images (VK_EXT_host_image_copy, Vulkan 1.4).
macro_rules! host_image_commands {
    ($($(#[$doc:meta])* $name:ident: $command:ident($($arg:ident: $ty:ty),*);)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            /// As the specification demands.
            pub(crate) unsafe fn $name(device: vk::Device, $($arg: $ty),*) -> vk::Result {
                let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
                let Some(next) = state.next.$command else { return vk::Result::ERROR_DEVICE_LOST };
                // SAFETY: the arguments are passed on as they came.
                state.around_host_access(|| unsafe { next(device, $($arg),*) })
            }
        )*
    };
}

host_image_commands! {
    /// vkCopyMemoryToImage.
    copy_from_memory: vkCopyMemoryToImage(info: *const vk::CopyMemoryToImageInfoEXT<'_>);
    /// vkCopyImageToMemory.
    copy_to_memory: vkCopyImageToMemory(info: *const vk::CopyImageToMemoryInfoEXT<'_>);
    /// vkCopyImageToImage.
    copy_to_image: vkCopyImageToImage(info: *const vk::CopyImageToImageInfoEXT<'_>);
    /// vkTransitionImageLayout.
    transition_layout: vkTransitionImageLayout(count: u32, infos: *const vk::HostImageLayoutTransitionInfoEXT<'_>);
}
