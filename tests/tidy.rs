//! The rules of the house, kept by a test that explains itself.
//!
//! The pure layers take time, randomness and the disk as values; that is what
//! lets a whole cluster run from one seed. Nothing in the language stops a
//! `SystemTime::now()` from slipping in, so this reads the sources and does.

#![expect(clippy::unwrap_used, reason = "a failing test is what it is for")]

use std::fs;
use std::path::{Path, PathBuf};

/// Layers that must be functions of their inputs.
const PURE: [&str; 8] = [
    "src/encoding.rs",
    "src/request",
    "src/raft",
    "src/fsm",
    "src/wal",
    "src/replica",
    "src/protocol",
    "src/storage",
];

/// What may not be named there, and what to do instead.
const FORBIDDEN: [(&str, &str); 12] = [
    ("tokio", "only `server` and `client` may wait; return what is to be done as a value"),
    ("std::net", "sockets belong to `server`; take the bytes as a value"),
    ("std::fs", "go through the `Disk` seam; only `wal/disk.rs` implements it on files"),
    ("std::thread", "threads belong to `server`"),
    ("Instant::now", "take `now: Time` as a parameter; the driver reads the clock"),
    ("SystemTime::now", "take the wall clock as a value; the driver reads it"),
    ("rand::rng()", "use a generator seeded from `Config`"),
    ("thread_rng", "use a generator seeded from `Config`"),
    ("rand::random", "use a generator seeded from `Config`"),
    (
        "std::collections::HashMap",
        "its order differs from run to run; use BTreeMap, or hashbrown with a fixed hasher and no iteration",
    ),
    ("std::collections::HashSet", "its order differs from run to run; use BTreeSet"),
    ("RandomState", "hash with fixed keys, so that runs repeat"),
];

/// Who may import whom: each layer, and those of ours it may not name.
const LAYERS: [(&str, &[&str]); 9] = [
    (
        "src/mutants.rs",
        &[
            "encoding", "request", "raft", "fsm", "wal", "replica", "protocol", "storage",
            "server", "client",
        ],
    ),
    (
        "src/encoding.rs",
        &["request", "raft", "fsm", "wal", "replica", "protocol", "storage", "server", "client"],
    ),
    ("src/request", &["raft", "fsm", "wal", "replica", "protocol", "storage", "server", "client"]),
    ("src/raft", &["request", "fsm", "wal", "replica", "protocol", "storage", "server", "client"]),
    ("src/fsm", &["raft", "wal", "replica", "protocol", "storage", "server", "client"]),
    ("src/wal", &["request", "fsm", "replica", "protocol", "storage", "server", "client"]),
    ("src/replica", &["wal", "protocol", "storage", "server", "client"]),
    ("src/protocol", &["fsm", "wal", "storage", "server", "client"]),
    ("src/storage", &["protocol", "server", "client"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file at or below a path of the project.
fn sources(path: &str) -> Vec<PathBuf> {
    let path = root().join(path);
    if path.is_file() {
        return vec![path];
    }
    let mut found = Vec::new();
    let mut folders = vec![path];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The lines of code, without comments and without what follows `#[cfg(test)]`.
fn code(path: &Path) -> Vec<(usize, String)> {
    if path.file_name().is_some_and(|name| name == "tests.rs") {
        return Vec::new();
    }
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    lines
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]" || !is_last_item(&text))
        .map(|(i, line)| (i, line.split("//").next().unwrap_or_default().to_owned()))
        .collect()
}

/// Whether the first `#[cfg(test)]` begins the tests at the end of the file.
fn is_last_item(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("#[cfg(test)]\n") else { return false };
    rest.starts_with("mod tests {")
}

fn short(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

#[test]
fn pure_layers_are_functions_of_their_inputs() {
    let mut wrong = Vec::new();
    for file in PURE.iter().flat_map(|layer| sources(layer)) {
        for (line, text) in code(&file) {
            for (word, instead) in FORBIDDEN {
                let allowed = word == "std::fs" && short(&file) == "src/wal/disk.rs";
                if text.contains(word) && !allowed {
                    wrong.push(format!("{}:{line}: `{word}`: {instead}", short(&file)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn layers_import_only_what_lies_below() {
    let mut wrong = Vec::new();
    for (layer, others) in LAYERS {
        for file in sources(layer) {
            // Frames between nodes carry messages of consensus.
            let is_peer = short(&file).starts_with("src/protocol/peer");
            for (line, text) in code(&file) {
                for other in others {
                    if text.contains(&format!("crate::{other}")) && !is_peer {
                        let at = format!("{}:{line}", short(&file));
                        wrong
                            .push(format!("{at}: {layer} must not know `{other}`; see src/lib.rs"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn what_differs_from_system_to_system_is_in_one_file() {
    let mut wrong = Vec::new();
    for file in sources("src").iter().filter(|file| short(file) != "src/server/os.rs") {
        for (line, text) in code(file) {
            let names_a_system = ["unix", "windows", "target_"].iter().any(|s| text.contains(s));
            if text.contains("cfg") && names_a_system {
                wrong.push(format!("{}:{line}: belongs in src/server/os.rs", short(file)));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_file_opens_with_its_story() {
    let folders = ["src", "tools/cachecli", "tests"];
    let silent: Vec<String> = folders
        .iter()
        .flat_map(|folder| sources(folder))
        .filter(|file| !fs::read_to_string(file).unwrap().starts_with("//!"))
        .map(|file| {
            format!("{}: begin with `//!`: what it is, the idea, the pitfalls", short(&file))
        })
        .collect();
    assert!(silent.is_empty(), "\n{}\n", silent.join("\n"));
}

#[test]
fn no_file_holds_two_ideas() {
    const LIMIT: usize = 500;
    let long: Vec<String> = sources("src")
        .iter()
        .map(|file| (short(file), code(file).len()))
        .filter(|&(_, lines)| lines > LIMIT)
        .map(|(file, lines)| format!("{file}: {lines} lines without tests; {LIMIT} is plenty"))
        .collect();
    assert!(long.is_empty(), "\n{}\n", long.join("\n"));
}

#[test]
fn lints_are_switched_off_only_with_a_reason() {
    let mut wrong = Vec::new();
    for file in ["src", "tools/cachecli", "tests"].iter().flat_map(|folder| sources(folder)) {
        if short(&file) == "tests/tidy.rs" {
            continue;
        }
        for (i, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            if line.trim_start().starts_with("#[allow(")
                || line.trim_start().starts_with("#![allow(")
            {
                let at = format!("{}:{}", short(&file), i + 1);
                wrong.push(format!("{at}: use `#[expect(…, reason = \"…\")]`"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
