//! Do all replicas hold the same state?
//!
//! They apply the same entries, so they should; a bit that flips in memory, or
//! two versions that mean different things by one entry, make them differ, and
//! nothing would ever tell. So every node notes the hash of its state at every
//! [`SAMPLE_EVERY`]th index, and the leader asks for them, one index at a time:
//!
//! ```text
//!  leader                          member
//!    | -- ask: your hash at 2048? -> |
//!    | <- answer: 7c1f… ------------ |   once it has applied that far
//!    | -- verdict: it was 93aa… ---> |   only if a majority says so, and it differs
//!    | <- snapshot wanted ---------- |
//! ```
//!
//! **The majority of the voters is right.** Whoever differs from it, leader or
//! not, stops serving and leading; it goes on storing and voting, for its log is
//! as good as ever. It takes over a snapshot that is no older than what it had
//! applied, and serves again. Where no majority agrees, nobody knows who is
//! right: all stop, and say so.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::PeerMessage;
use super::clock::Now;
use super::replica::Replica;
use super::snapshots::SnapshotMessage;
use crate::fsm::hash;
use crate::mutants::{self, Mutant};
use crate::raft::{Index, Membership, NodeId, Time};

/// How many entries there are from one sample to the next.
pub const SAMPLE_EVERY: u64 = 1024;

/// How many samples a node keeps. A member that lags by more than they span is
/// asked again when it has caught up.
const SAMPLES: usize = 64;

/// How long the leader rests between two questions.
const REST: Duration = Duration::from_millis(100);

/// How long it rests if there is nothing new to ask. It asks all the same: a
/// node that was restarted may have come to another state than before.
const LONG_REST: Duration = Duration::from_secs(10);

/// How long to wait before something is said again.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long those who have not answered can hold up a verdict, each time they are
/// asked; all in all it is no longer than [`LONG_REST`].
const GRACE: Duration = Duration::from_secs(3);

/// Gives the hash of a membership a value of its own.
const MEMBERSHIP_SEED: u64 = 0x6d65_6d62_6572_7368;

/// What nodes say to each other about their states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateMessage {
    /// What was the hash of your state at this index?
    Ask {
        /// A multiple of [`SAMPLE_EVERY`].
        index: Index,
    },
    /// That is what it was.
    Answer {
        /// As asked.
        index: Index,
        /// `None`: it is not known any more.
        hash: Option<u64>,
    },
    /// That is what it was at a majority.
    Verdict {
        /// As asked.
        index: Index,
        /// `None`: no majority agrees.
        hash: Option<u64>,
    },
}

/// The hash of a membership, as part of the hash of a state.
pub fn membership_hash(membership: &Membership) -> u64 {
    let mut bytes = Vec::new();
    membership.encode(&mut bytes);
    hash::bytes(MEMBERSHIP_SEED, &bytes)
}

/// What the voters' hashes at one index come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    /// This is a majority's.
    Majority(u64),
    /// Too few are known for a majority; they are equal.
    Equal,
    /// They differ, and no majority is left that could agree.
    Nobody,
    /// They differ, and those not known will decide.
    Open,
}

/// `None` for a voter whose hash is not known.
fn find(hashes: &[Option<u64>]) -> Finding {
    if mutants::on(Mutant::StateHashIgnored) {
        return Finding::Equal;
    }
    let mut counts = BTreeMap::<u64, usize>::new();
    for hash in hashes.iter().flatten() {
        *counts.entry(*hash).or_default() += 1;
    }
    let unknown = hashes.iter().filter(|hash| hash.is_none()).count();
    let majority = hashes.len() / 2 + 1;
    match counts.iter().max_by_key(|&(_, count)| *count) {
        Some((&hash, &count)) if count >= majority => Finding::Majority(hash),
        _ if counts.len() < 2 => Finding::Equal,
        Some((_, &count)) if count + unknown < majority => Finding::Nobody,
        _ => Finding::Open,
    }
}

/// One question of the leader's, and what was answered.
#[derive(Debug, Default)]
struct Question {
    index: Index,
    /// When this was first asked, at this index or, for want of a majority, at earlier
    /// ones.
    open_since: Time,
    /// The leader's own hash.
    own: u64,
    begun: Time,
    sent: Time,
    answers: BTreeMap<NodeId, Option<u64>>,
    /// What a majority has answered. It stays right when they do not know it any more.
    majority: Option<u64>,
    /// It let somebody serve again, who may have differed since that index.
    relieved: bool,
    /// Nothing is expected of it any more.
    closed: bool,
}

impl Question {
    /// Who has gone on since it answered does not know any more; that it is another
    /// state's by now, once it was told to take one over, is news.
    fn note(&mut self, from: NodeId, hash: Option<u64>) {
        let known = self.answers.entry(from).or_insert(hash);
        if hash.is_some() || self.majority.is_some() {
            *known = hash;
        }
    }

    fn wake_at(&self) -> Time {
        match (self.closed, self.relieved) {
            (false, _) => self.sent + PATIENCE,
            (true, true) => self.begun + REST,
            (true, false) => self.begun + LONG_REST,
        }
    }
}

/// Why this node does not trust its state.
#[derive(Debug, Clone, Copy)]
pub(super) enum Doubt {
    /// A majority's is another: it needs a snapshot, and last asked for one then.
    Wrong(Time),
    /// Others differ, and nobody knows who is right.
    Undecided,
}

/// What a node knows of its own state, and as leader of the others'.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    samples: VecDeque<(Index, u64)>,
    /// The membership of the last applied entry.
    membership_hash: u64,
    question: Option<Question>,
    /// Who wants to know something that is not applied here yet.
    owed: Option<(NodeId, Index)>,
    doubt: Option<Doubt>,
}

impl Agreement {
    /// Of a state that has this membership.
    pub fn of(membership: &Membership) -> Self {
        Self { membership_hash: membership_hash(membership), ..Self::default() }
    }

    /// An entry that changes the membership is applied.
    pub fn note_membership(&mut self, membership: &Membership) {
        self.membership_hash = membership_hash(membership);
    }

    /// Whether a snapshot is wanted in place of the state.
    pub fn is_wrong(&self) -> bool {
        matches!(self.doubt, Some(Doubt::Wrong(_)))
    }

    fn sample_at(&self, index: Index) -> Option<u64> {
        self.samples.iter().find(|&&(at, _)| at == index).map(|&(_, hash)| hash)
    }

    /// When there is something to see to even if nothing arrives.
    pub fn wake_at(&self) -> Option<Time> {
        let doubt = match self.doubt {
            Some(Doubt::Wrong(asked)) => Some(asked + PATIENCE),
            _ => None,
        };
        self.question.iter().map(Question::wake_at).chain(doubt).min()
    }
}

impl Replica {
    /// The hash of the state as it is now.
    fn state_hash(&self) -> u64 {
        self.fsm.state_hash(self.agreement.membership_hash)
    }

    /// An entry is applied: notes the hash of the state if it is time to, or if
    /// somebody waits for it.
    pub(super) fn sample_state(&mut self, index: Index) {
        let is_owed = self.agreement.owed.is_some_and(|(_, asked)| asked <= index);
        if !index.0.is_multiple_of(SAMPLE_EVERY) && !is_owed {
            return;
        }
        self.note_sample(index, self.state_hash());
        if let Some((to, asked)) = self.agreement.owed.take_if(|_| is_owed) {
            self.answer_for_state(to, asked);
        }
    }

    fn note_sample(&mut self, index: Index, hash: u64) {
        let samples = &mut self.agreement.samples;
        if samples.back().is_some_and(|&(last, _)| last >= index) {
            return;
        }
        if samples.len() >= SAMPLES {
            samples.pop_front();
        }
        samples.push_back((index, hash));
    }

    /// A node speaks about states.
    pub(super) fn on_state_message(&mut self, now: Now, from: NodeId, said: StateMessage) {
        match said {
            StateMessage::Ask { index } if index > self.applied.index && self.fault.is_none() => {
                self.agreement.owed = Some((from, index));
            }
            StateMessage::Ask { index } => self.answer_for_state(from, index),
            StateMessage::Answer { index, hash } => {
                let is_member = self.raft.membership().contains(from);
                if let Some(question) = &mut self.agreement.question
                    && question.index == index
                    && is_member
                {
                    question.note(from, hash);
                    // Others may have answered too: nobody is late yet.
                    self.judge_states(now.time, false);
                }
            }
            StateMessage::Verdict { index, hash } => {
                if self.raft.leader() == Some(from) {
                    self.take_verdict(now.time, index, self.hash_at(index), hash);
                }
            }
        }
    }

    fn say_of_state(&mut self, to: NodeId, said: StateMessage) {
        self.messages.push((to, PeerMessage::State(said)));
    }

    /// The hash of the state at an index, if it is known.
    fn hash_at(&self, index: Index) -> Option<u64> {
        let current = (index == self.applied.index).then(|| self.state_hash());
        current.or_else(|| self.agreement.sample_at(index))
    }

    fn answer_for_state(&mut self, to: NodeId, index: Index) {
        // Who is known to be wrong does not decide who is right.
        let hash = self.hash_at(index).filter(|_| !self.agreement.is_wrong());
        if let Some(hash) = hash {
            // What is said of it may come when it has gone on.
            self.note_sample(index, hash);
        }
        self.say_of_state(to, StateMessage::Answer { index, hash });
    }

    /// As leader asks on; as a node whose state is wrong asks for a snapshot.
    pub(super) fn see_to_agreement(&mut self, now: Time) {
        if self.agreement.is_wrong() {
            self.ask_for_state(now);
            self.see_to_receiving(now);
        }
        if !self.leads {
            self.agreement.question = None;
            return;
        }
        match &self.agreement.question {
            Some(question) if question.closed => self.ask_next(now),
            Some(question) if now.since(question.sent) < PATIENCE => {}
            Some(question) => {
                let is_late = now.since(question.begun) >= GRACE;
                self.judge_states(now, is_late);
                let is_open = |question: &Question| !question.closed && question.sent < now;
                if self.agreement.question.as_ref().is_some_and(is_open) {
                    self.ask(now);
                }
            }
            None => self.ask_next(now),
        }
    }

    /// The next question: about the newest sample, or, after a long rest, about
    /// the state as it is. On an idle cluster that is the same index everywhere.
    fn ask_next(&mut self, now: Time) {
        let last = self.agreement.question.as_ref();
        let (asked, rested) =
            last.map_or((Index(0), LONG_REST), |last| (last.index, now.since(last.begun)));
        let newest = self.agreement.samples.back().copied().filter(|&(index, _)| index > asked);
        let has_relieved = last.is_some_and(|last| last.relieved);
        match newest {
            _ if has_relieved && rested >= REST => self.ask_about(now, self.current(), now),
            Some(newest) if rested >= REST => self.ask_about(now, newest, now),
            _ if rested >= LONG_REST => self.ask_about(now, self.current(), now),
            _ => {}
        }
    }

    /// The state as it is.
    fn current(&self) -> (Index, u64) {
        (self.applied.index, self.state_hash())
    }

    fn ask_about(&mut self, now: Time, state: (Index, u64), open_since: Time) {
        let (index, own) = state;
        self.note_sample(index, own);
        let new = Question { index, own, open_since, begun: now, sent: now, ..Question::default() };
        self.agreement.question = Some(new);
        self.ask(now);
    }

    /// Asks all, those who have answered too: who was restarted may answer
    /// otherwise.
    fn ask(&mut self, now: Time) {
        let Some(question) = &mut self.agreement.question else { return };
        question.sent = now;
        let index = question.index;
        for node in self.other_members() {
            self.say_of_state(node, StateMessage::Ask { index });
        }
    }

    fn other_members(&self) -> Vec<NodeId> {
        let members = self.raft.membership().iter().map(|(node, _)| node);
        members.filter(|&node| node != self.raft.id()).collect()
    }

    /// Draws the conclusion from what is known, if there is one. A majority's word
    /// stands for good; while there is none, those who had gone on before they
    /// heard the question are asked another one.
    fn judge_states(&mut self, now: Time, is_late: bool) {
        let Some(question) = &self.agreement.question else { return };
        let (index, own, id) = (question.index, question.own, self.raft.id());
        let hash_of = |node: NodeId| match node == id {
            true => Some(own).filter(|_| !self.agreement.is_wrong()),
            false => question.answers.get(&node).copied().flatten(),
        };
        let others = self.other_members();
        let all_answered = others.iter().all(|node| question.answers.contains_key(node));
        let hashes: Vec<Option<u64>> = self.raft.membership().voters().map(hash_of).collect();
        let finding = question.majority.map_or_else(|| find(&hashes), Finding::Majority);
        let could_know = |&voter: &NodeId| {
            let raft = &self.raft;
            let is_up = raft.heard_lately(voter, now) && raft.serves(voter);
            hash_of(voter).is_none() && is_up && !raft.needs_snapshot(voter)
        };
        let awaited: Vec<NodeId> = self.raft.membership().voters().filter(could_know).collect();
        let open_since = question.open_since;
        let is_worth_asking = self.agreement.doubt.is_none()
            && now.since(open_since) < LONG_REST
            && !awaited.is_empty();
        let was_closed = question.closed;
        let (verdict, told) = match finding {
            Finding::Majority(hash) => {
                // Who is as right as they, and does not know it, is told as well.
                let is_told = |node: &NodeId| {
                    hash_of(*node).is_some_and(|theirs| theirs != hash) || !self.raft.serves(*node)
                };
                let mut told = others;
                told.push(id);
                told.retain(is_told);
                (Some(hash), told)
            }
            Finding::Equal => (None, Vec::new()),
            Finding::Open if !is_late => return,
            Finding::Open if is_worth_asking => {
                if awaited.iter().any(|voter| question.answers.contains_key(voter)) {
                    let newest = self.agreement.samples.back().copied();
                    let newest = newest.filter(|&(newest, _)| newest > index);
                    let state = newest.unwrap_or_else(|| self.current());
                    self.ask_about(now, state, open_since);
                }
                return;
            }
            Finding::Nobody | Finding::Open => (None, [others, vec![id]].concat()),
        };
        let relieves = told.iter().any(|&node| !self.raft.serves(node));
        // Those who cannot be told now are found again; others are not to wait for them.
        let is_heard = |&node: &NodeId| node == id || self.raft.heard_lately(node, now);
        let is_told = told.is_empty()
            || (verdict.is_some()
                && is_late
                && (now.since(question.begun) >= LONG_REST || !told.iter().any(is_heard)));
        if let Some(question) = &mut self.agreement.question {
            question.majority = verdict;
            question.relieved |= verdict.is_some() && relieves;
            question.closed =
                is_told && (was_closed || is_late || (all_answered && verdict.is_some()));
        }
        for node in told {
            if node == id {
                self.take_verdict(now, index, Some(own), verdict);
            } else {
                self.say_of_state(node, StateMessage::Verdict { index, hash: verdict });
            }
        }
    }

    /// What a majority's state was at this index, and what this node's was. Who
    /// does not know has nothing to compare.
    fn take_verdict(&mut self, now: Time, index: Index, own: Option<u64>, majority: Option<u64>) {
        let is_mendable = self.fault.is_none() || self.agreement.doubt.is_some();
        let has_stopped_before =
            index > self.applied.index && matches!(self.agreement.doubt, Some(Doubt::Undecided));
        if !is_mendable || self.agreement.is_wrong() || (own.is_none() && !has_stopped_before) {
            return;
        }
        match majority {
            Some(hash) if own == Some(hash) => self.trust_state(),
            // Or it has stopped before that index: it cannot be told that it was right.
            Some(_) => {
                self.doubt(
                    Doubt::Wrong(Time::ZERO),
                    format!(
                        "this node's state differs from a majority's at index {index}: it is to be \
                         replaced by a snapshot of theirs"
                    ),
                );
                self.ask_for_state(now);
            }
            None if self.agreement.doubt.is_none() => self.doubt(
                Doubt::Undecided,
                format!(
                    "the nodes' states differ at index {index}, and no majority agrees. Start \
                     those that are down; or restart one by one, so that each reads its state from \
                     its own disk"
                ),
            ),
            None => {}
        }
    }

    fn doubt(&mut self, doubt: Doubt, why: String) {
        self.fail(why);
        self.agreement.doubt = Some(doubt);
        self.give_up_own_snapshot();
        // Nothing more is applied or served, in this very turn.
        self.raft.suspend();
    }

    /// Asks the leader for a snapshot that is no older than what was applied.
    fn ask_for_state(&mut self, now: Time) {
        let Some(Doubt::Wrong(asked)) = &mut self.agreement.doubt else { return };
        if now.since(*asked) < PATIENCE {
            return;
        }
        *asked = now;
        if let Some(leader) = self.raft.leader().filter(|&leader| leader != self.raft.id()) {
            let wanted = SnapshotMessage::Wanted { since: self.applied.index };
            self.messages.push((leader, PeerMessage::Snapshot(wanted)));
        }
    }

    /// The state is as a majority's.
    fn trust_state(&mut self) {
        if self.agreement.doubt.take().is_some() {
            log::warn!("{}: the state is as a majority's, serves again", self.config.name);
            self.fault = None;
            self.raft.resume();
        }
    }

    /// The state was replaced by one that the leader vouches for.
    pub(super) fn state_was_replaced(&mut self) {
        self.agreement.samples.clear();
        self.agreement.note_membership(self.raft.applied_membership());
        self.trust_state();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_of_all_voters_is_right_not_of_those_who_answer() {
        let (a, b, c) = (Some(1), Some(2), Some(3));
        let cases: [(&[Option<u64>], Finding); 10] = [
            (&[a], Finding::Majority(1)),
            (&[a, a, None], Finding::Majority(1)),
            (&[a, None, None], Finding::Equal),
            (&[a, b, None], Finding::Open),
            (&[a, b, b], Finding::Majority(2)),
            (&[a, b], Finding::Nobody),
            (&[a, b, c], Finding::Nobody),
            (&[a, a, b, None, None], Finding::Open),
            (&[a, a, b, b, None], Finding::Open),
            (&[a, a, b, b, c], Finding::Nobody),
        ];
        for (hashes, finding) in cases {
            assert_eq!(find(hashes), finding, "{hashes:?}");
        }
    }
}
