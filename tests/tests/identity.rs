//! What Tidemark says it is, where vulkaninfo does not ask: the list of layered APIs (VK_KHR_maintenance7).

use ash::vk;
use std::ffi::{CStr, c_char, c_void};
use std::path::Path;
use tidemark_tests::{Library, driver_library};

#[repr(C)]
struct List {
    s_type: vk::StructureType,
    p_next: *mut c_void,
    count: u32,
    apis: *mut Api,
}

#[repr(C)]
struct Api {
    s_type: vk::StructureType,
    p_next: *mut c_void,
    vendor_id: u32,
    device_id: u32,
    layered_api: i32,
    device_name: [c_char; 256],
}

#[repr(C)]
struct Vulkan {
    s_type: vk::StructureType,
    p_next: *mut c_void,
    properties: vk::PhysicalDeviceProperties2<'static>,
}

const LIST: i32 = 1_000_562_002;
const API: i32 = 1_000_562_003;
const VULKAN: i32 = 1_000_562_004;

fn text(field: &[c_char]) -> String {
    // SAFETY: the driver stored a null-terminated string.
    unsafe { CStr::from_ptr(field.as_ptr()) }.to_string_lossy().into_owned()
}

#[test]
fn the_layered_api_list_names_the_backing_driver() {
    // The only test of this program, so nobody else changes or reads its environment meanwhile.
    // SAFETY: as said.
    unsafe {
        std::env::set_var("TIDEMARK_BACKING", tidemark_tests::Driver::lavapipe().manifest());
        std::env::set_var("TIDEMARK_MODE", "always");
    }
    let library = driver_library();
    let library: &Path = &library;
    let instance = Library::open(library).instance();
    // SAFETY: a live instance.
    let physical = unsafe { instance.enumerate_physical_devices() }.expect("cannot enumerate")[0];

    let query = |count, apis| {
        let mut list =
            List { s_type: vk::StructureType::from_raw(LIST), p_next: std::ptr::null_mut(), count, apis };
        let mut own = vk::PhysicalDeviceProperties2 { p_next: (&raw mut list).cast(), ..Default::default() };
        // SAFETY: a valid output chain.
        unsafe { instance.get_physical_device_properties2(physical, &mut own) };
        (list.count, own.properties)
    };
    let (count, own) = query(0, std::ptr::null_mut());
    assert_eq!(count, 1);

    let mut driver = vk::PhysicalDeviceDriverProperties::default();
    let mut vulkan = Vulkan {
        s_type: vk::StructureType::from_raw(VULKAN),
        p_next: std::ptr::null_mut(),
        properties: vk::PhysicalDeviceProperties2::default(),
    };
    vulkan.properties.p_next = (&raw mut driver).cast();
    let mut api = Api {
        s_type: vk::StructureType::from_raw(API),
        p_next: (&raw mut vulkan).cast(),
        vendor_id: 0,
        device_id: 0,
        layered_api: -1,
        device_name: [0; 256],
    };
    assert_eq!(query(0, &raw mut api).0, 0, "there was no room");
    assert_eq!(api.layered_api, -1, "there was no room");
    assert_eq!(query(1, &raw mut api).0, 1);

    let name = text(&api.device_name);
    assert!(name.starts_with("llvmpipe"), "{name}");
    assert_eq!(text(&own.device_name), format!("Tidemark ({name})"));
    assert_eq!((api.layered_api, api.vendor_id, api.device_id), (0, own.vendor_id, own.device_id));
    // What lies underneath says what it says by itself.
    assert_eq!(text(&vulkan.properties.properties.device_name), name);
    assert_eq!(vulkan.properties.properties.limits.max_image_dimension2_d, 0, "limits must be zero");
    assert_eq!(text(&driver.driver_name), "llvmpipe");
    assert_ne!(driver.conformance_version.major, 0);
}
