//! Extensions that Tidemark offers are there on every device with emulated memory, and work whatever the backing driver
//! has.
//!
//! Over the mock, and without the loader. Each part is played by a child, this test program, told by an environment
//! variable.

use ash::vk;
use std::ffi::CStr;
use std::time::Duration;
use tidemark_tests::{Driver, Library, driver_library, expect_success, mock_library};

const PART: &str = "TIDEMARK_TEST_OFFERED";

#[test]
fn extensions_are_offered_where_memory_is_emulated() {
    play("lavapipe", "always", "offered");
    // Its own memory is coherent, so only what is added is emulated, and the rest is mapped by the mock.
    play("pi", "auto", "offered");
}

#[test]
fn nothing_is_added_where_none_is() {
    play("lavapipe", "auto", "bare");
    play("pi", "never", "bare");
}

#[track_caller]
fn play(shape: &str, mode: &str, part: &str) {
    let driver = Driver::tidemark_over(&Driver::mock(shape)).with("TIDEMARK_MODE", mode).with(PART, part);
    let mut child = driver.command(std::env::current_exe().expect("a test has a path"));
    let outcome = expect_success(child.args(["--exact", "part", "--nocapture"]), Duration::from_secs(60));
    assert!(outcome.stdout.contains("played the part"), "{}", outcome.report());
}

/// How often each device of a driver lists an extension.
fn listed(instance: &ash::Instance, name: &CStr) -> usize {
    // SAFETY: a live instance, whose devices these are.
    let all = unsafe {
        let physical = instance.enumerate_physical_devices().expect("cannot enumerate")[0];
        instance.enumerate_device_extension_properties(physical).expect("cannot enumerate")
    };
    all.iter().filter(|one| one.extension_name_as_c_str() == Ok(name)).count()
}

#[test]
fn part() {
    let Ok(part) = std::env::var(PART) else { return };
    let library = Library::open(&driver_library());
    let instance = library.instance();
    let backing = Library::open(&mock_library()).instance();
    let name = ash::khr::map_memory2::NAME;
    let is_theirs = listed(&backing, name) == 1;
    assert_eq!(listed(&instance, name), usize::from(is_theirs || part == "offered"));
    if part == "offered" {
        let [without, with] = [&[][..], &[name.as_ptr()]].map(|names| device(&instance, names));
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

fn device(instance: &ash::Instance, names: &[*const std::ffi::c_char]) -> ash::Device {
    let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
    let info = vk::DeviceCreateInfo::default().queue_create_infos(&queues).enabled_extension_names(names);
    // SAFETY: a live instance and a valid create info; the device lives as long as the process.
    unsafe {
        let physical = instance.enumerate_physical_devices().expect("cannot enumerate")[0];
        instance.create_device(physical, &info, None).expect("cannot create a device")
    }
}

/// Memory of every type that can be mapped: what is written by one map is there by the next.
fn maps_by_structures(instance: &ash::Instance, device: &ash::Device) {
    let map2 = ash::khr::map_memory2::Device::new(instance, device);
    let map2 = map2.fp();
    // SAFETY: a live instance.
    let memory = unsafe {
        let physical = instance.enumerate_physical_devices().expect("cannot enumerate")[0];
        instance.get_physical_device_memory_properties(physical)
    };
    let types = (0..).zip(memory.memory_types_as_slice());
    let visible = vk::MemoryPropertyFlags::HOST_VISIBLE;
    for (index, memory_type) in types.filter(|(_, one)| one.property_flags.contains(visible)) {
        let info = vk::MemoryAllocateInfo::default().allocation_size(20_000).memory_type_index(index);
        // SAFETY: host-visible memory of a live device, mapped where it is used.
        unsafe {
            let memory = device.allocate_memory(&info, None).expect("cannot allocate");
            let map = |offset, size| -> *mut u8 {
                let info = vk::MemoryMapInfoKHR::default().memory(memory).offset(offset).size(size);
                let mut address = std::ptr::null_mut();
                let result = (map2.map_memory2_khr)(device.handle(), &raw const info, &raw mut address);
                assert_eq!(result, vk::Result::SUCCESS, "{memory_type:?}");
                address.cast()
            };
            let unmap = || {
                let info = vk::MemoryUnmapInfoKHR::default().memory(memory);
                let result = (map2.unmap_memory2_khr)(device.handle(), &raw const info);
                assert_eq!(result, vk::Result::SUCCESS, "{memory_type:?}");
            };
            map(0, vk::WHOLE_SIZE).add(12_345).write_volatile(7);
            unmap();
            assert_eq!(map(12_300, 100).add(45).read_volatile(), 7, "{memory_type:?}");
            unmap();
            device.free_memory(memory, None);
        }
    }
}
