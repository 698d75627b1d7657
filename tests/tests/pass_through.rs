//! A command that Tidemark does not intercept costs nothing: its pointer is the backing driver's own.
//!
//! Looked up in the library itself, as the loader does it. Handles pass through unchanged, so the backing driver can
//! be asked about the very same instance and device. The driver reads its environment once for a process, so each
//! mode has a child of its own: this test program, told by an environment variable to play that part.

use ash::vk;
use std::ffi::CStr;
use std::path::PathBuf;
use std::time::Duration;
use tidemark_tests::{Driver, Library, driver_library, expect_success};

const PART: &str = "TIDEMARK_TEST_PASS_THROUGH";

/// A sample of what Tidemark has no business with, of all levels.
const NOT_INTERCEPTED: [&CStr; 12] = [
    c"vkCmdDraw",
    c"vkCmdDrawIndexed",
    c"vkCmdDispatch",
    c"vkCmdBindPipeline",
    c"vkCmdPushConstants",
    c"vkCmdPipelineBarrier2",
    c"vkCmdBeginRendering",
    c"vkCreateImageView",
    c"vkCreateGraphicsPipelines",
    c"vkResetFences",
    c"vkGetPhysicalDeviceFormatProperties2",
    c"vkGetPhysicalDeviceQueueFamilyProperties",
];

/// What coherence depends on.
const FOR_COHERENCE: [&CStr; 8] = [
    c"vkQueueSubmit",
    c"vkQueueSubmit2",
    c"vkMapMemory",
    c"vkCmdCopyBuffer",
    c"vkUpdateDescriptorSets",
    c"vkAllocateMemory",
    c"vkWaitForFences",
    c"vkGetBufferMemoryRequirements2",
];

#[test]
fn always() {
    play("always");
}

#[test]
fn auto() {
    play("auto");
}

#[test]
fn never() {
    play("never");
}

#[track_caller]
fn play(mode: &str) {
    let driver = Driver::tidemark().with("TIDEMARK_MODE", mode).with(PART, mode);
    let mut child = driver.command(std::env::current_exe().expect("a test has a path"));
    let outcome = expect_success(child.args(["--exact", "part", "--nocapture"]), Duration::from_secs(60));
    assert!(outcome.stdout.contains("played the part"), "{}", outcome.report());
}

#[test]
fn part() {
    let Ok(mode) = std::env::var(PART) else { return };
    let tidemark = Library::open(&driver_library());
    let instance = tidemark.instance();
    let backing = Library::open(&backing_library());
    let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
    let info = vk::DeviceCreateInfo::default().queue_create_infos(&queues);
    // SAFETY: a live instance and a valid create info; the process ends before anything would be destroyed.
    let device = unsafe {
        let physical = instance.enumerate_physical_devices().expect("cannot enumerate")[0];
        instance.create_device(physical, &info, None).expect("cannot create a device").handle()
    };
    let instance = instance.handle();
    let both = |name| (tidemark.command(instance, name), backing.command(instance, name));
    let both_of_device = |name| {
        (tidemark.device_command(instance, device, name), backing.device_command(instance, device, name))
    };
    for name in NOT_INTERCEPTED {
        let (ours, theirs) = both(name);
        assert!(theirs != 0 && ours == theirs, "{name:?} by vkGetInstanceProcAddr: {ours:x}, not {theirs:x}");
        let (ours, theirs) = both_of_device(name);
        assert!(ours == theirs, "{name:?} by vkGetDeviceProcAddr: {ours:x}, not {theirs:x}");
    }
    for name in FOR_COHERENCE {
        let (ours, theirs) = both_of_device(name);
        assert!(theirs != 0, "{name:?} is not there");
        assert_eq!(ours != theirs, mode == "always", "{name:?} in mode {mode}: {ours:x}, {theirs:x}");
    }
    // A command the backing driver does not have is not there, intercepted or not.
    for name in [c"vkNoSuchCommand", c"vkGetMemoryWin32HandleKHR"] {
        assert_eq!(both(name), (0, 0), "{name:?}");
    }
    println!("played the part");
}

/// The library of the backing driver, which is lavapipe's.
fn backing_library() -> PathBuf {
    let manifest = std::fs::read_to_string(Driver::lavapipe().manifest()).expect("cannot read the manifest");
    let after = manifest.split("\"library_path\":").nth(1).expect("a manifest has a library_path");
    after.split('"').nth(1).expect("a quoted path").into()
}
