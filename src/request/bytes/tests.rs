//! Every word survives its bytes; the bytes are pinned.

use super::*;
use crate::request::*;

fn every_request() -> Vec<Request> {
    let key = || Key { db: 15, name: "k".into() };
    let commands = vec![
        Command::Get(key()),
        Command::Exists(key()),
        Command::Ttl(key()),
        Command::Count { db: 3 },
        Command::Set {
            key: key(),
            value: "v".into(),
            expiry: Expiry::AtMs(u64::MAX),
            condition: Condition::IfValue("old".into()),
        },
        Command::Delete(key()),
        Command::Expire { key: key(), expiry: Expiry::AfterMs(5) },
        Command::Increment { key: key(), by: -3 },
        Command::Clear { db: Some(2) },
        Command::Clear { db: None },
    ];
    let guards = vec![Guard { key: key(), version: 4 }];
    let run = |consistency, session| Request::Run {
        batch: Batch { guards: guards.clone(), commands: commands.clone() },
        consistency,
        session,
    };
    let stamp = Some(SessionStamp { session: 5, sequence: 6 });
    vec![
        Request::Ping,
        run(Consistency::Linearizable, None),
        run(Consistency::Stale, None),
        run(Consistency::Linearizable, stamp),
        run(Consistency::Stale, stamp),
        Request::OpenSession,
        Request::Status,
        Request::Join { name: "b".into(), peer_address: "b:4001".into() },
        Request::Leave { name: "b".into() },
        Request::Members,
        Request::Transfer { to: None },
        Request::Transfer { to: Some("c".into()) },
    ]
}

fn every_reply() -> Vec<Reply> {
    let item = Item { value: "v".into(), version: 2 };
    let answers = vec![Answer::Done, Answer::Item(Some(item)), Answer::Failed(Failure::Overflow)];
    let kinds = [
        ErrorKind::Invalid,
        ErrorKind::NoLeader,
        ErrorKind::Unknown,
        ErrorKind::OutOfMemory,
        ErrorKind::DiskFull,
        ErrorKind::Busy,
        ErrorKind::SessionExpired,
        ErrorKind::Refused,
        ErrorKind::NotServing,
    ];
    let mut replies = vec![
        Reply::Pong,
        Reply::Done,
        Reply::Answers(answers),
        Reply::GuardFailed,
        Reply::SessionOpened { session: 8 },
    ];
    replies.extend(kinds.map(|kind| Reply::Error(kind, "why".into())));
    replies
}

fn whole<T>(
    bytes: Bytes,
    decode: impl Fn(&mut Reader) -> Result<T, Malformed>,
) -> Result<T, Malformed> {
    let mut reader = Reader::new(bytes);
    let value = decode(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

#[test]
fn every_request_survives_its_encoding() {
    for request in every_request() {
        let mut buffer = Vec::new();
        encode_request(&mut buffer, &request);
        let bytes = Bytes::from(buffer);
        for end in 0..bytes.len() {
            assert!(whole(bytes.slice(..end), decode_request).is_err(), "{request:?} cut at {end}");
        }
        assert_eq!(whole(bytes, decode_request), Ok(request));
    }
}

#[test]
fn every_reply_survives_its_encoding() {
    for reply in every_reply() {
        let mut buffer = Vec::new();
        encode_reply(&mut buffer, &reply);
        let bytes = Bytes::from(buffer);
        for end in 0..bytes.len() {
            assert!(whole(bytes.slice(..end), decode_reply).is_err(), "{reply:?} cut at {end}");
        }
        assert_eq!(whole(bytes, decode_reply), Ok(reply));
    }
}

/// Nodes of different builds speak these bytes: if this test fails, they no
/// longer understand each other.
#[test]
fn the_bytes_are_pinned() {
    let request = |request: &Request| {
        let mut buffer = Vec::new();
        encode_request(&mut buffer, request);
        buffer
    };
    let run = Request::Run {
        batch: Batch::of(Command::Clear { db: None }),
        consistency: Consistency::Stale,
        session: Some(SessionStamp { session: 5, sequence: 6 }),
    };
    let expected = [
        &[1, 3][..],                                       // run: stale, stamped
        &[5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0], // session, sequence
        &[0, 0, 0, 0, 1, 0, 0, 0, 9],                      // no guards; clear all
    ];
    assert_eq!(request(&run), expected.concat());
    let join = Request::Join { name: "b".into(), peer_address: "p".into() };
    assert_eq!(request(&join), [4, 1, 0, 0, 0, b'b', 1, 0, 0, 0, b'p']);

    let reply = |reply: &Reply| {
        let mut buffer = Vec::new();
        encode_reply(&mut buffer, reply);
        buffer
    };
    let error = Reply::Error(ErrorKind::Refused, "no".into());
    assert_eq!(reply(&error), [7, 7, 2, 0, 0, 0, b'n', b'o']);
    assert_eq!(reply(&Reply::SessionOpened { session: 258 }), [4, 2, 1, 0, 0, 0, 0, 0, 0]);
    let members = reply(&Reply::Members(Vec::new()));
    let refused = Reply::Error(ErrorKind::Invalid, "every node answers that itself".into());
    assert_eq!(members, reply(&refused), "it is never sent");
}

#[test]
fn numbers_nobody_knows_are_refused() {
    for bytes in [&[9][..], &[1, 4], &[8, 1, 0, 0, 0, 0xff], &[1, 0, 0xff, 0xff, 0xff, 0x7f]] {
        let bytes = Bytes::copy_from_slice(bytes);
        assert!(whole(bytes, decode_request).is_err());
    }
    for bytes in [&[8][..], &[7, 9, 0, 0, 0, 0], &[1, 1, 0, 0, 0, 10], &[5, 0, 0, 0, 0], &[6]] {
        let bytes = Bytes::copy_from_slice(bytes);
        assert!(whole(bytes, decode_reply).is_err());
    }
}

/// [64 MiB of one-byte commands would be decoded into several gigabytes.]
#[test]
fn a_list_of_tiny_things_is_bounded() {
    let count = LIST_LIMIT + 1;
    let mut buffer = vec![0, 0, 0, 0];
    buffer.extend((count as u32).to_le_bytes());
    buffer.resize(buffer.len() + count, 9);
    let error = whole(buffer.into(), decode_batch).unwrap_err();
    assert_eq!(error, Malformed("a list is too long"));
}
