//! Snapshots: taking our own, sending one to a follower, taking one in.
//!
//! Files are somebody else's; here are the decisions. What is to be done with a
//! file comes out as a [`SnapshotJob`], what became of it comes in as a
//! [`SnapshotReport`].
//!
//! *Taking.* When the journal has grown enough, the state machine begins a walk
//! over itself and hands out a piece per turn, while entries go on being
//! applied. Few pieces are under way at a time, so a slow disk holds up the
//! snapshot and nothing else. The file gets its name once the journal is durable
//! up to the snapshot's index.
//!
//! *Sending.* The leader offers; the follower asks for chunk after chunk, from
//! where it has got to. So a lost link costs one chunk, and a follower takes
//! what it can bear.
//!
//! *Taking in.* When the file is whole and durable, the state is built from it, off
//! the loop; only then does consensus decide whether it is news. If so the new
//! state takes the place of the old one in a single step.

mod words;

use std::collections::BTreeMap;
use std::time::Duration;

pub use words::{Available, SnapshotJob, SnapshotMessage, SnapshotReport};

use super::PeerMessage;
use super::clock::Now;
use super::replica::Replica;
use crate::fsm::{Fsm, Visit};
use crate::mutants::{self, Mutant};
use crate::raft::{EntryId, Index, Membership, NodeId, SnapshotMeta, Term, Time};

/// How long to rest after a snapshot that came to nothing.
const REST: Duration = Duration::from_secs(5);

/// How long an answer of the other side may take before it is asked again.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the other side may be silent before a transfer is given up.
const GIVE_UP: Duration = Duration::from_secs(10);

/// Our own, under way.
#[derive(Debug, Clone, Copy)]
struct Taking {
    last: EntryId,
    begun: Time,
    pieces_under_way: usize,
    /// The walk is through.
    walked: bool,
    /// The file was asked to be named.
    finishing: bool,
}

/// One on its way to a follower. It stays the same one as long as it can be read,
/// whatever gets lost: where newer ones come often, each of them would begin anew.
#[derive(Debug, Clone, Copy)]
struct Sending {
    what: Available,
    /// Up to where it was sent, beyond the first part; or the whole of it.
    sent_bytes: u64,
    /// It has arrived, and what follows it is pinned.
    arrived: bool,
    /// It was asked for, by a node whose log needs none.
    wanted: bool,
    heard: Time,
    offered: Time,
}

impl Sending {
    /// Offered with the next look at what is being sent.
    fn new(what: Available, wanted: bool, now: Time) -> Self {
        Self { what, sent_bytes: 0, arrived: false, wanted, heard: now, offered: Time::ZERO }
    }
}

/// One on its way here.
#[derive(Debug, Clone, Copy)]
struct Receiving {
    from: NodeId,
    /// The term that it leads.
    term: Term,
    last: EntryId,
    received_bytes: u64,
    heard: Time,
    asked: Time,
}

/// All there is to know of snapshots here.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// The newest file that is here.
    pub newest: Option<Available>,
    jobs: Vec<SnapshotJob>,
    taking: Option<Taking>,
    rest_until: Time,
    /// The journal has not yet said how large it is without what our last one
    /// covers. Until then it looks as if another one were due.
    pub naming: bool,
    sending: BTreeMap<NodeId, Sending>,
    receiving: Option<Receiving>,
    /// A follower waits for one that is no older than this.
    wanted: Index,
    /// The state of one that consensus wants to be taken over.
    restored: Option<Box<Fsm>>,
}

impl Snapshots {
    /// With this file there, or none.
    pub fn new(newest: Option<Available>) -> Self {
        Self { newest, ..Self::default() }
    }

    /// Sends no more, and takes in no more unless that is what mends this node. To
    /// whom it was sending.
    pub fn give_up_transfers(&mut self, is_mending: bool) -> Vec<NodeId> {
        let over: Vec<NodeId> = std::mem::take(&mut self.sending).into_keys().collect();
        self.jobs.extend(over.iter().copied().map(SnapshotJob::Close));
        self.receiving.take_if(|_| !is_mending);
        over
    }

    /// The jobs that have come up.
    pub fn take_jobs(&mut self) -> Vec<SnapshotJob> {
        std::mem::take(&mut self.jobs)
    }

    /// When there is something to see to even if nothing arrives.
    pub fn wake_at(&self) -> Option<Time> {
        let sending = self.sending.values().map(|sending| sending.offered + PATIENCE);
        let receiving = self.receiving.map(|receiving| receiving.asked + PATIENCE);
        sending.chain(receiving).min()
    }

    /// The index behind which the journal has to be kept for those who are
    /// being sent a snapshot.
    pub fn pinned(&self) -> Option<Index> {
        self.sending.values().map(|sending| sending.what.last.index).min()
    }
}

impl Replica {
    /// What is due: a snapshot of our own, offers, questions. True if there is
    /// more to do at once.
    pub(super) fn see_to_snapshots(&mut self, now: Now) -> bool {
        self.begin_own(now.time);
        let more = self.go_on_with_own(now.time);
        self.see_to_sending(now.time);
        self.see_to_receiving(now.time);
        more
    }

    /// Begins a snapshot when the journal behind the last one is larger than a
    /// setting, and than that snapshot, so that the work stays in proportion.
    fn begin_own(&mut self, now: Time) {
        let last_bytes = self.snapshots.newest.map_or(0, |newest| newest.size_bytes);
        let newest = self.snapshots.newest.map_or(Index(0), |newest| newest.last.index);
        let is_wanted =
            newest < self.snapshots.wanted && self.snapshots.wanted <= self.applied.index;
        let is_due = is_wanted || self.log_bytes > self.config.snapshot_log_bytes.max(last_bytes);
        let is_busy = self.snapshots.taking.is_some() || self.snapshots.naming;
        let last = self.raft.applied();
        let is_news = last == self.applied && newest < last.index;
        if !is_due || is_busy || !is_news || now < self.snapshots.rest_until {
            return;
        }
        let membership = match self.raft.applied_membership() {
            _ if mutants::on(Mutant::SnapshotWithoutMembership) => Membership::default(),
            _ if mutants::on(Mutant::SnapshotWithLaterMembership) => self.raft.membership().clone(),
            membership => membership.clone(),
        };
        let meta = SnapshotMeta { last, membership };
        let head = Box::new(self.fsm.begin_snapshot());
        log::info!("{}: takes a snapshot at {last}", self.config.name);
        self.snapshots.jobs.push(SnapshotJob::Begin { meta, head });
        self.snapshots.taking =
            Some(Taking { last, begun: now, pieces_under_way: 0, walked: false, finishing: false });
    }

    fn go_on_with_own(&mut self, now: Time) -> bool {
        let Some(taking) = &mut self.snapshots.taking else { return false };
        if taking.walked {
            let durable = self.raft.durable_index();
            if !taking.finishing && durable >= taking.last.index {
                taking.finishing = true;
                self.snapshots.jobs.push(SnapshotJob::Finish(durable));
            }
            return false;
        }
        let most_under_way = self.config.snapshot_pieces_under_way;
        if taking.pieces_under_way >= most_under_way {
            return false;
        }
        match self.fsm.snapshot_piece(self.config.snapshot_piece_keys) {
            Visit::Piece(piece) => {
                taking.pieces_under_way += 1;
                self.snapshots.jobs.push(SnapshotJob::Piece(piece));
                taking.pieces_under_way < most_under_way
            }
            Visit::Complete => {
                taking.walked = true;
                true
            }
            Visit::Abandoned => {
                log::warn!("{}: the snapshot is given up, too much has changed", self.config.name);
                self.snapshots.jobs.push(SnapshotJob::Abandon);
                self.snapshots.taking = None;
                self.snapshots.rest_until = now + REST;
                false
            }
        }
    }

    /// These followers need what the journal no longer holds.
    pub(super) fn send_snapshots(&mut self, now: Time, nodes: &[NodeId]) {
        for &node in nodes {
            match self.snapshots.newest {
                Some(what) => {
                    self.snapshots.sending.insert(node, Sending::new(what, false, now));
                }
                None => self.raft.snapshot_ended(node),
            }
        }
    }

    /// A follower's state is not to be trusted: it gets ours, of now if need be.
    fn on_wanted(&mut self, now: Time, from: NodeId, since: Index) {
        if !self.leads || self.fault.is_some() || !self.raft.membership().contains(from) {
            return;
        }
        match self.snapshots.newest {
            Some(what) if what.last.index >= since => {
                let new = Sending::new(what, true, now);
                let sending = self.snapshots.sending.entry(from).or_insert(new);
                match sending.what.last.index >= since {
                    true => sending.wanted = true,
                    false => *sending = new,
                }
            }
            _ => self.snapshots.wanted = since,
        }
    }

    fn see_to_sending(&mut self, now: Time) {
        let mut over = Vec::new();
        for (&node, sending) in &mut self.snapshots.sending {
            if !sending.wanted && !self.raft.needs_snapshot(node) {
                // What follows the snapshot is pinned until memory has it.
                sending.offered = now;
                if !std::mem::replace(&mut sending.arrived, true) {
                    self.snapshots.jobs.push(SnapshotJob::Close(node));
                }
                if self.raft.heard_lately(node, now) {
                    sending.heard = now;
                }
                if !self.raft.needs_journal(node) || now.since(sending.heard) >= GIVE_UP {
                    over.push(node);
                }
            } else if now.since(sending.heard) >= GIVE_UP {
                over.push(node);
            } else if now.since(sending.offered) >= PATIENCE {
                sending.offered = now;
                let Available { last, size_bytes } = sending.what;
                let offer = SnapshotMessage::Offer { last, size_bytes };
                self.messages.push((node, PeerMessage::Snapshot(offer)));
            }
        }
        for node in over {
            self.snapshots.sending.remove(&node);
            self.snapshots.jobs.push(SnapshotJob::Close(node));
            self.raft.snapshot_ended(node);
        }
    }

    pub(super) fn see_to_receiving(&mut self, now: Time) {
        let Some(receiving) = &mut self.snapshots.receiving else { return };
        if now.since(receiving.heard) >= GIVE_UP {
            log::warn!("{}: {} sends no more of its snapshot", self.config.name, receiving.from);
            self.snapshots.receiving = None;
        } else if now.since(receiving.asked) >= PATIENCE {
            self.ask_for_chunk(now);
        }
    }

    fn ask_for_chunk(&mut self, now: Time) {
        let Some(receiving) = &mut self.snapshots.receiving else { return };
        receiving.asked = now;
        let (last, offset) = (receiving.last, receiving.received_bytes);
        let request = SnapshotMessage::Request { last, offset };
        self.messages.push((receiving.from, PeerMessage::Snapshot(request)));
    }

    /// A node speaks about a snapshot.
    pub(super) fn on_snapshot_message(&mut self, now: Time, from: NodeId, said: SnapshotMessage) {
        match said {
            SnapshotMessage::Offer { last, size_bytes } => {
                self.on_offer(now, from, last, size_bytes);
            }
            SnapshotMessage::Wanted { since } => self.on_wanted(now, from, since),
            SnapshotMessage::Request { last, offset } => self.on_request(now, from, last, offset),
            SnapshotMessage::Chunk { last, offset, bytes } => {
                if let Some(receiving) = &mut self.snapshots.receiving
                    && (receiving.from, receiving.last) == (from, last)
                {
                    receiving.heard = now;
                    self.snapshots.jobs.push(SnapshotJob::Take { last, offset, bytes });
                }
            }
        }
    }

    fn on_request(&mut self, now: Time, from: NodeId, last: EntryId, offset: u64) {
        let newest = self.snapshots.newest;
        let Some(sending) = self.snapshots.sending.get_mut(&from) else { return };
        if sending.arrived && !sending.wanted {
            return;
        }
        sending.heard = now;
        let is_it = sending.what.last == last;
        let newer = newest.filter(|&newest| newest != sending.what);
        if let Some(newer) = newer.filter(|_| is_it && offset == 0 && sending.sent_bytes > 0) {
            // It begins anew: it may as well begin with the newest. The last one may
            // be one of which no state can be made.
            *sending = Sending::new(newer, sending.wanted, now);
            self.snapshots.jobs.push(SnapshotJob::Close(from));
        } else if is_it {
            sending.offered = now;
            self.snapshots.jobs.push(SnapshotJob::Read { to: from, last, offset });
        } else {
            // It has not heard yet of the one that it is to have.
            sending.offered = Time::ZERO;
        }
    }

    fn on_offer(&mut self, now: Time, from: NodeId, last: EntryId, size_bytes: u64) {
        let mends = self.agreement.is_wrong() && last.index >= self.applied.index;
        if self.raft.leader() != Some(from) || !last.index.is_sane() {
            return;
        }
        let is_later = self.raft.snapshot_offered(now, last);
        if !mends && !is_later && !mutants::on(Mutant::OlderSnapshotInstalled) {
            return;
        }
        let is_it = |r: &Receiving| (r.from, r.last) == (from, last);
        let known = self.snapshots.receiving.filter(is_it);
        let received_bytes = known.map_or(0, |receiving| receiving.received_bytes);
        let (heard, asked, term) = (now, now, self.raft.term());
        let receiving = Receiving { from, term, last, received_bytes, heard, asked };
        self.snapshots.receiving = Some(receiving);
        let resume = known.is_some();
        self.snapshots.jobs.push(SnapshotJob::Receive { last, size_bytes, resume });
    }

    /// A job has come to something.
    pub(super) fn on_snapshot_report(&mut self, now: Now, report: SnapshotReport) {
        match report {
            SnapshotReport::PieceWritten => {
                if let Some(taking) = &mut self.snapshots.taking {
                    taking.pieces_under_way = taking.pieces_under_way.saturating_sub(1);
                }
            }
            // One that was given up meanwhile may be of a state that is not trusted.
            SnapshotReport::Written { last, .. }
                if self.snapshots.taking.is_none_or(|taking| taking.last != last) => {}
            SnapshotReport::Written { last, size_bytes } => {
                if let Some(taking) = self.snapshots.taking.take() {
                    self.counts.snapshots_written += 1;
                    self.counts.last_snapshot_took = now.time.since(taking.begun);
                }
                // One that the leader sent meanwhile may be newer.
                if self.snapshots.newest.is_none_or(|newest| newest.last.index < last.index) {
                    self.snapshots.newest = Some(Available { last, size_bytes });
                    self.snapshot_taken = Some(last);
                    self.snapshots.naming = true;
                }
            }
            SnapshotReport::NotWritten => {
                self.fsm.abandon_snapshot();
                self.snapshots.taking = None;
                self.snapshots.rest_until = now.time + REST;
            }
            SnapshotReport::Read { to, last, offset, bytes: Some(bytes) } => {
                if let Some(sending) = self.snapshots.sending.get_mut(&to)
                    && sending.what.last == last
                    && (offset > 0 || bytes.len() as u64 == sending.what.size_bytes)
                {
                    sending.sent_bytes = sending.sent_bytes.max(offset + bytes.len() as u64);
                }
                let chunk = SnapshotMessage::Chunk { last, offset, bytes };
                self.messages.push((to, PeerMessage::Snapshot(chunk)));
            }
            SnapshotReport::Read { to, last, bytes: None, .. } => {
                // A newer one has taken its place: offer that at once.
                if let Some(sending) = self.snapshots.sending.get_mut(&to)
                    && let Some(newest) = self.snapshots.newest.filter(|&it| it != sending.what)
                    && sending.what.last == last
                {
                    *sending = Sending::new(newest, sending.wanted, now.time);
                }
            }
            SnapshotReport::Received { last, bytes } => {
                if let Some(receiving) = &mut self.snapshots.receiving
                    && receiving.last == last
                {
                    receiving.received_bytes = bytes;
                    self.ask_for_chunk(now.time);
                }
            }
            SnapshotReport::Complete { meta, size_bytes, fsm } => {
                self.install(now, meta, size_bytes, fsm);
            }
            SnapshotReport::NotReceived(last) => {
                let is_it = |receiving: &Receiving| receiving.last == last;
                if self.snapshots.receiving.as_ref().is_some_and(is_it) {
                    self.snapshots.receiving = None;
                }
            }
        }
    }

    fn install(&mut self, now: Now, meta: SnapshotMeta, size_bytes: u64, fsm: Box<Fsm>) {
        let last = meta.last;
        let receiving = self.snapshots.receiving.take_if(|receiving| receiving.last == last);
        let is_news =
            receiving.is_some_and(|from| self.raft.snapshot_received(now.time, from.term, meta));
        if is_news {
            self.snapshots.newest = Some(Available { last, size_bytes });
            self.snapshots.restored = Some(fsm);
        } else {
            self.snapshots.jobs.push(SnapshotJob::Drop(fsm));
        }
    }

    /// Consensus wants the state taken over from a snapshot. What waited for
    /// entries that it contains will never see them applied one by one.
    pub(super) fn restore(&mut self, last: EntryId) {
        let fsm = self.snapshots.restored.take().expect("a snapshot comes with its state");
        assert_eq!(fsm.applied(), last.index.0, "and that is the one");
        self.give_up_own_snapshot();
        self.counts.snapshots_installed += 1;
        log::info!("{}: continues from the snapshot at {last}", self.config.name);
        let old = std::mem::replace(&mut self.fsm, *fsm);
        self.snapshots.jobs.push(SnapshotJob::Drop(Box::new(old)));
        self.applied = last;
        self.evictions.skipped(last);
        for ticket in self.writes.skipped(last.index) {
            self.give_up_write(ticket);
        }
        self.state_was_replaced();
    }

    pub(super) fn give_up_own_snapshot(&mut self) {
        if self.snapshots.taking.take().is_some() {
            self.fsm.abandon_snapshot();
            self.snapshots.jobs.push(SnapshotJob::Abandon);
        }
    }
}
