//! No tracking: every page is suspected, and comparison with the twin finds the bytes.

use super::Tracker;

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
}
