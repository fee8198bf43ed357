//! Clients at work, and what each of them saw, to be judged at the end.
//!
//! Two are connected to each node and stay there whatever it says, of which one
//! only reads: it never waits for a write that cannot be committed. The others go
//! to whoever answers, and may repeat a write because it carries a session. What
//! a client is told surely had no effect is left out of the history, so an
//! effect that it has after all is a value that nobody wrote.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftcache::client::{Client, Error, SetOutcome};
use raftcache::request::{Condition, Expiry, Key};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::cluster::{Cluster, User, eventually};
use crate::linearizability::{Action, History, Operation, Value, check};

/// A node may need so long to say that it cannot.
pub const PATIENT: [&str; 2] = ["--request-timeout-ms", "1000"];

/// Longer than that.
const TIMEOUT: Duration = Duration::from_secs(3);

/// For values of which each is written once.
const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// A number that is only added to.
const COUNTER: &str = "counter";

/// How many stay at one node.
const STAYING: usize = 2;

/// How many go to whoever answers.
const ROAMING: usize = 2;

/// What a test is drawn from. Said on failure.
pub fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let given = std::env::var("FAULTS_SEED").ok();
    let seed = match given {
        Some(seed) => seed.parse().expect("FAULTS_SEED is a number"),
        None => RandomState::new().hash_one(()),
    };
    println!("FAULTS_SEED={seed}");
    seed
}

/// Clients at work.
pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    begun: Instant,
    stop: AtomicBool,
    history: Mutex<History>,
    /// The last value that somebody took to write.
    values: AtomicU64,
    /// How many answers each client has got.
    answers: Vec<AtomicU64>,
}

impl Shared {
    fn now(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    fn record(&self, key: &str, operation: Operation) {
        self.history.lock().expect("nobody panics").record(key, operation);
    }
}

impl Clients {
    /// Starts them.
    pub fn start(cluster: &Cluster, seed: u64) -> Self {
        let nodes = cluster.nodes.len();
        let count = nodes * STAYING + ROAMING;
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            history: Mutex::default(),
            values: AtomicU64::new(0),
            answers: (0..count).map(|_| AtomicU64::new(0)).collect(),
        });
        let start = |number: usize| {
            let addresses = match number < nodes * STAYING {
                true => vec![cluster.nodes[number % nodes].address.clone()],
                false => cluster.addresses(),
            };
            let mut worker = Worker {
                number,
                writes: number >= nodes,
                user: user(addresses),
                chance: Xoshiro256PlusPlus::seed_from_u64(seed ^ number as u64),
                seen: BTreeMap::new(),
                shared: Arc::clone(&shared),
            };
            thread::spawn(move || worker.work())
        };
        Self { threads: (0..count).map(start).collect(), shared }
    }

    /// Until one of these clients has got so many more answers.
    fn wait_for(&self, clients: impl Iterator<Item = usize>, count: u64) {
        let clients: Vec<_> = clients.collect();
        let answers = || -> u64 {
            clients.iter().map(|&client| self.shared.answers[client].load(Ordering::Relaxed)).sum()
        };
        let goal = answers() + count;
        eventually(&format!("{count} more answers to {clients:?}"), || match answers() {
            enough if enough >= goal => Ok(()),
            few => Err(format!("{few} of {goal}")),
        });
    }

    /// Until those who stay at this node have got so many more answers.
    pub fn wait_at(&self, node: usize, count: u64) {
        let nodes = (self.shared.answers.len() - ROAMING) / STAYING;
        self.wait_for((0..STAYING).map(|number| node + number * nodes), count);
    }

    /// Until those who roam have.
    pub fn wait_anywhere(&self, count: u64) {
        let all = self.shared.answers.len();
        self.wait_for(all - ROAMING..all, count);
    }

    /// Ends them, reads everything at every node once more, and judges it all.
    pub fn judge(self, cluster: &Cluster) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let count = self.threads.len();
        for thread in self.threads {
            thread.join().expect("no client panics");
        }
        for (number, node) in cluster.nodes.iter().enumerate().filter(|(_, node)| node.runs()) {
            let mut reader = Worker {
                number: count + number,
                writes: false,
                user: node.user(),
                chance: Xoshiro256PlusPlus::seed_from_u64(0),
                seen: BTreeMap::new(),
                shared: Arc::clone(&self.shared),
            };
            for key in KEYS.into_iter().chain([COUNTER]) {
                eventually("a last read", || reader.get(key).map_err(|error| error.to_string()));
            }
        }
        let history = self.shared.history.lock().expect("nobody panics");
        if let Err(why) = check(&history) {
            panic!("a history of {} clients: {}", count, end_of(&why));
        }
    }
}

/// What was told of a history of thousands: where it ends is where it is wrong.
fn end_of(story: &str) -> String {
    let lines: Vec<_> = story.lines().collect();
    let (first, rest) = lines.split_first().expect("something is said");
    let last = rest[rest.len().saturating_sub(40)..].iter();
    [first].into_iter().chain(last).map(|line| format!("{line:.200}\n")).collect()
}

/// A client that does not wait longer than it must.
fn user(addresses: Vec<String>) -> User {
    let roams = addresses.len() > 1;
    let mut user = User::new(Vec::<String>::new());
    let client = Client::new(addresses).with_timeout(TIMEOUT);
    user.client = if roams { client.with_session() } else { client };
    user
}

/// One client.
struct Worker {
    number: usize,
    writes: bool,
    user: User,
    chance: Xoshiro256PlusPlus,
    /// What it found last.
    seen: BTreeMap<&'static str, Option<Value>>,
    shared: Arc<Shared>,
}

impl Worker {
    fn work(&mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            match self.something() {
                Ok(()) => _ = self.shared.answers[self.number].fetch_add(1, Ordering::Relaxed),
                // Not in a hurry.
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn something(&mut self) -> Result<(), Error> {
        let key = KEYS[self.chance.random_range(0..KEYS.len())];
        match self.chance.random_range(0..100) {
            _ if !self.writes => self.get(key),
            0..50 => self.get(key),
            50..75 => self.set(key),
            75..90 => self.compare_and_set(key),
            90..94 => self.delete(key),
            94..97 => self.increment(),
            _ => self.get(COUNTER),
        }
    }

    fn get(&mut self, key: &'static str) -> Result<(), Error> {
        let called_at = self.shared.now();
        let found = self.user.get(key)?.map(|value| number(&value));
        self.seen.insert(key, found);
        self.record(key, called_at, true, Action::Get { found });
        Ok(())
    }

    fn set(&mut self, key: &'static str) -> Result<(), Error> {
        let value = self.new_value();
        let write = async |client: &mut Client| client.set(name(key), text(value)).await;
        self.write(key, write, |_| Action::Set { value })
    }

    fn compare_and_set(&mut self, key: &'static str) -> Result<(), Error> {
        let value = self.new_value();
        let expected = self.seen.get(key).copied().flatten();
        let condition = match expected {
            Some(expected) => Condition::IfValue(text(expected)),
            None => Condition::IfAbsent,
        };
        let write = async |client: &mut Client| {
            client.set_with(name(key), text(value), Expiry::Never, condition).await
        };
        self.write(key, write, |outcome| {
            let outcome = outcome.map(|outcome| matches!(outcome, SetOutcome::Stored { .. }));
            Action::CompareAndSet { expected, value, outcome }
        })
    }

    fn delete(&mut self, key: &'static str) -> Result<(), Error> {
        let write = async |client: &mut Client| client.delete(name(key)).await;
        self.write(key, write, |existed| Action::Delete { existed })
    }

    fn increment(&mut self) -> Result<(), Error> {
        let by = self.chance.random_range(1..1000);
        let write = async |client: &mut Client| client.increment(name(COUNTER), by).await;
        self.write(COUNTER, write, |result| Action::Increment { by, result })
    }

    /// Writes, and records it unless it surely had no effect.
    fn write<T>(
        &mut self,
        key: &str,
        write: impl AsyncFnOnce(&mut Client) -> Result<T, Error>,
        action: impl FnOnce(Option<T>) -> Action,
    ) -> Result<(), Error> {
        let called_at = self.shared.now();
        match self.user.ask(write) {
            Ok(outcome) => {
                self.record(key, called_at, true, action(Some(outcome)));
                Ok(())
            }
            Err(error) => {
                if let Error::Unknown(_) = error {
                    self.record(key, called_at, false, action(None));
                }
                Err(error)
            }
        }
    }

    fn record(&self, key: &str, called_at: u64, returned: bool, action: Action) {
        let returned_at = returned.then(|| self.shared.now());
        let client = self.number as u64;
        self.shared.record(key, Operation { client, called_at, returned_at, action });
    }

    fn new_value(&self) -> Value {
        self.shared.values.fetch_add(1, Ordering::Relaxed) + 1
    }
}

fn name(key: &'static str) -> Key {
    Key::new(key)
}

fn text(value: Value) -> Bytes {
    value.to_string().into()
}

fn number(value: &[u8]) -> Value {
    String::from_utf8_lossy(value).parse().expect("a number that was written")
}
