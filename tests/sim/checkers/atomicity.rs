//! A batch is seen whole or not at all.

/// What one batch read found, of keys that are only ever written together, each
/// time with one value for all.
pub fn check(read: &[Option<u64>]) -> Result<(), String> {
    match read.iter().all(|value| *value == read[0]) {
        true => Ok(()),
        false => Err(format!("half a batch: {read:?}")),
    }
}
