//! What a leader knows of one follower, and how much it may send it.
//!
//! ```text
//!            accepted                    too far behind the journal
//!   Probe ------------> Replicate   Probe, Replicate ------> Snapshot
//!     ^                     |                                   |
//!     +---------------------+-----------------------------------+
//!       rejected, link lost, no answer,           installed, or failed
//!       follower restarted
//! ```
//!
//! Probing sends one message at a time until the follower has said where its
//! log agrees; replicating keeps a window of bytes in flight. Without the two a
//! slow follower is sent the same entries over and over: a storm.

use std::collections::VecDeque;
use std::time::Duration;

use super::entry::Index;
use super::time::Time;
use crate::mutants::{self, Mutant};

/// One follower, as its leader sees it.
///
/// Invariants: `matched < next`; in `Replicate` everything in
/// `matched+1..next` was sent, or the follower has said that it holds it.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The follower has said: up to here the logs agree and it is on my disk.
    /// Counts for commit. Never goes back within a term.
    pub matched: Index,
    /// The next entry to send.
    pub next: Index,
    /// How it is being fed.
    pub state: State,
    /// The latest round it has echoed.
    pub confirmed: u64,
    /// When that round was sent: the follower's promise runs from then at least.
    pub contact: Option<Time>,
    /// When anything of it last arrived.
    pub heard: Option<Time>,
    /// Answers to rounds after this one were given after `matched` was: only
    /// they can show that the follower has lost something.
    pub matched_round: u64,
    /// When sending last began or got on; tells a lost message from a late one.
    pub advanced: Time,
    /// How often sending was begun again since it last got on. Each time it is
    /// given twice as long, so that a slow link is not filled with copies.
    pub retries: u32,
    /// Entries are being read from the journal for it.
    pub fetching: bool,
    /// Its disk has room, as far as it has said.
    pub room: bool,
    /// Its state can be trusted, as far as it has said.
    pub serves: bool,
    /// It has shown less on its disk than it had acknowledged. It counts for
    /// nothing and is sent nothing until it is rebuilt under a new identity.
    pub rolled_back: bool,
    /// It is being removed by the entry at this index, which it is sent once
    /// that is committed.
    pub leaving: Option<Index>,
}

/// How a follower is being fed.
#[derive(Debug, Clone)]
pub enum State {
    /// It is not known where its log agrees.
    Probe {
        /// A message is on its way; the next one waits for its answer.
        sent: bool,
    },
    /// It agrees up to what it was sent.
    Replicate(Window),
    /// It needs a snapshot.
    Snapshot {
        /// The driver was told so.
        announced: bool,
    },
}

/// What is on its way to a follower: the last index and the bytes of each
/// message, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Window {
    sent: VecDeque<(Index, usize)>,
    bytes: usize,
}

impl Window {
    /// Bytes sent and not yet acknowledged as durable.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether everything sent is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    fn push(&mut self, last: Index, bytes: usize) {
        self.sent.push_back((last, bytes));
        self.bytes += bytes;
    }

    fn acknowledge(&mut self, matched: Index) {
        while let Some(&(last, bytes)) = self.sent.front()
            && last <= matched
        {
            self.bytes -= bytes;
            self.sent.pop_front();
        }
    }
}

impl Progress {
    /// A follower of whom nothing is known; `next` is the first guess.
    pub fn new(next: Index, now: Time) -> Self {
        Self {
            matched: Index(0),
            next,
            state: State::Probe { sent: false },
            confirmed: 0,
            contact: None,
            heard: None,
            matched_round: 0,
            advanced: now,
            retries: 0,
            fetching: false,
            room: true,
            serves: true,
            rolled_back: false,
            leaving: None,
        }
    }

    /// What it counts for.
    pub fn counted(&self) -> Index {
        if self.rolled_back && !mutants::on(Mutant::RolledBackDiskCounts) {
            return Index(0);
        }
        self.matched
    }

    /// Whether it would do as a leader, but for room.
    pub fn could_lead(&self) -> bool {
        self.serves && !self.rolled_back
    }

    /// Whether another append may go out now.
    pub fn may_send(&self, window_bytes: usize) -> bool {
        if self.rolled_back || self.fetching {
            return false;
        }
        match &self.state {
            State::Probe { sent } => !sent,
            State::Replicate(window) => window.bytes() < window_bytes,
            State::Snapshot { .. } => false,
        }
    }

    /// Starts over: from what it has acknowledged, or, if it has not said
    /// anything yet, from the same guess as before, which is as good as it was.
    pub fn probe(&mut self) {
        match &mut self.state {
            State::Probe { sent } => *sent = false,
            State::Replicate(_) | State::Snapshot { .. } => self.probe_from(self.matched.next()),
        }
    }

    /// What was on its way is lost. The next sign of life lets sending begin
    /// again; to begin at once would only fill a queue that nobody empties.
    pub fn lost(&mut self) {
        self.fetching = false;
        if !matches!(self.state, State::Snapshot { .. }) {
            self.probe();
            self.state = State::Probe { sent: true };
            self.advanced = Time::ZERO;
            self.retries = 0;
        }
    }

    /// Starts over from a better guess, never below what it has acknowledged.
    pub fn probe_from(&mut self, next: Index) {
        self.next = next.max(self.matched.next());
        self.state = State::Probe { sent: false };
    }

    /// Entries up to `last` went out; for an empty append `last` is `next - 1`.
    pub fn sent(&mut self, last: Index, bytes: usize, now: Time) {
        match &mut self.state {
            State::Probe { sent } => {
                *sent = true;
                self.advanced = now;
            }
            State::Replicate(window) => {
                if window.is_empty() {
                    self.advanced = now;
                }
                window.push(last, bytes);
                self.next = last.next();
            }
            State::Snapshot { .. } => {}
        }
    }

    /// It has accepted: agreeing up to `received`, durable up to `matched`.
    /// `round` is the leader's latest. True if `matched` grew.
    pub fn accepted(&mut self, matched: Index, received: Index, round: u64, now: Time) -> bool {
        let grew = matched > self.matched;
        if grew {
            self.matched = matched;
            self.matched_round = round;
            self.advanced = now;
            self.retries = 0;
        }
        match &mut self.state {
            State::Replicate(window) => {
                window.acknowledge(self.matched);
                self.next = self.next.max(received.next());
            }
            State::Snapshot { .. } if received < self.next => {}
            // What is agreed but not yet durable needs no window: it was sent.
            State::Probe { .. } | State::Snapshot { .. } => {
                self.state = State::Replicate(Window::default());
                self.next = received.max(self.matched).next();
                self.advanced = now;
            }
        }
        grew
    }

    /// It does not hold the entry at `at`; `next` is where to go on.
    pub fn rejected(&mut self, at: Index, next: Index) {
        let stale = match &self.state {
            State::Probe { .. } => at != self.next.prev() || at <= self.matched,
            State::Replicate(_) => at <= self.matched || at >= self.next,
            State::Snapshot { .. } => true,
        };
        if !stale {
            self.probe_from(next.min(at));
        }
    }

    /// Whether something sent has not arrived, although sending began, or last
    /// got on, more than `patience` ago. The follower says it holds `received`.
    pub fn stalled(&self, received: Index, patience: Duration, now: Time) -> bool {
        let waiting = match &self.state {
            State::Probe { sent } => *sent,
            State::Replicate(_) => received < self.next.prev(),
            State::Snapshot { .. } => false,
        };
        let may_resend = !mutants::on(Mutant::LostAppendNotResent);
        waiting && may_resend && now.since(self.advanced) >= patience * (1 << self.retries.min(5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::ZERO;

    #[test]
    fn a_window_fills_and_empties() {
        let mut progress = Progress::new(Index(1), NOW);
        assert!(progress.may_send(100));
        progress.sent(Index(0), 0, NOW);
        assert!(!progress.may_send(100), "one probe at a time");
        assert!(!progress.accepted(Index(0), Index(0), 1, NOW));
        progress.sent(Index(5), 60, NOW);
        assert!(progress.may_send(100));
        progress.sent(Index(9), 60, NOW);
        assert!(!progress.may_send(100));
        assert!(progress.accepted(Index(5), Index(9), 1, NOW));
        assert!(progress.may_send(100));
        assert_eq!((progress.matched, progress.next), (Index(5), Index(10)));
    }

    #[test]
    fn late_answers_change_nothing() {
        let mut progress = Progress::new(Index(8), NOW);
        progress.sent(Index(7), 0, NOW);
        progress.accepted(Index(7), Index(7), 1, NOW);
        progress.rejected(Index(3), Index(2));
        assert_eq!(progress.next, Index(8), "rejected long ago");
        assert!(!progress.accepted(Index(4), Index(4), 1, NOW));
        assert_eq!((progress.matched, progress.next), (Index(7), Index(8)));
    }
}
