//! The second half: what a node answers.

use bytes::BufMut;

use super::{list, put_count};
use crate::encoding::{Malformed, Reader, put_bytes};
use crate::request::{Answer, ErrorKind, Failure, Item, MemberInfo, Reply, RoleName, Status, Ttl};

/// Appends the encoding drawn in the [module](super).
pub fn encode_reply(buffer: &mut Vec<u8>, reply: &Reply) {
    match reply {
        Reply::GuardFailed => buffer.put_u8(0),
        Reply::Answers(answers) => {
            buffer.put_u8(1);
            put_count(buffer, answers.len());
            answers.iter().for_each(|answer| encode_answer(buffer, answer));
        }
        Reply::Pong => buffer.put_u8(2),
        Reply::Done => buffer.put_u8(3),
        Reply::SessionOpened { session } => {
            buffer.put_u8(4);
            buffer.put_u64_le(*session);
        }
        Reply::Members(members) => {
            buffer.put_u8(5);
            encode_members(buffer, members);
        }
        Reply::Status(status) => {
            buffer.put_u8(6);
            encode_status(buffer, status);
        }
        Reply::Error(kind, text) => {
            buffer.put_slice(&[7, error_number(*kind)]);
            put_bytes(buffer, text.as_bytes());
        }
    }
}

/// Reads what [`encode_reply`] wrote; values share the reader's memory.
pub fn decode_reply(reader: &mut Reader) -> Result<Reply, Malformed> {
    Ok(match reader.u8()? {
        0 => Reply::GuardFailed,
        1 => Reply::Answers(list(reader, 1, decode_answer)?),
        2 => Reply::Pong,
        3 => Reply::Done,
        4 => Reply::SessionOpened { session: reader.u64()? },
        5 => Reply::Members(list(reader, MEMBER_LEAST_BYTES, decode_member)?),
        6 => Reply::Status(Box::new(decode_status(reader)?)),
        7 => Reply::Error(decode_error(reader)?, reader.string()?),
        _ => return Err(Malformed("unknown kind of reply")),
    })
}

fn encode_answer(buffer: &mut Vec<u8>, answer: &Answer) {
    let (kind, number) = match answer {
        Answer::Done => (0, None),
        Answer::Stored { version } => (1, Some(*version)),
        Answer::NotStored { version } => (2, Some(*version)),
        Answer::Item(None) => (3, None),
        Answer::Item(Some(item)) => (4, Some(item.version)),
        Answer::Integer(number) => (5, Some(number.cast_unsigned())),
        Answer::Ttl(Ttl::Absent) => (6, None),
        Answer::Ttl(Ttl::Never) => (7, None),
        Answer::Ttl(Ttl::Ms(ms)) => (8, Some(*ms)),
        Answer::Failed(_) => (9, None),
    };
    buffer.put_u8(kind);
    if let Some(number) = number {
        buffer.put_u64_le(number);
    }
    match answer {
        Answer::Item(Some(item)) => put_bytes(buffer, &item.value),
        Answer::Failed(Failure::NotAnInteger) => buffer.put_u8(0),
        Answer::Failed(Failure::Overflow) => buffer.put_u8(1),
        Answer::Failed(Failure::InvalidExpiry) => buffer.put_u8(2),
        _ => {}
    }
}

fn decode_answer(reader: &mut Reader) -> Result<Answer, Malformed> {
    Ok(match reader.u8()? {
        0 => Answer::Done,
        1 => Answer::Stored { version: reader.u64()? },
        2 => Answer::NotStored { version: reader.u64()? },
        3 => Answer::Item(None),
        4 => Answer::Item(Some(Item { version: reader.u64()?, value: reader.bytes()? })),
        5 => Answer::Integer(reader.i64()?),
        6 => Answer::Ttl(Ttl::Absent),
        7 => Answer::Ttl(Ttl::Never),
        8 => Answer::Ttl(Ttl::Ms(reader.u64()?)),
        9 => Answer::Failed(match reader.u8()? {
            0 => Failure::NotAnInteger,
            1 => Failure::Overflow,
            2 => Failure::InvalidExpiry,
            _ => return Err(Malformed("unknown reason of a failure")),
        }),
        _ => return Err(Malformed("unknown kind of answer")),
    })
}

fn error_number(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Invalid => 0,
        ErrorKind::NoLeader => 1,
        ErrorKind::Unknown => 2,
        ErrorKind::OutOfMemory => 3,
        ErrorKind::DiskFull => 4,
        ErrorKind::Busy => 5,
        ErrorKind::SessionExpired => 6,
        ErrorKind::Refused => 7,
        ErrorKind::NotServing => 8,
    }
}

fn decode_error(reader: &mut Reader) -> Result<ErrorKind, Malformed> {
    Ok(match reader.u8()? {
        0 => ErrorKind::Invalid,
        1 => ErrorKind::NoLeader,
        2 => ErrorKind::Unknown,
        3 => ErrorKind::OutOfMemory,
        4 => ErrorKind::DiskFull,
        5 => ErrorKind::Busy,
        6 => ErrorKind::SessionExpired,
        7 => ErrorKind::Refused,
        8 => ErrorKind::NotServing,
        _ => return Err(Malformed("unknown kind of error")),
    })
}

/// What a member takes at least: three lengths, its identity and its options.
const MEMBER_LEAST_BYTES: usize = 3 * 4 + 16 + 1;

const VOTES: u8 = 1;
const LEADS: u8 = 2;

fn encode_members(buffer: &mut Vec<u8>, members: &[MemberInfo]) {
    put_count(buffer, members.len());
    for member in members {
        put_bytes(buffer, member.name.as_bytes());
        buffer.put_u128_le(member.node);
        put_bytes(buffer, member.peer_address.as_bytes());
        put_bytes(buffer, member.client_address.as_bytes());
        let votes = if member.voter { VOTES } else { 0 };
        let leads = if member.leader { LEADS } else { 0 };
        buffer.put_u8(votes | leads);
    }
}

fn decode_member(reader: &mut Reader) -> Result<MemberInfo, Malformed> {
    let name = reader.string()?;
    let node = reader.u128()?;
    let peer_address = reader.string()?;
    let client_address = reader.string()?;
    let options = reader.u8()?;
    if options & !(VOTES | LEADS) != 0 {
        return Err(Malformed("unknown option of a member"));
    }
    let (voter, leader) = (options & VOTES != 0, options & LEADS != 0);
    Ok(MemberInfo { name, node, peer_address, client_address, voter, leader })
}

fn role_number(role: RoleName) -> u8 {
    match role {
        RoleName::Follower => 0,
        RoleName::Candidate => 1,
        RoleName::Leader => 2,
        RoleName::Learner => 3,
        RoleName::Joining => 4,
    }
}

fn decode_role(reader: &mut Reader) -> Result<RoleName, Malformed> {
    Ok(match reader.u8()? {
        0 => RoleName::Follower,
        1 => RoleName::Candidate,
        2 => RoleName::Leader,
        3 => RoleName::Learner,
        4 => RoleName::Joining,
        _ => return Err(Malformed("unknown role")),
    })
}

fn encode_status(buffer: &mut Vec<u8>, status: &Status) {
    put_bytes(buffer, status.name.as_bytes());
    buffer.put_u128_le(status.node);
    buffer.put_u128_le(status.cluster);
    buffer.put_u8(role_number(status.role));
    buffer.put_u8(u8::from(status.leader.is_some()));
    put_bytes(buffer, status.leader.as_deref().unwrap_or_default().as_bytes());
    let numbers = [
        status.term,
        status.last,
        status.durable,
        status.commit,
        status.applied,
        status.log_bytes,
        status.keys,
        status.memory_bytes,
        status.memory_limit_bytes,
        status.state_hash,
        status.log_time_ms,
    ];
    numbers.into_iter().for_each(|number| buffer.put_u64_le(number));
    buffer.put_i64_le(status.clock_offset_ms);
    encode_members(buffer, &status.members);
    put_count(buffer, status.warnings.len());
    status.warnings.iter().for_each(|warning| put_bytes(buffer, warning.as_bytes()));
}

fn decode_status(reader: &mut Reader) -> Result<Status, Malformed> {
    let name = reader.string()?;
    let (node, cluster) = (reader.u128()?, reader.u128()?);
    let role = decode_role(reader)?;
    let is_led = reader.bool()?;
    let leader = reader.string()?;
    Ok(Status {
        name,
        node,
        cluster,
        role,
        leader: is_led.then_some(leader),
        term: reader.u64()?,
        last: reader.u64()?,
        durable: reader.u64()?,
        commit: reader.u64()?,
        applied: reader.u64()?,
        log_bytes: reader.u64()?,
        keys: reader.u64()?,
        memory_bytes: reader.u64()?,
        memory_limit_bytes: reader.u64()?,
        state_hash: reader.u64()?,
        log_time_ms: reader.u64()?,
        clock_offset_ms: reader.i64()?,
        members: list(reader, MEMBER_LEAST_BYTES, decode_member)?,
        warnings: list(reader, 4, Reader::string)?,
    })
}
