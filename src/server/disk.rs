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

/// The longest such wait.
const FULL_RETRY_LONGEST: Duration = Duration::from_secs(5);

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
        let worker = Worker {
            wal,
            queue,
            reports: self.reports.clone(),
            writes: Vec::new(),
            taken: None,
            patience: FULL_RETRY,
            told_room_bytes: u64::MAX,
            rest: Rest::NotYet,
            written_bytes: 0,
        };
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
    /// Not yet durable. More than one turn's only while the disk is full.
    writes: Vec<Write>,
    /// A snapshot of ours that the journal does not name yet.
    taken: Option<EntryId>,
    /// How long to wait before a full disk is tried again.
    patience: Duration,
    /// What the replica was last told of room.
    told_room_bytes: u64,
    rest: Rest,
    written_bytes: usize,
}

/// How far the thread has got with what can wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Something was written a moment ago.
    NotYet,
    /// There is more to do.
    Resting,
    /// There is nothing.
    Rested,
}

impl Worker {
    fn run(mut self) {
        if let Err(error) = self.work() {
            let _ = self.reports.send(Report::Failed(error));
        }
    }

    /// Until the queue is closed and empty, or the disk fails. A full disk is no
    /// failure: writes stay where they are, and whatever makes room goes on.
    fn work(&mut self) -> Result<(), WalError> {
        self.report_journal();
        loop {
            match self.wait() {
                Ok(job) => {
                    self.take(job)?;
                    while let Ok(job) = self.queue.try_recv() {
                        self.take(job)?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.do_what_can_wait()?,
                // What does not fit now was not acknowledged.
                Err(RecvTimeoutError::Disconnected) => return self.wal.idle().map(|_| ()),
            }
            self.commit()?;
            self.name_snapshot()?;
            if self.wal.room_bytes() != self.told_room_bytes {
                self.report_journal();
            }
        }
    }

    /// The next job, unless there is something to do before it comes.
    fn wait(&self) -> Result<Job, RecvTimeoutError> {
        let is_stuck = !self.writes.is_empty() || self.taken.is_some() || !self.wal.has_room();
        match self.rest {
            _ if is_stuck => self.queue.recv_timeout(self.patience),
            Rest::NotYet => self.queue.recv_timeout(QUIET),
            Rest::Resting => self.queue.recv_timeout(Duration::ZERO),
            Rest::Rested => self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn take(&mut self, job: Job) -> Result<(), WalError> {
        match job {
            Job::Write(write) => {
                let bytes: usize = write.entries.iter().map(Entry::size).sum();
                self.written_bytes += SECTOR_BYTES + bytes;
                self.writes.push(write);
                self.rest = Rest::NotYet;
                Ok(())
            }
            Job::Fetch(fetch) => self.fetch(fetch),
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

    fn do_what_can_wait(&mut self) -> Result<(), WalError> {
        self.rest = if self.wal.idle()? { Rest::Resting } else { Rest::Rested };
        self.patience = match self.wal.has_room() {
            true => FULL_RETRY,
            // A try takes what little space there is for a moment: ever more seldom.
            false => (self.patience * 2).min(FULL_RETRY_LONGEST),
        };
        Ok(())
    }

    fn commit(&mut self) -> Result<(), WalError> {
        while !self.writes.is_empty() {
            match self.wal.commit(&self.writes) {
                Ok(seq) => {
                    self.writes.retain(|write| write.seq > seq);
                    let (log_bytes, room_bytes) = self.tell_journal();
                    self.report(Input::Durable { seq, log_bytes, room_bytes });
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
    fn name_snapshot(&mut self) -> Result<(), WalError> {
        let Some(last) = self.taken else { return Ok(()) };
        match self.wal.snapshot_taken(last) {
            // The entries up to it wait to be written.
            Err(WalError::Unfit { .. }) if last.index > self.wal.last().index => return Ok(()),
            // An installed snapshot was newer.
            Ok(()) | Err(WalError::Unfit { .. }) => self.taken = None,
            Err(WalError::Full { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
        self.report_journal();
        Ok(())
    }

    fn report_journal(&mut self) {
        let (log_bytes, room_bytes) = self.tell_journal();
        self.report(Input::Journal { log_bytes, room_bytes });
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
