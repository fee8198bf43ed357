//! A disk without room.

use bytes::Bytes;
use raftcache::client::Error;
use raftcache::request::{Consistency, ErrorKind, RoleName};

use crate::cluster::churn::{COMPACTING, Data};
use crate::cluster::disk::is_permitted;
use crate::cluster::{Cluster, Node, eventually};

/// So large is the disk.
const DISK: &str = "8m";

const SOME: Data = Data { name: "some", keys: 2000, value_bytes: 200 };

/// Counts on until there is no room; returns what was acknowledged last.
fn until_refused(cluster: &Cluster, mut count: u64) -> u64 {
    let mut user = cluster.user();
    eventually("a write is refused", || {
        for _ in 0..200 {
            match user.set("count", Bytes::from(format!("{:0>2000}", count + 1))) {
                Ok(_) => count += 1,
                Err(Error::Refused(ErrorKind::DiskFull, _)) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
        Err(format!("{count} were taken"))
    });
    count
}

fn count(node: &Node, consistency: Consistency) -> u64 {
    let item = node.user().ask(async |client| {
        client.get_with(raftcache::request::Key::new("count"), consistency).await
    });
    let value = item.expect("reads go on").map_or(Bytes::from("0"), |item| item.value);
    String::from_utf8_lossy(&value).parse().expect("a number")
}

/// Writes are refused in so many words, reads go on, and when there is room
/// again so do writes, without anybody's help.
#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    if !is_permitted() {
        return;
    }
    let mut cluster = Cluster::on_disks(&[Some(DISK)], &COMPACTING);
    let mut user = cluster.user();
    SOME.write(&mut user, 1);
    let mut written = 0;
    for round in 0..2 {
        cluster.nodes[0].disk().fill();
        written = until_refused(&cluster, written);
        for _ in 0..3 {
            let error = user.set("another", "value").expect_err("there is no room");
            assert!(error.to_string().contains("disk full"), "{error}");
            assert_eq!(count(&cluster.nodes[0], Consistency::Linearizable), written);
            SOME.verify(&mut user, 1, Consistency::Linearizable);
        }
        let status = user.status().expect("a status");
        assert!(status.warnings.iter().any(|warning| warning.contains("disk")), "{status:?}");
        cluster.nodes[0].disk().make_room();
        eventually("writes are taken again", || {
            user.set("after", format!("{round}")).map_err(|error| error.to_string())
        });
        let status = user.status().expect("a status");
        assert!(status.warnings.is_empty(), "{status:?}");
    }
    assert!(cluster.nodes[0].sigterm().success());
}

/// One of three disks is full. If it is that of the leader another one leads;
/// in any case writes go on, and the node has everything when it has room.
#[test]
fn one_full_disk_of_three_does_not_stop_the_others() {
    if !is_permitted() {
        return;
    }
    let cluster = Cluster::on_disks(&[Some(DISK), None, None], &COMPACTING);
    SOME.write(&mut cluster.user(), 1);
    let status = cluster.nodes[0].user().status().expect("a status");
    assert_eq!(status.role, RoleName::Leader);
    cluster.nodes[0].disk().fill();
    eventually("another one leads", || {
        let _ = cluster.user().set("count", Bytes::from("1".repeat(2000)));
        let leads = |status: &raftcache::request::Status| status.role == RoleName::Leader;
        match cluster.statuses().iter().find(|(_, status)| leads(status)) {
            Some((number, _)) if *number != 0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let mut user = cluster.user_from(1);
    for round in 2..5 {
        SOME.write(&mut user, round);
    }
    SOME.verify(&mut cluster.nodes[0].user(), 4, Consistency::Linearizable);
    cluster.nodes[0].disk().make_room();
    cluster.wait_caught_up();
    SOME.write(&mut user, 5);
    cluster.wait_caught_up();
    cluster.hashes_agree();
}
