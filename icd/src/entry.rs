//! The table of intercepted commands.
//!
//! Each command is declared once, with its aliases, and that line yields: a field for the backing driver's
//! function, the shim whose signature is pinned to the one `ash` generates from vk.xml, the guard that keeps
//! panics from crossing into C, and the look-up by name.

#![allow(non_snake_case, reason = "commands keep the names of the Vulkan specification")]

use crate::config::Config;
use ash::vk;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the body of a command. A panic ends here and becomes the command's failure.
pub(crate) fn guard<R: Failure>(body: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        log::error!("internal error in a Vulkan command (the line above says where): please report it");
        R::failure()
    })
}

/// What a command returns when it cannot do its work for a reason that is no application's fault.
pub(crate) trait Failure {
    fn failure() -> Self;
}

impl Failure for vk::Result {
    fn failure() -> Self {
        Self::ERROR_UNKNOWN
    }
}

impl Failure for () {
    fn failure() -> Self {}
}

impl Failure for vk::PFN_vkVoidFunction {
    fn failure() -> Self {
        None
    }
}

/// The types of commands: those that `ash` knows, and others.
mod types {
    pub(crate) use crate::swapchain::PFN_vkWaitForPresent2KHR;
    pub(crate) use ash::vk::*;
}

macro_rules! commands {
    ($(#[$doc:meta])* $level:ident: $($(#[$note:meta])* $name:ident $(| $alias:ident)* = $pfn:ident ($($arg:ident: $ty:ty),*) -> $ret:ty => $body:path;)*) => {
        $(#[$doc])*
        pub(crate) mod $level {
            use super::*;

            /// The backing driver's own functions; `None` where it has none.
            #[allow(dead_code, reason = "some commands are Tidemark's alone")]
            pub(crate) struct Fns { $(pub(crate) $name: Option<types::$pfn>,)* }

            impl Fns {
                /// Asks `get` for each, by all its names.
                pub(crate) fn load(get: impl Fn(&std::ffi::CStr) -> vk::PFN_vkVoidFunction) -> Self {
                    Self {
                        $($name: {
                            let names = [concat!(stringify!($name), "\0"), $(concat!(stringify!($alias), "\0"),)*];
                            let found = names.iter().find_map(|name| {
                                get(std::ffi::CStr::from_bytes_with_nul(name.as_bytes()).ok()?)
                            });
                            // SAFETY: the driver's function of this name has this signature, by vk.xml.
                            found.map(|f| unsafe { std::mem::transmute::<unsafe extern "system" fn(), types::$pfn>(f) })
                        },)*
                    }
                }
            }

            $(
                #[allow(clippy::too_many_arguments, reason = "as many as the specification says")]
                unsafe extern "system" fn $name($($arg: $ty),*) -> $ret {
                    // SAFETY: the caller keeps the valid usage the specification demands of this command.
                    guard(|| unsafe { $body($($arg),*) })
                }
                const _: types::$pfn = $name;
            )*

            /// Every name of every command.
            pub(crate) const NAMES: &[&str] = &[$(stringify!($name), $(stringify!($alias),)*)*];

            /// Tidemark's function of this name; `None` if the command is to be passed through.
            pub(crate) fn find(name: &std::ffi::CStr) -> vk::PFN_vkVoidFunction {
                let name = name.to_str().ok()?;
                $(
                    let names = [stringify!($name), $(stringify!($alias),)*];
                    if names.contains(&name) {
                        if Config::get().debug.passes(&names) {
                            return None;
                        }
                        // SAFETY: a function pointer; who calls it knows its signature by its name.
                        return Some(unsafe { std::mem::transmute::<types::$pfn, unsafe extern "system" fn()>($name) });
                    }
                )*
                None
            }
        }
    };
}

commands! {
    /// Commands before there is an instance.
    global:
    vkCreateInstance = PFN_vkCreateInstance(info: *const vk::InstanceCreateInfo<'_>, allocator: *const vk::AllocationCallbacks<'_>, instance: *mut vk::Instance) -> vk::Result => crate::instance::create;
    vkEnumerateInstanceExtensionProperties = PFN_vkEnumerateInstanceExtensionProperties(layer: *const std::ffi::c_char, count: *mut u32, properties: *mut vk::ExtensionProperties) -> vk::Result => crate::instance::enumerate_extensions;
    vkEnumerateInstanceVersion = PFN_vkEnumerateInstanceVersion(version: *mut u32) -> vk::Result => crate::instance::enumerate_version;
}

commands! {
    /// Commands of an instance.
    instance:
    vkDestroyInstance = PFN_vkDestroyInstance(instance: vk::Instance, allocator: *const vk::AllocationCallbacks<'_>) -> () => crate::instance::destroy;
    vkEnumeratePhysicalDevices = PFN_vkEnumeratePhysicalDevices(instance: vk::Instance, count: *mut u32, devices: *mut vk::PhysicalDevice) -> vk::Result => crate::instance::enumerate_physical_devices;
    vkEnumeratePhysicalDeviceGroups | vkEnumeratePhysicalDeviceGroupsKHR = PFN_vkEnumeratePhysicalDeviceGroups(instance: vk::Instance, count: *mut u32, groups: *mut vk::PhysicalDeviceGroupProperties<'_>) -> vk::Result => crate::instance::enumerate_physical_device_groups;
}

commands! {
    /// Commands of a physical device, which the loader also asks for by vk_icdGetPhysicalDeviceProcAddr.
    physical_device:
    vkGetPhysicalDeviceProperties = PFN_vkGetPhysicalDeviceProperties(device: vk::PhysicalDevice, properties: *mut vk::PhysicalDeviceProperties) -> () => crate::physical_device::properties;
    vkGetPhysicalDeviceProperties2 | vkGetPhysicalDeviceProperties2KHR = PFN_vkGetPhysicalDeviceProperties2(device: vk::PhysicalDevice, properties: *mut vk::PhysicalDeviceProperties2<'_>) -> () => crate::physical_device::properties2;
    vkGetPhysicalDeviceFeatures2 | vkGetPhysicalDeviceFeatures2KHR = PFN_vkGetPhysicalDeviceFeatures2(device: vk::PhysicalDevice, features: *mut vk::PhysicalDeviceFeatures2<'_>) -> () => crate::physical_device::features2;
    vkGetPhysicalDeviceMemoryProperties = PFN_vkGetPhysicalDeviceMemoryProperties(device: vk::PhysicalDevice, properties: *mut vk::PhysicalDeviceMemoryProperties) -> () => crate::physical_device::memory_properties;
    vkGetPhysicalDeviceMemoryProperties2 | vkGetPhysicalDeviceMemoryProperties2KHR = PFN_vkGetPhysicalDeviceMemoryProperties2(device: vk::PhysicalDevice, properties: *mut vk::PhysicalDeviceMemoryProperties2<'_>) -> () => crate::physical_device::memory_properties2;
    vkGetPhysicalDeviceExternalBufferProperties | vkGetPhysicalDeviceExternalBufferPropertiesKHR = PFN_vkGetPhysicalDeviceExternalBufferProperties(device: vk::PhysicalDevice, info: *const vk::PhysicalDeviceExternalBufferInfo<'_>, properties: *mut vk::ExternalBufferProperties<'_>) -> () => crate::host_pointer::external_buffer_properties;
    vkGetPhysicalDeviceImageFormatProperties2 | vkGetPhysicalDeviceImageFormatProperties2KHR = PFN_vkGetPhysicalDeviceImageFormatProperties2(device: vk::PhysicalDevice, info: *const vk::PhysicalDeviceImageFormatInfo2<'_>, properties: *mut vk::ImageFormatProperties2<'_>) -> vk::Result => crate::host_pointer::image_format_properties2;
    vkEnumerateDeviceExtensionProperties = PFN_vkEnumerateDeviceExtensionProperties(device: vk::PhysicalDevice, layer: *const std::ffi::c_char, count: *mut u32, properties: *mut vk::ExtensionProperties) -> vk::Result => crate::physical_device::enumerate_extensions;
    vkCreateDevice = PFN_vkCreateDevice(physical: vk::PhysicalDevice, info: *const vk::DeviceCreateInfo<'_>, allocator: *const vk::AllocationCallbacks<'_>, device: *mut vk::Device) -> vk::Result => crate::device::create;
}

commands! {
    /// Commands every device needs intercepted, for Tidemark's own bookkeeping.
    device:
    vkGetDeviceProcAddr = PFN_vkGetDeviceProcAddr(device: vk::Device, name: *const std::ffi::c_char) -> vk::PFN_vkVoidFunction => crate::device::proc_addr;
    vkDestroyDevice = PFN_vkDestroyDevice(device: vk::Device, allocator: *const vk::AllocationCallbacks<'_>) -> () => crate::device::destroy;
    vkGetDeviceQueue = PFN_vkGetDeviceQueue(device: vk::Device, family: u32, index: u32, queue: *mut vk::Queue) -> () => crate::device::queue;
    vkGetDeviceQueue2 = PFN_vkGetDeviceQueue2(device: vk::Device, info: *const vk::DeviceQueueInfo2<'_>, queue: *mut vk::Queue) -> () => crate::device::queue2;
}

commands! {
    /// Commands that coherence depends on: intercepted on devices with emulated memory only.
    coherence:
    vkAllocateMemory = PFN_vkAllocateMemory(device: vk::Device, info: *const vk::MemoryAllocateInfo<'_>, allocator: *const vk::AllocationCallbacks<'_>, memory: *mut vk::DeviceMemory) -> vk::Result => crate::memory::allocate;
    vkFreeMemory = PFN_vkFreeMemory(device: vk::Device, memory: vk::DeviceMemory, allocator: *const vk::AllocationCallbacks<'_>) -> () => crate::memory::free;
    vkMapMemory = PFN_vkMapMemory(device: vk::Device, memory: vk::DeviceMemory, offset: vk::DeviceSize, size: vk::DeviceSize, flags: vk::MemoryMapFlags, data: *mut *mut std::ffi::c_void) -> vk::Result => crate::memory::mapping::map;
    vkMapMemory2 | vkMapMemory2KHR = PFN_vkMapMemory2KHR(device: vk::Device, info: *const vk::MemoryMapInfoKHR<'_>, data: *mut *mut std::ffi::c_void) -> vk::Result => crate::memory::mapping::map2;
    vkUnmapMemory = PFN_vkUnmapMemory(device: vk::Device, memory: vk::DeviceMemory) -> () => crate::memory::mapping::unmap;
    vkUnmapMemory2 | vkUnmapMemory2KHR = PFN_vkUnmapMemory2KHR(device: vk::Device, info: *const vk::MemoryUnmapInfoKHR<'_>) -> vk::Result => crate::memory::mapping::unmap2;
    vkFlushMappedMemoryRanges = PFN_vkFlushMappedMemoryRanges(device: vk::Device, count: u32, ranges: *const vk::MappedMemoryRange<'_>) -> vk::Result => crate::memory::mapping::flush_ranges;
    vkInvalidateMappedMemoryRanges = PFN_vkInvalidateMappedMemoryRanges(device: vk::Device, count: u32, ranges: *const vk::MappedMemoryRange<'_>) -> vk::Result => crate::memory::mapping::invalidate_ranges;
    vkGetMemoryHostPointerPropertiesEXT = PFN_vkGetMemoryHostPointerPropertiesEXT(device: vk::Device, kind: vk::ExternalMemoryHandleTypeFlags, pointer: *const std::ffi::c_void, properties: *mut vk::MemoryHostPointerPropertiesEXT<'_>) -> vk::Result => crate::host_pointer::properties;

    vkCreateBuffer = PFN_vkCreateBuffer(device: vk::Device, info: *const vk::BufferCreateInfo<'_>, allocator: *const vk::AllocationCallbacks<'_>, buffer: *mut vk::Buffer) -> vk::Result => crate::buffer::create;
    vkDestroyBuffer = PFN_vkDestroyBuffer(device: vk::Device, buffer: vk::Buffer, allocator: *const vk::AllocationCallbacks<'_>) -> () => crate::buffer::destroy;
    vkBindBufferMemory = PFN_vkBindBufferMemory(device: vk::Device, buffer: vk::Buffer, memory: vk::DeviceMemory, offset: vk::DeviceSize) -> vk::Result => crate::buffer::bind;
    vkBindBufferMemory2 | vkBindBufferMemory2KHR = PFN_vkBindBufferMemory2(device: vk::Device, count: u32, infos: *const vk::BindBufferMemoryInfo<'_>) -> vk::Result => crate::buffer::bind2;
    vkCreateBufferView = PFN_vkCreateBufferView(device: vk::Device, info: *const vk::BufferViewCreateInfo<'_>, allocator: *const vk::AllocationCallbacks<'_>, view: *mut vk::BufferView) -> vk::Result => crate::buffer::create_view;
    vkDestroyBufferView = PFN_vkDestroyBufferView(device: vk::Device, view: vk::BufferView, allocator: *const vk::AllocationCallbacks<'_>) -> () => crate::buffer::destroy_view;
    vkCreateImage = PFN_vkCreateImage(device: vk::Device, info: *const vk::ImageCreateInfo<'_>, allocator: *const vk::AllocationCallbacks<'_>, image: *mut vk::Image) -> vk::Result => crate::image::create;
    vkBindImageMemory = PFN_vkBindImageMemory(device: vk::Device, image: vk::Image, memory: vk::DeviceMemory, offset: vk::DeviceSize) -> vk::Result => crate::image::bind;
    vkBindImageMemory2 | vkBindImageMemory2KHR = PFN_vkBindImageMemory2(device: vk::Device, count: u32, infos: *const vk::BindImageMemoryInfo<'_>) -> vk::Result => crate::image::bind2;
    vkCopyMemoryToImage | vkCopyMemoryToImageEXT = PFN_vkCopyMemoryToImageEXT(device: vk::Device, info: *const vk::CopyMemoryToImageInfoEXT<'_>) -> vk::Result => crate::image::copy_from_memory;
    vkCopyImageToMemory | vkCopyImageToMemoryEXT = PFN_vkCopyImageToMemoryEXT(device: vk::Device, info: *const vk::CopyImageToMemoryInfoEXT<'_>) -> vk::Result => crate::image::copy_to_memory;
    vkCopyImageToImage | vkCopyImageToImageEXT = PFN_vkCopyImageToImageEXT(device: vk::Device, info: *const vk::CopyImageToImageInfoEXT<'_>) -> vk::Result => crate::image::copy_to_image;
    vkTransitionImageLayout | vkTransitionImageLayoutEXT = PFN_vkTransitionImageLayoutEXT(device: vk::Device, count: u32, infos: *const vk::HostImageLayoutTransitionInfoEXT<'_>) -> vk::Result => crate::image::transition_layout;

    vkAllocateDescriptorSets = PFN_vkAllocateDescriptorSets(device: vk::Device, info: *const vk::DescriptorSetAllocateInfo<'_>, sets: *mut vk::DescriptorSet) -> vk::Result => crate::descriptor_set::allocate;
    vkFreeDescriptorSets = PFN_vkFreeDescriptorSets(device: vk::Device, pool: vk::DescriptorPool, count: u32, sets: *const vk::DescriptorSet) -> vk::Result => crate::descriptor_set::free;
    vkResetDescriptorPool = PFN_vkResetDescriptorPool(device: vk::Device, pool: vk::DescriptorPool, flags: vk::DescriptorPoolResetFlags) -> vk::Result => crate::descriptor_set::reset_pool;
    vkDestroyDescriptorPool = PFN_vkDestroyDescriptorPool(device: vk::Device, pool: vk::DescriptorPool, allocator: *const vk::AllocationCallbacks<'_>) -> () => crate::descriptor_set::destroy_pool;
    vkUpdateDescriptorSets = PFN_vkUpdateDescriptorSets(device: vk::Device, write_count: u32, writes: *const vk::WriteDescriptorSet<'_>, copy_count: u32, copies: *const vk::CopyDescriptorSet<'_>) -> () => crate::descriptor_set::update;
    vkCreateDescriptorUpdateTemplate | vkCreateDescriptorUpdateTemplateKHR = PFN_vkCreateDescriptorUpdateTemplate(device: vk::Device, info: *const vk::DescriptorUpdateTemplateCreateInfo<'_>, allocator: *const vk::AllocationCallbacks<'_>, template: *mut vk::DescriptorUpdateTemplate) -> vk::Result => crate::descriptor_set::create_template;
    vkDestroyDescriptorUpdateTemplate | vkDestroyDescriptorUpdateTemplateKHR = PFN_vkDestroyDescriptorUpdateTemplate(device: vk::Device, template: vk::DescriptorUpdateTemplate, allocator: *const vk::AllocationCallbacks<'_>) -> () => crate::descriptor_set::destroy_template;
    vkUpdateDescriptorSetWithTemplate | vkUpdateDescriptorSetWithTemplateKHR = PFN_vkUpdateDescriptorSetWithTemplate(device: vk::Device, set: vk::DescriptorSet, template: vk::DescriptorUpdateTemplate, data: *const std::ffi::c_void) -> () => crate::descriptor_set::update_with_template;

    vkAllocateCommandBuffers = PFN_vkAllocateCommandBuffers(device: vk::Device, info: *const vk::CommandBufferAllocateInfo<'_>, commands: *mut vk::CommandBuffer) -> vk::Result => crate::command_buffer::allocate;
    vkFreeCommandBuffers = PFN_vkFreeCommandBuffers(device: vk::Device, pool: vk::CommandPool, count: u32, commands: *const vk::CommandBuffer) -> () => crate::command_buffer::free;
    vkDestroyCommandPool = PFN_vkDestroyCommandPool(device: vk::Device, pool: vk::CommandPool, allocator: *const vk::AllocationCallbacks<'_>) -> () => crate::command_buffer::destroy_pool;
    vkBeginCommandBuffer = PFN_vkBeginCommandBuffer(commands: vk::CommandBuffer, info: *const vk::CommandBufferBeginInfo<'_>) -> vk::Result => crate::command_buffer::begin;
    vkCmdExecuteCommands = PFN_vkCmdExecuteCommands(commands: vk::CommandBuffer, count: u32, secondaries: *const vk::CommandBuffer) -> () => crate::command_buffer::execute;

    vkCmdCopyBuffer = PFN_vkCmdCopyBuffer(commands: vk::CommandBuffer, from: vk::Buffer, to: vk::Buffer, count: u32, regions: *const vk::BufferCopy) -> () => crate::command_buffer::copies::copy_buffer;
    vkCmdCopyBuffer2 | vkCmdCopyBuffer2KHR = PFN_vkCmdCopyBuffer2(commands: vk::CommandBuffer, info: *const vk::CopyBufferInfo2<'_>) -> () => crate::command_buffer::copies::copy_buffer2;
    vkCmdCopyBufferToImage = PFN_vkCmdCopyBufferToImage(commands: vk::CommandBuffer, from: vk::Buffer, image: vk::Image, layout: vk::ImageLayout, count: u32, regions: *const vk::BufferImageCopy) -> () => crate::command_buffer::copies::copy_buffer_to_image;
    vkCmdCopyBufferToImage2 | vkCmdCopyBufferToImage2KHR = PFN_vkCmdCopyBufferToImage2(commands: vk::CommandBuffer, info: *const vk::CopyBufferToImageInfo2<'_>) -> () => crate::command_buffer::copies::copy_buffer_to_image2;
    vkCmdCopyImageToBuffer = PFN_vkCmdCopyImageToBuffer(commands: vk::CommandBuffer, image: vk::Image, layout: vk::ImageLayout, to: vk::Buffer, count: u32, regions: *const vk::BufferImageCopy) -> () => crate::command_buffer::copies::copy_image_to_buffer;
    vkCmdCopyImageToBuffer2 | vkCmdCopyImageToBuffer2KHR = PFN_vkCmdCopyImageToBuffer2(commands: vk::CommandBuffer, info: *const vk::CopyImageToBufferInfo2<'_>) -> () => crate::command_buffer::copies::copy_image_to_buffer2;
    vkCmdUpdateBuffer = PFN_vkCmdUpdateBuffer(commands: vk::CommandBuffer, to: vk::Buffer, offset: vk::DeviceSize, size: vk::DeviceSize, data: *const std::ffi::c_void) -> () => crate::command_buffer::copies::update_buffer;
    vkCmdFillBuffer = PFN_vkCmdFillBuffer(commands: vk::CommandBuffer, to: vk::Buffer, offset: vk::DeviceSize, size: vk::DeviceSize, value: u32) -> () => crate::command_buffer::copies::fill_buffer;
    vkCmdCopyQueryPoolResults = PFN_vkCmdCopyQueryPoolResults(commands: vk::CommandBuffer, pool: vk::QueryPool, first: u32, count: u32, to: vk::Buffer, offset: vk::DeviceSize, stride: vk::DeviceSize, flags: vk::QueryResultFlags) -> () => crate::command_buffer::copies::copy_query_pool_results;

    vkCmdBindVertexBuffers = PFN_vkCmdBindVertexBuffers(commands: vk::CommandBuffer, first: u32, count: u32, buffers: *const vk::Buffer, offsets: *const vk::DeviceSize) -> () => crate::command_buffer::draws::bind_vertex_buffers;
    vkCmdBindVertexBuffers2 | vkCmdBindVertexBuffers2EXT = PFN_vkCmdBindVertexBuffers2(commands: vk::CommandBuffer, first: u32, count: u32, buffers: *const vk::Buffer, offsets: *const vk::DeviceSize, sizes: *const vk::DeviceSize, strides: *const vk::DeviceSize) -> () => crate::command_buffer::draws::bind_vertex_buffers2;
    vkCmdBindIndexBuffer = PFN_vkCmdBindIndexBuffer(commands: vk::CommandBuffer, buffer: vk::Buffer, offset: vk::DeviceSize, kind: vk::IndexType) -> () => crate::command_buffer::draws::bind_index_buffer;
    vkCmdBindIndexBuffer2 | vkCmdBindIndexBuffer2KHR = PFN_vkCmdBindIndexBuffer2KHR(commands: vk::CommandBuffer, buffer: vk::Buffer, offset: vk::DeviceSize, size: vk::DeviceSize, kind: vk::IndexType) -> () => crate::command_buffer::draws::bind_index_buffer2;
    vkCmdDispatchIndirect = PFN_vkCmdDispatchIndirect(commands: vk::CommandBuffer, buffer: vk::Buffer, offset: vk::DeviceSize) -> () => crate::command_buffer::draws::dispatch_indirect;
    vkCmdDrawIndirect = PFN_vkCmdDrawIndirect(commands: vk::CommandBuffer, buffer: vk::Buffer, offset: vk::DeviceSize, count: u32, stride: u32) -> () => crate::command_buffer::draws::draw_indirect;
    vkCmdDrawIndexedIndirect = PFN_vkCmdDrawIndexedIndirect(commands: vk::CommandBuffer, buffer: vk::Buffer, offset: vk::DeviceSize, count: u32, stride: u32) -> () => crate::command_buffer::draws::draw_indexed_indirect;
    vkCmdDrawMeshTasksIndirectEXT = PFN_vkCmdDrawMeshTasksIndirectEXT(commands: vk::CommandBuffer, buffer: vk::Buffer, offset: vk::DeviceSize, count: u32, stride: u32) -> () => crate::command_buffer::draws::draw_mesh_tasks_indirect;
    vkCmdDrawIndirectCount | vkCmdDrawIndirectCountKHR | vkCmdDrawIndirectCountAMD = PFN_vkCmdDrawIndirectCount(commands: vk::CommandBuffer, buffer: vk::Buffer, offset: vk::DeviceSize, count_buffer: vk::Buffer, count_offset: vk::DeviceSize, most: u32, stride: u32) -> () => crate::command_buffer::draws::draw_indirect_count;
    vkCmdDrawIndexedIndirectCount | vkCmdDrawIndexedIndirectCountKHR | vkCmdDrawIndexedIndirectCountAMD = PFN_vkCmdDrawIndexedIndirectCount(commands: vk::CommandBuffer, buffer: vk::Buffer, offset: vk::DeviceSize, count_buffer: vk::Buffer, count_offset: vk::DeviceSize, most: u32, stride: u32) -> () => crate::command_buffer::draws::draw_indexed_indirect_count;
    vkCmdDrawMeshTasksIndirectCountEXT = PFN_vkCmdDrawMeshTasksIndirectCountEXT(commands: vk::CommandBuffer, buffer: vk::Buffer, offset: vk::DeviceSize, count_buffer: vk::Buffer, count_offset: vk::DeviceSize, most: u32, stride: u32) -> () => crate::command_buffer::draws::draw_mesh_tasks_indirect_count;
    vkCmdDrawIndirectByteCountEXT = PFN_vkCmdDrawIndirectByteCountEXT(commands: vk::CommandBuffer, instance_count: u32, first_instance: u32, buffer: vk::Buffer, offset: vk::DeviceSize, counter_offset: u32, stride: u32) -> () => crate::command_buffer::draws::draw_indirect_byte_count;
    vkCmdBindTransformFeedbackBuffersEXT = PFN_vkCmdBindTransformFeedbackBuffersEXT(commands: vk::CommandBuffer, first: u32, count: u32, buffers: *const vk::Buffer, offsets: *const vk::DeviceSize, sizes: *const vk::DeviceSize) -> () => crate::command_buffer::draws::bind_transform_feedback_buffers;
    vkCmdBeginTransformFeedbackEXT = PFN_vkCmdBeginTransformFeedbackEXT(commands: vk::CommandBuffer, first: u32, count: u32, buffers: *const vk::Buffer, offsets: *const vk::DeviceSize) -> () => crate::command_buffer::draws::begin_transform_feedback;
    vkCmdEndTransformFeedbackEXT = PFN_vkCmdEndTransformFeedbackEXT(commands: vk::CommandBuffer, first: u32, count: u32, buffers: *const vk::Buffer, offsets: *const vk::DeviceSize) -> () => crate::command_buffer::draws::end_transform_feedback;
    vkCmdBeginConditionalRenderingEXT = PFN_vkCmdBeginConditionalRenderingEXT(commands: vk::CommandBuffer, info: *const vk::ConditionalRenderingBeginInfoEXT<'_>) -> () => crate::command_buffer::draws::begin_conditional_rendering;

    vkCmdBindDescriptorSets = PFN_vkCmdBindDescriptorSets(commands: vk::CommandBuffer, point: vk::PipelineBindPoint, layout: vk::PipelineLayout, first: u32, count: u32, sets: *const vk::DescriptorSet, offset_count: u32, offsets: *const u32) -> () => crate::command_buffer::descriptors::bind_sets;
    vkCmdBindDescriptorSets2 | vkCmdBindDescriptorSets2KHR = PFN_vkCmdBindDescriptorSets2KHR(commands: vk::CommandBuffer, info: *const vk::BindDescriptorSetsInfoKHR<'_>) -> () => crate::command_buffer::descriptors::bind_sets2;
    vkCmdPushDescriptorSet | vkCmdPushDescriptorSetKHR = PFN_vkCmdPushDescriptorSetKHR(commands: vk::CommandBuffer, point: vk::PipelineBindPoint, layout: vk::PipelineLayout, set: u32, count: u32, writes: *const vk::WriteDescriptorSet<'_>) -> () => crate::command_buffer::descriptors::push;
    vkCmdPushDescriptorSet2 | vkCmdPushDescriptorSet2KHR = PFN_vkCmdPushDescriptorSet2KHR(commands: vk::CommandBuffer, info: *const vk::PushDescriptorSetInfoKHR<'_>) -> () => crate::command_buffer::descriptors::push2;
    vkCmdPushDescriptorSetWithTemplate | vkCmdPushDescriptorSetWithTemplateKHR = PFN_vkCmdPushDescriptorSetWithTemplateKHR(commands: vk::CommandBuffer, template: vk::DescriptorUpdateTemplate, layout: vk::PipelineLayout, set: u32, data: *const std::ffi::c_void) -> () => crate::command_buffer::descriptors::push_with_template;
    vkCmdPushDescriptorSetWithTemplate2 | vkCmdPushDescriptorSetWithTemplate2KHR = PFN_vkCmdPushDescriptorSetWithTemplate2KHR(commands: vk::CommandBuffer, info: *const vk::PushDescriptorSetWithTemplateInfoKHR<'_>) -> () => crate::command_buffer::descriptors::push_with_template2;

    vkGetBufferMemoryRequirements = PFN_vkGetBufferMemoryRequirements(device: vk::Device, buffer: vk::Buffer, requirements: *mut vk::MemoryRequirements) -> () => crate::requirements::buffer;
    vkGetBufferMemoryRequirements2 | vkGetBufferMemoryRequirements2KHR = PFN_vkGetBufferMemoryRequirements2(device: vk::Device, info: *const vk::BufferMemoryRequirementsInfo2<'_>, requirements: *mut vk::MemoryRequirements2<'_>) -> () => crate::requirements::buffer2;
    vkGetDeviceBufferMemoryRequirements | vkGetDeviceBufferMemoryRequirementsKHR = PFN_vkGetDeviceBufferMemoryRequirements(device: vk::Device, info: *const vk::DeviceBufferMemoryRequirements<'_>, requirements: *mut vk::MemoryRequirements2<'_>) -> () => crate::requirements::device_buffer;
    vkGetImageMemoryRequirements = PFN_vkGetImageMemoryRequirements(device: vk::Device, image: vk::Image, requirements: *mut vk::MemoryRequirements) -> () => crate::requirements::image;
    vkGetImageMemoryRequirements2 | vkGetImageMemoryRequirements2KHR = PFN_vkGetImageMemoryRequirements2(device: vk::Device, info: *const vk::ImageMemoryRequirementsInfo2<'_>, requirements: *mut vk::MemoryRequirements2<'_>) -> () => crate::requirements::image2;
    vkGetDeviceImageMemoryRequirements | vkGetDeviceImageMemoryRequirementsKHR = PFN_vkGetDeviceImageMemoryRequirements(device: vk::Device, info: *const vk::DeviceImageMemoryRequirements<'_>, requirements: *mut vk::MemoryRequirements2<'_>) -> () => crate::requirements::device_image;
    vkGetMemoryFdKHR = PFN_vkGetMemoryFdKHR(device: vk::Device, info: *const vk::MemoryGetFdInfoKHR<'_>, descriptor: *mut std::ffi::c_int) -> vk::Result => crate::payload::memory_fd;
    vkGetMemoryFdPropertiesKHR = PFN_vkGetMemoryFdPropertiesKHR(device: vk::Device, kind: vk::ExternalMemoryHandleTypeFlags, fd: std::ffi::c_int, properties: *mut vk::MemoryFdPropertiesKHR<'_>) -> vk::Result => crate::requirements::memory_fd;

    vkQueueSubmit = PFN_vkQueueSubmit(queue: vk::Queue, count: u32, submits: *const vk::SubmitInfo<'_>, fence: vk::Fence) -> vk::Result => crate::queue::submit;
    vkQueueSubmit2 | vkQueueSubmit2KHR = PFN_vkQueueSubmit2(queue: vk::Queue, count: u32, submits: *const vk::SubmitInfo2<'_>, fence: vk::Fence) -> vk::Result => crate::queue::submit2;
    vkQueueBindSparse = PFN_vkQueueBindSparse(queue: vk::Queue, count: u32, binds: *const vk::BindSparseInfo<'_>, fence: vk::Fence) -> vk::Result => crate::queue::bind_sparse;
    vkQueuePresentKHR = PFN_vkQueuePresentKHR(queue: vk::Queue, info: *const vk::PresentInfoKHR<'_>) -> vk::Result => crate::queue::present;
    vkQueueWaitIdle = PFN_vkQueueWaitIdle(queue: vk::Queue) -> vk::Result => crate::queue::wait_idle;
    vkDeviceWaitIdle = PFN_vkDeviceWaitIdle(device: vk::Device) -> vk::Result => crate::device::wait_idle;

    vkWaitForFences = PFN_vkWaitForFences(device: vk::Device, count: u32, fences: *const vk::Fence, all: vk::Bool32, timeout: u64) -> vk::Result => crate::fence::wait;
    vkGetFenceStatus = PFN_vkGetFenceStatus(device: vk::Device, fence: vk::Fence) -> vk::Result => crate::fence::status;
    vkWaitSemaphores | vkWaitSemaphoresKHR = PFN_vkWaitSemaphores(device: vk::Device, info: *const vk::SemaphoreWaitInfo<'_>, timeout: u64) -> vk::Result => crate::semaphore::wait;
    vkSignalSemaphore | vkSignalSemaphoreKHR = PFN_vkSignalSemaphore(device: vk::Device, info: *const vk::SemaphoreSignalInfo<'_>) -> vk::Result => crate::semaphore::signal;
    vkGetSemaphoreCounterValue | vkGetSemaphoreCounterValueKHR = PFN_vkGetSemaphoreCounterValue(device: vk::Device, semaphore: vk::Semaphore, value: *mut u64) -> vk::Result => crate::semaphore::counter_value;
    vkDestroyFence = PFN_vkDestroyFence(device: vk::Device, fence: vk::Fence, allocator: *const vk::AllocationCallbacks<'_>) -> () => crate::fence::destroy;
    vkDestroySemaphore = PFN_vkDestroySemaphore(device: vk::Device, semaphore: vk::Semaphore, allocator: *const vk::AllocationCallbacks<'_>) -> () => crate::semaphore::destroy;
    vkAcquireNextImageKHR = PFN_vkAcquireNextImageKHR(device: vk::Device, swapchain: vk::SwapchainKHR, timeout: u64, semaphore: vk::Semaphore, fence: vk::Fence, index: *mut u32) -> vk::Result => crate::swapchain::acquire;
    vkAcquireNextImage2KHR = PFN_vkAcquireNextImage2KHR(device: vk::Device, info: *const vk::AcquireNextImageInfoKHR<'_>, index: *mut u32) -> vk::Result => crate::swapchain::acquire2;
    vkWaitForPresentKHR = PFN_vkWaitForPresentKHR(device: vk::Device, swapchain: vk::SwapchainKHR, present: u64, timeout: u64) -> vk::Result => crate::swapchain::wait_for_present;
    vkWaitForPresent2KHR = PFN_vkWaitForPresent2KHR(device: vk::Device, swapchain: vk::SwapchainKHR, info: *const std::ffi::c_void) -> vk::Result => crate::swapchain::wait_for_present2;
    vkCreateSemaphore = PFN_vkCreateSemaphore(device: vk::Device, info: *const vk::SemaphoreCreateInfo<'_>, allocator: *const vk::AllocationCallbacks<'_>, semaphore: *mut vk::Semaphore) -> vk::Result => crate::semaphore::create;
    vkGetSemaphoreFdKHR = PFN_vkGetSemaphoreFdKHR(device: vk::Device, info: *const vk::SemaphoreGetFdInfoKHR<'_>, fd: *mut std::ffi::c_int) -> vk::Result => crate::semaphore::export;
    vkImportSemaphoreFdKHR = PFN_vkImportSemaphoreFdKHR(device: vk::Device, info: *const vk::ImportSemaphoreFdInfoKHR<'_>) -> vk::Result => crate::semaphore::import;
    vkCreateFence = PFN_vkCreateFence(device: vk::Device, info: *const vk::FenceCreateInfo<'_>, allocator: *const vk::AllocationCallbacks<'_>, fence: *mut vk::Fence) -> vk::Result => crate::fence::create;
    vkGetFenceFdKHR = PFN_vkGetFenceFdKHR(device: vk::Device, info: *const vk::FenceGetFdInfoKHR<'_>, fd: *mut std::ffi::c_int) -> vk::Result => crate::fence::export;
    vkImportFenceFdKHR = PFN_vkImportFenceFdKHR(device: vk::Device, info: *const vk::ImportFenceFdInfoKHR<'_>) -> vk::Result => crate::fence::import;
    vkDestroyEvent = PFN_vkDestroyEvent(device: vk::Device, event: vk::Event, allocator: *const vk::AllocationCallbacks<'_>) -> () => crate::event::destroy;
    vkCmdSetEvent = PFN_vkCmdSetEvent(commands: vk::CommandBuffer, event: vk::Event, stages: vk::PipelineStageFlags) -> () => crate::command_buffer::events::set;
    vkCmdWaitEvents = PFN_vkCmdWaitEvents(commands: vk::CommandBuffer, count: u32, events: *const vk::Event, from: vk::PipelineStageFlags, to: vk::PipelineStageFlags, memory_count: u32, memories: *const vk::MemoryBarrier<'_>, buffer_count: u32, buffers: *const vk::BufferMemoryBarrier<'_>, image_count: u32, images: *const vk::ImageMemoryBarrier<'_>) -> () => crate::command_buffer::events::wait;
    vkCmdWaitEvents2 | vkCmdWaitEvents2KHR = PFN_vkCmdWaitEvents2(commands: vk::CommandBuffer, count: u32, events: *const vk::Event, dependencies: *const vk::DependencyInfo<'_>) -> () => crate::command_buffer::events::wait2;
    vkSetEvent = PFN_vkSetEvent(device: vk::Device, event: vk::Event) -> vk::Result => crate::event::set;
    vkGetEventStatus = PFN_vkGetEventStatus(device: vk::Device, event: vk::Event) -> vk::Result => crate::event::status;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_the_command_s_failure() {
        assert_eq!(guard(|| -> vk::Result { panic!("on purpose") }), vk::Result::ERROR_UNKNOWN);
    }

    #[test]
    fn commands_are_found_by_each_of_their_names_and_no_other() {
        assert!(coherence::find(c"vkMapMemory2").is_some());
        assert!(coherence::find(c"vkMapMemory2KHR").is_some());
        assert!(coherence::find(c"vkCmdDraw").is_none());
        assert!(coherence::find(c"vkMapMemory3").is_none());
    }
}
