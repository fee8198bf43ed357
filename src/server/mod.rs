//! The impure layer: sockets, threads, clocks. It only moves bytes.
//!
//! One thread runs the event loop: it owns the replica *and* the client
//! connections, so a request costs no hop between threads.
//!
//! ```text
//!  connections --decode--> inbox --+
//!  other nodes --frames----------->+--> turn --> replies and frames, written at once
//!  disk thread --durable---------->+        \--> writes, to the disk thread
//!  timer ------------------------->+
//! ```
//!
//! A turn begins when something has arrived and every task that was ready has
//! run; so all that had arrived by then shares one append, one write and one
//! sync. The only other threads are those of the journal and of snapshot files.
//!
//! | file | what |
//! |---|---|
//! | [`config`] | flags to settings |
//! | [`start`] | from a data directory to a replica |
//! | [`connection`] [`hub`] [`cost`] [`board`] | clients |
//! | [`peers`] [`links`] [`incoming`] [`dial`] | the other nodes |
//! | [`join`] | how a newcomer asks to be taken in, and a member to be found |
//! | [`journal`] [`disk`] [`snapshots`] | the journal, once there is one, its thread, that of snapshot files |
//! | [`address`] | hosts that mean "wherever this comes from" |
//! | [`pace`], [`metrics`] | how long the turns take; what else is measured |
//! | [`os`] | every system-specific call |

pub mod address;
pub mod board;
pub mod config;
pub mod connection;
pub mod cost;
pub mod dial;
pub mod disk;
pub mod hub;
pub mod incoming;
pub mod join;
pub mod journal;
pub mod links;
pub mod metrics;
pub mod os;
pub mod pace;
pub mod pause;
pub mod peers;
pub mod slow;
pub mod snapshots;
pub mod start;

use std::cell::RefCell;
use std::future::ready;
use std::io;
use std::net::TcpListener as StdListener;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{JoinHandle, LocalSet, spawn_local, yield_now};
use tokio::time::{Instant, Sleep, sleep};

use config::ClientLimits;
pub use config::{Flags, ServerConfig};

use crate::protocol;
use crate::raft::{ClusterId, Index};
use crate::replica::{Driver, Effects, Input};
use crate::storage::Job;
use crate::wal::WalError;
use disk::Report;
use hub::Hub;
use join::{Asking, Standing};
use journal::Journal;
use pace::Pace;
use peers::{Claim, Peers};
use start::{Opened, Started};

/// How long accepting rests when the process has no descriptor left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How many descriptors clients leave for files and peers.
const RESERVED_DESCRIPTORS: u64 = 512;

/// How long a stop waits for what is under way.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How long the end waits for other nodes to take the last word.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Why a server did not start, or had to end. Each is one sentence for a person.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(String, io::Error),
    /// The data directory cannot be opened.
    #[error("cannot use the data directory {0}: {1}")]
    DataDir(PathBuf, io::Error),
    /// The data directory is another node's.
    #[error("{dir} belongs to node {theirs:?}, not to {ours:?}: is this the right directory?")]
    OtherName {
        /// Which.
        dir: PathBuf,
        /// Whose it is.
        theirs: String,
        /// Who wants it.
        ours: String,
    },
    /// It is nobody's, and may not become a cluster's first.
    #[error(
        "{0} is empty, and --bootstrap=never forbids a new cluster: name a member of an \
         existing one with --join"
    )]
    Empty(PathBuf),
    /// It is no node's, and there is something in it.
    #[error(
        "{0} holds {1:?} and no node's identity: name an empty directory; or, if this was a node's, \
         get it back from the other members with --rebuild and --join"
    )]
    Occupied(PathBuf, String),
    /// It was begun to join a cluster and has not.
    #[error(
        "{0} was begun to join a cluster and does not belong to one yet: start it with --join, \
         or with an empty directory for a new cluster"
    )]
    Unjoined(PathBuf),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] WalError),
    /// It founded a cluster where it was meant to join one.
    #[error(
        "this node was started without --join and founded a cluster of its own, but {by:?} of \
         cluster {cluster} expects it there: start it with --join and an empty data directory"
    )]
    Claimed {
        /// The node that was in touch.
        by: String,
        /// The cluster of that.
        cluster: ClusterId,
    },
    /// The system refuses something else.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Runs a node until it is asked to stop. Addresses are taken before the data
/// directory is touched.
pub fn run(config: &ServerConfig) -> Result<(), StartError> {
    let descriptors = os::raise_descriptor_limit();
    let clients = listen(&config.listen)?;
    let nodes = listen(&config.peer_listen)?;
    let config = &ServerConfig {
        advertise: advertised(&config.advertise, &clients)?,
        peer_advertise: advertised(&config.peer_advertise, &nodes)?,
        clients: leave_descriptors(config.clients.clone(), descriptors),
        ..config.clone()
    };
    let started = start::open(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async {
        let event_loop = EventLoop::begin(config, started, clients, nodes)?;
        let result = event_loop.run().await;
        log::info!("{}: stopped", config.name);
        result
    }))
}

/// Clients must not take the descriptors that the journal and the peers need:
/// without them this node, and under the same load every other, would have to end.
fn leave_descriptors(mut clients: ClientLimits, descriptors: Option<u64>) -> ClientLimits {
    let most = descriptors.unwrap_or(u64::MAX).saturating_sub(RESERVED_DESCRIPTORS).max(1);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    if clients.connections > most {
        log::warn!("{most} clients at a time: the system lets this process open no more files");
        clients.connections = most;
    }
    clients
}

fn listen(addresses: &[String]) -> Result<Vec<StdListener>, StartError> {
    let mut listeners = Vec::new();
    for address in addresses {
        let wrong = |error| StartError::Listen(address.clone(), error);
        let listener = StdListener::bind(address).map_err(wrong)?;
        listener.set_nonblocking(true).map_err(wrong)?;
        if !listener.local_addr().map_err(wrong)?.ip().is_loopback() {
            log::warn!(
                "{address} can be reached from other machines, and nobody is asked who they are"
            );
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

/// What to tell others if the system chose the port.
fn advertised(address: &str, listeners: &[StdListener]) -> io::Result<String> {
    match listeners.first() {
        Some(first) => Ok(address::with_port(address, first.local_addr()?.port())),
        None => Ok(address.to_owned()),
    }
}

async fn accept(listener: TcpListener, hub: Rc<Hub>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => hub.accept(stream),
            Err(error) => {
                log::warn!("cannot accept a connection: {error}");
                sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// Lets the alarm ring after `wait` at the latest. To set it costs two calls of
/// the system, to ring too early one turn; and most turns only put off what they
/// wait for, so what is later is not set before the earlier has rung.
fn set_alarm(alarm: &mut Pin<Box<Sleep>>, wait: Duration) {
    let at = Instant::now() + wait;
    if alarm.is_elapsed() || at < alarm.deadline() {
        alarm.as_mut().reset(at);
    }
}

struct EventLoop {
    name: String,
    driver: Driver,
    hub: Rc<Hub>,
    peers: Rc<Peers>,
    journal: Rc<Journal>,
    reports: UnboundedReceiver<Report>,
    /// The tasks that take in clients.
    accepting: Vec<JoinHandle<()>>,
    /// Where this node is, and how it stands, while it asks to be found.
    addresses: [String; 2],
    standing: Weak<RefCell<Standing>>,
    removed: bool,
    /// What the journal was last told to keep.
    pinned: Option<Index>,
    pace: Pace,
    /// When a stop waits no longer.
    stop_by: Option<Instant>,
}

impl EventLoop {
    /// Starts everything that runs beside it.
    fn begin(
        config: &ServerConfig,
        started: Started,
        clients: Vec<StdListener>,
        nodes: Vec<StdListener>,
    ) -> Result<Self, StartError> {
        let (reports_in, reports) = unbounded_channel();
        let (wal, unjoined) = match started.journal {
            Opened::Member(wal) => (Some(*wal), None),
            Opened::Newcomer(unjoined) => (None, Some(unjoined)),
        };
        let limits = protocol::Limits::default();
        let hub = Rc::new(Hub::new(config.clients.clone(), limits, config.memory));
        let synced = hub.board.metrics.sync.clone();
        let journal = Rc::new(Journal::new(unjoined, reports_in, synced));
        if let Some(wal) = wal {
            journal.start(wal)?;
        }
        hub.board.set_port(address::port_of(&config.advertise));
        let peers = Rc::new(Peers::new(
            started.own,
            config.peer_advertise.clone(),
            config.peers.clone(),
            Rc::clone(&hub),
            Rc::clone(&journal),
        ));
        let mut accepting = Vec::new();
        // Clients are tasks of a set of their own: of thousands that are ready at
        // a time, other nodes are not one among many.
        let set = LocalSet::new();
        for listener in clients {
            let accept = accept(TcpListener::from_std(listener)?, Rc::clone(&hub));
            accepting.push(set.spawn_local(accept));
        }
        spawn_local(set);
        for listener in nodes {
            spawn_local(incoming::accept(TcpListener::from_std(listener)?, Rc::clone(&peers)));
        }
        let (listens, meets) = (config.listen.join(", "), config.peer_listen.join(", "));
        log::info!("{}: serving on {listens}, other nodes on {meets}", config.name);
        let addresses = [config.peer_advertise.clone(), config.advertise.clone()];
        let standing = Standing::of(started.replica.raft(), &addresses[0], &addresses[1]);
        let asking = Asking {
            hints: config.join.clone(),
            name: config.name.clone(),
            peer_address: config.peer_advertise.clone(),
            client_address: config.advertise.clone(),
            standing: Rc::new(RefCell::new(standing)),
        };
        let standing = Rc::downgrade(&asking.standing);
        spawn_local(asking.run());
        let (name, driver) = (config.name.clone(), Driver::new(started.replica));
        let (removed, stop_by) = (false, None);
        Ok(Self {
            name,
            driver,
            hub,
            peers,
            journal,
            reports,
            accepting,
            addresses,
            standing,
            removed,
            pinned: None,
            pace: Pace::default(),
            stop_by,
        })
    }

    async fn run(mut self) -> Result<(), StartError> {
        let mut stop = Box::pin(os::stop_signal());
        let mut alarm = Box::pin(sleep(STOP_PATIENCE));
        loop {
            let begun = Instant::now();
            let effects = self.turn()?;
            // Every client has its replies when its connection is closed.
            let is_done = effects.drained && self.hub.connections() == 0;
            if is_done || self.stop_by.is_some_and(|by| Instant::now() >= by) {
                break;
            }
            let wait = effects.wake_at.map_or(STOP_PATIENCE, |at| at.since(os::now().time));
            set_alarm(&mut alarm, wait.min(STOP_PATIENCE));
            if wait.is_zero() || self.hub.has_work() || !self.reports.is_empty() {
                // Peers and clients are heard between any two turns; with nothing
                // to do, they are while it waits.
                yield_now().await;
            }
            self.hub.board.slow.note("event-loop", begun.elapsed());
            self.pace.note(begun);
            self.hub.board.metrics.longest_turn.set(self.pace.longest());
            tokio::select! {
                biased;
                // However much there is to do, this is heard.
                result = &mut stop, if self.stop_by.is_none() => {
                    result?;
                    log::info!("stopping");
                    self.stop();
                }
                () = ready(()), if wait.is_zero() => {}
                () = self.hub.arrival() => {}
                Some(report) = self.reports.recv() => self.note(report)?,
                () = &mut alarm => {}
            }
        }
        self.peers.close(CLOSE_PATIENCE).await;
        self.journal.close();
        Ok(())
    }

    /// Takes in nobody any more, and ends when everything is answered.
    fn stop(&mut self) {
        // Other nodes still have to be heard: they take over.
        self.accepting.iter().for_each(JoinHandle::abort);
        self.hub.stop_reading();
        self.hub.submit(Input::Stop);
        self.stop_by = Some(Instant::now() + STOP_PATIENCE);
    }

    /// Takes all that has arrived, judges it, and does what comes out.
    fn turn(&mut self) -> Result<Effects, StartError> {
        while let Ok(report) = self.reports.try_recv() {
            self.note(report)?;
        }
        if let Some(claim) = self.peers.take_claim() {
            self.judge_claim(claim)?;
        }
        self.hub.begin_turn();
        // Before the requests behind it.
        let memory = self.hub.board.take_memory().map(Input::Memory);
        let arrived = memory.into_iter().chain(self.hub.take_inbox());
        let (begun, applied) = (Instant::now(), self.applied());
        let mut effects = self.driver.turn(arrived, os::now);
        let metrics = &self.hub.board.metrics;
        if self.applied() > applied {
            metrics.apply.observe(begun.elapsed().as_secs_f64());
        }
        if let Some(took) = effects.committed_after {
            metrics.commit.observe(took.as_secs_f64());
            self.hub.board.slow.note("commit", took);
        }
        if let Some(write) = effects.write.take() {
            self.journal.submit(Job::Write(write));
        }
        for fetch in effects.fetch.drain(..) {
            self.journal.submit(Job::Fetch(fetch));
        }
        for job in effects.snapshots.drain(..) {
            self.journal.submit_snapshot(job);
        }
        if let Some(last) = effects.snapshot_taken.take() {
            self.journal.submit(Job::SnapshotTaken(last));
        }
        if std::mem::replace(&mut self.pinned, effects.pinned) != effects.pinned {
            self.journal.submit(Job::Pin(effects.pinned));
        }
        self.peers.dispatch(
            effects.peers.take(),
            std::mem::take(&mut effects.messages),
            std::mem::take(&mut effects.probes),
        );
        self.hub.board.set_counts(self.driver.replica().counts());
        self.hub.answer(std::mem::take(&mut effects.replies));
        self.look_at_membership(effects.removed);
        Ok(effects)
    }

    fn applied(&self) -> u64 {
        self.driver.replica().fsm().applied()
    }

    /// Another cluster expects this node. That ends it only if nobody can miss
    /// it where it is: no stranger's word stops a node that has anything.
    fn judge_claim(&self, Claim { by, cluster }: Claim) -> Result<(), StartError> {
        if start::is_pristine(self.driver.replica()) {
            return Err(StartError::Claimed { by, cluster });
        }
        let what = "expects this node there, but it belongs to another and has data or members \
                    of that: to move it all the same, start it with --join and an empty data \
                    directory";
        self.peers.complain(format!("{by:?} of cluster {cluster}"), log::Level::Warn, what);
        Ok(())
    }

    fn look_at_membership(&mut self, removed: bool) {
        let raft = self.driver.replica().raft();
        // By an entry that is committed: one that is not may never have been.
        self.peers.set_member(raft.applied_membership().contains(raft.id()));
        if let Some(standing) = self.standing.upgrade() {
            let [peer_address, client_address] = &self.addresses;
            standing.replace(Standing::of(raft, peer_address, client_address));
        }
        if removed && !std::mem::replace(&mut self.removed, true) {
            log::warn!(
                "{}: this node was removed from its cluster; its data directory is of no more use",
                self.name
            );
            if self.stop_by.is_none() {
                self.stop();
            }
        }
    }

    fn note(&mut self, report: Report) -> Result<(), StartError> {
        match report {
            Report::Input(input) => {
                self.hub.enqueue(input);
                Ok(())
            }
            Report::Failed(error) => Err(error.into()),
        }
    }
}
