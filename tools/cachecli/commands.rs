//! The commands: each asks the cluster and shows the answer.

use std::io::{IsTerminal, Read};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use raftcache::client::{Client, Error, SetOutcome};
use raftcache::request::{
    Answer, Batch, Command as Operation, Condition, Consistency, Expiry, Item, Key, Ttl,
};
use serde_json::{Value, json};

use crate::args::{Command, Options, Output};
use crate::output::{Shown, item_json};
use crate::{bench, seed, status};

/// Why a command did not do what it says.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no such key.
    #[error("no such key: {0}")]
    Missing(String),
    /// What was typed cannot be meant.
    #[error("{0}")]
    Usage(String),
    /// A condition did not hold.
    #[error("{0}")]
    Condition(String),
    /// The cluster, or the way to it.
    #[error(transparent)]
    Client(#[from] Error),
}

impl Failure {
    /// The exit code, as `--help` lists them.
    fn exit(&self) -> u8 {
        match self {
            Self::Missing(_) => 1,
            Self::Usage(_) => 2,
            Self::Client(Error::Unreachable(_)) => 3,
            Self::Condition(_) | Self::Client(Error::Refused(..) | Error::Failed(_)) => 4,
            Self::Client(Error::Unknown(_)) => 5,
        }
    }

    /// One word for programs.
    fn word(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::Usage(_) => "usage",
            Self::Condition(_) => "condition",
            Self::Client(error) => word_of(error),
        }
    }

    /// Says so on standard error; in JSON on standard output, where programs read.
    pub fn print(&self, output: Output) -> ExitCode {
        if output == Output::Json {
            println!("{}", json!({ "error": self.word(), "message": self.to_string() }));
        } else {
            eprintln!("cachecli: {self}");
        }
        self.exit().into()
    }
}

/// One word for each kind of error of the client.
pub fn word_of(error: &Error) -> &'static str {
    match error {
        Error::Unreachable(_) => "unreachable",
        Error::Unknown(_) => "unknown",
        Error::Failed(_) => "failed",
        Error::Refused(kind, _) => kind.name(),
    }
}

/// A command's result.
pub type Outcome = Result<Shown, Failure>;

/// One connection to the cluster, for one command or for a whole prompt.
pub struct Session {
    pub options: Options,
    pub client: Client,
}

impl Session {
    /// Connects when the first command needs it.
    pub fn new(options: &Options) -> Self {
        let client = client_of(&options.addr, options.timeout());
        Self { options: options.clone(), client: client.with_session() }
    }

    fn key(&self, name: &str) -> Key {
        Key { db: self.options.db, name: Bytes::copy_from_slice(name.as_bytes()) }
    }

    /// Executes a command.
    pub async fn run(&mut self, command: Command) -> Outcome {
        match command {
            Command::Set { key, value, ttl, keep_ttl, nx, xx } => {
                let expiry = ttl.map_or(Expiry::Never, after);
                let expiry = if keep_ttl { Expiry::Keep } else { expiry };
                let condition = match (nx, xx) {
                    (true, _) => Condition::IfAbsent,
                    (_, true) => Condition::IfPresent,
                    _ => Condition::Always,
                };
                self.set(&key, &value, expiry, condition).await
            }
            Command::Cas { key, value, old, version } => {
                let condition = match old {
                    Some(old) => Condition::IfValue(old.into()),
                    None => Condition::IfVersion(version.unwrap_or_default()),
                };
                self.set(&key, &value, Expiry::Keep, condition).await
            }
            Command::Get { key, stale } => self.get(key, stale).await,
            Command::Mget { keys, stale } => self.mget(keys, stale).await,
            Command::Del { keys } => self.del(keys).await,
            Command::Exists { key } => {
                let exists = self.client.exists(self.key(&key)).await?;
                let exit = u8::from(!exists);
                Ok(Shown::text(yes(exists), json!({ "exists": exists })).exiting(exit))
            }
            Command::Ttl { key } => self.ttl(key).await,
            Command::Expire { key, after: wait } => {
                match self.client.expire(self.key(&key), after(wait)).await? {
                    true => Ok(done("OK")),
                    false => Err(Failure::Missing(key)),
                }
            }
            Command::Persist { key } => self.persist(key).await,
            Command::Incr { key, by } => {
                let number = self.client.increment(self.key(&key), by).await?;
                Ok(Shown::text(number.to_string(), json!({ "value": number })))
            }
            Command::Seed(many) => seed::write(self, &many).await,
            Command::Read(many) => seed::read(self, &many).await,
            Command::Runset => seed::run_set(self).await,
            Command::Runget => seed::run_get(self).await,
            Command::Bench(plan) => bench::run(&self.options, &plan).await,
            Command::Status => status::show(self).await,
            Command::Members => status::members(self).await,
            Command::Join { name, peer_address } => {
                self.client.join(name.clone(), peer_address).await?;
                Ok(done(&format!("{name} joins")))
            }
            Command::Leave { name } => {
                self.client.leave(name.clone()).await?;
                Ok(done(&format!("{name} is removed")))
            }
            Command::Transfer { to } => {
                self.client.transfer(to).await?;
                Ok(done("leadership is handed over"))
            }
        }
    }

    async fn set(
        &mut self,
        name: &str,
        value: &str,
        expiry: Expiry,
        condition: Condition,
    ) -> Outcome {
        let value = value_of(value)?;
        match self.client.set_with(self.key(name), value, expiry, condition).await? {
            SetOutcome::Stored { version } => Ok(Shown::text("OK", json!({ "version": version }))),
            SetOutcome::NotStored { version: 0 } => {
                Err(Failure::Condition(format!("not stored: {name} is absent")))
            }
            SetOutcome::NotStored { version } => {
                Err(Failure::Condition(format!("not stored: {name} is at version {version}")))
            }
        }
    }

    async fn get(&mut self, name: String, stale: bool) -> Outcome {
        let item = self.client.get_with(self.key(&name), consistency(stale)).await?;
        item.map(|item| Shown::value(&item)).ok_or(Failure::Missing(name))
    }

    /// A line for each key, raw only for each that is there; exit code 1 if one is
    /// missing.
    async fn mget(&mut self, names: Vec<String>, stale: bool) -> Outcome {
        let keys = names.iter().map(|name| self.key(name)).collect();
        let items = self.client.get_many(keys, consistency(stale)).await?;
        let missing = items.iter().any(Option::is_none);
        let json: serde_json::Map<String, Value> = names
            .iter()
            .zip(&items)
            .map(|(name, item)| (name.clone(), item.as_ref().map_or(Value::Null, item_json)))
            .collect();
        let text = |item: &Item| String::from_utf8_lossy(&item.value).into();
        let found = names.iter().zip(&items);
        let raw = found.clone().filter_map(|(name, item)| Some((name, item.as_ref()?)));
        let raw =
            raw.flat_map(|(name, item)| [name.as_bytes(), b"\t", &item.value, b"\n"].concat());
        let row = |(name, item): (&String, &Option<Item>)| {
            vec![name.clone(), item.as_ref().map_or("(missing)".to_owned(), text)]
        };
        let rows: Vec<Vec<String>> = found.clone().map(row).collect();
        let shown = Shown::rows(&["key", "value"], &rows, json.into()).with_raw(raw.collect());
        Ok(shown.exiting(u8::from(missing)))
    }

    async fn del(&mut self, names: Vec<String>) -> Outcome {
        let commands = names.iter().map(|name| Operation::Delete(self.key(name))).collect();
        let batch = Batch { guards: Vec::new(), commands };
        let answers = self.client.run_batch(batch, Consistency::Linearizable).await?;
        let removed = |answer: &Answer| matches!(answer, Answer::Integer(1));
        let removed = answers.unwrap_or_default().iter().filter(|answer| removed(answer)).count();
        let exit = u8::from(removed == 0);
        Ok(Shown::text(format!("{removed} removed"), json!({ "removed": removed })).exiting(exit))
    }

    async fn ttl(&mut self, name: String) -> Outcome {
        match self.client.ttl(self.key(&name)).await? {
            Ttl::Absent => Err(Failure::Missing(name)),
            Ttl::Never => Ok(Shown::text("no deadline", json!({ "ttl_ms": null }))),
            Ttl::Ms(ms) => Ok(Shown::text(format!("{ms} ms"), json!({ "ttl_ms": ms }))),
        }
    }

    async fn persist(&mut self, name: String) -> Outcome {
        if self.client.persist(self.key(&name)).await? {
            return Ok(done("OK"));
        }
        match self.client.exists(self.key(&name)).await? {
            true => Ok(done("it had no deadline")),
            false => Err(Failure::Missing(name)),
        }
    }
}

impl Options {
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// A client without a session.
pub fn client_of<A: AsRef<str>>(addresses: &[A], timeout: Duration) -> Client {
    Client::new(addresses).with_timeout(timeout)
}

fn consistency(stale: bool) -> Consistency {
    if stale { Consistency::Stale } else { Consistency::Linearizable }
}

fn after(wait: Duration) -> Expiry {
    Expiry::AfterMs(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

fn done(text: &str) -> Shown {
    Shown::text(text, json!({ "ok": true }))
}

/// The argument itself, or standard input for `-`.
fn value_of(argument: &str) -> Result<Bytes, Failure> {
    if argument != "-" {
        return Ok(Bytes::copy_from_slice(argument.as_bytes()));
    }
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprintln!("the value, then Ctrl-D:");
    }
    let mut value = Vec::new();
    match stdin.read_to_end(&mut value) {
        Ok(_) => Ok(value.into()),
        Err(error) => Err(Failure::Usage(format!("cannot read standard input: {error}"))),
    }
}
