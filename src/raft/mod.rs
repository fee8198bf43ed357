//! Consensus as a pure state machine.

pub mod durability;
pub mod entry;
pub mod membership;

pub use durability::{Recovered, Write, WriteSeq};
pub use entry::{ClusterId, Entry, EntryId, HardState, Index, NodeId, Payload, SnapshotMeta, Term};
pub use membership::{Change, Illegal, Member, Membership};
