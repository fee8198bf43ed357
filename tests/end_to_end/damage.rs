//! A disk that is not what it was. The node says so and touches nothing; rebuilt
//! from its peers it is a member like any other, under a new identity.

use std::fs;
use std::path::Path;

use raftcache::request::Consistency;

use super::many_nodes::all_agree;
use super::start::{like, refuses};
use crate::cluster::churn::{COMPACTING, Data};
use crate::cluster::load::Load;
use crate::cluster::{Cluster, Node, contents, eventually};

/// Enough for several segments and snapshots.
const SOME: Data = Data { name: "some", keys: 10_000, value_bytes: 60 };

/// Three nodes with compacted logs.
fn compacted() -> Cluster {
    let cluster = Cluster::of(3, &COMPACTING);
    let mut user = cluster.user();
    eventually("every log is compacted", || {
        SOME.write(&mut user, 7);
        let is_compacted = |node: &Node| {
            node.is_compacted() && node.snapshots().len() == 2 && node.files("journal-0").len() >= 3
        };
        match cluster.nodes.iter().all(is_compacted) {
            true => Ok(()),
            false => Err("not yet".to_owned()),
        }
    });
    cluster
}

/// Sets a node's directory to what it held before.
fn restore(dir: &Path, files: &[(std::path::PathBuf, Vec<u8>)]) {
    fs::remove_dir_all(dir).expect("it can be removed");
    fs::create_dir(dir).expect("it can be made");
    for (path, content) in files {
        fs::write(path, content).expect("it can be written");
    }
}

/// Offsets inside the values of a segment's batches that are marked as synced
/// (`wal::mark`). Of what is behind them a restart cannot tell damage from a write
/// that a crash has torn, and what is between batches matters to nobody.
fn marked_values(content: &[u8]) -> Vec<usize> {
    let end_of = |slot: usize| match content[slot..].starts_with(b"RMRK") {
        true => u64::from_le_bytes(content[slot + 24..slot + 32].try_into().expect("8 bytes")),
        false => 0,
    };
    let end = end_of(4096).max(end_of(8192)) as usize;
    let dots = |&at: &usize| content[at..at + 8].iter().all(|&byte| byte == b'.');
    (0..end.saturating_sub(8)).filter(dots).collect()
}

/// Everything that can happen to files, one after the other, and what is said.
/// The damage done last is left there.
#[test]
fn a_damaged_node_refuses_and_is_rebuilt_while_the_others_serve() {
    let mut cluster = compacted();
    let follower = (cluster.wait_leader() + 1) % 3;
    cluster.wait_caught_up();
    cluster.nodes[follower].kill9();
    let node = &cluster.nodes[follower];
    let dir = node.data_dir.clone();
    let whole = contents(&dir);
    let journal: Vec<_> = node.files("journal-0").into_iter().map(|(name, _)| name).collect();
    let snapshots: Vec<_> = node.snapshots().into_iter().map(|(name, _)| name).collect();
    let command = || like(node, &node.name, &node.data_dir);
    let read = |name: &String| fs::read(dir.join(name)).expect("it can be read");
    let is_refused = |what: &str, file: &str| {
        println!("{what} {file}");
        let damaged = contents(&dir);
        refuses(command(), &["damaged", file, "refusing to guess", "cached --rebuild --join"]);
        assert!(contents(&dir) == damaged, "{what}: something was touched");
        refuses(command(), &["damaged", file]);
        restore(&dir, &whole);
    };

    let has_marked = |name: &&String| !marked_values(&read(name)).is_empty();
    let newest = journal.iter().rev().find(has_marked).expect("closed segments are marked");
    for segment in [&journal[0], newest] {
        let mut content = read(segment);
        let values = marked_values(&content);
        content[values[values.len() / 2]] ^= 0x10;
        fs::write(dir.join(segment), &content).expect("it can be written");
        is_refused("a flipped bit", segment);
    }

    let mut content = read(&journal[0]);
    content[3 * 4096..4 * 4096].fill(0);
    fs::write(dir.join(&journal[0]), &content).expect("it can be written");
    is_refused("a page of zeros", &journal[0]);

    fs::remove_file(dir.join(&journal[1])).expect("it can be removed");
    is_refused("a segment in the middle is gone", &journal[1]);

    for name in &journal {
        fs::remove_file(dir.join(name)).expect("it can be removed");
    }
    is_refused("all segments are gone", "journal-");

    for name in &snapshots {
        fs::write(dir.join(name), &read(name)[..4000]).expect("it can be written");
    }
    is_refused("both snapshots are cut off", "snapshot-");

    for name in &snapshots {
        fs::remove_file(dir.join(name)).expect("it can be removed");
    }
    is_refused("both snapshots are gone", "snapshot-");

    let segment = &journal[0];
    let mut content = read(segment);
    content[3 * 4096] ^= 1;
    fs::write(dir.join(segment), &content).expect("it can be written");
    let load = Load::start(&cluster, "load", 4);
    load.wait_for(50);
    cluster.rebuild(follower);
    load.wait_for(50);
    let written = load.stop();
    all_agree(&cluster, &written);
    cluster.hashes_agree();
    SOME.verify(&mut cluster.nodes[follower].user(), 7, Consistency::Stale);
    survives_the_loss_of_any_one(&mut cluster);
}

fn survives_the_loss_of_any_one(cluster: &mut Cluster) {
    for lost in 0..cluster.nodes.len() {
        cluster.nodes[lost].kill9();
        let mut user = cluster.user_from(lost + 1);
        SOME.write(&mut user, 100 + lost as u64);
        SOME.verify(&mut user, 100 + lost as u64, Consistency::Linearizable);
        cluster.nodes[lost].start();
        cluster.wait_serving(lost);
        cluster.wait_leader();
        cluster.wait_caught_up();
        SOME.verify(&mut cluster.nodes[lost].user(), 100 + lost as u64, Consistency::Stale);
    }
}

/// Until no snapshot is under way, nor one that has its name and is not in the
/// journal yet: such a one is forgotten at the next start, whatever it holds.
fn settle(node: &Node) {
    eventually("no snapshot is under way", || {
        let log = node.log();
        let life = log.rsplit("serving on").next().unwrap_or_default();
        let (taken, written) =
            (life.matches("takes a snapshot at").count(), life.matches(" bytes").count());
        let snapshots = node.snapshots().len();
        match taken == written && snapshots == 2 {
            true => Ok(()),
            false => Err(format!("{taken} begun, {written} written, {snapshots} there")),
        }
    });
}

/// What was acknowledged last, and the vote, may have been in it.
#[test]
fn the_newest_segment_is_gone() {
    let mut cluster = compacted();
    let follower = (cluster.wait_leader() + 1) % 3;
    cluster.nodes[follower].kill9();
    let node = &cluster.nodes[follower];
    let (name, _) = node.files("journal-0").pop().expect("a segment");
    fs::remove_file(node.data_dir.join(&name)).expect("it can be removed");
    let damaged = contents(&node.data_dir);
    let command = like(node, &node.name, &node.data_dir);
    refuses(command, &["damaged", &name, "cached --rebuild --join"]);
    assert!(contents(&node.data_dir) == damaged, "something was touched");
}

/// The log makes up for the newest snapshot, as long as the one before is there.
#[test]
fn one_of_two_snapshots_is_enough() {
    let mut cluster = compacted();
    let follower = (cluster.wait_leader() + 1) % 3;
    for take_away in [true, false] {
        settle(&cluster.nodes[follower]);
        cluster.nodes[follower].kill9();
        let node = &cluster.nodes[follower];
        let (name, bytes) = node.snapshots().pop().expect("a snapshot");
        let path = node.data_dir.join(&name);
        if take_away {
            fs::remove_file(path).expect("it can be removed");
        } else {
            let file = fs::File::options().write(true).open(path).expect("it can be opened");
            file.set_len(bytes / 2).expect("it can be cut off");
        }
        cluster.nodes[follower].start();
        cluster.wait_serving(follower);
        cluster.wait_leader();
        cluster.wait_caught_up();
        cluster.hashes_agree();
        let said = |line: &str| line.contains("damaged") && line.contains(&name);
        assert!(cluster.nodes[follower].log().lines().any(said), "{name}: it says so");
        SOME.verify(&mut cluster.nodes[follower].user(), 7, Consistency::Stale);
        // A second one again, for the next time.
        eventually("the log is compacted anew", || {
            SOME.write(&mut cluster.user(), 7);
            match cluster.nodes[follower].snapshots().len() {
                2 => Ok(()),
                few => Err(format!("{few} snapshots")),
            }
        });
    }
}
