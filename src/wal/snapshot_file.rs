//! Snapshot files: the state at one index, as blocks the state machine encodes.
//!
//! ```text
//!  ┌──────────────┬─────────┬─────────┬────────────┐
//!  │ "RAFTSNAP"   │ version │ crc     │ length u32 │  header
//!  ├──────────────┴─────────┴─────────┴────────────┤  crc over its body
//!  │ cluster u128 │ snapshot meta │ state (u32, …) │  and length
//!  ├────────────┬───────────┬──────────────────────┤
//!  │ length u32 │ crc u32   │ bytes                │  block, length > 0
//!  ├────────────┼───────────┼───────────┬──────────┤
//!  │ 0 u32      │ crc u32   │ count u64 │ size u64 │  footer, then the end
//!  └────────────┴───────────┴───────────┴──────────┘
//! ```
//!
//! Each CRC starts from the one before, so blocks cannot be left out or swapped;
//! the footer counts the blocks and the bytes before itself. `state` is what the
//! state machine wants to know before the blocks; it is not looked into here.
//!
//! A file is written under a temporary name, synced every 8 MiB so that no sync
//! ever has much to do, and named when it is complete:
//!
//! 1. crash before the last sync: a temporary file, removed at the next start;
//! 2. between sync and rename: the same;
//! 3. after the rename, before the directory is synced: either of both names,
//!    whole; nothing refers to it yet, so it is removed if nothing comes to;
//! 4. after: the journal may name it. Only then is it promised to anybody.
//!
//! A node's own snapshot gets its name only when the journal is durable up to
//! its last entry. It could otherwise hold what this node, after a crash, has
//! not got in its log, and what its cluster perhaps has not either.

use byteorder::{ByteOrder, LittleEndian};
use bytes::{BufMut, Bytes};

use super::disk::{Disk, DiskFile};
use super::error::{Context, WalError};
use crate::encoding::{Malformed, Reader, put_bytes};
use crate::mutants::{self, Mutant};
use crate::raft::{ClusterId, EntryId, Index, SnapshotMeta};

const MAGIC: u64 = u64::from_le_bytes(*b"RAFTSNAP");
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 20;
const BLOCK_BYTES: usize = 8;
const FOOTER_BYTES: usize = BLOCK_BYTES + 16;

/// A sync this often bounds how long the journal's syncs can be held up.
const SYNC_EVERY_BYTES: u64 = 8 << 20;

/// The largest block, and the largest header: far above what is written, far
/// below what a damaged length could make a reader allocate.
pub const BLOCK_LIMIT_BYTES: usize = 64 << 20;

/// The name of a snapshot's file.
pub fn name(last: EntryId) -> String {
    format!("snapshot-{:016x}-{:016x}", last.index.0, last.term.0)
}

/// The snapshot that a name says.
pub fn id(name: &str) -> Option<EntryId> {
    let (index, term) = name.strip_prefix("snapshot-")?.split_once('-')?;
    if index.len() != 16 || term.len() != 16 {
        return None;
    }
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    Some(EntryId::new(number(term)?, number(index)?))
}

fn temporary(kind: &str, last: EntryId) -> String {
    format!("{}-{kind}.tmp", name(last))
}

/// A CRC that continues another.
fn chained(chain: u32, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(chain);
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

/// A file that grows under a temporary name and is then given its own.
struct Growing<D: Disk> {
    disk: D,
    file: D::File,
    temporary: String,
    size: u64,
    synced: u64,
}

impl<D: Disk> Growing<D> {
    fn create(disk: &D, temporary: String) -> Result<Self, WalError> {
        let file = disk.create(&temporary).growing("create", disk.path(&temporary))?;
        Ok(Self { disk: disk.clone(), file, temporary, size: 0, synced: 0 })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), WalError> {
        let path = || self.disk.path(&self.temporary);
        self.file.write_at(self.size, bytes).growing("write", path())?;
        self.size += bytes.len() as u64;
        if self.size - self.synced >= SYNC_EVERY_BYTES {
            self.sync()?;
            self.synced = self.size;
        }
        Ok(())
    }

    /// Some file systems find out here that there is no space. Nothing refers to
    /// the file yet, so it can be given up for that.
    fn sync(&self) -> Result<(), WalError> {
        let path = self.disk.path(&self.temporary);
        match self.file.sync_data().growing("sync", path) {
            Err(WalError::Io { file, source, .. }) => Err(WalError::Sync { file, source }),
            other => other,
        }
    }

    fn finish(&mut self, name: &str) -> Result<(), WalError> {
        let path = || self.disk.path(name);
        if !mutants::on(Mutant::SnapshotNotSynced) {
            self.sync()?;
        }
        self.disk.rename(&self.temporary, name).at("rename", path())?;
        if mutants::on(Mutant::SnapshotNameNotSynced) {
            return Ok(());
        }
        self.disk.sync_dir().synced(self.disk.path(""))
    }

    fn abandon(&self) {
        // What is left behind is removed at the next start.
        let _ = self.disk.remove(&self.temporary);
    }
}

/// Writes a snapshot, block by block.
pub struct SnapshotWriter<D: Disk> {
    file: Growing<D>,
    last: EntryId,
    chain: u32,
    count: u64,
}

impl<D: Disk> SnapshotWriter<D> {
    /// Starts one. `state` is given back by [`SnapshotReader::state`].
    pub fn create(
        disk: &D,
        cluster: ClusterId,
        meta: &SnapshotMeta,
        state: &[u8],
    ) -> Result<Self, WalError> {
        let mut body = Vec::new();
        body.put_u128_le(cluster.0);
        meta.encode(&mut body);
        put_bytes(&mut body, state);
        let mut header = vec![0; HEADER_BYTES];
        LittleEndian::write_u64(&mut header[0..8], MAGIC);
        LittleEndian::write_u32(&mut header[8..12], VERSION);
        LittleEndian::write_u32(&mut header[16..20], body.len() as u32);
        let chain = chained(0, &[&header[..12], &header[16..], &body]);
        LittleEndian::write_u32(&mut header[12..16], chain);
        header.extend_from_slice(&body);
        let file = Growing::create(disk, temporary("own", meta.last))?;
        let mut writer = Self { file, last: meta.last, chain, count: 0 };
        match writer.file.append(&header) {
            Ok(()) => Ok(writer),
            // On a full disk what did fit is given back.
            Err(error) => {
                writer.abandon();
                Err(error)
            }
        }
    }

    /// Adds a block.
    ///
    /// Panics if it is empty or larger than [`BLOCK_LIMIT_BYTES`].
    pub fn write_block(&mut self, block: &[u8]) -> Result<(), WalError> {
        assert!(!block.is_empty() && block.len() <= BLOCK_LIMIT_BYTES, "a block's size");
        let header = self.block_header(block.len() as u32, block);
        self.file.append(&header)?;
        self.file.append(block)?;
        self.count += 1;
        Ok(())
    }

    fn block_header(&mut self, length: u32, bytes: &[u8]) -> [u8; BLOCK_BYTES] {
        let mut header = [0; BLOCK_BYTES];
        LittleEndian::write_u32(&mut header[0..4], length);
        self.chain = chained(self.chain, &[&header[0..4], bytes]);
        LittleEndian::write_u32(&mut header[4..8], self.chain);
        header
    }

    /// How many bytes are written.
    pub fn size_bytes(&self) -> u64 {
        self.file.size
    }

    /// Completes the file and gives it its name, durably. Until the journal is
    /// durable up to the snapshot's last entry that is refused, and may be asked
    /// again later.
    pub fn finish(&mut self, durable: Index) -> Result<EntryId, WalError> {
        if durable < self.last.index {
            return Err(WalError::Early { last: self.last, durable });
        }
        let mut footer = [0; 16];
        LittleEndian::write_u64(&mut footer[0..8], self.count);
        LittleEndian::write_u64(&mut footer[8..16], self.file.size);
        let header = self.block_header(0, &footer);
        self.file.append(&header)?;
        self.file.append(&footer)?;
        self.file.finish(&name(self.last))?;
        Ok(self.last)
    }

    /// Gives up, and the space back.
    pub fn abandon(self) {
        self.file.abandon();
    }
}

/// Reads a snapshot, each byte checked before it is given out.
pub struct SnapshotReader<F> {
    file: F,
    path: String,
    meta: SnapshotMeta,
    state: Bytes,
    size: u64,
    at: u64,
    chain: u32,
    count: u64,
    /// The footer was there, and right.
    complete: bool,
}

impl<F: DiskFile> SnapshotReader<F> {
    /// Opens a snapshot and checks its header.
    pub fn open<D: Disk<File = F>>(
        disk: &D,
        cluster: ClusterId,
        last: EntryId,
    ) -> Result<Self, WalError> {
        let found = Self::find(disk, cluster, last)?;
        found.ok_or_else(|| missing(disk, &name(last)))
    }

    /// The same, if the file is there: compaction may have taken it.
    pub fn find<D: Disk<File = F>>(
        disk: &D,
        cluster: ClusterId,
        last: EntryId,
    ) -> Result<Option<Self>, WalError> {
        let Some(reader) = Self::open_named(disk, cluster, &name(last))? else { return Ok(None) };
        if reader.meta.last != last {
            return Err(reader.damaged("another snapshot has this one's name"));
        }
        Ok(Some(reader))
    }

    fn open_named<D: Disk<File = F>>(
        disk: &D,
        cluster: ClusterId,
        name: &str,
    ) -> Result<Option<Self>, WalError> {
        let path = disk.path(name);
        let damaged = |what: &str| WalError::Damaged {
            file: path.clone(),
            offset: 0,
            index: None,
            what: what.to_owned(),
        };
        let file = match disk.open(name) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.at("open", path.clone())?,
        };
        let size = file.size().at("measure", path.clone())?;
        let mut header = [0; HEADER_BYTES];
        if size < HEADER_BYTES as u64 {
            return Err(damaged("the header ends early"));
        }
        file.read_at(0, &mut header).at("read", path.clone())?;
        let length = LittleEndian::read_u32(&header[16..20]) as usize;
        let end = HEADER_BYTES as u64 + length as u64;
        if length > BLOCK_LIMIT_BYTES || end > size {
            return Err(damaged("the header ends early"));
        }
        let mut body = vec![0; length];
        file.read_at(HEADER_BYTES as u64, &mut body).at("read", path.clone())?;
        let chain = chained(0, &[&header[..12], &header[16..], &body]);
        if LittleEndian::read_u64(&header[0..8]) != MAGIC
            || LittleEndian::read_u32(&header[12..16]) != chain
        {
            return Err(damaged("the header's checksum is wrong"));
        }
        if LittleEndian::read_u32(&header[8..12]) != VERSION {
            return Err(damaged("a snapshot of another version"));
        }
        let (owner, meta, state) = decode_body(body.into()).map_err(|error| damaged(error.0))?;
        if owner != cluster {
            let what = format!("belongs to cluster {owner}");
            return Err(WalError::Foreign { file: path, what });
        }
        let (at, count, complete) = (end, 0, false);
        Ok(Some(Self { file, path, meta, state, size, at, chain, count, complete }))
    }

    /// What consensus has to know of it.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// What the state machine put in front.
    pub fn state(&self) -> &Bytes {
        &self.state
    }

    /// How many bytes the file has.
    pub fn size_bytes(&self) -> u64 {
        self.size
    }

    /// The next block; `None` behind the last one, when the footer is right.
    pub fn next_block(&mut self) -> Result<Option<Bytes>, WalError> {
        if self.complete {
            return Ok(None);
        }
        let before = self.at;
        let header = self.take(BLOCK_BYTES)?;
        let length = LittleEndian::read_u32(&header[0..4]) as usize;
        let bytes = self.take(if length == 0 { FOOTER_BYTES - BLOCK_BYTES } else { length })?;
        self.chain = chained(self.chain, &[&header[0..4], &bytes]);
        if self.chain != LittleEndian::read_u32(&header[4..8]) {
            return Err(self.damaged("a block's checksum is wrong"));
        }
        if length > 0 {
            self.count += 1;
            return Ok(Some(bytes.into()));
        }
        self.complete = LittleEndian::read_u64(&bytes[0..8]) == self.count
            && LittleEndian::read_u64(&bytes[8..16]) == before
            && self.at == self.size;
        if self.complete { Ok(None) } else { Err(self.damaged("the footer is wrong")) }
    }

    /// A length is checked before anything of that size is allocated.
    fn take(&mut self, length: usize) -> Result<Vec<u8>, WalError> {
        if length > BLOCK_LIMIT_BYTES {
            return Err(self.damaged("a block's length is wrong"));
        }
        if self.size - self.at < length as u64 {
            return Err(self.damaged("the file ends early"));
        }
        let mut bytes = vec![0; length];
        self.file.read_at(self.at, &mut bytes).at("read", self.path.clone())?;
        self.at += length as u64;
        Ok(bytes)
    }

    /// Bytes as they are in the file, to send it to a peer; empty at its end.
    /// The receiver checks them.
    pub fn chunk(&self, offset: u64, max_bytes: usize) -> Result<Bytes, WalError> {
        let length = self.size.saturating_sub(offset).min(max_bytes as u64);
        let mut bytes = vec![0; length as usize];
        self.file.read_at(offset, &mut bytes).at("read", self.path.clone())?;
        Ok(bytes.into())
    }

    /// Says that this file, so far as it was read, is not what it should be.
    pub fn damaged(&self, what: impl ToString) -> WalError {
        WalError::Damaged {
            file: self.path.clone(),
            offset: self.at,
            index: None,
            what: what.to_string(),
        }
    }

    /// Every byte is checked, also those that `restore` does not ask for.
    fn read<S>(
        mut self,
        restore: impl FnOnce(&mut Self) -> Result<S, WalError>,
    ) -> Result<(SnapshotMeta, S), WalError> {
        let state = restore(&mut self)?;
        while self.next_block()?.is_some() {}
        Ok((self.meta, state))
    }
}

fn missing<D: Disk>(disk: &D, name: &str) -> WalError {
    let what = "this snapshot is missing".to_owned();
    WalError::Damaged { file: disk.path(name), offset: 0, index: None, what }
}

fn decode_body(body: Bytes) -> Result<(ClusterId, SnapshotMeta, Bytes), Malformed> {
    let mut reader = Reader::new(body);
    let cluster = ClusterId(reader.u128()?);
    let meta = SnapshotMeta::decode(&mut reader)?;
    let state = reader.bytes()?;
    reader.finish()?;
    Ok((cluster, meta, state))
}

/// Reads a whole snapshot, checks every byte of it, and returns what `restore`
/// makes of its blocks.
pub fn read<D: Disk, S>(
    disk: &D,
    cluster: ClusterId,
    last: EntryId,
    restore: impl FnOnce(&mut SnapshotReader<D::File>) -> Result<S, WalError>,
) -> Result<(SnapshotMeta, S), WalError> {
    SnapshotReader::open(disk, cluster, last)?.read(restore)
}

/// Takes a peer's snapshot in, chunk by chunk; nothing of it is trusted.
pub struct SnapshotReceiver<D: Disk> {
    file: Growing<D>,
    cluster: ClusterId,
    last: EntryId,
    limit_bytes: u64,
}

impl<D: Disk> SnapshotReceiver<D> {
    /// Starts to receive the snapshot at `last`, of at most `limit_bytes`.
    pub fn create(
        disk: &D,
        cluster: ClusterId,
        last: EntryId,
        limit_bytes: u64,
    ) -> Result<Self, WalError> {
        let file = Growing::create(disk, temporary("peer", last))?;
        Ok(Self { file, cluster, last, limit_bytes })
    }

    /// How many bytes are here: where a sender that lost its link goes on.
    pub fn received_bytes(&self) -> u64 {
        self.file.size
    }

    /// Takes the bytes at `offset`; returns what [`Self::received_bytes`] then
    /// says. Repeated and early chunks are normal after a lost link: only what
    /// continues the file is taken.
    pub fn chunk(&mut self, offset: u64, bytes: &[u8]) -> Result<u64, WalError> {
        let here = self.file.size;
        let end = offset.saturating_add(bytes.len() as u64);
        if offset <= here && here < end && end <= self.limit_bytes {
            self.file.append(&bytes[(here - offset) as usize..])?;
        }
        Ok(self.file.size)
    }

    /// Checks the file, lets `restore` make a state of it, and gives it its name,
    /// durably. If it is damaged it is removed, and may be sent again.
    pub fn finish<S>(
        mut self,
        restore: impl FnOnce(&mut SnapshotReader<D::File>) -> Result<S, WalError>,
    ) -> Result<(SnapshotMeta, S), WalError> {
        let checked = self.check(restore);
        if checked.is_err() {
            self.file.abandon();
        }
        let checked = checked?;
        self.file.finish(&name(self.last))?;
        Ok(checked)
    }

    fn check<S>(
        &self,
        restore: impl FnOnce(&mut SnapshotReader<D::File>) -> Result<S, WalError>,
    ) -> Result<(SnapshotMeta, S), WalError> {
        let Growing { disk, temporary, .. } = &self.file;
        let reader = SnapshotReader::open_named(disk, self.cluster, temporary)?
            .ok_or_else(|| missing(disk, temporary))?;
        if reader.meta.last != self.last {
            return Err(reader.damaged("another snapshot than the one announced"));
        }
        reader.read(restore)
    }

    /// Gives up, and the space back.
    pub fn abandon(self) {
        self.file.abandon();
    }
}
