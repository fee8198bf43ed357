//! What keeps a connection from going on: a pause of all clients, a reply that is to
//! come late, or one that may be long in coming. Behind it nothing is taken in, and so
//! nobody would notice that the client is gone.

use std::future::pending;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::Connection;
use super::state::Answer;
use crate::replica::{Input, Ticket};
use crate::request::Request;
use crate::server::hub::Hub;
use crate::server::os;

/// The last thing that was taken in, and has not begun.
pub enum Held {
    /// A request, until the pause ends.
    Request(Request),
    /// A reply, until this moment.
    Reply(Bytes, Instant),
}

impl Held {
    /// About how many bytes it holds in memory.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Request(request) => request.size_bytes(),
            Self::Reply(bytes, _) => bytes.len(),
        }
    }
}

/// How long a client that has closed its side is given for a reply that is late.
const HANG_UP_PATIENCE: Duration = Duration::from_secs(5);

/// Since when a connection has not been read, or when that was last looked at.
#[derive(Default)]
pub struct Stalled(Option<Instant>);

/// What it waits for.
enum Until {
    Pause { is_write: bool },
    Moment(Instant),
}

impl Connection {
    /// When it is time to see whether a client that is not read is still there. An
    /// error if it is not.
    pub(super) fn look_out(&self, stalled: &mut Stalled) -> io::Result<Option<Instant>> {
        if !self.state.borrow().is_stalled() {
            stalled.0 = None;
            return Ok(None);
        }
        let now = Instant::now();
        let since = *stalled.0.get_or_insert(now);
        if now.duration_since(since) < HANG_UP_PATIENCE {
            return Ok(Some(since + HANG_UP_PATIENCE));
        }
        if os::has_hung_up(&self.stream) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        stalled.0 = Some(now);
        Ok(Some(now + HANG_UP_PATIENCE))
    }

    /// Until what is held may go on, or it is time to look whether anybody waits for it.
    /// Whether it may; for ever if nothing is waited for.
    pub(super) async fn released(&self, hub: &Hub, look_out: Option<Instant>) -> bool {
        let Some(look_out) = look_out else { return pending().await };
        let until = self.state.borrow().held.as_ref().map(|(_, held)| match held {
            Held::Request(request) => Until::Pause { is_write: is_write(request) },
            Held::Reply(_, at) => Until::Moment(*at),
        });
        // The node has to go.
        let is_ending = self.state.borrow().closing;
        let over = async {
            match until {
                Some(Until::Pause { is_write }) => hub.board.pause.over(is_write).await,
                Some(Until::Moment(_)) if is_ending => {}
                Some(Until::Moment(at)) => sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = over => true,
            () = sleep_until(look_out) => false,
        }
    }

    /// Lets it go on.
    pub(super) fn release(&self, hub: &Hub) {
        let Some((number, held)) = self.state.borrow_mut().held.take() else { return };
        match held {
            Held::Request(request) => {
                let ticket = Ticket { connection: self.id, number };
                hub.submit(Input::Request { ticket, request });
            }
            Held::Reply(bytes, _) => {
                self.put(hub, &mut self.state.borrow_mut(), number, Answer::Written(bytes));
            }
        }
        // What is behind it in the input gets its turn.
        self.settle(hub);
    }
}

fn is_write(request: &Request) -> bool {
    match request {
        Request::Run { batch, .. } => batch.is_write(),
        _ => true,
    }
}
