//! Files that change while nobody looks, at places drawn from a seed. A node
//! either says in one sentence that it refuses to start, or it starts and agrees
//! with the others; and it is rebuilt from them.

use std::fs;
use std::path::{Path, PathBuf};

use raftcache::request::Consistency;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::clients::{Clients, PATIENT, seed};
use crate::cluster::churn::{COMPACTING, Data};
use crate::cluster::{Cluster, Node, contents, eventually};
use crate::partitions::all_is_well;

/// Enough for several segments and snapshots.
const SOME: Data = Data { name: "some", keys: 4000, value_bytes: 100 };

/// A page of the file system.
const PAGE: usize = 4096;

/// Starts that are tried, and as many more until one is refused.
const ROUNDS: usize = 20;

/// Some damage to one of the files of a directory; what it was.
fn damage(files: &[(PathBuf, Vec<u8>)], chance: &mut Xoshiro256PlusPlus) -> String {
    let prefix = ["journal-0", "snapshot-"][chance.random_range(0..2)];
    let is_one = |path: &Path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    };
    let files: Vec<_> = files.iter().filter(|(path, _)| is_one(path)).collect();
    let (path, content) = files[chance.random_range(0..files.len())];
    let mut content = content.clone();
    let at = chance.random_range(0..content.len());
    let what = match chance.random_range(0..3) {
        0 => {
            content[at] ^= 1 << chance.random_range(0..8);
            "a flipped bit"
        }
        1 => {
            content.truncate(at);
            "cut off"
        }
        _ => {
            let page = at / PAGE * PAGE;
            let end = content.len().min(page + PAGE);
            content[page..end].fill(0);
            "a page of zeros"
        }
    };
    fs::write(path, &content).expect("it can be written");
    format!("{}: {what} at {at}", path.display())
}

fn restore(files: &[(PathBuf, Vec<u8>)]) {
    for (path, content) in files {
        fs::write(path, content).expect("it can be written");
    }
}

/// Starts a damaged node. Whether it refused; else it serves, and has what it is to have.
fn refuses(cluster: &mut Cluster, number: usize) -> bool {
    cluster.nodes[number].start();
    let status = eventually("it serves or has ended", || match cluster.nodes[number].has_ended() {
        Some(status) => Ok(Some(status)),
        None => match cluster.nodes[number].user().get("") {
            Ok(_) => Ok(None),
            Err(error) => Err(error.to_string()),
        },
    });
    let Some(status) = status else {
        cluster.wait_caught_up();
        SOME.verify(&mut cluster.nodes[number].user(), 0, Consistency::Stale);
        return false;
    };
    let log = cluster.nodes[number].log();
    let last = log.lines().last().unwrap_or_default();
    let words = ["damaged", "refusing to guess", "cached --rebuild --join"];
    assert!(status.code().is_some_and(|code| code != 0), "{status}: {last}");
    assert!(last.starts_with("cached: "), "{last}");
    assert!(words.iter().all(|word| last.contains(word)), "{last}");
    println!("    {last}");
    true
}

/// Three nodes with compacted logs.
fn compacted() -> Cluster {
    let cluster = Cluster::of(3, &[&PATIENT[..], &COMPACTING].concat());
    let mut user = cluster.user();
    eventually("every log is compacted", || {
        SOME.write(&mut user, 0);
        let is_compacted = |node: &Node| node.is_compacted() && node.snapshots().len() == 2;
        if cluster.nodes.iter().all(is_compacted) { Ok(()) } else { Err("not yet".to_owned()) }
    });
    cluster
}

/// One node of three, with any part in the cluster, is killed under load and
/// damaged. Whenever it starts nevertheless, it works on before it is killed
/// again; what it was is not put back, or it would forget what it has promised.
#[test]
fn random_damage_is_refused_or_does_no_harm() {
    let seed = seed();
    let mut chance = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut cluster = compacted();
    let clients = Clients::start(&cluster, seed);
    let damaged = chance.random_range(0..3);
    let kill = |cluster: &mut Cluster| {
        clients.wait_at(damaged, 20);
        cluster.nodes[damaged].kill9();
        contents(&cluster.nodes[damaged].data_dir)
    };
    let mut whole = kill(&mut cluster);
    let mut refused = 0;
    for round in 1.. {
        println!("{}", damage(&whole, &mut chance));
        let is_refused = refuses(&mut cluster, damaged);
        refused += usize::from(is_refused);
        match is_refused {
            true if round >= ROUNDS => break,
            true => restore(&whole),
            false => whole = kill(&mut cluster),
        }
    }
    println!("{refused} were refused");
    cluster.rebuild(damaged);
    all_is_well(&cluster, clients);
}
