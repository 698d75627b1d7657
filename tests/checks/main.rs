//! `coherency-checks`: small Vulkan programs, each of which proves one rule that host memory must keep.
//!
//! They know nothing of Tidemark: any driver can be put to them, and lavapipe passes them all. None flushes or
//! invalidates coherent memory, and most omit the barrier to the host, as many applications do.
//!
//! `coherency-checks [--list] [--command COMMAND] [NAME ...]` runs all checks, or those named, and prints a line for
//! each. With `--command` they call a Vulkan command by that of its names, such as vkCmdCopyBuffer2KHR. The exit status
//! is 0 if none failed, 1 if one did, 2 for a check that is not known.

mod blocked;
mod bytes;
mod compute;
mod copies;
mod draws;
mod exports;
mod gpu;
mod graphics;
mod images;
mod imports;
mod limits;
mod maps;
mod memory_types;
mod objects;
mod placed;
mod queues;
mod references;
mod shared;
mod spirv;
mod submits;
mod swapchains;
mod waits;

use std::ffi::CString;
use std::process::ExitCode;
use std::sync::OnceLock;

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

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Self {
        std::io::Error::from(error).into()
    }
}

pub(crate) type Verdict = Result<Outcome, Failure>;

/// The name that `--command` gave.
static COMMAND: OnceLock<CString> = OnceLock::new();

type Check = (&'static str, fn() -> Verdict);

fn checks() -> Vec<Check> {
    [
        submits::CHECKS,
        waits::CHECKS,
        blocked::CHECKS,
        exports::CHECKS,
        queues::CHECKS,
        bytes::CHECKS,
        references::CHECKS,
        shared::CHECKS,
        copies::CHECKS,
        draws::CHECKS,
        images::CHECKS,
        swapchains::CHECKS,
        objects::CHECKS,
        maps::CHECKS,
        placed::CHECKS,
        imports::CHECKS,
        memory_types::CHECKS,
        limits::CHECKS,
    ]
    .concat()
}

fn main() -> ExitCode {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    let checks = checks();
    if let Some(at) = names.iter().position(|name| name == "--command") {
        let named = names.drain(at..names.len().min(at + 2)).nth(1).and_then(|name| CString::new(name).ok());
        let Some(command) = named else {
            eprintln!("--command needs the name of a Vulkan command");
            return ExitCode::from(2);
        };
        COMMAND.get_or_init(|| command);
    }
    if names.iter().any(|name| name == "--list") {
        checks.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = names.iter().find(|name| !checks.iter().any(|(known, _)| known == name)) {
        eprintln!("there is no check \"{unknown}\"; --list shows them all");
        return ExitCode::from(2);
    }
    let is_chosen = |name: &str| names.is_empty() || names.iter().any(|chosen| chosen == name);
    let chosen = checks.iter().filter(|(name, _)| is_chosen(name));
    if let Some(command) = COMMAND.get()
        && gpu::Gpu::new().is_ok_and(|gpu| gpu.command(command).is_none())
    {
        let why = format!("the device has no {}", command.to_string_lossy());
        chosen.for_each(|(name, _)| println!("skipped {name}: {why}"));
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for (name, check) in chosen {
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
