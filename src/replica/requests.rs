//! Requests on their way in: answered here, proposed, or sent on to the leader.

use std::time::Duration;

use super::clock::Now;
use super::forward::{Sent, is_proxied};
use super::pending::{Held, Read, Ticket, Write};
use super::replica::{Line, Replica};
use super::{Answered, Forward, PeerMessage};
use crate::fsm::{Action, Growth};
use crate::mutants::{self, Mutant};
use crate::raft::{EntryId, NodeId, ProposeError, Time};
use crate::request::{
    Answer, Batch, Command, Condition, Consistency, ErrorKind, Reply, Request, TOO_LARGE_TO_SEND,
};

/// What a request that had no effect for want of a leader is told.
pub(super) const NO_LEADER: &str = "no leader, not applied";

/// What a write is told that no majority has room for.
pub(super) const DISK_FULL: &str = "disk full: writes are refused, reads go on";

/// What is told when nobody can know.
pub(super) const UNKNOWN: &str = "may or may not have been applied";

/// How many requests about the cluster itself may be under way.
const ADMIN_LIMIT: usize = 32;

/// The largest reply that goes back to the node that has sent the request on: what
/// clients are told is no larger either.
const FORWARDED_REPLY_BYTES: usize = 64 << 20;

/// How long to wait before a request that the leader refused is sent again.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// Where a request goes from here.
enum Way {
    /// This node sees to it.
    Here,
    /// To the leader.
    To(NodeId),
    /// Nowhere yet.
    Hold,
}

impl Replica {
    /// A client of this node asks.
    pub(super) fn request(&mut self, now: Now, ticket: Ticket, request: Request) {
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
            Request::Usage(key) => {
                let answers = self.usage_of(now, &key);
                self.reply(ticket, Reply::Answers(answers));
            }
            request => match self.check(&request) {
                Ok(()) => {
                    self.note_announcement(&request);
                    let deadline = now.time + self.config.request_timeout;
                    let held = Held { ticket, request, deadline, not_before: Time::ZERO };
                    self.submit(now, held);
                }
                Err((kind, reason)) => self.refuse(ticket, kind, reason),
            },
        }
    }

    /// Whether a request may begin at all.
    fn check(&self, request: &Request) -> Result<(), (ErrorKind, String)> {
        if let Some(fault) = &self.fault {
            return Err((ErrorKind::NotServing, fault.clone()));
        }
        if self.is_closing() && !is_read(request) {
            return Err((ErrorKind::NoLeader, "this node is stopping, not applied".to_owned()));
        }
        let is_full = self.waiting() >= self.config.waiting_requests
            || self.parked_bytes() >= self.config.waiting_bytes;
        if is_full || (is_admin(request) && self.admin.len() >= ADMIN_LIMIT) {
            return Err((ErrorKind::Busy, "too many requests wait".to_owned()));
        }
        match request {
            Request::Run { batch, .. } => {
                self.fsm.check(batch).map_err(|reason| (ErrorKind::Invalid, reason))
            }
            Request::Leave { name } if name.is_empty() => {
                Err((ErrorKind::Invalid, "a name is needed".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// A member that was moved while nobody led says where it is now: whoever
    /// it asks has to speak to it before anybody can lead, and so looks there.
    fn note_announcement(&mut self, request: &Request) {
        if let Request::Join { peer_address, .. } = request
            && self.raft.leader().is_none()
        {
            self.admin.look_at(peer_address.clone());
        }
    }

    /// How many requests wait for anything.
    pub(super) fn waiting(&self) -> usize {
        self.writes.len()
            + self.reads.len()
            + self.held.len()
            + self.forwards.len()
            + self.admin.len()
            + self.waits.len()
    }

    /// What requests hold in memory that are not in the log.
    fn parked_bytes(&self) -> usize {
        self.held.bytes() + self.forwards.bytes() + self.reads.bytes()
    }

    /// Takes a request on its way, behind those of its connection before it.
    fn submit(&mut self, now: Now, held: Held) {
        if self.line(held.ticket).held > 0 { self.hold(held) } else { self.begin(now, held) }
    }

    pub(super) fn line(&mut self, ticket: Ticket) -> &mut Line {
        self.lines.entry(ticket.connection).or_default()
    }

    /// The line of a connection that may be gone by now.
    fn known_line(&mut self, ticket: Ticket) -> Option<&mut Line> {
        self.lines.get_mut(&ticket.connection)
    }

    fn hold(&mut self, held: Held) {
        self.line(held.ticket).held += 1;
        self.held.push(held);
    }

    /// Holds a request that had been on its way.
    pub(super) fn hold_again(&mut self, held: Held) {
        let line = self.line(held.ticket);
        line.held += 1;
        if line.held == 1 { self.held.push(held) } else { self.held.push_back(held) }
    }

    /// Lets what was held begin, in order, if it can now.
    pub(super) fn release_held(&mut self, now: Now) -> bool {
        let leader_is_known = self.raft.leader().is_some() && !self.raft.is_transferring();
        if self.held.is_empty() || !leader_is_known {
            return false;
        }
        let released = self.held.take_all();
        released.iter().for_each(|held| self.unhold(held.ticket));
        let before = released.len();
        for held in released {
            let line = *self.line(held.ticket);
            // Nothing overtakes what is at the leader: it may yet come back.
            if line.held + line.forwarded > 0 || held.not_before > now.time {
                self.hold(held);
            } else {
                self.begin(now, held);
            }
        }
        self.held.len() < before
    }

    /// Its connection may be gone by now.
    pub(super) fn unhold(&mut self, ticket: Ticket) {
        if let Some(line) = self.known_line(ticket) {
            line.held = line.held.saturating_sub(1);
        }
    }

    fn begin(&mut self, now: Now, held: Held) {
        match self.way(&held) {
            Way::Here => self.begin_here(now, held),
            Way::To(leader) => self.forward(now, leader, held),
            Way::Hold => self.hold(held),
        }
    }

    /// A read is served here by any node, unless a request of its connection is
    /// at the leader unanswered: it would overtake that. Nor may a request that
    /// goes to the leader overtake a read that waits here. A follower without
    /// room does not keep up, so there too reads go to the leader.
    fn way(&mut self, held: &Held) -> Way {
        let line = *self.line(held.ticket);
        let stays = match &held.request {
            Request::Run { batch, consistency, .. } if !batch.is_write() => {
                let keeps_up = self.leads || self.raft.has_room();
                line.forwarded == 0 && (keeps_up || *consistency == Consistency::Stale)
            }
            _ => false,
        };
        match self.raft.leader() {
            _ if stays => Way::Here,
            _ if self.raft.is_transferring() => Way::Hold,
            Some(leader) if leader == self.raft.id() => Way::Here,
            Some(_) if line.reads > 0 => Way::Hold,
            Some(leader) => Way::To(leader),
            None => Way::Hold,
        }
    }

    fn begin_here(&mut self, now: Now, held: Held) {
        let Held { ticket, request, deadline, .. } = held;
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
            Request::AwaitDurable { .. } => {
                self.begin_wait(now.time, Held { ticket, request, deadline, ..held });
            }
            request => self.admin.begin(ticket, request, deadline),
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
            Consistency::Linearizable if !mutants::on(Mutant::ReadsAskNobody) => {
                Some(self.raft.read())
            }
            _ => None,
        };
        let bytes = batch.size_bytes();
        let read = Read { ticket, batch, leave, after, stamp_ms: 0, deadline, bytes };
        if leave.is_some() { self.reads.push(read) } else { self.reads.park(read) }
    }

    fn begin_write(&mut self, now: Now, ticket: Ticket, action: Action, deadline: Time) {
        let on_its_way = self.writes.growth().most_bytes.max(self.writes.log_bytes() as u64);
        let growth = self.fsm.growth(&action, on_its_way);
        if let Err((kind, reason)) = self.admit(now, growth) {
            return self.refuse(ticket, kind, reason);
        }
        let early = mutants::on(Mutant::ReplyBeforeApply) && is_plain_set(&action);
        let (stamp_ms, command) = self.stamped(now, action);
        let log_bytes = command.len();
        match self.raft.propose(command) {
            Ok(entry) => {
                self.last_stamp_ms = self.last_stamp_ms.max(stamp_ms);
                self.line(ticket).last_write = entry;
                if early {
                    let answer = Answer::Stored { version: entry.index.0 };
                    return self.reply(ticket, Reply::Answers(vec![answer]));
                }
                self.writes.insert(entry, Write { ticket, deadline, growth, log_bytes });
            }
            Err(ProposeError::DiskFull) => self.refuse(ticket, ErrorKind::DiskFull, DISK_FULL),
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
    fn admit(&mut self, now: Now, growth: Growth) -> Result<(), (ErrorKind, &'static str)> {
        if self.leads && !self.raft.leads_with_room(now.time) {
            return Err((ErrorKind::DiskFull, DISK_FULL));
        }
        // How much a write adds is about how much it takes in the log.
        let log_bytes = self.writes.log_bytes().saturating_add(growth.most_bytes as usize);
        if log_bytes > self.config.waiting_bytes && !self.writes.is_empty() {
            return Err((ErrorKind::Busy, "too many bytes of writes wait"));
        }
        if !self.make_room(now, growth) {
            return Err((ErrorKind::OutOfMemory, "out of memory"));
        }
        Ok(())
    }

    fn forward(&mut self, now: Now, leader: NodeId, held: Held) {
        let Held { ticket, request, deadline, .. } = held;
        let (term, bytes) = (self.raft.term(), request.size_bytes());
        let timeout = deadline.since(now.time);
        self.counts.forwarded += 1;
        let line = self.line(ticket);
        line.forwarded += 1;
        if !is_read(&request) {
            line.sent_write = ticket.number;
        }
        let sent = Sent { ticket, request: request.clone(), to: leader, term, deadline, bytes };
        let id = self.forwards.insert(sent);
        let connection = ticket.connection;
        let forward = Forward { id, term, timeout, connection, request };
        if mutants::on(Mutant::ForwardedTwice) {
            self.messages.push((leader, PeerMessage::Forward(forward.clone())));
        }
        self.messages.push((leader, PeerMessage::Forward(forward)));
    }

    /// Another node has sent a request of its client's. It is begun here or
    /// refused, never sent on.
    pub(super) fn on_forward(&mut self, now: Now, from: NodeId, forward: Forward) {
        let Forward { id, term, timeout, connection, request } = forward;
        if !self.proxied.is_news(from, id) {
            return;
        }
        let ticket = self.proxied.insert(from, connection, id);
        let is_meant = self.raft.term() == term || mutants::on(Mutant::ForwardTermIgnored);
        let may_take = (self.leads && is_meant) || mutants::on(Mutant::ForwardedOn);
        if !may_take || self.fault.is_some() {
            return self.refuse(ticket, ErrorKind::NoLeader, NO_LEADER);
        }
        if is_about_the_node(&request) {
            return self.refuse(ticket, ErrorKind::Invalid, "every node answers that itself");
        }
        match self.check(&request) {
            Ok(()) => {
                let deadline = now.time + timeout.min(self.config.request_timeout);
                self.submit(now, Held { ticket, request, deadline, not_before: Time::ZERO });
            }
            Err((kind, reason)) => self.refuse(ticket, kind, reason),
        }
    }

    /// This node does not lead any more: what others have sent it, and has not
    /// begun, goes back to them, in order.
    pub(super) fn refuse_held_of_others(&mut self) {
        for held in self.held.take(|held| is_proxied(held.ticket)) {
            self.unhold(held.ticket);
            self.refuse(held.ticket, ErrorKind::NoLeader, NO_LEADER);
        }
    }

    /// The leader has answered. If it refused for not leading, the request had
    /// no effect, and waits for whoever does.
    pub(super) fn on_forwarded(&mut self, now: Now, from: NodeId, id: u64, answer: Answered) {
        let Some(sent) = self.forwards.answered(from, id) else { return };
        let Answered { reply, applied } = answer;
        let Sent { ticket, request, deadline, .. } = sent;
        let reply = match answers_all(&request, &reply) {
            true => reply,
            false => Reply::Error(ErrorKind::Unknown, UNKNOWN.to_owned()),
        };
        if let Some(line) = self.known_line(ticket) {
            line.forwarded = line.forwarded.saturating_sub(1);
            line.last_write = line.last_write.max(applied);
        }
        if matches!(reply, Reply::Error(ErrorKind::NoLeader, _)) && !self.is_closing() {
            let not_before = now.time + RETRY_AFTER;
            self.hold_again(Held { ticket, request, deadline, not_before });
        } else {
            self.reply(ticket, reply);
        }
    }

    /// Gives up requests at a leader that will not answer any more. Of the reads
    /// among them, those may be asked again that have no write of their connection
    /// behind them: it may have taken effect.
    pub(super) fn give_up_forwarded(&mut self, over: Vec<Sent>) -> Vec<Held> {
        let mut reads = Vec::new();
        for Sent { ticket, request, deadline, .. } in over {
            if let Some(line) = self.known_line(ticket) {
                line.forwarded = line.forwarded.saturating_sub(1);
            }
            match request {
                // Who leads now is all that a handover was about.
                Request::Transfer { to } if self.is_led_by(to.as_deref()) => {
                    self.reply(ticket, Reply::Done);
                }
                request if is_read(&request) && !self.is_overtaken(ticket) => {
                    reads.push(Held { ticket, request, deadline, not_before: Time::ZERO });
                }
                request if is_read(&request) => {
                    self.refuse(ticket, ErrorKind::NoLeader, NO_LEADER);
                }
                request if mutants::on(Mutant::ForwardRetriesUnknown) => {
                    reads.push(Held { ticket, request, deadline, not_before: Time::ZERO });
                }
                _ => self.refuse(ticket, ErrorKind::Unknown, UNKNOWN),
            }
        }
        reads
    }

    /// Whether a write of the same connection behind it was sent to a leader.
    fn is_overtaken(&self, ticket: Ticket) -> bool {
        self.lines.get(&ticket.connection).is_some_and(|line| line.sent_write > ticket.number)
    }

    /// Whether this member leads, or anybody if none is named.
    fn is_led_by(&self, name: Option<&str>) -> bool {
        let leader = self.raft.leader().and_then(|leader| self.raft.membership().get(leader));
        leader.is_some_and(|leader| name.is_none_or(|name| leader.name == name))
    }

    /// Nobody will know what became of a write; nothing waits for it any more.
    pub(super) fn give_up_write(&mut self, ticket: Ticket) {
        if let Some(line) = self.known_line(ticket) {
            line.last_write = EntryId::ZERO;
        }
        match mutants::on(Mutant::UnknownCalledRefused) {
            false => self.refuse(ticket, ErrorKind::Unknown, UNKNOWN),
            true => self.refuse(ticket, ErrorKind::NoLeader, NO_LEADER),
        }
    }

    /// Answers a request, wherever it came from.
    pub(super) fn reply(&mut self, ticket: Ticket, reply: Reply) {
        let applied = self.applied;
        if self.lines.get(&ticket.connection).is_some_and(|line| line.is_at_rest(applied)) {
            self.lines.remove(&ticket.connection);
        }
        if !is_proxied(ticket) {
            self.replies.push((ticket, reply));
        } else if let Some((node, id)) = self.proxied.remove(ticket) {
            let reply = match reply.size_bytes() {
                // What had an effect has had it.
                bytes if bytes > FORWARDED_REPLY_BYTES => {
                    Reply::Error(ErrorKind::Unknown, TOO_LARGE_TO_SEND.to_owned())
                }
                _ => reply,
            };
            let answer = Answered { reply, applied };
            self.messages.push((node, PeerMessage::Forwarded { id, answer }));
        }
    }

    pub(super) fn reply_to_read(&mut self, ticket: Ticket, reply: Reply) {
        if let Some(line) = self.known_line(ticket) {
            line.reads = line.reads.saturating_sub(1);
        }
        self.reply(ticket, reply);
    }

    pub(super) fn refuse(&mut self, ticket: Ticket, kind: ErrorKind, reason: impl Into<String>) {
        self.reply(ticket, Reply::Error(kind, reason.into()));
    }
}

/// Whether what another node says is an answer to each command, no more and no less.
fn answers_all(request: &Request, reply: &Reply) -> bool {
    match (request, reply) {
        (Request::Run { batch, .. }, Reply::Answers(answers)) => {
            batch.commands.len() == answers.len()
        }
        _ => true,
    }
}

fn is_admin(request: &Request) -> bool {
    matches!(request, Request::Join { .. } | Request::Leave { .. } | Request::Transfer { .. })
}

/// Whether all that it will say is known before it is applied.
fn is_plain_set(action: &Action) -> bool {
    let Action::Run { batch: Batch { guards, commands }, session: None } = action else {
        return false;
    };
    let is_plain =
        |command: &Command| matches!(command, Command::Set { condition: Condition::Always, .. });
    guards.is_empty() && commands.len() == 1 && commands.iter().all(is_plain)
}

/// Whether it may be asked again.
fn is_read(request: &Request) -> bool {
    match request {
        Request::Run { batch, .. } => !batch.is_write(),
        Request::AwaitDurable { .. } => true,
        _ => false,
    }
}

/// Whether every node answers it itself.
fn is_about_the_node(request: &Request) -> bool {
    matches!(request, Request::Ping | Request::Status | Request::Members | Request::Usage(_))
}
