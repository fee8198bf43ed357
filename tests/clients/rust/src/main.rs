//! Runs one client: clients MODULE check HOST PORT, or MODULE failover HOST PORT LEADER.
//!
//! A module has what those of Python have (main.py): check, and connect, which
//! gives a [`Store`].

mod fred_rs;
mod redis_rs;

use std::error::Error;
use std::process::{self, Command};
use std::time::{Duration, Instant};

/// Longest that a cluster may take to answer again: only a broken one does.
const PATIENCE: Duration = Duration::from_secs(30);
const WRITES: usize = 100;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Writes and reads texts through a library.
trait Store {
    /// Is well only if the write was acknowledged.
    async fn write(&mut self, key: &str, value: &str) -> Outcome;
    async fn read(&mut self, key: &str) -> Outcome<Option<String>>;
}

/// Until it succeeds.
async fn patiently<T>(mut call: impl AsyncFnMut() -> Outcome<T>) -> Outcome<T> {
    let start = Instant::now();
    loop {
        match call().await {
            Err(_) if start.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(10)).await
            }
            outcome => return outcome,
        }
    }
}

/// Kills the leader's process while writing through another node.
async fn failover(mut store: impl Store, leader: &str) -> Outcome {
    let key = |n| format!("failover:{}:{n}", process::id());
    let value = |n| format!("value {n}");
    for n in 0..2 * WRITES {
        let start = Instant::now();
        if n == WRITES {
            assert!(Command::new("kill").args(["-KILL", leader]).status()?.success());
        }
        patiently(async || store.write(&key(n), &value(n)).await).await?;
        if n == WRITES {
            print!("answers again after {:.2} s, ", start.elapsed().as_secs_f64());
        }
    }
    for n in 0..2 * WRITES {
        let found = patiently(async || store.read(&key(n)).await).await?;
        assert_eq!(found, Some(value(n)), "acknowledged");
    }
    println!("{} writes are there", 2 * WRITES);
    Ok(())
}

/// Prints which version of a library this is, as the lock file has it.
fn tell(library: &str) -> Outcome {
    let locked = include_str!("../Cargo.lock");
    let entry = format!("name = \"{library}\"\nversion = ");
    let version = locked.split(&entry).nth(1).and_then(|rest| rest.lines().next());
    println!("{library} {}", version.ok_or("not in the lock file")?.trim_matches('"'));
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["redis", "check", host, port] => redis_rs::check(host, port.parse()?).await?,
        ["fred", "check", host, port] => fred_rs::check(host, port.parse()?).await?,
        ["redis", "failover", host, port, leader] => {
            return failover(redis_rs::connect(host, port.parse()?).await?, leader).await;
        }
        ["fred", "failover", host, port, leader] => {
            return failover(fred_rs::connect(host, port.parse()?).await?, leader).await;
        }
        _ => return Err("MODULE check HOST PORT, or MODULE failover HOST PORT LEADER".into()),
    }
    tell(&arguments[0])
}
