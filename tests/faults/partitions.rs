//! Links between nodes that carry nothing, or carry it one way.

use raftcache::request::RoleName;

use crate::clients::{Clients, PATIENT, seed};
use crate::cluster::{Cluster, Node, eventually};
use crate::network::{Cut, Network};

/// Until somebody else leads, in a later term; its number.
pub fn wait_successor(cluster: &Cluster, leader: usize, term: u64) -> usize {
    let others = || cluster.nodes.iter().enumerate().filter(|(number, _)| *number != leader);
    eventually("another leader", || {
        let leads = |node: &Node| {
            let status = node.user().status();
            status.is_ok_and(|status| status.role == RoleName::Leader && status.term > term)
        };
        let successor = others().find(|(_, node)| node.runs() && leads(node));
        successor.map(|(number, _)| number).ok_or("nobody else leads".to_owned())
    })
}

pub fn term(node: &Node) -> u64 {
    node.user().status().expect("a status").term
}

/// All that is left when everybody hears everybody again.
pub fn all_is_well(cluster: &Cluster, clients: Clients) {
    for node in 0..cluster.nodes.len() {
        clients.wait_at(node, 50);
    }
    clients.judge(cluster);
    cluster.wait_leader();
    cluster.wait_caught_up();
    cluster.hashes_agree();
}

/// It knows of no leader, or cannot reach it. How it says so is its own matter.
fn has_no_value(node: &Node) {
    if let Ok(value) = node.user().get("a") {
        panic!("{} is cut off and says {value:?}", node.name);
    }
}

/// Twice, whoever leads is cut off like this, and those who stay with it go on
/// asking.
fn a_leader_is_cut_off(cut_off: impl Fn(&Network, usize)) {
    let (cluster, network) = Network::around(3, &PATIENT);
    let clients = Clients::start(&cluster, seed());
    for _ in 0..2 {
        let leader = cluster.wait_leader();
        clients.wait_at(leader, 50);
        let before = term(&cluster.nodes[leader]);
        cut_off(&network, leader);
        let successor = wait_successor(&cluster, leader, before);
        clients.wait_at(successor, 100);
        has_no_value(&cluster.nodes[leader]);
        clients.wait_anywhere(50);
        network.heal();
    }
    all_is_well(&cluster, clients);
}

#[test]
fn a_leader_whose_links_stall() {
    a_leader_is_cut_off(|network, leader| network.isolate(leader, Cut::Stall));
}

#[test]
fn a_leader_whose_links_are_closed() {
    a_leader_is_cut_off(|network, leader| network.isolate(leader, Cut::Close));
}

/// It goes on to speak, and nobody's answer arrives: it may not lead on.
#[test]
fn a_leader_that_hears_nobody() {
    a_leader_is_cut_off(|network, leader| network.deafen(leader, Cut::Stall));
}

/// The others elect somebody else, whom it hears.
#[test]
fn a_leader_that_nobody_hears() {
    a_leader_is_cut_off(|network, leader| network.mute(leader, Cut::Stall));
}

/// One follower and the leader do not reach each other, and the third node
/// reaches both: it goes on with the leader, whatever the follower tries.
#[test]
fn a_follower_that_only_another_follower_reaches() {
    let (cluster, network) = Network::around(3, &PATIENT);
    let clients = Clients::start(&cluster, seed());
    let leader = cluster.wait_leader();
    let (follower, bridge) = ((leader + 1) % 3, (leader + 2) % 3);
    network.cut(leader, follower, Cut::Stall);
    network.cut(follower, leader, Cut::Stall);
    for _ in 0..3 {
        eventually("the follower would lead", || {
            let status = cluster.nodes[follower].user().status();
            match status.map_err(|error| error.to_string())? {
                status if status.role == RoleName::Candidate => Ok(()),
                status => Err(format!("{status:?}")),
            }
        });
        clients.wait_at(bridge, 200);
        clients.wait_anywhere(50);
    }
    network.heal();
    all_is_well(&cluster, clients);
}
