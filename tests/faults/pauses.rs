//! A process that stands still and does not know it.

use crate::clients::{Clients, PATIENT, seed};
use crate::network::{Cut, Network};
use crate::partitions::{all_is_well, term, wait_successor};

/// Whoever leads stands still past an election, with requests on its sockets. In
/// every other round nothing that tells of its successor reaches it when it goes
/// on: its lease is over by the clock alone.
#[test]
fn a_leader_that_stood_still_is_judged_by_what_it_answers() {
    let (cluster, network) = Network::around(3, &PATIENT);
    let clients = Clients::start(&cluster, seed());
    for round in 0..6 {
        let leader = cluster.wait_leader();
        clients.wait_at(leader, 50);
        let before = term(&cluster.nodes[leader]);
        cluster.nodes[leader].pause();
        if round % 2 == 1 {
            network.deafen(leader, Cut::Stall);
        }
        let successor = wait_successor(&cluster, leader, before);
        clients.wait_at(successor, 100);
        cluster.nodes[leader].resume();
        if round % 2 == 1 {
            // It has said something to them, or has let them wait too long.
            clients.wait_at(successor, 100);
            network.heal();
        }
    }
    all_is_well(&cluster, clients);
}
