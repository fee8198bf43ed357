//! One command on its way: its words, and what is to be done about it.

use std::borrow::Cow;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::form::Form;
use super::info::Info;
use super::parse::Words;
use super::server::Wait;
use super::session::Session;
use super::transaction::Exec;
use super::write::Out;
use crate::encoding::parse_i64;
use crate::protocol::Limits;
use crate::request::{Command, Key, Request};

/// Why a command is not executed: the line that says so, from its code word on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused(pub(super) Cow<'static, str>);

impl From<&'static str> for Refused {
    fn from(text: &'static str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Refused {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

pub(super) const SYNTAX: Refused = Refused(Cow::Borrowed("ERR syntax error"));
pub(super) const NOT_AN_INTEGER: Refused =
    Refused(Cow::Borrowed("ERR value is not an integer or out of range"));
pub(super) const NO_SUCH_DB: Refused = Refused(Cow::Borrowed("ERR DB index is out of range"));
pub(super) const SAME_OBJECT: Refused =
    Refused(Cow::Borrowed("ERR source and destination objects are the same"));

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing more: this is the reply.
    Written(Bytes),
    /// The same, after so long.
    Late(Duration, Bytes),
    /// These commands are run, and their answers make the reply.
    Run(Vec<Command>, Form),
    /// Something beside the key space is asked; not within a transaction.
    Ask(Request, Later),
}

/// What becomes of a reply that is more than a form of answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Later {
    /// KEYS: one step after the other.
    Keys {
        /// What has been met so far.
        found: Vec<Bytes>,
        /// What that takes in memory.
        bytes: usize,
        /// What is asked for.
        pattern: Bytes,
        /// Where.
        db: u8,
    },
    /// RANDOMKEY: on from some place, and from the beginning if there is nothing
    /// behind it.
    AnyKey {
        /// Which of those that are met.
        random: u64,
        /// Where.
        db: u8,
        /// It has been looked for from the beginning.
        wrapped: bool,
    },
    /// WATCH: the versions of these keys are kept.
    Watch(Vec<Key>),
    /// EXEC.
    Exec(Exec),
    /// INFO.
    Info(Info),
    /// WAIT and WAITAOF.
    Wait(Wait),
    /// OBJECT IDLETIME and FREQ: first that what was asked before has happened, then
    /// of a key, if it is there.
    Usage {
        /// Which.
        key: Key,
        /// FREQ.
        frequency: bool,
    },
    /// TIME.
    Time,
    /// ROLE.
    Role,
    /// LEADER.
    Leader,
}

pub(super) type Planned = Result<Plan, Refused>;

/// A command and the connection that it came on.
pub(super) struct Call<'a> {
    pub(super) words: &'a Words,
    pub(super) session: &'a mut Session,
    pub(super) limits: &'a Limits,
    /// Its name as the table has it.
    pub(super) name: &'static str,
}

impl Call<'_> {
    pub(super) fn count(&self) -> usize {
        self.words.count()
    }

    pub(super) fn get(&self, i: usize) -> &[u8] {
        self.words.get(i)
    }

    /// A word to keep. Between MULTI and EXEC a small one is copied: it would keep
    /// all that it came in from being freed.
    pub(super) fn bytes(&self, i: usize) -> Bytes {
        const SMALL_BYTES: usize = 4 << 10;
        if self.session.is_in_transaction() && self.get(i).len() <= SMALL_BYTES {
            return Bytes::copy_from_slice(self.get(i));
        }
        self.words.bytes(i)
    }

    /// Whether a word is this one, in whatever case.
    pub(super) fn is(&self, i: usize, word: &str) -> bool {
        self.get(i).eq_ignore_ascii_case(word.as_bytes())
    }

    /// A key in the database that is selected.
    pub(super) fn key(&self, i: usize) -> Key {
        Key { db: self.session.chosen.db, name: self.bytes(i) }
    }

    pub(super) fn integer(&self, i: usize) -> Result<i64, Refused> {
        parse_i64(self.get(i)).ok_or(NOT_AN_INTEGER)
    }

    /// A number of a database.
    pub(super) fn db(&self, i: usize) -> Result<u8, Refused> {
        let number = self.integer(i)?;
        u8::try_from(number).ok().filter(|db| *db < crate::request::DATABASES).ok_or(NO_SUCH_DB)
    }

    pub(super) fn invalid_expiry(&self) -> Refused {
        format!("ERR invalid expire time in '{}' command", self.name).into()
    }

    /// What a subcommand is told that takes no words of this kind.
    pub(super) fn unknown_form(&self) -> Refused {
        let word = String::from_utf8_lossy(self.get(1));
        let container = String::from_utf8_lossy(self.get(0)).to_uppercase();
        format!(
            "ERR unknown subcommand or wrong number of arguments for '{word}'. Try {container} \
             HELP."
        )
        .into()
    }

    /// A reply that is known now.
    pub(super) fn written(&self, write: impl FnOnce(&mut Out<'_>)) -> Plan {
        let mut bytes = BytesMut::new();
        write(&mut Out { bytes: &mut bytes, resp3: self.session.resp3 });
        Plan::Written(bytes.freeze())
    }

    pub(super) fn ok(&self) -> Planned {
        Ok(Plan::Written(Bytes::from_static(b"+OK\r\n")))
    }
}

/// One command, one answer.
pub(super) fn run(command: Command, form: Form) -> Planned {
    Ok(Plan::Run(vec![command], form))
}
