//! Elections: who is voted for, when to stand, and the way from role to role.
//!
//! The rules of Figure 2, with three additions. A node asks before it stands
//! (pre-vote), it keeps its promise to a leader it has heard, and it speaks of a
//! vote only when that vote is on its disk.

use super::candidate::{Candidate, PreCandidate};
use super::entry::{EntryId, NodeId, Term};
use super::follower::Follower;
use super::leader::Leader;
use super::message::{Message, PreVote, PreVoteResponse, RequestVote, VoteResponse};
use super::quorum::VoteOutcome;
use super::raft::{Raft, Role};
use super::time::Time;
use crate::mutants::{self, Mutant};

impl Raft {
    pub(super) fn is_promised(&self, now: Time) -> bool {
        matches!(self.role, Role::Leader(_)) || self.core.promise.in_force(now)
    }

    /// Would we elect it? Nothing changes here, whatever the answer. The answer
    /// carries our term, so that a candidate that is behind catches up.
    pub(super) fn on_pre_vote(&mut self, now: Time, from: NodeId, term: Term, ask: PreVote) {
        let breaks =
            mutants::on(Mutant::PreVoteAgainstPromise) || mutants::on(Mutant::VoteAgainstPromise);
        let granted = (!self.is_promised(now) || breaks)
            && term >= self.core.term()
            && ask.next > self.core.term()
            && self.is_up_to_date(ask.last);
        let response = PreVoteResponse { next: ask.next, granted };
        self.core.send(from, Message::PreVoteResponse(response));
    }

    /// Figure 2, RequestVote, receiver's side. A promise stands against any
    /// election that the leader did not ask for, and against its term as well.
    pub(super) fn on_request_vote(
        &mut self,
        now: Time,
        from: NodeId,
        term: Term,
        ask: RequestVote,
    ) {
        let promised = self.is_promised(now) && !mutants::on(Mutant::VoteAgainstPromise);
        let refused = promised && !ask.transfer;
        if term > self.core.term() && !refused {
            self.become_follower(now, term, None);
        }
        let free = match self.core.hard_state.vote {
            Some(_) if mutants::on(Mutant::VoteForEverybody) => true,
            Some(candidate) => candidate == from,
            None => self.leader().is_none(),
        };
        if term == self.core.term() && !refused && free && self.is_up_to_date(ask.last) {
            // A pre-candidate gives up; a candidate has voted for itself.
            self.become_follower(now, term, self.leader());
            self.core.vote_for(from, now);
        } else {
            self.core.send(from, Message::VoteResponse(VoteResponse { granted: false }));
        }
    }

    /// Whether a candidate's log holds at least what ours does.
    fn is_up_to_date(&self, theirs: EntryId) -> bool {
        let ours = self.core.log.last();
        theirs >= ours
            || mutants::on(Mutant::VoteForShorterLog)
            || (mutants::on(Mutant::VoteByLengthAlone) && theirs.index >= ours.index)
    }

    /// What time alone, or the disk, brings about.
    pub(super) fn judge(&mut self, now: Time) {
        if let Role::Leader(leader) = &mut self.role {
            if !leader.still_leads(&mut self.core, now) {
                self.become_follower(now, self.core.term(), None);
            }
        } else if self.may_stand() && now >= self.stand_at() {
            self.become_pre_candidate(now);
        }
        if let Role::Candidate(candidate) = &mut self.role {
            candidate.ask_when_durable(&mut self.core);
            self.judge_vote(now);
        }
    }

    pub(super) fn may_stand(&self) -> bool {
        self.core.membership().is_voter(self.core.config.id) && !self.core.is_removed()
    }

    /// A promise stands against our own candidacy as well: we would vote for it.
    /// Who cannot serve lets the others try first, and hands over when it has led
    /// them to where they can: it may be the only one that holds the latest entry.
    /// So does who has led in vain.
    pub(super) fn stand_at(&self) -> Time {
        let at = self.core.election_due.max(self.core.promise.until());
        let lets_others = self.core.suspended || self.core.in_vain > 0;
        if lets_others { at + self.core.config.election_timeout_max * 2 } else { at }
    }

    pub(super) fn judge_pre_vote(&mut self, now: Time) {
        let Role::PreCandidate(candidate) = &self.role else { return };
        match candidate.outcome(&self.core) {
            VoteOutcome::Won => self.become_candidate(now, false),
            VoteOutcome::Lost => self.become_follower(now, self.core.term(), None),
            VoteOutcome::Open => {}
        }
    }

    pub(super) fn judge_vote(&mut self, now: Time) {
        let Role::Candidate(candidate) = &self.role else { return };
        match candidate.outcome(&self.core) {
            VoteOutcome::Won => self.become_leader(now),
            VoteOutcome::Lost => self.become_follower(now, self.core.term(), None),
            VoteOutcome::Open => {}
        }
    }

    pub(super) fn become_follower(&mut self, now: Time, term: Term, leader: Option<NodeId>) {
        if term > self.core.term() {
            self.core.enter_term(term, None);
        }
        if matches!(self.role, Role::Leader(_)) {
            // Until now it was a voter of its own lease.
            self.core.promise.renew(now);
        }
        self.core.put_off_election(now);
        self.turn_into(Role::Follower(Follower::of(leader)));
    }

    pub(super) fn become_pre_candidate(&mut self, now: Time) {
        self.core.put_off_election(now);
        let candidate = PreCandidate::campaign(&mut self.core);
        self.turn_into(Role::PreCandidate(candidate));
        self.judge_pre_vote(now);
    }

    pub(super) fn become_candidate(&mut self, now: Time, transfer: bool) {
        self.elections += 1;
        self.core.put_off_election(now);
        self.core.enter_term(self.core.term().next(), Some(self.core.config.id));
        self.turn_into(Role::Candidate(Candidate::new(transfer)));
    }

    pub(super) fn become_leader(&mut self, now: Time) {
        let Role::Candidate(candidate) = &self.role else { return };
        let leader = Leader::begin(&mut self.core, now, candidate.supporters());
        self.turn_into(Role::Leader(Box::new(leader)));
    }

    /// The only writer of the role.
    pub(super) fn turn_into(&mut self, role: Role) {
        let (id, term) = (self.core.config.id, self.core.term());
        log::debug!("{id}: {} -> {} in term {term}", self.role.name(), role.name());
        self.role = role;
    }
}
