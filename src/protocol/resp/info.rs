//! INFO: the node as a monitoring tool of Redis sees it.

use std::fmt::Write as _;

use super::REDIS_VERSION;
use super::call::{Call, Later, Plan, Planned};
use super::write::Out;
use crate::protocol::surroundings::Facts;
use crate::request::{Answer, Command, DATABASES, Request, Status};

/// What is asked of INFO, and what is known so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Info {
    /// In lower case; empty for all.
    sections: Vec<String>,
    facts: Facts,
    status: Option<Box<Status>>,
}

/// Those of Redis that there is something to say about, and our own.
const SECTIONS: [&str; 9] = [
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "cluster",
    "raftcache",
    "keyspace",
];

/// How many sections may be named.
const SECTIONS_NAMED: usize = 64;

pub(super) fn info(call: &mut Call<'_>) -> Planned {
    if call.count() > SECTIONS_NAMED {
        return Err(super::call::SYNTAX);
    }
    let named = (1..call.count()).map(|i| String::from_utf8_lossy(call.get(i)).to_lowercase());
    let mut sections: Vec<String> = named.collect();
    if sections.iter().any(|name| matches!(&name[..], "all" | "everything" | "default")) {
        sections.clear();
    }
    let facts = call.session.surroundings.facts();
    let info = Info { sections, facts, status: None };
    Ok(Plan::Ask(Request::Status, Later::Info(info)))
}

/// How many keys there are in each database, and how many of them have a deadline.
pub(super) fn counts() -> Vec<Command> {
    let counts = |db| [Command::Count { db }, Command::CountExpiring { db }];
    (0..DATABASES).flat_map(counts).collect()
}

impl Info {
    /// With what the node says.
    pub(super) fn with_status(mut self, status: &Status) -> Self {
        self.status = Some(Box::new(status.clone()));
        self
    }

    /// Whether there is something to say.
    pub(super) fn has_status(&self) -> bool {
        self.status.is_some()
    }

    pub(super) fn write(&self, counts: &[Answer], out: &mut Out<'_>) {
        let Some(status) = &self.status else { return out.null() };
        let mut text = String::new();
        for section in SECTIONS {
            let is_wanted = self.sections.iter().any(|name| name == section);
            if !self.sections.is_empty() && !is_wanted {
                continue;
            }
            if !text.is_empty() {
                text += "\r\n";
            }
            let title = section[..1].to_uppercase() + &section[1..];
            let _ = write!(text, "# {title}\r\n");
            for (name, value) in self.fields(section, status) {
                let _ = write!(text, "{name}:{value}\r\n");
            }
            if section == "keyspace" {
                text += &keyspace(counts);
            }
        }
        out.verbatim(&text);
    }

    fn fields(&self, section: &str, status: &Status) -> Vec<(&'static str, String)> {
        let facts = &self.facts;
        let text = |text: &str| text.to_owned();
        match section {
            "server" => vec![
                ("redis_version", text(REDIS_VERSION)),
                ("redis_mode", text("standalone")),
                ("raftcache_version", text(env!("CARGO_PKG_VERSION"))),
                ("os", text(std::env::consts::OS)),
                ("arch_bits", usize::BITS.to_string()),
                ("process_id", facts.process_id.to_string()),
                // As long as Redis' own: some tools check.
                ("run_id", format!("{:032x}{:08x}", status.node, facts.process_id)),
                ("tcp_port", facts.port.to_string()),
                ("uptime_in_seconds", facts.uptime_s.to_string()),
                ("uptime_in_days", (facts.uptime_s / 86_400).to_string()),
            ],
            "clients" => vec![
                ("connected_clients", facts.clients.to_string()),
                ("maxclients", facts.clients_limit.to_string()),
                ("blocked_clients", facts.blocked_clients.to_string()),
            ],
            "memory" => vec![
                ("used_memory", status.memory_bytes.to_string()),
                ("used_memory_human", human(status.memory_bytes)),
                ("used_memory_rss", facts.resident_bytes.to_string()),
                ("used_memory_rss_human", human(facts.resident_bytes)),
                ("maxmemory", facts.memory.bytes.to_string()),
                ("maxmemory_human", human(facts.memory.bytes)),
                ("maxmemory_policy", text(facts.memory.eviction.name())),
            ],
            "persistence" => vec![
                ("loading", text("0")),
                ("aof_enabled", text("1")),
                ("aof_current_size", status.log_bytes.to_string()),
            ],
            "stats" => vec![
                ("total_connections_received", facts.connections.to_string()),
                ("total_commands_processed", facts.requests.to_string()),
                ("keyspace_hits", facts.hits.to_string()),
                ("keyspace_misses", facts.misses.to_string()),
                ("expired_keys", facts.expired.to_string()),
                ("evicted_keys", facts.evicted.to_string()),
            ],
            "replication" => replication(status),
            "cluster" => vec![("cluster_enabled", text("0"))],
            "raftcache" => raftcache(status),
            _ => Vec::new(),
        }
    }
}

/// Every node takes writes, so every node is a master, with the others for its
/// replicas.
fn replication(status: &Status) -> Vec<(&'static str, String)> {
    let others = status.members.iter().filter(|member| member.name != status.name);
    vec![
        ("role", "master".to_owned()),
        ("connected_slaves", others.count().to_string()),
        ("master_replid", format!("{:032x}00000000", status.cluster)),
        ("master_repl_offset", status.commit.to_string()),
    ]
}

fn raftcache(status: &Status) -> Vec<(&'static str, String)> {
    vec![
        ("raft_node", status.name.clone()),
        ("raft_role", status.role.name().to_owned()),
        ("raft_leader", status.leader.clone().unwrap_or_default()),
        ("raft_term", status.term.to_string()),
        ("raft_commit", status.commit.to_string()),
        ("raft_applied", status.applied.to_string()),
        ("raft_members", status.members.len().to_string()),
    ]
}

fn keyspace(counts: &[Answer]) -> String {
    let number = |answer: &Answer| match answer {
        Answer::Integer(number) => *number,
        _ => 0,
    };
    let mut text = String::new();
    for (db, pair) in counts.chunks_exact(2).enumerate() {
        let (keys, expiring) = (number(&pair[0]), number(&pair[1]));
        if keys > 0 {
            let _ = write!(text, "db{db}:keys={keys},expires={expiring},avg_ttl=0\r\n");
        }
    }
    text
}

/// As Redis shortens numbers of bytes.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["K", "M", "G", "T"];
    let mut scaled = (bytes as f64, "B");
    for unit in UNITS {
        if scaled.0 < 1024.0 {
            break;
        }
        scaled = (scaled.0 / 1024.0, unit);
    }
    if scaled.1 == "B" { format!("{bytes}B") } else { format!("{:.2}{}", scaled.0, scaled.1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shortened_as_in_redis() {
        assert_eq!([0, 1023, 1024, 1536].map(human), ["0B", "1023B", "1.00K", "1.50K"]);
        assert_eq!(human(5 << 30), "5.00G");
        assert_eq!(human(u64::MAX), "16777216.00T");
    }
}
