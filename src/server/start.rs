//! From a data directory to a replica and its journal.

use std::fs::DirEntry;
use std::io;
use std::path::Path;

use super::config::ServerConfig;
use super::journal::Unjoined;
use super::{StartError, address, os};
use crate::fsm::{Fsm, Limits};
use crate::raft::{self, ClusterId, Member, NodeId, Raft, Recovered};
use crate::replica::snapshots::Available;
use crate::replica::{self, Peer, Replica};
use crate::storage;
use crate::wal::{self, Disk, Identity, StdDisk, Wal, WalError};

/// What a node starts with.
pub struct Started {
    /// Everything above the disk.
    pub replica: Replica,
    /// The journal, for the disk thread, or what will have one.
    pub journal: Opened,
    /// What other nodes are told.
    pub own: Peer,
}

/// A data directory.
pub enum Opened {
    /// Of a member of a cluster.
    Member(Box<Wal<StdDisk>>),
    /// Of a node that is to become one.
    Newcomer(Unjoined),
}

/// Opens the data directory, or makes it that of a new cluster of one, or of a
/// newcomer to another cluster.
pub fn open(config: &ServerConfig) -> Result<Started, StartError> {
    let unusable = |error| StartError::DataDir(config.data_dir.clone(), in_words(error));
    if config.rebuild {
        set_aside(&config.data_dir).map_err(unusable)?;
    }
    // Once more below, when it is locked; who is refused here has left no lock.
    let names = names_in(&config.data_dir).map_err(unusable)?;
    if !names.iter().any(|name| name == Identity::NAME) {
        check_vacant(config, &names)?;
    }
    let disk = StdDisk::open(&config.data_dir).map_err(unusable)?;
    let identity = identify(config, &disk)?;
    let own = Peer {
        node: identity.node,
        cluster: identity.cluster,
        name: config.name.clone(),
        client_address: config.advertise.clone(),
        rebuild: config.rebuild,
        member: false,
    };
    let (journal, recovered, fsm, newest) = match identity.cluster {
        Some(cluster) => {
            let opened = recover(config, &disk, identity, cluster)?;
            (Opened::Member(Box::new(opened.wal)), opened.recovered, opened.fsm, opened.newest)
        }
        None => {
            log::info!("{}: asking to join at {}", config.name, config.join.join(", "));
            let segment_bytes = config.segment_bytes;
            let newcomer = Opened::Newcomer(Unjoined { disk, identity, segment_bytes });
            (newcomer, Recovered::default(), Fsm::new(Limits::default()), None)
        }
    };
    let replica = build(config, &own, recovered, fsm, newest);
    Ok(Started { replica, journal, own })
}

/// Opens the journal of a member. That of a founder gets its first entry.
fn recover(
    config: &ServerConfig,
    disk: &StdDisk,
    mut identity: Identity,
    cluster: ClusterId,
) -> Result<storage::Opened<StdDisk>, WalError> {
    let wal_config = wal::Config {
        segment_bytes: config.segment_bytes,
        ..wal::Config::new(identity.node, cluster)
    };
    storage::open(disk, &mut identity, wal_config, || Member {
        name: config.name.clone(),
        peer_address: address::with_own_host(&config.peer_advertise),
        client_address: address::with_own_host(&config.advertise),
        voter: true,
    })
}

/// Whether this node is a cluster of its own that nobody has used yet: it has no
/// other member, and no command was ever in its log. Log time says so, for it
/// begins with the first command and never goes back; keys and sessions are only
/// asked in case the clock of that command stood at 0. Whatever is in the log and
/// not applied may be a command.
pub fn is_pristine(replica: &Replica) -> bool {
    let (raft, fsm) = (replica.raft(), replica.fsm());
    let is_alone = raft.membership().iter().map(|(node, _)| node).eq([raft.id()]);
    let is_unused = fsm.log_time_ms() == 0 && fsm.keys() == 0 && fsm.sessions() == 0;
    is_alone && is_unused && raft.applied() == raft.last()
}

/// Who this directory is, making it somebody if it is empty.
fn identify(config: &ServerConfig, disk: &StdDisk) -> Result<Identity, StartError> {
    let dir = || config.data_dir.clone();
    match Identity::load(disk)? {
        Some(identity) if identity.name != config.name => Err(StartError::OtherName {
            dir: dir(),
            theirs: identity.name,
            ours: config.name.clone(),
        }),
        // Somebody may count on it by now: it founds no cluster any more.
        Some(identity) if identity.cluster.is_none() && config.join.is_empty() => {
            Err(StartError::Unjoined(dir()))
        }
        Some(identity) => Ok(identity),
        None => {
            check_vacant(config, &disk.list()?)?;
            let founds = config.join.is_empty();
            let identity = Identity {
                node: NodeId(os::random_u128()),
                cluster: founds.then(|| ClusterId(os::random_u128())),
                founder: founds,
                begun: false,
                name: config.name.clone(),
            };
            identity.save(disk)?;
            Ok(identity)
        }
    }
}

/// Whether this node may move into a directory of nobody's with these files. Not
/// even to join where something is: the cluster would drop the member that it was.
fn check_vacant(config: &ServerConfig, names: &[String]) -> Result<(), StartError> {
    match stray(names) {
        Some(stray) => Err(StartError::Occupied(config.data_dir.clone(), stray.clone())),
        None if config.join.is_empty() && !config.bootstrap => {
            Err(StartError::Empty(config.data_dir.clone()))
        }
        None => Ok(()),
    }
}

/// Something in a directory of nobody's that a node has not just put there.
fn stray(names: &[String]) -> Option<&String> {
    let ours = |name: &str| matches!(name, StdDisk::LOCK | "lost+found") || name.ends_with(".tmp");
    names.iter().filter(|name| !ours(name)).min()
}

/// What is in a directory; nothing if there is none.
fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let name = |entry: io::Result<DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    entries.map(name).collect()
}

/// What a person wants to know of an error.
fn in_words(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            io::Error::new(error.kind(), "there is a file in its place, and not a directory")
        }
        _ => error,
    }
}

/// Renames the directory of a node that is rebuilt to `DIR.old-N`. One that
/// belongs to no cluster has nothing to keep, and goes on: a rebuild that was
/// interrupted is not begun again under yet another identity.
fn set_aside(dir: &Path) -> io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    // Held until it has its new name, so that no other process uses it.
    let disk = StdDisk::open(dir)?;
    let is_new = match Identity::load(&disk) {
        Ok(None) => stray(&disk.list()?).is_none(),
        Ok(Some(identity)) => identity.cluster.is_none(),
        // What cannot be read is what a rebuild is for.
        Err(_) => false,
    };
    if is_new {
        return Ok(());
    }
    let name = dir.file_name().ok_or_else(|| io::Error::other("it has no name to change"))?;
    let numbered = |n: u32| {
        let mut name = name.to_owned();
        name.push(format!(".old-{n}"));
        dir.with_file_name(name)
    };
    let free = (1..).map(numbered).find(|path| !path.exists());
    let free = free.ok_or_else(|| io::Error::other("there is no name left"))?;
    std::fs::rename(dir, &free)?;
    log::warn!("the old data directory is {} now; delete it when all is well", free.display());
    Ok(())
}

fn build(
    config: &ServerConfig,
    own: &Peer,
    recovered: Recovered,
    fsm: Fsm,
    newest: Option<Available>,
) -> Replica {
    let seed = os::random_u128() as u64;
    let raft_config =
        raft::Config { read_mode: config.read_mode, ..raft::Config::new(own.node, seed) };
    let raft = Raft::new(raft_config, recovered, os::now().time);
    let replica_config = replica::Config {
        cluster: own.cluster,
        request_timeout: config.request_timeout,
        snapshot_log_bytes: config.snapshot_log_bytes,
        memory: config.memory,
        ..replica::Config::new(config.name.clone(), config.memory.bytes)
    };
    Replica::new(replica_config, raft, fsm, newest)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::raft::EntryId;
    use crate::server::Flags;

    fn config(dir: &Path, args: &[&str]) -> ServerConfig {
        let dir = ["cached", "--id", "a", "--data-dir", dir.to_str().unwrap()];
        let args = dir.into_iter().chain(args.iter().copied());
        Flags::try_parse_from(args).unwrap().try_into().unwrap()
    }

    fn start(dir: &Path, args: &[&str]) -> Result<Started, StartError> {
        open(&config(dir, args))
    }

    fn is_newcomer(started: &Started) -> bool {
        assert_eq!(started.own.cluster.is_none(), matches!(started.journal, Opened::Newcomer(_)));
        started.own.cluster.is_none()
    }

    #[test]
    fn who_has_nobody_to_join_founds_a_cluster_once() {
        let temp = tempfile::tempdir().unwrap();
        let first = start(temp.path(), &[]).unwrap();
        assert!(!is_newcomer(&first));
        assert_eq!(first.replica.raft().last(), EntryId::new(1, 1));
        assert!(!is_pristine(&first.replica), "what is in the log might be anything");
        let own = first.own.clone();
        drop(first);
        // From now on --join takes it into no other cluster.
        let again = start(temp.path(), &["--join", "b:1"]).unwrap();
        assert_eq!((again.own.node, again.own.cluster), (own.node, own.cluster));
    }

    #[test]
    fn a_service_may_forbid_a_new_cluster() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("data");
        let error = start(&dir, &["--bootstrap", "never"]).err().unwrap();
        assert!(error.to_string().contains("--join"), "{error}");
        assert!(!dir.exists(), "nothing was touched");
        start(&dir, &["--bootstrap", "never", "--join", "b:1"]).unwrap();
    }

    #[test]
    fn a_newcomer_stays_who_it_is_and_founds_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let first = start(temp.path(), &["--join", "b:1"]).unwrap();
        assert!(is_newcomer(&first));
        assert!(first.replica.raft().membership().is_empty());
        let node = first.own.node;
        drop(first);
        let again = start(temp.path(), &["--join", "b:1"]).unwrap();
        assert!(is_newcomer(&again));
        assert_eq!(again.own.node, node, "somebody may count on it by now");
        drop(again);
        let error = start(temp.path(), &[]).err().unwrap();
        assert!(matches!(error, StartError::Unjoined(_)), "{error}");
    }

    #[test]
    fn a_rebuild_sets_the_old_directory_aside_once() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("data");
        let args = ["--join", "b:1", "--rebuild"];
        let old = start(&dir, &[]).unwrap().own.node;
        let rebuilt = start(&dir, &args).unwrap();
        assert!(is_newcomer(&rebuilt) && rebuilt.own.rebuild);
        let node = rebuilt.own.node;
        assert_ne!(node, old, "an identity is never used again");
        drop(rebuilt);
        // Interrupted before it was taken in, it goes on where it was.
        assert_eq!(start(&dir, &args).unwrap().own.node, node);
        let aside = StdDisk::open(temp.path().join("data.old-1")).unwrap();
        assert_eq!(Identity::load(&aside).unwrap().unwrap().node, old);
        assert!(!temp.path().join("data.old-2").exists());
    }
}
