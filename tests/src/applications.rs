//! Real, unmodified applications, run on a chosen driver: what they show, and whether they say that all is well.
//!
//! All of them keep HOST_COHERENT memory mapped and never flush it: vkcube its uniform buffers, Zink the
//! persistent and coherent buffers of OpenGL, the sample whatever it can think of.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::{fs, iter};

use crate::{Driver, Outcome, Picture, Scratch, Weston, Xvfb};
use crate::{example, expect_success, program};

/// Far more than any of these takes on a slow and busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The value of `key` in vulkaninfo's summary of the driver's only device.
///
/// # Panics
/// When there is not one.
#[must_use]
#[track_caller]
pub fn summary(driver: &Driver, key: &str) -> String {
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

/// The name of the driver's only device.
///
/// # Panics
/// As [`summary`].
#[must_use]
#[track_caller]
pub fn device_name(driver: &Driver) -> String {
    summary(driver, "deviceName")
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

/// The same frame of vkcube on two drivers, the last of so many or one shortly before. It turns the cube by the same angle
/// each frame, so that the picture shows which uniforms reached the device.
///
/// # Panics
/// When it fails, runs on another device, or draws no cube.
#[must_use]
#[track_caller]
pub fn cubes(reference: &Driver, driver: &Driver, frames: u32) -> (Picture, Picture) {
    let (mut expected, mut actual) = (HashMap::new(), HashMap::new());
    // The last frames can get lost at the end, more so on a busy machine: until both leave the same one.
    for _ in 0..20 {
        expected.extend([cube(reference, frames)]);
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
///
/// # Panics
/// When it does not.
#[track_caller]
pub fn assert_device(outcome: &Outcome, driver: &Driver) {
    let wanted = format!("Selected GPU 0: {},", device_name(driver));
    assert!(
        [&outcome.stdout, &outcome.stderr].iter().any(|text| text.contains(&wanted)),
        "{}",
        outcome.report()
    );
}

/// An OpenGL program of piglit's on Zink over `driver`.
///
/// # Panics
/// When it is not installed.
#[must_use]
#[track_caller]
pub fn piglit(driver: &Driver, display: &Xvfb, name: &str, arguments: &[&str]) -> Command {
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
/// All the modes of piglit's test of persistently mapped buffers.
///
/// # Panics
/// When it does not pass, or does not run on `driver`.
#[track_caller]
pub fn persistent_buffers(driver: &Driver) {
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

/// The picture that the sample application makes, with every byte checked by itself on the way.
///
/// # Panics
/// When it finds a wrong byte, or shows nothing.
#[must_use]
#[track_caller]
pub fn sample(driver: &Driver, display: Option<&Weston>) -> Picture {
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
