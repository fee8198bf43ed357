//! Golden exchanges, delivery in pieces, framing, limits, and arbitrary input.

use bytes::BufMut;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::protocol::pieces;
use crate::protocol::surroundings::Nowhere;
use crate::request::{
    Answer, Batch, Command, Condition, Consistency, ErrorKind, Expiry, Failure, Guard, Item, Key,
    MemberInfo, Request, RoleName, Status,
};

fn key(name: &'static str) -> Key {
    Key::new(name)
}

fn set_with(key: Key, value: &'static [u8], expiry: Expiry, condition: Condition) -> Request {
    let value = Bytes::from_static(value);
    Request::run(Command::Set { key, value, expiry, condition })
}

fn set(name: &'static str, value: &'static str) -> Request {
    set_with(key(name), value.as_bytes(), Expiry::Never, Condition::Always)
}

fn get(name: &'static str) -> Request {
    Request::run(Command::Get(key(name)))
}

fn stale(name: &'static str) -> Request {
    let batch = Batch::of(Command::Get(key(name)));
    Request::Run { batch, consistency: Consistency::Stale, session: None }
}

fn delete(name: &'static str) -> Request {
    Request::run(Command::Delete(key(name)))
}

fn delete_if(name: &'static str, version: u64) -> Request {
    let guards = vec![Guard { key: key(name), version }];
    let batch = Batch { guards, commands: vec![Command::Delete(key(name))] };
    Request::Run { batch, consistency: Consistency::Linearizable, session: None }
}

fn join(name: &str, peer_address: &str) -> Request {
    Request::Join { name: name.to_owned(), peer_address: peer_address.to_owned() }
}

fn leave(name: &str) -> Request {
    Request::Leave { name: name.to_owned() }
}

fn one(answer: Answer) -> Reply {
    Reply::Answers(vec![answer])
}

fn stored() -> Reply {
    one(Answer::Stored { version: 9 })
}

fn item(value: &'static [u8]) -> Reply {
    one(Answer::Item(Some(Item { value: Bytes::from_static(value), version: 7 })))
}

fn absent() -> Reply {
    one(Answer::Item(None))
}

fn removed(count: i64) -> Reply {
    one(Answer::Integer(count))
}

/// A request of HTTP/1.1 without a body.
fn plain(line: &str) -> Vec<u8> {
    with(line, "", b"")
}

/// A request with more headers and a body.
fn with(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{line} HTTP/1.1\r\nHost: node\r\n{headers}").into_bytes();
    if !body.is_empty() {
        bytes.extend(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend([b"\r\n", body].concat());
    bytes
}

fn chunked(line: &str, body: &str) -> Vec<u8> {
    with(line, &format!("Transfer-Encoding: chunked\r\n\r\n{body}"), b"")
        .strip_suffix(b"\r\n")
        .unwrap()
        .to_vec()
}

/// A response as it is written, line by line for the reader.
fn response(status: &str, headers: &[&str], body: &str) -> String {
    let mut text = format!("HTTP/1.1 {status}\r\n");
    headers.iter().for_each(|header| text += &format!("{header}\r\n"));
    text + "\r\n" + body
}

fn of_type(status: &str, content_type: &str, extra: &[&str], body: &str) -> String {
    let (content_type, length) =
        (format!("Content-Type: {content_type}"), format!("Content-Length: {}", body.len()));
    response(status, &[&[&content_type[..], &length], extra].concat(), body)
}

fn text(body: &str) -> String {
    of_type("200 OK", "text/plain; charset=utf-8", &[], body)
}

fn json(status: &str, extra: &[&str], body: &str) -> String {
    of_type(status, "application/json", extra, body)
}

fn no_such_key() -> String {
    json("404 Not Found", &[], r#"{"message":"there is no such key","status":404}"#)
}

const ETAG_7: &str = "ETag: \"7\"";
const LINE: &str = "text/plain; charset=utf-8";
const RAW: &str = "application/octet-stream";

type Exchange = (Vec<u8>, Request, Reply, String);

/// Values as they are: what is asked, what the node answers, what is sent.
fn raw_exchanges() -> Vec<Exchange> {
    let put = |query: &str, headers: &str| with(&format!("PUT /v1/keys/k{query}"), headers, b"v");
    let set_k = |expiry, condition| set_with(key("k"), b"v", expiry, condition);
    let if_ = |condition| set_k(Expiry::Never, condition);
    let for_ms = |ms| set_k(Expiry::AfterMs(ms), Condition::Always);
    let not_stored = || one(Answer::NotStored { version: 8 });
    let done = || response("204 No Content", &["ETag: \"9\""], "");
    let gone = || response("204 No Content", &[], "");
    let failed = || {
        let body = r#"{"message":"the condition does not hold","status":412}"#;
        json("412 Precondition Failed", &[], body)
    };
    let conflict = |why: &str| {
        json("409 Conflict", &[], &format!(r#"{{"message":"the version is {why}","status":409}}"#))
    };
    vec![
        (put("", ""), set("k", "v"), stored(), done()),
        (plain("PUT /v1/keys/k"), set("k", ""), stored(), done()),
        (put("?ttl=10s", ""), for_ms(10_000), stored(), done()),
        (put("?ttl=500ms", ""), for_ms(500), stored(), done()),
        (put("?ttl=2m", ""), for_ms(120_000), stored(), done()),
        (put("?ttl=1h", ""), for_ms(3_600_000), stored(), done()),
        (put("?nx", ""), if_(Condition::IfAbsent), stored(), done()),
        (put("?nx=1&", ""), if_(Condition::IfAbsent), not_stored(), failed()),
        (put("", "If-None-Match: *\r\n"), if_(Condition::IfAbsent), not_stored(), failed()),
        (put("?xx", ""), if_(Condition::IfPresent), not_stored(), failed()),
        (put("", "If-Match: *\r\n"), if_(Condition::IfPresent), not_stored(), failed()),
        (put("?version=7", ""), if_(Condition::IfVersion(7)), stored(), done()),
        (put("?version=0", ""), if_(Condition::IfVersion(0)), not_stored(), conflict("8")),
        (put("", "if-match: \"7\"\r\n"), if_(Condition::IfVersion(7)), not_stored(), conflict("8")),
        (
            put("?ttl=1s&xx", ""),
            set_k(Expiry::AfterMs(1000), Condition::IfPresent),
            stored(),
            done(),
        ),
        (plain("GET /v1/keys/k"), get("k"), item(b"v"), of_type("200 OK", RAW, &[ETAG_7], "v")),
        (plain("GET /v1/keys/k"), get("k"), absent(), no_such_key()),
        (
            plain("GET /v1/keys/k?consistency=stale"),
            stale("k"),
            item(b""),
            of_type("200 OK", RAW, &[ETAG_7], ""),
        ),
        (
            plain("HEAD /v1/keys/k"),
            get("k"),
            item(b"four"),
            of_type("200 OK", RAW, &[ETAG_7], "four").strip_suffix("four").unwrap().to_owned(),
        ),
        (plain("DELETE /v1/keys/k"), delete("k"), removed(1), gone()),
        (plain("DELETE /v1/keys/k"), delete("k"), removed(0), no_such_key()),
        (plain("DELETE /v1/keys/k?version=7"), delete_if("k", 7), removed(1), gone()),
        (
            with("DELETE /v1/keys/k", "If-Match: \"7\"\r\n", b""),
            delete_if("k", 7),
            Reply::GuardFailed,
            conflict("another"),
        ),
    ]
}

/// What the ancestors' clients say, in the same way.
fn exchanges_of_ancestors() -> Vec<Exchange> {
    let post = |path: &str, body: &str| with(&format!("POST {path}"), "", body.as_bytes());
    let set_two = {
        let Request::Run { batch: mut two, .. } = set("a", "1") else { panic!() };
        let Request::Run { batch: other, .. } = set("b", "\u{e4}\n") else { panic!() };
        two.commands.extend(other.commands);
        Request::Run { batch: two, consistency: Consistency::Linearizable, session: None }
    };
    let both = Reply::Answers(vec![Answer::Stored { version: 9 }; 2]);
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let line = |body| of_type("200 OK", LINE, &[ETAG_7], body);
    vec![
        (with("POST /key", form, br#"{"k":"v"}"#), set("k", "v"), stored(), text("OK")),
        (post("/key", r#" {"a":"1", "b":"\u00e4\n"} "#), set_two, both, text("OK")),
        (plain("GET /key/k"), get("k"), item(b"v"), json("200 OK", &[ETAG_7], r#"{"k":"v"}"#)),
        (
            plain("GET /key/a%22b?consistency=stale"),
            stale("a\"b"),
            item(b"\x01\"\\\n\xc3\xa4"),
            json("200 OK", &[ETAG_7], r#"{"a\"b":"\u0001\"\\\nä"}"#),
        ),
        (plain("GET /key/k"), get("k"), absent(), json("404 Not Found", &[], r#"{"k":""}"#)),
        (
            plain("GET /key/k"),
            get("k"),
            item(b"\xff"),
            json(
                "406 Not Acceptable",
                &[],
                r#"{"message":"the value cannot be said in JSON; /v1/keys/ has it as it is","status":406}"#,
            ),
        ),
        (plain("DELETE /key/k"), delete("k"), removed(1), text("")),
        (plain("DELETE /key/k"), delete("k"), removed(0), text("")),
        (
            post("/join", r#"{"addr":":4002","id":"n2"}"#),
            join("n2", ":4002"),
            Reply::Done,
            text(""),
        ),
        (post("/join", r#"{"addr":"a:1"}"#), join("a:1", "a:1"), Reply::Done, text("")),
        (post("/leave", r#"{"addr":"a:1"}"#), leave("a:1"), Reply::Done, text("")),
        (post("/leave", r#"{"id":"n2"}"#), leave("n2"), Reply::Done, text("")),
        (plain("POST /api/v1/key/k/value/v"), set("k", "v"), stored(), text("")),
        (plain("POST /api/v1/key/k/v"), set("k", "v"), stored(), text("")),
        (plain("POST /api/v1/key/k/value"), set("k", "value"), stored(), text("")),
        (plain("POST /api/v1/key/a%2Fb/%20"), set("a/b", " "), stored(), text("")),
        (plain("GET /api/v1/key/k"), get("k"), item(b"v"), line("v\n")),
        (plain("GET /api/v1/key/k?consistency=stale"), stale("k"), item(b""), line("\n")),
        (plain("GET /api/v1/key/k"), get("k"), absent(), no_such_key()),
        (plain("DELETE /api/v1/key/k"), delete("k"), removed(0), text("")),
        (
            post("/api/v1/node", r#"{"addr":"a:1","node_id":"n2"}"#),
            join("n2", "a:1"),
            Reply::Done,
            text(""),
        ),
        (plain("DELETE /api/v1/node/n%202"), leave("n 2"), Reply::Done, text("")),
    ]
}

fn count() -> Request {
    Request::run(Command::Count { db: 0 })
}

fn exchanges_about_the_node() -> Vec<Exchange> {
    vec![
        (plain("GET /health"), Request::Ping, Reply::Pong, text("OK")),
        (plain("HEAD /health?x"), Request::Ping, Reply::Pong, text("OK").replace("\nOK", "\n")),
        (plain("GET /ready"), count(), removed(17), text("OK")),
        (
            plain("GET /ready"),
            count(),
            Reply::Error(ErrorKind::Unknown, "?".to_owned()),
            json("503 Service Unavailable", &["Retry-After: 1"], r#"{"message":"?","status":503}"#),
        ),
    ]
}

fn exchanges() -> Vec<Exchange> {
    [raw_exchanges(), exchanges_of_ancestors(), exchanges_about_the_node()].concat()
}

fn codec_with(limits: Limits) -> HttpCodec {
    HttpCodec::new(limits, Box::new(Nowhere))
}

fn fresh() -> HttpCodec {
    codec_with(Limits::default())
}

fn decode_one(codec: &mut HttpCodec, bytes: &[u8]) -> Incoming {
    let mut input = BytesMut::from(bytes);
    let incoming = codec.decode(&mut input).unwrap();
    incoming.unwrap_or_else(|| panic!("incomplete: {}", String::from_utf8_lossy(bytes)))
}

fn encoded(codec: &mut HttpCodec, reply: &Reply) -> String {
    let mut output = BytesMut::new();
    codec.encode(reply, &mut output);
    String::from_utf8(output.to_vec()).unwrap()
}

/// What a request is answered with by the codec alone, and whether that is the last.
fn answered(bytes: &[u8]) -> (String, bool) {
    let mut codec = fresh();
    match decode_one(&mut codec, bytes) {
        Incoming::Written(written) => (String::from_utf8(written.to_vec()).unwrap(), codec.ends()),
        asked => panic!("{} asks {asked:?}", String::from_utf8_lossy(bytes)),
    }
}

/// The same, as it should be: its status, and whether the connection ends.
fn refused(bytes: &[u8], status: u16, ends: bool) {
    let (response, ended) = answered(bytes);
    let request = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
    assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {response}");
    assert!(response.contains(&format!("\"status\":{status}}}")), "{request}: {response}");
    assert_eq!(ended, ends, "{request}: {response}");
    assert_eq!(response.contains("Connection: close\r\n"), ends, "{request}: {response}");
}

#[test]
fn golden_exchanges() {
    for (bytes, request, reply, expected) in exchanges() {
        let line = String::from_utf8_lossy(&bytes).into_owned();
        let mut codec = fresh();
        assert_eq!(decode_one(&mut codec, &bytes), Incoming::Ask(request), "{line}");
        assert_eq!(encoded(&mut codec, &reply), expected, "{line}");
        assert!(!codec.ends(), "{line}");
    }
}

/// [A page that somebody looks at posts to 127.0.0.1, and a member is removed.]
#[test]
fn pages_in_a_browser_change_nothing() {
    let leave = |header: &str| {
        format!(
            "POST /leave HTTP/1.1\r\nHost: h\r\n{header}\r\nContent-Length: 13\r\n\r\n{{\"id\":\"node2\"}}"
        )
    };
    for header in ["Origin: http://evil", "Origin: null", "Sec-Fetch-Site: cross-site"] {
        let (response, ends) = answered(leave(header).as_bytes());
        assert!(response.starts_with("HTTP/1.1 403 ") && ends, "{header}: {response}");
    }
    let mut codec = fresh();
    let own = leave("Sec-Fetch-Site: none").replace("13", "14");
    assert!(matches!(decode_one(&mut codec, own.as_bytes()), Incoming::Ask(_)));
}

#[test]
fn status_is_told_in_json() {
    let member = |name: &str, node, leader| MemberInfo {
        name: name.to_owned(),
        node,
        peer_address: format!("{name}:4001"),
        client_address: format!("{name}:3001"),
        voter: true,
        leader,
        durable: None,
    };
    let mut status = Status {
        name: "n2".to_owned(),
        node: 2,
        cluster: 10,
        role: RoleName::Follower,
        leader: Some("n1".to_owned()),
        term: 3,
        last: 9,
        durable: 8,
        commit: 7,
        applied: 6,
        log_bytes: 5,
        keys: 4,
        memory_bytes: 3,
        memory_limit_bytes: 2,
        state_hash: u64::MAX,
        log_time_ms: 1,
        clock_offset_ms: -1,
        members: vec![member("n1", 1, true), member("n2", 2, false)],
        warnings: Vec::new(),
    };
    let ask = |status: &Status| {
        let mut codec = fresh();
        assert_eq!(decode_one(&mut codec, &plain("GET /status")), Incoming::Ask(Request::Status));
        let response = encoded(&mut codec, &Reply::Status(Box::new(status.clone())));
        assert!(response.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"));
        let body = response.split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str::<serde_json::Value>(body).unwrap()
    };
    let shown = |name: &str| {
        let (address, client) = (format!("{name}:4001"), format!("{name}:3001"));
        serde_json::json!({
            "id": name, "address": address, "client_address": client, "voter": true,
        })
    };
    let expected = serde_json::json!({
        "me": shown("n2"),
        "leader": shown("n1"),
        "followers": [shown("n2")],
        "role": "follower",
        "health": "ok",
        "warnings": [],
        "cluster": "0000000000000000000000000000000a",
        "node": "00000000000000000000000000000002",
        "term": 3,
        "last_index": 9,
        "durable_index": 8,
        "commit_index": 7,
        "applied_index": 6,
        "log_bytes": 5,
        "keys": 4,
        "memory_bytes": 3,
        "memory_limit_bytes": 2,
        "state_hash": "ffffffffffffffff",
        "log_time_ms": 1,
        "clock_offset_ms": -1,
    });
    assert_eq!(ask(&status), expected);
    status.members.clear();
    status.warnings.push("look".to_owned());
    let alone = ask(&status);
    assert_eq!(alone["me"]["id"], "n2");
    assert_eq!((&alone["leader"], &alone["health"]), (&serde_json::Value::Null, &"warning".into()));
    assert_eq!(alone["followers"], serde_json::json!([]));
}

#[test]
fn failures_have_their_numbers() {
    let table = [
        (ErrorKind::NoLeader, "503 Service Unavailable", true),
        (ErrorKind::Busy, "503 Service Unavailable", true),
        (ErrorKind::NotServing, "503 Service Unavailable", false),
        (ErrorKind::Unknown, "504 Gateway Timeout", false),
        (ErrorKind::OutOfMemory, "507 Insufficient Storage", false),
        (ErrorKind::DiskFull, "507 Insufficient Storage", false),
        (ErrorKind::Invalid, "400 Bad Request", false),
        (ErrorKind::Refused, "409 Conflict", false),
    ];
    for (bytes, request, ..) in
        exchanges().into_iter().filter(|(.., request, _, _)| *request != count())
    {
        for (kind, status, retry) in table {
            let mut codec = fresh();
            decode_one(&mut codec, &bytes);
            let extra: &[&str] = if retry { &["Retry-After: 1"] } else { &[] };
            let body = format!(r#"{{"message":"a \"b\"","status":{}}}"#, &status[..3]);
            let mut expected = json(status, extra, &body);
            if bytes.starts_with(b"HEAD") {
                expected.truncate(expected.len() - body.len());
            }
            let reply = Reply::Error(kind, "a \"b\"".to_owned());
            assert_eq!(encoded(&mut codec, &reply), expected, "{request:?}");
        }
    }
    let mut codec = fresh();
    decode_one(&mut codec, &plain("PUT /v1/keys/k?ttl=1000000000h"));
    let failed = encoded(&mut codec, &one(Answer::Failed(Failure::InvalidExpiry)));
    assert!(failed.starts_with("HTTP/1.1 400 "), "{failed}");
}

/// Nothing is ever called done that the answer does not say is done.
#[test]
fn an_answer_to_something_else_is_no_success() {
    for (bytes, request, ..) in exchanges() {
        for reply in
            [Reply::Answers(Vec::new()), one(Answer::Done), Reply::SessionOpened { session: 1 }]
        {
            let mut codec = fresh();
            decode_one(&mut codec, &bytes);
            let found = encoded(&mut codec, &reply);
            let is_all = bytes.starts_with(b"POST /key ") && reply == Reply::Answers(Vec::new());
            assert!(found.starts_with("HTTP/1.1 504 ") || is_all, "{request:?}: {found}");
        }
    }
    let mut codec = fresh();
    decode_one(&mut codec, &with("POST /key", "", br#"{"a":"1","b":"2"}"#));
    let half = vec![Answer::Stored { version: 1 }, Answer::NotStored { version: 1 }];
    assert!(encoded(&mut codec, &Reply::Answers(half)).starts_with("HTTP/1.1 504 "));
}

#[test]
fn what_needs_no_node_is_answered() {
    let (index, ends) = answered(&plain("GET /"));
    assert_eq!((index, ends), (text(INDEX), false));
    let (head, _) = answered(&plain("HEAD /?x"));
    assert_eq!(head, text(INDEX).strip_suffix(INDEX).unwrap());
    assert_eq!(answered(&with("POST /key", "", b"{}")), (text("OK"), false));
}

#[test]
fn paths_that_are_none() {
    for path in [
        "/x",
        "/metrics/",
        "/key/a/b",
        "/key/a/",
        "//key/a",
        "/v1/keys",
        "/v1/keys/a/b",
        "/api/v1/key",
        "/api/v1/key/k/v/w",
        "/api/v1/key/k/VALUE/v",
        "/Key/a",
        "/join/",
        "/v1/key/a",
        "*",
        "/%6Bey/a",
    ] {
        refused(&plain(&format!("GET {path}")), 404, false);
        refused(&with(&format!("PUT {path}"), "", b"some body"), 404, false);
    }
}

#[test]
fn methods_that_are_none_say_which_there_are() {
    let table = [
        ("/", "GET, HEAD"),
        ("/status", "GET, HEAD"),
        ("/health", "GET, HEAD"),
        ("/ready", "GET, HEAD"),
        ("/key", "POST"),
        ("/key/k", "GET, HEAD, DELETE"),
        ("/join", "POST"),
        ("/leave", "POST"),
        ("/api/v1/key/k", "GET, HEAD, DELETE"),
        ("/api/v1/key/k/v", "POST"),
        ("/api/v1/key/k/value/v", "POST"),
        ("/api/v1/node", "POST"),
        ("/api/v1/node/n", "DELETE"),
        ("/v1/keys/k", "GET, HEAD, PUT, DELETE"),
    ];
    for (path, allowed) in table {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get"] {
            let bytes = with(&format!("{method} {path}"), "", b"{}");
            let mut codec = fresh();
            let incoming = decode_one(&mut codec, &bytes);
            let is_refused = matches!(&incoming, Incoming::Written(written)
                if written.starts_with(b"HTTP/1.1 405 Method Not Allowed\r\n"));
            let is_allowed = allowed.split(", ").any(|known| known == method);
            assert_eq!(is_refused, !is_allowed, "{method} {path}: {incoming:?}");
            if let Incoming::Written(written) = incoming
                && is_refused
            {
                let text = String::from_utf8(written.to_vec()).unwrap();
                assert!(text.contains(&format!("\r\nAllow: {allowed}\r\n")), "{text}");
            }
        }
    }
}

#[test]
fn a_key_is_one_segment_of_any_bytes() {
    let keys: &[(&str, &[u8])] = &[
        ("a%2Fb", b"a/b"),
        ("a%2fb%00%FF", b"a/b\0\xff"),
        ("", b""),
        ("a+b", b"a+b"),
        ("a%25b", b"a%b"),
        ("%3F%23%20", b"?# "),
        ("\u{e4}", "\u{e4}".as_bytes()),
    ];
    for (path, name) in keys {
        let key = Key::new(Bytes::from_static(name));
        let found = decode_one(&mut fresh(), &plain(&format!("GET /v1/keys/{path}")));
        assert_eq!(found, Incoming::Ask(Request::run(Command::Get(key.clone()))), "{path}");
        let found = decode_one(&mut fresh(), &plain(&format!("DELETE /key/{path}")));
        assert_eq!(found, Incoming::Ask(Request::run(Command::Delete(key))), "{path}");
    }
    refused(&plain("GET /v1/keys/%zz"), 400, false);
    refused(&plain("GET /v1/keys/%a"), 400, false);
    refused(&plain("GET /v1/keys/a%"), 400, false);
    refused(&plain("GET /key/%ff"), 406, false);
    // A whole address is what a proxy is sent.
    for origin in ["http://node:3001", "HTTPS://node"] {
        let found = decode_one(&mut fresh(), &plain(&format!("GET {origin}/v1/keys/k")));
        assert_eq!(found, Incoming::Ask(get("k")));
        assert_eq!(answered(&plain(&format!("GET {origin}"))).0, text(INDEX));
        assert_eq!(answered(&plain(&format!("GET {origin}?x"))).0, text(INDEX));
    }
}

/// What is not understood would not be obeyed.
#[test]
fn parameters_and_conditions_that_make_no_sense() {
    for query in [
        "ttl=10",
        "ttl=",
        "ttl",
        "ttl=s",
        "ttl=-1s",
        "ttl=+1s",
        "ttl=1.5s",
        "ttl=0s",
        "ttl=1d",
        "ttl=18446744073709551615h",
        "ttl=10s&ttl=20s",
        "nx=no",
        "nx=0",
        "nx&xx",
        "nx&version=1",
        "version=",
        "version=-1",
        "version=x",
        "version=18446744073709551616",
        "tll=10s",
        "consistency=stale",
        "%=1",
    ] {
        refused(&with(&format!("PUT /v1/keys/k?{query}"), "", b"v"), 400, false);
    }
    for query in
        ["consistency", "consistency=x", "consistency=stale&consistency=stale", "nx", "x=1"]
    {
        for path in ["/key/k", "/api/v1/key/k", "/v1/keys/k"] {
            refused(&plain(&format!("GET {path}?{query}")), 400, false);
        }
    }
    for headers in [
        "If-Match: 7\r\n",
        "If-Match: W/\"7\"\r\n",
        "If-Match: \"7\", \"8\"\r\n",
        "If-Match: \"x\"\r\n",
        "If-None-Match: \"7\"\r\n",
        "If-Match: \"7\"\r\nIf-Match: \"7\"\r\n",
        "If-Match: \"7\"\r\nIf-None-Match: *\r\n",
    ] {
        refused(&with("PUT /v1/keys/k", headers, b"v"), 400, false);
    }
    refused(&with("PUT /v1/keys/k?nx", "If-Match: \"7\"\r\n", b"v"), 400, false);
    refused(&with("DELETE /v1/keys/k", "If-None-Match: *\r\n", b""), 400, false);
    for (line, body) in [
        ("POST /key", &b"{\"a\":\"1\"}"[..]),
        ("DELETE /key/k", b""),
        ("POST /api/v1/key/k/v", b""),
        ("DELETE /api/v1/key/k", b""),
        ("POST /join", b"{\"addr\":\"a:1\"}"),
        ("POST /leave", b"{\"addr\":\"a:1\"}"),
        ("POST /api/v1/node", b"{\"addr\":\"a:1\",\"node_id\":\"n\"}"),
        ("DELETE /api/v1/node/n", b""),
    ] {
        assert!(matches!(decode_one(&mut fresh(), &with(line, "", body)), Incoming::Ask(_)));
        refused(&with(&format!("{line}?ttl=10s"), "", body), 400, false);
        refused(&with(line, "If-Match: \"7\"\r\n", body), 400, false);
        refused(&with(line, "If-None-Match: *\r\n", body), 400, false);
    }
}

#[test]
fn bodies_that_make_no_sense() {
    let bodies: [&[u8]; 12] = [
        b"",
        b"k=v",
        b"[]",
        b"null",
        b"\"k\"",
        b"{\"k\":1}",
        b"{\"k\":null}",
        b"{\"k\":{}}",
        b"{\"k\":\"v\"",
        b"{\"k\":\"v\"}x",
        b"{\"k\":\"\xff\"}",
        b"{\"k\":\"\\ud800\"}",
    ];
    for body in bodies {
        for path in ["/key", "/join", "/leave", "/api/v1/node"] {
            refused(&with(&format!("POST {path}"), "", body), 400, false);
        }
    }
    refused(&with("POST /key", "", &b"[".repeat(100_000)), 400, false);
    for body in ["{}", r#"{"addr":""}"#, r#"{"id":""}"#] {
        refused(&with("POST /join", "", body.as_bytes()), 400, false);
        refused(&with("POST /leave", "", body.as_bytes()), 400, false);
    }
    refused(&with("POST /join", "", br#"{"id":"n2"}"#), 400, false);
    refused(&with("POST /api/v1/node", "", br#"{"addr":"a:1"}"#), 400, false);
    refused(&with("POST /api/v1/node", "", br#"{"node_id":"n2"}"#), 400, false);
    refused(&plain("DELETE /api/v1/node/%ff"), 400, false);
}

#[test]
fn a_head_that_makes_no_sense_is_the_last() {
    let heads: [&[u8]; 21] = [
        // Framing that others may read in another way.
        b"POST /key HTTP/1.1\r\nHost: n\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /key HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
        b"POST /key HTTP/1.1\r\nHost: n\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        b"POST /key HTTP/1.1\r\nHost: n\r\nContent-Length: 2, 3\r\n\r\n",
        b"POST /key HTTP/1.1\r\nHost: n\r\nContent-Length: 2,\r\n\r\n",
        b"POST /key HTTP/1.1\r\nHost: n\r\nContent-Length: -1\r\n\r\n",
        b"POST /key HTTP/1.1\r\nHost: n\r\nContent-Length: +1\r\n\r\n",
        b"POST /key HTTP/1.1\r\nHost: n\r\nContent-Length: 0x1\r\n\r\n",
        b"POST /key HTTP/1.1\r\nHost: n\r\nContent-Length:\r\n\r\n",
        b"POST /key HTTP/1.1\r\nHost: n\r\nContent-Length : 2\r\n\r\n{}",
        b"POST /key HTTP/1.1\r\nHost: n\r\nTransfer-Encoding : chunked\r\n\r\n",
        b"POST /key HTTP/1.1\r\nHost: n\r\nX: a\r\n Content-Length: 2\r\n\r\n{}",
        b"POST /key HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        b"POST /key HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        b"POST /key HTTP/1.1\r\nHost: n\r\nTransfer-Encoding:\r\n\r\n",
        b"POST /key HTTP/1.0\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n",
        // To whom?
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        // No head at all.
        b"\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: n\r\nX: \0\r\n\r\n",
    ];
    for head in heads {
        refused(head, 400, true);
    }
    refused(b"GET / HTTP/1.2\r\nHost: n\r\n\r\n", 505, true);
    refused(b"GET / HTTP/2.0\r\nHost: n\r\n\r\n", 505, true);
    for coding in ["gzip", "gzip, chunked", "identity", "xchunked", "chunked;a=b"] {
        refused(&with("POST /key", &format!("Transfer-Encoding: {coding}\r\n"), b""), 501, true);
    }
    refused(&with("POST /key", "Expect: a-miracle\r\n", b"{}"), 417, true);
    // The same length said twice is one length.
    for lengths in ["Content-Length: 2\r\nContent-Length: 2\r\n", "Content-Length: 2, 2\r\n"] {
        let bytes = format!("POST /key HTTP/1.1\r\nHost: n\r\n{lengths}\r\n{{}}");
        assert_eq!(answered(bytes.as_bytes()).0, text("OK"));
    }
    // Lines may end without CR, as far as that leaves no doubt.
    let bare = b"PUT /v1/keys/k HTTP/1.1\nHost: n\nContent-Length: 1\n\nv";
    assert_eq!(decode_one(&mut fresh(), bare), Incoming::Ask(set("k", "v")));
}

#[test]
fn a_body_may_come_in_chunks() {
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "1\r\nh\r\n2;a=b\r\nel\r\n002\r\nlo\r\n0;last\r\nTrailer: 1\r\nOther: 2\r\n\r\n",
        "1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n0000\r\n\r\n",
    ] {
        for name in ["chunked", "Chunked"] {
            let request = chunked("PUT /v1/keys/k", body);
            let request = String::from_utf8(request).unwrap().replace("chunked", name);
            let mut codec = fresh();
            let mut input =
                BytesMut::from(&[request.as_bytes(), &plain("GET /v1/keys/a")].concat()[..]);
            assert_eq!(codec.decode(&mut input), Ok(Some(Incoming::Ask(set("k", "hello")))));
            assert_eq!(codec.decode(&mut input), Ok(Some(Incoming::Ask(get("a")))));
            assert!(input.is_empty());
        }
    }
    for body in [
        "x\r\n",
        "\r\n",
        "-1\r\n",
        " 1\r\nh\r\n",
        "1 \r\nh\r\n",
        "0x1\r\nh\r\n",
        "1\nh\r\n",
        "1\r\nhe\r\n",
        "1\r\nh\n\r0\r\n",
        "11111111111111111\r\n",
        "1\r;\r\nh\r\n",
        "0\r\n\n\r\n",
        "0\r\nA: b\rc\r\n\r\n",
    ] {
        refused(&chunked("PUT /v1/keys/k", body), 400, true);
    }
}

/// [A value of 16 MiB in small chunks takes many times as much, or is copied as
/// often as there are chunks.]
#[test]
fn chunks_are_moved_together_in_place() {
    let mut codec = fresh();
    let mut input = BytesMut::with_capacity(1 << 20);
    input.put_slice(&chunked("PUT /v1/keys/k", ""));
    let (head, range) = (input.len(), input.as_ptr() as usize..input.as_ptr() as usize + (1 << 20));
    for data in 0..10_000 {
        assert_eq!(codec.decode(&mut input), Ok(None));
        assert!(input.len() <= head + data + 10, "{} for {data}", input.len());
        input.put_slice(b"1;extension\r\nx\r\n");
    }
    input.put_slice(b"0\r\n\r\n");
    let Some(Incoming::Ask(Request::Run { batch, .. })) = codec.decode(&mut input).unwrap() else {
        panic!("not a run")
    };
    let Command::Set { value, .. } = &batch.commands[0] else { panic!("not a set") };
    assert_eq!(value, &b"x".repeat(10_000));
    assert!(range.contains(&(value.as_ptr() as usize)));
}

#[test]
fn a_body_shares_the_buffer() {
    let mut input = BytesMut::from(&with("PUT /v1/keys/k", "", b"value")[..]);
    let range = input.as_ptr_range();
    let incoming = fresh().decode(&mut input).unwrap().unwrap();
    let Incoming::Ask(Request::Run { batch, .. }) = incoming else { panic!("not a run") };
    let Command::Set { value, .. } = &batch.commands[0] else { panic!("not a set") };
    assert!(range.contains(&value.as_ptr()));
}

#[test]
fn a_client_may_wait_to_be_told_to_go_on() {
    let expect = |line: &str, body: &[u8]| with(line, "Expect: 100-Continue\r\n", body);
    let whole = expect("PUT /v1/keys/k", b"value");
    let (head, body) = whole.split_at(whole.len() - 5);
    let mut codec = fresh();
    let mut input = BytesMut::from(head);
    let go_on = Incoming::Written(Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n"));
    assert_eq!(codec.decode(&mut input), Ok(Some(go_on.clone())));
    assert_eq!(codec.decode(&mut input), Ok(None));
    assert!(!codec.ends());
    input.put_slice(body);
    assert_eq!(codec.decode(&mut input), Ok(Some(Incoming::Ask(set("k", "value")))));
    // Who has no body to send waits for nothing, nor who speaks HTTP/1.0.
    let found = decode_one(&mut fresh(), &expect("GET /v1/keys/k", b""));
    assert_eq!(found, Incoming::Ask(get("k")));
    let old = String::from_utf8(whole.clone()).unwrap().replace("HTTP/1.1", "HTTP/1.0");
    let found = decode_one(&mut fresh(), old.as_bytes());
    assert_eq!(found, Incoming::Ask(set("k", "value")));
    // Who is refused is not told to go on.
    refused(&expect("PUT /v1/keys/k?ttl=x", b"value"), 400, true);
    refused(&expect("PUT /nowhere", b"value"), 404, true);
    refused(
        &with("PUT /v1/keys/k", "Expect: 100-continue\r\nContent-Length: 99999999\r\n", b""),
        413,
        true,
    );
    let mut chunks = expect("PUT /v1/keys/k", b"");
    let at = chunks.len() - 2;
    chunks.splice(at..at, *b"Transfer-Encoding: chunked\r\n");
    assert_eq!(decode_one(&mut fresh(), &chunks), go_on);
}

#[test]
fn a_connection_stays_as_long_as_is_asked() {
    let cases = [
        ("1.1", "", false, ""),
        ("1.1", "Connection: keep-alive\r\n", false, ""),
        ("1.1", "Connection: close\r\n", true, "Connection: close\r\n"),
        ("1.1", "connection: a, CLOSE\r\n", true, "Connection: close\r\n"),
        ("1.1", "Connection: a\r\nConnection: close\r\n", true, "Connection: close\r\n"),
        ("1.0", "", true, "Connection: close\r\n"),
        ("1.0", "Connection: Keep-Alive\r\n", false, "Connection: keep-alive\r\n"),
        ("1.0", "Connection: keep-alive, close\r\n", true, "Connection: close\r\n"),
    ];
    for (version, headers, ends, said) in cases {
        for (path, reply) in [("/v1/keys/k", Some(item(b"v"))), ("/", None), ("/x", None)] {
            let request = format!("GET {path} HTTP/{version}\r\nHost: n\r\n{headers}\r\n");
            let mut codec = fresh();
            let response = match (decode_one(&mut codec, request.as_bytes()), reply) {
                (Incoming::Ask(_), Some(reply)) => encoded(&mut codec, &reply),
                (Incoming::Written(written), None) => String::from_utf8(written.to_vec()).unwrap(),
                (other, _) => panic!("{other:?}"),
            };
            assert_eq!(codec.ends(), ends, "{request}");
            let head = response.split_once("\r\n\r\n").unwrap().0.to_owned() + "\r\n";
            assert_eq!(head.contains("onnection:"), !said.is_empty(), "{request}{head}");
            assert!(head.ends_with(said), "{request}{head}");
        }
    }
    // HTTP/1.0 knows no Host.
    let old = b"GET /v1/keys/k HTTP/1.0\r\n\r\n";
    assert_eq!(decode_one(&mut fresh(), old), Incoming::Ask(get("k")));
}

/// Replies are written for the requests they belong to, whatever was answered
/// without asking in between, and each in the manner that was asked for.
#[test]
fn a_pipeline_keeps_its_order() {
    let stream = [
        plain("GET /v1/keys/a"),
        plain("GET /nowhere"),
        plain("HEAD /v1/keys/b"),
        with("PUT /v1/keys/c", "Expect: 100-continue\r\n", b"1"),
        b"\r\n\r\n".to_vec(),
        plain("GET /key/d"),
        with("GET /health", "Connection: close\r\n", b""),
    ];
    let mut codec = fresh();
    let mut input = BytesMut::from(&stream.concat()[..]);
    let mut asked = Vec::new();
    while !codec.ends() {
        let incoming = codec.decode(&mut input).unwrap().expect("a request");
        asked.push(matches!(incoming, Incoming::Ask(_)));
    }
    assert!(input.is_empty());
    assert_eq!(asked, [true, false, true, false, true, true, true]);
    let replies = [item(b"1"), item(b"2"), stored(), absent(), Reply::Pong];
    let starts: Vec<_> = replies.iter().map(|reply| encoded(&mut codec, reply)).collect();
    assert!(starts[0].ends_with("\r\n\r\n1"));
    assert!(starts[1].ends_with("\r\n\r\n"));
    assert!(starts[2].starts_with("HTTP/1.1 204 "));
    assert!(starts[3].ends_with("{\"d\":\"\"}"));
    assert!(starts[4].ends_with("Connection: close\r\n\r\nOK"));
}

#[test]
fn a_head_is_limited() {
    let line = |length: usize| {
        let mut line = b"GET /v1/keys/".to_vec();
        line.resize(length, b'k');
        line
    };
    // Of a line with its end.
    let of = |length: usize| [line(length - 11), b" HTTP/1.1\r\nHost: n\r\n\r\n".to_vec()].concat();
    let (longest, error) = deliver(&of(REQUEST_LINE_BYTES), &[1]);
    assert!(matches!(longest[..], [Incoming::Ask(_)]) && !error);
    refused(&of(REQUEST_LINE_BYTES + 1), 414, true);
    refused(&line(REQUEST_LINE_BYTES), 414, true);
    let with_headers = |count: usize| with("GET /", &"X: y\r\n".repeat(count - 1), b"");
    assert!(!answered(&with_headers(HEADERS)).1);
    refused(&with_headers(HEADERS + 1), 431, true);
    let of_bytes = |bytes: usize| {
        let rest = plain("GET /").len() + 5;
        with("GET /", &format!("X: {}\r\n", "y".repeat(bytes - rest)), b"")
    };
    assert_eq!(of_bytes(HEAD_BYTES).len(), HEAD_BYTES);
    assert!(!answered(&of_bytes(HEAD_BYTES)).1);
    refused(&of_bytes(HEAD_BYTES + 1), 431, true);
    refused(&of_bytes(HEAD_BYTES * 2)[..HEAD_BYTES], 431, true);
}

fn small() -> Limits {
    Limits {
        key_bytes: 4,
        value_bytes: 8,
        name_bytes: 4,
        batch_commands: 2,
        request_bytes: 64,
        reply_bytes: 100,
    }
}

fn status_within(limits: Limits, bytes: &[u8]) -> Option<u16> {
    match decode_one(&mut codec_with(limits), bytes) {
        Incoming::Written(written) => {
            Some(String::from_utf8_lossy(&written)[9..12].parse().unwrap())
        }
        _ => None,
    }
}

#[test]
fn bodies_and_names_are_limited() {
    let put = |body: &[u8]| with("PUT /v1/keys/k", "", body);
    let check = |bytes: Vec<u8>, status| {
        let found = status_within(small(), &bytes);
        assert_eq!(found, status, "{}", String::from_utf8_lossy(&bytes));
    };
    check(put(b"12345678"), None);
    check(put(b"123456789"), Some(413));
    check(chunked("PUT /v1/keys/k", "4\r\n1234\r\n4\r\n5678\r\n0\r\n\r\n"), None);
    // As soon as the length is there, and whatever it is.
    check(chunked("PUT /v1/keys/k", "4\r\n1234\r\n5\r\n"), Some(413));
    check(chunked("PUT /v1/keys/k", "ffffffffffffffff\r\n"), Some(413));
    for length in ["9", "99999999999999999999999999"] {
        check(with("PUT /v1/keys/k", &format!("Content-Length: {length}\r\n"), b""), Some(413));
    }
    check(with("POST /key", "", format!("{{\"k\":\"v\"}}{}", " ".repeat(55)).as_bytes()), None);
    check(
        with("POST /key", "", format!("{{\"k\":\"v\"}}{}", " ".repeat(56)).as_bytes()),
        Some(413),
    );
    check(with("POST /key", "", br#"{"12345":"v"}"#), Some(413));
    check(with("POST /key", "", br#"{"k":"123456789"}"#), Some(413));
    check(with("POST /key", "", br#"{"a":"1","b":"2"}"#), None);
    check(with("POST /key", "", br#"{"a":"1","b":"2","c":"3"}"#), Some(400));
    check(plain("GET /key/1234"), None);
    check(plain("GET /key/12345"), Some(400));
    check(with("POST /join", "", br#"{"addr":"1234"}"#), None);
    check(with("POST /join", "", br#"{"addr":"12345"}"#), Some(400));
    check(plain("DELETE /api/v1/node/12345"), Some(400));
    // A body that nobody reads is skipped if it is small.
    let skipped = |bytes: usize| with("PUT /nowhere", "", &vec![b'x'; bytes]);
    refused(&skipped(SMALL_BODY_BYTES), 404, false);
    refused(&skipped(SMALL_BODY_BYTES + 1), 404, true);
    refused(&chunked("PUT /nowhere", "4001\r\n"), 404, true);
    refused(&chunked("PUT /nowhere", "1\r\nx\r\n0\r\n\r\n"), 404, false);
    let trailer = format!("0\r\n{}", "A: b\r\n".repeat(HEAD_BYTES / 6 + 1));
    refused(&chunked("PUT /v1/keys/k", &trailer), 431, true);
    refused(&chunked("PUT /v1/keys/k", &format!("1;{}", "x".repeat(4096))), 400, true);
}

/// [A value of control characters is six times as long in JSON.]
#[test]
fn a_document_is_limited() {
    for (value, status) in [(&[1; 16][..], "200"), (&[1; 17], "406"), (&[b'x'; 100], "200")] {
        let mut codec = codec_with(small());
        decode_one(&mut codec, &plain("GET /key/k"));
        let found = encoded(&mut codec, &item(value));
        assert_eq!(&found[9..12], status);
    }
}

/// What a codec takes of the input, and whether it ends.
type Taken = (Vec<Incoming>, bool);

/// Feeds `bytes` in pieces of these sizes, over and over.
fn deliver_within(limits: Limits, bytes: &[u8], sizes: &[usize]) -> Taken {
    let mut codec = codec_with(limits);
    let mut input = BytesMut::new();
    let mut taken = Vec::new();
    let most =
        HEAD_BYTES + limits.request_bytes.max(limits.value_bytes).max(SMALL_BODY_BYTES) + 4096;
    for piece in pieces(bytes, sizes) {
        input.put_slice(piece);
        while let Some(incoming) = codec.decode(&mut input).expect("it has answers for everything")
        {
            taken.push(incoming);
            if codec.ends() {
                return (taken, true);
            }
        }
        assert!(input.len() <= most, "an unfinished request of {}", input.len());
    }
    (taken, false)
}

fn deliver(bytes: &[u8], sizes: &[usize]) -> Taken {
    deliver_within(Limits::default(), bytes, sizes)
}

fn stream() -> Vec<u8> {
    let mut stream: Vec<u8> = exchanges().into_iter().flat_map(|(bytes, ..)| bytes).collect();
    stream.extend(chunked("PUT /v1/keys/k", "1\r\nh\r\n2;a=b\r\nel\r\n0\r\nA: b\r\n\r\n"));
    stream.extend(with("PUT /v1/keys/k", "Expect: 100-continue\r\n", b"value"));
    stream.extend(with("PUT /nowhere", "", b"value"));
    stream.extend(b"\r\n\nGET /v1/keys/k HTTP/1.1\nHost: n\n\n");
    stream.extend(with("GET /v1/keys/k", "Connection: close\r\n", b""));
    stream
}

#[test]
fn requests_arrive_byte_by_byte() {
    let whole = deliver(&stream(), &[stream().len()]);
    assert_eq!(whole.0.len(), exchanges().len() + 6);
    assert!(whole.1);
    assert_eq!(deliver(&stream(), &[1]), whole);
}

#[test]
fn a_request_cut_short_is_not_taken() {
    for bytes in [
        with("PUT /v1/keys/k", "", b"value"),
        chunked("PUT /v1/keys/k", "1\r\nh\r\n2;a=b\r\nel\r\n0\r\nA: b\r\n\r\n"),
    ] {
        for end in 0..bytes.len() {
            assert_eq!(deliver(&bytes[..end], &[usize::MAX]), (Vec::new(), false));
        }
        assert_eq!(deliver(&bytes, &[usize::MAX]).0.len(), 1);
    }
}

/// Pieces of requests, in an order that makes sense more often than chance has it.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "GET /v1/keys/k", "PUT /v1/keys/k?nx", "POST /key", "HEAD /", "DELETE /key/%2", "POST /join",
            " HTTP/1.1\r\n", " HTTP/1.1\r\nHost: n\r\n", " HTTP/1.0\r\n", "\r\n", "\r\n\r\n", "\n",
            "Content-Length: 3\r\n", "Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\n\r\n", "Expect: 100-continue\r\n", "Connection: close\r\n",
            "If-Match: \"7\"\r\n", "1\r\nx\r\n", "ffffffffffffffff\r\n", "0\r\n\r\n", "{\"addr\":\"b\"}", "Host: n\r\n",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..6),
    ];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    // What fails is printed in full and pinned by hand as a test of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_of_any_size_make_the_same_requests(sizes in vec(1..40usize, 1..20)) {
        prop_assert_eq!(deliver(&stream(), &sizes), deliver(&stream(), &[usize::MAX]));
    }

    #[test]
    fn pieces_of_any_size_make_the_same_of_anything(bytes in any_stream(), sizes in vec(1..40usize, 1..20)) {
        let whole = deliver_within(small(), &bytes, &[usize::MAX]);
        prop_assert_eq!(deliver_within(small(), &bytes, &sizes), whole);
    }

    #[test]
    fn chunks_of_any_size_make_the_same_body(
        chunks in vec((vec(any::<u8>(), 1..30), select(vec!["", ";a", ";a=\"b\""])), 0..8),
        trailer in select(vec!["", "A: b\r\n", "A: b\r\nC: d\r\n"]),
        sizes in vec(1..40usize, 1..20),
    ) {
        let mut bytes = b"PUT /v1/keys/k HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for (chunk, extension) in &chunks {
            bytes.extend(format!("{:X}{extension}\r\n", chunk.len()).into_bytes());
            bytes.extend([&chunk[..], b"\r\n"].concat());
        }
        bytes.extend(format!("0\r\n{trailer}\r\n").into_bytes());
        let body: Vec<u8> = chunks.into_iter().flat_map(|(chunk, _)| chunk).collect();
        let whole = deliver(&with("PUT /v1/keys/k", "", &body), &[usize::MAX]);
        prop_assert_eq!(deliver(&bytes, &sizes), whole);
    }

    #[test]
    fn no_input_makes_the_node_panic(bytes in any_stream(), answer in 0..5usize) {
        let mut input = BytesMut::from(&bytes[..]);
        let mut codec = codec_with(small());
        let replies = [Reply::Done, Reply::Pong, item(b"\xff"), stored(), Reply::GuardFailed];
        while let Ok(Some(incoming)) = codec.decode(&mut input) {
            if matches!(incoming, Incoming::Ask(_)) {
                let mut output = BytesMut::new();
                codec.encode(&replies[answer], &mut output);
                prop_assert!(output.starts_with(b"HTTP/1.1 "));
            }
            if codec.ends() {
                break;
            }
        }
    }
}
