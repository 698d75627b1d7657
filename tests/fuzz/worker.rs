//! Programs are played by a process of their own, which may crash or hang: the other notices, and knows which it was.

use crate::generate;
use crate::options::{self, Options};
use crate::player::{Failure, Player};
use crate::program::{Abilities, Program};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// What each line of a worker begins with, which are for the supervisor: a program begins, one failed, all is done.
const BEGIN: &str = "begin ";
const FAILED: &str = "failed ";
const DONE: &str = "done ";
/// What the first of these goes on with, behind the seed: how many memories are imported, how buffers are aligned, and if so
/// that sets may be updated after they were bound.
const IMPORTS: &str = " imports ";
const ALIGNED: &str = " aligned ";
const LATE: &str = " late";

/// How long a worker may be silent: a program takes milliseconds.
const SILENCE: Duration = Duration::from_secs(25);

/// Why a run ended.
pub(crate) struct Found {
    /// The program that was being played.
    pub(crate) seed: Option<u64>,
    /// What it was made for.
    pub(crate) abilities: Abilities,
    /// The operation, if it is known.
    pub(crate) number: Option<usize>,
    pub(crate) what: String,
}

/// The program of `seed`, or what the options leave of it.
pub(crate) fn program(options: &Options, seed: u64, abilities: Abilities) -> Program {
    let program = generate::program(seed, options.ops, abilities);
    match &options.only {
        Some(only) => program.only(|number| only.contains(&number)),
        None => program,
    }
}

/// Plays, and reports line by line.
pub(crate) fn work(options: &Options) -> ExitCode {
    let player = match Player::new(options.imports) {
        Ok(player) => player,
        Err(what) => {
            println!("{FAILED}{what}");
            return ExitCode::FAILURE;
        }
    };
    let abilities = player.abilities;
    let late = if abilities.update_after_bind { LATE } else { "" };
    let start = Instant::now();
    let mut played = 0;
    while played < options.programs && start.elapsed() < options.time {
        let seed = options.seed + played;
        let Abilities { imports, buffer_alignment, .. } = abilities;
        println!("{BEGIN}{seed}{IMPORTS}{imports}{ALIGNED}{buffer_alignment}{late}");
        if let Err(Failure { number, what }) = player.play(&program(options, seed, abilities)) {
            println!("{FAILED}{number} {what}");
            let _ = std::io::stdout().flush();
            // SAFETY: ends the process at once. Batches may be blocked for good, and nothing could be tidied up.
            unsafe { libc::_exit(1) };
        }
        played += 1;
    }
    println!("{DONE}{played} {:.1}", start.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}

fn start(options: &Options) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--worker", "--seed", &options.seed.to_string(), "--ops", &options.ops.to_string()]);
    command.args(["--imports", &options.imports.to_string()]);
    if options.programs != u64::MAX {
        command.args(["--programs", &options.programs.to_string()]);
    }
    if options.time != Duration::MAX {
        command.args(["--seconds", &options.time.as_secs_f64().to_string()]);
    }
    if let Some(only) = &options.only {
        command.args(["--only", &options::list(only)]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
}

/// Has a worker play.
pub(crate) fn supervise(options: &Options) -> Result<(), Found> {
    let abilities = Abilities::default();
    let failed = |what: String| Found { seed: None, abilities, number: None, what };
    let mut child = start(options).map_err(|error| failed(error.to_string()))?;
    let Some(stdout) = child.stdout.take() else { return Err(failed("no output".to_string())) };
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        lines.map_while(|line| sender.send(line).ok()).for_each(drop);
    });
    let outcome = watch(options, &lines);
    // It has ended, or is to.
    let _ = child.kill();
    let status = child.wait();
    outcome.map_err(|mut found| {
        if found.what.is_empty() {
            found.what = match status {
                Ok(status) => format!("the process ended with {status}"),
                Err(error) => error.to_string(),
            };
        }
        found
    })
}

fn watch(options: &Options, lines: &Receiver<String>) -> Result<(), Found> {
    let (mut seed, mut abilities) = (None, Abilities::default());
    loop {
        let found = |number, what: &str| Found { seed, abilities, number, what: what.to_string() };
        let line = match lines.recv_timeout(SILENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => return Err(found(None, "the process hangs")),
            // How, its status will tell.
            Err(RecvTimeoutError::Disconnected) => return Err(found(None, "")),
        };
        if let Some(begun) = line.strip_prefix(BEGIN) {
            abilities.update_after_bind = begun.ends_with(LATE);
            let parsed = begun.trim_end_matches(LATE).split_once(ALIGNED);
            let alignment = parsed.and_then(|(_, alignment)| alignment.parse().ok());
            abilities.buffer_alignment = alignment.unwrap_or(abilities.buffer_alignment);
            let parsed = parsed.and_then(|(begun, _)| begun.split_once(IMPORTS));
            seed = parsed.and_then(|(seed, _)| seed.parse().ok());
            let imports = parsed.and_then(|(_, imports)| imports.parse().ok());
            abilities.imports = imports.unwrap_or(abilities.imports);
            if options.is_verbose {
                println!("program {begun}");
                seed.iter().for_each(|&seed| print!("{}", program(options, seed, abilities)));
            }
        } else if let Some(what) = line.strip_prefix(FAILED) {
            let parsed = what.split_once(' ').and_then(|(number, what)| Some((number.parse().ok()?, what)));
            return Err(match (seed, parsed) {
                (Some(_), Some((number, what))) => {
                    found(Some(number), &format!("operation {number}: {what}"))
                }
                _ => found(None, what),
            });
        } else if let Some(done) = line.strip_prefix(DONE) {
            if let Some((programs, seconds)) = done.split_once(' ').filter(|_| options.only.is_none()) {
                println!("passed: {programs} programs in {seconds} s");
            }
            return Ok(());
        }
    }
}
