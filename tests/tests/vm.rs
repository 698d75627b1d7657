//! The kernel contract, on the reference module, in virtual machines with the oldest and the newest kernel that it is for.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tidemark_tests::run;

/// Download, build, boot and tests, on a busy machine.
const LIMIT: Duration = Duration::from_secs(1200);

/// What `tests/vm/run` answers where the kernel cannot be had.
const UNAVAILABLE: i32 = 77;

#[track_caller]
fn boot(series: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("vm/run");
    let outcome = run(Command::new(script).arg(series), LIMIT);
    if outcome.status.code() == Some(UNAVAILABLE) {
        // Not by a macro: the test harness would keep it to itself.
        let line = format!("skipped: the kernel contract on kernel {series}: {}", outcome.stderr);
        std::io::stderr().write_all(line.as_bytes()).expect("no standard error");
        return;
    }
    assert!(outcome.status.success(), "{}", outcome.report());
}

#[test]
fn the_oldest_kernel_keeps_the_contract() {
    boot("6.12");
}

#[test]
fn the_newest_kernel_keeps_the_contract() {
    boot("newest");
}
