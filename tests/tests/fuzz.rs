//! Random programs on Tidemark, by each tracker; and the proof that they find what is left out of the protocol.

use std::process::Command;
use std::time::Duration;
use tidemark_tests::{Driver, Outcome, expect_success, run};

const FUZZ: &str = env!("CARGO_BIN_EXE_coherency-fuzz");
/// Where the runs begin: the same programs each time, but for how far they get.
const SEED: u64 = 1;
/// All that the host may map is pages of its own.
const ALL_IMPORTED: [&str; 2] = ["--imports", "100"];
/// How much longer than it should a run may take.
const PATIENCE: Duration = Duration::from_secs(120);

fn fuzz(driver: &Driver, seconds: f64) -> Command {
    let mut command = driver.command(FUZZ);
    command.args(["--seed", &SEED.to_string(), "--seconds", &seconds.to_string()]);
    command
}

/// Plays for some seconds, and must find nothing.
#[track_caller]
fn expect_nothing_found(driver: &Driver, seconds: f64) -> Outcome {
    expect_nothing_found_by(&mut fuzz(driver, seconds), seconds)
}

/// The same, where all memory of the host's is imported.
#[track_caller]
fn expect_nothing_found_in_imports(driver: &Driver, seconds: f64) -> Outcome {
    expect_nothing_found_by(fuzz(driver, seconds).args(ALL_IMPORTED), seconds)
}

#[track_caller]
fn expect_nothing_found_by(fuzz: &mut Command, seconds: f64) -> Outcome {
    let outcome = expect_success(fuzz, Duration::from_secs_f64(seconds) + PATIENCE);
    let passed = outcome.stdout.lines().find_map(|line| line.strip_prefix("passed: "));
    let programs = passed.and_then(|passed| passed.split(' ').next()?.parse::<u64>().ok());
    assert!(programs.is_some_and(|programs| programs >= 20), "hardly anything ran: {}", outcome.report());
    println!("{}", outcome.stdout);
    outcome
}

/// How long to play on Tidemark, with the tracker that has `share` of the whole.
fn seconds(share: f64) -> f64 {
    let seconds = std::env::var("TIDEMARK_FUZZ_SECONDS").ok().map(|value| {
        value.parse().unwrap_or_else(|_| panic!("TIDEMARK_FUZZ_SECONDS: \"{value}\" is no number"))
    });
    seconds.unwrap_or(30.0) * share
}

#[test]
fn nothing_is_found_with_any_tracker() {
    let driver = Driver::tidemark();
    for (tracker, share) in [("auto", 0.3), ("write-protect", 0.2), ("compare", 0.1), ("copy-all", 0.1)] {
        println!("{tracker}:");
        let outcome = expect_nothing_found(&driver.clone().with("TIDEMARK_TRACKER", tracker), seconds(share));
        // A fallback would have said so.
        assert_eq!(outcome.stderr, "", "{}", outcome.report());
    }
}

#[test]
fn nothing_is_found_with_lazy_readback() {
    for tracker in ["auto", "write-protect"] {
        let driver = Driver::tidemark().with("TIDEMARK_READBACK", "lazy").with("TIDEMARK_TRACKER", tracker);
        expect_nothing_found(&driver, seconds(0.1));
        expect_nothing_found_in_imports(&driver, seconds(0.1));
    }
}

#[test]
fn nothing_is_found_in_imported_pages() {
    let driver = Driver::tidemark();
    for tracker in ["auto", "write-protect", "compare"] {
        let driver = driver.clone().with("TIDEMARK_TRACKER", tracker);
        let outcome = expect_nothing_found_in_imports(&driver, seconds(0.1));
        assert_eq!(outcome.stderr, "", "{}", outcome.report());
    }
    expect_nothing_found_in_imports(&driver.with("TIDEMARK_USERPTR", "unsynchronised"), seconds(0.1));
}

#[test]
fn lavapipe_itself_passes() {
    expect_nothing_found(&Driver::lavapipe(), 4.0);
    expect_nothing_found_in_imports(&Driver::lavapipe(), 3.0);
}

/// The negative control: with a step of the protocol left out, a program that shows it is found and made smaller.
#[track_caller]
fn expect_found(debug: &str) {
    expect_found_with(debug, &[]);
}

#[track_caller]
fn expect_found_with(debug: &str, arguments: &[&str]) -> Outcome {
    let driver = Driver::tidemark().with("TIDEMARK_DEBUG", debug);
    let mut command = driver.command(FUZZ);
    command.args(["--seed", &SEED.to_string(), "--programs", "200"]).args(arguments);
    let outcome = run(&mut command, PATIENCE);
    assert_eq!(outcome.status.code(), Some(1), "{debug} was not found: {}", outcome.report());
    assert!(outcome.stdout.contains("\nfailed: seed "), "{}", outcome.report());
    let shrunk = outcome.stdout.lines().find_map(|line| line.strip_prefix("shrunk from "));
    let shrunk = shrunk.and_then(|line| line.split_once(':')?.0.split_once(" operations to "));
    let sizes = shrunk.and_then(|(from, to)| Some((from.parse::<u64>().ok()?, to.parse::<u64>().ok()?)));
    assert!(sizes.is_some_and(|(from, to)| to > 0 && to < from), "not shrunk: {}", outcome.report());
    println!("{}", outcome.stdout);
    outcome
}

/// And where it is left out of pages that are imported.
#[test]
fn what_is_missing_in_imported_pages_is_found() {
    for debug in ["noflush", "noreadback", "noshare"] {
        let outcome = expect_found_with(debug, &ALL_IMPORTED);
        assert!(outcome.stdout.contains(" bytes, imported ("), "{debug}: {}", outcome.report());
    }
}

#[test]
fn a_missing_flush_is_found() {
    expect_found("noflush");
}

#[test]
fn a_missing_readback_is_found() {
    expect_found("noreadback");
}

#[test]
fn a_missing_flush_before_signals_is_found() {
    expect_found("nosignal");
}

#[test]
fn missing_references_are_found() {
    expect_found("noreferences");
}

#[test]
fn missing_descriptors_are_found() {
    expect_found("nodescriptors");
}

#[test]
fn missing_twins_are_found() {
    expect_found("noshare");
}
