//! Collecting and printing what was measured.

use std::time::Duration;

/// Samples of one quantity, in microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, sample: Duration) {
        self.0.push(sample.as_secs_f64() * 1e6);
    }

    pub(crate) fn extend(&mut self, other: &Samples) {
        self.0.extend_from_slice(&other.0);
    }

    /// The value below which that share of the samples lies; NaN without samples.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// The middle one of a few numbers.
pub(crate) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// One line of the report: `name`, a figure, its rival's, their ratio.
pub(crate) fn row(name: &str, ours: String, rival: String, ratio: f64) {
    println!("{name:<44} {ours:>26} {rival:>26} {ratio:>8.2}");
}

pub(crate) fn heading() {
    println!("{:<44} {:>26} {:>26} {:>8}", "", "Commworld", "rival", "ratio");
}
