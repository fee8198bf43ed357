//! The bytes of our own words: one encoding for the log, for the replies that
//! sessions keep, and between nodes.
//!
//! Numbers are little-endian, byte strings and lists have a u32 in front, and
//! what is decoded shares the memory of its input. Wire formats for clients are
//! not here: they are other people's, or bound by promises of their own.
//!
//! ```text
//! request   | kind u8 | …
//!             0 ping              5 leave     name
//!             1 run     options u8 (1 stale, 2 session u64 and sequence u64), batch
//!             2 open session      6 members
//!             3 status            7 transfer  to the most caught-up voter
//!             4 join    name, peer address   8 transfer  name
//!             9 await durable  others u32, own u8, within us u64     10 usage  key
//! batch     | guards u32 | guard …   | commands u32 | command …
//! guard     | key | version u64 |
//! key       | db u8 | length u32 | name … |
//! command   | kind u8 | …
//!             0 get     key    4 set        key, length u32, value …, expiry, condition
//!             1 exists  key    5 delete     key
//!             2 ttl     key    6 expire     key, expiry
//!             3 count   db u8  7 increment  key, by i64
//!                              8 clear      db u8   9 clear all
//!            10 deadline    key               15 expire only   key, expiry, only u8 (0 if none,
//!            11 scan        db u8, cursor u64,                 1 any, 2 later, 3 earlier,
//!                           count u32,                         4 any and earlier)
//!                           0 or 1, pattern   16 rename        key, key, replace u8
//!            12 append      key, value        17 copy          key, key, replace u8
//!            13 set range   key, offset u32,  18 when          tests u32, (key, condition) …,
//!                           value                              commands u32, command …
//!            14 increment float  key, by        19 count expiring  db u8
//!                                               20 chain         as when
//! expiry    | 0 never | 1 keep | 2 after, ms u64 | 3 at, ms u64 | 4 later, ms i64 |
//! condition | 0 always | 1 if absent | 2 if present |
//!           | 3 if value, length u32, value … | 4 if version, version u64 |
//!           | 5 unless value, as 3 | 6 if digest, XXH3 u64 | 7 unless digest, as 6 |
//! reply     | kind u8 | …
//!             0 guard failed              4 session opened  session u64
//!             1 answers  u32, answer …    5, 6 were members and status, which
//!             2 pong                           every node answers itself
//!             3 done                      7 error    kind u8, text
//! answer    | kind u8 | …
//!             0 done                      5 integer     i64
//!             1 stored      version u64   6 ttl: absent
//!             2 not stored  version u64   7 ttl: never
//!             3 item: absent              8 ttl         ms u64
//!             4 item        version u64, length u32, value …
//!             9 failed      reason u8 (0 not an integer, 1 overflow, 2 expiry,
//!                                      3 not a float, 4 too long, 5 no such key,
//!                                      6 too much)
//!            10 names       cursor u64, u32, (length u32, name …) …
//!            11 nested: no              12 nested   u32, answer …
//! ```
//!
//! Nothing here has a version. What is kept carries one in front of it (see
//! [`Proposal`](crate::fsm::Proposal)), connections agree on one at their
//! beginning, and the log keeps every version it ever held: numbers are added,
//! never given another meaning.

mod reply;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::BufMut;

pub use reply::{decode_reply, encode_reply};

use super::{
    Batch, Command, Condition, Consistency, DATABASES, Expiry, Guard, Key, Only, Request,
    SessionStamp, Test,
};
use crate::encoding::{Malformed, Reader, put_bytes};

/// No list is longer. Far above every limit on batches, it keeps a list of tiny
/// things from taking a hundred times the memory of its bytes.
pub const LIST_LIMIT: usize = 1 << 20;

fn put_count(buffer: &mut Vec<u8>, count: usize) {
    assert!(count <= LIST_LIMIT, "the limit on batches is far below");
    buffer.put_u32_le(count as u32);
}

/// Reads a list whose items take at least `least_bytes` each.
fn list<T>(
    reader: &mut Reader,
    least_bytes: usize,
    mut item: impl FnMut(&mut Reader) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = within_limit(reader.count(least_bytes)?)?;
    (0..count).map(|_| item(reader)).collect()
}

/// Reads a list whose items may hold lists: with all their parts it is no longer
/// than one without.
fn list_of_lists<T>(
    reader: &mut Reader,
    item: impl Fn(&mut Reader) -> Result<T, Malformed>,
    parts: impl Fn(&T) -> usize,
) -> Result<Vec<T>, Malformed> {
    let mut sum = 0;
    list(reader, 1, |reader| {
        let item = item(reader)?;
        sum = within_limit(sum + parts(&item))?;
        Ok(item)
    })
}

fn within_limit(count: usize) -> Result<usize, Malformed> {
    if count > LIST_LIMIT { Err(Malformed("a list is too long")) } else { Ok(count) }
}

const STALE: u8 = 1;
const STAMPED: u8 = 2;

/// Appends the encoding drawn above.
pub fn encode_request(buffer: &mut Vec<u8>, request: &Request) {
    match request {
        Request::Ping => buffer.put_u8(0),
        Request::Run { batch, consistency, session } => {
            let stale = if *consistency == Consistency::Stale { STALE } else { 0 };
            let stamped = if session.is_some() { STAMPED } else { 0 };
            buffer.put_slice(&[1, stale | stamped]);
            if let Some(stamp) = session {
                encode_stamp(buffer, *stamp);
            }
            encode_batch(buffer, batch);
        }
        Request::OpenSession => buffer.put_u8(2),
        Request::Status => buffer.put_u8(3),
        Request::Join { name, peer_address } => {
            buffer.put_u8(4);
            put_bytes(buffer, name.as_bytes());
            put_bytes(buffer, peer_address.as_bytes());
        }
        Request::Leave { name } => {
            buffer.put_u8(5);
            put_bytes(buffer, name.as_bytes());
        }
        Request::Members => buffer.put_u8(6),
        Request::Transfer { to: None } => buffer.put_u8(7),
        Request::Transfer { to: Some(name) } => {
            buffer.put_u8(8);
            put_bytes(buffer, name.as_bytes());
        }
        Request::AwaitDurable { others, own, within } => {
            buffer.put_u8(9);
            buffer.put_u32_le(*others);
            buffer.put_u8((*own).into());
            buffer.put_u64_le(u64::try_from(within.as_micros()).unwrap_or(u64::MAX));
        }
        Request::Usage(key) => {
            buffer.put_u8(10);
            encode_key(buffer, key);
        }
    }
}

/// Reads what [`encode_request`] wrote.
pub fn decode_request(reader: &mut Reader) -> Result<Request, Malformed> {
    Ok(match reader.u8()? {
        0 => Request::Ping,
        1 => decode_run(reader)?,
        2 => Request::OpenSession,
        3 => Request::Status,
        4 => Request::Join { name: reader.string()?, peer_address: reader.string()? },
        5 => Request::Leave { name: reader.string()? },
        6 => Request::Members,
        7 => Request::Transfer { to: None },
        8 => Request::Transfer { to: Some(reader.string()?) },
        9 => Request::AwaitDurable {
            others: reader.u32()?,
            own: reader.bool()?,
            within: Duration::from_micros(reader.u64()?),
        },
        10 => Request::Usage(decode_key(reader)?),
        _ => return Err(Malformed("unknown request")),
    })
}

fn decode_run(reader: &mut Reader) -> Result<Request, Malformed> {
    let options = reader.u8()?;
    if options & !(STALE | STAMPED) != 0 {
        return Err(Malformed("unknown option of a run"));
    }
    let consistency =
        if options & STALE != 0 { Consistency::Stale } else { Consistency::Linearizable };
    let session = if options & STAMPED != 0 { Some(decode_stamp(reader)?) } else { None };
    Ok(Request::Run { batch: decode_batch(reader)?, consistency, session })
}

/// Appends session and sequence.
pub fn encode_stamp(buffer: &mut Vec<u8>, stamp: SessionStamp) {
    buffer.put_u64_le(stamp.session);
    buffer.put_u64_le(stamp.sequence);
}

/// Reads what [`encode_stamp`] wrote.
pub fn decode_stamp(reader: &mut Reader) -> Result<SessionStamp, Malformed> {
    Ok(SessionStamp { session: reader.u64()?, sequence: reader.u64()? })
}

/// Appends the encoding drawn above.
pub fn encode_batch(buffer: &mut Vec<u8>, batch: &Batch) {
    put_count(buffer, batch.guards.len());
    for guard in &batch.guards {
        encode_key(buffer, &guard.key);
        buffer.put_u64_le(guard.version);
    }
    put_count(buffer, batch.commands.len());
    for command in &batch.commands {
        encode_command(buffer, command);
    }
}

/// Reads what [`encode_batch`] wrote.
pub fn decode_batch(reader: &mut Reader) -> Result<Batch, Malformed> {
    let guards = list(reader, 1 + 4 + 8, |reader| {
        Ok(Guard { key: decode_key(reader)?, version: reader.u64()? })
    })?;
    let commands = list_of_lists(reader, |reader| decode_command(reader, true), Command::parts)?;
    Ok(Batch { guards, commands })
}

fn encode_key(buffer: &mut Vec<u8>, key: &Key) {
    buffer.put_u8(key.db);
    put_bytes(buffer, &key.name);
}

fn decode_key(reader: &mut Reader) -> Result<Key, Malformed> {
    Ok(Key { db: decode_db(reader)?, name: reader.bytes()? })
}

fn decode_db(reader: &mut Reader) -> Result<u8, Malformed> {
    match reader.u8()? {
        db if db < DATABASES => Ok(db),
        _ => Err(Malformed("there is no such database")),
    }
}

fn encode_command(buffer: &mut Vec<u8>, command: &Command) {
    let mut keyed = |kind, key| {
        buffer.put_u8(kind);
        encode_key(buffer, key);
    };
    match command {
        Command::Get(key) => keyed(0, key),
        Command::Exists(key) => keyed(1, key),
        Command::Ttl(key) => keyed(2, key),
        Command::Count { db } => buffer.put_slice(&[3, *db]),
        Command::Set { key, value, expiry, condition } => {
            keyed(4, key);
            put_bytes(buffer, value);
            encode_expiry(buffer, *expiry);
            encode_condition(buffer, condition);
        }
        Command::Delete(key) => keyed(5, key),
        Command::Expire { key, expiry } => {
            keyed(6, key);
            encode_expiry(buffer, *expiry);
        }
        Command::Increment { key, by } => {
            keyed(7, key);
            buffer.put_i64_le(*by);
        }
        Command::Clear { db: Some(db) } => buffer.put_slice(&[8, *db]),
        Command::Clear { db: None } => buffer.put_u8(9),
        Command::Deadline(key) => keyed(10, key),
        Command::Scan { db, cursor, count, pattern } => {
            buffer.put_slice(&[11, *db]);
            buffer.put_u64_le(*cursor);
            buffer.put_u32_le(*count);
            buffer.put_u8(u8::from(pattern.is_some()));
            pattern.iter().for_each(|pattern| put_bytes(buffer, pattern));
        }
        Command::Append { key, value } => {
            keyed(12, key);
            put_bytes(buffer, value);
        }
        Command::SetRange { key, offset, value } => {
            keyed(13, key);
            buffer.put_u32_le(*offset);
            put_bytes(buffer, value);
        }
        Command::IncrementFloat { key, by } => {
            keyed(14, key);
            put_bytes(buffer, by);
        }
        Command::ExpireOnly { key, expiry, only } => {
            keyed(15, key);
            encode_expiry(buffer, *expiry);
            buffer.put_u8(only_number(*only));
        }
        Command::Rename { from, to, replace } => {
            keyed(16, from);
            encode_key(buffer, to);
            buffer.put_u8(u8::from(*replace));
        }
        Command::Copy { from, to, replace } => {
            keyed(17, from);
            encode_key(buffer, to);
            buffer.put_u8(u8::from(*replace));
        }
        Command::CountExpiring { db } => buffer.put_slice(&[19, *db]),
        Command::When { tests, then } => {
            buffer.put_u8(18);
            encode_nested(buffer, tests, then);
        }
        Command::Chain { tests, then } => {
            buffer.put_u8(20);
            encode_nested(buffer, tests, then);
        }
    }
}

fn encode_nested(buffer: &mut Vec<u8>, tests: &[Test], then: &[Command]) {
    put_count(buffer, tests.len());
    for test in tests {
        encode_key(buffer, &test.key);
        encode_condition(buffer, &test.condition);
    }
    put_count(buffer, then.len());
    then.iter().for_each(|command| encode_command(buffer, command));
}

fn decode_tests(reader: &mut Reader) -> Result<Vec<Test>, Malformed> {
    list(reader, 1 + 4 + 1, |reader| {
        Ok(Test { key: decode_key(reader)?, condition: decode_condition(reader)? })
    })
}

fn decode_then(reader: &mut Reader) -> Result<Vec<Command>, Malformed> {
    list(reader, 1, |reader| decode_command(reader, false))
}

/// A command within a `When` or a `Chain` is none itself: input does not say how deep we go.
fn decode_command(reader: &mut Reader, may_nest: bool) -> Result<Command, Malformed> {
    Ok(match reader.u8()? {
        0 => Command::Get(decode_key(reader)?),
        1 => Command::Exists(decode_key(reader)?),
        2 => Command::Ttl(decode_key(reader)?),
        3 => Command::Count { db: decode_db(reader)? },
        4 => Command::Set {
            key: decode_key(reader)?,
            value: reader.bytes()?,
            expiry: decode_expiry(reader)?,
            condition: decode_condition(reader)?,
        },
        5 => Command::Delete(decode_key(reader)?),
        6 => Command::Expire { key: decode_key(reader)?, expiry: decode_expiry(reader)? },
        7 => Command::Increment { key: decode_key(reader)?, by: reader.i64()? },
        8 => Command::Clear { db: Some(decode_db(reader)?) },
        9 => Command::Clear { db: None },
        10 => Command::Deadline(decode_key(reader)?),
        11 => Command::Scan {
            db: decode_db(reader)?,
            cursor: reader.u64()?,
            count: reader.u32()?,
            pattern: if reader.bool()? { Some(reader.bytes()?) } else { None },
        },
        12 => Command::Append { key: decode_key(reader)?, value: reader.bytes()? },
        13 => Command::SetRange {
            key: decode_key(reader)?,
            offset: reader.u32()?,
            value: reader.bytes()?,
        },
        14 => Command::IncrementFloat { key: decode_key(reader)?, by: reader.bytes()? },
        15 => Command::ExpireOnly {
            key: decode_key(reader)?,
            expiry: decode_expiry(reader)?,
            only: decode_only(reader)?,
        },
        16 => Command::Rename {
            from: decode_key(reader)?,
            to: decode_key(reader)?,
            replace: reader.bool()?,
        },
        17 => Command::Copy {
            from: decode_key(reader)?,
            to: decode_key(reader)?,
            replace: reader.bool()?,
        },
        19 => Command::CountExpiring { db: decode_db(reader)? },
        18 if may_nest => {
            Command::When { tests: decode_tests(reader)?, then: decode_then(reader)? }
        }
        20 if may_nest => {
            Command::Chain { tests: decode_tests(reader)?, then: decode_then(reader)? }
        }
        _ => return Err(Malformed("unknown command")),
    })
}

fn only_number(only: Only) -> u8 {
    match only {
        Only::IfNone => 0,
        Only::IfAny => 1,
        Only::IfLater => 2,
        Only::IfEarlier => 3,
        Only::IfAnyAndEarlier => 4,
    }
}

fn decode_only(reader: &mut Reader) -> Result<Only, Malformed> {
    Ok(match reader.u8()? {
        0 => Only::IfNone,
        1 => Only::IfAny,
        2 => Only::IfLater,
        3 => Only::IfEarlier,
        4 => Only::IfAnyAndEarlier,
        _ => return Err(Malformed("unknown condition on a deadline")),
    })
}

fn encode_expiry(buffer: &mut Vec<u8>, expiry: Expiry) {
    let (kind, ms) = match expiry {
        Expiry::Never => (0, None),
        Expiry::Keep => (1, None),
        Expiry::AfterMs(ms) => (2, Some(ms)),
        Expiry::AtMs(ms) => (3, Some(ms)),
        Expiry::LaterMs(ms) => (4, Some(ms.cast_unsigned())),
    };
    buffer.put_u8(kind);
    if let Some(ms) = ms {
        buffer.put_u64_le(ms);
    }
}

fn decode_expiry(reader: &mut Reader) -> Result<Expiry, Malformed> {
    Ok(match reader.u8()? {
        0 => Expiry::Never,
        1 => Expiry::Keep,
        2 => Expiry::AfterMs(reader.u64()?),
        3 => Expiry::AtMs(reader.u64()?),
        4 => Expiry::LaterMs(reader.i64()?),
        _ => return Err(Malformed("unknown kind of expiry")),
    })
}

fn encode_condition(buffer: &mut Vec<u8>, condition: &Condition) {
    match condition {
        Condition::Always => buffer.put_u8(0),
        Condition::IfAbsent => buffer.put_u8(1),
        Condition::IfPresent => buffer.put_u8(2),
        Condition::IfValue(value) => {
            buffer.put_u8(3);
            put_bytes(buffer, value);
        }
        Condition::IfVersion(version) => {
            buffer.put_u8(4);
            buffer.put_u64_le(*version);
        }
        Condition::UnlessValue(value) => {
            buffer.put_u8(5);
            put_bytes(buffer, value);
        }
        Condition::IfDigest(digest) => {
            buffer.put_u8(6);
            buffer.put_u64_le(*digest);
        }
        Condition::UnlessDigest(digest) => {
            buffer.put_u8(7);
            buffer.put_u64_le(*digest);
        }
    }
}

fn decode_condition(reader: &mut Reader) -> Result<Condition, Malformed> {
    Ok(match reader.u8()? {
        0 => Condition::Always,
        1 => Condition::IfAbsent,
        2 => Condition::IfPresent,
        3 => Condition::IfValue(reader.bytes()?),
        4 => Condition::IfVersion(reader.u64()?),
        5 => Condition::UnlessValue(reader.bytes()?),
        6 => Condition::IfDigest(reader.u64()?),
        7 => Condition::UnlessDigest(reader.u64()?),
        _ => return Err(Malformed("unknown kind of condition")),
    })
}
