//! Commands on keys, whatever they hold.

use bytes::Bytes;

use super::call::{Call, Later, Plan, Planned, Refused, SAME_OBJECT, SYNTAX, run};
use super::form::Form;
use super::table::read;
use crate::request::{Command, Consistency, EvictionOrder, Expiry, Key, Only, Request};

/// About how many keys one step of KEYS looks at.
const KEYS_STEP: u32 = 4096;

/// How many it looks at in a transaction, where there is one step only.
const KEYS_AT_ONCE: u32 = 100_000;

/// About how many keys RANDOMKEY chooses from.
const CHOICE: u32 = 64;

/// The most that one step of SCAN looks at.
const SCAN_COUNT: i64 = 100_000;

/// One command for each key, their answers added up.
fn sum(call: &Call<'_>, command: impl Fn(Key) -> Command) -> Planned {
    let commands = (1..call.count()).map(|i| command(call.key(i))).collect();
    Ok(Plan::Run(commands, Form::Sum(call.count() - 1)))
}

pub(super) fn del(call: &mut Call<'_>) -> Planned {
    sum(call, Command::Delete)
}

pub(super) fn exists(call: &mut Call<'_>) -> Planned {
    sum(call, Command::Exists)
}

pub(super) fn type_of(call: &mut Call<'_>) -> Planned {
    run(Command::Get(call.key(1)), Form::Type)
}

pub(super) fn ttl(call: &mut Call<'_>) -> Planned {
    run(Command::Ttl(call.key(1)), Form::Time { unit_ms: 1000 })
}

pub(super) fn pttl(call: &mut Call<'_>) -> Planned {
    run(Command::Ttl(call.key(1)), Form::Time { unit_ms: 1 })
}

pub(super) fn expiretime(call: &mut Call<'_>) -> Planned {
    run(Command::Deadline(call.key(1)), Form::Time { unit_ms: 1000 })
}

pub(super) fn pexpiretime(call: &mut Call<'_>) -> Planned {
    run(Command::Deadline(call.key(1)), Form::Time { unit_ms: 1 })
}

pub(super) fn persist(call: &mut Call<'_>) -> Planned {
    run(Command::Expire { key: call.key(1), expiry: Expiry::Never }, Form::Integer)
}

/// What EXPIRE may be limited to.
fn only(call: &Call<'_>) -> Result<Option<Only>, Refused> {
    let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
    for i in 3..call.count() {
        let option = [("NX", &mut nx), ("XX", &mut xx), ("GT", &mut gt), ("LT", &mut lt)]
            .into_iter()
            .find(|(word, _)| call.is(i, word));
        match option {
            Some((_, option)) => *option = true,
            None => {
                let option = String::from_utf8_lossy(call.get(i));
                return Err(format!("ERR Unsupported option {option}").into());
            }
        }
    }
    if nx && (xx || gt || lt) {
        return Err("ERR NX and XX, GT or LT options at the same time are not compatible".into());
    }
    if gt && lt {
        return Err("ERR GT and LT options at the same time are not compatible".into());
    }
    Ok(match (nx, xx, gt, lt) {
        (true, ..) => Some(Only::IfNone),
        // A key without a deadline has none that could be later.
        (_, _, true, _) => Some(Only::IfLater),
        (_, true, _, true) => Some(Only::IfAnyAndEarlier),
        (_, _, _, true) => Some(Only::IfEarlier),
        (_, true, ..) => Some(Only::IfAny),
        _ => None,
    })
}

fn expire_in(call: &Call<'_>, unit_ms: i64, absolute: bool) -> Planned {
    let only = only(call)?;
    let number = call.integer(2)?;
    let ms = number.checked_mul(unit_ms).ok_or_else(|| call.invalid_expiry())?;
    let expiry = match u64::try_from(ms) {
        Ok(ms) if absolute => Expiry::AtMs(ms),
        Ok(ms) => Expiry::AfterMs(ms),
        // Before now, however long.
        Err(_) => Expiry::AtMs(0),
    };
    let key = call.key(1);
    let command = match only {
        Some(only) => Command::ExpireOnly { key, expiry, only },
        None => Command::Expire { key, expiry },
    };
    run(command, Form::Integer)
}

pub(super) fn expire(call: &mut Call<'_>) -> Planned {
    expire_in(call, 1000, false)
}

pub(super) fn pexpire(call: &mut Call<'_>) -> Planned {
    expire_in(call, 1, false)
}

pub(super) fn expireat(call: &mut Call<'_>) -> Planned {
    expire_in(call, 1000, true)
}

pub(super) fn pexpireat(call: &mut Call<'_>) -> Planned {
    expire_in(call, 1, true)
}

pub(super) fn rename(call: &mut Call<'_>) -> Planned {
    let (from, to) = (call.key(1), call.key(2));
    run(Command::Rename { from, to, replace: true }, Form::Renamed)
}

pub(super) fn renamenx(call: &mut Call<'_>) -> Planned {
    let (from, to) = (call.key(1), call.key(2));
    run(Command::Rename { from, to, replace: false }, Form::Integer)
}

pub(super) fn copy(call: &mut Call<'_>) -> Planned {
    let (from, mut to) = (call.key(1), call.key(2));
    let (mut replace, mut i) = (false, 3);
    while i < call.count() {
        if call.is(i, "REPLACE") {
            replace = true;
        } else if call.is(i, "DB") && i + 1 < call.count() {
            i += 1;
            to.db = call.db(i)?;
        } else {
            return Err(SYNTAX);
        }
        i += 1;
    }
    if from == to {
        return Err(SAME_OBJECT);
    }
    run(Command::Copy { from, to, replace }, Form::Copied)
}

pub(super) fn move_to(call: &mut Call<'_>) -> Planned {
    let from = call.key(1);
    let to = Key { db: call.db(2)?, name: from.name.clone() };
    if from == to {
        return Err(SAME_OBJECT);
    }
    run(Command::Rename { from, to, replace: false }, Form::Copied)
}

pub(super) fn dbsize(call: &mut Call<'_>) -> Planned {
    run(Command::Count { db: call.session.chosen.db }, Form::Integer)
}

/// Freeing memory takes its time in slices, with either word or none.
fn clear(call: &Call<'_>, db: Option<u8>) -> Planned {
    let is_known =
        call.count() == 1 || (call.count() == 2 && (call.is(1, "ASYNC") || call.is(1, "SYNC")));
    if is_known { run(Command::Clear { db }, Form::Ok) } else { Err(SYNTAX) }
}

pub(super) fn flushdb(call: &mut Call<'_>) -> Planned {
    clear(call, Some(call.session.chosen.db))
}

pub(super) fn flushall(call: &mut Call<'_>) -> Planned {
    clear(call, None)
}

/// A cursor as C reads it: nothing is 0, and a sign is allowed.
fn cursor(text: &[u8]) -> Option<u64> {
    let number = |digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok();
    match text {
        [] => Some(0),
        [b'-', digits @ ..] if !digits.starts_with(b"+") => number(digits).map(u64::wrapping_neg),
        digits => number(digits),
    }
}

pub(super) fn scan(call: &mut Call<'_>) -> Planned {
    let cursor = cursor(call.get(1)).ok_or(Refused::from("ERR invalid cursor"))?;
    let (mut count, mut pattern, mut wanted) = (10, None, true);
    for i in (2..call.count()).step_by(2) {
        if i + 1 == call.count() {
            return Err(SYNTAX);
        }
        if call.is(i, "COUNT") {
            count = call.integer(i + 1)?;
            if count < 1 {
                return Err(SYNTAX);
            }
        } else if call.is(i, "MATCH") {
            pattern = Some(call.bytes(i + 1));
        } else if call.is(i, "TYPE") {
            wanted = call.is(i + 1, "string");
        } else {
            return Err(SYNTAX);
        }
    }
    let count = count.min(SCAN_COUNT) as u32;
    let db = call.session.chosen.db;
    run(Command::Scan { db, cursor, count, pattern }, Form::Scan { wanted })
}

pub(super) fn keys(call: &mut Call<'_>) -> Planned {
    let (db, pattern) = (call.session.chosen.db, call.bytes(1));
    if call.session.is_in_transaction() {
        let pattern = Some(pattern);
        let scan = Command::Scan { db, cursor: 0, count: KEYS_AT_ONCE, pattern };
        return run(scan, Form::Keys);
    }
    let step = keys_step(db, 0, pattern.clone(), call.session.chosen.consistency);
    Ok(Plan::Ask(step, Later::Keys { found: Vec::new(), bytes: 0, pattern, db }))
}

/// One step of KEYS. The first is as fresh as any read; the others need not be
/// fresher.
pub(super) fn keys_step(db: u8, cursor: u64, pattern: Bytes, consistency: Consistency) -> Request {
    let scan = Command::Scan { db, cursor, count: KEYS_STEP, pattern: Some(pattern) };
    read(vec![scan], consistency)
}

pub(super) fn randomkey(call: &mut Call<'_>) -> Planned {
    let (db, random) = (call.session.chosen.db, call.session.random());
    if call.session.is_in_transaction() {
        let scan = Command::Scan { db, cursor: 0, count: CHOICE, pattern: None };
        return run(scan, Form::AnyKey(random));
    }
    // Anywhere among the slots and in them.
    let step = random_step(db, random >> 18, call.session.chosen.consistency);
    Ok(Plan::Ask(step, Later::AnyKey { random, db, wrapped: false }))
}

pub(super) fn random_step(db: u8, cursor: u64, consistency: Consistency) -> Request {
    let scan = Command::Scan { db, cursor, count: CHOICE, pattern: None };
    read(vec![scan], consistency)
}

pub(super) fn object_encoding(call: &mut Call<'_>) -> Planned {
    run(Command::Get(call.key(2)), Form::Encoding)
}

pub(super) fn object_refcount(call: &mut Call<'_>) -> Planned {
    run(Command::Get(call.key(2)), Form::Constant(1))
}

/// How often a key is used, as Redis counts where that decides what makes way.
pub(super) fn object_freq(call: &mut Call<'_>) -> Planned {
    if call.session.surroundings.facts().memory.eviction.order() != Some(EvictionOrder::Lfu) {
        return Err("ERR An LFU maxmemory policy is not selected, access frequency not tracked. \
                    Please note that when switching between policies at runtime LRU and LFU data \
                    will take some time to adjust."
            .into());
    }
    usage(call, true)
}

/// How long a key has not been used, which is known where that decides what makes way.
pub(super) fn object_idletime(call: &mut Call<'_>) -> Planned {
    match call.session.surroundings.facts().memory.eviction.order() {
        Some(EvictionOrder::Lru) => usage(call, false),
        Some(EvictionOrder::Lfu) => {
            Err("ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that \
                 when switching between policies at runtime LRU and LFU data will take some time \
                 to adjust."
                .into())
        }
        _ => Err("ERR An LRU maxmemory policy is not selected, idle time not tracked".into()),
    }
}

fn usage(call: &Call<'_>, frequency: bool) -> Planned {
    let key = call.key(2);
    // What came before has happened by then, and the key is not used by this.
    let first = read(vec![Command::Count { db: key.db }], call.session.chosen.consistency);
    Ok(Plan::Ask(first, Later::Usage { key, frequency }))
}

pub(super) fn memory_usage(call: &mut Call<'_>) -> Planned {
    let is_known =
        call.count() == 3 || (call.count() == 5 && call.is(3, "SAMPLES") && call.integer(4)? >= 0);
    if !is_known {
        return Err(SYNTAX);
    }
    let name_bytes = call.get(2).len();
    run(Command::Get(call.key(2)), Form::Memory(name_bytes))
}
