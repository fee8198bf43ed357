//! The snapshot thread: encodes, writes, reads and checks snapshot files, so
//! that neither the event loop nor the journal ever waits for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use super::disk::Report;
use crate::fsm::{Fsm, Limits, Restore};
use crate::raft::{ClusterId, EntryId, NodeId};
use crate::replica::{Input, SnapshotJob, SnapshotReport};
use crate::wal::snapshot_file::{self, BLOCK_LIMIT_BYTES};
use crate::wal::{Disk, SnapshotReader, SnapshotReceiver, SnapshotWriter, StdDisk, WalError};

/// How much of a file goes into one message.
const CHUNK_BYTES: usize = 1 << 20;

/// The largest snapshot that is taken in. A bound on what a wrong offer could
/// fill the disk with.
const RECEIVE_LIMIT_BYTES: u64 = 1 << 40;

/// The snapshot thread, from the side of the event loop.
pub struct SnapshotThread {
    jobs: Option<Sender<SnapshotJob>>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SnapshotThread {
    /// Starts the thread.
    pub fn start(
        disk: StdDisk,
        cluster: ClusterId,
        reports: UnboundedSender<Report>,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        let closing = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            disk,
            cluster,
            reports,
            closing: Arc::clone(&closing),
            writing: None,
            receiving: None,
            open: None,
        };
        let thread =
            std::thread::Builder::new().name("snapshots".into()).spawn(|| worker.run(queue))?;
        Ok(Self { jobs: Some(jobs), closing, thread: Some(thread) })
    }

    /// Queues a job.
    pub fn submit(&self, job: SnapshotJob) {
        if let Some(jobs) = &self.jobs {
            // A thread that has ended has reported why.
            let _ = jobs.send(job);
        }
    }

    /// Ends the thread after the job it is at, whatever is queued. What is half
    /// done has a temporary name, and is removed at the next start.
    pub fn close(mut self) {
        self.closing.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the snapshot thread has panicked");
        }
    }
}

/// Reads a snapshot from the file system.
pub type Reader = SnapshotReader<<StdDisk as Disk>::File>;

/// Builds the state that a snapshot holds.
pub fn restore(reader: &mut Reader) -> Result<Fsm, WalError> {
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

struct Worker {
    disk: StdDisk,
    cluster: ClusterId,
    reports: UnboundedSender<Report>,
    closing: Arc<AtomicBool>,
    writing: Option<SnapshotWriter<StdDisk>>,
    receiving: Option<(EntryId, u64, SnapshotReceiver<StdDisk>)>,
    /// The one that was read from last.
    open: Option<(EntryId, Reader)>,
}

impl Worker {
    fn run(mut self, queue: Receiver<SnapshotJob>) {
        for job in queue {
            if self.closing.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = self.work(job) {
                let _ = self.reports.send(Report::Failed(error));
                return;
            }
        }
    }

    fn work(&mut self, job: SnapshotJob) -> Result<(), WalError> {
        match job {
            SnapshotJob::Begin { meta, head } => {
                let mut state = Vec::new();
                head.encode(&mut state);
                let begun = SnapshotWriter::create(&self.disk, self.cluster, &meta, &state);
                self.writing = self.unless_full(begun)?;
                Ok(())
            }
            SnapshotJob::Piece(piece) => {
                let mut block = Vec::new();
                piece.encode(&mut block);
                self.write(&block)?;
                self.report(SnapshotReport::PieceWritten);
                Ok(())
            }
            SnapshotJob::Finish(durable) => self.finish(durable),
            SnapshotJob::Abandon => {
                if let Some(writer) = self.writing.take() {
                    writer.abandon();
                }
                Ok(())
            }
            SnapshotJob::Read { to, last, offset } => self.read(to, last, offset),
            SnapshotJob::Receive { last, size_bytes, resume } => {
                self.receive(last, size_bytes, resume)
            }
            SnapshotJob::Drop(fsm) => {
                drop(fsm);
                Ok(())
            }
            SnapshotJob::Take { last, offset, bytes } => self.take(last, offset, &bytes),
        }
    }

    /// For want of space our own snapshot is given up; anything else is fatal.
    fn unless_full<T>(&mut self, result: Result<T, WalError>) -> Result<Option<T>, WalError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(WalError::Full { file }) => {
                log::error!("no snapshot: the disk is full, no room for {file}");
                if let Some(writer) = self.writing.take() {
                    writer.abandon();
                }
                self.report(SnapshotReport::NotWritten);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn write(&mut self, block: &[u8]) -> Result<(), WalError> {
        debug_assert!(block.len() <= BLOCK_LIMIT_BYTES, "a piece has a bound");
        if let Some(writer) = &mut self.writing {
            let written = writer.write_block(block);
            self.unless_full(written)?;
        }
        Ok(())
    }

    fn finish(&mut self, durable: crate::raft::Index) -> Result<(), WalError> {
        let Some(writer) = &mut self.writing else { return Ok(()) };
        let finished = writer.finish(durable);
        let size_bytes = writer.size_bytes();
        if let Some(last) = self.unless_full(finished)? {
            self.writing = None;
            log::info!("snapshot at {last}: {size_bytes} bytes");
            self.report(SnapshotReport::Written { last, size_bytes });
        }
        Ok(())
    }

    fn read(&mut self, to: NodeId, last: EntryId, offset: u64) -> Result<(), WalError> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != last) {
            self.open = self.open_whole(last)?;
        }
        let chunk = |reader: &SnapshotReader<_>| reader.chunk(offset, CHUNK_BYTES);
        let bytes = self.open.as_ref().map(|(_, reader)| chunk(reader)).transpose()?;
        if bytes.as_ref().is_some_and(|bytes| bytes.len() < CHUNK_BYTES) {
            // The last one: what compaction deletes is not kept from being freed.
            self.open = None;
        }
        self.report(SnapshotReport::Read { to, last, offset, bytes });
        Ok(())
    }

    /// Every byte is checked before the first is sent: else the receiver would
    /// find out at the end, and be sent the same again. Compaction may have
    /// taken the file meanwhile; the leader offers another.
    fn open_whole(&self, last: EntryId) -> Result<Option<(EntryId, Reader)>, WalError> {
        match self.disk.open(&snapshot_file::name(last)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            _ => snapshot_file::read(&self.disk, self.cluster, last, |_| Ok(()))?,
        };
        Ok(Some((last, SnapshotReader::open(&self.disk, self.cluster, last)?)))
    }

    /// Begins, or goes on where it was: the report says from where.
    fn receive(&mut self, last: EntryId, size_bytes: u64, resume: bool) -> Result<(), WalError> {
        let is_it = self.receiving.as_ref().is_some_and(|(receiving, ..)| *receiving == last);
        if !is_it || !resume {
            if let Some((.., receiver)) = self.receiving.take() {
                receiver.abandon();
            }
            match SnapshotReceiver::create(&self.disk, self.cluster, last, RECEIVE_LIMIT_BYTES) {
                Ok(receiver) => self.receiving = Some((last, size_bytes, receiver)),
                Err(WalError::Full { .. }) => {
                    self.report(SnapshotReport::NotReceived(last));
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        let bytes = self.receiving.as_ref().map_or(0, |(.., receiver)| receiver.received_bytes());
        self.report(SnapshotReport::Received { last, bytes });
        Ok(())
    }

    fn take(&mut self, last: EntryId, offset: u64, bytes: &Bytes) -> Result<(), WalError> {
        let Some((receiving, size_bytes, receiver)) = &mut self.receiving else { return Ok(()) };
        if *receiving != last {
            return Ok(());
        }
        let (size_bytes, before) = (*size_bytes, receiver.received_bytes());
        match receiver.chunk(offset, bytes) {
            // Sent twice; the answer to the first one has asked for what follows.
            Ok(here) if here == before => Ok(()),
            Ok(here) if here < size_bytes => {
                self.report(SnapshotReport::Received { last, bytes: here });
                Ok(())
            }
            Ok(_) => self.complete(last, size_bytes),
            Err(WalError::Full { file }) => {
                log::error!("the leader's snapshot has no room: the disk is full at {file}");
                if let Some((.., receiver)) = self.receiving.take() {
                    receiver.abandon();
                }
                self.report(SnapshotReport::NotReceived(last));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn complete(&mut self, last: EntryId, size_bytes: u64) -> Result<(), WalError> {
        let Some((.., receiver)) = self.receiving.take() else { return Ok(()) };
        match receiver.finish(restore) {
            Ok((meta, fsm)) => {
                log::info!("the leader's snapshot at {last} is here: {size_bytes} bytes");
                let fsm = Box::new(fsm);
                self.report(SnapshotReport::Complete { meta, size_bytes, fsm });
                Ok(())
            }
            // What came over the network was not what was sent, or is nothing that
            // this version can make a state of. The leader offers one again.
            Err(WalError::Damaged { what, .. }) => {
                log::error!("the leader's snapshot at {last} is of no use: {what}");
                self.report(SnapshotReport::NotReceived(last));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn report(&self, report: SnapshotReport) {
        // Nobody listens any more when the process is ending.
        let _ = self.reports.send(Report::Input(Input::Snapshot(report)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Index, Membership, SnapshotMeta};

    #[test]
    fn a_stop_does_not_wait_for_the_rest_of_a_snapshot() {
        let temp = tempfile::tempdir().unwrap();
        let disk = StdDisk::open(temp.path()).unwrap();
        let (reports, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let start = || SnapshotThread::start(disk.clone(), ClusterId(1), reports.clone()).unwrap();
        let thread = start();
        let closing = Arc::clone(&thread.closing);
        thread.close();
        assert!(closing.load(Ordering::Relaxed));
        let thread = start();
        let mut fsm = Fsm::new(Limits::default());
        let head = Box::new(fsm.begin_snapshot());
        let last = EntryId::new(1, 7);
        let meta = SnapshotMeta { last, membership: Membership::default() };
        thread.submit(SnapshotJob::Begin { meta, head });
        thread.submit(SnapshotJob::Read { to: NodeId(2), last, offset: 0 });
        // Begun, and at rest.
        assert!(matches!(heard.blocking_recv(), Some(Report::Input(_))));
        thread.closing.store(true, Ordering::Relaxed);
        thread.submit(SnapshotJob::Finish(Index(7)));
        thread.close();
        let names: Vec<_> =
            disk.list().unwrap().into_iter().filter(|name| name != "lock").collect();
        assert_eq!(names, [format!("{}-own.tmp", snapshot_file::name(last))]);
    }
}
