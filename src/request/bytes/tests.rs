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

fn member() -> MemberInfo {
    MemberInfo {
        name: "a".into(),
        node: 7,
        peer_address: "a:4001".into(),
        client_address: "a:3001".into(),
        voter: true,
        leader: false,
    }
}

fn status(role: RoleName, leader: Option<&str>) -> Status {
    Status {
        name: "a".into(),
        node: 7,
        cluster: 9,
        role,
        leader: leader.map(str::to_owned),
        term: 1,
        last: 2,
        durable: 3,
        commit: 4,
        applied: 5,
        log_bytes: 6,
        keys: 7,
        memory_bytes: 8,
        memory_limit_bytes: 9,
        state_hash: 10,
        log_time_ms: 11,
        clock_offset_ms: -12,
        members: vec![member(), MemberInfo { voter: false, leader: true, ..member() }],
        warnings: vec!["w".into()],
    }
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
    let roles = [
        RoleName::Follower,
        RoleName::Candidate,
        RoleName::Leader,
        RoleName::Learner,
        RoleName::Joining,
    ];
    let mut replies = vec![
        Reply::Pong,
        Reply::Done,
        Reply::Answers(answers),
        Reply::GuardFailed,
        Reply::SessionOpened { session: 8 },
        Reply::Members(vec![member()]),
        Reply::Status(Box::new(status(RoleName::Leader, None))),
    ];
    replies.extend(kinds.map(|kind| Reply::Error(kind, "why".into())));
    replies.extend(roles.map(|role| Reply::Status(Box::new(status(role, Some("c"))))));
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
    let status = reply(&Reply::Status(Box::new(status(RoleName::Learner, Some("c")))));
    assert_eq!(crc32fast::hash(&status), 248_668_882, "every field in order");
}

#[test]
fn numbers_nobody_knows_are_refused() {
    for bytes in [&[9][..], &[1, 4], &[8, 1, 0, 0, 0, 0xff], &[1, 0, 0xff, 0xff, 0xff, 0x7f]] {
        let bytes = Bytes::copy_from_slice(bytes);
        assert!(whole(bytes, decode_request).is_err());
    }
    for bytes in [&[8][..], &[7, 9, 0, 0, 0, 0], &[1, 1, 0, 0, 0, 10], &[5, 0xff, 0, 0, 0]] {
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
