//! The scripts that are known, with keys in every state that matters and arguments
//! of every kind: what Redis makes of them, and what they leave behind.

use std::fmt::Write as _;

use crate::wire::{Reply, Wire, command};

/// A key that is there, and what it holds.
const STATES: &[&[&str]] = &[
    &[],
    &["SET a token"],
    &["SET a token PX 500000"],
    &["SET a other PX 500000"],
    &["SET a 5"],
    &["SET a 5 PX 500000"],
    &["SET a 0 PX 500000"],
    &["SET a -7"],
    &["SET a 9223372036854775807"],
    &["SET a 9223372036854775807 EX 500"],
    &["SET a token PX 500000", "SET b token"],
    &["SET a token PX 500000", "SET b other"],
    &["SET b token PX 500000"],
];

const ONE: &[&str] = &["1 a"];
const MANY: &[&str] = &["1 a", "2 a b", "2 b a", "2 a a", "0"];

const OWNER: &[&str] = &["token", "other", "token more"];
const OWNER_AND_TIME: &[&str] = &[
    "token 100000",
    "other 100000",
    "token 100000 more",
    "token 0",
    "token -1",
    "token -9223372036854775808",
    "token 9223372036854775807",
    "token 9223372036854775",
    "token abc",
    "token 1.5",
    "token 0100",
    "other 0",
    "other abc",
    "other 9223372036854775807",
];

const EXTEND: &[&str] = &[
    "token 100000 1",
    "other 100000 1",
    "token 0 1",
    "token -1 1",
    "token 100000 0",
    "other 100000 0",
    "token 0 0",
    "token -100000 0",
    "token -500000 0",
    "token -9007199254740991 0",
    "token 9007199254740991 0 more",
];

/// Whether a window begins again, and how long it is.
const WINDOW: &[&str] = &["0 100000", "1 100000", "1 100000 more", "0 9007199254740991"];

/// Points, seconds, and what else comes with them.
const POINTS: &[&str] = &[
    "1 1000",
    "5 1000 10 1000",
    "-7 1000",
    "0 1000",
    "9223372036854775807 1000",
    "1 9007199254740991",
];

const AMOUNT: &[&str] =
    &["1", "5", "-1", "0", "abc", "1.5", "9223372036854775807", "9223372036854775808"];

const SECONDS_AND_AMOUNT: &[&str] = &[
    "1000 1",
    "1000 5",
    "1000 -7",
    "1000 0",
    "0 1",
    "-1 1",
    "abc 1",
    "abc 3",
    "9223372036854775807 1",
    "9223372036854775807 5",
];

const SWAP: &[&str] = &[
    "new token",
    "new other",
    "new token EX 1000",
    "new token PX 100000",
    "new token px 100000",
    "new token PX 0",
    "new other PX 0",
    "new token PX abc",
    "new token bogus 1",
    "new token EX",
    "new token EX 1000 more",
];

/// The file of a script, its keys, and its arguments.
const SCRIPTS: &[(&str, &[&str], &[&str])] = &[
    ("redis_py_release", ONE, OWNER),
    ("redlock_py_release", ONE, OWNER),
    ("pottery_release", ONE, OWNER),
    ("aiocache_release", ONE, OWNER),
    ("ioredis_lock_release", ONE, OWNER),
    ("redis_semaphore_release", ONE, OWNER),
    ("phpredis_release", ONE, OWNER),
    ("redsync_release", ONE, OWNER),
    ("redis_py_reacquire", ONE, OWNER_AND_TIME),
    ("pottery_extend", ONE, OWNER_AND_TIME),
    ("ioredis_lock_extend", ONE, OWNER_AND_TIME),
    ("redis_semaphore_refresh", ONE, OWNER_AND_TIME),
    ("redis_py_extend", ONE, EXTEND),
    ("redsync_touch_or_set", ONE, OWNER_AND_TIME),
    ("pottery_acquired", ONE, OWNER),
    ("redlock_4_acquire", MANY, OWNER_AND_TIME),
    ("redlock_5_acquire", MANY, OWNER_AND_TIME),
    ("redlock_4_extend", MANY, OWNER_AND_TIME),
    ("redlock_5_extend", MANY, OWNER_AND_TIME),
    ("redlock_4_release", MANY, OWNER),
    ("redlock_5_release", MANY, OWNER),
    ("aioredlock_set", ONE, OWNER_AND_TIME),
    ("aioredlock_unset", ONE, OWNER),
    ("aioredlock_ttl", ONE, OWNER),
    ("laravel_add", ONE, OWNER_AND_TIME),
    ("aiocache_cas", ONE, SWAP),
    ("django_redis_incr_present", ONE, AMOUNT),
    ("django_redis_incr", ONE, AMOUNT),
    ("limits_incr_expire", ONE, SECONDS_AND_AMOUNT),
    ("rate_limit_redis_6_increment", ONE, &["100000", "100000 more", "9007199254740991"]),
    ("rate_limit_redis_get", ONE, &["", "more"]),
    ("rate_limit_redis_3_increment", ONE, WINDOW),
    ("rate_limit_redis_5_increment", ONE, WINDOW),
    ("rate_limiter_flexible_increment", ONE, POINTS),
];

/// Calls that are none of a script, with the digest of one.
const SENSELESS: &[&str] = &[
    "EVAL x -1",
    "EVAL x 1",
    "EVAL x abc",
    "EVAL x",
    "EVALSHA DIGEST -1",
    "EVALSHA DIGEST 2 a",
    "EVALSHA DIGEST abc",
    "EVALSHA ffffffffffffffffffffffffffffffffffffffff 0",
    "EVALSHA ffffffffffffffffffffffffffffffffffffffff -1",
    "EVALSHA abc -1",
    "EVALSHA_RO abc 0",
    "SCRIPT",
    "SCRIPT bogus",
    "SCRIPT LOAD",
    "SCRIPT EXISTS",
    "SCRIPT FLUSH bogus",
    "SCRIPT FLUSH SYNC ASYNC",
    "SCRIPT EXISTS DIGEST abc",
    "COMMAND GETKEYS EVAL x 1 a b",
    "COMMAND GETKEYS EVALSHA DIGEST 2 a b c",
    "COMMAND GETKEYS EVAL x 3 a",
    "COMMAND GETKEYS EVAL x abc a",
    "COMMAND GETKEYS EVAL x 0 a",
    "SCRIPT FLUSH",
];

fn text_of(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/protocol/resp/scripts/texts");
    std::fs::read_to_string(format!("{folder}/{name}.lua")).unwrap()
}

/// Other words for the same, with its calls on other lines.
fn reworded(text: &str) -> String {
    let quoted = text.replace('\'', "\"").replace("\"get\"", "'GET'");
    format!("-- the same\n--[[ in other\nwords ]]{}\n", quoted.replace(',', " ,\t"))
}

/// A pipeline, and what each of its commands is for.
#[derive(Default)]
struct Pipeline {
    bytes: Vec<u8>,
    shown: Vec<String>,
}

impl Pipeline {
    /// Adds a command. The keys `a` and `b` get a name that no other case has.
    fn push(&mut self, words: &[&str], case: usize) {
        let name = |word: &&str| match *word {
            "a" | "b" => format!("{case}:{word}").into_bytes(),
            word => word.as_bytes().to_vec(),
        };
        let words: Vec<_> = words.iter().map(name).collect();
        self.bytes.extend(command(&words));
        let mut shown = String::new();
        for word in &words {
            let _ = write!(shown, "{} ", word.escape_ascii());
        }
        self.shown.push(shown);
    }

    fn split(&mut self, line: &str, case: usize) {
        self.push(&line.split(' ').collect::<Vec<_>>(), case);
    }

    fn compare(&self, ours: &mut Wire, theirs: &mut Wire) {
        ours.send(&self.bytes);
        theirs.send(&self.bytes);
        let mut before = String::new();
        for shown in &self.shown {
            let (our, their) = (ours.receive(), theirs.receive());
            let _ = writeln!(before, "{shown}-> {}", their.text());
            assert!(is_near(&our, &their), "{before}ours: {}", our.text());
        }
    }
}

/// The same, but for the time that went by between the two.
fn is_near(ours: &Reply, theirs: &Reply) -> bool {
    match (ours, theirs) {
        (Reply::Many(our, ours), Reply::Many(their, theirs)) => {
            our == their
                && ours.len() == theirs.len()
                && ours.iter().zip(theirs).all(|(our, their)| is_near(our, their))
        }
        _ => match (ours.integer(), theirs.integer()) {
            (Some(ours), Some(theirs)) if ours > 100 => ours.abs_diff(theirs) <= 60_000,
            _ => ours == theirs,
        },
    }
}

/// What a script is run by.
#[derive(Clone, Copy)]
enum Way<'a> {
    Eval(&'a str),
    Digest(&'a str),
    Transaction(&'a str),
}

fn push_case(pipeline: &mut Pipeline, way: Way<'_>, case: usize, state: &[&str], words: &[&str]) {
    state.iter().for_each(|line| pipeline.split(line, case));
    let (name, script) = match way {
        Way::Eval(text) => ("EVAL", text),
        Way::Digest(digest) | Way::Transaction(digest) => ("EVALSHA", digest),
    };
    let call = [&[name, script], words].concat();
    if matches!(way, Way::Transaction(_)) {
        pipeline.push(&["MULTI"], case);
        pipeline.push(&["SET", "b", "before"], case);
        pipeline.push(&call, case);
        pipeline.push(&["EXEC"], case);
    } else {
        pipeline.push(&call, case);
    }
    for line in ["GET a", "PTTL a", "GET b", "PTTL b"] {
        pipeline.split(line, case);
    }
}

/// Panics at the first reply that differs.
pub fn compare(ours: &str, theirs: &str) {
    let (mut ours, mut theirs) = (Wire::to(ours), Wire::to(theirs));
    let mut case = 0;
    for (name, keys, arguments) in SCRIPTS {
        let (text, other) = (text_of(name), reworded(&text_of(name)));
        let digest = theirs.ask(&["SCRIPT", "LOAD", &text]);
        assert_eq!(ours.ask(&["SCRIPT", "LOAD", &text]), digest, "{name}");
        let Reply::Bulk(_, digest) = digest else { panic!("{name} is no script") };
        let digest = String::from_utf8(digest).unwrap();
        let ways = [Way::Eval(&other), Way::Digest(&digest), Way::Transaction(&digest)];
        for state in STATES {
            let mut pipeline = Pipeline::default();
            for (keys, arguments) in keys.iter().flat_map(|k| arguments.iter().map(move |a| (k, a)))
            {
                let words: Vec<_> = keys.split(' ').chain(arguments.split(' ')).collect();
                let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
                for way in ways {
                    case += 1;
                    push_case(&mut pipeline, way, case, state, &words);
                }
            }
            pipeline.compare(&mut ours, &mut theirs);
        }
    }
    let digest = theirs.ask(&["SCRIPT", "LOAD", &text_of("redis_py_release")]);
    let digest = digest.text()[1..].to_owned();
    let mut pipeline = Pipeline::default();
    SENSELESS.iter().for_each(|line| pipeline.split(&line.replace("DIGEST", &digest), 0));
    pipeline.compare(&mut ours, &mut theirs);
}

/// Every text is compared.
pub fn assert_complete() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/protocol/resp/scripts/texts");
    for file in std::fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let is_it = |(script, ..): &(&str, &[&str], &[&str])| name == format!("{script}.lua");
        assert!(SCRIPTS.iter().any(is_it), "{name} is not compared");
    }
}
