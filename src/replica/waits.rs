//! Until more disks than a majority hold what a connection has written.
//!
//! What is acknowledged is on a majority of disks. Whoever wants to know it on more
//! asks for that: the leader notes where its log ended, and counts. Its log then held
//! all that had been acknowledged to the connection before, by itself or by a leader
//! of an earlier term.

use super::forward::is_proxied;
use super::pending::{Due, Held};
use super::replica::Replica;
use super::requests::NO_LEADER;
use crate::raft::{Index, Raft, Time};
use crate::request::{Answer, ErrorKind, Reply, Request};

/// Whose disks have something.
#[derive(Debug, Clone, Copy)]
struct Holders {
    /// Members besides the leader.
    others: usize,
    /// The leader.
    own: bool,
}

/// One that waits, at the leader.
#[derive(Debug, Clone)]
struct Wait {
    /// As it goes to another leader.
    held: Held,
    /// These are to hold
    need: Holders,
    /// all up to here.
    upto: Index,
    /// When it is told who does, however few.
    until: Time,
}

/// All that wait.
#[derive(Debug, Clone, Default)]
pub struct Waits {
    waiting: Vec<Wait>,
    due: Due,
}

impl Waits {
    /// How many.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When one of them may be over.
    pub fn deadline(&self) -> Option<Time> {
        self.due.at()
    }

    /// Takes out those that are over.
    fn take(&mut self, mut is_over: impl FnMut(&Wait) -> bool) -> Vec<Wait> {
        let over: Vec<Wait> = self.waiting.extract_if(.., |wait| is_over(wait)).collect();
        if !over.is_empty() {
            self.due = self.waiting.iter().map(|wait| wait.until).collect();
        }
        over
    }
}

/// What is known to be on disks, as their leader knows.
struct Disks {
    others: Vec<Index>,
    own: Index,
}

impl Disks {
    fn of(raft: &Raft) -> Self {
        let others = raft.membership().iter().filter(|&(node, _)| node != raft.id());
        let others = others.filter_map(|(node, _)| raft.durable_at(node)).collect();
        Self { others, own: raft.durable_index() }
    }

    fn holders(&self, upto: Index) -> Holders {
        let others = self.others.iter().filter(|&&durable| durable >= upto).count();
        Holders { others, own: self.own >= upto }
    }
}

impl Replica {
    /// Takes up a request, as the leader.
    pub(super) fn begin_wait(&mut self, now: Time, held: Held) {
        let Request::AwaitDurable { others, own, within } = held.request else {
            unreachable!("it is for these")
        };
        let need = Holders { others: others as usize, own };
        // Whoever has sent it on waits no longer than the whole.
        let until = now + within.min(held.deadline.since(now) / 2);
        let upto = self.raft.last().index;
        self.waits.due.note(until);
        self.waits.waiting.push(Wait { held, need, upto, until });
    }

    /// Answers those whose disks have it, and those that are over: all, if this node is
    /// about to end.
    pub(super) fn see_to_waits(&mut self, now: Time) {
        if !self.leads || self.waits.is_empty() {
            return;
        }
        let (disks, ends) = (Disks::of(&self.raft), self.is_closing());
        let over = self.waits.take(|wait| {
            let there = disks.holders(wait.upto);
            let is_there = there.others >= wait.need.others && (there.own || !wait.need.own);
            is_there || wait.until <= now || ends
        });
        for wait in over {
            let Holders { others, own } = disks.holders(wait.upto);
            let others = i64::try_from(others).unwrap_or(i64::MAX);
            let answers = vec![Answer::Integer(others), Answer::Integer(own.into())];
            self.reply(wait.held.ticket, Reply::Answers(answers));
        }
    }

    /// Somebody else counts from now on.
    pub(super) fn leave_waits(&mut self) {
        for wait in self.waits.take(|_| true) {
            if is_proxied(wait.held.ticket) {
                self.refuse(wait.held.ticket, ErrorKind::NoLeader, NO_LEADER);
            } else {
                self.hold_again(wait.held);
            }
        }
    }
}
