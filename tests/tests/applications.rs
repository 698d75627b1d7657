//! Real, unmodified applications on Tidemark, measured against the same ones on the driver underneath.
//!
//! All of them keep HOST_COHERENT memory mapped and never flush it: vkcube its uniform buffers, Zink the
//! persistent and coherent buffers of OpenGL, the sample whatever it can think of.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::{fs, iter};

use tidemark_tests::{Driver, Outcome, Picture, Scratch, Weston, Xvfb};
use tidemark_tests::{example, expect_failure, expect_success, find_program, program, run};

/// Far more than any of these takes on a slow and busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The value of `key` in the summary of the only device.
fn summary(driver: &Driver, key: &str) -> String {
    let outcome = expect_success(driver.command(program("vulkaninfo")).arg("--summary"), LIMIT);
    let values: Vec<_> = outcome
        .stdout
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim().to_owned())
        .collect();
    match <[String; 1]>::try_from(values) {
        Ok([value]) => value,
        Err(values) => panic!("{} devices with a {key}, not one: {}", values.len(), outcome.report()),
    }
}

fn device_name(driver: &Driver) -> String {
    summary(driver, "deviceName")
}

#[test]
fn vulkaninfo_tells_what_lies_underneath() {
    let tidemark = Driver::tidemark();
    assert_eq!(device_name(&tidemark), format!("Tidemark ({})", device_name(&Driver::lavapipe())));
    assert_eq!(summary(&tidemark, "conformanceVersion"), "0.0.0.0", "nobody has certified this driver");
}

#[test]
fn vulkaninfo_can_ask_everything() {
    let (display, driver) = (Xvfb::start(), Driver::tidemark());
    let mut command = driver.command(program("vulkaninfo"));
    display.attach(&mut command);
    let outcome = expect_success(&mut command, LIMIT);
    assert!(outcome.stdout.contains("VK_KHR_xcb_surface"), "no surface was asked for: {}", outcome.report());
}

/// What vkcube leaves on a screen after so many frames, and the number of drawings that it took.
fn cube(driver: &Driver, frames: u32) -> (u32, Picture) {
    let mut display = Xvfb::start();
    let mut command = driver.command(program("vkcube"));
    display.attach(command.args(["--suppress_popups", "--width", "300", "--height", "300", "--c"]));
    let outcome = expect_success(command.arg(frames.to_string()), LIMIT);
    assert_device(&outcome, driver);
    display.picture_left()
}

/// The same frame of vkcube on lavapipe and on `driver`, the last of so many or one shortly before. It
/// turns the cube by the same angle each frame, so that the picture shows which uniforms reached the
/// device.
fn cubes(driver: &Driver, frames: u32) -> (Picture, Picture) {
    let reference = Driver::lavapipe();
    let (mut expected, mut actual) = (HashMap::new(), HashMap::new());
    // The last frames can get lost at the end, more so on a busy machine: until both leave the same one.
    for _ in 0..20 {
        expected.extend([cube(&reference, frames)]);
        actual.extend([cube(driver, frames)]);
        let common = expected.iter().find_map(|(drawings, picture)| Some((picture, actual.get(drawings)?)));
        if let Some((expected, actual)) = common {
            assert!(expected.distinct_colours() > 100, "no lit, textured cube: {expected:?}");
            return (expected.clone(), actual.clone());
        }
    }
    panic!("no frame in common among {:?} and {:?}", expected.keys(), actual.keys());
}

/// Checks that vkcube says it ran on `driver`'s device.
fn assert_device(outcome: &Outcome, driver: &Driver) {
    let wanted = format!("Selected GPU 0: {},", device_name(driver));
    assert!(
        [&outcome.stdout, &outcome.stderr].iter().any(|text| text.contains(&wanted)),
        "{}",
        outcome.report()
    );
}

#[test]
fn vkcube_draws_the_same_cube() {
    let tidemark = Driver::tidemark();
    let pictures = [10, 40].map(|frames| {
        let (expected, actual) = cubes(&tidemark, frames);
        expected.expect_identical(&actual, &format!("vkcube-{frames}"));
        expected
    });
    assert_ne!(pictures[0], pictures[1], "the cube does not turn, so these pictures prove little");
}

#[test]
fn vkcube_shows_when_flushes_are_missing() {
    let (expected, actual) = cubes(&Driver::tidemark().with("TIDEMARK_DEBUG", "noflush"), 40);
    assert_ne!(expected, actual, "this picture cannot tell a driver from a broken one");
}

#[test]
fn vkcube_runs_on_wayland() {
    let display = Weston::start();
    for driver in [Driver::lavapipe(), Driver::tidemark()] {
        // Newer ones are one program for all window systems.
        let mut command = match find_program("vkcube-wayland") {
            Some(vkcube) => driver.command(vkcube),
            None => {
                let mut command = driver.command(program("vkcube"));
                command.args(["--wsi", "wayland"]);
                command
            }
        };
        display.attach(command.args(["--suppress_popups", "--c", "60"]));
        assert_device(&expect_success(&mut command, LIMIT), &driver);
    }
}

/// An OpenGL program of piglit's on Zink over `driver`.
fn piglit(driver: &Driver, display: &Xvfb, name: &str, arguments: &[&str]) -> Command {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let program = iter::once(PathBuf::from("/usr/lib"))
        .chain(folders)
        .map(|folder| folder.join("piglit/bin").join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("piglit's {name} is not installed: run tests/setup"));
    let mut command = driver.command(program);
    command
        .args(arguments)
        .args(["-auto", "-fbo"])
        .env("PIGLIT_PLATFORM", "glx")
        .env("MESA_LOADER_DRIVER_OVERRIDE", "zink")
        .env("GALLIUM_DRIVER", "zink")
        // Zink then takes a device that is a processor.
        .env("LIBGL_ALWAYS_SOFTWARE", "1");
    display.attach(&mut command);
    command
}

const PASS: &str = r#"PIGLIT: {"result": "pass" }"#;
const FAIL: &str = r#"PIGLIT: {"result": "fail" }"#;

/// All the modes of piglit's test of persistently mapped buffers.
fn persistent_buffers(driver: &Driver) {
    let display = Xvfb::start();
    // OpenGL has drivers of its own to fall back to, silently.
    let info = expect_success(&mut piglit(driver, &display, "glinfo", &[]), LIMIT);
    let renderer = info.stdout.lines().find(|line| line.starts_with("GL_RENDERER")).unwrap_or_default();
    let device = device_name(driver);
    assert!(
        renderer.contains("zink") && renderer.contains(&device),
        "not Zink on {device}: {}",
        info.report()
    );

    for access in ["draw", "read"] {
        for options in [&[][..], &["coherent"], &["client-storage"], &["coherent", "client-storage"]] {
            let arguments = [&[access], options].concat();
            let mut command = piglit(driver, &display, "bufferstorage-persistent", &arguments);
            let outcome = expect_success(&mut command, LIMIT);
            assert!(outcome.stdout.contains(PASS), "did not pass: {}", outcome.report());
        }
    }
}

#[test]
fn persistent_opengl_buffers_work_on_the_reference() {
    persistent_buffers(&Driver::lavapipe());
}

#[test]
fn persistent_opengl_buffers_work() {
    persistent_buffers(&Driver::tidemark());
}

#[test]
fn persistent_opengl_buffers_show_when_copies_are_missing() {
    let display = Xvfb::start();
    for (access, debug) in [("draw", "noflush"), ("read", "noreadback")] {
        let broken = Driver::tidemark().with("TIDEMARK_DEBUG", debug);
        let outcome =
            run(&mut piglit(&broken, &display, "bufferstorage-persistent", &[access, "coherent"]), LIMIT);
        assert!(outcome.stdout.contains(FAIL), "did not fail with {debug}: {}", outcome.report());
    }
}

/// The picture that the sample application makes, with every byte checked by itself on the way.
fn sample(driver: &Driver, display: Option<&Weston>) -> Picture {
    let scratch = Scratch::new();
    let png = scratch.file("sample.png");
    let mut command = driver.command(example("sample"));
    command.args(["--frames", "30", "--size", "320x240", "--png"]).arg(&png);
    if let Some(display) = display {
        display.attach(command.arg("--window"));
    }
    expect_success(&mut command, LIMIT);
    let picture = Picture::from_png(&png);
    assert_eq!(picture.size(), (320, 240));
    assert!(picture.distinct_colours() > 1, "blank: {picture:?}");
    picture
}

#[test]
fn the_sample_makes_the_same_picture() {
    sample(&Driver::lavapipe(), None).expect_identical(&sample(&Driver::tidemark(), None), "sample");
}

#[test]
fn the_sample_makes_the_same_picture_in_a_window() {
    let display = Weston::start();
    let expected = sample(&Driver::lavapipe(), Some(&display));
    expected.expect_identical(&sample(&Driver::tidemark(), Some(&display)), "sample-window");
}

#[test]
fn the_sample_notices_when_copies_are_missing() {
    for debug in ["noflush", "noreadback"] {
        let broken = Driver::tidemark().with("TIDEMARK_DEBUG", debug);
        let outcome = expect_failure(broken.command(example("sample")).args(["--frames", "3"]), LIMIT);
        assert_eq!(outcome.status.code(), Some(1), "not for a wrong byte: {}", outcome.report());
    }
}
