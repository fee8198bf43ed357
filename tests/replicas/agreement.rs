//! States that differ although the logs agree. A bit has flipped in what a node
//! keeps of the log, so it has applied something that no other node has.

use crate::cluster::{Cluster, id, third};
use crate::{all_agree, error, forgetful, forgetting_after, get, is_stored, set, value};
use raftcache::fsm::{Action, Proposal};
use raftcache::raft::{Index, NodeId, Payload, Recovered};
use raftcache::replica::agreement::{SAMPLE_EVERY, StateMessage};
use raftcache::replica::{Input, PeerMessage};
use raftcache::request::{Command, ErrorKind, Request};

/// Writes so often that every node notes the hash of its state once more.
fn write_past_a_sample(cluster: &mut Cluster, through: NodeId) {
    let last = |cluster: &Cluster| cluster.nodes[&through].driver.replica().raft().last().index.0;
    let until = (last(cluster) / SAMPLE_EVERY + 1) * SAMPLE_EVERY + 10;
    while last(cluster) < until {
        write_hundred(cluster, through);
    }
}

fn write_hundred(cluster: &mut Cluster, through: NodeId) {
    let asked: Vec<_> =
        (0..100).map(|n| cluster.ask(through, n, set(&format!("k{n}"), "v"))).collect();
    for asked in asked {
        assert!(is_stored(&cluster.wait_for(asked)));
    }
}

/// The first set of `key` is one of another value.
fn flip(journal: &mut Recovered, key: &str) {
    rewrite(journal, key, "flipped");
}

fn unflip(journal: &mut Recovered, key: &str) {
    rewrite(journal, key, "right");
}

fn rewrite(journal: &mut Recovered, key: &str, written: &'static str) {
    for entry in &mut journal.entries {
        let Payload::Command(command) = &mut entry.payload else { continue };
        let mut proposal = Proposal::decode(command.clone()).expect("a proposal");
        let Action::Run { batch, .. } = &mut proposal.action else { continue };
        if let Command::Set { key: name, value, .. } = &mut batch.commands[0]
            && &name.name[..] == key.as_bytes()
        {
            *value = written.into();
            *command = proposal.encode();
            return;
        }
    }
    panic!("{key} was never set");
}

fn voters(count: u128) -> (Cluster, NodeId) {
    let mut cluster = Cluster::new(count);
    cluster.may_fault = true;
    let leader = cluster.leader().expect("one leads");
    assert!(is_stored(&cluster.call(leader, 1, set("precious", "right"))));
    cluster.run_ms(100);
    (cluster, leader)
}

/// The leader and a follower that differs, of three. The third is away, so that nobody
/// knows who is right.
fn two_undecided() -> (Cluster, NodeId, NodeId) {
    let (mut cluster, leader) = voters(3);
    let wrong = cluster.follower();
    let away = third(leader, wrong);
    restart_flipped(&mut cluster, wrong);
    cluster.run_ms(500);
    for node in [leader, wrong] {
        cluster.cut.extend([(node, away), (away, node)]);
    }
    write_past_a_sample(&mut cluster, leader);
    cluster.run_until("both stop", |cluster| {
        cluster.faults.len() == 2
            && cluster.faults.values().all(|fault| fault.contains("no majority"))
    });
    (cluster, leader, wrong)
}

pub fn restart_flipped(cluster: &mut Cluster, node: NodeId) {
    cluster.restart_changed(node, |journal| flip(journal, "precious"));
}

fn installed(cluster: &Cluster, node: NodeId) -> usize {
    cluster.nodes[&node].files.received
}

#[test]
fn a_follower_that_differs_stops_serving_and_takes_over_the_leaders_state() {
    let (mut cluster, leader) = voters(3);
    let wrong = cluster.follower();
    restart_flipped(&mut cluster, wrong);
    let reply = cluster.call(wrong, 2, get("precious"));
    assert_eq!(value(&reply).as_deref(), Some("flipped"), "nobody knows yet");
    write_past_a_sample(&mut cluster, leader);
    let written_ms = cluster.now_ms;
    cluster.run_until("it stops", |cluster| cluster.faults.contains_key(&wrong));
    assert!(cluster.now_ms < written_ms + 500, "it is asked once and answers when it can");
    assert!(cluster.faults[&wrong].contains("differs from a majority"), "{:?}", cluster.faults);
    let reply = cluster.call(wrong, 3, get("precious"));
    assert_eq!(error(&reply).0, ErrorKind::NotServing, "{reply:?}");
    // Others write on meanwhile.
    let mut n = 0;
    cluster.run_until_busy("it serves again", |cluster| {
        n += 1;
        cluster.ask(leader, 100 + n, set(&format!("meanwhile{n}"), "v"));
        cluster.faults.is_empty()
    });
    let reply = cluster.call(wrong, 4, get("precious"));
    assert_eq!(value(&reply).as_deref(), Some("right"));
    // What it once noted of its state is forgotten.
    cluster.run_ms(15_000);
    assert_eq!(installed(&cluster, wrong), 1);
    // And goes on as everybody else, also through a restart.
    write_past_a_sample(&mut cluster, wrong);
    cluster.restart(wrong);
    all_agree(&mut cluster);
    cluster.run_ms(15_000);
    assert_eq!(cluster.faults.len(), 0, "{:?}", cluster.faults);
}

#[test]
fn a_leader_that_differs_hands_over_and_takes_over_its_successors_state() {
    let (mut cluster, leader) = voters(3);
    let wrong = cluster.follower();
    restart_flipped(&mut cluster, wrong);
    let to = Some(format!("node{}", wrong.0));
    cluster.run_ms(500);
    cluster.call(leader, 1, Request::Transfer { to });
    cluster.run_until("it leads", |cluster| cluster.leader() == Some(wrong));
    write_past_a_sample(&mut cluster, leader);
    cluster.run_until("it stops", |cluster| cluster.faults.contains_key(&wrong));
    cluster.run_until("another leads", |cluster| cluster.leader() != Some(wrong));
    assert_eq!(cluster.faults.len(), 1, "{:?}", cluster.faults);
    cluster.run_until("it serves again", |cluster| cluster.faults.is_empty());
    let reply = cluster.call(wrong, 4, get("precious"));
    assert_eq!(value(&reply).as_deref(), Some("right"));
    write_past_a_sample(&mut cluster, wrong);
    all_agree(&mut cluster);
}

/// Nor does it hand over to one that is as wrong as itself.
#[test]
fn leadership_goes_to_nobody_in_doubt() {
    let (mut cluster, leader) = voters(5);
    let wrong: Vec<_> = (1..=5).map(id).filter(|&node| node != leader).skip(2).collect();
    for &node in &wrong {
        restart_flipped(&mut cluster, node);
        cluster.run_ms(500);
    }
    let to = Some(format!("node{}", wrong[0].0));
    cluster.call(leader, 1, Request::Transfer { to });
    cluster.run_until("it leads", |cluster| cluster.leader() == Some(wrong[0]));
    write_past_a_sample(&mut cluster, leader);
    cluster.run_until("both stop", |cluster| cluster.faults.len() == 2);
    cluster.run_until("another leads", |cluster| {
        assert_ne!(cluster.leader(), Some(wrong[1]));
        cluster.leader() != Some(wrong[0])
    });
    cluster.run_until("they serve again", |cluster| cluster.faults.is_empty());
}

/// Also when there is nothing new to compare, and when the leader has a snapshot
/// that is too old to help.
#[test]
fn a_restarted_node_that_differs_is_found_though_nobody_writes() {
    let mut cluster = forgetting_after(3, 400_000);
    cluster.may_fault = true;
    let leader = cluster.leader().expect("one leads");
    while cluster.nodes[&leader].files.count() == 0 {
        write_hundred(&mut cluster, leader);
    }
    assert!(is_stored(&cluster.call(leader, 1, set("precious", "right"))));
    write_past_a_sample(&mut cluster, leader);
    cluster.run_ms(5000);
    assert_eq!(cluster.nodes[&leader].files.count(), 1, "the snapshot is an old one");
    let wrong = cluster.follower();
    restart_flipped(&mut cluster, wrong);
    cluster.run_until("it stops", |cluster| cluster.faults.contains_key(&wrong));
    cluster.run_until("it serves again", |cluster| cluster.faults.is_empty());
    let reply = cluster.call(wrong, 4, get("precious"));
    assert_eq!(value(&reply).as_deref(), Some("right"));
    assert_eq!(installed(&cluster, wrong), 1);
}

/// What is in doubt is its state, not its log: its disk and its vote count.
#[test]
fn who_differs_goes_on_storing_and_voting() {
    (0..10).for_each(who_differs_goes_on);
}

fn who_differs_goes_on(seed: u64) {
    let (mut cluster, leader) = voters(3);
    cluster.run_ms(seed);
    let wrong = cluster.follower();
    let other = third(leader, wrong);
    restart_flipped(&mut cluster, wrong);
    write_past_a_sample(&mut cluster, leader);
    cluster.run_until("it stops", |cluster| cluster.faults.contains_key(&wrong));
    cluster.kill(leader);
    cluster.run_until("the third leads", |cluster| {
        let role = cluster.nodes[&wrong].driver.replica().raft().role().name();
        assert_eq!(role, "follower", "it lets others stand first");
        cluster.leader() == Some(other)
    });
    assert!(is_stored(&cluster.call(other, 5, set("precious", "newer"))));
    cluster.run_until("it serves again", |cluster| cluster.faults.is_empty());
    let reply = cluster.call(wrong, 4, get("precious"));
    assert_eq!(value(&reply).as_deref(), Some("newer"));
}

/// Who is in doubt may be the only one left with an acknowledged write. It leads
/// until another one holds that too, and serves nobody itself.
#[test]
fn who_differs_leads_others_to_where_they_can() {
    let (mut cluster, leader) = voters(3);
    let wrong = cluster.follower();
    let other = third(leader, wrong);
    restart_flipped(&mut cluster, wrong);
    write_past_a_sample(&mut cluster, leader);
    cluster.run_until("it stops", |cluster| cluster.faults.contains_key(&wrong));
    for node in [leader, wrong] {
        cluster.cut.extend([(node, other), (other, node)]);
    }
    assert!(is_stored(&cluster.call(leader, 5, set("precious", "newer"))));
    cluster.kill(leader);
    cluster.cut.clear();
    let asked = cluster.ask(other, 6, get("precious"));
    cluster.run_until("the third leads", |cluster| cluster.leader() == Some(other));
    assert_eq!(value(&cluster.wait_for(asked)).as_deref(), Some("newer"));
    cluster.run_until("it serves again", |cluster| cluster.faults.is_empty());
    let reply = cluster.call(wrong, 4, get("precious"));
    assert_eq!(value(&reply).as_deref(), Some("newer"));
}

/// Others go on, and do not know any more what their state was when it was found.
#[test]
fn one_that_differs_and_ends_stops_nobody_else() {
    let (mut cluster, leader) = voters(3);
    let wrong = cluster.follower();
    restart_flipped(&mut cluster, wrong);
    // Nobody writes, so it is asked about an index that nobody takes a sample at.
    cluster.run_until("it stops", |cluster| cluster.faults.contains_key(&wrong));
    cluster.kill(wrong);
    cluster.faults.clear();
    for round in 0..20 {
        assert!(is_stored(&cluster.call(leader, 1, set("k", &round.to_string()))));
        cluster.run_ms(1000);
        assert!(cluster.faults.is_empty(), "{round}: {:?}", cluster.faults);
    }
}

/// Nor does it keep others from being found.
#[test]
fn one_that_differs_and_ends_hides_no_other() {
    let (mut cluster, leader) = voters(5);
    let followers: Vec<_> = (1..=5).map(id).filter(|&node| node != leader).collect();
    restart_flipped(&mut cluster, followers[0]);
    cluster.run_until("it stops", |cluster| cluster.faults.contains_key(&followers[0]));
    cluster.kill(followers[0]);
    cluster.faults.clear();
    write_hundred(&mut cluster, leader);
    restart_flipped(&mut cluster, followers[1]);
    cluster.run_until("the other stops", |cluster| cluster.faults.contains_key(&followers[1]));
    cluster.run_until("and is mended", |cluster| cluster.faults.is_empty());
}

/// Who is known to be wrong has no say in who is right, however long it takes until it
/// has another state.
#[test]
fn who_is_wrong_does_not_decide() {
    let (mut cluster, leader) = voters(3);
    let wrong = cluster.follower();
    let other = third(leader, wrong);
    restart_flipped(&mut cluster, wrong);
    cluster.no_snapshots = true;
    cluster.run_until("it stops", |cluster| cluster.faults.contains_key(&wrong));
    for _ in 0..3 {
        cluster.run_ms(5000);
        let files = cluster.take_files(other);
        let journal = cluster.kill(other);
        cluster.run_ms(8000);
        assert_eq!(cluster.faults.len(), 1, "{:?}", cluster.faults);
        assert!(is_stored(&cluster.call(leader, 2, set("k", "v"))), "two of three store it");
        cluster.start_with(other.0, journal, files);
    }
    cluster.no_snapshots = false;
    cluster.run_until("it serves again", |cluster| cluster.faults.is_empty());
}

/// Of two who differ, and have stopped, one is told what a majority's state was. At an
/// index that it has passed and knows nothing of, that says nothing of its state now.
#[test]
fn who_is_undecided_takes_over_what_is_ahead_of_it_only() {
    for (ahead, told) in [(0, "no majority"), (1, "differs from a majority")] {
        let (mut cluster, leader, wrong) = two_undecided();
        let applied = cluster.nodes[&wrong].driver.replica().raft().applied().index;
        let index = Index(if ahead == 0 { 1 } else { applied.0 + ahead });
        let message = PeerMessage::State(StateMessage::Verdict { index, hash: Some(1) });
        cluster.input(wrong, Input::Peer { from: leader, message });
        cluster.run_ms(10);
        assert!(cluster.faults[&wrong].contains(told), "{:?}", cluster.faults);
    }
}

/// One that could decide and never does is waited for, but not for ever.
#[test]
fn who_is_up_and_never_answers_does_not_decide() {
    let (mut cluster, leader) = voters(3);
    let wrong = cluster.follower();
    let other = third(leader, wrong);
    restart_flipped(&mut cluster, wrong);
    cluster.discreet.insert(other);
    write_past_a_sample(&mut cluster, leader);
    cluster.run_until("all stop", |cluster| cluster.faults.len() == 3);
    cluster.discreet.clear();
    cluster.run_until("one is mended", |cluster| cluster.faults.is_empty());
    assert_eq!(installed(&cluster, wrong), 1);
}

/// Who has passed the index that it is asked about does not count as one who is down.
#[test]
fn those_who_go_on_meanwhile_are_asked_anew() {
    for start in 0..12 {
        let (mut cluster, leader) = voters(3);
        let wrong = cluster.follower();
        let other = third(leader, wrong);
        restart_flipped(&mut cluster, wrong);
        for round in start..start + 300 {
            // Some questions get lost, and when they are asked again it has gone on.
            match round % 12 {
                0 => drop(cluster.cut.insert((leader, other))),
                6 => cluster.cut.clear(),
                _ => {}
            }
            cluster.ask(leader, 1, set("k", &round.to_string()));
            cluster.run_ms(100);
            assert!(cluster.faults.keys().all(|&node| node == wrong), "{:?}", cluster.faults);
        }
        assert_eq!(installed(&cluster, wrong), 1, "it was found");
    }
}

/// Who was away decides when it is back; who was restarted and answers otherwise
/// decides as well.
#[test]
fn a_majority_that_forms_later_is_right_too() {
    for restarts in [false, true] {
        let (mut cluster, _, wrong) = two_undecided();
        if restarts {
            cluster.restart_changed(wrong, |journal| unflip(journal, "precious"));
        } else {
            cluster.cut.clear();
        }
        cluster.run_until("all serve again", |cluster| cluster.faults.is_empty());
        let reply = cluster.call(wrong, 4, get("precious"));
        assert_eq!(value(&reply).as_deref(), Some("right"), "{restarts}");
    }
}

#[test]
fn without_a_majority_all_stop_and_say_so() {
    for (count, dead, wrong) in [(2, 0, 1), (5, 2, 1), (3, 0, 2)] {
        let (mut cluster, leader) = voters(count);
        let followers: Vec<_> = (1..=count).map(id).filter(|&node| node != leader).collect();
        let (wrong, others) = followers.split_at(wrong);
        for (n, node) in wrong.iter().enumerate() {
            // Each of them in its own way.
            assert!(is_stored(&cluster.call(leader, 1, set(&format!("own{n}"), "right"))));
            cluster.run_ms(100);
            cluster.restart_changed(*node, |journal| flip(journal, &format!("own{n}")));
            cluster.run_ms(500);
        }
        others[..dead].iter().for_each(|node| drop(cluster.kill(*node)));
        write_past_a_sample(&mut cluster, leader);
        cluster.run_until("all stop", |cluster| cluster.faults.len() == cluster.nodes.len());
        for node in cluster.nodes.keys().copied().collect::<Vec<_>>() {
            let reply = cluster.call(node, 9, get("precious"));
            assert!(error(&reply).1.contains("no majority agrees"), "{count}: {reply:?}");
        }
        // A restart reads the state anew; where the disk is right, so is it.
        cluster.run_ms(10_000);
        assert_eq!(cluster.faults.len(), cluster.nodes.len());
    }
}

/// Membership is part of the state: members come and go between the samples,
/// learn, are promoted, and nobody is alarmed.
#[test]
fn a_change_of_members_alarms_nobody() {
    let mut cluster = forgetful(3);
    let leader = cluster.leader().expect("one leads");
    write_past_a_sample(&mut cluster, leader);
    cluster.start_newcomer(4);
    cluster.call(leader, 1, Request::Join { name: "node4".into(), peer_address: "peer4".into() });
    cluster.run_until("it learns from a snapshot", |cluster| installed(cluster, id(4)) == 1);
    write_past_a_sample(&mut cluster, leader);
    cluster.restart(id(4));
    // Who was away meanwhile learns of it from a snapshot as well.
    let away = (1..=3).map(id).find(|&node| node != leader).expect("a follower");
    for node in 1..=4 {
        cluster.cut.extend([(id(node), away), (away, id(node))]);
    }
    let gone = Request::Leave { name: "node4".into() };
    cluster.call(leader, 1, gone);
    write_past_a_sample(&mut cluster, leader);
    cluster.cut.clear();
    cluster.run_until("it goes on from a snapshot", |cluster| installed(cluster, away) == 1);
    write_past_a_sample(&mut cluster, leader);
    cluster.run_ms(15_000);
    assert!(cluster.faults.is_empty(), "{:?}", cluster.faults);
}
