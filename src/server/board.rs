//! What is known of the clients and of what they ask, for whoever asks for that.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::metrics::Metrics;
use super::os;
use super::pause::ClientPause;
use super::slow::Slow;
use crate::protocol::surroundings::{
    ClientInfo, Description, Facts, Pause, SlowRequest, Spikes, Surroundings, Watch,
};
use crate::protocol::{Incoming, Protocol};
use crate::replica::Counts;
use crate::request::{Answer, MemoryLimit, Reply, Status};

/// Counts and lists of one node, single-threaded.
pub struct Board {
    begun: Instant,
    port: Cell<u16>,
    clients_limit: usize,
    clients: RefCell<BTreeMap<u64, Rc<Presence>>>,
    blocked_clients: Cell<u64>,
    connections: Cell<u64>,
    requests: Cell<u64>,
    /// What is counted for those who watch.
    pub metrics: Metrics,
    /// What took long.
    pub slow: Slow,
    /// What clients ask for waits.
    pub pause: ClientPause,
    /// Whose connections are to be ended.
    killed: RefCell<Vec<u64>>,
    /// How many clients were listed since that was asked.
    looked_at: Cell<usize>,
    hits: Cell<u64>,
    misses: Cell<u64>,
    remembered: RefCell<BTreeMap<&'static str, String>>,
    memory: Cell<MemoryLimit>,
    /// The replica has not been told of that.
    memory_changed: Cell<bool>,
    /// What the replica has counted, and what of that is forgotten.
    counts: Cell<Counts>,
    forgotten: Cell<Counts>,
}

/// One client, while it is connected.
pub struct Presence {
    id: u64,
    address: SocketAddr,
    local_address: SocketAddr,
    since: Instant,
    heard: Cell<Instant>,
    command: Cell<&'static str>,
    protocol: Cell<Protocol>,
    is_blocked: Cell<bool>,
    description: RefCell<Description>,
}

impl Presence {
    /// It has sent something.
    pub fn hear(&self) {
        self.heard.set(Instant::now());
    }

    /// When it last did.
    pub fn heard(&self) -> Instant {
        self.heard.get()
    }

    /// What it speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol.get()
    }

    /// It speaks this.
    pub fn set_protocol(&self, protocol: Protocol) {
        self.protocol.set(protocol);
    }

    fn info(&self) -> ClientInfo {
        ClientInfo {
            id: self.id,
            address: self.address.to_string(),
            local_address: self.local_address.to_string(),
            age_s: self.since.elapsed().as_secs(),
            idle_s: self.heard.get().elapsed().as_secs(),
            command: self.command.get(),
            description: self.description.borrow().clone(),
        }
    }
}

impl Board {
    /// With nobody connected.
    pub fn new(clients_limit: usize, memory: MemoryLimit) -> Self {
        Self {
            begun: Instant::now(),
            port: Cell::new(0),
            clients_limit,
            clients: RefCell::default(),
            blocked_clients: Cell::new(0),
            connections: Cell::new(0),
            requests: Cell::new(0),
            metrics: Metrics::default(),
            slow: Slow::default(),
            pause: ClientPause::default(),
            killed: RefCell::default(),
            looked_at: Cell::default(),
            hits: Cell::new(0),
            misses: Cell::new(0),
            remembered: RefCell::default(),
            memory: Cell::new(memory),
            memory_changed: Cell::new(false),
            counts: Cell::default(),
            forgotten: Cell::default(),
        }
    }

    /// Where clients reach the node.
    pub fn set_port(&self, port: u16) {
        self.port.set(port);
    }

    /// Whether a client has ordered what the next turn has to see to.
    pub fn has_orders(&self) -> bool {
        self.memory_changed.get() || !self.killed.borrow().is_empty()
    }

    /// How many clients were listed since this was asked.
    pub fn take_looked_at(&self) -> usize {
        self.looked_at.take()
    }

    /// Whose connections are to be ended since this was asked.
    pub fn take_killed(&self) -> Vec<u64> {
        self.killed.take()
    }

    /// Another limit on memory, if a client has set one since this was asked.
    pub fn take_memory(&self) -> Option<MemoryLimit> {
        self.memory_changed.take().then(|| self.memory.get())
    }

    /// What the replica has counted by now.
    pub fn set_counts(&self, counts: Counts) {
        self.counts.set(counts);
    }

    /// A client has connected.
    pub fn enter(&self, id: u64, address: SocketAddr, local_address: SocketAddr) -> Rc<Presence> {
        let now = Instant::now();
        let presence = Rc::new(Presence {
            id,
            address,
            local_address,
            since: now,
            heard: Cell::new(now),
            command: Cell::new(""),
            protocol: Cell::new(Protocol::Text),
            is_blocked: Cell::new(false),
            description: RefCell::default(),
        });
        self.clients.borrow_mut().insert(id, Rc::clone(&presence));
        self.connections.set(self.connections.get() + 1);
        presence
    }

    /// A client is gone.
    pub fn leave(&self, id: u64) {
        if let Some(presence) = self.clients.borrow_mut().remove(&id) {
            self.set_blocked(&presence, false);
        }
    }

    /// A client waits for something that may be long in coming, or does so no longer.
    pub fn set_blocked(&self, presence: &Presence, is_blocked: bool) {
        match (presence.is_blocked.replace(is_blocked), is_blocked) {
            (false, true) => self.blocked_clients.set(self.blocked_clients.get() + 1),
            (true, false) => self.blocked_clients.set(self.blocked_clients.get() - 1),
            _ => {}
        }
    }

    /// A request was taken in.
    pub fn count_request(&self, presence: &Presence, incoming: &Incoming) {
        self.requests.set(self.requests.get() + 1);
        let protocol = presence.protocol();
        let command = match incoming {
            // It has told the name of its command, if that has one.
            _ if protocol == Protocol::Resp && presence.command.get().is_empty() => "unknown",
            _ if protocol == Protocol::Resp => presence.command.get(),
            Incoming::Ask(request) => request.name(),
            _ => "other",
        };
        self.metrics.count_request(protocol, command);
    }

    /// A request was answered; what it was if that was slow.
    pub fn note_answered(&self, presence: &Presence, took: Duration, words: Option<Vec<Bytes>>) {
        let protocol = presence.protocol();
        self.metrics.note_answered(protocol, took);
        self.slow.note("command", took);
        let Some(mut words) = words else { return };
        if words.is_empty() {
            words.push(Bytes::from_static(protocol.name().as_bytes()));
        }
        let name = presence.description.borrow().name.clone();
        self.slow.note_request(took, words, presence.address.to_string(), name);
    }

    /// What was found, and what not; or why nothing was done.
    pub fn count_reply(&self, reply: &Reply) {
        let answers = match reply {
            Reply::Answers(answers) => answers,
            Reply::Error(kind, _) => return self.metrics.count_refused(*kind),
            _ => return,
        };
        for answer in answers {
            match answer {
                Answer::Item(Some(_)) => self.hits.set(self.hits.get() + 1),
                Answer::Item(None) => self.misses.set(self.misses.get() + 1),
                _ => {}
            }
        }
    }
}

/// The board as one client's codec sees it.
pub struct Desk {
    /// Of the node.
    pub board: Rc<Board>,
    /// Of the client.
    pub presence: Rc<Presence>,
}

impl Surroundings for Desk {
    fn facts(&self) -> Facts {
        let board = &self.board;
        let (counts, forgotten) = (board.counts.get(), board.forgotten.get());
        Facts {
            process_id: std::process::id(),
            port: board.port.get(),
            uptime_s: board.begun.elapsed().as_secs(),
            clients: board.clients.borrow().len() as u64,
            blocked_clients: board.blocked_clients.get(),
            clients_limit: board.clients_limit as u64,
            connections: board.connections.get(),
            requests: board.requests.get(),
            hits: board.hits.get(),
            misses: board.misses.get(),
            resident_bytes: os::resident_bytes().unwrap_or(0),
            memory: board.memory.get(),
            evicted: counts.evicted.saturating_sub(forgotten.evicted),
            expired: counts.expired.saturating_sub(forgotten.expired),
            watch: board.slow.watch(),
        }
    }

    fn clients(&self) -> Vec<ClientInfo> {
        self.board.looked_at.set(self.board.looked_at.get() + self.board.clients.borrow().len());
        self.board.clients.borrow().values().map(|presence| presence.info()).collect()
    }

    fn kill(&self, client: u64) {
        // It is in no list from here on.
        self.board.leave(client);
        self.board.killed.borrow_mut().push(client);
    }

    fn pause(&self, pause: Option<Pause>) {
        self.board.pause.set(pause);
    }

    fn slow_requests(&self, limit: usize) -> Vec<SlowRequest> {
        self.board.slow.requests(limit)
    }

    fn count_slow_requests(&self) -> usize {
        self.board.slow.count()
    }

    fn forget_slow_requests(&self) {
        self.board.slow.forget_requests();
    }

    fn spikes(&self) -> Vec<Spikes> {
        self.board.slow.spikes()
    }

    fn forget_spikes(&self, event: &str) -> bool {
        self.board.slow.forget_spikes(event)
    }

    fn watch(&self, watch: Watch) {
        self.board.slow.set_watch(watch);
    }

    fn own(&self) -> Option<ClientInfo> {
        Some(self.presence.info())
    }

    fn describe(&self, description: Description) {
        self.presence.description.replace(description);
    }

    fn note_command(&self, name: &'static str) {
        self.presence.command.set(name);
    }

    fn remembered(&self, name: &str) -> Option<String> {
        self.board.remembered.borrow().get(name).cloned()
    }

    fn remember(&self, name: &'static str, value: String) {
        self.board.remembered.borrow_mut().insert(name, value);
    }

    fn limit_memory(&self, limit: MemoryLimit) {
        self.board.memory.set(limit);
        self.board.memory_changed.set(true);
    }

    fn metrics(&self, status: &Status) -> String {
        self.board.metrics.text(status, &self.facts(), &self.board.counts.get())
    }

    fn reset_counts(&self) {
        let board = &self.board;
        board.forgotten.set(board.counts.get());
        for count in [&board.connections, &board.requests, &board.hits, &board.misses] {
            count.set(0);
        }
    }
}
