//! What the event loop and the connections share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use hashbrown::HashMap;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::config::ClientLimits;
use super::connection::Connection;
use crate::protocol;
use crate::replica::{Input, Ticket};
use crate::request::Reply;

/// The meeting point of one event loop, single-threaded.
pub struct Hub {
    /// What one client may take.
    pub limits: ClientLimits,
    /// What one request may measure.
    pub protocol: protocol::Limits,
    inbox: RefCell<Vec<Input>>,
    arrived: Notify,
    connections: RefCell<HashMap<u64, Rc<Connection>, foldhash::fast::FixedState>>,
    next_id: Cell<u64>,
    buffered_bytes: Cell<usize>,
}

impl Hub {
    /// With nobody connected.
    pub fn new(limits: ClientLimits, protocol: protocol::Limits) -> Self {
        Self {
            limits,
            protocol,
            inbox: RefCell::default(),
            arrived: Notify::new(),
            connections: RefCell::default(),
            next_id: Cell::new(1),
            buffered_bytes: Cell::new(0),
        }
    }

    /// Something for the replica. It is seen to when every task that is ready
    /// has run, so that all that has arrived shares one turn.
    pub fn submit(&self, input: Input) {
        self.enqueue(input);
        self.wake();
    }

    /// A turn is to be taken.
    pub fn wake(&self) {
        self.arrived.notify_one();
    }

    /// Something for the turn that is about to be taken anyway.
    pub fn enqueue(&self, input: Input) {
        self.inbox.borrow_mut().push(input);
    }

    /// Until something has been submitted since the last turn.
    pub async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// Takes all that was submitted.
    pub fn take_inbox(&self) -> Vec<Input> {
        std::mem::take(&mut *self.inbox.borrow_mut())
    }

    /// Serves a new connection, unless there are too many.
    pub fn accept(self: &Rc<Self>, stream: TcpStream) {
        if self.connections.borrow().len() >= self.limits.connections {
            log::warn!("{} connections are open: one more is closed", self.limits.connections);
            return;
        }
        // Replies are written whole; waiting for more to fill a packet only delays.
        if let Err(error) = stream.set_nodelay(true) {
            log::debug!("a connection was gone at once: {error}");
            return;
        }
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        let connection = Rc::new(Connection::new(id, stream));
        self.connections.borrow_mut().insert(id, Rc::clone(&connection));
        tokio::task::spawn_local(connection.serve(Rc::clone(self)));
    }

    /// A connection has ended; what it was counted for is free.
    pub fn forget(&self, connection: &Connection, counted_bytes: usize) {
        self.connections.borrow_mut().remove(&connection.id);
        self.buffered_bytes.set(self.buffered_bytes.get() - counted_bytes);
        self.submit(Input::Gone { connection: connection.id });
    }

    /// Hands replies to their connections and writes them.
    pub fn answer(&self, replies: Vec<(Ticket, Reply)>) {
        let connections = self.connections.borrow();
        let mut touched: Vec<&Rc<Connection>> = Vec::new();
        for (ticket, reply) in replies {
            // Nobody waits any more if the connection is gone.
            let Some(connection) = connections.get(&ticket.connection) else { continue };
            connection.answer(ticket.number, reply);
            if touched.last().is_none_or(|last| last.id != connection.id) {
                touched.push(connection);
            }
        }
        for connection in touched {
            connection.settle(self);
        }
    }

    /// Takes in no more requests on any connection.
    pub fn stop_reading(&self) {
        self.connections.borrow().values().for_each(|connection| connection.stop_reading());
    }

    /// How many are connected.
    pub fn connections(&self) -> usize {
        self.connections.borrow().len()
    }

    /// A connection holds `now` bytes instead of `before`. False if all of them
    /// together hold more than they may.
    pub fn count(&self, before: usize, now: usize) -> bool {
        let total = self.buffered_bytes.get() + now - before;
        self.buffered_bytes.set(total);
        total <= self.limits.buffers_total_bytes
    }
}
