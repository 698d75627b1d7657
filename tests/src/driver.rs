//! Which Vulkan driver a program sees: exactly one, whatever the machine has installed.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::{Scratch, built, library};

/// A Vulkan driver, by its manifest, and the environment that goes with it.
#[derive(Clone, Debug)]
pub struct Driver {
    manifest: PathBuf,
    environment: Vec<(OsString, OsString)>,
    /// Where manifests lie that were made here: its own, and that of what it drives.
    scratch: Vec<Arc<Scratch>>,
}

/// The folders in which drivers are announced, as the loader of a distribution has them.
const MANIFEST_DIRS: [&str; 2] = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"];

/// Inherited variables that would add layers or drivers, or lead to the screen of whoever runs the tests.
const UNWANTED: [&str; 15] = [
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "WAYLAND_SOCKET",
    "XDG_RUNTIME_DIR",
    "VK_ADD_DRIVER_FILES",
    "VK_ADD_LAYER_PATH",
    "VK_ADD_IMPLICIT_LAYER_PATH",
    "VK_IMPLICIT_LAYER_PATH",
    "VK_INSTANCE_LAYERS",
    "VK_LAYER_PATH",
    "VK_LOADER_DEBUG",
    "VK_LOADER_DEVICE_SELECT",
    "VK_LOADER_DRIVERS_DISABLE",
    "VK_LOADER_DRIVERS_SELECT",
    "VK_LOADER_LAYERS_ENABLE",
];

impl Driver {
    /// The driver that `manifest` names.
    #[must_use]
    pub fn at(manifest: impl Into<PathBuf>) -> Self {
        Self { manifest: manifest.into(), environment: Vec::new(), scratch: Vec::new() }
    }

    /// Mesa's software driver: the reference, and what Tidemark drives.
    ///
    /// # Panics
    /// When it is not installed.
    #[must_use]
    pub fn lavapipe() -> Self {
        let mut manifests: Vec<PathBuf> = MANIFEST_DIRS
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with("lvp_icd") && name.ends_with(".json")
            })
            .collect();
        // Where several architectures share a machine, this program's own comes first.
        manifests.sort_by_key(|path| (!path.to_string_lossy().contains(env::consts::ARCH), path.clone()));
        match manifests.into_iter().next() {
            Some(manifest) => Self::at(manifest),
            None => panic!("no lvp_icd*.json in {MANIFEST_DIRS:?}: run tests/setup"),
        }
    }

    /// The driver that `tests/fetch-drivers` got under this name; `None` if it could not be had, which is said.
    ///
    /// # Panics
    /// When it is missing on CI.
    #[must_use]
    pub fn fetched(name: &str) -> Option<Self> {
        let folder = built::fetched(name)?;
        // Beside the driver lie libraries newer than the system's.
        Some(Self::at(folder.join("manifest.json")).with("LD_LIBRARY_PATH", folder))
    }

    /// The Tidemark of this workspace over lavapipe, every mapping emulated.
    ///
    /// # Panics
    /// When either is missing.
    #[must_use]
    pub fn tidemark() -> Self {
        Self::tidemark_over(&Self::lavapipe())
    }

    /// The Tidemark of this workspace over `backing`, every mapping emulated.
    ///
    /// # Panics
    /// When it was not built.
    #[must_use]
    pub fn tidemark_over(backing: &Self) -> Self {
        let mut driver = Self::of_library(&built::driver_library())
            .with("TIDEMARK_BACKING", backing.manifest())
            .with("TIDEMARK_MODE", "always");
        driver.environment.extend(backing.environment.iter().cloned());
        driver.scratch.extend(backing.scratch.iter().cloned());
        driver
    }

    /// The mock of this workspace: lavapipe, with the memory types of the device that `shape` names.
    ///
    /// # Panics
    /// When it was not built.
    #[must_use]
    pub fn mock(shape: &str) -> Self {
        Self::of_library(&built::mock_library()).with("TIDEMARK_MOCK", shape)
    }

    /// The driver in `library`, with a manifest made for it.
    fn of_library(library: &Path) -> Self {
        let Some(library) = library.to_str() else {
            panic!("{} cannot stand in a manifest: not UTF-8", library.display());
        };
        let scratch = Scratch::new();
        let manifest = scratch.file("icd.json");
        write_manifest(&manifest, library, "1.3.0");
        Self { scratch: vec![Arc::new(scratch)], ..Self::at(manifest) }
    }

    /// The Tidemark of this workspace over `backing`, every mapping emulated, and turned over: the Vulkan loader lies
    /// between the two, so that the layers of an application see what Tidemark asks of `backing`.
    ///
    /// For applications that open libvulkan.so.1 and find everything by its vkGetInstanceProcAddr.
    ///
    /// # Panics
    /// When something is missing.
    #[must_use]
    pub fn tidemark_above_the_loader(backing: &Self) -> Self {
        let scratch = Scratch::new();
        let library = built::loader_below_library();
        if let Err(error) = symlink(&library, scratch.file("libvulkan.so.1")) {
            panic!("cannot link {} into {}: {error}", library.display(), scratch.path().display());
        }
        let path = "LD_LIBRARY_PATH";
        let mut folders = vec![scratch.path().to_owned()];
        let of_backing = backing.environment.iter().filter(|(key, _)| key == path);
        folders.extend(of_backing.flat_map(|(_, value)| env::split_paths(value)));
        let folders = env::join_paths(folders).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut driver = backing
            .clone()
            .with("TIDEMARK_BACKING", library)
            .with("TIDEMARK_MODE", "always")
            .with("TIDEMARK_LOADER_BELOW", library::loader())
            .with("TIDEMARK_LOADER_BELOW_DRIVER", built::driver_library())
            .with(path, folders);
        driver.scratch.push(Arc::new(scratch));
        driver
    }

    /// The same driver with one more environment variable, or another value for it.
    #[must_use]
    pub fn with(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The driver's manifest.
    #[must_use]
    pub fn manifest(&self) -> &Path {
        &self.manifest
    }

    /// A command for `program` that finds this driver only, no layer that it does not ask for, and no
    /// display. It must end before the driver is dropped, which takes the manifest with it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (key, _) in env::vars_os() {
            if key.as_encoded_bytes().starts_with(b"TIDEMARK_") || UNWANTED.iter().any(|name| key == *name) {
                command.env_remove(key);
            }
        }
        command
            // The older loaders know only the second name, the newer prefer the first.
            .env("VK_DRIVER_FILES", &self.manifest)
            .env("VK_ICD_FILENAMES", &self.manifest)
            // Mesa's device selection layer is implicit; this is its own switch, for loaders without the
            // general one.
            .env("VK_LOADER_LAYERS_DISABLE", "~implicit~")
            .env("NODEVICE_SELECT", "1")
            // Nothing left in the home directory, and no test that depends on what an earlier one left.
            .env("MESA_SHADER_CACHE_DISABLE", "true")
            .envs(self.environment.iter().map(|(key, value)| (key, value)));
        command
    }
}

/// Writes the manifest of a driver: `library` as in `library_path` (a path, or a name for the dynamic
/// linker), and the Vulkan version that it claims. Neither needs to make sense.
///
/// # Panics
/// When the file cannot be written.
pub fn write_manifest(manifest: &Path, library: &str, api_version: &str) {
    let (library, api_version) = (json_string(library), json_string(api_version));
    let text = format!(
        r#"{{
    "file_format_version": "1.0.1",
    "ICD": {{ "library_path": {library}, "api_version": {api_version} }}
}}
"#
    );
    if let Err(error) = fs::write(manifest, text) {
        panic!("cannot write {}: {error}", manifest.display());
    }
}

fn json_string(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_for_json() {
        assert_eq!(json_string(r#"/a "b"\c"#), r#""/a \"b\"\\c""#);
        assert_eq!(json_string("\n"), r#""\u000a""#);
    }

    #[test]
    fn later_variables_win() {
        let command =
            Driver::at("/nowhere.json").with("TIDEMARK_MODE", "auto").with("TIDEMARK_MODE", "never");
        let command = command.command("true");
        let value = |key: &str| command.get_envs().find(|(name, _)| *name == key).map(|(_, value)| value);
        assert_eq!(value("TIDEMARK_MODE"), Some(Some(OsStr::new("never"))));
        assert_eq!(value("VK_DRIVER_FILES"), Some(Some(OsStr::new("/nowhere.json"))));
    }
}
