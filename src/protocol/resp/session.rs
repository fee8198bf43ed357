//! What a connection remembers, and the commands about it.

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::call::{Call, Later, Plan, Planned, Refused, SYNTAX};
use super::form::Form;
use super::scripts::Remembered;
use super::write::Out;
use super::{REDIS_VERSION, table};
use crate::encoding::parse_i64;
use crate::protocol::surroundings::{Description, Surroundings};
use crate::request::{Command, Consistency, Guard, Key};

/// The longest name of a connection or of a client's library.
const NAME_BYTES: usize = 1 << 10;

/// How many keys one connection may watch.
const WATCHED_KEYS: usize = 1000;

/// Which replies are to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replies {
    /// All.
    On,
    /// None.
    Off,
    /// All but that to this command,
    SkipThis,
    /// or to the next.
    SkipNext,
}

/// The commands between MULTI and EXEC.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) commands: Vec<Command>,
    pub(super) forms: Vec<(&'static str, Form)>,
    /// What they hold in memory.
    pub(super) bytes: usize,
    /// How many of them take their time when EXEC is answered.
    pub(super) at_exec: usize,
    /// One of them was refused.
    pub(super) failed: bool,
    /// What was chosen before.
    pub(super) before: Chosen,
}

/// What a client chooses for its connection. Between MULTI and EXEC it is as if
/// EXEC had come, and then it counts only if that succeeds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) db: u8,
    pub(super) name: Bytes,
    pub(super) consistency: Consistency,
}

/// What a connection remembers.
pub(super) struct Session {
    /// Names the connection.
    pub(super) id: u64,
    /// The node around it.
    pub(super) surroundings: Box<dyn Surroundings>,
    /// Version 3 of the protocol was agreed on.
    pub(super) resp3: bool,
    pub(super) chosen: Chosen,
    pub(super) replies: Replies,
    pub(super) transaction: Option<Transaction>,
    /// What EXEC depends on.
    pub(super) watched: Vec<Guard>,
    /// What EVALSHA finds, besides what is known anyway.
    pub(super) scripts: Remembered,
    /// QUIT was said.
    pub(super) is_over: bool,
    /// Of the client's library, as it says.
    library: [String; 2],
    rng: SmallRng,
}

impl Session {
    pub(super) fn new(id: u64, seed: u64, surroundings: Box<dyn Surroundings>) -> Self {
        Self {
            id,
            surroundings,
            resp3: false,
            chosen: Chosen::default(),
            replies: Replies::On,
            transaction: None,
            watched: Vec::new(),
            scripts: Remembered::default(),
            is_over: false,
            library: Default::default(),
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    pub(super) fn is_in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    pub(super) fn random(&mut self) -> u64 {
        self.rng.random()
    }

    /// Whether the reply to the command at hand is sent; the next one is another
    /// matter.
    pub(super) fn is_heard(&mut self) -> bool {
        match self.replies {
            Replies::On => true,
            Replies::Off => false,
            Replies::SkipNext => {
                self.replies = Replies::SkipThis;
                false
            }
            Replies::SkipThis => {
                self.replies = Replies::On;
                false
            }
        }
    }

    /// Tells the node what CLIENT LIST says of this connection.
    pub(super) fn describe(&self) {
        let [library, library_version] = self.library.clone();
        self.surroundings.describe(Description {
            name: String::from_utf8_lossy(&self.chosen.name).into_owned(),
            library,
            library_version,
            db: self.chosen.db,
            resp: if self.resp3 { 3 } else { 2 },
            queued: self.transaction.as_ref().map(|transaction| transaction.forms.len()),
        });
    }

    /// Begins anew, as after HELLO 2.
    fn reset(&mut self) {
        self.discard();
        (self.resp3, self.chosen, self.replies) = (false, Chosen::default(), Replies::On);
    }

    /// Forgets what was between MULTI and here.
    pub(super) fn discard(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            self.chosen = transaction.before;
        }
        self.watched.clear();
    }
}

pub(super) fn ping(call: &mut Call<'_>) -> Planned {
    match call.count() {
        1 => Ok(Plan::Written(Bytes::from_static(b"+PONG\r\n"))),
        2 => Ok(call.written(|out| out.bulk(call.get(1)))),
        _ => Err(table::wrong_arity("ping")),
    }
}

pub(super) fn echo(call: &mut Call<'_>) -> Planned {
    Ok(call.written(|out| out.bulk(call.get(1))))
}

pub(super) fn select(call: &mut Call<'_>) -> Planned {
    call.session.chosen.db = call.db(1)?;
    call.ok()
}

pub(super) fn quit(call: &mut Call<'_>) -> Planned {
    call.session.is_over = true;
    call.ok()
}

pub(super) fn reset(call: &mut Call<'_>) -> Planned {
    call.session.reset();
    Ok(Plan::Written(Bytes::from_static(b"+RESET\r\n")))
}

pub(super) fn readonly(call: &mut Call<'_>) -> Planned {
    call.session.chosen.consistency = Consistency::Stale;
    call.ok()
}

pub(super) fn readwrite(call: &mut Call<'_>) -> Planned {
    call.session.chosen.consistency = Consistency::Linearizable;
    call.ok()
}

/// Nobody has a password, so everybody is the default user.
fn check_user(name: &[u8]) -> Result<(), Refused> {
    if name == b"default" {
        return Ok(());
    }
    Err("WRONGPASS invalid username-password pair or user is disabled.".into())
}

pub(super) fn auth(call: &mut Call<'_>) -> Planned {
    match call.count() {
        2 => Err("ERR AUTH <password> called without any password configured for the default \
                  user. Are you sure your configuration is correct?"
            .into()),
        3 => check_user(call.get(1)).and_then(|()| call.ok()),
        _ => Err(SYNTAX),
    }
}

/// Names are what a person can see, without spaces.
fn check_name(name: &[u8], what: &str) -> Result<(), Refused> {
    if name.len() > NAME_BYTES {
        return Err(format!("ERR {what} exceed the limit of {NAME_BYTES} bytes").into());
    }
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Ok(());
    }
    Err(format!("ERR {what} cannot contain spaces, newlines or special characters.").into())
}

pub(super) fn hello(call: &mut Call<'_>) -> Planned {
    let mut resp3 = call.session.resp3;
    if call.count() > 1 {
        let version = parse_i64(call.get(1))
            .ok_or("ERR Protocol version is not an integer or out of range")?;
        resp3 = match version {
            2 => false,
            3 => true,
            _ => return Err("NOPROTO unsupported protocol version".into()),
        };
    }
    let (mut i, mut name) = (2, None);
    while i < call.count() {
        let more = call.count() - i - 1;
        if call.is(i, "AUTH") && more >= 2 {
            check_user(call.get(i + 1))?;
            i += 3;
        } else if call.is(i, "SETNAME") && more >= 1 {
            check_name(call.get(i + 1), "Client names")?;
            name = Some(Bytes::copy_from_slice(call.get(i + 1)));
            i += 2;
        } else {
            let option = String::from_utf8_lossy(call.get(i));
            return Err(format!("ERR Syntax error in HELLO option '{option}'").into());
        }
    }
    call.session.resp3 = resp3;
    if let Some(name) = name {
        call.session.chosen.name = name;
    }
    Ok(call.written(|out| write_hello(call.session, out)))
}

fn write_hello(session: &Session, out: &mut Out<'_>) {
    out.map(7);
    let mut pair = |name: &str, value: &str| {
        out.bulk(name.as_bytes());
        out.bulk(value.as_bytes());
    };
    pair("server", "redis");
    pair("version", REDIS_VERSION);
    out.bulk(b"proto");
    out.integer(if session.resp3 { 3 } else { 2 });
    out.bulk(b"id");
    out.integer(i64::try_from(session.id).unwrap_or(i64::MAX));
    let mut pair = |name: &str, value: &str| {
        out.bulk(name.as_bytes());
        out.bulk(value.as_bytes());
    };
    pair("mode", "standalone");
    // Every node takes writes: who is not the leader forwards them.
    pair("role", "master");
    out.bulk(b"modules");
    out.array(0);
}

pub(super) fn client_id(call: &mut Call<'_>) -> Planned {
    let id = i64::try_from(call.session.id).unwrap_or(i64::MAX);
    Ok(call.written(|out| out.integer(id)))
}

pub(super) fn client_getname(call: &mut Call<'_>) -> Planned {
    Ok(call.written(|out| match &call.session.chosen.name[..] {
        [] => out.null(),
        name => out.bulk(name),
    }))
}

pub(super) fn client_setname(call: &mut Call<'_>) -> Planned {
    check_name(call.get(2), "Client names")?;
    call.session.chosen.name = Bytes::copy_from_slice(call.get(2));
    call.ok()
}

/// Which library a client is.
pub(super) fn client_setinfo(call: &mut Call<'_>) -> Planned {
    for (i, attribute) in ["lib-name", "lib-ver"].into_iter().enumerate() {
        if call.is(2, attribute) {
            check_name(call.get(3), attribute)?;
            call.session.library[i] = String::from_utf8_lossy(call.words.get(3)).into_owned();
            return call.ok();
        }
    }
    let option = String::from_utf8_lossy(call.get(2));
    Err(format!("ERR Unrecognized option '{option}'").into())
}

/// ON or OFF, of what we have nothing to switch: no client is evicted, and no
/// command touches the order of eviction.
pub(super) fn client_switch(call: &mut Call<'_>) -> Planned {
    if call.is(2, "ON") || call.is(2, "OFF") { call.ok() } else { Err(SYNTAX) }
}

pub(super) fn client_reply(call: &mut Call<'_>) -> Planned {
    let replies = &mut call.session.replies;
    if call.words.get(2).eq_ignore_ascii_case(b"ON") {
        *replies = Replies::On;
        return call.ok();
    }
    if call.words.get(2).eq_ignore_ascii_case(b"OFF") {
        *replies = Replies::Off;
    } else if call.words.get(2).eq_ignore_ascii_case(b"SKIP") {
        if *replies == Replies::On || *replies == Replies::SkipThis {
            *replies = Replies::SkipNext;
        }
    } else {
        return Err(SYNTAX);
    }
    // No reply to this: it is not heard.
    call.ok()
}

pub(super) fn multi(call: &mut Call<'_>) -> Planned {
    if call.session.is_in_transaction() {
        return Err("ERR MULTI calls can not be nested".into());
    }
    let before = call.session.chosen.clone();
    call.session.transaction = Some(Transaction { before, ..Transaction::default() });
    call.ok()
}

pub(super) fn discard(call: &mut Call<'_>) -> Planned {
    if !call.session.is_in_transaction() {
        return Err("ERR DISCARD without MULTI".into());
    }
    call.session.discard();
    call.ok()
}

pub(super) fn watch(call: &mut Call<'_>) -> Planned {
    if call.session.is_in_transaction() {
        return Err("ERR WATCH inside MULTI is not allowed".into());
    }
    let mut keys = Vec::new();
    for i in 1..call.count() {
        // It is kept for longer than what it came in.
        let (db, name) = (call.session.chosen.db, Bytes::copy_from_slice(call.get(i)));
        let key = Key { db, name };
        let is_watched = |guard: &Guard| guard.key == key;
        if !keys.contains(&key) && !call.session.watched.iter().any(is_watched) {
            keys.push(key);
        }
        // Of more than these a transaction could not make use.
        if keys.len() + call.session.watched.len() > WATCHED_KEYS {
            return Err(format!("ERR more than {WATCHED_KEYS} keys are watched").into());
        }
    }
    let reads = keys.iter().cloned().map(Command::Get).collect();
    Ok(Plan::Ask(table::read(reads, call.session.chosen.consistency), Later::Watch(keys)))
}

pub(super) fn unwatch(call: &mut Call<'_>) -> Planned {
    // In a transaction it is EXEC that ends the watch, before it.
    if !call.session.is_in_transaction() {
        call.session.watched.clear();
    }
    call.ok()
}
