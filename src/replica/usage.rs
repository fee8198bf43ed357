//! How lately and how often keys are used: an estimate, in 8 to 16 bytes a key.
//!
//! A count-min sketch (Cormode and Muthukrishnan, 2005). Every key has two cells,
//! by its hash, which it shares with whoever has the same; what is true of a key is
//! at most what the lesser of its two cells says. So a key may be taken for one that
//! is used more than it is, if it has two neighbours that are, and never for one
//! that is used less. With two to four cells for each key few have that luck.
//!
//! Nothing of this is in the log or in a snapshot: it is what one node has seen, and
//! only says which keys that node would let go.
//!
//! There are as many cells as the keys ask for, in segments, by linear hashing as the
//! keys themselves lie: growing never moves more than one segment.

use crate::fsm::slots::leaf_number;
use crate::raft::Time;

/// Cells of one segment.
const SEGMENT_CELLS: usize = 4096;

/// Cells for each key, at least.
const CELLS_PER_KEY: u64 = 2;

/// Cells at most, half a gigabyte of them: enough for 64 million keys.
const CELLS_LIMIT: usize = 1 << 27;

/// What a key counts that is used for the first time.
const FIRST_COUNT: u8 = 5;

/// Beyond the first uses, one in so many more for each step counts: 255 stands for
/// about a million, as in Redis.
const STEP: u32 = 10;

/// What is kept of all keys.
#[derive(Debug, Default)]
pub struct Usage {
    segments: Vec<Box<[Cell]>>,
}

/// What is known of those keys whose cell it is: above, in 24 bits, the [`tick`] of
/// the last use of any of them; below how often they were used then, on a scale of
/// logarithms. 0 as long as none was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cell(u32);

/// Time in steps of a quarter of a second, which begin anew after 48 days.
fn tick(now: Time) -> u32 {
    (now.micros() / 250_000) as u32 & TICKS
}

const TICKS: u32 = (1 << 24) - 1;

/// After so many ticks a count falls by one.
const MINUTE: u32 = 60 * 4;

impl Cell {
    fn new(tick: u32, count: u8) -> Self {
        Self(tick << 8 | u32::from(count))
    }

    /// How many ticks ago one of its keys was used.
    fn idle_at(self, tick: u32) -> u32 {
        if self == Self::default() { u32::MAX } else { tick.wrapping_sub(self.0 >> 8) & TICKS }
    }

    /// What its count has fallen to: by one a minute, whether it is used or not.
    fn count_at(self, tick: u32) -> u8 {
        let minutes = (tick / MINUTE).saturating_sub((self.0 >> 8) / MINUTE);
        let minutes = minutes.max(self.idle_at(tick) / MINUTE);
        (self.0 as u8).saturating_sub(u8::try_from(minutes).unwrap_or(u8::MAX))
    }
}

impl Usage {
    /// A key with this hash is used; `chance` is a number drawn at random. There
    /// are so many keys by now.
    pub fn note(&mut self, key: u64, now: Time, chance: u32, keys: u64) {
        let tick = tick(now);
        self.make_room(keys, tick);
        let count = match self.frequency(key, now) {
            least if least < FIRST_COUNT => FIRST_COUNT,
            least => {
                let steps = u32::from(least - FIRST_COUNT) * STEP + 1;
                least.saturating_add(u8::from(chance <= u32::MAX / steps))
            }
        };
        for (segment, cell) in self.places(key) {
            let cell = &mut self.segments[segment][cell];
            *cell = Cell::new(tick, cell.count_at(tick).max(count));
        }
    }

    /// For how many quarters of a second a key has not been used, at least;
    /// `u32::MAX` if it was never seen to be.
    pub fn idle(&self, key: u64, now: Time) -> u32 {
        let tick = tick(now);
        self.cells(key).map(|cell| cell.idle_at(tick)).max().unwrap_or(u32::MAX)
    }

    /// How often a key is used, at most, on a scale of logarithms.
    pub fn frequency(&self, key: u64, now: Time) -> u8 {
        let tick = tick(now);
        self.cells(key).map(|cell| cell.count_at(tick)).min().unwrap_or(0)
    }

    fn cells(&self, key: u64) -> impl Iterator<Item = Cell> + '_ {
        let places = if self.segments.is_empty() { None } else { Some(self.places(key)) };
        places.into_iter().flatten().map(|(segment, cell)| self.segments[segment][cell])
    }

    /// Where the two cells of a key are.
    fn places(&self, key: u64) -> [(usize, usize); 2] {
        // The golden ratio makes another hash of one.
        [key, key.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)].map(|hash| {
            let (cell, rest) = (hash as usize % SEGMENT_CELLS, hash as usize / SEGMENT_CELLS);
            (leaf_number(rest, self.segments.len()), cell)
        })
    }

    /// One segment more if there are too few: a copy of the one that it takes half
    /// of the keys from, which says the same of either half. One less if there are
    /// far too many.
    fn make_room(&mut self, keys: u64, tick: u32) {
        let (count, cells) = (self.segments.len(), self.segments.len() * SEGMENT_CELLS);
        let wanted = keys.saturating_mul(CELLS_PER_KEY);
        if count > 1 && cells as u64 > wanted.saturating_mul(8) {
            self.merge(tick);
            return;
        }
        if count > 0 && (cells as u64 >= wanted || cells >= CELLS_LIMIT) {
            return;
        }
        let from = count - (count + 1).next_power_of_two() / 2;
        let new = match self.segments.get(from) {
            Some(segment) => segment.clone(),
            None => vec![Cell::default(); SEGMENT_CELLS].into(),
        };
        self.segments.push(new);
    }

    /// The last segment goes into the one that it came from.
    fn merge(&mut self, tick: u32) {
        let last = self.segments.len() - 1;
        let into = last - (last + 1).next_power_of_two() / 2;
        let Some(from) = self.segments.pop() else { return };
        for (cell, other) in self.segments[into].iter_mut().zip(from) {
            let idle = cell.idle_at(tick).min(other.idle_at(tick));
            let count = cell.count_at(tick).max(other.count_at(tick));
            if idle != u32::MAX {
                *cell = Cell::new(tick.wrapping_sub(idle) & TICKS, count.max(1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::Xoshiro256PlusPlus;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::fsm::item::name_hash;

    fn key(number: u32) -> u64 {
        name_hash(&number.to_le_bytes())
    }

    fn at(seconds: u64) -> Time {
        Time::from_millis(1000 * seconds)
    }

    #[test]
    fn nobody_seems_less_used_than_he_is_and_few_seem_more() {
        let keys = 100_000;
        let mut usage = Usage::default();
        (0..keys).for_each(|i| usage.note(key(i), at(1), 0, 100_000));
        assert!(usage.segments.len() >= 49, "{}", usage.segments.len());
        // A tenth of them again, while the sketch grows to its size.
        (0..keys / 10).for_each(|i| usage.note(key(i), at(100), 0, 100_000));
        let idle = |i| usage.idle(key(i), at(101));
        assert!((0..keys / 10).all(|i| idle(i) <= 4));
        let mistaken = (keys / 10..keys).filter(|&i| idle(i) < 99 * 4).count();
        assert!(mistaken < 2000, "{mistaken} of 90,000 old keys pass for new");
    }

    #[test]
    fn who_is_used_often_counts_more_and_is_forgotten_in_time() {
        let (mut usage, mut rng) = (Usage::default(), Xoshiro256PlusPlus::seed_from_u64(1));
        let mut counts = Vec::new();
        for (number, uses) in [(1, 1), (2, 10), (3, 1000), (4, 100_000)] {
            (0..uses).for_each(|_| usage.note(key(number), at(1), rng.random(), 4));
            counts.push(usage.frequency(key(number), at(1)));
        }
        assert!(counts.is_sorted_by(|a, b| a < b), "{counts:?}");
        assert_eq!(counts[0], FIRST_COUNT);
        let later = usage.frequency(key(4), at(1 + 600));
        assert_eq!(later, counts[3] - 10, "one a minute: {counts:?}");
        assert_eq!(usage.frequency(key(5), at(1)), 0, "never heard of");
    }

    #[test]
    fn where_there_are_fewer_keys_less_is_kept() {
        let mut usage = Usage::default();
        (0..100_000).for_each(|i| usage.note(key(i), at(1), 0, 100_000));
        (0..1000).for_each(|i| usage.note(key(i), at(9), 0, 1000));
        assert!(usage.segments.len() <= 4, "{}", usage.segments.len());
        assert!((0..1000).all(|i| usage.idle(key(i), at(9)) == 0));
    }
}
