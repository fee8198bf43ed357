//! Deleting what snapshots cover.
//!
//! Two snapshots are kept, and the log since the older one. The order, and what
//! a crash leaves after each step:
//!
//! 1. the snapshot's file is durable: a file that nothing names, removed at the
//!    next start;
//! 2. a `kept` record that names both is durable: everything is still there;
//! 3. segments go from the front, each removal made durable before the next, so
//!    that what remains has no gap;
//! 4. snapshot files older than both go, in any order. A newer one may be about
//!    to be named.
//!
//! Steps 3 and 4 are done again at every start, and then all files go that are
//! not named. A segment may go when the next
//! one began with a log that ended at or before the older snapshot: then no
//! entry in it is needed. What else it said, the next header repeats.

use super::disk::Disk;
use super::error::{Context, WalError};
use super::segment;
use super::{Wal, snapshot_file};
use crate::mutants::{self, Mutant};
use crate::raft::{EntryId, Index};

impl<D: Disk> Wal<D> {
    /// A snapshot of this log, up to `last`, is durable as a file. Keeps it and
    /// the one before, and deletes what both cover.
    pub fn snapshot_taken(&mut self, last: EntryId) -> Result<(), WalError> {
        self.check_running()?;
        if self.contents.kept.newest.is_some_and(|newest| last.index <= newest.index) {
            return Err(WalError::Unfit { last, what: "a newer one is there" });
        }
        if !self.contents.holds(last) {
            return Err(WalError::Unfit { last, what: "its last entry is not in the log" });
        }
        self.check_snapshot_is_there(last)?;
        if mutants::on(Mutant::LogCutBeforeSnapshot) {
            self.contents.kept.previous = Some(last);
            self.compact()?;
        }
        self.commit_kept(self.contents.kept.with(last))?;
        self.compact()
    }

    /// Keeps everything behind `after`, for a peer that is being brought up from
    /// a snapshot; until [`Wal::unpin`], or the journal exceeds
    /// `pin_limit_bytes`.
    pub fn pin(&mut self, after: Index) {
        self.pinned = Some(after);
    }

    /// Lets go of what was pinned.
    pub fn unpin(&mut self) -> Result<(), WalError> {
        self.pinned = None;
        self.compact()
    }

    /// How many bytes all segments occupy.
    pub fn disk_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.header.size).sum()
    }

    /// Deletes what is not needed any more: steps 3 and 4.
    pub fn compact(&mut self) -> Result<(), WalError> {
        self.check_running()?;
        self.compaction_due = false;
        let result = self.remove_segments().and_then(|()| self.remove_snapshots());
        self.guard(result)
    }

    fn remove_segments(&mut self) -> Result<(), WalError> {
        while let Some(next) = self.segments.get(1) {
            let first = next.header.last.index.next();
            if first > self.needed() {
                return Ok(());
            }
            let name = segment::name(self.segments[0].header.number);
            self.disk.remove(&name).at("remove", self.disk.path(&name))?;
            self.disk.sync_dir().synced(self.disk.path(""))?;
            self.segments.pop_front();
            self.contents.compact(first);
        }
        Ok(())
    }

    /// The first entry that has to stay.
    fn needed(&self) -> Index {
        let covered = self.contents.covered().next();
        match self.pinned {
            Some(after) if self.disk_bytes() <= self.config.pin_limit_bytes => {
                covered.min(after.next())
            }
            _ => covered,
        }
    }

    fn remove_snapshots(&self) -> Result<(), WalError> {
        let Some(oldest) = self.contents.kept.iter().last() else { return Ok(()) };
        self.remove_leftovers(|name| {
            snapshot_file::id(name).is_some_and(|id| id.index < oldest.index)
        })
    }
}
