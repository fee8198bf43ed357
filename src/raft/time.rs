//! Time as a value.
//!
//! The core never asks what time it is; whoever drives it says so. A reading
//! has to come from a clock that counts every pause of the machine
//! (`CLOCK_BOOTTIME`), and has to be taken *after* the inputs it is judged with
//! had arrived: a reading older than the message it judges would let a paused
//! process answer from a lease that has ended.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// A reading of this node's monotonic clock. Only differences mean anything.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    micros: u64,
}

impl Time {
    /// Before everything.
    pub const ZERO: Self = Self { micros: 0 };

    /// After everything.
    pub const MAX: Self = Self { micros: u64::MAX };

    /// A reading in microseconds.
    pub fn from_micros(micros: u64) -> Self {
        Self { micros }
    }

    /// A reading in milliseconds.
    pub fn from_millis(millis: u64) -> Self {
        Self { micros: millis.saturating_mul(1000) }
    }

    /// This reading in microseconds.
    pub fn micros(self) -> u64 {
        self.micros
    }

    /// How long ago `earlier` was; zero if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.micros.saturating_sub(earlier.micros))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, length: Duration) -> Self {
        let length = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        Self { micros: self.micros.saturating_add(length) }
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}ms", self.micros / 1000, self.micros % 1000)
    }
}
