//! Faults of the world around real processes: networks that are cut, processes
//! that stand still, disks that are not what they were.
//!
//! All the while clients work, and what they saw is judged as a whole at the
//! end: it has to be linearizable. The tests of `end_to_end` ask of each key
//! whether an acknowledged write is there; these ask whether any order of all
//! that was answered explains the answers.

#[expect(dead_code, reason = "the tests of the whole use the rest")]
mod cluster;

#[path = "faults/clients.rs"]
mod clients;
#[path = "faults/damage.rs"]
mod damage;
#[path = "faults/full_disks.rs"]
mod full_disks;
#[path = "sim/checkers/linearizability.rs"]
mod linearizability;
#[path = "faults/network.rs"]
mod network;
#[path = "faults/partitions.rs"]
mod partitions;
#[path = "faults/pauses.rs"]
mod pauses;
#[path = "faults/transfers.rs"]
mod transfers;
