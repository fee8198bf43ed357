//! Who this disk is: a small file, written whole or not at all.
//!
//! ```text
//!  ┌────────────┬─────────┬─────────┬───────────┬────────────┬───────────┬──────┐
//!  │ "RAFTNODE" │ version │ crc u32 │ node u128 │ joined u8  │ begun u8  │ name │
//!  │            │ u32     │         │           │ cluster    │           │ u32… │
//!  └────────────┴─────────┴─────────┴───────────┴─u128───────┴───────────┴──────┘
//! ```
//!
//! It is replaced by a rename, so a crash leaves the old one or the new one. The
//! order of a first start, where each step is durable before the next:
//!
//! 1. the identity, before anybody hears of it: [a node that forgets who it was
//!    after it joined would come back as another one under the same name];
//! 2. the cluster it belongs to, and whether it founded it (`joined` is 0: none,
//!    1: founded, 2: taken in): [an empty journal of a founder is to be given
//!    its first entry; one that was taken in and did so would be a second
//!    cluster of the same id];
//! 3. the journal (opened with `create`, as long as `begun` is false);
//! 4. `begun`: from now on a missing journal is damage, not a first start.

use bytes::{BufMut, Bytes};

use super::disk::{Disk, DiskFile};
use super::error::{Context, WalError};
use crate::encoding::{Malformed, Reader, put_bytes};
use crate::raft::{ClusterId, NodeId};

const MAGIC: u64 = u64::from_le_bytes(*b"RAFTNODE");
const VERSION: u32 = 1;
const TEMPORARY: &str = "identity.tmp";

/// A name is at most this long, and so the file is small.
const NAME_LIMIT_BYTES: usize = 255;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The number this directory was born with.
    pub node: NodeId,
    /// The cluster it belongs to, once it does.
    pub cluster: Option<ClusterId>,
    /// Whether that cluster began here. False while it belongs to none.
    pub founder: bool,
    /// Whether it has a journal.
    pub begun: bool,
    /// What people call the node.
    pub name: String,
}

impl Identity {
    /// The file.
    pub const NAME: &str = "identity";

    /// Reads it; `None` if this directory has none yet. What is returned is
    /// durable, even if the process that wrote it was killed before its sync.
    pub fn load<D: Disk>(disk: &D) -> Result<Option<Self>, WalError> {
        let path = || disk.path(Self::NAME);
        let file = match disk.open(Self::NAME) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.at("open", path())?,
        };
        let size = file.size().at("measure", path())?.min(1 + Self::limit_bytes() as u64);
        let mut bytes = vec![0; size as usize];
        file.read_at(0, &mut bytes).at("read", path())?;
        if !bytes.starts_with(&MAGIC.to_le_bytes()) {
            return Err(WalError::Foreign {
                file: path(),
                what: "is no file of this program".into(),
            });
        }
        let identity = Self::decode(bytes.into()).map_err(|error| WalError::Damaged {
            file: path(),
            offset: 0,
            index: None,
            what: error.to_string(),
        })?;
        disk.sync_dir().synced(disk.path(""))?;
        Ok(Some(identity))
    }

    /// Replaces it, durably.
    pub fn save<D: Disk>(&self, disk: &D) -> Result<(), WalError> {
        let path = || disk.path(TEMPORARY);
        let file = disk.create(TEMPORARY).growing("create", path())?;
        file.write_at(0, &self.encode()).growing("write", path())?;
        file.sync_data().synced(path())?;
        disk.rename(TEMPORARY, Self::NAME).at("rename", path())?;
        disk.sync_dir().synced(disk.path(""))
    }

    fn limit_bytes() -> usize {
        16 + 16 + 1 + 16 + 1 + 4 + NAME_LIMIT_BYTES
    }

    fn encode(&self) -> Vec<u8> {
        assert!(self.name.len() <= NAME_LIMIT_BYTES, "names are checked where they come in");
        let mut body = Vec::new();
        body.put_u128_le(self.node.0);
        body.put_u8(match (self.cluster, self.founder) {
            (None, _) => 0,
            (Some(_), true) => 1,
            (Some(_), false) => 2,
        });
        body.put_u128_le(self.cluster.map_or(0, |cluster| cluster.0));
        body.put_u8(u8::from(self.begun));
        put_bytes(&mut body, self.name.as_bytes());
        let mut bytes = Vec::new();
        bytes.put_u64_le(MAGIC);
        bytes.put_u32_le(VERSION);
        bytes.put_u32_le(crc32fast::hash(&body));
        bytes.put_slice(&body);
        bytes
    }

    fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        reader.u64()?;
        if reader.u32()? != VERSION {
            return Err(Malformed("an identity of another version"));
        }
        let crc = reader.u32()?;
        let body = reader.take(reader.remaining())?;
        if crc != crc32fast::hash(&body) {
            return Err(Malformed("the checksum is wrong"));
        }
        let mut reader = Reader::new(body);
        let node = NodeId(reader.u128()?);
        let joined = reader.u8()?;
        if joined > 2 {
            return Err(Malformed("an unknown way of belonging to a cluster"));
        }
        let cluster = ClusterId(reader.u128()?);
        let begun = reader.bool()?;
        let name = reader.string()?;
        reader.finish()?;
        let (cluster, founder) = ((joined > 0).then_some(cluster), joined == 1);
        Ok(Self { node, cluster, founder, begun, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::faulty::{Crash, FaultyDisk};

    fn identity(begun: bool) -> Identity {
        let cluster = begun.then_some(ClusterId(9));
        Identity { node: NodeId(7), cluster, founder: begun, begun, name: "alpha".to_owned() }
    }

    #[test]
    fn a_crash_leaves_the_old_or_the_new_one() {
        let disk = FaultyDisk::default();
        assert_eq!(Identity::load(&disk).unwrap(), None);
        identity(false).save(&disk).unwrap();
        let first = disk.operations();
        identity(true).save(&disk).unwrap();
        for at in 0..=disk.operations() {
            for crash in [Crash::Lost, Crash::Kept, Crash::Torn(1), Crash::Killed] {
                let image = disk.image(at, crash);
                let found = Identity::load(&image).unwrap();
                let old = (at < first && found.is_none()) || found == Some(identity(false));
                assert!(
                    if at == disk.operations() { found == Some(identity(true)) } else { true },
                    "saved is saved"
                );
                assert!(old || found == Some(identity(true)), "{at} {crash:?}: {found:?}");
                // What was read is durable from then on.
                assert_eq!(Identity::load(&image.crash(Crash::Lost)).unwrap(), found);
            }
        }
    }

    #[test]
    fn who_was_taken_in_is_no_founder() {
        let disk = FaultyDisk::default();
        let taken_in = Identity { founder: false, ..identity(true) };
        taken_in.save(&disk).unwrap();
        assert_eq!(Identity::load(&disk).unwrap(), Some(taken_in));
    }

    #[test]
    fn damage_is_neither_absence_nor_somebody_elses_file() {
        let disk = FaultyDisk::default();
        identity(true).save(&disk).unwrap();
        let size = disk.content(Identity::NAME).unwrap().len() as u64;
        for at in 0..size {
            let disk = disk.crash(Crash::Lost);
            disk.flip_bit(Identity::NAME, at, at as u8).unwrap();
            match Identity::load(&disk).unwrap_err() {
                WalError::Foreign { .. } => assert!(at < 8),
                WalError::Damaged { .. } => assert!(at >= 8),
                other => panic!("{other}"),
            }
        }
        disk.damage(Identity::NAME, |content| content.truncate(20)).unwrap();
        assert!(matches!(Identity::load(&disk), Err(WalError::Damaged { .. })));
    }
}
