//! On how many disks a write is, as whoever asks is told.

use std::time::Duration;

use raftcache::raft::NodeId;
use raftcache::request::{Answer, ErrorKind, Reply, Request};

use crate::cluster::{Cluster, id, third};
use crate::{error, is_stored, set};

/// So many disks besides the leader's, and that one.
fn durable(others: u32, ms: u64) -> Request {
    Request::AwaitDurable { others, own: true, within: Duration::from_millis(ms) }
}

fn holders(reply: &Reply) -> (i64, i64) {
    match reply {
        Reply::Answers(answers) => match answers[..] {
            [Answer::Integer(others), Answer::Integer(own)] => (others, own),
            _ => panic!("{answers:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn cut_off(cluster: &mut Cluster, node: NodeId) {
    for other in (1..=3).map(id).filter(|&other| other != node) {
        cluster.cut.extend([(node, other), (other, node)]);
    }
}

#[test]
fn those_who_are_cut_off_do_not_count_until_they_are_back() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    for through in 1..=3 {
        let away = (1..=3).map(id).find(|&node| node != leader && node != id(through)).unwrap();
        cut_off(&mut cluster, away);
        let write = cluster.ask(id(through), 1, set("k", "v"));
        let enough = cluster.ask(id(through), 1, durable(1, 1000));
        let asked_at = cluster.now().time;
        let all = cluster.ask(id(through), 1, durable(2, 200));
        assert!(is_stored(&cluster.wait_for(write)));
        assert_eq!(holders(&cluster.wait_for(enough)), (1, 1));
        assert!(cluster.now().time.since(asked_at) < Duration::from_millis(200));
        assert_eq!(holders(&cluster.wait_for(all)), (1, 1));
        assert!(cluster.now().time.since(asked_at) >= Duration::from_millis(200));
        let all = cluster.ask(id(through), 1, durable(2, 2000));
        cluster.run_ms(50);
        assert_eq!(cluster.reply(all), None);
        cluster.cut.clear();
        assert_eq!(holders(&cluster.wait_for(all)), (2, 1));
    }
}

/// What was sent before it in the same pipeline is counted, too: not only what is
/// committed already.
#[test]
fn a_write_on_its_way_counts() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    cut_off(&mut cluster, leader);
    cluster.ask(leader, 1, set("k", "v"));
    let asked = cluster.ask(leader, 1, durable(1, 100));
    assert_eq!(holders(&cluster.wait_for(asked)), (0, 1), "its own disk only");
}

#[test]
fn another_leader_counts_anew() {
    let mut cluster = Cluster::new(3);
    let old = cluster.leader().unwrap();
    let follower = cluster.follower();
    assert!(is_stored(&cluster.call(follower, 1, set("k", "v"))));
    let away = third(old, follower);
    cut_off(&mut cluster, away);
    assert!(is_stored(&cluster.call(follower, 1, set("k", "w"))));
    let [there, here] = [old, follower].map(|node| cluster.ask(node, 1, durable(2, 3000)));
    cluster.run_ms(50);
    // The one that counts is gone, and who was away takes part again.
    cluster.cut.clear();
    cut_off(&mut cluster, old);
    assert_eq!(error(&cluster.wait_for(there)).0, ErrorKind::NoLeader, "it finds nobody else");
    assert_eq!(holders(&cluster.wait_for(here)), (1, 1), "the new one and who follows it");
}

/// What is committed is on a majority of disks, and the leader's may be none of them.
#[test]
fn a_leaders_own_disk_is_counted_for_itself() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    cluster.stuck.insert(leader);
    assert!(is_stored(&cluster.call(leader, 1, set("k", "v"))));
    let [soon, late] = [20, 200].map(|ms| cluster.ask(leader, 1, durable(2, ms)));
    assert_eq!(holders(&cluster.wait_for(soon)), (2, 0));
    assert_eq!(cluster.reply(late), None);
    cluster.stuck.clear();
    assert_eq!(holders(&cluster.wait_for(late)), (2, 1));
}
