//! Driver manifests: where the loader looks for them, and what they say.
//!
//! Folders and file format as in "Loader and Driver Interface" of the Vulkan loader's documentation.

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// File name of the driver, wherever it is installed.
pub const LIBRARY: &str = "libvulkan_tidemark.so";

/// What is wrong with a manifest.
#[derive(Debug)]
pub enum ManifestError {
    /// It cannot be read.
    Read(io::Error),
    /// It is not JSON.
    Syntax(serde_json::Error),
    /// It has no `ICD.library_path`.
    NoLibrary,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "{error}"),
            Self::Syntax(error) => write!(f, "not a driver manifest: {error}"),
            Self::NoLibrary => f.write_str("not a driver manifest: no ICD.library_path in it"),
        }
    }
}

impl std::error::Error for ManifestError {}

/// The library a manifest names: an absolute path, or a bare name for the dynamic linker to find.
///
/// # Errors
/// It cannot be read, or is no driver manifest.
pub fn library_of(manifest: &Path) -> Result<PathBuf, ManifestError> {
    let text = fs::read(manifest).map_err(ManifestError::Read)?;
    let json: serde_json::Value = serde_json::from_slice(&text).map_err(ManifestError::Syntax)?;
    let library = json.pointer("/ICD/library_path").and_then(|path| path.as_str());
    let library = library.filter(|path| !path.is_empty()).ok_or(ManifestError::NoLibrary)?;
    // With a separator it is relative to the manifest; without, it is the linker's to look up.
    Ok(if library.contains('/') {
        manifest.parent().unwrap_or(Path::new("")).join(library)
    } else {
        library.into()
    })
}

/// Every driver manifest in the folders the loader searches, in its order; within a folder by name. Manifests of
/// Tidemark itself are left out.
pub fn manifests() -> Vec<PathBuf> {
    let mut manifests = Vec::new();
    for folder in folders() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        let mut here: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        here.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        here.sort();
        manifests.extend(here);
    }
    manifests.retain(|manifest| !library_of(manifest).is_ok_and(|library| is_tidemark(&library)));
    manifests
}

/// Whether a manifest is lavapipe's, by the name Mesa gives it.
pub fn is_lavapipe(manifest: &Path) -> bool {
    manifest.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("lvp_icd"))
}

/// Whether a library is Tidemark, by its file name.
pub fn is_tidemark(library: &Path) -> bool {
    library.file_name().is_some_and(|name| name == LIBRARY)
}

/// The folders of driver manifests, in the loader's order, without repetition.
fn folders() -> Vec<PathBuf> {
    let trusted = !crate::config::is_elevated();
    let variable = |name| env::var_os(name).filter(|value| trusted && !value.is_empty());
    let home = |below: &str| variable("HOME").map(|home| Path::new(&home).join(below));
    let list = |name, default: &str| -> Vec<PathBuf> {
        env::split_paths(&variable(name).unwrap_or_else(|| default.into())).collect()
    };
    let mut roots = Vec::new();
    roots.extend(variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| home(".config")));
    roots.extend(list("XDG_CONFIG_DIRS", "/etc/xdg"));
    roots.push("/etc".into());
    roots.extend(variable("XDG_DATA_HOME").map(PathBuf::from).or_else(|| home(".local/share")));
    roots.extend(list("XDG_DATA_DIRS", "/usr/local/share:/usr/share"));
    let mut folders: Vec<PathBuf> = Vec::new();
    for folder in roots.into_iter().map(|root| root.join("vulkan/icd.d")) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library_in(text: &str) -> Result<PathBuf, ManifestError> {
        let unique = format!("tidemark-manifest-{}-{:p}.json", std::process::id(), text);
        let path = env::temp_dir().join(unique);
        fs::write(&path, text).unwrap();
        let library = library_of(&path);
        fs::remove_file(&path).unwrap();
        library
    }

    #[test]
    fn a_path_is_relative_to_the_manifest_and_a_name_is_left_to_the_linker() {
        let manifest = |path: &str| format!(r#"{{"ICD": {{"library_path": "{path}"}}}}"#);
        assert_eq!(library_in(&manifest("libvulkan_lvp.so")).unwrap(), Path::new("libvulkan_lvp.so"));
        assert_eq!(library_in(&manifest("/lib/libx.so")).unwrap(), Path::new("/lib/libx.so"));
        assert_eq!(library_in(&manifest("./libx.so")).unwrap(), env::temp_dir().join("./libx.so"));
    }

    #[test]
    fn what_is_no_manifest_says_why() {
        assert!(matches!(library_in("{"), Err(ManifestError::Syntax(_))));
        assert!(matches!(library_in("{}"), Err(ManifestError::NoLibrary)));
        assert!(matches!(library_of(Path::new("/nonexistent.json")), Err(ManifestError::Read(_))));
    }
}
