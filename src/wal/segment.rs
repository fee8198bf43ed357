//! Segments: the files the journal is cut into.
//!
//! ```text
//!  sector 0   header   written once, before the segment gets its name
//!         1   mark     ┐ see `mark`
//!         2   mark     ┘
//!         3 … batches  see `record`; zeros behind the last one
//!
//!  header                                                          bytes
//!  ┌──────────────┬───────────┬─────────┐
//!  │ "RAFTJRNL"   │ version   │ crc     │                             16
//!  ├──────────────┴───────────┼─────────┴─────────────────┐
//!  │ cluster u128             │ node u128                 │           32
//!  ├────────────┬─────────────┼────────────┬──────────────┤
//!  │ number u64 │ size u64    │ batch u64  │ chain u32, 0 │           32
//!  ├────────────┴─────────────┼────────────┴──────────────┤
//!  │ last: term u64 index u64 │ hard state (33 bytes)     │           49
//!  ├──────────────────────────┴───────────────────────────┤
//!  │ kept: previous and newest, each  present u8, term u64, index u64 │ 34
//!  └──────────────────────────────────────────────────────┘
//!   crc over the rest of the sector · batch, chain: what the first batch
//!   follows · last: the end of the log when the segment was begun
//! ```
//!
//! A header repeats all that the records before it amount to, so deleting the
//! segments before it forgets nothing but entries that a snapshot covers.
//!
//! A segment is written full of zeros ahead of time, under a temporary name: a
//! sync into a file that neither grows nor gets new blocks is faster, and a full
//! disk is found out when there is still room to say so. To begin it:
//!
//! 1. the closing segment's mark is synced;
//! 2. the header is written into the prepared file and synced;
//! 3. the file gets its name, and the directory is synced;
//! 4. only now a batch goes into it, and only after that is acknowledged.
//!
//! So a file with a segment's name always has a whole header, and if the crash
//! comes before 3 is durable, the segment before is the last one, complete.
//!
//! Segments are not reused: the zeros behind the last batch are then a fact, and
//! no record of a former life has to be told apart.

use byteorder::{ByteOrder, LittleEndian};
use bytes::{BufMut, Bytes};

use super::contents::Kept;
use super::disk::{Disk, DiskFile};
use super::error::{Context, WalError};
use super::record::{Frame, Position, SECTOR_BYTES};
use crate::encoding::{Malformed, Reader};
use crate::mutants::{self, Mutant};
use crate::raft::entry::{decode_id, encode_id};
use crate::raft::{ClusterId, EntryId, HardState, NodeId};

/// Where the batches start.
pub const DATA_START: u64 = 3 * SECTOR_BYTES as u64;

const MAGIC: u64 = u64::from_le_bytes(*b"RAFTJRNL");
const VERSION: u32 = 1;

/// The file that becomes the next segment.
pub const SPARE_NAME: &str = "journal-next.tmp";

/// The name of a segment; names sort as numbers do.
pub fn name(number: u64) -> String {
    format!("journal-{number:016x}")
}

/// The number in a segment's name.
pub fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("journal-").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// The first sector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Whose log it is.
    pub cluster: ClusterId,
    /// Whose disk it is.
    pub node: NodeId,
    /// From 1, without gaps.
    pub number: u64,
    /// How many bytes the file has.
    pub size: u64,
    /// What the first batch follows.
    pub position: Position,
    /// The last entry of the log at that point.
    pub last: EntryId,
    /// Term, vote and commit index at that point.
    pub hard_state: HardState,
    /// The snapshots kept at that point.
    pub kept: Kept,
}

impl Header {
    /// What the CRCs of this segment's records start from.
    pub fn frame(&self) -> Frame {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.position.chain);
        hasher.update(&self.node.0.to_le_bytes());
        hasher.update(&self.number.to_le_bytes());
        Frame { segment: self.number, salt: hasher.finalize() }
    }

    /// One sector.
    pub fn encode(&self) -> Vec<u8> {
        let mut sector = Vec::with_capacity(SECTOR_BYTES);
        sector.put_u64_le(MAGIC);
        sector.put_u32_le(VERSION);
        sector.put_u32_le(0);
        sector.put_u128_le(self.cluster.0);
        sector.put_u128_le(self.node.0);
        sector.put_u64_le(self.number);
        sector.put_u64_le(self.size);
        sector.put_u64_le(self.position.batch);
        sector.put_u32_le(self.position.chain);
        sector.put_u32_le(0);
        encode_id(self.last, &mut sector);
        self.hard_state.encode(&mut sector);
        self.kept.encode(&mut sector);
        sector.resize(SECTOR_BYTES, 0);
        let crc = checksum(&sector);
        LittleEndian::write_u32(&mut sector[12..16], crc);
        sector
    }

    /// Reads what [`Header::encode`] wrote.
    pub fn decode(sector: Bytes) -> Result<Self, Malformed> {
        if sector.len() != SECTOR_BYTES {
            return Err(Malformed("the header ends early"));
        }
        let crc = checksum(&sector);
        let mut reader = Reader::new(sector);
        if reader.u64()? != MAGIC {
            return Err(Malformed("no journal header"));
        }
        let version = reader.u32()?;
        if reader.u32()? != crc {
            return Err(Malformed("the header's checksum is wrong"));
        }
        if version != VERSION {
            return Err(Malformed("a journal of another version"));
        }
        let (cluster, node) = (ClusterId(reader.u128()?), NodeId(reader.u128()?));
        let (number, size) = (reader.u64()?, reader.u64()?);
        let position = Position { batch: reader.u64()?, chain: reader.u32()? };
        reader.u32()?;
        let last = decode_id(&mut reader)?;
        let hard_state = HardState::decode(&mut reader)?;
        let kept = Kept::decode(&mut reader)?;
        Ok(Self { cluster, node, number, size, position, last, hard_state, kept })
    }
}

fn checksum(sector: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sector[..12]);
    hasher.update(&sector[16..]);
    hasher.finalize()
}

/// A segment in use.
pub struct Segment<F> {
    /// Open while it is the last one. The others are opened when they are read:
    /// they may be many, and descriptors are few.
    pub file: Option<F>,
    /// As it is on the disk.
    pub header: Header,
}

/// A file of zeros on its way to become a segment.
pub struct Spare<F> {
    file: F,
    written: u64,
}

impl<F: DiskFile> Spare<F> {
    /// So much is written and synced at a time; a batch waits for no more.
    const PIECE_BYTES: usize = 1 << 20;

    /// Starts an empty one.
    pub fn create<D: Disk<File = F>>(disk: &D) -> Result<Self, WalError> {
        let file = disk.create(SPARE_NAME).growing("create", disk.path(SPARE_NAME))?;
        Ok(Self { file, written: 0 })
    }

    /// How many bytes are ready.
    pub fn size(&self) -> u64 {
        self.written
    }

    /// Itself with one more piece towards `size`, written and synced.
    pub fn grown<D: Disk>(mut self, disk: &D, size: u64) -> Result<Self, WalError> {
        let bytes = size.saturating_sub(self.written).min(Self::PIECE_BYTES as u64);
        let zeros = vec![0; bytes as usize];
        self.file.write_at(self.written, &zeros).growing("write", disk.path(SPARE_NAME))?;
        // Some file systems find out here that there is no space.
        match self.file.sync_data().growing("sync", disk.path(SPARE_NAME)) {
            Err(WalError::Io { file, source, .. }) => return Err(WalError::Sync { file, source }),
            other => other?,
        }
        self.written += bytes;
        Ok(self)
    }

    /// Gives it its header and its name: steps 2 and 3 above.
    pub fn begin<D: Disk<File = F>>(
        self,
        disk: &D,
        header: Header,
    ) -> Result<Segment<F>, WalError> {
        debug_assert_eq!(header.size, self.written, "a segment is written in full before");
        let name = name(header.number);
        self.file.write_at(0, &header.encode()).at("write", disk.path(SPARE_NAME))?;
        self.file.sync_data().synced(disk.path(SPARE_NAME))?;
        disk.rename(SPARE_NAME, &name).at("rename", disk.path(&name))?;
        if !mutants::on(Mutant::SegmentNameNotSynced) {
            disk.sync_dir().synced(disk.path(""))?;
        }
        Ok(Segment { file: Some(self.file), header })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Index, Term};

    fn header() -> Header {
        Header {
            cluster: ClusterId(0x11),
            node: NodeId(0x22),
            number: 3,
            size: 65536,
            position: Position { batch: 9, chain: 0xaabb_ccdd },
            last: EntryId::new(4, 100),
            hard_state: HardState { term: Term(5), vote: Some(NodeId(6)), commit: Index(99) },
            kept: Kept { previous: None, newest: Some(EntryId::new(2, 50)) },
        }
    }

    /// The format on disk: a change here needs a new version.
    #[test]
    fn golden_bytes_of_a_header() {
        let sector = header().encode();
        let hex = |range: std::ops::Range<usize>| -> String {
            sector[range].iter().map(|byte| format!("{byte:02x}")).collect()
        };
        assert_eq!(&sector[..8], b"RAFTJRNL");
        assert_eq!(hex(8..16), "0100000063a95eec");
        assert_eq!(hex(16..32), "11000000000000000000000000000000");
        assert_eq!(hex(32..48), "22000000000000000000000000000000");
        assert_eq!(hex(48..64), "03000000000000000000010000000000");
        assert_eq!(hex(64..80), "0900000000000000ddccbbaa00000000");
        assert_eq!(hex(80..96), "04000000000000006400000000000000");
        assert_eq!(hex(96..105), "050000000000000001");
        assert_eq!(hex(105..129), "060000000000000000000000000000006300000000000000");
        assert_eq!(hex(129..146), "0000000000000000000000000000000000");
        assert_eq!(hex(146..163), "0102000000000000003200000000000000");
        assert!(sector[163..].iter().all(|&byte| byte == 0));
        assert_eq!(Header::decode(sector.into()), Ok(header()));
    }

    #[test]
    fn any_flipped_bit_in_the_sector_is_refused() {
        let whole = header().encode();
        for at in 0..SECTOR_BYTES {
            let mut sector = whole.clone();
            sector[at] ^= 1 << (at % 8);
            assert!(Header::decode(sector.into()).is_err(), "byte {at} goes unnoticed");
        }
    }

    /// A record of elsewhere, smuggled into a value, must not pass for one of here.
    #[test]
    fn no_two_segments_share_a_salt() {
        let salt = |header: Header| header.frame().salt;
        let own = salt(header());
        assert_ne!(own, salt(Header { node: NodeId(0x23), ..header() }));
        assert_ne!(own, salt(Header { number: 4, ..header() }));
        let position = Position { batch: 9, chain: 0xaabb_ccde };
        assert_ne!(own, salt(Header { position, ..header() }));
    }

    #[test]
    fn names_are_numbers() {
        assert_eq!(name(0x1a), "journal-000000000000001a");
        assert_eq!(number(&name(26)), Some(26));
        assert_eq!(number(SPARE_NAME), None);
        assert_eq!(number("journal-1"), None);
    }
}
