//! A snapshot that is on its way when one of the two ends is killed. The network
//! holds it half-way, so the moment is no matter of luck.

use raftcache::request::Consistency;

use crate::clients::{Clients, PATIENT, seed};
use crate::cluster::Cluster;
use crate::cluster::churn::{COMPACTING, Data};
use crate::network::{Cut, Network};
use crate::partitions::{all_is_well, term, wait_successor};

/// A snapshot of it takes several pieces of 1 MiB.
const LARGE: Data = Data { name: "large", keys: 80, value_bytes: 100_000 };

/// Written so often, the memory of a leader no longer holds the log: 16 MiB.
const ROUNDS: u64 = 4;

/// Two pieces, and half of a third.
const HALF_WAY: usize = 5 << 19;

struct Transfer {
    cluster: Cluster,
    network: Network,
    clients: Clients,
    leader: usize,
    receiver: usize,
}

/// A follower was away while the log it needs was compacted; now the leader
/// sends it a snapshot, of which a part has arrived.
fn amid_a_transfer() -> Transfer {
    let (mut cluster, network) = Network::around(3, &[&PATIENT[..], &COMPACTING].concat());
    let clients = Clients::start(&cluster, seed());
    let leader = cluster.wait_leader();
    let receiver = (leader + 1) % 3;
    clients.wait_at(receiver, 50);
    cluster.nodes[receiver].kill9();
    for round in 0..ROUNDS {
        LARGE.write(&mut cluster.user_from(leader), round);
    }
    cluster.wait_compacted();
    network.deafen(receiver, Cut::SnapshotsAt(HALF_WAY));
    cluster.nodes[receiver].start();
    cluster.nodes[receiver].wait_receiving();
    Transfer { cluster, network, clients, leader, receiver }
}

impl Transfer {
    fn completes(self) {
        self.network.heal();
        self.cluster.nodes[self.receiver].wait_restored();
        all_is_well(&self.cluster, self.clients);
        let mut user = self.cluster.nodes[self.receiver].user();
        LARGE.verify(&mut user, ROUNDS - 1, Consistency::Stale);
    }
}

#[test]
fn a_follower_is_killed_while_it_is_sent_a_snapshot() {
    let mut transfer = amid_a_transfer();
    for _ in 0..2 {
        let receiver = &mut transfer.cluster.nodes[transfer.receiver];
        receiver.restart();
        receiver.wait_receiving();
    }
    transfer.completes();
}

/// The other two are a majority only together: the one that holds everything is
/// elected by the one that has half of a snapshot, and sends it another.
#[test]
fn a_leader_is_killed_while_it_sends_a_snapshot() {
    let mut transfer = amid_a_transfer();
    let leader = transfer.leader;
    let before = term(&transfer.cluster.nodes[leader]);
    transfer.cluster.nodes[leader].kill9();
    let successor = wait_successor(&transfer.cluster, leader, before);
    transfer.network.heal();
    transfer.clients.wait_at(successor, 100);
    transfer.cluster.nodes[leader].start();
    transfer.completes();
}
