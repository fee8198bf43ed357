//! One client connection, whatever it speaks.
//!
//! A connection is a task that reads, and an output that the event loop writes.
//! The task decodes all that has arrived and hands it to the loop at once; the
//! loop's turn encodes the replies and writes them to the socket itself, so an
//! answer costs no further wake-up. Only when the socket is full does the task
//! take over writing.
//!
//! Replies go out in the order of the requests: each request has a slot, and
//! what is encoded is always the run of answered slots at the front, as far as
//! the client takes it. A reply that waits in its slot shares its value with the
//! data set; once encoded it is a copy.
//!
//! Everything here is bounded: unanswered requests and untaken replies pause
//! reading, more close the connection, and what all connections hold together
//! is counted in the [`Hub`]. How large a reply is shows when it is there, so of
//! a pipeline as many reads are taken in at a time as would be too much if their
//! values were as large as those before: [one that asks for 16 MiB a thousand
//! times is executed as fast as it reads].

mod holding;
mod parting;
mod state;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant as StdInstant};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use super::address;
use super::board::{Desk, Presence};
use super::cost::{commands_of, values_of};
use super::hub::Hub;
use super::os::random_u128;
use crate::protocol::binary::BinaryCodec;
use crate::protocol::http::HttpCodec;
use crate::protocol::resp::RespCodec;
use crate::protocol::text::TextCodec;
use crate::protocol::{Codec, Incoming, Protocol, ProtocolError, Recognition, recognise};
use crate::replica::{Input, Ticket};
use crate::request::{Reply, Request};
use holding::{Held, Stalled};
use state::{Answer, State};

/// How much is read at a time.
const READ_BYTES: usize = 16 << 10;

/// How much of a large request is read at a time.
const LARGE_READ_BYTES: usize = 256 << 10;

/// How much is written to one client before others have their turn.
const WRITE_BYTES: usize = 256 << 10;

/// To look at so many other clients takes about as long as a command.
const CLIENTS_PER_COMMAND: usize = 8;

/// How long the first bytes may leave open what is spoken.
const FIRST_LINE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a last word may take to reach the client, and how long somebody who
/// has been told it may say nothing and not close either.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// One client.
pub struct Connection {
    /// Names it among all connections of the process.
    pub id: u64,
    stream: TcpStream,
    presence: Rc<Presence>,
    state: RefCell<State>,
    /// The task has something to see to.
    wake: Notify,
    /// What it is counted for in the hub's total.
    counted_bytes: Cell<usize>,
    /// It is not being read, for want of room.
    paused: Cell<bool>,
    /// It waits for the next turn of the event loop.
    deferred: Cell<bool>,
    /// Since the task last looked, the client took something of its replies,
    took: Cell<bool>,
    /// and a request became whole.
    whole: Cell<bool>,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(id: u64, stream: TcpStream, presence: Rc<Presence>) -> Self {
        let (state, wake) = (RefCell::new(State::new()), Notify::new());
        let (counted_bytes, paused) = (Cell::new(0), Cell::new(false));
        let (deferred, took, whole) = Default::default();
        Self { id, stream, presence, state, wake, counted_bytes, paused, deferred, took, whole }
    }

    /// Serves it until it ends.
    pub async fn serve(self: Rc<Self>, hub: Rc<Hub>) {
        let ended = match self.exchange(&hub).await {
            Ok(()) => self.part(&hub).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            log::debug!("connection {}: {error}", self.id);
        }
        hub.forget(&self, self.counted_bytes.get());
    }

    async fn exchange(&self, hub: &Hub) -> io::Result<()> {
        let mut partial_since = None;
        let mut untaken_since = None;
        let mut stalled = Stalled::default();
        loop {
            let (reads, writes, done) = self.wants(hub);
            if done {
                return Ok(());
            }
            let deadline = self.deadline(hub, &mut partial_since, &mut untaken_since);
            let look_out = self.look_out(&mut stalled)?;
            let interest = match (reads, writes) {
                (true, true) => Interest::READABLE | Interest::WRITABLE,
                (true, false) => Interest::READABLE,
                (false, true) => Interest::WRITABLE,
                (false, false) => Interest::ERROR,
            };
            let event = async {
                tokio::select! {
                    ready = self.stream.ready(interest) => ready.map(Some),
                    () = self.wake.notified() => Ok(None),
                    may_go_on = self.released(hub, look_out) => {
                        if may_go_on {
                            self.release(hub);
                        }
                        Ok(None)
                    }
                }
            };
            let ready = match deadline {
                None => event.await?,
                Some(at) => timeout_at(at, event).await.map_err(|_| io::ErrorKind::TimedOut)??,
            };
            let Some(ready) = ready else { continue };
            if ready.is_error() && !reads && !writes {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if writes && ready.is_writable() {
                self.flush(hub)?;
            }
            if reads && ready.is_readable() {
                self.take_in(hub)?;
            }
            // However fast it sends or takes, others have their turn.
            yield_now().await;
        }
    }

    /// Whether to read, whether to write, whether it is over.
    fn wants(&self, hub: &Hub) -> (bool, bool, bool) {
        let state = self.state.borrow();
        let limits = &hub.limits;
        let unwritten = state.has_unwritten();
        let has_room = state.has_room(limits);
        let done = state.broken || (state.closing && state.slots.is_empty() && !unwritten);
        let waits = self.deferred.get();
        self.paused.set(!has_room || waits);
        (has_room && !waits && !state.closing, unwritten && !waits, done)
    }

    /// When patience ends: with a request that does not become whole, or with
    /// replies that nobody takes.
    fn deadline(
        &self,
        hub: &Hub,
        partial_since: &mut Option<Instant>,
        untaken_since: &mut Option<Instant>,
    ) -> Option<Instant> {
        let state = self.state.borrow();
        if self.took.take() {
            *untaken_since = None;
        }
        if self.whole.take() {
            *partial_since = None;
        }
        let since = |begun: &mut Option<Instant>, holds: bool| {
            *begun = holds.then(|| begun.unwrap_or_else(Instant::now));
            *begun
        };
        let patience = match state.codec {
            Some(_) => hub.limits.partial_request_timeout,
            None => FIRST_LINE_TIMEOUT,
        };
        let untaken_patience =
            if state.closing { FAREWELL_TIMEOUT } else { hub.limits.slow_reader_timeout };
        let is_ours = state.closing || self.paused.get();
        let partial = since(partial_since, !state.input.is_empty() && !is_ours);
        // Nor is it the client that is slow while its replies are not written.
        let untaken = since(untaken_since, state.has_unwritten() && !self.deferred.get());
        let partial = partial.map(|since| since + patience);
        let untaken = untaken.map(|since| since + untaken_patience);
        partial.into_iter().chain(untaken).min()
    }

    /// Reads what has arrived and hands it on.
    fn take_in(&self, hub: &Hub) -> io::Result<()> {
        // Much may have happened since the task looked; and behind requests that
        // wait in the input there is no end to be read.
        if !self.wants(hub).0 {
            return Ok(());
        }
        if !hub.may_work() {
            self.defer(hub);
            return Ok(());
        }
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        state.input.reserve(READ_BYTES);
        let room = (state.input.capacity() - state.input.len()).min(LARGE_READ_BYTES);
        let count = match self.stream.try_read_buf(&mut (&mut state.input).limit(room)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            other => other?,
        };
        hub.spend(0, count);
        self.presence.hear();
        if count < room {
            // That was all: to ask the system for more would be a call in vain.
            let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let _ = self.stream.try_io(Interest::READABLE, nothing);
        }
        if count == 0 {
            // The client has said all it will; it may still read its replies.
            state.end_abruptly();
            return Ok(());
        }
        self.decode(hub, state);
        self.count(hub, state);
        Ok(())
    }

    fn decode(&self, hub: &Hub, state: &mut State) {
        if state.codec.is_none() && !self.recognise(hub, state) {
            return;
        }
        let was_large = state.input.len() > READ_BYTES;
        while state.has_room(&hub.limits) && !state.closing && !state.broken {
            if !hub.may_work() {
                self.defer(hub);
                break;
            }
            match self.decode_one(hub, state) {
                Ok(true) => self.whole.set(true),
                Ok(false) => break,
                Err(error) => {
                    log::info!("connection {} is closed: {error}", self.id);
                    state.farewell = Some(error);
                    state.closing = true;
                    break;
                }
            }
        }
        if hub.board.has_orders() {
            hub.wake();
        }
        if was_large && state.input.is_empty() {
            // An idle connection does not keep the memory of a large request.
            state.input = BytesMut::new();
        }
    }

    /// Takes in one request. False if none is whole.
    fn decode_one(&self, hub: &Hub, state: &mut State) -> Result<bool, ProtocolError> {
        let Some(codec) = &mut state.codec else { return Ok(false) };
        let before = state.input.len();
        let Some(incoming) = codec.decode(&mut state.input)? else { return Ok(false) };
        state.closing |= codec.ends();
        hub.spend(1, before - state.input.len());
        hub.board.count_request(&self.presence, &incoming);
        hub.spend(hub.board.take_looked_at() / CLIENTS_PER_COMMAND, 0);
        let answer = match incoming {
            Incoming::Answered(reply) => Answer::Reply(reply),
            Incoming::Written(bytes) => {
                // A list of ten thousand clients is as much work as as many commands.
                hub.spend(0, bytes.len());
                Answer::Written(bytes)
            }
            Incoming::Unheard => return Ok(true),
            Incoming::Late(after, bytes) => {
                let number = state.add_slot(None, 0, 0);
                state.held = Some((number, Held::Reply(bytes, Instant::now() + after)));
                hub.board.set_blocked(&self.presence, true);
                self.wake.notify_one();
                return Ok(true);
            }
            Incoming::Ask(mut request) => {
                self.fill_in_host(&mut request);
                self.ask(hub, state, request);
                return Ok(true);
            }
        };
        let number = state.add_slot(None, 0, 0);
        self.put(hub, state, number, answer);
        Ok(true)
    }

    /// Hands a request on; its reply has the last place.
    fn ask(&self, hub: &Hub, state: &mut State, request: Request) {
        let values = values_of(&request);
        hub.spend(commands_of(&request), 0);
        let bytes = values.saturating_mul(state.value_bytes).min(hub.protocol.reply_bytes);
        state.expected_bytes += bytes;
        let waits = matches!(request, Request::AwaitDurable { .. });
        let is_held = hub.board.pause.holds(&request);
        // To wait because one was told to is not to be slow.
        let asked = (!waits && !is_held).then(|| self.presence.heard());
        let number = state.add_slot(asked, values, bytes);
        hub.board.set_blocked(&self.presence, waits || is_held);
        if is_held {
            state.held = Some((number, Held::Request(request)));
            self.wake.notify_one();
            return;
        }
        let ticket = Ticket { connection: self.id, number };
        hub.submit(Input::Request { ticket, request });
    }

    /// A newcomer may not know how others reach it; they see where it comes from.
    fn fill_in_host(&self, request: &mut Request) {
        if let Request::Join { peer_address, .. } = request
            && let Ok(source) = self.stream.peer_addr()
        {
            *peer_address = address::with_host(peer_address, source.ip());
        }
    }

    fn recognise(&self, hub: &Hub, state: &mut State) -> bool {
        match recognise(&state.input) {
            Recognition::NeedMore => false,
            Recognition::Protocol(protocol) => {
                self.presence.set_protocol(protocol);
                state.codec = Some(self.codec(hub, protocol));
                true
            }
            Recognition::Close(reason) => {
                log::info!("connection {} is closed: {reason}", self.id);
                state.output.extend_from_slice(reason.farewell());
                state.closing = true;
                false
            }
        }
    }

    fn codec(&self, hub: &Hub, protocol: Protocol) -> Box<dyn Codec> {
        let desk = || {
            let (board, presence) = (Rc::clone(&hub.board), Rc::clone(&self.presence));
            Box::new(Desk { board, presence })
        };
        match protocol {
            Protocol::Binary => Box::new(BinaryCodec::new(hub.protocol)),
            Protocol::Resp => {
                let seed = random_u128() as u64;
                Box::new(RespCodec::new(hub.protocol, self.id, seed, desk()))
            }
            Protocol::Http => Box::new(HttpCodec::new(hub.protocol, desk())),
            Protocol::Text => Box::new(TextCodec::new(hub.protocol)),
        }
    }

    /// Takes in no more requests; ends when those taken in are answered. What was
    /// read and not yet taken in is as if it were still on its way. Nor does it
    /// wait for what comes after the last reply: the node has to go.
    pub fn stop_reading(&self) {
        self.state.borrow_mut().end_abruptly();
        self.wake.notify_one();
    }

    /// Ends it, now.
    pub fn kill(&self) {
        self.state.borrow_mut().broken = true;
        self.wake.notify_one();
    }

    /// A request is answered. Nothing is written yet.
    pub fn answer(&self, hub: &Hub, number: u64, reply: Reply) {
        self.put(hub, &mut self.state.borrow_mut(), number, Answer::Reply(reply));
    }

    fn put(&self, hub: &Hub, state: &mut State, number: u64, answer: Answer) {
        let bytes = match &answer {
            // A reply that is too large to be told is told as an error.
            Answer::Reply(reply) => reply.size_bytes().min(hub.protocol.reply_bytes),
            Answer::Written(bytes) => bytes.len(),
        };
        state.answer(number, answer, bytes);
        if number == state.last() {
            hub.board.set_blocked(&self.presence, false);
        }
    }

    /// After a turn: writes what it has to, and lets the task see to the rest.
    pub fn settle(&self, hub: &Hub) {
        let flushed = self.flush(hub);
        let mut state = self.state.borrow_mut();
        state.broken |= flushed.is_err();
        if state.broken || state.closing || state.has_unwritten() || self.paused.get() {
            self.wake.notify_one();
        }
    }

    /// Goes on with what had to wait for this turn.
    pub fn resume(&self, hub: &Hub) {
        self.deferred.set(false);
        self.settle(hub);
        let taken = self.take_in(hub);
        self.state.borrow_mut().broken |= taken.is_err();
        self.wake.notify_one();
    }

    fn defer(&self, hub: &Hub) {
        if !self.deferred.replace(true) {
            hub.defer(self.id);
            self.wake.notify_one();
        }
    }

    /// Writes what the socket takes, then takes in what waited for that.
    fn flush(&self, hub: &Hub) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        self.write(hub, &mut state)?;
        if state.output.is_empty() && state.output.capacity() > READ_BYTES {
            state.output = BytesMut::new();
        }
        // A request that was whole may have waited for a place in the pipeline.
        if !state.input.is_empty() && !state.closing {
            self.decode(hub, &mut state);
        }
        self.count(hub, &mut state);
        Ok(())
    }

    fn write(&self, hub: &Hub, state: &mut State) -> io::Result<()> {
        let (mut took_bytes, now) = (0, StdInstant::now());
        while state.has_unwritten() && took_bytes < WRITE_BYTES {
            if !hub.may_work() {
                self.defer(hub);
                break;
            }
            let before = state.output.len();
            let is_slow = |took| hub.board.slow.is_slow(took);
            state.encode_answered(&hub.limits, now, is_slow, |took, words| {
                hub.board.note_answered(&self.presence, took, words);
            });
            hub.spend(0, state.output.len() - before);
            match state.more.take() {
                // The node has to go, and this may be asked for ever.
                Some(Request::AwaitDurable { .. }) if state.closing => {}
                Some(request) => self.ask(hub, state, request),
                None => {}
            }
            let some = state.output.len().min(WRITE_BYTES);
            match self.stream.try_write(&state.output[..some]) {
                Ok(count) => {
                    hub.spend(0, count);
                    state.output.advance(count);
                    took_bytes += count;
                    self.took.set(true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Counts what this connection holds; ends it if that is too much, or if all
    /// hold too much.
    fn count(&self, hub: &Hub, state: &mut State) {
        let kept = state.codec.as_ref().map_or(0, |codec| codec.held_bytes());
        let held = state.held.as_ref().map_or(0, |(_, held)| held.size_bytes());
        let holds = state.input.len() + state.untaken_bytes() + kept + held;
        let before = self.counted_bytes.replace(holds);
        let why = if !hub.count(before, holds) && holds > before && holds > READ_BYTES {
            "all buffers together are full"
        } else if state.untaken_bytes() > hub.limits.output_limit_bytes {
            "it asks for more than it reads"
        } else {
            return;
        };
        log::warn!("connection {} is closed: {why}", self.id);
        state.broken = true;
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests;
