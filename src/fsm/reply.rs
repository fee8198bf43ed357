//! What a session keeps of a reply for a retry: a version, then the reply in
//! [our own encoding](crate::request::bytes).
//!
//! Only answers and failed guards are kept: with any other reply the state
//! machine has executed nothing.

use bytes::Bytes;

use crate::encoding::{Malformed, Reader};
use crate::request::Reply;
use crate::request::bytes::{decode_reply, encode_reply};

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
    matches!(reply, Reply::GuardFailed | Reply::Answers(_))
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
    use crate::request::{Answer, Failure, Item, Ttl};

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
