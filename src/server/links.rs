//! One connection to another node, for what goes out.
//!
//! A link is dialled when there is something to say, and kept. What is said
//! gathers in one buffer during a turn of the event loop, which writes it to the
//! socket itself at the end of the turn; only what the socket does not take is
//! left to the link's task, which also dials, and notices when it is dead.
//!
//! The promise: every frame is either written, in order, or followed by one
//! [`Input::LinkLost`]. A full queue says so when it drops the first frame, and
//! if it dropped more, again once it is empty; so a slow peer makes no storm.
//! A broken connection drops what is queued: it is old by the time somebody
//! hears it, and consensus knows better what to say next.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::hub::Hub;
use super::peers::Peers;
use crate::protocol::peer::{Ends, LinkClass, encode_frame};
use crate::raft::NodeId;
use crate::replica::{Answered, Input, PeerMessage};
use crate::request::{ErrorKind, Reply, TOO_LARGE_TO_SEND};

/// A buffer that has grown larger is given back when it is empty.
const KEPT_BUFFER_BYTES: usize = 256 << 10;

/// What a link may hold.
#[derive(Debug, Clone, Copy)]
pub struct LinkLimits {
    /// What waits to be written; one frame is taken in any case.
    pub queue_bytes: usize,
    /// One frame.
    pub frame_bytes: usize,
    /// How long the socket may take nothing.
    pub stall: Duration,
}

/// One class of frames to one node.
pub struct Link {
    /// To whom.
    pub to: NodeId,
    /// What for.
    pub class: LinkClass,
    limits: LinkLimits,
    hub: Rc<Hub>,
    ends: Ends,
    state: RefCell<State>,
    /// The task has something to see to.
    wake: Notify,
    /// Nothing waits to be written, or nothing that can be.
    idle: Notify,
}

struct State {
    stream: Option<Rc<TcpStream>>,
    /// Where the last dial went.
    address: String,
    output: Vec<u8>,
    /// How much of `output` is written.
    written: usize,
    /// Since when the socket has taken nothing of what waits.
    stuck_since: Instant,
    dropping: Dropping,
    /// No more is taken in; it ends when what waits is written.
    closing: bool,
    /// Why the connection ends now.
    broken: Option<String>,
}

/// Whether the queue is full.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dropping {
    No,
    /// Some frame was dropped, and that was said.
    Said,
    /// Others were dropped since.
    More,
}

impl State {
    fn queued_bytes(&self) -> usize {
        self.output.len() - self.written
    }
}

impl Link {
    /// Not dialled yet.
    pub fn new(to: NodeId, class: LinkClass, ends: Ends, limits: LinkLimits, hub: Rc<Hub>) -> Self {
        let state = RefCell::new(State {
            stream: None,
            address: String::new(),
            output: Vec::new(),
            written: 0,
            stuck_since: Instant::now(),
            dropping: Dropping::No,
            closing: false,
            broken: None,
        });
        let (wake, idle) = (Notify::new(), Notify::new());
        Self { to, class, limits, hub, ends, state, wake, idle }
    }

    /// Queues a frame; it is written by [`Link::settle`].
    pub fn send(&self, message: &PeerMessage) {
        let mut state = self.state.borrow_mut();
        if state.closing {
            return;
        }
        let queued = state.queued_bytes();
        if queued == 0 {
            state.stuck_since = Instant::now();
        }
        let start = state.output.len();
        let mut size = encode_frame(&self.ends, message, &mut state.output);
        if size > self.limits.frame_bytes
            && let Some(shorter) = without_reply(message)
        {
            state.output.truncate(start);
            size = encode_frame(&self.ends, &shorter, &mut state.output);
        }
        let full = queued > 0 && queued + size > self.limits.queue_bytes;
        if full || size > self.limits.frame_bytes {
            state.output.truncate(start);
            self.dropped(&mut state);
        }
    }

    fn dropped(&self, state: &mut State) {
        if state.dropping == Dropping::No {
            state.dropping = Dropping::Said;
            self.hub.submit(Input::LinkLost(self.to));
        } else {
            state.dropping = Dropping::More;
        }
    }

    /// After a turn: writes what there is, and leaves the rest to the task.
    pub fn settle(&self) {
        let mut state = self.state.borrow_mut();
        self.flush(&mut state);
        if state.queued_bytes() > 0 || state.broken.is_some() {
            self.wake.notify_one();
        }
    }

    fn flush(&self, state: &mut State) {
        let Some(stream) = state.stream.clone() else { return };
        while state.queued_bytes() > 0 {
            match stream.try_write(&state.output[state.written..]) {
                Ok(count) => {
                    state.written += count;
                    state.stuck_since = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    state.broken = Some(error.to_string());
                    return;
                }
            }
        }
        if state.queued_bytes() == 0 {
            state.output.clear();
            state.output.shrink_to(KEPT_BUFFER_BYTES);
            state.written = 0;
            self.drained(state);
        } else if state.written >= state.output.len() / 2 {
            state.output.drain(..state.written);
            state.written = 0;
        }
    }

    fn drained(&self, state: &mut State) {
        self.idle.notify_one();
        if state.dropping == Dropping::More {
            self.hub.submit(Input::LinkLost(self.to));
        }
        state.dropping = Dropping::No;
    }

    /// The node may be elsewhere now.
    pub fn readdress(&self, address: &str) {
        let mut state = self.state.borrow_mut();
        if state.stream.is_some() && state.address != address {
            state.broken = Some(format!("it is at {address} now"));
            self.wake.notify_one();
        }
    }

    /// Takes in no more, writes what waits if that can be done, and ends.
    pub fn close(&self) {
        self.state.borrow_mut().closing = true;
        self.wake.notify_one();
    }

    /// Until what waits is written, or the connection is lost. What waits for a
    /// connection is not waited for.
    pub async fn written(&self) {
        loop {
            {
                let state = self.state.borrow();
                if state.stream.is_none() || state.queued_bytes() == 0 {
                    return;
                }
            }
            self.idle.notified().await;
        }
    }

    /// Dials and keeps the connection until the link is closed.
    pub async fn run(self: Rc<Self>, peers: Rc<Peers>) {
        let (least, most) = (peers.limits.backoff_min, peers.limits.backoff_max);
        let mut backoff = least;
        while self.traffic().await {
            let dialled_at = Instant::now();
            let why = match peers.dial(&self).await {
                Ok((stream, address)) => self.keep(stream, address).await,
                Err(why) => why,
            };
            if self.lose() {
                return;
            }
            peers.complain(format!("node {}", self.to), log::Level::Info, &why);
            // One that lasted was no failure to connect.
            if dialled_at.elapsed() > most + peers.limits.dial_timeout {
                backoff = least;
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(most);
        }
    }

    /// Until there is something to say; false if there never will be.
    async fn traffic(&self) -> bool {
        loop {
            {
                let state = self.state.borrow();
                if state.closing || state.queued_bytes() > 0 {
                    return !state.closing;
                }
            }
            self.wake.notified().await;
        }
    }

    /// Uses the connection until it breaks; why it did.
    async fn keep(&self, stream: TcpStream, address: String) -> String {
        let stream = Rc::new(stream);
        {
            let mut state = self.state.borrow_mut();
            // The operator has read that it could not be reached.
            let level = match self.class {
                LinkClass::Urgent => log::Level::Info,
                _ => log::Level::Debug,
            };
            log::log!(level, "node {}: connected to {address}", self.to);
            state.stream = Some(Rc::clone(&stream));
            (state.address, state.stuck_since) = (address, Instant::now());
            self.flush(&mut state);
        }
        loop {
            let (waits, stuck_since) = {
                let mut state = self.state.borrow_mut();
                if let Some(why) = state.broken.take() {
                    return why;
                }
                if state.closing && state.queued_bytes() == 0 {
                    return "closed".to_owned();
                }
                (state.queued_bytes() > 0, state.stuck_since)
            };
            let interest =
                if waits { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            let stall = stuck_since + self.limits.stall;
            tokio::select! {
                ready = stream.ready(interest) => match ready {
                    Ok(ready) => {
                        if ready.is_readable() && let Some(why) = ended(&stream) {
                            return why;
                        }
                        self.flush(&mut self.state.borrow_mut());
                    }
                    Err(error) => return error.to_string(),
                },
                () = self.wake.notified() => {}
                () = sleep_until(stall), if waits => {
                    if self.state.borrow().stuck_since == stuck_since {
                        return format!("it takes nothing for {:?}", self.limits.stall);
                    }
                }
            }
        }
    }

    /// Drops what is queued and says so. True if the link is over.
    fn lose(&self) -> bool {
        let mut state = self.state.borrow_mut();
        (state.stream, state.broken) = (None, None);
        (state.output, state.written) = (Vec::new(), 0);
        state.dropping = Dropping::No;
        self.idle.notify_one();
        if !state.closing {
            self.hub.submit(Input::LinkLost(self.to));
        }
        state.closing
    }
}

/// Why the connection is over, if it is. Nothing is ever said back on it.
fn ended(stream: &TcpStream) -> Option<String> {
    match stream.try_read(&mut [0]) {
        Ok(0) => Some("it closed the connection".to_owned()),
        Ok(_) => Some("it speaks out of turn".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => Some(error.to_string()),
    }
}

/// An answer that is too large to send is better than none. Unknown, because a
/// batch that writes has taken effect.
fn without_reply(message: &PeerMessage) -> Option<PeerMessage> {
    let PeerMessage::Forwarded { id, answer } = message else { return None };
    let why = TOO_LARGE_TO_SEND.to_owned();
    let reply = Reply::Error(ErrorKind::Unknown, why);
    Some(PeerMessage::Forwarded { id: *id, answer: Answered { reply, applied: answer.applied } })
}
