//! The journal's work: all that is queued is taken, then made durable in one go,
//! and said to be so.
//!
//! Who drives it takes what is queued and then calls [`JournalWorker::settle`];
//! when [`JournalWorker::patience`] is over without a job, [`JournalWorker::rest`]
//! and then `settle`. A full disk is no failure: writes stay where they are, and
//! whatever makes room goes on. Any error that is returned is the end: the disk
//! cannot be trusted any more.

use std::time::Duration;

use crate::raft::{Entry, EntryId, Fetch, Index, Write};
use crate::replica::Input;
use crate::wal::{Disk, SECTOR_BYTES, Wal, WalError};

/// With nothing queued for so long, it is time for what can wait.
const QUIET: Duration = Duration::from_millis(20);

/// How long to wait before a full disk is tried again.
const FULL_RETRY: Duration = Duration::from_millis(200);

/// The longest such wait.
const FULL_RETRY_LONGEST: Duration = Duration::from_secs(5);

/// Under a load that never pauses, the next segment is prepared in between, one
/// piece of this size whenever half as much was written, so that it is ready by
/// the time the current one is half full.
const PIECE_BYTES: usize = 1 << 20;

/// What can be asked for.
pub enum Job {
    /// Make this durable, after everything before it.
    Write(Write),
    /// Read entries back.
    Fetch(Fetch),
    /// A snapshot of ours is durable: forget what it covers.
    SnapshotTaken(EntryId),
    /// Keep everything behind this index, whatever is covered; or nothing.
    Pin(Option<Index>),
}

/// The journal, and what is still to be done with it.
pub struct JournalWorker<D: Disk> {
    wal: Wal<D>,
    /// Not yet durable. More than one turn's only while the disk is full.
    writes: Vec<Write>,
    /// A snapshot of ours that the journal does not name yet.
    taken: Option<EntryId>,
    /// How long to wait before a full disk is tried again.
    full_retry: Duration,
    /// What the replica was last told of room.
    told_room_bytes: u64,
    rest: Rest,
    written_bytes: usize,
}

/// How far it has got with what can wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Something was written a moment ago.
    NotYet,
    /// There is more to do.
    Resting,
    /// There is nothing.
    Rested,
}

impl<D: Disk> JournalWorker<D> {
    /// Nothing to do yet.
    pub fn new(wal: Wal<D>) -> Self {
        Self {
            wal,
            writes: Vec::new(),
            taken: None,
            full_retry: FULL_RETRY,
            told_room_bytes: u64::MAX,
            rest: Rest::NotYet,
            written_bytes: 0,
        }
    }

    /// What the replica has to know at the start.
    pub fn begin(&mut self, report: &mut impl FnMut(Input)) {
        self.report_journal(report);
    }

    /// One job of those queued; nothing is durable before [`JournalWorker::settle`].
    pub fn take(&mut self, job: Job, report: &mut impl FnMut(Input)) -> Result<(), WalError> {
        match job {
            Job::Write(write) => {
                let bytes: usize = write.entries.iter().map(Entry::size).sum();
                self.written_bytes += SECTOR_BYTES + bytes;
                self.writes.push(write);
                self.rest = Rest::NotYet;
                Ok(())
            }
            Job::Fetch(fetch) => self.fetch(fetch, report),
            Job::SnapshotTaken(last) => {
                self.taken = Some(last);
                Ok(())
            }
            Job::Pin(Some(after)) => {
                self.wal.pin(after);
                Ok(())
            }
            Job::Pin(None) => self.wal.unpin(),
        }
    }

    /// Whether something is to be made durable.
    pub fn has_writes(&self) -> bool {
        !self.writes.is_empty()
    }

    /// Makes durable what was taken, lets the journal name a snapshot, and tells
    /// of room if that has changed.
    pub fn settle(&mut self, report: &mut impl FnMut(Input)) -> Result<(), WalError> {
        self.commit(report)?;
        self.name_snapshot(report)?;
        if self.wal.room_bytes() != self.told_room_bytes {
            self.report_journal(report);
        }
        Ok(())
    }

    /// A step of what can wait; to be followed by [`JournalWorker::settle`].
    pub fn rest(&mut self) -> Result<(), WalError> {
        self.rest = if self.wal.idle()? { Rest::Resting } else { Rest::Rested };
        self.full_retry = match self.wal.has_room() {
            true => FULL_RETRY,
            // A try takes what little space there is for a moment: ever more seldom.
            false => (self.full_retry * 2).min(FULL_RETRY_LONGEST),
        };
        Ok(())
    }

    /// How long to wait for a job before [`JournalWorker::rest`] is called. None:
    /// for ever; zero: not at all, if none is queued.
    pub fn patience(&self) -> Option<Duration> {
        let is_stuck = !self.writes.is_empty() || self.taken.is_some() || !self.wal.has_room();
        match self.rest {
            _ if is_stuck => Some(self.full_retry),
            Rest::NotYet => Some(QUIET),
            Rest::Resting => Some(Duration::ZERO),
            Rest::Rested => None,
        }
    }

    /// The last thing: syncs the mark. What does not fit now was not acknowledged.
    pub fn close(&mut self) -> Result<(), WalError> {
        self.wal.idle().map(|_| ())
    }

    /// The journal.
    pub fn wal(&self) -> &Wal<D> {
        &self.wal
    }

    fn commit(&mut self, report: &mut impl FnMut(Input)) -> Result<(), WalError> {
        while !self.writes.is_empty() {
            match self.wal.commit(&self.writes) {
                Ok(seq) => {
                    self.writes.retain(|write| write.seq > seq);
                    let (log_bytes, room_bytes) = self.tell_journal();
                    report(Input::Durable { seq, log_bytes, room_bytes });
                }
                Err(WalError::Full { file }) => {
                    log::error!("the disk is full, no room for {file}");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.prepare()
    }

    /// Lets the journal name a snapshot, and forget what it covers. It needs
    /// little room to make much.
    fn name_snapshot(&mut self, report: &mut impl FnMut(Input)) -> Result<(), WalError> {
        let Some(last) = self.taken else { return Ok(()) };
        match self.wal.snapshot_taken(last) {
            // The entries up to it wait to be written.
            Err(WalError::Unfit { .. }) if last.index > self.wal.last().index => return Ok(()),
            // An installed snapshot was newer.
            Ok(()) | Err(WalError::Unfit { .. }) => self.taken = None,
            Err(WalError::Full { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
        self.report_journal(report);
        Ok(())
    }

    fn report_journal(&mut self, report: &mut impl FnMut(Input)) {
        let (log_bytes, room_bytes) = self.tell_journal();
        report(Input::Journal { log_bytes, room_bytes });
    }

    /// What the replica is about to be told.
    fn tell_journal(&mut self) -> (u64, u64) {
        self.told_room_bytes = self.wal.room_bytes();
        (self.wal.log_bytes(), self.told_room_bytes)
    }

    fn prepare(&mut self) -> Result<(), WalError> {
        while self.written_bytes >= PIECE_BYTES / 2 {
            self.written_bytes -= PIECE_BYTES / 2;
            match self.wal.prepare_next() {
                Ok(true) => {}
                Ok(false) | Err(WalError::Full { .. }) => self.written_bytes = 0,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn fetch(&self, fetch: Fetch, report: &mut impl FnMut(Input)) -> Result<(), WalError> {
        let Fetch { from, to, limit_bytes, .. } = fetch;
        let read = match (self.wal.id_at(from.prev()), self.wal.read_entries(from, to, limit_bytes))
        {
            (Some(prev), Ok(entries)) => Some((prev, entries)),
            (None, _) | (_, Err(WalError::Compacted { .. })) => None,
            (_, Err(error)) => return Err(error),
        };
        report(Input::Fetched { fetch, read });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::raft::{ClusterId, HardState, NodeId, Payload, Recovered, Term, WriteSeq};
    use crate::wal::Config;
    use crate::wal::faulty::{Crash, FaultyDisk};

    fn config(create: bool) -> Config {
        let sizes = Config::new(NodeId(1), ClusterId(1));
        Config { create, segment_bytes: 64 << 10, reserve_bytes: 16 << 10, ..sizes }
    }

    fn worker(disk: &FaultyDisk) -> JournalWorker<FaultyDisk> {
        JournalWorker::new(Wal::open(disk.clone(), config(true)).unwrap().0)
    }

    /// The write of one entry, both with this number.
    fn write(number: u64) -> Job {
        let payload = Payload::Command(Bytes::from(vec![7; 3000]));
        let entries = vec![Entry { id: EntryId::new(1, number), payload }];
        let hard_state = HardState { term: Term(1), vote: None, commit: Index(0) };
        Job::Write(Write { seq: WriteSeq(number), hard_state, base: None, entries })
    }

    /// What is reported meanwhile: of `Durable` the number, of `Journal` 0, and
    /// the room of either.
    fn heard(act: impl FnOnce(&mut dyn FnMut(Input))) -> Vec<(u64, u64)> {
        let mut heard = Vec::new();
        act(&mut |input| match input {
            Input::Durable { seq, room_bytes, .. } => heard.push((seq.0, room_bytes)),
            Input::Journal { room_bytes, .. } => heard.push((0, room_bytes)),
            other => panic!("{other:?}"),
        });
        heard
    }

    fn after_a_power_cut(disk: &FaultyDisk) -> Recovered {
        Wal::open(disk.crash(Crash::Lost), config(false)).unwrap().1
    }

    #[test]
    fn what_is_queued_becomes_durable_at_once_and_only_then_is_said_to_be() {
        let disk = FaultyDisk::default();
        let mut worker = worker(&disk);
        assert_eq!(heard(|mut report| worker.begin(&mut report)), [(0, u64::MAX)]);
        let before = disk.operations();
        let taken = heard(|mut report| {
            (1..=3).for_each(|number| worker.take(write(number), &mut report).unwrap());
        });
        assert_eq!((taken, disk.operations()), (vec![], before));
        let settled = heard(|mut report| worker.settle(&mut report).unwrap());
        assert_eq!(settled, [(3, u64::MAX)]);
        assert_eq!(after_a_power_cut(&disk).entries.len(), 3);
    }

    #[test]
    fn rest_comes_after_quiet_and_goes_on_until_there_is_nothing_to_do() {
        let mut worker = worker(&FaultyDisk::default());
        assert_eq!(worker.patience(), Some(QUIET));
        worker.rest().unwrap();
        while worker.patience().is_some() {
            assert_eq!(worker.patience(), Some(Duration::ZERO));
            worker.rest().unwrap();
        }
        worker.take(write(1), &mut |_| ()).unwrap();
        worker.settle(&mut |_| ()).unwrap();
        assert_eq!(worker.patience(), Some(QUIET));
    }

    #[test]
    fn a_full_disk_keeps_waiting_what_does_not_fit_and_is_tried_ever_more_seldom() {
        let disk = FaultyDisk::default();
        let mut worker = worker(&disk);
        disk.set_capacity(Some(disk.used_bytes()));
        let mut last = 0;
        let mut room = u64::MAX;
        loop {
            worker.take(write(last + 1), &mut |_| ()).unwrap();
            let settled = heard(|mut report| worker.settle(&mut report).unwrap());
            let Some(&(durable, told)) = settled.first() else { break };
            assert!(durable == last + 1 && told <= room);
            (last, room) = (durable, told);
        }
        assert!(room < u64::MAX, "it was told in time");
        let mut patience = FULL_RETRY;
        while patience < FULL_RETRY_LONGEST {
            assert_eq!(worker.patience(), Some(patience));
            worker.rest().unwrap();
            assert_eq!(heard(|mut report| worker.settle(&mut report).unwrap()), []);
            patience = (patience * 2).min(FULL_RETRY_LONGEST);
        }
        assert_eq!(worker.patience(), Some(FULL_RETRY_LONGEST));
        disk.set_capacity(None);
        worker.rest().unwrap();
        let settled = heard(|mut report| worker.settle(&mut report).unwrap());
        assert_eq!(settled, [(last + 1, u64::MAX)]);
        assert_eq!(after_a_power_cut(&disk).entries.len() as u64, last + 1);
    }
}
