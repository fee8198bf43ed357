//! The text protocol: a command per line.

use raftcache::request::{Answer, Command, Condition, Expiry, Failure, Item, Key, Ttl};

use crate::speaks::{Speaks, take};
use crate::words::{Ask, Said, found, left, number};

pub struct Text;

/// A key as a word.
fn word(key: &Key) -> Option<&[u8]> {
    let is_word = !key.name.is_empty() && !key.name.iter().any(u8::is_ascii_whitespace);
    (key.db == 0 && is_word).then_some(&key.name)
}

fn line(command: &str, words: &[&[u8]]) -> Vec<u8> {
    [&[command.as_bytes()], words].concat().join(&b' ')
}

fn set(key: &Key, value: &[u8]) -> Option<Vec<u8>> {
    let begins_well = value.first().is_some_and(|byte| !byte.is_ascii_whitespace());
    let is_line = !value.contains(&b'\n') && !value.ends_with(b"\r");
    (begins_well && is_line).then_some(line("SET", &[word(key)?, value]))
}

fn command(of: &Command) -> Option<Vec<u8>> {
    match of {
        Command::Get(key) => Some(line("GET", &[word(key)?])),
        Command::Delete(key) => Some(line("DEL", &[word(key)?])),
        Command::Ttl(key) => Some(line("TTL", &[word(key)?])),
        Command::Set { key, value, expiry: Expiry::Never, condition: Condition::Always } => {
            set(key, value)
        }
        Command::Expire { key, expiry: Expiry::AfterMs(ms) } if ms % 1000 == 0 => {
            Some(line("EXPIRE", &[word(key)?, (ms / 1000).to_string().as_bytes()]))
        }
        _ => None,
    }
}

fn answer(of: &Command, line: &[u8]) -> Answer {
    match (of, line) {
        (_, b"ERR invalid expire time") => Answer::Failed(Failure::InvalidExpiry),
        (Command::Get(_), value) => {
            Answer::Item(Some(Item { value: value.to_vec().into(), version: 0 }))
        }
        (Command::Set { .. }, b"Success") => Answer::Stored { version: 0 },
        (Command::Delete(_) | Command::Expire { .. }, b"Success") => Answer::Integer(1),
        (Command::Expire { .. }, b"ERR no such key") => Answer::Integer(0),
        (Command::Ttl(_), b"-2") => Answer::Ttl(Ttl::Absent),
        (Command::Ttl(_), b"-1") => Answer::Ttl(Ttl::Never),
        (Command::Ttl(_), seconds) => {
            let seconds = str::from_utf8(seconds).ok().and_then(|text| text.parse::<u64>().ok());
            Answer::Ttl(Ttl::Ms(seconds.expect("a number") * 1000))
        }
        _ => panic!("{} to {of:?}", line.escape_ascii()),
    }
}

impl Speaks for Text {
    fn name(&self) -> &'static str {
        "text"
    }

    fn request(&self, ask: &Ask) -> Option<Vec<u8>> {
        let line = match ask {
            Ask::Ping => b"PING".to_vec(),
            Ask::Run(batch) => match &batch[..] {
                [of] => command(of)?,
                _ => return None,
            },
            Ask::Leader | Ask::Stale(_) => return None,
        };
        Some([&line[..], b"\n"].concat())
    }

    fn has_room(&self, request: &[u8]) -> bool {
        request.len() - 1 <= 64 << 10
    }

    fn reply(&self, ask: &Ask, input: &[u8]) -> Option<(Said, usize)> {
        let mut rest = input;
        let end = input.iter().position(|&byte| byte == b'\n')?;
        let line = &take(&mut rest, end + 1)?[..end];
        let said = match ask {
            Ask::Ping => {
                assert_eq!(line, b"+PONG\r");
                Said::Pong
            }
            Ask::Run(batch) => Said::Answers(vec![answer(&batch[0], line)]),
            _ => unreachable!("it is not asked"),
        };
        Some((said, end + 1))
    }

    /// No key looks like an empty value, `DEL` always succeeds, and seconds are
    /// rounded up.
    fn told(&self, ask: &Ask, said: &Said) -> Option<Said> {
        let (Ask::Run(batch), Said::Answers(answers)) = (ask, said) else {
            return Some(said.clone());
        };
        match (&batch[..], &answers[..]) {
            ([Command::Get(_)], [Answer::Item(None)]) => Some(found("")),
            ([Command::Get(_)], [Answer::Item(Some(item))]) if item.value.contains(&b'\n') => None,
            ([Command::Delete(_)], [Answer::Integer(0)]) => Some(number(1)),
            (_, [Answer::Ttl(Ttl::Ms(ms))]) => Some(left(Ttl::Ms(ms.div_ceil(1000) * 1000))),
            _ => Some(said.clone()),
        }
    }

    fn unspoken(&self) -> &'static str {
        "node: leader\n\
         absent: exists\n\
         present: exists, stale\n\
         empty-value: set\n\
         any-value: set, get\n\
         large-value: set\n\
         empty-key: set, get\n\
         any-key: set, get\n\
         longest-key: set, get\n\
         database: clear, set, get, count, clear again, count again\n\
         if-absent: holds, does not\n\
         if-present: does not, holds\n\
         if-value: does not, holds\n\
         unless-value: absent, does not, holds\n\
         if-version: holds, does not\n\
         add: to nothing, negative\n\
         add to text: add\n\
         add to the most: add, least\n\
         ttl: set\n\
         ttl-ms: set\n\
         ttl-keep: set, keep\n\
         persist: set, persist, again\n\
         moment: expire, set late\n\
         several: set, get\n\
         together: batch\n\
         parts: append, write over, copy, rename, expire only\n"
    }

    fn vague(&self) -> &'static str {
        "absent: get\n\
         delete: gone, not there\n\
         database: not in another\n\
         if-present: get\n\
         expire: gone\n\
         moment: gone\n"
    }

    fn to_a_long_key(&self) -> &'static str {
        "ERR line too long\n"
    }

    fn to_a_long_value(&self) -> &'static str {
        "ERR line too long\n"
    }
}
