//! Misfortunes in several steps, where the next one waits for what is seen. Chance
//! alone would take years to find them.

use std::collections::BTreeSet;

use raftcache::raft::{Envelope, Index, Message, NodeId};
use raftcache::replica::{Input, PeerMessage, SnapshotReport};
use raftcache::wal::faulty::Crash;
use rand::RngExt;
use rand::seq::SliceRandom;

use super::node::Machine;
use super::plan::{Fault, MS, SECOND};
use super::world::{Event, World};

/// What is under way.
#[derive(Default)]
pub struct Schemes {
    /// Where a change of members is waited for, or under way.
    schism: Schism,
    /// Where leaders come and go, and come back.
    revenant: Option<Revenant>,
    /// The next snapshot that is received is heard of late.
    pub dawdles: bool,
    /// No newcomers are taken as hostages before.
    twins_from: u64,
}

/// Two leaders, one after the other, change the members, and neither knows of the
/// other's change.
#[derive(Default)]
enum Schism {
    #[default]
    None,
    /// The next leader that changes something will be cut off.
    Wanted,
    /// This one was, with the machine that it made a voter; the next one is to
    /// remove it.
    Apart { old: usize, node: NodeId, with: usize },
}

/// The first leader begins something among too few. The second one begins something
/// that only it holds. The first is back, and what it had begun gets to a majority,
/// what it begins now does not. It ends, and the second one leads again.
struct Revenant {
    /// The first leader, and as many others as a majority can do without.
    old: BTreeSet<usize>,
    second: Option<usize>,
    /// The first one is back, until then.
    until: Option<u64>,
}

impl Revenant {
    /// What would be refused may well arrive: who sent it asks for less then.
    fn swallows(&self, from: usize, last: Index, envelope: &Envelope) -> bool {
        let Message::Append(append) = &envelope.message else { return false };
        match self.second {
            None => !self.old.contains(&from),
            Some(_) => {
                last >= append.prev.index
                    && append.entries.iter().any(|entry| entry.id.term == envelope.term)
            }
        }
    }
}

impl Schemes {
    /// Whoever is elected is to know at once whom to remove.
    pub fn is_torn(&self) -> bool {
        matches!(self.schism, Schism::Apart { .. })
    }

    /// Whether this machine's entries get lost, as large packets do where one on the
    /// way is too narrow for them: it may lead, and nobody holds what it begins with.
    pub fn swallows(&self, from: usize, to: &Machine, message: &PeerMessage) -> bool {
        let PeerMessage::Raft { envelope, .. } = message else { return false };
        if let Some(revenant) = &self.revenant {
            let last = to.process.as_ref().map_or(Index(0), |to| to.raft().last().index);
            return revenant.swallows(from, last, envelope);
        }
        let Schism::Apart { old, with, .. } = self.schism else { return false };
        from != old && from != with && matches!(envelope.message, Message::Append(_))
    }

    /// All is well.
    pub fn end(&mut self) {
        self.schism = Schism::None;
        self.revenant = None;
    }
}

impl World {
    /// What is said to the leader takes longer and longer, and then nobody hears it
    /// any more: it goes on with answers to what it said long ago.
    pub fn echo(&mut self) {
        let Some(leader) = self.leader() else { return };
        self.trace.count("echoes");
        let promise = self.plan.promise_ms() * MS;
        let late = self.within((promise / 3, 3 * promise));
        self.blocked.clear();
        self.machines[leader].late = Some((self.now, late));
        let mute = 2 * late + self.within((0, promise));
        self.heals_from = self.now + mute + late + promise;
        self.after(mute, Event::Mute { machine: leader, late });
    }

    pub fn mute(&mut self, machine: usize, late: u64) {
        if self.faulty {
            self.part(|a, _| a == machine);
            let promise = self.plan.promise_ms() * MS;
            self.stir(2 * promise);
            self.hold(machine, (promise, promise + late));
        }
    }

    /// The leader has asked another node to stand, and hears nothing of it.
    pub fn abandon(&mut self, leader: usize) {
        if self.faulty
            && self.plan.faults.contains(&Fault::Transfer)
            && self.chance.random_bool(0.5)
        {
            self.trace.count("handovers unheard of");
            let beat = self.plan.heartbeat_ms * MS;
            self.cut_off(leader);
            self.heals_from = self.now + 8 * beat;
            self.stir(4 * beat);
            self.hold(leader, (MS, 6 * beat));
        }
    }

    /// A disk stalls, while everybody else goes on.
    pub fn lag(&mut self, victim: usize) {
        let stall = self.within((SECOND / 2, 3 * SECOND));
        let machine = &mut self.machines[victim];
        (machine.is_laggard, machine.stalled_until) = (true, self.now + stall);
        for _ in 0..4 {
            self.stir(stall);
        }
    }

    /// A node has received a snapshot, and it takes a while until it knows. Another one
    /// leads by then, and may have sent it the log instead.
    pub fn dawdle(&mut self, said: &[Input]) -> u64 {
        let is_complete =
            |input: &Input| matches!(input, Input::Snapshot(SnapshotReport::Complete { .. }));
        let Some(leader) = self.leader() else { return 0 };
        if !self.faulty || !self.schemes.dawdles || !said.iter().any(is_complete) {
            return 0;
        }
        self.trace.count("snapshots that nobody waits for");
        self.schemes.dawdles = false;
        self.cut_off(leader);
        let late = self.within((SECOND, 4 * SECOND));
        self.heals_from = self.now + late;
        self.stir(late);
        late
    }

    /// A journal has something to do: what had come up while it was stalled, perhaps.
    pub fn laggard_works(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        if machine.is_laggard && self.now >= machine.stalled_until {
            machine.is_laggard = false;
            self.trace.count("laggards");
            self.after(1, Event::End { machine: number });
        }
    }

    /// It ends, and whatever its disk was told is on it.
    pub fn end(&mut self, number: usize) {
        if self.faulty && self.crash(number, Crash::Kept) {
            let back = self.within((MS, 20 * MS));
            self.after(back, Event::Start { machine: number });
        }
    }

    /// Two newcomers at once, who are not to count yet.
    pub fn twins(&mut self) {
        let voters = self.leader().and_then(|leader| {
            let raft = self.machines[leader].process.as_ref()?.raft();
            Some(raft.membership().voters().count())
        });
        if voters == Some(3) && self.operator.is_at_rest(self.now) {
            self.add_node();
            self.add_node();
        }
    }

    /// One of four voters is about to make a fifth one: three of the five and two of
    /// the three that are left without it have nobody in common.
    pub fn schism(&mut self) {
        let Some(leader) = self.leader() else { return };
        let Some(process) = &self.machines[leader].process else { return };
        let members = process.raft().membership();
        let (voters, size) = (members.voters().count(), members.iter().count());
        if size == voters && self.operator.is_at_rest(self.now) {
            self.schemes.schism = Schism::Wanted;
            if voters < 5 { self.add_node() } else { self.remove(leader) }
        }
    }

    /// The leader is left with too few to commit anything.
    pub fn revenant(&mut self) {
        let Some(leader) = self.leader() else { return };
        let Some(process) = &self.machines[leader].process else { return };
        let voters: Vec<NodeId> = process.raft().membership().voters().collect();
        let spare = (voters.len() - 1) / 2;
        let counts = |&number: &usize| {
            let process = self.machines[number].process.as_ref();
            number != leader && process.is_some_and(|process| voters.contains(&process.node()))
        };
        let mut others: Vec<usize> = (0..self.machines.len()).filter(counts).collect();
        if spare == 0 || others.len() + 1 < voters.len() {
            return;
        }
        self.trace.count("leaders left with too few");
        others.shuffle(&mut self.chance);
        let old: BTreeSet<usize> = others.into_iter().take(spare - 1).chain([leader]).collect();
        self.blocked.clear();
        self.part(|a, b| old.contains(&a) != old.contains(&b));
        let beat = self.plan.heartbeat_ms * MS;
        self.heals_from = self.now + 100 * beat;
        self.hold(leader, (0, 4 * beat));
        self.stir(4 * beat);
        self.schemes.revenant = Some(Revenant { old, second: None, until: None });
    }

    /// Somebody leads while leaders come and go.
    fn haunt(&mut self, number: usize) {
        let beat = self.plan.heartbeat_ms * MS;
        let Some(Revenant { old, second, until }) = &mut self.schemes.revenant else { return };
        match (*second, *until) {
            (None, _) if !old.contains(&number) => {
                *second = Some(number);
                self.blocked.clear();
                self.cut_off(number);
            }
            (Some(second), None) if number != second && old.contains(&number) => {
                *until = Some(self.now + 8 * beat);
            }
            (Some(second), Some(until)) if number != second && self.now >= until => {
                self.trace.count("leaders that came back in vain");
                let old = std::mem::take(old);
                self.schemes.revenant = None;
                self.blocked.clear();
                self.part(|a, b| old.contains(&a) != old.contains(&b));
                self.heals_from = self.now + 40 * beat;
                self.stir(40 * beat);
            }
            _ => {}
        }
    }

    /// A leader has taken a turn.
    pub fn scheme(&mut self, number: usize) {
        let Some(process) = self.machines[number].process.as_ref().filter(|p| p.leads()) else {
            return;
        };
        if !self.faulty {
            return;
        }
        if self.schemes.revenant.is_some() {
            return self.haunt(number);
        }
        let raft = process.raft();
        let (node, members, applied) = (raft.id(), raft.membership(), raft.applied_membership());
        let promoted = members.voters().find(|&voter| !applied.is_voter(voter));
        let promoted = promoted.filter(|_| members.voters().count() == 5);
        let is_misled = match self.schemes.schism {
            Schism::Apart { old, node, .. } => {
                number != old && applied.is_voter(node) && !members.contains(node)
            }
            _ => false,
        };
        let learners = raft.membership().iter().filter(|(_, member)| !member.voter);
        let learners: Vec<NodeId> = learners.map(|(node, _)| node).collect();
        if learners.len() > 1 && self.now >= self.schemes.twins_from {
            self.trace.count("leaders left with learners");
            self.schemes.twins_from = self.now + 5 * SECOND;
            self.cut_off_with(number, &learners);
        }
        match self.schemes.schism {
            Schism::Wanted if self.operator.is_at_rest(self.now) => {
                if let Some(promoted) = promoted {
                    self.tear(number, node, promoted);
                }
            }
            Schism::Apart { old, with, .. } if is_misled => self.mislead(old, with, number),
            _ => {}
        }
    }

    fn cut_off_with(&mut self, leader: usize, others: &[NodeId]) {
        let is_here = |world: &Self, machine: usize| {
            let node = world.machines[machine].process.as_ref().map(|process| process.node());
            machine == leader || node.is_some_and(|node| others.contains(&node))
        };
        let here: Vec<bool> = (0..self.machines.len()).map(|m| is_here(self, m)).collect();
        self.part(|a, b| here[a] != here[b]);
        self.heals_from = self.now + self.plan.heartbeat_ms * 30 * MS;
        self.stir(2 * SECOND);
    }

    /// A leader that has begun to make a voter keeps that one, and the operator
    /// tells the rest to remove the leader.
    fn tear(&mut self, old: usize, node: NodeId, promoted: NodeId) {
        let is_it =
            |machine: &Machine| machine.process.as_ref().is_some_and(|p| p.node() == promoted);
        let Some(with) = self.machines.iter().position(is_it) else { return };
        self.trace.count("schisms");
        self.part(|a, b| (a == old || a == with) != (b == old || b == with));
        self.severed.extend((0..self.machines.len()).map(|other| (old, other)));
        self.severed.remove(&(old, with));
        self.heals_from = self.now + self.plan.heartbeat_ms * 80 * MS;
        self.schemes.schism = Schism::Apart { old, node, with };
        self.remove(old);
        self.stir(4 * SECOND);
    }

    /// Another leader has begun to remove it: one who elected that one hears it no
    /// more, and the first leader again.
    fn mislead(&mut self, old: usize, with: usize, new: usize) {
        self.schemes.schism = Schism::None;
        let others = 0..self.machines.len();
        let others: Vec<usize> = others.filter(|n| ![old, with, new].contains(n)).collect();
        if !others.is_empty() {
            self.trace.count("schisms that went on");
            let third = others[self.chance.random_range(0..others.len())];
            self.blocked.clear();
            let is_here = |n: usize| n == old || n == with || n == third;
            self.part(|a, b| is_here(a) != is_here(b));
            self.severed = BTreeSet::from([(new, third)]);
        }
    }
}
