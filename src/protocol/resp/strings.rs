//! Commands on values.

use super::call::{Call, NOT_AN_INTEGER, Plan, Planned, Refused, SYNTAX, run};
use super::form::Form;
use super::lcs::Lcs;
use crate::encoding::parse_i64;
use crate::request::{Command, Condition, Expiry, Key, Test};
use bytes::Bytes;

pub(super) fn get(call: &mut Call<'_>) -> Planned {
    run(Command::Get(call.key(1)), Form::Bulk)
}

pub(super) fn strlen(call: &mut Call<'_>) -> Planned {
    run(Command::Get(call.key(1)), Form::Length)
}

pub(super) fn getrange(call: &mut Call<'_>) -> Planned {
    let (from, to) = (call.integer(2)?, call.integer(3)?);
    run(Command::Get(call.key(1)), Form::Range(from, to))
}

pub(super) fn mget(call: &mut Call<'_>) -> Planned {
    let commands = (1..call.count()).map(|i| Command::Get(call.key(i))).collect();
    Ok(Plan::Run(commands, Form::Bulks(call.count() - 1)))
}

fn set_to(key: Key, value: Bytes, expiry: Expiry, condition: Condition) -> Command {
    Command::Set { key, value, expiry, condition }
}

fn plain_set(key: Key, value: Bytes) -> Command {
    set_to(key, value, Expiry::Never, Condition::Always)
}

/// The options of SET and GETEX.
#[derive(Default)]
struct Options {
    expiry: Option<Expiry>,
    /// What time is given: in which unit, and by which word.
    time: Option<(Unit, usize)>,
    condition: Option<Condition>,
    get: bool,
}

/// In what a time is given, and from when on it counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) ms: u64,
    pub(super) absolute: bool,
}

impl Unit {
    pub(super) fn of(word: &[u8]) -> Option<Self> {
        let unit = |ms, absolute| Some(Self { ms, absolute });
        match &word.to_ascii_uppercase()[..] {
            b"EX" => unit(1000, false),
            b"PX" => unit(1, false),
            b"EXAT" => unit(1000, true),
            b"PXAT" => unit(1, true),
            _ => None,
        }
    }

    /// A time that has to be positive.
    fn expiry(self, call: &Call<'_>, i: usize) -> Result<Expiry, Refused> {
        let number = call.integer(i)?;
        let ms = u64::try_from(number).ok().filter(|&number| number > 0);
        let ms = ms.and_then(|number| number.checked_mul(self.ms));
        let ms = ms.filter(|&ms| ms <= i64::MAX as u64).ok_or_else(|| call.invalid_expiry())?;
        Ok(if self.absolute { Expiry::AtMs(ms) } else { Expiry::AfterMs(ms) })
    }
}

impl Options {
    /// Reads them from word `from` on. One may be said twice, but none beside
    /// another that contradicts it.
    fn of(call: &Call<'_>, from: usize, is_set: bool) -> Result<Self, Refused> {
        let (mut options, mut time, mut i) = (Self::default(), None::<(Unit, usize)>, from);
        let fits = |there: &Option<Condition>, new: &Condition| {
            is_set && there.as_ref().is_none_or(|there| there == new)
        };
        while i < call.count() {
            let has_more = i + 1 < call.count();
            let unit = Unit::of(call.get(i)).filter(|unit| {
                has_more && options.expiry.is_none() && time.is_none_or(|(there, _)| there == *unit)
            });
            if let Some(unit) = unit {
                i += 1;
                time = Some((unit, i));
            } else if is_set && time.is_none() && call.is(i, "KEEPTTL") {
                options.expiry = Some(Expiry::Keep);
            } else if !is_set && time.is_none() && call.is(i, "PERSIST") {
                options.expiry = Some(Expiry::Never);
            } else if call.is(i, "NX") && fits(&options.condition, &Condition::IfAbsent) {
                options.condition = Some(Condition::IfAbsent);
            } else if call.is(i, "XX") && fits(&options.condition, &Condition::IfPresent) {
                options.condition = Some(Condition::IfPresent);
            } else if is_set
                && has_more
                && options.condition.is_none()
                && let Some(condition) = compare(call, i)?
            {
                i += 1;
                options.condition = Some(condition);
            } else if is_set && call.is(i, "GET") {
                options.get = true;
            } else {
                return Err(SYNTAX);
            }
            i += 1;
        }
        options.time = time;
        Ok(options)
    }

    /// When it is to go away, if anything is said of that.
    fn judge_time(&self, call: &Call<'_>) -> Result<Option<Expiry>, Refused> {
        match self.time {
            Some((unit, i)) => unit.expiry(call, i).map(Some),
            None => Ok(self.expiry),
        }
    }
}

/// What a value or its digest is compared with, as Redis 8.4 has it; `None` if word
/// `i` is another option.
fn compare(call: &Call<'_>, i: usize) -> Result<Option<Condition>, Refused> {
    let digest = || {
        let text = std::str::from_utf8(call.get(i + 1)).ok();
        let text = text.filter(|text| text.len() == 16 && !text.starts_with('+'));
        text.and_then(|text| u64::from_str_radix(text, 16).ok())
            .ok_or(Refused::from("ERR digest must be exactly 16 hexadecimal characters"))
    };
    Ok(Some(if call.is(i, "IFEQ") {
        Condition::IfValue(call.bytes(i + 1))
    } else if call.is(i, "IFNE") {
        Condition::UnlessValue(call.bytes(i + 1))
    } else if call.is(i, "IFDEQ") {
        Condition::IfDigest(digest()?)
    } else if call.is(i, "IFDNE") {
        Condition::UnlessDigest(digest()?)
    } else {
        return Ok(None);
    }))
}

pub(super) fn digest(call: &mut Call<'_>) -> Planned {
    run(Command::Get(call.key(1)), Form::Digest)
}

/// A key that is removed if this holds.
fn delete_if(call: &Call<'_>, condition: Condition) -> Planned {
    let key = call.key(1);
    let tests = vec![Test { key: key.clone(), condition }];
    run(Command::When { tests, then: vec![Command::Delete(key)] }, Form::NestedInteger)
}

pub(super) fn delex(call: &mut Call<'_>) -> Planned {
    match call.count() {
        2 => run(Command::Delete(call.key(1)), Form::Integer),
        4 => match compare(call, 2)? {
            Some(condition) => delete_if(call, condition),
            None => Err("ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE".into()),
        },
        _ => Err(super::table::wrong_arity("delex")),
    }
}

/// The same in Valkey.
pub(super) fn delifeq(call: &mut Call<'_>) -> Planned {
    delete_if(call, Condition::IfValue(call.bytes(2)))
}

/// Several SETs with one condition and one deadline, all or none.
pub(super) fn msetex(call: &mut Call<'_>) -> Planned {
    let wrong = Refused::from("ERR invalid numkeys value");
    let count = call.integer(1).map_err(|_| wrong.clone())?;
    let count = usize::try_from(count).ok().filter(|&count| count > 0).ok_or(wrong)?;
    let options = count.checked_mul(2).and_then(|words| words.checked_add(2));
    let options = options.filter(|&from| from <= call.count());
    let from = options.ok_or_else(|| super::table::wrong_arity("msetex"))?;
    let options = Options::of(call, from, true)?;
    let expiry = options.judge_time(call)?.unwrap_or(Expiry::Never);
    let is_known =
        |condition: &Condition| matches!(condition, Condition::IfAbsent | Condition::IfPresent);
    if options.get || !options.condition.iter().all(is_known) {
        return Err(SYNTAX);
    }
    let keys = (2..from).step_by(2);
    let test = |i| Some(Test { key: call.key(i), condition: options.condition.clone()? });
    let tests = keys.clone().filter_map(test).collect();
    let set = |i| set_to(call.key(i), call.bytes(i + 1), expiry, Condition::Always);
    run(Command::When { tests, then: keys.map(set).collect() }, Form::Held)
}

pub(super) fn set(call: &mut Call<'_>) -> Planned {
    let (key, value) = (call.key(1), call.bytes(2));
    if call.count() == 3 {
        return run(plain_set(key, value), Form::Ok);
    }
    let options = Options::of(call, 3, true)?;
    let expiry = options.judge_time(call)?;
    let Options { condition, get, .. } = options;
    let form = if condition.is_some() { Form::OkOrNull } else { Form::Ok };
    let condition = condition.unwrap_or(Condition::Always);
    let set = set_to(key.clone(), value, expiry.unwrap_or(Expiry::Never), condition);
    if get { Ok(Plan::Run(vec![Command::Get(key), set], Form::Old)) } else { run(set, form) }
}

pub(super) fn setnx(call: &mut Call<'_>) -> Planned {
    let set = set_to(call.key(1), call.bytes(2), Expiry::Never, Condition::IfAbsent);
    run(set, Form::Stored)
}

fn set_for(call: &mut Call<'_>, ms: u64) -> Planned {
    let expiry = Unit { ms, absolute: false }.expiry(call, 2)?;
    run(set_to(call.key(1), call.bytes(3), expiry, Condition::Always), Form::Ok)
}

pub(super) fn setex(call: &mut Call<'_>) -> Planned {
    set_for(call, 1000)
}

pub(super) fn psetex(call: &mut Call<'_>) -> Planned {
    set_for(call, 1)
}

pub(super) fn getset(call: &mut Call<'_>) -> Planned {
    let set = plain_set(call.key(1), call.bytes(2));
    Ok(Plan::Run(vec![Command::Get(call.key(1)), set], Form::Old))
}

pub(super) fn getdel(call: &mut Call<'_>) -> Planned {
    let commands = vec![Command::Get(call.key(1)), Command::Delete(call.key(1))];
    Ok(Plan::Run(commands, Form::Old))
}

pub(super) fn getex(call: &mut Call<'_>) -> Planned {
    let options = Options::of(call, 2, false)?;
    let expiry = match options.judge_time(call) {
        Ok(None) => return get(call),
        Ok(Some(expiry)) => expiry,
        // Redis looks for the key first.
        Err(Refused(text)) => {
            return run(Command::Get(call.key(1)), Form::ErrorIfAny(text.into_owned()));
        }
    };
    let expire = Command::Expire { key: call.key(1), expiry };
    Ok(Plan::Run(vec![Command::Get(call.key(1)), expire], Form::OldIfAny))
}

/// Key after value, in pairs.
fn sets(call: &Call<'_>) -> Result<Vec<Command>, Refused> {
    if call.count().is_multiple_of(2) {
        return Err(format!("ERR wrong number of arguments for '{}' command", call.name).into());
    }
    Ok((1..call.count()).step_by(2).map(|i| plain_set(call.key(i), call.bytes(i + 1))).collect())
}

pub(super) fn mset(call: &mut Call<'_>) -> Planned {
    let sets = sets(call)?;
    let form = Form::AllOk(sets.len());
    Ok(Plan::Run(sets, form))
}

pub(super) fn msetnx(call: &mut Call<'_>) -> Planned {
    let then = sets(call)?;
    let absent = |i| Test { key: call.key(i), condition: Condition::IfAbsent };
    let tests = (1..call.count()).step_by(2).map(absent).collect();
    run(Command::When { tests, then }, Form::Held)
}

pub(super) fn append(call: &mut Call<'_>) -> Planned {
    run(Command::Append { key: call.key(1), value: call.bytes(2) }, Form::Integer)
}

pub(super) fn setrange(call: &mut Call<'_>) -> Planned {
    let offset = call.integer(2)?;
    if offset < 0 {
        return Err("ERR offset is out of range".into());
    }
    let value = call.bytes(3);
    if value.is_empty() {
        return strlen(call);
    }
    match u32::try_from(offset) {
        Ok(offset) if offset as usize + value.len() <= call.limits.value_bytes => {
            run(Command::SetRange { key: call.key(1), offset, value }, Form::Integer)
        }
        _ => Err("ERR string exceeds maximum allowed size (proto-max-bulk-len)".into()),
    }
}

fn add(call: &Call<'_>, by: i64) -> Planned {
    run(Command::Increment { key: call.key(1), by }, Form::Integer)
}

pub(super) fn incr(call: &mut Call<'_>) -> Planned {
    add(call, 1)
}

pub(super) fn decr(call: &mut Call<'_>) -> Planned {
    add(call, -1)
}

pub(super) fn incrby(call: &mut Call<'_>) -> Planned {
    add(call, call.integer(2)?)
}

pub(super) fn decrby(call: &mut Call<'_>) -> Planned {
    match call.integer(2)?.checked_neg() {
        Some(by) => add(call, by),
        None => Err("ERR decrement would overflow".into()),
    }
}

pub(super) fn incrbyfloat(call: &mut Call<'_>) -> Planned {
    run(Command::IncrementFloat { key: call.key(1), by: call.bytes(2) }, Form::Bulk)
}

pub(super) fn lcs(call: &mut Call<'_>) -> Planned {
    let (mut lcs, mut i) = (Lcs::default(), 3);
    while i < call.count() {
        if call.is(i, "LEN") {
            lcs.length_only = true;
        } else if call.is(i, "IDX") {
            lcs.positions = true;
        } else if call.is(i, "WITHMATCHLEN") {
            lcs.with_lengths = true;
        } else if call.is(i, "MINMATCHLEN") && i + 1 < call.count() {
            i += 1;
            lcs.least = parse_i64(call.get(i)).ok_or(NOT_AN_INTEGER)?.max(0);
        } else {
            return Err(SYNTAX);
        }
        i += 1;
    }
    if lcs.length_only && lcs.positions {
        return Err("ERR If you want both the length and indexes, please just use IDX.".into());
    }
    let commands = vec![Command::Get(call.key(1)), Command::Get(call.key(2))];
    Ok(Plan::Run(commands, Form::Lcs(lcs)))
}
