//! Where keys lie: 16,384 slots by CRC16 of the key, each a row of leaves.
//!
//! A slot is the unit of sharding, the same that Redis Cluster uses: CRC16 of
//! the name, or of what stands between the first `{` and the next `}` if that
//! is not empty, so that `{user7}:a` and `{user7}:b` lie together.
//!
//! A slot is a table by *linear hashing* (Litwin, 1980). Its leaves hold about
//! [`LEAF_KEYS`] items each. When there are more, one leaf splits in two, and
//! it is always the next in turn; no insertion ever moves more than a leaf or
//! two, also when a hash tag has drawn a million keys into one slot. A leaf is
//! two arrays, 16-bit tags and items, and finding a key is a scan of the tags:
//! as fast at this size as a hash table, with less memory, and with an order
//! that depends on nothing but the writes.
//!
//! The leaf is also the unit of a snapshot's visit, and carries the number of
//! the last snapshot that has seen it.
//!
//! Pitfall: the hash has no secret, because it breaks ties between deadlines on
//! all replicas alike. Whoever may write can aim keys at one leaf and make it
//! slow to scan; other leaves are not affected.

use super::item::{Item, name_hash};

/// How many slots there are.
pub const SLOTS: usize = 16_384;

/// How many items a leaf holds on average before one splits.
pub const LEAF_KEYS: usize = 64;

/// How many slots are counted together.
const GROUP_SLOTS: usize = 128;

/// Of so many bytes of name, each counts as one more key in a scan.
const LONG_NAME_BYTES: usize = 128;

const HASH_BITS: u32 = 50;
const TAG_BITS: u32 = 16;

/// The slot a name belongs to, as Redis Cluster computes it.
pub fn slot_of(name: &[u8]) -> usize {
    usize::from(crc16(hash_tag(name))) % SLOTS
}

fn hash_tag(name: &[u8]) -> &[u8] {
    let Some(open) = name.iter().position(|&byte| byte == b'{') else { return name };
    let inner = &name[open + 1..];
    match inner.iter().position(|&byte| byte == b'}') {
        Some(length) if length > 0 => &inner[..length],
        _ => name,
    }
}

/// CRC16-XMODEM: polynomial 0x1021, start 0, nothing reflected.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ CRC16_TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

const CRC16_TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

/// Where a key lies: 14 bits of slot above 50 bits of its name's hash.
///
/// Two names may share a place; it is a way to the leaf, not an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

impl Place {
    /// The place of a name.
    pub fn of(name: &[u8]) -> Self {
        let hash = name_hash(name) & ((1 << HASH_BITS) - 1);
        Self((slot_of(name) as u64) << HASH_BITS | hash)
    }

    fn slot(self) -> usize {
        (self.0 >> HASH_BITS) as usize
    }

    fn tag(self) -> u16 {
        (self.0 >> (HASH_BITS - TAG_BITS)) as u16
    }

    fn leaf(self, leaves: usize) -> usize {
        leaf_number(self.0 as usize, leaves)
    }

    /// Where it comes in its slot when that is scanned.
    fn scan_order(self) -> u32 {
        (self.0 as u32).reverse_bits()
    }
}

/// Which of `leaves` leaves: by the low bits of the hash, and by one bit less if
/// that leaf has not been split off yet.
pub fn leaf_number(hash: usize, leaves: usize) -> usize {
    let doubled = leaves.next_power_of_two();
    let leaf = hash & (doubled - 1);
    if leaf < leaves { leaf } else { leaf - doubled / 2 }
}

/// How many of the 2^32 orders of a scan are a leaf's.
fn leaf_span(number: usize, leaves: usize) -> u64 {
    let doubled = leaves.next_power_of_two();
    let is_split = number >= doubled / 2 || number + doubled / 2 < leaves;
    let parts = if is_split { doubled } else { doubled / 2 };
    (1 << 32) / parts.max(1) as u64
}

/// All of them, from the one on that a number chooses.
fn after<T>(all: &[T], number: usize) -> impl Iterator<Item = &T> {
    let (before, from) = all.split_at(number.checked_rem(all.len()).unwrap_or(0));
    from.iter().chain(before)
}

/// A few dozen items.
///
/// Invariant: `tags[i]` is the tag of `items[i]`; no two items share a name.
#[derive(Debug, Default)]
pub struct Leaf {
    tags: Vec<u16>,
    items: Vec<Item>,
    /// The last snapshot that has seen it; what was there when it began has
    /// been taken, and what is written now is no concern of it.
    pub visited: u32,
}

impl Leaf {
    /// Its items, in an order that only writes determine.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    fn matching(&self, tag: u16, is_wanted: impl Fn(&Item) -> bool) -> Option<usize> {
        const STEP: usize = 32;
        for (step, tags) in self.tags.chunks(STEP).enumerate() {
            // Without an early exit, so that it compiles to vector compares.
            if !tags.iter().fold(false, |found, &other| found | (other == tag)) {
                continue;
            }
            for (i, &other) in (step * STEP..).zip(tags) {
                if other == tag && is_wanted(&self.items[i]) {
                    return Some(i);
                }
            }
        }
        None
    }

    fn position(&self, place: Place, name: &[u8]) -> Option<usize> {
        self.matching(place.tag(), |item| item.name() == name)
    }

    fn push(&mut self, tag: u16, item: Item) {
        if self.tags.len() == self.tags.capacity() {
            // Doubling would waste a quarter on average; smaller steps leave holes
            // that nothing fits into (measured: 187 bytes per key, 193 by fours).
            let more = (self.tags.len() / 8).max(16);
            self.tags.reserve_exact(more);
            self.items.reserve_exact(more);
        }
        self.tags.push(tag);
        self.items.push(item);
    }

    fn remove(&mut self, position: usize) -> Item {
        self.tags.swap_remove(position);
        let item = self.items.swap_remove(position);
        if self.tags.capacity() > 2 * self.tags.len() + 8 {
            self.tags.shrink_to_fit();
            self.items.shrink_to_fit();
        }
        item
    }

    /// Moves out what belongs to leaf number `to` of `leaves`.
    fn split(&mut self, to: usize, leaves: usize) -> Self {
        let mut new = Self { visited: self.visited, ..Self::default() };
        let old = std::mem::replace(self, Self { visited: self.visited, ..Self::default() });
        for (tag, item) in old.tags.into_iter().zip(old.items) {
            let leaf = Place::of(item.name()).leaf(leaves);
            if leaf == to { &mut new } else { &mut *self }.push(tag, item);
        }
        new
    }
}

/// One slot: leaves by linear hashing, none while it is empty from the start.
#[derive(Debug, Default)]
struct Slot {
    leaves: Vec<Leaf>,
    keys: usize,
}

impl Slot {
    /// One more leaf if the others are too full: it takes its half from the
    /// leaf whose hashes differ in the top bit only.
    fn grow(&mut self) {
        if self.keys <= self.leaves.len() * LEAF_KEYS {
            return;
        }
        let to = self.leaves.len();
        let from = to - (to + 1).next_power_of_two() / 2;
        let new = self.leaves[from].split(to, to + 1);
        self.leaves.push(new);
    }

    /// The reverse of [`Slot::grow`] once leaves are rather empty. Leaves of
    /// which a snapshot has seen only one stay apart until it is over.
    fn shrink(&mut self) {
        let last = self.leaves.len() - 1;
        if last == 0 || self.keys * 4 > last * LEAF_KEYS {
            return;
        }
        let into = last - (last + 1).next_power_of_two() / 2;
        if self.leaves[into].visited != self.leaves[last].visited {
            return;
        }
        if let Some(leaf) = self.leaves.pop() {
            for (tag, item) in leaf.tags.into_iter().zip(leaf.items) {
                self.leaves[into].push(tag, item);
            }
        }
    }
}

/// All slots of one database.
#[derive(Debug)]
pub struct Slots {
    slots: Vec<Slot>,
    /// How many keys each [`GROUP_SLOTS`] slots have together.
    groups: Vec<usize>,
}

impl Default for Slots {
    fn default() -> Self {
        let slots = std::iter::repeat_with(Slot::default).take(SLOTS).collect();
        Self { slots, groups: vec![0; SLOTS / GROUP_SLOTS] }
    }
}

impl Slots {
    /// The item of this name, present or past its deadline.
    pub fn find(&self, place: Place, name: &[u8]) -> Option<&Item> {
        let slot = &self.slots[place.slot()];
        let leaf = slot.leaves.get(place.leaf(slot.leaves.len().max(1)))?;
        leaf.position(place, name).map(|i| &leaf.items[i])
    }

    /// The item with this place and deadline, that of the smallest name if there are
    /// several.
    pub fn find_due(&self, place: Place, deadline_ms: u64) -> Option<&Item> {
        let slot = &self.slots[place.slot()];
        let leaf = slot.leaves.get(place.leaf(slot.leaves.len().max(1)))?;
        let tagged = leaf.tags.iter().zip(&leaf.items).filter(|(tag, _)| **tag == place.tag());
        let due = tagged.filter(|(_, item)| item.deadline_ms() == deadline_ms);
        let here = due.map(|(_, item)| item).filter(|item| Place::of(item.name()) == place);
        here.min_by_key(|item| item.name())
    }

    /// The leaf that a write to this place will touch, a new one if the slot has
    /// none.
    pub fn leaf_mut(&mut self, place: Place) -> &mut Leaf {
        let slot = &mut self.slots[place.slot()];
        if slot.leaves.is_empty() {
            slot.leaves.reserve_exact(1);
            slot.leaves.push(Leaf::default());
        }
        let leaf = place.leaf(slot.leaves.len());
        &mut slot.leaves[leaf]
    }

    /// Stores an item in the place of its name and returns the one it replaces.
    /// The leaf must exist ([`Slots::leaf_mut`]).
    pub fn put(&mut self, place: Place, item: Item) -> Option<Item> {
        let slot = &mut self.slots[place.slot()];
        let leaf = place.leaf(slot.leaves.len());
        let leaf = &mut slot.leaves[leaf];
        if let Some(i) = leaf.position(place, item.name()) {
            return Some(std::mem::replace(&mut leaf.items[i], item));
        }
        leaf.push(place.tag(), item);
        slot.keys += 1;
        slot.grow();
        self.groups[place.slot() / GROUP_SLOTS] += 1;
        None
    }

    /// Takes an item out.
    pub fn remove(&mut self, place: Place, name: &[u8]) -> Option<Item> {
        let slot = &mut self.slots[place.slot()];
        let leaf = place.leaf(slot.leaves.len().max(1));
        let leaf = slot.leaves.get_mut(leaf)?;
        let position = leaf.position(place, name)?;
        let item = leaf.remove(position);
        slot.keys -= 1;
        slot.shrink();
        self.groups[place.slot() / GROUP_SLOTS] -= 1;
        Some(item)
    }

    /// The item of this name, to be altered in place; the name must stay.
    pub fn find_mut(&mut self, place: Place, name: &[u8]) -> Option<&mut Item> {
        let slot = &mut self.slots[place.slot()];
        let leaf = place.leaf(slot.leaves.len().max(1));
        let leaf = slot.leaves.get_mut(leaf)?;
        let position = leaf.position(place, name)?;
        Some(&mut leaf.items[position])
    }

    /// The next leaf at or after a position that snapshot `visited` has not
    /// seen, which from now on counts as seen; the position moves behind it.
    pub fn visit_next(&mut self, cursor: &mut Cursor, visited: u32) -> Option<&Leaf> {
        while cursor.slot < SLOTS {
            let leaves = &self.slots[cursor.slot].leaves;
            let unseen = |leaf: &Leaf| leaf.visited != visited;
            match (cursor.leaf..leaves.len()).find(|&i| unseen(&leaves[i])) {
                Some(i) => {
                    cursor.leaf = i + 1;
                    let leaf = &mut self.slots[cursor.slot].leaves[i];
                    leaf.visited = visited;
                    return Some(leaf);
                }
                None => *cursor = Cursor { slot: cursor.slot + 1, leaf: 0 },
            }
        }
        None
    }

    /// Shows about `count` items, from a cursor on, and returns the one to go on
    /// with; 0 is the beginning, and the end.
    ///
    /// ```text
    /// cursor | slot, 14 bits | lowest 32 bits of the name's hash, the lowest first |
    /// ```
    ///
    /// In this order a leaf is a range of cursors, as its number is the low bits of
    /// the hash; a leaf that splits is two halves of its range, and two that are
    /// merged make it whole. So whatever happens to the leaves between two calls,
    /// what lies before the cursor has been shown, and what lies behind has not.
    pub fn scan(&self, cursor: u64, count: u32, mut show: impl FnMut(&Item)) -> u64 {
        let (mut cursor, mut shown) = (cursor, 0);
        while let Some(slot) = self.slots.get((cursor >> 32) as usize) {
            if slot.leaves.is_empty() {
                cursor = ((cursor >> 32) + 1) << 32;
                continue;
            }
            if shown >= count.max(1) {
                return cursor;
            }
            let from = cursor as u32;
            let number = leaf_number(from.reverse_bits() as usize, slot.leaves.len());
            let leaf = &slot.leaves[number];
            let here = |item: &&Item| Place::of(item.name()).scan_order() >= from;
            for item in leaf.items.iter().filter(here) {
                show(item);
                // Long names are more to take along.
                shown = shown.saturating_add((item.name().len() / LONG_NAME_BYTES) as u32);
            }
            shown = shown.saturating_add((leaf.items.len() as u32).max(1));
            let end =
                u64::from((number as u32).reverse_bits()) + leaf_span(number, slot.leaves.len());
            cursor = ((cursor >> 32) << 32) + end;
        }
        0
    }

    /// An item: in the slot of the key of this rank, which is below the number of
    /// keys, and there one that a number chooses.
    pub fn choose(&self, rank: u64, number: u64) -> Option<&Item> {
        let mut rank = usize::try_from(rank).ok()?;
        let mut within = |count: usize| match rank.checked_sub(count) {
            Some(rest) => {
                rank = rest;
                false
            }
            None => true,
        };
        let group = self.groups.iter().position(|&keys| within(keys))?;
        let slots = &self.slots[group * GROUP_SLOTS..];
        let slot = slots.iter().find(|slot| within(slot.keys))?;
        let [leaf, item] = [number >> 32, number].map(|part| part as usize);
        let leaf = after(&slot.leaves, leaf).find(|leaf| !leaf.items.is_empty())?;
        after(&leaf.items, item).next()
    }

    /// Frees one leaf, or a slot without any, and returns how many keys went.
    /// `None` if nothing is left.
    pub fn free_some(&mut self) -> Option<usize> {
        let slot = self.slots.last_mut()?;
        match slot.leaves.pop() {
            Some(leaf) => Some(leaf.items.len()),
            None => {
                self.slots.pop();
                Some(0)
            }
        }
    }
}

/// How far a walk over the leaves has come.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cursor {
    slot: usize,
    leaf: usize,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;
    use crate::fsm::item::NEVER;

    fn put(slots: &mut Slots, name: &[u8], value: &[u8]) -> Option<Item> {
        let place = Place::of(name);
        slots.leaf_mut(place);
        slots.put(place, Item::new(name, value, NEVER, 1))
    }

    /// The first two from the CRC catalogue and the Redis Cluster tutorial.
    #[test]
    fn slots_are_those_of_redis_cluster() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"{user1000}.followers"));
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(hash_tag(b"foo{}{bar}"), b"foo{}{bar}", "an empty tag is none");
        assert_eq!(hash_tag(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hash_tag(b"foo{bar}{zap}"), b"bar");
        assert_eq!(hash_tag(b"foo{bar"), b"foo{bar");
    }

    #[test]
    fn leaves_are_found_at_every_stage_of_growth() {
        let names: Vec<Vec<u8>> = (0..20_000).map(|i| format!("{{tag}}{i}").into_bytes()).collect();
        let mut slots = Slots::default();
        for (i, name) in names.iter().enumerate() {
            assert_eq!(put(&mut slots, name, b"1"), None);
            let probe = &names[i / 2];
            assert!(slots.find(Place::of(probe), probe).is_some(), "{i}");
        }
        let slot = &slots.slots[slot_of(b"tag")];
        assert_eq!(slot.leaves.len(), names.len().div_ceil(LEAF_KEYS));
        let largest = slot.leaves.iter().map(|leaf| leaf.items.len()).max();
        assert!(largest < Some(4 * LEAF_KEYS), "{largest:?}");

        for name in &names {
            assert!(put(&mut slots, name, b"2").is_some_and(|old| old.value() == b"1"));
            let place = Place::of(name);
            assert!(slots.remove(place, name).is_some_and(|item| item.value() == b"2"));
            assert!(slots.find(place, name).is_none());
        }
        assert_eq!(slots.slots[slot_of(b"tag")].leaves.len(), 1, "leaves are merged again");
    }

    #[test]
    fn names_that_share_a_tag_are_told_apart() {
        let mut leaf = Leaf::default();
        for name in ["a", "b", "c"] {
            leaf.push(7, Item::new(name.as_bytes(), b"", NEVER, 1));
        }
        assert_eq!(leaf.matching(7, |item| item.name() == b"b"), Some(1));
        assert_eq!(leaf.matching(7, |item| item.name() == b"d"), None);
        assert_eq!(leaf.matching(8, |_| true), None);
    }

    /// [A million keys under one tag are one slot of 16,384: drawn by the slot, they
    /// would never be drawn.]
    #[test]
    fn all_are_chosen_about_as_often_wherever_they_lie() {
        let mut slots = Slots::default();
        for i in 0..5000 {
            put(&mut slots, format!("{{tag}}{i}").as_bytes(), b"tagged");
            put(&mut slots, format!("{i}").as_bytes(), b"not");
        }
        for i in 0..2500 {
            let name = format!("{{tag}}{i}");
            slots.remove(Place::of(name.as_bytes()), name.as_bytes());
        }
        let mut rng = SmallRng::seed_from_u64(1);
        let mut chosen: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        for _ in 0..75_000 {
            let item = slots.choose(rng.random_range(0..7500), rng.random()).unwrap();
            *chosen.entry(item.name().to_vec()).or_default() += 1;
        }
        assert!(chosen.len() > 7400, "{} of 7500 keys", chosen.len());
        let tagged: u32 =
            chosen.iter().filter(|(name, _)| name[0] == b'{').map(|(_, count)| count).sum();
        assert!((24_000..26_000).contains(&tagged), "{tagged} of 75,000 draws");
        assert!(chosen.values().all(|&count| count < 50), "{:?}", chosen.values().max());
    }

    #[test]
    fn a_walk_sees_every_leaf_once() {
        let mut slots = Slots::default();
        for i in 0..1000 {
            put(&mut slots, format!("{{tag}}{i}").as_bytes(), b"");
            put(&mut slots, format!("{i}").as_bytes(), b"");
        }
        let mut walk = |number| {
            let (mut cursor, mut seen) = (Cursor::default(), 0);
            while let Some(leaf) = slots.visit_next(&mut cursor, number) {
                seen += leaf.items().len();
            }
            seen
        };
        assert_eq!((walk(1), walk(1), walk(2)), (2000, 0, 2000));
    }
}
