//! What MEMBERS and STATUS tell.
//!
//! Both begin with a version, and both may grow: new fields are only appended,
//! and a reader skips what stands behind those it knows. The version changes
//! only if a field changes its meaning; a reader refuses a version it does not
//! know.
//!
//! ```text
//! members | 01 | i32 count | that many: length | member … | newer fields … |
//! member  | string name | u128 node | string peer address | string client address |
//!         | u8: 1 voter + 2 leader + 4 with the next | u64 last entry on its disk |
//!         | newer fields … |
//!
//! status  | 01 | string name | u128 node | u128 cluster |
//!         | u8 role: 0 follower, 1 candidate, 2 leader, 3 learner, 4 joining |
//!         | string leader, empty if none is known |
//!         | u64 term | u64 last | u64 durable | u64 commit | u64 applied |
//!         | u64 log bytes | u64 keys | u64 memory bytes | u64 memory limit bytes |
//!         | u64 state hash | u64 log time, ms since 1970 | i64 clock offset, ms |
//!         | length | members … | i32 count | that many: string warning |
//!         | newer fields … |
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use crate::encoding::{Malformed, Reader, put_bytes};
use crate::request::{MemberInfo, RoleName, Status};

const VERSION: u8 = 1;
const VOTER: u8 = 1;
const LEADER: u8 = 2;
const WITH_DURABLE: u8 = 4;

/// The least a string and a member's record take: their lengths.
const LEAST_RECORD_BYTES: usize = 4;

const ROLES: [RoleName; 5] = [
    RoleName::Follower,
    RoleName::Candidate,
    RoleName::Leader,
    RoleName::Learner,
    RoleName::Joining,
];

pub(super) fn put_members(output: &mut BytesMut, members: &[MemberInfo]) {
    output.put_u8(VERSION);
    output.put_u32_le(members.len() as u32);
    for member in members {
        let mut record = BytesMut::new();
        put_member(&mut record, member);
        put_bytes(output, &record);
    }
}

fn put_member(output: &mut BytesMut, member: &MemberInfo) {
    put_bytes(output, member.name.as_bytes());
    output.put_u128_le(member.node);
    put_bytes(output, member.peer_address.as_bytes());
    put_bytes(output, member.client_address.as_bytes());
    let voter = if member.voter { VOTER } else { 0 };
    let leader = if member.leader { LEADER } else { 0 };
    let known = if member.durable.is_some() { WITH_DURABLE } else { 0 };
    output.put_u8(voter | leader | known);
    if let Some(durable) = member.durable {
        output.put_u64_le(durable);
    }
}

pub(super) fn members(payload: Bytes) -> Result<Vec<MemberInfo>, Malformed> {
    let mut reader = versioned(payload)?;
    let count = reader.count(LEAST_RECORD_BYTES)?;
    (0..count).map(|_| member(Reader::new(reader.bytes()?))).collect()
}

fn member(mut record: Reader) -> Result<MemberInfo, Malformed> {
    let name = record.string()?;
    let node = record.u128()?;
    let peer_address = record.string()?;
    let client_address = record.string()?;
    let flags = record.u8()?;
    let (voter, leader) = (flags & VOTER != 0, flags & LEADER != 0);
    let durable = if flags & WITH_DURABLE != 0 { Some(record.u64()?) } else { None };
    Ok(MemberInfo { name, node, peer_address, client_address, voter, leader, durable })
}

fn versioned(payload: Bytes) -> Result<Reader, Malformed> {
    let mut reader = Reader::new(payload);
    match reader.u8()? {
        VERSION => Ok(reader),
        _ => Err(Malformed("a newer version than this client knows")),
    }
}

pub(super) fn put_status(output: &mut BytesMut, status: &Status) {
    output.put_u8(VERSION);
    put_bytes(output, status.name.as_bytes());
    output.put_u128_le(status.node);
    output.put_u128_le(status.cluster);
    output.put_u8(role_byte(status.role));
    put_bytes(output, status.leader.as_deref().unwrap_or_default().as_bytes());
    let numbers = [
        status.term,
        status.last,
        status.durable,
        status.commit,
        status.applied,
        status.log_bytes,
        status.keys,
        status.memory_bytes,
        status.memory_limit_bytes,
        status.state_hash,
        status.log_time_ms,
    ];
    numbers.into_iter().for_each(|number| output.put_u64_le(number));
    output.put_i64_le(status.clock_offset_ms);
    let mut members = BytesMut::new();
    put_members(&mut members, &status.members);
    put_bytes(output, &members);
    output.put_u32_le(status.warnings.len() as u32);
    status.warnings.iter().for_each(|warning| put_bytes(output, warning.as_bytes()));
}

fn role_byte(role: RoleName) -> u8 {
    match role {
        RoleName::Follower => 0,
        RoleName::Candidate => 1,
        RoleName::Leader => 2,
        RoleName::Learner => 3,
        RoleName::Joining => 4,
    }
}

pub(super) fn status(payload: Bytes) -> Result<Status, Malformed> {
    let mut reader = versioned(payload)?;
    Ok(Status {
        name: reader.string()?,
        node: reader.u128()?,
        cluster: reader.u128()?,
        role: *ROLES.get(usize::from(reader.u8()?)).ok_or(Malformed("unknown role"))?,
        leader: Some(reader.string()?).filter(|name| !name.is_empty()),
        term: reader.u64()?,
        last: reader.u64()?,
        durable: reader.u64()?,
        commit: reader.u64()?,
        applied: reader.u64()?,
        log_bytes: reader.u64()?,
        keys: reader.u64()?,
        memory_bytes: reader.u64()?,
        memory_limit_bytes: reader.u64()?,
        state_hash: reader.u64()?,
        log_time_ms: reader.u64()?,
        clock_offset_ms: reader.i64()?,
        members: members(reader.bytes()?)?,
        warnings: strings(&mut reader)?,
    })
}

fn strings(reader: &mut Reader) -> Result<Vec<String>, Malformed> {
    let count = reader.count(LEAST_RECORD_BYTES)?;
    (0..count).map(|_| reader.string()).collect()
}
