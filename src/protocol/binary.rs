//! The framed binary protocol, the native one.
//!
//! A connection carries requests one after the other, as many as the client
//! likes before the first reply; replies come in the order of the requests.
//! There is no magic and no request id: a reply does not say what it replies to,
//! so a client remembers what it asked. Everything is little-endian; a *length*
//! is an i32, so what reads as negative is over every limit. The requests below
//! may be mixed on one connection, in any order.
//!
//! # The classic three
//!
//! ```text
//! SET   | 01 | length | key … | length | value … | i32 ttl in seconds |
//! GET   | 02 | length | key … |
//! JOIN  | 03 | length | name … | length | peer address … |       (04 is the same)
//!
//! reply to SET and JOIN   | status u8 |
//! reply to GET            | status u8 | length | value … |
//! ```
//!
//! A ttl of 0 or less means none. Keys are those of database 0. Only the
//! statuses 1, 2 and 3 occur.
//!
//! # The extended requests
//!
//! Each is a frame whose length comes first, and so is each reply:
//!
//! ```text
//! request       | opcode u8 | length | fields … |
//! from 1F on    | 1F | opcode u8 | length | fields … |
//! reply         | status u8 | length | payload … |
//! ```
//!
//! | opcode | request | fields | payload of status 1 |
//! |---|---|---|---|
//! | 10 | PING | – | – |
//! | 11 | GET | consistency, key | u64 version, value |
//! | 12 | SET | key, value, expiry, condition | u64 version |
//! | 13 | DEL | key | i64: keys removed |
//! | 14 | EXISTS | consistency, key | i64: 0 or 1 |
//! | 15 | EXPIRE | key, expiry | i64: 1 if the key was there |
//! | 16 | – | never used: a TLS connection begins so | – |
//! | 17 | PERSIST | key | i64: 1 if the key had a deadline |
//! | 18 | TTL | consistency, key | i64: milliseconds left, -1 for no deadline |
//! | 19 | INCRBY | key, i64 by | i64: the new value |
//! | 1A | MGET | consistency, count, that many keys | list of replies as to GET |
//! | 1B | MSET | count, that many times key, value | list of replies as to SET |
//! | 1C | COUNT | consistency, db u8 | i64: keys in the database |
//! | 1D | CLEAR | db u8, FF for all | – |
//! | 1E | BATCH | consistency, count, guards, count, commands | list of replies |
//! | 1F 01 | SESSION | – | u64 session |
//! | 1F 02 | STAMPED | u64 session, u64 sequence, opcode u8 of a write, its fields | as that write's |
//! | 1F 03 | JOIN | string name, string peer address | – |
//! | 1F 04 | LEAVE | string name or address | – |
//! | 1F 05 | MEMBERS | – | see [`info`] |
//! | 1F 06 | TRANSFER | string name, empty for any | – |
//! | 1F 07 | STATUS | – | see [`info`] |
//!
//! ```text
//! string, value | length | bytes … |
//! key           | db u8 | length | bytes … |
//! count         | i32 |
//! consistency   | u8 |    0 linearizable, 1 stale
//! expiry        | u8 |    0 never, 1 keep;   | 2 | u64 milliseconds from now |
//!                                            | 3 | u64 milliseconds since 1970 |
//! condition     | u8 |    0 always, 1 if absent, 2 if present;
//!                         | 3 | value |  if it holds this value
//!                         | 4 | u64 |    if its version is this one, 0 for absent
//! guard         | key | u64 version, 0 for absent |
//! command       | opcode u8 of 11–15, 17–19, 1C, 1D | its fields without consistency |
//! list          | count | that many replies: | status u8 | length | payload … |
//! ```
//!
//! Names, addresses and sentences are UTF-8; keys and values are any bytes. A
//! *version* is the position in the log of a key's last write.
//!
//! SET clears an earlier deadline unless its expiry is *keep*. EXPIRE with a
//! deadline that is not in the future removes the key, with *never* it is
//! PERSIST, with *keep* it changes nothing. INCRBY takes an absent key for 0 and
//! leaves its deadline; the value is the number in decimal.
//!
//! BATCH, MGET and MSET take effect at one position of the log, or not at all;
//! each command of a batch sees those before it. Of a batch that writes the
//! consistency is ignored. In a list stand the statuses 1, 3, 9, 14, 15 and 16:
//! such a command had no effect, and the others of the batch had theirs. If the
//! request as a whole fails, there is one status and one sentence, and no list;
//! a single command is answered with its own status.
//!
//! A stamped write is executed once, however often and through whichever node it
//! is sent; a repetition gets the first reply, or status 5 if that is no longer
//! kept (a session's replies may take 256 KiB). SESSION opens a session, which
//! ends when it is idle for an hour or too many others are in use. Its writes are
//! numbered from 1 and may arrive in any order, but one that is 1,024 behind the
//! highest is answered with 5 as well. STAMPED takes SET, DEL, EXPIRE, PERSIST, INCRBY, MSET of at
//! least one pair, CLEAR, and BATCH with a write among its commands; all its
//! fields stand in it, BATCH's consistency too.
//!
//! JOIN with an address without a host means the host that the request comes
//! from. The log, the versions and what INCRBY holds are of 64 bits: languages
//! whose numbers are doubles need another type for them.
//!
//! # Status
//!
//! | status | meaning | took effect |
//! |---|---|---|
//! | 0 | never sent | |
//! | 1 | done | yes |
//! | 2 | invalid request; for the classic three: any failure | no; classic: unknown |
//! | 3 | key not found (GET, TTL) | |
//! | 4 | no leader in time | no |
//! | 5 | outcome unknown | perhaps |
//! | 6 | out of memory | no |
//! | 7 | disk full or too slow | no |
//! | 8 | busy | no |
//! | 9 | SET's condition does not hold; payload: u64 version, 0 for absent | no |
//! | 10 | the session is unknown or expired | not now |
//! | 11 | refused by a rule of the cluster | no |
//! | 12 | this node cannot vouch for its state and does not serve | no |
//! | 13 | a guard of the batch does not hold | no |
//! | 14 | INCRBY: the value is not an integer | no |
//! | 15 | INCRBY: overflow | no |
//! | 16 | the deadline is beyond what a clock can say | no |
//!
//! The payload of 3 is empty; but for 1, 3 and 9 it is a sentence for people.
//! Later versions may add statuses: one that a client does not know says nothing
//! about the outcome, and counts as 5.
//!
//! # What a client has to do
//!
//! * Read while it writes. A node stops reading from a connection with 1,024
//!   unanswered requests or 1 MiB of replies that are not taken, so who writes
//!   a long pipeline to its end first may wait for ever.
//! * Wait a little longer than the node does, which answers everything within its
//!   request timeout (3 s by default) if only to say 4 or 5.
//! * Send a request again, to the next address, only if nothing was sent, if it
//!   does not write, or if it is stamped. If it was answered with 4 or 12, it
//!   surely had no effect there, and with 5 or no reply, it may have had one: from
//!   then on only a result settles the matter, and a later 4, 10 or 12 says no
//!   more than 5. JOIN, LEAVE and TRANSFER count as writes that cannot be
//!   stamped; SESSION may be repeated, as a session too many ends by itself.
//! * With 10, if no attempt before may have had an effect: take another session.
//! * Not count on the order of what it sends again. A write that is repeated takes
//!   effect after those of its pipeline that were not. Who needs both, repetition
//!   and order, sends nothing behind a stamped write before that is settled.
//!
//! `binary_golden.txt` beside this file holds every form of request and reply, and
//! `tools/clients` clients in other languages that are tested against it.
//!
//! # Bad input
//!
//! An opcode, length, count or field that breaks the tables above ends the
//! connection: nothing behind it can be trusted. A database above 15 is answered
//! with status 2. A request that is cut off is never executed.
//!
//! The limits: a key 64 KiB, a value 16 MiB, a name or address 1 KiB, a count
//! 10,000, a request 32 MiB. A reply never exceeds 64 MiB; what would is answered
//! with status 5 instead, because a batch that writes has taken effect. Guards and
//! commands of one BATCH together are at most 10,000, and its keys and values
//! 32 MiB; more is answered with status 2.

mod decode;
mod encode;
pub mod info;
mod reply;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

pub use encode::{encode_classic, encode_request};
pub use reply::{Awaited, Form, decode_reply};

use super::{Codec, Incoming, Limits, ProtocolError};
use crate::encoding::Malformed;
use crate::request::{Command, Condition, Expiry, Key, Reply, Request};

/// The opcodes, by the names of the table above.
mod op {
    pub const CLASSIC_SET: u8 = 0x01;
    pub const CLASSIC_GET: u8 = 0x02;
    pub const CLASSIC_JOIN: u8 = 0x03;
    pub const CLASSIC_JOIN_TOO: u8 = 0x04;
    pub const PING: u8 = 0x10;
    pub const GET: u8 = 0x11;
    pub const SET: u8 = 0x12;
    pub const DEL: u8 = 0x13;
    pub const EXISTS: u8 = 0x14;
    pub const EXPIRE: u8 = 0x15;
    pub const PERSIST: u8 = 0x17;
    pub const TTL: u8 = 0x18;
    pub const INCRBY: u8 = 0x19;
    pub const MGET: u8 = 0x1a;
    pub const MSET: u8 = 0x1b;
    pub const COUNT: u8 = 0x1c;
    pub const CLEAR: u8 = 0x1d;
    pub const BATCH: u8 = 0x1e;
    pub const EXTENDED: u8 = 0x1f;
    /// Behind `EXTENDED`.
    pub const SESSION: u8 = 0x01;
    pub const STAMPED: u8 = 0x02;
    pub const JOIN: u8 = 0x03;
    pub const LEAVE: u8 = 0x04;
    pub const MEMBERS: u8 = 0x05;
    pub const TRANSFER: u8 = 0x06;
    pub const STATUS: u8 = 0x07;
}

/// The status bytes, by the table above.
mod status {
    pub const OK: u8 = 1;
    pub const ERROR: u8 = 2;
    pub const NOT_FOUND: u8 = 3;
    pub const NO_LEADER: u8 = 4;
    pub const UNKNOWN: u8 = 5;
    pub const OUT_OF_MEMORY: u8 = 6;
    pub const DISK_FULL: u8 = 7;
    pub const BUSY: u8 = 8;
    pub const CONDITION_FAILED: u8 = 9;
    pub const SESSION_EXPIRED: u8 = 10;
    pub const REFUSED: u8 = 11;
    pub const NOT_SERVING: u8 = 12;
    pub const GUARD_FAILED: u8 = 13;
    pub const NOT_AN_INTEGER: u8 = 14;
    pub const OVERFLOW: u8 = 15;
    pub const INVALID_EXPIRY: u8 = 16;
}

/// CLEAR's database for all of them.
const ALL_DATABASES: u8 = 0xff;

/// Whether a request's fields begin with a consistency.
fn has_consistency(opcode: u8) -> bool {
    matches!(opcode, op::GET | op::EXISTS | op::TTL | op::MGET | op::COUNT | op::BATCH)
}

/// How a reply is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One status byte and nothing else.
    ClassicStatus,
    /// A status byte and a value.
    ClassicValue,
    /// The reply of the only command.
    One,
    /// A list of replies.
    List,
}

impl Shape {
    fn write(self, reply: &Reply, limits: &Limits, output: &mut BytesMut) {
        match self {
            Self::ClassicStatus => reply::encode_classic_status(reply, output),
            Self::ClassicValue => reply::encode_classic_value(reply, output),
            Self::One => reply::encode_one(reply, output),
            Self::List => reply::encode_list(reply, limits, output),
        }
    }
}

/// The server's side of a binary connection.
#[derive(Debug, Default)]
pub struct BinaryCodec {
    limits: Limits,
    /// How the replies that are to come are to be written.
    awaited: VecDeque<Shape>,
}

impl BinaryCodec {
    /// A codec that accepts what is within `limits`.
    pub fn new(limits: Limits) -> Self {
        Self { limits, awaited: VecDeque::new() }
    }
}

impl Codec for BinaryCodec {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, ProtocolError> {
        let Some(&opcode) = input.first() else { return Ok(None) };
        let request = match opcode {
            op::CLASSIC_SET => classic_set(input, &self.limits)?,
            op::CLASSIC_GET => classic_get(input, &self.limits)?,
            op::CLASSIC_JOIN | op::CLASSIC_JOIN_TOO => classic_join(input, &self.limits)?,
            op::EXTENDED => decode::decode_extended(input, &self.limits)?,
            _ => decode::decode(opcode, input, &self.limits)?,
        };
        Ok(request.map(|(request, shape)| {
            self.awaited.push_back(shape);
            decode::sensible(request)
        }))
    }

    fn encode(&mut self, reply: &Reply, output: &mut BytesMut) -> Option<Request> {
        let shape = self.awaited.pop_front().expect("no more replies come than were asked for");
        shape.write(reply, &self.limits, output);
        None
    }
}

/// What is decoded from a frame, `None` while the frame is incomplete.
type Decoded = Result<Option<(Request, Shape)>, ProtocolError>;

/// Looks for the fields of a classic request, which has no length of its own,
/// without taking them: it may be incomplete.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    /// Begins behind the opcode.
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 1 }
    }

    /// The next four bytes, if they are there.
    fn int(&mut self) -> Option<i32> {
        let bytes = self.bytes.get(self.at..)?.first_chunk()?;
        self.at += 4;
        Some(i32::from_le_bytes(*bytes))
    }

    /// The length of the next field, if it is there in full. An impossible
    /// length is noticed before its bytes arrive.
    fn field(&mut self, what: &'static str, limit: usize) -> Result<Option<usize>, ProtocolError> {
        let Some(length) = self.int() else { return Ok(None) };
        let length = length as u32 as usize;
        Limits::check(what, length, limit)?;
        self.at += length;
        Ok((self.at <= self.bytes.len()).then_some(length))
    }
}

/// Takes a length and the field behind it, which a [`Scan`] has seen.
fn take_field(input: &mut BytesMut, length: usize) -> Bytes {
    input.advance(4);
    input.split_to(length).freeze()
}

fn classic_set(input: &mut BytesMut, limits: &Limits) -> Decoded {
    let mut scan = Scan::new(input);
    let Some(key) = scan.field("key", limits.key_bytes)? else { return Ok(None) };
    let Some(value) = scan.field("value", limits.value_bytes)? else { return Ok(None) };
    let Some(ttl_s) = scan.int() else { return Ok(None) };
    input.advance(1);
    let command = Command::Set {
        key: Key::new(take_field(input, key)),
        value: take_field(input, value),
        // An earlier deadline goes when there is no new one.
        expiry: u64::try_from(ttl_s)
            .ok()
            .filter(|&ttl_s| ttl_s > 0)
            .map_or(Expiry::Never, |ttl_s| Expiry::AfterMs(ttl_s * 1000)),
        condition: Condition::Always,
    };
    input.advance(4);
    Ok(Some((Request::run(command), Shape::ClassicStatus)))
}

fn classic_get(input: &mut BytesMut, limits: &Limits) -> Decoded {
    let Some(key) = Scan::new(input).field("key", limits.key_bytes)? else { return Ok(None) };
    input.advance(1);
    let key = Key::new(take_field(input, key));
    Ok(Some((Request::run(Command::Get(key)), Shape::ClassicValue)))
}

fn classic_join(input: &mut BytesMut, limits: &Limits) -> Decoded {
    let mut scan = Scan::new(input);
    let Some(name) = scan.field("name", limits.name_bytes)? else { return Ok(None) };
    let Some(address) = scan.field("address", limits.name_bytes)? else { return Ok(None) };
    input.advance(1);
    let name = text(&take_field(input, name))?;
    let peer_address = text(&take_field(input, address))?;
    Ok(Some((Request::Join { name, peer_address }, Shape::ClassicStatus)))
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(Malformed("text is not UTF-8")),
    }
}
