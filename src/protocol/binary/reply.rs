//! Replies: written by the node in the form its request asked for, read by the
//! client that remembers what it asked.
//!
//! A reply does not say what it replies to. The node remembers a
//! [`Shape`](super::Shape) for each request, the client an [`Awaited`].

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{info, status};
use crate::encoding::{Malformed, Reader, put_bytes};
use crate::protocol::{Limits, ProtocolError};
use crate::request::{
    Answer, Command, ErrorKind, Failure, Item, Reply, Request, TOO_LARGE_TO_SEND, Ttl,
};

/// TTL's number for a key without a deadline.
const NO_DEADLINE: i64 = -1;

/// A status byte and a length: what every reply but the classic ones begins with.
const HEAD_BYTES: usize = 1 + 4;

pub(super) fn encode_classic_status(reply: &Reply, output: &mut BytesMut) {
    let done = match reply {
        Reply::Done => true,
        Reply::Answers(answers) => matches!(answers[..], [Answer::Stored { .. }]),
        _ => false,
    };
    output.put_u8(if done { status::OK } else { status::ERROR });
}

pub(super) fn encode_classic_value(reply: &Reply, output: &mut BytesMut) {
    let answers = if let Reply::Answers(answers) = reply { &answers[..] } else { &[] };
    let (status, value) = match answers {
        [Answer::Item(Some(item))] => (status::OK, &item.value[..]),
        [Answer::Item(None)] => (status::NOT_FOUND, &[][..]),
        _ => (status::ERROR, &[][..]),
    };
    output.put_u8(status);
    put_bytes(output, value);
}

/// The reply to a request of one command, or of none.
pub(super) fn encode_one(reply: &Reply, output: &mut BytesMut) {
    match reply {
        Reply::Answers(answers) => match &answers[..] {
            [answer] => put_answer(output, answer),
            // Would be a mistake of the node; the client must not wait for ever.
            _ => put_error(output, ErrorKind::Unknown, "the node lost the answer"),
        },
        Reply::Pong | Reply::Done => put_reply(output, status::OK, |_| ()),
        Reply::GuardFailed => put_message(output, status::GUARD_FAILED, "a guard does not hold"),
        Reply::SessionOpened { session } => put_number(output, status::OK, *session),
        Reply::Members(members) => {
            put_reply(output, status::OK, |output| info::put_members(output, members));
        }
        Reply::Status(of) => put_reply(output, status::OK, |output| info::put_status(output, of)),
        Reply::Error(kind, message) => put_error(output, *kind, message),
    }
}

/// The reply to MGET, MSET and BATCH.
pub(super) fn encode_list(reply: &Reply, limits: &Limits, output: &mut BytesMut) {
    let Reply::Answers(answers) = reply else { return encode_one(reply, output) };
    let size: usize = answers.iter().map(answer_bytes).sum();
    if size + HEAD_BYTES + 4 > limits.reply_bytes {
        // Unknown, because a batch that writes has taken effect.
        return put_error(output, ErrorKind::Unknown, TOO_LARGE_TO_SEND);
    }
    put_reply(output, status::OK, |output| {
        output.put_u32_le(answers.len() as u32);
        for answer in answers {
            put_answer(output, answer);
        }
    });
}

/// At most what an answer takes.
fn answer_bytes(answer: &Answer) -> usize {
    let payload = match answer {
        Answer::Item(Some(item)) => 8 + item.value.len(),
        Answer::Failed(_) => 64,
        _ => 8,
    };
    HEAD_BYTES + payload
}

fn put_answer(output: &mut BytesMut, answer: &Answer) {
    match answer {
        Answer::Done => put_reply(output, status::OK, |_| ()),
        Answer::Stored { version } => put_number(output, status::OK, *version),
        Answer::NotStored { version } => put_number(output, status::CONDITION_FAILED, *version),
        Answer::Item(Some(item)) => put_reply(output, status::OK, |output| {
            output.put_u64_le(item.version);
            output.put_slice(&item.value);
        }),
        Answer::Item(None) | Answer::Ttl(Ttl::Absent) => {
            put_reply(output, status::NOT_FOUND, |_| ());
        }
        Answer::Integer(number) => put_number(output, status::OK, *number as u64),
        Answer::Ttl(Ttl::Never) => put_number(output, status::OK, NO_DEADLINE as u64),
        Answer::Ttl(Ttl::Ms(ms)) => put_number(output, status::OK, (*ms).min(i64::MAX as u64)),
        Answer::Names { .. } | Answer::Nested(_) => {
            put_message(output, status::ERROR, "this protocol cannot say it");
        }
        Answer::Failed(failure) => {
            put_message(output, status_of_failure(*failure), &failure.to_string());
        }
    }
}

/// Status, length and payload.
fn put_reply(output: &mut BytesMut, status: u8, payload: impl FnOnce(&mut BytesMut)) {
    output.put_u8(status);
    let at = output.len();
    output.put_u32_le(0);
    payload(output);
    let length = (output.len() - at - 4) as u32;
    output[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

fn put_number(output: &mut BytesMut, status: u8, number: u64) {
    put_reply(output, status, |output| output.put_u64_le(number));
}

fn put_message(output: &mut BytesMut, status: u8, message: &str) {
    put_reply(output, status, |output| output.put_slice(message.as_bytes()));
}

fn put_error(output: &mut BytesMut, kind: ErrorKind, message: &str) {
    put_message(output, status_of_error(kind), message);
}

fn status_of_error(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Invalid => status::ERROR,
        ErrorKind::NoLeader => status::NO_LEADER,
        ErrorKind::Unknown => status::UNKNOWN,
        ErrorKind::OutOfMemory => status::OUT_OF_MEMORY,
        ErrorKind::DiskFull => status::DISK_FULL,
        ErrorKind::Busy => status::BUSY,
        ErrorKind::SessionExpired => status::SESSION_EXPIRED,
        ErrorKind::Refused => status::REFUSED,
        ErrorKind::NotServing => status::NOT_SERVING,
    }
}

/// What a status other than those of answers means. A status that this version
/// does not know says nothing about the outcome.
fn error_of_status(status: u8) -> ErrorKind {
    match status {
        status::ERROR => ErrorKind::Invalid,
        status::NO_LEADER => ErrorKind::NoLeader,
        status::OUT_OF_MEMORY => ErrorKind::OutOfMemory,
        status::DISK_FULL => ErrorKind::DiskFull,
        status::BUSY => ErrorKind::Busy,
        status::SESSION_EXPIRED => ErrorKind::SessionExpired,
        status::REFUSED => ErrorKind::Refused,
        status::NOT_SERVING => ErrorKind::NotServing,
        _ => ErrorKind::Unknown,
    }
}

fn status_of_failure(failure: Failure) -> u8 {
    match failure {
        Failure::NotAnInteger => status::NOT_AN_INTEGER,
        Failure::Overflow => status::OVERFLOW,
        Failure::InvalidExpiry => status::INVALID_EXPIRY,
        // Of commands that this protocol cannot say.
        Failure::NotAFloat | Failure::TooLong | Failure::NoSuchKey | Failure::TooMuch => {
            status::ERROR
        }
    }
}

fn failure_of_status(status: u8) -> Option<Failure> {
    match status {
        status::NOT_AN_INTEGER => Some(Failure::NotAnInteger),
        status::OVERFLOW => Some(Failure::Overflow),
        status::INVALID_EXPIRY => Some(Failure::InvalidExpiry),
        _ => None,
    }
}

/// What the reply to a request will look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Awaited {
    /// To the classic SET.
    ClassicSet,
    /// To the classic GET.
    ClassicGet,
    /// To the classic JOIN.
    ClassicJoin,
    /// To PING.
    Pong,
    /// To JOIN, LEAVE and TRANSFER.
    Done,
    /// To SESSION.
    Session,
    /// To MEMBERS.
    Members,
    /// To STATUS.
    Status,
    /// To a single command.
    One(Form),
    /// To MGET, MSET and BATCH.
    List(Vec<Form>),
}

/// What the answer to one command holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A value and its version.
    Item,
    /// A version.
    Version,
    /// A number.
    Integer,
    /// Time left.
    Ttl,
    /// Nothing.
    Nothing,
}

impl Form {
    fn of(command: &Command) -> Self {
        match command {
            Command::Get(_) => Self::Item,
            Command::Set { .. } => Self::Version,
            Command::Ttl(_) => Self::Ttl,
            Command::Clear { .. } => Self::Nothing,
            // What cannot be said is not asked.
            _ => Self::Integer,
        }
    }
}

impl Awaited {
    /// What the extended form of `request` is answered with.
    pub(super) fn of(request: &Request) -> Self {
        match request {
            Request::Ping => Self::Pong,
            Request::Run { batch, .. } => match &batch.commands[..] {
                [command] if batch.guards.is_empty() => Self::One(Form::of(command)),
                commands => Self::List(commands.iter().map(Form::of).collect()),
            },
            Request::OpenSession => Self::Session,
            Request::Join { .. } | Request::Leave { .. } | Request::Transfer { .. } => Self::Done,
            Request::Members => Self::Members,
            Request::Status => Self::Status,
            Request::AwaitDurable { .. } | Request::Usage(_) => Self::List(vec![Form::Integer; 2]),
        }
    }
}

/// Takes exactly one reply off the front of `input`, or nothing while it is
/// incomplete. After an error the connection is of no use.
pub fn decode_reply(
    awaited: &Awaited,
    limits: &Limits,
    input: &mut BytesMut,
) -> Result<Option<Reply>, ProtocolError> {
    let Some(&status) = input.first() else { return Ok(None) };
    if matches!(awaited, Awaited::ClassicSet | Awaited::ClassicJoin) {
        input.advance(1);
        return Ok(Some(classic_reply(awaited, status, Bytes::new())?));
    }
    let Some(length) = input[1..].first_chunk() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    Limits::check("reply", length, limits.reply_bytes)?;
    if input.len() - HEAD_BYTES < length {
        return Ok(None);
    }
    input.advance(HEAD_BYTES);
    let payload = input.split_to(length).freeze();
    Ok(Some(match awaited {
        Awaited::ClassicGet => classic_reply(awaited, status, payload)?,
        _ => reply(awaited, status, payload)?,
    }))
}

fn classic_reply(awaited: &Awaited, status: u8, value: Bytes) -> Result<Reply, Malformed> {
    let one = |answer| Ok(Reply::Answers(vec![answer]));
    match (awaited, status) {
        (Awaited::ClassicJoin, status::OK) => Ok(Reply::Done),
        // The classic SET does not tell the version.
        (Awaited::ClassicSet, status::OK) => one(Answer::Stored { version: 0 }),
        (Awaited::ClassicGet, status::OK) => one(Answer::Item(Some(Item { value, version: 0 }))),
        (Awaited::ClassicGet, status::NOT_FOUND) => one(Answer::Item(None)),
        (_, status::ERROR) => {
            Ok(Reply::Error(ErrorKind::Unknown, "the classic reply gives no reason".to_owned()))
        }
        _ => Err(Malformed("unknown status")),
    }
}

fn reply(awaited: &Awaited, status: u8, payload: Bytes) -> Result<Reply, Malformed> {
    if let Awaited::One(form) = awaited
        && let Some(answer) = answer(*form, status, payload.clone())?
    {
        return Ok(Reply::Answers(vec![answer]));
    }
    let mut reader = Reader::new(payload.clone());
    let reply = match (status, awaited) {
        (0, _) => return Err(Malformed("status 0")),
        (status::OK, Awaited::Pong) => Reply::Pong,
        (status::OK, Awaited::Done) => Reply::Done,
        (status::OK, Awaited::Session) => Reply::SessionOpened { session: reader.u64()? },
        (status::OK, Awaited::Members) => return Ok(Reply::Members(info::members(payload)?)),
        (status::OK, Awaited::Status) => {
            return Ok(Reply::Status(Box::new(info::status(payload)?)));
        }
        (status::OK, Awaited::List(forms)) => Reply::Answers(list(forms, &mut reader)?),
        (status::OK, _) => return Err(Malformed("not the reply that was asked for")),
        (status::GUARD_FAILED, _) => return Ok(Reply::GuardFailed),
        (status, _) => {
            let message = String::from_utf8_lossy(&payload).into_owned();
            return Ok(Reply::Error(error_of_status(status), message));
        }
    };
    reader.finish()?;
    Ok(reply)
}

fn list(forms: &[Form], reader: &mut Reader) -> Result<Vec<Answer>, Malformed> {
    if reader.count(HEAD_BYTES)? != forms.len() {
        return Err(Malformed("not as many replies as commands"));
    }
    let next = |form: &Form| {
        let status = reader.u8()?;
        answer(*form, status, reader.bytes()?)?.ok_or(Malformed("unknown status in a list"))
    };
    forms.iter().map(next).collect()
}

/// The answer to one command, or `None` if the status is not one of an answer.
fn answer(form: Form, status: u8, payload: Bytes) -> Result<Option<Answer>, Malformed> {
    if let Some(failure) = failure_of_status(status) {
        return Ok(Some(Answer::Failed(failure)));
    }
    let mut reader = Reader::new(payload);
    let answer = match (status, form) {
        (status::OK, Form::Nothing) => Answer::Done,
        (status::OK, Form::Version) => Answer::Stored { version: reader.u64()? },
        (status::OK, Form::Integer) => Answer::Integer(reader.i64()?),
        (status::OK, Form::Ttl) => Answer::Ttl(match reader.i64()? {
            NO_DEADLINE => Ttl::Never,
            ms => Ttl::Ms(u64::try_from(ms).map_err(|_| Malformed("a negative time left"))?),
        }),
        (status::OK, Form::Item) => {
            let version = reader.u64()?;
            let value = reader.take(reader.remaining())?;
            Answer::Item(Some(Item { value, version }))
        }
        (status::NOT_FOUND, Form::Item) => Answer::Item(None),
        (status::NOT_FOUND, Form::Ttl) => Answer::Ttl(Ttl::Absent),
        (status::CONDITION_FAILED, Form::Version) => Answer::NotStored { version: reader.u64()? },
        _ => return Ok(None),
    };
    reader.finish()?;
    Ok(Some(answer))
}
