//! `coherency-fuzz`: plays random programs on the Vulkan driver that the loader finds, and compares every byte the host
//! may look at with a model.
//!
//! It knows nothing of Tidemark. Programs are valid by Vulkan's rules, but that some leave out the barrier to the host,
//! as many applications do. A seed stands for a program: `--seed N --programs 1` plays it again.
//!
//! `coherency-fuzz [--seed N] [--seconds S] [--programs N] [--ops N] [--imports P] [--only NUMBERS] [--verbose]` begins with
//! seed N (1) and goes on with the next until S seconds (10) have passed or N programs were played. The first that fails is
//! shrunk and printed, and the exit status is 1. Of the memories that the host may map P in a hundred (25) are pages of the
//! program's own, where the device can import them. `--only 3,7-9` leaves only these operations of the programs.

mod effects;
mod generate;
mod model;
mod options;
mod player;
mod print;
mod program;
mod random;
mod shrink;
mod spans;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    let options = match options::Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(what) => {
            eprintln!("{what}");
            return ExitCode::from(2);
        }
    };
    if options.is_worker {
        return worker::work(&options);
    }
    println!("seed {}", options.seed);
    let Err(failure) = worker::supervise(&options) else { return ExitCode::SUCCESS };
    let Some(seed) = failure.seed else {
        println!("failed: {}", failure.what);
        return ExitCode::FAILURE;
    };
    println!("failed: seed {seed}, {}", failure.what);
    shrink::shrink(&options, seed, &failure);
    ExitCode::FAILURE
}
