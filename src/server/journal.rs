//! The journal of this node, once there is one.
//!
//! A node that is to join a cluster has an identity and nothing else. The first
//! member that speaks to it by that identity names the cluster; it is adopted,
//! durably (see [`storage::adopt`]). Only then is anything heard of what that
//! member says.

use std::cell::RefCell;
use std::io;

use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::mpsc::UnboundedSender;

use super::disk::{DiskThread, Report};
use super::snapshots::SnapshotThread;
use crate::raft::ClusterId;
use crate::replica::SnapshotJob;
use crate::storage::{self, Job};
use crate::wal::{self, Identity, StdDisk, Wal, WalError};

/// A data directory without a cluster.
pub struct Unjoined {
    /// The directory.
    pub disk: StdDisk,
    /// Whose it is.
    pub identity: Identity,
    /// How large its journal files will be.
    pub segment_bytes: u64,
}

impl Unjoined {
    fn adopt(mut self, cluster: ClusterId) -> Result<Wal<StdDisk>, WalError> {
        let segment_bytes = self.segment_bytes;
        let config = wal::Config { segment_bytes, ..wal::Config::new(self.identity.node, cluster) };
        storage::adopt(&self.disk, &mut self.identity, cluster, config)
    }
}

/// The disk thread and the snapshot thread, or what it takes to have them.
pub struct Journal {
    disk: RefCell<DiskThread>,
    snapshots: RefCell<Option<SnapshotThread>>,
    reports: UnboundedSender<Report>,
    unjoined: RefCell<Option<Unjoined>>,
}

impl Journal {
    /// No threads yet; this is where their reports will go, and how long each batch
    /// took.
    pub fn new(
        unjoined: Option<Unjoined>,
        reports: UnboundedSender<Report>,
        synced: Histogram,
    ) -> Self {
        Self {
            disk: RefCell::new(DiskThread::new(reports.clone(), synced)),
            snapshots: RefCell::new(None),
            reports,
            unjoined: RefCell::new(unjoined),
        }
    }

    /// Starts the threads, once.
    pub fn start(&self, wal: Wal<StdDisk>) -> io::Result<()> {
        let (disk, cluster) = (wal.disk().clone(), wal.cluster());
        let snapshots = SnapshotThread::start(disk, cluster, self.reports.clone())?;
        self.snapshots.replace(Some(snapshots));
        self.disk.borrow_mut().start(wal)
    }

    /// Makes this the directory of a member of `cluster`, for good. If that
    /// fails, the disk thread's reports say so and the process ends.
    pub fn adopt(&self, cluster: ClusterId) -> bool {
        let Some(unjoined) = self.unjoined.borrow_mut().take() else { return false };
        match unjoined.adopt(cluster) {
            Ok(wal) => match self.start(wal) {
                Ok(()) => return true,
                Err(source) => self.disk.borrow().fail(WalError::Io {
                    what: "start a thread",
                    file: "journal".to_owned(),
                    source,
                }),
            },
            Err(error) => self.disk.borrow().fail(error),
        }
        false
    }

    /// Queues a job; without a journal it waits for one.
    pub fn submit(&self, job: Job) {
        self.disk.borrow().submit(job);
    }

    /// Queues a job about snapshot files; without a journal there is none.
    pub fn submit_snapshot(&self, job: SnapshotJob) {
        if let Some(thread) = &*self.snapshots.borrow() {
            thread.submit(job);
        }
    }

    /// Finishes what is queued.
    pub fn close(&self) {
        if let Some(thread) = self.snapshots.take() {
            thread.close();
        }
        self.disk.borrow_mut().close();
    }
}
