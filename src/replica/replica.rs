//! The replica itself: requests in, entries applied, replies out.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;

use super::clock::{LogClock, Now};
use super::pending::{Held, Read, Reads, Ticket, Write, Writes};
use super::{Config, Effects, Input, PeerMessage};
use crate::fsm::{Action, Fsm, Proposal};
use crate::raft::{Entry, Index, Payload, ProposeError, Raft, Role, Time};
use crate::request::{Batch, Consistency, ErrorKind, MemberInfo, Reply, Request, RoleName, Status};

/// Ticks that only remove what is due come no faster than this.
const TICK_EVERY: Duration = Duration::from_millis(10);

/// How many cleared keys a turn frees the memory of.
const RECLAIM_KEYS_PER_TURN: usize = 256;

/// Log time and wall clock further apart than this are worth a look.
const OFFSET_WARNING_MS: u64 = 1000;

/// What a write that had no effect for want of a leader is told.
const NO_LEADER: &str = "no leader, not applied";

/// What is kept of a connection to keep its requests in order.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    /// The entry of its last write.
    last_write: Index,
    /// How many of its reads wait.
    reads: u32,
    /// How many of its requests are held.
    held: u32,
}

/// One node above its disk and sockets.
pub struct Replica {
    config: Config,
    raft: Raft,
    fsm: Fsm,
    clock: LogClock,
    writes: Writes,
    reads: Reads,
    held: VecDeque<Held>,
    lines: HashMap<u64, Line, foldhash::fast::FixedState>,
    replies: Vec<(Ticket, Reply)>,
    leads: bool,
    last_stamp_ms: u64,
    ticked_at: Option<Time>,
    log_bytes: u64,
    room: bool,
    stopping: bool,
    fault: Option<String>,
}

impl Replica {
    /// A node that starts: its consensus with what the journal held, and the
    /// state machine as of the journal's snapshot.
    pub fn new(config: Config, raft: Raft, fsm: Fsm) -> Self {
        assert_eq!(raft.applied().index.0, fsm.applied(), "both continue from one snapshot");
        Self {
            config,
            raft,
            fsm,
            clock: LogClock::default(),
            writes: Writes::default(),
            reads: Reads::default(),
            held: VecDeque::new(),
            lines: HashMap::default(),
            replies: Vec::new(),
            leads: false,
            last_stamp_ms: 0,
            ticked_at: None,
            log_bytes: 0,
            room: true,
            stopping: false,
            fault: None,
        }
    }

    /// Takes in one thing that has happened, before `now` was read.
    pub fn step(&mut self, now: Now, input: Input) {
        match input {
            Input::Request { ticket, request } => self.request(now, ticket, request),
            Input::Gone { connection } => {
                self.lines.remove(&connection);
            }
            Input::Peer { message: PeerMessage::Raft { envelope, .. }, .. } => {
                self.raft.receive(now.time, envelope);
            }
            Input::Peer { .. } | Input::Probed { .. } | Input::Adopted(_) => {}
            Input::LinkLost(node) => self.raft.link_lost(node),
            Input::Durable { seq, log_bytes, room } => {
                self.raft.durable(seq);
                (self.log_bytes, self.room) = (log_bytes, room);
            }
            Input::Fetched { fetch, read } => self.raft.entries_read(now.time, fetch, read),
            Input::Stop => self.stop(),
        }
    }

    fn request(&mut self, now: Now, ticket: Ticket, request: Request) {
        match request {
            Request::Ping => self.reply(ticket, Reply::Pong),
            Request::Status => {
                let status = Reply::Status(Box::new(self.status(now)));
                self.reply(ticket, status);
            }
            Request::Members => {
                let members = Reply::Members(self.members());
                self.reply(ticket, members);
            }
            Request::Join { .. } | Request::Leave { .. } | Request::Transfer { .. } => {
                self.refuse(ticket, ErrorKind::Refused, "this version runs one node per cluster");
            }
            _ if self.fault.is_some() => {
                let why = self.fault.clone().unwrap_or_default();
                self.refuse(ticket, ErrorKind::NotServing, why);
            }
            request => self.submit(now, ticket, request),
        }
    }

    /// Takes a request on its way, behind those of its connection before it.
    fn submit(&mut self, now: Now, ticket: Ticket, request: Request) {
        if let Request::Run { batch, .. } = &request
            && let Err(reason) = self.fsm.limits().check(batch)
        {
            return self.refuse(ticket, ErrorKind::Invalid, reason);
        }
        let waiting = self.writes.len() + self.reads.len() + self.held.len();
        if waiting >= self.config.waiting_requests {
            return self.refuse(ticket, ErrorKind::Busy, "too many requests wait");
        }
        let held = Held { ticket, request, deadline: now.time + self.config.request_timeout };
        let stale = matches!(held.request, Request::Run { consistency: Consistency::Stale, .. });
        let behind_held = if stale { self.line(ticket).held > 0 } else { !self.held.is_empty() };
        if behind_held { self.hold(held) } else { self.begin(now, held) }
    }

    fn line(&mut self, ticket: Ticket) -> &mut Line {
        self.lines.entry(ticket.connection).or_default()
    }

    fn hold(&mut self, held: Held) {
        self.line(held.ticket).held += 1;
        self.held.push_back(held);
    }

    /// Its connection may be gone by now.
    fn unhold(&mut self, ticket: Ticket) {
        if let Some(line) = self.lines.get_mut(&ticket.connection) {
            line.held = line.held.saturating_sub(1);
        }
    }

    /// Takes in no more writes. What is held will find no leader here.
    fn stop(&mut self) {
        self.stopping = true;
        for held in std::mem::take(&mut self.held) {
            self.unhold(held.ticket);
            self.refuse(held.ticket, ErrorKind::NoLeader, NO_LEADER);
        }
    }

    fn begin(&mut self, now: Now, held: Held) {
        let Held { ticket, request, deadline } = held;
        match request {
            Request::Run { batch, consistency, .. } if !batch.is_write() => {
                self.begin_read(ticket, batch, consistency, deadline);
            }
            Request::Run { batch, session, .. } => {
                self.begin_write(now, ticket, Action::Run { batch, session }, deadline);
            }
            Request::OpenSession => {
                self.begin_write(now, ticket, Action::OpenSession, deadline);
            }
            _ => unreachable!("answered without waiting"),
        }
    }

    fn begin_read(
        &mut self,
        ticket: Ticket,
        batch: Batch,
        consistency: Consistency,
        deadline: Time,
    ) {
        let line = self.line(ticket);
        line.reads += 1;
        let after = line.last_write;
        let leave = match consistency {
            Consistency::Linearizable => Some(self.raft.read()),
            Consistency::Stale => None,
        };
        let read = Read { ticket, batch, leave, after, stamp_ms: 0, deadline };
        if leave.is_some() { self.reads.push(read) } else { self.reads.park(read) }
    }

    fn begin_write(&mut self, now: Now, ticket: Ticket, action: Action, deadline: Time) {
        if self.stopping {
            return self.refuse(ticket, ErrorKind::NoLeader, "this node is stopping, not applied");
        }
        if !self.leads {
            let request = match action {
                Action::Run { batch, session } => {
                    Request::Run { batch, consistency: Consistency::default(), session }
                }
                _ => Request::OpenSession,
            };
            return self.hold(Held { ticket, request, deadline });
        }
        let growth_bytes = action.growth_bytes();
        if let Err((kind, reason)) = self.admit(&action, growth_bytes) {
            return self.refuse(ticket, kind, reason);
        }
        let command = self.stamped(now, action);
        let log_bytes = command.len();
        match self.raft.propose(command) {
            Ok(entry) => {
                self.line(ticket).last_write = entry.index;
                self.writes.insert(entry, Write { ticket, deadline, growth_bytes, log_bytes });
            }
            Err(ProposeError::DiskLags) => {
                self.refuse(ticket, ErrorKind::DiskFull, "the disk is too slow, not applied");
            }
            Err(ProposeError::LogFull) => {
                self.refuse(ticket, ErrorKind::Busy, "followers do not keep up, not applied");
            }
            Err(ProposeError::NotLeader | ProposeError::Transferring) => {
                self.refuse(ticket, ErrorKind::NoLeader, NO_LEADER);
            }
        }
    }

    /// Whether a client's write may enter the log.
    fn admit(&self, action: &Action, growth_bytes: u64) -> Result<(), (ErrorKind, &'static str)> {
        if !self.room {
            return Err((ErrorKind::DiskFull, "disk full: writes are refused, reads go on"));
        }
        let log_bytes = self.writes.log_bytes().saturating_add(growth_bytes as usize);
        if log_bytes > self.config.waiting_bytes && !self.writes.is_empty() {
            return Err((ErrorKind::Busy, "too many bytes of writes wait"));
        }
        let limit = self.config.memory_limit_bytes;
        if !self.fsm.fits(action, self.writes.growth_bytes(), limit) {
            return Err((ErrorKind::OutOfMemory, "out of memory"));
        }
        Ok(())
    }

    fn stamped(&mut self, now: Now, action: Action) -> Bytes {
        let stamp_ms = self.log_time_ms(now);
        self.last_stamp_ms = self.last_stamp_ms.max(stamp_ms);
        Proposal { stamp_ms, action }.encode()
    }

    /// What log time is: the clock's idea, never behind what is applied.
    fn log_time_ms(&self, now: Now) -> u64 {
        self.clock.estimate_ms(now).unwrap_or(0).max(self.fsm.log_time_ms())
    }

    /// Gives out all there is to do. Call after every input was taken in.
    pub fn effects(&mut self, now: Now) -> Effects {
        self.note_role(now);
        self.tick(now);
        let ready = self.raft.ready(now.time);
        let newly_leads = self.note_role(now);
        self.apply(ready.committed);
        if let Some(upto) = ready.reads {
            let reads: Vec<Read> = self.reads.with_leave(upto).collect();
            reads.into_iter().for_each(|read| self.serve(now, read));
        }
        let unparked = self.reads.unparked(Index(self.fsm.applied()), self.fsm.log_time_ms());
        unparked.into_iter().for_each(|read| self.serve(now, read));
        self.give_up_late(now.time);
        let reclaiming = self.fsm.reclaim(RECLAIM_KEYS_PER_TURN);
        if let Some(fault) = self.raft.fault() {
            self.fault.get_or_insert_with(|| fault.to_string());
        }
        let at_once = ready.more || reclaiming || newly_leads;
        Effects {
            replies: std::mem::take(&mut self.replies),
            messages: ready
                .messages
                .into_iter()
                .map(|envelope| (envelope.to, PeerMessage::Raft { envelope, clock: None }))
                .collect(),
            peers: None,
            probes: Vec::new(),
            removed: self.raft.is_removed(),
            write: ready.write,
            fetch: ready.fetch,
            wake_at: if at_once { Some(now.time) } else { self.wake_at(now) },
            drained: self.stopping && self.writes.is_empty() && self.reads.is_empty(),
            fault: self.fault.clone(),
        }
    }

    /// A new leader continues log time and lets held requests begin. True if
    /// this node has just become it.
    fn note_role(&mut self, now: Now) -> bool {
        let leads = matches!(self.raft.role(), Role::Leader(_));
        let newly = leads && !self.leads;
        self.leads = leads;
        if newly {
            let readings = [self.clock.reading(now)];
            self.clock.begin_to_lead(now, &readings, self.fsm.log_time_ms());
            self.last_stamp_ms = 0;
            for held in std::mem::take(&mut self.held) {
                self.unhold(held.ticket);
                self.begin(now, held);
            }
        }
        if leads {
            self.clock.pull(now);
        }
        newly
    }

    /// Lets time pass in the log when a key is due and nothing on its way has a
    /// stamp that says so.
    fn tick(&mut self, now: Now) {
        if !self.leads {
            return;
        }
        let log_time = self.log_time_ms(now);
        let on_its_way = self.stamp_on_its_way_ms();
        let wanted = self.reads.wanted_stamp_ms().filter(|&stamp| stamp > on_its_way);
        let due = self.next_tick_ms().is_some_and(|due| due <= log_time);
        let rested = self.ticked_at.is_none_or(|at| now.time.since(at) >= TICK_EVERY);
        if wanted.is_some() || (due && rested) {
            let tick = self.stamped(now, Action::Tick);
            if self.raft.propose(tick).is_ok() {
                self.ticked_at = Some(now.time);
            }
        }
    }

    /// The latest stamp of what is in the log and not yet applied; 0 if none.
    fn stamp_on_its_way_ms(&self) -> u64 {
        let on_its_way = self.raft.last().index > self.raft.applied().index;
        if on_its_way { self.last_stamp_ms } else { 0 }
    }

    /// When the next tick is due, in log time, unless what is on its way will do.
    fn next_tick_ms(&self) -> Option<u64> {
        let on_its_way = self.stamp_on_its_way_ms();
        self.fsm.next_deadline_ms().filter(|&due| due > on_its_way)
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            if self.fault.is_some() {
                return;
            }
            self.serve_overtaken(&entry);
            let reply = match entry.payload {
                Payload::Command(command) => match Proposal::decode(command) {
                    Ok(proposal) => self.fsm.apply(entry.id.index.0, &proposal),
                    Err(error) => return self.fail(format!("entry {} is {error}", entry.id)),
                },
                Payload::Noop | Payload::Membership(_) => {
                    self.fsm.apply_other(entry.id.index.0);
                    Reply::Done
                }
            };
            let settled = self.writes.applied(entry.id);
            for ticket in settled.replaced {
                self.refuse(ticket, ErrorKind::NoLeader, NO_LEADER);
            }
            if let Some(ticket) = settled.done {
                self.reply(ticket, reply);
            }
        }
    }

    /// An entry of ours is about to be applied: the reads that its connection
    /// asked before it are served first. That it is committed proves that this
    /// node still led after they had arrived.
    fn serve_overtaken(&mut self, entry: &Entry) {
        let Some(write) = self.writes.get(entry.id) else { return };
        let ticket = write.ticket;
        if self.lines.get(&ticket.connection).is_some_and(|line| line.reads > 0) {
            for read in self.reads.before(ticket) {
                let reply = self.fsm.query(&read.batch, self.fsm.log_time_ms());
                self.reply_to_read(read.ticket, reply);
            }
        }
    }

    /// Serves a read that has leave, or lets it wait for what it needs of the log.
    fn serve(&mut self, now: Now, mut read: Read) {
        let at_ms = self.log_time_ms(now).max(read.stamp_ms);
        if read.after > Index(self.fsm.applied()) {
            return self.reads.park(read);
        }
        // Stale reads are judged by what this node believes; they wait for nobody.
        if read.leave.is_some()
            && read.stamp_ms == 0
            && self.fsm.has_deadline_by(&read.batch, at_ms)
        {
            read.stamp_ms = at_ms;
            return self.reads.park(read);
        }
        let reply = self.fsm.query(&read.batch, at_ms);
        self.reply_to_read(read.ticket, reply);
    }

    fn give_up_late(&mut self, now: Time) {
        for ticket in self.writes.expired(now) {
            self.refuse(ticket, ErrorKind::Unknown, "may or may not have been applied");
        }
        for ticket in self.reads.expired(now) {
            let reply = Reply::Error(ErrorKind::NoLeader, NO_LEADER.to_owned());
            self.reply_to_read(ticket, reply);
        }
        while self.held.front().is_some_and(|held| held.deadline <= now) {
            let held = self.held.pop_front().expect("there is a first one");
            self.unhold(held.ticket);
            self.refuse(held.ticket, ErrorKind::NoLeader, NO_LEADER);
        }
    }

    fn wake_at(&self, now: Now) -> Option<Time> {
        let held = self.held.front().map(|held| held.deadline);
        let tick = self.next_tick_ms().filter(|_| self.leads);
        let tick = tick
            .and_then(|due| self.clock.when(now, due))
            .map(|at| self.ticked_at.map_or(at, |ticked| at.max(ticked + TICK_EVERY)));
        let raft = Some(self.raft.wake_at());
        let times = [raft, held, tick, self.writes.deadline(), self.reads.deadline()];
        times.into_iter().flatten().min()
    }

    fn reply(&mut self, ticket: Ticket, reply: Reply) {
        self.replies.push((ticket, reply));
    }

    fn reply_to_read(&mut self, ticket: Ticket, reply: Reply) {
        if let Some(line) = self.lines.get_mut(&ticket.connection) {
            line.reads = line.reads.saturating_sub(1);
        }
        self.reply(ticket, reply);
    }

    fn refuse(&mut self, ticket: Ticket, kind: ErrorKind, reason: impl Into<String>) {
        self.reply(ticket, Reply::Error(kind, reason.into()));
    }

    fn fail(&mut self, fault: String) {
        log::error!("{}: {fault}", self.config.name);
        self.fault = Some(fault);
    }

    /// The members, in order of their names.
    fn members(&self) -> Vec<MemberInfo> {
        let leader = self.raft.leader();
        let members = self.raft.membership().iter().map(|(node, member)| MemberInfo {
            name: member.name.clone(),
            node: node.0,
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
            voter: member.voter,
            leader: leader == Some(node),
        });
        let mut members: Vec<MemberInfo> = members.collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members
    }

    fn role_name(&self) -> RoleName {
        let membership = self.raft.membership();
        match self.raft.role() {
            Role::Leader(_) => RoleName::Leader,
            _ if membership.is_empty() => RoleName::Joining,
            _ if !membership.is_voter(self.raft.id()) => RoleName::Learner,
            Role::PreCandidate(_) | Role::Candidate(_) => RoleName::Candidate,
            Role::Follower(_) => RoleName::Follower,
        }
    }

    fn status(&self, now: Now) -> Status {
        let members = self.members();
        let leader = members.iter().find(|member| member.leader);
        Status {
            name: self.config.name.clone(),
            node: self.raft.id().0,
            cluster: self.config.cluster.map_or(0, |cluster| cluster.0),
            role: self.role_name(),
            leader: leader.map(|member| member.name.clone()),
            term: self.raft.term().0,
            last: self.raft.last().index.0,
            durable: self.raft.durable_index().0,
            commit: self.raft.commit().0,
            applied: self.fsm.applied(),
            log_bytes: self.log_bytes,
            keys: self.fsm.keys(),
            memory_bytes: self.fsm.memory_bytes(),
            memory_limit_bytes: self.config.memory_limit_bytes,
            state_hash: self.fsm.contents_hash(),
            log_time_ms: self.log_time_ms(now),
            clock_offset_ms: self.clock.offset_ms(now),
            warnings: self.warnings(now),
            members,
        }
    }

    fn warnings(&self, now: Now) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(fault) = &self.fault {
            warnings.push(format!("not serving: {fault}"));
        }
        if !self.room {
            warnings.push("disk full: writes are refused".to_owned());
        }
        let offset_ms = self.clock.offset_ms(now);
        if offset_ms.unsigned_abs() > OFFSET_WARNING_MS {
            warnings.push(format!("log time is {offset_ms} ms ahead of this node's wall clock"));
        }
        warnings
    }

    /// Its consensus, to look at.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// Its state, to look at.
    pub fn fsm(&self) -> &Fsm {
        &self.fsm
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({} writes, {} reads wait)", self.raft, self.writes.len(), self.reads.len())
    }
}
