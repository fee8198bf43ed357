//! The disk thread: takes all that is queued, makes it durable in one go, says
//! so. That is group commit without a timer: while one sync runs, the next
//! batch gathers.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::raft::{Entry, EntryId, Fetch, Index, Write};
use crate::replica::Input;
use crate::wal::{SECTOR_BYTES, StdDisk, Wal, WalError};

/// With nothing queued for so long, the thread turns to what can wait.
const QUIET: Duration = Duration::from_millis(20);

/// How long to wait before a full disk is tried again.
const FULL_RETRY: Duration = Duration::from_millis(200);

/// Under a load that never pauses, the next segment is prepared in between, one
/// piece of this size whenever half as much was written, so that it is ready by
/// the time the current one is half full.
const PIECE_BYTES: usize = 1 << 20;

/// What the thread can be asked to do.
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

/// What the thread says.
pub enum Report {
    /// For the replica.
    Input(Input),
    /// The disk cannot be trusted any more: the process has to end at once.
    Failed(WalError),
}

/// The disk thread, from the side of the event loop. A node that has not joined
/// a cluster has no journal yet; the thread starts when there is one.
pub struct DiskThread {
    jobs: Option<Sender<Job>>,
    /// What the thread will be given.
    queue: Option<Receiver<Job>>,
    reports: UnboundedSender<Report>,
    thread: Option<JoinHandle<()>>,
}

impl DiskThread {
    /// No thread yet; this is where its reports will go.
    pub fn new(reports: UnboundedSender<Report>) -> Self {
        let (jobs, queue) = channel();
        Self { jobs: Some(jobs), queue: Some(queue), reports, thread: None }
    }

    /// Starts the thread, once.
    pub fn start(&mut self, wal: Wal<StdDisk>) -> std::io::Result<()> {
        let queue = self.queue.take().expect("a node has one journal in its life");
        let worker = Worker { wal, queue, reports: self.reports.clone(), written_bytes: 0 };
        self.thread = Some(std::thread::Builder::new().name("disk".into()).spawn(|| worker.run())?);
        Ok(())
    }

    /// Reports that the disk cannot be used.
    pub fn fail(&self, error: WalError) {
        // Nobody listens any more when the process is ending.
        let _ = self.reports.send(Report::Failed(error));
    }

    /// Queues a job.
    pub fn submit(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // A thread that has ended has reported why.
            let _ = jobs.send(job);
        }
    }

    /// Lets the thread finish what is queued, sync its mark, and end.
    pub fn close(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the disk thread has panicked");
        }
    }
}

struct Worker {
    wal: Wal<StdDisk>,
    queue: Receiver<Job>,
    reports: UnboundedSender<Report>,
    written_bytes: usize,
}

impl Worker {
    fn run(mut self) {
        if let Err(error) = self.work() {
            let _ = self.reports.send(Report::Failed(error));
        }
    }

    /// Until the queue is closed and empty, or the disk fails.
    fn work(&mut self) -> Result<(), WalError> {
        loop {
            let first = match self.queue.recv_timeout(QUIET) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => match self.rest()? {
                    Some(job) => job,
                    None => return Ok(()),
                },
                Err(RecvTimeoutError::Disconnected) => return self.finish(),
            };
            let (mut writes, mut taken) = (Vec::new(), None);
            for job in std::iter::once(first).chain(self.queue.try_iter()) {
                match job {
                    Job::Write(write) => writes.push(write),
                    Job::Fetch(fetch) => self.fetch(fetch)?,
                    Job::SnapshotTaken(last) => taken = Some(last),
                    Job::Pin(Some(after)) => self.wal.pin(after),
                    Job::Pin(None) => self.wal.unpin()?,
                }
            }
            self.commit(writes)?;
            // What it covers may be deleted last of all.
            if let Some(last) = taken {
                self.snapshot_taken(last)?;
            }
        }
    }

    fn snapshot_taken(&mut self, last: EntryId) -> Result<(), WalError> {
        match self.wal.snapshot_taken(last) {
            // An installed snapshot was newer.
            Ok(()) | Err(WalError::Unfit { .. }) => {}
            // What it covers stays until the next one.
            Err(WalError::Full { file }) => log::error!("the disk is full, no room for {file}"),
            Err(error) => return Err(error),
        }
        self.report_journal();
        Ok(())
    }

    fn report_journal(&self) {
        self.report(Input::Journal { log_bytes: self.wal.log_bytes(), room: self.wal.room() });
    }

    /// What can wait, then the next job; `None` when there will be none.
    fn rest(&mut self) -> Result<Option<Job>, WalError> {
        loop {
            let had_room = self.wal.room();
            while self.wal.idle()? {
                if let Ok(job) = self.queue.try_recv() {
                    return Ok(Some(job));
                }
            }
            if self.wal.room() != had_room {
                self.report_journal();
            }
            // On a full disk nobody may write, so no job comes by which it could
            // be noticed that there is room again.
            let next = match self.wal.room() {
                true => self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => self.queue.recv_timeout(FULL_RETRY),
            };
            match next {
                Ok(job) => return Ok(Some(job)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.finish().map(|()| None),
            }
        }
    }

    fn finish(&mut self) -> Result<(), WalError> {
        self.wal.idle().map(|_| ())
    }

    fn commit(&mut self, mut writes: Vec<Write>) -> Result<(), WalError> {
        let entries = writes.iter().flat_map(|write| &write.entries);
        self.written_bytes += SECTOR_BYTES + entries.map(Entry::size).sum::<usize>();
        while !writes.is_empty() {
            match self.wal.commit(&writes) {
                Ok(seq) => {
                    writes.retain(|write| write.seq > seq);
                    self.report(Input::Durable {
                        seq,
                        log_bytes: self.wal.log_bytes(),
                        room: self.wal.room(),
                    });
                }
                // It goes on by itself as soon as there is space.
                Err(WalError::Full { file }) => {
                    log::error!("the disk is full, no room for {file}");
                    std::thread::sleep(FULL_RETRY);
                }
                Err(error) => return Err(error),
            }
        }
        self.prepare()
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

    fn fetch(&self, fetch: Fetch) -> Result<(), WalError> {
        let Fetch { from, to, limit_bytes, .. } = fetch;
        let read = match (self.wal.id_at(from.prev()), self.wal.read_entries(from, to, limit_bytes))
        {
            (Some(prev), Ok(entries)) => Some((prev, entries)),
            (None, _) | (_, Err(WalError::Compacted { .. })) => None,
            (_, Err(error)) => return Err(error),
        };
        self.report(Input::Fetched { fetch, read });
        Ok(())
    }

    fn report(&self, input: Input) {
        // Nobody listens any more when the process is ending.
        let _ = self.reports.send(Report::Input(input));
    }
}
