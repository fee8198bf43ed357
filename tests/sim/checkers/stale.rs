//! A stale read may be old, but one node does not go back in time.

use std::collections::BTreeMap;

/// What a stale read found.
#[derive(Debug, Clone)]
pub struct Seen {
    pub connection: u64,
    pub node: u64,
    /// Another one after each start of the node.
    pub incarnation: u64,
    pub key: String,
    /// It grows with each change of the key, deletions between included; `None` if absent.
    pub version: Option<u64>,
}

/// Versions never decrease, in the order in which one connection was told them. What
/// was absent says nothing: how old that is, nobody was told.
pub fn check(seen: &[Seen]) -> Result<(), String> {
    let mut newest = BTreeMap::new();
    for Seen { connection, node, incarnation, key, version } in seen {
        let Some(version) = version else { continue };
        let before = newest.insert((connection, node, incarnation, key), version);
        if let Some(before) = before.filter(|before| version < before) {
            return Err(format!(
                "connection {connection}, node {node}.{incarnation}: \
                 {key} went back from version {before} to {version}"
            ));
        }
    }
    Ok(())
}
