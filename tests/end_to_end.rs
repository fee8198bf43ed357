//! The product as people run it: real processes, real sockets, a real disk.
//!
//! What a process kill can show is shown here: nothing acknowledged is lost,
//! whatever the moment. What it cannot show, because the page cache outlives the
//! process, is the matter of `wal_crash`, which cuts the power.

mod cluster;

#[path = "end_to_end/bad_input.rs"]
mod bad_input;
#[path = "end_to_end/damage.rs"]
mod damage;
#[path = "end_to_end/eviction.rs"]
mod eviction;
#[path = "end_to_end/front_doors.rs"]
mod front_doors;
#[path = "end_to_end/full_disk.rs"]
mod full_disk;
#[path = "end_to_end/many_nodes.rs"]
mod many_nodes;
#[path = "end_to_end/membership.rs"]
mod membership;
#[path = "end_to_end/one_node.rs"]
mod one_node;
#[path = "end_to_end/operators.rs"]
mod operators;
#[expect(clippy::unwrap_used, reason = "a failure here is a failed test")]
#[path = "redis/wire.rs"]
mod resp;
#[path = "end_to_end/snapshots.rs"]
mod snapshots;
#[path = "end_to_end/start.rs"]
mod start;
#[path = "end_to_end/wire.rs"]
mod wire;
