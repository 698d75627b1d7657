//! A Vulkan device, for programs that put a driver to the test: on whatever driver the loader finds.

use ash::{Entry, Instance, vk};
use std::ffi::c_void;

/// The first physical device, with queues that can do everything.
pub struct Gpu {
    /// The device.
    pub device: ash::Device,
    /// Its first queue, of family 0.
    pub queue: vk::Queue,
    /// Up to [`QUEUES`] of that family, the first one included.
    pub queues: Vec<vk::Queue>,
    /// Its memory types.
    pub memory: vk::PhysicalDeviceMemoryProperties,
    /// The instance.
    pub instance: Instance,
    /// The physical device.
    pub physical: vk::PhysicalDevice,
    /// Whether buffers may have addresses.
    pub has_buffer_device_address: bool,
    /// Whether storage buffers may be bound to descriptors after these were bound to a command buffer.
    pub has_update_after_bind: bool,
    /// The loader stays loaded as long as anything made by it.
    _entry: Entry,
}

/// Queues that are asked for, if there are as many.
pub const QUEUES: usize = 3;

impl Gpu {
    /// Makes an instance and a device of Vulkan 1.3.
    ///
    /// # Errors
    /// What failed, in words.
    pub fn new() -> Result<Self, String> {
        let failed = |what: &'static str| move |error: vk::Result| format!("{what} returned {error}");
        let entry = load()?;
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let info = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: valid create infos, here and below; handles are destroyed in `drop`, in reverse order.
        let instance = unsafe { entry.create_instance(&info, None) }.map_err(failed("vkCreateInstance"))?;
        // SAFETY: a live instance.
        let physical =
            unsafe { instance.enumerate_physical_devices() }.map_err(failed("vkEnumeratePhysicalDevices"))?;
        let physical = *physical.first().ok_or("no Vulkan device")?;
        // SAFETY: a device of the live instance.
        let families = unsafe { instance.get_physical_device_queue_family_properties(physical) };
        let count = families.first().ok_or("no queue family")?.queue_count.clamp(1, QUEUES as u32);
        let priorities = [1.0; QUEUES];
        let queues = [vk::DeviceQueueCreateInfo::default()
            .queue_family_index(0)
            .queue_priorities(&priorities[..count as usize])];
        let mut offered = vk::PhysicalDeviceVulkan12Features::default();
        let mut features = vk::PhysicalDeviceFeatures2::default().push_next(&mut offered);
        // SAFETY: a device of the live instance.
        unsafe { instance.get_physical_device_features2(physical, &mut features) };
        let has_buffer_device_address = offered.buffer_device_address == vk::TRUE;
        let has_update_after_bind = offered.descriptor_binding_storage_buffer_update_after_bind == vk::TRUE;
        let mut vulkan12 = vk::PhysicalDeviceVulkan12Features::default()
            .timeline_semaphore(true)
            .buffer_device_address(has_buffer_device_address)
            .descriptor_binding_storage_buffer_update_after_bind(has_update_after_bind);
        let mut vulkan13 = vk::PhysicalDeviceVulkan13Features::default().synchronization2(true);
        let info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .push_next(&mut vulkan12)
            .push_next(&mut vulkan13);
        // SAFETY: features that every device of Vulkan 1.3 has, or this one.
        let device =
            unsafe { instance.create_device(physical, &info, None) }.map_err(failed("vkCreateDevice"))?;
        // SAFETY: the queues asked for above.
        let queues: Vec<vk::Queue> =
            (0..count).map(|index| unsafe { device.get_device_queue(0, index) }).collect();
        // SAFETY: a device of the live instance.
        let memory = unsafe { instance.get_physical_device_memory_properties(physical) };
        Ok(Self {
            device,
            queue: queues[0],
            queues,
            memory,
            instance,
            physical,
            has_buffer_device_address,
            has_update_after_bind,
            _entry: entry,
        })
    }

    /// A memory type with all of `wanted` and none of `unwanted`, out of `bits`.
    #[must_use]
    pub fn memory_type(
        &self,
        bits: u32,
        wanted: vk::MemoryPropertyFlags,
        unwanted: vk::MemoryPropertyFlags,
    ) -> Option<u32> {
        (0..).zip(self.memory.memory_types_as_slice()).find_map(|(index, memory_type)| {
            let flags = memory_type.property_flags;
            (bits >> index & 1 == 1 && flags.contains(wanted) && !flags.intersects(unwanted)).then_some(index)
        })
    }

    /// A coherent memory type out of `bits`, a cached one if there is one: the better for a host that reads, and what
    /// Tidemark adds to devices that have none.
    #[must_use]
    pub fn coherent_type(&self, bits: u32) -> Option<u32> {
        use vk::MemoryPropertyFlags as Flags;
        let (coherent, none) = (Flags::HOST_VISIBLE | Flags::HOST_COHERENT, Flags::empty());
        let cached = self.memory_type(bits, coherent | Flags::HOST_CACHED, none);
        cached.or_else(|| self.memory_type(bits, coherent, none))
    }

    /// A fence that is not signaled.
    ///
    /// # Errors
    /// The command's.
    pub fn fence(&self) -> Result<vk::Fence, vk::Result> {
        // SAFETY: a live device.
        unsafe { self.device.create_fence(&vk::FenceCreateInfo::default(), None) }
    }

    /// A timeline semaphore at 0.
    ///
    /// # Errors
    /// The command's.
    pub fn timeline(&self) -> Result<vk::Semaphore, vk::Result> {
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: a live device with the feature enabled.
        unsafe { self.device.create_semaphore(&info, None) }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: what was made with the device is gone, by the owner's care; nothing is pending after the wait.
        unsafe {
            let _ = self.device.device_wait_idle();
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

/// Compiles a shader from WGSL to SPIR-V. It may have push constants.
///
/// # Errors
/// What is wrong with it.
pub fn compile_shader(source: &str) -> Result<Vec<u32>, String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|error| error.to_string())?;
    let flags = naga::valid::ValidationFlags::all();
    let mut validator = naga::valid::Validator::new(flags, naga::valid::Capabilities::IMMEDIATES);
    let info = validator.validate(&module).map_err(|error| format!("{error:?}"))?;
    let options = naga::back::spv::Options::default();
    naga::back::spv::write_vec(&module, &info, &options, None).map_err(|error| error.to_string())
}

/// Opens the Vulkan loader.
fn load() -> Result<Entry, String> {
    // SAFETY: opening a library runs its initialisers; the loader's may run in any process.
    let library = unsafe { libc::dlopen(c"libvulkan.so.1".as_ptr(), libc::RTLD_NOW) };
    if library.is_null() {
        return Err("libvulkan.so.1 cannot be opened: run tests/setup".to_string());
    }
    // SAFETY: a handle that is never closed.
    let symbol = unsafe { libc::dlsym(library, c"vkGetInstanceProcAddr".as_ptr()) };
    if symbol.is_null() {
        return Err("libvulkan.so.1 has no vkGetInstanceProcAddr".to_string());
    }
    // SAFETY: the loader's symbol of this name has this type.
    let get_instance_proc_addr =
        unsafe { std::mem::transmute::<*mut c_void, vk::PFN_vkGetInstanceProcAddr>(symbol) };
    // SAFETY: the loader's own function.
    Ok(unsafe { Entry::from_static_fn(ash::StaticFn { get_instance_proc_addr }) })
}
