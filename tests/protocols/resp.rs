//! RESP in both versions, on the codec of `redis-protocol`.

use raftcache::request::{Answer, Command, Condition, Expiry, Failure, Item, Key, Only, Ttl};
use redis_protocol::resp2;
use redis_protocol::resp2::types::OwnedFrame as Frame2;
use redis_protocol::resp2::types::Resp2Frame as _;
use redis_protocol::resp3;
use redis_protocol::resp3::types::OwnedFrame as Frame3;

use crate::speaks::Speaks;
use crate::words::{Ask, Said};

/// What a connection speaks that has not said HELLO.
pub struct Resp2;

/// After HELLO 3.
pub struct Resp3;

/// A reply of either version, as far as this suite meets it.
#[derive(Debug, PartialEq)]
enum Frame {
    Line(Vec<u8>),
    Error(String),
    Number(i64),
    Bulk(Vec<u8>),
    Null,
    List(Vec<Frame>),
}

impl From<Frame2> for Frame {
    fn from(frame: Frame2) -> Self {
        match frame {
            Frame2::SimpleString(text) => Self::Line(text),
            Frame2::Error(text) => Self::Error(text),
            Frame2::Integer(number) => Self::Number(number),
            Frame2::BulkString(bytes) => Self::Bulk(bytes),
            Frame2::Array(frames) => Self::List(frames.into_iter().map(Self::from).collect()),
            Frame2::Null => Self::Null,
        }
    }
}

impl From<Frame3> for Frame {
    fn from(frame: Frame3) -> Self {
        match frame {
            Frame3::SimpleString { data, .. } => Self::Line(data),
            Frame3::SimpleError { data, .. } => Self::Error(data),
            Frame3::Number { data, .. } => Self::Number(data),
            Frame3::BlobString { data, .. } => Self::Bulk(data),
            Frame3::Array { data, .. } => Self::List(data.into_iter().map(Self::from).collect()),
            Frame3::Null => Self::Null,
            other => panic!("{other:?}"),
        }
    }
}

type Words = Vec<Vec<u8>>;

fn words<const N: usize>(words: [&[u8]; N]) -> Words {
    words.map(<[u8]>::to_vec).into()
}

/// A command in bytes.
fn encoded(words: Words) -> Vec<u8> {
    let frame = Frame2::Array(words.into_iter().map(Frame2::BulkString).collect());
    let mut bytes = vec![0; frame.encode_len(false)];
    let length = resp2::encode::encode(&mut bytes, &frame, false).expect("room");
    assert_eq!(length, bytes.len());
    bytes
}

fn set(name: &[u8], value: &[u8], expiry: Expiry, condition: &Condition) -> Option<Words> {
    let mut set = words([b"SET", name, value]);
    match expiry {
        Expiry::Never => {}
        Expiry::Keep => set.extend(words([b"KEEPTTL"])),
        Expiry::AfterMs(ms) => set.extend(words([b"PX", ms.to_string().as_bytes()])),
        Expiry::AtMs(ms) => set.extend(words([b"PXAT", ms.to_string().as_bytes()])),
        _ => return None,
    }
    match condition {
        Condition::Always => {}
        Condition::IfAbsent => set.extend(words([b"NX"])),
        Condition::IfPresent => set.extend(words([b"XX"])),
        Condition::IfValue(value) => set.extend(words([b"IFEQ", value])),
        Condition::UnlessValue(value) => set.extend(words([b"IFNE", value])),
        _ => return None,
    }
    Some(set)
}

fn expire(name: &[u8], expiry: Expiry) -> Option<Words> {
    Some(match expiry {
        Expiry::Never => words([b"PERSIST", name]),
        Expiry::AfterMs(ms) => words([b"PEXPIRE", name, ms.to_string().as_bytes()]),
        Expiry::AtMs(ms) => words([b"PEXPIREAT", name, ms.to_string().as_bytes()]),
        _ => return None,
    })
}

/// One command, and its database.
fn command(of: &Command) -> Option<(u8, Words)> {
    let named = |name: &[u8], key: &Key| Some((key.db, words([name, &key.name])));
    let with_db = |key: &Key, words: Words| Some((key.db, words));
    match of {
        Command::Get(key) => named(b"GET", key),
        Command::Exists(key) => named(b"EXISTS", key),
        Command::Ttl(key) => named(b"PTTL", key),
        Command::Delete(key) => named(b"DEL", key),
        Command::Count { db } => Some((*db, words([b"DBSIZE"]))),
        Command::Clear { db } => Some(((*db)?, words([b"FLUSHDB"]))),
        Command::Set { key, value, expiry, condition } => {
            with_db(key, set(&key.name, value, *expiry, condition)?)
        }
        Command::Expire { key, expiry: until } => with_db(key, expire(&key.name, *until)?),
        Command::ExpireOnly { key, expiry: until, only: Only::IfLater } => {
            let words = [expire(&key.name, *until)?, words([b"GT"])].concat();
            with_db(key, words)
        }
        Command::Increment { key, by } => {
            with_db(key, words([b"INCRBY", &key.name, by.to_string().as_bytes()]))
        }
        Command::Append { key, value } => with_db(key, words([b"APPEND", &key.name, value])),
        Command::SetRange { key, offset, value } => {
            with_db(key, words([b"SETRANGE", &key.name, offset.to_string().as_bytes(), value]))
        }
        Command::Copy { from, to, replace: false } => {
            with_db(from, words([b"COPY", &from.name, &to.name]))
        }
        Command::Rename { from, to, replace: false } => {
            with_db(from, words([b"RENAMENX", &from.name, &to.name]))
        }
        _ => None,
    }
}

/// Several in one, where there is a command for that.
fn several(commands: &[Command]) -> Option<Words> {
    let name = |of: &Command| match of {
        Command::Get(Key { db: 0, name }) => Some(name.to_vec()),
        _ => None,
    };
    let pair = |of: &Command| match of {
        Command::Set {
            key: Key { db: 0, name },
            value,
            expiry: Expiry::Never,
            condition: Condition::Always,
        } => Some(words([name, value])),
        _ => None,
    };
    let mget = commands.iter().map(name).collect::<Option<Words>>();
    let mset = commands.iter().map(pair).collect::<Option<Vec<_>>>();
    let mget = mget.map(|names| [words([b"MGET"]), names].concat());
    mget.or_else(|| Some([words([b"MSET"]), mset?.concat()].concat()))
}

/// The commands that a request takes, and which of their replies is the reply.
fn commands(ask: &Ask) -> Option<(Vec<Words>, usize)> {
    let single = |of: &Command| {
        let (db, command) = command(of)?;
        Some(match db {
            0 => (vec![command], 0),
            db => {
                let there = words([b"SELECT", db.to_string().as_bytes()]);
                (vec![there, command, words([b"SELECT", b"0"])], 1)
            }
        })
    };
    match ask {
        Ask::Ping => Some((vec![words([b"PING"])], 0)),
        Ask::Leader => Some((vec![words([b"LEADER"])], 0)),
        Ask::Stale(of) => {
            let (commands, _) = single(of).filter(|(commands, _)| commands.len() == 1)?;
            let [there, back] = [b"READONLY", &b"READWRITE"[..]].map(|word| vec![words([word])]);
            Some(([there, commands, back].concat(), 1))
        }
        Ask::Run(batch) => match &batch[..] {
            [of] => single(of),
            batch => match several(batch) {
                Some(command) => Some((vec![command], 0)),
                None => {
                    let of_db_0 = |of| command(of).filter(|(db, _)| *db == 0);
                    let all: Option<Vec<_>> = batch.iter().map(|of| Some(of_db_0(of)?.1)).collect();
                    let mut all = all?;
                    all.insert(0, words([b"MULTI"]));
                    all.push(words([b"EXEC"]));
                    let last = all.len() - 1;
                    Some((all, last))
                }
            },
        },
    }
}

fn answer(of: &Command, frame: Frame) -> Answer {
    match (of, frame) {
        (Command::Get(_), Frame::Bulk(value)) => {
            Answer::Item(Some(Item { value: value.into(), version: 0 }))
        }
        (Command::Get(_), Frame::Null) => Answer::Item(None),
        (Command::Set { .. }, Frame::Line(text)) if text == b"OK" => Answer::Stored { version: 0 },
        (Command::Set { .. }, Frame::Null) => Answer::NotStored { version: 0 },
        (Command::Clear { .. }, Frame::Line(text)) if text == b"OK" => Answer::Done,
        (Command::Ttl(_), Frame::Number(-2)) => Answer::Ttl(Ttl::Absent),
        (Command::Ttl(_), Frame::Number(-1)) => Answer::Ttl(Ttl::Never),
        (Command::Ttl(_), Frame::Number(ms)) => {
            Answer::Ttl(Ttl::Ms(ms.try_into().expect("time left")))
        }
        (_, Frame::Number(number)) => Answer::Integer(number),
        (of, Frame::Error(text)) => Answer::Failed(match &text[..] {
            "ERR value is not an integer or out of range" => Failure::NotAnInteger,
            "ERR increment or decrement would overflow" => Failure::Overflow,
            "ERR invalid expire time in 'pexpire' command" => Failure::InvalidExpiry,
            text => panic!("{text} to {of:?}"),
        }),
        (of, frame) => panic!("{frame:?} to {of:?}"),
    }
}

fn said(ask: &Ask, frame: Frame) -> Said {
    match (ask, frame) {
        (Ask::Ping, Frame::Line(text)) if text == b"PONG" => Said::Pong,
        (Ask::Leader, Frame::Bulk(text) | Frame::Line(text)) => {
            Said::Leader(String::from_utf8(text).expect("an address"))
        }
        (Ask::Stale(of), frame) => Said::Answers(vec![answer(of, frame)]),
        (Ask::Run(batch), frame) => Said::Answers(match (&batch[..], frame) {
            ([of], frame) => vec![answer(of, frame)],
            (batch, Frame::List(frames)) => {
                assert_eq!(frames.len(), batch.len(), "as many replies as commands");
                batch.iter().zip(frames).map(|(of, frame)| answer(of, frame)).collect()
            }
            // To MSET.
            (batch, Frame::Line(text)) if text == b"OK" => {
                batch.iter().map(|_| Answer::Stored { version: 0 }).collect()
            }
            (batch, frame) => panic!("{frame:?} to {batch:?}"),
        }),
        (ask, frame) => panic!("{frame:?} to {ask:?}"),
    }
}

/// Takes as many replies as the request has commands.
fn reply(
    ask: &Ask,
    input: &[u8],
    decode: impl Fn(&[u8]) -> Option<(Frame, usize)>,
) -> Option<(Said, usize)> {
    let (commands, which) = commands(ask).expect("it was asked");
    let (mut frames, mut at) = (Vec::new(), 0);
    for _ in commands {
        let (frame, length) = decode(&input[at..])?;
        frames.push(frame);
        at += length;
    }
    let ours = frames.swap_remove(which);
    let others = |frame: &Frame| match frame {
        Frame::Line(text) => text == b"OK" || text == b"QUEUED",
        _ => false,
    };
    assert!(frames.iter().all(others), "{frames:?}");
    Some((said(ask, ours), at))
}

/// What there is no word for in RESP.
const UNSPOKEN: &str = "if-version: holds, does not\n";

impl Speaks for Resp2 {
    fn name(&self) -> &'static str {
        "resp2"
    }

    fn request(&self, ask: &Ask) -> Option<Vec<u8>> {
        Some(commands(ask)?.0.into_iter().flat_map(encoded).collect())
    }

    fn reply(&self, ask: &Ask, input: &[u8]) -> Option<(Said, usize)> {
        reply(ask, input, |input| {
            let decoded = resp2::decode::decode(input).expect("RESP");
            decoded.map(|(frame, length)| (frame.into(), length))
        })
    }

    fn unspoken(&self) -> &'static str {
        UNSPOKEN
    }

    fn to_a_long_key(&self) -> &'static str {
        "-ERR 65537 bytes of key exceed the limit of 65536\r\n$-1\r\n"
    }

    fn to_a_long_value(&self) -> &'static str {
        "-ERR Protocol error: invalid bulk length\r\n"
    }
}

impl Speaks for Resp3 {
    fn name(&self) -> &'static str {
        "resp3"
    }

    fn opening(&self) -> Vec<u8> {
        encoded(words([b"HELLO", b"3"]))
    }

    fn request(&self, ask: &Ask) -> Option<Vec<u8>> {
        Resp2.request(ask)
    }

    fn opened(&self, input: &[u8]) -> Option<usize> {
        let (frame, length) = resp3::decode::complete::decode(input).expect("RESP")?;
        assert!(matches!(frame, Frame3::Map { .. }), "{frame:?} to HELLO");
        Some(length)
    }

    fn reply(&self, ask: &Ask, input: &[u8]) -> Option<(Said, usize)> {
        reply(ask, input, |input| {
            let decoded = resp3::decode::complete::decode(input).expect("RESP");
            decoded.map(|(frame, length)| (frame.into(), length))
        })
    }

    fn unspoken(&self) -> &'static str {
        UNSPOKEN
    }

    fn to_a_long_key(&self) -> &'static str {
        "-ERR 65537 bytes of key exceed the limit of 65536\r\n_\r\n"
    }

    fn to_a_long_value(&self) -> &'static str {
        "-ERR Protocol error: invalid bulk length\r\n"
    }
}
