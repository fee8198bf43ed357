//! Scripts through the codec: bytes in, requests out; answers in, bytes out.

use bytes::{Bytes, BytesMut};

use super::*;
use crate::protocol::resp::RespCodec;
use crate::protocol::surroundings::Nowhere;
use crate::protocol::{Codec, Incoming, Limits};
use crate::request::{
    Batch, Condition, Consistency, Expiry, Failure, Item, Key, Only, Reply, Request, Test, Ttl,
};

struct Client(RespCodec);

impl Client {
    fn new() -> Self {
        Self(RespCodec::new(Limits::default(), 1, 1, Box::new(Nowhere)))
    }

    /// What becomes of a command.
    fn send(&mut self, words: &[&str]) -> Incoming {
        let mut bytes = BytesMut::from(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        self.0.decode(&mut bytes).unwrap().expect("it is a whole command")
    }

    /// The reply to a command that is answered at once.
    fn told(&mut self, words: &[&str]) -> String {
        match self.send(words) {
            Incoming::Written(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The commands that a command is done by.
    fn asked(&mut self, words: &[&str]) -> Vec<Command> {
        match self.send(words) {
            Incoming::Ask(Request::Run { batch, consistency, .. }) => {
                assert_eq!(consistency, Consistency::Linearizable);
                assert_eq!(batch, Batch { guards: vec![], commands: batch.commands.clone() });
                batch.commands
            }
            other => panic!("{other:?}"),
        }
    }

    /// What is written when these are the answers.
    fn answered(&mut self, answers: Vec<Answer>) -> String {
        let mut out = BytesMut::new();
        assert!(self.0.encode(&Reply::Answers(answers), &mut out).is_none());
        String::from_utf8(out.to_vec()).unwrap()
    }
}

fn text_named(name: &str) -> &'static str {
    let script = SCRIPTS.iter().find(|script| script.name == name);
    script.expect("there is such a script").text
}

fn key(name: &str) -> Key {
    Key::new(name.to_owned())
}

fn test(name: &str, condition: Condition) -> Test {
    Test { key: key(name), condition }
}

fn owned(name: &str) -> Test {
    test(name, Condition::IfValue(Bytes::from_static(b"token")))
}

fn when(tests: Vec<Test>, then: Vec<Command>) -> Command {
    Command::When { tests, then }
}

fn delete(name: &str) -> Command {
    Command::Delete(key(name))
}

fn expiring(name: &str, expiry: Expiry) -> Command {
    Command::Expire { key: key(name), expiry }
}

fn expire(name: &str, ms: u64) -> Command {
    expiring(name, Expiry::AfterMs(ms))
}

fn set(name: &str, value: &'static str, expiry: Expiry, condition: Condition) -> Command {
    Command::Set { key: key(name), value: Bytes::from_static(value.as_bytes()), expiry, condition }
}

fn set_for(name: &str, value: &'static str, ms: u64) -> Command {
    set(name, value, Expiry::AfterMs(ms), Condition::Always)
}

fn held(answers: Vec<Answer>) -> Answer {
    Answer::Nested(Some(answers))
}

fn one(number: i64) -> Answer {
    held(vec![Answer::Integer(number)])
}

const NOT: Answer = Answer::Nested(None);
const STORED: Answer = Answer::Stored { version: 7 };

/// Checks what a script is done by, and what some answers make of its reply.
fn check(name: &str, words: &[&str], commands: &[Command], replies: &[(&[Answer], &str)]) {
    let mut client = Client::new();
    let text = text_named(name);
    let digest = digest_of(text.as_bytes());
    for (answers, reply) in replies {
        let by_text = client.asked(&[&["EVAL", text], words].concat());
        assert_eq!(by_text, commands, "{name}");
        assert_eq!(client.answered(answers.to_vec()), *reply, "{name} {answers:?}");
        let by_digest = client.asked(&[&["EVALSHA", &digest], words].concat());
        assert_eq!(by_digest, commands, "{name}");
        assert_eq!(client.answered(answers.to_vec()), *reply, "{name} {answers:?}");
    }
}

#[test]
fn digests_are_those_that_libraries_send() {
    for (name, digest) in [
        ("redis_py_release", "c3f8721cbb97f72bc19e972846bd7aaf91901658"),
        ("redis_py_reacquire", "1cac51482acf5858da00f6d685d68f886cd6b6b2"),
        ("redis_py_extend", "a4e8783852e6b949f9ef3a97212805108459a890"),
        ("phpredis_release", "b70c2384248f88e6b75b9f89241a180f856ad852"),
        ("limits_incr_expire", "628bd136a573a06b346879695681af12ccef300f"),
        ("redlock_5_acquire", "96da70f7716f27d278a5218544df37fd8b0a5e4c"),
        ("rate_limit_redis_get", "6aeb97ed6086dcdeafdc6fda3999a0d0e38ec96a"),
        ("rate_limit_redis_3_increment", "3f424a504987d231baa2e19159bb5def8ad32f87"),
        ("rate_limit_redis_5_increment", "81dbecea94d2d10514719b20ed51faf711529d9d"),
        ("rate_limiter_flexible_increment", "a1de965f42e177aa339706bd580f049065eca79a"),
    ] {
        assert_eq!(digest_of(text_named(name).as_bytes()), digest, "{name}");
    }
}

/// [Two texts that are the same, and do different things.]
#[test]
fn the_same_words_do_the_same() {
    for a in KNOWN.iter() {
        for b in KNOWN.iter().filter(|b| b.words == a.words) {
            let (a, b) = (a.text.script, b.text.script);
            assert!(std::ptr::fn_addr_eq(a.run, b.run), "{} {}", a.library, b.library);
        }
        assert!(a.text.script.text.len() <= TEXT_BYTES);
    }
}

#[test]
fn a_lock_is_released_by_its_owner() {
    let release = when(vec![owned("k")], vec![delete("k")]);
    for name in [
        "redis_py_release",
        "redlock_py_release",
        "pottery_release",
        "aiocache_release",
        "ioredis_lock_release",
        "redis_semaphore_release",
        "phpredis_release",
    ] {
        let replies: [(&[Answer], _); 2] = [(&[one(1)], ":1\r\n"), (&[NOT], ":0\r\n")];
        check(name, &["1", "k", "token"], std::slice::from_ref(&release), &replies);
    }
    let gone = when(vec![test("k", Condition::IfAbsent)], vec![]);
    check(
        "redsync_release",
        &["1", "k", "token"],
        &[release, gone],
        &[
            (&[one(1), held(vec![])], ":1\r\n"),
            (&[NOT, held(vec![])], ":-1\r\n"),
            (&[NOT, NOT], ":0\r\n"),
        ],
    );
}

#[test]
fn a_lock_is_extended_by_its_owner() {
    for (name, line) in [
        ("redis_py_reacquire", 6),
        ("pottery_extend", 3),
        ("ioredis_lock_extend", 2),
        ("redis_semaphore_refresh", 9),
    ] {
        let digest = digest_of(text_named(name).as_bytes());
        let error = format!(
            "-ERR invalid expire time in 'pexpire' command script: {digest}, \
             on @user_script:{line}.\r\n"
        );
        let failed = held(vec![Answer::Failed(Failure::InvalidExpiry)]);
        check(
            name,
            &["1", "k", "token", "500"],
            &[when(vec![owned("k")], vec![expire("k", 500)])],
            &[(&[one(1)], ":1\r\n"), (&[NOT], ":0\r\n"), (&[failed], &error)],
        );
        let error = error.replace(
            "invalid expire time in 'pexpire' command",
            "value is not an integer or out of range",
        );
        check(
            name,
            &["1", "k", "token", "1.5"],
            &[when(vec![owned("k")], vec![])],
            &[(&[held(vec![])], &error), (&[NOT], ":0\r\n")],
        );
    }
    check(
        "redsync_touch_or_set",
        &["1", "k", "token", "500"],
        &[
            when(vec![owned("k")], vec![expire("k", 500)]),
            when(vec![], vec![set("k", "token", Expiry::AfterMs(500), Condition::IfAbsent)]),
        ],
        &[
            (&[one(1), held(vec![Answer::NotStored { version: 7 }])], ":1\r\n"),
            (&[NOT, held(vec![STORED])], ":1\r\n"),
            (&[NOT, held(vec![Answer::NotStored { version: 7 }])], ":0\r\n"),
        ],
    );
    let only = Only::IfAny;
    check(
        "redis_py_extend",
        &["1", "k", "token", "500", "1"],
        &[when(
            vec![owned("k")],
            vec![Command::ExpireOnly { key: key("k"), expiry: Expiry::AfterMs(500), only }],
        )],
        &[(&[one(1)], ":1\r\n"), (&[one(0)], ":0\r\n"), (&[NOT], ":0\r\n")],
    );
    let later = |ms| when(vec![owned("k")], vec![expiring("k", Expiry::LaterMs(ms))]);
    let replies: [(&[Answer], _); 2] = [(&[one(1)], ":1\r\n"), (&[NOT], ":0\r\n")];
    for ms in [500, -500] {
        let words = ["1", "k", "token", &ms.to_string(), "0"];
        check("redis_py_extend", &words, &[later(ms)], &replies);
    }
    check(
        "pottery_acquired",
        &["1", "k", "token"],
        &[when(vec![owned("k")], vec![Command::Ttl(key("k"))])],
        &[
            (&[held(vec![Answer::Ttl(Ttl::Ms(12))])], ":12\r\n"),
            (&[held(vec![Answer::Ttl(Ttl::Never)])], ":0\r\n"),
            (&[NOT], ":0\r\n"),
        ],
    );
}

#[test]
fn redlock_takes_all_keys_or_none() {
    let sets = || vec![set_for("a", "token", 500), set_for("b", "token", 500)];
    let absent = ["a", "b"].map(|name| test(name, Condition::IfAbsent)).to_vec();
    let words = ["2", "a", "b", "token", "500"];
    let replies: [(&[Answer], _); 2] =
        [(&[held(vec![STORED, STORED])], ":2\r\n"), (&[NOT], ":0\r\n")];
    for name in ["redlock_4_acquire", "redlock_5_acquire"] {
        check(name, &words, &[when(absent.clone(), sets())], &replies);
    }
    for name in ["redlock_4_extend", "redlock_5_extend"] {
        check(name, &words, &[when(vec![owned("a"), owned("b")], sets())], &replies);
    }
    for name in ["redlock_4_release", "redlock_5_release"] {
        let release = |name| when(vec![owned(name)], vec![delete(name)]);
        let replies: [(&[Answer], _); 2] = [(&[one(1), NOT], ":1\r\n"), (&[NOT, NOT], ":0\r\n")];
        check(name, &words[..4], &[release("a"), release("b")], &replies);
    }
}

#[test]
fn aioredlock_has_replies_of_its_own() {
    let absent = || vec![test("k", Condition::IfAbsent)];
    let set = || vec![set_for("k", "token", 500)];
    check(
        "aioredlock_set",
        &["1", "k", "token", "500"],
        &[when(absent(), set()), when(vec![owned("k")], set())],
        &[
            (&[held(vec![STORED]), held(vec![STORED])], "+OK\r\n"),
            (&[NOT, held(vec![STORED])], "+OK\r\n"),
            (&[NOT, NOT], "-ERR ERROR\r\n"),
        ],
    );
    check(
        "aioredlock_unset",
        &["1", "k", "token"],
        &[when(absent(), vec![]), when(vec![owned("k")], vec![delete("k")])],
        &[
            (&[held(vec![]), NOT], "+OK\r\n"),
            (&[NOT, one(1)], ":1\r\n"),
            (&[NOT, NOT], "-ERR ERROR\r\n"),
        ],
    );
    check(
        "aioredlock_ttl",
        &["1", "k", "token"],
        &[when(vec![owned("k")], vec![Command::Ttl(key("k"))])],
        &[
            (&[held(vec![Answer::Ttl(Ttl::Ms(12_000))])], ":12\r\n"),
            (&[held(vec![Answer::Ttl(Ttl::Never)])], ":-1\r\n"),
            (&[NOT], "-ERR ERROR\r\n"),
        ],
    );
}

#[test]
fn caches_add_swap_and_count() {
    check(
        "laravel_add",
        &["1", "k", "v", "5"],
        &[when(vec![test("k", Condition::IfAbsent)], vec![set_for("k", "v", 5000)])],
        &[(&[held(vec![STORED])], "+OK\r\n"), (&[NOT], "$-1\r\n")],
    );
    let swap = |expiry| when(vec![owned("k")], vec![set("k", "new", expiry, Condition::Always)]);
    let replies: [(&[Answer], _); 2] = [(&[held(vec![STORED])], "+OK\r\n"), (&[NOT], ":0\r\n")];
    check("aiocache_cas", &["1", "k", "new", "token"], &[swap(Expiry::Never)], &replies);
    let words = ["1", "k", "new", "token", "EX", "5"];
    check("aiocache_cas", &words, &[swap(Expiry::AfterMs(5000))], &replies);
    let by_two = || vec![Command::Increment { key: key("k"), by: 2 }];
    let present = test("k", Condition::IfPresent);
    check(
        "django_redis_incr_present",
        &["1", "k", "2"],
        &[when(vec![present], by_two())],
        &[(&[one(7)], ":7\r\n"), (&[NOT], "$-1\r\n")],
    );
    let failed = held(vec![Answer::Failed(Failure::Overflow)]);
    let error = "-ERR increment or decrement would overflow script: \
                 4d15273b16b10c15e1d9202cbe93c959ab7d250b, on @user_script:2.\r\n";
    check(
        "django_redis_incr",
        &["1", "k", "2"],
        &[when(vec![], by_two())],
        &[
            (&[one(7)], ":7\r\n"),
            (&[one((1 << 53) + 1)], ":9007199254740992\r\n"),
            (&[one(i64::MAX)], ":-9223372036854775808\r\n"),
            (&[failed], error),
        ],
    );
}

#[test]
fn limiters_count_within_a_window() {
    let failed = Answer::Failed(Failure::NotAnInteger);
    let begins = test("k", Condition::IfValue(Bytes::from_static(b"2")));
    let error = |digest, line| {
        format!(
            "-ERR value is not an integer or out of range script: {digest}, \
             on @user_script:{line}.\r\n"
        )
    };
    check(
        "limits_incr_expire",
        &["1", "k", "60", "2"],
        &[
            Command::Increment { key: key("k"), by: 2 },
            when(vec![begins], vec![expire("k", 60_000)]),
        ],
        &[
            (&[Answer::Integer(2), one(1)], ":2\r\n"),
            (&[Answer::Integer(4), NOT], ":4\r\n"),
            (&[failed.clone(), NOT], &error("628bd136a573a06b346879695681af12ccef300f", 3)),
        ],
    );
}

/// [A key that is no counter gets a deadline from a limiter that could not count.]
#[test]
fn limiters_end_with_what_fails() {
    let error = |name, line| {
        let digest = digest_of(text_named(name).as_bytes());
        let text = "-ERR value is not an integer or out of range script: ";
        format!("{text}{digest}, on @user_script:{line}.\r\n")
    };
    let check = |name, words: &[&str], then: Vec<Command>, counted: usize, line| {
        let mut answers = vec![Answer::Integer(1); then.len()];
        answers[counted] = Answer::Integer(3);
        *answers.last_mut().unwrap() = Answer::Ttl(Ttl::Ms(400));
        let failed = [&answers[..counted], &[Answer::Failed(Failure::NotAnInteger)]].concat();
        let chain = Command::Chain { tests: vec![], then };
        let (counted, error) = (held(answers), error(name, line));
        let replies: [(&[Answer], &str); 2] =
            [(&[counted], "*2\r\n:3\r\n:400\r\n"), (&[held(failed)], &error)];
        check(name, &[&["1", "k"], words].concat(), &[chain], &replies);
    };
    let only = |expiry| Command::ExpireOnly { key: key("k"), expiry, only: Only::IfNone };
    let begin = |ms| set("k", "0", Expiry::AfterMs(ms), Condition::IfAbsent);
    let by = |by| Command::Increment { key: key("k"), by };
    let ttl = || Command::Ttl(key("k"));
    let gone = || only(Expiry::AtMs(0));
    let plain = || vec![gone(), begin(500), by(1), ttl()];
    let again = || vec![gone(), begin(500), by(1), expire("k", 500), ttl()];
    check("rate_limit_redis_6_increment", &["500"], plain(), 2, 7);
    check("rate_limit_redis_5_increment", &["0", "500"], plain(), 2, 8);
    check("rate_limit_redis_5_increment", &["1", "500"], again(), 2, 8);
    let kept = vec![by(1), only(Expiry::AfterMs(500)), ttl()];
    check("rate_limit_redis_3_increment", &["0", "500"], kept, 0, 1);
    let renewed = vec![by(1), expire("k", 500), ttl()];
    check("rate_limit_redis_3_increment", &["1", "500"], renewed, 0, 1);
    let points = vec![begin(5000), by(-2), only(Expiry::AfterMs(5000)), ttl()];
    check("rate_limiter_flexible_increment", &["-2", "5"], points, 1, 1);
}

/// [Each look at a limit becomes an entry of the log.]
#[test]
fn a_script_that_reads_is_a_read() {
    let item = Item { value: Bytes::from_static(b"3"), version: 1 };
    check(
        "rate_limit_redis_get",
        &["1", "k"],
        &[Command::Get(key("k")), Command::Ttl(key("k"))],
        &[
            (&[Answer::Item(None), Answer::Ttl(Ttl::Absent)], "*2\r\n$-1\r\n:-2\r\n"),
            (&[Answer::Item(Some(item)), Answer::Ttl(Ttl::Ms(9))], "*2\r\n$1\r\n3\r\n:9\r\n"),
        ],
    );
    let mut client = Client::new();
    for name in ["rate_limit_redis_get", "pottery_acquired", "aioredlock_ttl"] {
        let commands = client.asked(&["EVAL_RO", text_named(name), "1", "k", "token"]);
        assert!(!commands.iter().any(Command::is_write), "{name}");
    }
    let release = text_named("redis_py_release");
    assert_eq!(
        client.told(&["EVAL_RO", release, "1", "k", "token"]),
        "-ERR Write commands are not allowed from read-only scripts.\r\n"
    );
}

#[test]
fn an_unknown_script_is_refused() {
    let mut client = Client::new();
    let unknown = "-ERR this script is not known: scripts in general are not run, only those of \
                   locks and limiters of Laravel, aiocache, aioredlock, django-redis, \
                   ioredis-lock, limits, phpredis, pottery, rate-limit-redis, rate-limiter-flexible, redis-py, redis-semaphore, redlock, redlock-py, redsync\r\n";
    let long = format!("{}{}", text_named("redis_py_release"), " ".repeat(TEXT_BYTES));
    for text in ["return 1", &long] {
        assert_eq!(client.told(&["EVAL", text, "0"]), unknown);
        assert_eq!(client.told(&["SCRIPT", "LOAD", text]), unknown);
    }
    for digest in ["e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "abc", ""] {
        assert_eq!(client.told(&["EVALSHA", digest, "0"]), format!("-{NO_SCRIPT}\r\n"));
        assert_eq!(
            client.told(&["EVALSHA_RO", digest, "0"]),
            "-NOSCRIPT No matching script. Please use EVAL.\r\n"
        );
    }
    let few = "-ERR the script redis_py_release takes at least 1 keys and 1 arguments\r\n";
    let release = text_named("redis_py_release");
    assert_eq!(client.told(&["EVAL", release, "1", "k"]), few);
    assert_eq!(client.told(&["EVAL", release, "0", "token"]), few);
}

#[test]
fn senseless_windows_are_refused_before_anything_is_counted() {
    let mut client = Client::new();
    for ms in ["0", "-1", "1.5", "abc", "9007199254740992", "9223372036854775808"] {
        for (name, words) in [
            ("rate_limit_redis_6_increment", &["1", "k", ms][..]),
            ("rate_limit_redis_5_increment", &["1", "k", "0", ms]),
            ("rate_limit_redis_3_increment", &["1", "k", "1", ms]),
            ("rate_limiter_flexible_increment", &["1", "k", "1", ms]),
        ] {
            let told = client.told(&[&["EVAL", text_named(name)], words].concat());
            assert!(told.starts_with("-ERR "), "{name} {ms}: {told}");
        }
    }
    let consume = text_named("rate_limiter_flexible_increment");
    assert!(client.told(&["EVAL", consume, "1", "k", "1.5", "60"]).starts_with("-ERR "));
    let extend = text_named("redis_py_extend");
    for ms in ["1.5", "9007199254740992", "-9007199254740992"] {
        let told = client.told(&["EVAL", extend, "1", "k", "token", ms, "0"]);
        assert!(told.starts_with("-ERR "), "{ms}: {told}");
    }
    let limits = text_named("limits_incr_expire");
    for amount in ["9007199254740992", "-9007199254740992", "-9223372036854775808"] {
        let told = client.told(&["EVAL", limits, "1", "k", "60", amount]);
        assert!(told.contains("2^53"), "{amount}: {told}");
    }
}

#[test]
fn a_connection_remembers_the_texts_that_it_sent() {
    let mut client = Client::new();
    let reworded = |i: usize| format!("-- {i}\n{}", text_named("redis_py_release"));
    let digest = |i: usize| digest_of(reworded(i).as_bytes());
    let own = digest_of(text_named("redis_py_release").as_bytes());
    let bulk = |digest: &str| format!("$40\r\n{digest}\r\n");
    let call = |digest: &str| ["EVALSHA", digest, "1", "k", "token"].map(str::to_owned);
    let has = |client: &mut Client, i| {
        let told = client.told(&["SCRIPT", "EXISTS", &own.to_uppercase(), &digest(i)]);
        told == "*2\r\n:1\r\n:1\r\n"
    };
    assert!(!has(&mut client, 0));
    assert_eq!(client.told(&["SCRIPT", "LOAD", &reworded(0)]), bulk(&digest(0)));
    assert!(has(&mut client, 0));
    let words = call(&digest(0).to_uppercase());
    assert_eq!(client.asked(&words.each_ref().map(String::as_str)).len(), 1);
    assert!(!has(&mut Client::new(), 0), "it is this connection that knows");
    client.asked(&["EVAL", &reworded(1), "1", "k", "token"]);
    assert!(has(&mut client, 1), "what was run is known, too");
    for i in 2..REMEMBERED + 1 {
        client.told(&["SCRIPT", "LOAD", &reworded(i)]);
        client.told(&["SCRIPT", "LOAD", &reworded(i)]);
    }
    assert!(!has(&mut client, 0), "the oldest made way");
    assert!((1..REMEMBERED + 1).all(|i| has(&mut client, i)), "and only it");
    assert_eq!(client.told(&["SCRIPT", "FLUSH", "ASYNC"]), "+OK\r\n");
    assert!(!has(&mut client, 1));
    assert_eq!(client.told(&["SCRIPT", "EXISTS", &own]), "*1\r\n:1\r\n");
}

#[test]
fn a_transaction_queues_what_a_script_does() {
    let mut client = Client::new();
    let release = text_named("redis_py_release");
    assert_eq!(client.told(&["MULTI"]), "+OK\r\n");
    for words in [
        &["EVAL", release, "1", "k", "token"][..],
        &["EVAL", "return 1", "0"],
        &["EVALSHA", "abc", "0"],
        &["EVAL", release, "7", "k", "token"],
        &["GET", "k"],
    ] {
        assert_eq!(client.told(words), "+QUEUED\r\n");
    }
    let commands = client.asked(&["EXEC"]);
    let expected = [when(vec![owned("k")], vec![delete("k")]), Command::Get(key("k"))];
    assert_eq!(commands, expected);
    let told = client.answered(vec![one(1), Answer::Item(None)]);
    assert!(told.starts_with("*5\r\n:1\r\n-ERR this script is not known"), "{told}");
    let rest = format!(
        "-{NO_SCRIPT}\r\n-ERR Number of keys can't be greater than number of args\r\n$-1\r\n"
    );
    assert!(told.ends_with(&rest), "{told}");
}

#[test]
fn keys_are_found_by_their_number() {
    let mut client = Client::new();
    let told = client.told(&["COMMAND", "GETKEYS", "EVAL", "x", "2", "a", "b", "c"]);
    assert_eq!(told, "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
    let told = client.told(&["COMMAND", "GETKEYS", "EVAL", "x", "2", "a"]);
    assert_eq!(told, "*0\r\n");
    let told = client.told(&["COMMAND", "INFO", "eval"]);
    for word in ["+noscript", "+movablekeys", ":0\r\n:0\r\n:0", "@scripting"] {
        assert!(told.contains(word), "{told}");
    }
}
