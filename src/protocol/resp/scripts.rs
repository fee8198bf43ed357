//! EVAL and its like. There is no Lua: the scripts of locks and limiters are known by
//! their texts, and what they do is done by commands of our own, all at once.
//!
//! A script is known by the SHA-1 of its text as its library sends it, or by the text,
//! whatever its comments, white space and quotes. Another one gets an error that says
//! so. So does one that gets fewer keys or arguments than it uses.
//!
//! # What is different
//!
//! | | |
//! |---|---|
//! | SCRIPT LOAD, EVAL | make the digest of a text that is known in other words known to this connection, the last 128; elsewhere EVALSHA answers `NOSCRIPT`, upon which clients send EVAL |
//! | SCRIPT EXISTS | 1 for a library's own text, loaded or not |
//! | EVAL_RO | refuses a script that may write before it begins |
//! | redis-py | a time by which to extend a lock that makes no sense, or from 2^53 on, is refused, whatever the lock is |
//! | rate-limit-redis, rate-limiter-flexible | a window that is no positive whole number, or from 2^53 on, is refused before anything is counted |

mod known;
mod lua;
mod reply;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use super::call::{Call, Plan, Planned, Refused};
use super::form::Form;
use super::write::Out;
use crate::request::{Answer, Command};
use known::{Arguments, SCRIPTS, Script};
use reply::{Reply, Writer};

/// The longest text that may be one we know.
const TEXT_BYTES: usize = 4 << 10;

/// How many digests a connection remembers, besides those that all know.
const REMEMBERED: usize = 128;

const NO_SCRIPT: &str = "NOSCRIPT No matching script. Please use EVAL.";

/// One text of a script that is known.
#[derive(Debug)]
pub(super) struct Text {
    script: &'static Script,
    /// SHA-1, in hexadecimal digits.
    digest: String,
    /// In which lines it calls commands.
    calls: Vec<usize>,
}

/// A text as its library sends it, and its words.
struct Known {
    text: Arc<Text>,
    words: Vec<u8>,
}

static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let known = |script: &'static Script| {
        let lua::Normal { words, calls } = lua::normal(script.text.as_bytes());
        let text = Text { script, digest: digest_of(script.text.as_bytes()), calls };
        Known { text: Arc::new(text), words }
    };
    SCRIPTS.iter().map(known).collect()
});

fn digest_of(text: &[u8]) -> String {
    sha1_smol::Sha1::from(text).digest().to_string()
}

/// Texts in other words than their library's, that a connection has sent.
#[derive(Debug, Default)]
pub(super) struct Remembered(VecDeque<Arc<Text>>);

impl Remembered {
    fn find(&self, digest: &[u8]) -> Option<Arc<Text>> {
        let is_it = |text: &&Arc<Text>| digest.eq_ignore_ascii_case(text.digest.as_bytes());
        let known = || KNOWN.iter().map(|known| &known.text);
        known().chain(&self.0).find(is_it).cloned()
    }

    /// The script that a text is, which from here on is known by its digest.
    fn learn(&mut self, text: &[u8]) -> Option<Arc<Text>> {
        if text.len() > TEXT_BYTES {
            return None;
        }
        let digest = digest_of(text);
        if let Some(text) = self.find(digest.as_bytes()) {
            return Some(text);
        }
        let lua::Normal { words, calls } = lua::normal(text);
        let known = KNOWN.iter().find(|known| known.words == words)?;
        let text = Arc::new(Text { script: known.text.script, digest, calls });
        self.0.truncate(REMEMBERED - 1);
        self.0.push_front(text.clone());
        Some(text)
    }
}

/// How a script's reply is written: what it is made of, and whose it is.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    reply: Reply,
    text: Arc<Text>,
}

impl PartialEq for Outcome {
    fn eq(&self, other: &Self) -> bool {
        self.reply == other.reply && self.text.digest == other.text.digest
    }
}

impl Eq for Outcome {}

impl Outcome {
    /// Writes what the next answers say.
    pub(super) fn write<'a>(&self, mut next: impl FnMut() -> &'a Answer, out: &mut Out<'_>) {
        let count = match &self.reply {
            Reply::First(parts, _) => parts.len(),
            Reply::Count(count) => *count,
            Reply::Window(..) | Reply::ValueAndTime => 2,
            Reply::Hits { .. } => 1,
        };
        let answers: Vec<_> = (0..count).map(|_| next()).collect();
        Writer { text: &self.text, out }.write(&self.reply, &answers);
    }
}

fn unknown_script() -> Refused {
    let mut libraries: Vec<_> = SCRIPTS.iter().map(|script| script.library).collect();
    libraries.sort_unstable();
    libraries.dedup();
    format!(
        "ERR this script is not known: scripts in general are not run, only those of locks \
         and limiters of {}",
        libraries.join(", ")
    )
    .into()
}

/// How many of the words after this are keys.
fn number_of_keys(call: &Call<'_>) -> Result<usize, Refused> {
    let count = call.integer(2)?;
    let room = call.count() - 3;
    match usize::try_from(count) {
        Ok(count) if count <= room => Ok(count),
        Ok(_) => Err("ERR Number of keys can't be greater than number of args".into()),
        Err(_) => Err("ERR Number of keys can't be negative".into()),
    }
}

pub(super) fn eval(call: &mut Call<'_>) -> Planned {
    let keys = number_of_keys(call)?;
    let text = call.session.scripts.learn(call.words.get(1)).ok_or_else(unknown_script)?;
    run(call, keys, text)
}

pub(super) fn evalsha(call: &mut Call<'_>) -> Planned {
    let digest = call.get(1);
    if digest.len() != 40 {
        return Err(NO_SCRIPT.into());
    }
    let keys = number_of_keys(call)?;
    let text = call.session.scripts.find(digest).ok_or(Refused::from(NO_SCRIPT))?;
    run(call, keys, text)
}

pub(super) fn eval_ro(call: &mut Call<'_>) -> Planned {
    eval(call).and_then(refuse_writes)
}

pub(super) fn evalsha_ro(call: &mut Call<'_>) -> Planned {
    evalsha(call).and_then(refuse_writes)
}

fn refuse_writes(plan: Plan) -> Planned {
    match &plan {
        Plan::Run(commands, _) if commands.iter().any(Command::is_write) => {
            Err("ERR Write commands are not allowed from read-only scripts.".into())
        }
        _ => Ok(plan),
    }
}

fn run(call: &Call<'_>, keys: usize, text: Arc<Text>) -> Planned {
    let arguments = Arguments {
        keys: (3..3 + keys).map(|i| call.key(i)).collect(),
        values: (3 + keys..call.count()).map(|i| call.bytes(i)).collect(),
    };
    let script = text.script;
    if keys < script.keys || arguments.values.len() < script.arguments {
        return Err(format!(
            "ERR the script {} takes at least {} keys and {} arguments",
            script.name, script.keys, script.arguments
        )
        .into());
    }
    let (commands, reply) = (script.run)(&arguments)?;
    Ok(Plan::Run(commands, Form::Script(Outcome { reply, text })))
}

pub(super) fn load(call: &mut Call<'_>) -> Planned {
    let text = call.session.scripts.learn(call.words.get(2)).ok_or_else(unknown_script)?;
    Ok(call.written(|out| out.bulk(text.digest.as_bytes())))
}

pub(super) fn exists(call: &mut Call<'_>) -> Planned {
    Ok(call.written(|out| {
        out.array(call.count() - 2);
        for i in 2..call.count() {
            out.integer(i64::from(call.session.scripts.find(call.get(i)).is_some()));
        }
    }))
}

pub(super) fn flush(call: &mut Call<'_>) -> Planned {
    if call.count() > 3 || (call.count() == 3 && !call.is(2, "SYNC") && !call.is(2, "ASYNC")) {
        return Err("ERR SCRIPT FLUSH only support SYNC|ASYNC option".into());
    }
    call.session.scripts = Remembered::default();
    call.ok()
}
