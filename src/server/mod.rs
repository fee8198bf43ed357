//! The impure layer: sockets, threads, clocks. It only moves bytes.
//!
//! One thread runs the event loop: it owns the replica *and* the client
//! connections, so a request costs no hop between threads.
//!
//! ```text
//!  connections --decode--> inbox --+
//!  disk thread --durable---------->+--> turn --> replies, written at once
//!  timer ------------------------->+        \--> writes, to the disk thread
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
//! | [`connection`] [`hub`] | clients |
//! | [`disk`] [`snapshots`] | the disk thread, the snapshot thread |
//! | [`os`] | every system-specific call |

pub mod config;
pub mod connection;
pub mod disk;
pub mod hub;
pub mod os;
pub mod snapshots;
pub mod start;

use std::io;
use std::net::TcpListener as StdListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::sleep;

pub use config::{Flags, ServerConfig};

use crate::protocol;
use crate::raft::Index;
use crate::replica::{Driver, Effects, Input};
use crate::wal::WalError;
use disk::{DiskThread, Job, Report};
use hub::Hub;
use snapshots::SnapshotThread;

/// How long accepting rests when the process has no descriptor left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How long a stop waits for what is under way.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

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
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] WalError),
    /// The system refuses something else.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Runs a node until it is asked to stop. Addresses are taken before the data
/// directory is touched.
pub fn run(config: &ServerConfig) -> Result<(), StartError> {
    os::raise_descriptor_limit();
    let listeners = listen(config)?;
    let started = start::open(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async {
        let (reports_in, reports) = unbounded_channel();
        let snapshots =
            SnapshotThread::start(started.wal.disk().clone(), started.cluster, reports_in.clone())?;
        let disk = DiskThread::start(started.wal, reports_in)?;
        let hub = Rc::new(Hub::new(config.clients.clone(), protocol::Limits::default()));
        let mut accepting = Vec::new();
        for listener in listeners {
            let listener = TcpListener::from_std(listener)?;
            accepting.push(tokio::task::spawn_local(accept(listener, Rc::clone(&hub))));
        }
        log::info!("{}: serving on {}", config.name, config.listen.join(", "));
        let driver = Driver::new(started.replica);
        let result = EventLoop { driver, hub, disk, snapshots, pinned: None, reports, accepting }
            .run()
            .await;
        log::info!("{}: stopped", config.name);
        result
    }))
}

fn listen(config: &ServerConfig) -> Result<Vec<StdListener>, StartError> {
    let mut listeners = Vec::new();
    for address in &config.listen {
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

/// Until the process is asked to end.
async fn stop_signal() -> io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            interrupt = tokio::signal::ctrl_c() => interrupt,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

struct EventLoop {
    driver: Driver,
    hub: Rc<Hub>,
    disk: DiskThread,
    snapshots: SnapshotThread,
    pinned: Option<Index>,
    reports: UnboundedReceiver<Report>,
    accepting: Vec<tokio::task::JoinHandle<()>>,
}

impl EventLoop {
    async fn run(mut self) -> Result<(), StartError> {
        let mut stop = Box::pin(stop_signal());
        let mut stop_by = None;
        loop {
            let effects = self.turn()?;
            if effects.drained || stop_by.is_some_and(|by| tokio::time::Instant::now() >= by) {
                break;
            }
            let now = os::now().time;
            let wait = effects.wake_at.map_or(STOP_PATIENCE, |at| at.since(now));
            tokio::select! {
                biased;
                () = self.hub.arrival() => {}
                Some(report) = self.reports.recv() => self.note(report)?,
                () = sleep(wait.min(STOP_PATIENCE)) => {}
                result = &mut stop, if stop_by.is_none() => {
                    result?;
                    log::info!("stopping");
                    self.accepting.iter().for_each(tokio::task::JoinHandle::abort);
                    self.hub.submit(Input::Stop);
                    stop_by = Some(tokio::time::Instant::now() + STOP_PATIENCE);
                }
            }
        }
        self.snapshots.close();
        self.disk.close();
        Ok(())
    }

    /// Takes all that has arrived, judges it, and does what comes out.
    fn turn(&mut self) -> Result<Effects, StartError> {
        while let Ok(report) = self.reports.try_recv() {
            self.note(report)?;
        }
        let arrived = self.hub.take_inbox();
        let mut effects = self.driver.turn(arrived.into_iter(), os::now);
        if let Some(write) = effects.write.take() {
            self.disk.submit(Job::Write(write));
        }
        for fetch in effects.fetch.drain(..) {
            self.disk.submit(Job::Fetch(fetch));
        }
        for job in effects.snapshots.drain(..) {
            self.snapshots.submit(job);
        }
        if let Some(last) = effects.snapshot_taken.take() {
            self.disk.submit(Job::SnapshotTaken(last));
        }
        if std::mem::replace(&mut self.pinned, effects.pinned) != effects.pinned {
            self.disk.submit(Job::Pin(effects.pinned));
        }
        self.hub.answer(std::mem::take(&mut effects.replies));
        Ok(effects)
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
