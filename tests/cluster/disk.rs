//! Disks that can be filled up. Each is a small one in memory, in a mount
//! namespace of its own, which needs no privileges where the system lets users
//! have one; where it does not, tests say so and pass.
//!
//! A process that does nothing keeps the namespace, so what is on the disk
//! outlives the node that is killed. It ends with the test, however that ends.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Cluster, Node};

/// Whether a node can be given a disk of its own.
pub fn is_permitted() -> bool {
    let dir = tempfile::tempdir().expect("a directory");
    let permitted = Disk::at(dir.path(), "1m").is_some_and(|disk| {
        let inside = disk.inside(&Command::new("true")).stderr(Stdio::null()).status();
        inside.is_ok_and(|status| status.success())
    });
    if !permitted {
        println!("skipped: no mount namespace may be made here");
    }
    permitted
}

/// A disk and the process that keeps it.
pub struct Disk {
    dir: PathBuf,
    keeper: Child,
}

impl Disk {
    /// A new one at this directory, so large as `mount` is told, if it may be.
    fn at(dir: &Path, size: &str) -> Option<Self> {
        let script = r#"mount -t tmpfs -o size="$1" tmpfs "$2" && echo mounted && exec cat"#;
        let mut keeper = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", size])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut said = String::new();
        let stdout = keeper.stdout.take().expect("it is a pipe");
        let read = BufReader::new(stdout).read_line(&mut said);
        let disk = Self { dir: dir.to_owned(), keeper };
        (read.is_ok() && said == "mounted\n").then_some(disk)
    }

    /// The same command, run where the disk is.
    pub fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(["--target", &self.keeper.id().to_string()]);
        inside.args(["--user", "--mount", "--preserve-credentials"]);
        inside.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    /// A file on it, as it is seen from here.
    fn filler(&self) -> PathBuf {
        let dir = self.dir.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.keeper.id())).join(dir).join("filler")
    }

    /// Takes all the room there is.
    pub fn fill(&self) {
        let mut file = File::create(self.filler()).expect("a file");
        let block = [0; 4096];
        while file.write_all(&block).is_ok() {}
    }

    /// Gives it back.
    pub fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("it can be removed");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // `cat` ends with its input, and so does a shell that never came so far.
        drop(self.keeper.stdin.take());
        self.keeper.wait().expect("it has ended");
    }
}

impl Node {
    /// The disk of its own that it was given.
    pub fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("it has a disk of its own")
    }
}

impl Cluster {
    /// A voter for each of these disks, or for none, under one leader.
    pub fn on_disks(sizes: &[Option<&str>], flags: &[&str]) -> Self {
        let mut cluster = Self::empty(flags);
        for (number, size) in sizes.iter().enumerate() {
            let node = if number == 0 { cluster.add() } else { cluster.add_joining() };
            let node = &mut cluster.nodes[node];
            std::fs::create_dir_all(&node.data_dir).expect("a directory");
            node.disk = size.map(|size| Disk::at(&node.data_dir, size).expect("it is permitted"));
            node.start();
            cluster.wait_serving(number);
            cluster.wait_voter(number);
        }
        cluster
    }
}
