//! `cachecli` as people run it, against fake nodes.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

#[expect(dead_code, reason = "the tests of the client use the rest")]
mod fake;

use std::io::Write;
use std::process::{Command, Stdio};

use fake::{Fake, Mood, cluster};
use raftcache::request::ErrorKind;

/// What a run left behind.
#[derive(Debug)]
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn command(addresses: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cachecli"));
    command.env("CACHECLI_ADDR", addresses).args(["--timeout-ms", "500"]).args(args);
    command
}

fn run_with(mut command: Command, input: &[u8]) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs it against all of these nodes.
fn run(fakes: &[Fake], args: &[&str]) -> Ran {
    let addresses: Vec<_> = fakes.iter().map(|fake| fake.address.as_str()).collect();
    run_with(command(&addresses.join(","), args), b"")
}

/// Runs it, expects this code, and returns what it printed.
fn prints(fakes: &[Fake], args: &[&str], code: i32) -> String {
    let ran = run(fakes, args);
    assert_eq!(ran.code, code, "{args:?}: {ran:?}");
    ran.stdout
}

#[test]
fn a_session_at_the_shell() {
    let fakes = cluster(1);
    let ok = |args: &[&str], stdout: &str| assert_eq!(prints(&fakes, args, 0), stdout, "{args:?}");
    ok(&["set", "a", "1"], "OK\n");
    ok(&["get", "a"], "1\n");
    ok(&["get", "a", "--stale"], "1\n");
    ok(&["get", "a", "--output", "raw"], "1");
    ok(&["get", "a", "--output", "json"], "{\"value\":\"1\",\"version\":1}\n");
    ok(&["incr", "a"], "2\n");
    ok(&["incr", "a", "-5"], "-3\n");
    ok(&["ttl", "a"], "no deadline\n");
    ok(&["expire", "a", "1500ms"], "OK\n");
    ok(&["ttl", "a"], "1500 ms\n");
    ok(&["persist", "a"], "OK\n");
    ok(&["persist", "a"], "it had no deadline\n");
    ok(&["set", "b", "two words", "--ttl", "2"], "OK\n");
    ok(&["set", "minus", "-7", "--ttl", "1h"], "OK\n");
    ok(&["incr", "minus"], "-6\n");
    ok(&["ttl", "b", "--output", "json"], "{\"ttl_ms\":2000}\n");
    ok(&["cas", "a", "4", "--old", "-3"], "OK\n");
    ok(&["cas", "new", "1", "--version", "0"], "OK\n");
    ok(&["mget", "a", "b"], "key  value\na    4\nb    two words\n");
    ok(&["mget", "a", "b", "--output", "raw"], "a\t4\nb\ttwo words\n");
    ok(&["exists", "a"], "yes\n");
    ok(&["--db", "1", "set", "a", "other"], "OK\n");
    ok(&["del", "a", "b", "c"], "2 removed\n");
    ok(&["--db", "1", "get", "a"], "other\n");
}

#[test]
fn exit_codes_are_those_of_the_help() {
    let fakes = cluster(1);
    let code = |args: &[&str], code| prints(&fakes, args, code);
    for args in [
        &["get", "no"][..],
        &["ttl", "no"],
        &["expire", "no", "1s"],
        &["persist", "no"],
        &["mget", "no"],
        &["exists", "no"],
        &["del", "no"],
        &["runget"],
    ] {
        code(args, 1);
    }
    for args in [
        &["frobnicate"][..],
        &["get"],
        &["set", "a", "b", "--nx", "--xx"],
        &["--db", "16", "get", "a"],
        &["expire", "a", "soon"],
        &["cas", "a", "1"],
        &["seed", "--value-bytes", "3"],
    ] {
        code(args, 2);
    }
    code(&["set", "text", "x"], 0);
    for args in [
        &["incr", "text"][..],
        &["set", "text", "y", "--nx"],
        &["set", "no", "y", "--xx"],
        &["cas", "text", "y", "--old", "z"],
        &["leave", "nobody"],
    ] {
        code(args, 4);
    }
    fakes[0].set_mood(Mood::Refuse(ErrorKind::OutOfMemory));
    code(&["set", "a", "1"], 4);
    // The session is there, the reply to the write is not.
    fakes[0].set_mood(Mood::SwallowReplies);
    code(&["join", "n9", "127.0.0.1:1"], 5);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ran = run_with(command(&nobody.to_string(), &["set", "a", "1"]), b"");
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stderr.starts_with("cachecli: unreachable: 127.0.0.1:"), "{ran:?}");
    assert!(prints(&fakes, &["--help"], 0).contains("outcome unknown"));
}

/// `(missing)` may be what is stored: for programs it stands for nothing else.
#[test]
fn a_missing_key_is_told_from_any_value() {
    let fakes = cluster(1);
    prints(&fakes, &["set", "a", "(missing)"], 0);
    let mget = |output| prints(&fakes, &["mget", "no", "a", "--output", output], 1);
    assert_eq!(mget("raw"), "a\t(missing)\n");
    assert_eq!(mget("table"), "key  value\nno   (missing)\na    (missing)\n");
    assert!(mget("json").contains("\"no\":null"));
}

#[test]
fn failures_are_readable_by_programs() {
    let fakes = cluster(1);
    let stdout = prints(&fakes, &["--output", "json", "get", "no"], 1);
    assert_eq!(stdout, "{\"error\":\"missing\",\"message\":\"no such key: no\"}\n");
}

#[test]
fn a_value_comes_from_standard_input_and_goes_out_byte_by_byte() {
    let fakes = cluster(1);
    let input = "line\nwithout end ä\0".as_bytes();
    let ran = run_with(command(&fakes[0].address, &["set", "a", "-"]), input);
    assert_eq!(ran.code, 0, "{ran:?}");
    let stdout = prints(&fakes, &["get", "a", "--output", "raw"], 0);
    assert_eq!(stdout.as_bytes(), input);
}

/// The first address is dead; a write that carries its stamp goes on although
/// it was sent.
#[test]
fn the_next_address_is_tried() {
    let fakes = cluster(2);
    fakes[0].set_mood(Mood::SwallowReplies);
    prints(&fakes, &["incr", "a"], 0);
    fakes[0].set_mood(Mood::Serve);
    assert_eq!(prints(&fakes, &["get", "a"], 0), "1\n");
}

#[test]
fn status_is_one_table_over_all_nodes() {
    let fakes = cluster(3);
    prints(&fakes, &["set", "a", "1"], 0);
    fakes[2].set_mood(Mood::Hang);
    let table = prints(&fakes[..1], &["status"], 0);
    let rows: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0].join(" "), "id client peer role term commit applied log keys memory lag");
    let row = |number: usize, rest: &str| {
        let address = &fakes[number - 1].address;
        let expected = format!("n{number} {address} 127.0.0.1:400{number} {rest}");
        assert_eq!(rows[number].join(" "), expected, "{table}");
    };
    row(1, "leader 3 100 100 3.0 MiB 1 2.0 KiB 0");
    row(2, "follower 3 100 97 3.0 MiB 1 2.0 KiB 3");
    row(3, "unreachable - - - - - - -");
    let json = prints(&fakes[..1], &["status", "--output", "json"], 0);
    assert!(json.contains("\"lag\":3") && json.contains("\"role\":\"unreachable\""), "{json}");
    let members = prints(&fakes[..1], &["members"], 0);
    assert!(members.lines().nth(1).unwrap().ends_with("voter  leader"), "{members}");
}

/// Its data was lost, and it founded a cluster of its own at its old address: it
/// is neither a second leader nor ahead of anybody.
#[test]
fn a_node_of_another_cluster_is_named_and_compared_with_nobody() {
    let fakes = cluster(3);
    fakes[0].set_cluster(0xabc);
    let table = prints(&fakes[1..2], &["status"], 0);
    let lag = |number: usize| table.lines().nth(number).unwrap().split_whitespace().last().unwrap();
    assert_eq!([lag(1), lag(2), lag(3)], ["-", "3", "3"], "{table}");
    let warning = format!("warning: n1: belongs to another cluster ({:032x})\n", 0xabc);
    assert!(table.ends_with(&warning) && table.matches("warning").count() == 1, "{table}");
    let json = prints(&fakes[1..2], &["status", "--output", "json"], 0);
    assert!(json.contains("\"lag\":null"), "{json}");
    let ran = run(&fakes[1..2], &["runset"]);
    assert_eq!(ran.code, 4, "it is not the leader that is looked for: {ran:?}");
    // Who has yet to be taken in is no stranger.
    fakes[0].set_cluster(0);
    assert!(!prints(&fakes[1..2], &["status"], 0).contains("warning"));
}

#[test]
fn members_come_and_go() {
    let fakes = cluster(2);
    assert_eq!(prints(&fakes, &["join", "n9", "127.0.0.1:4009"], 0), "n9 joins\n");
    assert_eq!(prints(&fakes, &["leave", "n2"], 0), "n2 is removed\n");
    assert_eq!(prints(&fakes, &["transfer"], 0), "leadership is handed over\n");
    assert_eq!(prints(&fakes, &["transfer", "n2"], 0), "leadership is handed over\n");
}

fn ten_lines() -> String {
    (0..10).map(|number| format!("K_{number} = V_{number}\n")).collect()
}

/// The follower is asked to begin with; the leader is found all the same.
#[test]
fn ten_keys_through_the_leader_and_from_a_follower() {
    let fakes = cluster(3);
    let ran = run(&fakes[1..2], &["runset"]);
    assert_eq!((ran.code, ran.stdout), (0, ten_lines()));
    let leader = format!("written through the leader n1 at {}\n", fakes[0].address);
    assert_eq!(ran.stderr, leader);
    fakes[1].set_mood(Mood::Hang);
    let ran = run(&fakes[..1], &["runget"]);
    assert_eq!((ran.code, ran.stdout), (0, ten_lines()));
    assert_eq!(ran.stderr, format!("read from n3 at {}\n", fakes[2].address));
}

#[test]
fn ten_keys_on_a_node_alone() {
    let fakes = cluster(1);
    assert_eq!(prints(&fakes, &["runset"], 0), ten_lines());
    assert_eq!(prints(&fakes, &["runget"], 0), ten_lines());
}

#[test]
fn many_keys_are_written_and_verified() {
    let fakes = cluster(1);
    let many = ["--keys", "2345", "--value-bytes", "40"];
    let seeded = prints(&fakes, &[&["seed"], &many[..]].concat(), 0);
    assert!(seeded.starts_with("2345 keys written"), "{seeded}");
    assert!(prints(&fakes, &[&["read"], &many[..]].concat(), 0).starts_with("2345 keys verified"));
    // Whole, and not what is asked for.
    let shorter = prints(&fakes, &["read", "--keys", "2345", "--value-bytes", "39"], 1);
    assert!(shorter.contains("2345 wrong"), "{shorter}");
    prints(&fakes, &["set", "key:0000000007", "not what was written"], 0);
    prints(&fakes, &["del", "key:0000000008"], 0);
    let read = prints(&fakes, &[&["read"], &many[..]].concat(), 1);
    assert!(
        read.starts_with("2343 keys verified") && read.contains("1 missing, 1 wrong"),
        "{read}"
    );
}

const BENCH: [&str; 9] =
    ["bench", "--duration", "300ms", "--clients", "3", "--pipeline", "4", "--keys", "50"];

#[test]
fn bench_measures_and_draws() {
    let fakes = cluster(1);
    let ran = run(&fakes, &BENCH);
    assert_eq!(ran.code, 0, "{ran:?}");
    let header: Vec<_> = ran.stdout.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["ops/s", "min", "p50", "p99", "p99.9", "max"]);
    assert!(ran.stdout.contains("\nGET latency\n") && ran.stdout.contains('█'), "{ran:?}");
    assert!(!ran.stdout.contains("wrong"), "{ran:?}");
    assert_eq!(ran.stderr, "", "no bar without a terminal");
    let json = prints(&fakes, &[&BENCH[..], &["--output", "json"]].concat(), 0);
    assert!(json.contains("\"wrong\":0") && json.contains("\"p99.9_us\":"), "{json}");
}

/// Values that were not written by the bench are noticed.
#[test]
fn bench_verifies_what_it_reads() {
    let fakes = cluster(1);
    for number in 0..50 {
        let key = format!("key:{number:010}");
        prints(&fakes, &["set", &key, "something else"], 0);
    }
    let only_reads = ["--read-share", "1", "--no-prepare"];
    let printed = prints(&fakes, &[&BENCH[..], &only_reads].concat(), 1);
    assert!(printed.contains("wrong values: "), "{printed}");
}

#[test]
fn bench_counts_errors_by_kind() {
    let fakes = cluster(1);
    fakes[0].set_mood(Mood::Refuse(ErrorKind::Busy));
    let ran = run(&fakes, &[&BENCH[..], &["--read-share", "0"]].concat());
    assert_eq!(ran.code, 4, "nothing succeeded: {ran:?}");
    fakes[0].set_mood(Mood::Serve);
    prints(&fakes, &[&BENCH[..], &["--read-share", "0"]].concat(), 0);
}

#[test]
fn the_prompt_takes_the_same_commands() {
    let fakes = cluster(1);
    let home = tempfile::tempdir().unwrap();
    let mut command = command(&fakes[0].address, &[]);
    command.env("HOME", home.path());
    let ran = run_with(command, b"set a 'two words'\n\nget a\nhelp\nget no\nset \"\nquit\nget a\n");
    assert!(ran.stdout.contains("OK\n") && ran.stdout.contains("two words\n"), "{ran:?}");
    assert!(ran.stdout.contains("Remove a member for good"), "{ran:?}");
    assert!(ran.stderr.contains("no such key: no"), "{ran:?}");
    assert!(ran.stderr.contains("a quote is not closed"), "{ran:?}");
    assert_eq!(ran.code, 2, "that of the last command");
    let history = std::fs::read_to_string(home.path().join(".cachecli_history")).unwrap();
    assert!(history.contains("get a\n"), "{history}");
}
