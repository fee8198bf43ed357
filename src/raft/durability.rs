//! What goes to the disk, and what came back from it.
//!
//! The log and the disk that lags behind it are two cursors. A node may say of
//! its log only what the smaller one covers; see the table in the module above.

use super::entry::{Entry, HardState, SnapshotMeta};

/// Numbers writes in the order they were issued, from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteSeq(pub u64);

/// What the journal is to make durable, in one piece.
///
/// Writes are carried out in order. When one is durable, so are all before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Which; to be given back when it is durable.
    pub seq: WriteSeq,
    /// Term and vote as of this write.
    pub hard_state: HardState,
    /// A snapshot from the leader, already durable as a file, that takes the
    /// place of everything up to its last entry. If the log holds that very
    /// entry its suffix stays, else the whole log goes.
    pub base: Option<SnapshotMeta>,
    /// Consecutive; the first one supersedes whatever the journal holds at its
    /// index and beyond.
    pub entries: Vec<Entry>,
}

/// What the journal held when the node started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Term, vote and a lower bound of the commit index.
    pub hard_state: HardState,
    /// The snapshot the log continues from; `None` if it starts at index 1.
    pub snapshot: Option<SnapshotMeta>,
    /// Everything after it, consecutive, all of it durable.
    pub entries: Vec<Entry>,
}
