//! What may be imported, and what may be made of it.

use super::HOST;
use crate::chain::{self, Chain, Unlinked};
use crate::tables::{DEVICES, PHYSICAL_DEVICES};
use ash::vk::{self, TaggedStructure};
use std::ffi::c_void;
use tidemark_winsys::page_size;

/// vkGetMemoryHostPointerPropertiesEXT.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn properties(
    device: vk::Device,
    handle_type: vk::ExternalMemoryHandleTypeFlags,
    pointer: *const c_void,
    properties: *mut vk::MemoryHostPointerPropertiesEXT<'_>,
) -> vk::Result {
    let Some(state) = DEVICES.get(device) else { return vk::Result::ERROR_DEVICE_LOST };
    if !HOST.contains(handle_type) || !pointer.addr().is_multiple_of(page_size()) {
        log::error!(
            "vkGetMemoryHostPointerPropertiesEXT: {pointer:p} as {handle_type:?} cannot be imported: it must be a multiple \
             of minImportedHostPointerAlignment, {}, and one of host memory's handle types",
            page_size()
        );
        return vk::Result::ERROR_INVALID_EXTERNAL_HANDLE;
    }
    // SAFETY: the structure is the caller's to be filled.
    unsafe { (*properties).memory_type_bits = state.physical.memory.emulated_bits() };
    vk::Result::SUCCESS
}

/// What memory of a handle type of the host's can do.
fn external_memory(
    handle_type: vk::ExternalMemoryHandleTypeFlags,
    is_ordinary: bool,
) -> vk::ExternalMemoryProperties {
    let importable = vk::ExternalMemoryFeatureFlags::IMPORTABLE;
    vk::ExternalMemoryProperties {
        external_memory_features: if is_ordinary { importable } else { Default::default() },
        export_from_imported_handle_types: Default::default(),
        compatible_handle_types: handle_type,
    }
}

/// vkGetPhysicalDeviceExternalBufferProperties.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn external_buffer_properties(
    device: vk::PhysicalDevice,
    info: *const vk::PhysicalDeviceExternalBufferInfo<'_>,
    properties: *mut vk::ExternalBufferProperties<'_>,
) {
    let Some(state) = PHYSICAL_DEVICES.get(device) else { return };
    // SAFETY: a valid info.
    let (handle_type, flags) = unsafe { ((*info).handle_type, (*info).flags) };
    if state.memory.emulates() && HOST.intersects(handle_type) {
        use vk::BufferCreateFlags as Flags;
        let is_ordinary = !flags.intersects(Flags::SPARSE_BINDING | Flags::PROTECTED);
        // SAFETY: the structure is the caller's to be filled.
        unsafe { (*properties).external_memory_properties = external_memory(handle_type, is_ordinary) };
    } else if let Some(get) = state.instance.physical_device_fns.vkGetPhysicalDeviceExternalBufferProperties {
        // SAFETY: the arguments are passed on as they came.
        unsafe { get(device, info, properties) }
    }
}

/// vkGetPhysicalDeviceImageFormatProperties2. Of an image for host memory the backing driver is asked as of any other.
///
/// # Safety
/// As the specification demands.
pub(crate) unsafe fn image_format_properties2(
    device: vk::PhysicalDevice,
    info: *const vk::PhysicalDeviceImageFormatInfo2<'_>,
    properties: *mut vk::ImageFormatProperties2<'_>,
) -> vk::Result {
    let Some(state) = PHYSICAL_DEVICES.get(device) else { return vk::Result::ERROR_INITIALIZATION_FAILED };
    let Some(get) = state.instance.physical_device_fns.vkGetPhysicalDeviceImageFormatProperties2 else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    // SAFETY: a valid info, of which only its own fields are copied.
    let mut info = unsafe { *info };
    // SAFETY: a valid chain.
    let external = unsafe { chain::find_input::<vk::PhysicalDeviceExternalImageFormatInfo<'_>>(info.p_next) };
    let asked = external.map(|external| external.handle_type).filter(|asked| HOST.intersects(*asked));
    let (true, Some(asked)) = (state.memory.emulates(), asked) else {
        // SAFETY: the arguments are passed on as they came.
        return unsafe { get(device, &raw const info, properties) };
    };
    let tag = vk::PhysicalDeviceExternalImageFormatInfo::STRUCTURE_TYPE;
    // SAFETY: a valid chain.
    let chain = match unsafe { chain::without(info.p_next, tag) } {
        Ok(chain) => chain,
        Err(error) => {
            log::error!(
                "vkGetPhysicalDeviceImageFormatProperties2: process_vm_readv(2) fails ({error}): put \
                 VkPhysicalDeviceExternalImageFormatInfo first in the chain"
            );
            return vk::Result::ERROR_FORMAT_NOT_SUPPORTED;
        }
    };
    info.p_next = chain.as_ref().map_or(info.p_next, Chain::head);
    let result = {
        // Drivers that are asked for these take for granted that there is the other.
        // SAFETY: a valid output chain, which the caller leaves to us, here and below.
        let _answer = unsafe { Unlinked::new::<vk::ExternalImageFormatProperties<'_>>(properties.cast()) };
        // SAFETY: the arguments are passed on, but for what is imported.
        unsafe { get(device, &raw const info, properties) }
    };
    if result == vk::Result::SUCCESS {
        use vk::ImageCreateFlags as Flags;
        let is_ordinary = !info.flags.intersects(Flags::SPARSE_BINDING | Flags::PROTECTED);
        // SAFETY: as above.
        let answer = unsafe { chain::find::<vk::ExternalImageFormatProperties<'_>>((*properties).p_next) };
        if let Some(answer) = answer {
            answer.external_memory_properties = external_memory(asked, is_ordinary);
        }
    }
    result
}
