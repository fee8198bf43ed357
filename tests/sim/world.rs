//! The world: machines, a network between them, clients, and the order in which
//! things happen. Everything is an event at a moment; nothing else makes time
//! pass, and one seed decides all of it.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::iter;

use bytes::BytesMut;
use raftcache::protocol::peer::{Ends, LinkClass, decode_frame, encode_frame};
use raftcache::raft::{ClusterId, Index, NodeId};
use raftcache::replica::{Effects, Input, PeerMessage, Probe, Ticket};
use raftcache::request::{Reply, Request};
use raftcache::storage::Job;
use raftcache::wal::WalError;
use raftcache::wal::faulty::Crash;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::clients::Client;
use super::clock::Clock;
use super::judge::Judge;
use super::node::{Machine, Moment, Process, Wrong, boot};
use super::operator::Operator;
use super::plan::{Fault, MS, Plan, SECOND};
use super::schemes::Schemes;
use super::trace::Trace;

/// Later than any run lasts.
const NEVER_US: u64 = 1 << 50;

/// More than this do not happen in a run that gets anywhere.
const EVENTS: u64 = 3_000_000;

/// The largest frame.
const FRAME_BYTES: usize = 16 << 20;

/// Something that is going to happen.
#[derive(Debug)]
pub enum Event {
    Start {
        machine: usize,
    },
    Turn {
        machine: usize,
        epoch: u64,
    },
    Frame(Box<Frame>),
    Lost {
        machine: usize,
        epoch: u64,
        to: NodeId,
    },
    JournalDone {
        machine: usize,
        epoch: u64,
    },
    JournalRests {
        machine: usize,
        epoch: u64,
    },
    SnapshotsDone {
        machine: usize,
        epoch: u64,
    },
    Probed {
        machine: usize,
        epoch: u64,
        probe: Probe,
    },
    /// A node that is not where its cluster knows it asks to be.
    Ask {
        machine: usize,
        epoch: u64,
    },
    Request {
        machine: usize,
        epoch: u64,
        ticket: Ticket,
        request: Box<Request>,
    },
    Reply {
        client: usize,
        ticket: Ticket,
        reply: Box<Reply>,
    },
    Client {
        client: usize,
    },
    Patience {
        client: usize,
        ticket: Ticket,
    },
    Broken {
        client: usize,
        ticket: Ticket,
    },
    Bounce {
        leader: usize,
        deaf: usize,
    },
    /// Nobody hears it any more.
    Mute {
        machine: usize,
        late: u64,
    },
    /// A disk is to lose something, once it may.
    Lose {
        machine: usize,
        fault: Fault,
        tries: u32,
    },
    End {
        machine: usize,
    },
    /// Whoever was cut off is heard again.
    Reunite,
    Fault,
    Heal,
    Operate,
}

/// A message on its way, as bytes.
#[derive(Debug)]
pub struct Frame {
    from: usize,
    /// The process that sent it, and where that says it is.
    epoch: u64,
    sender: NodeId,
    address: String,
    cluster: ClusterId,
    to: usize,
    addressee: NodeId,
    /// A connection does not outlive the processes at its ends: what arrives twice
    /// does so between these two, or what one has executed the next could execute
    /// again, or say not to have been.
    reaches: Option<u64>,
    bytes: Vec<u8>,
}

struct Scheduled {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// All of it.
pub struct World {
    pub plan: Plan,
    pub chance: Xoshiro256PlusPlus,
    pub now: u64,
    pub trace: Trace,
    pub machines: Vec<Machine>,
    pub clients: Vec<Client>,
    pub judge: Judge,
    pub operator: Operator,
    pub schemes: Schemes,
    /// From whom to whom nothing gets through.
    pub blocked: BTreeSet<(usize, usize)>,
    /// What is on its way from one to the other is lost.
    pub severed: BTreeSet<(usize, usize)>,
    /// Nothing heals by itself before.
    pub heals_from: u64,
    /// What may still go wrong.
    pub faulty: bool,
    events: BinaryHeap<Reverse<Scheduled>>,
    numbers: u64,
    happened: u64,
    /// When the last message of a link arrives.
    pub links: BTreeMap<(usize, usize, LinkClass), u64>,
    losing: BTreeSet<(usize, NodeId)>,
}

/// What happens with these effects, to a node that led before and knew this commit.
fn moments_in(effects: &Effects, before: (bool, Index), process: &Process) -> Vec<Moment> {
    let promises = effects.messages.iter().filter_map(|(_, message)| Judge::promise_in(message));
    let mut moments: Vec<Moment> = promises.collect();
    moments.extend(effects.replies.first().map(|_| Moment::Reply));
    if process.leads() {
        moments.extend((!before.0).then_some(Moment::Office));
        moments.extend((process.raft().commit() > before.1).then_some(Moment::Commit));
    }
    moments
}

impl World {
    pub fn new(seed: u64, verbose: bool) -> Self {
        let mut chance = Xoshiro256PlusPlus::seed_from_u64(seed);
        let plan = Plan::draw(&mut chance);
        let trace = Trace { verbose, ..Trace::default() };
        trace.tell(0, || format!("{plan:?}"));
        let mut world = Self {
            chance,
            now: 0,
            trace,
            machines: Vec::new(),
            clients: Vec::new(),
            judge: Judge::default(),
            operator: Operator::default(),
            schemes: Schemes::default(),
            blocked: BTreeSet::new(),
            severed: BTreeSet::new(),
            heals_from: 0,
            faulty: false,
            events: BinaryHeap::new(),
            numbers: 0,
            happened: 0,
            links: BTreeMap::new(),
            losing: BTreeSet::new(),
            plan,
        };
        for number in 0..world.plan.nodes {
            world.add_machine();
            world.machines[number].founder = number == 0;
        }
        for number in 0..world.plan.clients {
            let client = Client::new(&mut world.chance, world.plan.padding_bytes);
            world.clients.push(client);
            world.client_later(number, SECOND + number as u64);
        }
        world
    }

    pub fn add_machine(&mut self) -> usize {
        let number = self.machines.len();
        let drift = self.plan.drift_ppm;
        let drift = self.chance.random_range(-drift..=drift);
        let began_us = self.chance.random_range(1..1000 * SECOND);
        let off_ms = self.plan.wall_off_ms;
        let clock = Clock::new(drift, began_us, self.chance.random_range(-off_ms..=off_ms));
        self.machines.push(Machine::new(format!("n{}", number + 1), clock));
        self.after(1, Event::Start { machine: number });
        number
    }

    /// A moment between two from now on.
    pub fn within(&mut self, range: (u64, u64)) -> u64 {
        self.chance.random_range(range.0..=range.1)
    }

    pub fn chances(&mut self, of_a_million: u32) -> bool {
        of_a_million > 0 && self.chance.random_range(0..1_000_000) < of_a_million
    }

    pub fn after(&mut self, delay_us: u64, event: Event) {
        self.numbers += 1;
        let at = self.now + delay_us;
        self.events.push(Reverse(Scheduled { at, number: self.numbers, event }));
    }

    /// A number for an order of events that happen at one moment.
    pub fn tick(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Lets everything happen up to a moment, or until a condition holds.
    pub fn run_until(&mut self, until: u64, holds: impl Fn(&Self) -> bool) -> bool {
        while let Some(Reverse(next)) = self.events.peek() {
            if next.at > until {
                break;
            }
            let Some(Reverse(Scheduled { at, event, .. })) = self.events.pop() else { break };
            self.now = at;
            self.happened += 1;
            assert!(self.happened < EVENTS, "it goes round and round:\n{}", self.states());
            self.happen(event);
            if holds(self) {
                return true;
            }
        }
        self.now = until;
        holds(self)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start { machine } => self.start(machine),
            Event::Turn { machine, epoch } => self.turn(machine, epoch),
            Event::Frame(frame) => self.arrive(*frame),
            Event::Lost { machine, epoch, to } => {
                self.losing.remove(&(machine, to));
                if let Some(process) = self.process(machine, epoch) {
                    process.heard.remove(&to);
                    self.input(machine, Input::LinkLost(to));
                }
            }
            Event::JournalDone { machine, epoch } => self.journal_done(machine, epoch),
            Event::JournalRests { machine, epoch } => self.journal_rests(machine, epoch),
            Event::SnapshotsDone { machine, epoch } => self.snapshots_done(machine, epoch),
            Event::Probed { machine, epoch, probe } => self.probed(machine, epoch, probe),
            Event::Ask { machine, epoch } => self.ask(machine, epoch),
            Event::Request { machine, epoch, ticket, request } => {
                self.request(machine, epoch, ticket, *request);
            }
            Event::Reply { client, ticket, reply } => self.client_reply(client, ticket, *reply),
            Event::Client { client } => self.client_acts(client),
            Event::Patience { client, ticket } => self.client_loses_patience(client, ticket),
            Event::Broken { client, ticket } => self.client_broken(client, ticket),
            Event::Bounce { leader, deaf } => self.bounce_others(leader, deaf),
            Event::Mute { machine, late } => self.mute(machine, late),
            Event::Lose { machine, fault, tries } => self.lose_something(fault, machine, tries),
            Event::End { machine } => self.end(machine),
            Event::Reunite => self.blocked.clear(),
            Event::Fault => self.fault(),
            Event::Heal => self.heal_some(),
            Event::Operate => self.operate(),
        }
    }

    /// The process of a machine, if it is still that one.
    pub fn process(&mut self, machine: usize, epoch: u64) -> Option<&mut Process> {
        self.machines[machine].process.as_mut().filter(|process| process.epoch == epoch)
    }

    // ---- processes

    fn start(&mut self, number: usize) {
        let node = NodeId(self.chance.random());
        let cluster = ClusterId(self.chance.random());
        let seed = self.chance.random();
        let machine = &mut self.machines[number];
        if machine.process.is_some() || machine.retired {
            return;
        }
        let before = machine.disk.operations();
        match boot(machine, &self.plan, (node, cluster, seed), self.now) {
            Ok(mut process) => {
                let epoch = process.epoch;
                // Killed while it recovers, it must recover.
                let fragile = self.faulty && self.chance.random_bool(0.03);
                if fragile {
                    process.heard_operations = before;
                }
                machine.process = Some(process);
                self.trace.note(self.now, "start", &[number as u64, epoch]);
                self.judge.started(number, &self.machines[number]);
                if fragile {
                    self.trace.count("crashes while recovering");
                    self.crash_somehow(number);
                    return;
                }
                self.wake(number, self.now);
                self.after(50 * MS, Event::Ask { machine: number, epoch });
            }
            Err(error) => self.refused(number, &error),
        }
    }

    /// It does not start: only because of what was done to its disk. It is
    /// rebuilt from the others.
    fn refused(&mut self, number: usize, error: &WalError) {
        let machine = &mut self.machines[number];
        self.trace.tell(self.now, || format!("n{} does not start: {error}", number + 1));
        self.trace.note(self.now, "refused", &[number as u64]);
        assert!(machine.damaged, "{} does not start: {error}", machine.name);
        self.trace.count("refused starts");
        self.rebuild(number);
        self.after(100 * MS, Event::Start { machine: number });
    }

    /// Its directory is set aside; what starts next has another identity.
    pub fn rebuild(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        machine.disk = Default::default();
        (machine.rebuild, machine.damaged, machine.founder) = (true, false, false);
        self.trace.count("rebuilds");
    }

    /// The process ends, and the machine perhaps with it.
    pub fn crash(&mut self, number: usize, crash: Crash) -> bool {
        let machine = &mut self.machines[number];
        let Some(process) = machine.process.take() else { return false };
        let operations = machine.disk.operations();
        let heard = process.heard_operations.min(operations);
        let mut at = self.chance.random_range(heard..=operations);
        if let Crash::Torn(_) = crash {
            // What is synced, and what is not begun, cannot be torn.
            let is_torn =
                |&at: &usize| at > heard && machine.disk.operation(at).starts_with("Write");
            if let Some(torn) = (heard..=operations).rev().find(is_torn) {
                at = torn;
                self.trace.count("torn writes");
            }
        }
        self.trace.tell(self.now, || {
            let last = (at.saturating_sub(5)..=at).map(|at| machine.disk.operation(at));
            format!(
                "{} {crash:?} at {at} of {operations}: {:?}",
                machine.name,
                last.collect::<Vec<_>>()
            )
        });
        machine.disk = machine.disk.image(at, crash);
        if self.chance.random_bool(0.5) {
            machine.silenced = process.epoch;
        }
        self.trace.tell(self.now, || {
            let names = raftcache::wal::Disk::list(&machine.disk);
            format!("{} finds {names:?}", machine.name)
        });
        self.trace.note(self.now, "crash", &[number as u64, at as u64]);
        self.trace.count("crashes");
        self.judge.ended(number);
        for client in 0..self.clients.len() {
            if let Some(ticket) = self.clients[client].waits_for(number, process.epoch) {
                let delay = self.within(self.plan.delay_us);
                self.after(delay, Event::Broken { client, ticket });
            }
        }
        true
    }

    pub fn crash_somehow(&mut self, number: usize) {
        let seed = self.chance.random();
        let crashes = [Crash::Lost, Crash::Kept, Crash::Torn(seed), Crash::Killed];
        let crash = crashes[self.chance.random_range(0..crashes.len())];
        if self.crash(number, crash) {
            let back = self.soon();
            self.after(back, Event::Start { machine: number });
        }
    }

    /// The disk cannot be trusted: the process ends itself.
    fn fails(&mut self, number: usize, error: &WalError) {
        self.trace.tell(self.now, || format!("n{} ends: {error}", number + 1));
        // A full disk ends only who has no journal yet.
        let is_planned = match error {
            WalError::Sync { .. } => self.judge.may_fail_sync(number),
            WalError::Full { .. } => self.machines[number].is_newcomer(),
            _ => false,
        };
        assert!(is_planned || self.machines[number].damaged, "n{}: {error}", number + 1);
        self.trace.count("nodes that ended themselves");
        self.crash(number, Crash::Killed);
        let back = self.within((5 * MS, 3 * SECOND));
        self.after(back, Event::Start { machine: number });
    }

    pub fn input(&mut self, number: usize, input: Input) {
        let soon = self.now + self.chance.random_range(5..120);
        if let Some(process) = &mut self.machines[number].process {
            process.inbox.push(input);
            self.wake(number, soon);
        }
    }

    fn wake(&mut self, machine: usize, at: u64) {
        let Some(process) = &mut self.machines[machine].process else { return };
        if at < process.turn_at && at < NEVER_US {
            process.turn_at = at;
            let epoch = process.epoch;
            self.after(at - self.now.min(at), Event::Turn { machine, epoch });
        }
    }

    fn turn(&mut self, number: usize, epoch: u64) {
        let now = self.now;
        let machine = &mut self.machines[number];
        let Some(process) = machine.process.as_mut() else { return };
        if process.epoch != epoch || process.turn_at != now {
            return;
        }
        if let Some((_, until)) = process.paused
            && now < until
        {
            process.turn_at = until;
            self.after(until - now, Event::Turn { machine: number, epoch });
            return;
        }
        process.turn_at = u64::MAX;
        // It was stopped when it was about to take what had arrived.
        let stopped = process.paused.take().map(|(since, _)| machine.clock.read(since));
        let shows = machine.clock.read(now);
        let is_drained = Cell::new(false);
        let arrived = std::mem::take(&mut process.inbox).into_iter().chain(iter::from_fn(|| {
            is_drained.set(true);
            None
        }));
        let read_clock = || stopped.filter(|_| !is_drained.get()).unwrap_or(shows);
        let before = (process.leads(), process.raft().commit());
        let mut effects = process.driver.turn(arrived, read_clock);
        let moments = moments_in(&effects, before, process);
        let ends_at = process.doomed.filter(|moment| moments.contains(moment));
        if ends_at == Some(Moment::Office) {
            effects.messages.clear();
        }
        let wake_at = effects.wake_at.map(|at| machine.clock.moment_us(at).max(now + 1));
        self.dispatch(number, epoch, effects);
        if let Some(at) = wake_at {
            self.wake(number, at);
        }
        let machine = &self.machines[number];
        self.judge.look(number, machine, &self.plan, now, &mut self.trace);
        self.scheme(number);
        if let Some(moment) = ends_at {
            self.crash_at(number, moment);
        }
    }

    fn dispatch(&mut self, number: usize, epoch: u64, effects: Effects) {
        let fault = effects.fault.clone();
        let machine = &mut self.machines[number];
        machine.wrong = match (machine.wrong, &fault) {
            (Wrong::Unnoticed, Some(_)) => Wrong::Noticed,
            (Wrong::Noticed, None) => Wrong::No,
            (as_it_was, _) => as_it_was,
        };
        self.judge.fault(number, &self.machines[number], fault);
        let Some(process) = self.process(number, epoch) else { return };
        if let Some(book) = effects.peers {
            let book = BTreeMap::from_iter(book);
            let old = std::mem::replace(&mut process.book, book);
            process.found.retain(|node, _| process.book.get(node) == old.get(node));
            // The last word to those who are not in it any more.
            for (node, address) in old {
                process.heard.entry(node).or_insert(address);
            }
        }
        if let Some(write) = &effects.write {
            let node = process.node();
            self.judge.writes(number, node, write);
        }
        let applied = self.judge.applied(number);
        let Some(process) = self.machines[number].process.as_mut() else { return };
        self.judge.logs.turned(process.raft());
        let mut jobs: VecDeque<Job> = effects.write.map(Job::Write).into_iter().collect();
        jobs.extend(effects.fetch.into_iter().map(Job::Fetch));
        jobs.extend(effects.snapshot_taken.map(Job::SnapshotTaken));
        if std::mem::replace(&mut process.pinned, effects.pinned) != effects.pinned {
            jobs.push_back(Job::Pin(effects.pinned));
        }
        if let Some(journal) = &mut process.journal {
            journal.queue.extend(jobs);
        }
        if let Some(snapshots) = &mut process.snapshots {
            snapshots.queue.extend(effects.snapshots);
        }
        self.begin_journal_work(number, epoch);
        self.begin_snapshot_work(number, epoch);
        let mut hands_over = false;
        for (to, message) in effects.messages {
            self.judge.said(&message);
            self.send(number, epoch, to, &message);
            hands_over |= Judge::hands_over(&message);
        }
        if hands_over {
            self.abandon(number);
        }
        for probe in effects.probes {
            let delay = self.within((MS, 20 * MS));
            self.after(delay, Event::Probed { machine: number, epoch, probe });
        }
        for (ticket, reply) in effects.replies {
            self.client_is_told(ticket, &reply, applied);
            self.reply(ticket, reply);
        }
        if effects.removed {
            self.removed(number);
        }
    }

    // ---- the disk

    fn disk_time(&mut self, number: usize) -> u64 {
        let time = self.within(self.plan.sync_us) * self.machines[number].disk_factor;
        time + self.machines[number].stalled_until.saturating_sub(self.now)
    }

    /// A thread has done something; what it says is heard when its time is over.
    fn worked(&mut self, machine: usize, outcome: Result<(), WalError>, late: u64, done: Event) {
        match outcome {
            Err(error) => self.fails(machine, &error),
            Ok(()) => {
                let time = self.disk_time(machine) + late;
                self.after(time, done);
            }
        }
    }

    fn begin_journal_work(&mut self, machine: usize, epoch: u64) {
        let Some(process) = self.process(machine, epoch) else { return };
        let Some(journal) = &mut process.journal else { return };
        if journal.saying.is_some() || journal.queue.is_empty() {
            return;
        }
        let mut saying = Vec::new();
        let mut report = |input| saying.push(input);
        let mut outcome = Ok(());
        for job in std::mem::take(&mut journal.queue) {
            outcome = outcome.and_then(|()| journal.worker.take(job, &mut report));
        }
        outcome = outcome.and_then(|()| journal.worker.settle(&mut report));
        journal.saying = Some(saying);
        self.laggard_works(machine);
        self.worked(machine, outcome, 0, Event::JournalDone { machine, epoch });
    }

    fn journal_done(&mut self, machine: usize, epoch: u64) {
        let operations = self.machines[machine].disk.operations();
        let Some(process) = self.process(machine, epoch) else { return };
        let Some(journal) = &mut process.journal else { return };
        let said = journal.saying.take().unwrap_or_default();
        let patience = journal.worker.patience();
        process.heard_operations = operations;
        for input in said {
            self.input(machine, input);
        }
        self.begin_journal_work(machine, epoch);
        if let Some(patience) = patience {
            let patience = patience.as_micros() as u64 + 1;
            self.after(patience, Event::JournalRests { machine, epoch });
        }
    }

    fn journal_rests(&mut self, machine: usize, epoch: u64) {
        let Some(process) = self.process(machine, epoch) else { return };
        let Some(journal) = &mut process.journal else { return };
        if journal.saying.is_some() || journal.worker.patience().is_none() {
            return;
        }
        let mut saying = Vec::new();
        let rested = journal.worker.rest();
        let outcome = rested.and_then(|()| journal.worker.settle(&mut |input| saying.push(input)));
        journal.saying = Some(saying);
        self.worked(machine, outcome, 0, Event::JournalDone { machine, epoch });
    }

    fn begin_snapshot_work(&mut self, machine: usize, epoch: u64) {
        let Some(process) = self.process(machine, epoch) else { return };
        let Some(snapshots) = &mut process.snapshots else { return };
        if snapshots.saying.is_some() {
            return;
        }
        let Some(job) = snapshots.queue.pop_front() else { return };
        let mut saying = Vec::new();
        let mut report = |report| saying.push(Input::Snapshot(report));
        let outcome = snapshots.worker.work(job, &mut report);
        let late = self.dawdle(&saying);
        if let Some(snapshots) = self.process(machine, epoch).and_then(|it| it.snapshots.as_mut()) {
            snapshots.saying = Some(saying);
        }
        self.worked(machine, outcome, late, Event::SnapshotsDone { machine, epoch });
    }

    fn snapshots_done(&mut self, machine: usize, epoch: u64) {
        let operations = self.machines[machine].disk.operations();
        let Some(process) = self.process(machine, epoch) else { return };
        let Some(snapshots) = &mut process.snapshots else { return };
        let said = snapshots.saying.take().unwrap_or_default();
        process.heard_operations = operations;
        for input in said {
            self.judge.snapshot(machine, &input, self.now, &mut self.trace);
            self.input(machine, input);
        }
        self.begin_snapshot_work(machine, epoch);
    }

    // ---- the network

    pub fn machine_at(&self, address: &str) -> Option<usize> {
        self.machines.iter().position(|machine| machine.peer_address() == address)
    }

    fn send(&mut self, from: usize, epoch: u64, to: NodeId, message: &PeerMessage) {
        let address = self.machines[from].peer_address();
        let Some(process) = self.process(from, epoch) else { return };
        let there = process.address_of(to).cloned();
        let (Some(cluster), sender) = (process.identity.cluster, process.node()) else { return };
        let target = there.and_then(|address| self.machine_at(&address));
        let Some(target) = target else { return self.lose(from, epoch, to) };
        let swallowed = self.schemes.swallows(from, &self.machines[target], message);
        let blocked = swallowed || self.blocked.contains(&(from, target));
        if blocked || self.chances(self.plan.drop_ppm) {
            self.trace.count("messages lost");
            // Some connections break, others are silent.
            if self.chance.random_bool(0.5) {
                self.lose(from, epoch, to);
            }
            return;
        }
        let mut bytes = Vec::new();
        encode_frame(&Ends::new(cluster, sender, to), message, &mut bytes);
        if self.chances(self.plan.corrupt_ppm) {
            let at = self.chance.random_range(0..bytes.len());
            bytes[at] ^= 1 << self.chance.random_range(0..8);
        }
        let copies = 1 + u32::from(self.chances(self.plan.double_ppm));
        for copy in 0..copies {
            let mut delay = self.delay(from, target, LinkClass::of(message));
            if copy > 0 && self.chance.random_bool(0.3) {
                delay += self.within((0, SECOND));
            }
            let frame = Frame {
                from,
                epoch,
                sender,
                address: address.clone(),
                cluster,
                to: target,
                addressee: to,
                reaches: (copies > 1).then_some(self.machines[target].epoch),
                bytes: bytes.clone(),
            };
            self.after(delay, Event::Frame(Box::new(frame)));
        }
    }

    fn delay(&mut self, from: usize, to: usize, class: LinkClass) -> u64 {
        let factor = self.machines[from].network_factor.max(self.machines[to].network_factor);
        let late =
            self.machines[to].late.map_or(0, |(since, late)| late.min((self.now - since) / 2));
        let arrives = self.now + self.within(self.plan.delay_us) * factor + late;
        let last = self.links.entry((from, to, class)).or_default();
        let arrives = if self.plan.reorder { arrives } else { arrives.max(*last) };
        *last = arrives;
        arrives - self.now
    }

    /// The sender finds out, once.
    fn lose(&mut self, machine: usize, epoch: u64, to: NodeId) {
        if self.losing.insert((machine, to)) {
            let delay = self.within((MS, 200 * MS));
            self.after(delay, Event::Lost { machine, epoch, to });
        }
    }

    fn arrive(&mut self, frame: Frame) {
        let Frame { from, epoch, sender, address, cluster, to, addressee, reaches, bytes } = frame;
        let is_same = self.machines[from].epoch == epoch;
        if reaches.is_some_and(|reaches| !is_same || reaches != self.machines[to].epoch) {
            return;
        }
        if epoch <= self.machines[from].silenced || self.severed.contains(&(from, to)) {
            return;
        }
        let disk = self.machines[to].disk.clone();
        let Some(process) = &mut self.machines[to].process else {
            return self.lose(from, epoch, addressee);
        };
        if process.node() != addressee {
            return self.lose(from, epoch, addressee);
        }
        match process.identity.cluster {
            Some(ours) if ours != cluster => return self.lose(from, epoch, addressee),
            Some(_) => {}
            None => {
                let adopted = process.adopt(&disk, &self.plan, cluster);
                self.trace.count("newcomers");
                if let Err(error) = adopted {
                    return self.fails(to, &error);
                }
            }
        }
        let ends = Ends::new(cluster, sender, addressee);
        let mut bytes = BytesMut::from(&bytes[..]);
        match decode_frame(&ends, FRAME_BYTES, &mut bytes) {
            Ok(Some(message)) => {
                process.heard.insert(sender, address);
                self.input(to, Input::Peer { from: sender, message });
            }
            // What is damaged ends the connection.
            Ok(None) | Err(_) => {
                self.trace.count("messages damaged");
                self.lose(from, epoch, addressee);
            }
        }
    }

    fn probed(&mut self, number: usize, epoch: u64, probe: Probe) {
        let Probe { id, address } = probe;
        let there = self.machine_at(&address).filter(|&there| {
            !self.blocked.contains(&(number, there)) && !self.blocked.contains(&(there, number))
        });
        let found = there.and_then(|there| {
            let machine = &self.machines[there];
            let process = machine.process.as_ref()?;
            Some(process.peer(machine.rebuild, machine.client_address()))
        });
        let Some(process) = self.process(number, epoch) else { return };
        if let Some(peer) = &found
            && process.book.contains_key(&peer.node)
            && peer.cluster == process.identity.cluster
        {
            process.found.insert(peer.node, address.clone());
        }
        let found = found.ok_or_else(|| format!("cannot reach {address}"));
        self.input(number, Input::Probed { id, found });
    }

    /// Who does not belong, or is not where it was, says so to somebody.
    fn ask(&mut self, number: usize, epoch: u64) {
        let machine = &self.machines[number];
        let (name, peer_address) = (machine.name.clone(), machine.peer_address());
        let Some(process) = self.process(number, epoch) else { return };
        let raft = process.raft();
        let known = raft.applied_membership().get(raft.id());
        let is_settled = known.is_some_and(|member| member.peer_address == peer_address)
            && raft.leader().is_some();
        self.after(700 * MS, Event::Ask { machine: number, epoch });
        let whom = self.chance.random_range(0..self.machines.len());
        if is_settled || (whom == number && self.machines.len() > 1) {
            return;
        }
        let ticket = Ticket { connection: 1000 + number as u64, number: self.tick() };
        let epoch = self.machines[whom].epoch;
        let request = Request::Join { name, peer_address };
        self.after(MS, Event::Request { machine: whom, epoch, ticket, request: Box::new(request) });
    }

    fn request(&mut self, machine: usize, epoch: u64, ticket: Ticket, request: Request) {
        if self.process(machine, epoch).is_some() {
            self.client_delivered(ticket);
            self.input(machine, Input::Request { ticket, request });
        } else if let Some(client) = self.client_of(ticket) {
            self.client_broken(client, ticket);
        }
    }

    fn reply(&mut self, ticket: Ticket, reply: Reply) {
        if let Some(client) = self.client_of(ticket) {
            let delay = self.within(self.plan.delay_us);
            self.after(delay, Event::Reply { client, ticket, reply: Box::new(reply) });
        }
    }
}
