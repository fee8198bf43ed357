//! One turn: drain, clock, judge.
//!
//! The order is a promise. What has arrived is taken first, all of it; then the
//! clock is read, once; then everything is judged by that time. Were the clock
//! read earlier, a process that was paused in between would judge a request by
//! a time before its arrival, and answer from a lease that is over. It is kept
//! here, in one pure function, so that nobody who drives a replica can get it
//! wrong, and a simulator runs the very same.

use super::clock::Now;
use super::{Effects, Input, Replica};
use crate::mutants::{self, Mutant};

/// Drives a replica in turns.
#[derive(Debug)]
pub struct Driver {
    replica: Replica,
    inbox: Vec<Input>,
    before: mutants::Before<Now>,
}

impl Driver {
    /// Drives this one.
    pub fn new(replica: Replica) -> Self {
        Self { replica, inbox: Vec::new(), before: mutants::Before::default() }
    }

    /// Takes all that has arrived, then reads the clock, then judges.
    pub fn turn(
        &mut self,
        arrived: impl Iterator<Item = Input>,
        read_clock: impl FnOnce() -> Now,
    ) -> Effects {
        self.inbox.extend(arrived);
        let now = self.before.unless(Mutant::StaleClock, read_clock());
        for input in self.inbox.drain(..) {
            self.replica.step(now, input);
        }
        self.replica.effects(now)
    }

    /// The replica, to look at.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }
}
