//! A Vulkan device, for programs that put a driver to the test: on whatever driver the loader finds.

use ash::{Entry, Instance, vk};
use std::ffi::{CStr, CString, c_void};

use crate::{Map2, PlacedFeatures};

/// The first physical device, with queues that can do everything.
pub struct Gpu {
    /// The device.
    pub device: ash::Device,
    /// Its first queue, of family 0.
    pub queue: vk::Queue,
    /// Up to [`QUEUES`] of that family, the first one included.
    pub queues: Vec<vk::Queue>,
    /// One of family 1, where there is that.
    pub queue_of_other_family: Option<vk::Queue>,
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
    /// Whether draws may take their count from a buffer.
    pub has_draw_indirect_count: bool,
    /// VK_KHR_map_memory2, where there is that.
    pub map2: Option<Map2>,
    /// What can be placed: nothing, unless that was asked for.
    pub placed: PlacedFeatures<'static>,
    /// Whether presentations may have numbers.
    pub has_present_id: bool,
    /// The extensions that are enabled.
    extensions: Vec<&'static CStr>,
    /// Names that commands are looked up by, in the place of others that mean the same.
    names: Vec<CString>,
    /// The loader, which stays loaded.
    pub entry: Entry,
}

/// Queues that are asked for, if there are as many.
pub const QUEUES: usize = 3;

/// Instance extensions that are enabled where they are there.
const INSTANCE_EXTENSIONS: [&CStr; 4] = [
    ash::khr::surface::NAME,
    ash::khr::get_surface_capabilities2::NAME,
    ash::ext::headless_surface::NAME,
    ash::ext::surface_maintenance1::NAME,
];

/// Device extensions likewise. Those that became part of Vulkan have other names for its commands.
const EXTENSIONS: [&CStr; 26] = [
    ash::amd::draw_indirect_count::NAME,
    ash::ext::conditional_rendering::NAME,
    ash::ext::extended_dynamic_state::NAME,
    ash::ext::external_memory_host::NAME,
    ash::ext::host_image_copy::NAME,
    ash::ext::mesh_shader::NAME,
    ash::ext::swapchain_maintenance1::NAME,
    ash::ext::transform_feedback::NAME,
    ash::khr::bind_memory2::NAME,
    ash::khr::copy_commands2::NAME,
    ash::khr::descriptor_update_template::NAME,
    ash::khr::draw_indirect_count::NAME,
    ash::khr::external_fence_fd::NAME,
    ash::khr::external_memory_fd::NAME,
    ash::khr::external_semaphore_fd::NAME,
    ash::khr::get_memory_requirements2::NAME,
    ash::khr::maintenance4::NAME,
    ash::khr::maintenance5::NAME,
    ash::khr::maintenance6::NAME,
    ash::khr::map_memory2::NAME,
    ash::khr::present_id::NAME,
    ash::khr::present_wait::NAME,
    ash::khr::push_descriptor::NAME,
    ash::khr::swapchain::NAME,
    ash::khr::synchronization2::NAME,
    ash::khr::timeline_semaphore::NAME,
];

/// Which `ash` does not know, nor validation layers of its time: they would find fault with its structures.
const PLACED: &CStr = c"VK_EXT_map_memory_placed";

/// The features that are asked for where the device has them.
#[derive(Default)]
struct Features {
    core: vk::PhysicalDeviceFeatures,
    vulkan12: vk::PhysicalDeviceVulkan12Features<'static>,
    vulkan13: vk::PhysicalDeviceVulkan13Features<'static>,
    conditional_rendering: vk::PhysicalDeviceConditionalRenderingFeaturesEXT<'static>,
    host_image_copy: vk::PhysicalDeviceHostImageCopyFeaturesEXT<'static>,
    maintenance5: vk::PhysicalDeviceMaintenance5FeaturesKHR<'static>,
    maintenance6: vk::PhysicalDeviceMaintenance6FeaturesKHR<'static>,
    mesh_shader: vk::PhysicalDeviceMeshShaderFeaturesEXT<'static>,
    placed: PlacedFeatures<'static>,
    present_id: vk::PhysicalDevicePresentIdFeaturesKHR<'static>,
    present_wait: vk::PhysicalDevicePresentWaitFeaturesKHR<'static>,
    swapchain_maintenance1: vk::PhysicalDeviceSwapchainMaintenance1FeaturesEXT<'static>,
    transform_feedback: vk::PhysicalDeviceTransformFeedbackFeaturesEXT<'static>,
}

impl Features {
    /// Those that the device offers, of which no more than are used here.
    fn of(instance: &Instance, physical: vk::PhysicalDevice) -> Self {
        let mut offered = Self::default();
        let mut all = vk::PhysicalDeviceFeatures2::default()
            .push_next(&mut offered.vulkan12)
            .push_next(&mut offered.vulkan13)
            .push_next(&mut offered.conditional_rendering)
            .push_next(&mut offered.host_image_copy)
            .push_next(&mut offered.maintenance5)
            .push_next(&mut offered.maintenance6)
            .push_next(&mut offered.mesh_shader)
            .push_next(&mut offered.placed)
            .push_next(&mut offered.present_id)
            .push_next(&mut offered.present_wait)
            .push_next(&mut offered.swapchain_maintenance1)
            .push_next(&mut offered.transform_feedback);
        // SAFETY: a device of the live instance, and a valid chain: structures that are not known are left alone.
        unsafe { instance.get_physical_device_features2(physical, &mut all) };
        let core = all.features;
        let is = |feature: vk::Bool32| feature == vk::TRUE;
        Self {
            core: vk::PhysicalDeviceFeatures::default()
                .multi_draw_indirect(is(core.multi_draw_indirect))
                .sparse_binding(is(core.sparse_binding))
                .vertex_pipeline_stores_and_atomics(is(core.vertex_pipeline_stores_and_atomics)),
            vulkan12: vk::PhysicalDeviceVulkan12Features::default()
                .timeline_semaphore(true)
                .buffer_device_address(is(offered.vulkan12.buffer_device_address))
                .draw_indirect_count(is(offered.vulkan12.draw_indirect_count))
                .descriptor_binding_storage_buffer_update_after_bind(is(offered
                    .vulkan12
                    .descriptor_binding_storage_buffer_update_after_bind)),
            vulkan13: vk::PhysicalDeviceVulkan13Features::default()
                .synchronization2(true)
                .dynamic_rendering(true)
                .maintenance4(true),
            conditional_rendering: vk::PhysicalDeviceConditionalRenderingFeaturesEXT::default()
                .conditional_rendering(is(offered.conditional_rendering.conditional_rendering)),
            host_image_copy: vk::PhysicalDeviceHostImageCopyFeaturesEXT::default()
                .host_image_copy(is(offered.host_image_copy.host_image_copy)),
            maintenance5: vk::PhysicalDeviceMaintenance5FeaturesKHR::default()
                .maintenance5(is(offered.maintenance5.maintenance5)),
            maintenance6: vk::PhysicalDeviceMaintenance6FeaturesKHR::default()
                .maintenance6(is(offered.maintenance6.maintenance6)),
            mesh_shader: vk::PhysicalDeviceMeshShaderFeaturesEXT::default()
                .mesh_shader(is(offered.mesh_shader.mesh_shader)),
            placed: PlacedFeatures { p_next: std::ptr::null_mut(), ..offered.placed },
            present_id: vk::PhysicalDevicePresentIdFeaturesKHR::default()
                .present_id(is(offered.present_id.present_id)),
            present_wait: vk::PhysicalDevicePresentWaitFeaturesKHR::default()
                .present_wait(is(offered.present_wait.present_wait)),
            swapchain_maintenance1: vk::PhysicalDeviceSwapchainMaintenance1FeaturesEXT::default()
                .swapchain_maintenance1(is(offered.swapchain_maintenance1.swapchain_maintenance1)),
            transform_feedback: vk::PhysicalDeviceTransformFeedbackFeaturesEXT::default()
                .transform_feedback(is(offered.transform_feedback.transform_feedback)),
        }
    }

    /// Adds to a create info those that Vulkan 1.3 or `enabled` extensions bring.
    fn extend<'a>(
        &'a mut self,
        info: vk::DeviceCreateInfo<'a>,
        enabled: &[&CStr],
    ) -> vk::DeviceCreateInfo<'a> {
        let mut info =
            info.enabled_features(&self.core).push_next(&mut self.vulkan12).push_next(&mut self.vulkan13);
        macro_rules! add {
            ($($extension:path => $features:ident),* $(,)?) => {
                $(if enabled.contains(&$extension) {
                    info = info.push_next(&mut self.$features);
                })*
            };
        }
        add! {
            ash::ext::conditional_rendering::NAME => conditional_rendering,
            ash::ext::host_image_copy::NAME => host_image_copy,
            ash::khr::maintenance5::NAME => maintenance5,
            ash::khr::maintenance6::NAME => maintenance6,
            ash::ext::mesh_shader::NAME => mesh_shader,
            ash::khr::present_id::NAME => present_id,
            ash::khr::present_wait::NAME => present_wait,
            ash::ext::swapchain_maintenance1::NAME => swapchain_maintenance1,
            ash::ext::transform_feedback::NAME => transform_feedback,
            PLACED => placed,
        }
        info
    }
}

/// Those of `wanted` that are among `offered`.
fn intersect(wanted: &[&'static CStr], offered: &[vk::ExtensionProperties]) -> Vec<&'static CStr> {
    let is_offered = |name: &CStr| offered.iter().any(|one| one.extension_name_as_c_str() == Ok(name));
    wanted.iter().copied().filter(|name| is_offered(name)).collect()
}

impl Gpu {
    /// Makes an instance and a device of Vulkan 1.3 or later, with what is used here of extensions and features.
    ///
    /// # Errors
    /// What failed, in words.
    pub fn new() -> Result<Self, String> {
        Self::make(&[], &EXTENSIONS)
    }

    /// The same. Commands that have one of `names` are looked up by that one, not by the name that it is an alias of.
    ///
    /// # Errors
    /// What failed, in words.
    pub fn with_names(names: &[CString]) -> Result<Self, String> {
        Self::make(names, &EXTENSIONS)
    }

    /// The same, where memory can be placed if the device can do that.
    ///
    /// # Errors
    /// What failed, in words.
    pub fn placing(names: &[CString]) -> Result<Self, String> {
        Self::make(names, &[&EXTENSIONS[..], &[PLACED]].concat())
    }

    fn make(names: &[CString], wanted: &[&'static CStr]) -> Result<Self, String> {
        let failed = |what: &'static str| move |error: vk::Result| format!("{what} returned {error}");
        let entry = load()?;
        // SAFETY: no layer is asked about.
        let offered = unsafe { entry.enumerate_instance_extension_properties(None) };
        let offered = offered.map_err(failed("vkEnumerateInstanceExtensionProperties"))?;
        let extensions: Vec<_> =
            intersect(&INSTANCE_EXTENSIONS, &offered).iter().map(|name| name.as_ptr()).collect();
        let create = |version| {
            let application = vk::ApplicationInfo::default().api_version(version);
            let info = vk::InstanceCreateInfo::default()
                .application_info(&application)
                .enabled_extension_names(&extensions);
            // SAFETY: valid create infos, here and below; handles are destroyed in `drop`, in reverse order.
            unsafe { entry.create_instance(&info, None) }
        };
        // The newest there is: a device is of the version that it knows. SwiftShader will have none but its own.
        let instance = match create(vk::make_api_version(0, 1, 4, 0)) {
            Err(vk::Result::ERROR_INCOMPATIBLE_DRIVER) => create(vk::API_VERSION_1_3),
            result => result,
        };
        let instance = instance.map_err(failed("vkCreateInstance"))?;
        // SAFETY: a live instance.
        let physical =
            unsafe { instance.enumerate_physical_devices() }.map_err(failed("vkEnumeratePhysicalDevices"))?;
        let physical = *physical.first().ok_or("no Vulkan device")?;
        // SAFETY: a device of the live instance.
        let families = unsafe { instance.get_physical_device_queue_family_properties(physical) };
        let count = families.first().ok_or("no queue family")?.queue_count.clamp(1, QUEUES as u32);
        let priorities = [1.0; QUEUES];
        let family = |index, count| {
            vk::DeviceQueueCreateInfo::default()
                .queue_family_index(index)
                .queue_priorities(&priorities[..count])
        };
        let mut queues = vec![family(0, count as usize)];
        if families.len() > 1 {
            queues.push(family(1, 1));
        }
        // SAFETY: a device of the live instance.
        let offered = unsafe { instance.enumerate_device_extension_properties(physical) };
        let offered = offered.map_err(failed("vkEnumerateDeviceExtensionProperties"))?;
        let extensions = intersect(wanted, &offered);
        let extension_names: Vec<_> = extensions.iter().map(|name| name.as_ptr()).collect();
        let mut features = Features::of(&instance, physical);
        let has_buffer_device_address = features.vulkan12.buffer_device_address == vk::TRUE;
        let has_draw_indirect_count = features.vulkan12.draw_indirect_count == vk::TRUE
            || [ash::khr::draw_indirect_count::NAME, ash::amd::draw_indirect_count::NAME]
                .iter()
                .any(|name| extensions.contains(name));
        let has_update_after_bind =
            features.vulkan12.descriptor_binding_storage_buffer_update_after_bind == vk::TRUE;
        let has_present_id = features.present_id.present_id == vk::TRUE;
        let placed = if extensions.contains(&PLACED) { features.placed } else { PlacedFeatures::default() };
        let info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&extension_names);
        let info = features.extend(info, &extensions);
        let mut handle = vk::Device::null();
        // SAFETY: features that every device of Vulkan 1.3 has, or this one.
        let result = unsafe {
            (instance.fp_v1_0().create_device)(physical, &raw const info, std::ptr::null(), &raw mut handle)
        };
        result.result().map_err(failed("vkCreateDevice"))?;
        let names = names.to_vec();
        // SAFETY: the device that was made above, and the loader's functions for it.
        let device = unsafe {
            let find = |name: &CStr| look_up(&instance, handle, &names, name);
            ash::Device::load_with(
                |name| find(name).map_or(std::ptr::null(), |found| found as *const c_void),
                handle,
            )
        };
        // SAFETY: the queues asked for above.
        let queues: Vec<vk::Queue> =
            (0..count).map(|index| unsafe { device.get_device_queue(0, index) }).collect();
        // SAFETY: likewise.
        let queue_of_other_family = (families.len() > 1).then(|| unsafe { device.get_device_queue(1, 0) });
        // SAFETY: a device of the live instance.
        let memory = unsafe { instance.get_physical_device_memory_properties(physical) };
        let map2 = extensions.contains(&ash::khr::map_memory2::NAME).then(|| Map2::new(&instance, &device));
        Ok(Self {
            device,
            queue: queues[0],
            queues,
            queue_of_other_family,
            memory,
            instance,
            physical,
            has_buffer_device_address,
            has_update_after_bind,
            has_draw_indirect_count,
            has_present_id,
            map2,
            placed,
            extensions,
            names,
            entry,
        })
    }

    /// Whether an extension is enabled.
    #[must_use]
    pub fn has(&self, extension: &CStr) -> bool {
        self.extensions.contains(&extension)
    }

    /// A surface that nobody sees; `None` if there are none.
    ///
    /// # Errors
    /// The command's.
    pub fn headless_surface(&self) -> Result<Option<vk::SurfaceKHR>, vk::Result> {
        let create = c"vkCreateHeadlessSurfaceEXT".as_ptr();
        // SAFETY: a live instance.
        let create = unsafe { self.entry.get_instance_proc_addr(self.instance.handle(), create) };
        if create.is_none() || !self.has(ash::khr::swapchain::NAME) {
            return Ok(None);
        }
        let surfaces = ash::ext::headless_surface::Instance::new(&self.entry, &self.instance);
        // SAFETY: a valid create info.
        unsafe { surfaces.create_headless_surface(&vk::HeadlessSurfaceCreateInfoEXT::default(), None) }
            .map(Some)
    }

    /// A command of the device, by the name that it is to have.
    #[must_use]
    pub fn command(&self, name: &CStr) -> vk::PFN_vkVoidFunction {
        look_up(&self.instance, self.device.handle(), &self.names, name)
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

/// A device's command: by that of `names` that means the same as `name`, if there is one.
fn look_up(
    instance: &Instance,
    device: vk::Device,
    names: &[CString],
    name: &CStr,
) -> vk::PFN_vkVoidFunction {
    let plain = |name: &CStr| {
        let name = name.to_string_lossy().into_owned();
        let without = ["KHR", "EXT", "AMD"].iter().find_map(|vendor| name.strip_suffix(vendor));
        without.map_or(name.clone(), str::to_owned)
    };
    let name = names.iter().find(|other| plain(other) == plain(name)).map_or(name, CString::as_c_str);
    // SAFETY: a live device of the instance.
    unsafe { (instance.fp_v1_0().get_device_proc_addr)(device, name.as_ptr()) }
}

/// Compiles a shader from WGSL to SPIR-V. It may have push constants, and be a mesh shader.
///
/// # Errors
/// What is wrong with it.
pub fn compile_shader(source: &str) -> Result<Vec<u32>, String> {
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    let capabilities = Capabilities::IMMEDIATES | Capabilities::MESH_SHADER;
    let mut options = naga::front::wgsl::Options::new();
    options.capabilities = capabilities;
    let module = naga::front::wgsl::Frontend::new_with_options(options)
        .parse(source)
        .map_err(|error| error.to_string())?;
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .map_err(|error| format!("{error:?}"))?;
    let has_meshes = module.entry_points.iter().any(|entry| entry.stage == naga::ShaderStage::Mesh);
    let lang_version = if has_meshes { (1, 4) } else { (1, 0) };
    let options = naga::back::spv::Options { lang_version, ..Default::default() };
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
