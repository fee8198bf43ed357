//! From a data directory to a replica and its journal.

use super::config::ServerConfig;
use super::{StartError, os, snapshots};
use crate::fsm::{Fsm, Limits};
use crate::raft::{
    self, ClusterId, Entry, EntryId, HardState, Index, Member, Membership, NodeId, Payload, Raft,
    Recovered, Term, Write, WriteSeq,
};
use crate::replica::snapshots::Available;
use crate::replica::{self, Replica};
use crate::wal::{self, Identity, StdDisk, Wal};

/// What a node starts with.
pub struct Started {
    /// Everything above the disk.
    pub replica: Replica,
    /// The journal, for the disk thread.
    pub wal: Wal<StdDisk>,
    /// Whose it is.
    pub cluster: ClusterId,
}

/// Opens the data directory, or makes it that of a new cluster of one.
pub fn open(config: &ServerConfig) -> Result<Started, StartError> {
    let disk = StdDisk::open(&config.data_dir)
        .map_err(|error| StartError::DataDir(config.data_dir.clone(), error))?;
    let (mut identity, cluster) = identify(config, &disk)?;
    let wal_config = wal::Config {
        create: !identity.begun,
        segment_bytes: config.segment_bytes,
        ..wal::Config::new(identity.node, cluster)
    };
    let (mut wal, mut recovered) = Wal::open(disk.clone(), wal_config)?;
    if recovered == Recovered::default() {
        recovered = bootstrap(config, identity.node, &mut wal)?;
        log::info!("{}: a new cluster of one, {cluster}", config.name);
    }
    if !identity.begun {
        identity.begun = true;
        identity.save(&disk)?;
    }
    let (fsm, newest) = load_newest(&disk, cluster, &recovered)?;
    let replica = build(config, &identity, cluster, recovered, fsm, newest);
    Ok(Started { replica, wal, cluster })
}

/// The state that the journal continues from.
fn load_newest(
    disk: &StdDisk,
    cluster: ClusterId,
    recovered: &Recovered,
) -> Result<(Fsm, Option<Available>), StartError> {
    let Some(meta) = &recovered.snapshot else {
        return Ok((Fsm::new(Limits::default()), None));
    };
    let (fsm, size_bytes) = snapshots::load(disk, cluster, meta.last)?;
    Ok((fsm, Some(Available { last: meta.last, size_bytes })))
}

/// Who this directory is, making it somebody if it is empty.
fn identify(config: &ServerConfig, disk: &StdDisk) -> Result<(Identity, ClusterId), StartError> {
    let mut identity = match Identity::load(disk)? {
        Some(identity) if identity.name == config.name => identity,
        Some(identity) => {
            return Err(StartError::OtherName {
                dir: config.data_dir.clone(),
                theirs: identity.name,
                ours: config.name.clone(),
            });
        }
        None => Identity {
            node: NodeId(os::random_u128()),
            cluster: None,
            begun: false,
            name: config.name.clone(),
        },
    };
    let cluster = match identity.cluster {
        Some(cluster) => cluster,
        None => {
            let cluster = ClusterId(os::random_u128());
            identity.cluster = Some(cluster);
            identity.save(disk)?;
            cluster
        }
    };
    Ok((identity, cluster))
}

/// The first entry of a cluster: its first member.
fn bootstrap(
    config: &ServerConfig,
    node: NodeId,
    wal: &mut Wal<StdDisk>,
) -> Result<Recovered, StartError> {
    let mut membership = Membership::default();
    let member = Member {
        name: config.name.clone(),
        peer_address: String::new(),
        client_address: config.advertise.clone(),
        voter: true,
    };
    membership.insert(node, member);
    let first = Entry { id: EntryId::new(1, 1), payload: Payload::Membership(membership) };
    let hard_state = HardState { term: Term(1), vote: None, commit: Index(0) };
    let entries = vec![first];
    let write = Write { seq: WriteSeq(0), hard_state, base: None, entries: entries.clone() };
    wal.commit(&[write])?;
    Ok(Recovered { hard_state, snapshot: None, entries })
}

fn build(
    config: &ServerConfig,
    identity: &Identity,
    cluster: ClusterId,
    recovered: Recovered,
    fsm: Fsm,
    newest: Option<Available>,
) -> Replica {
    let seed = os::random_u128() as u64;
    let raft_config =
        raft::Config { read_mode: config.read_mode, ..raft::Config::new(identity.node, seed) };
    let raft = Raft::new(raft_config, recovered, os::now().time);
    let replica_config = replica::Config {
        cluster: Some(cluster),
        request_timeout: config.request_timeout,
        snapshot_log_bytes: config.snapshot_log_bytes,
        ..replica::Config::new(config.name.clone(), config.memory_limit_bytes)
    };
    Replica::new(replica_config, raft, fsm, newest)
}
