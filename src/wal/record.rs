//! Records and batches: the bytes behind a segment's first sectors.
//!
//! A batch is what one write and one sync carry. It starts on a sector boundary
//! and is zero up to the next one; its last record is its seal:
//!
//! ```text
//!  sector                           sector                 sector
//!  ├─ entry ─┬─ entry ─┬─ ... ──────┼────── seal ─┬─ zeros ┼─ next batch
//!
//!  record                                                          bytes
//!  ┌─────────┬─────────┬──────────┬──────┬───────────┐
//!  │ length  │ crc     │ previous │ kind │ 0   0   0 │              16
//!  │ u32     │ u32     │ u32      │ u8   │           │
//!  ├─────────┴─────────┼──────────┴──────┴───────────┤
//!  │ segment u64       │ batch u64                   │              16
//!  ├─────────┬─────────┼─────────────────────────────┘
//!  │ group   │ 0       │                                             8
//!  │ u32     │ u32     │
//!  ├─────────┴─────────┴──────────────── ─ ─
//!  │ payload                                              length bytes
//!  └──────────────────────────────────── ─ ─
//!
//!  kind 1  entry     an entry as `raft` encodes it
//!       2  kept      the snapshots kept from now on; the log goes on
//!       3  restart   a snapshot the log starts anew behind
//!       4  seal      hard state (term u64, voted u8, vote u128, commit u64)
//! ```
//!
//! `length` counts the payload. `crc` is the CRC-32 of all bytes behind it,
//! started from the segment's salt, so that neither a record of another segment
//! nor bytes that a client smuggled into a value pass for one. `previous` is the
//! `crc` of the record before, across batches and segments: records cannot be
//! left out, swapped or repeated unnoticed.
//!
//! A batch counts when it is there up to its seal, else not at all. So a write
//! is atomic, and the hard state cannot be behind the entries it belongs to.

use std::ops::Range;

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;

use crate::encoding::{Malformed, Reader};
use crate::mutants::{self, Mutant};
use crate::raft::HardState;

/// Batches start on multiples of this, so that no write ever touches a physical
/// sector that holds synced data: a power cut may destroy the sector being
/// written, and with it a neighbour that was acknowledged long ago. Disks
/// have sectors of 512 or 4096 bytes.
pub const SECTOR_BYTES: usize = 4096;

/// What a record takes besides its payload.
pub const HEADER_BYTES: usize = 40;

/// One journal may come to hold several logs; so far there is this one.
const GROUP: u32 = 0;

/// The end of the last sector that `bytes` reach into.
pub fn round_up(bytes: usize) -> usize {
    bytes.next_multiple_of(SECTOR_BYTES)
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An entry of the log.
    Entry = 1,
    /// The snapshots kept from now on.
    Kept = 2,
    /// The log starts anew behind a snapshot.
    Restart = 3,
    /// The hard state, and the end of the batch.
    Seal = 4,
}

impl Kind {
    fn decode(byte: u8) -> Option<Self> {
        [Self::Entry, Self::Kept, Self::Restart, Self::Seal]
            .into_iter()
            .find(|&kind| kind as u8 == byte)
    }
}

/// Where a record may stand: what all records of a segment share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The segment's number.
    pub segment: u64,
    /// What its CRCs start from.
    pub salt: u32,
}

/// A record whose CRC is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it says.
    pub kind: Kind,
    /// The batch it came in.
    pub batch: u64,
    /// The CRC of the record before it.
    pub previous: u32,
    /// Its own CRC.
    pub crc: u32,
    /// Where it is in the bytes it was read from.
    pub span: Range<usize>,
    /// What it carries.
    pub payload: Bytes,
}

impl Record {
    /// The record at `at`, if there is a whole one of this segment.
    ///
    /// Lengths are checked against what is there before anything else is read.
    pub fn parse(bytes: &Bytes, at: usize, frame: Frame) -> Option<Self> {
        let header = bytes.get(at..at.checked_add(HEADER_BYTES)?)?;
        let length = LittleEndian::read_u32(&header[0..4]) as usize;
        let end = (at + HEADER_BYTES).checked_add(length)?;
        let segment = LittleEndian::read_u64(&header[16..24]);
        let group = LittleEndian::read_u32(&header[32..36]);
        if end > bytes.len() || segment != frame.segment || group != GROUP {
            return None;
        }
        let crc = LittleEndian::read_u32(&header[4..8]);
        let is_whole = crc == checksum(frame.salt, &bytes[at..end]);
        if !is_whole && !mutants::on(Mutant::CrcUnchecked) {
            return None;
        }
        Some(Self {
            kind: Kind::decode(header[12])?,
            batch: LittleEndian::read_u64(&header[24..32]),
            previous: LittleEndian::read_u32(&header[8..12]),
            crc,
            span: at..end,
            payload: bytes.slice(at + HEADER_BYTES..end),
        })
    }

    /// Where the next record starts: right behind, or behind a seal on the next
    /// sector boundary.
    pub fn next_at(&self) -> usize {
        if self.kind == Kind::Seal { round_up(self.span.end) } else { self.span.end }
    }
}

/// Over the length and everything behind the CRC itself.
fn checksum(salt: u32, record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(&record[0..4]);
    hasher.update(&record[8..]);
    hasher.finalize()
}

/// Where a segment's next batch goes, and what it must follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The number of the next batch, over all segments, from 1.
    pub batch: u64,
    /// The CRC of the last record.
    pub chain: u32,
}

/// A batch being put together.
pub struct Batch {
    frame: Frame,
    number: u64,
    chain: u32,
    bytes: Vec<u8>,
}

impl Batch {
    /// An empty one.
    pub fn new(frame: Frame, position: Position, capacity: usize) -> Self {
        let bytes = Vec::with_capacity(capacity);
        Self { frame, number: position.batch, chain: position.chain, bytes }
    }

    /// Adds a record whose payload `encode` appends; says where it is.
    pub fn put(&mut self, kind: Kind, encode: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.resize(start + HEADER_BYTES, 0);
        encode(&mut self.bytes);
        let record = &mut self.bytes[start..];
        let length = u32::try_from(record.len() - HEADER_BYTES).expect("limits are far below");
        LittleEndian::write_u32(&mut record[0..4], length);
        LittleEndian::write_u32(&mut record[8..12], self.chain);
        record[12] = kind as u8;
        LittleEndian::write_u64(&mut record[16..24], self.frame.segment);
        LittleEndian::write_u64(&mut record[24..32], self.number);
        LittleEndian::write_u32(&mut record[32..36], GROUP);
        self.chain = checksum(self.frame.salt, record);
        LittleEndian::write_u32(&mut record[4..8], self.chain);
        start..self.bytes.len()
    }

    /// Ends the batch: its bytes, whole sectors, and what the next one follows.
    pub fn seal(mut self, hard_state: &HardState) -> (Vec<u8>, Position) {
        self.put(Kind::Seal, |buffer| hard_state.encode(buffer));
        self.bytes.resize(round_up(self.bytes.len()), 0);
        (self.bytes, Position { batch: self.number + 1, chain: self.chain })
    }
}

/// A whole batch, read back.
#[derive(Debug)]
pub struct Sealed {
    /// Its records but the seal.
    pub records: Vec<Record>,
    /// What the seal says.
    pub hard_state: HardState,
    /// The sector boundary behind it.
    pub end: usize,
    /// What the next one follows.
    pub position: Position,
}

impl Sealed {
    /// The batch that follows `position`, at `at`; `None` if it is not there up
    /// to its seal, chained record by record.
    pub fn parse(bytes: &Bytes, at: usize, frame: Frame, position: Position) -> Option<Self> {
        let mut records = Vec::new();
        let (mut at, mut chain) = (at, position.chain);
        loop {
            let record = Record::parse(bytes, at, frame)?;
            let follows = record.previous == chain || mutants::on(Mutant::ChainUnchecked);
            if record.batch != position.batch || !follows {
                return None;
            }
            (at, chain) = (record.next_at(), record.crc);
            if record.kind == Kind::Seal {
                let hard_state = decode_seal(record.payload).ok()?;
                let position = Position { batch: position.batch + 1, chain };
                return Some(Self { records, hard_state, end: at, position });
            }
            records.push(record);
        }
    }
}

fn decode_seal(payload: Bytes) -> Result<HardState, Malformed> {
    let mut reader = Reader::new(payload);
    let hard_state = HardState::decode(&mut reader)?;
    reader.finish()?;
    Ok(hard_state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Entry, EntryId, Index, NodeId, Payload, Term};

    const FRAME: Frame = Frame { segment: 3, salt: 7 };
    const POSITION: Position = Position { batch: 9, chain: 0xaabb_ccdd };

    fn hard_state() -> HardState {
        HardState { term: Term(5), vote: Some(NodeId(6)), commit: Index(4) }
    }

    fn batch() -> Vec<u8> {
        let mut batch = Batch::new(FRAME, POSITION, 0);
        let payload = Payload::Command(Bytes::from_static(b"set a 1"));
        let entry = Entry { id: EntryId::new(5, 4), payload };
        batch.put(Kind::Entry, |buffer| entry.encode(buffer));
        batch.seal(&hard_state()).0
    }

    /// The format on disk: a change here needs a new version in the header.
    #[test]
    fn golden_bytes_of_a_batch() {
        let bytes = batch();
        assert_eq!(bytes.len(), SECTOR_BYTES);
        let hex = |range: Range<usize>| -> String {
            bytes[range].iter().map(|byte| format!("{byte:02x}")).collect()
        };
        assert_eq!(hex(0..16), "1c0000002345b044ddccbbaa01000000");
        assert_eq!(hex(16..40), "030000000000000009000000000000000000000000000000");
        assert_eq!(hex(40..68), "05000000000000000400000000000000010700000073657420612031");
        assert_eq!(hex(68..84), "21000000279b27e42345b04404000000");
        assert_eq!(
            hex(108..141),
            "050000000000000001060000000000000000000000000000000400000000000000"
        );
        assert!(bytes[141..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_batch_is_read_back() {
        let bytes = Bytes::from(batch());
        let sealed = Sealed::parse(&bytes, 0, FRAME, POSITION).unwrap();
        assert_eq!(sealed.records.len(), 1);
        assert_eq!(sealed.hard_state, hard_state());
        assert_eq!(sealed.end, SECTOR_BYTES);
        assert_eq!(sealed.position.batch, 10);
    }

    #[test]
    fn any_flipped_bit_breaks_it() {
        let whole = batch();
        for at in 0..141 {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                let parsed = Sealed::parse(&bytes.into(), 0, FRAME, POSITION);
                assert!(parsed.is_none(), "bit {bit} of byte {at} goes unnoticed");
            }
        }
    }

    #[test]
    fn a_record_of_elsewhere_or_another_time_is_none() {
        let bytes = Bytes::from(batch());
        let parse = |frame, position| Sealed::parse(&bytes, 0, frame, position);
        assert!(parse(Frame { segment: 4, ..FRAME }, POSITION).is_none());
        assert!(parse(Frame { salt: 8, ..FRAME }, POSITION).is_none());
        assert!(parse(FRAME, Position { batch: 8, ..POSITION }).is_none());
        assert!(parse(FRAME, Position { chain: 0, ..POSITION }).is_none());
    }

    #[test]
    fn a_record_of_another_log_is_none() {
        let mut bytes = batch();
        bytes[32] = 1;
        let length = HEADER_BYTES + LittleEndian::read_u32(&bytes[0..4]) as usize;
        let crc = checksum(FRAME.salt, &bytes[..length]);
        LittleEndian::write_u32(&mut bytes[4..8], crc);
        assert!(Record::parse(&bytes.into(), 0, FRAME).is_none());
    }

    #[test]
    fn a_length_beyond_the_file_is_no_record() {
        let mut bytes = batch();
        LittleEndian::write_u32(&mut bytes[0..4], u32::MAX);
        assert!(Record::parse(&bytes.into(), 0, FRAME).is_none());
        assert!(Record::parse(&Bytes::new(), usize::MAX, FRAME).is_none());
    }
}
