//! The table of intercepted commands. Every other command is lavapipe's own function.

#![allow(non_snake_case, reason = "commands keep the names of the Vulkan specification")]

use ash::vk;
use std::ffi::{CStr, c_char, c_int, c_void};

/// A function of any type.
pub(crate) type Void = unsafe extern "system" fn();

/// For each command of a level: a field for lavapipe's function, the mock's, whose signature is pinned to the one `ash`
/// generates from vk.xml, and the look-up by name.
macro_rules! commands {
    ($(#[$doc:meta])* $level:ident: $($name:ident $(| $alias:ident)* = $pfn:ident ($($arg:ident: $ty:ty),*) $(-> $ret:ty)? => $body:path;)*) => {
        $(#[$doc])*
        pub(crate) mod $level {
            use super::*;

            /// Lavapipe's own functions; `None` where it has none.
            #[allow(dead_code, reason = "some commands are answered without lavapipe")]
            pub(crate) struct Fns { $(pub(crate) $name: Option<vk::$pfn>,)* }

            #[allow(dead_code, reason = "of one level lavapipe has none")]
            impl Fns {
                /// Asks `get` for each, by all its names.
                pub(crate) fn load(get: impl Fn(&CStr) -> vk::PFN_vkVoidFunction) -> Self {
                    Self {
                        $($name: {
                            let names = [concat!(stringify!($name), "\0"), $(concat!(stringify!($alias), "\0"),)*];
                            let found = names.iter().find_map(|name| get(CStr::from_bytes_with_nul(name.as_bytes()).ok()?));
                            // SAFETY: the function of this name has this signature, by vk.xml.
                            found.map(|found| unsafe { std::mem::transmute::<Void, vk::$pfn>(found) })
                        },)*
                    }
                }
            }

            $(
                unsafe extern "system" fn $name($($arg: $ty),*) $(-> $ret)? {
                    // SAFETY: the caller keeps the valid usage the specification demands of this command, or else
                    // `misuse` is there to tell.
                    unsafe { $body($($arg),*) }
                }
            )*

            /// The mock's function of this name.
            pub(crate) fn find(name: &CStr) -> vk::PFN_vkVoidFunction {
                let name = name.to_str().ok()?;
                $(
                    if name == stringify!($name) $(|| name == stringify!($alias))* {
                        // SAFETY: a function pointer; who calls it knows its signature by its name.
                        return Some(unsafe { std::mem::transmute::<vk::$pfn, Void>($name) });
                    }
                )*
                None
            }
        }
    };
}

commands! {
    /// Commands of a physical device.
    physical_device:
    vkGetPhysicalDeviceExternalFenceProperties | vkGetPhysicalDeviceExternalFencePropertiesKHR = PFN_vkGetPhysicalDeviceExternalFenceProperties(device: vk::PhysicalDevice, info: *const vk::PhysicalDeviceExternalFenceInfo<'_>, properties: *mut vk::ExternalFenceProperties<'_>) => crate::external::fence_properties;
    vkGetPhysicalDeviceExternalSemaphoreProperties | vkGetPhysicalDeviceExternalSemaphorePropertiesKHR = PFN_vkGetPhysicalDeviceExternalSemaphoreProperties(device: vk::PhysicalDevice, info: *const vk::PhysicalDeviceExternalSemaphoreInfo<'_>, properties: *mut vk::ExternalSemaphoreProperties<'_>) => crate::external::semaphore_properties;
    vkGetPhysicalDeviceProperties = PFN_vkGetPhysicalDeviceProperties(device: vk::PhysicalDevice, properties: *mut vk::PhysicalDeviceProperties) => crate::physical_device::properties;
    vkGetPhysicalDeviceProperties2 | vkGetPhysicalDeviceProperties2KHR = PFN_vkGetPhysicalDeviceProperties2(device: vk::PhysicalDevice, properties: *mut vk::PhysicalDeviceProperties2<'_>) => crate::physical_device::properties2;
    vkGetPhysicalDeviceFeatures2 | vkGetPhysicalDeviceFeatures2KHR = PFN_vkGetPhysicalDeviceFeatures2(device: vk::PhysicalDevice, features: *mut vk::PhysicalDeviceFeatures2<'_>) => crate::physical_device::features2;
    vkGetPhysicalDeviceMemoryProperties = PFN_vkGetPhysicalDeviceMemoryProperties(device: vk::PhysicalDevice, properties: *mut vk::PhysicalDeviceMemoryProperties) => crate::physical_device::memory_properties;
    vkGetPhysicalDeviceMemoryProperties2 | vkGetPhysicalDeviceMemoryProperties2KHR = PFN_vkGetPhysicalDeviceMemoryProperties2(device: vk::PhysicalDevice, properties: *mut vk::PhysicalDeviceMemoryProperties2<'_>) => crate::physical_device::memory_properties2;
    vkGetPhysicalDeviceQueueFamilyProperties = PFN_vkGetPhysicalDeviceQueueFamilyProperties(device: vk::PhysicalDevice, families: *mut u32, properties: *mut vk::QueueFamilyProperties) => crate::queue::family_properties;
    vkGetPhysicalDeviceQueueFamilyProperties2 | vkGetPhysicalDeviceQueueFamilyProperties2KHR = PFN_vkGetPhysicalDeviceQueueFamilyProperties2(device: vk::PhysicalDevice, families: *mut u32, properties: *mut vk::QueueFamilyProperties2<'_>) => crate::queue::family_properties2;
    vkEnumerateDeviceExtensionProperties = PFN_vkEnumerateDeviceExtensionProperties(device: vk::PhysicalDevice, layer: *const c_char, count: *mut u32, properties: *mut vk::ExtensionProperties) -> vk::Result => crate::physical_device::enumerate_extensions;
    vkCreateDevice = PFN_vkCreateDevice(physical: vk::PhysicalDevice, info: *const vk::DeviceCreateInfo<'_>, allocator: *const vk::AllocationCallbacks<'_>, device: *mut vk::Device) -> vk::Result => crate::device::create;
}

commands! {
    /// Commands of a device.
    device:
    vkGetDeviceProcAddr = PFN_vkGetDeviceProcAddr(device: vk::Device, name: *const c_char) -> vk::PFN_vkVoidFunction => crate::device::proc_addr;
    vkDestroyDevice = PFN_vkDestroyDevice(device: vk::Device, allocator: *const vk::AllocationCallbacks<'_>) => crate::device::destroy;
    vkGetDeviceQueue = PFN_vkGetDeviceQueue(device: vk::Device, family: u32, index: u32, queue: *mut vk::Queue) => crate::queue::get;
    vkGetDeviceQueue2 = PFN_vkGetDeviceQueue2(device: vk::Device, info: *const vk::DeviceQueueInfo2<'_>, queue: *mut vk::Queue) => crate::queue::get2;

    vkQueueSubmit = PFN_vkQueueSubmit(queue: vk::Queue, count: u32, submits: *const vk::SubmitInfo<'_>, fence: vk::Fence) -> vk::Result => crate::external::submit;
    vkQueueSubmit2 | vkQueueSubmit2KHR = PFN_vkQueueSubmit2(queue: vk::Queue, count: u32, submits: *const vk::SubmitInfo2<'_>, fence: vk::Fence) -> vk::Result => crate::external::submit2;
    vkQueueBindSparse = PFN_vkQueueBindSparse(queue: vk::Queue, count: u32, binds: *const vk::BindSparseInfo<'_>, fence: vk::Fence) -> vk::Result => crate::queue::bind_sparse;
    vkQueuePresentKHR = PFN_vkQueuePresentKHR(queue: vk::Queue, info: *const vk::PresentInfoKHR<'_>) -> vk::Result => crate::queue::present;
    vkQueueWaitIdle = PFN_vkQueueWaitIdle(queue: vk::Queue) -> vk::Result => crate::queue::wait_idle;

    vkDeviceWaitIdle = PFN_vkDeviceWaitIdle(device: vk::Device) -> vk::Result => crate::loss::wait_idle;
    vkWaitForFences = PFN_vkWaitForFences(device: vk::Device, count: u32, fences: *const vk::Fence, all: vk::Bool32, timeout: u64) -> vk::Result => crate::loss::wait_for_fences;
    vkGetFenceStatus = PFN_vkGetFenceStatus(device: vk::Device, fence: vk::Fence) -> vk::Result => crate::loss::fence_status;
    vkWaitSemaphores | vkWaitSemaphoresKHR = PFN_vkWaitSemaphores(device: vk::Device, info: *const vk::SemaphoreWaitInfo<'_>, timeout: u64) -> vk::Result => crate::loss::wait_semaphores;
    vkGetSemaphoreCounterValue | vkGetSemaphoreCounterValueKHR = PFN_vkGetSemaphoreCounterValue(device: vk::Device, semaphore: vk::Semaphore, value: *mut u64) -> vk::Result => crate::loss::counter_value;
    vkAcquireNextImageKHR = PFN_vkAcquireNextImageKHR(device: vk::Device, swapchain: vk::SwapchainKHR, timeout: u64, semaphore: vk::Semaphore, fence: vk::Fence, index: *mut u32) -> vk::Result => crate::loss::acquire;
    vkResetFences = PFN_vkResetFences(device: vk::Device, count: u32, fences: *const vk::Fence) -> vk::Result => crate::external::reset_fences;
    vkCreateFence = PFN_vkCreateFence(device: vk::Device, info: *const vk::FenceCreateInfo<'_>, allocator: *const vk::AllocationCallbacks<'_>, fence: *mut vk::Fence) -> vk::Result => crate::external::create_fence;
    vkCreateSemaphore = PFN_vkCreateSemaphore(device: vk::Device, info: *const vk::SemaphoreCreateInfo<'_>, allocator: *const vk::AllocationCallbacks<'_>, semaphore: *mut vk::Semaphore) -> vk::Result => crate::external::create_semaphore;

    vkDestroyFence = PFN_vkDestroyFence(device: vk::Device, fence: vk::Fence, allocator: *const vk::AllocationCallbacks<'_>) => crate::external::destroy_fence;
    vkDestroySemaphore = PFN_vkDestroySemaphore(device: vk::Device, semaphore: vk::Semaphore, allocator: *const vk::AllocationCallbacks<'_>) => crate::external::destroy_semaphore;

    vkAllocateMemory = PFN_vkAllocateMemory(device: vk::Device, info: *const vk::MemoryAllocateInfo<'_>, allocator: *const vk::AllocationCallbacks<'_>, memory: *mut vk::DeviceMemory) -> vk::Result => crate::memory::allocate;
    vkFreeMemory = PFN_vkFreeMemory(device: vk::Device, memory: vk::DeviceMemory, allocator: *const vk::AllocationCallbacks<'_>) => crate::memory::free;
    vkMapMemory = PFN_vkMapMemory(device: vk::Device, memory: vk::DeviceMemory, offset: vk::DeviceSize, size: vk::DeviceSize, flags: vk::MemoryMapFlags, data: *mut *mut c_void) -> vk::Result => crate::memory::map;
    vkMapMemory2 | vkMapMemory2KHR = PFN_vkMapMemory2KHR(device: vk::Device, info: *const vk::MemoryMapInfoKHR<'_>, data: *mut *mut c_void) -> vk::Result => crate::memory::map2;
    vkUnmapMemory = PFN_vkUnmapMemory(device: vk::Device, memory: vk::DeviceMemory) => crate::memory::unmap;
    vkUnmapMemory2 | vkUnmapMemory2KHR = PFN_vkUnmapMemory2KHR(device: vk::Device, info: *const vk::MemoryUnmapInfoKHR<'_>) -> vk::Result => crate::memory::unmap2;
    vkFlushMappedMemoryRanges = PFN_vkFlushMappedMemoryRanges(device: vk::Device, count: u32, ranges: *const vk::MappedMemoryRange<'_>) -> vk::Result => crate::memory::flush;
    vkInvalidateMappedMemoryRanges = PFN_vkInvalidateMappedMemoryRanges(device: vk::Device, count: u32, ranges: *const vk::MappedMemoryRange<'_>) -> vk::Result => crate::memory::invalidate;

    vkCreateBuffer = PFN_vkCreateBuffer(device: vk::Device, info: *const vk::BufferCreateInfo<'_>, allocator: *const vk::AllocationCallbacks<'_>, buffer: *mut vk::Buffer) -> vk::Result => crate::resources::create_buffer;
    vkCreateImage = PFN_vkCreateImage(device: vk::Device, info: *const vk::ImageCreateInfo<'_>, allocator: *const vk::AllocationCallbacks<'_>, image: *mut vk::Image) -> vk::Result => crate::resources::create_image;

    vkGetBufferMemoryRequirements = PFN_vkGetBufferMemoryRequirements(device: vk::Device, buffer: vk::Buffer, requirements: *mut vk::MemoryRequirements) => crate::requirements::buffer;
    vkGetBufferMemoryRequirements2 | vkGetBufferMemoryRequirements2KHR = PFN_vkGetBufferMemoryRequirements2(device: vk::Device, info: *const vk::BufferMemoryRequirementsInfo2<'_>, requirements: *mut vk::MemoryRequirements2<'_>) => crate::requirements::buffer2;
    vkGetDeviceBufferMemoryRequirements | vkGetDeviceBufferMemoryRequirementsKHR = PFN_vkGetDeviceBufferMemoryRequirements(device: vk::Device, info: *const vk::DeviceBufferMemoryRequirements<'_>, requirements: *mut vk::MemoryRequirements2<'_>) => crate::requirements::device_buffer;
    vkGetImageMemoryRequirements = PFN_vkGetImageMemoryRequirements(device: vk::Device, image: vk::Image, requirements: *mut vk::MemoryRequirements) => crate::requirements::image;
    vkGetImageMemoryRequirements2 | vkGetImageMemoryRequirements2KHR = PFN_vkGetImageMemoryRequirements2(device: vk::Device, info: *const vk::ImageMemoryRequirementsInfo2<'_>, requirements: *mut vk::MemoryRequirements2<'_>) => crate::requirements::image2;
    vkGetDeviceImageMemoryRequirements | vkGetDeviceImageMemoryRequirementsKHR = PFN_vkGetDeviceImageMemoryRequirements(device: vk::Device, info: *const vk::DeviceImageMemoryRequirements<'_>, requirements: *mut vk::MemoryRequirements2<'_>) => crate::requirements::device_image;
    vkGetMemoryFdPropertiesKHR = PFN_vkGetMemoryFdPropertiesKHR(device: vk::Device, kind: vk::ExternalMemoryHandleTypeFlags, fd: c_int, properties: *mut vk::MemoryFdPropertiesKHR<'_>) -> vk::Result => crate::requirements::memory_fd;
}

commands! {
    /// Commands of a device that lavapipe does not have.
    external:
    vkGetFenceFdKHR = PFN_vkGetFenceFdKHR(device: vk::Device, info: *const vk::FenceGetFdInfoKHR<'_>, fd: *mut c_int) -> vk::Result => crate::external::get_fence_fd;
    vkGetSemaphoreFdKHR = PFN_vkGetSemaphoreFdKHR(device: vk::Device, info: *const vk::SemaphoreGetFdInfoKHR<'_>, fd: *mut c_int) -> vk::Result => crate::external::get_semaphore_fd;
    vkImportFenceFdKHR = PFN_vkImportFenceFdKHR(device: vk::Device, info: *const vk::ImportFenceFdInfoKHR<'_>) -> vk::Result => crate::external::import_fence_fd;
    vkImportSemaphoreFdKHR = PFN_vkImportSemaphoreFdKHR(device: vk::Device, info: *const vk::ImportSemaphoreFdInfoKHR<'_>) -> vk::Result => crate::external::import_semaphore_fd;
}
