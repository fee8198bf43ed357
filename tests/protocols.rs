//! One suite of requests and replies, written once, through every protocol.
//!
//! What is asked and what has to be said to it stands in [`words`], in words of no
//! protocol. How these look on the wire is the matter of one implementation of
//! [`Speaks`] for each protocol; a fifth would be one more. Each says what it cannot
//! say, and of what it says less than there is, and that is all that is left out.
//!
//! A real cluster is asked, through the node that leads and through one that
//! follows: one request after the other, many in one write, and byte by byte.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

#[path = "protocols/binary.rs"]
mod binary;
#[expect(dead_code, reason = "the tests of the whole use the rest")]
mod cluster;
#[path = "protocols/codecs.rs"]
mod codecs;
#[path = "protocols/http.rs"]
mod http;
#[path = "protocols/resp.rs"]
mod resp;
#[path = "protocols/speaks.rs"]
mod speaks;
#[path = "protocols/text.rs"]
mod text;
#[path = "protocols/words.rs"]
mod words;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use cluster::{Cluster, PATIENCE, eventually};
use raftcache::request::{Command, Condition, Expiry, Key};
use speaks::{Speaks, all};
use words::{Ask, Exchange, Said, Story, absent, found, get, number, one, set, set_with, stored};

/// A request of more bytes is not sent byte by byte.
const FEW_BYTES: usize = 16 << 10;

/// A connection that speaks one protocol.
struct Line {
    speaker: &'static dyn Speaks,
    stream: TcpStream,
    /// What has come and was not understood yet.
    input: Vec<u8>,
}

impl Line {
    fn to(speaker: &'static dyn Speaks, address: &str) -> Self {
        let mut line = Self { speaker, stream: connected(address), input: Vec::new() };
        line.stream.write_all(&speaker.opening()).unwrap();
        line.take(|input| Some(((), speaker.opened(input)?)));
        line
    }

    /// Reads until something is whole.
    fn take<T>(&mut self, whole: impl Fn(&[u8]) -> Option<(T, usize)>) -> T {
        loop {
            if let Some((taken, length)) = whole(&self.input) {
                self.input.drain(..length);
                return taken;
            }
            let mut piece = [0; 64 << 10];
            let count = self.stream.read(&mut piece).expect("the node answers");
            assert!(count > 0, "{} ends: {}", self.speaker.name(), self.input.escape_ascii());
            self.input.extend(&piece[..count]);
        }
    }

    fn receive(&mut self, ask: &Ask) -> Said {
        let speaker = self.speaker;
        self.take(|input| speaker.reply(ask, input))
    }

    /// Receives what has to be said.
    fn hears(&mut self, exchange: &Exchange) {
        let said = self.receive(&exchange.ask);
        let expected = told(self.speaker, exchange).unwrap();
        let (speaker, name) = (self.speaker.name(), &exchange.name);
        assert!(said.is(&expected), "{speaker}, {name}: {said:?}, not {expected:?}");
    }

    /// Asks what it can ask.
    fn ask(&mut self, ask: &Ask) -> Said {
        self.stream.write_all(&self.speaker.request(ask).unwrap()).unwrap();
        self.receive(ask)
    }

    /// Asks, if it can, and hears what has to be said.
    fn exchanges(&mut self, exchange: &Exchange) -> bool {
        let Some(request) = request(self.speaker, exchange) else { return false };
        self.stream.write_all(&request).unwrap();
        self.hears(exchange);
        true
    }
}

fn connected(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// One in each protocol.
fn lines_to(address: &str) -> Vec<Line> {
    all().into_iter().map(|speaker| Line::to(speaker, address)).collect()
}

/// The bytes of a request that can be made and whose reply can be understood.
fn request(speaker: &dyn Speaks, exchange: &Exchange) -> Option<Vec<u8>> {
    told(speaker, exchange)?;
    speaker.request(&exchange.ask).filter(|request| speaker.has_room(request))
}

fn told(speaker: &dyn Speaks, exchange: &Exchange) -> Option<Said> {
    speaker.told(&exchange.ask, &exchange.said)
}

/// Three nodes, and the addresses of the one that leads and of those that follow.
struct Nodes {
    leader: String,
    follower: String,
    other: String,
    _cluster: Cluster,
}

impl Nodes {
    fn start() -> Self {
        let cluster = Cluster::of(3, &[]);
        let leader = cluster.wait_leader();
        let address = |number: usize| cluster.nodes[number % 3].address.clone();
        let [leader, follower, other] = [leader, leader + 1, leader + 2].map(address);
        Self { leader, follower, other, _cluster: cluster }
    }

    /// Each protocol through the leader and through a follower, with stories about
    /// keys that nobody else has.
    fn each(&self, run: impl Fn(&'static dyn Speaks, &str, Vec<Story>)) {
        for speaker in all() {
            for (role, address) in [("leader", &self.leader), ("follower", &self.follower)] {
                let prefix = format!("{}/{role}", speaker.name());
                run(speaker, address, words::stories(&prefix, &self.leader));
            }
        }
    }
}

/// What one protocol cannot say another says in its place: the story goes on.
#[test]
fn every_protocol_gets_the_same_replies() {
    let nodes = Nodes::start();
    nodes.each(|speaker, address, stories| {
        let mut lines = lines_to(address);
        lines.sort_by_key(|line| line.speaker.name() != speaker.name());
        for exchange in exchanges_of(&stories) {
            let is_said = lines.iter_mut().any(|line| line.exchanges(exchange));
            assert!(is_said, "nobody can say {}", exchange.name);
        }
    });
}

/// Nothing is left out but what stands in these lists.
#[test]
fn what_a_protocol_cannot_say_is_known() {
    let stories = words::stories("prefix", "127.0.0.1:3001");
    for speaker in all() {
        let list = |holds: &dyn Fn(&Exchange) -> bool| {
            let names = stories.iter().filter_map(|story| story.names(holds));
            names.map(|line| line + "\n").collect::<String>()
        };
        let can_say = |exchange: &Exchange| request(speaker, exchange).is_some();
        let is_whole =
            |exchange: &Exchange| told(speaker, exchange).as_ref() == Some(&exchange.said);
        let unspoken = list(&|exchange| !can_say(exchange));
        let vague = list(&|exchange| can_say(exchange) && !is_whole(exchange));
        assert_eq!(unspoken, speaker.unspoken(), "{} cannot say", speaker.name());
        assert_eq!(vague, speaker.vague(), "{} is vague about", speaker.name());
    }
}

fn exchanges_of(stories: &[Story]) -> impl Iterator<Item = &Exchange> {
    stories.iter().flat_map(|story| &story.exchanges)
}

/// The stories that a protocol can tell from beginning to end.
fn whole(speaker: &dyn Speaks, stories: Vec<Story>) -> Vec<Story> {
    let is_whole = |story: &Story| bytes_of(speaker, story).is_some();
    stories.into_iter().filter(is_whole).collect()
}

fn bytes_of(speaker: &dyn Speaks, story: &Story) -> Option<Vec<u8>> {
    let requests = story.exchanges.iter().map(|exchange| request(speaker, exchange));
    Some(requests.collect::<Option<Vec<_>>>()?.concat())
}

/// Sends it all in pieces of this size while the replies are read.
fn pipeline(speaker: &'static dyn Speaks, address: &str, stories: &[Story], piece: usize) {
    let mut line = Line::to(speaker, address);
    let requests: Vec<_> = stories.iter().filter_map(|story| bytes_of(speaker, story)).collect();
    let requests = requests.concat();
    let mut stream = line.stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| requests.chunks(piece).for_each(|piece| stream.write_all(piece).unwrap()));
        exchanges_of(stories).for_each(|exchange| line.hears(exchange));
    });
    assert!(line.input.is_empty(), "{} says more than was asked", speaker.name());
}

#[test]
fn replies_come_in_the_order_of_the_requests() {
    let nodes = Nodes::start();
    nodes.each(|speaker, address, stories| {
        let stories = whole(speaker, stories);
        assert!(!stories.is_empty(), "{} has nothing to tell", speaker.name());
        pipeline(speaker, address, &stories, usize::MAX);
    });
}

#[test]
fn requests_arrive_byte_by_byte() {
    let nodes = Nodes::start();
    nodes.each(|speaker, address, stories| {
        let mut stories = whole(speaker, stories);
        stories.retain(|story| bytes_of(speaker, story).is_some_and(|b| b.len() < FEW_BYTES));
        pipeline(speaker, address, &stories, 1);
    });
}

fn exchange(name: &str, command: Command, said: Said) -> Exchange {
    Exchange { name: name.to_owned(), ask: one(command), said }
}

/// Every protocol that can say it says it.
fn through_each(lines: &mut [Line], exchange: &Exchange) -> usize {
    lines.iter_mut().map(|line| usize::from(line.exchanges(exchange))).sum()
}

/// Through one node, and read through the two others as soon as it is acknowledged.
#[test]
fn what_is_written_in_one_protocol_is_read_in_every_other() {
    let nodes = Nodes::start();
    let mut writers = lines_to(&nodes.follower);
    let mut readers = lines_to(&nodes.leader);
    readers.extend(lines_to(&nodes.other));
    let values = ["two words".into(), "".into(), words::every_byte(), words::large()];
    let mut reads = 0;
    for writer in &mut writers {
        for value in &values {
            let key = Key::new(format!("{}/{}", writer.speaker.name(), value.len()));
            if writer.exchanges(&exchange("set", set(&key, value.clone()), stored())) {
                let read = exchange("get", get(&key), found(value.clone()));
                reads += through_each(&mut readers, &read);
            }
        }
    }
    // Text writes one of them; it reads all but that with a line break in it.
    assert_eq!(reads, 2 * (5 * (6 + 6 + 5 + 6) + 6));
}

/// Stores something for a second. A SET that cannot say so is followed by EXPIRE.
fn set_for_a_second(line: &mut Line, key: &Key) -> bool {
    let second = Expiry::AfterMs(1000);
    let with_deadline = set_with(key, "v", second, Condition::Always);
    let expire = Command::Expire { key: key.clone(), expiry: second };
    line.exchanges(&exchange("set for a second", with_deadline, stored()))
        || line.exchanges(&exchange("set", set(key, "v"), stored()))
            && line.exchanges(&exchange("expire", expire, number(1)))
}

/// Once it is gone for one of them, it is gone for all, on every node.
#[test]
fn what_expires_in_one_protocol_is_gone_in_every_other() {
    let nodes = Nodes::start();
    let addresses = [&nodes.leader, &nodes.follower, &nodes.other];
    let mut lines: Vec<_> = addresses.into_iter().flat_map(|node| lines_to(node)).collect();
    let keys: Vec<_> = (0..lines.len()).map(|number| Key::new(format!("soon/{number}"))).collect();
    for (line, key) in lines.iter_mut().zip(&keys) {
        assert!(set_for_a_second(line, key), "{} cannot", line.speaker.name());
    }
    for (number, key) in keys.iter().enumerate() {
        let read = one(get(key));
        // Not the one that wrote it.
        let first = (number + 1) % keys.len();
        eventually("it is gone", || match lines[first].ask(&read) {
            said if said == found("v") => Err("it is there".to_owned()),
            _ => Ok(()),
        });
        let gone = exchange("gone", get(key), absent());
        assert_eq!(through_each(&mut lines, &gone), keys.len());
    }
}

/// All that is said to these bytes, sent in pieces of this size.
fn all_that_is_said(address: &str, bytes: &[u8], piece: usize) -> String {
    let mut stream = connected(address);
    let mut output = stream.try_clone().unwrap();
    let mut said = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            // It may be closed before all is sent.
            let _ = bytes.chunks(piece).try_for_each(|piece| output.write_all(piece));
            let _ = output.shutdown(Shutdown::Write);
        });
        match stream.read_to_end(&mut said) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
            _ => {}
        }
    });
    String::from_utf8(said).unwrap()
}

/// What connections begin with, and all that is said to it: in the protocol that it
/// is recognised as, if it is one.
const OPENINGS: [(&[u8], &str); 17] = [
    (b"\x10\0\0\0\0\x10\0\0\0\0", "\x01\0\0\0\0\x01\0\0\0\0"),
    (b"\x02\x04\0\0\0none", "\x03\0\0\0\0"),
    (
        b"*1\r\n$4\r\nPING\r\nPING\r\n\r\nGET / HTTP/1.1\r\n",
        "+PONG\r\n+PONG\r\n-ERR wrong number of arguments for 'get' command\r\n",
    ),
    (b"GET /health HTTP/1.0\r\n\r\nPING\r\n", HEALTH),
    (b"\r\nPING\r\n", "message must atleast have command, key or nodeID and remoteAddr\n+PONG\r\n"),
    (b"\tPING\n*1 none\r\n", "+PONG\r\nInvalid command in message\n"),
    (b"PING\r\nGET / HTTP/1.1\r\n", "+PONG\r\nERR too many words\n"),
    (b"GET none\n", "\n"),
    (b"GET /none\n", "\n"),
    (b"GET /none HTTP/2\n", "ERR too many words\n"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NOT_HTTP_2),
    (b"POST none HTTP/1.1\r\nGET none\n", ""),
    (b"Host: n\r\nGET none\n", ""),
    (b"\x16\x03\x01\0", ""),
    (b"\0", ""),
    (b"\x7f", ""),
    (b"\xff\xfe", ""),
];

const HEALTH: &str = "HTTP/1.1 200 OK\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 2\r\n\
    Connection: close\r\n\r\nOK";

const NOT_HTTP_2: &str = "HTTP/1.1 505 HTTP Version Not Supported\r\n\
    Content-Length: 0\r\n\
    Connection: close\r\n\r\n";

#[test]
fn one_port_speaks_what_a_connection_begins_with() {
    let cluster = Cluster::one(&[]);
    for (bytes, said) in OPENINGS {
        for piece in [usize::MAX, 1] {
            let found = all_that_is_said(&cluster.nodes[0].address, bytes, piece);
            assert_eq!(found, said, "to {} in pieces of {piece}", bytes.escape_ascii());
        }
    }
}

#[test]
fn what_is_over_a_limit_is_refused_in_every_protocol() {
    let nodes = Nodes::start();
    let long_key = one(get(&Key::new(vec![b'k'; words::KEY_BYTES + 1])));
    let key = Key::new("large");
    let long_value = one(set(&key, vec![b'v'; words::VALUE_BYTES + 1]));
    for speaker in all() {
        let behind = speaker.request(&one(get(&Key::new("none")))).unwrap();
        let said = |ask| {
            let requests = [speaker.opening(), speaker.request(ask).unwrap(), behind.clone()];
            let said = all_that_is_said(&nodes.follower, &requests.concat(), usize::MAX);
            said[speaker.opened(said.as_bytes()).unwrap()..].to_owned()
        };
        assert_eq!(said(&long_key), speaker.to_a_long_key(), "{}", speaker.name());
        assert_eq!(said(&long_value), speaker.to_a_long_value(), "{}", speaker.name());
    }
    through_each(&mut lines_to(&nodes.leader), &exchange("nothing", get(&key), absent()));
}
