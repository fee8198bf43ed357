//! What is counted, freed and refused.

use super::random::Generator;
use super::*;
use crate::fsm::item::DEADLINE_BYTES;
use crate::request::{ErrorKind, Test, Ttl};

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
    let growth = node.fsm.growth(&write, 0).most_bytes;
    assert!(node.fsm.fits(growth, 0, 77));
    assert!(!node.fsm.fits(growth, 1, 77), "proposals on their way count");
    assert!(!node.fsm.fits(growth, u64::MAX, 77));
    node.apply(1, write);
    assert_eq!(node.fsm.memory_bytes(), 77, "the estimate was exact");
    let fits = |action: &Action, limit: u64| {
        node.fsm.fits(node.fsm.growth(action, 9).most_bytes, 0, limit)
    };
    assert!(!fits(&run(increment("b", 1)), 77));
    assert!(!fits(&Action::OpenSession, 77));
    for action in [
        run(Command::Delete(key("a"))),
        run(expire("a", Expiry::AfterMs(1))),
        run(Command::Get(key("a"))),
        Action::Tick,
    ] {
        assert!(fits(&action, 0));
    }
}

/// What was admitted is what comes, but for the entries that deadlines take.
#[test]
fn a_command_adds_no_more_than_it_is_charged() {
    let mut generator = Generator::new(1);
    let mut fsm = Fsm::new(Limits::default());
    for index in 1..=20_000 {
        let (mut proposal, mut deadlines) = (generator.proposal(), 0);
        if let Action::Run { batch, session } = &mut proposal.action {
            deadlines = batch.commands.iter().map(|command| command.parts() as u64).sum();
            *session = None;
        }
        let growth = fsm.growth(&proposal.action, 0).most_bytes;
        let bound = fsm.memory_bytes() + growth + deadlines * DEADLINE_BYTES;
        fsm.apply(index, &proposal);
        assert!(fsm.memory_bytes() <= bound, "{index}: {proposal:?}");
    }
}

#[test]
fn a_copy_is_charged_with_what_it_copies() {
    let mut node = Node::new();
    node.run(1, set("a", &"v".repeat(1000), Expiry::Never));
    let copy = Command::Copy { from: key("a"), to: key("bc"), replace: true };
    let absent = Command::Copy { from: key("x"), to: key("bc"), replace: true };
    let then = || vec![copy.clone(), copy.clone()];
    let when = Command::When { tests: Vec::new(), then: then() };
    let chain = Command::Chain { tests: Vec::new(), then: then() };
    let twice = 3 * 1074 - 74;
    for (command, growth) in
        [(copy, 72 + 2 + 1000), (absent, 72 + 2), (when, twice), (chain, twice)]
    {
        let action = Action::Run { batch: Batch::of(command), session: None };
        assert_eq!(node.fsm.growth(&action, 0).most_bytes, growth);
    }
}

/// [A batch that sets a large value and copies it a hundred times was charged with
/// the one.]
#[test]
fn what_is_copied_may_have_grown_meanwhile() {
    let node = Node::new();
    let copy = |to: &str| Command::Copy { from: key("a"), to: key(to), replace: true };
    let large = set("a", &"v".repeat(1 << 20), Expiry::Never);
    let commands = vec![large, copy("b"), copy("c")];
    let action = Action::Run { batch: Batch { guards: vec![], commands }, session: None };
    let growth = node.fsm.growth(&action, 0).most_bytes;
    assert!((3 << 20..5 << 20).contains(&growth), "{growth}");
    let one = Action::Run { batch: Batch::of(copy("b")), session: None };
    assert_eq!(node.fsm.growth(&one, 1 << 20).most_bytes, (1 << 20) + 73, "it is on its way");
    assert!(node.fsm.growth(&one, 1 << 40).most_bytes < 17 << 20, "no value is as long");
}

/// [Ten thousand bytes of a batch, each written over a large value, take minutes.]
#[test]
fn a_batch_alters_no_more_than_it_may() {
    let mut node = Node::new();
    node.run(1, set("a", &"v".repeat(1 << 20), Expiry::Never));
    let append = || Command::Append { key: key("a"), value: "w".into() };
    let batch = |count| Batch { guards: vec![], commands: vec![append(); count] };
    assert_eq!(node.fsm.check(&batch(60)), Ok(()));
    let refused = node.fsm.check(&batch(70)).unwrap_err();
    assert!(refused.contains("bytes altered in a batch exceed the limit of 67108864"), "{refused}");
}

/// [To hash 16 MiB ten thousand times takes every node half a minute.]
#[test]
fn a_batch_hashes_no_more_than_it_may() {
    let mut node = Node::new();
    node.run(1, set("a", &"v".repeat(1 << 20), Expiry::Never));
    let condition = Condition::UnlessDigest(1);
    let test = Test { key: key("a"), condition: condition.clone() };
    let when = Command::When { tests: vec![test], then: vec![Command::Delete(key("b"))] };
    let set = |to: &str| set_if(to, "v", Expiry::Never, condition.clone());
    for command in [when, set("a")] {
        let batch = |count| Batch { guards: vec![], commands: vec![command.clone(); count] };
        assert_eq!(node.fsm.check(&batch(60)), Ok(()));
        let refused = node.fsm.check(&batch(70)).unwrap_err();
        assert!(refused.contains("bytes altered in a batch"), "{refused}");
    }
    let small = set_if("b", "v", Expiry::Never, condition.clone());
    let many = Batch { guards: vec![], commands: vec![small; 5000] };
    assert_eq!(node.fsm.check(&many), Ok(()), "small ones are not taken for large ones");
    let test = Test { key: key("a"), condition: condition.clone() };
    let reads = Command::When { tests: vec![test], then: vec![Command::Get(key("a"))] };
    assert!(node.fsm.check(&Batch::of(reads)).is_err(), "what nobody counts");
    let grow = Command::Append { key: key("a"), value: vec![b'v'; 15 << 20].into() };
    node.run(1, grow);
    assert!(matches!(node.run(1, set("a")), Answer::Stored { .. }));
    let work_bytes = node.fsm.last_work_bytes();
    assert!(work_bytes > 16 << 20, "it counts as work: {work_bytes}");
}

/// [A value that an answer holds is copied when its deadline is changed: five thousand
/// GETEX of 16 MiB in one transaction filled the memory of every node.]
#[test]
fn answers_of_an_entry_hold_no_more_than_they_may() {
    let mut node = Node::new();
    node.run(1, set("a", &"v".repeat(1 << 20), Expiry::Never));
    let pair = |i: u64| [Command::Get(key("a")), expire("a", Expiry::AfterMs(1000 + i))];
    let pairs = |count| (0..count).flat_map(pair).collect::<Vec<_>>();
    let mut run = |commands| {
        let batch = Batch { guards: vec![], commands };
        node.apply(1, Action::Run { batch, session: None })
    };
    assert!(matches!(run(pairs(64)), Reply::Answers(answers) if answers.len() == 128));
    let chain = vec![Command::Chain { tests: vec![], then: pairs(70) }];
    for commands in [pairs(70), chain] {
        let reply = run(commands);
        assert!(matches!(reply, Reply::Error(ErrorKind::Unknown, _)), "it is done");
    }
    let left = node.ask(1, Command::Ttl(key("a")));
    assert_eq!(left, Answer::Ttl(Ttl::Ms(1069)), "all of it");
    assert!(node.fsm.last_work_bytes() > 64 << 20, "it counts as work");
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

/// [A copy of a copy was charged nothing, and ten thousand of them took 160 GB.]
#[test]
fn a_copy_of_a_copy_is_charged_too() {
    let mut node = Node::new();
    node.run(1, set("0", &"v".repeat(1 << 20), Expiry::Never));
    let copy = |i: u32| Command::Copy {
        from: key(&format!("{i}")),
        to: key(&format!("{}", i + 1)),
        replace: true,
    };
    let batch = |count| Batch { guards: vec![], commands: (0..count).map(copy).collect() };
    let action = Action::Run { batch: batch(20), session: None };
    assert!(node.fsm.growth(&action, 0).most_bytes > 20 << 20);
    assert!(node.fsm.check(&batch(20)).is_err(), "as much is altered at most");
    let rename = Command::Rename { from: key("0"), to: key("a"), replace: true };
    let append = || Command::Append { key: key("a"), value: "w".into() };
    let commands: Vec<_> = std::iter::once(rename).chain((0..70).map(|_| append())).collect();
    assert!(node.fsm.check(&Batch { guards: vec![], commands }).is_err(), "by another name");
}

/// Whatever was estimated, no entry does more than it may: it would do it on every
/// node, and at every start.
#[test]
fn an_entry_does_no_more_than_it_may() {
    let mut node = Node::new();
    node.run(1, set("a", &"v".repeat(1 << 20), Expiry::Never));
    let append = || Command::Append { key: key("a"), value: "w".into() };
    let commands = (0..100).map(|_| append()).collect();
    let batch = Batch { guards: vec![], commands };
    let reply = node.apply(1, Action::Run { batch, session: None });
    let Reply::Answers(answers) = reply else { panic!("{reply:?}") };
    let failed = answers.iter().position(|a| *a == Answer::Failed(Failure::TooMuch)).unwrap();
    assert!((60..64).contains(&failed), "{failed}");
    assert_eq!(node.value("a").map(|value| value.len()), Some((1 << 20) + failed));
    node.run(1, append());
    assert_eq!(node.value("a").map(|value| value.len()), Some((1 << 20) + failed + 1), "the next");
}

/// [A transaction of ten thousand scans made 10^8 names on every node.]
#[test]
fn scans_are_bounded_together() {
    let node = Node::new();
    let scan = |pattern: Option<Bytes>| Command::Scan { db: 0, cursor: 0, count: 6000, pattern };
    let check = |commands| node.fsm.check(&Batch { guards: vec![], commands });
    assert_eq!(check(vec![scan(None); 16]), Ok(()));
    assert!(check(vec![scan(None); 17]).is_err());
    assert!(check(vec![scan(Some(vec![b'*'; 2000].into()))]).is_err(), "a pattern is short");
}
