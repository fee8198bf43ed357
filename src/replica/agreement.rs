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

/// How long those who have not answered can hold up a verdict.
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
#[derive(Debug)]
struct Question {
    index: Index,
    begun: Time,
    sent: Time,
    answers: BTreeMap<NodeId, Option<u64>>,
    /// Nothing is expected of it any more.
    closed: bool,
}

impl Question {
    fn wake_at(&self) -> Time {
        if self.closed { self.begun + LONG_REST } else { self.sent + PATIENCE }
    }
}

/// Why this node does not trust its state, and what it does about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doubt {
    /// When a snapshot was last asked for.
    asked: Time,
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
    pub doubt: Option<Doubt>,
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

    fn sample_at(&self, index: Index) -> Option<u64> {
        self.samples.iter().find(|&&(at, _)| at == index).map(|&(_, hash)| hash)
    }

    /// When there is something to see to even if nothing arrives.
    pub fn wake_at(&self) -> Option<Time> {
        let doubt = self.doubt.map(|doubt| doubt.asked + PATIENCE);
        self.question.iter().map(Question::wake_at).chain(doubt).min()
    }
}

impl Replica {
    /// An entry is applied: notes the hash of the state if it is time to.
    pub(super) fn sample_state(&mut self, index: Index) {
        if !index.0.is_multiple_of(SAMPLE_EVERY) {
            return;
        }
        let hash = self.fsm.state_hash(self.agreement.membership_hash);
        let samples = &mut self.agreement.samples;
        if samples.len() >= SAMPLES {
            samples.pop_front();
        }
        samples.push_back((index, hash));
        if let Some((to, asked)) = self.agreement.owed.take_if(|(_, asked)| *asked <= index) {
            self.answer_for_state(to, asked);
        }
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
                    question.answers.insert(from, hash);
                    self.judge_states(now.time);
                }
            }
            StateMessage::Verdict { index, hash } => {
                if self.raft.leader() == Some(from) {
                    self.take_verdict(now.time, index, hash);
                }
            }
        }
    }

    fn say_of_state(&mut self, to: NodeId, said: StateMessage) {
        self.messages.push((to, PeerMessage::State(said)));
    }

    fn answer_for_state(&mut self, to: NodeId, index: Index) {
        let hash = self.agreement.sample_at(index);
        self.say_of_state(to, StateMessage::Answer { index, hash });
    }

    /// As leader asks on; as a node in doubt asks for a snapshot.
    pub(super) fn see_to_agreement(&mut self, now: Time) {
        if self.agreement.doubt.is_some() {
            self.ask_for_state(now);
            self.see_to_receiving(now);
        }
        if !self.leads {
            self.agreement.question = None;
            return;
        }
        match &self.agreement.question {
            Some(question) if !question.closed && now.since(question.sent) < PATIENCE => {}
            Some(question) if !question.closed => {
                self.judge_states(now);
                self.ask_again(now);
            }
            _ if self.fault.is_none() => self.ask_next(now),
            _ => {}
        }
    }

    fn ask_next(&mut self, now: Time) {
        let Some(&(index, _)) = self.agreement.samples.back() else { return };
        let rested = self.agreement.question.as_ref().is_none_or(|last| {
            let rest = if last.index == index { LONG_REST } else { REST };
            now.since(last.begun) >= rest
        });
        if rested {
            let answers = BTreeMap::new();
            let question = Question { index, begun: now, sent: now, answers, closed: false };
            self.agreement.question = Some(question);
            self.ask_again(now);
        }
    }

    /// Asks all who have not answered.
    fn ask_again(&mut self, now: Time) {
        let Some(question) = &mut self.agreement.question else { return };
        question.sent = now;
        let index = question.index;
        let is_asked = |node: &NodeId| {
            *node != self.raft.id() && !matches!(question.answers.get(node), Some(Some(_)))
        };
        let members = self.raft.membership().iter().map(|(node, _)| node);
        let asked: Vec<NodeId> = members.filter(is_asked).collect();
        for node in asked {
            self.say_of_state(node, StateMessage::Ask { index });
        }
    }

    /// Draws the conclusion from what is known, if there is one.
    fn judge_states(&mut self, now: Time) {
        let Some(question) = &mut self.agreement.question else { return };
        let (index, own) = (question.index, self.raft.id());
        let samples = &self.agreement.samples;
        let own_hash = samples.iter().find(|&&(at, _)| at == index).map(|&(_, hash)| hash);
        let hash_of = |node| match node {
            node if node == own => own_hash,
            node => question.answers.get(&node).copied().flatten(),
        };
        let hashes: Vec<Option<u64>> = self.raft.membership().voters().map(hash_of).collect();
        let members: Vec<NodeId> = self.raft.membership().iter().map(|(node, _)| node).collect();
        let is_late = now.since(question.begun) >= GRACE;
        let all_answered =
            members.iter().all(|node| *node == own || question.answers.contains_key(node));
        let (verdict, told): (_, Vec<NodeId>) = match find(&hashes) {
            Finding::Majority(hash) => {
                let differs = |node: &NodeId| hash_of(*node).is_some_and(|theirs| theirs != hash);
                (Some(hash), members.into_iter().filter(differs).collect())
            }
            Finding::Equal => (None, Vec::new()),
            Finding::Open if !is_late => return,
            Finding::Nobody | Finding::Open => (None, members),
        };
        let Some(question) = &mut self.agreement.question else { return };
        question.closed = match verdict {
            Some(_) => is_late || (all_answered && told.is_empty()),
            None => is_late && told.is_empty(),
        };
        for node in told {
            if node == own {
                self.take_verdict(now, index, verdict);
            } else {
                self.say_of_state(node, StateMessage::Verdict { index, hash: verdict });
            }
        }
    }

    /// What a majority's state was at this index.
    fn take_verdict(&mut self, now: Time, index: Index, majority: Option<u64>) {
        if self.fault.is_some() {
            return;
        }
        let own = self.agreement.sample_at(index);
        match (own, majority) {
            (_, None) => self.fail(format!(
                "the replicas' states differ at index {index}, and no majority agrees: none of \
                 them serves. Restart the nodes, so that each reads its state from its own disk"
            )),
            (Some(own), Some(majority)) if own != majority => {
                self.fail(format!(
                    "this node's state differs from the majority's at index {index} ({own:016x}, \
                     not {majority:016x}): it takes over a snapshot from the leader"
                ));
                self.agreement.doubt = Some(Doubt { asked: Time::ZERO });
                self.give_up_own_snapshot();
                self.ask_for_state(now);
            }
            _ => {}
        }
    }

    /// Asks the leader for a snapshot that is no older than what was applied.
    fn ask_for_state(&mut self, now: Time) {
        let Some(doubt) = &mut self.agreement.doubt else { return };
        let leader = self.raft.leader().filter(|&leader| leader != self.raft.id());
        if let Some(leader) = leader
            && now.since(doubt.asked) >= PATIENCE
        {
            doubt.asked = now;
            let wanted = SnapshotMessage::Wanted { since: self.applied.index };
            self.messages.push((leader, PeerMessage::Snapshot(wanted)));
        }
    }

    /// The state was replaced by one that the leader vouches for.
    pub(super) fn trust_state(&mut self) {
        self.agreement.samples.clear();
        self.agreement.note_membership(self.raft.applied_membership());
        if self.agreement.doubt.take().is_some() {
            log::info!("{}: serves again", self.config.name);
            self.fault = None;
            self.raft.resume();
        }
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
