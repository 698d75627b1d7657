//! The command line.

use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) time: Duration,
    pub(crate) programs: u64,
    /// Operations of a program, at most.
    pub(crate) ops: u32,
    /// How many in a hundred memories are imported, where that is possible.
    pub(crate) imports: u32,
    /// The numbers of those to leave, if not all.
    pub(crate) only: Option<Vec<usize>>,
    pub(crate) is_verbose: bool,
    /// Plays, watched by another process.
    pub(crate) is_worker: bool,
}

impl Options {
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            seed: 1,
            time: Duration::MAX,
            programs: u64::MAX,
            ops: 120,
            imports: 25,
            only: None,
            is_verbose: false,
            is_worker: false,
        };
        let mut is_limited = false;
        let mut arguments = arguments;
        while let Some(name) = arguments.next() {
            match name.as_str() {
                "--verbose" => options.is_verbose = true,
                "--worker" => options.is_worker = true,
                _ => {
                    let value = arguments.next().ok_or_else(|| format!("{name}: a value is missing"))?;
                    let bad = || format!("{name}: \"{value}\" is no such value");
                    match name.as_str() {
                        "--seed" => options.seed = value.parse().map_err(|_| bad())?,
                        "--seconds" => {
                            let seconds: f64 = value.parse().map_err(|_| bad())?;
                            options.time = Duration::try_from_secs_f64(seconds).map_err(|_| bad())?;
                            is_limited = true;
                        }
                        "--programs" => {
                            options.programs = value.parse().map_err(|_| bad())?;
                            is_limited = true;
                        }
                        "--ops" => options.ops = value.parse().map_err(|_| bad())?,
                        "--imports" => options.imports = value.parse().map_err(|_| bad())?,
                        "--only" => options.only = Some(numbers(&value).ok_or_else(bad)?),
                        _ => return Err(format!("there is no option {name}")),
                    }
                }
            }
        }
        if !is_limited {
            options.time = Duration::from_secs(10);
        }
        Ok(options)
    }
}

/// The numbers of a list as `3,7-9`.
fn numbers(list: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in list.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let [first, last]: [usize; 2] = [first.parse().ok()?, last.parse().ok()?];
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// As `numbers` takes them.
pub(crate) fn list(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|last, next| last + 1 == *next);
    let run = |run: &[usize]| match run {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    };
    runs.map(run).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers_are_read_and_written() {
        let kept = [1, 2, 3, 7, 9, 10];
        assert_eq!(list(&kept), "1-3,7,9-10");
        assert_eq!(numbers("1-3,7,9-10").unwrap(), kept);
        assert_eq!(numbers(""), Some(vec![]));
        assert_eq!(numbers("a"), None);
    }
}
