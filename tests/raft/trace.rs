//! How a story is written down: one line per thing said, written or applied.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use raftcache::raft::message::AppendResponse;
use raftcache::raft::{
    Entry, Envelope, HardState, Index, Message, NodeId, Raft, ReadId, Role, Term, Write,
};

use super::harness::Packet;

/// Names reads by the order in which they were asked for: their real ids start
/// at random.
#[derive(Default)]
pub struct ReadNames {
    names: BTreeMap<(NodeId, ReadId), usize>,
}

impl ReadNames {
    /// The name of a read, given to it when it is first seen.
    pub fn name(&mut self, node: NodeId, id: ReadId) -> String {
        let next = self.names.keys().filter(|(other, _)| *other == node).count() + 1;
        format!("r{}", self.names.entry((node, id)).or_insert(next))
    }
}

/// The word for a kind of packet in scripts.
pub fn kind(packet: &Packet) -> &'static str {
    let Packet::Message(envelope) = packet else { return "snapshot" };
    match &envelope.message {
        Message::PreVote(_) => "pre-vote",
        Message::PreVoteResponse(_) => "pre-vote-answer",
        Message::RequestVote(_) => "vote",
        Message::VoteResponse(_) => "vote-answer",
        Message::Append(_) => "append",
        Message::AppendResponse(_) => "append-answer",
        Message::Heartbeat(_) => "heartbeat",
        Message::HeartbeatResponse(_) => "heartbeat-answer",
        Message::ReadIndex(_) => "read-index",
        Message::ReadIndexResponse(_) => "read-index-answer",
        Message::TimeoutNow => "timeout-now",
        Message::Outdated => "outdated",
    }
}

/// One packet, on one line.
pub fn packet(packet: &Packet, reads: &mut ReadNames) -> String {
    match packet {
        Packet::Message(envelope) => message(envelope, reads),
        Packet::Snapshot { from, to, term, meta } => {
            format!("{from} → {to} t{term} snapshot {} {}", meta.last, meta.membership)
        }
    }
}

fn message(envelope: &Envelope, reads: &mut ReadNames) -> String {
    let Envelope { from, to, term, message } = envelope;
    let said = match message {
        Message::PreVote(m) => format!("would you elect me in term {}? last {}", m.next, m.last),
        Message::PreVoteResponse(m) => format!("would in term {}: {}", m.next, yes(m.granted)),
        Message::RequestVote(m) if m.transfer => format!("elect me, as asked! last {}", m.last),
        Message::RequestVote(m) => format!("elect me! last {}", m.last),
        Message::VoteResponse(m) => format!("vote: {}", yes(m.granted)),
        Message::Append(m) => {
            format!("append after {} {} commit {}", m.prev, entries(&m.entries), m.commit)
        }
        Message::AppendResponse(AppendResponse::Accepted { matched, received }) => {
            format!("accepted, matched {matched} received {received}")
        }
        Message::AppendResponse(AppendResponse::Rejected { at, hint }) => {
            format!("rejected at {at}, try {hint}")
        }
        Message::Heartbeat(m) => format!("heartbeat {} commit {}", m.round, m.commit),
        Message::HeartbeatResponse(m) => format!(
            "heard {}, matched {} received {} durable {}",
            m.round, m.matched, m.received, m.durable
        ),
        Message::ReadIndex(m) => format!("read index for {}?", reads.name(*from, m.id)),
        Message::ReadIndexResponse(m) => {
            format!("read index for {} is {}", reads.name(*to, m.id), m.index)
        }
        Message::TimeoutNow => "stand for election now!".to_owned(),
        Message::Outdated => "that is outdated".to_owned(),
    };
    format!("{from} → {to} t{term} {said}")
}

fn yes(granted: bool) -> &'static str {
    if granted { "yes" } else { "no" }
}

/// Entries, each as id and payload.
pub fn entries(entries: &[Entry]) -> String {
    let list: Vec<String> = entries.iter().map(|entry| format!("{entry:?}")).collect();
    format!("[{}]", list.join(" "))
}

/// What a write holds.
pub fn write(write: &Write) -> String {
    let HardState { term, vote, .. } = write.hard_state;
    let mut line = format!("term {term}");
    if let Some(vote) = vote {
        let _ = write!(line, " vote {vote}");
    }
    if let Some(base) = &write.base {
        let _ = write!(line, " base {}", base.last);
    }
    if !write.entries.is_empty() {
        let _ = write!(line, " {}", entries(&write.entries));
    }
    line
}

/// What is worth a line when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    role: &'static str,
    term: Term,
    leader: Option<NodeId>,
    members: String,
    commit: Index,
    removed: bool,
}

impl Standing {
    /// As it is now.
    pub fn of(raft: &Raft) -> Self {
        Self {
            role: raft.role().name(),
            term: raft.term(),
            leader: raft.leader(),
            members: raft.membership().to_string(),
            commit: raft.commit(),
            removed: raft.is_removed(),
        }
    }

    /// A line for everything that has changed since `before`.
    pub fn changes(&self, before: &Self, id: NodeId) -> Vec<String> {
        let mut lines = Vec::new();
        let stands = |s: &Self| (s.role, s.term, s.leader);
        if stands(self) != stands(before) {
            let of = match self.leader {
                Some(leader) if leader != id => format!(" of {leader}"),
                _ => String::new(),
            };
            lines.push(format!("{id} is {}{of} in term {}", self.role, self.term));
        }
        if self.members != before.members {
            lines.push(format!("{id} counts {}", self.members));
        }
        if self.commit != before.commit {
            lines.push(format!("{id} knows that {} is committed", self.commit));
        }
        if self.removed && !before.removed {
            lines.push(format!("{id} is removed for good"));
        }
        lines
    }
}

/// Everything about one node on one line.
pub fn status(raft: &Raft) -> String {
    let mut line = Standing::of(raft).line(raft.id());
    let _ = write!(
        line,
        ", last {} commit {} applied {} durable {}",
        raft.last(),
        raft.commit(),
        raft.applied().index,
        raft.durable_index()
    );
    if let Role::Leader(leader) = raft.role() {
        for (node, progress) in leader.progress() {
            let state = match &progress.state {
                raftcache::raft::progress::State::Probe { .. } => "probe",
                raftcache::raft::progress::State::Replicate(_) => "replicate",
                raftcache::raft::progress::State::Snapshot { .. } => "snapshot",
            };
            let lost = if progress.rolled_back { " rolled back!" } else { "" };
            let (matched, next) = (progress.matched, progress.next);
            let _ = write!(line, "\n  {node}: {state} matched {matched} next {next}{lost}");
        }
    }
    line
}

impl Standing {
    fn line(&self, id: NodeId) -> String {
        let leader = self.leader.filter(|&leader| leader != id);
        let of = leader.map(|leader| format!(" of {leader}")).unwrap_or_default();
        let removed = if self.removed { " removed" } else { "" };
        format!("{id}: {}{of} in term {} of {}{removed}", self.role, self.term, self.members)
    }
}
