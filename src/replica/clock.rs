//! Log time: the cluster's own clock, carried by the log.
//!
//! A deadline means the same moment on every replica because it is compared
//! with the stamps of log entries, never with anybody's clock. The leader makes
//! the stamps. Between two of them it advances by its monotonic clock, so a wall
//! clock that jumps moves nothing. It only pulls gently: over 200 seconds log
//! time gains or loses at most one, until it says what the wall says.
//!
//! Followers keep an estimate from what the leader last told them. When one of
//! them becomes leader it continues from the largest estimate in the majority
//! that elected it, so that no key which somebody saw expire comes back. Only
//! if nobody has one, after a restart of them all, do wall clocks count: the
//! lower median of that majority, so that one clock a year ahead expires
//! nothing.

use crate::mutants::{self, Mutant};
use crate::raft::Time;

/// What the driver's clocks said, once per turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock, pauses counted.
    pub time: Time,
    /// The wall clock, milliseconds since 1970.
    pub wall_ms: u64,
}

/// What a node tells a candidate together with its vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// What it believes log time is; `None` if it has not heard since its start.
    pub estimate_ms: Option<u64>,
    /// Its wall clock.
    pub wall_ms: u64,
}

/// How often the wall clock pulls.
const PULL_EVERY_US: u64 = 100_000;

/// The wall clock may make log time faster or slower by one part in so many.
const PULL_DIVISOR: u64 = 200;

/// One node's idea of log time. It never goes back: where it turns out to have
/// run ahead of the leader, it stands still until the leader has caught up.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogClock {
    anchor: Option<Anchor>,
    floor_us: u64,
}

/// At `at`, log time was `log_us` microseconds.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    at: Time,
    log_us: u64,
}

impl Anchor {
    fn read_us(&self, now: Now) -> u64 {
        self.log_us.saturating_add(now.time.micros().saturating_sub(self.at.micros()))
    }
}

impl LogClock {
    fn estimate_us(&self, now: Now) -> Option<u64> {
        self.anchor.map(|anchor| anchor.read_us(now).max(self.floor_us))
    }

    /// What log time is, in milliseconds; `None` before anything was heard.
    pub fn estimate_ms(&self, now: Now) -> Option<u64> {
        self.estimate_us(now).map(|us| us / 1000)
    }

    /// What to tell a candidate.
    pub fn reading(&self, now: Now) -> Reading {
        Reading { estimate_ms: self.estimate_ms(now), wall_ms: now.wall_ms }
    }

    /// The leader says that log time is this.
    pub fn follow(&mut self, now: Now, log_ms: u64) {
        self.floor_us = self.estimate_us(now).unwrap_or(0);
        self.anchor = Some(Anchor { at: now.time, log_us: log_ms.saturating_mul(1000) });
    }

    /// This node was elected by voters with these readings, its own included,
    /// and the log's last stamp is `last_stamp_ms`.
    pub fn begin_to_lead(&mut self, now: Now, readings: &[Reading], last_stamp_ms: u64) {
        if mutants::on(Mutant::LogTimeGoesBack) {
            let log_us = now.wall_ms.saturating_mul(1000);
            (self.floor_us, self.anchor) = (0, Some(Anchor { at: now.time, log_us }));
            return;
        }
        let estimate = readings.iter().filter_map(|reading| reading.estimate_ms).max();
        let start = estimate.unwrap_or_else(|| lower_median(readings));
        let own = self.estimate_ms(now).unwrap_or(0);
        self.follow(now, start.max(last_stamp_ms).max(own));
    }

    /// Lets the wall clock pull; for the leader, every turn.
    pub fn pull(&mut self, now: Now) {
        let Some(anchor) = &mut self.anchor else { return };
        let elapsed_us = now.time.micros().saturating_sub(anchor.at.micros());
        if elapsed_us < PULL_EVERY_US {
            return;
        }
        let free_us = anchor.read_us(now);
        let wall_us = now.wall_ms.saturating_mul(1000);
        let most_us = elapsed_us / PULL_DIVISOR;
        let pulled_us = wall_us.clamp(free_us - most_us, free_us.saturating_add(most_us));
        self.floor_us = self.floor_us.max(free_us);
        *anchor = Anchor { at: now.time, log_us: pulled_us };
    }

    /// When log time will be `log_ms`, as far as can be told now.
    pub fn when(&self, now: Now, log_ms: u64) -> Option<Time> {
        let anchor = self.anchor?;
        let wait_us = log_ms.saturating_mul(1000).saturating_sub(anchor.read_us(now));
        Some(Time::from_micros(now.time.micros().saturating_add(wait_us)))
    }

    /// How far log time is ahead of this node's wall clock, in milliseconds.
    pub fn offset_ms(&self, now: Now) -> i64 {
        let estimate = self.estimate_ms(now).unwrap_or(now.wall_ms);
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        signed(estimate) - signed(now.wall_ms)
    }
}

fn lower_median(readings: &[Reading]) -> u64 {
    let mut walls: Vec<u64> = readings.iter().map(|reading| reading.wall_ms).collect();
    walls.sort_unstable();
    walls.get(walls.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64, wall_ms: u64) -> Now {
        Now { time: Time::from_millis(millis), wall_ms }
    }

    fn wall(wall_ms: u64) -> Reading {
        Reading { estimate_ms: None, wall_ms }
    }

    #[test]
    fn one_clock_a_year_ahead_is_outvoted() {
        const YEAR: u64 = 365 * 24 * 3600 * 1000;
        let mut clock = LogClock::default();
        clock.begin_to_lead(at(0, YEAR), &[wall(YEAR), wall(1000)], 0);
        assert_eq!(clock.estimate_ms(at(5, YEAR)), Some(1005));
        let mut clock = LogClock::default();
        clock.begin_to_lead(at(0, YEAR), &[wall(YEAR), wall(1000), wall(1010)], 0);
        assert_eq!(clock.estimate_ms(at(0, YEAR)), Some(1010));
    }

    #[test]
    fn an_estimate_counts_for_more_than_any_wall_clock() {
        let mut clock = LogClock::default();
        let heard = Reading { estimate_ms: Some(7000), wall_ms: 1 };
        clock.begin_to_lead(at(0, 99_000), &[wall(99_000), heard], 6000);
        assert_eq!(clock.estimate_ms(at(0, 0)), Some(7000));
        clock.begin_to_lead(at(0, 0), &[heard], 8000);
        assert_eq!(clock.estimate_ms(at(0, 0)), Some(8000), "never below the last stamp");
    }

    #[test]
    fn a_jump_of_the_wall_clock_pulls_gently() {
        let mut clock = LogClock::default();
        clock.follow(at(0, 0), 10_000);
        for step in 1..=1000 {
            clock.pull(at(step, 1_000_000_000));
        }
        let after = clock.estimate_ms(at(1000, 0)).unwrap();
        assert_eq!(after, 11_005, "a second passed, and 5 ms were gained");
        for step in 1000..=2000 {
            clock.pull(at(step, 0));
        }
        assert_eq!(clock.estimate_ms(at(2000, 0)), Some(12_000), "and lost again");
    }

    #[test]
    fn it_never_goes_back() {
        let mut clock = LogClock::default();
        clock.follow(at(0, 0), 1000);
        clock.follow(at(500, 0), 1200);
        assert_eq!(clock.estimate_ms(at(500, 0)), Some(1500));
        assert_eq!(clock.estimate_ms(at(700, 0)), Some(1500), "it stands still");
        assert_eq!(clock.estimate_ms(at(900, 0)), Some(1600), "and goes on with the leader");
        clock.follow(at(900, 0), 2000);
        clock.follow(at(900, 0), 1500);
        assert_eq!(clock.estimate_ms(at(900, 0)), Some(2000));
        assert_eq!(clock.when(at(900, 0), 1600), Some(Time::from_millis(1000)));
        assert_eq!(clock.when(at(900, 0), 100), Some(Time::from_millis(900)), "now");
    }
}
