//! Several nodes: what one of them acknowledged all of them have, whoever dies.
//!
//! A cluster in a test holds an election only where the test is about that; a
//! machine that is busy with other tests must not cause one.

use std::time::{Duration, Instant};

use bytes::Bytes;
use raftcache::client::Error;
use raftcache::request::{Condition, Consistency, ErrorKind, Expiry, Key, RoleName};

use super::wire::{Wire, found, get, keeps_the_order_of_a_pipeline};
use crate::cluster::load::{Load, Written};
use crate::cluster::{Cluster, User, eventually};

const WRITERS: usize = 8;

/// Longer without one successful write is an outage, on any machine.
const OUTAGE: Duration = Duration::from_secs(30);

/// Small files, so that kills fall between them too.
const SMALL: [&str; 2] = ["--segment-bytes", "1048576"];

/// Every node that runs has every acknowledged write, and all have the same.
pub(super) fn all_agree(cluster: &Cluster, written: &Written) {
    cluster.wait_caught_up();
    let running = || cluster.nodes.iter().filter(|node| node.runs());
    let mut all = Vec::new();
    for node in running() {
        all.push((&node.name, written.verify(&mut node.user(), Consistency::Linearizable)));
    }
    // A read through the leader has been answered everywhere, so all is applied.
    cluster.wait_caught_up();
    for node in running() {
        all.push((&node.name, written.verify(&mut node.user(), Consistency::Stale)));
    }
    for (name, found) in &all {
        assert!(*found == all[0].1, "{name} holds something else than {}", all[0].0);
    }
}

/// A number below `limit` that differs from run to run; the failing one is in
/// the output.
pub(super) fn random_below(limit: u64) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let number = RandomState::new().hash_one(()) % limit;
    println!("after {number} more writes");
    number
}

/// Ten times the leader is killed at a random moment, then all at once.
#[test]
fn kill_9_of_leaders_loses_nothing_acknowledged() {
    let mut cluster = Cluster::of(3, &SMALL);
    let load = Load::start(&cluster, "load", WRITERS);
    let mut gaps = Vec::new();
    for _ in 0..10 {
        load.wait_for(50 + random_below(500));
        let leader = cluster.wait_leader();
        cluster.nodes[leader].kill9();
        load.wait_for(50);
        cluster.nodes[leader].start();
        gaps.push(load.take_longest_gap());
    }
    load.wait_for(50 + random_below(500));
    cluster.nodes.iter_mut().for_each(|node| node.kill9());
    cluster.nodes.iter_mut().for_each(|node| node.start());
    load.wait_for(200);
    gaps.push(load.take_longest_gap());
    println!("without a successful write, leader killed ten times, then all: {gaps:.1?}");
    println!("{} writes acknowledged", load.acknowledged());
    let written = load.stop();
    all_agree(&cluster, &written);
    assert!(gaps.iter().all(|&gap| gap < OUTAGE), "{gaps:?}");
}

/// The process that leads stands still for as long as it takes another one to be
/// elected and to be written to. A read has arrived by the time it goes on, and
/// nothing that tells of its successor needs to have: its lease is over, by a
/// clock that does not stand still.
#[test]
fn a_leader_that_was_paused_serves_nothing_of_before() {
    let cluster = Cluster::of(3, &[]);
    for round in 0..6 {
        let leader = cluster.wait_leader();
        let paused = &cluster.nodes[leader];
        let (old, new) = (format!("old {round}"), format!("new {round}"));
        paused.user().set("a", old.clone()).expect("a write");
        let mut wire = Wire::to(paused);
        wire.send(&get("a"));
        assert_eq!(wire.receive(found(old.as_bytes()).len()), found(old.as_bytes()));
        paused.pause();
        wire.send(&get("a"));
        let others = cluster.addresses().into_iter().filter(|address| *address != paused.address);
        let mut others = User::new(others);
        eventually("another one takes a write", || {
            others.set("a", new.clone()).map_err(|error| error.to_string())
        });
        paused.resume();
        assert_eq!(wire.receive(found(new.as_bytes()).len()), found(new.as_bytes()));
    }
}

/// Each in turn is asked to end, under load. It hands over what it has begun.
#[test]
fn sigterm_of_each_in_turn_loses_nothing() {
    let mut cluster = Cluster::of(3, &SMALL);
    let load = Load::start(&cluster, "load", WRITERS);
    for node in 0..3 {
        load.wait_for(100);
        let status = cluster.nodes[node].sigterm();
        assert!(status.success(), "{status}");
        load.wait_for(100);
        cluster.nodes[node].start();
        cluster.wait_serving(node);
    }
    let gap = load.take_longest_gap();
    println!("without a successful write at most {gap:.1?}");
    let written = load.stop();
    all_agree(&cluster, &written);
}

#[test]
fn five_nodes_survive_the_loss_of_two() {
    let mut cluster = Cluster::of(5, &SMALL);
    let load = Load::start(&cluster, "load", WRITERS);
    load.wait_for(200);
    let leader = cluster.wait_leader();
    let other = (leader + 1) % 5;
    cluster.nodes[leader].kill9();
    cluster.nodes[other].kill9();
    load.wait_for(200);
    println!("without a successful write at most {:.1?}", load.take_longest_gap());
    cluster.nodes[leader].start();
    cluster.nodes[other].start();
    load.wait_for(200);
    let written = load.stop();
    all_agree(&cluster, &written);
}

/// Two of three are gone: nothing is acknowledged and nothing hangs; every
/// request is answered with what is known.
#[test]
fn without_a_majority_nothing_is_acknowledged() {
    let mut cluster = Cluster::of(3, &["--request-timeout-ms", "500"]);
    cluster.user().set("before", "1").expect("a write");
    // The one that is left must have it too.
    cluster.wait_caught_up();
    let leader = cluster.wait_leader();
    let (killed, left) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.nodes[leader].kill9();
    cluster.nodes[killed].kill9();
    let mut user = cluster.nodes[left].user();
    for _ in 0..3 {
        let error = user.set("after", "1").expect_err("there is no majority");
        let is_known = matches!(error, Error::Refused(ErrorKind::NoLeader, _) | Error::Unknown(_));
        assert!(is_known, "{error:?}");
        let error = user.get("before").expect_err("nobody knows whether that is the last value");
        assert!(matches!(error, Error::Refused(ErrorKind::NoLeader, _)), "{error:?}");
    }
    let stale =
        user.ask(async |client| client.get_with(Key::new("before"), Consistency::Stale).await);
    let value = stale.expect("a stale read asks nobody").map(|item| item.value);
    assert_eq!(value, Some(Bytes::from("1")));
    cluster.nodes[leader].start();
    cluster.nodes[killed].start();
    cluster.wait_leader();
    cluster.user().set("after", "2").expect("there is a majority again");
    assert_eq!(user.get("after"), Ok(Some(Bytes::from("2"))));
}

/// A node that cannot be reached never counts, and the cluster goes on.
#[test]
fn join_of_an_address_that_nobody_answers() {
    let mut cluster = Cluster::of(3, &["--request-timeout-ms", "1000"]);
    let nobody = cluster.add();
    let address = cluster.nodes[nobody].peer_address.clone();
    let mut user = cluster.nodes[0].user();
    let error = user.ask(async |client| client.join("ghost".to_owned(), address.clone()).await);
    let error = error.expect_err("nobody is there").to_string();
    assert!(error.contains(&address), "it names the address: {error}");
    user.set("a", "1").expect("the quorum is what it was");
    let members = user.ask(async |client| client.members().await).expect("members");
    assert_eq!(members.iter().filter(|member| member.voter).count(), 3, "{members:?}");
}

/// Another machine comes with the name of a member that is well: it is told to
/// go away, and the member stays.
#[test]
fn join_with_the_name_of_a_member() {
    let mut cluster = Cluster::of(3, &[]);
    cluster.user().set("a", "1").expect("a write");
    let impostor = cluster.add_joining();
    let name = cluster.nodes[1].name.clone();
    cluster.nodes[impostor].name.clone_from(&name);
    cluster.nodes[impostor].start();
    eventually("it is told why", || {
        let log = cluster.nodes[impostor].log();
        if log.contains(&name) && log.contains("--rebuild") { Ok(()) } else { Err(log) }
    });
    let status = cluster.nodes[1].user().status().expect("a status");
    assert_eq!(status.members.len(), 3, "{status:?}");
    assert!(status.members.iter().any(|member| member.node == status.node && member.voter));
    cluster.user().set("a", "2").expect("a write");
}

/// Joining is not harmed by being asked for twice, and any member can be asked.
#[test]
fn join_twice_and_by_a_follower() {
    let mut cluster = Cluster::of(3, &[]);
    let follower = (cluster.wait_leader() + 1) % 3;
    let newcomer = cluster.add();
    let address = cluster.nodes[follower].address.clone();
    cluster.nodes[newcomer].join = vec![format!("http://{address}")];
    cluster.nodes[newcomer].start();
    cluster.wait_voter(newcomer);
    let mut user = cluster.nodes[follower].user();
    let (name, peer) =
        (cluster.nodes[newcomer].name.clone(), cluster.nodes[newcomer].peer_address.clone());
    for _ in 0..2 {
        let (name, peer) = (name.clone(), peer.clone());
        user.ask(async |client| client.join(name, peer).await).expect("it is a member");
    }
    let members = user.ask(async |client| client.members().await).expect("members");
    assert_eq!(members.len(), 4, "{members:?}");
    assert!(members.iter().all(|member| member.voter), "{members:?}");
}

/// A member that is started again with `--join` does not join again, so a dead
/// target does not matter.
#[test]
fn restart_with_a_dead_target() {
    let mut cluster = Cluster::of(3, &[]);
    cluster.user().set("a", "1").expect("a write");
    let follower = (cluster.wait_leader() + 1) % 3;
    cluster.nodes[follower].kill9();
    let nobody = cluster.add();
    let address = cluster.nodes[nobody].address.clone();
    cluster.nodes[follower].join = vec![address];
    cluster.nodes[follower].start();
    cluster.wait_serving(follower);
    cluster.wait_leader();
    assert_eq!(cluster.nodes[follower].user().get("a"), Ok(Some(Bytes::from("1"))));
}

/// A member whose disk is gone is another node, whatever its name. While the
/// rest of the cluster is well it does not come back as the member it was: it
/// could vote a second time.
#[test]
fn an_empty_directory_under_a_known_name() {
    let mut cluster = Cluster::of(3, &[]);
    let mut user = cluster.user();
    user.set("a", "1").expect("a write");
    let follower = (cluster.wait_leader() + 1) % 3;
    let before = cluster.nodes[follower].user().status().expect("a status");
    cluster.nodes[follower].kill9();
    std::fs::remove_dir_all(&cluster.nodes[follower].data_dir).expect("it can be removed");
    let own = cluster.nodes[follower].address.clone();
    cluster.nodes[follower].join = cluster.addresses();
    cluster.nodes[follower].join.retain(|address| *address != own);
    cluster.nodes[follower].flags.push("--rebuild".to_owned());
    cluster.nodes[follower].start();
    eventually("it has come back as another one", || {
        let status = cluster.nodes[follower].user().status().map_err(|error| error.to_string())?;
        assert_ne!(status.node, before.node, "an identity is never used twice");
        let is_voter =
            |member: &raftcache::request::MemberInfo| member.node == status.node && member.voter;
        match status.members.iter().any(is_voter) {
            true if status.members.len() == 3 => Ok(()),
            _ => Err(format!("{status:?}")),
        }
    });
    let mut user = cluster.nodes[follower].user();
    assert_eq!(user.get("a"), Ok(Some(Bytes::from("1"))));
}

/// A node that belongs to one cluster is not taken into another, and neither
/// of them is harmed.
#[test]
fn a_node_of_another_cluster() {
    let mut cluster = Cluster::of(3, &[]);
    let stranger = cluster.add();
    cluster.nodes[stranger].start();
    cluster.wait_serving(stranger);
    let mut theirs = cluster.nodes[stranger].user();
    theirs.set("a", "theirs").expect("a write");
    let id = theirs.status().expect("a status").cluster;
    let (name, peer) =
        (cluster.nodes[stranger].name.clone(), cluster.nodes[stranger].peer_address.clone());
    let mut ours = cluster.nodes[0].user();
    ours.set("a", "ours").expect("a write");
    let joined = ours.ask(async |client| client.join(name, peer).await);
    joined.expect_err("it belongs to another cluster");
    assert_eq!(ours.get("a"), Ok(Some(Bytes::from("ours"))));
    let members = ours.ask(async |client| client.members().await).expect("members");
    assert_eq!(members.len(), 3, "{members:?}");
    assert_ne!(ours.status().expect("a status").cluster, id);
}

/// A follower forwards what stands in a pipeline in its order: a GET behind a
/// SET sees it.
#[test]
fn a_pipeline_through_a_follower() {
    let cluster = Cluster::of(3, &[]);
    let follower = (cluster.wait_leader() + 1) % 3;
    keeps_the_order_of_a_pipeline(&cluster.nodes[follower]);
}

/// What is written through any node is read through any other at once.
#[test]
fn every_node_serves_what_any_node_acknowledged() {
    let cluster = Cluster::of(3, &[]);
    let mut users: Vec<User> = cluster.nodes.iter().map(|node| node.user()).collect();
    for number in 0..60 {
        let value = Bytes::from(format!("{number}"));
        users[number % 3].set("a", value.clone()).expect("a write");
        for user in &mut users {
            assert_eq!(user.get("a"), Ok(Some(value.clone())));
        }
    }
}

/// A key that lives for a second is gone on every node when the second is over,
/// also if the leader that took it is dead by then. Nobody sees it again.
#[test]
fn a_deadline_holds_on_every_node_and_after_failover() {
    let mut cluster = Cluster::of(3, &[]);
    let leader = cluster.wait_leader();
    let expiry = Expiry::AfterMs(1000);
    let set = cluster.nodes[leader].user().ask(async |client| {
        let value = Bytes::from("short");
        client.set_with(Key::new("a"), value, expiry, Condition::Always).await
    });
    set.expect("a write");
    // The clocks of one machine agree; log time may be slower by one in 200.
    let deadline = Instant::now() + Duration::from_millis(1006);
    cluster.nodes[leader].kill9();
    let left: Vec<_> = (0..3).filter(|&node| node != leader).collect();
    for &node in &left {
        let mut user = cluster.nodes[node].user();
        eventually("the key is gone", || {
            let begun = Instant::now();
            match user.get("a").map_err(|error| error.to_string())? {
                None => Ok(()),
                Some(_) if begun > deadline => panic!("it is seen after its deadline"),
                Some(_) => Err("it is there".to_owned()),
            }
        });
    }
    // A stale read may be late, but it does not go back in time.
    for &node in &left {
        let mut user = cluster.nodes[node].user();
        let mut stale = || {
            let read =
                user.ask(async |client| client.get_with(Key::new("a"), Consistency::Stale).await);
            read.expect("a stale read asks nobody")
        };
        eventually("the key is gone for stale reads", || match stale() {
            None => Ok(()),
            Some(item) => Err(format!("{item:?}")),
        });
        assert!((0..20).all(|_| stale().is_none()), "it came back");
    }
    cluster.nodes[leader].start();
    cluster.wait_serving(leader);
    for node in &cluster.nodes {
        for _ in 0..10 {
            assert_eq!(node.user().get("a"), Ok(None), "it came back at {}", node.name);
        }
    }
}

/// Who is removed says so and ends; the rest goes on. Also if it is the leader.
#[test]
fn a_removed_leader_ends_and_the_rest_goes_on() {
    let mut cluster = Cluster::of(3, &[]);
    let leader = cluster.wait_leader();
    cluster.user().set("a", "1").expect("a write");
    let name = cluster.nodes[leader].name.clone();
    let mut user = cluster.user_from(leader + 1);
    let removed = user.ask(async |client| client.leave(name.clone()).await);
    assert!(matches!(removed, Ok(()) | Err(Error::Unknown(_))), "{removed:?}");
    assert!(cluster.nodes[leader].wait_for_end().success());
    let other = cluster.wait_leader();
    let status = cluster.nodes[other].user().status().expect("a status");
    assert_eq!(status.role, RoleName::Leader);
    assert_eq!(status.members.len(), 2, "{status:?}");
    assert_eq!(cluster.nodes[other].user().get("a"), Ok(Some(Bytes::from("1"))));
    cluster.nodes[other].user().set("a", "2").expect("a write");
}
