//! How long the turns of the event loop take.
//!
//! While a turn lasts nobody is heard: no heartbeat is answered, no vote is
//! given. A turn of the length of an election timeout costs a leader its office,
//! so one that comes near is worth a word to the operator.

use std::time::Duration;

use tokio::time::Instant;

/// A turn that takes longer is reported.
const LONG_TURN: Duration = Duration::from_millis(50);

/// How often at most that is said.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Watches the turns.
#[derive(Debug, Default)]
pub struct Pace {
    /// The longest one of the process.
    longest: Duration,
    /// The longest one, and how many were long, since the last report.
    unreported: Option<(Duration, u64)>,
    reported_at: Option<Instant>,
}

impl Pace {
    /// A turn has begun at `begun`, and has ended now.
    pub fn note(&mut self, begun: Instant) {
        let now = Instant::now();
        let took = now.duration_since(begun);
        if took > self.longest {
            self.longest = took;
            log::debug!("longest_turn_us={}", took.as_micros());
        }
        if let Some((longest, turns)) = self.report(now, took) {
            log::warn!(
                "the event loop was busy for {} ms at a time ({turns} turns took more than {} \
                 ms): other nodes and clients had to wait",
                longest.as_millis(),
                LONG_TURN.as_millis(),
            );
        }
    }

    /// The longest turn since the start.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// What is to be said, if anything: the longest turn and how many were long.
    fn report(&mut self, now: Instant, took: Duration) -> Option<(Duration, u64)> {
        if took >= LONG_TURN {
            let (longest, turns) = self.unreported.unwrap_or_default();
            self.unreported = Some((longest.max(took), turns + 1));
        }
        let rested = self.reported_at.is_none_or(|at| now.duration_since(at) >= REPORT_EVERY);
        let report = self.unreported.take_if(|_| rested)?;
        self.reported_at = Some(now);
        Some(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_turns_are_reported_now_and_then() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let ms = Duration::from_millis;
        assert_eq!(pace.report(start, ms(49)), None);
        assert_eq!(pace.report(start, ms(60)), Some((ms(60), 1)), "the first at once");
        assert_eq!(pace.report(start + ms(60), ms(90)), None);
        assert_eq!(pace.report(start + ms(200), ms(70)), None);
        assert_eq!(pace.report(start + REPORT_EVERY, ms(1)), Some((ms(90), 2)));
        assert_eq!(pace.report(start + 3 * REPORT_EVERY, ms(1)), None);
    }
}
