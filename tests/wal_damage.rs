//! Damage, failing syncs, full disks: what is refused, and what is survived.

#![expect(clippy::unwrap_used, reason = "a test ends where a step fails")]

use std::ops::{Range, RangeInclusive};

use bytes::Bytes;
use proptest::prelude::*;
use raftcache::raft::*;
use raftcache::wal::faulty::{Crash, FaultyDisk};
use raftcache::wal::{
    Config, Disk, Kept, SnapshotReader, SnapshotReceiver, SnapshotWriter, StdDisk, Wal, WalError,
};

const CLUSTER: ClusterId = ClusterId(0xc1);
const SECTOR: u64 = 4096;
/// Where the first batch is.
const DATA: u64 = 3 * SECTOR;

fn config() -> Config {
    Config {
        create: true,
        segment_bytes: 64 << 10,
        reserve_bytes: 8 << 10,
        mark_every_batches: 1,
        ..Config::new(NodeId(1), CLUSTER)
    }
}

fn segment(number: u64) -> String {
    format!("journal-{number:016x}")
}

fn snapshot_name(index: u64, term: u64) -> String {
    format!("snapshot-{index:016x}-{term:016x}")
}

fn open(disk: &FaultyDisk) -> Result<(Wal<FaultyDisk>, Recovered), WalError> {
    Wal::open(disk.clone(), config())
}

fn fresh() -> (FaultyDisk, Wal<FaultyDisk>) {
    let disk = FaultyDisk::default();
    let wal = open(&disk).unwrap().0;
    (disk, wal)
}

fn write(seq: u64, indexes: RangeInclusive<u64>, bytes: usize) -> Write {
    let entry = |index| Entry {
        id: EntryId::new(1, index),
        payload: Payload::Command(Bytes::from(vec![index as u8; bytes])),
    };
    Write {
        seq: WriteSeq(seq),
        hard_state: HardState { term: Term(seq), vote: Some(NodeId(1)), commit: Index(0) },
        base: None,
        entries: indexes.map(entry).collect(),
    }
}

/// Four batches of one sector and one entry each; one entry per index.
fn four() -> (FaultyDisk, Wal<FaultyDisk>) {
    let (disk, mut wal) = fresh();
    for index in 1..=4 {
        wal.commit(&[write(index, index..=index, 100)]).unwrap();
    }
    (disk, wal)
}

fn batch(number: u64) -> Range<u64> {
    DATA + (number - 1) * SECTOR..DATA + number * SECTOR
}

fn last(recovered: &Recovered) -> u64 {
    recovered.entries.last().map_or(0, |entry| entry.id.index.0)
}

#[track_caller]
fn refused(disk: &FaultyDisk) -> String {
    let before = disk.operations();
    match open(disk) {
        Err(error @ WalError::Damaged { .. }) => {
            assert_eq!(disk.operations(), before, "a refusal changes nothing");
            error.to_string()
        }
        Err(error) => panic!("not called damage: {error}"),
        Ok((_, found)) => panic!("recovered {found:?}"),
    }
}

fn take_snapshot(wal: &mut Wal<FaultyDisk>, index: u64) {
    make_snapshot(wal.disk(), index);
    wal.snapshot_taken(EntryId::new(1, index)).unwrap();
}

fn make_snapshot(disk: &FaultyDisk, index: u64) {
    let meta = SnapshotMeta { last: EntryId::new(1, index), membership: Membership::default() };
    let mut writer = SnapshotWriter::create(disk, CLUSTER, &meta, b"hash").unwrap();
    for block in 1..=5u8 {
        writer.write_block(&[block; 1000]).unwrap();
    }
    writer.finish(Index(index)).unwrap();
}

/// Twelve entries, and snapshots at 5 and 10. Three entries make a segment.
fn compacted() -> (FaultyDisk, Wal<FaultyDisk>) {
    let (disk, mut wal) = fresh();
    for index in 1..=12 {
        wal.commit(&[write(index, index..=index, 15_000)]).unwrap();
        if index % 5 == 0 {
            take_snapshot(&mut wal, index);
        }
    }
    (disk, wal)
}

/// The power goes between the third sync and the fourth: half a batch.
#[test]
fn a_torn_tail_is_cut_and_what_is_left_of_it_wiped() {
    let (disk, mut wal) = four();
    wal.append(&[write(5, 5..=7, 5000)]).unwrap();
    let disk = disk.crash(Crash::Kept);
    disk.zero(&segment(1), DATA + 5 * SECTOR..DATA + 6 * SECTOR).unwrap();
    let (mut wal, found) = open(&disk).unwrap();
    assert_eq!((last(&found), found.hard_state.term), (4, Term(4)));
    let tail = &disk.crash(Crash::Lost).content(&segment(1)).unwrap()[batch(5).start as usize..];
    assert!(tail.iter().all(|&byte| byte == 0), "nothing is left to follow another batch");
    wal.commit(&[write(6, 5..=5, 10)]).unwrap();
    assert_eq!(last(&open(&disk.crash(Crash::Lost)).unwrap().1), 5);
}

/// Zeros are what the end of the log looks like.
#[test]
fn zeros_before_a_later_batch_are_damage() {
    let (disk, _wal) = four();
    disk.zero(&segment(1), batch(2)).unwrap();
    let text = refused(&disk);
    for part in ["journal-0000000000000001", "byte 16384", "log index 2", "cached --rebuild"] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

/// etcd 3.4 starts here without a word, votes, and serves old data.
#[test]
fn a_zeroed_tail_is_damage_once_the_mark_is_synced() {
    let (disk, mut wal) = four();
    while wal.idle().unwrap() {}
    disk.zero(&segment(1), batch(4)).unwrap();
    assert!(refused(&disk).contains("log index 4"));
    let (disk, mut wal) = four();
    while wal.idle().unwrap() {}
    disk.zero(&segment(1), batch(1).start..64 << 10).unwrap();
    assert!(refused(&disk).contains("log index 1"));
}

/// An idle moment is all it takes, however the process ends.
#[test]
fn a_mark_is_durable_after_an_idle_moment_and_after_a_start() {
    let (disk, mut wal) = four();
    wal.idle().unwrap();
    let disk = disk.crash(Crash::Lost);
    disk.zero(&segment(1), batch(4)).unwrap();
    assert!(refused(&disk).contains("log index 4"));
    // The last batch is acknowledged, the mark says so of the one before.
    let disk = four().0.crash(Crash::Lost);
    assert_eq!(last(&open(&disk).unwrap().1), 4, "and now it is voted from");
    let disk = disk.crash(Crash::Lost);
    disk.zero(&segment(1), batch(4)).unwrap();
    assert!(refused(&disk).contains("log index 4"));
}

/// A mark need not follow every batch. What the last durable one speaks of is
/// damage if it reads as zeros; so is a hole that a later batch proves, and what
/// an idle moment has marked.
#[test]
fn a_rare_mark_vouches_for_what_it_speaks_of() {
    let rarely = |disk: &FaultyDisk, batches: u64| {
        let config = Config { mark_every_batches: 3, ..config() };
        let mut wal = Wal::open(disk.clone(), config).unwrap().0;
        for index in 1..=batches {
            wal.commit(&[write(index, index..=index, 100)]).unwrap();
        }
        wal
    };
    let zeros_from = |number: u64| batch(number).start..64 << 10;
    // Batch 7 has carried the mark of the first six.
    for (damaged, batches, refused_at) in
        [(zeros_from(6), 7, Some(6)), (zeros_from(7), 7, None), (batch(7), 8, Some(7))]
    {
        let disk = FaultyDisk::default();
        rarely(&disk, batches);
        let disk = disk.crash(Crash::Lost);
        disk.zero(&segment(1), damaged.clone()).unwrap();
        match refused_at {
            Some(index) => assert!(refused(&disk).contains(&format!("log index {index}"))),
            None => assert_eq!(last(&open(&disk).unwrap().1), 6, "a torn tail"),
        }
    }
    let disk = FaultyDisk::default();
    rarely(&disk, 7).idle().unwrap();
    let disk = disk.crash(Crash::Lost);
    disk.zero(&segment(1), zeros_from(7)).unwrap();
    assert!(refused(&disk).contains("log index 7"));
}

/// The write was acknowledged by the disk and never done: an older one is there.
#[test]
fn a_stale_batch_is_not_the_one_that_the_mark_is_about() {
    let (disk, mut wal) = fresh();
    let (other, mut former) = fresh();
    for index in 1..=3 {
        wal.commit(&[write(index, index..=index, 100)]).unwrap();
        former.commit(&[write(index, index..=index, 100)]).unwrap();
    }
    wal.commit(&[write(5, 4..=4, 100)]).unwrap();
    former.commit(&[write(4, 4..=4, 100)]).unwrap();
    wal.idle().unwrap();
    let place = batch(4).start as usize..batch(4).end as usize;
    let stale = other.content(&segment(1)).unwrap()[place.clone()].to_vec();
    disk.damage(&segment(1), |content| content[place.clone()].copy_from_slice(&stale)).unwrap();
    assert!(refused(&disk).contains("the mark contradicts"));
}

/// Under load the mark is one batch behind: what it does not cover after a
/// power cut is the very last batch, and nothing before it.
#[test]
fn under_load_only_the_very_last_batch_is_beyond_proof() {
    let lost = |range: Range<u64>| {
        let disk = four().0.crash(Crash::Lost);
        disk.zero(&segment(1), range).unwrap();
        disk
    };
    assert_eq!(last(&open(&lost(batch(4))).unwrap().1), 3, "as if it had been torn");
    refused(&lost(batch(3)));
    refused(&lost(batch(3).start..batch(4).end));
}

/// The power goes when batch 5 has reached the disk and the mark for batch 4 has
/// not. Batch 5 was begun when batch 4 was synced, so that one was acknowledged.
#[test]
fn a_later_batch_proves_what_the_mark_does_not() {
    let (disk, mut wal) = four();
    wal.append(&[write(5, 5..=5, 100)]).unwrap();
    let disk = disk.crash(Crash::Kept);
    disk.zero(&segment(1), 2 * SECTOR..3 * SECTOR).unwrap();
    disk.zero(&segment(1), batch(4)).unwrap();
    assert!(refused(&disk).contains("a later batch"));
}

/// A power cut may destroy the sector that is being written, here the one of the
/// mark for batch 4. The other one still has the mark for batch 3.
#[test]
fn a_destroyed_mark_leaves_the_one_before() {
    let (disk, _wal) = four();
    let content = |crash| disk.crash(crash).content(&segment(1)).unwrap();
    let (before, after) = (content(Crash::Lost), content(Crash::Kept));
    let differs = |at: &u64| before[*at as usize..][..512] != after[*at as usize..][..512];
    let at = [SECTOR, 2 * SECTOR].into_iter().find(differs).unwrap();
    let disk = disk.crash(Crash::Lost);
    disk.zero(&segment(1), at..at + SECTOR).unwrap();
    disk.zero(&segment(1), batch(3).start..batch(4).end).unwrap();
    assert!(refused(&disk).contains("log index 3"));
}

/// As it is when a node starts: the mark for batch 4 goes over the one for 2.
#[test]
fn a_mark_destroyed_at_a_start_leaves_the_one_before() {
    let disk = four().0.crash(Crash::Lost);
    let before = disk.content(&segment(1)).unwrap();
    open(&disk).unwrap();
    let after = disk.content(&segment(1)).unwrap();
    let differs = |at: &u64| before[*at as usize..][..512] != after[*at as usize..][..512];
    let at: Vec<_> = [SECTOR, 2 * SECTOR].into_iter().filter(differs).collect();
    assert_eq!(at.len(), 1);
    disk.zero(&segment(1), at[0]..at[0] + SECTOR).unwrap();
    disk.zero(&segment(1), batch(3).start..batch(4).end).unwrap();
    assert!(refused(&disk).contains("log index 3"));
}

/// One crash destroys one of two marks. [With both gone, a zeroed tail is taken
/// for batches that were never written, and what was acknowledged vanishes.]
#[test]
fn two_destroyed_marks_are_damage() {
    let scribble = |disk: &FaultyDisk, at: u64| {
        disk.damage(&segment(1), |content| content[at as usize..][..512].fill(0xa5)).unwrap();
    };
    let (disk, mut wal) = four();
    while wal.idle().unwrap() {}
    scribble(&disk, SECTOR);
    assert_eq!(last(&open(&disk.crash(Crash::Lost)).unwrap().1), 4, "one of them is left");
    scribble(&disk, 2 * SECTOR);
    let text = refused(&disk);
    for part in ["journal-0000000000000001", "byte 4096", "marks", "cached --rebuild"] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    disk.zero(&segment(1), batch(3).start..64 << 10).unwrap();
    assert!(refused(&disk).contains("marks"));
    // The very first mark was torn: it vouches for nothing, and nothing is lost.
    let (disk, mut wal) = fresh();
    wal.commit(&[write(1, 1..=1, 100)]).unwrap();
    let disk = disk.crash(Crash::Lost);
    for _ in 0..2 {
        // Nor is anything when the mark that is written in its place is torn.
        scribble(&disk, SECTOR);
        assert_eq!(last(&open(&disk).unwrap().1), 1);
    }
}

/// What was acknowledged last, and the vote, may have been in it.
#[test]
fn the_newest_segment_does_not_vanish_unnoticed() {
    let (disk, mut wal) = four();
    wal.commit(&[write(5, 5..=5, 50_000)]).unwrap();
    let disk = disk.crash(Crash::Lost);
    disk.remove(&segment(2)).unwrap();
    let text = refused(&disk);
    assert!(text.contains(&segment(2)) && text.contains("missing"), "{text}");
}

/// The power goes before the next segment has its name: this one is the last.
#[test]
fn a_mark_is_durable_before_the_next_segment_is_begun() {
    let (disk, mut wal) = four();
    wal.commit(&[write(5, 5..=5, 50_000)]).unwrap();
    let named = |at: &usize| disk.operation(*at).contains(&segment(2));
    let at = (1..=disk.operations()).find(named).unwrap();
    let disk = disk.image(at, Crash::Lost);
    assert!(disk.content(&segment(2)).is_err());
    disk.zero(&segment(1), batch(4)).unwrap();
    assert!(refused(&disk).contains("log index 4"));
}

#[test]
fn a_segment_is_the_one_that_its_name_says() {
    let (disk, _wal) = four();
    disk.rename(&segment(1), &segment(2)).unwrap();
    assert!(refused(&disk).contains("another segment"));
}

/// Neither can be damage to a sector, with both checksums right.
#[test]
fn a_header_that_contradicts_the_records_before_is_refused() {
    let (disk, mut wal) = four();
    wal.commit(&[write(5, 5..=5, 50_000)]).unwrap();
    disk.damage(&segment(2), |content| {
        content[96] ^= 1; // the term
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&content[..12]);
        hasher.update(&content[16..SECTOR as usize]);
        content[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
    })
    .unwrap();
    assert!(refused(&disk).contains("header contradicts"));
}

#[test]
fn damage_before_a_later_segment_is_refused() {
    let (disk, mut wal) = fresh();
    for index in 1..=8 {
        wal.commit(&[write(index, index..=index, 18_000)]).unwrap();
    }
    let whole = disk.crash(Crash::Lost);
    assert!(whole.content(&segment(3)).is_ok(), "several segments");
    for at in [DATA, DATA + 3 * SECTOR] {
        let disk = whole.crash(Crash::Lost);
        disk.zero(&segment(1), at..64 << 10).unwrap();
        assert!(refused(&disk).contains("later segment"));
    }
    for number in 2..=3 {
        let disk = whole.crash(Crash::Lost);
        disk.damage(&segment(number), |content| content.truncate(40_000)).unwrap();
        assert!(refused(&disk).contains("length"));
    }
    whole.remove(&segment(2)).unwrap();
    assert!(refused(&whole).contains("missing"));
}

#[test]
fn a_journal_that_should_be_there_is_not_begun_anew() {
    let (disk, _wal) = four();
    disk.remove(&segment(1)).unwrap();
    let config = Config { create: false, ..config() };
    assert!(matches!(Wal::open(disk.clone(), config), Err(WalError::Damaged { .. })));
    assert!(open(&disk).is_ok(), "before the first start it is right");
    let (disk, _wal) = fresh();
    make_snapshot(&disk, 3);
    disk.remove(&segment(1)).unwrap();
    assert!(refused(&disk).contains("the journal is missing"), "but not beside a snapshot");
}

#[test]
fn another_nodes_directory_is_told_from_a_damaged_one() {
    let (disk, _wal) = four();
    let other =
        [Config { node: NodeId(2), ..config() }, Config { cluster: ClusterId(2), ..config() }];
    for config in other {
        let error = Wal::open(disk.clone(), config).err().unwrap();
        assert!(matches!(error, WalError::Foreign { .. }), "{error}");
    }
}

/// Every byte of a journal of three segments, one bit each: refused, or nothing
/// is missing but perhaps the very last batch.
#[test]
fn a_flipped_bit_anywhere_is_noticed_or_harmless() {
    let (disk, mut wal) = fresh();
    for index in 1..=7 {
        wal.commit(&[write(index, index..=index, 20_000)]).unwrap();
    }
    let whole = disk.crash(Crash::Lost);
    let found = open(&whole.crash(Crash::Lost)).unwrap().1;
    let very_last = open(&{
        let (disk, mut wal) = fresh();
        for index in 1..=6 {
            wal.commit(&[write(index, index..=index, 20_000)]).unwrap();
        }
        disk
    });
    let before = very_last.unwrap().1;
    for number in 1..=3 {
        let size = whole.content(&segment(number)).unwrap().len() as u64;
        // Every byte of headers and marks, every 41st of the values and zeros.
        let used = [0..200, SECTOR..SECTOR + 50, 2 * SECTOR..2 * SECTOR + 50, DATA..DATA + 200];
        for at in used.into_iter().flatten().chain((0..size).step_by(41)) {
            let disk = whole.crash(Crash::Lost);
            disk.flip_bit(&segment(number), at, (at % 8) as u8).unwrap();
            match open(&disk) {
                Ok((_, recovered)) if recovered == found => {}
                Ok((_, recovered)) => {
                    assert_eq!(number, 3);
                    assert_eq!(recovered, before, "segment {number} byte {at}");
                }
                Err(WalError::Damaged { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Restores a fixed journal and writes a few bytes over it, anywhere.
fn damaged(places: &[(u64, u64, u64, u8)]) -> (FaultyDisk, Recovered) {
    let (disk, mut wal) = fresh();
    for index in 1..=9 {
        wal.commit(&[write(index, index..=index, 8000)]).unwrap();
    }
    while wal.idle().unwrap() {}
    let whole = open(&disk).unwrap().1;
    for &(number, at, length, byte) in places {
        let end = (at + length).min(64 << 10) as usize;
        disk.damage(&segment(number), |content| content[at as usize..end].fill(byte)).unwrap();
    }
    (disk, whole)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// After an idle moment the mark covers everything: all of it, or refusal.
    #[test]
    fn random_damage_is_refused_or_harmless(
        places in prop::collection::vec((1..=2u64, 0..(64u64 << 10), 1..9000u64, any::<u8>()), 1..4)
    ) {
        let (disk, whole) = damaged(&places);
        match open(&disk) {
            Ok((_, found)) => {
                // The marks themselves may have been hit; then the end is open.
                let marks = places.iter().any(|&(number, at, length, _)| {
                    number == 2 && at < DATA && at + length > SECTOR
                });
                let kept = found.entries.len();
                prop_assert_eq!(&found.entries[..], &whole.entries[..kept], "invented");
                prop_assert!(marks || found == whole, "lost what the mark covers: {:?}", found);
            }
            Err(WalError::Damaged { .. }) => {}
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}

/// From a later batch a recovery concludes that this one was synced.
#[test]
#[should_panic(expected = "the batch before is synced first")]
fn one_batch_is_in_flight_at_a_time() {
    let (_disk, mut wal) = four();
    wal.append(&[write(5, 5..=5, 10)]).unwrap();
    wal.append(&[write(6, 6..=6, 10)]).unwrap();
}

#[test]
#[should_panic(expected = "a term never goes back")]
fn a_term_never_goes_back() {
    let (_disk, mut wal) = four();
    wal.commit(&[write(3, 5..=5, 10)]).unwrap();
}

/// PostgreSQL's lesson of 2018: the next sync would report success.
#[test]
fn a_failed_sync_is_the_end_of_this_process() {
    let (disk, mut wal) = four();
    disk.fail_sync_after(0);
    assert!(matches!(wal.commit(&[write(5, 5..=5, 10)]), Err(WalError::Sync { .. })));
    assert!(matches!(wal.commit(&[write(6, 6..=6, 10)]), Err(WalError::Stopped)));
    assert!(matches!(wal.sync(), Err(WalError::Stopped)));
    assert!(matches!(wal.idle(), Err(WalError::Stopped)));
    assert!(matches!(wal.read_entries(Index(1), Index(1), 1), Err(WalError::Stopped)));
    assert!(!wal.has_room());
}

/// The next process finds the batch in the page cache, which calls the pages
/// clean. It may only stand on them after writing them again.
#[test]
fn what_is_read_from_the_page_cache_is_written_again() {
    let (disk, mut wal) = four();
    disk.fail_sync_after(0);
    wal.commit(&[write(5, 5..=5, 10)]).unwrap_err();
    let (_, found) = open(&disk).unwrap();
    assert_eq!(last(&found), 5);
    assert_eq!(open(&disk.crash(Crash::Lost)).unwrap().1, found, "vouched for, then lost");
}

/// Every sync of a rotation may be the one that fails.
#[test]
fn a_sync_that_fails_in_a_rotation_loses_nothing() {
    for count in 0..8 {
        let (disk, mut wal) = four();
        disk.fail_sync_after(count);
        let mut acknowledged = 4;
        for index in 5..=9 {
            match wal.commit(&[write(index, index..=index, 15_000)]) {
                Ok(seq) => acknowledged = seq.0,
                Err(error) => {
                    assert!(matches!(error, WalError::Sync { .. } | WalError::Stopped), "{error}");
                }
            }
        }
        for crash in [Crash::Lost, Crash::Kept, Crash::Killed] {
            let found = open(&disk.crash(crash)).unwrap().1;
            assert!(last(&found) >= acknowledged, "{count} {crash:?}: {found:?}");
        }
    }
}

#[test]
fn a_full_disk_is_noticed_while_there_is_a_reserve() {
    let (disk, mut wal) = fresh();
    disk.set_capacity(Some(disk.used_bytes()));
    let mut index = 0;
    while wal.has_room() {
        index += 1;
        wal.commit(&[write(index, index..=index, 3000)]).unwrap();
    }
    // What must still be written has its place.
    wal.commit(&[Write { entries: Vec::new(), ..write(index + 1, 1..=1, 0) }]).unwrap();
    let error = wal.commit(&[write(index + 2, index + 1..=index + 1, 30_000)]).unwrap_err();
    assert!(matches!(error, WalError::Full { .. }), "{error}");
    assert_eq!(wal.last().index, Index(index), "nothing has changed");
    assert!(!wal.idle().unwrap(), "trying again is not a failure");
    assert_eq!(last(&open(&disk.crash(Crash::Lost)).unwrap().1), index);
    // It recovers by itself.
    disk.set_capacity(None);
    while wal.idle().unwrap() {}
    assert!(wal.has_room());
    wal.commit(&[write(index + 2, index + 1..=index + 1, 30_000)]).unwrap();
    assert_eq!(last(&open(&disk.crash(Crash::Lost)).unwrap().1), index + 1);
}

#[test]
fn of_a_queue_that_does_not_fit_the_first_writes_are_taken() {
    let (disk, mut wal) = four();
    disk.set_capacity(Some(disk.used_bytes()));
    let queue = [write(5, 5..=5, 100), write(6, 6..=6, 60_000)];
    assert_eq!(wal.commit(&queue).unwrap(), WriteSeq(5));
    assert!(matches!(wal.commit(&queue[1..]), Err(WalError::Full { .. })));
}

#[test]
fn a_damaged_snapshot_falls_back_while_the_log_makes_up_for_it() {
    let (disk, wal) = compacted();
    assert!(wal.first() > Index(1) && wal.first() <= Index(6), "{}", wal.first());
    disk.flip_bit(&snapshot_name(10, 1), 2000, 3).unwrap();
    let (wal, found) = open(&disk).unwrap();
    assert_eq!(found.snapshot.map(|meta| meta.last), Some(EntryId::new(1, 5)));
    assert_eq!(found.entries.len(), 7);
    assert_eq!(wal.kept(), Kept { previous: None, newest: Some(EntryId::new(1, 5)) });
    // It goes on from there, into further segments, and is found again.
    let mut wal = wal;
    for index in 13..=20 {
        wal.commit(&[write(index, index..=index, 15_000)]).unwrap();
    }
    let (_, found) = open(&disk.crash(Crash::Lost)).unwrap();
    assert_eq!((found.snapshot.unwrap().last.index, found.entries.len()), (Index(5), 15));
    // The older one is then all there is.
    disk.remove(&snapshot_name(5, 1)).unwrap();
    assert!(refused(&disk).contains("snapshot"));
}

/// Whole, and yet of no use: what counts is whether a state can be made of it.
/// Each is read once, and the state that was made is the one that is returned.
#[test]
fn a_snapshot_that_no_state_can_be_made_of_falls_back_as_a_damaged_one() {
    let disk = compacted().0;
    let refusing = |refused: &[u64]| {
        let mut asked = Vec::new();
        let image = disk.crash(Crash::Lost);
        let opened = Wal::open_with(image, config(), |reader| {
            let last = reader.meta().last.index;
            asked.push(last.0);
            if refused.contains(&last.0) { Err(reader.damaged("no state")) } else { Ok(last) }
        });
        (opened.map(|(wal, found, state)| (wal.kept(), found.snapshot, state)), asked)
    };
    let id = |index| EntryId::new(1, index);
    let (opened, asked) = refusing(&[]);
    let (kept, snapshot, state) = opened.unwrap();
    assert_eq!(kept, Kept { previous: Some(id(5)), newest: Some(id(10)) });
    assert_eq!((snapshot.unwrap().last, state), (id(10), Some(Index(10))));
    assert_eq!(asked, [10]);
    let (opened, asked) = refusing(&[10]);
    let (kept, snapshot, state) = opened.unwrap();
    assert_eq!(kept, Kept { previous: None, newest: Some(id(5)) });
    assert_eq!((snapshot.unwrap().last, state), (id(5), Some(Index(5))));
    assert_eq!(asked, [10, 5]);
    let error = refusing(&[10, 5]).0.unwrap_err().to_string();
    assert!(error.contains(&snapshot_name(10, 1)) && error.contains("no state"), "{error}");
}

#[test]
fn the_first_snapshot_falls_back_on_the_whole_log() {
    let (disk, mut wal) = four();
    take_snapshot(&mut wal, 3);
    disk.flip_bit(&snapshot_name(3, 1), 50, 0).unwrap();
    let (_, found) = open(&disk).unwrap();
    assert_eq!((&found.snapshot, last(&found)), (&None, 4));
    let (mut wal, _) = open(&disk).unwrap();
    for index in 5..=12 {
        wal.commit(&[write(index, index..=index, 15_000)]).unwrap();
    }
    assert_eq!(last(&open(&disk.crash(Crash::Lost)).unwrap().1), 12);
}

#[test]
fn an_installed_snapshot_has_no_fallback() {
    let (disk, mut wal) = four();
    make_snapshot(&disk, 50);
    let last = EntryId::new(1, 50);
    let base = SnapshotMeta { last, membership: Membership::default() };
    wal.commit(&[Write { base: Some(base.clone()), ..write(5, 51..=52, 10) }]).unwrap();
    let (_, found) = open(&disk.crash(Crash::Lost)).unwrap();
    assert_eq!((found.snapshot, found.entries.len()), (Some(base), 2));
    disk.remove(&snapshot_name(50, 1)).unwrap();
    assert!(refused(&disk).contains("missing"));
}

#[test]
fn a_snapshot_to_start_from_is_there_and_no_older_than_the_log() {
    let (disk, mut wal) = compacted();
    let base =
        |index| SnapshotMeta { last: EntryId::new(1, index), membership: Membership::default() };
    let nothing = Write { entries: Vec::new(), ..write(13, 1..=1, 0) };
    let install = |index| Write { base: Some(base(index)), ..nothing.clone() };
    make_snapshot(&disk, 2);
    for index in [50, 2] {
        let error = wal.commit(&[install(index)]).unwrap_err();
        assert!(matches!(error, WalError::Unfit { .. }), "{index}: {error}");
    }
    assert_eq!((wal.last().index, wal.kept().newest.unwrap().index), (Index(12), Index(10)));
}

/// The log begins behind the older snapshot: that one is of no use any more.
#[test]
fn a_snapshot_the_log_does_not_follow_is_no_fallback() {
    let (disk, wal) = compacted();
    let front = segment(2);
    assert_eq!(wal.first(), Index(4));
    disk.remove(&front).unwrap();
    assert!(open(&disk.crash(Crash::Killed)).is_ok(), "the newest one will do");
    disk.flip_bit(&snapshot_name(10, 1), 2000, 3).unwrap();
    assert!(refused(&disk).contains("snapshot"));
}

/// What a snapshot holds is committed, and is never taken back.
#[test]
fn a_log_that_ends_before_the_newest_snapshot_is_refused() {
    let (disk, mut wal) = four();
    take_snapshot(&mut wal, 4);
    wal.commit(&[write(5, 3..=3, 10)]).unwrap();
    assert!(refused(&disk).contains("does not connect"));
}

#[test]
fn a_snapshot_that_nothing_names_is_forgotten() {
    let (disk, mut wal) = four();
    take_snapshot(&mut wal, 3);
    make_snapshot(&disk, 50);
    disk.create("snapshot-x.tmp").unwrap();
    let (wal, found) = open(&disk).unwrap();
    assert_eq!(found.snapshot.map(|meta| meta.last.index), Some(Index(3)));
    let names = wal.disk().list().unwrap();
    assert_eq!(names, [segment(1), snapshot_name(3, 1)]);
}

#[test]
fn a_snapshot_ahead_of_the_log_or_beside_it_is_not_taken() {
    let (disk, mut wal) = four();
    let meta = SnapshotMeta { last: EntryId::new(1, 4), membership: Membership::default() };
    let mut writer = SnapshotWriter::create(&disk, CLUSTER, &meta, b"").unwrap();
    assert!(matches!(writer.finish(Index(3)), Err(WalError::Early { .. })));
    assert!(matches!(wal.snapshot_taken(meta.last), Err(WalError::Unfit { .. })), "no file yet");
    writer.finish(Index(4)).unwrap();
    let refused = |wal: &mut Wal<FaultyDisk>, last, why| {
        let error = wal.snapshot_taken(last).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    for index in [2, 5] {
        make_snapshot(&disk, index);
    }
    disk.rename(&snapshot_name(2, 1), &snapshot_name(4, 2)).unwrap();
    for other in [EntryId::new(2, 4), EntryId::new(1, 5)] {
        refused(&mut wal, other, "not in the log");
    }
    wal.snapshot_taken(meta.last).unwrap();
    make_snapshot(&disk, 3);
    refused(&mut wal, EntryId::new(1, 3), "a newer one");
}

#[test]
fn a_snapshot_travels_in_chunks_over_broken_links() {
    let (from, to) = (FaultyDisk::default(), FaultyDisk::default());
    make_snapshot(&from, 7);
    let last = EntryId::new(1, 7);
    let reader = SnapshotReader::open(&from, CLUSTER, last).unwrap();
    assert_eq!(&reader.state()[..], b"hash");
    let mut receiver = SnapshotReceiver::create(&to, CLUSTER, last, 1 << 20).unwrap();
    let first = reader.chunk(0, 1500).unwrap();
    assert_eq!(receiver.chunk(0, &first).unwrap(), 1500);
    assert_eq!(receiver.chunk(9000, &first).unwrap(), 1500, "ahead of its time");
    assert_eq!(receiver.chunk(0, &first).unwrap(), 1500, "a repetition");
    loop {
        let offset = receiver.received_bytes();
        // A new link may start a little earlier.
        let again = offset.saturating_sub(100);
        let chunk = reader.chunk(again, 1000).unwrap();
        if receiver.chunk(again, &chunk).unwrap() == offset {
            break;
        }
    }
    assert_eq!(receiver.finish(|_| Ok(())).unwrap().0.last, last);
    let mut copy = SnapshotReader::open(&to.crash(Crash::Lost), CLUSTER, last).unwrap();
    for block in 1..=5u8 {
        assert_eq!(copy.next_block().unwrap().unwrap()[..], [block; 1000]);
    }
    assert_eq!(copy.next_block().unwrap(), None);
}

#[test]
fn a_snapshot_with_any_flipped_bit_is_refused_by_its_receiver() {
    let from = FaultyDisk::default();
    make_snapshot(&from, 7);
    let last = EntryId::new(1, 7);
    let bytes = from.content(&snapshot_name(7, 1)).unwrap();
    for at in 0..=bytes.len() {
        let mut bytes = bytes.clone();
        match bytes.get_mut(at) {
            Some(byte) => *byte ^= 1 << (at % 8),
            None => bytes.truncate(at - 1),
        }
        let to = FaultyDisk::default();
        let mut receiver = SnapshotReceiver::create(&to, CLUSTER, last, 1 << 20).unwrap();
        receiver.chunk(0, &bytes).unwrap();
        assert!(receiver.finish(|_| Ok(())).is_err(), "byte {at} goes unnoticed");
        assert!(to.list().unwrap().is_empty(), "nothing is left of it");
    }
    let to = FaultyDisk::default();
    let mut receiver = SnapshotReceiver::create(&to, CLUSTER, last, 100).unwrap();
    assert_eq!(receiver.chunk(0, &bytes).unwrap(), 0, "larger than agreed");
}

/// Chained and counted as it may be, it is not the one that was asked for.
#[test]
fn a_snapshot_is_the_one_that_its_name_says() {
    let disk = FaultyDisk::default();
    make_snapshot(&disk, 7);
    let (last, other) = (EntryId::new(1, 7), EntryId::new(1, 8));
    let bytes = disk.content(&snapshot_name(7, 1)).unwrap();
    let foreign = SnapshotReader::open(&disk, ClusterId(2), last).err().unwrap();
    assert!(matches!(foreign, WalError::Foreign { .. }), "{foreign}");
    disk.rename(&snapshot_name(7, 1), &snapshot_name(8, 1)).unwrap();
    let misnamed = SnapshotReader::open(&disk, CLUSTER, other).err().unwrap();
    assert!(misnamed.to_string().contains("another snapshot"), "{misnamed}");
    let receive = |last, more: &[u8]| {
        let to = FaultyDisk::default();
        let mut receiver = SnapshotReceiver::create(&to, CLUSTER, last, 1 << 20).unwrap();
        receiver.chunk(0, &bytes).unwrap();
        receiver.chunk(bytes.len() as u64, more).unwrap();
        receiver.finish(|_| Ok(())).map(|(meta, ())| meta.last)
    };
    assert_eq!(receive(last, &[]).unwrap(), last);
    assert!(receive(last, &[0]).unwrap_err().to_string().contains("footer"));
    assert!(receive(other, &[]).unwrap_err().to_string().contains("another snapshot"));
}

/// Or one sync would have gigabytes to do, and the journal's would wait for it.
#[test]
fn a_snapshot_is_synced_as_it_grows() {
    let disk = FaultyDisk::default();
    let meta = SnapshotMeta { last: EntryId::new(1, 7), membership: Membership::default() };
    let mut writer = SnapshotWriter::create(&disk, CLUSTER, &meta, b"").unwrap();
    for block in 1..=20 {
        writer.write_block(&[block; 1 << 20]).unwrap();
    }
    let syncs = (1..=disk.operations()).filter(|&at| disk.operation(at).starts_with("Sync {"));
    assert_eq!(syncs.count(), 2, "of 8 MiB each");
}

#[test]
fn a_slow_peer_reads_the_log_from_the_disk() {
    let (disk, mut wal) = fresh();
    let mut all = Vec::new();
    for index in (1..=60).step_by(3) {
        let write = write(index, index..=index + 2, 50 * index as usize);
        all.extend(write.entries.clone());
        wal.commit(&[write]).unwrap();
    }
    let read = |wal: &Wal<FaultyDisk>, from, to, bytes| {
        wal.read_entries(Index(from), Index(to), bytes).unwrap()
    };
    let (again, _) = open(&disk).unwrap();
    for wal in [&wal, &again] {
        for from in 1..=60 {
            let to = (from + 25).min(60);
            let expected = &all[from as usize - 1..to as usize];
            assert_eq!(read(wal, from, to, usize::MAX), expected);
        }
        assert_eq!(read(wal, 5, 60, 0).len(), 1, "never none");
        assert_eq!(read(wal, 58, 99, usize::MAX).len(), 3, "the log ends");
        assert_eq!(read(wal, 61, 99, usize::MAX), []);
        let some = read(wal, 1, 60, 5000);
        assert!(some.iter().map(Entry::size).sum::<usize>() <= 5000 && some.len() > 3);
    }
    disk.flip_bit(&segment(1), DATA + 60, 1).unwrap();
    let error = wal.read_entries(Index(1), Index(3), usize::MAX).unwrap_err();
    assert!(error.to_string().contains("log index 1"), "{error}");
}

/// [With segments kept by a pin or a slow snapshot, their descriptors would be
/// taken from the clients and the peers.]
#[test]
fn many_segments_are_few_open_files() {
    let (disk, mut wal) = fresh();
    for index in 1..=40 {
        wal.commit(&[write(index, index..=index, 30_000)]).unwrap();
    }
    while wal.idle().unwrap() {}
    assert!(wal.disk_bytes() > 20 * config().segment_bytes);
    assert_eq!(disk.open_files(), 2, "the last one and the next one");
    let all = wal.read_entries(Index(1), Index(40), usize::MAX).unwrap();
    assert_eq!((all.len(), disk.open_files()), (40, 2));
    drop(wal);
    let (_wal, found) = open(&disk).unwrap();
    assert_eq!((found.entries, disk.open_files()), (all, 1));
}

#[test]
fn a_pin_holds_the_log_up_to_a_bound() {
    let (_disk, mut wal) = fresh();
    let mut index = 0;
    let mut fill = |wal: &mut Wal<FaultyDisk>, count| {
        for _ in 0..count {
            index += 1;
            wal.commit(&[write(index, index..=index, 20_000)]).unwrap();
        }
        take_snapshot(wal, index);
    };
    wal.pin(Index(2));
    fill(&mut wal, 10);
    fill(&mut wal, 10);
    fill(&mut wal, 1);
    assert!(wal.first() <= Index(3));
    assert!(wal.read_entries(Index(3), Index(20), usize::MAX).is_ok());
    assert_eq!(wal.log_bytes(), 0);
    wal.unpin().unwrap();
    assert!(wal.first() > Index(10));
    assert!(matches!(
        wal.read_entries(Index(3), Index(20), usize::MAX),
        Err(WalError::Compacted { .. })
    ));
    // A peer that never catches up does not fill the disk.
    let limited = Config { pin_limit_bytes: 200_000, ..config() };
    let mut wal = Wal::open(FaultyDisk::default(), limited).unwrap().0;
    index = 0;
    let mut fill = |wal: &mut Wal<FaultyDisk>| {
        index += 1;
        wal.commit(&[write(index, index..=index, 20_000)]).unwrap();
        take_snapshot(wal, index);
    };
    wal.pin(Index(0));
    for _ in 0..6 {
        fill(&mut wal);
    }
    assert_eq!(wal.first(), Index(1), "pinned");
    for _ in 0..8 {
        fill(&mut wal);
    }
    assert!(wal.first() > Index(1), "and not for ever");
}

/// The snapshot thread has given it its name, the journal does not name it yet.
#[test]
fn a_snapshot_about_to_be_named_outlives_a_compaction() {
    let (disk, mut wal) = compacted();
    make_snapshot(&disk, 12);
    wal.commit(&[write(13, 13..=13, 10)]).unwrap();
    take_snapshot(&mut wal, 11);
    wal.snapshot_taken(EntryId::new(1, 12)).unwrap();
    let names: Vec<_> =
        disk.list().unwrap().into_iter().filter(|name| name.starts_with("snapshot")).collect();
    assert_eq!(names, [snapshot_name(11, 1), snapshot_name(12, 1)]);
}

#[test]
fn an_installed_snapshot_takes_the_place_of_what_was_there() {
    let (disk, mut wal) = compacted();
    make_snapshot(&disk, 50);
    let last = EntryId::new(1, 50);
    let base = SnapshotMeta { last, membership: Membership::default() };
    wal.commit(&[Write { base: Some(base), ..write(13, 51..=51, 50_000) }]).unwrap();
    while wal.idle().unwrap() {}
    let names = [segment(5), "journal-next.tmp".to_owned(), snapshot_name(50, 1)];
    assert_eq!(disk.list().unwrap(), names);
}

/// The space goes back to the journal, and a later try succeeds.
#[test]
fn a_snapshot_that_does_not_fit_is_given_up() {
    let (disk, mut wal) = four();
    disk.set_capacity(Some(disk.used_bytes() + 2000));
    let meta = SnapshotMeta { last: EntryId::new(1, 4), membership: Membership::default() };
    let mut writer = SnapshotWriter::create(&disk, CLUSTER, &meta, b"").unwrap();
    writer.write_block(&[1; 1000]).unwrap();
    let error = writer.write_block(&[2; 1000]).unwrap_err();
    assert!(matches!(error, WalError::Full { .. }), "{error}");
    writer.abandon();
    assert_eq!(disk.list().unwrap(), [segment(1)]);
    disk.set_capacity(None);
    take_snapshot(&mut wal, 4);
}

/// A length nobody has written is not one to allocate.
#[test]
fn a_file_that_claims_to_be_huge_is_refused_and_not_read() {
    let temp = tempfile::tempdir().unwrap();
    let disk = StdDisk::open(temp.path()).unwrap();
    drop(Wal::open(disk.clone(), config()).unwrap());
    let file = std::fs::File::options().write(true).open(temp.path().join(segment(1))).unwrap();
    file.set_len(8 << 40).unwrap();
    let error = Wal::open(disk, config()).err().unwrap().to_string();
    assert!(error.contains("length has changed"), "{error}");
}

/// The same journal over the file system, across restarts.
#[test]
fn a_journal_in_a_real_directory() {
    let temp = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for round in 1..=4 {
        let disk = StdDisk::open(temp.path().join("data")).unwrap();
        let (mut wal, found) = Wal::open(disk, config()).unwrap();
        assert_eq!(found.entries, expected);
        for index in 5 * round - 4..=5 * round {
            let write = write(index, index..=index, 9000);
            expected.extend(write.entries.clone());
            assert_eq!(wal.commit(&[write]).unwrap(), WriteSeq(index));
        }
        while round % 2 == 0 && wal.idle().unwrap() {}
        let all = wal.read_entries(Index(1), wal.last().index, usize::MAX).unwrap();
        assert_eq!(all, expected);
    }
}
