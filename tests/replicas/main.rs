//! Replicas together: forwarding, order, outcomes, log time, joining, leaving.
//! No sockets and no disks; every millisecond is the test's own.

#![expect(clippy::unwrap_used, reason = "a test ends where a step fails")]

mod agreement;
mod chaos;
mod cluster;
mod eviction;
mod failures;
mod files;
mod full_disk;
mod members;
mod turns;
mod waits;

use cluster::{CLUSTER, Cluster, id};
use raftcache::raft::{ReadMode, Recovered};
use raftcache::replica::{Input, Peer};
use raftcache::request::{
    Answer, Batch, Command, Condition, Consistency, ErrorKind, Expiry, Item, Key, Reply, Request,
    Ttl,
};

fn set(key: &str, value: &str) -> Request {
    set_for(key, value, Expiry::Never)
}

fn set_for(key: &str, value: &str, expiry: Expiry) -> Request {
    let (key, value) = (Key::new(key.to_owned()), value.to_owned().into());
    Request::run(Command::Set { key, value, expiry, condition: Condition::Always })
}

fn get(key: &str) -> Request {
    Request::run(Command::Get(Key::new(key.to_owned())))
}

fn stale(key: &str) -> Request {
    let batch = Batch::of(Command::Get(Key::new(key.to_owned())));
    Request::Run { batch, consistency: Consistency::Stale, session: None }
}

fn increment(key: &str) -> Request {
    Request::run(Command::Increment { key: Key::new(key.to_owned()), by: 1 })
}

/// The value in a reply to a get; `None` if the key is absent.
fn value(reply: &Reply) -> Option<String> {
    match reply {
        Reply::Answers(answers) => match &answers[..] {
            [Answer::Item(item)] => {
                item.as_ref().map(|Item { value, .. }| String::from_utf8(value.to_vec()).unwrap())
            }
            other => panic!("no value: {other:?}"),
        },
        other => panic!("no value: {other:?}"),
    }
}

fn is_stored(reply: &Reply) -> bool {
    matches!(reply, Reply::Answers(answers) if matches!(answers[..], [Answer::Stored { .. }]))
}

fn error(reply: &Reply) -> (ErrorKind, &str) {
    match reply {
        Reply::Error(kind, reason) => (*kind, reason),
        other => panic!("no error: {other:?}"),
    }
}

fn members(cluster: &mut Cluster) -> String {
    let leader = cluster.leader().unwrap();
    let Reply::Members(members) = cluster.call(leader, 99, Request::Members) else { panic!() };
    let show = |m: &raftcache::request::MemberInfo| {
        format!("{}{}", m.name, if m.voter { "" } else { "+" })
    };
    members.iter().map(show).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_node_takes_writes_and_every_node_reads_them_at_once() {
    let mut cluster = Cluster::new(3);
    for writer in 1..=3 {
        let written = format!("by {writer}");
        assert!(is_stored(&cluster.call(id(writer), 1, set("k", &written))));
        for reader in 1..=3 {
            let reply = cluster.call(id(reader), 2, get("k"));
            assert_eq!(value(&reply).as_deref(), Some(written.as_str()), "read at {reader}");
        }
    }
}

/// RedisRaft once let a proxied command enter the log over and over.
#[test]
fn an_increment_through_a_follower_adds_exactly_one() {
    let mut cluster = Cluster::new(3);
    let follower = cluster.follower();
    for expected in 1..=20 {
        let reply = cluster.call(follower, 1, increment("n"));
        assert_eq!(reply, Reply::Answers(vec![Answer::Integer(expected)]));
    }
}

#[test]
fn a_pipeline_takes_effect_in_order_on_every_node_and_in_every_mode() {
    for mode in [ReadMode::Lease, ReadMode::ReadIndex] {
        let mut cluster = Cluster::with_read_mode(3, mode);
        for node in [cluster.leader().unwrap(), cluster.follower()] {
            cluster.call(node, 1, set("k", "0"));
            let mut asked = Vec::new();
            for round in 1..=50 {
                asked.push((cluster.ask(node, 1, get("k")), round - 1));
                cluster.ask(node, 1, set("k", &round.to_string()));
                asked.push((cluster.ask(node, 1, get("k")), round));
                if round % 7 == 0 {
                    cluster.run_ms(1);
                }
            }
            for (asked, expected) in asked {
                let reply = cluster.wait_for(asked);
                assert_eq!(value(&reply), Some(expected.to_string()), "{mode:?} at {node}");
            }
        }
    }
}

#[test]
fn a_stale_read_on_a_follower_sees_its_connections_own_write() {
    let mut cluster = Cluster::new(3);
    let follower = cluster.follower();
    for round in 0..20 {
        let written = round.to_string();
        assert!(is_stored(&cluster.call(follower, 1, set("k", &written))));
        let reply = cluster.call(follower, 1, stale("k"));
        assert_eq!(value(&reply), Some(written));
    }
}

#[test]
fn without_a_majority_nothing_is_claimed_and_everything_is_answered() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    for node in 1..=3 {
        if id(node) != leader {
            cluster.kill(id(node));
        }
    }
    let write = cluster.ask(leader, 1, set("k", "v"));
    cluster.run_ms(1500);
    let late = cluster.ask(leader, 2, set("k", "w"));
    let read = cluster.ask(leader, 3, get("k"));
    let reply = cluster.wait_for(write);
    assert_eq!(error(&reply).0, ErrorKind::Unknown, "it is in a log that may yet win");
    let reply = cluster.wait_for(late);
    assert_eq!(error(&reply).0, ErrorKind::NoLeader, "it never began");
    let reply = cluster.wait_for(read);
    assert_eq!(error(&reply).0, ErrorKind::NoLeader);
}

#[test]
fn a_write_forwarded_to_a_leader_that_dies_is_unknown_once_another_leads() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    cluster.stuck.extend([id(1), id(2), id(3)]);
    let asked = cluster.ask(follower, 1, set("k", "v"));
    cluster.run_ms(20);
    cluster.stuck.clear();
    cluster.kill(leader);
    let before = cluster.now_ms;
    let reply = cluster.wait_for(asked);
    assert_eq!(error(&reply).0, ErrorKind::Unknown);
    assert!(cluster.now_ms - before < 3000, "as soon as another leads, not at the timeout");
}

#[test]
fn a_write_at_a_leader_that_is_cut_off_is_surely_not_applied_once_replaced() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    for node in 1..=3 {
        cluster.cut.insert((leader, id(node)));
    }
    let asked = cluster.ask(leader, 1, set("k", "lost"));
    cluster.run_until("another leader", |cluster| cluster.leader() != Some(leader));
    cluster.cut.clear();
    let reply = cluster.wait_for(asked);
    assert_eq!(error(&reply).0, ErrorKind::NoLeader, "another entry took its place");
    assert_eq!(value(&cluster.call(leader, 2, get("k"))), None);
}

#[test]
fn a_cut_off_leader_does_not_answer_reads_from_the_past() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    cluster.call(leader, 1, set("k", "old"));
    for node in 1..=3 {
        cluster.cut.insert((leader, id(node)));
        cluster.cut.insert((id(node), leader));
    }
    cluster.run_until("another leader", |cluster| cluster.leader() != Some(leader));
    let other = cluster.leader().unwrap();
    assert!(is_stored(&cluster.call(other, 1, set("k", "new"))));
    let asked = cluster.ask(leader, 2, get("k"));
    cluster.run_ms(200);
    assert_eq!(cluster.reply(asked), None);
    cluster.cut.clear();
    assert_eq!(value(&cluster.wait_for(asked)).as_deref(), Some("new"));
}

#[test]
fn a_handover_loses_no_request() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    let mut asked = Vec::new();
    asked.push(cluster.ask(leader, 50, Request::Transfer { to: None }));
    for round in 0..100 {
        for node in 1..=3 {
            asked.push(cluster.ask(id(node), node as u64, increment("n")));
        }
        if round % 3 == 0 {
            cluster.run_ms(1);
        }
    }
    for asked in asked {
        let reply = cluster.wait_for(asked);
        assert!(!matches!(reply, Reply::Error(..)), "{reply:?}");
    }
    assert_ne!(cluster.leader(), Some(leader));
    assert_eq!(value(&cluster.call(leader, 9, get("n"))).as_deref(), Some("300"));
}

#[test]
fn a_leader_that_is_to_stop_hands_over_first() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    let writes: Vec<_> = (0..10).map(|n| cluster.ask(leader, n, increment("n"))).collect();
    cluster.input(leader, Input::Stop);
    let late = cluster.ask(leader, 20, increment("n"));
    cluster.run_until("the end", |cluster| cluster.nodes[&leader].drained);
    assert_ne!(cluster.leader(), Some(leader));
    for asked in writes.into_iter().chain([late]) {
        let reply = cluster.wait_for(asked);
        assert!(!matches!(reply, Reply::Error(..)), "{reply:?}");
    }
}

#[test]
fn the_only_node_stops_by_itself() {
    let mut cluster = Cluster::new(1);
    let asked = cluster.ask(id(1), 1, set("k", "v"));
    cluster.input(id(1), Input::Stop);
    cluster.run_until("the end", |cluster| cluster.nodes[&id(1)].drained);
    assert!(is_stored(&cluster.wait_for(asked)), "it was taken in before");
    let late = cluster.call(id(1), 1, set("k", "w"));
    assert_eq!(error(&late).0, ErrorKind::NoLeader);
}

#[test]
fn a_key_is_gone_at_its_deadline_on_every_node_and_stays_gone() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    cluster.call(leader, 1, set_for("other", "v", Expiry::AfterMs(100_000)));
    let asked_at = cluster.now_ms;
    cluster.call(leader, 1, set_for("k", "v", Expiry::AfterMs(1000)));
    let set_at = cluster.now_ms;
    let mut gone = false;
    // Most of it is idle time; around the deadline every millisecond counts.
    while cluster.now_ms < set_at + 1200 {
        for node in 1..=3 {
            let begun = cluster.now_ms;
            let present = value(&cluster.call(id(node), 2, get("k"))).is_some();
            assert!(!(gone && present), "it came back on {node}");
            assert!(!present || begun <= set_at + 1001, "seen late on {node}");
            assert!(present || cluster.now_ms >= asked_at + 1000, "gone early on {node}");
            gone |= !present;
        }
        let is_near = (set_at + 950..set_at + 1100).contains(&cluster.now_ms);
        cluster.run_ms(if is_near { 1 } else { 20 });
    }
    assert!(gone);
    for node in cluster.nodes.values() {
        assert_eq!(node.driver.replica().fsm().keys(), 1, "removed, not only hidden");
    }
}

#[test]
fn a_deadline_survives_failover_and_a_restart_of_all() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    cluster.call(leader, 1, set_for("k", "v", Expiry::AfterMs(10_000)));
    let set_at = cluster.now_ms;
    let journal = cluster.kill(leader);
    cluster.run_until("another leader", |cluster| cluster.leader().is_some());
    cluster.start(leader.0, journal);
    let other = cluster.leader().unwrap();
    let ttl = Request::run(Command::Ttl(Key::new("k")));
    let left = |reply: Reply| match reply {
        Reply::Answers(answers) => match answers[..] {
            [Answer::Ttl(Ttl::Ms(ms))] => ms,
            _ => panic!("no ttl: {answers:?}"),
        },
        other => panic!("no ttl: {other:?}"),
    };
    let expected = 10_000 - (cluster.now_ms - set_at);
    let said = left(cluster.call(other, 1, ttl.clone()));
    assert!(said.abs_diff(expected) < 100, "{said} and {expected}");
    // All at once: nobody has an estimate left, and wall clocks decide.
    let journals: Vec<Recovered> = (1..=3).map(|n| cluster.kill(id(n))).collect();
    for (n, journal) in journals.into_iter().enumerate() {
        cluster.start(n as u128 + 1, journal);
    }
    cluster.run_until("a leader", |cluster| cluster.leader().is_some());
    let leader = cluster.leader().unwrap();
    let said = left(cluster.call(leader, 1, ttl));
    let expected = 10_000 - (cluster.now_ms - set_at);
    assert!(said.abs_diff(expected) < 100, "{said} and {expected}");
    cluster.run_until("its end", |cluster| cluster.now_ms > set_at + 10_100);
    assert_eq!(value(&cluster.call(leader, 1, get("k"))), None);
}

#[test]
fn a_newcomer_is_found_taught_and_promoted_without_being_asked() {
    let mut cluster = Cluster::new(1);
    for n in 0..50 {
        cluster.call(id(1), 1, set(&format!("k{n}"), "v"));
    }
    for newcomer in 2..=4 {
        cluster.start_newcomer(newcomer);
        let via = id(newcomer - 1);
        let (name, peer_address) = (format!("node{newcomer}"), format!("peer{newcomer}"));
        let join = Request::Join { name, peer_address };
        assert_eq!(cluster.call(via, 1, join.clone()), Reply::Done, "asked of any member");
        cluster.run_until("its vote", |cluster| {
            cluster.nodes[&id(1)].driver.replica().raft().membership().is_voter(id(newcomer))
        });
        assert_eq!(cluster.call(via, 1, join), Reply::Done, "asked twice is asked once");
    }
    assert_eq!(members(&mut cluster), "node1 node2 node3 node4");
    assert_eq!(value(&cluster.call(id(4), 1, get("k49"))).as_deref(), Some("v"));
}

#[test]
fn who_cannot_be_reached_or_is_somebody_else_does_not_become_a_member() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    let join = |name: &str, peer_address: &str| {
        let (name, peer_address) = (name.to_owned(), peer_address.to_owned());
        Request::Join { name, peer_address }
    };
    let reply = cluster.call(leader, 1, join("node9", "nowhere"));
    assert_eq!(error(&reply), (ErrorKind::Refused, "cannot reach nowhere"));
    let peer = |node: u128, name: &str, cluster: Option<u128>, rebuild: bool| Peer {
        node: id(node),
        cluster: cluster.map(raftcache::raft::ClusterId),
        name: name.to_owned(),
        client_address: "client".to_owned(),
        rebuild,
        member: false,
    };
    cluster.found.insert("other".into(), peer(8, "node8", Some(1234), false));
    let reply = cluster.call(leader, 1, join("node8", "other"));
    assert!(error(&reply).1.contains("another cluster"), "{reply:?}");
    cluster.found.insert("namesake".into(), peer(9, "node1", None, false));
    let reply = cluster.call(leader, 1, join("node1", "namesake"));
    assert!(error(&reply).1.contains("is alive"), "{reply:?}");
    let reply = cluster.call(leader, 1, join("node7", "namesake"));
    assert!(error(&reply).1.contains("is called"), "{reply:?}");
    let removed = Peer { member: true, ..peer(8, "node8", Some(CLUSTER.0), false) };
    cluster.found.insert("removed".into(), removed);
    let reply = cluster.call(leader, 1, join("node8", "removed"));
    assert!(error(&reply).1.contains("was removed"), "{reply:?}");
    assert_eq!(members(&mut cluster), "node1 node2 node3");
}

/// An empty disk under an old name must not vote for the old disk.
#[test]
fn a_lost_disk_comes_back_as_somebody_else() {
    let mut cluster = Cluster::new(3);
    let lost = cluster.follower();
    cluster.kill(lost);
    let new = lost.0 + 10;
    cluster.start_newcomer(new);
    let peer_address = format!("peer{new}");
    let found = cluster.found.get_mut(&peer_address).unwrap();
    found.name = format!("node{}", lost.0);
    let name = found.name.clone();
    cluster.run_ms(1000);
    let leader = cluster.leader().unwrap();
    assert_eq!(cluster.call(leader, 1, Request::Join { name, peer_address }), Reply::Done);
    cluster.run_until("its vote", |cluster| {
        let membership = cluster.nodes[&leader].driver.replica().raft().membership();
        membership.is_voter(id(new)) && !membership.contains(lost)
    });
    assert_eq!(members(&mut cluster), "node1 node2 node3");
}

#[test]
fn a_member_leaves_for_good_and_hears_of_it_the_leader_too() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    let leave = |node: raftcache::raft::NodeId| Request::Leave { name: format!("node{}", node.0) };
    assert_eq!(cluster.call(leader, 1, leave(leader)), Reply::Done);
    cluster.run_until("its end", |cluster| cluster.nodes[&leader].removed);
    cluster.kill(leader);
    let other = cluster.leader().unwrap();
    let reply = cluster.call(other, 1, leave(leader));
    assert_eq!(error(&reply).0, ErrorKind::Refused, "nobody is called that now");
    assert!(is_stored(&cluster.call(follower, 1, set("k", "v"))), "two of two go on");
    assert_eq!(cluster.nodes.len(), 2);
    let last = if other == follower { cluster.follower() } else { follower };
    assert_eq!(cluster.call(other, 1, leave(last)), Reply::Done);
    assert!(is_stored(&cluster.call(other, 1, set("k", "w"))), "one of one goes on");
    let reply = cluster.call(other, 1, leave(other));
    assert!(error(&reply).1.contains("last voter"), "{reply:?}");
}

#[test]
fn a_removal_that_would_leave_no_live_majority_is_refused() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    let dead = cluster.follower();
    cluster.kill(dead);
    cluster.run_ms(2000);
    let alive = *cluster.nodes.keys().find(|&&node| node != leader).unwrap();
    let leave = Request::Leave { name: format!("node{}", alive.0) };
    let reply = cluster.call(leader, 1, leave);
    assert_eq!(error(&reply).0, ErrorKind::Refused, "{reply:?}");
    let leave = Request::Leave { name: format!("node{}", dead.0) };
    assert_eq!(cluster.call(leader, 1, leave), Reply::Done, "the dead one may go");
}

#[test]
fn leadership_goes_where_it_is_sent() {
    let mut cluster = Cluster::new(3);
    for node in [3, 1, 2] {
        let to = Some(format!("node{node}"));
        let follower = cluster.follower();
        assert_eq!(cluster.call(follower, 1, Request::Transfer { to }), Reply::Done);
        cluster.run_until("its term", |cluster| cluster.leader() == Some(id(node)));
    }
    let reply = cluster.call(id(1), 1, Request::Transfer { to: Some("nobody".into()) });
    assert_eq!(error(&reply).0, ErrorKind::Refused);
}

/// A cluster whose nodes take snapshots all the time and keep nothing else.
fn forgetful(count: u128) -> Cluster {
    forgetting_after(count, 5000)
}

fn forgetting_after(count: u128, snapshot_log_bytes: u64) -> Cluster {
    let mut cluster = Cluster::new(count);
    cluster.snapshot_log_bytes = snapshot_log_bytes;
    for node in 1..=count {
        cluster.restart(id(node));
    }
    cluster.run_until("a leader", |cluster| cluster.leader().is_some());
    cluster
}

/// Equal states at equal positions, on every node.
fn all_agree(cluster: &mut Cluster) {
    let position = |cluster: &Cluster| -> Vec<u64> {
        cluster.nodes.values().map(|node| node.driver.replica().fsm().applied()).collect()
    };
    cluster.run_until("all to be level", |cluster| {
        position(cluster).windows(2).all(|pair| pair[0] == pair[1])
    });
    let hashes = cluster.nodes.values().map(|node| node.driver.replica().fsm().contents_hash());
    let hashes: std::collections::BTreeSet<u64> = hashes.collect();
    assert_eq!(hashes.len(), 1, "states differ");
}

#[test]
fn who_was_away_too_long_goes_on_from_a_snapshot_while_writes_go_on() {
    let mut cluster = forgetful(3);
    let leader = cluster.leader().unwrap();
    let away = cluster.follower();
    let files = cluster.take_files(away);
    let journal = cluster.kill(away);
    for n in 0..300 {
        cluster.call(leader, 1, set(&format!("k{}", n % 100), &format!("value {n}")));
    }
    cluster.call(leader, 1, set_for("brief", "v", Expiry::AfterMs(60_000)));
    cluster.start_with(away.0, journal, files);
    let mut reads = Vec::new();
    for n in 0..300 {
        cluster.ask(leader, 1, set(&format!("l{n}"), "v"));
        reads.push(cluster.ask(away, 3, get("k99")));
        cluster.run_ms(1);
    }
    // Some of them waited when the state was replaced: none saw the old one.
    for asked in reads {
        assert_eq!(value(&cluster.wait_for(asked)).as_deref(), Some("value 299"));
    }
    cluster.run_until("the snapshot", |cluster| cluster.nodes[&away].files.received > 0);
    assert_eq!(value(&cluster.call(away, 2, get("k99"))).as_deref(), Some("value 299"));
    all_agree(&mut cluster);
    // And it starts again from what it was sent.
    cluster.restart(away);
    assert_eq!(value(&cluster.call(away, 2, get("l299"))).as_deref(), Some("v"));
    all_agree(&mut cluster);
}

/// With every newer one it would begin anew, and where they come faster than one is
/// sent, never come to an end.
#[test]
fn a_snapshot_goes_on_where_it_was_when_something_is_lost_and_there_is_a_newer_one() {
    for lost_ms in 5..15 {
        let mut cluster = forgetful(3);
        let leader = cluster.leader().unwrap();
        let away = cluster.follower();
        let files = cluster.take_files(away);
        let journal = cluster.kill(away);
        for n in 0..100 {
            cluster.call(leader, 1, set(&format!("k{n}"), &"value ".repeat(100)));
        }
        cluster.start_with(away.0, journal, files);
        cluster.run_until("it begins", |cluster| cluster.nodes[&away].files.begun > 0);
        let newest = cluster.nodes[&leader].files.count();
        let mut ms = 0;
        cluster.run_until_busy("it is there", |cluster| {
            ms += 1;
            if ms == lost_ms {
                cluster.cut.extend([(leader, away), (away, leader)]);
            } else if ms == lost_ms + 2 {
                cluster.cut.clear();
            }
            if ms % 20 == 0 {
                cluster.ask(leader, 1, set("large", &"value ".repeat(500)));
            }
            cluster.nodes[&away].files.received > 0
        });
        assert!(ms > 1000, "something is lost");
        assert!(cluster.nodes[&leader].files.count() > newest, "there is a newer one");
        assert_eq!(cluster.nodes[&away].files.begun, 1, "lost at {lost_ms} ms");
    }
}

/// Its disk was slow, so its leader knows of little that it holds and would send a
/// snapshot, of which it holds all.
#[test]
fn who_holds_more_than_its_leader_knows_goes_on_from_there() {
    let mut cluster = forgetful(3);
    let leader = cluster.leader().unwrap();
    let slow = cluster.follower();
    cluster.run_ms(500);
    cluster.stuck.insert(slow);
    for n in 0..300 {
        cluster.call(leader, 1, set(&format!("k{n}"), "value"));
    }
    cluster.run_ms(500);
    cluster.call(leader, 1, set("last", "value"));
    let files = cluster.take_files(slow);
    let received = files.received;
    let journal = cluster.kill_after_its_writes(slow);
    let first = cluster.nodes[&leader].journal_entries()[0].id.index;
    assert!(
        first.0 > 200 && journal.hard_state.commit > first,
        "{first:?} {:?}",
        journal.hard_state
    );
    cluster.stuck.clear();
    cluster.input(leader, Input::LinkLost(slow));
    cluster.start_with(slow.0, journal, files);
    cluster.call(leader, 1, set("more", "value"));
    assert_eq!(cluster.leader(), Some(leader));
    all_agree(&mut cluster);
    assert_eq!(cluster.nodes[&slow].files.received, received, "it has no use for one");
}

#[test]
fn a_newcomer_joins_by_snapshot_and_becomes_a_voter_under_load() {
    let mut cluster = forgetful(3);
    let leader = cluster.leader().unwrap();
    for n in 0..200 {
        cluster.call(leader, 1, set(&format!("k{n}"), "value"));
    }
    cluster.start_newcomer(4);
    let join = Request::Join { name: "node4".into(), peer_address: "peer4".into() };
    let joining = cluster.ask(leader, 2, join);
    for n in 0..400 {
        cluster.ask(leader, 1, set(&format!("m{n}"), "v"));
        cluster.run_ms(2);
    }
    assert_eq!(cluster.wait_for(joining), Reply::Done);
    cluster.run_until("its vote", |cluster| {
        cluster.nodes[&leader].driver.replica().raft().membership().is_voter(id(4))
    });
    assert!(cluster.nodes[&id(4)].files.received > 0, "the log did not reach back that far");
    all_agree(&mut cluster);
}

#[test]
fn a_session_survives_snapshots_and_a_retry_is_executed_once() {
    let mut cluster = forgetful(3);
    let leader = cluster.leader().unwrap();
    let Reply::SessionOpened { session } = cluster.call(leader, 1, Request::OpenSession) else {
        panic!("no session");
    };
    let stamp = raftcache::request::SessionStamp { session, sequence: 1 };
    let once = Request::Run {
        batch: Batch::of(Command::Increment { key: Key::new("n"), by: 1 }),
        consistency: Consistency::default(),
        session: Some(stamp),
    };
    let first = cluster.call(leader, 1, once.clone());
    for n in 0..200 {
        cluster.call(leader, 1, set(&format!("k{n}"), "value"));
    }
    for node in 1..=3 {
        cluster.restart(id(node));
    }
    cluster.run_until("a leader", |cluster| cluster.leader().is_some());
    for node in 1..=3 {
        assert_eq!(cluster.call(id(node), 2, once.clone()), first, "through {node}");
    }
    assert_eq!(value(&cluster.call(leader, 2, get("n"))).as_deref(), Some("1"));
}

/// What the leader refuses comes back behind what was sent later. It must not be
/// executed behind it.
#[test]
fn a_handover_keeps_the_order_of_every_connection() {
    for pause in 1..12 {
        let mut cluster = Cluster::new(3);
        let follower = cluster.follower();
        cluster.run_ms(100);
        let leader = cluster.leader().unwrap();
        cluster.ask(leader, 50, Request::Transfer { to: None });
        let mut asked = Vec::new();
        for round in 0..60 {
            asked.push(cluster.ask(follower, 1, set("k", &round.to_string())));
            if round % pause == 0 {
                cluster.run_ms(1);
            }
        }
        let read = cluster.ask(follower, 1, get("k"));
        let mut versions = Vec::new();
        for asked in asked {
            match cluster.wait_for(asked) {
                Reply::Answers(answers) => match answers[..] {
                    [Answer::Stored { version }] => versions.push(version),
                    _ => panic!("{answers:?}"),
                },
                other => assert_eq!(error(&other).0, ErrorKind::Unknown, "pause {pause}"),
            }
        }
        assert!(versions.is_sorted(), "executed in another order: {versions:?}");
        assert_eq!(value(&cluster.wait_for(read)).as_deref(), Some("59"), "pause {pause}");
    }
}

/// Once, a connection whose writes were replaced waited for an index that no
/// write of its own would ever fill again.
#[test]
fn a_connection_whose_writes_were_replaced_reads_on() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    for node in 1..=3 {
        cluster.cut.insert((leader, id(node)));
    }
    let lost: Vec<_> = (0..10).map(|n| cluster.ask(leader, 1, set("k", &n.to_string()))).collect();
    cluster.run_until("another leader", |cluster| cluster.leader() != Some(leader));
    cluster.cut.clear();
    for asked in lost {
        assert_eq!(error(&cluster.wait_for(asked)).0, ErrorKind::NoLeader);
    }
    let begun = cluster.now_ms;
    assert_eq!(value(&cluster.call(leader, 1, get("k"))), None);
    assert_eq!(value(&cluster.call(leader, 1, stale("k"))), None);
    assert!(cluster.now_ms < begun + 500);
}

#[test]
fn a_stale_read_does_not_overtake_its_connections_forwarded_write() {
    let mut cluster = Cluster::new(3);
    let follower = cluster.follower();
    cluster.call(follower, 1, set("k", "old"));
    cluster.ask(follower, 1, set("k", "new"));
    let read = cluster.ask(follower, 1, stale("k"));
    assert_eq!(value(&cluster.wait_for(read)).as_deref(), Some("new"));
}

/// A follower restarts so quickly that the leader still works on what its
/// earlier process had forwarded. The answer is nobody's.
#[test]
fn the_answer_to_an_earlier_process_reaches_no_later_client() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    cluster.stuck.insert(leader);
    let third = *cluster.nodes.keys().find(|&&node| node != leader && node != follower).unwrap();
    cluster.stuck.insert(third);
    cluster.ask(follower, 1, increment("a"));
    cluster.run_ms(10);
    cluster.restart(follower);
    cluster.run_ms(5);
    let other = cluster.ask(follower, 1, set("b", "v"));
    cluster.stuck.clear();
    let reply = cluster.wait_for(other);
    assert!(is_stored(&reply), "{reply:?}");
}
