//! Snapshots among processes: the log stays short, a restart and a newcomer lose
//! nothing, whenever somebody is killed.

use bytes::Bytes;
use raftcache::client::Error;
use raftcache::request::{
    Answer, Batch, Command, Condition, Consistency, Expiry, Key, Reply, Request, SessionStamp, Ttl,
};

use super::many_nodes::{all_agree, random_below};
use crate::cluster::churn::{COMPACTING, Churn, Data};
use crate::cluster::load::Load;
use crate::cluster::{Cluster, User, eventually};

const WRITERS: usize = 4;

/// Overwritten so often that a snapshot is always under way.
const HOT: Data = Data { name: "hot", keys: 400, value_bytes: 600 };

/// Too much for the log to hold it all.
const MUCH: Data = Data { name: "much", keys: 20_000, value_bytes: 60 };

/// A snapshot of it takes some time on its way.
const LARGE: Data = Data { name: "large", keys: 480, value_bytes: 100_000 };

/// Overwritten twenty times, the data take no more of the disk than a few times
/// their size, and a restart finds all of them.
#[test]
fn the_log_stays_short_and_a_restart_finds_everything() {
    let mut cluster = Cluster::one(&COMPACTING);
    let mut user = cluster.user();
    MUCH.write(&mut user, 0);
    let mut most = 0;
    for round in 0..100 {
        HOT.write(&mut user, round);
        most = most.max(cluster.nodes[0].disk_bytes());
    }
    // 24 MB of log went by. Two snapshots, one under way, and the log since the
    // older one, which may grow as large as a snapshot before the next.
    let snapshot = cluster.nodes[0].snapshots().last().map_or(0, |(_, bytes)| *bytes);
    assert!(snapshot > 1_000_000, "{snapshot}");
    assert!(most < 7 * snapshot, "{most} bytes at most, a snapshot has {snapshot}");
    cluster.nodes[0].wait_compacted();
    let keys = user.status().expect("a status").keys;
    assert_eq!(keys, 20_400);
    for _ in 0..2 {
        let before = user.status().expect("a status");
        cluster.nodes[0].restart();
        cluster.wait_serving(0);
        MUCH.verify(&mut user, 0, Consistency::Linearizable);
        HOT.verify(&mut user, 99, Consistency::Linearizable);
        assert_eq!(user.status().expect("a status").keys, keys);
        assert!(user.status().expect("a status").applied >= before.applied);
        HOT.write(&mut user, 99);
    }
}

/// While all take snapshots all the time, one after the other is killed, and at
/// last all at once.
#[test]
fn kill_9_amid_snapshots_loses_nothing_acknowledged() {
    let flags = ["--segment-bytes", "65536", "--snapshot-log-bytes", "65536"];
    let mut cluster = Cluster::of(3, &flags);
    let load = Load::start(&cluster, "load", WRITERS);
    let churn = Churn::start(&cluster, HOT);
    for round in 0..10 {
        load.wait_for(20 + random_below(200));
        cluster.nodes[round % 3].restart();
    }
    load.wait_for(20 + random_below(200));
    cluster.nodes.iter_mut().for_each(|node| node.kill9());
    cluster.nodes.iter_mut().for_each(|node| node.start());
    churn.wait_for(10);
    churn.stop();
    let written = load.stop();
    HOT.write(&mut cluster.user(), 1000);
    all_agree(&cluster, &written);
    cluster.hashes_agree();
    for node in &cluster.nodes {
        HOT.verify(&mut node.user(), 1000, Consistency::Stale);
        let taken = node.log().matches(": takes a snapshot at").count();
        assert!(taken >= 10, "{} has taken {taken}", node.name);
    }
}

/// A follower that was away while the log it needs was compacted comes back by
/// snapshot, and a newcomer comes the same way and counts by itself. Writes go on.
#[test]
fn who_needs_what_is_compacted_comes_by_snapshot() {
    let mut cluster = Cluster::of(3, &COMPACTING);
    let follower = (cluster.wait_leader() + 1) % 3;
    cluster.nodes[follower].kill9();
    let mut user = cluster.user();
    MUCH.write(&mut user, 0);
    let load = Load::start(&cluster, "load", WRITERS);
    let churn = Churn::start(&cluster, HOT);
    // The leader still has the end of the log in memory: 16 MiB.
    churn.wait_for(80);
    cluster.wait_compacted();
    cluster.nodes[follower].start();
    cluster.nodes[follower].wait_restored();
    load.wait_for(100);
    let newcomer = cluster.add_joining();
    cluster.nodes[newcomer].start();
    cluster.wait_voter(newcomer);
    cluster.nodes[newcomer].wait_restored();
    load.wait_for(100);
    churn.stop();
    let written = load.stop();
    all_agree(&cluster, &written);
    cluster.hashes_agree();
    MUCH.verify(&mut cluster.nodes[newcomer].user(), 0, Consistency::Stale);
    MUCH.verify(&mut cluster.nodes[follower].user(), 0, Consistency::Stale);
    // What it was sent is what it starts from.
    cluster.nodes[newcomer].restart();
    cluster.wait_serving(newcomer);
    cluster.wait_caught_up();
    cluster.hashes_agree();
    written.verify(&mut cluster.nodes[newcomer].user(), Consistency::Stale);
}

/// Three nodes with much to send, and a newcomer that has got a part of it.
fn amid_a_transfer() -> (Cluster, Load, usize) {
    let mut cluster = Cluster::of(3, &COMPACTING);
    let mut user = cluster.user();
    for round in 0..2 {
        LARGE.write(&mut user, round);
    }
    // Log behind the snapshots, too, in which the beginning is gone.
    for round in 2.. {
        if cluster.nodes.iter().all(|node| node.is_compacted()) {
            break;
        }
        assert!(round < 10, "nothing is compacted");
        LARGE.write(&mut user, 1);
    }
    let newcomer = cluster.add_joining();
    let load = Load::start(&cluster, "load", WRITERS);
    cluster.nodes[newcomer].start();
    cluster.nodes[newcomer].wait_receiving();
    (cluster, load, newcomer)
}

fn all_is_well(cluster: &Cluster, load: Load, newcomer: usize) {
    cluster.wait_voter(newcomer);
    cluster.nodes[newcomer].wait_restored();
    load.wait_for(50);
    let written = load.stop();
    all_agree(cluster, &written);
    cluster.hashes_agree();
    LARGE.verify(&mut cluster.nodes[newcomer].user(), 1, Consistency::Stale);
}

#[test]
fn a_newcomer_is_killed_while_it_is_sent_a_snapshot() {
    let (mut cluster, load, newcomer) = amid_a_transfer();
    for _ in 0..3 {
        cluster.nodes[newcomer].kill9();
        load.wait_for(20);
        cluster.nodes[newcomer].start();
        cluster.nodes[newcomer].wait_receiving();
    }
    all_is_well(&cluster, load, newcomer);
}

#[test]
fn a_leader_is_killed_while_it_sends_a_snapshot() {
    let (mut cluster, load, newcomer) = amid_a_transfer();
    let (leader, _) = cluster
        .statuses()
        .into_iter()
        .find(|(_, status)| status.role == raftcache::request::RoleName::Leader)
        .expect("somebody leads");
    cluster.nodes[leader].kill9();
    // The others need nobody else.
    load.wait_for(20);
    cluster.wait_voter(newcomer);
    cluster.nodes[leader].start();
    all_is_well(&cluster, load, newcomer);
}

fn set_for(user: &mut User, key: &'static str, expiry: Expiry) {
    let set = user.ask(async |client| {
        client.set_with(Key::new(key), Bytes::from("value"), expiry, Condition::Always).await
    });
    set.expect("a write");
}

fn ttl(user: &mut User, key: &'static str) -> Ttl {
    eventually("a TTL", || {
        let ttl = user.ask(async |client| client.ttl(Key::new(key)).await);
        ttl.map_err(|error| error.to_string())
    })
}

/// Adds 1 to a counter, as a session's only write: sent again, it is the same one.
fn count_once(user: &mut User, session: u64) -> Result<Reply, Error> {
    let command = Command::Increment { key: Key::new("counter"), by: 1 };
    let request = Request::Run {
        batch: Batch::of(command),
        consistency: Consistency::Linearizable,
        session: Some(SessionStamp { session, sequence: 1 }),
    };
    user.ask(async |client| client.call(request).await)
}

/// Deadlines and sessions are part of the state: in the snapshot, on a node that
/// starts from it, on one that is sent it, and on that one when it leads.
#[test]
fn deadlines_and_sessions_are_in_a_snapshot() {
    let mut cluster = Cluster::of(3, &COMPACTING);
    let mut user = cluster.user();
    set_for(&mut user, "an hour", Expiry::AfterMs(3_600_000));
    set_for(&mut user, "a second", Expiry::AfterMs(1000));
    set_for(&mut user, "no end", Expiry::Never);
    let opened = user.ask(async |client| client.call(Request::OpenSession).await);
    let Ok(Reply::SessionOpened { session }) = opened else { panic!("{opened:?}") };
    let once = Ok(Reply::Answers(vec![Answer::Integer(1)]));
    assert_eq!(count_once(&mut user, session), once);
    let before = ttl(&mut user, "an hour");
    let compact = |cluster: &Cluster| {
        let before: Vec<_> = cluster.nodes.iter().map(|node| node.snapshots()).collect();
        let mut user = cluster.user();
        eventually("two snapshots more on every node", || {
            HOT.write(&mut user, 0);
            let after: Vec<_> = cluster.nodes.iter().map(|node| node.snapshots()).collect();
            let is_old = |(before, after): (&Vec<_>, &Vec<_>)| {
                after.len() < 2 || after.iter().any(|snapshot| before.contains(snapshot))
            };
            match before.iter().zip(&after).any(is_old) {
                true => Err(format!("{after:?}")),
                false => Ok(()),
            }
        });
    };
    compact(&cluster);
    let as_before = |user: &mut User| {
        assert_eq!(count_once(user, session), once, "it was executed before");
        assert_eq!(user.get("counter"), Ok(Some(Bytes::from("1"))));
        let now = ttl(user, "an hour");
        assert!(matches!((before, now), (Ttl::Ms(b), Ttl::Ms(n)) if n <= b && n > 1_000_000));
        assert_eq!(ttl(user, "no end"), Ttl::Never);
    };
    cluster.nodes.iter_mut().for_each(|node| node.kill9());
    cluster.nodes.iter_mut().for_each(|node| node.start());
    cluster.wait_leader();
    (0..3).for_each(|node| cluster.wait_serving(node));
    as_before(&mut cluster.user());
    compact(&cluster);

    let newcomer = cluster.add_joining();
    cluster.nodes[newcomer].start();
    cluster.wait_voter(newcomer);
    cluster.nodes[newcomer].wait_restored();
    as_before(&mut cluster.nodes[newcomer].user());
    cluster.hashes_agree();

    // As a leader it does what the one before would have done.
    let name = cluster.nodes[newcomer].name.clone();
    eventually("the newcomer leads", || {
        let name = Some(name.clone());
        let moved = cluster.user().ask(async |client| client.transfer(name).await);
        moved.map_err(|error| error.to_string())
    });
    let mut user = cluster.nodes[newcomer].user();
    cluster.wait_serving(newcomer);
    as_before(&mut user);
    eventually("a second is over", || match user.get("a second") {
        Ok(None) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // And after it is dead, too.
    cluster.nodes[newcomer].kill9();
    cluster.wait_leader();
    as_before(&mut cluster.nodes[0].user());
}
