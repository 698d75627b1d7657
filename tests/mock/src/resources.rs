//! VkBuffer and VkImage: they are lavapipe's, but for memory that this device does not have.

use crate::device::DEVICES;
use crate::misuse::misuse;
use ash::vk::{self, ExternalMemoryHandleTypeFlags as HandleTypes};
use std::ffi::c_void;

/// vkCreateBuffer.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn create_buffer(
    device: vk::Device,
    info: *const vk::BufferCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    buffer: *mut vk::Buffer,
) -> vk::Result {
    let create = DEVICES.get(device).and_then(|state| state.next.vkCreateBuffer);
    let Some(create) = create else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: a valid create info.
    refuse_host_memory(unsafe {
        find::<vk::ExternalMemoryBufferCreateInfo<'_>>((*info).p_next).map(|external| external.handle_types)
    });
    // SAFETY: the arguments are passed on as they came.
    unsafe { create(device, info, allocator, buffer) }
}

/// vkCreateImage.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn create_image(
    device: vk::Device,
    info: *const vk::ImageCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    image: *mut vk::Image,
) -> vk::Result {
    let create = DEVICES.get(device).and_then(|state| state.next.vkCreateImage);
    let Some(create) = create else { return vk::Result::ERROR_DEVICE_LOST };
    // SAFETY: a valid create info.
    refuse_host_memory(unsafe {
        find::<vk::ExternalMemoryImageCreateInfo<'_>>((*info).p_next).map(|external| external.handle_types)
    });
    // SAFETY: the arguments are passed on as they came.
    unsafe { create(device, info, allocator, image) }
}

/// The device does not have VK_EXT_external_memory_host.
fn refuse_host_memory(types: Option<HandleTypes>) {
    let host = HandleTypes::HOST_ALLOCATION_EXT | HandleTypes::HOST_MAPPED_FOREIGN_MEMORY_EXT;
    if types.is_some_and(|types| types.intersects(host)) {
        misuse(format_args!("a resource is for host memory, which cannot be imported"));
    }
}

/// The structure of a type in a chain.
///
/// # Safety
/// `chain` must be null or a valid chain, which outlives the result.
unsafe fn find<'a, T: vk::TaggedStructure>(chain: *const c_void) -> Option<&'a T> {
    let mut at: *const vk::BaseInStructure<'_> = chain.cast();
    // SAFETY: each element of a valid chain is null or starts with these two fields.
    while let Some(structure) = unsafe { at.as_ref() } {
        if structure.s_type == T::STRUCTURE_TYPE {
            // SAFETY: the type is what its tag says.
            return unsafe { at.cast::<T>().as_ref() };
        }
        at = structure.p_next;
    }
    None
}
