//! The state machine against an obvious one, and the rules one by one.
//!
//! Random tests print their seed on failure; the same seed makes the same run.

mod conditions;
mod edit;
mod memory;
mod oracle;
mod random;
mod retries;
mod scan;
mod snapshots;
mod time;

use bytes::Bytes;

use super::*;
use crate::request::{Answer, Command, Condition, Expiry, Failure, Item};

/// A state machine with a log that grows by what it is told.
struct Node {
    fsm: Fsm,
    log: Vec<Proposal>,
}

impl Node {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        Self { fsm: Fsm::new(limits), log: Vec::new() }
    }

    fn apply(&mut self, stamp_ms: u64, action: Action) -> Reply {
        let proposal = Proposal { stamp_ms, action };
        self.log.push(proposal.clone());
        self.fsm.apply(self.fsm.applied() + 1, &proposal)
    }

    fn tick(&mut self, stamp_ms: u64) {
        assert_eq!(self.apply(stamp_ms, Action::Tick), Reply::Done);
    }

    fn run(&mut self, stamp_ms: u64, command: Command) -> Answer {
        let action = Action::Run { batch: Batch::of(command), session: None };
        one(self.apply(stamp_ms, action))
    }

    fn retry(&mut self, stamp_ms: u64, session: u64, sequence: u64, command: Command) -> Reply {
        let session = Some(SessionStamp { session, sequence });
        self.apply(stamp_ms, Action::Run { batch: Batch::of(command), session })
    }

    fn open(&mut self, stamp_ms: u64) -> u64 {
        match self.apply(stamp_ms, Action::OpenSession) {
            Reply::SessionOpened { session } => session,
            reply => panic!("{reply:?}"),
        }
    }

    fn ask(&self, at_ms: u64, command: Command) -> Answer {
        one(self.fsm.query(&Batch::of(command), at_ms))
    }

    fn value(&self, name: &str) -> Option<Bytes> {
        match self.ask(0, Command::Get(Key::new(name.to_owned()))) {
            Answer::Item(item) => item.map(|item: Item| item.value),
            answer => panic!("{answer:?}"),
        }
    }
}

fn one(reply: Reply) -> Answer {
    match reply {
        Reply::Answers(mut answers) if answers.len() == 1 => answers.remove(0),
        reply => panic!("{reply:?}"),
    }
}

fn key(name: &str) -> Key {
    Key::new(name.to_owned())
}

fn set(name: &str, value: &str, expiry: Expiry) -> Command {
    set_if(name, value, expiry, Condition::Always)
}

fn set_if(name: &str, value: &str, expiry: Expiry, condition: Condition) -> Command {
    Command::Set { key: key(name), value: value.to_owned().into(), expiry, condition }
}

fn expire(name: &str, expiry: Expiry) -> Command {
    Command::Expire { key: key(name), expiry }
}

fn increment(name: &str, by: i64) -> Command {
    Command::Increment { key: key(name), by }
}

/// Finishes the snapshot under way, in pieces of at most `budget` keys.
fn rest_of_snapshot(fsm: &mut Fsm, budget: usize) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    loop {
        match fsm.snapshot_piece(budget) {
            Visit::Piece(piece) => {
                assert!((1..=budget).contains(&piece.keys()), "{}", piece.keys());
                let mut bytes = Vec::new();
                piece.encode(&mut bytes);
                pieces.push(bytes.into());
            }
            Visit::Complete => return pieces,
            Visit::Abandoned => panic!("abandoned"),
        }
    }
}

/// Limits with others than all nodes have.
fn sessions(sessions: SessionLimits) -> Limits {
    Limits { sessions, ..Limits::default() }
}

fn restore(head: &SnapshotHead, pieces: Vec<Bytes>, limits: Limits) -> Result<Fsm, RestoreError> {
    let mut bytes = Vec::new();
    head.encode(&mut bytes);
    let mut restore = Restore::new(bytes.into(), limits)?;
    for piece in pieces {
        restore.push(piece)?;
    }
    restore.finish()
}

/// A copy by way of a snapshot, which counts and hashes everything anew.
fn copy(fsm: &mut Fsm) -> Fsm {
    let head = fsm.begin_snapshot();
    let pieces = rest_of_snapshot(fsm, 7);
    restore(&head, pieces, fsm.limits().clone()).expect("the running numbers are right")
}
