//! Where the driver's library is, and how an application is made to see it alone.

use crate::json;
use crate::library::Library;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use vulkan_tidemark::discovery::LIBRARY;

/// Finds the driver that goes with this command: an absolute path, or a bare name that the dynamic linker finds.
pub(crate) fn find() -> Option<PathBuf> {
    let program = env::current_exe().ok()?;
    let folder = program.parent()?;
    built(folder).or_else(|| installed(folder)).or_else(|| {
        let name = PathBuf::from(LIBRARY);
        Library::open(&name).is_ok().then_some(name)
    })
}

/// The driver that cargo built along with this program.
fn built(folder: &Path) -> Option<PathBuf> {
    // What cargo builds for its own sake lies beside the program, what it builds as a dependency only in deps/: the
    // newer one is the one that was asked for last.
    let candidates = [folder.join(LIBRARY), folder.join("deps").join(LIBRARY)];
    let dated =
        candidates.into_iter().filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)));
    dated.max().map(|(_, path)| path)
}

/// The driver that was installed below the same prefix.
fn installed(folder: &Path) -> Option<PathBuf> {
    let prefix = folder.parent()?;
    let multiarch = format!("lib/{}-linux-gnu", env::consts::ARCH);
    ["lib", &multiarch, "lib64"]
        .iter()
        .map(|folder| prefix.join(folder).join(LIBRARY))
        .find(|path| path.exists())
}

/// Writes the driver's manifest into a folder and returns its path. `library` is absolute, or a bare name.
///
/// # Errors
/// In words.
pub(crate) fn write_manifest(folder: &Path, library: &Path) -> Result<PathBuf, String> {
    let Some(name) = library.to_str() else {
        return Err(format!(
            "{} is not UTF-8, so that it cannot stand in a driver manifest",
            library.display()
        ));
    };
    let manifest = folder.join("tidemark_icd.json");
    let text = format!(
        r#"{{"file_format_version": "1.0.1", "ICD": {{"library_path": {}, "api_version": "1.4.0"}}}}"#,
        json::quote(name)
    );
    fs::write(&manifest, text).map_err(|error| format!("cannot write {}: {error}", manifest.display()))?;
    Ok(manifest)
}

/// Makes a manifest's driver the only one that a program finds.
pub(crate) fn use_alone(command: &mut Command, manifest: &Path) {
    command
        // Older loaders know only the second name, newer ones prefer the first.
        .env("VK_DRIVER_FILES", manifest)
        .env("VK_ICD_FILENAMES", manifest)
        .env_remove("VK_ADD_DRIVER_FILES")
        // Filters by file name: made for the installed drivers, they would drop this one as well.
        .env_remove("VK_LOADER_DRIVERS_SELECT")
        .env_remove("VK_LOADER_DRIVERS_DISABLE");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use vulkan_tidemark::discovery::library_of;

    #[test]
    fn a_manifest_names_the_library_whatever_is_in_its_path() {
        let scratch = Scratch::new().unwrap();
        for name in ["/opt/a \"quoted\" \\ folder/libvulkan_tidemark.so", "libvulkan_tidemark.so"] {
            let manifest = write_manifest(scratch.path(), Path::new(name)).unwrap();
            assert_eq!(library_of(&manifest).unwrap(), Path::new(name));
        }
    }

    #[test]
    fn the_newer_of_the_built_ones_is_taken_and_then_the_installed_one() {
        let scratch = Scratch::new().unwrap();
        let bin = scratch.path().join("bin");
        for folder in ["bin/deps", "lib"] {
            fs::create_dir_all(scratch.path().join(folder)).unwrap();
        }
        assert_eq!((built(&bin), installed(&bin)), (None, None));
        let place = |path: &str, age| {
            let path = scratch.path().join(path).join(LIBRARY);
            let time = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
            fs::File::create(&path).unwrap().set_modified(time).unwrap();
            path
        };
        let library = place("lib", 0);
        assert_eq!(installed(&bin), Some(library));
        let beside = place("bin", 10);
        assert_eq!(built(&bin), Some(beside));
        let deps = place("bin/deps", 5);
        assert_eq!(built(&bin), Some(deps));
    }
}
