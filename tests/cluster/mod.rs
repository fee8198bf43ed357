//! Clusters of real processes.
//!
//! Each cluster has a loopback address of its own, `127.x.y.z`, and there every
//! node has fixed ports, so that one that is started again is found where it
//! was, and no two tests can meet. Linux answers on all of `127.0.0.0/8`; other
//! systems may have to be told to.
//!
//! One cluster runs at a time, whatever tests run beside it: it holds a lock on
//! a file in the system's directory for temporary ones. A small machine that
//! runs ten clusters at once shows ten slow ones.
//!
//! No node outlives its test. Each has a pipe as its standard input and ends
//! when that is closed, which the system does however the test ends.
//!
//! Nothing here sleeps for a time and hopes. What is waited for is an event,
//! with a deadline that only a broken cluster reaches; then, and whenever a test
//! fails, the logs of all nodes are printed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftcache::client::{Client, Error};
use raftcache::request::{Key, MemberInfo, RoleName, Status};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use disk::Disk;

pub mod churn;
pub mod disk;
pub mod load;

/// How long an event may take that a working cluster brings about in a second.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at whether an event has happened.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Clusters that this process has started.
static CLUSTERS: AtomicU32 = AtomicU32::new(0);

/// Waits until `look` finds something. What it says while it does not is
/// printed if it never does.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) if start.elapsed() > PATIENCE => {
                panic!("{what}: not in {} s; at last: {why}", PATIENCE.as_secs())
            }
            Err(_) => thread::sleep(LOOK_AGAIN),
        }
    }
}

/// Somebody who uses the cluster: a client, and what it runs on.
pub struct User {
    runtime: Runtime,
    pub client: Client,
}

impl User {
    pub fn new<A: AsRef<str>>(addresses: impl IntoIterator<Item = A>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self { runtime: runtime.expect("a runtime"), client: Client::new(addresses) }
    }

    /// Uses the client.
    pub fn ask<T>(&mut self, ask: impl AsyncFnOnce(&mut Client) -> T) -> T {
        self.runtime.block_on(ask(&mut self.client))
    }

    pub fn set(&mut self, key: &str, value: impl Into<Bytes>) -> Result<u64, Error> {
        let (key, value) = (Key::new(key.to_owned()), value.into());
        self.ask(async |client| client.set(key, value).await)
    }

    pub fn get(&mut self, key: &str) -> Result<Option<Bytes>, Error> {
        let key = Key::new(key.to_owned());
        let item = self.ask(async |client| client.get(key).await)?;
        Ok(item.map(|item| item.value))
    }

    pub fn status(&mut self) -> Result<Status, Error> {
        self.ask(async |client| client.status().await)
    }
}

/// One process, running or not.
pub struct Node {
    pub name: String,
    /// Where clients reach it.
    pub address: String,
    /// Where its peers reach it.
    pub peer_address: String,
    pub data_dir: PathBuf,
    log: PathBuf,
    /// Beyond name, addresses and directory.
    pub flags: Vec<String>,
    /// Whom it asks to be taken in.
    pub join: Vec<String>,
    /// The disk of its own that its directory is on.
    disk: Option<Disk>,
    process: Option<(Child, Option<ChildStdin>)>,
}

impl Node {
    /// The command that runs it.
    fn command(&self) -> Command {
        let mut command = cached();
        command.args(["--id", &self.name, "--listen", &self.address]);
        command.args(["--peer-listen", &self.peer_address]);
        command.arg("--data-dir").arg(&self.data_dir).args(&self.flags);
        if !self.join.is_empty() {
            command.arg("--join").arg(self.join.join(","));
        }
        match &self.disk {
            Some(disk) => disk.inside(&command),
            None => command,
        }
    }

    pub fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        let mut command = self.command();
        command.env("CACHED_EXIT_WITH_STDIN", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().expect("the node can be started");
        let stdin = child.stdin.take();
        self.process = Some((child, stdin));
    }

    /// SIGKILL: the process has no say in it.
    pub fn kill9(&mut self) {
        let (mut child, _) = self.process.take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it has ended");
    }

    /// SIGTERM: it may finish what it has begun.
    pub fn sigterm(&mut self) -> ExitStatus {
        self.signal_to_end();
        self.wait_for_end()
    }

    /// Sends SIGTERM.
    pub fn signal_to_end(&self) {
        self.signal("-TERM");
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.expect("kill is there").success(), "{} takes {signal}", self.name);
    }

    /// SIGSTOP: from now on the process does nothing, and does not know.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT: it goes on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    /// Until it has ended by itself.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        eventually(&what, || self.has_ended().ok_or("it runs".to_owned()))
    }

    /// How it has ended by itself, if it has.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        let (child, _) = self.process.as_mut().expect("it runs");
        let status = child.try_wait().expect("it is ours")?;
        self.process = None;
        Some(status)
    }

    pub fn restart(&mut self) {
        self.kill9();
        self.start();
    }

    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").0.id()
    }

    /// A client of this node alone.
    pub fn user(&self) -> User {
        User::new([&self.address])
    }

    /// Its log since the first start.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The most of its memory that was resident at any time, in bytes. 0 where
    /// that cannot be told.
    pub fn peak_resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB")).unwrap_or("0");
        number.parse::<u64>().expect("a number of kB") << 10
    }
}

/// `cached`, without what the environment of the tests says to it.
pub fn cached() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cached"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CACHED_") {
            command.env_remove(name);
        }
    }
    command
}

/// Nodes with an address of their own.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub dir: TempDir,
    host: String,
    flags: Vec<String>,
    _lock: File,
}

impl Cluster {
    /// No node yet; each is to have these flags.
    pub fn empty(flags: &[&str]) -> Self {
        let lock = std::env::temp_dir().join("raftcache-tests.lock");
        let lock = File::options().create(true).append(true).open(lock).expect("a lock file");
        lock.lock().expect("one cluster at a time");
        Self {
            nodes: Vec::new(),
            dir: tempfile::tempdir().expect("a directory"),
            host: own_host(),
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            _lock: lock,
        }
    }

    /// A node alone, serving.
    pub fn one(flags: &[&str]) -> Self {
        let mut cluster = Self::empty(flags);
        cluster.add();
        cluster.nodes[0].start();
        cluster.wait_serving(0);
        cluster
    }

    /// This many voters under one leader.
    pub fn of(count: usize, flags: &[&str]) -> Self {
        let mut cluster = Self::empty(flags);
        cluster.add();
        cluster.nodes[0].start();
        cluster.wait_serving(0);
        for _ in 1..count {
            let node = cluster.add_joining();
            cluster.nodes[node].start();
            cluster.wait_voter(node);
        }
        cluster
    }

    /// A node that is not started yet, with the next name and ports; its number.
    pub fn add(&mut self) -> usize {
        let number = self.nodes.len();
        let name = format!("node{}", number + 1);
        self.nodes.push(Node {
            address: format!("{}:{}", self.host, 3001 + number),
            peer_address: format!("{}:{}", self.host, 4001 + number),
            data_dir: self.dir.path().join(&name),
            log: self.dir.path().join(format!("{name}.log")),
            name,
            flags: self.flags.clone(),
            join: Vec::new(),
            disk: None,
            process: None,
        });
        number
    }

    /// The same, to join whoever is there.
    pub fn add_joining(&mut self) -> usize {
        let addresses = self.addresses();
        let node = self.add();
        self.nodes[node].join = addresses;
        node
    }

    /// Starts a node with nothing, until it is back as another voter of its name.
    pub fn rebuild(&mut self, number: usize) {
        let mut others = self.addresses();
        others.remove(number);
        let node = &mut self.nodes[number];
        node.join = others;
        node.flags.push("--rebuild".to_owned());
        node.start();
        node.flags.pop();
        eventually("it counts again", || {
            let status = self.nodes[number].user().status().map_err(|error| error.to_string())?;
            let counts = |member: &MemberInfo| {
                member.node == status.node
                    && member.voter
                    && status.members.len() == self.nodes.len()
            };
            if status.members.iter().any(counts) { Ok(()) } else { Err(format!("{status:?}")) }
        });
    }

    /// Where clients reach the nodes.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.clone()).collect()
    }

    /// A client of all nodes that begins with this one.
    pub fn user_from(&self, first: usize) -> User {
        let mut addresses = self.addresses();
        addresses.rotate_left(first % self.nodes.len());
        User::new(addresses)
    }

    /// A client of all nodes.
    pub fn user(&self) -> User {
        self.user_from(0)
    }

    /// Until a node answers a linearizable read.
    pub fn wait_serving(&self, node: usize) {
        let node = &self.nodes[node];
        eventually(&format!("{} serves", node.name), || {
            node.user().get("").map_err(|error| error.to_string())
        });
    }

    /// Until a node is known everywhere as one that counts.
    pub fn wait_voter(&self, node: usize) {
        let name = &self.nodes[node].name;
        let is_voter = |status: &Status| {
            status.members.iter().any(|member| member.name == *name && member.voter)
        };
        for asked in self.nodes.iter().filter(|node| node.runs()) {
            eventually(&format!("{name} is a voter to {}", asked.name), || {
                let status = asked.user().status().map_err(|error| error.to_string())?;
                if is_voter(&status) { Ok(()) } else { Err(format!("{status:?}")) }
            });
        }
    }

    /// The number of the node that leads, once one says so that is followed by
    /// the others.
    pub fn wait_leader(&self) -> usize {
        eventually("a leader", || {
            let statuses: Vec<_> = self.statuses();
            let leads = |status: &Status| status.role == RoleName::Leader;
            let leaders = statuses.iter().filter(|(_, status)| leads(status));
            let (number, leader) =
                leaders.max_by_key(|(_, status)| status.term).ok_or("nobody leads")?;
            let follows = |status: &Status| {
                status.term == leader.term && status.leader.as_ref() == Some(&leader.name)
            };
            match statuses.iter().find(|(_, status)| !follows(status)) {
                None => Ok(*number),
                Some((_, other)) => Err(format!("{other:?} does not follow {}", leader.name)),
            }
        })
    }

    /// Until every running node has applied what any node has committed now.
    pub fn wait_caught_up(&self) {
        let commit = self.statuses().iter().map(|(_, status)| status.commit).max().unwrap_or(0);
        eventually(&format!("all have applied {commit}"), || {
            let statuses = self.statuses();
            let running = self.nodes.iter().filter(|node| node.runs()).count();
            let behind = statuses.iter().find(|(_, status)| status.applied < commit);
            match behind {
                None if statuses.len() == running => Ok(()),
                None => Err("not all answer".to_owned()),
                Some((_, status)) => Err(format!("{status:?}")),
            }
        });
    }

    /// What every node says that runs and answers.
    pub fn statuses(&self) -> Vec<(usize, Status)> {
        let running = self.nodes.iter().enumerate().filter(|(_, node)| node.runs());
        running.filter_map(|(number, node)| Some((number, node.user().status().ok()?))).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if node.runs() {
                node.kill9();
            }
        }
        if thread::panicking() {
            for node in &self.nodes {
                eprintln!("---- the log of {} ----\n{}", node.name, node.log());
            }
        }
    }
}

/// A loopback address that no other cluster has: from the number of the process
/// and that of the cluster in it.
fn own_host() -> String {
    let process = std::process::id();
    let cluster = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    format!("127.{}.{}.{}", 16 + process / 256 % 224, process % 256, 1 + cluster % 254)
}

/// Every file below a directory, with its content, in order: to see whether
/// anything has changed.
pub fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a directory") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push((path.clone(), fs::read(&path).expect("a file"))),
            }
        }
    }
    found.sort();
    found
}
