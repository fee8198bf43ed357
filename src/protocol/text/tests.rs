//! Golden exchanges, delivery in pieces, limits, and arbitrary input.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::protocol::pieces;
use crate::request::{Failure, Item};

fn one(answer: Answer) -> Reply {
    Reply::Answers(vec![answer])
}

fn item(value: &'static [u8]) -> Reply {
    one(Answer::Item(Some(Item { value: Bytes::from_static(value), version: 7 })))
}

fn set(key: &'static str, value: &'static str) -> Request {
    let (key, value) = (Key::new(key), Bytes::from(value));
    Request::run(Command::Set { key, value, expiry: Expiry::Never, condition: Condition::Always })
}

fn get(key: &'static str) -> Request {
    Request::run(Command::Get(Key::new(key)))
}

fn ttl(key: &'static str) -> Request {
    Request::run(Command::Ttl(Key::new(key)))
}

fn delete(key: &'static str) -> Request {
    Request::run(Command::Delete(Key::new(key)))
}

fn expire(key: &'static str, ms: u64) -> Request {
    Request::run(Command::Expire { key: Key::new(key), expiry: Expiry::AfterMs(ms) })
}

fn join(name: &str, peer_address: &str) -> Request {
    Request::Join { name: name.to_owned(), peer_address: peer_address.to_owned() }
}

/// What is asked, what the node answers, and what the client is sent.
fn exchanges() -> Vec<(&'static str, Request, Reply, &'static str)> {
    let stored = || one(Answer::Stored { version: 9 });
    vec![
        ("SET k v\n", set("k", "v"), stored(), "Success\n"),
        ("SET k v\r\n", set("k", "v"), stored(), "Success\n"),
        ("set \t k \t two words \r\n", set("k", "two words "), stored(), "Success\n"),
        (" SeT k \u{e4}\n", set("k", "\u{e4}"), stored(), "Success\n"),
        ("SET k v\r\r\n", set("k", "v\r"), stored(), "Success\n"),
        ("GET k\n", get("k"), item(b"two words"), "two words\n"),
        ("get k \r\n", get("k"), item(b""), "\n"),
        ("GET /foo\n", get("/foo"), one(Answer::Item(None)), "\n"),
        ("GET k\n", get("k"), item(b"a\nb"), "a\nb\n"),
        ("DEL k\n", delete("k"), one(Answer::Integer(1)), "Success\n"),
        ("DEL k\n", delete("k"), one(Answer::Integer(0)), "Success\n"),
        ("TTL k\n", ttl("k"), one(Answer::Ttl(Ttl::Ms(2000))), "2\n"),
        ("TTL k\n", ttl("k"), one(Answer::Ttl(Ttl::Ms(2001))), "3\n"),
        ("TTL k\n", ttl("k"), one(Answer::Ttl(Ttl::Ms(1))), "1\n"),
        ("TTL k\n", ttl("k"), one(Answer::Ttl(Ttl::Never)), "-1\n"),
        ("TTL k\n", ttl("k"), one(Answer::Ttl(Ttl::Absent)), "-2\n"),
        ("EXPIRE k 10\n", expire("k", 10_000), one(Answer::Integer(1)), "Success\n"),
        ("EXPIRE k -1\n", expire("k", 0), one(Answer::Integer(1)), "Success\n"),
        ("EXPIRE k 10\n", expire("k", 10_000), one(Answer::Integer(0)), "ERR no such key\n"),
        (
            "EXPIRE k 10\n",
            expire("k", 10_000),
            one(Answer::Failed(Failure::InvalidExpiry)),
            "ERR invalid expire time\n",
        ),
        ("JOIN node2 127.0.0.1:1112\n", join("node2", "127.0.0.1:1112"), Reply::Done, "Success\n"),
        ("join node2 :4001\r\n", join("node2", ":4001"), Reply::Done, "Success\n"),
        ("LEAVE node2\n", Request::Leave { name: "node2".into() }, Reply::Done, "Success\n"),
        ("PING\r\n", Request::Ping, Reply::Pong, "+PONG\r\n"),
        ("ping\n", Request::Ping, Reply::Pong, "+PONG\r\n"),
    ]
}

/// What is answered by the codec alone.
const LOCAL: &[(&str, &str)] = &[
    ("\n", "message must atleast have command, key or nodeID and remoteAddr\n"),
    (" \t \r\n", "message must atleast have command, key or nodeID and remoteAddr\n"),
    ("SET\n", "message must atleast have command, key or nodeID and remoteAddr\n"),
    ("GET \r\n", "message must atleast have command, key or nodeID and remoteAddr\n"),
    ("JOIN\n", "message must atleast have command, key or nodeID and remoteAddr\n"),
    ("NONSENSE\n", "message must atleast have command, key or nodeID and remoteAddr\n"),
    ("SET k\n", "SET message must have key and value\n"),
    ("set k  \r\n", "SET message must have key and value\n"),
    ("JOIN node2\n", "JOIN message must have nodeID and remoteAddr\n"),
    ("NONSENSE k\n", "Invalid command in message\n"),
    ("POSTS k\n", "Invalid command in message\n"),
    ("GET a b\n", "ERR too many words\n"),
    ("DEL a b\n", "ERR too many words\n"),
    ("PING a\n", "ERR too many words\n"),
    ("JOIN a b c\n", "ERR too many words\n"),
    ("EXPIRE k\n", "ERR EXPIRE message must have key and seconds\n"),
    ("EXPIRE k soon\n", "ERR seconds are not an integer\n"),
    ("EXPIRE k 9223372036854775807\n", "ERR invalid expire time\n"),
    ("HELP\n", HELP),
];

fn decode_one(codec: &mut TextCodec, line: impl AsRef<[u8]>) -> Incoming {
    let mut input = BytesMut::from(line.as_ref());
    let incoming = codec.decode(&mut input).unwrap().expect("a whole line");
    assert!(input.is_empty(), "{:?}", String::from_utf8_lossy(line.as_ref()));
    incoming
}

fn encoded(codec: &mut TextCodec, reply: &Reply) -> String {
    let mut output = BytesMut::new();
    codec.encode(reply, &mut output);
    String::from_utf8(output.to_vec()).unwrap()
}

#[test]
fn golden_exchanges() {
    for (line, request, reply, expected) in exchanges() {
        let mut codec = TextCodec::default();
        assert_eq!(decode_one(&mut codec, line), Incoming::Ask(request), "{line:?}");
        assert_eq!(encoded(&mut codec, &reply), expected, "{line:?}");
    }
}

#[test]
fn lines_that_make_no_sense_are_answered() {
    for (line, expected) in LOCAL {
        let incoming = decode_one(&mut TextCodec::default(), line);
        assert_eq!(incoming, Incoming::Written(Bytes::from(*expected)), "{line:?}");
    }
    let Incoming::Written(why) = decode_one(&mut TextCodec::default(), b"LEAVE \xff\n") else {
        panic!("it is asked")
    };
    assert_eq!(why, "ERR a name is not UTF-8\n");
}

#[test]
fn keys_and_values_are_any_bytes() {
    let incoming = decode_one(&mut TextCodec::default(), b"SET \xff\0 \x80 \0\n");
    let Incoming::Ask(Request::Run { batch, .. }) = incoming else { panic!("not a run") };
    let Command::Set { key, value, .. } = &batch.commands[0] else { panic!("not a set") };
    assert_eq!((&key.name[..], &value[..]), (&b"\xff\0"[..], &b"\x80 \0"[..]));
}

#[test]
fn a_value_shares_the_buffer() {
    let mut input = BytesMut::from("SET key value\n");
    let range = input.as_ptr_range();
    let incoming = TextCodec::default().decode(&mut input).unwrap().unwrap();
    let Incoming::Ask(Request::Run { batch, .. }) = incoming else { panic!("not a run") };
    let Command::Set { key, value, .. } = &batch.commands[0] else { panic!("not a set") };
    assert!(range.contains(&key.name.as_ptr()) && range.contains(&value.as_ptr()));
}

#[test]
fn failures_are_one_line_each() {
    let lines = [
        (ErrorKind::NoLeader, "ERR no leader, not applied\n"),
        (ErrorKind::Unknown, "ERR unknown: may or may not have been applied\n"),
        (ErrorKind::OutOfMemory, "ERR out of memory\n"),
        (ErrorKind::DiskFull, "ERR disk full\n"),
        (ErrorKind::Busy, "ERR busy\n"),
        (ErrorKind::Refused, "ERR the   reason\n"),
        (ErrorKind::Invalid, "ERR the   reason\n"),
        (ErrorKind::NotServing, "ERR the   reason\n"),
    ];
    for line in ["SET k v\n", "GET k\n", "TTL k\n", "EXPIRE k 1\n", "LEAVE a\n", "PING\n"] {
        for (kind, expected) in lines {
            let mut codec = TextCodec::default();
            decode_one(&mut codec, line);
            let reply = Reply::Error(kind, "the \r\nreason".to_owned());
            assert_eq!(encoded(&mut codec, &reply), expected, "{line:?}");
        }
    }
}

/// Nothing is ever called done that the answer does not say is done.
#[test]
fn an_answer_to_something_else_is_no_success() {
    for line in ["SET k v\n", "DEL k\n", "EXPIRE k 1\n", "GET k\n", "PING\n"] {
        for reply in [Reply::GuardFailed, Reply::Answers(Vec::new()), one(Answer::Done)] {
            let mut codec = TextCodec::default();
            decode_one(&mut codec, line);
            let expected = "ERR unknown: may or may not have been applied\n";
            assert_eq!(encoded(&mut codec, &reply), expected, "{line:?}: {reply:?}");
        }
    }
    let mut codec = TextCodec::default();
    decode_one(&mut codec, "SET k v\n");
    assert!(encoded(&mut codec, &one(Answer::NotStored { version: 1 })).starts_with("ERR "));
}

#[test]
fn quit_is_the_last() {
    let mut codec = TextCodec::default();
    decode_one(&mut codec, "GET k\n");
    assert!(!codec.ends());
    let incoming = decode_one(&mut codec, "quit\r\n");
    assert_eq!(incoming, Incoming::Written(Bytes::from("Success\n")));
    assert!(codec.ends());
}

/// Replies are written for the requests they belong to, whatever was answered
/// without asking in between.
#[test]
fn a_pipeline_keeps_its_order() {
    let mut codec = TextCodec::default();
    for line in ["PING\n", "GET a\n", "\n", "SET a b\n", "NONSENSE a\n", "TTL a\n"] {
        decode_one(&mut codec, line);
    }
    let replies =
        [Reply::Pong, item(b"1"), one(Answer::Stored { version: 1 }), one(Answer::Ttl(Ttl::Never))];
    let written: Vec<_> = replies.iter().map(|reply| encoded(&mut codec, reply)).collect();
    assert_eq!(written, ["+PONG\r\n", "1\n", "Success\n", "-1\n"]);
}

/// What a codec takes of the input and how it ends.
type Taken = (Vec<Incoming>, Option<ProtocolError>);

/// Feeds `bytes` in pieces of these sizes, over and over.
fn deliver(bytes: &[u8], sizes: &[usize]) -> Taken {
    let mut codec = TextCodec::default();
    let mut input = BytesMut::new();
    let mut taken = Vec::new();
    for piece in pieces(bytes, sizes) {
        input.put_slice(piece);
        loop {
            match codec.decode(&mut input) {
                Ok(Some(incoming)) => taken.push(incoming),
                Ok(None) => break,
                Err(error) => return (taken, Some(error)),
            }
        }
        assert!(input.len() <= LINE_BYTES, "an unfinished line of {}", input.len());
    }
    (taken, None)
}

#[test]
fn lines_arrive_byte_by_byte() {
    let mut stream = String::new();
    exchanges().iter().for_each(|(line, ..)| stream += line);
    LOCAL.iter().for_each(|(line, _)| stream += line);
    let whole = deliver(stream.as_bytes(), &[stream.len()]);
    assert_eq!(whole.0.len(), exchanges().len() + LOCAL.len());
    assert_eq!(deliver(stream.as_bytes(), &[1]), whole);
}

#[test]
fn a_line_has_at_most_64_kib() {
    let line = |length: usize| {
        let mut line = b"SET k ".to_vec();
        line.resize(length, b'v');
        line
    };
    for sizes in [&[1][..], &[1 << 20]] {
        let longest = [line(LINE_BYTES), b"\nPING\n".to_vec()].concat();
        let (taken, error) = deliver(&longest, sizes);
        assert_eq!((taken.len(), error), (2, None));
        for behind in [&b"\n"[..], b"\r\n", b"vvv"] {
            let too_long = [b"GET a\n".to_vec(), line(LINE_BYTES + 1), behind.to_vec()].concat();
            let (taken, error) = deliver(&too_long, sizes);
            assert_eq!(taken, [Incoming::Ask(get("a"))]);
            let error = error.expect("it is too long");
            let mut output = BytesMut::new();
            TextCodec::default().farewell(&error, &mut output);
            assert_eq!(output, "ERR line too long\n");
        }
    }
}

#[test]
fn other_limits_are_answered() {
    let limits = Limits { key_bytes: 2, value_bytes: 3, name_bytes: 4, ..Limits::default() };
    for (line, expected) in [
        ("GET abc\n", "ERR key of 3 is over the limit of 2\n"),
        ("SET ab abcd\n", "ERR value of 4 is over the limit of 3\n"),
        ("JOIN abcde a\n", "ERR name of 5 is over the limit of 4\n"),
        ("JOIN a abcde\n", "ERR address of 5 is over the limit of 4\n"),
    ] {
        let incoming = decode_one(&mut TextCodec::new(limits), line);
        assert_eq!(incoming, Incoming::Written(Bytes::from(expected)));
    }
    let incoming = decode_one(&mut TextCodec::new(limits), "SET ab abc\n");
    assert_eq!(incoming, Incoming::Ask(set("ab", "abc")));
}

/// [`GET /a b HTTP/1.1` is text; the header lines of a browser behind it are
/// not to be executed, nor is its body.]
#[test]
fn a_browser_is_not_talked_to() {
    for trap in ["POST /key HTTP/1.1\r\n", "post a\n", "Host: example\r\n", "HOST:x\n"] {
        let stream = format!("GET a\n{trap}SET stolen 1\n");
        let (taken, error) = deliver(stream.as_bytes(), &[1]);
        assert_eq!(taken, [Incoming::Ask(get("a"))]);
        let mut output = BytesMut::new();
        TextCodec::default().farewell(&error.expect("it is refused"), &mut output);
        assert!(output.is_empty());
    }
}

/// Lines that mean something more often than chance would have it.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "SET",
            "get",
            "DEL",
            "TTL",
            "EXPIRE",
            "JOIN",
            "LEAVE",
            "PING",
            "HELP",
            "QUIT",
            "POST",
            "Host:",
            "k",
            "-1",
            "99999999999999999999",
        ])
        .prop_map(|word| word.as_bytes().to_vec()),
        vec(any::<u8>(), 0..6),
    ];
    let gap = prop::sample::select(vec![" ", "\t", "\n", "\r\n", "\r", ""]);
    vec((word, gap), 0..40).prop_map(|words| {
        words.into_iter().flat_map(|(word, gap)| [word, gap.as_bytes().to_vec()].concat()).collect()
    })
}

proptest! {
    // What fails is printed in full and pinned by hand as a test of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_of_any_size_make_the_same_lines(bytes in any_stream(), sizes in vec(1..40usize, 1..20)) {
        prop_assert_eq!(deliver(&bytes, &sizes), deliver(&bytes, &[bytes.len().max(1)]));
    }

    #[test]
    fn no_input_makes_the_node_panic(bytes in any_stream(), answer in 0..4usize) {
        let mut input = BytesMut::from(&bytes[..]);
        let mut codec = TextCodec::default();
        let replies = [Reply::Done, Reply::Pong, item(b"v"), Reply::GuardFailed];
        while let Ok(Some(incoming)) = codec.decode(&mut input) {
            if matches!(incoming, Incoming::Ask(_)) {
                let mut output = BytesMut::new();
                codec.encode(&replies[answer], &mut output);
                prop_assert!(output.ends_with(b"\n"));
            }
        }
    }
}
