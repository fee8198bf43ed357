//! The bytes of a reply that a session keeps for a retry.
//!
//! ```text
//! reply   | version u8 = 1 | kind u8 | …
//!           kind 0: guard failed   1: answers, count u32, answer …
//! answer  | kind u8 | …
//!           0 done                      5 integer     i64
//!           1 stored      version u64   6 ttl: absent
//!           2 not stored  version u64   7 ttl: never
//!           3 item: absent              8 ttl         ms u64
//!           4 item        version u64, length u32, value …
//!           9 failed      reason u8 (0 not an integer, 1 overflow, 2 expiry)
//! ```
//!
//! Other replies are never kept: the state machine has executed nothing then.

use bytes::{BufMut, Bytes};

use crate::encoding::{Malformed, Reader, put_bytes};
use crate::request::{Answer, Failure, Item, Reply, Ttl};

const VERSION: u8 = 1;

/// The encoding drawn above; `None` for a reply that is not kept.
pub fn encode(reply: &Reply) -> Option<Bytes> {
    let mut buffer = vec![VERSION];
    match reply {
        Reply::GuardFailed => buffer.put_u8(0),
        Reply::Answers(answers) => {
            buffer.put_u8(1);
            buffer.put_u32_le(u32::try_from(answers.len()).ok()?);
            for answer in answers {
                encode_answer(&mut buffer, answer);
            }
        }
        _ => return None,
    }
    Some(buffer.into())
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

/// Reads what [`encode`] wrote, sharing its memory.
pub fn decode(bytes: Bytes) -> Result<Reply, Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != VERSION {
        return Err(Malformed("unknown version of a kept reply"));
    }
    let reply = match reader.u8()? {
        0 => Reply::GuardFailed,
        1 => {
            let count = reader.count(1)?;
            Reply::Answers(
                (0..count).map(|_| decode_answer(&mut reader)).collect::<Result<_, _>>()?,
            )
        }
        _ => return Err(Malformed("unknown kind of kept reply")),
    };
    reader.finish()?;
    Ok(reply)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_survives_its_encoding() {
        let reply = Reply::Answers(vec![
            Answer::Done,
            Answer::Stored { version: 1 },
            Answer::NotStored { version: u64::MAX },
            Answer::Item(None),
            Answer::Item(Some(Item { value: "v".into(), version: 2 })),
            Answer::Integer(i64::MIN),
            Answer::Ttl(Ttl::Absent),
            Answer::Ttl(Ttl::Never),
            Answer::Ttl(Ttl::Ms(3)),
            Answer::Failed(Failure::NotAnInteger),
            Answer::Failed(Failure::Overflow),
            Answer::Failed(Failure::InvalidExpiry),
        ]);
        for reply in [reply, Reply::GuardFailed] {
            let bytes = encode(&reply).unwrap();
            for end in 0..bytes.len() {
                assert!(decode(bytes.slice(..end)).is_err(), "cut at {end}");
            }
            assert_eq!(decode(bytes), Ok(reply));
        }
        assert_eq!(encode(&Reply::Pong), None);
    }

    #[test]
    fn the_bytes_are_pinned() {
        let reply = Reply::Answers(vec![
            Answer::Item(Some(Item { value: "v".into(), version: 2 })),
            Answer::Integer(-1),
        ]);
        let expected = [
            1, 1, 2, 0, 0, 0, // version, answers, two
            4, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'v', // item
            5, 255, 255, 255, 255, 255, 255, 255, 255, // integer
        ];
        assert_eq!(encode(&reply).unwrap(), &expected[..]);
    }
}
