//! The second half: what a node answers.

use bytes::BufMut;

use super::{list, list_of_lists, put_count};
use crate::encoding::{Malformed, Reader, put_bytes};
use crate::request::{Answer, ErrorKind, Failure, Item, Reply, Ttl};

/// Appends the encoding drawn in the [module](super).
pub fn encode_reply(buffer: &mut Vec<u8>, reply: &Reply) {
    match reply {
        Reply::GuardFailed => buffer.put_u8(0),
        Reply::Answers(answers) => {
            buffer.put_u8(1);
            encode_answers(buffer, answers);
        }
        Reply::Pong => buffer.put_u8(2),
        Reply::Done => buffer.put_u8(3),
        Reply::SessionOpened { session } => {
            buffer.put_u8(4);
            buffer.put_u64_le(*session);
        }
        // Every node answers these itself, so no other has asked for them.
        Reply::Members(_) | Reply::Status(_) => {
            let why = "every node answers that itself".to_owned();
            encode_reply(buffer, &Reply::Error(ErrorKind::Invalid, why));
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
        1 => Reply::Answers(decode_answers(reader, true)?),
        2 => Reply::Pong,
        3 => Reply::Done,
        4 => Reply::SessionOpened { session: reader.u64()? },
        5 | 6 => return Err(Malformed("a reply that is not sent between nodes")),
        7 => Reply::Error(decode_error(reader)?, reader.string()?),
        _ => return Err(Malformed("unknown kind of reply")),
    })
}

fn encode_answers(buffer: &mut Vec<u8>, answers: &[Answer]) {
    put_count(buffer, answers.len());
    answers.iter().for_each(|answer| encode_answer(buffer, answer));
}

fn decode_answers(reader: &mut Reader, may_nest: bool) -> Result<Vec<Answer>, Malformed> {
    list_of_lists(reader, |reader| decode_answer(reader, may_nest), parts)
}

/// How many answers it is.
fn parts(answer: &Answer) -> usize {
    match answer {
        Answer::Nested(Some(answers)) => 1 + answers.len(),
        _ => 1,
    }
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
        Answer::Names { cursor, .. } => (10, Some(*cursor)),
        Answer::Nested(None) => (11, None),
        Answer::Nested(Some(_)) => (12, None),
    };
    buffer.put_u8(kind);
    if let Some(number) = number {
        buffer.put_u64_le(number);
    }
    match answer {
        Answer::Item(Some(item)) => put_bytes(buffer, &item.value),
        Answer::Failed(failure) => buffer.put_u8(failure_number(*failure)),
        Answer::Names { names, .. } => {
            put_count(buffer, names.len());
            names.iter().for_each(|name| put_bytes(buffer, name));
        }
        Answer::Nested(Some(answers)) => encode_answers(buffer, answers),
        _ => {}
    }
}

fn failure_number(failure: Failure) -> u8 {
    match failure {
        Failure::NotAnInteger => 0,
        Failure::Overflow => 1,
        Failure::InvalidExpiry => 2,
        Failure::NotAFloat => 3,
        Failure::TooLong => 4,
        Failure::NoSuchKey => 5,
        Failure::TooMuch => 6,
    }
}

fn decode_failure(reader: &mut Reader) -> Result<Failure, Malformed> {
    Ok(match reader.u8()? {
        0 => Failure::NotAnInteger,
        1 => Failure::Overflow,
        2 => Failure::InvalidExpiry,
        3 => Failure::NotAFloat,
        4 => Failure::TooLong,
        5 => Failure::NoSuchKey,
        6 => Failure::TooMuch,
        _ => return Err(Malformed("unknown reason of a failure")),
    })
}

fn decode_answer(reader: &mut Reader, may_nest: bool) -> Result<Answer, Malformed> {
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
        9 => Answer::Failed(decode_failure(reader)?),
        10 => Answer::Names { cursor: reader.u64()?, names: list(reader, 4, Reader::bytes)? },
        11 => Answer::Nested(None),
        12 if may_nest => Answer::Nested(Some(decode_answers(reader, false)?)),
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
