//! Requests: the fields of every frame, read and written side by side.
//!
//! A frame says its length first, so it is taken whole or not at all, and its
//! fields are then read from bytes that share the connection's buffer.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Decoded, LIST, ONE, op, reply::Awaited};
use crate::encoding::{Malformed, Reader, put_bytes};
use crate::protocol::{Incoming, Limits, ProtocolError, Shape};
use crate::request::{
    Batch, Command, Condition, Consistency, DATABASES, ErrorKind, Expiry, Guard, Key, Reply,
    Request, SessionStamp,
};

/// CLEAR's database for all of them.
const ALL_DATABASES: u8 = 0xff;

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
        (Request::Ping, ONE)
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
        op::SESSION => (Request::OpenSession, ONE),
        op::STAMPED => fields.stamped()?,
        op::JOIN => (Request::Join { name: fields.name()?, peer_address: fields.name()? }, ONE),
        op::LEAVE => (Request::Leave { name: fields.name()? }, ONE),
        op::MEMBERS => (Request::Members, ONE),
        op::TRANSFER => {
            let to = Some(fields.name()?).filter(|name| !name.is_empty());
            (Request::Transfer { to }, ONE)
        }
        _ => (Request::Status, ONE),
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
            batch.guards.iter().all(|guard| exists(guard.key.db))
                && batch.commands.iter().filter_map(database).all(exists)
        }
        _ => true,
    };
    if sensible {
        Incoming::Ask(request)
    } else {
        Incoming::Answered(Reply::Error(ErrorKind::Invalid, "no such database".to_owned()))
    }
}

/// The one database a command is about.
fn database(command: &Command) -> Option<u8> {
    match command {
        Command::Get(key) | Command::Exists(key) | Command::Ttl(key) | Command::Delete(key) => {
            Some(key.db)
        }
        Command::Set { key, .. } | Command::Expire { key, .. } | Command::Increment { key, .. } => {
            Some(key.db)
        }
        Command::Count { db } => Some(*db),
        Command::Clear { db } => *db,
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
        Ok((Batch { guards, commands }, consistency, if is_list { LIST } else { ONE }))
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

fn has_consistency(opcode: u8) -> bool {
    matches!(opcode, op::GET | op::EXISTS | op::TTL | op::MGET | op::COUNT | op::BATCH)
}

fn plain_set(key: Key, value: Bytes) -> Command {
    Command::Set { key, value, expiry: Expiry::Never, condition: Condition::Always }
}

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
    put_opcode(request, output);
    let at = output.len();
    output.put_u32_le(0);
    Writer { output, limits }.fields(request)?;
    let length = output.len() - at - 4;
    Limits::check("request", length, limits.request_bytes.min(i32::MAX as usize))?;
    output[at..at + 4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(())
}

fn put_opcode(request: &Request, output: &mut BytesMut) {
    let extended = match request {
        Request::Ping => return output.put_u8(op::PING),
        Request::Run { batch, session, .. } => match session {
            Some(_) if batch.is_write() => op::STAMPED,
            _ => return output.put_u8(opcode_of_batch(batch)),
        },
        Request::OpenSession => op::SESSION,
        Request::Join { .. } => op::JOIN,
        Request::Leave { .. } => op::LEAVE,
        Request::Members => op::MEMBERS,
        Request::Transfer { .. } => op::TRANSFER,
        Request::Status => op::STATUS,
    };
    output.put_slice(&[op::EXTENDED, extended]);
}

/// The shortest way to say a batch.
pub(super) fn opcode_of_batch(batch: &Batch) -> u8 {
    let is_get = |command: &Command| matches!(command, Command::Get(_));
    match &batch.commands[..] {
        _ if !batch.guards.is_empty() => op::BATCH,
        [] => op::BATCH,
        [command] => opcode_of(command),
        commands if commands.iter().all(is_get) => op::MGET,
        commands if commands.iter().all(is_plain_set) => op::MSET,
        _ => op::BATCH,
    }
}

fn is_plain_set(command: &Command) -> bool {
    matches!(command, Command::Set { expiry: Expiry::Never, condition: Condition::Always, .. })
}

fn opcode_of(command: &Command) -> u8 {
    match command {
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
    }
}

/// Writes what [`Fields`] reads, within the same limits.
struct Writer<'a> {
    output: &'a mut BytesMut,
    limits: &'a Limits,
}

impl Writer<'_> {
    fn fields(&mut self, request: &Request) -> Result<(), ProtocolError> {
        match request {
            Request::Ping | Request::OpenSession | Request::Members | Request::Status => Ok(()),
            Request::Run { batch, consistency, session } => {
                let opcode = opcode_of_batch(batch);
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
                    self.output.put_u8(opcode_of(command));
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
                self.expiry(*expiry);
                self.condition(condition)?;
            }
            Command::Expire { key, expiry } => {
                self.key(key)?;
                self.expiry(*expiry);
            }
            Command::Increment { key, by } => {
                self.key(key)?;
                self.output.put_i64_le(*by);
            }
            Command::Clear { db } => self.output.put_u8(db.unwrap_or(ALL_DATABASES)),
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

    fn expiry(&mut self, expiry: Expiry) {
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
        }
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
