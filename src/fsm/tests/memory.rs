//! What is counted, freed and refused.

use super::*;

#[test]
fn deletes_return_to_the_baseline() {
    let mut node = Node::with(sessions(SessionLimits { idle_ms: 100, ..SessionLimits::FORMAT }));
    let session = node.open(1);
    for i in 0..1000 {
        let expiry = if i % 2 == 0 { Expiry::Never } else { Expiry::AfterMs(50) };
        node.retry(1, session, i + 1, set(&format!("{i}"), "value", expiry));
        node.run(1, expire(&format!("{i}"), Expiry::AfterMs(i)));
    }
    assert!(node.fsm.memory_bytes() > 1000 * (72 + 5));
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
    assert!(node.fsm.fits(&write, 0, 77));
    assert!(!node.fsm.fits(&write, 1, 77), "proposals on their way count");
    assert!(!node.fsm.fits(&write, u64::MAX, 77));
    node.apply(1, write);
    assert_eq!(node.fsm.memory_bytes(), 77, "the estimate was exact");
    assert!(!node.fsm.fits(&run(increment("b", 1)), 0, 77));
    assert!(!node.fsm.fits(&Action::OpenSession, 0, 77));
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
