//! Leading: count what is durable where, vouch for reads, show that it is there.
//! How followers are fed is in [`feeding`](super::feeding), how members and
//! successors change in [`office`](super::office).
//!
//! The leader's own disk is one more follower: its log counts for as much as is
//! durable, and commit may run ahead of it. A new leader commits a no-op first;
//! until then it cannot know what is committed, so it answers no read and
//! changes no configuration.

use std::collections::BTreeMap;

use super::config::ReadMode;
use super::core::Core;
use super::entry::{Index, NodeId, Payload};
use super::lease::lease_holds;
use super::membership::Member;
use super::message::{Heartbeat, Message, ReadId, ReadIndex, ReadIndexResponse};
use super::progress::Progress;
use super::quorum::agreed;
use super::reads::{Asker, Asking, Rounds};
use super::ready::{ProposeError, Ready};
use super::time::Time;
use crate::mutants::{self, Mutant};

/// A handover under way. Nothing is proposed meanwhile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transfer {
    /// Who is to lead next.
    pub to: NodeId,
    /// When it is given up.
    pub deadline: Time,
    /// It was told to stand for election.
    pub asked: bool,
}

/// Leads one term.
#[derive(Debug, Clone)]
pub struct Leader {
    /// Every other member, and those who do not know yet that they are none.
    pub(super) progress: BTreeMap<NodeId, Progress>,
    /// The entry that began the term.
    pub(super) noop: Index,
    pub(super) began: Time,
    pub(super) rounds: Rounds,
    /// The last read of this node that was taken up.
    pub(super) own_reads: ReadId,
    pub(super) heartbeat_due: Time,
    pub(super) promotion_due: Time,
    /// What was committed when learners were last looked at.
    pub(super) commit_at_promotion: Index,
    /// Something waited to be committed then, and nothing was since the look before.
    pub(super) stands_still: bool,
    /// When something was last committed, or nothing waited to be.
    pub(super) got_on: Time,
    /// A majority has to be heard between two checks.
    pub(super) checked_at: Time,
    pub(super) check_due: Time,
    pub(super) transfer: Option<Transfer>,
    /// Somebody was told to stand against all promises in this term.
    pub(super) lease_given_up: bool,
}

impl Leader {
    /// A term begins: nothing is known of anybody but who has just voted for us,
    /// and a no-op is appended.
    pub fn begin(core: &mut Core, now: Time, supporters: impl Iterator<Item = NodeId>) -> Self {
        let noop = core.append(Payload::Noop).index;
        let mut leader = Self {
            progress: BTreeMap::new(),
            noop,
            began: now,
            rounds: Rounds::default(),
            own_reads: ReadId(0),
            heartbeat_due: now,
            promotion_due: now,
            commit_at_promotion: noop,
            stands_still: false,
            got_on: now,
            checked_at: now,
            check_due: now + core.config.election_timeout_max,
            transfer: None,
            lease_given_up: false,
        };
        // Who is being removed, and may not know it, is told.
        for (node, _) in core.configurations.at(core.applied().index).iter() {
            if node != core.config.id {
                leader.progress.insert(node, Progress::new(noop, now));
            }
        }
        leader.follow_membership(core, now);
        for supporter in supporters {
            if let Some(progress) = leader.progress.get_mut(&supporter) {
                progress.heard = Some(now);
            }
        }
        leader
    }

    /// Every other member has a progress; who is no member any more is leaving.
    pub(super) fn follow_membership(&mut self, core: &Core, now: Time) {
        let since = core.configurations.index();
        for (node, _) in core.membership().iter().filter(|&(node, _)| node != core.config.id) {
            // The first guess: it holds everything before our no-op.
            let new = || Progress::new(self.noop, now);
            self.progress.entry(node).or_insert_with(new).leaving = None;
        }
        for (node, progress) in &mut self.progress {
            if !core.membership().contains(*node) {
                progress.leaving.get_or_insert(since);
            }
        }
    }

    /// One value per voter. A leader outside the configuration does not count.
    pub(super) fn over_voters<'a, T>(
        &'a self,
        core: &'a Core,
        own: T,
        of: impl Fn(&Progress) -> T + 'a,
    ) -> impl Iterator<Item = T> + 'a
    where
        T: Copy + 'a,
    {
        let counts = |member: &Member| member.voter || mutants::on(Mutant::LearnerCounted);
        let counted = core.membership().iter().filter(move |(_, member)| counts(member));
        counted.map(move |(voter, _)| {
            let is_own = voter == core.config.id
                || (mutants::on(Mutant::RemovedCounted) && self.is_replaced(core, voter));
            if is_own { own } else { of(&self.progress[&voter]) }
        })
    }

    /// For a mutant only: whether who is being removed counts in this one's place.
    fn is_replaced(&self, core: &Core, voter: NodeId) -> bool {
        let leaves = |progress: &Progress| progress.leaving.is_some();
        self.progress.values().any(leaves) && core.other_voters().first() == Some(&voter)
    }

    /// Whether something of the own term is committed.
    pub(super) fn is_established(&self, core: &Core) -> bool {
        core.commit() >= self.noop
    }

    fn has_lease(&self, core: &Core, now: Time) -> bool {
        let contact = agreed(self.over_voters(core, Some(now), |progress| progress.contact));
        core.config.read_mode == ReadMode::Lease
            && !self.lease_given_up
            && contact
                .flatten()
                .is_some_and(|contact| lease_holds(contact, core.config.promise, now))
    }

    /// Whether a member was heard within an election timeout.
    pub fn heard_lately(&self, core: &Core, node: NodeId, now: Time) -> bool {
        let timeout = core.config.election_timeout_max;
        let heard = self.progress.get(&node).and_then(|progress| progress.heard);
        node == core.config.id || heard.is_some_and(|heard| now.since(heard) <= timeout)
    }

    /// Whether a command of so many bytes may be appended now.
    pub fn may_propose(&self, core: &Core, bytes: usize) -> Result<(), ProposeError> {
        if self.transfer.is_some() {
            return Err(ProposeError::Transferring);
        }
        if core.disk_lags() {
            return Err(ProposeError::DiskLags);
        }
        if bytes > core.room_for_commands() {
            return Err(ProposeError::DiskFull);
        }
        if core.log.bytes() > core.config.log_tail_bytes + core.config.disk_lag_bytes {
            return Err(ProposeError::LogFull);
        }
        Ok(())
    }

    /// What time brings about. False if it is time to step down.
    pub fn still_leads(&mut self, core: &mut Core, now: Time) -> bool {
        if now >= self.check_due {
            let heard = agreed(self.over_voters(core, Some(now), |progress| progress.heard));
            if heard.flatten().is_none_or(|heard| heard < self.checked_at) {
                log::warn!("{}: lost touch with the majority, leads no more", core.config.id);
                return false;
            }
            self.checked_at = now;
            self.check_due = now + core.config.election_timeout_max;
        }
        if self.leads_in_vain(core, now) {
            log::warn!(
                "{}: what it holds finds no room on full disks, leads no more",
                core.config.id
            );
            core.in_vain += 1;
            return false;
        }
        let ends = !mutants::on(Mutant::TransferForEver);
        if ends && self.transfer.is_some_and(|transfer| now >= transfer.deadline) {
            log::warn!("{}: the handover took too long, leads on", core.config.id);
            self.transfer = None;
        }
        self.make_way(core, now);
        true
    }

    pub(super) fn release_confirmed(&mut self, core: &mut Core) {
        let own = self.rounds.latest();
        let round = agreed(self.over_voters(core, own, |progress| progress.confirmed));
        for (asking, index) in self.rounds.confirm(round.unwrap_or(0)) {
            Self::answer(core, asking, index);
        }
    }

    fn answer(core: &mut Core, asking: Asking, index: Index) {
        match asking.asker {
            Asker::Own => core.reads.confirm(asking.id, index),
            Asker::Node(node) => {
                let response = ReadIndexResponse { id: asking.id, index };
                core.send(node, Message::ReadIndexResponse(response));
            }
        }
    }

    /// A follower wants a read index.
    pub fn on_read_index(&mut self, from: NodeId, ask: ReadIndex) {
        if self.progress.contains_key(&from) {
            self.rounds.ask(Asking { asker: Asker::Node(from), id: ask.id });
        }
    }

    /// Gives out all there is to say.
    pub fn speak(&mut self, core: &mut Core, now: Time, ready: &mut Ready) {
        self.advance_commit(core, now);
        if mutants::on(Mutant::MembershipAtApply) {
            self.follow_membership(core, now);
        }
        self.serve_reads(core, now);
        self.promote_learners(core, now);
        if now >= self.heartbeat_due {
            self.beat(core, now);
        }
        self.feed(core, now, ready);
        self.let_go(core, now);
        self.hand_over(core, now);
    }

    /// Figure 2, the last rule for leaders, and Figure 8: only an entry of the
    /// own term is committed by counting.
    fn advance_commit(&mut self, core: &mut Core, now: Time) {
        let own = match mutants::on(Mutant::LeaderCountsUnsynced) {
            false => core.durability.durable(),
            true => core.log.last().index,
        };
        let agreed = agreed(self.over_voters(core, own, Progress::counted));
        if let Some(index) = agreed
            && index > core.commit()
            && (core.log.id_at(index).map(|id| id.term) == Some(core.term())
                || mutants::on(Mutant::CommitOldTermByCounting))
        {
            core.commit_to(index);
            self.got_on = now;
        }
        if core.commit() == core.log.last().index {
            self.got_on = now;
        }
    }

    fn serve_reads(&mut self, core: &mut Core, now: Time) {
        if let Some(id) = core.reads.outstanding()
            && id > self.own_reads
        {
            self.own_reads = id;
            self.rounds.ask(Asking { asker: Asker::Own, id });
        }
        let may_answer = self.is_established(core) || mutants::on(Mutant::ReadsBeforeFirstCommit);
        if !self.rounds.has_fresh() || !may_answer {
            return;
        }
        if self.has_lease(core, now) || mutants::on(Mutant::LeaseFromNobody) {
            for asking in self.rounds.take_fresh() {
                Self::answer(core, asking, core.commit());
            }
        } else if !self.rounds.is_waiting() {
            // One round at a time: the next one serves all that come meanwhile.
            self.beat(core, now);
            // With one voter there is nobody to wait for.
            self.release_confirmed(core);
        }
    }

    /// Sends a round of heartbeats.
    fn beat(&mut self, core: &mut Core, now: Time) {
        let may_answer = self.is_established(core) || mutants::on(Mutant::ReadsBeforeFirstCommit);
        let commit = may_answer.then_some(core.commit());
        let round = self.rounds.begin(now, core.config.election_timeout_max, commit);
        let promise = core.config.promise;
        for &node in self.progress.keys() {
            let beat = Heartbeat { round, commit: core.commit(), promise };
            core.send(node, Message::Heartbeat(beat));
        }
        self.heartbeat_due = now + core.config.heartbeat_interval;
    }

    /// When there is something to judge even if nothing arrives.
    pub fn wake_at(&self) -> Time {
        let transfer = self.transfer.map(|transfer| transfer.deadline);
        let due = self.heartbeat_due.min(self.check_due);
        transfer.map_or(due, |deadline| due.min(deadline))
    }

    /// What is known of every follower.
    pub fn progress(&self) -> impl Iterator<Item = (NodeId, &Progress)> {
        self.progress.iter().map(|(&node, progress)| (node, progress))
    }

    /// The index of the no-op that began the term.
    pub fn noop(&self) -> Index {
        self.noop
    }

    /// Whether everybody who is alive had time to be heard.
    pub fn is_settled(&self, core: &Core, now: Time) -> bool {
        self.is_established(core) && now.since(self.began) > core.config.election_timeout_max
    }
}
