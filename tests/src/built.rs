//! Where cargo left what this workspace builds, seen from the test that is running.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::{env, fs, thread};

/// The driver, `libvulkan_tidemark.so`, of the running test's profile.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn driver_library() -> PathBuf {
    library("libvulkan_tidemark.so")
}

/// The mock backing driver, likewise.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn mock_library() -> PathBuf {
    library("libvulkan_tidemark_mock.so")
}

/// The loader below Tidemark, likewise.
pub(crate) fn loader_below_library() -> PathBuf {
    library("libtidemark_loader_below.so")
}

/// The folder that `tests/fetch-drivers` made under this name. Where it could not, `None`, which standard error is told;
/// on CI, where the variable of this name is set, nothing may be missing.
///
/// # Panics
/// When it is missing on CI.
pub(crate) fn fetched(name: &str) -> Option<PathBuf> {
    let folder = profile_dir().parent().unwrap_or(Path::new("/")).join("drivers").join(name);
    if folder.exists() {
        return Some(folder);
    }
    let what = format!("no {}: run tests/fetch-drivers, which says why it cannot be had", folder.display());
    assert!(env::var_os("CI").is_none(), "{what}");
    // Straight to standard error: of tests that pass, cargo shows nothing that they print.
    let current = thread::current();
    let _ = writeln!(io::stderr(), "{}: skipped: {what}", current.name().unwrap_or("a test"));
    None
}

fn library(name: &str) -> PathBuf {
    // `cargo build` puts it beside the programs, `cargo test` only below deps/: the newer is the current one.
    let profile = profile_dir();
    ["", "deps"]
        .map(|folder| profile.join(folder).join(name))
        .into_iter()
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .max()
        .map_or_else(|| panic!("no {name} below {}: {BUILD}", profile.display()), |(_, path)| path)
}

/// An example program of this package.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    let path = profile_dir().join("examples").join(name);
    assert!(path.exists(), "no {}: run `cargo build --workspace --examples` first", path.display());
    path
}

/// A program of this workspace.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let path = profile_dir().join(name);
    assert!(path.exists(), "no {}: {BUILD}", path.display());
    path
}

/// A place for what a failed test leaves to be looked at; made on the way.
pub(crate) fn failures_dir() -> PathBuf {
    let path = profile_dir().join("failures");
    if let Err(error) = fs::create_dir_all(&path) {
        panic!("cannot make {}: {error}", path.display());
    }
    path
}

const BUILD: &str = "run `cargo build --workspace` first";

/// `target/<profile>`: tests run from its deps/, examples from its examples/, programs from itself.
fn profile_dir() -> PathBuf {
    let test = env::current_exe().unwrap_or_else(|error| panic!("cannot find the running test: {error}"));
    let folder = test.parent().unwrap_or(Path::new("/"));
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("deps" | "examples") => folder.parent().unwrap_or(folder).to_path_buf(),
        _ => folder.to_path_buf(),
    }
}
