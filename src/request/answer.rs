//! What the operations on the key space are answered with.

use bytes::Bytes;

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
    /// Some of a database's keys.
    Names {
        /// Where to go on; 0 at the end.
        cursor: u64,
        /// Those that were met.
        names: Vec<Bytes>,
    },
    /// What a `When` has come to; `None` if a test did not hold.
    Nested(Option<Vec<Answer>>),
    /// This command had no effect, for a reason that lies in the data.
    Failed(Failure),
}

impl Answer {
    /// About how many bytes it holds in memory, and takes when it is written.
    pub fn size_bytes(&self) -> usize {
        let more = match self {
            Self::Item(Some(item)) => item.value.len(),
            Self::Names { names, .. } => {
                names.iter().map(|name| size_of_val(name) + name.len()).sum()
            }
            Self::Nested(Some(answers)) => answers.iter().map(Self::size_bytes).sum(),
            _ => 0,
        };
        size_of::<Self>() + more
    }
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
    /// `IncrementFloat` of, or by, something that is no decimal number within 10^20.
    #[error("value is not a valid float")]
    NotAFloat,
    /// A value longer than any may be.
    #[error("string exceeds maximum allowed size")]
    TooLong,
    /// What one batch has altered and copied so far is as much as it may.
    #[error("too much work for one batch or transaction")]
    TooMuch,
    /// `Rename` or `Copy` of a key that is absent.
    #[error("no such key")]
    NoSuchKey,
}
