//! The `TIDEMARK_*` environment variables: read once, when the driver is first used.
//!
//! A value nobody knows is a warning and the default, never a guess. In an elevated process (set-user-ID and
//! the like) none is read, as the loader does with its own.

use crate::audit;
use log::LevelFilter;
use std::ffi::OsString;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::OnceLock;
use tidemark_winsys::{Readback, Trust, tracker};

/// Which memory is emulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// What the backing driver lacks.
    #[default]
    Auto,
    /// All host-visible memory: the backing driver is taken for a non-coherent device.
    Always,
    /// None.
    Never,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Auto, Self::Always, Self::Never];
}

impl Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        })
    }
}

/// How bytes cross between host views and device memory, where there is a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transfer {
    /// By aperture where the backing memory is host-visible, else staged. Never in place, which is not coherent to the byte.
    #[default]
    Auto,
    /// Copies by the CPU, through the backing driver's mapping.
    Aperture,
    /// Copies by the device, through staging memory.
    Staged,
    /// No copies: the application maps what the backing driver maps.
    InPlace,
}

impl Transfer {
    const ALL: [Self; 4] = [Self::Auto, Self::Aperture, Self::Staged, Self::InPlace];
}

impl Display for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Aperture => "aperture",
            Self::Staged => "staged",
            Self::InPlace => "in-place",
        })
    }
}

/// Steps of the protocol to leave out, so that the tests which must then fail can be seen to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Debug {
    /// Host writes never reach the device.
    pub no_flush: bool,
    /// Device writes never reach the host.
    pub no_readback: bool,
    /// Nothing is flushed when the host signals.
    pub no_signal: bool,
    /// What command buffers refer to is not looked at.
    pub no_references: bool,
    /// What descriptor sets lead to is not looked at.
    pub no_descriptors: bool,
    /// Pages get no twin before the device writes them.
    pub no_share: bool,
    /// Batches that wait for the host are not held back.
    pub no_hold: bool,
    /// What others wait for is signalled by the batch itself, before its writes are read back.
    pub no_export: bool,
    /// Commands that are not intercepted, each by one of its names.
    pub passed: Vec<&'static str>,
}

impl Debug {
    /// Each step's name in `TIDEMARK_DEBUG`, and where it is kept.
    #[expect(clippy::type_complexity, reason = "a table")]
    const STEPS: [(&str, fn(&mut Self) -> &mut bool); 8] = [
        ("noflush", |debug| &mut debug.no_flush),
        ("noreadback", |debug| &mut debug.no_readback),
        ("nosignal", |debug| &mut debug.no_signal),
        ("noreferences", |debug| &mut debug.no_references),
        ("nodescriptors", |debug| &mut debug.no_descriptors),
        ("noshare", |debug| &mut debug.no_share),
        ("nohold", |debug| &mut debug.no_hold),
        ("noexport", |debug| &mut debug.no_export),
    ];
    /// What goes before the name of a command to pass through.
    const PASS: &str = "pass:";

    /// Whether the command with these names is passed through.
    pub(crate) fn passes(&self, names: &[&str]) -> bool {
        self.passed.iter().any(|passed| names.contains(passed))
    }

    /// Takes one step of the list in, or tells what is wrong with it.
    fn leave_out(&mut self, step: &str) -> Result<(), String> {
        if let Some(command) = step.strip_prefix(Self::PASS) {
            let known = audit::intercepted().into_iter().find(|known| *known == command);
            let command = known.ok_or_else(|| format!("no command \"{command}\" is intercepted"))?;
            self.passed.push(command);
            return Ok(());
        }
        if let Some((_, left_out)) = Self::STEPS.iter().find(|(name, _)| *name == step) {
            *left_out(self) = true;
            return Ok(());
        }
        let steps = Self::STEPS.map(|(name, _)| name).join(", ");
        Err(format!("there is no \"{step}\"; it is a comma list of {steps}, {}COMMAND", Self::PASS))
    }
}

/// Everything the environment says.
#[derive(Clone, Debug)]
pub struct Config {
    /// `TIDEMARK_BACKING`: a driver manifest or library.
    pub backing: Option<PathBuf>,
    /// `TIDEMARK_MODE`.
    pub mode: Mode,
    /// `TIDEMARK_TRACKER`.
    pub tracker: tracker::Choice,
    /// `TIDEMARK_TRANSFER`.
    pub transfer: Transfer,
    /// `TIDEMARK_READBACK`.
    pub readback: Readback,
    /// `TIDEMARK_USERPTR`.
    pub user_memory: Trust,
    /// `TIDEMARK_DEBUG`.
    pub debug: Debug,
    /// `TIDEMARK_LOG`.
    pub log: LevelFilter,
    /// `TIDEMARK_PROFILE`: a directory where each process leaves its counters.
    pub profile: Option<PathBuf>,
}

/// The variables' names.
pub const VARIABLES: [&str; 9] = [
    "TIDEMARK_BACKING",
    "TIDEMARK_MODE",
    "TIDEMARK_TRACKER",
    "TIDEMARK_TRANSFER",
    "TIDEMARK_READBACK",
    "TIDEMARK_USERPTR",
    "TIDEMARK_DEBUG",
    "TIDEMARK_LOG",
    "TIDEMARK_PROFILE",
];

impl Config {
    /// This process's configuration. The first call reads the environment, starts the log, and warns there.
    pub fn get() -> &'static Self {
        static CONFIG: OnceLock<Config> = OnceLock::new();
        CONFIG.get_or_init(|| {
            let (config, warnings) =
                Self::parse(|name| if is_elevated() { None } else { std::env::var_os(name) });
            crate::logger::start(config.log);
            for warning in warnings {
                log::warn!("{warning}. Ignored");
            }
            config
        })
    }

    /// Parses the values `variable` gives by name. Returns what is wrong with them, too, one line each.
    pub fn parse(variable: impl Fn(&str) -> Option<OsString>) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        let text = |name: &str, warnings: &mut Vec<String>| {
            let value = variable(name).filter(|value| !value.is_empty())?;
            value.into_string().map_err(|_| warnings.push(format!("{name} is not UTF-8: ignored"))).ok()
        };
        let mut debug = Debug::default();
        for name in text("TIDEMARK_DEBUG", &mut warnings).iter().flat_map(|value| value.split(',')) {
            let name = name.trim();
            if !name.is_empty()
                && let Err(wrong) = debug.leave_out(name)
            {
                warnings.push(format!("TIDEMARK_DEBUG: {wrong}"));
            }
        }
        let mode = text("TIDEMARK_MODE", &mut warnings);
        let tracker = text("TIDEMARK_TRACKER", &mut warnings);
        let transfer = text("TIDEMARK_TRANSFER", &mut warnings);
        let readback = text("TIDEMARK_READBACK", &mut warnings);
        let user_memory = text("TIDEMARK_USERPTR", &mut warnings);
        let log = text("TIDEMARK_LOG", &mut warnings);
        let path = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let config = Self {
            backing: path("TIDEMARK_BACKING"),
            mode: choose("TIDEMARK_MODE", mode, &Mode::ALL, Mode::Auto, &mut warnings),
            tracker: choose(
                "TIDEMARK_TRACKER",
                tracker,
                &tracker::Choice::ALL,
                tracker::Choice::Auto,
                &mut warnings,
            ),
            transfer: choose("TIDEMARK_TRANSFER", transfer, &Transfer::ALL, Transfer::Auto, &mut warnings),
            readback: choose("TIDEMARK_READBACK", readback, &Readback::ALL, Readback::Auto, &mut warnings),
            user_memory: choose("TIDEMARK_USERPTR", user_memory, &Trust::ALL, Trust::Watched, &mut warnings),
            debug,
            log: choose("TIDEMARK_LOG", log, &crate::logger::LEVELS, LevelFilter::Warn, &mut warnings),
            profile: path("TIDEMARK_PROFILE"),
        };
        (config, warnings)
    }
}

fn choose<T: Copy + Display>(
    name: &str,
    value: Option<String>,
    choices: &[T],
    default: T,
    warnings: &mut Vec<String>,
) -> T {
    let Some(value) = value else { return default };
    let spelled = |choice: &T| choice.to_string().to_ascii_lowercase();
    choices.iter().copied().find(|choice| spelled(choice) == value).unwrap_or_else(|| {
        let known: Vec<String> = choices.iter().map(spelled).collect();
        warnings.push(format!("{name}: there is no \"{value}\"; it is one of {}", known.join(", ")));
        default
    })
}

/// Whether the process runs with more rights than whoever started it.
pub(crate) fn is_elevated() -> bool {
    // SAFETY: reads the process's auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> (Config, Vec<String>) {
        Config::parse(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn nothing_set_is_the_default_and_no_warning() {
        let (config, warnings) = parse(&[]);
        assert_eq!((config.mode, config.tracker, config.debug), Default::default());
        assert_eq!((config.transfer, config.readback), (Transfer::Auto, Readback::Auto));
        assert_eq!(config.user_memory, Trust::Watched);
        assert_eq!(config.log, LevelFilter::Warn);
        assert!(warnings.is_empty());
    }

    #[test]
    fn known_values_are_taken() {
        let (config, warnings) = parse(&[
            ("TIDEMARK_MODE", "always"),
            ("TIDEMARK_TRACKER", "compare"),
            ("TIDEMARK_TRANSFER", "staged"),
            ("TIDEMARK_READBACK", "lazy"),
            ("TIDEMARK_USERPTR", "unsynchronised"),
            ("TIDEMARK_DEBUG", "noflush, noreadback, pass:vkCmdFillBuffer,pass:vkMapMemory2KHR"),
            ("TIDEMARK_LOG", "trace"),
        ]);
        assert_eq!((config.mode, config.tracker), (Mode::Always, tracker::Choice::Compare));
        assert_eq!((config.transfer, config.readback), (Transfer::Staged, Readback::Lazy));
        assert_eq!(config.user_memory, Trust::Blind);
        let passed = vec!["vkCmdFillBuffer", "vkMapMemory2KHR"];
        assert_eq!(config.debug, Debug { no_flush: true, no_readback: true, passed, ..Debug::default() });
        assert!(config.debug.passes(&["vkMapMemory2", "vkMapMemory2KHR"]));
        assert!(!config.debug.passes(&["vkMapMemory"]));
        assert_eq!(config.log, LevelFilter::Trace);
        assert!(warnings.is_empty());
    }

    #[test]
    fn an_unknown_value_is_one_warning_that_lists_the_known_ones() {
        let (config, warnings) = parse(&[("TIDEMARK_MODE", "sometimes"), ("TIDEMARK_DEBUG", "noflsh")]);
        assert_eq!((config.mode, config.debug), Default::default());
        assert_eq!(warnings.len(), 2);
        assert!(warnings[1].contains("auto, always, never"), "{warnings:?}");
        assert!(warnings[0].contains("noflsh"), "{warnings:?}");
    }

    #[test]
    fn only_what_is_intercepted_can_be_passed_through() {
        let (config, warnings) = parse(&[("TIDEMARK_DEBUG", "pass:vkCmdDraw,pass:vkMapMemory")]);
        assert_eq!(config.debug.passed, ["vkMapMemory"]);
        assert_eq!(warnings, ["TIDEMARK_DEBUG: no command \"vkCmdDraw\" is intercepted"]);
    }
}
