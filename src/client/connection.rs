//! One connection: bytes out, bytes in, and what is awaited.
//!
//! Writing and reading take turns as the socket allows. A client that wrote a
//! long pipeline to its end before it read would wait for a node that waits for
//! it to read.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Result};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::protocol::binary::{Awaited, decode_reply, encode_request};
use crate::protocol::{Limits, ProtocolError};
use crate::request::{Reply, Request};

/// How much is read at once at least.
const READ_BYTES: usize = 16 << 10;

/// A connection at rest for longer is looked at before it is used again.
const REST: Duration = Duration::from_millis(100);

/// A connection, the requests not written yet and the replies not read yet.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    input: BytesMut,
    output: BytesMut,
    awaited: VecDeque<Awaited>,
    used: Instant,
}

impl Connection {
    pub(super) async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (input, output) = (BytesMut::new(), BytesMut::new());
        Ok(Self { stream, input, output, awaited: VecDeque::new(), used: Instant::now() })
    }

    /// Whether it can be used anew: nothing is awaited, and the node has not
    /// closed it while it was at rest, as far as can be known.
    pub(super) async fn is_clean(&self) -> bool {
        if self.used.elapsed() > REST {
            // Lets the runtime hear of what happened to its sockets meanwhile.
            tokio::task::yield_now().await;
        }
        let silent = match self.stream.try_read(&mut [0]) {
            Ok(_) => false,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        self.awaited.is_empty() && self.input.is_empty() && silent
    }

    /// Queues a request; it is written while a reply is awaited.
    pub(super) fn send(
        &mut self,
        request: &Request,
        limits: &Limits,
    ) -> std::result::Result<(), ProtocolError> {
        let awaited = encode_request(request, limits, &mut self.output)?;
        self.awaited.push_back(awaited);
        Ok(())
    }

    /// The next reply. Dropping the future loses nothing.
    pub(super) async fn receive(&mut self, limits: &Limits) -> Result<Reply> {
        loop {
            let Some(awaited) = self.awaited.front() else {
                return Err(Error::other("no reply is awaited"));
            };
            let reply = decode_reply(awaited, limits, &mut self.input)
                .map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
            if let Some(reply) = reply {
                self.awaited.pop_front();
                self.used = Instant::now();
                return Ok(reply);
            }
            self.exchange().await?;
        }
    }

    /// Writes and reads whatever the socket takes and has.
    async fn exchange(&mut self) -> Result<()> {
        let interest = if self.output.is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        let ready = self.stream.ready(interest).await?;
        if ready.is_writable() && !self.output.is_empty() {
            let written = unless_blocked(self.stream.try_write(&self.output))?;
            self.output.advance(written.unwrap_or(0));
        }
        if ready.is_readable() {
            self.input.reserve(READ_BYTES);
            if unless_blocked(self.stream.try_read_buf(&mut self.input))? == Some(0) {
                return Err(Error::new(ErrorKind::UnexpectedEof, "the node closed the connection"));
            }
        }
        Ok(())
    }
}

/// `None` if the socket was not ready after all.
fn unless_blocked(result: Result<usize>) -> Result<Option<usize>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}
