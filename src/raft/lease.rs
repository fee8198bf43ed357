//! The promise of a voter and the lease of a leader, one story.
//!
//! A voter that processes a heartbeat promises to elect nobody else for a
//! while. A leader to which a majority has promised knows that for so long no
//! other leader can exist, and serves reads without asking anybody.
//!
//! ```text
//! leader   --send---------------------- 0.9 promise --|  the lease: from the send
//!              \                                   :
//! voter         +--receive------------------ promise --|  the promise: from the receipt
//! ```
//!
//! The lease starts at the *send* of a heartbeat whose echo came back, so it
//! starts before the promise, and it is shorter by a tenth, so it ends before
//! it as long as clocks run within 10 % of each other. It is never stored as a
//! deadline: it is computed when a read is judged, over the voters of that
//! moment, from when each was last known to be ours.
//!
//! What could break it, and what stands against that:
//! - *A restarted voter has forgotten its promise.* It makes one at start, to
//!   nobody in particular, unless there is no other voter.
//! - *The leader itself asks another to stand* (a transfer). That election is
//!   held in spite of all promises, so from the moment it has asked, the leader
//!   uses no lease for the rest of its term, even if the transfer comes to
//!   nothing.
//! - *The process was paused.* The clock is read after the inputs it judges,
//!   and it counts pauses.
//! - *The leader is not in the configuration.* Then it does not count itself.

use std::time::Duration;

use super::time::Time;
use crate::mutants::{self, Mutant};

/// What one node promised: it belongs to the node, whatever its term or role.
#[derive(Debug, Clone, Copy)]
pub struct Promise {
    length: Duration,
    until: Time,
}

impl Promise {
    /// The promise a node makes when it starts; `alone` if no one else votes.
    pub fn at_start(length: Duration, now: Time, alone: bool) -> Self {
        let votes_at_once = alone || mutants::on(Mutant::NoPromiseAtStart);
        Self { length, until: if votes_at_once { Time::ZERO } else { now + length } }
    }

    /// A leader's heartbeat asks for promises of this length from now on.
    pub fn set_length(&mut self, length: Duration) {
        self.length = length;
    }

    /// A message of a leader is being processed.
    pub fn renew(&mut self, now: Time) {
        self.until = self.until.max(now + self.length);
    }

    /// Whether electing somebody else is out of the question.
    pub fn in_force(&self, now: Time) -> bool {
        now < self.until
    }

    /// When it ends.
    pub fn until(&self) -> Time {
        self.until
    }
}

/// Whether a leader that a majority was last known to follow at `contact`, of
/// whom it asks promises of this length, is sure to be the only one at `now`.
pub fn lease_holds(contact: Time, promise: Duration, now: Time) -> bool {
    let tenths = if mutants::on(Mutant::LeaseOutlivesPromise) { 20 } else { 9 };
    now < contact + promise * tenths / 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_ends_before_the_promise() {
        let length = Duration::from_millis(300);
        let sent = Time::from_millis(1000);
        let mut promise = Promise::at_start(length, Time::ZERO, false);
        promise.renew(sent);
        // The leader's clock is 10 % slow: when it shows 270 ms, 300 have passed.
        assert!(lease_holds(sent, length, Time::from_millis(1269)));
        assert!(!lease_holds(sent, length, Time::from_millis(1270)));
        assert!(promise.in_force(Time::from_millis(1299)));
        assert!(!promise.in_force(Time::from_millis(1300)));
    }

    #[test]
    fn a_promise_is_never_shortened() {
        let mut promise = Promise::at_start(Duration::from_secs(1), Time::ZERO, false);
        promise.set_length(Duration::from_millis(1));
        promise.renew(Time::from_millis(5));
        assert!(promise.in_force(Time::from_millis(999)), "the one made at start");
    }

    #[test]
    fn the_only_voter_promises_nothing_at_start() {
        assert!(!Promise::at_start(Duration::from_secs(1), Time::ZERO, true).in_force(Time::ZERO));
    }
}
