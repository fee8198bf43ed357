//! Generated keys and values that can be told from any other.
//!
//! ```text
//! value | fields | crc32 u32 |     fields: the key, a colon, a number, dots
//! ```
//!
//! The sum is over the key and the fields, so a value is recognised as written
//! for its key and whole, even where it is too short for the fields.

use bytes::{BufMut, Bytes};

/// What the sum takes.
const SUM_BYTES: usize = 4;

/// The name of a generated key.
pub fn key(number: u64) -> String {
    format!("key:{number:010}")
}

/// A value of this size for a key; the number tells its writes apart.
pub fn value(key: &str, number: u64, size: usize) -> Bytes {
    let mut value = format!("{key}:{number}").into_bytes();
    value.resize(size.saturating_sub(SUM_BYTES), b'.');
    let sum = sum(key, &value);
    value.put_u32_le(sum);
    value.into()
}

/// Whether a value was written for this key, and is whole.
pub fn is_valid(key: &str, value: &[u8]) -> bool {
    match value.split_last_chunk::<SUM_BYTES>() {
        Some((fields, found)) => u32::from_le_bytes(*found) == sum(key, fields),
        None => false,
    }
}

fn sum(key: &str, fields: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(key.as_bytes());
    sum.update(fields);
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_by_its_key_and_sum() {
        for size in [4, 10, 256] {
            let value = value("a", 7, size);
            assert_eq!(value.len(), size);
            assert!(is_valid("a", &value));
            assert!(!is_valid("b", &value));
            assert!(!is_valid("a", &value[1..]));
        }
        assert!(!is_valid("a", b""));
    }
}
