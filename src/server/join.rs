//! Asking to be taken into a cluster.
//!
//! A newcomer asks the members it was told of, in turn, until it finds itself a
//! member. Being answered is not enough: what a leader promises may be lost with
//! it. Asking again does no harm, for it is the same node that asks. No answer
//! ends the process; an operator who reads the log can mend what is wrong while
//! it goes on asking.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;

use crate::client::Client;

const FIRST_WAIT: Duration = Duration::from_millis(300);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// How long one member may take: it waits for the leader, who looks whether the
/// newcomer can be reached.
const PATIENCE: Duration = Duration::from_secs(10);

/// So many different answers are said once each.
const ANSWERS: usize = 64;

/// Who asks whom.
pub struct Asking {
    /// Client addresses of members.
    pub addresses: Vec<String>,
    /// This node's name.
    pub name: String,
    /// Where its peers reach it.
    pub peer_address: String,
    /// Whether the log it has names it already.
    pub is_named: bool,
    /// Whether it is a member by now.
    pub belongs: Rc<Cell<bool>>,
}

impl Asking {
    /// Asks until it belongs.
    pub async fn run(mut self) {
        let mut said = BTreeSet::new();
        let mut wait = FIRST_WAIT;
        // A member that starts again is told soon that it is one.
        if self.is_named {
            sleep(LONGEST_WAIT).await;
        }
        while !self.belongs.get() {
            let outcome = self.ask().await;
            if self.belongs.get() {
                return;
            }
            if said.len() < ANSWERS && said.insert(outcome.clone()) {
                log::info!("{}: {outcome}", self.name);
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
            // A refusal of one may be the ignorance of one.
            self.addresses.rotate_left(1);
        }
    }

    async fn ask(&self) -> String {
        let mut client = Client::new(&self.addresses).with_timeout(PATIENCE);
        match client.join(self.name.clone(), self.peer_address.clone()).await {
            Ok(()) => format!("{} agrees to take this node in", client.address()),
            Err(error) => format!("not taken in yet: {}: {error}", client.address()),
        }
    }
}
