//! How a connection opens: who speaks to whom, and the one answer to that.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{LinkClass, PeerError, VERSION};
use crate::encoding::{Malformed, Reader, put_bytes};
use crate::raft::{ClusterId, Membership, NodeId};
use crate::replica::Peer;

const HELLO: &[u8; 8] = b"RAFTPEER";
const WELCOME: &[u8; 8] = b"RAFTHERE";

/// Magic, version, length and checksum.
const HEAD_BYTES: usize = 8 + 2 + 2 + 4;

/// No hello or welcome is longer: three texts and five numbers.
const BODY_LIMIT_BYTES: usize = 1024;

const HAS_CLUSTER: u8 = 1;
const REBUILDS: u8 = 2;
const HAS_ADDRESSEE: u8 = 4;
const MEMBER: u8 = 8;

/// What both sides say of themselves.
const OF_PEER: u8 = HAS_CLUSTER | REBUILDS | MEMBER;

/// The first word of whoever dials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// What the connection is for.
    pub class: LinkClass,
    /// Who dials.
    pub sender: Peer,
    /// Where the sender's peers reach it. Its addressee may not know yet, and
    /// has to answer. An unspecified host means where the connection is from.
    pub peer_address: String,
    /// Who is meant; `None` only asks who is there.
    pub to: Option<NodeId>,
}

impl Hello {
    /// The encoding drawn in the [module](super).
    pub fn encode(&self) -> Vec<u8> {
        let class = match self.class {
            LinkClass::Urgent => 0,
            LinkClass::Entries => 1,
            LinkClass::Snapshot => 2,
        };
        let addressee = if self.to.is_some() { HAS_ADDRESSEE } else { 0 };
        let mut body = vec![class, options(&self.sender) | addressee];
        body.put_u128_le(self.sender.cluster.map_or(0, |cluster| cluster.0));
        body.put_u128_le(self.sender.node.0);
        body.put_u128_le(self.to.map_or(0, |node| node.0));
        put_bytes(&mut body, self.sender.name.as_bytes());
        put_bytes(&mut body, self.sender.client_address.as_bytes());
        put_bytes(&mut body, self.peer_address.as_bytes());
        seal(HELLO, &body)
    }

    /// Takes a hello off the front of `input`, or nothing while it is incomplete.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Self>, PeerError> {
        let Some(body) = unseal(HELLO, input)? else { return Ok(None) };
        let mut reader = Reader::new(body);
        let class = match reader.u8()? {
            0 => LinkClass::Urgent,
            1 => LinkClass::Entries,
            2 => LinkClass::Snapshot,
            _ => return Err(Malformed("unknown class of link").into()),
        };
        let options = Options::decode(&mut reader, OF_PEER | HAS_ADDRESSEE)?;
        let cluster = options.if_set(HAS_CLUSTER, ClusterId(reader.u128()?));
        let node = NodeId(reader.u128()?);
        let to = options.if_set(HAS_ADDRESSEE, NodeId(reader.u128()?));
        let (name, client_address) = (text(&mut reader)?, text(&mut reader)?);
        let peer_address = text(&mut reader)?;
        reader.finish()?;
        let (rebuild, member) = (options.has(REBUILDS), options.has(MEMBER));
        let sender = Peer { node, cluster, name, client_address, rebuild, member };
        Ok(Some(Self { class, sender, peer_address, to }))
    }
}

/// The one answer to a hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Welcome {
    /// Who is there. If somebody was meant, frames may follow.
    Here(Peer),
    /// Nothing may follow.
    Refused(Refusal),
}

/// Why a hello is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Who is there belongs to this cluster, and the sender to another one.
    ForeignCluster(ClusterId),
    /// Somebody else is there.
    WrongAddressee(NodeId),
    /// The hello's version is unknown there.
    UnknownVersion,
    /// As many connections as there may be.
    TooMany,
    /// Whoever means somebody has to say for which cluster it speaks.
    NoCluster,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForeignCluster(theirs) => write!(f, "it belongs to another cluster, {theirs}"),
            Self::WrongAddressee(theirs) => write!(f, "another node is there, {theirs}"),
            Self::UnknownVersion => write!(f, "it does not know peer protocol {VERSION}"),
            Self::TooMany => f.write_str("it has as many connections as it may have"),
            Self::NoCluster => f.write_str("it expects to be told for which cluster"),
        }
    }
}

impl Welcome {
    /// The encoding drawn in the [module](super).
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        match self {
            Self::Here(peer) => {
                body.put_slice(&[0, options(peer)]);
                body.put_u128_le(peer.cluster.map_or(0, |cluster| cluster.0));
                body.put_u128_le(peer.node.0);
                put_bytes(&mut body, peer.name.as_bytes());
                put_bytes(&mut body, peer.client_address.as_bytes());
            }
            Self::Refused(Refusal::ForeignCluster(theirs)) => {
                body.put_u8(1);
                body.put_u128_le(theirs.0);
            }
            Self::Refused(Refusal::WrongAddressee(theirs)) => {
                body.put_u8(2);
                body.put_u128_le(theirs.0);
            }
            Self::Refused(Refusal::UnknownVersion) => body.put_u8(3),
            Self::Refused(Refusal::TooMany) => body.put_u8(4),
            Self::Refused(Refusal::NoCluster) => body.put_u8(5),
        }
        seal(WELCOME, &body)
    }

    /// Takes an answer off the front of `input`, or nothing while it is incomplete.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Self>, PeerError> {
        let Some(body) = unseal(WELCOME, input)? else { return Ok(None) };
        let mut reader = Reader::new(body);
        let welcome = match reader.u8()? {
            0 => Self::Here(decode_peer(&mut reader)?),
            1 => Self::Refused(Refusal::ForeignCluster(ClusterId(reader.u128()?))),
            2 => Self::Refused(Refusal::WrongAddressee(NodeId(reader.u128()?))),
            3 => Self::Refused(Refusal::UnknownVersion),
            4 => Self::Refused(Refusal::TooMany),
            5 => Self::Refused(Refusal::NoCluster),
            _ => return Err(Malformed("unknown answer to a hello").into()),
        };
        reader.finish()?;
        Ok(Some(welcome))
    }
}

fn decode_peer(reader: &mut Reader) -> Result<Peer, Malformed> {
    let options = Options::decode(reader, OF_PEER)?;
    let cluster = options.if_set(HAS_CLUSTER, ClusterId(reader.u128()?));
    let node = NodeId(reader.u128()?);
    let (name, client_address) = (text(reader)?, text(reader)?);
    let (rebuild, member) = (options.has(REBUILDS), options.has(MEMBER));
    Ok(Peer { node, cluster, name, client_address, rebuild, member })
}

fn options(peer: &Peer) -> u8 {
    let cluster = if peer.cluster.is_some() { HAS_CLUSTER } else { 0 };
    let rebuild = if peer.rebuild { REBUILDS } else { 0 };
    let member = if peer.member { MEMBER } else { 0 };
    cluster | rebuild | member
}

/// Which of the fields that follow mean something.
#[derive(Clone, Copy)]
struct Options(u8);

impl Options {
    fn decode(reader: &mut Reader, known: u8) -> Result<Self, Malformed> {
        match reader.u8()? {
            options if options & !known == 0 => Ok(Self(options)),
            _ => Err(Malformed("unknown option")),
        }
    }

    fn if_set<T>(self, option: u8, value: T) -> Option<T> {
        self.has(option).then_some(value)
    }

    fn has(self, option: u8) -> bool {
        self.0 & option != 0
    }
}

/// A name or an address, as long as a member's may be.
fn text(reader: &mut Reader) -> Result<String, Malformed> {
    let text = reader.string()?;
    if text.len() > Membership::TEXT_LIMIT_BYTES {
        return Err(Malformed("a name or an address is too long"));
    }
    Ok(text)
}

fn seal(magic: &[u8; 8], body: &[u8]) -> Vec<u8> {
    assert!(body.len() <= BODY_LIMIT_BYTES, "names and addresses are checked where they come in");
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
    bytes.put_slice(magic);
    bytes.put_u16_le(VERSION);
    bytes.put_u16_le(body.len() as u16);
    bytes.put_u32_le(crc32fast::hash(body));
    bytes.put_slice(body);
    bytes
}

/// A stranger is known by its first wrong byte; nobody waits for more of it.
fn unseal(magic: &[u8; 8], input: &mut BytesMut) -> Result<Option<Bytes>, PeerError> {
    let opening = &input[..input.len().min(magic.len())];
    if !magic.starts_with(opening) {
        return Err(PeerError::Stranger);
    }
    if input.len() < HEAD_BYTES {
        return Ok(None);
    }
    let mut head = &input[magic.len()..HEAD_BYTES];
    let (version, length, crc) = (head.get_u16_le(), head.get_u16_le() as usize, head.get_u32_le());
    if version != VERSION {
        return Err(PeerError::OtherVersion(version));
    }
    if length > BODY_LIMIT_BYTES {
        return Err(PeerError::OverLimit { size: length, limit: BODY_LIMIT_BYTES });
    }
    if input.len() < HEAD_BYTES + length {
        return Ok(None);
    }
    let body = input.split_to(HEAD_BYTES + length).freeze().split_off(HEAD_BYTES);
    if crc32fast::hash(&body) != crc { Err(PeerError::Checksum) } else { Ok(Some(body)) }
}
