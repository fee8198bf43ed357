//! Whole replicas, each behind its driver, over a network, disks and clocks
//! that are plain values: one test owns time and decides what is lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::files::Files;
use raftcache::fsm::{Fsm, Limits};
use raftcache::raft::{
    self, ClusterId, Entry, EntryId, HardState, Index, Member, Membership, NodeId, Payload, Raft,
    ReadMode, Recovered, Role, Term, Time, Write,
};
use raftcache::replica::{
    Config, Driver, Effects, Input, Now, Peer, PeerMessage, Probe, Replica, Ticket,
};
use raftcache::request::{MemoryLimit, Reply, Request};

/// A wall clock to begin with, milliseconds since 1970.
pub const WALL_MS: u64 = 1_700_000_000_000;

pub const CLUSTER: ClusterId = ClusterId(77);

pub struct Node {
    pub driver: Driver,
    inbox: Vec<Input>,
    disk: Vec<Write>,
    journal: Recovered,
    pub files: Files,
    wake_at: Option<Time>,
    pub drained: bool,
    pub removed: bool,
    /// How many bytes of entries its disk has room for.
    pub room_bytes: u64,
}

/// A cluster, and everything between its nodes.
pub struct Cluster {
    pub nodes: BTreeMap<NodeId, Node>,
    pub replies: BTreeMap<(NodeId, Ticket), Reply>,
    pub cut: BTreeSet<(NodeId, NodeId)>,
    /// Who answers a probe of an address.
    pub found: BTreeMap<String, Peer>,
    network: VecDeque<(NodeId, NodeId, PeerMessage)>,
    pub now_ms: u64,
    pub read_mode: ReadMode,
    pub memory: MemoryLimit,
    /// How much log there may be before a snapshot is taken; if that is little,
    /// nothing that is applied stays in memory either.
    pub snapshot_log_bytes: u64,
    /// Why nodes do not serve. A test that expects none asserts so by itself.
    pub faults: BTreeMap<NodeId, String>,
    /// Whether a fault is no surprise.
    pub may_fault: bool,
    /// Disks that make nothing durable.
    pub stuck: BTreeSet<NodeId>,
    /// Processes that do nothing at all; what arrives for them waits.
    pub paused: BTreeSet<NodeId>,
    /// What is said of snapshots gets lost.
    pub no_snapshots: bool,
    /// What these say of their states gets lost.
    pub discreet: BTreeSet<NodeId>,
    /// Everything that consensus or a client of another node says arrives twice.
    pub doubled: bool,
    /// How far the wall clocks are ahead of the time that passes.
    pub wall_ahead_ms: BTreeMap<NodeId, i64>,
    numbers: u64,
}

/// Of three, the one that is neither.
pub fn third(one: NodeId, another: NodeId) -> NodeId {
    (1..=3).map(id).find(|&node| node != one && node != another).expect("a third")
}

pub fn id(number: u128) -> NodeId {
    NodeId(number)
}

fn member(number: u128) -> Member {
    Member {
        name: format!("node{number}"),
        peer_address: format!("peer{number}"),
        client_address: format!("client{number}"),
        voter: true,
    }
}

impl Cluster {
    /// Voters 1 to `count`, with a leader.
    pub fn new(count: u128) -> Self {
        Self::with(count, |_| {})
    }

    pub fn with_read_mode(count: u128, read_mode: ReadMode) -> Self {
        Self::with(count, |cluster| cluster.read_mode = read_mode)
    }

    /// As [`Cluster::new`], with other settings.
    pub fn with(count: u128, set: impl FnOnce(&mut Self)) -> Self {
        let mut membership = Membership::default();
        (1..=count).for_each(|n| membership.insert(id(n), member(n)));
        let first = Entry { id: EntryId::new(1, 1), payload: Payload::Membership(membership) };
        let hard_state = HardState { term: Term(1), vote: None, commit: Index(0) };
        let journal = Recovered { hard_state, snapshot: None, entries: vec![first] };
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            replies: BTreeMap::new(),
            cut: BTreeSet::new(),
            found: BTreeMap::new(),
            network: VecDeque::new(),
            now_ms: 1000,
            read_mode: ReadMode::Lease,
            memory: MemoryLimit { bytes: 1 << 30, ..MemoryLimit::default() },
            snapshot_log_bytes: u64::MAX,
            faults: BTreeMap::new(),
            may_fault: false,
            stuck: BTreeSet::new(),
            paused: BTreeSet::new(),
            no_snapshots: false,
            discreet: BTreeSet::new(),
            doubled: false,
            wall_ahead_ms: BTreeMap::new(),
            numbers: 0,
        };
        set(&mut cluster);
        (1..=count).for_each(|n| cluster.start(n, journal.clone()));
        cluster.run_until("a leader", |cluster| cluster.leader().is_some());
        cluster
    }

    pub fn start(&mut self, number: u128, journal: Recovered) {
        self.start_with(number, journal, Files::default());
    }

    /// Starts a node with what its disk held.
    pub fn start_with(&mut self, number: u128, journal: Recovered, files: Files) {
        let seed = self.now_ms * 31 + number as u64;
        let small = self.snapshot_log_bytes < u64::MAX;
        let defaults = raft::Config::new(id(number), seed);
        let config = raft::Config {
            read_mode: self.read_mode,
            log_tail_bytes: if small { 0 } else { defaults.log_tail_bytes },
            append_bytes: if small { 2000 } else { defaults.append_bytes },
            ..defaults
        };
        let raft = Raft::new(config, journal.clone(), self.now().time);
        let config = Config {
            cluster: (!journal.entries.is_empty()).then_some(CLUSTER),
            snapshot_log_bytes: self.snapshot_log_bytes,
            memory: self.memory,
            ..Config::new(format!("node{number}"), 0)
        };
        let last = journal.snapshot.as_ref().map(|meta| meta.last);
        let fsm = last.map_or_else(|| Fsm::new(Limits::default()), |last| files.load(last));
        let newest = last.map(|last| files.available(last));
        let driver = Driver::new(Replica::new(config, raft, fsm, newest));
        let node = Node {
            driver,
            inbox: Vec::new(),
            disk: Vec::new(),
            journal,
            files,
            wake_at: Some(Time::ZERO),
            drained: false,
            removed: false,
            room_bytes: u64::MAX,
        };
        self.nodes.insert(id(number), node);
    }

    /// Starts a node that has not joined, and can be found at `peerN`.
    pub fn start_newcomer(&mut self, number: u128) {
        self.start(number, Recovered::default());
        let Member { name, peer_address, client_address, .. } = member(number);
        let (rebuild, member) = (false, false);
        let peer = Peer { node: id(number), cluster: None, name, client_address, rebuild, member };
        self.found.insert(peer_address, peer);
    }

    /// The process ends at once and starts again with what was durable.
    pub fn restart(&mut self, node: NodeId) {
        self.restart_changed(node, |_| {});
    }

    /// As [`Cluster::restart`], with something else in its journal.
    pub fn restart_changed(&mut self, node: NodeId, change: impl FnOnce(&mut Recovered)) {
        let Node { mut journal, files, .. } = self.nodes.remove(&node).expect("it runs");
        change(&mut journal);
        self.start_with(node.0, journal, files);
    }

    /// The snapshot files of a node that is about to end.
    pub fn take_files(&mut self, node: NodeId) -> Files {
        std::mem::take(&mut self.nodes.get_mut(&node).expect("it runs").files)
    }

    /// The process ends at once; what was not durable is lost.
    pub fn kill(&mut self, node: NodeId) -> Recovered {
        self.nodes.remove(&node).expect("it runs").journal
    }

    /// As [`Cluster::kill`], but the disk has done all that it had been told to,
    /// and nobody has heard of it.
    pub fn kill_after_its_writes(&mut self, node: NodeId) -> Recovered {
        complete_writes(self.nodes.get_mut(&node).expect("it runs"));
        self.kill(node)
    }

    pub fn now(&self) -> Now {
        Now { time: Time::from_millis(self.now_ms), wall_ms: WALL_MS + self.now_ms }
    }

    /// What the clocks of this node show.
    fn now_at(&self, node: NodeId) -> Now {
        let ahead_ms = self.wall_ahead_ms.get(&node).copied().unwrap_or(0);
        let Now { time, wall_ms } = self.now();
        Now { time, wall_ms: wall_ms.saturating_add_signed(ahead_ms) }
    }

    pub fn leader(&self) -> Option<NodeId> {
        let leads = |node: &Node| matches!(node.driver.replica().raft().role(), Role::Leader(_));
        let terms = self.nodes.iter().filter(|(_, node)| leads(node));
        terms.max_by_key(|(_, node)| node.driver.replica().raft().term()).map(|(&id, _)| id)
    }

    pub fn follower(&self) -> NodeId {
        let leader = self.leader();
        *self.nodes.keys().find(|&&node| Some(node) != leader).expect("there is one")
    }

    /// A client of this node asks on this connection.
    pub fn ask(&mut self, node: NodeId, connection: u64, request: Request) -> (NodeId, Ticket) {
        self.numbers += 1;
        let ticket = Ticket { connection, number: self.numbers };
        let input = Input::Request { ticket, request };
        self.nodes.get_mut(&node).expect("it runs").inbox.push(input);
        (node, ticket)
    }

    pub fn input(&mut self, node: NodeId, input: Input) {
        self.nodes.get_mut(&node).expect("it runs").inbox.push(input);
    }

    pub fn reply(&self, asked: (NodeId, Ticket)) -> Option<&Reply> {
        self.replies.get(&asked)
    }

    /// Asks and waits for the answer.
    pub fn call(&mut self, node: NodeId, connection: u64, request: Request) -> Reply {
        let asked = self.ask(node, connection, request);
        self.wait_for(asked)
    }

    pub fn wait_for(&mut self, asked: (NodeId, Ticket)) -> Reply {
        self.run_until("an answer", |cluster| cluster.replies.contains_key(&asked));
        self.replies.remove(&asked).expect("it is there")
    }

    /// Lets time pass until something has happened.
    pub fn run_until(&mut self, what: &str, mut happened: impl FnMut(&Self) -> bool) {
        self.run_until_busy(what, |cluster| happened(cluster));
    }

    /// As [`Cluster::run_until`]; the condition may ask for something more.
    pub fn run_until_busy(&mut self, what: &str, mut happened: impl FnMut(&mut Self) -> bool) {
        let give_up_at = self.now_ms + 20_000;
        while !happened(self) {
            assert!(self.now_ms < give_up_at, "waited 20 s for {what}: {:?}", self.states());
            self.millisecond();
        }
    }

    pub fn run_ms(&mut self, millis: u64) {
        (0..millis).for_each(|_| self.millisecond());
    }

    fn states(&self) -> Vec<String> {
        self.nodes.values().map(|node| format!("{:?}", node.driver.replica())).collect()
    }

    /// One millisecond: disks, network, then every node that has a reason.
    fn millisecond(&mut self) {
        self.now_ms += 1;
        for (&id, node) in &mut self.nodes {
            if !self.stuck.contains(&id) {
                complete_writes(node);
            }
        }
        for (from, to, message) in std::mem::take(&mut self.network) {
            let is_state = matches!(message, PeerMessage::State(_));
            let lost = self.cut.contains(&(from, to))
                || !self.nodes.contains_key(&from)
                || (is_state && self.discreet.contains(&from))
                || (self.no_snapshots && matches!(message, PeerMessage::Snapshot(_)));
            if let (false, Some(node)) = (lost, self.nodes.get_mut(&to)) {
                let twice = self.doubled && !matches!(message, PeerMessage::Snapshot(_));
                let copy = twice.then(|| Input::Peer { from, message: message.clone() });
                node.inbox.push(Input::Peer { from, message });
                node.inbox.extend(copy);
            }
        }
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        ids.into_iter().for_each(|id| self.turn(id));
    }

    fn turn(&mut self, id: NodeId) {
        if self.paused.contains(&id) {
            return;
        }
        let now = self.now_at(id);
        let node = self.nodes.get_mut(&id).expect("it runs");
        let is_due = node.wake_at.is_some_and(|at| at <= now.time);
        if node.inbox.is_empty() && !is_due {
            return;
        }
        let arrived = std::mem::take(&mut node.inbox);
        let effects = node.driver.turn(arrived.into_iter(), || now);
        node.wake_at = effects.wake_at;
        node.drained |= effects.drained;
        node.removed |= effects.removed;
        node.disk.extend(effects.write.clone());
        self.route(id, effects);
    }

    fn route(&mut self, id: NodeId, effects: Effects) {
        for (ticket, reply) in effects.replies {
            let earlier = self.replies.insert((id, ticket), reply);
            assert!(earlier.is_none(), "{ticket:?} was answered twice");
        }
        for (to, message) in effects.messages {
            self.network.push_back((id, to, message));
        }
        for Probe { id: probe, address } in effects.probes {
            let found = self.found.get(&address).cloned();
            let found = found.ok_or_else(|| format!("cannot reach {address}"));
            self.input(id, Input::Probed { id: probe, found });
        }
        assert!(effects.fault.is_none() || self.may_fault, "{:?}", effects.fault);
        match effects.fault {
            Some(fault) => self.faults.insert(id, fault),
            None => self.faults.remove(&id),
        };
        let node = self.nodes.get_mut(&id).expect("it runs");
        for fetch in effects.fetch {
            let read = node.journal_read(&fetch);
            node.inbox.push(Input::Fetched { fetch, read });
        }
        for job in effects.snapshots {
            let report = node.files.work(job);
            node.inbox.extend(report.map(Input::Snapshot));
        }
        if let Some(last) = effects.snapshot_taken {
            node.compact(last);
        }
    }
}

impl Node {
    /// What is on its disk.
    pub fn journal_entries(&self) -> &[Entry] {
        &self.journal.entries
    }

    fn log_bytes(&self) -> u64 {
        self.journal.entries.iter().map(|entry| entry.size() as u64).sum()
    }

    fn journal_read(&self, fetch: &raft::Fetch) -> Option<(EntryId, Vec<Entry>)> {
        let base = self.journal.snapshot.as_ref().map_or(EntryId::ZERO, |meta| meta.last);
        let before = self.journal.entries.iter().map(|entry| entry.id);
        let prev = [base].into_iter().chain(before).find(|id| id.index == fetch.from.prev())?;
        let wanted = |entry: &&Entry| entry.id.index >= fetch.from && entry.id.index <= fetch.to;
        Some((prev, self.journal.entries.iter().filter(wanted).take(5).cloned().collect()))
    }

    /// A snapshot covers everything up to here.
    fn compact(&mut self, last: EntryId) {
        self.journal.entries.retain(|entry| entry.id.index > last.index);
        self.journal.snapshot = Some(self.files.meta(last));
        self.tell_journal();
    }

    /// The disk has room for so many bytes of entries from now on.
    pub fn set_room(&mut self, bytes: u64) {
        self.room_bytes = bytes;
        self.tell_journal();
    }

    fn tell_journal(&mut self) {
        let (log_bytes, room_bytes) = (self.log_bytes(), self.room_bytes);
        self.inbox.push(Input::Journal { log_bytes, room_bytes });
    }
}

fn complete_writes(node: &mut Node) {
    for write in std::mem::take(&mut node.disk) {
        if let Some(first) = write.entries.first() {
            node.journal.entries.retain(|entry| entry.id.index < first.id.index);
        }
        let commands = |entry: &&Entry| matches!(entry.payload, Payload::Command(_));
        let write_bytes: usize = write.entries.iter().filter(commands).map(Entry::size).sum();
        node.journal.entries.extend(write.entries);
        node.journal.hard_state = write.hard_state;
        let last = node.journal.entries.last().map_or(Index(0), |entry| entry.id.index);
        node.journal.hard_state.commit = write.hard_state.commit.min(last);
        if let Some(base) = write.base {
            node.journal.entries.retain(|entry| entry.id.index > base.last.index);
            node.journal.snapshot = Some(base);
        }
        if node.room_bytes < u64::MAX {
            let left = node.room_bytes.checked_sub(write_bytes as u64);
            node.room_bytes = left.expect("it is given no more than it has room for");
        }
        let (log_bytes, room_bytes) = (node.log_bytes(), node.room_bytes);
        node.inbox.push(Input::Durable { seq: write.seq, log_bytes, room_bytes });
    }
}
