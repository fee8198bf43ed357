//! How a node starts, and how it refuses to: one clear sentence, a code other
//! than 0, and nothing on the disk touched.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use clap::CommandFactory;
use raftcache::server::Flags;

use crate::cluster::{Cluster, Node, User, cached, contents, eventually};

/// Runs a node that is not expected to stay. If it does, it ends with this test.
fn run(mut command: Command) -> Output {
    let mut child = command
        .env("CACHED_EXIT_WITH_STDIN", "1")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("cached can be started");
    eventually("it ends", || {
        child.try_wait().map_err(|error| error.to_string())?.ok_or("it runs".to_owned())
    });
    child.wait_with_output().expect("it has ended")
}

/// The arguments of a node, a few of them replaced.
pub(super) fn like(node: &Node, id: &str, data_dir: &Path) -> Command {
    let mut command = cached();
    command.args(["--id", id, "--listen", &node.address]).arg("--data-dir").arg(data_dir);
    // That of the node itself may be in use.
    command.args(["--peer-listen", &node.peer_address.replace(":4", ":5")]);
    command
}

/// It ends with a code other than 0 and, below its log, one sentence with all
/// of these words.
pub(super) fn refuses(command: Command, words: &[&str]) {
    let output = run(command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    assert!(code.is_some_and(|code| code != 0), "{code:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    let last = stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("cached: "), "{stderr}");
    for word in words {
        assert!(last.contains(word), "{word}: {stderr}");
    }
}

/// A node with some data, that has ended; what its directory holds.
fn stopped() -> (Cluster, Vec<(std::path::PathBuf, Vec<u8>)>) {
    let mut cluster = Cluster::one(&["--segment-bytes", "65536"]);
    let mut user = cluster.user();
    user.set("first", "the needle in this haystack").expect("a write");
    for number in 0..50 {
        user.set(&format!("key {number}"), "value").expect("a write");
    }
    assert!(cluster.nodes[0].sigterm().success());
    let before = contents(&cluster.nodes[0].data_dir);
    (cluster, before)
}

#[test]
fn an_address_in_use() {
    let cluster = Cluster::one(&[]);
    let node = &cluster.nodes[0];
    let dir = cluster.dir.path().join("another");
    refuses(like(node, "another", &dir), &["cannot listen", &node.address, "in use"]);
    assert!(!dir.exists(), "nothing was touched");
}

#[test]
fn a_directory_in_use() {
    let mut cluster = Cluster::one(&[]);
    let second = cluster.add();
    let (first, second) = (&cluster.nodes[0], &cluster.nodes[second]);
    refuses(like(second, &first.name, &first.data_dir), &["in use by another process", "node1"]);
    cluster.user().set("a", "b").expect("the one that runs is not disturbed");
}

#[test]
fn a_directory_of_another_node() {
    let (cluster, before) = stopped();
    let node = &cluster.nodes[0];
    refuses(like(node, "node2", &node.data_dir), &["node1", "node2", "right directory"]);
    assert!(contents(&node.data_dir) == before, "nothing was touched");
}

#[test]
fn a_directory_that_cannot_be_one() {
    let mut cluster = Cluster::one(&[]);
    let second = cluster.add();
    let file = cluster.dir.path().join("file");
    fs::write(&file, "text").expect("a file");
    let words = ["data directory", "file", "not a directory"];
    refuses(like(&cluster.nodes[second], "node2", &file), &words);
    refuses(like(&cluster.nodes[second], "node2", &file.join("below")), &words);
    assert_eq!(fs::read(&file).expect("a file"), b"text");
}

/// One bit of an acknowledged write is wrong: the node does not guess.
#[test]
fn a_damaged_journal() {
    let (cluster, _) = stopped();
    let node = &cluster.nodes[0];
    let needle = b"the needle in this haystack";
    let damaged = contents(&node.data_dir).into_iter().find_map(|(path, content)| {
        let at = content.windows(needle.len()).position(|bytes| bytes == needle)?;
        Some((path, content, at))
    });
    let (path, mut content, at) = damaged.expect("the journal holds the value");
    content[at] ^= 1;
    fs::write(&path, &content).expect("the journal can be written");
    let before = contents(&node.data_dir);
    let file = path.file_name().expect("a name").to_string_lossy().into_owned();
    let command = || like(node, &node.name, &node.data_dir);
    refuses(command(), &["damaged", &file, "refusing to guess", "--rebuild"]);
    assert!(contents(&node.data_dir) == before, "nothing was touched");
    refuses(command(), &["damaged"]);
}

/// Whose data this is cannot be known any more. Neither does the node begin anew
/// beside it, nor does it ask to be taken in: the cluster would drop the member
/// that it was.
#[test]
fn an_identity_that_is_gone() {
    let (cluster, _) = stopped();
    let node = &cluster.nodes[0];
    fs::remove_file(node.data_dir.join("identity")).expect("it can be removed");
    let before = contents(&node.data_dir);
    let command = || like(node, &node.name, &node.data_dir);
    refuses(command(), &["journal-", "no node's identity", "--rebuild"]);
    let mut joins = command();
    joins.args(["--join", &node.address]);
    refuses(joins, &["journal-", "no node's identity", "--rebuild"]);
    assert!(contents(&node.data_dir) == before, "nothing was touched");
    // Nor does it move in where somebody else lives.
    let other = cluster.dir.path().join("other");
    fs::create_dir(&other).expect("a directory");
    fs::write(other.join("main.rs"), "fn main() {}").expect("a file");
    let before = contents(&other);
    refuses(like(node, &node.name, &other), &["main.rs", "empty directory"]);
    assert!(contents(&other) == before, "not even a lock is left there");
}

/// The rest of the directory is there, and so the node has been somebody: it
/// does not begin anew with an empty journal.
#[test]
fn a_journal_that_is_gone() {
    let (cluster, _) = stopped();
    let node = &cluster.nodes[0];
    for (path, _) in contents(&node.data_dir) {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.starts_with("journal-") {
            fs::remove_file(&path).expect("it can be removed");
        }
    }
    let before = contents(&node.data_dir);
    refuses(like(node, &node.name, &node.data_dir), &["--rebuild"]);
    assert!(contents(&node.data_dir) == before, "nothing was touched");
}

/// Wrong flags are named, in the words of the parser or in ours.
#[test]
fn wrong_flags() {
    let dir = tempfile::tempdir().expect("a directory");
    for flags in [
        &["--frobnicate"][..],
        &["--listen", "nonsense"],
        &["--id", ""],
        &["--read-mode", "guess"],
        &["--request-timeout-ms", "soon"],
        &["--max-memory-bytes", "all"],
        &["--segment-bytes", "1"],
        &["--log-level", "loud"],
        &["--join", ""],
    ] {
        let mut command = cached();
        command.arg("--data-dir").arg(dir.path().join("data")).args(flags);
        let output = run(command);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code().is_some_and(|code| code != 0), "{flags:?}: {stderr}");
        assert!(stderr.contains(flags[0]), "{flags:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{flags:?}: {stderr}");
    }
    assert!(!dir.path().join("data").exists(), "nothing was touched");
}

#[test]
fn the_help_names_every_flag() {
    let mut command = cached();
    command.arg("--help");
    let output = run(command);
    assert!(output.status.success());
    let help = String::from_utf8_lossy(&output.stdout);
    let mut flags = 0;
    for argument in Flags::command().get_arguments() {
        let Some(long) = argument.get_long() else { continue };
        assert!(help.contains(&format!("--{long}")), "--{long}");
        if matches!(long, "help" | "version") {
            continue;
        }
        let variable = format!("CACHED_{}", long.replace('-', "_").to_uppercase());
        assert!(help.contains(&variable), "{variable}");
        assert!(argument.get_help().is_some(), "--{long} says what it is for");
        flags += 1;
    }
    assert!(flags >= 9, "only {flags} flags");
}

/// Every flag can be said by the environment; a flag goes first.
#[test]
fn the_environment_says_what_flags_do_not() {
    let mut cluster = Cluster::one(&[]);
    let node = cluster.add();
    let (address, data_dir) =
        (cluster.nodes[node].address.clone(), cluster.nodes[node].data_dir.clone());
    let mut command = cached();
    command
        .env("CACHED_EXIT_WITH_STDIN", "1")
        .env("CACHED_ID", "from-the-environment")
        .env("CACHED_LISTEN", &address)
        .env("CACHED_PEER_LISTEN", &cluster.nodes[node].peer_address)
        .env("CACHED_DATA_DIR", "overruled")
        .env("CACHED_MAX_MEMORY_BYTES", "12345678")
        // As good as not set.
        .env("CACHED_JOIN", "")
        .env("CACHED_REQUEST_TIMEOUT_MS", "")
        .arg("--data-dir")
        .arg(&data_dir)
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null());
    let mut child = command.spawn().expect("cached can be started");
    let status =
        eventually("it serves", || User::new([&address]).status().map_err(|e| e.to_string()));
    assert_eq!(status.name, "from-the-environment");
    assert_eq!(status.memory_limit_bytes, 12_345_678);
    assert!(data_dir.exists());
    // What the harness relies on: it ends when nobody holds its standard input.
    drop(child.stdin.take());
    child.wait().expect("it ends");
}
