//! Commands that alter what is there.

use super::conditions::when;
use super::*;
use crate::fsm::limits::GROWN_VALUE_BYTES;
use crate::request::{Failure, Only, Ttl};

type Edit = fn(&str) -> Command;
type Move = fn(&Key, &Key, bool) -> Command;

fn append(name: &str, value: &str) -> Command {
    Command::Append { key: key(name), value: value.to_owned().into() }
}

fn set_range(name: &str, offset: usize, value: &str) -> Command {
    let (key, value) = (key(name), value.to_owned().into());
    Command::SetRange { key, offset: offset as u32, value }
}

pub fn add(name: &str, by: &str) -> Command {
    Command::IncrementFloat { key: key(name), by: by.to_owned().into() }
}

fn rename(from: &Key, to: &Key, replace: bool) -> Command {
    Command::Rename { from: from.clone(), to: to.clone(), replace }
}

fn copy_to(from: &Key, to: &Key, replace: bool) -> Command {
    Command::Copy { from: from.clone(), to: to.clone(), replace }
}

fn in_db(db: u8, name: &str) -> Key {
    Key { db, name: name.to_owned().into() }
}

/// All that a key is: value, version and deadline.
pub fn whole(node: &Node, key: &Key) -> Option<(Bytes, u64, Ttl)> {
    let deadline = match node.ask(0, Command::Deadline(key.clone())) {
        Answer::Ttl(deadline) => deadline,
        answer => panic!("{answer:?}"),
    };
    match node.ask(0, Command::Get(key.clone())) {
        Answer::Item(item) => item.map(|item| (item.value, item.version, deadline)),
        answer => panic!("{answer:?}"),
    }
}

/// Runs what must change nothing but the numbers of the log.
pub fn run_in_vain(node: &mut Node, command: Command) -> Answer {
    let (before, context) = (node.fsm.store.totals(), format!("{command:?}"));
    let at_ms = node.fsm.log_time_ms();
    let answer = node.run(at_ms, command);
    assert_eq!(node.fsm.store.totals(), before, "{context}");
    answer
}

pub fn no(failure: Failure) -> Answer {
    Answer::Failed(failure)
}

#[test]
fn a_value_grows_at_its_end_or_within() {
    let mut node = Node::new();
    assert_eq!(node.run(1, append("a", "12")), Answer::Integer(2), "absent is empty");
    assert_eq!(node.run(1, append("a", "345")), Answer::Integer(5));
    assert_eq!(node.value("a"), Some("12345".into()));
    assert_eq!(node.run(1, set_range("a", 1, "xy")), Answer::Integer(5));
    assert_eq!(node.value("a"), Some("1xy45".into()));
    assert_eq!(node.run(1, set_range("a", 4, "yz")), Answer::Integer(6));
    assert_eq!(node.run(1, set_range("a", 8, "!")), Answer::Integer(9));
    assert_eq!(node.value("a"), Some("1xy4yz\0\0!".into()));
    assert_eq!(node.run(1, set_range("b", 2, "z")), Answer::Integer(3));
    assert_eq!(node.value("b"), Some("\0\0z".into()));
    assert_eq!(node.run(1, append("empty", "")), Answer::Integer(0));
    assert_eq!(node.value("empty"), Some("".into()), "as in Redis");
}

#[test]
fn every_edit_keeps_the_deadline_and_is_a_new_version() {
    let edits: [fn() -> Command; 4] =
        [|| append("a", "1"), || set_range("a", 0, "2"), || add("a", "1.5"), || append("a", "")];
    for (i, edit) in edits.into_iter().enumerate() {
        let mut node = Node::new();
        node.run(1, set("a", "1", Expiry::AtMs(50)));
        node.run(2, edit());
        let (_, version, deadline) = whole(&node, &key("a")).unwrap();
        assert_eq!((version, deadline), (2, Ttl::Ms(50)), "{i}");
        node.tick(50);
        assert_eq!((node.fsm.keys(), node.fsm.next_deadline_ms()), (0, None), "{i}");
    }
}

/// What is past its deadline and has not been removed is no part of what comes.
#[test]
fn an_edit_of_a_due_key_starts_afresh() {
    let edits: [(Edit, &str); 3] = [
        (|name| append(name, "1"), "1"),
        (|name| set_range(name, 1, "2"), "\0\u{32}"),
        (|name| add(name, "1.5"), "1.5"),
    ];
    for (edit, expected) in edits {
        let (name, mut node) = due(0);
        node.run(50, edit(&name));
        let (value, _, deadline) = whole(&node, &key(&name)).unwrap();
        assert_eq!((value, deadline), (expected.into(), Ttl::Never));
    }
}

/// A key that will be past its deadline at 50 and not be removed by the entry then,
/// as too many others are due: the last of them by deadline.
fn due(at_ms: u64) -> (String, Node) {
    let mut node = Node::new();
    for i in 0..DUE_PER_ENTRY * 2 {
        node.run(at_ms, set(&format!("{i}"), "7", Expiry::AtMs(10)));
    }
    node.run(at_ms, set("due", "7", Expiry::AtMs(50)));
    ("due".to_owned(), node)
}

#[test]
fn no_value_grows_beyond_the_limit() {
    let full = "v".repeat(GROWN_VALUE_BYTES);
    let mut node = Node::new();
    node.run(1, set("a", &full[1..], Expiry::AtMs(50)));
    assert_eq!(run_in_vain(&mut node, append("a", "12")), no(Failure::TooLong));
    assert_eq!(
        run_in_vain(&mut node, set_range("a", GROWN_VALUE_BYTES - 1, "12")),
        no(Failure::TooLong)
    );
    assert_eq!(
        run_in_vain(&mut node, set_range("b", u32::MAX as usize, "1")),
        no(Failure::TooLong)
    );
    let length = Answer::Integer(GROWN_VALUE_BYTES as i64);
    assert_eq!(node.run(1, append("a", "1")), length);
    assert_eq!(run_in_vain(&mut node, append("a", "1")), no(Failure::TooLong));
    assert_eq!(
        run_in_vain(&mut node, set_range("a", GROWN_VALUE_BYTES, "1")),
        no(Failure::TooLong)
    );
    assert_eq!(node.run(1, set_range("a", GROWN_VALUE_BYTES - 1, "2")), length);
    assert_eq!(node.run(1, set_range("b", GROWN_VALUE_BYTES - 1, "2")), length);
    assert_eq!(node.run(1, append("c", &full)), length);
    assert_eq!(GROWN_VALUE_BYTES, 16 << 20, "another number is another format");
}

#[test]
fn nothing_written_over_anything_is_nothing() {
    let mut node = Node::new();
    node.run(1, set("a", "123", Expiry::Never));
    for offset in [0, 2, 3, 100, u32::MAX as usize] {
        assert_eq!(run_in_vain(&mut node, set_range("a", offset, "")), Answer::Integer(3));
        assert_eq!(run_in_vain(&mut node, set_range("b", offset, "")), Answer::Integer(0));
    }
    assert_eq!(whole(&node, &key("a")), Some(("123".into(), 1, Ttl::Never)));
    assert_eq!(whole(&node, &key("b")), None);
}

#[test]
fn numbers_with_a_point_add_up() {
    let mut node = Node::new();
    let item =
        |value: &str, version| Answer::Item(Some(Item { value: value.to_owned().into(), version }));
    assert_eq!(node.run(1, add("a", "0.1")), item("0.1", 1), "absent is 0");
    assert_eq!(node.run(1, add("a", "0.2")), item("0.3", 2));
    assert_eq!(node.run(1, add("a", "-1e3")), item("-999.7", 3));
    assert_eq!(node.run(1, add("a", "999.7")), item("0", 4));
    assert_eq!(node.run(1, increment("a", 4)), Answer::Integer(4), "an integer again");
    assert_eq!(whole(&node, &key("a")), Some(("4".into(), 5, Ttl::Never)));
}

#[test]
fn what_is_no_number_is_left_alone() {
    let mut node = Node::new();
    node.run(1, set("text", "1x", Expiry::AtMs(50)));
    node.run(1, set("empty", "", Expiry::Never));
    node.run(1, set("large", "1e20", Expiry::Never));
    node.run(1, set("one", "1", Expiry::Never));
    let failing = [
        ("text", "1"),
        ("empty", "1"),
        ("large", "1"),
        ("one", "x"),
        ("one", ""),
        ("absent", "1e21"),
    ];
    for (name, by) in failing {
        assert_eq!(run_in_vain(&mut node, add(name, by)), no(Failure::NotAFloat), "{name} {by}");
    }
    assert_eq!(node.value("absent"), None);
}

/// A name's own table of what Rename and Copy answer and leave behind.
#[test]
fn a_key_is_renamed_or_copied_with_all_it_has() {
    for (from, to) in [(in_db(0, "a"), in_db(0, "b")), (in_db(0, "a"), in_db(3, "a"))] {
        for (command, stays) in [(rename as Move, false), (copy_to, true)] {
            for replace in [false, true] {
                let mut node = Node::new();
                node.run(1, set("a", "1", Expiry::AtMs(50)));
                assert_eq!(node.run(2, command(&from, &to, replace)), Answer::Integer(1));
                assert_eq!(whole(&node, &to), Some(("1".into(), 2, Ttl::Ms(50))));
                let original = stays.then(|| ("1".into(), 1, Ttl::Ms(50)));
                assert_eq!(whole(&node, &from), original);
                copy(&mut node.fsm);
                node.tick(50);
                assert_eq!((node.fsm.keys(), node.fsm.next_deadline_ms()), (0, None));
            }
        }
    }
}

#[test]
fn a_key_that_is_there_gives_way_only_if_it_may() {
    for (command, stays) in [(rename as Move, false), (copy_to, true)] {
        let mut node = Node::new();
        node.run(1, set("a", "1", Expiry::Never));
        node.run(1, set("b", "2", Expiry::AtMs(50)));
        let refused = run_in_vain(&mut node, command(&key("a"), &key("b"), false));
        assert_eq!(refused, Answer::Integer(0));
        assert_eq!(node.run(1, command(&key("a"), &key("b"), true)), Answer::Integer(1));
        assert_eq!(whole(&node, &key("b")), Some(("1".into(), 4, Ttl::Never)));
        assert_eq!(node.value("a").is_some(), stays);
        assert_eq!(node.fsm.next_deadline_ms(), None, "that of the one replaced is gone");
    }
}

#[test]
fn a_key_to_itself_stays_as_it_is() {
    for command in [rename, copy_to] {
        let mut node = Node::new();
        node.run(1, set("a", "1", Expiry::AtMs(50)));
        let a = key("a");
        assert_eq!(run_in_vain(&mut node, command(&a, &a, true)), Answer::Integer(1));
        assert_eq!(run_in_vain(&mut node, command(&a, &a, false)), Answer::Integer(0));
        assert_eq!(whole(&node, &a), Some(("1".into(), 1, Ttl::Ms(50))));
    }
}

#[test]
fn an_absent_key_is_neither_renamed_nor_copied() {
    for command in [rename, copy_to] {
        for replace in [false, true] {
            let mut node = Node::new();
            node.run(1, set("b", "1", Expiry::Never));
            for to in ["absent", "b", "c"] {
                let answer = run_in_vain(&mut node, command(&key("absent"), &key(to), replace));
                assert_eq!(answer, no(Failure::NoSuchKey));
            }
            let (name, mut node) = due(1);
            node.tick(50);
            let answer = run_in_vain_at_once(&mut node, command(&key(&name), &key("c"), replace));
            assert_eq!(answer, no(Failure::NoSuchKey), "past its deadline");
        }
    }
}

/// As [`run_in_vain`], without the turn of removals that an entry begins with.
fn run_in_vain_at_once(node: &mut Node, command: Command) -> Answer {
    let (before, now_ms, index) = (node.fsm.store.totals(), node.fsm.log_time_ms, node.fsm.applied);
    let answer = one(Execution {
        store: &mut node.fsm.store,
        now_ms,
        index,
        budget_bytes: 1 << 20,
        answered_bytes: 0,
    }
    .run(&Batch::of(command)));
    assert_eq!(node.fsm.store.totals(), before);
    answer
}

/// Absent to everyone, so nothing that would have to give way.
#[test]
fn a_due_key_gives_way_to_any() {
    for command in [rename, copy_to] {
        let (name, mut node) = due(1);
        node.run(1, set("a", "1", Expiry::Never));
        let index = node.fsm.applied() + 1;
        let answer = node.run(50, command(&key("a"), &key(&name), false));
        assert_eq!(answer, Answer::Integer(1));
        assert_eq!(whole(&node, &key(&name)), Some(("1".into(), index, Ttl::Never)));
        (0..4).for_each(|_| node.tick(60));
        assert!(node.value(&name).is_some());
        copy(&mut node.fsm);
    }
}

/// The hash has versions in it, so what is compared is what they cannot change.
#[test]
fn what_is_undone_is_as_if_it_had_never_been() {
    let mut node = Node::new();
    node.run(1, set("a", "12", Expiry::AtMs(1000)));
    node.run(1, set("b", &"b".repeat(2000), Expiry::Never));
    let numbers =
        |node: &Node| (node.fsm.keys(), node.fsm.memory_bytes(), node.fsm.next_deadline_ms());
    let before = numbers(&node);
    let (a, b, c) = (key("a"), key("b"), in_db(7, "a longer name"));
    let rounds: Vec<Vec<Command>> = vec![
        vec![append("a", &"x".repeat(5000)), set("a", "12", Expiry::Keep)],
        vec![set_range("a", 3000, "x"), set("a", "12", Expiry::Keep)],
        vec![add("a", "0.5"), add("a", "-.5")],
        vec![add("c", "1e19"), Command::Delete(key("c"))],
        vec![rename(&a, &c, false), rename(&c, &a, false)],
        vec![rename(&b, &c, true), rename(&c, &b, true)],
        vec![copy_to(&a, &c, false), copy_to(&b, &c, true), Command::Clear { db: Some(7) }],
        vec![
            Command::ExpireOnly { key: b.clone(), expiry: Expiry::AtMs(9), only: Only::IfNone },
            expire("b", Expiry::Never),
        ],
        vec![
            Command::ExpireOnly { key: a.clone(), expiry: Expiry::AtMs(2000), only: Only::IfLater },
            Command::ExpireOnly {
                key: a.clone(),
                expiry: Expiry::AtMs(1000),
                only: Only::IfEarlier,
            },
        ],
        vec![when(
            &[],
            vec![append("c", "1"), rename(&key("c"), &c, true), Command::Delete(c.clone())],
        )],
    ];
    for round in rounds {
        let context = format!("{round:?}");
        for command in round {
            let answer = node.run(1, command);
            assert!(
                !matches!(answer, Answer::Failed(_) | Answer::Integer(0)),
                "{context}: {answer:?}"
            );
        }
        assert_eq!(numbers(&node), before, "{context}");
        copy(&mut node.fsm);
    }
    assert_eq!(
        (node.value("a"), node.value("b")),
        (Some("12".into()), Some("b".repeat(2000).into()))
    );
}

/// Edits while a snapshot holds the old values: it keeps them, and memory is
/// counted the same.
#[test]
fn a_snapshot_under_way_does_not_see_edits() {
    let mut node = Node::new();
    for i in 0..50 {
        node.run(1, set(&format!("{i}"), "1", Expiry::AtMs(1000)));
    }
    let hash = node.fsm.state_hash(1);
    let head = node.fsm.begin_snapshot();
    for i in 0..50 {
        let (name, other) = (format!("{i}"), key(&format!("{}", (i * 7 + 1) % 60)));
        let only = Only::IfLater;
        node.run(1, append(&name, "2"));
        node.run(1, add(&name, "0.5"));
        node.run(1, Command::ExpireOnly { key: key(&name), expiry: Expiry::AtMs(2000), only });
        node.run(1, copy_to(&key(&name), &other, true));
        node.run(1, rename(&other, &key(&name), true));
    }
    let pieces = rest_of_snapshot(&mut node.fsm, 10);
    let restored = restore(&head, pieces, Limits::default()).unwrap();
    assert_eq!((restored.state_hash(1), restored.keys()), (hash, 50));
    copy(&mut node.fsm);
}

/// [An APPEND that is sent again after a timeout appends twice.]
#[test]
fn an_append_that_is_sent_again_takes_effect_once() {
    let mut node = Node::new();
    let session = node.open(1);
    let first = node.retry(1, session, 1, append("a", "12"));
    assert_eq!(first, Reply::Answers(vec![Answer::Integer(2)]));
    let head = node.fsm.begin_snapshot();
    node.run(1, append("a", "3"));
    assert_eq!(node.retry(1, session, 1, append("a", "12")), first);
    assert_eq!(node.value("a"), Some("123".into()));

    let pieces = rest_of_snapshot(&mut node.fsm, 10);
    let fsm = restore(&head, pieces, Limits::default()).unwrap();
    let mut restored = Node { fsm, log: Vec::new() };
    assert_eq!(restored.retry(1, session, 1, append("a", "12")), first);
    assert_eq!(restored.value("a"), Some("12".into()));
    assert_eq!(
        restored.retry(1, session, 2, append("a", "3")),
        Reply::Answers(vec![Answer::Integer(3)])
    );
}

/// The new kinds of answers are kept and repeated as well.
#[test]
fn every_reply_of_an_edit_is_repeated() {
    let mut node = Node::new();
    let session = node.open(1);
    let commands = [
        add("a", "1.5"),
        add("a", "x"),
        when(&[("a", Condition::IfAbsent)], vec![increment("n", 1)]),
        when(&[("a", Condition::IfPresent)], vec![append("a", "1")]),
        rename(&key("absent"), &key("b"), true),
        append("a", &"x".repeat(GROWN_VALUE_BYTES)),
    ];
    let replies: Vec<Reply> = (1..)
        .zip(&commands)
        .map(|(at, command)| node.retry(1, session, at, command.clone()))
        .collect();
    node.run(1, Command::Clear { db: None });
    for (sequence, (command, reply)) in (1..).zip(commands.into_iter().zip(&replies)) {
        assert_eq!(node.retry(1, session, sequence, command), *reply);
    }
    assert_eq!(node.fsm.keys(), 0);
}
