//! One table over all nodes.
//!
//! Any node knows the members; each then speaks for itself. One that does not
//! answer has a row that says so, and one that turns out to be of another cluster
//! than most a warning: it is compared with nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use raftcache::client::Error;
use raftcache::request::{MemberInfo, Status};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::commands::{Outcome, Session, client_of};
use crate::output::{Shown, size};

/// A healthy node says how it is at once.
const PATIENCE: Duration = Duration::from_secs(1);

const HEADER: [&str; 11] =
    ["id", "client", "peer", "role", "term", "commit", "applied", "log", "keys", "memory", "lag"];

/// A member, and what it says of itself.
pub struct Node {
    pub member: MemberInfo,
    pub status: Result<Status, Error>,
}

impl Node {
    /// What it says of itself, if it is a node of this cluster; one that has yet
    /// to be taken in is of any.
    pub fn of(&self, cluster: u128) -> Option<&Status> {
        let is_stranger = |status: &Status| ![0, cluster].contains(&status.cluster);
        self.status.as_ref().ok().filter(|status| !is_stranger(status))
    }
}

/// The cluster that most of them belong to; of two, the one that has done more.
pub fn home(nodes: &[Node]) -> u128 {
    let mut clusters: BTreeMap<u128, (usize, u64)> = BTreeMap::new();
    for status in nodes.iter().filter_map(|node| node.status.as_ref().ok()) {
        let (count, commit) = clusters.entry(status.cluster).or_default();
        (*count, *commit) = (*count + 1, status.commit.max(*commit));
    }
    clusters.remove(&0);
    clusters.into_iter().max_by_key(|&(_, rank)| rank).map_or(0, |(cluster, _)| cluster)
}

/// Asks a node for the members and every member for its status, in the order
/// of their names.
pub async fn ask_all(session: &mut Session) -> Result<Vec<Node>, Error> {
    let members = session.client.members().await?;
    let timeout = session.options.timeout().min(PATIENCE);
    let mut asked = JoinSet::new();
    for member in members {
        asked.spawn(async move {
            let status = client_of(&[&member.client_address], timeout).status().await;
            Node { member, status }
        });
    }
    let mut nodes = asked.join_all().await;
    nodes.sort_by(|a, b| a.member.name.cmp(&b.member.name));
    Ok(nodes)
}

/// `status`
pub async fn show(session: &mut Session) -> Outcome {
    let nodes = ask_all(session).await?;
    let home = home(&nodes);
    let commit = nodes.iter().filter_map(|node| Some(node.of(home)?.commit)).max().unwrap_or(0);
    let lag = |node: &Node| Some(commit.saturating_sub(node.of(home)?.applied));
    let rows: Vec<_> = nodes.iter().map(|node| row(node, lag(node))).collect();
    let json: Vec<_> = nodes.iter().map(|node| node_json(node, lag(node))).collect();
    let warnings: String = nodes.iter().map(|node| warnings(node, home)).collect();
    Ok(Shown::rows(&HEADER, &rows, json.into()).with_note(&warnings))
}

/// What it says, and what is said of it.
fn warnings(node: &Node, home: u128) -> String {
    let Ok(status) = &node.status else { return String::new() };
    let foreign = format!("belongs to another cluster ({:032x})", status.cluster);
    let foreign = node.of(home).is_none().then_some(&foreign);
    let warning = |text| format!("warning: {}: {text}\n", node.member.name);
    status.warnings.iter().chain(foreign).map(warning).collect()
}

fn row(node: &Node, lag: Option<u64>) -> Vec<String> {
    let member = &node.member;
    let mut row =
        vec![member.name.clone(), member.client_address.clone(), member.peer_address.clone()];
    match &node.status {
        Ok(status) => row.extend([
            status.role.name().to_owned(),
            status.term.to_string(),
            status.commit.to_string(),
            status.applied.to_string(),
            size(status.log_bytes),
            status.keys.to_string(),
            size(status.memory_bytes),
            lag.map_or("-".to_owned(), |lag| lag.to_string()),
        ]),
        Err(_) => {
            row.push("unreachable".to_owned());
            row.resize(HEADER.len(), "-".to_owned());
        }
    }
    row
}

fn node_json(node: &Node, lag: Option<u64>) -> Value {
    let mut json = member_json(&node.member);
    match &node.status {
        Ok(status) => {
            json["role"] = status.role.name().into();
            json["known_leader"] = json!(status.leader);
            json["term"] = status.term.into();
            json["last"] = status.last.into();
            json["durable"] = status.durable.into();
            json["commit"] = status.commit.into();
            json["applied"] = status.applied.into();
            json["lag"] = json!(lag);
            json["log_bytes"] = status.log_bytes.into();
            json["keys"] = status.keys.into();
            json["memory_bytes"] = status.memory_bytes.into();
            json["memory_limit_bytes"] = status.memory_limit_bytes.into();
            json["state_hash"] = format!("{:016x}", status.state_hash).into();
            json["log_time_ms"] = status.log_time_ms.into();
            json["clock_offset_ms"] = status.clock_offset_ms.into();
            json["cluster"] = format!("{:032x}", status.cluster).into();
            json["warnings"] = json!(status.warnings);
        }
        Err(error) => {
            json["role"] = "unreachable".into();
            json["error"] = error.to_string().into();
        }
    }
    json
}

fn member_json(member: &MemberInfo) -> Value {
    json!({
        "id": member.name,
        "node": format!("{:032x}", member.node),
        "client_address": member.client_address,
        "peer_address": member.peer_address,
        "voter": member.voter,
        "leader": member.leader,
    })
}

/// `members`
pub async fn members(session: &mut Session) -> Outcome {
    let members = session.client.members().await?;
    let row = |member: &MemberInfo| {
        let part = if member.voter { "voter" } else { "learner" };
        let leads = if member.leader { "leader" } else { "" };
        vec![
            member.name.clone(),
            member.client_address.clone(),
            member.peer_address.clone(),
            part.to_owned(),
            leads.to_owned(),
        ]
    };
    let rows: Vec<_> = members.iter().map(row).collect();
    let json: Vec<_> = members.iter().map(member_json).collect();
    Ok(Shown::rows(&["id", "client", "peer", "part", "leads"], &rows, json.into()))
}
