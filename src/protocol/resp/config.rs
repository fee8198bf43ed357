//! CONFIG: the settings of a node, under Redis' names.
//!
//! They are this node's own, as they are in Redis. How large the data set may grow is
//! up to the node that leads, so whoever changes that does so on all of them.

use std::time::Duration;

use super::call::{Call, Planned, Refused, SYNTAX};
use crate::encoding::parse_i64;
use crate::protocol::surroundings::Watch;
use crate::request::{DATABASES, EvictionPolicy, MemoryLimit, SMALLEST_MEMORY_BYTES, glob};

/// Settings of Redis that tune what we do not have. Tools set them, and like to
/// read what they have set.
const TUNING: [(&str, &str); 9] = [
    ("activerehashing", "yes"),
    ("hash-max-listpack-entries", "128"),
    ("hash-max-listpack-value", "64"),
    ("hash-max-ziplist-entries", "128"),
    ("hash-max-ziplist-value", "64"),
    ("list-max-listpack-size", "-2"),
    ("notify-keyspace-events", ""),
    ("set-max-intset-entries", "512"),
    ("zset-max-listpack-entries", "128"),
];

/// What is set, under Redis' names.
fn settings(call: &Call<'_>) -> Vec<(&'static str, String)> {
    let surroundings = &call.session.surroundings;
    let facts = surroundings.facts();
    let fixed = [
        ("appendfsync", "always".to_owned()),
        ("appendonly", "yes".to_owned()),
        ("databases", DATABASES.to_string()),
        ("latency-monitor-threshold", facts.watch.spike.as_millis().to_string()),
        ("maxclients", facts.clients_limit.to_string()),
        ("maxmemory", facts.memory.bytes.to_string()),
        ("maxmemory-policy", facts.memory.eviction.name().to_owned()),
        ("port", facts.port.to_string()),
        ("proto-max-bulk-len", call.limits.value_bytes.to_string()),
        ("replica-read-only", "no".to_owned()),
        ("requirepass", String::new()),
        ("save", String::new()),
        ("slave-read-only", "no".to_owned()),
        ("slowlog-log-slower-than", slower_than_us(&facts.watch).to_string()),
        ("slowlog-max-len", facts.watch.slow_requests.to_string()),
        ("timeout", "0".to_owned()),
    ];
    let tuning = TUNING.map(|(name, usual)| {
        (name, surroundings.remembered(name).unwrap_or_else(|| usual.to_owned()))
    });
    fixed.into_iter().chain(tuning).collect()
}

pub(super) fn config_get(call: &mut Call<'_>) -> Planned {
    if call.count() > SETTINGS_NAMED {
        return Err(SYNTAX);
    }
    let patterns: Vec<Vec<u8>> =
        (2..call.count()).map(|i| call.get(i).to_ascii_lowercase()).collect();
    // A setting that is asked for by its name is told by it as it was written.
    let as_told = |name: &'static str| {
        let written = patterns.iter().position(|pattern| pattern == name.as_bytes());
        let matches = || patterns.iter().any(|pattern| glob::matches(pattern, name.as_bytes()));
        match written {
            Some(i) => Some(call.get(2 + i)),
            None => matches().then_some(name.as_bytes()),
        }
    };
    let found: Vec<_> = settings(call)
        .into_iter()
        .filter_map(|(name, value)| Some((as_told(name)?, value)))
        .collect();
    Ok(call.written(|out| {
        out.map(found.len());
        for (name, value) in &found {
            out.bulk(name);
            out.bulk(value.as_bytes());
        }
    }))
}

pub(super) fn config_set(call: &mut Call<'_>) -> Planned {
    if call.count() % 2 == 1 || call.count() > SETTINGS_NAMED {
        return Err(SYNTAX);
    }
    let (mut remembered, settings) = (Vec::new(), settings(call));
    let before = call.session.surroundings.facts();
    let (mut memory, mut watch) = (before.memory, before.watch);
    // All of them or none.
    for i in (2..call.count()).step_by(2) {
        let value = String::from_utf8_lossy(call.get(i + 1)).into_owned();
        let is_same = |j| call.get(j).eq_ignore_ascii_case(call.get(i));
        if (2..i).step_by(2).any(is_same) {
            let name = String::from_utf8_lossy(call.get(i)).to_lowercase();
            return Err(failed(&name, "duplicate parameter"));
        }
        if let Some((name, _)) = TUNING.iter().find(|(name, _)| call.is(i, name)) {
            if value.len() > SETTING_BYTES {
                return Err(format!("ERR a setting exceeds {SETTING_BYTES} bytes").into());
            }
            remembered.push((*name, value));
        } else if !limit_memory(call, i, &value, &mut memory)? && !watch_more(call, i, &mut watch)?
        {
            check_fixed(call, i, &value, &settings)?;
        }
    }
    for (name, value) in remembered {
        call.session.surroundings.remember(name, value);
    }
    if memory != before.memory {
        call.session.surroundings.limit_memory(memory);
    }
    if watch != before.watch {
        call.session.surroundings.watch(watch);
    }
    call.ok()
}

/// How many words a CONFIG SET may have.
const SETTINGS_NAMED: usize = 128;

/// The longest setting that is remembered.
const SETTING_BYTES: usize = 256;

/// Takes a setting about memory; false if it is another one.
fn limit_memory(
    call: &Call<'_>,
    i: usize,
    value: &str,
    memory: &mut MemoryLimit,
) -> Result<bool, Refused> {
    if call.is(i, "maxmemory") {
        let bytes = memory_bytes(value).ok_or_else(|| failed("maxmemory", MEMORY))?;
        if bytes < SMALLEST_MEMORY_BYTES {
            let least = format!("argument must be at least {SMALLEST_MEMORY_BYTES}");
            return Err(failed("maxmemory", &least));
        }
        memory.bytes = bytes;
    } else if call.is(i, "maxmemory-policy") {
        let names = || EvictionPolicy::ALL.map(EvictionPolicy::name).join(", ");
        let wrong = || format!("argument(s) must be one of the following: {}", names());
        let found = EvictionPolicy::find(value);
        memory.eviction = found.ok_or_else(|| failed("maxmemory-policy", &wrong()))?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// The most slow requests that are remembered: some kilobytes each at worst.
const SLOW_REQUESTS: i64 = 1024;

fn slower_than_us(watch: &Watch) -> i64 {
    watch.slow_request.map_or(-1, |least| i64::try_from(least.as_micros()).unwrap_or(i64::MAX))
}

/// Takes a setting about what is remembered of all that takes long; false if it is
/// another one.
fn watch_more(call: &Call<'_>, i: usize, watch: &mut Watch) -> Result<bool, Refused> {
    if call.is(i, "slowlog-log-slower-than") {
        let us = number(call, i, -1, i64::MAX)?;
        watch.slow_request = u64::try_from(us).ok().map(Duration::from_micros);
    } else if call.is(i, "slowlog-max-len") {
        watch.slow_requests = number(call, i, 0, SLOW_REQUESTS)?.unsigned_abs() as usize;
    } else if call.is(i, "latency-monitor-threshold") {
        watch.spike = Duration::from_millis(number(call, i, 0, i64::MAX)?.unsigned_abs());
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// A setting that is a number within these limits.
fn number(call: &Call<'_>, i: usize, least: i64, most: i64) -> Result<i64, Refused> {
    let name = String::from_utf8_lossy(call.get(i)).to_lowercase();
    let number = parse_i64(call.get(i + 1))
        .ok_or_else(|| failed(&name, "argument couldn't be parsed into an integer"))?;
    if (least..=most).contains(&number) {
        return Ok(number);
    }
    Err(failed(&name, &format!("argument must be between {least} and {most} inclusive")))
}

const MEMORY: &str = "argument must be a memory value";

/// A number with one of Redis' units, of which those with a `b` are powers of two.
fn memory_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match &unit.to_ascii_lowercase()[..] {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// To set what is so changes nothing; the rest are flags.
fn check_fixed(
    call: &Call<'_>,
    i: usize,
    value: &str,
    settings: &[(&'static str, String)],
) -> Result<(), Refused> {
    let name = String::from_utf8_lossy(call.get(i));
    match settings.iter().find(|(known, _)| call.is(i, known)) {
        Some((_, known)) if known.eq_ignore_ascii_case(value) => Ok(()),
        Some(_) => Err(failed(&name, "can't set immutable config: it is a flag of cached")),
        None => {
            let what = "Unknown option or number of arguments for CONFIG SET";
            Err(format!("ERR {what} - '{name}'").into())
        }
    }
}

fn failed(name: &str, why: &str) -> Refused {
    format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}").into()
}

pub(super) fn config_resetstat(call: &mut Call<'_>) -> Planned {
    call.session.surroundings.reset_counts();
    call.ok()
}

pub(super) fn config_rewrite(_call: &mut Call<'_>) -> Planned {
    Err("ERR The server is running without a config file".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_units_of_redis() {
        let table = [
            ("0", Some(0)),
            ("100", Some(100)),
            ("7b", Some(7)),
            ("2k", Some(2000)),
            ("2KB", Some(2048)),
            ("3m", Some(3_000_000)),
            ("3mb", Some(3 << 20)),
            ("1G", Some(1_000_000_000)),
            ("1gB", Some(1 << 30)),
            ("", None),
            ("mb", None),
            ("-1", None),
            ("1tb", None),
            ("1.5g", None),
            ("18446744073709551615gb", None),
        ];
        for (text, bytes) in table {
            assert_eq!(memory_bytes(text), bytes, "{text}");
        }
    }
}
