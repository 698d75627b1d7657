//! Medians, quartiles and means, and how durations are written.

/// Samples in order.
pub(crate) struct Sorted(Vec<f64>);

impl Sorted {
    /// Of one sample at least.
    pub(crate) fn new(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self(samples)
    }

    /// The sample below which `quarters` quarters of them lie.
    fn quartile(&self, quarters: usize) -> f64 {
        self.0[(self.0.len() - 1) * quarters / 4]
    }

    pub(crate) fn median(&self) -> f64 {
        self.quartile(2)
    }

    /// Half the distance between the quartiles.
    pub(crate) fn spread(&self) -> f64 {
        (self.quartile(3) - self.quartile(1)) / 2.0
    }

    /// The mean, in which no sample counts for more than four medians: what interrupts a round now and then (another
    /// process) does not count, what belongs to it (a policy that tries something) does.
    pub(crate) fn mean(&self) -> f64 {
        let most = 4.0 * self.median();
        self.0.iter().map(|sample| sample.min(most)).sum::<f64>() / self.0.len() as f64
    }
}

/// Nanoseconds, in the unit that suits them.
pub(crate) fn duration(nanoseconds: f64) -> String {
    match nanoseconds.abs() {
        small if small < 1e3 => format!("{nanoseconds:.0} ns"),
        middle if middle < 1e6 => format!("{:.1} us", nanoseconds / 1e3),
        _ => format!("{:.2} ms", nanoseconds / 1e6),
    }
}
