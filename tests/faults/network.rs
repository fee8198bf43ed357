//! A network between the nodes that can be cut, in one direction or in both.
//!
//! Every node tells the others the address of a proxy in front of it. The proxy
//! learns from the hello of a connection who dials, so it knows of every byte
//! from whom it comes and to whom it goes, and obeys one table of cuts for all.
//! Clients reach the nodes without it.
//!
//! A network that is cut delivers late what was under way when it heals, as TCP
//! does. That is the worst it can do, so it is what is done here.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use bytes::BytesMut;
use raftcache::protocol::peer::{Hello, LinkClass};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use crate::cluster::{Cluster, Node};

/// How a direction is cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cut {
    /// Nothing comes through, and nobody is told.
    Stall,
    /// Connections are closed, and new ones as soon as they say whose they are.
    Close,
    /// A snapshot comes to a halt when so many of its bytes have come through.
    SnapshotsAt(usize),
}

/// From whom and to whom, by name.
type Direction = (String, String);

#[derive(Debug, Clone, Default)]
struct Cuts(BTreeMap<Direction, Cut>);

impl Cuts {
    fn are_closed(&self, direction: &Direction) -> bool {
        self.0.get(direction) == Some(&Cut::Close)
    }

    fn let_through(&self, direction: &Direction, class: LinkClass, carried: usize) -> bool {
        match self.0.get(direction) {
            None => true,
            Some(Cut::Stall | Cut::Close) => false,
            Some(Cut::SnapshotsAt(limit)) => class != LinkClass::Snapshot || carried < *limit,
        }
    }
}

/// The proxies of all nodes. They end with it.
pub struct Network {
    cuts: Option<watch::Sender<Cuts>>,
    names: Vec<String>,
    proxies: Vec<JoinHandle<()>>,
}

impl Network {
    /// This many voters, each behind a proxy.
    pub fn around(count: usize, flags: &[&str]) -> (Cluster, Self) {
        let (mut cluster, mut network) = (Cluster::empty(flags), Self::empty());
        for number in 0..count {
            let node = if number == 0 { cluster.add() } else { cluster.add_joining() };
            network.put_before(&mut cluster.nodes[node]);
            cluster.nodes[node].start();
            cluster.wait_serving(node);
            cluster.wait_voter(node);
        }
        (cluster, network)
    }

    fn empty() -> Self {
        let cuts = Some(watch::Sender::new(Cuts::default()));
        Self { cuts, names: Vec::new(), proxies: Vec::new() }
    }

    /// Starts a proxy for a node that is not started yet.
    pub fn put_before(&mut self, node: &mut Node) {
        let address = node.peer_address.replace(":4", ":6");
        let listener = TcpListener::bind(&address).expect("an address of our own");
        listener.set_nonblocking(true).expect("a socket");
        node.flags.extend(["--peer-advertise".to_owned(), address]);
        let (name, target) = (node.name.clone(), node.peer_address.clone());
        let cuts = self.table().subscribe();
        self.names.push(name.clone());
        self.proxies.push(thread::spawn(move || serve(listener, name, target, cuts)));
    }

    fn table(&self) -> &watch::Sender<Cuts> {
        self.cuts.as_ref().expect("it is there until the end")
    }

    /// Cuts one direction between two nodes.
    pub fn cut(&self, from: usize, to: usize, cut: Cut) {
        let direction = (self.names[from].clone(), self.names[to].clone());
        self.table().send_modify(|cuts| _ = cuts.0.insert(direction, cut));
    }

    /// Nobody hears this node.
    pub fn mute(&self, node: usize, cut: Cut) {
        self.others(node).for_each(|other| self.cut(node, other, cut));
    }

    /// This node hears nobody.
    pub fn deafen(&self, node: usize, cut: Cut) {
        self.others(node).for_each(|other| self.cut(other, node, cut));
    }

    /// Both.
    pub fn isolate(&self, node: usize, cut: Cut) {
        self.mute(node, cut);
        self.deafen(node, cut);
    }

    fn others(&self, node: usize) -> impl Iterator<Item = usize> {
        (0..self.names.len()).filter(move |&other| other != node)
    }

    /// All is well again.
    pub fn heal(&self) {
        self.table().send_modify(|cuts| cuts.0.clear());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.cuts = None;
        for proxy in self.proxies.drain(..) {
            let ended = proxy.join();
            assert!(ended.is_ok() || thread::panicking(), "a proxy panicked");
        }
    }
}

/// Accepts connections to a node until the network is gone.
fn serve(listener: TcpListener, to: String, target: String, mut cuts: watch::Receiver<Cuts>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (dialler, _) = accepted.expect("a connection");
                    tokio::spawn(connect(dialler, to.clone(), target.clone(), cuts.clone()));
                }
                changed = cuts.changed() => if changed.is_err() { return },
            }
        }
    });
}

/// One connection, until it is over; `None` if it never came to be.
async fn connect(
    mut dialler: TcpStream,
    to: String,
    target: String,
    mut cuts: watch::Receiver<Cuts>,
) -> Option<()> {
    let (hello, opening) = hello(&mut dialler).await?;
    let there = (hello.sender.name, to);
    let back = (there.1.clone(), there.0.clone());
    let (class, carried) = (hello.class, 0);
    let way = |direction: &Direction| {
        let (direction, cuts) = (direction.clone(), cuts.clone());
        Way { direction, class, carried, cuts }
    };
    let both = carry_both(dialler, opening, target, way(&there), way(&back));
    tokio::select! {
        done = both => done,
        _ = cuts.wait_for(|cuts| cuts.are_closed(&there) || cuts.are_closed(&back)) => None,
    }
}

/// Until nothing more comes from one of them.
async fn carry_both(
    dialler: TcpStream,
    opening: BytesMut,
    target: String,
    mut there: Way,
    mut back: Way,
) -> Option<()> {
    there.open().await?;
    let acceptor = TcpStream::connect(target).await.ok()?;
    dialler.set_nodelay(true).ok()?;
    acceptor.set_nodelay(true).ok()?;
    let (from_dialler, to_dialler) = dialler.into_split();
    let (from_acceptor, mut to_acceptor) = acceptor.into_split();
    to_acceptor.write_all(&opening).await.ok()?;
    tokio::select! {
        done = there.carry(from_dialler, to_acceptor) => done,
        done = back.carry(from_acceptor, to_dialler) => done,
    }
}

/// Who dials, and the bytes that say so.
async fn hello(dialler: &mut TcpStream) -> Option<(Hello, BytesMut)> {
    let mut opening = BytesMut::new();
    loop {
        if let Some(hello) = Hello::decode(&mut opening.clone()).ok()? {
            return Some((hello, opening));
        }
        if dialler.read_buf(&mut opening).await.ok()? == 0 {
            return None;
        }
    }
}

/// One direction of one connection.
struct Way {
    direction: Direction,
    class: LinkClass,
    carried: usize,
    cuts: watch::Receiver<Cuts>,
}

impl Way {
    /// Until nothing is cut here; `None` if that will never be.
    async fn open(&mut self) -> Option<()> {
        let (direction, class, carried) = (&self.direction, self.class, self.carried);
        let open = self.cuts.wait_for(|cuts| cuts.let_through(direction, class, carried));
        open.await.ok().map(drop)
    }

    /// Hands on what comes; that nothing more will come has to come through, too.
    async fn carry(&mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> Option<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = from.read(&mut buffer).await.unwrap_or(0);
            self.open().await?;
            if count == 0 {
                return None;
            }
            to.write_all(&buffer[..count]).await.ok()?;
            self.carried += count;
        }
    }
}
