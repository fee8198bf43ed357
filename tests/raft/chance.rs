//! What a seed means: which faults there are, how often, how bad.
//!
//! Every seed draws its own subset (swarm testing): a run with all faults at
//! once hides what only shows when a single one is at work for long.

use std::time::Duration;

use raftcache::raft::{Config, NodeId, ReadMode};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// Virtual time, in microseconds.
pub type Micros = u64;

/// One millisecond.
pub const MILLI: Micros = 1000;

/// A source of decisions.
pub struct Chance(Xoshiro256PlusPlus);

impl Chance {
    /// The decisions of this seed.
    pub fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// Anything between the two, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        self.0.random_range(least..=most)
    }

    /// True that often out of a thousand times.
    pub fn permille(&mut self, often: u64) -> bool {
        self.0.random_range(0..1000) < often
    }

    /// One of these, if there are any.
    pub fn one_of<T: Copy>(&mut self, these: &[T]) -> Option<T> {
        let place = self.0.random_range(0..these.len().max(1));
        these.get(place).copied()
    }

    /// Zero most of the time, else drawn: whether a fault exists in this run.
    fn perhaps(&mut self, least: u64, most: u64) -> u64 {
        if self.permille(450) { self.between(least, most) } else { 0 }
    }
}

/// Everything that a seed draws once. Rates are per thousand; intervals are in
/// milliseconds, zero for never.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Voters at the start.
    pub voters: u64,
    /// Learners at the start.
    pub learners: u64,
    /// Messages lost.
    pub lost: u64,
    /// Messages doubled.
    pub doubled: u64,
    /// The latest a message arrives; it may overtake others.
    pub latency: Micros,
    /// Messages that are very late.
    pub late: u64,
    /// Between partitions.
    pub partition_every: u64,
    /// Partitions may cut one direction only.
    pub one_way: bool,
    /// Between crashes of one node.
    pub crash_every: u64,
    /// Crashes right after a node has spoken.
    pub crash_after_speaking: u64,
    /// Between crashes of all.
    pub crash_all_every: u64,
    /// The longest a write takes.
    pub disk: Micros,
    /// Writes that take a hundred times as long.
    pub disk_stalls: u64,
    /// Between attempts to find a leader serving reads while another leads.
    pub ambush_every: u64,
    /// Crashed nodes are back before anybody has noticed.
    pub nimble: bool,
    /// Between pauses of one node.
    pub pause_every: u64,
    /// Clocks differ by as much as a lease tolerates.
    pub clocks_differ: bool,
    /// Between changes of the members.
    pub change_every: u64,
    /// Between handovers.
    pub transfer_every: u64,
    /// Between snapshots.
    pub compact_every: u64,
    /// Between the things clients want.
    pub client_every: u64,
    /// Turns are late, so that inputs gather.
    pub lazy: Micros,
    /// How long the faults last.
    pub length: Micros,
    tight: bool,
    read_mode: ReadMode,
}

impl Plan {
    /// What this seed means.
    pub fn draw(chance: &mut Chance) -> Self {
        Self {
            voters: chance.between(3, 5),
            learners: chance.perhaps(1, 1),
            lost: chance.perhaps(5, 200),
            doubled: chance.perhaps(5, 200),
            latency: chance.between(1, 40) * MILLI,
            late: chance.perhaps(1, 50),
            partition_every: chance.perhaps(300, 1500),
            one_way: chance.permille(500),
            crash_every: chance.perhaps(200, 1500),
            crash_after_speaking: chance.perhaps(1, 20),
            crash_all_every: chance.perhaps(1000, 3000),
            disk: chance.between(0, 20) * MILLI + 50,
            disk_stalls: chance.perhaps(1, 30),
            ambush_every: chance.perhaps(500, 1500),
            nimble: chance.permille(400),
            pause_every: chance.perhaps(300, 1500),
            clocks_differ: chance.permille(500),
            change_every: chance.perhaps(100, 800),
            transfer_every: chance.perhaps(200, 1000),
            compact_every: chance.perhaps(50, 400),
            client_every: chance.between(5, 40),
            lazy: chance.between(0, 3) * MILLI,
            length: chance.between(3000, 8000) * MILLI,
            tight: chance.permille(600),
            read_mode: if chance.permille(250) { ReadMode::ReadIndex } else { ReadMode::Lease },
        }
    }

    /// How many entries a node applies in one turn.
    pub fn applies(&self) -> usize {
        if self.tight { 2 } else { usize::MAX }
    }

    /// The settings of a node; tight ones fill every window and trim every log.
    pub fn config(&self, id: NodeId) -> Config {
        let mut config = Config::new(id, 0);
        config.read_mode = self.read_mode;
        if self.tight {
            config.append_bytes = 100;
            config.inflight_bytes = 200;
            config.log_tail_bytes = 150;
            config.disk_lag_bytes = 2000;
        }
        config
    }

    /// How long a fault lasts.
    pub fn spell(chance: &mut Chance) -> Micros {
        chance.between(50, 1500) * MILLI
    }
}

/// A clock that runs at a rate of its own from a moment of its own.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    offset: Micros,
    per_mille: u64,
}

impl Clock {
    /// Within 10 % of every other clock, from 95.3 % to 104.7 %.
    pub fn draw(chance: &mut Chance, differ: bool) -> Self {
        let per_mille = if differ { chance.between(953, 1047) } else { 1000 };
        Self { offset: chance.between(0, 10_000) * MILLI, per_mille }
    }

    /// What it shows.
    pub fn shows(&self, now: Micros) -> Duration {
        Duration::from_micros(self.offset + now * self.per_mille / 1000)
    }

    /// When it will show at least this.
    pub fn when(&self, shown: Micros) -> Micros {
        (shown.saturating_sub(self.offset)).saturating_mul(1000) / self.per_mille + 1
    }
}
