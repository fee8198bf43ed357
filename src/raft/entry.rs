//! What the log is made of: ids, entries, and what a node must not forget.
//!
//! Entries, hard state and snapshot metadata have one byte encoding, used by
//! the journal and between nodes alike (little-endian, lengths are u32):
//!
//! ```text
//! entry     | term u64 | index u64 | kind u8 | length u32 | payload … |
//!             kind 0: no-op (length 0)   1: command   2: membership
//! hard      | term u64 | voted u8 | vote u128 | commit u64 |
//! snapshot  | term u64 | index u64 | membership … |
//! ```

use std::fmt;

use bytes::{BufMut, Bytes};

use super::membership::Membership;
use crate::encoding::{Malformed, Reader, put_bytes};

/// A node's identity: the random number its data directory was born with.
///
/// A name can be given to another machine; an identity is never reused, so
/// nothing that one disk promised can be held against, or claimed by, another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u128);

impl fmt::Display for NodeId {
    /// `n7` for the small numbers that tests use, else the leading hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1000 { write!(f, "n{}", self.0) } else { write!(f, "{:08x}", self.0 >> 96) }
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A cluster's identity, random, from the node that bootstrapped it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A term of office; at most one leader each.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// No cluster counts this far; what does not come from counting is no number of
/// ours, and arithmetic on it could wrap around.
const BEYOND_COUNTING: u64 = 1 << 62;

impl Term {
    /// Whether counting could have reached it.
    pub fn is_sane(self) -> bool {
        self.0 < BEYOND_COUNTING
    }

    /// The term after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

/// A position in the log, from 1; 0 is before the first entry.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u64);

impl Index {
    /// Whether counting could have reached it.
    pub fn is_sane(self) -> bool {
        self.0 < BEYOND_COUNTING
    }

    /// The position after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The position before this one; of 0 it is 0.
    pub fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}", self.0)
    }
}

/// Names one entry in all of history: no two entries share it.
///
/// The derived order compares terms first, which *is* the rule by which voters
/// judge whose log is more up to date (Raft paper, section 5.4.1).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The term of the leader that created it.
    pub term: Term,
    /// Its position.
    pub index: Index,
}

impl EntryId {
    /// Before the first entry.
    pub const ZERO: Self = Self { term: Term(0), index: Index(0) };

    /// Shorthand for traces and tests.
    pub fn new(term: u64, index: u64) -> Self {
        Self { term: Term(term), index: Index(index) }
    }
}

impl fmt::Display for EntryId {
    /// `index@term`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an entry carries.
#[derive(Clone, PartialEq, Eq)]
pub enum Payload {
    /// Nothing: what a new leader commits to learn what is committed.
    Noop,
    /// Bytes for the state machine; consensus does not look into them.
    Command(Bytes),
    /// A configuration, in force from the moment it is appended.
    Membership(Membership),
}

impl Payload {
    /// About how many bytes it occupies in memory and on a wire.
    pub fn size(&self) -> usize {
        match self {
            Self::Noop => 0,
            Self::Command(bytes) => bytes.len(),
            Self::Membership(membership) => membership.size(),
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Noop => f.write_str("noop"),
            Self::Command(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) if text.len() <= 16 => write!(f, "{text:?}"),
                _ => write!(f, "{} bytes", bytes.len()),
            },
            Self::Membership(membership) => write!(f, "{membership}"),
        }
    }
}

/// One position of the log.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which.
    pub id: EntryId,
    /// What.
    pub payload: Payload,
}

impl Entry {
    /// The bytes that every entry takes besides its payload.
    pub const OVERHEAD: usize = 8 + 8 + 1 + 4;

    /// About how many bytes it occupies in memory and on a wire.
    pub fn size(&self) -> usize {
        Self::OVERHEAD + self.payload.size()
    }

    /// Appends the encoding drawn above.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        buffer.put_u64_le(self.id.term.0);
        buffer.put_u64_le(self.id.index.0);
        match &self.payload {
            Payload::Noop => {
                buffer.put_u8(0);
                buffer.put_u32_le(0);
            }
            Payload::Command(bytes) => {
                buffer.put_u8(1);
                put_bytes(buffer, bytes);
            }
            Payload::Membership(membership) => {
                buffer.put_u8(2);
                let mut bytes = Vec::new();
                membership.encode(&mut bytes);
                put_bytes(buffer, &bytes);
            }
        }
    }

    /// Reads one entry; a command shares the reader's memory.
    pub fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        let id = decode_id(reader)?;
        let kind = reader.u8()?;
        let bytes = reader.bytes()?;
        let payload = match kind {
            0 if bytes.is_empty() => Payload::Noop,
            0 => return Err(Malformed("a no-op with a payload")),
            1 => Payload::Command(bytes),
            2 => {
                let mut inner = Reader::new(bytes);
                let membership = Membership::decode(&mut inner)?;
                inner.finish()?;
                Payload::Membership(membership)
            }
            _ => return Err(Malformed("unknown kind of entry")),
        };
        Ok(Self { id, payload })
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:?}", self.id, self.payload)
    }
}

/// What a node must not forget across a crash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term this node has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// Known to be committed when this was written. A hint that makes a restart
    /// quick: it is true, but it may be old, and nothing is owed on it.
    pub commit: Index,
}

impl HardState {
    /// Appends the encoding drawn above.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        buffer.put_u64_le(self.term.0);
        buffer.put_u8(u8::from(self.vote.is_some()));
        buffer.put_u128_le(self.vote.map_or(0, |node| node.0));
        buffer.put_u64_le(self.commit.0);
    }

    /// Reads what [`HardState::encode`] wrote.
    pub fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        let term = Term(reader.u64()?);
        let voted = reader.bool()?;
        let node = NodeId(reader.u128()?);
        let commit = Index(reader.u64()?);
        Ok(Self { term, vote: voted.then_some(node), commit })
    }
}

/// What consensus has to know of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry whose effect it contains.
    pub last: EntryId,
    /// The configuration in force at that entry.
    pub membership: Membership,
}

impl SnapshotMeta {
    /// Appends the encoding drawn above.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        encode_id(self.last, buffer);
        self.membership.encode(buffer);
    }

    /// Reads what [`SnapshotMeta::encode`] wrote.
    pub fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        let last = decode_id(reader)?;
        let membership = Membership::decode(reader)?;
        Ok(Self { last, membership })
    }
}

/// Appends term and index.
pub fn encode_id(id: EntryId, buffer: &mut Vec<u8>) {
    buffer.put_u64_le(id.term.0);
    buffer.put_u64_le(id.index.0);
}

/// Reads what [`encode_id`] wrote.
pub fn decode_id(reader: &mut Reader) -> Result<EntryId, Malformed> {
    Ok(EntryId { term: Term(reader.u64()?), index: Index(reader.u64()?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::membership::Member;

    #[test]
    fn the_order_of_ids_is_the_vote_rule() {
        assert!(EntryId::new(2, 1) > EntryId::new(1, 9), "a later term wins");
        assert!(EntryId::new(2, 3) > EntryId::new(2, 2), "then the longer log");
    }

    #[test]
    fn entries_survive_their_encoding() {
        let mut membership = Membership::default();
        membership.insert(NodeId(7), Member::test("a", true));
        let payloads = [
            Payload::Noop,
            Payload::Command(Bytes::from_static(b"x")),
            Payload::Membership(membership.clone()),
        ];
        for payload in payloads {
            let entry = Entry { id: EntryId::new(3, 4), payload };
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            let mut reader = Reader::new(bytes.into());
            assert_eq!(Entry::decode(&mut reader), Ok(entry));
            reader.finish().unwrap();
        }
        let meta = SnapshotMeta { last: EntryId::new(1, 2), membership };
        let mut bytes = Vec::new();
        meta.encode(&mut bytes);
        assert_eq!(SnapshotMeta::decode(&mut Reader::new(bytes.into())), Ok(meta));
    }

    #[test]
    fn hard_state_tells_no_vote_from_a_vote_for_zero() {
        for vote in [None, Some(NodeId(0)), Some(NodeId(u128::MAX))] {
            let state = HardState { term: Term(5), vote, commit: Index(9) };
            let mut bytes = Vec::new();
            state.encode(&mut bytes);
            assert_eq!(HardState::decode(&mut Reader::new(bytes.into())), Ok(state));
        }
    }
}
