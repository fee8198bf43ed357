//! Random logs under a driven clock: every reply as the oracle's, and replicas
//! that differ in what they do beside the log agree on everything else.

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::oracle::Oracle;
use super::*;
use crate::request::{Guard, Only, Test};

/// Draws proposals over a few keys, so that they meet often.
pub struct Generator {
    pub rng: SmallRng,
    pub now: u64,
    sessions: Vec<u64>,
    index: u64,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        let rng = SmallRng::seed_from_u64(seed);
        Self { rng, now: 1000, sessions: Vec::new(), index: 0 }
    }

    pub fn proposal(&mut self) -> Proposal {
        // Mostly a little, at times far, at times back: stamps are only a wish.
        self.now += [0, 0, 1, 3, 10, 200][self.rng.random_range(0..6)];
        let back = if self.rng.random_bool(0.1) { 20 } else { 0 };
        let action = match self.rng.random_range(0..20) {
            0 => Action::Tick,
            1 => Action::OpenSession,
            2..6 => Action::Run { batch: self.batch(), session: self.stamp() },
            _ => Action::Run { batch: self.batch(), session: None },
        };
        self.index += 1;
        if action == Action::OpenSession {
            self.sessions.push(self.index);
        }
        Proposal { stamp_ms: self.now - back, action }
    }

    fn stamp(&mut self) -> Option<SessionStamp> {
        let recent = self.sessions.len().saturating_sub(3);
        let session = *self.sessions[recent..].first()?;
        Some(SessionStamp { session, sequence: self.rng.random_range(0..40) })
    }

    fn batch(&mut self) -> Batch {
        let guards = if self.rng.random_bool(0.1) {
            let version = self.rng.random_range(0..3) * self.index / 2;
            vec![Guard { key: self.key(), version }]
        } else {
            Vec::new()
        };
        let count = if self.rng.random_bool(0.2) { self.rng.random_range(0..10) } else { 1 };
        Batch { guards, commands: (0..count).map(|_| self.command()).collect() }
    }

    pub fn key(&mut self) -> Key {
        let name = self.rng.random_range(0..60);
        let name = if name % 2 == 0 { format!("{{tag}}{name}") } else { format!("{name}") };
        Key { db: self.rng.random_range(0..3), name: name.into() }
    }

    fn value(&mut self) -> Bytes {
        match self.rng.random_range(0..6) {
            0 => Bytes::from(vec![b'x'; self.rng.random_range(0..3000)]),
            1 => Bytes::from(i64::MAX.to_string()),
            2 => self.decimal(),
            _ => Bytes::from(self.rng.random_range(-3i64..10).to_string()),
        }
    }

    fn expiry(&mut self) -> Expiry {
        match self.rng.random_range(0..10) {
            0..3 => Expiry::Never,
            3 => Expiry::Keep,
            4..7 => Expiry::AfterMs(self.rng.random_range(0..100)),
            7 => Expiry::LaterMs(self.rng.random_range(-50..100)),
            8 => Expiry::AtMs(self.now + self.rng.random_range(0..100) - 20),
            _ => {
                let huge = [u64::MAX, MAX_TIME_MS, MAX_TIME_MS + 1][self.rng.random_range(0..3)];
                match self.rng.random_range(0..3) {
                    0 => Expiry::AfterMs(huge),
                    1 => Expiry::AtMs(huge),
                    _ => Expiry::LaterMs(huge.cast_signed()),
                }
            }
        }
    }

    fn condition(&mut self) -> Condition {
        match self.rng.random_range(0..11) {
            8 => Condition::UnlessValue(self.value()),
            9 => Condition::IfDigest(crate::encoding::digest(&self.value())),
            10 => Condition::UnlessDigest(crate::encoding::digest(&self.value())),
            0 => Condition::IfAbsent,
            1 => Condition::IfPresent,
            2 => Condition::IfValue(self.value()),
            3 => Condition::IfVersion(self.rng.random_range(0..2) * self.index),
            _ => Condition::Always,
        }
    }

    /// Numbers with a point, or nearly.
    fn decimal(&mut self) -> Bytes {
        let odd = ["1e19", "9.9e19", "-1e20", "34e20", ".5", "3.", "25e-18", "-0", "1.5.", "e1"];
        match self.rng.random_range(0..4) {
            0 => Bytes::from_static(odd[self.rng.random_range(0..odd.len())].as_bytes()),
            _ => {
                let (whole, places) =
                    (self.rng.random_range(-9i64..10), self.rng.random_range(0..100));
                format!("{whole}.{places}").into()
            }
        }
    }

    fn part(&mut self) -> Bytes {
        match self.rng.random_range(0..4) {
            0 => Bytes::new(),
            1 => Bytes::from(vec![b'y'; self.rng.random_range(0..1200)]),
            _ => Bytes::from(self.rng.random_range(0..100).to_string()),
        }
    }

    fn deadline(&mut self) -> Expiry {
        loop {
            match self.expiry() {
                Expiry::Never | Expiry::Keep => {}
                expiry => return expiry,
            }
        }
    }

    fn only(&mut self) -> Only {
        let all =
            [Only::IfNone, Only::IfAny, Only::IfLater, Only::IfEarlier, Only::IfAnyAndEarlier];
        all[self.rng.random_range(0..all.len())]
    }

    /// A few tests, mostly such that hold, and commands.
    fn when(&mut self, command: fn(&mut Self) -> Command) -> Command {
        let tests = (0..self.rng.random_range(0..3))
            .map(|_| Test { key: self.key(), condition: self.condition() })
            .collect();
        let then = (0..self.rng.random_range(0..4)).map(|_| command(self)).collect();
        let ends = self.rng.random();
        if ends { Command::Chain { tests, then } } else { Command::When { tests, then } }
    }

    pub fn read(&mut self) -> Command {
        if self.rng.random_bool(0.15) { self.when(Self::plain_read) } else { self.plain_read() }
    }

    fn plain_read(&mut self) -> Command {
        match self.rng.random_range(0..5) {
            0 => Command::Get(self.key()),
            1 => Command::Exists(self.key()),
            2 => Command::Ttl(self.key()),
            3 => Command::Deadline(self.key()),
            _ if self.rng.random() => Command::CountExpiring { db: self.rng.random_range(0..4) },
            _ => Command::Count { db: self.rng.random_range(0..4) },
        }
    }

    fn command(&mut self) -> Command {
        match self.rng.random_range(0..100) {
            0..4 => self.when(Self::plain_command),
            4..7 => self.read(),
            _ => self.plain_command(),
        }
    }

    fn plain_command(&mut self) -> Command {
        match self.rng.random_range(0..100) {
            0..12 => self.plain_read(),
            12..45 => Command::Set {
                key: self.key(),
                value: self.value(),
                expiry: self.expiry(),
                condition: self.condition(),
            },
            45..53 => Command::Delete(self.key()),
            53..62 => Command::Expire { key: self.key(), expiry: self.expiry() },
            62..69 => {
                Command::ExpireOnly { key: self.key(), expiry: self.deadline(), only: self.only() }
            }
            69..77 => Command::Increment { key: self.key(), by: self.rng.random_range(-5..5) },
            77..83 => Command::IncrementFloat { key: self.key(), by: self.decimal() },
            83..88 => Command::Append { key: self.key(), value: self.part() },
            88..92 => {
                let offset = [0, 1, 7, 1500, 16 << 20, u32::MAX][self.rng.random_range(0..6)];
                Command::SetRange { key: self.key(), offset, value: self.part() }
            }
            92..96 => {
                let (from, to, replace) = (self.key(), self.key(), self.rng.random());
                Command::Rename { from, to, replace }
            }
            96..99 => {
                let (from, to, replace) = (self.key(), self.key(), self.rng.random());
                Command::Copy { from, to, replace }
            }
            _ if self.rng.random_bool(0.7) => {
                Command::Clear { db: Some(self.rng.random_range(0..3)) }
            }
            _ => Command::Clear { db: None },
        }
    }
}

/// Whether what it answers differs from moment to moment.
fn tells_time(command: &Command) -> bool {
    match command {
        Command::Ttl(_) => true,
        Command::When { then, .. } | Command::Chain { then, .. } => then.iter().any(tells_time),
        _ => false,
    }
}

/// All that a walk meets, in its order, by steps of random counts.
fn walked(fsm: &Fsm, rng: &mut SmallRng, db: u8, at: u64, pattern: Option<&str>) -> Vec<Bytes> {
    let (mut cursor, mut met) = (0, Vec::new());
    loop {
        let count = rng.random_range(0..30);
        let pattern = pattern.map(|pattern| pattern.to_owned().into());
        let scan = Command::Scan { db, cursor, count, pattern };
        let Answer::Names { cursor: next, names } = one(fsm.query(&Batch::of(scan), at)) else {
            panic!("names")
        };
        met.extend(names);
        if next == 0 {
            return met;
        }
        assert!(next > cursor, "{next} after {cursor}");
        cursor = next;
    }
}

/// Errors are compared by kind: their words are for people.
pub fn assert_same(ours: &Reply, oracle: &Reply, context: &str) {
    match (ours, oracle) {
        (Reply::Error(ours, _), Reply::Error(oracle, _)) => assert_eq!(ours, oracle, "{context}"),
        _ => assert_eq!(ours, oracle, "{context}"),
    }
}

pub fn small_window() -> Limits {
    sessions(SessionLimits { window: 16, replies_bytes: 1 << 30, ..SessionLimits::FORMAT })
}

#[test]
fn every_reply_is_that_of_the_oracle() {
    for seed in 0..60 {
        let mut generator = Generator::new(seed);
        let mut fsm = Fsm::new(small_window());
        let mut oracle = Oracle::new(16);
        for index in 1..=1500 {
            let context = format!("seed {seed} index {index}");
            let proposal = generator.proposal();
            let proposal = Proposal::decode(proposal.encode()).unwrap();
            assert_same(&fsm.apply(index, &proposal), &oracle.apply(&proposal), &context);
            let batch = Batch::of(generator.read());
            let at = generator.now + generator.rng.random_range(0..30);
            assert_eq!(fsm.query(&batch, at), oracle.query(&batch, at), "{context}");
            if !fsm.has_deadline_by(&batch, at) && !tells_time(&batch.commands[0]) {
                assert_eq!(fsm.query(&batch, at), fsm.query(&batch, 0), "{context}: need not wait");
            }
        }
        let at = generator.now + generator.rng.random_range(0..30);
        for db in 0..4 {
            let mut expected = oracle.names(db, at);
            let mut met = walked(&fsm, &mut generator.rng, db, at, None);
            met.sort();
            assert_eq!(met, expected, "seed {seed} database {db}");
            expected.retain(|name| name.starts_with(b"{tag}"));
            let mut met = walked(&fsm, &mut generator.rng, db, at, Some("{tag}*"));
            met.sort();
            assert_eq!(met, expected, "seed {seed} database {db}");
        }
        let copy = copy(&mut fsm);
        assert_eq!(copy.memory_bytes(), fsm.memory_bytes(), "seed {seed}");
    }
}

/// One replica takes snapshots, gives them up and frees memory as it likes, the
/// other does not; no entry may tell.
#[test]
fn what_a_node_does_beside_the_log_changes_nothing() {
    for seed in 0..40 {
        let mut generator = Generator::new(seed);
        let limits = Limits { snapshot_retained_bytes: 20_000, ..small_window() };
        let (mut plain, mut busy) = (Fsm::new(limits.clone()), Fsm::new(limits));
        for index in 1..=1000 {
            let proposal = generator.proposal();
            match generator.rng.random_range(0..20) {
                0 => drop(busy.begin_snapshot()),
                1 => busy.abandon_snapshot(),
                2..10 => drop(busy.snapshot_piece(generator.rng.random_range(0..5))),
                10 => drop(busy.reclaim(generator.rng.random_range(0..50))),
                _ => {}
            }
            let context = format!("seed {seed} index {index}");
            assert_eq!(plain.apply(index, &proposal), busy.apply(index, &proposal), "{context}");
            assert_eq!(plain.state_hash(1), busy.state_hash(1), "{context}");
            assert_eq!(plain.memory_bytes(), busy.memory_bytes(), "{context}");
            assert_eq!(plain.next_deadline_ms(), busy.next_deadline_ms(), "{context}");
        }
    }
}
