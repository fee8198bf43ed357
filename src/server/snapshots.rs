//! The snapshot thread: does the work with snapshot files, so that neither the
//! event loop nor the journal ever waits for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use tokio::sync::mpsc::UnboundedSender;

use super::disk::Report;
use crate::raft::ClusterId;
use crate::replica::{Input, SnapshotJob};
use crate::storage::SnapshotWorker;
use crate::wal::StdDisk;

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
        let worker = SnapshotWorker::new(disk, cluster);
        let stop = Arc::clone(&closing);
        let thread = std::thread::Builder::new()
            .name("snapshots".into())
            .spawn(move || run(worker, queue, &stop, &reports))?;
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

fn run(
    mut worker: SnapshotWorker<StdDisk>,
    queue: Receiver<SnapshotJob>,
    closing: &AtomicBool,
    reports: &UnboundedSender<Report>,
) {
    // Nobody listens any more when the process is ending.
    let send = |report| drop(reports.send(report));
    for job in queue {
        if closing.load(Ordering::Relaxed) {
            return;
        }
        let done = worker.work(job, &mut |report| send(Report::Input(Input::Snapshot(report))));
        if let Err(error) = done {
            return send(Report::Failed(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::{Fsm, Limits};
    use crate::raft::{EntryId, Index, Membership, NodeId, SnapshotMeta};
    use crate::wal::{Disk, snapshot_file};

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
