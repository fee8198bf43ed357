//! Who waits for what, until when.
//!
//! A write waits for the entry that carries it, and is found by that entry's id:
//! the index alone could be another leader's. It survives a change of role,
//! since its entry may yet be committed. A read waits for leave from consensus,
//! and maybe for a write of its own connection. What cannot even begin, for
//! want of a leader, is held. Everything has a deadline.

use std::collections::{BTreeMap, VecDeque};

use crate::fsm::Growth;
use crate::mutants::{self, Mutant};
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

/// A moment before which no deadline of a set lies. Taking something out leaves
/// it as it is: looking once in vain is cheaper than keeping deadlines sorted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Due(Option<Time>);

impl Due {
    /// One more deadline.
    pub fn note(&mut self, deadline: Time) {
        self.0 = Some(self.0.map_or(deadline, |due| due.min(deadline)));
    }

    /// Whether a deadline may have passed.
    pub fn is_reached(&self, now: Time) -> bool {
        self.0.is_some_and(|due| due <= now)
    }

    /// The moment.
    pub fn at(&self) -> Option<Time> {
        self.0
    }
}

impl FromIterator<Time> for Due {
    fn from_iter<T: IntoIterator<Item = Time>>(deadlines: T) -> Self {
        Self(deadlines.into_iter().min())
    }
}

/// A write whose entry is in the log.
#[derive(Debug, Clone)]
pub struct Write {
    /// Who asked.
    pub ticket: Ticket,
    /// When its outcome is called unknown.
    pub deadline: Time,
    /// What it may add to the data set.
    pub growth: Growth,
    /// What it takes in the log.
    pub log_bytes: usize,
}

/// The writes in the log, by their entries.
///
/// Invariant: the sums are those of the writes held.
#[derive(Debug, Clone, Default)]
pub struct Writes {
    by_entry: BTreeMap<(Index, Term), Write>,
    growth: Growth,
    log_bytes: usize,
    applied_term: Term,
    due: Due,
}

impl Writes {
    /// This write is carried by that entry.
    pub fn insert(&mut self, entry: EntryId, write: Write) {
        self.growth.likely_bytes += write.growth.likely_bytes;
        self.growth.most_bytes += write.growth.most_bytes;
        self.log_bytes += write.log_bytes;
        self.due.note(write.deadline);
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
            settled.replaced = self.take(|index, term, _| index > entry.index && term < entry.term);
        }
        while let Some(first) = self.by_entry.first_entry() {
            let &(index, term) = first.key();
            if index > entry.index {
                break;
            }
            let write = first.remove();
            self.forget(&write);
            let by_index = index == entry.index && mutants::on(Mutant::OutcomeByIndexAlone);
            if (EntryId { term, index }) == entry || by_index {
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
        self.take(|index, _, _| index <= upto)
    }

    /// Takes out those whose time is over.
    pub fn expired(&mut self, now: Time) -> Vec<Ticket> {
        if !self.due.is_reached(now) {
            return Vec::new();
        }
        let over = self.take(|_, _, write| write.deadline <= now);
        self.due = self.by_entry.values().map(|write| write.deadline).collect();
        over
    }

    /// Takes out all.
    pub fn take_all(&mut self) -> Vec<Ticket> {
        self.take(|_, _, _| true)
    }

    fn take(&mut self, is_over: impl Fn(Index, Term, &Write) -> bool) -> Vec<Ticket> {
        let over: Vec<Write> = self
            .by_entry
            .extract_if(.., |&(index, term), write| is_over(index, term, write))
            .map(|(_, write)| write)
            .collect();
        over.iter().for_each(|write| self.forget(write));
        over.into_iter().map(|write| write.ticket).collect()
    }

    fn forget(&mut self, write: &Write) {
        self.growth.likely_bytes -= write.growth.likely_bytes;
        self.growth.most_bytes -= write.growth.most_bytes;
        self.log_bytes -= write.log_bytes;
    }

    /// What they may add to the data set together.
    pub fn growth(&self) -> Growth {
        self.growth
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

    /// No deadline is before this.
    pub fn deadline(&self) -> Option<Time> {
        self.due.at()
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
    /// What has to be applied first, or something later: a write of its own
    /// connection.
    pub after: EntryId,
    /// By what log time it was judged when it found a key whose deadline has
    /// passed for the leader, but not yet in the log. 0 if it has not.
    pub stamp_ms: u64,
    /// When it is given up.
    pub deadline: Time,
    /// What it holds in memory.
    pub bytes: usize,
}

/// The reads that wait.
#[derive(Debug, Clone, Default)]
pub struct Reads {
    /// For leave; in the order of their ids, which is that of their arrival.
    for_leave: VecDeque<Read>,
    /// They have leave, and wait for an entry.
    for_entry: BTreeMap<(EntryId, Ticket), Read>,
    /// They wait for log time to be applied.
    for_stamp: Vec<Read>,
    /// They wait for their turn only.
    ready: VecDeque<Read>,
    bytes: usize,
    due: Due,
}

impl Reads {
    /// One more that waits for leave, the last.
    pub fn push(&mut self, read: Read) {
        self.due.note(read.deadline);
        self.bytes += read.bytes;
        self.for_leave.push_back(read);
    }

    /// One that has leave and waits for the log.
    pub fn park(&mut self, read: Read) {
        self.due.note(read.deadline);
        self.bytes += read.bytes;
        if read.stamp_ms > 0 {
            self.for_stamp.push(read);
        } else {
            self.for_entry.insert((read.after, read.ticket), read);
        }
    }

    /// The reads up to this one have leave now.
    pub fn give_leave(&mut self, upto: ReadId) {
        let has_leave = |read: &Read| read.leave.is_none_or(|id| id <= upto);
        let count = self.for_leave.iter().take_while(|read| has_leave(read)).count();
        self.ready.extend(self.for_leave.drain(..count));
    }

    /// The reads that waited for this entry or one before it need not any more.
    pub fn unpark(&mut self, applied: EntryId) {
        while let Some(first) = self.for_entry.first_entry()
            && first.key().0 <= applied
        {
            self.ready.push_back(first.remove());
        }
    }

    /// Takes out the next read that need not wait any more.
    pub fn next_ready(&mut self) -> Option<Read> {
        let read = self.ready.pop_front()?;
        self.bytes -= read.bytes;
        Some(read)
    }

    /// Whether some read need not wait any more.
    pub fn is_any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn forget(&mut self, taken: Vec<Read>) -> Vec<Read> {
        self.bytes -= taken.iter().map(|read| read.bytes).sum::<usize>();
        taken
    }

    /// What they hold in memory together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes out the reads that need not wait for a stamp any more.
    pub fn unstamped(&mut self, is_decided: impl Fn(&Read) -> bool) -> Vec<Read> {
        let taken = self.for_stamp.extract_if(.., |read| is_decided(read)).collect();
        self.forget(taken)
    }

    /// Takes out the reads that this ticket's connection asked before it. Those
    /// that wait for an entry wait for an earlier one, and are gone by now.
    pub fn before(&mut self, ticket: Ticket) -> Vec<Read> {
        let is_before = |read: &Read| {
            read.ticket.connection == ticket.connection && read.ticket.number < ticket.number
        };
        let mut before: Vec<Read> = self.for_stamp.extract_if(.., |read| is_before(read)).collect();
        if self.ready.iter().any(is_before) {
            let (taken, left) = self.ready.drain(..).partition(is_before);
            self.ready = left;
            before.extend::<VecDeque<Read>>(taken);
        }
        if self.for_leave.iter().any(is_before) {
            let (taken, left) = self.for_leave.drain(..).partition(is_before);
            self.for_leave = left;
            before.extend::<VecDeque<Read>>(taken);
        }
        self.forget(before)
    }

    /// Takes out those whose time is over.
    pub fn expired(&mut self, now: Time) -> Vec<Ticket> {
        if !self.due.is_reached(now) {
            return Vec::new();
        }
        let over = self.take(|read| read.deadline <= now);
        let waiting = self.for_leave.iter().chain(self.for_entry.values()).chain(&self.for_stamp);
        let waiting = waiting.chain(&self.ready);
        self.due = waiting.map(|read| read.deadline).collect();
        over
    }

    /// Takes out all.
    pub fn take_all(&mut self) -> Vec<Ticket> {
        self.take(|_| true)
    }

    fn take(&mut self, is_over: impl Fn(&Read) -> bool) -> Vec<Ticket> {
        let (over, left): (VecDeque<Read>, VecDeque<Read>) =
            self.for_leave.drain(..).partition(&is_over);
        self.for_leave = left;
        let parked = self.for_entry.extract_if(.., |_, read| is_over(read)).map(|(_, read)| read);
        let stamped = self.for_stamp.extract_if(.., |read| is_over(read));
        let (late, left): (VecDeque<Read>, VecDeque<Read>) =
            self.ready.drain(..).partition(&is_over);
        self.ready = left;
        let over = over.into_iter().chain(parked).chain(stamped).chain(late).collect();
        self.forget(over).into_iter().map(|read| read.ticket).collect()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.for_leave.len() + self.for_entry.len() + self.for_stamp.len() + self.ready.len()
    }

    /// The earliest stamp that one of them waits for.
    pub fn wanted_stamp_ms(&self) -> Option<u64> {
        self.for_stamp.iter().map(|read| read.stamp_ms).min()
    }

    /// No deadline is before this.
    pub fn deadline(&self) -> Option<Time> {
        self.due.at()
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
    /// Not to be tried before, because it was just refused.
    pub not_before: Time,
}

/// The requests that wait for a leader, in order of arrival.
///
/// Invariant: those of one connection are in the order of their numbers.
#[derive(Debug, Clone, Default)]
pub struct Holding {
    held: Vec<Held>,
    bytes: usize,
    due: Due,
}

impl Holding {
    /// One more, the last of its connection.
    pub fn push(&mut self, held: Held) {
        self.bytes += held.request.size_bytes();
        self.due.note(held.deadline);
        self.held.push(held);
    }

    /// One that was on its way already and comes back, maybe behind later ones
    /// of its connection.
    pub fn push_back(&mut self, held: Held) {
        self.bytes += held.request.size_bytes();
        self.due.note(held.deadline);
        let is_later = |other: &Held| {
            other.ticket.connection == held.ticket.connection
                && other.ticket.number > held.ticket.number
        };
        match self.held.iter().position(is_later) {
            Some(place) => self.held.insert(place, held),
            None => self.held.push(held),
        }
    }

    /// Takes out all, in order.
    pub fn take_all(&mut self) -> Vec<Held> {
        self.bytes = 0;
        std::mem::take(&mut self.held)
    }

    /// Takes out some, in order.
    pub fn take(&mut self, which: impl Fn(&Held) -> bool) -> Vec<Held> {
        let taken: Vec<Held> = self.held.extract_if(.., |held| which(held)).collect();
        self.bytes -= taken.iter().map(|held| held.request.size_bytes()).sum::<usize>();
        taken
    }

    /// Takes out those whose time is over.
    pub fn expired(&mut self, now: Time) -> Vec<Held> {
        if !self.due.is_reached(now) {
            return Vec::new();
        }
        let over = self.take(|held| held.deadline <= now);
        self.due = self.held.iter().map(|held| held.deadline).collect();
        over
    }

    /// What they hold in memory together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// When there is something to see to: a deadline, or another try.
    pub fn wake_at(&self, now: Time) -> Option<Time> {
        let tries = self.held.iter().map(|held| held.not_before).filter(|&at| at > now);
        tries.chain(self.due.at()).min()
    }
}
