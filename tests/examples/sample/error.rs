//! The one error of the application: a line for the person who runs it.

use std::fmt;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// What went wrong, as one line.
#[derive(Debug)]
pub(crate) struct Error(String);

impl Error {
    pub(crate) fn new(line: impl Into<String>) -> Self {
        Self(line.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says what was being done when a result turned out to be an error.
pub(crate) trait Context<T> {
    fn context(self, doing: &str) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, doing: &str) -> Result<T> {
        self.map_err(|error| Error(format!("{doing}: {error}")))
    }
}
