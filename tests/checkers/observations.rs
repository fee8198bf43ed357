//! The small judges, on what is good and what is not.

#![expect(clippy::unwrap_used, reason = "a failing test is what it is for")]

use super::checkers::deadline::{Change, Key};
use super::checkers::stale::Seen;
use super::checkers::ttl::Event;
use super::checkers::{atomicity, exactly_once, stale, ttl};

fn fails(verdict: Result<(), String>, why: &str) {
    let told = verdict.unwrap_err();
    assert!(told.contains(why), "not {why:?}: {told}");
}

#[test]
fn a_batch_is_seen_whole_or_not_at_all() {
    atomicity::check(&[]).unwrap();
    atomicity::check(&[None, None]).unwrap();
    atomicity::check(&[Some(1), Some(1), Some(1)]).unwrap();
    fails(atomicity::check(&[Some(1), Some(1), None]), "half a batch");
    fails(atomicity::check(&[Some(1), Some(2)]), "half a batch");
}

#[test]
fn an_increment_counts_once() {
    exactly_once::check(&[], 0, 0).unwrap();
    exactly_once::check(&[2, 1, 3], 0, 3).unwrap();
    fails(exactly_once::check(&[1, 2, 2], 0, 3), "one result for two");
    fails(exactly_once::check(&[1, 2, 3], 0, 4), "4 after 3 increments");
    fails(exactly_once::check(&[1, 4], 0, 3), "4 was told");
    fails(exactly_once::check(&[0, 1], 0, 2), "0 was told");
    fails(exactly_once::check(&[], 0, -1), "-1 after 0");
}

#[test]
fn an_unknown_increment_counts_at_most_once() {
    exactly_once::check(&[1, 3], 2, 3).unwrap();
    exactly_once::check(&[1, 2], 2, 4).unwrap();
    exactly_once::check(&[1, 2], 2, 2).unwrap();
    fails(exactly_once::check(&[1, 2], 2, 5), "5 after 2 increments and 2 unknown");
    fails(exactly_once::check(&[1, 3, 4], 2, 2), "3 was told");
}

/// Connection, incarnation, key and version.
fn seen(observations: &[(u64, u64, &str, Option<u64>)]) -> Result<(), String> {
    let seen = |&(connection, incarnation, key, version): &(u64, u64, &str, Option<u64>)| Seen {
        connection,
        node: 1,
        incarnation,
        key: key.to_owned(),
        version,
    };
    stale::check(&observations.iter().map(seen).collect::<Vec<_>>())
}

#[test]
fn stale_reads_do_not_go_back() {
    seen(&[(1, 1, "a", None), (1, 1, "a", Some(5)), (1, 1, "a", Some(5)), (1, 1, "a", Some(7))])
        .unwrap();
    fails(seen(&[(1, 1, "a", Some(7)), (1, 1, "a", Some(5))]), "from version 7 to 5");
    // Who writes a deleted key again gives it a newer version.
    fails(seen(&[(1, 1, "a", Some(7)), (1, 1, "a", None), (1, 1, "a", Some(5))]), "from version 7");
}

#[test]
fn only_one_connection_to_one_incarnation_of_a_node_is_compared() {
    seen(&[(1, 1, "a", Some(7)), (2, 1, "a", Some(5))]).unwrap();
    seen(&[(1, 1, "a", Some(7)), (1, 2, "a", Some(5))]).unwrap();
    seen(&[(1, 1, "a", Some(7)), (1, 1, "b", Some(5))]).unwrap();
    let on = |node, version| Seen {
        connection: 1,
        node,
        incarnation: 1,
        key: "a".to_owned(),
        version: Some(version),
    };
    stale::check(&[on(1, 7), on(2, 5), on(1, 8)]).unwrap();
    fails(stale::check(&[on(1, 7), on(2, 5), on(1, 6)]), "from version 7 to 6");
}

/// All writes live for 1000 us, give or take 10.
fn lives(events: &[Event]) -> Result<(), String> {
    ttl::check(events, 10)
}

fn wrote(value: u64, at_earliest_us: u64, at_latest_us: impl Into<Option<u64>>) -> Event {
    let at_latest_us = at_latest_us.into();
    Event::Wrote { key: "k".to_owned(), value, at_earliest_us, at_latest_us, ttl_us: 1_000 }
}

fn read(found: impl Into<Option<u64>>, called_us: u64, returned_us: u64) -> Event {
    Event::Read { key: "k".to_owned(), found: found.into(), called_us, returned_us }
}

fn deleted(at_earliest_us: u64, at_latest_us: impl Into<Option<u64>>) -> Event {
    Event::Deleted { key: "k".to_owned(), at_earliest_us, at_latest_us: at_latest_us.into() }
}

#[test]
fn a_value_is_not_seen_after_its_time() {
    lives(&[wrote(1, 100, 200), read(1, 1_210, 1_300)]).unwrap();
    fails(lives(&[wrote(1, 100, 200), read(1, 1_211, 1_300)]), "seen after its time");
    lives(&[wrote(1, 100, None), read(1, 9_000, 9_001)]).unwrap();
}

#[test]
fn a_value_is_not_gone_before_its_time() {
    lives(&[wrote(1, 100, 200), read(None, 201, 1_090)]).unwrap();
    fails(lives(&[wrote(1, 100, 200), read(None, 201, 1_089)]), "gone before its time");
    lives(&[wrote(1, 100, 200), read(None, 200, 300)]).unwrap();
    lives(&[wrote(1, 100, None), read(None, 300, 301)]).unwrap();
    lives(&[wrote(1, 0, 1), read(None, 5_000, 6_000)]).unwrap();
}

#[test]
fn others_may_take_a_value_away() {
    let missed = read(None, 300, 400);
    lives(&[wrote(1, 100, 200), deleted(400, 500), missed.clone()]).unwrap();
    lives(&[deleted(50, None), wrote(1, 100, 200), missed.clone()]).unwrap();
    lives(&[deleted(50, 100), wrote(1, 100, 200), missed.clone()]).unwrap();
    lives(&[wrote(1, 100, 200), wrote(2, 250, 260), read(2, 300, 400)]).unwrap();
    fails(lives(&[deleted(50, 99), wrote(1, 100, 200), missed.clone()]), "gone before");
    fails(lives(&[wrote(1, 100, 200), deleted(401, 500), missed]), "gone before");
}

#[test]
fn a_value_does_not_come_back() {
    let write = wrote(1, 100, 200);
    let gone = read(None, 1_100, 1_110);
    lives(&[write.clone(), gone.clone(), read(1, 1_110, 1_120)]).unwrap();
    fails(lives(&[write, gone.clone(), read(1, 1_111, 1_120)]), "back again");
    // Not acknowledged, but seen.
    lives(&[wrote(1, 100, None), gone.clone(), read(1, 2_000, 2_001)]).unwrap();
    let seen = read(1, 900, 1_000);
    fails(lives(&[wrote(1, 100, None), seen, gone, read(1, 2_000, 2_001)]), "back again");
    let overwritten = [wrote(1, 1, 2), wrote(2, 3, 4), read(2, 5, 6), read(1, 7, 8)];
    fails(lives(&overwritten), "back again");
}

#[test]
fn a_value_comes_from_somebody() {
    fails(lives(&[read(1, 5, 6)]), "nobody wrote");
    fails(lives(&[wrote(1, 100, 200), read(1, 98, 99)]), "before it was written");
    lives(&[wrote(1, 100, 200), read(1, 98, 100)]).unwrap();
    let Event::Wrote { value, at_earliest_us, at_latest_us, ttl_us, .. } = wrote(1, 1, 2) else {
        panic!("it was written")
    };
    let key = "other".to_owned();
    let elsewhere = Event::Wrote { key, value, at_earliest_us, at_latest_us, ttl_us };
    fails(lives(&[elsewhere, read(1, 5, 6)]), "nobody wrote");
}

/// Before the first entry, then 7 for 100 ms, nothing, nothing much later, deleted.
fn log() -> Key {
    let mut key = Key::default();
    key.committed(0, None);
    key.committed(1000, Some(Change { to: Some((7, 100)), session: None }));
    key.committed(1099, None);
    key.committed(1100, None);
    key
}

#[test]
fn a_key_ends_with_the_entry_that_is_as_late_as_its_deadline() {
    let key = log();
    assert_eq!(key.next(), 4);
    assert!(key.explains(0, None) && key.explains(0, Some(7)));
    assert!(key.explains(2, Some(7)), "a millisecond to go");
    assert!(key.explains(2, None), "a later entry ends it");
    assert!(key.explains(3, None) && !key.explains(3, Some(7)), "it has ended");
    assert!(!key.explains(0, Some(8)), "nobody wrote it");
    let mut alive = Key::default();
    alive.committed(0, Some(Change { to: Some((7, 100)), session: None }));
    alive.committed(99, None);
    assert!(!alive.explains(0, None), "too early");
}

#[test]
fn time_in_a_log_does_not_go_back() {
    let mut key = log();
    key.committed(1050, None);
    assert!(!key.explains(4, Some(7)), "late is late");
}

#[test]
fn what_is_sent_again_takes_effect_once() {
    let mut key = log();
    let session = Some((1, 1));
    key.committed(1200, Some(Change { to: Some((8, 1000)), session }));
    key.committed(1300, Some(Change { to: None, session: None }));
    key.committed(1400, Some(Change { to: Some((8, 1000)), session }));
    assert!(key.explains(6, None) && !key.explains(6, Some(8)));
    // An hour later nobody knows whether that session is still known.
    key.committed(3_600_000, Some(Change { to: Some((9, 1000)), session: Some((1, 2)) }));
    assert!(key.explains(7, None) && key.explains(7, Some(9)));
}
