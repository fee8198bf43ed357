//! The walk of a snapshot over the store, while writes go on.
//!
//! The rule is *visit before write*: the walk takes leaf after leaf, and a
//! write to a leaf that it has not seen shows it that leaf first. So what is
//! taken is the state at the index where the walk began, each item once.
//! Taking a leaf clones references; they queue here until
//! [`Store::walk_on`] cuts them into pieces.
//!
//! ```text
//!            write to an unseen leaf ──┐
//! live databases ── cursor ──┐         ▼
//! cleared databases ─ cursor ┴──▶ queue of items ──▶ pieces of ≤ n keys
//! ```
//!
//! A database that is cleared is handed over whole and walked like a live one.
//! Items that only the queue still holds, and cleared databases, are memory
//! that the data set does not count. It is bounded: beyond the bound the walk
//! is given up, and a later one will be luckier.

use std::collections::VecDeque;

use super::item::Item;
use super::slots::{Cursor, Leaf};
use super::store::{Database, Store};
use crate::request::DATABASES;

/// A piece ends when it holds this much, so that encoding it has a bound too.
const PIECE_BYTES: u64 = 1 << 20;

/// Items of a snapshot, by reference. It can go to another thread.
#[derive(Debug, Default)]
pub struct Piece {
    /// Each with its database.
    pub(super) items: Vec<(u8, Item)>,
}

/// What [`Store::walk_on`] has come to.
#[derive(Debug)]
pub enum Visit {
    /// Some of the items.
    Piece(Piece),
    /// There are no more; the snapshot is complete.
    Complete,
    /// No snapshot is under way: none was begun, or it was given up because
    /// the writes meanwhile made it hold too much.
    Abandoned,
}

/// The state of a walk.
#[derive(Debug)]
pub struct Walk {
    /// The number that marks leaves as seen.
    number: u32,
    queue: VecDeque<(u8, Item)>,
    cleared: VecDeque<(u8, Database, Cursor)>,
    live: (u8, Cursor),
    /// Items that left the store while the queue, at most, held them.
    replaced_bytes: u64,
    limit_bytes: u64,
}

impl Walk {
    /// The caller is about to change `leaf`.
    pub fn before_write(&mut self, db: u8, leaf: &mut Leaf) {
        if leaf.visited != self.number {
            leaf.visited = self.number;
            enqueue(&mut self.queue, db, leaf);
        }
    }

    /// An item that something else holds has left the store.
    pub fn retain(&mut self, item_bytes: u64) {
        self.replaced_bytes += item_bytes;
    }

    /// Takes over a cleared database.
    pub fn detach(&mut self, db: u8, database: Database) {
        self.cleared.push_back((db, database, Cursor::default()));
    }

    /// Memory held for the snapshot alone, at most.
    pub fn retained_bytes(&self) -> u64 {
        let cleared: u64 = self.cleared.iter().map(|(_, db, _)| db.totals.memory_bytes).sum();
        let queue = self.queue.len() * size_of::<(u8, Item)>();
        self.replaced_bytes + cleared + queue as u64
    }

    /// Cuts up to `budget_keys` items off the queue.
    fn take_piece(&mut self, budget_keys: usize) -> Piece {
        let mut items = Vec::with_capacity(budget_keys.min(self.queue.len()));
        let mut bytes = 0;
        while items.len() < budget_keys && bytes < PIECE_BYTES {
            let Some((db, item)) = self.queue.pop_front() else { break };
            bytes += item.memory_bytes();
            items.push((db, item));
        }
        Piece { items }
    }
}

fn enqueue(queue: &mut VecDeque<(u8, Item)>, db: u8, leaf: &Leaf) {
    queue.extend(leaf.items().iter().map(|item| (db, item.clone())));
}

impl Store {
    /// Begins a walk over the state as it is now; one under way is given up.
    pub fn begin_walk(&mut self, limit_bytes: u64) {
        self.end_walk();
        self.snapshots = self.snapshots.wrapping_add(1);
        self.walk = Some(Walk {
            number: self.snapshots,
            queue: VecDeque::new(),
            cleared: VecDeque::new(),
            live: (0, Cursor::default()),
            replaced_bytes: 0,
            limit_bytes,
        });
    }

    /// Gives up a walk; what it held is freed.
    pub fn end_walk(&mut self) {
        let Some(walk) = self.walk.take() else { return };
        for (_, database, _) in walk.cleared {
            self.discard(database);
        }
        self.discard_items(walk.queue);
    }

    /// Gives up a walk that holds more than it may.
    pub(super) fn bound_walk(&mut self) {
        if self.walk.as_ref().is_some_and(|walk| walk.retained_bytes() > walk.limit_bytes) {
            self.end_walk();
        }
    }

    /// The next up to `budget_keys` items; see [`Visit`].
    pub fn walk_on(&mut self, budget_keys: usize) -> Visit {
        let budget_keys = budget_keys.max(1);
        let Some(mut walk) = self.walk.take() else { return Visit::Abandoned };
        while walk.queue.len() < budget_keys && self.visit_leaf(&mut walk) {}
        let piece = walk.take_piece(budget_keys);
        if walk.queue.is_empty() {
            walk.replaced_bytes = 0;
        }
        if piece.items.is_empty() {
            return Visit::Complete;
        }
        self.walk = Some(walk);
        Visit::Piece(piece)
    }

    /// Memory that only a snapshot under way holds, at most.
    pub fn retained_bytes(&self) -> u64 {
        self.walk.as_ref().map_or(0, Walk::retained_bytes)
    }

    /// Gives the walk one more leaf, of a cleared database if there is one;
    /// `false` if it has seen all.
    fn visit_leaf(&mut self, walk: &mut Walk) -> bool {
        while let Some((db, database, cursor)) = walk.cleared.front_mut() {
            if let Some(leaf) = database.slots.visit_next(cursor, walk.number) {
                enqueue(&mut walk.queue, *db, leaf);
                return true;
            }
            if let Some((_, database, _)) = walk.cleared.pop_front() {
                self.discard(database);
            }
        }
        while walk.live.0 < DATABASES {
            let (db, cursor) = &mut walk.live;
            let database = self.database_mut(*db);
            if let Some(leaf) = database.and_then(|d| d.slots.visit_next(cursor, walk.number)) {
                enqueue(&mut walk.queue, *db, leaf);
                return true;
            }
            walk.live = (*db + 1, Cursor::default());
        }
        false
    }
}
