//! No turn is endless: what became ready at once is served bit by bit.

use raftcache::raft::{NodeId, ReadMode};
use raftcache::replica::Ticket;
use raftcache::request::{Answer, Batch, Command, Consistency, Key, Reply, Request};

use crate::cluster::Cluster;
use crate::{get, set, value};

type Asked = (NodeId, Ticket);

/// Reads of a thousand keys each, on connections of their own.
fn ask_large(cluster: &mut Cluster, node: NodeId, count: u64) -> Vec<Asked> {
    let get = Command::Get(Key::new("k"));
    let batch = Batch { guards: Vec::new(), commands: vec![get; 1000] };
    let (consistency, session) = (Consistency::Linearizable, None);
    let request = Request::Run { batch, consistency, session };
    (0..count).map(|connection| cluster.ask(node, 100 + connection, request.clone())).collect()
}

fn answered(cluster: &Cluster, asked: &[Asked]) -> usize {
    asked.iter().filter(|&&asked| cluster.reply(asked).is_some()).count()
}

/// [Thousands of reads wait for one word of the leader. When it comes, all are
/// served in one turn, and no heartbeat is answered meanwhile.]
#[test]
fn reads_that_get_leave_together_are_served_in_turns() {
    let mut cluster = Cluster::with_read_mode(3, ReadMode::ReadIndex);
    let node = cluster.follower();
    let asked = ask_large(&mut cluster, node, 60);
    let mut before = 0;
    while before < asked.len() {
        let all = asked.clone();
        cluster.run_until("more replies", |cluster| answered(cluster, &all) > before);
        let now = answered(&cluster, &asked);
        assert!(now - before <= 9, "{} reads of 1000 keys in one turn", now - before);
        before = now;
    }
    for asked in asked {
        assert!(matches!(cluster.reply(asked), Some(Reply::Answers(_))));
    }
}

/// [A thousand times a byte is added to a value of 16 MiB, and for seconds nobody
/// is heard, on any node.]
#[test]
fn what_is_much_work_is_applied_in_turns() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().expect("it leads");
    cluster.call(leader, 1, set("large", &"x".repeat(1 << 20)));
    cluster.run_ms(100);
    let byte = || Command::Append { key: Key::new("large"), value: "y".into() };
    let asked: Vec<Asked> = (0..20).map(|_| cluster.ask(leader, 1, Request::run(byte()))).collect();
    let applied = |cluster: &Cluster| -> Vec<u64> {
        cluster.nodes.values().map(|node| node.driver.replica().fsm().applied()).collect()
    };
    let mut before = applied(&cluster);
    while answered(&cluster, &asked) < asked.len() {
        cluster.run_ms(1);
        let now = applied(&cluster);
        let most = before.iter().zip(&now).map(|(before, now)| now - before).max();
        assert!(most <= Some(1), "{most:?} copies of a megabyte in one turn");
        before = now;
    }
    let Reply::Answers(answers) = cluster.wait_for(asked[19]) else { panic!("no answers") };
    assert_eq!(answers, [Answer::Integer((1 << 20) + 20)]);
}

/// A read whose turn has not come does not see the write behind it.
#[test]
fn a_read_in_line_is_served_before_the_write_behind_it() {
    let mut cluster = Cluster::with_read_mode(3, ReadMode::ReadIndex);
    let leader = cluster.leader().expect("it leads");
    cluster.call(leader, 1, set("own", "old"));
    let large = ask_large(&mut cluster, leader, 60);
    let read = cluster.ask(leader, 1, get("own"));
    cluster.run_ms(1);
    let write = cluster.ask(leader, 1, set("own", "new"));
    cluster.wait_for(write);
    assert!(answered(&cluster, &large) < 60, "the line was too short for this test");
    assert_eq!(value(&cluster.wait_for(read)).as_deref(), Some("old"));
}
