//! Asking to be taken into a cluster, and saying where one is.
//!
//! A newcomer asks the members it was told of, in turn, until it finds itself a
//! member. Being answered is not enough: what a leader promises may be lost with
//! it. Asking again does no harm, for it is the same node that asks. No answer
//! ends the process; an operator who reads the log can mend what is wrong while
//! it goes on asking.
//!
//! A member that starts again does not join again. But if it hears of no leader,
//! or the others know it elsewhere, it was moved, or they were: it asks the same
//! way, and who is asked looks where it is. [All nodes of a cluster are moved at
//! once: no address in any log is right, and nobody can lead and mend that
//! before they have found each other.] Those it was told to join are where to
//! ask, and so is every member it knows of; a dead one does not matter.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;

use super::address;
use crate::client::Client;
use crate::raft::Raft;

const FIRST_WAIT: Duration = Duration::from_millis(300);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// How long one member may take: it waits for the leader, who looks whether the
/// newcomer can be reached.
const PATIENCE: Duration = Duration::from_secs(10);

/// So many different answers are said once each.
const ANSWERS: usize = 64;

/// How a node stands with its cluster.
#[derive(Debug, Default)]
pub struct Standing {
    /// Whether the log names it, committed or not.
    is_named: bool,
    /// Whether it is a member, by an entry that is committed.
    belongs: bool,
    /// And whether it hears of a leader, and others know where it is.
    is_settled: bool,
    /// Client addresses of the other members.
    others: Vec<String>,
}

impl Standing {
    /// That of a node with these addresses of its own.
    pub fn of(raft: &Raft, peer_address: &str, client_address: &str) -> Self {
        let is_known = raft.applied_membership().get(raft.id()).map(|member| {
            address::is_known_as(peer_address, &member.peer_address)
                && address::is_known_as(client_address, &member.client_address)
        });
        let others = raft.membership().iter().filter(|&(node, _)| node != raft.id());
        Self {
            is_named: raft.membership().contains(raft.id()),
            belongs: is_known.is_some(),
            is_settled: is_known == Some(true) && raft.leader().is_some(),
            others: others.map(|(_, member)| member.client_address.clone()).collect(),
        }
    }
}

/// Who asks whom.
pub struct Asking {
    /// Client addresses of members, as far as the operator knows.
    pub hints: Vec<String>,
    /// This node's name.
    pub name: String,
    /// Where its peers reach it.
    pub peer_address: String,
    /// Where clients reach it.
    pub client_address: String,
    /// Kept up to date as long as somebody asks.
    pub standing: Rc<RefCell<Standing>>,
}

impl Asking {
    /// Asks until it belongs, and is found.
    pub async fn run(self) {
        let mut said = BTreeSet::new();
        let mut wait = FIRST_WAIT;
        // A member that starts again is found soon, if it is where it was.
        if self.standing.borrow().is_named {
            sleep(LONGEST_WAIT).await;
        }
        for round in 0.. {
            if self.standing.borrow().is_settled {
                return;
            }
            let outcome = self.ask(round).await;
            if !self.standing.borrow().is_settled
                && said.len() < ANSWERS
                && said.insert(outcome.clone())
            {
                log::info!("{}: {outcome}", self.name);
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn ask(&self, round: usize) -> String {
        let (addresses, peer_address) = self.whom(round);
        let mut client = Client::new(&addresses).with_timeout(PATIENCE);
        let outcome = client.join(self.name.clone(), peer_address).await;
        let there = client.address();
        match (outcome, self.standing.borrow().belongs) {
            (Ok(()), false) => format!("{there} agrees to take this node in"),
            (Ok(()), true) => format!("{there} knows where this node is"),
            (Err(error), false) => format!("not taken in yet: {there}: {error}"),
            (Err(error), true) => format!("not found by a leader yet: {there}: {error}"),
        }
    }

    /// Whom to ask, and for which address; another one first each time, for a
    /// refusal of one may be the ignorance of one. Who is alone asks itself, and
    /// no other sees where it comes from.
    fn whom(&self, round: usize) -> (Vec<String>, String) {
        let mut addresses = self.hints.clone();
        for other in &self.standing.borrow().others {
            if !addresses.contains(other) {
                addresses.push(other.clone());
            }
        }
        if addresses.is_empty() {
            let own = [&self.client_address, &self.peer_address];
            let [client, peer] = own.map(|address| address::with_own_host(address));
            return (vec![client], peer);
        }
        let first = round % addresses.len();
        addresses.rotate_left(first);
        (addresses, self.peer_address.clone())
    }
}
