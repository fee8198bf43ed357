//! The disk thread: takes all that is queued, makes it durable in one go, says
//! so. That is group commit without a timer: while one sync runs, the next
//! batch gathers.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::mpsc::UnboundedSender;

use crate::replica::Input;
use crate::storage::{Job, JournalWorker};
use crate::wal::{StdDisk, Wal, WalError};

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
    synced: Histogram,
    thread: Option<JoinHandle<()>>,
}

impl DiskThread {
    /// No thread yet; this is where its reports will go, and how long each batch took.
    pub fn new(reports: UnboundedSender<Report>, synced: Histogram) -> Self {
        let (jobs, queue) = channel();
        Self { jobs: Some(jobs), queue: Some(queue), reports, synced, thread: None }
    }

    /// Starts the thread, once.
    pub fn start(&mut self, wal: Wal<StdDisk>) -> std::io::Result<()> {
        let queue = self.queue.take().expect("a node has one journal in its life");
        let reports = self.reports.clone();
        let synced = self.synced.clone();
        let worker = Worker { journal: JournalWorker::new(wal), queue, reports, synced };
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
    journal: JournalWorker<StdDisk>,
    queue: Receiver<Job>,
    reports: UnboundedSender<Report>,
    synced: Histogram,
}

impl Worker {
    fn run(mut self) {
        if let Err(error) = self.work() {
            let _ = self.reports.send(Report::Failed(error));
        }
    }

    /// Until the queue is closed and empty, or the disk fails.
    fn work(&mut self) -> Result<(), WalError> {
        let Self { journal, queue, reports, synced } = self;
        // Nobody listens any more when the process is ending.
        let report = &mut |input| drop(reports.send(Report::Input(input)));
        journal.begin(report);
        loop {
            match wait(queue, journal.patience()) {
                Ok(job) => {
                    journal.take(job, report)?;
                    while let Ok(job) = queue.try_recv() {
                        journal.take(job, report)?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => journal.rest()?,
                Err(RecvTimeoutError::Disconnected) => return journal.close(),
            }
            let (begun, has_writes) = (Instant::now(), journal.has_writes());
            journal.settle(report)?;
            // On a full disk they wait.
            if has_writes && !journal.has_writes() {
                synced.observe(begun.elapsed().as_secs_f64());
            }
        }
    }
}

/// The next job, unless there is something to do before it comes.
fn wait(queue: &Receiver<Job>, patience: Option<Duration>) -> Result<Job, RecvTimeoutError> {
    match patience {
        Some(patience) => queue.recv_timeout(patience),
        None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
    }
}
