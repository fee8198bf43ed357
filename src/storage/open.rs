//! A member's directory: what is in it at a start, and how it becomes one.

use crate::fsm::{Fsm, Limits};
use crate::raft::{
    ClusterId, Entry, EntryId, HardState, Index, Member, Membership, NodeId, Payload, Recovered,
    Term, Write, WriteSeq,
};
use crate::replica::snapshots::Available;
use crate::wal::{self, Disk, DiskFile, Identity, SnapshotReader, Wal, WalError};

/// A member's directory, opened.
pub struct Opened<D: Disk> {
    /// The journal.
    pub wal: Wal<D>,
    /// What was in it.
    pub recovered: Recovered,
    /// What the newest snapshot held, or an empty state.
    pub fsm: Fsm,
    /// That snapshot.
    pub newest: Option<Available>,
}

/// Opens the journal of a member. That of a founder gets its first entry, if it
/// has none: the cluster's first member, as `founder_member` says.
///
/// Of `config` the sizes count. Whose journal it is, and whether it may be begun,
/// is what `identity` says, which must name a cluster; when this returns, it says
/// that there is a journal.
pub fn open<D: Disk>(
    disk: &D,
    identity: &mut Identity,
    config: wal::Config,
    founder_member: impl FnOnce() -> Member,
) -> Result<Opened<D>, WalError> {
    let cluster = identity.cluster.expect("a member has a cluster");
    let config = wal::Config { create: !identity.begun, ..of(identity, cluster, config) };
    let (mut wal, mut recovered, state) = Wal::open_with(disk.clone(), config, restore)?;
    if identity.founder && recovered == Recovered::default() {
        recovered = bootstrap(identity.node, founder_member(), &mut wal)?;
        log::info!("{}: a new cluster of one, {cluster}", identity.name);
    }
    if !identity.begun {
        identity.begun = true;
        identity.save(disk)?;
    }
    let (fsm, newest) = state.unzip();
    Ok(Opened { wal, recovered, fsm: fsm.unwrap_or_else(|| Fsm::new(Limits::default())), newest })
}

/// Makes this the directory of a member of `cluster`, for good, in an order in
/// which every step is durable before the next: the cluster in the identity file,
/// the journal, the mark that there is one. Of `config` the sizes count.
pub fn adopt<D: Disk>(
    disk: &D,
    identity: &mut Identity,
    cluster: ClusterId,
    config: wal::Config,
) -> Result<Wal<D>, WalError> {
    identity.cluster = Some(cluster);
    identity.founder = false;
    identity.save(disk)?;
    let config = wal::Config { create: true, ..of(identity, cluster, config) };
    let (wal, _empty) = Wal::open(disk.clone(), config)?;
    identity.begun = true;
    identity.save(disk)?;
    Ok(wal)
}

/// The settings for this very journal.
fn of(identity: &Identity, cluster: ClusterId, config: wal::Config) -> wal::Config {
    wal::Config { node: identity.node, cluster, ..config }
}

/// What the journal may continue from.
fn restore<F: DiskFile>(reader: &mut SnapshotReader<F>) -> Result<(Fsm, Available), WalError> {
    let fsm = super::restore(reader)?;
    let (last, size_bytes) = (reader.meta().last, reader.size_bytes());
    Ok((fsm, Available { last, size_bytes }))
}

/// The first entry of a cluster: its first member.
fn bootstrap<D: Disk>(
    node: NodeId,
    member: Member,
    wal: &mut Wal<D>,
) -> Result<Recovered, WalError> {
    let mut membership = Membership::default();
    membership.insert(node, member);
    let first = Entry { id: EntryId::new(1, 1), payload: Payload::Membership(membership) };
    let hard_state = HardState { term: Term(1), vote: None, commit: Index(0) };
    let entries = vec![first];
    let write = Write { seq: WriteSeq(0), hard_state, base: None, entries: entries.clone() };
    wal.commit(&[write])?;
    Ok(Recovered { hard_state, snapshot: None, entries })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::SnapshotMeta;
    use crate::wal::faulty::FaultyDisk;
    use crate::wal::{SnapshotWriter, snapshot_file};

    const CLUSTER: ClusterId = ClusterId(9);

    fn identity(cluster: Option<ClusterId>, founder: bool, begun: bool) -> Identity {
        Identity { node: NodeId(7), cluster, founder, begun, name: "a".to_owned() }
    }

    fn founder() -> Identity {
        identity(Some(CLUSTER), true, false)
    }

    /// Of sizes that a test can afford; whose it is, is not taken from here.
    fn config() -> wal::Config {
        wal::Config { segment_bytes: 1 << 20, ..wal::Config::new(NodeId(1), ClusterId(1)) }
    }

    fn member() -> Member {
        let (peer_address, client_address) = ("a:2".to_owned(), "a:1".to_owned());
        Member { name: "a".to_owned(), peer_address, client_address, voter: true }
    }

    fn start(disk: &FaultyDisk, identity: &mut Identity) -> Result<Opened<FaultyDisk>, WalError> {
        open(disk, identity, config(), member)
    }

    #[test]
    fn a_founder_gets_its_first_entry_once() {
        let (disk, mut identity) = (FaultyDisk::default(), founder());
        let first = start(&disk, &mut identity).unwrap().recovered;
        assert_eq!(first.entries.last().unwrap().id, EntryId::new(1, 1));
        assert_eq!(Identity::load(&disk).unwrap().unwrap(), identity);
        let again = open(&disk, &mut identity, config(), || panic!("it has one")).unwrap();
        assert_eq!(again.recovered, first);
    }

    #[test]
    fn a_journal_that_vanished_is_not_begun_anew() {
        let (disk, mut identity) = (FaultyDisk::default(), founder());
        drop(start(&disk, &mut identity).unwrap());
        disk.remove("journal-0000000000000001").unwrap();
        let mut identity = Identity::load(&disk).unwrap().unwrap();
        let error = start(&disk, &mut identity).err().unwrap().to_string();
        assert!(error.contains("the journal is missing"), "{error}");
    }

    /// [Killed between its adoption and its first entry, a newcomer with an
    /// empty journal takes itself for a founder: a second cluster of one id.]
    #[test]
    fn who_was_taken_in_founds_nothing() {
        for begun in [false, true] {
            let disk = FaultyDisk::default();
            let mut identity = identity(Some(CLUSTER), false, begun);
            if begun {
                let config = wal::Config { create: true, ..of(&identity, CLUSTER, config()) };
                Wal::open(disk.clone(), config).unwrap();
            }
            let opened = start(&disk, &mut identity).unwrap();
            assert_eq!(opened.recovered, Recovered::default());
            assert_eq!(opened.wal.cluster(), CLUSTER);
        }
    }

    /// A journal of a cluster that the identity does not name, or one that is
    /// said to be there and is not, would be refused at the next start.
    #[test]
    fn each_step_into_a_cluster_is_durable_before_the_next() {
        let disk = FaultyDisk::default();
        let adopt = || adopt(&disk, &mut identity(None, false, false), CLUSTER, config());
        let belongs = || {
            let found = Identity::load(&disk).unwrap().unwrap();
            (found.cluster, found.founder, found.begun)
        };
        // No journal is begun where a snapshot is.
        let in_the_way = snapshot_file::name(EntryId::new(1, 1));
        disk.create(&in_the_way).unwrap();
        assert!(adopt().is_err());
        assert_eq!(belongs(), (Some(CLUSTER), false, false));
        disk.remove(&in_the_way).unwrap();
        adopt().unwrap();
        assert_eq!(belongs(), (Some(CLUSTER), false, true));
    }

    /// Writes a snapshot at `index` whose state is that of `applied`; or nothing
    /// that is a state, in a file that is whole.
    fn take_snapshot(wal: &mut Wal<FaultyDisk>, index: u64, applied: Option<u64>) {
        let (mut fsm, mut head) = (Fsm::new(Limits::default()), Vec::new());
        (1..=applied.unwrap_or(0)).for_each(|index| fsm.apply_other(index));
        if applied.is_some() {
            fsm.begin_snapshot().encode(&mut head);
        }
        let last = EntryId::new(1, index);
        let meta = SnapshotMeta { last, membership: Membership::default() };
        let mut writer = SnapshotWriter::create(wal.disk(), wal.cluster(), &meta, &head).unwrap();
        writer.finish(last.index).unwrap();
        wal.snapshot_taken(last).unwrap();
    }

    #[test]
    fn a_snapshot_that_is_no_state_of_ours_is_passed_over() {
        for (newest, used) in [(Some(3), 3), (Some(4), 2), (None, 2)] {
            let (disk, mut identity) = (FaultyDisk::default(), founder());
            let mut wal = start(&disk, &mut identity).unwrap().wal;
            let hard_state = HardState { term: Term(1), vote: None, commit: Index(4) };
            let noop = |index| Entry { id: EntryId::new(1, index), payload: Payload::Noop };
            let entries = (2..=4).map(noop).collect();
            wal.commit(&[Write { seq: WriteSeq(1), hard_state, base: None, entries }]).unwrap();
            take_snapshot(&mut wal, 2, Some(2));
            take_snapshot(&mut wal, 3, newest);
            drop(wal);
            let opened = start(&disk, &mut identity).unwrap();
            let used = EntryId::new(1, used);
            assert_eq!(opened.fsm.applied(), used.index.0, "{newest:?}");
            assert_eq!(opened.recovered.snapshot.unwrap().last, used);
            assert_eq!(opened.newest.unwrap().last, used);
            assert_eq!(opened.wal.last(), EntryId::new(1, 4));
        }
    }
}
