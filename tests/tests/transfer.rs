//! Each transfer engine, forced: over lavapipe and over the memory of other devices, with and without a queue of its own;
//! and the proof that the checks use it.

use std::process::Command;
use std::time::Duration;
use tidemark_tests::{Driver, Outcome, Scratch, expect_success, run};

const CHECKS: &str = env!("CARGO_BIN_EXE_coherency-checks");
const FUZZ: &str = env!("CARGO_BIN_EXE_coherency-fuzz");
const LIMIT: Duration = Duration::from_secs(120);

/// Checks that the host's signal releases a batch, behind which copies must not wait. Where copies go by the application's
/// queue, such batches are held back. A queue of the mock's is none of its own: all are lavapipe's one.
const NEED_A_QUEUE: [&str; 12] = [
    "map-in-flight",
    "placed-map-in-flight",
    "signal-after-submit",
    "set-event-after-submit",
    "cached-memory-flushed-late",
    "chain-of-two-timelines",
    "signal-by-another-thread",
    "set-event-by-another-thread",
    "part-of-a-call",
    "device-group-in-flight",
    "events-of-host-and-device",
    "events-of-host-and-device2",
];

/// Those of them that fail if batches are not held back; others never end.
const NEED_HOLD: [&str; 7] = [
    "signal-after-submit",
    "set-event-after-submit",
    "cached-memory-flushed-late",
    "chain-of-two-timelines",
    "signal-by-another-thread",
    "set-event-by-another-thread",
    "device-group-in-flight",
];

/// Checks that need one view of memory that a process shares with itself: staged memory has as many as allocations, and so
/// have in-place views of memory that is not coherent.
const NEED_ONE_VIEW: [&str; 3] =
    ["shared-memory", "shared-memory-across-devices", "shared-memory-outlives-its-exporter"];

/// Checks that in-place views of memory that is not coherent may fail: that the host's bytes and the device's within one
/// atom survive.
const NEED_BYTES: [&str; 2] = ["neighbouring-words", "neighbouring-bytes"];

fn over(backing: &Driver, engine: &str) -> Driver {
    Driver::tidemark_over(backing).with("TIDEMARK_TRANSFER", engine)
}

/// Drivers with each engine forced, all that is to be emulated emulated.
fn copying() -> Vec<(String, Driver)> {
    let shapes = ["discrete", "card", "incoherent"];
    let backings = shapes.map(|shape| (shape, Driver::mock(shape))).into_iter();
    backings
        .chain([("lavapipe", Driver::lavapipe())])
        .flat_map(|(name, backing)| {
            ["aperture", "staged"].map(|engine| (format!("{name}, {engine}"), over(&backing, engine)))
        })
        .collect()
}

fn checks(driver: &Driver) -> Command {
    driver.command(CHECKS)
}

/// The names of all checks, but for `left_out`.
fn checks_but(driver: &Driver, left_out: &[&str]) -> Vec<String> {
    let outcome = expect_success(checks(driver).arg("--list"), LIMIT);
    outcome.stdout.lines().filter(|name| !left_out.contains(name)).map(Into::into).collect()
}

#[track_caller]
fn expect_all_passed(what: &str, outcome: &Outcome) {
    let passed = outcome.stdout.lines().filter(|line| line.starts_with("passed ")).count();
    assert!(passed > 30, "{what}: {}", outcome.report());
}

#[test]
fn every_check_passes_by_copies() {
    for (what, driver) in copying() {
        let left_out = if what.ends_with("staged") { &NEED_ONE_VIEW[..] } else { &[] };
        let names = checks_but(&driver, left_out);
        let outcome = expect_success(checks(&driver).args(names), LIMIT);
        expect_all_passed(&what, &outcome);
        // A fallback would have said so: where the host does not see the memory, an aperture is none.
        let falls_back = what == "discrete, aperture" || what == "card, aperture";
        assert_eq!(outcome.stderr.lines().count() > 0, falls_back, "{what}: {}", outcome.report());
    }
}

#[test]
fn each_tracker_finds_what_to_stage() {
    for tracker in ["write-protect", "compare", "copy-all"] {
        let driver = over(&Driver::lavapipe(), "staged").with("TIDEMARK_TRACKER", tracker);
        let names = checks_but(&driver, &NEED_ONE_VIEW);
        let outcome = expect_success(checks(&driver).args(names), LIMIT);
        expect_all_passed(tracker, &outcome);
        assert_eq!(outcome.stderr, "", "{tracker}: {}", outcome.report());
    }
}

/// The negative control.
#[test]
fn copies_that_are_left_out_are_missed() {
    for (what, driver) in copying() {
        for (debug, name) in [("noflush", "queue-submit"), ("noreadback", "wait-for-fences")] {
            let outcome = run(checks(&driver.clone().with("TIDEMARK_DEBUG", debug)).arg(name), LIMIT);
            let said = outcome.stdout.starts_with(&format!("failed {name}: byte "));
            assert!(said, "{what}, {debug}: {}", outcome.report());
        }
    }
}

/// The negative control.
#[test]
fn batches_that_are_not_held_back_miss_what_the_host_wrote() {
    let driver = over(&Driver::lavapipe(), "staged").with("TIDEMARK_DEBUG", "nohold");
    for name in NEED_HOLD {
        let outcome = run(checks(&driver).arg(name), LIMIT);
        assert!(outcome.stdout.starts_with(&format!("failed {name}: byte ")), "{}", outcome.report());
    }
}

/// Beside the aperture, which tests/fuzz.rs is about.
#[test]
fn nothing_is_found_by_the_fuzzer() {
    for engine in ["staged", "in-place"] {
        let driver = over(&Driver::lavapipe(), engine);
        let mut command = driver.command(FUZZ);
        let outcome = expect_success(command.args(["--seed", "1", "--programs", "100"]), LIMIT);
        assert!(outcome.stdout.contains("\npassed: "), "{engine}: {}", outcome.report());
    }
}

/// Where the device has a queue to spare, one more than the checks ask for, copies go there, and batches wait for them by
/// semaphores.
#[test]
fn a_spare_queue_carries_the_copies() {
    let scratch = Scratch::new();
    let log = scratch.file("log");
    let backing = Driver::mock("discrete").with("TIDEMARK_MOCK_QUEUES", "4");
    let driver = over(&backing, "staged").with("TIDEMARK_MOCK_LOG", &log);
    let names = checks_but(&driver, &[&NEED_A_QUEUE[..], &NEED_ONE_VIEW].concat());
    let outcome = expect_success(checks(&driver).args(names), LIMIT);
    expect_all_passed("a spare queue", &outcome);
    let log = std::fs::read_to_string(log).expect("the mock wrote its log");
    assert!(log.contains("discrete: made-up queues "), "{log}");
    assert_eq!(outcome.stderr, "", "{}", outcome.report());
}

/// Whether copies share a queue with batches or have one of their own.
#[test]
fn a_queue_goes_on_from_what_another_did() {
    for queues in ["2", "4"] {
        for engine in ["aperture", "staged"] {
            let backing = Driver::mock("lavapipe").with("TIDEMARK_MOCK_QUEUES", queues);
            let driver = over(&backing, engine);
            let outcome = expect_success(checks(&driver).arg("two-queues"), LIMIT);
            assert_eq!(outcome.stdout, "passed two-queues\n", "{queues}, {engine}: {}", outcome.report());
        }
    }
}

/// Copies go to the family that the checks leave alone, if it is there.
#[test]
fn a_queue_family_takes_over_what_another_wrote() {
    for families in ["2", "3"] {
        for (shape, engine) in [("incoherent", "aperture"), ("discrete", "staged")] {
            let backing = Driver::mock(shape).with("TIDEMARK_MOCK_FAMILIES", families);
            for (debug, said) in [("", "passed "), ("noflush", "failed queue-family-ownership: byte ")] {
                let driver = over(&backing, engine).with("TIDEMARK_DEBUG", debug);
                let outcome = run(checks(&driver).arg("queue-family-ownership"), LIMIT);
                assert!(outcome.stdout.starts_with(said), "{families}, {engine}: {}", outcome.report());
            }
        }
    }
}

/// On coherent memory there is nothing to do, and nothing is lost.
#[test]
fn every_check_passes_in_place_on_coherent_memory() {
    for (name, backing) in [("lavapipe", Driver::lavapipe()), ("pi", Driver::mock("pi"))] {
        let outcome = expect_success(&mut checks(&over(&backing, "in-place")), LIMIT);
        expect_all_passed(name, &outcome);
        assert_eq!(outcome.stderr, "", "{name}: {}", outcome.report());
    }
}

#[test]
fn checks_pass_in_place_but_for_bytes_of_one_atom() {
    for tracker in ["auto", "compare", "copy-all"] {
        let scratch = Scratch::new();
        let log = scratch.file("log");
        let driver = over(&Driver::mock("incoherent"), "in-place")
            .with("TIDEMARK_TRACKER", tracker)
            .with("TIDEMARK_MOCK_LOG", &log);
        let names = checks_but(&driver, &[&NEED_BYTES[..], &NEED_ONE_VIEW].concat());
        expect_all_passed(tracker, &expect_success(checks(&driver).args(names), LIMIT));
        let log = std::fs::read_to_string(log).expect("the mock wrote its log");
        let moved = log.lines().filter(|line| !line.ends_with("flushed 0, invalidated 0")).count();
        assert!(moved > 0, "{tracker}: {log}");
    }
}

/// The negative control.
#[test]
fn flushes_that_are_left_out_are_missed_in_place() {
    let driver = over(&Driver::mock("incoherent"), "in-place");
    for (debug, name) in [("noflush", "queue-submit"), ("noreadback", "wait-for-fences")] {
        let outcome = run(checks(&driver.clone().with("TIDEMARK_DEBUG", debug)).arg(name), LIMIT);
        let said = outcome.stdout.starts_with(&format!("failed {name}: byte "));
        assert!(said, "{debug}: {}", outcome.report());
    }
}
