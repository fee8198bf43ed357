//! A seed decides everything that happens for some seconds of virtual time;
//! then everything is mended, and the cluster has to get on.
//!
//! Safety is the judge's business at every turn. What is checked here is that
//! afterwards there is a leader, something new is committed, all members catch
//! up, and every read is served, within a bounded time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use raftcache::raft::NodeId;

use super::chance::{MILLI, Micros};
use super::trace;
use super::world::World;

/// After the last fault, everything has to be well within this time.
const PATIENCE: Micros = 20_000 * MILLI;

impl World {
    fn mend(&mut self) {
        self.note(|| "everything is mended".to_owned());
        self.faulty = false;
        self.blocked.clear();
        self.plan.latency = self.plan.latency.min(5 * MILLI);
        let ids: Vec<NodeId> = self.machines.keys().copied().collect();
        for id in ids {
            self.machine(id).asleep_until = 0;
            self.start(id);
            self.turn_within(id, self.now);
        }
    }

    /// Everybody who belongs has everything, and every read was served.
    fn is_well(&self, since: u64) -> bool {
        let leaders = self.leaders();
        let Some(leader) =
            leaders.iter().map(|id| self.cluster.nodes[id].raft()).max_by_key(|r| r.term())
        else {
            return false;
        };
        let node = |id: NodeId| &self.cluster.nodes[&id];
        leader.commit().0 > since
            && leader.membership().iter().all(|(id, member)| {
                member.voter
                    && self.cluster.is_up(id)
                    && node(id).applied.index.0 > since
                    && node(id).reads.iter().all(|read| read.must_see.0 > since)
            })
    }

    fn run(&mut self) {
        self.run_until(self.plan.length);
        self.mend();
        let since = self.cluster.judge.committed.len() as u64;
        let deadline = self.now + PATIENCE;
        while !self.is_well(since) {
            assert!(
                self.now < deadline,
                "no progress since index {since}: {:#?}",
                self.cluster.up().iter().map(|&id| self.state(id)).collect::<Vec<_>>()
            );
            self.run_until(self.now + 100 * MILLI);
        }
    }

    fn state(&self, id: NodeId) -> String {
        let node = &self.cluster.nodes[&id];
        format!("{} waits for {} reads", trace::status(node.raft()), node.reads.len())
    }
}

/// What runs have brought, so that a test that tests nothing is noticed.
#[derive(Debug, Default)]
struct Brought {
    committed: u64,
    reads: u64,
    terms: u64,
}

fn run(seed: u64, loud: bool, brought: &mut Brought) {
    let mut world = World::new(seed, loud);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    if outcome.is_err() {
        panic!("repeat it: SEED={seed} cargo test --test raft random -- --nocapture");
    }
    brought.committed += world.cluster.judge.committed.len() as u64;
    brought.reads += world.cluster.judge.reads_released;
    brought.terms += world.cluster.judge.terms();
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn random() {
    let mut brought = Brought::default();
    if let Some(seed) = setting("SEED") {
        eprintln!("seed {seed}");
        run(seed, true, &mut brought);
        return;
    }
    let first = setting("FROM").unwrap_or(1);
    let count = setting("SEEDS").unwrap_or(1000);
    eprintln!("seeds {first} to {}", first + count - 1);
    for seed in first..first + count {
        run(seed, false, &mut brought);
    }
    eprintln!("{brought:?}");
    assert!(brought.committed > 20 * count, "little was committed: {brought:?}");
    assert!(brought.reads > 5 * count, "few reads were served: {brought:?}");
    assert!(brought.terms > 2 * count, "few leaders fell: {brought:?}");
}
