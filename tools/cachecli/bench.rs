//! A closed loop that measures, and verifies what it reads.
//!
//! Each connection keeps `pipeline` requests in flight and sends the next when
//! a reply comes, so a slow cluster is asked less: latencies are those of a
//! caller that waits, not of an arrival rate. Writes carry no session, so one
//! whose reply is lost counts as an error and is not repeated.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use raftcache::client::{Client, Error};
use raftcache::request::{
    Answer, Batch, Command, Condition, Consistency, Expiry, Key, Reply, Request,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::args::{Bench, Many, Options};
use crate::commands::{Outcome, client_of, word_of};
use crate::output::Shown;
use crate::{histogram, seed, values};

/// How long a connection rests when its node is away.
const REST: Duration = Duration::from_millis(20);

/// What was measured.
struct Tally {
    writes: Histogram<u64>,
    reads: Histogram<u64>,
    /// Reads of keys that were not there.
    misses: u64,
    /// Reads that returned something else than was written.
    wrong: u64,
    errors: BTreeMap<&'static str, u64>,
    /// Why, of the last one.
    last_error: Option<Error>,
}

impl Tally {
    fn new() -> Self {
        let (writes, reads) = (histogram::new(), histogram::new());
        Self { writes, reads, misses: 0, wrong: 0, errors: BTreeMap::new(), last_error: None }
    }

    fn add(&mut self, other: &Self) {
        let same = "all histograms have the same bounds";
        self.writes.add(&other.writes).expect(same);
        self.reads.add(&other.reads).expect(same);
        self.misses += other.misses;
        self.wrong += other.wrong;
        other
            .errors
            .iter()
            .for_each(|(kind, count)| *self.errors.entry(kind).or_default() += count);
        self.last_error = self.last_error.take().or_else(|| other.last_error.clone());
    }

    fn fail(&mut self, error: Error, count: u64) {
        *self.errors.entry(word_of(&error)).or_default() += count;
        self.last_error = Some(error);
    }

    fn done(&self) -> u64 {
        self.writes.len() + self.reads.len()
    }
}

/// A request in flight: when it was sent, and the key if it reads.
struct Flight {
    sent: Instant,
    reads: Option<String>,
}

/// One connection and its loop.
struct Worker {
    client: Client,
    plan: Bench,
    db: u8,
    random: u64,
    written: u64,
    flights: VecDeque<Flight>,
    tally: Tally,
    done: Arc<AtomicU64>,
}

impl Worker {
    async fn run(mut self, end: Instant) -> Tally {
        while Instant::now() < end || !self.flights.is_empty() {
            while Instant::now() < end && self.flights.len() < self.plan.pipeline as usize {
                if let Err(error) = self.ask().await {
                    self.tally.fail(error, 1);
                    tokio::time::sleep(REST).await;
                    break;
                }
            }
            if !self.flights.is_empty() {
                self.answer().await;
            }
        }
        self.tally
    }

    /// The next number of a small generator (splitmix64): it has to be quick
    /// and spread, not good.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    async fn ask(&mut self) -> Result<(), Error> {
        let name = values::key(self.next() % self.plan.keys);
        let key = Key { db: self.db, name: name.clone().into() };
        let reads = (self.next() as f64 / u64::MAX as f64) < self.plan.read_share;
        let command = if reads {
            Command::Get(key)
        } else {
            self.written += 1;
            let value = values::value(&name, self.written, self.plan.value_bytes as usize);
            Command::Set { key, value, expiry: Expiry::Never, condition: Condition::Always }
        };
        let consistency =
            if self.plan.stale { Consistency::Stale } else { Consistency::Linearizable };
        let request = Request::Run { batch: Batch::of(command), consistency, session: None };
        let sent = Instant::now();
        self.client.send(&request).await?;
        self.flights.push_back(Flight { sent, reads: reads.then_some(name) });
        Ok(())
    }

    async fn answer(&mut self) {
        let reply = self.client.receive().await;
        let Some(flight) = self.flights.pop_front() else { return };
        match reply {
            Ok(reply) => {
                self.count(&flight, &reply);
                self.done.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if self.client.is_connected() => self.tally.fail(error, 1),
            Err(error) => {
                self.tally.fail(error, 1 + self.flights.len() as u64);
                self.flights.clear();
                tokio::time::sleep(REST).await;
            }
        }
    }

    fn count(&mut self, flight: &Flight, reply: &Reply) {
        let latency_ns = u64::try_from(flight.sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let answer = if let Reply::Answers(answers) = reply { answers.first() } else { None };
        match (&flight.reads, answer) {
            (Some(_), Some(Answer::Item(None))) => self.tally.misses += 1,
            (Some(key), Some(Answer::Item(Some(item)))) if values::is_valid(key, &item.value) => {}
            (None, Some(Answer::Stored { .. })) => {}
            _ => self.tally.wrong += 1,
        }
        let histogram =
            if flight.reads.is_some() { &mut self.tally.reads } else { &mut self.tally.writes };
        histogram.saturating_record(latency_ns);
    }
}

/// `bench`
pub async fn run(options: &Options, plan: &Bench) -> Outcome {
    if plan.read_share > 0.0 && !plan.no_prepare {
        let mut client = client_of(&options.addr, options.timeout()).with_session();
        let many = Many { keys: plan.keys, value_bytes: plan.value_bytes };
        seed::prepare(&mut client, &many, options.db).await?;
    }
    let done = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for number in 0..plan.clients {
        workers.spawn(worker(options, plan, number, &done).run(start + plan.duration));
    }
    watch(start, plan.duration, &done).await;
    let mut tally = Tally::new();
    while let Some(result) = workers.join_next().await {
        tally.add(&result.expect("a worker neither panics nor is cancelled"));
    }
    let seconds = start.elapsed().as_secs_f64();
    match tally.last_error.take() {
        Some(error) if tally.done() == 0 => Err(error.into()),
        _ => Ok(report(plan, &tally, seconds)),
    }
}

/// Connections are spread over the addresses; the others are for failover.
fn worker(options: &Options, plan: &Bench, number: u32, done: &Arc<AtomicU64>) -> Worker {
    let mut addresses = options.addr.clone();
    addresses.rotate_left(number as usize % options.addr.len());
    Worker {
        client: client_of(&addresses, options.timeout()),
        plan: plan.clone(),
        db: options.db,
        random: u64::from(number),
        written: 0,
        flights: VecDeque::new(),
        tally: Tally::new(),
        done: done.clone(),
    }
}

/// Moves the bar until the time is over; on a terminal only.
async fn watch(start: Instant, duration: Duration, done: &AtomicU64) {
    let style = ProgressStyle::with_template("{wide_bar} {elapsed} {msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(duration.as_millis() as u64).with_style(style);
    while start.elapsed() < duration {
        tokio::time::sleep(Duration::from_millis(100).min(duration)).await;
        let rate = done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
        bar.set_position(start.elapsed().as_millis() as u64);
        bar.set_message(format!("{rate:.0} ops/s"));
    }
    bar.finish_and_clear();
}

fn report(plan: &Bench, tally: &Tally, seconds: f64) -> Shown {
    let kinds = [("SET", &tally.writes), ("GET", &tally.reads)];
    let kinds = kinds.into_iter().filter(|(_, latencies)| !latencies.is_empty());
    let rate = |of: &Histogram<u64>| of.len() as f64 / seconds;
    let row = |(name, latencies): (&str, &Histogram<u64>)| {
        let mut row = vec![name.to_owned(), format!("{:.0}", rate(latencies))];
        row.extend(histogram::cells(latencies));
        row
    };
    let rows: Vec<_> = kinds.clone().map(row).collect();
    let picture = |(name, latencies)| format!("\n{name} latency\n{}", histogram::draw(latencies));
    let pictures: String = kinds.map(picture).collect();
    let header = [&["", "ops/s"][..], &histogram::titles()[..]].concat();
    let note = format!("{}{pictures}", faults(plan, tally));
    let exit = u8::from(tally.wrong > 0);
    Shown::rows(&header, &rows, report_json(plan, tally, seconds)).with_note(&note).exiting(exit)
}

/// What ran, and whatever was not as it should be.
fn faults(plan: &Bench, tally: &Tally) -> String {
    let mut lines = format!(
        "{} clients, pipeline {}, {} B values, {} keys\n",
        plan.clients, plan.pipeline, plan.value_bytes, plan.keys
    );
    let errors = tally.errors.iter().map(|(kind, count)| (*kind, *count));
    let odd = [("reads of missing keys", tally.misses), ("wrong values", tally.wrong)];
    for (kind, count) in errors.chain(odd).filter(|(_, count)| *count > 0) {
        lines += &format!("{kind}: {count}\n");
    }
    lines
}

fn report_json(plan: &Bench, tally: &Tally, seconds: f64) -> Value {
    let kind = |of: &Histogram<u64>| {
        let mut json = histogram::figures(of);
        json["count"] = of.len().into();
        json["ops_per_s"] = json!(of.len() as f64 / seconds);
        json
    };
    json!({
        "clients": plan.clients,
        "pipeline": plan.pipeline,
        "value_bytes": plan.value_bytes,
        "keys": plan.keys,
        "read_share": plan.read_share,
        "seconds": seconds,
        "ops_per_s": tally.done() as f64 / seconds,
        "set": kind(&tally.writes),
        "get": kind(&tally.reads),
        "misses": tally.misses,
        "wrong": tally.wrong,
        "errors": tally.errors,
    })
}
