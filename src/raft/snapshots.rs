//! Snapshots as consensus sees them: what a leader offers, and what has come of it.

use super::entry::{EntryId, Index, SnapshotMeta, Term};
use super::raft::{Raft, Role};
use super::ready::Fault;
use super::time::Time;

impl Raft {
    /// The leader offers a snapshot that ends with this entry. False if this node
    /// holds all of it; the leader is told, or would offer it again and again.
    /// [A follower restarted behind a slow disk had more than its leader knew of.]
    pub fn snapshot_offered(&mut self, now: Time, last: EntryId) -> bool {
        if last.index > self.core.commit() {
            return true;
        }
        match self.core.log.id_at(last.index).filter(|&ours| ours != last) {
            Some(ours) => self.fail(now, Fault::Diverged { ours, theirs: last }),
            None => {
                if let Role::Follower(follower) = &mut self.role {
                    follower.covered(last.index);
                }
            }
        }
        false
    }

    /// A snapshot file is complete and durable here; the leader of `term` has
    /// sent it. True if the state is to be taken from it;
    /// [`Ready::restore`](super::Ready::restore) then says so again, in order with
    /// everything else.
    ///
    /// If the state machine is suspended, the state is taken also from one that
    /// covers nothing new, as long as it is no older; the log stays as it is.
    ///
    /// It may be the first that is heard of that term. What it holds is held by
    /// the leaders of this term and later ones, not by an earlier one that we
    /// may still follow: to vouch to that one for it would be a lie.
    pub fn snapshot_received(&mut self, now: Time, term: Term, meta: SnapshotMeta) -> bool {
        let last = meta.last;
        if self.fault.is_some() || last.term > term || !term.is_sane() || !last.index.is_sane() {
            return false;
        }
        let known = self.core.covers(last);
        if term > self.core.term() || matches!(self.role, Role::PreCandidate(_)) {
            self.become_follower(now, term.max(self.core.term()), None);
        }
        if !known && !matches!(self.role, Role::Follower(_)) {
            // Whoever asks for votes or leads has no leader to take it from.
            return false;
        }
        let mends = self.core.suspended
            && last.index >= self.core.applied().index
            && (!known || last.index <= self.core.durability.issued());
        if known {
            // We hold all of it, so all it tells is that it is committed.
            self.core.commit_to(last.index.max(self.core.commit()));
        } else {
            self.install(meta.clone());
        }
        if known && mends {
            self.core.replace_state(meta);
        }
        if let Role::Follower(follower) = &mut self.role {
            follower.covered(last.index);
        }
        self.check();
        !known || mends
    }

    fn install(&mut self, meta: SnapshotMeta) {
        let verified = match &self.role {
            Role::Follower(follower) => follower.verified(),
            _ => Index(0),
        };
        self.core.install(meta, verified);
    }
}
