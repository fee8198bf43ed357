//! What every role shares: log, disk cursors, configurations, promise, outbox.

use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::config::Config;
use super::durability::{Durability, Recovered, Write};
use super::entry::{Entry, EntryId, HardState, Index, NodeId, Payload, SnapshotMeta, Term};
use super::lease::Promise;
use super::log::Log;
use super::membership::{Configurations, Membership};
use super::message::{Envelope, Message, ReadId, VoteResponse};
use super::reads::Reads;
use super::ready::{Fault, Ready};
use super::time::Time;
use crate::mutants::{self, Mutant};

/// What every role shares.
#[derive(Debug, Clone)]
pub struct Core {
    /// The settings.
    pub(super) config: Config,
    /// Term, vote and commit index.
    pub(super) hard_state: HardState,
    /// The log in memory.
    pub(super) log: Log,
    /// How much of it is on the disk.
    pub(super) durability: Durability,
    /// Who belongs to the cluster.
    pub(super) configurations: Configurations,
    /// What this node promised to leaders.
    pub(super) promise: Promise,
    /// Reads of this node.
    pub(super) reads: Reads,
    /// When to stand for election, unless leading.
    pub(super) election_due: Time,
    rng: Xoshiro256PlusPlus,
    applied: EntryId,
    vote_owed: Option<NodeId>,
    outbox: Vec<Envelope>,
    base: Option<SnapshotMeta>,
    restore: Option<SnapshotMeta>,
    was_member: bool,
    removed: bool,
    /// The state machine cannot take anything any more.
    pub(super) suspended: bool,
    /// How many bytes of entries the disk has room for.
    room_bytes: u64,
    /// How often this node has led in vain, and left it to others, since
    /// something was last committed.
    pub(super) in_vain: u32,
}

impl Core {
    /// What a node starts with, from its journal.
    pub fn new(config: Config, recovered: Recovered, now: Time) -> Self {
        let Recovered { hard_state, snapshot, entries } = recovered;
        let base = snapshot.as_ref().map_or(EntryId::ZERO, |meta| meta.last);
        let membership = snapshot.map(|meta| meta.membership).unwrap_or_default();
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(config.seed);
        let mut core = Core {
            reads: Reads::starting_at(rng.random()),
            promise: Promise::at_start(config.promise, now, false),
            was_member: membership.contains(config.id),
            configurations: Configurations::new(base.index, membership),
            log: Log::new(base),
            durability: Durability::default(),
            hard_state,
            election_due: now,
            rng,
            applied: base,
            vote_owed: None,
            outbox: Vec::new(),
            base: None,
            restore: None,
            removed: false,
            suspended: false,
            room_bytes: u64::MAX,
            in_vain: 0,
            config,
        };
        for entry in entries {
            core.append_entry(entry);
        }
        let last = core.log.last().index;
        assert!(hard_state.commit <= last, "the journal holds what it calls committed");
        core.hard_state.commit = hard_state.commit.max(base.index);
        core.durability = Durability::new(core.hard_state, last);
        if core.is_only_voter() {
            core.promise = Promise::at_start(core.config.promise, now, true);
        } else {
            core.put_off_election(now);
        }
        core
    }

    /// The current term.
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// The commit index.
    pub fn commit(&self) -> Index {
        self.hard_state.commit
    }

    /// The last entry handed out for applying.
    pub fn applied(&self) -> EntryId {
        self.applied
    }

    /// Whether a committed entry has removed this node for good.
    pub fn is_removed(&self) -> bool {
        self.removed
    }

    /// A later term begins.
    pub fn enter_term(&mut self, term: Term, vote: Option<NodeId>) {
        self.hard_state.term = term;
        self.hard_state.vote = vote;
        self.vote_owed = None;
    }

    /// The configuration in use.
    pub fn membership(&self) -> &Membership {
        self.configurations.effective()
    }

    /// Those who count, in the configuration in use.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> + Clone {
        self.membership().voters()
    }

    /// Those who count, without this node.
    pub fn other_voters(&self) -> Vec<NodeId> {
        self.voters().filter(|&voter| voter != self.config.id).collect()
    }

    /// The disk says how many bytes of entries it has room for; `u64::MAX`
    /// unless it is full.
    pub fn set_room(&mut self, bytes: u64) {
        self.room_bytes = bytes;
    }

    /// Whether the disk has room for more than the log's own upkeep.
    pub fn has_room(&self) -> bool {
        self.room_bytes == u64::MAX
    }

    /// How many bytes of commands may be taken in. A full disk keeps something
    /// back for terms, votes, no-ops and members, which commands must not take;
    /// who applies nothing keeps no more in memory than a slow disk may.
    pub fn room_for_commands(&self) -> usize {
        let disk = match self.has_room() {
            true => usize::MAX,
            false => usize::try_from(self.room_bytes)
                .unwrap_or(usize::MAX)
                .saturating_sub(self.owed_bytes()),
        };
        let most = self.config.log_tail_bytes + self.config.disk_lag_bytes;
        let memory =
            if self.suspended { most.saturating_sub(self.log.bytes()) } else { usize::MAX };
        disk.min(memory)
    }

    /// Whether the disk owes so much that it is to be given no more commands.
    pub fn disk_lags(&self) -> bool {
        self.durability.in_flight_bytes() > self.config.disk_lag_bytes
    }

    /// What the disk owes already, and will owe with the next write.
    fn owed_bytes(&self) -> usize {
        let first = self.durability.issued().next();
        let next: usize = self.log.iter_from(first).map(Entry::size).sum();
        self.durability.in_flight_bytes() + next
    }

    fn is_only_voter(&self) -> bool {
        self.membership().is_voter(self.config.id) && self.voters().nth(1).is_none()
    }

    /// Puts a message into the next output.
    pub fn send(&mut self, to: NodeId, message: Message) {
        let envelope = Envelope { from: self.config.id, to, term: self.term(), message };
        self.outbox.push(envelope);
    }

    /// Whether entries continue `prev` without a hole and in order of terms.
    pub fn is_consecutive(&self, prev: EntryId, entries: &[Entry]) -> bool {
        if (prev.index == Index(0)) != (prev.term == Term(0)) {
            return false;
        }
        let mut last = prev;
        entries.iter().all(|entry| {
            let follows = entry.id.index == last.index.next() && entry.id.term >= last.term;
            last = entry.id;
            follows
        }) && last.term <= self.term()
    }

    /// A leader's message is being processed.
    pub fn heard_leader(&mut self, now: Time) {
        self.promise.renew(now);
        self.put_off_election(now);
    }

    /// Draws a new time to stand for election.
    pub fn put_off_election(&mut self, now: Time) {
        let (min, max) = (self.config.election_timeout_min, self.config.election_timeout_max);
        self.election_due = now + self.rng.random_range(min..=max);
    }

    /// Adds an entry of our own term: only a leader does.
    pub fn append(&mut self, payload: Payload) -> EntryId {
        let id = EntryId { term: self.term(), index: self.log.last().index.next() };
        self.append_entry(Entry { id, payload });
        id
    }

    fn append_entry(&mut self, entry: Entry) {
        if let Payload::Membership(membership) = &entry.payload {
            self.configurations.append(entry.id.index, membership.clone());
        }
        self.log.append(entry);
    }

    /// Takes in a leader's entry, which continues what is verified: keeps what
    /// agrees, replaces what does not. `Err` if that is committed.
    pub fn take_in(&mut self, entry: Entry) -> Result<(), Fault> {
        let index = entry.id.index;
        match self.log.id_at(index) {
            Some(ours) if ours == entry.id => Ok(()),
            Some(ours) if index <= self.commit() => Err(Fault::Diverged { ours, theirs: entry.id }),
            // Applied long ago, and no longer in memory.
            None if index <= self.commit() => Ok(()),
            Some(_) if mutants::on(Mutant::KeepConflictingTail) => Ok(()),
            Some(_) => {
                self.truncate_after(index.prev());
                self.append_entry(entry);
                Ok(())
            }
            None => {
                self.append_entry(entry);
                Ok(())
            }
        }
    }

    /// Forgets every entry behind an index, and what they had changed.
    pub fn truncate_after(&mut self, index: Index) {
        log::info!("{}: cut the log after {index}, last was {}", self.config.id, self.log.last());
        self.log.truncate_after(index);
        self.durability.truncate_after(index);
        self.configurations.truncate_after(index);
    }

    /// Everything up to here is committed, and held by this node.
    pub fn commit_to(&mut self, index: Index) {
        assert!(index <= self.log.last().index, "commits only what it holds");
        if index > self.commit() {
            self.in_vain = 0;
        }
        self.hard_state.commit = self.commit().max(index);
    }

    /// Whether a follower could truthfully hold our log up to here.
    pub fn could_hold(&self, index: Index) -> bool {
        index <= self.log.last().index
    }

    /// Whether a message of this term comes too late.
    pub fn is_outdated(&self, term: Term, message: &Message) -> bool {
        let is_old = term < self.term() && !matches!(message, Message::PreVoteResponse(_));
        is_old && !mutants::on(Mutant::OldLeaderObeyed)
    }

    /// Whether a snapshot that ends with this entry holds nothing new.
    pub fn covers(&self, last: EntryId) -> bool {
        let known = last.index <= self.commit() || self.log.holds(last);
        known && !mutants::on(Mutant::OlderSnapshotInstalled)
    }

    /// How long the answer to a read index may take before it counts as lost.
    pub fn read_patience(&self) -> Duration {
        self.config.heartbeat_interval * 2
    }

    /// When to ask the leader once more for a read index.
    pub fn reads_due(&self) -> Option<Time> {
        self.reads.ask_again_at(self.read_patience())
    }

    /// Grants a vote, which is told once it is durable.
    pub fn vote_for(&mut self, candidate: NodeId, now: Time) {
        self.hard_state.vote = Some(candidate);
        self.vote_owed = Some(candidate);
        self.put_off_election(now);
    }

    fn tell_durable_vote(&mut self) {
        let is_durable = self.durability.holds(&self.hard_state);
        if (is_durable || mutants::on(Mutant::VoteBeforeDurable))
            && let Some(candidate) = self.vote_owed.take()
        {
            assert_eq!(self.hard_state.vote, Some(candidate), "a vote is for good");
            self.send(candidate, Message::VoteResponse(VoteResponse { granted: true }));
        }
    }

    fn issue_write(&mut self, now: Time) -> Option<Write> {
        let base = self.base.take();
        let first = self.durability.issued().next();
        let entries: Vec<Entry> = self.log.iter_from(first).cloned().collect();
        if entries.is_empty() && base.is_none() && self.durability.has_issued(&self.hard_state) {
            return None;
        }
        let bytes = entries.iter().map(Entry::size).sum();
        let last = self.log.last().index;
        let seq = self.durability.issue(self.hard_state, last, bytes, now);
        Some(Write { seq, hard_state: self.hard_state, base, entries })
    }

    /// Whether the state machine takes entries now. What is restored has to be
    /// there before anything follows it.
    fn may_apply(&self) -> bool {
        !self.suspended && self.restore.is_none()
    }

    /// The entry to be applied next, which counts as applied from now on.
    pub fn next_committed(&mut self) -> Option<Entry> {
        if !self.has_committed() {
            return None;
        }
        let entry = self.log.iter_from(self.applied.index.next()).next()?.clone();
        self.applied = entry.id;
        if matches!(entry.payload, Payload::Membership(_)) {
            self.note_own_membership(&entry.payload);
            self.configurations.applied(entry.id.index);
        }
        self.trim();
        Some(entry)
    }

    /// Whether there is one.
    pub fn has_committed(&self) -> bool {
        self.may_apply() && self.applied.index < self.commit()
    }

    /// The last read that may be served, with those before it.
    pub fn released_reads(&mut self) -> Option<ReadId> {
        if self.may_apply() { self.reads.release(self.applied.index) } else { None }
    }

    fn note_own_membership(&mut self, committed: &Payload) {
        let Payload::Membership(membership) = committed else { return };
        let member = membership.contains(self.config.id);
        self.removed |= self.was_member && !member;
        self.was_member |= member;
    }

    /// A snapshot takes the place of the whole log; up to `verified` the log was
    /// known to agree with the leader's, hence with the snapshot.
    pub fn install(&mut self, meta: SnapshotMeta, verified: Index) {
        log::info!("{}: a snapshot replaces the log up to {}", self.config.id, meta.last);
        // What is on the disk and agrees with the snapshot stays vouched for.
        self.durability.truncate_after(verified.max(self.hard_state.commit));
        self.log = Log::new(meta.last);
        self.configurations = Configurations::new(meta.last.index, meta.membership.clone());
        self.hard_state.commit = meta.last.index;
        self.continue_from(meta);
    }

    /// A snapshot replaces a state that is not to be trusted; the log, which
    /// holds all of it and perhaps more, stays, and is on its way to the disk.
    pub fn replace_state(&mut self, meta: SnapshotMeta) {
        log::info!("{}: a snapshot replaces the state at {}", self.config.id, meta.last);
        self.configurations.applied(meta.last.index);
        self.continue_from(meta);
    }

    fn continue_from(&mut self, meta: SnapshotMeta) {
        self.note_own_membership(&Payload::Membership(meta.membership.clone()));
        self.applied = meta.last;
        self.base = Some(meta.clone());
        self.restore = Some(meta);
    }

    /// Everything there is to do, in the order in which it is to be done.
    pub fn give_out(&mut self, now: Time, ready: &mut Ready) {
        self.reads.close();
        self.tell_durable_vote();
        ready.restore = self.restore.take();
        ready.write = self.issue_write(now);
        ready.messages = std::mem::take(&mut self.outbox);
        self.trim();
    }

    /// Lets go of what is applied and durable, but for a tail.
    fn trim(&mut self) {
        let spare = self.applied.index.min(self.durability.durable());
        self.log.trim(spare, self.config.log_tail_bytes);
    }
}
