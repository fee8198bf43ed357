//! Damage at rest: a disk does not hold what was written and synced. Who starts on
//! it has to notice, and what it has lost is held by others.

use raftcache::wal::faulty::{Crash, FaultyDisk};
use raftcache::wal::{Disk, SECTOR_BYTES};
use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;

use super::plan::{MS, SECOND};
use super::world::{Event, World};

/// Where the batches of a segment begin, behind its header and two marks.
const DATA_START: usize = 3 * SECTOR_BYTES;

/// What a mark begins with, and where it says how far it vouches.
const MARK: &[u8] = b"RMRK";
const MARK_END: usize = 24;

/// A record: its length, its kind, and where its payload begins.
const RECORD_KIND: usize = 12;
const RECORD_HEADER: usize = 40;
const ENTRY: u8 = 1;
const SEAL: u8 = 4;

fn number(bytes: &[u8], at: usize, size: usize) -> usize {
    let bytes = bytes.get(at..at + size).unwrap_or_default();
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte))
}

/// Up to where the marks of a segment vouch for it.
fn marked(segment: &[u8]) -> usize {
    let marks = [SECTOR_BYTES, 2 * SECTOR_BYTES];
    let is_mark = |&at: &usize| segment.get(at..).unwrap_or_default().starts_with(MARK);
    let ends = marks.into_iter().filter(is_mark).map(|at| number(segment, at + MARK_END, 8));
    ends.max().unwrap_or(0)
}

/// A batch: where it begins, its last entry, its seal, and where it ends.
struct Batch {
    at: usize,
    last_entry: Option<usize>,
    seal: usize,
    end: usize,
}

/// The batches that are there up to their seals.
fn batches(segment: &[u8]) -> Vec<Batch> {
    let (mut at, mut batches) = (DATA_START, Vec::new());
    let (mut begin, mut last_entry) = (at, None);
    while at + RECORD_HEADER <= segment.len() {
        let next = at + RECORD_HEADER + number(segment, at, 4);
        match segment[at + RECORD_KIND] {
            SEAL => {
                batches.push(Batch {
                    at: begin,
                    last_entry: last_entry.take(),
                    seal: at,
                    end: next,
                });
                at = next.next_multiple_of(SECTOR_BYTES);
                begin = at;
            }
            0 => break,
            kind => {
                last_entry = (kind == ENTRY).then_some(at).or(last_entry);
                at = next;
            }
        }
    }
    batches
}

/// Changes something in a file, if there is something; says what.
///
/// What may have been a torn write is left alone: nobody could tell.
fn damage(disk: &FaultyDisk, name: &str, chance: &mut Xoshiro256PlusPlus) -> Option<String> {
    let content = disk.content(name).expect("it was listed");
    let is_segment = name.starts_with("journal");
    let (marked, batches) = (marked(&content), batches(&content));
    let last = batches.last().filter(|_| is_segment);
    let end = match last {
        // A batch is begun when the one before it is synced.
        Some(last) => marked.max(last.at),
        None if is_segment => marked,
        None => content.len(),
    };
    let data = if is_segment && chance.random_bool(0.8) { DATA_START } else { 0 };
    // Where something is, not where nothing would be missed.
    let written: Vec<usize> = (data..end).filter(|&at| content[at] != 0).collect();
    if written.is_empty() {
        return None;
    }
    let at = written[chance.random_range(0..written.len())];
    let until = (at + chance.random_range(1..600)).min(end);
    let kind = chance.random_range(0..6);
    let done = match kind {
        0 => disk.flip_bit(name, at as u64, chance.random_range(0..8)),
        1 => disk.zero(name, at as u64..until as u64),
        // All the rest, but for what says that there was something.
        2 if at < marked => disk.zero(name, at.max(DATA_START) as u64..content.len() as u64),
        3 => disk.remove(name),
        // What was meant for one place is in another.
        4 => {
            let from = chance.random_range(0..end);
            let length = (until - at).min(content.len() - from);
            disk.damage(name, |bytes| bytes.copy_within(from..from + length, at))
        }
        // The last batch lacks its last entry, and is whole but for that.
        _ => match last.filter(|last| last.at < marked).and_then(|it| Some((it, it.last_entry?))) {
            Some((last, entry)) => disk.damage(name, |bytes| {
                bytes.copy_within(last.seal..last.end, entry);
                bytes[entry + last.end - last.seal..last.end].fill(0);
            }),
            None => disk.flip_bit(name, at as u64, chance.random_range(0..8)),
        },
    };
    done.expect("the file is there");
    Some(format!("{name}: damage of kind {kind} at {at}, where {end} is known to be synced"))
}

impl World {
    /// A file of a node is not what was written, or the whole journal is gone.
    pub fn damage_at_rest(&mut self, victim: usize) {
        let seed = self.chance.random();
        self.crash(victim, [Crash::Kept, Crash::Killed, Crash::Torn(seed)][(seed % 3) as usize]);
        let back = self.within((10 * MS, SECOND));
        self.after(back, Event::Start { machine: victim });
        let disk = self.machines[victim].disk.clone();
        let names = disk.list().expect("a disk in memory can be listed");
        let mostly = if self.chance.random_bool(0.8) { "journal-0" } else { "" };
        let is_meant = |name: &String| !name.ends_with(".tmp") && name.starts_with(mostly);
        let names: Vec<String> = names.into_iter().filter(is_meant).collect();
        if mostly.len() > 1 && !names.is_empty() && self.chance.random_bool(0.1) {
            for name in &names {
                disk.remove(name).expect("it was listed");
            }
            disk.sync_dir().expect("a disk that does not fail");
            self.damaged(victim);
        } else if !names.is_empty() {
            let which = self.chance.random_range(0..2 * names.len()).min(names.len() - 1);
            let name = &names[which];
            if let Some(what) = damage(&disk, name, &mut self.chance) {
                self.trace.tell(self.now, || what);
                self.damaged(victim);
            }
        }
    }

    fn damaged(&mut self, victim: usize) {
        self.machines[victim].damaged = true;
        self.trace.count("disks damaged");
    }
}
