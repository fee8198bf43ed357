//! What is looked at after every turn: promises that must hold at every moment,
//! whatever has failed.

use std::collections::{BTreeMap, BTreeSet};

use raftcache::raft::{Message, NodeId, Write};
use raftcache::replica::{Input, PeerMessage, SnapshotReport};
use raftcache::wal::Disk;

use super::checkers::linearizability::History;
use super::checkers::{stale, ttl};
use super::logs::Logs;
use super::node::{Machine, Moment, Process, Wrong};
use super::plan::{Plan, SECOND};
use super::trace::Trace;

/// No more than this may wait anywhere.
const QUEUE_LIMIT: usize = 5_000;

/// No data set is larger.
const MEMORY_LIMIT_BYTES: u64 = 1 << 20;

/// No disk holds more.
const DISK_LIMIT_BYTES: u64 = 64 << 20;

/// What was seen of one process at its last turn.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    term: u64,
    commit: u64,
    applied: u64,
    last: u64,
    log_time_ms: u64,
}

#[derive(Default)]
pub struct Judge {
    pub history: History,
    pub mortal: Vec<ttl::Event>,
    pub stale: Vec<stale::Seen>,
    /// The results of increments, and how many have none.
    pub counted: Vec<i64>,
    pub not_counted: usize,
    /// Who leads, or led, in each term.
    leaders: BTreeMap<u64, NodeId>,
    pub logs: Logs,
    /// The state that belongs to each index.
    states: BTreeMap<u64, u64>,
    seen: BTreeMap<usize, Seen>,
    /// The membership last seen: how many voters, and its hash.
    voters: usize,
    members: u64,
    /// The highest index that anybody has called committed.
    pub commit: u64,
    /// Until when each machine has stood still.
    still: BTreeMap<usize, u64>,
    /// When each machine last took a snapshot.
    taken: BTreeMap<usize, u64>,
    /// Machines whose next syncs may fail.
    failing: BTreeSet<usize>,
}

fn files(machine: &Machine) -> Vec<(String, usize)> {
    let names = machine.disk.list().unwrap();
    let size = |name: &String| machine.disk.content(name).unwrap().len();
    names.into_iter().map(|name| (name.clone(), size(&name))).collect()
}

impl Judge {
    pub fn started(&mut self, number: usize, machine: &Machine) {
        let Some(process) = &machine.process else { return };
        let raft = process.raft();
        self.logs.started(raft.id(), &process.recovered);
        self.seen.insert(
            number,
            Seen {
                term: raft.term().0,
                applied: raft.applied().index.0,
                last: raft.last().index.0,
                ..Seen::default()
            },
        );
    }

    pub fn ended(&mut self, number: usize) {
        self.failing.remove(&number);
    }

    /// The next syncs of this machine may fail.
    pub fn expect_failed_sync(&mut self, number: usize) {
        self.failing.insert(number);
    }

    pub fn may_fail_sync(&self, number: usize) -> bool {
        self.failing.contains(&number)
    }

    /// It does nothing until then.
    pub fn stands_still(&mut self, number: usize, until: u64) {
        let still = self.still.entry(number).or_default();
        *still = until.max(*still);
    }

    /// Whether it has stood still since then.
    pub fn stood_still(&self, number: usize, since: u64) -> bool {
        self.still.get(&number).is_some_and(|&until| until >= since)
    }

    /// A replica says that it must not go on.
    pub fn fault(&mut self, number: usize, machine: &Machine, fault: Option<String>) {
        if let Some(fault) = fault.filter(|_| machine.wrong == Wrong::No) {
            panic!("n{} (damaged: {}): {fault}", number + 1, machine.damaged);
        }
    }

    /// What somebody may count on in this message.
    pub fn promise_in(message: &PeerMessage) -> Option<Moment> {
        let PeerMessage::Raft { envelope, .. } = message else { return None };
        match envelope.message {
            Message::RequestVote(_) => Some(Moment::Vote),
            Message::VoteResponse(answer) => answer.granted.then_some(Moment::Vote),
            Message::AppendResponse(_) => Some(Moment::Acknowledgement),
            _ => None,
        }
    }

    /// Whether this asks another node to lead.
    pub fn hands_over(message: &PeerMessage) -> bool {
        let PeerMessage::Raft { envelope, .. } = message else { return false };
        matches!(envelope.message, Message::TimeoutNow)
    }

    pub fn said(&mut self, message: &PeerMessage) {
        let PeerMessage::Raft { envelope, .. } = message else { return };
        let vote = match &envelope.message {
            Message::RequestVote(_) => envelope.from,
            Message::VoteResponse(answer) if answer.granted => envelope.to,
            _ => return,
        };
        self.logs.votes(envelope.from, envelope.term.0, vote);
    }

    pub fn snapshot(&mut self, number: usize, input: &Input, now: u64, trace: &mut Trace) {
        match input {
            Input::Snapshot(SnapshotReport::Written { .. }) => {
                trace.count("snapshots taken");
                let before = self.taken.insert(number, now);
                if before.is_some_and(|before| now - before < SECOND) {
                    trace.count("snapshots in short succession");
                }
            }
            Input::Snapshot(SnapshotReport::Complete { .. }) => trace.count("snapshots received"),
            Input::Snapshot(SnapshotReport::NotReceived(_)) => trace.count("snapshots refused"),
            _ => {}
        }
    }

    /// A node writes.
    pub fn writes(&mut self, number: usize, node: NodeId, write: &Write) {
        let log_time_ms = self.seen.get(&number).map_or(0, |seen| seen.log_time_ms);
        self.logs.written(node, write, log_time_ms);
    }

    /// What its node had applied at its last turn.
    pub fn applied(&self, number: usize) -> u64 {
        self.seen.get(&number).map_or(0, |seen| seen.applied)
    }

    /// After a turn of this machine's node.
    pub fn look(
        &mut self,
        number: usize,
        machine: &Machine,
        plan: &Plan,
        now: u64,
        trace: &mut Trace,
    ) {
        let Some(process) = &machine.process else { return };
        let (raft, fsm) = (process.raft(), process.driver.replica().fsm());
        let now_seen = Seen {
            term: raft.term().0,
            commit: raft.commit().0,
            applied: raft.applied().index.0,
            last: raft.last().index.0,
            log_time_ms: fsm.log_time_ms(),
        };
        let before = self.seen.insert(number, now_seen).unwrap_or_default();
        let log_ms = now_seen.log_time_ms % 100_000_000;
        let numbers = [number as u64, now_seen.term, now_seen.last, now_seen.commit, log_ms];
        trace.note(now, "turn", &numbers);
        let name = &machine.name;
        assert!(now_seen.term >= before.term, "{name}: a term goes back");
        assert!(now_seen.commit >= before.commit, "{name}: a commit index goes back");
        assert!(now_seen.applied >= before.applied, "{name}: an applied index goes back");
        assert!(now_seen.applied <= now_seen.commit, "{name}: applied and not committed");
        assert!(now_seen.log_time_ms >= before.log_time_ms, "{name}: log time goes back");
        if now_seen.last < before.last {
            assert!(now_seen.last >= before.commit, "{name}: what was committed is cut off");
            trace.count("truncations");
        }
        self.commit = self.commit.max(now_seen.commit);
        if process.leads() {
            let leader = raft.id();
            let known = self.leaders.insert(now_seen.term, leader);
            let known = known.unwrap_or_else(|| {
                trace.count("elections");
                leader
            });
            assert_eq!(known, leader, "two leaders of term {}", now_seen.term);
            if now_seen.commit > before.commit && raft.durable_index() < raft.commit() {
                trace.count("commits ahead of own disk");
            }
        }
        if now_seen.applied != before.applied && machine.wrong == Wrong::No {
            self.compare_states(process, name, trace);
        }
        let jobs = process.journal.as_ref().map_or(0, |journal| journal.queue.len())
            + process.snapshots.as_ref().map_or(0, |snapshots| snapshots.queue.len());
        assert!(process.inbox.len() + jobs < QUEUE_LIMIT, "{name}: too much waits");
        assert!(fsm.memory_bytes() < MEMORY_LIMIT_BYTES, "{name}: too much is in memory");
        let log_bytes = raft.log_bytes();
        let most = plan.log_limit_bytes();
        assert!(log_bytes < most, "{name}: {log_bytes} bytes of log in memory, over {most}");
        let used = machine.disk.used_bytes();
        assert!(used < DISK_LIMIT_BYTES, "{name}: the disk fills up: {:?}", files(machine));
    }

    fn compare_states(&mut self, process: &Process, name: &str, trace: &mut Trace) {
        let (raft, fsm) = (process.raft(), process.driver.replica().fsm());
        let index = raft.applied().index.0;
        assert_eq!(index, fsm.applied(), "{name}: consensus and the state differ");
        let mut members = Vec::new();
        raft.applied_membership().encode(&mut members);
        let members = u64::from(crc32fast::hash(&members));
        let state = fsm.state_hash(members);
        let known = *self.states.entry(index).or_insert(state);
        assert_eq!(known, state, "{name}: another state at index {index} than others had");
        let newest = self.states.last_key_value().is_some_and(|(&newest, _)| newest == index);
        if newest && members != self.members {
            let voters = raft.applied_membership().voters().count();
            if voters > self.voters {
                trace.count("promotions");
            }
            if voters < self.voters {
                trace.count("removals");
            }
            trace.count("membership changes");
            (self.members, self.voters) = (members, voters);
        }
    }
}
