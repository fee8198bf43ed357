//! What was asked and is not answered, as somebody would write it who looks for what
//! took long: the first of many words, and how they begin.
//!
//! One run of bytes for all of them, so that to remember a command costs a copy and no
//! allocation. The words themselves would keep all that they came in from being freed.

use std::collections::VecDeque;

use bytes::Bytes;

use super::parse::Words;

/// How many words are shown, and how long each, as in Redis.
const WORDS: usize = 32;
const WORD_BYTES: usize = 128;

/// What it may keep when there is nothing to be remembered.
const KEPT_BYTES: usize = 4 << 10;

/// Commands, the oldest first.
///
/// ```text
/// command | word …
/// word    | length u8 | bytes … |
/// ```
#[derive(Debug, Default)]
pub(super) struct Recent {
    bytes: VecDeque<u8>,
}

/// How many bytes a command takes.
pub(super) type Length = u32;

impl Recent {
    /// Remembers a command.
    pub(super) fn push(&mut self, words: &Words) -> Length {
        let before = self.bytes.len();
        let shown = if words.count() > WORDS { WORDS - 1 } else { words.count() };
        (0..shown).for_each(|i| self.push_word(words.get(i)));
        if shown < words.count() {
            let more = format!("... ({} more arguments)", words.count() - shown);
            self.push_bytes(more.as_bytes(), b"");
        }
        (self.bytes.len() - before) as Length
    }

    fn push_word(&mut self, word: &[u8]) {
        match word.split_at_checked(WORD_BYTES) {
            Some((start, rest)) if !rest.is_empty() => {
                let more = format!("... ({} more bytes)", rest.len());
                self.push_bytes(start, more.as_bytes());
            }
            _ => self.push_bytes(word, b""),
        }
    }

    /// Both together are shorter than 256 bytes.
    fn push_bytes(&mut self, start: &[u8], end: &[u8]) {
        self.bytes.push_back((start.len() + end.len()) as u8);
        self.bytes.extend(start);
        self.bytes.extend(end);
    }

    /// The words of the oldest command, which is so long.
    pub(super) fn first(&self, length: Length) -> Vec<Bytes> {
        let bytes: Vec<u8> = self.bytes.iter().copied().take(length as usize).collect();
        let (mut words, mut rest) = (Vec::new(), &bytes[..]);
        while let [length, behind @ ..] = rest {
            let (word, behind) = behind.split_at(usize::from(*length));
            words.push(Bytes::copy_from_slice(word));
            rest = behind;
        }
        words
    }

    /// Forgets the oldest command, which is so long.
    pub(super) fn pop(&mut self, length: Length) {
        self.bytes.drain(..length as usize);
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_BYTES {
            self.bytes = VecDeque::new();
        }
    }

    /// What it holds in memory.
    pub(super) fn size_bytes(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::parse::Parser;
    use super::*;
    use crate::protocol::Limits;

    fn words(line: &str) -> Words {
        let mut input = BytesMut::from(format!("{line}\r\n").as_bytes());
        Parser::default().next(&mut input, &Limits::default()).unwrap().unwrap()
    }

    #[test]
    fn commands_are_remembered_in_order_and_shortened() {
        let mut recent = Recent::default();
        let long = format!("SET k {}", "x".repeat(200));
        let many = format!("DEL {}", "k ".repeat(40));
        let lengths = ["GET k", &long, "SET \"\" v", &many].map(|line| recent.push(&words(line)));
        let mut first = |i: usize| {
            let words = recent.first(lengths[i]);
            recent.pop(lengths[i]);
            words
        };
        assert_eq!(first(0), ["GET", "k"]);
        assert_eq!(first(1)[2], format!("{}... (72 more bytes)", "x".repeat(128)));
        assert_eq!(first(2), ["SET", "", "v"]);
        let many = first(3);
        assert_eq!((many.len(), &many[31][..]), (32, &b"... (10 more arguments)"[..]));
        let lengths: Vec<_> = (0..1000).map(|_| recent.push(&words(&long))).collect();
        assert!(recent.size_bytes() > KEPT_BYTES);
        lengths.into_iter().for_each(|length| recent.pop(length));
        assert_eq!((recent.size_bytes(), recent.bytes.capacity()), (0, 0));
    }
}
