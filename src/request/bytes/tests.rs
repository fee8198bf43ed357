//! Every word survives its bytes; the bytes are pinned.

use ::bytes::Bytes;

use super::*;
use crate::request::*;

fn every_request() -> Vec<Request> {
    let key = || Key { db: 15, name: "k".into() };
    let expire_only = |only| Command::ExpireOnly { key: key(), expiry: Expiry::AtMs(5), only };
    let commands = vec![
        Command::Get(key()),
        Command::Exists(key()),
        Command::Ttl(key()),
        Command::Count { db: 3 },
        Command::CountExpiring { db: 3 },
        Command::Set {
            key: key(),
            value: "v".into(),
            expiry: Expiry::AtMs(u64::MAX),
            condition: Condition::IfValue("old".into()),
        },
        Command::Delete(key()),
        Command::Expire { key: key(), expiry: Expiry::AfterMs(5) },
        Command::Expire { key: key(), expiry: Expiry::LaterMs(i64::MIN) },
        Command::Increment { key: key(), by: -3 },
        Command::Clear { db: Some(2) },
        Command::Clear { db: None },
        Command::Deadline(key()),
        Command::Scan { db: 4, cursor: u64::MAX, count: 7, pattern: None },
        Command::Scan { db: 4, cursor: 5, count: u32::MAX, pattern: Some("k*".into()) },
        Command::Append { key: key(), value: "v".into() },
        Command::SetRange { key: key(), offset: u32::MAX, value: "v".into() },
        Command::IncrementFloat { key: key(), by: "-1.5".into() },
        expire_only(Only::IfNone),
        expire_only(Only::IfAny),
        expire_only(Only::IfLater),
        expire_only(Only::IfEarlier),
        expire_only(Only::IfAnyAndEarlier),
        Command::Rename { from: key(), to: Key::new("other"), replace: true },
        Command::Copy { from: key(), to: Key::new("other"), replace: false },
        Command::When { tests: vec![], then: vec![] },
        Command::When {
            tests: vec![
                Test { key: key(), condition: Condition::IfAbsent },
                Test { key: Key::new("other"), condition: Condition::IfVersion(1) },
            ],
            then: vec![Command::Get(key()), expire_only(Only::IfAny)],
        },
        Command::Chain { tests: vec![], then: vec![] },
        Command::Chain {
            tests: vec![Test { key: key(), condition: Condition::IfAbsent }],
            then: vec![Command::Get(key()), expire_only(Only::IfAny)],
        },
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
        Request::AwaitDurable { others: 3, own: true, within: Duration::from_millis(7) },
        Request::Usage(key()),
    ]
}

fn every_reply() -> Vec<Reply> {
    let item = Item { value: "v".into(), version: 2 };
    let answers = vec![
        Answer::Done,
        Answer::Item(Some(item)),
        Answer::Failed(Failure::Overflow),
        Answer::Names { cursor: 3, names: vec!["a".into(), "".into()] },
        Answer::Nested(None),
        Answer::Nested(Some(vec![Answer::Done, Answer::Failed(Failure::NoSuchKey)])),
    ];
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
    for bytes in [&[8][..], &[7, 9, 0, 0, 0, 0], &[1, 1, 0, 0, 0, 13], &[5, 0, 0, 0, 0], &[6]] {
        let bytes = Bytes::copy_from_slice(bytes);
        assert!(whole(bytes, decode_reply).is_err());
    }
}

/// One line for each kind that came later; the log's own are pinned beside it too.
#[test]
fn the_bytes_of_later_words_are_pinned() {
    let mut buffer = Vec::new();
    let key = || Key { db: 1, name: "k".into() };
    let batch = Batch {
        guards: vec![],
        commands: vec![
            Command::Deadline(key()),
            Command::Scan { db: 1, cursor: 2, count: 3, pattern: Some("p".into()) },
            Command::Append { key: key(), value: "v".into() },
            Command::SetRange { key: key(), offset: 4, value: "v".into() },
            Command::IncrementFloat { key: key(), by: "5".into() },
            Command::ExpireOnly { key: key(), expiry: Expiry::AfterMs(6), only: Only::IfLater },
            Command::Rename { from: key(), to: key(), replace: false },
            Command::Copy { from: key(), to: key(), replace: true },
            Command::When {
                tests: vec![Test { key: key(), condition: Condition::IfPresent }],
                then: vec![Command::Count { db: 7 }],
            },
            Command::Chain {
                tests: vec![Test { key: key(), condition: Condition::IfPresent }],
                then: vec![Command::Count { db: 7 }],
            },
            Command::Expire { key: key(), expiry: Expiry::LaterMs(-2) },
            Command::When {
                tests: [
                    Condition::UnlessValue("v".into()),
                    Condition::IfDigest(2),
                    Condition::UnlessDigest(3),
                ]
                .map(|condition| Test { key: key(), condition })
                .into(),
                then: vec![],
            },
        ],
    };
    encode_batch(&mut buffer, &batch);
    let expected = [
        &[0, 0, 0, 0, 12, 0, 0, 0][..],
        &[10, 1, 1, 0, 0, 0, b'k'],
        &[11, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 1, 0, 0, 0, b'p'],
        &[12, 1, 1, 0, 0, 0, b'k', 1, 0, 0, 0, b'v'],
        &[13, 1, 1, 0, 0, 0, b'k', 4, 0, 0, 0, 1, 0, 0, 0, b'v'],
        &[14, 1, 1, 0, 0, 0, b'k', 1, 0, 0, 0, b'5'],
        &[15, 1, 1, 0, 0, 0, b'k', 2, 6, 0, 0, 0, 0, 0, 0, 0, 2],
        &[16, 1, 1, 0, 0, 0, b'k', 1, 1, 0, 0, 0, b'k', 0],
        &[17, 1, 1, 0, 0, 0, b'k', 1, 1, 0, 0, 0, b'k', 1],
        &[18, 1, 0, 0, 0, 1, 1, 0, 0, 0, b'k', 2, 1, 0, 0, 0, 3, 7],
        &[20, 1, 0, 0, 0, 1, 1, 0, 0, 0, b'k', 2, 1, 0, 0, 0, 3, 7],
        &[6, 1, 1, 0, 0, 0, b'k', 4, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[18, 3, 0, 0, 0],
        &[1, 1, 0, 0, 0, b'k', 5, 1, 0, 0, 0, b'v'],
        &[1, 1, 0, 0, 0, b'k', 6, 2, 0, 0, 0, 0, 0, 0, 0],
        &[1, 1, 0, 0, 0, b'k', 7, 3, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 0],
    ];
    assert_eq!(buffer, expected.concat());

    let mut buffer = Vec::new();
    let names = Answer::Names { cursor: 2, names: vec!["a".into()] };
    let nested = Answer::Nested(Some(vec![Answer::Failed(Failure::NoSuchKey)]));
    encode_reply(&mut buffer, &Reply::Answers(vec![names, Answer::Nested(None), nested]));
    let expected = [
        &[1, 3, 0, 0, 0][..],
        &[10, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, b'a'],
        &[11],
        &[12, 1, 0, 0, 0, 9, 5],
    ];
    assert_eq!(buffer, expected.concat());
}

/// [Input that says how deep we recurse ends the process.]
#[test]
fn nothing_nests_twice() {
    let bytes = [0, 0, 0, 0, 1, 0, 0, 0];
    let when = [18, 0, 0, 0, 0, 1, 0, 0, 0];
    let chain = [20, 0, 0, 0, 0, 1, 0, 0, 0];
    let clear = [9];
    for outer in [when, chain] {
        let once = [&bytes[..], &outer, &clear].concat();
        assert!(whole(once.into(), decode_batch).is_ok());
        for inner in [when, chain] {
            let twice = [&bytes[..], &outer, &inner, &clear].concat();
            assert_eq!(whole(twice.into(), decode_batch), Err(Malformed("unknown command")));
        }
    }

    let nested = [12, 1, 0, 0, 0];
    let once = [&[1, 1, 0, 0, 0][..], &nested, &[0]].concat();
    let twice = [&[1, 1, 0, 0, 0][..], &nested, &nested, &[0]].concat();
    assert!(whole(once.into(), decode_reply).is_ok());
    assert_eq!(whole(twice.into(), decode_reply), Err(Malformed("unknown kind of answer")));
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

/// [The same, in conditions of a million commands each.]
#[test]
fn lists_within_a_list_are_bounded_together() {
    let count = LIST_LIMIT / 2;
    let mut when = vec![18, 0, 0, 0, 0];
    when.extend((count as u32).to_le_bytes());
    when.resize(when.len() + count, 9);
    let batch =
        |times: usize| [&[0, 0, 0, 0, times as u8, 0, 0, 0][..], &when.repeat(times)].concat();
    assert!(whole(batch(1).into(), decode_batch).is_ok());
    let too_long = Some(Malformed("a list is too long"));
    assert_eq!(whole(batch(2).into(), decode_batch).err(), too_long);

    let mut nested = vec![12];
    nested.extend((count as u32).to_le_bytes());
    nested.resize(nested.len() + count, 0);
    let reply = |times: usize| [&[1, times as u8, 0, 0, 0][..], &nested.repeat(times)].concat();
    assert!(whole(reply(1).into(), decode_reply).is_ok());
    assert_eq!(whole(reply(2).into(), decode_reply).err(), too_long);
}
