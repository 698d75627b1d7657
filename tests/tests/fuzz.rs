//! Random programs on Tidemark, by each tracker; and the proof that they find what is left out of the protocol.

use std::process::Command;
use std::time::Duration;
use tidemark_tests::{Driver, Outcome, expect_success, run};

const FUZZ: &str = env!("CARGO_BIN_EXE_coherency-fuzz");
/// Where the runs begin: the same programs each time.
const SEED: u64 = 1;
/// All that the host may map is pages of its own.
const ALL_IMPORTED: [&str; 2] = ["--imports", "100"];
/// Far longer than a run takes.
const PATIENCE: Duration = Duration::from_secs(300);

fn fuzz(driver: &Driver, programs: u32) -> Command {
    let mut command = driver.command(FUZZ);
    command.args(["--seed", &SEED.to_string(), "--programs", &programs.to_string()]);
    command
}

/// Plays so many programs, and must find nothing.
#[track_caller]
fn expect_nothing_found(driver: &Driver, programs: u32) -> Outcome {
    expect_nothing_found_by(&mut fuzz(driver, programs), programs)
}

/// The same, where all memory of the host's is imported.
#[track_caller]
fn expect_nothing_found_in_imports(driver: &Driver, programs: u32) -> Outcome {
    expect_nothing_found_by(fuzz(driver, programs).args(ALL_IMPORTED), programs)
}

#[track_caller]
fn expect_nothing_found_by(fuzz: &mut Command, programs: u32) -> Outcome {
    let outcome = expect_success(fuzz, PATIENCE);
    let passed = format!("\npassed: {programs} programs");
    assert!(outcome.stdout.contains(&passed), "{}", outcome.report());
    println!("{}", outcome.stdout);
    outcome
}

#[test]
fn nothing_is_found_with_any_tracker() {
    let driver = Driver::tidemark();
    for (tracker, programs) in [("auto", 400), ("write-protect", 250), ("compare", 150), ("copy-all", 150)] {
        println!("{tracker}:");
        let outcome = expect_nothing_found(&driver.clone().with("TIDEMARK_TRACKER", tracker), programs);
        // A fallback would have said so.
        assert_eq!(outcome.stderr, "", "{}", outcome.report());
    }
}

#[test]
fn nothing_is_found_with_lazy_readback() {
    for tracker in ["auto", "write-protect"] {
        let driver = Driver::tidemark().with("TIDEMARK_READBACK", "lazy").with("TIDEMARK_TRACKER", tracker);
        expect_nothing_found(&driver, 100);
        expect_nothing_found_in_imports(&driver, 100);
    }
}

#[test]
fn nothing_is_found_in_imported_pages() {
    let driver = Driver::tidemark();
    for tracker in ["auto", "write-protect", "compare"] {
        let driver = driver.clone().with("TIDEMARK_TRACKER", tracker);
        let outcome = expect_nothing_found_in_imports(&driver, 100);
        assert_eq!(outcome.stderr, "", "{}", outcome.report());
    }
    expect_nothing_found_in_imports(&driver.with("TIDEMARK_USERPTR", "unsynchronised"), 100);
}

#[test]
fn lavapipe_itself_passes() {
    expect_nothing_found(&Driver::lavapipe(), 150);
    expect_nothing_found_in_imports(&Driver::lavapipe(), 100);
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
