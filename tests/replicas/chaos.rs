//! Everything at once, by chance: nodes die, stand still, lose each other and
//! their disks' attention, hand over; and clients keep count of what they were
//! told. `SEED=7 cargo test --test replicas chaos` repeats one.
//!
//! What has to hold whatever happens: every request is answered once and in
//! time; an increment is executed once if it was acknowledged, not at all if it
//! was refused, and at most once if nobody knows, with a session exactly once
//! however often it is sent; of two writes that were to follow the same version
//! one succeeds; and no read goes back behind what anybody had seen before it
//! was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use raftcache::raft::{NodeId, ReadMode, Recovered};
use raftcache::replica::Ticket;
use raftcache::request::{
    Answer, Batch, Command, Condition, Consistency, ErrorKind, Expiry, Item, Key, Reply, Request,
    SessionStamp,
};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::cluster::{Cluster, id};
use crate::files::Files;
use crate::{get, increment, value};

const NODES: u128 = 3;

/// A request is to be answered within this time, and a turn of every node.
const TIMEOUT_MS: u64 = 3000 + 20;

/// How a client spends its time.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Adds one, again and again.
    Plain,
    /// Adds one with a session, and again with the same stamp until it knows.
    Session,
    /// Reads a version, then writes what is to follow that one.
    Guarded,
}

/// Somebody with one request at a time.
struct Client {
    kind: Kind,
    number: u64,
    asked: Option<Asked>,
    session: Option<u64>,
    sequence: u64,
    /// It does not know what came of its last increment, and sends it again.
    unsure: bool,
    /// The version that it has read and wants to follow.
    seen: Option<u64>,
}

#[derive(Clone, Copy)]
struct Asked {
    name: (NodeId, Ticket),
    at_ms: u64,
    /// The newest version that anybody knew of then.
    known: u64,
}

/// What clients were told.
#[derive(Default)]
struct Told {
    plain: BTreeSet<i64>,
    plain_unknown: i64,
    exact: BTreeSet<i64>,
    /// The value that each version has.
    written: BTreeMap<u64, String>,
    /// By which version each was followed.
    followed: BTreeMap<u64, u64>,
    newest: u64,
}

impl Told {
    /// Somebody has seen this value under this version. It says whom it follows.
    fn note(&mut self, item: &Item) {
        let version = item.version;
        let text = String::from_utf8(item.value.to_vec()).unwrap();
        let follows = text.rsplit(' ').next().unwrap().parse().unwrap();
        let known = self.written.entry(version).or_insert_with(|| text.clone());
        assert_eq!(*known, text, "two values of version {version}");
        let next = *self.followed.entry(follows).or_insert(version);
        assert_eq!(next, version, "two writes follow version {follows}");
        self.newest = self.newest.max(version);
    }
}

impl Told {
    /// A client has been answered; `known` is the newest version that anybody
    /// knew of when it asked.
    fn learn(&mut self, client: &mut Client, known: u64, reply: &Reply) {
        match reply {
            Reply::Error(kind, why) => self.learn_nothing(client, *kind, why),
            Reply::SessionOpened { session } => client.session = Some(*session),
            Reply::Answers(answers) => self.learn_answer(client, known, &answers[0]),
            other => panic!("{other:?}"),
        }
    }

    fn learn_nothing(&mut self, client: &mut Client, kind: ErrorKind, why: &str) {
        let is_passing = matches!(
            kind,
            ErrorKind::Unknown | ErrorKind::NoLeader | ErrorKind::Busy | ErrorKind::DiskFull
        );
        assert!(is_passing, "{kind:?}: {why}");
        match client.kind {
            Kind::Plain => self.plain_unknown += i64::from(kind == ErrorKind::Unknown),
            Kind::Session => client.unsure = client.session.is_some(),
            // It may have been written: nothing more is said in these words.
            Kind::Guarded => {
                client.seen = None;
                client.sequence += 1;
            }
        }
    }

    fn learn_answer(&mut self, client: &mut Client, known: u64, answer: &Answer) {
        match (client.kind, answer) {
            (Kind::Plain, Answer::Integer(number)) => {
                assert!(self.plain.insert(*number), "{number} was told twice");
            }
            (Kind::Session, Answer::Integer(number)) => {
                assert!(self.exact.insert(*number), "{number} was told twice");
                client.sequence += 1;
                client.unsure = false;
            }
            (Kind::Guarded, Answer::Item(item)) => {
                let version = item.as_ref().map_or(0, |item| item.version);
                assert!(version >= known, "read {version}, and {known} was known before");
                item.iter().for_each(|item| self.note(item));
                client.seen = Some(version);
            }
            (Kind::Guarded, Answer::Stored { version }) => {
                assert!(*version > known, "{version} is written, and {known} was known before");
                let value = client.text().into();
                self.note(&Item { value, version: *version });
                client.seen = None;
                client.sequence += 1;
            }
            (Kind::Guarded, Answer::NotStored { version }) => {
                assert!(*version >= known, "{version} is there, and {known} was known before");
                client.seen = None;
            }
            other => panic!("{other:?}"),
        }
    }
}

impl Client {
    /// What it writes: unique, and whom it follows.
    fn text(&self) -> String {
        format!("{} {} {}", self.number, self.sequence, self.seen.unwrap())
    }
}

struct Chaos {
    chance: Xoshiro256PlusPlus,
    cluster: Cluster,
    clients: Vec<Client>,
    told: Told,
    down: BTreeMap<u128, (Recovered, Files, u64)>,
    heal_at: u64,
    /// When each node last stood still.
    stood_still: BTreeMap<NodeId, u64>,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut chance = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mode = if chance.random_bool(0.3) { ReadMode::ReadIndex } else { ReadMode::Lease };
        let mut cluster = Cluster::with_read_mode(NODES, mode);
        if chance.random_bool(0.5) {
            cluster.snapshot_log_bytes = 5000;
            (1..=NODES).for_each(|node| cluster.restart(id(node)));
        }
        cluster.doubled = chance.random_bool(0.3);
        let kinds = [Kind::Plain, Kind::Session, Kind::Guarded];
        let client = |(number, kind)| Client {
            kind,
            number,
            asked: None,
            session: None,
            sequence: 1,
            unsure: false,
            seen: None,
        };
        let clients = (1..=9).zip(kinds.into_iter().cycle()).map(client).collect();
        let told = Told::default();
        let (down, stood_still) = (BTreeMap::new(), BTreeMap::new());
        Self { chance, cluster, clients, told, down, heal_at: 0, stood_still }
    }

    fn somebody(&mut self) -> NodeId {
        id(self.chance.random_range(1..=NODES))
    }

    fn kill(&mut self, node: NodeId) {
        let Some(running) = self.cluster.nodes.get_mut(&node) else { return };
        let files = std::mem::take(&mut running.files);
        let journal = self.cluster.kill(node);
        self.cluster.paused.remove(&node);
        let back_at = self.cluster.now_ms + self.chance.random_range(1..1500);
        self.down.insert(node.0, (journal, files, back_at));
    }

    fn start_those_due(&mut self) {
        let now_ms = self.cluster.now_ms;
        let due: Vec<u128> =
            self.down.iter().filter(|(_, (.., at))| *at <= now_ms).map(|(&n, _)| n).collect();
        for number in due {
            let (journal, files, _) = self.down.remove(&number).unwrap();
            self.cluster.start_with(number, journal, files);
        }
    }

    /// One thing goes wrong.
    fn fault(&mut self) {
        let (a, b) = (self.somebody(), self.somebody());
        // Leaders are where it hurts.
        let victim = self.cluster.leader().filter(|_| self.chance.random_bool(0.5)).unwrap_or(a);
        match self.chance.random_range(0..9) {
            0 | 1 => self.kill(victim),
            2 if self.chance.random_bool(0.3) => (1..=NODES).for_each(|n| self.kill(id(n))),
            3 => {
                self.cluster.paused.insert(victim);
            }
            4 => {
                self.cluster.stuck.insert(victim);
            }
            5 => {
                self.cluster.cut.insert((victim, b));
            }
            6 => self.cluster.cut.extend([(victim, b), (b, victim)]),
            7 => {
                for node in 1..=NODES {
                    self.cluster.cut.extend([(victim, id(node)), (id(node), victim)]);
                }
            }
            8 if self.cluster.nodes.contains_key(&victim) => {
                self.cluster.ask(victim, 99, Request::Transfer { to: None });
            }
            _ => {}
        }
    }

    fn heal(&mut self) {
        self.cluster.cut.clear();
        self.cluster.stuck.clear();
        self.cluster.paused.clear();
    }

    fn request_of(&self, client: &Client) -> Request {
        let session = |session| SessionStamp { session, sequence: client.sequence };
        match (client.kind, client.session, client.seen) {
            (Kind::Plain, ..) => increment("plain"),
            (Kind::Session, None, _) => Request::OpenSession,
            (Kind::Session, Some(known), _) => Request::Run {
                batch: Batch::of(Command::Increment { key: Key::new("exact"), by: 1 }),
                consistency: Consistency::default(),
                session: Some(session(known)),
            },
            (Kind::Guarded, _, None) => get("register"),
            (Kind::Guarded, _, Some(version)) => Request::run(Command::Set {
                key: Key::new("register"),
                value: client.text().into(),
                expiry: Expiry::Never,
                condition: Condition::IfVersion(version),
            }),
        }
    }

    /// A millisecond of every client. Whoever has an answer asks the next thing,
    /// unless it is time to come to an end.
    fn clients(&mut self, go_on: bool) {
        let mut clients = std::mem::take(&mut self.clients);
        for client in &mut clients {
            if let Some(asked) = client.asked {
                let Some(reply) = self.outcome(asked) else { continue };
                client.asked = None;
                self.told.learn(client, asked.known, &reply);
            }
            let node = self.somebody();
            if self.cluster.nodes.contains_key(&node) && (go_on || client.unsure) {
                let request = self.request_of(client);
                let name = self.cluster.ask(node, client.number, request);
                let (at_ms, known) = (self.cluster.now_ms, self.told.newest);
                client.asked = Some(Asked { name, at_ms, known });
            }
        }
        self.clients = clients;
    }

    /// The answer, unless it has time. Who has died knows nothing.
    fn outcome(&mut self, asked: Asked) -> Option<Reply> {
        let (node, _) = asked.name;
        if let Some(reply) = self.cluster.replies.remove(&asked.name) {
            return Some(reply);
        }
        if !self.cluster.nodes.contains_key(&node) {
            return Some(Reply::Error(ErrorKind::Unknown, "it is dead".to_owned()));
        }
        let since = asked.at_ms.max(self.stood_still.get(&node).copied().unwrap_or(0));
        let waited = self.cluster.now_ms - since;
        assert!(
            waited <= TIMEOUT_MS,
            "{:?} is not answered: {:?}",
            asked.name,
            self.cluster.nodes[&node].driver
        );
        None
    }

    fn millisecond(&mut self, go_on: bool) {
        self.start_those_due();
        for &node in &self.cluster.paused {
            self.stood_still.insert(node, self.cluster.now_ms);
        }
        self.clients(go_on);
        self.cluster.run_ms(1);
    }

    fn run(&mut self) {
        let end = self.cluster.now_ms + 10_000;
        let mut next_fault = self.cluster.now_ms;
        while self.cluster.now_ms < end {
            if self.cluster.now_ms >= next_fault {
                self.fault();
                next_fault += self.chance.random_range(50..800);
            }
            if self.cluster.now_ms >= self.heal_at {
                self.heal();
                self.heal_at = self.cluster.now_ms + self.chance.random_range(100..2500);
            }
            self.millisecond(true);
        }
        self.heal();
        let deadline = self.cluster.now_ms + 10_000;
        while self.clients.iter().any(|client| client.asked.is_some()) || !self.down.is_empty() {
            assert!(self.cluster.now_ms < deadline, "it does not come to an end");
            self.millisecond(false);
        }
        self.settle_accounts();
    }

    fn settle_accounts(&mut self) {
        for node in 1..=NODES {
            let reply = self.cluster.call(id(node), 100, get("exact"));
            let total: i64 = value(&reply).map_or(0, |text| text.parse().unwrap());
            let expected: BTreeSet<i64> = (1..=total).collect();
            assert_eq!(self.told.exact, expected, "each exactly once, at {node}");
            let reply = self.cluster.call(id(node), 100, get("plain"));
            let total: i64 = value(&reply).map_or(0, |text| text.parse().unwrap());
            let known = self.told.plain.len() as i64;
            let most = known + self.told.plain_unknown;
            assert!((known..=most).contains(&total), "{total}: {known} to {most}, at {node}");
            let reply = self.cluster.call(id(node), 100, get("register"));
            let Reply::Answers(answers) = &reply else { panic!("{reply:?}") };
            if let [Answer::Item(Some(item))] = &answers[..] {
                assert!(item.version >= self.told.newest, "{item:?}");
                self.told.note(item);
            }
        }
    }
}

fn run(seed: u64) -> (usize, usize, usize) {
    let mut chaos = Chaos::new(seed);
    let outcome = catch_unwind(AssertUnwindSafe(|| chaos.run()));
    if outcome.is_err() {
        panic!("repeat it: SEED={seed} cargo test --test replicas chaos");
    }
    let Told { plain, exact, written, .. } = &chaos.told;
    (plain.len(), exact.len(), written.len())
}

#[test]
fn nothing_is_lost_or_done_twice_whatever_fails() {
    let setting = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = setting("SEED") {
        run(seed);
        return;
    }
    let count = setting("SEEDS").unwrap_or(40);
    let mut sums = (0, 0, 0);
    for seed in 1..=count {
        let (plain, exact, written) = run(seed);
        sums = (sums.0 + plain, sums.1 + exact, sums.2 + written);
    }
    eprintln!("{sums:?}");
    // A test that tests nothing is noticed.
    assert!(sums.0.min(sums.1).min(sums.2) > 50 * count as usize, "{sums:?}");
}
