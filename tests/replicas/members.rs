//! Members come and go while nodes die and clients write.

use raftcache::raft::{NodeId, Recovered};
use raftcache::replica::Ticket;
use raftcache::request::{ErrorKind, Reply, Request};

use crate::cluster::{Cluster, id};
use crate::{error, get, increment, is_stored, members, set, value};

/// What was asked of the cluster, through whom.
type Asked = (NodeId, Ticket);

fn join(number: u128) -> Request {
    Request::Join { name: format!("node{number}"), peer_address: format!("peer{number}") }
}

fn leave(node: NodeId) -> Request {
    Request::Leave { name: format!("node{}", node.0) }
}

fn is_voter(cluster: &Cluster, node: NodeId) -> bool {
    cluster.leader().is_some_and(|leader| {
        cluster.nodes[&leader].driver.replica().raft().membership().is_voter(node)
    })
}

/// Asks again and again, of whoever runs, until it is so.
fn insist(cluster: &mut Cluster, request: &Request, is_so: impl Fn(&Cluster) -> bool) {
    for _ in 0..20 {
        cluster.run_until("a leader", |cluster| cluster.leader().is_some());
        if is_so(cluster) {
            return;
        }
        let leader = cluster.leader().unwrap();
        cluster.call(leader, 50, request.clone());
        cluster.run_ms(500);
    }
    panic!("{request:?} comes to nothing");
}

/// A node is about to join three others, or to leave them, and the request. Of
/// those that are left one can be missed, with the old members and the new ones.
fn about_to(change: &str) -> (Cluster, Request, NodeId) {
    let mut cluster = Cluster::new(if change == "join" { 3 } else { 4 });
    cluster.run_ms(100);
    match change {
        "join" => {
            cluster.start_newcomer(4);
            (cluster, join(4), id(4))
        }
        "leave" => {
            let follower = cluster.follower();
            (cluster, leave(follower), follower)
        }
        _ => {
            let leader = cluster.leader().unwrap();
            (cluster, leave(leader), leader)
        }
    }
}

/// A change takes several steps: entries are appended, spread, committed, others
/// follow. After each millisecond of it the leader dies. Those that are left go
/// on with the old members or the new ones, and asked again the change is made.
#[test]
fn a_leader_dies_at_every_moment_of_a_change() {
    for change in ["join", "leave", "leave of the leader"] {
        for moment in 0..150 {
            let (mut cluster, request, node) = about_to(change);
            let leader = cluster.leader().unwrap();
            let through = *cluster.nodes.keys().find(|&&n| n != leader && n != node).unwrap();
            cluster.ask(through, 1, request.clone());
            let before = cluster.ask(through, 2, set("before", "v"));
            cluster.run_ms(moment);
            let Some(dies) = cluster.leader() else { continue };
            let journal: Recovered = cluster.kill(dies);
            let what = format!("{change}, {moment} ms");
            cluster.run_until(&what, |cluster| cluster.leader().is_some());
            let reply = cluster.wait_for(before);
            let is_known = is_stored(&reply) || error(&reply).0 == ErrorKind::Unknown;
            assert!(is_known, "{what}: {reply:?}");
            assert!(is_stored(&cluster.call(through, 3, set("k", "v"))), "{what}");
            cluster.start(dies.0, journal);
            let joins = change == "join";
            insist(&mut cluster, &request, |cluster| is_voter(cluster, node) == joins);
            let all = if joins { 4 } else { 3 };
            assert_eq!(members(&mut cluster).split(' ').count(), all, "{what}");
            assert!(is_stored(&cluster.call(through, 4, set("k", "w"))), "{what}");
            assert_eq!(value(&cluster.call(through, 4, get("k"))).as_deref(), Some("w"), "{what}");
        }
    }
}

/// Increments through one node, one after the other, and how long the longest of
/// them took.
struct Writer {
    node: NodeId,
    asked: Option<(Asked, u64)>,
    done: i64,
    slowest_ms: u64,
}

impl Writer {
    fn at(node: NodeId) -> Self {
        Self { node, asked: None, done: 0, slowest_ms: 0 }
    }

    /// Works for a while.
    fn work(&mut self, cluster: &mut Cluster, millis: u64) {
        for _ in 0..millis {
            let now_ms = cluster.now_ms;
            let (asked, since) = *self
                .asked
                .get_or_insert_with(|| (cluster.ask(self.node, 1, increment("n")), now_ms));
            if let Some(reply) = cluster.replies.remove(&asked) {
                assert!(!matches!(reply, Reply::Error(..)), "{reply:?}");
                self.done += 1;
                self.slowest_ms = self.slowest_ms.max(cluster.now_ms - since);
                self.asked = None;
            }
            cluster.run_ms(1);
        }
    }
}

/// Two of three are needed, and two run. The newcomer would make it three of
/// four; until it can do its part it must not count, and if it dies nobody waits.
#[test]
fn a_newcomer_holds_up_nobody_while_a_voter_is_down() {
    for newcomer_dies in [true, false] {
        let mut cluster = Cluster::new(3);
        let dead = cluster.follower();
        let journal = cluster.kill(dead);
        let leader = cluster.leader().unwrap();
        cluster.snapshot_log_bytes = u64::MAX;
        cluster.run_ms(1000);
        let mut writer = Writer::at(leader);
        writer.work(&mut cluster, 200);
        cluster.start_newcomer(4);
        // It does not get far: nothing it is sent becomes durable.
        cluster.stuck.insert(id(4));
        let joining = cluster.ask(leader, 2, join(4));
        writer.work(&mut cluster, 1000);
        assert!(!is_voter(&cluster, id(4)), "it has nothing on its disk");
        assert!(writer.slowest_ms < 100, "somebody waited {} ms", writer.slowest_ms);
        cluster.stuck.clear();
        if newcomer_dies {
            cluster.kill(id(4));
            writer.work(&mut cluster, 2000);
            assert!(!is_voter(&cluster, id(4)), "it is dead");
        } else {
            writer.work(&mut cluster, 1000);
            assert!(is_voter(&cluster, id(4)), "it has caught up");
            assert_eq!(cluster.wait_for(joining), Reply::Done);
        }
        assert!(writer.slowest_ms < 100, "somebody waited {} ms", writer.slowest_ms);
        assert!(writer.done > 100, "{}", writer.done);
        cluster.start(dead.0, journal);
        cluster.run_ms(500);
        let through = *cluster.nodes.keys().find(|&&node| node != leader).unwrap();
        cluster.run_until("its end", |cluster| {
            writer.asked.is_none_or(|(asked, _)| cluster.replies.contains_key(&asked))
        });
        let total = writer.done + i64::from(writer.asked.is_some());
        assert_eq!(value(&cluster.call(through, 5, get("n"))), Some(total.to_string()));
    }
}

/// The leader is asked to leave amid writes; then the next one. What was asked
/// of the others takes effect, each once.
#[test]
fn leaders_leave_one_after_the_other_amid_writes() {
    let mut cluster = Cluster::new(4);
    cluster.run_ms(100);
    let mut asked = Vec::new();
    for left in [3, 2] {
        let leader = cluster.leader().unwrap();
        let others: Vec<NodeId> =
            cluster.nodes.keys().copied().filter(|&node| node != leader).collect();
        let leaving = cluster.ask(others[0], 90, leave(leader));
        for round in 0..500 {
            for &node in &others {
                asked.push(cluster.ask(node, node.0 as u64, increment("n")));
            }
            if round % 2 == 0 {
                cluster.run_ms(1);
            }
        }
        assert_eq!(cluster.wait_for(leaving), Reply::Done);
        cluster.run_until("its end", |cluster| cluster.nodes[&leader].removed);
        assert_eq!(members(&mut cluster).split(' ').count(), left);
        for asked in asked.iter().filter(|(node, _)| others.contains(node)) {
            cluster.run_until("an answer", |cluster| cluster.replies.contains_key(asked));
        }
        cluster.kill(leader);
    }
    for asked in &asked {
        let reply = cluster.wait_for(*asked);
        assert!(!matches!(reply, Reply::Error(..)), "{reply:?}");
    }
    let one = *cluster.nodes.keys().next().unwrap();
    let total = asked.len().to_string();
    assert_eq!(value(&cluster.call(one, 91, get("n"))), Some(total));
}

/// It was cut off when it was removed, so it has not heard. It asks for votes for
/// ever; the others have a leader, and keep it.
#[test]
fn who_does_not_know_of_its_removal_disturbs_nobody() {
    let mut cluster = Cluster::new(3);
    cluster.run_ms(100);
    let leader = cluster.leader().unwrap();
    let out = cluster.follower();
    for node in 1..=3 {
        cluster.cut.insert((id(node), out));
    }
    // It is heard, so that it counts as alive when its removal is judged.
    let other = *cluster.nodes.keys().find(|&&node| node != leader && node != out).unwrap();
    assert_eq!(cluster.call(leader, 1, leave(out)), Reply::Done);
    let term = cluster.nodes[&leader].driver.replica().raft().term();
    let mut writer = Writer::at(other);
    writer.work(&mut cluster, 10_000);
    assert!(writer.slowest_ms < 100, "somebody waited {} ms", writer.slowest_ms);
    assert_eq!(cluster.leader(), Some(leader));
    assert_eq!(cluster.nodes[&leader].driver.replica().raft().term(), term);
    assert!(!cluster.nodes[&out].removed, "how could it know");
    // Long after, it is heard again, and does no harm either.
    cluster.cut.clear();
    writer.work(&mut cluster, 3000);
    assert_eq!(cluster.leader(), Some(leader));
    assert!(writer.slowest_ms < 100, "somebody waited {} ms", writer.slowest_ms);
}
