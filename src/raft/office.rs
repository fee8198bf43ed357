//! Who belongs to the cluster, and who leads it: the leader's part in changing
//! either.
//!
//! One member is added or removed at a time; a newcomer learns first and is
//! promoted when it keeps up. A leader hands over when it is asked to, and looks
//! for a successor by itself when its own disk would hold up everybody. One whose
//! log holds up everybody steps back.

use super::core::Core;
use super::entry::{EntryId, NodeId, Payload};
use super::leader::{Leader, Transfer};
use super::membership::{Change, Illegal, Membership};
use super::message::Message;
use super::progress::Progress;
use super::quorum::agreed;
use super::time::Time;
use crate::mutants::{self, Mutant};

/// Why a change of the configuration was not begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// This node does not lead.
    #[error("not the leader")]
    NotLeader,
    /// Leadership is being handed over.
    #[error("leadership is being handed over")]
    Transferring,
    /// No entry of the leader's own term is committed yet; to change the
    /// configuration now could let two majorities form that do not meet.
    #[error("the leader is new: nothing of its term is committed yet")]
    TooEarly,
    /// The change before is not committed yet.
    #[error("another change is under way")]
    InFlight,
    /// It makes no sense.
    #[error(transparent)]
    Illegal(#[from] Illegal),
    /// A leader does not remove itself; it hands over, and its successor does.
    #[error("the leader does not remove itself: hand over leadership first")]
    Leader,
    /// Too few of the voters to be were heard lately: afterwards, nothing could
    /// be committed any more, and no change undone.
    #[error("too few of the voters that would remain are alive")]
    NoLiveQuorum,
}

impl Leader {
    /// A leader that holds up everybody looks for a successor.
    pub(super) fn make_way(&mut self, core: &Core, now: Time) {
        if self.transfer.is_none()
            && let Some(reason) = self.unfit(core, now)
            && let Some(successor) = self.best_successor(core, now)
        {
            log::warn!("{}: {reason}, hands over to {successor}", core.config.id);
            self.transfer(core, now, successor);
        }
    }

    /// Why this node had better not lead, if so. Being full is no reason if most
    /// are: another leader could not take in anything either, but would until it
    /// has heard that.
    fn unfit(&self, core: &Core, now: Time) -> Option<&'static str> {
        let hangs = core
            .durability
            .waiting_since()
            .is_some_and(|since| now.since(since) > core.config.election_timeout_max);
        let lags = core.disk_lags();
        let has_room = |progress: &Progress| progress.room && progress.confirmed > 0;
        match core.suspended {
            true => Some("cannot serve"),
            false if hangs || lags => Some("the disk does not keep up"),
            false if !core.has_room() && self.most(core, now, has_room) => Some("the disk is full"),
            false => None,
        }
    }

    /// Whether clients' writes find room here and on a majority's disks. Who is
    /// not heard, or does not get on, stores nothing; but only a full disk makes
    /// that a question of room.
    pub fn has_room(&self, core: &Core, now: Time) -> bool {
        let has_room = |voter| self.progress.get(&voter).is_none_or(|progress| progress.room);
        let stores = |voter| has_room(voter) && self.heard_lately(core, voter, now);
        let enough = || !self.stands_still && agreed(core.voters().map(stores)) == Some(true);
        core.has_room() && (core.voters().all(has_room) || enough())
    }

    /// Whether nothing gets on because a majority, alive, has no room for what is
    /// next in this log. Without this leader they can at least commit what is kept
    /// room for: one of them has nothing before its no-op that the others lack room
    /// for, and takes in no more than it has room for itself.
    ///
    /// The longer it takes the more often that did not work out: they may not
    /// reach each other, and leaders must not come and go without end.
    pub(super) fn leads_in_vain(&self, core: &Core, now: Time) -> bool {
        let patience = core.config.election_timeout_max * (2 << core.in_vain.min(7));
        let is_full = |progress: &Progress| !progress.room && !progress.rolled_back;
        now.since(self.got_on) >= patience && self.most(core, now, is_full)
    }

    /// Whether a majority of the voters, this one not among them, was heard lately
    /// and is like this.
    fn most(&self, core: &Core, now: Time, is: impl Fn(&Progress) -> bool) -> bool {
        let counts = |voter| {
            self.progress.get(&voter).is_some_and(&is) && self.heard_lately(core, voter, now)
        };
        agreed(core.voters().map(counts)) == Some(true)
    }

    /// The live voter that is most caught up.
    pub fn best_successor(&self, core: &Core, now: Time) -> Option<NodeId> {
        let others = core.voters().filter(|&voter| self.may_succeed(core, voter, now));
        others.max_by_key(|voter| (self.progress[voter].room, self.progress[voter].matched))
    }

    /// Whether a voter could lead. Without room only if this node itself cannot
    /// even serve.
    fn may_succeed(&self, core: &Core, voter: NodeId, now: Time) -> bool {
        let could_lead =
            |progress: &Progress| progress.could_lead() && (progress.room || core.suspended);
        core.membership().is_voter(voter)
            && self.progress.get(&voter).is_some_and(could_lead)
            && self.heard_lately(core, voter, now)
    }

    /// Begins to hand over; false if the other could not lead.
    pub fn transfer(&mut self, core: &Core, now: Time, to: NodeId) -> bool {
        let can_lead = self.may_succeed(core, to, now);
        if can_lead {
            let deadline = now + core.config.election_timeout_max;
            self.transfer = Some(Transfer { to, deadline, asked: false });
        }
        can_lead
    }

    /// See [`super::raft::Raft::change_membership`].
    pub fn change_membership(
        &mut self,
        core: &mut Core,
        now: Time,
        change: &Change,
        force: bool,
    ) -> Result<EntryId, ChangeError> {
        if self.transfer.is_some() {
            return Err(ChangeError::Transferring);
        }
        if !self.is_established(core) && !mutants::on(Mutant::ChangeBeforeOwnCommit) {
            return Err(ChangeError::TooEarly);
        }
        let is_changing = core.configurations.index() > core.commit();
        if is_changing && !mutants::on(Mutant::TwoChangesAtOnce) {
            return Err(ChangeError::InFlight);
        }
        if *change == Change::Remove(core.config.id) {
            return Err(ChangeError::Leader);
        }
        let next = core.membership().with(change)?;
        if !force && !self.is_alive(core, &next, now) {
            return Err(ChangeError::NoLiveQuorum);
        }
        let id = core.append(Payload::Membership(next));
        self.follow_membership(core, now);
        log::info!("{}: {id} changes the members to {}", core.config.id, core.membership());
        Ok(id)
    }

    pub(super) fn is_alive(&self, core: &Core, next: &Membership, now: Time) -> bool {
        let is_lost = |voter| self.progress.get(&voter).is_some_and(|p| p.rolled_back);
        let counts = |voter| self.heard_lately(core, voter, now) && !is_lost(voter);
        agreed(next.voters().map(counts)) == Some(true) || next.voters().eq(core.voters())
    }

    /// A learner that has all that was committed a heartbeat interval ago keeps
    /// up: let it count.
    pub(super) fn promote_learners(&mut self, core: &mut Core, now: Time) {
        if now < self.promotion_due {
            return;
        }
        // What is committed is known for sure only from the own no-op on.
        let commit = core.commit().max(self.noop);
        let commit = std::mem::replace(&mut self.commit_at_promotion, commit);
        self.stands_still = core.commit() == commit && commit < core.log.last().index;
        self.promotion_due = now + core.config.heartbeat_interval;
        let learners = core.membership().iter().filter(|(_, member)| !member.voter);
        let ready = learners.map(|(node, _)| node).find(|node| {
            let keeps_up = |progress: &Progress| progress.counted() >= commit;
            self.progress.get(node).is_some_and(keeps_up) && self.heard_lately(core, *node, now)
        });
        let Some(node) = ready else { return };
        let voters = core.voters().count();
        match self.change_membership(core, now, &Change::Promote(node), false) {
            Ok(_) if voters == 1 => log::warn!(
                "two voters tolerate no failure: if one is lost for good, the other cannot remove \
                 it; add a third"
            ),
            Ok(_) => {}
            Err(error) => log::debug!("{node} is not promoted yet: {error}"),
        }
    }

    /// Asks the successor to stand once it holds everything. From then on this
    /// leader has no lease, whatever comes of it.
    pub(super) fn hand_over(&mut self, core: &mut Core, now: Time) {
        let Some(Transfer { to, asked, .. }) = self.transfer else { return };
        if !asked && !self.may_succeed(core, to, now) {
            log::warn!("{}: {to} cannot lead any more, leads on", core.config.id);
            self.transfer = None;
        }
        let Some(transfer) = &mut self.transfer else { return };
        let caught_up = self
            .progress
            .get(&transfer.to)
            .is_some_and(|progress| progress.counted() == core.log.last().index);
        if caught_up && !transfer.asked {
            transfer.asked = true;
            self.lease_given_up = !mutants::on(Mutant::LeaseAfterTimeoutNow);
            core.send(transfer.to, Message::TimeoutNow);
        }
    }

    /// Whether leadership is being handed over.
    pub fn is_transferring(&self) -> bool {
        self.transfer.is_some()
    }
}
