//! What is said arrives, byte by byte or whole; what was not said does not.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::raft::message::{
    Append, AppendResponse, Heartbeat, HeartbeatResponse, PreVote, PreVoteResponse, ReadIndex,
    ReadIndexResponse, RequestVote, VoteResponse,
};
use crate::raft::{
    ClusterId, Entry, EntryId, Envelope, Index, Member, Membership, NodeId, Payload, ReadId, Term,
};
use crate::replica::clock::Reading;
use crate::replica::{Answered, Forward, Peer, SnapshotMessage, StateMessage};
use crate::request::{Answer, Batch, Command, Consistency, Item, Key, Reply, Request};

const LIMIT: usize = 1 << 20;
const FROM: NodeId = NodeId(1);
const TO: NodeId = NodeId(2);

fn ends() -> Ends {
    Ends::new(ClusterId(9), FROM, TO)
}

fn peer(cluster: Option<u128>) -> Peer {
    Peer {
        node: FROM,
        cluster: cluster.map(ClusterId),
        name: "a".into(),
        client_address: "a:3001".into(),
        rebuild: cluster.is_none(),
        member: false,
    }
}

fn hello(to: Option<NodeId>) -> Hello {
    let sender = peer(to.map(|_| 9));
    Hello { class: LinkClass::Entries, sender, peer_address: "a:4001".into(), to }
}

fn raft(message: Message, clock: Option<Reading>) -> PeerMessage {
    PeerMessage::Raft { envelope: Envelope { from: FROM, to: TO, term: Term(3), message }, clock }
}

fn append() -> Message {
    let mut membership = Membership::default();
    membership.insert(NodeId(7), Member::test("g", true));
    let payloads = [
        Payload::Noop,
        Payload::Command(Bytes::from_static(b"command")),
        Payload::Membership(membership),
    ];
    let entries = payloads.into_iter().zip(5..);
    let entries = entries.map(|(payload, index)| Entry { id: EntryId::new(3, index), payload });
    Message::Append(Append {
        prev: EntryId::new(2, 4),
        entries: entries.collect(),
        commit: Index(4),
    })
}

/// One of each kind, by name.
fn every_message() -> Vec<(&'static str, PeerMessage)> {
    let last = EntryId::new(2, 4);
    let reading = |estimate_ms| Some(Reading { estimate_ms, wall_ms: 12 });
    let accepted = AppendResponse::Accepted { matched: Index(4), received: Index(5) };
    let rejected = AppendResponse::Rejected { at: Index(4), hint: EntryId::new(1, 3) };
    let promise = Duration::from_millis(300);
    let answered = HeartbeatResponse {
        round: 6,
        matched: Index(4),
        received: Index(5),
        durable: Index(7),
        room: false,
        serves: true,
    };
    let request = Request::Run {
        batch: Batch::of(Command::Get(Key::new("k"))),
        consistency: Consistency::Linearizable,
        session: None,
    };
    let timeout = Duration::from_secs(3);
    let forward = Forward { id: 1, term: Term(3), timeout, connection: 8, request };
    let item = Item { value: "v".into(), version: 5 };
    let reply = Reply::Answers(vec![Answer::Item(Some(item))]);
    vec![
        ("pre-vote", raft(Message::PreVote(PreVote { next: Term(4), last }), None)),
        (
            "pre-vote response",
            raft(
                Message::PreVoteResponse(PreVoteResponse { next: Term(4), granted: true }),
                reading(None),
            ),
        ),
        ("request vote", raft(Message::RequestVote(RequestVote { last, transfer: true }), None)),
        (
            "vote response",
            raft(Message::VoteResponse(VoteResponse { granted: true }), reading(Some(11))),
        ),
        ("append", raft(append(), None)),
        ("accepted", raft(Message::AppendResponse(accepted), None)),
        ("rejected", raft(Message::AppendResponse(rejected), None)),
        (
            "heartbeat",
            raft(
                Message::Heartbeat(Heartbeat { round: 6, commit: Index(4), promise }),
                reading(Some(11)),
            ),
        ),
        ("heartbeat response", raft(Message::HeartbeatResponse(answered), None)),
        ("read index", raft(Message::ReadIndex(ReadIndex { id: ReadId(u64::MAX) }), None)),
        (
            "read index response",
            raft(
                Message::ReadIndexResponse(ReadIndexResponse { id: ReadId(1), index: Index(4) }),
                reading(Some(11)),
            ),
        ),
        ("timeout now", raft(Message::TimeoutNow, None)),
        ("outdated", raft(Message::Outdated, None)),
        ("forward", PeerMessage::Forward(forward)),
        ("forwarded", forwarded(1, reply, EntryId::new(3, 5))),
        ("snapshot offer", PeerMessage::Snapshot(SnapshotMessage::Offer { last, size_bytes: 9 })),
        ("snapshot request", PeerMessage::Snapshot(SnapshotMessage::Request { last, offset: 7 })),
        (
            "snapshot chunk",
            PeerMessage::Snapshot(SnapshotMessage::Chunk { last, offset: 7, bytes: "xy".into() }),
        ),
        ("snapshot wanted", PeerMessage::Snapshot(SnapshotMessage::Wanted { since: Index(4) })),
        ("state, ask", PeerMessage::State(StateMessage::Ask { index: Index(1024) })),
        (
            "state, answer",
            PeerMessage::State(StateMessage::Answer { index: Index(1024), hash: Some(7) }),
        ),
        (
            "state, verdict",
            PeerMessage::State(StateMessage::Verdict { index: Index(1024), hash: None }),
        ),
    ]
}

fn forwarded(id: u64, reply: Reply, applied: EntryId) -> PeerMessage {
    PeerMessage::Forwarded { id, answer: Answered { reply, applied } }
}

fn encoded(message: &PeerMessage) -> Vec<u8> {
    let mut buffer = Vec::new();
    let size = encode_frame(&ends(), message, &mut buffer);
    assert_eq!(size, buffer.len());
    buffer
}

fn decoded(bytes: &[u8]) -> Result<Option<PeerMessage>, PeerError> {
    decode_frame(&ends(), LIMIT, &mut BytesMut::from(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Nodes of different builds speak these bytes: if this test fails, give the
/// protocol another version, or do not change them.
#[test]
fn the_bytes_are_pinned() {
    let refusals = [
        Refusal::ForeignCluster(ClusterId(9)),
        Refusal::WrongAddressee(NodeId(7)),
        Refusal::UnknownVersion,
        Refusal::TooMany,
        Refusal::NoCluster,
    ];
    let member = Peer { member: true, ..peer(Some(9)) };
    let mut lines = vec![
        format!("hello: {}", hex(&hello(Some(TO)).encode())),
        format!("probe: {}", hex(&hello(None).encode())),
        format!("welcome: {}", hex(&Welcome::Here(peer(Some(9))).encode())),
        format!("welcome, joining: {}", hex(&Welcome::Here(peer(None)).encode())),
        format!("welcome, a member: {}", hex(&Welcome::Here(member).encode())),
    ];
    lines.extend(refusals.map(|refusal| {
        format!("refused, {refusal:?}: {}", hex(&Welcome::Refused(refusal).encode()))
    }));
    let frames = every_message();
    lines.extend(frames.iter().map(|(name, frame)| format!("{name}: {}", hex(&encoded(frame)))));
    assert_eq!(lines.join("\n"), include_str!("../peer_golden.txt").trim_end());
}

#[test]
fn a_handshake_arrives_byte_by_byte() {
    let mut of_member = hello(Some(TO));
    of_member.sender.member = true;
    for sent in [hello(Some(TO)), hello(None), of_member] {
        let mut input = BytesMut::new();
        let bytes = sent.encode();
        for byte in &bytes[..bytes.len() - 1] {
            input.extend_from_slice(&[*byte]);
            assert_eq!(Hello::decode(&mut input), Ok(None));
        }
        input.extend_from_slice(&[bytes[bytes.len() - 1], b'x']);
        assert_eq!(Hello::decode(&mut input), Ok(Some(sent)));
        assert_eq!(&input[..], b"x", "no more than itself is taken");
    }
    let sent = Welcome::Refused(Refusal::ForeignCluster(ClusterId(9)));
    let mut input = BytesMut::new();
    for byte in sent.encode() {
        assert_eq!(Welcome::decode(&mut input), Ok(None));
        input.extend_from_slice(&[byte]);
    }
    assert_eq!(Welcome::decode(&mut input), Ok(Some(sent)));
}

#[test]
fn strangers_and_other_versions_are_told_apart() {
    let decode = |bytes: &[u8]| Hello::decode(&mut BytesMut::from(bytes));
    assert_eq!(decode(b"G"), Err(PeerError::Stranger), "at its first byte");
    assert_eq!(decode(b"RAFTHERE"), Err(PeerError::Stranger));
    let good = hello(Some(TO)).encode();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        decode(&bytes)
    };
    assert_eq!(with(8, 2), Err(PeerError::OtherVersion(2)));
    assert!(matches!(with(11, 0xff), Err(PeerError::OverLimit { .. })));
    for (at, byte) in good.iter().enumerate().skip(12) {
        assert_eq!(with(at, byte ^ 1), Err(PeerError::Checksum), "byte {at}");
    }
}

#[test]
fn frames_arrive_byte_by_byte_and_in_order() {
    let all: Vec<u8> = every_message().iter().flat_map(|(_, frame)| encoded(frame)).collect();
    let mut input = BytesMut::new();
    let mut arrived = Vec::new();
    for byte in all {
        input.extend_from_slice(&[byte]);
        arrived.extend(decode_frame(&ends(), LIMIT, &mut input).unwrap());
    }
    let sent: Vec<PeerMessage> = every_message().into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(arrived, sent);
}

/// [A port that is given to another node between a dial and a frame.]
#[test]
fn a_frame_of_another_connection_does_not_pass() {
    let bytes = encoded(&raft(Message::TimeoutNow, None));
    let others = [
        Ends::new(ClusterId(8), FROM, TO),
        Ends::new(ClusterId(9), NodeId(3), TO),
        Ends::new(ClusterId(9), FROM, NodeId(3)),
        Ends::new(ClusterId(9), TO, FROM),
    ];
    for other in others {
        let result = decode_frame(&other, LIMIT, &mut BytesMut::from(&bytes[..]));
        assert_eq!(result, Err(PeerError::Checksum));
    }
}

#[test]
fn a_flipped_bit_never_passes() {
    for (name, frame) in every_message() {
        let bytes = encoded(&frame);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(decoded(&bytes), Ok(Some(_))), "{name}, bit {bit}");
        }
    }
}

#[test]
fn a_declared_length_reserves_nothing() {
    let mut input = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0][..]);
    let error = decode_frame(&ends(), LIMIT, &mut input).unwrap_err();
    assert!(matches!(error, PeerError::OverLimit { .. }), "{error}");
    let frame = encoded(&raft(append(), None));
    let at = |limit| decode_frame(&ends(), limit, &mut BytesMut::from(&frame[..]));
    assert!(at(frame.len()).is_ok());
    assert!(at(frame.len() - 1).is_err());
}

#[test]
fn numbers_that_leave_no_room_are_refused() {
    const HUGE: u64 = 1 << 62;
    let refused = |message: PeerMessage| {
        let error = decoded(&encoded(&message)).unwrap_err();
        assert!(matches!(error, PeerError::Malformed(_)), "{error}");
    };
    let entry = Entry { id: EntryId::new(3, HUGE), payload: Payload::Noop };
    let append = |prev, entries, commit| Message::Append(Append { prev, entries, commit });
    refused(raft(append(EntryId::new(HUGE, 1), vec![], Index(0)), None));
    refused(raft(append(EntryId::ZERO, vec![entry], Index(0)), None));
    refused(raft(append(EntryId::ZERO, vec![], Index(u64::MAX)), None));
    let reading = Reading { estimate_ms: Some(HUGE), wall_ms: 0 };
    refused(raft(Message::Outdated, Some(reading)));
    refused(forwarded(0, Reply::Done, EntryId::new(1, HUGE)));
    let outdated = Message::Outdated;
    let envelope = Envelope { from: FROM, to: TO, term: Term(HUGE), message: outdated };
    refused(PeerMessage::Raft { envelope, clock: None });
}

#[test]
fn commands_share_the_memory_of_their_frame() {
    let bytes = BytesMut::from(&encoded(&raft(append(), None))[..]);
    let range = bytes.as_ptr_range();
    let mut input = bytes;
    let message = decode_frame(&ends(), LIMIT, &mut input).unwrap().unwrap();
    let PeerMessage::Raft { envelope, .. } = message else { panic!("consensus") };
    let Message::Append(append) = envelope.message else { panic!("an append") };
    let Payload::Command(command) = &append.entries[1].payload else { panic!("a command") };
    assert!(range.contains(&command.as_ptr()));
}

#[test]
fn what_is_large_has_a_link_of_its_own() {
    for (name, frame) in every_message() {
        let expected = match name {
            "append" | "forward" | "forwarded" => LinkClass::Entries,
            name if name.starts_with("snapshot") => LinkClass::Snapshot,
            _ => LinkClass::Urgent,
        };
        assert_eq!(LinkClass::of(&frame), expected, "{name}");
    }
}

fn an_id() -> impl Strategy<Value = EntryId> {
    (0..1_u64 << 62, 0..1_u64 << 62).prop_map(|(term, index)| EntryId::new(term, index))
}

fn an_entry() -> impl Strategy<Value = Entry> {
    let payload = prop_oneof![
        Just(Payload::Noop),
        proptest::collection::vec(any::<u8>(), 0..100).prop_map(|b| Payload::Command(b.into())),
    ];
    (an_id(), payload).prop_map(|(id, payload)| Entry { id, payload })
}

fn a_message() -> impl Strategy<Value = PeerMessage> {
    let index = || (0..1_u64 << 62).prop_map(Index);
    let clock = proptest::option::of(
        (proptest::option::of(0..1_u64 << 62), 0..1_u64 << 62)
            .prop_map(|(estimate_ms, wall_ms)| Reading { estimate_ms, wall_ms }),
    );
    let entries = proptest::collection::vec(an_entry(), 0..5);
    let message = prop_oneof![
        (an_id(), entries, index()).prop_map(|(prev, entries, commit)| Message::Append(Append {
            prev,
            entries,
            commit
        })),
        (any::<u64>(), index(), 0..1_000_000_u64).prop_map(|(round, commit, us)| {
            Message::Heartbeat(Heartbeat { round, commit, promise: Duration::from_micros(us) })
        }),
        (any::<u64>(), index(), index(), index(), any::<[bool; 2]>()).prop_map(
            |(round, matched, received, durable, [room, serves])| {
                Message::HeartbeatResponse(HeartbeatResponse {
                    round,
                    matched,
                    received,
                    durable,
                    room,
                    serves,
                })
            }
        ),
        (index(), an_id())
            .prop_map(|(at, hint)| Message::AppendResponse(AppendResponse::Rejected { at, hint })),
    ];
    let raft = (message, clock, 0..1_u64 << 62).prop_map(|(message, clock, term)| {
        let envelope = Envelope { from: FROM, to: TO, term: Term(term), message };
        PeerMessage::Raft { envelope, clock }
    });
    let answered = (any::<u64>(), an_id(), ".{0,20}").prop_map(|(id, applied, text)| {
        forwarded(id, Reply::Error(crate::request::ErrorKind::Busy, text), applied)
    });
    let bytes = proptest::collection::vec(any::<u8>(), 0..100);
    let chunk = (an_id(), any::<u64>(), bytes).prop_map(|(last, offset, bytes)| {
        PeerMessage::Snapshot(SnapshotMessage::Chunk { last, offset, bytes: bytes.into() })
    });
    prop_oneof![raft, answered, chunk]
}

proptest! {
    #[test]
    fn whatever_is_said_arrives(message in a_message()) {
        prop_assert_eq!(decoded(&encoded(&message)), Ok(Some(message)));
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut input = BytesMut::from(&bytes[..]);
        let _ = decode_frame(&ends(), LIMIT, &mut input);
        let _ = Hello::decode(&mut BytesMut::from(&bytes[..]));
        let _ = Welcome::decode(&mut BytesMut::from(&bytes[..]));
    }

    /// What is wrong behind a right checksum reaches the fields.
    #[test]
    fn random_fields_never_panic(
        kind in 0_u8..64,
        fields in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let body = [&[kind][..], &fields].concat();
        let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
        bytes.extend(ends().checksum(&body).to_le_bytes());
        bytes.extend(body);
        prop_assert_ne!(decoded(&bytes), Err(PeerError::Checksum));
    }
}
