//! `coherency-checks`: small Vulkan programs, each of which proves one rule that host memory must keep.
//!
//! They know nothing of Tidemark: any driver can be put to them, and lavapipe passes them all. None flushes or
//! invalidates coherent memory, and most omit the barrier to the host, as many applications do.
//!
//! `coherency-checks [--list] [NAME ...]` runs all checks, or those named, and prints a line for each. The exit
//! status is 0 if none failed, 1 if one did, 2 for a name that is not known.

mod bytes;
mod compute;
mod gpu;
mod limits;
mod maps;
mod memory_types;
mod references;
mod submits;
mod waits;

use std::process::ExitCode;

/// What a check found.
pub(crate) enum Outcome {
    Passed,
    /// The device cannot do what the check is about.
    Skipped(&'static str),
}

/// The rule that was broken, or the Vulkan call that failed.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl From<ash::vk::Result> for Failure {
    fn from(error: ash::vk::Result) -> Self {
        Self(format!("a Vulkan call returned {error}"))
    }
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Self(what)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(format!("a system call failed: {error}"))
    }
}

pub(crate) type Verdict = Result<Outcome, Failure>;

type Check = (&'static str, fn() -> Verdict);

fn checks() -> Vec<Check> {
    [
        submits::CHECKS,
        waits::CHECKS,
        bytes::CHECKS,
        references::CHECKS,
        maps::CHECKS,
        memory_types::CHECKS,
        limits::CHECKS,
    ]
    .concat()
}

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let checks = checks();
    if names.iter().any(|name| name == "--list") {
        checks.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = names.iter().find(|name| !checks.iter().any(|(known, _)| known == name)) {
        eprintln!("there is no check \"{unknown}\"; --list shows them all");
        return ExitCode::from(2);
    }
    let mut failed = 0;
    for (name, check) in checks.iter().filter(|(name, _)| names.is_empty() || names.iter().any(|n| n == name))
    {
        match check() {
            Ok(Outcome::Passed) => println!("passed {name}"),
            Ok(Outcome::Skipped(why)) => println!("skipped {name}: {why}"),
            Err(Failure(what)) => {
                println!("failed {name}: {what}");
                failed += 1;
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
