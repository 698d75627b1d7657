//! No tracking: every page is taken for written, and copied. The oracle for all others, and the cheapest where
//! nearly everything changes all the time.

use super::Tracker;

pub(super) const NAME: &str = "copy-all";

/// Takes every page for written.
#[derive(Debug, Default)]
pub struct CopyAll;

impl Tracker for CopyAll {
    fn name(&self) -> &'static str {
        NAME
    }
}
