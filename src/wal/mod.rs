//! The durable journal.

pub mod disk;
pub mod faulty;
