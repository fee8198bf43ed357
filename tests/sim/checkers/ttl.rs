//! A value lives as long as it was told to, and does not come back.
//!
//! Each value is written at most once, with a time to live, under a key that others
//! may write and delete too. When a write took effect is not known exactly: some
//! time between its call and its return. Times are real, in microseconds.

/// What a client did, and when.
#[derive(Debug, Clone)]
pub enum Event {
    /// `at_latest_us` is `None` if the outcome is unknown: it may happen much later, or never.
    Wrote { key: String, value: u64, at_earliest_us: u64, at_latest_us: Option<u64>, ttl_us: u64 },
    /// A linearizable read.
    Read { key: String, found: Option<u64>, called_us: u64, returned_us: u64 },
    /// `at_latest_us` as above.
    Deleted { key: String, at_earliest_us: u64, at_latest_us: Option<u64> },
}

/// A write with all that concerns it.
struct Life<'a> {
    key: &'a str,
    value: u64,
    at_earliest_us: u64,
    at_latest_us: Option<u64>,
    ttl_us: u64,
    reads: Vec<Read>,
    /// When others wrote or deleted the key.
    others: Vec<(u64, Option<u64>)>,
}

#[derive(Debug, Clone, Copy)]
struct Read {
    found: Option<u64>,
    called_us: u64,
    returned_us: u64,
}

/// Whether every read agrees with every write; clocks may be wrong by `bound_us`
/// over a time to live.
pub fn check(events: &[Event], bound_us: u64) -> Result<(), String> {
    let lives: Vec<Life> = events.iter().filter_map(|event| Life::of(event, events)).collect();
    for event in events {
        let Event::Read { key, found: Some(value), .. } = event else { continue };
        if !lives.iter().any(|life| life.key == key && life.value == *value) {
            return Err(format!("{key} held {value}, which nobody wrote: {event:?}"));
        }
    }
    lives.iter().try_for_each(|life| life.check(bound_us))
}

impl<'a> Life<'a> {
    fn of(event: &'a Event, events: &[Event]) -> Option<Self> {
        let &Event::Wrote { ref key, value, at_earliest_us, at_latest_us, ttl_us } = event else {
            return None;
        };
        let (mut reads, mut others) = (Vec::new(), Vec::new());
        for other in
            events.iter().filter(|other| other.key() == key && !std::ptr::eq(*other, event))
        {
            match *other {
                Event::Read { found, called_us, returned_us, .. } => {
                    reads.push(Read { found, called_us, returned_us });
                }
                Event::Wrote { at_earliest_us, at_latest_us, .. }
                | Event::Deleted { at_earliest_us, at_latest_us, .. } => {
                    others.push((at_earliest_us, at_latest_us));
                }
            }
        }
        Some(Self { key, value, at_earliest_us, at_latest_us, ttl_us, reads, others })
    }

    fn check(&self, bound_us: u64) -> Result<(), String> {
        let back_us = self.gone_us();
        for read in &self.reads {
            let wrong = match self.is_found(read) {
                true if read.returned_us < self.at_earliest_us => "seen before it was written",
                true if self.is_over(read, bound_us) => "seen after its time",
                true if back_us.is_some_and(|gone| gone < read.called_us) => "back again",
                false if self.is_due(read, bound_us) => "gone before its time",
                _ => continue,
            };
            let Self { key, value, at_earliest_us, at_latest_us, ttl_us, .. } = self;
            return Err(format!(
                "{key} = {value}, written in {at_earliest_us}..{at_latest_us:?} \
                 for {ttl_us} us: {wrong}: {read:?}, bound {bound_us} us"
            ));
        }
        Ok(())
    }

    fn is_found(&self, read: &Read) -> bool {
        read.found == Some(self.value)
    }

    /// At its call the value was dead, however late it was written.
    fn is_over(&self, read: &Read, bound_us: u64) -> bool {
        self.at_latest_us.is_some_and(|written| {
            read.called_us > written.saturating_add(self.ttl_us).saturating_add(bound_us)
        })
    }

    /// Until its return the value was alive, however early it was written, and whatever
    /// else happened to the key was over before it or began later.
    fn is_due(&self, read: &Read, bound_us: u64) -> bool {
        let is_harmless = |&(earliest, latest): &(u64, Option<u64>)| {
            earliest > read.returned_us || latest.is_some_and(|latest| latest < self.at_earliest_us)
        };
        let dead_us = self.at_earliest_us.saturating_add(self.ttl_us).saturating_sub(bound_us);
        self.at_latest_us.is_some_and(|written| written < read.called_us)
            && read.returned_us < dead_us
            && self.others.iter().all(is_harmless)
    }

    /// When a read had missed it that was called after it was acknowledged or seen.
    fn gone_us(&self) -> Option<u64> {
        let seen = self.reads.iter().filter(|read| self.is_found(read)).map(|r| r.returned_us);
        let known_us = seen.chain(self.at_latest_us).min()?;
        let missed = self.reads.iter().filter(|r| !self.is_found(r) && r.called_us > known_us);
        missed.map(|read| read.returned_us).min()
    }
}

impl Event {
    fn key(&self) -> &str {
        match self {
            Self::Wrote { key, .. } | Self::Read { key, .. } | Self::Deleted { key, .. } => key,
        }
    }
}
