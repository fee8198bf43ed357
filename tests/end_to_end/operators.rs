//! What people who run Redis type when something is not as it should be.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Node, eventually};
use crate::resp::{Reply, Wire};

/// A connection that has begun to speak RESP.
fn wire(node: &Node) -> Wire {
    let mut wire = Wire::to(&node.address);
    says(&mut wire, "PING", "+PONG");
    wire
}

/// Words with spaces between them.
fn ask(wire: &mut Wire, words: &str) -> String {
    wire.ask(&words.split(' ').collect::<Vec<_>>()).text().replace("\\'", "'")
}

#[track_caller]
fn says(wire: &mut Wire, words: &str, reply: &str) {
    assert_eq!(ask(wire, words), reply, "to {words}");
}

/// Waits until clients have sent all of this.
fn until_listed(operator: &mut Wire, commands: &[&str]) {
    eventually("clients have sent it", || {
        let list = ask(operator, "CLIENT LIST");
        let is_there = commands.iter().all(|command| list.contains(command));
        if is_there { Ok(()) } else { Err(list) }
    });
}

fn many(reply: Reply) -> Vec<Reply> {
    match reply {
        Reply::Many(_, replies) => replies,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_is_ended() {
    let cluster = Cluster::one(&[]);
    let [mut operator, mut client] = [(); 2].map(|()| wire(&cluster.nodes[0]));
    says(&mut client, "CLIENT SETNAME stray", "+OK");
    let id = client.ask(&["CLIENT", "ID"]).integer().expect("a number");
    says(&mut operator, "CLIENT KILL ID 999999", ":0");
    says(&mut operator, &format!("CLIENT KILL ID {id} TYPE replica"), ":0");
    // Whoever looks next does not see it any more.
    let kill = format!("CLIENT KILL ID {id} TYPE normal USER default\r\nCLIENT LIST\r\n");
    operator.send(kill.as_bytes());
    assert_eq!(operator.receive().text(), ":1");
    let list = operator.receive().text();
    assert!(!list.contains("stray") && list.contains("cmd=client|list"), "{list}");
    assert!(client.has_ended());
    // Everybody but itself; then itself, once it has been told.
    let mut others = [(); 3].map(|()| wire(&cluster.nodes[0]));
    others.iter_mut().for_each(|other| says(other, "PING", "+PONG"));
    says(&mut operator, "CLIENT KILL TYPE normal", ":3");
    assert!(others.iter_mut().all(Wire::has_ended));
    says(&mut operator, "CLIENT KILL SKIPME no TYPE normal", ":1");
    assert!(operator.has_ended());
    // In a transaction, too: what is behind that is not taken.
    let mut operator = wire(&cluster.nodes[0]);
    let id = operator.ask(&["CLIENT", "ID"]).integer().expect("a number");
    says(&mut operator, "MULTI", "+OK");
    says(&mut operator, &format!("CLIENT KILL ID {id} SKIPME no"), "+QUEUED");
    operator.send(b"EXEC\r\nSET late v\r\n");
    assert_eq!(operator.receive().text(), "*[:1]");
    assert!(operator.has_ended());
    says(&mut wire(&cluster.nodes[0]), "GET late", "$-1");
    for (wrong, why) in [
        ("CLIENT KILL 1.2.3.4:5", "-ERR No such client"),
        ("CLIENT KILL ID 0", "-ERR client-id should be greater than 0"),
        ("CLIENT KILL TYPE strange", "-ERR Unknown client type 'strange'"),
        ("CLIENT KILL USER nobody", "-ERR No such user 'nobody'"),
        ("CLIENT KILL SKIPME maybe", "-ERR syntax error"),
        ("CLIENT KILL ID 1 ADDR", "-ERR syntax error"),
    ] {
        says(&mut wire(&cluster.nodes[0]), wrong, why);
    }
}

#[test]
fn clients_wait_as_long_as_they_are_told_to() {
    let cluster = Cluster::of(3, &[]);
    let leader = cluster.wait_leader();
    let node = &cluster.nodes[(leader + 1) % 3];
    let [mut operator, mut writer, mut reader] = [(); 3].map(|()| wire(node));
    // Where nobody is told to wait.
    let mut elsewhere = wire(&cluster.nodes[leader]);
    says(&mut writer, "SET k before", "+OK");
    says(&mut operator, "CLIENT PAUSE 86400000 WRITE", "+OK");
    writer.send(b"SET k after\r\nGET k\r\n");
    until_listed(&mut operator, &["cmd=set"]);
    for _ in 0..20 {
        says(&mut reader, "GET k", "$before");
    }
    // A milder or a shorter one changes nothing; a stricter one holds reads, too.
    says(&mut operator, "CLIENT PAUSE 1", "+OK");
    reader.send(b"GET k\r\n");
    // What is no request of a key is answered.
    says(&mut operator, "DEBUG SLEEP 0.05", "+OK");
    says(&mut elsewhere, "GET k", "$before");
    says(&mut operator, "CLIENT UNPAUSE", "+OK");
    assert_eq!([writer.receive().text(), writer.receive().text()], ["+OK", "$after"]);
    assert!(reader.receive().text().starts_with('$'));
    // It ends by itself.
    let begun = Instant::now();
    says(&mut operator, "CLIENT PAUSE 200", "+OK");
    says(&mut reader, "GET k", "$after");
    assert!(begun.elapsed() >= Duration::from_millis(200));
    for (wrong, why) in [
        ("CLIENT PAUSE x", "-ERR timeout is not an integer or out of range"),
        ("CLIENT PAUSE -1", "-ERR timeout is negative"),
        ("CLIENT PAUSE 1 SOME", "-ERR CLIENT PAUSE mode must be WRITE or ALL"),
    ] {
        says(&mut operator, wrong, why);
    }
}

/// [Who pauses all and asks in transactions, as many libraries do, could not unpause.]
#[test]
fn what_is_about_the_node_is_answered_in_a_pause() {
    let cluster = Cluster::one(&[]);
    let mut operator = wire(&cluster.nodes[0]);
    says(&mut operator, "CLIENT PAUSE 86400000", "+OK");
    assert!(ask(&mut operator, "INFO keyspace").contains("# Keyspace"));
    says(&mut operator, "DBSIZE", ":0");
    says(&mut operator, "MULTI", "+OK");
    says(&mut operator, "CLIENT UNPAUSE", "+QUEUED");
    says(&mut operator, "EXEC", "*[+OK]");
    says(&mut operator, "SET k v", "+OK");
}

/// [Connections of clients that had given up long ago took every place.]
#[test]
fn who_leaves_while_it_waits_is_noticed() {
    let cluster = Cluster::of(3, &[]);
    let leader = cluster.wait_leader();
    let [follower, other] = [1, 2].map(|step| (leader + step) % 3);
    let mut operator = wire(&cluster.nodes[follower]);
    cluster.nodes[other].pause();
    says(&mut operator, "SET k v", "+OK");
    let [mut waits, mut sleeps, mut held] = [(); 3].map(|()| wire(&cluster.nodes[follower]));
    waits.send(b"WAIT 2 0\r\n");
    sleeps.send(b"DEBUG SLEEP 3600\r\n");
    says(&mut operator, "CLIENT PAUSE 86400000 WRITE", "+OK");
    // Behind it there is more that nobody reads.
    held.send(b"SET k w\r\nPING\r\n");
    until_listed(&mut operator, &["cmd=wait", "cmd=debug|sleep", "cmd=set"]);
    let blocked = |operator: &mut Wire, clients: u32| {
        let info = ask(operator, "INFO clients");
        assert!(info.contains(&format!("blocked_clients:{clients}\\r")), "{info}");
    };
    blocked(&mut operator, 3);
    drop((waits, sleeps, held));
    eventually("they are gone", || {
        let list = ask(&mut operator, "CLIENT LIST");
        if list.matches("id=").count() == 1 { Ok(()) } else { Err(list) }
    });
    blocked(&mut operator, 0);
    says(&mut operator, "CLIENT UNPAUSE", "+OK");
    says(&mut operator, "GET k", "$v");
    cluster.nodes[other].resume();
}

/// A node that is told to stop waits for no sleeper, and for no disk.
#[test]
fn who_sleeps_or_waits_is_let_go_with_the_node() {
    let mut cluster = Cluster::one(&[]);
    let [mut sleeps, mut waits, mut operator] = [(); 3].map(|()| wire(&cluster.nodes[0]));
    sleeps.send(b"DEBUG SLEEP 3600\r\n");
    waits.send(b"WAIT 1 0\r\n");
    until_listed(&mut operator, &["cmd=wait", "cmd=debug|sleep"]);
    assert!(cluster.nodes[0].sigterm().success());
    assert_eq!(sleeps.receive().text(), "+OK");
    assert!(waits.has_ended());
}

/// A node that is told to stop waits for no pause.
#[test]
fn a_pause_ends_with_the_node() {
    let mut cluster = Cluster::one(&[]);
    let [mut operator, mut writer] = [(); 2].map(|()| wire(&cluster.nodes[0]));
    says(&mut operator, "CLIENT PAUSE 86400000", "+OK");
    writer.send(b"SET k v\r\n");
    until_listed(&mut operator, &["cmd=set"]);
    assert!(cluster.nodes[0].sigterm().success());
    assert_eq!(writer.receive().text(), "-CLUSTERDOWN this node is stopping, not applied");
}

#[test]
fn what_took_long_is_told() {
    let cluster = Cluster::one(&[]);
    let mut operator = wire(&cluster.nodes[0]);
    says(&mut operator, "CONFIG GET slowlog-log-slower-than", "*[$slowlog-log-slower-than $10000]");
    says(&mut operator, "CONFIG SET slowlog-log-slower-than 0 slowlog-max-len 3", "+OK");
    says(&mut operator, "CLIENT SETNAME watcher", "+OK");
    for number in 0..5 {
        says(&mut operator, &format!("SET key{number} value"), "+OK");
    }
    let long = "x".repeat(200);
    let many_words = ["DEL"].into_iter().chain([long.as_str()].into_iter().cycle().take(40));
    assert_eq!(operator.ask(&many_words.collect::<Vec<_>>()).text(), ":0");
    says(&mut operator, "SLOWLOG LEN", ":3");
    let entries = many(operator.ask(&["SLOWLOG", "GET", "-1"]));
    let newest = many(entries[0].clone());
    let words = many(newest[3].clone());
    assert_eq!(words.len(), 32);
    assert_eq!(words[1].text(), format!("${}... (72 more bytes)", "x".repeat(128)));
    assert_eq!(words[31].text(), "$... (10 more arguments)");
    assert_eq!(newest[5].text(), "$watcher");
    let ids: Vec<_> = entries.into_iter().map(|entry| many(entry)[0].integer()).collect();
    assert_eq!(ids, [Some(5), Some(4), Some(3)]);
    says(&mut operator, "CONFIG SET slowlog-log-slower-than -1", "+OK");
    says(&mut operator, "SLOWLOG RESET", "+OK");
    says(&mut operator, "SET key value", "+OK");
    says(&mut operator, "SLOWLOG GET", "*[]");

    says(&mut operator, "LATENCY LATEST", "*[]");
    says(&mut operator, "CONFIG SET latency-monitor-threshold 1", "+OK");
    let large = "x".repeat(8 << 20);
    eventually("a large value takes a millisecond", || {
        assert_eq!(operator.ask(&["SET", "large", &large]).text(), "+OK");
        let latest = ask(&mut operator, "LATENCY LATEST");
        if latest.contains("$command") { Ok(()) } else { Err(latest) }
    });
    assert_ne!(ask(&mut operator, "LATENCY HISTORY command"), "*[]");
    says(&mut operator, "LATENCY HISTORY nothing", "*[]");
    let advice = ask(&mut operator, "LATENCY DOCTOR");
    assert!(advice.contains("command: in "), "{advice}");
    says(&mut operator, "CONFIG SET latency-monitor-threshold 0", "+OK");
    says(&mut operator, "LATENCY RESET nothing", ":0");
    assert!(operator.ask(&["LATENCY", "RESET"]).integer() >= Some(1));
    says(&mut operator, "LATENCY LATEST", "*[]");
    for (wrong, why) in [
        ("slowlog-max-len x", "be parsed into an integer"),
        ("slowlog-max-len -1", "argument must be between 0 and 1024 inclusive"),
        ("slowlog-log-slower-than -2", "argument must be between -1 and"),
    ] {
        let reply = ask(&mut operator, &format!("CONFIG SET {wrong}"));
        assert!(reply.starts_with("-ERR CONFIG SET failed") && reply.contains(why), "{reply}");
    }
}

#[test]
fn wait_counts_disks() {
    let cluster = Cluster::of(3, &[]);
    let leader = cluster.wait_leader();
    let [follower, other] = [1, 2].map(|step| (leader + step) % 3);
    for through in [leader, follower] {
        let mut client = wire(&cluster.nodes[through]);
        let at_once = client.ask(&["WAIT", "0", "0"]).integer();
        assert!((Some(0)..=Some(2)).contains(&at_once), "{at_once:?}");
        says(&mut client, "SET k v", "+OK");
        says(&mut client, "WAIT 2 0", ":2");
        says(&mut client, "WAITAOF 1 2 0", "*[:1 :2]");
        cluster.nodes[other].pause();
        says(&mut client, "SET k w", "+OK");
        says(&mut client, "WAIT 1 0", ":1");
        says(&mut client, "WAIT 2 50", ":1");
        says(&mut client, "WAITAOF 1 2 50", "*[:1 :1]");
        // In one pipeline, longer than any other request may wait.
        client.send(b"SET k x\r\nWAIT 2 0\r\nGET k\r\n");
        assert_eq!(client.receive().text(), "+OK");
        cluster.nodes[other].resume();
        assert_eq!([client.receive().text(), client.receive().text()], [":2", "$x"]);
        for (wrong, why) in [
            ("WAIT x 0", "-ERR value is not an integer or out of range"),
            ("WAIT 1 -1", "-ERR timeout is negative"),
            ("WAITAOF 2 0 0", "-ERR value is out of range, value must between 0 and 1"),
            ("WAITAOF 0 -1 0", "-ERR value is out of range, must be positive"),
        ] {
            says(&mut client, wrong, why);
        }
    }
}

#[test]
fn a_connection_sleeps_and_nobody_else() {
    let cluster = Cluster::one(&[]);
    let [mut sleeper, mut other] = [(); 2].map(|()| wire(&cluster.nodes[0]));
    let begun = Instant::now();
    sleeper.send(b"DEBUG SLEEP 0.3\r\nSET k v\r\n");
    until_listed(&mut other, &["cmd=debug|sleep"]);
    assert_eq!([sleeper.receive().text(), sleeper.receive().text()], ["+OK", "+OK"]);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    says(&mut other, "DEBUG SLEEP x", "-ERR DEBUG SLEEP takes 0 to 3600 seconds");
    says(&mut other, "DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
    says(&mut other, "DEBUG LOG \u{1b}[31mhello", "+OK");
    assert!(cluster.nodes[0].log().contains("DEBUG LOG: \\x1b[31mhello"));
    says(&mut other, "DEBUG JMAP", "-ERR unknown subcommand 'JMAP'. Try DEBUG HELP.");
    says(&mut other, "CLUSTER INFO", "-ERR This instance has cluster support disabled");
    says(&mut other, "FUNCTION FLUSH", "+OK");
    let help = ask(&mut other, "OBJECT HELP");
    assert!(help.contains("+FREQ +    Says how often"), "{help}");
}

#[test]
fn how_a_key_is_used_is_told_where_that_counts() {
    let cluster = Cluster::one(&[]);
    let mut client = wire(&cluster.nodes[0]);
    says(&mut client, "SET k v", "+OK");
    for asked in ["OBJECT FREQ k", "OBJECT IDLETIME k"] {
        let reply = ask(&mut client, asked);
        assert!(reply.contains("policy is not selected"), "{reply}");
    }
    says(&mut client, "CONFIG SET maxmemory-policy allkeys-lfu", "+OK");
    for _ in 0..50 {
        says(&mut client, "GET k", "$v");
    }
    let often = client.ask(&["OBJECT", "FREQ", "k"]).integer();
    assert!((Some(6)..Some(50)).contains(&often), "{often:?}");
    assert_eq!(client.ask(&["OBJECT", "FREQ", "k"]).integer(), often, "to ask is not to use");
    says(&mut client, "OBJECT FREQ nothing", "$-1");
    assert!(ask(&mut client, "OBJECT IDLETIME k").contains("LFU maxmemory policy is selected"));
    says(&mut client, "CONFIG SET maxmemory-policy allkeys-lru", "+OK");
    let begun = Instant::now();
    says(&mut client, "GET k", "$v");
    let idle = client.ask(&["OBJECT", "IDLETIME", "k"]).integer().expect("a number");
    assert!(idle <= begun.elapsed().as_secs() as i64, "{idle}");
    says(&mut client, "OBJECT IDLETIME nothing", "$-1");
    // Asking all the time does not count.
    eventually("it is idle", || match client.ask(&["OBJECT", "IDLETIME", "k"]).integer() {
        Some(1..) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// What is about the node is done when the rest is, or not at all.
#[test]
fn the_node_may_be_asked_within_a_transaction() {
    let cluster = Cluster::one(&[]);
    let mut client = wire(&cluster.nodes[0]);
    let queue = |client: &mut Wire, commands: &[&str]| {
        says(client, "MULTI", "+OK");
        commands.iter().for_each(|command| says(client, command, "+QUEUED"));
    };
    queue(&mut client, &["CONFIG SET slowlog-max-len 7", "CLIENT SETINFO lib-name never"]);
    says(&mut client, "DISCARD", "+OK");
    says(&mut client, "CONFIG GET slowlog-max-len", "*[$slowlog-max-len $128]");
    assert!(!ask(&mut client, "CLIENT INFO").contains("never"));

    let commands = [
        "SET k v",
        "CONFIG SET slowlog-max-len 7",
        "CONFIG GET slowlog-max-len",
        "CONFIG SET slowlog-max-len x",
        "TIME",
        "INFO keyspace",
        "ROLE",
        "CLIENT SETINFO lib-name some",
        "GET k",
    ];
    queue(&mut client, &commands);
    let replies: Vec<_> = many(client.ask(&["EXEC"])).iter().map(Reply::text).collect();
    assert_eq!(replies[..3], ["+OK", "+OK", "*[$slowlog-max-len $7]"]);
    assert!(replies[3].starts_with("-ERR CONFIG SET failed"), "{replies:?}");
    assert!(replies[4].starts_with("*[$1"), "{replies:?}");
    assert_eq!(replies[5], "$# Keyspace\\r\\ndb0:keys=1,expires=0,avg_ttl=0\\r\\n");
    assert!(replies[6].starts_with("*[$master "), "{replies:?}");
    assert_eq!(replies[7..], ["+OK", "$v"]);
    assert!(ask(&mut client, "CLIENT INFO").contains("lib-name=some"));
    // Not what would have to wait.
    says(&mut client, "MULTI", "+OK");
    says(&mut client, "WAIT 1 0", "-ERR Command not allowed inside a transaction");
    says(&mut client, "EXEC", "-EXECABORT Transaction discarded because of previous errors.");
}

#[test]
fn values_are_compared_by_digest() {
    let cluster = Cluster::one(&[]);
    let mut client = wire(&cluster.nodes[0]);
    says(&mut client, "SET k value", "+OK");
    let digest = ask(&mut client, "DIGEST k").replace('$', "");
    says(&mut client, &format!("SET k other IFDNE {digest}"), "$-1");
    says(&mut client, &format!("SET k other IFDEQ {digest} GET"), "$value");
    says(&mut client, &format!("DELEX k IFDEQ {digest}"), ":0");
    says(&mut client, "DELEX k IFNE other", ":0");
    says(&mut client, "SET absent v IFNE v", "+OK");
    says(&mut client, "DELEX absent IFEQ v", ":1");
    says(&mut client, "DELEX absent IFNE v", ":0");
    says(&mut client, "MSETEX 2 k 1 new 2 XX", ":0");
    says(&mut client, "MSETEX 2 k 1 new 2 EX 100", ":1");
    says(&mut client, "MGET k new", "*[$1 $2]");
    says(&mut client, "TTL new", ":100");
    says(&mut client, "COMMAND GETKEYS MSETEX 2 k 1 new 2 NX", "*[$k $new]");
    for (wrong, why) in [
        ("DELEX k IFDEQ 123", "-ERR digest must be exactly 16 hexadecimal characters"),
        ("DELEX k IF v", "-ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE"),
        ("DELEX k IFEQ", "-ERR wrong number of arguments for 'delex' command"),
        ("MSETEX 0 k v", "-ERR invalid numkeys value"),
        ("MSETEX 1 k v PX 9223372036854775807", "-ERR invalid expire time in 'msetex' command"),
        ("MSETEX 2 k v", "-ERR wrong number of arguments for 'msetex' command"),
        ("MSETEX 1 k v IFEQ w", "-ERR syntax error"),
    ] {
        says(&mut client, wrong, why);
    }
}
