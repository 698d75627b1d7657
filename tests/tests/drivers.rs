//! Tidemark over software drivers other than the installed one, which all other tests are about: Mesa's of the backports
//! (Vulkan 1.4), and SwiftShader.
//!
//! `tests/fetch-drivers` gets them. A driver that could not be had is skipped, and said so; on CI it must be there.

use std::collections::BTreeSet;
use std::time::Duration;
use tidemark_tests::applications::{cubes, device_name, persistent_buffers, sample, summary};
use tidemark_tests::{Driver, Xvfb, expect_success, program};

const CHECKS: &str = env!("CARGO_BIN_EXE_coherency-checks");
const FUZZ: &str = env!("CARGO_BIN_EXE_coherency-fuzz");
const LIMIT: Duration = Duration::from_secs(300);

/// A check that a driver cannot be put to, and why.
type Skip = (&'static str, &'static str);

const NO_BUDGET: Skip = ("memory-budget", "VK_EXT_memory_budget is not there");
const NO_BUFFER: Skip = ("memory-fd-properties", "a plain file is no DMA buffer");
const NO_SPARSE: Skip = ("sparse-buffer", "no sparse binding");
const NO_INDEX_BUFFER2: Skip = ("index-buffer2", "no vkCmdBindIndexBuffer2");
const NO_WAIT_FOR_PRESENT: Skip = ("wait-for-present", "no waits for presentation");
const NO_WAIT_FOR_PRESENT2: Skip = ("wait-for-present2", "no waits for presentation");
const FEW_ALLOCATIONS: Skip =
    ("ten-thousand-mapped-allocations", "the device has no room for ten thousand allocations");

const NO_SUCH_BINDING: &str = "the device has no such way to bind descriptors";
const NO_MESHES: &str = "no mesh shaders";
const NO_FEEDBACK: &str = "no transform feedback";
const NO_SURFACES: &str = "no headless surfaces";
const NO_SEMAPHORE_FILE: &str = "no semaphore can be exported as a sync file";
const NO_OPAQUE_SEMAPHORE: &str = "no semaphore can be exported as an opaque file";
const NO_HOST_COPIES: &str = "the host cannot copy images";
const NO_PLACED: &str = "memory cannot be placed at addresses that stay reserved";
const ALL_IS_COHERENT: &str = "no memory type is cached and not coherent";

/// On every driver here.
const EVERYWHERE: &[Skip] = &[
    ("exported-fence", "no fence can be exported as a sync file"),
    ("exported-semaphore", NO_SEMAPHORE_FILE),
    ("exported-after-others", NO_SEMAPHORE_FILE),
    ("exported-before-an-event", NO_SEMAPHORE_FILE),
    ("imported-fence", "no fence can be exported as an opaque file"),
    ("two-queues", "there is one queue"),
    ("queue-family-ownership", "there is one queue family"),
];

/// Mesa 22.3.
const INSTALLED: &[Skip] = &[
    NO_BUDGET,
    NO_BUFFER,
    NO_SPARSE,
    NO_INDEX_BUFFER2,
    ("descriptors-updated-after-recording", NO_SUCH_BINDING),
    ("descriptors-bound-by-structure", NO_SUCH_BINDING),
    ("descriptors-pushed-by-structure", NO_SUCH_BINDING),
    ("descriptors-pushed-by-template-structure", NO_SUCH_BINDING),
    ("draw-mesh-tasks-indirect", NO_MESHES),
    ("draw-mesh-tasks-indirect-count", NO_MESHES),
    ("copy-memory-to-image", NO_HOST_COPIES),
    ("copy-image-to-memory", NO_HOST_COPIES),
    ("copy-image-to-image", NO_HOST_COPIES),
    ("transition-image-layout", NO_HOST_COPIES),
    ("acquire-next-image", NO_SURFACES),
    ("acquire-next-image2", NO_SURFACES),
    ("wait-for-present", NO_SURFACES),
    ("wait-for-present2", NO_SURFACES),
    ("present-fence", NO_SURFACES),
    ("present-and-submit", NO_SURFACES),
    ("semaphore-of-another-device", NO_OPAQUE_SEMAPHORE),
    ("imported-semaphore", NO_OPAQUE_SEMAPHORE),
];

/// Mesa 25.
const BACKPORTS: &[Skip] = &[
    NO_WAIT_FOR_PRESENT,
    NO_WAIT_FOR_PRESENT2,
    ("semaphore-of-another-device", NO_OPAQUE_SEMAPHORE),
    ("imported-semaphore", NO_OPAQUE_SEMAPHORE),
];

const SWIFTSHADER: &[Skip] = &[
    NO_BUDGET,
    NO_BUFFER,
    NO_SPARSE,
    NO_INDEX_BUFFER2,
    NO_WAIT_FOR_PRESENT,
    NO_WAIT_FOR_PRESENT2,
    FEW_ALLOCATIONS,
    ("pushed-descriptors", NO_SUCH_BINDING),
    ("descriptors-pushed-by-template", NO_SUCH_BINDING),
    ("descriptors-bound-by-structure", NO_SUCH_BINDING),
    ("descriptors-pushed-by-structure", NO_SUCH_BINDING),
    ("descriptors-pushed-by-template-structure", NO_SUCH_BINDING),
    ("draw-indirect-count", "no draws with a count from a buffer"),
    ("draw-indexed-indirect-count", "no draws with a count from a buffer"),
    ("draw-indirect-byte-count", NO_FEEDBACK),
    ("transform-feedback", NO_FEEDBACK),
    ("transform-feedback-resumed", NO_FEEDBACK),
    ("transform-feedback-counted", NO_FEEDBACK),
    ("draw-mesh-tasks-indirect", NO_MESHES),
    ("draw-mesh-tasks-indirect-count", NO_MESHES),
    ("conditional-rendering", "no conditional rendering"),
];

/// In mode auto Tidemark adds nothing to any of them.
const NOTHING_ADDED: &[Skip] = &[
    ("import-queries", "the driver denies that buffers can be imported"),
    ("cached-memory-flushed", ALL_IS_COHERENT),
    ("cached-memory-flushed-late", ALL_IS_COHERENT),
    ("map-memory2", "no vkMapMemory2"),
    ("placed-map", NO_PLACED),
    ("placed-map-of-a-range", "only whole allocations can be placed"),
    ("placed-write-then-unmap", NO_PLACED),
    ("placed-map-after-wait", NO_PLACED),
    ("placed-map-in-flight", NO_PLACED),
    ("placed-bytes-of-both", NO_PLACED),
    ("free-while-placed", NO_PLACED),
    ("reserved-addresses", NO_PLACED),
];

/// What is fetched, and what each of them cannot do.
const FETCHED: [(&str, &[Skip]); 2] = [("lavapipe-backports", BACKPORTS), ("swiftshader", SWIFTSHADER)];

/// Those that could be had.
fn fetched() -> impl Iterator<Item = (Driver, &'static [Skip])> {
    FETCHED.into_iter().filter_map(|(name, skips)| Some((Driver::fetched(name)?, skips)))
}

fn tidemark(backing: &Driver, mode: &str) -> Driver {
    Driver::tidemark_over(backing).with("TIDEMARK_MODE", mode)
}

#[test]
fn vulkaninfo_can_ask_everything() {
    let display = Xvfb::start();
    for (backing, _) in fetched() {
        let name = format!("Tidemark ({})", device_name(&backing));
        for mode in ["always", "auto"] {
            let driver = tidemark(&backing, mode);
            let mut command = driver.command(program("vulkaninfo"));
            display.attach(&mut command);
            let outcome = expect_success(&mut command, LIMIT);
            assert!(outcome.stdout.contains("VK_KHR_xcb_surface"), "no surface: {}", outcome.report());
            assert_eq!(device_name(&driver), name);
            // Of the version of the backing driver, whichever that is.
            assert_eq!(summary(&driver, "apiVersion"), summary(&backing, "apiVersion"), "{name}");
        }
    }
}

/// Every check passes, but for those that the driver cannot be put to.
#[track_caller]
fn expect_checks(driver: &Driver, skips: &[Skip]) {
    let outcome = expect_success(&mut driver.command(CHECKS), LIMIT);
    let skipped = outcome.stdout.lines().filter_map(|line| line.strip_prefix("skipped ")?.split_once(": "));
    let known = EVERYWHERE.iter().chain(skips).copied();
    let (skipped, known): (BTreeSet<_>, BTreeSet<_>) = (skipped.collect(), known.collect());
    // A newer version of a driver may do more.
    assert!(skipped.is_subset(&known), "{:?} is new: {}", &skipped - &known, outcome.report());
    let passed = outcome.stdout.lines().filter(|line| line.starts_with("passed ")).count();
    assert!(passed > 35, "too few checks: {}", outcome.report());
}

#[test]
fn the_checks_pass_in_mode_always() {
    expect_checks(&Driver::tidemark(), INSTALLED);
    fetched().for_each(|(backing, skips)| expect_checks(&tidemark(&backing, "always"), skips));
}

#[test]
fn the_checks_pass_in_mode_auto() {
    let skipped = |skips: &[Skip]| [skips, NOTHING_ADDED].concat();
    expect_checks(&tidemark(&Driver::lavapipe(), "auto"), &skipped(INSTALLED));
    for (backing, skips) in fetched() {
        expect_checks(&tidemark(&backing, "auto"), &skipped(skips));
    }
}

#[test]
fn nothing_is_found_by_the_fuzzer() {
    for (backing, _) in fetched() {
        for (mode, programs) in [("always", "150"), ("auto", "50")] {
            let driver = tidemark(&backing, mode);
            let mut command = driver.command(FUZZ);
            let outcome = expect_success(command.args(["--seed", "1", "--programs", programs]), LIMIT);
            assert!(outcome.stdout.contains("\npassed: "), "{}", outcome.report());
        }
    }
}

#[test]
fn the_sample_makes_the_same_picture() {
    for (backing, _) in fetched() {
        let expected = sample(&backing, None);
        for mode in ["always", "auto"] {
            expected.expect_identical(&sample(&tidemark(&backing, mode), None), "sample-on-another-driver");
        }
    }
}

#[test]
fn vkcube_draws_the_same_cube() {
    for (backing, _) in fetched() {
        let (expected, actual) = cubes(&backing, &tidemark(&backing, "always"), 30);
        expected.expect_identical(&actual, "vkcube-on-another-driver");
    }
}

/// Over SwiftShader, too, where Zink offers but OpenGL 2.1, with the extension that these buffers need.
#[test]
fn persistent_opengl_buffers_work() {
    fetched().for_each(|(backing, _)| persistent_buffers(&tidemark(&backing, "always")));
}

/// The negative control: these tests see memory that Tidemark emulates over each of the drivers.
#[test]
fn the_checks_fail_without_flush_or_readback() {
    for (backing, _) in fetched() {
        for (debug, name) in [("noflush", "queue-submit"), ("noreadback", "wait-for-fences")] {
            let broken = tidemark(&backing, "always").with("TIDEMARK_DEBUG", debug);
            let outcome = tidemark_tests::run(broken.command(CHECKS).arg(name), LIMIT);
            assert!(outcome.stdout.starts_with(&format!("failed {name}: byte ")), "{}", outcome.report());
        }
    }
}
