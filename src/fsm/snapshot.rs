//! The bytes of a snapshot, and the way back.
//!
//! A snapshot is a [`SnapshotHead`], taken when it begins, and pieces, which
//! come by and by ([`Fsm::snapshot_piece`]). Both encode themselves on another
//! thread; files, checksums and transfer are the journal's and the peers' part.
//! Numbers are little-endian:
//!
//! ```text
//! head     | version u8 = 1 | applied u64 | log_time_ms u64 | contents hash u64 |
//!          | 16 x (keys u64, memory_bytes u64, hash u64) | sessions |
//! piece    | count u32 | item …
//! item     | db u8 | deadline_ms u64 | version u64 |
//!          | length u32 | name … | length u32 | value … |
//! ```
//!
//! `sessions` is drawn at [`Sessions::encode`]; a deadline of 2^64-1 is none.
//! The order of items means nothing and differs between nodes.
//!
//! [`Restore`] puts everything in place as it arrives, which counts and hashes
//! it anew. What does not add up to what the head says is refused: a node must
//! not serve from a state that it cannot vouch for.

use bytes::{BufMut, Bytes};

use super::command::MAX_TIME_MS;
use super::item::{Item, NEVER};
use super::sessions::Sessions;
use super::store::Totals;
use super::walk::{Piece, Visit};
use super::{Fsm, Limits};
use crate::encoding::{Malformed, Reader, put_bytes};
use crate::mutants::{self, Mutant};
use crate::request::{DATABASES, Key};

const VERSION: u8 = 1;

/// What a snapshot says of itself: all that is not items, and what they come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The index whose state it is.
    pub applied: u64,
    /// Log time at that index.
    pub log_time_ms: u64,
    /// [`Fsm::contents_hash`] at that index.
    pub contents_hash: u64,
    totals: [Totals; DATABASES as usize],
    sessions: Sessions,
}

impl SnapshotHead {
    /// How many items the pieces hold together.
    pub fn keys(&self) -> u64 {
        self.totals.iter().map(|totals| totals.keys).sum()
    }

    /// What they count in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.totals.iter().map(|totals| totals.memory_bytes).sum()
    }

    /// Appends the encoding drawn above.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        buffer.put_u8(VERSION);
        buffer.put_u64_le(self.applied);
        buffer.put_u64_le(self.log_time_ms);
        buffer.put_u64_le(self.contents_hash);
        for totals in &self.totals {
            buffer.put_u64_le(totals.keys);
            buffer.put_u64_le(totals.memory_bytes);
            buffer.put_u64_le(totals.hash);
        }
        self.sessions.encode(buffer);
    }

    /// Reads what [`SnapshotHead::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed("unknown version of a snapshot"));
        }
        let (applied, log_time_ms, contents_hash) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let mut totals = [Totals::default(); DATABASES as usize];
        for totals in &mut totals {
            let (keys, memory_bytes, hash) = (reader.u64()?, reader.u64()?, reader.u64()?);
            *totals = Totals { keys, memory_bytes, hash };
        }
        let sessions = Sessions::decode(&mut reader)?;
        reader.finish()?;
        if log_time_ms > MAX_TIME_MS {
            return Err(Malformed("a log time beyond what a clock can say"));
        }
        Ok(Self { applied, log_time_ms, contents_hash, totals, sessions })
    }
}

impl Piece {
    /// How many items it holds.
    pub fn keys(&self) -> usize {
        self.items.len()
    }

    /// Appends the encoding drawn above.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        let count = u32::try_from(self.items.len()).expect("a piece has a bound on its keys");
        buffer.put_u32_le(count);
        for (db, item) in &self.items {
            buffer.put_u8(*db);
            buffer.put_u64_le(match mutants::on(Mutant::SnapshotWithoutTtls) {
                false => item.deadline_ms(),
                true => NEVER,
            });
            buffer.put_u64_le(item.version());
            put_bytes(buffer, item.name());
            put_bytes(buffer, item.value());
        }
    }
}

impl Fsm {
    /// Begins a snapshot of the state as it is now; one under way is given up.
    /// Costs no more than the number of sessions.
    pub fn begin_snapshot(&mut self) -> SnapshotHead {
        self.store.begin_walk(self.limits.snapshot_retained_bytes);
        let mut totals = [Totals::default(); DATABASES as usize];
        for (totals, db) in totals.iter_mut().zip(0..) {
            *totals = self.store.totals_of(db);
        }
        SnapshotHead {
            applied: self.applied,
            log_time_ms: match mutants::on(Mutant::SnapshotWithoutLogTime) {
                false => self.log_time_ms,
                true => 0,
            },
            contents_hash: self.contents_hash(),
            totals,
            sessions: match mutants::on(Mutant::SnapshotWithoutSessions) {
                false => self.sessions.clone(),
                true => Sessions::default(),
            },
        }
    }

    /// The next items of the snapshot, at most `budget_keys`, while entries go
    /// on being applied.
    pub fn snapshot_piece(&mut self, budget_keys: usize) -> Visit {
        self.store.walk_on(budget_keys)
    }

    /// Gives up a snapshot. Its memory is freed by [`Fsm::reclaim`].
    pub fn abandon_snapshot(&mut self) {
        self.store.end_walk();
    }

    /// Memory that only a snapshot under way holds, at most; it is not part of
    /// [`Fsm::memory_bytes`].
    pub fn snapshot_retained_bytes(&self) -> u64 {
        self.store.retained_bytes()
    }
}

/// Why a snapshot was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Its bytes make no sense.
    #[error("snapshot is {0}")]
    Malformed(#[from] Malformed),
    /// Its items are not those that its head counted.
    #[error("snapshot of index {applied}: the {what} found do not match its header")]
    Mismatch {
        /// The index whose state it should be.
        applied: u64,
        /// What differs.
        what: &'static str,
    },
}

/// Builds a state machine from a snapshot, away from the one that serves.
#[derive(Debug)]
pub struct Restore {
    head: SnapshotHead,
    fsm: Fsm,
}

impl Restore {
    /// Begins with the head; pieces may follow in any order.
    pub fn new(head: Bytes, limits: Limits) -> Result<Self, RestoreError> {
        let head = SnapshotHead::decode(head)?;
        let mut fsm = Fsm::new(limits);
        fsm.applied = head.applied;
        fsm.log_time_ms = head.log_time_ms;
        if !mutants::on(Mutant::SessionsNotRestored) {
            fsm.sessions = head.sessions.clone();
        }
        Ok(Self { head, fsm })
    }

    /// Puts the items of one piece in place, as [`Piece::encode`] wrote it.
    pub fn push(&mut self, piece: Bytes) -> Result<(), RestoreError> {
        let mut reader = Reader::new(piece);
        for _ in 0..reader.count(1 + 8 + 8 + 4 + 4)? {
            self.push_item(&mut reader)?;
        }
        Ok(reader.finish()?)
    }

    fn push_item(&mut self, reader: &mut Reader) -> Result<(), Malformed> {
        let (db, deadline_ms, version) = (reader.u8()?, reader.u64()?, reader.u64()?);
        let (name, value) = (reader.bytes()?, reader.bytes()?);
        if db >= DATABASES {
            return Err(Malformed("there is no such database"));
        }
        if deadline_ms > MAX_TIME_MS && deadline_ms != NEVER {
            return Err(Malformed("a deadline beyond what a clock can say"));
        }
        let item = Item::new(&name, &value, deadline_ms, version);
        if self.fsm.store.find(&Key { db, name }).is_some() {
            return Err(Malformed("a key appears twice"));
        }
        self.fsm.store.put(db, item);
        Ok(())
    }

    /// The state machine, if all that the head counted has arrived.
    pub fn finish(self) -> Result<Fsm, RestoreError> {
        if mutants::any([
            Mutant::SnapshotWithoutTtls,
            Mutant::SnapshotWithoutSessions,
            Mutant::SnapshotWithoutLogTime,
            Mutant::SessionsNotRestored,
            Mutant::VisitAfterWrite,
        ]) {
            return Ok(self.fsm);
        }
        let applied = self.head.applied;
        let mismatch = |what| Err(RestoreError::Mismatch { applied, what });
        for (expected, db) in self.head.totals.iter().zip(0..) {
            let found = self.fsm.store.totals_of(db);
            if found.keys != expected.keys {
                return mismatch("numbers of keys");
            }
            if found != *expected {
                return mismatch("contents");
            }
        }
        if self.fsm.contents_hash() != self.head.contents_hash {
            return mismatch("sessions or log time");
        }
        Ok(self.fsm)
    }
}
