//! What Tidemark costs an application, against the backing driver alone, and what its transfer engines cost against each
//! other: `cargo bench -p tidemark-tests --bench driver` (`-- --quick` for a few seconds' trial).
//!
//! The same program runs on two drivers at once, in two processes that take turns of some milliseconds: what disturbs
//! one disturbs the other. What counts is the difference between neighbouring turns, of which the median and the
//! quartiles are shown. New processes are started several times, since what a process happens to get (addresses, cores)
//! stays with it.
//!
//! cargo builds the driver that is measured along with this program, as its dev-dependency.

mod child;
mod gpu;
mod imports;
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
struct Turns([Vec<f64>; 2]);

/// Two drivers to be compared.
struct Match {
    title: &'static str,
    names: [&'static str; 2],
    drivers: fn() -> [Driver; 2],
    /// Whether a workload says anything of their difference.
    is_of_interest: fn(&Workload) -> bool,
}

const MATCHES: [Match; 3] = [
    Match {
        title: "Tidemark over lavapipe, every mapping emulated, against lavapipe",
        names: ["backing", "Tidemark"],
        drivers: || [Driver::lavapipe(), Driver::tidemark()],
        is_of_interest: |_| true,
    },
    Match {
        title: "Staged copies, on the application's queue, against those by aperture",
        names: ["aperture", "staged"],
        drivers: || ["aperture", "staged"].map(|engine| Driver::tidemark().with("TIDEMARK_TRANSFER", engine)),
        is_of_interest: moves_bytes,
    },
    // What a program in user space cannot show is what it is for: the mock's uncached pages are as fast as any, while a
    // device's take a bus's time for each word that is read.
    Match {
        title: "Cached memory that Tidemark adds to the mock board's, against its uncached memory (but for its slowness)",
        names: ["uncached", "cached"],
        drivers: || {
            let board = Driver::mock("pi");
            [board.clone(), Driver::tidemark_over(&board)]
        },
        is_of_interest: |workload| workload.name.starts_with("readback"),
    },
];

fn moves_bytes(workload: &Workload) -> bool {
    ["batch", "readback", "upload"].iter().any(|what| workload.name.starts_with(what))
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
    println!("Tidemark is {}", driver_library().display());
    println!(
        "{} pairs of processes, {} turns each of {:?} a workload: medians of the turns; the difference is that of \
         neighbouring turns, with its quartiles\n",
        effort.processes, effort.turns, effort.turn
    );
    for Match { title, names, drivers, is_of_interest } in &MATCHES {
        let mut results: Vec<(usize, Vec<Turns>)> = (0..)
            .zip(ALL)
            .filter(|(_, workload)| is_of_interest(workload))
            .map(|(index, workload)| (index, vec![Turns::default(); workload.figures.len()]))
            .collect();
        for _ in 0..effort.processes {
            let [one, other] = drivers();
            let mut contenders = [Contender::start(one)?, Contender::start(other)?];
            for (index, turns) in &mut results {
                take_turns(&mut contenders, *index, effort, turns)?;
            }
            for contender in contenders {
                contender.finish()?;
            }
        }
        println!("{title}\n");
        print(*names, &results);
    }
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
        for (of_contender, figures) in (0..).zip(figures) {
            for (Turns(turns), figure) in results.iter_mut().zip(figures) {
                turns[of_contender].push(figure);
            }
        }
    }
    for contender in contenders {
        contender.close()?;
    }
    Ok(())
}

/// Whether both quartiles are within the target, one, or none.
const VERDICTS: [&str; 3] = ["met", "too close to tell", "MISSED"];

fn print([one, other]: [&str; 2], results: &[(usize, Vec<Turns>)]) {
    println!(
        "{:<34} {:<25} {:>10} {:>10} {:>7}  {:<34} target",
        "workload", "figure", one, other, "ratio", "difference"
    );
    let mut counts = [0; 3];
    // Targets are for what Tidemark adds to the backing driver.
    let has_targets = one == MATCHES[0].names[0];
    for (workload, results) in results {
        let Workload { name, figures, .. } = &ALL[*workload];
        for (index, (figure, Turns([one, other]))) in figures.iter().zip(results).enumerate() {
            let mut differences: Vec<f64> = other.iter().zip(one).map(|(other, one)| other - one).collect();
            let difference = median(&mut differences);
            let quartiles = [0.25, 0.75].map(|part| quantile(&mut differences, part));
            let [one, other] = [one, other].map(|turns| median(&mut turns.clone()));
            let verdict = figure.target.filter(|_| has_targets).map_or(String::new(), |target| {
                let verdict = VERDICTS.len() - 1 - quartiles.iter().filter(|at| **at <= target).count();
                counts[verdict] += 1;
                format!("{} (at most {})", VERDICTS[verdict], duration(target))
            });
            let [low, high] = quartiles.map(duration);
            println!(
                "{:<34} {:<25} {:>10} {:>10} {:>7.2}  {:<34} {verdict}",
                if index == 0 { name } else { "" },
                figure.name,
                duration(one),
                duration(other),
                other / one,
                format!("{} ({low} .. {high})", duration(difference)),
            );
        }
    }
    if has_targets {
        let sum: Vec<String> =
            VERDICTS.iter().zip(counts).map(|(name, count)| format!("{name} {count}")).collect();
        println!("\nTargets: {}", sum.join(", "));
    }
    println!();
}
