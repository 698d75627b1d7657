//! Tests of Tidemark's kernel contract (`kmd-uapi/include/tidemark_drm.h`), run by `tests/vm/run` in a virtual machine in
//! which the reference module is loaded.
//!
//! Each test is a process of its own, so that a crash or hang is its failure alone. `vm-tests [PART-OF-A-NAME...]` runs
//! those whose names contain any of the parts.

#![warn(missing_docs, clippy::undocumented_unsafe_blocks)]

mod backend;
mod collections;
mod counts;
mod device;
mod dirty;
mod failures;
mod fuzz;
mod jobs;
mod lifetime;
mod outside;
mod placement;

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

/// A test and its name.
type Test = (&'static str, fn());

/// Names a module's tests.
macro_rules! tests {
    ($($module:path: $($name:ident)*;)*) => {
        &[$($((concat!(stringify!($module), "::", stringify!($name)), { use $module as module; module::$name }),)*)*]
    };
}

const TESTS: &[Test] = tests! {
    failures: query create_and_close lookups map track collect transfer wait memory_runs_out;
    counts: mkwrite_faults_once_a_round dirty_bits_do_not_fault sparse_objects_cost_what_is_there neighbours_are_mapped_along;
    dirty: exact races controls switches_lose_nothing;
    collections: continuation signals many_objects;
    placement: contents_move_along memory_of_the_device_ends faults_wait_without_mmap_lock races;
    jobs: failures bytes order moves_and_jobs interrupted;
    jobs::user: failures follows_the_addresses pages_stay_while_a_job_runs copy_on_write over_a_view races;
    lifetime: sharing attached usage unplug module;
    outside: foreign_buffers pins_for_long processes_of_32_bits;
    fuzz: calls;
    backend: mkwrite_faults_once_a_page_and_round dirty_bits_fault_not_at_all the_policy_goes_by_density
        each_buffer_has_its_own_way parts placed_views forked_children races unplug;
};

/// How long a test may take, under emulation on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn run(name: &str) -> Result<(), String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let mut child = Command::new(program)
        .arg("--exact")
        .arg(name)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(status.to_string()),
            Ok(None) if start.elapsed() > LIMIT => {
                let _ = child.kill();
                return Err(format!("took longer than {LIMIT:?}"));
            }
            Ok(None) => thread::sleep(Duration::from_millis(2)),
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [flag, name] = arguments.as_slice()
        && flag == "--exact"
    {
        let (_, test) = TESTS.iter().find(|(known, _)| known == name).expect("no such test");
        test();
        return ExitCode::SUCCESS;
    }

    let (mut passed, mut failed) = (0, 0);
    for (name, _) in TESTS {
        if !arguments.is_empty() && !arguments.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let start = Instant::now();
        match run(name) {
            Ok(()) => {
                passed += 1;
                println!("test {name} ... ok, {} ms", start.elapsed().as_millis());
            }
            Err(why) => {
                failed += 1;
                println!("test {name} ... FAILED: {why}");
            }
        }
    }
    println!("vm-tests: {passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
