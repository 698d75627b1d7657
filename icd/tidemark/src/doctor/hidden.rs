//! What applications do not see of the backing driver where memory is emulated, and why.

use super::checklist::Checklist;
use std::io::Write;
use vulkan_tidemark::hidden;

/// What is hidden for one reason.
type Group = (&'static str, Vec<&'static str>);

/// What is hidden and `is_meant`, by reason.
fn groups(is_meant: impl Fn(&str) -> bool) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (name, reason) in hidden::all().filter(|(name, _)| is_meant(name)) {
        match groups.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, names)) => names.push(name),
            None => groups.push((reason, vec![name])),
        }
    }
    groups
}

/// Tells which of them the backing driver `has`.
pub(super) fn report(list: &mut Checklist<impl Write>, has: &[String]) {
    const WHAT: &str = "hidden";
    let groups = groups(|name| has.iter().any(|one| one == name));
    if groups.is_empty() {
        list.ok(WHAT, "nothing that the backing driver has (`tidemark doctor --hidden` tells what might be)");
    }
    for (reason, names) in groups {
        list.ok(WHAT, &format!("{}, where memory is emulated: {reason}", names.join(", ")));
    }
}

/// All of them, for `--hidden`.
pub(super) fn table() -> String {
    let mut text = String::from(
        "On devices with emulated memory, applications do not see these extensions and features of the backing driver:\n",
    );
    for (reason, names) in groups(|_| true) {
        text.push_str(&format!("\n{reason}\n"));
        names.iter().for_each(|name| text.push_str(&format!("  {name}\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(has: &[&str]) -> String {
        let mut out = Vec::new();
        let has: Vec<String> = has.iter().map(|name| (*name).to_owned()).collect();
        report(&mut Checklist::new(&mut out), &has);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_the_driver_has_is_told_with_its_reason() {
        let text = reported(&[
            "VK_NV_mesh_shader",
            "micromapHostCommands",
            "VK_AMD_buffer_marker",
            "VK_KHR_swapchain",
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(
            lines[0]
                .contains("VK_NV_mesh_shader, VK_AMD_buffer_marker, where memory is emulated: its commands"),
            "{text}"
        );
        assert!(
            lines[1].contains("micromapHostCommands, where memory is emulated: the backing driver"),
            "{text}"
        );
        assert!(reported(&[]).contains("hidden             nothing that the backing driver has"));
    }

    #[test]
    fn everything_stands_in_the_table_once() {
        let table = table();
        for (name, reason) in hidden::all() {
            assert_eq!(table.lines().filter(|line| line.trim() == name).count(), 1, "{name}");
            assert_eq!(table.lines().filter(|line| *line == reason).count(), 1, "{reason}");
        }
    }
}
