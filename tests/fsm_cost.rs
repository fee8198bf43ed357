//! What the state machine costs in memory and time, measured. Each test wants a
//! process of its own:
//!
//! ```text
//! cargo test --release --test fsm_cost -- --ignored --nocapture --exact without_deadlines
//! ```

use std::time::Instant;

use bytes::Bytes;
use raftcache::fsm::{Action, Fsm, Limits, Proposal, Visit};
use raftcache::request::{Batch, Command, Condition, Expiry, Key};

const KEYS: u64 = 1_000_000;

/// Resident memory of this process, from Linux.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.expect("Linux tells a process its resident memory") * 1024
}

struct Node {
    fsm: Fsm,
    /// A prefix for names; a hash tag puts all into one slot.
    prefix: &'static str,
}

impl Node {
    /// A name of 16 bytes; they come in an order that is not their own.
    fn key(&self, i: u64) -> Key {
        let number = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let name = format!("{}{number:016x}", self.prefix);
        Key::new(name[..16].to_owned())
    }

    fn set(&mut self, i: u64, expiry: Expiry) {
        let value = Bytes::from_static(&[b'v'; 100]);
        let condition = Condition::Always;
        self.apply(i / 100, Command::Set { key: self.key(i), value, expiry, condition });
    }

    fn apply(&mut self, stamp_ms: u64, command: Command) {
        let action = Action::Run { batch: Batch::of(command), session: None };
        self.fsm.apply(self.fsm.applied() + 1, &Proposal { stamp_ms, action });
    }
}

/// Mean and worst of many turns.
struct Turns {
    turns: u32,
    total_ns: u128,
    slowest_ns: u128,
}

impl Turns {
    fn begin() -> Self {
        Self { turns: 0, total_ns: 0, slowest_ns: 0 }
    }

    fn turn<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = work();
        let ns = began.elapsed().as_nanos();
        self.slowest_ns = self.slowest_ns.max(ns);
        self.total_ns += ns;
        self.turns += 1;
        result
    }

    fn tell(&self, what: &str) {
        let mean_ns = self.total_ns / u128::from(self.turns.max(1));
        let slowest_us = self.slowest_ns / 1000;
        println!("{what}: {} x {mean_ns} ns, slowest {slowest_us} us", self.turns);
    }
}

fn turns(what: &str, count: u64, mut work: impl FnMut(u64)) {
    let mut turns = Turns::begin();
    (0..count).for_each(|i| turns.turn(|| work(i)));
    turns.tell(what);
}

fn measure(prefix: &'static str, expiry: Expiry) {
    let before = resident_bytes();
    let mut node = Node { fsm: Fsm::new(Limits::default()), prefix };
    turns("set new", KEYS, |i| node.set(i, expiry));
    let resident = (resident_bytes() - before) / KEYS;
    println!("resident {resident} B per key, counted {}", node.fsm.memory_bytes() / KEYS);
    turns("set old", KEYS, |i| node.set(i, expiry));
    turns("get", KEYS, |i| drop(node.fsm.query(&Batch::of(Command::Get(node.key(i))), 0)));

    turns("begin snapshot", 1, |_| drop(node.fsm.begin_snapshot()));
    let mut pieces = Turns::begin();
    while let Visit::Piece(_) = pieces.turn(|| node.fsm.snapshot_piece(1024)) {}
    pieces.tell("snapshot piece");
    node.fsm.begin_snapshot();
    turns("set during a snapshot", KEYS / 10, |i| node.set(i, expiry));
    node.fsm.abandon_snapshot();

    if expiry != Expiry::Never {
        let tick = Proposal { stamp_ms: u64::MAX >> 1, action: Action::Tick };
        turns("tick with 64 due", 100, |_| drop(node.fsm.apply(node.fsm.applied() + 1, &tick)));
    }
    turns("clear", 1, |_| node.apply(0, Command::Clear { db: None }));
    let mut slices = Turns::begin();
    while slices.turn(|| node.fsm.reclaim(1024)) {}
    slices.tell("reclaim 1024");
}

#[test]
#[ignore = "a measurement"]
fn without_deadlines() {
    measure("", Expiry::Never);
}

#[test]
#[ignore = "a measurement"]
fn with_deadlines() {
    measure("", Expiry::AfterMs(1_000_000));
}

#[test]
#[ignore = "a measurement"]
fn in_one_slot() {
    measure("{t}", Expiry::Never);
}

#[test]
#[ignore = "a measurement"]
fn of_16_mib() {
    let mut node = Node { fsm: Fsm::new(Limits::default()), prefix: "" };
    let value = Bytes::from(vec![7; 16 << 20]);
    let key = Key::new("key");
    turns("set 16 MiB", 20, |_| {
        let (key, value) = (key.clone(), value.clone());
        let (expiry, condition) = (Expiry::Never, Condition::Always);
        node.apply(1, Command::Set { key, value, expiry, condition });
    });
    turns("expire 16 MiB", 100, |i| {
        let expiry = Expiry::AfterMs(i + 1);
        node.apply(1, Command::Expire { key: key.clone(), expiry });
    });
    let batch = Batch::of(Command::Get(key.clone()));
    turns("get 16 MiB", 100, |_| drop(node.fsm.query(&batch, 0)));
}
