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

pub mod answer;
pub mod bytes;
pub mod command;
pub mod eviction;
pub mod glob;

use std::time::Duration;

pub use answer::{Answer, Failure, Item, Ttl};
pub use command::{Command, Condition, DATABASES, Expiry, Key, Only, Test};
pub use eviction::{EvictionOrder, EvictionPolicy, MemoryLimit, SMALLEST_MEMORY_BYTES};

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
        let guards = self.guards.iter().map(|guard| command::FIXED_BYTES + guard.key.name.len());
        guards.chain(self.commands.iter().map(Command::size_bytes)).sum()
    }

    /// About how many keys it looks at.
    pub fn work(&self) -> usize {
        // To look at a key among others is less than to look for one.
        let scanned = |command: &Command| match command {
            Command::Scan { count, .. } => *count as usize / 8,
            command => command.parts(),
        };
        self.guards.len() + self.commands.iter().map(scanned).sum::<usize>()
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
    /// Wait until disks have all that this connection has written. Answered with two
    /// [`Answer::Integer`]: how many disks have it besides the leader's, and 1 if that
    /// has, else 0.
    AwaitDurable {
        /// So many besides the leader's,
        others: u32,
        /// and that, too.
        own: bool,
        /// For so long, or for half as long as any request may take.
        within: Duration,
    },
    /// How lately and how often a key is used, as this node has seen. Answered by
    /// itself with two [`Answer::Integer`]: seconds since the last use, and the
    /// frequency on a scale of logarithms to 255; with no [`Answer::Item`] if the key
    /// is not there. To ask is not to use it.
    Usage(Key),
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
            Self::Usage(key) => FIXED + key.name.len(),
            Self::Ping
            | Self::OpenSession
            | Self::Members
            | Self::Status
            | Self::AwaitDurable { .. } => FIXED,
        }
    }

    /// A word for it, for statistics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Run { batch, .. } => match &batch.commands[..] {
                [command] => command.name(),
                _ => "batch",
            },
            Self::OpenSession => "open_session",
            Self::Join { .. } => "join",
            Self::Leave { .. } => "leave",
            Self::Members => "members",
            Self::Transfer { .. } => "transfer",
            Self::Status => "status",
            Self::AwaitDurable { .. } => "await_durable",
            Self::Usage(_) => "usage",
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

/// What is told, as [`ErrorKind::Unknown`], in place of a reply that nobody could take.
pub const TOO_LARGE_TO_SEND: &str = "done, but the reply is too large to send";

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

impl Reply {
    /// About how many bytes it holds in memory, and takes when it is written.
    pub fn size_bytes(&self) -> usize {
        // Status and members are a few kilobytes.
        const OTHERS: usize = 4 << 10;
        match self {
            Self::Answers(answers) => answers.iter().map(Answer::size_bytes).sum(),
            Self::Pong | Self::Done | Self::GuardFailed | Self::SessionOpened { .. } => 0,
            Self::Error(_, reason) => reason.len(),
            Self::Members(_) | Self::Status(_) => OTHERS,
        }
    }
}

/// Why a request failed. See each for whether it may have had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

impl ErrorKind {
    /// A word for it, for scripts and statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NoLeader => "no_leader",
            Self::Unknown => "unknown",
            Self::OutOfMemory => "out_of_memory",
            Self::DiskFull => "disk_full",
            Self::Busy => "busy",
            Self::SessionExpired => "session_expired",
            Self::Refused => "refused",
            Self::NotServing => "not_serving",
        }
    }
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
    /// The last entry on its disk, if the answering node leads and so knows.
    pub durable: Option<u64>,
}

/// What part a node has in its cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
    #[default]
    Joining,
}

impl RoleName {
    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
            Self::Learner => "learner",
            Self::Joining => "joining",
        }
    }
}

/// How one node is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
