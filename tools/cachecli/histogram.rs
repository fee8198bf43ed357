//! Latencies: the figures of a distribution, and its picture.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Latencies in nanoseconds, from 1 µs to a minute, with three digits.
pub fn new() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("the bounds and digits are legal")
}

/// Names and quantiles of the figures that are shown.
const FIGURES: [(&str, f64); 5] =
    [("min", 0.0), ("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// The names of [`cells`].
pub fn titles() -> [&'static str; 5] {
    FIGURES.map(|(name, _)| name)
}

/// The figures for people.
pub fn cells(of: &Histogram<u64>) -> [String; 5] {
    FIGURES.map(|(_, quantile)| time(of.value_at_quantile(quantile)))
}

/// The figures for programs, in microseconds.
pub fn figures(of: &Histogram<u64>) -> Value {
    let us = |quantile| json!(of.value_at_quantile(quantile) as f64 / 1000.0);
    let named = |(name, quantile): (&str, f64)| (format!("{name}_us"), us(quantile));
    FIGURES.into_iter().map(named).collect::<serde_json::Map<_, _>>().into()
}

fn time(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} µs", ns / 1000),
        1_000_000..1_000_000_000 => format!("{:.2} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

/// A line for each doubling of the latency, with a bar for its share.
pub fn draw(of: &Histogram<u64>) -> String {
    const WIDTH: u64 = 50;
    let mut counts = [0u64; 64];
    for step in of.iter_recorded() {
        counts[step.value_iterated_to().max(1).ilog2() as usize] += step.count_at_value();
    }
    let first = counts.iter().position(|&count| count > 0).unwrap_or(0);
    let last = counts.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1);
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let line = |doubling: usize| {
        let count = counts[doubling];
        // Whatever is there is seen, be it one of a million.
        let bar = "█".repeat((count * WIDTH).div_ceil(most) as usize);
        format!("{:>10} {count:>10} {bar}", format!("< {}", time(2 << doubling))) + "\n"
    };
    (first..last).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_a_line_per_doubling() {
        let mut latencies = new();
        latencies.record_n(100_000, 100).unwrap();
        latencies.record_n(1_000_000, 1).unwrap();
        let picture = draw(&latencies);
        let lines: Vec<_> = picture.lines().collect();
        assert_eq!(lines.len(), 4, "{picture}");
        assert!(lines[0].contains("< 131 µs        100 █"), "{picture}");
        assert!(lines[3].ends_with("1 █"), "{picture}");
        assert_eq!(draw(&new()), "");
    }
}
