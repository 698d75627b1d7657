//! What would open a door to memory that Tidemark does not watch is not there for applications on devices with emulated
//! memory, and all there on others.
//!
//! Over the mock, which claims to have every extension that Tidemark hides. Each part is played by a child, this test
//! program, told by an environment variable.

use ash::vk;
use std::ffi::CString;
use std::time::Duration;
use tidemark_tests::{Driver, Library, driver_library, expect_success};
use vulkan_tidemark::audit;

const PART: &str = "TIDEMARK_TEST_HIDDEN";

#[test]
fn nothing_is_left_where_memory_is_emulated() {
    let said = play("always", "hidden");
    for name in audit::hidden_extensions().into_iter().chain(audit::hidden_features()) {
        let line = format!("tidemark: error: vkCreateDevice: {name} is not offered: ");
        assert!(said.contains(&line), "nothing said of {name}: {said}");
    }
}

#[test]
fn everything_is_there_where_none_is() {
    for mode in ["never", "auto"] {
        assert_eq!(play(mode, "shown"), "", "{mode}");
    }
}

/// Plays a part, and returns what was said.
#[track_caller]
fn play(mode: &str, part: &str) -> String {
    // All its memory is coherent and cached, so there is nothing to emulate unless asked for.
    let mut claims = audit::hidden_extensions();
    // With the features that are hidden.
    claims.extend(["VK_KHR_acceleration_structure", "VK_EXT_opacity_micromap"]);
    let mock = Driver::mock("lavapipe").with("TIDEMARK_MOCK_EXTENSIONS", claims.join(","));
    let driver = Driver::tidemark_over(&mock).with("TIDEMARK_MODE", mode).with(PART, part);
    let mut child = driver.command(std::env::current_exe().expect("a test has a path"));
    let outcome = expect_success(child.args(["--exact", "part", "--nocapture"]), Duration::from_secs(60));
    assert!(outcome.stdout.contains("played the part"), "{}", outcome.report());
    outcome.stderr
}

#[test]
fn part() {
    let Ok(part) = std::env::var(PART) else { return };
    let is_hidden = part == "hidden";
    let instance = Library::open(&driver_library()).instance();
    // SAFETY: a live instance; the process ends before it would be destroyed.
    let physical = unsafe { instance.enumerate_physical_devices() }.expect("cannot enumerate")[0];

    let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
    let info = || vk::DeviceCreateInfo::default().queue_create_infos(&queues);
    let result = |info: vk::DeviceCreateInfo<'_>| {
        // SAFETY: a physical device of the live instance, and a valid create info. Nobody uses the device.
        let device = unsafe { instance.create_device(physical, &info, None) };
        // SAFETY: as above.
        device.map(|device| unsafe { device.destroy_device(None) }).err().unwrap_or(vk::Result::SUCCESS)
    };
    assert_eq!(result(info()), vk::Result::SUCCESS);

    // SAFETY: a physical device of the live instance.
    let shown =
        unsafe { instance.enumerate_device_extension_properties(physical) }.expect("cannot enumerate");
    for name in audit::hidden_extensions() {
        let is_shown = shown
            .iter()
            .any(|one| one.extension_name_as_c_str().is_ok_and(|shown| shown.to_bytes() == name.as_bytes()));
        assert_eq!(is_shown, !is_hidden, "{name}");
        let name = CString::new(name).expect("a name has no zero in it");
        let asked = result(info().enabled_extension_names(&[name.as_ptr()]));
        let expected = if is_hidden { vk::Result::ERROR_EXTENSION_NOT_PRESENT } else { vk::Result::SUCCESS };
        assert_eq!(asked, expected, "{name:?}");
    }

    let mut asked = vk::PhysicalDeviceAccelerationStructureFeaturesKHR::default();
    let mut asked_too = vk::PhysicalDeviceOpacityMicromapFeaturesEXT::default();
    let mut features = vk::PhysicalDeviceFeatures2::default().push_next(&mut asked).push_next(&mut asked_too);
    // SAFETY: a physical device of the live instance, and a valid chain.
    unsafe { instance.get_physical_device_features2(physical, &mut features) };
    let expected = if is_hidden { vk::FALSE } else { vk::TRUE };
    assert_eq!(asked.acceleration_structure_host_commands, expected);
    assert_eq!(asked_too.micromap_host_commands, expected);
    let structures = || {
        vk::PhysicalDeviceAccelerationStructureFeaturesKHR::default()
            .acceleration_structure_host_commands(true)
    };
    let micromaps = || vk::PhysicalDeviceOpacityMicromapFeaturesEXT::default().micromap_host_commands(true);
    // Where they are not hidden it is lavapipe that has none of this, and Tidemark says nothing.
    let asked = [result(info().push_next(&mut structures())), result(info().push_next(&mut micromaps()))];
    if is_hidden {
        assert_eq!(asked, [vk::Result::ERROR_FEATURE_NOT_PRESENT; 2]);
    }
    // The structures may be there, with the features off.
    let mut off = vk::PhysicalDeviceOpacityMicromapFeaturesEXT::default();
    assert_eq!(result(info().push_next(&mut off)), vk::Result::SUCCESS);
    println!("played the part");
}
