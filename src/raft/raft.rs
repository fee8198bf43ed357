//! The way of an input to the role that handles it, the transitions between
//! roles, and [`Raft::ready`], which turns state into output.

use std::fmt;

use bytes::Bytes;

use super::candidate::{Candidate, PreCandidate};
use super::config::Config;
use super::core::Core;
use super::durability::{Recovered, WriteSeq};
use super::entry::{Entry, EntryId, Index, NodeId, Payload, Term};
use super::follower::Follower;
use super::invariants::Invariants;
use super::leader::Leader;
use super::membership::{Change, Membership};
use super::message::{Envelope, Message, ReadId};
use super::office::ChangeError;
use super::ready::{Fault, Fetch, ProposeError, Ready};
use super::time::Time;

/// What a node is at the moment, with what only that role knows.
#[derive(Debug, Clone)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower(Follower),
    /// Asks whether an election could be won.
    PreCandidate(PreCandidate),
    /// Asks to be elected.
    Candidate(Candidate),
    /// Leads.
    Leader(Box<Leader>),
}

impl Role {
    /// What people call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Follower(_) => "follower",
            Self::PreCandidate(_) => "pre-candidate",
            Self::Candidate(_) => "candidate",
            Self::Leader(_) => "leader",
        }
    }
}

/// One node's consensus. See the module for how to drive it.
#[derive(Clone)]
pub struct Raft {
    pub(super) core: Core,
    pub(super) role: Role,
    pub(super) fault: Option<Fault>,
    /// How many this node has stood for since its start.
    pub(super) elections: u64,
    invariants: Invariants,
}

impl Raft {
    /// A node that starts, or starts again, with what its journal held.
    pub fn new(config: Config, recovered: Recovered, now: Time) -> Self {
        let core = Core::new(config, recovered, now);
        let role = Role::Follower(Follower::default());
        Self { core, role, fault: None, elections: 0, invariants: Invariants::default() }
    }

    /// A message has arrived.
    pub fn receive(&mut self, now: Time, envelope: Envelope) {
        if self.fault.is_some() || envelope.to != self.core.config.id || !envelope.is_sane() {
            return;
        }
        let Envelope { from, term, message, .. } = envelope;
        match message {
            Message::PreVote(ask) => self.on_pre_vote(now, from, term, ask),
            Message::RequestVote(ask) => self.on_request_vote(now, from, term, ask),
            message => {
                if term > self.core.term() {
                    self.become_follower(now, term, None);
                }
                if self.core.is_outdated(term, &message) {
                    self.on_outdated(from, &message);
                } else {
                    self.on_message(now, from, message);
                }
            }
        }
        self.check();
    }

    /// A leader of an earlier term has to hear of this one; silence would leave
    /// the two apart for ever. Other old messages are just old.
    fn on_outdated(&mut self, from: NodeId, message: &Message) {
        if matches!(message, Message::Append(_) | Message::Heartbeat(_)) {
            self.core.send(from, Message::Outdated);
        }
    }

    fn on_message(&mut self, now: Time, from: NodeId, message: Message) {
        if matches!(message, Message::Append(_) | Message::Heartbeat(_)) && !self.follow(now, from)
        {
            return;
        }
        let may_stand = self.may_stand();
        let Self { core, role, .. } = self;
        match (role, message) {
            (Role::Follower(follower), Message::Append(append)) => {
                if let Err(fault) = follower.on_append(core, now, from, append) {
                    self.fail(now, fault);
                }
            }
            (Role::Follower(follower), Message::Heartbeat(beat)) => {
                follower.on_heartbeat(core, now, from, beat);
            }
            (Role::Follower(follower), Message::ReadIndexResponse(response)) => {
                follower.on_read_index(core, response);
            }
            (Role::Follower(follower), Message::TimeoutNow)
                if follower.leader == Some(from) && may_stand =>
            {
                self.become_candidate(now, true);
            }
            (Role::PreCandidate(candidate), Message::PreVoteResponse(answer))
                if answer.next == core.term().next() =>
            {
                candidate.answered(from, answer.granted);
                self.judge_pre_vote(now);
            }
            (Role::Candidate(candidate), Message::VoteResponse(answer)) => {
                candidate.answered(from, answer.granted);
                self.judge_vote(now);
            }
            (Role::Leader(leader), Message::AppendResponse(response)) => {
                leader.on_append_response(core, now, from, response);
            }
            (Role::Leader(leader), Message::HeartbeatResponse(response)) => {
                leader.on_heartbeat_response(core, now, from, response);
            }
            (Role::Leader(leader), Message::ReadIndex(ask)) => leader.on_read_index(from, ask),
            // An answer to a question of an earlier role.
            _ => {}
        }
    }

    /// A leader of the current term has spoken: follow it. False if that cannot be.
    fn follow(&mut self, now: Time, from: NodeId) -> bool {
        match &mut self.role {
            Role::Follower(follower) => match follower.leader {
                None => follower.leader = Some(from),
                Some(leader) if leader == from => {}
                Some(leader) => {
                    log::error!("{from} claims to lead the term of {leader}: dropped");
                    return false;
                }
            },
            Role::PreCandidate(_) | Role::Candidate(_) => {
                self.become_follower(now, self.core.term(), Some(from));
            }
            Role::Leader(_) => {
                log::error!("{from} claims to lead our own term: dropped");
                return false;
            }
        }
        true
    }

    /// Takes in a command for the log; it comes out of [`Raft::next_committed`]
    /// as a committed entry, or not at all if another entry takes its place.
    pub fn propose(&mut self, command: Bytes) -> Result<EntryId, ProposeError> {
        match &mut self.role {
            Role::Leader(leader) if self.fault.is_none() => {
                leader.may_propose(&self.core, command.len())?;
                Ok(self.core.append(Payload::Command(command)))
            }
            _ => Err(ProposeError::NotLeader),
        }
    }

    /// A read has arrived. It may be served once [`Raft::released_reads`] has
    /// reached the id; all reads until the next [`Raft::ready`] share it.
    pub fn read(&mut self) -> ReadId {
        self.core.reads.take_in()
    }

    /// Changes the configuration by one member. `force` leaves out the check
    /// that the members to be are alive.
    pub fn change_membership(
        &mut self,
        now: Time,
        change: &Change,
        force: bool,
    ) -> Result<EntryId, ChangeError> {
        match &mut self.role {
            Role::Leader(leader) if self.fault.is_none() => {
                leader.change_membership(&mut self.core, now, change, force)
            }
            _ => Err(ChangeError::NotLeader),
        }
    }

    /// Hands leadership to a voter. False if this node does not lead, or the
    /// other cannot.
    pub fn transfer_leadership(&mut self, now: Time, to: NodeId) -> bool {
        match &mut self.role {
            Role::Leader(leader) if self.fault.is_none() => leader.transfer(&self.core, now, to),
            _ => false,
        }
    }

    /// The disk has made a write durable, and all before it.
    pub fn durable(&mut self, seq: WriteSeq) {
        self.core.durability.complete(seq);
    }

    /// The disk has room for so many bytes of entries; `u64::MAX` unless it is
    /// full. A leader without room hands over if a majority has some.
    pub fn set_room(&mut self, now: Time, bytes: u64) {
        self.core.set_room(bytes);
        if let Role::Leader(leader) = &mut self.role {
            leader.make_way(&self.core, now);
        }
    }

    /// Whether a node's state is trusted: this node's own, or what another one
    /// has said if this node leads.
    pub fn serves(&self, node: NodeId) -> bool {
        match &self.role {
            _ if node == self.id() => !self.core.suspended,
            Role::Leader(leader) => leader.progress.get(&node).is_some_and(|p| p.serves),
            _ => true,
        }
    }

    /// Whether this node's disk has room for clients' writes.
    pub fn has_room(&self) -> bool {
        self.core.has_room()
    }

    /// Whether this node leads, and a majority's disks have room for clients'
    /// writes, its own among them.
    pub fn leads_with_room(&self, now: Time) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.has_room(&self.core, now))
    }

    /// The journal has answered a [`Fetch`]: the entry before and the entries,
    /// or `None` if it no longer holds them. Every fetch has to be answered.
    pub fn entries_read(&mut self, now: Time, fetch: Fetch, read: Option<(EntryId, Vec<Entry>)>) {
        if let Role::Leader(leader) = &mut self.role {
            leader.on_entries_read(&mut self.core, now, fetch, read);
        }
        self.check();
    }

    /// What was on its way to this node is lost.
    pub fn link_lost(&mut self, node: NodeId) {
        if let Role::Leader(leader) = &mut self.role {
            leader.on_link_lost(node);
        }
    }

    /// A snapshot is not on its way to this node any more, whether it has
    /// arrived or not: what the node answers next tells.
    pub fn snapshot_ended(&mut self, node: NodeId) {
        if let Role::Leader(leader) = &mut self.role {
            leader.on_snapshot_ended(node);
        }
    }

    /// Judges what time it is, and gives out all there is to do. Feed every
    /// input that had arrived when the clock was read before this.
    pub fn ready(&mut self, now: Time) -> Ready {
        if self.fault.is_some() {
            return Ready::default();
        }
        self.judge(now);
        let mut ready = Ready::default();
        match &mut self.role {
            Role::Follower(follower) => follower.speak(&mut self.core, now),
            Role::Leader(leader) => leader.speak(&mut self.core, now, &mut ready),
            Role::PreCandidate(_) | Role::Candidate(_) => {}
        }
        self.core.give_out(now, &mut ready);
        self.check();
        ready
    }

    /// What to apply next, in order; it counts as applied. To be called after
    /// [`Raft::ready`], as often as a turn may take; what is left waits.
    pub fn next_committed(&mut self) -> Option<Entry> {
        if self.fault.is_none() { self.core.next_committed() } else { None }
    }

    /// Whether there is something to apply: there is reason for another turn.
    pub fn has_committed(&self) -> bool {
        self.fault.is_none() && self.core.has_committed()
    }

    /// Once all that was handed out is applied: reads up to this one may be served.
    pub fn released_reads(&mut self) -> Option<ReadId> {
        if self.fault.is_none() { self.core.released_reads() } else { None }
    }

    pub(super) fn fail(&mut self, now: Time, fault: Fault) {
        log::error!("{}: {fault}", self.core.config.id);
        self.become_follower(now, self.core.term(), None);
        self.fault = Some(fault);
    }

    /// When [`Raft::ready`] has something to judge even if nothing arrives.
    pub fn wake_at(&self) -> Time {
        match &self.role {
            _ if self.fault.is_some() => Time::MAX,
            Role::Leader(leader) => leader.wake_at(),
            role => {
                let follows = matches!(role, Role::Follower(Follower { leader: Some(_), .. }));
                let reads = self.core.reads_due().filter(|_| follows);
                let election = self.may_stand().then(|| self.stand_at());
                reads.into_iter().chain(election).min().unwrap_or(Time::MAX)
            }
        }
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.core.config.id
    }

    /// A number of this process' own.
    pub fn seed(&self) -> u64 {
        self.core.config.seed
    }

    /// Its part at the moment.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// The leader of the current term, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(_) => Some(self.core.config.id),
            Role::Follower(follower) => follower.leader,
            _ => None,
        }
    }

    /// How many elections this node has stood for since its start.
    pub fn elections(&self) -> u64 {
        self.elections
    }

    /// The current term.
    pub fn term(&self) -> Term {
        self.core.term()
    }

    /// The commit index.
    pub fn commit(&self) -> Index {
        self.core.commit()
    }

    /// The last entry handed out for applying.
    pub fn applied(&self) -> EntryId {
        self.core.applied()
    }

    /// The last entry of the log.
    pub fn last(&self) -> EntryId {
        self.core.log.last()
    }

    /// The log up to here is on this node's disk.
    pub fn durable_index(&self) -> Index {
        self.core.durability.durable()
    }

    /// The last entry on a member's disk, if this node leads and has heard of it.
    pub fn durable_at(&self, node: NodeId) -> Option<Index> {
        let Role::Leader(leader) = &self.role else { return None };
        if node == self.id() {
            return Some(self.durable_index());
        }
        let (_, progress) = leader.progress().find(|&(other, _)| other == node)?;
        // 0 as long as it has said nothing in this term.
        Some(progress.matched).filter(|&matched| matched > Index(0) && !progress.rolled_back)
    }

    /// How many bytes of the log are in memory.
    #[must_use]
    pub fn log_bytes(&self) -> usize {
        self.core.log.bytes()
    }

    /// The configuration in use.
    pub fn membership(&self) -> &Membership {
        self.core.membership()
    }

    /// The configuration in force at the last applied entry: what a snapshot
    /// taken now has to carry.
    pub fn applied_membership(&self) -> &Membership {
        self.core.configurations.at(self.core.applied().index)
    }

    /// The state machine cannot take anything any more: from now on nothing is
    /// handed out for applying, no read gets leave, and this node does not stand
    /// for election. It goes on storing and voting.
    pub fn suspend(&mut self) {
        self.core.suspended = true;
    }

    /// The state machine was replaced, by [`Ready::restore`]: it takes entries
    /// again.
    pub fn resume(&mut self) {
        self.core.suspended = false;
    }

    /// Whether this node has led for as long as it takes to hear from everybody
    /// who is alive.
    pub fn is_settled(&self, now: Time) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.is_settled(&self.core, now))
    }

    /// Whether a configuration is in use that is not committed yet.
    pub fn is_changing(&self) -> bool {
        self.core.configurations.index() > self.core.commit()
    }

    /// Whether this node leads and is handing over.
    pub fn is_transferring(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.is_transferring())
    }

    /// Whether this node leads and has heard that one within an election timeout.
    pub fn heard_lately(&self, node: NodeId, now: Time) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.heard_lately(&self.core, node, now))
    }

    /// Whether this node leads and that one can only go on from a snapshot.
    pub fn needs_snapshot(&self, node: NodeId) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.needs_snapshot(node))
    }

    /// Whether this node leads and what that one needs next is not in memory.
    pub fn needs_journal(&self, node: NodeId) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.needs_journal(&self.core, node))
    }

    /// Who had best lead next, if this node leads and anybody can.
    pub fn successor(&self, now: Time) -> Option<NodeId> {
        match &self.role {
            Role::Leader(leader) => leader.best_successor(&self.core, now),
            _ => None,
        }
    }

    /// Whether this node was a member and, by a committed entry, is no more.
    pub fn is_removed(&self) -> bool {
        self.core.is_removed()
    }

    /// Why this node must not go on, if so.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// In tests and debug builds, after every step.
    pub(super) fn check(&mut self) {
        if cfg!(debug_assertions) {
            let mut invariants = std::mem::take(&mut self.invariants);
            invariants.check(self);
            self.invariants = invariants;
        }
    }
}

impl fmt::Debug for Raft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} term {} last {} commit {} applied {} durable {}",
            self.core.config.id,
            self.role.name(),
            self.core.term(),
            self.core.log.last(),
            self.core.commit(),
            self.core.applied(),
            self.core.durability.durable(),
        )
    }
}
