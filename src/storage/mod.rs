//! What a node does with its disk: the work of the disk thread and of the
//! snapshot thread, and the way from a directory to what a replica starts with.
//!
//! [`crate::wal`] keeps bytes, [`crate::replica`] says what is to be kept, and
//! this is what stands between them. It knows no thread, no queue and no clock:
//! jobs come in, reports go out through a function, and how long to wait for the
//! next job is a value. A server runs it on two threads over the file system, a
//! simulator in turns over a disk on which everything goes wrong.
//!
//! ```text
//!              +---Job----------> JournalWorker -----Input-----------+
//!  replica ----+                        | Wal, snapshot files        +--> replica
//!              +---SnapshotJob--> SnapshotWorker ----SnapshotReport--+
//! ```
//!
//! # The files
//!
//! | file | what |
//! |---|---|
//! | [`mod@open`] | a member's directory: opened, or made one |
//! | [`journal`] | writes made durable, entries read back |
//! | [`snapshots`] | snapshot files encoded, written, read and checked |

pub mod journal;
pub mod open;
pub mod snapshots;

pub use journal::{Job, JournalWorker};
pub use open::{Opened, adopt, open};
pub use snapshots::{SnapshotConfig, SnapshotWorker, restore};
