//! Commands taken apart, replies put together, limits, and arbitrary input.

mod other_codec;

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::protocol::pieces;
use crate::protocol::surroundings::Nowhere;
use crate::request::{
    Batch, Command, Condition, Consistency, ErrorKind, Expiry, Item, Key, Test, Ttl,
};

fn codec() -> RespCodec {
    RespCodec::new(Limits::default(), 7, 1, Box::new(Nowhere))
}

fn bytes_of(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len());
    for word in words {
        bytes += &format!("${}\r\n{word}\r\n", word.len());
    }
    bytes.into_bytes()
}

/// All that a codec makes of some bytes.
fn taken(codec: &mut RespCodec, bytes: &[u8]) -> Vec<Incoming> {
    let mut input = BytesMut::from(bytes);
    std::iter::from_fn(|| codec.decode(&mut input).unwrap()).collect()
}

fn asked(codec: &mut RespCodec, words: &[&str]) -> Request {
    match &taken(codec, &bytes_of(words))[..] {
        [Incoming::Ask(request)] => request.clone(),
        other => panic!("{words:?} is {other:?}"),
    }
}

/// The reply to what is answered at once.
fn said(codec: &mut RespCodec, words: &[&str]) -> String {
    match &taken(codec, &bytes_of(words))[..] {
        [Incoming::Written(bytes)] => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("{words:?} is {other:?}"),
    }
}

fn told(codec: &mut RespCodec, reply: &Reply) -> String {
    let mut output = BytesMut::new();
    assert_eq!(codec.encode(reply, &mut output), None);
    String::from_utf8(output.to_vec()).unwrap()
}

fn answers(answers: Vec<Answer>) -> Reply {
    Reply::Answers(answers)
}

fn item(value: &str, version: u64) -> Answer {
    Answer::Item(Some(Item { value: value.to_owned().into(), version }))
}

fn key(name: &str) -> Key {
    Key::new(name.to_owned())
}

fn set(name: &str, value: &str, expiry: Expiry, condition: Condition) -> Command {
    Command::Set { key: key(name), value: value.to_owned().into(), expiry, condition }
}

fn plain_set(name: &str, value: &str) -> Command {
    set(name, value, Expiry::Never, Condition::Always)
}

fn test_of(name: &str, condition: Condition) -> Test {
    Test { key: key(name), condition }
}

fn delete_if(name: &str, condition: Condition) -> Command {
    let then = vec![Command::Delete(key(name))];
    Command::When { tests: vec![test_of(name, condition)], then }
}

/// What a command becomes, what it is answered with, and how that reads.
type Exchange = (&'static [&'static str], Vec<Command>, Vec<Answer>, &'static str);

fn exchanges() -> Vec<Exchange> {
    use Answer::{Done, Integer, Nested, NotStored, Stored};
    let (always, never) = (Condition::Always, Expiry::Never);
    let get = |name| Command::Get(key(name));
    let stored = || Stored { version: 3 };
    let refused = || NotStored { version: 2 };
    vec![
        (&["GET", "k"], vec![get("k")], vec![item("v", 1)], "$1\r\nv\r\n"),
        (&["get", "k"], vec![get("k")], vec![Answer::Item(None)], "$-1\r\n"),
        (&["SET", "k", "v"], vec![plain_set("k", "v")], vec![stored()], "+OK\r\n"),
        (
            &["SET", "k", "v", "EX", "10", "NX"],
            vec![set("k", "v", Expiry::AfterMs(10_000), Condition::IfAbsent)],
            vec![refused()],
            "$-1\r\n",
        ),
        (
            &["SET", "k", "v", "xx", "GET", "pxat", "9"],
            vec![get("k"), set("k", "v", Expiry::AtMs(9), Condition::IfPresent)],
            vec![item("old", 1), stored()],
            "$3\r\nold\r\n",
        ),
        (
            &["SET", "k", "v", "KEEPTTL", "IFEQ", "u"],
            vec![set("k", "v", Expiry::Keep, Condition::IfValue("u".into()))],
            vec![stored()],
            "+OK\r\n",
        ),
        (
            &["SETNX", "k", "v"],
            vec![set("k", "v", never, Condition::IfAbsent)],
            vec![refused()],
            ":0\r\n",
        ),
        (
            &["PSETEX", "k", "5", "v"],
            vec![set("k", "v", Expiry::AfterMs(5), always)],
            vec![Answer::Failed(crate::request::Failure::InvalidExpiry)],
            "-ERR invalid expire time in 'psetex' command\r\n",
        ),
        (
            &["GETDEL", "k"],
            vec![get("k"), Command::Delete(key("k"))],
            vec![item("v", 1), Integer(1)],
            "$1\r\nv\r\n",
        ),
        (
            &["GETEX", "k", "PERSIST"],
            vec![get("k"), Command::Expire { key: key("k"), expiry: never }],
            vec![item("v", 1), Integer(1)],
            "$1\r\nv\r\n",
        ),
        (
            &["MGET", "a", "b"],
            vec![get("a"), get("b")],
            vec![item("v", 1), Answer::Item(None)],
            "*2\r\n$1\r\nv\r\n$-1\r\n",
        ),
        (
            &["MSET", "a", "1", "b", "2"],
            vec![plain_set("a", "1"), plain_set("b", "2")],
            vec![stored(), stored()],
            "+OK\r\n",
        ),
        (
            &["MSETNX", "a", "1"],
            vec![Command::When {
                tests: vec![Test { key: key("a"), condition: Condition::IfAbsent }],
                then: vec![plain_set("a", "1")],
            }],
            vec![Nested(None)],
            ":0\r\n",
        ),
        (
            &["MSETEX", "2", "a", "1", "b", "2", "EX", "9", "xx"],
            vec![Command::When {
                tests: ["a", "b"].map(|name| test_of(name, Condition::IfPresent)).to_vec(),
                then: [("a", "1"), ("b", "2")]
                    .map(|(name, value)| set(name, value, Expiry::AfterMs(9000), Condition::Always))
                    .to_vec(),
            }],
            vec![Nested(Some(vec![stored(), stored()]))],
            ":1\r\n",
        ),
        (
            &["DELEX", "k", "ifne", "v"],
            vec![delete_if("k", Condition::UnlessValue("v".into()))],
            vec![Nested(Some(vec![Integer(0)]))],
            ":0\r\n",
        ),
        (
            &["DELEX", "k", "IFDEQ", "00006C38ADF31777"],
            vec![delete_if("k", Condition::IfDigest(0x6c38_adf3_1777))],
            vec![Nested(Some(vec![Integer(1)]))],
            ":1\r\n",
        ),
        (
            &["DELIFEQ", "k", "v"],
            vec![delete_if("k", Condition::IfValue("v".into()))],
            vec![Nested(None)],
            ":0\r\n",
        ),
        (
            &["SET", "k", "v", "IFDNE", "0000000000000001"],
            vec![set("k", "v", Expiry::Never, Condition::UnlessDigest(1))],
            vec![refused()],
            "$-1\r\n",
        ),
        // As Redis says of this value, leading zeros and all.
        (
            &["DIGEST", "k"],
            vec![get("k")],
            vec![item(
                "v8lf0c11xh8ymlqztfd3eeq16kfn4sspw7fqmnuuq3k3t75em5wdizgcdw7uc26nnf961u2jkfzkjytls2kwlj7626sd",
                1,
            )],
            "$16\r\n00006c38adf31777\r\n",
        ),
        (&["DIGEST", "k"], vec![get("k")], vec![Answer::Item(None)], "$-1\r\n"),
        (
            &["DEL", "a", "b", "c"],
            ["a", "b", "c"].map(|name| Command::Delete(key(name))).to_vec(),
            vec![Integer(1), Integer(0), Integer(1)],
            ":2\r\n",
        ),
        (
            &["DECRBY", "k", "5"],
            vec![Command::Increment { key: key("k"), by: -5 }],
            vec![Integer(-5)],
            ":-5\r\n",
        ),
        (&["STRLEN", "k"], vec![get("k")], vec![item("four", 1)], ":4\r\n"),
        (&["GETRANGE", "k", "-2", "-1"], vec![get("k")], vec![item("four", 1)], "$2\r\nur\r\n"),
        (&["TYPE", "k"], vec![get("k")], vec![Answer::Item(None)], "+none\r\n"),
        (&["TTL", "k"], vec![Command::Ttl(key("k"))], vec![Answer::Ttl(Ttl::Ms(1500))], ":2\r\n"),
        (
            &["EXPIRE", "k", "-1"],
            vec![Command::Expire { key: key("k"), expiry: Expiry::AtMs(0) }],
            vec![Integer(1)],
            ":1\r\n",
        ),
        (
            &["PEXPIREAT", "k", "7", "XX", "LT"],
            vec![Command::ExpireOnly {
                key: key("k"),
                expiry: Expiry::AtMs(7),
                only: crate::request::Only::IfAnyAndEarlier,
            }],
            vec![Integer(0)],
            ":0\r\n",
        ),
        (
            &["RENAME", "a", "b"],
            vec![Command::Rename { from: key("a"), to: key("b"), replace: true }],
            vec![Answer::Failed(crate::request::Failure::NoSuchKey)],
            "-ERR no such key\r\n",
        ),
        (
            &["MOVE", "a", "3"],
            vec![Command::Rename {
                from: key("a"),
                to: Key { db: 3, name: "a".into() },
                replace: false,
            }],
            vec![Answer::Failed(crate::request::Failure::NoSuchKey)],
            ":0\r\n",
        ),
        (&["FLUSHALL", "async"], vec![Command::Clear { db: None }], vec![Done], "+OK\r\n"),
        (
            &["SCAN", "5", "MATCH", "a*", "COUNT", "3"],
            vec![Command::Scan { db: 0, cursor: 5, count: 3, pattern: Some("a*".into()) }],
            vec![Answer::Names { cursor: 9, names: vec!["ab".into()] }],
            "*2\r\n$1\r\n9\r\n*1\r\n$2\r\nab\r\n",
        ),
    ]
}

#[test]
fn commands_are_what_they_are_in_redis() {
    for (words, commands, said, reads) in exchanges() {
        let mut codec = codec();
        let Request::Run { batch, consistency, session } = asked(&mut codec, words) else {
            panic!("{words:?} runs nothing")
        };
        assert_eq!(batch, Batch { guards: vec![], commands }, "{words:?}");
        assert_eq!((consistency, session), (Consistency::Linearizable, None));
        assert_eq!(told(&mut codec, &answers(said)), reads, "{words:?}");
    }
}

/// All of them in one transaction are one batch, and their replies one list.
#[test]
fn a_transaction_is_one_batch() {
    let mut codec = codec();
    assert_eq!(said(&mut codec, &["MULTI"]), "+OK\r\n");
    let (mut all, mut said_to_all, mut reads) = (Vec::new(), Vec::new(), String::new());
    for (words, commands, answers, reply) in exchanges() {
        assert_eq!(said(&mut codec, words), "+QUEUED\r\n", "{words:?}");
        all.extend(commands);
        said_to_all.extend(answers);
        reads += reply;
    }
    assert_eq!(said(&mut codec, &["ECHO", "hi"]), "+QUEUED\r\n");
    let Request::Run { batch, .. } = asked(&mut codec, &["EXEC"]) else { panic!("it runs") };
    assert_eq!(batch.commands, all);
    let expected = format!("*{}\r\n{reads}$2\r\nhi\r\n", exchanges().len() + 1);
    assert_eq!(told(&mut codec, &answers(said_to_all)), expected);
    assert_eq!(said(&mut codec, &["EXEC"]), "-ERR EXEC without MULTI\r\n");
}

#[test]
fn a_watched_key_guards_the_transaction() {
    let mut codec = codec();
    let mut input = BytesMut::new();
    for words in [&["GET", "x"][..], &["WATCH", "a", "b"], &["MULTI"], &["GET", "a"], &["EXEC"]] {
        input.extend_from_slice(&bytes_of(words));
    }
    assert!(matches!(codec.decode(&mut input), Ok(Some(Incoming::Ask(_)))), "GET");
    assert!(!codec.waits());
    assert!(matches!(codec.decode(&mut input), Ok(Some(Incoming::Ask(_)))), "WATCH");
    assert!(codec.waits(), "EXEC depends on what WATCH finds");
    told(&mut codec, &answers(vec![Answer::Item(None)]));
    assert!(codec.waits(), "that was the reply to GET");
    told(&mut codec, &answers(vec![item("v", 5), Answer::Item(None)]));
    assert!(!codec.waits());

    let rest: Vec<_> = std::iter::from_fn(|| codec.decode(&mut input).unwrap()).collect();
    let Some(Incoming::Ask(Request::Run { batch, .. })) = rest.last() else { panic!("{rest:?}") };
    let guard = |name, version| Guard { key: key(name), version };
    assert_eq!(batch.guards, [guard("a", 5), guard("b", 0)]);
    assert_eq!(told(&mut codec, &Reply::GuardFailed), "*-1\r\n");
    // It is over, however it ended.
    taken(&mut codec, &bytes_of(&["MULTI"]));
    let Request::Run { batch, .. } = asked(&mut codec, &["EXEC"]) else { panic!("it runs") };
    assert_eq!(batch, Batch::default());
}

/// [Ten thousand tables of a megabyte, or lists of all clients, one after the other,
/// while nobody is heard.]
#[test]
fn what_takes_time_at_exec_is_bounded() {
    let mut codec = codec();
    taken(&mut codec, &bytes_of(&["MULTI"]));
    for _ in 0..16 {
        assert_eq!(said(&mut codec, &["LCS", "a", "b"]), "+QUEUED\r\n");
        assert_eq!(said(&mut codec, &["CLIENT", "KILL", "x"]), "+QUEUED\r\n");
    }
    assert!(said(&mut codec, &["TIME"]).starts_with("-ERR a transaction has at most 32"));
    assert!(said(&mut codec, &["EXEC"]).starts_with("-EXECABORT"));
}

/// [Who pipelines WATCH does not look at its reply, and in Redis it cannot fail.]
#[test]
fn a_watch_that_failed_lets_nothing_pass() {
    let mut codec = codec();
    asked(&mut codec, &["WATCH", "a"]);
    let refused = Reply::Error(ErrorKind::NoLeader, "no leader, not applied".to_owned());
    assert!(told(&mut codec, &refused).starts_with("-CLUSTERDOWN"));
    taken(&mut codec, &bytes_of(&["MULTI"]));
    let Request::Run { batch, .. } = asked(&mut codec, &["EXEC"]) else { panic!("it runs") };
    assert_eq!(batch.guards, [Guard { key: key("a"), version: u64::MAX }]);
}

/// [Keys that are watched again and again fill the memory.]
#[test]
fn what_is_watched_is_bounded_and_counted() {
    let mut codec = codec();
    for _ in 0..3 {
        asked(&mut codec, &["WATCH", "a", "a"]);
        told(&mut codec, &answers(vec![item("v", 5)]));
    }
    assert_eq!(codec.session.watched, [Guard { key: key("a"), version: 5 }]);
    assert!(codec.held_bytes() > 0);
    let names: Vec<String> = (0..1001).map(|i| format!("k{i}")).collect();
    let words: Vec<&str> = std::iter::once("WATCH").chain(names.iter().map(|n| &n[..])).collect();
    assert!(said(&mut codec, &words).starts_with("-ERR more than 1000 keys"));
    assert_eq!(said(&mut codec, &["UNWATCH"]), "+OK\r\n");
    assert_eq!(codec.held_bytes(), 0);
}

#[test]
fn what_is_chosen_in_a_transaction_counts_if_it_is_run() {
    for reply in [answers(vec![]), Reply::GuardFailed] {
        let mut codec = codec();
        taken(&mut codec, &bytes_of(&["MULTI"]));
        assert_eq!(said(&mut codec, &["SELECT", "3"]), "+QUEUED\r\n");
        asked(&mut codec, &["EXEC"]);
        assert!(codec.waits());
        told(&mut codec, &reply);
        let db = if reply == Reply::GuardFailed { 0 } else { 3 };
        let Request::Run { batch, .. } = asked(&mut codec, &["GET", "k"]) else {
            panic!("it runs")
        };
        assert_eq!(batch.commands, [Command::Get(Key { db, name: "k".into() })]);
    }
}

#[test]
fn keys_are_asked_for_step_by_step() {
    let mut codec = codec();
    asked(&mut codec, &["KEYS", "*"]);
    assert!(codec.waits());
    let names = |cursor, name: &'static str| {
        answers(vec![Answer::Names { cursor, names: vec![name.into()] }])
    };
    let mut output = BytesMut::new();
    let more = codec.encode(&names(9, "a"), &mut output);
    let Some(Request::Run { batch, consistency, .. }) = more else { panic!("there are more") };
    assert!(matches!(batch.commands[..], [Command::Scan { cursor: 9, .. }]));
    assert_eq!(consistency, Consistency::Stale, "what is never older than what it has seen");
    assert!(output.is_empty() && codec.waits());
    assert_eq!(told(&mut codec, &names(0, "b")), "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
    assert!(!codec.waits());
}

#[test]
fn a_random_key_is_looked_for_everywhere() {
    let mut codec = codec();
    asked(&mut codec, &["RANDOMKEY"]);
    let none = |cursor| answers(vec![Answer::Names { cursor, names: vec![] }]);
    let mut output = BytesMut::new();
    assert!(codec.encode(&none(9), &mut output).is_some(), "on from there");
    assert!(codec.encode(&none(0), &mut output).is_some(), "and from the beginning");
    assert_eq!(told(&mut codec, &none(0)), "$-1\r\n");
}

#[test]
fn both_versions_are_spoken() {
    let mut codec = codec();
    // What was asked before HELLO is answered in the version of before.
    asked(&mut codec, &["GET", "k"]);
    let hello = said(&mut codec, &["HELLO", "3", "AUTH", "default", "x", "SETNAME", "me"]);
    assert!(hello.starts_with("%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.2.4"));
    assert!(hello.contains("$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:7\r\n"), "{hello}");
    asked(&mut codec, &["GET", "k"]);
    let nothing = answers(vec![Answer::Item(None)]);
    assert_eq!(told(&mut codec, &nothing), "$-1\r\n");
    assert_eq!(told(&mut codec, &nothing), "_\r\n");
    assert_eq!(said(&mut codec, &["CLIENT", "GETNAME"]), "$2\r\nme\r\n");
    assert_eq!(said(&mut codec, &["HELLO", "4"]), "-NOPROTO unsupported protocol version\r\n");
    assert_eq!(said(&mut codec, &["RESET"]), "+RESET\r\n");
    assert_eq!(said(&mut codec, &["CLIENT", "GETNAME"]), "$-1\r\n");
}

#[test]
fn replies_can_be_switched_off() {
    let mut codec = codec();
    let mut all = bytes_of(&["CLIENT", "REPLY", "SKIP"]);
    all.extend(bytes_of(&["SET", "k", "v"]));
    all.extend(bytes_of(&["PING"]));
    all.extend(bytes_of(&["CLIENT", "REPLY", "OFF"]));
    all.extend(bytes_of(&["PING"]));
    all.extend(bytes_of(&["CLIENT", "REPLY", "ON"]));
    let taken: Vec<_> = taken(&mut codec, &all)
        .into_iter()
        .filter(|incoming| *incoming != Incoming::Unheard)
        .collect();
    let said = |bytes: &'static str| Incoming::Written(bytes.into());
    assert!(matches!(taken[0], Incoming::Ask(_)));
    assert_eq!(taken[1..], [said("+PONG\r\n"), said("+OK\r\n")]);
    assert_eq!(told(&mut codec, &answers(vec![Answer::Stored { version: 1 }])), "");
}

#[test]
fn failures_say_what_became_of_the_request() {
    let table = [
        (ErrorKind::NoLeader, "no leader, not applied", "-CLUSTERDOWN no leader, not applied\r\n"),
        (
            ErrorKind::Unknown,
            "may or may not have been applied",
            "-UNKNOWN may or may not have been applied\r\n",
        ),
        (
            ErrorKind::OutOfMemory,
            "x",
            "-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        ),
        (
            ErrorKind::DiskFull,
            "disk full: writes are refused, reads go on",
            "-MISCONF disk full: writes are refused, reads go on\r\n",
        ),
        (ErrorKind::Busy, "x", "-BUSY try again\r\n"),
        (ErrorKind::Invalid, "5 bytes", "-ERR 5 bytes\r\n"),
    ];
    for (kind, reason, reads) in table {
        let mut codec = codec();
        asked(&mut codec, &["SET", "k", "v"]);
        assert_eq!(told(&mut codec, &Reply::Error(kind, reason.to_owned())), reads);
    }
}

#[test]
fn a_reply_is_within_its_limit() {
    let limits = Limits { reply_bytes: 100, ..Limits::default() };
    let mut codec = RespCodec::new(limits, 1, 1, Box::new(Nowhere));
    asked(&mut codec, &["MGET", "a", "b"]);
    let long = item(&"x".repeat(60), 1);
    let told = told(&mut codec, &answers(vec![long.clone(), long]));
    assert_eq!(told, "-UNKNOWN done, but the reply is too large to send\r\n");
}

/// [A client queues for ever and never says EXEC.]
#[test]
fn a_transaction_is_within_its_limit() {
    let limits = Limits { request_bytes: 10_000, ..Limits::default() };
    let mut codec = RespCodec::new(limits, 1, 1, Box::new(Nowhere));
    taken(&mut codec, &bytes_of(&["MULTI"]));
    let value = "x".repeat(1000);
    let refused = (0..20).find(|_| said(&mut codec, &["SET", "k", &value]) != "+QUEUED\r\n");
    assert!(refused.is_some_and(|count| count < 10), "{refused:?}");
    let held = codec.session.transaction.as_ref().map(|transaction| transaction.commands.len());
    assert_eq!(held, Some(0), "it is not kept either");
    assert!(said(&mut codec, &["EXEC"]).starts_with("-EXECABORT"));
}

/// Taken from Redis 7.0, which was asked the same.
#[test]
fn what_makes_no_sense_ends_the_connection_in_redis_words() {
    let table: &[(&[u8], &str)] = &[
        (b"*x\r\n", "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*1\r\n+PING\r\n", "expected '$', got '+'"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$x\r\n", "invalid bulk length"),
        (b"*1\r\n$16777217\r\n", "invalid bulk length"),
        (b"get \"k\r\n", "unbalanced quotes in request"),
        (b"get \"k\"x\r\n", "unbalanced quotes in request"),
    ];
    for (bytes, reason) in table {
        let mut codec = codec();
        let error = codec.decode(&mut BytesMut::from(*bytes)).unwrap_err();
        let mut farewell = BytesMut::new();
        codec.farewell(&error, &mut farewell);
        let expected = format!("-ERR Protocol error: {reason}\r\n");
        assert_eq!(farewell, expected.as_bytes(), "{}", bytes.escape_ascii());
    }
}

#[test]
fn lines_without_an_end_are_refused() {
    for (begin, reason) in [
        (&b"*"[..], "too big mbulk count string"),
        (b"*1\r\n$", "too big bulk count string"),
        (b"get ", "too big inline request"),
    ] {
        let mut input = BytesMut::from(begin);
        input.resize(70_000, b'1');
        let error = codec().decode(&mut input).unwrap_err();
        assert_eq!(error, ProtocolError::Resp(reason));
    }
}

#[test]
fn a_line_is_split_as_in_a_shell() {
    let words = |line: &str| {
        let words = parse::split_words(line.as_bytes()).unwrap();
        (0..words.count()).map(|i| words.get(i).escape_ascii().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(words("  set  k  v "), ["set", "k", "v"]);
    assert_eq!(words(r#"set "a b" 'c d'"#), ["set", "a b", "c d"]);
    assert_eq!(words(r#"set "\x41\n\"" 'it\'s'"#), ["set", "A\\n\\\"", "it\\'s"]);
    assert_eq!(words(r#"set "" '\n'"#), ["set", "", "\\\\n"]);
    assert!(words("").is_empty());
}

/// Arguments share the memory that they arrived in.
#[test]
fn a_value_is_not_copied() {
    let bytes = bytes_of(&["SET", "key", "value"]);
    let mut input = BytesMut::from(&bytes[..]);
    let range = input.as_ptr_range();
    let range = range.start as usize..range.end as usize;
    let Ok(Some(Incoming::Ask(Request::Run { batch, .. }))) = codec().decode(&mut input) else {
        panic!("it is a command")
    };
    let Command::Set { key, value, .. } = &batch.commands[0] else { panic!("a set") };
    assert!(range.contains(&(value.as_ptr() as usize)));
    assert!(range.contains(&(key.name.as_ptr() as usize)));
}

/// Every command is found by its name, in the order that lookup needs.
#[test]
fn the_table_holds_every_command_once() {
    for spec in table::COMMANDS {
        let found = table::find(spec.name.to_uppercase().as_bytes()).unwrap();
        assert!(std::ptr::eq(found, spec), "{}", spec.name);
        assert_eq!(spec.name, spec.name.to_lowercase());
        assert!(spec.name.len() <= 32);
    }
    assert!(table::find(&[b'x'; 100]).is_none());
}

fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "SET",
            "GET",
            "MULTI",
            "EXEC",
            "WATCH",
            "k",
            "v",
            "1",
            "-1",
            "EX",
            "NX",
            "KEYS",
            "*",
            "HELLO",
            "3",
            "SCAN",
            "0",
            "MSET",
            "LCS",
            "EXPIRE",
            "SELECT",
            "",
            "9223372036854775807",
        ])
        .prop_map(|word| word.as_bytes().to_vec()),
        vec(any::<u8>(), 0..5),
    ];
    let command = vec(word, 0..6).prop_map(|words| {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend(format!("${}\r\n", word.len()).into_bytes());
            bytes.extend(word);
            bytes.extend(b"\r\n");
        }
        bytes
    });
    let inline = "[a-zA-Z0-9 \"'\\\\]{0,12}".prop_map(|line| format!("{line}\r\n").into_bytes());
    let noise = vec(any::<u8>(), 0..10);
    vec(prop_oneof![8 => command, 2 => inline, 1 => noise], 0..12).prop_map(|parts| parts.concat())
}

/// What comes of a stream that arrives in pieces; everything asked is answered at
/// once with an error.
fn deliver(bytes: &[u8], sizes: &[usize]) -> (Vec<u8>, Option<ProtocolError>) {
    let (mut codec, mut input, mut output) = (codec(), BytesMut::new(), BytesMut::new());
    let refused = Reply::Error(ErrorKind::Busy, String::new());
    let mut pieces = pieces(bytes, sizes);
    loop {
        match codec.decode(&mut input) {
            Ok(Some(Incoming::Ask(_))) => {
                assert_eq!(codec.encode(&refused, &mut output), None);
            }
            Ok(Some(Incoming::Written(bytes) | Incoming::Late(_, bytes))) => {
                output.extend_from_slice(&bytes);
            }
            Ok(Some(Incoming::Unheard)) => {}
            Ok(Some(Incoming::Answered(_))) => unreachable!("it is written"),
            Ok(None) if codec.ends() => return (output.to_vec(), None),
            Ok(None) => match pieces.next() {
                Some(piece) => input.extend_from_slice(piece),
                None => return (output.to_vec(), None),
            },
            Err(error) => return (output.to_vec(), Some(error)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_of_any_size_make_the_same_replies(
        bytes in any_stream(),
        sizes in vec(1..40usize, 1..20),
    ) {
        let whole = deliver(&bytes, &[bytes.len().max(1)]);
        prop_assert_eq!(&deliver(&bytes, &sizes), &whole);
        prop_assert_eq!(&deliver(&bytes, &[1]), &whole);
    }
}
