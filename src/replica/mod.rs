//! A replica: consensus, the state machine, and the requests that wait.
//!
//! [`Replica`] takes [`Input`]s and gives out [`Effects`]; it knows no socket,
//! no disk and no clock. [`driver::Driver`] runs it in turns: take all that has
//! arrived, then read the clock, then judge. A server and a simulator drive it
//! the same way.
//!
//! ```text
//!  clients --Request--> +---------+ --Envelope--> peers
//!          <--Reply---- | Replica | <--Envelope--
//!                       +---------+ ---Write----> disk
//!                                   <--Durable---
//! ```
//!
//! # Order
//!
//! The requests of one connection take effect in the order in which they were
//! sent. A read waits for the write before it. A write does not wait for the
//! read before it: its entry can only be committed if this node led after that
//! read had arrived, so just before it is applied those reads are served.
//!
//! # Outcomes
//!
//! A write is answered when its entry is applied. If another entry took its
//! place it surely had no effect. If its time is over first, nobody knows, and
//! that is what the client is told; nothing is ever tried again silently.
//!
//! # The files
//!
//! | file | what |
//! |---|---|
//! | [`driver`] | one turn |
//! | [`replica`](mod@replica) | what has happened in, what is to be done out |
//! | `serving` | entries applied, reads served |
//! | `requests` | requests on their way in: answered, proposed, or sent on |
//! | [`pending`] | who waits for what, until when |
//! | [`forward`] | a request to the leader, and its answer back |
//! | [`snapshots`] | taking our own, sending one, taking one in |
//! | [`admin`] | joining, leaving, handing over |
//! | [`waits`] | until more disks than a majority hold what was written |
//! | [`eviction`], [`usage`] | which keys make way when memory is full |
//! | [`agreement`] | whether all replicas hold the same state |
//! | [`clock`] | log time |
//! | `status` | how a replica is, for people |

pub mod admin;
pub mod agreement;
pub mod clock;
pub mod driver;
pub mod eviction;
pub mod forward;
pub mod pending;
#[expect(clippy::module_inception, reason = "the replica itself is what the module is named for")]
pub mod replica;
mod requests;
mod serving;
pub mod snapshots;
mod status;
pub mod usage;
pub mod waits;

use std::time::Duration;

pub use agreement::StateMessage;
pub use clock::Now;
pub use driver::Driver;
pub use pending::Ticket;
pub use replica::Replica;
pub use snapshots::{SnapshotJob, SnapshotMessage, SnapshotReport};
pub use status::Counts;

use crate::raft::{
    ClusterId, Entry, EntryId, Envelope, Fetch, Index, NodeId, Term, Time, Write, WriteSeq,
};
use crate::request::{MemoryLimit, Reply, Request};
use clock::Reading;

/// The settings of a replica.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node's name.
    pub name: String,
    /// Its cluster, once it belongs to one.
    pub cluster: Option<ClusterId>,
    /// How long a request may wait before it is answered with what is known.
    pub request_timeout: Duration,
    /// When the journal behind the last snapshot is larger than this, and than
    /// that snapshot, a new one is taken.
    pub snapshot_log_bytes: u64,
    /// How many keys one turn visits for a snapshot.
    pub snapshot_piece_keys: usize,
    /// How many such pieces may be on their way to the file.
    pub snapshot_pieces_under_way: usize,
    /// How many requests may wait.
    pub waiting_requests: usize,
    /// How many bytes of writes may be in the log and not yet applied.
    pub waiting_bytes: usize,
    /// How large the data set may grow while this node leads.
    pub memory: MemoryLimit,
}

impl Config {
    /// The defaults, for a data set of this size.
    pub fn new(name: impl Into<String>, memory_limit_bytes: u64) -> Self {
        Self {
            name: name.into(),
            cluster: None,
            request_timeout: Duration::from_secs(3),
            snapshot_log_bytes: 64 << 20,
            snapshot_piece_keys: 1024,
            snapshot_pieces_under_way: 8,
            waiting_requests: 200_000,
            waiting_bytes: 64 << 20,
            memory: MemoryLimit { bytes: memory_limit_bytes, ..MemoryLimit::default() },
        }
    }
}

/// Something has happened.
#[derive(Debug)]
pub enum Input {
    /// A client asks.
    Request {
        /// To be given back with the reply. Numbers of one connection increase.
        ticket: Ticket,
        /// What.
        request: Request,
    },
    /// A connection is closed; its requests take their course unanswered.
    Gone {
        /// Which.
        connection: u64,
    },
    /// A peer speaks.
    Peer {
        /// Who, as its link has proved.
        from: NodeId,
        /// What.
        message: PeerMessage,
    },
    /// What was on its way to this peer is lost.
    LinkLost(NodeId),
    /// The disk has made a write durable, and all before it.
    Durable {
        /// Which.
        seq: WriteSeq,
        /// Bytes of journal since the last snapshot.
        log_bytes: u64,
        /// How many bytes of entries it has room for; `u64::MAX` unless it is
        /// full.
        room_bytes: u64,
    },
    /// The journal has become smaller, or has found or lost room.
    Journal {
        /// Bytes of journal since the last snapshot.
        log_bytes: u64,
        /// How many bytes of entries it has room for; `u64::MAX` unless it is
        /// full.
        room_bytes: u64,
    },
    /// The journal has answered a fetch; `None`: it no longer holds that.
    Fetched {
        /// Which.
        fetch: Fetch,
        /// The entry before, and the entries.
        read: Option<(EntryId, Vec<Entry>)>,
    },
    /// A [`Probe`] has ended.
    Probed {
        /// Which.
        id: u64,
        /// Who is there, or why nobody could be reached.
        found: Result<Peer, String>,
    },
    /// This node, which had not joined a cluster, belongs to this one now.
    Adopted(ClusterId),
    /// A [`SnapshotJob`] has come to something.
    Snapshot(SnapshotReport),
    /// The data set may grow as large as this from now on.
    Memory(MemoryLimit),
    /// The process is to end: take in no more writes.
    Stop,
}

/// What replicas say to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerMessage {
    /// Consensus, and with some messages what the sender knows of log time.
    Raft {
        /// What.
        envelope: Envelope,
        /// With heartbeats, read indexes and granted votes.
        clock: Option<Reading>,
    },
    /// About a snapshot, on a link of its own.
    Snapshot(SnapshotMessage),
    /// About the hash of a state.
    State(StateMessage),
    /// A request for the leader, from a node whose client asked it. It is never
    /// forwarded a second time.
    Forward(Forward),
    /// The answer to a forwarded request.
    Forwarded {
        /// Which.
        id: u64,
        /// What the leader says.
        answer: Answered,
    },
}

/// See [`PeerMessage::Forwarded`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The answer.
    pub reply: Reply,
    /// What the leader had applied when it gave it: whoever reads its own write
    /// elsewhere has to wait for this.
    pub applied: EntryId,
}

/// See [`PeerMessage::Forward`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// To be given back with the answer.
    pub id: u64,
    /// The term in which the addressee is thought to lead. In any other one the
    /// request is refused, having had no effect.
    pub term: Term,
    /// How long the client still waits.
    pub timeout: Duration,
    /// The connection at the sender; its requests take effect in order.
    pub connection: u64,
    /// What is asked.
    pub request: Request,
}

/// A node that was found at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its identity.
    pub node: NodeId,
    /// Its cluster, if it belongs to one.
    pub cluster: Option<ClusterId>,
    /// Its name.
    pub name: String,
    /// Where clients reach it.
    pub client_address: String,
    /// Whether it was started to take the place of a lost node of its name.
    pub rebuild: bool,
    /// Whether an entry that it knows to be committed has made it a member.
    pub member: bool,
}

/// Find out who is at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// To be given back.
    pub id: u64,
    /// `host:port` of a peer listener.
    pub address: String,
}

/// What is to be done. Nothing of it has to be acknowledged but the write.
#[derive(Debug, Default)]
pub struct Effects {
    /// To clients.
    pub replies: Vec<(Ticket, Reply)>,
    /// To peers, in this order to each. What cannot be sent is dropped, and
    /// [`Input::LinkLost`] says so.
    pub messages: Vec<(NodeId, PeerMessage)>,
    /// Everybody this node may have to speak to, and where, if that has changed.
    pub peers: Option<Vec<(NodeId, String)>>,
    /// Find out who is there.
    pub probes: Vec<Probe>,
    /// To the disk, after every earlier one.
    pub write: Option<Write>,
    /// To be read from the journal.
    pub fetch: Vec<Fetch>,
    /// To be done with snapshot files, in this order after every earlier one.
    pub snapshots: Vec<SnapshotJob>,
    /// A snapshot of ours is durable: the journal may forget what it covers.
    pub snapshot_taken: Option<EntryId>,
    /// What the journal has to keep whatever is covered; `None` for nothing.
    pub pinned: Option<Index>,
    /// When to take the next turn if nothing arrives.
    pub wake_at: Option<Time>,
    /// Everything that waited is answered, after [`Input::Stop`].
    pub drained: bool,
    /// A committed entry has removed this node from its cluster.
    pub removed: bool,
    /// Of the entries proposed here that were applied in this turn, how long the
    /// slowest took; for those who watch.
    pub committed_after: Option<Duration>,
    /// This node must not go on; for the operator.
    pub fault: Option<String>,
}
