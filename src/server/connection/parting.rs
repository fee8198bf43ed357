//! How a connection ends on which everything is said.
//!
//! Who is told a last word may still be sending. To close over bytes that nobody
//! has read resets the connection, and the client's system may drop the word that
//! it has not given to the client yet. So only the writing side is shut, and what
//! still comes is read and thrown away, for a while.

use std::io;
use std::net::Shutdown;

use socket2::SockRef;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::{Connection, FAREWELL_TIMEOUT, READ_BYTES};
use crate::server::hub::Hub;

/// How much is thrown away of what is sent behind the last request: the largest
/// that may be begun, 32 MiB, and as much for those who do not look before they
/// have sent a file that is too large. Who sends more does not listen.
const DRAINED_BYTES: usize = 64 << 20;

impl Connection {
    /// Everything is said. The client hears it before the connection is gone.
    pub(super) async fn part(&self, hub: &Hub) -> io::Result<()> {
        if self.state.borrow().is_abrupt() {
            return Ok(());
        }
        self.state.borrow_mut().release();
        self.count(hub, &mut self.state.borrow_mut());
        SockRef::from(&self.stream).shutdown(Shutdown::Write)?;
        let patience = hub.limits.partial_request_timeout;
        timeout(patience, self.drain(hub)).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    /// Reads what still comes and throws it away, until the client closes or the
    /// node stops. Nothing is kept, and others go first as with any reading.
    async fn drain(&self, hub: &Hub) -> io::Result<()> {
        let mut left = DRAINED_BYTES;
        while left > 0 && !self.state.borrow().is_abrupt() {
            let event = async {
                tokio::select! {
                    ready = self.stream.readable(), if !self.deferred.get() => ready,
                    () = self.wake.notified() => Ok(()),
                }
            };
            timeout(FAREWELL_TIMEOUT, event).await.map_err(|_| io::ErrorKind::TimedOut)??;
            if !hub.may_work() {
                self.defer(hub);
                continue;
            }
            match self.throw_away() {
                Ok(0) => break,
                Ok(count) => {
                    hub.spend(0, count);
                    left = left.saturating_sub(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            yield_now().await;
        }
        Ok(())
    }

    fn throw_away(&self) -> io::Result<usize> {
        self.stream.try_read(&mut [0; READ_BYTES])
    }
}
