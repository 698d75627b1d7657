//! Medians and quartiles, and how durations are written.

/// The middle one. Sorts the samples, of which there must be one at least.
pub(crate) fn median(samples: &mut [f64]) -> f64 {
    quantile(samples, 0.5)
}

/// The sample below which `part` of them lie. Sorts the samples, of which there must be one at least.
pub(crate) fn quantile(samples: &mut [f64], part: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let last = samples.len() - 1;
    let place = part * last as f64;
    let below = place.floor();
    let (low, high) = (below as usize, place.ceil() as usize);
    samples[low] + (samples[high] - samples[low]) * (place - below)
}

/// Nanoseconds, in the unit that suits them.
pub(crate) fn duration(nanoseconds: f64) -> String {
    match nanoseconds.abs() {
        small if small < 1e3 => format!("{nanoseconds:.0} ns"),
        middle if middle < 1e6 => format!("{:.2} us", nanoseconds / 1e3),
        _ => format!("{:.2} ms", nanoseconds / 1e6),
    }
}
