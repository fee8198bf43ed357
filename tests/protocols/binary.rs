//! The framed binary protocol, and the oldest part of it on its own.

use raftcache::request::{Answer, Command, Condition, Expiry, Failure, Item, Key, Ttl};

use crate::speaks::{Speaks, take};
use crate::words::{Ask, Said};

/// The extended requests.
pub struct Binary;

/// The first two: SET with seconds, and GET.
pub struct Classic;

/// A length and bytes.
fn field(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat()
}

fn key(key: &Key) -> Vec<u8> {
    [&[key.db][..], &field(&key.name)].concat()
}

fn expiry(expiry: Expiry) -> Option<Vec<u8>> {
    Some(match expiry {
        Expiry::Never => vec![0],
        Expiry::Keep => vec![1],
        Expiry::AfterMs(ms) => [&[2][..], &ms.to_le_bytes()].concat(),
        Expiry::AtMs(ms) => [&[3][..], &ms.to_le_bytes()].concat(),
        _ => return None,
    })
}

fn condition(condition: &Condition) -> Option<Vec<u8>> {
    Some(match condition {
        Condition::Always => vec![0],
        Condition::IfAbsent => vec![1],
        Condition::IfPresent => vec![2],
        Condition::IfValue(value) => [&[3][..], &field(value)].concat(),
        Condition::IfVersion(version) => [&[4][..], &version.to_le_bytes()].concat(),
        _ => return None,
    })
}

/// Opcode and fields; of a read, those behind its consistency.
fn command(command: &Command) -> Option<(u8, Vec<u8>)> {
    Some(match command {
        Command::Get(of) => (0x11, key(of)),
        Command::Set { key: to, value, expiry: until, condition: only } => {
            (0x12, [key(to), field(value), expiry(*until)?, condition(only)?].concat())
        }
        Command::Delete(of) => (0x13, key(of)),
        Command::Exists(of) => (0x14, key(of)),
        Command::Expire { key: of, expiry: Expiry::Never } => (0x17, key(of)),
        Command::Expire { key: of, expiry: until } => (0x15, [key(of), expiry(*until)?].concat()),
        Command::Ttl(of) => (0x18, key(of)),
        Command::Increment { key: of, by } => (0x19, [&key(of)[..], &by.to_le_bytes()].concat()),
        Command::Count { db } => (0x1c, vec![*db]),
        Command::Clear { db } => (0x1d, vec![db.unwrap_or(0xff)]),
        _ => return None,
    })
}

/// Opcode and all fields of one command.
fn single(of: &Command, stale: bool) -> Option<(u8, Vec<u8>)> {
    let (opcode, fields) = command(of)?;
    let consistency = if of.is_write() { vec![] } else { vec![u8::from(stale)] };
    Some((opcode, [consistency, fields].concat()))
}

fn several(commands: &[Command]) -> Option<(u8, Vec<u8>)> {
    let count = (commands.len() as u32).to_le_bytes();
    let all = |opcode| {
        let fields = |of| command(of).filter(|(found, _)| *found == opcode);
        commands.iter().map(fields).collect::<Option<Vec<_>>>()
    };
    if let Some(gets) = all(0x11) {
        let fields: Vec<_> = gets.into_iter().flat_map(|(_, fields)| fields).collect();
        return Some((0x1a, [&[0][..], &count, &fields].concat()));
    }
    let plain = |of: &Command| match of {
        Command::Set { key: to, value, expiry: Expiry::Never, condition: Condition::Always } => {
            Some([key(to), field(value)].concat())
        }
        _ => None,
    };
    if let Some(sets) = commands.iter().map(plain).collect::<Option<Vec<_>>>() {
        return Some((0x1b, [&count[..], &sets.concat()].concat()));
    }
    let with_opcode = |of| command(of).map(|(opcode, fields)| [vec![opcode], fields].concat());
    let commands: Vec<_> = commands.iter().map(with_opcode).collect::<Option<_>>()?;
    Some((0x1e, [&[0][..], &[0; 4], &count, &commands.concat()].concat()))
}

fn i64_of(payload: &[u8]) -> i64 {
    i64::from_le_bytes(payload.try_into().expect("eight bytes"))
}

fn answer(command: &Command, status: u8, payload: &[u8]) -> Answer {
    match (status, command) {
        (1, Command::Get(_)) => {
            let value = payload[8..].to_vec().into();
            Answer::Item(Some(Item { value, version: 0 }))
        }
        (1, Command::Set { .. }) => Answer::Stored { version: 0 },
        (1, Command::Ttl(_)) => Answer::Ttl(match i64_of(payload) {
            -1 => Ttl::Never,
            ms => Ttl::Ms(ms.try_into().expect("time left")),
        }),
        (1, Command::Clear { .. }) => Answer::Done,
        (1, _) => Answer::Integer(i64_of(payload)),
        (3, Command::Get(_)) => Answer::Item(None),
        (3, Command::Ttl(_)) => Answer::Ttl(Ttl::Absent),
        (9, Command::Set { .. }) => Answer::NotStored { version: 0 },
        (14, _) => Answer::Failed(Failure::NotAnInteger),
        (15, _) => Answer::Failed(Failure::Overflow),
        (16, _) => Answer::Failed(Failure::InvalidExpiry),
        _ => panic!("status {status} to {command:?}: {}", payload.escape_ascii()),
    }
}

/// Status and payload of one reply.
fn framed<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let status = take(input, 1)?[0];
    Some((status, bytes(input)?))
}

/// A field.
fn bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_le_bytes(*take(input, 4)?.first_chunk()?);
    take(input, length as usize)
}

/// The client address of the member that is marked as leader.
fn leader(mut payload: &[u8]) -> Option<String> {
    assert_eq!(take(&mut payload, 1)?, [1], "the version of MEMBERS");
    let count = u32::from_le_bytes(*take(&mut payload, 4)?.first_chunk()?);
    for _ in 0..count {
        let mut member = bytes(&mut payload)?;
        let (_name, _node) = (bytes(&mut member)?, take(&mut member, 16)?);
        let (_peer_address, address) = (bytes(&mut member)?, bytes(&mut member)?);
        if take(&mut member, 1)?[0] & 2 != 0 {
            return Some(String::from_utf8_lossy(address).into_owned());
        }
    }
    None
}

impl Speaks for Binary {
    fn name(&self) -> &'static str {
        "binary"
    }

    fn request(&self, ask: &Ask) -> Option<Vec<u8>> {
        let (opcode, fields) = match ask {
            Ask::Ping => (vec![0x10], vec![]),
            Ask::Leader => (vec![0x1f, 0x05], vec![]),
            Ask::Stale(of) => single(of, true).map(|(opcode, fields)| (vec![opcode], fields))?,
            Ask::Run(commands) => {
                let request = match &commands[..] {
                    [of] => single(of, false),
                    commands => several(commands),
                };
                request.map(|(opcode, fields)| (vec![opcode], fields))?
            }
        };
        Some([opcode, field(&fields)].concat())
    }

    fn reply(&self, ask: &Ask, input: &[u8]) -> Option<(Said, usize)> {
        let mut rest = input;
        let (status, mut payload) = framed(&mut rest)?;
        let said = match ask {
            Ask::Ping => Said::Pong,
            Ask::Leader => Said::Leader(leader(payload).expect("one is marked")),
            Ask::Stale(of) => Said::Answers(vec![answer(of, status, payload)]),
            Ask::Run(commands) => match &commands[..] {
                [of] => Said::Answers(vec![answer(of, status, payload)]),
                commands => {
                    assert_eq!(status, 1);
                    let count = u32::from_le_bytes(*take(&mut payload, 4)?.first_chunk()?);
                    assert_eq!(count as usize, commands.len());
                    let answer = |of| {
                        let (status, payload) = framed(&mut payload).expect("as many as counted");
                        answer(of, status, payload)
                    };
                    Said::Answers(commands.iter().map(answer).collect())
                }
            },
        };
        Some((said, input.len() - rest.len()))
    }

    fn unspoken(&self) -> &'static str {
        "unless-value: absent, does not, holds\n\
         parts: append, write over, copy, rename, expire only\n"
    }

    fn to_a_long_key(&self) -> &'static str {
        ""
    }

    fn to_a_long_value(&self) -> &'static str {
        ""
    }
}

impl Speaks for Classic {
    fn name(&self) -> &'static str {
        "classic"
    }

    fn request(&self, ask: &Ask) -> Option<Vec<u8>> {
        let Ask::Run(commands) = ask else { return None };
        match &commands[..] {
            [Command::Get(Key { db: 0, name })] => Some([vec![0x02], field(name)].concat()),
            [Command::Set { key: Key { db: 0, name }, value, expiry, condition }]
                if *condition == Condition::Always =>
            {
                let seconds = match expiry {
                    Expiry::Never => 0,
                    Expiry::AfterMs(ms) if ms % 1000 == 0 => i32::try_from(ms / 1000).ok()?,
                    _ => return None,
                };
                let seconds = seconds.to_le_bytes().to_vec();
                Some([vec![0x01], field(name), field(value), seconds].concat())
            }
            _ => None,
        }
    }

    fn reply(&self, ask: &Ask, input: &[u8]) -> Option<(Said, usize)> {
        let Ask::Run(commands) = ask else { unreachable!("nothing else is asked") };
        let mut rest = input;
        let status = take(&mut rest, 1)?[0];
        let answer = match commands[0] {
            Command::Get(_) => {
                let value = bytes(&mut rest)?.to_vec().into();
                assert!([1, 3].contains(&status), "status {status}");
                Answer::Item((status == 1).then_some(Item { value, version: 0 }))
            }
            _ => {
                assert_eq!(status, 1);
                Answer::Stored { version: 0 }
            }
        };
        Some((Said::Answers(vec![answer]), input.len() - rest.len()))
    }

    fn unspoken(&self) -> &'static str {
        "node: ping, leader\n\
         absent: exists, ttl\n\
         present: exists, stale\n\
         delete: there, not there\n\
         database: clear, set, get, count, clear again, count again\n\
         if-absent: holds, does not\n\
         if-present: does not, holds\n\
         if-value: does not, holds\n\
         unless-value: absent, does not, holds\n\
         if-version: holds, does not\n\
         add: to nothing, negative\n\
         add to text: add\n\
         add to the most: add, least\n\
         ttl: left, none left\n\
         ttl-ms: set\n\
         ttl-keep: keep, left\n\
         expire: none, later, left, at once\n\
         persist: persist, again, left\n\
         moment: expire, set late\n\
         too-far: expire\n\
         several: set, get\n\
         together: batch\n\
         parts: append, write over, copy, rename, expire only\n"
    }

    fn to_a_long_key(&self) -> &'static str {
        ""
    }

    fn to_a_long_value(&self) -> &'static str {
        ""
    }
}
