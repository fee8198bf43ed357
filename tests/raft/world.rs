//! The world of one seed: machines with clocks, disks and inboxes of their own,
//! a network between them, and a calendar of what is going to happen.
//!
//! A node takes its turns as its driver would: it takes out what has arrived,
//! then reads its clock, then feeds every input with that time, then asks what
//! there is to do. What befalls it meanwhile is in [`super::faults`].

use std::collections::{BTreeMap, BTreeSet};

use raftcache::raft::{NodeId, Role, Time};

use super::chance::{Chance, Clock, MILLI, Micros, Plan};
use super::disk::Disk;
use super::harness::{Cluster, Packet, founding, n};
use super::trace::{self, ReadNames, Standing};

/// No cluster has ever more machines.
pub const MOST_MACHINES: u128 = 8;
/// What is going to happen.
pub enum Event {
    Arrive(Packet),
    Wrote(NodeId, u64),
    Found(NodeId, u64),
    Ended(NodeId, NodeId),
    Turn(NodeId),
    Start(NodeId),
    Client,
    Fault(Fault),
    Heal,
    Isolate(NodeId),
}

#[derive(Debug, Clone, Copy)]
pub enum Fault {
    Partition,
    Ambush,
    Crash,
    CrashAll,
    Pause,
    Change,
    Transfer,
    Compact,
}

/// What has reached a node and waits for its next turn.
pub enum Input {
    Packet(Packet),
    Wrote,
    Found,
    Ended(NodeId),
}

/// What the world knows of a machine besides what the cluster knows.
pub struct Machine {
    pub clock: Clock,
    /// Counts the starts, so that events meant for an earlier process are told.
    pub start: u64,
    pub inbox: Vec<Input>,
    pub next_turn: Micros,
    pub asleep_until: Micros,
    pub disk_free: Micros,
}

pub struct World {
    pub plan: Plan,
    pub chance: Chance,
    pub cluster: Cluster,
    pub machines: BTreeMap<NodeId, Machine>,
    pub events: BTreeMap<(Micros, u64), Event>,
    pub scheduled: u64,
    pub now: Micros,
    pub blocked: BTreeSet<(NodeId, NodeId)>,
    pub faulty: bool,
    pub proposals: u64,
    pub loud: bool,
    pub names: ReadNames,
}

impl World {
    pub fn new(seed: u64, loud: bool) -> Self {
        let mut chance = Chance::new(seed);
        let plan = Plan::draw(&mut chance);
        if loud {
            eprintln!("{plan:#?}");
        }
        let mut world = Self {
            plan,
            chance,
            cluster: Cluster::default(),
            machines: BTreeMap::new(),
            events: BTreeMap::new(),
            scheduled: 0,
            now: 0,
            blocked: BTreeSet::new(),
            faulty: true,
            proposals: 0,
            loud,
            names: ReadNames::default(),
        };
        world.found_cluster();
        world
    }

    pub fn found_cluster(&mut self) {
        let (voters, all) = (self.plan.voters, self.plan.voters + self.plan.learners);
        let id = |place: u64| n(u128::from(place));
        let voters: Vec<NodeId> = (1..=voters).map(id).collect();
        let learners: Vec<NodeId> = (voters.len() as u64 + 1..=all).map(id).collect();
        let founding = founding(&voters, &learners);
        for id in voters.into_iter().chain(learners) {
            self.add_machine(id, Disk::new(founding.clone()));
        }
        self.schedule(0, Event::Client);
        let Plan { partition_every, crash_every, crash_all_every, pause_every, .. } = self.plan;
        let Plan { change_every, transfer_every, compact_every, .. } = self.plan;
        for (every, fault) in [
            (partition_every, Fault::Partition),
            (self.plan.ambush_every, Fault::Ambush),
            (crash_every, Fault::Crash),
            (crash_all_every, Fault::CrashAll),
            (pause_every, Fault::Pause),
            (change_every, Fault::Change),
            (transfer_every, Fault::Transfer),
            (compact_every, Fault::Compact),
        ] {
            self.schedule_fault(every, fault);
        }
    }

    pub fn add_machine(&mut self, id: NodeId, disk: Disk) {
        self.cluster.add(self.plan.config(id), disk);
        self.cluster.node(id).applies = self.plan.applies();
        let clock = Clock::draw(&mut self.chance, self.plan.clocks_differ);
        self.machines.insert(
            id,
            Machine {
                clock,
                start: 0,
                inbox: Vec::new(),
                next_turn: Micros::MAX,
                asleep_until: 0,
                disk_free: 0,
            },
        );
        self.start(id);
    }

    pub fn schedule(&mut self, at: Micros, event: Event) {
        self.scheduled += 1;
        self.events.insert((at, self.scheduled), event);
    }

    pub fn schedule_fault(&mut self, every_milli: u64, fault: Fault) {
        if every_milli > 0 {
            let wait = self.chance.between(every_milli / 2, every_milli * 3 / 2) * MILLI;
            self.schedule(self.now + wait, Event::Fault(fault));
        }
    }

    pub fn machine(&mut self, id: NodeId) -> &mut Machine {
        self.machines.get_mut(&id).expect("a known machine")
    }

    pub fn note(&self, line: impl FnOnce() -> String) {
        if self.loud {
            eprintln!("{:>6}.{:03} {}", self.now / MILLI, self.now % MILLI, line());
        }
    }

    pub fn start(&mut self, id: NodeId) {
        if self.cluster.is_up(id) {
            return;
        }
        self.note(|| format!("{id} starts"));
        let reboots = self.chance.permille(300);
        let fresh = Clock::draw(&mut self.chance, self.plan.clocks_differ);
        let now = self.now;
        let machine = self.machine(id);
        if reboots {
            machine.clock = fresh;
        }
        machine.start += 1;
        machine.next_turn = Micros::MAX;
        machine.disk_free = now;
        let shows = machine.clock.shows(now);
        self.cluster.node(id).clock = Time::ZERO + shows;
        let entropy = self.chance.between(0, 1 << 30);
        self.cluster.start(id, entropy);
        self.turn_within(id, now);
    }

    pub fn crash(&mut self, id: NodeId) {
        if !self.cluster.is_up(id) {
            return;
        }
        let owed = self.cluster.nodes[&id].writes.len() as u64;
        let kept = self.chance.between(0, owed);
        self.note(|| format!("{id} crashes, {kept} of {owed} writes survive"));
        self.cluster.crash(id, usize::try_from(kept).expect("few"));
        self.machine(id).inbox.clear();
        let soon = self.plan.nimble || self.chance.permille(200);
        let wait =
            if soon { self.chance.between(5, 60) * MILLI } else { Plan::spell(&mut self.chance) };
        let back = self.now + wait;
        self.schedule(back, Event::Start(id));
    }

    pub fn put_in(&mut self, id: NodeId, input: Input) {
        let lazy = self.chance.between(0, self.plan.lazy);
        self.machine(id).inbox.push(input);
        self.turn_within(id, self.now + lazy);
    }

    pub fn turn_within(&mut self, id: NodeId, at: Micros) {
        let machine = self.machine(id);
        let at = at.max(machine.asleep_until);
        if at < machine.next_turn {
            machine.next_turn = at;
            self.schedule(at, Event::Turn(id));
        }
    }

    /// Takes out what has arrived, then reads the clock, then feeds, then judges.
    pub fn turn(&mut self, id: NodeId) {
        let now = self.now;
        if !self.cluster.is_up(id) || self.machine(id).next_turn != now {
            return;
        }
        self.machine(id).next_turn = Micros::MAX;
        if self.machine(id).asleep_until > now {
            self.turn_within(id, now);
            return;
        }
        let inputs = std::mem::take(&mut self.machine(id).inbox);
        let clock = self.machine(id).clock.shows(now);
        self.cluster.node(id).clock = Time::ZERO + clock;
        let before = Standing::of(self.cluster.raft(id));
        for input in inputs {
            self.feed(id, input);
        }
        loop {
            let turn = self.cluster.turn(id);
            let ready = turn.ready;
            let spoke = !ready.messages.is_empty();
            for envelope in ready.messages {
                self.send(Packet::Message(envelope));
            }
            for to in ready.snapshot_to {
                self.send(self.cluster.snapshot_for(id, to));
            }
            for fetch in ready.fetch {
                self.cluster.look_up(id, &fetch);
                let (start, wait) = (self.machine(id).start, self.disk_time());
                self.schedule(now + wait, Event::Found(id, start));
            }
            if ready.write.is_some() {
                let wait = self.disk_time();
                let machine = self.machine(id);
                machine.disk_free = machine.disk_free.max(now) + wait;
                let (done, start) = (machine.disk_free, machine.start);
                self.schedule(done, Event::Wrote(id, start));
            }
            if spoke && self.faulty && self.chance.permille(self.plan.crash_after_speaking) {
                self.crash(id);
                return;
            }
            if !turn.more {
                break;
            }
        }
        let after = Standing::of(self.cluster.raft(id));
        after.changes(&before, id).into_iter().for_each(|line| self.note(|| line));
        self.after_turn(id);
    }

    pub fn after_turn(&mut self, id: NodeId) {
        let raft = self.cluster.raft(id);
        if let Role::Leader(leader) = raft.role() {
            let suspect = leader.progress().find(|(_, progress)| progress.rolled_back);
            assert!(suspect.is_none(), "{id} suspects an honest disk: {suspect:?}");
        }
        let (wake, removed) = (raft.wake_at(), raft.is_removed());
        if removed && self.chance.permille(500) {
            // It says so and leaves.
            self.note(|| format!("{id} leaves"));
            self.cluster.crash(id, 0);
            self.machine(id).inbox.clear();
            return;
        }
        if wake != Time::MAX {
            let at = self.machine(id).clock.when(wake.micros()).max(self.now + 1);
            let late = self.chance.between(0, self.plan.lazy);
            self.turn_within(id, at + late);
        }
    }

    pub fn feed(&mut self, id: NodeId, input: Input) {
        match input {
            Input::Packet(packet) => {
                let line = trace::packet(&packet, &mut self.names);
                self.note(|| format!("  {line}"));
                self.cluster.arrive(packet);
            }
            Input::Wrote => {
                self.note(|| format!("  {id} has written"));
                self.cluster.complete_write(id);
            }
            Input::Found => {
                self.cluster.hand_in(id);
            }
            Input::Ended(to) => self.cluster.raft(id).snapshot_ended(to),
        }
    }

    pub fn disk_time(&mut self) -> Micros {
        if !self.faulty {
            return 100;
        }
        let stalls = self.chance.permille(self.plan.disk_stalls);
        let most = self.plan.disk * if stalls { 100 } else { 1 };
        self.chance.between(50, most)
    }

    pub fn send(&mut self, packet: Packet) {
        let lost = self.faulty && self.chance.permille(self.plan.lost);
        if lost || self.blocked.contains(&packet.way()) {
            self.lose(&packet);
            return;
        }
        let heavy = if matches!(packet, Packet::Snapshot { .. }) { 5 } else { 1 };
        let copies = if self.faulty && self.chance.permille(self.plan.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            let mut wait = self.chance.between(100, self.plan.latency) * heavy;
            if self.faulty && self.chance.permille(self.plan.late) {
                wait += Plan::spell(&mut self.chance);
            }
            self.schedule(self.now + wait, Event::Arrive(packet.clone()));
        }
    }

    /// A lost snapshot is noticed by who sends it; a lost message sometimes.
    pub fn lose(&mut self, packet: &Packet) {
        let (from, to) = packet.way();
        let noticed = matches!(packet, Packet::Snapshot { .. }) || self.chance.permille(100);
        if noticed {
            let wait = self.chance.between(1, 100) * MILLI;
            self.schedule(self.now + wait, Event::Ended(from, to));
        }
    }

    pub fn arrive(&mut self, packet: Packet) {
        let (from, to) = packet.way();
        if !self.cluster.is_up(to) || self.blocked.contains(&(from, to)) {
            self.lose(&packet);
            return;
        }
        if matches!(packet, Packet::Snapshot { .. }) {
            let wait = self.chance.between(1, 200) * MILLI;
            self.schedule(self.now + wait, Event::Ended(from, to));
        }
        self.put_in(to, Input::Packet(packet));
    }

    pub fn happens(&mut self, event: Event) {
        match event {
            Event::Arrive(packet) => self.arrive(packet),
            Event::Wrote(id, start) if self.is_same(id, start) => self.put_in(id, Input::Wrote),
            Event::Found(id, start) if self.is_same(id, start) => self.put_in(id, Input::Found),
            Event::Wrote(..) | Event::Found(..) => {}
            Event::Ended(id, to) => {
                if self.cluster.is_up(id) {
                    self.put_in(id, Input::Ended(to));
                }
            }
            Event::Turn(id) => self.turn(id),
            Event::Start(id) => self.start(id),
            Event::Client => self.client(),
            Event::Fault(fault) => self.fault(fault),
            Event::Heal => self.blocked.clear(),
            Event::Isolate(id) => self.isolate(id),
        }
    }

    pub fn is_same(&self, id: NodeId, start: u64) -> bool {
        self.cluster.is_up(id) && self.machines[&id].start == start
    }

    pub fn run_until(&mut self, end: Micros) {
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= end
        {
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.happens(event);
        }
        self.now = end;
    }
}
