//! Device extensions and features that would open a door to memory Tidemark does not watch. They are hidden on devices
//! with emulated memory.

use crate::chain;
use ash::vk::{self, StructureType};
use std::ffi::{CStr, c_void};
use std::mem::offset_of;

/// Name, and why.
pub(crate) const EXTENSIONS: &[(&CStr, &str)] = &[
    // Their commands name buffers in ways that nobody follows, so a batch's use of emulated memory would go unnoticed.
    (c"VK_NV_ray_tracing", UNFOLLOWED),
    (c"VK_NV_device_generated_commands", UNFOLLOWED),
    (c"VK_NV_device_generated_commands_compute", UNFOLLOWED),
    (c"VK_EXT_device_generated_commands", UNFOLLOWED),
    (c"VK_NV_mesh_shader", UNFOLLOWED),
    (c"VK_NV_cuda_kernel_launch", UNFOLLOWED),
    (c"VK_NVX_binary_import", UNFOLLOWED),
    (c"VK_AMD_buffer_marker", UNFOLLOWED),
    (c"VK_AMDX_shader_enqueue", UNFOLLOWED),
    (c"VK_HUAWEI_cluster_culling_shader", UNFOLLOWED),
    (c"VK_KHR_video_queue", UNFOLLOWED),
    (c"VK_KHR_video_decode_queue", UNFOLLOWED),
    (c"VK_KHR_video_encode_queue", UNFOLLOWED),
    (c"VK_ARM_tensors", UNFOLLOWED),
    (c"VK_ARM_data_graph", UNFOLLOWED),
    (
        c"VK_VALVE_descriptor_set_host_mapping",
        "descriptors would be written into memory, so that the buffers in them would go unnoticed",
    ),
    (c"VK_NV_external_compute_queue", "another API would submit work that no Vulkan command tells of"),
    (
        c"VK_NV_external_memory_rdma",
        "another machine would use emulated memory at times that no command tells",
    ),
    (
        c"VK_KHR_internally_synchronized_queues",
        "batches could reach a queue in another order than Tidemark noted them in",
    ),
    (c"VK_KHR_video_decode_av1", NEEDY),
    (c"VK_KHR_video_decode_h264", NEEDY),
    (c"VK_KHR_video_decode_h265", NEEDY),
    (c"VK_KHR_video_decode_vp9", NEEDY),
    (c"VK_KHR_video_encode_av1", NEEDY),
    (c"VK_KHR_video_encode_feedback2", NEEDY),
    (c"VK_KHR_video_encode_h264", NEEDY),
    (c"VK_KHR_video_encode_h265", NEEDY),
    (c"VK_KHR_video_encode_intra_refresh", NEEDY),
    (c"VK_KHR_video_encode_quantization_map", NEEDY),
    (c"VK_KHR_video_maintenance1", NEEDY),
    (c"VK_KHR_video_maintenance2", NEEDY),
    (c"VK_EXT_video_encode_h264", NEEDY),
    (c"VK_EXT_video_encode_h265", NEEDY),
    (c"VK_VALVE_video_encode_rgb_conversion", NEEDY),
    (c"VK_ARM_data_graph_instruction_set_tosa", NEEDY),
    (c"VK_ARM_data_graph_optical_flow", NEEDY),
    (c"VK_ARM_tensor_controls", NEEDY),
    (c"VK_QCOM_data_graph_model", NEEDY),
];

const UNFOLLOWED: &str = "its commands would use emulated memory without Tidemark's notice";
const NEEDY: &str = "it needs another one that is hidden";

/// A feature that an extension with much else in it has.
pub(crate) struct Feature {
    pub(crate) name: &'static str,
    pub(crate) reason: &'static str,
    structure: StructureType,
    /// Of its VkBool32 in that structure.
    offset: usize,
}

pub(crate) const FEATURES: &[Feature] = &[
    Feature {
        name: "accelerationStructureHostCommands",
        reason: HOST_BUILD,
        structure: StructureType::PHYSICAL_DEVICE_ACCELERATION_STRUCTURE_FEATURES_KHR,
        offset: offset_of!(
            vk::PhysicalDeviceAccelerationStructureFeaturesKHR<'_>,
            acceleration_structure_host_commands
        ),
    },
    Feature {
        name: "micromapHostCommands",
        reason: HOST_BUILD,
        structure: StructureType::PHYSICAL_DEVICE_OPACITY_MICROMAP_FEATURES_EXT,
        offset: offset_of!(vk::PhysicalDeviceOpacityMicromapFeaturesEXT<'_>, micromap_host_commands),
    },
];

const HOST_BUILD: &str =
    "the backing driver would write device memory on the host, where no batch is to be waited for";

impl Feature {
    /// Where a chain of structures holds it.
    ///
    /// # Safety
    /// `chain` must be null or the head of a valid chain.
    unsafe fn find(&self, chain: *mut c_void) -> Option<*mut vk::Bool32> {
        // SAFETY: the caller's promise.
        let structure = unsafe { chain::find_raw(chain, self.structure) };
        // SAFETY: the structure of this tag has the feature at this offset.
        (!structure.is_null()).then(|| unsafe { structure.byte_add(self.offset).cast() })
    }

    /// Whether a chain of structures has it on.
    ///
    /// # Safety
    /// `chain` must be null or the head of a valid chain.
    unsafe fn is_on(&self, chain: *const c_void) -> bool {
        // SAFETY: the caller's promise; it is only read.
        unsafe { self.find(chain.cast_mut()).is_some_and(|feature| feature.read() != vk::FALSE) }
    }
}

/// Everything that is hidden: name, and why.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    let extensions = EXTENSIONS.iter().map(|(name, reason)| (name.to_str().unwrap_or_default(), *reason));
    extensions.chain(FEATURES.iter().map(|feature| (feature.name, feature.reason)))
}

/// Why the extension is hidden; `None` if it is not.
pub(crate) fn reason(name: &CStr) -> Option<&'static str> {
    EXTENSIONS.iter().find(|(hidden, _)| *hidden == name).map(|(_, reason)| *reason)
}

/// Turns the hidden features of an output chain off.
///
/// # Safety
/// `chain` must be null or the head of a valid chain of output structures, to which nothing else refers.
pub(crate) unsafe fn mask(chain: *mut c_void) {
    for feature in FEATURES {
        // SAFETY: the caller's promise.
        if let Some(feature) = unsafe { feature.find(chain) } {
            // SAFETY: a feature of a structure that may be written.
            unsafe { feature.write(vk::FALSE) };
        }
    }
}

/// A hidden feature that an input chain asks for.
///
/// # Safety
/// `chain` must be null or the head of a valid chain.
pub(crate) unsafe fn asked_for(chain: *const c_void) -> Option<&'static Feature> {
    // SAFETY: the caller's promise.
    FEATURES.iter().find(|feature| unsafe { feature.is_on(chain) })
}

/// What a physical device has that is hidden. The instance must be of Vulkan 1.1 or later.
///
/// # Errors
/// What vkEnumerateDeviceExtensionProperties returned.
pub(crate) fn had_by(
    instance: &ash::Instance,
    device: vk::PhysicalDevice,
) -> Result<Vec<&'static str>, vk::Result> {
    // SAFETY: a device of a live instance.
    let (properties, extensions) = unsafe {
        (
            instance.get_physical_device_properties(device),
            instance.enumerate_device_extension_properties(device)?,
        )
    };
    let has = |name: &CStr| extensions.iter().any(|one| one.extension_name_as_c_str() == Ok(name));
    let mut names: Vec<&str> =
        EXTENSIONS.iter().filter(|(name, _)| has(name)).filter_map(|(name, _)| name.to_str().ok()).collect();
    if properties.api_version >= vk::API_VERSION_1_1 {
        let mut structures = vk::PhysicalDeviceAccelerationStructureFeaturesKHR::default();
        let mut micromaps = vk::PhysicalDeviceOpacityMicromapFeaturesEXT::default();
        let mut features =
            vk::PhysicalDeviceFeatures2::default().push_next(&mut structures).push_next(&mut micromaps);
        // SAFETY: a device of a live instance, both of Vulkan 1.1, and a valid chain, which the device fills or leaves.
        unsafe { instance.get_physical_device_features2(device, &mut features) };
        let chain = features.p_next;
        // SAFETY: the chain of two structures above.
        let had = FEATURES.iter().filter(|feature| unsafe { feature.is_on(chain) });
        names.extend(had.map(|feature| feature.name));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_feature_is_seen_and_masked_and_its_neighbours_are_left_alone() {
        let mut structures = vk::PhysicalDeviceAccelerationStructureFeaturesKHR::default()
            .acceleration_structure(true)
            .acceleration_structure_host_commands(true)
            .acceleration_structure_indirect_build(true);
        let mut micromaps = vk::PhysicalDeviceOpacityMicromapFeaturesEXT::default()
            .micromap(true)
            .micromap_host_commands(true);
        let features = vk::PhysicalDeviceFeatures2::default();
        let chain = features.push_next(&mut structures).push_next(&mut micromaps).p_next;
        // SAFETY: the chain above, which nothing else refers to until the last use of it here.
        let (before, after) = unsafe {
            let before = asked_for(chain).map(|feature| feature.name);
            mask(chain);
            (before, asked_for(chain).map(|feature| feature.name))
        };
        assert_eq!((before, after), (Some("accelerationStructureHostCommands"), None));
        assert_eq!(structures.acceleration_structure_host_commands, vk::FALSE);
        assert_eq!(
            [structures.acceleration_structure, structures.acceleration_structure_indirect_build],
            [vk::TRUE; 2]
        );
        assert_eq!([micromaps.micromap, micromaps.micromap_host_commands], [vk::TRUE, vk::FALSE]);
    }

    #[test]
    fn a_chain_without_hidden_features_is_left_alone() {
        let mut vulkan12 = vk::PhysicalDeviceVulkan12Features::default().timeline_semaphore(true);
        let chain = std::ptr::from_mut(&mut vulkan12).cast();
        // SAFETY: a chain of one structure, and none.
        unsafe {
            mask(chain);
            mask(std::ptr::null_mut());
            assert!(asked_for(chain).is_none() && asked_for(std::ptr::null()).is_none());
        }
        assert_eq!(vulkan12.timeline_semaphore, vk::TRUE);
    }

    #[test]
    fn nothing_is_hidden_twice() {
        let names: Vec<&str> = all().map(|(name, _)| name).collect();
        let unique: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(names.len(), unique.len());
        assert!(reason(c"VK_NV_mesh_shader").is_some() && reason(c"VK_KHR_swapchain").is_none());
    }
}
