//! The journal of this node, once there is one.
//!
//! A node that is to join a cluster has an identity and nothing else. The first
//! member that speaks to it by that identity names the cluster; it is adopted in
//! an order in which every step is durable before the next: the cluster in the
//! identity file, the journal, the mark that there is one. Only then is anything
//! heard of what that member says.

use std::cell::RefCell;
use std::io;

use tokio::sync::mpsc::UnboundedSender;

use super::disk::{DiskThread, Job, Report};
use super::snapshots::SnapshotThread;
use crate::raft::ClusterId;
use crate::replica::SnapshotJob;
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
        self.identity.cluster = Some(cluster);
        self.identity.founder = false;
        self.identity.save(&self.disk)?;
        let config = wal::Config {
            create: true,
            segment_bytes: self.segment_bytes,
            ..wal::Config::new(self.identity.node, cluster)
        };
        let (wal, _empty) = Wal::open(self.disk.clone(), config)?;
        self.identity.begun = true;
        self.identity.save(&self.disk)?;
        Ok(wal)
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
    /// No threads yet; this is where their reports will go.
    pub fn new(unjoined: Option<Unjoined>, reports: UnboundedSender<Report>) -> Self {
        Self {
            disk: RefCell::new(DiskThread::new(reports.clone())),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::NodeId;
    use crate::wal::Disk;

    /// A journal of a cluster that the identity does not name, or one that is
    /// said to be there and is not, would be refused at the next start.
    #[test]
    fn each_step_into_a_cluster_is_durable_before_the_next() {
        let temp = tempfile::tempdir().unwrap();
        let disk = StdDisk::open(temp.path()).unwrap();
        let name = "a".to_owned();
        let identity =
            Identity { node: NodeId(7), cluster: None, founder: false, begun: false, name };
        let newcomer =
            || Unjoined { disk: disk.clone(), identity: identity.clone(), segment_bytes: 1 << 20 };
        let belongs = || {
            let found = Identity::load(&disk).unwrap().unwrap();
            (found.cluster, found.founder, found.begun)
        };
        // No journal is begun where a snapshot is.
        let in_the_way = crate::wal::snapshot_file::name(crate::raft::EntryId::new(1, 1));
        disk.create(&in_the_way).unwrap();
        assert!(newcomer().adopt(ClusterId(9)).is_err());
        assert_eq!(belongs(), (Some(ClusterId(9)), false, false));
        disk.remove(&in_the_way).unwrap();
        newcomer().adopt(ClusterId(9)).unwrap();
        assert_eq!(belongs(), (Some(ClusterId(9)), false, true));
    }
}
