//! No tracking: every page is suspected, and comparison with the twin finds the bytes.

use super::Tracker;
use crate::Span;
use std::io;

pub(super) const NAME: &str = "compare";

/// Suspects every page. Needs nothing of the kernel; costs a comparison of all that is mapped at every
/// flush.
#[derive(Debug, Default)]
pub struct Compare;

impl Tracker for Compare {
    fn name(&self) -> &'static str {
        NAME
    }

    fn compares(&self) -> bool {
        true
    }

    fn attach(&self, _region: Span) -> io::Result<()> {
        Ok(())
    }

    fn arm(&self, _span: Span) -> io::Result<()> {
        Ok(())
    }

    fn collect(&self, span: Span, written: &mut Vec<Span>) -> io::Result<()> {
        written.push(span);
        Ok(())
    }
}
