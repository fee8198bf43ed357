//! What people do: nodes are added, removed, replaced and moved, one at a time.

use raftcache::raft::NodeId;
use raftcache::replica::Ticket;
use raftcache::request::Request;
use raftcache::wal::faulty::Crash;
use rand::RngExt;

use super::plan::{MS, SECOND};
use super::world::{Event, World};

/// The operator's connections; newcomers and clients have others.
pub const OPERATOR: u64 = 1;

/// A cluster is kept between these sizes.
const VOTERS: (usize, usize) = (3, 5);

/// One thing at a time.
#[derive(Default)]
pub struct Operator {
    /// A node that is to leave.
    leaving: Option<(usize, NodeId)>,
    /// Until then a node may still be told that it is to leave, by its name.
    told_until: u64,
}

/// So long a request may wait at some node.
const WAITS_US: u64 = 4 * SECOND;

impl Operator {
    /// Nothing is under way.
    pub fn is_at_rest(&self, now: u64) -> bool {
        self.leaving.is_none() && now >= self.told_until
    }
}

impl World {
    /// The node that leads in the highest term.
    pub fn leader(&self) -> Option<usize> {
        let leads = |&number: &usize| {
            self.machines[number].process.as_ref().is_some_and(|process| process.leads())
        };
        let term = |&number: &usize| {
            self.machines[number].process.as_ref().map(|process| process.raft().term())
        };
        (0..self.machines.len()).filter(leads).max_by_key(term)
    }

    /// Whether everything committed is on the disks of a majority without this
    /// machine, so that what it holds may be lost.
    pub fn can_lose(&self, number: usize) -> bool {
        let Some(leader) = self.leader() else { return false };
        let Some(leading) = &self.machines[leader].process else { return false };
        let raft = leading.raft();
        let members = raft.membership();
        if raft.is_changing() || raft.commit().0 < self.judge.commit {
            return false;
        }
        let Some(own) = &self.machines[number].process else { return false };
        let own = own.node();
        if members.iter().any(|(node, member)| node != own && !member.voter) {
            return false;
        }
        let holds = |node: &NodeId| {
            let on = |process: &super::node::Process| process.node() == *node;
            let machine = self.machines.iter().find(|m| m.process.as_ref().is_some_and(on));
            let Some(machine) = machine else { return false };
            let Some(process) = &machine.process else { return false };
            let raft_there = process.raft();
            !machine.damaged
                && raft_there.last().term == raft.term()
                && raft_there.durable_index() >= raft.commit()
        };
        let others = members.voters().filter(|&node| node != own);
        others.filter(holds).count() > members.voters().count() / 2
    }

    /// Adds a node, removes one, or replaces one.
    pub fn change_members(&mut self) {
        let Some(leader) = self.leader() else { return };
        let Some(leading) = &self.machines[leader].process else { return };
        let voters = leading.raft().membership().voters().count();
        let size = leading.raft().membership().iter().count();
        if size != voters || !self.operator.is_at_rest(self.now) {
            return;
        }
        let somebody = self.chance.random_range(0..self.machines.len());
        let victim = if self.chance.random_bool(0.4) { leader } else { somebody };
        match self.chance.random_range(0..3) {
            0 if voters < VOTERS.1 => self.add_node(),
            1 if voters > VOTERS.0 => self.remove(victim),
            2 if self.can_lose(victim) => {
                self.crash(victim, Crash::Lost);
                self.rebuild(victim);
                self.after(200 * MS, Event::Start { machine: victim });
            }
            _ => {}
        }
    }

    /// One more; what was removed comes back as somebody else.
    pub fn add_node(&mut self) {
        let retired = self.machines.iter().position(|m| m.retired && m.process.is_none());
        match retired {
            Some(number) => {
                self.machines[number].retired = false;
                self.machines[number].disk = Default::default();
                self.machines[number].founder = false;
                self.after(MS, Event::Start { machine: number });
            }
            None => {
                self.add_machine();
            }
        }
        self.trace.count("nodes added");
    }

    /// A node is to leave.
    pub fn remove(&mut self, victim: usize) {
        if let Some(process) = &self.machines[victim].process {
            self.operator.leaving = Some((victim, process.node()));
            self.after(MS, Event::Operate);
        }
    }

    /// Says again that a node is to leave, until it has left. Who was away may
    /// never hear of it, and is switched off.
    pub fn operate(&mut self) {
        let Some((victim, node)) = self.operator.leaving else { return };
        let has_left = self.leader().and_then(|leader| {
            let process = self.machines[leader].process.as_ref()?;
            Some(!process.raft().applied_membership().contains(node))
        });
        if has_left == Some(true) {
            let process = &self.machines[victim].process;
            if process.as_ref().is_none_or(|process| process.node() == node) {
                self.removed(victim);
            }
            self.operator.leaving = None;
            self.operator.told_until = self.now + WAITS_US;
            return;
        }
        if self.schemes.is_torn() && self.faulty {
            (0..self.machines.len()).for_each(|whom| self.ask_to_remove(whom, victim));
            return self.after(50 * MS, Event::Operate);
        }
        let whom = self.chance.random_range(0..self.machines.len());
        self.ask_to_remove(whom, victim);
        self.after(500 * MS, Event::Operate);
    }

    /// Says to a node that another one is to leave.
    pub fn ask_to_remove(&mut self, machine: usize, victim: usize) {
        let name = self.machines[victim].name.clone();
        let ticket = Ticket { connection: OPERATOR, number: self.tick() };
        let (epoch, request) = (self.machines[machine].epoch, Box::new(Request::Leave { name }));
        self.after(MS, Event::Request { machine, epoch, ticket, request });
    }

    /// A node has read that it is no member any more, and ends.
    pub fn removed(&mut self, number: usize) {
        if !self.machines[number].retired {
            self.machines[number].retired = true;
            self.trace.count("nodes that left");
            self.crash(number, Crash::Killed);
        }
    }

    /// It is started elsewhere.
    pub fn move_machine(&mut self, number: usize) {
        if self.crash(number, Crash::Killed) {
            self.machines[number].moves += 1;
            self.trace.count("moves");
            let back = self.within((MS, 500 * MS));
            self.after(back, Event::Start { machine: number });
        }
    }
}
