//! JSON that is read, and JSON that is written.
//!
//! What is read is an object of strings, pair by pair, so that how much memory a
//! body takes does not depend on how it is nested or how small its parts are.

use serde::Deserializer as _;
use serde::de::{Error as _, MapAccess, Visitor};
use serde_json::{Value, json};

use crate::request::{MemberInfo, Status};

/// The pairs of an object whose values are strings, at most `limit`.
pub fn pairs(body: &[u8], limit: usize) -> Result<Vec<(String, String)>, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let pairs = reader.deserialize_map(Pairs { limit })?;
    reader.end()?;
    Ok(pairs)
}

struct Pairs {
    limit: usize,
}

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(String, String)>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            if pairs.len() == self.limit {
                return Err(A::Error::custom(format!("more than {} keys", self.limit)));
            }
            pairs.push(pair);
        }
        Ok(pairs)
    }
}

/// At most how many bytes a text takes in a document.
pub fn text_bytes(text: &str) -> usize {
    let size = |byte: u8| match byte {
        b'"' | b'\\' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(size).sum()
}

/// One pair.
pub fn pair(key: &str, value: &str) -> Value {
    let mut object = serde_json::Map::new();
    object.insert(key.to_owned(), value.into());
    Value::Object(object)
}

/// What `/status` says. Numbers that a double cannot hold are strings.
pub fn status(status: &Status) -> Value {
    let leader = status.members.iter().find(|member| member.leader);
    let followers = status.members.iter().filter(|member| !member.leader);
    let me = status.members.iter().find(|member| member.node == status.node);
    let unknown = || json!({ "id": status.name, "address": "", "client_address": "" });
    json!({
        "me": me.map_or_else(unknown, member),
        "leader": leader.map(member),
        "followers": followers.map(member).collect::<Vec<_>>(),
        "role": status.role.name(),
        "health": if status.warnings.is_empty() { "ok" } else { "warning" },
        "warnings": status.warnings,
        "cluster": format!("{:032x}", status.cluster),
        "node": format!("{:032x}", status.node),
        "term": status.term,
        "last_index": status.last,
        "durable_index": status.durable,
        "commit_index": status.commit,
        "applied_index": status.applied,
        "log_bytes": status.log_bytes,
        "keys": status.keys,
        "memory_bytes": status.memory_bytes,
        "memory_limit_bytes": status.memory_limit_bytes,
        "state_hash": format!("{:016x}", status.state_hash),
        "log_time_ms": status.log_time_ms,
        "clock_offset_ms": status.clock_offset_ms,
    })
}

fn member(member: &MemberInfo) -> Value {
    json!({
        "id": member.name,
        "address": member.peer_address,
        "client_address": member.client_address,
        "voter": member.voter,
    })
}
