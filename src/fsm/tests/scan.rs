//! A walk by `Scan` meets what stays, once, whatever comes and goes meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::fsm::limits::SCANNED_KEYS;
use crate::fsm::slots::{LEAF_KEYS, SLOTS, slot_of};

fn scan(fsm: &Fsm, cursor: u64, count: u32, pattern: Option<&str>) -> (u64, Vec<Bytes>) {
    let pattern = pattern.map(|pattern| pattern.to_owned().into());
    let command = Command::Scan { db: 0, cursor, count, pattern };
    match one(fsm.query(&Batch::of(command), 0)) {
        Answer::Names { cursor, names } => (cursor, names),
        answer => panic!("{answer:?}"),
    }
}

/// The end of a walk by steps of `count`; `meanwhile` happens between them.
fn walk(node: &mut Node, count: u32, mut meanwhile: impl FnMut(&mut Node)) -> Vec<Bytes> {
    let (mut cursor, mut met) = (0, Vec::new());
    loop {
        let (next, names) = scan(&node.fsm, cursor, count, None);
        met.extend(names);
        if next == 0 {
            return met;
        }
        assert!(next > cursor, "a walk that does not go on does not end");
        cursor = next;
        meanwhile(node);
    }
}

/// Most names in one slot, the others spread.
fn name(number: usize) -> String {
    if number.is_multiple_of(10) { format!("{number}") } else { format!("{{t}}{number}") }
}

fn put(node: &mut Node, number: usize) {
    node.run(1, set(&name(number), "v", Expiry::Never));
}

fn delete(node: &mut Node, number: usize) {
    node.run(1, Command::Delete(key(&name(number))));
}

/// Between two steps some hundred keys come or go, so that the leaves of the one
/// slot split and merge many times over. A snapshot, begun at times, keeps leaves
/// from merging.
#[test]
fn what_stays_is_met_once() {
    const STAY: usize = 50;
    const ALL: usize = 3000;
    for (seed, count) in [1, 2, 3, 7, 10, 30, 64, 65, 100, 333, 1000].into_iter().enumerate() {
        let mut rng = SmallRng::seed_from_u64(seed as u64);
        let mut node = Node::new();
        (0..ALL).for_each(|number| put(&mut node, number));
        let mut there = ALL;
        // A few steps may be all there is, so a large count changes more at each.
        let most = (500 + 20 * count as usize).min(ALL - STAY);
        let met = walk(&mut node, count, |node| {
            if rng.random_bool(0.02) {
                node.fsm.begin_snapshot();
            }
            if rng.random_bool(0.05) {
                node.fsm.abandon_snapshot();
            }
            let aim = STAY + rng.random_range(0..=ALL - STAY);
            for _ in 0..most.min(aim.abs_diff(there)) {
                if there < aim {
                    put(node, there);
                    there += 1;
                } else {
                    there -= 1;
                    delete(node, there);
                }
            }
        });
        let mut times = BTreeMap::new();
        met.iter().for_each(|name| *times.entry(name.clone()).or_insert(0) += 1);
        let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
        // One that goes and comes again is another key, and yet in the same place.
        assert!(twice.is_empty(), "count {count}: {twice:?}");
        let missed: Vec<_> =
            (0..STAY).map(name).filter(|name| !times.contains_key(name.as_bytes())).collect();
        assert!(missed.is_empty(), "count {count}: {missed:?}");
    }
}

/// From every number of leaves to every kind of other: whole levels, and such as
/// are split in part.
#[test]
fn a_walk_goes_on_among_any_other_number_of_leaves() {
    let names: Vec<String> = (0..20 * LEAF_KEYS).map(|number| format!("{{t}}{number}")).collect();
    // Few enough that they alone are one leaf again.
    let (stay, others) = names.split_at(LEAF_KEYS / 4);
    let set = |node: &mut Node, name: &String| drop(node.run(1, set(name, "v", Expiry::Never)));
    let fill = |node: &mut Node, leaves: usize| {
        others.iter().for_each(|name| drop(node.run(1, Command::Delete(key(name)))));
        others[..leaves * LEAF_KEYS - stay.len()].iter().for_each(|name| set(node, name));
    };
    for (before, after) in [(1, 20), (20, 1), (3, 4), (4, 3), (5, 16), (16, 5), (7, 13), (13, 7)] {
        for steps in 1..=before {
            let context = format!("{before} leaves, {after} after {steps} steps");
            let mut node = Node::new();
            stay.iter().for_each(|name| set(&mut node, name));
            fill(&mut node, before);
            let mut step = 0;
            let met = walk(&mut node, 1, |node| {
                step += 1;
                if step == steps {
                    fill(node, after);
                }
            });
            assert!(step >= steps.min(before - 1), "{context}: {step}");
            let distinct: BTreeSet<_> = met.iter().collect();
            assert_eq!(distinct.len(), met.len(), "{context}");
            let is_met = |name: &String| distinct.contains(&Bytes::from(name.clone()));
            assert!(stay.iter().all(is_met), "{context}");
        }
    }
}

#[test]
fn any_cursor_is_answered() {
    let mut node = Node::new();
    (0..3000).for_each(|number| put(&mut node, number));
    let mut rng = SmallRng::seed_from_u64(1);
    let slot = slot_of(b"t") as u64;
    let ends = [0, 1, u64::MAX, u64::MAX >> 32, (SLOTS as u64) << 32, ((SLOTS as u64) << 32) - 1];
    let near = ends.into_iter().flat_map(|end| [end.wrapping_sub(1), end, end.wrapping_add(1)]);
    let within = (0..2000).map(|_| slot << 32 | u64::from(rng.random::<u32>()));
    let mut cursors: Vec<u64> = near.chain(within).collect();
    cursors.extend((0..2000).map(|_| rng.random::<u64>() >> rng.random_range(0..64)));
    for cursor in cursors {
        for count in [0, 1, 100, u32::MAX] {
            let (next, _) = scan(&node.fsm, cursor, count, None);
            assert!(next == 0 || next > cursor, "{next} after {cursor}");
            assert!(next < (SLOTS as u64) << 32, "{next} is no place");
        }
    }
}

#[test]
fn a_step_looks_at_about_as_many_as_it_was_asked() {
    let mut node = Node::new();
    (0..6000).for_each(|number| put(&mut node, number));
    for count in [0, 1, 10, 500] {
        let mut cursor = 0;
        loop {
            let (next, names) = scan(&node.fsm, cursor, count, None);
            assert!(names.len() < count as usize + 4 * LEAF_KEYS, "{}", names.len());
            cursor = next;
            if cursor == 0 {
                break;
            }
            assert!(names.len() >= count as usize, "{}", names.len());
        }
    }
    assert_eq!(scan(&Node::new().fsm, 0, 10, None), (0, Vec::new()), "nothing is there");
}

/// [A scan of all of ten million keys stalls every node, and its reply is too long
/// to be written down.]
#[test]
fn a_step_is_bounded_whatever_it_asks_for() {
    let mut node = Node::new();
    (0..2 * SCANNED_KEYS as usize).for_each(|number| put(&mut node, number));
    let (cursor, names) = scan(&node.fsm, 0, u32::MAX, None);
    assert!(cursor > 0);
    let bound = SCANNED_KEYS as usize..SCANNED_KEYS as usize + 4 * LEAF_KEYS;
    assert!(bound.contains(&names.len()), "{}", names.len());
}

#[test]
fn only_names_that_are_wanted_are_shown() {
    let mut node = Node::new();
    for name in ["a1", "a2", "b1", "a"] {
        node.run(1, set(name, "v", Expiry::Never));
    }
    node.run(1, set("a3", "v", Expiry::AtMs(50)));
    node.run(
        1,
        Command::Copy { from: key("a1"), to: Key { db: 1, name: "a9".into() }, replace: false },
    );
    let names = |pattern| {
        let mut names = scan(&node.fsm, 0, 1000, pattern).1;
        names.sort();
        names
    };
    assert_eq!(names(Some("a?")), ["a1", "a2", "a3"]);
    assert_eq!(names(Some("x*")), [""; 0]);
    assert_eq!(names(None), ["a", "a1", "a2", "a3", "b1"]);
    let command = Command::Scan { db: 0, cursor: 0, count: 1000, pattern: Some("a3".into()) };
    let late = Answer::Names { cursor: 0, names: Vec::new() };
    assert_eq!(node.ask(50, command), late, "past its deadline");
}
