//! The body of a request, by its length or in chunks.
//!
//! Until it is whole it stays in the connection's buffer, behind its head, where
//! it is counted and where its patience is measured. Chunks are moved together in
//! place, so the bytes of a body are moved at most once, and the framing between
//! them takes no memory.

use bytes::{Buf, Bytes, BytesMut};

use super::HEAD_BYTES;
use super::response::Response;

/// How long the line in front of a chunk, or one behind the last, may be.
const LINE_BYTES: usize = 4 << 10;

/// A body that is not whole yet.
#[derive(Debug)]
pub struct Body {
    /// Where it begins in the input: how long the head is.
    start: usize,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// So many bytes.
    Length(usize),
    Chunked(Chunked),
}

impl Body {
    /// A body of so many bytes, behind a head of so many.
    pub fn of_length(start: usize, bytes: usize) -> Self {
        Self { start, form: Form::Length(bytes) }
    }

    /// A body in chunks with at most `limit` bytes of data.
    pub fn chunked(start: usize, limit: usize) -> Self {
        let chunked = Chunked { data: 0, limit, trailer_bytes: 0, next: Next::Size };
        Self { start, form: Form::Chunked(chunked) }
    }

    /// Takes head and body off the front of `input` once both are whole.
    pub fn take(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, Response> {
        match &mut self.form {
            Form::Length(bytes) if input.len() - self.start < *bytes => Ok(None),
            Form::Length(bytes) => {
                input.advance(self.start);
                let is_empty = *bytes == 0;
                Ok(Some(if is_empty { Bytes::new() } else { input.split_to(*bytes).freeze() }))
            }
            Form::Chunked(chunked) => chunked.take(self.start, input),
        }
    }
}

#[derive(Debug)]
struct Chunked {
    /// How much of the data there is, right behind the head.
    data: usize,
    limit: usize,
    trailer_bytes: usize,
    /// What comes behind that.
    next: Next,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    /// The line that says how large a chunk is.
    Size,
    /// So many bytes of a chunk.
    Data(usize),
    /// The end of a line behind a chunk.
    DataEnd,
    /// The lines behind the last chunk, until an empty one.
    Trailer,
}

/// What a look at the input has come to.
enum Step {
    On,
    Wait,
    Done,
}

impl Chunked {
    fn take(&mut self, start: usize, input: &mut BytesMut) -> Result<Option<Bytes>, Response> {
        let mut from = start + self.data;
        let is_done = loop {
            match self.step(start, input, &mut from)? {
                Step::On => {}
                Step::Wait => break false,
                Step::Done => break true,
            }
        };
        let end = start + self.data;
        if is_done {
            let mut whole = input.split_to(end);
            input.advance(from - end);
            whole.advance(start);
            return Ok(Some(whole.freeze()));
        }
        // What is left is less than a line.
        let rest = input.len() - from;
        input.copy_within(from.., end);
        input.truncate(end + rest);
        Ok(None)
    }

    fn step(&mut self, start: usize, input: &mut [u8], from: &mut usize) -> Result<Step, Response> {
        let rest = &input[*from..];
        match self.next {
            Next::Size => {
                let Some(line) = line(rest)? else { return Ok(Step::Wait) };
                let size = chunk_size(line).ok_or_else(senseless)?;
                let room = self.limit - self.data;
                let size = usize::try_from(size).ok().filter(|&size| size <= room);
                let size = size.ok_or_else(|| Response::too_large(self.limit))?;
                self.next = if size == 0 { Next::Trailer } else { Next::Data(size) };
                *from += line.len() + 2;
            }
            Next::Data(left) => {
                let here = left.min(rest.len());
                input.copy_within(*from..*from + here, start + self.data);
                self.data += here;
                *from += here;
                self.next = if here == left { Next::DataEnd } else { Next::Data(left - here) };
                if here < left {
                    return Ok(Step::Wait);
                }
            }
            Next::DataEnd => match rest {
                [b'\r', b'\n', ..] => {
                    *from += 2;
                    self.next = Next::Size;
                }
                [] | [_] => return Ok(Step::Wait),
                _ => return Err(senseless()),
            },
            Next::Trailer => {
                let Some(line) = line(rest)? else { return Ok(Step::Wait) };
                *from += line.len() + 2;
                self.trailer_bytes += line.len() + 2;
                if self.trailer_bytes > HEAD_BYTES {
                    return Err(Response::error(431, "the trailer is too large"));
                }
                if line.is_empty() {
                    return Ok(Step::Done);
                }
            }
        }
        Ok(Step::On)
    }
}

/// The line at the front, without its end. It ends with CR LF and holds no other
/// of either: where two parties disagree about lines, requests are smuggled.
fn line(rest: &[u8]) -> Result<Option<&[u8]>, Response> {
    let window = &rest[..rest.len().min(LINE_BYTES)];
    match window.iter().position(|&byte| byte == b'\n') {
        None if window.len() == LINE_BYTES => Err(senseless()),
        None => Ok(None),
        Some(end) => match window[..end].strip_suffix(b"\r") {
            Some(line) if !line.contains(&b'\r') => Ok(Some(line)),
            _ => Err(senseless()),
        },
    }
}

/// Hex digits, then nothing or an extension, which says nothing to us.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(digits);
    let is_over = rest.first().is_none_or(|&byte| byte == b';');
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_over)?;
    u64::from_str_radix(digits, 16).ok()
}

fn senseless() -> Response {
    Response::error(400, "the chunks of the body make no sense")
}
