//! A request to the leader, and its answer back.
//!
//! A node that does not lead sends a client's request on to the leader, with
//! the term in which it believes that node to lead. Three things may happen:
//!
//! - *It is answered.* The answer says what the leader had applied, so that a
//!   later read of the same connection here does not miss its own write.
//! - *It is refused*, because the other does not lead that term. Then it surely
//!   had no effect, and is held until a leader is known.
//! - *Nothing comes back.* As soon as another leader is known, or time is over,
//!   the outcome is unknown, and the client is told just that.
//!
//! A request is forwarded once at most: whoever receives a forwarded one
//! proposes it or refuses it. Requests of one connection travel on one ordered
//! stream; at the leader they are the requests of one connection again.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use super::pending::{Due, Ticket};
use crate::mutants::{self, Mutant};
use crate::raft::{NodeId, Term, Time};
use crate::request::Request;

/// Connections of clients have numbers below this; above it are those of other
/// nodes' clients.
const PROXY: u64 = 1 << 63;

/// How many bits of an id count; those above tell one process from the next.
const COUNT_BITS: u32 = 40;

/// A request that was sent to the leader.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Who asked.
    pub ticket: Ticket,
    /// What, in case it is refused.
    pub request: Request,
    /// To whom.
    pub to: NodeId,
    /// As the leader of which term.
    pub term: Term,
    /// When the client stops waiting.
    pub deadline: Time,
    /// What the request holds in memory.
    pub bytes: usize,
}

/// The requests that this node has forwarded and that are unanswered.
#[derive(Debug, Clone, Default)]
pub struct Forwards {
    last: u64,
    sent: BTreeMap<u64, Sent>,
    bytes: usize,
    due: Due,
}

impl Forwards {
    /// Ids count up from a start of this process' own, so that the answer to an
    /// earlier process is not taken for one to this.
    pub fn starting_at(random: u64) -> Self {
        Self { last: random << COUNT_BITS, ..Self::default() }
    }

    /// Notes a request; the id is to come back with the answer.
    pub fn insert(&mut self, sent: Sent) -> u64 {
        self.last += 1;
        self.bytes += sent.bytes;
        self.due.note(sent.deadline);
        self.sent.insert(self.last, sent);
        self.last
    }

    /// The request that `from` has answered, if it is still waited for.
    pub fn answered(&mut self, from: NodeId, id: u64) -> Option<Sent> {
        if self.sent.get(&id)?.to != from {
            return None;
        }
        let sent = self.sent.remove(&id)?;
        self.bytes -= sent.bytes;
        Some(sent)
    }

    fn take(&mut self, is_over: impl Fn(&Sent) -> bool) -> Vec<Sent> {
        let over: Vec<Sent> =
            self.sent.extract_if(.., |_, sent| is_over(sent)).map(|(_, sent)| sent).collect();
        self.bytes -= over.iter().map(|sent| sent.bytes).sum::<usize>();
        over
    }

    /// Takes out those sent to anybody but the leader of this term: they may
    /// have been executed, and that will not be heard any more.
    pub fn overtaken(&mut self, term: Term) -> Vec<Sent> {
        self.take(|sent| sent.term < term)
    }

    /// Takes out those whose time is over.
    pub fn expired(&mut self, now: Time) -> Vec<Sent> {
        if !self.due.is_reached(now) {
            return Vec::new();
        }
        let over = self.take(|sent| sent.deadline <= now);
        self.due = self.sent.values().map(|sent| sent.deadline).collect();
        over
    }

    /// No deadline is before this.
    pub fn deadline(&self) -> Option<Time> {
        self.due.at()
    }

    /// What they hold in memory together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many are unanswered.
    pub fn len(&self) -> usize {
        self.sent.len()
    }

    /// Whether all are answered.
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }
}

/// The requests that other nodes have forwarded to this one.
#[derive(Debug, Clone, Default)]
pub struct Proxied {
    last: u64,
    waiting: BTreeMap<Ticket, (NodeId, u64)>,
    seen: BTreeMap<NodeId, u64>,
}

impl Proxied {
    /// Whether a request of another node's is news. A link that broke may be
    /// read to its end after the next one was opened; what is late then has been
    /// given up by its sender, and was perhaps sent again. What is remembered ends
    /// with this process, and so does every link to it: no frame reaches two.
    pub fn is_news(&mut self, from: NodeId, id: u64) -> bool {
        let seen = self.seen.entry(from).or_default();
        let is_news = id >> COUNT_BITS != *seen >> COUNT_BITS
            || id > *seen
            || mutants::on(Mutant::ForwardedTwice);
        if is_news {
            *seen = id;
        }
        is_news
    }

    /// A ticket for request `id` of a connection at another node.
    pub fn insert(&mut self, from: NodeId, connection: u64, id: u64) -> Ticket {
        self.last += 1;
        let ticket = Ticket { connection: proxy_connection(from, connection), number: self.last };
        self.waiting.insert(ticket, (from, id));
        ticket
    }

    /// To whom, and to which request of theirs, the answer goes.
    pub fn remove(&mut self, ticket: Ticket) -> Option<(NodeId, u64)> {
        self.waiting.remove(&ticket)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Whether a ticket is of a request that another node has forwarded.
pub fn is_proxied(ticket: Ticket) -> bool {
    ticket.connection >= PROXY
}

/// One number for a connection at another node. Should two ever share it, they
/// wait for each other, which is slower and no less correct.
fn proxy_connection(from: NodeId, connection: u64) -> u64 {
    foldhash::fast::FixedState::default().hash_one((from, connection)) | PROXY
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(term: u64, deadline: u64) -> Sent {
        Sent {
            ticket: Ticket { connection: 1, number: 1 },
            request: Request::OpenSession,
            to: NodeId(1),
            term: Term(term),
            deadline: Time::from_millis(deadline),
            bytes: 0,
        }
    }

    #[test]
    fn an_answer_counts_once_and_from_whom_it_was_asked() {
        let mut forwards = Forwards::default();
        let id = forwards.insert(sent(1, 10));
        assert!(forwards.answered(NodeId(2), id).is_none(), "it was not asked");
        assert!(forwards.answered(NodeId(1), id).is_some());
        assert!(forwards.answered(NodeId(1), id).is_none(), "twice");
    }

    #[test]
    fn a_new_leader_overtakes_what_was_sent_to_the_old_one() {
        let mut forwards = Forwards::default();
        forwards.insert(sent(1, 10));
        forwards.insert(sent(2, 20));
        assert_eq!(forwards.overtaken(Term(2)).len(), 1);
        assert!(forwards.expired(Time::from_millis(19)).is_empty());
        assert_eq!(forwards.expired(Time::from_millis(20)).len(), 1);
        assert!(forwards.is_empty());
    }

    /// A follower restarts at once and its ids begin anew: the answer to what an
    /// earlier process had asked must not reach a client of the later one.
    #[test]
    fn the_ids_of_two_processes_differ() {
        let mut before = Forwards::starting_at(7);
        let mut after = Forwards::starting_at(8);
        assert_ne!(before.insert(sent(1, 10)), after.insert(sent(1, 10)));
    }

    #[test]
    fn what_arrives_twice_or_late_is_no_news() {
        let mut proxied = Proxied::default();
        let mut forwards = Forwards::starting_at(7);
        let (first, second) = (forwards.insert(sent(1, 10)), forwards.insert(sent(1, 10)));
        assert!(proxied.is_news(NodeId(1), first));
        assert!(proxied.is_news(NodeId(1), second));
        assert!(!proxied.is_news(NodeId(1), second) && !proxied.is_news(NodeId(1), first));
        assert!(proxied.is_news(NodeId(2), first), "another node's");
        let next = Forwards::starting_at(3).insert(sent(1, 10));
        assert!(proxied.is_news(NodeId(1), next), "another process'");
    }

    #[test]
    fn requests_of_one_connection_there_are_of_one_connection_here() {
        let mut proxied = Proxied::default();
        let first = proxied.insert(NodeId(1), 7, 100);
        let second = proxied.insert(NodeId(1), 7, 101);
        let other = proxied.insert(NodeId(2), 7, 100);
        assert!(first.connection == second.connection && first.number < second.number);
        assert_ne!(first.connection, other.connection);
        assert!(is_proxied(first) && !is_proxied(Ticket { connection: 7, number: 1 }));
        assert_eq!(proxied.remove(second), Some((NodeId(1), 101)));
    }
}
