//! A story: a cluster of which every step is written down.
//!
//! Nothing happens between two commands, but a node takes all turns that follow
//! from what it is fed, its disk writes at once unless it is slow, and so does
//! its journal. The commands themselves are in [`super::stories`].

use std::collections::BTreeSet;
use std::error::Error;

use raftcache::raft::NodeId;

use super::arguments::Args;
use super::harness::{Cluster, Packet, n};
use super::trace::{self, ReadNames, Standing};

/// What a command comes to.
pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The cluster of one script, and what was written down so far.
#[derive(Default)]
pub struct Story {
    pub cluster: Cluster,
    pub flight: Vec<Packet>,
    pub slow: BTreeSet<NodeId>,
    pub slow_journal: BTreeSet<NodeId>,
    pub cut: BTreeSet<(NodeId, NodeId)>,
    pub reads: ReadNames,
    pub lines: Vec<String>,
    pub only_events: bool,
}

impl Story {
    pub fn say(&mut self, line: String) {
        self.lines.push(line);
    }

    pub fn detail(&mut self, line: String) {
        if !self.only_events {
            self.lines.push(format!("  {line}"));
        }
    }

    /// Feeds something to a node, lets it take its turns, writes down what changed.
    pub fn step<T>(&mut self, id: NodeId, feed: impl FnOnce(&mut Cluster) -> T) -> T {
        let before = Standing::of(self.cluster.raft(id));
        let fed = feed(&mut self.cluster);
        self.take_turns(id, before);
        fed
    }

    pub fn take_turns(&mut self, id: NodeId, mut before: Standing) {
        loop {
            let waiting = self.cluster.nodes[&id].reads.clone();
            let turn = self.cluster.turn(id);
            let ready = turn.ready;
            let now = Standing::of(self.cluster.raft(id));
            for line in now.changes(&before, id) {
                self.say(line);
            }
            before = now;
            if let Some(meta) = &ready.restore {
                self.say(format!("{id} takes over the state at {}", meta.last));
            }
            if !turn.applied.is_empty() {
                self.say(format!("{id} applies {}", trace::entries(&turn.applied)));
            }
            let served = waiting.iter().filter(|r| turn.reads.is_some_and(|upto| r.id <= upto));
            for read in served {
                let name = self.reads.name(id, read.id);
                let applied = self.cluster.nodes[&id].applied.index;
                self.say(format!("{id} serves {name} at {applied}"));
            }
            for envelope in ready.messages {
                self.send(Packet::Message(envelope));
            }
            for to in ready.snapshot_to {
                self.send(self.cluster.snapshot_for(id, to));
            }
            let mut again = turn.more;
            for fetch in &ready.fetch {
                self.detail(format!("{id} looks up {} for {}", fetch.from, fetch.node));
                self.cluster.look_up(id, fetch);
                again |= !self.slow_journal.contains(&id) && self.hand_in(id);
            }
            if let Some(write) = &ready.write {
                let slow = self.slow.contains(&id);
                let verb = if slow { "owes its disk" } else { "wrote" };
                self.detail(format!("{id} {verb}: {}", trace::write(write)));
                again |= !slow && self.cluster.complete_write(id);
            }
            if !again {
                break;
            }
        }
    }

    pub fn hand_in(&mut self, id: NodeId) -> bool {
        let Some((to, found)) = self.cluster.hand_in(id) else { return false };
        let what = match found {
            Some((prev, entries)) => format!("after {prev} {}", trace::entries(&entries)),
            None => "nothing: only in the snapshot".to_owned(),
        };
        self.detail(format!("{id} found for {to} {what}"));
        true
    }

    pub fn send(&mut self, packet: Packet) {
        let line = trace::packet(&packet, &mut self.reads);
        if self.cut.contains(&packet.way()) {
            self.detail(format!("{line} (lost)"));
            self.lose(&packet);
        } else {
            self.detail(line);
            self.flight.push(packet);
        }
    }

    pub fn lose(&mut self, packet: &Packet) {
        if let Packet::Snapshot { from, to, .. } = packet
            && self.cluster.is_up(*from)
        {
            self.cluster.raft(*from).snapshot_ended(*to);
        }
    }

    pub fn arrive(&mut self, packet: Packet) {
        let (_, to) = packet.way();
        if !self.cluster.is_up(to) {
            self.lose(&packet);
            return;
        }
        let line = trace::packet(&packet, &mut self.reads);
        if !self.only_events {
            self.say(line);
        }
        self.step(to, |cluster| cluster.arrive(packet));
    }

    /// The packets in flight that a command means, as positions.
    pub fn select(&self, args: &Args) -> Outcome<Vec<usize>> {
        let from = args.number("from")?.map(|id| n(u128::from(id)));
        let to = args.number("to")?.map(|id| n(u128::from(id)));
        let matches = |packet: &Packet| {
            let way = packet.way();
            from.is_none_or(|from| from == way.0)
                && to.is_none_or(|to| to == way.1)
                && args.key("kind").is_none_or(|kind| kind == trace::kind(packet))
        };
        let places = self.flight.iter().enumerate().filter(|(_, packet)| matches(packet));
        let places: Vec<usize> = places.map(|(place, _)| place).collect();
        Ok(match args.number("nth")? {
            Some(nth) => places.get(usize::try_from(nth)? - 1).copied().into_iter().collect(),
            None => places,
        })
    }

    pub fn take(&mut self, places: &[usize]) -> Vec<Packet> {
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        for (place, packet) in self.flight.drain(..).enumerate() {
            if places.contains(&place) { taken.push(packet) } else { left.push(packet) }
        }
        self.flight = left;
        taken
    }

    pub fn deliver(&mut self, packets: Vec<Packet>, batch: bool) {
        if !batch {
            packets.into_iter().for_each(|packet| self.arrive(packet));
            return;
        }
        let befores: Vec<(NodeId, Standing)> = self
            .cluster
            .up()
            .into_iter()
            .map(|id| (id, Standing::of(self.cluster.raft(id))))
            .collect();
        for packet in packets {
            let line = trace::packet(&packet, &mut self.reads);
            self.say(line);
            self.cluster.arrive(packet);
        }
        for (id, before) in befores {
            self.take_turns(id, before);
        }
    }

    pub fn settle(&mut self) -> Outcome {
        for _ in 0..10_000 {
            if self.flight.is_empty() {
                return Ok(());
            }
            let packet = self.flight.remove(0);
            self.arrive(packet);
        }
        Err("messages without end".into())
    }
}
