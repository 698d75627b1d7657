//! The list that doctor prints, line by line as the checks are made, and what it comes to.

use std::io::Write;

/// Prints checks to `out`.
pub(super) struct Checklist<W> {
    out: W,
    warnings: usize,
    /// What failed.
    missing: Vec<&'static str>,
}

impl<W: Write> Checklist<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, warnings: 0, missing: Vec::new() }
    }

    /// All well with `what`, or worth knowing.
    pub(super) fn ok(&mut self, what: &str, found: &str) {
        self.line("ok", what, found, "");
    }

    /// Tidemark works, but not as well as it could.
    pub(super) fn warn(&mut self, what: &str, found: &str, advice: &str) {
        self.warnings += 1;
        self.line("warn", what, found, advice);
    }

    /// Tidemark cannot work like this.
    pub(super) fn fail(&mut self, what: &'static str, found: &str, advice: &str) {
        if !self.missing.contains(&what) {
            self.missing.push(what);
        }
        self.line("fail", what, found, advice);
    }

    /// Prints what it comes to, and returns whether Tidemark works here.
    pub(super) fn verdict(mut self) -> bool {
        let text = match (&*self.missing, self.warnings) {
            ([], 0) => "All well: Tidemark works here.".into(),
            ([], 1) => "Tidemark works here, with 1 warning.".into(),
            ([], warnings) => format!("Tidemark works here, with {warnings} warnings."),
            (missing, _) => format!("Tidemark does not work here. What fails: {}.", missing.join(", ")),
        };
        self.print(&format!("\n{text}\n"));
        self.missing.is_empty()
    }

    fn line(&mut self, mark: &str, what: &str, found: &str, advice: &str) {
        let mut text = format!("{mark:<4}  {what:<17}  {}\n", found.trim_end());
        if !advice.is_empty() {
            text.push_str(&format!("{:25}-> {advice}\n", ""));
        }
        self.print(&text);
    }

    fn print(&mut self, text: &str) {
        // Whoever reads may close the pipe early; the exit status still tells.
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(fill: impl FnOnce(&mut Checklist<&mut Vec<u8>>)) -> (String, bool) {
        let mut out = Vec::new();
        let mut list = Checklist::new(&mut out);
        fill(&mut list);
        let works = list.verdict();
        (String::from_utf8(out).unwrap(), works)
    }

    #[test]
    fn marks_and_advice_are_aligned() {
        let (text, works) = printed(|list| {
            list.ok("kernel", "Linux");
            list.warn("write tracking", "none", "update");
        });
        let expected = "ok    kernel             Linux\nwarn  write tracking     none\n                         -> update\n\
                        \nTidemark works here, with 1 warning.\n";
        assert_eq!((&*text, works), (expected, true));
    }

    #[test]
    fn failures_are_named_once_in_the_verdict() {
        let (text, works) = printed(|list| {
            list.fail("Vulkan loader", "none", "install it");
            list.fail("trial", "none", "");
            list.fail("trial", "again", "");
        });
        assert!(
            text.ends_with("\nTidemark does not work here. What fails: Vulkan loader, trial.\n"),
            "{text}"
        );
        assert!(!works);
        assert_eq!(
            printed(|list| list.ok("a", "b")).0,
            "ok    a                  b\n\nAll well: Tidemark works here.\n"
        );
    }
}
