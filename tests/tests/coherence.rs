//! The coherency checks on Tidemark, by each tracker, with and without privilege; and the proof that they can fail.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;
use tidemark_tests::{Driver, Outcome, expect_success, run};

const CHECKS: &str = env!("CARGO_BIN_EXE_coherency-checks");
const LIMIT: Duration = Duration::from_secs(300);

/// What nobody can pass when host writes do not reach the device.
const NEED_FLUSH: [&str; 23] = [
    "shared-memory",
    "shared-memory-across-devices",
    "shared-memory-outlives-its-exporter",
    "queue-submit",
    "queue-submit2",
    "rewrite-each-submit",
    "signal-after-submit",
    "set-event-after-submit",
    "cached-memory-flushed",
    "write-back-and-forth",
    "kernel-writes",
    "threads-race-with-submits",
    "map-at-offset",
    "write-then-unmap",
    "map-memory2",
    "map-in-flight",
    "placed-map",
    "placed-map-of-a-range",
    "placed-write-then-unmap",
    "sub-allocation",
    "import-host-writes",
    "import-kinds-of-memory",
    "import-again",
];

/// What nobody can pass when device writes do not reach the host.
const NEED_READBACK: [&str; 21] = [
    "shared-memory",
    "shared-memory-across-devices",
    "shared-memory-outlives-its-exporter",
    "wait-for-fences",
    "get-fence-status",
    "wait-semaphores",
    "get-semaphore-counter-value",
    "get-event-status",
    "queue-wait-idle",
    "device-wait-idle",
    "map-after-wait",
    "written-while-unmapped",
    "placed-map-after-wait",
    "placed-map-in-flight",
    "placed-bytes-of-both",
    "read-after-each-submit",
    "neighbouring-words",
    "neighbouring-bytes",
    "import-device-writes",
    "import-neighbouring-bytes",
    "import-part-of-it",
];

/// What nobody can pass when the host's signal releases a batch and nothing else happens.
const NEED_SIGNAL: [&str; 2] = ["signal-after-submit", "set-event-after-submit"];

/// What nobody can pass when it is not known what a batch uses.
const NEED_REFERENCES: [&str; 5] =
    ["queue-submit", "queue-submit2", "wait-for-fences", "indirect-dispatch", "buffer-image-copies"];

/// What nobody can pass when descriptors lead nowhere.
const NEED_DESCRIPTORS: [&str; 5] = [
    "storage-descriptors",
    "uniform-descriptors",
    "dynamic-descriptors",
    "copied-descriptors",
    "templated-descriptors",
];

/// What nobody can pass when pages that the device writes have no twin.
const NEED_SHARE: [&str; 5] = [
    "import-device-writes",
    "wait-for-fences",
    "neighbouring-words",
    "read-after-each-submit",
    "placed-bytes-of-both",
];

/// What lavapipe of Debian 12 cannot do, and newer ones can, but for waits for presentation.
const NOT_YET: [&str; 28] = [
    "memory-budget",
    "descriptors-updated-after-recording",
    "descriptors-bound-by-structure",
    "descriptors-pushed-by-structure",
    "descriptors-pushed-by-template-structure",
    "sparse-buffer",
    "index-buffer2",
    "draw-mesh-tasks-indirect",
    "draw-mesh-tasks-indirect-count",
    "copy-memory-to-image",
    "copy-image-to-memory",
    "copy-image-to-image",
    "transition-image-layout",
    "acquire-next-image",
    "acquire-next-image2",
    "wait-for-present",
    "wait-for-present2",
    "present-fence",
    "present-and-submit",
    "exported-fence",
    "exported-semaphore",
    "exported-after-others",
    "exported-before-an-event",
    "semaphore-of-another-device",
    "imported-semaphore",
    "imported-fence",
    "two-queues",
    "queue-family-ownership",
];
/// Nor has every machine files that are DMA buffers.
const NO_DMA_BUFFER: &str = "memory-fd-properties";

/// What Tidemark offers over any lavapipe, and not all of these have.
const MAPS: [&str; 9] = [
    "map-memory2",
    "placed-map",
    "placed-map-of-a-range",
    "placed-write-then-unmap",
    "placed-map-after-wait",
    "placed-map-in-flight",
    "placed-bytes-of-both",
    "free-while-placed",
    "reserved-addresses",
];

fn checks(driver: &Driver) -> Command {
    driver.command(CHECKS)
}

/// Every check passed, or was skipped for a reason that the test allows.
#[track_caller]
fn expect_all_passed(outcome: &Outcome, may_be_skipped: &[&str]) {
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert!(lines.len() > 25, "too few checks ran: {}", outcome.report());
    for line in lines {
        let skipped = line.strip_prefix("skipped ").and_then(|line| line.split(':').next());
        let may_be_skipped =
            |name| NOT_YET.contains(&name) || name == NO_DMA_BUFFER || may_be_skipped.contains(&name);
        let is_fine = line.starts_with("passed ") || skipped.is_some_and(may_be_skipped);
        assert!(is_fine, "{line}\n{}", outcome.report());
    }
}

#[test]
fn lavapipe_itself_passes() {
    let outcome = expect_success(&mut checks(&Driver::lavapipe()), LIMIT);
    let others = ["cached-memory-flushed", "cached-memory-flushed-late"];
    expect_all_passed(&outcome, &[&MAPS[..], &others].concat());
}

#[test]
fn write_protect_tracking_passes() {
    let driver = Driver::tidemark().with("TIDEMARK_TRACKER", "write-protect");
    let outcome = expect_success(&mut checks(&driver), LIMIT);
    expect_all_passed(&outcome, &[]);
    // A fallback would have said so.
    assert_eq!(outcome.stderr, "", "{}", outcome.report());
}

#[test]
fn comparison_passes() {
    let driver = Driver::tidemark().with("TIDEMARK_TRACKER", "compare");
    expect_all_passed(&expect_success(&mut checks(&driver), LIMIT), &[]);
}

#[test]
fn copying_everything_passes() {
    let driver = Driver::tidemark().with("TIDEMARK_TRACKER", "copy-all");
    expect_all_passed(&expect_success(&mut checks(&driver), LIMIT), &[]);
}

#[test]
fn lazy_readback_passes() {
    for tracker in ["auto", "write-protect"] {
        let driver = Driver::tidemark().with("TIDEMARK_READBACK", "lazy").with("TIDEMARK_TRACKER", tracker);
        let outcome = expect_success(&mut checks(&driver), LIMIT);
        expect_all_passed(&outcome, &[]);
        // A fallback would have said so; without privilege it must.
        let is_right = !rustix::process::geteuid().is_root() || outcome.stderr.is_empty();
        assert!(is_right, "{}", outcome.report());
    }
}

#[test]
fn lazy_readback_without_privilege_is_eager_and_says_so() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = UnprivilegedCopy::new();
    let outcome = expect_success(place.command().env("TIDEMARK_READBACK", "lazy"), LIMIT);
    expect_all_passed(&outcome, &[]);
    let mut lines = outcome.stderr.lines();
    assert!(lines.all(|line| line.contains("lazy readback needs") && line.contains("/dev/userfaultfd")));
    assert_ne!(outcome.stderr, "");
}

#[test]
fn an_unprivileged_process_passes() {
    if !rustix::process::geteuid().is_root() {
        // Then every test of this file is the proof.
        return;
    }
    let place = UnprivilegedCopy::new();
    let outcome = expect_success(&mut place.command(), LIMIT);
    expect_all_passed(&outcome, &[]);
    // A fallback would have said so.
    assert_eq!(outcome.stderr, "", "{}", outcome.report());
}

#[test]
fn few_file_descriptors_suffice_for_ten_thousand_allocations() {
    let driver = Driver::tidemark();
    let mut command = driver.command("bash");
    command.args([OsStr::new("-c"), "ulimit -n 256; exec \"$0\" ten-thousand-mapped-allocations".as_ref()]);
    command.arg(CHECKS);
    let outcome = expect_success(&mut command, LIMIT);
    assert_eq!(outcome.stdout, "passed ten-thousand-mapped-allocations\n", "{}", outcome.report());
}

/// The negative control: with a step of the protocol left out, each check that depends on it fails.
#[track_caller]
fn expect_each_fails(debug: &str, names: &[&str]) {
    let driver = Driver::tidemark().with("TIDEMARK_DEBUG", debug);
    for &name in names {
        // By itself: a check may find in recycled memory what an earlier one left there.
        let outcome = run(checks(&driver).arg(name), LIMIT);
        assert_eq!(outcome.status.code(), Some(1), "{name} should fail with {debug}: {}", outcome.report());
        assert!(outcome.stdout.starts_with(&format!("failed {name}: ")), "{}", outcome.report());
    }
}

/// What others wait for, by files that the mock exports: lavapipe of Debian 12 exports none.
#[test]
fn data_is_back_before_others_are_told() {
    let extensions = "VK_KHR_external_fence_fd,VK_KHR_external_semaphore_fd";
    let mock = Driver::mock("lavapipe").with("TIDEMARK_MOCK_EXTENSIONS", extensions);
    let driver = Driver::tidemark_over(&mock);
    let names = [
        "exported-fence",
        "exported-semaphore",
        "exported-after-others",
        "semaphore-of-another-device",
        "imported-semaphore",
        "imported-fence",
        "exported-before-an-event",
    ];
    for name in names {
        for engine in ["aperture", "staged"] {
            let driver = driver.clone().with("TIDEMARK_TRANSFER", engine);
            let outcome = expect_success(checks(&driver).arg(name), LIMIT);
            assert_eq!(outcome.stdout, format!("passed {name}\n"), "{engine}: {}", outcome.report());
        }
        // The negative control. The last is about a command that must not wait.
        if name != "exported-before-an-event" {
            let early = driver.clone().with("TIDEMARK_DEBUG", "noexport");
            let outcome = run(checks(&early).arg(name), LIMIT);
            assert!(outcome.stdout.starts_with(&format!("failed {name}: byte ")), "{}", outcome.report());
        }
    }
}

#[test]
fn checks_fail_without_flush() {
    expect_each_fails("noflush", &NEED_FLUSH);
}

#[test]
fn checks_fail_without_readback() {
    expect_each_fails("noreadback", &NEED_READBACK);
}

#[test]
fn checks_fail_when_signals_do_not_flush() {
    expect_each_fails("nosignal", &NEED_SIGNAL);
}

#[test]
fn checks_fail_without_references() {
    expect_each_fails("noreferences", &NEED_REFERENCES);
}

#[test]
fn checks_fail_without_descriptors() {
    expect_each_fails("nodescriptors", &NEED_DESCRIPTORS);
}

#[test]
fn checks_fail_without_twins() {
    expect_each_fails("noshare", &NEED_SHARE);
}

/// Driver, manifest and checks where "nobody" can read them: a checkout may lie in a private folder.
struct UnprivilegedCopy {
    scratch: tidemark_tests::Scratch,
}

/// Debian's "nobody" and "nogroup".
const NOBODY: u32 = 65534;

impl UnprivilegedCopy {
    fn new() -> Self {
        use std::fs::{Permissions, copy, set_permissions};
        use std::os::unix::fs::PermissionsExt;
        let scratch = tidemark_tests::Scratch::new();
        let library = scratch.file("libvulkan_tidemark.so");
        copy(tidemark_tests::driver_library(), &library).expect("cannot copy the driver");
        copy(CHECKS, scratch.file("coherency-checks")).expect("cannot copy the checks");
        let manifest = scratch.file("tidemark_icd.json");
        tidemark_tests::write_manifest(&manifest, &library.to_string_lossy(), "1.3.0");
        let folder = manifest.parent().expect("a file lies in a folder").to_owned();
        set_permissions(folder, Permissions::from_mode(0o755)).expect("cannot open the folder");
        Self { scratch }
    }

    fn command(&self) -> Command {
        let driver = Driver::at(self.scratch.file("tidemark_icd.json"))
            .with("TIDEMARK_BACKING", Driver::lavapipe().manifest())
            .with("TIDEMARK_MODE", "always")
            .with("TIDEMARK_TRACKER", "write-protect");
        let mut command = driver.command(self.scratch.file("coherency-checks"));
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
        command
    }
}
