//! Makes a failing program small: takes operations away as long as what is left still fails, each time in a fresh process.

use crate::options::{self, Options};
use crate::program::{Abilities, Op};
use crate::worker::{self, Found, supervise};
use std::time::{Duration, Instant};

/// When it is small enough.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often programs with threads are played: they may fail only at times.
const TRIES: usize = 3;

/// Shrinks the program of `seed`, and prints what is left.
pub(crate) fn shrink(options: &Options, seed: u64, failure: &Found) {
    let deadline = Instant::now() + PATIENCE;
    let mut kept = worker::program(options, seed, failure.abilities).numbers();
    let operations = kept.len();
    let mut shrinker =
        Shrinker { options, seed, abilities: failure.abilities, deadline, what: failure.what.clone() };
    // Nothing that comes after matters.
    if let Some(last) = failure.number {
        let until: Vec<usize> = kept.iter().copied().filter(|&number| number <= last).collect();
        if let Some(left) = shrinker.still_fails(&until) {
            kept = left;
        }
    }
    // Half of it, a quarter, an eighth, down to single operations, until none can go.
    let mut chunk = kept.len().div_ceil(2);
    while chunk > 0 {
        let before = kept.len();
        let mut end = kept.len();
        // From the end: what is used last goes before what it needs.
        while end > 0 {
            let start = end.saturating_sub(chunk);
            let rest = [&kept[..start], &kept[end..]].concat();
            if let Some(left) = shrinker.still_fails(&rest) {
                kept = left;
            }
            end = start.min(kept.len());
        }
        if chunk > 1 || kept.len() == before {
            chunk /= 2;
        }
    }
    println!("shrunk from {operations} operations to {}: {}", kept.len(), shrinker.what);
    print!("{}", worker::program(&shrinker.options(&kept), seed, failure.abilities));
    let list = options::list(&kept);
    println!("to play it again: --seed {seed} --programs 1 --ops {} --only {list}", options.ops);
}

struct Shrinker<'a> {
    options: &'a Options,
    seed: u64,
    abilities: Abilities,
    deadline: Instant,
    /// How the smallest program so far fails.
    what: String,
}

impl Shrinker<'_> {
    /// To play the operations `kept`.
    fn options(&self, kept: &[usize]) -> Options {
        Options {
            seed: self.seed,
            programs: 1,
            time: Duration::MAX,
            only: Some(kept.to_vec()),
            is_verbose: false,
            ..*self.options
        }
    }

    /// Of the operations `kept`, those that are valid without the others, if they fail.
    fn still_fails(&mut self, kept: &[usize]) -> Option<Vec<usize>> {
        let program = worker::program(&self.options(kept), self.seed, self.abilities);
        let valid = program.numbers();
        let options = self.options(&valid);
        let has_threads = program.ops.iter().any(|(_, op)| matches!(op, Op::Spawn { .. }));
        for _ in 0..if has_threads { TRIES } else { 1 } {
            if Instant::now() > self.deadline {
                return None;
            }
            if let Err(found) = supervise(&options) {
                self.what = found.what;
                return Some(valid);
            }
        }
        None
    }
}
