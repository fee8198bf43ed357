//! SLOWLOG, LATENCY and DEBUG: what takes long, and what is made to.
//!
//! A request takes from its arrival until its reply: the network between nodes and
//! their disks included, for that is what its client waits for. Redis counts only
//! what its own thread does.

use std::time::Duration;

use super::call::{Call, Plan, Planned, Refused};
use crate::encoding::parse_i64;
use crate::protocol::surroundings::{SlowRequest, Spikes};

/// How many a GET shows that does not say how many.
const SHOWN: usize = 10;

pub(super) fn slowlog_get(call: &mut Call<'_>) -> Planned {
    let shown = match call.count() {
        2 => SHOWN,
        3 => match parse_i64(call.get(2)) {
            Some(-1) => usize::MAX,
            count => count
                .and_then(|count| usize::try_from(count).ok())
                .ok_or(Refused::from("ERR count should be greater than or equal to -1"))?,
        },
        _ => return Err(call.unknown_form()),
    };
    let requests = call.session.surroundings.slow_requests(shown);
    Ok(call.written(|out| {
        out.array(requests.len());
        for SlowRequest { id, at_s, took, words, address, name } in &requests {
            out.array(6);
            out.integer(id.cast_signed());
            out.integer(at_s.cast_signed());
            out.integer(i64::try_from(took.as_micros()).unwrap_or(i64::MAX));
            out.array(words.len());
            words.iter().for_each(|word| out.bulk(word));
            out.bulk(address.as_bytes());
            out.bulk(name.as_bytes());
        }
    }))
}

pub(super) fn slowlog_len(call: &mut Call<'_>) -> Planned {
    let count = call.session.surroundings.count_slow_requests();
    Ok(call.written(|out| out.integer(count as i64)))
}

pub(super) fn slowlog_reset(call: &mut Call<'_>) -> Planned {
    call.session.surroundings.forget_slow_requests();
    call.ok()
}

pub(super) fn latency_latest(call: &mut Call<'_>) -> Planned {
    let spikes = call.session.surroundings.spikes();
    Ok(call.written(|out| {
        out.array(spikes.len());
        for Spikes { event, samples, longest_ms } in &spikes {
            let (at_s, ms) = samples.last().copied().unwrap_or_default();
            out.array(4);
            out.bulk(event.as_bytes());
            for number in [at_s, ms, *longest_ms] {
                out.integer(number.cast_signed());
            }
        }
    }))
}

pub(super) fn latency_history(call: &mut Call<'_>) -> Planned {
    let spikes = call.session.surroundings.spikes();
    let of_event = spikes.iter().filter(|spikes| call.is(2, spikes.event));
    let samples: Vec<_> = of_event.flat_map(|spikes| &spikes.samples).collect();
    Ok(call.written(|out| {
        out.array(samples.len());
        for (at_s, ms) in samples {
            out.array(2);
            out.integer(at_s.cast_signed());
            out.integer(ms.cast_signed());
        }
    }))
}

pub(super) fn latency_reset(call: &mut Call<'_>) -> Planned {
    let surroundings = &call.session.surroundings;
    let mut known = surroundings.spikes();
    if call.count() > 2 {
        known.retain(|spikes| (2..call.count()).any(|i| call.is(i, spikes.event)));
    }
    let forgotten = known.iter().filter(|spikes| surroundings.forget_spikes(spikes.event)).count();
    Ok(call.written(|out| out.integer(forgotten as i64)))
}

pub(super) fn latency_doctor(call: &mut Call<'_>) -> Planned {
    let threshold = call.session.surroundings.facts().watch.spike;
    let spikes = call.session.surroundings.spikes();
    let mut text = match (threshold.is_zero(), spikes.is_empty()) {
        (true, _) => "Nothing is watched: CONFIG SET latency-monitor-threshold <milliseconds> \
                      begins to.\n"
            .to_owned(),
        (false, true) => format!("Nothing took {} ms or more.\n", threshold.as_millis()),
        (false, false) => String::new(),
    };
    for Spikes { event, samples, longest_ms } in &spikes {
        let total: u64 = samples.iter().map(|(_, ms)| ms).sum();
        let mean_ms = total / samples.len().max(1) as u64;
        text += &format!(
            "{event}: in {} different seconds, {mean_ms} ms on average, {longest_ms} ms at worst. \
             {}\n",
            samples.len(),
            advice(event)
        );
    }
    Ok(call.written(|out| out.verbatim(&text)))
}

/// Where to look.
fn advice(event: &str) -> &'static str {
    match event {
        "commit" => {
            "From a write's entry in the log to its being applied: the disks of a majority and the network."
        }
        "event-loop" => {
            "The node heard nobody meanwhile: large values, or too little of a processor."
        }
        _ => "From a request's arrival to its reply: SLOWLOG GET shows which.",
    }
}

/// The longest that a connection may be made to sleep.
const LONGEST_SLEEP_S: f64 = 3600.0;

/// Its own connection sleeps, and nobody else.
pub(super) fn debug_sleep(call: &mut Call<'_>) -> Planned {
    let text = std::str::from_utf8(call.get(2)).unwrap_or_default();
    let seconds = text.parse().ok().filter(|seconds| (0.0..=LONGEST_SLEEP_S).contains(seconds));
    let wrong = || format!("ERR DEBUG SLEEP takes 0 to {LONGEST_SLEEP_S} seconds");
    let length = Duration::from_secs_f64(seconds.ok_or_else(wrong)?);
    Ok(Plan::Late(length, bytes::Bytes::from_static(b"+OK\r\n")))
}

/// What is past its deadline is nowhere to be seen, removed or not.
pub(super) fn debug_set_active_expire(call: &mut Call<'_>) -> Planned {
    call.integer(2)?;
    call.ok()
}

/// The longest line that a client may put in the log.
const LOGGED_BYTES: usize = 1 << 10;

pub(super) fn debug_log(call: &mut Call<'_>) -> Planned {
    let shown = &call.get(2)[..call.get(2).len().min(LOGGED_BYTES)];
    log::warn!("DEBUG LOG: {}", shown.escape_ascii());
    call.ok()
}
