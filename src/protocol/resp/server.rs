//! Commands about the node, the table of commands, and EXEC.

use std::time::Duration;

use super::REDIS_VERSION;
use super::call::{Call, Later, Plan, Planned, Refused, SYNTAX};
use super::clients;
use super::table::{self, COMMANDS, Spec};
use super::write::Out;
use crate::request::{Request, Status};

pub(super) fn time(_call: &mut Call<'_>) -> Planned {
    Ok(Plan::Ask(Request::Status, Later::Time))
}

pub(super) fn role(_call: &mut Call<'_>) -> Planned {
    Ok(Plan::Ask(Request::Status, Later::Role))
}

pub(super) fn leader(_call: &mut Call<'_>) -> Planned {
    Ok(Plan::Ask(Request::Status, Later::Leader))
}

/// What is told of the node alone.
pub(super) fn write_about_node(later: &Later, status: &Status, out: &mut Out<'_>) {
    match later {
        Later::Time => write_time(status, out),
        Later::Role => write_role(status, out),
        _ => write_leader(status, out),
    }
}

/// The cluster's own clock, which is what deadlines go by.
fn write_time(status: &Status, out: &mut Out<'_>) {
    out.array(2);
    out.bulk((status.log_time_ms / 1000).to_string().as_bytes());
    out.bulk((status.log_time_ms % 1000 * 1000).to_string().as_bytes());
}

/// Every node takes writes, so every node is a master; the others are its replicas.
fn write_role(status: &Status, out: &mut Out<'_>) {
    let others: Vec<_> =
        status.members.iter().filter(|member| member.name != status.name).collect();
    let applied = i64::try_from(status.applied).unwrap_or(i64::MAX);
    out.array(3);
    out.bulk(b"master");
    out.integer(applied);
    out.array(others.len());
    for member in others {
        let (host, port) = member.client_address.rsplit_once(':').unwrap_or_default();
        out.array(3);
        out.bulk(host.as_bytes());
        out.bulk(port.as_bytes());
        out.bulk(status.commit.to_string().as_bytes());
    }
}

fn write_leader(status: &Status, out: &mut Out<'_>) {
    match status.members.iter().find(|member| member.leader) {
        Some(leader) => out.bulk(leader.client_address.as_bytes()),
        None => out.null(),
    }
}

/// How long one question about disks may take: whoever leads answers it, and that
/// may be another one by the next.
const WAIT_STEP: Duration = Duration::from_secs(1);

/// What WAIT and WAITAOF wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    /// So many disks besides the leader's,
    others: u32,
    /// and that, too.
    own: bool,
    /// It is WAITAOF.
    is_waitaof: bool,
    /// For how long yet; for ever if `None`.
    left: Option<Duration>,
}

impl Wait {
    /// The next step of it.
    fn ask(self) -> (Request, Later) {
        let within = self.left.map_or(WAIT_STEP, |left| left.min(WAIT_STEP));
        let left = self.left.map(|left| left - within);
        let request = Request::AwaitDurable { others: self.others, own: self.own, within };
        (request, Later::Wait(Self { left, ..self }))
    }

    /// Writes how many disks have it, or asks once more.
    pub(super) fn write(
        self,
        others: i64,
        own: i64,
        out: &mut Out<'_>,
    ) -> Option<(Request, Later)> {
        let is_there = others >= i64::from(self.others) && own >= i64::from(self.own);
        if !is_there && self.left.is_none_or(|left| !left.is_zero()) {
            return Some(self.ask());
        }
        if self.is_waitaof {
            out.array(2);
            out.integer(own);
        }
        out.integer(others);
        None
    }
}

/// So many disks besides the leader's have what the connection wrote.
pub(super) fn wait(call: &mut Call<'_>) -> Planned {
    let others = u32::try_from(call.integer(1)?.max(0)).unwrap_or(u32::MAX);
    begin_wait(Wait { others, own: false, is_waitaof: false, left: time_left(call, 2)? })
}

/// The first number is about the leader's own disk.
pub(super) fn waitaof(call: &mut Call<'_>) -> Planned {
    let negative = Refused::from("ERR value is out of range, must be positive");
    let own = match call.integer(1)? {
        own @ 0..=1 => own == 1,
        ..0 => return Err(negative),
        _ => return Err("ERR value is out of range, value must between 0 and 1".into()),
    };
    let others = u32::try_from(call.integer(2)?).map_err(|_| negative)?;
    begin_wait(Wait { others, own, is_waitaof: true, left: time_left(call, 3)? })
}

/// A time that may be none.
fn time_left(call: &Call<'_>, i: usize) -> Result<Option<Duration>, Refused> {
    Ok(Some(clients::timeout(call, i)?).filter(|left| !left.is_zero()))
}

fn begin_wait(wait: Wait) -> Planned {
    let (request, later) = wait.ask();
    Ok(Plan::Ask(request, later))
}

/// There are no functions to be removed.
pub(super) fn function_flush(call: &mut Call<'_>) -> Planned {
    match call.count() {
        2 => call.ok(),
        3 if call.is(2, "ASYNC") || call.is(2, "SYNC") => call.ok(),
        3 => Err("ERR FUNCTION FLUSH only supports SYNC|ASYNC option".into()),
        _ => Err(call.unknown_form()),
    }
}

pub(super) fn function_list(call: &mut Call<'_>) -> Planned {
    Ok(call.written(|out| out.array(0)))
}

/// There are no slots to be told of: every node takes every key.
pub(super) fn cluster(_call: &mut Call<'_>) -> Planned {
    Err("ERR This instance has cluster support disabled".into())
}

/// The words that a command of two may have as its second.
pub(super) fn help(call: &mut Call<'_>) -> Planned {
    let (container, _) = call.name.split_once('|').unwrap_or((call.name, ""));
    let title = container.to_uppercase();
    let mut lines =
        vec![format!("{title} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")];
    for spec in COMMANDS {
        if let Some((of, word)) = spec.name.split_once('|')
            && of == container
        {
            lines.extend([word.to_uppercase(), format!("    {}", spec.summary)]);
        }
    }
    Ok(call.written(|out| {
        out.array(lines.len());
        lines.iter().for_each(|line| out.simple(line));
    }))
}

pub(super) fn lolwut(call: &mut Call<'_>) -> Planned {
    let text = format!("raftcache {}\nRedis ver. {REDIS_VERSION}\n", env!("CARGO_PKG_VERSION"));
    Ok(call.written(|out| out.verbatim(&text)))
}

/// The commands, those of two words under the first.
fn top_level() -> Vec<&'static Spec> {
    COMMANDS.iter().filter(|spec| !spec.name.contains('|')).collect()
}

pub(super) fn command(call: &mut Call<'_>) -> Planned {
    let all = top_level();
    Ok(call.written(|out| {
        out.array(all.len());
        all.iter().for_each(|spec| write_info(spec, out));
    }))
}

fn write_info(spec: &Spec, out: &mut Out<'_>) {
    let (first, last, step) = spec.keys;
    out.array(10);
    out.bulk(spec.name.as_bytes());
    out.integer(i64::from(spec.arity));
    out.set(spec.flags.len());
    spec.flags.iter().for_each(|flag| out.simple(flag));
    [first, last, step].into_iter().for_each(|number| out.integer(i64::from(number)));
    // Categories of access, tips, specifications of keys, subcommands.
    out.set(1);
    out.simple(&format!("@{}", spec.group));
    (0..3).for_each(|_| out.array(0));
}

pub(super) fn command_count(call: &mut Call<'_>) -> Planned {
    let count = i64::try_from(top_level().len()).unwrap_or(i64::MAX);
    Ok(call.written(|out| out.integer(count)))
}

pub(super) fn command_list(call: &mut Call<'_>) -> Planned {
    if call.count() > 2 {
        return Err(SYNTAX);
    }
    let all = top_level();
    Ok(call.written(|out| {
        out.array(all.len());
        all.iter().for_each(|spec| out.bulk(spec.name.as_bytes()));
    }))
}

/// How many words COMMAND INFO and DOCS may have.
const COMMANDS_NAMED: usize = 1024;

pub(super) fn command_info(call: &mut Call<'_>) -> Planned {
    if call.count() == 2 {
        return command(call);
    }
    if call.count() > COMMANDS_NAMED {
        return Err(SYNTAX);
    }
    let specs: Vec<_> = (2..call.count()).map(|i| table::find(call.get(i))).collect();
    Ok(call.written(|out| {
        out.array(specs.len());
        for spec in &specs {
            match spec {
                Some(spec) => write_info(spec, out),
                None => out.null(),
            }
        }
    }))
}

pub(super) fn command_docs(call: &mut Call<'_>) -> Planned {
    if call.count() > COMMANDS_NAMED {
        return Err(SYNTAX);
    }
    let named = (2..call.count()).filter_map(|i| table::find(call.get(i)));
    let specs = if call.count() == 2 { top_level() } else { named.collect() };
    Ok(call.written(|out| {
        out.map(specs.len());
        for spec in &specs {
            out.bulk(spec.name.as_bytes());
            out.map(2);
            for (name, text) in [("summary", spec.summary), ("group", spec.group)] {
                out.bulk(name.as_bytes());
                out.bulk(text.as_bytes());
            }
        }
    }))
}

/// The number that a word begins with, as C reads it; 0 if there is none.
fn leading_number(word: &[u8]) -> usize {
    let text = word.trim_ascii_start();
    let text = text.strip_prefix(b"+").unwrap_or(text);
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[..digits]).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

pub(super) fn command_getkeys(call: &mut Call<'_>) -> Planned {
    let words = call.count() - 2;
    let spec = table::find(call.get(2)).ok_or(Refused::from("ERR Invalid command specified"))?;
    if !spec.fits(words) {
        return Err("ERR Invalid number of arguments specified for command".into());
    }
    let positions = if let Some((counter, step)) = spec.counted_keys() {
        let count = leading_number(call.get(2 + counter));
        let end = count.checked_mul(step).and_then(|keys| keys.checked_add(counter + 1));
        let end = end.filter(|&end| end <= words).unwrap_or(0);
        (counter + 1..end).step_by(step).collect()
    } else {
        spec.key_positions(words)
    };
    if positions.is_empty() && spec.counted_keys().is_none() {
        return Err("ERR The command has no key arguments".into());
    }
    Ok(call.written(|out| {
        out.array(positions.len());
        positions.iter().for_each(|i| out.bulk(call.get(2 + i)));
    }))
}
