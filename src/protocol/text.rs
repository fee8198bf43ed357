//! The text protocol: a command per line, for people and for scripts.
//!
//! A connection carries lines one after the other, as many as the client likes
//! before the first reply; replies come in the order of the lines. A line ends
//! with `\n` or `\r\n`, and so does each reply: with `\n`, but for PING's. Words
//! are separated by white space (space, tab, form feed); command names may be in
//! any case. Keys are those of database 0, and any bytes but white space.
//!
//! | line | reply |
//! |---|---|
//! | `SET k v` | `Success` |
//! | `GET k` | the value; an empty line if there is no such key |
//! | `DEL k` | `Success`, whether the key was there or not |
//! | `TTL k` | seconds left, rounded up; `-1` for no deadline, `-2` for no key |
//! | `EXPIRE k seconds` | `Success`, or `ERR no such key` |
//! | `JOIN id address` | `Success`; the address is the one for peers |
//! | `LEAVE id` | `Success`; an address of the member does as well |
//! | `PING` | `+PONG` and `\r\n` |
//! | `HELP` | these lines, for people |
//! | `QUIT` | `Success`, then the node closes |
//! | `SET k` | `SET message must have key and value` |
//! | `JOIN id` | `JOIN message must have nodeID and remoteAddr` |
//! | any other of fewer than two words, the empty line too | `message must atleast have command, key or nodeID and remoteAddr` |
//! | any other command | `Invalid command in message` |
//! | a known command with too few, too many or senseless words | `ERR` and why |
//!
//! SET's value is everything between the white space behind the key and the end
//! of the line, so it may hold spaces, and cannot begin with one or be empty. A
//! SET clears an earlier deadline. EXPIRE with no seconds or fewer removes the
//! key. JOIN with an address without a host means the host that the line comes
//! from.
//!
//! A value may hold anything, for other protocols store what they like: GET sends
//! it as it is, and one line more than was expected if it holds `\n`. Such values
//! need another protocol; and so does who has to tell a value that begins with
//! `ERR ` from a failure.
//!
//! # Failures
//!
//! | reply | took effect |
//! |---|---|
//! | `ERR no leader, not applied` | no |
//! | `ERR unknown: may or may not have been applied` | perhaps |
//! | `ERR out of memory` | no |
//! | `ERR disk full` | no |
//! | `ERR busy` | no |
//! | `ERR` and a sentence: refused, or invalid | no |
//!
//! # Bad input
//!
//! A line has at most 64 KiB without its `\n`: a longer one is answered with
//! `ERR line too long`, and the connection is closed. A line that is cut off is
//! never executed. A line that begins with `POST ` or `Host:` closes the
//! connection without a word: somebody's browser was made to talk to us. A name
//! or address has at most 1 KiB.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Codec, Incoming, Limits, ProtocolError, is_cross_protocol};
use crate::encoding::Malformed;
use crate::request::{Answer, Command, Condition, ErrorKind, Expiry, Key, Reply, Request, Ttl};

/// How long a line may be without its `\n`.
const LINE_BYTES: usize = 64 << 10;

const TOO_FEW_WORDS: &str = "message must atleast have command, key or nodeID and remoteAddr";
const INCOMPLETE_SET: &str = "SET message must have key and value";
const INCOMPLETE_JOIN: &str = "JOIN message must have nodeID and remoteAddr";
const UNKNOWN_COMMAND: &str = "Invalid command in message";

const HELP: &str = "\
SET key value       store the rest of the line
GET key             its value, or an empty line
DEL key             remove it
TTL key             seconds left, -1 for ever, -2 if there is no such key
EXPIRE key seconds  remove it later
JOIN id address     take a node into the cluster, by its address for peers
LEAVE id            remove a node from the cluster
PING HELP QUIT
";

/// How a reply is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// To PING.
    Pong,
    /// `Success`, whatever the answer says.
    Success,
    /// `Success` if the key was there.
    IfThere,
    /// The value.
    Value,
    /// Time left.
    Seconds,
}

/// The server's side of a text connection.
#[derive(Debug, Default)]
pub struct TextCodec {
    limits: Limits,
    /// How the replies that are to come are to be written.
    awaited: VecDeque<Shape>,
    /// How much of the input is known to hold no end of a line.
    searched: usize,
    /// QUIT was taken.
    ended: bool,
}

impl TextCodec {
    /// A codec that accepts what is within `limits`.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes a line off the front of `input`, without its end.
    fn take_line(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, ProtocolError> {
        let window = &input[..input.len().min(LINE_BYTES + 1)];
        let end = window[self.searched..].iter().position(|&byte| byte == b'\n');
        let Some(end) = end.map(|end| self.searched + end) else {
            Limits::check("line", window.len(), LINE_BYTES)?;
            self.searched = window.len();
            return Ok(None);
        };
        self.searched = 0;
        let mut line = input.split_to(end).freeze();
        input.advance(1);
        if line.ends_with(b"\r") {
            line.truncate(line.len() - 1);
        }
        Ok(Some(line))
    }
}

impl Codec for TextCodec {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, ProtocolError> {
        let Some(line) = self.take_line(input)? else { return Ok(None) };
        if is_cross_protocol(&line) {
            return Err(Malformed("a cross-protocol request").into());
        }
        let parsed = Words { line: &line, rest: &line, limits: &self.limits }.request();
        Ok(Some(match parsed {
            Ok((request, shape)) => {
                self.awaited.push_back(shape);
                Incoming::Ask(request)
            }
            Err(Local::Line(text)) => Incoming::Written(format!("{text}\n").into()),
            Err(Local::Help) => Incoming::Written(Bytes::from_static(HELP.as_bytes())),
            Err(Local::Quit) => {
                self.ended = true;
                Incoming::Written(Bytes::from_static(b"Success\n"))
            }
        }))
    }

    fn encode(&mut self, reply: &Reply, output: &mut BytesMut) -> Option<Request> {
        let shape = self.awaited.pop_front().expect("no more replies come than were asked for");
        shape.write(reply, output);
        None
    }

    fn ends(&self) -> bool {
        self.ended
    }

    fn farewell(&mut self, error: &ProtocolError, output: &mut BytesMut) {
        if matches!(error, ProtocolError::OverLimit { .. }) {
            output.put_slice(b"ERR line too long\n");
        }
    }
}

/// What a line is answered with that nobody else is concerned with.
enum Local {
    Line(String),
    Help,
    Quit,
}

impl From<&str> for Local {
    fn from(text: &str) -> Self {
        Self::Line(text.to_owned())
    }
}

/// Why the words of a line make no sense.
fn error(why: impl std::fmt::Display) -> Local {
    Local::Line(format!("ERR {why}"))
}

/// A line, word by word.
struct Words<'a> {
    line: &'a Bytes,
    rest: &'a [u8],
    limits: &'a Limits,
}

impl<'a> Words<'a> {
    /// The next word, empty at the end of the line.
    fn next(&mut self) -> &'a [u8] {
        let rest = self.rest.trim_ascii_start();
        let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.rest = rest;
        word
    }

    fn request(mut self) -> Result<(Request, Shape), Local> {
        let name = self.next().to_ascii_uppercase();
        if self.rest.trim_ascii_start().is_empty() {
            return match &name[..] {
                b"PING" => Ok((Request::Ping, Shape::Pong)),
                b"HELP" => Err(Local::Help),
                b"QUIT" => Err(Local::Quit),
                _ => Err(TOO_FEW_WORDS.into()),
            };
        }
        let (request, shape) = match &name[..] {
            b"SET" => (self.set()?, Shape::Success),
            b"GET" => (Request::run(Command::Get(self.key()?)), Shape::Value),
            b"DEL" => (Request::run(Command::Delete(self.key()?)), Shape::Success),
            b"TTL" => (Request::run(Command::Ttl(self.key()?)), Shape::Seconds),
            b"EXPIRE" => (self.expire()?, Shape::IfThere),
            b"JOIN" => (self.join()?, Shape::Success),
            b"LEAVE" => (Request::Leave { name: self.name("name")? }, Shape::Success),
            b"PING" | b"HELP" | b"QUIT" => return Err(error("too many words")),
            _ => return Err(UNKNOWN_COMMAND.into()),
        };
        // One that is not understood would be one that is not obeyed.
        if !self.next().is_empty() { Err(error("too many words")) } else { Ok((request, shape)) }
    }

    fn key(&mut self) -> Result<Key, Local> {
        let name = self.next();
        Limits::check("key", name.len(), self.limits.key_bytes).map_err(error)?;
        Ok(Key::new(self.line.slice_ref(name)))
    }

    fn name(&mut self, what: &'static str) -> Result<String, Local> {
        let name = self.next();
        Limits::check(what, name.len(), self.limits.name_bytes).map_err(error)?;
        let name = std::str::from_utf8(name).map_err(|_| error("a name is not UTF-8"))?;
        Ok(name.to_owned())
    }

    fn set(&mut self) -> Result<Request, Local> {
        let key = self.key()?;
        let value = std::mem::take(&mut self.rest).trim_ascii_start();
        if value.is_empty() {
            return Err(INCOMPLETE_SET.into());
        }
        Limits::check("value", value.len(), self.limits.value_bytes).map_err(error)?;
        let value = self.line.slice_ref(value);
        let (expiry, condition) = (Expiry::Never, Condition::Always);
        Ok(Request::run(Command::Set { key, value, expiry, condition }))
    }

    fn expire(&mut self) -> Result<Request, Local> {
        let key = self.key()?;
        let word = std::str::from_utf8(self.next()).unwrap_or_default();
        if word.is_empty() {
            return Err(error("EXPIRE message must have key and seconds"));
        }
        let seconds: i64 = word.parse().map_err(|_| error("seconds are not an integer"))?;
        let ms = u64::try_from(seconds.max(0)).unwrap_or(0).checked_mul(1000);
        let expiry = Expiry::AfterMs(ms.ok_or_else(|| error("invalid expire time"))?);
        Ok(Request::run(Command::Expire { key, expiry }))
    }

    fn join(&mut self) -> Result<Request, Local> {
        let (name, peer_address) = (self.name("name")?, self.name("address")?);
        if peer_address.is_empty() {
            return Err(INCOMPLETE_JOIN.into());
        }
        Ok(Request::Join { name, peer_address })
    }
}

impl Shape {
    fn write(self, reply: &Reply, output: &mut BytesMut) {
        let answers = match reply {
            Reply::Error(kind, why) => return put_error(output, *kind, why),
            Reply::Answers(answers) => &answers[..],
            _ => &[],
        };
        match (self, reply, answers) {
            (Self::Pong, Reply::Pong, _) => output.put_slice(b"+PONG\r\n"),
            (_, _, [Answer::Failed(failure)]) => put_line(output, format!("ERR {failure}")),
            (Self::Success, Reply::Done, _)
            | (Self::Success, _, [Answer::Stored { .. } | Answer::Integer(_)])
            | (Self::IfThere, _, [Answer::Integer(1)]) => put_line(output, "Success"),
            (Self::IfThere, _, [Answer::Integer(_)]) => put_line(output, "ERR no such key"),
            (Self::Value, _, [Answer::Item(Some(item))]) => put_line(output, &item.value),
            (Self::Value, _, [Answer::Item(None)]) => put_line(output, ""),
            (Self::Seconds, _, [Answer::Ttl(ttl)]) => put_line(output, seconds(*ttl)),
            // Would be a mistake of the node; the client must not wait for ever.
            _ => put_error(output, ErrorKind::Unknown, ""),
        }
    }
}

fn put_line(output: &mut BytesMut, line: impl AsRef<[u8]>) {
    output.put_slice(line.as_ref());
    output.put_u8(b'\n');
}

fn seconds(ttl: Ttl) -> String {
    match ttl {
        Ttl::Absent => "-2".to_owned(),
        Ttl::Never => "-1".to_owned(),
        Ttl::Ms(ms) => ms.div_ceil(1000).to_string(),
    }
}

fn put_error(output: &mut BytesMut, kind: ErrorKind, why: &str) {
    let why = match kind {
        ErrorKind::NoLeader => "no leader, not applied",
        ErrorKind::Unknown => "unknown: may or may not have been applied",
        ErrorKind::OutOfMemory => "out of memory",
        ErrorKind::DiskFull => "disk full",
        ErrorKind::Busy => "busy",
        ErrorKind::Invalid
        | ErrorKind::SessionExpired
        | ErrorKind::Refused
        | ErrorKind::NotServing => why,
    };
    // The sentence may quote what somebody else has said; it stays one line.
    put_line(output, format!("ERR {}", why.replace(['\r', '\n'], " ")));
}
