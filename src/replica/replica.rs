//! The replica itself: what has happened in, what is to be done out.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use bytes::Bytes;
use hashbrown::HashMap;

use super::admin::Admin;
use super::agreement::Agreement;
use super::clock::{LogClock, Now, Reading};
use super::eviction::Evictions;
use super::forward::{Forwards, Proxied, is_proxied};
use super::pending::{Holding, Reads, Ticket, Writes};
use super::requests::NO_LEADER;
use super::snapshots::{Available, Snapshots};
use super::status::Counts;
use super::waits::Waits;
use super::{Config, Effects, Input, PeerMessage};
use crate::fsm::{Action, Fsm, Proposal};
use crate::mutants::{self, Mutant};
use crate::raft::message::VoteResponse;
use crate::raft::{EntryId, Envelope, Index, Membership, Message, NodeId, Raft, Role, Term, Time};
use crate::request::{ErrorKind, Reply};

/// How many cleared keys a turn frees the memory of.
const RECLAIM_KEYS_PER_TURN: usize = 256;

/// How many addresses are remembered, of members and of those who were.
const ADDRESS_BOOK: usize = 2 * Membership::LIMIT;

/// What is kept of a connection to keep its requests in order.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Line {
    /// The entry of its last write, here or as the leader told.
    pub last_write: EntryId,
    /// How many of its reads wait here.
    pub reads: u32,
    /// How many of its requests are held.
    pub held: u32,
    /// How many of its requests are at the leader unanswered.
    pub forwarded: u32,
    /// The number of its last write that was sent to a leader.
    pub sent_write: u64,
}

impl Line {
    /// Whether nothing has to be remembered of it.
    pub fn is_at_rest(&self, applied: EntryId) -> bool {
        self.reads + self.held + self.forwarded == 0 && self.last_write <= applied
    }
}

/// The process is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    /// Somebody else is to lead first.
    HandingOver,
    /// Nobody else can.
    Alone,
}

/// One node above its disk and sockets.
pub struct Replica {
    pub(super) config: Config,
    pub(super) raft: Raft,
    pub(super) fsm: Fsm,
    /// The last entry whose effect `fsm` has.
    pub(super) applied: EntryId,
    pub(super) clock: LogClock,
    pub(super) writes: Writes,
    pub(super) reads: Reads,
    pub(super) held: Holding,
    pub(super) forwards: Forwards,
    pub(super) proxied: Proxied,
    pub(super) admin: Admin,
    pub(super) waits: Waits,
    pub(super) snapshots: Snapshots,
    pub(super) agreement: Agreement,
    pub(super) evictions: Evictions,
    /// Of those that nobody else counts.
    pub(super) counts: Counts,
    /// The last entries of turns in which some were proposed, and when.
    pub(super) proposed: VecDeque<(Index, Time)>,
    pub(super) snapshot_taken: Option<EntryId>,
    pub(super) lines: HashMap<u64, Line, foldhash::fast::FixedState>,
    pub(super) replies: Vec<(Ticket, Reply)>,
    pub(super) messages: Vec<(NodeId, PeerMessage)>,
    pub(super) leads: bool,
    pub(super) log_bytes: u64,
    pub(super) fault: Option<String>,
    stopping: Option<Stopping>,
    /// What log time the leader of this term has last told; reads are judged by
    /// it here.
    pub(super) leader_log: (Term, u64),
    /// What the voters of an election said of log time.
    readings: Vec<(Term, Reading)>,
    pub(super) last_stamp_ms: u64,
    pub(super) ticked_at: Option<Time>,
    book: BTreeMap<NodeId, String>,
    book_of: Option<Membership>,
}

impl Replica {
    /// A node that starts: its consensus with what the journal held, and the
    /// state machine as of the journal's newest snapshot.
    pub fn new(config: Config, raft: Raft, fsm: Fsm, newest: Option<Available>) -> Self {
        let applied = raft.applied();
        assert_eq!(applied.index.0, fsm.applied(), "both continue from one snapshot");
        // The seed of this process numbers its requests to the leader as well.
        let forwards = Forwards::starting_at(raft.seed());
        let agreement = Agreement::of(raft.applied_membership());
        let evictions = Evictions::new(config.memory.eviction, raft.seed());
        Self {
            config,
            raft,
            fsm,
            applied,
            clock: LogClock::default(),
            writes: Writes::default(),
            reads: Reads::default(),
            held: Holding::default(),
            forwards,
            proxied: Proxied::default(),
            admin: Admin::default(),
            waits: Waits::default(),
            snapshots: Snapshots::new(newest),
            agreement,
            evictions,
            counts: Counts::default(),
            proposed: VecDeque::new(),
            snapshot_taken: None,
            lines: HashMap::default(),
            replies: Vec::new(),
            messages: Vec::new(),
            leads: false,
            log_bytes: 0,
            fault: None,
            stopping: None,
            leader_log: (Term(0), 0),
            readings: Vec::new(),
            last_stamp_ms: 0,
            ticked_at: None,
            book: BTreeMap::new(),
            book_of: None,
        }
    }

    /// Takes in one thing that has happened, before `now` was read.
    pub fn step(&mut self, now: Now, input: Input) {
        match input {
            Input::Request { ticket, request } => self.request(now, ticket, request),
            Input::Gone { connection } => {
                // What has not begun need not begin any more.
                self.held.take(|held| held.ticket.connection == connection);
                self.lines.remove(&connection);
            }
            Input::Peer { from, message } => self.on_peer(now, from, message),
            Input::LinkLost(node) => self.raft.link_lost(node),
            Input::Durable { seq, log_bytes, room_bytes } => {
                self.raft.durable(seq);
                self.note_journal(now.time, log_bytes, room_bytes);
            }
            Input::Journal { log_bytes, room_bytes } => {
                self.snapshots.naming = false;
                self.note_journal(now.time, log_bytes, room_bytes);
            }
            Input::Fetched { fetch, read } => self.raft.entries_read(now.time, fetch, read),
            Input::Probed { id, found } => {
                if let Some((ticket, reply)) = self.admin.probed(id, found) {
                    self.reply(ticket, reply);
                }
            }
            Input::Adopted(cluster) => self.config.cluster = Some(cluster),
            Input::Snapshot(report) => self.on_snapshot_report(now, report),
            Input::Memory(limit) => {
                self.config.memory = limit;
                self.evictions.set_policy(limit.eviction);
            }
            Input::Stop => self.stopping = Some(Stopping::HandingOver),
        }
    }

    fn note_journal(&mut self, now: Time, log_bytes: u64, room_bytes: u64) {
        self.log_bytes = log_bytes;
        let had_room = self.raft.has_room();
        self.raft.set_room(now, room_bytes);
        match (had_room, self.raft.has_room()) {
            (true, false) => log::warn!("{}: the disk is full", self.config.name),
            (false, true) => log::info!("{}: the disk has room again", self.config.name),
            _ => {}
        }
    }

    fn on_peer(&mut self, now: Now, from: NodeId, message: PeerMessage) {
        match message {
            PeerMessage::Raft { envelope, .. } if envelope.from != from => {
                log::warn!("{from} speaks for {}: dropped", envelope.from);
            }
            PeerMessage::Raft { envelope, clock } => {
                let told = clock.map(|reading| (envelope.term, reading));
                let is_vote = matches!(envelope.message, Message::VoteResponse(_));
                self.raft.receive(now.time, envelope);
                match told {
                    Some((term, reading)) if term == self.raft.term() => {
                        self.note_reading(now, from, is_vote, reading);
                    }
                    _ => {}
                }
                // Whoever becomes leader stamps what it is asked next.
                if self.leads != matches!(self.raft.role(), Role::Leader(_)) {
                    self.note_role(now);
                }
            }
            PeerMessage::Snapshot(said) => self.on_snapshot_message(now.time, from, said),
            PeerMessage::State(said) => self.on_state_message(now, from, said),
            PeerMessage::Forward(forward) => self.on_forward(now, from, forward),
            PeerMessage::Forwarded { id, answer } => self.on_forwarded(now, from, id, answer),
        }
    }

    /// A node of the current term has said what it knows of log time.
    fn note_reading(&mut self, now: Now, from: NodeId, is_vote: bool, reading: Reading) {
        if is_vote {
            let term = self.raft.term();
            self.readings.retain(|&(of, _)| of == term);
            if self.readings.len() < Membership::LIMIT {
                self.readings.push((term, reading));
            }
        } else if self.raft.leader() == Some(from)
            && let Some(log_ms) = reading.estimate_ms
        {
            self.clock.follow(now, log_ms);
            let term = self.raft.term();
            let told = if self.leader_log.0 == term { self.leader_log.1 } else { 0 };
            self.leader_log = (term, told.max(log_ms));
        }
    }

    /// What of log time goes with a message.
    fn reading_for(&self, now: Now, envelope: &Envelope) -> Option<Reading> {
        match envelope.message {
            Message::Heartbeat(_) | Message::ReadIndexResponse(_) => {
                let estimate_ms = Some(self.log_time_ms(now));
                Some(Reading { estimate_ms, wall_ms: now.wall_ms })
            }
            Message::VoteResponse(VoteResponse { granted: true }) => Some(self.clock.reading(now)),
            _ => None,
        }
    }

    /// A proposal, and the log time it carries.
    pub(super) fn stamped(&self, now: Now, action: Action) -> (u64, Bytes) {
        let stamp_ms = self.log_time_ms(now);
        (stamp_ms, Proposal { stamp_ms, action }.encode())
    }

    /// What log time is: the clock's idea, never behind what is applied.
    pub(super) fn log_time_ms(&self, now: Now) -> u64 {
        self.clock.estimate_ms(now).unwrap_or(0).max(self.fsm.log_time_ms())
    }

    /// Whether this node takes in no more writes.
    pub(super) fn is_closing(&self) -> bool {
        self.stopping == Some(Stopping::Alone)
    }

    /// Gives out all there is to do. Call after every input was taken in.
    pub fn effects(&mut self, now: Now) -> Effects {
        self.note_role(now);
        self.see_to_stop(now.time);
        self.see_to_admin(now.time);
        self.see_to_waits(now.time);
        self.tick(now);
        let mut at_once = self.evict(now);
        let ready = self.raft.ready(now.time);
        at_once |= self.note_role(now);
        if let Some(meta) = ready.restore {
            self.restore(meta.last);
        }
        self.note_proposed(now.time);
        at_once |= self.apply(now);
        let committed_after = self.note_committed(now.time);
        if self.fault.is_none() {
            at_once |= self.serve_ready(now);
            self.send_snapshots(now.time, &ready.snapshot_to);
            at_once |= self.see_to_snapshots(now);
        } else {
            ready.snapshot_to.iter().for_each(|&node| self.raft.snapshot_ended(node));
        }
        self.see_to_agreement(now.time);
        self.give_up_late(now.time);
        at_once |= self.release_held(now);
        at_once |= self.fsm.reclaim(RECLAIM_KEYS_PER_TURN);
        if let Some(fault) = self.raft.fault() {
            self.fault.get_or_insert_with(|| fault.to_string());
        }
        if let Some(fault) = self.fault.clone() {
            self.stop_serving(&fault);
        }
        for envelope in ready.messages {
            let clock = self.reading_for(now, &envelope);
            self.messages.push((envelope.to, PeerMessage::Raft { envelope, clock }));
        }
        Effects {
            replies: std::mem::take(&mut self.replies),
            messages: std::mem::take(&mut self.messages),
            peers: self.new_address_book(),
            probes: self.admin.take_probes(),
            write: ready.write,
            fetch: ready.fetch,
            snapshots: self.snapshots.take_jobs(),
            snapshot_taken: self.snapshot_taken.take(),
            pinned: self.snapshots.pinned(),
            wake_at: if at_once { Some(now.time) } else { self.wake_at(now) },
            drained: self.stopping.is_some() && self.is_drained(),
            removed: self.raft.is_removed(),
            committed_after,
            fault: self.fault.clone(),
        }
    }

    /// A new leader continues log time; requests go where they can go now. True
    /// if there is something new to give out.
    fn note_role(&mut self, now: Now) -> bool {
        let leads = matches!(self.raft.role(), Role::Leader(_));
        if leads && !self.leads {
            let term = self.raft.term();
            let told = self.readings.iter().filter(|&&(of, _)| of == term).map(|&(_, r)| r);
            let readings: Vec<Reading> = told.chain([self.clock.reading(now)]).collect();
            self.clock.begin_to_lead(now, &readings, self.fsm.log_time_ms());
            self.last_stamp_ms = 0;
        }
        if !leads && self.leads {
            self.leader_log = (self.raft.term(), self.log_time_ms(now));
            self.refuse_held_of_others();
        }
        if !leads && !self.admin.is_empty() {
            self.leave_admin();
        }
        if !leads && !self.waits.is_empty() {
            self.leave_waits();
        }
        self.leads = leads;
        if leads {
            self.clock.pull(now);
        }
        if self.raft.leader().is_some() && !self.forwards.is_empty() {
            let over = self.forwards.overtaken(self.raft.term());
            let again = self.give_up_forwarded(over);
            again.into_iter().for_each(|held| self.hold_again(held));
        }
        self.release_held(now)
    }

    fn leave_admin(&mut self) {
        let (mut over, left) = self.admin.step_down();
        if let Some(leader) = self.raft.leader() {
            let leader = self.raft.membership().get(leader).map(|member| member.name.clone());
            over.extend(self.admin.succeeded(leader.as_deref()));
        }
        for (ticket, reply) in over {
            self.reply(ticket, reply);
        }
        for held in left {
            if is_proxied(held.ticket) {
                self.refuse(held.ticket, ErrorKind::NoLeader, NO_LEADER);
            } else {
                self.hold_again(held);
            }
        }
    }

    fn see_to_admin(&mut self, now: Time) {
        if self.leads && !self.admin.is_empty() {
            for (ticket, reply) in self.admin.advance(now, &mut self.raft, self.config.cluster) {
                self.reply(ticket, reply);
            }
        }
    }

    /// Before the end, leadership goes to somebody else, if there is anybody.
    fn see_to_stop(&mut self, now: Time) {
        if self.stopping != Some(Stopping::HandingOver)
            || !self.leads
            || self.raft.is_transferring()
        {
            return;
        }
        match self.raft.successor(now) {
            Some(successor) if self.raft.transfer_leadership(now, successor) => {}
            _ => {
                self.stopping = Some(Stopping::Alone);
                self.refuse_all_held(ErrorKind::NoLeader, NO_LEADER);
            }
        }
    }

    fn refuse_all_held(&mut self, kind: ErrorKind, reason: &str) {
        for held in self.held.take_all() {
            self.unhold(held.ticket);
            self.refuse(held.ticket, kind, reason);
        }
    }

    /// What this node cannot vouch for it does not serve, nor lead by. It goes on
    /// storing and voting.
    fn stop_serving(&mut self, fault: &str) {
        self.raft.suspend();
        for node in self.snapshots.give_up_transfers(self.agreement.is_wrong()) {
            self.raft.snapshot_ended(node);
        }
        for ticket in self.writes.take_all() {
            self.give_up_write(ticket);
        }
        for ticket in self.reads.take_all() {
            self.reply_to_read(ticket, Reply::Error(ErrorKind::NotServing, fault.to_owned()));
        }
        self.refuse_all_held(ErrorKind::NotServing, fault);
    }

    fn is_drained(&self) -> bool {
        let is_done = !self.leads || self.is_closing();
        is_done && self.waiting() == 0
    }

    /// Where everybody is, if that is news. Who was a member stays in it for a
    /// while: the news of a removal still has to get there.
    fn new_address_book(&mut self) -> Option<Vec<(NodeId, String)>> {
        if self.book_of.as_ref() == Some(self.raft.membership()) {
            return None;
        }
        let membership = self.raft.membership().clone();
        if self.book.len() > ADDRESS_BOOK {
            self.book.retain(|node, _| membership.contains(*node));
        }
        for (node, member) in membership.iter().filter(|&(node, _)| node != self.raft.id()) {
            self.book.insert(node, member.peer_address.clone());
        }
        self.book_of = Some(membership);
        Some(self.book.iter().map(|(&node, address)| (node, address.clone())).collect())
    }

    fn give_up_late(&mut self, now: Time) {
        if mutants::on(Mutant::LateNeverAnswered) {
            return;
        }
        for ticket in self.writes.expired(now) {
            self.give_up_write(ticket);
        }
        for ticket in self.reads.expired(now) {
            let reply = Reply::Error(ErrorKind::NoLeader, NO_LEADER.to_owned());
            self.reply_to_read(ticket, reply);
        }
        for (ticket, reply) in self.admin.expired(now) {
            self.reply(ticket, reply);
        }
        let over = self.forwards.expired(now);
        for late in self.give_up_forwarded(over) {
            self.refuse(late.ticket, ErrorKind::NoLeader, NO_LEADER);
        }
        for held in self.held.expired(now) {
            self.unhold(held.ticket);
            self.refuse(held.ticket, ErrorKind::NoLeader, NO_LEADER);
        }
    }

    fn wake_at(&self, now: Now) -> Option<Time> {
        let tick = self.next_tick_ms().filter(|_| self.leads);
        let tick = tick
            .and_then(|due| self.clock.when(now, due))
            .map(|at| self.ticked_at.map_or(at, |ticked| at.max(ticked + self.tick_every(now))));
        let times = [
            Some(self.raft.wake_at()),
            tick,
            self.held.wake_at(now.time),
            self.writes.deadline(),
            self.reads.deadline(),
            self.forwards.deadline(),
            self.admin.deadline(),
            self.waits.deadline(),
            self.snapshots.wake_at(),
            self.agreement.wake_at(),
        ];
        times.into_iter().flatten().min()
    }

    pub(super) fn fail(&mut self, fault: String) {
        log::error!("{}: {fault}", self.config.name);
        self.fault = Some(fault);
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({} requests wait)", self.raft, self.waiting())
    }
}
