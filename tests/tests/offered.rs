//! Extensions that Tidemark offers are there on every device with emulated memory, and work whatever the backing driver
//! has.
//!
//! Over the mock, and without the loader. Each part is played by a child, this test program, told by an environment
//! variable.

use ash::vk;
use std::ffi::{CStr, c_char};
use std::time::Duration;
use tidemark_tests::{
    Driver, Library, Map2, PlacedFeatures, PlacedProperties, driver_library, expect_success, mock_library,
};

const PART: &str = "TIDEMARK_TEST_OFFERED";

#[test]
fn extensions_are_offered_where_memory_is_emulated() {
    play("lavapipe", "always", "offered");
    // Its own memory is coherent, so only what is added is emulated, and the rest is mapped by the mock.
    let said = play("pi", "auto", "maps alone");
    assert_eq!(said, "");
}

#[test]
fn memory_that_cannot_be_placed_is_refused_with_a_line() {
    let said = play("incoherent", "always", "offered");
    for line in ["vkMapMemory2: ", "vkUnmapMemory2: "] {
        assert!(said.contains(&format!("tidemark: error: {line}")), "nothing said of {line}: {said}");
    }
}

#[test]
fn nothing_is_added_where_none_is() {
    play("lavapipe", "auto", "bare");
    play("pi", "never", "bare");
}

/// Plays a part, and returns what was said.
#[track_caller]
fn play(shape: &str, mode: &str, part: &str) -> String {
    let driver = Driver::tidemark_over(&Driver::mock(shape)).with("TIDEMARK_MODE", mode).with(PART, part);
    let mut child = driver.command(std::env::current_exe().expect("a test has a path"));
    let outcome = expect_success(child.args(["--exact", "part", "--nocapture"]), Duration::from_secs(60));
    assert!(outcome.stdout.contains("played the part"), "{}", outcome.report());
    outcome.stderr
}

const MAP2: &CStr = ash::khr::map_memory2::NAME;
const PLACED: &CStr = c"VK_EXT_map_memory_placed";

fn physical(instance: &ash::Instance) -> vk::PhysicalDevice {
    // SAFETY: a live instance.
    unsafe { instance.enumerate_physical_devices() }.expect("cannot enumerate")[0]
}

/// How often a driver's device lists an extension.
fn listed(instance: &ash::Instance, name: &CStr) -> usize {
    // SAFETY: a device of the live instance.
    let all = unsafe { instance.enumerate_device_extension_properties(physical(instance)) };
    let all = all.expect("cannot enumerate");
    all.iter().filter(|one| one.extension_name_as_c_str() == Ok(name)).count()
}

#[test]
fn part() {
    let Ok(part) = std::env::var(PART) else { return };
    let library = Library::open(&driver_library());
    let instance = library.instance();
    let backing = Library::open(&mock_library()).instance();
    let is_theirs = listed(&backing, MAP2) == 1;
    assert_eq!(listed(&instance, MAP2), usize::from(is_theirs || part != "bare"));
    // The mock has no such extension, whatever lavapipe has.
    assert_eq!(listed(&instance, PLACED), usize::from(part == "offered"));
    let mut features = PlacedFeatures::default();
    let mut all = vk::PhysicalDeviceFeatures2::default().push_next(&mut features);
    let mut properties = PlacedProperties::default();
    let mut limits = vk::PhysicalDeviceProperties2::default().push_next(&mut properties);
    // SAFETY: a device of the live instance, and valid chains.
    unsafe {
        instance.get_physical_device_features2(physical(&instance), &mut all);
        instance.get_physical_device_properties2(physical(&instance), &mut limits);
    }
    if part == "offered" {
        let told =
            [features.memory_map_placed, features.memory_map_range_placed, features.memory_unmap_reserve];
        assert_eq!(told, [vk::TRUE; 3]);
        assert_eq!(properties.min_placed_memory_map_alignment, rustix::param::page_size() as u64);
        features.p_next = std::ptr::null_mut();
        refuses_what_is_no_page(&instance, &device(&instance, &[MAP2, PLACED], Some(features)));
    }
    if part != "bare" {
        let [without, with] = [&[][..], &[MAP2]].map(|names| device(&instance, names, None));
        for command in [c"vkMapMemory2KHR", c"vkUnmapMemory2KHR"] {
            let found = |device: &ash::Device| {
                library.device_command(instance.handle(), device.handle(), command) != 0
            };
            assert!(found(&with), "{command:?}");
            assert!(is_theirs || !found(&without), "{command:?} is there, though nobody asked for it");
            assert_ne!(library.command(instance.handle(), command), 0, "{command:?}");
        }
        maps_by_structures(&instance, &with);
    }
    println!("played the part");
}

/// The mock refuses names that it does not list, and features that it says it lacks.
fn device(instance: &ash::Instance, names: &[&CStr], features: Option<PlacedFeatures<'_>>) -> ash::Device {
    let names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
    let mut vulkan12 = vk::PhysicalDeviceVulkan12Features::default().timeline_semaphore(true);
    let mut vulkan13 = vk::PhysicalDeviceVulkan13Features::default().synchronization2(true);
    let mut info = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queues)
        .enabled_extension_names(&names)
        .push_next(&mut vulkan12);
    let mut features_too = features.unwrap_or_default();
    if features.is_some() {
        info = info.push_next(&mut features_too);
    }
    info = info.push_next(&mut vulkan13);
    // SAFETY: a device of a live instance and a valid create info; the device lives as long as the process.
    unsafe { instance.create_device(physical(instance), &info, None) }.expect("cannot create a device")
}

/// An allocation of each type that can be mapped.
fn allocations(instance: &ash::Instance, device: &ash::Device, size: u64) -> Vec<vk::DeviceMemory> {
    // SAFETY: a device of a live instance.
    let memory = unsafe { instance.get_physical_device_memory_properties(physical(instance)) };
    let types = (0..).zip(memory.memory_types_as_slice());
    let visible = types.filter(|(_, one)| one.property_flags.contains(vk::MemoryPropertyFlags::HOST_VISIBLE));
    let allocate = |(index, _)| {
        let info = vk::MemoryAllocateInfo::default().allocation_size(size).memory_type_index(index);
        // SAFETY: a live device, which the memory lives as long as.
        unsafe { device.allocate_memory(&info, None) }.expect("cannot allocate")
    };
    visible.map(allocate).collect()
}

/// What is written by one map is there by the next.
fn maps_by_structures(instance: &ash::Instance, device: &ash::Device) {
    let map2 = Map2::new(instance, device);
    let allocations = allocations(instance, device, 20_000);
    assert!(!allocations.is_empty());
    for memory in allocations {
        // SAFETY: host-visible memory, mapped where it is used, and inside.
        unsafe {
            let address = map2.map(memory, 0, vk::WHOLE_SIZE).expect("cannot map");
            address.add(12_345).write_volatile(7);
            map2.unmap(memory, false).expect("cannot unmap");
            let address = map2.map(memory, 12_300, 100).expect("cannot map");
            assert_eq!(address.add(45).read_volatile(), 7);
            map2.unmap(memory, false).expect("cannot unmap");
        }
    }
}

/// What the specification leaves open is refused, with the memory as it was.
fn refuses_what_is_no_page(instance: &ash::Instance, device: &ash::Device) {
    let map2 = Map2::new(instance, device);
    let page = rustix::param::page_size();
    let len = 4 * page;
    for memory in allocations(instance, device, len as u64) {
        // SAFETY: addresses of a mapping that is made for it; host-visible memory that is mapped where it is used.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let room: *mut u8 =
                libc::mmap(std::ptr::null_mut(), 2 * len, libc::PROT_NONE, flags, -1, 0).cast();
            let failed = Err(vk::Result::ERROR_MEMORY_MAP_FAILED);
            let whole = vk::WHOLE_SIZE;
            assert_eq!(map2.place(memory, 0, whole, std::ptr::null_mut()), failed);
            assert_eq!(map2.place(memory, 0, whole, room.add(8)), failed);
            assert_eq!(map2.place(memory, 8, whole, room), failed);
            assert_eq!(map2.place(memory, 0, 100, room), failed);
            assert_eq!(map2.place(memory, len as u64, whole, room), failed);
            assert_eq!(map2.place(memory, page as u64, len as u64, room), failed);

            // Reservations are for placed maps.
            let own = map2.map(memory, 0, whole).expect("cannot map");
            own.write_volatile(3);
            assert_eq!(map2.unmap(memory, true), failed.map(|_: *mut u8| ()));
            assert_eq!(own.read_volatile(), 3);
            map2.unmap(memory, false).expect("cannot unmap");

            assert_eq!(map2.place(memory, 0, whole, room), Ok(room));
            assert_eq!(room.read_volatile(), 3);
            // It is mapped already.
            assert_eq!(map2.place(memory, 0, whole, room.add(len)), failed);
            map2.unmap(memory, true).expect("cannot unmap");
        }
    }
}
