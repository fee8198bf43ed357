//! A load that knows what it was promised.
//!
//! Several writers, each with keys of its own, count up the value under a key.
//! A key holds what was acknowledged last, or the one write that was attempted
//! after it and never answered: then its outcome is unknown, and the writer
//! leaves that key alone for ever, because such a write may still arrive.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftcache::client::Error;
use raftcache::request::{Consistency, Key};

use super::{Cluster, User, eventually};

/// How often a key is written before the writer goes on to the next one.
const WRITES_PER_KEY: u64 = 8;

/// How many keys are read at once when all are verified.
const READ_AT_ONCE: usize = 500;

/// What is known of one key.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Promise {
    /// 0: none.
    acknowledged: u64,
    attempted: u64,
}

/// Writers at work.
pub struct Load {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<BTreeMap<String, Promise>>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    gaps: Mutex<Gaps>,
}

/// Times in which nothing succeeded.
#[derive(Debug, Default)]
struct Gaps {
    last_success: Option<Instant>,
    longest: Duration,
}

impl Shared {
    fn succeeded(&self) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        let mut gaps = self.gaps.lock().expect("no writer panics");
        let now = Instant::now();
        let last = gaps.last_success.replace(now).unwrap_or(now);
        gaps.longest = gaps.longest.max(now - last);
    }
}

impl Load {
    /// Starts writers, spread over the nodes. The name keeps the keys of several
    /// loads apart.
    pub fn start(cluster: &Cluster, name: &str, writers: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let start = |number| {
            let (user, shared) = (cluster.user_from(number), Arc::clone(&shared));
            let prefix = format!("{name}:{number}");
            std::thread::spawn(move || write(user, &prefix, &shared))
        };
        Self { writers: (0..writers).map(start).collect(), shared }
    }

    /// Until this many more writes are acknowledged than were when it is called.
    pub fn wait_for(&self, count: u64) {
        let goal = self.acknowledged() + count;
        eventually(&format!("{count} more acknowledged writes"), || match self.acknowledged() {
            enough if enough >= goal => Ok(()),
            few => Err(format!("{few} of {goal}")),
        });
    }

    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// The longest time without a success since the last call.
    pub fn take_longest_gap(&self) -> Duration {
        std::mem::take(&mut self.shared.gaps.lock().expect("no writer panics").longest)
    }

    /// Lets the writers finish the write they are at.
    pub fn stop(self) -> Written {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut written = Written::default();
        for writer in self.writers {
            written.keys.extend(writer.join().expect("no writer panics"));
        }
        written
    }
}

fn write(mut user: User, prefix: &str, shared: &Shared) -> BTreeMap<String, Promise> {
    let mut promises = BTreeMap::new();
    for number in 0.. {
        let key = format!("{prefix}:{number}");
        let promise: &mut Promise = promises.entry(key.clone()).or_default();
        while promise.attempted < WRITES_PER_KEY {
            if shared.stop.load(Ordering::Relaxed) {
                return promises;
            }
            promise.attempted += 1;
            match user.set(&key, value(&key, promise.attempted)) {
                Ok(_) => {
                    promise.acknowledged = promise.attempted;
                    shared.succeeded();
                }
                Err(Error::Unknown(_)) => break,
                // Surely without effect: the same again, but not in a hurry.
                Err(_) => {
                    promise.attempted -= 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }
    promises
}

/// Long enough to be told from any other.
fn value(key: &str, count: u64) -> Bytes {
    format!("{key} was written {count} times").into()
}

/// What a load has written.
#[derive(Debug, Default)]
pub struct Written {
    keys: BTreeMap<String, Promise>,
}

impl Written {
    /// Panics if a node has lost an acknowledged write, or holds what nobody
    /// wrote. What it holds is returned, to be compared with other nodes.
    pub fn verify(&self, node: &mut User, consistency: Consistency) -> Vec<Option<Bytes>> {
        let names: Vec<_> = self.keys.keys().cloned().collect();
        let mut found = Vec::new();
        for names in names.chunks(READ_AT_ONCE) {
            let keys: Vec<_> = names.iter().map(|name| Key::new(name.clone())).collect();
            let items = eventually("a read", || {
                let items =
                    node.ask(async |client| client.get_many(keys.clone(), consistency).await);
                items.map_err(|error| error.to_string())
            });
            found.extend(items.into_iter().map(|item| item.map(|item| item.value)));
        }
        assert_eq!(found.len(), self.keys.len());
        let lost = self.keys.iter().zip(&found).filter(|((key, promise), found)| {
            let is = |count| match count {
                0 => found.is_none(),
                count => **found == Some(value(key, count)),
            };
            !is(promise.acknowledged) && !is(promise.attempted)
        });
        let lost: Vec<_> = lost.collect();
        let first = &lost[..lost.len().min(10)];
        assert!(lost.is_empty(), "{} of {} keys are wrong: {first:?}", lost.len(), names.len());
        found
    }
}
