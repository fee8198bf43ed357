//! Sixteen databases and the books kept about them.
//!
//! A [`Database`] is slots, an expiry index and three running numbers: keys,
//! memory and hash. They change with every write by the difference that it
//! makes, so that asking for them costs nothing, and they follow from the
//! writes alone, so that replicas agree on them.
//!
//! Clearing a database takes it out whole: the numbers drop at once and the
//! memory goes bit by bit ([`Store::reclaim`]). If a [`Walk`] for a snapshot is
//! under way, it gets the cleared database first, and every write shows it the
//! leaf that is about to change.
//!
//! Nothing here knows the time: an item past its deadline is an item until it
//! is removed. What that means to a command is decided in
//! [`execute`](super::execute).

use std::collections::VecDeque;

use bytes::Bytes;

use super::expiry::{Due, Expiry};
use super::item::{Item, NEVER};
use super::slots::{Place, Slots};
use super::walk::Walk;
use crate::mutants::{self, Mutant};
use crate::request::{DATABASES, Key};

/// Running numbers of a part of the state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Keys stored, also past their deadline.
    pub keys: u64,
    /// What they count in memory.
    pub memory_bytes: u64,
    /// The sum of their hashes, modulo 2^64: no order is part of it.
    pub hash: u64,
}

impl Totals {
    fn add(&mut self, db: u8, item: &Item) {
        self.keys += 1;
        self.memory_bytes += item.memory_bytes();
        self.hash = self.hash.wrapping_add(item.state_hash(db));
    }

    fn subtract(&mut self, db: u8, item: &Item) {
        self.keys -= 1;
        self.memory_bytes -= item.memory_bytes();
        self.hash = self.hash.wrapping_sub(item.state_hash(db));
    }
}

/// One database.
///
/// Invariants: `expiry` has one entry per item with a deadline; `totals` are
/// those of the items.
#[derive(Debug, Default)]
pub struct Database {
    pub(super) slots: Slots,
    expiry: Expiry,
    pub(super) totals: Totals,
}

impl Database {
    /// Frees a leaf or a chunk and returns how many keys went; `None` at the end.
    fn free_some(&mut self) -> Option<usize> {
        if self.expiry.free_some() { Some(0) } else { self.slots.free_some() }
    }

    fn expires(&mut self, place: Place, item_deadline_ms: u64) {
        if item_deadline_ms != NEVER {
            self.expiry.insert(Due { deadline_ms: item_deadline_ms, place });
        }
    }

    fn expires_no_more(&mut self, place: Place, item_deadline_ms: u64) {
        if item_deadline_ms != NEVER {
            self.expiry.remove(Due { deadline_ms: item_deadline_ms, place });
        }
    }
}

/// All databases.
#[derive(Debug, Default)]
pub struct Store {
    databases: [Option<Database>; DATABASES as usize],
    /// Cleared, empty to everyone, not yet freed.
    garbage: Vec<Database>,
    /// What snapshots that were given up had taken, not yet freed.
    garbage_items: VecDeque<(u8, Item)>,
    /// The number of the last snapshot begun.
    pub(super) snapshots: u32,
    pub(super) walk: Option<Walk>,
}

impl Store {
    /// An item by name, present or past its deadline.
    pub fn find(&self, key: &Key) -> Option<&Item> {
        self.database(key.db)?.slots.find(Place::of(&key.name), &key.name)
    }

    /// Stores an item, in place of what has its name.
    pub fn put(&mut self, db: u8, item: Item) {
        let place = Place::of(item.name());
        self.before_write(db, place);
        let database = self.databases[usize::from(db)].get_or_insert_default();
        database.totals.add(db, &item);
        database.expires(place, item.deadline_ms());
        if let Some(old) = database.slots.put(place, item) {
            database.totals.subtract(db, &old);
            database.expires_no_more(place, old.deadline_ms());
            self.let_go(old);
        }
    }

    /// Takes an item out; whether it was there.
    pub fn remove(&mut self, db: u8, name: &[u8]) -> bool {
        let place = Place::of(name);
        self.before_write(db, place);
        let Some(database) = &mut self.databases[usize::from(db)] else { return false };
        let Some(old) = database.slots.remove(place, name) else { return false };
        database.totals.subtract(db, &old);
        database.expires_no_more(place, old.deadline_ms());
        self.let_go(old);
        true
    }

    /// Gives an item that is there another deadline and version.
    pub fn set_deadline(&mut self, key: &Key, deadline_ms: u64, version: u64) {
        let place = Place::of(&key.name);
        self.before_write(key.db, place);
        let database = self.databases[usize::from(key.db)].get_or_insert_default();
        let Some(item) = database.slots.find_mut(place, &key.name) else { return };
        // While a snapshot or a reply holds it, `set_deadline` makes a copy.
        let old = item.is_shared().then(|| item.clone());
        let old_deadline_ms = item.deadline_ms();
        database.totals.subtract(key.db, item);
        item.set_deadline(deadline_ms, version);
        database.totals.add(key.db, item);
        database.expires_no_more(place, old_deadline_ms);
        database.expires(place, deadline_ms);
        if let Some(old) = old {
            self.let_go(old);
        }
    }

    /// Empties a database.
    pub fn clear(&mut self, db: u8) {
        let Some(database) = self.databases[usize::from(db)].take() else { return };
        match &mut self.walk {
            Some(walk) => walk.detach(db, database),
            None => self.garbage.push(database),
        }
        self.bound_walk();
    }

    /// Frees memory of cleared databases, about `budget_keys` keys of it;
    /// whether there is more.
    pub fn reclaim(&mut self, budget_keys: usize) -> bool {
        let mut freed_keys = budget_keys.min(self.garbage_items.len());
        self.garbage_items.drain(..freed_keys);
        while freed_keys < budget_keys
            && let Some(database) = self.garbage.last_mut()
        {
            // An empty leaf, a slot or a chunk is work as well.
            match database.free_some() {
                Some(keys) => freed_keys += keys.max(1),
                None => drop(self.garbage.pop()),
            }
        }
        !self.garbage.is_empty() || !self.garbage_items.is_empty()
    }

    /// Leaves a database to [`Store::reclaim`].
    pub(super) fn discard(&mut self, database: Database) {
        self.garbage.push(database);
    }

    /// Leaves items to [`Store::reclaim`].
    pub(super) fn discard_items(&mut self, mut items: VecDeque<(u8, Item)>) {
        self.garbage_items.append(&mut items);
    }

    /// Removes the keys due at `now_ms`, at most `limit`, in the order of
    /// (deadline, database, place, name). How many those are.
    pub fn remove_due(&mut self, now_ms: u64, limit: usize) -> usize {
        for removed in 0..limit {
            let first = self.first_due().filter(|(due, _)| due.deadline_ms <= now_ms);
            let Some((due, db)) = first else { return removed };
            let database = self.database(db).expect("a deadline is that of a database");
            let item = database.slots.find_due(due.place, due.deadline_ms);
            let name = item.expect("every deadline is that of an item").name().to_vec();
            self.remove(db, &name);
        }
        limit
    }

    fn first_due(&self) -> Option<(Due, u8)> {
        let first = |db| Some((self.database(db)?.expiry.first()?, db));
        (0..DATABASES).filter_map(first).min_by_key(|(due, db)| (due.deadline_ms, *db))
    }

    /// A key that two numbers choose, and its database: if those are drawn at random,
    /// about any of all keys, or of those with a deadline.
    pub fn choose(&self, [rank, number]: [u64; 2], is_volatile: bool) -> Option<(u8, &Item)> {
        let count = |database: &Database| match is_volatile {
            true => database.expiry.count() as u64,
            false => database.totals.keys,
        };
        let databases = || (0..DATABASES).filter_map(|db| Some((db, self.database(db)?)));
        let total: u64 = databases().map(|(_, database)| count(database)).sum();
        let mut rank = rank.checked_rem(total)?;
        for (db, database) in databases() {
            match rank.checked_sub(count(database)) {
                Some(rest) => rank = rest,
                None if is_volatile => {
                    let due = database.expiry.choose(number)?;
                    return Some((db, database.slots.find_due(due.place, due.deadline_ms)?));
                }
                None => return Some((db, database.slots.choose(rank, number)?)),
            }
        }
        None
    }

    /// The earliest deadline of all.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.first_due().map(|(due, _)| due.deadline_ms)
    }

    /// How many keys of a database are not past their deadline at `now_ms`.
    pub fn count_live(&self, db: u8, now_ms: u64) -> u64 {
        self.database(db)
            .map_or(0, |database| database.totals.keys - database.expiry.count_due(now_ms) as u64)
    }

    /// How many of those have a deadline.
    pub fn count_expiring(&self, db: u8, now_ms: u64) -> u64 {
        self.database(db).map_or(0, |database| {
            (database.expiry.count() - database.expiry.count_due(now_ms)) as u64
        })
    }

    /// Some items of a database that are wanted, from a cursor on, and the cursor
    /// behind them; see [`Slots::scan`].
    pub fn scan(
        &self,
        db: u8,
        cursor: u64,
        count: u32,
        is_wanted: impl Fn(&Item) -> bool,
    ) -> (u64, Vec<Bytes>) {
        let Some(database) = self.database(db) else { return (0, Vec::new()) };
        let mut names = Vec::new();
        let next = database.slots.scan(cursor, count, |item| {
            if is_wanted(item) {
                names.push(Bytes::copy_from_slice(item.name()));
            }
        });
        (next, names)
    }

    /// The numbers of one database.
    pub fn totals_of(&self, db: u8) -> Totals {
        self.database(db).map(|database| database.totals).unwrap_or_default()
    }

    /// The numbers of all databases together.
    pub fn totals(&self) -> Totals {
        let mut sum = Totals::default();
        for database in self.databases.iter().flatten() {
            sum.keys += database.totals.keys;
            sum.memory_bytes += database.totals.memory_bytes;
            sum.hash = sum.hash.wrapping_add(database.totals.hash);
        }
        sum
    }

    fn database(&self, db: u8) -> Option<&Database> {
        self.databases.get(usize::from(db))?.as_ref()
    }

    pub(super) fn database_mut(&mut self, db: u8) -> Option<&mut Database> {
        self.databases.get_mut(usize::from(db))?.as_mut()
    }

    /// Shows a snapshot under way the leaf that is about to change, and makes
    /// sure that there is one.
    fn before_write(&mut self, db: u8, place: Place) {
        self.bound_walk();
        let database = self.databases[usize::from(db)].get_or_insert_default();
        let leaf = database.slots.leaf_mut(place);
        if let Some(walk) = &mut self.walk
            && !mutants::on(Mutant::VisitAfterWrite)
        {
            walk.before_write(db, leaf);
        }
    }

    /// An item has left the store. While a snapshot holds it, its memory stays.
    fn let_go(&mut self, old: Item) {
        if let Some(walk) = &mut self.walk
            && old.is_shared()
        {
            walk.retain(old.memory_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(db: u8, name: &str) -> Key {
        Key { db, name: name.to_owned().into() }
    }

    fn item(name: &str, deadline_ms: u64) -> Item {
        Item::new(name.as_bytes(), b"value", deadline_ms, 1)
    }

    #[test]
    fn the_books_return_to_zero() {
        let mut store = Store::default();
        for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
            store.put(0, item(name, NEVER));
            store.put(3, item(name, i as u64 + 5));
            store.put(3, item(name, i as u64 + 6));
            store.set_deadline(&key(0, name), 9, 2);
            store.set_deadline(&key(3, name), NEVER, 3);
        }
        assert_eq!(store.totals().keys, 6);
        assert_eq!(store.totals().memory_bytes, 6 * (72 + 1 + 5) + 3 * 24);
        for name in ["a", "b", "c"] {
            assert!(store.remove(3, name.as_bytes()));
            assert!(!store.remove(3, name.as_bytes()));
        }
        store.remove_due(9, 64);
        assert_eq!(store.totals(), Totals::default());
        assert_eq!(store.next_deadline_ms(), None);
    }

    #[test]
    fn keys_go_in_the_order_of_deadline_then_database() {
        let mut store = Store::default();
        store.put(2, item("x", 5));
        store.put(1, item("y", 5));
        store.put(1, item("z", 4));
        let mut order = Vec::new();
        while store.totals().keys > 0 {
            store.remove_due(5, 1);
            order.push(
                ["z", "y", "x"].map(|name| (1..3).any(|db| store.find(&key(db, name)).is_some())),
            );
        }
        assert_eq!(order, [[false, true, true], [false, false, true], [false; 3]]);
    }

    #[test]
    fn a_cleared_database_is_gone_at_once_and_freed_in_slices() {
        let mut store = Store::default();
        for i in 0..10_000 {
            store.put(0, item(&format!("{i}"), i + 1));
        }
        store.put(1, item("stays", NEVER));
        store.clear(0);
        assert_eq!(store.totals().keys, 1);
        assert_eq!((store.count_live(0, 0), store.next_deadline_ms()), (0, None));
        store.put(0, item("new", NEVER));
        let slices = (1..).find(|_| !store.reclaim(500)).unwrap();
        assert!((20..=60).contains(&slices), "{slices}");
        assert!(store.find(&key(0, "new")).is_some());
    }
}
