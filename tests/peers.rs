//! Nodes and strangers at the peer port: what a link carries, what it refuses,
//! and what it says when something is lost.
//!
//! Each node here is everything a server has between its replica and its
//! sockets; the test plays the replica. All are on one thread, as in a server.

#![expect(clippy::unwrap_used, reason = "a test ends where a step fails")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use raftcache::protocol;
use raftcache::protocol::peer::{Ends, Hello, LinkClass, Welcome, decode_frame, encode_frame};
use raftcache::raft::message::Append;
use raftcache::raft::{ClusterId, Entry, EntryId, Envelope, Index, Message, NodeId, Payload, Term};
use raftcache::replica::{Input, Peer, PeerMessage, Probe};
use raftcache::request::MemoryLimit;
use raftcache::server::config::{ClientLimits, PeerLimits};
use raftcache::server::dial::dial;
use raftcache::server::hub::Hub;
use raftcache::server::incoming;
use raftcache::server::journal::{Journal, Unjoined};
use raftcache::server::peers::Peers;
use raftcache::wal::{Identity, StdDisk};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

const CLUSTER: ClusterId = ClusterId(77);
const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const PATIENCE: Duration = Duration::from_secs(10);

fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(async {
        timeout(Duration::from_secs(60), test).await.expect("it ends");
    }));
}

struct Node {
    id: NodeId,
    hub: Rc<Hub>,
    peers: Rc<Peers>,
    address: String,
    accepting: JoinHandle<()>,
    arrived: RefCell<VecDeque<Input>>,
}

impl Node {
    async fn start(id: NodeId, cluster: ClusterId) -> Self {
        Self::start_at(id, "127.0.0.1:0", Some(cluster), None, PeerLimits::default()).await
    }

    async fn start_with(id: NodeId, limits: PeerLimits) -> Self {
        Self::start_at(id, "127.0.0.1:0", Some(CLUSTER), None, limits).await
    }

    async fn start_at(
        id: NodeId,
        address: &str,
        cluster: Option<ClusterId>,
        unjoined: Option<Unjoined>,
        limits: PeerLimits,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (reports, _) = unbounded_channel();
        let (protocol, memory) = (protocol::Limits::default(), MemoryLimit::default());
        let hub = Rc::new(Hub::new(ClientLimits::default(), protocol, memory));
        let synced = hub.board.metrics.sync.clone();
        let journal = Rc::new(Journal::new(unjoined, reports, synced));
        let own = peer(id, cluster);
        let peers = Peers::new(own, address.clone(), limits, Rc::clone(&hub), journal);
        let peers = Rc::new(peers);
        let accepting = spawn_local(incoming::accept(listener, Rc::clone(&peers)));
        Self { id, hub, peers, address, accepting, arrived: RefCell::default() }
    }

    fn knows(&self, others: &[&Node]) {
        let book = others.iter().map(|other| (other.id, other.address.clone())).collect();
        self.peers.dispatch(Some(book), Vec::new(), Vec::new());
    }

    fn say(&self, to: NodeId, message: Message) {
        self.say_all(to, vec![message]);
    }

    fn say_all(&self, to: NodeId, messages: Vec<Message>) {
        let messages = messages.into_iter().map(|message| (to, word(self.id, to, message)));
        self.peers.dispatch(None, messages.collect(), Vec::new());
    }

    /// The next thing that the replica would be told.
    async fn hears(&self) -> Input {
        timeout(PATIENCE, async {
            loop {
                self.arrived.borrow_mut().extend(self.hub.take_inbox());
                let first = self.arrived.borrow_mut().pop_front();
                match first {
                    Some(input) => return input,
                    None => self.hub.arrival().await,
                }
            }
        })
        .await
        .expect("something is heard")
    }

    async fn hears_message(&self) -> (NodeId, Message) {
        match self.hears().await {
            Input::Peer { from, message: PeerMessage::Raft { envelope, .. } } => {
                assert_eq!((envelope.from, envelope.to), (from, self.id));
                (from, envelope.message)
            }
            other => panic!("{other:?}"),
        }
    }

    /// What was heard so far.
    fn heard(&self) -> Vec<Input> {
        self.arrived.borrow_mut().extend(self.hub.take_inbox());
        self.arrived.borrow_mut().drain(..).collect()
    }

    async fn end(self) {
        self.accepting.abort();
        self.peers.close(PATIENCE).await;
        sleep(Duration::from_millis(50)).await;
    }
}

fn peer(id: NodeId, cluster: Option<ClusterId>) -> Peer {
    let (name, client_address) = (format!("node{}", id.0), "0.0.0.0:3001".to_owned());
    Peer { node: id, cluster, name, client_address, rebuild: false, member: false }
}

fn hello(from: NodeId, cluster: ClusterId, to: Option<NodeId>) -> Hello {
    let (class, sender) = (LinkClass::Urgent, peer(from, Some(cluster)));
    Hello { class, sender, peer_address: "127.0.0.1:1".into(), to }
}

fn word(from: NodeId, to: NodeId, message: Message) -> PeerMessage {
    PeerMessage::Raft { envelope: Envelope { from, to, term: Term(1), message }, clock: None }
}

fn append(index: u64, size: usize) -> Message {
    let payload = Payload::Command(vec![index as u8; size].into());
    let entries = vec![Entry { id: EntryId::new(1, index + 1), payload }];
    Message::Append(Append { prev: EntryId::new(1, index), entries, commit: Index(0) })
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.is_ok()
}

#[test]
fn what_is_said_arrives_in_order() {
    local(async {
        let (a, b) = (Node::start(A, CLUSTER).await, Node::start(B, CLUSTER).await);
        a.knows(&[&b]);
        let sizes = [10, 2 << 20, 3, 0, 1 << 20];
        let said: Vec<Message> = (0..50).map(|i| append(i, sizes[i as usize % 5])).collect();
        for few in said.chunks(7) {
            a.say_all(B, few.to_vec());
        }
        for message in said {
            assert_eq!(b.hears_message().await, (A, message));
        }
        // What is urgent has a link of its own, in the same direction.
        a.say(B, Message::TimeoutNow);
        assert_eq!(b.hears_message().await, (A, Message::TimeoutNow));
        assert!(a.heard().is_empty(), "nothing was lost");
    });
}

/// R29. [A panic on what arrives at the peer port ends the node.]
#[test]
fn garbage_closes_that_connection_only() {
    local(async {
        let (a, b) = (Node::start(A, CLUSTER).await, Node::start(B, CLUSTER).await);
        a.knows(&[&b]);
        a.say(B, Message::Outdated);
        b.hears_message().await;
        let garbage: [&[u8]; 4] = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0",
            b"*1\r\n$4\r\nPING\r\n",
            b"RAFTPEER\x01\0\xff\xff....",
        ];
        for bytes in garbage {
            let mut stream = TcpStream::connect(&b.address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            assert!(is_closed(&mut stream).await, "{bytes:?}");
        }
        // Behind a good hello, too.
        let greeting = hello(NodeId(9), CLUSTER, Some(B));
        let (mut stream, _) = dial(&b.address, &greeting, PATIENCE).await.unwrap();
        stream.write_all(&[0xff; 100]).await.unwrap();
        assert!(is_closed(&mut stream).await);
        a.say(B, Message::TimeoutNow);
        assert_eq!(b.hears_message().await, (A, Message::TimeoutNow));
        assert!(a.heard().is_empty(), "the good link was not touched");
    });
}

/// [A frame from an earlier life of a port reaches whoever has it now.]
#[test]
fn a_frame_of_another_connection_is_refused() {
    local(async {
        let b = Node::start(B, CLUSTER).await;
        let greeting = hello(A, CLUSTER, Some(B));
        let (mut stream, _) = dial(&b.address, &greeting, PATIENCE).await.unwrap();
        let mut bytes = Vec::new();
        let stray = Ends::new(CLUSTER, NodeId(3), B);
        encode_frame(&stray, &word(NodeId(3), B, Message::TimeoutNow), &mut bytes);
        stream.write_all(&bytes).await.unwrap();
        assert!(is_closed(&mut stream).await);
        assert!(b.heard().is_empty());
    });
}

/// R30. [Two clusters that were begun apart are pointed at each other.]
#[test]
fn a_foreign_cluster_is_refused() {
    local(async {
        let (a, b) = (Node::start(A, ClusterId(5)).await, Node::start(B, CLUSTER).await);
        let greeting = hello(A, ClusterId(5), Some(B));
        let error = dial(&b.address, &greeting, PATIENCE).await.unwrap_err();
        assert!(error.contains("another cluster"), "{error}");
        a.knows(&[&b]);
        a.say(B, Message::TimeoutNow);
        assert!(matches!(a.hears().await, Input::LinkLost(B)));
        assert!(b.heard().is_empty());
    });
}

#[test]
fn somebody_else_is_refused() {
    local(async {
        let b = Node::start(B, CLUSTER).await;
        for (from, to) in [(A, NodeId(3)), (B, B)] {
            let error =
                dial(&b.address, &hello(from, CLUSTER, Some(to)), PATIENCE).await.unwrap_err();
            assert!(error.contains("another node is there, n2"), "{error}");
        }
        let mut other = hello(A, CLUSTER, Some(B)).encode();
        other[8] = 9;
        let mut stream = TcpStream::connect(&b.address).await.unwrap();
        stream.write_all(&other).await.unwrap();
        let mut answer = BytesMut::new();
        while Welcome::decode(&mut answer.clone()).unwrap().is_none() {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
        let answer = Welcome::decode(&mut answer).unwrap();
        assert!(format!("{answer:?}").contains("UnknownVersion"), "{answer:?}");
    });
}

#[test]
fn who_does_not_say_whose_it_is_is_closed() {
    local(async {
        let hello_timeout = Duration::from_millis(100);
        let limits = PeerLimits { hello_timeout, ..PeerLimits::default() };
        let b = Node::start_with(B, limits).await;
        let mut first = TcpStream::connect(&b.address).await.unwrap();
        let mut second = TcpStream::connect(&b.address).await.unwrap();
        second.write_all(b"RAFTP").await.unwrap();
        assert!(is_closed(&mut first).await);
        assert!(is_closed(&mut second).await);
        dial(&b.address, &hello(A, CLUSTER, Some(B)), PATIENCE).await.unwrap();
    });
}

/// [Strangers connect and say nothing; they take every place, and a member that
/// was away for a moment is refused.]
#[test]
fn silent_strangers_make_way_for_a_member() {
    local(async {
        let hello_timeout = Duration::from_secs(3600);
        let limits = PeerLimits {
            hello_timeout,
            silent_connections: 2,
            incoming_connections: 2,
            ..PeerLimits::default()
        };
        let b = Node::start_with(B, limits).await;
        let mut silent = Vec::new();
        for _ in 0..2 {
            silent.push(TcpStream::connect(&b.address).await.unwrap());
        }
        let (mut member, _) =
            dial(&b.address, &hello(A, CLUSTER, Some(B)), PATIENCE).await.unwrap();
        assert!(is_closed(&mut silent[0]).await, "the oldest makes way");
        for _ in 0..4 {
            silent.push(TcpStream::connect(&b.address).await.unwrap());
        }
        for stranger in &mut silent[1..4] {
            assert!(is_closed(stranger).await);
        }
        let mut bytes = Vec::new();
        encode_frame(&Ends::new(CLUSTER, A, B), &word(A, B, Message::TimeoutNow), &mut bytes);
        member.write_all(&bytes).await.unwrap();
        assert_eq!(b.hears_message().await, (A, Message::TimeoutNow), "it has its own place");

        // Those who say whose they are have a limit of their own.
        dial(&b.address, &hello(NodeId(3), CLUSTER, Some(B)), PATIENCE).await.map(drop).unwrap();
        let _held = dial(&b.address, &hello(NodeId(3), CLUSTER, Some(B)), PATIENCE).await.unwrap();
        let fourth = dial(&b.address, &hello(NodeId(4), CLUSTER, Some(B)), PATIENCE).await;
        assert!(fourth.unwrap_err().contains("as many connections"));
    });
}

/// [Each of 128 connections may hold almost a whole frame of 64 MiB.]
#[test]
fn frames_that_are_not_whole_are_bounded_together() {
    local(async {
        let limits = PeerLimits { unfinished_total_bytes: 3 << 20, ..PeerLimits::default() };
        let b = Node::start_with(B, limits).await;
        let half = |from: NodeId| {
            let mut bytes = Vec::new();
            encode_frame(
                &Ends::new(CLUSTER, from, B),
                &word(from, B, append(0, 4 << 20)),
                &mut bytes,
            );
            let rest = bytes.split_off(2 << 20);
            (bytes, rest)
        };
        let holds = async |least: usize| {
            while b.peers.unfinished_bytes.get() < least {
                tokio::task::yield_now().await;
            }
        };
        let (mut first, _) = dial(&b.address, &hello(A, CLUSTER, Some(B)), PATIENCE).await.unwrap();
        first.write_all(&half(A).0).await.unwrap();
        holds(2 << 20).await;
        let other = NodeId(3);
        let (mut second, _) =
            dial(&b.address, &hello(other, CLUSTER, Some(B)), PATIENCE).await.unwrap();
        let _ = second.write_all(&half(other).0).await;
        assert!(is_closed(&mut second).await, "both together are too much");
        first.write_all(&half(A).1[..64]).await.unwrap();
        assert!(b.heard().is_empty());
        drop(first);
        while b.peers.unfinished_bytes.get() > 0 {
            tokio::task::yield_now().await;
        }
        // What was counted for those is free again.
        let (mut third, _) =
            dial(&b.address, &hello(other, CLUSTER, Some(B)), PATIENCE).await.unwrap();
        third.write_all(&half(other).0).await.unwrap();
        holds(2 << 20).await;
    });
}

#[test]
fn a_probe_asks_who_is_there() {
    local(async {
        let (a, b) = (Node::start(A, ClusterId(5)).await, Node::start(B, CLUSTER).await);
        let ask = |id, address: &str| {
            let probe = Probe { id, address: address.to_owned() };
            a.peers.dispatch(None, Vec::new(), vec![probe]);
        };
        ask(1, &b.address);
        let Input::Probed { id: 1, found: Ok(found) } = a.hears().await else { panic!() };
        let client_address = "127.0.0.1:3001".to_owned();
        assert_eq!(found, Peer { client_address, ..peer(B, Some(CLUSTER)) });
        let nobody = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().to_string()
        };
        ask(2, &nobody);
        let Input::Probed { id: 2, found: Err(why) } = a.hears().await else { panic!() };
        assert_eq!(why, format!("cannot reach {nobody}: connection refused"));
        assert!(b.heard().is_empty());
    });
}

/// [A newcomer knows nobody: the first entry that would tell it who leads is on
/// the very link that it has to answer.]
#[test]
fn a_newcomer_is_adopted_and_can_answer() {
    local(async {
        let directory = tempfile::tempdir().unwrap();
        let disk = StdDisk::open(directory.path()).unwrap();
        let name = "node2".to_owned();
        let identity = Identity { node: B, cluster: None, founder: false, begun: false, name };
        identity.save(&disk).unwrap();
        let unjoined = Unjoined { disk: disk.clone(), identity, segment_bytes: 1 << 20 };
        let limits = PeerLimits::default();
        let b = Node::start_at(B, "127.0.0.1:0", None, Some(unjoined), limits).await;
        let a = Node::start(A, CLUSTER).await;

        // Being asked who it is makes it nobody's.
        let probe = Probe { id: 1, address: b.address.clone() };
        a.peers.dispatch(None, Vec::new(), vec![probe]);
        let Input::Probed { found: Ok(found), .. } = a.hears().await else { panic!() };
        assert_eq!(found.cluster, None);
        assert_eq!(Identity::load(&disk).unwrap().unwrap().cluster, None);

        a.knows(&[&b]);
        a.say(B, Message::Outdated);
        assert!(matches!(b.hears().await, Input::Adopted(CLUSTER)), "before the first word");
        assert_eq!(b.hears_message().await, (A, Message::Outdated));
        let identity = Identity::load(&disk).unwrap().unwrap();
        assert_eq!(
            (identity.cluster, identity.founder, identity.begun),
            (Some(CLUSTER), false, true)
        );
        b.say(A, Message::TimeoutNow);
        assert_eq!(a.hears_message().await, (B, Message::TimeoutNow));

        let error = dial(&b.address, &hello(NodeId(3), ClusterId(5), Some(B)), PATIENCE).await;
        assert!(error.unwrap_err().contains("another cluster"), "for good");
    });
}

/// A node that welcomes and then does not read.
async fn deaf(id: NodeId) -> (JoinHandle<TcpStream>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = spawn_local(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut input = BytesMut::new();
        while Hello::decode(&mut input).unwrap().is_none() {
            stream.read_buf(&mut input).await.unwrap();
        }
        let welcome = Welcome::Here(peer(id, Some(CLUSTER)));
        stream.write_all(&welcome.encode()).await.unwrap();
        stream
    });
    (accepting, address)
}

fn losses(node: &Node) -> usize {
    let heard = node.heard();
    assert!(heard.iter().all(|input| matches!(input, Input::LinkLost(B))), "{heard:?}");
    heard.len()
}

#[test]
fn a_full_queue_drops_and_says_so_once() {
    local(async {
        let limits = PeerLimits {
            entries_queue_bytes: 4 << 20,
            stall_timeout: PATIENCE,
            ..PeerLimits::default()
        };
        let a = Node::start_with(A, limits).await;
        let (accepting, address) = deaf(B).await;
        a.peers.dispatch(Some(vec![(B, address.to_string())]), Vec::new(), Vec::new());
        a.say(B, append(0, 1));
        let mut stream = accepting.await.unwrap();
        let mut last = 0;
        while a.hub.take_inbox().is_empty() {
            last += 1;
            assert!(last < 1000, "system buffers are smaller");
            a.say(B, append(last, 1 << 20));
            tokio::task::yield_now().await;
        }
        // The last one was dropped, and so are these, without another word.
        for more in 0..100 {
            a.say(B, append(last + more, 1 << 20));
        }
        assert_eq!(losses(&a), 0);

        let (mut input, mut arrived) = (BytesMut::new(), 0);
        let ends = Ends::new(CLUSTER, A, B);
        while arrived < last {
            while let Some(message) = decode_frame(&ends, 2 << 20, &mut input).unwrap() {
                let size = if arrived == 0 { 1 } else { 1 << 20 };
                assert_eq!(message, word(A, B, append(arrived, size)), "whole and in order");
                arrived += 1;
            }
            if arrived < last {
                assert_ne!(stream.read_buf(&mut input).await.unwrap(), 0);
            }
        }
        // Now that it is empty, it says that more was dropped meanwhile.
        assert!(matches!(a.hears().await, Input::LinkLost(B)));
        a.say(
            B,
            Message::Append(Append { prev: EntryId::ZERO, entries: vec![], commit: Index(0) }),
        );
        assert_ne!(stream.read_buf(&mut input).await.unwrap(), 0, "and goes on");
        assert_eq!(losses(&a), 0);
    });
}

#[test]
fn who_takes_nothing_is_dead() {
    local(async {
        let stall_timeout = Duration::from_millis(200);
        let a = Node::start_with(A, PeerLimits { stall_timeout, ..PeerLimits::default() }).await;
        let (accepting, address) = deaf(B).await;
        a.peers.dispatch(Some(vec![(B, address.to_string())]), Vec::new(), Vec::new());
        a.say(B, append(0, 30 << 20));
        let _stream = accepting.await.unwrap();
        assert!(matches!(a.hears().await, Input::LinkLost(B)));
    });
}

/// [A node ends with the answer to a forwarded request in its queue.]
#[test]
fn the_last_word_is_written_before_the_end() {
    local(async {
        let a = Node::start(A, CLUSTER).await;
        let (accepting, address) = deaf(B).await;
        a.peers.dispatch(Some(vec![(B, address.to_string())]), Vec::new(), Vec::new());
        // More than the system takes without a reader.
        a.say(B, append(0, 40 << 20));
        let mut stream = accepting.await.unwrap();
        assert_ne!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        let mut read = 0;
        {
            let mut closing = std::pin::pin!(a.peers.close(PATIENCE));
            let mut input = vec![0; 1 << 20];
            loop {
                tokio::select! {
                    biased;
                    () = &mut closing => break,
                    count = stream.read(&mut input) => read += count.unwrap(),
                }
            }
        }
        assert!(read > 10 << 20, "the end came with {read} bytes taken");

        // Who takes nothing does not keep it from ending.
        let a = Node::start(A, CLUSTER).await;
        let (accepting, address) = deaf(B).await;
        a.peers.dispatch(Some(vec![(B, address.to_string())]), Vec::new(), Vec::new());
        a.say(B, append(0, 40 << 20));
        let _stream = accepting.await.unwrap();
        a.peers.close(Duration::from_millis(10)).await;
    });
}

#[test]
fn a_node_that_comes_back_is_found_again() {
    local(async {
        let (a, b) = (Node::start(A, CLUSTER).await, Node::start(B, CLUSTER).await);
        a.knows(&[&b]);
        a.say(B, Message::Outdated);
        b.hears_message().await;
        let address = b.address.clone();
        b.end().await;
        assert!(matches!(a.hears().await, Input::LinkLost(B)), "it is noticed without a word");
        a.say(B, Message::Outdated);
        assert!(matches!(a.hears().await, Input::LinkLost(B)), "nobody is there");
        sleep(Duration::from_millis(300)).await;
        assert!(a.heard().is_empty(), "nothing to say, nobody to dial");

        let limits = PeerLimits::default();
        let b = Node::start_at(B, &address, Some(CLUSTER), None, limits).await;
        a.say(B, Message::TimeoutNow);
        assert_eq!(b.hears_message().await, (A, Message::TimeoutNow));
    });
}

#[test]
fn an_address_that_changes_is_followed() {
    local(async {
        let (a, b) = (Node::start(A, CLUSTER).await, Node::start(B, CLUSTER).await);
        a.knows(&[&b]);
        a.say(B, Message::Outdated);
        b.hears_message().await;
        let moved = Node::start(B, CLUSTER).await;
        a.knows(&[&moved]);
        assert!(matches!(a.hears().await, Input::LinkLost(B)));
        a.say(B, Message::TimeoutNow);
        assert_eq!(moved.hears_message().await, (A, Message::TimeoutNow));
        assert!(b.heard().is_empty());

        // The last word to a node that is forgotten in the same turn.
        let last = (B, word(A, B, Message::Outdated));
        a.peers.dispatch(Some(Vec::new()), vec![last], Vec::new());
        assert_eq!(moved.hears_message().await, (A, Message::Outdated));
        a.say(B, Message::TimeoutNow);
        assert!(matches!(a.hears().await, Input::LinkLost(B)), "nobody knows it any more");
    });
}

#[test]
fn a_new_link_takes_the_place_of_a_dead_one() {
    local(async {
        let b = Node::start(B, CLUSTER).await;
        let greeting = hello(A, CLUSTER, Some(B));
        let (mut old, _) = dial(&b.address, &greeting, PATIENCE).await.unwrap();
        let (mut new, _) = dial(&b.address, &greeting, PATIENCE).await.unwrap();
        assert!(is_closed(&mut old).await);
        let mut bytes = Vec::new();
        encode_frame(&Ends::new(CLUSTER, A, B), &word(A, B, Message::TimeoutNow), &mut bytes);
        for byte in bytes {
            new.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(b.hears_message().await, (A, Message::TimeoutNow));
    });
}

/// All nodes of a cluster may have been moved, and the log knows none of them.
#[test]
fn a_member_that_a_probe_has_found_elsewhere_is_spoken_to_there() {
    local(async {
        let (a, b) = (Node::start(A, CLUSTER).await, Node::start(B, CLUSTER).await);
        a.knows(&[&b]);
        let look = async |address: &str| {
            a.peers.dispatch(None, Vec::new(), vec![Probe { id: 1, address: address.to_owned() }]);
            assert!(matches!(a.hears().await, Input::Probed { found: Ok(_), .. }));
        };
        // A namesake in another cluster is somebody else.
        let foreign = Node::start(B, ClusterId(5)).await;
        look(&foreign.address).await;
        a.say(B, Message::Outdated);
        assert_eq!(b.hears_message().await, (A, Message::Outdated));

        let moved = Node::start(B, CLUSTER).await;
        look(&moved.address).await;
        assert!(matches!(a.hears().await, Input::LinkLost(B)));
        a.say(B, Message::TimeoutNow);
        assert_eq!(moved.hears_message().await, (A, Message::TimeoutNow));

        // It was back where the log has it before anybody else heard of it.
        moved.end().await;
        assert!(matches!(a.hears().await, Input::LinkLost(B)));
        a.say(B, Message::Outdated);
        assert!(matches!(a.hears().await, Input::LinkLost(B)), "nobody is there");
        a.say(B, Message::TimeoutNow);
        assert_eq!(b.hears_message().await, (A, Message::TimeoutNow));

        // What the log says of it later is newer than what was found.
        let found = Node::start(B, CLUSTER).await;
        look(&found.address).await;
        assert!(matches!(a.hears().await, Input::LinkLost(B)));
        a.say(B, Message::Outdated);
        assert_eq!(found.hears_message().await, (A, Message::Outdated));
        let written = Node::start(B, CLUSTER).await;
        a.knows(&[&written]);
        assert!(matches!(a.hears().await, Input::LinkLost(B)));
        a.say(B, Message::TimeoutNow);
        assert_eq!(written.hears_message().await, (A, Message::TimeoutNow));
    });
}
