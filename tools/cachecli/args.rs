//! What can be typed, on the command line and at the prompt alike.

use std::time::Duration;

use clap::{Args as Group, Parser, Subcommand, ValueEnum};
use raftcache::client::without_scheme;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the key is missing, or a value read back is not what was written
  2  wrong usage
  3  no node could be reached; nothing took effect
  4  refused, for example: no leader, out of memory, a condition that does not hold
  5  outcome unknown: the write may or may not have taken effect

Without a command, an interactive prompt that takes the same commands.";

/// Talk to a raftcache cluster.
#[derive(Debug, Parser)]
#[command(name = "cachecli", version, after_help = EXIT_CODES)]
pub struct Args {
    #[command(flatten)]
    pub options: Options,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// `HOST:PORT`, `:PORT` or a URL of that.
fn address(text: &str) -> Result<String, String> {
    let port = without_scheme(text).rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    port.map(|_| text.to_owned()).ok_or_else(|| "not HOST:PORT".to_owned())
}

/// What holds for every command.
#[derive(Debug, Clone, Group)]
pub struct Options {
    /// Client addresses of nodes, separated by commas; any node serves any
    /// command, the others are for when it fails
    #[arg(
        long,
        global = true,
        env = "CACHECLI_ADDR",
        value_delimiter = ',',
        value_parser = address,
        default_value = "127.0.0.1:3001"
    )]
    pub addr: Vec<String>,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// How long to wait for a connection and for each reply
    #[arg(long, global = true, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout_ms: u64,
    /// The database, 0 to 15
    #[arg(long, global = true, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..16))]
    pub db: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// One JSON value
    Json,
    /// Nothing but the value, byte by byte; of several things a line each, with
    /// tabs and no header
    Raw,
}

/// A line of the prompt.
#[derive(Debug, Parser)]
#[command(name = "", no_binary_name = true, disable_version_flag = true)]
pub struct Line {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Store a value
    Set {
        key: String,
        /// The value, or - to read it from standard input
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// Let the key expire, for example after 10s, 500ms or 2h; a number
        /// alone is seconds
        #[arg(long, value_parser = duration, conflicts_with = "keep_ttl")]
        ttl: Option<Duration>,
        /// Leave the key's deadline as it is
        #[arg(long)]
        keep_ttl: bool,
        /// Only if the key is absent
        #[arg(long, conflicts_with = "xx")]
        nx: bool,
        /// Only if the key is present
        #[arg(long)]
        xx: bool,
    },
    /// Print a value
    Get {
        key: String,
        /// Take what the node has, without asking the leader
        #[arg(long)]
        stale: bool,
    },
    /// Print several values, read at one moment
    ///
    /// Raw output has a line for each key that is there, the key, a tab, the value,
    /// and none for one that is missing; then the exit code is 1. For values that
    /// may hold line ends there is JSON.
    Mget {
        #[arg(required = true)]
        keys: Vec<String>,
        /// Take what the node has, without asking the leader
        #[arg(long)]
        stale: bool,
    },
    /// Remove keys
    Del {
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// Say whether a key is there
    Exists { key: String },
    /// Say how long a key has left
    Ttl { key: String },
    /// Let a key expire
    Expire {
        key: String,
        /// For example 10s, 500ms or 2h; a number alone is seconds
        #[arg(value_parser = duration)]
        after: Duration,
    },
    /// Take a key's deadline away
    Persist { key: String },
    /// Add to a number
    Incr {
        key: String,
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        by: i64,
    },
    /// Replace a value if it is what you think it is
    Cas {
        key: String,
        /// The new value, or - to read it from standard input
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// The value it must have now
        #[arg(
            long,
            allow_hyphen_values = true,
            required_unless_present = "version",
            conflicts_with = "version"
        )]
        old: Option<String>,
        /// The version it must have now; 0 for absent
        #[arg(long)]
        version: Option<u64>,
    },
    /// Write many generated keys
    Seed(Many),
    /// Read generated keys back and verify them
    Read(Many),
    /// Write K_0 to K_9 through the leader
    Runset,
    /// Read K_0 to K_9 from a follower
    Runget,
    /// Add a node to the cluster
    Join {
        /// Its name
        name: String,
        /// The address at which the other nodes reach it
        peer_address: String,
    },
    /// Remove a member for good
    Leave {
        /// Its name, or one of its addresses
        name: String,
    },
    /// List the members
    Members,
    /// Show how every node is
    Status,
    /// Hand leadership over
    Transfer {
        /// To whom; the most caught-up voter if left out
        to: Option<String>,
    },
    /// Measure, verifying what is read
    Bench(Bench),
}

#[derive(Debug, Clone, Group)]
pub struct Many {
    /// How many keys
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: u64,
    /// The size of each value
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(4..=(16 << 20)))]
    pub value_bytes: u32,
}

#[derive(Debug, Clone, Group)]
pub struct Bench {
    /// Connections, each with a closed loop of its own
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub clients: u32,
    /// Requests in flight per connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub pipeline: u32,
    /// The size of each value
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(4..=(16 << 20)))]
    pub value_bytes: u32,
    /// The number of keys, chosen evenly
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: u64,
    /// Which part of the requests read, 0 to 1
    #[arg(long, default_value_t = 0.5, value_parser = share)]
    pub read_share: f64,
    /// Read what the node has, without asking the leader
    #[arg(long)]
    pub stale: bool,
    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// Do not write every key once before measuring reads
    #[arg(long)]
    pub no_prepare: bool,
}

/// `10s`, `500ms`, `2m`, `1h`; a number alone is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms = match &text[digits.len()..] {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("the unit is one of ms, s, m, h".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "not a whole number".to_owned())?;
    match number.checked_mul(unit_ms) {
        Some(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err("out of range".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("not between 0 and 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
        Line::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["", "s", "-1s", "1d", "0", "99999999999999999999s", "9999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
