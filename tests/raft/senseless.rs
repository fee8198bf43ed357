//! Messages that make no sense, by chance: what one node says must not end
//! another. Numbers are small, so that many of them nearly fit.

use std::time::Duration;

use raftcache::raft::message::{
    Append, AppendResponse, Heartbeat, HeartbeatResponse, PreVote, PreVoteResponse, ReadIndex,
    ReadIndexResponse, RequestVote, VoteResponse,
};
use raftcache::raft::{
    Config, Entry, EntryId, Envelope, HardState, Index, Message, NodeId, Payload, Raft, ReadId,
    Recovered, Role, Term, Time,
};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::harness::{founding, n};

struct Chance(Xoshiro256PlusPlus);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0.random_range(0..limit)
    }

    fn yes(&mut self) -> bool {
        self.0.random_bool(0.5)
    }

    fn term(&mut self) -> Term {
        Term(self.below(6))
    }

    fn index(&mut self) -> Index {
        Index(if self.below(50) == 0 { u64::MAX - self.below(3) } else { self.below(12) })
    }

    fn id(&mut self) -> EntryId {
        EntryId { term: self.term(), index: self.index() }
    }

    fn entries(&mut self, prev: EntryId) -> Vec<Entry> {
        let mut last = prev;
        let count = self.below(4);
        (0..count)
            .map(|_| {
                last = match self.below(10) {
                    0 => self.id(),
                    1 => EntryId {
                        term: last.term.next(),
                        index: Index(last.index.0.wrapping_add(1)),
                    },
                    _ => EntryId { index: Index(last.index.0.wrapping_add(1)), ..last },
                };
                let payload = match self.below(4) {
                    0 => Payload::Membership(founding(&[n(1), n(2), n(3)], &[n(4)]).membership),
                    _ => Payload::Noop,
                };
                Entry { id: last, payload }
            })
            .collect()
    }

    fn message(&mut self) -> Message {
        match self.below(13) {
            0 => Message::PreVote(PreVote { next: self.term(), last: self.id() }),
            1 => {
                let (next, granted) = (self.term(), self.yes());
                Message::PreVoteResponse(PreVoteResponse { next, granted })
            }
            2 => {
                let (last, transfer) = (self.id(), self.yes());
                Message::RequestVote(RequestVote { last, transfer })
            }
            3 => Message::VoteResponse(VoteResponse { granted: self.yes() }),
            4 | 5 => {
                let prev = self.id();
                let (entries, commit) = (self.entries(prev), self.index());
                Message::Append(Append { prev, entries, commit })
            }
            6 => {
                let (matched, received) = (self.index(), self.index());
                Message::AppendResponse(AppendResponse::Accepted { matched, received })
            }
            7 => {
                let (at, hint) = (self.index(), self.id());
                Message::AppendResponse(AppendResponse::Rejected { at, hint })
            }
            8 => {
                let (round, commit) = (self.below(5), self.index());
                let promise = Duration::from_millis(self.below(400));
                Message::Heartbeat(Heartbeat { round, commit, promise })
            }
            9 => {
                let (round, matched) = (self.below(5), self.index());
                let (received, durable) = (self.index(), self.index());
                Message::HeartbeatResponse(HeartbeatResponse {
                    round,
                    matched,
                    received,
                    durable,
                    room: self.below(2) == 0,
                    serves: self.below(2) == 0,
                })
            }
            10 => Message::ReadIndex(ReadIndex { id: ReadId(self.below(u64::MAX)) }),
            11 => {
                let (id, index) = (ReadId(self.below(u64::MAX)), self.index());
                Message::ReadIndexResponse(ReadIndexResponse { id, index })
            }
            _ if self.yes() => Message::TimeoutNow,
            _ => Message::Outdated,
        }
    }
}

/// One of three, as a follower, or elected.
fn begin(chance: &mut Chance, leads: bool) -> Raft {
    let ids: Vec<NodeId> = (1..=3).map(n).collect();
    let held = chance.below(5);
    let entry = |index| Entry { id: EntryId::new(1, index), payload: Payload::Noop };
    let entries = (1..=held).map(entry).collect();
    let hard_state = HardState { term: Term(1), vote: None, commit: Index(chance.below(held + 1)) };
    let recovered = Recovered { hard_state, snapshot: Some(founding(&ids, &[])), entries };
    let mut raft = Raft::new(Config::new(n(1), 7), recovered, Time::ZERO);
    let now = Time::from_millis(1000);
    if leads {
        let say = |raft: &mut Raft, term, message| {
            raft.receive(now, Envelope { from: n(2), to: n(1), term: Term(term), message });
            take_turn(raft, now);
        };
        take_turn(&mut raft, now);
        let yes = PreVoteResponse { next: Term(2), granted: true };
        say(&mut raft, 1, Message::PreVoteResponse(yes));
        say(&mut raft, 2, Message::VoteResponse(VoteResponse { granted: true }));
        assert!(matches!(raft.role(), Role::Leader(_)), "{raft:?}");
    }
    raft
}

/// Its disk is quick.
fn take_turn(raft: &mut Raft, now: Time) {
    for _ in 0..20 {
        let ready = raft.ready(now);
        while raft.next_committed().is_some() {}
        raft.released_reads();
        for fetch in ready.fetch {
            raft.entries_read(now, fetch, None);
        }
        match ready.write {
            Some(write) => raft.durable(write.seq),
            None => return,
        }
    }
}

#[test]
fn no_message_ends_a_node() {
    let mut faults = 0;
    for seed in 0..4000 {
        let mut chance = Chance(Xoshiro256PlusPlus::seed_from_u64(seed));
        let mut raft = begin(&mut chance, seed % 2 == 0);
        let mut now = Time::from_millis(1000);
        for _ in 0..60 {
            let (from, message) = (n(u128::from(2 + chance.below(4))), chance.message());
            let term = match chance.below(3) {
                0 => chance.term(),
                _ => raft.term(),
            };
            raft.receive(now, Envelope { from, to: n(1), term, message });
            if chance.yes() {
                let _ = raft.propose("x".into());
                raft.read();
            }
            take_turn(&mut raft, now);
            now = now + Duration::from_millis(chance.below(100));
        }
        faults += usize::from(raft.fault().is_some());
    }
    assert!((1..4000).contains(&faults), "some contradict what is committed: {faults}");
}
