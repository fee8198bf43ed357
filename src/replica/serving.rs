//! Entries applied, reads served, and the time in the log that both go by.

use std::time::Duration;

use super::clock::Now;
use super::pending::Read;
use super::replica::Replica;
use super::requests::NO_LEADER;
use crate::fsm::{Action, Proposal};
use crate::mutants::{self, Mutant};
use crate::raft::{Entry, EntryId, Payload, Time};
use crate::request::{ErrorKind, Reply};

/// Ticks that only remove what is due come no faster than this.
const TICK_EVERY: Duration = Duration::from_millis(10);

/// On a full disk they are rarer: each takes some of what was kept back.
const TICK_EVERY_ON_FULL_DISKS: Duration = Duration::from_secs(1);

/// So many bytes of entries, and of values that they copy or alter, and one entry
/// more, are applied in one turn: about half a millisecond. [A thousand
/// times a byte is added to a value of 16 MiB, and for seconds nobody is heard.]
const APPLIED_BYTES_PER_TURN: usize = 512 << 10;

/// Of how many turns whose entries are not applied yet the time is known.
const TIMED_TURNS: usize = 1024;

/// Reads may have waited for one word of the leader, thousands at a time: so many
/// commands, and one batch more, are served in one turn.
const READ_COMMANDS_PER_TURN: usize = 8192;

impl Replica {
    /// Lets time pass in the log when a key is due and nothing on its way has a
    /// stamp that says so.
    pub(super) fn tick(&mut self, now: Now) {
        if !self.leads {
            return;
        }
        let log_time = self.log_time_ms(now);
        let on_its_way = self.stamp_on_its_way_ms();
        let wanted = self.reads.wanted_stamp_ms().filter(|&stamp| stamp > on_its_way);
        let due = self.next_tick_ms().is_some_and(|due| due <= log_time);
        let rested = self.ticked_at.is_none_or(|at| now.time.since(at) >= self.tick_every(now));
        // Somebody waits for the memory of what is due.
        let rested = rested || (self.is_short_of_memory() && self.raft.leads_with_room(now.time));
        if wanted.is_some() || (due && rested) {
            let (stamp_ms, tick) = self.stamped(now, Action::Tick);
            self.ticked_at = Some(now.time);
            if self.raft.propose(tick).is_ok() {
                self.last_stamp_ms = self.last_stamp_ms.max(stamp_ms);
            }
        }
    }

    pub(super) fn tick_every(&self, now: Now) -> Duration {
        if self.raft.leads_with_room(now.time) { TICK_EVERY } else { TICK_EVERY_ON_FULL_DISKS }
    }

    /// The latest stamp of what is in the log and not yet applied; 0 if none.
    pub(super) fn stamp_on_its_way_ms(&self) -> u64 {
        let on_its_way = self.raft.last().index > self.raft.applied().index;
        if on_its_way { self.last_stamp_ms } else { 0 }
    }

    /// When the next tick is due, in log time, unless what is on its way will do.
    pub(super) fn next_tick_ms(&self) -> Option<u64> {
        let on_its_way = self.stamp_on_its_way_ms();
        self.fsm.next_deadline_ms().filter(|&due| due > on_its_way)
    }

    /// Applies what is committed, as much as one turn may. True if there is more.
    pub(super) fn apply(&mut self, now: Now) -> bool {
        let mut work_bytes = 0;
        while work_bytes < APPLIED_BYTES_PER_TURN
            && let Some(entry) = self.raft.next_committed()
        {
            work_bytes += entry.size();
            if let Err(fault) = self.apply_one(now, entry) {
                self.fail(fault);
                return false;
            }
            work_bytes += self.fsm.last_work_bytes();
            self.counts.expired += self.fsm.last_expired() as u64;
        }
        // A log from before a restart may know a later time than any clock.
        let is_behind = |estimate: u64| estimate < self.fsm.log_time_ms();
        if self.leads && self.clock.estimate_ms(now).is_some_and(is_behind) {
            self.clock.follow(now, self.fsm.log_time_ms());
        }
        self.raft.has_committed()
    }

    /// Remembers when the newest entries were proposed.
    pub(super) fn note_proposed(&mut self, now: Time) {
        let last = self.raft.last().index;
        if !self.leads {
            self.proposed.clear();
        } else if self.proposed.back().is_none_or(|&(known, _)| known < last)
            && last > self.applied.index
            && self.proposed.len() < TIMED_TURNS
        {
            self.proposed.push_back((last, now));
        }
    }

    /// How long ago the oldest was of those that are applied by now.
    pub(super) fn note_committed(&mut self, now: Time) -> Option<Duration> {
        let mut oldest = None;
        while let Some((_, at)) =
            self.proposed.pop_front_if(|&mut (last, _)| last <= self.applied.index)
        {
            oldest.get_or_insert(now.since(at));
        }
        oldest
    }

    /// Applies an entry and answers whoever waits for it, or says why this node
    /// cannot go on.
    fn apply_one(&mut self, now: Now, entry: Entry) -> Result<(), String> {
        let reply = match entry.payload {
            Payload::Command(command) => {
                let proposal = Proposal::decode(command);
                let mut proposal = proposal.map_err(|e| format!("entry {} is {e}", entry.id))?;
                if mutants::on(Mutant::ExpiryByLocalClock) {
                    proposal.stamp_ms = now.wall_ms;
                }
                self.serve_overtaken(now, entry.id, proposal.stamp_ms);
                let reply = self.fsm.apply(entry.id.index.0, &proposal);
                if let Action::Run { batch, .. } = &proposal.action {
                    self.evictions.note_use(batch, &self.fsm, now.time);
                }
                reply
            }
            Payload::Noop => self.apply_other(entry.id),
            Payload::Membership(membership) => {
                self.agreement.note_membership(&membership);
                self.apply_other(entry.id)
            }
        };
        self.applied = entry.id;
        self.evictions.applied(entry.id, &reply);
        self.sample_state(entry.id.index);
        let settled = self.writes.applied(entry.id);
        for ticket in settled.replaced {
            self.refuse(ticket, ErrorKind::NoLeader, NO_LEADER);
        }
        if let Some(ticket) = settled.done {
            self.reply(ticket, reply);
        }
        self.reads.unpark(entry.id);
        Ok(())
    }

    fn apply_other(&mut self, id: EntryId) -> Reply {
        self.fsm.apply_other(id.index.0);
        Reply::Done
    }

    /// An entry of ours is about to be applied: the reads that its connection
    /// asked before it are served first. That it is committed proves that this
    /// node still led after they had arrived; its stamp is no earlier than they.
    pub(super) fn serve_overtaken(&mut self, now: Now, entry: EntryId, stamp_ms: u64) {
        let Some(write) = self.writes.get(entry) else { return };
        let ticket = write.ticket;
        if self.lines.get(&ticket.connection).is_some_and(|line| line.reads > 0) {
            for read in self.reads.before(ticket) {
                self.answer_read(now, &read, stamp_ms);
            }
        }
    }

    /// Serves reads that need not wait any more, as many as one turn may. True if
    /// there are others.
    pub(super) fn serve_ready(&mut self, now: Now) -> bool {
        if let Some(upto) = self.raft.released_reads() {
            self.reads.give_leave(upto);
        }
        // Stale ones asked in this turn.
        self.reads.unpark(self.applied);
        let mut commands = 0;
        while commands < READ_COMMANDS_PER_TURN
            && let Some(read) = self.reads.next_ready()
        {
            commands += 1 + read.batch.work();
            self.serve(now, read);
        }
        // What log time has decided.
        let fsm = &self.fsm;
        let decided = self.reads.unstamped(|read| {
            fsm.log_time_ms() >= read.stamp_ms || !fsm.has_deadline_by(&read.batch, read.stamp_ms)
        });
        decided.into_iter().for_each(|read| self.serve(now, read));
        self.reads.is_any_ready()
    }

    /// Serves a read that has leave, or lets it wait for what it needs of the log.
    pub(super) fn serve(&mut self, now: Now, mut read: Read) {
        if read.after > self.applied {
            return self.reads.park(read);
        }
        if read.stamp_ms > 0 {
            return self.answer_read(now, &read, read.stamp_ms);
        }
        let at_ms = self.judged_at_ms(now, &read);
        // Stale reads are judged by what this node believes; they wait for nobody.
        let is_any_due = self.fsm.next_deadline_ms().is_some_and(|due| due <= at_ms);
        if read.leave.is_some() && is_any_due && self.fsm.has_deadline_by(&read.batch, at_ms) {
            read.stamp_ms = at_ms;
            return self.reads.park(read);
        }
        self.answer_read(now, &read, at_ms);
    }

    fn answer_read(&mut self, now: Now, read: &Read, at_ms: u64) {
        self.evictions.note_use(&read.batch, &self.fsm, now.time);
        let reply = self.fsm.query(&read.batch, at_ms);
        self.reply_to_read(read.ticket, reply);
    }

    /// By what log time a read is judged: the leader's, so that no two nodes
    /// disagree about what is there.
    pub(super) fn judged_at_ms(&self, now: Now, read: &Read) -> u64 {
        if self.leads || read.leave.is_none() { self.log_time_ms(now) } else { self.leader_log.1 }
    }
}
