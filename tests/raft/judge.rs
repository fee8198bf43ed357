//! The judge sees every node from outside, at every moment, and knows what
//! Raft promises. It panics at the first broken promise.
//!
//! It keeps, for ever: who led which term, who was voted for by whom, what
//! preceded every entry that ever was in a log, and what was committed. Each
//! check needs only what one turn of one node brought, so a whole cluster is
//! judged in time proportional to what happens in it.

use std::collections::BTreeMap;

use raftcache::raft::message::AppendResponse;
use raftcache::raft::{
    Entry, EntryId, Envelope, Index, Message, NodeId, Payload, Raft, ReadId, Role, Term,
};

use super::disk::Disk;
use super::harness::{Node, Turn};

/// An entry that was committed, and in which term.
#[derive(Debug)]
pub struct Committed {
    /// The entry.
    pub entry: Entry,
    /// The term of the leader that committed it: every later one must hold it.
    pub term: Term,
}

/// All that is remembered.
#[derive(Debug, Default)]
pub struct Judge {
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    history: BTreeMap<EntryId, (EntryId, Payload)>,
    /// What was committed, from index 1 on.
    pub committed: Vec<Committed>,
    /// The last index that any node has applied: what clients may know of.
    pub acknowledged: Index,
    /// How many reads were released.
    pub reads_released: u64,
}

impl Judge {
    /// How many terms had a leader.
    pub fn terms(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// Log matching, by induction: whoever holds this entry holds the same one
    /// before it.
    pub fn entries_written(&mut self, log: &Disk, entries: &[Entry]) {
        for entry in entries {
            let prev = log.id_at(entry.id.index.prev()).expect("no holes");
            let before = (prev, entry.payload.clone());
            let known = self.history.entry(entry.id).or_insert_with(|| before.clone());
            assert_eq!(*known, before, "log matching: {} means two things", entry.id);
        }
    }

    /// One turn of a node is over; its writes are not carried out yet. `voters`
    /// were those who counted when it began: what it commits, it commits before
    /// it may promote a learner.
    pub fn turn_taken(
        &mut self,
        nodes: &BTreeMap<NodeId, Node>,
        id: NodeId,
        voters: &[NodeId],
        turn: &Turn,
    ) {
        let node = &nodes[&id];
        assert_eq!(node.raft().fault(), None, "{id} stopped");
        self.judge_leader(node);
        self.judge_commit(nodes, node, voters);
        for entry in &turn.applied {
            let known = &self.committed[position(entry.id.index)].entry;
            assert_eq!(entry, known, "state machine safety: {id} applies something else");
            self.acknowledged = self.acknowledged.max(entry.id.index);
        }
        for envelope in &turn.ready.messages {
            self.judge_message(nodes, node, envelope);
        }
    }

    /// A state was taken over from a snapshot.
    pub fn restored(&self, id: NodeId, last: EntryId) {
        let known = self.committed[position(last.index)].entry.id;
        assert_eq!(last, known, "{id} restored something that was not committed");
    }

    /// A read that was requested when `must_see` was acknowledged is served.
    pub fn read_released(&mut self, node: NodeId, read: ReadId, must_see: Index, applied: Index) {
        assert!(
            applied >= must_see,
            "stale read: {node} serves {read:?} at {applied}, {must_see} was acknowledged before"
        );
        self.reads_released += 1;
    }

    fn judge_leader(&mut self, node: &Node) {
        let raft = node.raft();
        if !matches!(raft.role(), Role::Leader(_)) {
            return;
        }
        let (id, term) = (raft.id(), raft.term());
        let known = self.leaders.insert(term, id);
        assert!(
            known.is_none_or(|known| known == id),
            "two leaders in term {term}: {known:?} {id}"
        );
        if known.is_none() {
            for Committed { entry, term: since } in &self.committed {
                let held = node.log.covers(entry.id);
                assert!(
                    held || *since >= term,
                    "leader completeness: {id} leads term {term} without {}, committed in {since}",
                    entry.id
                );
            }
        }
    }

    fn judge_commit(&mut self, nodes: &BTreeMap<NodeId, Node>, node: &Node, voters: &[NodeId]) {
        let raft = node.raft();
        let commit = raft.commit();
        if commit.0 as usize <= self.committed.len() {
            return;
        }
        let (id, term) = (raft.id(), raft.term());
        assert!(matches!(raft.role(), Role::Leader(_)), "{id} commits {commit} on its own");
        let last = node.log.id_at(commit).expect("a leader holds what it commits");
        let has = |voter: &&NodeId| self.is_held(&nodes[voter].disk, last);
        let on_disk = voters.iter().filter(has).count();
        assert!(
            on_disk * 2 > voters.len(),
            "{id} commits {last} in term {term}, which {on_disk} of {voters:?} have on disk"
        );
        assert_eq!(last.term, term, "Figure 8: {id} commits an earlier term's entry by counting");
        for index in self.committed.len() as u64 + 1..=commit.0 {
            let entry = node.log.entry(Index(index)).expect("not committed, hence not compacted");
            self.committed.push(Committed { entry: entry.clone(), term });
        }
    }

    fn judge_message(&mut self, nodes: &BTreeMap<NodeId, Node>, node: &Node, sent: &Envelope) {
        let id = sent.from;
        match &sent.message {
            Message::RequestVote(_) => self.judge_vote(node, sent.term, id),
            Message::VoteResponse(answer) if answer.granted => {
                self.judge_vote(node, sent.term, sent.to);
            }
            Message::Append(_) => self.judge_vote(node, sent.term, id),
            Message::AppendResponse(AppendResponse::Accepted { matched, .. }) => {
                self.judge_match(nodes, node, sent, *matched);
            }
            Message::HeartbeatResponse(answer) => {
                self.judge_match(nodes, node, sent, answer.matched);
            }
            _ => {}
        }
    }

    /// One vote per term, across all crashes, and none before it is on disk.
    fn judge_vote(&mut self, node: &Node, term: Term, candidate: NodeId) {
        let id = node.id;
        let known = *self.votes.entry((id, term)).or_insert(candidate);
        assert_eq!(known, candidate, "{id} votes twice in term {term}");
        let state = node.disk.hard_state;
        assert_eq!(
            (state.term, state.vote),
            (term, Some(candidate)),
            "{id} speaks of a vote that is not on its disk"
        );
    }

    /// Whether a disk holds this entry: in a snapshot is what was committed.
    fn is_held(&self, disk: &Disk, id: EntryId) -> bool {
        if id.index <= disk.snapshot.last.index {
            id.index == Index(0) || self.committed[position(id.index)].entry.id == id
        } else {
            disk.id_at(id.index) == Some(id)
        }
    }

    /// What is acknowledged is on the disk, and it is what that leader has.
    fn judge_match(
        &self,
        nodes: &BTreeMap<NodeId, Node>,
        node: &Node,
        sent: &Envelope,
        matched: Index,
    ) {
        let id = node.id;
        let ours = node.disk.last();
        assert!(matched <= ours.index, "{id} acknowledges {matched}, its disk ends at {ours}");
        let leads =
            |raft: &&Raft| raft.term() == sent.term && matches!(raft.role(), Role::Leader(_));
        if nodes[&sent.to].raft.as_ref().is_some_and(|raft| leads(&raft))
            && let Some(theirs) = nodes[&sent.to].log.id_at(matched)
        {
            assert!(
                self.is_held(&node.disk, theirs),
                "{id} acknowledges {matched} to {}, whose entry {theirs} it does not have on disk",
                sent.to
            );
        }
    }
}

fn position(index: Index) -> usize {
    usize::try_from(index.0).expect("small") - 1
}
