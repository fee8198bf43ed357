//! Crashes at every boundary between two disk operations.
//!
//! A workload runs once on a [`FaultyDisk`]. After each step the test notes what
//! a recovery has to return from then on: a view. Then the disk is crashed
//! behind every single operation, in every way it can crash, and recovered.
//! What comes back has to be, bit by bit, one of two views: the last one that
//! was acknowledged before the crash, or the one that was being written. So
//! nothing acknowledged is lost, nothing is invented, and no hard state goes
//! back. After that the power goes a second time, at every operation of the
//! recovery and behind it: what the recovery vouched for must still be there.

#![expect(clippy::unwrap_used, reason = "a test ends where a step fails")]

use bytes::Bytes;
use raftcache::raft::*;
use raftcache::wal::faulty::{Crash, FaultyDisk};
use raftcache::wal::{Config, SnapshotWriter, Wal};

const CLUSTER: ClusterId = ClusterId(0xc1);

fn config() -> Config {
    Config {
        create: true,
        segment_bytes: 32 << 10,
        reserve_bytes: 4 << 10,
        mark_every_batches: 2,
        ..Config::new(NodeId(1), CLUSTER)
    }
}

fn membership() -> Membership {
    let mut membership = Membership::default();
    let member = Member {
        name: "a".to_owned(),
        peer_address: "a:1".to_owned(),
        client_address: "a:2".to_owned(),
        voter: true,
    };
    membership.insert(NodeId(1), member);
    membership
}

fn meta(last: EntryId) -> SnapshotMeta {
    SnapshotMeta { last, membership: membership() }
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let payload = match bytes {
        0 => Payload::Noop,
        1 => Payload::Membership(membership()),
        _ => Payload::Command(Bytes::from(vec![index as u8 ^ term as u8; bytes])),
    };
    Entry { id: EntryId::new(term, index), payload }
}

/// A workload at work: the journal, and what it has to be able to give back.
struct Bench {
    disk: FaultyDisk,
    wal: Wal<FaultyDisk>,
    now: Recovered,
    seq: u64,
    /// Where a step began, where it was acknowledged, what it led to.
    views: Vec<(usize, usize, Recovered)>,
}

impl Bench {
    fn new() -> Self {
        let disk = FaultyDisk::default();
        let (wal, now) = Wal::open(disk.clone(), config()).unwrap();
        let views = vec![(0, 0, Recovered::default())];
        Self { disk, wal, now, seq: 0, views }
    }

    fn step(&mut self, act: impl FnOnce(&mut Wal<FaultyDisk>), after: impl FnOnce(&mut Recovered)) {
        let begun = self.disk.operations();
        act(&mut self.wal);
        after(&mut self.now);
        let mut view = self.now.clone();
        let last = view.entries.last().map(|entry| entry.id);
        let last = last.or(view.snapshot.as_ref().map(|meta| meta.last)).unwrap_or(EntryId::ZERO);
        view.hard_state.commit = view.hard_state.commit.min(last.index);
        self.views.push((begun, self.disk.operations(), view));
    }

    fn commit(&mut self, mut writes: Vec<Write>) {
        for write in &mut writes {
            self.seq += 1;
            write.seq = WriteSeq(self.seq);
        }
        let model = writes.clone();
        let seq = WriteSeq(self.seq);
        self.step(
            |wal| assert_eq!(wal.commit(&writes).unwrap(), seq),
            |now| model.into_iter().for_each(|write| apply(now, write)),
        );
    }

    fn append(&mut self, term: u64, indexes: std::ops::RangeInclusive<u64>, bytes: usize) {
        self.commit(vec![write(term, indexes, bytes)]);
    }

    fn idle(&mut self) {
        self.step(|wal| while wal.idle().unwrap() {}, |_| {});
    }

    fn snapshot_file(&mut self, last: EntryId) {
        let disk = self.disk.clone();
        self.step(
            |_| {
                let mut writer =
                    SnapshotWriter::create(&disk, CLUSTER, &meta(last), b"state").unwrap();
                writer.write_block(&[7; 3000]).unwrap();
                writer.write_block(&[8; 100]).unwrap();
                writer.finish(last.index).unwrap();
            },
            |_| {},
        );
    }

    fn snapshot(&mut self, term: u64, index: u64) {
        let last = EntryId::new(term, index);
        self.snapshot_file(last);
        self.step(
            |wal| wal.snapshot_taken(last).unwrap(),
            |now| {
                now.entries.retain(|entry| entry.id.index > last.index);
                now.snapshot = Some(meta(last));
            },
        );
    }

    fn install(&mut self, term: u64, index: u64, then: Vec<Entry>) {
        let last = EntryId::new(term, index);
        self.snapshot_file(last);
        let hard_state = HardState { term: Term(term), vote: None, commit: Index(index) };
        self.commit(vec![Write {
            seq: WriteSeq(0),
            hard_state,
            base: Some(meta(last)),
            entries: then,
        }]);
        self.idle();
    }

    /// Every crash point, every way to crash, then every second one.
    fn crash_everywhere(&self) {
        for at in 0..=self.disk.operations() {
            let kinds = [Crash::Lost, Crash::Kept, Crash::Killed, Crash::Torn(1), Crash::Torn(2)];
            for crash in kinds {
                let image = self.disk.image(at, crash);
                let story = format!("{crash:?} after {at}: {}", self.disk.operation(at));
                let found = self.recover(&image, at, &story);
                let vouched = image.operations();
                for again in 0..=vouched {
                    for crash in [Crash::Lost, Crash::Torn(again as u64)] {
                        let story = format!("{story}; then {crash:?} after {again}");
                        let second = self.recover(&image.image(again, crash), at, &story);
                        assert!(again < vouched || second == found, "vouched for: {story}");
                    }
                }
                go_on(&image, &found, &story);
            }
        }
    }

    fn recover(&self, image: &FaultyDisk, at: usize, story: &str) -> Recovered {
        let (wal, found) = match Wal::open(image.clone(), config()) {
            Ok(opened) => opened,
            Err(error) => panic!("refused: {error}. {story}"),
        };
        let acknowledged = self.views.iter().rposition(|&(_, done, _)| done <= at).unwrap();
        let begun = self.views.iter().rposition(|&(begun, ..)| begun <= at).unwrap();
        let allowed = &self.views[acknowledged..=begun];
        assert!(
            allowed.iter().any(|(.., view)| *view == found),
            "{story}\n  found {found:?}\n  allowed {:?}",
            allowed.iter().map(|(.., view)| view).collect::<Vec<_>>()
        );
        if let Some(last) = found.entries.last() {
            let read = wal.read_entries(found.entries[0].id.index, last.id.index, usize::MAX);
            assert_eq!(read.unwrap(), found.entries, "read back. {story}");
        }
        found
    }
}

/// A recovered journal is one to go on with: what is committed next is durable.
fn go_on(image: &FaultyDisk, found: &Recovered, story: &str) {
    let (mut wal, _) = Wal::open(image.clone(), config()).unwrap();
    let next = wal.last().index.0 + 1;
    let more = write(1000, next..=next, 5000);
    wal.commit(std::slice::from_ref(&more)).unwrap();
    let mut expected = found.clone();
    apply(&mut expected, more);
    for crash in [Crash::Lost, Crash::Torn(next), Crash::Kept] {
        let (_, found) = Wal::open(image.crash(crash), config()).unwrap();
        assert_eq!(found, expected, "{story}; then a commit and {crash:?}");
    }
}

/// What a write does, the obvious way.
fn apply(now: &mut Recovered, write: Write) {
    if let Some(base) = write.base {
        if now.entries.iter().any(|entry| entry.id == base.last) {
            now.entries.retain(|entry| entry.id.index > base.last.index);
        } else {
            now.entries.clear();
        }
        now.snapshot = Some(base);
    }
    for entry in write.entries {
        now.entries.retain(|held| held.id.index < entry.id.index);
        now.entries.push(entry);
    }
    now.hard_state = write.hard_state;
}

fn write(term: u64, indexes: std::ops::RangeInclusive<u64>, bytes: usize) -> Write {
    let commit = Index(indexes.start() - 1);
    Write {
        seq: WriteSeq(0),
        hard_state: HardState { term: Term(term), vote: Some(NodeId(term.into())), commit },
        base: None,
        entries: indexes.map(|index| entry(term, index, bytes)).collect(),
    }
}

fn vote(term: u64, commit: u64) -> Write {
    let hard_state = HardState { term: Term(term), vote: Some(NodeId(9)), commit: Index(commit) };
    Write { seq: WriteSeq(0), hard_state, base: None, entries: Vec::new() }
}

#[test]
fn appends() {
    let mut bench = Bench::new();
    bench.commit(vec![vote(1, 0)]);
    bench.append(1, 1..=1, 0);
    bench.append(1, 2..=3, 100);
    bench.commit(vec![write(1, 4..=4, 5000), write(1, 5..=6, 10), vote(2, 3)]);
    bench.idle();
    bench.append(2, 7..=7, 1);
    bench.commit(vec![vote(5, 99)]);
    bench.append(5, 8..=12, 1500);
    bench.crash_everywhere();
}

#[test]
fn truncating_appends() {
    let mut bench = Bench::new();
    bench.append(1, 1..=6, 700);
    bench.append(2, 4..=5, 10);
    bench.commit(vec![write(2, 6..=8, 10), write(3, 7..=7, 20), write(4, 2..=3, 30)]);
    bench.idle();
    bench.append(5, 1..=2, 4000);
    bench.crash_everywhere();
}

/// Prepared and unprepared rotations, and a batch larger than a segment.
#[test]
fn rotation() {
    let mut bench = Bench::new();
    for index in 1..=4 {
        bench.append(1, index..=index, 6000);
    }
    bench.idle();
    for index in 5..=8 {
        bench.append(2, index..=index, 6000);
    }
    bench.append(2, 9..=9, 50_000);
    bench.append(3, 8..=8, 10);
    bench.commit(vec![vote(4, 3)]);
    bench.crash_everywhere();
}

/// A snapshot that replaces the log, one whose entry the log has, and one with
/// entries right behind it.
#[test]
fn installed_snapshots() {
    let mut bench = Bench::new();
    bench.append(1, 1..=5, 3000);
    bench.install(2, 20, vec![]);
    bench.append(2, 21..=25, 3000);
    bench.install(2, 23, vec![]);
    bench.append(2, 26..=27, 3000);
    bench.install(3, 26, vec![entry(3, 27, 50), entry(3, 28, 0)]);
    bench.append(3, 29..=30, 8000);
    bench.install(4, 29, vec![]);
    bench.crash_everywhere();
}

/// Snapshots of this log, and what they let go of.
fn compacted() -> Bench {
    let mut bench = Bench::new();
    for index in 1..=5 {
        bench.append(1, index..=index, 9000);
    }
    bench.snapshot(1, 2);
    bench.idle();
    for index in 6..=8 {
        bench.append(2, index..=index, 9000);
    }
    bench.snapshot(2, 6);
    bench.append(2, 9..=9, 9000);
    bench.snapshot(2, 9);
    bench.append(3, 10..=10, 9000);
    assert!(bench.wal.first() > Index(1), "something was deleted");
    bench
}

#[test]
fn snapshots_and_compaction() {
    compacted().crash_everywhere();
}

/// Whenever the power goes, the newest snapshot may turn out to be damaged: the
/// one before and the log since, or the whole log, are there.
#[test]
fn one_snapshot_may_be_damaged_after_any_crash() {
    let bench = compacted();
    for at in 0..=bench.disk.operations() {
        for crash in [Crash::Lost, Crash::Kept, Crash::Killed, Crash::Torn(at as u64)] {
            let story = format!("{crash:?} after {at}: {}", bench.disk.operation(at));
            let image = bench.disk.image(at, crash);
            let (wal, found) = Wal::open(image.crash(Crash::Killed), config()).unwrap();
            let Some(newest) = wal.kept().newest else { continue };
            let name = format!("snapshot-{:016x}-{:016x}", newest.index.0, newest.term.0);
            image.flip_bit(&name, 100, 0).unwrap();
            match Wal::open(image, config()) {
                Ok((again, _)) => assert_eq!(again.last(), wal.last(), "{story}"),
                Err(error) => panic!("{story}; then {newest} is damaged: {error}"),
            }
            assert_eq!(found.snapshot.map(|meta| meta.last), Some(newest), "{story}");
        }
    }
}

/// The disk thread of a process that was killed, started and killed again.
#[test]
fn restarts_in_between() {
    let mut bench = Bench::new();
    bench.append(1, 1..=3, 2000);
    for round in 0..4 {
        let (wal, found) = Wal::open(bench.disk.clone(), config()).unwrap();
        assert_eq!(found, bench.views.last().unwrap().2);
        bench.wal = wal;
        let index = 4 + 2 * round;
        bench.append(1 + round, index..=index + 1, 5000);
    }
    bench.crash_everywhere();
}
