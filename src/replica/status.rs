//! How a replica is, for people.

use std::time::Duration;

use super::Replica;
use super::clock::Now;
use crate::fsm::Fsm;
use crate::raft::{Raft, Role};
use crate::request::{MemberInfo, RoleName, Status};

/// What a replica has done since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// It can vouch for its state.
    pub serves: bool,
    /// Keys past their deadline that it removed.
    pub expired: u64,
    /// Keys that it chose to make way for others.
    pub evicted: u64,
    /// Requests that it sent on to the leader.
    pub forwarded: u64,
    /// Elections that it stood for.
    pub elections: u64,
    /// Snapshots of its own.
    pub snapshots_written: u64,
    /// Snapshots of others that it took over.
    pub snapshots_installed: u64,
    /// The size of the newest snapshot file.
    pub last_snapshot_bytes: u64,
    /// How long the last one of its own took.
    pub last_snapshot_took: Duration,
}

/// Log time and wall clock further apart than this are worth a look.
const OFFSET_WARNING_MS: u64 = 1000;

impl Replica {
    /// Its consensus, to look at.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// Its state, to look at.
    pub fn fsm(&self) -> &Fsm {
        &self.fsm
    }

    /// What it has done since its start.
    pub fn counts(&self) -> Counts {
        Counts {
            serves: self.fault.is_none(),
            evicted: self.evictions.evicted(),
            elections: self.raft.elections(),
            last_snapshot_bytes: self.snapshots.newest.map_or(0, |newest| newest.size_bytes),
            ..self.counts
        }
    }

    /// The members, in order of their names.
    pub(super) fn members(&self) -> Vec<MemberInfo> {
        let leader = self.raft.leader();
        let members = self.raft.membership().iter().map(|(node, member)| MemberInfo {
            name: member.name.clone(),
            node: node.0,
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
            voter: member.voter,
            leader: leader == Some(node),
            durable: self.raft.durable_at(node).map(|index| index.0),
        });
        let mut members: Vec<MemberInfo> = members.collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members
    }

    fn role_name(&self) -> RoleName {
        let membership = self.raft.membership();
        match self.raft.role() {
            Role::Leader(_) => RoleName::Leader,
            _ if membership.is_empty() => RoleName::Joining,
            _ if !membership.is_voter(self.raft.id()) => RoleName::Learner,
            Role::PreCandidate(_) | Role::Candidate(_) => RoleName::Candidate,
            Role::Follower(_) => RoleName::Follower,
        }
    }

    pub(super) fn status(&self, now: Now) -> Status {
        let members = self.members();
        let leader = members.iter().find(|member| member.leader);
        Status {
            name: self.config.name.clone(),
            node: self.raft.id().0,
            cluster: self.config.cluster.map_or(0, |cluster| cluster.0),
            role: self.role_name(),
            leader: leader.map(|member| member.name.clone()),
            term: self.raft.term().0,
            last: self.raft.last().index.0,
            durable: self.raft.durable_index().0,
            commit: self.raft.commit().0,
            applied: self.fsm.applied(),
            log_bytes: self.log_bytes,
            keys: self.fsm.keys(),
            memory_bytes: self.fsm.memory_bytes(),
            memory_limit_bytes: self.config.memory.bytes,
            state_hash: self.fsm.contents_hash(),
            log_time_ms: self.log_time_ms(now),
            clock_offset_ms: self.clock.offset_ms(now),
            warnings: self.warnings(now),
            members,
        }
    }

    fn warnings(&self, now: Now) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(fault) = &self.fault {
            warnings.push(format!("not serving: {fault}"));
        }
        if !self.raft.has_room() {
            warnings.push("the disk is full: this node stores only what it must".to_owned());
        } else if self.leads && !self.raft.leads_with_room(now.time) {
            warnings.push("too many disks are full: writes are refused".to_owned());
        }
        let offset_ms = self.clock.offset_ms(now);
        if offset_ms.unsigned_abs() > OFFSET_WARNING_MS {
            warnings.push(format!("log time is {offset_ms} ms ahead of this node's wall clock"));
        }
        warnings
    }
}
