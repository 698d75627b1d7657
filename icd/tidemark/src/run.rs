//! `tidemark run`: an application on Tidemark alone, and afterwards what Tidemark did for it.

use crate::child::{self, Running};
use crate::failure::Failure;
use crate::scratch::Scratch;
use crate::summary::{self, Process};
use crate::{complain, driver, print};
use lexopt::prelude::*;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use tidemark_winsys::telemetry::Snapshot;
use vulkan_tidemark::config::Config;
use vulkan_tidemark::discovery::{LIBRARY, library_of};

const HELP: &str = "\
Usage: tidemark run [OPTIONS] [--] APP [ARGUMENT...]

Runs APP with Tidemark as the only Vulkan driver it can find. When it ends, a summary of the coherence traffic of
each process that used Tidemark goes to standard error.

Options:
  --mode MODE        what is emulated: auto (what the backing driver lacks), always (everything), never
  --tracker TRACKER  how the CPU's writes are found: auto, mkwrite, dirty-bits, write-protect, compare,
                     copy-all
  --transfer ENGINE  how bytes cross to the device: auto, aperture, staged, in-place
  --readback WAY     how the device's writes come to the CPU: auto, eager, lazy
  --backing DRIVER   the driver underneath, a manifest or a library (default: lavapipe, or else the first
                     installed one that has a device)
  --log LEVEL        how much Tidemark tells on standard error: error, warn, info, debug, trace
  --driver LIBRARY   the Tidemark to run (default: libvulkan_tidemark.so beside this program, in the lib folder
                     beside its own, or where the dynamic linker finds it)
  --summary FILE     write the summary to FILE as well: a JSON object per process and line
  -h, --help         this text

For what no option says TIDEMARK_MODE, TIDEMARK_TRACKER, TIDEMARK_TRANSFER, TIDEMARK_READBACK, TIDEMARK_BACKING and
TIDEMARK_LOG count.
With a folder in TIDEMARK_PROFILE the counters stay there, one file per process.

Exit status: APP's own, or 128 and the signal's number if a signal ended it; 127 if there is no APP, 126 if it cannot
be started, 125 if this command itself fails, 2 for a wrong option.
";

const NOT_STARTED: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Runs the subcommand.
pub(crate) fn main(mut arguments: lexopt::Parser) -> Result<ExitCode, Failure> {
    let options = Options::parse(&mut arguments);
    match options.map_err(|error| Failure::usage("tidemark run --help", error))? {
        Some(options) => options.run(),
        None => Ok(print(HELP)),
    }
}

#[derive(Debug, Default)]
struct Options {
    driver: Option<PathBuf>,
    summary: Option<PathBuf>,
    /// Variables of the driver, by name.
    variables: Vec<(&'static str, OsString)>,
    application: OsString,
    arguments: Vec<OsString>,
}

impl Options {
    /// `None` if help is asked for.
    fn parse(arguments: &mut lexopt::Parser) -> Result<Option<Self>, lexopt::Error> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next()? {
            match argument {
                Short('h') | Long("help") => return Ok(None),
                Long("mode") => options.set("--mode", "TIDEMARK_MODE", arguments.value()?)?,
                Long("tracker") => options.set("--tracker", "TIDEMARK_TRACKER", arguments.value()?)?,
                Long("transfer") => options.set("--transfer", "TIDEMARK_TRANSFER", arguments.value()?)?,
                Long("readback") => options.set("--readback", "TIDEMARK_READBACK", arguments.value()?)?,
                Long("log") => options.set("--log", "TIDEMARK_LOG", arguments.value()?)?,
                Long("backing") => options.variables.push(("TIDEMARK_BACKING", backing(arguments.value()?)?)),
                Long("driver") => options.driver = Some(existing("--driver", &arguments.value()?)?),
                Long("summary") => options.summary = Some(arguments.value()?.into()),
                // What follows is the application's, whatever it looks like.
                Value(application) => {
                    options.application = application;
                    options.arguments = arguments.raw_args()?.collect();
                    return Ok(Some(options));
                }
                other => return Err(other.unexpected()),
            }
        }
        Err("no application given".into())
    }

    /// Takes a value for a variable of the driver, if the driver will.
    fn set(&mut self, option: &str, variable: &'static str, value: OsString) -> Result<(), String> {
        if value.is_empty() {
            return Err(format!("{option}: the value is empty"));
        }
        let (_, warnings) = Config::parse(|name| (name == variable).then(|| value.clone()));
        if let Some(warning) = warnings.first() {
            // Its first word names the variable.
            return Err(format!("{option}{}", warning.strip_prefix(variable).unwrap_or(warning)));
        }
        self.variables.push((variable, value));
        Ok(())
    }

    /// What the application sees of a variable.
    fn variable(&self, name: &str) -> Option<OsString> {
        let given = self.variables.iter().rfind(|(variable, _)| *variable == name);
        given.map(|(_, value)| value.clone()).or_else(|| env::var_os(name))
    }

    fn run(self) -> Result<ExitCode, Failure> {
        let driver = self.driver.clone().or_else(driver::find).ok_or_else(|| {
            Failure::own(format!("{LIBRARY} is not installed where it belongs; --driver tells where it is"))
        })?;
        // Opened first, so that a wrong path does not cost a whole run.
        let summary_file = self.summary.as_deref().map(create).transpose()?;
        let scratch = Scratch::new();
        let scratch =
            scratch.map_err(|error| Failure::own(format!("cannot make a temporary folder: {error}")))?;
        let manifest = driver::write_manifest(scratch.path(), &driver).map_err(Failure::own)?;
        let profile = Profile::prepare(scratch.path())?;

        let mut command = Command::new(&self.application);
        command.args(&self.arguments);
        driver::use_alone(&mut command, &manifest);
        command.env("TIDEMARK_PROFILE", &profile.folder);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let running = Running::start(&mut command).map_err(|error| not_started(&self.application, &error))?;
        let status = running
            .wait()
            .map_err(|error| Failure::own(format!("cannot wait for the application: {error}")))?;

        let processes = profile.processes();
        let mode = Config::parse(|name| self.variable(name)).0.mode;
        // Standard error may be closed: the application's exit status counts all the same.
        let _ = io::stderr().write_all(summary::text(&processes, mode).as_bytes());
        if let Some((mut file, path)) = summary_file
            && let Err(error) = file.write_all(summary::json_lines(&processes).as_bytes())
        {
            complain(&format!("cannot write {}: {error}", path.display()));
        }
        Ok(ExitCode::from(child::exit_status(status)))
    }
}

/// The folder where the processes leave their counters.
struct Profile {
    folder: PathBuf,
    /// What was there before, if it is the user's own folder.
    before: Vec<Process>,
}

impl Profile {
    fn prepare(scratch: &Path) -> Result<Self, Failure> {
        let given = env::var_os("TIDEMARK_PROFILE").filter(|folder| !folder.is_empty());
        let folder = given.map_or_else(|| scratch.join("profile"), PathBuf::from);
        let fail =
            |error: io::Error| Failure::own(format!("cannot make the folder {}: {error}", folder.display()));
        fs::create_dir_all(&folder).map_err(fail)?;
        // The application may well change its working directory.
        let folder = std::path::absolute(&folder).map_err(fail)?;
        let mut profile = Self { folder, before: Vec::new() };
        profile.before = profile.processes();
        Ok(profile)
    }

    /// Every process that used Tidemark since.
    fn processes(&self) -> Vec<Process> {
        let snapshots = Snapshot::read_all(&self.folder).unwrap_or_else(|error| {
            complain(&format!("cannot read {}: {error}", self.folder.display()));
            Vec::new()
        });
        let is_old = |now: &Process| {
            self.before.iter().any(|before| before.pid == now.pid && before.traffic == now.traffic)
        };
        snapshots.into_iter().map(Process::from).filter(|process| !is_old(process)).collect()
    }
}

/// A path to a file that is there, absolute.
fn existing(option: &str, path: &OsStr) -> Result<PathBuf, String> {
    let fail = |error: io::Error| format!("{option}: {}: {error}", Path::new(path).display());
    fs::metadata(path).map_err(fail)?;
    std::path::absolute(path).map_err(fail)
}

/// A value for `TIDEMARK_BACKING`: a manifest, a library, or the bare name of one for the dynamic linker to find.
fn backing(value: OsString) -> Result<OsString, String> {
    let path = Path::new(&value);
    let is_manifest = path.extension() == Some(OsStr::new("json"));
    if !is_manifest && !value.is_empty() && path.parent() == Some(Path::new("")) {
        return Ok(value);
    }
    let path = existing("--backing", &value)?;
    if is_manifest {
        library_of(&path).map_err(|error| format!("--backing: {}: {error}", path.display()))?;
    }
    Ok(path.into())
}

fn create(path: &Path) -> Result<(File, &Path), Failure> {
    let file = File::create(path);
    file.map(|file| (file, path))
        .map_err(|error| Failure::own(format!("cannot write {}: {error}", path.display())))
}

fn not_started(application: &OsStr, error: &io::Error) -> Failure {
    let is_missing = error.kind() == io::ErrorKind::NotFound;
    let name = Path::new(application).display();
    let message = if is_missing && Path::new(application).parent() == Some(Path::new("")) {
        format!("cannot run {name}: there is no such program in PATH")
    } else {
        format!("cannot run {name}: {error}")
    };
    Failure { status: if is_missing { NOT_FOUND } else { NOT_STARTED }, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_winsys::Readback;
    use tidemark_winsys::tracker::Choice;

    fn parse(arguments: &[&str]) -> Result<Option<Options>, String> {
        Options::parse(&mut lexopt::Parser::from_args(arguments)).map_err(|error| error.to_string())
    }

    #[test]
    fn options_end_at_the_application() {
        for arguments in
            [&["--mode", "always", "--", "app", "--mode", "x"][..], &["--mode=always", "app", "--mode", "x"]]
        {
            let options = parse(arguments).unwrap().unwrap();
            assert_eq!(options.variables, [("TIDEMARK_MODE", "always".into())]);
            assert_eq!(options.application, "app");
            assert_eq!(options.arguments, ["--mode", "x"]);
        }
    }

    #[test]
    fn only_what_is_given_is_set_and_the_last_one_counts() {
        assert_eq!(parse(&["app"]).unwrap().unwrap().variables, []);
        let options = parse(&["--log", "debug", "--log", "trace", "app"]).unwrap().unwrap();
        assert_eq!(options.variable("TIDEMARK_LOG"), Some("trace".into()));
    }

    #[test]
    fn every_tracker_is_known_and_in_the_help() {
        for tracker in Choice::ALL.map(|tracker| tracker.to_string()) {
            assert!(parse(&["--tracker", &tracker, "app"]).is_ok());
            assert!(HELP.contains(&tracker), "{tracker}");
        }
    }

    #[test]
    fn every_way_of_reading_back_is_known_and_in_the_help() {
        let ways = Readback::ALL.map(|readback| readback.to_string());
        assert!(ways.iter().all(|way| parse(&["--readback", way, "app"]).is_ok()));
        assert!(HELP.contains(&format!(" {}\n", ways.join(", "))));
    }

    #[test]
    fn an_unknown_value_is_an_error_that_lists_the_known_ones() {
        let error = parse(&["--mode", "some.times. x", "app"]).unwrap_err();
        assert_eq!(error, r#"--mode: there is no "some.times. x"; it is one of auto, always, never"#);
        assert!(parse(&["--tracker", "psychic", "app"]).unwrap_err().contains("write-protect, compare"));
        assert!(parse(&["--transfer", "psychic", "app"]).unwrap_err().contains("staged, in-place"));
        assert!(parse(&["--log", "", "app"]).unwrap_err().contains("empty"));
    }

    #[test]
    fn wrong_usage_is_an_error() {
        assert_eq!(parse(&[]).unwrap_err(), "no application given");
        assert_eq!(parse(&["--"]).unwrap_err(), "no application given");
        assert_eq!(parse(&["--frobnicate", "app"]).unwrap_err(), "invalid option '--frobnicate'");
        assert!(parse(&["--mode"]).unwrap_err().contains("--mode"));
        assert!(parse(&["--help"]).unwrap().is_none());
    }

    #[test]
    fn a_backing_driver_is_a_name_for_the_linker_or_must_be_there() {
        let options = parse(&["--backing", "libvulkan_lvp.so", "app"]).unwrap().unwrap();
        assert_eq!(options.variables, [("TIDEMARK_BACKING", "libvulkan_lvp.so".into())]);
        for missing in ["/nonexistent/libvulkan_lvp.so", "nonexistent.json", ""] {
            assert!(parse(&["--backing", missing, "app"]).unwrap_err().contains("No such file"), "{missing}");
        }
        let scratch = Scratch::new().unwrap();
        let manifest = scratch.path().join("driver.json");
        fs::write(&manifest, "{}").unwrap();
        assert!(
            parse(&["--backing", manifest.to_str().unwrap(), "app"]).unwrap_err().contains("library_path")
        );
    }
}
