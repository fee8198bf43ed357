//! A snapshot is the state at the index where it began, whatever came after.

use rand::RngExt;

use super::oracle::Oracle;
use super::random::{Generator, assert_same, small_window};
use super::*;

/// Begins a snapshot somewhere, applies entries between its pieces, restores
/// it, and lets the restored one catch up.
#[test]
fn a_snapshot_amid_writes_is_the_state_where_it_began() {
    for seed in 0..60 {
        let mut generator = Generator::new(seed);
        let mut node = Node::with(small_window());
        let mut oracle = Oracle::new(16);
        for _ in 0..generator.rng.random_range(0..800) {
            let proposal = generator.proposal();
            oracle.apply(&proposal);
            node.apply(proposal.stamp_ms, proposal.action);
        }
        let hash = node.fsm.state_hash(5);
        let head = node.fsm.begin_snapshot();
        let mut pieces = Vec::new();
        while let Visit::Piece(piece) = node.fsm.snapshot_piece(3) {
            let mut bytes = Vec::new();
            piece.encode(&mut bytes);
            pieces.push(bytes.into());
            for _ in 0..generator.rng.random_range(0..20) {
                let proposal = generator.proposal();
                node.apply(proposal.stamp_ms, proposal.action);
            }
        }
        let mut restored = restore(&head, pieces, small_window())
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(restored.state_hash(5), hash, "seed {seed}");
        for key in oracle.keys() {
            for command in [Command::Get(key.clone()), Command::Ttl(key)] {
                let batch = Batch::of(command);
                assert_eq!(restored.query(&batch, 0), oracle.query(&batch, 0), "seed {seed}");
            }
        }
        for index in restored.applied() + 1..=node.fsm.applied() {
            let proposal = &node.log[index as usize - 1];
            assert_same(&restored.apply(index, proposal), &oracle.apply(proposal), "catching up");
        }
        assert_eq!(restored.state_hash(5), node.fsm.state_hash(5), "seed {seed}");
        assert_eq!(restored.memory_bytes(), node.fsm.memory_bytes(), "seed {seed}");
    }
}

#[test]
fn one_hash_tag_is_walked_in_pieces_too() {
    let mut node = Node::new();
    for i in 0..5000 {
        node.run(1, set(&format!("{{tag}}{i}"), "old", Expiry::Never));
    }
    let head = node.fsm.begin_snapshot();
    let Visit::Piece(first) = node.fsm.snapshot_piece(1024) else { panic!("a piece") };
    assert_eq!(first.keys(), 1024);
    // Writes before, behind and ahead of the walk; enough to split leaves, then
    // deletes, enough to merge them.
    for i in 0..10_000 {
        node.run(1, set(&format!("{{tag}}{i}"), "new", Expiry::Never));
    }
    for i in 0..9_900 {
        node.run(1, Command::Delete(key(&format!("{{tag}}{i}"))));
    }
    let mut bytes = Vec::new();
    first.encode(&mut bytes);
    let mut pieces = vec![bytes.into()];
    pieces.extend(rest_of_snapshot(&mut node.fsm, 1024));
    let restored = restore(&head, pieces, Limits::default()).unwrap();
    assert_eq!(restored.keys(), 5000);
    let old = restored.query(&Batch::of(Command::Get(key("{tag}4999"))), 0);
    assert_eq!(one(old), Answer::Item(Some(Item { value: "old".into(), version: 5000 })));
}

/// Leaves merge as keys go. One that the walk has seen must not swallow one that
/// it has not, at whatever size the snapshot finds the slot.
#[test]
fn leaves_that_merge_amid_a_snapshot_lose_nothing() {
    let name = |i: usize| format!("{{tag}}{i}");
    for before in (0..300).step_by(3) {
        let mut node = Node::new();
        for i in 0..300 {
            node.run(1, set(&name(i), "v", Expiry::Never));
        }
        for i in 0..before {
            node.run(1, Command::Delete(key(&name(i))));
        }
        let head = node.fsm.begin_snapshot();
        for i in before..300.min(before + 4) {
            node.run(1, Command::Delete(key(&name(i))));
        }
        let pieces = rest_of_snapshot(&mut node.fsm, 10);
        let restored = restore(&head, pieces, Limits::default());
        assert!(restored.is_ok(), "{before} deleted before: {restored:?}");
    }
}

#[test]
fn a_cleared_database_is_still_in_the_snapshot() {
    let mut node = Node::new();
    for i in 0..100 {
        node.run(1, set(&format!("{i}"), "old", Expiry::Never));
    }
    let head = node.fsm.begin_snapshot();
    node.run(1, set("1", "new", Expiry::Never));
    node.run(1, Command::Clear { db: None });
    node.run(1, set("2", "new", Expiry::Never));
    assert!(node.fsm.snapshot_retained_bytes() >= 100 * (72 + 3));
    let pieces = rest_of_snapshot(&mut node.fsm, 10);
    assert_eq!(node.fsm.snapshot_retained_bytes(), 0);
    let restored = restore(&head, pieces, Limits::default()).unwrap();
    assert_eq!((restored.keys(), node.fsm.keys()), (100, 1));
    while node.fsm.reclaim(10) {}
}

#[test]
fn a_snapshot_that_would_hold_too_much_is_given_up() {
    let mut node = Node::with(Limits { snapshot_retained_bytes: 10_000, ..Limits::default() });
    for i in 0..100 {
        node.run(1, set(&format!("{i}"), &"v".repeat(1000), Expiry::Never));
    }
    node.fsm.begin_snapshot();
    for i in 0..50 {
        node.run(1, set(&format!("{i}"), "new", Expiry::Never));
        assert!(node.fsm.snapshot_retained_bytes() < 12_000);
    }
    assert!(matches!(node.fsm.snapshot_piece(10), Visit::Abandoned));
    while node.fsm.reclaim(10) {}
    copy(&mut node.fsm);
}

#[test]
fn what_does_not_add_up_is_refused() {
    let mut node = Node::new();
    for i in 0..50 {
        node.run(1, set(&format!("{i}"), "v", Expiry::AfterMs(100)));
    }
    let session = node.open(1);
    node.retry(1, session, 1, increment("n", 1));
    let head = node.fsm.begin_snapshot();
    let pieces = rest_of_snapshot(&mut node.fsm, 10);
    let restore = |head: &SnapshotHead, pieces| restore(head, pieces, Limits::default());
    assert!(restore(&head, pieces.clone()).is_ok());

    let mismatch = |what| RestoreError::Mismatch { applied: 52, what };
    let missing = restore(&head, pieces[1..].to_vec()).unwrap_err();
    assert_eq!(missing, mismatch("numbers of keys"));
    assert_eq!(
        missing.to_string(),
        "snapshot of index 52: the numbers of keys found do not match its header"
    );
    let twice = [&pieces[..], &pieces[..1]].concat();
    assert!(matches!(restore(&head, twice), Err(RestoreError::Malformed(_))));

    let mut altered = pieces.clone();
    let mut bytes = altered[0].to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    altered[0] = bytes.into();
    assert_eq!(restore(&head, altered).unwrap_err(), mismatch("contents"));

    let mut later = head.clone();
    later.log_time_ms += 1;
    assert_eq!(restore(&later, pieces.clone()).unwrap_err(), mismatch("sessions or log time"));

    let mut bytes = Vec::new();
    head.encode(&mut bytes);
    for end in 0..bytes.len() {
        assert!(SnapshotHead::decode(bytes[..end].to_vec().into()).is_err(), "cut at {end}");
    }
}

/// Snapshot files hold these bytes.
#[test]
fn the_bytes_of_a_piece_are_pinned() {
    let mut node = Node::new();
    node.run(1, set("key", "v", Expiry::AtMs(0x0203)));
    let head = node.fsm.begin_snapshot();
    let pieces = rest_of_snapshot(&mut node.fsm, 1);
    let expected = [
        &[1, 0, 0, 0, 0][..],      // one item, of database 0
        &[3, 2, 0, 0, 0, 0, 0, 0], // deadline
        &[1, 0, 0, 0, 0, 0, 0, 0], // version
        &[3, 0, 0, 0, b'k', b'e', b'y', 1, 0, 0, 0, b'v'],
    ];
    assert_eq!(pieces, [expected.concat()]);
    let mut bytes = Vec::new();
    head.encode(&mut bytes);
    assert_eq!(bytes.len(), 1 + 3 * 8 + 16 * 3 * 8 + 4, "no sessions");
    assert_eq!(bytes[..17], [1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_piece_goes_to_another_thread() {
    fn is_send<T: Send + 'static>() {}
    is_send::<Piece>();
    is_send::<SnapshotHead>();
    is_send::<Restore>();
}
