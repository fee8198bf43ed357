//! Clients: each has one connection to one node and one request at a time. It
//! works in bursts, gives up, goes elsewhere, and tries again with its session.
//! What it asked and was told is what the checkers judge.

use std::collections::BTreeMap;

use bytes::Bytes;
use raftcache::replica::{Input, Ticket};
use raftcache::request::{
    Answer, Batch, Command, Condition, Consistency, ErrorKind, Expiry, Item, Key, Reply, Request,
    SessionStamp,
};
use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;

use super::checkers::linearizability::{Action, Operation, Value};
use super::checkers::{atomicity, stale, ttl};
use super::plan::{MS, SECOND};
use super::world::{Event, World};

/// The keys that single commands use.
const REGISTERS: [&str; 4] = ["r0", "r1", "r2", "r3"];

/// Two keys that are only written and read together.
const PAIR: [&str; 2] = ["p0", "p1"];

/// Counts.
const COUNTER: &str = "c";

/// Has deadlines.
const MORTAL: &str = "t";

/// A client waits a little longer than a node may take.
const PATIENCE_US: u64 = 3200 * MS;

/// A node may take so long, and a turn.
const ANSWERED_WITHIN_US: u64 = 3100 * MS;

/// What a client does.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Act {
    OpenSession,
    Get(&'static str),
    Set(&'static str, Value),
    Delete(&'static str),
    /// Replaces one value by another.
    Swap(&'static str, Value, Value),
    Increment,
    WritePair(Value),
    ReadPair,
    /// A value that lives so many milliseconds.
    SetMortal(Value, u64),
    GetMortal,
    DeleteMortal,
    GetStale(&'static str),
}

impl Act {
    fn is_write(&self) -> bool {
        !matches!(
            self,
            Self::Get(_) | Self::ReadPair | Self::GetMortal | Self::GetStale(_) | Self::OpenSession
        )
    }
}

/// A request that is not answered yet.
#[derive(Debug, Clone)]
struct Waiting {
    ticket: Ticket,
    act: Act,
    /// When it was asked for the first time.
    called_at: u64,
    called_us: u64,
    /// The node has it, since when.
    delivered_us: Option<u64>,
    /// It was sent before, and nobody knows.
    again: bool,
}

pub struct Client {
    /// The node it is connected to.
    at: Option<(usize, u64)>,
    connection: u64,
    waiting: Option<Waiting>,
    /// Its fate is unknown, and its stamp lets it be sent again.
    unsure: Option<Waiting>,
    has_session: bool,
    session: Option<u64>,
    sequence: u64,
    burst: u32,
    seen: BTreeMap<&'static str, Value>,
    /// It comes to an end.
    pub resting: bool,
    /// When it acts next.
    acts_at: u64,
    /// Its values are longer by so much.
    padding_bytes: usize,
}

impl Client {
    pub fn new(chance: &mut Xoshiro256PlusPlus, padding_bytes: usize) -> Self {
        Self {
            at: None,
            connection: 0,
            waiting: None,
            unsure: None,
            has_session: chance.random_bool(0.4),
            session: None,
            sequence: 1,
            burst: 0,
            seen: BTreeMap::new(),
            resting: false,
            acts_at: 0,
            padding_bytes,
        }
    }

    /// What it waits for from this process.
    pub fn waits_for(&self, machine: usize, epoch: u64) -> Option<Ticket> {
        let waiting = self.waiting.as_ref().filter(|_| self.at == Some((machine, epoch)))?;
        Some(waiting.ticket)
    }

    pub fn is_done(&self) -> bool {
        self.waiting.is_none() && self.unsure.is_none()
    }

    fn stamp(&self, act: &Act) -> Option<SessionStamp> {
        let sequence = self.sequence;
        self.session.filter(|_| act.is_write()).map(|session| SessionStamp { session, sequence })
    }

    fn request(&self, act: &Act) -> Request {
        let get = |name: &&'static str| Command::Get(key(name));
        let text = |value: Value| format!("{value}{:1$}", "", self.padding_bytes).into();
        let set = |name: &'static str, value: Value, expiry, condition| Command::Set {
            key: key(name),
            value: text(value),
            expiry,
            condition,
        };
        let plain = |name, value| set(name, value, Expiry::Never, Condition::Always);
        let commands = match act {
            Act::OpenSession => return Request::OpenSession,
            Act::Get(name) | Act::GetStale(name) => vec![get(name)],
            Act::Set(name, value) => vec![plain(name, *value)],
            Act::Delete(name) => vec![Command::Delete(key(name))],
            Act::Swap(name, old, new) => {
                vec![set(name, *new, Expiry::Never, Condition::IfValue(text(*old)))]
            }
            Act::Increment => vec![Command::Increment { key: key(COUNTER), by: 1 }],
            Act::WritePair(value) => PAIR.iter().map(|name| plain(name, *value)).collect(),
            Act::ReadPair => PAIR.iter().map(get).collect(),
            Act::SetMortal(value, ms) => {
                vec![set(MORTAL, *value, Expiry::AfterMs(*ms), Condition::Always)]
            }
            Act::GetMortal => vec![get(&MORTAL)],
            Act::DeleteMortal => vec![Command::Delete(key(MORTAL))],
        };
        let stale = matches!(act, Act::GetStale(_));
        Request::Run {
            batch: Batch { guards: Vec::new(), commands },
            consistency: if stale { Consistency::Stale } else { Consistency::Linearizable },
            session: self.stamp(act),
        }
    }
}

fn key(name: &'static str) -> Key {
    Key::new(name)
}

/// The key with deadlines.
pub fn mortal() -> Key {
    key(MORTAL)
}

/// What a value says.
pub fn number(bytes: &Bytes) -> Value {
    let text = std::str::from_utf8(bytes).expect("only numbers are written");
    text.trim_end().parse().expect("only numbers are written")
}

fn found(answer: &Answer) -> Option<&Item> {
    match answer {
        Answer::Item(item) => item.as_ref(),
        other => panic!("{other:?} to a GET"),
    }
}

impl World {
    /// Whose ticket that is.
    pub fn client_of(&self, ticket: Ticket) -> Option<usize> {
        let number = (ticket.connection >> 32).checked_sub(1)? as usize;
        (number < self.clients.len()).then_some(number)
    }

    pub fn client_delivered(&mut self, ticket: Ticket) {
        let now = self.now;
        let Some(client) = self.client_of(ticket) else { return };
        if let Some(waiting) = &mut self.clients[client].waiting
            && waiting.ticket == ticket
        {
            waiting.delivered_us = Some(now);
        }
    }

    pub fn client_later(&mut self, client: usize, delay_us: u64) {
        self.clients[client].acts_at = self.now + delay_us;
        self.after(delay_us, Event::Client { client });
    }

    /// Everybody who rests has something to ask, soon.
    pub fn stir(&mut self, within_us: u64) {
        for client in 0..self.clients.len() {
            let delay = self.within((0, within_us));
            let it = &mut self.clients[client];
            if it.waiting.is_none() && !it.resting {
                it.burst = self.chance.random_range(3..20);
                self.client_later(client, delay);
            }
        }
    }

    /// Whoever is connected to this node and does not wait acts after a while.
    pub fn hold(&mut self, machine: usize, range: (u64, u64)) {
        for client in 0..self.clients.len() {
            let delay = self.within(range);
            let it = &self.clients[client];
            if it.waiting.is_none() && it.at.is_some_and(|at| at.0 == machine) {
                self.client_later(client, delay);
            }
        }
    }

    /// Nobody begins anything for a while.
    pub fn hush(&mut self, for_us: u64) {
        for client in 0..self.clients.len() {
            self.clients[client].burst = 0;
            if self.clients[client].waiting.is_none() {
                self.client_later(client, for_us + 2 * SECOND);
            }
        }
    }

    /// It has waited for long enough, if it still does.
    pub fn client_loses_patience(&mut self, client: usize, ticket: Ticket) {
        let waiting = self.clients[client].waiting.as_ref();
        if waiting.is_some_and(|waiting| waiting.ticket == ticket) {
            self.judge_silence(client);
            self.client_broken(client, ticket);
        }
    }

    /// It asks the next thing.
    pub fn client_acts(&mut self, client: usize) {
        let now = self.now;
        let it = &self.clients[client];
        if it.acts_at != now || it.waiting.is_some() || (it.resting && it.unsure.is_none()) {
            return;
        }
        self.connect(client);
        let Some((machine, epoch)) = self.clients[client].at else {
            return self.client_later(client, 50 * MS);
        };
        let (called_at, number) = (self.tick(), self.tick());
        let again = self.clients[client].unsure.take();
        let act = match &again {
            Some(waiting) => waiting.act.clone(),
            None => self.choose(client),
        };
        let it = &mut self.clients[client];
        let ticket = Ticket { connection: it.connection, number };
        let request = Box::new(it.request(&act));
        let first = again.as_ref().map_or((called_at, now), |w| (w.called_at, w.called_us));
        it.waiting = Some(Waiting {
            ticket,
            act,
            called_at: first.0,
            called_us: first.1,
            delivered_us: None,
            again: again.is_some(),
        });
        let delay = self.within(self.plan.delay_us);
        self.after(delay, Event::Request { machine, epoch, ticket, request });
        self.after(PATIENCE_US, Event::Patience { client, ticket });
    }

    /// A node that runs and is not stopped answers in time, if only to say that
    /// it does not know.
    fn judge_silence(&mut self, client: usize) {
        let it = &self.clients[client];
        let (Some(waiting), Some((machine, epoch))) = (&it.waiting, it.at) else { return };
        let Some(delivered) = waiting.delivered_us else { return };
        let waiting = waiting.clone();
        let now = self.now;
        let stood_still = self.judge.stood_still(machine, delivered);
        let slack = self.plan.delay_us.1 + self.plan.drift_ppm as u64 * 4;
        if self.process(machine, epoch).is_some() && !stood_still {
            assert!(
                now - delivered <= ANSWERED_WITHIN_US + slack,
                "n{} does not answer {waiting:?}",
                machine + 1
            );
        }
    }

    fn connect(&mut self, client: usize) {
        let at = self.clients[client].at;
        let alive = at.is_some_and(|(machine, epoch)| self.process(machine, epoch).is_some());
        if alive && !self.chance.random_bool(0.02) {
            return;
        }
        if let Some((machine, epoch)) = at
            && self.process(machine, epoch).is_some()
        {
            let connection = self.clients[client].connection;
            self.input(machine, Input::Gone { connection });
        }
        let machine = self.chance.random_range(0..self.machines.len());
        let it = &mut self.clients[client];
        it.connection = ((client as u64 + 1) << 32) + (it.connection & 0xffff_ffff) + 1;
        it.at = self.machines[machine].process.as_ref().map(|process| (machine, process.epoch));
    }

    fn choose(&mut self, client: usize) -> Act {
        let it = &self.clients[client];
        if it.has_session && it.session.is_none() {
            return Act::OpenSession;
        }
        let name = REGISTERS[self.chance.random_range(0..REGISTERS.len())];
        let seen = it.seen.get(name).copied();
        let value = self.tick();
        match self.chance.random_range(0..100) {
            0..25 => Act::Get(name),
            25..42 => Act::Set(name, value),
            42..46 => Act::Delete(name),
            46..60 => match seen {
                Some(seen) => Act::Swap(name, seen, value),
                None => Act::Get(name),
            },
            60..72 => Act::Increment,
            72..77 => Act::WritePair(value),
            77..84 => Act::ReadPair,
            84..86 => Act::SetMortal(value, self.chance.random_range(50..6000)),
            86 => Act::DeleteMortal,
            87..94 => Act::GetMortal,
            _ => Act::GetStale(name),
        }
    }

    /// A node that has applied entries up to this one answers, or passes on what the
    /// leader has answered.
    pub fn client_is_told(&self, ticket: Ticket, reply: &Reply, applied: u64) {
        let Some(client) = self.client_of(ticket) else { return };
        let waiting = self.clients[client].waiting.as_ref().filter(|it| it.ticket == ticket);
        let Some(Waiting { act: Act::GetMortal, .. }) = waiting else { return };
        let Reply::Answers(answers) = reply else { return };
        let told = found(&answers[0]).map(|item| number(&item.value));
        let is_so = self.judge.logs.mortal.explains(applied, told);
        assert!(is_so, "{MORTAL} = {told:?} is not what the log says from {applied} on");
    }

    /// It will never know what came of it, unless it may ask again.
    pub fn client_broken(&mut self, client: usize, ticket: Ticket) {
        let it = &mut self.clients[client];
        let Some(waiting) = it.waiting.take_if(|waiting| waiting.ticket == ticket) else { return };
        it.at = None;
        self.unknown(client, waiting);
    }

    fn unknown(&mut self, client: usize, waiting: Waiting) {
        self.trace.count("outcomes unknown");
        let it = &mut self.clients[client];
        if waiting.delivered_us.is_none() && !waiting.again {
            // It never got there.
        } else if it.stamp(&waiting.act).is_some() {
            it.unsure = Some(waiting);
        } else {
            self.record(&waiting, None);
        }
        let rest = self.within((MS, 300 * MS));
        self.client_later(client, rest);
    }

    pub fn client_reply(&mut self, client: usize, ticket: Ticket, reply: Reply) {
        let it = &mut self.clients[client];
        let Some(waiting) = it.waiting.take_if(|waiting| waiting.ticket == ticket) else { return };
        self.trace.note(self.now, "reply", &[client as u64, ticket.number, kind_of(&reply)]);
        self.trace.tell(self.now, || format!("client {client}: {:?} -> {reply:?}", waiting.act));
        match reply {
            Reply::Error(ErrorKind::Unknown, _) => return self.unknown(client, waiting),
            Reply::Error(ErrorKind::SessionExpired, why) => {
                // Of what was sent before nobody knows.
                if waiting.again {
                    self.record(&waiting, None);
                }
                self.trace.count("sessions expired");
                self.trace.tell(self.now, || why);
                (self.clients[client].session, self.clients[client].sequence) = (None, 1);
            }
            Reply::Error(ErrorKind::Invalid, why) => panic!("client {client}: {waiting:?}: {why}"),
            Reply::Error(_, _) if waiting.again => return self.unknown(client, waiting),
            Reply::Error(_, _) => {
                self.trace.count("refused requests");
                self.clients[client].at = None;
            }
            Reply::SessionOpened { session } => {
                (self.clients[client].session, self.clients[client].sequence) = (Some(session), 1);
            }
            Reply::Answers(answers) => {
                self.trace.count("operations");
                if waiting.again {
                    self.trace.count("retries answered");
                }
                self.answered(client, &waiting, &answers);
            }
            other => panic!("client {client}: {other:?} to {waiting:?}"),
        }
        self.rest(client);
    }

    fn rest(&mut self, client: usize) {
        let it = &mut self.clients[client];
        let rest = if it.burst > 0 {
            it.burst -= 1;
            self.within((50, 2 * MS))
        } else {
            it.burst = self.chance.random_range(2..20);
            self.within((MS, self.plan.rest_ms * MS))
        };
        self.client_later(client, rest);
    }

    fn answered(&mut self, client: usize, waiting: &Waiting, answers: &[Answer]) {
        let at = self.clients[client].at;
        if let Some((machine, epoch)) = at {
            let is_read = matches!(waiting.act, Act::Get(_) | Act::ReadPair | Act::GetMortal);
            let lease = self.plan.read_mode == raftcache::raft::ReadMode::Lease;
            if is_read && self.process(machine, epoch).is_some_and(|process| process.leads()) {
                self.trace.count(if lease { "lease reads" } else { "confirmed reads" });
            }
        }
        if let Act::Swap(..) = waiting.act {
            self.trace.count("conditional operations");
        }
        self.record(waiting, Some(answers));
        let it = &mut self.clients[client];
        if it.stamp(&waiting.act).is_some() {
            it.sequence += 1;
        }
        match (&waiting.act, answers) {
            (Act::Get(name), [answer]) => {
                match found(answer) {
                    Some(item) => it.seen.insert(name, number(&item.value)),
                    None => it.seen.remove(name),
                };
            }
            (Act::GetStale(name), [answer]) => {
                let (node, incarnation) = at.map_or((0, 0), |at| (at.0 as u64, at.1));
                let (connection, key) = (it.connection, (*name).to_owned());
                let version = found(answer).map(|item| item.version);
                let seen = stale::Seen { connection, node, incarnation, key, version };
                self.judge.stale.push(seen);
            }
            (Act::Set(name, value) | Act::Swap(name, _, value), [Answer::Stored { .. }]) => {
                it.seen.insert(name, *value);
            }
            _ => {}
        }
    }

    /// For the checkers. Without answers nobody knows what came of it.
    fn record(&mut self, waiting: &Waiting, answers: Option<&[Answer]>) {
        let returned_at = answers.map(|_| self.tick());
        let one = answers.map(|answers| &answers[0]);
        let flag = |answer: &Answer| match answer {
            Answer::Stored { .. } | Answer::Integer(1) => true,
            Answer::NotStored { .. } | Answer::Integer(0) => false,
            other => panic!("{other:?} to {waiting:?}"),
        };
        let value = |answer: &Answer| found(answer).map(|item| number(&item.value));
        let action = match &waiting.act {
            Act::OpenSession | Act::GetStale(_) => return,
            Act::Get(name) => (*name, one.map(|answer| Action::Get { found: value(answer) })),
            Act::Set(name, value) => (*name, Some(Action::Set { value: *value })),
            Act::Delete(name) => (*name, Some(Action::Delete { existed: one.map(flag) })),
            Act::Swap(name, old, new) => {
                let (expected, outcome) = (Some(*old), one.map(flag));
                (*name, Some(Action::CompareAndSet { expected, value: *new, outcome }))
            }
            Act::Increment => {
                let result = one.map(|answer| match answer {
                    Answer::Integer(number) => *number,
                    other => panic!("{other:?} to {waiting:?}"),
                });
                match result {
                    Some(result) => self.judge.counted.push(result),
                    None => self.judge.not_counted += 1,
                }
                (COUNTER, Some(Action::Increment { by: 1, result }))
            }
            Act::WritePair(value) => ("pair", Some(Action::Set { value: *value })),
            Act::ReadPair => {
                let both = answers.map(|answers| [value(&answers[0]), value(&answers[1])]);
                if let Some(both) = &both {
                    atomicity::check(both).unwrap_or_else(|why| panic!("{why}: {waiting:?}"));
                }
                ("pair", both.map(|[first, _]| Action::Get { found: first }))
            }
            Act::SetMortal(..) | Act::GetMortal | Act::DeleteMortal => {
                return self.record_mortal(
                    waiting,
                    one.map(|answer| match waiting.act {
                        Act::GetMortal => value(answer),
                        _ => None,
                    }),
                );
            }
        };
        if let (name, Some(action)) = action {
            let client = (waiting.ticket.connection >> 32) - 1;
            let operation = Operation { client, called_at: waiting.called_at, returned_at, action };
            self.judge.history.record(name, operation);
        }
    }

    fn record_mortal(&mut self, waiting: &Waiting, outcome: Option<Option<Value>>) {
        let (called_us, now) = (waiting.called_us, self.now);
        let event = match waiting.act {
            Act::SetMortal(value, ms) => ttl::Event::Wrote {
                key: MORTAL.to_owned(),
                value,
                at_earliest_us: called_us,
                at_latest_us: outcome.map(|_| now),
                ttl_us: ms * MS,
            },
            Act::DeleteMortal => ttl::Event::Deleted {
                key: MORTAL.to_owned(),
                at_earliest_us: called_us,
                at_latest_us: outcome.map(|_| now),
            },
            _ => match outcome {
                Some(found) => {
                    ttl::Event::Read { key: MORTAL.to_owned(), found, called_us, returned_us: now }
                }
                None => return,
            },
        };
        self.judge.mortal.push(event);
    }

    /// Nobody begins anything any more, or all go on.
    pub fn rest_all(&mut self, resting: bool) {
        self.clients.iter_mut().for_each(|client| client.resting = resting);
    }

    /// Reads every key at this node; the answers are part of the history.
    pub fn read_all_at(&mut self, machine: usize) {
        let acts: Vec<Act> = REGISTERS.iter().map(|name| Act::Get(name)).collect();
        for act in acts.into_iter().chain([Act::ReadPair, Act::GetMortal]) {
            self.ask_once(machine, act);
        }
        let value = self.tick();
        self.ask_once(machine, Act::Set(REGISTERS[0], value));
        self.ask_once(machine, Act::Increment);
    }

    /// One request that has to be answered, after all is healed. What was under
    /// way may still change the leader, but not for long.
    fn ask_once(&mut self, machine: usize, act: Act) {
        let told = format!("n{} is well and does not answer {act:?}", machine + 1);
        let answered = (0..10).any(|_| self.is_answered(machine, act.clone()));
        assert!(answered, "{told}:\n{}", self.states());
    }

    fn is_answered(&mut self, machine: usize, act: Act) -> bool {
        let process = self.machines[machine].process.as_ref().expect("all run at the end");
        let (client, epoch, called_us) = (0, process.epoch, self.now);
        let (called_at, number, before) = (self.tick(), self.tick(), self.operations());
        let it = &mut self.clients[client];
        it.connection += 1;
        (it.at, it.session) = (Some((machine, epoch)), None);
        let (ticket, request) = (Ticket { connection: it.connection, number }, it.request(&act));
        let (delivered_us, again) = (Some(called_us), false);
        it.waiting = Some(Waiting { ticket, act, called_at, called_us, delivered_us, again });
        self.input(machine, Input::Request { ticket, request });
        let until = self.now + 4 * SECOND;
        let is_told = self.run_until(until, |world| world.clients[client].waiting.is_none());
        assert!(is_told, "n{} says nothing:\n{}", machine + 1, self.states());
        self.operations() > before
    }
}

fn kind_of(reply: &Reply) -> u64 {
    match reply {
        Reply::Error(kind, _) => 100 + *kind as u64,
        Reply::Answers(answers) => match answers.first() {
            Some(Answer::Item(Some(item))) => number(&item.value),
            Some(Answer::Integer(number)) => *number as u64,
            Some(Answer::Stored { version }) => *version,
            _ => 1,
        },
        _ => 0,
    }
}
