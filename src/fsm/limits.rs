//! What is bounded, and by how much.

use crate::request::{Batch, Command, Condition, DATABASES, Key};

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
            sessions: SessionLimits::FORMAT,
            snapshot_retained_bytes: 256 << 20,
        }
    }
}

impl Limits {
    /// Whether a batch may be proposed or run as a query; else what to tell the
    /// client, with [`ErrorKind::Invalid`](crate::request::ErrorKind::Invalid).
    ///
    /// What is in the log has passed, and applying it checks nothing.
    pub fn check(&self, batch: &Batch) -> Result<(), String> {
        let count = batch.guards.len() + batch.commands.len();
        within("commands in a batch", count, self.batch_commands)?;
        let mut bytes = 0;
        for guard in &batch.guards {
            bytes += self.check_key(&guard.key)?;
        }
        for command in &batch.commands {
            bytes += self.check_command(command)?;
        }
        within("bytes in a batch", bytes, self.batch_bytes)
    }

    fn check_command(&self, command: &Command) -> Result<usize, String> {
        match command {
            Command::Get(key)
            | Command::Exists(key)
            | Command::Ttl(key)
            | Command::Delete(key)
            | Command::Expire { key, .. }
            | Command::Increment { key, .. } => self.check_key(key),
            Command::Count { db } | Command::Clear { db: Some(db) } => check_db(*db),
            Command::Clear { db: None } => Ok(0),
            Command::Set { key, value, condition, .. } => {
                let expected = match condition {
                    Condition::IfValue(expected) => expected.len(),
                    _ => 0,
                };
                within("bytes of value", value.len(), self.value_bytes)?;
                within("bytes of value", expected, self.value_bytes)?;
                Ok(self.check_key(key)? + value.len() + expected)
            }
        }
    }

    fn check_key(&self, key: &Key) -> Result<usize, String> {
        check_db(key.db)?;
        within("bytes of key", key.name.len(), self.key_bytes)?;
        Ok(key.name.len())
    }
}

fn check_db(db: u8) -> Result<usize, String> {
    if db < DATABASES { Ok(0) } else { Err(format!("there is no database {db}")) }
}

fn within(what: &str, found: usize, limit: usize) -> Result<(), String> {
    if found <= limit { Ok(()) } else { Err(format!("{found} {what} exceed the limit of {limit}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Expiry, Guard};

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
        let guard = Guard { key: Key { db: 99, name: "".into() }, version: 0 };
        let guarded = Batch { guards: vec![guard], commands: vec![] };
        assert_eq!(limits.check(&guarded), Err("there is no database 99".to_owned()));
    }
}
