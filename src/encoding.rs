//! Bounded little-endian reading and writing, shared by every format we own.
//!
//! Whatever is decoded came from a disk or a network, so a declared length is
//! checked against what is really there before anything is taken or allocated,
//! and a short input is an error, never zeros. Byte strings are slices of the
//! input that share its memory.

use bytes::{Buf, BufMut, Bytes};

/// The input ended early, or a field holds a value its format does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed: {0}")]
pub struct Malformed(pub &'static str);

/// A decimal as Redis reads it: no plus, no leading zeros, no spaces, no "-0".
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    // Sign and 19 digits: a value of megabytes is not looked at.
    if text.len() > 20 {
        return None;
    }
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_plain = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', ..] => true,
        _ => false,
    };
    // What is no digit is refused by the parser; a plus stands before none of these.
    if !is_plain {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The XXH3 of 64 bits by which Redis 8 compares values: it is in the log's meaning.
pub fn digest(value: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(value)
}

/// Takes fields off the front of a buffer.
#[derive(Debug, Clone)]
pub struct Reader {
    rest: Bytes,
}

impl Reader {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn need(&self, length: usize) -> Result<(), Malformed> {
        if self.rest.len() < length { Err(Malformed("input ends early")) } else { Ok(()) }
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.need(1)?;
        Ok(self.rest.get_u8())
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.need(2)?;
        Ok(self.rest.get_u16_le())
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.need(4)?;
        Ok(self.rest.get_u32_le())
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.need(8)?;
        Ok(self.rest.get_u64_le())
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self) -> Result<i64, Malformed> {
        self.need(8)?;
        Ok(self.rest.get_i64_le())
    }

    /// Sixteen bytes.
    pub fn u128(&mut self) -> Result<u128, Malformed> {
        self.need(16)?;
        Ok(self.rest.get_u128_le())
    }

    /// A byte that must be 0 or 1.
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a flag is neither 0 nor 1")),
        }
    }

    /// The next `length` bytes, sharing the input's memory.
    pub fn take(&mut self, length: usize) -> Result<Bytes, Malformed> {
        self.need(length)?;
        Ok(self.rest.split_to(length))
    }

    /// A u32 length, then that many bytes.
    pub fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    /// A u32 length, then that many bytes of UTF-8.
    pub fn string(&mut self) -> Result<String, Malformed> {
        let bytes = self.bytes()?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(Malformed("text is not UTF-8")),
        }
    }

    /// A u32 count of things that take at least `least` bytes each, so that a
    /// count can be used as a capacity.
    pub fn count(&mut self, least: usize) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        if count > self.rest.len() / least.max(1) {
            return Err(Malformed("a count exceeds its input"));
        }
        Ok(count)
    }

    /// Everything must have been read.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("bytes are left over")) }
    }
}

/// Writes a u32 length and the bytes: what [`Reader::bytes`] reads.
///
/// Panics if `bytes` is 4 GiB or longer; every limit of ours is far below.
pub fn put_bytes(buffer: &mut impl BufMut, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("every limit is far below 4 GiB");
    buffer.put_u32_le(length);
    buffer.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_read_back() {
        let mut buffer = Vec::new();
        buffer.put_u8(1);
        buffer.put_u64_le(u64::MAX);
        put_bytes(&mut buffer, b"key");
        let mut reader = Reader::new(buffer.into());
        assert_eq!(reader.bool(), Ok(true));
        assert_eq!(reader.u64(), Ok(u64::MAX));
        assert_eq!(reader.bytes(), Ok(Bytes::from_static(b"key")));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_length_beyond_the_input_is_refused() {
        let mut reader = Reader::new(Bytes::from_static(&[0xff, 0xff, 0xff, 0x7f, 1]));
        assert!(reader.clone().bytes().is_err());
        assert!(reader.count(1).is_err());
        assert!(Reader::new(Bytes::from_static(&[1])).finish().is_err());
    }

    #[test]
    fn only_plain_decimals_are_integers() {
        for number in [0, 1, -1, 10, i64::MAX, i64::MIN] {
            assert_eq!(parse_i64(number.to_string().as_bytes()), Some(number));
        }
        let others =
            ["", "+1", "01", "-0", " 1", "1 ", "1.0", "0x1", "9223372036854775808", "-", "-+1"];
        for text in others {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse_i64(&[0xff]), None);
    }
}
