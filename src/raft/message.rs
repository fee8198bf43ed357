//! What nodes say to each other.
//!
//! Messages may be lost, doubled, late and out of order; each is written so
//! that a stale one can be told by its term and its numbers, and ignored.

use std::time::Duration;

use super::entry::{Entry, EntryId, Index, NodeId, Term};

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The sender.
    pub from: NodeId,
    /// The addressee.
    pub to: NodeId,
    /// The sender's current term.
    pub term: Term,
    /// What it says.
    pub message: Message,
}

impl Envelope {
    /// Whether every term and index is one that counting could have reached. A
    /// number near the end of its type would make the next one wrap around.
    pub fn is_sane(&self) -> bool {
        let ids = match &self.message {
            Message::PreVote(PreVote { next, last }) => [EntryId { term: *next, ..*last }, *last],
            Message::PreVoteResponse(PreVoteResponse { next, .. }) => {
                [EntryId { term: *next, index: Index(0) }; 2]
            }
            Message::RequestVote(RequestVote { last, .. }) => [*last; 2],
            Message::Append(Append { prev, entries, commit }) => {
                let last = entries.last().map_or(*prev, |entry| entry.id);
                [EntryId { index: prev.index.max(*commit), ..*prev }, last]
            }
            Message::AppendResponse(AppendResponse::Accepted { matched, received }) => {
                [*matched, *received].map(|index| EntryId { term: Term(0), index })
            }
            Message::AppendResponse(AppendResponse::Rejected { at, hint }) => {
                [EntryId { term: Term(0), index: *at }, *hint]
            }
            Message::Heartbeat(Heartbeat { commit: index, .. })
            | Message::ReadIndexResponse(ReadIndexResponse { index, .. }) => {
                [EntryId { term: Term(0), index: *index }; 2]
            }
            Message::HeartbeatResponse(HeartbeatResponse { received, durable, .. }) => {
                [*received, *durable].map(|index| EntryId { term: Term(0), index })
            }
            Message::VoteResponse(_)
            | Message::ReadIndex(_)
            | Message::TimeoutNow
            | Message::Outdated => [EntryId::ZERO; 2],
        };
        self.term.is_sane() && ids.iter().all(|id| id.term.is_sane() && id.index.is_sane())
    }
}

/// What is said. Requests first, each with its answers behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// "Would you elect me?" Changes nothing at either side.
    PreVote(PreVote),
    /// The answer to a pre-vote.
    PreVoteResponse(PreVoteResponse),
    /// "Elect me in this term." Sent once the sender's vote for itself is durable.
    RequestVote(RequestVote),
    /// The answer to a vote request; a yes once it is durable.
    VoteResponse(VoteResponse),
    /// A leader's entries, or the check that a follower's log continues one.
    Append(Append),
    /// The answer to an append.
    AppendResponse(AppendResponse),
    /// A leader is there.
    Heartbeat(Heartbeat),
    /// The answer to a heartbeat, given at once.
    HeartbeatResponse(HeartbeatResponse),
    /// A follower asks from which index on a read is fresh.
    ReadIndex(ReadIndex),
    /// The leader's answer, once it was confirmed as leader.
    ReadIndexResponse(ReadIndexResponse),
    /// The leader asks its addressee to stand for election at once.
    TimeoutNow,
    /// To a leader's message of an earlier term: the envelope's term is news.
    Outdated,
}

/// See [`Message::PreVote`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreVote {
    /// The term the sender would stand in: the one after its own.
    pub next: Term,
    /// The last entry of the sender's log.
    pub last: EntryId,
}

/// See [`Message::PreVoteResponse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreVoteResponse {
    /// The term that was asked for.
    pub next: Term,
    /// Whether the voter would vote for it.
    pub granted: bool,
}

/// See [`Message::RequestVote`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestVote {
    /// The last entry of the sender's log.
    pub last: EntryId,
    /// The leader itself asked for this election, so the voter's promise to
    /// that leader does not stand against it.
    pub transfer: bool,
}

/// See [`Message::VoteResponse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoteResponse {
    /// Whether the sender's vote of this term is the addressee's, for good.
    pub granted: bool,
}

/// See [`Message::Append`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The entry before the first one here; the follower must hold it.
    pub prev: EntryId,
    /// Consecutive entries after `prev`, possibly none.
    pub entries: Vec<Entry>,
    /// The leader's commit index.
    pub commit: Index,
}

/// See [`Message::AppendResponse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendResponse {
    /// The follower's log agrees with the leader's.
    Accepted {
        /// Up to here it agrees and is on the follower's disk.
        matched: Index,
        /// Up to here it agrees; vouches for nothing.
        received: Index,
    },
    /// The follower does not hold `prev`.
    Rejected {
        /// The index of the `prev` that was refused.
        at: Index,
        /// The follower's last entry that could still agree: not after `at`,
        /// and not of a later term than `prev`.
        hint: EntryId,
    },
}

/// See [`Message::Heartbeat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Numbers the leader's heartbeats within its term. The echo confirms that
    /// it still led when this one was sent.
    pub round: u64,
    /// The leader's commit index.
    pub commit: Index,
    /// How long the receiver shall elect nobody else.
    pub promise: Duration,
}

/// See [`Message::HeartbeatResponse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatResponse {
    /// The round of the heartbeat.
    pub round: u64,
    /// Up to here the log agrees with this leader's and is on the disk: what an
    /// accepted append says, once more in case that was lost.
    pub matched: Index,
    /// Up to here the log is known to agree with this leader's.
    pub received: Index,
    /// Up to here the log is on the disk, agreeing or not.
    pub durable: Index,
    /// Whether the disk has room for more than the log's own upkeep.
    pub room: bool,
    /// Whether the state can be trusted; if not, this node stores and votes,
    /// and must not lead.
    pub serves: bool,
}

/// See [`Message::ReadIndex`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadIndex {
    /// The last read that asks; those before it are served by the same answer.
    pub id: ReadId,
}

/// See [`Message::ReadIndexResponse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadIndexResponse {
    /// The read that asked.
    pub id: ReadId,
    /// What has to be applied before it may be served.
    pub index: Index,
}

/// Numbers the reads of one process, from a random start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadId(pub u64);
