//! The obvious state machine: one ordered map and a scan for what has expired.

use std::collections::BTreeMap;

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
        }
    }

    fn set(
        &mut self,
        key: &Key,
        value: &[u8],
        deadline: Option<u64>,
        condition: &Condition,
    ) -> Answer {
        let old = self.items.get(&path(key));
        let holds = match condition {
            Condition::Always => true,
            Condition::IfAbsent => old.is_none(),
            Condition::IfPresent => old.is_some(),
            Condition::IfValue(value) => old.is_some_and(|item| item.value == *value),
            Condition::IfVersion(version) => self.version(key) == *version,
        };
        if !holds {
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
        if expiry == Expiry::Never && item.deadline.is_none() {
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
}
