//! Every invariant of a core, of one state and between two, in one place.
//!
//! Checked after every step in tests and debug builds. What is checked each
//! time costs no more than the step itself; the whole log is gone through once
//! in a thousand steps. These are statements about *our* state: what a peer
//! says was filtered before it could get here.

use super::entry::{EntryId, Index, NodeId, Payload, Term};
use super::raft::{Raft, Role};

/// Steps between two scans of the whole log.
const FULL_SCAN_EVERY: u64 = 1000;

/// Remembers the state before, to compare.
#[derive(Debug, Clone, Default)]
pub struct Invariants {
    before: Option<Before>,
    steps: u64,
}

#[derive(Debug, Clone)]
struct Before {
    term: Term,
    vote: Option<NodeId>,
    leader: Option<NodeId>,
    leads: bool,
    last: EntryId,
    committed: Option<EntryId>,
    commit: Index,
    applied: Index,
}

impl Invariants {
    /// Panics, naming what is broken.
    pub fn check(&mut self, raft: &Raft) {
        check_state(raft);
        if let Some(before) = &self.before {
            check_step(before, raft);
        }
        if self.steps.is_multiple_of(FULL_SCAN_EVERY) {
            check_log(raft);
        }
        self.steps += 1;
        self.before = Some(Before {
            term: raft.term(),
            vote: raft.core.hard_state.vote,
            leader: raft.leader(),
            leads: matches!(raft.role, Role::Leader(_)),
            last: raft.last(),
            committed: raft.core.log.id_at(raft.commit()),
            commit: raft.commit(),
            applied: raft.core.applied().index,
        });
    }
}

fn check_state(raft: &Raft) {
    let core = &raft.core;
    let last = raft.last();
    assert!(
        core.log.base().index <= core.applied().index,
        "only applied entries leave memory: {raft:?}"
    );
    assert!(core.applied().index <= core.commit(), "applies only what is committed: {raft:?}");
    assert!(core.commit() <= last.index, "commits only what it holds: {raft:?}");
    assert!(core.durability.issued() <= last.index, "issues only what it holds: {raft:?}");
    assert!(
        core.durability.durable() <= core.durability.issued(),
        "only what was issued is durable: {raft:?}"
    );
    assert!(last.term <= core.term(), "the log is not ahead of the term: {raft:?}");
    match &raft.role {
        Role::Leader(leader) => {
            let own = core.hard_state.vote == Some(core.config.id);
            assert!(own, "a leader has voted for itself: {raft:?}");
            assert!(core.durability.holds(&core.hard_state), "and that is durable: {raft:?}");
            assert!(leader.noop() <= last.index, "its no-op is in its log: {raft:?}");
            for (node, progress) in leader.progress() {
                assert!(progress.matched < progress.next, "{node}: {progress:?}");
                assert!(progress.matched <= last.index, "{node}: {progress:?} {raft:?}");
            }
            let known = |node| node == core.config.id || leader.progress().any(|(n, _)| n == node);
            assert!(core.voters().all(known), "every voter is fed: {raft:?}");
        }
        Role::Candidate(_) => {
            let own = core.hard_state.vote == Some(core.config.id);
            assert!(own, "a candidate has voted for itself: {raft:?}");
        }
        Role::Follower(follower) => {
            assert!(follower.verified() <= last.index, "verified is held: {raft:?}");
        }
        Role::PreCandidate(_) => {}
    }
}

fn check_step(before: &Before, raft: &Raft) {
    let core = &raft.core;
    assert!(before.term <= core.term(), "terms never go back: {before:?} {raft:?}");
    assert!(before.commit <= core.commit(), "commit never goes back: {before:?} {raft:?}");
    assert!(before.applied <= core.applied().index, "applied never goes back: {before:?} {raft:?}");
    if let (Some(then), Some(now)) = (before.committed, core.log.id_at(before.commit)) {
        assert_eq!(then, now, "what is committed never changes: {raft:?}");
    }
    if before.term != core.term() {
        return;
    }
    if before.vote.is_some() {
        assert_eq!(before.vote, core.hard_state.vote, "one vote per term: {raft:?}");
    }
    if let (Some(then), Some(now)) = (before.leader, raft.leader()) {
        assert_eq!(then, now, "one leader per term: {raft:?}");
    }
    if before.leads && matches!(raft.role, Role::Leader(_)) {
        let kept = core.log.id_at(before.last.index).is_none_or(|id| id == before.last);
        assert!(kept && before.last <= raft.last(), "a leader only appends: {before:?} {raft:?}");
    }
}

fn check_log(raft: &Raft) {
    let core = &raft.core;
    let mut last = core.log.base();
    let mut bytes = 0;
    let mut configuration = None;
    for entry in core.log.iter_from(Index(0)) {
        assert_eq!(entry.id.index, last.index.next(), "the log has no holes: {raft:?}");
        assert!(entry.id.term >= last.term, "terms never decrease in the log: {raft:?}");
        if matches!(entry.payload, Payload::Membership(_)) {
            configuration = Some(entry.id.index);
        }
        last = entry.id;
        bytes += entry.size();
    }
    assert_eq!(bytes, core.log.bytes(), "bytes are counted: {raft:?}");
    if let Some(index) = configuration {
        assert_eq!(index, core.configurations.index(), "the latest is in use: {raft:?}");
    }
}
