//! What applications may not do with imported pages while they are imported, and what Tidemark makes of it: never a crash,
//! and nothing of what came in their place. And what is kept of imports that were freed: how many, and what that saves.
//!
//! Each part is played by a child, this test program, told by an environment variable which. Trusted blindly, the same
//! parts come to a bad end.

mod bench;
mod fetched;
mod kept;
mod lost;

use bench::Bench;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;
use tidemark_tests::{Driver, Gpu, Outcome, Scratch, run};
use tidemark_winsys::telemetry::{Counter, Snapshot};

const LIMIT: Duration = Duration::from_secs(60);
const PART: &str = "TIDEMARK_TEST_USER_MEMORY";

fn play(driver: &Driver, part: &str) -> Outcome {
    let mut child =
        driver.clone().with(PART, part).command(std::env::current_exe().expect("a test has a path"));
    run(child.args(["--exact", "part", "--nocapture"]), LIMIT)
}

fn drivers() -> Vec<Driver> {
    let over =
        |shape: &str, mode: &str| Driver::tidemark_over(&Driver::mock(shape)).with("TIDEMARK_MODE", mode);
    vec![Driver::tidemark(), over("phone", "auto"), over("incoherent", "always")]
}

/// What recognises pages by the kernel's list of mappings alone, which does not tell private memory from other private memory.
fn by_list() -> Driver {
    Driver::tidemark().with("TIDEMARK_TRACKER", "compare")
}

/// Plays a part on several drivers, and says what each had to say of it.
#[track_caller]
fn expect(part: &str, said: &str) {
    for driver in drivers().into_iter().chain((!part.starts_with("map over")).then(by_list)) {
        let outcome = play(&driver, part);
        let is_right = outcome.status.success()
            && outcome.stdout.contains("played the part")
            && (said.is_empty() == outcome.stderr.is_empty() && outcome.stderr.contains(said))
            // Once.
            && (said.is_empty() || outcome.stderr.matches(said).count() == 1);
        assert!(is_right, "{driver:?}: {}", outcome.report());
    }
}

#[test]
fn unmapped_pages_are_lost() {
    expect("unmap", "is lost: part of it was unmapped");
}

#[test]
fn pages_that_something_else_was_mapped_over_are_lost() {
    expect("map over", "is lost: something else was mapped in its place");
}

#[test]
fn moved_pages_are_lost() {
    expect("move", "is lost: part of it was unmapped");
}

#[test]
fn pages_that_are_lost_before_a_readback_stay_untouched() {
    expect("map over and read back", "is lost: something else was mapped in its place");
}

#[test]
fn pages_that_cannot_be_written_get_the_device_s_bytes_later() {
    expect("protect", "cannot be written at present");
}

#[test]
fn what_cannot_be_imported_is_refused_with_a_reason() {
    for (part, said) in [
        ("misaligned address", "must be multiples of minImportedHostPointerAlignment, 4096"),
        ("misaligned size", "must be multiples of minImportedHostPointerAlignment, 4096"),
        ("a hole", "part of it is not mapped"),
        ("no access", "part of it cannot be read"),
        ("a mapping of Tidemark's", "part of it is memory that vkMapMemory returned"),
        ("another type", "is none that vkGetMemoryHostPointerPropertiesEXT returned"),
    ] {
        expect(part, said);
    }
}

/// The negative control: nobody looks, so what came in the place of the pages is read, and a hole is the end.
#[test]
fn trusted_blindly_an_application_must_keep_its_pages() {
    let driver = Driver::tidemark().with("TIDEMARK_USERPTR", "unsynchronised");
    let outcome = play(&driver, "unmap");
    assert_eq!(outcome.status.signal(), Some(libc::SIGSEGV), "{}", outcome.report());
    for part in ["map over", "map over and read back"] {
        let outcome = play(&driver, part);
        assert!(outcome.stdout.contains("somebody else's"), "{part}: {}", outcome.report());
    }
    let outcome = play(&driver, "keep");
    assert!(outcome.stdout.contains("played the part") && outcome.stderr.is_empty(), "{}", outcome.report());
}

#[test]
fn as_many_imports_are_kept_as_there_is_room_for_and_none_that_are_in_the_way() {
    for part in ["many", "much", "in the way"] {
        for driver in drivers() {
            let outcome = play(&driver, part);
            assert!(outcome.stdout.contains("played the part"), "{part}, {driver:?}: {}", outcome.report());
        }
    }
}

#[test]
fn shared_pages_are_fetched_on_fault_if_that_is_asked_for() {
    for readback in ["lazy", "auto"] {
        // Who may not see the kernel's own faults reads back at the wait.
        let is_lazy = readback == "lazy" && rustix::process::geteuid().is_root();
        let driver = Driver::tidemark().with("TIDEMARK_READBACK", readback);
        let outcome = play(&driver, if is_lazy { "on fault" } else { "at the wait" });
        assert!(outcome.stdout.contains("played the part"), "{readback}: {}", outcome.report());
    }
}

/// Bytes that are flushed in the course of a part.
fn flushed(part: &str) -> u64 {
    let scratch = Scratch::new();
    let profile = scratch.file("profile");
    std::fs::create_dir(&profile).expect("cannot make a folder");
    // The policy would copy a page unasked now and then.
    let driver = Driver::tidemark().with("TIDEMARK_TRACKER", "write-protect");
    let outcome = play(&driver.with("TIDEMARK_PROFILE", &profile), part);
    assert!(outcome.stdout.contains("played the part"), "{part}: {}", outcome.report());
    let snapshots = Snapshot::read_all(&profile).expect("cannot read the profile");
    snapshots.iter().map(|snapshot| snapshot.get(Counter::BytesFlushed)).sum()
}

#[test]
fn importing_the_same_pages_again_copies_nothing_but_what_was_written() {
    assert_eq!(flushed("again"), kept::FLUSHED_AGAIN);
    // The negative control: other imports came in between.
    assert_eq!(flushed("anew"), kept::FLUSHED_ANEW);
}

#[test]
fn what_is_kept_makes_way_when_the_device_runs_short() {
    for (shape, mode) in [("phone", "auto"), ("incoherent", "always")] {
        let device = Driver::mock(shape).with("TIDEMARK_MOCK_ROOM", "30");
        let outcome = play(&Driver::tidemark_over(&device).with("TIDEMARK_MODE", mode), "shortage");
        assert!(outcome.stdout.contains("played the part"), "{}", outcome.report());
    }
}

#[test]
fn part() {
    let Ok(part) = std::env::var(PART) else { return };
    let gpu = Gpu::new().expect("cannot make a device");
    assert!(gpu.has(ash::ext::external_memory_host::NAME));
    let bench = Bench::new(gpu);
    match part.as_str() {
        "unmap" | "map over" | "map over and read back" | "move" | "protect" | "keep" => bench.lose(&part),
        "many" | "much" | "in the way" => bench.keep(&part),
        "again" | "anew" => bench.import_often(part == "anew"),
        "shortage" => bench.run_short(),
        "on fault" => bench.fetch(true),
        "at the wait" => bench.fetch(false),
        refused => bench.refuse(refused),
    }
    println!("played the part");
}
