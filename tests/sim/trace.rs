//! What happened: a hash of everything, text for people, and counts.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The record of one run.
#[derive(Default)]
pub struct Trace {
    /// Two runs of one seed have the same.
    pub hash: u64,
    /// Every line is printed.
    pub verbose: bool,
    /// How often each kind of event happened.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Trace {
    /// Something happened; the numbers tell it from other things of its kind.
    pub fn note(&mut self, at_us: u64, kind: &'static str, numbers: &[u64]) {
        let kind_bytes = kind.bytes().map(u64::from);
        for number in [at_us].into_iter().chain(kind_bytes).chain(numbers.iter().copied()) {
            self.hash = (self.hash.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
        if self.verbose {
            let mut line = format!("{:>6}.{:06} {kind}", at_us / 1_000_000, at_us % 1_000_000);
            for number in numbers {
                let _ = write!(line, " {number}");
            }
            println!("{line}");
        }
    }

    /// For people only; costs nothing unless they look.
    pub fn tell(&self, at_us: u64, text: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>6}.{:06} {}", at_us / 1_000_000, at_us % 1_000_000, text());
        }
    }

    /// How often this kind has happened.
    pub fn counted(&self, kind: &str) -> u64 {
        self.counts.get(kind).copied().unwrap_or(0)
    }

    /// One more of this kind.
    pub fn count(&mut self, kind: &'static str) {
        *self.counts.entry(kind).or_default() += 1;
    }
}
