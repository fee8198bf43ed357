//! The durable journal and the snapshot files.
//!
//! A node may promise only what its disk remembers. This module is that memory:
//! one ordered stream of hard states and entries in segment files, and the
//! snapshots that let the beginning of the stream be deleted.
//!
//! ```text
//!  identity                        who this disk is
//!  journal-…01  journal-…02  …     the stream, cut into segments
//!  journal-next.tmp                zeros, on their way to become a segment
//!  snapshot-INDEX-TERM             two of them; the log is kept since the older
//! ```
//!
//! Where to read: `record` and `segment` draw the bytes, `mark` is how zeros are
//! told from lost pages, `recovery` is what happens at a start and has the crash
//! argument, [`snapshot_file`] the other kind of file. [`disk`] is all that is
//! asked of a disk, [`faulty`] a disk on which everything goes wrong.
//!
//! How it is driven, by one thread:
//!
//! - [`Wal::open_with`] recovers; what it returns is durable, all of it;
//! - [`Wal::commit`] takes everything that is queued, and when it returns, all
//!   of it is durable and may be acknowledged. That is one write and one sync;
//! - [`Wal::idle`] whenever nothing is queued, until it says there is no more to
//!   do: it prepares the next segment and syncs the mark;
//! - [`Wal::snapshot_taken`] when the state machine has written a snapshot file.
//!   A snapshot from the leader comes as a write with a `base` instead.
//!
//! # Failures
//!
//! After any failed write or sync every further call is refused: what the disk
//! holds is unknown, and the process has to end ([`WalError::Sync`],
//! [`WalError::Io`]). A full disk is no failure. New space is only ever taken
//! when a segment is prepared, so a batch that has its place cannot run out of
//! it; when preparing fails, [`Wal::has_room`] turns false while `reserve_bytes` of
//! the current segment are still free. The caller refuses client writes from
//! then on, and hard states, no-ops and membership have their place.
//!
//! # Missing on purpose
//!
//! Segments are not reused, a damaged record is never repaired from a peer (the
//! node is rebuilt as a whole), there is no compression, and no direct I/O.

mod append;
mod compaction;
mod contents;
pub mod disk;
mod error;
pub mod faulty;
pub mod identity;
mod mark;
mod read;
mod record;
mod recovery;
mod segment;
pub mod snapshot_file;

use std::collections::VecDeque;

pub use contents::Kept;
pub use disk::{Disk, DiskFile, StdDisk};
pub use error::{REBUILD, WalError};
pub use identity::Identity;
pub use record::SECTOR_BYTES;
pub use snapshot_file::{SnapshotReader, SnapshotReceiver, SnapshotWriter};

use crate::raft::{ClusterId, EntryId, HardState, Index, NodeId, Recovered, WriteSeq};
use contents::Contents;
use error::Context;
use record::Position;
use segment::{Segment, Spare};

/// Settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Whose disk it is.
    pub node: NodeId,
    /// Whose log it is.
    pub cluster: ClusterId,
    /// Whether an empty directory is right: only before a journal was begun
    /// for the first time. Else a missing journal is damage.
    pub create: bool,
    /// How large a segment is; one is made larger for a batch that needs it.
    pub segment_bytes: u64,
    /// How much of the current segment is kept free for what must still be
    /// written when the disk is full.
    pub reserve_bytes: u64,
    /// After how many batches a mark is written, unless an idle moment comes
    /// first. A mark is a page more for the disk to write, which a client that
    /// waits alone feels; on the other hand, damage that reads as zeros and that
    /// destroys all batches since the last durable mark is taken for a torn tail.
    pub mark_every_batches: u32,
    /// A pin gives way when the journal is larger than this.
    pub pin_limit_bytes: u64,
}

impl Config {
    /// The usual sizes, for a journal that is there already.
    pub fn new(node: NodeId, cluster: ClusterId) -> Self {
        Self {
            node,
            cluster,
            create: false,
            segment_bytes: 64 << 20,
            reserve_bytes: 8 << 20,
            mark_every_batches: 8,
            pin_limit_bytes: 4 << 30,
        }
    }
}

/// The journal.
///
/// Invariants: the last segment is the one written to; everything before `end`
/// in it is synced unless `unsynced` says otherwise; `contents` is what a
/// recovery would find if all that is written were synced.
pub struct Wal<D: Disk> {
    disk: D,
    config: Config,
    segments: VecDeque<Segment<D::File>>,
    contents: Contents,
    position: Position,
    /// Where the next batch goes.
    end: u64,
    /// Where the next mark goes, and whether the one before awaits a sync.
    mark_slot: usize,
    mark_unsynced: bool,
    /// Batches that are synced and that no mark speaks of.
    unmarked_batches: u32,
    spare: Option<Spare<D::File>>,
    /// Preparing a segment found no space.
    full: bool,
    /// The last write in the batch that is written but not synced.
    unsynced: Option<WriteSeq>,
    durable: WriteSeq,
    pinned: Option<Index>,
    /// A snapshot was installed, and what it replaced is still there.
    compaction_due: bool,
    /// A write or a sync has failed.
    stopped: bool,
}

impl<D: Disk> Wal<D> {
    /// [`Wal::open_with`] for those who have no use for what is in a snapshot.
    pub fn open(disk: D, config: Config) -> Result<(Self, Recovered), WalError> {
        let (wal, recovered, _) = Self::open_with(disk, config, |_| Ok(()))?;
        Ok((wal, recovered))
    }

    /// Recovers the journal, or begins one if there is none and there may be
    /// none. What it returns is durable. A refusal changes nothing on the disk.
    ///
    /// `restore` makes a state of a snapshot; that of the one chosen is returned.
    /// A snapshot that it calls [`WalError::Damaged`] counts as such, though its
    /// bytes may be those that were written.
    pub fn open_with<S>(
        disk: D,
        config: Config,
        restore: impl FnMut(&mut SnapshotReader<D::File>) -> Result<S, WalError>,
    ) -> Result<(Self, Recovered, Option<S>), WalError> {
        let found = recovery::recover(&disk, &config, restore)?;
        let mut wal = Self {
            disk,
            config,
            segments: VecDeque::new(),
            contents: Contents::new(HardState::default(), Kept::default(), EntryId::ZERO),
            position: Position { batch: 1, chain: 0 },
            end: 0,
            mark_slot: 0,
            mark_unsynced: false,
            unmarked_batches: 0,
            spare: None,
            full: false,
            unsynced: None,
            durable: WriteSeq::default(),
            pinned: None,
            compaction_due: false,
            stopped: false,
        };
        wal.remove_leftovers(|name| name.ends_with(".tmp"))?;
        let Some(found) = found else {
            wal.rotate(0)?;
            return Ok((wal, Recovered::default(), None));
        };
        (wal.segments, wal.contents) = (found.segments, found.contents);
        (wal.position, wal.end, wal.mark_slot) = (found.position, found.end, found.mark_slot);
        let kept = found.kept;
        if kept != wal.contents.kept {
            // Headers repeat what records say, so a record has to say it first.
            wal.commit_kept(kept)?;
        }
        wal.remove_leftovers(|name| {
            snapshot_file::id(name).is_some_and(|id| kept.iter().all(|kept| kept != id))
        })?;
        wal.compact()?;
        Ok((wal, found.recovered, found.state))
    }

    /// What never got a name, or lost it to something newer.
    fn remove_leftovers(&self, is_leftover: impl Fn(&str) -> bool) -> Result<(), WalError> {
        let names = self.disk.list().at("list", self.disk.path(""))?;
        for name in names.iter().filter(|name| is_leftover(name)) {
            self.disk.remove(name).at("remove", self.disk.path(name))?;
        }
        Ok(())
    }

    /// Whose log it is.
    pub fn cluster(&self) -> ClusterId {
        self.config.cluster
    }

    /// The directory, for snapshot files.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// The last entry, durable once [`Wal::sync`] returned.
    pub fn last(&self) -> EntryId {
        self.contents.last()
    }

    /// The first entry that can be read back.
    pub fn first(&self) -> Index {
        self.contents.first()
    }

    /// The snapshots that are kept.
    pub fn kept(&self) -> Kept {
        self.contents.kept
    }

    /// About how many bytes of entries there are behind the newest snapshot.
    pub fn log_bytes(&self) -> u64 {
        let newest = self.contents.kept.newest.unwrap_or(EntryId::ZERO);
        self.contents.bytes_after(newest.index)
    }

    /// Whether client writes may be accepted. False while the disk is full: what
    /// is left is for hard states, no-ops and membership.
    pub fn has_room(&self) -> bool {
        !self.full && !self.stopped
    }

    /// How many bytes of entries may still be written: no bound while there is
    /// room. On a full disk it is what the current segment has left, but for a
    /// part that is kept for hard states: without them there is no voting.
    pub fn room_bytes(&self) -> u64 {
        let kept = (self.config.reserve_bytes / 2).min(self.config.segment_bytes / 4);
        match self.has_room() {
            true => u64::MAX,
            false if self.stopped => 0,
            false => (self.current().header.size - self.end).saturating_sub(kept),
        }
    }

    fn current(&self) -> &Segment<D::File> {
        self.segments.back().expect("there is always a segment")
    }

    fn current_file(&self) -> &D::File {
        self.current().file.as_ref().expect("the last segment is open")
    }

    /// For messages.
    fn current_path(&self) -> String {
        self.disk.path(&segment::name(self.current().header.number))
    }

    fn check_running(&self) -> Result<(), WalError> {
        if self.stopped { Err(WalError::Stopped) } else { Ok(()) }
    }

    /// After a failed write or sync the journal is not to be used again.
    fn guard<T>(&mut self, result: Result<T, WalError>) -> Result<T, WalError> {
        if let Err(WalError::Sync { .. } | WalError::Io { .. }) = result {
            self.stopped = true;
        }
        result
    }
}
