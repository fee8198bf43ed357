//! Deadlines, and the ways in which other caches got them wrong.

use super::*;
use crate::request::{Failure, Ttl};

fn ttl(node: &Node, name: &str, at_ms: u64) -> Ttl {
    match node.ask(at_ms, Command::Ttl(key(name))) {
        Answer::Ttl(ttl) => ttl,
        answer => panic!("{answer:?}"),
    }
}

#[test]
fn log_time_never_goes_back() {
    let mut node = Node::new();
    node.run(100, set("a", "1", Expiry::AfterMs(50)));
    node.tick(150);
    assert_eq!(node.value("a"), None);
    node.tick(10);
    assert_eq!((node.fsm.log_time_ms(), node.value("a")), (150, None));
}

#[test]
fn a_key_is_there_until_its_deadline_and_not_at_it() {
    let mut node = Node::new();
    node.run(100, set("a", "1", Expiry::AfterMs(50)));
    assert_eq!(ttl(&node, "a", 0), Ttl::Ms(50));
    assert_eq!(ttl(&node, "a", 149), Ttl::Ms(1));
    assert_eq!(ttl(&node, "a", 150), Ttl::Absent);
    assert_eq!(node.fsm.next_deadline_ms(), Some(150));
    node.tick(150);
    assert_eq!((node.fsm.keys(), node.fsm.next_deadline_ms()), (0, None));
}

/// More keys are due than one entry removes: the others are absent all the same.
#[test]
fn due_keys_are_absent_before_they_are_removed() {
    let mut node = Node::new();
    for i in 0..200 {
        node.run(1, set(&format!("{i}"), "1", Expiry::AtMs(50)));
    }
    let last = set("stays", "1", Expiry::Never);
    assert_eq!(node.run(50, last), Answer::Stored { version: 201 });
    assert_eq!(node.fsm.keys(), 200 - DUE_PER_ENTRY as u64 + 1);
    assert_eq!(node.ask(0, Command::Count { db: 0 }), Answer::Integer(1));
    for i in 0..200 {
        assert_eq!(node.value(&format!("{i}")), None);
    }
    assert_eq!(node.fsm.next_deadline_ms(), Some(50), "something is left to do");
    node.tick(50);
    node.tick(50);
    node.tick(50);
    assert_eq!((node.fsm.keys(), node.fsm.next_deadline_ms()), (1, None));
}

/// A node whose many keys are due, the first 64 of them removed: (name, node).
fn with_a_due_key() -> (String, Node) {
    let mut node = Node::new();
    for i in 0..100 {
        node.run(1, set(&format!("{i}"), "7", Expiry::AtMs(50)));
    }
    node.tick(50);
    let is_stored = |name: &String| node.fsm.store.find(&key(name)).is_some();
    let name = (0..100).map(|i| format!("{i}")).find(is_stored).unwrap();
    (name, node)
}

/// Redis #1026: EXPIRE on a key that is past its deadline brought it back. Every
/// write comes as the very next entry, before the key has its turn to go.
#[test]
fn nothing_brings_a_due_key_back() {
    let writes = |name: &str| {
        [
            (expire(name, Expiry::AfterMs(100)), Answer::Integer(0)),
            (expire(name, Expiry::Never), Answer::Integer(0)),
            (expire(name, Expiry::Keep), Answer::Integer(0)),
            (Command::Delete(key(name)), Answer::Integer(0)),
            (
                set_if(name, "new", Expiry::Keep, Condition::IfPresent),
                Answer::NotStored { version: 0 },
            ),
            (
                set_if(name, "new", Expiry::Keep, Condition::IfValue("7".into())),
                Answer::NotStored { version: 0 },
            ),
        ]
    };
    for i in 0..writes("").len() {
        let (name, mut node) = with_a_due_key();
        // Run without a turn of removals in between.
        let (command, expected) = writes(&name).into_iter().nth(i).unwrap();
        let mut execution = Execution {
            store: &mut node.fsm.store,
            now_ms: 50,
            index: node.fsm.applied,
            budget_bytes: 1 << 20,
            answered_bytes: 0,
        };
        assert_eq!(one(execution.run(&Batch::of(command))), expected);
        assert_eq!(node.value(&name), None);
    }
}

#[test]
fn a_write_over_a_due_key_starts_afresh() {
    let writes = |name: &str| {
        [
            (set(name, "new", Expiry::Keep), "new"),
            (set_if(name, "new", Expiry::Never, Condition::IfAbsent), "new"),
            (set_if(name, "new", Expiry::Never, Condition::IfVersion(0)), "new"),
            (increment(name, 1), "1"),
        ]
    };
    for i in 0..writes("").len() {
        let (name, mut node) = with_a_due_key();
        let (command, expected) = writes(&name).into_iter().nth(i).unwrap();
        let mut execution = Execution {
            store: &mut node.fsm.store,
            now_ms: 50,
            index: node.fsm.applied,
            budget_bytes: 1 << 20,
            answered_bytes: 0,
        };
        execution.run(&Batch::of(command));
        assert_eq!(node.value(&name), Some(expected.to_owned().into()));
        assert_eq!(ttl(&node, &name, 0), Ttl::Never, "the old deadline is gone too");
        for _ in 0..3 {
            node.tick(60);
        }
        assert_eq!(node.fsm.keys(), 1);
        copy(&mut node.fsm);
    }
}

#[test]
fn a_set_clears_the_deadline_unless_told_to_keep_it() {
    let mut node = Node::new();
    node.run(1, set("a", "1", Expiry::AfterMs(50)));
    node.run(2, set("a", "2", Expiry::Keep));
    assert_eq!(ttl(&node, "a", 0), Ttl::Ms(49));
    node.run(2, increment("a", 1));
    assert_eq!(ttl(&node, "a", 0), Ttl::Ms(49));
    node.run(2, set("a", "3", Expiry::Never));
    assert_eq!(ttl(&node, "a", 0), Ttl::Never);
    assert_eq!(node.fsm.next_deadline_ms(), None);
}

#[test]
fn a_deadline_that_is_not_in_the_future_removes() {
    let mut node = Node::new();
    for expiry in [Expiry::AfterMs(0), Expiry::AtMs(0), Expiry::AtMs(100)] {
        node.run(100, set("a", "1", Expiry::Never));
        assert_eq!(node.run(100, expire("a", expiry)), Answer::Integer(1));
        assert_eq!((node.value("a"), node.fsm.keys()), (None, 0));
        node.run(100, set("a", "1", Expiry::Never));
        let version = node.fsm.applied() + 1;
        assert_eq!(node.run(100, set("a", "2", expiry)), Answer::Stored { version });
        assert_eq!((node.value("a"), node.fsm.keys()), (None, 0));
    }
}

#[test]
fn a_deadline_moves_by_what_it_is_told() {
    let mut node = Node::new();
    let later = |name, ms| expire(name, Expiry::LaterMs(ms));
    node.run(100, set("a", "1", Expiry::AtMs(150)));
    let version = node.fsm.applied();
    assert_eq!(node.run(120, later("a", 1000)), Answer::Integer(1));
    assert_eq!(ttl(&node, "a", 0), Ttl::Ms(1030), "whatever time it is by now");
    assert_eq!(node.run(120, later("a", -900)), Answer::Integer(1));
    assert_eq!(ttl(&node, "a", 0), Ttl::Ms(130));
    assert_eq!(
        node.run(120, set("a", "2", Expiry::LaterMs(10))),
        Answer::Stored { version: version + 3 }
    );
    assert_eq!((node.value("a"), ttl(&node, "a", 0)), (Some("2".into()), Ttl::Ms(140)));
    for beyond in [i64::MAX, i64::MAX - 259] {
        assert_eq!(node.run(120, later("a", beyond)), Answer::Failed(Failure::InvalidExpiry));
    }
    assert_eq!(ttl(&node, "a", 0), Ttl::Ms(140));

    // Without a deadline there is none to be moved.
    node.run(120, set("b", "1", Expiry::Never));
    let before = node.fsm.contents_hash();
    assert_eq!(node.run(120, later("b", 50)), Answer::Integer(0));
    assert_eq!(node.run(120, later("absent", 50)), Answer::Integer(0));
    assert_eq!(ttl(&node, "b", 0), Ttl::Never);
    assert_eq!(node.fsm.contents_hash(), before, "nothing was written");

    for over in [-140, -141, i64::MIN] {
        node.run(120, set("a", "1", Expiry::AtMs(260)));
        assert_eq!(node.run(120, later("a", over)), Answer::Integer(1));
        assert_eq!(node.value("a"), None, "{over}");
    }
}

#[test]
fn deadlines_beyond_the_clock_are_refused() {
    let mut node = Node::new();
    node.run(100, set("a", "1", Expiry::Never));
    let refused = Answer::Failed(Failure::InvalidExpiry);
    let beyond = [
        Expiry::AfterMs(u64::MAX),
        Expiry::AfterMs(u64::MAX - 99),
        Expiry::AfterMs(MAX_TIME_MS - 99),
        Expiry::AtMs(MAX_TIME_MS + 1),
        Expiry::AtMs(u64::MAX),
    ];
    for expiry in beyond {
        assert_eq!(node.run(100, set("a", "2", expiry)), refused);
        assert_eq!(node.run(100, set("absent", "2", expiry)), refused);
        assert_eq!(node.run(100, expire("a", expiry)), refused);
        assert_eq!(node.run(100, expire("absent", expiry)), refused);
    }
    assert_eq!(node.value("a"), Some("1".into()));
    for expiry in [Expiry::AfterMs(MAX_TIME_MS - 100), Expiry::AtMs(MAX_TIME_MS)] {
        node.run(100, set("a", "2", expiry));
        assert_eq!(ttl(&node, "a", 0), Ttl::Ms(MAX_TIME_MS - 100));
    }
    node.tick(MAX_TIME_MS);
    assert_eq!(node.value("a"), None, "time has an end");
}

#[test]
fn a_batch_is_one_moment_and_one_version() {
    let mut node = Node::new();
    let commands = vec![
        set("a", "1", Expiry::AfterMs(10)),
        increment("a", 4),
        Command::Ttl(key("a")),
        expire("a", Expiry::AfterMs(0)),
        Command::Exists(key("a")),
    ];
    let batch = Batch { guards: Vec::new(), commands };
    let Reply::Answers(answers) = node.apply(5, Action::Run { batch, session: None }) else {
        panic!("answers")
    };
    let expected = [
        Answer::Stored { version: 1 },
        Answer::Integer(5),
        Answer::Ttl(Ttl::Ms(10)),
        Answer::Integer(1),
        Answer::Integer(0),
    ];
    assert_eq!(answers, expected);
}

#[test]
fn a_read_waits_for_deadlines_that_log_time_has_not_reached() {
    let mut node = Node::new();
    node.run(100, set("a", "1", Expiry::AtMs(150)));
    node.run(100, set("b", "1", Expiry::Never));
    let waits = |node: &Node, command, at_ms| node.fsm.has_deadline_by(&Batch::of(command), at_ms);
    assert!(!waits(&node, Command::Get(key("a")), 149));
    assert!(waits(&node, Command::Get(key("a")), 150));
    assert!(waits(&node, Command::Exists(key("a")), 200));
    assert!(waits(&node, Command::Ttl(key("a")), 200));
    assert!(!waits(&node, Command::Get(key("b")), 200));
    assert!(!waits(&node, Command::Count { db: 0 }, 149));
    assert!(waits(&node, Command::Count { db: 0 }, 150));
    assert!(!waits(&node, Command::Count { db: 1 }, 150));
    let when = |command| Command::When { tests: Vec::new(), then: vec![command] };
    let scan = || Command::Scan { db: 0, cursor: 0, count: 1, pattern: None };
    for command in [scan(), when(scan()), when(Command::Count { db: 0 })] {
        assert!(!waits(&node, command.clone(), 149));
        assert!(waits(&node, command, 150));
    }
    assert!(waits(&node, Command::Deadline(key("a")), 150));
    assert!(waits(&node, when(Command::Get(key("a"))), 150));
    let guard = crate::request::Guard { key: key("a"), version: 1 };
    let guarded = Batch { guards: vec![guard], commands: Vec::new() };
    assert!(node.fsm.has_deadline_by(&guarded, 150));
    node.tick(150);
    assert!(!waits(&node, Command::Get(key("a")), 200), "log time has passed it");
    assert!(!waits(&node, Command::Count { db: 0 }, 200));
}

#[test]
fn a_write_among_reads_is_refused() {
    let node = Node::new();
    let reply = node.fsm.query(&Batch::of(increment("a", 1)), 0);
    assert!(matches!(reply, Reply::Error(ErrorKind::Invalid, _)));
}

#[test]
#[should_panic(expected = "one after the other")]
fn an_entry_is_never_applied_twice() {
    let mut node = Node::new();
    node.tick(1);
    node.fsm.apply_other(1);
}

/// The numbers of this format: another hash is another format, and replicas of
/// two versions would each find the other diverged.
#[test]
fn the_state_hash_of_a_known_log_is_pinned() {
    let mut node = Node::new();
    assert_eq!(node.fsm.state_hash(0), 0xf5cc_c8e4_b8f6_85b0);
    node.run(100, set("a", "1", Expiry::AfterMs(50)));
    node.run(100, set("b", &"v".repeat(5000), Expiry::Never));
    let session = node.open(110);
    node.retry(120, session, 1, increment("a", 1));
    assert_eq!(node.fsm.state_hash(7), 0xa083_5fef_2311_f6c3);
    assert_eq!(node.fsm.memory_bytes(), 5506);
}
