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

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use super::address;
use super::config::ClientLimits;
use super::cost::{commands_of, held_bytes, values_of};
use super::hub::Hub;
use crate::protocol::binary::BinaryCodec;
use crate::protocol::{Codec, Incoming, Protocol, ProtocolError, Recognition, recognise};
use crate::replica::{Input, Ticket};
use crate::request::{Reply, Request};

/// How much is read at a time.
const READ_BYTES: usize = 16 << 10;

/// How much of a large request is read at a time.
const LARGE_READ_BYTES: usize = 256 << 10;

/// How much is written to one client before others have their turn.
const WRITE_BYTES: usize = 256 << 10;

/// How large the first value that a client reads is taken to be.
const FIRST_VALUE_BYTES: usize = 256 << 10;

/// How large a value is taken to be at least.
const LEAST_VALUE_BYTES: usize = 4 << 10;

/// How long the first bytes may leave open what is spoken.
const FIRST_LINE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a last word may take to reach the client.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// One client.
pub struct Connection {
    /// Names it among all connections of the process.
    pub id: u64,
    stream: TcpStream,
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

#[derive(Default)]
struct State {
    codec: Option<Box<dyn Codec>>,
    slots: VecDeque<Slot>,
    /// The number of the request in the first slot.
    first: u64,
    input: BytesMut,
    output: BytesMut,
    /// Bytes of values in the slots.
    held_bytes: usize,
    /// What the replies that are still to come are taken to hold.
    expected_bytes: usize,
    /// How large the next value is taken to be: as the largest of late.
    value_bytes: usize,
    /// What the client is told once everything before it is answered.
    farewell: Option<ProtocolError>,
    /// No more is read; it ends when everything is answered and written.
    closing: bool,
    /// It ends now.
    broken: bool,
}

/// What a request is answered with.
enum Answer {
    /// To be encoded.
    Reply(Reply),
    /// Encoded already.
    Written(Bytes),
}

struct Slot {
    answer: Option<Answer>,
    /// How many values the reply may hold.
    values: usize,
    /// What the reply holds, or is expected to.
    bytes: usize,
}

impl State {
    /// Fills the output with what is answered, up to where reading pauses.
    fn encode_answered(&mut self, limits: &ClientLimits) {
        let Some(codec) = &mut self.codec else { return };
        while self.output.len() < limits.output_pause_bytes
            && let Some(slot) = self.slots.pop_front_if(|slot| slot.answer.is_some())
        {
            self.first += 1;
            self.held_bytes -= slot.bytes;
            match slot.answer.expect("it is answered") {
                Answer::Reply(reply) => codec.encode(&reply, &mut self.output),
                Answer::Written(bytes) => self.output.extend_from_slice(&bytes),
            }
        }
        if self.slots.is_empty()
            && let Some(error) = self.farewell.take()
        {
            codec.farewell(&error, &mut self.output);
        }
    }

    /// Whether one more request may be taken in.
    fn has_room(&self, limits: &ClientLimits) -> bool {
        let waits = !self.slots.is_empty() && self.codec.as_ref().is_some_and(|c| c.waits());
        self.slots.len() < limits.pipeline_requests
            && self.untaken_bytes() + self.expected_bytes < limits.output_pause_bytes
            && !waits
    }

    /// What there is of replies that the client has not taken.
    fn untaken_bytes(&self) -> usize {
        self.output.len() + self.held_bytes
    }

    fn answer(&mut self, number: u64, answer: Answer, bytes: usize) {
        let place = usize::try_from(number - self.first).expect("slots are in memory");
        let slot = &mut self.slots[place];
        self.expected_bytes -= std::mem::replace(&mut slot.bytes, bytes);
        self.held_bytes += bytes;
        slot.answer = Some(answer);
        if let Some(each) = bytes.checked_div(slot.values) {
            let faded = self.value_bytes - self.value_bytes / 16;
            self.value_bytes = each.max(faded).max(LEAST_VALUE_BYTES);
        }
    }

    /// Whether there is something to write, encoded or not.
    fn has_unwritten(&self) -> bool {
        let last_word = self.farewell.is_some() && self.slots.is_empty();
        let is_answered = self.slots.front().is_some_and(|slot| slot.answer.is_some());
        !self.output.is_empty() || is_answered || last_word
    }
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(id: u64, stream: TcpStream) -> Self {
        let state = State { value_bytes: FIRST_VALUE_BYTES, ..State::default() };
        let (state, wake) = (RefCell::new(state), Notify::new());
        let (counted_bytes, paused) = (Cell::new(0), Cell::new(false));
        let (deferred, took, whole) = Default::default();
        Self { id, stream, state, wake, counted_bytes, paused, deferred, took, whole }
    }

    /// Serves it until it ends.
    pub async fn serve(self: Rc<Self>, hub: Rc<Hub>) {
        if let Err(error) = self.exchange(&hub).await {
            log::debug!("connection {}: {error}", self.id);
        }
        hub.forget(&self, self.counted_bytes.get());
    }

    async fn exchange(&self, hub: &Hub) -> io::Result<()> {
        let mut partial_since = None;
        let mut untaken_since = None;
        loop {
            let (reads, writes, done) = self.wants(hub);
            if done {
                return Ok(());
            }
            let deadline = self.deadline(hub, &mut partial_since, &mut untaken_since);
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
        if count < room {
            // That was all: to ask the system for more would be a call in vain.
            let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let _ = self.stream.try_io(Interest::READABLE, nothing);
        }
        if count == 0 {
            // The client has said all it will; it may still read its replies.
            state.closing = true;
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
        while state.has_room(&hub.limits) && !state.closing {
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
        let number = state.first + state.slots.len() as u64;
        let (mut commands, mut values) = (1, 0);
        let mut answered = None;
        match incoming {
            Incoming::Answered(reply) => answered = Some(Answer::Reply(reply)),
            Incoming::Written(bytes) => answered = Some(Answer::Written(bytes)),
            Incoming::Ask(mut request) => {
                self.fill_in_host(&mut request);
                (commands, values) = (1 + commands_of(&request), values_of(&request));
                let ticket = Ticket { connection: self.id, number };
                hub.submit(Input::Request { ticket, request });
            }
        }
        hub.spend(commands, before - state.input.len());
        let bytes = values.saturating_mul(state.value_bytes).min(hub.protocol.reply_bytes);
        state.expected_bytes += bytes;
        state.slots.push_back(Slot { answer: None, values, bytes });
        if let Some(answer) = answered {
            self.put(hub, state, number, answer);
        }
        Ok(true)
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
            Recognition::Protocol(Protocol::Binary) => {
                state.codec = Some(Box::new(BinaryCodec::new(hub.protocol)));
                true
            }
            Recognition::Protocol(other) => {
                log::info!("connection {} is closed: {other:?} is not spoken yet", self.id);
                state.closing = true;
                false
            }
            Recognition::Close(reason) => {
                log::info!("connection {} is closed: {reason}", self.id);
                state.output.extend_from_slice(reason.farewell());
                state.closing = true;
                false
            }
        }
    }

    /// Takes in no more requests; ends when those taken in are answered. What was
    /// read and not yet taken in is as if it were still on its way.
    pub fn stop_reading(&self) {
        self.state.borrow_mut().closing = true;
        self.wake.notify_one();
    }

    /// A request is answered. Nothing is written yet.
    pub fn answer(&self, hub: &Hub, number: u64, reply: Reply) {
        self.put(hub, &mut self.state.borrow_mut(), number, Answer::Reply(reply));
    }

    fn put(&self, hub: &Hub, state: &mut State, number: u64, answer: Answer) {
        let bytes = match &answer {
            // A reply that is too large to be told is told as an error.
            Answer::Reply(reply) => held_bytes(reply).min(hub.protocol.reply_bytes),
            Answer::Written(bytes) => bytes.len(),
        };
        state.answer(number, answer, bytes);
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
        let mut took_bytes = 0;
        while state.has_unwritten() && took_bytes < WRITE_BYTES {
            if !hub.may_work() {
                self.defer(hub);
                break;
            }
            let before = state.output.len();
            state.encode_answered(&hub.limits);
            hub.spend(0, state.output.len() - before);
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
        let holds = state.input.len() + state.untaken_bytes();
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
