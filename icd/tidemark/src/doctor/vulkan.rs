//! Checks of the Vulkan side: the loader, Tidemark itself, the drivers underneath, and all of them together.

use super::checklist::Checklist;
use super::hidden;
use crate::driver;
use crate::library::{Library, file_of};
use crate::probe::{self, Question, Trouble};
use ash::vk;
use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use vulkan_tidemark::config::Config;
use vulkan_tidemark::discovery::{LIBRARY, manifests};

/// What goes before the device's own name in the name that Tidemark gives it.
const PREFIX: &str = "Tidemark (";

pub(super) fn check(list: &mut Checklist<impl Write>, driver: Option<PathBuf>) {
    check_loader(list);
    let driver = check_driver(list, driver);
    check_installed(list);
    // Without both of them it cannot work, and says less clearly why.
    if check_backing(list)
        && let Some(driver) = driver
    {
        check_all_together(list, &driver);
    }
}

fn check_loader(list: &mut Checklist<impl Write>) {
    const WHAT: &str = "Vulkan loader";
    let loader = match probe::open_loader() {
        Ok(loader) => loader,
        Err(error) => {
            let advice = "install it (Debian: libvulkan1; Fedora, Arch: vulkan-loader)";
            return list.fail(WHAT, &error, advice);
        }
    };
    // SAFETY: no instance is involved.
    match unsafe { loader.entry.try_enumerate_instance_version() } {
        Ok(version) => {
            let version = version.unwrap_or(vk::API_VERSION_1_0);
            let [major, minor, patch] = [vk::api_version_major, vk::api_version_minor, vk::api_version_patch]
                .map(|part| part(version));
            list.ok(WHAT, &format!("{}: Vulkan {major}.{minor}.{patch}", loader.file.display()));
        }
        Err(error) => list.fail(WHAT, &format!("{}: {error:?}", loader.file.display()), ""),
    }
}

/// Tidemark's library, if it can be used.
fn check_driver(list: &mut Checklist<impl Write>, driver: Option<PathBuf>) -> Option<PathBuf> {
    const WHAT: &str = "Tidemark";
    let Some(driver) = driver.or_else(driver::find) else {
        list.fail(
            WHAT,
            &format!("{LIBRARY} is not installed where it belongs"),
            "tell with --driver where it is",
        );
        return None;
    };
    match symbols(&driver) {
        Ok(file) => {
            list.ok(WHAT, &file.display().to_string());
            Some(driver)
        }
        Err(error) => {
            list.fail(WHAT, &error, "build or install Tidemark anew, or tell with --driver where it is");
            None
        }
    }
}

/// Loads a driver, and looks for the symbols that the loader needs. Returns where it was found.
fn symbols(driver: &Path) -> Result<PathBuf, String> {
    const SYMBOLS: [&std::ffi::CStr; 3] = [
        c"vk_icdNegotiateLoaderICDInterfaceVersion",
        c"vk_icdGetInstanceProcAddr",
        c"vk_icdGetPhysicalDeviceProcAddr",
    ];
    let library = Library::open(driver)?;
    let mut file = None;
    for name in SYMBOLS {
        let symbol = library.symbol(name);
        let missing = || format!("{}: no {} in it", driver.display(), name.to_string_lossy());
        file = file_of(symbol.ok_or_else(missing)?);
    }
    Ok(file.unwrap_or_else(|| driver.to_owned()))
}

/// Each driver that is installed besides Tidemark.
fn check_installed(list: &mut Checklist<impl Write>) {
    const WHAT: &str = "installed driver";
    let manifests = manifests();
    if manifests.is_empty() {
        list.ok(WHAT, "none");
    }
    for manifest in manifests {
        let path = manifest.display();
        match probe::ask(Question::Driver(&manifest)) {
            Ok(answer) => list.ok(WHAT, &format!("{path}: {}", answer.devices_in_words())),
            Err(trouble) => list.warn(
                WHAT,
                &about(&manifest, &trouble.reason),
                "repair or remove it; Tidemark never loads it while TIDEMARK_BACKING names another",
            ),
        }
    }
}

/// The driver that Tidemark would drive. Returns whether it can.
fn check_backing(list: &mut Checklist<impl Write>) -> bool {
    const WHAT: &str = "backing driver";
    const INSTALL: &str = "install a Vulkan driver (lavapipe runs anywhere; Debian: mesa-vulkan-drivers)";
    let asked = Config::parse(|name| env::var_os(name)).0.backing;
    let (question, advice) = match &asked {
        Some(asked) => (Question::Driver(asked), "TIDEMARK_BACKING asks for it: correct or unset it"),
        None => (Question::Chosen, INSTALL),
    };
    match probe::ask(question) {
        Ok(answer) => {
            let found = format!("{}: {}", answer.library, answer.devices_in_words());
            if !answer.devices.is_empty() {
                list.ok(WHAT, &found);
                hidden::report(list, &answer.hidden);
                return true;
            }
            list.fail(WHAT, &found, advice);
        }
        Err(trouble) => {
            let found = match &asked {
                Some(asked) => about(asked, &trouble.reason),
                None => format!("choosing among the installed drivers: {}", trouble.reason),
            };
            list.fail(WHAT, &found, advice);
        }
    }
    false
}

/// What is wrong with a driver, with its name unless the reason has it already.
fn about(driver: &Path, reason: &str) -> String {
    let driver = driver.display().to_string();
    if reason.starts_with(&driver) { reason.into() } else { format!("{driver}: {reason}") }
}

/// An application's way through the loader and Tidemark to the device.
fn check_all_together(list: &mut Checklist<impl Write>, driver: &Path) {
    const WHAT: &str = "trial";
    let outcome = probe::ask(Question::Tidemark(driver));
    let (found, said) = match outcome {
        Ok(answer) => match answer.devices.iter().find(|name| name.starts_with(PREFIX)) {
            Some(name) => return list.ok(WHAT, &format!("an application sees the device \"{name}\"")),
            None => (
                format!("an application sees no device of Tidemark: {}", answer.devices_in_words()),
                Vec::new(),
            ),
        },
        Err(Trouble { reason, said }) => (reason, said),
    };
    let advice = match said.last() {
        Some(line) => format!("it said: {line}"),
        None => "`VK_LOADER_DEBUG=all tidemark run --log trace -- vulkaninfo` tells more".into(),
    };
    list.fail(WHAT, &found, &advice);
}
