//! The kernel contract, on the reference module, in virtual machines with the oldest and the newest kernel that it is for;
//! and the driver on it.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tidemark_tests::{binary, run};

/// Download, build, boot and tests, on a busy machine.
const LIMIT: Duration = Duration::from_secs(1200);

/// What the scripts answer where the kernel cannot be had.
const UNAVAILABLE: i32 = 77;

/// Runs a script of tests/vm; `what` is tested by that.
#[track_caller]
fn boot(what: &str, script: &str, arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("vm").join(script);
    let outcome = run(Command::new(script).args(arguments).env("TIDEMARK_VM_SECONDS", "1100"), LIMIT);
    if outcome.status.code() == Some(UNAVAILABLE) {
        // Not by a macro: the test harness would keep it to itself.
        let line = format!("skipped: {what} on kernel {}: {}", arguments[0], outcome.stderr);
        std::io::stderr().write_all(line.as_bytes()).expect("no standard error");
        return;
    }
    assert!(outcome.status.success(), "{}", outcome.report());
}

#[test]
fn the_oldest_kernel_keeps_the_contract() {
    boot("the kernel contract", "run", &["6.12"]);
}

#[test]
fn the_newest_kernel_keeps_the_contract() {
    boot("the kernel contract", "run", &["newest"]);
}

#[test]
fn memory_of_the_kernel_driver_is_coherent() {
    let program = binary("tidemark");
    let folder = program.parent().expect("a program is in a folder").to_str().expect("a path in UTF-8");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/vm/coherence");
    boot("the driver", "host", &["6.12", script, folder]);
}
