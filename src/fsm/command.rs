//! What one command entry of the log says, and its bytes.
//!
//! Every command entry carries the leader's stamp, the log time at which it is
//! applied, and one action. Numbers are little-endian, batches are in [our own
//! encoding](crate::request::bytes), and a [`Proposal`] that is decoded shares
//! the memory of its entry.
//!
//! ```text
//! proposal  | version u8 = 1 | stamp_ms u64 | action u8 | …
//!             0 tick   1 run batch   2 run with session u64, sequence u64, batch
//!             3 open session
//! ```
//!
//! The log keeps every version it ever held: a change of meaning, also of the
//! numbers that [`Fsm`](super::Fsm) takes as part of the format, is a new
//! version, and old ones stay readable.

use bytes::{BufMut, Bytes};

use super::item::OVERHEAD_BYTES;
use super::limits::GROWN_VALUE_BYTES;
use super::sessions::SESSION_BYTES;
use crate::encoding::{Malformed, Reader};
use crate::request::bytes::{decode_batch, decode_stamp, encode_batch, encode_stamp};
use crate::request::{Batch, Command, SessionStamp};

const VERSION: u8 = 1;

/// The largest moment of log time, and so the largest deadline: what a signed
/// 64-bit clock can say.
pub const MAX_TIME_MS: u64 = i64::MAX as u64;

/// The digits and sign of an i64.
pub(super) const INTEGER_BYTES: u64 = 20;

/// The digits, sign and point of a decimal number.
pub(super) const DECIMAL_BYTES: u64 = 40;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing but to let time pass, so that keys which are due go.
    Tick,
    /// Run a batch, once if it is stamped.
    Run {
        /// What.
        batch: Batch,
        /// Recognises a retry.
        session: Option<SessionStamp>,
    },
    /// Open a session.
    OpenSession,
}

impl Action {
    /// About how many bytes it holds.
    fn size_bytes(&self) -> usize {
        match self {
            Self::Run { batch, .. } => batch.size_bytes(),
            Self::Tick | Self::OpenSession => 0,
        }
    }

    /// About how many bytes it may add to the data set, but for the values that a
    /// `Copy` copies, which are not in it.
    pub fn growth_bytes(&self) -> u64 {
        match self {
            Self::Tick => 0,
            Self::Run { batch, .. } => growth_bytes(batch),
            Self::OpenSession => SESSION_BYTES,
        }
    }
}

/// About how many bytes a batch may add to the data set, as
/// [`Fsm::memory_bytes`](super::Fsm::memory_bytes) counts, whatever is there
/// already. 0 for what must pass when memory is full: reads, deletes, and
/// deadlines, which make room in the end.
pub fn growth_bytes(batch: &Batch) -> u64 {
    batch.commands.iter().flat_map(Command::steps).map(growth_of).sum()
}

fn growth_of(command: &Command) -> u64 {
    match command {
        Command::Set { key, value, .. } => OVERHEAD_BYTES + (key.name.len() + value.len()) as u64,
        Command::Append { key, value } => OVERHEAD_BYTES + (key.name.len() + value.len()) as u64,
        Command::SetRange { key, offset, value } => {
            let gap = u64::from(*offset).min(GROWN_VALUE_BYTES as u64);
            OVERHEAD_BYTES + gap + (key.name.len() + value.len()) as u64
        }
        Command::Increment { key, .. } => OVERHEAD_BYTES + key.name.len() as u64 + INTEGER_BYTES,
        Command::IncrementFloat { key, .. } => {
            OVERHEAD_BYTES + key.name.len() as u64 + DECIMAL_BYTES
        }
        Command::Copy { to, .. } => OVERHEAD_BYTES + to.name.len() as u64,
        // What the new name has more than the old one.
        Command::Rename { from, to, .. } => to.name.len().saturating_sub(from.name.len()) as u64,
        _ => 0,
    }
}

/// What one command entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Log time in milliseconds, at most [`MAX_TIME_MS`].
    pub stamp_ms: u64,
    /// What to do then.
    pub action: Action,
}

impl Proposal {
    /// The encoding drawn above.
    pub fn encode(&self) -> Bytes {
        let mut buffer = Vec::with_capacity(64 + self.action.size_bytes());
        buffer.put_u8(VERSION);
        buffer.put_u64_le(self.stamp_ms);
        match &self.action {
            Action::Tick => buffer.put_u8(0),
            Action::Run { batch, session: None } => {
                buffer.put_u8(1);
                encode_batch(&mut buffer, batch);
            }
            Action::Run { batch, session: Some(stamp) } => {
                buffer.put_u8(2);
                encode_stamp(&mut buffer, *stamp);
                encode_batch(&mut buffer, batch);
            }
            Action::OpenSession => buffer.put_u8(3),
        }
        buffer.into()
    }

    /// Reads what [`Proposal::encode`] wrote, sharing its memory.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed("unknown version of a proposal"));
        }
        let stamp_ms = reader.u64()?;
        if stamp_ms > MAX_TIME_MS {
            return Err(Malformed("a stamp beyond what a clock can say"));
        }
        let action = decode_action(&mut reader)?;
        reader.finish()?;
        Ok(Self { stamp_ms, action })
    }
}

fn decode_action(reader: &mut Reader) -> Result<Action, Malformed> {
    Ok(match reader.u8()? {
        0 => Action::Tick,
        1 => Action::Run { batch: decode_batch(reader)?, session: None },
        2 => {
            let stamp = decode_stamp(reader)?;
            Action::Run { batch: decode_batch(reader)?, session: Some(stamp) }
        }
        3 => Action::OpenSession,
        _ => return Err(Malformed("unknown action")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Condition, DATABASES, Expiry, Guard, Key, Only, Test};

    fn every_command() -> Vec<Command> {
        let key = || Key { db: 15, name: "k".into() };
        let set =
            |expiry, condition| Command::Set { key: key(), value: "v".into(), expiry, condition };
        let expire_only = |only| Command::ExpireOnly { key: key(), expiry: Expiry::AtMs(5), only };
        let append = || Command::Append { key: key(), value: "v".into() };
        vec![
            Command::Get(key()),
            Command::Exists(key()),
            Command::Ttl(key()),
            Command::Count { db: 3 },
            set(Expiry::Never, Condition::Always),
            set(Expiry::Keep, Condition::IfAbsent),
            set(Expiry::AfterMs(1), Condition::IfPresent),
            set(Expiry::AtMs(u64::MAX), Condition::IfValue("old".into())),
            set(Expiry::Never, Condition::IfVersion(9)),
            Command::Delete(key()),
            Command::Expire { key: key(), expiry: Expiry::AfterMs(5) },
            Command::Increment { key: key(), by: -3 },
            Command::Clear { db: Some(2) },
            Command::Clear { db: None },
            Command::CountExpiring { db: 5 },
            Command::Deadline(key()),
            Command::Scan { db: 4, cursor: 1 << 40, count: 7, pattern: None },
            Command::Scan { db: 4, cursor: 0, count: u32::MAX, pattern: Some("k*".into()) },
            Command::Append { key: key(), value: "v".into() },
            Command::SetRange { key: key(), offset: 100, value: "v".into() },
            Command::IncrementFloat { key: key(), by: "-1.5".into() },
            expire_only(Only::IfNone),
            expire_only(Only::IfAny),
            expire_only(Only::IfLater),
            expire_only(Only::IfEarlier),
            expire_only(Only::IfAnyAndEarlier),
            Command::Rename { from: key(), to: Key::new("longer"), replace: true },
            Command::Rename { from: Key::new("longer"), to: key(), replace: false },
            Command::Copy { from: key(), to: Key::new("longer"), replace: false },
            Command::When { tests: vec![], then: vec![] },
            Command::When { tests: tests(), then: vec![Command::Get(key()), append(), append()] },
            Command::Chain { tests: tests(), then: vec![Command::Get(key()), append(), append()] },
            Command::Expire { key: key(), expiry: Expiry::LaterMs(-5) },
        ]
    }

    fn tests() -> Vec<Test> {
        let conditions = [
            Condition::Always,
            Condition::IfAbsent,
            Condition::IfPresent,
            Condition::IfValue("old".into()),
            Condition::UnlessValue("old".into()),
            Condition::IfDigest(1),
            Condition::UnlessDigest(1),
            Condition::IfVersion(9),
        ];
        let test = |condition| Test { key: Key::new("t"), condition };
        conditions.into_iter().map(test).collect()
    }

    fn run(batch: Batch) -> Proposal {
        Proposal { stamp_ms: 7, action: Action::Run { batch, session: None } }
    }

    #[test]
    fn every_proposal_survives_its_encoding() {
        let guards = vec![Guard { key: Key::new("g"), version: 4 }];
        let batch = Batch { guards, commands: every_command() };
        let session = Some(SessionStamp { session: 5, sequence: 6 });
        let actions = [
            Action::Tick,
            Action::OpenSession,
            Action::Run { batch: Batch::default(), session: None },
            Action::Run { batch, session },
        ];
        for action in actions {
            let proposal = Proposal { stamp_ms: MAX_TIME_MS, action };
            let bytes = proposal.encode();
            for end in 0..bytes.len() {
                assert!(Proposal::decode(bytes.slice(..end)).is_err(), "cut at {end}");
            }
            assert_eq!(Proposal::decode(bytes), Ok(proposal));
        }
    }

    /// Logs hold these bytes: if this test fails, old journals are unreadable.
    #[test]
    fn the_bytes_are_pinned() {
        let tick = Proposal { stamp_ms: 0x0102, action: Action::Tick };
        assert_eq!(tick.encode(), &[1, 2, 1, 0, 0, 0, 0, 0, 0, 0][..]);
        let open = Proposal { stamp_ms: 0, action: Action::OpenSession };
        assert_eq!(open.encode(), &[1, 0, 0, 0, 0, 0, 0, 0, 0, 3][..]);

        let command = Command::Set {
            key: Key { db: 2, name: "key".into() },
            value: "v".into(),
            expiry: Expiry::AfterMs(5),
            condition: Condition::IfVersion(6),
        };
        let batch = Batch {
            guards: vec![Guard { key: Key::new("g"), version: 4 }],
            commands: vec![command, Command::Clear { db: None }],
        };
        let session = Some(SessionStamp { session: 8, sequence: 9 });
        let proposal = Proposal { stamp_ms: 7, action: Action::Run { batch, session } };
        let expected = [
            &[1, 7, 0, 0, 0, 0, 0, 0, 0][..], // version, stamp
            &[2, 8, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0], // run, session, sequence
            &[1, 0, 0, 0, 0, 1, 0, 0, 0, b'g', 4, 0, 0, 0, 0, 0, 0, 0], // one guard
            &[2, 0, 0, 0, 4, 2, 3, 0, 0, 0, b'k', b'e', b'y'], // two commands; set, key
            &[1, 0, 0, 0, b'v'],              // value
            &[2, 5, 0, 0, 0, 0, 0, 0, 0],     // after 5 ms
            &[4, 6, 0, 0, 0, 0, 0, 0, 0],     // if version is 6
            &[9],                             // clear all
        ];
        assert_eq!(proposal.encode(), expected.concat());
    }

    /// One line for each kind of command that came later.
    #[test]
    fn the_bytes_of_later_commands_are_pinned() {
        let key = |name: &'static str| Key { db: 2, name: name.into() };
        let (expiry, only) = (Expiry::AtMs(5), Only::IfAnyAndEarlier);
        let (from, to) = (key("a"), key("b"));
        let then = || vec![Command::Get(key("a")), Command::Clear { db: None }];
        let tests = || vec![Test { key: key("t"), condition: Condition::IfVersion(6) }];
        const A: &[u8] = &[2, 1, 0, 0, 0, b'a'];
        const B: &[u8] = &[2, 1, 0, 0, 0, b'b'];
        const T: &[u8] = &[2, 1, 0, 0, 0, b't'];
        const V: &[u8] = &[2, 0, 0, 0, b'v', b'w'];
        let pattern = Some("vw".into());
        let table: Vec<(Command, Vec<&[u8]>)> = vec![
            (Command::Deadline(key("a")), vec![&[10], A]),
            (
                Command::Scan { db: 3, cursor: 0x0102, count: 4, pattern: None },
                vec![&[11, 3, 2, 1, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]],
            ),
            (
                Command::Scan { db: 3, cursor: 0, count: 4, pattern },
                vec![&[11, 3, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1], V],
            ),
            (Command::Append { key: key("a"), value: "vw".into() }, vec![&[12], A, V]),
            (
                Command::SetRange { key: key("a"), offset: 0x0102, value: "vw".into() },
                vec![&[13], A, &[2, 1, 0, 0], V],
            ),
            (Command::IncrementFloat { key: key("a"), by: "vw".into() }, vec![&[14], A, V]),
            (
                Command::ExpireOnly { key: key("a"), expiry, only },
                vec![&[15], A, &[3, 5, 0, 0, 0, 0, 0, 0, 0, 4]],
            ),
            (
                Command::Rename { from: from.clone(), to: to.clone(), replace: true },
                vec![&[16], A, B, &[1]],
            ),
            (Command::Copy { from, to, replace: false }, vec![&[17], A, B, &[0]]),
            (
                Command::When { tests: tests(), then: then() },
                vec![
                    &[18, 1, 0, 0, 0], // one test
                    T,
                    &[4, 6, 0, 0, 0, 0, 0, 0, 0], // if version is 6
                    &[2, 0, 0, 0, 0],             // two commands; get
                    A,
                    &[9], // clear all
                ],
            ),
            (
                Command::Chain { tests: tests(), then: then() },
                vec![&[20, 1, 0, 0, 0], T, &[4, 6, 0, 0, 0, 0, 0, 0, 0], &[2, 0, 0, 0, 0], A, &[9]],
            ),
            (
                Command::Expire { key: key("a"), expiry: Expiry::LaterMs(-2) },
                vec![&[6], A, &[4, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]],
            ),
        ];
        for (command, expected) in table {
            let bytes = run(Batch::of(command.clone())).encode();
            // Version, stamp, action, no guards, one command.
            assert_eq!(bytes[1 + 8 + 1 + 4 + 4..], expected.concat(), "{command:?}");
        }
        let onlys = [Only::IfNone, Only::IfAny, Only::IfLater, Only::IfEarlier];
        for (number, only) in (0..).zip(onlys) {
            let command = Command::ExpireOnly { key: key("a"), expiry, only };
            assert_eq!(run(Batch::of(command)).encode().last(), Some(&number));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let bytes = run(Batch::of(Command::Count { db: 1 })).encode().to_vec();
        let with = |at: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            Proposal::decode(bytes.into())
        };
        assert!(with(0, 1).is_ok());
        assert!(with(0, 2).is_err(), "version");
        assert!(with(8, 0x80).is_err(), "stamp");
        assert!(with(9, 4).is_err(), "action");
        assert!(with(13, 0xff).is_err(), "count of guards");
        assert!(with(17, 0xff).is_err(), "count of commands");
        assert!(with(18, 20).is_err(), "command");
        assert!(with(19, DATABASES).is_err(), "database");
        let longer = [&bytes[..], &[0]].concat();
        assert!(Proposal::decode(longer.into()).is_err(), "left over");
    }

    #[test]
    fn what_makes_no_sense_in_later_commands_is_refused() {
        let key = || Key::new("k");
        let ends_in = |command: Command, byte: u8| {
            let mut bytes = run(Batch::of(command)).encode().to_vec();
            *bytes.last_mut().unwrap() = byte;
            Proposal::decode(bytes.into())
        };
        let scan = || Command::Scan { db: 1, cursor: 2, count: 3, pattern: None };
        let (expiry, only) = (Expiry::Keep, Only::IfNone);
        let expire_only = || Command::ExpireOnly { key: key(), expiry, only };
        let rename = || Command::Rename { from: key(), to: key(), replace: true };
        let copy = || Command::Copy { from: key(), to: key(), replace: true };
        assert!(ends_in(scan(), 0).is_ok() && ends_in(scan(), 2).is_err(), "a pattern");
        assert!(ends_in(expire_only(), 4).is_ok() && ends_in(expire_only(), 5).is_err(), "only");
        assert!(ends_in(rename(), 0).is_ok() && ends_in(rename(), 2).is_err(), "replace");
        assert!(ends_in(copy(), 0).is_ok() && ends_in(copy(), 2).is_err(), "replace");
        let clear = || Command::When { tests: vec![], then: vec![Command::Clear { db: Some(1) }] };
        assert!(ends_in(clear(), 15).is_ok() && ends_in(clear(), 16).is_err(), "database");
    }

    /// [Bytes that say how deep we recurse end the process.]
    #[test]
    fn no_condition_is_within_a_condition() {
        let when = |then| Command::When { tests: vec![], then };
        let chain = |then| Command::Chain { tests: vec![], then };
        let clear = || vec![Command::Clear { db: None }];
        for inner in [when(clear()), chain(clear())] {
            let bytes = run(Batch::of(inner.clone())).encode();
            assert!(Proposal::decode(bytes).is_ok());
            let then = || [clear(), vec![inner.clone()]].concat();
            for outer in [when(vec![inner.clone()]), when(then()), chain(then())] {
                let bytes = run(Batch::of(outer)).encode();
                assert_eq!(Proposal::decode(bytes), Err(Malformed("unknown command")));
            }
        }
    }

    #[test]
    fn a_decoded_value_shares_the_memory_of_its_entry() {
        let value = Bytes::from(vec![7; 100]);
        let bytes = run(Batch::of(Command::Set {
            key: Key::new("k"),
            value,
            expiry: Expiry::Never,
            condition: Condition::Always,
        }))
        .encode();
        let decoded = Proposal::decode(bytes.clone()).unwrap();
        let Action::Run { batch, .. } = decoded.action else { panic!("a run") };
        let Command::Set { value, .. } = &batch.commands[0] else { panic!("a set") };
        assert!(bytes.as_ptr_range().contains(&value.as_ptr()));
    }

    #[test]
    fn only_what_stores_bytes_grows() {
        let growth: Vec<u64> =
            every_command().into_iter().map(|c| growth_bytes(&Batch::of(c))).collect();
        let (old, new) = growth.split_at(14);
        assert_eq!(old, [0, 0, 0, 0, 74, 74, 74, 74, 74, 0, 0, 93, 0, 0]);
        let scans_and_reads = [0, 0, 0, 0];
        let edits = [74, 174, 113];
        let deadlines = [0, 0, 0, 0, 0];
        let names = [5, 0, 78];
        let conditions = [0, 74 + 74, 74 + 74];
        let later = [0];
        let expected: [&[u64]; 6] =
            [&scans_and_reads, &edits, &deadlines, &names, &conditions, &later];
        assert_eq!(new, expected.concat());
        assert_eq!(Action::OpenSession.growth_bytes(), SESSION_BYTES);
    }
}
