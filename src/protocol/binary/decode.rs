//! Requests as a node reads them.
//!
//! A frame says its length first, so it is taken whole or not at all, and its
//! fields are then read from bytes that share the connection's buffer.

use bytes::{Buf, Bytes, BytesMut};

use super::{ALL_DATABASES, Decoded, Shape, has_consistency, op};
use crate::encoding::{Malformed, Reader};
use crate::protocol::{Incoming, Limits, ProtocolError};
use crate::request::{
    Batch, Command, Condition, Consistency, DATABASES, ErrorKind, Expiry, Guard, Key, Reply,
    Request, SessionStamp,
};

/// The least a command (CLEAR), a guard and a key take.
const LEAST_COMMAND_BYTES: usize = 2;
const LEAST_GUARD_BYTES: usize = 1 + 4 + 8;
const LEAST_KEY_BYTES: usize = 1 + 4;
const LEAST_PAIR_BYTES: usize = LEAST_KEY_BYTES + 4;

/// Takes the request of opcodes 0x10 to 0x1E off the front of `input`.
pub(super) fn decode(opcode: u8, input: &mut BytesMut, limits: &Limits) -> Decoded {
    if !matches!(opcode, op::PING..=op::EXPIRE | op::PERSIST..=op::BATCH) {
        return Err(ProtocolError::UnknownOpcode(opcode));
    }
    let Some(body) = take_frame(input, 1, limits)? else { return Ok(None) };
    let mut fields = Fields { reader: Reader::new(body), limits };
    let decoded = if opcode == op::PING {
        (Request::Ping, Shape::One)
    } else {
        let (batch, consistency, shape) = fields.run(opcode)?;
        (Request::Run { batch, consistency, session: None }, shape)
    };
    fields.reader.finish()?;
    Ok(Some(decoded))
}

/// Takes a request of opcode 0x1F off the front of `input`.
pub(super) fn decode_extended(input: &mut BytesMut, limits: &Limits) -> Decoded {
    let Some(&opcode) = input.get(1) else { return Ok(None) };
    if !matches!(opcode, op::SESSION..=op::STATUS) {
        return Err(ProtocolError::UnknownOpcode(opcode));
    }
    let Some(body) = take_frame(input, 2, limits)? else { return Ok(None) };
    let mut fields = Fields { reader: Reader::new(body), limits };
    let decoded = match opcode {
        op::SESSION => (Request::OpenSession, Shape::One),
        op::STAMPED => fields.stamped()?,
        op::JOIN => {
            (Request::Join { name: fields.name()?, peer_address: fields.name()? }, Shape::One)
        }
        op::LEAVE => (Request::Leave { name: fields.name()? }, Shape::One),
        op::MEMBERS => (Request::Members, Shape::One),
        op::TRANSFER => {
            let to = Some(fields.name()?).filter(|name| !name.is_empty());
            (Request::Transfer { to }, Shape::One)
        }
        _ => (Request::Status, Shape::One),
    };
    fields.reader.finish()?;
    Ok(Some(decoded))
}

/// Takes the frame whose length stands at `head` off the front of `input`.
fn take_frame(
    input: &mut BytesMut,
    head: usize,
    limits: &Limits,
) -> Result<Option<Bytes>, ProtocolError> {
    let Some(length) = input[head..].first_chunk() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    Limits::check("request", length, limits.request_bytes)?;
    if input.len() - head - 4 < length {
        return Ok(None);
    }
    input.advance(head + 4);
    Ok(Some(input.split_to(length).freeze()))
}

/// A request as it is, or its answer if it names what does not exist.
pub(super) fn sensible(request: Request) -> Incoming {
    let exists = |db: u8| db < DATABASES;
    let sensible = match &request {
        Request::Run { batch, .. } => {
            let mut sensible = batch.guards.iter().all(|guard| exists(guard.key.db));
            for command in &batch.commands {
                sensible &= command.database().is_none_or(exists);
                command.each_key(&mut |key| sensible &= exists(key.db));
            }
            sensible
        }
        _ => true,
    };
    if sensible {
        Incoming::Ask(request)
    } else {
        Incoming::Answered(Reply::Error(ErrorKind::Invalid, "no such database".to_owned()))
    }
}

/// Reads fields, each within its limit.
struct Fields<'a> {
    reader: Reader,
    limits: &'a Limits,
}

impl Fields<'_> {
    /// Bytes of at most `limit`.
    fn bytes(&mut self, what: &'static str, limit: usize) -> Result<Bytes, ProtocolError> {
        let length = self.reader.u32()? as usize;
        Limits::check(what, length, limit)?;
        Ok(self.reader.take(length)?)
    }

    fn key(&mut self) -> Result<Key, ProtocolError> {
        let db = self.reader.u8()?;
        Ok(Key { db, name: self.bytes("key", self.limits.key_bytes)? })
    }

    fn value(&mut self) -> Result<Bytes, ProtocolError> {
        self.bytes("value", self.limits.value_bytes)
    }

    fn name(&mut self) -> Result<String, ProtocolError> {
        Ok(super::text(&self.bytes("name", self.limits.name_bytes)?)?)
    }

    /// A count of things that are at least so large each.
    fn count(&mut self, what: &'static str, least: usize) -> Result<usize, ProtocolError> {
        let mut ahead = self.reader.clone();
        Limits::check(what, ahead.u32()? as usize, self.limits.batch_commands)?;
        Ok(self.reader.count(least)?)
    }

    /// That many things, each read by `read`.
    fn list<T>(
        &mut self,
        what: &'static str,
        least: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, ProtocolError>,
    ) -> Result<Vec<T>, ProtocolError> {
        let count = self.count(what, least)?;
        (0..count).map(|_| read(self)).collect()
    }

    fn consistency(&mut self) -> Result<Consistency, ProtocolError> {
        let stale = self.reader.bool()?;
        Ok(if stale { Consistency::Stale } else { Consistency::Linearizable })
    }

    fn expiry(&mut self) -> Result<Expiry, ProtocolError> {
        match self.reader.u8()? {
            0 => Ok(Expiry::Never),
            1 => Ok(Expiry::Keep),
            2 => Ok(Expiry::AfterMs(self.reader.u64()?)),
            3 => Ok(Expiry::AtMs(self.reader.u64()?)),
            _ => Err(Malformed("unknown kind of expiry").into()),
        }
    }

    fn condition(&mut self) -> Result<Condition, ProtocolError> {
        match self.reader.u8()? {
            0 => Ok(Condition::Always),
            1 => Ok(Condition::IfAbsent),
            2 => Ok(Condition::IfPresent),
            3 => Ok(Condition::IfValue(self.value()?)),
            4 => Ok(Condition::IfVersion(self.reader.u64()?)),
            _ => Err(Malformed("unknown kind of condition").into()),
        }
    }

    fn guard(&mut self) -> Result<Guard, ProtocolError> {
        Ok(Guard { key: self.key()?, version: self.reader.u64()? })
    }

    /// A command's fields without consistency.
    fn command(&mut self, opcode: u8) -> Result<Command, ProtocolError> {
        Ok(match opcode {
            op::GET => Command::Get(self.key()?),
            op::EXISTS => Command::Exists(self.key()?),
            op::TTL => Command::Ttl(self.key()?),
            op::COUNT => Command::Count { db: self.reader.u8()? },
            op::SET => Command::Set {
                key: self.key()?,
                value: self.value()?,
                expiry: self.expiry()?,
                condition: self.condition()?,
            },
            op::DEL => Command::Delete(self.key()?),
            op::EXPIRE => Command::Expire { key: self.key()?, expiry: self.expiry()? },
            op::PERSIST => Command::Expire { key: self.key()?, expiry: Expiry::Never },
            op::INCRBY => Command::Increment { key: self.key()?, by: self.reader.i64()? },
            op::CLEAR => {
                let db = self.reader.u8()?;
                Command::Clear { db: Some(db).filter(|&db| db != ALL_DATABASES) }
            }
            _ => return Err(ProtocolError::UnknownOpcode(opcode)),
        })
    }

    /// One pair of MSET.
    fn pair(&mut self) -> Result<Command, ProtocolError> {
        Ok(plain_set(self.key()?, self.value()?))
    }

    /// The fields of any request that runs commands.
    fn run(&mut self, opcode: u8) -> Result<(Batch, Consistency, Shape), ProtocolError> {
        let consistency =
            if has_consistency(opcode) { self.consistency()? } else { Consistency::Linearizable };
        let mut guards = Vec::new();
        let commands = match opcode {
            op::MGET => {
                self.list("count", LEAST_KEY_BYTES, |fields| Ok(Command::Get(fields.key()?)))?
            }
            op::MSET => self.list("count", LEAST_PAIR_BYTES, Self::pair)?,
            op::BATCH => {
                guards = self.list("count", LEAST_GUARD_BYTES, Self::guard)?;
                self.list("count", LEAST_COMMAND_BYTES, |fields| {
                    let opcode = fields.reader.u8()?;
                    fields.command(opcode)
                })?
            }
            _ => vec![self.command(opcode)?],
        };
        let is_list = matches!(opcode, op::MGET | op::MSET | op::BATCH);
        Ok((
            Batch { guards, commands },
            consistency,
            if is_list { Shape::List } else { Shape::One },
        ))
    }

    fn stamped(&mut self) -> Result<(Request, Shape), ProtocolError> {
        let stamp = SessionStamp { session: self.reader.u64()?, sequence: self.reader.u64()? };
        let opcode = self.reader.u8()?;
        let (batch, consistency, shape) = self.run(opcode)?;
        if !batch.is_write() {
            return Err(Malformed("only a write is stamped").into());
        }
        Ok((Request::Run { batch, consistency, session: Some(stamp) }, shape))
    }
}

fn plain_set(key: Key, value: Bytes) -> Command {
    Command::Set { key, value, expiry: Expiry::Never, condition: Condition::Always }
}
