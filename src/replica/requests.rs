//! Requests on their way in: answered here, proposed, or sent on to the leader.

use super::clock::Now;
use super::forward::{Sent, is_proxied};
use super::pending::{Held, Read, Ticket, Write};
use super::replica::{Line, Replica};
use super::{Forward, PeerMessage};
use crate::fsm::Action;
use crate::raft::{Index, NodeId, ProposeError, Time};
use crate::request::{Batch, Consistency, ErrorKind, Reply, Request};

/// What a request that had no effect for want of a leader is told.
pub(super) const NO_LEADER: &str = "no leader, not applied";

/// What is told when nobody can know.
pub(super) const UNKNOWN: &str = "may or may not have been applied";

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
            request => match self.check(&request) {
                Ok(()) => self.submit(now, ticket, request),
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
        if self.waiting() >= self.config.waiting_requests {
            return Err((ErrorKind::Busy, "too many requests wait".to_owned()));
        }
        match request {
            Request::Run { batch, .. } => {
                self.fsm.limits().check(batch).map_err(|reason| (ErrorKind::Invalid, reason))
            }
            _ => Ok(()),
        }
    }

    /// How many requests wait for anything.
    pub(super) fn waiting(&self) -> usize {
        self.writes.len()
            + self.reads.len()
            + self.held.len()
            + self.forwards.len()
            + self.admin.len()
    }

    /// Takes a request on its way, behind those of its connection before it.
    fn submit(&mut self, now: Now, ticket: Ticket, request: Request) {
        let held = Held { ticket, request, deadline: now.time + self.config.request_timeout };
        if self.line(ticket).held > 0 { self.hold(held) } else { self.begin(now, held) }
    }

    pub(super) fn line(&mut self, ticket: Ticket) -> &mut Line {
        self.lines.entry(ticket.connection).or_default()
    }

    pub(super) fn hold(&mut self, held: Held) {
        self.line(held.ticket).held += 1;
        self.held.push(held);
    }

    /// Lets what was held begin, in order, if it can now.
    pub(super) fn release_held(&mut self, now: Now) -> bool {
        let leader_is_known = self.raft.leader().is_some() && !self.raft.is_transferring();
        if self.held.is_empty() || !leader_is_known {
            return false;
        }
        let released = std::mem::take(&mut self.held);
        released.iter().for_each(|held| self.unhold(held.ticket));
        let before = released.len();
        for held in released {
            if self.line(held.ticket).held > 0 { self.hold(held) } else { self.begin(now, held) }
        }
        self.held.len() < before
    }

    /// Its connection may be gone by now.
    pub(super) fn unhold(&mut self, ticket: Ticket) {
        if let Some(line) = self.lines.get_mut(&ticket.connection) {
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
    /// goes to the leader overtake a read that waits here.
    fn way(&mut self, held: &Held) -> Way {
        let line = *self.line(held.ticket);
        let stays = match &held.request {
            Request::Run { batch, consistency, .. } if !batch.is_write() => {
                *consistency == Consistency::Stale || line.forwarded == 0
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
            Consistency::Linearizable => Some(self.raft.read()),
            Consistency::Stale => None,
        };
        let read = Read { ticket, batch, leave, after, stamp_ms: 0, deadline };
        if leave.is_some() { self.reads.push(read) } else { self.reads.park(read) }
    }

    fn begin_write(&mut self, now: Now, ticket: Ticket, action: Action, deadline: Time) {
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

    fn forward(&mut self, now: Now, leader: NodeId, held: Held) {
        let Held { ticket, request, deadline } = held;
        let term = self.raft.term();
        let timeout = deadline.since(now.time);
        self.line(ticket).forwarded += 1;
        let sent = Sent { ticket, request: request.clone(), to: leader, term, deadline };
        let id = self.forwards.insert(sent);
        let connection = ticket.connection;
        let forward = Forward { id, term, timeout, connection, request };
        self.messages.push((leader, PeerMessage::Forward(forward)));
    }

    /// Another node has sent a request of its client's. It is begun here or
    /// refused, never sent on.
    pub(super) fn on_forward(&mut self, now: Now, from: NodeId, forward: Forward) {
        let Forward { id, term, timeout, connection, request } = forward;
        let ticket = self.proxied.insert(from, connection, id);
        let leads = self.leads && self.raft.term() == term && !self.raft.is_transferring();
        if !leads {
            return self.refuse(ticket, ErrorKind::NoLeader, NO_LEADER);
        }
        match self.check(&request) {
            Ok(()) => {
                let deadline = now.time + timeout.min(self.config.request_timeout);
                self.begin_here(now, Held { ticket, request, deadline });
            }
            Err((kind, reason)) => self.refuse(ticket, kind, reason),
        }
    }

    /// The leader has answered. If it refused for not leading, the request had
    /// no effect, and waits for whoever does.
    pub(super) fn on_forwarded(&mut self, from: NodeId, id: u64, reply: Reply, applied: Index) {
        let Some(sent) = self.forwards.answered(from, id) else { return };
        let Sent { ticket, request, deadline, .. } = sent;
        let line = self.line(ticket);
        line.forwarded = line.forwarded.saturating_sub(1);
        line.last_write = line.last_write.max(applied);
        if matches!(reply, Reply::Error(ErrorKind::NoLeader, _)) && !self.is_closing() {
            self.hold(Held { ticket, request, deadline });
        } else {
            self.reply(ticket, reply);
        }
    }

    /// Gives up requests at a leader that will not answer any more.
    pub(super) fn give_up_forwarded(&mut self, over: Vec<Sent>) {
        for Sent { ticket, request, .. } in over {
            let line = self.line(ticket);
            line.forwarded = line.forwarded.saturating_sub(1);
            if is_read(&request) {
                self.refuse(ticket, ErrorKind::NoLeader, NO_LEADER);
            } else {
                self.refuse(ticket, ErrorKind::Unknown, UNKNOWN);
            }
        }
    }

    /// Answers a request, wherever it came from.
    pub(super) fn reply(&mut self, ticket: Ticket, reply: Reply) {
        let applied = Index(self.fsm.applied());
        if self.lines.get(&ticket.connection).is_some_and(|line| line.is_at_rest(applied)) {
            self.lines.remove(&ticket.connection);
        }
        if !is_proxied(ticket) {
            self.replies.push((ticket, reply));
        } else if let Some((node, id)) = self.proxied.remove(ticket) {
            self.messages.push((node, PeerMessage::Forwarded { id, reply, applied }));
        }
    }

    pub(super) fn reply_to_read(&mut self, ticket: Ticket, reply: Reply) {
        if let Some(line) = self.lines.get_mut(&ticket.connection) {
            line.reads = line.reads.saturating_sub(1);
        }
        self.reply(ticket, reply);
    }

    pub(super) fn refuse(&mut self, ticket: Ticket, kind: ErrorKind, reason: impl Into<String>) {
        self.reply(ticket, Reply::Error(kind, reason.into()));
    }
}

fn is_read(request: &Request) -> bool {
    matches!(request, Request::Run { batch, .. } if !batch.is_write())
}
