//! One durable node: what it acknowledged it has, whatever ends it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use raftcache::client::Error;
use raftcache::request::{Condition, Consistency, ErrorKind, Expiry, Key, Ttl};

use crate::cluster::load::Load;
use crate::cluster::{Cluster, User, eventually};

const WRITERS: usize = 8;

/// Ten times the process is killed amid writes. The journal's files are small,
/// so that kills fall between them too.
#[test]
fn kill_9_loses_nothing_acknowledged() {
    let mut cluster = Cluster::one(&["--segment-bytes", "65536"]);
    let load = Load::start(&cluster, "load", WRITERS);
    for round in 0..10 {
        load.wait_for(100 + 37 * round);
        cluster.nodes[0].restart();
        cluster.wait_serving(0);
    }
    load.wait_for(100);
    let written = load.stop();
    let mut user = cluster.user();
    let found = written.verify(&mut user, Consistency::Linearizable);
    assert_eq!(found, written.verify(&mut user, Consistency::Stale));
    cluster.nodes[0].restart();
    cluster.wait_serving(0);
    assert_eq!(found, written.verify(&mut user, Consistency::Linearizable), "once more");
}

/// Asked to end, a node finishes what it has begun and says that all is well.
#[test]
fn sigterm_under_load_is_a_clean_end() {
    let mut cluster = Cluster::one(&[]);
    let load = Load::start(&cluster, "load", WRITERS);
    for _ in 0..3 {
        load.wait_for(200);
        let status = cluster.nodes[0].sigterm();
        assert!(status.success(), "{status}");
        cluster.nodes[0].start();
        cluster.wait_serving(0);
    }
    let written = load.stop();
    written.verify(&mut cluster.user(), Consistency::Linearizable);
}

/// A node that nobody talks to ends as cleanly.
#[test]
fn sigterm_at_rest_is_a_clean_end() {
    let mut cluster = Cluster::one(&[]);
    let idle = cluster.user().ask(async |client| client.ping().await);
    assert_eq!(idle, Ok(()));
    assert!(cluster.nodes[0].sigterm().success());
    assert!(cluster.nodes[0].log().contains("stopped"));
}

/// Writes a key that lives for a second; when it was surely gone. Log time may
/// be slower than ours by one part in 200 while it nears the wall clock.
fn set_for_a_second(user: &mut User, key: &str) -> Instant {
    let key = Key::new(key.to_owned());
    let set = user.ask(async |client| {
        let expiry = Expiry::AfterMs(1000);
        client.set_with(key, Bytes::from("short"), expiry, Condition::Always).await
    });
    set.expect("a write");
    Instant::now() + Duration::from_millis(1006)
}

/// Reads until the key is gone, and a while on: it must not come back. A read
/// that begins after the deadline must not see it.
fn is_gone_in_time(user: &mut User, key: &str, deadline: Instant) {
    eventually("the key is gone", || {
        let begun = Instant::now();
        match user.get(key).map_err(|error| error.to_string())? {
            None => Ok(()),
            Some(_) if begun > deadline => panic!("{key} is seen after its deadline"),
            Some(_) => Err("it is there".to_owned()),
        }
    });
    for _ in 0..20 {
        assert_eq!(user.get(key), Ok(None), "{key} came back");
    }
}

#[test]
fn nobody_sees_a_value_past_its_deadline() {
    let mut cluster = Cluster::one(&[]);
    let mut user = cluster.user();
    let deadline = set_for_a_second(&mut user, "a");
    is_gone_in_time(&mut user, "a", deadline);

    // The deadline is not counted anew after a restart,
    let deadline = set_for_a_second(&mut user, "b");
    cluster.nodes[0].restart();
    cluster.wait_serving(0);
    is_gone_in_time(&mut user, "b", deadline);

    // and passes while nobody is there to see to it.
    let deadline = set_for_a_second(&mut user, "c");
    cluster.nodes[0].kill9();
    eventually("the deadline", || match Instant::now() > deadline {
        true => Ok(()),
        false => Err("it is to come".to_owned()),
    });
    cluster.nodes[0].start();
    cluster.wait_serving(0);
    is_gone_in_time(&mut user, "c", deadline);
    assert_eq!(user.get("a"), Ok(None), "what was gone before the restart is gone after it");
}

/// A restart neither shortens nor lengthens the life of a key.
#[test]
fn a_deadline_outlives_a_restart() {
    let mut cluster = Cluster::one(&[]);
    let mut user = cluster.user();
    let key = || Key::new("a");
    let set = user.ask(async |client| {
        let expiry = Expiry::AfterMs(3_600_000);
        client.set_with(key(), Bytes::from("long"), expiry, Condition::Always).await
    });
    set.expect("a write");
    cluster.nodes[0].restart();
    cluster.wait_serving(0);
    let ttl = user.ask(async |client| client.ttl(key()).await);
    assert!(matches!(ttl, Ok(Ttl::Ms(1_000_000..=3_600_000))), "{ttl:?}");
}

/// At its limit a node refuses what makes the data larger, and nothing else.
#[test]
fn a_full_memory_takes_deletes_and_then_writes_again() {
    let cluster = Cluster::one(&["--max-memory-bytes", "4000000"]);
    let mut user = cluster.user();
    let value = Bytes::from(vec![b'x'; 100_000]);
    let mut stored = 0;
    let refused = loop {
        assert!(stored < 100, "the limit is not kept");
        match user.set(&format!("key {stored}"), value.clone()) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::Refused(ErrorKind::OutOfMemory, _)), "{refused:?}");
    assert!(stored > 10, "only {stored} of 100 kB within 4 MB");
    assert_eq!(user.get("key 0"), Ok(Some(value.clone())), "reads go on");
    for number in 0..5 {
        let key = Key::new(format!("key {number}"));
        assert_eq!(user.ask(async |client| client.delete(key).await), Ok(true));
    }
    user.set("key 0", value).expect("there is room");
    let status = user.status().expect("a status");
    assert!(status.memory_bytes <= status.memory_limit_bytes, "{status:?}");
}
