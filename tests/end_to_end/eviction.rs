//! Memory is full and keys make way: the same ones on every node, and the process
//! stays as large as it is meant to be.

use bytes::Bytes;

use super::wire::Wire;
use crate::cluster::Cluster;

const LIMIT_BYTES: u64 = 16 << 20;
const VALUE_BYTES: usize = 16_000;

/// What a process needs beside the data: code, buffers, the tail of the log (16 MiB),
/// a snapshot on its way. Without eviction this test would need as much again.
const ALLOWANCE_BYTES: u64 = 64 << 20;

#[test]
fn ten_times_the_limit_passes_through_and_all_agree() {
    let limit = LIMIT_BYTES.to_string();
    let flags = ["--max-memory-bytes", &limit, "--max-memory-policy", "allkeys-lru"];
    let mut cluster = Cluster::of(3, &flags);
    let (mut stored, mut killed) = (0, None);
    for round in 0..4 {
        let leader = cluster.wait_leader();
        let mut user = cluster.user_from((leader + round) % 3);
        for _ in 0..2500 {
            let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
            user.set(&format!("key {stored}"), value).expect("others make way");
            stored += 1;
        }
        if round == 1 {
            cluster.nodes[leader].kill9();
            cluster.nodes[leader].start();
            killed = Some(leader);
        }
    }
    cluster.wait_caught_up();
    cluster.hashes_agree();
    for (number, status) in cluster.statuses() {
        let bytes = status.memory_bytes;
        assert!(bytes <= LIMIT_BYTES && bytes > LIMIT_BYTES * 9 / 10, "{status:?}");
        let resident = cluster.nodes[number].peak_resident_bytes();
        println!("node{}: at most {} MiB resident", number + 1, resident >> 20);
        // One that was started again has read its whole log at once.
        let is_bounded = resident < LIMIT_BYTES + ALLOWANCE_BYTES;
        assert!(is_bounded || killed == Some(number), "node{}: {resident} bytes", number + 1);
    }
    let leader = cluster.wait_leader();
    let mut user = cluster.nodes[leader].user();
    assert_eq!(user.get("key 0"), Ok(None), "the oldest is gone");
    assert!(user.get(&format!("key {}", stored - 1)).expect("a read").is_some());
}

fn says(wire: &mut Wire, command: &str, reply: &str) {
    wire.send(command.as_bytes());
    let found = wire.receive(reply.len());
    assert_eq!(String::from_utf8_lossy(&found), reply, "to {command:?}");
}

#[test]
fn the_limit_is_a_setting() {
    let cluster = Cluster::one(&[]);
    let mut wire = Wire::to(&cluster.nodes[0]);
    says(&mut wire, "*1\r\n$4\r\nPING\r\n", "+PONG\r\n");
    says(&mut wire, "CONFIG SET maxmemory 2mb maxmemory-policy allkeys-random\r\n", "+OK\r\n");
    let both = "*4\r\n$9\r\nmaxmemory\r\n$7\r\n2097152\r\n\
                $16\r\nmaxmemory-policy\r\n$14\r\nallkeys-random\r\n";
    says(&mut wire, "CONFIG GET maxmemory*\r\n", both);
    // All of it or nothing, in Redis' words.
    let failed = "-ERR CONFIG SET failed (possibly related to argument 'maxmemory') - ";
    for (wrong, why) in [
        ("maxmemory 1mb maxmemory-policy lru", ""),
        ("maxmemory 4mb nonsense 1", "-ERR Unknown option or number of arguments"),
        ("maxmemory much", "argument must be a memory value\r\n"),
        ("maxmemory 1000", "argument must be at least 1048576\r\n"),
        ("maxmemory 1mb MAXMEMORY 2mb", "duplicate parameter\r\n"),
        ("maxmemory 4mb maxmemory-policy", "-ERR syntax error\r\n"),
    ] {
        wire.send(format!("CONFIG SET {wrong}\r\nPING\r\n").as_bytes());
        let mut reply = Vec::new();
        while !reply.ends_with(b"+PONG\r\n") {
            reply.extend(wire.receive(1));
        }
        let reply = String::from_utf8(reply).expect("text");
        let expected = if why.starts_with('-') { String::new() } else { failed.to_owned() };
        let is_policy = wrong.ends_with("lru") && reply.contains("volatile-lru, volatile-lfu");
        assert!(is_policy || reply.starts_with(&(expected + why)), "{wrong}: {reply}");
        says(&mut wire, "CONFIG GET maxmemory*\r\n", both);
    }
    let mut user = cluster.user();
    for number in 0..100 {
        user.set(&format!("key {number}"), vec![b'x'; 100_000]).expect("others make way");
    }
    let status = user.status().expect("a status");
    assert!((1 << 20..=2 << 20).contains(&status.memory_bytes), "{status:?}");
    assert_eq!(status.memory_limit_bytes, 2 << 20);
    says(&mut wire, "CONFIG SET maxmemory-policy noeviction\r\n", "+OK\r\n");
    let full =
        (0..100).any(|number| user.set(&format!("more {number}"), vec![b'x'; 100_000]).is_err());
    assert!(full, "nothing makes way any more");
    // It holds for the very next request.
    let value = "x".repeat(200_000);
    let set = format!("*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n$200000\r\n{value}\r\n");
    let oom = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    says(&mut wire, &set, oom);
    says(&mut wire, &format!("CONFIG SET maxmemory 3mb\r\n{set}"), "+OK\r\n+OK\r\n");
}
