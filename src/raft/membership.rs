//! Who belongs to the cluster, and which changes are legal.
//!
//! A configuration is an entry like any other, except that a node uses it from
//! the moment it is in its log, committed or not, and goes back to the one
//! before if that entry is truncated (thesis section 4.1). Changes add or
//! remove one voter at a time, so any majority of the old configuration meets
//! any majority of the new one. A newcomer is a learner first: it receives
//! everything and counts for nothing until it has caught up.

use std::collections::BTreeMap;
use std::fmt;

use bytes::BufMut;

use super::entry::{Index, NodeId};
use crate::encoding::{Malformed, Reader, put_bytes};
use crate::mutants::{self, Mutant};

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What people call it; no two members share a name.
    pub name: String,
    /// Where its peers reach it.
    pub peer_address: String,
    /// Where clients reach it.
    pub client_address: String,
    /// Whether it counts in the quorum; a learner does not.
    pub voter: bool,
}

impl Member {
    /// A member with made-up addresses.
    #[cfg(test)]
    pub fn test(name: &str, voter: bool) -> Self {
        Self {
            name: name.to_owned(),
            peer_address: format!("{name}:4001"),
            client_address: format!("{name}:3001"),
            voter,
        }
    }
}

/// A change of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Take in a node as a learner.
    AddLearner(NodeId, Member),
    /// Let a learner count.
    Promote(NodeId),
    /// A member can be reached elsewhere now.
    Readdress {
        /// Which.
        node: NodeId,
        /// Where its peers reach it.
        peer_address: String,
        /// Where clients reach it.
        client_address: String,
    },
    /// Remove a member for good.
    Remove(NodeId),
}

/// Why a change makes no sense in the present configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// The node is a member already.
    #[error("{0} is a member already")]
    AlreadyMember(NodeId),
    /// Another member has that name.
    #[error("the name {0:?} belongs to another member")]
    NameTaken(String),
    /// The node is no member.
    #[error("{0} is no member")]
    NotMember(NodeId),
    /// The member is a voter already.
    #[error("{0} is a voter already")]
    AlreadyVoter(NodeId),
    /// Nobody would be left to vote.
    #[error("the last voter cannot be removed")]
    LastVoter,
    /// A name or address is too long, or the name is empty.
    #[error("a name has 1 to {limit} bytes, an address at most as many", limit = Membership::TEXT_LIMIT_BYTES)]
    Text,
    /// The configuration is as large as it may be.
    #[error("the cluster has {limit} members, which is the limit", limit = Membership::LIMIT)]
    Full,
}

/// A configuration: every member, voters and learners.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    members: BTreeMap<NodeId, Member>,
}

impl Membership {
    /// More members than this make every write slower and nothing safer.
    pub const LIMIT: usize = 31;

    /// The longest name or address that is taken in.
    pub const TEXT_LIMIT_BYTES: usize = 255;

    /// Takes in or replaces a member.
    pub fn insert(&mut self, node: NodeId, member: Member) {
        self.members.insert(node, member);
    }

    /// The member with this identity.
    pub fn get(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node)
    }

    /// The member with this name.
    pub fn by_name(&self, name: &str) -> Option<(NodeId, &Member)> {
        self.iter().find(|(_, member)| member.name == name)
    }

    /// Every member, in order of identity.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.members.iter().map(|(&node, member)| (node, member))
    }

    /// Those who count.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> + Clone {
        self.members.iter().filter(|(_, member)| member.voter).map(|(&node, _)| node)
    }

    /// Whether this node counts.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(|member| member.voter)
    }

    /// Whether this node belongs here at all.
    pub fn contains(&self, node: NodeId) -> bool {
        self.members.contains_key(&node)
    }

    /// Whether nobody belongs here: a node that has not joined yet.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// About how many bytes the encoding takes.
    pub fn size(&self) -> usize {
        let member =
            |m: &Member| 16 + 1 + 12 + m.name.len() + m.peer_address.len() + m.client_address.len();
        4 + self.members.values().map(member).sum::<usize>()
    }

    /// The configuration after a change, or why there is none.
    pub fn with(&self, change: &Change) -> Result<Self, Illegal> {
        let mut next = self.clone();
        match change {
            Change::AddLearner(node, member) => {
                if self.contains(*node) {
                    return Err(Illegal::AlreadyMember(*node));
                }
                if self.by_name(&member.name).is_some() {
                    return Err(Illegal::NameTaken(member.name.clone()));
                }
                if self.members.len() >= Self::LIMIT {
                    return Err(Illegal::Full);
                }
                check_text(&member.peer_address, &member.client_address)?;
                if member.name.is_empty() || member.name.len() > Self::TEXT_LIMIT_BYTES {
                    return Err(Illegal::Text);
                }
                next.insert(*node, Member { voter: false, ..member.clone() });
            }
            Change::Promote(node) => {
                let member = next.members.get_mut(node).ok_or(Illegal::NotMember(*node))?;
                if member.voter {
                    return Err(Illegal::AlreadyVoter(*node));
                }
                member.voter = true;
            }
            Change::Readdress { node, peer_address, client_address } => {
                let member = next.members.get_mut(node).ok_or(Illegal::NotMember(*node))?;
                check_text(peer_address, client_address)?;
                member.peer_address.clone_from(peer_address);
                member.client_address.clone_from(client_address);
            }
            Change::Remove(node) => {
                next.members.remove(node).ok_or(Illegal::NotMember(*node))?;
                if next.voters().next().is_none() {
                    return Err(Illegal::LastVoter);
                }
            }
        }
        Ok(next)
    }

    /// Appends: count u32, then per member identity u128, voter u8, name, peer
    /// address and client address.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        let count = u32::try_from(self.members.len()).expect("at most LIMIT members");
        buffer.put_u32_le(count);
        for (node, member) in self.iter() {
            buffer.put_u128_le(node.0);
            buffer.put_u8(u8::from(member.voter));
            put_bytes(buffer, member.name.as_bytes());
            put_bytes(buffer, member.peer_address.as_bytes());
            put_bytes(buffer, member.client_address.as_bytes());
        }
    }

    /// Reads what [`Membership::encode`] wrote.
    pub fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        let count = reader.count(16 + 1 + 12)?;
        if count > Self::LIMIT {
            return Err(Malformed("more members than there may be"));
        }
        let mut membership = Self::default();
        for _ in 0..count {
            let node = NodeId(reader.u128()?);
            let voter = reader.bool()?;
            let name = reader.string()?;
            let peer_address = reader.string()?;
            let client_address = reader.string()?;
            membership.insert(node, Member { name, peer_address, client_address, voter });
        }
        Ok(membership)
    }
}

fn check_text(peer_address: &str, client_address: &str) -> Result<(), Illegal> {
    let longest = peer_address.len().max(client_address.len());
    if longest <= Membership::TEXT_LIMIT_BYTES { Ok(()) } else { Err(Illegal::Text) }
}

/// The configurations that still matter, oldest first: the one in force at the
/// last applied entry, and every later one in the log.
///
/// Invariant: never empty; indexes increase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configurations {
    list: Vec<(Index, Membership)>,
}

impl Configurations {
    /// Starts with the configuration in force at an index.
    pub fn new(index: Index, membership: Membership) -> Self {
        Self { list: vec![(index, membership)] }
    }

    /// The configuration in use: the latest in the log, committed or not.
    pub fn effective(&self) -> &Membership {
        if mutants::on(Mutant::MembershipAtApply) {
            return &self.list[0].1;
        }
        &self.list.last().expect("never empty").1
    }

    /// Where the configuration in use stands in the log.
    pub fn index(&self) -> Index {
        self.list.last().expect("never empty").0
    }

    /// The configuration in force at an index that is not before the oldest.
    pub fn at(&self, index: Index) -> &Membership {
        let in_force = self.list.iter().rev().find(|(since, _)| *since <= index);
        &in_force.unwrap_or(&self.list[0]).1
    }

    /// A configuration was appended to the log.
    pub fn append(&mut self, index: Index, membership: Membership) {
        debug_assert!(index > self.index(), "configurations come in log order");
        self.list.push((index, membership));
    }

    /// The log was cut after an index: back to the configuration before.
    pub fn truncate_after(&mut self, index: Index) {
        while self.list.len() > 1 && self.index() > index {
            self.list.pop();
        }
    }

    /// Everything up to an index is applied; what was superseded there goes.
    pub fn applied(&mut self, index: Index) {
        while self.list.len() > 1 && self.list[1].0 <= index {
            self.list.remove(0);
        }
    }
}

impl fmt::Display for Membership {
    /// `{n1 n2 n3+}`; a plus marks a learner.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (node, member)) in self.iter().enumerate() {
            let space = if i == 0 { "" } else { " " };
            let mark = if member.voter { "" } else { "+" };
            write!(f, "{space}{node}{mark}")?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Membership {
        let mut membership = Membership::default();
        for (id, name) in [(1, "a"), (2, "b"), (3, "c")] {
            membership.insert(NodeId(id), Member::test(name, true));
        }
        membership
    }

    #[test]
    fn a_newcomer_learns_before_it_votes() {
        let add = Change::AddLearner(NodeId(4), Member::test("d", true));
        let four = three().with(&add).unwrap();
        assert_eq!(four.to_string(), "{n1 n2 n3 n4+}", "whatever it asks for");
        let promoted = four.with(&Change::Promote(NodeId(4))).unwrap();
        assert_eq!(promoted.voters().count(), 4);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let again = Change::AddLearner(NodeId(1), Member::test("z", false));
        assert_eq!(three().with(&again), Err(Illegal::AlreadyMember(NodeId(1))));
        let namesake = Change::AddLearner(NodeId(9), Member::test("a", false));
        assert_eq!(three().with(&namesake), Err(Illegal::NameTaken("a".into())));
        assert_eq!(three().with(&Change::Remove(NodeId(9))), Err(Illegal::NotMember(NodeId(9))));
        assert_eq!(
            three().with(&Change::Promote(NodeId(1))),
            Err(Illegal::AlreadyVoter(NodeId(1)))
        );
        let mut one = Membership::default();
        one.insert(NodeId(1), Member::test("a", true));
        assert_eq!(one.with(&Change::Remove(NodeId(1))), Err(Illegal::LastVoter));
    }

    #[test]
    fn it_survives_its_encoding() {
        let mut bytes = Vec::new();
        three().encode(&mut bytes);
        assert_eq!(bytes.len(), three().size());
        assert_eq!(Membership::decode(&mut Reader::new(bytes.into())), Ok(three()));
    }
}
