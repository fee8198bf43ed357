//! Every command: what it is called, how many words it takes, which of them are
//! keys, and what it does. Dispatch and COMMAND both go by this table.

use super::call::{Call, Planned, Refused};
use super::parse::Words;
use super::{clients, config, info, keys, scripts, server, session, slow, strings, transaction};
use crate::request::{Batch, Command, Consistency, Request};

/// A command, or one word of a command of two.
pub(super) struct Spec {
    /// In lower case; a subcommand has its container's in front: `client|id`.
    pub(super) name: &'static str,
    /// Words, its own included; negative: so many or more.
    pub(super) arity: i32,
    /// What Redis says of it.
    pub(super) flags: &'static [&'static str],
    /// First key, last key (negative from the end) and step; zeros for none.
    pub(super) keys: (i32, i32, i32),
    /// What it is about, in Redis' words.
    pub(super) group: &'static str,
    /// What it does, in ours.
    pub(super) summary: &'static str,
    run: fn(&mut Call<'_>) -> Planned,
}

const WRITE: &[&str] = &["write", "denyoom", "fast"];
const REMOVE: &[&str] = &["write", "fast"];
const READ: &[&str] = &["readonly", "fast"];
const SLOW_READ: &[&str] = &["readonly"];
const LOCAL: &[&str] = &["loading", "stale", "fast"];
/// Their keys are counted by a word of their own.
const MANY: &[&str] = &["write", "denyoom", "movablekeys"];
const SCRIPT: &[&str] = &["noscript", "stale", "skip_monitor", "no_mandatory_keys", "movablekeys"];
const READ_SCRIPT: &[&str] =
    &["readonly", "noscript", "stale", "skip_monitor", "no_mandatory_keys", "movablekeys"];
const ABOUT_SCRIPTS: &[&str] = &["noscript"];
const LOAD_SCRIPT: &[&str] = &["noscript", "stale"];
const NO_MULTI: &[&str] = &["loading", "stale", "fast", "no_multi"];
/// About the node: between MULTI and EXEC they are run when that is answered.
const NODE: &[&str] = &["noscript", "loading", "stale"];
const AT_ONCE: &[&str] = &["loading", "stale", "fast", "skip_queue"];

const ONE: (i32, i32, i32) = (1, 1, 1);
const TWO: (i32, i32, i32) = (1, 2, 1);
const ALL: (i32, i32, i32) = (1, -1, 1);
const PAIRS: (i32, i32, i32) = (1, -1, 2);
const SECOND: (i32, i32, i32) = (2, 2, 1);
const NONE: (i32, i32, i32) = (0, 0, 0);

/// Writes the rows: name, arity, flags, keys, what it does, who does it.
macro_rules! table {
    ($(group $group:literal $($name:literal $arity:literal $flags:ident $keys:ident $run:path, $summary:literal;)+)+) => {
        &[$($(Spec {
            name: $name,
            arity: $arity,
            flags: $flags,
            keys: $keys,
            group: $group,
            summary: $summary,
            run: $run,
        },)+)+]
    };
}

/// All of them, in no order.
pub(super) static COMMANDS: &[Spec] = table! {
    group "string"
    "append" 3 WRITE ONE strings::append, "Appends to a value.";
    "decr" 2 WRITE ONE strings::decr, "Subtracts one from an integer.";
    "decrby" 3 WRITE ONE strings::decrby, "Subtracts from an integer.";
    "delex" -2 REMOVE ONE strings::delex, "Removes a key, if its value is what it is to be.";
    "delifeq" 3 REMOVE ONE strings::delifeq, "Removes a key if it has a value.";
    "digest" 2 READ ONE strings::digest, "Returns what a value may be compared by.";
    "get" 2 READ ONE strings::get, "Returns a value.";
    "getdel" 2 REMOVE ONE strings::getdel, "Returns a value and removes the key.";
    "getex" -2 REMOVE ONE strings::getex, "Returns a value and changes the key's deadline.";
    "getrange" 4 SLOW_READ ONE strings::getrange, "Returns a part of a value.";
    "getset" 3 WRITE ONE strings::getset, "Sets a value and returns the old one.";
    "incr" 2 WRITE ONE strings::incr, "Adds one to an integer.";
    "incrby" 3 WRITE ONE strings::incrby, "Adds to an integer.";
    "incrbyfloat" 3 WRITE ONE strings::incrbyfloat, "Adds to a decimal number.";
    "lcs" -3 SLOW_READ TWO strings::lcs, "Finds the longest common subsequence of two values.";
    "mget" -2 READ ALL strings::mget, "Returns values.";
    "mset" -3 WRITE PAIRS strings::mset, "Sets values, all at once.";
    "msetex" -4 MANY NONE strings::msetex, "Sets values with one deadline, all at once.";
    "msetnx" -3 WRITE PAIRS strings::msetnx, "Sets values if none of the keys is there.";
    "psetex" 4 WRITE ONE strings::psetex, "Sets a value for some milliseconds.";
    "set" -3 WRITE ONE strings::set, "Sets a value.";
    "setex" 4 WRITE ONE strings::setex, "Sets a value for some seconds.";
    "setnx" 3 WRITE ONE strings::setnx, "Sets a value if the key is not there.";
    "setrange" 4 WRITE ONE strings::setrange, "Writes over a part of a value.";
    "strlen" 2 READ ONE strings::strlen, "Returns the length of a value.";
    "substr" 4 SLOW_READ ONE strings::getrange, "Returns a part of a value.";

    group "generic"
    "copy" -3 WRITE TWO keys::copy, "Copies a key.";
    "del" -2 REMOVE ALL keys::del, "Removes keys.";
    "exists" -2 READ ALL keys::exists, "Counts the keys that are there.";
    "expire" -3 REMOVE ONE keys::expire, "Gives a key some seconds.";
    "expireat" -3 REMOVE ONE keys::expireat, "Gives a key a deadline in seconds since 1970.";
    "expiretime" 2 READ ONE keys::expiretime, "Returns a deadline in seconds since 1970.";
    "keys" 2 SLOW_READ NONE keys::keys, "Returns the keys that match a pattern.";
    "move" 3 REMOVE ONE keys::move_to, "Moves a key to another database.";
    "object|encoding" 3 SLOW_READ SECOND keys::object_encoding, "Says how Redis would hold a value.";
    "object|freq" 3 NO_MULTI SECOND keys::object_freq, "Says how often a key is used, by an LFU policy.";
    "object|help" 2 LOCAL NONE server::help, "Prints this.";
    "object|idletime" 3 NO_MULTI SECOND keys::object_idletime, "Says for how long a key was not used, by an LRU policy.";
    "object|refcount" 3 SLOW_READ SECOND keys::object_refcount, "Returns 1 for a key that is there.";
    "persist" 2 REMOVE ONE keys::persist, "Takes a key's deadline away.";
    "pexpire" -3 REMOVE ONE keys::pexpire, "Gives a key some milliseconds.";
    "pexpireat" -3 REMOVE ONE keys::pexpireat, "Gives a key a deadline in milliseconds since 1970.";
    "pexpiretime" 2 READ ONE keys::pexpiretime, "Returns a deadline in milliseconds since 1970.";
    "pttl" 2 READ ONE keys::pttl, "Returns the time left in milliseconds.";
    "randomkey" 1 SLOW_READ NONE keys::randomkey, "Returns some key.";
    "rename" 3 REMOVE TWO keys::rename, "Gives a key another name.";
    "renamenx" 3 REMOVE TWO keys::renamenx, "Gives a key a name that is free.";
    "scan" -2 SLOW_READ NONE keys::scan, "Walks over the keys, step by step.";
    "touch" -2 READ ALL keys::exists, "Counts the keys that are there.";
    "ttl" 2 READ ONE keys::ttl, "Returns the time left in seconds.";
    "type" 2 READ ONE keys::type_of, "Returns the type of a value.";
    "unlink" -2 REMOVE ALL keys::del, "Removes keys.";

    group "connection"
    "auth" -2 LOCAL NONE session::auth, "Says who is there; there are no passwords.";
    "client|getname" 2 LOCAL NONE session::client_getname, "Returns the connection's name.";
    "client|help" 2 LOCAL NONE server::help, "Prints this.";
    "client|id" 2 LOCAL NONE session::client_id, "Returns the connection's number.";
    "client|info" 2 LOCAL NONE clients::client_info, "Describes the connection.";
    "client|list" -2 LOCAL NONE clients::client_list, "Describes all connections.";
    "client|kill" -3 NODE NONE clients::client_kill, "Ends connections.";
    "client|no-evict" 3 LOCAL NONE session::client_switch, "Changes nothing: no client is evicted.";
    "client|no-touch" 3 LOCAL NONE session::client_switch, "Changes nothing: reads touch nothing.";
    "client|pause" -3 NODE NONE clients::client_pause, "Lets the node's clients wait, or those who write.";
    "client|reply" 3 NO_MULTI NONE session::client_reply, "Says which replies are wanted.";
    "client|setinfo" 4 NODE NONE session::client_setinfo, "Names the client's library.";
    "client|setname" 3 LOCAL NONE session::client_setname, "Names the connection.";
    "client|unpause" 2 NODE NONE clients::client_unpause, "Lets clients wait no longer.";
    "echo" 2 LOCAL NONE session::echo, "Returns what it gets.";
    "hello" -1 NO_MULTI NONE session::hello, "Agrees on a version of the protocol.";
    "ping" -1 LOCAL NONE session::ping, "Returns PONG.";
    "quit" -1 AT_ONCE NONE session::quit, "Closes the connection.";
    "readonly" 1 LOCAL NONE session::readonly, "From here on reads may be stale.";
    "readwrite" 1 LOCAL NONE session::readwrite, "From here on reads are linearizable.";
    "reset" 1 AT_ONCE NONE session::reset, "Begins anew.";
    "select" 2 LOCAL NONE session::select, "Selects a database.";

    group "transactions"
    "discard" 1 AT_ONCE NONE session::discard, "Gives a transaction up.";
    "exec" 1 AT_ONCE NONE transaction::exec, "Runs a transaction, all at once.";
    "multi" 1 AT_ONCE NONE session::multi, "Begins a transaction.";
    "unwatch" 1 LOCAL NONE session::unwatch, "Makes EXEC depend on no key.";
    "watch" -2 AT_ONCE ALL session::watch, "Makes EXEC depend on keys not being changed.";

    group "scripting"
    "eval" -3 SCRIPT NONE scripts::eval, "Runs a script that is known, by its text.";
    "eval_ro" -3 READ_SCRIPT NONE scripts::eval_ro, "Runs a script that only reads, by its text.";
    "evalsha" -3 SCRIPT NONE scripts::evalsha, "Runs a script that is known, by its digest.";
    "evalsha_ro" -3 READ_SCRIPT NONE scripts::evalsha_ro, "Runs a script that only reads, by its digest.";
    "function|flush" -2 LOCAL NONE server::function_flush, "Changes nothing: there are no functions.";
    "function|help" 2 LOCAL NONE server::help, "Prints this.";
    "function|list" -2 LOCAL NONE server::function_list, "Lists none: there are no functions.";
    "script|exists" -3 ABOUT_SCRIPTS NONE scripts::exists, "Says which digests are known.";
    "script|flush" -2 ABOUT_SCRIPTS NONE scripts::flush, "Forgets the texts that were loaded.";
    "script|help" 2 LOCAL NONE server::help, "Prints this.";
    "script|load" 3 LOAD_SCRIPT NONE scripts::load, "Makes a text's digest known to the connection.";

    group "server"
    "cluster|countkeysinslot" 3 LOCAL NONE server::cluster, "Fails: every node takes every key.";
    "cluster|getkeysinslot" 4 LOCAL NONE server::cluster, "Fails: every node takes every key.";
    "cluster|help" 2 LOCAL NONE server::help, "Prints this.";
    "cluster|info" 2 LOCAL NONE server::cluster, "Fails: every node takes every key.";
    "cluster|keyslot" 3 LOCAL NONE server::cluster, "Fails: every node takes every key.";
    "cluster|myid" 2 LOCAL NONE server::cluster, "Fails: every node takes every key.";
    "cluster|nodes" 2 LOCAL NONE server::cluster, "Fails: every node takes every key.";
    "cluster|shards" 2 LOCAL NONE server::cluster, "Fails: every node takes every key.";
    "cluster|slots" 2 LOCAL NONE server::cluster, "Fails: every node takes every key.";
    "command" -1 LOCAL NONE server::command, "Describes the commands.";
    "command|count" 2 LOCAL NONE server::command_count, "Counts the commands.";
    "command|docs" -2 LOCAL NONE server::command_docs, "Describes commands for people.";
    "command|getkeys" -3 LOCAL NONE server::command_getkeys, "Finds the keys of a command.";
    "command|help" 2 LOCAL NONE server::help, "Prints this.";
    "command|info" -2 LOCAL NONE server::command_info, "Describes commands.";
    "command|list" -2 LOCAL NONE server::command_list, "Lists the commands.";
    "config|get" -3 NODE NONE config::config_get, "Returns settings.";
    "config|help" 2 LOCAL NONE server::help, "Prints this.";
    "config|resetstat" 2 NODE NONE config::config_resetstat, "Counts from now on.";
    "config|rewrite" 2 LOCAL NONE config::config_rewrite, "Fails: there is no file of settings.";
    "config|set" -4 NODE NONE config::config_set, "Sets the limit on memory and what is watched; keeps what means nothing here.";
    "dbsize" 1 READ NONE keys::dbsize, "Counts the keys of a database.";
    "debug|help" 2 LOCAL NONE server::help, "Prints this.";
    "debug|log" 3 NODE NONE slow::debug_log, "Writes a line to the node's log.";
    "debug|set-active-expire" 3 LOCAL NONE slow::debug_set_active_expire, "Changes nothing: no key is seen past its deadline.";
    "debug|sleep" 3 NO_MULTI NONE slow::debug_sleep, "Lets the connection wait some seconds.";
    "flushall" -1 REMOVE NONE keys::flushall, "Removes every key.";
    "flushdb" -1 REMOVE NONE keys::flushdb, "Removes every key of a database.";
    "info" -1 NODE NONE info::info, "Describes the node.";
    "latency|doctor" 2 NODE NONE slow::latency_doctor, "Says in words what took long.";
    "latency|help" 2 LOCAL NONE server::help, "Prints this.";
    "latency|history" 3 NODE NONE slow::latency_history, "Returns when an event took long, and how long.";
    "latency|latest" 2 NODE NONE slow::latency_latest, "Returns the last time of each event that took long.";
    "latency|reset" -2 NODE NONE slow::latency_reset, "Forgets events that took long.";
    "leader" 1 NODE NONE server::leader, "Returns the leader's address for clients.";
    "lolwut" -1 LOCAL NONE server::lolwut, "Returns the version.";
    "memory|help" 2 LOCAL NONE server::help, "Prints this.";
    "memory|usage" -3 SLOW_READ SECOND keys::memory_usage, "Returns what a key takes in memory.";
    "role" 1 NODE NONE server::role, "Says what part the node has.";
    "slowlog|get" -2 NODE NONE slow::slowlog_get, "Returns the requests that took long, the newest first.";
    "slowlog|help" 2 LOCAL NONE server::help, "Prints this.";
    "slowlog|len" 2 NODE NONE slow::slowlog_len, "Counts the requests that took long.";
    "slowlog|reset" 2 NODE NONE slow::slowlog_reset, "Forgets the requests that took long.";
    "time" 1 NODE NONE server::time, "Returns the cluster's time.";
    "wait" 3 NO_MULTI NONE server::wait, "Waits until other nodes' disks have what was written, and counts them.";
    "waitaof" 4 NO_MULTI NONE server::waitaof, "The same, with the leader's own disk.";
};

/// Commands of two words.
const CONTAINERS: [&str; 11] = [
    "client", "cluster", "command", "config", "debug", "function", "latency", "memory", "object",
    "script", "slowlog",
];

/// What a command is, in whatever case; `None` if there is none of that name.
pub(super) fn find(name: &[u8]) -> Option<&'static Spec> {
    static SORTED: std::sync::LazyLock<Vec<&'static Spec>> = std::sync::LazyLock::new(|| {
        let mut sorted: Vec<_> = COMMANDS.iter().collect();
        sorted.sort_unstable_by_key(|spec| spec.name);
        sorted
    });
    // Longer than any.
    let mut lower = [0; 32];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let at = SORTED.binary_search_by(|spec| spec.name.as_bytes().cmp(lower)).ok()?;
    Some(SORTED[at])
}

/// What is to be done about these words.
pub(super) fn spec_of(words: &Words) -> Result<&'static Spec, Refused> {
    let name = words.get(0);
    let container = CONTAINERS.iter().find(|known| name.eq_ignore_ascii_case(known.as_bytes()));
    let spec = match container {
        Some(&"command") if words.count() == 1 => find(name),
        Some(container) if words.count() == 1 => return Err(wrong_arity(container)),
        Some(container) => {
            let full = [container.as_bytes(), b"|", words.get(1)].concat();
            let unknown = || unknown_subcommand(container, words.get(1));
            Some(find(&full).ok_or_else(unknown)?)
        }
        None => find(name).filter(|spec| !spec.name.contains('|')),
    };
    let spec = spec.ok_or_else(|| unknown(words))?;
    if spec.fits(words.count()) { Ok(spec) } else { Err(wrong_arity(spec.name)) }
}

impl Spec {
    pub(super) fn fits(&self, words: usize) -> bool {
        let arity = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { words >= arity } else { words == arity }
    }

    pub(super) fn run(&self, call: &mut Call<'_>) -> Planned {
        (self.run)(call)
    }

    /// Whether it is executed also between MULTI and EXEC.
    pub(super) fn is_at_once(&self) -> bool {
        self.flags == AT_ONCE
    }

    /// Whether it may change what CLIENT LIST says of the connection.
    pub(super) fn is_about_the_connection(&self) -> bool {
        matches!(self.group, "connection" | "transactions")
    }

    pub(super) fn may_be_queued(&self) -> bool {
        self.flags != NO_MULTI
    }

    /// Whether EXEC runs it, and not the state machine.
    pub(super) fn is_about_the_node(&self) -> bool {
        self.flags == NODE
    }

    /// Which word of it says how many keys there are, if one does: they are behind it,
    /// so many words from one to the next.
    pub(super) fn counted_keys(&self) -> Option<(usize, usize)> {
        match self.name {
            "msetex" => Some((1, 2)),
            _ => self.flags.contains(&"movablekeys").then_some((2, 1)),
        }
    }

    /// Which words of a command are keys.
    pub(super) fn key_positions(&self, words: usize) -> Vec<usize> {
        let (first, last, step) = self.keys;
        if first == 0 {
            return Vec::new();
        }
        let words = i32::try_from(words).unwrap_or(i32::MAX);
        let last = if last < 0 { words + last } else { last };
        (first..=last.min(words - 1)).step_by(step as usize).map(|i| i as usize).collect()
    }
}

pub(super) fn wrong_arity(name: &str) -> Refused {
    format!("ERR wrong number of arguments for '{name}' command").into()
}

fn unknown_subcommand(container: &str, word: &[u8]) -> Refused {
    let word = String::from_utf8_lossy(&word[..word.len().min(128)]).into_owned();
    let help = container.to_uppercase();
    format!("ERR unknown subcommand '{word}'. Try {help} HELP.").into()
}

/// Names the command and how it begins, as Redis does, for whoever reads logs.
fn unknown(words: &Words) -> Refused {
    const SHOWN_BYTES: usize = 128;
    let shown =
        |word: &[u8], limit| String::from_utf8_lossy(&word[..word.len().min(limit)]).into_owned();
    let mut arguments = String::new();
    for i in 1..words.count() {
        if arguments.len() >= SHOWN_BYTES {
            break;
        }
        let room = SHOWN_BYTES - arguments.len();
        arguments += &format!("'{}' ", shown(words.get(i), room));
    }
    let name = shown(words.get(0), SHOWN_BYTES);
    format!("ERR unknown command '{name}', with args beginning with: {arguments}").into()
}

/// A batch of reads.
pub(super) fn read(commands: Vec<Command>, consistency: Consistency) -> Request {
    Request::Run { batch: Batch { guards: Vec::new(), commands }, consistency, session: None }
}
