//! What comes out of the core, and the ways in which it says no.

use super::durability::Write;
use super::entry::{EntryId, Index, NodeId, SnapshotMeta};
use super::message::Envelope;

/// Entries that a follower needs and memory no longer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// For whom; to be given back with the entries.
    pub node: NodeId,
    /// The first one.
    pub from: Index,
    /// The last one wanted. All of them are committed, so an answer never gets
    /// wrong, however late.
    pub to: Index,
    /// How many bytes of them, one larger entry excepted.
    pub limit_bytes: usize,
}

/// What the core wants done. It is yours: nothing has to be handed back but the
/// completion of the write and of the fetches.
#[derive(Debug, Default)]
pub struct Ready {
    /// To be sent, in this order to each addressee; may be sent at once.
    pub messages: Vec<Envelope>,
    /// To be made durable, after every earlier one.
    pub write: Option<Write>,
    /// The state to take over from this installed snapshot, before anything else
    /// is applied.
    pub restore: Option<SnapshotMeta>,
    /// To be read from the journal.
    pub fetch: Vec<Fetch>,
    /// These need a snapshot: what they lack is no longer in the journal.
    pub snapshot_to: Vec<NodeId>,
}

/// A state in which a node must not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A leader's log and ours disagree about an entry committed here. One of
    /// the two has lost what it promised to keep.
    #[error("committed entry {ours} conflicts with the leader's {theirs}")]
    Diverged {
        /// Committed here.
        ours: EntryId,
        /// What a leader holds in its place.
        theirs: EntryId,
    },
}

/// Why a proposal was not taken in. It surely has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead.
    #[error("not the leader")]
    NotLeader,
    /// Leadership is being handed over; the next leader takes it.
    #[error("leadership is being handed over")]
    Transferring,
    /// The disk is full, and what was kept for such times is used up.
    #[error("the disk is full")]
    DiskFull,
    /// The disk cannot keep up.
    #[error("the disk does not keep up")]
    DiskLags,
    /// The log in memory has reached its limit: followers do not keep up.
    #[error("the log is full: followers do not keep up")]
    LogFull,
}
