//! The clocks of one machine, which run as they like within what the plan
//! allows.

use raftcache::raft::Time;
use raftcache::replica::Now;

/// Where wall clocks begin, milliseconds since 1970.
const WALL_MS: u64 = 1_700_000_000_000;

/// A million parts.
const PPM: i64 = 1_000_000;

/// A monotonic clock with a rate of its own, and a wall clock that jumps.
#[derive(Debug, Clone)]
pub struct Clock {
    /// How much faster than time the monotonic clock runs.
    drift_ppm: i64,
    began_us: u64,
    wall_offset_ms: i64,
    /// What the wall clock shows while it stands still.
    stuck_ms: Option<u64>,
}

impl Clock {
    /// A machine that was switched on `began_us` ago, and whose wall clock is off.
    pub fn new(drift_ppm: i64, began_us: u64, wall_offset_ms: i64) -> Self {
        Self { drift_ppm, began_us, wall_offset_ms, stuck_ms: None }
    }

    fn wall_ms(&self, now_us: u64) -> u64 {
        let wall_ms = (WALL_MS + now_us / 1000).saturating_add_signed(self.wall_offset_ms);
        self.stuck_ms.unwrap_or(wall_ms)
    }

    /// What both show at this moment.
    pub fn read(&self, now_us: u64) -> Now {
        let drift = i128::from(now_us) * i128::from(self.drift_ppm) / i128::from(PPM);
        let micros = self.began_us + (i128::from(now_us) + drift) as u64;
        Now { time: Time::from_micros(micros), wall_ms: self.wall_ms(now_us) }
    }

    /// The moment at which the monotonic clock shows this.
    pub fn moment_us(&self, time: Time) -> u64 {
        let since = i128::from(time.micros().saturating_sub(self.began_us));
        let rate = i128::from(PPM + self.drift_ppm);
        let moment = (since * i128::from(PPM) + rate - 1) / rate;
        u64::try_from(moment).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Sets the wall clock this much forward or back.
    pub fn jump(&mut self, by_ms: i64) {
        self.wall_offset_ms += by_ms;
    }

    /// Lets the wall clock stand still, or go on.
    pub fn stick(&mut self, now_us: u64) {
        self.stuck_ms = match self.stuck_ms {
            None => Some(self.wall_ms(now_us)),
            Some(_) => None,
        };
    }
}
