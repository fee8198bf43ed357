//! The settings of a core. Times and limits have their unit in their name or
//! their type.

use std::time::Duration;

use super::entry::NodeId;

/// How a leader convinces itself that it still leads before it serves a read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReadMode {
    /// By the promise its voters gave: no message per read. Assumes that clocks
    /// run within 10 % of each other and count every pause.
    #[default]
    Lease,
    /// By asking a quorum for every batch of reads. Assumes nothing.
    ReadIndex,
}

/// What one core is told at birth.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// Seeds every random choice of this process. Has to differ from process to
    /// process: it also numbers the reads, so that an answer meant for an
    /// earlier process means nothing to this one.
    pub seed: u64,
    /// How often a leader shows that it is there.
    pub heartbeat_interval: Duration,
    /// The shortest wait for a leader before standing for election.
    pub election_timeout_min: Duration,
    /// The longest; each wait is drawn between the two.
    pub election_timeout_max: Duration,
    /// How long a voter that has heard a leader refuses to elect another. A
    /// lease is nine tenths of it.
    pub promise: Duration,
    /// How reads are made safe.
    pub read_mode: ReadMode,
    /// The largest append message, one larger entry excepted.
    pub append_bytes: usize,
    /// How much may be on its way to one follower before it has said that it is
    /// durable there.
    pub inflight_bytes: usize,
    /// How much of what is applied and durable stays in memory for followers
    /// that lag a little.
    pub log_tail_bytes: usize,
    /// How much the leader's own disk may lag behind its log before it takes in
    /// no more and looks for a successor.
    pub disk_lag_bytes: usize,
}

impl Config {
    /// The defaults for a node.
    pub fn new(id: NodeId, seed: u64) -> Self {
        const MIB: usize = 1 << 20;
        Self {
            id,
            seed,
            heartbeat_interval: Duration::from_millis(50),
            election_timeout_min: Duration::from_millis(300),
            election_timeout_max: Duration::from_millis(600),
            promise: Duration::from_millis(300),
            read_mode: ReadMode::default(),
            append_bytes: MIB,
            inflight_bytes: 4 * MIB,
            log_tail_bytes: 16 * MIB,
            disk_lag_bytes: 64 * MIB,
        }
    }
}
