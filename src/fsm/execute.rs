//! What each command does, at one index and one moment of log time.
//!
//! A command never asks what time it is: it is told. At that time a key whose
//! deadline is not later is absent for every command, whether it has been
//! removed or not. So a `Set` over it starts afresh, and neither `Expire` nor
//! `Increment` brings it back.

use super::command::MAX_TIME_MS;
use super::item::{Item, NEVER};
use super::limits::{ENTRY_ANSWER_BYTES, SCANNED_KEYS};
use super::store::Store;
use crate::encoding::digest;
use crate::encoding::parse_i64;
use crate::mutants::{self, Mutant};
use crate::request::{
    Answer, Batch, Command, Condition, DATABASES, ErrorKind, Expiry, Failure, Guard,
    Item as ItemAnswer, Key, Only, Reply, TOO_LARGE_TO_SEND, Test, Ttl, glob,
};

/// The store at one moment: what reads see.
pub struct View<'a> {
    /// All items.
    pub store: &'a Store,
    /// Log time.
    pub now_ms: u64,
}

impl<'a> View<'a> {
    /// An item, unless it is past its deadline.
    pub(super) fn live(&self, key: &Key) -> Option<&'a Item> {
        let is_there =
            |item: &&Item| item.is_live(self.now_ms) || mutants::on(Mutant::ExpiredKeyServed);
        self.store.find(key).filter(is_there)
    }

    /// The version of a key; 0 if it is absent.
    fn version(&self, key: &Key) -> u64 {
        self.live(key).map_or(0, Item::version)
    }

    /// Whether every guard holds.
    pub fn holds(&self, guards: &[Guard]) -> bool {
        guards.iter().all(|guard| self.version(&guard.key) == guard.version)
    }

    /// The reply to a batch of reads. A write in it is refused: its place is
    /// the log.
    pub fn query(&self, batch: &Batch) -> Reply {
        if !self.holds(&batch.guards) {
            return Reply::GuardFailed;
        }
        let answers: Option<Vec<_>> = batch.commands.iter().map(|c| self.read(c)).collect();
        match answers {
            Some(answers) => Reply::Answers(answers),
            None => Reply::Error(ErrorKind::Invalid, "a write among reads".to_owned()),
        }
    }

    /// The answer to a read; `None` if the command is a write.
    fn read(&self, command: &Command) -> Option<Answer> {
        Some(match command {
            Command::Get(key) => Answer::Item(
                self.live(key)
                    .map(|item| ItemAnswer { value: item.value_bytes(), version: item.version() }),
            ),
            Command::Exists(key) => Answer::Integer(i64::from(self.live(key).is_some())),
            Command::Ttl(key) => Answer::Ttl(self.ttl(key)),
            Command::Deadline(key) => Answer::Ttl(match self.live(key).map(Item::deadline_ms) {
                None => Ttl::Absent,
                Some(NEVER) => Ttl::Never,
                Some(deadline_ms) => Ttl::Ms(deadline_ms),
            }),
            Command::Scan { db, cursor, count, pattern } => {
                let is_wanted = |item: &Item| {
                    let fits = |pattern: &[u8]| glob::matches(pattern, item.name());
                    item.is_live(self.now_ms) && pattern.as_deref().is_none_or(fits)
                };
                let count = (*count).min(SCANNED_KEYS);
                let (cursor, names) = self.store.scan(*db, *cursor, count, is_wanted);
                Answer::Names { cursor, names }
            }
            // A read does not fail.
            Command::When { tests, then } | Command::Chain { tests, then }
                if !then.iter().any(Command::is_write) =>
            {
                let reads = || then.iter().filter_map(|command| self.read(command)).collect();
                Answer::Nested(self.all_hold(tests).then(reads))
            }
            Command::CountExpiring { db } => {
                let count = self.store.count_expiring(*db, self.now_ms);
                Answer::Integer(i64::try_from(count).unwrap_or(i64::MAX))
            }
            Command::Count { db } => {
                let count = self.store.count_live(*db, self.now_ms);
                Answer::Integer(i64::try_from(count).unwrap_or(i64::MAX))
            }
            _ => return None,
        })
    }

    fn ttl(&self, key: &Key) -> Ttl {
        match self.live(key).map(Item::deadline_ms) {
            None => Ttl::Absent,
            Some(NEVER) => Ttl::Never,
            Some(late_ms) if mutants::on(Mutant::ExpiredKeyServed) && late_ms < self.now_ms => {
                Ttl::Ms(0)
            }
            Some(deadline_ms) => Ttl::Ms(deadline_ms - self.now_ms),
        }
    }

    fn all_hold(&self, tests: &[Test]) -> bool {
        tests.iter().all(|test| self.satisfies(&test.key, &test.condition))
    }

    fn satisfies(&self, key: &Key, condition: &Condition) -> bool {
        match condition {
            Condition::Always => true,
            Condition::IfAbsent => self.live(key).is_none(),
            Condition::IfPresent => self.live(key).is_some(),
            Condition::IfValue(value) => self.live(key).is_some_and(|item| item.value() == value),
            Condition::IfVersion(version) => self.version(key) == *version,
            Condition::UnlessValue(value) => {
                self.live(key).is_none_or(|item| item.value() != value)
            }
            Condition::IfDigest(digest) => self.digest(key) == Some(*digest),
            Condition::UnlessDigest(digest) => self.digest(key) != Some(*digest),
        }
    }

    fn digest(&self, key: &Key) -> Option<u64> {
        self.live(key).map(|item| digest(item.value()))
    }

    /// The absolute deadline that an expiry means for this key now.
    fn deadline_ms(&self, key: &Key, expiry: Expiry) -> Result<u64, Failure> {
        let deadline_ms = match expiry {
            Expiry::Never => return Ok(NEVER),
            Expiry::Keep => return Ok(self.live(key).map_or(NEVER, Item::deadline_ms)),
            Expiry::AfterMs(ms) => self.now_ms.checked_add(ms).ok_or(Failure::InvalidExpiry)?,
            Expiry::AtMs(ms) => ms,
            Expiry::LaterMs(ms) => match self.live(key).map_or(NEVER, Item::deadline_ms) {
                NEVER => return Ok(NEVER),
                // What is before 1970 is as over as what is at its beginning.
                deadline_ms => deadline_ms.saturating_add_signed(ms),
            },
        };
        if deadline_ms > MAX_TIME_MS { Err(Failure::InvalidExpiry) } else { Ok(deadline_ms) }
    }
}

/// The store at one entry of the log: what writes change.
pub struct Execution<'a> {
    /// All items.
    pub store: &'a mut Store,
    /// Log time.
    pub now_ms: u64,
    /// The index of the entry, which becomes the version of what it writes.
    pub index: u64,
    /// How many bytes of values it may still copy or alter.
    pub budget_bytes: usize,
    /// How many bytes of values its answers hold.
    pub answered_bytes: usize,
}

impl Execution<'_> {
    /// Draws on what may be done.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), Failure> {
        self.budget_bytes = self.budget_bytes.checked_sub(bytes).ok_or(Failure::TooMuch)?;
        Ok(())
    }

    pub(super) fn view(&self) -> View<'_> {
        View { store: self.store, now_ms: self.now_ms }
    }

    /// Runs a batch: all of it or, if a guard does not hold, nothing.
    pub fn run(&mut self, batch: &Batch) -> Reply {
        if !self.view().holds(&batch.guards) {
            return Reply::GuardFailed;
        }
        let answers = self.execute_all(&batch.commands, false);
        if self.has_room_for_answers() {
            Reply::Answers(answers)
        } else {
            Reply::Error(ErrorKind::Unknown, TOO_LARGE_TO_SEND.to_owned())
        }
    }

    fn has_room_for_answers(&self) -> bool {
        self.answered_bytes <= ENTRY_ANSWER_BYTES
    }

    /// Runs commands, or those up to the first that fails. [A value that an answer
    /// holds is copied when it is altered; five thousand such answers filled the memory
    /// of every node]: answers that are too much are dropped.
    fn execute_all(&mut self, commands: &[Command], until_failure: bool) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            let answer = self.execute(command);
            let has_failed = matches!(answer, Answer::Failed(_));
            if self.has_room_for_answers() {
                answers.push(answer);
            } else {
                answers.clear();
            }
            if until_failure && has_failed {
                break;
            }
        }
        answers
    }

    fn execute(&mut self, command: &Command) -> Answer {
        if let Some(answer) = self.view().read(command) {
            if let Answer::Item(Some(item)) = &answer {
                self.answered_bytes = self.answered_bytes.saturating_add(item.value.len());
            }
            return answer;
        }
        let result = match command {
            Command::Set { key, value, expiry, condition } => {
                self.set(key, value, *expiry, condition)
            }
            Command::Delete(key) => Ok(Answer::Integer(i64::from(self.delete(key)))),
            Command::Expire { key, expiry } => self.expire(key, *expiry),
            Command::Increment { key, by } => self.increment(key, *by),
            Command::Clear { db } => Ok(self.clear(*db)),
            Command::Append { key, value } => self.append(key, value),
            Command::SetRange { key, offset, value } => self.set_range(key, *offset, value),
            Command::IncrementFloat { key, by } => self.increment_float(key, by),
            Command::ExpireOnly { key, expiry, only } => self.expire_only(key, *expiry, *only),
            Command::Rename { from, to, replace } => self.rename(from, to, *replace),
            Command::Copy { from, to, replace } => self.copy(from, to, *replace),
            Command::When { tests, then } => self.when(tests, then),
            Command::Chain { tests, then } => self.chain(tests, then),
            Command::Get(_)
            | Command::Exists(_)
            | Command::Ttl(_)
            | Command::Deadline(_)
            | Command::Count { .. }
            | Command::CountExpiring { .. }
            | Command::Scan { .. } => unreachable!("reads were answered above"),
        };
        result.unwrap_or_else(Answer::Failed)
    }

    /// A deadline that is not in the future stores nothing and removes what was
    /// there: the same, to everyone, as storing it and letting it expire.
    fn set(
        &mut self,
        key: &Key,
        value: &[u8],
        expiry: Expiry,
        condition: &Condition,
    ) -> Result<Answer, Failure> {
        let deadline_ms = self.view().deadline_ms(key, expiry)?;
        if !self.judge(key, condition)? {
            return Ok(Answer::NotStored { version: self.view().version(key) });
        }
        if deadline_ms > self.now_ms {
            self.put(key, value, deadline_ms);
        } else {
            self.delete(key);
        }
        Ok(Answer::Stored { version: self.index })
    }

    /// Whether a condition holds; to hash a value is work.
    fn judge(&mut self, key: &Key, condition: &Condition) -> Result<bool, Failure> {
        if condition.hashes() {
            self.spend(self.view().live(key).map_or(0, |item| item.value().len()))?;
        }
        Ok(self.view().satisfies(key, condition))
    }

    fn judge_all(&mut self, tests: &[Test]) -> Result<bool, Failure> {
        for test in tests {
            if !self.judge(&test.key, &test.condition)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn put(&mut self, key: &Key, value: &[u8], deadline_ms: u64) {
        self.store.put(key.db, Item::new(&key.name, value, deadline_ms, self.index));
    }

    /// A key past its deadline is absent already and left to its turn.
    pub(super) fn delete(&mut self, key: &Key) -> bool {
        self.view().live(key).is_some() && self.store.remove(key.db, &key.name)
    }

    fn expire(&mut self, key: &Key, expiry: Expiry) -> Result<Answer, Failure> {
        let deadline_ms = self.view().deadline_ms(key, expiry)?;
        let Some(item) = self.view().live(key) else { return Ok(Answer::Integer(0)) };
        let old_deadline_ms = item.deadline_ms();
        match expiry {
            Expiry::Keep => return Ok(Answer::Integer(1)),
            Expiry::Never | Expiry::LaterMs(_) if old_deadline_ms == NEVER => {
                return Ok(Answer::Integer(0));
            }
            _ if deadline_ms > self.now_ms => {
                self.store.set_deadline(key, deadline_ms, self.index);
            }
            _ => {
                self.delete(key);
            }
        }
        Ok(Answer::Integer(1))
    }

    fn expire_only(&mut self, key: &Key, expiry: Expiry, only: Only) -> Result<Answer, Failure> {
        let deadline_ms = self.view().deadline_ms(key, expiry)?;
        if self.allows(key, deadline_ms, only) {
            self.expire(key, expiry)
        } else {
            Ok(Answer::Integer(0))
        }
    }

    fn when(&mut self, tests: &[Test], then: &[Command]) -> Result<Answer, Failure> {
        if !self.judge_all(tests)? {
            return Ok(Answer::Nested(None));
        }
        Ok(Answer::Nested(Some(self.execute_all(then, false))))
    }

    fn chain(&mut self, tests: &[Test], then: &[Command]) -> Result<Answer, Failure> {
        if !self.judge_all(tests)? {
            return Ok(Answer::Nested(None));
        }
        Ok(Answer::Nested(Some(self.execute_all(then, true))))
    }

    fn increment(&mut self, key: &Key, by: i64) -> Result<Answer, Failure> {
        let (old, deadline_ms) = match self.view().live(key) {
            Some(item) => {
                let old = parse_i64(item.value()).ok_or(Failure::NotAnInteger)?;
                (old, item.deadline_ms())
            }
            None => (0, NEVER),
        };
        let new = old.checked_add(by).ok_or(Failure::Overflow)?;
        self.put(key, new.to_string().as_bytes(), deadline_ms);
        Ok(Answer::Integer(new))
    }

    fn clear(&mut self, db: Option<u8>) -> Answer {
        match db {
            Some(db) => self.store.clear(db),
            None => (0..DATABASES).for_each(|db| self.store.clear(db)),
        }
        Answer::Done
    }
}
