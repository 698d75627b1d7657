//! Why this command failed, as opposed to the application that it ran.

use std::fmt::Display;

/// Wrong options.
const USAGE: u8 = 2;
/// What env(1), timeout(1) and the like end with when they, and not the program they run, fail.
const OWN: u8 = 125;

/// A message for standard error, and the exit status that goes with it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: u8,
    pub(crate) message: String,
}

impl Failure {
    /// The command line makes no sense; `help` is the command that explains it.
    pub(crate) fn usage(help: &str, error: impl Display) -> Self {
        Self { status: USAGE, message: format!("{error}; see `{help}`") }
    }

    /// This command could not do its own part.
    pub(crate) fn own(message: impl Into<String>) -> Self {
        Self { status: OWN, message: message.into() }
    }
}
