//! The keys of one database that have a deadline, in the order of deadlines.
//!
//! A sorted array of (deadline, place), cut into chunks of at most
//! [`CHUNK_ENTRIES`]: about 22 bytes per key. It does not hold names: the place
//! leads to the key's leaf, where the deadline singles it out. Keys that share
//! both are entries that are equal, as many as there are keys.
//!
//! Chunks know their length, so how many keys are due is counted in steps of a
//! chunk and not of a key, however many expired at one instant.

use super::slots::Place;

/// How often a chunk is drawn that might be full.
const CHOOSE_TRIES: usize = 16;

/// The longest chunk.
pub const CHUNK_ENTRIES: usize = 512;

/// One key's deadline. The order is that in which keys are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// Log time at which the key is gone.
    pub deadline_ms: u64,
    /// Where it lies.
    pub place: Place,
}

/// Invariants: the concatenation of all chunks is sorted, no chunk is empty,
/// none is longer than [`CHUNK_ENTRIES`]; `count` is how many entries they have.
#[derive(Debug, Default)]
pub struct Expiry {
    chunks: Vec<Vec<Due>>,
    count: usize,
}

impl Expiry {
    /// Adds a key.
    pub fn insert(&mut self, due: Due) {
        self.count += 1;
        let Some(mut at) = self.chunk_of(due) else {
            self.chunks.push(vec![due]);
            return;
        };
        if self.chunks[at].len() == CHUNK_ENTRIES {
            at += self.split(at, due);
        }
        let chunk = &mut self.chunks[at];
        let position = chunk.partition_point(|other| *other < due);
        chunk.insert(position, due);
    }

    /// Takes away a key that was added.
    pub fn remove(&mut self, due: Due) {
        let at = self.chunk_of(due).expect("every deadline was added with its key");
        let chunk = &mut self.chunks[at];
        let position = chunk.binary_search(&due).expect("every deadline was added with its key");
        chunk.remove(position);
        self.count -= 1;
        if chunk.len() < CHUNK_ENTRIES / 4 {
            self.merge(at);
        }
    }

    /// The key that goes first.
    pub fn first(&self) -> Option<Due> {
        self.chunks.first().map(|chunk| chunk[0])
    }

    /// How many keys have a deadline.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many keys have a deadline at or before `now_ms`.
    pub fn count_due(&self, now_ms: u64) -> usize {
        let is_due = |due: &Due| due.deadline_ms <= now_ms;
        let begun = self.chunks.partition_point(|chunk| is_due(&chunk[0]));
        let Some((last, whole)) = self.chunks[..begun].split_last() else { return 0 };
        whole.iter().map(Vec::len).sum::<usize>() + last.partition_point(is_due)
    }

    /// A key that a number chooses: if that is drawn at random, about any of them.
    pub fn choose(&self, number: u64) -> Option<Due> {
        let mut left = number;
        for _ in 0..CHOOSE_TRIES {
            let [chunk, due] = [left >> 32, left & 0xffff_ffff].map(|part| part as usize);
            let chunk = &self.chunks[chunk.checked_rem(self.chunks.len())?];
            // A chunk that is half full is taken half as often.
            if let Some(&due) = chunk.get(due % CHUNK_ENTRIES) {
                return Some(due);
            }
            left = left.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        }
        self.first()
    }

    /// Frees one chunk; `false` if there is none.
    pub fn free_some(&mut self) -> bool {
        let chunk = self.chunks.pop();
        self.count -= chunk.as_ref().map_or(0, Vec::len);
        chunk.is_some()
    }

    /// The last chunk that begins at or before `due`, else the first.
    fn chunk_of(&self, due: Due) -> Option<usize> {
        let after = self.chunks.partition_point(|chunk| chunk[0] <= due);
        if self.chunks.is_empty() { None } else { Some(after.saturating_sub(1)) }
    }

    /// Makes room in a full chunk; 1 if `due` now belongs to the one behind.
    /// What comes in about rising order, as equal lifetimes do, fills the last
    /// chunk and leaves the others as they are: so that one is cut near its end.
    fn split(&mut self, at: usize, due: Due) -> usize {
        let is_last = at + 1 == self.chunks.len();
        let keep = if is_last { CHUNK_ENTRIES * 7 / 8 } else { CHUNK_ENTRIES / 2 };
        let chunk = &mut self.chunks[at];
        let behind = chunk.split_off(keep);
        let goes_behind = behind[0] <= due;
        self.chunks.insert(at + 1, behind);
        usize::from(goes_behind)
    }

    /// Joins a chunk that has become short with the one behind it, if both fit
    /// with room to spare; an empty one goes.
    fn merge(&mut self, at: usize) {
        let length = self.chunks[at].len();
        let next = self.chunks.get(at + 1).map_or(CHUNK_ENTRIES, Vec::len);
        if length == 0 {
            self.chunks.remove(at);
        } else if length + next <= CHUNK_ENTRIES / 2 {
            let behind = self.chunks.remove(at + 1);
            self.chunks[at].extend(behind);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;

    fn due(deadline_ms: u64, name: u64) -> Due {
        Due { deadline_ms, place: Place::of(&name.to_le_bytes()) }
    }

    fn flat(expiry: &Expiry) -> Vec<Due> {
        assert!(expiry.chunks.iter().all(|c| !c.is_empty() && c.len() <= CHUNK_ENTRIES));
        expiry.chunks.concat()
    }

    #[test]
    fn it_is_a_sorted_multiset() {
        for seed in 0..20 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut expiry = Expiry::default();
            let mut naive: Vec<Due> = Vec::new();
            let span = [5, 1000, 1_000_000][seed as usize % 3];
            for step in 0..6_000 {
                let is_filling = step % 4_000 < 2_500;
                if naive.is_empty() || rng.random_bool(if is_filling { 0.9 } else { 0.1 }) {
                    let new = due(rng.random_range(0..span), rng.random_range(0..50));
                    expiry.insert(new);
                    naive.push(new);
                } else {
                    let old = naive.swap_remove(rng.random_range(0..naive.len()));
                    expiry.remove(old);
                }
                let now = rng.random_range(0..span);
                let due = naive.iter().filter(|d| d.deadline_ms <= now).count();
                assert_eq!(expiry.count_due(now), due, "seed {seed} step {step}");
                assert_eq!(expiry.first(), naive.iter().min().copied(), "seed {seed}");
            }
            naive.sort();
            assert_eq!(flat(&expiry), naive, "seed {seed}");
        }
    }

    #[test]
    fn rising_deadlines_fill_their_chunks() {
        let mut expiry = Expiry::default();
        for ms in 0..100 * CHUNK_ENTRIES as u64 {
            expiry.insert(due(ms, ms));
        }
        assert!(expiry.chunks.len() <= 115, "{}", expiry.chunks.len());
        while let Some(first) = expiry.first() {
            expiry.remove(first);
        }
        assert!(expiry.chunks.is_empty());
    }
}
