//! What the driver itself answers, without the loader, when it is asked as it was built: a probe tells whether Tidemark
//! had its hand in it.
//!
//! Played by a child, this test program.

use crate::arena;
use ash::vk;
use std::ffi::{CStr, CString};
use tidemark_tests::{Library, Outcome, driver_library};

/// Instances that [`arena`] makes, one after the other, for vkDestroyInstance.
pub const INSTANCES: usize = 8;

/// Whether a child that played `command` saw Tidemark's hand in it.
pub fn saw_tidemark(command: &str, outcome: &Outcome) -> bool {
    if command == "vkDestroyInstance" {
        // The devices of each are looked at anew, though they have the handles of those before.
        let looks = outcome.stderr.lines().filter(|line| line.contains("mode always, memory types")).count();
        return looks == INSTANCES;
    }
    outcome.stdout.contains("saw: true")
}

/// Plays the part of a probe.
pub fn play(command: &str) {
    println!("saw: {}", sees_tidemark(command));
}

type Void = unsafe extern "system" fn();

/// The driver's function of this name and type.
///
/// # Safety
/// The type must be the function's.
unsafe fn function<F: Copy>(library: Library, instance: vk::Instance, name: &str) -> F {
    let name = CString::new(name).expect("a name has no zero in it");
    // SAFETY: a live instance, or null.
    let found = unsafe { (library.get_instance_proc_addr)(instance, name.as_ptr()) };
    let found: Void = found.unwrap_or_else(|| panic!("there is no {name:?}"));
    // SAFETY: the caller's promise.
    unsafe { std::mem::transmute_copy::<Void, F>(&found) }
}

fn sees_tidemark(command: &str) -> bool {
    let library = Library::open(&driver_library());
    let name = CString::new(command).expect("a name has no zero in it");
    match command {
        // There is no backing driver, and still an answer.
        "vkEnumerateInstanceExtensionProperties" | "vkEnumerateInstanceVersion" => {
            return library.command(vk::Instance::null(), &name) != 0;
        }
        "vkDestroyInstance" => {
            arena::instances(library);
            return true;
        }
        _ => {}
    }
    let instance = instance(library);
    // SAFETY: each command is asked for by a name that tells its type, and gets a device of the live instance and a
    // structure to fill.
    unsafe {
        if command.starts_with("vkEnumeratePhysicalDeviceGroups") {
            let enumerate =
                function::<vk::PFN_vkEnumeratePhysicalDeviceGroups>(library, instance.handle(), command);
            let (mut count, mut group) = (1, vk::PhysicalDeviceGroupProperties::default());
            let result = enumerate(instance.handle(), &raw mut count, &raw mut group);
            assert_eq!(result, vk::Result::SUCCESS);
            // Tidemark makes a device of those only that it has seen.
            return create(&instance, group.physical_devices[0]).is_ok();
        }
        let physical = first_device(&instance);
        let plain = command.trim_end_matches("KHR");
        match plain {
            "vkGetPhysicalDeviceProperties" => {
                let get =
                    function::<vk::PFN_vkGetPhysicalDeviceProperties>(library, instance.handle(), command);
                let mut properties = vk::PhysicalDeviceProperties::default();
                get(physical, &raw mut properties);
                is_tidemark_s(&properties)
            }
            "vkGetPhysicalDeviceProperties2" => {
                let get =
                    function::<vk::PFN_vkGetPhysicalDeviceProperties2>(library, instance.handle(), command);
                let mut properties = vk::PhysicalDeviceProperties2::default();
                get(physical, &raw mut properties);
                is_tidemark_s(&properties.properties)
            }
            "vkGetPhysicalDeviceFeatures2" => {
                let get =
                    function::<vk::PFN_vkGetPhysicalDeviceFeatures2>(library, instance.handle(), command);
                // The mock has it.
                let mut micromaps = vk::PhysicalDeviceOpacityMicromapFeaturesEXT::default();
                let mut features = vk::PhysicalDeviceFeatures2::default().push_next(&mut micromaps);
                get(physical, &raw mut features);
                micromaps.micromap_host_commands == vk::FALSE
            }
            "vkGetPhysicalDeviceMemoryProperties" => {
                let get = function::<vk::PFN_vkGetPhysicalDeviceMemoryProperties>(
                    library,
                    instance.handle(),
                    command,
                );
                let mut memory = vk::PhysicalDeviceMemoryProperties::default();
                get(physical, &raw mut memory);
                memory.memory_type_count > 1
            }
            "vkGetPhysicalDeviceMemoryProperties2" => {
                let get = function::<vk::PFN_vkGetPhysicalDeviceMemoryProperties2>(
                    library,
                    instance.handle(),
                    command,
                );
                let mut memory = vk::PhysicalDeviceMemoryProperties2::default();
                get(physical, &raw mut memory);
                memory.memory_properties.memory_type_count > 1
            }
            "vkGetPhysicalDeviceExternalBufferProperties" => {
                let get = function::<vk::PFN_vkGetPhysicalDeviceExternalBufferProperties>(
                    library,
                    instance.handle(),
                    command,
                );
                let info = vk::PhysicalDeviceExternalBufferInfo::default()
                    .usage(vk::BufferUsageFlags::TRANSFER_SRC)
                    .handle_type(FOREIGN);
                let mut properties = vk::ExternalBufferProperties::default();
                get(physical, &raw const info, &raw mut properties);
                is_importable(&properties.external_memory_properties)
            }
            "vkGetPhysicalDeviceImageFormatProperties2" => {
                let get = function::<vk::PFN_vkGetPhysicalDeviceImageFormatProperties2>(
                    library,
                    instance.handle(),
                    command,
                );
                let mut external = vk::PhysicalDeviceExternalImageFormatInfo::default().handle_type(FOREIGN);
                let info = vk::PhysicalDeviceImageFormatInfo2::default()
                    .format(vk::Format::R8G8B8A8_UINT)
                    .ty(vk::ImageType::TYPE_2D)
                    .tiling(vk::ImageTiling::LINEAR)
                    .usage(vk::ImageUsageFlags::TRANSFER_DST)
                    .push_next(&mut external);
                let mut images = vk::ExternalImageFormatProperties::default();
                let mut formats = vk::ImageFormatProperties2::default().push_next(&mut images);
                let result = get(physical, &raw const info, &raw mut formats);
                result == vk::Result::SUCCESS && is_importable(&images.external_memory_properties)
            }
            "vkEnumerateDeviceExtensionProperties" => {
                let shown = instance.enumerate_device_extension_properties(physical);
                let mut shown = shown.expect("cannot enumerate").into_iter();
                !shown.any(|extension| extension.extension_name_as_c_str() == Ok(HIDDEN))
            }
            "vkCreateDevice" => {
                let device = create(&instance, physical).expect("cannot create a device");
                // Tidemark looks nothing up for devices that it has not seen.
                library.device_command(instance.handle(), device, c"vkQueueSubmit") != 0
            }
            _ => panic!("there is no probe for {command}"),
        }
    }
}

/// Host memory of a kind that lavapipe does not import.
const FOREIGN: vk::ExternalMemoryHandleTypeFlags =
    vk::ExternalMemoryHandleTypeFlags::HOST_MAPPED_FOREIGN_MEMORY_EXT;

fn is_importable(properties: &vk::ExternalMemoryProperties) -> bool {
    properties.external_memory_features.contains(vk::ExternalMemoryFeatureFlags::IMPORTABLE)
}

/// An extension that is hidden, and that the mock claims to have.
pub const HIDDEN: &CStr = c"VK_NV_ray_tracing";

fn is_tidemark_s(properties: &vk::PhysicalDeviceProperties) -> bool {
    properties.device_name_as_c_str().is_ok_and(|name| name.to_bytes().starts_with(b"Tidemark ("))
}

/// An instance with the extensions whose commands became part of Vulkan 1.1.
fn instance(library: Library) -> ash::Instance {
    instance_in(library, None)
}

/// The same, in memory of `allocator`.
pub fn instance_in(library: Library, allocator: Option<&vk::AllocationCallbacks<'_>>) -> ash::Instance {
    let get = ash::StaticFn { get_instance_proc_addr: library.get_instance_proc_addr };
    // SAFETY: the driver's function answers what `ash` asks of it.
    let entry = unsafe { ash::Entry::from_static_fn(get) };
    let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
    let extensions = [
        ash::khr::device_group_creation::NAME.as_ptr(),
        ash::khr::get_physical_device_properties2::NAME.as_ptr(),
        ash::khr::external_memory_capabilities::NAME.as_ptr(),
    ];
    let info =
        vk::InstanceCreateInfo::default().application_info(&application).enabled_extension_names(&extensions);
    // SAFETY: a valid create info.
    unsafe { entry.create_instance(&info, allocator) }.expect("cannot create an instance")
}

pub fn first_device(instance: &ash::Instance) -> vk::PhysicalDevice {
    // SAFETY: a live instance.
    unsafe { instance.enumerate_physical_devices() }.expect("cannot enumerate")[0]
}

fn create(instance: &ash::Instance, physical: vk::PhysicalDevice) -> Result<vk::Device, vk::Result> {
    let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
    let info = vk::DeviceCreateInfo::default().queue_create_infos(&queues);
    let mut device = vk::Device::null();
    // SAFETY: a physical device of the live instance, and a valid create info. The process ends soon.
    unsafe {
        (instance.fp_v1_0().create_device)(physical, &raw const info, std::ptr::null(), &raw mut device)
    }
    .result_with_success(device)
}
