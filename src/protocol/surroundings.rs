//! What a codec may ask of the node around it.
//!
//! Some requests are about the node and its clients and not about the data: INFO,
//! CONFIG, CLIENT LIST. Their answers are values, so that codecs stay pure.

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
