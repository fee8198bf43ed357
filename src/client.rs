//! A small async client of the [binary protocol](crate::protocol::binary).
//!
//! A [`Client`] has a list of addresses and one connection, to the address that
//! answered last. Any node answers any request, so one is enough; the others
//! are for when it fails.
//!
//! The rule of failing over: **the next address is tried only if that cannot
//! execute anything twice**, which is so if nothing was sent, if the request is
//! a read, or if the write carries a session and a sequence by which the
//! cluster recognises it. [`Client::with_session`] makes every write carry
//! them; without, a write whose reply is lost is [`Error::Unknown`].
//!
//! **Order holds as well**: a request is not tried again once a later one may
//! have taken effect; [`Client::call_many`] says what that means for several.
//!
//! Three things a caller must be able to tell apart are kept apart in
//! [`Error`]: surely nothing happened, something may have happened, and the
//! node said no.
//!
//! Missing on purpose: a pool, and any retry in time. Who wants to wait for a
//! leader waits.

mod calls;
mod connection;

use std::time::Duration;

use tokio::time::timeout;

pub use calls::SetOutcome;
use connection::Connection;

use crate::protocol::Limits;
use crate::request::{ErrorKind, Failure, Reply, Request, SessionStamp};

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No node answered, and nothing took effect.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The write may or may not have taken effect.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// A node refused, without effect. The kind is never `ErrorKind::Unknown`.
    #[error("{1}")]
    Refused(ErrorKind, String),
    /// The command had no effect for a reason that lies in the data.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// A session, and the sequence of its next write.
#[derive(Debug, Clone, Copy)]
struct Session {
    id: u64,
    next: u64,
}

/// A client of one cluster.
#[derive(Debug)]
pub struct Client {
    addresses: Vec<String>,
    /// Which address is connected, or to be tried next.
    at: usize,
    connection: Option<Connection>,
    timeout: Duration,
    limits: Limits,
    stamps_writes: bool,
    session: Option<Session>,
}

/// One request on its way through the addresses.
#[derive(Debug)]
struct Attempt {
    request: Request,
    /// May be sent again although it was sent.
    repeatable: bool,
    /// Its stamp is this client's, not the caller's.
    stamped_here: bool,
    /// An attempt may have taken effect, so only a result settles it.
    uncertain: bool,
    /// No more attempts.
    settled: bool,
    result: Result<Reply, Error>,
}

impl Attempt {
    fn new(request: Request) -> Self {
        let repeatable = match &request {
            Request::Run { batch, session, .. } => !batch.is_write() || session.is_some(),
            // A session too many is forgotten by itself.
            Request::Ping
            | Request::OpenSession
            | Request::Members
            | Request::Status
            | Request::AwaitDurable { .. }
            | Request::Usage(_) => true,
            Request::Join { .. } | Request::Leave { .. } | Request::Transfer { .. } => false,
        };
        let result = Err(Error::Unreachable("no address".to_owned()));
        Self { request, repeatable, stamped_here: false, uncertain: false, settled: false, result }
    }

    fn is_write(&self) -> bool {
        match &self.request {
            Request::Run { batch, .. } => batch.is_write(),
            _ => !self.repeatable,
        }
    }

    fn is_stamped(&self) -> bool {
        matches!(self.request, Request::Run { session: Some(_), .. })
    }

    /// Whether it may have taken effect, or has.
    fn may_be_done(&self) -> bool {
        self.result.is_ok() || self.uncertain
    }

    /// Whether another attempt, or an earlier one, may still have an effect.
    fn is_open(&self) -> bool {
        !self.settled || (self.uncertain && self.result.is_err())
    }

    /// The connection failed after the request was handed to it.
    fn lost(&mut self, why: &str) {
        self.uncertain |= self.is_write();
        self.settled = !self.repeatable;
        self.failed(Error::Unreachable(why.to_owned()));
    }

    /// A reply came.
    fn answered(&mut self, reply: Reply) {
        let Reply::Error(kind, why) = reply else {
            self.result = Ok(reply);
            self.settled = true;
            return;
        };
        self.uncertain |= kind == ErrorKind::Unknown;
        let another_node_may_do =
            matches!(kind, ErrorKind::NoLeader | ErrorKind::NotServing | ErrorKind::Unknown);
        self.settled = !(self.repeatable && another_node_may_do);
        self.failed(Error::Refused(kind, why));
    }

    /// An error says that *this* attempt had no effect; an earlier one may have.
    fn failed(&mut self, error: Error) {
        self.result = Err(match error {
            error if !self.uncertain => error,
            Error::Unreachable(why) | Error::Refused(_, why) => Error::Unknown(why),
            error => error,
        });
    }

    /// No node was reached this time; what another one said before says more.
    fn unreached(&mut self, why: &str) {
        if !matches!(self.result, Err(Error::Refused(..))) {
            self.failed(Error::Unreachable(why.to_owned()));
        }
    }

    /// Surely not executed, and this client's own session is to blame.
    fn needs_another_session(&self) -> bool {
        self.stamped_here
            && matches!(self.result, Err(Error::Refused(ErrorKind::SessionExpired, _)))
    }
}

impl Client {
    /// A client of the nodes at these addresses, not connected yet.
    ///
    /// An address is `host:port`; a host that is left out is this machine, and
    /// `http://` in front is ignored.
    pub fn new<A: AsRef<str>>(addresses: impl IntoIterator<Item = A>) -> Self {
        Self {
            addresses: addresses.into_iter().map(|address| dialled(address.as_ref())).collect(),
            at: 0,
            connection: None,
            timeout: Duration::from_secs(5),
            limits: Limits::default(),
            stamps_writes: false,
            session: None,
        }
    }

    /// A client that is connected to the first of these addresses that answers.
    pub async fn connect<A: AsRef<str>>(
        addresses: impl IntoIterator<Item = A>,
    ) -> Result<Self, Error> {
        let mut client = Self::new(addresses);
        client.reach().await?;
        Ok(client)
    }

    /// Waits so long for a connection, and for each reply. The default of 5 s
    /// is more than a node takes to say that it cannot.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Opens a session before the first write and stamps every write with it.
    pub fn with_session(mut self) -> Self {
        self.stamps_writes = true;
        self
    }

    /// The address in use, or to be tried next.
    pub fn address(&self) -> &str {
        self.addresses.get(self.at).map_or("", String::as_str)
    }

    /// Connects to the first address that answers, if there is no connection.
    pub async fn reach(&mut self) -> Result<(), Error> {
        let mut result = Err(Error::Unreachable("no address".to_owned()));
        for _ in 0..self.addresses.len() {
            match self.take_connection().await {
                Ok(connection) => {
                    self.connection = Some(connection);
                    return Ok(());
                }
                Err(why) => result = Err(Error::Unreachable(why)),
            }
            self.move_on();
        }
        result
    }

    /// Executes one request.
    pub async fn call(&mut self, request: Request) -> Result<Reply, Error> {
        let mut results = self.call_many(vec![request]).await;
        results.pop().unwrap_or_else(|| Err(Error::Unreachable("nothing was asked".to_owned())))
    }

    /// Executes requests in order. There is one result for each.
    ///
    /// What is not stamped is sent before the first reply is awaited. A stamped
    /// write travels alone: it may have to be sent again, and must not take effect
    /// behind what came after it. For the same reason nothing is sent behind a
    /// request that no node has settled.
    pub async fn call_many(&mut self, requests: Vec<Request>) -> Vec<Result<Reply, Error>> {
        let mut attempts: Vec<_> = requests.into_iter().map(Attempt::new).collect();
        let travels_alone =
            |attempt: &Attempt| attempt.is_stamped() || self.is_to_be_stamped(attempt);
        let alone: Vec<bool> = attempts.iter().map(travels_alone).collect();
        let mut ends: Vec<_> = (1..alone.len()).filter(|&at| alone[at - 1] || alone[at]).collect();
        ends.push(attempts.len());
        let mut begin = 0;
        for end in ends {
            self.run_stamped(&mut attempts[begin..end]).await;
            begin = end;
            if attempts[..end].iter().any(Attempt::is_open) {
                break;
            }
        }
        let unsent = Error::Unreachable("not sent, because a request before it failed".to_owned());
        attempts[begin..].iter_mut().for_each(|attempt| attempt.failed(unsent.clone()));
        attempts.into_iter().map(|attempt| attempt.result).collect()
    }

    /// Twice if need be, because a session that was idle may have expired.
    async fn run_stamped(&mut self, attempts: &mut [Attempt]) {
        for _ in 0..2 {
            if let Err(error) = self.stamp(attempts).await {
                unsettled(attempts).for_each(|attempt| attempt.failed(error.clone()));
                return;
            }
            self.run(attempts).await;
            if !attempts.iter().any(Attempt::needs_another_session) {
                return;
            }
            self.session = None;
            attempts.iter_mut().filter(|attempt| attempt.needs_another_session()).for_each(forget);
        }
    }

    /// Gives every unsettled write a stamp, if this client's writes have one.
    async fn stamp(&mut self, attempts: &mut [Attempt]) -> Result<(), Error> {
        for attempt in unsettled(attempts) {
            if !self.is_to_be_stamped(attempt) {
                continue;
            }
            let stamp = self.next_stamp().await?;
            if let Request::Run { session, .. } = &mut attempt.request {
                *session = Some(stamp);
                attempt.repeatable = true;
                attempt.stamped_here = true;
            }
        }
        Ok(())
    }

    fn is_to_be_stamped(&self, attempt: &Attempt) -> bool {
        let is_run = matches!(attempt.request, Request::Run { .. });
        self.stamps_writes && is_run && attempt.is_write() && !attempt.is_stamped()
    }

    async fn next_stamp(&mut self) -> Result<SessionStamp, Error> {
        let mut session = match self.session {
            Some(session) => session,
            None => Session { id: self.open_session().await?, next: 1 },
        };
        let stamp = SessionStamp { session: session.id, sequence: session.next };
        session.next += 1;
        self.session = Some(session);
        Ok(stamp)
    }

    async fn open_session(&mut self) -> Result<u64, Error> {
        let mut attempts = [Attempt::new(Request::OpenSession)];
        self.run(&mut attempts).await;
        let [attempt] = attempts;
        match attempt.result? {
            Reply::SessionOpened { session } => Ok(session),
            other => Err(calls::unexpected(&other)),
        }
    }

    /// Tries each address once, until every request is settled; that of an old
    /// connection once more at the end, because the node may have restarted.
    async fn run(&mut self, attempts: &mut [Attempt]) {
        for _ in 0..self.addresses.len() + usize::from(self.is_connected()) {
            match self.take_connection().await {
                Ok(mut connection) => {
                    if self.exchange(&mut connection, attempts).await {
                        self.connection = Some(connection);
                    }
                }
                Err(why) => unsettled(attempts).for_each(|attempt| attempt.unreached(&why)),
            }
            give_up_overtaken(attempts);
            if unsettled(attempts).next().is_none() {
                return;
            }
            self.move_on();
        }
    }

    /// Sends what is unsettled and receives the replies; whether the connection
    /// is still good afterwards.
    async fn exchange(&self, connection: &mut Connection, attempts: &mut [Attempt]) -> bool {
        for attempt in unsettled(attempts) {
            if let Err(error) = connection.send(&attempt.request, &self.limits) {
                attempt.failed(Error::Refused(ErrorKind::Invalid, error.to_string()));
                attempt.settled = true;
            }
        }
        let mut failure = None;
        for attempt in unsettled(attempts) {
            if failure.is_none() {
                match self.receive_from(connection).await {
                    Ok(reply) => {
                        attempt.answered(reply);
                        continue;
                    }
                    Err(why) => failure = Some(why),
                }
            }
            attempt.lost(failure.as_deref().unwrap_or_default());
        }
        failure.is_none()
    }

    async fn receive_from(&self, connection: &mut Connection) -> Result<Reply, String> {
        let why = match timeout(self.timeout, connection.receive(&self.limits)).await {
            Ok(Ok(reply)) => return Ok(reply),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no reply in {} ms", self.timeout.as_millis()),
        };
        Err(format!("{}: {why}", self.address()))
    }

    /// The connection, new if need be. It is taken out of the client, so that a
    /// call that is dropped half-way takes its unread replies along.
    async fn take_connection(&mut self) -> Result<Connection, String> {
        if let Some(connection) = self.connection.take()
            && connection.is_clean().await
        {
            return Ok(connection);
        }
        let address = self.addresses.get(self.at).ok_or("no address")?;
        match timeout(self.timeout, Connection::open(address)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(format!("{address}: {error}")),
            Err(_) => Err(format!("{address}: no connection in {} ms", self.timeout.as_millis())),
        }
    }

    fn move_on(&mut self) {
        self.connection = None;
        self.at = (self.at + 1) % self.addresses.len().max(1);
    }

    /// Whether there is a connection. A lost one took with it the replies to
    /// everything that was sent.
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Queues a request whose reply [`Client::receive`] will return. For
    /// callers that keep a pipeline full; neither stamps nor fails over.
    pub async fn send(&mut self, request: &Request) -> Result<(), Error> {
        if self.connection.is_none() {
            self.reach().await?;
        }
        let connection = self.connection.as_mut().ok_or(Error::Unreachable(String::new()))?;
        let sent = connection.send(request, &self.limits);
        sent.map_err(|error| Error::Refused(ErrorKind::Invalid, error.to_string()))
    }

    /// The reply to the oldest request of [`Client::send`] without one. If the
    /// client is no longer connected after an error, there are no more replies:
    /// all that were sent are of unknown outcome.
    pub async fn receive(&mut self) -> Result<Reply, Error> {
        let Some(mut connection) = self.connection.take() else {
            return Err(Error::Unknown("the connection was lost".to_owned()));
        };
        let reply = self.receive_from(&mut connection).await.map_err(Error::Unknown)?;
        self.connection = Some(connection);
        match reply {
            Reply::Error(ErrorKind::Unknown, why) => Err(Error::Unknown(why)),
            Reply::Error(kind, why) => Err(Error::Refused(kind, why)),
            reply => Ok(reply),
        }
    }
}

fn unsettled(attempts: &mut [Attempt]) -> impl Iterator<Item = &mut Attempt> {
    attempts.iter_mut().filter(|attempt| !attempt.settled)
}

/// What is not done yet, and stands before a write that may be, is not tried
/// again: it would take effect behind that.
fn give_up_overtaken(attempts: &mut [Attempt]) {
    let last = attempts.iter().rposition(|attempt| attempt.is_write() && attempt.may_be_done());
    unsettled(&mut attempts[..last.unwrap_or(0)]).for_each(|attempt| attempt.settled = true);
}

/// Makes a write that was surely not executed ready for another session.
fn forget(attempt: &mut Attempt) {
    if let Request::Run { session, .. } = &mut attempt.request {
        *session = None;
        attempt.settled = false;
    }
}

/// `HOST:PORT` of an address that may be written as a browser would be given it.
pub fn without_scheme(address: &str) -> &str {
    address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/')
}

/// What to dial for what a person wrote.
fn dialled(address: &str) -> String {
    let address = without_scheme(address);
    match address.strip_prefix(':') {
        Some(port) => format!("127.0.0.1:{port}"),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_in_several_ways() {
        assert_eq!(dialled(":3001"), "127.0.0.1:3001");
        assert_eq!(dialled("http://host:3001/"), "host:3001");
        assert_eq!(dialled("[::1]:3001"), "[::1]:3001");
    }
}
