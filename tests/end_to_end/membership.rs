//! Who belongs to the cluster changes while it is used.

use bytes::Bytes;
use raftcache::client::Error;
use raftcache::request::{Consistency, Key, RoleName};

use super::many_nodes::all_agree;
use crate::cluster::churn::{COMPACTING, Data};
use crate::cluster::load::Load;
use crate::cluster::{Cluster, Node, User, eventually};

const WRITERS: usize = 4;

/// A snapshot of it takes some time on its way.
const LARGE: Data = Data { name: "large", keys: 480, value_bytes: 100_000 };

/// The one that leads is removed amid writes, then the next one.
#[test]
fn leave_of_the_leader_under_load() {
    let mut cluster = Cluster::of(4, &COMPACTING);
    let load = Load::start(&cluster, "load", WRITERS);
    for left in [3, 2] {
        load.wait_for(100);
        let leader = cluster.wait_leader();
        let name = cluster.nodes[leader].name.clone();
        let mut user = cluster.user_from(leader + 1);
        // Asked twice it may be gone already.
        eventually("it is removed", || {
            let removed = user.ask(async |client| client.leave(name.clone()).await);
            let gone = matches!(&removed, Err(Error::Refused(_, why)) if why.contains("no member"));
            if removed.is_ok() || gone { Ok(()) } else { Err(format!("{removed:?}")) }
        });
        assert!(cluster.nodes[leader].wait_for_end().success());
        load.wait_for(100);
        let other = cluster.wait_leader();
        let status = cluster.nodes[other].user().status().expect("a status");
        assert_eq!(status.members.len(), left, "{status:?}");
    }
    println!("without a successful write at most {:.1?}", load.take_longest_gap());
    let written = load.stop();
    all_agree(&cluster, &written);
    cluster.hashes_agree();
}

#[test]
fn transfer_under_load() {
    let cluster = Cluster::of(3, &COMPACTING);
    let load = Load::start(&cluster, "load", WRITERS);
    for round in 0..6 {
        load.wait_for(50);
        let leader = cluster.wait_leader();
        let to = (leader + 1 + round % 2) % 3;
        let name = cluster.nodes[to].name.clone();
        eventually("it leads", || {
            let to = Some(name.clone());
            let moved = cluster.user_from(round).ask(async |client| client.transfer(to).await);
            moved.map_err(|error| error.to_string())
        });
    }
    load.wait_for(50);
    println!("without a successful write at most {:.1?}", load.take_longest_gap());
    let written = load.stop();
    all_agree(&cluster, &written);
    cluster.hashes_agree();
}

/// A dead node is removed, and a machine with an empty disk takes its name.
#[test]
fn a_replacement_takes_the_name_of_a_dead_node() {
    let mut cluster = Cluster::of(3, &COMPACTING);
    let load = Load::start(&cluster, "load", WRITERS);
    load.wait_for(100);
    let dead = (cluster.wait_leader() + 1) % 3;
    let before = cluster.nodes[dead].user().status().expect("a status").node;
    cluster.nodes[dead].kill9();
    let name = cluster.nodes[dead].name.clone();
    let mut user = cluster.user_from(dead + 1);
    eventually("it is removed", || {
        let removed = user.ask(async |client| client.leave(name.clone()).await);
        let gone = matches!(&removed, Err(Error::Refused(_, why)) if why.contains("no member"));
        if removed.is_ok() || gone { Ok(()) } else { Err(format!("{removed:?}")) }
    });
    load.wait_for(50);
    std::fs::remove_dir_all(&cluster.nodes[dead].data_dir).expect("it can be removed");
    let mut others = cluster.addresses();
    others.remove(dead);
    cluster.nodes[dead].join = others;
    cluster.nodes[dead].start();
    cluster.wait_voter(dead);
    load.wait_for(50);
    let status = cluster.nodes[dead].user().status().expect("a status");
    assert_ne!(status.node, before, "an identity is never used twice");
    assert_eq!(status.members.len(), 3, "{status:?}");
    // It counts: with it, the others can do without one of them.
    let other = (dead + 1) % 3;
    cluster.nodes[other].kill9();
    load.wait_for(50);
    cluster.nodes[other].start();
    cluster.wait_serving(other);
    let written = load.stop();
    all_agree(&cluster, &written);
    cluster.hashes_agree();
}

/// Two of two would be needed for everything, so the second counts only when it
/// has everything. Until then it may die, and the first one goes on.
#[test]
fn the_second_node_dies_while_it_joins() {
    let mut cluster = Cluster::one(&COMPACTING);
    let mut user = cluster.user();
    eventually("the log is compacted", || {
        LARGE.write(&mut user, 1);
        if cluster.nodes[0].is_compacted() { Ok(()) } else { Err("not yet".to_owned()) }
    });
    let second = cluster.add_joining();
    let mut user = cluster.nodes[0].user();
    for round in 0..3 {
        cluster.nodes[second].start();
        cluster.nodes[second].wait_receiving();
        cluster.nodes[second].kill9();
        let value = Bytes::from(format!("{round}"));
        user.set("a", value.clone()).expect("nobody else is needed");
        assert_eq!(user.get("a"), Ok(Some(value)));
        let status = user.status().expect("a status");
        assert_eq!(status.role, RoleName::Leader);
        assert_eq!(status.members.iter().filter(|member| member.voter).count(), 1);
    }
    cluster.nodes[second].start();
    cluster.wait_voter(second);
    cluster.wait_caught_up();
    cluster.hashes_agree();
    LARGE.verify(&mut cluster.nodes[second].user(), 1, Consistency::Linearizable);
}

/// Other ports than before, for peers and clients.
fn relocate(node: &mut Node) {
    node.address = node.address.replace(":3", ":5");
    node.peer_address = node.peer_address.replace(":4", ":6");
}

/// Until every node knows each of the cluster where it is.
fn wait_known(cluster: &Cluster) {
    for asked in &cluster.nodes {
        eventually(&format!("{} knows where all are", asked.name), || {
            let status = asked.user().status().map_err(|error| error.to_string())?;
            let is_known = |node: &Node| {
                status.members.iter().any(|member| {
                    member.name == node.name
                        && member.client_address == node.address
                        && member.peer_address == node.peer_address
                })
            };
            if cluster.nodes.iter().all(is_known) { Ok(()) } else { Err(format!("{status:?}")) }
        });
    }
}

/// It needs nobody's help: those it finds in its log are told where it is now.
#[test]
fn a_member_that_is_moved_says_where_it_is() {
    let mut cluster = Cluster::of(3, &[]);
    cluster.user().set("a", "1").expect("a write");
    let moved = (cluster.wait_leader() + 1) % 3;
    let before = cluster.nodes[moved].user().status().expect("a status");
    assert!(cluster.nodes[moved].sigterm().success());
    relocate(&mut cluster.nodes[moved]);
    cluster.nodes[moved].join = Vec::new();
    cluster.nodes[moved].start();
    wait_known(&cluster);
    let status = cluster.nodes[moved].user().status().expect("a status");
    assert_eq!(status.node, before.node, "it is who it was");
    assert!(status.members.iter().all(|member| member.voter), "{status:?}");
    assert_eq!(cluster.nodes[moved].user().get("a"), Ok(Some(Bytes::from("1"))));
}

/// A cluster of one has nobody to tell but itself.
#[test]
fn a_node_alone_is_moved() {
    let mut cluster = Cluster::one(&[]);
    cluster.user().set("a", "1").expect("a write");
    assert!(cluster.nodes[0].sigterm().success());
    relocate(&mut cluster.nodes[0]);
    cluster.nodes[0].start();
    wait_known(&cluster);
    assert_eq!(cluster.user().get("a"), Ok(Some(Bytes::from("1"))));
}

/// No address in any log is right, so nobody can lead until they have found each
/// other where --join says; a dead one among them does not matter.
#[test]
fn all_members_are_moved_at_once() {
    let mut cluster = Cluster::of(3, &[]);
    cluster.user().set("a", "1").expect("a write");
    let dead = cluster.nodes[0].address.clone();
    for node in &mut cluster.nodes {
        node.kill9();
        relocate(node);
    }
    let addresses = cluster.addresses();
    for (number, node) in cluster.nodes.iter_mut().enumerate() {
        node.join = vec![dead.clone(), addresses[(number + 1) % 3].clone()];
        node.start();
    }
    wait_known(&cluster);
    cluster.wait_leader();
    assert_eq!(cluster.user().get("a"), Ok(Some(Bytes::from("1"))));
    cluster.user().set("a", "2").expect("a write");
    cluster.wait_caught_up();
    cluster.hashes_agree();
}

/// Started without --join, it has founded a cluster of its own. Nobody has used
/// that, so it says what is wrong and ends instead of serving beside the others.
#[test]
fn who_should_have_joined_and_has_nothing_ends() {
    let mut cluster = Cluster::one(&[]);
    let (name, peer) = start_apart(&mut cluster);
    let mut user = cluster.nodes[0].user();
    let joined = user.ask(async |client| client.join(name, peer).await);
    assert!(joined.expect_err("it is a cluster").to_string().contains("another cluster"));
    let status = cluster.nodes[1].wait_for_end();
    assert!(status.code().is_some_and(|code| code != 0), "{status:?}");
    let log = cluster.nodes[1].log();
    let last = log.lines().last().unwrap_or_default();
    assert!(last.starts_with("cached: ") && last.contains("--join"), "{log}");
    user.set("a", "1").expect("a write");
}

/// A disk is lost, and the node is started again as if it were the first.
#[test]
fn a_member_that_has_founded_a_cluster_instead_ends() {
    let mut cluster = Cluster::of(3, &[]);
    let lost = (cluster.wait_leader() + 1) % 3;
    cluster.nodes[lost].kill9();
    std::fs::remove_dir_all(&cluster.nodes[lost].data_dir).expect("it can be removed");
    cluster.nodes[lost].join = Vec::new();
    cluster.nodes[lost].start();
    assert!(!cluster.nodes[lost].wait_for_end().success());
    let log = cluster.nodes[lost].log();
    assert!(log.lines().last().is_some_and(|last| last.contains("--join")), "{log}");
}

/// No stranger stops a node that holds anything, also after it has started again.
#[test]
fn who_should_have_joined_and_has_data_stays() {
    let mut cluster = Cluster::one(&[]);
    let (name, peer) = start_apart(&mut cluster);
    let mut theirs = cluster.nodes[1].user();
    theirs.set("a", "theirs").expect("a write");
    theirs.ask(async |client| client.delete(Key::new("a")).await).expect("a write");
    for told in 1..=2 {
        let (name, peer) = (name.clone(), peer.clone());
        let joined = cluster.nodes[0].user().ask(async |client| client.join(name, peer).await);
        let error = joined.expect_err("it belongs to another cluster").to_string();
        assert!(error.contains("another cluster") && error.contains("--join"), "{error}");
        eventually("it says so", || {
            let log = cluster.nodes[1].log();
            let said = log.lines().filter(|line| line.contains("expects this node there"));
            if said.count() >= told { Ok(()) } else { Err(log) }
        });
        theirs.set("b", "theirs").expect("it serves");
        cluster.nodes[1].restart();
        cluster.wait_serving(1);
    }
    assert_eq!(theirs.get("b"), Ok(Some(Bytes::from("theirs"))));
}

/// Nor one that others count on.
#[test]
fn who_should_have_joined_and_has_members_stays() {
    let mut cluster = Cluster::one(&[]);
    let (name, peer) = start_apart(&mut cluster);
    let third = cluster.add();
    cluster.nodes[third].join = vec![cluster.nodes[1].address.clone()];
    cluster.nodes[third].start();
    let voters = |user: &mut User| {
        let members = user.status().map_err(|error| error.to_string())?.members;
        let voters = members.iter().filter(|member| member.voter).count();
        if voters == 2 { Ok(()) } else { Err(format!("{members:?}")) }
    };
    let mut theirs = cluster.nodes[1].user();
    eventually("it has another voter", || voters(&mut theirs));
    let joined = cluster.nodes[0].user().ask(async |client| client.join(name, peer).await);
    joined.expect_err("it belongs to another cluster");
    eventually("it says so", || {
        let log = cluster.nodes[1].log();
        if log.contains("expects this node there") { Ok(()) } else { Err(log) }
    });
    theirs.set("a", "theirs").expect("it serves");
}

/// A second node that founds a cluster of its own; its name and peer address.
fn start_apart(cluster: &mut Cluster) -> (String, String) {
    let apart = cluster.add();
    cluster.nodes[apart].start();
    cluster.wait_serving(apart);
    let node = &cluster.nodes[apart];
    (node.name.clone(), node.peer_address.clone())
}
