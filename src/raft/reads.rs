//! Reads that do not go through the log (thesis section 6.4).
//!
//! A read is fresh if the node that serves it has applied everything that was
//! committed when the read arrived. Only a leader knows that index, and only
//! if it still is the leader: it shows so by its lease, or by a round of
//! heartbeats that was sent after the read had arrived.
//!
//! All reads that arrive in one turn share one [`ReadId`]; ids count up, and an
//! answer to one answers all before it, since it was obtained later. So what
//! is kept does not grow with the number of reads.

use std::collections::VecDeque;
use std::time::Duration;

use super::entry::{Index, NodeId};
use super::message::ReadId;
use super::time::Time;
use crate::mutants::{self, Mutant};

/// The reads of this node, whatever its role.
///
/// Invariant: `confirmed <= requested < next`, and `waiting` is in order of both.
#[derive(Debug, Clone)]
pub struct Reads {
    next: ReadId,
    requested: ReadId,
    confirmed: ReadId,
    waiting: VecDeque<(ReadId, Index)>,
    asked: Option<Asked>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    leader: NodeId,
    id: ReadId,
    at: Time,
}

impl Reads {
    /// Ids count up from here.
    pub fn starting_at(start: u64) -> Self {
        // Far below the end, so that counting never gets there.
        let start = ReadId((start >> 2).max(1));
        Self {
            next: ReadId(start.0 + 1),
            requested: start,
            confirmed: start,
            waiting: VecDeque::new(),
            asked: None,
        }
    }

    /// A read has arrived. All reads until [`Reads::close`] get the same id.
    pub fn take_in(&mut self) -> ReadId {
        self.requested = self.next;
        self.next
    }

    /// The turn is over; a read that arrives from now on needs an id of its own.
    pub fn close(&mut self) {
        if self.requested == self.next {
            self.next.0 += 1;
        }
    }

    /// The last read that nobody has vouched for yet.
    pub fn outstanding(&self) -> Option<ReadId> {
        (self.requested > self.confirmed).then_some(self.requested)
    }

    /// Everything up to `id` may be served once `index` is applied.
    pub fn confirm(&mut self, id: ReadId, index: Index) {
        if id > self.confirmed && id <= self.requested {
            self.confirmed = id;
            match self.waiting.back_mut() {
                Some((last, after)) if *after >= index => *last = id,
                _ => self.waiting.push_back((id, index)),
            }
        }
    }

    /// The last read that may be served now, with those before it.
    pub fn release(&mut self, applied: Index) -> Option<ReadId> {
        let mut released = None;
        while let Some(&(id, index)) = self.waiting.front()
            && (index <= applied || mutants::on(Mutant::ReadBeforeApply))
        {
            released = Some(id);
            self.waiting.pop_front();
        }
        released
    }

    /// The id to ask this leader for, unless it was asked for it within
    /// `patience`.
    pub fn to_ask(&mut self, leader: NodeId, patience: Duration, now: Time) -> Option<ReadId> {
        let id = self.outstanding()?;
        let is_asked = |asked: Asked| {
            asked.leader == leader && asked.id == id && now.since(asked.at) < patience
        };
        if self.asked.is_some_and(is_asked) {
            return None;
        }
        self.asked = Some(Asked { leader, id, at: now });
        Some(id)
    }

    /// When an unanswered question is to be asked again.
    pub fn ask_again_at(&self, patience: Duration) -> Option<Time> {
        self.outstanding()?;
        self.asked.map(|asked| asked.at + patience)
    }
}

/// Who asked for a read index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// This node.
    Own,
    /// A follower.
    Node(NodeId),
}

/// A read index that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asking {
    /// By whom.
    pub asker: Asker,
    /// For which reads.
    pub id: ReadId,
}

/// A leader's heartbeat rounds, and the reads that wait for one.
///
/// Rounds are numbered within a term, and a node leads a term at most once, so
/// an echo with the right term and number is an echo of that very round.
#[derive(Debug, Clone, Default)]
pub struct Rounds {
    latest: u64,
    sent: VecDeque<(u64, Time)>,
    fresh: Vec<Asking>,
    waiting: VecDeque<(u64, Index, Asking)>,
}

impl Rounds {
    /// The number of the latest round.
    pub fn latest(&self) -> u64 {
        self.latest
    }

    /// A read has arrived, or a follower asks for one. An earlier one of the
    /// same asker that waits for a round still is served with it.
    pub fn ask(&mut self, asking: Asking) {
        self.fresh.retain(|earlier| earlier.asker != asking.asker);
        self.fresh.push(asking);
    }

    /// Whether reads wait that no round was sent for.
    pub fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Whether reads wait for a round that was sent.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes those reads out: they need no round.
    pub fn take_fresh(&mut self) -> Vec<Asking> {
        std::mem::take(&mut self.fresh)
    }

    /// A round is sent at `now`; `keep` is how long its send time matters. If
    /// the commit index is known, the fresh reads wait for this round.
    pub fn begin(&mut self, now: Time, keep: Duration, commit: Option<Index>) -> u64 {
        self.latest += 1;
        while self.sent.front().is_some_and(|&(_, at)| now.since(at) > keep) {
            self.sent.pop_front();
        }
        self.sent.push_back((self.latest, now));
        if let Some(commit) = commit {
            let latest = self.latest - u64::from(mutants::on(Mutant::ReadRoundReused));
            self.waiting.extend(self.fresh.drain(..).map(|asking| (latest, commit, asking)));
        }
        self.latest
    }

    /// When a round was sent, unless that was too long ago to matter.
    pub fn sent_at(&self, round: u64) -> Option<Time> {
        let place = self.sent.binary_search_by_key(&round, |&(round, _)| round).ok()?;
        Some(self.sent[place].1)
    }

    /// A majority has echoed `round`: the reads that waited for it or an
    /// earlier one, each with the index to apply first.
    pub fn confirm(&mut self, round: u64) -> Vec<(Asking, Index)> {
        let mut confirmed = Vec::new();
        while let Some(&(waits_for, index, asking)) = self.waiting.front()
            && waits_for <= round
        {
            confirmed.push((asking, index));
            self.waiting.pop_front();
        }
        confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_of_one_turn_share_an_id() {
        let mut reads = Reads::starting_at(0);
        let first = reads.take_in();
        assert_eq!(reads.take_in(), first);
        reads.close();
        let second = reads.take_in();
        assert!(second > first);
        reads.confirm(first, Index(5));
        assert_eq!(reads.outstanding(), Some(second));
        assert_eq!(reads.release(Index(4)), None, "not applied yet");
        reads.confirm(second, Index(5));
        assert_eq!(reads.release(Index(5)), Some(second));
    }

    #[test]
    fn answers_to_nothing_we_asked_are_ignored() {
        let mut reads = Reads::starting_at(1 << 40);
        let id = reads.take_in();
        reads.confirm(ReadId(3), Index(0));
        reads.confirm(ReadId(u64::MAX), Index(0));
        assert_eq!(reads.release(Index(9)), None);
        reads.confirm(id, Index(1));
        assert_eq!(reads.release(Index(9)), Some(id));
    }

    #[test]
    fn a_read_waits_for_a_round_sent_after_it() {
        let keep = Duration::from_secs(1);
        let mut rounds = Rounds::default();
        let early = rounds.begin(Time::ZERO, keep, Some(Index(1)));
        rounds.ask(Asking { asker: Asker::Own, id: ReadId(1) });
        assert!(rounds.confirm(early).is_empty(), "that round was sent before the read");
        let round = rounds.begin(Time::ZERO, keep, Some(Index(7)));
        let confirmed = rounds.confirm(round);
        assert_eq!(confirmed.len(), 1);
        assert_eq!(confirmed[0].1, Index(7));
    }
}
