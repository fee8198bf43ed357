//! How the answers of the state machine look to a client of Redis.

use bytes::Bytes;

use super::lcs::Lcs;
use super::parse::Words;
use super::scripts::Outcome;
use super::write::Out;
use crate::encoding::digest;
use crate::request::{Answer, ErrorKind, Failure, Item, Reply, Ttl};

/// What a command's reply is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing of the answers: it is known already.
    Written(Bytes),
    /// One answer, however it is: `+OK`.
    Ok,
    /// A SET with a condition: `+OK` or nothing.
    OkOrNull,
    /// A SET with a condition: 1 or 0.
    Stored,
    /// Several SETs: one `+OK`.
    AllOk(usize),
    /// A number.
    Integer,
    /// Numbers, added up.
    Sum(usize),
    /// A value.
    Bulk,
    /// A value, then a write that only counts if it fails.
    Old,
    /// The same, where an absent key is no failure.
    OldIfAny,
    /// Nothing for an absent key, else this error.
    ErrorIfAny(String),
    /// Values.
    Bulks(usize),
    /// The length of a value.
    Length,
    /// A part of a value: from and to, both inclusive, negative from its end.
    Range(i64, i64),
    /// The type of a value.
    Type,
    /// How Redis would hold a value.
    Encoding,
    /// Something that every present key has.
    Constant(i64),
    /// What a key takes in memory, with a name of this length.
    Memory(usize),
    /// Time left, or a moment: in so many milliseconds.
    Time {
        /// The unit.
        unit_ms: u64,
    },
    /// RENAME.
    Renamed,
    /// COPY and MOVE: 1 or 0, also for an absent key.
    Copied,
    /// Whether the tests of a `When` held, as 1 or 0.
    Held,
    /// The number that the only command of a `When` was answered with, or 0.
    NestedInteger,
    /// What a value is compared by.
    Digest,
    /// SCAN.
    Scan {
        /// Whether the keys that are there have the type that was asked for.
        wanted: bool,
    },
    /// KEYS, where it has to be told at once.
    Keys,
    /// RANDOMKEY, where it has to be told at once.
    AnyKey(u64),
    /// What two values have in common.
    Lcs(Lcs),
    /// What a script has come to.
    Script(Outcome),
    /// Nothing of the answers: the command is run when EXEC is answered.
    AtExec {
        /// Its words.
        words: Words,
        /// How many answers it takes.
        answers: usize,
    },
}

impl Form {
    /// Writes what the next answers say. Panics if there are too few: a batch has
    /// an answer to each of its commands.
    pub(super) fn write<'a>(
        &self,
        command: &str,
        answers: &mut impl Iterator<Item = &'a Answer>,
        out: &mut Out<'_>,
    ) {
        let mut next = || answers.next().expect("every command has an answer");
        let answer = match self {
            Self::Written(bytes) => return out.bytes.extend_from_slice(bytes),
            Self::AllOk(count) => {
                return self.write_all(command, (0..*count).map(|_| next()), out, |out| out.ok());
            }
            Self::Sum(count) => {
                let sum = (0..*count).map(|_| integer(next())).sum();
                return out.integer(sum);
            }
            Self::Bulks(count) => {
                out.array(*count);
                return (0..*count).for_each(|_| write_item(item(next()), out));
            }
            Self::Old | Self::OldIfAny => {
                let (old, write) = (next(), next());
                match write {
                    Answer::Failed(_) if *self == Self::OldIfAny && item(old).is_none() => old,
                    Answer::Failed(failure) => return write_failure(command, *failure, out),
                    _ => old,
                }
            }
            Self::Script(outcome) => return outcome.write(next, out),
            Self::Lcs(lcs) => {
                let (a, b) = (value(next()), value(next()));
                return lcs.write(a, b, out);
            }
            _ => next(),
        };
        match (answer, self) {
            (Answer::Failed(Failure::NoSuchKey), Self::Copied) => out.integer(0),
            (Answer::Failed(failure), _) => write_failure(command, *failure, out),
            (Answer::Nested(Some(answers)), Self::Held) => {
                self.write_all(command, answers.iter(), out, |out| out.integer(1));
            }
            (answer, form) => form.write_one(answer, out),
        }
    }

    fn write_all<'a>(
        &self,
        command: &str,
        answers: impl Iterator<Item = &'a Answer>,
        out: &mut Out<'_>,
        done: impl FnOnce(&mut Out<'_>),
    ) {
        let mut failures = answers.filter_map(|answer| match answer {
            Answer::Failed(failure) => Some(*failure),
            _ => None,
        });
        match failures.next() {
            Some(failure) => write_failure(command, failure, out),
            None => done(out),
        }
    }

    fn write_one(&self, answer: &Answer, out: &mut Out<'_>) {
        match self {
            Self::Ok | Self::Renamed if matches!(answer, Answer::Integer(0)) => out.integer(0),
            Self::Ok | Self::Renamed => out.ok(),
            Self::OkOrNull if matches!(answer, Answer::NotStored { .. }) => out.null(),
            Self::OkOrNull => out.ok(),
            Self::Stored => out.integer(i64::from(matches!(answer, Answer::Stored { .. }))),
            Self::Held => out.integer(0),
            Self::Integer | Self::Copied => out.integer(integer(answer)),
            Self::NestedInteger => out.integer(match answer {
                Answer::Nested(Some(answers)) => answers.first().map_or(0, integer),
                _ => 0,
            }),
            Self::Digest => write_present(answer, out, |value, out| {
                out.bulk(format!("{:016x}", digest(value)).as_bytes());
            }),
            Self::Length => out.integer(length(value(answer))),
            Self::Range(from, to) => out.bulk(part(value(answer), *from, *to)),
            Self::ErrorIfAny(text) => write_present(answer, out, |_, out| out.error(text)),
            Self::Type => out.simple(if item(answer).is_some() { "string" } else { "none" }),
            Self::Encoding => write_present(answer, out, |value, out| {
                out.bulk(encoding_of(value).as_bytes());
            }),
            Self::Constant(number) => write_present(answer, out, |_, out| out.integer(*number)),
            Self::Memory(name) => write_present(answer, out, |value, out| {
                out.integer(length(value) + length_of(*name) + ITEM_BYTES);
            }),
            Self::Time { unit_ms } => out.integer(time(answer, *unit_ms)),
            Self::Scan { wanted } => write_scan(answer, *wanted, out),
            Self::Keys => write_keys(answer, out),
            Self::AnyKey(random) => write_any_key(answer, *random, out),
            _ => write_item(item(answer), out),
        }
    }
}

/// What the state machine counts for a key besides its bytes.
const ITEM_BYTES: i64 = 72;

pub(super) fn item(answer: &Answer) -> Option<&Item> {
    match answer {
        Answer::Item(item) => item.as_ref(),
        _ => None,
    }
}

fn value(answer: &Answer) -> &[u8] {
    item(answer).map_or(&[], |item| &item.value)
}

pub(super) fn integer(answer: &Answer) -> i64 {
    match answer {
        Answer::Integer(number) => *number,
        _ => 0,
    }
}

fn length(value: &[u8]) -> i64 {
    length_of(value.len())
}

fn length_of(length: usize) -> i64 {
    i64::try_from(length).expect("values are in memory")
}

pub(super) fn write_item(item: Option<&Item>, out: &mut Out<'_>) {
    match item {
        Some(item) => out.bulk(&item.value),
        None => out.null(),
    }
}

fn write_present(answer: &Answer, out: &mut Out<'_>, write: impl Fn(&[u8], &mut Out<'_>)) {
    match item(answer) {
        Some(item) => write(&item.value, out),
        None => out.null(),
    }
}

/// -2 for an absent key, -1 for one that stays, else time in `unit_ms`, rounded as
/// Redis does.
pub(super) fn time(answer: &Answer, unit_ms: u64) -> i64 {
    match answer {
        Answer::Ttl(Ttl::Ms(ms)) => {
            i64::try_from((ms + unit_ms / 2) / unit_ms).expect("deadlines are within an i64")
        }
        Answer::Ttl(Ttl::Never) => -1,
        _ => -2,
    }
}

/// The bytes of a value between two positions, both inclusive, negative ones from
/// its end.
fn part(value: &[u8], from: i64, to: i64) -> &[u8] {
    let length = length(value);
    let at = |position: i64| if position < 0 { position.saturating_add(length) } else { position };
    if value.is_empty() || (from < 0 && to < 0 && from > to) {
        return &[];
    }
    // An end before the beginning is the beginning, as in Redis.
    let (from, to) = (at(from).max(0), at(to).max(0).min(length - 1));
    if from > to { &[] } else { &value[from as usize..=to as usize] }
}

/// What Redis says of a string that was set: not of one that was altered.
fn encoding_of(value: &[u8]) -> &'static str {
    const EMBEDDED_BYTES: usize = 44;
    if crate::encoding::parse_i64(value).is_some() {
        "int"
    } else if value.len() <= EMBEDDED_BYTES {
        "embstr"
    } else {
        "raw"
    }
}

fn write_scan(answer: &Answer, wanted: bool, out: &mut Out<'_>) {
    let Answer::Names { cursor, names } = answer else { return out.null_array() };
    let names = if wanted { &names[..] } else { &[] };
    out.array(2);
    out.bulk(cursor.to_string().as_bytes());
    write_names(names, out);
}

pub(super) fn write_names(names: &[Bytes], out: &mut Out<'_>) {
    out.array(names.len());
    names.iter().for_each(|name| out.bulk(name));
}

/// All keys in one answer; in a transaction there is no second one.
fn write_keys(answer: &Answer, out: &mut Out<'_>) {
    match answer {
        Answer::Names { cursor: 0, names } => write_names(names, out),
        _ => out.error("ERR too many keys for KEYS in a transaction, use SCAN"),
    }
}

fn write_any_key(answer: &Answer, random: u64, out: &mut Out<'_>) {
    match answer {
        Answer::Names { names, .. } if !names.is_empty() => {
            out.bulk(&names[(random % names.len() as u64) as usize]);
        }
        _ => out.null(),
    }
}

fn write_failure(command: &str, failure: Failure, out: &mut Out<'_>) {
    out.error(&failure_text(command, failure));
}

/// Why a command had no effect, as Redis says it.
pub(super) fn failure_text(command: &str, failure: Failure) -> String {
    match failure {
        Failure::InvalidExpiry => format!("ERR invalid expire time in '{command}' command"),
        Failure::TooLong => {
            "ERR string exceeds maximum allowed size (proto-max-bulk-len)".to_owned()
        }
        failure => format!("ERR {failure}"),
    }
}

/// Why a whole request failed. `UNKNOWN` is a word that no client library takes as
/// an invitation to try again.
pub(super) fn write_error(kind: ErrorKind, reason: &str, out: &mut Out<'_>) {
    let word = match kind {
        ErrorKind::NoLeader | ErrorKind::NotServing => "CLUSTERDOWN",
        ErrorKind::Unknown => "UNKNOWN",
        ErrorKind::OutOfMemory => {
            return out.error("OOM command not allowed when used memory > 'maxmemory'.");
        }
        ErrorKind::DiskFull => "MISCONF",
        ErrorKind::Busy => return out.error("BUSY try again"),
        ErrorKind::Invalid | ErrorKind::SessionExpired | ErrorKind::Refused => "ERR",
    };
    out.error(&format!("{word} {reason}"));
}

/// What is told when a reply is none that was asked for: would be a mistake of the
/// node; the client must not wait for ever.
pub(super) fn write_unexpected(reply: &Reply, out: &mut Out<'_>) {
    match reply {
        Reply::Error(kind, reason) => write_error(*kind, reason, out),
        _ => out.error("UNKNOWN the node lost the answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_value_are_those_of_redis() {
        let table: &[(i64, i64, &str)] = &[
            (0, 3, "This"),
            (-3, -1, "ing"),
            (0, -1, "This is a string"),
            (10, 100, "string"),
            (5, 3, ""),
            (100, 200, ""),
            (-100, -90, "T"),
            (-90, -100, ""),
            (-100, 0, "T"),
            (0, 0, "T"),
            (i64::MIN, i64::MAX, "This is a string"),
            (i64::MIN, i64::MIN, "T"),
        ];
        for (from, to, expected) in table {
            assert_eq!(part(b"This is a string", *from, *to), expected.as_bytes(), "{from} {to}");
        }
        assert_eq!(part(b"", 0, -1), b"");
    }

    #[test]
    fn time_left_is_rounded_as_redis_does() {
        let left = |ms, unit_ms| time(&Answer::Ttl(Ttl::Ms(ms)), unit_ms);
        assert_eq!(
            [left(1, 1000), left(499, 1000), left(500, 1000), left(1499, 1000)],
            [0, 0, 1, 1]
        );
        assert_eq!(left(1, 1), 1);
        assert_eq!(left(i64::MAX as u64, 1), i64::MAX);
        assert_eq!(time(&Answer::Ttl(Ttl::Never), 1), -1);
        assert_eq!(time(&Answer::Ttl(Ttl::Absent), 1), -2);
    }
}
