//! Leading: feed every follower, count what is durable where, vouch for reads,
//! change the configuration one member at a time, hand over when asked.
//!
//! The leader's own disk is one more follower: its log counts for as much as is
//! durable, and commit may run ahead of it. A new leader commits a no-op first;
//! until then it cannot know what is committed, so it answers no read and
//! changes no configuration.

use std::collections::BTreeMap;

use super::config::ReadMode;
use super::core::Core;
use super::entry::{Entry, EntryId, Index, NodeId, Payload};
use super::lease::lease_holds;
use super::membership::{Change, Illegal, Membership};
use super::message::{
    Append, AppendResponse, Heartbeat, HeartbeatResponse, Message, ReadId, ReadIndex,
    ReadIndexResponse,
};
use super::progress::{Progress, State};
use super::quorum::agreed;
use super::reads::{Asker, Asking, Rounds};
use super::ready::{Fetch, ProposeError, Ready};
use super::time::Time;

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

#[derive(Debug, Clone, Copy)]
struct Transfer {
    to: NodeId,
    deadline: Time,
    asked: bool,
}

/// Leads one term.
#[derive(Debug, Clone)]
pub struct Leader {
    progress: BTreeMap<NodeId, Progress>,
    noop: Index,
    began: Time,
    rounds: Rounds,
    own_reads: ReadId,
    heartbeat_due: Time,
    promotion_due: Time,
    commit_at_promotion: Index,
    checked_at: Time,
    check_due: Time,
    transfer: Option<Transfer>,
    lease_given_up: bool,
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
    fn follow_membership(&mut self, core: &Core, now: Time) {
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
    fn over_voters<'a, T>(
        &'a self,
        core: &'a Core,
        own: T,
        of: impl Fn(&Progress) -> T + 'a,
    ) -> impl Iterator<Item = T> + 'a
    where
        T: Copy + 'a,
    {
        core.voters().map(
            move |voter| {
                if voter == core.config.id { own } else { of(&self.progress[&voter]) }
            },
        )
    }

    /// Whether something of the own term is committed.
    fn is_established(&self, core: &Core) -> bool {
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

    /// Whether a command may be appended now.
    pub fn may_propose(&self, core: &Core) -> Result<(), ProposeError> {
        if self.transfer.is_some() {
            return Err(ProposeError::Transferring);
        }
        if core.durability.in_flight_bytes() > core.config.disk_lag_bytes {
            return Err(ProposeError::DiskLags);
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
                return false;
            }
            self.checked_at = now;
            self.check_due = now + core.config.election_timeout_max;
        }
        if self.transfer.is_some_and(|transfer| now >= transfer.deadline) {
            log::warn!("{}: the handover took too long, leads on", core.config.id);
            self.transfer = None;
        }
        self.flee_a_slow_disk(core, now);
        true
    }

    /// A leader whose disk hangs would hold up everybody: look for a successor.
    fn flee_a_slow_disk(&mut self, core: &mut Core, now: Time) {
        let hangs = core
            .durability
            .waiting_since()
            .is_some_and(|since| now.since(since) > core.config.election_timeout_max);
        let lags = core.durability.in_flight_bytes() > core.config.disk_lag_bytes;
        if (hangs || lags)
            && self.transfer.is_none()
            && let Some(successor) = self.best_successor(core, now)
        {
            log::warn!("{}: the disk does not keep up, hands over to {successor}", core.config.id);
            self.transfer(core, now, successor);
        }
    }

    /// The live voter that is most caught up.
    pub fn best_successor(&self, core: &Core, now: Time) -> Option<NodeId> {
        let others = core.voters().filter(|&voter| voter != core.config.id);
        others
            .filter(|&voter| self.heard_lately(core, voter, now))
            .filter(|voter| !self.progress[voter].rolled_back)
            .max_by_key(|voter| self.progress[voter].matched)
    }

    /// Begins to hand over; false if the other could not lead.
    pub fn transfer(&mut self, core: &Core, now: Time, to: NodeId) -> bool {
        let can_lead = to != core.config.id
            && core.membership().is_voter(to)
            && !self.progress[&to].rolled_back
            && self.heard_lately(core, to, now);
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
        if !self.is_established(core) {
            return Err(ChangeError::TooEarly);
        }
        if core.configurations.index() > core.commit() {
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

    fn is_alive(&self, core: &Core, next: &Membership, now: Time) -> bool {
        let is_lost = |voter| self.progress.get(&voter).is_some_and(|p| p.rolled_back);
        let counts = |voter| self.heard_lately(core, voter, now) && !is_lost(voter);
        agreed(next.voters().map(counts)) == Some(true) || next.voters().eq(core.voters())
    }

    /// A follower has answered an append.
    pub fn on_append_response(
        &mut self,
        core: &mut Core,
        now: Time,
        from: NodeId,
        response: AppendResponse,
    ) {
        let Some(progress) = self.progress.get_mut(&from) else { return };
        progress.heard = Some(now);
        match response {
            AppendResponse::Accepted { matched, received } => {
                if matched <= received && core.could_hold(received) {
                    progress.accepted(matched, received, self.rounds.latest(), now);
                }
            }
            AppendResponse::Rejected { at, hint } => {
                let agreeable = if hint.index < core.log.base().index {
                    hint.index
                } else {
                    core.log.last_agreeable(hint.index, hint.term).index
                };
                progress.rejected(at, agreeable.next());
            }
        }
    }

    /// A follower has echoed a heartbeat.
    pub fn on_heartbeat_response(
        &mut self,
        core: &mut Core,
        now: Time,
        from: NodeId,
        response: HeartbeatResponse,
    ) {
        let Some(progress) = self.progress.get_mut(&from) else { return };
        let HeartbeatResponse { round, matched, received, durable } = response;
        if round > self.rounds.latest() || matched > received || !core.could_hold(received) {
            log::warn!("dropped an impossible heartbeat response from {from}");
            return;
        }
        progress.heard = Some(now);
        if round > progress.confirmed {
            progress.confirmed = round;
            progress.contact = self.rounds.sent_at(round).or(progress.contact);
        }
        if round > progress.matched_round {
            if durable < progress.matched && !progress.rolled_back {
                log::error!(
                    "{from} had acknowledged {} and now holds {durable}: its disk was rolled back",
                    progress.matched,
                );
                progress.rolled_back = true;
            } else if received < progress.matched {
                // It has restarted, and does not know yet where it agrees.
                if matches!(progress.state, State::Replicate(_)) {
                    progress.probe();
                }
            } else if received > Index(0) {
                progress.accepted(matched, received, self.rounds.latest(), now);
            }
        }
        if progress.stalled(received, core.config.election_timeout_min, now) {
            progress.retries += 1;
            progress.probe();
        }
        self.release_confirmed(core);
    }

    fn release_confirmed(&mut self, core: &mut Core) {
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

    /// What was on its way to a follower is lost.
    pub fn on_link_lost(&mut self, node: NodeId) {
        if let Some(progress) = self.progress.get_mut(&node) {
            progress.lost();
        }
    }

    /// A snapshot is not on its way any more.
    pub fn on_snapshot_ended(&mut self, node: NodeId) {
        if let Some(progress) = self.progress.get_mut(&node)
            && matches!(progress.state, State::Snapshot { .. })
        {
            progress.probe();
            progress.lost();
        }
    }

    /// The journal has answered: send on, if they are still what is wanted.
    pub fn on_entries_read(
        &mut self,
        core: &mut Core,
        now: Time,
        fetch: Fetch,
        read: Option<(EntryId, Vec<Entry>)>,
    ) {
        let Some(progress) = self.progress.get_mut(&fetch.node) else { return };
        if !std::mem::take(&mut progress.fetching) || fetch.from != progress.next {
            return;
        }
        match read {
            Some((prev, entries))
                if prev.index == progress.next.prev() && core.is_consecutive(prev, &entries) =>
            {
                if progress.may_send(core.config.inflight_bytes) {
                    Self::append_to(core, fetch.node, progress, prev, entries, now);
                }
            }
            Some(_) => {}
            None => progress.state = State::Snapshot { announced: false },
        }
    }

    /// Gives out all there is to say.
    pub fn speak(&mut self, core: &mut Core, now: Time, ready: &mut Ready) {
        self.advance_commit(core);
        self.serve_reads(core, now);
        self.promote_learners(core, now);
        if now >= self.heartbeat_due {
            self.beat(core, now);
        }
        self.feed(core, now, ready);
        self.let_go(core, now);
        self.hand_over(core);
    }

    /// Figure 2, the last rule for leaders, and Figure 8: only an entry of the
    /// own term is committed by counting.
    fn advance_commit(&mut self, core: &mut Core) {
        let own = core.durability.durable();
        let agreed = agreed(self.over_voters(core, own, Progress::counted));
        if let Some(index) = agreed
            && index > core.commit()
            && core.log.id_at(index).map(|id| id.term) == Some(core.term())
        {
            core.commit_to(index);
        }
    }

    fn serve_reads(&mut self, core: &mut Core, now: Time) {
        if let Some(id) = core.reads.outstanding()
            && id > self.own_reads
        {
            self.own_reads = id;
            self.rounds.ask(Asking { asker: Asker::Own, id });
        }
        if !self.rounds.has_fresh() || !self.is_established(core) {
            return;
        }
        if self.has_lease(core, now) {
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
        let commit = self.is_established(core).then_some(core.commit());
        let round = self.rounds.begin(now, core.config.election_timeout_max, commit);
        let promise = core.config.promise;
        for &node in self.progress.keys() {
            let beat = Heartbeat { round, commit: core.commit(), promise };
            core.send(node, Message::Heartbeat(beat));
        }
        self.heartbeat_due = now + core.config.heartbeat_interval;
    }

    /// A learner that has all that was committed a heartbeat interval ago keeps
    /// up: let it count.
    fn promote_learners(&mut self, core: &mut Core, now: Time) {
        if now < self.promotion_due {
            return;
        }
        // What is committed is known for sure only from the own no-op on.
        let commit = core.commit().max(self.noop);
        let commit = std::mem::replace(&mut self.commit_at_promotion, commit);
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

    fn feed(&mut self, core: &mut Core, now: Time, ready: &mut Ready) {
        for (&node, progress) in &mut self.progress {
            if let State::Snapshot { announced } = &mut progress.state
                && !std::mem::replace(announced, true)
            {
                ready.snapshot_to.push(node);
            }
            while progress.may_send(core.config.inflight_bytes) {
                let probing = matches!(progress.state, State::Probe { .. });
                let Some(prev) = core.log.id_at(progress.next.prev()) else {
                    progress.fetching = true;
                    let (from, to) = (progress.next, core.log.base().index);
                    let limit_bytes = core.config.append_bytes;
                    ready.fetch.push(Fetch { node, from, to, limit_bytes });
                    break;
                };
                let mut entries = core.log.slice(progress.next, core.config.append_bytes);
                if let Some(removal) = progress.leaving {
                    entries.retain(|entry| entry.id.index <= may_see(core, removal));
                }
                if entries.is_empty() && !probing {
                    break;
                }
                Self::append_to(core, node, progress, prev, entries, now);
            }
        }
    }

    fn append_to(
        core: &mut Core,
        node: NodeId,
        progress: &mut Progress,
        prev: EntryId,
        entries: Vec<Entry>,
        now: Time,
    ) {
        let last = entries.last().map_or(prev.index, |entry| entry.id.index);
        progress.sent(last, entries.iter().map(Entry::size).sum(), now);
        core.send(node, Message::Append(Append { prev, entries, commit: core.commit() }));
    }

    /// Forgets members whose removal is committed, once they know or are gone.
    fn let_go(&mut self, core: &Core, now: Time) {
        let patience = core.config.election_timeout_max * 10;
        self.progress.retain(|_, progress| match progress.leaving {
            Some(removal) if core.commit() >= removal => {
                let gone = progress.heard.is_none_or(|heard| now.since(heard) >= patience);
                progress.matched < removal && !gone
            }
            _ => true,
        });
    }

    /// Asks the successor to stand once it holds everything. From then on this
    /// leader has no lease, whatever comes of it.
    fn hand_over(&mut self, core: &mut Core) {
        let Some(transfer) = &mut self.transfer else { return };
        let caught_up = self
            .progress
            .get(&transfer.to)
            .is_some_and(|progress| progress.counted() == core.log.last().index);
        if caught_up && !transfer.asked {
            transfer.asked = true;
            self.lease_given_up = true;
            core.send(transfer.to, Message::TimeoutNow);
        }
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

    /// Whether a follower can only go on from a snapshot.
    pub fn needs_snapshot(&self, node: NodeId) -> bool {
        let progress = self.progress.get(&node);
        progress.is_some_and(|progress| matches!(progress.state, State::Snapshot { .. }))
    }

    /// Whether what a follower needs next is not in memory.
    pub fn needs_journal(&self, core: &Core, node: NodeId) -> bool {
        let progress = self.progress.get(&node);
        progress.is_some_and(|progress| progress.next <= core.log.base().index)
    }

    /// Whether everybody who is alive had time to be heard.
    pub fn is_settled(&self, core: &Core, now: Time) -> bool {
        self.is_established(core) && now.since(self.began) > core.config.election_timeout_max
    }

    /// Whether leadership is being handed over.
    pub fn is_transferring(&self) -> bool {
        self.transfer.is_some()
    }
}

/// How much of the log a member may see that the entry at `removal` removes: that
/// entry only once it is committed, lest it silences itself for nothing.
fn may_see(core: &Core, removal: Index) -> Index {
    if core.commit() >= removal { removal } else { removal.prev() }
}
