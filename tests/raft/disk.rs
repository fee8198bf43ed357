//! The virtual disk: what a journal would hold, as plain values.
//!
//! A write is carried out whole or not at all, and in order, as the core is
//! promised. What the real journal makes of torn writes is tested beside it.

use raftcache::raft::{
    Entry, EntryId, Fetch, HardState, Index, Recovered, SnapshotMeta, Term, Write,
};

/// What would be found after a crash at this moment.
///
/// A node keeps two: the one its disk has confirmed, and the one it will hold
/// once all outstanding writes are carried out, which is the log as the core
/// sees it.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Term and vote.
    pub hard_state: HardState,
    /// What the log continues from.
    pub snapshot: SnapshotMeta,
    /// Consecutive, after the snapshot.
    pub entries: Vec<Entry>,
}

impl Disk {
    /// The disk of a new node: a membership, and nothing happened yet.
    pub fn new(snapshot: SnapshotMeta) -> Self {
        Self { hard_state: HardState::default(), snapshot, entries: Vec::new() }
    }

    /// Carries out a write.
    pub fn carry_out(&mut self, write: &Write) {
        assert!(write.hard_state.term >= self.hard_state.term, "the term goes back: {write:?}");
        self.hard_state = write.hard_state;
        if let Some(base) = &write.base {
            self.take_base(base);
        }
        if let Some(first) = write.entries.first() {
            let first = first.id.index;
            assert!(first > self.snapshot.last.index, "overwrites a snapshot: {write:?}");
            assert!(first <= self.last().index.next(), "leaves a hole: {write:?}");
            self.entries.retain(|entry| entry.id.index < first);
            self.entries.extend(write.entries.iter().cloned());
        }
        assert!(self.hard_state.commit <= self.last().index, "commits what it lacks: {write:?}");
    }

    fn take_base(&mut self, base: &SnapshotMeta) {
        if self.id_at(base.last.index) == Some(base.last) {
            self.compact(base);
        } else {
            self.entries.clear();
            self.snapshot = base.clone();
        }
    }

    /// A snapshot of the node's own takes the place of the entries up to it.
    pub fn compact(&mut self, meta: &SnapshotMeta) {
        if meta.last.index > self.snapshot.last.index {
            assert_eq!(self.id_at(meta.last.index), Some(meta.last), "snapshots what it holds");
            self.entries.retain(|entry| entry.id.index > meta.last.index);
            self.snapshot = meta.clone();
        }
    }

    /// The last entry.
    pub fn last(&self) -> EntryId {
        self.entries.last().map_or(self.snapshot.last, |entry| entry.id)
    }

    /// The entry at an index, unless the snapshot has swallowed it.
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.snapshot.last.index.0 + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// The id at an index, as far as it is known.
    pub fn id_at(&self, index: Index) -> Option<EntryId> {
        if index == self.snapshot.last.index {
            return Some(self.snapshot.last);
        }
        self.entry(index).map(|entry| entry.id)
    }

    /// Whether the effect of this entry is here. A snapshot holds only what is
    /// committed, so whatever committed entry is before its end is in it.
    pub fn covers(&self, id: EntryId) -> bool {
        id.index <= self.snapshot.last.index || self.id_at(id.index) == Some(id)
    }

    /// What a fetch finds: the entry before and the entries, or nothing if the
    /// first one is only in the snapshot.
    pub fn read(&self, fetch: &Fetch) -> Option<(EntryId, Vec<Entry>)> {
        let prev = self.id_at(fetch.from.prev())?;
        let wanted = |entry: &&Entry| fetch.from <= entry.id.index && entry.id.index <= fetch.to;
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in self.entries.iter().filter(wanted) {
            bytes += entry.size();
            if bytes > fetch.limit_bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Some((prev, entries))
    }

    /// What a restart finds.
    pub fn recovered(&self) -> Recovered {
        Recovered {
            hard_state: self.hard_state,
            snapshot: Some(self.snapshot.clone()),
            entries: self.entries.clone(),
        }
    }

    /// The terms of the entries, as the paper draws logs.
    pub fn terms(&self) -> Vec<Term> {
        self.entries.iter().map(|entry| entry.id.term).collect()
    }
}
