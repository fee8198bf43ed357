//! A write that is sent twice takes effect once.

use super::*;

fn count(node: &Node) -> i64 {
    node.value("n").map_or(0, |value| String::from_utf8_lossy(&value).parse().unwrap())
}

fn done(reply: &Reply) -> i64 {
    match one(reply.clone()) {
        Answer::Integer(number) => number,
        answer => panic!("{answer:?}"),
    }
}

/// Surely not executed, unless it was sent before.
fn is_refused(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(ErrorKind::SessionExpired, _))
}

/// Perhaps, or surely, executed before: nobody may execute it anew elsewhere.
fn is_forgotten(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(ErrorKind::Unknown, _))
}

#[test]
fn a_retry_gets_the_first_reply() {
    let mut node = Node::new();
    let session = node.open(1);
    for sequence in 1..=5 {
        let first = node.retry(1, session, sequence, increment("n", 1));
        node.run(1, increment("n", 100));
        assert_eq!(node.retry(1, session, sequence, increment("n", 1)), first);
    }
    assert_eq!(count(&node), 505);
}

#[test]
fn a_reply_that_says_no_is_kept_as_well() {
    let mut node = Node::new();
    let session = node.open(1);
    let guard = crate::request::Guard { key: key("a"), version: 9 };
    let batch = Batch { guards: vec![guard], commands: vec![increment("n", 1)] };
    let stamp = Some(SessionStamp { session, sequence: 1 });
    let action = Action::Run { batch, session: stamp };
    assert_eq!(node.apply(1, action.clone()), Reply::GuardFailed);
    assert_eq!(node.apply(1, action), Reply::GuardFailed);
    assert_eq!(count(&node), 0);
}

#[test]
fn a_gap_is_filled_once() {
    let mut node = Node::new();
    let session = node.open(1);
    for sequence in [3, 1, 3, 2, 1, 2] {
        node.retry(1, session, sequence, increment("n", 1));
    }
    assert_eq!(count(&node), 3);
}

#[test]
fn below_the_window_nothing_is_executed() {
    let mut node = Node::with(sessions(SessionLimits { window: 4, ..SessionLimits::FORMAT }));
    let session = node.open(1);
    assert!(is_forgotten(&node.retry(1, session, 0, increment("n", 1))), "they count from 1");
    node.retry(1, session, 1, increment("n", 1));
    node.retry(1, session, 100, increment("n", 1));
    assert!(is_forgotten(&node.retry(1, session, 1, increment("n", 1))), "reply gone");
    assert!(is_forgotten(&node.retry(1, session, 96, increment("n", 1))), "skipped for good");
    assert_eq!(done(&node.retry(1, session, 97, increment("n", 1))), 3, "within");
    assert_eq!(count(&node), 3);
    node.retry(1, session, u64::MAX, increment("n", 1));
    assert!(is_forgotten(&node.retry(1, session, 98, increment("n", 1))));
    assert_eq!(count(&node), 4);
}

#[test]
fn unknown_and_idle_sessions_are_refused() {
    let mut node = Node::with(sessions(SessionLimits { idle_ms: 100, ..SessionLimits::FORMAT }));
    assert!(is_refused(&node.retry(1, 77, 1, increment("n", 1))));
    let (used, idle) = (node.open(1), node.open(1));
    node.retry(60, used, 1, increment("n", 1));
    node.retry(100, idle, 1, increment("n", 1));
    node.retry(159, used, 1, increment("n", 1));
    assert_eq!(node.fsm.sessions(), 2, "a retry is a use");
    node.tick(200);
    assert_eq!(node.fsm.sessions(), 1);
    assert!(is_refused(&node.retry(201, idle, 2, increment("n", 1))));
    assert_eq!(done(&node.retry(202, used, 2, increment("n", 1))), 3);
}

/// More sessions end than one entry removes: the others are refused as well.
#[test]
fn an_idle_session_is_refused_before_it_is_removed() {
    let mut node = Node::with(sessions(SessionLimits { idle_ms: 100, ..SessionLimits::FORMAT }));
    let sessions: Vec<u64> = (0..100).map(|_| node.open(1)).collect();
    let last = *sessions.last().unwrap();
    assert!(is_refused(&node.retry(101, last, 1, increment("n", 1))));
    assert_eq!(node.fsm.sessions(), 100 - DUE_PER_ENTRY);
}

#[test]
fn the_longest_idle_makes_way() {
    let mut node = Node::with(sessions(SessionLimits { count: 2, ..SessionLimits::FORMAT }));
    let (first, second) = (node.open(1), node.open(1));
    node.retry(1, first, 1, increment("n", 1));
    let third = node.open(1);
    assert_eq!(node.fsm.sessions(), 2);
    assert!(is_refused(&node.retry(1, second, 1, increment("n", 1))));
    assert_eq!(done(&node.retry(1, first, 1, increment("n", 1))), 1);
    assert_eq!(done(&node.retry(1, third, 1, increment("n", 1))), 2);
}

/// A write whose reply had to go is known to be executed, and is not again.
#[test]
fn kept_replies_are_bounded_in_bytes() {
    let limits = sessions(SessionLimits { replies_bytes: 3000, ..SessionLimits::FORMAT });
    let mut node = Node::with(limits);
    node.run(1, set("big", &"v".repeat(1000), Expiry::Never));
    let base = node.fsm.memory_bytes();
    let session = node.open(1);
    let get = || Command::Get(key("big"));
    for sequence in 1..=6 {
        node.retry(1, session, sequence, get());
        assert!(node.fsm.memory_bytes() - base <= 3000);
    }
    assert!(is_forgotten(&node.retry(1, session, 1, increment("n", 1))));
    assert!(matches!(one(node.retry(1, session, 6, get())), Answer::Item(Some(_))));

    node.run(1, set("big", &"v".repeat(4000), Expiry::Never));
    node.retry(1, session, 7, get());
    assert!(is_forgotten(&node.retry(1, session, 7, get())), "one that never fits");
    assert!(!is_forgotten(&node.retry(1, session, 6, get())), "leaves the others alone");
    assert_eq!(count(&node), 0);
    copy(&mut node.fsm);
}

#[test]
fn all_sessions_together_are_bounded_in_bytes() {
    let mut node =
        Node::with(sessions(SessionLimits { total_bytes: 5000, ..SessionLimits::FORMAT }));
    node.run(1, set("big", &"v".repeat(1000), Expiry::Never));
    let base = node.fsm.memory_bytes();
    for _ in 0..10 {
        let session = node.open(1);
        node.retry(1, session, 1, Command::Get(key("big")));
        assert!(node.fsm.memory_bytes() - base <= 5000);
    }
    assert_eq!(node.fsm.sessions(), 3);
}

#[test]
fn a_retry_across_a_restore_is_recognised() {
    let mut node = Node::new();
    let session = node.open(1);
    let first = node.retry(1, session, 2, increment("n", 1));
    let head = node.fsm.begin_snapshot();
    node.retry(1, session, 3, increment("n", 1));
    let pieces = rest_of_snapshot(&mut node.fsm, 10);
    let fsm = restore(&head, pieces, Limits::default()).unwrap();
    let mut restored = Node { fsm, log: Vec::new() };
    assert_eq!(restored.retry(1, session, 2, increment("n", 1)), first);
    assert_eq!(count(&restored), 1);
    assert_eq!(done(&restored.retry(1, session, 3, increment("n", 1))), 2, "after the snapshot");
}
