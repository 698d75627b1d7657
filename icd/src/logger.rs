//! The log: lines on standard error, each written whole.

use log::{LevelFilter, Log, Metadata, Record};
use std::io::Write;

/// What `TIDEMARK_LOG` can ask for.
pub(crate) const LEVELS: [LevelFilter; 5] =
    [LevelFilter::Error, LevelFilter::Warn, LevelFilter::Info, LevelFilter::Debug, LevelFilter::Trace];

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = record.level().as_str().to_ascii_lowercase();
        let line = format!("tidemark: {level}: {}\n", record.args());
        // An application may well have closed its standard error.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

/// Starts to log at `level` and above. Only the first call of a process counts.
pub(crate) fn start(level: LevelFilter) {
    // An error means that it was started already.
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level);
    }
}
