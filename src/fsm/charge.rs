//! What a batch will cost, estimated before it is proposed.
//!
//! What it costs to alter or copy a value depends on how large that is by then:
//! as large as now, and what was written meanwhile. That is not known, but what is
//! on its way is, and no value is longer than [`GROWN_VALUE_BYTES`]. [A batch that
//! sets a large value and copies it ten thousand times says nothing of its size.]

use super::command::{DECIMAL_BYTES, INTEGER_BYTES};
use super::limits::GROWN_VALUE_BYTES;
use super::store::Store;
use crate::request::{Batch, Command, Key};

/// What a batch does with values that are there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Charge {
    /// Bytes of values that it may copy to other keys.
    pub copied_bytes: u64,
    /// Bytes of values that it may have to write anew, or to hash.
    pub altered_bytes: u64,
}

impl Charge {
    /// The estimate, while writes of so many bytes are on their way.
    pub fn of(batch: &Batch, store: &Store, on_its_way_bytes: u64) -> Self {
        let (mut charge, mut written_bytes) = (Self::default(), on_its_way_bytes);
        let size_of = |key: &Key, written_bytes: u64| {
            let now = store.find(key).map_or(0, |item| item.value().len() as u64);
            now.saturating_add(written_bytes).min(GROWN_VALUE_BYTES as u64)
        };
        // What the batch itself writes first is not counted: of a thousand small values
        // each would be taken for all of them. Where that is wrong, the entry's own limit
        // holds.
        for command in &batch.commands {
            command.each_condition(&mut |key, condition| {
                if condition.hashes() {
                    charge.altered_bytes += size_of(key, on_its_way_bytes);
                }
            });
        }
        for command in batch.commands.iter().flat_map(Command::steps) {
            let altered_bytes = match command {
                Command::Copy { from: key, .. }
                | Command::Rename { from: key, .. }
                | Command::Append { key, .. }
                | Command::SetRange { key, .. } => size_of(key, written_bytes),
                _ => 0,
            };
            charge.altered_bytes += altered_bytes;
            if matches!(command, Command::Copy { .. }) {
                charge.copied_bytes += altered_bytes;
            }
            command.each_value(&mut |value| written_bytes += value.len() as u64);
            written_bytes += match command {
                // Under its new name it may be copied again.
                Command::Copy { .. } | Command::Rename { .. } => altered_bytes,
                Command::SetRange { offset, .. } => u64::from(*offset),
                Command::Increment { .. } => INTEGER_BYTES,
                Command::IncrementFloat { .. } => DECIMAL_BYTES,
                _ => 0,
            };
        }
        charge
    }
}
