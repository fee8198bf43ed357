//! The mark: how far a segment is known to be synced.
//!
//! In a pre-written segment zeros are what the end of the log looks like, and
//! also what a lost page looks like. The mark tells them apart: up to it every
//! byte was synced once, and whatever does not read back is damage.
//!
//! ```text
//!  ┌───────┬───────┬─────────────┬───────────┬─────────┬───────┬────────┐
//!  │ magic │ crc   │ segment u64 │ batch u64 │ end u64 │ chain │ closed │  40 bytes
//!  │ u32   │ u32   │             │           │         │ u32   │ u32    │  of a sector
//!  └───────┴───────┴─────────────┴───────────┴─────────┴───────┴────────┘
//!   crc over all behind it · batch: the last one synced · end: the offset
//!   behind it · chain: the CRC of its seal · closed: 1 once the next segment is
//!   durable, so that the newest one cannot be lost unnoticed
//! ```
//!
//! It is written when the sync of a batch has returned, of every eighth one or so,
//! and is itself carried to the disk by the sync of the next: it costs no sync of
//! its own, and lags by that much under load. When there is nothing else to do,
//! and when a segment closes, it is written and synced. [After every batch it was
//! a second page for each sync to write: 90 µs of the 480 that a client waits
//! which is alone.]
//!
//! Two sectors take turns. A power cut can destroy the one being written;
//!
//! 1. the other one then holds the mark before it, which the sync that came
//!    between has made durable;
//! 2. a mark that is there whole is true, because it was written after the sync
//!    that it reports;
//! 3. zeros in both mean nothing is vouched for yet: no mark was written, or the
//!    first one was in flight and never arrived;
//! 4. two sectors that are written and hold no mark are damage, for crashes
//!    destroy one at most. A mark is only ever written when the one before is
//!    durable: `sync_batch` and `idle` write one when a batch was synced since,
//!    `rotate` and a recovery sync the segment first; `write_mark` insists. And it
//!    is written over the older of two, or over what is no mark, so that one crash
//!    after another destroys the same sector. (After a sync that failed a sector
//!    holds what it held before.) A segment that is not the last is written no
//!    more; a new one is all zeros, synced before it has a header, because no
//!    file is used twice.

use byteorder::{ByteOrder, LittleEndian};

use super::record::{Position, SECTOR_BYTES};

const MAGIC: u32 = 0x4b52_4d52; // "RMRK"
const USED_BYTES: usize = 40;

/// Up to where a segment was synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Which segment; it is part of the check only.
    pub segment: u64,
    /// The offset behind the last synced batch.
    pub end: u64,
    /// What the next batch follows.
    pub position: Position,
    /// Whether it follows in the next segment, which is durable.
    pub closed: bool,
}

impl Mark {
    /// The offsets of the two sectors.
    pub const SLOTS: [u64; 2] = [SECTOR_BYTES as u64, 2 * SECTOR_BYTES as u64];

    /// One sector.
    pub fn encode(&self) -> [u8; SECTOR_BYTES] {
        let mut sector = [0; SECTOR_BYTES];
        LittleEndian::write_u32(&mut sector[0..4], MAGIC);
        LittleEndian::write_u64(&mut sector[8..16], self.segment);
        LittleEndian::write_u64(&mut sector[16..24], self.position.batch - 1);
        LittleEndian::write_u64(&mut sector[24..32], self.end);
        LittleEndian::write_u32(&mut sector[32..36], self.position.chain);
        LittleEndian::write_u32(&mut sector[36..40], u32::from(self.closed));
        let crc = crc32fast::hash(&sector[8..USED_BYTES]);
        LittleEndian::write_u32(&mut sector[4..8], crc);
        sector
    }

    /// The mark in a sector, if a whole one of this segment is there.
    pub fn decode(sector: &[u8], segment: u64) -> Option<Self> {
        let sector = sector.get(..USED_BYTES)?;
        let whole = LittleEndian::read_u32(&sector[0..4]) == MAGIC
            && LittleEndian::read_u32(&sector[4..8]) == crc32fast::hash(&sector[8..])
            && LittleEndian::read_u64(&sector[8..16]) == segment;
        let batch = LittleEndian::read_u64(&sector[16..24]).checked_add(1)?;
        let chain = LittleEndian::read_u32(&sector[32..36]);
        let end = LittleEndian::read_u64(&sector[24..32]);
        let closed = LittleEndian::read_u32(&sector[36..40]) != 0;
        whole.then_some(Self { segment, end, position: Position { batch, chain }, closed })
    }

    /// The latest mark of a segment whose bytes these are, and its slot.
    pub fn find(bytes: &[u8], segment: u64) -> Option<(usize, Self)> {
        (0..2)
            .filter_map(|slot| {
                let sector = bytes.get(Self::SLOTS[slot] as usize..)?;
                Some((slot, Self::decode(sector, segment)?))
            })
            .max_by_key(|(_, mark)| (mark.position.batch, mark.closed))
    }

    /// Whether both sectors were written and hold no mark: rule 4 above.
    pub fn are_destroyed(bytes: &[u8], segment: u64) -> bool {
        let is_written = |slot: u64| {
            let sector = bytes.get(slot as usize..slot as usize + SECTOR_BYTES);
            sector.is_some_and(|sector| sector.iter().any(|&byte| byte != 0))
        };
        Self::find(bytes, segment).is_none() && Self::SLOTS.into_iter().all(is_written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(batch: u64) -> Mark {
        Mark { segment: 4, end: 8192, position: Position { batch, chain: 77 }, closed: false }
    }

    #[test]
    fn marks_take_turns_and_the_latest_whole_one_counts() {
        let mut bytes = vec![0; 3 * SECTOR_BYTES];
        assert_eq!(Mark::find(&bytes, 4), None, "zeros are no mark");
        for (slot, mark) in Mark::SLOTS.into_iter().zip([mark(2), mark(3)]) {
            bytes[slot as usize..slot as usize + SECTOR_BYTES].copy_from_slice(&mark.encode());
        }
        assert_eq!(Mark::find(&bytes, 4), Some((1, mark(3))));
        assert_eq!(Mark::find(&bytes, 5), None, "another segment's");
        bytes[Mark::SLOTS[1] as usize + 30] ^= 1;
        assert_eq!(Mark::find(&bytes, 4), Some((0, mark(2))), "a torn one leaves the other");
    }
}
