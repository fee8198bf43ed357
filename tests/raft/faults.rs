//! What befalls a cluster: clients, operators, and faults of every kind.

use std::collections::BTreeMap;

use bytes::Bytes;
use raftcache::raft::{Change, NodeId, Role};

use super::chance::{MILLI, Plan};
use super::disk::Disk;
use super::harness::{founding, member, n};
use super::world::{Event, Fault, MOST_MACHINES, World};

impl World {
    pub fn leaders(&self) -> Vec<NodeId> {
        let leads = |id: &NodeId| matches!(self.cluster.nodes[id].raft().role(), Role::Leader(_));
        self.cluster.up().into_iter().filter(leads).collect()
    }

    pub fn client(&mut self) {
        let up = self.cluster.up();
        if let Some(id) = self.chance.one_of(&up)
            && self.chance.permille(500)
            && self.machine(id).asleep_until <= self.now
        {
            self.cluster.read(id);
            self.turn_within(id, self.now + 50);
        }
        for id in self.leaders() {
            let burst = if self.chance.permille(100) { 20 } else { 2 };
            for _ in 0..self.chance.between(0, burst) {
                self.proposals += 1;
                let text = format!("{id} {}", self.proposals);
                let _ = self.cluster.raft(id).propose(Bytes::from(text));
            }
            self.turn_within(id, self.now + 50);
        }
        self.schedule(self.now + self.plan.client_every * MILLI, Event::Client);
    }

    pub fn change(&mut self, leader: NodeId) {
        let membership = self.cluster.raft(leader).membership().clone();
        let members: Vec<NodeId> = membership.iter().map(|(id, _)| id).collect();
        let fresh = n(self.machines.len() as u128 + 1);
        let grow = members.len() < 3 || self.chance.permille(500);
        let change = if grow && fresh <= n(MOST_MACHINES) {
            self.add_machine(fresh, Disk::new(founding(&[], &[])));
            Change::AddLearner(fresh, member(fresh, false))
        } else {
            match self.chance.one_of(&members) {
                Some(id) if members.len() > 3 => Change::Remove(id),
                _ => return,
            }
        };
        let now = self.cluster.nodes[&leader].clock;
        let said = self.cluster.raft(leader).change_membership(now, &change, false);
        self.note(|| format!("{leader} is to {change:?}: {said:?}"));
        self.turn_within(leader, self.now + 50);
    }

    pub fn fault(&mut self, fault: Fault) {
        if !self.faulty {
            return;
        }
        let up = self.cluster.up();
        let leader = {
            let leaders = self.leaders();
            self.chance.one_of(&leaders)
        };
        let someone = self.chance.one_of(&up);
        // Leaders are where it hurts.
        let victim = if self.chance.permille(400) { leader.or(someone) } else { someone };
        let every = match fault {
            Fault::Partition => {
                self.partition();
                self.plan.partition_every
            }
            Fault::Ambush => {
                if let (Some(leader), Some(other)) = (leader, someone) {
                    self.ambush(leader, other);
                }
                self.plan.ambush_every
            }
            Fault::Crash => {
                victim.into_iter().for_each(|id| self.crash(id));
                self.plan.crash_every
            }
            Fault::CrashAll => {
                up.iter().for_each(|&id| self.crash(id));
                self.plan.crash_all_every
            }
            Fault::Pause => {
                if let Some(id) = victim {
                    let until = self.now + Plan::spell(&mut self.chance);
                    self.note(|| format!("{id} is paused"));
                    self.machine(id).asleep_until = until;
                    self.turn_within(id, until);
                }
                self.plan.pause_every
            }
            Fault::Change => {
                leader.into_iter().for_each(|id| self.change(id));
                self.plan.change_every
            }
            Fault::Transfer => {
                if let (Some(from), Some(to)) = (leader, someone) {
                    let now = self.cluster.nodes[&from].clock;
                    let begun = self.cluster.raft(from).transfer_leadership(now, to);
                    self.note(|| format!("{from} hands over to {to}: {begun}"));
                    self.turn_within(from, self.now);
                }
                self.plan.transfer_every
            }
            Fault::Compact => {
                let done = victim.filter(|&id| self.cluster.compact(id, None));
                done.into_iter().for_each(|id| self.note(|| format!("{id} compacts")));
                self.plan.compact_every
            }
        };
        self.schedule_fault(every, fault);
    }

    pub fn partition(&mut self) {
        self.blocked.clear();
        let all: Vec<NodeId> = self.machines.keys().copied().collect();
        let kind = self.chance.between(0, 4);
        let leader = self.leaders().first().copied();
        let alone = self.chance.one_of(&all).expect("there are machines");
        let bridge = self.chance.one_of(&all).expect("there are machines");
        let side: BTreeMap<NodeId, bool> =
            all.iter().map(|&id| (id, self.chance.permille(500))).collect();
        for &a in &all {
            for &b in &all {
                let cut = match kind {
                    0 => (a == alone) != (b == alone),
                    1 => side[&a] != side[&b],
                    // Two sides that both hear the bridge.
                    2 => side[&a] != side[&b] && a != bridge && b != bridge,
                    // A leader and one other do not hear each other.
                    3 => Some(a) == leader && b == alone || a == alone && Some(b) == leader,
                    _ => self.chance.permille(300),
                };
                if cut && (!self.plan.one_way || self.chance.permille(500)) {
                    self.blocked.insert((a, b));
                }
            }
        }
        self.note(|| format!("cut: {:?}", self.blocked));
        let until = self.now + Plan::spell(&mut self.chance);
        self.schedule(until, Event::Heal);
    }

    /// What it takes to break a lease: another is about to be elected, because it
    /// does not hear the leader or was asked to stand; then the leader, whose
    /// lease is fresh, hears nobody any more and cannot learn of the election.
    fn ambush(&mut self, leader: NodeId, other: NodeId) {
        let wait = if self.chance.permille(500) {
            self.blocked.extend([(leader, other), (other, leader)]);
            self.chance.between(200, 600)
        } else {
            let now = self.cluster.nodes[&leader].clock;
            self.cluster.raft(leader).transfer_leadership(now, other);
            self.turn_within(leader, self.now);
            self.chance.between(1, 80)
        };
        self.note(|| format!("{leader} is ambushed, {other} may lead"));
        self.schedule(self.now + wait * MILLI, Event::Isolate(leader));
    }

    /// Nobody hears this node, nor does it hear anybody; and some voter may have
    /// been restarted just then.
    pub fn isolate(&mut self, id: NodeId) {
        if !self.faulty {
            return;
        }
        let others: Vec<NodeId> = self.machines.keys().copied().filter(|&n| n != id).collect();
        for &other in &others {
            self.blocked.extend([(id, other), (other, id)]);
        }
        self.note(|| format!("{id} is cut off"));
        if self.plan.nimble && self.chance.permille(800) {
            let voter = self.chance.one_of(&others);
            voter.into_iter().for_each(|voter| self.crash(voter));
        }
        let until = self.now + Plan::spell(&mut self.chance);
        self.schedule(until, Event::Heal);
    }
}
