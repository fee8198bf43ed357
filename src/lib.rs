//! A replicated in-memory cache that never loses an acknowledged write.
//!
//! This file is the map. A node is a stack of pure layers with one impure
//! layer on top; each layer may only import those listed beside it.
//!
//! | module | what it is | may import |
//! |---|---|---|
//! | [`encoding`] | bounded little-endian reading, shared by every format we own | – |
//! | [`request`] | `Request`, `Reply`, `ErrorKind`: the words every front end translates into | `encoding` |
//! | [`raft`] | consensus as a pure state machine: no I/O, no clock, no threads | `encoding` |
//! | [`fsm`] | the key-value state machine: apply, read, expiry, sessions, snapshot | `request encoding` |
//! | [`wal`] | the durable journal and the snapshot files, over a small `Disk` seam | `raft encoding` |
//! | [`replica`] | raft + fsm + the requests that wait: `Input` in, `Effects` out | `raft fsm request encoding` |
//! | [`protocol`] | one codec per wire format | `request encoding raft replica` (the latter two: `peer` only) |
//! | [`storage`] | the work of the disk threads: a replica's writes, reads, snapshots and start, on a `Disk` | `raft fsm wal replica request encoding` |
//! | [`server`] | the only place with tokio, sockets, threads and clocks; it moves bytes | all |
//! | [`client`] | a small async client of the binary protocol | `request protocol` |
//! | [`mutants`] | rules broken on purpose, to see that tests notice; nothing in a product | – (and all may import it) |
//!
//! Everything above `server` is a function of its inputs: time, randomness and
//! the disk arrive as values. That is what lets tests run a whole cluster from
//! one seed. `tests/tidy.rs` holds the layering.
//!
//! Where to start: [`request`] for what can be asked, [`raft`] for how it is
//! agreed on, [`fsm`] for what it does, [`wal`] for how it survives.

pub mod client;
pub mod encoding;
pub mod fsm;
pub mod mutants;
pub mod protocol;
pub mod raft;
pub mod replica;
pub mod request;
pub mod server;
pub mod storage;
pub mod wal;
