//! The arguments of a command in a script, and the settings they can make.

use std::time::Duration;

use goldenscript::{Argument, Command};
use raftcache::raft::{Config, NodeId, ReadMode};

use super::harness::n;
use super::notebook::Outcome;

/// The arguments of one command.
pub struct Args {
    pub plain: Vec<String>,
    pub keyed: Vec<(String, String)>,
}

impl Args {
    pub fn of(command: &Command) -> Self {
        let (mut plain, mut keyed) = (Vec::new(), Vec::new());
        for argument in &command.args {
            match argument {
                Argument::Positional(value) => plain.push(value.clone()),
                Argument::KeyValue(key, value) => keyed.push((key.clone(), value.clone())),
                other => plain.push(other.to_string()),
            }
        }
        Self { plain, keyed }
    }

    pub fn key(&self, name: &str) -> Option<&str> {
        self.keyed.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn number(&self, name: &str) -> Outcome<Option<u64>> {
        Ok(self.key(name).map(str::parse).transpose()?)
    }

    pub fn plain_number(&self, place: usize) -> Outcome<u64> {
        Ok(self.plain.get(place).ok_or("a number is missing")?.parse()?)
    }

    pub fn node(&self, place: usize) -> Outcome<NodeId> {
        Ok(n(u128::from(self.plain_number(place)?)))
    }

    /// The nodes from this argument on, or else `all`.
    pub fn nodes(&self, place: usize, all: Vec<NodeId>) -> Outcome<Vec<NodeId>> {
        if self.plain.len() <= place {
            return Ok(all);
        }
        (place..self.plain.len()).map(|place| self.node(place)).collect()
    }
}

/// Limits so small that a story soon meets them, if it asks for that.
pub fn settings(id: NodeId, args: &Args) -> Outcome<Config> {
    let mut config = Config::new(id, 0);
    let limit = |name: &str, default: usize| -> Outcome<usize> {
        Ok(args.number(name)?.map(usize::try_from).transpose()?.unwrap_or(default))
    };
    config.log_tail_bytes = limit("tail", config.log_tail_bytes)?;
    config.append_bytes = limit("append", config.append_bytes)?;
    config.inflight_bytes = limit("window", config.inflight_bytes)?;
    config.disk_lag_bytes = limit("lag", config.disk_lag_bytes)?;
    if let Some(length) = args.number("promise")? {
        config.promise = Duration::from_millis(length);
    }
    if args.key("reads") == Some("index") {
        config.read_mode = ReadMode::ReadIndex;
    }
    Ok(config)
}
