//! Who waits for what, until when.
//!
//! A write waits for the entry that carries it, and is found by that entry's id:
//! the index alone could be another leader's. It survives a change of role,
//! since its entry may yet be committed. A read waits for leave from consensus,
//! and maybe for a write of its own connection. What cannot even begin, for
//! want of a leader, is held. Everything has a deadline, and since all are
//! given the same time, each queue is in the order of its deadlines.

use std::collections::{BTreeMap, VecDeque};

use crate::raft::{EntryId, Index, ReadId, Term, Time};
use crate::request::{Batch, Request};

/// Names one request of one connection of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// The connection.
    pub connection: u64,
    /// Counts its requests.
    pub number: u64,
}

/// A write whose entry is in the log.
#[derive(Debug, Clone)]
pub struct Write {
    /// Who asked.
    pub ticket: Ticket,
    /// When its outcome is called unknown.
    pub deadline: Time,
    /// What it may add to the data set.
    pub growth_bytes: u64,
    /// What it takes in the log.
    pub log_bytes: usize,
}

/// The writes in the log, by their entries.
///
/// Invariant: the sums are those of the writes held.
#[derive(Debug, Clone, Default)]
pub struct Writes {
    by_entry: BTreeMap<(Index, Term), Write>,
    growth_bytes: u64,
    log_bytes: usize,
    applied_term: Term,
}

impl Writes {
    /// This write is carried by that entry.
    pub fn insert(&mut self, entry: EntryId, write: Write) {
        self.growth_bytes += write.growth_bytes;
        self.log_bytes += write.log_bytes;
        self.by_entry.insert((entry.index, entry.term), write);
    }

    /// The write that this entry carries, if any of ours.
    pub fn get(&self, entry: EntryId) -> Option<&Write> {
        self.by_entry.get(&(entry.index, entry.term))
    }

    /// Takes out every write up to the index of an applied entry, and all of
    /// earlier terms behind it. But for the one that the entry carried they have
    /// surely had no effect: whatever follows a committed entry in any log is of
    /// its term or a later one.
    pub fn applied(&mut self, entry: EntryId) -> Settled {
        let mut settled = Settled::default();
        if entry.term > self.applied_term {
            self.applied_term = entry.term;
            let is_replaced = |&(index, term): &(Index, Term), _: &mut Write| {
                index > entry.index && term < entry.term
            };
            for write in
                self.by_entry.extract_if(.., is_replaced).map(|(_, w)| w).collect::<Vec<_>>()
            {
                self.forget(&write);
                settled.replaced.push(write.ticket);
            }
        }
        while let Some(first) = self.by_entry.first_entry() {
            let &(index, term) = first.key();
            if index > entry.index {
                break;
            }
            let write = first.remove();
            self.forget(&write);
            if (EntryId { term, index }) == entry {
                settled.done = Some(write.ticket);
            } else {
                settled.replaced.push(write.ticket);
            }
        }
        settled
    }

    /// Takes out every write up to an index that this node will not see applied
    /// one by one: what became of them is unknown.
    pub fn skipped(&mut self, upto: Index) -> Vec<Ticket> {
        self.take_while(|index, _| index <= upto)
    }

    /// Takes out those whose time is over. A deadline belongs to the time of
    /// proposal, and proposals go into the log in order.
    pub fn expired(&mut self, now: Time) -> Vec<Ticket> {
        self.take_while(|_, write| write.deadline <= now)
    }

    fn take_while(&mut self, is_over: impl Fn(Index, &Write) -> bool) -> Vec<Ticket> {
        let mut over = Vec::new();
        while let Some(first) = self.by_entry.first_entry()
            && is_over(first.key().0, first.get())
        {
            let write = first.remove();
            self.forget(&write);
            over.push(write.ticket);
        }
        over
    }

    fn forget(&mut self, write: &Write) {
        self.growth_bytes -= write.growth_bytes;
        self.log_bytes -= write.log_bytes;
    }

    /// What they may add to the data set together.
    pub fn growth_bytes(&self) -> u64 {
        self.growth_bytes
    }

    /// What they take in the log together.
    pub fn log_bytes(&self) -> usize {
        self.log_bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.by_entry.is_empty()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.by_entry.len()
    }

    /// The first deadline.
    pub fn deadline(&self) -> Option<Time> {
        self.by_entry.first_key_value().map(|(_, write)| write.deadline)
    }
}

/// What became of writes when an entry was applied.
#[derive(Debug, Default)]
pub struct Settled {
    /// The one that this entry carried.
    pub done: Option<Ticket>,
    /// Those whose entries were replaced.
    pub replaced: Vec<Ticket>,
}

/// A read that is not served yet.
#[derive(Debug, Clone)]
pub struct Read {
    /// Who asked.
    pub ticket: Ticket,
    /// What.
    pub batch: Batch,
    /// The leave it waits for; `None` if it needs none.
    pub leave: Option<ReadId>,
    /// What has to be applied first: a write of its own connection.
    pub after: Index,
    /// The stamp that has to be applied first: it found a key whose deadline
    /// has passed for the leader, but not yet in the log. 0 if none.
    pub stamp_ms: u64,
    /// When it is given up.
    pub deadline: Time,
}

/// The reads that wait.
#[derive(Debug, Clone, Default)]
pub struct Reads {
    /// For leave; in the order of their ids, which is that of their arrival.
    for_leave: VecDeque<Read>,
    /// They have leave and wait for the log.
    for_log: Vec<Read>,
}

impl Reads {
    /// One more that waits for leave, the last.
    pub fn push(&mut self, read: Read) {
        self.for_leave.push_back(read);
    }

    /// One that has leave and waits for the log.
    pub fn park(&mut self, read: Read) {
        self.for_log.push(read);
    }

    /// Takes out the reads that have leave now.
    pub fn with_leave(&mut self, upto: ReadId) -> impl Iterator<Item = Read> + '_ {
        let has_leave = |read: &Read| read.leave.is_none_or(|id| id <= upto);
        let count = self.for_leave.iter().take_while(|read| has_leave(read)).count();
        self.for_leave.drain(..count)
    }

    /// Takes out the reads that have all they need of the log.
    pub fn unparked(&mut self, applied: Index, log_time_ms: u64) -> Vec<Read> {
        let is_ready = |read: &mut Read| read.after <= applied && read.stamp_ms <= log_time_ms;
        self.for_log.extract_if(.., is_ready).collect()
    }

    /// Takes out the reads that this ticket's connection asked before it.
    pub fn before(&mut self, ticket: Ticket) -> Vec<Read> {
        let is_before = |read: &Read| {
            read.ticket.connection == ticket.connection && read.ticket.number < ticket.number
        };
        let mut before: Vec<Read> = self.for_log.extract_if(.., |read| is_before(read)).collect();
        if self.for_leave.iter().any(is_before) {
            let (taken, left) = self.for_leave.drain(..).partition(is_before);
            self.for_leave = left;
            before.extend::<VecDeque<Read>>(taken);
        }
        before
    }

    /// Takes out those whose time is over.
    pub fn expired(&mut self, now: Time) -> Vec<Ticket> {
        let is_over = |read: &Read| read.deadline <= now;
        let count = self.for_leave.iter().take_while(|read| is_over(read)).count();
        let over = self.for_leave.drain(..count);
        over.chain(self.for_log.extract_if(.., |read| is_over(read))).map(|r| r.ticket).collect()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.for_leave.is_empty() && self.for_log.is_empty()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.for_leave.len() + self.for_log.len()
    }

    /// The earliest stamp that one of them waits for.
    pub fn wanted_stamp_ms(&self) -> Option<u64> {
        self.for_log.iter().map(|read| read.stamp_ms).filter(|&stamp| stamp > 0).min()
    }

    /// The first deadline.
    pub fn deadline(&self) -> Option<Time> {
        let parked = self.for_log.iter().map(|read| read.deadline).min();
        self.for_leave.front().map(|read| read.deadline).into_iter().chain(parked).min()
    }
}

/// A request that waits for a leader.
#[derive(Debug, Clone)]
pub struct Held {
    /// Who asked.
    pub ticket: Ticket,
    /// What.
    pub request: Request,
    /// When it is given up, having had no effect.
    pub deadline: Time,
}
