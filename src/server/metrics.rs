//! What a monitoring system reads at `/metrics`, in the text format of OpenMetrics.
//!
//! Requests are counted in numbers of this thread's own, and timed in histograms that
//! the disk thread has too. Names and help texts are put together when somebody asks,
//! with what the node says of itself.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::protocol::Protocol;
use crate::protocol::surroundings::Facts;
use crate::replica::Counts;
use crate::request::{ErrorKind, RoleName, Status};

type Counters<K> = RefCell<HashMap<K, u64, FixedState>>;

type Label = [(&'static str, &'static str); 1];

type Labels = Vec<(&'static str, String)>;

/// What one event loop has counted and timed since its start.
pub struct Metrics {
    requests: Counters<(Protocol, &'static str)>,
    refused: Counters<ErrorKind>,
    request_durations: Family<Label, Histogram, fn() -> Histogram>,
    /// The same histograms, at hand.
    request_duration: [(Protocol, Histogram); 4],
    /// From an entry's proposal to its being applied; the longest of each turn.
    pub commit: Histogram,
    /// Turns of the replica in which entries were applied.
    pub apply: Histogram,
    /// The longest turn of the event loop.
    pub longest_turn: Cell<Duration>,
    /// A batch of the journal, written and synced. The disk thread has it too.
    pub sync: Histogram,
}

/// From 16 microseconds to 8 seconds.
fn latencies() -> Histogram {
    Histogram::new(exponential_buckets(16e-6, 2.0, 20))
}

impl Default for Metrics {
    fn default() -> Self {
        let request_durations = Family::new_with_constructor(latencies as fn() -> Histogram);
        let request_duration = Protocol::ALL.map(|protocol| {
            let label = [("protocol", protocol.name())];
            (protocol, request_durations.get_or_create(&label).clone())
        });
        Self {
            requests: RefCell::default(),
            refused: RefCell::default(),
            request_durations,
            request_duration,
            commit: latencies(),
            apply: latencies(),
            longest_turn: Cell::default(),
            sync: latencies(),
        }
    }
}

impl Metrics {
    /// A request was taken in. Names are few: they are those of a table.
    pub fn count_request(&self, protocol: Protocol, command: &'static str) {
        *self.requests.borrow_mut().entry((protocol, command)).or_default() += 1;
    }

    /// A request was refused.
    pub fn count_refused(&self, kind: ErrorKind) {
        *self.refused.borrow_mut().entry(kind).or_default() += 1;
    }

    /// A request was answered.
    pub fn note_answered(&self, protocol: Protocol, took: Duration) {
        let histogram = self.request_duration.iter().find(|(known, _)| *known == protocol);
        if let Some((_, histogram)) = histogram {
            histogram.observe(took.as_secs_f64());
        }
    }

    /// All of it, and what the node says of itself.
    pub fn text(&self, status: &Status, facts: &Facts, counts: &Counts) -> String {
        let mut registry = Registry::with_prefix("raftcache");
        self.register_requests(&mut registry);
        register_node(&mut registry, status, facts);
        register_counts(&mut registry, counts);
        register_peers(&mut registry, status);
        let mut text = String::new();
        // It fails only if the text does, which is in memory.
        let _ = encode(&mut text, &registry);
        text
    }

    fn register_requests(&self, registry: &mut Registry) {
        let requests = Family::<Labels, Counter>::default();
        for (&(protocol, command), &count) in self.requests.borrow().iter() {
            let labels =
                vec![("protocol", protocol.name().to_owned()), ("command", command.to_owned())];
            requests.get_or_create(&labels).inc_by(count);
        }
        registry.register("requests", "Requests taken in", requests);
        let refused = Family::<Labels, Counter>::default();
        for (&kind, &count) in self.refused.borrow().iter() {
            refused.get_or_create(&vec![("reason", kind.name().to_owned())]).inc_by(count);
        }
        registry.register(
            "refused",
            "Requests that the replica refused; unknown: perhaps done",
            refused,
        );
        let mut seconds = |name: &str, help: &str, histogram: &Histogram| {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        };
        let entries = "From an entry's proposal here to its being applied, the slowest of a turn";
        seconds("commit_duration", entries, &self.commit);
        let turns = "Turns of the replica in which entries were applied";
        seconds("apply_duration", turns, &self.apply);
        let syncs = "Batches of the journal, written and synced";
        seconds("sync_duration", syncs, &self.sync);
        let reads = "From a request's being read to its reply, if the replica gave it";
        let durations = self.request_durations.clone();
        registry.register_with_unit("request_duration", reads, Unit::Seconds, durations);
        let longest = ConstGauge::new(self.longest_turn.get().as_secs_f64());
        let help = "The longest turn of the event loop";
        registry.register_with_unit("longest_turn", help, Unit::Seconds, longest);
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    registry.register(name, help, ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)));
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    registry.register(name, help, ConstCounter::new(value));
}

fn register_node(registry: &mut Registry, status: &Status, facts: &Facts) {
    let info: Labels = vec![
        ("name", status.name.clone()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("cluster", format!("{:032x}", status.cluster)),
    ];
    registry.register("node", "This node", Info::new(info));
    let is_leader = u64::from(status.role == RoleName::Leader);
    for (name, help, value) in [
        ("is_leader", "1 on the node that leads", is_leader),
        ("has_leader", "1 if it knows who leads", u64::from(status.leader.is_some())),
        ("raft_term", "Current term", status.term),
        ("raft_last_index", "Last entry of the log", status.last),
        ("raft_durable_index", "Last entry on this node's disk", status.durable),
        ("raft_commit_index", "Last entry known to be committed", status.commit),
        ("raft_applied_index", "Last entry applied", status.applied),
        ("members", "Members of the cluster", status.members.len() as u64),
        ("log_bytes", "The journal behind the last snapshot", status.log_bytes),
        ("keys", "Keys stored", status.keys),
        ("memory_bytes", "What the data set counts as", status.memory_bytes),
        ("memory_limit_bytes", "How large it may grow", status.memory_limit_bytes),
        ("resident_memory_bytes", "What the process holds", facts.resident_bytes),
        ("connections", "Clients connected", facts.clients),
        ("connections_limit", "How many may be", facts.clients_limit),
        ("uptime_seconds", "Since the process began", facts.uptime_s),
        ("warnings", "What somebody should look at, see /status", status.warnings.len() as u64),
    ] {
        gauge(registry, name, help, value);
    }
    let offset = ConstGauge::new(status.clock_offset_ms as f64 / 1000.0);
    let help = "How far the cluster's clock is ahead of this node's wall clock";
    registry.register_with_unit("clock_offset", help, Unit::Seconds, offset);
}

fn register_counts(registry: &mut Registry, counts: &Counts) {
    for (name, help, value) in [
        ("elections", "Elections that this node stood for", counts.elections),
        ("forwarded", "Requests sent on to the leader, again ones included", counts.forwarded),
        (
            "expired_keys",
            "Keys past their deadline that it removed, also in a replay",
            counts.expired,
        ),
        ("evicted_keys", "Keys that made way, chosen by this node", counts.evicted),
        ("snapshots_written", "Snapshots of its own", counts.snapshots_written),
        ("snapshots_installed", "Snapshots of others taken over", counts.snapshots_installed),
    ] {
        counter(registry, name, help, value);
    }
    let bytes = counts.last_snapshot_bytes;
    gauge(registry, "last_snapshot_bytes", "The newest snapshot file", bytes);
    let took = ConstGauge::new(counts.last_snapshot_took.as_secs_f64());
    let help = "How long the last one of its own took";
    registry.register_with_unit("last_snapshot_duration", help, Unit::Seconds, took);
    let help = "0 if it cannot vouch for its state, see /status";
    gauge(registry, "serving", help, u64::from(counts.serves));
}

/// How far the others are behind, as the leader knows.
fn register_peers(registry: &mut Registry, status: &Status) {
    let lag = Family::<Labels, Gauge>::default();
    for member in &status.members {
        if let Some(durable) = member.durable {
            let behind = status.last.saturating_sub(durable);
            let labels = vec![("peer", member.name.clone())];
            lag.get_or_create(&labels).set(i64::try_from(behind).unwrap_or(i64::MAX));
        }
    }
    registry.register(
        "raft_peer_lag",
        "Entries not yet on that member's disk, as the leader knows",
        lag,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::MemberInfo;

    fn member(name: &str, durable: Option<u64>) -> MemberInfo {
        MemberInfo {
            name: name.to_owned(),
            node: 1,
            peer_address: String::new(),
            client_address: String::new(),
            voter: true,
            leader: durable.is_some(),
            durable,
        }
    }

    #[test]
    fn what_was_counted_is_in_the_text() {
        let metrics = Metrics::default();
        (0..3).for_each(|_| metrics.count_request(Protocol::Resp, "get"));
        metrics.count_refused(ErrorKind::OutOfMemory);
        metrics.note_answered(Protocol::Http, Duration::from_millis(5));
        metrics.sync.observe(0.001);
        let status = Status {
            name: "n\"1".to_owned(),
            last: 10,
            clock_offset_ms: -1500,
            members: vec![member("a", Some(7)), member("b", None)],
            ..Status::default()
        };
        let counts = Counts { evicted: 4, ..Counts::default() };
        let text = metrics.text(&status, &Facts::default(), &counts);
        for line in [
            "raftcache_requests_total{protocol=\"resp\",command=\"get\"} 3",
            "raftcache_refused_total{reason=\"out_of_memory\"} 1",
            "raftcache_request_duration_seconds_count{protocol=\"http\"} 1",
            "raftcache_request_duration_seconds_bucket{le=\"0.004096\",protocol=\"http\"} 0",
            "raftcache_request_duration_seconds_bucket{le=\"0.008192\",protocol=\"http\"} 1",
            "raftcache_sync_duration_seconds_count 1",
            "raftcache_raft_last_index 10",
            "raftcache_clock_offset_seconds -1.5",
            "raftcache_evicted_keys_total 4",
            "raftcache_raft_peer_lag{peer=\"a\"} 3",
            "# TYPE raftcache_keys gauge",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        }
        assert!(text.contains("raftcache_node_info{name=\"n\\\"1\""), "{text}");
        assert!(!text.contains("peer=\"b\""));
        assert!(text.ends_with("# EOF\n"));
    }
}
