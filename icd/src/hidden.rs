//! Device extensions that would open a door to memory Tidemark does not watch yet. They are hidden on devices
//! with emulated memory.

use std::ffi::CStr;

/// Name, and why.
pub(crate) const EXTENSIONS: &[(&CStr, &str)] = &[
    (
        c"VK_EXT_external_memory_host",
        "imported pages would be device memory and host memory at once, with nothing in between to synchronise",
    ),
    (
        c"VK_EXT_map_memory_placed",
        "the application would choose the address of its view, which the arena chooses",
    ),
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
];

const UNFOLLOWED: &str = "its commands would use emulated memory without Tidemark's notice";

/// Why the extension is hidden; `None` if it is not.
pub(crate) fn reason(name: &CStr) -> Option<&'static str> {
    EXTENSIONS.iter().find(|(hidden, _)| *hidden == name).map(|(_, reason)| *reason)
}
