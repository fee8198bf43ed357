//! The 64-bit hash that replicas compare, written out.
//!
//! It decides where a key lies, which of two keys with one deadline goes first
//! and what the state hash is, so it has to be the same on every platform and
//! in every version for ever: a crate's hash, free to change, will not do. It
//! is not cryptographic; it tells replicas apart that went different ways by
//! accident.
//!
//! Two lanes each absorb 16 of 32 bytes (two little-endian words) with one
//! 64x64 multiplication whose halves are folded together. The old lane is
//! added, rotated, so that a factor of zero loses nothing. A tail is padded
//! with zeros and the length closes the hash.
//!
//! Changing anything here is a new [`VERSION`] and a new snapshot format.

use byteorder::{ByteOrder, LittleEndian};

/// Which definition of the state hash this is; part of every state hash.
pub const VERSION: u64 = 1;

// Odd, random, with as many ones as zeros: the constants of wyhash.
const K: [u64; 4] =
    [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3, 0x5899_65cc_7537_4cc3];

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

fn absorb(lane: u64, first: u64, second: u64, key: u64) -> u64 {
    fold(lane ^ first, second ^ key).wrapping_add(lane.rotate_left(32))
}

/// The hash of a byte string; different seeds give unrelated hashes.
pub fn bytes(seed: u64, input: &[u8]) -> u64 {
    let mut lanes = [seed ^ K[0], seed ^ K[1]];
    let mut chunks = input.chunks_exact(32);
    for chunk in &mut chunks {
        absorb_chunk(&mut lanes, chunk);
    }
    let tail = chunks.remainder();
    if !tail.is_empty() {
        let mut padded = [0; 32];
        padded[..tail.len()].copy_from_slice(tail);
        absorb_chunk(&mut lanes, &padded);
    }
    close(lanes, input.len() as u64)
}

fn absorb_chunk(lanes: &mut [u64; 2], chunk: &[u8]) {
    let word = |i: usize| LittleEndian::read_u64(&chunk[8 * i..8 * i + 8]);
    lanes[0] = absorb(lanes[0], word(0), word(1), K[2]);
    lanes[1] = absorb(lanes[1], word(2), word(3), K[3]);
}

fn close(lanes: [u64; 2], length: u64) -> u64 {
    fold(absorb(lanes[0], lanes[1], length, K[1]) ^ K[2], K[0])
}

/// The hash of four numbers.
pub fn words(input: [u64; 4]) -> u64 {
    let first = absorb(K[0], input[0], input[1], K[2]);
    let second = absorb(K[1], input[2], input[3], K[3]);
    close([first, second], 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by another implementation, in a few lines of Python.
    /// These numbers are compared between nodes of different versions. If this
    /// test fails, the change needs a new version of the state hash.
    #[test]
    fn the_definition_is_pinned() {
        assert_eq!(bytes(0, b""), 0xb583_4bbd_edb3_cf7a);
        assert_eq!(bytes(0, b"key"), 0x402d_1313_ff79_e708);
        assert_eq!(bytes(7, &[0x5a; 100]), 0xb9c0_5abc_bb85_0dab);
        assert_eq!(words([1, 2, 3, 4]), 0x2a34_7071_4642_96c2);
    }
    #[test]
    fn zeros_of_different_length_differ() {
        let zeros = [0; 100];
        let hashes: std::collections::BTreeSet<u64> =
            (0..100).map(|n| bytes(0, &zeros[..n])).collect();
        assert_eq!(hashes.len(), 100);
    }

    #[test]
    fn every_bit_of_the_input_counts() {
        for length in [1, 8, 31, 32, 33, 64, 100] {
            let input = vec![0xa5; length];
            let whole = bytes(1, &input);
            for bit in 0..8 * length {
                let mut flipped = input.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let changed = (bytes(1, &flipped) ^ whole).count_ones();
                assert!((8..=56).contains(&changed), "bit {bit} of {length}: {changed}");
            }
        }
    }
}
