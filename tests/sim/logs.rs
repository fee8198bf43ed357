//! What the logs hold. An entry is the same wherever its term and index are, no
//! leader stamps one with a time that has passed, and who starts again still has
//! all that it had vouched for.

use std::collections::BTreeMap;

use raftcache::fsm::{Action, Proposal};
use raftcache::raft::{Entry, EntryId, NodeId, Payload, Raft, Recovered, Write};
use raftcache::request::{Command, Expiry};

use super::checkers::deadline::{self, Change};
use super::clients::{mortal, number};

/// One entry, as its first writer wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    hash: u32,
    /// The latest stamp up to here.
    log_time_ms: u64,
    change: Option<Change>,
}

/// All logs.
#[derive(Default)]
pub struct Logs {
    known: BTreeMap<EntryId, Known>,
    /// The terms of what each node holds, by index.
    held: BTreeMap<NodeId, BTreeMap<u64, EntryId>>,
    /// Up to where each node may have told others that it holds the log.
    vouched: BTreeMap<NodeId, EntryId>,
    /// For whom each node voted in each term.
    votes: BTreeMap<(NodeId, u64), NodeId>,
    /// The key with deadlines, as far as entries are committed.
    pub mortal: deadline::Key,
}

fn proposal(entry: &Entry) -> Option<Proposal> {
    let Payload::Command(command) = &entry.payload else { return None };
    Some(Proposal::decode(command.clone()).expect("what is in a log can be read"))
}

/// What it does to the key with deadlines.
fn change(proposal: &Proposal) -> Option<Change> {
    let Action::Run { batch, session } = &proposal.action else { return None };
    let to = match batch.commands.first()? {
        Command::Set { key, value, expiry: Expiry::AfterMs(ms), .. } if *key == mortal() => {
            Some((number(value), *ms))
        }
        Command::Delete(key) if *key == mortal() => None,
        _ => return None,
    };
    Some(Change { to, session: session.map(|stamp| (stamp.session, stamp.sequence)) })
}

fn hash(entry: &Entry) -> u32 {
    let mut bytes = Vec::new();
    entry.encode(&mut bytes);
    crc32fast::hash(&bytes)
}

impl Logs {
    /// A node votes.
    pub fn votes(&mut self, voter: NodeId, term: u64, candidate: NodeId) {
        let before = *self.votes.entry((voter, term)).or_insert(candidate);
        assert_eq!(before, candidate, "{voter} votes twice in term {term}");
    }

    /// A node writes, and had applied entries up to this log time.
    pub fn written(&mut self, node: NodeId, write: &Write, log_time_ms: u64) {
        let held = self.held.entry(node).or_default();
        if let Some(base) = &write.base {
            // What follows the snapshot stays if it does follow it.
            match held.get(&base.last.index.0) == Some(&base.last) {
                true => *held = held.split_off(&base.last.index.0),
                false => *held = BTreeMap::from([(base.last.index.0, base.last)]),
            }
        }
        self.append(node, &write.entries, log_time_ms);
        // What is superseded may be gone as soon as the disk is told.
        let held = &self.held[&node];
        let first = write.entries.first().map_or(u64::MAX, |entry| entry.id.index.0);
        if let Some(vouched) = self.vouched.get_mut(&node)
            && vouched.index.0 >= first
        {
            *vouched = held.range(..first).next_back().map_or(EntryId::ZERO, |(_, &id)| id);
        }
    }

    /// A node has started with what was on its disk.
    pub fn started(&mut self, node: NodeId, recovered: &Recovered) {
        let base = recovered.snapshot.as_ref().map_or(EntryId::ZERO, |meta| meta.last);
        self.held.insert(node, BTreeMap::from([(base.index.0, base)]));
        self.append(node, &recovered.entries, 0);
        let state = &recovered.hard_state;
        let voted = self.votes.range((node, 0)..=(node, u64::MAX)).next_back();
        if let Some((&(_, term), &candidate)) = voted {
            assert!(state.term.0 >= term, "{node} has forgotten term {term}");
            let remembers = state.term.0 > term || state.vote == Some(candidate);
            assert!(remembers, "{node} has forgotten its vote in term {term}");
        }
        let Some(vouched) = self.vouched.get(&node) else { return };
        let held = self.held[&node].get(&vouched.index.0);
        let has = base.index >= vouched.index || held == Some(vouched);
        assert!(has, "{node} has lost {vouched:?}, for which it had vouched");
    }

    fn append(&mut self, node: NodeId, entries: &[Entry], log_time_ms: u64) {
        let held = self.held.entry(node).or_default();
        let Some(first) = entries.first() else { return };
        held.split_off(&first.id.index.0);
        let before = held.last_key_value().and_then(|(_, id)| self.known.get(id));
        let mut latest_ms = before.map_or(0, |known| known.log_time_ms);
        for entry in entries {
            let proposal = proposal(entry);
            // Who writes it first is the leader, which made it.
            let is_new = !self.known.contains_key(&entry.id);
            let goes_on = proposal.as_ref().is_none_or(|it| it.stamp_ms >= log_time_ms);
            assert!(!is_new || goes_on, "log time goes back at {:?} of {node}", entry.id);
            latest_ms = latest_ms.max(proposal.as_ref().map_or(0, |it| it.stamp_ms));
            let change = proposal.as_ref().and_then(change);
            let new = Known { hash: hash(entry), log_time_ms: latest_ms, change };
            let known = *self.known.entry(entry.id).or_insert(new);
            assert_eq!(known.hash, new.hash, "{:?} is something else at {node}", entry.id);
            latest_ms = known.log_time_ms;
            held.insert(entry.id.index.0, entry.id);
        }
    }

    /// After a turn: so much is durable, and others may have been told.
    pub fn turned(&mut self, raft: &Raft) {
        let (node, index) = (raft.id(), raft.durable_index());
        let held = self.held.get(&node).and_then(|held| held.get(&index.0));
        if let Some(&durable) = held {
            self.vouched.insert(node, durable);
        }
        // A leader is the first to know, and holds all of it.
        for index in self.mortal.next()..=raft.commit().0 {
            let id = self.held.get(&node).and_then(|held| held.get(&index));
            let known = id.and_then(|id| self.known.get(id));
            let (time_ms, change) = known.map_or((0, None), |it| (it.log_time_ms, it.change));
            self.mortal.committed(time_ms, change);
        }
    }
}
