//! A cluster in which nothing happens by itself.
//!
//! Each node is a core, a disk, the writes it still owes that disk, and a clock
//! of its own. Messages and snapshots in flight lie in one list. Whoever drives
//! it, a script or a seed, decides what arrives, what is lost, what reaches the
//! disk, how late it is and who dies; the [`Judge`] looks on.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use raftcache::raft::{
    Config, Entry, EntryId, Envelope, Fetch, Index, Member, Membership, NodeId, Raft, ReadId,
    Ready, SnapshotMeta, Term, Time, Write,
};

use super::disk::Disk;
use super::judge::Judge;

/// What the journal found for a fetch.
pub type Found = Option<(EntryId, Vec<Entry>)>;

/// A read that waits on the node it was asked of.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// Its id.
    pub id: ReadId,
    /// What was acknowledged when it arrived.
    pub must_see: Index,
}

/// What came of a turn.
pub struct Turn {
    /// What the core gave out.
    pub ready: Ready,
    /// What was applied.
    pub applied: Vec<Entry>,
    /// Up to here reads were served.
    pub reads: Option<ReadId>,
    /// Whether there is more to apply.
    pub more: bool,
}

/// One machine.
pub struct Node {
    /// Which.
    pub id: NodeId,
    /// The settings for its next start; the seed is drawn anew each time.
    pub config: Config,
    /// The process, while it runs.
    pub raft: Option<Raft>,
    /// What the disk has confirmed.
    pub disk: Disk,
    /// What the disk will hold once it has done all it owes: the core's log.
    pub log: Disk,
    /// What the disk owes, oldest first.
    pub writes: VecDeque<Write>,
    /// What the clock shows.
    pub clock: Time,
    /// The last entry applied to the state machine.
    pub applied: EntryId,
    /// How many entries it applies in one turn.
    pub applies: usize,
    /// Reads not served yet.
    pub reads: Vec<Waiting>,
    /// What the journal has found and not yet handed in.
    pub found: VecDeque<(Fetch, Found)>,
}

impl Node {
    /// The process; it runs.
    pub fn raft(&self) -> &Raft {
        self.raft.as_ref().expect("the process runs")
    }
}

/// What is on its way between two nodes.
#[derive(Debug, Clone)]
pub enum Packet {
    /// A message.
    Message(Envelope),
    /// A whole snapshot.
    Snapshot {
        /// The leader that sends it.
        from: NodeId,
        /// The follower that needs it.
        to: NodeId,
        /// The leader's term.
        term: Term,
        /// What it contains.
        meta: SnapshotMeta,
    },
}

impl Packet {
    /// From whom, to whom.
    pub fn way(&self) -> (NodeId, NodeId) {
        match self {
            Self::Message(envelope) => (envelope.from, envelope.to),
            Self::Snapshot { from, to, .. } => (*from, *to),
        }
    }
}

/// All machines, and who watches them.
#[derive(Default)]
pub struct Cluster {
    /// By identity.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Checks every turn.
    pub judge: Judge,
    starts: u64,
}

/// Shorthand for identities.
pub fn n(id: u128) -> NodeId {
    NodeId(id)
}

/// A member whose name and addresses follow from its identity.
pub fn member(id: NodeId, voter: bool) -> Member {
    Member {
        name: id.to_string(),
        peer_address: format!("{id}:4001"),
        client_address: format!("{id}:3001"),
        voter,
    }
}

/// What a cluster of these voters and learners starts with.
pub fn founding(voters: &[NodeId], learners: &[NodeId]) -> SnapshotMeta {
    let mut membership = Membership::default();
    for &id in voters {
        membership.insert(id, member(id, true));
    }
    for &id in learners {
        membership.insert(id, member(id, false));
    }
    SnapshotMeta { last: EntryId::ZERO, membership }
}

impl Cluster {
    /// Adds a machine; it does not run yet.
    pub fn add(&mut self, config: Config, disk: Disk) {
        let id = config.id;
        let mut log = disk.clone();
        log.entries.clear();
        for entry in &disk.entries {
            log.entries.push(entry.clone());
            self.judge.entries_written(&log, std::slice::from_ref(entry));
        }
        let node = Node {
            id,
            config,
            raft: None,
            log,
            disk,
            writes: VecDeque::new(),
            clock: Time::ZERO,
            applied: EntryId::ZERO,
            applies: usize::MAX,
            reads: Vec::new(),
            found: VecDeque::new(),
        };
        self.nodes.insert(id, node);
    }

    /// The machine; it exists.
    pub fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a known node")
    }

    /// The process on it; it runs.
    pub fn raft(&mut self, id: NodeId) -> &mut Raft {
        self.node(id).raft.as_mut().expect("the process runs")
    }

    /// Whether the process runs.
    pub fn is_up(&self, id: NodeId) -> bool {
        self.nodes[&id].raft.is_some()
    }

    /// Those that run.
    pub fn up(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().filter(|&id| self.is_up(id)).collect()
    }

    /// Starts a process from what the disk holds, with a seed never used before.
    pub fn start(&mut self, id: NodeId, entropy: u64) {
        self.starts += 1;
        let seed = entropy.wrapping_mul(1 << 20) + self.starts;
        let node = self.node(id);
        assert!(node.raft.is_none(), "{id} runs already");
        let config = Config { seed, ..node.config.clone() };
        node.raft = Some(Raft::new(config, node.disk.recovered(), node.clock));
        node.log = node.disk.clone();
        node.applied = node.disk.snapshot.last;
    }

    /// Kills a process. Of the writes its disk owes, `kept` are carried out.
    pub fn crash(&mut self, id: NodeId, kept: usize) {
        let node = self.node(id);
        for write in node.writes.drain(..).take(kept) {
            node.disk.carry_out(&write);
        }
        node.raft = None;
        node.reads.clear();
        node.found.clear();
    }

    /// A packet arrives. False if nobody was there.
    pub fn arrive(&mut self, packet: Packet) -> bool {
        let (_, to) = packet.way();
        if !self.nodes.contains_key(&to) || !self.is_up(to) {
            return false;
        }
        let now = self.node(to).clock;
        match packet {
            Packet::Message(envelope) => self.raft(to).receive(now, envelope),
            Packet::Snapshot { term, meta, .. } => {
                self.raft(to).snapshot_received(now, term, meta);
            }
        }
        true
    }

    /// The disk carries out its oldest write and says so.
    pub fn complete_write(&mut self, id: NodeId) -> bool {
        let node = self.node(id);
        let Some(write) = node.writes.pop_front() else { return false };
        node.disk.carry_out(&write);
        self.raft(id).durable(write.seq);
        true
    }

    /// Asks a node for a fresh read.
    pub fn read(&mut self, id: NodeId) -> ReadId {
        let must_see = self.judge.acknowledged;
        let read = self.raft(id).read();
        self.node(id).reads.push(Waiting { id: read, must_see });
        read
    }

    /// The journal looks for what a leader wants to send; the answer waits.
    pub fn look_up(&mut self, id: NodeId, fetch: &Fetch) {
        let node = self.node(id);
        let found = node.disk.read(fetch);
        node.found.push_back((*fetch, found));
    }

    /// Hands in the oldest answer of the journal.
    pub fn hand_in(&mut self, id: NodeId) -> Option<(NodeId, Found)> {
        let node = self.node(id);
        let (fetch, found) = node.found.pop_front()?;
        let now = node.clock;
        self.raft(id).entries_read(now, fetch, found.clone());
        Some((fetch.node, found))
    }

    /// Takes a snapshot of what is applied, or was applied at an earlier index,
    /// and drops the journal up to it. Not before that is on the disk.
    pub fn compact(&mut self, id: NodeId, at: Option<Index>) -> bool {
        let node = self.node(id);
        let then = at.and_then(|index| node.disk.id_at(index));
        let meta = SnapshotMeta {
            last: then.unwrap_or(node.applied).min(node.applied),
            membership: node.raft().applied_membership().clone(),
        };
        let possible = node.disk.id_at(meta.last.index) == Some(meta.last)
            && meta.last.index > node.disk.snapshot.last.index;
        if possible {
            node.disk.compact(&meta);
            node.log.compact(&meta);
        }
        possible
    }

    /// The snapshot a node would send.
    pub fn snapshot_for(&self, from: NodeId, to: NodeId) -> Packet {
        let node = &self.nodes[&from];
        let meta = node.disk.snapshot.clone();
        Packet::Snapshot { from, to, term: node.raft().term(), meta }
    }

    /// One turn: whatever was fed in is judged and its outcome carried out, as
    /// far as it is the node's own business. What leaves the node is returned.
    pub fn turn(&mut self, id: NodeId) -> Turn {
        let Self { nodes, judge, .. } = self;
        let node = nodes.get_mut(&id).expect("a known node");
        let clock = node.clock;
        let raft = node.raft.as_mut().expect("the process runs");
        let voters: Vec<NodeId> = raft.membership().voters().collect();
        let ready = raft.ready(clock);
        if let Some(meta) = &ready.restore {
            judge.restored(id, meta.last);
            node.applied = meta.last;
        }
        let mut applied = Vec::new();
        while applied.len() < node.applies
            && let Some(entry) = raft.next_committed()
        {
            assert_eq!(entry.id.index, node.applied.index.next(), "{id} skips an entry");
            node.applied = entry.id;
            applied.push(entry);
        }
        let (reads, more) = (raft.released_reads(), raft.has_committed());
        if let Some(write) = &ready.write {
            node.log.carry_out(write);
            judge.entries_written(&node.log, &write.entries);
            node.writes.push_back(write.clone());
        }
        let turn = Turn { ready, applied, reads, more };
        judge.turn_taken(nodes, id, &voters, &turn);
        let node = self.nodes.get_mut(&id).expect("a known node");
        let applied = node.applied.index;
        let (served, waiting) =
            node.reads.iter().partition(|read| turn.reads.is_some_and(|upto| read.id <= upto));
        node.reads = waiting;
        let served: Vec<Waiting> = served;
        for read in served {
            self.judge.read_released(id, read.id, read.must_see, applied);
        }
        turn
    }

    /// Lets a node's clock run on.
    pub fn pass(&mut self, id: NodeId, time: Duration) {
        let node = self.node(id);
        node.clock = node.clock + time;
    }
}
