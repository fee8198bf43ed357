//! The log as far as it is in memory.
//!
//! What is not yet applied or not yet durable has to be here; of the rest a
//! tail stays for followers that lag a little. Older entries are in the journal
//! or in a snapshot, and all that is kept of them here is the id of the last.

use std::collections::VecDeque;

use super::entry::{Entry, EntryId, Index, Term};

/// Consecutive entries after a base.
///
/// Invariants:
/// - the first entry's index is the base's plus one, and each next one's the
///   one before plus one;
/// - terms never decrease, from the base on;
/// - whatever is at or before the base is committed.
#[derive(Debug, Clone, Default)]
pub struct Log {
    base: EntryId,
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Log {
    /// A log that continues from `base`, which is committed.
    pub fn new(base: EntryId) -> Self {
        Self { base, entries: VecDeque::new(), bytes: 0 }
    }

    /// The entry before the first one in memory.
    pub fn base(&self) -> EntryId {
        self.base
    }

    /// The last entry.
    pub fn last(&self) -> EntryId {
        self.entries.back().map_or(self.base, |entry| entry.id)
    }

    /// Bytes held by the entries in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn offset(&self, index: Index) -> Option<usize> {
        let offset = usize::try_from(index.0.checked_sub(self.base.index.0 + 1)?).ok()?;
        (offset < self.entries.len()).then_some(offset)
    }

    /// The entry at an index, if it is in memory.
    pub fn get(&self, index: Index) -> Option<&Entry> {
        self.offset(index).map(|offset| &self.entries[offset])
    }

    /// The id of the entry at an index, if it is known here.
    pub fn id_at(&self, index: Index) -> Option<EntryId> {
        if index == self.base.index { Some(self.base) } else { self.get(index).map(|e| e.id) }
    }

    /// Whether this very entry is known to be in the log.
    pub fn holds(&self, id: EntryId) -> bool {
        self.id_at(id.index) == Some(id)
    }

    /// The last entry at or before `index` whose term is at most `term`; the
    /// base if there is none after it. Where two logs may still agree.
    pub fn last_agreeable(&self, index: Index, term: Term) -> EntryId {
        let mut index = index.min(self.last().index);
        while let Some(entry) = self.get(index) {
            if entry.id.term <= term {
                return entry.id;
            }
            index = index.prev();
        }
        self.base
    }

    /// Entries from `from` on, in memory, while they fit in `limit_bytes`; at
    /// least one if there is any. Payloads are shared, not copied.
    pub fn slice(&self, from: Index, limit_bytes: usize) -> Vec<Entry> {
        let Some(offset) = self.offset(from) else { return Vec::new() };
        let mut bytes = 0;
        let mut slice = Vec::new();
        for entry in self.entries.range(offset..) {
            bytes += entry.size();
            if bytes > limit_bytes && !slice.is_empty() {
                break;
            }
            slice.push(entry.clone());
        }
        slice
    }

    /// Every entry in memory from `from` on, by reference.
    pub fn iter_from(&self, from: Index) -> impl Iterator<Item = &Entry> {
        let offset = from.0.saturating_sub(self.base.index.0 + 1);
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(self.entries.len());
        self.entries.range(offset..)
    }

    /// Adds the next entry.
    pub fn append(&mut self, entry: Entry) {
        let last = self.last();
        assert_eq!(entry.id.index, last.index.next(), "the log has no holes");
        assert!(entry.id.term >= last.term, "terms never decrease");
        self.bytes += entry.size();
        self.entries.push_back(entry);
    }

    /// Forgets every entry after `index`.
    pub fn truncate_after(&mut self, index: Index) {
        assert!(index >= self.base.index, "what is before the base is committed");
        while self.last().index > index {
            let entry = self.entries.pop_back().expect("last is after the base");
            self.bytes -= entry.size();
        }
    }

    /// Forgets entries from the front, up to `upto` at most, while more than
    /// `keep_bytes` are in memory.
    pub fn trim(&mut self, upto: Index, keep_bytes: usize) {
        while self.bytes > keep_bytes {
            match self.entries.front() {
                Some(entry) if entry.id.index <= upto => {
                    self.bytes -= entry.size();
                    self.base = entry.id;
                    self.entries.pop_front();
                }
                _ => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::entry::Payload;

    /// A log whose entries from index 1 on have these terms.
    fn log(terms: &[u64]) -> Log {
        let mut log = Log::default();
        for (i, &term) in terms.iter().enumerate() {
            let id = EntryId::new(term, i as u64 + 1);
            log.append(Entry { id, payload: Payload::Command(vec![0; 10].into()) });
        }
        log
    }

    #[test]
    fn the_agreeable_entry_skips_whole_terms() {
        let log = log(&[1, 1, 2, 2, 4]);
        assert_eq!(log.last_agreeable(Index(9), Term(9)), EntryId::new(4, 5));
        assert_eq!(log.last_agreeable(Index(9), Term(3)), EntryId::new(2, 4));
        assert_eq!(log.last_agreeable(Index(3), Term(1)), EntryId::new(1, 2));
        assert_eq!(log.last_agreeable(Index(9), Term(0)), EntryId::ZERO);
    }

    #[test]
    fn a_slice_holds_what_fits_and_at_least_one() {
        let log = log(&[1, 1, 1]);
        let size = log.get(Index(1)).unwrap().size();
        assert_eq!(log.slice(Index(1), 0).len(), 1);
        assert_eq!(log.slice(Index(1), 2 * size).len(), 2);
        assert_eq!(log.slice(Index(3), usize::MAX).len(), 1);
        assert_eq!(log.slice(Index(4), usize::MAX).len(), 0);
    }

    #[test]
    fn trimming_keeps_a_tail_and_what_is_still_needed() {
        let mut log = log(&[1, 1, 2, 2]);
        let size = log.get(Index(1)).unwrap().size();
        log.trim(Index(2), 0);
        assert_eq!(log.base(), EntryId::new(1, 2), "3 and 4 are still needed");
        log.trim(Index(4), size);
        assert_eq!(log.base(), EntryId::new(2, 3), "4 is the tail");
        assert!(log.holds(EntryId::new(2, 3)) && !log.holds(EntryId::new(1, 3)));
        log.truncate_after(Index(3));
        assert_eq!((log.last(), log.bytes()), (EntryId::new(2, 3), 0));
    }
}
