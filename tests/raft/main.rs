//! Consensus, driven by hand and by chance.
//!
//! - [`stories`] runs the scripts in `tests/raft/scripts`: each tells one story
//!   and records, line by line, what every node said, wrote and applied. Their
//!   output was read and found right before it was kept; after a change, run
//!   them with `UPDATE_GOLDENFILES=1` and read the difference.
//! - [`random`] lets a seed decide what happens and asks for nothing but the
//!   promises: `SEED=7 cargo test --test raft random -- --nocapture` repeats
//!   one, `SEEDS=5000` tries more.
//!
//! Both drive the same [`harness`], under the eyes of the same [`judge`].

mod arguments;
mod chance;
mod disk;
mod faults;
mod forged;
mod harness;
mod judge;
mod notebook;
mod random;
mod senseless;
mod stories;
mod trace;
mod world;
