//! Random commands, sensible and senseless, over few keys.
//!
//! Pitfall: two servers do not execute a command in the same millisecond. So no
//! deadline is near, and where two deadlines are compared they are never meant to
//! be the same: each has a number of its own.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

pub struct Stream {
    rng: SmallRng,
    deadlines: i64,
}

/// What a word of a command may be.
#[derive(Clone, Copy)]
enum Word {
    Is(&'static str),
    Key,
    /// A key of those that hold no large numbers: Redis adds binary fractions of 64
    /// bits, and we decimal ones of 17 places, which for small numbers is the same.
    Decimal,
    Value,
    Integer,
    Float,
    Index,
    /// Seconds from now that are never compared.
    Seconds,
    /// Seconds since 1970 that are, and never twice the same.
    Moment,
    Db,
    Pattern,
    /// One of these, or none.
    Maybe(&'static [&'static str]),
    /// One of these.
    One(&'static [&'static str]),
    /// So many more of what follows, at least one.
    Many,
}

use Word::{
    Db, Decimal, Float, Index, Integer, Is, Key, Many, Maybe, Moment, One, Pattern, Seconds, Value,
};

const SET_OPTIONS: &[&str] = &["NX", "XX", "GET", "KEEPTTL", "xx", "nx", "get", "bogus"];
const EXPIRE_OPTIONS: &[&str] = &["NX", "XX", "GT", "LT", "gt", "bogus"];

/// Commands and how often each is drawn.
const COMMANDS: &[(u32, &[Word])] = &[
    (30, &[Is("GET"), Key]),
    (30, &[Is("SET"), Key, Value]),
    (20, &[Is("SET"), Key, Value, Maybe(SET_OPTIONS), Maybe(SET_OPTIONS)]),
    (10, &[Is("SET"), Key, Value, One(&["EX", "PX", "ex"]), Seconds, Maybe(SET_OPTIONS)]),
    (5, &[Is("SET"), Key, Value, Maybe(SET_OPTIONS), Is("EXAT"), Moment]),
    (3, &[Is("SET"), Key, Value, One(&["EX", "PX"]), Integer, Maybe(&["EX", "PX", "NX"]), Integer]),
    (8, &[Is("SETNX"), Key, Value]),
    (5, &[Is("SETEX"), Key, Seconds, Value]),
    (3, &[Is("SETEX"), Key, Integer, Value]),
    (5, &[Is("PSETEX"), Key, Seconds, Value]),
    (8, &[Is("GETSET"), Key, Value]),
    (8, &[Is("GETDEL"), Key]),
    (6, &[Is("GETEX"), Key]),
    (6, &[Is("GETEX"), Key, One(&["EX", "PX", "EXAT", "PXAT", "PERSIST", "bogus"])]),
    (6, &[Is("GETEX"), Key, One(&["EX", "PX"]), Seconds]),
    (3, &[Is("GETEX"), Key, One(&["EX", "PX", "PERSIST", "KEEPTTL"]), Integer]),
    (10, &[Is("MGET"), Many, Key]),
    (8, &[Is("MSET"), Many, Key, Value]),
    (8, &[Is("MSETNX"), Many, Key, Value]),
    (2, &[Is("MSET"), Key, Value, Key]),
    (2, &[Is("MSETNX"), Key, Value, Key]),
    (12, &[Is("APPEND"), Key, Value]),
    (8, &[Is("STRLEN"), Key]),
    (15, &[Is("INCR"), Key]),
    (10, &[Is("DECR"), Key]),
    (12, &[Is("INCRBY"), Key, Integer]),
    (10, &[Is("DECRBY"), Key, Integer]),
    (10, &[Is("INCRBYFLOAT"), Decimal, Float]),
    (5, &[Is("SET"), Decimal, Float]),
    (2, &[Is("DEL"), Decimal]),
    (2, &[Is("RENAME"), Decimal, Key]),
    (2, &[Is("INCR"), Decimal]),
    (2, &[Is("INCRBYFLOAT"), Key, One(&["abc", "1.2.3", "", "1e", "nan"])]),
    (10, &[Is("GETRANGE"), Key, Index, Index]),
    (4, &[Is("SUBSTR"), Key, Index, Index]),
    (10, &[Is("SETRANGE"), Key, Index, Value]),
    (4, &[Is("LCS"), Key, Key]),
    (3, &[Is("LCS"), Key, Key, One(&["LEN", "IDX", "bogus"]), Maybe(&["WITHMATCHLEN", "LEN"])]),
    (2, &[Is("LCS"), Key, Key, Is("IDX"), Is("MINMATCHLEN"), Index]),
    (15, &[Is("DEL"), Many, Key]),
    (8, &[Is("UNLINK"), Many, Key]),
    (10, &[Is("EXISTS"), Many, Key]),
    (5, &[Is("TOUCH"), Many, Key]),
    (8, &[Is("TYPE"), Key]),
    (5, &[Is("KEYS"), Pattern]),
    (10, &[Is("RENAME"), Key, Key]),
    (8, &[Is("RENAMENX"), Key, Key]),
    (8, &[Is("COPY"), Key, Key, Maybe(&["REPLACE", "bogus"])]),
    (5, &[Is("COPY"), Key, Key, Is("DB"), Db, Maybe(&["REPLACE"])]),
    (5, &[Is("MOVE"), Key, Db]),
    (10, &[Is("EXPIRE"), Key, Seconds]),
    (6, &[Is("EXPIRE"), Key, Integer, Maybe(&["NX", "XX", "bogus"])]),
    (6, &[Is("PEXPIRE"), Key, Seconds, Maybe(&["NX", "XX"])]),
    (12, &[Is("EXPIREAT"), Key, Moment, Maybe(EXPIRE_OPTIONS), Maybe(EXPIRE_OPTIONS)]),
    (3, &[Is("PEXPIREAT"), Key, Integer, Maybe(&["NX", "XX"])]),
    (10, &[Is("TTL"), Key]),
    (6, &[Is("PTTL"), Key]),
    (6, &[Is("EXPIRETIME"), Key]),
    (6, &[Is("PEXPIRETIME"), Key]),
    (8, &[Is("PERSIST"), Key]),
    (6, &[Is("DBSIZE")]),
    (3, &[Is("SELECT"), Db]),
    (1, &[Is("FLUSHDB"), Maybe(&["ASYNC", "SYNC", "bogus"])]),
    (1, &[Is("FLUSHALL"), Maybe(&["ASYNC", "sync"])]),
    (3, &[Is("ECHO"), Value]),
    (4, &[Is("PING"), Maybe(&["hello"])]),
    (2, &[Is("AUTH"), Value]),
    (1, &[Is("AUTH"), One(&["default", "nobody"]), Value]),
    (2, &[Is("CLIENT"), Is("SETNAME"), Value]),
    (2, &[Is("CLIENT"), Is("GETNAME")]),
    (2, &[Is("CLIENT"), Is("NO-EVICT"), One(&["ON", "OFF", "bogus"])]),
    (1, &[Is("CLIENT"), Is("bogus")]),
    (1, &[Is("CLIENT"), Is("KILL"), One(&["1.2.3.4:5", "x"])]),
    (1, &[Is("CLIENT"), Is("KILL"), Is("ID"), One(&["0", "-1", "x", "999999999"])]),
    (1, &[Is("CLIENT"), Is("KILL"), One(&["TYPE", "USER", "SKIPME", "bogus"]), Is("bogus")]),
    (1, &[Is("CLIENT"), Is("KILL"), Is("TYPE"), One(&["replica", "pubsub", "master"])]),
    (1, &[Is("CLIENT"), Is("PAUSE"), One(&["0", "x", "-1"]), Maybe(&["ALL", "write", "bogus"])]),
    (1, &[Is("CLIENT"), Is("UNPAUSE")]),
    (1, &[Is("CLUSTER"), One(&["INFO", "slots", "MYID"])]),
    (1, &[Is("COMMAND"), Is("GETKEYS"), One(&["GET", "DEL", "bogus", "PING"]), Key, Key]),
    (1, &[Is("COMMAND"), Is("GETKEYS"), Is("MSET"), Many, Key, Value]),
    (1, &[Is("COMMAND"), Is("GETKEYS"), Is("EVAL"), Value, Index, Key, Key]),
    (2, &[Is("CONFIG"), Is("SET"), Is("slowlog-max-len"), One(&["5", "128", "x"])]),
    (1, &[Is("CONFIG"), Is("SET"), Is("bogus"), Value, Maybe(&["slowlog-max-len"])]),
    (2, &[Is("CONFIG"), Is("GET"), One(&["slowlog-max-len", "SLOWLOG-MAX-LEN", "nothing"])]),
    (1, &[Is("CONFIG"), One(&["RESETSTAT", "REWRITE", "bogus"])]),
    (1, &[Is("FUNCTION"), One(&["FLUSH", "bogus"]), Maybe(&["ASYNC", "SYNC", "bogus"])]),
    (1, &[Is("LATENCY"), One(&["LATEST", "RESET"])]),
    (1, &[Is("LATENCY"), Is("HISTORY"), Value]),
    (1, &[Is("SLOWLOG"), One(&["RESET", "bogus"])]),
    (1, &[Is("SLOWLOG"), Is("GET"), One(&["-2", "x"])]),
    (3, &[Is("SCAN"), Is("0"), Is("COUNT"), Is("1000"), Maybe(&["TYPE", "MATCH"]), Is("string")]),
    (3, &[Is("SCAN"), Is("0"), Is("MATCH"), Pattern, Is("COUNT"), Is("1000")]),
    (1, &[Is("SCAN"), One(&["x", "0"]), One(&["COUNT", "bogus"]), One(&["0", "-1", "x"])]),
    (2, &[Is("RANDOMKEY")]),
    (2, &[Is("OBJECT"), One(&["ENCODING", "REFCOUNT", "bogus"]), Key]),
    (2, &[Is("MEMORY"), Is("USAGE"), Key, Maybe(&["SAMPLES", "bogus"]), Is("5")]),
    (1, &[Is("CLIENT"), One(&["ID", "INFO", "LIST", "bogus"])]),
    (1, &[Is("CLIENT"), Is("LIST"), Is("TYPE"), One(&["normal", "replica", "bogus"])]),
    (1, &[Is("COMMAND"), One(&["COUNT", "LIST", "bogus"])]),
    (1, &[One(&["TIME", "ROLE", "LOLWUT", "COMMAND"])]),
    (1, &[Is("INFO"), Maybe(&["server", "keyspace", "bogus"])]),
    (1, &[Is("SCRIPT"), One(&["EXISTS", "FLUSH", "bogus"]), Value]),
    (1, &[Is("RESET")]),
    (6, &[Is("WATCH"), Many, Key]),
    (2, &[Is("UNWATCH")]),
    (14, &[Is("MULTI")]),
    (16, &[Is("EXEC")]),
    (3, &[Is("DISCARD")]),
    (2, &[Is("bogus"), Value]),
];

/// What a word is replaced by at times.
const SENSELESS: &[&[u8]] = &[b"", b"\xff\x00\r\n", b"-0", b"1e5000", b"nan", b"*", b" 1"];

impl Stream {
    pub fn new(seed: u64) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed), deadlines: 0 }
    }

    /// The next command.
    pub fn next(&mut self) -> Vec<Vec<u8>> {
        let total: u32 = COMMANDS.iter().map(|(weight, _)| weight).sum();
        let mut at = self.rng.random_range(0..total);
        let drawn = COMMANDS.iter().find(|(weight, _)| {
            let is_here = at < *weight;
            at = at.wrapping_sub(*weight);
            is_here
        });
        let mut words = self.words(drawn.unwrap().1);
        match self.rng.random_range(0..50) {
            // Too many words, too few, or one that makes no sense.
            0 => words.push(b"more".to_vec()),
            1 if words.len() > 1 => drop(words.pop()),
            2 if words.len() > 1 => {
                let i = self.rng.random_range(1..words.len());
                words[i] = SENSELESS[self.rng.random_range(0..SENSELESS.len())].to_vec();
            }
            3 => words[0].make_ascii_lowercase(),
            _ => {}
        }
        words
    }

    fn words(&mut self, pattern: &[Word]) -> Vec<Vec<u8>> {
        let mut words = Vec::new();
        for (i, word) in pattern.iter().enumerate() {
            if matches!(word, Many) {
                for _ in 0..self.rng.random_range(1..5) {
                    words.extend(self.words(&pattern[i + 1..]));
                }
                return words;
            }
            words.extend(self.word(*word));
        }
        words
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.rng.random_range(0..from.len())]
    }

    fn word(&mut self, word: Word) -> Option<Vec<u8>> {
        let text = match word {
            Is(text) => text.to_owned(),
            Key => {
                let key = self.rng.random_range(0..12);
                if key == 0 {
                    return Some(b"\x00bin\r\n\xff".to_vec());
                }
                format!("key{key}")
            }
            Decimal => format!("decimal{}", self.rng.random_range(0..3)),
            Value => match self.rng.random_range(0..8) {
                0 => return Some(vec![0xfe, 0, b'\r', b'\n']),
                1 => String::new(),
                2 => "x".repeat(self.rng.random_range(0..60)),
                3 => self.float(),
                4 => "ohmytext".to_owned(),
                5 => "mynewtext".to_owned(),
                _ => self.integer(),
            },
            Integer => self.integer(),
            Float => self.float(),
            Index => match self.rng.random_range(0..10) {
                0 => self.integer(),
                _ => self.rng.random_range(-20..40).to_string(),
            },
            Seconds => self.pick(&["100000", "700000", "90000000"]).to_owned(),
            Moment => {
                self.deadlines += 1;
                let sign = if self.rng.random() { 1 } else { -1 };
                (10_000_000_000 + sign * self.deadlines * 1000).to_string()
            }
            Db => self.pick(&["0", "0", "0", "1", "15", "16", "-1", "x"]).to_owned(),
            Pattern => self.pick(&["*", "key?", "key1*", "k[a-f]y[13]", "nothing"]).to_owned(),
            Maybe(words) if self.rng.random() => self.pick(words).to_owned(),
            Maybe(_) => return None,
            One(words) => self.pick(words).to_owned(),
            Many => unreachable!("it is no word"),
        };
        Some(text.into_bytes())
    }

    fn integer(&mut self) -> String {
        const EXTREME: &[&str] = &[
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775808",
            "9223372036854775",
            "-9223372036854775",
            "0",
            "-1",
            "+1",
            "01",
        ];
        match self.rng.random_range(0..4) {
            0 => self.pick(EXTREME).to_owned(),
            _ => self.rng.random_range(-100..100_000_000).to_string(),
        }
    }

    /// With few places, so that a long double is as good as a decimal.
    fn float(&mut self) -> String {
        match self.rng.random_range(0..6) {
            0 => self.pick(&["1e2", "-.5", "3.", "+2", "1.5E1", "abc", "1.2.3"]).to_owned(),
            _ => format!(
                "{}.{}",
                self.rng.random_range(-30..30),
                self.pick(&["0", "5", "25", "125"])
            ),
        }
    }
}
