//! Standing for election, in two steps.
//!
//! A pre-candidate asks whether it *would* be elected, which changes nothing
//! anywhere: a node that was cut off, or is not up to date, finds out without
//! raising anybody's term (thesis section 9.6). A candidate then votes for
//! itself, makes that vote durable, and only then asks for others'. It counts
//! its own vote no earlier, with one voter too.

use std::collections::BTreeMap;

use super::core::Core;
use super::entry::NodeId;
use super::message::{Message, PreVote, RequestVote};
use super::quorum::{VoteOutcome, votes};
use crate::mutants::{self, Mutant};

/// Asks whether an election could be won.
#[derive(Debug, Clone, Default)]
pub struct PreCandidate {
    answers: BTreeMap<NodeId, bool>,
}

impl PreCandidate {
    /// Asks everybody; would vote for itself.
    pub fn campaign(core: &mut Core) -> Self {
        let ask = PreVote { next: core.term().next(), last: core.log.last() };
        for voter in core.other_voters() {
            core.send(voter, Message::PreVote(ask));
        }
        Self { answers: BTreeMap::from([(core.config.id, true)]) }
    }

    /// A voter has answered.
    pub fn answered(&mut self, from: NodeId, granted: bool) {
        self.answers.insert(from, granted);
    }

    /// How it stands, over the voters of this node's own configuration.
    pub fn outcome(&self, core: &Core) -> VoteOutcome {
        votes(core.voters().map(|voter| self.answers.get(&voter).copied()))
    }
}

/// Asks to be elected.
#[derive(Debug, Clone)]
pub struct Candidate {
    answers: BTreeMap<NodeId, bool>,
    asked: bool,
    transfer: bool,
}

impl Candidate {
    /// About to ask; `transfer` if the leader wants it so.
    pub fn new(transfer: bool) -> Self {
        Self { answers: BTreeMap::new(), asked: false, transfer }
    }

    /// Once the vote for itself is durable: counts it and asks for others'.
    pub fn ask_when_durable(&mut self, core: &mut Core) {
        let waits = |core: &Core| {
            !core.durability.holds(&core.hard_state) && !mutants::on(Mutant::CampaignBeforeDurable)
        };
        if self.asked || waits(core) {
            return;
        }
        self.asked = true;
        self.answers.insert(core.config.id, true);
        let ask = RequestVote { last: core.log.last(), transfer: self.transfer };
        for voter in core.other_voters() {
            core.send(voter, Message::RequestVote(ask));
        }
    }

    /// A voter has answered.
    pub fn answered(&mut self, from: NodeId, granted: bool) {
        self.answers.insert(from, granted);
    }

    /// How it stands, over the voters of this node's own configuration.
    pub fn outcome(&self, core: &Core) -> VoteOutcome {
        let is_ours = |voter| mutants::on(Mutant::OwnVoteTwice) && core.voters().next() == voter;
        let whose = |voter| if is_ours(Some(voter)) { core.config.id } else { voter };
        votes(core.voters().map(|voter| self.answers.get(&whose(voter)).copied()))
    }

    /// Who has said yes.
    pub fn supporters(&self) -> impl Iterator<Item = NodeId> {
        self.answers.iter().filter(|&(_, &granted)| granted).map(|(&node, _)| node)
    }
}
