//! On Tidemark no application breaks a rule of Vulkan's that it does not break on the driver underneath; nor does Tidemark
//! itself, in what it asks of that driver.
//!
//! For the former the validation layer lies above Tidemark, where it sees the application's calls and what Tidemark answers;
//! for the latter, by way of the loader that lies below, between Tidemark and the driver. What the application gets wrong
//! by itself is what it gets wrong without Tidemark.

use ash::vk;
use std::collections::BTreeMap;
use std::process::Command;
use tidemark_tests::{Driver, Gpu, Validation, Xvfb, example, program};

const CHECKS: &str = env!("CARGO_BIN_EXE_coherency-checks");
const FUZZ: &str = env!("CARGO_BIN_EXE_coherency-fuzz");
const PART: &str = "TIDEMARK_TEST_VALIDATION";

/// The checks for the installed layer, which takes some half a second for each device that is made.
const FEW_CHECKS: [&str; 4] =
    ["signal-after-submit", "map-at-offset", "templated-descriptors", "buffer-image-copies"];

type Errors = BTreeMap<String, String>;

/// The installed layer with the installed driver, and if they could be had the newer ones.
fn layers() -> Vec<(Validation, Driver)> {
    let newer = Validation::fetched().and_then(|layer| Some((layer, Driver::fetched("lavapipe-backports")?)));
    [(Validation::installed(), Driver::lavapipe())].into_iter().chain(newer).collect()
}

/// The errors of a program on the driver, on Tidemark above it, and of that Tidemark with it.
fn everywhere(
    layer: &Validation,
    backing: &Driver,
    run: impl Fn(&Driver) -> Command,
) -> (Errors, Errors, Errors) {
    let [alone, above, below] =
        [backing.clone(), Driver::tidemark_over(backing), Driver::tidemark_above_the_loader(backing)]
            .map(|driver| layer.errors(&mut run(&driver)));
    (alone, above, below)
}

/// Nothing is wrong that was not wrong without Tidemark.
#[track_caller]
fn expect_none_new(name: &str, alone: &Errors, with: &Errors) {
    let new: Vec<_> = with.iter().filter(|(rule, _)| !alone.contains_key(*rule)).collect();
    assert!(new.is_empty(), "{name}: {new:#?}");
}

#[track_caller]
fn expect_no_new_error(name: &str, run: impl Fn(&Validation, &Driver) -> Command) {
    for (layer, backing) in layers() {
        let (alone, above, below) = everywhere(&layer, &backing, |driver| run(&layer, driver));
        expect_none_new(&format!("{name}, seen above Tidemark"), &alone, &above);
        expect_none_new(&format!("{name}, seen below Tidemark"), &alone, &below);
    }
}

#[test]
fn the_sample_breaks_no_more_rules() {
    expect_no_new_error("sample", |_, driver| {
        let mut command = driver.command(example("sample"));
        command.args(["--frames", "10"]);
        command
    });
}

#[test]
fn the_checks_break_no_more_rules() {
    expect_no_new_error("coherency-checks", |layer, driver| {
        let mut command = driver.command(CHECKS);
        if layer.is_installed() {
            command.args(FEW_CHECKS);
        }
        command
    });
}

#[test]
fn random_programs_break_no_more_rules() {
    expect_no_new_error("coherency-fuzz", |_, driver| {
        let mut command = driver.command(FUZZ);
        command.args(["--seed", "1", "--programs", "60"]);
        command
    });
}

/// Only seen from above: it is linked with the loader.
#[test]
fn vkcube_breaks_no_more_rules() {
    let display = Xvfb::start();
    for (layer, backing) in layers() {
        let [alone, above] = [backing.clone(), Driver::tidemark_over(&backing)].map(|driver| {
            let mut command = driver.command(program("vkcube"));
            display.attach(command.args(["--suppress_popups", "--c", "20"]));
            layer.errors(&mut command)
        });
        expect_none_new("vkcube", &alone, &above);
    }
}

/// The negative control: what an application gets wrong is seen from each place.
#[test]
fn broken_rules_are_seen() {
    for (layer, backing) in layers() {
        let (alone, above, below) = everywhere(&layer, &backing, |driver| part(driver, "hazard"));
        for errors in [alone, above, below] {
            assert!(errors.contains_key("SYNC-HAZARD-WRITE-AFTER-WRITE"), "{errors:#?}");
        }
    }
}

/// And from below what is seen are Tidemark's calls, not the application's: its flushes end there.
#[test]
fn a_flush_is_seen_above_and_not_below() {
    for (layer, backing) in layers() {
        let (alone, above, below) = everywhere(&layer, &backing, |driver| part(driver, "flush"));
        for errors in [alone, above] {
            assert!(errors.contains_key("VUID-VkMappedMemoryRange-offset-00687"), "{errors:#?}");
        }
        assert_eq!(below, Errors::new());
    }
}

/// A program of this file's own.
fn part(driver: &Driver, part: &str) -> Command {
    let mut command = driver.command(std::env::current_exe().expect("a test has a path"));
    command.args(["--exact", "play", "--nocapture"]).env(PART, part);
    command
}

#[test]
fn play() {
    let Ok(part) = std::env::var(PART) else { return };
    let gpu = Gpu::new().expect("cannot make a device");
    let device = &gpu.device;
    let usage = vk::BufferUsageFlags::TRANSFER_DST;
    let info = vk::BufferCreateInfo::default().size(4096).usage(usage);
    // SAFETY: live objects, used by this thread alone; what is wrong is for the layer to tell, and does no harm here. The
    // objects go before the device.
    unsafe {
        let buffer = device.create_buffer(&info, None).expect("cannot create a buffer");
        let needs = device.get_buffer_memory_requirements(buffer);
        let memory_type = gpu.coherent_type(needs.memory_type_bits).expect("no coherent memory");
        let info =
            vk::MemoryAllocateInfo::default().allocation_size(needs.size).memory_type_index(memory_type);
        let memory = device.allocate_memory(&info, None).expect("cannot allocate");
        device.bind_buffer_memory(buffer, memory, 0).expect("cannot bind");
        match part.as_str() {
            "flush" => {
                let flags = vk::MemoryMapFlags::empty();
                device.map_memory(memory, 0, vk::WHOLE_SIZE, flags).expect("cannot map");
                let range = vk::MappedMemoryRange::default().memory(memory).offset(1).size(vk::WHOLE_SIZE);
                device.flush_mapped_memory_ranges(&[range]).expect("cannot flush");
            }
            "hazard" => {
                let info = vk::CommandPoolCreateInfo::default();
                let pool = device.create_command_pool(&info, None).expect("no pool");
                let info =
                    vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
                let commands = device.allocate_command_buffers(&info).expect("no command buffer")[0];
                let info = vk::CommandBufferBeginInfo::default();
                device.begin_command_buffer(commands, &info).expect("cannot begin");
                // Which of them is last, nobody can tell.
                device.cmd_fill_buffer(commands, buffer, 0, vk::WHOLE_SIZE, 1);
                device.cmd_fill_buffer(commands, buffer, 0, vk::WHOLE_SIZE, 2);
                device.end_command_buffer(commands).expect("cannot end");
                device.destroy_command_pool(pool, None);
            }
            unknown => panic!("there is no part \"{unknown}\""),
        }
        device.destroy_buffer(buffer, None);
        device.free_memory(memory, None);
    }
}
