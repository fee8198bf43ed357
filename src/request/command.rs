//! The operations on the key space.

use bytes::Bytes;

#[cfg(doc)]
use super::Answer;

/// Databases are numbered 0 to 15.
pub const DATABASES: u8 = 16;

/// A key: a byte string in one of sixteen databases.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The database, below [`DATABASES`].
    pub db: u8,
    /// The name; may be empty.
    pub name: Bytes,
}

impl Key {
    /// A key of database 0.
    pub fn new(name: impl Into<Bytes>) -> Self {
        Self { db: 0, name: name.into() }
    }
}

/// When a key goes away by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Never; an earlier deadline is cleared.
    Never,
    /// As before the command.
    Keep,
    /// This many milliseconds after the command takes effect.
    AfterMs(u64),
    /// At this many milliseconds since 1970 of the cluster's own clock.
    AtMs(u64),
    /// This many milliseconds later than before, or earlier if negative. Where there
    /// is no deadline, none.
    LaterMs(i64),
}

/// What must hold for a `Set` to take effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// The key is absent (NX).
    IfAbsent,
    /// The key is present (XX).
    IfPresent,
    /// The key is present and holds exactly this value.
    IfValue(Bytes),
    /// The key's version is this one; 0 means absent.
    IfVersion(u64),
    /// The key is absent or holds another value.
    UnlessValue(Bytes),
    /// The key is present and its value has this XXH3 of 64 bits.
    IfDigest(u64),
    /// The key is absent or its value has another one.
    UnlessDigest(u64),
}

/// One operation on the key space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Value and version of a key. Answered with [`Answer::Item`].
    Get(Key),
    /// Whether a key is present. Answered with [`Answer::Integer`] 0 or 1.
    Exists(Key),
    /// Time left. Answered with [`Answer::Ttl`].
    Ttl(Key),
    /// How many keys a database holds, expired ones not counted.
    /// Answered with [`Answer::Integer`].
    Count {
        /// The database.
        db: u8,
    },
    /// How many of those have a deadline. Answered with [`Answer::Integer`].
    CountExpiring {
        /// The database.
        db: u8,
    },
    /// Store a value. Answered with [`Answer::Stored`] or [`Answer::NotStored`].
    Set {
        /// Where.
        key: Key,
        /// What.
        value: Bytes,
        /// For how long.
        expiry: Expiry,
        /// Only if.
        condition: Condition,
    },
    /// Remove a key. Answered with [`Answer::Integer`] 0 or 1.
    Delete(Key),
    /// Give a present key a deadline. A deadline that is not in the future
    /// removes the key; `Never` takes its deadline away; `Keep` changes nothing.
    /// Answered with [`Answer::Integer`]: 1 if the key was there (with `Never` and
    /// `LaterMs`: if it had a deadline), else 0.
    Expire {
        /// Which.
        key: Key,
        /// When.
        expiry: Expiry,
    },
    /// Add to a decimal integer, absent counting as 0; the deadline stays.
    /// Answered with [`Answer::Integer`], the new value, or [`Answer::Failed`].
    Increment {
        /// Which.
        key: Key,
        /// How much, negative to subtract.
        by: i64,
    },
    /// Remove every key of one database, or of all. Answered with [`Answer::Done`].
    Clear {
        /// Which database; `None` for all.
        db: Option<u8>,
    },
    /// When a key goes away: [`Answer::Ttl`] with the moment, in milliseconds since
    /// 1970, in place of the time left.
    Deadline(Key),
    /// Some of a database's keys, in an order of their own, so that every key that
    /// is there throughout a walk is met once, whatever comes and goes meanwhile.
    /// Answered with [`Answer::Names`].
    Scan {
        /// The database.
        db: u8,
        /// Where to go on, as the answer before said; 0 at the beginning.
        cursor: u64,
        /// About how many keys to look at.
        count: u32,
        /// Only names that match this glob; all if `None`.
        pattern: Option<Bytes>,
    },
    /// Append to a value, absent counting as empty; the deadline stays.
    /// Answered with [`Answer::Integer`], the new length, or [`Answer::Failed`].
    Append {
        /// Which.
        key: Key,
        /// What.
        value: Bytes,
    },
    /// Write over a part of a value, with zeros in a gap before it; the deadline
    /// stays. Nothing, to an absent key, is nothing. Answered as `Append`.
    SetRange {
        /// Which.
        key: Key,
        /// From which byte on.
        offset: u32,
        /// What.
        value: Bytes,
    },
    /// Add to a decimal number, absent counting as 0; the deadline stays.
    /// Answered with [`Answer::Item`], the new value, or [`Answer::Failed`].
    IncrementFloat {
        /// Which.
        key: Key,
        /// How much, in decimal.
        by: Bytes,
    },
    /// As `Expire`, where the key's deadline is what `only` says.
    ExpireOnly {
        /// Which.
        key: Key,
        /// When; not `Never` or `Keep`.
        expiry: Expiry,
        /// Only if.
        only: Only,
    },
    /// Give a key another name; its deadline goes with it. Answered with
    /// [`Answer::Integer`], 0 if `to` is there and stays, or [`Answer::Failed`].
    Rename {
        /// The old name.
        from: Key,
        /// The new one.
        to: Key,
        /// Whether it may take the place of another key.
        replace: bool,
    },
    /// Copy a key, with its deadline. Answered as `Rename`.
    Copy {
        /// The original.
        from: Key,
        /// The copy.
        to: Key,
        /// Whether it may take the place of another key.
        replace: bool,
    },
    /// Run some commands if all tests hold, none of them a `When` or a `Chain`.
    /// Answered with [`Answer::Nested`].
    When {
        /// What has to hold.
        tests: Vec<Test>,
        /// What is done then.
        then: Vec<Command>,
    },
    /// As `When`, but the first command that fails is the last: those after it are
    /// neither run nor answered.
    Chain {
        /// What has to hold.
        tests: Vec<Test>,
        /// What is done then, one after the other.
        then: Vec<Command>,
    },
}

/// What must hold of a key's deadline for an `ExpireOnly` to take effect. A key
/// without one goes away later than any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// It has none (NX).
    IfNone,
    /// It has one (XX).
    IfAny,
    /// The new one is later (GT).
    IfLater,
    /// The new one is earlier (LT).
    IfEarlier,
    /// It has one, and the new one is earlier (XX LT).
    IfAnyAndEarlier,
}

/// What must hold of a key for a `When` to take effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// Which.
    pub key: Key,
    /// What.
    pub condition: Condition,
}

/// What each command counts in memory besides its bytes.
pub(super) const FIXED_BYTES: usize = 96;

impl Command {
    /// Whether it may change the key space, and so has to enter the log.
    pub fn is_write(&self) -> bool {
        match self {
            Self::Get(_)
            | Self::Exists(_)
            | Self::Ttl(_)
            | Self::Deadline(_)
            | Self::Count { .. }
            | Self::CountExpiring { .. }
            | Self::Scan { .. } => false,
            Self::Set { .. }
            | Self::Delete(_)
            | Self::Expire { .. }
            | Self::ExpireOnly { .. }
            | Self::Increment { .. }
            | Self::IncrementFloat { .. }
            | Self::Append { .. }
            | Self::SetRange { .. }
            | Self::Rename { .. }
            | Self::Copy { .. }
            | Self::Clear { .. } => true,
            Self::When { then, .. } | Self::Chain { then, .. } => then.iter().any(Self::is_write),
        }
    }

    /// A word for it, for statistics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Get(_) => "get",
            Self::Exists(_) => "exists",
            Self::Ttl(_) | Self::Deadline(_) => "ttl",
            Self::Count { .. } | Self::CountExpiring { .. } => "count",
            Self::Scan { .. } => "scan",
            Self::Set { .. } => "set",
            Self::Delete(_) => "delete",
            Self::Expire { .. } | Self::ExpireOnly { .. } => "expire",
            Self::Increment { .. } | Self::IncrementFloat { .. } => "increment",
            Self::Append { .. } => "append",
            Self::SetRange { .. } => "set_range",
            Self::Rename { .. } => "rename",
            Self::Copy { .. } => "copy",
            Self::Clear { .. } => "clear",
            Self::When { .. } => "when",
            Self::Chain { .. } => "chain",
        }
    }

    /// Shows the keys that it names, those of its parts included.
    pub fn each_key<'a>(&'a self, see: &mut dyn FnMut(&'a Key)) {
        match self {
            Self::Get(key)
            | Self::Exists(key)
            | Self::Ttl(key)
            | Self::Deadline(key)
            | Self::Delete(key)
            | Self::Set { key, .. }
            | Self::Expire { key, .. }
            | Self::ExpireOnly { key, .. }
            | Self::Increment { key, .. }
            | Self::IncrementFloat { key, .. }
            | Self::Append { key, .. }
            | Self::SetRange { key, .. } => see(key),
            Self::Rename { from, to, .. } | Self::Copy { from, to, .. } => {
                see(from);
                see(to);
            }
            Self::When { tests, then } | Self::Chain { tests, then } => {
                tests.iter().for_each(|test| see(&test.key));
                then.iter().for_each(|command| command.each_key(see));
            }
            Self::Count { .. }
            | Self::CountExpiring { .. }
            | Self::Scan { .. }
            | Self::Clear { .. } => {}
        }
    }

    /// A database that it names other than by a key. The parts of a `When` or a
    /// `Chain` have one each.
    pub fn database(&self) -> Option<u8> {
        match self {
            Self::Count { db } | Self::CountExpiring { db } | Self::Scan { db, .. } => Some(*db),
            Self::Clear { db } => *db,
            _ => None,
        }
    }

    /// Shows the values that it brings along, those to compare with included.
    pub fn each_value<'a>(&'a self, see: &mut dyn FnMut(&'a Bytes)) {
        match self {
            Self::Set { value, condition, .. } => {
                see(value);
                condition.value().into_iter().for_each(see);
            }
            Self::Append { value, .. } | Self::SetRange { value, .. } => see(value),
            Self::IncrementFloat { by, .. } => see(by),
            Self::Scan { pattern: Some(pattern), .. } => see(pattern),
            Self::When { tests, then } | Self::Chain { tests, then } => {
                tests.iter().filter_map(|test| test.condition.value()).for_each(&mut *see);
                then.iter().for_each(|command| command.each_value(see));
            }
            _ => {}
        }
    }

    /// Itself, or what a `When` or a `Chain` may run.
    pub fn steps(&self) -> &[Self] {
        match self {
            Self::When { then, .. } | Self::Chain { then, .. } => then,
            command => std::slice::from_ref(command),
        }
    }

    /// Shows each key whose condition this is.
    pub fn each_condition<'a>(&'a self, see: &mut dyn FnMut(&'a Key, &'a Condition)) {
        match self {
            Self::Set { key, condition, .. } => see(key, condition),
            Self::When { tests, then } | Self::Chain { tests, then } => {
                tests.iter().for_each(|test| see(&test.key, &test.condition));
                then.iter().for_each(|command| command.each_condition(see));
            }
            _ => {}
        }
    }

    /// How many commands and tests it is.
    pub fn parts(&self) -> usize {
        match self {
            Self::When { tests, then } | Self::Chain { tests, then } => {
                1 + tests.len() + then.len()
            }
            _ => 1,
        }
    }

    /// About how many bytes it holds in memory.
    pub fn size_bytes(&self) -> usize {
        let mut bytes = FIXED_BYTES * self.parts();
        self.each_key(&mut |key| bytes += key.name.len());
        self.each_value(&mut |value| bytes += value.len());
        bytes
    }
}

impl Condition {
    /// The value that it compares with.
    fn value(&self) -> Option<&Bytes> {
        match self {
            Self::IfValue(value) | Self::UnlessValue(value) => Some(value),
            _ => None,
        }
    }

    /// Whether the whole value of the key has to be hashed to judge it.
    pub fn hashes(&self) -> bool {
        matches!(self, Self::IfDigest(_) | Self::UnlessDigest(_))
    }
}
