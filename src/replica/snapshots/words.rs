//! What is said about snapshots: between nodes, to the files, and back.

use bytes::Bytes;

use crate::fsm::{Fsm, Piece, SnapshotHead};
use crate::raft::{EntryId, Index, NodeId, SnapshotMeta};

/// What nodes say to each other about a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotMessage {
    /// You need this one.
    Offer {
        /// Its last entry.
        last: EntryId,
        /// The size of its file.
        size_bytes: u64,
    },
    /// My state is not to be trusted: offer me yours, no older than this.
    Wanted {
        /// What I had applied.
        since: Index,
    },
    /// Send what follows.
    Request {
        /// Which snapshot.
        last: EntryId,
        /// From here on.
        offset: u64,
    },
    /// A part of the file.
    Chunk {
        /// Which snapshot.
        last: EntryId,
        /// Where it begins.
        offset: u64,
        /// What is there.
        bytes: Bytes,
    },
}

/// Something to be done with a file. In the order given.
#[derive(Debug)]
pub enum SnapshotJob {
    /// Begin our own.
    Begin {
        /// What consensus knows of it.
        meta: SnapshotMeta,
        /// What the state machine says first.
        head: Box<SnapshotHead>,
    },
    /// Some of its items.
    Piece(Piece),
    /// That was all; name it. The journal is durable up to here.
    Finish(Index),
    /// Give it up.
    Abandon,
    /// Read a part of one, to be sent.
    Read {
        /// For whom.
        to: NodeId,
        /// Which.
        last: EntryId,
        /// From where.
        offset: u64,
    },
    /// Nothing more is read for this node.
    Close(NodeId),
    /// Begin to take one in, or go on with it.
    Receive {
        /// Which.
        last: EntryId,
        /// How large it will be.
        size_bytes: u64,
        /// Go on with what is here of it already: it is from the same node. Two
        /// nodes' snapshots of one state have their items in different order.
        resume: bool,
    },
    /// A part of it; when it is whole, check and name it.
    Take {
        /// Which.
        last: EntryId,
        /// Where the part begins.
        offset: u64,
        /// The part.
        bytes: Bytes,
    },
    /// Free this, which takes a while.
    Drop(Box<Fsm>),
}

/// What became of a job.
#[derive(Debug)]
pub enum SnapshotReport {
    /// A piece of our own is in its file.
    PieceWritten,
    /// Our own is durable under its name.
    Written {
        /// Its last entry.
        last: EntryId,
        /// The size of its file.
        size_bytes: u64,
    },
    /// Our own came to nothing, for want of space.
    NotWritten,
    /// A part was read; `None`: that snapshot is gone.
    Read {
        /// For whom.
        to: NodeId,
        /// Which.
        last: EntryId,
        /// From where.
        offset: u64,
        /// What is there.
        bytes: Option<Bytes>,
    },
    /// So much of one that is being taken in is here.
    Received {
        /// Which.
        last: EntryId,
        /// The bytes from its beginning.
        bytes: u64,
    },
    /// One is here, whole, checked, durable and named.
    Complete {
        /// What consensus has to know.
        meta: SnapshotMeta,
        /// The size of its file.
        size_bytes: u64,
        /// The state it holds. Built before anything is given up for it: a file
        /// that nobody can make a state of must not replace a log.
        fsm: Box<Fsm>,
    },
    /// One that was being taken in turned out damaged, or there is no space.
    NotReceived(EntryId),
}

/// A snapshot file that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Available {
    /// Its last entry.
    pub last: EntryId,
    /// The size of its file.
    pub size_bytes: u64,
}
