//! What a session keeps of a reply for a retry: a version, then the reply in
//! [our own encoding](crate::request::bytes).
//!
//! Only answers and failed guards are kept: with any other reply the state
//! machine has executed nothing. Nor are the names that a scan has met, whose order
//! is that of one node's tables: all nodes keep the same.

use bytes::Bytes;

use crate::encoding::{Malformed, Reader};
use crate::request::bytes::{decode_reply, encode_reply};
use crate::request::{Answer, Reply};

const VERSION: u8 = 1;

/// Its bytes; `None` for a reply that is not kept.
pub fn encode(reply: &Reply) -> Option<Bytes> {
    if !is_kept(reply) {
        return None;
    }
    let mut buffer = vec![VERSION];
    encode_reply(&mut buffer, reply);
    Some(buffer.into())
}

fn is_kept(reply: &Reply) -> bool {
    match reply {
        Reply::GuardFailed => true,
        Reply::Answers(answers) => !answers.iter().any(holds_names),
        _ => false,
    }
}

fn holds_names(answer: &Answer) -> bool {
    match answer {
        Answer::Names { .. } => true,
        Answer::Nested(Some(answers)) => answers.iter().any(holds_names),
        _ => false,
    }
}

/// Reads what [`encode`] wrote, sharing its memory.
pub fn decode(bytes: Bytes) -> Result<Reply, Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != VERSION {
        return Err(Malformed("unknown version of a kept reply"));
    }
    let reply = decode_reply(&mut reader)?;
    if !is_kept(&reply) {
        return Err(Malformed("unknown kind of kept reply"));
    }
    reader.finish()?;
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Failure, Item, Ttl};

    fn names() -> Answer {
        Answer::Names { cursor: 0x0102, names: vec!["a".into(), "".into()] }
    }

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
            Answer::Failed(Failure::NotAFloat),
            Answer::Failed(Failure::TooLong),
            Answer::Failed(Failure::NoSuchKey),
            Answer::Failed(Failure::TooMuch),
            Answer::Nested(None),
            Answer::Nested(Some(vec![])),
            Answer::Nested(Some(vec![Answer::Done, Answer::Failed(Failure::TooLong)])),
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

    /// Nodes may meet names in another order, and have to keep the same.
    #[test]
    fn names_are_not_kept() {
        for answer in [names(), Answer::Nested(Some(vec![Answer::Done, names()]))] {
            let reply = Reply::Answers(vec![Answer::Done, answer]);
            assert_eq!(encode(&reply), None);
            // They go from node to node all the same.
            let mut buffer = Vec::new();
            encode_reply(&mut buffer, &reply);
            for end in 0..buffer.len() {
                let cut = Bytes::copy_from_slice(&buffer[..end]);
                let mut reader = Reader::new(cut);
                let whole = decode_reply(&mut reader).is_ok_and(|_| reader.finish().is_ok());
                assert!(!whole, "cut at {end}");
            }
            assert_eq!(decode_reply(&mut Reader::new(buffer.into())), Ok(reply));
        }
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

    #[test]
    fn the_bytes_of_later_answers_are_pinned() {
        let table: [(Answer, &[u8]); 7] = [
            (names(), &[10, 2, 1, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, b'a', 0, 0, 0, 0]),
            (Answer::Nested(None), &[11]),
            (Answer::Nested(Some(vec![Answer::Done])), &[12, 1, 0, 0, 0, 0]),
            (Answer::Failed(Failure::NotAFloat), &[9, 3]),
            (Answer::Failed(Failure::TooLong), &[9, 4]),
            (Answer::Failed(Failure::NoSuchKey), &[9, 5]),
            (Answer::Failed(Failure::TooMuch), &[9, 6]),
        ];
        for (answer, expected) in table {
            let mut bytes = Vec::new();
            encode_reply(&mut bytes, &Reply::Answers(vec![answer.clone()]));
            // Answers, one.
            assert_eq!(bytes[1 + 4..], *expected, "{answer:?}");
        }
    }

    #[test]
    fn no_answers_are_within_those_of_another() {
        let nested = |answers| Answer::Nested(Some(answers));
        for inner in [vec![nested(vec![])], vec![Answer::Done, nested(vec![Answer::Done])]] {
            let bytes = encode(&Reply::Answers(vec![nested(inner)])).unwrap();
            assert_eq!(decode(bytes), Err(Malformed("unknown kind of answer")));
        }
    }
}
