//! States that differ although the logs agree. A bit has flipped in what a node
//! keeps of the log, so it has applied something that no other node has.

use crate::cluster::{Cluster, id};
use crate::{error, get, is_stored, set, value};
use raftcache::fsm::{Action, Proposal};
use raftcache::raft::{NodeId, Payload, Recovered};
use raftcache::replica::agreement::SAMPLE_EVERY;
use raftcache::request::{Command, ErrorKind, Request};

/// Writes so often that every node notes the hash of its state once more.
fn write_past_a_sample(cluster: &mut Cluster, through: NodeId) {
    let last = |cluster: &Cluster| cluster.nodes[&through].driver.replica().raft().last().index.0;
    let until = (last(cluster) / SAMPLE_EVERY + 1) * SAMPLE_EVERY + 10;
    while last(cluster) < until {
        let asked: Vec<_> =
            (0..100).map(|n| cluster.ask(through, n, set(&format!("k{n}"), "v"))).collect();
        for asked in asked {
            assert!(is_stored(&cluster.wait_for(asked)));
        }
    }
}

/// The first set of `key` is one of another value.
fn flip(journal: &mut Recovered, key: &str) {
    for entry in &mut journal.entries {
        let Payload::Command(command) = &mut entry.payload else { continue };
        let mut proposal = Proposal::decode(command.clone()).expect("a proposal");
        let Action::Run { batch, .. } = &mut proposal.action else { continue };
        if let Command::Set { key: name, value, .. } = &mut batch.commands[0]
            && &name.name[..] == key.as_bytes()
        {
            *value = "flipped".into();
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

fn restart_flipped(cluster: &mut Cluster, node: NodeId) {
    cluster.restart_changed(node, |journal| flip(journal, "precious"));
}

fn hashes_agree(cluster: &mut Cluster) {
    cluster.run_until("all have applied everything", |cluster| {
        let applied = |node: &crate::cluster::Node| node.driver.replica().fsm().applied();
        let first = cluster.nodes.values().map(applied).next();
        cluster.nodes.values().all(|node| Some(applied(node)) == first)
    });
    let hash = |node: &crate::cluster::Node| node.driver.replica().fsm().contents_hash();
    let hashes: std::collections::BTreeSet<u64> = cluster.nodes.values().map(hash).collect();
    assert_eq!(hashes.len(), 1, "{hashes:x?}");
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
    cluster.run_until("it stops", |cluster| cluster.faults.contains_key(&wrong));
    assert!(cluster.faults[&wrong].contains("differs from the majority"), "{:?}", cluster.faults);
    let reply = cluster.call(wrong, 3, get("precious"));
    assert_eq!(error(&reply).0, ErrorKind::NotServing, "{reply:?}");
    cluster.run_until("it serves again", |cluster| cluster.faults.is_empty());
    assert_eq!(installed(&cluster, wrong), 1);
    let reply = cluster.call(wrong, 4, get("precious"));
    assert_eq!(value(&reply).as_deref(), Some("right"));
    // And goes on as everybody else, also through a restart.
    write_past_a_sample(&mut cluster, wrong);
    cluster.restart(wrong);
    hashes_agree(&mut cluster);
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
    hashes_agree(&mut cluster);
}

/// What is in doubt is its state, not its log: its disk and its vote count.
#[test]
fn who_differs_goes_on_storing_and_voting() {
    let (mut cluster, leader) = voters(3);
    let wrong = cluster.follower();
    let other = (1..=3).map(id).find(|&node| node != leader && node != wrong).expect("a third");
    restart_flipped(&mut cluster, wrong);
    write_past_a_sample(&mut cluster, leader);
    cluster.run_until("it stops", |cluster| cluster.faults.contains_key(&wrong));
    cluster.kill(leader);
    cluster.run_until("the third leads", |cluster| cluster.leader() == Some(other));
    assert!(is_stored(&cluster.call(other, 5, set("precious", "newer"))));
    cluster.run_until("it serves again", |cluster| cluster.faults.is_empty());
    let reply = cluster.call(wrong, 4, get("precious"));
    assert_eq!(value(&reply).as_deref(), Some("newer"));
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
    let (mut cluster, leader) = voters(3);
    cluster.start_newcomer(4);
    cluster.call(leader, 1, Request::Join { name: "node4".into(), peer_address: "peer4".into() });
    write_past_a_sample(&mut cluster, leader);
    let gone = Request::Leave { name: format!("node{}", cluster.follower().0) };
    cluster.call(leader, 1, gone);
    write_past_a_sample(&mut cluster, leader);
    cluster.run_ms(15_000);
    assert!(cluster.faults.is_empty(), "{:?}", cluster.faults);
}
