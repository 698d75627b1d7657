//! What vulkaninfo says of a driver's device.

use crate::{Driver, Outcome, expect_success, program};
use std::time::Duration;

/// Runs vulkaninfo on the driver, for all it has to say.
///
/// # Panics
/// When it fails.
#[must_use]
#[track_caller]
pub fn vulkaninfo(driver: &Driver) -> Outcome {
    expect_success(&mut driver.command(program("vulkaninfo")), Duration::from_secs(60))
}

/// The memory types that vulkaninfo lists: properties, as a number, and heap.
///
/// # Panics
/// When they make no sense.
#[must_use]
pub fn memory_types(outcome: &Outcome) -> Vec<(u32, u32)> {
    let lines = outcome.stdout.lines().skip_while(|line| !line.starts_with("memoryTypes:"));
    let values = |name: &'static str| {
        lines.clone().filter_map(move |line| line.trim().strip_prefix(name)?.trim().strip_prefix("= "))
    };
    let number = |text: &str, radix| {
        u32::from_str_radix(text, radix).unwrap_or_else(|_| panic!("\"{text}\" is no number"))
    };
    let flags = values("propertyFlags").map(|value| {
        let digits = value.split(':').next().unwrap_or(value);
        number(digits.trim_start_matches("0x"), 16)
    });
    flags.zip(values("heapIndex").map(|value| number(value, 10))).collect()
}
