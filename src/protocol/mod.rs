//! The wire formats that clients speak, and how a connection's is recognised.
//!
//! One port serves every protocol. The first bytes of a connection decide which
//! it speaks ([`recognise`]), for good: a protocol never changes under way, so
//! the body of an HTTP request can never be taken for commands.
//!
//! A [`Codec`] is the server's side of one connection. It is pure: bytes in,
//! [`Request`] out, [`Reply`] in, bytes out. How a reply looks may depend on how
//! the request was put (the oldest SET is answered with one byte): replies come
//! in the order of the requests, and the codec remembers what each has to be.
//!
//! Whatever arrives is foreign: it is measured against [`Limits`] before it
//! sizes anything, a truncated request is no request, and what cannot be
//! understood ends the connection with a [`ProtocolError`], never the process.
//!
//! Each format has its module: [`binary`], [`resp`], [`http`], [`text`].
//! What nodes say to each other is on a port of its own: [`peer`]. One suite of
//! requests and replies runs through all: `tests/protocols.rs`, and there a fifth
//! would take its part in `tests/protocols/speaks.rs`.

pub mod binary;
pub mod http;
pub mod peer;
pub mod resp;
pub mod surroundings;
#[cfg(test)]
mod tests;
pub mod text;

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::encoding::Malformed;
use crate::request::{Reply, Request};

/// What one request or reply may measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A key.
    pub key_bytes: usize,
    /// A value.
    pub value_bytes: usize,
    /// The name or address of a node.
    pub name_bytes: usize,
    /// Commands that take effect together, and guards on them.
    pub batch_commands: usize,
    /// A whole request.
    pub request_bytes: usize,
    /// A whole reply. A larger one is replaced by an error that says so.
    pub reply_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes: 64 << 10,
            value_bytes: 16 << 20,
            name_bytes: 1 << 10,
            batch_commands: 10_000,
            request_bytes: 32 << 20,
            reply_bytes: 64 << 20,
        }
    }
}

impl Limits {
    /// Whether `size` of `what` is within `limit`.
    fn check(what: &'static str, size: usize, limit: usize) -> Result<(), ProtocolError> {
        if size <= limit { Ok(()) } else { Err(ProtocolError::OverLimit { what, size, limit }) }
    }
}

/// Why a connection has to end: from here on its bytes have no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// No request begins with this byte.
    #[error("unknown opcode 0x{0:02x}")]
    UnknownOpcode(u8),
    /// A length or count, negative ones included, that nothing may have.
    #[error("{what} of {size} is over the limit of {limit}")]
    OverLimit {
        /// Of what.
        what: &'static str,
        /// What was declared; a negative length reads as one above 2^31.
        size: usize,
        /// What is allowed.
        limit: usize,
    },
    /// What RESP has no sense for, in Redis' words.
    #[error("{0}")]
    Resp(&'static str),
    /// No argument of RESP begins with this byte.
    #[error("expected '$', got '{}'", .0.escape_ascii())]
    NoBulk(u8),
    /// What this protocol has no form for.
    #[error("this protocol cannot say it")]
    Unspoken,
    /// The fields do not fill their frame, or hold what the format does not know.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// One request, as far as a codec can take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// To be executed.
    Ask(Request),
    /// Already answered: it was well framed and made no sense. The reply takes
    /// its place in the order of replies.
    Answered(Reply),
    /// Already answered, in the bytes of this protocol: nobody but the codec is
    /// concerned. They take their place in the order of replies.
    Written(Bytes),
    /// Answered like this after so long. Nothing more is taken until then.
    Late(Duration, Bytes),
    /// Done, and nobody is told: it has no place among the replies.
    Unheard,
}

/// The server's side of one connection.
pub trait Codec {
    /// Takes exactly one request off the front of `input`, or nothing while it
    /// is incomplete. Keys and values share the memory of `input`, so whoever
    /// keeps a small one for long copies it.
    ///
    /// After an error the connection answers what it already took, then
    /// [`Codec::farewell`], and closes.
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, ProtocolError>;

    /// Appends the reply to the first request, asked or answered with a reply,
    /// that has none yet. Or appends nothing and asks for more: what comes next is
    /// the reply to that. Only one who [waits](Codec::waits) may.
    fn encode(&mut self, reply: &Reply, output: &mut BytesMut) -> Option<Request>;

    /// Whether the reply to what was taken last has to be encoded before more
    /// can be taken.
    fn waits(&self) -> bool {
        false
    }

    /// The first request, asked and not answered, as somebody would write it who
    /// looks for what took long.
    fn first_words(&self) -> Option<Vec<Bytes>> {
        None
    }

    /// What it keeps of requests that are not whole, or not to be executed yet.
    fn held_bytes(&self) -> usize {
        0
    }

    /// Whether what was taken last is the last: the connection ends when it is
    /// answered, and what is behind it is nothing.
    fn ends(&self) -> bool {
        false
    }

    /// Appends what the peer is told before an error ends the connection.
    fn farewell(&mut self, _error: &ProtocolError, _output: &mut BytesMut) {}
}

/// A wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Ours: [`binary`].
    Binary,
    /// Redis' protocol.
    Resp,
    /// HTTP/1.0 and HTTP/1.1: [`http`].
    Http,
    /// A command per line: [`text`].
    Text,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Binary, Self::Resp, Self::Http, Self::Text];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Resp => "resp",
            Self::Http => "http",
            Self::Text => "text",
        }
    }
}

/// What the first bytes of a connection say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recognition {
    /// Not enough to tell.
    NeedMore,
    /// The connection speaks this, from its first byte on.
    Protocol(Protocol),
    /// Nothing we speak.
    Close(CloseReason),
}

/// Why a connection ends before it has a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// A ClientHello.
    #[error("TLS is not supported")]
    Tls,
    /// No protocol begins with such a byte.
    #[error("not a protocol of ours")]
    Foreign,
    /// An HTTP request line without an end.
    #[error("HTTP request line is too long")]
    LineTooLong,
    /// HTTP/2 without negotiation.
    #[error("HTTP/2 is not supported")]
    Http2,
    /// A browser was made to talk to us: `POST …` or `Host:` as a text command.
    #[error("a cross-protocol request")]
    CrossProtocol,
}

impl CloseReason {
    /// What the peer is told before the close.
    pub fn farewell(self) -> &'static [u8] {
        match self {
            Self::LineTooLong => {
                b"HTTP/1.1 414 URI Too Long\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            }
            Self::Http2 => {
                b"HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            }
            Self::Tls | Self::Foreign | Self::CrossProtocol => b"",
        }
    }
}

/// How long an HTTP request line may be.
const REQUEST_LINE_BYTES: usize = 8 << 10;

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

const HTTP_METHODS: [&[u8]; 9] =
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT"];

/// Decides what a connection speaks from the bytes it began with.
///
/// | first byte | protocol |
/// |---|---|
/// | 0x01–0x1F except 0x09, 0x0A, 0x0D, 0x16 | binary |
/// | 0x16 | a TLS ClientHello: close |
/// | `*`, or `HELLO 2` or `HELLO 3` | RESP |
/// | 0x00, 0x7F–0xFF | close |
/// | 0x09, 0x0A, 0x0D or printable | HTTP if the line is a request line of HTTP/1, else text |
///
/// Only a line that begins like a request line (`GET /`) has to wait for its
/// end; every other one is text as soon as it differs from that and from HELLO.
pub fn recognise(bytes: &[u8]) -> Recognition {
    let Some(&first) = bytes.first() else { return Recognition::NeedMore };
    match first {
        b'\t' | b'\n' | b'\r' => Recognition::Protocol(Protocol::Text),
        0x16 => Recognition::Close(CloseReason::Tls),
        0x01..=0x1f => Recognition::Protocol(Protocol::Binary),
        b'*' => Recognition::Protocol(Protocol::Resp),
        0x00 | 0x7f..=0xff => Recognition::Close(CloseReason::Foreign),
        _ => recognise_line(bytes),
    }
}

/// HTTP, text, or one of the two that pretends to be the other.
fn recognise_line(bytes: &[u8]) -> Recognition {
    if bytes.starts_with(HTTP2_PREFACE) {
        return Recognition::Close(CloseReason::Http2);
    }
    match begins_like_http(bytes) {
        Prefix::Full => recognise_request_line(bytes),
        Prefix::Part => Recognition::NeedMore,
        Prefix::No if HTTP2_PREFACE.starts_with(bytes) => Recognition::NeedMore,
        Prefix::No => recognise_text(bytes),
    }
}

/// Text, unless it begins with what only a browser or a client of Redis would send.
fn recognise_text(bytes: &[u8]) -> Recognition {
    let may_be =
        |opening: &[u8]| bytes.len() < opening.len() && prefix_ignoring_case(opening, bytes);
    if is_cross_protocol(bytes) {
        Recognition::Close(CloseReason::CrossProtocol)
    } else if begins_with_any(&HELLOS, bytes) {
        Recognition::Protocol(Protocol::Resp)
    } else if TRAPS.into_iter().chain(HELLOS).any(may_be) {
        Recognition::NeedMore
    } else {
        Recognition::Protocol(Protocol::Text)
    }
}

/// What no line of text begins with, but what a browser sends does.
const TRAPS: [&[u8]; 2] = [b"POST ", b"HOST:"];

/// What no line of text begins with, either: there are clients of Redis that send
/// HELLO as an inline command, before anything else.
const HELLOS: [&[u8]; 2] = [b"HELLO 2", b"HELLO 3"];

/// Whether a line of text is one that a browser was made to send.
fn is_cross_protocol(line: &[u8]) -> bool {
    begins_with_any(&TRAPS, line)
}

fn begins_with_any(openings: &[&[u8]], line: &[u8]) -> bool {
    let begins =
        |opening: &&[u8]| line.len() >= opening.len() && prefix_ignoring_case(opening, line);
    openings.iter().any(begins)
}

fn prefix_ignoring_case(a: &[u8], b: &[u8]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.eq_ignore_ascii_case(b))
}

/// How much of `GET /` and its like is there.
enum Prefix {
    Full,
    Part,
    No,
}

fn begins_like_http(bytes: &[u8]) -> Prefix {
    let targets: [&[u8]; 3] = [b"/", b"*", b"http"];
    let mut found = Prefix::No;
    for method in HTTP_METHODS {
        for target in targets {
            let opening = [method, b" ", target].concat();
            if bytes.starts_with(&opening) {
                return Prefix::Full;
            }
            if opening.starts_with(bytes) {
                found = Prefix::Part;
            }
        }
    }
    found
}

/// The line began like HTTP; its end tells.
fn recognise_request_line(bytes: &[u8]) -> Recognition {
    let window = &bytes[..bytes.len().min(REQUEST_LINE_BYTES)];
    let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
        let full = window.len() == REQUEST_LINE_BYTES;
        return if full {
            Recognition::Close(CloseReason::LineTooLong)
        } else {
            Recognition::NeedMore
        };
    };
    let line = window[..end].strip_suffix(b"\r").unwrap_or(&window[..end]);
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    match words[..] {
        [_, _, b"HTTP/1.0" | b"HTTP/1.1"] => Recognition::Protocol(Protocol::Http),
        _ => recognise_text(bytes),
    }
}

/// `bytes` in pieces of these sizes, over and over, as a socket may deliver them.
#[cfg(test)]
fn pieces<'a>(mut bytes: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let sizes = sizes.iter().cycle();
    sizes.map_while(move |&size| {
        let piece = bytes.split_off(..size.min(bytes.len()))?;
        (!piece.is_empty()).then_some(piece)
    })
}
