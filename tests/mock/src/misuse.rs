//! The end of a program that breaks the rules: a test driver is there to notice, not to cope.

use std::fmt::Arguments;

/// Says a line to whoever runs the test.
#[expect(clippy::print_stderr, reason = "a driver for tests, which has no other way to be heard")]
pub(crate) fn say(what: Arguments<'_>) {
    eprintln!("tidemark-mock: {what}");
}

/// Ends the process: the program used the driver in a way that the specification forbids.
pub(crate) fn misuse(what: Arguments<'_>) -> ! {
    say(format_args!("misuse: {what}"));
    std::process::abort()
}
