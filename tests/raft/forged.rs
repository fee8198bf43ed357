//! What no leader of ours would say today, but a core must survive: messages
//! made by hand, fed to one follower.

use raftcache::raft::message::{Append, PreVoteResponse};
use raftcache::raft::{
    Config, Entry, EntryId, Envelope, Fault, HardState, Index, Message, NodeId, Payload, Raft,
    Recovered, Role, SnapshotMeta, Term, Time,
};

use super::harness::{founding, n};

/// Follows in term 2, with these entries, all of term 1, on its disk.
fn follower(count: u64) -> Raft {
    follower_with(Config::new(n(1), 7), count)
}

fn follower_with(config: Config, count: u64) -> Raft {
    let ids: Vec<NodeId> = (1..=3).map(n).collect();
    let entries = (1..=count).map(|index| entry(1, index)).collect();
    let hard_state = HardState { term: Term(2), vote: None, commit: Index(0) };
    let recovered = Recovered { hard_state, snapshot: Some(founding(&ids, &[])), entries };
    Raft::new(config, recovered, Time::ZERO)
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

/// Whose state machine takes nothing any more stores on, but not without end:
/// what is not applied stays in memory.
#[test]
fn who_applies_nothing_does_not_fill_its_memory() {
    let config = Config { log_tail_bytes: 1000, disk_lag_bytes: 2000, ..Config::new(n(1), 7) };
    let mut raft = follower_with(config, 3);
    raft.suspend();
    for _ in 0..100 {
        let last = raft.last();
        let payload = Payload::Command(vec![0; 200].into());
        let entry = Entry { id: EntryId::new(2, last.index.0 + 1), payload };
        raft.receive(Time::ZERO, append(last, vec![entry], last.index.0));
        if let Some(write) = raft.ready(Time::ZERO).write {
            raft.durable(write.seq);
        }
    }
    assert!((10..20).contains(&raft.last().index.0), "{raft:?}");
    assert_eq!(raft.durable_index(), raft.last().index);
}

/// Each leader, and each new link, sends a window full of entries to one whose disk
/// hangs. It takes no more than so many, and what consensus itself needs.
#[test]
fn a_disk_that_hangs_does_not_fill_the_memory() {
    let config = Config { disk_lag_bytes: 2000, ..Config::new(n(1), 7) };
    let mut raft = follower_with(config, 3);
    let mut writes = Vec::new();
    let mut send = |raft: &mut Raft, payload| {
        let last = raft.last();
        let entry = Entry { id: EntryId::new(2, last.index.0 + 1), payload };
        raft.receive(Time::ZERO, append(last, vec![entry], last.index.0));
        writes.extend(raft.ready(Time::ZERO).write);
    };
    let command = || Payload::Command(vec![0; 200].into());
    for _ in 0..100 {
        send(&mut raft, command());
    }
    let full = raft.last().index.0;
    assert!((10..20).contains(&full) && raft.log_bytes() < 3000, "{raft:?}");
    send(&mut raft, Payload::Noop);
    assert_eq!(raft.last().index.0, full + 1);
    // The disk goes on, and so does it.
    for write in writes {
        raft.durable(write.seq);
    }
    let last = raft.last();
    let entry = Entry { id: EntryId::new(2, last.index.0 + 1), payload: command() };
    raft.receive(Time::ZERO, append(last, vec![entry], last.index.0));
    assert_eq!(raft.last().index.0, full + 2);
}

/// A follower with three entries that knows them all to be committed.
fn follower_of_committed() -> Raft {
    let mut raft = follower(3);
    raft.receive(Time::ZERO, append(EntryId::new(1, 3), Vec::new(), 3));
    raft.ready(Time::ZERO);
    assert_eq!(raft.commit(), Index(3));
    raft
}

/// It has stopped: what it holds is what it held, and it says nothing any more.
fn assert_stopped(mut raft: Raft, ours: EntryId, theirs: EntryId) {
    assert_eq!(raft.fault(), Some(Fault::Diverged { ours, theirs }));
    assert_eq!((raft.commit(), raft.last()), (Index(3), EntryId::new(1, 3)));
    raft.receive(Time::ZERO, append(EntryId::new(1, 3), vec![entry(2, 4)], 4));
    let ready = raft.ready(Time::from_millis(10_000));
    assert!(ready.messages.is_empty() && ready.write.is_none());
    assert_eq!(raft.next_committed(), None);
    assert_eq!((raft.commit(), raft.last()), (Index(3), EntryId::new(1, 3)));
}

/// A leader would replace what is committed. One of the two has lost its disk;
/// to go on would lose what clients were promised, so this node stops and names
/// both entries.
#[test]
fn a_committed_entry_is_never_replaced() {
    let mut raft = follower_of_committed();
    raft.receive(Time::ZERO, append(EntryId::new(1, 1), vec![entry(2, 2), entry(2, 3)], 3));
    assert_stopped(raft, EntryId::new(1, 2), EntryId::new(2, 2));
}

/// The same seen from behind: a leader that continues another history has not
/// just not been told yet that this node is ahead.
#[test]
fn a_committed_entry_is_never_merely_rejected() {
    let mut raft = follower_of_committed();
    raft.receive(Time::ZERO, append(EntryId::new(2, 2), vec![entry(2, 3)], 3));
    assert_stopped(raft, EntryId::new(1, 2), EntryId::new(2, 2));
}

/// A leader only appends in its term. What would cut entries that it has itself
/// confirmed is no message of it.
#[test]
fn a_leader_takes_nothing_back_in_its_term() {
    let mut raft = follower(1);
    raft.receive(Time::ZERO, append(EntryId::new(1, 1), vec![entry(2, 2), entry(2, 3)], 1));
    raft.receive(Time::ZERO, append(EntryId::new(1, 1), vec![entry(1, 2)], 1));
    assert_eq!((raft.fault(), raft.last()), (None, EntryId::new(2, 3)));
}

/// A yes to a question of an earlier term arrives when a later one is asked. It
/// says nothing about that, and no election is begun for it.
#[test]
fn an_old_answer_is_none_to_a_new_question() {
    let mut raft = follower(1);
    let now = Time::from_millis(1000);
    raft.ready(now);
    assert!(matches!(raft.role(), Role::PreCandidate(_)), "{raft:?}");
    let answer = |next| Envelope {
        from: n(2),
        to: n(1),
        term: Term(1),
        message: Message::PreVoteResponse(PreVoteResponse { next: Term(next), granted: true }),
    };
    raft.receive(now, answer(2));
    assert!(matches!(raft.role(), Role::PreCandidate(_)), "{raft:?}");
    raft.receive(now, answer(3));
    assert!(matches!(raft.role(), Role::Candidate(_)), "{raft:?}");
}

/// To stand at once against all promises is asked by the leader of this term
/// only: its lease ends with the asking, anybody else's does not.
#[test]
fn only_the_leader_of_the_term_asks_for_its_successor() {
    let mut raft = follower(1);
    raft.receive(Time::ZERO, append(EntryId::new(1, 1), Vec::new(), 0));
    assert_eq!(raft.leader(), Some(n(2)));
    let asks = |from, term| Envelope {
        from: n(from),
        to: n(1),
        term: Term(term),
        message: Message::TimeoutNow,
    };
    for late_or_foreign in [asks(2, 1), asks(3, 2)] {
        raft.receive(Time::ZERO, late_or_foreign);
        assert_eq!((raft.term(), raft.leader()), (Term(2), Some(n(2))), "{raft:?}");
    }
    raft.receive(Time::ZERO, asks(2, 2));
    assert!(matches!(raft.role(), Role::Candidate(_)), "{raft:?}");
}

/// A snapshot is late: this node holds its last entry, and has vouched for more.
/// It learns what is committed, and keeps what it has vouched for.
#[test]
fn a_snapshot_of_what_is_held_takes_nothing_away() {
    let mut raft = follower(3);
    raft.receive(Time::ZERO, append(EntryId::new(1, 3), Vec::new(), 0));
    let ids: Vec<NodeId> = (1..=3).map(n).collect();
    let meta = SnapshotMeta { last: EntryId::new(1, 2), ..founding(&ids, &[]) };
    assert!(!raft.snapshot_received(Time::ZERO, Term(2), meta));
    let ready = raft.ready(Time::ZERO);
    assert!(ready.restore.is_none());
    assert_eq!((raft.commit(), raft.last()), (Index(2), EntryId::new(1, 3)));
    assert_eq!(raft.durable_index(), Index(3));
}
