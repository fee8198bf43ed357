//! One key and its value, in a single counted allocation.
//!
//! ```text
//! | deadline u64 | version u64 | name length u32 | name … | value … | content hash u64 |
//!                                                                   (large values only)
//! ```
//!
//! With the two reference counts and the allocator's own word, a key of 16
//! bytes with 100 bytes of value takes 160 bytes. The database is not stored:
//! it is where the item lies. Cloning an item counts one reference up, which is
//! what makes a snapshot's visit cheap; an item that a snapshot or a reply still
//! holds is copied when its deadline changes, never altered.
//!
//! A value from [`LARGE_BYTES`] on carries the hash of its content, so that
//! removing it, or giving it a deadline, need not read it all again.

use std::sync::Arc;

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;

use super::hash;

/// The deadline of a key without one. A key is absent at `now` if its deadline
/// is at most `now`, so no case distinction is needed.
pub const NEVER: u64 = u64::MAX;

/// From this size on a value is handed out by reference instead of copied, and
/// its content hash is stored.
pub const LARGE_BYTES: usize = 1024;

const HEADER_BYTES: usize = 8 + 8 + 4;
const HASH_BYTES: usize = 8;

// Tells the hash of a name from that of other strings.
const NAME_SEED: u64 = 1;

/// What an item counts in memory besides name and value: header, reference
/// counts, its share of the table, rounding and holes by the allocator. Close
/// above what was measured for a million keys of 16 + 100 bytes.
pub const OVERHEAD_BYTES: u64 = 72;

/// What a deadline adds: its entry in the expiry index.
pub const DEADLINE_BYTES: u64 = 24;

/// The hash of a key's name, which says where it lies.
pub fn name_hash(name: &[u8]) -> u64 {
    hash::bytes(NAME_SEED, name)
}

/// A key with its value, deadline and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item(Arc<[u8]>);

impl Item {
    /// Copies name and value together.
    pub fn new(name: &[u8], value: &[u8], deadline_ms: u64, version: u64) -> Self {
        let is_large = value.len() >= LARGE_BYTES;
        let start = HEADER_BYTES + name.len();
        let end = start + value.len();
        let length = if is_large { end + HASH_BYTES } else { end };
        // Made in its final place: from a `Vec` it would be copied once more.
        let mut item: Arc<[u8]> = std::iter::repeat_n(0, length).collect();
        let bytes = Arc::get_mut(&mut item).expect("nobody else has it yet");
        let name_length = u32::try_from(name.len()).expect("names are far below 4 GiB");
        LittleEndian::write_u64(bytes, deadline_ms);
        LittleEndian::write_u64(&mut bytes[8..], version);
        LittleEndian::write_u32(&mut bytes[16..], name_length);
        bytes[HEADER_BYTES..start].copy_from_slice(name);
        bytes[start..end].copy_from_slice(value);
        if is_large {
            LittleEndian::write_u64(&mut bytes[end..], content_hash(name, value));
        }
        Self(item)
    }

    /// When it goes away, in log time; [`NEVER`] if it stays.
    pub fn deadline_ms(&self) -> u64 {
        LittleEndian::read_u64(&self.0)
    }

    /// The log index of its last write.
    pub fn version(&self) -> u64 {
        LittleEndian::read_u64(&self.0[8..])
    }

    /// Its name.
    pub fn name(&self) -> &[u8] {
        &self.0[HEADER_BYTES..HEADER_BYTES + self.name_length()]
    }

    /// Its value.
    pub fn value(&self) -> &[u8] {
        let (start, end) = self.value_range();
        &self.0[start..end]
    }

    /// Its value as a reply holds it: a copy if it is small, else a share of
    /// this very allocation.
    pub fn value_bytes(&self) -> Bytes {
        let (start, end) = self.value_range();
        if end - start < LARGE_BYTES {
            Bytes::copy_from_slice(&self.0[start..end])
        } else {
            Bytes::from_owner(Owner(self.clone())).slice(start..end)
        }
    }

    /// Whether it is there at this log time.
    pub fn is_live(&self, now_ms: u64) -> bool {
        self.deadline_ms() > now_ms
    }

    /// Changes deadline and version, in place unless the item is shared.
    pub fn set_deadline(&mut self, deadline_ms: u64, version: u64) {
        let bytes = Arc::make_mut(&mut self.0);
        LittleEndian::write_u64(bytes, deadline_ms);
        LittleEndian::write_u64(&mut bytes[8..], version);
    }

    /// Whether a snapshot or a reply holds it too.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// What it counts in memory; a formula, the same on every replica.
    pub fn memory_bytes(&self) -> u64 {
        let deadline = if self.deadline_ms() == NEVER { 0 } else { DEADLINE_BYTES };
        OVERHEAD_BYTES + deadline + (self.name().len() + self.value().len()) as u64
    }

    /// Its part of the state hash.
    pub fn state_hash(&self, db: u8) -> u64 {
        hash::words([self.content_hash(), u64::from(db), self.deadline_ms(), self.version()])
    }

    fn content_hash(&self) -> u64 {
        let (_, end) = self.value_range();
        match self.0.get(end..end + HASH_BYTES) {
            Some(stored) => LittleEndian::read_u64(stored),
            None => content_hash(self.name(), self.value()),
        }
    }

    fn name_length(&self) -> usize {
        LittleEndian::read_u32(&self.0[16..]) as usize
    }

    /// The stored hash, where there is one, makes a large item 8 bytes longer,
    /// so the length alone tells which it is.
    fn value_range(&self) -> (usize, usize) {
        let start = HEADER_BYTES + self.name_length();
        let rest = self.0.len() - start;
        let tail = if rest >= LARGE_BYTES + HASH_BYTES { HASH_BYTES } else { 0 };
        (start, self.0.len() - tail)
    }
}

fn content_hash(name: &[u8], value: &[u8]) -> u64 {
    hash::bytes(name_hash(name), value)
}

/// Lets a reply share an item's memory.
struct Owner(Item);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_gives_back_what_it_was_made_of() {
        let sizes = [0, 1, 100, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 7, LARGE_BYTES + 8];
        for size in sizes {
            let value: Vec<u8> = (0..size).map(|i| i as u8).collect();
            let item = Item::new(b"name", &value, 5, 7);
            assert_eq!((item.name(), item.value()), (&b"name"[..], &value[..]), "{size}");
            assert_eq!((item.deadline_ms(), item.version()), (5, 7));
            assert_eq!(item.value_bytes(), value);
            assert_eq!(item.memory_bytes(), OVERHEAD_BYTES + DEADLINE_BYTES + 4 + size as u64);
            assert_eq!(item.content_hash(), content_hash(b"name", &value), "{size}");
        }
    }

    #[test]
    fn a_shared_item_is_never_altered() {
        let old = Item::new(b"name", b"value", NEVER, 1);
        let mut new = old.clone();
        new.set_deadline(9, 2);
        assert_eq!((old.deadline_ms(), old.version()), (NEVER, 1));
        assert_eq!((new.deadline_ms(), new.version()), (9, 2));
        assert!(!new.is_shared(), "it has its own allocation now");
        assert_eq!(new.memory_bytes(), old.memory_bytes() + DEADLINE_BYTES);
    }

    #[test]
    fn everything_about_an_item_is_in_its_hash() {
        let item = |name: &str, value: &str, deadline, version| {
            Item::new(name.as_bytes(), value.as_bytes(), deadline, version)
        };
        let base = item("ab", "cd", 5, 7).state_hash(0);
        assert_ne!(base, item("ab", "cd", 5, 7).state_hash(1));
        assert_ne!(base, item("ab", "cd", 6, 7).state_hash(0));
        assert_ne!(base, item("ab", "cd", 5, 8).state_hash(0));
        assert_ne!(base, item("abc", "d", 5, 7).state_hash(0));
        assert_ne!(base, item("ab", "cD", 5, 7).state_hash(0));
    }
}
