//! No turn is endless: what became ready at once is served bit by bit.

use raftcache::raft::{NodeId, ReadMode};
use raftcache::replica::Ticket;
use raftcache::request::{Batch, Command, Consistency, Key, Reply, Request};

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
