//! What the scripts under `tools` decide before they start a node.
//!
//! That they start and stop whole clusters is shown by `make demo`.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs a few lines of bash as the scripts do, for so many nodes with their data here.
fn bash(nodes: &str, data: &Path, lines: &str) -> Output {
    let mut command = Command::new("bash");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env("NODES", nodes).env("DATA", data);
    command.env("HOST", "127.0.0.1").env("PORT_BASE", "3001").env("PEER_BASE", "4001");
    command.env("CACHED", "cached").env("CACHECLI", "cachecli");
    let lines = format!("set -euo pipefail; source tools/nodes.sh; {lines}");
    command.args(["-c", &lines]).output().unwrap()
}

/// The flags that a node is started with.
fn flags(node: usize, nodes: &str, data: &Path) -> String {
    let output = bash(nodes, data, &format!("flags_of {node}; echo \"${{flags[*]}}\""));
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// [Its data was lost: without --join it founds a second cluster, and clients
/// that begin with the first address find nothing.]
#[test]
fn the_first_node_joins_if_only_its_own_data_is_gone() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("my data");
    let first = |nodes| flags(1, nodes, &data);
    let member = |number: usize| {
        let dir = data.join(format!("node{number}"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("journal-0000000000000001"), "").unwrap();
    };
    assert!(!first("3").contains("--join"), "the very first start");
    // It was started before the first node, and waits to be taken in.
    fs::create_dir_all(data.join("node2")).unwrap();
    fs::write(data.join("node2/identity"), "").unwrap();
    assert!(!first("3").contains("--join"), "or nobody would ever begin");
    member(2);
    assert!(first("3").ends_with("--join 127.0.0.1:3002,127.0.0.1:3003\n"));
    // Begun to join, and not taken in yet.
    fs::create_dir_all(data.join("node1")).unwrap();
    fs::write(data.join("node1/identity"), "").unwrap();
    assert!(first("3").contains("--join"));
    assert!(!first("1").contains("--join"), "there is nobody to be joined");
    member(1);
    assert!(!first("3").contains("--join"), "it is what it is");
    assert!(flags(2, "3", &data).ends_with("--join 127.0.0.1:3001,127.0.0.1:3003\n"));
}

#[test]
fn a_cluster_has_a_node() {
    for wrong in ["0", "-1", "three", "1 2"] {
        let output = bash(wrong, Path::new("data"), "echo begun");
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with(&format!("NODES={wrong}: ")), "{stderr}");
    }
}

/// What a hint repeats is what makes the command the right one.
#[test]
fn hints_repeat_what_make_was_told() {
    let mut make = Command::new("make");
    make.current_dir(env!("CARGO_MANIFEST_DIR"));
    // It may be `make check` that runs this.
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    make.args(["--no-print-directory", "--dry-run", "node5", "NODES=5", "PORT_BASE=5001"]);
    let output = make.output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let line = stdout.lines().last().unwrap();
    let (_, said) = line.split_once("OVERRIDES='").unwrap();
    let (said, script) = said.split_once("' ").unwrap();
    let mut said: Vec<_> = said.split(' ').collect();
    said.sort_unstable();
    assert_eq!((said, script), (vec!["NODES=5", "PORT_BASE=5001"], "bash tools/node.sh 5"));
}
