//! Flags and environment to settings, checked once.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{FalseyValueParser, PossibleValuesParser, Resettable, TypedValueParser};
use clap::{Arg, CommandFactory, FromArgMatches, Parser, ValueEnum};

use super::os;
use crate::client::without_scheme;
use crate::raft::{Membership, ReadMode};
use crate::request::{EvictionPolicy, MemoryLimit, SMALLEST_MEMORY_BYTES};

const ENVIRONMENT: &str = "\
A flag goes before its environment variable. A variable that is set to nothing
counts as not set; a flag --join with nothing behind it is refused.";

/// One node of a replicated cache that never loses an acknowledged write.
///
/// With no flags at all it is a cluster of one on 127.0.0.1. A write is answered
/// once it is on disk; every client may talk to any node.
///
/// There is no authentication and no TLS yet: listen on loopback or on a network
/// you trust.
#[derive(Debug, Clone, Parser)]
#[command(name = "cached", version, max_term_width = 100, after_help = ENVIRONMENT)]
pub struct Flags {
    /// The name of this node; no two members share one.
    #[arg(long, env = "CACHED_ID", default_value = "node1", value_name = "NAME")]
    pub id: String,

    /// Where clients connect; may be given several times. `:3001` means every
    /// address of this machine.
    #[arg(
        long,
        env = "CACHED_LISTEN",
        default_value = "127.0.0.1:3001",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub listen: Vec<String>,

    /// Where clients reach this node from outside, if that differs from the
    /// first --listen.
    #[arg(long, env = "CACHED_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,

    /// Where the other nodes connect; may be given several times.
    #[arg(
        long,
        env = "CACHED_PEER_LISTEN",
        default_value = "127.0.0.1:4001",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub peer_listen: Vec<String>,

    /// Where the other nodes reach this one, if that differs from the first
    /// --peer-listen.
    #[arg(long, env = "CACHED_PEER_ADVERTISE", value_name = "HOST:PORT")]
    pub peer_advertise: Option<String>,

    /// Client addresses of members of the cluster to join; may be given several
    /// times. A node that belongs to a cluster does not join again; if it was
    /// moved, it says there where it is now.
    #[arg(long, env = "CACHED_JOIN", value_name = "HOST:PORT", value_delimiter = ',')]
    pub join: Vec<String>,

    /// For this start only: set the data directory aside (nothing is deleted)
    /// and join the cluster of --join in the place of the lost node of this name.
    #[arg(long, env = "CACHED_REBUILD", value_parser = FalseyValueParser::new())]
    pub rebuild: bool,

    /// Whether an empty data directory without --join may become a new cluster.
    #[arg(long, env = "CACHED_BOOTSTRAP", value_name = "WHEN", default_value = "auto")]
    pub bootstrap: BootstrapFlag,

    /// Where everything durable is kept; created if missing.
    #[arg(long, env = "CACHED_DATA_DIR", value_name = "DIR", default_value = "data")]
    pub data_dir: PathBuf,

    /// How reads are made linearizable. `lease` asks nobody, and assumes that
    /// clocks run within 10 % of each other and count every pause; `read-index`
    /// asks a majority and assumes nothing.
    #[arg(long, env = "CACHED_READ_MODE", value_name = "MODE", default_value = "lease")]
    pub read_mode: ReadModeFlag,

    /// How long a request may wait before it is answered with what is known.
    #[arg(long, env = "CACHED_REQUEST_TIMEOUT_MS", default_value_t = 3000, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub request_timeout_ms: u64,

    /// How large the data set may grow before keys make way, as --max-memory-policy
    /// says, or writes that make it larger are refused. The leader's limit is what
    /// holds. Default: half of this machine's memory.
    #[arg(long, env = "CACHED_MAX_MEMORY_BYTES", value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(SMALLEST_MEMORY_BYTES..))]
    pub max_memory_bytes: Option<u64>,

    /// What makes way when the data set has grown as large as it may: by default
    /// nothing. `allkeys-…` takes any key, `volatile-…` those with a TTL; `lru` the
    /// one unused for longest, `lfu` the least used, `ttl` the one that ends first.
    #[arg(long, env = "CACHED_MAX_MEMORY_POLICY", value_name = "POLICY",
          default_value = "noeviction", ignore_case = true, value_parser = eviction_policy())]
    pub max_memory_policy: EvictionPolicy,

    /// How many clients may be connected.
    #[arg(long, env = "CACHED_MAX_CONNECTIONS", default_value_t = 10_000, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,

    /// How much of the log one file holds.
    #[arg(long, env = "CACHED_SEGMENT_BYTES", default_value_t = 64 << 20, value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(64 << 10..=1 << 30))]
    pub segment_bytes: u64,

    /// How large the log behind the last snapshot may grow before a new one is
    /// taken; it also has to be larger than that snapshot.
    #[arg(long, env = "CACHED_SNAPSHOT_LOG_BYTES", default_value_t = 64 << 20,
          value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub snapshot_log_bytes: u64,

    /// How much is logged.
    #[arg(long, env = "CACHED_LOG_LEVEL", value_name = "LEVEL", default_value = "info",
          ignore_case = true, value_parser = log_level())]
    pub log_level: log::LevelFilter,
}

impl Flags {
    /// Those of this process; who asks for help, or is wrong, ends here.
    pub fn of_process() -> Self {
        let unless_empty = |flag: Arg| match flag.get_env().and_then(std::env::var_os) {
            Some(value) if value.is_empty() => flag.env(Resettable::Reset),
            _ => flag,
        };
        let mut matches = Self::command().mut_args(unless_empty).get_matches();
        Self::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit())
    }
}

/// See [`ReadMode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReadModeFlag {
    /// By the promise of a majority.
    Lease,
    /// By asking a majority each time.
    ReadIndex,
}

impl From<ReadModeFlag> for ReadMode {
    fn from(flag: ReadModeFlag) -> Self {
        match flag {
            ReadModeFlag::Lease => Self::Lease,
            ReadModeFlag::ReadIndex => Self::ReadIndex,
        }
    }
}

/// When a node founds a cluster of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BootstrapFlag {
    /// If its directory is empty and it has nobody to join.
    Auto,
    /// Not even then.
    Never,
}

/// What is kept for the other nodes, and how long one waits for them.
#[derive(Debug, Clone)]
pub struct PeerLimits {
    /// The largest frame that is sent or taken.
    pub frame_bytes: usize,
    /// What waits to be written to one node's urgent link.
    pub urgent_queue_bytes: usize,
    /// What waits to be written to one node's link for entries. One frame is
    /// taken in any case.
    pub entries_queue_bytes: usize,
    /// Connections of nodes at a time.
    pub incoming_connections: usize,
    /// Connections at a time that have not said whose they are: for one more the
    /// oldest makes way.
    pub silent_connections: usize,
    /// What the frames that are not whole yet may hold together; the connection
    /// that would exceed it is closed.
    pub unfinished_total_bytes: usize,
    /// How long a connection may take to say whose it is.
    pub hello_timeout: Duration,
    /// How long dialling and being welcomed may take.
    pub dial_timeout: Duration,
    /// How long finding out who is at an address may take.
    pub probe_timeout: Duration,
    /// A connection that takes nothing for so long is dead.
    pub stall_timeout: Duration,
    /// How long the first rest between two dials is; it doubles.
    pub backoff_min: Duration,
    /// How long it gets.
    pub backoff_max: Duration,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            frame_bytes: 64 << 20,
            urgent_queue_bytes: 1 << 20,
            entries_queue_bytes: 64 << 20,
            incoming_connections: 128,
            silent_connections: 64,
            unfinished_total_bytes: 1 << 30,
            hello_timeout: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(2),
            probe_timeout: Duration::from_secs(2),
            stall_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
        }
    }
}

/// What one client may take of this node.
#[derive(Debug, Clone)]
pub struct ClientLimits {
    /// Connections at a time; one more is closed at once.
    pub connections: usize,
    /// Requests of one connection that may be unanswered; then it is not read.
    pub pipeline_requests: usize,
    /// Replies that one connection has not taken; then nothing more is taken in
    /// from it, and the replies behind wait as what they are, not as bytes.
    pub output_pause_bytes: usize,
    /// Replies that one connection has not taken and that end it: it asks for
    /// more than it reads. Larger than the largest reply.
    pub output_limit_bytes: usize,
    /// Unfinished requests and untaken replies of all connections together; the
    /// connection that would exceed it is closed.
    pub buffers_total_bytes: usize,
    /// What is done for all clients between two looks at what other nodes say:
    /// commands taken in, or kilobytes read and written.
    pub turn_work: usize,
    /// How long a client may take no byte of its replies.
    pub slow_reader_timeout: Duration,
    /// How long a request may be unfinished.
    pub partial_request_timeout: Duration,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            pipeline_requests: 1024,
            output_pause_bytes: 1 << 20,
            output_limit_bytes: 128 << 20,
            buffers_total_bytes: 512 << 20,
            turn_work: 8192,
            slow_reader_timeout: Duration::from_secs(60),
            partial_request_timeout: Duration::from_secs(30),
        }
    }
}

/// Everything a server has to know.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The node's name.
    pub name: String,
    /// Where to accept clients.
    pub listen: Vec<String>,
    /// Where clients reach the node.
    pub advertise: String,
    /// Where to accept the other nodes.
    pub peer_listen: Vec<String>,
    /// Where the other nodes reach this one. An unspecified host is filled in by
    /// whoever is told.
    pub peer_advertise: String,
    /// Client addresses of whom to join.
    pub join: Vec<String>,
    /// Join in the place of a lost node of this name.
    pub rebuild: bool,
    /// Whether an empty directory may become a new cluster.
    pub bootstrap: bool,
    /// What is durable.
    pub data_dir: PathBuf,
    /// How reads are made safe.
    pub read_mode: ReadMode,
    /// How long a request may wait.
    pub request_timeout: Duration,
    /// How large the data set may grow.
    pub memory: MemoryLimit,
    /// How large a journal file is.
    pub segment_bytes: u64,
    /// When a snapshot is taken.
    pub snapshot_log_bytes: u64,
    /// What one client may take.
    pub clients: ClientLimits,
    /// What is kept for the other nodes.
    pub peers: PeerLimits,
}

impl TryFrom<Flags> for ServerConfig {
    type Error = String;

    fn try_from(flags: Flags) -> Result<Self, String> {
        if flags.id.is_empty() || flags.id.len() > 255 {
            return Err("--id: a name has 1 to 255 bytes".into());
        }
        if flags.id.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err("--id: a name has no spaces".into());
        }
        let (listen, advertise) = reached_at("--listen", &flags.listen, &flags.advertise)?;
        let (peer_listen, peer_advertise) =
            reached_at("--peer-listen", &flags.peer_listen, &flags.peer_advertise)?;
        // A list may end in a comma.
        let named = flags.join.iter().filter(|address| !address.trim().is_empty());
        let join = named.map(|address| joinable(address)).collect::<Result<Vec<_>, _>>()?;
        if flags.rebuild && join.is_empty() {
            return Err("--rebuild: from whom? Name members of the cluster with --join".into());
        }
        // Somebody's list of members has come out empty: this is no founder.
        if !flags.join.is_empty() && join.is_empty() {
            return Err(
                "--join: whom? Name a member, or leave the flag out to begin a new cluster".into(),
            );
        }
        Ok(Self {
            name: flags.id,
            advertise,
            listen,
            peer_listen,
            peer_advertise,
            join,
            rebuild: flags.rebuild,
            bootstrap: flags.bootstrap == BootstrapFlag::Auto,
            data_dir: flags.data_dir,
            read_mode: flags.read_mode.into(),
            request_timeout: Duration::from_millis(flags.request_timeout_ms),
            memory: MemoryLimit {
                bytes: flags.max_memory_bytes.unwrap_or_else(os::half_of_memory_bytes),
                eviction: flags.max_memory_policy,
            },
            segment_bytes: flags.segment_bytes,
            snapshot_log_bytes: flags.snapshot_log_bytes,
            clients: ClientLimits {
                connections: flags.max_connections as usize,
                ..Default::default()
            },
            peers: PeerLimits::default(),
        })
    }
}

fn log_level() -> impl TypedValueParser<Value = log::LevelFilter> {
    let names = ["off", "error", "warn", "info", "debug", "trace"];
    PossibleValuesParser::new(names).try_map(|name| name.parse::<log::LevelFilter>())
}

fn eviction_policy() -> impl TypedValueParser<Value = EvictionPolicy> {
    let find = |name: String| EvictionPolicy::find(&name).ok_or("no such policy");
    PossibleValuesParser::new(EvictionPolicy::ALL.map(EvictionPolicy::name)).try_map(find)
}

/// Where to listen, and where others are told to connect.
fn reached_at(
    flag: &str,
    listen: &[String],
    advertise: &Option<String>,
) -> Result<(Vec<String>, String), String> {
    let listen = listen.iter().map(|address| normalise(flag, address));
    let listen = listen.collect::<Result<Vec<_>, _>>()?;
    let first = listen.first().ok_or_else(|| format!("{flag}: an address is needed"))?;
    let advertise = match advertise {
        Some(address) if !address.is_empty() => {
            normalise(&flag.replace("listen", "advertise"), address)?
        }
        _ => first.clone(),
    };
    Ok((listen, advertise))
}

/// An address to join may be what a browser would be given.
fn joinable(address: &str) -> Result<String, String> {
    let address = without_scheme(address.trim());
    if address.contains("://") {
        return Err(format!("--join: {address:?} is not HOST:PORT"));
    }
    let address = normalise("--join", address)?;
    Ok(match address.strip_prefix("0.0.0.0:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => address,
    })
}

/// Checks `HOST:PORT`; no host means every address of this machine.
fn normalise(flag: &str, address: &str) -> Result<String, String> {
    let wrong = || format!("{flag}: {address:?} is not HOST:PORT");
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    port.parse::<u16>().map_err(|_| wrong())?;
    if address.len() > Membership::TEXT_LIMIT_BYTES {
        return Err(format!(
            "{flag}: an address has at most {} bytes",
            Membership::TEXT_LIMIT_BYTES
        ));
    }
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<ServerConfig, String> {
        let args = std::iter::once("cached").chain(args.iter().copied());
        Flags::try_parse_from(args).map_err(|error| error.to_string())?.try_into()
    }

    #[test]
    fn no_flags_are_a_cluster_of_one_on_loopback() {
        let config = parse(&[]).unwrap();
        assert_eq!(config.listen, ["127.0.0.1:3001"]);
        assert_eq!(config.advertise, "127.0.0.1:3001");
        assert!(config.memory.bytes > 0);
        assert_eq!(config.memory.eviction, EvictionPolicy::NoEviction);
    }

    #[test]
    fn addresses_come_in_every_usual_form() {
        let args = ["--listen", ":3001", "--listen", "[::1]:1,localhost:2"];
        assert_eq!(parse(&args).unwrap().listen, ["0.0.0.0:3001", "[::1]:1", "localhost:2"]);
        for wrong in ["3001", "localhost", "a:b", "a:70000"] {
            let error = parse(&["--listen", wrong]).unwrap_err();
            assert!(error.contains("--listen") && error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let wrong: [&[&str]; 6] = [
            &["--max-connections", "0"],
            &["--max-memory-bytes", "0"],
            &["--snapshot-log-bytes", "0"],
            &["--join", "https://a:1"],
            &["--id", "a b"],
            &["--rebuild", "--join", ""],
        ];
        for args in wrong {
            assert!(parse(args).unwrap_err().contains(args[0]), "{args:?}");
        }
        for nobody in ["", ",", " "] {
            assert!(parse(&["--join", nobody]).unwrap_err().contains("--join: whom?"));
        }
        assert_eq!(parse(&["--join", "a:1,", "--advertise", ""]).unwrap().join, ["a:1"]);
    }

    #[test]
    fn whom_to_join_is_put_in_every_usual_form() {
        let join = |value| parse(&["--join", value]).unwrap().join;
        assert_eq!(join("a:1,http://b:2/"), ["a:1", "b:2"]);
        assert_eq!(join(":3001"), ["127.0.0.1:3001"]);
        assert!(parse(&["--join", "a"]).unwrap_err().contains("--join"));
        assert!(parse(&["--rebuild"]).unwrap_err().contains("--join"));
        let config = parse(&["--peer-listen", ":4001", "--bootstrap", "never"]).unwrap();
        assert_eq!(config.peer_advertise, "0.0.0.0:4001");
        assert!(!config.bootstrap);
    }

    #[test]
    fn wrong_flags_are_named() {
        assert!(parse(&["--read-mode", "guess"]).unwrap_err().contains("--read-mode"));
        assert!(parse(&["--id", ""]).unwrap_err().contains("--id"));
        let loud = parse(&["--log-level", "loud"]).unwrap_err();
        assert!(loud.contains("--log-level") && loud.contains("warn, info"), "{loud}");
        assert!(parse(&["--log-level", "WARN"]).is_ok());
        let policy = parse(&["--max-memory-policy", "lru"]).unwrap_err();
        assert!(policy.contains("allkeys-lru"), "{policy}");
        let config = parse(&["--max-memory-policy", "AllKeys-LFU"]).unwrap();
        assert_eq!(config.memory.eviction, EvictionPolicy::AllKeysLfu);
        assert!(parse(&["--request-timeout-ms", "0"]).unwrap_err().contains("0"));
    }
}
