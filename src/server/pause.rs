//! CLIENT PAUSE: what clients ask for waits a while, at the node they ask.

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::protocol::surroundings::Pause;
use crate::request::{Command, Request};

/// A pause that nobody ends lasts no longer.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The pause of one node, if there is one, single-threaded.
#[derive(Default)]
pub struct ClientPause {
    /// Until when, and whether reads go on.
    paused: Cell<Option<(Instant, bool)>>,
    changed: Notify,
    /// The node stops: there will be none any more.
    is_over: Cell<bool>,
}

impl ClientPause {
    /// Begins one, or ends it. One that has begun becomes no shorter and no milder.
    pub fn set(&self, pause: Option<Pause>) {
        let paused = pause.map(|Pause { length, writes_only }| {
            let until = Instant::now() + length.min(LONGEST);
            match self.current() {
                Some((before, mild)) => (until.max(before), mild && writes_only),
                None => (until, writes_only),
            }
        });
        self.paused.set(paused.filter(|_| !self.is_over.get()));
        self.changed.notify_waiters();
    }

    /// Ends it for good.
    pub fn end(&self) {
        self.is_over.set(true);
        self.set(None);
    }

    fn current(&self) -> Option<(Instant, bool)> {
        let current = self.paused.get().filter(|&(until, _)| Instant::now() < until);
        self.paused.set(current);
        current
    }

    /// Whether this request has to wait. What is about nodes does not, nor does what
    /// only counts keys: INFO does.
    pub fn holds(&self, request: &Request) -> bool {
        // Nobody looks at a clock as long as there is no pause.
        let is_write = match request {
            _ if self.paused.get().is_none() => return false,
            Request::Run { batch, .. } if batch.commands.iter().all(counts) => return false,
            Request::Run { batch, .. } => batch.is_write(),
            Request::OpenSession => true,
            _ => return false,
        };
        self.until(is_write).is_some()
    }

    fn until(&self, is_write: bool) -> Option<Instant> {
        let holds = |&(_, writes_only): &(Instant, bool)| is_write || !writes_only;
        self.current().filter(holds).map(|(until, _)| until)
    }

    /// Until nothing holds a write, or a read, any more.
    pub async fn over(&self, is_write: bool) {
        loop {
            let changed = self.changed.notified();
            let Some(until) = self.until(is_write) else { return };
            tokio::select! {
                () = changed => {}
                () = sleep_until(until) => {}
            }
        }
    }
}

fn counts(command: &Command) -> bool {
    matches!(command, Command::Count { .. } | Command::CountExpiring { .. })
}
