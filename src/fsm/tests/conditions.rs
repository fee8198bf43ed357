//! Commands that depend on what is there.

use super::edit::{add, no, run_in_vain, whole};
use super::*;
use crate::encoding::digest;
use crate::request::{Failure, Only, Test, Ttl};

const EACH: [Only; 5] =
    [Only::IfNone, Only::IfAny, Only::IfLater, Only::IfEarlier, Only::IfAnyAndEarlier];

/// The rows are the key's deadline, the columns the conditions; the new deadline
/// is 60.
#[test]
fn a_deadline_is_changed_if_it_is_what_it_must_be() {
    let table = [
        (None, [0, 0, 0, 0, 0]),
        (Some(Expiry::Never), [1, 0, 0, 1, 0]),
        (Some(Expiry::AtMs(50)), [0, 1, 1, 0, 0]),
        (Some(Expiry::AtMs(60)), [0, 1, 0, 0, 0]),
        (Some(Expiry::AtMs(70)), [0, 1, 0, 1, 1]),
    ];
    for (old, expected) in table {
        for (only, expected) in EACH.into_iter().zip(expected) {
            for expiry in [Expiry::AtMs(60), Expiry::AfterMs(40)] {
                let mut node = Node::new();
                old.map(|old| node.run(1, set("a", "1", old)));
                node.tick(20);
                let before = whole(&node, &key("a"));
                let index = node.fsm.applied() + 1;
                let answer = node.run(20, Command::ExpireOnly { key: key("a"), expiry, only });
                assert_eq!(answer, Answer::Integer(expected), "{old:?} {only:?}");
                let changed = Some(("1".into(), index, Ttl::Ms(60)));
                let after = if expected == 1 { changed } else { before };
                assert_eq!(whole(&node, &key("a")), after, "{old:?} {only:?}");
                copy(&mut node.fsm);
            }
        }
    }
}

#[test]
fn a_deadline_in_the_past_removes_if_it_is_allowed() {
    for past in [Expiry::AtMs(0), Expiry::AtMs(20), Expiry::AfterMs(0)] {
        for (only, expected) in EACH.into_iter().zip([0, 1, 0, 1, 1]) {
            let mut node = Node::new();
            node.run(1, set("a", "1", Expiry::AtMs(70)));
            let answer = node.run(20, Command::ExpireOnly { key: key("a"), expiry: past, only });
            assert_eq!(answer, Answer::Integer(expected), "{past:?} {only:?}");
            assert_eq!(node.value("a").is_none(), expected == 1, "{past:?} {only:?}");
            assert_eq!(node.fsm.keys() == 0, expected == 1);
        }
    }
}

#[test]
fn a_deadline_beyond_the_clock_is_refused_whatever_it_depends_on() {
    let mut node = Node::new();
    node.run(1, set("a", "1", Expiry::Never));
    for only in EACH {
        for expiry in [Expiry::AtMs(MAX_TIME_MS + 1), Expiry::AfterMs(u64::MAX)] {
            let command = Command::ExpireOnly { key: key("a"), expiry, only };
            assert_eq!(run_in_vain(&mut node, command), no(Failure::InvalidExpiry));
        }
    }
}

pub fn when(tests: &[(&str, Condition)], then: Vec<Command>) -> Command {
    let test = |(name, condition): &(&str, Condition)| Test {
        key: key(name),
        condition: condition.clone(),
    };
    Command::When { tests: tests.iter().map(test).collect(), then }
}

#[test]
fn commands_depend_on_every_test() {
    let mut node = Node::new();
    node.run(1, set("a", "1", Expiry::Never));
    let holds = [
        ("a", Condition::Always),
        ("absent", Condition::Always),
        ("a", Condition::IfPresent),
        ("absent", Condition::IfAbsent),
        ("a", Condition::IfValue("1".into())),
        ("a", Condition::IfVersion(1)),
        ("absent", Condition::IfVersion(0)),
        ("a", Condition::UnlessValue("2".into())),
        ("absent", Condition::UnlessValue("".into())),
        ("a", Condition::IfDigest(digest(b"1"))),
        ("a", Condition::UnlessDigest(digest(b"2"))),
        ("absent", Condition::UnlessDigest(digest(b""))),
    ];
    let fails = [
        ("absent", Condition::IfPresent),
        ("a", Condition::IfAbsent),
        ("a", Condition::IfValue("2".into())),
        ("absent", Condition::IfValue("".into())),
        ("a", Condition::IfVersion(2)),
        ("absent", Condition::IfVersion(1)),
        ("a", Condition::UnlessValue("1".into())),
        ("a", Condition::IfDigest(digest(b"2"))),
        ("absent", Condition::IfDigest(digest(b""))),
        ("a", Condition::UnlessDigest(digest(b"1"))),
    ];
    for one in fails {
        for at in 0..=holds.len() {
            let mut tests = holds.to_vec();
            tests.insert(at, one.clone());
            let answer = run_in_vain(&mut node, when(&tests, vec![increment("b", 1)]));
            assert_eq!(answer, Answer::Nested(None), "{tests:?}");
        }
    }
    let then = || vec![increment("b", 1), Command::Get(key("b")), add("a", "x")];
    let answer = node.run(1, when(&holds, then()));
    let got = Item { value: "1".into(), version: node.fsm.applied() };
    let expected = vec![Answer::Integer(1), Answer::Item(Some(got)), no(Failure::NotAFloat)];
    assert_eq!(answer, Answer::Nested(Some(expected)));
    assert_eq!(node.run(1, when(&[], vec![])), Answer::Nested(Some(vec![])));
    assert_eq!(
        node.run(1, when(&[], vec![increment("b", 1)])),
        Answer::Nested(Some(vec![Answer::Integer(2)]))
    );
}

/// [Who counts hits and could not count this one gives a key that is no counter a
/// deadline.]
#[test]
fn a_chain_ends_with_what_fails() {
    let mut node = Node::new();
    node.run(1, set("text", "x", Expiry::Never));
    let chain = |tests: &[(&str, Condition)], then| match when(tests, then) {
        Command::When { tests, then } => Command::Chain { tests, then },
        _ => unreachable!("it is one"),
    };
    let expire = |name| Command::Expire { key: key(name), expiry: Expiry::AfterMs(50) };
    let hit = |name| vec![increment(name, 1), expire(name), Command::Ttl(key(name))];
    let answer = node.run(1, chain(&[("text", Condition::IfPresent)], hit("text")));
    assert_eq!(answer, Answer::Nested(Some(vec![no(Failure::NotAnInteger)])));
    assert_eq!(node.run(1, Command::Ttl(key("text"))), Answer::Ttl(Ttl::Never));

    let all = || vec![Answer::Integer(1), Answer::Integer(1), Answer::Ttl(Ttl::Ms(50))];
    assert_eq!(node.run(1, chain(&[], hit("n"))), Answer::Nested(Some(all())));
    // What was done before it stays done.
    let answer = node.run(1, chain(&[], [hit("m"), hit("text"), hit("n")].concat()));
    let expected = [all(), vec![no(Failure::NotAnInteger)]].concat();
    assert_eq!(answer, Answer::Nested(Some(expected)));
    assert_eq!((node.value("m"), node.value("n")), (Some("1".into()), Some("1".into())));

    let fails = chain(&[("text", Condition::IfAbsent)], hit("n"));
    assert_eq!(run_in_vain(&mut node, fails), Answer::Nested(None));
    let reads = chain(&[], vec![Command::Exists(key("n")), Command::Ttl(key("x"))]);
    assert!(!reads.is_write());
    let there = vec![Answer::Integer(1), Answer::Ttl(Ttl::Absent)];
    assert_eq!(node.ask(1, reads), Answer::Nested(Some(there)));
    assert!(chain(&[], hit("n")).is_write());
}

#[test]
fn tests_see_what_the_batch_has_done_before_them() {
    let mut node = Node::new();
    let commands = vec![
        when(&[("a", Condition::IfPresent)], vec![increment("n", 1)]),
        set("a", "1", Expiry::Never),
        when(
            &[("a", Condition::IfVersion(1))],
            vec![Command::Delete(key("a")), increment("n", 10)],
        ),
        when(&[("a", Condition::IfAbsent)], vec![increment("n", 100)]),
        when(&[("a", Condition::IfPresent)], vec![increment("n", 1000)]),
    ];
    let batch = Batch { guards: Vec::new(), commands };
    let Reply::Answers(answers) = node.apply(1, Action::Run { batch, session: None }) else {
        panic!("answers")
    };
    let integer = |number| Answer::Integer(number);
    let expected = [
        Answer::Nested(None),
        Answer::Stored { version: 1 },
        Answer::Nested(Some(vec![integer(1), integer(10)])),
        Answer::Nested(Some(vec![integer(110)])),
        Answer::Nested(None),
    ];
    assert_eq!(answers, expected);
}

#[test]
fn reads_may_depend_on_tests_too() {
    let mut node = Node::new();
    node.run(1, set("a", "1", Expiry::AtMs(50)));
    let reads = |condition| {
        when(&[("a", condition)], vec![Command::Exists(key("a")), Command::Deadline(key("a"))])
    };
    assert!(!reads(Condition::IfPresent).is_write());
    let there = vec![Answer::Integer(1), Answer::Ttl(Ttl::Ms(50))];
    assert_eq!(node.ask(0, reads(Condition::IfPresent)), Answer::Nested(Some(there.clone())));
    assert_eq!(node.ask(50, reads(Condition::IfPresent)), Answer::Nested(None));
    assert_eq!(node.run(1, reads(Condition::IfPresent)), Answer::Nested(Some(there)), "in the log");

    // One write among them makes it one, whether it would come to it or not.
    for tests in [&[("a", Condition::IfAbsent)][..], &[]] {
        let write = when(tests, vec![Command::Exists(key("a")), increment("n", 1)]);
        assert!(write.is_write());
        let reply = node.fsm.query(&Batch::of(write), 0);
        assert!(matches!(reply, Reply::Error(ErrorKind::Invalid, _)), "{reply:?}");
    }
}
