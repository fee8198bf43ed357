//! How long a commit takes on the real disk of this machine. Not a check:
//!
//! ```text
//! cargo test --release --test wal_latency -- --ignored --nocapture
//! ```
//!
//! Put `TMPDIR` on the disk to be measured.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftcache::raft::*;
use raftcache::wal::{Config, StdDisk, Wal};

const ROUNDS: u64 = 2000;

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: usize| times[times.len() * part / 100];
    println!("{what:<44} median {:>9.1?}  p99 {:>9.1?}", at(50), at(99));
}

fn timed(mut act: impl FnMut(u64)) -> Vec<Duration> {
    (1..=ROUNDS)
        .map(|round| {
            let start = Instant::now();
            act(round);
            start.elapsed()
        })
        .collect()
}

fn write(index: u64) -> Write {
    let payload = Payload::Command(Bytes::from(vec![7; 1024]));
    let entries = vec![Entry { id: EntryId::new(1, index), payload }];
    let hard_state = HardState { term: Term(1), vote: None, commit: Index(index - 1) };
    Write { seq: WriteSeq(index), hard_state, base: None, entries }
}

#[test]
#[ignore = "a measurement of this machine's disk"]
fn commits_of_1_kib() {
    let temp = tempfile::tempdir().unwrap();
    let config = Config { create: true, ..Config::new(NodeId(1), ClusterId(1)) };
    let disk = StdDisk::open(temp.path().join("wal")).unwrap();
    let (mut wal, _) = Wal::open(disk, config).unwrap();
    while wal.idle().unwrap() {}
    let times = timed(|index| {
        wal.commit(&[write(index)]).unwrap();
    });
    report("commit, batch and mark (two dirty pages)", times);

    let times = timed(|round| {
        wal.commit(&[write(ROUNDS + 2 * round - 1), write(ROUNDS + 2 * round)]).unwrap();
        while wal.idle().unwrap() {}
    });
    report("commit of two, then idle (two syncs)", times);

    let path = temp.path().join("plain");
    fs::write(&path, vec![0; (ROUNDS as usize + 1) * 4096]).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.sync_all().unwrap();
    let times = timed(|round| {
        file.write_all_at(&[7; 4096], round * 4096).unwrap();
        file.sync_data().unwrap();
    });
    report("bare write and sync, pre-written file", times);

    let times = timed(|round| {
        file.write_all_at(&[8; 4096], round * 4096).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(&[9; 4096], 0).unwrap();
    });
    report("the same and a second dirty page", times);

    let file = File::create(temp.path().join("growing")).unwrap();
    let times = timed(|round| {
        file.write_all_at(&[7; 4096], (round - 1) * 4096).unwrap();
        file.sync_data().unwrap();
    });
    report("bare write and sync, growing file", times);
}
