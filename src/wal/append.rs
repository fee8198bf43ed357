//! Writing: batches, syncs, marks, and the next segment.
//!
//! ```text
//!  append   sync ─────────────────────────────┐   append   sync
//!  write    fdatasync   mark (not synced)  acknowledge   write    fdatasync
//!  batch 8  batch 8     "8 is synced"         │   batch 9  batch 9 and mark
//! ```
//!
//! Every eighth batch or so is followed by a mark.
//!
//! One batch is in flight at a time: that the one before is synced is what a
//! recovery concludes from finding a later one.

use super::contents::{Contents, Kept};
use super::disk::{Disk, DiskFile};
use super::error::{Context, WalError};
use super::mark::Mark;
use super::record::{Batch, HEADER_BYTES, Kind, SECTOR_BYTES, round_up};
use super::segment::{self, DATA_START, Header, Spare};
use super::{Wal, snapshot_file};
use crate::mutants::{self, Mutant};
use crate::raft::entry::encode_id;
use crate::raft::{EntryId, HardState, Write, WriteSeq};

/// An upper bound of what records besides entries carry.
const SMALL_PAYLOAD_BYTES: usize = 64;

impl<D: Disk> Wal<D> {
    /// Makes all these writes durable, in one batch, and returns the last one:
    /// it and all before it may be acknowledged.
    ///
    /// On [`WalError::Full`] nothing was written. If they do not fit together
    /// but the first ones do, those are made durable: the answer says how far.
    pub fn commit(&mut self, writes: &[Write]) -> Result<WriteSeq, WalError> {
        match self.append(writes) {
            Err(WalError::Full { .. }) if writes.len() > 1 => self.commit(&writes[..1]),
            Err(error) => Err(error),
            Ok(()) => self.sync(),
        }
    }

    /// Writes a batch; it is durable when [`Wal::sync`] returns.
    ///
    /// Panics if the batch before is not synced, or if the entries leave a gap.
    pub fn append(&mut self, writes: &[Write]) -> Result<(), WalError> {
        self.check_running()?;
        let Some(last) = writes.last() else { return Ok(()) };
        for base in writes.iter().filter_map(|write| write.base.as_ref()) {
            self.check_base(base.last)?;
        }
        let bound = writes.iter().map(bound_bytes).sum();
        let with_entries = || writes.iter().any(|write| !write.entries.is_empty());
        let hard_state = match mutants::on(Mutant::TermAfterEntries) && with_entries() {
            false => last.hard_state,
            true => self.contents.hard_state,
        };
        let seq = last.seq;
        self.append_batch(bound, hard_state, |wal, batch| {
            for write in writes {
                wal.put_write(write, batch);
            }
        })?;
        self.unsynced = Some(seq);
        Ok(())
    }

    /// One write of one batch, whose records `fill` puts in.
    fn append_batch(
        &mut self,
        bound: usize,
        hard_state: HardState,
        fill: impl FnOnce(&mut Self, &mut Batch),
    ) -> Result<(), WalError> {
        assert!(self.unsynced.is_none(), "the batch before is synced first");
        assert!(hard_state.term >= self.contents.hard_state.term, "a term never goes back");
        let bound = round_up(bound + HEADER_BYTES + SMALL_PAYLOAD_BYTES);
        let made = self.make_room(bound as u64);
        self.guard(made)?;
        let mut batch = Batch::new(self.current().header.frame(), self.position, bound);
        fill(self, &mut batch);
        let (bytes, position) = batch.seal(&hard_state);
        assert!(bytes.len() <= bound, "the place that was made is large enough");
        let written = self.current_file().write_at(self.end, &bytes);
        self.guard(written.at("write", self.current_path()))?;
        self.contents.hard_state = hard_state;
        self.position = position;
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn put_write(&mut self, write: &Write, batch: &mut Batch) {
        if let Some(base) = &write.base {
            self.put_base(base.last, batch);
        }
        for entry in &write.entries {
            let span = batch.put(Kind::Entry, |buffer| entry.encode(buffer));
            let span = self.end + span.start as u64..self.end + span.end as u64;
            let number = self.current().header.number;
            let result = self.contents.entry(entry.id, number, span);
            result.expect("consensus leaves no gap between writes");
        }
    }

    /// The very entry in the log: its suffix stays. Else the whole log goes,
    /// also what is behind: it continues from an entry that never was.
    fn put_base(&mut self, last: EntryId, batch: &mut Batch) {
        self.compaction_due = true;
        if self.contents.holds(last) {
            self.put_kept(self.contents.kept.with(last), batch);
        } else {
            batch.put(Kind::Restart, |buffer| encode_id(last, buffer));
            self.contents.restart(last);
        }
    }

    fn put_kept(&mut self, kept: Kept, batch: &mut Batch) {
        batch.put(Kind::Kept, |buffer| kept.encode(buffer));
        self.contents.kept = kept;
    }

    /// Makes durable which snapshots are kept, in a batch of its own.
    pub(super) fn commit_kept(&mut self, kept: Kept) -> Result<(), WalError> {
        self.append_batch(
            HEADER_BYTES + SMALL_PAYLOAD_BYTES,
            self.contents.hard_state,
            |wal, batch| {
                wal.put_kept(kept, batch);
            },
        )?;
        self.sync_batch()
    }

    fn check_base(&self, last: EntryId) -> Result<(), WalError> {
        if last.index < self.contents.first().prev() {
            return Err(WalError::Unfit { last, what: "newer ones have replaced that part" });
        }
        self.check_snapshot_is_there(last)
    }

    pub(super) fn check_snapshot_is_there(&self, last: EntryId) -> Result<(), WalError> {
        match self.disk.open(&snapshot_file::name(last)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(WalError::Unfit { last, what: "its file is missing" })
            }
            other => other.map(|_| ()).at("open", self.disk.path(&snapshot_file::name(last))),
        }
    }

    /// Waits until the batch is durable; returns the last write that is.
    pub fn sync(&mut self) -> Result<WriteSeq, WalError> {
        self.check_running()?;
        if let Some(seq) = self.unsynced.take() {
            self.sync_batch()?;
            self.durable = seq;
        }
        Ok(self.durable)
    }

    /// Syncs the batch, then says so in the mark if it is time to: the next sync
    /// carries it.
    pub(super) fn sync_batch(&mut self) -> Result<(), WalError> {
        if mutants::on(Mutant::MarkBeforeSync) {
            self.write_mark(self.current().header.number, false)?;
        }
        self.sync_current()?;
        self.unmarked_batches += 1;
        if self.unmarked_batches >= self.config.mark_every_batches { self.mark() } else { Ok(()) }
    }

    /// Writes a mark, unless the last one says it all.
    fn mark(&mut self) -> Result<(), WalError> {
        match self.unmarked_batches {
            0 => Ok(()),
            _ => self.write_mark(self.current().header.number, false),
        }
    }

    fn write_mark(&mut self, segment: u64, closed: bool) -> Result<(), WalError> {
        assert!(!self.mark_unsynced, "the mark before is synced first");
        let mark = Mark { segment, end: self.end, position: self.position, closed };
        let written = self.current_file().write_at(Mark::SLOTS[self.mark_slot], &mark.encode());
        self.guard(written.at("write", self.current_path()))?;
        self.mark_slot = 1 - self.mark_slot;
        self.mark_unsynced = true;
        self.unmarked_batches = 0;
        Ok(())
    }

    /// The current segment is about to be followed by one that is durable. From
    /// now on, not to find that one is damage.
    fn close_segment(&mut self) -> Result<(), WalError> {
        if let Some(current) = self.segments.back() {
            self.write_mark(current.header.number, true)?;
            self.sync_current()?;
        }
        if let Some(closed) = self.segments.back_mut() {
            closed.file = None;
        }
        Ok(())
    }

    fn sync_current(&mut self) -> Result<(), WalError> {
        let synced = match mutants::on(Mutant::SyncSkipped) {
            false => self.current_file().sync_data().synced(self.current_path()),
            true => Ok(()),
        };
        if !mutants::on(Mutant::SyncErrorIgnored) {
            self.guard(synced)?;
        }
        self.mark_unsynced = false;
        Ok(())
    }

    /// What is better done while nothing is queued: syncs the mark, deletes what
    /// an installed snapshot replaced, and prepares a piece of the next segment. Returns whether there is more.
    pub fn idle(&mut self) -> Result<bool, WalError> {
        self.check_running()?;
        assert!(self.unsynced.is_none(), "a batch is waiting for its sync");
        self.mark()?;
        if self.mark_unsynced {
            self.sync_current()?;
        }
        if self.compaction_due {
            self.compact()?;
        }
        match self.prepare_next() {
            // Not a failure: `has_room` says so, and a later call tries again.
            Err(WalError::Full { .. }) => Ok(false),
            other => other,
        }
    }

    /// Writes and syncs one piece of the next segment. Returns whether more is
    /// to be done. On a full disk it fails, [`Wal::has_room`] turns false, and the
    /// next call tries again from the start.
    pub fn prepare_next(&mut self) -> Result<bool, WalError> {
        self.check_running()?;
        let result = self.prepare_piece(file_bytes(self.config.segment_bytes));
        self.guard(result)
    }

    fn prepare_piece(&mut self, size: u64) -> Result<bool, WalError> {
        let grown = match self.spare.take() {
            Some(spare) if spare.size() >= size => Ok(spare),
            Some(spare) => spare.grown(&self.disk, size),
            None => Spare::create(&self.disk).and_then(|spare| spare.grown(&self.disk, size)),
        };
        match grown {
            Ok(spare) => {
                let more = spare.size() < size;
                self.spare = Some(spare);
                self.full = self.full && more;
                Ok(more)
            }
            Err(error) => {
                if let WalError::Full { .. } = error {
                    // The space may be what a snapshot needs, and only a
                    // snapshot makes more.
                    self.full = true;
                    let _ = self.disk.remove(segment::SPARE_NAME);
                }
                Err(error)
            }
        }
    }

    /// Makes sure that a batch has its place, and that a full disk is noticed
    /// while there is still a reserve.
    fn make_room(&mut self, bytes: u64) -> Result<(), WalError> {
        let free = self.current().header.size - self.end;
        if bytes > free {
            return self.rotate(bytes);
        }
        if free - bytes < self.config.reserve_bytes && !self.full {
            match self.prepare(self.config.segment_bytes) {
                Err(WalError::Full { .. }) => {}
                other => return other,
            }
        }
        Ok(())
    }

    fn prepare(&mut self, size: u64) -> Result<(), WalError> {
        while self.prepare_piece(file_bytes(size))? {}
        Ok(())
    }

    /// Begins the next segment, with place for a batch of so many bytes: the
    /// steps in [`segment`]. When the disk is full nothing has changed.
    pub(super) fn rotate(&mut self, bytes: u64) -> Result<(), WalError> {
        self.prepare(self.config.segment_bytes.max(DATA_START + bytes))?;
        if !self.segments.is_empty() && self.mark_unsynced {
            self.sync_current()?;
        }
        let spare = self.spare.take().expect("it is prepared");
        let Contents { mut hard_state, kept, .. } = self.contents;
        if mutants::on(Mutant::VoteLostWithSegment) {
            hard_state.vote = None;
        }
        let header = Header {
            cluster: self.config.cluster,
            node: self.config.node,
            number: self.segments.back().map_or(1, |segment| segment.header.number + 1),
            size: spare.size(),
            position: self.position,
            last: self.contents.last(),
            hard_state,
            kept,
        };
        let begun = spare.begin(&self.disk, header);
        let segment = self.guard(begun)?;
        self.close_segment()?;
        self.segments.push_back(segment);
        (self.end, self.mark_slot, self.mark_unsynced) = (DATA_START, 0, false);
        Ok(())
    }
}

/// Whole sectors, and one for a batch at least.
fn file_bytes(size: u64) -> u64 {
    size.max(DATA_START + 1).next_multiple_of(SECTOR_BYTES as u64)
}

/// At least what a write takes in a batch.
fn bound_bytes(write: &Write) -> usize {
    let base = write.base.as_ref().map_or(0, |_| HEADER_BYTES + SMALL_PAYLOAD_BYTES);
    let entries = write.entries.iter().map(|entry| HEADER_BYTES + entry.size());
    base + entries.sum::<usize>()
}
