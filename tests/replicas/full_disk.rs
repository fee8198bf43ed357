//! Disks without room.

use crate::agreement::restart_flipped;
use crate::cluster::{Cluster, id, third};
use crate::{error, get, is_stored, set, set_for, value};
use raftcache::raft::{NodeId, Payload};
use raftcache::request::{ErrorKind, Expiry, Reply, Request};

fn fill(cluster: &mut Cluster, node: u128, room_bytes: u64) {
    cluster.nodes.get_mut(&id(node)).expect("it runs").set_room(room_bytes);
    cluster.run_ms(100);
}

/// Everybody but the leader.
fn followers(cluster: &Cluster) -> Vec<NodeId> {
    let leader = cluster.leader();
    cluster.nodes.keys().copied().filter(|&node| Some(node) != leader).collect()
}

/// Before it hears that these are full, the leader takes more than they do.
fn overfill(cluster: &mut Cluster, full: &[NodeId]) {
    let leader = cluster.leader().expect("one leads");
    full.iter().for_each(|node| cluster.nodes.get_mut(node).expect("it runs").set_room(3000));
    for n in 0..20 {
        cluster.ask(leader, n, set("k", &"x".repeat(1000)));
    }
    cluster.run_ms(1000);
}

/// As many have the same room as before.
fn restart(cluster: &mut Cluster, nodes: &[NodeId]) {
    for &node in nodes {
        let room_bytes = cluster.nodes[&node].room_bytes;
        cluster.restart(node);
        cluster.nodes.get_mut(&node).expect("it runs").set_room(room_bytes);
    }
}

fn term(cluster: &Cluster, node: NodeId) -> u64 {
    cluster.nodes[&node].driver.replica().raft().term().0
}

fn waits_to_be_committed(cluster: &Cluster, node: NodeId) -> bool {
    let raft = cluster.nodes[&node].driver.replica().raft();
    raft.commit() < raft.last().index
}

/// Who stores, acknowledges and leads, with one disk full.
#[test]
fn a_leader_without_room_hands_over_and_nobody_is_refused() {
    let mut cluster = Cluster::new(3);
    cluster.run_ms(100);
    let leader = cluster.leader().expect("one leads");
    cluster.nodes.get_mut(&leader).expect("it runs").set_room(1000);
    let at_once = cluster.ask(leader, 3, set("k", "in the same turn"));
    assert!(is_stored(&cluster.wait_for(at_once)));
    for round in 0..200 {
        for node in 1..=3 {
            let asked = cluster.ask(id(node), 1, set("k", &round.to_string()));
            assert!(is_stored(&cluster.wait_for(asked)), "round {round} at {node}");
            let reply = cluster.call(id(node), 2, get("k"));
            assert_eq!(value(&reply), Some(round.to_string()), "at {node}");
        }
    }
    let successor = cluster.leader().expect("one leads");
    assert_ne!(successor, leader);
    // What it had left was not used up by what others have room for.
    let full = &cluster.nodes[&leader];
    assert!(full.room_bytes > 500, "{}", full.room_bytes);
    cluster.nodes.get_mut(&leader).expect("it runs").set_room(u64::MAX);
    cluster.run_until("it has caught up", |cluster| {
        let applied = |node| cluster.nodes[&node].driver.replica().fsm().applied();
        applied(leader) == applied(successor)
    });
}

/// Not by a request for it either.
#[test]
fn leadership_goes_to_nobody_without_room() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().expect("one leads");
    let full = cluster.follower();
    fill(&mut cluster, full.0, 1000);
    let name = Some(format!("node{}", full.0));
    let reply = cluster.call(leader, 1, Request::Transfer { to: name });
    assert!(matches!(reply, Reply::Error(..)), "{reply:?}");
    assert!(matches!(cluster.call(leader, 1, Request::Transfer { to: None }), Reply::Done));
    let next = cluster.leader().expect("one leads");
    assert!(next != full && next != leader, "{next} leads");
}

/// Two of three are full: writes are refused as surely not executed, at every
/// node, and keys still end in time: that takes little room.
#[test]
fn without_room_on_a_majority_writes_are_refused_and_reads_go_on() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().expect("one leads");
    for n in 0..100 {
        let short = set_for(&format!("short{n}"), "v", Expiry::AfterMs(500 + 15 * n));
        assert!(is_stored(&cluster.call(leader, 1, short)));
    }
    assert!(is_stored(&cluster.call(leader, 1, set("k", "before"))));
    let others: Vec<_> = (1..=3).map(id).filter(|&node| node != leader).collect();
    others.iter().for_each(|node| fill(&mut cluster, node.0, 2000));
    for node in 1..=3 {
        let reply = cluster.call(id(node), 1, set("k", "after"));
        assert_eq!(error(&reply).0, ErrorKind::DiskFull, "at {node}: {reply:?}");
        assert_eq!(value(&cluster.call(id(node), 1, get("k"))).as_deref(), Some("before"));
    }
    cluster.run_ms(4000);
    for other in &others {
        assert!(cluster.nodes[other].room_bytes > 1500, "ticks take little");
    }
    for node in 1..=3 {
        assert_eq!(value(&cluster.call(id(node), 1, get("short99"))), None, "at {node}");
        assert_eq!(cluster.nodes[&id(node)].driver.replica().fsm().keys(), 1, "at {node}");
    }
    fill(&mut cluster, others[0].0, u64::MAX);
    assert!(is_stored(&cluster.call(leader, 1, set("k", "after"))));
}

/// Full ones do not hand leadership to each other without end, nor, as long as
/// most are full, to one with room: it could take in what they cannot. Their
/// no-ops use up next to nothing.
#[test]
fn leadership_does_not_go_round_among_full_disks() {
    for (count, full) in [(3, 2), (5, 3)] {
        let mut cluster = Cluster::new(count);
        cluster.run_ms(100);
        let leader = cluster.leader().expect("one leads");
        let others: Vec<_> = (1..=count).map(id).filter(|&node| node != leader).collect();
        others[..full].iter().for_each(|node| fill(&mut cluster, node.0, 2000));
        cluster.kill(leader);
        cluster.paused.extend(&others[full..]);
        cluster.run_until("a full leader", |cluster| cluster.leader().is_some());
        cluster.paused.clear();
        let leads = cluster.leader().expect("one leads");
        // It does not know yet who is full, and hears first who is not.
        let others_full = || others[..full].iter().filter(|&&node| node != leads);
        cluster.cut.extend(others_full().map(|&node| (node, leads)));
        cluster.run_ms(100);
        cluster.cut.clear();
        cluster.run_ms(3000);
        assert_eq!(cluster.leader(), Some(leads), "of {count} nodes");
        assert!(term(&cluster, leads) < 10, "of {count} nodes");
        let reply = cluster.call(others[0], 1, get("k"));
        assert_eq!(value(&reply), None, "reads go on");
    }
}

/// What is kept back suffices for a new leader's first entry, so that reads go
/// on even when there is no room at all for anything else.
#[test]
fn a_new_leaders_first_entry_finds_room() {
    let mut cluster = Cluster::new(3);
    cluster.run_ms(100);
    let leader = cluster.leader().expect("one leads");
    let others: Vec<_> = (1..=3).map(id).filter(|&node| node != leader).collect();
    others.iter().for_each(|node| fill(&mut cluster, node.0, 0));
    cluster.restart(leader);
    for node in 1..=3 {
        assert_eq!(value(&cluster.call(id(node), 1, get("k"))), None, "at {node}");
    }
}

/// A read that is at a leader which is gone is asked again, unless a write of its
/// connection is behind it: that may have taken effect.
#[test]
fn a_read_is_asked_again_and_overtakes_nothing() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().expect("one leads");
    assert!(is_stored(&cluster.call(leader, 1, set("k", "old"))));
    let reader = cluster.follower();
    fill(&mut cluster, reader.0, 10_000);
    cluster.cut.insert((leader, reader));
    let again = cluster.ask(reader, 8, get("k"));
    let overtaken = cluster.ask(reader, 9, get("k"));
    let write = cluster.ask(reader, 9, set("k", "new"));
    cluster.run_ms(20);
    cluster.kill(leader);
    let reply = cluster.wait_for(again);
    assert!(matches!(value(&reply).as_deref(), Some("old" | "new")), "{reply:?}");
    assert_eq!(error(&cluster.wait_for(write)).0, ErrorKind::Unknown);
    assert_eq!(error(&cluster.wait_for(overtaken)).0, ErrorKind::NoLeader);
    assert_eq!(value(&cluster.call(reader, 9, get("k"))).as_deref(), Some("new"));
}

/// A leader whose state is in doubt hands over to a full one rather than to none.
#[test]
fn to_serve_reads_is_better_than_to_serve_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.may_fault = true;
    let leader = cluster.leader().expect("one leads");
    assert!(is_stored(&cluster.call(leader, 1, set("precious", "right"))));
    let wrong = cluster.follower();
    cluster.run_ms(100);
    restart_flipped(&mut cluster, wrong);
    cluster.run_ms(100);
    let third = third(leader, wrong);
    for node in [third, leader] {
        cluster.nodes.get_mut(&node).expect("it runs").set_room(100_000);
        cluster.run_ms(100);
    }
    // Only the wrong one has room, so it leads, is found out, and hands over.
    cluster.run_until("it is mended", |cluster| cluster.nodes[&wrong].files.received == 1);
    let reply = cluster.call(leader, 2, get("precious"));
    assert_eq!(value(&reply).as_deref(), Some("right"));
}

/// One is full, and of the two with room one does not get on: what is kept back
/// at the full one is for that.
#[test]
fn a_full_node_is_needed_when_another_one_stands_still() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().expect("one leads");
    let others: Vec<_> = (1..=3).map(id).filter(|&node| node != leader).collect();
    fill(&mut cluster, others[0].0, 10_000);
    assert!(is_stored(&cluster.call(leader, 1, set("k", "v"))));
    assert_eq!(cluster.nodes[&others[0]].room_bytes, 10_000, "it is not needed");
    cluster.stuck.insert(others[1]);
    assert!(is_stored(&cluster.call(leader, 1, set("k", "w"))));
    assert!(cluster.nodes[&others[0]].room_bytes < 10_000);
}

/// However much a leader sends before it knows, terms and votes find room: the
/// nodes elect another leader when it is gone.
#[test]
fn entries_leave_room_for_votes() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().expect("one leads");
    let others: Vec<_> = (1..=3).map(id).filter(|&node| node != leader).collect();
    cluster.run_ms(100);
    // All of it before the leader is told, one message after the other.
    for other in &others {
        cluster.nodes.get_mut(other).expect("it runs").set_room(3000);
        cluster.cut.insert((*other, leader));
    }
    let large = "x".repeat(1000);
    cluster.stuck.extend(&others);
    for n in 0..20 {
        cluster.ask(leader, n, set("k", &large));
        cluster.run_ms(1);
    }
    cluster.stuck.clear();
    cluster.run_ms(50);
    let stored = cluster.nodes[&others[0]].journal_entries();
    let commands = |payload: &&Payload| matches!(payload, Payload::Command(_));
    assert_eq!(stored.iter().map(|entry| &entry.payload).filter(commands).count(), 2);
    cluster.kill(leader);
    cluster.run_until("another leader", |cluster| {
        cluster.leader().is_some_and(|leads| leads != leader)
    });
}

/// Most have room again, and so does one that could lead.
#[test]
fn a_full_leader_hands_over_once_that_is_of_use() {
    let mut cluster = Cluster::new(3);
    let with_room = cluster.leader().expect("one leads");
    followers(&cluster).iter().for_each(|node| fill(&mut cluster, node.0, 2000));
    let journal = cluster.kill(with_room);
    cluster.run_until("another leader", |cluster| cluster.leader().is_some());
    cluster.start(with_room.0, journal);
    cluster.run_ms(3000);
    let leader = cluster.leader().expect("one leads");
    assert_ne!(leader, with_room);
    let third = followers(&cluster).into_iter().find(|&node| node != with_room).expect("a third");
    fill(&mut cluster, third.0, u64::MAX);
    cluster.run_until("one with room leads", |cluster| cluster.leader() != Some(leader));
    cluster.run_ms(100);
    assert!(is_stored(&cluster.call(with_room, 1, set("k", "after"))));
}

/// If a leader has to begin again with what full disks have no room for, its
/// no-op stands behind that. It lets one of them lead.
#[test]
fn reads_go_on_though_a_new_leader_holds_more_than_full_disks_take() {
    for (count, full) in [(3, 2), (5, 3)] {
        let mut cluster = Cluster::new(count);
        cluster.run_ms(100);
        let others = followers(&cluster);
        overfill(&mut cluster, &others[..full]);
        for round in 0..10 {
            cluster.run_ms(37 * round);
            let all: Vec<_> = cluster.nodes.keys().copied().collect();
            restart(&mut cluster, &all);
            cluster.run_ms(5000);
            let reply = cluster.call(others[0], 30, get("k"));
            assert!(matches!(reply, Reply::Answers(_)), "{count}, round {round}: {reply:?}");
        }
    }
}

/// So does one that leads already: that a key has ended is an entry too, and
/// finds room where clients' writes do not. This does not happen over and over,
/// however much clients write.
#[test]
fn keys_end_though_the_leader_holds_more_than_full_disks_take() {
    let mut cluster = Cluster::new(3);
    cluster.run_ms(100);
    let others = followers(&cluster);
    let short = set_for("short", "v", Expiry::AfterMs(3000));
    assert!(is_stored(&cluster.call(others[0], 1, short)));
    overfill(&mut cluster, &others);
    for n in 0..20_000 {
        let node = id(1 + n % 3);
        cluster.ask(node, n as u64, set("k", &"x".repeat(1000)));
        cluster.run_ms(1);
    }
    for node in 1..=3 {
        let reply = cluster.call(id(node), 30_000, get("short"));
        assert_eq!(value(&reply), None, "at {node}: {reply:?}");
        assert!(term(&cluster, id(node)) < 6, "term {}", term(&cluster, id(node)));
    }
}

/// One of the full ones is gone, so the other cannot do without the leader.
#[test]
fn a_leader_that_is_needed_leads_on_until_there_is_room() {
    let mut cluster = Cluster::new(3);
    cluster.run_ms(100);
    let leader = cluster.leader().expect("one leads");
    let others = followers(&cluster);
    cluster.kill(others[1]);
    overfill(&mut cluster, &others[..1]);
    let began = term(&cluster, leader);
    cluster.run_ms(20_000);
    assert_eq!((cluster.leader(), term(&cluster, leader)), (Some(leader), began));
    // What there was no room for is sent again soon, however long that was.
    assert!(waits_to_be_committed(&cluster, leader));
    fill(&mut cluster, others[0].0, u64::MAX);
    cluster.run_ms(500);
    assert!(!waits_to_be_committed(&cluster, leader));
}

/// The full ones do not reach each other: trying again and again takes some of
/// what they have kept back each time.
#[test]
fn leaders_do_not_come_and_go_without_end() {
    let mut cluster = Cluster::new(3);
    cluster.run_ms(100);
    let leader = cluster.leader().expect("one leads");
    let others = followers(&cluster);
    cluster.cut.extend([(others[0], others[1]), (others[1], others[0])]);
    overfill(&mut cluster, &others);
    let began = term(&cluster, leader);
    cluster.run_ms(60_000);
    let terms = term(&cluster, leader) - began;
    assert!((2..10).contains(&terms), "{terms} terms");
    cluster.cut.clear();
    cluster.run_ms(120_000);
    assert!(matches!(cluster.call(leader, 30, get("k")), Reply::Answers(_)));
    // That worked out, so the next time it does not take long.
    others.iter().for_each(|node| fill(&mut cluster, node.0, u64::MAX));
    let name = Some(format!("node{}", leader.0));
    assert!(matches!(cluster.call(others[0], 31, Request::Transfer { to: name }), Reply::Done));
    cluster.run_ms(1000);
    assert_eq!(cluster.leader(), Some(leader));
    overfill(&mut cluster, &others);
    cluster.run_ms(5000);
    assert_ne!(cluster.leader(), Some(leader));
}

/// Its disk has lost something: it may not know what the leader has committed, so
/// nothing is left to it.
#[test]
fn a_leader_does_not_step_back_for_a_disk_that_was_rolled_back() {
    let mut cluster = Cluster::new(3);
    cluster.run_ms(100);
    let leader = cluster.leader().expect("one leads");
    let others = followers(&cluster);
    overfill(&mut cluster, &others);
    let began = term(&cluster, leader);
    cluster.restart_changed(others[0], |journal| drop(journal.entries.pop()));
    cluster.nodes.get_mut(&others[0]).expect("it runs").set_room(0);
    cluster.run_ms(10_000);
    assert_eq!((cluster.leader(), term(&cluster, leader)), (Some(leader), began));
}

/// Something always waits, but not for room.
#[test]
fn a_leader_that_gets_on_leads_on() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().expect("one leads");
    let others = followers(&cluster);
    let began = term(&cluster, leader);
    for n in 0..2200 {
        cluster.ask(leader, n, set("k", "v"));
        cluster.run_ms(1);
        assert!(!(5..2000).contains(&n) || waits_to_be_committed(&cluster, leader));
        if n == 2000 {
            let full = |node| cluster.nodes.get_mut(&node).expect("it runs").set_room(100_000);
            others.iter().copied().for_each(full);
        }
    }
    cluster.run_ms(3000);
    assert_eq!((cluster.leader(), term(&cluster, leader)), (Some(leader), began));
}
