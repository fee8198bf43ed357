//! Redis itself beside ours: the same commands, the same replies.
//!
//! A `redis-server` of the machine, if there is one, and a follower of three nodes
//! get the same random streams of commands, sensible and senseless, in pipelines.
//! Every reply has to be the same to the byte, but for what is listed as
//! [deviations](is_as_good). `COMMANDS=200000` makes the streams longer.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

#[expect(dead_code, reason = "the tests of the whole use the rest")]
mod cluster;
#[path = "redis/scripts.rs"]
mod scripts;
#[path = "redis/stream.rs"]
mod stream;
#[expect(dead_code, reason = "the tests of the whole use the rest")]
#[path = "redis/wire.rs"]
mod wire;

use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use cluster::{Cluster, eventually};
use stream::Stream;
use wire::{Reply, Wire, command};

/// Commands before it begins anew, with empty databases.
const STREAM: u64 = 2000;

/// A `redis-server` of its own, without a disk.
struct Redis {
    process: Child,
    address: String,
}

impl Redis {
    /// `None` where there is none.
    fn start() -> Option<Self> {
        // Free a moment ago; another test that takes it makes the start fail.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            // As long as our values.
            .args(["--proto-max-bulk-len", "16777216"])
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        let redis = Self { process, address: format!("127.0.0.1:{port}") };
        eventually("redis-server answers", || {
            std::net::TcpStream::connect(&redis.address).map_err(|error| error.to_string())
        });
        Some(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether our reply is as good as that of Redis 7: the same, or one of these.
fn is_as_good(words: &[Vec<u8>], ours: &Reply, theirs: &Reply) -> bool {
    if ours == theirs {
        return true;
    }
    let name = String::from_utf8_lossy(&words[0]).to_uppercase();
    match (name.as_str(), ours, theirs) {
        // Both count from their own now.
        ("TTL" | "EXPIRETIME", ..) => is_near(ours, theirs, 2),
        ("PTTL" | "PEXPIRETIME", ..) => is_near(ours, theirs, 2000),
        // Ours has a limit of its own.
        ("LCS", Reply::Line(b'-', ours), _) if ours.starts_with(b"ERR the product of both") => true,
        // What is quoted and no text: Redis shows its bytes up to a zero, we U+FFFD.
        (_, Reply::Line(b'-', ours), Reply::Line(b'-', theirs)) => {
            let fits = |(ours, theirs): (&u8, &u8)| ours == theirs;
            let same = ours.iter().zip(theirs).take_while(|pair| fits(*pair)).count();
            ours.starts_with(b"ERR ") && same > 20 && !theirs[same..].is_ascii()
        }
        // What was slow is another matter.
        ("SLOWLOG" | "LATENCY", Reply::Many(..), Reply::Many(..)) => true,
        // Of all settings, each has its own.
        ("CONFIG", Reply::Many(..), Reply::Many(..)) => words[2].contains(&b'*'),
        // These are about the server, the place of things in it, or drawn.
        (
            "CLIENT" | "COMMAND" | "INFO" | "LOLWUT" | "MEMORY" | "OBJECT" | "RANDOMKEY" | "ROLE"
            | "TIME",
            ..,
        ) => is_alike(ours, theirs),
        ("SCAN", Reply::Many(_, ours), Reply::Many(_, theirs)) => match (&ours[..], &theirs[..]) {
            ([ours, Reply::Many(_, names)], [theirs, Reply::Many(_, others)]) => {
                ours == theirs && sorted(names) == sorted(others)
            }
            _ => false,
        },
        // Keys are in no order.
        ("KEYS", Reply::Many(_, ours), Reply::Many(_, theirs)) => sorted(ours) == sorted(theirs),
        _ => false,
    }
}

/// Whether both are of one kind, and something or nothing.
fn is_alike(ours: &Reply, theirs: &Reply) -> bool {
    match (ours, theirs) {
        (Reply::Line(b'-', _), _) | (_, Reply::Line(b'-', _)) => false,
        (Reply::Line(ours, _), Reply::Line(theirs, _))
        | (Reply::Bulk(ours, _), Reply::Bulk(theirs, _))
        | (Reply::Many(ours, _), Reply::Many(theirs, _)) => ours == theirs,
        _ => false,
    }
}

fn is_near(ours: &Reply, theirs: &Reply, within: i64) -> bool {
    match (ours.integer(), theirs.integer()) {
        (Some(ours), Some(theirs)) if ours > within => (ours - theirs).abs() <= within,
        _ => false,
    }
}

fn sorted(replies: &[Reply]) -> Vec<String> {
    let mut texts: Vec<_> = replies.iter().map(Reply::text).collect();
    texts.sort();
    texts
}

/// The commands of a transaction, by which the replies within EXEC's are judged.
#[derive(Default)]
struct Queue(Vec<Vec<Vec<u8>>>);

impl Queue {
    fn judge(&mut self, words: &[Vec<u8>], ours: &Reply, theirs: &Reply) -> bool {
        let is_queued = |reply: &Reply| reply.text() == "+QUEUED";
        if is_queued(theirs) {
            self.0.push(words.to_vec());
            return is_queued(ours);
        }
        let is_word = |word: &str| words[0].eq_ignore_ascii_case(word.as_bytes());
        match (ours, theirs) {
            (Reply::Many(_, ours), Reply::Many(_, theirs)) if is_word("EXEC") => {
                let queued = std::mem::take(&mut self.0);
                ours.len() == theirs.len()
                    && queued.len() == ours.len()
                    && (queued.iter().zip(ours).zip(theirs)).all(|((w, o), t)| is_as_good(w, o, t))
            }
            _ => {
                let ends = ["EXEC", "DISCARD", "RESET"].into_iter().any(is_word);
                if ends && !theirs.text().starts_with("-ERR") {
                    self.0.clear();
                }
                is_as_good(words, ours, theirs)
            }
        }
    }
}

/// Whether a transaction was run by us and not by Redis: for it a key that was
/// watched while it was absent, and is absent again, may have changed.
fn is_watch_deviation(words: &[Vec<u8>], ours: &Reply, theirs: &Reply) -> bool {
    words[0].eq_ignore_ascii_case(b"EXEC")
        && matches!(ours, Reply::Many(..))
        && theirs.text() == "*-1"
}

/// One stream to both. Panics at the first reply that differs; false if it ended
/// early, because from there on what they hold is different.
fn compare(seed: u64, ours: &str, theirs: &str) -> bool {
    let (mut ours, mut theirs) = (Wire::to(ours), Wire::to(theirs));
    for wire in [&mut ours, &mut theirs] {
        assert_eq!(wire.ask(&["FLUSHALL"]).text(), "+OK");
    }
    let (mut stream, mut queue, mut before) = (Stream::new(seed), Queue::default(), Vec::new());
    for _ in 0..STREAM / 20 {
        let commands: Vec<_> = (0..20).map(|_| stream.next()).collect();
        let pipeline: Vec<u8> = commands.iter().flat_map(|words| command(words)).collect();
        ours.send(&pipeline);
        theirs.send(&pipeline);
        for words in commands {
            let (our, their) = (ours.receive(), theirs.receive());
            let shown: Vec<_> = words.iter().map(|word| word.escape_ascii().to_string()).collect();
            before.push(format!("{} -> {}", shown.join(" "), their.text()));
            if is_watch_deviation(&words, &our, &their) {
                return false;
            }
            if !queue.judge(&words, &our, &their) {
                let tail = before.len().saturating_sub(40);
                panic!("seed {seed}:\n{}\nours: {}", before[tail..].join("\n"), our.text());
            }
        }
    }
    true
}

#[test]
fn the_same_commands_get_the_same_replies() {
    let Some(redis) = Redis::start() else {
        let _ = writeln!(std::io::stderr(), "skipped: there is no redis-server");
        return;
    };
    let commands = std::env::var("COMMANDS").map_or(20_000, |count| count.parse().unwrap());
    let cluster = Cluster::of(3, &[]);
    let leader = cluster.wait_leader();
    let follower = (0..3).find(|&i| i != leader).unwrap();
    let ours = cluster.nodes[follower].address.clone();
    let first = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    let seeds = first..first + commands / STREAM;
    let whole = seeds.clone().filter(|&seed| compare(seed, &ours, &redis.address)).count();
    assert!(whole * 4 >= seeds.count() * 3, "only {whole} streams came to their end");
}

#[test]
fn scripts_that_are_known_do_what_they_say() {
    scripts::assert_complete();
    let Some(redis) = Redis::start() else {
        let _ = writeln!(std::io::stderr(), "skipped: there is no redis-server");
        return;
    };
    let cluster = Cluster::of(3, &[]);
    let leader = cluster.wait_leader();
    let follower = (0..3).find(|&i| i != leader).unwrap();
    scripts::compare(&cluster.nodes[follower].address, &redis.address);
}
