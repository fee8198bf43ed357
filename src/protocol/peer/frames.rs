//! What follows a welcome: one frame per message.

use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};

use super::PeerError;
use crate::encoding::{Malformed, Reader, put_bytes};
use crate::raft::entry::encode_id;
use crate::raft::message::{
    Append, AppendResponse, Heartbeat, HeartbeatResponse, PreVote, PreVoteResponse, ReadIndex,
    ReadIndexResponse, RequestVote, VoteResponse,
};
use crate::raft::{ClusterId, Entry, EntryId, Envelope, Index, Message, NodeId, ReadId, Term};
use crate::replica::clock::Reading;
use crate::replica::{Answered, Forward, PeerMessage, SnapshotMessage, StateMessage};
use crate::request::bytes::{decode_reply, decode_request, encode_reply, encode_request};

/// Length and checksum.
pub const FRAME_HEAD_BYTES: usize = 4 + 4;

/// The only group there is; a number of its own for each shard one day.
const GROUP: u32 = 0;

/// Terms, indexes and readings of clocks are below.
const NUMBER_LIMIT: u64 = 1 << 62;

/// Nobody promises or waits longer.
const DURATION_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

const PRE_VOTE: u8 = 1;
const PRE_VOTE_RESPONSE: u8 = 2;
const REQUEST_VOTE: u8 = 3;
const VOTE_RESPONSE: u8 = 4;
const APPEND: u8 = 5;
const APPEND_RESPONSE: u8 = 6;
const HEARTBEAT: u8 = 7;
const HEARTBEAT_RESPONSE: u8 = 8;
const READ_INDEX: u8 = 9;
const READ_INDEX_RESPONSE: u8 = 10;
const TIMEOUT_NOW: u8 = 11;
const OUTDATED: u8 = 12;
const FORWARD: u8 = 32;
const FORWARDED: u8 = 33;
const SNAPSHOT_OFFER: u8 = 48;
const SNAPSHOT_REQUEST: u8 = 49;
const SNAPSHOT_CHUNK: u8 = 50;
const SNAPSHOT_WANTED: u8 = 51;
const STATE_ASK: u8 = 64;
const STATE_ANSWER: u8 = 65;
const STATE_VERDICT: u8 = 66;

/// Between whom a connection is. Every frame's checksum starts from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    from: NodeId,
    to: NodeId,
    seed: u32,
}

impl Ends {
    /// From the node that dialled to the one that accepted.
    pub fn new(cluster: ClusterId, from: NodeId, to: NodeId) -> Self {
        let mut bytes = Vec::new();
        bytes.put_u128_le(cluster.0);
        bytes.put_u128_le(from.0);
        bytes.put_u128_le(to.0);
        bytes.put_u32_le(GROUP);
        Self { from, to, seed: crc32fast::hash(&bytes) }
    }

    pub(super) fn checksum(&self, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.seed);
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// Appends a frame; how many bytes it takes.
///
/// Panics if an envelope is not between these ends: it would arrive as
/// somebody else's word.
pub fn encode_frame(ends: &Ends, message: &PeerMessage, buffer: &mut Vec<u8>) -> usize {
    let start = buffer.len();
    buffer.put_bytes(0, FRAME_HEAD_BYTES);
    encode_message(ends, message, buffer);
    let body = start + FRAME_HEAD_BYTES;
    let length = u32::try_from(buffer.len() - body).expect("every limit is far below 4 GiB");
    let crc = ends.checksum(&buffer[body..]);
    buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
    buffer[start + 4..body].copy_from_slice(&crc.to_le_bytes());
    buffer.len() - start
}

/// Takes a frame off the front of `input`, or nothing while it is incomplete.
/// `limit_bytes` is for the whole frame. Commands share the input's memory.
pub fn decode_frame(
    ends: &Ends,
    limit_bytes: usize,
    input: &mut BytesMut,
) -> Result<Option<PeerMessage>, PeerError> {
    let Some(mut head) = input.get(..FRAME_HEAD_BYTES) else { return Ok(None) };
    let (length, crc) = (head.get_u32_le() as usize, head.get_u32_le());
    if length > limit_bytes.saturating_sub(FRAME_HEAD_BYTES) {
        return Err(PeerError::OverLimit { size: length, limit: limit_bytes });
    }
    if input.len() < FRAME_HEAD_BYTES + length {
        return Ok(None);
    }
    input.advance(FRAME_HEAD_BYTES);
    let body = input.split_to(length).freeze();
    if ends.checksum(&body) != crc {
        return Err(PeerError::Checksum);
    }
    let mut reader = Reader::new(body);
    let message = decode_message(ends, &mut reader)?;
    reader.finish()?;
    Ok(Some(message))
}

fn encode_message(ends: &Ends, message: &PeerMessage, buffer: &mut Vec<u8>) {
    match message {
        PeerMessage::Raft { envelope, clock } => {
            assert!(
                envelope.from == ends.from && envelope.to == ends.to,
                "a replica speaks for itself, and its links are chosen by addressee"
            );
            buffer.put_u8(kind_of(&envelope.message));
            buffer.put_u64_le(envelope.term.0);
            encode_clock(*clock, buffer);
            encode_raft(&envelope.message, buffer);
        }
        PeerMessage::Forward(forward) => {
            buffer.put_u8(FORWARD);
            buffer.put_u64_le(forward.id);
            buffer.put_u64_le(forward.term.0);
            put_duration(forward.timeout, buffer);
            buffer.put_u64_le(forward.connection);
            encode_request(buffer, &forward.request);
        }
        PeerMessage::Forwarded { id, answer } => {
            buffer.put_u8(FORWARDED);
            buffer.put_u64_le(*id);
            encode_id(answer.applied, buffer);
            encode_reply(buffer, &answer.reply);
        }
        PeerMessage::Snapshot(SnapshotMessage::Offer { last, size_bytes }) => {
            buffer.put_u8(SNAPSHOT_OFFER);
            encode_id(*last, buffer);
            buffer.put_u64_le(*size_bytes);
        }
        PeerMessage::Snapshot(SnapshotMessage::Request { last, offset }) => {
            buffer.put_u8(SNAPSHOT_REQUEST);
            encode_id(*last, buffer);
            buffer.put_u64_le(*offset);
        }
        PeerMessage::Snapshot(SnapshotMessage::Chunk { last, offset, bytes }) => {
            buffer.put_u8(SNAPSHOT_CHUNK);
            encode_id(*last, buffer);
            buffer.put_u64_le(*offset);
            put_bytes(buffer, bytes);
        }
        PeerMessage::Snapshot(SnapshotMessage::Wanted { since }) => {
            buffer.put_u8(SNAPSHOT_WANTED);
            buffer.put_u64_le(since.0);
        }
        PeerMessage::State(said) => encode_state(*said, buffer),
    }
}

fn encode_state(said: StateMessage, buffer: &mut Vec<u8>) {
    let (kind, index, hash) = match said {
        StateMessage::Ask { index } => (STATE_ASK, index, None),
        StateMessage::Answer { index, hash } => (STATE_ANSWER, index, hash),
        StateMessage::Verdict { index, hash } => (STATE_VERDICT, index, hash),
    };
    buffer.put_u8(kind);
    buffer.put_u64_le(index.0);
    buffer.put_u8(u8::from(hash.is_some()));
    if let Some(hash) = hash {
        buffer.put_u64_le(hash);
    }
}

fn decode_state(kind: u8, reader: &mut Reader) -> Result<StateMessage, Malformed> {
    let index = index(reader)?;
    let hash = if reader.bool()? { Some(reader.u64()?) } else { None };
    match (kind, hash) {
        (STATE_ASK, None) => Ok(StateMessage::Ask { index }),
        (STATE_ANSWER, hash) => Ok(StateMessage::Answer { index, hash }),
        (STATE_VERDICT, hash) => Ok(StateMessage::Verdict { index, hash }),
        _ => Err(Malformed("a question carries no hash")),
    }
}

fn decode_message(ends: &Ends, reader: &mut Reader) -> Result<PeerMessage, Malformed> {
    let kind = reader.u8()?;
    Ok(match kind {
        PRE_VOTE..=OUTDATED => {
            let term = term(reader)?;
            let clock = decode_clock(reader)?;
            let message = decode_raft(kind, reader)?;
            let envelope = Envelope { from: ends.from, to: ends.to, term, message };
            PeerMessage::Raft { envelope, clock }
        }
        FORWARD => PeerMessage::Forward(Forward {
            id: reader.u64()?,
            term: term(reader)?,
            timeout: duration(reader)?,
            connection: reader.u64()?,
            request: decode_request(reader)?,
        }),
        FORWARDED => PeerMessage::Forwarded {
            id: reader.u64()?,
            answer: Answered { applied: id(reader)?, reply: decode_reply(reader)? },
        },
        SNAPSHOT_OFFER => PeerMessage::Snapshot(SnapshotMessage::Offer {
            last: id(reader)?,
            size_bytes: reader.u64()?,
        }),
        SNAPSHOT_REQUEST => PeerMessage::Snapshot(SnapshotMessage::Request {
            last: id(reader)?,
            offset: reader.u64()?,
        }),
        SNAPSHOT_CHUNK => PeerMessage::Snapshot(SnapshotMessage::Chunk {
            last: id(reader)?,
            offset: reader.u64()?,
            bytes: reader.bytes()?,
        }),
        SNAPSHOT_WANTED => PeerMessage::Snapshot(SnapshotMessage::Wanted { since: index(reader)? }),
        STATE_ASK..=STATE_VERDICT => PeerMessage::State(decode_state(kind, reader)?),
        _ => return Err(Malformed("unknown kind of frame")),
    })
}

fn kind_of(message: &Message) -> u8 {
    match message {
        Message::PreVote(_) => PRE_VOTE,
        Message::PreVoteResponse(_) => PRE_VOTE_RESPONSE,
        Message::RequestVote(_) => REQUEST_VOTE,
        Message::VoteResponse(_) => VOTE_RESPONSE,
        Message::Append(_) => APPEND,
        Message::AppendResponse(_) => APPEND_RESPONSE,
        Message::Heartbeat(_) => HEARTBEAT,
        Message::HeartbeatResponse(_) => HEARTBEAT_RESPONSE,
        Message::ReadIndex(_) => READ_INDEX,
        Message::ReadIndexResponse(_) => READ_INDEX_RESPONSE,
        Message::TimeoutNow => TIMEOUT_NOW,
        Message::Outdated => OUTDATED,
    }
}

fn encode_raft(message: &Message, buffer: &mut Vec<u8>) {
    match message {
        Message::PreVote(PreVote { next, last }) => {
            buffer.put_u64_le(next.0);
            encode_id(*last, buffer);
        }
        Message::PreVoteResponse(PreVoteResponse { next, granted }) => {
            buffer.put_u64_le(next.0);
            buffer.put_u8(u8::from(*granted));
        }
        Message::RequestVote(RequestVote { last, transfer }) => {
            encode_id(*last, buffer);
            buffer.put_u8(u8::from(*transfer));
        }
        Message::VoteResponse(VoteResponse { granted }) => buffer.put_u8(u8::from(*granted)),
        Message::Append(append) => encode_append(append, buffer),
        Message::AppendResponse(AppendResponse::Accepted { matched, received }) => {
            buffer.put_u8(0);
            buffer.put_u64_le(matched.0);
            buffer.put_u64_le(received.0);
        }
        Message::AppendResponse(AppendResponse::Rejected { at, hint }) => {
            buffer.put_u8(1);
            buffer.put_u64_le(at.0);
            encode_id(*hint, buffer);
        }
        Message::Heartbeat(Heartbeat { round, commit, promise }) => {
            buffer.put_u64_le(*round);
            buffer.put_u64_le(commit.0);
            put_duration(*promise, buffer);
        }
        Message::HeartbeatResponse(response) => {
            buffer.put_u64_le(response.round);
            buffer.put_u64_le(response.matched.0);
            buffer.put_u64_le(response.received.0);
            buffer.put_u64_le(response.durable.0);
            buffer.put_u8(u8::from(response.room));
            buffer.put_u8(u8::from(response.serves));
        }
        Message::ReadIndex(ReadIndex { id }) => buffer.put_u64_le(id.0),
        Message::ReadIndexResponse(ReadIndexResponse { id, index }) => {
            buffer.put_u64_le(id.0);
            buffer.put_u64_le(index.0);
        }
        Message::TimeoutNow | Message::Outdated => {}
    }
}

fn decode_raft(kind: u8, reader: &mut Reader) -> Result<Message, Malformed> {
    Ok(match kind {
        PRE_VOTE => Message::PreVote(PreVote { next: term(reader)?, last: id(reader)? }),
        PRE_VOTE_RESPONSE => Message::PreVoteResponse(PreVoteResponse {
            next: term(reader)?,
            granted: reader.bool()?,
        }),
        REQUEST_VOTE => {
            Message::RequestVote(RequestVote { last: id(reader)?, transfer: reader.bool()? })
        }
        VOTE_RESPONSE => Message::VoteResponse(VoteResponse { granted: reader.bool()? }),
        APPEND => Message::Append(decode_append(reader)?),
        APPEND_RESPONSE => Message::AppendResponse(match reader.bool()? {
            false => AppendResponse::Accepted { matched: index(reader)?, received: index(reader)? },
            true => AppendResponse::Rejected { at: index(reader)?, hint: id(reader)? },
        }),
        HEARTBEAT => Message::Heartbeat(Heartbeat {
            round: reader.u64()?,
            commit: index(reader)?,
            promise: duration(reader)?,
        }),
        HEARTBEAT_RESPONSE => Message::HeartbeatResponse(HeartbeatResponse {
            round: reader.u64()?,
            matched: index(reader)?,
            received: index(reader)?,
            durable: index(reader)?,
            room: reader.bool()?,
            serves: reader.bool()?,
        }),
        READ_INDEX => Message::ReadIndex(ReadIndex { id: ReadId(reader.u64()?) }),
        READ_INDEX_RESPONSE => Message::ReadIndexResponse(ReadIndexResponse {
            id: ReadId(reader.u64()?),
            index: index(reader)?,
        }),
        TIMEOUT_NOW => Message::TimeoutNow,
        OUTDATED => Message::Outdated,
        _ => return Err(Malformed("unknown message")),
    })
}

fn encode_append(append: &Append, buffer: &mut Vec<u8>) {
    buffer.reserve(64 + append.entries.iter().map(Entry::size).sum::<usize>());
    encode_id(append.prev, buffer);
    buffer.put_u64_le(append.commit.0);
    let count = u32::try_from(append.entries.len()).expect("an append is limited in bytes");
    buffer.put_u32_le(count);
    append.entries.iter().for_each(|entry| entry.encode(buffer));
}

fn decode_append(reader: &mut Reader) -> Result<Append, Malformed> {
    let prev = id(reader)?;
    let commit = index(reader)?;
    let count = reader.count(Entry::OVERHEAD)?;
    let entries = (0..count).map(|_| entry(reader)).collect::<Result<_, _>>()?;
    Ok(Append { prev, entries, commit })
}

fn entry(reader: &mut Reader) -> Result<Entry, Malformed> {
    let entry = Entry::decode(reader)?;
    bounded(entry.id.term.0)?;
    bounded(entry.id.index.0)?;
    Ok(entry)
}

fn encode_clock(clock: Option<Reading>, buffer: &mut Vec<u8>) {
    match clock {
        None => buffer.put_u8(0),
        Some(Reading { estimate_ms: None, wall_ms }) => {
            buffer.put_u8(1);
            buffer.put_u64_le(wall_ms);
        }
        Some(Reading { estimate_ms: Some(estimate_ms), wall_ms }) => {
            buffer.put_u8(2);
            buffer.put_u64_le(estimate_ms);
            buffer.put_u64_le(wall_ms);
        }
    }
}

fn decode_clock(reader: &mut Reader) -> Result<Option<Reading>, Malformed> {
    let estimate_ms = match reader.u8()? {
        0 => return Ok(None),
        1 => None,
        2 => Some(bounded(reader.u64()?)?),
        _ => return Err(Malformed("unknown kind of reading")),
    };
    Ok(Some(Reading { estimate_ms, wall_ms: bounded(reader.u64()?)? }))
}

/// A number that more can be added to.
fn bounded(number: u64) -> Result<u64, Malformed> {
    if number < NUMBER_LIMIT { Ok(number) } else { Err(Malformed("a number is too large")) }
}

fn term(reader: &mut Reader) -> Result<Term, Malformed> {
    Ok(Term(bounded(reader.u64()?)?))
}

fn index(reader: &mut Reader) -> Result<Index, Malformed> {
    Ok(Index(bounded(reader.u64()?)?))
}

fn id(reader: &mut Reader) -> Result<EntryId, Malformed> {
    Ok(EntryId { term: term(reader)?, index: index(reader)? })
}

fn put_duration(duration: Duration, buffer: &mut Vec<u8>) {
    let micros = duration.min(DURATION_LIMIT).as_micros();
    buffer.put_u64_le(u64::try_from(micros).expect("a day is short"));
}

fn duration(reader: &mut Reader) -> Result<Duration, Malformed> {
    let duration = Duration::from_micros(reader.u64()?);
    if duration > DURATION_LIMIT { Err(Malformed("a time is too long")) } else { Ok(duration) }
}
