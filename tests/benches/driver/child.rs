//! The two processes that are measured: this program again, one on each driver. They take orders line by line on
//! standard input, so that they work in turn and meet the same weather.
//!
//! - `open INDEX` sets a workload up, `close` takes it down; both are answered by an empty line.
//! - `round MICROSECONDS` steps it for about as long, and at least once; the answer is the median of each figure.

use crate::gpu::Failure;
use crate::statistics::median;
use crate::workloads::{self, Steps};
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};
use tidemark_tests::Driver;

/// The argument that makes this program a child.
pub(crate) const ARGUMENT: &str = "--measure";

/// The child's side: works until the orders end.
pub(crate) fn serve() -> Result<(), Failure> {
    let mut current: Option<Box<dyn Steps>> = None;
    for order in io::stdin().lines() {
        let order = order?;
        let (word, argument) = order.split_once(' ').unwrap_or((&order, "0"));
        let argument: u64 = argument.parse().map_err(|_| Failure(format!("no number: {order}")))?;
        let medians = match (word, &mut current) {
            ("open", _) => {
                let index = usize::try_from(argument).unwrap_or(usize::MAX);
                let workload = workloads::ALL.get(index);
                let workload = workload.ok_or_else(|| Failure(format!("no workload: {order}")))?;
                current = Some((workload.open)()?);
                Vec::new()
            }
            ("close", _) => {
                current = None;
                Vec::new()
            }
            ("round", Some(steps)) => round(&mut **steps, Duration::from_micros(argument))?,
            _ => return Err(Failure(format!("not understood: {order}"))),
        };
        let answer: Vec<String> = medians.iter().map(f64::to_string).collect();
        println!("{}", answer.join(" "));
    }
    Ok(())
}

fn round(steps: &mut dyn Steps, time: Duration) -> Result<Vec<f64>, Failure> {
    // What slept since the last round wakes up first.
    let mut figures: Vec<Vec<f64>> = steps.step()?.iter().map(|_| Vec::new()).collect();
    let start = Instant::now();
    while figures[0].is_empty() || start.elapsed() < time {
        for (samples, sample) in figures.iter_mut().zip(steps.step()?) {
            samples.push(sample);
        }
    }
    Ok(figures.iter_mut().map(|samples| median(samples)).collect())
}

/// The parent's side of a child.
pub(crate) struct Contender {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    _driver: Driver,
}

impl Contender {
    /// Starts this program on a driver.
    pub(crate) fn start(driver: Driver) -> Result<Self, Failure> {
        let mut command = driver.command(std::env::current_exe()?);
        let mut child = command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure("a child without pipes".into()));
        };
        Ok(Self { child, orders, answers: BufReader::new(answers), _driver: driver })
    }

    pub(crate) fn open(&mut self, workload: usize) -> Result<(), Failure> {
        self.order(&format!("open {workload}")).map(drop)
    }

    pub(crate) fn close(&mut self) -> Result<(), Failure> {
        self.order("close").map(drop)
    }

    /// The median of each figure.
    pub(crate) fn round(&mut self, time: Duration) -> Result<Vec<f64>, Failure> {
        self.order(&format!("round {}", time.as_micros()))
    }

    fn order(&mut self, order: &str) -> Result<Vec<f64>, Failure> {
        writeln!(self.orders, "{order}")?;
        let mut answer = String::new();
        if self.answers.read_line(&mut answer)? == 0 {
            return Err(Failure(format!("the child ended ({:?}) at: {order}", self.child.wait()?)));
        }
        let numbers = answer.split_whitespace().map(str::parse).collect::<Result<_, _>>();
        numbers.map_err(|_| Failure(format!("not a child's answer: {answer}")))
    }

    /// Ends the child, which must end well.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let Self { mut child, orders, .. } = self;
        drop(orders);
        let status = child.wait()?;
        if status.success() { Ok(()) } else { Err(Failure(format!("the child ended with {status}"))) }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(format!("a system call failed: {error}"))
    }
}
