//! Why the journal or a snapshot cannot be used, in words an operator can act on.

use std::io;

use crate::raft::{EntryId, Index};

/// How a node whose disk cannot be trusted is mended: its peers have it all.
pub const REBUILD: &str = "cached --rebuild --join ADDRESS_OF_A_MEMBER";

/// Everything that can go wrong between this module and its disk.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// Bytes that were vouched for are not what was written. Nothing on the
    /// disk has been changed.
    #[error(
        "{file}: damaged at byte {offset}{}: {what}; refusing to guess what it held. \
         To rebuild this node from its peers: {REBUILD}",
        index.map_or(String::new(), |index| format!(" (log index {index})"))
    )]
    Damaged {
        /// The file, with its directory.
        file: String,
        /// Where in the file.
        offset: u64,
        /// The log index that stood there or would have come next.
        index: Option<Index>,
        /// What does not fit.
        what: String,
    },
    /// The file is whole, but it is another cluster's, node's or program's.
    #[error("{file}: {what}; is this the right data directory?")]
    Foreign {
        /// The file, with its directory.
        file: String,
        /// Whose it is.
        what: String,
    },
    /// No space. Nothing was written, and the same call may be made again.
    #[error("the disk is full: no room for {file}")]
    Full {
        /// The file that could not grow.
        file: String,
    },
    /// A sync failed: what the disk holds is unknown from here on. The process
    /// has to end; a second sync would report success for pages already lost.
    #[error("{file}: sync failed, what the disk holds is unknown: {source}")]
    Sync {
        /// The file, with its directory.
        file: String,
        /// As the system says it.
        source: io::Error,
    },
    /// Any other system call failed.
    #[error("{file}: {what} failed: {source}")]
    Io {
        /// Which.
        what: &'static str,
        /// The file, with its directory.
        file: String,
        /// As the system says it.
        source: io::Error,
    },
    /// An earlier failure made the journal unusable.
    #[error("the journal stopped at an earlier failure")]
    Stopped,
    /// Entries that compaction has taken; a snapshot holds their effect.
    #[error("the journal begins at index {first}; what is before it is in a snapshot")]
    Compacted {
        /// The first entry that can still be read.
        first: Index,
    },
    /// A snapshot may not be named before the log is durable up to it.
    #[error("the snapshot at {last} is ahead of the journal, durable up to {durable}")]
    Early {
        /// The snapshot's last entry.
        last: EntryId,
        /// How far the journal is.
        durable: Index,
    },
    /// A snapshot was announced that the log or the directory does not hold.
    #[error("the snapshot at {last} is not one that can be kept: {what}")]
    Unfit {
        /// The snapshot's last entry.
        last: EntryId,
        /// What is missing.
        what: &'static str,
    },
}

/// Says which call on which file failed.
pub(crate) trait Context<T> {
    /// Any call but a sync.
    fn at(self, what: &'static str, file: String) -> Result<T, WalError>;
    /// A call that takes new space, and so may find none.
    fn growing(self, what: &'static str, file: String) -> Result<T, WalError>;
    /// A sync of a file or directory.
    fn synced(self, file: String) -> Result<T, WalError>;
}

impl<T> Context<T> for io::Result<T> {
    fn at(self, what: &'static str, file: String) -> Result<T, WalError> {
        self.map_err(|source| WalError::Io { what, file, source })
    }

    fn growing(self, what: &'static str, file: String) -> Result<T, WalError> {
        match self {
            Err(error) if is_full(&error) => Err(WalError::Full { file }),
            other => other.at(what, file),
        }
    }

    fn synced(self, file: String) -> Result<T, WalError> {
        self.map_err(|source| WalError::Sync { file, source })
    }
}

/// A quota is as good as a full disk.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
