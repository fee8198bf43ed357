//! Who belongs to the cluster changes while it is used.

use bytes::Bytes;
use raftcache::client::Error;
use raftcache::request::{Consistency, RoleName};

use super::many_nodes::all_agree;
use crate::cluster::churn::{COMPACTING, Data};
use crate::cluster::load::Load;
use crate::cluster::{Cluster, eventually};

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
