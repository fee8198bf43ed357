//! What took long: requests, for SLOWLOG, and whatever else is timed, for LATENCY.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::protocol::surroundings::{SlowRequest, Spikes, Watch};

/// How many samples of an event are kept, one a second at most. As in Redis.
const SAMPLES: usize = 160;

/// What is remembered of one node, single-threaded.
#[derive(Default)]
pub struct Slow {
    watch: Cell<Watch>,
    requests: RefCell<VecDeque<SlowRequest>>,
    next_id: Cell<u64>,
    spikes: RefCell<BTreeMap<&'static str, Event>>,
}

#[derive(Default)]
struct Event {
    samples: VecDeque<(u64, u64)>,
    longest_ms: u64,
}

fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

impl Slow {
    /// What is worth remembering.
    pub fn watch(&self) -> Watch {
        self.watch.get()
    }

    /// From now on this is.
    pub fn set_watch(&self, watch: Watch) {
        self.watch.set(watch);
        self.requests.borrow_mut().truncate(watch.slow_requests);
    }

    /// Whether a request is to be noted that took so long.
    pub fn is_slow(&self, took: Duration) -> bool {
        self.watch.get().slow_request.is_some_and(|limit| took >= limit)
    }

    /// A request was slow.
    pub fn note_request(&self, took: Duration, words: Vec<Bytes>, address: String, name: String) {
        let id = self.next_id.replace(self.next_id.get() + 1);
        let mut requests = self.requests.borrow_mut();
        requests.push_front(SlowRequest { id, at_s: now_s(), took, words, address, name });
        requests.truncate(self.watch.get().slow_requests);
    }

    /// Something was done.
    pub fn note(&self, event: &'static str, took: Duration) {
        let least = self.watch.get().spike;
        if !least.is_zero() && took >= least {
            self.note_spike(event, now_s(), took);
        }
    }

    fn note_spike(&self, event: &'static str, at_s: u64, took: Duration) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let mut spikes = self.spikes.borrow_mut();
        let event = spikes.entry(event).or_default();
        event.longest_ms = event.longest_ms.max(ms);
        match event.samples.back_mut() {
            Some((last_s, longest)) if *last_s == at_s => *longest = (*longest).max(ms),
            _ => event.samples.push_back((at_s, ms)),
        }
        if event.samples.len() > SAMPLES {
            event.samples.pop_front();
        }
    }

    /// The newest requests.
    pub fn requests(&self, limit: usize) -> Vec<SlowRequest> {
        self.requests.borrow().iter().take(limit).cloned().collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.requests.borrow().len()
    }

    /// Forgets them.
    pub fn forget_requests(&self) {
        self.requests.borrow_mut().clear();
    }

    /// What took long besides.
    pub fn spikes(&self) -> Vec<Spikes> {
        let spikes = self.spikes.borrow();
        let told = |(&event, known): (&&'static str, &Event)| Spikes {
            event,
            samples: known.samples.iter().copied().collect(),
            longest_ms: known.longest_ms,
        };
        spikes.iter().map(told).collect()
    }

    /// Forgets one event.
    pub fn forget_spikes(&self, event: &str) -> bool {
        self.spikes.borrow_mut().remove(event).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn note(slow: &Slow, ms: u32) {
        slow.note_request(ms * MS, vec![], String::new(), String::new());
    }

    #[test]
    fn the_newest_requests_are_kept_and_numbered() {
        let slow = Slow::default();
        assert!(!slow.is_slow(9 * MS) && slow.is_slow(10 * MS));
        slow.set_watch(Watch { slow_requests: 2, ..Watch::default() });
        (10..15).for_each(|ms| note(&slow, ms));
        let kept: Vec<_> = slow.requests(9).iter().map(|kept| (kept.id, kept.took)).collect();
        assert_eq!(kept, [(4, 14 * MS), (3, 13 * MS)]);
        slow.set_watch(Watch { slow_requests: 1, slow_request: None, ..Watch::default() });
        assert_eq!((slow.count(), slow.requests(1)[0].id), (1, 4));
        assert!(!slow.is_slow(Duration::MAX));
        slow.forget_requests();
        note(&slow, 15);
        assert_eq!(slow.requests(9)[0].id, 5, "a number is never given twice");
    }

    #[test]
    fn of_each_second_the_longest_is_kept_and_of_each_event_so_many_seconds() {
        let slow = Slow::default();
        slow.note("turn", Duration::from_secs(9));
        assert_eq!(slow.spikes(), [], "it is off");
        for (at_s, ms) in [(1, 20), (1, 50), (1, 30), (2, 10)] {
            slow.note_spike("turn", at_s, ms * MS);
        }
        let expected = Spikes { event: "turn", samples: vec![(1, 50), (2, 10)], longest_ms: 50 };
        assert_eq!(slow.spikes(), [expected]);
        (3..1000).for_each(|at_s| slow.note_spike("turn", at_s, MS));
        let samples = slow.spikes().remove(0).samples;
        assert_eq!(
            (samples.len(), samples[0], samples[SAMPLES - 1]),
            (SAMPLES, (840, 1), (999, 1))
        );
        assert!(slow.forget_spikes("turn") && !slow.forget_spikes("turn"));
    }
}
