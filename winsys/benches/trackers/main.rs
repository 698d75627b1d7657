//! The engine beside its peers' strategies, on the same workloads in one run: `cargo bench -p tidemark-winsys --bench
//! trackers` (`-- --quick` for a few seconds' trial).
//!
//! A round is what an application and a driver do for a batch: the host writes one word to each of some pages, and the
//! device gets to see it. One word is the fair common denominator: what a strategy costs depends on pages, and whatever
//! else the application writes costs the same everywhere. What counts is what a strategy adds: the time of a round less
//! that of the same writes (and reads) on memory that nobody tracks. The contenders take turns round by round; medians,
//! half the distance of the quartiles, and ratios to the row's best are shown. Each round's bytes are verified.
//!
//! Contenders: Tidemark's engine with each tracker alone, and with the policy that chooses (adaptive); comparison is also
//! what RenderDoc does; and the page guard of GFXReconstruct.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a program that prints statistics"
)]

mod contender;
mod font;
mod measure;
mod memory;
mod overlap;
mod page_guard;
mod plot;
mod report;
mod statistics;
mod workload;

use measure::{Effort, measure};
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const FULL: Effort = Effort {
    largest: 256 << 20,
    pictured: 16 << 20,
    picture: "trackers.png",
    time: Duration::from_millis(400),
    least: 3,
    warm_up: (40, Duration::from_millis(60)),
    // Until it tries other ways rarely, even for buffers that are used once in a hundred rounds.
    learning: (400, Duration::from_millis(400)),
    uploads: 9,
};

const QUICK: Effort = Effort {
    largest: 1 << 20,
    pictured: 1 << 20,
    picture: "trackers-quick.png",
    time: Duration::from_millis(5),
    least: 2,
    warm_up: (2, Duration::ZERO),
    learning: (4, Duration::ZERO),
    uploads: 1,
};

fn main() -> ExitCode {
    let has = |name: &str| std::env::args().any(|argument| argument == name);
    // `cargo test --benches` gives no argument: it asks whether this still runs.
    let effort = if has("--quick") || !has("--bench") { QUICK } else { FULL };
    match run(&effort) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the trackers bench failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(effort: &Effort) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let state = memory::report()?;
    println!();
    report::header();
    let mut results = Vec::new();
    for workload in workload::all(effort.largest) {
        let outcome = measure(&workload, effort)?;
        report::line(&workload, &outcome);
        results.push((workload, outcome));
    }
    overlap::report(effort.uploads)?;
    report::verdicts(&results, state);
    println!("\n{}\n{:.0} s", report::picture(&results, effort)?.display(), start.elapsed().as_secs_f64());
    Ok(())
}
