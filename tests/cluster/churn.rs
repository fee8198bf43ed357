//! Data that is overwritten all the time, so that logs grow, snapshots are taken
//! and the log behind them is compacted, while the data stay as large as they are.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftcache::request::{Consistency, Key};

use super::{Cluster, Node, PATIENCE, User, eventually};

/// How many keys are written or read at once.
const AT_ONCE: usize = 500;

/// Files small enough to be compacted within a test.
pub const COMPACTING: [&str; 4] = ["--segment-bytes", "200000", "--snapshot-log-bytes", "200000"];

/// Names that come again and again, each with a value that depends on the round.
#[derive(Debug, Clone)]
pub struct Data {
    pub name: &'static str,
    pub keys: usize,
    pub value_bytes: usize,
}

impl Data {
    fn key(&self, number: usize) -> Key {
        Key::new(format!("{}:{number}", self.name))
    }

    fn value(&self, number: usize, round: u64) -> Bytes {
        let mut value = format!("{round} {number} ").into_bytes();
        value.resize(value.len().max(self.value_bytes), b'.');
        value.into()
    }

    /// The part of the keys that is written together.
    fn numbers(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let (keys, step) = (self.keys, AT_ONCE.min((4 << 20) / self.value_bytes.max(1)).max(1));
        (0..keys).step_by(step).map(move |from| from..keys.min(from + step))
    }

    /// Writes all keys once; writing again does no harm.
    pub fn write(&self, user: &mut User, round: u64) {
        for numbers in self.numbers() {
            eventually("a write", || self.write_some(user, numbers.clone(), round));
        }
    }

    fn write_some(
        &self,
        user: &mut User,
        numbers: std::ops::Range<usize>,
        round: u64,
    ) -> Result<(), String> {
        let pairs = numbers.map(|number| (self.key(number), self.value(number, round)));
        let pairs: Vec<_> = pairs.collect();
        let written = user.ask(async |client| client.set_many(pairs).await);
        written.map_err(|error| error.to_string())
    }

    /// Panics unless every key holds the value of this round.
    pub fn verify(&self, user: &mut User, round: u64, consistency: Consistency) {
        for numbers in self.numbers() {
            let keys: Vec<_> = numbers.clone().map(|number| self.key(number)).collect();
            let items = eventually("a read", || {
                let items =
                    user.ask(async |client| client.get_many(keys.clone(), consistency).await);
                items.map_err(|error| error.to_string())
            });
            for (number, item) in numbers.zip(items) {
                let found = item.map(|item| item.value);
                assert!(
                    found == Some(self.value(number, round)),
                    "{} {number} is not that of round {round} but {found:.40?}",
                    self.name
                );
            }
        }
    }
}

/// Somebody who overwrites the same data all the time.
pub struct Churn {
    stop: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Churn {
    pub fn start(cluster: &Cluster, data: Data) -> Self {
        let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, counts) = (Arc::clone(&stop), Arc::clone(&writes));
        let mut user = cluster.user();
        let thread = std::thread::spawn(move || {
            for round in 0.. {
                for numbers in data.numbers() {
                    if told.load(Ordering::Relaxed) {
                        return;
                    }
                    match data.write_some(&mut user, numbers, round) {
                        Ok(()) => _ = counts.fetch_add(1, Ordering::Relaxed),
                        Err(_) => std::thread::sleep(Duration::from_millis(5)),
                    }
                }
            }
        });
        Self { stop, writes, thread }
    }

    /// Until this many more batches are written.
    pub fn wait_for(&self, count: u64) {
        let goal = self.writes.load(Ordering::Relaxed) + count;
        eventually("overwritten keys", || match self.writes.load(Ordering::Relaxed) {
            enough if enough >= goal => Ok(()),
            few => Err(format!("{few} of {goal}")),
        });
    }

    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic");
    }
}

impl Node {
    /// The names in its data directory that begin like this, in order, and how
    /// many bytes each has. Files come and go meanwhile.
    pub fn files(&self, prefix: &str) -> Vec<(String, u64)> {
        let entries = fs::read_dir(&self.data_dir).into_iter().flatten().flatten();
        let file = |entry: fs::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            Some((name, entry.metadata().ok()?.len()))
        };
        let mut files: Vec<_> =
            entries.filter_map(file).filter(|(name, _)| name.starts_with(prefix)).collect();
        files.sort();
        files
    }

    /// Snapshots with their name.
    pub fn snapshots(&self) -> Vec<(String, u64)> {
        let mut files = self.files("snapshot-");
        files.retain(|(name, _)| !name.ends_with(".tmp"));
        files
    }

    /// How much all its files hold.
    pub fn disk_bytes(&self) -> u64 {
        self.files("").iter().map(|(_, bytes)| bytes).sum()
    }

    /// Whether the beginning of its log is gone.
    pub fn is_compacted(&self) -> bool {
        !self.files("journal-").is_empty() && self.files("journal-0000000000000001").is_empty()
    }

    /// Until it has two snapshots and has forgotten the beginning of its log.
    pub fn wait_compacted(&self) {
        eventually(&format!("{} compacts its log", self.name), || {
            match self.is_compacted() && self.snapshots().len() == 2 {
                true => Ok(()),
                false => Err(format!("{:?}", self.files(""))),
            }
        });
    }

    /// Until it has taken its state over from a snapshot that it was sent.
    pub fn wait_restored(&self) {
        eventually(&format!("{} continues from a snapshot", self.name), || {
            let restored = self.log().contains("continues from the snapshot");
            if restored { Ok(()) } else { Err("not yet".to_owned()) }
        });
    }

    /// Until a snapshot is on its way to it, and a part of it is there. Looks
    /// without a rest, because that does not last.
    pub fn wait_receiving(&self) {
        let start = Instant::now();
        loop {
            let files = self.files("snapshot-");
            let begun = |(name, bytes): &(String, u64)| name.ends_with(".tmp") && *bytes > 1 << 20;
            if files.iter().any(begun) {
                return;
            }
            assert!(!self.log().contains("continues from"), "the transfer is too quick to be seen");
            assert!(start.elapsed() < PATIENCE, "no snapshot comes: {files:?}");
        }
    }
}

impl Cluster {
    /// Until every log is compacted.
    pub fn wait_compacted(&self) {
        self.nodes.iter().filter(|node| node.runs()).for_each(Node::wait_compacted);
    }

    /// At an equal applied index all have an equal state. To be asked at rest.
    pub fn hashes_agree(&self) {
        let running = self.nodes.iter().filter(|node| node.runs()).count();
        let statuses = eventually("all have applied the same", || {
            let statuses = self.statuses();
            let all_there = statuses.len() == running;
            match statuses.windows(2).all(|pair| pair[0].1.applied == pair[1].1.applied) {
                true if all_there => Ok(statuses),
                _ => Err(format!("{statuses:?}")),
            }
        });
        for (_, status) in &statuses {
            assert_eq!(status.state_hash, statuses[0].1.state_hash, "{statuses:?}");
            assert!(status.warnings.is_empty(), "{status:?}");
        }
    }
}
