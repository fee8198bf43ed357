//! The scripts that are known: their texts, and the commands that do the same.
//!
//! Pitfall: the same means in every case. A command of a script that fails ends the
//! script, and so does one of a `Chain`, but one of a batch or a `When` does not: there,
//! whatever comes after one that may fail must have no effect if it has failed.

use super::reply::{Call, Part, Reply, Say};
use crate::encoding::parse_i64;
use crate::protocol::resp::call::Refused;
use crate::protocol::resp::strings::Unit;
use crate::request::{Command, Condition, Expiry, Key, Only, Test};
use bytes::Bytes;

/// What a script comes to: commands, and the reply that their answers make.
pub(super) type Native = Result<(Vec<Command>, Reply), Refused>;

/// A script that is known.
#[derive(Debug)]
pub(super) struct Script {
    /// Whose it is.
    pub(super) library: &'static str,
    /// What it is called here.
    pub(super) name: &'static str,
    /// As the library sends it, to the byte.
    pub(super) text: &'static str,
    /// How many keys it takes at least.
    pub(super) keys: usize,
    /// How many arguments it takes at least.
    pub(super) arguments: usize,
    /// What it does.
    pub(super) run: fn(&Arguments) -> Native,
}

/// What a script is called with.
#[derive(Debug)]
pub(super) struct Arguments {
    pub(super) keys: Vec<Key>,
    pub(super) values: Vec<Bytes>,
}

/// Writes the rows: library, file of the text, keys, arguments, what it does.
macro_rules! scripts {
    ($($library:literal $file:literal $keys:literal $arguments:literal $run:path;)+) => {
        &[$(Script {
            library: $library,
            name: $file,
            text: include_str!(concat!("texts/", $file, ".lua")),
            keys: $keys,
            arguments: $arguments,
            run: $run,
        },)+]
    };
}

/// All of them. Texts of one meaning are next to each other.
pub(super) const SCRIPTS: &[Script] = scripts! {
    "redis-py" "redis_py_release" 1 1 release;
    "redlock-py" "redlock_py_release" 1 1 release;
    "pottery" "pottery_release" 1 1 release;
    "aiocache" "aiocache_release" 1 1 release;
    "ioredis-lock" "ioredis_lock_release" 1 1 release;
    "redis-semaphore" "redis_semaphore_release" 1 1 release;
    "phpredis" "phpredis_release" 1 1 release;
    "redsync" "redsync_release" 1 1 release_or_gone;
    "redis-py" "redis_py_reacquire" 1 2 touch;
    "pottery" "pottery_extend" 1 2 touch;
    "ioredis-lock" "ioredis_lock_extend" 1 2 touch;
    "redis-semaphore" "redis_semaphore_refresh" 1 2 touch;
    "redis-py" "redis_py_extend" 1 3 extend;
    "redsync" "redsync_touch_or_set" 1 2 touch_or_set;
    "pottery" "pottery_acquired" 1 1 time_held;
    "redlock" "redlock_4_acquire" 0 2 acquire_all;
    "redlock" "redlock_5_acquire" 0 2 acquire_all;
    "redlock" "redlock_4_extend" 0 2 extend_all;
    "redlock" "redlock_5_extend" 0 2 extend_all;
    "redlock" "redlock_4_release" 0 1 release_all;
    "redlock" "redlock_5_release" 0 1 release_all;
    "aioredlock" "aioredlock_set" 1 2 aioredlock_set;
    "aioredlock" "aioredlock_unset" 1 1 aioredlock_unset;
    "aioredlock" "aioredlock_ttl" 1 1 aioredlock_ttl;
    "Laravel" "laravel_add" 1 2 add;
    "aiocache" "aiocache_cas" 1 2 compare_and_set;
    "django-redis" "django_redis_incr_present" 1 1 increment_present;
    "django-redis" "django_redis_incr" 1 1 increment;
    "limits" "limits_incr_expire" 1 2 increment_window;
    "rate-limiter-flexible" "rate_limiter_flexible_increment" 1 2 consume;
    "rate-limit-redis" "rate_limit_redis_3_increment" 1 2 hit_or_begin;
    "rate-limit-redis" "rate_limit_redis_5_increment" 1 2 begin_or_hit;
    "rate-limit-redis" "rate_limit_redis_6_increment" 1 1 hit;
    "rate-limit-redis" "rate_limit_redis_get" 1 0 hits;
};

impl Arguments {
    /// The only key of a script.
    fn key(&self) -> Key {
        self.keys[0].clone()
    }

    fn value(&self, i: usize) -> Bytes {
        self.values[i].clone()
    }

    fn integer(&self, i: usize) -> Result<i64, String> {
        let text = "ERR value is not an integer or out of range";
        parse_i64(&self.values[i]).ok_or_else(|| text.to_owned())
    }

    /// An integer that Lua can calculate with.
    fn exact(&self, i: usize) -> Result<i64, String> {
        let number = self.integer(i)?;
        let is_exact = number.unsigned_abs() < EXACT;
        is_exact.then_some(number).ok_or_else(|| "ERR value is out of range".to_owned())
    }

    /// What PEXPIRE (or EXPIRE, for seconds) makes of an argument.
    fn time(&self, i: usize, unit_ms: i64, name: &str) -> Result<Expiry, String> {
        let ms = self.integer(i)?.checked_mul(unit_ms).ok_or_else(|| invalid_expiry(name))?;
        // What is over already is over, however long.
        Ok(u64::try_from(ms).map_or(Expiry::AtMs(0), Expiry::AfterMs))
    }

    /// What SET makes of a time, which has to be positive.
    fn positive(&self, i: usize, unit_ms: u64, name: &str) -> Result<Expiry, String> {
        let number = u64::try_from(self.integer(i)?).ok().filter(|&number| number > 0);
        let ms = number.and_then(|number| number.checked_mul(unit_ms));
        let ms = ms.filter(|&ms| ms <= i64::MAX as u64).ok_or_else(|| invalid_expiry(name))?;
        Ok(Expiry::AfterMs(ms))
    }
}

fn invalid_expiry(name: &str) -> String {
    format!("ERR invalid expire time in '{name}' command")
}

fn holds(key: Key, value: Bytes) -> Test {
    Test { key, condition: Condition::IfValue(value) }
}

fn is_absent(key: Key) -> Test {
    Test { key, condition: Condition::IfAbsent }
}

fn set(key: Key, value: Bytes, expiry: Expiry) -> Command {
    Command::Set { key, value, expiry, condition: Condition::Always }
}

/// Commands that are run if all tests hold, and what is said then. What they would be
/// refused for is only said where they would have been run.
fn part(
    tests: Vec<Test>,
    then: Result<Vec<Command>, String>,
    say: Say,
    call: Call,
) -> (Command, Part) {
    let (then, say) = match then {
        Ok(then) => (then, say),
        Err(text) => (Vec::new(), Say::Refused(text)),
    };
    (Command::When { tests, then }, Part { say, call })
}

/// The first part whose tests hold decides what is said.
fn first_of(parts: impl IntoIterator<Item = (Command, Part)>, or: Say) -> Native {
    let (commands, parts) = parts.into_iter().unzip();
    Ok((commands, Reply::First(parts, or)))
}

/// GET and another command if the key holds the first argument.
fn if_held(
    arguments: &Arguments,
    then: Result<Command, String>,
    say: Say,
    name: &'static str,
) -> (Command, Part) {
    let tests = vec![holds(arguments.key(), arguments.value(0))];
    part(tests, then.map(|command| vec![command]), say, Call(name, 1))
}

fn release(arguments: &Arguments) -> Native {
    let delete = Ok(Command::Delete(arguments.key()));
    first_of([if_held(arguments, delete, Say::Inner, "del")], Say::Number(0))
}

fn release_or_gone(arguments: &Arguments) -> Native {
    let delete = Ok(Command::Delete(arguments.key()));
    let held = if_held(arguments, delete, Say::Inner, "del");
    // It is gone after that, too; but then it has been said already.
    let gone = part(vec![is_absent(arguments.key())], Ok(vec![]), Say::Number(-1), Call("get", 0));
    first_of([held, gone], Say::Number(0))
}

fn pexpire(arguments: &Arguments) -> Result<Command, String> {
    let expiry = arguments.time(1, 1, "pexpire")?;
    Ok(Command::Expire { key: arguments.key(), expiry })
}

fn touch(arguments: &Arguments) -> Native {
    let held = if_held(arguments, pexpire(arguments), Say::Inner, "pexpire");
    first_of([held], Say::Number(0))
}

/// SET NX looks at its time first: one that makes no sense is refused to whoever does
/// not hold the lock.
fn touch_or_set(arguments: &Arguments) -> Native {
    let held = if_held(arguments, pexpire(arguments), Say::Inner, "pexpire");
    let set = arguments.positive(1, 1, "set").map(|expiry| {
        let (key, value) = (arguments.key(), arguments.value(0));
        vec![Command::Set { key, value, expiry, condition: Condition::IfAbsent }]
    });
    first_of([held, part(Vec::new(), set, Say::Stored, Call("set", 2))], Say::Null)
}

/// A lock that has a deadline gets another one, or a later one.
fn extend(arguments: &Arguments) -> Native {
    let key = arguments.key();
    let extend = if arguments.values[2] == "0" {
        Command::Expire { key, expiry: Expiry::LaterMs(arguments.exact(1)?) }
    } else {
        let expiry = arguments.time(1, 1, "pexpire")?;
        Command::ExpireOnly { key, expiry, only: Only::IfAny }
    };
    let tests = vec![holds(arguments.key(), arguments.value(0))];
    first_of([part(tests, Ok(vec![extend]), Say::Inner, Call("pexpire", 2))], Say::Number(0))
}

fn time_held(arguments: &Arguments) -> Native {
    let time = Ok(Command::Ttl(arguments.key()));
    first_of([if_held(arguments, time, Say::Milliseconds, "pttl")], Say::Number(0))
}

/// SET for every key if all tests hold: how many, or 0.
fn set_all(arguments: &Arguments, test: impl Fn(Key) -> Test, call: usize) -> Native {
    let tests = arguments.keys.iter().cloned().map(test).collect();
    let sets = arguments.positive(1, 1, "set").map(|expiry| {
        let keys = arguments.keys.iter().cloned();
        keys.map(|key| set(key, arguments.value(0), expiry)).collect()
    });
    let count = i64::try_from(arguments.keys.len()).expect("keys are in memory");
    // Without a key nothing is run that could be refused.
    let sets = if count == 0 { Ok(Vec::new()) } else { sets };
    first_of([part(tests, sets, Say::Number(count), Call("set", call))], Say::Number(0))
}

fn acquire_all(arguments: &Arguments) -> Native {
    set_all(arguments, is_absent, 1)
}

fn extend_all(arguments: &Arguments) -> Native {
    set_all(arguments, |key| holds(key, arguments.value(0)), 1)
}

fn release_all(arguments: &Arguments) -> Native {
    let release = |key: &Key| Command::When {
        tests: vec![holds(key.clone(), arguments.value(0))],
        then: vec![Command::Delete(key.clone())],
    };
    Ok((arguments.keys.iter().map(release).collect(), Reply::Count(arguments.keys.len())))
}

fn aioredlock_set(arguments: &Arguments) -> Native {
    let set = || {
        let expiry = arguments.positive(1, 1, "set")?;
        Ok(vec![set(arguments.key(), arguments.value(0), expiry)])
    };
    let absent = part(vec![is_absent(arguments.key())], set(), Say::Ok, Call("set", 1));
    let tests = vec![holds(arguments.key(), arguments.value(0))];
    // Again, if it has just been set: to the same.
    first_of([absent, part(tests, set(), Say::Ok, Call("set", 1))], Say::Error("ERR ERROR"))
}

fn aioredlock_unset(arguments: &Arguments) -> Native {
    let absent = part(vec![is_absent(arguments.key())], Ok(vec![]), Say::Ok, Call("get", 0));
    let delete = Ok(Command::Delete(arguments.key()));
    let held = if_held(arguments, delete, Say::Inner, "del");
    first_of([absent, held], Say::Error("ERR ERROR"))
}

fn aioredlock_ttl(arguments: &Arguments) -> Native {
    let time = Ok(Command::Ttl(arguments.key()));
    first_of([if_held(arguments, time, Say::Seconds, "ttl")], Say::Error("ERR ERROR"))
}

fn add(arguments: &Arguments) -> Native {
    let set = |expiry| vec![set(arguments.key(), arguments.value(0), expiry)];
    let set = arguments.positive(1, 1000, "setex").map(set);
    let absent = part(vec![is_absent(arguments.key())], set, Say::Ok, Call("setex", 1));
    first_of([absent], Say::Null)
}

/// The new value, the old one and, if there are exactly four, EX or PX and a time.
fn compare_and_set(arguments: &Arguments) -> Native {
    let with_time = arguments.values.len() == 4;
    let expiry = if with_time { set_option(arguments) } else { Ok(Expiry::Never) };
    let set = expiry.map(|expiry| vec![set(arguments.key(), arguments.value(0), expiry)]);
    let tests = vec![holds(arguments.key(), arguments.value(1))];
    let call = Call("set", if with_time { 1 } else { 2 });
    first_of([part(tests, set, Say::Ok, call)], Say::Number(0))
}

fn set_option(arguments: &Arguments) -> Result<Expiry, String> {
    match Unit::of(&arguments.values[2]) {
        Some(Unit { ms, absolute: false }) => arguments.positive(3, ms, "set"),
        _ => Err("ERR syntax error".to_owned()),
    }
}

fn incrby(arguments: &Arguments) -> Result<Vec<Command>, String> {
    Ok(vec![Command::Increment { key: arguments.key(), by: arguments.integer(0)? }])
}

fn increment_present(arguments: &Arguments) -> Native {
    let test = Test { key: arguments.key(), condition: Condition::IfPresent };
    let present = part(vec![test], incrby(arguments), Say::Inner, Call("incrby", 1));
    first_of([present], Say::Null)
}

fn increment(arguments: &Arguments) -> Native {
    first_of([part(Vec::new(), incrby(arguments), Say::Inner, Call("incrby", 0))], Say::Null)
}

/// Beyond it numbers of Lua are not exact.
const EXACT: u64 = 1 << 53;

/// Adds; who begins a window sets its end. That the key holds what was added says that
/// it was absent or 0. If nothing could be added it does not: it is no number, or one
/// far from this.
fn increment_window(arguments: &Arguments) -> Native {
    let by = arguments.integer(1)?;
    if by.unsigned_abs() >= EXACT {
        return Err("ERR the script of limits takes amounts below 2^53".into());
    }
    let key = arguments.key();
    let begins = vec![holds(key.clone(), by.to_string().into())];
    let expire = arguments.time(0, 1000, "expire");
    let expire = expire.map(|expiry| vec![Command::Expire { key: key.clone(), expiry }]);
    let (window, part) = part(begins, expire, Say::Null, Call("expire", 1));
    let commands = vec![Command::Increment { key, by }, window];
    Ok((commands, Reply::Window(Call("incrby", 0), part)))
}

/// The length of a window, in whole units.
fn window(arguments: &Arguments, i: usize, unit_ms: u64) -> Result<Expiry, String> {
    arguments.exact(i)?;
    arguments.positive(i, unit_ms, "set")
}

/// Counts, after and before what else is to be done: each command with the call of the
/// script that it stands for. What fails is the last, as it is there.
fn count(key: Key, parts: Vec<(Command, Call)>) -> Native {
    let counts = |(command, _): &(Command, Call)| matches!(command, Command::Increment { .. });
    let counted = parts.iter().position(counts).expect("one of them counts");
    let (mut then, calls): (Vec<_>, _) = parts.into_iter().unzip();
    then.push(Command::Ttl(key));
    Ok((vec![Command::Chain { tests: Vec::new(), then }], Reply::Hits { counted, calls }))
}

/// 0, unless the key is there.
fn begin(key: Key, expiry: Expiry) -> Command {
    Command::Set { key, value: Bytes::from_static(b"0"), expiry, condition: Condition::IfAbsent }
}

/// A hit in a window; a key without a deadline is none, and makes way for one.
fn hit_in_new(key: Key, expiry: Expiry, extends: bool) -> Native {
    let gone = Expiry::AtMs(0);
    let no_window = Command::ExpireOnly { key: key.clone(), expiry: gone, only: Only::IfNone };
    let mut parts = vec![
        (no_window, Call("pttl", 0)),
        (begin(key.clone(), expiry), Call("set", 1)),
        (Command::Increment { key: key.clone(), by: 1 }, Call("incr", 2)),
    ];
    if extends {
        parts.push((Command::Expire { key: key.clone(), expiry }, Call("pexpire", 3)));
    }
    count(key, parts)
}

/// A hit in a window of so many milliseconds.
fn hit(arguments: &Arguments) -> Native {
    hit_in_new(arguments.key(), window(arguments, 0, 1)?, false)
}

/// The same, where each hit may begin the window again.
fn begin_or_hit(arguments: &Arguments) -> Native {
    hit_in_new(arguments.key(), window(arguments, 1, 1)?, arguments.values[0] == "1")
}

/// A hit; a key without a deadline gets one, and one that has one may get another.
fn hit_or_begin(arguments: &Arguments) -> Native {
    let (key, expiry) = (arguments.key(), window(arguments, 1, 1)?);
    let expire = if arguments.values[0] == "1" {
        Command::Expire { key: key.clone(), expiry }
    } else {
        Command::ExpireOnly { key: key.clone(), expiry, only: Only::IfNone }
    };
    let increment = Command::Increment { key: key.clone(), by: 1 };
    count(key, vec![(increment, Call("incr", 0)), (expire, Call("pexpire", 2))])
}

/// Some points of a window of so many seconds.
fn consume(arguments: &Arguments) -> Native {
    let (key, by) = (arguments.key(), arguments.integer(0)?);
    let expiry = window(arguments, 1, 1000)?;
    let expire = Command::ExpireOnly { key: key.clone(), expiry, only: Only::IfNone };
    let parts = vec![
        (begin(key.clone(), expiry), Call("set", 0)),
        (Command::Increment { key: key.clone(), by }, Call("incrby", 1)),
        (expire, Call("expire", 3)),
    ];
    count(key, parts)
}

fn hits(arguments: &Arguments) -> Native {
    let commands = vec![Command::Get(arguments.key()), Command::Ttl(arguments.key())];
    Ok((commands, Reply::ValueAndTime))
}
