//! The work with snapshot files: encodes, writes, reads and checks them.
//!
//! None of it touches the journal, so it is done beside it, and neither waits for
//! the other. What is half done has a temporary name, and is removed at the next
//! start.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::fsm::{Fsm, Limits, Restore};
use crate::raft::{ClusterId, EntryId, Index, NodeId};
use crate::replica::{SnapshotJob, SnapshotReport};
use crate::wal::snapshot_file::BLOCK_LIMIT_BYTES;
use crate::wal::{Disk, DiskFile, SnapshotReader, SnapshotReceiver, SnapshotWriter, WalError};

/// Settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// How much of a file goes into one message.
    pub chunk_bytes: usize,
    /// The largest snapshot that is taken in. A bound on what a wrong offer could
    /// fill the disk with.
    pub receive_limit_bytes: u64,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self { chunk_bytes: 1 << 20, receive_limit_bytes: 1 << 40 }
    }
}

/// Builds the state that a snapshot holds.
pub fn restore<F: DiskFile>(reader: &mut SnapshotReader<F>) -> Result<Fsm, WalError> {
    let restore = Restore::new(reader.state().clone(), Limits::default());
    let mut restore = restore.map_err(|error| reader.damaged(error))?;
    while let Some(block) = reader.next_block()? {
        restore.push(block).map_err(|error| reader.damaged(error))?;
    }
    let fsm = restore.finish().map_err(|error| reader.damaged(error))?;
    if fsm.applied() != reader.meta().last.index.0 {
        return Err(reader.damaged("the state of another index"));
    }
    Ok(fsm)
}

/// A snapshot that is being read.
type Open<D> = (EntryId, Arc<SnapshotReader<<D as Disk>::File>>);

/// The directory, and the files that are being written, taken in and read.
pub struct SnapshotWorker<D: Disk> {
    disk: D,
    cluster: ClusterId,
    config: SnapshotConfig,
    writing: Option<SnapshotWriter<D>>,
    receiving: Option<(EntryId, u64, SnapshotReceiver<D>)>,
    /// What is being read, for whom. Compaction deletes the file, and what is open
    /// can be read to its end.
    open: BTreeMap<NodeId, Open<D>>,
}

impl<D: Disk> SnapshotWorker<D> {
    /// Nothing is under way; the usual sizes.
    pub fn new(disk: D, cluster: ClusterId) -> Self {
        Self::with_config(disk, cluster, SnapshotConfig::default())
    }

    /// Nothing is under way.
    pub fn with_config(disk: D, cluster: ClusterId, config: SnapshotConfig) -> Self {
        Self { disk, cluster, config, writing: None, receiving: None, open: BTreeMap::new() }
    }

    /// Does one job, and says what came of it. An error is the end: the disk
    /// cannot be trusted any more.
    pub fn work(
        &mut self,
        job: SnapshotJob,
        report: &mut impl FnMut(SnapshotReport),
    ) -> Result<(), WalError> {
        match job {
            SnapshotJob::Begin { meta, head } => {
                let mut state = Vec::new();
                head.encode(&mut state);
                let begun = SnapshotWriter::create(&self.disk, self.cluster, &meta, &state);
                self.writing = self.unless_full(begun, report)?;
                Ok(())
            }
            SnapshotJob::Piece(piece) => {
                let mut block = Vec::new();
                piece.encode(&mut block);
                self.write(&block, report)?;
                report(SnapshotReport::PieceWritten);
                Ok(())
            }
            SnapshotJob::Finish(durable) => self.finish(durable, report),
            SnapshotJob::Abandon => {
                if let Some(writer) = self.writing.take() {
                    writer.abandon();
                }
                Ok(())
            }
            SnapshotJob::Read { to, last, offset } => self.read(to, last, offset, report),
            SnapshotJob::Close(to) => {
                self.open.remove(&to);
                Ok(())
            }
            SnapshotJob::Receive { last, size_bytes, resume } => {
                self.receive(last, size_bytes, resume, report)
            }
            SnapshotJob::Drop(fsm) => {
                drop(fsm);
                Ok(())
            }
            SnapshotJob::Take { last, offset, bytes } => self.take(last, offset, &bytes, report),
        }
    }

    /// For want of space our own snapshot is given up; anything else is fatal.
    fn unless_full<T>(
        &mut self,
        result: Result<T, WalError>,
        report: &mut impl FnMut(SnapshotReport),
    ) -> Result<Option<T>, WalError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(WalError::Full { file }) => {
                log::error!("no snapshot: the disk is full, no room for {file}");
                if let Some(writer) = self.writing.take() {
                    writer.abandon();
                }
                report(SnapshotReport::NotWritten);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn write(
        &mut self,
        block: &[u8],
        report: &mut impl FnMut(SnapshotReport),
    ) -> Result<(), WalError> {
        debug_assert!(block.len() <= BLOCK_LIMIT_BYTES, "a piece has a bound");
        if let Some(writer) = &mut self.writing {
            let written = writer.write_block(block);
            self.unless_full(written, report)?;
        }
        Ok(())
    }

    fn finish(
        &mut self,
        durable: Index,
        report: &mut impl FnMut(SnapshotReport),
    ) -> Result<(), WalError> {
        let Some(writer) = &mut self.writing else { return Ok(()) };
        let finished = writer.finish(durable);
        let size_bytes = writer.size_bytes();
        if let Some(last) = self.unless_full(finished, report)? {
            self.writing = None;
            log::info!("snapshot at {last}: {size_bytes} bytes");
            report(SnapshotReport::Written { last, size_bytes });
        }
        Ok(())
    }

    fn read(
        &mut self,
        to: NodeId,
        last: EntryId,
        offset: u64,
        report: &mut impl FnMut(SnapshotReport),
    ) -> Result<(), WalError> {
        let known = self.open.values().find(|(open, _)| *open == last).cloned();
        let open = known.map_or_else(|| self.open_whole(last), |known| Ok(Some(known)))?;
        let chunk_bytes = self.config.chunk_bytes;
        let chunk = |(_, reader): &Open<D>| reader.chunk(offset, chunk_bytes);
        let bytes = open.as_ref().map(chunk).transpose()?;
        match open {
            Some(open) => drop(self.open.insert(to, open)),
            None => drop(self.open.remove(&to)),
        }
        report(SnapshotReport::Read { to, last, offset, bytes });
        Ok(())
    }

    /// Every byte is checked before the first is sent: else the receiver would
    /// find out at the end, and be sent the same again. Compaction may have
    /// taken the file meanwhile; the leader offers another.
    fn open_whole(&self, last: EntryId) -> Result<Option<Open<D>>, WalError> {
        let Some(mut reader) = SnapshotReader::find(&self.disk, self.cluster, last)? else {
            return Ok(None);
        };
        while reader.next_block()?.is_some() {}
        Ok(Some((last, Arc::new(reader))))
    }

    /// Begins, or goes on where it was: the report says from where.
    fn receive(
        &mut self,
        last: EntryId,
        size_bytes: u64,
        resume: bool,
        report: &mut impl FnMut(SnapshotReport),
    ) -> Result<(), WalError> {
        let is_it = self.receiving.as_ref().is_some_and(|(receiving, ..)| *receiving == last);
        if !is_it || !resume {
            if let Some((.., receiver)) = self.receiving.take() {
                receiver.abandon();
            }
            let limit_bytes = self.config.receive_limit_bytes;
            match SnapshotReceiver::create(&self.disk, self.cluster, last, limit_bytes) {
                Ok(receiver) => self.receiving = Some((last, size_bytes, receiver)),
                Err(WalError::Full { .. }) => {
                    report(SnapshotReport::NotReceived(last));
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        let bytes = self.receiving.as_ref().map_or(0, |(.., receiver)| receiver.received_bytes());
        report(SnapshotReport::Received { last, bytes });
        Ok(())
    }

    fn take(
        &mut self,
        last: EntryId,
        offset: u64,
        bytes: &Bytes,
        report: &mut impl FnMut(SnapshotReport),
    ) -> Result<(), WalError> {
        let Some((receiving, size_bytes, receiver)) = &mut self.receiving else { return Ok(()) };
        if *receiving != last {
            return Ok(());
        }
        let (size_bytes, before) = (*size_bytes, receiver.received_bytes());
        match receiver.chunk(offset, bytes) {
            // Sent twice; the answer to the first one has asked for what follows.
            Ok(here) if here == before => Ok(()),
            Ok(here) if here < size_bytes => {
                report(SnapshotReport::Received { last, bytes: here });
                Ok(())
            }
            Ok(_) => self.complete(last, size_bytes, report),
            Err(WalError::Full { file }) => {
                log::error!("the leader's snapshot has no room: the disk is full at {file}");
                if let Some((.., receiver)) = self.receiving.take() {
                    receiver.abandon();
                }
                report(SnapshotReport::NotReceived(last));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn complete(
        &mut self,
        last: EntryId,
        size_bytes: u64,
        report: &mut impl FnMut(SnapshotReport),
    ) -> Result<(), WalError> {
        let Some((.., receiver)) = self.receiving.take() else { return Ok(()) };
        match receiver.finish(restore) {
            Ok((meta, fsm)) => {
                log::info!("the leader's snapshot at {last} is here: {size_bytes} bytes");
                let fsm = Box::new(fsm);
                report(SnapshotReport::Complete { meta, size_bytes, fsm });
                Ok(())
            }
            // What came over the network was not what was sent, or is nothing that
            // this version can make a state of. The leader offers one again.
            Err(WalError::Damaged { what, .. }) => {
                log::error!("the leader's snapshot at {last} is of no use: {what}");
                report(SnapshotReport::NotReceived(last));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Membership, SnapshotMeta, Term};
    use crate::wal::faulty::{Crash, FaultyDisk};
    use crate::wal::snapshot_file;

    const CLUSTER: ClusterId = ClusterId(1);
    const LAST: EntryId = EntryId { term: Term(1), index: Index(2) };

    fn worker(disk: &FaultyDisk) -> SnapshotWorker<FaultyDisk> {
        let config = SnapshotConfig { chunk_bytes: 100, ..SnapshotConfig::default() };
        SnapshotWorker::with_config(disk.clone(), CLUSTER, config)
    }

    /// All that is reported of one job.
    fn reports(worker: &mut SnapshotWorker<FaultyDisk>, job: SnapshotJob) -> Vec<SnapshotReport> {
        let mut reports = Vec::new();
        worker.work(job, &mut |report| reports.push(report)).unwrap();
        reports
    }

    fn begin() -> SnapshotJob {
        let mut fsm = Fsm::new(Limits::default());
        (1..=LAST.index.0).for_each(|index| fsm.apply_other(index));
        let meta = SnapshotMeta { last: LAST, membership: Membership::default() };
        SnapshotJob::Begin { meta, head: Box::new(fsm.begin_snapshot()) }
    }

    #[test]
    fn a_snapshot_goes_to_another_disk_in_chunks() {
        let (from, to) = (FaultyDisk::default(), FaultyDisk::default());
        let (mut sender, mut receiver) = (worker(&from), worker(&to));
        assert_eq!(reports(&mut sender, begin()).len(), 0);
        let written = reports(&mut sender, SnapshotJob::Finish(LAST.index));
        let [SnapshotReport::Written { last: LAST, size_bytes }] = written[..] else { panic!() };
        let receive = SnapshotJob::Receive { last: LAST, size_bytes, resume: true };
        let mut said = reports(&mut receiver, receive);
        let mut chunks = 0;
        while let [SnapshotReport::Received { last: LAST, bytes: offset }] = said[..] {
            let read = SnapshotJob::Read { to: NodeId(2), last: LAST, offset };
            let mut read = reports(&mut sender, read);
            let Some(SnapshotReport::Read { bytes: Some(bytes), .. }) = read.pop() else {
                panic!("it is there")
            };
            said = reports(&mut receiver, SnapshotJob::Take { last: LAST, offset, bytes });
            chunks += 1;
        }
        assert_eq!(chunks, size_bytes.div_ceil(100));
        let [SnapshotReport::Complete { meta, fsm, .. }] = &said[..] else { panic!("{said:?}") };
        assert_eq!((meta.last, fsm.applied()), (LAST, LAST.index.0));
        let name = snapshot_file::name(LAST);
        assert_eq!(to.crash(Crash::Lost).content(&name).unwrap(), from.content(&name).unwrap());
        let another = SnapshotJob::Read { to: NodeId(3), last: LAST, offset: 0 };
        assert_eq!(reports(&mut sender, another).len(), 1);
        assert_eq!(from.open_files(), 1, "checked once for all");
        for node in [2, 3] {
            assert_eq!(reports(&mut sender, SnapshotJob::Close(NodeId(node))).len(), 0);
        }
        assert_eq!(from.open_files(), 0, "what compaction deletes is not kept from being freed");
    }

    #[test]
    fn a_snapshot_that_does_not_fit_is_given_up_once() {
        let disk = FaultyDisk::default();
        let mut worker = worker(&disk);
        assert_eq!(reports(&mut worker, begin()).len(), 0);
        disk.set_capacity(Some(20));
        let said = reports(&mut worker, SnapshotJob::Finish(LAST.index));
        assert!(matches!(said[..], [SnapshotReport::NotWritten]), "{said:?}");
        assert_eq!(reports(&mut worker, SnapshotJob::Finish(LAST.index)).len(), 0);
        assert_eq!(disk.list().unwrap(), [""; 0]);
        let said = reports(&mut worker, begin());
        assert!(matches!(said[..], [SnapshotReport::NotWritten]), "{said:?}");
        assert_eq!(disk.list().unwrap(), [""; 0], "nor is a beginning left behind");
    }
}
