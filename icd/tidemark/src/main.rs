//! The `tidemark` command: runs applications on the Tidemark driver, tells what the driver did for them, and whether
//! it can work on this machine.

mod child;
mod doctor;
mod driver;
mod failure;
mod json;
mod library;
mod probe;
mod run;
mod scratch;
mod summary;
mod units;

use failure::Failure;
use lexopt::prelude::*;
use std::io::{self, Write};
use std::process::ExitCode;

const HELP: &str = "\
Usage: tidemark COMMAND

Tidemark is a Vulkan driver that makes host memory coherent over a device that cannot see what the CPU writes.

Commands:
  run       run an application on Tidemark and sum up its coherence traffic
  doctor    check whether Tidemark works on this machine, and what it would use

Options:
  -h, --help       this text; `tidemark COMMAND --help` tells more about a command
  -V, --version    the version
";

fn main() -> ExitCode {
    dispatch(lexopt::Parser::from_env()).unwrap_or_else(|failure| {
        complain(&failure.message);
        ExitCode::from(failure.status)
    })
}

fn dispatch(mut arguments: lexopt::Parser) -> Result<ExitCode, Failure> {
    let usage = |error: lexopt::Error| Failure::usage("tidemark --help", error);
    match arguments.next().map_err(usage)? {
        Some(Short('h') | Long("help")) => Ok(print(HELP)),
        Some(Short('V') | Long("version")) => {
            Ok(print(concat!("tidemark ", env!("CARGO_PKG_VERSION"), "\n")))
        }
        Some(Value(command)) => match command.to_str() {
            Some("run") => run::main(arguments),
            Some("doctor") => doctor::main(arguments),
            Some(probe::COMMAND) => probe::main(arguments),
            _ => Err(usage(format!("there is no command {command:?}").into())),
        },
        Some(other) => Err(usage(other.unexpected())),
        None => Err(usage("no command given".into())),
    }
}

/// Prints what the user asked for. Whoever reads it may well close the pipe early: no error.
fn print(text: &str) -> ExitCode {
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Writes a line about this command itself to standard error, which may be closed.
fn complain(message: &str) {
    let _ = io::stderr().write_all(format!("tidemark: {message}\n").as_bytes());
}
