//! What is printed and drawn.

use crate::measure::{ADAPTIVE, COPY_ALL, Effort, NAMES, Outcome, PAGE_GUARD, STATIC};
use crate::plot::Plot;
use crate::statistics::duration;
use crate::workload::{Device, Pattern, Workload};
use std::error::Error;
use std::fs;
use std::path::PathBuf;

pub(crate) fn header() {
    print!("{:<48} {:>9}", "workload (a round)", "plain");
    NAMES.iter().for_each(|name| print!(" {name:>22}"));
    println!("   best static    adaptive/it");
}

/// One line: what each contender adds to a round, the quartiles' distance, and its ratio to the best of all.
pub(crate) fn line(workload: &Workload, outcome: &Outcome) {
    print!("{:<48} {:>9}", workload.name, duration(outcome.plain));
    let best = outcome.overheads.iter().map(|overhead| overhead.median).fold(f64::MAX, f64::min);
    for overhead in &outcome.overheads {
        let ratio = ratio(overhead.median, best).map_or("-".into(), |ratio| format!("{ratio:.2}x"));
        let relative = 100.0 * overhead.spread / overhead.median.abs().max(1.0);
        let spread = if relative < 100.0 { format!("{relative:.0}%") } else { "..".into() };
        print!(" {:>9} ~{spread:<3} {ratio:>7}", duration(overhead.median));
    }
    let (name, best) = best_static(outcome);
    let against = ratio(outcome.overheads[ADAPTIVE].median, best).map_or("-".into(), |r| format!("{r:.2}x"));
    println!("   {name:<13} {against:>8}");
}

/// The static contender that adds least.
fn best_static(outcome: &Outcome) -> (&'static str, f64) {
    let medians = outcome.overheads[..STATIC].iter().map(|overhead| overhead.median);
    NAMES.into_iter().zip(medians).min_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap_or(("none", 0.0))
}

/// Whether there is anything to compare: an overhead within the clock's resolution is no basis.
fn ratio(a: f64, b: f64) -> Option<f64> {
    const RESOLUTION: f64 = 20.0;
    (b > RESOLUTION).then(|| a / b)
}

/// A target: its name, what was found, and whether it is reached.
struct Verdict {
    name: String,
    found: String,
    is_met: bool,
}

/// Holds the figures against the project's targets.
pub(crate) fn verdicts(results: &[(Workload, Outcome)], state: f64) {
    let mut verdicts = Vec::from(policy(results));
    let single = results.iter().filter(|(workload, _)| {
        workload.device == Device::Reads && !workload.is_narrow && workload.buffers == 1
    });
    let is_scattered = |pattern| matches!(pattern, Pattern::Scattered | Pattern::Fixed);
    for (workload, outcome) in single.filter(|(workload, _)| is_scattered(workload.pattern)) {
        if workload.len < 1 << 20 || ![100, 10_000].contains(&workload.dirty) {
            continue;
        }
        let all = &outcome.overheads;
        let mut hold = |what: &str, a: usize, b: usize, is_met: fn(f64) -> bool| {
            // What happens once in many rounds is in the mean of many only.
            const MANY: usize = 128;
            let by_median = all[a].median / all[b].median;
            let by_mean = all[a].mean / all[b].mean;
            let is_many = outcome.rounds >= MANY;
            let found = format!(
                "{by_median:.2}x by medians, {by_mean:.2}x by means{}",
                if is_many { "" } else { " (of few rounds: not judged)" }
            );
            verdicts.push(Verdict {
                name: format!("{}: {} {what}", workload.name, NAMES[a]),
                found,
                is_met: is_met(by_median) && (!is_many || is_met(by_mean)),
            });
        };
        hold("over adaptive >= 5", PAGE_GUARD, ADAPTIVE, |ratio| ratio >= 5.0);
        if workload.dirty == 100 {
            hold("over adaptive >= 20", COPY_ALL, ADAPTIVE, |ratio| ratio >= 20.0);
        } else {
            hold("over copy-all <= 1.05", ADAPTIVE, COPY_ALL, |ratio| ratio <= 1.05);
        }
    }
    verdicts.push(Verdict {
        name: "twin and state of a buffer that only the host writes < 0.1 %".into(),
        found: format!("{:.4} %", state * 100.0),
        is_met: state < 0.001,
    });
    println!("\nTargets:");
    for Verdict { name, found, is_met } in &verdicts {
        println!("  {:<7}{name}: {found}", if *is_met { "met" } else { "MISSED" });
    }
}

/// How far the policy is from one that knew the best static choice for every row.
fn policy(results: &[(Workload, Outcome)]) -> [Verdict; 2] {
    let ratios: Vec<(f64, &str)> = results
        .iter()
        .filter_map(|(workload, outcome)| {
            let (_, best) = best_static(outcome);
            Some((ratio(outcome.overheads[ADAPTIVE].median, best)?, &*workload.name))
        })
        .collect();
    let rows = ratios.len();
    let within = |limit: f64| ratios.iter().filter(|(ratio, _)| *ratio <= limit).count();
    let mean = (ratios.iter().map(|(ratio, _)| ratio.ln()).sum::<f64>() / rows.max(1) as f64).exp();
    let (worst, row) = ratios.iter().copied().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((0.0, "none"));
    [
        Verdict {
            name: "adaptive over each row's best static, geometric mean of all <= 1.05".into(),
            found: format!("{mean:.2}x of {rows} rows, {} of them within 1.05x", within(1.05)),
            is_met: mean <= 1.05,
        },
        Verdict {
            name: ".. and in any row <= 1.15".into(),
            found: format!("{worst:.2}x ({row}), {} of {rows} rows within", within(1.15)),
            is_met: worst <= 1.15,
        },
    ]
}

/// Draws overhead against the part that is dirty, of one buffer, scattered.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn picture(results: &[(Workload, Outcome)], effort: &Effort) -> Result<PathBuf, Box<dyn Error>> {
    let len = effort.pictured;
    let mut rows: Vec<_> = results
        .iter()
        .filter(|(workload, _)| {
            (workload.len, workload.pattern, workload.buffers) == (len, Pattern::Scattered, 1)
                && workload.device == Device::Reads
                && workload.dirty > 0
        })
        .collect();
    rows.sort_by_key(|(workload, _)| workload.dirty);
    let points = |contender: usize| {
        let point = |(workload, outcome): &&(Workload, Outcome)| {
            (workload.dirty as f64 / 100.0, outcome.overheads[contender].median.max(1.0) / 1e3)
        };
        rows.iter().map(point).collect()
    };
    let plot = Plot {
        title: &format!("what tracking adds to a round: {} MiB, scattered pages", len >> 20),
        x_label: "pages written in a round (%)",
        y_label: "microseconds added",
        x: -2..2,
        y: 0..5,
        x_ticks: &["0.01", "0.1", "1", "10", "100"],
        y_ticks: &["1", "10", "100", "1000", "10000", "100000"],
        lines: NAMES.iter().enumerate().map(|(index, name)| (*name, points(index))).collect(),
    };
    let folder = target_dir().join("bench");
    fs::create_dir_all(&folder)?;
    let path = folder.join(effort.picture);
    plot.save(&path)?;
    Ok(path)
}

/// cargo's target folder: this program lies in its release/deps.
fn target_dir() -> PathBuf {
    let here = std::env::current_exe().ok();
    here.and_then(|path| Some(path.ancestors().nth(3)?.to_path_buf()))
        .unwrap_or_else(|| PathBuf::from("target"))
}
