//! Following: take the leader's entries, say how far they are on our disk.
//!
//! A follower keeps two numbers about its leader. `verified` is how far its log
//! is known to agree with that leader's log in this term; what it holds beyond
//! may be a left-over of an earlier leader. What it tells the leader is
//! `matched`, the smaller of `verified` and what is on its disk: it is computed
//! whenever it is said, and said again whenever it grows, so no answer ever
//! waits in a queue for a disk.

use super::core::Core;
use super::entry::{Entry, EntryId, Index, NodeId, Payload};
use super::message::{
    Append, AppendResponse, Heartbeat, HeartbeatResponse, Message, ReadIndex, ReadIndexResponse,
};
use super::ready::Fault;
use super::time::Time;
use crate::mutants::{self, Mutant};

/// Follows a leader, or waits for one.
#[derive(Debug, Clone, Default)]
pub struct Follower {
    /// The leader of the current term, once it was heard.
    pub leader: Option<NodeId>,
    verified: Index,
    told: Index,
    answer_due: bool,
}

impl Follower {
    /// Follows this leader from here on.
    pub fn of(leader: Option<NodeId>) -> Self {
        Self { leader, ..Self::default() }
    }

    /// What may be vouched for: it agrees with the leader's log and is durable.
    pub fn matched(&self, core: &Core) -> Index {
        let durable = core.durability.durable();
        if mutants::on(Mutant::AckBeforeDurable) {
            return self.verified;
        }
        if mutants::on(Mutant::SnapshotAckBeforeBase) {
            return self.verified.min(durable.max(core.log.base().index));
        }
        self.verified.min(durable)
    }

    /// Up to here the log agrees with the leader's.
    pub fn verified(&self) -> Index {
        self.verified
    }

    /// Figure 2, AppendEntries, receiver's side. `Err` if the leader's log and
    /// ours disagree about something committed.
    pub fn on_append(
        &mut self,
        core: &mut Core,
        now: Time,
        from: NodeId,
        append: Append,
    ) -> Result<(), Fault> {
        core.heard_leader(now);
        let Append { prev, mut entries, commit } = append;
        if !core.is_consecutive(prev, &entries) {
            log::warn!("dropped a malformed append from {from}");
            return Ok(());
        }
        if !Self::holds(core, prev)? {
            self.reject(core, from, prev);
            return Ok(());
        }
        let is_probe = entries.is_empty();
        entries.truncate(Self::there_is_room_for(core, &entries));
        let last = entries.last().map_or(prev.index, |entry| entry.id.index);
        if self.contradicts(core, &entries) {
            log::error!("{from} takes back entries of its own term: dropped");
            return Ok(());
        }
        for entry in entries {
            core.take_in(entry)?;
        }
        if mutants::on(Mutant::TruncateOnStaleAppend) {
            core.truncate_after(last.max(core.commit()));
            self.verified = core.log.last().index;
        }
        // A stale append ends before what is verified already: nothing is cut,
        // and nothing is taken back.
        self.verified = self.verified.max(last);
        // What is not yet durable is answered when it is.
        self.answer_due |= is_probe || core.durability.durable() >= self.verified;
        let known = match mutants::on(Mutant::AppendCommitUnbounded) {
            false => self.verified,
            true => core.log.last().index,
        };
        core.commit_to(commit.min(known));
        Ok(())
    }

    /// How many of these there is room for. What the disk has not yet done is in
    /// memory: each leader, and each new link, would add a window to it.
    fn there_is_room_for(core: &Core, entries: &[Entry]) -> usize {
        let room = if core.disk_lags() { 0 } else { core.room_for_commands() };
        if room == usize::MAX {
            return entries.len();
        }
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            if matches!(entry.payload, Payload::Command(_)) && !core.log.holds(entry.id) {
                bytes += entry.size();
            }
            bytes <= room
        };
        entries.iter().take_while(fits).count()
    }

    /// Whether a leader now says otherwise than before in the same term.
    fn contradicts(&self, core: &Core, entries: &[Entry]) -> bool {
        let known = entries.iter().take_while(|entry| entry.id.index <= self.verified);
        known
            .filter_map(|e| core.log.id_at(e.id.index).map(|ours| (ours, e.id)))
            .any(|(ours, theirs)| ours != theirs && theirs.index > core.commit())
    }

    /// Whether our log holds the entry that an append continues. What is
    /// committed here is held by every later leader too, in memory or not.
    fn holds(core: &Core, prev: EntryId) -> Result<bool, Fault> {
        if prev.index > core.commit() {
            return Ok(core.log.holds(prev));
        }
        match core.log.id_at(prev.index) {
            Some(ours) if ours != prev => Err(Fault::Diverged { ours, theirs: prev }),
            None if mutants::on(Mutant::PrevBelowSnapshotConflicts) => {
                Err(Fault::Diverged { ours: core.log.base(), theirs: prev })
            }
            _ => Ok(true),
        }
    }

    fn reject(&self, core: &mut Core, from: NodeId, prev: EntryId) {
        let hint = core.log.last_agreeable(prev.index.prev(), prev.term);
        let response = AppendResponse::Rejected { at: prev.index, hint };
        core.send(from, Message::AppendResponse(response));
    }

    /// A leader is there: promise not to elect another, and echo at once.
    pub fn on_heartbeat(&mut self, core: &mut Core, now: Time, from: NodeId, beat: Heartbeat) {
        if beat.promise > core.config.promise {
            // After a restart we would promise less than we are asked for here.
            log::warn!("{from} asks for a promise of {:?}, longer than ours", beat.promise);
            return;
        }
        core.promise.set_length(beat.promise);
        core.heard_leader(now);
        let known = match mutants::on(Mutant::HeartbeatCommitUnbounded) {
            false => self.verified,
            true => core.log.last().index,
        };
        core.commit_to(beat.commit.min(known));
        let response = HeartbeatResponse {
            round: beat.round,
            matched: self.matched(core),
            received: self.verified,
            // A snapshot that was just installed counts: its base is not yet in
            // the journal, but nothing that was on the disk is lost.
            durable: core.durability.durable().max(core.log.base().index),
            room: core.has_room(),
            serves: !core.suspended,
        };
        core.send(from, Message::HeartbeatResponse(response));
    }

    /// The leader says from which index on our reads are fresh. That index is
    /// committed, so it also tells how far we may apply.
    pub fn on_read_index(&mut self, core: &mut Core, response: ReadIndexResponse) {
        core.reads.confirm(response.id, response.index);
        core.commit_to(response.index.min(self.verified));
    }

    /// A snapshot of the leader's covers everything up to `last`: it is committed,
    /// held by the leader, and held here.
    pub fn covered(&mut self, last: Index) {
        self.verified = self.verified.max(last);
        self.answer_due = true;
    }

    /// Says what is due: how far the log is durable, which reads want an index.
    pub fn speak(&mut self, core: &mut Core, now: Time) {
        let Some(leader) = self.leader else { return };
        let matched = self.matched(core);
        if self.answer_due || matched > self.told {
            self.answer_due = false;
            self.told = matched;
            let response = AppendResponse::Accepted { matched, received: self.verified };
            core.send(leader, Message::AppendResponse(response));
        }
        let patience = core.read_patience();
        if let Some(id) = core.reads.to_ask(leader, patience, now) {
            core.send(leader, Message::ReadIndex(ReadIndex { id }));
        }
    }
}
