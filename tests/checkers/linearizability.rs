//! The search for an order, against stories and against all orders there are.

#![expect(clippy::unwrap_used, reason = "a failing test is what it is for")]

use std::collections::BTreeMap;
use std::time::Instant;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::checkers::linearizability::Action::{self, CompareAndSet, Delete, Get, Increment, Set};
use super::checkers::linearizability::{Failure, History, Operation, check, check_within};

/// An operation called and returned then.
fn at(called_at: u64, returned_at: u64, action: Action) -> Operation {
    Operation { client: called_at % 10, called_at, returned_at: Some(returned_at), action }
}

/// An operation that never returned.
fn unknown(called_at: u64, action: Action) -> Operation {
    Operation { client: called_at % 10, called_at, returned_at: None, action }
}

fn set(value: u64) -> Action {
    Set { value }
}

fn get(found: impl Into<Option<u64>>) -> Action {
    Get { found: found.into() }
}

fn delete(existed: impl Into<Option<bool>>) -> Action {
    Delete { existed: existed.into() }
}

fn cas(expected: impl Into<Option<u64>>, value: u64, outcome: impl Into<Option<bool>>) -> Action {
    CompareAndSet { expected: expected.into(), value, outcome: outcome.into() }
}

fn add(by: i64, result: impl Into<Option<i64>>) -> Action {
    Increment { by, result: result.into() }
}

fn history(operations: &[Operation]) -> History {
    let mut history = History::default();
    operations.iter().for_each(|operation| history.record("k", operation.clone()));
    history
}

fn passes(operations: &[Operation]) {
    check(&history(operations)).unwrap();
}

/// It fails, and the last operation of the beginning that is told of is this one.
fn fails_at(operations: &[Operation], culprit: &str) {
    let told = check(&history(operations)).unwrap_err();
    let mut returned = told.lines().filter(|line| line.starts_with("  #") && !line.contains("..?"));
    let last = returned.next_back().unwrap_or_default();
    assert!(last.ends_with(culprit), "not {culprit:?}:\n{told}");
}

#[test]
fn what_is_written_is_read() {
    passes(&[]);
    passes(&[at(1, 2, get(None)), at(3, 4, set(1)), at(5, 6, get(1)), at(7, 8, delete(true))]);
    passes(&[at(1, 2, delete(false)), at(3, 4, cas(None, 1, true)), at(5, 6, cas(2, 3, false))]);
    passes(&[at(1, 2, add(5, 5)), at(3, 4, add(-7, -2)), at(5, 6, get((-2i64).cast_unsigned()))]);
}

#[test]
fn who_overlaps_a_write_sees_either_state() {
    passes(&[at(1, 9, set(1)), at(2, 3, get(None)), at(4, 5, get(1)), at(6, 7, get(1))]);
    fails_at(&[at(1, 9, set(1)), at(2, 3, get(1)), at(4, 5, get(None))], "get -> nothing");
}

#[test]
fn at_the_same_time_neither_precedes() {
    passes(&[at(1, 2, set(1)), at(2, 3, get(None))]);
    fails_at(&[at(1, 2, set(1)), at(3, 4, get(None))], "get -> nothing");
}

#[test]
fn a_stale_read_after_a_newer_one() {
    let writes = [at(1, 2, set(1)), at(3, 20, set(2))];
    let [first, second] = writes.clone();
    passes(&[first.clone(), second.clone(), at(4, 5, get(1)), at(6, 7, get(2))]);
    fails_at(&[first, second, at(4, 5, get(2)), at(6, 7, get(1))], "get -> 1");
}

#[test]
fn a_lost_update() {
    let both = [at(1, 2, add(1, 1)), at(3, 6, add(1, 2)), at(4, 5, add(1, 2))];
    fails_at(&both, "add 1 -> 2");
    fails_at(&[at(1, 2, set(1)), at(3, 4, set(2)), at(5, 6, get(1))], "get -> 1");
}

#[test]
fn a_value_nobody_wrote() {
    fails_at(&[at(1, 2, set(1)), at(3, 4, get(7)), at(5, 6, get(1))], "get -> 7");
}

#[test]
fn a_read_from_the_future() {
    fails_at(&[at(1, 2, get(1)), at(3, 4, set(1))], "get -> 1");
}

#[test]
fn two_swaps_of_one_value() {
    let swaps = [at(1, 2, set(1)), at(3, 7, cas(1, 2, true)), at(4, 6, cas(1, 3, true))];
    fails_at(&swaps, "set 2 if 1 -> yes");
    passes(&[at(1, 2, set(1)), at(3, 7, cas(1, 2, true)), at(4, 6, cas(1, 3, false))]);
}

#[test]
fn an_acknowledged_write_missing_at_the_end() {
    fails_at(&[at(1, 2, set(1)), at(3, 4, get(None))], "get -> nothing");
    fails_at(&[at(1, 2, set(1)), at(3, 4, set(2)), at(50, 60, delete(false))], "delete -> no");
}

#[test]
fn a_deleted_key_coming_back() {
    let story = [at(1, 2, set(1)), at(3, 4, delete(true)), at(5, 6, get(None)), at(7, 8, get(1))];
    fails_at(&story, "get -> 1");
}

#[test]
fn an_unknown_write_may_come_late_or_never_but_once() {
    let late = |more: &[Operation]| {
        let mut story = vec![unknown(1, set(1)), at(2, 3, set(2)), at(4, 5, get(2))];
        story.extend_from_slice(more);
        story
    };
    passes(&late(&[]));
    passes(&late(&[at(90, 91, get(1)), at(92, 93, get(1))]));
    passes(&late(&[at(90, 91, get(2))]));
    let again = [at(6, 7, get(1)), at(8, 9, set(3)), at(10, 11, get(1))];
    fails_at(&late(&again), "get -> 1");
    let sums = [unknown(1, add(1, None)), at(2, 3, add(1, 1)), at(4, 5, get(3))];
    fails_at(&sums, "get -> 3");
}

#[test]
fn an_unknown_write_does_not_come_before_its_call() {
    fails_at(&[at(1, 2, get(1)), unknown(3, set(1))], "get -> 1");
}

#[test]
fn an_unknown_operation_need_not_have_what_it_compares_with() {
    passes(&[at(1, 2, set(1)), unknown(3, cas(1, 2, true)), at(4, 5, set(3)), at(6, 7, get(3))]);
}

#[test]
fn unknown_operations_that_build_on_each_other() {
    let chain = [unknown(1, set(1)), unknown(2, cas(1, 2, None)), unknown(3, cas(2, 3, None))];
    let [first, second, third] = chain;
    passes(&[third.clone(), second.clone(), first.clone(), at(4, 5, get(3))]);
    fails_at(&[third, second, first, at(4, 5, get(3)), at(6, 7, get(2))], "get -> 2");
}

#[test]
fn who_returned_without_an_outcome_has_taken_effect() {
    fails_at(&[at(1, 2, set(1)), at(3, 4, delete(None)), at(5, 6, get(1))], "get -> 1");
    passes(&[at(1, 2, set(1)), at(3, 4, cas(1, 2, None)), at(5, 6, get(2))]);
    fails_at(&[at(1, 2, set(1)), at(3, 4, cas(1, 2, None)), at(5, 6, get(1))], "get -> 1");
}

#[test]
fn keys_are_independent_and_a_failure_names_its_key() {
    let mut history = history(&[at(1, 2, set(1))]);
    history.record("other", at(3, 4, get(None)));
    check(&history).unwrap();
    history.record("other", at(5, 6, get(1)));
    assert!(check(&history).unwrap_err().starts_with("key other: no order explains"));
}

#[test]
fn a_failure_tells_the_shortest_beginning() {
    let mut story: Vec<Operation> = (1..50).map(|i| at(10 * i, 10 * i + 1, set(i))).collect();
    story.push(at(55, 56, get(4)));
    let told = check(&history(&story)).unwrap_err();
    let expected = "key k: no order explains
  #0 10..11 client 0: set 1
  #1 20..21 client 0: set 2
  #2 30..31 client 0: set 3
  #3 40..41 client 0: set 4
  #4 50..51 client 0: set 5
  #5 55..56 client 5: get -> 4
the furthest order: #0 #1 #2 #3 #4; it leaves 5";
    assert_eq!(told, expected);
}

/// Until it returns, nobody knows what an operation will be told.
#[test]
fn who_contradicts_what_was_seen_before_is_the_culprit() {
    let story = [at(1, 2, set(1)), at(3, 10, cas(1, 2, false)), at(4, 5, get(2))];
    fails_at(&story, "set 2 if 1 -> no");
}

/// Writers, all at once, of values that are all read at once afterwards, too late.
#[test]
fn who_finds_no_verdict_says_so() {
    let mut story: Vec<Operation> = (0..20).map(|i| at(1, 50, cas(i, i + 1, None))).collect();
    story.push(at(60, 61, get(77)));
    story.push(unknown(2, set(77)));
    story.push(unknown(2, cas(77, 78, None)));
    story.push(at(62, 63, get(5)));
    let failure = check_within(&history(&story), 1_000).unwrap_err();
    assert!(matches!(&failure, Failure::TooHard(why) if why.contains("too hard")), "{failure}");
}

/// Steps that suffice for stories of some hundred operations, with or without an order.
const FEW: u64 = 5_000;

fn is_easy(operations: &[Operation], verdict: bool) {
    match check_within(&history(operations), FEW) {
        Ok(()) => assert!(verdict, "this has no order"),
        Err(Failure::NotLinearizable(why)) => assert!(!verdict, "{why}"),
        Err(Failure::TooHard(why)) => panic!("{why}"),
    }
}

#[test]
fn many_unknown_writes_are_easy() {
    let stories: [(&str, Vec<Action>); 6] = [
        ("never seen", (1..=30).map(set).collect()),
        ("deletes", vec![delete(None); 30]),
        ("sums", (0..30).map(|_| add(1, None)).collect()),
        ("swaps of nothing", (1..=30).map(|i| cas(None, i, None)).collect()),
        ("a chain of swaps", (1..=30).map(|i| cas((i > 1).then(|| i - 1), i, None)).collect()),
        ("mixed", (1..=30).map(|i| if i % 2 == 0 { set(i) } else { delete(None) }).collect()),
    ];
    for (name, actions) in stories {
        println!("{name}");
        let mut story: Vec<Operation> =
            actions.into_iter().zip(1..).map(|(action, i)| unknown(i, action)).collect();
        // Known writes, and a disturbance between them that only an unknown one explains.
        for i in 0..10 {
            let then = 100 + 10 * i;
            match name {
                "sums" => story.push(at(then, then + 1, add(10, 10 * (i + 1).cast_signed() + 1))),
                _ => {
                    story.push(at(then, then + 1, set(1_000 + i)));
                    story.push(at(then + 2, then + 3, get(1_000 + i)));
                }
            }
        }
        is_easy(&story, true);
        let mut disturbed = story.clone();
        match name {
            "never seen" => {
                for i in 0..30 {
                    disturbed.push(at(500 + 10 * i, 501 + 10 * i, delete(true)));
                }
                disturbed.push(at(900, 901, delete(true)));
                is_easy(&disturbed, true);
                disturbed.push(at(902, 903, delete(true)));
            }
            "sums" => {
                disturbed.push(at(900, 901, get(130)));
                is_easy(&disturbed, true);
                disturbed.push(at(902, 903, get(131)));
            }
            _ => {
                disturbed.push(at(900, 901, get(1_009)));
                is_easy(&disturbed, true);
                disturbed.push(at(902, 903, get(1_008)));
            }
        }
        is_easy(&disturbed, false);
    }
}

/// Every unknown write is read in the end, so none of them explains anything before.
#[test]
fn many_unknown_writes_that_are_all_seen_are_easy() {
    let mut story: Vec<Operation> = (1..=30).map(|i| unknown(i, set(i))).collect();
    for i in 1..=30 {
        story.push(at(100 + 10 * i, 105 + 10 * i, set(100 + i)));
        story.push(at(101 + 10 * i, 109 + 10 * i, cas(100 + i, 200 + i, false)));
        story.push(at(1_000 + i, 1_030 + i, get(31 - i)));
    }
    is_easy(&story, true);
    story.push(at(900, 901, delete(true)));
    is_easy(&story, true);
    story.push(at(902, 903, delete(true)));
    is_easy(&story, false);
}

/// All orders, one after the other, with rules of its own.
fn is_explicable(operations: &[Operation]) -> bool {
    fn go(operations: &[Operation], done: &mut Vec<usize>, state: Option<u64>) -> bool {
        let left: Vec<usize> = (0..operations.len()).filter(|i| !done.contains(i)).collect();
        if left.iter().all(|&i| operations[i].returned_at.is_none()) {
            return true;
        }
        left.iter().any(|&i| {
            let called_at = operations[i].called_at;
            let precedes = |&j: &usize| operations[j].returned_at.is_some_and(|at| at < called_at);
            let Some(state) = outcome(state, operations[i].action) else { return false };
            if left.iter().any(precedes) {
                return false;
            }
            done.push(i);
            let is_found = go(operations, done, state);
            done.pop();
            is_found
        })
    }
    go(operations, &mut Vec::new(), None)
}

/// What an action does to a state, if it does what it says.
fn outcome(state: Option<u64>, action: Action) -> Option<Option<u64>> {
    let did = did(state, action);
    (did.1 == action || told_nothing(did.1) == action).then_some(did.0)
}

/// The state after an action, and the action with the outcome it has then.
fn did(state: Option<u64>, action: Action) -> (Option<u64>, Action) {
    match action {
        Get { .. } => (state, Get { found: state }),
        Set { value } => (Some(value), action),
        Delete { .. } => (None, delete(state.is_some())),
        CompareAndSet { expected, value, .. } if expected == state => {
            (Some(value), cas(expected, value, true))
        }
        CompareAndSet { expected, value, .. } => (state, cas(expected, value, false)),
        Increment { by, .. } => {
            let sum = state.unwrap_or_default() as i64 + by;
            (Some(sum as u64), add(by, sum))
        }
    }
}

fn told_nothing(action: Action) -> Action {
    match action {
        Get { .. } | Set { .. } => action,
        Delete { .. } => delete(None),
        CompareAndSet { expected, value, .. } => cas(expected, value, None),
        Increment { by, .. } => add(by, None),
    }
}

/// What random clients do to one key.
struct Clients {
    rng: Xoshiro256PlusPlus,
    count: u64,
    /// In percent.
    unknown: u64,
    /// None: each value is written once.
    values: Option<u64>,
    sums: bool,
    swaps: bool,
}

impl Clients {
    fn small(seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let unknown = [10, 30, 60][rng.random_range(0..3)];
        let values = rng.random_bool(0.5).then_some(2);
        let (sums, swaps) =
            [(true, false), (true, true), (false, true), (false, true)][rng.random_range(0..4)];
        let count = rng.random_range(2..=3);
        Self { rng, count, unknown, values, sums, swaps }
    }

    fn action(&mut self, number: u64) -> Action {
        let value = self.values.map_or(number, |values| self.rng.random_range(0..values));
        let known = self.values.unwrap_or(number).max(1);
        let expected = self.rng.random_bool(0.8).then(|| self.rng.random_range(0..known));
        match self.rng.random_range(0..10) {
            0..3 => get(None),
            3..5 if self.swaps => set(value),
            5..8 if self.swaps => cas(expected, value, None),
            8 => delete(None),
            _ if self.sums => add(self.rng.random_range(-1..=2), None),
            _ => set(value),
        }
    }

    /// A history with an order: each operation takes effect somewhere in its time.
    fn history(&mut self, length: u64) -> Vec<Operation> {
        let mut operations: Vec<Operation> = Vec::new();
        let mut effects: BTreeMap<(u64, u64), usize> = BTreeMap::new();
        let mut free: Vec<u64> = (0..self.count).map(|client| client % 3).collect();
        for number in 0..length {
            let client = self.rng.random_range(0..self.count);
            let called_at = free[client as usize] + self.rng.random_range(1..4);
            let end = called_at + self.rng.random_range(0..3 * self.count);
            let mut returned_at = Some(end);
            let mut effect = self.rng.random_range(called_at..=end);
            free[client as usize] = end + 1;
            if self.rng.random_range(0..100) < self.unknown {
                returned_at = None;
                effect = called_at + self.rng.random_range(0..20);
            }
            let action = self.action(number);
            operations.push(Operation { client, called_at, returned_at, action });
            effects.insert((effect, number), operations.len() - 1);
        }
        let mut state = None;
        for i in effects.into_values() {
            let operation = &mut operations[i];
            let (after, action) = did(state, operation.action);
            if operation.returned_at.is_some() || self.rng.random_bool(0.5) {
                state = after;
            }
            let is_told = operation.returned_at.is_some() && self.rng.random_bool(0.9);
            operation.action = if is_told { action } else { told_nothing(action) };
        }
        operations
    }

    /// Changes one thing that was told.
    fn spoil(&mut self, operations: &mut [Operation]) {
        let i = self.rng.random_range(0..operations.len());
        let value = self.rng.random_range(0..operations.len() as u64);
        let action = &mut operations[i].action;
        *action = match *action {
            Get { .. } => get(self.rng.random_bool(0.8).then_some(value)),
            Set { .. } => set(value),
            Delete { existed } => delete(existed.map(|existed| !existed)),
            CompareAndSet { expected, value, outcome } => {
                cas(expected, value, outcome.map(|swapped| !swapped))
            }
            Increment { by, result } => add(by, result.map(|sum| sum + 1)),
        };
    }
}

/// Compares verdicts; how many histories had no order.
fn compare(seeds: std::ops::Range<u64>, lengths: std::ops::RangeInclusive<u64>) -> usize {
    let mut inexplicable = 0;
    for seed in seeds {
        let mut clients = Clients::small(seed);
        let length = clients.rng.random_range(lengths.clone());
        let mut operations = clients.history(length);
        assert!(is_explicable(&operations), "seed {seed}: made with an order");
        for _ in 0..clients.rng.random_range(0..3) {
            clients.spoil(&mut operations);
        }
        let verdict = check(&history(&operations));
        assert_eq!(verdict.is_ok(), is_explicable(&operations), "seed {seed}: {operations:#?}");
        inexplicable += usize::from(verdict.is_err());
    }
    inexplicable
}

#[test]
fn the_verdict_is_that_of_all_orders() {
    let bad = compare(0..20_000, 1..=6);
    println!("{bad} of 20000 histories have no order");
    assert!((5_000..15_000).contains(&bad), "{bad}: both verdicts are to be common");
}

#[test]
fn the_verdict_on_longer_histories_is_that_of_all_orders() {
    let bad = compare(20_000..21_000, 7..=8);
    println!("{bad} of 1000 longer histories have no order");
    assert!((250..750).contains(&bad), "{bad}: both verdicts are to be common");
}

/// 2000 operations of 10 clients on 8 keys, of which 5 in 100 are unknown.
fn busy(seed: u64) -> Vec<Vec<Operation>> {
    let rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut clients =
        Clients { rng, count: 10, unknown: 5, values: None, sums: false, swaps: true };
    (0..8).map(|_| clients.history(250)).collect()
}

fn of_keys(keys: &[Vec<Operation>]) -> History {
    let mut history = History::default();
    for (key, operations) in keys.iter().enumerate() {
        operations.iter().for_each(|o| history.record(&format!("k{key}"), o.clone()));
    }
    history
}

#[test]
fn busy_keys_are_judged_quickly() {
    for seed in 0..5 {
        let history = of_keys(&busy(seed));
        let began = Instant::now();
        check(&history).unwrap();
        println!("2000 operations on 8 keys: {:?}", began.elapsed());
    }
}

#[test]
fn a_busy_key_with_a_stale_read_is_judged_quickly() {
    for seed in 0..5 {
        let mut keys = busy(seed);
        keys[3].push(at(1_000_000, 1_000_001, set(1_000_000)));
        keys[3].push(at(1_000_002, 1_000_003, get(5)));
        let history = of_keys(&keys);
        let began = Instant::now();
        let told = check(&history).unwrap_err();
        println!("no order of 2000 operations on 8 keys: {:?}", began.elapsed());
        assert!(told.contains("get -> 5\nthe furthest order") || told.contains("..?"), "{told}");
    }
}
