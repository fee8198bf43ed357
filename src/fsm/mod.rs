//! The key-value state machine: what the log means.

pub mod expiry;
pub mod hash;
pub mod item;
pub mod slots;
