//! Commands as clients write them.
//!
//! ```text
//! command | *<count> CRLF, count times: $<length> CRLF bytes … CRLF
//! inline  | words … LF          (quoted as in a shell, CR before LF dropped)
//! ```
//!
//! What has been looked at is remembered and not looked at again: [a command of a
//! million arguments that arrives in small pieces takes the square of its length].
//! The arguments of one command share the memory that they arrived in.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::encoding::parse_i64;
use crate::protocol::{Limits, ProtocolError};

/// The longest line, as in Redis.
const LINE_BYTES: usize = 64 << 10;

/// The most arguments of one command, as in Redis.
const ARGUMENTS: usize = 1 << 20;

/// One command: its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words {
    bytes: Bytes,
    ranges: Vec<Range<usize>>,
}

impl Words {
    /// How many there are: none in an empty line and in `*0`.
    pub(super) fn count(&self) -> usize {
        self.ranges.len()
    }

    /// The same in memory of their own.
    pub(super) fn copied(&self) -> Self {
        Self { bytes: Bytes::copy_from_slice(&self.bytes), ranges: self.ranges.clone() }
    }

    /// About how many bytes they hold in memory.
    pub(super) fn size_bytes(&self) -> usize {
        self.bytes.len() + size_of_val(&self.ranges[..])
    }

    /// A word to look at.
    pub(super) fn get(&self, i: usize) -> &[u8] {
        &self.bytes[self.ranges[i].clone()]
    }

    /// A word to keep.
    pub(super) fn bytes(&self, i: usize) -> Bytes {
        self.bytes.slice(self.ranges[i].clone())
    }
}

/// How far the command at the front of the input has been looked at.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// Where to go on; 0 if nothing is known.
    at: usize,
    /// How many arguments are still to come.
    missing: usize,
    /// Those that are there.
    ranges: Vec<Range<usize>>,
    /// A line has been searched for its end up to here.
    searched: usize,
}

impl Parser {
    /// Takes one command off the front of `input`, or nothing while it is
    /// incomplete.
    pub(super) fn next(
        &mut self,
        input: &mut BytesMut,
        limits: &Limits,
    ) -> Result<Option<Words>, ProtocolError> {
        match input.first() {
            None => Ok(None),
            Some(&first) if self.at > 0 || first == b'*' => self.multibulk(input, limits),
            Some(_) => self.inline(input),
        }
    }

    /// Takes what has been looked at.
    fn take(&mut self, input: &mut BytesMut) -> Words {
        let bytes = input.split_to(self.at).freeze();
        let Self { ranges, .. } = std::mem::take(self);
        Words { bytes, ranges }
    }

    fn multibulk(
        &mut self,
        input: &mut BytesMut,
        limits: &Limits,
    ) -> Result<Option<Words>, ProtocolError> {
        if self.at == 0 {
            let Some(line) = self.line(input, TOO_LONG_COUNT)? else { return Ok(None) };
            let count = parse_i64(&input[1..line]).ok_or(BAD_COUNT)?;
            if count > ARGUMENTS as i64 {
                return Err(BAD_COUNT);
            }
            self.at = line + 2;
            self.missing = usize::try_from(count).unwrap_or(0);
        }
        while self.missing > 0 {
            if !self.bulk(input, limits)? {
                return Ok(None);
            }
        }
        Ok(Some(self.take(input)))
    }

    /// Looks at one argument. False if it is not there in full.
    fn bulk(&mut self, input: &BytesMut, limits: &Limits) -> Result<bool, ProtocolError> {
        let Some(line) = self.line(input, TOO_LONG_LENGTH)? else { return Ok(false) };
        if input[self.at] != b'$' {
            return Err(ProtocolError::NoBulk(input[self.at]));
        }
        let length = parse_i64(&input[self.at + 1..line]).ok_or(BAD_LENGTH)?;
        let length = usize::try_from(length).map_err(|_| BAD_LENGTH)?;
        if length > limits.value_bytes {
            return Err(BAD_LENGTH);
        }
        let (start, end) = (line + 2, line + 2 + length);
        Limits::check("request", end, limits.request_bytes)?;
        if input.len() < end + 2 {
            // The line is looked at again when the rest is there.
            self.searched = line;
            return Ok(false);
        }
        self.ranges.push(start..end);
        self.at = end + 2;
        self.searched = self.at;
        self.missing -= 1;
        Ok(true)
    }

    /// Where the line that begins here ends, if both bytes of its end are there.
    fn line(
        &mut self,
        input: &BytesMut,
        too_long: ProtocolError,
    ) -> Result<Option<usize>, ProtocolError> {
        let from = self.searched.max(self.at).min(input.len());
        let end = input[from..].iter().position(|&byte| byte == b'\r').map(|end| from + end);
        if end.unwrap_or(input.len()) - self.at > LINE_BYTES {
            return Err(too_long);
        }
        self.searched = end.unwrap_or(input.len());
        Ok(end.filter(|end| end + 2 <= input.len()))
    }

    fn inline(&mut self, input: &mut BytesMut) -> Result<Option<Words>, ProtocolError> {
        let from = self.searched.min(input.len());
        let end = input[from..].iter().position(|&byte| byte == b'\n').map(|end| from + end);
        if end.unwrap_or(input.len()) > LINE_BYTES {
            return Err(ProtocolError::Resp("too big inline request"));
        }
        let Some(end) = end else {
            self.searched = input.len();
            return Ok(None);
        };
        let line = input.split_to(end + 1);
        *self = Self::default();
        let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
        split_words(line).map(Some)
    }
}

const BAD_COUNT: ProtocolError = ProtocolError::Resp("invalid multibulk length");
const BAD_LENGTH: ProtocolError = ProtocolError::Resp("invalid bulk length");
const TOO_LONG_COUNT: ProtocolError = ProtocolError::Resp("too big mbulk count string");
const TOO_LONG_LENGTH: ProtocolError = ProtocolError::Resp("too big bulk count string");
const UNBALANCED: ProtocolError = ProtocolError::Resp("unbalanced quotes in request");

/// Splits a line as a shell would, with C's escapes between double quotes.
pub(super) fn split_words(line: &[u8]) -> Result<Words, ProtocolError> {
    let (mut bytes, mut ranges, mut at) = (Vec::with_capacity(line.len()), Vec::new(), 0);
    loop {
        at += line[at..].iter().take_while(|byte| is_space(**byte)).count();
        if at == line.len() {
            // Not the room for all the white space, too.
            return Ok(Words { bytes: bytes.into_boxed_slice().into(), ranges });
        }
        let start = bytes.len();
        at += take_word(&line[at..], &mut bytes)?;
        ranges.push(start..bytes.len());
    }
}

/// As C's isspace has it.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Appends one word; how much of the line it was.
fn take_word(line: &[u8], word: &mut Vec<u8>) -> Result<usize, ProtocolError> {
    let mut at = 0;
    while let Some(&byte) = line.get(at) {
        match byte {
            byte if is_space(byte) => break,
            b'"' | b'\'' => {
                at += 1 + take_quoted(byte, &line[at + 1..], word)?;
                // A quote that ends, ends the word.
                return match line.get(at) {
                    None => Ok(at),
                    Some(&byte) if is_space(byte) => Ok(at),
                    Some(_) => Err(UNBALANCED),
                };
            }
            byte => {
                word.push(byte);
                at += 1;
            }
        }
    }
    Ok(at)
}

/// Appends what stands before the closing quote; its length with the quote.
fn take_quoted(quote: u8, text: &[u8], word: &mut Vec<u8>) -> Result<usize, ProtocolError> {
    let mut at = 0;
    loop {
        let (byte, length) = match &text[at..] {
            [] => return Err(UNBALANCED),
            [byte, ..] if *byte == quote => return Ok(at + 1),
            [b'\\', b'x', high, low, ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (16 * hex(*high) + hex(*low), 4)
            }
            [b'\\', escaped, ..] if quote == b'"' => (unescape(*escaped), 2),
            [b'\\', b'\'', ..] if quote == b'\'' => (b'\'', 2),
            [byte, ..] => (*byte, 1),
        };
        word.push(byte);
        at += length;
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit.to_ascii_lowercase() - b'a' + 10,
    }
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        byte => byte,
    }
}
