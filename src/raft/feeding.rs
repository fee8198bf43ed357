//! Feeding followers: what they have answered, what they are sent next.
//!
//! The second half of a [`Leader`]. How much a follower may be sent is told by
//! its [`Progress`]; here that is turned into appends, fetches from the journal
//! and calls for a snapshot, and answers are turned into progress.

use super::core::Core;
use super::entry::{Entry, EntryId, Index, NodeId};
use super::leader::Leader;
use super::message::{Append, AppendResponse, HeartbeatResponse, Message};
use super::progress::{Progress, State};
use super::ready::{Fetch, Ready};
use super::time::Time;
use crate::mutants::{self, Mutant};

impl Leader {
    /// A follower has answered an append.
    pub fn on_append_response(
        &mut self,
        core: &mut Core,
        now: Time,
        from: NodeId,
        response: AppendResponse,
    ) {
        let Some(progress) = self.progress.get_mut(&from) else { return };
        progress.heard = Some(now);
        match response {
            AppendResponse::Accepted { matched, received } => {
                if matched <= received && core.could_hold(received) {
                    progress.accepted(matched, received, self.rounds.latest(), now);
                }
            }
            AppendResponse::Rejected { at, hint } => {
                let agreeable = if hint.index < core.log.base().index {
                    hint.index
                } else {
                    core.log.last_agreeable(hint.index, hint.term).index
                };
                progress.rejected(at, agreeable.next());
            }
        }
    }

    /// A follower has echoed a heartbeat.
    pub fn on_heartbeat_response(
        &mut self,
        core: &mut Core,
        now: Time,
        from: NodeId,
        response: HeartbeatResponse,
    ) {
        let Some(progress) = self.progress.get_mut(&from) else { return };
        let HeartbeatResponse { round, matched, received, durable, room, serves } = response;
        if round > self.rounds.latest() || matched > received || !core.could_hold(received) {
            log::warn!("dropped an impossible heartbeat response from {from}");
            return;
        }
        progress.heard = Some(now);
        if round > progress.confirmed {
            if room && !progress.room {
                // What it had no room for is not to wait for long any more.
                progress.retries = 0;
            }
            (progress.room, progress.serves) = (room, serves);
            progress.confirmed = round;
            let sent = match mutants::on(Mutant::LeaseFromAnswer) {
                false => self.rounds.sent_at(round),
                true => Some(now),
            };
            progress.contact = sent.or(progress.contact);
        }
        if round > progress.matched_round {
            if durable < progress.matched && !progress.rolled_back {
                log::error!(
                    "{from} had acknowledged {} and now holds {durable}: its disk was rolled back",
                    progress.matched,
                );
                progress.rolled_back = true;
            } else if received < progress.matched {
                // It has restarted, and does not know yet where it agrees.
                if matches!(progress.state, State::Replicate(_)) {
                    progress.probe();
                }
            } else if received > Index(0) {
                progress.accepted(matched, received, self.rounds.latest(), now);
            }
        }
        if progress.stalled(received, core.config.election_timeout_min, now) {
            progress.retries += 1;
            progress.probe();
        }
        self.release_confirmed(core);
    }

    /// What was on its way to a follower is lost.
    pub fn on_link_lost(&mut self, node: NodeId) {
        if let Some(progress) = self.progress.get_mut(&node) {
            progress.lost();
        }
    }

    /// A snapshot is not on its way any more.
    pub fn on_snapshot_ended(&mut self, node: NodeId) {
        if let Some(progress) = self.progress.get_mut(&node)
            && matches!(progress.state, State::Snapshot { .. })
        {
            progress.probe();
            progress.lost();
        }
    }

    /// The journal has answered: send on, if they are still what is wanted.
    pub fn on_entries_read(
        &mut self,
        core: &mut Core,
        now: Time,
        fetch: Fetch,
        read: Option<(EntryId, Vec<Entry>)>,
    ) {
        let Some(progress) = self.progress.get_mut(&fetch.node) else { return };
        if !std::mem::take(&mut progress.fetching) || fetch.from != progress.next {
            return;
        }
        match read {
            Some((prev, entries))
                if prev.index == progress.next.prev() && core.is_consecutive(prev, &entries) =>
            {
                if progress.may_send(core.config.inflight_bytes) {
                    Self::append_to(core, fetch.node, progress, prev, entries, now);
                }
            }
            Some(_) => {}
            None => progress.state = State::Snapshot { announced: false },
        }
    }

    pub(super) fn feed(&mut self, core: &mut Core, now: Time, ready: &mut Ready) {
        let has_room = self.has_room(core, now);
        for (&node, progress) in &mut self.progress {
            if has_room && !progress.room {
                // It is not needed, and what it has left is for worse times.
                continue;
            }
            if let State::Snapshot { announced } = &mut progress.state
                && !std::mem::replace(announced, true)
            {
                ready.snapshot_to.push(node);
            }
            while progress.may_send(core.config.inflight_bytes) {
                let probing = matches!(progress.state, State::Probe { .. });
                let Some(prev) = core.log.id_at(progress.next.prev()) else {
                    progress.fetching = true;
                    let (from, to) = (progress.next, core.log.base().index);
                    let limit_bytes = core.config.append_bytes;
                    ready.fetch.push(Fetch { node, from, to, limit_bytes });
                    break;
                };
                let mut entries = core.log.slice(progress.next, core.config.append_bytes);
                if let Some(removal) = progress.leaving {
                    entries.retain(|entry| entry.id.index <= may_see(core, removal));
                }
                if entries.is_empty() && !probing {
                    break;
                }
                Self::append_to(core, node, progress, prev, entries, now);
            }
        }
    }

    pub(super) fn append_to(
        core: &mut Core,
        node: NodeId,
        progress: &mut Progress,
        prev: EntryId,
        entries: Vec<Entry>,
        now: Time,
    ) {
        let last = entries.last().map_or(prev.index, |entry| entry.id.index);
        progress.sent(last, entries.iter().map(Entry::size).sum(), now);
        core.send(node, Message::Append(Append { prev, entries, commit: core.commit() }));
    }

    /// Forgets members whose removal is committed, once they know or are gone.
    pub(super) fn let_go(&mut self, core: &Core, now: Time) {
        let patience = core.config.election_timeout_max * 10;
        self.progress.retain(|_, progress| match progress.leaving {
            Some(removal) if core.commit() >= removal => {
                let gone = progress.heard.is_none_or(|heard| now.since(heard) >= patience);
                progress.matched < removal && !gone
            }
            _ => true,
        });
    }

    /// Whether a follower can only go on from a snapshot.
    pub fn needs_snapshot(&self, node: NodeId) -> bool {
        let progress = self.progress.get(&node);
        progress.is_some_and(|progress| matches!(progress.state, State::Snapshot { .. }))
    }

    /// Whether what a follower needs next is not in memory.
    pub fn needs_journal(&self, core: &Core, node: NodeId) -> bool {
        let progress = self.progress.get(&node);
        progress.is_some_and(|progress| progress.next <= core.log.base().index)
    }
}

/// How much of the log a member may see that the entry at `removal` removes: that
/// entry only once it is committed, lest it silences itself for nothing.
fn may_see(core: &Core, removal: Index) -> Index {
    if core.commit() >= removal { removal } else { removal.prev() }
}
