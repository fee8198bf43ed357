//! Joining, leaving, handing over: requests about the cluster itself.
//!
//! Each is a goal, not a step. As long as this node leads it compares the goal
//! with the configuration in use and takes the next step towards it, waiting
//! for the one before to be committed; so a request that is sent twice, or taken
//! up by another leader half-way, ends the same. When the goal is reached the
//! client hears so.
//!
//! Nobody becomes a member who was not found at the address it gave: a probe
//! says who is there before anything is appended.

use super::pending::{Held, Ticket};
use super::requests::UNKNOWN;
use super::{Peer, Probe};
use crate::raft::{Change, ChangeError, ClusterId, Illegal, Member, NodeId, Raft, Time};
use crate::request::{ErrorKind, Reply, Request};

/// What is to be reached.
#[derive(Debug, Clone)]
enum Goal {
    /// The node at this address is a member under this name.
    Member { name: String, peer_address: String, found: Option<Peer>, probe: Option<u64> },
    /// Nobody is a member under this name or address.
    Absent { name: String, node: Option<NodeId> },
    /// Somebody else leads: this one, or the best.
    Led { by: Option<String>, asked: bool },
}

/// One request under way.
#[derive(Debug, Clone)]
struct Operation {
    ticket: Ticket,
    request: Request,
    goal: Goal,
    deadline: Time,
    /// What held the last step up.
    obstacle: Option<String>,
    /// A step was taken: from now on it cannot be said to have had no effect.
    touched: bool,
}

impl Operation {
    /// It ends like this, unless it has had an effect and this says it had none.
    fn end(&self, reply: Reply) -> (Ticket, Reply) {
        match reply {
            Reply::Error(..) if self.touched => {
                (self.ticket, Reply::Error(ErrorKind::Unknown, UNKNOWN.to_owned()))
            }
            reply => (self.ticket, reply),
        }
    }
}

/// Where an operation stands after a step.
enum Step {
    /// Come back later.
    Wait,
    /// A step is taken: come back when it is committed.
    Taken,
    /// Come back later; this is why.
    Blocked(String),
    /// It is reached, or it never will be.
    Over(Reply),
}

/// The requests about the cluster that this node sees to, as its leader.
#[derive(Debug, Clone, Default)]
pub struct Admin {
    operations: Vec<Operation>,
    last_probe: u64,
    probes: Vec<Probe>,
}

fn refused(reason: impl Into<String>) -> Step {
    Step::Over(Reply::Error(ErrorKind::Refused, reason.into()))
}

impl Admin {
    /// Takes up a request.
    pub fn begin(&mut self, ticket: Ticket, request: Request, deadline: Time) {
        let goal = match request.clone() {
            Request::Join { name, peer_address } => {
                Goal::Member { name, peer_address, found: None, probe: None }
            }
            Request::Leave { name } => Goal::Absent { name, node: None },
            Request::Transfer { to } => Goal::Led { by: to, asked: false },
            _ => unreachable!("only requests about the cluster are seen to here"),
        };
        let (obstacle, touched) = (None, false);
        self.operations.push(Operation { ticket, request, goal, deadline, obstacle, touched });
    }

    /// A probe has ended.
    pub fn probed(&mut self, id: u64, result: Result<Peer, String>) -> Option<(Ticket, Reply)> {
        let waits = |operation: &Operation| matches!(operation.goal, Goal::Member { probe: Some(probe), .. } if probe == id);
        let place = self.operations.iter().position(waits)?;
        match result {
            Ok(peer) => {
                if let Goal::Member { found, .. } = &mut self.operations[place].goal {
                    *found = Some(peer);
                }
                None
            }
            Err(reason) => {
                let operation = self.operations.remove(place);
                Some(operation.end(Reply::Error(ErrorKind::Refused, reason)))
            }
        }
    }

    /// Has somebody find out who is at an address, whatever it is good for.
    pub fn look_at(&mut self, address: String) -> u64 {
        self.last_probe += 1;
        self.probes.push(Probe { id: self.last_probe, address });
        self.last_probe
    }

    /// The probes to be sent.
    pub fn take_probes(&mut self) -> Vec<Probe> {
        std::mem::take(&mut self.probes)
    }

    /// Takes the next step of each, and returns what is over.
    pub fn advance(
        &mut self,
        now: Time,
        raft: &mut Raft,
        cluster: Option<ClusterId>,
    ) -> Vec<(Ticket, Reply)> {
        let mut over = Vec::new();
        let mut left = Vec::new();
        for mut operation in std::mem::take(&mut self.operations) {
            match self.step(now, raft, cluster, &mut operation.goal) {
                Step::Over(reply) => over.push(operation.end(reply)),
                step => {
                    operation.touched |= matches!(step, Step::Taken);
                    operation.obstacle = match step {
                        Step::Blocked(why) => Some(why),
                        _ => None,
                    };
                    left.push(operation);
                }
            }
        }
        self.operations = left;
        over
    }

    fn step(
        &mut self,
        now: Time,
        raft: &mut Raft,
        cluster: Option<ClusterId>,
        goal: &mut Goal,
    ) -> Step {
        match goal {
            Goal::Member { name, peer_address, found: Some(peer), .. } => {
                become_member(now, raft, cluster, name, peer_address, peer)
            }
            Goal::Member { peer_address, probe, .. } => {
                if probe.is_none() {
                    *probe = Some(self.look_at(peer_address.clone()));
                }
                Step::Wait
            }
            Goal::Absent { name, node } => become_absent(now, raft, name, node),
            Goal::Led { by, asked } => be_led(now, raft, by.as_deref(), asked),
        }
    }

    /// This node leads no more. What has not begun is the next leader's to see
    /// to, from the start; a handover waits to see who that is.
    pub fn step_down(&mut self) -> (Vec<(Ticket, Reply)>, Vec<Held>) {
        let (mut over, mut left) = (Vec::new(), Vec::new());
        for operation in std::mem::take(&mut self.operations) {
            if matches!(operation.goal, Goal::Led { asked: true, .. }) {
                self.operations.push(operation);
            } else if operation.touched {
                over.push(operation.end(Reply::Error(ErrorKind::Unknown, UNKNOWN.to_owned())));
            } else {
                let Operation { ticket, request, deadline, .. } = operation;
                left.push(Held { ticket, request, deadline, not_before: Time::ZERO });
            }
        }
        (over, left)
    }

    /// Somebody else leads: handovers to that one, or to anybody, are reached.
    pub fn succeeded(&mut self, leader: Option<&str>) -> Vec<(Ticket, Reply)> {
        let over = std::mem::take(&mut self.operations).into_iter();
        over.map(|operation| match &operation.goal {
            Goal::Led { by: Some(name), .. } if leader != Some(name) => {
                operation.end(Reply::Error(ErrorKind::Refused, "another node took over".to_owned()))
            }
            _ => operation.end(Reply::Done),
        })
        .collect()
    }

    /// Gives up what takes too long.
    pub fn expired(&mut self, now: Time) -> Vec<(Ticket, Reply)> {
        let over = self.operations.extract_if(.., |operation| operation.deadline <= now);
        over.map(|operation| {
            let why = operation.obstacle.clone();
            let why = why.unwrap_or_else(|| "it took too long, and was not begun".to_owned());
            operation.end(Reply::Error(ErrorKind::Refused, why))
        })
        .collect()
    }

    /// The first deadline.
    pub fn deadline(&self) -> Option<Time> {
        self.operations.iter().map(|operation| operation.deadline).min()
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.operations.len()
    }
}

/// One change of the configuration; what it says when it cannot be made now.
fn change(now: Time, raft: &mut Raft, change: &Change) -> Step {
    match raft.change_membership(now, change, false) {
        Ok(_) => Step::Taken,
        Err(ChangeError::Illegal(illegal)) => refused(illegal.to_string()),
        Err(error @ ChangeError::NoLiveQuorum) => Step::Blocked(error.to_string()),
        // These pass by themselves.
        Err(_) => Step::Wait,
    }
}

fn become_member(
    now: Time,
    raft: &mut Raft,
    cluster: Option<ClusterId>,
    name: &str,
    peer_address: &str,
    peer: &Peer,
) -> Step {
    if peer.name != name {
        return refused(format!(
            "the node at {peer_address} is called {:?}, not {name:?}",
            peer.name
        ));
    }
    if peer.cluster.is_some() && peer.cluster != cluster {
        return refused(format!(
            "the node at {peer_address} belongs to another cluster; to bring it here, start it \
             with an empty data directory and --join"
        ));
    }
    let member = Member {
        name: name.to_owned(),
        peer_address: peer_address.to_owned(),
        client_address: peer.client_address.clone(),
        voter: false,
    };
    if let Some(known) = raft.membership().get(peer.node) {
        let is_there = known.peer_address == member.peer_address
            && known.client_address == member.client_address
            && known.name == member.name;
        if !is_there {
            let Member { peer_address, client_address, .. } = member;
            let readdress = Change::Readdress { node: peer.node, peer_address, client_address };
            return change(now, raft, &readdress);
        }
        return if raft.is_changing() { Step::Wait } else { Step::Over(Reply::Done) };
    }
    // It announces itself, and has not heard of its removal. An identity is
    // never used again.
    if peer.member {
        return refused(format!(
            "the node at {peer_address} was removed from this cluster; to bring it back, start it \
             with an empty data directory and --join"
        ));
    }
    match raft.membership().by_name(name).map(|(node, _)| node) {
        Some(old) => replace(now, raft, name, old, peer),
        None => change(now, raft, &Change::AddLearner(peer.node, member)),
    }
}

/// A node with another disk wants the name of a member. Two machines may have
/// been given one name, so the member has to be gone, or known to be lost.
fn replace(now: Time, raft: &mut Raft, name: &str, old: NodeId, peer: &Peer) -> Step {
    if !raft.is_settled(now) {
        return Step::Wait;
    }
    let is_alive = old == raft.id() || raft.heard_lately(old, now);
    if is_alive && (!peer.rebuild || old == raft.id()) {
        return refused(format!(
            "a member called {name:?} is alive; choose another --id, or stop that node and start \
             this one with --rebuild"
        ));
    }
    change(now, raft, &Change::Remove(old))
}

fn become_absent(now: Time, raft: &mut Raft, name: &str, target: &mut Option<NodeId>) -> Step {
    let called = |member: &Member| {
        member.name == name || member.peer_address == name || member.client_address == name
    };
    let found = raft.membership().iter().find(|(_, member)| called(member)).map(|(node, _)| node);
    // Whoever takes the name later is somebody else.
    let Some(node) = target.or(found) else {
        return refused(format!("no member is called {name:?}"));
    };
    *target = Some(node);
    if !raft.membership().contains(node) {
        return if raft.is_changing() { Step::Wait } else { Step::Over(Reply::Done) };
    }
    if node == raft.id() {
        leave_to_another(now, raft)
    } else {
        change(now, raft, &Change::Remove(node))
    }
}

/// The leader is to be removed: somebody else has to do it.
fn leave_to_another(now: Time, raft: &mut Raft) -> Step {
    if raft.membership().voters().count() == 1 {
        return refused(Illegal::LastVoter.to_string());
    }
    if raft.is_transferring() {
        return Step::Wait;
    }
    match raft.successor(now) {
        Some(successor) => {
            raft.transfer_leadership(now, successor);
            Step::Wait
        }
        None => Step::Blocked("no other voter is alive to lead".to_owned()),
    }
}

fn be_led(now: Time, raft: &mut Raft, by: Option<&str>, asked: &mut bool) -> Step {
    if *asked {
        return if raft.is_transferring() {
            Step::Wait
        } else {
            refused("the handover was given up: the other node did not take over in time")
        };
    }
    let to = match by {
        None => raft.successor(now),
        Some(name) => match raft.membership().by_name(name) {
            Some((node, _)) if node == raft.id() => return Step::Over(Reply::Done),
            Some((node, _)) => Some(node),
            None => return refused(format!("no member is called {name:?}")),
        },
    };
    match to {
        None => refused("no other voter is alive to lead"),
        Some(node) => {
            *asked = raft.transfer_leadership(now, node);
            if *asked { Step::Wait } else { refused("that node cannot lead now") }
        }
    }
}
