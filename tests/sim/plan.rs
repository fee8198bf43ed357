//! What one seed is about. Each draws its own subset of what may go wrong and
//! its own rates: faults that always come together hide each other.

use raftcache::raft::ReadMode;
use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;

pub const MS: u64 = 1000;
pub const SECOND: u64 = 1_000_000;

/// How long faults go on.
pub const FAULTS_US: u64 = 50 * SECOND;

/// A slow peer is slower than others by this factor at most.
pub const SLOWEST: u64 = 40;

/// One thing that can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A node ends, with or without its machine.
    Crash,
    /// A node ends just after it has spoken, and loses what it had not synced;
    /// perhaps another one is cut off at that moment.
    CrashAfterSpeaking,
    /// There is an election, and who votes ends.
    DeadlyElection,
    /// One leader after the other ends, as it begins.
    Relay,
    /// The leader is cut off from some, and another bounces.
    Bounce,
    /// The leader's disk hangs while it is cut off.
    HungLeader,
    /// All nodes end at once.
    CrashAll,
    /// Nobody hears a node.
    Isolate,
    /// The nodes fall into two parts.
    Split,
    /// One direction between two nodes.
    OneWay,
    /// Two parts, and one node that hears both.
    Bridge,
    /// A node whose messages take long.
    SlowPeer,
    /// A disk that takes long.
    SlowDisk,
    /// A disk that does nothing for seconds.
    StalledDisk,
    /// A disk stalls, does what it has been told meanwhile, and the process ends
    /// before anybody hears of it.
    Laggard,
    /// A sync that fails.
    FailedSync,
    /// A disk without space.
    FullDisk,
    /// A file of a stopped node is not what it was.
    Damage,
    /// A wall clock is set.
    WallJump,
    /// A wall clock stands still, or goes on.
    WallStuck,
    /// A process stands still.
    Pause,
    /// The leader hears late what it is told, and is heard no more.
    Echo,
    /// Two nodes are added at once, and the leader is left with them.
    Twins,
    /// Two leaders change the members, each without the other.
    Schism,
    /// A leader is back with what it had begun, while another one holds what only it
    /// began in between: figure 8 of the Raft paper.
    Revenant,
    /// A node hears late that it has a snapshot, and another one leads meanwhile.
    Dawdle,
    /// Leadership is handed over.
    Transfer,
    /// A node is added, removed or replaced.
    Membership,
    /// A node comes back at another address.
    Readdress,
    /// A node comes back with an empty disk.
    EmptyDisk,
}

/// After these every process goes on, and knows what it knew.
const CALM: [Fault; 12] = [
    Fault::Isolate,
    Fault::Split,
    Fault::OneWay,
    Fault::Bridge,
    Fault::SlowPeer,
    Fault::SlowDisk,
    Fault::StalledDisk,
    Fault::FullDisk,
    Fault::Echo,
    Fault::Twins,
    Fault::Revenant,
    Fault::Transfer,
];

const FAULTS: [Fault; 30] = [
    Fault::Crash,
    Fault::CrashAfterSpeaking,
    Fault::DeadlyElection,
    Fault::Relay,
    Fault::Bounce,
    Fault::HungLeader,
    Fault::CrashAll,
    Fault::Isolate,
    Fault::Split,
    Fault::OneWay,
    Fault::Bridge,
    Fault::SlowPeer,
    Fault::SlowDisk,
    Fault::StalledDisk,
    Fault::Laggard,
    Fault::FailedSync,
    Fault::FullDisk,
    Fault::Damage,
    Fault::WallJump,
    Fault::WallStuck,
    Fault::Pause,
    Fault::Echo,
    Fault::Twins,
    Fault::Schism,
    Fault::Revenant,
    Fault::Dawdle,
    Fault::Transfer,
    Fault::Membership,
    Fault::Readdress,
    Fault::EmptyDisk,
];

/// Everything that is drawn once.
#[derive(Debug, Clone)]
pub struct Plan {
    pub nodes: usize,
    pub clients: usize,
    pub read_mode: ReadMode,
    /// The monotonic clocks differ by up to so much from time.
    pub drift_ppm: i64,
    /// The wall clocks are off by up to so much, besides all that happens to them.
    pub wall_off_ms: i64,
    pub heartbeat_ms: u64,
    pub snapshot_log_bytes: u64,
    pub snapshot_piece_keys: usize,
    pub snapshot_pieces_under_way: usize,
    /// Values are made longer by so much.
    pub padding_bytes: usize,
    pub segment_bytes: u64,
    pub chunk_bytes: usize,
    pub log_tail_bytes: usize,
    pub append_bytes: usize,
    pub disk_lag_bytes: usize,
    /// A message takes so long, at least and at most.
    pub delay_us: (u64, u64),
    /// Of a million messages.
    pub drop_ppm: u32,
    pub double_ppm: u32,
    pub corrupt_ppm: u32,
    /// Messages overtake each other on one link.
    pub reorder: bool,
    /// A sync takes so long, at least and at most.
    pub sync_us: (u64, u64),
    pub faults: Vec<Fault>,
    /// So long between two faults, at most.
    pub fault_every_ms: u64,
    /// So long until what can heal is healed, at most.
    pub heal_every_ms: u64,
    /// How long a client rests between two bursts, at most.
    pub rest_ms: u64,
}

impl Plan {
    /// Whether the clocks of people and of nodes go together, so that deadlines
    /// can be judged by time itself; and how far they may be off. Log time goes on
    /// from what a node was last told of it: if all who know better have ended
    /// meanwhile, it is late by as long as that had waited for a paused process.
    pub fn deadlines_within_us(&self) -> Option<u64> {
        let has = |fault| self.faults.contains(&fault);
        let blurs = [Fault::WallJump, Fault::WallStuck, Fault::Pause].into_iter().any(has);
        // Who starts with all others knows of time only what the wall clocks show.
        let is_calm = self.faults.iter().all(|fault| CALM.contains(fault));
        let walls = self.wall_off_ms < 100 || is_calm;
        let sane = self.read_mode == ReadMode::Lease && !blurs && walls;
        let run_us = 2 * FAULTS_US;
        let delay_us = self.delay_us.1 * if has(Fault::SlowPeer) { SLOWEST } else { 1 };
        sane.then(|| 2 * run_us / 1_000_000 * self.drift_ppm as u64 + delay_us + 600 * MS)
    }

    /// So long a follower that hears its leader elects no other.
    pub fn promise_ms(&self) -> u64 {
        self.heartbeat_ms * 6
    }

    /// So much may be on its way to one follower.
    pub fn inflight_bytes(&self) -> usize {
        (self.append_bytes * 4).max(8_000)
    }

    /// No node keeps more of the log in memory: what is kept of the old, what its disk
    /// may owe and a leader may leave uncommitted, what is on its way, a last entry.
    pub fn log_limit_bytes(&self) -> usize {
        self.log_tail_bytes + 2 * self.disk_lag_bytes + self.inflight_bytes() + 8_000
    }

    /// What this chance comes to.
    pub fn draw(chance: &mut Xoshiro256PlusPlus) -> Self {
        let read_mode =
            if chance.random_bool(0.35) { ReadMode::ReadIndex } else { ReadMode::Lease };
        let drift_ppm = match read_mode {
            // The margin is ten parts in a hundred between two clocks.
            ReadMode::Lease if chance.random_bool(0.5) => chance.random_range(0..1_000),
            ReadMode::Lease => 45_000,
            ReadMode::ReadIndex => 300_000,
        };
        let rate = |chance: &mut Xoshiro256PlusPlus, most: u32| {
            if chance.random_bool(0.5) { 0 } else { chance.random_range(0..=most) }
        };
        let slow = chance.random_bool(0.3);
        let small = chance.random_bool(0.7);
        let share = chance.random_range(0.2..0.7);
        let mut faults: Vec<Fault> =
            FAULTS.into_iter().filter(|_| chance.random_bool(share)).collect();
        let is_calm = chance.random_bool(0.2);
        if is_calm {
            faults.retain(|fault| CALM.contains(fault));
        }
        if faults.is_empty() {
            faults.push(Fault::Crash);
        }
        Self {
            nodes: chance.random_range(3..=5),
            clients: chance.random_range(5..=10),
            read_mode,
            drift_ppm,
            wall_off_ms: if is_calm || chance.random_bool(0.5) { 20_000 } else { 50 },
            heartbeat_ms: chance.random_range(50..=120),
            snapshot_log_bytes: if small { chance.random_range(2_000..20_000) } else { 200_000 },
            snapshot_piece_keys: chance.random_range(1..4),
            snapshot_pieces_under_way: chance.random_range(1..4),
            padding_bytes: if chance.random_bool(0.4) { chance.random_range(0..900) } else { 0 },
            segment_bytes: 1 << chance.random_range(15..=16),
            chunk_bytes: chance.random_range(100..2_000),
            log_tail_bytes: if small { chance.random_range(0..2_000) } else { 100_000 },
            append_bytes: if chance.random_bool(0.3) {
                150
            } else {
                chance.random_range(300..4_000)
            },
            disk_lag_bytes: chance.random_range(3_000..50_000),
            delay_us: if slow { (500, 30 * MS) } else { (50, 2 * MS) },
            drop_ppm: rate(chance, 50_000),
            double_ppm: rate(chance, 50_000),
            corrupt_ppm: rate(chance, 5_000),
            reorder: chance.random_bool(0.4),
            sync_us: if chance.random_bool(0.3) { (500, 30 * MS) } else { (80, 800) },
            faults,
            fault_every_ms: chance.random_range(800..5_000),
            heal_every_ms: chance.random_range(300..4_000),
            rest_ms: chance.random_range(500..4_000),
        }
    }
}
