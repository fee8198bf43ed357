//! The codecs alone, without sockets: properties that hold for every one of them,
//! whoever is behind it and whatever is sent.
//!
//! A state machine answers at once what a codec asks.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use raftcache::fsm::{self, Action, Fsm, Proposal};
use raftcache::protocol::binary::BinaryCodec;
use raftcache::protocol::http::HttpCodec;
use raftcache::protocol::resp::RespCodec;
use raftcache::protocol::surroundings::Nowhere;
use raftcache::protocol::text::TextCodec;
use raftcache::protocol::{Codec, Incoming, Limits, Protocol, Recognition, recognise};
use raftcache::request::{
    Answer, Batch, Command, Condition, ErrorKind, Expiry, Key, Reply, Request,
};

use crate::speaks::{Speaks, all};
use crate::words::{Ask, Exchange, Said, stories};

/// Counts what each thread has allocated and not freed.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let held = HELD.get() + bytes;
    HELD.set(held);
    MOST.set(MOST.get().max(held));
}

// SAFETY: every call goes to the system's allocator with the arguments it came with,
// and what that returns is returned. The counters are plain numbers of the thread:
// to touch them allocates nothing and cannot panic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as our own caller has promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as our own caller has promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that was held during this, beyond what was held before.
fn most_held<T>(doing: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    MOST.set(before);
    let done = doing();
    (done, usize::try_from(MOST.get() - before).expect("no less than at the beginning"))
}

/// Everything of a node behind one connection but the log, the sockets and the clock.
struct Node {
    /// Once the first bytes have said which.
    codec: Option<Box<dyn Codec>>,
    data: Fsm,
    index: u64,
    output: BytesMut,
    /// It listens no more, for this reason.
    ended: Option<String>,
    /// The most that taking one request has held.
    most_held: usize,
}

impl Node {
    fn new() -> Self {
        let (data, output) = (Fsm::new(fsm::Limits::default()), BytesMut::new());
        Self { codec: None, data, index: 0, output, ended: None, most_held: 0 }
    }

    /// Takes what has arrived, as far as it can, and answers it.
    fn hear(&mut self, input: &mut BytesMut) {
        while self.ended.is_none() {
            let Some(codec) = &mut self.codec else {
                match recognise(input) {
                    Recognition::NeedMore => return,
                    Recognition::Close(reason) => self.ended = Some(reason.to_string()),
                    Recognition::Protocol(protocol) => self.codec = Some(codec_of(protocol)),
                }
                continue;
            };
            let (decoded, held) = most_held(|| codec.decode(input));
            self.most_held = self.most_held.max(held);
            if codec.ends() {
                self.ended = Some("it is the last".to_owned());
            }
            match decoded {
                Ok(None) => return,
                Ok(Some(incoming)) => self.answer(incoming),
                Err(error) => {
                    codec.farewell(&error, &mut self.output);
                    self.ended = Some(error.to_string());
                }
            }
        }
    }

    fn answer(&mut self, incoming: Incoming) {
        let mut reply = match incoming {
            Incoming::Written(bytes) | Incoming::Late(_, bytes) => {
                return self.output.extend_from_slice(&bytes);
            }
            Incoming::Unheard => return,
            Incoming::Answered(reply) => reply,
            Incoming::Ask(request) => self.execute(request),
        };
        loop {
            let codec = self.codec.as_mut().expect("it has asked");
            match codec.encode(&reply, &mut self.output) {
                None => return,
                Some(more) => reply = self.execute(more),
            }
        }
    }

    fn execute(&mut self, request: Request) -> Reply {
        match request {
            Request::Ping => Reply::Pong,
            Request::Run { batch, .. } if !batch.is_write() => self.data.query(&batch, 0),
            Request::Run { batch, session, .. } => self.apply(Action::Run { batch, session }),
            Request::OpenSession => self.apply(Action::OpenSession),
            Request::Members => Reply::Members(Vec::new()),
            Request::Status => Reply::Status(Box::default()),
            Request::Join { .. } | Request::Leave { .. } | Request::Transfer { .. } => Reply::Done,
            other => Reply::Error(ErrorKind::Refused, format!("nobody is here for {other:?}")),
        }
    }

    fn apply(&mut self, action: Action) -> Reply {
        self.index += 1;
        self.data.apply(self.index, &Proposal { stamp_ms: 1_000_000, action })
    }

    fn run(&mut self, commands: Vec<Command>) -> Said {
        let batch = Batch { guards: Vec::new(), commands };
        match self.execute(Request::Run { batch, consistency: Default::default(), session: None }) {
            Reply::Answers(answers) => {
                Said::Answers(answers.into_iter().map(without_version).collect())
            }
            other => panic!("{other:?}"),
        }
    }
}

fn without_version(mut answer: Answer) -> Answer {
    match &mut answer {
        Answer::Stored { version } | Answer::NotStored { version } => *version = 0,
        Answer::Item(Some(item)) => item.version = 0,
        _ => {}
    }
    answer
}

fn codec_of(protocol: Protocol) -> Box<dyn Codec> {
    let limits = Limits::default();
    match protocol {
        Protocol::Binary => Box::new(BinaryCodec::new(limits)),
        Protocol::Resp => Box::new(RespCodec::new(limits, 1, 1, Box::new(Nowhere))),
        Protocol::Http => Box::new(HttpCodec::new(limits, Box::new(Nowhere))),
        Protocol::Text => Box::new(TextCodec::new(limits)),
    }
}

/// What comes of bytes that arrive in pieces of these sizes, over and over: all that
/// is said, why it ended, what was left, and how much of memory it took.
fn deliver(mut bytes: &[u8], sizes: &[usize]) -> ((BytesMut, Option<String>, u64), usize) {
    let (mut node, mut input) = (Node::new(), BytesMut::new());
    for &size in sizes.iter().cycle() {
        let Some(piece) = bytes.split_off(..size.min(bytes.len())).filter(|p| !p.is_empty()) else {
            break;
        };
        input.extend_from_slice(piece);
        node.hear(&mut input);
    }
    ((node.output, node.ended, node.data.contents_hash()), node.most_held)
}

/// At most what it may take to understand so many bytes. A command of a byte or two
/// is a hundred in memory; and who asks for a list of all commands is told it.
fn memory_for(bytes: usize) -> usize {
    (256 << 10) + 128 * bytes
}

/// A mistake in a stream of bytes.
#[derive(Debug, Clone)]
struct Damage {
    at: Index,
    /// Near the beginning: there are the lengths.
    early: bool,
    removed: usize,
    added: &'static [u8],
}

/// What changes the meaning of what stands around it.
const SENSELESS: [&[u8]; 18] = [
    b"",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\0",
    b"-1",
    b"0",
    b"99999999",
    b"1048576",
    b"16777216",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x10\x27\0\0",
    b"*",
    b"$",
    b"\"",
    b"%f",
];

fn any_damage() -> impl Strategy<Value = Damage> {
    (any::<Index>(), any::<bool>(), 0..5usize, select(&SENSELESS[..]))
        .prop_map(|(at, early, removed, added)| Damage { at, early, removed, added })
}

impl Damage {
    fn strike(&self, bytes: &mut Vec<u8>) {
        let reach = if self.early { bytes.len().min(12) } else { bytes.len() };
        let at = self.at.index(reach + 1);
        let end = bytes.len().min(at + self.removed);
        bytes.splice(at..end, self.added.iter().copied());
    }
}

/// Requests of the suite in some order, with some damage: what makes sense more often
/// than chance would have it.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let requests = |speaker: &dyn Speaks| {
        let stories = stories("p", "leader");
        let exchanges = stories.iter().flat_map(|story| &story.exchanges);
        let requests = exchanges.filter_map(|exchange| crate::request(speaker, exchange));
        requests.filter(|request| request.len() < 1 << 10).collect::<Vec<_>>()
    };
    let one_protocol = |speaker: &'static dyn Speaks| {
        let requests = vec(select(requests(speaker)), 1..6);
        requests.prop_map(|requests| [speaker.opening(), requests.concat()].concat())
    };
    let streams = proptest::strategy::Union::new(all().map(one_protocol));
    (streams, vec(any_damage(), 0..4)).prop_map(|(mut bytes, damages)| {
        damages.iter().for_each(|damage| damage.strike(&mut bytes));
        bytes
    })
}

/// Keys that are met again.
fn any_key() -> impl Strategy<Value = Key> {
    let name = select(vec!["k", "other", "", "two words", "\u{e4}/%\r\n"]);
    (prop_oneof![9 => Just(0), 1 => Just(3u8)], name)
        .prop_map(|(db, name)| Key { db, name: name.into() })
}

fn any_value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        vec(any::<u8>(), 0..40).prop_map(Bytes::from),
        "[a-z0-9 ]{0,9}".prop_map(Bytes::from),
        any::<i64>().prop_map(|number| number.to_string().into()),
    ]
}

fn any_expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![
        Just(Expiry::Never),
        Just(Expiry::Keep),
        (1..1u64 << 40).prop_map(Expiry::AfterMs),
        (1..1u64 << 30).prop_map(|seconds| Expiry::AfterMs(seconds * 1000)),
        (1..1u64 << 50).prop_map(Expiry::AtMs),
    ]
}

fn any_condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        4 => Just(Condition::Always),
        1 => Just(Condition::IfAbsent),
        1 => Just(Condition::IfPresent),
        1 => any_value().prop_map(Condition::IfValue),
        1 => any_value().prop_map(Condition::UnlessValue),
        1 => (0..3u64).prop_map(Condition::IfVersion),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    let set = (any_key(), any_value(), any_expiry(), any_condition());
    prop_oneof![
        3 => any_key().prop_map(Command::Get),
        1 => any_key().prop_map(Command::Exists),
        1 => any_key().prop_map(Command::Ttl),
        2 => (any_key(), any_value()).prop_map(|(key, value)| crate::words::set(&key, value)),
        3 => set.prop_map(|(key, value, expiry, condition)| Command::Set { key, value, expiry, condition }),
        1 => any_key().prop_map(Command::Delete),
        1 => (any_key(), any_expiry()).prop_map(|(key, expiry)| Command::Expire { key, expiry }),
        1 => (any_key(), any::<i64>()).prop_map(|(key, by)| Command::Increment { key, by }),
        1 => (any_key(), any_value()).prop_map(|(key, value)| Command::Append { key, value }),
        1 => Just(Command::Count { db: 3 }),
        1 => Just(Command::Clear { db: Some(3) }),
    ]
}

/// Several at once in some of them.
fn any_commands() -> impl Strategy<Value = Vec<Command>> {
    let gets = vec(any_key().prop_map(Command::Get), 2..5);
    let set = (any_key(), any_value()).prop_map(|(key, value)| crate::words::set(&key, value));
    prop_oneof![
        8 => any_command().prop_map(|command| vec![command]),
        1 => vec(any_command(), 2..5),
        1 => gets,
        1 => vec(set, 2..5),
    ]
}

/// Says it all in one protocol, and what that cannot say directly; compares every
/// reply, and what has come of it, with a state machine that is asked directly.
fn is_understood(speaker: &'static dyn Speaks, asked: &[Vec<Command>]) {
    let (mut node, mut model) = (Node::new(), Node::new());
    node.hear(&mut BytesMut::from(&speaker.opening()[..]));
    node.output.clear();
    for commands in asked {
        let said = model.run(commands.clone());
        let exchange = Exchange { name: String::new(), ask: Ask::Run(commands.clone()), said };
        let Some(request) = crate::request(speaker, &exchange) else {
            node.run(commands.clone());
            continue;
        };
        let mut input = BytesMut::from(&request[..]);
        node.hear(&mut input);
        assert_eq!((input.len(), &node.ended), (0, &None), "it is taken: {commands:?}");
        let output = node.output.split();
        let (heard, length) = speaker.reply(&exchange.ask, &output).expect("a whole reply");
        assert_eq!(length, output.len(), "one reply: {}", output.escape_ascii());
        assert_eq!(heard, crate::told(speaker, &exchange).unwrap(), "{}", speaker.name());
        assert_eq!(
            node.data.contents_hash(),
            model.data.contents_hash(),
            "{}: {commands:?}",
            speaker.name()
        );
    }
}

proptest! {
    // What fails is printed in full and pinned by hand as a test of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_is_understood(asked in vec(any_commands(), 1..12)) {
        all().into_iter().for_each(|speaker| is_understood(speaker, &asked));
    }

    #[test]
    fn pieces_of_any_size_come_to_the_same(bytes in any_stream(), sizes in vec(1..40usize, 1..20)) {
        let (whole, held) = deliver(&bytes, &[usize::MAX]);
        prop_assert!(held <= memory_for(bytes.len()), "{held} for {}", bytes.len());
        for sizes in [&sizes[..], &[1]] {
            let (pieces, held) = deliver(&bytes, sizes);
            prop_assert_eq!(&pieces, &whole);
            prop_assert!(held <= memory_for(bytes.len()), "{held} for {}", bytes.len());
        }
    }
}

/// A protocol that is added is one that takes part.
#[test]
fn no_protocol_is_left_out() {
    let stories = stories("p", "leader");
    let first = |speaker: &dyn Speaks| {
        let exchanges = stories.iter().flat_map(|story| &story.exchanges);
        exchanges.filter_map(|exchange| crate::request(speaker, exchange)).next().unwrap()
    };
    let found = all().map(|speaker| recognise(&first(speaker)));
    for protocol in Protocol::ALL {
        assert!(found.contains(&Recognition::Protocol(protocol)), "{}", protocol.name());
    }
}

/// [A header of a few bytes makes the node allocate what it declares.]
#[test]
fn what_is_declared_is_not_allocated() {
    let openings: [&[u8]; 10] = [
        b"\x01\x01\0\0\0k\0\0\0\x01",
        b"\x02\0\0\x01\0",
        b"\x12\0\0\0\x02",
        b"\x1a\x05\0\0\0\0\x10\x27\0\0",
        b"*1048576\r\n",
        b"*1048576\r\n$1\r\nk\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$16777216\r\n",
        b"PUT /v1/keys/k HTTP/1.1\r\nHost: n\r\nContent-Length: 16777216\r\n\r\n",
        b"PUT /v1/keys/k HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n",
        b"POST /key HTTP/1.1\r\nHost: n\r\nContent-Length: 33554432\r\n\r\n{",
    ];
    for bytes in openings {
        for sizes in [1, usize::MAX] {
            let (_, held) = deliver(bytes, &[sizes]);
            assert!(held < 16 << 10, "{held} bytes for {}", bytes.escape_ascii());
        }
    }
}
