//! What nodes say to each other, byte by byte.
//!
//! A connection between nodes carries frames one way, from the node that dialled
//! to the one that accepted. It opens with a [`Hello`], which says whose it is
//! and for whom, and is answered once, with a [`Welcome`] or a refusal. A hello
//! without an addressee is a probe: it only asks who is there.
//!
//! ```text
//!  0          8         10        12        16
//!  ├──────────┼─────────┼─────────┼─────────┼──────── body ───────
//!  │"RAFTPEER"│ version │ length  │ crc     │ …
//!  │"RAFTHERE"│ u16 = 1 │ u16     │ u32     │
//!  ├──────────┴─────────┴─────────┴─────────┴─────────────────────
//!
//!  hello      class u8 | options u8 | cluster u128 | node u128 | to u128
//!             | name | client address | peer address
//!             class: 0 urgent  1 entries  2 snapshot
//!  welcome    0 | options u8 | cluster u128 | node u128 | name | client address
//!  refused    1 foreign cluster, theirs u128    3 unknown version
//!             2 wrong addressee, theirs u128    4 too many connections
//!                                               5 the hello names no cluster
//!  options    1 cluster is there   2 rebuild   4 to is there (absent ones are 0)
//!             8 a committed entry has made it a member
//! ```
//!
//! The first sixteen bytes stay as they are in every version, so that a node of
//! another one can be told so. After a welcome only frames follow:
//!
//! ```text
//!  0         4         8     9
//!  ├─────────┼─────────┼─────┼──── length - 1 bytes ────
//!  │ length  │ crc     │kind │ payload …
//!  │ u32     │ u32     │ u8  │
//!  ├─────────┴─────────┴─────┴──────────────────────────
//!
//!  kind   1–12  consensus: term u64 | clock | …
//!         1 pre-vote            next u64, last id
//!         2 pre-vote response   next u64, granted u8
//!         3 request vote        last id, transfer u8
//!         4 vote response       granted u8
//!         5 append              prev id, commit u64, entries u32, entry …
//!         6 append response     0, matched u64, received u64 | 1, at u64, hint id
//!         7 heartbeat           round u64, commit u64, promise in µs u64
//!         8 heartbeat response  round u64, matched u64, received u64, durable u64,
//!                               room u8, serves u8
//!         9 read index          id u64
//!        10 read index response id u64, index u64
//!        11 timeout now        12 outdated
//!        32 forward             id u64, term u64, timeout in µs u64, connection u64, request
//!        33 forwarded           id u64, applied id, reply
//!        48 snapshot offer      last id, size u64
//!        49 snapshot request    last id, offset u64
//!        50 snapshot chunk      last id, offset u64, length u32, bytes …
//!        51 snapshot wanted     since u64
//!        64 state, ask          index u64, 0
//!        65 state, answer       index u64, 0 | 1, hash u64
//!        66 state, verdict      index u64, 0 | 1, hash u64
//!  clock  0 | 1, wall ms u64 | 2, estimate ms u64, wall ms u64
//!  id     term u64 | index u64
//! ```
//!
//! Entries are those of the journal ([`Entry`](crate::raft::Entry)), requests and
//! replies are [our own words](crate::request::bytes). The checksum covers kind
//! and payload, and starts from the cluster, sender, addressee and group of its
//! connection ([`Ends`]): a frame that strays into another connection does not
//! pass, although no frame carries those ids.
//!
//! Whatever arrives is foreign. A length is checked against the limit and the
//! checksum against the bytes before anything is decoded, a count against the
//! bytes that are there, and a term or index beyond 2^62 is refused, so that the
//! arithmetic of consensus has room. Any error ends the connection, and only it.

mod frames;
mod handshake;
#[cfg(test)]
mod tests;

pub use frames::{Ends, FRAME_HEAD_BYTES, decode_frame, encode_frame};
pub use handshake::{Hello, Refusal, Welcome};

use crate::encoding::Malformed;
use crate::raft::Message;
use crate::replica::PeerMessage;

/// The version of everything above.
pub const VERSION: u16 = 1;

/// Which of the connections between two nodes this is. They are apart so that
/// what is small and urgent never waits behind what is large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkClass {
    /// Heartbeats, votes, acknowledgements, read indexes.
    Urgent,
    /// Entries and forwarded requests.
    Entries,
    /// A snapshot.
    Snapshot,
}

impl LinkClass {
    /// On which link a message goes.
    pub fn of(message: &PeerMessage) -> Self {
        match message {
            PeerMessage::Raft { envelope, .. } => match envelope.message {
                Message::Append(_) => Self::Entries,
                _ => Self::Urgent,
            },
            PeerMessage::Forward(_) | PeerMessage::Forwarded { .. } => Self::Entries,
            PeerMessage::Snapshot(_) => Self::Snapshot,
            PeerMessage::State(_) => Self::Urgent,
        }
    }
}

/// Why a connection has to end: from here on its bytes have no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The first bytes are nobody's who knows this protocol.
    #[error("this is no node speaking to another")]
    Stranger,
    /// A node of another time.
    #[error("version {0} of the peer protocol is unknown here")]
    OtherVersion(u16),
    /// A length that nothing may have.
    #[error("a frame of {size} bytes is over the limit of {limit}")]
    OverLimit {
        /// What was declared.
        size: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The bytes were damaged, or meant for another connection.
    #[error("the checksum is wrong")]
    Checksum,
    /// The fields do not fill their frame, or hold what the format does not know.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}
