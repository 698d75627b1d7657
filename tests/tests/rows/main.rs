//! Each command that Tidemark intercepts must be intercepted: a check that passes on Tidemark fails when the command is
//! left to the backing driver, by `TIDEMARK_DEBUG=pass:COMMAND`.
//!
//! [`table`] has a row for each, held against the driver's own table in both directions: a new interception without a
//! row breaks this test. Each name of a command is called by that name.

mod arena;
mod probe;
mod table;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;
use table::{CLAIMED, NEWER, ROWS, Row, Sign};
use tidemark_tests::{Driver, Outcome, Scratch, run};
use tidemark_winsys::telemetry::{Counter, Snapshot};
use vulkan_tidemark::audit;

const CHECKS: &str = env!("CARGO_BIN_EXE_coherency-checks");
const LIMIT: Duration = Duration::from_secs(120);
/// The command that a child probes.
const PART: &str = "TIDEMARK_TEST_ROW";

#[test]
fn every_interception_has_a_row_and_every_row_an_interception() {
    let mut named = BTreeSet::new();
    for name in ROWS.iter().flat_map(|row| row.names) {
        assert!(named.insert(*name), "{name} has two rows");
    }
    let intercepted: BTreeSet<&str> = audit::intercepted().into_iter().collect();
    let without_row: Vec<_> = intercepted.difference(&named).collect();
    assert!(
        without_row.is_empty(),
        "intercepted, but without a row in tests/tests/rows/table.rs: {without_row:?}"
    );
    let stale: Vec<_> = named.difference(&intercepted).collect();
    assert!(stale.is_empty(), "in tests/tests/rows/table.rs, but not intercepted: {stale:?}");
    for name in CLAIMED.iter().map(|(name, _)| name).chain(NEWER) {
        assert!(named.contains(name), "{name} has no row");
    }
}

#[test]
fn part() {
    if let Ok(command) = std::env::var(PART) {
        probe::play(&command);
    }
}

#[test]
fn every_row_passes_and_fails_when_its_command_is_passed_through() {
    let lavapipe = Lavapipe { driver: Driver::lavapipe(), folder: None };
    lavapipe.prove(rows());
}

/// On the installed driver these are skipped.
#[test]
fn rows_that_need_a_newer_driver_pass_and_fail_there() {
    let Some(driver) = Driver::fetched("lavapipe-backports") else { return };
    let folder = driver.manifest().parent().map(Into::into);
    Lavapipe { driver, folder }.prove(rows().filter(|(_, name)| NEWER.contains(name)));
}

/// Each row by each of its names.
fn rows() -> impl Iterator<Item = (&'static Row, &'static str)> {
    ROWS.iter().flat_map(|row| row.names.iter().map(move |name| (row, *name)))
}

/// The driver below Tidemark, and below the mock.
struct Lavapipe {
    driver: Driver,
    /// Where it and its libraries lie, if it is not the installed one but the newer.
    folder: Option<PathBuf>,
}

impl Lavapipe {
    /// Proves rows, each by one of its names, several at a time.
    #[track_caller]
    fn prove(&self, rows: impl Iterator<Item = (&'static Row, &'static str)>) {
        let (work, wrong) = (Mutex::new(rows.collect::<Vec<_>>()), Mutex::new(Vec::new()));
        let next = || work.lock().expect("nobody panics with it").pop();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some((row, name)) = next() {
                        if let Err(what) = self.prove_one(row, name) {
                            wrong.lock().expect("nobody panics with it").push(format!("{name}: {what}"));
                        }
                    }
                });
            }
        });
        let wrong = wrong.into_inner().expect("nobody panicked");
        assert!(wrong.is_empty(), "{} rows are wrong:\n{}", wrong.len(), wrong.join("\n\n"));
    }

    /// Holds a row against what happens, by one of its names.
    fn prove_one(&self, row: &Row, name: &str) -> Result<(), String> {
        let as_it_is = self.play(row, name, false);
        let skipped = format!("skipped {}: ", row.check);
        if self.folder.is_none() && NEWER.contains(&name) && as_it_is.outcome.stdout.starts_with(&skipped) {
            return Ok(());
        }
        let passed_through = self.play(row, name, true);
        // What Tidemark offers where the backing driver does not have it is then not there.
        let is_gone = passed_through.outcome.stdout.starts_with(&skipped);
        if is_right(row, name, &as_it_is, false) && (is_gone || is_right(row, name, &passed_through, true)) {
            return Ok(());
        }
        Err(format!("intercepted:\n{}\npassed through:\n{}", as_it_is.report(), passed_through.report()))
    }

    /// Plays a row's check or probe, with its command passed through or not.
    fn play(&self, row: &Row, name: &str, is_passed: bool) -> Played {
        let scratch = Scratch::new();
        let profile = scratch.file("profile");
        std::fs::create_dir(&profile).expect("cannot make a folder");
        let passed = row.beside.iter().copied().chain(is_passed.then_some(name));
        let steps: Vec<String> = passed.map(|command| format!("pass:{command}")).collect();
        let driver = self
            .tidemark(row, name)
            .with("TIDEMARK_DEBUG", steps.join(","))
            .with("TIDEMARK_LOG", "debug")
            .with("TIDEMARK_PROFILE", &profile)
            // The same tracker each time, so that what is flushed can be compared.
            .with("TIDEMARK_TRACKER", "write-protect");
        let mut command: Command;
        if let Sign::Probe = row.sign {
            command = driver.command(std::env::current_exe().expect("a test has a path"));
            command.env(PART, name).args(["--exact", "part", "--nocapture"]);
        } else {
            command = driver.command(CHECKS);
            if row.names.len() > 1 {
                command.args(["--command", name]);
            }
            command.arg(row.check);
        }
        let outcome = run(&mut command, LIMIT);
        let snapshots = Snapshot::read_all(&profile).expect("cannot read the profile");
        let flushed = snapshots.iter().map(|snapshot| snapshot.get(Counter::BytesFlushed)).sum();
        Played { outcome, flushed }
    }

    /// What a row's check or probe runs on.
    fn tidemark(&self, row: &Row, name: &str) -> Driver {
        if let Some((_, extensions)) = CLAIMED.iter().find(|(claimed, _)| *claimed == name) {
            let mock = self.mock("lavapipe").with("TIDEMARK_MOCK_EXTENSIONS", extensions);
            return Driver::tidemark_over(&mock);
        }
        match row.sign {
            Sign::FailsOver(shape, _) | Sign::Misuse(shape, _) => Driver::tidemark_over(&self.mock(shape)),
            Sign::FailsStaged(_) => Driver::tidemark_over(&self.driver).with("TIDEMARK_TRANSFER", "staged"),
            Sign::Probe if name.starts_with("vkEnumerateInstance") => {
                Driver::tidemark().with("TIDEMARK_BACKING", "/nonexistent/icd.json")
            }
            _ => Driver::tidemark_over(&self.driver),
        }
    }

    fn mock(&self, shape: &str) -> Driver {
        let mock = Driver::mock(shape);
        match &self.folder {
            Some(folder) => mock.with("LD_LIBRARY_PATH", folder),
            None => mock,
        }
    }
}

/// What came of a child.
struct Played {
    outcome: Outcome,
    flushed: u64,
}

impl Played {
    fn report(&self) -> String {
        format!("{}\n{} bytes flushed", self.outcome.report(), self.flushed)
    }
}

/// Whether a child ended as it must, with the row's command passed through or not.
fn is_right(row: &Row, name: &str, played: &Played, is_passed: bool) -> bool {
    let Played { outcome, flushed } = played;
    let passed = outcome.status.success() && outcome.stdout == format!("passed {}\n", row.check);
    let failed = |why: &str| {
        outcome.status.code() == Some(1)
            && outcome.stdout.starts_with(&format!("failed {}: ", row.check))
            && outcome.stdout.contains(why)
    };
    match row.sign {
        Sign::Fails(why) | Sign::FailsOver(_, why) | Sign::FailsStaged(why) if is_passed => failed(why),
        Sign::Misuse(_, what) if is_passed => {
            outcome.status.signal() == Some(libc::SIGABRT) && outcome.stderr.contains(what)
        }
        Sign::Fails(_) | Sign::FailsOver(..) | Sign::FailsStaged(_) | Sign::Misuse(..) => passed,
        Sign::Leaves(kind) => passed && is_told(outcome, "not destroyed before: ", kind) == is_passed,
        Sign::Holds(kind) => passed && is_told(outcome, "destroyed with ", kind) == is_passed,
        Sign::Flushes(most) => passed && (*flushed > most) == is_passed,
        Sign::Probe => outcome.status.success() && probe::saw_tidemark(name, outcome) != is_passed,
    }
}

/// Whether the log tells of a number of objects of a kind, after these words.
fn is_told(outcome: &Outcome, words: &str, kind: &str) -> bool {
    let told = outcome.stderr.lines().filter_map(|line| line.split_once(words));
    let mut parts = told.flat_map(|(_, told)| told.split(", "));
    parts.any(|part| part.split_once(' ').is_some_and(|(_, told)| told == kind))
}
