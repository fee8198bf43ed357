//! Requests as a client writes them, in the shortest form that says them.
//!
//! The limits are those that nodes apply: what a node would close the
//! connection for is refused here, before it is sent.

use bytes::{BufMut, BytesMut};

use super::{ALL_DATABASES, has_consistency, op, reply::Awaited};
use crate::encoding::put_bytes;
use crate::protocol::{Limits, ProtocolError};
use crate::request::{Batch, Command, Condition, Consistency, Expiry, Key, Request};

/// Appends a request in the extended form and says what reply to wait for.
///
/// Nothing is appended if the request is over a limit: a node would close the
/// connection on it.
pub fn encode_request(
    request: &Request,
    limits: &Limits,
    output: &mut BytesMut,
) -> Result<Awaited, ProtocolError> {
    let start = output.len();
    let encoded = encode_frame(request, limits, output);
    if encoded.is_err() {
        output.truncate(start);
    }
    encoded.map(|()| Awaited::of(request))
}

fn encode_frame(
    request: &Request,
    limits: &Limits,
    output: &mut BytesMut,
) -> Result<(), ProtocolError> {
    put_opcode(request, output)?;
    let at = output.len();
    output.put_u32_le(0);
    Writer { output, limits }.fields(request)?;
    let length = output.len() - at - 4;
    Limits::check("request", length, limits.request_bytes.min(i32::MAX as usize))?;
    output[at..at + 4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(())
}

fn put_opcode(request: &Request, output: &mut BytesMut) -> Result<(), ProtocolError> {
    let extended = match request {
        Request::Ping => {
            output.put_u8(op::PING);
            return Ok(());
        }
        Request::Run { batch, session, .. } => match session {
            Some(_) if batch.is_write() => op::STAMPED,
            _ => {
                output.put_u8(opcode_of_batch(batch)?);
                return Ok(());
            }
        },
        Request::OpenSession => op::SESSION,
        Request::Join { .. } => op::JOIN,
        Request::Leave { .. } => op::LEAVE,
        Request::Members => op::MEMBERS,
        Request::Transfer { .. } => op::TRANSFER,
        Request::Status => op::STATUS,
        Request::AwaitDurable { .. } | Request::Usage(_) => return Err(ProtocolError::Unspoken),
    };
    output.put_slice(&[op::EXTENDED, extended]);
    Ok(())
}

/// The shortest way to say a batch.
pub(super) fn opcode_of_batch(batch: &Batch) -> Result<u8, ProtocolError> {
    let is_get = |command: &Command| matches!(command, Command::Get(_));
    Ok(match &batch.commands[..] {
        _ if !batch.guards.is_empty() => op::BATCH,
        [] => op::BATCH,
        [command] => opcode_of(command)?,
        commands if commands.iter().all(is_get) => op::MGET,
        commands if commands.iter().all(is_plain_set) => op::MSET,
        _ => op::BATCH,
    })
}

fn is_plain_set(command: &Command) -> bool {
    matches!(command, Command::Set { expiry: Expiry::Never, condition: Condition::Always, .. })
}

fn opcode_of(command: &Command) -> Result<u8, ProtocolError> {
    Ok(match command {
        Command::Get(_) => op::GET,
        Command::Exists(_) => op::EXISTS,
        Command::Ttl(_) => op::TTL,
        Command::Count { .. } => op::COUNT,
        Command::Set { .. } => op::SET,
        Command::Delete(_) => op::DEL,
        Command::Expire { expiry: Expiry::Never, .. } => op::PERSIST,
        Command::Expire { .. } => op::EXPIRE,
        Command::Increment { .. } => op::INCRBY,
        Command::Clear { .. } => op::CLEAR,
        _ => return Err(ProtocolError::Unspoken),
    })
}

/// Writes the fields of frames, each within its limit.
struct Writer<'a> {
    output: &'a mut BytesMut,
    limits: &'a Limits,
}

impl Writer<'_> {
    fn fields(&mut self, request: &Request) -> Result<(), ProtocolError> {
        match request {
            Request::Ping | Request::OpenSession | Request::Members | Request::Status => Ok(()),
            Request::AwaitDurable { .. } | Request::Usage(_) => Err(ProtocolError::Unspoken),
            Request::Run { batch, consistency, session } => {
                let opcode = opcode_of_batch(batch)?;
                if let Some(stamp) = session.filter(|_| batch.is_write()) {
                    self.output.put_u64_le(stamp.session);
                    self.output.put_u64_le(stamp.sequence);
                    self.output.put_u8(opcode);
                }
                self.run(opcode, batch, *consistency)
            }
            Request::Join { name, peer_address } => {
                self.name(name)?;
                self.name(peer_address)
            }
            Request::Leave { name } => self.name(name),
            Request::Transfer { to } => self.name(to.as_deref().unwrap_or_default()),
        }
    }

    fn run(
        &mut self,
        opcode: u8,
        batch: &Batch,
        consistency: Consistency,
    ) -> Result<(), ProtocolError> {
        if has_consistency(opcode) {
            self.output.put_u8(u8::from(consistency == Consistency::Stale));
        }
        if opcode == op::BATCH {
            self.count(batch.guards.len())?;
            for guard in &batch.guards {
                self.key(&guard.key)?;
                self.output.put_u64_le(guard.version);
            }
        }
        if matches!(opcode, op::MGET | op::MSET | op::BATCH) {
            self.count(batch.commands.len())?;
        }
        for command in &batch.commands {
            match (opcode, command) {
                (op::MSET, Command::Set { key, value, .. }) => {
                    self.key(key)?;
                    self.value(value)?;
                }
                (op::BATCH, command) => {
                    self.output.put_u8(opcode_of(command)?);
                    self.command(command)?;
                }
                (_, command) => self.command(command)?,
            }
        }
        Ok(())
    }

    fn command(&mut self, command: &Command) -> Result<(), ProtocolError> {
        match command {
            Command::Get(key)
            | Command::Exists(key)
            | Command::Ttl(key)
            | Command::Delete(key)
            | Command::Expire { key, expiry: Expiry::Never } => self.key(key)?,
            Command::Count { db } => self.output.put_u8(*db),
            Command::Set { key, value, expiry, condition } => {
                self.key(key)?;
                self.value(value)?;
                self.expiry(*expiry)?;
                self.condition(condition)?;
            }
            Command::Expire { key, expiry } => {
                self.key(key)?;
                self.expiry(*expiry)?;
            }
            Command::Increment { key, by } => {
                self.key(key)?;
                self.output.put_i64_le(*by);
            }
            Command::Clear { db } => self.output.put_u8(db.unwrap_or(ALL_DATABASES)),
            _ => return Err(ProtocolError::Unspoken),
        }
        Ok(())
    }

    fn bytes(
        &mut self,
        what: &'static str,
        bytes: &[u8],
        limit: usize,
    ) -> Result<(), ProtocolError> {
        Limits::check(what, bytes.len(), limit)?;
        put_bytes(self.output, bytes);
        Ok(())
    }

    fn key(&mut self, key: &Key) -> Result<(), ProtocolError> {
        self.output.put_u8(key.db);
        self.bytes("key", &key.name, self.limits.key_bytes)
    }

    fn value(&mut self, value: &[u8]) -> Result<(), ProtocolError> {
        self.bytes("value", value, self.limits.value_bytes)
    }

    fn name(&mut self, name: &str) -> Result<(), ProtocolError> {
        self.bytes("name", name.as_bytes(), self.limits.name_bytes)
    }

    fn count(&mut self, count: usize) -> Result<(), ProtocolError> {
        Limits::check("count", count, self.limits.batch_commands)?;
        self.output.put_u32_le(count as u32);
        Ok(())
    }

    fn expiry(&mut self, expiry: Expiry) -> Result<(), ProtocolError> {
        match expiry {
            Expiry::Never => self.output.put_u8(0),
            Expiry::Keep => self.output.put_u8(1),
            Expiry::AfterMs(ms) => {
                self.output.put_u8(2);
                self.output.put_u64_le(ms);
            }
            Expiry::AtMs(ms) => {
                self.output.put_u8(3);
                self.output.put_u64_le(ms);
            }
            Expiry::LaterMs(_) => return Err(ProtocolError::Unspoken),
        }
        Ok(())
    }

    fn condition(&mut self, condition: &Condition) -> Result<(), ProtocolError> {
        match condition {
            Condition::Always => self.output.put_u8(0),
            Condition::IfAbsent => self.output.put_u8(1),
            Condition::IfPresent => self.output.put_u8(2),
            Condition::IfValue(value) => {
                self.output.put_u8(3);
                self.value(value)?;
            }
            Condition::IfVersion(version) => {
                self.output.put_u8(4);
                self.output.put_u64_le(*version);
            }
            Condition::UnlessValue(_) | Condition::IfDigest(_) | Condition::UnlessDigest(_) => {
                return Err(ProtocolError::Unspoken);
            }
        }
        Ok(())
    }
}

/// Appends a request in the classic form, or nothing if it cannot be said so:
/// a GET, a SET with at most a lifetime in whole seconds, or a JOIN.
pub fn encode_classic(request: &Request, output: &mut BytesMut) -> Option<Awaited> {
    if let Request::Join { name, peer_address } = request {
        output.put_u8(op::CLASSIC_JOIN);
        put_bytes(output, name.as_bytes());
        put_bytes(output, peer_address.as_bytes());
        return Some(Awaited::ClassicJoin);
    }
    let Request::Run { batch, consistency: Consistency::Linearizable, session: None } = request
    else {
        return None;
    };
    match &batch.commands[..] {
        _ if !batch.guards.is_empty() => None,
        [Command::Get(Key { db: 0, name })] => {
            output.put_u8(op::CLASSIC_GET);
            put_bytes(output, name);
            Some(Awaited::ClassicGet)
        }
        [
            Command::Set { key: Key { db: 0, name }, value, expiry, condition: Condition::Always },
        ] => {
            let ttl_s = whole_seconds(*expiry)?;
            output.put_u8(op::CLASSIC_SET);
            put_bytes(output, name);
            put_bytes(output, value);
            output.put_i32_le(ttl_s);
            Some(Awaited::ClassicSet)
        }
        _ => None,
    }
}

fn whole_seconds(expiry: Expiry) -> Option<i32> {
    match expiry {
        Expiry::Never => Some(0),
        Expiry::AfterMs(ms) if ms > 0 && ms % 1000 == 0 => i32::try_from(ms / 1000).ok(),
        _ => None,
    }
}
