//! Runs programs to their end, or to the end of the patience with them, and keeps all that they said.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};

use crate::Scratch;

/// How often a child or a condition is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(5);

/// A program that has ended.
#[derive(Debug)]
pub struct Outcome {
    /// The program with its arguments and environment, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Outcome {
    /// All there is to say about it, for the message of a failed test.
    #[must_use]
    pub fn report(&self) -> String {
        let Self { command, status, stdout, stderr } = self;
        format!("{command}\nended with {status}\n--- stdout ---\n{stdout}\n--- stderr ---\n{stderr}")
    }
}

/// Runs `command` without input until it ends.
///
/// # Panics
/// When it cannot be started, and when it runs for longer than `limit`: then it is killed, with the rest
/// of its process group.
#[track_caller]
pub fn run(command: &mut Command, limit: Duration) -> Outcome {
    // Into files: a pipe can fill, and a grandchild can keep one open.
    let scratch = Scratch::new();
    let (stdout, stderr) = (scratch.file("stdout"), scratch.file("stderr"));
    command.stdin(Stdio::null()).stdout(create(&stdout)).stderr(create(&stderr)).process_group(0);
    let mut child = spawn(command, Signal::KILL);

    let deadline = Instant::now() + limit;
    let (status, late) = loop {
        if let Some(status) = check(&mut child) {
            break (status, false);
        }
        if Instant::now() >= deadline {
            // Not yet waited for, so the number is still the child's. The group may be gone all the same.
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            let status = child.wait().unwrap_or_else(|error| panic!("cannot wait for a child: {error}"));
            break (status, true);
        }
        thread::sleep(POLL);
    };
    let command = format!("{command:?}");
    let outcome = Outcome { command, status, stdout: read(&stdout), stderr: read(&stderr) };
    assert!(!late, "killed after {limit:?}: {}", outcome.report());
    outcome
}

/// Runs `command`, which must end well.
///
/// # Panics
/// As [`run`], and when it does not.
#[track_caller]
pub fn expect_success(command: &mut Command, limit: Duration) -> Outcome {
    let outcome = run(command, limit);
    assert!(outcome.status.success(), "failed: {}", outcome.report());
    outcome
}

/// Runs `command`, which must say that it failed: a death by signal is not enough.
///
/// # Panics
/// As [`run`], and when it does not.
#[track_caller]
pub fn expect_failure(command: &mut Command, limit: Duration) -> Outcome {
    let outcome = run(command, limit);
    assert!(outcome.status.code().is_some_and(|code| code != 0), "should have failed: {}", outcome.report());
    outcome
}

/// The path of the program `name` below PATH.
///
/// # Panics
/// When there is none.
#[must_use]
#[track_caller]
pub fn program(name: &str) -> PathBuf {
    find_program(name).unwrap_or_else(|| panic!("{name} is not installed: run tests/setup"))
}

/// The path of the program `name` below PATH, if there is one.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Starts `command`, which gets `signal` when the calling thread ends before it: a test that is killed leaves
/// nothing running.
#[track_caller]
pub(crate) fn spawn(command: &mut Command, signal: Signal) -> Child {
    // SAFETY: the closure runs in the child between fork and exec and makes one system call; it neither
    // allocates nor takes a lock.
    unsafe { command.pre_exec(move || Ok(set_parent_process_death_signal(Some(signal))?)) };
    match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            panic!("{} is not installed: run tests/setup", command.get_program().display())
        }
        Err(error) => panic!("cannot start {}: {error}", command.get_program().display()),
    }
}

/// How the child ended, once it has.
pub(crate) fn check(child: &mut Child) -> Option<ExitStatus> {
    child.try_wait().unwrap_or_else(|error| panic!("cannot wait for a child: {error}"))
}

/// A new file for a child to write to.
pub(crate) fn create(path: &Path) -> File {
    File::create(path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()))
}

/// What a child wrote, whatever its encoding.
pub(crate) fn read(path: &Path) -> String {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => panic!("cannot read {}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn all_that_a_program_says_is_kept() {
        let outcome = expect_failure(&mut shell("echo out; echo err >&2; exit 3"), LIMIT);
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(outcome.status.code(), Some(3));
    }

    #[test]
    #[should_panic(expected = "killed after 50ms")]
    fn a_program_that_hangs_is_killed_with_its_children() {
        run(&mut shell("sleep 100; true"), Duration::from_millis(50));
    }

    #[test]
    #[should_panic(expected = "should have failed")]
    fn a_death_is_no_failure() {
        expect_failure(&mut shell("kill -9 $$"), LIMIT);
    }

    #[test]
    #[should_panic(expected = "no-such-program is not installed: run tests/setup")]
    fn a_missing_program_leads_to_the_setup() {
        run(&mut Command::new("no-such-program"), LIMIT);
    }
}
