//! Tidemark over the memory of other devices, which the mock plays: what it adds, what it leaves alone, and that what
//! it adds is coherent.

use std::process::Command;
use std::time::Duration;
use tidemark_tests::{Driver, Outcome, Scratch, expect_success, memory_types, run, vulkaninfo};

const CHECKS: &str = env!("CARGO_BIN_EXE_coherency-checks");
const FUZZ: &str = env!("CARGO_BIN_EXE_coherency-fuzz");
const LIMIT: Duration = Duration::from_secs(120);

// Properties of memory types.
const DL: u32 = 0x1;
const HV: u32 = 0x2;
const CO: u32 = 0x4;
const CA: u32 = 0x8;

/// Memory types: properties and heap.
type Types = &'static [(u32, u32)];

/// Shape, mode, and the types that applications see.
const TYPES: [(&str, &str, Types); 18] = [
    // Uncached, so cached memory is added.
    ("pi", "auto", &[(DL | HV | CO, 0), (DL | HV | CO | CA, 0)]),
    ("pi", "always", &[(DL, 0), (DL | HV | CA, 0), (DL | HV | CO | CA, 0)]),
    ("pi", "never", &[(DL | HV | CO, 0)]),
    // Coherent or cached, so what is both is added.
    ("phone", "auto", &[(DL | HV | CO, 0), (DL | HV | CA, 0), (DL | HV | CO | CA, 0)]),
    (
        "phone",
        "always",
        // Two of each: a buffer may exclude either of the device's own.
        &[(DL, 0), (DL | HV | CA, 0), (DL | HV | CA, 0), (DL | HV | CO | CA, 0), (DL | HV | CO | CA, 0)],
    ),
    ("phone", "never", &[(DL | HV | CO, 0), (DL | HV | CA, 0)]),
    // Nothing is lacking.
    ("discrete", "auto", &[(DL, 0), (HV | CO, 1), (HV | CO | CA, 1)]),
    (
        "discrete",
        "always",
        // The card's own is staged.
        &[
            (0, 1),
            (DL, 0),
            (HV | CA, 1),
            (HV | CA, 1),
            (DL | HV | CA, 0),
            (HV | CO | CA, 1),
            (HV | CO | CA, 1),
            (DL | HV | CO | CA, 0),
        ],
    ),
    ("discrete", "never", &[(DL, 0), (HV | CO, 1), (HV | CO | CA, 1)]),
    // Nothing is cached, and of its own the host sees nothing: both are added.
    ("card", "auto", &[(DL, 0), (HV | CO, 1), (HV | CO | CA, 1), (DL | HV | CO | CA, 0)]),
    (
        "card",
        "always",
        &[(0, 1), (DL, 0), (HV | CA, 1), (DL | HV | CA, 0), (HV | CO | CA, 1), (DL | HV | CO | CA, 0)],
    ),
    ("card", "never", &[(DL, 0), (HV | CO, 1)]),
    // Nothing is coherent, so that is added, and makes the device one that Vulkan allows.
    ("incoherent", "auto", &[(DL | HV | CA, 0), (DL | HV | CO | CA, 0)]),
    ("incoherent", "always", &[(DL, 0), (DL | HV | CA, 0), (DL | HV | CO | CA, 0)]),
    ("incoherent", "never", &[(DL | HV | CA, 0)]),
    // Nothing to make it of.
    ("hidden", "auto", &[(DL, 0)]),
    ("hidden", "always", &[(DL, 0)]),
    ("hidden", "never", &[(DL, 0)]),
];

/// Those with emulated memory.
const EMULATED: [(&str, &str); 9] = [
    ("pi", "auto"),
    ("pi", "always"),
    ("phone", "auto"),
    ("phone", "always"),
    ("discrete", "always"),
    ("card", "auto"),
    ("card", "always"),
    ("incoherent", "auto"),
    ("incoherent", "always"),
];

fn tidemark(shape: &str, mode: &str) -> Driver {
    Driver::tidemark_over(&Driver::mock(shape)).with("TIDEMARK_MODE", mode)
}

fn checks(driver: &Driver) -> Command {
    driver.command(CHECKS)
}

#[test]
fn what_a_device_lacks_is_added_and_the_rest_is_left_alone() {
    for (shape, mode, types) in TYPES {
        let outcome = vulkaninfo(&tidemark(shape, mode));
        assert_eq!(memory_types(&outcome), types, "{shape}, {mode}: {}", outcome.report());
        assert!(outcome.stdout.contains(&format!("= Tidemark (Tidemark mock ({shape}))\n")), "{shape}");
    }
}

/// The check that Tidemark may fail, and where. To flush memory that is not coherent is to write whole atoms, and
#[test]
fn emulated_memory_passes_every_check() {
    for (shape, mode) in EMULATED {
        let driver = tidemark(shape, mode);
        let outcome = expect_success(&mut checks(&driver), LIMIT);
        let passed = outcome.stdout.lines().filter(|line| line.starts_with("passed ")).count();
        assert!(passed > 35, "{shape}, {mode}: {}", outcome.report());
        // A fallback, or trouble with the backing driver's mapping, would have said so.
        assert_eq!(outcome.stderr, "", "{shape}, {mode}: {}", outcome.report());
    }
}

/// The negative control: the checks really use what is emulated, in mode auto too.
#[test]
fn emulated_memory_fails_without_flush_or_readback() {
    for (shape, mode) in EMULATED {
        for (debug, name) in [("noflush", "queue-submit"), ("noreadback", "wait-for-fences")] {
            let outcome = run(checks(&tidemark(shape, mode).with("TIDEMARK_DEBUG", debug)).arg(name), LIMIT);
            let said = outcome.stdout.starts_with(&format!("failed {name}: byte "));
            assert!(said, "{shape}, {mode}, {debug}: {}", outcome.report());
        }
    }
}

#[test]
fn nothing_is_found_by_the_fuzzer() {
    for (shape, mode) in EMULATED {
        let driver = tidemark(shape, mode);
        let mut command = driver.command(FUZZ);
        let outcome = expect_success(command.args(["--seed", "1", "--programs", "80"]), LIMIT);
        assert!(outcome.stdout.contains("\npassed: "), "{shape}, {mode}: {}", outcome.report());
        assert_eq!(outcome.stderr, "", "{shape}, {mode}: {}", outcome.report());
    }
}

/// Only memory that needs it is flushed and invalidated.
#[test]
fn the_backing_driver_is_told_to_flush_where_its_memory_is_not_coherent() {
    for (shape, mode, flushes) in [
        ("pi", "auto", false),
        ("phone", "auto", false),
        ("incoherent", "auto", true),
        ("incoherent", "always", true),
    ] {
        let scratch = Scratch::new();
        let log = scratch.file("log");
        let driver = tidemark(shape, mode).with("TIDEMARK_MOCK_LOG", &log);
        expect_success(checks(&driver).arg("read-after-each-submit"), LIMIT);
        let log = std::fs::read_to_string(log).expect("the mock wrote its log");
        let line = log.lines().last().unwrap_or_default();
        assert_eq!(!line.ends_with("flushed 0, invalidated 0"), flushes, "{shape}, {mode}: {line}");
        let is_one_sided = line.contains("flushed 0,") != line.ends_with("invalidated 0");
        assert!(!is_one_sided, "{shape}, {mode}: {line}");
    }
}

/// What nobody may be without, and this device is: Tidemark says so, and applications see that it is missing.
#[test]
fn a_device_without_host_visible_memory_is_one_clear_warning() {
    for mode in ["auto", "always"] {
        let outcome = run(checks(&tidemark("hidden", mode)).arg("queue-submit"), LIMIT);
        let warning = "tidemark: warn: Tidemark mock (hidden): none of its memory is host-visible";
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.report());
        assert!(outcome.stderr.starts_with(warning), "{}", outcome.report());
        assert!(outcome.stdout.starts_with("failed queue-submit: no HOST_VISIBLE"), "{}", outcome.report());
    }
}

/// The mock itself breaks Vulkan's rules for memory where Tidemark keeps them.
#[test]
fn the_checks_tell_the_devices_that_vulkan_does_not_allow() {
    for (shape, is_allowed) in
        [("pi", true), ("phone", true), ("discrete", true), ("incoherent", false), ("hidden", false)]
    {
        let names = ["memory-type-order", "memory-type-bits"];
        let outcome: Outcome = run(checks(&Driver::mock(shape)).args(names), LIMIT);
        assert_eq!(outcome.status.success(), is_allowed, "{shape}: {}", outcome.report());
    }
}
