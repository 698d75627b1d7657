//! The built command as a user meets it. What it runs here are no Vulkan applications: none of this depends on a
//! driver.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use tidemark_winsys::telemetry::{Counter, Profile};

/// A folder for one test, which is also where the command keeps its temporary files.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("tmp")).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The command, and nothing in its environment that would change what it does.
    fn tidemark(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
        for (name, _) in std::env::vars_os() {
            let bytes = name.as_encoded_bytes();
            if bytes.starts_with(b"TIDEMARK_") || bytes.starts_with(b"VK_") {
                command.env_remove(name);
            }
        }
        command.args(arguments).env("TMPDIR", self.file("tmp")).stdin(Stdio::null());
        command
    }

    /// `tidemark run` with a driver that is only there.
    fn run(&self, arguments: &[&str]) -> Command {
        let driver = self.file("libvulkan_tidemark.so");
        fs::write(&driver, "").unwrap();
        let mut command = self.tidemark(&["run", "--driver"]);
        command.arg(driver).args(arguments);
        command
    }

    fn assert_tidy(&self) {
        let left: Vec<_> = fs::read_dir(self.file("tmp")).unwrap().collect();
        assert!(left.is_empty(), "temporary files are left: {left:?}");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Checks the exit status and returns what went to standard output and standard error.
#[track_caller]
fn expect(status: i32, output: &Output) -> (String, String) {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "\n{stdout}\n{stderr}");
    (stdout, stderr)
}

#[test]
fn the_exit_status_is_the_applications() {
    let folder = Folder::new();
    for (script, status) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -SEGV $$", 139)] {
        let output = folder.run(&["--", "sh", "-c", script]).output().unwrap();
        let (_, stderr) = expect(status, &output);
        assert!(stderr.contains("no process used Tidemark"), "{stderr}");
        folder.assert_tidy();
    }
}

#[test]
fn what_cannot_be_started_is_one_clear_line() {
    let folder = Folder::new();
    let script = folder.file("script");
    fs::write(&script, "").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o600)).unwrap();
    let script = script.to_str().unwrap();
    for (application, status) in [("tidemark-nonexistent", 127), ("/nonexistent", 127), (script, 126)] {
        let (_, stderr) = expect(status, &folder.run(&["--", application]).output().unwrap());
        assert!(stderr.starts_with(&format!("tidemark: cannot run {application}: ")), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        folder.assert_tidy();
    }
}

#[test]
fn wrong_usage_is_one_clear_line() {
    let folder = Folder::new();
    let cases: [(&[&str], &str); 9] = [
        (&[], "tidemark --help"),
        (&["frobnicate"], "there is no command \"frobnicate\""),
        (&["--frobnicate"], "--frobnicate"),
        (&["run"], "no application"),
        (&["run", "--frobnicate", "--", "true"], "--frobnicate"),
        (&["run", "--mode", "sometimes", "--", "true"], "auto, always, never"),
        (&["run", "--driver", "/nonexistent.so", "--", "true"], "/nonexistent.so"),
        (&["doctor", "--frobnicate"], "--frobnicate"),
        (&["doctor", "now"], "now"),
    ];
    for (arguments, message) in cases {
        let (stdout, stderr) = expect(2, &folder.tidemark(arguments).output().unwrap());
        assert!(stderr.starts_with("tidemark: ") && stderr.contains(message), "{arguments:?}: {stderr}");
        assert_eq!((&*stdout, stderr.lines().count()), ("", 1), "{arguments:?}: {stderr}");
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let folder = Folder::new();
    let cases: [(&[&str], &str); 4] = [
        (&["--help"], "Usage: tidemark COMMAND"),
        (&["run", "--help"], "Usage: tidemark run "),
        (&["doctor", "-h"], "Usage: tidemark doctor "),
        (&["--version"], concat!("tidemark ", env!("CARGO_PKG_VERSION"))),
    ];
    for (arguments, start) in cases {
        let (stdout, stderr) = expect(0, &folder.tidemark(arguments).output().unwrap());
        assert!(stdout.starts_with(start), "{arguments:?}: {stdout}");
        assert_eq!(stderr, "");
    }
}

#[test]
fn the_application_finds_tidemark_alone_and_the_options() {
    let folder = Folder::new();
    let script = r#"test "$VK_DRIVER_FILES" = "$VK_ICD_FILENAMES" && cat "$VK_DRIVER_FILES" && echo &&
        echo "$TIDEMARK_MODE,$TIDEMARK_TRACKER,$TIDEMARK_LOG,$TIDEMARK_BACKING,$VK_ADD_DRIVER_FILES""#;
    let mut command = folder.run(&["--mode", "always", "--tracker=compare", "--", "sh", "-c", script]);
    command.env("VK_ADD_DRIVER_FILES", "/other.json").env("VK_DRIVER_FILES", "/other.json");
    command.env("TIDEMARK_MODE", "never").env("TIDEMARK_LOG", "info");
    let (stdout, _) = expect(0, &command.output().unwrap());
    let lines: Vec<&str> = stdout.lines().collect();
    let library = format!("{:?}", folder.file("libvulkan_tidemark.so"));
    assert!(lines[0].contains(&library), "{stdout}");
    assert_eq!(lines[1], "always,compare,info,,");
    folder.assert_tidy();
}

/// A file of counters, as a process on Tidemark leaves it.
fn counters(folder: &Folder) -> PathBuf {
    let profile = Profile::shared(&folder.0, "Tidemark (a device)", "compare").unwrap();
    profile.add(Counter::Allocations, 2);
    profile.add(Counter::BytesFlushed, 3 << 20);
    folder.file(&format!("{}.tidemark", std::process::id()))
}

#[test]
fn the_summary_shows_each_process_to_people_and_to_scripts() {
    let folder = Folder::new();
    let (counters, summary) = (counters(&folder), folder.file("summary"));
    let script = r#"for pid in 11 12; do cp "$0" "$TIDEMARK_PROFILE/$pid.tidemark"; done; exit 3"#;
    let summary_option = format!("--summary={}", summary.display());
    let mut command = folder.run(&[&summary_option, "--", "sh", "-c", script]);
    let (_, stderr) = expect(3, &command.arg(counters).output().unwrap());
    for line in ["(process 11)", "  device              Tidemark (a device)", "  bytes flushed       6.0 MiB"]
    {
        assert!(stderr.contains(line), "{stderr}");
    }
    let lines = fs::read_to_string(summary).unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(
        lines[1].starts_with(r#"{"pid":12,"#) && lines[1].contains(r#""bytes_flushed":3145728,"#),
        "{lines:?}"
    );
    folder.assert_tidy();
}

#[test]
fn the_users_own_folder_of_counters_stays_and_what_was_in_it_is_not_of_this_run() {
    let folder = Folder::new();
    let (counters, profile) = (counters(&folder), folder.file("profile"));
    fs::create_dir(&profile).unwrap();
    fs::copy(&counters, profile.join("11.tidemark")).unwrap();
    let script = r#"cp "$0" "$TIDEMARK_PROFILE/12.tidemark""#;
    let mut command = folder.run(&["--", "sh", "-c", script]);
    command.arg(counters).env("TIDEMARK_PROFILE", &profile);
    let (_, stderr) = expect(0, &command.output().unwrap());
    assert!(stderr.contains("(process 12)") && !stderr.contains("(process 11)"), "{stderr}");
    assert!(profile.join("12.tidemark").exists());
}

#[test]
fn a_summary_that_cannot_be_written_is_told_before_the_run() {
    let folder = Folder::new();
    let output = folder.run(&["--summary", "/nonexistent/file", "--", "echo", "ran"]).output().unwrap();
    let (stdout, stderr) = expect(125, &output);
    assert_eq!(stdout, "");
    assert!(stderr.starts_with("tidemark: cannot write /nonexistent/file: "), "{stderr}");
}

/// Starts an application that traps a signal, sends the signal to the command alone, and returns what came of it.
fn signalled(signal: &str, script: &str) -> (Output, Folder) {
    let folder = Folder::new();
    let mut command = folder.run(&["--", "sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    // The application is ready when it says so.
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let mut output = child.wait_with_output().unwrap();
    std::io::Read::read_to_end(&mut stdout, &mut output.stdout).unwrap();
    (output, folder)
}

#[test]
fn a_request_to_terminate_reaches_the_application() {
    let (output, folder) = signalled("-TERM", "echo ready; exec sleep 1000");
    expect(143, &output);
    folder.assert_tidy();
    let (output, _) =
        signalled("-TERM", "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.01; done");
    assert_eq!(expect(5, &output).0, "bye\n");
}

#[test]
fn an_interrupt_is_the_applications_business() {
    let (output, folder) = signalled("-INT", "echo ready; sleep 0.3; echo done");
    let (stdout, stderr) = expect(0, &output);
    assert_eq!(stdout, "done\n");
    assert!(stderr.contains("no process used Tidemark"), "{stderr}");
    folder.assert_tidy();
}

#[test]
fn doctor_checks_everything_and_says_what_it_comes_to() {
    let folder = Folder::new();
    let output = folder.tidemark(&["doctor"]).env("TIDEMARK_TRACKER", "psychic").output().unwrap();
    let stdout = text(&output.stdout);
    let checks = [
        "kernel",
        "write tracking",
        "userfaultfd",
        "host memory",
        "mappings",
        "open files",
        "Vulkan loader",
        "Tidemark",
        "installed driver",
        "backing driver",
        "render node",
        "environment",
    ];
    let mut rest = &*stdout;
    for check in checks {
        let found = rest.find(&format!("  {check:<17}  ")).unwrap_or_else(|| panic!("no {check}: {stdout}"));
        rest = &rest[found..];
    }
    assert!(stdout.contains("\nwarn  environment        TIDEMARK_TRACKER=psychic\n"), "{stdout}");
    let failed = stdout.lines().any(|line| line.starts_with("fail  "));
    assert_eq!(output.status.code(), Some(i32::from(failed)), "{stdout}");
    let verdict = if failed { "Tidemark does not work here." } else { "Tidemark works here, with " };
    assert!(stdout.lines().last().is_some_and(|line| line.starts_with(verdict)), "{stdout}");
    folder.assert_tidy();
}

#[test]
fn doctor_tells_what_is_missing() {
    let folder = Folder::new();
    let mut command = folder.tidemark(&["doctor", "--driver", "/nonexistent/libvulkan_tidemark.so"]);
    let (stdout, _) = expect(1, &command.env("TIDEMARK_BACKING", "/nonexistent/lvp.json").output().unwrap());
    assert!(stdout.contains("\nfail  Tidemark           /nonexistent/libvulkan_tidemark.so: "), "{stdout}");
    assert!(stdout.contains("\nfail  backing driver     /nonexistent/lvp.json: No such file"), "{stdout}");
    let last = stdout.lines().last().unwrap();
    assert!(
        last.starts_with("Tidemark does not work here. ") && last.contains("Tidemark, backing driver"),
        "{last}"
    );
}
