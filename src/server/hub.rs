//! What the event loop and the connections share.
//!
//! Nobody but the loop hears the other nodes, so what clients have done for them
//! between two turns is bounded: reading, decoding, encoding and writing draw on
//! one allowance, in commands and kilobytes, that every turn renews. Whoever
//! finds it used up waits in line for the next turn, and takes what is left of
//! the work in order. A request is begun or not begun, so the allowance may be
//! overdrawn by one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use hashbrown::HashMap;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::board::Board;
use super::config::ClientLimits;
use super::connection::Connection;
use crate::protocol;
use crate::replica::{Input, Ticket};
use crate::request::{MemoryLimit, Reply};

/// To move so many bytes takes about as long as a command.
const BYTES_PER_COMMAND: usize = 1 << 10;

/// The meeting point of one event loop, single-threaded.
pub struct Hub {
    /// What one client may take.
    pub limits: ClientLimits,
    /// What one request may measure.
    pub protocol: protocol::Limits,
    /// What is known of the clients.
    pub board: Rc<Board>,
    inbox: RefCell<Vec<Input>>,
    turns: Notify,
    arrived: Notify,
    connections: RefCell<HashMap<u64, Rc<Connection>, foldhash::fast::FixedState>>,
    next_id: Cell<u64>,
    buffered_bytes: Cell<usize>,
    /// What may still be done for clients before the next turn.
    allowance: Cell<usize>,
    /// The connections that wait for the next turn, in order.
    deferred: RefCell<VecDeque<u64>>,
}

impl Hub {
    /// With nobody connected.
    pub fn new(limits: ClientLimits, protocol: protocol::Limits, memory: MemoryLimit) -> Self {
        Self {
            board: Rc::new(Board::new(limits.connections, memory)),
            allowance: Cell::new(limits.turn_work),
            deferred: RefCell::default(),
            limits,
            protocol,
            inbox: RefCell::default(),
            turns: Notify::new(),
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

    /// Whether there is something for a turn already.
    pub fn has_work(&self) -> bool {
        !self.inbox.borrow().is_empty() || !self.deferred.borrow().is_empty()
    }

    /// Until something has been submitted since the last turn.
    pub async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// Until the next turn has taken what was submitted.
    pub async fn turn(&self) {
        self.turns.notified().await;
    }

    /// Takes all that was submitted.
    pub fn take_inbox(&self) -> Vec<Input> {
        self.turns.notify_waiters();
        std::mem::take(&mut *self.inbox.borrow_mut())
    }

    /// Whether anything more may be done for clients before the next turn.
    pub fn may_work(&self) -> bool {
        self.allowance.get() > 0
    }

    /// So many commands were taken in, and so many bytes moved.
    pub fn spend(&self, commands: usize, bytes: usize) {
        let work = commands + bytes / BYTES_PER_COMMAND;
        self.allowance.set(self.allowance.get().saturating_sub(work));
    }

    /// This connection has more to do than may be done now; the next turn lets it.
    pub fn defer(&self, connection: u64) {
        self.deferred.borrow_mut().push_back(connection);
        self.arrived.notify_one();
    }

    /// Renews the allowance, and lets those go on that waited for it.
    pub fn begin_turn(&self) {
        self.allowance.set(self.limits.turn_work);
        let connections = self.connections.borrow();
        let killed = self.board.take_killed();
        killed.iter().filter_map(|id| connections.get(id)).for_each(|connection| connection.kill());
        let mut waiting = self.deferred.take();
        while self.may_work()
            && let Some(id) = waiting.pop_front()
        {
            if let Some(connection) = connections.get(&id) {
                connection.resume(self);
            }
        }
        // Who has been in line for longer comes first.
        waiting.append(&mut self.deferred.borrow_mut());
        if !waiting.is_empty() {
            self.arrived.notify_one();
        }
        self.deferred.replace(waiting);
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
        let addresses = stream.peer_addr().and_then(|peer| Ok((peer, stream.local_addr()?)));
        let Ok((address, local_address)) = addresses else { return };
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        let presence = self.board.enter(id, address, local_address);
        let connection = Rc::new(Connection::new(id, stream, presence));
        self.connections.borrow_mut().insert(id, Rc::clone(&connection));
        tokio::task::spawn_local(connection.serve(Rc::clone(self)));
    }

    /// A connection has ended; what it was counted for is free.
    pub fn forget(&self, connection: &Connection, counted_bytes: usize) {
        self.connections.borrow_mut().remove(&connection.id);
        self.board.leave(connection.id);
        self.buffered_bytes.set(self.buffered_bytes.get() - counted_bytes);
        self.submit(Input::Gone { connection: connection.id });
    }

    /// Hands replies to their connections and writes them.
    pub fn answer(&self, replies: Vec<(Ticket, Reply)>) {
        let connections = self.connections.borrow();
        let mut touched: Vec<&Rc<Connection>> = Vec::new();
        for (ticket, reply) in replies {
            self.board.count_reply(&reply);
            // Nobody waits any more if the connection is gone.
            let Some(connection) = connections.get(&ticket.connection) else { continue };
            connection.answer(self, ticket.number, reply);
            if touched.last().is_none_or(|last| last.id != connection.id) {
                touched.push(connection);
            }
        }
        for connection in touched {
            connection.settle(self);
        }
        // What was run when EXEC was told may have been one.
        if self.board.has_orders() {
            self.wake();
        }
    }

    /// Takes in no more requests on any connection.
    pub fn stop_reading(&self) {
        self.board.pause.end();
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::{LocalSet, yield_now};
    use tokio::time::timeout;

    use super::*;
    use crate::request::{Answer, Item};

    fn hub(limits: ClientLimits) -> Rc<Hub> {
        Rc::new(Hub::new(limits, protocol::Limits::default(), MemoryLimit::default()))
    }

    async fn client(hub: &Rc<Hub>, listener: &TcpListener) -> TcpStream {
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        hub.accept(listener.accept().await.unwrap().0);
        client
    }

    /// The tickets of the requests that a turn takes.
    fn turn(hub: &Hub) -> Vec<Ticket> {
        hub.begin_turn();
        let ticket = |input| match input {
            Input::Request { ticket, .. } => ticket,
            other => panic!("{other:?}"),
        };
        hub.take_inbox().into_iter().map(ticket).collect()
    }

    fn local(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(LocalSet::new().run_until(async {
            timeout(Duration::from_secs(60), test).await.expect("it ends");
        }));
    }

    async fn until(holds: impl Fn() -> bool) {
        while !holds() {
            yield_now().await;
        }
    }

    /// A GET of a key of one letter: a request and a command.
    const GET: &[u8] = b"\x02\x01\0\0\0k";

    /// A SET: as much work, and nobody fears its reply.
    const SET: &[u8] = b"\x01\x01\0\0\0k\x01\0\0\0v\0\0\0\0";

    /// [64 batches of 10,000 keys from several clients are one turn of a second,
    /// in which no heartbeat is answered.]
    #[test]
    fn what_is_too_much_for_one_turn_waits_in_order() {
        local(async {
            let hub = hub(ClientLimits { turn_work: 10, ..ClientLimits::default() });
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut first = client(&hub, &listener).await;
            first.write_all(&SET.repeat(100)).await.unwrap();
            until(|| hub.deferred.borrow().len() == 1).await;
            // This one finds nothing left, and asks for less.
            let mut second = client(&hub, &listener).await;
            second.write_all(SET).await.unwrap();
            until(|| hub.deferred.borrow().len() == 2).await;

            let mut turns = vec![hub.take_inbox().len()];
            let mut taken = Vec::new();
            while taken.len() < 96 {
                hub.arrival().await;
                let tickets = turn(&hub);
                turns.push(tickets.len());
                taken.extend(tickets);
            }
            assert!(turns.iter().all(|&count| count <= 6), "{turns:?}");
            let of = |id| taken.iter().filter(move |ticket| ticket.connection == id);
            assert!(of(1).map(|ticket| ticket.number).is_sorted(), "{taken:?}");
            let place = taken.iter().position(|ticket| ticket.connection == 2);
            assert!(place.unwrap() <= 6, "it does not wait for all of the first: {taken:?}");
        });
    }

    /// Answers what a turn takes, every request with this value.
    fn answer(hub: &Hub, value: &Bytes) -> usize {
        let item = Item { value: value.clone(), version: 1 };
        let reply = |ticket| (ticket, Reply::Answers(vec![Answer::Item(Some(item.clone()))]));
        let replies: Vec<_> = turn(hub).into_iter().map(reply).collect();
        let count = replies.len();
        hub.answer(replies);
        count
    }

    /// [One client asks for a large value a thousand times and does not read: it
    /// keeps from being freed what all clients together may hold.]
    #[test]
    fn a_pipeline_is_executed_no_faster_than_it_is_read() {
        local(async {
            let hub = hub(ClientLimits::default());
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = client(&hub, &listener).await;
            client.write_all(&GET.repeat(500)).await.unwrap();
            let value = Bytes::from(vec![7; 1 << 20]);
            hub.arrival().await;
            let (mut answered, mut read) = (0, vec![0; 5 + value.len()]);
            for number in 0..500 {
                let mut reading = std::pin::pin!(client.read_exact(&mut read));
                while timeout(Duration::ZERO, &mut reading).await.is_err() {
                    answered += answer(&hub, &value);
                    yield_now().await;
                }
                // The system takes some megabytes, too.
                assert!(answered - number < 60, "{answered} are executed, {number} read");
            }
            assert_eq!(answered, 500);
        });
    }

    /// How large replies are is not known before; what comes to more than a
    /// client may hold ends its connection, and only that one.
    #[test]
    fn who_holds_too_much_is_closed() {
        local(async {
            let limits = ClientLimits { output_limit_bytes: 4 << 20, ..ClientLimits::default() };
            let (hub, listener) = (hub(limits), TcpListener::bind("127.0.0.1:0").await.unwrap());
            let value = Bytes::from(vec![7; 3 << 20]);
            let mut modest = client(&hub, &listener).await;
            modest.write_all(GET).await.unwrap();
            hub.arrival().await;
            assert_eq!(answer(&hub, &value), 1);
            modest.read_exact(&mut vec![0; 5 + value.len()]).await.unwrap();

            let mut greedy = client(&hub, &listener).await;
            greedy.write_all(&GET.repeat(10)).await.unwrap();
            while answer(&hub, &value) == 0 {
                hub.arrival().await;
            }
            until(|| hub.connections() == 1).await;
            modest.write_all(GET).await.unwrap();
            until(|| hub.inbox.borrow().iter().any(|input| matches!(input, Input::Request { .. })))
                .await;
        });
    }
}
