//! Leaders die, processes stand still, links and disks and clocks fail; one
//! thing at a time, so that it is known what has to come of it.

use std::collections::BTreeMap;
use std::time::Duration;

use raftcache::raft::{NodeId, ReadMode, Recovered, Term};
use raftcache::replica::{Driver, Forward, Input, PeerMessage, Ticket};
use raftcache::request::{
    Answer, Batch, Command, Condition, ErrorKind, Expiry, Key, Reply, Request, Ttl,
};

use crate::cluster::{Cluster, id};
use crate::{error, forgetful, get, increment, is_stored, set, set_for, stale, value};

/// Every node has every key, by its own account and by the leader's.
fn all_have(cluster: &mut Cluster, keys: &[String]) {
    let nodes: Vec<NodeId> = cluster.nodes.keys().copied().collect();
    for &node in &nodes {
        let asked: Vec<_> = keys.iter().map(|key| cluster.ask(node, 7, get(key))).collect();
        for (asked, key) in asked.into_iter().zip(keys) {
            let reply = cluster.wait_for(asked);
            assert_eq!(value(&reply).as_ref(), Some(key), "{key} at {node}");
        }
        for key in keys {
            let reply = cluster.call(node, 7, stale(key));
            assert_eq!(value(&reply).as_ref(), Some(key), "{key} at {node}, stale");
        }
    }
}

/// The state of a new leader is what the log says, and so is everybody's.
#[test]
fn twenty_leaders_die_and_every_key_is_read_through_every_node() {
    let mut cluster = Cluster::new(3);
    let mut keys = Vec::new();
    for round in 0..20 {
        let leader = cluster.leader().unwrap();
        for node in 1..=3 {
            let key = format!("{round} {node}");
            assert!(is_stored(&cluster.call(id(node), 1, set(&key, &key))));
            keys.push(key);
        }
        let journal = cluster.kill(leader);
        cluster.run_until("another leader", |cluster| cluster.leader().is_some());
        all_have(&mut cluster, &keys);
        cluster.start(leader.0, journal);
        cluster.run_ms(50);
    }
    all_have(&mut cluster, &keys);
}

/// Nobody serves what it has before it has all there is.
#[test]
fn a_read_that_waits_for_a_restart_of_all_sees_everything() {
    for round in 0..20 {
        let mut cluster = Cluster::new(3);
        let keys: Vec<String> = (0..10 + round).map(|n| format!("k{n}")).collect();
        for key in &keys {
            assert!(is_stored(&cluster.call(id(1), 1, set(key, key))));
        }
        let journals: Vec<Recovered> = (1..=3).map(|n| cluster.kill(id(n))).collect();
        for (n, journal) in journals.into_iter().enumerate() {
            cluster.start(n as u128 + 1, journal);
        }
        let last = keys.last().unwrap();
        let asked: Vec<_> = (1..=3).map(|n| cluster.ask(id(n), 1, get(last))).collect();
        for asked in asked {
            assert_eq!(value(&cluster.wait_for(asked)).as_ref(), Some(last), "{asked:?}");
        }
    }
}

/// A process stands still for longer than an election takes. A read has arrived
/// by the time it goes on, and nothing that tells of its successor. The leader
/// may have heard a majority just before, or have to look for one just then.
#[test]
fn a_leader_that_was_paused_serves_nothing_of_before() {
    for mode in [ReadMode::Lease, ReadMode::ReadIndex] {
        for since_election in (0..600).step_by(40) {
            let mut cluster = Cluster::with_read_mode(3, mode);
            let leader = cluster.leader().unwrap();
            cluster.run_ms(since_election);
            cluster.call(leader, 1, set("k", "old"));
            assert_eq!(value(&cluster.call(leader, 1, get("k"))).as_deref(), Some("old"));
            cluster.paused.insert(leader);
            for node in 1..=3 {
                cluster.cut.insert((id(node), leader));
            }
            let before = cluster.ask(leader, 2, get("k"));
            cluster.run_until("another leader", |cluster| cluster.leader() != Some(leader));
            let other = cluster.leader().unwrap();
            assert!(is_stored(&cluster.call(other, 1, set("k", "new"))));
            let after = cluster.ask(leader, 3, get("k"));
            cluster.paused.clear();
            cluster.run_ms(100);
            assert_eq!((cluster.reply(before), cluster.reply(after)), (None, None), "{mode:?}");
            cluster.cut.clear();
            for asked in [before, after] {
                let reply = cluster.wait_for(asked);
                assert_eq!(value(&reply).as_deref(), Some("new"), "{mode:?}");
            }
        }
    }
}

/// The clock that judges is read when all that it judges was there: otherwise a
/// pause between the two makes a lease last that is over.
#[test]
fn a_turn_reads_the_clock_once_behind_all_that_has_arrived() {
    let mut cluster = Cluster::new(1);
    let now = cluster.now();
    let driver: &mut Driver = &mut cluster.nodes.get_mut(&id(1)).unwrap().driver;
    let ticket = Ticket { connection: 1, number: 1 };
    let left = std::cell::Cell::new(3);
    let arrived = std::iter::from_fn(|| {
        left.set(left.get() - 1);
        (left.get() > 0).then_some(Input::Request { ticket, request: Request::Ping })
    });
    let effects = driver.turn(arrived, || {
        assert_eq!(left.get(), 0, "the clock is read too early");
        now
    });
    assert_eq!(effects.replies.len(), 2);
}

#[test]
fn what_arrives_twice_takes_effect_once() {
    let mut cluster = Cluster::new(3);
    cluster.doubled = true;
    let follower = cluster.follower();
    for expected in 1..=50 {
        let reply = cluster.call(follower, 1, increment("n"));
        assert_eq!(reply, Reply::Answers(vec![Answer::Integer(expected)]));
    }
    let asked: Vec<_> = (0..100).map(|_| cluster.ask(follower, 1, increment("n"))).collect();
    for (asked, expected) in asked.into_iter().zip(51..) {
        assert_eq!(cluster.wait_for(asked), Reply::Answers(vec![Answer::Integer(expected)]));
    }
}

/// What a node says at once to an increment that another has forwarded, meant
/// for the leader of that term.
fn says_to_forwarded(
    cluster: &mut Cluster,
    (from, to): (NodeId, NodeId),
    term: Term,
    number: u64,
) -> Reply {
    let (request, timeout) = (increment("n"), Duration::from_secs(3));
    let forward = Forward { id: number, term, timeout, connection: 1, request };
    let message = PeerMessage::Forward(forward);
    let now = cluster.now();
    let node = cluster.nodes.get_mut(&to).unwrap();
    let effects = node.driver.turn([Input::Peer { from, message }].into_iter(), || now);
    let mut said = Vec::new();
    for (told, message) in effects.messages {
        match message {
            PeerMessage::Forward(_) => panic!("it is sent on to {told}"),
            PeerMessage::Forwarded { id, answer } => said.push((told, id, answer.reply)),
            _ => {}
        }
    }
    let [(told, id, reply)] = &said[..] else { panic!("{said:?}") };
    assert_eq!((*told, *id), (from, number));
    reply.clone()
}

/// Two nodes that take each other for the leader would send a request to and fro
/// for ever. Who does not lead the term that is meant says so.
#[test]
fn a_forwarded_request_is_never_forwarded_again() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    let followers: Vec<NodeId> =
        cluster.nodes.keys().copied().filter(|&node| node != leader).collect();
    let way = (followers[1], followers[0]);
    let term = cluster.nodes[&leader].driver.replica().raft().term();
    let before = Term(term.0 - 1);
    for (number, of) in [(1, term), (2, term.next()), (3, before)] {
        let reply = says_to_forwarded(&mut cluster, way, of, number);
        assert_eq!(error(&reply).0, ErrorKind::NoLeader);
    }
    // Nor does the leader take what was meant for another one: its sender has
    // given that up, or will.
    let way = (followers[1], leader);
    for (number, of) in [(4, term.next()), (5, before)] {
        let reply = says_to_forwarded(&mut cluster, way, of, number);
        assert_eq!(error(&reply).0, ErrorKind::NoLeader);
    }
    cluster.run_ms(100);
    assert_eq!(value(&cluster.call(leader, 1, get("n"))), None);
}

fn ttl_ms(reply: &Reply) -> u64 {
    match reply {
        Reply::Answers(answers) => match answers[..] {
            [Answer::Ttl(Ttl::Ms(ms))] => ms,
            _ => panic!("no ttl: {answers:?}"),
        },
        other => panic!("no ttl: {other:?}"),
    }
}

/// The disk of the leader hangs for seconds while keys are due. Somebody else
/// leads meanwhile; when the disk comes back, what was to live longer is there.
#[test]
fn a_disk_that_stalls_for_seconds_neither_stops_writes_nor_takes_keys_early() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    let begun = cluster.now_ms;
    cluster.call(leader, 1, set_for("brief", "v", Expiry::AfterMs(2000)));
    cluster.call(leader, 1, set_for("long", "v", Expiry::AfterMs(60_000)));
    let set_at = cluster.now_ms;
    cluster.stuck.insert(leader);
    let held_up = cluster.ask(leader, 1, set_for("held up", "v", Expiry::AfterMs(60_000)));
    cluster.run_until("another leader", |cluster| {
        cluster.leader().is_some_and(|other| other != leader)
    });
    assert!(cluster.now_ms < begun + 1500, "it took {} ms", cluster.now_ms - begun);
    let other = cluster.leader().unwrap();
    assert!(is_stored(&cluster.call(other, 2, set("k", "v"))));
    assert!(is_stored(&cluster.wait_for(held_up)), "a majority has it");
    let mut gone = false;
    while cluster.now_ms < set_at + 5000 {
        for node in 1..=3 {
            let asked_at = cluster.now_ms;
            let present = value(&cluster.call(id(node), 3, get("brief"))).is_some();
            assert!(!(gone && present), "it came back on {node}");
            assert!(!present || asked_at <= set_at + 2001, "seen late on {node}");
            assert!(present || cluster.now_ms >= begun + 2000, "gone early on {node}");
            gone |= !present;
        }
        cluster.run_ms(20);
    }
    cluster.stuck.clear();
    cluster.run_ms(1000);
    for node in 1..=3 {
        let ttl = Request::run(Command::Ttl(Key::new("long")));
        let left = ttl_ms(&cluster.call(id(node), 4, ttl));
        let expected = 60_000 - (cluster.now_ms - set_at);
        assert!(left.abs_diff(expected) < 100, "{left} and {expected} on {node}");
        assert_eq!(value(&cluster.call(id(node), 4, get("held up"))).as_deref(), Some("v"));
        assert_eq!(value(&cluster.call(id(node), 4, get("brief"))), None);
    }
}

/// Wall clocks are set: days forward, days back, on one node or on all.
#[test]
fn nobody_notices_that_a_wall_clock_was_set() {
    const DAY_MS: i64 = 24 * 3600 * 1000;
    for (jump, all) in [(DAY_MS, false), (-DAY_MS, false), (DAY_MS, true), (-DAY_MS, true)] {
        let mut cluster = Cluster::new(3);
        let leader = cluster.leader().unwrap();
        cluster.call(leader, 1, set_for("k", "v", Expiry::AfterMs(10_000)));
        let set_at = cluster.now_ms;
        let set: Vec<NodeId> = cluster.nodes.keys().copied().collect();
        for node in set.into_iter().filter(|&node| all || node == leader) {
            cluster.wall_ahead_ms.insert(node, jump);
        }
        let look = |cluster: &mut Cluster| {
            for node in cluster.nodes.keys().copied().collect::<Vec<_>>() {
                let ttl = Request::run(Command::Ttl(Key::new("k")));
                let left = ttl_ms(&cluster.call(node, 2, ttl));
                let expected = 10_000 - (cluster.now_ms - set_at);
                assert!(left.abs_diff(expected) < 100, "{left}, not {expected}, on {node}");
            }
        };
        cluster.run_ms(2000);
        // The next leader has heard of log time, whatever its wall clock says.
        cluster.kill(leader);
        cluster.run_until("another leader", |cluster| cluster.leader().is_some());
        look(&mut cluster);
        cluster.run_until("its end", |cluster| cluster.now_ms > set_at + 10_100);
        let other = cluster.leader().unwrap();
        assert_eq!(value(&cluster.call(other, 2, get("k"))), None);
    }
}

/// Whoever was restarted knows no log time, and its wall clock is wrong. If it is
/// elected nevertheless, by one that knows, it goes on from what that one says.
#[test]
fn a_leader_that_has_heard_nothing_asks_its_voters_for_log_time() {
    let mut had_heard_nothing = 0;
    for pause in 0..20 {
        let mut cluster = Cluster::new(3);
        let (leader, newborn) = (cluster.leader().unwrap(), cluster.follower());
        let other = *cluster.nodes.keys().find(|&&n| n != leader && n != newborn).unwrap();
        cluster.call(leader, 1, set_for("k", "v", Expiry::AfterMs(60_000)));
        let set_at = cluster.now_ms;
        cluster.run_ms(100 + pause);
        for node in [newborn, other] {
            cluster.wall_ahead_ms.insert(node, 24 * 3600 * 1000);
        }
        cluster.kill(leader);
        cluster.restart(newborn);
        cluster.run_until("another leader", |cluster| cluster.leader().is_some());
        had_heard_nothing += usize::from(cluster.leader() == Some(newborn));
        let ttl = Request::run(Command::Ttl(Key::new("k")));
        let left = ttl_ms(&cluster.call(other, 2, ttl));
        let expected = 60_000 - (cluster.now_ms - set_at);
        assert!(left.abs_diff(expected) < 100, "{left}, not {expected}");
    }
    assert!(had_heard_nothing > 0, "it was never elected");
}

/// A key is due, but no entry says so yet, and none can be made durable. Were the
/// key said to be gone, a new leader with a slower clock could bring it back.
#[test]
fn nobody_is_told_of_an_end_that_the_log_has_not_decided() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    cluster.call(leader, 1, set_for("k", "v", Expiry::AfterMs(1000)));
    cluster.call(leader, 1, set("other", "v"));
    cluster.run_ms(950);
    assert_eq!(value(&cluster.call(leader, 2, get("k"))).as_deref(), Some("v"));
    cluster.stuck.extend([id(1), id(2), id(3)]);
    cluster.run_ms(100);
    let asked: Vec<_> = (1..=3).map(|node| cluster.ask(id(node), 3, get("k"))).collect();
    let other = cluster.ask(leader, 4, get("other"));
    cluster.run_ms(150);
    for &asked in &asked {
        assert_eq!(cluster.reply(asked), None, "{asked:?}");
    }
    assert!(cluster.reply(other).is_some(), "nothing about that one is undecided");
    cluster.stuck.clear();
    for asked in asked {
        assert_eq!(value(&cluster.wait_for(asked)), None, "{asked:?}");
    }
}

/// The number that names a lock's holder never goes back, whoever leads.
#[test]
fn versions_count_up_over_all_keys_and_leaders() {
    let mut cluster = Cluster::new(3);
    let mut last = 0;
    for round in 0..10 {
        let leader = cluster.leader().unwrap();
        for key in ["a", "b", "a"] {
            let lock = Command::Set {
                key: Key::new(key),
                value: "holder".into(),
                expiry: Expiry::AfterMs(50),
                condition: Condition::IfAbsent,
            };
            let reply = cluster.call(leader, round, Request::run(lock));
            let Reply::Answers(answers) = &reply else { panic!("{reply:?}") };
            if let [Answer::Stored { version }] = answers[..] {
                assert!(version > last, "{version} behind {last}");
                last = version;
            }
        }
        let journal = cluster.kill(leader);
        cluster.run_until("another leader", |cluster| cluster.leader().is_some());
        cluster.start(leader.0, journal);
        cluster.run_ms(100);
    }
    assert!(last > 0);
}

/// What partial connectivity costs: for how long at most nobody could write, and
/// how many terms there were.
fn live_with(count: u128, cut: &[(NodeId, NodeId)]) -> (u64, u64) {
    let mut cluster = Cluster::new(count);
    cluster.run_ms(200);
    cluster.cut.extend(cut.iter().copied());
    let term = |cluster: &Cluster| {
        cluster.nodes.values().map(|node| node.driver.replica().raft().term().0).max().unwrap()
    };
    let (begun, before) = (cluster.now_ms, term(&cluster));
    let (mut last, mut gap) = (begun, 0);
    let mut asked = BTreeMap::new();
    while cluster.now_ms < begun + 10_000 {
        for node in 1..=count {
            let waiting = *asked
                .entry(node)
                .or_insert_with(|| cluster.ask(id(node), 1, set(&format!("k{node}"), "v")));
            if let Some(reply) = cluster.replies.remove(&waiting) {
                asked.remove(&node);
                if is_stored(&reply) {
                    gap = gap.max(cluster.now_ms - last);
                    last = cluster.now_ms;
                }
            }
        }
        cluster.run_ms(1);
    }
    (gap.max(cluster.now_ms - last), term(&cluster) - before)
}

/// Whatever links fail, as long as one node and a majority hear each other:
/// nobody keeps being elected, and nobody keeps the others from writing. Two
/// election timeouts pass until a leader that hears no majority gives up, the
/// next ones until another has won.
fn assert_lives_with(count: u128, cut: &[(u128, u128)]) {
    let cut: Vec<_> = cut.iter().map(|&(from, to)| (id(from), id(to))).collect();
    let (gap, terms) = live_with(count, &cut);
    assert!(gap < 3000, "{cut:?}: nobody could write for {gap} ms");
    assert!(terms <= 4, "{cut:?}: {terms} terms");
}

#[test]
fn any_link_of_three_may_fail_one_way_or_both() {
    for (a, b) in [(1, 2), (2, 3), (3, 1)] {
        assert_lives_with(3, &[(a, b)]);
        assert_lives_with(3, &[(b, a)]);
        assert_lives_with(3, &[(a, b), (b, a)]);
    }
}

/// One node hears all and is not heard, or is heard and hears nobody.
#[test]
fn a_node_that_is_deaf_or_dumb_harms_nobody() {
    for node in 1..=3 {
        let others: Vec<u128> = (1..=3).filter(|&other| other != node).collect();
        let deaf: Vec<_> = others.iter().map(|&other| (other, node)).collect();
        let dumb: Vec<_> = others.iter().map(|&other| (node, other)).collect();
        assert_lives_with(3, &deaf);
        assert_lives_with(3, &dumb);
    }
}

/// Two and two that do not hear each other, and one that hears and is heard by
/// all four.
#[test]
fn a_bridge_between_two_halves_is_enough() {
    for bridge in 1..=5 {
        let others: Vec<u128> = (1..=5).filter(|&node| node != bridge).collect();
        let mut cut = Vec::new();
        for &a in &others[..2] {
            for &b in &others[2..] {
                cut.extend([(a, b), (b, a)]);
            }
        }
        assert_lives_with(5, &cut);
    }
}

/// Each node hears its neighbours in a circle only.
#[test]
fn a_hub_and_its_spokes_go_on() {
    for hub in 1..=5 {
        let spokes: Vec<u128> = (1..=5).filter(|&node| node != hub).collect();
        let cut: Vec<_> = spokes
            .iter()
            .flat_map(|&a| spokes.iter().filter(move |&&b| a != b).map(move |&b| (a, b)))
            .collect();
        assert_lives_with(5, &cut);
    }
}

/// A leader hands over to one that is cut off just then; later another leads, and
/// later itself again. No handover of old stands against what it is asked then.
#[test]
fn a_handover_that_came_to_nothing_is_forgotten() {
    for pause in [0, 1, 2, 3, 5, 50, 400, 700] {
        let mut cluster = Cluster::new(3);
        cluster.run_ms(200);
        let leader = cluster.leader().unwrap();
        let to = cluster.follower();
        cluster.ask(leader, 1, Request::Transfer { to: Some(format!("node{}", to.0)) });
        cluster.run_ms(pause);
        for node in 1..=3 {
            cluster.cut.extend([(id(node), leader), (leader, id(node))]);
        }
        cluster.run_until("another leader", |cluster| cluster.leader() != Some(leader));
        cluster.cut.clear();
        cluster.run_ms(500);
        let back = Request::Transfer { to: Some(format!("node{}", leader.0)) };
        let other = cluster.leader().unwrap();
        assert_eq!(cluster.call(other, 1, back), Reply::Done, "pause {pause}");
        cluster.run_until("its term", |cluster| cluster.leader() == Some(leader));
        let begun = cluster.now_ms;
        assert!(is_stored(&cluster.call(leader, 1, set("k", "v"))), "pause {pause}");
        assert!(cluster.now_ms < begun + 500, "pause {pause}");
        assert!(!cluster.nodes[&leader].driver.replica().raft().is_transferring());
    }
}

/// The successor cannot be reached: the leader leads on, and what was asked
/// meanwhile takes effect.
#[test]
fn a_handover_to_nobody_is_given_up_in_time() {
    let mut cluster = Cluster::new(3);
    cluster.run_ms(200);
    let (leader, to) = (cluster.leader().unwrap(), cluster.follower());
    cluster.cut.extend([(leader, to), (to, leader)]);
    let moved = cluster.ask(leader, 1, Request::Transfer { to: Some(format!("node{}", to.0)) });
    cluster.run_ms(1);
    let begun = cluster.now_ms;
    let write = cluster.ask(leader, 2, set("k", "v"));
    assert!(is_stored(&cluster.wait_for(write)));
    assert!(cluster.now_ms < begun + 1000, "{} ms", cluster.now_ms - begun);
    assert_eq!(error(&cluster.wait_for(moved)).0, ErrorKind::Refused);
    assert_eq!(cluster.leader(), Some(leader));
}

/// A leader is cut off with writes in its log. The others go on, and compact what
/// would tell what became of them: nobody knows, and that is said at once.
#[test]
fn what_a_snapshot_passes_over_is_unknown() {
    let mut cluster = forgetful(3);
    cluster.run_ms(500);
    let leader = cluster.leader().unwrap();
    for node in 1..=3 {
        cluster.cut.extend([(id(node), leader), (leader, id(node))]);
    }
    let lost: Vec<_> = (0..5).map(|n| cluster.ask(leader, n, increment("lost"))).collect();
    let begun = cluster.now_ms;
    cluster.run_until("another leader", |cluster| cluster.leader() != Some(leader));
    let other = cluster.leader().unwrap();
    let value_of_size = "v".repeat(100);
    let kept: Vec<_> =
        (0..300).map(|n| cluster.ask(other, n, set(&format!("k{n}"), &value_of_size))).collect();
    for asked in kept {
        assert!(is_stored(&cluster.wait_for(asked)));
    }
    cluster.run_ms(200);
    cluster.cut.clear();
    for asked in lost {
        assert_eq!(error(&cluster.wait_for(asked)).0, ErrorKind::Unknown);
    }
    assert!(cluster.nodes[&leader].files.received > 0, "it got on without a snapshot");
    assert!(cluster.now_ms < begun + 2900, "{} ms", cluster.now_ms - begun);
}

/// A read batch of a node without a leader, a write, a handover, a removal: each
/// is answered once its time is over, and says that it had no effect.
#[test]
fn what_never_began_is_answered_in_time() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    let left = cluster.follower();
    for node in 1..=3 {
        if id(node) != left {
            cluster.kill(id(node));
        }
    }
    cluster.run_ms(1500);
    let name = format!("node{}", leader.0);
    let join = Request::Join { name: "node9".into(), peer_address: "peer9".into() };
    let batch = Batch { guards: Vec::new(), commands: vec![Command::Get(Key::new("k"))] };
    let read = Request::Run { batch, consistency: Default::default(), session: None };
    let requests = [
        read,
        set("k", "v"),
        increment("n"),
        Request::OpenSession,
        Request::Leave { name },
        join,
        Request::Transfer { to: None },
    ];
    let begun = cluster.now_ms;
    let asked: Vec<_> = requests
        .into_iter()
        .enumerate()
        .map(|(connection, request)| cluster.ask(left, connection as u64, request))
        .collect();
    for asked in asked {
        assert_eq!(error(&cluster.wait_for(asked)).0, ErrorKind::NoLeader, "{asked:?}");
    }
    assert!((begun + 3000..begun + 3100).contains(&cluster.now_ms));
}
