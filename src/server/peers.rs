//! The other nodes: who they are, where they are, and the links to them.
//!
//! ```text
//!   Effects.messages --> urgent  link --dial--> their listener
//!                    \-> entries link --dial-->
//!   Input::Peer     <-- incoming <------------- their links
//! ```
//!
//! Each node dials what it has to say and listens on what it accepts, so two
//! nodes have up to four connections. An address comes from the address book,
//! that is from the log; but a node that is connected to us has said itself where
//! it is reached, and that is newer: [a newcomer has to answer the leader before
//! any entry has told it who that is]. So is what a probe has found: [all nodes
//! were moved, and nobody can lead and write down where before they meet].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::address;
use super::config::PeerLimits;
use super::dial::dial;
use super::hub::Hub;
use super::journal::Journal;
use super::links::{Link, LinkLimits};
use crate::protocol::peer::{Ends, Hello, LinkClass, Refusal};
use crate::raft::{ClusterId, NodeId};
use crate::replica::{Input, Peer, PeerMessage, Probe};

/// The same complaint is not made again so soon.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// So many different complaints are told apart.
const COMPLAINTS: usize = 256;

/// So many probes are under way at a time.
const PROBES: usize = 32;

/// So many addresses of nodes that the log does not know are kept.
const HEARD: usize = 64;

/// See [`Peers::note_claim`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The name of the node.
    pub by: String,
    /// Its cluster.
    pub cluster: ClusterId,
}

/// Everything about the other nodes, single-threaded.
pub struct Peers {
    /// What is kept for them.
    pub limits: PeerLimits,
    /// Where what they say goes.
    pub hub: Rc<Hub>,
    own: Peer,
    own_peer_address: String,
    cluster: Cell<Option<ClusterId>>,
    member: Cell<bool>,
    journal: Rc<Journal>,
    book: RefCell<BTreeMap<NodeId, String>>,
    /// Where those who are connected say they are.
    heard: RefCell<BTreeMap<NodeId, String>>,
    /// Where a probe has found members that the log knows elsewhere.
    found: RefCell<BTreeMap<NodeId, String>>,
    links: RefCell<BTreeMap<(NodeId, LinkClass), Rc<Link>>>,
    incoming: RefCell<BTreeMap<(NodeId, LinkClass), Rc<Notify>>>,
    /// A node of another cluster that expects this one to be of its own.
    claim: RefCell<Option<Claim>>,
    /// What has arrived of frames that are not whole.
    pub unfinished_bytes: Cell<usize>,
    probing: Cell<usize>,
    complaints: RefCell<BTreeMap<String, Instant>>,
}

impl Peers {
    /// Nobody known, nobody connected. `own` is what others are told of this
    /// node, and `own_peer_address` where they reach it.
    pub fn new(
        own: Peer,
        own_peer_address: String,
        limits: PeerLimits,
        hub: Rc<Hub>,
        journal: Rc<Journal>,
    ) -> Self {
        Self {
            limits,
            hub,
            cluster: Cell::new(own.cluster),
            member: Cell::new(own.member),
            own,
            own_peer_address,
            journal,
            book: RefCell::default(),
            heard: RefCell::default(),
            found: RefCell::default(),
            links: RefCell::default(),
            incoming: RefCell::default(),
            claim: RefCell::default(),
            unfinished_bytes: Cell::new(0),
            probing: Cell::new(0),
            complaints: RefCell::default(),
        }
    }

    /// Does what a turn asks for: learns of newcomers before it speaks to them,
    /// and forgets nobody before the last word to them is queued.
    pub fn dispatch(
        self: &Rc<Self>,
        book: Option<Vec<(NodeId, String)>>,
        messages: Vec<(NodeId, PeerMessage)>,
        probes: Vec<Probe>,
    ) {
        let book = book.map(BTreeMap::from_iter);
        let old = book.as_ref().map(|_| self.book.borrow().clone());
        if let Some(book) = &book {
            self.book.borrow_mut().extend(book.clone());
        }
        self.send(messages);
        if let (Some(book), Some(old)) = (book, old) {
            self.book.replace(book);
            let book = self.book.borrow();
            // What the log says now is newer than what was found before.
            self.found.borrow_mut().retain(|node, _| book.get(node) == old.get(node));
            self.review();
        }
        for probe in probes {
            tokio::task::spawn_local(Rc::clone(self).probe(probe));
        }
    }

    fn send(self: &Rc<Self>, messages: Vec<(NodeId, PeerMessage)>) {
        let mut touched: Vec<Rc<Link>> = Vec::new();
        for (to, message) in messages {
            let Some(link) = self.link(to, LinkClass::of(&message)) else {
                log::debug!("nobody knows where {to} is");
                self.hub.submit(Input::LinkLost(to));
                continue;
            };
            link.send(&message);
            if !touched.iter().any(|other| Rc::ptr_eq(other, &link)) {
                touched.push(link);
            }
        }
        touched.iter().for_each(|link| link.settle());
    }

    fn link(self: &Rc<Self>, to: NodeId, class: LinkClass) -> Option<Rc<Link>> {
        let mut links = self.links.borrow_mut();
        if let Some(link) = links.get(&(to, class)) {
            return Some(Rc::clone(link));
        }
        self.address_of(to)?;
        let ends = Ends::new(self.cluster.get()?, self.own.node, to);
        let queue_bytes = match class {
            LinkClass::Urgent => self.limits.urgent_queue_bytes,
            LinkClass::Entries | LinkClass::Snapshot => self.limits.entries_queue_bytes,
        };
        let limits = LinkLimits {
            queue_bytes,
            frame_bytes: self.limits.frame_bytes,
            stall: self.limits.stall_timeout,
        };
        let link = Rc::new(Link::new(to, class, ends, limits, Rc::clone(&self.hub)));
        links.insert((to, class), Rc::clone(&link));
        tokio::task::spawn_local(Rc::clone(&link).run(Rc::clone(self)));
        Some(link)
    }

    fn address_of(&self, node: NodeId) -> Option<String> {
        let heard = self.heard.borrow().get(&node).cloned();
        let found = || self.found.borrow().get(&node).cloned();
        heard.or_else(found).or_else(|| self.book.borrow().get(&node).cloned())
    }

    /// Closes the links to whom nobody speaks of any more, and moves those whose
    /// address has changed.
    fn review(&self) {
        self.links.borrow_mut().retain(|&(to, _), link| match self.address_of(to) {
            Some(address) => {
                link.readdress(&address);
                true
            }
            None => {
                link.close();
                false
            }
        });
    }

    /// Dials for a link; with the connection, where that went.
    pub async fn dial(&self, link: &Link) -> Result<(TcpStream, String), String> {
        let address = self.address_of(link.to).ok_or("nobody knows where it is")?;
        let hello = self.hello(link.class, Some(link.to));
        match dial(&address, &hello, self.limits.dial_timeout).await {
            Ok((stream, there)) if self.is(&there, link.to) => Ok((stream, address)),
            outcome => {
                // Meanwhile it may have been found elsewhere.
                self.found.borrow_mut().retain(|&n, found| (n, &*found) != (link.to, &address));
                let (_, there) = outcome?;
                Err(format!("{address} takes itself for somebody else, {}", there.node))
            }
        }
    }

    fn is(&self, there: &Peer, node: NodeId) -> bool {
        there.node == node && there.cluster.is_some() && there.cluster == self.cluster.get()
    }

    fn hello(&self, class: LinkClass, to: Option<NodeId>) -> Hello {
        Hello { class, sender: self.own(), peer_address: self.own_peer_address.clone(), to }
    }

    /// What others are told of this node.
    pub fn own(&self) -> Peer {
        Peer { cluster: self.cluster.get(), member: self.member.get(), ..self.own.clone() }
    }

    /// Whether a committed entry has made this node a member, or no more.
    pub fn set_member(&self, member: bool) {
        self.member.set(member);
    }

    async fn probe(self: Rc<Self>, probe: Probe) {
        let found = if self.probing.get() < PROBES {
            self.probing.set(self.probing.get() + 1);
            let found = self.ask_who_is_at(&probe.address).await;
            self.probing.set(self.probing.get() - 1);
            if let Ok(peer) = &found {
                self.note_found(peer, &probe.address);
            }
            found
        } else {
            Err(format!("cannot look for {}: {PROBES} others are being looked for", probe.address))
        };
        self.hub.submit(Input::Probed { id: probe.id, found });
    }

    async fn ask_who_is_at(&self, address: &str) -> Result<Peer, String> {
        let hello = self.hello(LinkClass::Urgent, None);
        let (_, peer) = dial(address, &hello, self.limits.probe_timeout).await?;
        let client_address = address::with_host_of(&peer.client_address, address);
        Ok(Peer { client_address, ..peer })
    }

    /// Somebody is where a client said. If that is a member, it may have moved.
    fn note_found(&self, peer: &Peer, address: &str) {
        let is_member = self.book.borrow().contains_key(&peer.node);
        if is_member && self.is(peer, peer.node) {
            self.found.borrow_mut().insert(peer.node, address.to_owned());
            self.review();
        }
    }

    /// A node of another cluster does not dial by chance: this address stands in
    /// its log, or somebody told it to take in who is here.
    pub fn note_claim(&self, hello: &Hello) {
        if let (Some(theirs), Some(ours)) = (hello.sender.cluster, self.cluster.get())
            && theirs != ours
        {
            self.claim.replace(Some(Claim { by: hello.sender.name.clone(), cluster: theirs }));
            self.hub.wake();
        }
    }

    /// Who has claimed this node since this was last asked.
    pub fn take_claim(&self) -> Option<Claim> {
        self.claim.take()
    }

    /// Whether a hello is for us: between whom the connection is, if it is more
    /// than a probe, or why it is refused. May adopt a cluster.
    pub fn judge(&self, hello: &Hello) -> Result<Option<Ends>, Refusal> {
        let Some(to) = hello.to else { return Ok(None) };
        let from = hello.sender.node;
        // A copy of our own directory would speak in our name.
        if to != self.own.node || from == self.own.node {
            return Err(Refusal::WrongAddressee(self.own.node));
        }
        let theirs = hello.sender.cluster.ok_or(Refusal::NoCluster)?;
        match self.cluster.get() {
            Some(ours) if ours != theirs => Err(Refusal::ForeignCluster(ours)),
            Some(ours) => Ok(Some(Ends::new(ours, from, to))),
            None if self.adopt(theirs, &hello.sender.name) => Ok(Some(Ends::new(theirs, from, to))),
            None => Err(Refusal::NoCluster),
        }
    }

    fn adopt(&self, cluster: ClusterId, by: &str) -> bool {
        let adopted = self.journal.adopt(cluster);
        if adopted {
            log::info!("{}: taken into cluster {cluster} by {by}", self.own.name);
            self.cluster.set(Some(cluster));
            self.hub.submit(Input::Adopted(cluster));
        }
        adopted
    }

    /// A link of another node is open, and takes the place of the one before:
    /// that one's machine may have gone without a word. It is over when the
    /// result is notified.
    pub fn arrived(&self, hello: &Hello, source: IpAddr) -> Rc<Notify> {
        let over = Rc::new(Notify::new());
        let from = hello.sender.node;
        let place = (from, hello.class);
        if let Some(old) = self.incoming.borrow_mut().insert(place, Rc::clone(&over)) {
            old.notify_one();
        }
        let mut heard = self.heard.borrow_mut();
        if heard.len() < HEARD || heard.contains_key(&from) {
            heard.insert(from, address::with_host(&hello.peer_address, source));
        }
        drop(heard);
        self.review();
        over
    }

    /// That link is closed.
    pub fn departed(&self, from: NodeId, class: LinkClass, over: &Rc<Notify>) {
        let mut incoming = self.incoming.borrow_mut();
        if incoming.get(&(from, class)).is_some_and(|current| Rc::ptr_eq(current, over)) {
            incoming.remove(&(from, class));
        }
        if !incoming.keys().any(|(node, _)| *node == from) {
            self.heard.borrow_mut().remove(&from);
        }
    }

    /// Says what is wrong, but not again and again.
    pub fn complain(&self, about: String, level: log::Level, what: &str) {
        let now = Instant::now();
        let mut complaints = self.complaints.borrow_mut();
        if complaints.get(&about).is_some_and(|at| now.duration_since(*at) < COMPLAIN_EVERY) {
            log::debug!("{about}: {what}");
            return;
        }
        log::log!(level, "{about}: {what}");
        if complaints.len() >= COMPLAINTS {
            complaints.clear();
        }
        complaints.insert(about, now);
    }

    /// Ends every connection. What is queued is written first, as far as others
    /// take it in so much time: [the answer to a forwarded request was queued,
    /// and ends with the process: its client never learns that it was executed].
    pub async fn close(&self, patience: Duration) {
        let links = self.links.take();
        links.values().for_each(|link| link.close());
        self.incoming.borrow().values().for_each(|over| over.notify_one());
        let written = async {
            for link in links.values() {
                link.written().await;
            }
        };
        if timeout(patience, written).await.is_err() {
            log::warn!("{}: another node did not take all that was said to it", self.own.name);
        }
    }
}
