//! Sessions: a write that is sent twice takes effect once.
//!
//! A session is opened by a log entry, whose index is its id, so an id is never
//! given twice. Its writes are numbered from 1, and up to a window of them may
//! be on their way at once, in any order:
//!
//! ```text
//!        floor                highest
//!  ────────┤ x . x x g . x x . x ├────────────▶ sequences
//!  refused │ x: executed, reply kept          executed as new;
//!          │ g: executed, reply gone          the window moves along
//!          │ .: not seen yet, executed when it comes
//! ```
//!
//! * A sequence that was executed gets its kept reply, or, if that had to go
//!   because the session's replies took too much memory, is told that its outcome
//!   is not known any more.
//! * One that was not, and lies above the floor, is executed, once.
//! * `highest - floor` never exceeds the window: a high sequence moves the
//!   floor up. What was skipped and falls below is never executed, and cannot be
//!   told from what was: its outcome is not known either.
//! * Refused is every sequence of a session that is unknown: never opened, idle
//!   for too long in log time, or pushed out by others. Who sent it once and got
//!   this answer knows that it was not executed; and only this answer says that it
//!   may be executed in another session.
//!
//! Order of idleness is that of last use, by log index, so no two sessions tie.
//! Everything here is a function of the log, part of snapshot, hash and memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::SessionLimits;
use super::hash;
use super::reply;
use crate::encoding::{Malformed, Reader, put_bytes};
use crate::request::{Reply, SessionStamp};

/// What a session counts in memory besides its replies.
pub const SESSION_BYTES: u64 = 256;

/// What an executed sequence counts in memory besides the bytes of its reply.
const SEQUENCE_BYTES: u64 = 64;

// Tell the hashes of sessions and replies from those of anything else.
const SESSION_SEED: u64 = 2;
const REPLY_SEED: u64 = 3;

/// What is to be done about a stamped write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is new: execute it, then [`Sessions::record`] the reply.
    Execute,
    /// It was executed, with this reply.
    Repeat(Reply),
    /// The session is unknown: it is not executed.
    Expired,
    /// It is not executed now, and was perhaps, or surely, executed before; why no
    /// more is known.
    Forgotten(&'static str),
}

/// One session.
///
/// Invariants: every key of `executed` is in `(floor, highest]`;
/// `highest - floor` is at most the window; `memory_bytes` and `hash` are those
/// of `executed`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Session {
    floor: u64,
    highest: u64,
    used_ms: u64,
    used_index: u64,
    /// By sequence; `None` if the reply had to go.
    executed: BTreeMap<u64, Option<Bytes>>,
    memory_bytes: u64,
    hash: u64,
}

impl Session {
    fn new(index: u64, now_ms: u64) -> Self {
        Self {
            floor: 0,
            highest: 0,
            used_ms: now_ms,
            used_index: index,
            executed: BTreeMap::new(),
            memory_bytes: SESSION_BYTES,
            hash: 0,
        }
    }

    fn judge(&self, sequence: u64) -> Verdict {
        if sequence <= self.floor {
            return Verdict::Forgotten("the sequence is below the session's window");
        }
        match self.executed.get(&sequence) {
            None => Verdict::Execute,
            Some(None) => Verdict::Forgotten("executed before, but its reply is no longer kept"),
            Some(Some(bytes)) => match reply::decode(bytes.clone()) {
                Ok(reply) => Verdict::Repeat(reply),
                Err(_) => unreachable!("kept replies were encoded here or checked at load"),
            },
        }
    }

    fn insert(&mut self, id: u64, sequence: u64, reply: Option<Bytes>) {
        self.memory_bytes += reply_bytes(reply.as_ref());
        self.hash = self.hash.wrapping_add(reply_hash(id, sequence, reply.as_ref()));
        self.executed.insert(sequence, reply);
    }

    fn remove(&mut self, id: u64, sequence: u64) {
        if let Some(reply) = self.executed.remove(&sequence) {
            self.memory_bytes -= reply_bytes(reply.as_ref());
            self.hash = self.hash.wrapping_sub(reply_hash(id, sequence, reply.as_ref()));
        }
    }

    /// Moves the window so that it covers `sequence`.
    fn cover(&mut self, id: u64, sequence: u64, window: u64) {
        self.highest = self.highest.max(sequence);
        self.floor = self.floor.max(self.highest.saturating_sub(window));
        while let Some((&lowest, _)) = self.executed.first_key_value() {
            if lowest > self.floor {
                break;
            }
            self.remove(id, lowest);
        }
    }

    /// Lets replies go, the lowest sequence first, until the rest fits.
    fn forget_replies(&mut self, id: u64, limit_bytes: u64) {
        let mut from = 0;
        while self.memory_bytes > limit_bytes {
            let kept = self.executed.range(from..).find(|(_, reply)| reply.is_some());
            let Some((&sequence, _)) = kept else { return };
            self.remove(id, sequence);
            self.insert(id, sequence, None);
            from = sequence;
        }
    }

    fn state_hash(&self, id: u64) -> u64 {
        let window = hash::words([self.floor, self.highest, self.used_ms, self.used_index]);
        hash::words([SESSION_SEED, id, window, self.hash])
    }
}

fn reply_bytes(reply: Option<&Bytes>) -> u64 {
    SEQUENCE_BYTES + reply.map_or(0, |bytes| bytes.len() as u64)
}

fn reply_hash(id: u64, sequence: u64, reply: Option<&Bytes>) -> u64 {
    let reply = reply.map_or(0, |bytes| hash::bytes(REPLY_SEED, bytes));
    hash::words([REPLY_SEED, id, sequence, reply])
}

/// All sessions.
///
/// A clone is cheap, and what changes afterwards is copied session by session:
/// that is how a snapshot holds on to the sessions of its index.
///
/// Invariants: `by_use` has every session at its `used_index`; `memory_bytes`
/// and `hash` are the sums over the sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sessions {
    sessions: BTreeMap<u64, Arc<Session>>,
    by_use: BTreeMap<u64, u64>,
    memory_bytes: u64,
    hash: u64,
}

impl Sessions {
    /// Opens a session; its id is the index of the entry that does.
    pub fn open(&mut self, index: u64, now_ms: u64, limits: &SessionLimits) {
        self.link(index, Arc::new(Session::new(index, now_ms)));
        self.evict(limits);
    }

    /// What to do about a stamped write, which counts as a use of the session.
    pub fn judge(
        &mut self,
        stamp: SessionStamp,
        index: u64,
        now_ms: u64,
        limits: &SessionLimits,
    ) -> Verdict {
        match self.sessions.get(&stamp.session) {
            Some(session) if !is_idle(session, now_ms, limits) => {}
            _ => return Verdict::Expired,
        }
        self.change(stamp.session, |session| {
            session.used_index = index;
            session.used_ms = now_ms;
            session.judge(stamp.sequence)
        })
        .unwrap_or(Verdict::Expired)
    }

    /// Keeps the reply of a write that was judged new and is executed now.
    pub fn record(&mut self, stamp: SessionStamp, reply: &Reply, limits: &SessionLimits) {
        let SessionStamp { session: id, sequence } = stamp;
        // One that could never fit must not push out the others first.
        let fits = |bytes: &Bytes| bytes.len() as u64 <= limits.replies_bytes;
        // What is far too large is not even encoded.
        let may_fit = reply.size_bytes() as u64 <= 16 * limits.replies_bytes;
        let bytes = may_fit.then(|| reply::encode(reply)).flatten().filter(fits);
        self.change(id, |session| {
            session.cover(id, sequence, limits.window);
            session.insert(id, sequence, bytes);
            session.forget_replies(id, limits.replies_bytes);
        });
        self.evict(limits);
    }

    /// Removes sessions that have been idle for too long, at most `most`.
    pub fn remove_idle(&mut self, now_ms: u64, most: usize, limits: &SessionLimits) {
        for _ in 0..most {
            let Some(id) = self.longest_idle() else { return };
            if !self.sessions.get(&id).is_some_and(|session| is_idle(session, now_ms, limits)) {
                return;
            }
            self.unlink(id);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.sessions.len()
    }

    /// What they count in memory; a formula, the same on every replica.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Their part of the state hash.
    pub fn state_hash(&self) -> u64 {
        self.hash
    }

    /// Pushes out the longest idle ones until the others are within bounds. The
    /// one in use is the last in that order, and fits alone.
    fn evict(&mut self, limits: &SessionLimits) {
        while self.sessions.len() > limits.count.max(1)
            || (self.memory_bytes > limits.total_bytes && self.sessions.len() > 1)
        {
            let Some(id) = self.longest_idle() else { return };
            self.unlink(id);
        }
    }

    fn longest_idle(&self) -> Option<u64> {
        self.by_use.first_key_value().map(|(_, &id)| id)
    }

    fn link(&mut self, id: u64, session: Arc<Session>) {
        self.memory_bytes += session.memory_bytes;
        self.hash = self.hash.wrapping_add(session.state_hash(id));
        self.by_use.insert(session.used_index, id);
        self.sessions.insert(id, session);
    }

    fn unlink(&mut self, id: u64) -> Option<Arc<Session>> {
        let session = self.sessions.remove(&id)?;
        self.memory_bytes -= session.memory_bytes;
        self.hash = self.hash.wrapping_sub(session.state_hash(id));
        self.by_use.remove(&session.used_index);
        Some(session)
    }

    /// Changes one session and the sums with it.
    fn change<T>(&mut self, id: u64, change: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let mut session = self.unlink(id)?;
        let result = change(Arc::make_mut(&mut session));
        self.link(id, session);
        Some(result)
    }

    /// Appends all sessions:
    ///
    /// ```text
    /// sessions | count u32 | session …
    /// session  | id u64 | floor u64 | highest u64 | used_ms u64 | used_index u64 |
    ///          | count u32 | sequence u64, kept u8, (length u32, reply …) if kept …
    /// ```
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        put_count(buffer, self.sessions.len());
        for (&id, session) in &self.sessions {
            for word in [id, session.floor, session.highest, session.used_ms, session.used_index] {
                buffer.put_u64_le(word);
            }
            put_count(buffer, session.executed.len());
            for (&sequence, reply) in &session.executed {
                buffer.put_u64_le(sequence);
                buffer.put_u8(u8::from(reply.is_some()));
                if let Some(bytes) = reply {
                    put_bytes(buffer, bytes);
                }
            }
        }
    }

    /// Reads what [`Sessions::encode`] wrote and recomputes the sums.
    pub fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        let mut sessions = Self::default();
        for _ in 0..reader.count(5 * 8 + 4)? {
            let id = reader.u64()?;
            let session = decode_session(id, reader)?;
            if sessions.sessions.contains_key(&id)
                || sessions.by_use.contains_key(&session.used_index)
            {
                return Err(Malformed("two sessions with one id or one last use"));
            }
            sessions.link(id, Arc::new(session));
        }
        Ok(sessions)
    }
}

fn decode_session(id: u64, reader: &mut Reader) -> Result<Session, Malformed> {
    let mut session = Session::new(0, 0);
    session.floor = reader.u64()?;
    session.highest = reader.u64()?;
    session.used_ms = reader.u64()?;
    session.used_index = reader.u64()?;
    for _ in 0..reader.count(8 + 1)? {
        let sequence = reader.u64()?;
        let reply = if reader.bool()? { Some(own(reader.bytes()?)?) } else { None };
        if sequence <= session.floor || sequence > session.highest {
            return Err(Malformed("a sequence lies outside its window"));
        }
        if session.executed.contains_key(&sequence) {
            return Err(Malformed("a sequence appears twice"));
        }
        session.insert(id, sequence, reply);
    }
    Ok(session)
}

/// A reply of its own memory: a share would keep the whole input alive.
fn own(bytes: Bytes) -> Result<Bytes, Malformed> {
    reply::decode(bytes.clone())?;
    Ok(Bytes::copy_from_slice(&bytes))
}

fn put_count(buffer: &mut Vec<u8>, count: usize) {
    buffer.put_u32_le(u32::try_from(count).expect("the limits on sessions are far below 2^32"));
}

fn is_idle(session: &Session, now_ms: u64, limits: &SessionLimits) -> bool {
    now_ms.saturating_sub(session.used_ms) >= limits.idle_ms
}
