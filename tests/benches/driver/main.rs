//! What Tidemark costs an application, against the backing driver alone: `cargo bench -p tidemark-tests --bench driver`
//! (`-- --quick` for a few seconds' trial).
//!
//! The same program runs on both drivers at once, in two processes that take turns of some milliseconds: what disturbs
//! one disturbs the other. What counts is the difference between neighbouring turns, of which the median and the
//! quartiles are shown. New processes are started several times, since what a process happens to get (addresses, cores)
//! stays with it.
//!
//! cargo builds the driver that is measured along with this program, as its dev-dependency.

mod child;
mod gpu;
mod recording;
mod statistics;
mod workloads;

use child::Contender;
use gpu::Failure;
use statistics::{duration, median, quantile};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tidemark_tests::{Driver, driver_library};
use workloads::{ALL, Workload};

/// How much is measured.
struct Effort {
    /// Pairs of processes.
    processes: usize,
    /// Turns of each process at each workload.
    turns: usize,
    turn: Duration,
}

const FULL: Effort = Effort { processes: 3, turns: 16, turn: Duration::from_millis(25) };
const QUICK: Effort = Effort { processes: 1, turns: 2, turn: Duration::from_millis(2) };

/// The turns of both contenders at one figure.
#[derive(Clone, Default)]
struct Turns {
    backing: Vec<f64>,
    tidemark: Vec<f64>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let outcome = if has(child::ARGUMENT) {
        child::serve()
    } else if has("--quick") || !has("--bench") {
        // `cargo test --benches` gives no argument: it asks whether this still runs.
        compare(&QUICK)
    } else {
        compare(&FULL)
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(what)) => {
            eprintln!("the driver bench failed: {what}");
            ExitCode::FAILURE
        }
    }
}

fn compare(effort: &Effort) -> Result<(), Failure> {
    let start = Instant::now();
    let mut results: Vec<Vec<Turns>> =
        ALL.iter().map(|workload| vec![Turns::default(); workload.figures.len()]).collect();
    for _ in 0..effort.processes {
        let mut contenders = [Contender::start(Driver::lavapipe())?, Contender::start(Driver::tidemark())?];
        for (index, turns) in results.iter_mut().enumerate() {
            take_turns(&mut contenders, index, effort, turns)?;
        }
        for contender in contenders {
            contender.finish()?;
        }
    }
    println!("Tidemark ({}) over lavapipe, every mapping emulated", driver_library().display());
    println!(
        "{} pairs of processes, {} turns each of {:?} a workload: medians of the turns; the difference is that of \
         neighbouring turns, with its quartiles\n",
        effort.processes, effort.turns, effort.turn
    );
    print(&results);
    println!("\n{:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn take_turns(
    contenders: &mut [Contender; 2],
    workload: usize,
    effort: &Effort,
    results: &mut [Turns],
) -> Result<(), Failure> {
    for contender in contenders.iter_mut() {
        contender.open(workload)?;
    }
    for turn in 0..effort.turns {
        let mut figures = [Vec::new(), Vec::new()];
        // Who is second finds the caches in another state: in turn, too.
        for which in [turn % 2, 1 - turn % 2] {
            figures[which] = contenders[which].round(effort.turn)?;
        }
        let [backing, tidemark] = figures;
        for ((result, backing), tidemark) in results.iter_mut().zip(backing).zip(tidemark) {
            result.backing.push(backing);
            result.tidemark.push(tidemark);
        }
    }
    for contender in contenders {
        contender.close()?;
    }
    Ok(())
}

/// Whether both quartiles are within the target, one, or none.
const VERDICTS: [&str; 3] = ["met", "too close to tell", "MISSED"];

fn print(results: &[Vec<Turns>]) {
    println!(
        "{:<34} {:<25} {:>10} {:>10} {:>7}  {:<34} target",
        "workload", "figure", "backing", "Tidemark", "ratio", "difference"
    );
    let mut counts = [0; 3];
    for (Workload { name, figures, .. }, results) in ALL.iter().zip(results) {
        for (index, (figure, Turns { backing, tidemark })) in figures.iter().zip(results).enumerate() {
            let mut differences: Vec<f64> = tidemark.iter().zip(backing).map(|(t, b)| t - b).collect();
            let difference = median(&mut differences);
            let quartiles = [0.25, 0.75].map(|part| quantile(&mut differences, part));
            let [backing, tidemark] = [backing, tidemark].map(|turns| median(&mut turns.clone()));
            let verdict = figure.target.map_or(String::new(), |target| {
                let verdict = VERDICTS.len() - 1 - quartiles.iter().filter(|at| **at <= target).count();
                counts[verdict] += 1;
                format!("{} (at most {})", VERDICTS[verdict], duration(target))
            });
            let [low, high] = quartiles.map(duration);
            println!(
                "{:<34} {:<25} {:>10} {:>10} {:>7.2}  {:<34} {verdict}",
                if index == 0 { name } else { "" },
                figure.name,
                duration(backing),
                duration(tidemark),
                tidemark / backing,
                format!("{} ({low} .. {high})", duration(difference)),
            );
        }
    }
    let sum: Vec<String> =
        VERDICTS.iter().zip(counts).map(|(name, count)| format!("{name} {count}")).collect();
    println!("\nTargets: {}", sum.join(", "));
}
