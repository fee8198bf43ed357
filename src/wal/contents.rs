//! What the journal holds, without the entries themselves.
//!
//! Writing and recovering feed the same facts, in the same order, into one
//! [`Contents`], so both agree by construction on what a sequence of records
//! amounts to. It knows the term of every index (as the few places where the
//! term changes) and where entries are (as runs, one per 64 KiB or so):
//!
//! ```text
//!  runs        first 1            first 40     first 90
//!  index     1 ───────────────▶ 40 ─────────▶ 90 ────────▶ 120 = last
//!  records   [1 … 39]            [40 … 100]    [90 … 120]
//!                                       └─ 90 … 100 of this run superseded
//! ```
//!
//! Invariants: runs ascend and the first one starts at or before `first`;
//! entries `first ..= last.index` are all in the journal; a run's records are
//! consecutive, and count up to where the next run starts.

use std::collections::VecDeque;

use bytes::BufMut;

use crate::encoding::{Malformed, Reader};
use crate::raft::entry::{decode_id, encode_id};
use crate::raft::{EntryId, HardState, Index, Term};

/// The snapshots that are kept, by their last entries.
///
/// The log is unbroken from the older one on: that is what makes the older one
/// a way out when the newer one turns out to be damaged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// The one before; `None` also after a snapshot that replaced the log.
    pub previous: Option<EntryId>,
    /// The one to start from.
    pub newest: Option<EntryId>,
}

impl Kept {
    /// After one more snapshot of the same log.
    pub fn with(self, newest: EntryId) -> Self {
        // A state that proved wrong is replaced by one that may be older, and
        // is then the only one to go by.
        let previous = self.newest.filter(|before| before.index < newest.index);
        Self { previous, newest: Some(newest) }
    }

    /// Newest first.
    pub fn iter(self) -> impl Iterator<Item = EntryId> {
        self.newest.into_iter().chain(self.previous)
    }

    /// Appends previous and newest: present u8, term u64, index u64 each.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        for id in [self.previous, self.newest] {
            buffer.put_u8(u8::from(id.is_some()));
            encode_id(id.unwrap_or(EntryId::ZERO), buffer);
        }
    }

    /// Reads what [`Kept::encode`] wrote.
    pub fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        let mut id = || -> Result<Option<EntryId>, Malformed> {
            let present = reader.bool()?;
            let id = decode_id(reader)?;
            Ok(present.then_some(id))
        };
        Ok(Self { previous: id()?, newest: id()? })
    }
}

/// Consecutive entries in consecutive records of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Its first entry.
    pub first: Index,
    /// Where.
    pub segment: u64,
    /// Where its first record starts.
    pub start: u64,
    /// Where its last record ends.
    pub end: u64,
    /// How many bytes of entries came before it since the journal was opened.
    before: u64,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// As the last seal says.
    pub hard_state: HardState,
    /// The snapshots that must be there.
    pub kept: Kept,
    first: Index,
    last: EntryId,
    terms: VecDeque<EntryId>,
    runs: VecDeque<Run>,
    bytes: u64,
}

impl Contents {
    /// A longer run makes a reader skip more than it wants.
    const RUN_BYTES: u64 = 64 << 10;

    /// As a segment's header says it.
    pub fn new(hard_state: HardState, kept: Kept, last: EntryId) -> Self {
        Self { hard_state, kept, first: last.index.next(), last, ..Self::default() }
    }

    /// The first entry held, or the next one if none is.
    pub fn first(&self) -> Index {
        self.first
    }

    /// The last entry of the log.
    pub fn last(&self) -> EntryId {
        self.last
    }

    /// The term at an index, if that entry is held.
    pub fn term(&self, index: Index) -> Option<Term> {
        if index < self.first || index > self.last.index {
            return None;
        }
        let after = self.terms.partition_point(|id| id.index <= index);
        Some(self.terms[after.checked_sub(1)?].term)
    }

    /// Whether the log holds this very entry, or starts right behind it.
    pub fn holds(&self, id: EntryId) -> bool {
        let follows = id.index.next() == self.first && self.kept.newest == Some(id);
        id == self.last || follows || self.term(id.index) == Some(id.term)
    }

    /// Whether the log goes at least up to this entry, and does not contradict it.
    pub fn covers(&self, id: EntryId) -> bool {
        id.index <= self.last.index && self.term(id.index).is_none_or(|term| term == id.term)
    }

    /// An entry that supersedes whatever was held at its index and behind.
    ///
    /// Fails if it leaves a gap.
    pub fn entry(
        &mut self,
        id: EntryId,
        segment: u64,
        span: std::ops::Range<u64>,
    ) -> Result<(), Malformed> {
        if id.index == Index(0) || id.index > self.last.index.next() {
            return Err(Malformed("an entry is missing before this one"));
        }
        let follows = id.index == self.last.index.next();
        self.truncate(id.index);
        if self.terms.back().is_none_or(|last| last.term != id.term) {
            self.terms.push_back(id);
        }
        self.last = id;
        match self.runs.back_mut() {
            Some(run)
                if follows
                    && run.segment == segment
                    && span.start - run.start < Self::RUN_BYTES =>
            {
                run.end = span.end;
            }
            _ => self.runs.push_back(Run {
                first: id.index,
                segment,
                start: span.start,
                end: span.end,
                before: self.bytes,
            }),
        }
        self.bytes += span.end - span.start;
        Ok(())
    }

    fn truncate(&mut self, from: Index) {
        while self.terms.back().is_some_and(|id| id.index >= from) {
            self.terms.pop_back();
        }
        while self.runs.back().is_some_and(|run| run.first >= from) {
            self.runs.pop_back();
        }
        self.first = self.first.min(from);
    }

    /// A snapshot takes the place of the whole log.
    pub fn restart(&mut self, last: EntryId) {
        let kept = Kept { previous: None, newest: Some(last) };
        let bytes = self.bytes;
        *self = Self { bytes, ..Self::new(self.hard_state, kept, last) };
    }

    /// Entries up to here may go. Without an older snapshot the fallback is the
    /// log from its beginning, so none may.
    pub fn covered(&self) -> Index {
        self.kept.previous.map_or(self.first.prev(), |previous| previous.index)
    }

    /// Entries before `first` can no longer be read.
    pub fn compact(&mut self, first: Index) {
        self.first = self.first.max(first);
        while self.runs.get(1).is_some_and(|run| run.first <= self.first) {
            self.runs.pop_front();
        }
        while self.terms.get(1).is_some_and(|id| id.index <= self.first) {
            self.terms.pop_front();
        }
    }

    /// The run that holds an entry, and the index it counts up to.
    pub fn run(&self, index: Index) -> Option<(Run, Index)> {
        let after = self.runs.partition_point(|run| run.first <= index);
        let run = *self.runs.get(after.checked_sub(1)?)?;
        let end = self.runs.get(after).map_or(self.last.index.next(), |next| next.first);
        (index < end).then_some((run, end))
    }

    /// About how many bytes of entries there are behind an index.
    pub fn bytes_after(&self, index: Index) -> u64 {
        self.run(index.next().max(self.first)).map_or(0, |(run, _)| self.bytes - run.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Contents {
        let mut contents = Contents::new(HardState::default(), Kept::default(), EntryId::ZERO);
        for index in 1..=6 {
            let term = if index < 4 { 1 } else { 2 };
            contents.entry(EntryId::new(term, index), 1, index * 100..index * 100 + 100).unwrap();
        }
        contents
    }

    #[test]
    fn an_entry_supersedes_what_is_at_and_behind_it() {
        let mut contents = contents();
        assert!(contents.holds(EntryId::new(2, 4)));
        contents.entry(EntryId::new(3, 3), 1, 700..800).unwrap();
        assert_eq!(contents.last(), EntryId::new(3, 3));
        assert!(!contents.holds(EntryId::new(2, 4)) && contents.holds(EntryId::new(1, 2)));
        let (run, end) = contents.run(Index(2)).unwrap();
        assert_eq!((run.start, end), (100, Index(3)), "the old run counts up to the new one");
        assert_eq!(contents.run(Index(3)).unwrap().0.start, 700);
        assert_eq!(contents.run(Index(4)), None);
    }

    #[test]
    fn a_gap_is_refused() {
        assert!(contents().entry(EntryId::new(2, 8), 1, 0..1).is_err());
        assert!(contents().entry(EntryId::new(2, 0), 1, 0..1).is_err());
    }

    #[test]
    fn a_log_holds_the_entry_it_follows() {
        let mut contents = contents();
        contents.restart(EntryId::new(5, 90));
        assert_eq!((contents.first(), contents.last()), (Index(91), EntryId::new(5, 90)));
        assert!(contents.holds(EntryId::new(5, 90)) && !contents.holds(EntryId::new(4, 90)));
        contents.entry(EntryId::new(5, 91), 2, 0..10).unwrap();
        assert_eq!(contents.term(Index(91)), Some(Term(5)));
        assert_eq!(contents.bytes_after(Index(90)), 10);
        // The same snapshot again, in place of a state that proved wrong.
        assert!(contents.holds(EntryId::new(5, 90)) && !contents.holds(EntryId::new(4, 90)));
    }

    /// A state that proved wrong may be replaced by an older one. Nothing of what
    /// it was is a way out then.
    #[test]
    fn only_an_older_snapshot_of_the_same_log_is_a_fallback() {
        let id = |index| EntryId::new(1, index);
        let kept = Kept { previous: Some(id(3)), newest: Some(id(5)) };
        assert_eq!(kept.with(id(9)), Kept { previous: Some(id(5)), newest: Some(id(9)) });
        for index in [4, 5] {
            assert_eq!(kept.with(id(index)), Kept { previous: None, newest: Some(id(index)) });
        }
        let mut contents = Contents { kept, ..contents() };
        contents.restart(id(9));
        assert_eq!(contents.kept, Kept { previous: None, newest: Some(id(9)) });
    }

    #[test]
    fn compaction_forgets_runs_but_not_the_one_still_needed() {
        let mut contents = contents();
        contents.entry(EntryId::new(2, 7), 2, 100..200).unwrap();
        contents.compact(Index(5));
        assert_eq!(contents.term(Index(4)), None);
        assert_eq!(contents.term(Index(5)), Some(Term(2)));
        assert!(contents.run(Index(5)).is_some());
        contents.compact(Index(7));
        assert_eq!(contents.run(Index(7)).unwrap().0.segment, 2);
        assert!(contents.run(Index(6)).is_none());
    }
}
