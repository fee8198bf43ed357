//! Keys make way when memory is full, the same ones on every node.

use raftcache::raft::NodeId;
use raftcache::replica::{Input, Ticket};
use raftcache::request::{
    Command, ErrorKind, EvictionPolicy, Expiry, Key, MemoryLimit, Reply, Request,
};

use crate::cluster::{Cluster, id};
use crate::{error, get, is_stored, set, set_for, value};

const LIMIT_BYTES: u64 = 1 << 20;

/// With name and overhead about a thousandth of the limit.
const VALUE_BYTES: usize = 970;

fn cluster(eviction: EvictionPolicy) -> Cluster {
    Cluster::with(3, |cluster| cluster.memory = MemoryLimit { bytes: LIMIT_BYTES, eviction })
}

fn large(key: &str) -> Request {
    set(key, &"v".repeat(VALUE_BYTES))
}

fn memory(cluster: &Cluster) -> Vec<u64> {
    cluster.nodes.values().map(|node| node.driver.replica().fsm().memory_bytes()).collect()
}

/// Everybody has applied everything, and holds the same.
fn assert_agree(cluster: &mut Cluster) {
    let states = |cluster: &Cluster| -> Vec<_> {
        let fsms = cluster.nodes.values().map(|node| node.driver.replica().fsm());
        fsms.map(|fsm| (fsm.applied(), fsm.contents_hash())).collect()
    };
    cluster.run_until("all to have caught up", |cluster| {
        let states = states(cluster);
        states.iter().all(|state| state.0 == states[0].0)
    });
    let states = states(cluster);
    assert!(states.iter().all(|state| state == &states[0]), "{states:?}");
}

/// Asks for so many writes in each millisecond, and hears how each went.
fn fill(
    cluster: &mut Cluster,
    node: NodeId,
    keys: std::ops::Range<u32>,
    at_once: u32,
) -> Vec<Reply> {
    let mut asked: Vec<(NodeId, Ticket)> = Vec::new();
    for i in keys {
        asked.push(cluster.ask(node, 1, large(&format!("key{i}"))));
        if i % at_once == 0 {
            cluster.run_ms(1);
            let most = LIMIT_BYTES + LIMIT_BYTES / 8 + 20 * u64::from(at_once) * 1100;
            assert!(memory(cluster).iter().all(|&bytes| bytes <= most), "{:?}", memory(cluster));
        }
    }
    asked.into_iter().map(|asked| cluster.wait_for(asked)).collect()
}

#[test]
fn three_times_the_limit_is_taken_in_and_all_agree_on_what_is_left() {
    for policy in
        [EvictionPolicy::AllKeysLru, EvictionPolicy::AllKeysLfu, EvictionPolicy::AllKeysRandom]
    {
        for from in 1..=2 {
            let mut cluster = cluster(policy);
            let replies = fill(&mut cluster, id(from), 0..3000, 10);
            assert!(replies.iter().all(is_stored), "{policy:?}");
            cluster.run_ms(100);
            assert_agree(&mut cluster);
            let bytes = memory(&cluster)[0];
            assert!(bytes <= LIMIT_BYTES && bytes > LIMIT_BYTES * 9 / 10, "{policy:?}: {bytes}");
        }
    }
}

#[test]
fn leaders_come_and_go_and_all_agree() {
    let mut cluster = cluster(EvictionPolicy::AllKeysLru);
    let leader = cluster.leader().unwrap();
    fill(&mut cluster, leader, 5000..6000, 10);
    for round in 0..10_u32 {
        // No more than there is room for until a new leader knows what is there.
        let keys = round * 100..(round + 1) * 100;
        cluster.run_until("a leader", |cluster| cluster.leader().is_some());
        let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
        let asked: Vec<_> =
            keys.map(|i| cluster.ask(follower, 1, large(&format!("key{i}")))).collect();
        cluster.run_ms(u64::from(round));
        cluster.restart(leader);
        for asked in asked {
            let reply = cluster.wait_for(asked);
            let may_be = is_stored(&reply) || error(&reply).0 == ErrorKind::Unknown;
            assert!(may_be, "{reply:?}");
        }
    }
    assert!(is_stored(&cluster.call(id(1), 1, large("last"))));
    cluster.run_ms(100);
    assert_agree(&mut cluster);
    assert!(memory(&cluster)[0] <= LIMIT_BYTES, "{:?}", memory(&cluster));
}

#[test]
fn only_keys_with_a_deadline_make_way_if_that_is_the_policy() {
    for policy in [
        EvictionPolicy::VolatileLru,
        EvictionPolicy::VolatileLfu,
        EvictionPolicy::VolatileRandom,
        EvictionPolicy::VolatileTtl,
    ] {
        let mut cluster = cluster(policy);
        let leader = cluster.leader().unwrap();
        for i in 0..500 {
            let expiry = Expiry::AfterMs(1_000_000 + 1000 * i);
            let value = "v".repeat(VALUE_BYTES);
            cluster.call(leader, 1, set_for(&format!("soon{i}"), &value, expiry));
        }
        // As many stay, and as many more have room if those go.
        let replies = fill(&mut cluster, leader, 0..900, 1);
        assert!(replies.iter().all(is_stored), "{policy:?}");
        let mut left = Vec::new();
        for i in 0..500 {
            if value(&cluster.call(leader, 1, get(&format!("soon{i}")))).is_some() {
                left.push(i);
            }
        }
        assert!((50..130).contains(&left.len()), "{policy:?}: {} are left", left.len());
        if policy == EvictionPolicy::VolatileTtl {
            let mean = left.iter().sum::<u64>() / left.len() as u64;
            assert!(mean > 400, "the latest are left: {left:?}");
        }
        // Nothing else may go.
        let replies = fill(&mut cluster, leader, 900..1200, 1);
        let refused = replies.iter().filter(|reply| !is_stored(reply));
        assert!(refused.clone().count() > 100, "{policy:?}");
        refused.for_each(|reply| assert_eq!(error(reply).0, ErrorKind::OutOfMemory));
        for i in 0..900 {
            let reply = cluster.call(leader, 1, get(&format!("key{i}")));
            assert!(value(&reply).is_some(), "{policy:?}: key{i} is gone");
        }
        assert_agree(&mut cluster);
    }
}

#[test]
fn what_is_used_stays() {
    for policy in [EvictionPolicy::AllKeysLru, EvictionPolicy::AllKeysLfu] {
        let mut cluster = cluster(policy);
        let leader = cluster.leader().unwrap();
        fill(&mut cluster, leader, 0..900, 10);
        for i in 900..3000 {
            // Fifty old ones, over and over, by a batch of time.
            let reply = cluster.call(leader, 1, get(&format!("key{}", i % 50)));
            assert!(value(&reply).is_some(), "{policy:?}: key{} is gone at {i}", i % 50);
            assert!(is_stored(&cluster.call(leader, 1, large(&format!("key{i}")))));
            cluster.run_ms(10);
        }
    }
}

/// [The key that was unused for longest is chosen, and is written before the entry
/// that deletes it: an acknowledged write would be gone at once.]
#[test]
fn what_was_written_since_it_was_chosen_stays() {
    let mut cluster = cluster(EvictionPolicy::AllKeysLru);
    let leader = cluster.leader().unwrap();
    let half = |c: &str| c.repeat(LIMIT_BYTES as usize * 6 / 10);
    assert!(is_stored(&cluster.call(leader, 1, set("old", &half("1")))));
    let again = cluster.ask(leader, 1, set("old", &half("2")));
    assert!(is_stored(&cluster.wait_for(again)), "itself is chosen to make way");
    cluster.run_ms(100);
    let now = value(&cluster.call(leader, 1, get("old")));
    assert!(now.is_some_and(|now| now.starts_with('2')));
    // What it was counted for is found again.
    assert!(is_stored(&cluster.call(leader, 1, set("new", &half("3")))));
    cluster.run_ms(100);
    assert_eq!(value(&cluster.call(leader, 1, get("old"))), None);
    assert_agree(&mut cluster);
}

/// A lower limit is not waited for until somebody writes.
#[test]
fn the_limit_may_be_lowered() {
    let mut cluster = cluster(EvictionPolicy::AllKeysLru);
    let leader = cluster.leader().unwrap();
    fill(&mut cluster, leader, 0..900, 10);
    let limit = MemoryLimit { bytes: LIMIT_BYTES / 4, eviction: EvictionPolicy::AllKeysRandom };
    cluster.input(leader, Input::Memory(limit));
    cluster.run_ms(100);
    assert!(memory(&cluster).iter().all(|&bytes| bytes <= limit.bytes), "{:?}", memory(&cluster));
    assert!(is_stored(&cluster.call(leader, 1, large("new"))));
    assert_agree(&mut cluster);
}

#[test]
fn what_never_fits_takes_nobodys_place() {
    let mut cluster = cluster(EvictionPolicy::AllKeysLru);
    let leader = cluster.leader().unwrap();
    fill(&mut cluster, leader, 0..900, 10);
    let reply = cluster.call(leader, 1, set("huge", &"v".repeat(LIMIT_BYTES as usize)));
    assert_eq!(error(&reply).0, ErrorKind::OutOfMemory);
    cluster.run_ms(100);
    assert_eq!(cluster.nodes[&leader].driver.replica().fsm().keys(), 900);
}

/// [What makes way in one turn is bounded: a large value was refused among small ones,
/// however often it was tried.]
#[test]
fn a_large_value_finds_room_among_many_small_ones() {
    let mut cluster = cluster(EvictionPolicy::AllKeysRandom);
    let leader = cluster.leader().unwrap();
    let asked: Vec<_> = (0..4000)
        .map(|i| cluster.ask(leader, i % 50, set(&format!("key{i}"), &"v".repeat(200))))
        .collect();
    for asked in asked {
        assert!(is_stored(&cluster.wait_for(asked)));
    }
    let large = cluster.ask(leader, 1, set("large", &"v".repeat(600 << 10)));
    // Others go on meanwhile.
    let small = cluster.ask(leader, 2, set("small", "v"));
    assert!(is_stored(&cluster.wait_for(large)));
    assert!(is_stored(&cluster.wait_for(small)));
    cluster.run_ms(100);
    assert!(memory(&cluster)[0] <= LIMIT_BYTES, "{:?}", memory(&cluster));
    assert_agree(&mut cluster);
}

/// [Each copy was taken to be as large as all before it together: a hundred of a few
/// bytes emptied the cache.]
#[test]
fn copies_take_nobodys_place_while_there_is_room() {
    let mut cluster = cluster(EvictionPolicy::AllKeysLru);
    let leader = cluster.leader().unwrap();
    fill(&mut cluster, leader, 0..500, 10);
    cluster.call(leader, 1, set("small", "v"));
    let asked: Vec<_> = (0..100)
        .map(|i| {
            let (from, to) = (Key::new("small"), Key::new(format!("copy{i}")));
            cluster.ask(leader, 1, Request::run(Command::Copy { from, to, replace: true }))
        })
        .collect();
    let replies = asked.into_iter().map(|asked| cluster.wait_for(asked));
    let copied = replies.filter(|reply| matches!(reply, Reply::Answers(_))).count() as u64;
    assert!(copied > 5, "{copied}");
    cluster.run_ms(100);
    assert_eq!(cluster.nodes[&leader].driver.replica().fsm().keys(), 501 + copied);
}

/// [A leader that is cut off chooses victims, and others replace the entries: what was
/// to go was counted as going for as long as it led again.]
#[test]
fn what_came_to_nothing_is_not_going_for_ever() {
    let mut cluster = cluster(EvictionPolicy::AllKeysLru);
    let old = cluster.leader().unwrap();
    fill(&mut cluster, old, 0..900, 10);
    let others: Vec<NodeId> = (1..=3).map(id).filter(|&other| other != old).collect();
    for &other in &others {
        cluster.cut.extend([(old, other), (other, old)]);
    }
    for i in 1000..1900 {
        cluster.ask(old, 2, large(&format!("key{i}")));
    }
    cluster.run_until("another leader", |cluster| cluster.leader() != Some(old));
    cluster.cut.clear();
    cluster.run_ms(1000);
    let to = Some(format!("node{}", old.0));
    let leader = cluster.leader().unwrap();
    assert_eq!(cluster.call(leader, 3, Request::Transfer { to }), Reply::Done);
    cluster.run_until("the old leader", |cluster| cluster.leader() == Some(old));
    let replies = fill(&mut cluster, old, 2000..2300, 1);
    assert!(replies.iter().all(is_stored));
    cluster.run_ms(100);
    assert!(memory(&cluster).iter().all(|&bytes| bytes <= LIMIT_BYTES), "{:?}", memory(&cluster));
    assert_agree(&mut cluster);
}

/// What is past its deadline goes by itself, and the place of nothing else is taken.
#[test]
fn the_memory_of_what_is_due_is_waited_for() {
    let mut cluster = cluster(EvictionPolicy::VolatileTtl);
    let leader = cluster.leader().unwrap();
    for i in 0..900 {
        let value = "v".repeat(VALUE_BYTES);
        cluster.ask(leader, 1, set_for(&format!("key{i}"), &value, Expiry::AfterMs(5000)));
    }
    cluster.run_ms(5000);
    let replies = fill(&mut cluster, leader, 1000..1900, 100);
    assert!(replies.iter().all(is_stored));
    let evicted = cluster.nodes[&leader].driver.replica().counts().evicted;
    assert_eq!(evicted, 0, "all had gone, or were about to");
}
