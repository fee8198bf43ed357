//! Commands that alter what is there: append, write over, add, rename, copy.
//!
//! Each takes the deadline along, and leaves everything as it is if it fails.

use super::decimal::Decimal;
use super::execute::Execution;
use super::item::{Item, NEVER};
use super::limits::GROWN_VALUE_BYTES;
use crate::request::{Answer, Failure, Item as ItemAnswer, Key, Only};

impl Execution<'_> {
    /// Value and deadline of a key, or those of one to be made.
    fn current(&self, key: &Key) -> (&[u8], u64) {
        self.view().live(key).map_or((&[], NEVER), |item| (item.value(), item.deadline_ms()))
    }

    pub(super) fn append(&mut self, key: &Key, tail: &[u8]) -> Result<Answer, Failure> {
        let (old, _) = self.current(key);
        let length = grown(old.len(), tail.len())?;
        self.spend(length)?;
        let (old, deadline_ms) = self.current(key);
        let value = [old, tail].concat();
        self.put(key, &value, deadline_ms);
        Ok(integer(length))
    }

    pub(super) fn set_range(
        &mut self,
        key: &Key,
        offset: u32,
        part: &[u8],
    ) -> Result<Answer, Failure> {
        let (old, _) = self.current(key);
        if part.is_empty() {
            return Ok(integer(old.len()));
        }
        let end = grown(offset as usize, part.len())?;
        self.spend(old.len().max(end))?;
        let (old, deadline_ms) = self.current(key);
        let mut value = vec![0; old.len().max(end)];
        value[..old.len()].copy_from_slice(old);
        value[end - part.len()..end].copy_from_slice(part);
        self.put(key, &value, deadline_ms);
        Ok(integer(value.len()))
    }

    pub(super) fn increment_float(&mut self, key: &Key, by: &[u8]) -> Result<Answer, Failure> {
        let number = |text: &[u8]| Decimal::parse(text).ok_or(Failure::NotAFloat);
        let (old, deadline_ms) = match self.view().live(key) {
            Some(item) => (number(item.value())?, item.deadline_ms()),
            None => (Decimal::ZERO, NEVER),
        };
        let sum = old.checked_add(number(by)?).ok_or(Failure::NotAFloat)?;
        let value = sum.to_string();
        self.put(key, value.as_bytes(), deadline_ms);
        Ok(Answer::Item(Some(ItemAnswer { value: value.into(), version: self.index })))
    }

    /// Whether a key's deadline allows a new one.
    pub(super) fn allows(&self, key: &Key, deadline_ms: u64, only: Only) -> bool {
        let Some(old_ms) = self.view().live(key).map(Item::deadline_ms) else { return false };
        match only {
            Only::IfNone => old_ms == NEVER,
            Only::IfAny => old_ms != NEVER,
            Only::IfLater => deadline_ms > old_ms,
            Only::IfEarlier => deadline_ms < old_ms,
            Only::IfAnyAndEarlier => old_ms != NEVER && deadline_ms < old_ms,
        }
    }

    pub(super) fn rename(
        &mut self,
        from: &Key,
        to: &Key,
        replace: bool,
    ) -> Result<Answer, Failure> {
        let copied = self.copy(from, to, replace)?;
        if copied == Answer::Integer(1) && from != to {
            self.delete(from);
        }
        Ok(copied)
    }

    pub(super) fn copy(&mut self, from: &Key, to: &Key, replace: bool) -> Result<Answer, Failure> {
        let item = self.view().live(from).ok_or(Failure::NoSuchKey)?.clone();
        let may = replace || self.view().live(to).is_none();
        // To itself, it would be a write that changes nothing.
        if may && from != to {
            self.spend(item.value().len())?;
            self.put(to, item.value(), item.deadline_ms());
        }
        Ok(Answer::Integer(i64::from(may)))
    }
}

/// The sum of two lengths, unless no value may be as long.
fn grown(length: usize, more: usize) -> Result<usize, Failure> {
    length.checked_add(more).filter(|&sum| sum <= GROWN_VALUE_BYTES).ok_or(Failure::TooLong)
}

fn integer(length: usize) -> Answer {
    Answer::Integer(i64::try_from(length).expect("values are far below"))
}
