//! What goes to the disk, and what came back from it.
//!
//! The log and the disk that lags behind it are two cursors. A node may say of
//! its log only what the smaller one covers; see the table in the module above.

use std::collections::VecDeque;

use super::entry::{Entry, HardState, Index, SnapshotMeta};
use super::time::Time;
use crate::mutants::{self, Mutant};

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

/// What was issued to the disk and what it has confirmed.
///
/// Invariants: `durable <= issued`; writes in flight are in order of issue, and
/// none vouches for an entry that has left the log since.
#[derive(Debug, Clone, Default)]
pub struct Durability {
    last_seq: WriteSeq,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    issued: Index,
    durable: Index,
    issued_state: HardState,
    durable_state: HardState,
}

#[derive(Debug, Clone)]
struct InFlight {
    seq: WriteSeq,
    hard_state: HardState,
    vouches: Index,
    bytes: usize,
    issued_at: Time,
}

impl Durability {
    /// Everything up to `last` was found on the disk.
    pub fn new(hard_state: HardState, last: Index) -> Self {
        Self {
            issued: last,
            durable: last,
            issued_state: hard_state,
            durable_state: hard_state,
            ..Self::default()
        }
    }

    /// The log up to here has been issued to the disk.
    pub fn issued(&self) -> Index {
        self.issued
    }

    /// The log up to here is on the disk.
    pub fn durable(&self) -> Index {
        self.durable
    }

    /// Whether term and vote of this state are on the disk.
    pub fn holds(&self, state: &HardState) -> bool {
        (self.durable_state.term, self.durable_state.vote) == (state.term, state.vote)
    }

    /// Whether term and vote of this state were issued to the disk.
    pub fn has_issued(&self, state: &HardState) -> bool {
        (self.issued_state.term, self.issued_state.vote) == (state.term, state.vote)
    }

    /// How many bytes the disk still owes.
    pub fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    /// Since when the disk has owed its oldest write.
    pub fn waiting_since(&self) -> Option<Time> {
        self.in_flight.front().map(|write| write.issued_at)
    }

    /// A write that takes the log up to `last` goes out.
    pub fn issue(&mut self, state: HardState, last: Index, bytes: usize, now: Time) -> WriteSeq {
        self.last_seq.0 += 1;
        self.issued = last;
        self.issued_state = state;
        self.in_flight_bytes += bytes;
        self.in_flight.push_back(InFlight {
            seq: self.last_seq,
            hard_state: state,
            vouches: last,
            bytes,
            issued_at: now,
        });
        self.last_seq
    }

    /// A write, and with it every earlier one, is durable.
    pub fn complete(&mut self, seq: WriteSeq) {
        while let Some(write) = self.in_flight.front()
            && write.seq <= seq
        {
            self.durable = self.durable.max(write.vouches);
            self.durable_state = write.hard_state;
            self.in_flight_bytes -= write.bytes;
            self.in_flight.pop_front();
        }
    }

    /// The log was cut after `index`: what is in flight beyond it was replaced,
    /// and its completion says nothing about what took its place.
    pub fn truncate_after(&mut self, index: Index) {
        self.issued = self.issued.min(index);
        self.durable = self.durable.min(index);
        if mutants::on(Mutant::LateCompletionVouches) {
            return;
        }
        for write in &mut self.in_flight {
            write.vouches = write.vouches.min(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(durability: &mut Durability, last: u64) -> WriteSeq {
        durability.issue(HardState::default(), Index(last), 0, Time::ZERO)
    }

    #[test]
    fn completion_covers_all_earlier_writes() {
        let mut durability = Durability::default();
        issue(&mut durability, 3);
        let second = issue(&mut durability, 5);
        durability.complete(second);
        assert_eq!(durability.durable(), Index(5));
        assert_eq!(durability.waiting_since(), None);
    }

    #[test]
    fn a_late_completion_does_not_vouch_for_what_was_replaced() {
        let mut durability = Durability::default();
        let old = issue(&mut durability, 9);
        durability.truncate_after(Index(4));
        let new = issue(&mut durability, 8);
        durability.complete(old);
        assert_eq!(durability.durable(), Index(4), "5 to 9 were replaced");
        durability.complete(new);
        assert_eq!(durability.durable(), Index(8));
    }

    #[test]
    fn a_vote_is_durable_when_its_write_is() {
        let mut durability = Durability::default();
        let state = HardState { term: crate::raft::Term(2), ..HardState::default() };
        let seq = durability.issue(state, Index(0), 0, Time::ZERO);
        assert!(durability.has_issued(&state) && !durability.holds(&state));
        durability.complete(seq);
        assert!(durability.holds(&state));
    }
}
