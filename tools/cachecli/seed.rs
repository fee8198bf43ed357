//! Writing and reading many keys: thousands for a test (`seed`, `read`), ten
//! for a first look (`runset`, `runget`).

use std::fmt::Write;
use std::time::Instant;

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use raftcache::client::{Client, Error};
use raftcache::request::{
    Answer, Batch, Command, Condition, Consistency, Expiry, Key, Reply, Request, RoleName,
};
use serde_json::json;

use crate::args::Many;
use crate::commands::{Failure, Outcome, Session, client_of};
use crate::output::Shown;
use crate::{status, values};

/// Keys per request, and reads in flight: writes of a session go one by one.
const BATCH: u64 = 1000;
const PIPELINE: usize = 8;
/// About how many bytes of values one request may hold.
const BATCH_BYTES: u64 = 1 << 20;

/// A bar on standard error, invisible unless that is a terminal.
pub fn progress(length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {rate} keys/s {eta}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let style = style.with_key("rate", |state: &ProgressState, text: &mut dyn Write| {
        let _ = write!(text, "{:.0}", state.per_sec());
    });
    ProgressBar::new(length).with_style(style)
}

/// Ranges of at most a batch of keys.
fn batches(many: &Many) -> Vec<std::ops::Range<u64>> {
    let step = (BATCH_BYTES / u64::from(many.value_bytes)).clamp(1, BATCH);
    let starts = (0..many.keys).step_by(step as usize);
    starts.map(|start| start..(start + step).min(many.keys)).collect()
}

/// Executes one request for each range, several in flight, and gives each
/// result to `check`.
async fn sweep(
    client: &mut Client,
    many: &Many,
    request: impl Fn(u64) -> Command,
    mut check: impl FnMut(u64, Answer),
) -> Result<(), Error> {
    let bar = progress(many.keys);
    for ranges in batches(many).chunks(PIPELINE) {
        let batch = |range: &std::ops::Range<u64>| Request::Run {
            batch: Batch { guards: Vec::new(), commands: range.clone().map(&request).collect() },
            consistency: Consistency::Linearizable,
            session: None,
        };
        let results = client.call_many(ranges.iter().map(batch).collect()).await;
        for (range, result) in ranges.iter().zip(results) {
            let Reply::Answers(answers) = result? else { continue };
            range.clone().zip(answers).for_each(|(number, answer)| check(number, answer));
            bar.inc(range.end - range.start);
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Writes every key once.
pub async fn prepare(client: &mut Client, many: &Many, db: u8) -> Result<(), Error> {
    let size = many.value_bytes as usize;
    let set = |number| {
        let name = values::key(number);
        let value = values::value(&name, 0, size);
        let key = Key { db, name: name.into() };
        Command::Set { key, value, expiry: Expiry::Never, condition: Condition::Always }
    };
    sweep(client, many, set, |_, _| ()).await
}

/// `seed`
pub async fn write(session: &mut Session, many: &Many) -> Outcome {
    let start = Instant::now();
    prepare(&mut session.client, many, session.options.db).await?;
    let seconds = start.elapsed().as_secs_f64();
    let rate = many.keys as f64 / seconds;
    let text = format!("{} keys written in {seconds:.1} s, {rate:.0} keys/s", many.keys);
    Ok(Shown::text(text, json!({ "keys": many.keys, "seconds": seconds })))
}

/// `read`
pub async fn read(session: &mut Session, many: &Many) -> Outcome {
    let start = Instant::now();
    let db = session.options.db;
    let (mut good, mut missing, mut wrong) = (0u64, 0u64, 0u64);
    let get = |number| Command::Get(Key { db, name: values::key(number).into() });
    sweep(&mut session.client, many, get, |number, answer| {
        let Answer::Item(Some(item)) = answer else { return missing += 1 };
        let has_size = item.value.len() == many.value_bytes as usize;
        match has_size && values::is_valid(&values::key(number), &item.value) {
            true => good += 1,
            false => wrong += 1,
        }
    })
    .await?;
    let seconds = start.elapsed().as_secs_f64();
    let text = format!("{good} keys verified in {seconds:.1} s, {missing} missing, {wrong} wrong");
    let json = json!({ "keys": good, "missing": missing, "wrong": wrong, "seconds": seconds });
    Ok(Shown::text(text, json).exiting(u8::from(good != many.keys)))
}

/// `runset`: K_0 = V_0 to K_9 = V_9 through the leader.
pub async fn run_set(session: &mut Session) -> Outcome {
    let (name, address) = find(session, RoleName::Leader).await?;
    let mut client = client_of(&[&address], session.options.timeout()).with_session();
    let mut pairs = Vec::new();
    for number in 0..10 {
        let (key, value) = (format!("K_{number}"), format!("V_{number}"));
        let stored = Key { db: session.options.db, name: key.clone().into() };
        client.set(stored, Bytes::from(value.clone())).await?;
        pairs.push((key, value));
    }
    Ok(ten(&format!("written through the leader {name} at {address}"), &pairs))
}

/// `runget`: the same from a follower, or from the leader if it is alone.
pub async fn run_get(session: &mut Session) -> Outcome {
    let (name, address) = match find(session, RoleName::Follower).await {
        Err(Failure::Condition(_)) => find(session, RoleName::Leader).await?,
        found => found?,
    };
    let mut client = client_of(&[&address], session.options.timeout());
    let mut pairs = Vec::new();
    for number in 0..10 {
        let key = format!("K_{number}");
        let stored = Key { db: session.options.db, name: key.clone().into() };
        let item = client.get(stored).await?.ok_or_else(|| Failure::Missing(key.clone()))?;
        pairs.push((key, String::from_utf8_lossy(&item.value).into_owned()));
    }
    Ok(ten(&format!("read from {name} at {address}"), &pairs))
}

/// A line per key. Where they went to or came from is said on standard error.
fn ten(story: &str, pairs: &[(String, String)]) -> Shown {
    eprintln!("{story}");
    let lines: Vec<String> = pairs.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let json: serde_json::Map<_, _> =
        pairs.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    Shown::text(lines.join("\n"), json.into())
}

/// Name and client address of a node that now has this role, by its own word.
async fn find(session: &mut Session, role: RoleName) -> Result<(String, String), Failure> {
    let nodes = status::ask_all(session).await?;
    let home = status::home(&nodes);
    let has_role = |node: &&status::Node| node.of(home).is_some_and(|status| status.role == role);
    match nodes.iter().find(has_role) {
        Some(node) => Ok((node.member.name.clone(), node.member.client_address.clone())),
        None => {
            let role = role.name();
            Err(Failure::Condition(format!("no {role} answers; see cachecli status")))
        }
    }
}
