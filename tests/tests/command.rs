//! `tidemark run` and `tidemark doctor` on the driver itself.

use std::process::Command;
use std::time::Duration;
use tidemark_tests::{Driver, Scratch, binary, example, expect_success};

const LIMIT: Duration = Duration::from_secs(60);

/// `tidemark`, in an environment that names no driver.
fn tidemark() -> Command {
    let mut command = Driver::lavapipe().command(binary("tidemark"));
    command.env_remove("VK_DRIVER_FILES").env_remove("VK_ICD_FILENAMES");
    command
}

/// A number of the summary, which is a JSON object on one line.
fn number(summary: &str, key: &str) -> u64 {
    let after = summary.split(&format!("\"{key}\":")).nth(1).unwrap_or_else(|| panic!("no {key}: {summary}"));
    let digits: String = after.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{key} is no number: {summary}"))
}

#[test]
fn run_sums_up_the_traffic_of_the_sample() {
    let scratch = Scratch::new();
    let file = scratch.file("summary");
    let mut command = tidemark();
    command.args(["run", "--mode", "always", "--summary"]).arg(&file).arg("--").arg(example("sample"));
    let outcome = expect_success(command.args(["--frames", "20"]), LIMIT);
    assert!(outcome.stdout.contains("bytes checked, ok"), "{}", outcome.report());
    for line in
        ["coherence traffic", "tracker             write-protect", "pages found dirty", "bytes read back"]
    {
        assert!(outcome.stderr.contains(line), "no {line:?}: {}", outcome.report());
    }
    let summary = std::fs::read_to_string(file).expect("no summary");
    // Each frame is a submit and a wait, and brings at least the compute shader's output back.
    assert!(number(&summary, "submits") >= 20 && number(&summary, "waits") >= 20, "{summary}");
    assert!(number(&summary, "bytes_flushed") > 0 && number(&summary, "pages_found_dirty") > 0, "{summary}");
    assert!(number(&summary, "bytes_read_back") >= 20_000, "{summary}");
}

#[test]
fn run_counts_what_lazy_readback_fetches() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for (readback, is_lazy) in [("lazy", true), ("eager", false)] {
        let scratch = Scratch::new();
        let file = scratch.file("summary");
        let mut command = tidemark();
        command.args(["run", "--mode", "always", "--readback", readback, "--summary"]).arg(&file);
        let outcome =
            expect_success(command.arg("--").arg(example("sample")).args(["--frames", "20"]), LIMIT);
        assert!(outcome.stdout.contains("bytes checked, ok"), "{}", outcome.report());
        let summary = std::fs::read_to_string(file).expect("no summary");
        assert!(number(&summary, "bytes_read_back") >= 20_000, "{summary}");
        assert_eq!(number(&summary, "pages_fetched") > 0, is_lazy, "{summary}");
    }
}

#[test]
fn run_says_why_there_was_nothing_to_do() {
    let mut command = tidemark();
    let outcome =
        expect_success(command.args(["run", "--"]).arg(example("sample")).args(["--frames", "2"]), LIMIT);
    assert!(outcome.stderr.contains("--mode always"), "{}", outcome.report());
}

#[test]
fn doctor_finds_all_well() {
    let outcome = expect_success(tidemark().arg("doctor"), LIMIT);
    assert!(outcome.stdout.contains("All well"), "{}", outcome.report());
    assert!(
        outcome.stdout.contains("an application sees the device \"Tidemark (llvmpipe"),
        "{}",
        outcome.report()
    );
}

#[test]
fn doctor_tells_what_is_hidden_of_the_backing_driver() {
    let mock = Driver::mock("pi").with("TIDEMARK_MOCK_EXTENSIONS", "VK_NV_mesh_shader,VK_KHR_swapchain");
    let mut command = mock.command(binary("tidemark"));
    command.env_remove("VK_DRIVER_FILES").env_remove("VK_ICD_FILENAMES");
    let outcome = expect_success(command.env("TIDEMARK_BACKING", mock.manifest()).arg("doctor"), LIMIT);
    let line = outcome.stdout.lines().find(|line| line.starts_with("ok    hidden "));
    let told = "VK_NV_mesh_shader, where memory is emulated: its commands would use emulated memory";
    assert!(line.is_some_and(|line| line.contains(told)), "{}", outcome.report());
    let all = expect_success(tidemark().args(["doctor", "--hidden"]), LIMIT).stdout;
    assert!(all.contains("\n  VK_NV_mesh_shader\n") && all.contains("\n  micromapHostCommands\n"), "{all}");
}
