//! What the first bytes of a connection say, byte by byte.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use CloseReason::*;
use Protocol::*;
use Recognition::{Close, NeedMore, Protocol as Is};

/// What a connection that begins like this is, and after how many bytes
/// that is known.
const TABLE: &[(&[u8], usize, Recognition)] = &[
    (b"", 0, NeedMore),
    // The native protocol, old and extended.
    (b"\x01\x03\x00\x00\x00K_0", 1, Is(Binary)),
    (b"\x02", 1, Is(Binary)),
    (b"\x10", 1, Is(Binary)),
    (b"\x1f", 1, Is(Binary)),
    // TLS.
    (b"\x16\x03\x01", 1, Close(Tls)),
    // RESP; what follows the star does not matter.
    (b"*1\r\n$4\r\nPING\r\n", 1, Is(Resp)),
    (b"* / HTTP/1.1\r\n", 1, Is(Resp)),
    // Some clients send it inline.
    (b"HELLO 3\r\n", 7, Is(Resp)),
    (b"hello 2 AUTH default x\r\n", 7, Is(Resp)),
    (b"HELLO 4\r\n", 7, Is(Text)),
    (b"HELLO\n", 6, Is(Text)),
    // Nothing we know.
    (b"\x00", 1, Close(Foreign)),
    (b"\x7f", 1, Close(Foreign)),
    (b"\xff", 1, Close(Foreign)),
    // White space in front is text.
    (b"\r\nGET / HTTP/1.1\r\n", 1, Is(Text)),
    (b"\tGET k", 1, Is(Text)),
    (b"\nPING\n", 1, Is(Text)),
    (b" GET / HTTP/1.1\r\n", 1, Is(Text)),
    // HTTP needs its whole line.
    (b"GET /foo HTTP/1.1\r\n", 19, Is(Http)),
    (b"GET /foo HTTP/1.0\n", 18, Is(Http)),
    (b"OPTIONS * HTTP/1.1\r\n", 20, Is(Http)),
    (b"GET http://a/b HTTP/1.1\r\n", 25, Is(Http)),
    (b"POST /key HTTP/1.1\r\n", 20, Is(Http)),
    (b"GET /foo HTTP/1.1", 17, NeedMore),
    (b"GET htt", 7, NeedMore),
    // Text that looks a little like HTTP.
    (b"GET foo\n", 5, Is(Text)),
    (b"GET /foo\r\n", 10, Is(Text)),
    (b"GET /foo bar HTTP/1.1\r\n", 23, Is(Text)),
    (b"GET /foo HTTP/2.0\r\n", 19, Is(Text)),
    (b"GET htp HTTP/1.1\r\n", 7, Is(Text)),
    (b"GET\n", 4, Is(Text)),
    (b"GETX", 4, Is(Text)),
    (b"get /foo HTTP/1.1\r\n", 1, Is(Text)),
    (b"SET k HTTP/1.1\r\n", 1, Is(Text)),
    (b"CONNECT a:80 HTTP/1.1\r\n", 9, Is(Text)),
    (b"GET  /foo HTTP/1.1\r\n", 5, Is(Text)),
    (b"GET /foo HTTP/1.1 \r\n", 20, Is(Text)),
    (b"GET /foo HTTP/1.2\r\n", 19, Is(Text)),
    (b"PING\r\n", 2, Is(Text)),
    (b"~", 1, Is(Text)),
    // HTTP/2.
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 14, Close(Http2)),
    (b"PRI * HTTP/1.1\r\n", 12, Is(Text)),
    // A browser lured into talking to us.
    (b"POST foo HTTP/1.1\r\n", 6, Close(CrossProtocol)),
    (b"POST /foo\r\n", 11, Close(CrossProtocol)),
    (b"Host: example\r\n", 5, Close(CrossProtocol)),
    (b"host:x", 5, Close(CrossProtocol)),
    (b"Hosts", 5, Is(Text)),
];

/// Byte by byte: nothing is said before it is known, nor taken back.
fn is_known_after(bytes: &[u8], known: usize, expected: Recognition) {
    for length in 0..=bytes.len() {
        let expected = if length < known { NeedMore } else { expected };
        let text = bytes.escape_ascii();
        assert_eq!(recognise(&bytes[..length]), expected, "{length} bytes of {text}");
    }
}

#[test]
fn a_connection_is_what_its_first_bytes_say() {
    for (bytes, known, expected) in TABLE {
        is_known_after(bytes, *known, *expected);
    }
}

#[test]
fn every_method_begins_a_request_line() {
    let methods = "GET HEAD POST PUT DELETE OPTIONS PATCH TRACE CONNECT";
    for method in methods.split(' ') {
        for target in ["/", "/key/a", "*", "http://node/", "https://node/"] {
            for version in ["HTTP/1.0", "HTTP/1.1"] {
                let line = format!("{method} {target} {version}\r\n");
                is_known_after((line.clone() + "Host: n\r\n").as_bytes(), line.len(), Is(Http));
            }
        }
    }
}

#[test]
fn every_first_byte_is_decided() {
    for byte in 0..=u8::MAX {
        let expected = match byte {
            0x16 => Close(Tls),
            b'\t' | b'\n' | b'\r' => Is(Text),
            0x01..=0x1f => Is(Binary),
            b'*' => Is(Resp),
            0 | 0x7f.. => Close(Foreign),
            b'C' | b'D' | b'G' | b'H' | b'h' | b'O' | b'P' | b'p' | b'T' => NeedMore,
            _ => Is(Text),
        };
        assert_eq!(recognise(&[byte]), expected, "byte 0x{byte:02x}");
    }
}

#[test]
fn a_request_line_ends_within_8_kib() {
    let mut line = b"GET /".to_vec();
    line.resize(REQUEST_LINE_BYTES - 1, b'a');
    assert_eq!(recognise(&line), NeedMore);
    line.push(b'a');
    assert_eq!(recognise(&line), Close(LineTooLong));
    assert!(LineTooLong.farewell().starts_with(b"HTTP/1.1 414"));
    // A line that cannot be HTTP is for text's own, larger limit.
    line[4] = b'a';
    assert_eq!(recognise(&line), Is(Text));
}

/// Words and ends of lines that mean something here.
fn any_opening() -> impl Strategy<Value = Vec<u8>> {
    let words = vec![
        "GET", "POST", "CONNECT", "PRI", "get", "Host:", "SET", " ", "/", "*", "http", "HTTP/1.1",
        "HTTP/2.0", "\r\n", "\n", "\r", "\t", "\u{1}", "\u{16}", "k",
    ];
    let word = prop_oneof![
        9 => select(words).prop_map(|word| word.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..4),
    ];
    vec(word, 0..12).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// What is known after some bytes is known after all of them.
    #[test]
    fn what_is_known_stays_known(bytes in any_opening()) {
        let known = (0..bytes.len()).find(|&length| recognise(&bytes[..length]) != NeedMore);
        if let Some(known) = known {
            is_known_after(&bytes, known, recognise(&bytes[..known]));
        }
    }
}
