//! What is counted, and what it really costs.

use super::*;

#[test]
fn deletes_return_to_the_baseline() {
    let mut node = Node::with(Limits { session_idle_ms: 100, ..Limits::default() });
    let session = node.open(1);
    for i in 0..1000 {
        let expiry = if i % 2 == 0 { Expiry::Never } else { Expiry::AfterMs(50) };
        node.retry(1, session, i + 1, set(&format!("{i}"), "value", expiry));
        node.run(1, expire(&format!("{i}"), Expiry::AfterMs(i)));
    }
    assert!(node.fsm.memory_bytes() > 1000 * (64 + 5));
    for i in 0..500 {
        node.run(1, Command::Delete(key(&format!("{i}"))));
    }
    while node.fsm.keys() > 0 {
        node.tick(2000);
    }
    assert_eq!((node.fsm.memory_bytes(), node.fsm.sessions()), (0, 0));
    let mut empty = Node::new();
    empty.tick(2000);
    assert_eq!(node.fsm.state_hash(3), empty.fsm.state_hash(3), "as if nothing had been");
}

#[test]
fn memory_is_refused_to_what_grows_only() {
    let mut node = Node::new();
    let run = |command| Action::Run { batch: Batch::of(command), session: None };
    let write = run(set("a", "1234", Expiry::Never));
    assert!(node.fsm.fits(&write, 0, 69));
    assert!(!node.fsm.fits(&write, 1, 69), "proposals on their way count");
    assert!(!node.fsm.fits(&write, u64::MAX, 69));
    node.apply(1, write);
    assert_eq!(node.fsm.memory_bytes(), 69, "the estimate was exact");
    assert!(!node.fsm.fits(&run(increment("b", 1)), 0, 69));
    assert!(!node.fsm.fits(&Action::OpenSession, 0, 69));
    for action in [
        run(Command::Delete(key("a"))),
        run(expire("a", Expiry::AfterMs(1))),
        run(Command::Get(key("a"))),
        Action::Tick,
    ] {
        assert!(node.fsm.fits(&action, 0, 0));
    }
}

/// A clear takes as long for many keys as for few; what is left to do is freed
/// in slices that were asked for.
#[test]
fn a_clear_does_not_look_at_keys() {
    let mut node = Node::new();
    for i in 0..30_000 {
        node.run(1, set(&format!("{i}"), "value", Expiry::AfterMs(i + 10)));
    }
    node.run(1, Command::Clear { db: Some(0) });
    assert_eq!((node.fsm.keys(), node.fsm.memory_bytes()), (0, 0));
    assert_eq!(node.fsm.next_deadline_ms(), None);
    node.run(1, set("1", "new", Expiry::Never));
    let turns = (1..).find(|_| !node.fsm.reclaim(1000)).unwrap();
    assert!((30..=60).contains(&turns), "{turns}");
    assert_eq!((node.value("1"), node.value("2")), (Some("new".into()), None));
}

fn resident_bytes() -> u64 {
    let status = std::process::Command::new("ps")
        .args(["-o", "rss=", "-p", &std::process::id().to_string()])
        .output()
        .unwrap();
    String::from_utf8_lossy(&status.stdout).trim().parse::<u64>().unwrap() * 1024
}

/// `cargo test --release --lib fsm::tests::memory -- --ignored --nocapture`
#[test]
#[ignore = "a measurement: resident memory per key"]
fn measure_bytes_per_key() {
    for expiry in [Expiry::Never, Expiry::AfterMs(1_000_000)] {
        let before = resident_bytes();
        let mut node = Fsm::new(Limits::default());
        const KEYS: u64 = 1_000_000;
        for i in 0..KEYS {
            // Names in an order that is not their own.
            let name = format!("{:016x}", i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let command = set(&name, &"v".repeat(100), expiry);
            let action = Action::Run { batch: Batch::of(command), session: None };
            node.apply(i + 1, &Proposal { stamp_ms: i / 100, action });
        }
        let resident = (resident_bytes() - before) / KEYS;
        let counted = node.memory_bytes() / KEYS;
        println!("{expiry:?}: resident {resident} B per key, counted {counted}");
    }
}
