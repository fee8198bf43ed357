//! CLIENT LIST, KILL and PAUSE: the other clients of the node.

use std::collections::BTreeSet;
use std::time::Duration;

use super::call::{Call, Planned, Refused, SYNTAX};
use crate::encoding::parse_i64;
use crate::protocol::surroundings::{ClientInfo, Pause};

pub(super) fn client_list(call: &mut Call<'_>) -> Planned {
    let mut wanted = None;
    if call.count() > 2 {
        if !call.is(2, "ID") || call.count() == 3 {
            return client_type(call);
        }
        let ids: Result<BTreeSet<i64>, _> = (3..call.count()).map(|i| call.integer(i)).collect();
        wanted = Some(ids.map_err(|_| Refused::from("ERR Invalid client ID"))?);
    }
    let clients = call.session.surroundings.clients();
    let is_wanted = |client: &&ClientInfo| {
        let is_named = |ids: &BTreeSet<i64>| ids.contains(&client.id.cast_signed());
        wanted.as_ref().is_none_or(is_named)
    };
    let text: String = clients.iter().filter(is_wanted).map(|client| line(client) + "\n").collect();
    Ok(call.written(|out| out.verbatim(&text)))
}

/// Every client is a normal one.
fn client_type(call: &Call<'_>) -> Planned {
    if !call.is(2, "TYPE") || call.count() != 4 {
        return Err(SYNTAX);
    }
    let clients =
        if is_normal(call, 3)? { call.session.surroundings.clients() } else { Vec::new() };
    let text: String = clients.iter().map(|client| line(client) + "\n").collect();
    Ok(call.written(|out| out.verbatim(&text)))
}

pub(super) fn client_info(call: &mut Call<'_>) -> Planned {
    let own = call.session.surroundings.own().as_ref().map(line).unwrap_or_default() + "\n";
    Ok(call.written(|out| out.verbatim(&own)))
}

fn line(client: &ClientInfo) -> String {
    let ClientInfo { id, address, local_address, age_s, idle_s, command, description } = client;
    let multi = description.queued.map_or("-1".to_owned(), |count| count.to_string());
    format!(
        "id={id} addr={address} laddr={local_address} name={} age={age_s} idle={idle_s} flags=N \
         db={} sub=0 psub=0 ssub=0 multi={multi} cmd={} user=default redir=-1 resp={} lib-name={} \
         lib-ver={}",
        description.name,
        description.db,
        if command.is_empty() { "NULL" } else { command },
        description.resp,
        description.library,
        description.library_version,
    )
}

/// Whether a word is the type of every client that we have; an error if it is none.
fn is_normal(call: &Call<'_>, i: usize) -> Result<bool, Refused> {
    let others = ["master", "replica", "slave", "pubsub"];
    if call.is(i, "normal") || others.iter().any(|other| call.is(i, other)) {
        return Ok(call.is(i, "normal"));
    }
    let kind = String::from_utf8_lossy(call.get(i));
    Err(format!("ERR Unknown client type '{kind}'").into())
}

/// Whose connection CLIENT KILL ends: all that are as every option says.
pub(super) fn client_kill(call: &mut Call<'_>) -> Planned {
    let mut clients = call.session.surroundings.clients();
    if call.count() == 3 {
        clients.retain(|client| client.address.as_bytes() == call.get(2));
        if clients.is_empty() {
            return Err("ERR No such client".into());
        }
        end(call, &clients);
        return call.ok();
    }
    let mut spares_itself = true;
    for i in (2..call.count()).step_by(2) {
        if i + 1 == call.count() {
            return Err(SYNTAX);
        }
        let value = call.get(i + 1);
        if call.is(i, "ID") {
            let id = parse_i64(value).filter(|&id| id > 0);
            let id = id.ok_or(Refused::from("ERR client-id should be greater than 0"))?;
            clients.retain(|client| client.id.cast_signed() == id);
        } else if call.is(i, "TYPE") {
            let is_normal = is_normal(call, i + 1)?;
            clients.retain(|_| is_normal);
        } else if call.is(i, "ADDR") {
            clients.retain(|client| client.address.as_bytes() == value);
        } else if call.is(i, "LADDR") {
            clients.retain(|client| client.local_address.as_bytes() == value);
        } else if call.is(i, "USER") {
            if value != b"default" {
                let name = String::from_utf8_lossy(value);
                return Err(format!("ERR No such user '{name}'").into());
            }
        } else if call.is(i, "SKIPME") && (call.is(i + 1, "yes") || call.is(i + 1, "no")) {
            spares_itself = call.is(i + 1, "yes");
        } else {
            return Err(SYNTAX);
        }
    }
    clients.retain(|client| !spares_itself || client.id != call.session.id);
    end(call, &clients);
    Ok(call.written(|out| out.integer(clients.len() as i64)))
}

/// Ends their connections; its own when it has its reply.
fn end(call: &mut Call<'_>, clients: &[ClientInfo]) {
    for client in clients {
        if client.id == call.session.id {
            call.session.is_over = true;
        } else {
            call.session.surroundings.kill(client.id);
        }
    }
}

pub(super) fn client_pause(call: &mut Call<'_>) -> Planned {
    let writes_only = match call.count() {
        3 => false,
        4 if call.is(3, "WRITE") || call.is(3, "ALL") => call.is(3, "WRITE"),
        4 => return Err("ERR CLIENT PAUSE mode must be WRITE or ALL".into()),
        _ => return Err(call.unknown_form()),
    };
    let length = timeout(call, 2)?;
    call.session.surroundings.pause(Some(Pause { length, writes_only }));
    call.ok()
}

/// A number of milliseconds.
pub(super) fn timeout(call: &Call<'_>, i: usize) -> Result<Duration, Refused> {
    let wrong = Refused::from("ERR timeout is not an integer or out of range");
    let ms = parse_i64(call.get(i)).ok_or(wrong)?;
    let ms = u64::try_from(ms).map_err(|_| Refused::from("ERR timeout is negative"))?;
    Ok(Duration::from_millis(ms))
}

pub(super) fn client_unpause(call: &mut Call<'_>) -> Planned {
    call.session.surroundings.pause(None);
    call.ok()
}
