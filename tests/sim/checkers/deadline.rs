//! What the log says of a key with deadlines. Log time alone decides them: whoever
//! reads the key is told what some entries amount to, up to one that his node has
//! applied or a later one, to the millisecond.

use std::collections::BTreeSet;

/// Between two entries nothing forgets a session unless log time jumps so far.
const SESSION_MS: u64 = 60_000;

/// What an entry does to the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The value and how long it lives; `None` deletes.
    pub to: Option<(u64, u64)>,
    /// The session and the sequence that it may be sent again with.
    pub session: Option<(u64, u64)>,
}

/// The key behind an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Absent,
    /// A value, and when it ends.
    Until(u64, u64),
    /// Whether the last change took effect depends on what else is forgotten.
    Unknown,
}

/// The key, by index.
#[derive(Default)]
pub struct Key {
    /// Behind each entry up to the last committed one: log time, and the key.
    behind: Vec<(u64, State)>,
    done: BTreeSet<(u64, u64)>,
    has_jumped: bool,
}

impl Key {
    /// The index of the next entry.
    pub fn next(&self) -> u64 {
        self.behind.len() as u64
    }

    /// The next entry is committed, and it is this late then.
    pub fn committed(&mut self, time_ms: u64, change: Option<Change>) {
        let (before_ms, before) = self.behind.last().copied().unwrap_or((0, State::Absent));
        let time_ms = time_ms.max(before_ms);
        self.has_jumped |= before_ms > 0 && time_ms > before_ms + SESSION_MS;
        let state = match change {
            None => before,
            Some(Change { session: Some(stamp), .. }) if !self.done.insert(stamp) => before,
            Some(Change { session: Some(_), .. }) if self.has_jumped => State::Unknown,
            Some(Change { to: Some((value, lives_ms)), .. }) => {
                State::Until(value, time_ms + lives_ms)
            }
            Some(Change { to: None, .. }) => State::Absent,
        };
        self.behind.push((time_ms, state));
    }

    /// Whether this may be found behind some entry from this one on.
    pub fn explains(&self, first: u64, found: Option<u64>) -> bool {
        self.behind.iter().skip(first as usize).any(|&(now_ms, state)| match state {
            State::Until(value, end_ms) if now_ms < end_ms => found == Some(value),
            State::Unknown => true,
            _ => found.is_none(),
        })
    }
}
