//! Consensus as a pure state machine: Raft, in our words.
//!
//! A cluster agrees on one sequence of entries, the log. One node leads a term;
//! it appends what clients propose, sends it to the others, and calls an entry
//! committed once a majority has it on their disks. Committed entries are never
//! lost and are applied everywhere in the same order. When the leader goes
//! silent, another node stands for election in a higher term; voters elect
//! only somebody whose log is at least as up to date as their own, so whoever
//! wins holds everything that was committed.
//!
//! Sources: Ongaro and Ousterhout, *In Search of an Understandable Consensus
//! Algorithm* (the paper; "Figure 2" and "Figure 8" are its), and Ongaro's
//! thesis, *Consensus: Bridging Theory and Practice*.
//!
//! # How to drive it
//!
//! The core does no I/O, has no clock, no threads, and no randomness but a
//! generator seeded by its [`Config`]. Inputs are methods of [`Raft`] and only
//! change state; [`Raft::ready`] then gives out everything there is to do. What
//! it returns is yours: nothing has to be acknowledged but the completion of
//! writes ([`Raft::durable`]) and of reads from the journal.
//!
//! ```text
//!   take everything that has arrived        messages, proposals, completions
//!   then read the clock                     once, and only then
//!   feed each input, with that time
//!   ready(time)  ->  messages               send at once, in any case
//!                    write                  to the disk; durable(seq) when synced
//!                    restore                take over the state of a snapshot
//!   next_committed() apply, as much as a turn may take
//!   released_reads() then serve those
//! ```
//!
//! The order is part of safety. The clock is read after the inputs have
//! arrived, so that no input is judged by a time that was over when it came.
//! Every duration is a difference of two such times, never a count of ticks.
//!
//! Because inputs only change state, a hundred proposals between two calls of
//! `ready` cost one append per follower, one write and one sync.
//!
//! # What may be said when
//!
//! The log and the disk behind it are two cursors ([`durability`]). Nothing
//! waits in a queue for the disk; each statement is computed from the cursors
//! when it is made.
//!
//! | statement | vouches for | may be made |
//! |---|---|---|
//! | append, heartbeat, pre-vote, any rejection | nothing of ours | at once |
//! | heartbeat response | our promise, which is in memory only | at once |
//! | request for votes | own term and vote | when they are durable |
//! | own vote counted, hence leading | own term and vote | when they are durable |
//! | vote granted | term and vote | when they are durable |
//! | append accepted up to `matched` | our log up to there | min(verified, durable), again when it grows |
//! | leader counts itself | own log | up to its durable index |
//! | commit | a majority's durable `matched`, at an entry of the own term | at once |
//! | apply, answer a client | commit | at once, also ahead of the own disk |
//!
//! # Where to read
//!
//! | file | what |
//! |---|---|
//! | [`entry`] [`message`] [`membership`] [`config`] [`time`] | the vocabulary |
//! | [`log`](mod@log) [`durability`] | what is in memory, what is on the disk |
//! | [`quorum`] [`progress`] | what a majority agrees on, what a leader knows of a follower |
//! | [`reads`] [`lease`] | reads without the log |
//! | [`core`] | what every role shares |
//! | [`raft`](mod@raft) [`ready`] | dispatch, transitions, what comes out |
//! | [`election`] | who is voted for, when to stand, the transitions |
//! | [`follower`] [`candidate`] [`leader`] | what each role does |
//! | [`feeding`] [`office`] [`snapshots`] | a leader's followers; members and successors; what replaces a log |
//! | [`invariants`] | what always holds |
//!
//! # Missing on purpose
//!
//! - *Joint consensus.* One member is changed at a time, which needs no second
//!   kind of majority and no state in between.
//! - *A disk.* The core never reads a file. Entries that have left memory are
//!   fetched by the driver and handed in.
//! - *Requests parked until something is durable.* See the two cursors.
//! - *Entries for removed or unknown nodes*, except that a removed one is told
//!   of its removal once that is committed.

pub mod candidate;
pub mod config;
pub mod core;
pub mod durability;
pub mod election;
pub mod entry;
pub mod feeding;
pub mod follower;
pub mod invariants;
pub mod leader;
pub mod lease;
pub mod log;
pub mod membership;
pub mod message;
pub mod office;
pub mod progress;
pub mod quorum;
#[expect(clippy::module_inception, reason = "the core itself is what the module is named for")]
pub mod raft;
pub mod reads;
pub mod ready;
pub mod snapshots;
pub mod time;

pub use config::{Config, ReadMode};
pub use durability::{Recovered, Write, WriteSeq};
pub use entry::{ClusterId, Entry, EntryId, HardState, Index, NodeId, Payload, SnapshotMeta, Term};
pub use membership::{Change, Illegal, Member, Membership};
pub use message::{Envelope, Message, ReadId};
pub use office::ChangeError;
pub use raft::{Raft, Role};
pub use ready::{Fault, Fetch, ProposeError, Ready};
pub use time::Time;
