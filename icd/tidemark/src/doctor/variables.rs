//! Check of the `TIDEMARK_*` variables that are set.

use super::checklist::Checklist;
use std::ffi::OsString;
use std::io::Write;
use vulkan_tidemark::config::{Config, VARIABLES};

const WHAT: &str = "environment";

pub(super) fn check(list: &mut Checklist<impl Write>, variables: impl Iterator<Item = (OsString, OsString)>) {
    let ours = |name: &OsString| name.as_encoded_bytes().starts_with(b"TIDEMARK_");
    let mut ours: Vec<_> = variables.filter(|(name, _)| ours(name)).collect();
    ours.sort();
    if ours.is_empty() {
        list.ok(WHAT, "no TIDEMARK_ variable is set");
    }
    for (name, value) in ours {
        let shown = format!("{}={}", name.display(), value.display());
        match VARIABLES.iter().find(|known| name == **known) {
            Some(name) => check_value(list, name, &value, &shown),
            None => {
                list.warn(WHAT, &shown, &format!("there is no such variable, only {}", VARIABLES.join(", ")))
            }
        }
    }
}

fn check_value(list: &mut Checklist<impl Write>, name: &str, value: &OsString, shown: &str) {
    let (config, warnings) = Config::parse(|asked| (asked == name).then(|| value.clone()));
    for warning in &warnings {
        list.warn(WHAT, shown, warning);
    }
    if let Some(folder) = config.profile.filter(|folder| !folder.is_dir()) {
        list.warn(WHAT, shown, &format!("there is no folder {}: no counters will be kept", folder.display()));
    } else if warnings.is_empty() {
        list.ok(WHAT, shown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(variables: &[(&str, &str)]) -> String {
        let mut out = Vec::new();
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        check(&mut Checklist::new(&mut out), variables);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_variable_is_judged_by_itself() {
        let text = checked(&[
            ("PATH", "/bin"),
            ("TIDEMARK_TRACKER", "psychic"),
            ("TIDEMARK_MODE", "always"),
            ("TIDEMARK_COLOUR", "blue"),
            ("TIDEMARK_PROFILE", "/nonexistent"),
        ]);
        let marks: Vec<&str> = text.lines().map(|line| &line[..4]).collect();
        assert_eq!(marks, ["warn", "    ", "ok  ", "warn", "    ", "warn", "    "], "{text}");
        assert!(text.contains("there is no such variable"), "{text}");
        assert!(text.contains("auto, mkwrite, dirty-bits"), "{text}");
        assert!(!text.contains("PATH"), "{text}");
    }

    #[test]
    fn none_is_well() {
        assert_eq!(checked(&[]), "ok    environment        no TIDEMARK_ variable is set\n");
    }
}
