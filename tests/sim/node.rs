//! One machine and the node on it: the real driver, replica, journal, recovery
//! and snapshot files, over a disk and clocks that are values.

use std::collections::{BTreeMap, VecDeque};

use raftcache::fsm::{Fsm, Limits};
use raftcache::raft::{self, ClusterId, Index, Member, NodeId, Raft, Recovered};
use raftcache::replica::{self, Driver, Input, Peer, Replica, SnapshotJob};
use raftcache::storage::{self, Job, JournalWorker, Opened, SnapshotConfig, SnapshotWorker};
use raftcache::wal::faulty::FaultyDisk;
use raftcache::wal::{self, Identity, Wal, WalError};

use super::clock::Clock;
use super::plan::Plan;

/// Whether a state is what its log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    No,
    Unnoticed,
    Noticed,
}

/// A machine; its disk and its clocks outlive the node.
pub struct Machine {
    pub name: String,
    pub disk: FaultyDisk,
    pub clock: Clock,
    pub process: Option<Process>,
    /// How many processes there were.
    pub epoch: u64,
    /// How often it has moved.
    pub moves: u64,
    /// It founds the cluster.
    pub founder: bool,
    /// It is to take the place of the node that had its name.
    pub rebuild: bool,
    /// Nobody starts it.
    pub retired: bool,
    /// Its disk is slower than planned by this factor.
    pub disk_factor: u64,
    /// Its disk does nothing until then.
    pub stalled_until: u64,
    /// It ends when its disk has gone on, and told nobody.
    pub is_laggard: bool,
    /// Its messages take longer by this factor.
    pub network_factor: u64,
    /// Since when, and up to how much later than planned, it hears what it is told.
    pub late: Option<(u64, u64)>,
    /// Its state is to be, or is, another one than its log says.
    pub wrong: Wrong,
    /// Something on its disk was changed behind everyone's back.
    pub damaged: bool,
    /// What its processes up to this one had sent and had not arrived is lost.
    pub silenced: u64,
}

impl Machine {
    pub fn new(name: String, clock: Clock) -> Self {
        Self {
            name,
            disk: FaultyDisk::default(),
            clock,
            process: None,
            epoch: 0,
            moves: 0,
            founder: false,
            rebuild: false,
            retired: false,
            disk_factor: 1,
            stalled_until: 0,
            is_laggard: false,
            network_factor: 1,
            late: None,
            wrong: Wrong::No,
            damaged: false,
            silenced: 0,
        }
    }

    /// Its node has not begun a journal.
    pub fn is_newcomer(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.journal.is_none())
    }

    pub fn peer_address(&self) -> String {
        format!("{}.{}:peer", self.name, self.moves)
    }

    pub fn client_address(&self) -> String {
        format!("{}.{}:client", self.name, self.moves)
    }
}

/// A thread that works on the disk. What it does happens at once; what it says
/// is heard when the time it takes is over.
pub struct Thread<W, J> {
    pub worker: W,
    pub queue: VecDeque<J>,
    /// It is at work, and will say this.
    pub saying: Option<Vec<Input>>,
}

impl<W, J> Thread<W, J> {
    fn new(worker: W) -> Self {
        Self { worker, queue: VecDeque::new(), saying: None }
    }
}

pub type JournalThread = Thread<JournalWorker<FaultyDisk>, Job>;
pub type SnapshotThread = Thread<SnapshotWorker<FaultyDisk>, SnapshotJob>;

/// Something after which it is interesting to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Others may count on what it has said.
    Vote,
    Acknowledgement,
    Reply,
    /// It has been elected, and nobody has heard of it yet.
    Office,
    /// It is the first to know that something is committed.
    Commit,
}

/// A running node.
pub struct Process {
    pub epoch: u64,
    pub identity: Identity,
    /// What was on its disk when it started.
    pub recovered: Recovered,
    pub driver: Driver,
    pub inbox: Vec<Input>,
    /// When the next turn is.
    pub turn_at: u64,
    /// It stands still, since when and until when.
    pub paused: Option<(u64, u64)>,
    pub journal: Option<JournalThread>,
    pub snapshots: Option<SnapshotThread>,
    /// What the log says of where others are, what they say, what was found.
    pub book: BTreeMap<NodeId, String>,
    pub heard: BTreeMap<NodeId, String>,
    pub found: BTreeMap<NodeId, String>,
    pub pinned: Option<Index>,
    /// It ends at the next such moment.
    pub doomed: Option<Moment>,
    /// So many operations of its disk may have been heard of.
    pub heard_operations: usize,
}

fn wal_config(plan: &Plan, identity: &Identity, cluster: ClusterId) -> wal::Config {
    wal::Config {
        segment_bytes: plan.segment_bytes,
        reserve_bytes: plan.segment_bytes / 4,
        pin_limit_bytes: 64 * plan.segment_bytes,
        ..wal::Config::new(identity.node, cluster)
    }
}

/// Starts the node of this machine with what is on its disk.
pub fn boot(
    machine: &mut Machine,
    plan: &Plan,
    fresh: (NodeId, ClusterId, u64),
    now_us: u64,
) -> Result<Process, WalError> {
    let disk = machine.disk.clone();
    let (fresh_node, fresh_cluster, seed) = fresh;
    let mut identity = match Identity::load(&disk)? {
        Some(identity) => identity,
        None => {
            let cluster = machine.founder.then_some(fresh_cluster);
            let name = machine.name.clone();
            let (founder, begun) = (machine.founder, false);
            let identity = Identity { node: fresh_node, cluster, founder, begun, name };
            identity.save(&disk)?;
            identity
        }
    };
    let (wal, recovered, fsm, newest) = match identity.cluster {
        Some(cluster) => {
            let config = wal_config(plan, &identity, cluster);
            let member = || Member {
                name: machine.name.clone(),
                peer_address: machine.peer_address(),
                client_address: machine.client_address(),
                voter: true,
            };
            let Opened { wal, recovered, fsm, newest } =
                storage::open(&disk, &mut identity, config, member)?;
            (Some(wal), recovered, fsm, newest)
        }
        None => (None, Recovered::default(), Fsm::new(Limits::default()), None),
    };
    let fsm = match machine.wrong {
        Wrong::Unnoticed if fsm.applied() > 0 => forgotten(fsm.applied()),
        _ => {
            machine.wrong = Wrong::No;
            fsm
        }
    };
    let raft_config = raft_config(plan, identity.node, seed);
    let raft = Raft::new(raft_config, recovered.clone(), machine.clock.read(now_us).time);
    let config = replica::Config {
        cluster: identity.cluster,
        snapshot_log_bytes: plan.snapshot_log_bytes,
        snapshot_piece_keys: plan.snapshot_piece_keys,
        snapshot_pieces_under_way: plan.snapshot_pieces_under_way,
        ..replica::Config::new(machine.name.clone(), 1 << 30)
    };
    let driver = Driver::new(Replica::new(config, raft, fsm, newest));
    machine.epoch += 1;
    let mut process = Process {
        epoch: machine.epoch,
        identity,
        recovered,
        driver,
        inbox: Vec::new(),
        turn_at: u64::MAX,
        paused: None,
        journal: None,
        snapshots: None,
        book: BTreeMap::new(),
        heard: BTreeMap::new(),
        found: BTreeMap::new(),
        pinned: None,
        doomed: None,
        heard_operations: disk.operations(),
    };
    if let Some(wal) = wal {
        process.begin_journal(plan, wal);
    }
    Ok(process)
}

/// A state of this index in which nothing is left.
fn forgotten(applied: u64) -> Fsm {
    let mut fsm = Fsm::new(Limits::default());
    (1..=applied).for_each(|index| fsm.apply_other(index));
    fsm
}

fn raft_config(plan: &Plan, node: NodeId, seed: u64) -> raft::Config {
    let ms = std::time::Duration::from_millis;
    raft::Config {
        heartbeat_interval: ms(plan.heartbeat_ms),
        election_timeout_min: ms(plan.promise_ms()),
        election_timeout_max: ms(2 * plan.promise_ms()),
        promise: ms(plan.promise_ms()),
        read_mode: plan.read_mode,
        append_bytes: plan.append_bytes,
        inflight_bytes: plan.inflight_bytes(),
        log_tail_bytes: plan.log_tail_bytes,
        disk_lag_bytes: plan.disk_lag_bytes,
        ..raft::Config::new(node, seed)
    }
}

impl Process {
    fn begin_journal(&mut self, plan: &Plan, wal: Wal<FaultyDisk>) {
        let (disk, cluster) = (wal.disk().clone(), wal.cluster());
        let mut journal = JournalWorker::new(wal);
        journal.begin(&mut |input| self.inbox.push(input));
        self.journal = Some(Thread::new(journal));
        let config = SnapshotConfig { chunk_bytes: plan.chunk_bytes, ..SnapshotConfig::default() };
        let snapshots = SnapshotWorker::with_config(disk, cluster, config);
        self.snapshots = Some(Thread::new(snapshots));
    }

    /// The first member that speaks to a newcomer names its cluster.
    pub fn adopt(
        &mut self,
        disk: &FaultyDisk,
        plan: &Plan,
        cluster: ClusterId,
    ) -> Result<(), WalError> {
        let config = wal_config(plan, &self.identity, cluster);
        let wal = storage::adopt(disk, &mut self.identity, cluster, config)?;
        self.begin_journal(plan, wal);
        self.heard_operations = disk.operations();
        self.inbox.push(Input::Adopted(cluster));
        Ok(())
    }

    pub fn raft(&self) -> &Raft {
        self.driver.replica().raft()
    }

    pub fn node(&self) -> NodeId {
        self.identity.node
    }

    pub fn leads(&self) -> bool {
        matches!(self.raft().role(), raft::Role::Leader(_))
    }

    /// What a probe finds here.
    pub fn peer(&self, machine_rebuild: bool, client_address: String) -> Peer {
        Peer {
            node: self.node(),
            cluster: self.identity.cluster,
            name: self.identity.name.clone(),
            client_address,
            rebuild: machine_rebuild,
            member: self.raft().applied_membership().contains(self.node()),
        }
    }

    /// Where somebody is, as far as this node knows.
    pub fn address_of(&self, node: NodeId) -> Option<&String> {
        self.heard.get(&node).or_else(|| self.found.get(&node)).or_else(|| self.book.get(&node))
    }
}
