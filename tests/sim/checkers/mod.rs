//! Judges of what clients saw.
//!
//! They know nothing of the store: each takes what clients called and were told,
//! and says what a store that keeps its promises could not have answered. So
//! they serve simulated and real clusters alike. Each file stands alone.

pub mod atomicity;
pub mod deadline;
pub mod exactly_once;
pub mod linearizability;
pub mod stale;
pub mod ttl;
