//! The words every front end translates into.
//!
//! A codec turns bytes into a [`Request`] and a [`Reply`] into bytes; a replica
//! answers one with the other. Nothing here knows a wire format, the log or a
//! clock, so a new front end needs no change below it. The log and the nodes
//! among themselves have one encoding for these words: [`bytes`](mod@bytes).
//!
//! The unit of work is a [`Batch`]: commands that take effect together, at one
//! position of the log. A batch of reads alone never enters the log. A batch
//! with any write is one entry, its reads included (Redis' MULTI/EXEC), and its
//! guards are decided where it is applied (WATCH). Most batches hold one
//! command.

pub mod bytes;

use ::bytes::Bytes;

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
    /// Answered with [`Answer::Integer`]: 1 if the key was there (with `Never`:
    /// if it had a deadline), else 0.
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
}

impl Command {
    /// Whether it may change the key space, and so has to enter the log.
    pub fn is_write(&self) -> bool {
        match self {
            Self::Get(_) | Self::Exists(_) | Self::Ttl(_) | Self::Count { .. } => false,
            Self::Set { .. }
            | Self::Delete(_)
            | Self::Expire { .. }
            | Self::Increment { .. }
            | Self::Clear { .. } => true,
        }
    }
}

/// Names one write of one session, so that a retry is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionStamp {
    /// The session, as [`Reply::SessionOpened`] named it.
    pub session: u64,
    /// Counts the session's writes from 1.
    pub sequence: u64,
}

/// A key that must not have changed since its version was read (WATCH).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Which.
    pub key: Key,
    /// The version seen; 0 means absent.
    pub version: u64,
}

/// Commands that take effect together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// If any of them does not hold, nothing takes effect and the reply is
    /// [`Reply::GuardFailed`].
    pub guards: Vec<Guard>,
    /// In order; each sees the effects of those before it.
    pub commands: Vec<Command>,
}

impl Batch {
    /// A batch of one.
    pub fn of(command: Command) -> Self {
        Self { guards: Vec::new(), commands: vec![command] }
    }

    /// About how many bytes it holds in memory.
    pub fn size_bytes(&self) -> usize {
        const FIXED: usize = 96;
        let bytes = |command: &Command| match command {
            Command::Get(key) | Command::Exists(key) | Command::Ttl(key) | Command::Delete(key) => {
                key.name.len()
            }
            Command::Expire { key, .. } | Command::Increment { key, .. } => key.name.len(),
            Command::Set { key, value, condition, .. } => {
                let expected = match condition {
                    Condition::IfValue(expected) => expected.len(),
                    _ => 0,
                };
                key.name.len() + value.len() + expected
            }
            Command::Count { .. } | Command::Clear { .. } => 0,
        };
        let guards = self.guards.iter().map(|guard| FIXED + guard.key.name.len());
        guards.chain(self.commands.iter().map(|c| FIXED + bytes(c))).sum()
    }

    /// Whether it has to enter the log. Guards alone are a read.
    pub fn is_write(&self) -> bool {
        self.commands.iter().any(Command::is_write)
    }
}

/// How fresh a read has to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Consistency {
    /// It sees every write that was acknowledged before it began, on any node.
    #[default]
    Linearizable,
    /// Whatever this node has applied, at once; never older than what this
    /// connection wrote or saw here before.
    Stale,
}

/// What a client can ask of any node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Is the node there? Answered by itself with [`Reply::Pong`].
    Ping,
    /// Read or write. Answered with [`Reply::Answers`], one per command.
    Run {
        /// What.
        batch: Batch,
        /// For a batch without writes.
        consistency: Consistency,
        /// For a batch with a write.
        session: Option<SessionStamp>,
    },
    /// Open a session. Answered with [`Reply::SessionOpened`].
    OpenSession,
    /// Add a node, or tell a member's new address. Answered with [`Reply::Done`].
    Join {
        /// The newcomer's name.
        name: String,
        /// Where its peers reach it; an empty or unspecified host means where
        /// the request came from.
        peer_address: String,
    },
    /// Remove a member for good. Answered with [`Reply::Done`].
    Leave {
        /// Its name, or one of its addresses.
        name: String,
    },
    /// Who belongs to the cluster. Answered with [`Reply::Members`].
    Members,
    /// Hand leadership over. Answered with [`Reply::Done`].
    Transfer {
        /// To whom; `None` for the most caught-up voter.
        to: Option<String>,
    },
    /// How this node is. Answered by itself with [`Reply::Status`].
    Status,
}

impl Request {
    /// About how many bytes it holds in memory.
    pub fn size_bytes(&self) -> usize {
        const FIXED: usize = 128;
        match self {
            Self::Run { batch, .. } => FIXED + batch.size_bytes(),
            Self::Join { name, peer_address } => FIXED + name.len() + peer_address.len(),
            Self::Leave { name } => FIXED + name.len(),
            Self::Transfer { to } => FIXED + to.as_ref().map_or(0, String::len),
            Self::Ping | Self::OpenSession | Self::Members | Self::Status => FIXED,
        }
    }

    /// A linearizable read or a plain write of one command.
    pub fn run(command: Command) -> Self {
        Self::Run {
            batch: Batch::of(command),
            consistency: Consistency::Linearizable,
            session: None,
        }
    }
}

/// The result of one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done, nothing more to say.
    Done,
    /// A `Set` took effect; the version the key has now.
    Stored {
        /// The log index of the write.
        version: u64,
    },
    /// A `Set` whose condition did not hold.
    NotStored {
        /// The version the key has; 0 if it is absent.
        version: u64,
    },
    /// A value, `None` if the key is absent.
    Item(Option<Item>),
    /// A count, a flag or a number.
    Integer(i64),
    /// Time left.
    Ttl(Ttl),
    /// This command had no effect, for a reason that lies in the data.
    Failed(Failure),
}

/// A value and the version it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The bytes stored.
    pub value: Bytes,
    /// The log index of the key's last write.
    pub version: u64,
}

/// Time left to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// There is no such key.
    Absent,
    /// It stays.
    Never,
    /// It goes away in this many milliseconds, at least 1.
    Ms(u64),
}

/// Why a command had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// `Increment` of something that is no 64-bit decimal integer.
    #[error("value is not an integer or out of range")]
    NotAnInteger,
    /// `Increment` past the ends of i64.
    #[error("increment or decrement would overflow")]
    Overflow,
    /// A deadline beyond what a clock can say.
    #[error("invalid expire time")]
    InvalidExpiry,
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To `Ping`.
    Pong,
    /// Done, nothing more to say.
    Done,
    /// One per command of the batch.
    Answers(Vec<Answer>),
    /// A guard did not hold; nothing took effect.
    GuardFailed,
    /// To `OpenSession`.
    SessionOpened {
        /// The log index of the entry that opened it.
        session: u64,
    },
    /// To `Members`.
    Members(Vec<MemberInfo>),
    /// To `Status`.
    Status(Box<Status>),
    /// The request had no effect, unless the kind is `Unknown`.
    Error(ErrorKind, String),
}

/// Why a request failed. See each for whether it may have had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request makes no sense, or breaks a limit. No effect.
    Invalid,
    /// No leader in time. Surely no effect.
    NoLeader,
    /// It may or may not have taken effect.
    Unknown,
    /// The data set has reached its memory limit. No effect.
    OutOfMemory,
    /// The disk is full or too slow. No effect.
    DiskFull,
    /// Queues are full. No effect.
    Busy,
    /// The session is unknown or expired; the write was not executed now. One of
    /// which a session no longer knows what became is `Unknown`.
    SessionExpired,
    /// Refused by a rule of the cluster (membership, transfer). No effect.
    Refused,
    /// This node cannot vouch for its state and does not serve. No effect.
    NotServing,
}

/// One member, as the effective configuration knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its name.
    pub name: String,
    /// Its incarnation.
    pub node: u128,
    /// Where its peers reach it.
    pub peer_address: String,
    /// Where clients reach it.
    pub client_address: String,
    /// Whether it counts in the quorum.
    pub voter: bool,
    /// Whether it leads, as far as the answering node knows.
    pub leader: bool,
}

/// What part a node has in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleName {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether an election could be won, or runs one.
    Candidate,
    /// Leads.
    Leader,
    /// Is being caught up and does not count yet.
    Learner,
    /// Has not joined a cluster yet.
    Joining,
}

/// How one node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Its incarnation.
    pub node: u128,
    /// Its cluster; 0 before it joined one.
    pub cluster: u128,
    /// Its part.
    pub role: RoleName,
    /// The leader's name, if one is known.
    pub leader: Option<String>,
    /// Current term.
    pub term: u64,
    /// Index of the last log entry.
    pub last: u64,
    /// Index of the last entry on this node's disk.
    pub durable: u64,
    /// Index of the last entry known to be committed.
    pub commit: u64,
    /// Index of the last entry applied.
    pub applied: u64,
    /// Bytes of journal on disk.
    pub log_bytes: u64,
    /// Keys stored, expired but unremoved ones included.
    pub keys: u64,
    /// Bytes the data set counts as.
    pub memory_bytes: u64,
    /// The limit on `memory_bytes`.
    pub memory_limit_bytes: u64,
    /// Hash of the applied state.
    pub state_hash: u64,
    /// The cluster's own clock, milliseconds since 1970.
    pub log_time_ms: u64,
    /// How far the cluster's own clock is ahead of this node's wall clock.
    pub clock_offset_ms: i64,
    /// The members, as this node knows them.
    pub members: Vec<MemberInfo>,
    /// What a person should look at, empty if all is well.
    pub warnings: Vec<String>,
}
