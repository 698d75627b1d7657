//! The driver and the Vulkan loader: the ways to load it, what it exports, and what it says when it cannot work.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tidemark_tests::{
    Driver, Outcome, Scratch, driver_library, expect_failure, expect_success, memory_types, program, run,
    vulkaninfo, write_manifest,
};

const LIMIT: Duration = Duration::from_secs(60);

fn summary(driver: &Driver) -> Command {
    let mut command = driver.command(program("vulkaninfo"));
    command.arg("--summary");
    command
}

/// The devices vulkaninfo lists.
fn devices(outcome: &Outcome) -> Vec<&str> {
    let names = outcome.stdout.lines().filter(|line| line.trim_start().starts_with("deviceName"));
    names.filter_map(|line| line.split_once("= ").map(|(_, name)| name)).collect()
}

/// What Tidemark itself logged.
fn log(outcome: &Outcome) -> Vec<&str> {
    outcome.stderr.lines().filter(|line| line.starts_with("tidemark: ")).collect()
}

#[test]
fn exports_the_loader_s_three_symbols_and_nothing_else() {
    let mut nm = Command::new(program("nm"));
    let outcome = expect_success(nm.args(["-D", "--defined-only"]).arg(driver_library()), LIMIT);
    let symbols: Vec<&str> = outcome.stdout.lines().filter_map(|line| line.split(' ').next_back()).collect();
    assert_eq!(
        symbols,
        [
            "vk_icdGetInstanceProcAddr",
            "vk_icdGetPhysicalDeviceProcAddr",
            "vk_icdNegotiateLoaderICDInterfaceVersion"
        ]
    );
}

#[test]
fn vk_driver_files_shows_tidemark_alone() {
    let outcome = expect_success(&mut summary(&Driver::tidemark()), LIMIT);
    let names = devices(&outcome);
    assert_eq!(names.len(), 1, "{}", outcome.report());
    assert!(names[0].starts_with("Tidemark (llvmpipe"), "{}", outcome.report());
}

#[test]
fn a_backing_driver_can_be_named_by_its_library() {
    let driver = Driver::tidemark().with("TIDEMARK_BACKING", "libvulkan_lvp.so");
    let outcome = expect_success(&mut summary(&driver), LIMIT);
    assert!(devices(&outcome)[0].starts_with("Tidemark (llvmpipe"), "{}", outcome.report());
}

#[test]
fn vk_add_driver_files_adds_tidemark_to_the_installed_drivers() {
    let driver = Driver::tidemark();
    let mut command = summary(&driver);
    command.env_remove("VK_DRIVER_FILES").env_remove("VK_ICD_FILENAMES");
    let outcome = expect_success(command.env("VK_ADD_DRIVER_FILES", driver.manifest()), LIMIT);
    expect_both(&outcome);
}

/// Installed for a user: manifest in a folder of his own, library where the dynamic linker finds it.
#[test]
fn the_manifest_of_this_repository_works_in_a_driver_folder() {
    let home = Scratch::new();
    let folder = home.file("vulkan/icd.d");
    fs::create_dir_all(&folder).expect("cannot make a folder");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../icd/tidemark_icd.json");
    fs::copy(manifest, folder.join("tidemark_icd.json")).expect("cannot copy the manifest");
    let library = driver_library();
    let driver = Driver::tidemark();
    let mut command = summary(&driver);
    command.env_remove("VK_DRIVER_FILES").env_remove("VK_ICD_FILENAMES");
    // Discovery, too, must find the installed driver that is not Tidemark.
    command.env_remove("TIDEMARK_BACKING").env("XDG_DATA_HOME", home.file(""));
    command.env("LD_LIBRARY_PATH", library.parent().expect("a file lies in a folder"));
    expect_both(&expect_success(&mut command, LIMIT));
}

#[track_caller]
fn expect_both(outcome: &Outcome) {
    let names = devices(outcome);
    assert!(names.iter().any(|name| name.starts_with("Tidemark (llvmpipe")), "{}", outcome.report());
    assert!(names.iter().any(|name| name.starts_with("llvmpipe")), "{}", outcome.report());
}

/// No crash, no device, and one line that says why and what to do.
#[track_caller]
fn expect_no_driver(backing: &Path, reason: &str) {
    let driver = Driver::tidemark().with("TIDEMARK_BACKING", backing);
    let outcome = expect_failure(&mut summary(&driver), LIMIT);
    let log = log(&outcome);
    assert_eq!(log.len(), 1, "{}", outcome.report());
    assert!(log[0].starts_with("tidemark: error: no backing driver: "), "{}", log[0]);
    assert!(log[0].contains(reason) && log[0].contains("Set TIDEMARK_BACKING"), "{}", log[0]);
    let said = outcome.stdout + &outcome.stderr;
    assert!(said.contains("ERROR_INCOMPATIBLE_DRIVER") || said.contains("Found no drivers"), "{said}");
}

#[test]
fn a_missing_backing_driver_is_one_clear_line() {
    expect_no_driver(Path::new("/nonexistent/icd.json"), "No such file");
    expect_no_driver(Path::new("/nonexistent/libvulkan.so"), "cannot be loaded");
}

#[test]
fn a_broken_manifest_is_one_clear_line() {
    let scratch = Scratch::new();
    let manifest = scratch.file("icd.json");
    fs::write(&manifest, "{ \"ICD\": ").expect("cannot write");
    expect_no_driver(&manifest, "not a driver manifest");
    fs::write(&manifest, "{ \"file_format_version\": \"1.0.0\" }").expect("cannot write");
    expect_no_driver(&manifest, "no ICD.library_path");
    write_manifest(&manifest, "/nonexistent/libvulkan.so", "1.3.0");
    expect_no_driver(&manifest, "cannot be loaded");
    write_manifest(&manifest, "libc.so.6", "1.3.0");
    expect_no_driver(&manifest, "not a Vulkan driver");
}

#[test]
fn tidemark_does_not_drive_itself() {
    let scratch = Scratch::new();
    let library = driver_library();
    let manifest = scratch.file("icd.json");
    write_manifest(&manifest, &library.to_string_lossy(), "1.3.0");
    expect_no_driver(&manifest, "is Tidemark");
    expect_no_driver(&library, "is Tidemark");
    // Under another name it is still itself.
    let link = scratch.file("libvulkan_other.so");
    std::os::unix::fs::symlink(&library, &link).expect("cannot link");
    expect_no_driver(&link, "is Tidemark");
}

#[test]
fn an_unknown_value_is_one_warning_and_the_default() {
    for (variable, known) in [
        ("TIDEMARK_TRACKER", "auto, mkwrite, dirty-bits, write-protect, compare, copy-all"),
        ("TIDEMARK_READBACK", "auto, eager, lazy"),
        ("TIDEMARK_LOG", "error, warn, info, debug, trace"),
        ("TIDEMARK_DEBUG", "noflush, noreadback"),
    ] {
        let driver = Driver::tidemark().with(variable, "nonsense");
        let outcome = expect_success(&mut summary(&driver), LIMIT);
        let log = log(&outcome);
        assert_eq!(log.len(), 1, "{}", outcome.report());
        assert!(
            log[0].starts_with(&format!("tidemark: warn: {variable}: there is no \"nonsense\"")),
            "{}",
            log[0]
        );
        assert!(log[0].contains(known), "{}", log[0]);
    }
    let outcome = expect_success(&mut summary(&Driver::tidemark().with("TIDEMARK_MODE", "maybe")), LIMIT);
    assert!(log(&outcome)[0].contains("auto, always, never"), "{}", outcome.report());
}

#[test]
fn auto_finds_nothing_to_emulate_on_lavapipe_and_says_so() {
    let driver = Driver::tidemark().with("TIDEMARK_MODE", "auto").with("TIDEMARK_LOG", "info");
    let outcome = run(driver.command(program("vulkaninfo")).arg("--summary"), LIMIT);
    assert!(outcome.stderr.contains("mode auto, nothing to emulate"), "{}", outcome.report());
}

#[test]
fn each_mode_shows_its_memory_types() {
    let lavapipe = memory_types(&vulkaninfo(&Driver::lavapipe()));
    assert_eq!(lavapipe, [(0xf, 0)]);
    for mode in ["auto", "never"] {
        let driver = Driver::tidemark().with("TIDEMARK_MODE", mode);
        assert_eq!(memory_types(&vulkaninfo(&driver)), lavapipe);
    }
    // DEVICE_LOCAL; DEVICE_LOCAL|HOST_VISIBLE|HOST_CACHED; the same and HOST_COHERENT.
    assert_eq!(memory_types(&vulkaninfo(&Driver::tidemark())), [(0x1, 0), (0xb, 0), (0xf, 0)]);
}
