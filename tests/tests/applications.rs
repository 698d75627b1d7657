//! Real, unmodified applications on Tidemark, measured against the same ones on the driver underneath.

use std::time::Duration;

use tidemark_tests::applications::{
    assert_device, cubes, device_name, persistent_buffers, piglit, sample, summary,
};
use tidemark_tests::{Driver, Weston, Xvfb};
use tidemark_tests::{example, expect_failure, expect_success, find_program, program, run};

/// Far more than any of these takes on a slow and busy machine.
const LIMIT: Duration = Duration::from_secs(120);

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

#[test]
fn vkcube_draws_the_same_cube() {
    let tidemark = Driver::tidemark();
    let pictures = [10, 40].map(|frames| {
        let (expected, actual) = cubes(&Driver::lavapipe(), &tidemark, frames);
        expected.expect_identical(&actual, &format!("vkcube-{frames}"));
        expected
    });
    assert_ne!(pictures[0], pictures[1], "the cube does not turn, so these pictures prove little");
}

/// Tidemark with each engine that is not its first choice.
fn engines() -> [(&'static str, Driver); 2] {
    ["staged", "in-place"].map(|engine| (engine, Driver::tidemark().with("TIDEMARK_TRANSFER", engine)))
}

#[test]
fn vkcube_draws_the_same_cube_by_each_engine() {
    for (engine, driver) in engines() {
        let (expected, actual) = cubes(&Driver::lavapipe(), &driver, 30);
        expected.expect_identical(&actual, &format!("vkcube-{engine}"));
    }
}

#[test]
fn vkcube_shows_when_flushes_are_missing() {
    let broken = Driver::tidemark().with("TIDEMARK_DEBUG", "noflush");
    let (expected, actual) = cubes(&Driver::lavapipe(), &broken, 40);
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

const FAIL: &str = r#"PIGLIT: {"result": "fail" }"#;

#[test]
fn persistent_opengl_buffers_work_on_the_reference() {
    persistent_buffers(&Driver::lavapipe());
}

#[test]
fn persistent_opengl_buffers_work() {
    persistent_buffers(&Driver::tidemark());
}

#[test]
fn persistent_opengl_buffers_work_by_each_engine() {
    engines().iter().for_each(|(_, driver)| persistent_buffers(driver));
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

#[test]
fn the_sample_makes_the_same_picture() {
    sample(&Driver::lavapipe(), None).expect_identical(&sample(&Driver::tidemark(), None), "sample");
}

#[test]
fn the_sample_makes_the_same_picture_by_each_engine() {
    let expected = sample(&Driver::lavapipe(), None);
    for (engine, driver) in engines() {
        expected.expect_identical(&sample(&driver, None), &format!("sample-{engine}"));
    }
}

#[test]
fn the_sample_makes_the_same_picture_in_a_window() {
    let display = Weston::start();
    let expected = sample(&Driver::lavapipe(), Some(&display));
    expected.expect_identical(&sample(&Driver::tidemark(), Some(&display)), "sample-window");
}

#[test]
fn the_sample_notices_when_copies_are_missing() {
    let staged = Driver::tidemark().with("TIDEMARK_TRANSFER", "staged");
    let drivers = [Driver::tidemark(), staged].into_iter();
    for (debug, driver) in
        drivers.flat_map(|driver| ["noflush", "noreadback"].map(|debug| (debug, driver.clone())))
    {
        let broken = driver.with("TIDEMARK_DEBUG", debug);
        let outcome = expect_failure(broken.command(example("sample")).args(["--frames", "3"]), LIMIT);
        assert_eq!(outcome.status.code(), Some(1), "not for a wrong byte: {}", outcome.report());
    }
}
