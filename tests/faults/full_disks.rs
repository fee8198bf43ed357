//! Disks without room.

use raftcache::client::Error;
use raftcache::request::ErrorKind;

use crate::clients::{Clients, PATIENT, seed};
use crate::cluster::disk::is_permitted;
use crate::cluster::{Cluster, eventually};
use crate::partitions::{all_is_well, term, wait_successor};

/// Enough for all that is written here: nothing but a test fills it.
const DISK: &str = "128m";

/// Files so small that a full disk is soon noticed, and so large that what is still
/// taken until the leader hears of it has its place: else nobody new can lead. And
/// no snapshot, which could make room.
const SMALL: [&str; 2] = ["--segment-bytes", "2000000"];

fn on_disks() -> Cluster {
    Cluster::on_disks(&[Some(DISK); 3], &[&PATIENT[..], &SMALL].concat())
}

/// Until a write of nobody else is taken.
fn wait_written(cluster: &Cluster) {
    let mut user = cluster.user();
    eventually("a write", || user.set("another", "value").map_err(|error| error.to_string()));
}

/// Until every node says to a write that there is no room for it; and all of them
/// are still read.
fn wait_only_read(cluster: &Cluster, clients: &Clients) {
    let running = || cluster.nodes.iter().enumerate().filter(|(_, node)| node.runs());
    for (_, node) in running() {
        let mut user = node.user();
        eventually(&format!("{} refuses a write", node.name), || {
            match user.set("another", "value") {
                Err(Error::Refused(ErrorKind::DiskFull, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
    running().for_each(|(number, _)| clients.wait_at(number, 50));
}

/// Twice, whoever leads has no room any more, and the second time it is killed as
/// well. When it has room again it counts again: without one of the others, it is
/// needed.
#[test]
fn a_leader_whose_disk_is_full() {
    if !is_permitted() {
        return;
    }
    let mut cluster = on_disks();
    let clients = Clients::start(&cluster, seed());
    for is_killed in [false, true] {
        let full = cluster.wait_leader();
        clients.wait_at(full, 50);
        let before = term(&cluster.nodes[full]);
        cluster.nodes[full].disk().fill();
        let successor = wait_successor(&cluster, full, before);
        if is_killed {
            cluster.nodes[full].restart();
        }
        clients.wait_at(full, 100);
        wait_written(&cluster);
        cluster.nodes[full].disk().make_room();
        cluster.wait_caught_up();
        let third = 3 - full - successor;
        cluster.nodes[third].kill9();
        wait_written(&cluster);
        cluster.nodes[third].start();
        clients.wait_at(third, 50);
    }
    all_is_well(&cluster, clients);
}

/// Both followers at first, then the leader and a follower. All are killed, and
/// these two are there first: what was acknowledged is on their disks.
#[test]
fn a_majority_whose_disks_are_full() {
    if !is_permitted() {
        return;
    }
    let mut cluster = on_disks();
    let clients = Clients::start(&cluster, seed());
    for distance in [0, 1] {
        let with_room = (cluster.wait_leader() + distance) % 3;
        let full = [(with_room + 1) % 3, (with_room + 2) % 3];
        clients.wait_anywhere(50);
        full.iter().for_each(|&node| cluster.nodes[node].disk().fill());
        wait_only_read(&cluster, &clients);
        cluster.nodes.iter_mut().for_each(|node| node.kill9());
        full.iter().for_each(|&node| cluster.nodes[node].start());
        wait_only_read(&cluster, &clients);
        cluster.nodes[with_room].start();
        wait_only_read(&cluster, &clients);
        full.iter().for_each(|&node| cluster.nodes[node].disk().make_room());
        wait_written(&cluster);
    }
    all_is_well(&cluster, clients);
}
