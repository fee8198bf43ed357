//! What is bounded, and by how much.

use crate::request::{Batch, Command, DATABASES, Key};

/// The longest value that `Append` and `SetRange` make. Part of the log's format:
/// another number is another state.
pub const GROWN_VALUE_BYTES: usize = 16 << 20;

/// How many keys one `Scan` looks at, whatever it asks for; it ends with the leaf
/// in which it comes to as many. Part of the log's format, for a reply is kept.
pub const SCANNED_KEYS: u32 = 10_000;

/// How many bytes of values one entry may copy or alter. Part of the log's format.
/// Admission estimates that, and here is what holds if it was wrong: an entry that
/// takes minutes to apply would take them on every node, at every start.
pub const ENTRY_WORK_BYTES: usize = 64 << 20;

/// How many bytes of values the answers of one entry may hold. A reply that holds more
/// is told to nobody anyway, and until it is, each value that is altered meanwhile is
/// there twice. Part of the log's format, for a reply is kept.
pub const ENTRY_ANSWER_BYTES: usize = 64 << 20;

/// How many keys all scans of a batch look at; checked at admission.
pub const BATCH_SCANNED_KEYS: usize = 100_000;

/// The longest pattern of names.
pub const PATTERN_BYTES: usize = 1 << 10;

/// Bounds, each with its unit; all but those on sessions are a node's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest name of a key; checked at admission.
    pub key_bytes: usize,
    /// Longest value; checked at admission.
    pub value_bytes: usize,
    /// Commands and guards of one batch; checked at admission.
    pub batch_commands: usize,
    /// Names and values of one batch together; checked at admission.
    pub batch_bytes: usize,
    /// What the values that one batch alters may hold together; checked at admission.
    pub batch_altered_bytes: usize,
    /// Those on sessions.
    pub sessions: SessionLimits,
    /// What a snapshot under way may hold in memory beside the data set; it is
    /// given up beyond.
    pub snapshot_retained_bytes: u64,
}

/// Bounds on sessions. They decide what an entry of the log does, so they are no
/// settings but part of the log's format, as [`DUE_PER_ENTRY`](super::DUE_PER_ENTRY)
/// is: nodes that disagreed on them would come to different states. Nobody outside
/// the state machine can make others.
///
/// ```compile_fail,E0451
/// use raftcache::fsm::limits::SessionLimits;
/// let others = SessionLimits { window: 1, ..SessionLimits::FORMAT };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionLimits {
    /// How far apart the sequences of one session's outstanding writes may be.
    pub(super) window: u64,
    /// How many sessions there are at most; the longest idle make way.
    pub(super) count: usize,
    /// After how much log time without use a session ends.
    pub(super) idle_ms: u64,
    /// What one session may count in memory; its oldest replies make way.
    pub(super) replies_bytes: u64,
    /// What all sessions may count in memory; the longest idle make way.
    pub(super) total_bytes: u64,
}

impl SessionLimits {
    /// Those of version 1 of a [`Proposal`](super::Proposal).
    pub const FORMAT: Self = Self {
        window: 1024,
        count: 10_000,
        idle_ms: 60 * 60 * 1000,
        replies_bytes: 256 << 10,
        total_bytes: 64 << 20,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes: 64 << 10,
            value_bytes: 16 << 20,
            batch_commands: 10_000,
            batch_bytes: 32 << 20,
            batch_altered_bytes: ENTRY_WORK_BYTES,
            sessions: SessionLimits::FORMAT,
            snapshot_retained_bytes: 256 << 20,
        }
    }
}

impl Limits {
    /// Whether a batch is within the bounds on keys, values and their number.
    pub fn check(&self, batch: &Batch) -> Result<(), String> {
        let count: usize = batch.commands.iter().map(Command::parts).sum();
        let count = batch.guards.len() + count;
        within("commands in a batch", count, self.batch_commands)?;
        let mut bytes = 0;
        for guard in &batch.guards {
            bytes += self.check_key(&guard.key)?;
        }
        for command in &batch.commands {
            bytes += self.check_command(command)?;
        }
        within("bytes in a batch", bytes, self.batch_bytes)?;
        let scanned = |command: &Command| match command {
            Command::Scan { count, .. } => (*count).min(SCANNED_KEYS) as usize,
            _ => 0,
        };
        let scanned = batch.commands.iter().flat_map(Command::steps).map(scanned).sum();
        within("keys to scan in a batch", scanned, BATCH_SCANNED_KEYS)
    }

    /// Whether a batch of several commands may alter values of so many bytes.
    pub(super) fn check_altered(&self, bytes: u64) -> Result<(), String> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        within("bytes altered in a batch", bytes, self.batch_altered_bytes)
    }

    fn check_command(&self, command: &Command) -> Result<usize, String> {
        let (mut bytes, mut result) = (0, Ok(()));
        for database in command.steps().iter().filter_map(Command::database) {
            check_db(database)?;
        }
        command.each_key(&mut |key| match self.check_key(key) {
            Ok(length) => bytes += length,
            Err(reason) => result = Err(reason),
        });
        command.each_value(&mut |value| {
            bytes += value.len();
            if value.len() > self.value_bytes {
                result = within("bytes of value", value.len(), self.value_bytes);
            }
        });
        for command in command.steps() {
            if let Command::Scan { pattern: Some(pattern), .. } = command {
                within("bytes of pattern", pattern.len(), PATTERN_BYTES)?;
            }
        }
        let mut hashes = false;
        command.each_condition(&mut |_, condition| hashes |= condition.hashes());
        if hashes && !command.is_write() {
            return Err("a value is hashed for a read".to_owned());
        }
        let is_nested =
            |command: &Command| matches!(command, Command::When { .. } | Command::Chain { .. });
        if is_nested(command) && command.steps().iter().any(is_nested) {
            return Err("a condition within a condition".to_owned());
        }
        result.map(|()| bytes)
    }

    fn check_key(&self, key: &Key) -> Result<usize, String> {
        check_db(key.db)?;
        within("bytes of key", key.name.len(), self.key_bytes)?;
        Ok(key.name.len())
    }
}

fn check_db(db: u8) -> Result<(), String> {
    if db < DATABASES { Ok(()) } else { Err(format!("there is no database {db}")) }
}

fn within(what: &str, found: usize, limit: usize) -> Result<(), String> {
    if found <= limit { Ok(()) } else { Err(format!("{found} {what} exceed the limit of {limit}")) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::request::{Condition, Expiry, Guard, Only, Test};

    fn set(name: usize, value: usize, condition: Condition) -> Command {
        Command::Set {
            key: Key::new(vec![0; name]),
            value: vec![0; value].into(),
            expiry: Expiry::Never,
            condition,
        }
    }

    /// Logs were applied by these: other numbers need another version of a proposal,
    /// and these have to stay for the entries of the old one.
    #[test]
    fn the_limits_on_sessions_are_pinned() {
        let SessionLimits { window, count, idle_ms, replies_bytes, total_bytes } =
            Limits::default().sessions;
        let found = [window, count as u64, idle_ms, replies_bytes, total_bytes];
        assert_eq!(found, [1024, 10_000, 3_600_000, 262_144, 67_108_864]);
    }

    fn limited(command: Command) -> Result<(), String> {
        let limits = Limits {
            key_bytes: 4,
            value_bytes: 8,
            batch_commands: 3,
            batch_bytes: 20,
            ..Limits::default()
        };
        limits.check(&Batch::of(command))
    }

    /// Every key and every value counts, wherever a command has it.
    #[test]
    fn what_later_commands_bring_along_is_bounded() {
        let name = |length: usize| Key::new(vec![b'k'; length]);
        let bytes = |length: usize| Bytes::from(vec![b'v'; length]);
        let append = |key, value| Command::Append { key: name(key), value: bytes(value) };
        let when = |tests: Vec<(usize, usize)>, then| {
            let test =
                |(key, value)| Test { key: name(key), condition: Condition::IfValue(bytes(value)) };
            Command::When { tests: tests.into_iter().map(test).collect(), then }
        };
        let only = Only::IfAny;
        let with_key: [&dyn Fn(usize) -> Command; 10] = [
            &|n| Command::Deadline(name(n)),
            &|n| append(n, 0),
            &|n| Command::SetRange { key: name(n), offset: 0, value: bytes(0) },
            &|n| Command::IncrementFloat { key: name(n), by: bytes(0) },
            &|n| Command::ExpireOnly { key: name(n), expiry: Expiry::AtMs(1), only },
            &|n| Command::Rename { from: name(n), to: name(0), replace: true },
            &|n| Command::Rename { from: name(0), to: name(n), replace: true },
            &|n| Command::Copy { from: name(0), to: name(n), replace: true },
            &|n| when(vec![(n, 0)], vec![]),
            &|n| when(vec![], vec![append(0, 0), append(n, 0)]),
        ];
        for with_key in with_key {
            assert_eq!(limited(with_key(4)), Ok(()));
            let reason = "5 bytes of key exceed the limit of 4";
            assert_eq!(limited(with_key(5)), Err(reason.to_owned()), "{:?}", with_key(5));
        }
        let with_value: [&dyn Fn(usize) -> Command; 6] = [
            &|n| append(0, n),
            &|n| Command::SetRange { key: name(0), offset: 0, value: bytes(n) },
            &|n| Command::IncrementFloat { key: name(0), by: bytes(n) },
            &|n| Command::Scan { db: 0, cursor: 0, count: 1, pattern: Some(bytes(n)) },
            &|n| when(vec![(0, n)], vec![]),
            &|n| when(vec![], vec![append(0, n)]),
        ];
        for with_value in with_value {
            assert_eq!(limited(with_value(8)), Ok(()));
            let reason = "9 bytes of value exceed the limit of 8";
            assert_eq!(limited(with_value(9)), Err(reason.to_owned()), "{:?}", with_value(9));
        }
        let sum = when(vec![(4, 8)], vec![append(4, 5)]);
        assert_eq!(limited(sum), Err("21 bytes in a batch exceed the limit of 20".to_owned()));
        let parts = when(vec![(0, 0)], vec![append(0, 0); 2]);
        assert_eq!(limited(parts), Err("4 commands in a batch exceed the limit of 3".to_owned()));
        let chain = |then| Command::Chain { tests: vec![], then };
        for inner in [when(vec![], vec![]), chain(vec![])] {
            for outer in [when(vec![], vec![inner.clone()]), chain(vec![inner])] {
                assert_eq!(limited(outer), Err("a condition within a condition".to_owned()));
            }
        }
        assert_eq!(limited(chain(vec![append(0, 0); 2])), Ok(()));
        let parts = "4 commands in a batch exceed the limit of 3";
        assert_eq!(limited(chain(vec![append(0, 0); 3])), Err(parts.to_owned()));
        let scan = Command::Scan { db: 16, cursor: 0, count: 1, pattern: None };
        let reason = "there is no database 16".to_owned();
        assert_eq!(limited(scan.clone()), Err(reason.clone()));
        assert_eq!(limited(when(vec![], vec![scan])), Err(reason.clone()));
        let away = Key { db: 16, name: "k".into() };
        let rename = Command::Rename { from: name(1), to: away, replace: true };
        assert_eq!(limited(rename), Err(reason));
    }

    #[test]
    fn a_batch_is_refused_for_a_reason_that_can_be_told() {
        let limits = Limits {
            key_bytes: 4,
            value_bytes: 8,
            batch_commands: 3,
            batch_bytes: 20,
            ..Limits::default()
        };
        let check = |commands: Vec<Command>| limits.check(&Batch { guards: vec![], commands });
        assert_eq!(check(vec![set(4, 8, Condition::Always), Command::Clear { db: None }]), Ok(()));
        let refused = |commands, reason: &str| assert_eq!(check(commands), Err(reason.to_owned()));
        refused(vec![Command::Get(Key::new("12345"))], "5 bytes of key exceed the limit of 4");
        let value = "9 bytes of value exceed the limit of 8";
        refused(vec![set(1, 9, Condition::Always)], value);
        refused(vec![set(1, 1, Condition::IfValue(vec![0; 9].into()))], value);
        refused(
            vec![set(4, 8, Condition::Always); 2],
            "24 bytes in a batch exceed the limit of 20",
        );
        refused(
            vec![Command::Clear { db: None }; 4],
            "4 commands in a batch exceed the limit of 3",
        );
        refused(vec![Command::Count { db: 16 }], "there is no database 16");
        let when = |command| vec![Command::When { tests: vec![], then: vec![command] }];
        refused(when(Command::Clear { db: Some(16) }), "there is no database 16");
        let guard = Guard { key: Key { db: 99, name: "".into() }, version: 0 };
        let guarded = Batch { guards: vec![guard], commands: vec![] };
        assert_eq!(limits.check(&guarded), Err("there is no database 99".to_owned()));
    }
}
