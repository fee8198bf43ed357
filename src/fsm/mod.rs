//! The key-value state machine: what the log means.
//!
//! Every node applies the same entries in the same order and so comes to the
//! same state. That holds because nothing else has a say: there is no clock, no
//! randomness and no I/O here, and no order of iteration that writes did not
//! determine. [`Fsm`] takes one entry after the other and gives a reply for
//! each; reads are answered from the state in between.
//!
//! # Time
//!
//! Entries carry a stamp of *log time*, which never goes back. A deadline is a
//! moment of log time. From that moment on the key is absent for every command,
//! so nobody sees it late. Being removed is another matter: each entry first
//! removes what is due, at most [`DUE_PER_ENTRY`] keys in the order of their
//! deadlines, so that a million keys with one deadline stall nothing.
//! [`Fsm::keys`] and [`Fsm::memory_bytes`] count a key until it is removed.
//!
//! A node may answer reads for a later moment than its own log time
//! ([`Fsm::query`]); [`Fsm::has_deadline_by`] says when it should rather wait,
//! because an entry on its way might have changed that deadline.
//!
//! # Agreement
//!
//! [`Fsm::state_hash`] sums up everything an entry can change. It is kept up to
//! date with each write, so that replicas can compare often, and is the same
//! for the same state however it came about; [`Fsm::memory_bytes`] likewise.
//!
//! # The files
//!
//! | file | what it is |
//! |---|---|
//! | [`command`] | what an entry says, and its bytes |
//! | [`execute`], [`edit`] | what each command does; those that alter what is there |
//! | [`decimal`] | numbers with a point |
//! | [`sessions`], [`reply`] | a write sent twice takes effect once; the replies kept for that |
//! | [`store`] | sixteen databases and their running numbers |
//! | [`slots`], [`item`], [`expiry`] | where keys lie, what they are made of, when they go |
//! | [`walk`], [`snapshot`] | the state at one index while writes go on; its bytes |
//! | [`hash`] | the hash that replicas compare |
//! | [`limits`], [`charge`] | bounds; what a batch will cost |
//!
//! Missing on purpose: eviction. When memory is full, writes that grow it are
//! refused before they are proposed ([`Fsm::fits`]), or keys make way by deletes that
//! the leader proposes; applying never refuses.

pub mod charge;
pub mod command;
pub mod decimal;
pub mod edit;
pub mod execute;
pub mod expiry;
pub mod hash;
pub mod item;
pub mod limits;
pub mod reply;
pub mod sessions;
pub mod slots;
pub mod snapshot;
pub mod store;
#[cfg(test)]
mod tests;
pub mod walk;

pub use command::{Action, MAX_TIME_MS, Proposal};
pub use limits::{Limits, SessionLimits};
pub use snapshot::{Restore, RestoreError, SnapshotHead};
pub use walk::{Piece, Visit};

use charge::Charge;
use execute::{Execution, View};
use sessions::{Sessions, Verdict};
use store::Store;

use crate::mutants::{self, Mutant};
use crate::request::{Batch, Command, ErrorKind, Key, Reply, SessionStamp};

/// To run a command takes about as long as to copy so many bytes.
const COMMAND_BYTES: usize = 256;

/// How many keys past their deadline one entry removes at most, and as many
/// idle sessions. Part of the log's format: another number is another state.
pub const DUE_PER_ENTRY: usize = 64;

/// What an action may add to the data set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Growth {
    /// If what it copies is as large as it is now.
    pub likely_bytes: u64,
    /// If what it copies is the largest that it may be by then.
    pub most_bytes: u64,
}

/// The state after a prefix of the log.
#[derive(Debug)]
pub struct Fsm {
    limits: Limits,
    applied: u64,
    log_time_ms: u64,
    store: Store,
    sessions: Sessions,
    last_work_bytes: usize,
    last_expired: usize,
}

impl Fsm {
    /// The state before the first entry.
    pub fn new(limits: Limits) -> Self {
        let (store, sessions) = Default::default();
        Self {
            limits,
            applied: 0,
            log_time_ms: 0,
            store,
            sessions,
            last_work_bytes: 0,
            last_expired: 0,
        }
    }

    /// Applies a command entry. Panics if `index` does not follow the last one.
    pub fn apply(&mut self, index: u64, proposal: &Proposal) -> Reply {
        self.apply_other(index);
        self.log_time_ms = self.log_time_ms.max(proposal.stamp_ms);
        self.last_expired = self.store.remove_due(self.log_time_ms, DUE_PER_ENTRY);
        self.last_work_bytes = self.last_expired * COMMAND_BYTES;
        self.sessions.remove_idle(self.log_time_ms, DUE_PER_ENTRY, &self.limits.sessions);
        match &proposal.action {
            Action::Tick => Reply::Done,
            Action::Run { batch, session: None } => self.run(batch),
            Action::Run { batch, session: Some(stamp) } => self.run_once(batch, *stamp),
            Action::OpenSession => {
                self.sessions.open(index, self.log_time_ms, &self.limits.sessions);
                Reply::SessionOpened { session: index }
            }
        }
    }

    /// Applies an entry that is consensus' own and changes nothing here.
    /// Panics if `index` does not follow the last one.
    pub fn apply_other(&mut self, index: u64) {
        assert_eq!(index, self.applied + 1, "entries are applied one after the other");
        self.applied = index;
        self.last_work_bytes = 0;
        self.last_expired = 0;
    }

    fn run(&mut self, batch: &Batch) -> Reply {
        let (now_ms, index) = (self.log_time_ms, self.applied);
        let budget_bytes = limits::ENTRY_WORK_BYTES;
        let store = &mut self.store;
        let mut execution = Execution { store, now_ms, index, budget_bytes, answered_bytes: 0 };
        let reply = execution.run(batch);
        // What is answered may have been copied, too.
        let copied_bytes = budget_bytes - execution.budget_bytes + execution.answered_bytes;
        self.last_work_bytes += copied_bytes + batch.work() * COMMAND_BYTES;
        reply
    }

    /// What the last entry took, as many bytes copied take as long: the values that
    /// its commands copied and altered, and something for each command, and for each
    /// key that was due.
    pub fn last_work_bytes(&self) -> usize {
        self.last_work_bytes
    }

    fn run_once(&mut self, batch: &Batch, stamp: SessionStamp) -> Reply {
        match self.sessions.judge(stamp, self.applied, self.log_time_ms, &self.limits.sessions) {
            Verdict::Execute => {
                let reply = self.run(batch);
                self.sessions.record(stamp, &reply, &self.limits.sessions);
                reply
            }
            Verdict::Repeat(_) if mutants::on(Mutant::RetryAppliedTwice) => self.run(batch),
            Verdict::Repeat(reply) => reply,
            Verdict::Expired if mutants::on(Mutant::ExpiredSessionExecuted) => self.run(batch),
            Verdict::Expired => {
                let reason = "the session is unknown or has expired".to_owned();
                Reply::Error(ErrorKind::SessionExpired, reason)
            }
            Verdict::Forgotten(reason) => Reply::Error(ErrorKind::Unknown, reason.to_owned()),
        }
    }

    /// How many keys past their deadline the last entry removed.
    pub fn last_expired(&self) -> usize {
        self.last_expired
    }

    /// Answers a batch of reads as of log time `at_ms`, or of this state's own
    /// log time if that is later. A batch with a write is refused as invalid.
    pub fn query(&self, batch: &Batch, at_ms: u64) -> Reply {
        View { store: &self.store, now_ms: self.log_time_ms.max(at_ms) }.query(batch)
    }

    /// Whether a read of this batch at `at_ms` would find a key absent, or not
    /// count it, only because its deadline lies after what has been applied:
    /// in (own log time, `at_ms`]. It should wait for an entry with that stamp,
    /// since one on its way may have given the key more time.
    pub fn has_deadline_by(&self, batch: &Batch, at_ms: u64) -> bool {
        let in_reach = |deadline_ms| self.log_time_ms < deadline_ms && deadline_ms <= at_ms;
        let live = |db, now_ms| self.store.count_live(db, now_ms);
        let is_any_in_reach =
            |db| at_ms > self.log_time_ms && live(db, at_ms) < live(db, self.log_time_ms);
        let mut found = false;
        let mut see = |key: &Key| {
            found |= self.store.find(key).is_some_and(|item| in_reach(item.deadline_ms()));
        };
        batch.guards.iter().for_each(|guard| see(&guard.key));
        batch.commands.iter().for_each(|command| command.each_key(&mut see));
        let mut parts = batch.commands.iter().flat_map(Command::steps);
        found || parts.any(|part| part.database().is_some_and(is_any_in_reach))
    }

    /// The index of the last entry applied; 0 before the first.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The latest stamp applied, in milliseconds.
    pub fn log_time_ms(&self) -> u64 {
        self.log_time_ms
    }

    /// The earliest deadline of any key. If it is not after log time, there are
    /// keys left to remove, and the next entry will remove some.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.store.next_deadline_ms()
    }

    /// A key that two numbers choose, and its database: if those are drawn at random,
    /// about any of all keys, or of those with a deadline.
    pub fn choose(&self, numbers: [u64; 2], is_volatile: bool) -> Option<(u8, &item::Item)> {
        self.store.choose(numbers, is_volatile)
    }

    /// A key with its value, also past its deadline.
    pub fn find(&self, key: &Key) -> Option<&item::Item> {
        self.store.find(key)
    }

    /// Keys stored, also past their deadline.
    pub fn keys(&self) -> u64 {
        self.store.totals().keys
    }

    /// Sessions open, also idle for too long.
    pub fn sessions(&self) -> usize {
        self.sessions.count()
    }

    /// What sessions count in memory.
    pub fn sessions_bytes(&self) -> u64 {
        self.sessions.memory_bytes()
    }

    /// What keys and sessions count in memory. A formula that follows from the
    /// state, so that all replicas say the same; it is meant to be close to,
    /// and not below, what the allocator gives out.
    pub fn memory_bytes(&self) -> u64 {
        self.store.totals().memory_bytes + self.sessions.memory_bytes()
    }

    /// Whether what may add `growth_bytes` may be proposed under a memory limit, when
    /// proposals on their way may add `in_flight_bytes`. What does not grow always
    /// fits.
    pub fn fits(&self, growth_bytes: u64, in_flight_bytes: u64, limit_bytes: u64) -> bool {
        let sum = self.memory_bytes().saturating_add(in_flight_bytes).saturating_add(growth_bytes);
        growth_bytes == 0 || sum <= limit_bytes
    }

    /// About how many bytes an action may add to the data set, while writes of so
    /// many bytes are on their way. 0 for what must pass when memory is full: reads,
    /// deletes, and deadlines, which make room in the end.
    pub fn growth(&self, action: &Action, on_its_way_bytes: u64) -> Growth {
        let charge = |on_its_way_bytes| match action {
            Action::Run { batch, .. } => Charge::of(batch, &self.store, on_its_way_bytes),
            Action::Tick | Action::OpenSession => Charge::default(),
        };
        let bytes = action.growth_bytes();
        Growth {
            likely_bytes: bytes.saturating_add(charge(0).copied_bytes),
            most_bytes: bytes.saturating_add(charge(on_its_way_bytes).copied_bytes),
        }
    }

    /// Whether a batch may be proposed or run as a query; else what to tell the
    /// client, with [`ErrorKind::Invalid`]. What is in the log has passed, and
    /// applying it checks nothing.
    pub fn check(&self, batch: &Batch) -> Result<(), String> {
        self.limits.check(batch)?;
        // One command alone is bounded by the length of a value.
        let altered = match batch.commands.len() {
            0 | 1 => 0,
            _ => Charge::of(batch, &self.store, 0).altered_bytes,
        };
        self.limits.check_altered(altered)
    }

    /// The hash of items, sessions and log time.
    pub fn contents_hash(&self) -> u64 {
        let parts =
            [self.store.totals().hash, self.sessions.state_hash(), self.log_time_ms, hash::VERSION];
        hash::words(parts)
    }

    /// The hash that replicas compare at one index: contents and membership,
    /// which is not held here; `membership_hash` stands for it.
    pub fn state_hash(&self, membership_hash: u64) -> u64 {
        hash::words([self.contents_hash(), membership_hash, hash::VERSION, 0])
    }

    /// Frees memory of what was cleared, about `budget_keys` keys of it.
    /// Returns whether there is more.
    pub fn reclaim(&mut self, budget_keys: usize) -> bool {
        self.store.reclaim(budget_keys)
    }

    /// The bounds it was made with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}
