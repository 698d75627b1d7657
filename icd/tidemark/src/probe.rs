//! Questions whose answer may crash or hang whoever asks, as they run other people's drivers: put to a process of
//! its own, which is this program again under a hidden subcommand.

use crate::driver;
use crate::failure::Failure;
use crate::library::{Library, file_of};
use crate::scratch::Scratch;
use ash::vk;
use std::ffi::{OsStr, OsString, c_void};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use vulkan_tidemark::backing::{Backing, device_names};

/// The hidden subcommand.
pub(crate) const COMMAND: &str = "__probe";

/// Far more than any driver takes to name its devices.
const LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// What can be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Question<'a> {
    /// Which devices does this driver (a manifest or a library) have?
    Driver(&'a Path),
    /// Which of the installed drivers would Tidemark drive, and which devices does that one have?
    Chosen,
    /// Which devices does an application see that runs on this Tidemark?
    Tidemark(&'a Path),
}

/// The answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The driver's library; empty in an answer about an application.
    pub(crate) library: String,
    /// The names of its devices.
    pub(crate) devices: Vec<String>,
    /// What they have of what Tidemark hides; empty in an answer about an application.
    pub(crate) hidden: Vec<String>,
    /// What Vulkan said instead of naming devices.
    error: Option<String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// In words.
    pub(crate) reason: String,
    /// The lines that Tidemark had to say.
    pub(crate) said: Vec<String>,
}

impl Answer {
    /// The devices, or why there is none, which is common: most installed drivers are for other machines.
    pub(crate) fn devices_in_words(&self) -> String {
        match (&*self.devices, &self.error) {
            ([], None) => "no device here".into(),
            ([], Some(error)) => format!("no device here ({error})"),
            (devices, _) => devices.join(", "),
        }
    }

    /// Undoes [`Self::print`].
    fn parse(text: &str) -> Self {
        let mut answer = Self::default();
        for line in text.lines() {
            match line.split_once('=') {
                Some(("library", library)) => answer.library = library.into(),
                Some(("device", device)) => answer.devices.push(device.into()),
                Some(("hidden", name)) => answer.hidden.push(name.into()),
                Some(("error", error)) => answer.error = Some(error.into()),
                // Not from here: drivers may print, too.
                _ => {}
            }
        }
        answer
    }

    fn print(&self) -> String {
        let mut text = format!("library={}\n", self.library);
        self.devices.iter().for_each(|device| text.push_str(&format!("device={device}\n")));
        self.hidden.iter().for_each(|name| text.push_str(&format!("hidden={name}\n")));
        self.error.iter().for_each(|error| text.push_str(&format!("error={error}\n")));
        text
    }
}

impl From<Result<Vec<String>, vk::Result>> for Answer {
    fn from(devices: Result<Vec<String>, vk::Result>) -> Self {
        match devices {
            Ok(devices) => Self { devices, ..Self::default() },
            Err(error) => Self { error: Some(format!("{error:?}")), ..Self::default() },
        }
    }
}

impl From<String> for Trouble {
    fn from(reason: String) -> Self {
        Self { reason, said: Vec::new() }
    }
}

/// Asks, and waits for the answer.
///
/// # Errors
/// There is none: the driver cannot be loaded, crashed, or took too long.
pub(crate) fn ask(question: Question<'_>) -> Result<Answer, Trouble> {
    let trouble = |error: io::Error| format!("cannot start a process to try it: {error}");
    // Into files: a pipe can fill, and a process that a driver starts can keep one open.
    let scratch = Scratch::new().map_err(trouble)?;
    let [stdout, stderr] = ["stdout", "stderr"].map(|name| scratch.path().join(name));
    let mut command = Command::new(std::env::current_exe().map_err(trouble)?);
    command.arg(COMMAND).stdin(Stdio::null());
    command.stdout(File::create(&stdout).map_err(trouble)?).stderr(File::create(&stderr).map_err(trouble)?);
    match question {
        Question::Driver(path) => {
            command.arg("driver").arg(path);
        }
        Question::Chosen => {
            command.arg("chosen");
        }
        Question::Tidemark(library) => {
            let manifest = driver::write_manifest(scratch.path(), library)?;
            driver::use_alone(command.arg("tidemark"), &manifest);
            command.env("TIDEMARK_MODE", "always").env_remove("TIDEMARK_PROFILE");
        }
    }
    let child = command.spawn().map_err(trouble)?;
    let ended = wait(child, LIMIT).map_err(trouble)?;
    let read =
        |path| fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
    let mut said: Vec<String> =
        read(&stderr).lines().filter_map(|line| Some(line.strip_prefix("tidemark: ")?.to_owned())).collect();
    match ended {
        Some(status) if status.success() => Ok(Answer::parse(&read(&stdout))),
        // The last line is then from `main` below.
        Some(status) => {
            let reason = status.code().and_then(|_| said.pop()).unwrap_or_else(|| in_words(status));
            Err(Trouble { reason, said })
        }
        None => Err(Trouble { reason: format!("gave no answer within {} seconds", LIMIT.as_secs()), said }),
    }
}

fn in_words(status: ExitStatus) -> String {
    let how = if status.signal().is_some() { "crashed" } else { "ended the process" };
    format!("{how} ({status})")
}

/// Waits for a process; `None` if it had to be killed.
fn wait(mut child: Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// Runs the hidden subcommand: finds the answer and prints it.
pub(crate) fn main(mut arguments: lexopt::Parser) -> Result<ExitCode, Failure> {
    let arguments: Vec<OsString> = arguments.raw_args().map(Iterator::collect).unwrap_or_default();
    let arguments: Vec<&OsStr> = arguments.iter().map(|argument| &**argument).collect();
    let answer = match &*arguments {
        [question, path] if *question == "driver" => {
            let driver = Backing::load(Path::new(path)).map_err(|error| Failure::own(error.to_string()))?;
            driver_answer(&driver)
        }
        [question] if *question == "chosen" => {
            driver_answer(Backing::get().ok_or_else(|| Failure::own("none of them can be used"))?)
        }
        [question] if *question == "tidemark" => {
            application_answer(&open_loader().map_err(Failure::own)?.entry).map_err(Failure::own)?
        }
        _ => return Err(Failure::usage("tidemark --help", "not for people")),
    };
    Ok(crate::print(&answer.print()))
}

fn driver_answer(driver: &Backing) -> Answer {
    // A driver that cannot be asked hides nothing that matters: the features are newer than Vulkan 1.0.
    let hidden = driver.hidden().unwrap_or_default().into_iter().map(str::to_owned).collect();
    Answer { library: driver.library.display().to_string(), hidden, ..driver.device_names().into() }
}

/// The devices that an application finds.
fn application_answer(entry: &ash::Entry) -> Result<Answer, String> {
    let info = vk::InstanceCreateInfo::default();
    // SAFETY: the create info is valid.
    let instance = unsafe { entry.create_instance(&info, None) };
    let instance =
        instance.map_err(|error| format!("an application cannot create an instance: {error:?}"))?;
    let names = device_names(&instance);
    // SAFETY: created above, and used by nobody any more.
    unsafe { instance.destroy_instance(None) };
    Ok(names.into())
}

/// The Vulkan loader, the library through which every application reaches a driver.
pub(crate) struct Loader {
    pub(crate) file: PathBuf,
    pub(crate) entry: ash::Entry,
}

/// Opens the loader.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn open_loader() -> Result<Loader, String> {
    const NAME: &str = "libvulkan.so.1";
    let library = Library::open(Path::new(NAME))?;
    let function = library.symbol(c"vkGetInstanceProcAddr");
    let function = function.ok_or_else(|| format!("{NAME} has no vkGetInstanceProcAddr"))?;
    // SAFETY: the loader's ABI gives the symbol of this name exactly this type.
    let get_instance_proc_addr =
        unsafe { std::mem::transmute::<*mut c_void, vk::PFN_vkGetInstanceProcAddr>(function.as_ptr()) };
    // SAFETY: the function is the loader's own, and its library stays loaded.
    let entry = unsafe { ash::Entry::from_static_fn(ash::StaticFn { get_instance_proc_addr }) };
    Ok(Loader { file: file_of(function).unwrap_or_else(|| NAME.into()), entry })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_survives_printing_among_what_drivers_print() {
        let answer = Answer {
            library: "/lib/x=y.so".into(),
            devices: vec!["A device (with = in it)".into(), "B".into()],
            hidden: vec!["VK_NV_mesh_shader".into()],
            error: Some("ERROR_UNKNOWN".into()),
        };
        assert_eq!(Answer::parse(&format!("MESA: warning\n{}noise", answer.print())), answer);
    }

    #[test]
    fn no_device_is_an_answer() {
        let words = |devices: Result<Vec<String>, vk::Result>| Answer::from(devices).devices_in_words();
        assert_eq!(words(Ok(vec![])), "no device here");
        assert_eq!(
            words(Err(vk::Result::ERROR_INCOMPATIBLE_DRIVER)),
            "no device here (ERROR_INCOMPATIBLE_DRIVER)"
        );
        assert_eq!(words(Ok(vec!["A".into(), "B".into()])), "A, B");
    }

    #[test]
    fn who_gives_no_answer_is_killed() {
        let sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(wait(sleeper, Duration::from_millis(20)).unwrap().is_none());
        let done = Command::new("true").spawn().unwrap();
        assert!(wait(done, LIMIT).unwrap().unwrap().success());
    }
}
