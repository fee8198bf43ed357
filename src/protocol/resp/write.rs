//! Replies as bytes, in either version of the protocol.

use bytes::{BufMut, BytesMut};

/// What is written, and how.
pub(super) struct Out<'a> {
    pub(super) bytes: &'a mut BytesMut,
    /// Version 3, as HELLO has agreed; else 2.
    pub(super) resp3: bool,
}

impl Out<'_> {
    /// `+OK`.
    pub(super) fn ok(&mut self) {
        self.bytes.put_slice(b"+OK\r\n");
    }

    /// A word of ours.
    pub(super) fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// A code word and a sentence. What would end the line is a space instead.
    pub(super) fn error(&mut self, text: &str) {
        self.bytes.put_u8(b'-');
        let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let line = text.bytes().map(|byte| if is_end(&byte) { b' ' } else { byte });
        self.bytes.extend(line);
        self.bytes.put_slice(b"\r\n");
    }

    /// A number.
    pub(super) fn integer(&mut self, number: i64) {
        self.number(b':', number);
    }

    /// Any bytes.
    pub(super) fn bulk(&mut self, bytes: &[u8]) {
        self.head(b'$', bytes.len());
        self.bytes.put_slice(bytes);
        self.bytes.put_slice(b"\r\n");
    }

    /// No value.
    pub(super) fn null(&mut self) {
        self.bytes.put_slice(if self.resp3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// No list.
    pub(super) fn null_array(&mut self) {
        self.bytes.put_slice(if self.resp3 { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// So many values follow.
    pub(super) fn array(&mut self, length: usize) {
        self.head(b'*', length);
    }

    /// So many different values follow.
    pub(super) fn set(&mut self, length: usize) {
        self.head(if self.resp3 { b'~' } else { b'*' }, length);
    }

    /// So many pairs of values follow.
    pub(super) fn map(&mut self, pairs: usize) {
        if self.resp3 {
            self.head(b'%', pairs);
        } else {
            self.head(b'*', 2 * pairs);
        }
    }

    /// A text for people.
    pub(super) fn verbatim(&mut self, text: &str) {
        if self.resp3 {
            self.head(b'=', text.len() + 4);
            self.bytes.put_slice(b"txt:");
            self.bytes.put_slice(text.as_bytes());
            self.bytes.put_slice(b"\r\n");
        } else {
            self.bulk(text.as_bytes());
        }
    }

    fn head(&mut self, kind: u8, length: usize) {
        self.number(kind, i64::try_from(length).expect("lengths are in memory"));
    }

    fn number(&mut self, kind: u8, number: i64) {
        // Sign and 19 digits.
        let (mut digits, mut at, mut rest) = ([0; 20], 20, number.unsigned_abs());
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if number < 0 {
            at -= 1;
            digits[at] = b'-';
        }
        self.line(kind, &digits[at..]);
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.bytes.put_u8(kind);
        self.bytes.put_slice(text);
        self.bytes.put_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(resp3: bool, write: impl Fn(&mut Out<'_>)) -> String {
        let mut bytes = BytesMut::new();
        write(&mut Out { bytes: &mut bytes, resp3 });
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn numbers_are_written_to_their_ends() {
        for number in [0, 7, -7, 10, 1234567890, i64::MAX, i64::MIN] {
            assert_eq!(written(false, |out| out.integer(number)), format!(":{number}\r\n"));
        }
    }

    #[test]
    fn both_versions_say_nothing_in_their_own_way() {
        assert_eq!(written(false, |out| out.null()), "$-1\r\n");
        assert_eq!(written(false, |out| out.null_array()), "*-1\r\n");
        assert_eq!(written(true, |out| out.null()), "_\r\n");
        assert_eq!(written(true, |out| out.null_array()), "_\r\n");
        assert_eq!(written(false, |out| out.map(2)), "*4\r\n");
        assert_eq!(written(true, |out| out.map(2)), "%2\r\n");
        assert_eq!(written(true, |out| out.verbatim("a\n")), "=6\r\ntxt:a\n\r\n");
    }

    /// [A key with a line end in it, quoted in an error, ends the reply early.]
    #[test]
    fn an_error_is_one_line() {
        assert_eq!(written(false, |out| out.error("ERR a\r\nb")), "-ERR a  b\r\n");
    }
}
