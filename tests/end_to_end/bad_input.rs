//! What a client must not be able to do: crash the node, fill its memory, or
//! keep it from the others.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::wire::{Wire, bytes, found, get, set};
use crate::cluster::{Cluster, PATIENCE, User, eventually};

const MIB: u64 = 1 << 20;

/// What a node at rest holds.
const AT_REST_BYTES: u64 = 128 * MIB;

/// What all connections together may hold, as the node's limits say.
const BUFFERS_BYTES: u64 = 512 * MIB;

/// Somebody who behaves is served, whoever else is connected.
fn is_served(user: &mut User) {
    user.set("good", "manners").expect("a write");
    assert_eq!(user.get("good"), Ok(Some(Bytes::from("manners"))));
}

/// Nothing of it can be understood, nothing behind it can be trusted: the
/// connection is closed, without a reply and without harm to anybody.
#[test]
fn senseless_bytes_close_the_connection() {
    let cluster = Cluster::one(&[]);
    let mut user = cluster.user();
    for wrong in [
        "01 ffffffff",                          // a key of length -1
        "01 00000080",                          // the smallest length there is
        "01 01000100 00",                       // a key of 64 KiB and one byte
        "01 01000000 61 ffffffff",              // a value of length -1
        "01 01000000 61 01000001",              // a value of 16 MiB and one byte
        "01 01000000 61 ffffff7f",              // a value of 2 GiB
        "02 ffffffff",                          // GET
        "03 ffffffff",                          // JOIN
        "05",                                   // opcodes that nothing has
        "16",                                   // a TLS connection begins so
        "00",                                   //
        "ff",                                   //
        "10 ffffffff",                          // a frame of length -1
        "10 01000000 00",                       // a PING with a field
        "11 09000000 07 00 03000000 4b5f30",    // a consistency that is none
        "1a 09000000 00 ffffff7f 00000000",     // MGET of 2^31 keys
        "1f ee 00000000",                       // an extended opcode that is none
        "1e ffffff7f",                          // a BATCH of 2 GiB
        "13 08000000 00 ff000000 4b5f30",       // a key longer than its frame
        "474554202f20485454502f312e310d0a0d0a", // HTTP without a host
        "2a780d0a",                             // RESP without a count
        "504f535420666f6f0d0a",                 // POST foo, from a browser that was lured
    ] {
        let mut wire = Wire::to(&cluster.nodes[0]);
        wire.send(&bytes(wrong));
        let rest = wire.rest();
        let is_text = rest.iter().all(|&byte| byte.is_ascii_graphic() || b" \r\n".contains(&byte));
        assert!(rest.is_empty() || is_text, "{wrong}: {rest:02x?}");
        is_served(&mut user);
    }
}

/// What came before the senseless part is answered, and took effect.
#[test]
fn what_came_before_is_answered() {
    let cluster = Cluster::one(&[]);
    let mut wire = Wire::to(&cluster.nodes[0]);
    wire.send(&[set("a", b"1"), get("a"), bytes("01 ffffffff"), set("a", b"2")].concat());
    assert_eq!(wire.rest(), bytes("01 01 01000000 31"));
    assert_eq!(cluster.user().get("a"), Ok(Some(Bytes::from("1"))));
}

/// A request that is cut off anywhere is not executed, not even a little.
#[test]
fn a_truncated_request_is_never_applied() {
    let cluster = Cluster::one(&[]);
    let whole = set("cut", b"value");
    for length in 1..whole.len() {
        let mut wire = Wire::to(&cluster.nodes[0]);
        wire.send(&whole[..length]);
        wire.0.shutdown(Shutdown::Write).expect("an open socket");
        assert_eq!(wire.rest(), b"", "of {length} bytes");
    }
    assert_eq!(cluster.user().get("cut"), Ok(None));
}

/// It asks for a gigabyte, many times over, and reads none of it. The node
/// stops listening to it and holds little.
#[test]
fn a_client_that_never_reads_its_replies() {
    let cluster = Cluster::one(&[]);
    let node = &cluster.nodes[0];
    let mut user = cluster.user();
    user.set("large", vec![b'x'; 1 << 20]).expect("a write");
    let mut greedy: Vec<_> = (0..4).map(|_| Wire::to(node)).collect();
    for wire in &mut greedy {
        wire.0.set_write_timeout(Some(Duration::from_millis(200))).expect("an open socket");
        let requests = get("large").repeat(1000);
        // Until the node takes no more.
        for _ in 0..1000 {
            match wire.0.write(&requests) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Closed for not reading, which is as good.
                Err(_) => break,
            }
        }
        is_served(&mut user);
        let peak = node.peak_resident_bytes();
        assert!(peak < AT_REST_BYTES + 64 * MIB, "{} MiB were resident", peak / MIB);
    }
}

/// The same, but in the end it reads: it gets every reply, in order.
#[test]
fn a_client_that_reads_late() {
    let cluster = Cluster::one(&[]);
    let node = &cluster.nodes[0];
    let value: Vec<u8> = (0..1 << 18).map(|at: u32| at.to_le_bytes()[1]).collect();
    cluster.user().set("large", value.clone()).expect("a write");
    let mut wire = Wire::to(node);
    wire.send(&get("large").repeat(300));
    wire.send(&set("after", b"1"));
    let mut reply = vec![0; 5 + value.len()];
    for number in 0..300 {
        wire.0.read_exact(&mut reply).expect("the node answers");
        assert!(reply[5..] == value, "reply {number}");
        assert!(node.peak_resident_bytes() < AT_REST_BYTES + 64 * MIB);
    }
    assert_eq!(wire.receive(1), [1]);
}

/// As large as values may be, and more of them than all connections may hold:
/// who reads gets them all.
#[test]
fn a_long_pipeline_of_the_largest_values() {
    let cluster = Cluster::one(&[]);
    let node = &cluster.nodes[0];
    let value = vec![b'x'; 16 << 20];
    cluster.user().set("large", value.clone()).expect("a write");
    let mut wire = Wire::to(node);
    wire.send(&get("large").repeat(40));
    let mut reply = vec![0; 5 + value.len()];
    for number in 0..40 {
        wire.0.read_exact(&mut reply).expect("the node answers");
        assert!(reply[5..] == value, "reply {number}");
    }
}

/// 30 clients send 20 MB each of a request that they do not finish. What they
/// hold together is bounded, and the bound is kept by closing some of them.
#[test]
fn unfinished_requests_are_bounded_together() {
    let cluster = Cluster::one(&[]);
    let node = &cluster.nodes[0];
    let mut user = cluster.user();
    let piece = vec![0; 1 << 20];
    let mut clients: Vec<_> = (0..30).map(|_| Wire::to(node)).collect();
    let mut closed = 0;
    for wire in &mut clients {
        // An MSET of 31 MiB.
        let mut sent = wire.0.write_all(&bytes("1b 0000f001"));
        for _ in 0..20 {
            sent = sent.and_then(|()| wire.0.write_all(&piece));
        }
        closed += usize::from(sent.is_err());
        is_served(&mut user);
    }
    let peak = node.peak_resident_bytes();
    let bound = AT_REST_BYTES + BUFFERS_BYTES + 64 * MIB;
    assert!(peak < bound, "{} MiB were resident", peak / MIB);
    assert!(closed > 0, "600 MB are more than all may hold");
    drop(clients);
    eventually("they are forgotten", || {
        let mut wire = Wire::to(node);
        wire.0.write_all(&set("a", &vec![b'x'; 16 << 20])).map_err(|error| error.to_string())?;
        let mut status = [0];
        wire.0.read_exact(&mut status).map_err(|error| error.to_string())?;
        assert_eq!(status, [1]);
        Ok(())
    });
}

/// Hundreds that connect and say nothing, or half a word, or vanish.
#[test]
fn half_open_connections() {
    let cluster = Cluster::one(&[]);
    let node = &cluster.nodes[0];
    let mut user = cluster.user();
    let silent: Vec<_> = (0..300).map(|_| Wire::to(node)).collect();
    let mut stammering: Vec<_> = (0..300).map(|_| Wire::to(node)).collect();
    stammering.iter_mut().for_each(|wire| wire.send(&[0x01, 3, 0]));
    for _ in 0..300 {
        Wire::to(node).send(&get("a"));
    }
    is_served(&mut user);
    assert!(node.peak_resident_bytes() < AT_REST_BYTES + 64 * MIB);
    drop((silent, stammering));
    is_served(&mut user);
}

/// The lowest number that no descriptor of a process has: a limit of so many
/// leaves it none to open.
#[cfg(target_os = "linux")]
fn lowest_unused_descriptor(pid: u32) -> u64 {
    let is_free = |number: &u64| !PathBuf::from(format!("/proc/{pid}/fd/{number}")).is_symlink();
    (0..).find(is_free).expect("a number")
}

/// The process has no descriptor left. Who is connected is served; who comes
/// waits, and is served when there is one again. The node neither ends nor tries
/// again and again without a rest.
#[test]
#[cfg(target_os = "linux")]
fn no_descriptor_is_left() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let cluster = Cluster::one(&["--segment-bytes", "1048576"]);
    let node = &cluster.nodes[0];
    let mut user = cluster.user();
    is_served(&mut user);
    eventually("the next segment is prepared", || match &node.files("journal-next.tmp")[..] {
        [(_, 1_048_576)] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // It began with the limits of this process, and may go up to the same.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = |current| {
        let pid = Pid::from_raw(node.pid() as i32);
        prlimit(pid, Resource::Nofile, Rlimit { current, maximum }).expect("it is ours");
    };
    let begun = Instant::now();
    limit(Some(lowest_unused_descriptor(node.pid())));
    let mut wire = Wire::to(node);
    wire.send(&get("good"));
    let complaints = || node.log().matches("cannot accept a connection").count();
    eventually("it has tried some times", || match complaints() {
        0..5 => Err(node.log()),
        _ => Ok(()),
    });
    is_served(&mut user);
    let (tries, rests) = (complaints(), begun.elapsed().as_millis() / 100);
    assert!(tries as u128 <= rests + 1, "{tries} tries, time for {rests} rests");
    limit(maximum);
    assert_eq!(wire.receive(found(b"manners").len()), found(b"manners"));
    is_served(&mut user);
}

/// One more than may be connected is turned away at once; a place that becomes
/// free can be taken.
#[test]
fn connections_are_limited() {
    let cluster = Cluster::one(&["--max-connections", "5"]);
    let node = &cluster.nodes[0];
    let mut held: Vec<_> = Vec::new();
    eventually("five are served", || {
        let mut wire = Wire::to(node);
        wire.0.write_all(&bytes("10 00000000")).map_err(|error| error.to_string())?;
        let mut reply = [0; 5];
        wire.0.read_exact(&mut reply).map_err(|error| error.to_string())?;
        held.push(wire);
        if held.len() == 5 { Ok(()) } else { Err(format!("{}", held.len())) }
    });
    assert_eq!(Wire::to(node).rest(), b"");
    held.pop();
    eventually("a place is free", || {
        let mut wire = Wire::to(node);
        wire.0.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
        wire.0.write_all(&bytes("10 00000000")).map_err(|error| error.to_string())?;
        let mut reply = [0; 5];
        wire.0.read_exact(&mut reply).map_err(|error| error.to_string())
    });
}
