//! What no leader of ours would say today, but a core must survive: messages
//! made by hand, fed to one follower.

use raftcache::raft::message::Append;
use raftcache::raft::{
    Config, Entry, EntryId, Envelope, HardState, Index, Message, NodeId, Payload, Raft, Recovered,
    Term, Time,
};

use super::harness::{founding, n};

/// Follows in term 2, with these entries, all of term 1, on its disk.
fn follower(count: u64) -> Raft {
    let ids: Vec<NodeId> = (1..=3).map(n).collect();
    let entries = (1..=count).map(|index| entry(1, index)).collect();
    let hard_state = HardState { term: Term(2), vote: None, commit: Index(0) };
    let recovered = Recovered { hard_state, snapshot: Some(founding(&ids, &[])), entries };
    Raft::new(Config::new(n(1), 7), recovered, Time::ZERO)
}

fn entry(term: u64, index: u64) -> Entry {
    Entry { id: EntryId::new(term, index), payload: Payload::Noop }
}

fn append(prev: EntryId, entries: Vec<Entry>, commit: u64) -> Envelope {
    let append = Append { prev, entries, commit: Index(commit) };
    Envelope { from: n(2), to: n(1), term: Term(2), message: Message::Append(append) }
}

/// The leader has committed three entries, and shows that two of ours are among
/// them. Our third may be the left-over of an earlier leader.
#[test]
fn commits_no_further_than_what_was_verified() {
    let mut raft = follower(3);
    raft.receive(Time::ZERO, append(EntryId::new(1, 1), vec![entry(1, 2)], 3));
    assert_eq!(raft.commit(), Index(2));
    raft.receive(Time::ZERO, append(EntryId::new(1, 2), vec![entry(2, 3)], 3));
    assert_eq!((raft.commit(), raft.last()), (Index(3), EntryId::new(2, 3)));
}
