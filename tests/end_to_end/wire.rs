//! The bytes of the native protocol, over a socket.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::cluster::{Cluster, Node, PATIENCE, eventually};

/// A connection without a client's help.
pub struct Wire(pub TcpStream);

impl Wire {
    pub fn to(node: &Node) -> Self {
        let stream = TcpStream::connect(&node.address).expect("it listens");
        stream.set_nodelay(true).expect("an open socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("an open socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("an open socket");
        Self(stream)
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the node reads");
    }

    pub fn receive(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).expect("the node answers");
        bytes
    }

    /// Sends, and expects exactly this.
    pub fn says(&mut self, request: &str, reply: &str) {
        self.send(&bytes(request));
        let expected = bytes(reply);
        let found = self.receive(expected.len());
        assert_eq!(found, expected, "to {request}");
    }

    /// Everything until the node closes. A reset is a way of closing: it means
    /// that bytes were sent that it had no wish to read.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => {
                panic!("the node does not close: {error}")
            }
            _ => rest,
        }
    }
}

/// Hex digits, spaces between them for the reader.
pub fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("ASCII");
        u8::from_str_radix(pair, 16).expect("hex digits")
    };
    digits.chunks(2).map(byte).collect()
}

pub fn set(key: &str, value: &[u8]) -> Vec<u8> {
    let mut request = vec![0x01];
    request.extend((key.len() as u32).to_le_bytes());
    request.extend(key.as_bytes());
    request.extend((value.len() as u32).to_le_bytes());
    request.extend(value);
    request.extend([0; 4]);
    request
}

pub fn get(key: &str) -> Vec<u8> {
    let mut request = vec![0x02];
    request.extend((key.len() as u32).to_le_bytes());
    request.extend(key.as_bytes());
    request
}

/// The reply to a `get` that finds something.
pub fn found(value: &[u8]) -> Vec<u8> {
    let mut reply = vec![0x01];
    reply.extend((value.len() as u32).to_le_bytes());
    reply.extend(value);
    reply
}

const SET_K_0: &str = "01 03000000 4b5f30 03000000 565f30 00000000";
const GET_K_0: &str = "02 03000000 4b5f30";
const IS_V_0: &str = "01 03000000 565f30";
const MISSING: &str = "03 00000000";

#[test]
fn golden_bytes() {
    let cluster = Cluster::one(&[]);
    let mut wire = Wire::to(&cluster.nodes[0]);
    wire.says(GET_K_0, MISSING);
    wire.says(SET_K_0, "01");
    wire.says(GET_K_0, IS_V_0);
    // An empty key and an empty value are a key and a value.
    wire.says("02 00000000", MISSING);
    wire.says("01 00000000 00000000 00000000", "01");
    wire.says("02 00000000", "01 00000000");
    // A negative ttl is none.
    wire.says("01 03000000 4b5f30 03000000 565f30 ffffffff", "01");
    wire.says("18 09000000 00 00 03000000 4b5f30", "01 08000000 ffffffffffffffff");
    // PING, DEL, EXISTS, INCRBY -2.
    wire.says("10 00000000", "01 00000000");
    wire.says("14 09000000 00 00 03000000 4b5f30", "01 08000000 0100000000000000");
    wire.says("13 08000000 00 03000000 4b5f30", "01 08000000 0100000000000000");
    wire.says("14 09000000 00 00 03000000 4b5f30", "01 08000000 0000000000000000");
    wire.says("19 10000000 00 03000000 4b5f30 feffffffffffffff", "01 08000000 feffffffffffffff");
    // GET with a version; the third key has none.
    wire.says("11 09000000 00 00 03000000 4b5f31", MISSING);
}

/// Foo=Bar for two seconds, and a SET without ttl that takes the deadline away.
#[test]
fn golden_bytes_of_a_ttl() {
    let cluster = Cluster::one(&[]);
    let mut wire = Wire::to(&cluster.nodes[0]);
    wire.says("01 03000000 466f6f 03000000 426172 02000000", "01");
    wire.says("01 03000000 4b5f30 03000000 565f30 01000000", "01");
    wire.says(SET_K_0, "01");
    eventually("Foo is gone", || {
        wire.send(&get("Foo"));
        match wire.receive(1)[0] {
            3 => {
                assert_eq!(wire.receive(4), [0; 4]);
                Ok(())
            }
            1 => Err(format!("{:?}", wire.receive(7))),
            other => panic!("status {other}"),
        }
    });
    wire.says(GET_K_0, IS_V_0);
}

#[test]
fn a_request_may_arrive_byte_by_byte() {
    let cluster = Cluster::one(&[]);
    let mut wire = Wire::to(&cluster.nodes[0]);
    for request in [SET_K_0, GET_K_0, "10 00000000"] {
        bytes(request).iter().for_each(|&byte| wire.send(&[byte]));
    }
    let expected = bytes(&["01", IS_V_0, "01 00000000"].concat());
    assert_eq!(wire.receive(expected.len()), expected);
}

#[test]
fn a_pipeline_keeps_its_order() {
    keeps_the_order_of_a_pipeline(&Cluster::one(&[]).nodes[0]);
}

/// A thousand commands before the first reply is read. Each GET sees the SET
/// in front of it, and the replies are in the order of the requests.
pub(super) fn keeps_the_order_of_a_pipeline(node: &Node) {
    let mut wire = Wire::to(node);
    let (mut requests, mut replies) = (Vec::new(), Vec::new());
    for number in 0..500 {
        let value = format!("value {number}");
        // Ten keys, so that each has another value next time.
        let key = format!("key {}", number % 10);
        requests.extend([set(&key, value.as_bytes()), get(&key)].concat());
        replies.extend([&[1][..], &found(value.as_bytes())].concat());
    }
    wire.send(&requests);
    let received = wire.receive(replies.len());
    assert!(received == replies, "{}", String::from_utf8_lossy(&received));
}

/// JOIN as it was drawn first, and under the opcode it was sent with.
#[test]
fn golden_bytes_of_a_join() {
    let mut cluster = Cluster::one(&[]);
    let newcomer = cluster.add();
    // Whom it asks is not there: it is this frame that brings it in.
    cluster.nodes[newcomer].join = vec![cluster.nodes[newcomer].address.replace(":3", ":5")];
    cluster.nodes[newcomer].start();
    eventually("it listens", || {
        cluster.nodes[newcomer].user().status().map_err(|error| error.to_string())
    });
    let mut wire = Wire::to(&cluster.nodes[0]);
    // Of node2 at 127.0.0.1:1112, where no node2 is.
    wire.says("03 05000000 6e6f646532 0e000000 3132372e302e302e313a31313132", "02");
    for opcode in [0x03, 0x04] {
        wire.send(&join(opcode, "node2", &cluster.nodes[newcomer].peer_address));
        assert_eq!(wire.receive(1), [1]);
    }
    cluster.wait_voter(newcomer);
}

fn join(opcode: u8, name: &str, peer_address: &str) -> Vec<u8> {
    let mut request = vec![opcode];
    for text in [name, peer_address] {
        request.extend((text.len() as u32).to_le_bytes());
        request.extend(text.as_bytes());
    }
    request
}
