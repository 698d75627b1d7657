//! The validation layer: what a program gets wrong, as the layer sees it from where it lies.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::{Scratch, built, expect_success};

/// What takes a second without the layer can take some ten with it.
const LIMIT: Duration = Duration::from_secs(300);

/// A build of the validation layer.
#[derive(Clone, Debug)]
pub struct Validation {
    /// Where its manifest lies, if it is not installed.
    folder: Option<PathBuf>,
}

impl Validation {
    /// The installed one.
    #[must_use]
    pub fn installed() -> Self {
        Self { folder: None }
    }

    /// The newer one that `tests/fetch-drivers` gets; `None` if it could not be had, which is said.
    ///
    /// # Panics
    /// When it is missing on CI.
    #[must_use]
    pub fn fetched() -> Option<Self> {
        Some(Self { folder: Some(built::fetched("validation")?) })
    }

    /// Whether it is the installed one.
    #[must_use]
    pub fn is_installed(&self) -> bool {
        self.folder.is_none()
    }

    /// Runs a program, which must end well, under the layer, its check of synchronisation included. Returns the names of
    /// the rules that it breaks, each with what the layer says of it first.
    ///
    /// # Panics
    /// When the program fails, or the layer was not there.
    #[must_use]
    #[track_caller]
    pub fn errors(&self, command: &mut Command) -> BTreeMap<String, String> {
        let scratch = Scratch::new();
        let (settings, log) = (scratch.file("vk_layer_settings.txt"), scratch.file("log"));
        // Synchronisation by its old name and its new.
        let text = format!(
            "khronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG\n\
             khronos_validation.report_flags = error\n\
             khronos_validation.log_filename = {}\n\
             khronos_validation.enables = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT\n\
             khronos_validation.validate_sync = true\n",
            log.display()
        );
        if let Err(error) = fs::write(&settings, text) {
            panic!("cannot write {}: {error}", settings.display());
        }
        command.env("VK_INSTANCE_LAYERS", "VK_LAYER_KHRONOS_validation");
        command.env("VK_LAYER_SETTINGS_PATH", &settings);
        if let Some(folder) = &self.folder {
            command.env("VK_LAYER_PATH", folder);
        }
        let outcome = expect_success(command, LIMIT);
        // The layer makes the file when it is loaded; of one that is missing the loader says nothing.
        let Ok(log) = fs::read_to_string(&log) else {
            panic!("no validation layer: run tests/setup\n{}", outcome.report());
        };
        errors_in(&log)
    }
}

/// What goes before the name of a rule.
const ERROR: &str = "Validation Error: [ ";

/// The rules that a log names, each with its line and the next, where the newer layers have what they say.
fn errors_in(log: &str) -> BTreeMap<String, String> {
    let mut errors = BTreeMap::new();
    let mut lines = log.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some((rule, _)) = line.split_once(ERROR).and_then(|(_, rest)| rest.split_once(" ]")) {
            let said = [line, lines.peek().copied().unwrap_or_default()].join("\n");
            errors.entry(rule.to_owned()).or_insert(said);
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_found_in_the_logs_of_old_and_new_layers() {
        let old =
            "SYNC-A(ERROR / SPEC): msgNum: 1 - Validation Error: [ SYNC-A ] Object 0: x\n    Objects: 1\n";
        let new = "Validation Error: [ VUID-b ] | MessageID = 0x1\nvkB(): wrong\n\nValidation Warning: [ C ] | no\n";
        let errors = errors_in(&[old, new].concat());
        assert_eq!(errors.keys().collect::<Vec<_>>(), ["SYNC-A", "VUID-b"]);
        assert!(errors["VUID-b"].ends_with("vkB(): wrong"));
    }
}
