//! The obvious state machine: one ordered map and a scan for what has expired.

use std::collections::BTreeMap;

use ::bytes::Bytes;

use crate::fsm::{Action, Proposal};
use crate::request::*;

#[derive(Debug, Clone)]
struct Stored {
    value: Vec<u8>,
    deadline: Option<u64>,
    version: u64,
}

#[derive(Debug, Clone, Default)]
pub struct Oracle {
    now: u64,
    index: u64,
    items: BTreeMap<(u8, Vec<u8>), Stored>,
    /// Every reply of every session ever opened, and its highest sequence.
    sessions: BTreeMap<u64, (u64, BTreeMap<u64, Reply>)>,
    window: u64,
}

fn path(key: &Key) -> (u8, Vec<u8>) {
    (key.db, key.name.to_vec())
}

impl Oracle {
    pub fn new(window: u64) -> Self {
        Self { window, ..Self::default() }
    }

    pub fn apply(&mut self, proposal: &Proposal) -> Reply {
        self.index += 1;
        self.now = self.now.max(proposal.stamp_ms);
        let now = self.now;
        self.items.retain(|_, item| item.deadline.is_none_or(|deadline| deadline > now));
        match &proposal.action {
            Action::Tick => Reply::Done,
            Action::OpenSession => {
                self.sessions.insert(self.index, Default::default());
                Reply::SessionOpened { session: self.index }
            }
            Action::Run { batch, session: None } => self.run(batch),
            Action::Run { batch, session: Some(stamp) } => self.run_once(batch, *stamp),
        }
    }

    fn run_once(&mut self, batch: &Batch, stamp: SessionStamp) -> Reply {
        let refused = Reply::Error(ErrorKind::SessionExpired, String::new());
        let Some((highest, replies)) = self.sessions.get(&stamp.session) else { return refused };
        if stamp.sequence + self.window <= *highest || stamp.sequence == 0 {
            return Reply::Error(ErrorKind::Unknown, String::new());
        }
        if let Some(reply) = replies.get(&stamp.sequence) {
            return reply.clone();
        }
        let reply = self.run(batch);
        let session = self.sessions.get_mut(&stamp.session).unwrap();
        session.0 = session.0.max(stamp.sequence);
        session.1.insert(stamp.sequence, reply.clone());
        reply
    }

    /// What a query says at `at`: a copy on which time has passed.
    pub fn query(&self, batch: &Batch, at: u64) -> Reply {
        let mut later = self.clone();
        later.now = later.now.max(at);
        let now = later.now;
        later.items.retain(|_, item| item.deadline.is_none_or(|deadline| deadline > now));
        later.run(batch)
    }

    /// The names in a database at `at`, in their order.
    pub fn names(&self, db: u8, at: u64) -> Vec<Bytes> {
        let is_there = |item: &Stored| item.deadline.is_none_or(|deadline| deadline > at);
        let there = self.items.iter().filter(|((other, _), item)| *other == db && is_there(item));
        there.map(|((_, name), _)| name.clone().into()).collect()
    }

    pub fn keys(&self) -> Vec<Key> {
        let key = |(db, name): &(u8, Vec<u8>)| Key { db: *db, name: name.clone().into() };
        self.items.keys().map(key).collect()
    }

    fn version(&self, key: &Key) -> u64 {
        self.items.get(&path(key)).map_or(0, |item| item.version)
    }

    fn run(&mut self, batch: &Batch) -> Reply {
        if batch.guards.iter().any(|guard| self.version(&guard.key) != guard.version) {
            return Reply::GuardFailed;
        }
        Reply::Answers(batch.commands.iter().map(|command| self.command(command)).collect())
    }

    fn deadline(&self, key: &Key, expiry: Expiry) -> Result<Option<u64>, Answer> {
        let deadline = match expiry {
            Expiry::Never => return Ok(None),
            Expiry::Keep => return Ok(self.items.get(&path(key)).and_then(|item| item.deadline)),
            Expiry::AfterMs(ms) => u128::from(ms) + u128::from(self.now),
            Expiry::AtMs(ms) => u128::from(ms),
            Expiry::LaterMs(ms) => {
                match self.items.get(&path(key)).and_then(|item| item.deadline) {
                    None => return Ok(None),
                    Some(old) => (i128::from(old) + i128::from(ms)).max(0) as u128,
                }
            }
        };
        match i64::try_from(deadline) {
            Ok(deadline) => Ok(Some(deadline as u64)),
            Err(_) => Err(Answer::Failed(Failure::InvalidExpiry)),
        }
    }

    fn command(&mut self, command: &Command) -> Answer {
        match command {
            Command::Get(key) => Answer::Item(
                self.items
                    .get(&path(key))
                    .map(|item| Item { value: item.value.clone().into(), version: item.version }),
            ),
            Command::Exists(key) => {
                Answer::Integer(if self.items.contains_key(&path(key)) { 1 } else { 0 })
            }
            Command::Ttl(key) => Answer::Ttl(match self.items.get(&path(key)) {
                None => Ttl::Absent,
                Some(Stored { deadline: None, .. }) => Ttl::Never,
                Some(Stored { deadline: Some(deadline), .. }) => Ttl::Ms(deadline - self.now),
            }),
            Command::CountExpiring { db } => {
                let expires = |(path, item): &(&(u8, Vec<u8>), &Stored)| {
                    path.0 == *db && item.deadline.is_some()
                };
                Answer::Integer(self.items.iter().filter(expires).count() as i64)
            }
            Command::Count { db } => {
                Answer::Integer(self.items.keys().filter(|(other, _)| other == db).count() as i64)
            }
            Command::Set { key, value, expiry, condition } => match self.deadline(key, *expiry) {
                Err(failed) => failed,
                Ok(deadline) => self.set(key, value, deadline, condition),
            },
            Command::Delete(key) => {
                Answer::Integer(i64::from(self.items.remove(&path(key)).is_some()))
            }
            Command::Expire { key, expiry } => match self.deadline(key, *expiry) {
                Err(failed) => failed,
                Ok(deadline) => Answer::Integer(self.expire(key, *expiry, deadline)),
            },
            Command::Increment { key, by } => self.increment(key, *by),
            Command::Clear { db } => {
                self.items.retain(|(other, _), _| db.is_some_and(|db| db != *other));
                Answer::Done
            }
            Command::Deadline(key) => {
                Answer::Ttl(match self.items.get(&path(key)).map(|item| item.deadline) {
                    None => Ttl::Absent,
                    Some(None) => Ttl::Never,
                    Some(Some(deadline)) => Ttl::Ms(deadline),
                })
            }
            Command::Scan { .. } => unreachable!("only whole walks can be told; see `names`"),
            Command::Append { key, value } => {
                let length = self.items.get(&path(key)).map_or(0, |item| item.value.len());
                self.write_at(key, length, value)
            }
            Command::SetRange { key, value, .. } if value.is_empty() => {
                Answer::Integer(self.items.get(&path(key)).map_or(0, |item| item.value.len()) as i64)
            }
            Command::SetRange { key, offset, value } => self.write_at(key, *offset as usize, value),
            Command::IncrementFloat { key, by } => self.increment_float(key, by),
            Command::ExpireOnly { key, expiry, only } => match self.deadline(key, *expiry) {
                Err(failed) => failed,
                Ok(deadline) if self.allows(key, deadline, *only) => {
                    Answer::Integer(self.expire(key, *expiry, deadline))
                }
                Ok(_) => Answer::Integer(0),
            },
            Command::Rename { from, to, replace } => self.copy(from, to, *replace, true),
            Command::Copy { from, to, replace } => self.copy(from, to, *replace, false),
            Command::When { tests, then } | Command::Chain { tests, then } => {
                if !tests.iter().all(|test| self.holds(&test.key, &test.condition)) {
                    return Answer::Nested(None);
                }
                let ends = matches!(command, Command::Chain { .. });
                let (mut answers, mut has_failed) = (Vec::new(), false);
                for command in then {
                    if !(ends && has_failed) {
                        let answer = self.command(command);
                        has_failed |= matches!(answer, Answer::Failed(_));
                        answers.push(answer);
                    }
                }
                Answer::Nested(Some(answers))
            }
        }
    }

    fn holds(&self, key: &Key, condition: &Condition) -> bool {
        let old = self.items.get(&path(key));
        match condition {
            Condition::Always => true,
            Condition::IfAbsent => old.is_none(),
            Condition::IfPresent => old.is_some(),
            Condition::IfValue(value) => old.is_some_and(|item| item.value == *value),
            Condition::IfVersion(version) => self.version(key) == *version,
            Condition::UnlessValue(value) => old.is_none_or(|item| item.value != *value),
            Condition::IfDigest(digest) => {
                old.is_some_and(|item| xxhash_rust::xxh3::xxh3_64(&item.value) == *digest)
            }
            Condition::UnlessDigest(digest) => {
                old.is_none_or(|item| xxhash_rust::xxh3::xxh3_64(&item.value) != *digest)
            }
        }
    }

    fn set(
        &mut self,
        key: &Key,
        value: &[u8],
        deadline: Option<u64>,
        condition: &Condition,
    ) -> Answer {
        if !self.holds(key, condition) {
            return Answer::NotStored { version: self.version(key) };
        }
        let version = self.index;
        self.items.insert(path(key), Stored { value: value.to_vec(), deadline, version });
        self.drop_if_past(key);
        Answer::Stored { version }
    }

    fn drop_if_past(&mut self, key: &Key) {
        let is_past = |item: &Stored| item.deadline.is_some_and(|deadline| deadline <= self.now);
        if self.items.get(&path(key)).is_some_and(is_past) {
            self.items.remove(&path(key));
        }
    }

    fn expire(&mut self, key: &Key, expiry: Expiry, deadline: Option<u64>) -> i64 {
        let Some(item) = self.items.get_mut(&path(key)) else { return 0 };
        if expiry == Expiry::Keep {
            return 1;
        }
        if matches!(expiry, Expiry::Never | Expiry::LaterMs(_)) && item.deadline.is_none() {
            return 0;
        }
        (item.deadline, item.version) = (deadline, self.index);
        self.drop_if_past(key);
        1
    }

    fn increment(&mut self, key: &Key, by: i64) -> Answer {
        let fresh = Stored { value: b"0".to_vec(), deadline: None, version: 0 };
        let old = self.items.get(&path(key)).cloned().unwrap_or(fresh);
        let text = String::from_utf8_lossy(&old.value).into_owned();
        let number = match text.parse::<i64>() {
            Ok(number) if number.to_string() == text => number,
            _ => return Answer::Failed(Failure::NotAnInteger),
        };
        let Some(new) = number.checked_add(by) else {
            return Answer::Failed(Failure::Overflow);
        };
        let value = new.to_string().into_bytes();
        self.items.insert(path(key), Stored { value, version: self.index, ..old });
        Answer::Integer(new)
    }

    /// Byte by byte, from `offset` on; a gap is zeros.
    fn write_at(&mut self, key: &Key, offset: usize, part: &[u8]) -> Answer {
        if offset + part.len() > 16 * 1024 * 1024 {
            return Answer::Failed(Failure::TooLong);
        }
        let fresh = Stored { value: Vec::new(), deadline: None, version: 0 };
        let item = self.items.entry(path(key)).or_insert(fresh);
        for (at, byte) in (offset..).zip(part) {
            while item.value.len() <= at {
                item.value.push(0);
            }
            item.value[at] = *byte;
        }
        item.version = self.index;
        Answer::Integer(item.value.len() as i64)
    }

    fn increment_float(&mut self, key: &Key, by: &[u8]) -> Answer {
        let fresh = Stored { value: b"0".to_vec(), deadline: None, version: 0 };
        let old = self.items.get(&path(key)).cloned().unwrap_or(fresh);
        let sum = fractions(&old.value).zip(fractions(by)).map(|(old, by)| old + by);
        let Some(sum) = sum.filter(|sum| sum.abs() <= LARGEST) else {
            return Answer::Failed(Failure::NotAFloat);
        };
        let (value, version) = (in_words(sum).into_bytes(), self.index);
        let answer = Item { value: value.clone().into(), version };
        self.items.insert(path(key), Stored { value, version, ..old });
        Answer::Item(Some(answer))
    }

    fn allows(&self, key: &Key, new: Option<u64>, only: Only) -> bool {
        let Some(item) = self.items.get(&path(key)) else { return false };
        // Whoever has no deadline goes away later than any other.
        let moment = |deadline: Option<u64>| deadline.map_or(u128::MAX, u128::from);
        let (old, new) = (moment(item.deadline), moment(new));
        match only {
            Only::IfNone => item.deadline.is_none(),
            Only::IfAny => item.deadline.is_some(),
            Only::IfLater => new > old,
            Only::IfEarlier => new < old,
            Only::IfAnyAndEarlier => item.deadline.is_some() && new < old,
        }
    }

    fn copy(&mut self, from: &Key, to: &Key, replace: bool, moves: bool) -> Answer {
        let Some(item) = self.items.get(&path(from)).cloned() else {
            return Answer::Failed(Failure::NoSuchKey);
        };
        if self.items.contains_key(&path(to)) && !replace {
            return Answer::Integer(0);
        }
        if from != to {
            self.items.insert(path(to), Stored { version: self.index, ..item });
            if moves {
                self.items.remove(&path(from));
            }
        }
        Answer::Integer(1)
    }
}

/// 10^20 in fractions of 10^17.
const LARGEST: i128 = 10i128.pow(37);

/// A decimal number in fractions of 10^17, shifted and rounded as text.
fn fractions(text: &[u8]) -> Option<i128> {
    if text.len() > 5 * 1024 {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?.to_lowercase();
    let (mantissa, exponent) = match text.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (&text[..], 0),
    };
    let (sign, plain) = match mantissa.strip_prefix('-') {
        Some(plain) => (-1, plain),
        None => (1, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, places) = plain.split_once('.').unwrap_or((plain, ""));
    let digits = [whole, places].concat();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if exponent.abs() > 10_000 {
        return None;
    }
    // Beyond the zeros on both sides there is nothing but zeros.
    let digits = format!("{}{digits}{}", "0".repeat(100), "0".repeat(100));
    let point = 100 + whole.len() as i64 + exponent + 17;
    let is_zero = digits.bytes().all(|byte| byte == b'0');
    if is_zero || point < 0 {
        return Some(0);
    }
    let point = usize::try_from(point).ok().filter(|&point| point < digits.len())?;
    let (kept, tail) = digits.split_at(point);
    let kept = kept.trim_start_matches('0');
    let number = if kept.is_empty() { 0 } else { kept.parse::<i128>().ok()? };
    let half = format!("5{}", "0".repeat(tail.len() - 1));
    let up = match tail.cmp(&half) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Equal => number % 2,
        std::cmp::Ordering::Greater => 1,
    };
    Some(sign * (number + up)).filter(|number| number.abs() <= LARGEST)
}

/// The shortest text of a number of fractions of 10^17.
fn in_words(number: i128) -> String {
    let digits = format!("{:018}", number.abs());
    let (whole, places) = digits.split_at(digits.len() - 17);
    let text = format!("{whole}.{places}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if number < 0 { format!("-{text}") } else { text.to_owned() }
}
