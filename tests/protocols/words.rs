//! What is asked and what is said to it, in words of no protocol.

use bytes::Bytes;
use raftcache::request::{Answer, Command, Condition, Expiry, Failure, Item, Key, Only, Ttl};

/// A request.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Is the node there?
    Ping,
    /// Where do clients reach the leader?
    Leader,
    /// Commands that take effect together; mostly one.
    Run(Vec<Command>),
    /// A read of whatever this node has.
    Stale(Command),
}

/// A reply. No protocol's client is asked for versions: they are 0 here.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    Pong,
    Leader(String),
    Answers(Vec<Answer>),
}

impl Said {
    /// Whether it is this. Time goes by until a deadline is read.
    pub fn is(&self, expected: &Self) -> bool {
        const SLOW_MACHINE_MS: u64 = 60_000;
        match (self, expected) {
            (Self::Answers(said), Self::Answers(expected)) => match (&said[..], &expected[..]) {
                (&[Answer::Ttl(Ttl::Ms(said))], &[Answer::Ttl(Ttl::Ms(expected))]) => {
                    // A protocol of whole seconds rounds up.
                    (expected - SLOW_MACHINE_MS..expected + 1000).contains(&said)
                }
                (said, expected) => said == expected,
            },
            (said, expected) => said == expected,
        }
    }
}

/// A request and what has to be said to it.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// That of its story, and its own within it.
    pub name: String,
    pub ask: Ask,
    pub said: Said,
}

/// Exchanges in an order, about keys of their own.
#[derive(Debug, Clone)]
pub struct Story {
    /// Names it in lists.
    pub name: String,
    pub exchanges: Vec<Exchange>,
}

impl Story {
    /// Its name and those of the exchanges for which this holds, if there are any.
    pub fn names(&self, holds: impl Fn(&Exchange) -> bool) -> Option<String> {
        let found = self.exchanges.iter().filter(|exchange| holds(exchange));
        let found: Vec<_> = found.filter_map(|exchange| exchange.name.split(": ").nth(1)).collect();
        (!found.is_empty()).then(|| format!("{}: {}", self.name, found.join(", ")))
    }
}

fn story<const N: usize>(name: &str, steps: [(&str, Ask, Said); N]) -> Story {
    let exchange = |(step, ask, said)| Exchange { name: format!("{name}: {step}"), ask, said };
    Story { name: name.to_owned(), exchanges: steps.map(exchange).into() }
}

pub fn one(command: Command) -> Ask {
    Ask::Run(vec![command])
}

pub fn get(key: &Key) -> Command {
    Command::Get(key.clone())
}

pub fn set(key: &Key, value: impl Into<Bytes>) -> Command {
    set_with(key, value, Expiry::Never, Condition::Always)
}

pub fn set_with(
    key: &Key,
    value: impl Into<Bytes>,
    expiry: Expiry,
    condition: Condition,
) -> Command {
    Command::Set { key: key.clone(), value: value.into(), expiry, condition }
}

fn set_if(key: &Key, value: &'static str, condition: Condition) -> Ask {
    one(set_with(key, value, Expiry::Never, condition))
}

fn set_until(key: &Key, expiry: Expiry) -> Ask {
    one(set_with(key, "v", expiry, Condition::Always))
}

fn delete(key: &Key) -> Ask {
    one(Command::Delete(key.clone()))
}

fn expire(key: &Key, expiry: Expiry) -> Ask {
    one(Command::Expire { key: key.clone(), expiry })
}

fn ttl(key: &Key) -> Ask {
    one(Command::Ttl(key.clone()))
}

fn add(key: &Key, by: i64) -> Ask {
    one(Command::Increment { key: key.clone(), by })
}

fn answer(answer: Answer) -> Said {
    Said::Answers(vec![answer])
}

pub fn stored() -> Said {
    answer(Answer::Stored { version: 0 })
}

fn not_stored() -> Said {
    answer(Answer::NotStored { version: 0 })
}

fn item(value: impl Into<Bytes>) -> Answer {
    Answer::Item(Some(Item { value: value.into(), version: 0 }))
}

pub fn found(value: impl Into<Bytes>) -> Said {
    answer(item(value))
}

pub fn absent() -> Said {
    answer(Answer::Item(None))
}

pub fn number(number: i64) -> Said {
    answer(Answer::Integer(number))
}

pub fn left(ttl: Ttl) -> Said {
    answer(Answer::Ttl(ttl))
}

fn failed(failure: Failure) -> Said {
    answer(Answer::Failed(failure))
}

/// All that there are.
pub fn every_byte() -> Bytes {
    (0..=u8::MAX).collect()
}

/// More than any buffer on the way holds.
pub fn large() -> Bytes {
    (0..1 << 20).map(|i| b'a' + (i % 23) as u8).collect()
}

/// The longest key there may be.
pub const KEY_BYTES: usize = 64 << 10;

/// The longest value there may be.
pub const VALUE_BYTES: usize = 16 << 20;

/// A long time, in milliseconds.
const LONG: u64 = 1_000_000;

/// The suite: what every protocol has to say in the same way, as far as it can say
/// it at all. Who runs it says with what its keys begin, and where the leader is.
pub fn stories(prefix: &str, leader: &str) -> Vec<Story> {
    let key = |name: &str| Key::new(format!("{prefix}/{name}"));
    [
        about_the_node(leader),
        about_values(&key),
        about_keys(&key),
        about_conditions(&key),
        about_numbers(&key),
        about_time(&key),
        about_several(&key),
        about_what_one_protocol_has(&key),
    ]
    .concat()
}

fn about_the_node(leader: &str) -> Vec<Story> {
    vec![story(
        "node",
        [("ping", Ask::Ping, Said::Pong), ("leader", Ask::Leader, Said::Leader(leader.to_owned()))],
    )]
}

fn about_values(key: &dyn Fn(&str) -> Key) -> Vec<Story> {
    let [none, plain, there, old] = ["none", "plain", "there", "old"].map(key);
    let value = |name: &str, value: Bytes| {
        let key = key(name);
        story(
            name,
            [
                ("set", one(set(&key, value.clone())), stored()),
                ("get", one(get(&key)), found(value)),
            ],
        )
    };
    vec![
        story(
            "absent",
            [
                ("get", one(get(&none)), absent()),
                ("exists", one(Command::Exists(none.clone())), number(0)),
                ("ttl", ttl(&none), left(Ttl::Absent)),
            ],
        ),
        story(
            "plain",
            [
                ("set", one(set(&plain, "v")), stored()),
                ("get", one(get(&plain)), found("v")),
                ("set again", one(set(&plain, "two words ")), stored()),
                ("get again", one(get(&plain)), found("two words ")),
            ],
        ),
        story(
            "present",
            [
                ("set", one(set(&there, "v")), stored()),
                ("exists", one(Command::Exists(there.clone())), number(1)),
                ("stale", Ask::Stale(get(&there)), found("v")),
            ],
        ),
        story(
            "delete",
            [
                ("set", one(set(&old, "v")), stored()),
                ("there", delete(&old), number(1)),
                ("gone", one(get(&old)), absent()),
                ("not there", delete(&old), number(0)),
            ],
        ),
        value("empty-value", Bytes::new()),
        value("any-value", every_byte()),
        value("large-value", large()),
    ]
}

fn about_keys(key: &dyn Fn(&str) -> Key) -> Vec<Story> {
    let at = |name: &str, key: Key| {
        story(name, [("set", one(set(&key, "v")), stored()), ("get", one(get(&key)), found("v"))])
    };
    let padded = |name: &str, length: usize| {
        let mut name = key(name).name.to_vec();
        name.resize(length, b'k');
        Key::new(name)
    };
    let any = [&key("any").name[..], &every_byte()].concat();
    let db = 9;
    let elsewhere = Key { db, ..key("elsewhere") };
    vec![
        at("empty-key", Key::new("")),
        at("any-key", Key::new(any)),
        at("long-key", padded("long", 2 << 10)),
        at("longest-key", padded("longest", KEY_BYTES)),
        story(
            "database",
            [
                ("clear", one(Command::Clear { db: Some(db) }), answer(Answer::Done)),
                ("set", one(set(&elsewhere, "v")), stored()),
                ("get", one(get(&elsewhere)), found("v")),
                ("not in another", one(get(&key("elsewhere"))), absent()),
                ("count", one(Command::Count { db }), number(1)),
                ("clear again", one(Command::Clear { db: Some(db) }), answer(Answer::Done)),
                ("count again", one(Command::Count { db }), number(0)),
            ],
        ),
    ]
}

fn about_conditions(key: &dyn Fn(&str) -> Key) -> Vec<Story> {
    use Condition::{IfAbsent, IfPresent, IfValue, IfVersion, UnlessValue};
    let [nx, xx, value, other, version] = ["nx", "xx", "value", "other", "version"].map(key);
    vec![
        story(
            "if-absent",
            [
                ("holds", set_if(&nx, "v", IfAbsent), stored()),
                ("does not", set_if(&nx, "w", IfAbsent), not_stored()),
                ("get", one(get(&nx)), found("v")),
            ],
        ),
        story(
            "if-present",
            [
                ("does not", set_if(&xx, "v", IfPresent), not_stored()),
                ("get", one(get(&xx)), absent()),
                ("set", one(set(&xx, "v")), stored()),
                ("holds", set_if(&xx, "w", IfPresent), stored()),
                ("get again", one(get(&xx)), found("w")),
            ],
        ),
        story(
            "if-value",
            [
                ("set", one(set(&value, "v")), stored()),
                ("does not", set_if(&value, "x", IfValue("w".into())), not_stored()),
                ("holds", set_if(&value, "y", IfValue("v".into())), stored()),
                ("get", one(get(&value)), found("y")),
            ],
        ),
        story(
            "unless-value",
            [
                ("absent", set_if(&other, "v", UnlessValue("v".into())), stored()),
                ("does not", set_if(&other, "w", UnlessValue("v".into())), not_stored()),
                ("holds", set_if(&other, "x", UnlessValue("w".into())), stored()),
                ("get", one(get(&other)), found("x")),
            ],
        ),
        story(
            "if-version",
            [
                ("holds", set_if(&version, "v", IfVersion(0)), stored()),
                ("does not", set_if(&version, "w", IfVersion(0)), not_stored()),
                ("get", one(get(&version)), found("v")),
            ],
        ),
    ]
}

fn about_numbers(key: &dyn Fn(&str) -> Key) -> Vec<Story> {
    let [count, text, most] = ["count", "text", "most"].map(key);
    vec![
        story(
            "add",
            [
                ("to nothing", add(&count, 5), number(5)),
                ("negative", add(&count, -7), number(-2)),
                ("get", one(get(&count)), found("-2")),
            ],
        ),
        story(
            "add to text",
            [
                ("set", one(set(&text, "v")), stored()),
                ("add", add(&text, 1), failed(Failure::NotAnInteger)),
                ("get", one(get(&text)), found("v")),
            ],
        ),
        story(
            "add to the most",
            [
                ("set", one(set(&most, i64::MAX.to_string())), stored()),
                ("add", add(&most, 1), failed(Failure::Overflow)),
                ("least", add(&key("least"), i64::MIN), number(i64::MIN)),
            ],
        ),
    ]
}

fn about_time(key: &dyn Fn(&str) -> Key) -> Vec<Story> {
    use Expiry::{AfterMs, AtMs, Keep, Never};
    let [timed, kept, late, past, far] = ["timed", "kept", "late", "past", "far"].map(key);
    let over = key("over");
    let long = || left(Ttl::Ms(LONG));
    vec![
        story(
            "ttl",
            [
                ("set", set_until(&timed, AfterMs(LONG)), stored()),
                ("get", one(get(&timed)), found("v")),
                ("left", ttl(&timed), long()),
                ("set without", one(set(&timed, "v")), stored()),
                ("none left", ttl(&timed), left(Ttl::Never)),
            ],
        ),
        story("ttl-ms", [("set", set_until(&timed, AfterMs(LONG + 500)), stored())]),
        story(
            "ttl-keep",
            [
                ("set", set_until(&kept, AfterMs(LONG)), stored()),
                ("keep", set_until(&kept, Keep), stored()),
                ("left", ttl(&kept), long()),
            ],
        ),
        story(
            "expire",
            [
                ("none", expire(&late, AfterMs(LONG)), number(0)),
                ("set", one(set(&late, "v")), stored()),
                ("later", expire(&late, AfterMs(LONG)), number(1)),
                ("left", ttl(&late), long()),
                ("get", one(get(&late)), found("v")),
                ("at once", expire(&late, AfterMs(0)), number(1)),
                ("gone", one(get(&late)), absent()),
            ],
        ),
        story(
            "persist",
            [
                ("set", set_until(&over, AfterMs(LONG)), stored()),
                ("persist", expire(&over, Never), number(1)),
                ("again", expire(&over, Never), number(0)),
                ("left", ttl(&over), left(Ttl::Never)),
            ],
        ),
        story(
            "moment",
            [
                ("set", one(set(&past, "v")), stored()),
                ("expire", expire(&past, AtMs(1)), number(1)),
                ("gone", one(get(&past)), absent()),
                ("set late", set_until(&past, AtMs(1 << 50)), stored()),
                ("there", one(get(&past)), found("v")),
            ],
        ),
        story(
            "too-far",
            [
                ("set", one(set(&far, "v")), stored()),
                (
                    "expire",
                    expire(&far, AfterMs(i64::MAX as u64 / 1000 * 1000)),
                    failed(Failure::InvalidExpiry),
                ),
                ("there", one(get(&far)), found("v")),
            ],
        ),
    ]
}

fn about_several(key: &dyn Fn(&str) -> Key) -> Vec<Story> {
    let [a, b, c] = ["a", "b", "c"].map(key);
    let stored = || Answer::Stored { version: 0 };
    vec![
        story(
            "several",
            [
                (
                    "set",
                    Ask::Run(vec![set(&a, "1"), set(&b, "2")]),
                    Said::Answers(vec![stored(), stored()]),
                ),
                (
                    "get",
                    Ask::Run(vec![get(&a), get(&key("none")), get(&b)]),
                    Said::Answers(vec![item("1"), Answer::Item(None), item("2")]),
                ),
            ],
        ),
        story(
            "together",
            [(
                "batch",
                Ask::Run(vec![
                    get(&c),
                    set(&c, "7"),
                    Command::Increment { key: c.clone(), by: 1 },
                    get(&c),
                    Command::Delete(c.clone()),
                ]),
                Said::Answers(vec![
                    Answer::Item(None),
                    stored(),
                    Answer::Integer(8),
                    item("8"),
                    Answer::Integer(1),
                ]),
            )],
        ),
    ]
}

fn about_what_one_protocol_has(key: &dyn Fn(&str) -> Key) -> Vec<Story> {
    let [from, to] = ["from", "to"].map(key);
    let long = Expiry::AfterMs(LONG);
    let append = Command::Append { key: from.clone(), value: "bc".into() };
    let write_over = Command::SetRange { key: from.clone(), offset: 1, value: "x".into() };
    let copy = Command::Copy { from: from.clone(), to: to.clone(), replace: false };
    let rename = Command::Rename { from: to.clone(), to: from.clone(), replace: false };
    let only_later = Command::ExpireOnly { key: from.clone(), expiry: long, only: Only::IfLater };
    vec![story(
        "parts",
        [
            ("set", one(set(&from, "a")), stored()),
            ("append", one(append), number(3)),
            ("write over", one(write_over), number(3)),
            ("copy", one(copy), number(1)),
            ("rename", one(rename), number(0)),
            ("expire only", one(only_later), number(0)),
            ("get", one(get(&to)), found("axc")),
        ],
    )]
}
