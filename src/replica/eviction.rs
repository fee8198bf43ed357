//! Which keys make way when the data set has reached its limit.
//!
//! The leader chooses them, and the log tells everybody: an entry deletes each one
//! unless it was written since it was chosen. So replicas never differ in what they
//! hold, whatever each of them knows of its clients.
//!
//! As in Redis a victim is the worst of a handful of keys drawn at random, and those
//! that were nearly chosen are remembered and compete again: with that, a few draws
//! for each victim come close to an exact order of all keys. How lately and how often
//! keys are used is an estimate ([`Usage`]) of what this node has seen.
//!
//! What is chosen counts as gone at once. Keys are chosen when a write asks for room,
//! and go some hundreds to an entry, at the end of the turn at the latest. A write that
//! needs more victims than one may have is taken in all the same, and the next turns
//! pay for it; so the data set may be over its limit for a moment, by an eighth and a
//! value.
//!
//! Pitfall: a node knows of the reads that it has served. What is read on followers
//! only seems unused to the leader.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::clock::Now;
use super::replica::Replica;
use super::usage::Usage;
use crate::fsm::item::{Item, name_hash};
use crate::fsm::{Action, Fsm, Growth};
use crate::raft::{EntryId, Role, Time};
use crate::request::{
    Answer, Batch, Command, Condition, EvictionOrder, EvictionPolicy, Key, MemoryLimit, Reply, Test,
};

/// How many keys are drawn for each victim. Redis draws five.
const DRAWS: usize = 8;

/// How often so many are drawn before it is said that there is nothing to choose.
const ATTEMPTS: usize = 4;

/// How many that were not chosen are remembered.
const REMEMBERED: usize = 16;

/// How many victims a write may choose for itself.
const VICTIMS_PER_WRITE: usize = 32;

/// How many keys one entry removes, and as many make way in a turn for nobody's write:
/// some milliseconds of work.
const VICTIMS_PER_ENTRY: usize = 512;

/// How long their names are together, one more excepted: an entry has to fit into a
/// frame between nodes, and says each of them twice.
const NAMES_PER_ENTRY_BYTES: usize = 256 << 10;

/// The data set may be over its limit by one part in so many while others make way.
const SLACK: u64 = 8;

/// How many entries of victims may be on their way.
const ENTRIES_ON_THEIR_WAY: usize = 64;

/// A key that may make way.
#[derive(Debug, Clone)]
struct Candidate {
    key: Key,
    hash: u64,
    version: u64,
    memory_bytes: u64,
    /// The larger, the sooner.
    score: u64,
}

/// Victims of one entry that is not applied yet.
#[derive(Debug)]
struct OnItsWay {
    entry: EntryId,
    hashes: Vec<u64>,
    bytes: u64,
}

/// What is kept to choose.
#[derive(Debug)]
pub struct Evictions {
    policy: EvictionPolicy,
    usage: Usage,
    rng: Xoshiro256PlusPlus,
    /// In order of their scores, at most [`REMEMBERED`].
    remembered: Vec<Candidate>,
    /// Chosen and not proposed yet, and how long their names are.
    chosen: Vec<Candidate>,
    names_bytes: usize,
    /// Nobody was left to choose, or nothing could be proposed, when so much was
    /// applied.
    stuck_at: Option<EntryId>,
    on_its_way: VecDeque<OnItsWay>,
    /// The hashes of all that are chosen or on their way.
    going: BTreeSet<u64>,
    /// What those count in memory.
    going_bytes: u64,
    /// How many this node's choice has removed.
    evicted: u64,
}

/// Keys of the same name in two databases are two.
fn hash_of(db: u8, name: &[u8]) -> u64 {
    (name_hash(name) ^ u64::from(db)).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

impl Evictions {
    /// Chooses by this policy.
    pub fn new(policy: EvictionPolicy, seed: u64) -> Self {
        Self {
            policy,
            usage: Usage::default(),
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            remembered: Vec::new(),
            chosen: Vec::new(),
            names_bytes: 0,
            stuck_at: None,
            on_its_way: VecDeque::new(),
            going: BTreeSet::new(),
            going_bytes: 0,
            evicted: 0,
        }
    }

    /// From now on by this one.
    pub fn set_policy(&mut self, policy: EvictionPolicy) {
        self.policy = policy;
        self.remembered.clear();
        if !self.is_by_usage() {
            self.usage = Usage::default();
        }
    }

    fn is_by_usage(&self) -> bool {
        matches!(self.policy.order(), Some(EvictionOrder::Lru | EvictionOrder::Lfu))
    }

    /// Whether as many are chosen as one entry may remove.
    fn is_full(&self) -> bool {
        self.chosen.len() >= VICTIMS_PER_ENTRY || self.names_bytes >= NAMES_PER_ENTRY_BYTES
    }

    /// What is chosen counts in memory until it is gone.
    pub fn going_bytes(&self) -> u64 {
        self.going_bytes
    }

    /// How many keys this node's choice has removed.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The keys of this batch that there are have been used.
    pub fn note_use(&mut self, batch: &Batch, fsm: &Fsm, now: Time) {
        if !self.is_by_usage() {
            return;
        }
        let Self { usage, rng, .. } = self;
        for command in &batch.commands {
            command.each_key(&mut |key| {
                if fsm.find(key).is_some() {
                    usage.note(hash_of(key.db, &key.name), now, rng.random(), fsm.keys());
                }
            });
        }
    }

    /// For how many seconds a key has not been used, and how often it is.
    pub fn usage_of(&self, key: &Key, now: Time) -> [u32; 2] {
        let hash = hash_of(key.db, &key.name);
        [self.usage.idle(hash, now) / 4, self.usage.frequency(hash, now).into()]
    }

    /// Chooses one key more; false if there is none.
    fn choose(&mut self, fsm: &Fsm, now: Time) -> bool {
        for _ in 0..ATTEMPTS {
            (0..DRAWS).for_each(|_| self.draw(fsm, now));
            while let Some(candidate) = self.remembered.pop() {
                if self.still_stands(&candidate, fsm, now) {
                    self.going.insert(candidate.hash);
                    self.going_bytes += candidate.memory_bytes;
                    self.names_bytes += candidate.key.name.len();
                    self.chosen.push(candidate);
                    return true;
                }
            }
        }
        false
    }

    /// Draws a key at random, and remembers it if it is worse than others.
    fn draw(&mut self, fsm: &Fsm, now: Time) {
        let numbers = [self.rng.random(), self.rng.random()];
        let Some((db, item)) = fsm.choose(numbers, self.policy.is_volatile()) else { return };
        let hash = hash_of(db, item.name());
        let is_known = self.remembered.iter().any(|other| other.hash == hash);
        // What is past its deadline goes by itself.
        let is_due = !item.is_live(fsm.log_time_ms());
        if is_known || is_due || self.going.contains(&hash) {
            return;
        }
        let score = self.score(hash, item, now);
        let place = self.remembered.partition_point(|other| other.score < score);
        if self.remembered.len() < REMEMBERED {
            self.remembered.insert(place, candidate(db, item, hash, score));
        } else if place > 0 {
            // The best one is forgotten.
            self.remembered[..place].rotate_left(1);
            self.remembered[place - 1] = candidate(db, item, hash, score);
        }
    }

    fn score(&self, hash: u64, item: &Item, now: Time) -> u64 {
        match self.policy.order() {
            Some(EvictionOrder::Lru) => u64::from(self.usage.idle(hash, now)),
            // Of those that are used as often, the one unused for longer.
            Some(EvictionOrder::Lfu) => {
                let rarity = u64::from(u8::MAX - self.usage.frequency(hash, now));
                rarity << 32 | u64::from(self.usage.idle(hash, now))
            }
            Some(EvictionOrder::Ttl) => u64::MAX - item.deadline_ms(),
            Some(EvictionOrder::Random) | None => 0,
        }
    }

    /// Whether it is what it was when it was drawn, and has not been used since.
    fn still_stands(&self, candidate: &Candidate, fsm: &Fsm, now: Time) -> bool {
        let Some(item) = fsm.find(&candidate.key) else { return false };
        item.version() == candidate.version
            && item.is_live(fsm.log_time_ms())
            && self.score(candidate.hash, item, now) >= candidate.score
    }

    /// The entry that removes what was chosen, if anything was.
    fn batch(&self) -> Option<Batch> {
        let delete = |victim: &Candidate| Command::When {
            tests: vec![Test {
                key: victim.key.clone(),
                condition: Condition::IfVersion(victim.version),
            }],
            then: vec![Command::Delete(victim.key.clone())],
        };
        let commands: Vec<Command> = self.chosen.iter().map(delete).collect();
        (!commands.is_empty()).then_some(Batch { guards: Vec::new(), commands })
    }

    /// What was chosen has become this entry, or has come to nothing.
    fn proposed(&mut self, entry: Option<EntryId>) {
        let chosen = std::mem::take(&mut self.chosen);
        self.names_bytes = 0;
        let hashes: Vec<u64> = chosen.iter().map(|victim| victim.hash).collect();
        let bytes = chosen.iter().map(|victim| victim.memory_bytes).sum();
        match entry {
            Some(entry) => self.on_its_way.push_back(OnItsWay { entry, hashes, bytes }),
            None => self.gone(&hashes, bytes),
        }
    }

    /// This entry is applied, and this is the reply to it.
    pub fn applied(&mut self, entry: EntryId, reply: &Reply) {
        if self.on_its_way.front().is_some_and(|going| going.entry == entry)
            && let Reply::Answers(answers) = reply
        {
            let is_gone = |answer: &&Answer| matches!(answer, Answer::Nested(Some(_)));
            self.evicted += answers.iter().filter(is_gone).count() as u64;
        }
        self.skipped(entry);
    }

    /// Everything up to this entry is applied: what was proposed there has gone, and
    /// what an earlier term has left behind it never will.
    pub fn skipped(&mut self, entry: EntryId) {
        let is_over = |going: &mut OnItsWay| {
            going.entry.index <= entry.index || going.entry.term < entry.term
        };
        while let Some(going) = self.on_its_way.pop_front_if(is_over) {
            self.gone(&going.hashes, going.bytes);
        }
    }

    fn gone(&mut self, hashes: &[u64], bytes: u64) {
        self.going_bytes -= bytes;
        for hash in hashes {
            self.going.remove(hash);
        }
    }
}

fn candidate(db: u8, item: &Item, hash: u64, score: u64) -> Candidate {
    Candidate {
        key: Key { db, name: Bytes::copy_from_slice(item.name()) },
        hash,
        version: item.version(),
        memory_bytes: item.memory_bytes(),
        score,
    }
}

impl Replica {
    /// How a key is used, if it is there.
    pub(super) fn usage_of(&self, now: Now, key: &Key) -> Vec<Answer> {
        let now_ms = self.log_time_ms(now);
        if !self.fsm.find(key).is_some_and(|item| item.is_live(now_ms)) {
            return vec![Answer::Item(None)];
        }
        let usage = self.evictions.usage_of(key, now.time);
        usage.map(|number| Answer::Integer(number.into())).into()
    }

    /// Whether a write that may add so much has room, once others have made way.
    pub(super) fn make_room(&mut self, now: Now, growth: Growth) -> bool {
        let MemoryLimit { bytes: limit_bytes, eviction } = self.config.memory;
        let (most_bytes, in_flight) = (growth.most_bytes, self.writes.growth());
        if eviction == EvictionPolicy::NoEviction {
            return self.fsm.fits(most_bytes, in_flight.most_bytes, limit_bytes);
        }
        // No key makes way for what cannot fit anyhow.
        let least_bytes = self.fsm.sessions_bytes().saturating_add(growth.likely_bytes);
        if least_bytes > limit_bytes {
            return false;
        }
        let going_bytes = self.evictions.going_bytes();
        if !self.choose_for(now, growth.likely_bytes, VICTIMS_PER_WRITE) {
            return false;
        }
        // Who takes no more than others have left for it harms nobody. The rest is up
        // to the next turns, and nobody makes way for mere estimates.
        let unsure_bytes = most_bytes.saturating_sub(growth.likely_bytes);
        let chosen_bytes = self.evictions.going_bytes().saturating_sub(going_bytes);
        let is_paid = chosen_bytes >= growth.likely_bytes;
        let beyond_bytes = limit_bytes / SLACK + self.evictions.going_bytes();
        let most_limit_bytes = limit_bytes.saturating_add(beyond_bytes);
        (is_paid && unsure_bytes == 0)
            || self.fsm.fits(1 + unsure_bytes, in_flight.most_bytes, most_limit_bytes)
    }

    /// Chooses who makes way for so many bytes, so many keys at most. False if there
    /// is not even one left.
    fn choose_for(&mut self, now: Now, growth_bytes: u64, most: usize) -> bool {
        if self.fits(growth_bytes) {
            return true;
        }
        if !self.may_evict() {
            return true;
        }
        for _ in 0..most {
            let is_stuck = self.evictions.stuck_at == Some(self.applied);
            if is_stuck || !self.evictions.choose(&self.fsm, now.time) {
                self.evictions.stuck_at = Some(self.applied);
                return self.evictions.going_bytes() > 0 || self.is_any_due();
            }
            if self.evictions.is_full() {
                self.propose_victims(now);
            }
            if self.fits(growth_bytes) {
                break;
            }
        }
        true
    }

    fn is_any_due(&self) -> bool {
        self.fsm.next_deadline_ms().is_some_and(|due| due <= self.fsm.log_time_ms())
    }

    /// Whether this node leads, with everything applied that earlier leaders have
    /// decided on: they may have chosen the same.
    fn may_evict(&self) -> bool {
        let Role::Leader(leader) = self.raft.role() else { return false };
        let is_current = leader.noop() <= self.applied.index;
        let has_way = self.evictions.on_its_way.len() < ENTRIES_ON_THEIR_WAY;
        is_current && has_way && self.fault.is_none() && !self.raft.is_transferring()
    }

    /// Whether so many bytes more are within the limit, as far as is known.
    fn fits(&self, growth_bytes: u64) -> bool {
        let limit_bytes = self.config.memory.bytes.saturating_add(self.evictions.going_bytes());
        self.fsm.fits(growth_bytes, self.writes.growth().likely_bytes, limit_bytes)
    }

    /// Whether the data set is over its limit, and will not stay there.
    pub(super) fn is_short_of_memory(&self) -> bool {
        self.config.memory.eviction != EvictionPolicy::NoEviction && !self.fits(1)
    }

    /// At the end of a turn: what is over the limit by now makes way, and what was
    /// chosen is proposed. True if there is more for the next turn.
    pub(super) fn evict(&mut self, now: Now) -> bool {
        // Sessions make way for nobody.
        let may_fit = self.fsm.sessions_bytes() < self.config.memory.bytes;
        if may_fit && self.is_short_of_memory() && self.raft.leads_with_room(now.time) {
            self.choose_for(now, 1, VICTIMS_PER_ENTRY);
        }
        let is_any_chosen = !self.evictions.chosen.is_empty();
        self.propose_victims(now) && is_any_chosen && self.is_short_of_memory()
    }

    /// What is chosen goes by this entry. False if that could not be proposed.
    fn propose_victims(&mut self, now: Now) -> bool {
        let Some(batch) = self.evictions.batch() else { return true };
        let (stamp_ms, entry) = self.stamped(now, Action::Run { batch, session: None });
        let entry = self.raft.propose(entry).ok();
        match entry {
            Some(_) => self.last_stamp_ms = self.last_stamp_ms.max(stamp_ms),
            None => self.evictions.stuck_at = Some(self.applied),
        }
        self.evictions.proposed(entry);
        entry.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::{Limits, Proposal};
    use crate::request::Expiry;

    /// A cache as people use one: what is not there is fetched and put in.
    struct Cache {
        fsm: Fsm,
        evictions: Evictions,
        limit_bytes: u64,
    }

    impl Cache {
        fn apply(&mut self, batch: Batch) -> (EntryId, Reply) {
            let index = self.fsm.applied() + 1;
            let action = Action::Run { batch, session: None };
            let reply = self.fsm.apply(index, &Proposal { stamp_ms: 1, action });
            (EntryId::new(1, index), reply)
        }

        /// Whether the key was there.
        fn look_up(&mut self, name: &Bytes, now: Time) -> bool {
            let key = Key::new(name.clone());
            let get = Batch::of(Command::Get(key.clone()));
            self.evictions.note_use(&get, &self.fsm, now);
            if self.fsm.find(&key).is_some() {
                return true;
            }
            let (value, condition) = (Bytes::from_static(&[7; 100]), Condition::Always);
            let set = Command::Set { key, value, expiry: Expiry::Never, condition };
            let set = Batch::of(set);
            self.apply(set.clone());
            self.evictions.note_use(&set, &self.fsm, now);
            while self.fsm.memory_bytes() - self.evictions.going_bytes() > self.limit_bytes {
                assert!(self.evictions.choose(&self.fsm, now));
            }
            if let Some(batch) = self.evictions.batch() {
                let (entry, reply) = self.apply(batch);
                self.evictions.proposed(Some(entry));
                self.evictions.applied(entry, &reply);
            }
            false
        }
    }

    /// An exact order of all keys.
    #[derive(Default)]
    struct Exact {
        order: VecDeque<u32>,
    }

    impl Exact {
        fn look_up(&mut self, key: u32, room: usize) -> bool {
            let found = self.order.iter().rposition(|&other| other == key);
            found.and_then(|at| self.order.remove(at));
            self.order.push_back(key);
            if self.order.len() > room {
                self.order.pop_front();
            }
            found.is_some()
        }
    }

    /// Zipf's law: the key of rank k is asked for in proportion to 1/k.
    fn skewed(rng: &mut Xoshiro256PlusPlus, sums: &[f64]) -> u32 {
        let at = rng.random::<f64>() * sums[sums.len() - 1];
        u32::try_from(sums.partition_point(|&sum| sum < at)).unwrap()
    }

    /// How many of a thousand look-ups find their key: exactly, and by each policy.
    #[test]
    fn as_many_are_found_as_with_an_exact_order() {
        const KEYS: usize = 10_000;
        const ROOM: usize = 1000;
        let mut sums = Vec::new();
        (1..=KEYS).fold(0.0, |sum, rank| {
            sums.push(sum + 1.0 / rank as f64);
            sum + 1.0 / rank as f64
        });
        let names: Vec<Bytes> = (0..KEYS).map(|i| format!("key{i:05}").into()).collect();
        let cache = |policy| Cache {
            fsm: Fsm::new(Limits::default()),
            evictions: Evictions::new(policy, 1),
            limit_bytes: ROOM as u64 * (72 + 8 + 100),
        };
        let policies =
            [EvictionPolicy::AllKeysLru, EvictionPolicy::AllKeysLfu, EvictionPolicy::AllKeysRandom];
        let mut caches = policies.map(cache);
        let (mut exact, mut rng) = (Exact::default(), Xoshiro256PlusPlus::seed_from_u64(7));
        let mut found = [0; 4];
        for step in 0..100_000 {
            let (key, now) = (skewed(&mut rng, &sums), Time::from_millis(step * 10));
            let is_counted = usize::from(step >= 20_000);
            found[3] += is_counted * usize::from(exact.look_up(key, ROOM));
            for (cache, found) in caches.iter_mut().zip(&mut found) {
                *found += is_counted * usize::from(cache.look_up(&names[key as usize], now));
            }
        }
        let [lru, lfu, random, exact] = found.map(|found| found / 80);
        println!(
            "of 1000 look-ups are found: exact order {exact}, lru {lru}, lfu {lfu}, random {random}"
        );
        assert!(lru + 10 >= exact, "exact order {exact}, lru {lru}");
        assert!(lfu > lru && random + 30 < lru, "lru {lru}, lfu {lfu}, random {random}");
        assert!(caches.iter().all(|cache| cache.fsm.keys() == ROOM as u64));
        assert!(caches.iter().all(|cache| cache.evictions.evicted() > 10_000));
    }

    /// [512 keys of 64 KiB, each said twice, are more than a frame between nodes holds:
    /// no follower ever got that entry, and nothing was committed any more.]
    #[test]
    fn an_entry_of_victims_is_no_larger_than_others_are() {
        let mut cache = Cache {
            fsm: Fsm::new(Limits::default()),
            evictions: Evictions::new(EvictionPolicy::AllKeysRandom, 1),
            limit_bytes: u64::MAX,
        };
        for i in 0..100_u8 {
            let name = Bytes::from(vec![i; 60_000]);
            cache.look_up(&name, Time::ZERO);
        }
        while !cache.evictions.is_full() {
            assert!(cache.evictions.choose(&cache.fsm, Time::ZERO));
        }
        let batch = cache.evictions.batch().expect("some are chosen");
        assert!(batch.size_bytes() < 1 << 20, "{} bytes", batch.size_bytes());
    }
}
