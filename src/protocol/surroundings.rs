//! What a codec may ask of the node around it.
//!
//! Some requests are about the node and its clients and not about the data: INFO,
//! CONFIG, CLIENT LIST. Their answers are values, so that codecs stay pure.

use std::time::Duration;

use bytes::Bytes;

use crate::request::{MemoryLimit, Status};

/// What a node knows of itself beside its [`Status`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// The process.
    pub process_id: u32,
    /// Where clients connect.
    pub port: u16,
    /// How long it has been running, in seconds.
    pub uptime_s: u64,
    /// Clients connected.
    pub clients: u64,
    /// Those of them that wait for disks, for a pause to end or because they asked to.
    pub blocked_clients: u64,
    /// How many may be.
    pub clients_limit: u64,
    /// How many have been.
    pub connections: u64,
    /// Requests taken in.
    pub requests: u64,
    /// Keys that were asked for and there.
    pub hits: u64,
    /// Keys that were asked for and not there.
    pub misses: u64,
    /// What the process holds in memory, in bytes; 0 if that cannot be told.
    pub resident_bytes: u64,
    /// How large the data set may grow while this node leads.
    pub memory: MemoryLimit,
    /// Keys that this node has made way for others.
    pub evicted: u64,
    /// Keys past their deadline that were removed.
    pub expired: u64,
    /// What is worth remembering.
    pub watch: Watch,
}

/// What of all that takes long is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// Requests that take longer; none if `None`.
    pub slow_request: Option<Duration>,
    /// So many of them.
    pub slow_requests: usize,
    /// Whatever takes as long; nothing if zero.
    pub spike: Duration,
}

impl Default for Watch {
    fn default() -> Self {
        let slow_request = Some(Duration::from_millis(10));
        Self { slow_request, slow_requests: 128, spike: Duration::ZERO }
    }
}

/// A request that took long, from its arrival to its reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowRequest {
    /// Counts them.
    pub id: u64,
    /// When it was answered, in seconds since 1970.
    pub at_s: u64,
    /// How long it took.
    pub took: Duration,
    /// Its words, as far as they are kept.
    pub words: Vec<Bytes>,
    /// Where its client is.
    pub address: String,
    /// How that calls itself.
    pub name: String,
}

/// Something that took long now and then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spikes {
    /// What: of a fixed set.
    pub event: &'static str,
    /// When, in seconds since 1970, and how long, in milliseconds; the oldest first.
    pub samples: Vec<(u64, u64)>,
    /// The longest since this was last forgotten, in milliseconds.
    pub longest_ms: u64,
}

/// What clients have to wait for until somebody says otherwise, or time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// How long.
    pub length: Duration,
    /// Reads need not wait.
    pub writes_only: bool,
}

/// One client, as CLIENT LIST has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// The number of its connection.
    pub id: u64,
    /// Where it is.
    pub address: String,
    /// Where it connected to.
    pub local_address: String,
    /// How long it has been connected, in seconds.
    pub age_s: u64,
    /// How long it has said nothing, in seconds.
    pub idle_s: u64,
    /// Its last command; empty before the first.
    pub command: &'static str,
    /// What it says of itself.
    pub description: Description,
}

/// What a client says of itself, and where it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// Its name; empty if it has none.
    pub name: String,
    /// Its library.
    pub library: String,
    /// The version of that.
    pub library_version: String,
    /// The database that is selected.
    pub db: u8,
    /// The version of RESP it speaks; 0 for another protocol.
    pub resp: u8,
    /// Commands queued since MULTI, if it was said.
    pub queued: Option<usize>,
}

/// The node around one connection.
pub trait Surroundings {
    /// What it knows of itself.
    fn facts(&self) -> Facts;

    /// Its clients, in the order of their connections.
    fn clients(&self) -> Vec<ClientInfo>;

    /// Ends the connection of a client.
    fn kill(&self, client: u64);

    /// The requests of clients wait, or do so no longer.
    fn pause(&self, pause: Option<Pause>);

    /// The requests that took long, the newest first, at most so many.
    fn slow_requests(&self, limit: usize) -> Vec<SlowRequest>;

    /// How many of them there are.
    fn count_slow_requests(&self) -> usize;

    /// Forgets them.
    fn forget_slow_requests(&self);

    /// What else took long.
    fn spikes(&self) -> Vec<Spikes>;

    /// Forgets those of one event; false if there were none.
    fn forget_spikes(&self, event: &str) -> bool;

    /// From now on this is remembered.
    fn watch(&self, watch: Watch);

    /// The client of this connection.
    fn own(&self) -> Option<ClientInfo>;

    /// What the client of this connection says of itself has changed.
    fn describe(&self, description: Description);

    /// It has sent a command.
    fn note_command(&self, name: &'static str);

    /// A setting that means nothing here and was set all the same.
    fn remembered(&self, name: &str) -> Option<String>;

    /// Remembers one of a fixed set of those.
    fn remember(&self, name: &'static str, value: String);

    /// The data set may grow as large as this from now on.
    fn limit_memory(&self, limit: MemoryLimit);

    /// What there is for a monitoring system to read.
    fn metrics(&self, status: &Status) -> String;

    /// Counts from now on.
    fn reset_counts(&self);
}

/// Nothing around, for codecs that nobody serves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nowhere;

impl Surroundings for Nowhere {
    fn facts(&self) -> Facts {
        Facts::default()
    }

    fn clients(&self) -> Vec<ClientInfo> {
        Vec::new()
    }

    fn kill(&self, _client: u64) {}

    fn pause(&self, _pause: Option<Pause>) {}

    fn slow_requests(&self, _limit: usize) -> Vec<SlowRequest> {
        Vec::new()
    }

    fn count_slow_requests(&self) -> usize {
        0
    }

    fn forget_slow_requests(&self) {}

    fn spikes(&self) -> Vec<Spikes> {
        Vec::new()
    }

    fn forget_spikes(&self, _event: &str) -> bool {
        false
    }

    fn watch(&self, _watch: Watch) {}

    fn own(&self) -> Option<ClientInfo> {
        None
    }

    fn describe(&self, _description: Description) {}

    fn note_command(&self, _name: &'static str) {}

    fn remembered(&self, _name: &str) -> Option<String> {
        None
    }

    fn remember(&self, _name: &'static str, _value: String) {}

    fn limit_memory(&self, _limit: MemoryLimit) {}

    fn metrics(&self, _status: &Status) -> String {
        String::new()
    }

    fn reset_counts(&self) {}
}
